//! The linter: what is legal in state files and likely wrong.
//!
//! A rule is one unit: its name, what it finds and why, an example that it finds something in and one
//! in which it does not, and its check. The book's page, `--explain` and the tests are made of that.
//! The room reads state files as they are written, declarations, sources and graphs, and gives
//! diagnostics. It knows no hosts and no inventories, opens no files and prints nothing.

mod allow;
mod finding;
mod level;
mod names;
mod output;
mod rule;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Diagnostics, Severity, SourceId, Sources};
use crate::graph::PlayDeclarations;
use crate::lang::{Program, Templates};

use allow::Allows;
use names::Used;
use rule::Check;

pub use finding::{Finding, Located};
pub use level::{Level, Levels, UnknownRule};
pub use output::Format;
pub use rule::{Rule, rule};
pub use rules::RULES;

/// A state file, and what is known around it.
pub struct Subject<'a> {
    /// The state file with all that it includes.
    pub program: &'a Program,
    /// The templates that were rendered.
    pub templates: &'a Templates,
    /// Further texts that may use variables: templates that were not rendered, inventories.
    pub beside: Vec<Arc<str>>,
    /// Whether all variables of the inventory are known, so that what is undefined was said.
    pub inventory: bool,
}

/// What a check of a whole state file gets.
struct Whole<'a> {
    sources: &'a Sources,
    subject: &'a Subject<'a>,
    used: Vec<Used>,
}

/// Looks for what is likely wrong in one state file.
pub struct Linter<'a> {
    sources: &'a Sources,
    found: Diagnostics,
}

impl<'a> Linter<'a> {
    /// A linter of the files in `sources`.
    pub fn new(sources: &'a Sources) -> Self {
        Self { sources, found: Diagnostics::default() }
    }

    /// Looks at what is declared for one host.
    pub fn host(&mut self, plays: &[PlayDeclarations]) {
        let mut found = Vec::new();
        for rule in RULES {
            if let Check::Host(check) = rule.check {
                check(plays, self.sources, &mut found);
            }
        }
        found.into_iter().for_each(|one| self.found.push(one));
    }

    /// Looks at the whole, and gives all that is to be said: what `said` has already, and what was
    /// found, without what comments and levels allow.
    pub fn finish(
        mut self,
        subject: &Subject<'_>,
        levels: &Levels,
        said: Diagnostics,
    ) -> Diagnostics {
        let used = names::used(self.sources, subject);
        let whole = Whole { sources: self.sources, subject, used };
        let mut found = Vec::new();
        for rule in RULES {
            match rule.check {
                Check::State(check) => {
                    for play in &subject.program.plays {
                        play.states().into_iter().for_each(|state| check(state, &mut found));
                    }
                }
                Check::Whole(check) => check(&whole, &mut found),
                Check::Host(_) | Check::Compiler | Check::Comment => {}
            }
        }
        found.into_iter().for_each(|one| self.found.push(one));
        let complete = !said.has_errors();
        let mut all = said;
        all.extend(self.found);
        let secrets = secret_lines(self.sources, &all);
        let mut allows = Allows::read(self.sources, subject.program);
        let mut kept: Vec<Diagnostic> =
            all.iter().filter(|one| !allows.allow(one)).cloned().collect();
        kept.extend(allows.complaints(complete));
        let mut result = Diagnostics::default();
        for mut one in kept.into_iter().filter_map(|one| levels.apply(one)) {
            one.hidden |= shows(self.sources, &one, &secrets);
            result.push(one);
        }
        result
    }
}

/// The lines that secrets stand on, which no message may show.
fn secret_lines(sources: &Sources, all: &Diagnostics) -> BTreeSet<(SourceId, usize)> {
    let hidden = all.iter().filter(|one| one.hidden).filter_map(|one| one.labels.first());
    let lines = hidden.flat_map(|label| {
        let (first, last) = (sources.place(label.span).line, sources.end(label.span).line);
        (first..=last).map(|line| (label.span.source, line))
    });
    lines.collect()
}

/// Whether the lines that a diagnostic is shown with, from its first label to its last, have a secret
/// among them.
fn shows(
    sources: &Sources,
    diagnostic: &Diagnostic,
    secrets: &BTreeSet<(SourceId, usize)>,
) -> bool {
    if secrets.is_empty() {
        return false;
    }
    let mut shown: BTreeMap<SourceId, (usize, usize)> = BTreeMap::new();
    for label in &diagnostic.labels {
        let (first, last) = (sources.place(label.span).line, sources.end(label.span).line);
        let lines = shown.entry(label.span.source).or_insert((first, last));
        *lines = (lines.0.min(first), lines.1.max(last));
    }
    let mut shown = shown.into_iter();
    shown.any(|(source, (first, last))| {
        secrets.range((source, first)..=(source, last)).next().is_some()
    })
}

/// Whether a diagnostic comes from a rule, and so can be allowed.
fn is_of_rule(diagnostic: &Diagnostic) -> bool {
    diagnostic.severity == Severity::Warning && rule(diagnostic.code).is_some()
}
