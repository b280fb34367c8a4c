//! Facts that a project asks its hosts for itself: the outcome of commands that only read.

use std::sync::Arc;

use serde_json::Value;

use super::arguments::{Reading, Taken, literal_boolean};
use super::common_keys::Inherited;
use super::compile::CompileOptions;
use super::conditions::{Holds, conditions, is_variable};
use super::keywords::FACT;
use super::play::{Play, unknown_key};
use super::scope::Scope;
use super::taint;
use super::yaml::Node;
use crate::change::Mask;
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::kind::Shape;

/// What every host tells by itself.
const BUILT_IN: &[&str] = &[
    "os",
    "kernel",
    "arch",
    "cpus",
    "memory_mb",
    "hostname",
    "fqdn",
    "machine_id",
    "init",
    "ipv4",
    "ipv6",
    "interfaces",
    "mounts",
    "reboot_required",
];
/// How long a command may take that does not say so itself, in milliseconds.
const PATIENCE: u64 = 30_000;

/// A fact that a play declares; not evaluated.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    name: String,
    /// Where its name stands.
    pub(super) span: Span,
    command: Node,
    json: bool,
    default: Option<Node>,
    timeout: Option<Node>,
    /// The conditions of the includes that it is part of.
    pub(super) when: Vec<Node>,
}

/// A question to a host: what its command writes becomes a fact.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnFact {
    /// `facts.NAME`.
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Whether what it writes is JSON; text otherwise, without the line ends at its end.
    pub json: bool,
    /// What the fact is if the command fails; none: the host fails then.
    pub default: Option<Value>,
    /// As whom it runs; none: the login user.
    pub become_user: Option<String>,
    /// Added to its environment.
    pub environment: Vec<(String, String)>,
    /// How long it may take, in milliseconds.
    pub timeout: u64,
    /// What its environment holds that may not be shown.
    pub mask: Mask,
    /// Where it stands.
    pub span: Span,
}

impl OwnFact {
    /// The value that an answer gives, or why it gives none.
    pub fn value(&self, answer: Result<&str, &str>) -> Result<Value, String> {
        let answer = answer.map_err(|error| self.mask.hide(error).into_owned());
        let value = answer.and_then(|text| {
            let value = match self.json {
                true => serde_json::from_str(text)
                    .map_err(|error| format!("what its command writes is no JSON: {error}"))?,
                false => Value::String(text.trim_end_matches(['\n', '\r']).to_owned()),
            };
            // A secret that a command has written stays one.
            Ok(if self.mask.hide(text) == text { value } else { taint::hide(value) })
        });
        match (value, &self.default) {
            (Err(_), Some(default)) => Ok(default.clone()),
            (value, _) => value,
        }
    }
}

/// The facts of a play or of an included file.
pub(super) fn read(value: &Node, diagnostics: &mut Diagnostics) -> Vec<Asked> {
    let Some(entries) = value.entries() else {
        let message = format!("`facts` takes a mapping, not {}", value.describe());
        let help = "for example `facts: { schema: { command: cat /etc/schema, default: none } }`";
        diagnostics.push(Diagnostic::error("wrong-type", message).at(value.span, "").help(help));
        return Vec::new();
    };
    let mut facts = Vec::new();
    for (name, value) in entries {
        let text = name.as_text().unwrap_or_default();
        if !is_variable(text) {
            let message = format!("`{text}` cannot be the name of a fact");
            let label = "letters, digits and `_`, not beginning with a digit";
            diagnostics.push(Diagnostic::error("variable-name", message).at(name.span, label));
        } else if BUILT_IN.contains(&text) {
            let message = format!("every host has a fact `{text}` by itself");
            diagnostics.push(
                Diagnostic::error("reserved-name", message).at(name.span, "give it another name"),
            );
        } else {
            facts.extend(asked(text, name.span, value, diagnostics));
        }
    }
    facts
}

fn asked(name: &str, span: Span, value: &Node, diagnostics: &mut Diagnostics) -> Option<Asked> {
    let Some(entries) = value.entries() else {
        let message = format!("a fact is a mapping, not {}", value.describe());
        let help = format!("for example `{name}: {{ command: … }}`");
        diagnostics.push(Diagnostic::error("wrong-type", message).at(value.span, "").help(help));
        return None;
    };
    let (mut json, mut command, mut default, mut timeout) = (false, None, None, None);
    for (key, value) in entries {
        match key.as_text().unwrap_or_default() {
            "command" => command = Some(value.clone()),
            "json" => json = literal_boolean("json", value, diagnostics).unwrap_or(false),
            "default" => default = Some(value.clone()),
            "timeout" => timeout = Some(value.clone()),
            other => diagnostics.push(unknown_key(other, key.span, "a fact", FACT)),
        }
    }
    let Some(command) = command else {
        let message = format!("the fact `{name}` needs `command`");
        let diagnostic = Diagnostic::error("missing-argument", message).at(span, "");
        diagnostics.push(diagnostic.help("a shell line, or a list; it only reads"));
        return None;
    };
    Some(Asked { name: name.to_owned(), span, command, json, default, timeout, when: Vec::new() })
}

