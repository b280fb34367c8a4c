use std::fmt::Write as _;

use super::{Level, RULES, Whole};
use crate::diagnostic::{Diagnostic, Sources};
use crate::graph::PlayDeclarations;
use crate::lang::State;

/// One thing that is legal and likely wrong.
pub struct Rule {
    /// As comments, settings and messages name it.
    pub name: &'static str,
    /// One sentence: what it finds.
    pub summary: &'static str,
    /// Why that is likely wrong.
    pub why: &'static str,
    /// What to do instead.
    pub instead: &'static str,
    /// What becomes of its findings where the project does not say.
    pub level: Level,
    /// States, or a state file, in which it finds something.
    pub wrong: &'static str,
    /// The same put right: no rule finds anything in it.
    pub right: &'static str,
    /// How it looks.
    pub(super) check: Check,
}

/// How a rule looks. What it finds are warnings whose code is the rule's name.
pub(super) enum Check {
    /// At each state as it is written.
    State(fn(&State, &mut Vec<Diagnostic>)),
    /// At a whole state file as it is written.
    Whole(fn(&Whole<'_>, &mut Vec<Diagnostic>)),
    /// At what is declared for a host.
    Host(fn(&[PlayDeclarations], &Sources, &mut Vec<Diagnostic>)),
    /// Not here: every run says it too.
    Compiler,
    /// At the comments that allow something.
    Comment,
}

/// The rule of that name.
pub fn rule(name: &str) -> Option<&'static Rule> {
    RULES.iter().copied().find(|rule| rule.name == name)
}

impl Rule {
    /// All that is to be known of it, in Markdown.
    pub fn page(&self) -> String {
        let mut page = format!("## {}\n\n{}.", self.name, self.summary);
        if self.level == Level::Allow {
            page.push_str(" Off unless the project turns it on.");
        }
        let _ = write!(page, "\n\n{}\n\n{}\n\n", self.why, self.instead);
        let _ = write!(page, "```yaml\n# found\n{}```\n\n", self.wrong);
        let _ = writeln!(page, "```yaml\n# better\n{}```", self.right);
        page
    }
}
