use super::rule;
use crate::diagnostic::{
    Diagnostic, Diagnostics, Severity, Sources, Span, Style, render, render_coded,
};

/// A diagnostic with its places as people and programs read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The rule's name, or the stable name of the kind of error.
    pub code: &'static str,
    /// One sentence without a full stop.
    pub message: String,
    /// The first one is the place; further ones are its context.
    pub places: Vec<Located>,
    /// Further facts, a line each.
    pub notes: Vec<String>,
    /// The way out, a line each.
    pub help: Vec<String>,
    /// As it is shown to people.
    pub text: String,
}

/// A place in a file. Lines and columns are from 1; columns count characters, and the end is the one
/// after the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The file as the user would type it.
    pub file: String,
    /// Where it begins.
    pub line: usize,
    /// Where it begins.
    pub column: usize,
    /// Where it ends.
    pub end_line: usize,
    /// Where it ends.
    pub end_column: usize,
    /// What is said there; may be empty.
    pub text: String,
}

impl Finding {
    /// All diagnostics of one state file, in the order of their places.
    pub fn all(diagnostics: &Diagnostics, sources: &Sources, style: Style) -> Vec<Self> {
        let sorted = diagnostics.sorted().into_iter();
        sorted.map(|diagnostic| Self::new(diagnostic, sources, style)).collect()
    }

    fn new(diagnostic: &Diagnostic, sources: &Sources, style: Style) -> Self {
        let places = diagnostic.labels.iter();
        let places = places.map(|label| Located::new(label.span, &label.text, sources)).collect();
        let shown = if rule(diagnostic.code).is_some() { render_coded } else { render };
        Self {
            severity: diagnostic.severity,
            code: diagnostic.code,
            message: diagnostic.message.clone(),
            places,
            notes: diagnostic.notes.clone(),
            help: diagnostic.help.clone(),
            text: shown(diagnostic, sources, style),
        }
    }
}

impl Located {
    fn new(span: Span, text: &str, sources: &Sources) -> Self {
        let (start, end) = (sources.place(span), sources.end(span));
        Self {
            file: start.name,
            line: start.line,
            column: start.column,
            end_line: end.line,
            end_column: end.column,
            text: text.to_owned(),
        }
    }
}
