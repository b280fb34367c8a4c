use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::arguments::{Reading, Taken};
use super::contents::{ContentStore, Fetch, FolderError};
use super::scope::Rendered;
use super::yaml::Node;
use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::kind::Shape;

/// A state file in its place among those that include each other.
#[derive(Debug)]
pub(super) struct StateFile {
    /// As the user would type it.
    pub path: PathBuf,
    /// The file that includes it.
    pub includer: Option<Arc<StateFile>>,
    /// Where the project is not trusted: the folder that nothing may be read outside of.
    pub confined: Option<Arc<Path>>,
}

impl StateFile {
    /// The folders in which its names are looked for: its own, then those of what includes it.
    pub fn folders(&self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        let mut file = Some(self);
        while let Some(current) = file {
            let folder = current.path.parent().unwrap_or(Path::new("")).to_owned();
            if !folders.contains(&folder) {
                folders.push(folder);
            }
            file = current.includer.as_deref();
        }
        folders
    }

    /// Whether a file may be read: with `--untrusted` only those of the project.
    pub fn may_read(&self, path: &Path) -> bool {
        self.confined.as_ref().is_none_or(|project| is_inside(path, project))
    }

    /// Finds what a state names: beside the file and then beside the including ones, each time in
    /// the folder `within` first (`templates`, `files`; empty for none).
    pub fn find(&self, name: &str, within: &str, span: Span) -> Result<PathBuf, Diagnostic> {
        let mut places: Vec<PathBuf> = Vec::new();
        for folder in self.folders() {
            for place in [folder.join(within).join(name), folder.join(name)] {
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        match places.iter().find(|place| place.exists()) {
            Some(place) if !self.may_read(place) => {
                let message = format!("`{name}` is outside of the project");
                Err(Diagnostic::error("untrusted", message)
                    .at(span, "")
                    .help("with --untrusted nothing outside of the project is read"))
            }
            Some(place) => Ok(place.clone()),
            None => Err(missing(name, &places, span)),
        }
    }
}

/// Whether a path, links resolved, lies in a folder.
fn is_inside(path: &Path, folder: &Path) -> bool {
    match (path.canonicalize(), folder.canonicalize()) {
        (Ok(path), Ok(folder)) => path.starts_with(folder),
        _ => false,
    }
}

fn missing(name: &str, places: &[PathBuf], span: Span) -> Diagnostic {
    let listed: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    let label =
        near(name, places).map_or_else(String::new, |near| format!("did you mean `{near}`?"));
    Diagnostic::error("missing-file", format!("there is no file `{name}`"))
        .at(span, label)
        .note(format!("looked for {}", listed.join(", ")))
}

/// The name of a file that exists and was probably meant, in the folder part of `name`.
fn near(name: &str, places: &[PathBuf]) -> Option<String> {
    let (folder, last) = match name.rsplit_once('/') {
        Some((folder, last)) => (Some(folder), last),
        None => (None, name),
    };
    let mut names: Vec<String> = places
        .iter()
        .filter_map(|place| place.parent())
        .map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    let near = nearest(last, names.iter().map(String::as_str))?;
    Some(match folder {
        Some(folder) => format!("{folder}/{near}"),
        None => near.to_owned(),
    })
}

/// Turns names of local contents into contents: it looks for them, renders and hashes.
pub(super) struct Materials<'a> {
    /// The file in which the state stands.
    pub file: &'a StateFile,
    /// Where contents are held.
    pub contents: &'a ContentStore,
    /// For `http(s)` addresses, if they can be fetched.
    pub fetch: Option<&'a dyn Fetch>,
}

impl Materials<'_> {
    /// Makes the content that an argument of such a shape names. Gives the field of the kind's
    /// struct and its value; `others` are the arguments beside it.
    pub fn make(
        &self,
        reading: &mut Reading<'_>,
        shape: &Shape,
        text: &str,
        node: &Node,
        others: &Map<String, Value>,
    ) -> (&'static str, Taken) {
        let span = node.span;
        if *shape != Shape::Content && !reading.lenient && reading.scope.facts_lead(node, text) {
            let message = format!("a fact leads the file name `{text}` into another folder");
            let diagnostic = Diagnostic::error("outside-data", message)
                .at(span, "")
                .help("facts are data from outside: what they name must have no `/` and no `..`");
            return ("content", refuse(reading, diagnostic));
        }
        let made = match shape {
            Shape::Content => return ("content", self.hold(text)),
            Shape::Template => self.template(reading, text, span),
            Shape::LocalFile => self.local_file(reading, text, span, others),
            _ => return ("entries", self.local_folder(reading, text, span, others)),
        };
        ("content", made)
    }

    fn hold(&self, text: &str) -> Taken {
        content(self.contents.text(text.as_bytes()))
    }

