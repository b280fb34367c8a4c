use std::collections::HashMap;

use super::{RULES, is_of_rule, rule};
use crate::diagnostic::{Diagnostic, Severity, nearest};

/// What becomes of what a rule finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// It is not said.
    Allow,
    /// It is said.
    Warn,
    /// It is said, and the state file is refused.
    Deny,
}

/// The levels of all rules.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    set: HashMap<&'static str, Level>,
    /// Whether every warning is an error.
    strict: bool,
}

/// No rule is called so.
#[derive(Debug, thiserror::Error)]
#[error("there is no rule `{name}`{}", hint(.near))]
pub struct UnknownRule {
    /// What was given.
    pub name: String,
    /// What was probably meant.
    pub near: Option<&'static str>,
}

fn hint(near: &Option<&'static str>) -> String {
    match near {
        Some(near) => format!("; did you mean `{near}`?"),
        None => String::from("; `converge lint --rules` lists them"),
    }
}

impl UnknownRule {
    /// The error that nothing is called `name`.
    pub fn new(name: &str) -> Self {
        let near = nearest(name, RULES.iter().map(|rule| rule.name));
        Self { name: name.to_owned(), near }
    }
}

impl Levels {
    /// Sets the level of a rule; what is set later wins. `warnings` stands for all with
    /// [`Level::Deny`].
    pub fn set(&mut self, name: &str, level: Level) -> Result<(), UnknownRule> {
        if name == "warnings" && level == Level::Deny {
            self.strict = true;
            return Ok(());
        }
        let rule = rule(name).ok_or_else(|| UnknownRule::new(name))?;
        self.set.insert(rule.name, level);
        Ok(())
    }

    /// The diagnostic with the severity that it has by these levels; none if it is not said.
    pub(super) fn apply(&self, mut diagnostic: Diagnostic) -> Option<Diagnostic> {
        let level = match rule(diagnostic.code).filter(|_| is_of_rule(&diagnostic)) {
            Some(rule) => self.set.get(rule.name).copied().unwrap_or(rule.level),
            None => Level::Warn,
        };
        let strict = self.strict && diagnostic.severity == Severity::Warning;
        match level {
            Level::Allow => return None,
            Level::Warn if strict => diagnostic.severity = Severity::Error,
            Level::Warn => {}
            Level::Deny => diagnostic.severity = Severity::Error,
        }
        Some(diagnostic)
    }
}
