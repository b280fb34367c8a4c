//! The health of a play: checks that have to hold once all of its states do.

use std::sync::Arc;

use super::keywords::{CHECK, keyword};
use super::play::unknown_key;
use super::yaml::{Kind, Node};
use crate::diagnostic::{Diagnostic, Diagnostics, nearest};

/// What happens on its hosts when a play fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// They stay as they are.
    #[default]
    Stop,
    /// What this run has changed in the play is taken back.
    Rollback,
}

/// Keys of the language that this version does not know.
const LATER: [&str; 4] = ["prometheus", "error_log", "from", "max_error_rate"];

/// A check for as long as nothing else is said.
const WITHIN: &str = "30s";

impl OnFailure {
    /// Reads `on_failure`.
    pub(super) fn read(value: &Node, diagnostics: &mut Diagnostics) -> Self {
        match value.as_text() {
            Some("stop") => Self::Stop,
            Some("rollback") => Self::Rollback,
            Some("continue") => {
                let message = "`on_failure: continue` is for a `rollout`";
                let help = "`any_errors_fatal: false` lets later plays begin all the same";
                diagnostics
                    .push(Diagnostic::error("unsupported", message).at(value.span, "").help(help));
                Self::Stop
            }
            other => {
                let label = nearest(other.unwrap_or_default(), ["stop", "rollback"])
                    .map_or_else(String::new, |near| format!("did you mean `{near}`?"));
                let message = "`on_failure` is `stop` or `rollback`";
                diagnostics.push(Diagnostic::error("wrong-type", message).at(value.span, label));
                Self::Stop
            }
        }
    }
}

/// A play's health as the states that wait for it, behind all others.
pub(super) fn states(value: &Node, diagnostics: &mut Diagnostics) -> Node {
    let checks = value.items().unwrap_or(std::slice::from_ref(value));
    let states = checks.iter().zip(1..).filter_map(|(check, number)| {
        let name = match checks.len() {
            1 => String::from("health"),
            _ => format!("health {number}"),
        };
        state(check, name, diagnostics)
    });
    let states: Vec<Node> = states.collect();
    Node { span: value.span, kind: Kind::Sequence(Arc::new(states)) }
}

fn state(check: &Node, name: String, diagnostics: &mut Diagnostics) -> Option<Node> {
    let Some(entries) = check.entries() else {
        let message = format!("a check of `health` is a mapping, not {}", check.describe());
        let help = "for example `health: { http: \"http://127.0.0.1:8000/healthz\", within: 30s }`";
        diagnostics.push(Diagnostic::error("wrong-type", message).at(check.span, "").help(help));
        return None;
    };
    let text = |text: &str| Node::text(check.span, text);
    let mut state = vec![(text("wait_for"), Node::text(check.span, name))];
    let (mut what, mut unknown) = (0, false);
    for (key, value) in entries {
        let named = match key.as_text().unwrap_or_default() {
            "tcp" => "port",
            word => word,
        };
        let known = key.as_text().is_some_and(|word| keyword(CHECK, word).is_some());
        if !known {
            unknown = true;
            let word = key.as_text().unwrap_or_default();
            diagnostics.push(if LATER.contains(&word) {
                let message = format!("`{word}` of `health` is not supported by this version");
                Diagnostic::error("unsupported", message).at(key.span, "")
            } else {
                unknown_key(word, key.span, "a check of `health`", CHECK)
            });
            continue;
        }
        what += usize::from(matches!(named, "http" | "port" | "command"));
        state.push((Node::text(key.span, named), value.clone()));
    }
    if what != 1 {
        // It may be the key that was not understood.
        if what > 1 || !unknown {
            let message = "a check of `health` has one of `http`, `tcp` and `command`";
            diagnostics.push(Diagnostic::error("missing-argument", message).at(check.span, ""));
        }
        return None;
    }
    if check.get("within").is_none() {
        state.push((text("within"), text(WITHIN)));
    }
    // Whatever is selected has to leave the host well.
    state.push((text("tags"), text("always")));
    Some(Node { span: check.span, kind: Kind::Mapping(Arc::new(state)) })
}