impl Play {
    /// Whether its hosts are asked for anything.
    pub fn has_own_facts(&self) -> bool {
        !self.facts.is_empty()
    }

    /// What a host of the play is asked for beyond its facts; without what is not known yet.
    pub fn own_facts(
        &self,
        scope: &Scope,
        options: &CompileOptions,
        diagnostics: &mut Diagnostics,
    ) -> Vec<OwnFact> {
        let mut reading = Reading::new(scope, false, diagnostics);
        let inherited = self.inherited(&mut reading, options);
        self.facts.iter().filter_map(|asked| asked.question(&mut reading, &inherited)).collect()
    }
}

impl Asked {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What of it may have templates.
    pub(super) fn values(&self) -> impl Iterator<Item = &Node> {
        [Some(&self.command), self.default.as_ref(), self.timeout.as_ref()].into_iter().flatten()
    }

    fn question(&self, reading: &mut Reading<'_>, inherited: &Inherited) -> Option<OwnFact> {
        for when in &self.when {
            match conditions(reading.scope, Some(when), reading.diagnostics) {
                Holds::Yes => {}
                Holds::No(_) | Holds::Unknown => return None,
            }
        }
        let argv = self.argv(reading);
        let timeout = match &self.timeout {
            None => PATIENCE,
            Some(node) => match reading.take("timeout", &Shape::Duration, node) {
                Taken::Known(value) => value.as_u64().unwrap_or(PATIENCE),
                _ => PATIENCE,
            },
        };
        let default = match self.default.as_ref().map(|node| reading.evaluate(node)) {
            None | Some(Taken::Omitted) => None,
            Some(Taken::Known(value)) => Some(value),
            Some(Taken::Unknown | Taken::Refused) => return None,
        };
        let user = &inherited.become_user;
        let becomes = inherited.becomes && inherited.login.as_ref() != Some(user);
        Some(OwnFact {
            name: self.name.clone(),
            argv: argv?,
            json: self.json,
            default,
            become_user: becomes.then(|| user.clone()),
            environment: inherited.environment.clone().into_iter().collect(),
            timeout,
            mask: inherited.mask.clone(),
            span: self.span,
        })
    }

    fn argv(&self, reading: &mut Reading<'_>) -> Option<Vec<String>> {
        if self.command.items().is_some() {
            let words = reading.take("command", &Shape::List(&Shape::Text), &self.command);
            let Taken::Known(Value::Array(words)) = words else { return None };
            return words.into_iter().map(|word| Some(word.as_str()?.to_owned())).collect();
        }
        let line = reading.text("command", &self.command)?;
        Some(vec![String::from("/bin/sh"), String::from("-c"), line])
    }
}

/// A host's facts with its own ones among them.
pub fn with_own_facts(
    mut facts: Value,
    own: impl IntoIterator<Item = (String, Value)>,
) -> Arc<Value> {
    if let Value::Object(entries) = &mut facts {
        for (name, value) in own {
            // What the host says by itself stays what it says.
            entries.entry(name).or_insert(value);
        }
    }
    Arc::new(facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_fact_of_a_host_has_a_name_that_is_taken() {
        let facts = crate::world::facts::gather(std::path::Path::new("/"));
        let names: Vec<&String> = facts.as_object().into_iter().flat_map(|it| it.keys()).collect();
        assert_eq!(names, BUILT_IN);
    }

    #[test]
    fn answers_are_texts_or_json_and_what_fails_is_the_default() {
        let source = crate::diagnostic::Sources::default().add("x", "x");
        let fact = |json, default| OwnFact {
            name: String::from("x"),
            argv: Vec::new(),
            json,
            default,
            become_user: None,
            environment: Vec::new(),
            timeout: 1,
            mask: Mask::default(),
            span: Span::new(source, 0, 1),
        };
        assert_eq!(fact(false, None).value(Ok("a b\n\n")), Ok(json!("a b")));
        assert_eq!(fact(true, None).value(Ok("[1]\n")), Ok(json!([1])));
        assert!(fact(true, None).value(Ok("[1")).unwrap_err().contains("no JSON"));
        assert_eq!(fact(true, Some(json!([]))).value(Ok("[1")), Ok(json!([])));
        assert_eq!(fact(false, Some(json!(3))).value(Err("code 1")), Ok(json!(3)));
        assert_eq!(fact(false, None).value(Err("code 1")), Err(String::from("code 1")));
    }
}
