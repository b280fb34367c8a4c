use std::path::Path;

use crate::diagnostic::{Diagnostic, Diagnostics, Sources, Span, nearest};
use crate::lang::yaml::{self, Node, Resolved};

/// What `converge.yml` says; options on the command line win.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The project's name: part of what keeps two projects on one host apart.
    pub project: Option<String>,
    /// Inventories where the command line names none.
    pub inventory: Vec<String>,
    /// Hosts at the same time.
    pub forks: Option<usize>,
    /// Whether differences are shown in a run too.
    pub diff: Option<bool>,
    /// What becomes of what the linter finds.
    pub lint: LintSettings,
}

/// What becomes of what the linter's rules find: names of rules, with their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LintSettings {
    /// Not said.
    pub allow: Vec<(String, Span)>,
    /// Said.
    pub warn: Vec<(String, Span)>,
    /// An error.
    pub deny: Vec<(String, Span)>,
}

const KEYS: [&str; 5] = ["project", "inventory", "forks", "diff", "lint"];
const LINT_KEYS: [&str; 3] = ["allow", "warn", "deny"];

impl Settings {
    /// Reads a settings file; one that does not exist sets nothing.
    pub fn read(
        path: &Path,
        base: &Path,
        sources: &Sources,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let mut settings = Self::default();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return settings,
            Err(error) => {
                let message = format!("{} cannot be read: {error}", path.display());
                diagnostics.push(Diagnostic::error("unreadable", message));
                return settings;
            }
        };
        let shown = path.strip_prefix(base).unwrap_or(path).display().to_string();
        let source = sources.add(shown, text);
        let Some(node) = yaml::parse_one(sources, source, diagnostics) else { return settings };
        if node.is_null() {
            return settings;
        }
        let Some(entries) = node.entries() else {
            let message = "settings have to be a mapping";
            diagnostics.push(Diagnostic::error("wrong-type", message).at(node.span, ""));
            return settings;
        };
        for (key, value) in entries {
            let name = key.as_text().unwrap_or_default();
            let understood = match name {
                "project" => text_of(value).map(|text| settings.project = Some(text)).is_some(),
                "inventory" => names(value).map(|names| settings.inventory = names).is_some(),
                "forks" => count(value).map(|forks| settings.forks = Some(forks)).is_some(),
                "diff" => boolean(value).map(|diff| settings.diff = Some(diff)).is_some(),
                "lint" => lint(value, &mut settings.lint, diagnostics),
                _ => {
                    diagnostics.push(unknown(key, &KEYS));
                    true
                }
            };
            if !understood {
                let message = format!("{} does not fit the setting `{name}`", value.describe());
                diagnostics.push(Diagnostic::error("wrong-type", message).at(value.span, ""));
            }
        }
        settings
    }
}

fn unknown(key: &Node, keys: &[&str]) -> Diagnostic {
    let name = key.as_text().unwrap_or_default();
    let hint = nearest(name, keys.iter().copied())
        .map_or_else(String::new, |near| format!("did you mean `{near}`?"));
    let message = format!("unknown setting `{name}`");
    let error = Diagnostic::error("unknown-setting", message).at(key.span, hint);
    error.help(format!("the settings are {}", keys.join(", ")))
}

/// Reads `lint`; `false` if it does not fit.
fn lint(node: &Node, settings: &mut LintSettings, diagnostics: &mut Diagnostics) -> bool {
    let Some(entries) = node.entries() else { return false };
    for (key, value) in entries {
        let list = match key.as_text() {
            Some("allow") => &mut settings.allow,
            Some("warn") => &mut settings.warn,
            Some("deny") => &mut settings.deny,
            _ => {
                diagnostics.push(unknown(key, &LINT_KEYS));
                continue;
            }
        };
        let rules = value.items().unwrap_or(std::slice::from_ref(value));
        let named = rules.iter().map(|rule| Some((text_of(rule)?, rule.span)));
        match named.collect::<Option<Vec<_>>>() {
            Some(named) => list.extend(named),
            None => return false,
        }
    }
    true
}

fn text_of(node: &Node) -> Option<String> {
    node.as_text().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn names(node: &Node) -> Option<Vec<String>> {
    match node.items() {
        Some(items) => items.iter().map(text_of).collect(),
        None => text_of(node).map(|name| vec![name]),
    }
}

fn count(node: &Node) -> Option<usize> {
    match node.scalar()?.resolve() {
        Resolved::Integer(number @ 1..) => usize::try_from(number).ok(),
        _ => None,
    }
}

fn boolean(node: &Node) -> Option<bool> {
    match node.scalar()?.resolve() {
        Resolved::Boolean(value) => Some(value),
        _ => None,
    }
}