    fn template(&self, reading: &mut Reading<'_>, name: &str, span: Span) -> Taken {
        let path = match self.file.find(name, "templates", span) {
            Ok(path) => path,
            Err(diagnostic) => return refuse(reading, diagnostic),
        };
        if reading.lenient {
            return Taken::Unknown;
        }
        match reading.scope.render_file(&path, span) {
            Ok(Rendered::Known(text, mask)) => {
                reading.mask.add(&mask);
                self.hold(&text)
            }
            Ok(Rendered::Unknown) => Taken::Unknown,
            Err(diagnostic) => refuse(reading, diagnostic),
        }
    }

    fn local_file(
        &self,
        reading: &mut Reading<'_>,
        name: &str,
        span: Span,
        others: &Map<String, Value>,
    ) -> Taken {
        // The key of a package source may stand in the state file itself.
        if name.starts_with("-----BEGIN PGP ") {
            return self.hold(name);
        }
        if name.starts_with("http://") || name.starts_with("https://") {
            return self.fetched(reading, name, span, others);
        }
        if others.contains_key("checksum") {
            let message = "`checksum` is for what is fetched, and this is a local file";
            return refuse(reading, Diagnostic::error("exclusive-arguments", message).at(span, ""));
        }
        let path = match self.file.find(name, "files", span) {
            Ok(path) => path,
            Err(diagnostic) => return refuse(reading, diagnostic),
        };
        if path.is_dir() {
            let message = format!("`{name}` is a folder");
            let diagnostic = Diagnostic::error("not-a-file", message)
                .at(span, "")
                .help("`tree` copies a folder with all that is in it");
            return refuse(reading, diagnostic);
        }
        match self.contents.file(&path) {
            Ok(id) => content(id),
            Err(error) => {
                let message = format!("{} cannot be read: {error}", path.display());
                refuse(reading, Diagnostic::error("unreadable-file", message).at(span, ""))
            }
        }
    }

    fn fetched(
        &self,
        reading: &mut Reading<'_>,
        url: &str,
        span: Span,
        others: &Map<String, Value>,
    ) -> Taken {
        let given = |name: &str| others.get(name).and_then(Value::as_str);
        let expected = match (given("checksum"), given("fingerprint")) {
            (Some(checksum), _) => checksum.to_owned(),
            (None, Some(fingerprint)) => format!("openpgp:{fingerprint}"),
            (None, None) => {
                let message = "an address needs a `checksum` or `fingerprint` beside it";
                let diagnostic = Diagnostic::error("missing-checksum", message)
                    .at(span, "")
                    .help("`checksum: sha256:HEX` for a file, `fingerprint: HEX` for a key, so that what is fetched is what was meant");
                return refuse(reading, diagnostic);
            }
        };
        if reading.lenient {
            return Taken::Unknown;
        }
        let Some(fetch) = self.fetch else {
            let message = "addresses cannot be fetched here";
            let diagnostic = Diagnostic::error("unsupported", message)
                .at(span, "")
                .help("fetch the file and name its local path");
            return refuse(reading, diagnostic);
        };
        match self.contents.fetched(fetch, url, &expected) {
            Ok(id) => content(id),
            Err(error) => {
                let message = format!("{url} cannot be fetched: {error}");
                refuse(reading, Diagnostic::error("unreadable-file", message).at(span, ""))
            }
        }
    }

    fn local_folder(
        &self,
        reading: &mut Reading<'_>,
        name: &str,
        span: Span,
        others: &Map<String, Value>,
    ) -> Taken {
        let path = match self.file.find(name, "files", span) {
            Ok(path) => path,
            Err(diagnostic) => return refuse(reading, diagnostic),
        };
        if !path.is_dir() {
            let message = format!("`{name}` is not a folder");
            let diagnostic = Diagnostic::error("not-a-folder", message)
                .at(span, "")
                .help("`file` with `source` copies a single file");
            return refuse(reading, diagnostic);
        }
        if reading.lenient {
            return Taken::Unknown;
        }
        let exclude: Vec<String> = others
            .get("exclude")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|glob| glob.as_str().map(str::to_owned))
            .collect();
        match self.contents.folder(&path, &exclude) {
            Ok(listing) => Taken::Known(listing.as_ref().clone()),
            Err(FolderError::Glob(error)) => {
                let message = format!("`exclude` has a glob that cannot be read: {error}");
                refuse(reading, Diagnostic::error("bad-glob", message).at(span, ""))
            }
            Err(error) => {
                let message = format!("the folder cannot be read: {error}");
                refuse(reading, Diagnostic::error("unreadable-file", message).at(span, ""))
            }
        }
    }
}

fn content(id: crate::world::ContentId) -> Taken {
    match serde_json::to_value(id) {
        Ok(value) => Taken::Known(value),
        Err(_) => Taken::Refused,
    }
}

fn refuse(reading: &mut Reading<'_>, diagnostic: Diagnostic) -> Taken {
    reading.diagnostics.push(diagnostic);
    Taken::Refused
}
