use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use super::lenient::{Backslashes, Lenient, expression_end};
use super::lookup::{Lookup, Query};
use super::scope::OMIT;
use super::{filters, python, taint, value};
use crate::diagnostic::{SourceId, Sources};
use crate::secret::Keyring;

/// Most instructions that one evaluation may take.
const FUEL: u64 = 10_000_000;
/// Largest template file, in bytes.
const FILE_LIMIT: u64 = 16 << 20;

/// What `lookup` may see of the machine that converge runs on.
#[derive(Clone, Debug, Default)]
pub struct LookupEnvironment {
    /// Environment variables, for `env` and `pipe`.
    pub variables: BTreeMap<String, String>,
    /// The project's folder: where relative names begin, and what `file` may not leave when the
    /// project is not trusted.
    pub project: PathBuf,
}

/// All templates of a project: the Jinja environment, and what was read and compiled so far.
/// Shared by all hosts.
pub struct Templates {
    environment: Arc<Environment<'static>>,
    /// Those of template files that begin with `#jinja2:`, by that line.
    headed: Mutex<HashMap<String, Arc<Environment<'static>>>>,
    files: TemplateFiles,
    keyring: Arc<Keyring>,
}

/// Reads template files.
#[derive(Clone)]
pub(super) struct TemplateFiles {
    sources: Arc<Sources>,
    project: PathBuf,
    read: Arc<Files>,
}

impl TemplateFiles {
    /// The text of a file, read once.
    pub(super) fn read(&self, path: &Path) -> Result<Arc<str>, String> {
        self.read.read(path, &self.sources, &self.project).map(|(_, text)| text)
    }
}

impl fmt::Debug for Templates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Templates")
            .field("project", &self.files.project)
            .finish_non_exhaustive()
    }
}

/// Template files by path, each read once.
#[derive(Default)]
pub(super) struct Files(Mutex<HashMap<PathBuf, (SourceId, Arc<str>)>>);

/// What a compiled template is made from. The engine keeps compiled templates by name, so the name
/// holds everything that they are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Text with templates in it; gives a string, or the value of its only expression.
    Text,
    /// Exactly one `{{ … }}`; gives its value.
    Braced,
    /// An expression without braces; gives its value.
    Bare,
    /// A file; gives a string.
    File,
    /// A file that is not there.
    Missing,
}

/// What an expression without braces is wrapped in.
const BARE: (&str, &str) = ("{{ ", " }}");

impl Form {
    fn letter(self) -> char {
        match self {
            Self::Text => 't',
            Self::Braced => 'e',
            Self::Bare => 'b',
            Self::File => 'f',
            Self::Missing => 'm',
        }
    }

    /// The name of a template of this form.
    pub(super) fn name(self, text: &str) -> String {
        format!("{}\0{text}", self.letter())
    }

    /// The form and text of a name.
    pub(super) fn of(name: &str) -> Option<(Self, &str)> {
        let (letter, text) = name.split_once('\0')?;
        let all = [Self::Text, Self::Braced, Self::Bare, Self::File, Self::Missing];
        let form = all.into_iter().find(|form| letter.chars().eq([form.letter()]))?;
        Some((form, text))
    }

    /// How a scalar with templates is evaluated.
    pub(super) fn of_scalar(text: &str) -> Self {
        // Jinja drops one line end at the end of a template.
        let end = text.strip_suffix('\n').unwrap_or(text).len();
        if text.starts_with("{{") && expression_end(text, 2) == Some(end) {
            Self::Braced
        } else {
            Self::Text
        }
    }

    /// The text as the engine compiles it.
    pub(super) fn compiled(self, text: &str) -> Lenient {
        let backslashes = match self {
            Self::Text | Self::Braced => Backslashes::Literal,
            Self::Bare | Self::File | Self::Missing => Backslashes::Escape,
        };
        Lenient::new(text, backslashes)
    }

    /// What the engine is given, and how far the text's first byte is from its own.
    pub(super) fn wrapped(self, text: &str) -> (Cow<'_, str>, usize) {
        match self {
            Self::Bare => (Cow::Owned(format!("{}{text}{}", BARE.0, BARE.1)), BARE.0.len()),
            _ => (Cow::Borrowed(text), 0),
        }
    }
}

/// Whether a scalar's text has templates in it.
pub(super) fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

