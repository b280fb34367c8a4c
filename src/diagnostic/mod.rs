//! What is wrong with the input, as values: where, what, and what was probably meant.
//!
//! Every error that a user's file can cause goes through here and is shown by the one renderer.
//! The room knows sources and places in them; it knows nothing of states, inventories or hosts.

mod render;
mod source;
mod suggest;

pub use render::{Style, render, render_coded};
pub use source::{Place, SourceId, Sources, Span};
pub use suggest::{distance, nearest};

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Legal, and likely not what was meant.
    Warning,
    /// No host is touched while there is one.
    Error,
}

/// A place that a diagnostic points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What is said there; may be empty.
    pub text: String,
}

/// One thing that is wrong or doubtful in the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable name of the kind of problem, for example `unknown-argument`.
    pub code: &'static str,
    /// One sentence without a full stop.
    pub message: String,
    /// The first one is the place; further ones are its context.
    pub labels: Vec<Label>,
    /// Further facts, a line each.
    pub notes: Vec<String>,
    /// The way out, a line each.
    pub help: Vec<String>,
    /// Whether its lines of the source are not shown: a secret stands there.
    pub hidden: bool,
}

impl Diagnostic {
    /// An error that has no place yet.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// A warning that has no place yet.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    fn new(severity: Severity, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity,
            code,
            message: message.into(),
            labels: Vec::new(),
            notes: Vec::new(),
            help: Vec::new(),
            hidden: false,
        }
    }

    /// Points at a place and says something there; the first call gives the main place.
    #[must_use]
    pub fn at(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds a way out.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Keeps the lines of the source to itself: a secret stands there.
    #[must_use]
    pub fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }
}

/// All that was found wrong so far; stages add to it and go on with what they could make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Adds one, unless the very same was said already (hosts share their sources).
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if !self.list.contains(&diagnostic) {
            self.list.push(diagnostic);
        }
    }

    /// Adds all of another list.
    pub fn extend(&mut self, other: Diagnostics) {
        for diagnostic in other.list {
            self.push(diagnostic);
        }
    }

    /// All of them with a further place, from where they came about.
    #[must_use]
    pub fn also_at(self, span: Span, text: &str) -> Self {
        Self { list: self.list.into_iter().map(|one| one.at(span, text)).collect() }
    }

    /// Whether the input must be refused.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many were found.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// In the order of their places: by source, then by position; those without a place first.
    pub fn sorted(&self) -> Vec<&Diagnostic> {
        let mut list: Vec<_> = self.list.iter().collect();
        list.sort_by_key(|diagnostic| {
            diagnostic.labels.first().map(|label| (label.span.source, label.span.start))
        });
        list
    }

    /// As they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }
}
