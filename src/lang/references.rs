use std::collections::HashMap;

use globset::{GlobBuilder, GlobMatcher};

use super::declaration::{Declaration, Reference};
use crate::diagnostic::{Diagnostic, nearest};

/// What comes before the reference of a service whose reaction is meant.
const REACTION: &str = "reaction:";

impl Reference {
    /// The service whose reaction is meant, for `reaction:service:NAME`.
    pub fn reaction(&self) -> Option<&str> {
        self.text.strip_prefix(REACTION)
    }
}

/// `directory:/srv/` is `directory:/srv`, and `service:ssh.service` is `service:ssh`.
pub(super) fn exact_form(text: &str) -> &str {
    if text.starts_with("service:") {
        plain_service(text)
    } else if text.ends_with(":/") {
        text
    } else {
        text.trim_end_matches('/')
    }
}

/// The name of a service without the ending that systemd adds itself.
pub(super) fn plain_service(name: &str) -> &str {
    name.strip_suffix(".service").filter(|plain| !plain.is_empty()).unwrap_or(name)
}

/// The names by which the declarations of one play and host can be referred to: `kind:key`, with
/// and without what the identity has beyond the key, and `id`s.
pub struct Names {
    exact: HashMap<String, Vec<usize>>,
}

impl Names {
    /// Takes the names of declarations; indexes are those of the slice.
    pub fn new(declarations: &[Declaration]) -> Self {
        let mut names = Self { exact: HashMap::with_capacity(declarations.len()) };
        for (index, declaration) in declarations.iter().enumerate() {
            names.add(declaration.id.as_str().to_owned(), index);
            names.add(format!("{}:{}", declaration.spec.name, declaration.key), index);
            if let Some(alias) = &declaration.alias {
                names.add(alias.clone(), index);
            }
            for used in &declaration.used {
                names.add(used.name.clone(), index);
                used.alias.iter().for_each(|alias| names.add(alias.clone(), index));
            }
        }
        names
    }

    fn add(&mut self, name: String, index: usize) {
        let indexes = self.exact.entry(name).or_default();
        if indexes.last() != Some(&index) {
            indexes.push(index);
        }
    }

    /// The declarations that a reference means, in their order. For `reaction:service:NAME` these
    /// are the services themselves.
    pub fn matching(&self, reference: &Reference) -> Vec<usize> {
        self.matching_text(reference.reaction().unwrap_or(&reference.text))
    }

    /// The same for a text from elsewhere, such as `--only`.
    pub fn matching_text(&self, text: &str) -> Vec<usize> {
        let mut indexes = self.exact.get(exact_form(text)).cloned().unwrap_or_default();
        if let Some(glob) = Pattern::new(text).glob(indexes.is_empty()) {
            for (name, found) in &self.exact {
                if glob.is_match(name) {
                    indexes.extend(found);
                }
            }
            indexes.sort_unstable();
            indexes.dedup();
        }
        indexes
    }

    /// That a reference means nothing, and what was probably meant.
    pub(super) fn unknown(&self, reference: &Reference) -> Diagnostic {
        let text = reference.reaction().unwrap_or(&reference.text);
        let message = format!("`{}` refers to nothing in this play", reference.text);
        let diagnostic = Diagnostic::error("unknown-reference", message);
        let mut names: Vec<_> = self.exact.keys().map(String::as_str).collect();
        names.sort_unstable();
        let keyed =
            names.iter().find(|name| name.split_once(':').is_some_and(|(_, key)| key == text));
        let near = keyed.copied().or_else(|| nearest(text, names.iter().copied()));
        match near {
            Some(near) => diagnostic.at(reference.span, format!("did you mean `{near}`?")),
            None => diagnostic
                .at(reference.span, "")
                .help("references are `kind:key`, for example `file:/etc/motd`, or an `id`"),
        }
    }
}

/// A name that may be a glob.
pub(super) struct Pattern<'a>(&'a str);

impl<'a> Pattern<'a> {
    pub fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// The matcher, if it is a glob. Brackets and braces may also stand in names: they count only
    /// if nothing has that very name (`unmatched`).
    pub fn glob(&self, unmatched: bool) -> Option<GlobMatcher> {
        let star = self.0.contains(['*', '?']);
        let bracket = unmatched && self.0.contains(['[', '{']);
        if !star && !bracket {
            return None;
        }
        GlobBuilder::new(self.0).build().ok().map(|glob| glob.compile_matcher())
    }
}