impl Templates {
    /// The templates of the project in `lookup.project`. With `untrusted`, nothing that the project
    /// says is run or read outside of its folder.
    pub fn new(sources: Arc<Sources>, untrusted: bool, lookup: LookupEnvironment) -> Self {
        let project = lookup.project.clone();
        let read = Arc::new(Files::default());
        let files = TemplateFiles { sources, project: project.clone(), read };
        let mut environment = Environment::new();
        environment.set_debug(true);
        environment.set_fuel(Some(FUEL));
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        let syntax = SyntaxConfig::builder().trim_blocks(true).keep_trailing_newline(false).build();
        if let Ok(syntax) = syntax {
            environment.set_syntax(syntax);
        }
        environment.set_formatter(|output, state, one| {
            if matches!(Form::of(state.name()), Some((Form::Braced | Form::Bare, _))) {
                let json = value::data_of(one)?;
                if json.as_str().is_some_and(|text| text != OMIT && text.contains(OMIT)) {
                    return Err(omit_in_text());
                }
                value::write_data(json);
                return Ok(());
            }
            // As in Ansible, nothing has no text.
            if one.is_none() {
                return Ok(());
            }
            // Functions and the like have no text that anybody wants.
            if one.kind() == ValueKind::Plain {
                value::json_of(one)?;
            }
            let text = python::text(one)?;
            // Statements may have left nothing around it, which is known when the text is complete.
            let whole = text == OMIT
                && matches!(Form::of(state.name()), Some((Form::Text, all)) if all.contains("{%"));
            if text.contains(OMIT) && !whole {
                return Err(omit_in_text());
            }
            value::write_into_text(one);
            let start = taint::length();
            output.write_str(&text).map_err(Error::from)?;
            taint::note_written(&text, start);
            Ok(())
        });
        let loaded = files.read.clone();
        environment.set_loader(move |name| Ok(source_of(&loaded, name)));
        let reading = files.clone();
        environment.set_path_join_callback(move |name, parent| {
            let found =
                locate(name, parent, &project, untrusted).filter(|path| reading.read(path).is_ok());
            Cow::Owned(match found {
                Some(path) => Form::File.name(&path.to_string_lossy()),
                None => Form::Missing.name(name),
            })
        });
        filters::register(&mut environment);
        let lookup = Arc::new(Lookup::new(lookup, untrusted, files.clone()));
        filters::register_files(&mut environment, &lookup);
        let query = Value::from_object(Query(lookup.clone()));
        environment.add_global("lookup", Value::from_dyn_object(lookup));
        environment.add_global("query", query.clone());
        environment.add_global("q", query);
        environment.add_global("omit", OMIT);
        environment.remove_global("debug");
        let (environment, keyring) = (Arc::new(environment), Arc::default());
        Self { environment, headed: Mutex::default(), files, keyring }
    }

    /// The same with keys for the secrets in variables.
    #[must_use]
    pub fn with_keyring(self, keyring: Arc<Keyring>) -> Self {
        Self { keyring, ..self }
    }

    /// Whether some secret has no key and need not have one, so that what needs it is not known.
    pub fn is_locked(&self) -> bool {
        self.keyring.may_miss() && self.keyring.has_missed()
    }

    /// The keys for secrets.
    pub(super) fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// What a template is compiled and run in: a file may ask for another syntax in its first line.
    pub(super) fn environment(
        &self,
        form: Form,
        text: &str,
    ) -> Result<Arc<Environment<'static>>, Error> {
        let file = if form == Form::File { self.file(text) } else { None };
        let Some(header) = file.as_ref().and_then(|(_, source)| jinja_header(source)) else {
            return Ok(self.environment.clone());
        };
        let mut headed = self.headed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = headed.get(header) {
            return Ok(known.clone());
        }
        let mut environment = Environment::clone(&self.environment);
        environment.clear_templates();
        environment.set_syntax(syntax_of(header)?);
        let environment = Arc::new(environment);
        headed.insert(header.to_owned(), environment.clone());
        Ok(environment)
    }

    /// The names that the templates of a scalar look up, in the order in which they stand there.
    /// Loop variables and what it sets itself are none of them.
    pub(super) fn names_in(&self, text: &str) -> Vec<String> {
        if !is_template(text) {
            return Vec::new();
        }
        let template = self.environment.get_template(&Form::of_scalar(text).name(text));
        let names = template.map(|template| template.undeclared_variables(false));
        let mut names: Vec<String> = names.unwrap_or_default().into_iter().collect();
        names.sort_by_cached_key(|name| (first_word(text, name), name.clone()));
        names
    }

    pub(super) fn sources(&self) -> &Sources {
        &self.files.sources
    }

    /// Reads a template file, once.
    pub(super) fn read(&self, path: &Path) -> Result<(SourceId, Arc<str>), String> {
        self.files.read.read(path, &self.files.sources, &self.files.project)
    }

    /// The template files that were read so far, in the order in which that was done.
    pub fn files(&self) -> Vec<(SourceId, Arc<str>)> {
        let files = self.files.read.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut read: Vec<_> = files.values().cloned().collect();
        read.sort_by_key(|(source, _)| *source);
        read
    }

    /// A file that was read before.
    pub(super) fn file(&self, path: &str) -> Option<(SourceId, Arc<str>)> {
        self.files.read.get(Path::new(path))
    }
}

/// What begins a template file that asks for another syntax, as Ansible's may.
pub(super) const HEADER: &str = "#jinja2:";

/// The settings in the first line of a template file.
fn jinja_header(text: &str) -> Option<&str> {
    text.strip_prefix(HEADER)?.lines().next()
}

/// The syntax that a header asks for: `NAME: VALUE, NAME: VALUE`.
fn syntax_of(header: &str) -> Result<SyntaxConfig, Error> {
    let wrong = |message: String| Error::new(ErrorKind::SyntaxError, message);
    let mut builder = SyntaxConfig::builder();
    builder.trim_blocks(true).keep_trailing_newline(false);
    let mut marks: BTreeMap<&str, &str> = BTreeMap::from([
        ("block_start_string", "{%"),
        ("block_end_string", "%}"),
        ("variable_start_string", "{{"),
        ("variable_end_string", "}}"),
        ("comment_start_string", "{#"),
        ("comment_end_string", "#}"),
    ]);
    for setting in header.split(',') {
        let (name, value) = setting
            .split_once(':')
            .map(|(name, value)| (name.trim(), value.trim()))
            .ok_or_else(|| wrong(format!("`{HEADER}` takes `NAME: VALUE`, not `{setting}`")))?;
        let flag = || match value {
            "True" | "true" => Ok(true),
            "False" | "false" => Ok(false),
            _ => Err(wrong(format!("`{name}` is True or False, not `{value}`"))),
        };
        let text = value.trim_matches(['\'', '"']);
        match name {
            "trim_blocks" => drop(builder.trim_blocks(flag()?)),
            "lstrip_blocks" => drop(builder.lstrip_blocks(flag()?)),
            "line_statement_prefix" => drop(builder.line_statement_prefix(text.to_owned())),
            "line_comment_prefix" => drop(builder.line_comment_prefix(text.to_owned())),
            _ => match marks.get_mut(name) {
                Some(mark) => *mark = text,
                None => return Err(wrong(format!("`{HEADER}` knows no setting `{name}`"))),
            },
        }
    }
    let mark = |name: &str| marks.get(name).copied().unwrap_or_default().to_owned();
    builder
        .block_delimiters(mark("block_start_string"), mark("block_end_string"))
        .variable_delimiters(mark("variable_start_string"), mark("variable_end_string"))
        .comment_delimiters(mark("comment_start_string"), mark("comment_end_string"))
        .build()
}

impl Files {
    fn get(&self, path: &Path) -> Option<(SourceId, Arc<str>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    fn read(
        &self,
        path: &Path,
        sources: &Sources,
        project: &Path,
    ) -> Result<(SourceId, Arc<str>), String> {
        if let Some(known) = self.get(path) {
            return Ok(known);
        }
        let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
        if !metadata.is_file() {
            return Err(String::from("it is not a file"));
        }
        if metadata.len() > FILE_LIMIT {
            return Err(format!("it is larger than {} MiB", FILE_LIMIT >> 20));
        }
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        let text = String::from_utf8(bytes).map_err(|_| String::from("it is not UTF-8 text"))?;
        let text: Arc<str> = Arc::from(text.replace("\r\n", "\n"));
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have read it meanwhile: one file is one source.
        let known = files.entry(path.to_owned()).or_insert_with(|| {
            let name = path.strip_prefix(project).unwrap_or(path);
            (sources.add(name.to_string_lossy(), text.clone()), text)
        });
        Ok(known.clone())
    }
}

/// Where a name stands first as a word of its own.
fn first_word(text: &str, name: &str) -> usize {
    let part = |one: char| one.is_alphanumeric() || one == '_';
    let alone =
        |at: usize| !text[..at].ends_with(part) && !text[at + name.len()..].starts_with(part);
    let mut places = text.match_indices(name).map(|(at, _)| at);
    places.find(|at| alone(*at)).unwrap_or(text.len())
}

/// What is said of `omit` with text around it.
pub(super) const OMIT_IN_TEXT: &str =
    "`omit` leaves out a whole value, and cannot stand inside of a text";

fn omit_in_text() -> Error {
    Error::new(ErrorKind::InvalidOperation, OMIT_IN_TEXT)
}

fn source_of(files: &Files, name: &str) -> Option<String> {
    let (form, text) = Form::of(name)?;
    match form {
        Form::Missing => None,
        Form::File => Some(form.compiled(&files.get(Path::new(text))?.1).text),
        Form::Text | Form::Braced | Form::Bare => Some(form.compiled(&form.wrapped(text).0).text),
    }
}

/// The file that `include`, `import` or `extends` means: beside the template that names it, or in
/// a folder above it, up to the project's.
fn locate(name: &str, parent: &str, project: &Path, untrusted: bool) -> Option<PathBuf> {
    let climbs = Path::new(name).components().any(|part| part == Component::ParentDir);
    if untrusted && (climbs || Path::new(name).is_absolute()) {
        return None;
    }
    let beside = match Form::of(parent) {
        Some((Form::File, path)) => Path::new(path).parent().unwrap_or(project),
        _ => project,
    };
    beside
        .ancestors()
        .take_while(|folder| {
            beside.is_relative() || folder.starts_with(project) || *folder == beside
        })
        .map(|folder| folder.join(name))
        .find(|path| path.is_file() && (!untrusted || stays_inside(path, project)))
}

/// Whether a path, all links followed, is below the project's folder.
pub(super) fn stays_inside(path: &Path, project: &Path) -> bool {
    match (path.canonicalize(), project.canonicalize()) {
        (Ok(path), Ok(project)) => path.starts_with(project),
        _ => false,
    }
}

/// The error that a missing or unreadable file is, for functions of templates.
pub(super) fn unreadable(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("cannot read `{}`: {why}", path.display()))
}
