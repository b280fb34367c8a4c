use indexmap::IndexMap;
use serde_json::Value;

use super::arguments::{Reading, Secrets, Taken, wrong_type};
use super::declaration::{CONFIRM_CONNECTION, Common, Prune, Reference, Retry};
use super::keywords::{RETRY, names};
use super::play::split_tags;
use super::state::CommonKeys;
use super::yaml::Node;
use crate::change::Mask;
use crate::diagnostic::{Diagnostic, nearest};
use crate::kind::Shape;
use crate::world::RemotePath;

/// What a `retry` waits if it does not say.
const RETRY_DELAY: u64 = 5_000;

/// What a state inherits from its play.
pub(super) struct Inherited {
    /// Whether it becomes another user.
    pub becomes: bool,
    /// Whom, if it does.
    pub become_user: String,
    /// Who logs in, if that is known.
    pub login: Option<String>,
    /// Environment, later entries win.
    pub environment: IndexMap<String, String>,
    /// What of it is secret.
    pub mask: Mask,
}

/// Evaluates the common keys of a state of that kind; `tags` are those that it inherits. What is not known is
/// left out.
pub(super) fn read(
    keys: &CommonKeys,
    kind: &str,
    reading: &mut Reading<'_>,
    inherited: &Inherited,
    tags: &[String],
) -> Common {
    let strings = |reading: &mut Reading<'_>, name: &str| match keys.get(name) {
        Some(node) => reading.texts(name, node),
        None => Vec::new(),
    };
    let references = |reading: &mut Reading<'_>, name: &str| -> Vec<Reference> {
        let texts = strings(reading, name);
        texts.into_iter().map(|(text, span)| Reference { text, span }).collect()
    };
    let require = references(reading, "require");
    let onchanges = references(reading, "onchanges");
    let onfail = references(reading, "onfail");
    let watch = references(reading, "watch");
    let restart_on = references(reading, "restart_on");
    let unless = strings(reading, "unless").into_iter().map(|(text, _)| text).collect();
    let onlyif = strings(reading, "onlyif").into_iter().map(|(text, _)| text).collect();
    let mut all_tags = tags.to_vec();
    for (text, _) in strings(reading, "tags") {
        all_tags.extend(split_tags(&text).map(str::to_owned));
    }
    all_tags.sort();
    all_tags.dedup();

    // In a composite kind they are for the services inside.
    let built_in = crate::kind::spec(kind).is_some();
    let reactions = [("watch", &watch), ("restart_on", &restart_on)];
    for (name, references) in reactions {
        if let Some(first) = references.first().filter(|_| built_in && kind != "service") {
            let message = format!("`{name}` is for services, this is a `{kind}`");
            reading.diagnostics.push(
                Diagnostic::error("not-a-service", message)
                    .at(first.span, "")
                    .help("`onchanges` lets any state act only if another one changed"),
            );
        }
    }

    let mut environment = inherited.environment.clone();
    if let Some(node) = keys.get("environment") {
        add_environment(reading, node, &mut environment);
    }
    let environment_file = keys.get("environment_file").and_then(|node| {
        match reading.take("environment_file", &Shape::Path, node) {
            Taken::Known(Value::String(path)) => Some(RemotePath::from(path.as_str())),
            _ => None,
        }
    });
    Common {
        require,
        onchanges,
        onfail,
        watch,
        restart_on,
        unless,
        onlyif,
        become_user: become_user(keys, reading, inherited),
        environment: environment.into_iter().collect(),
        environment_file,
        retry: keys.get("retry").and_then(|node| retry(reading, node)),
        timeout: keys.get("timeout").and_then(|node| duration(reading, "timeout", node)),
        ignore_errors: keys
            .get("ignore_errors")
            .and_then(|node| reading.boolean("ignore_errors", node))
            .unwrap_or(false),
        tags: all_tags,
        mask: inherited.mask.clone(),
        sensitive: keys.get("sensitive").and_then(|node| reading.boolean("sensitive", node)),
        prune: keys.get("prune").and_then(|node| prune(reading, node)),
        irreversible: keys
            .get("irreversible")
            .and_then(|node| reading.boolean("irreversible", node))
            .unwrap_or(false),
        confirm_connection: keys
            .get("confirm_connection")
            .and_then(|node| confirm_connection(reading, node)),
    }
}

/// A duration; `false` is none, and `true` the usual one.
fn confirm_connection(reading: &mut Reading<'_>, node: &Node) -> Option<u64> {
    match reading.take("confirm_connection", &Shape::Any, node) {
        Taken::Known(Value::Bool(false)) => Some(0),
        Taken::Known(Value::Bool(true)) => Some(CONFIRM_CONNECTION),
        Taken::Known(_) => duration(reading, "confirm_connection", node),
        _ => None,
    }
}

fn prune(reading: &mut Reading<'_>, node: &Node) -> Option<Prune> {
    match reading.take("prune", &Shape::Any, node) {
        Taken::Known(Value::Bool(false)) => Some(Prune::Keep),
        Taken::Known(Value::String(word)) if word == "force" => Some(Prune::Force),
        Taken::Known(_) => {
            let message = "`prune` of a state is `false` or `force`";
            let help = "`prune: true` stands in the play, for all of its states";
            let diagnostic = Diagnostic::error("wrong-type", message).at(node.span, "");
            reading.diagnostics.push(diagnostic.help(help));
            None
        }
        _ => None,
    }
}

fn become_user(
    keys: &CommonKeys,
    reading: &mut Reading<'_>,
    inherited: &Inherited,
) -> Option<String> {
    let becomes_node = keys.get("become");
    let user_node = keys.get("become_user");
    let becomes =
        becomes_node.and_then(|node| reading.boolean("become", node)).unwrap_or(inherited.becomes);
    let user = user_node.and_then(|node| user_name(reading, node));
    if let Some(node) = user_node.filter(|_| !becomes && becomes_node.is_none()) {
        reading.diagnostics.push(
            Diagnostic::warning("no-become", "`become_user` has no effect without `become: true`")
                .at(node.span, ""),
        );
    }
    let user = user.unwrap_or_else(|| inherited.become_user.clone());
    (becomes && inherited.login.as_ref() != Some(&user)).then_some(user)
}

/// The name of a user to become; none if it is not known, omitted or wrong.
pub(super) fn user_name(reading: &mut Reading<'_>, node: &Node) -> Option<String> {
    match reading.take("become_user", &Shape::Name, node) {
        Taken::Known(Value::String(user)) => Some(user),
        _ => None,
    }
}

/// Adds a mapping of environment variables, if it is known.
pub(super) fn add_environment(
    reading: &mut Reading<'_>,
    node: &Node,
    environment: &mut IndexMap<String, String>,
) {
    let entries = reading.with_secrets(Secrets::Masked, |reading| {
        reading.take("environment", &Shape::Mapping(&Shape::Text), node)
    });
    let entries = match entries {
        Taken::Known(Value::Object(entries)) => entries,
        _ => return,
    };
    for (name, value) in entries {
        if name.is_empty() || name.contains(['=', '\0']) {
            let name = reading.mask.hide(&name);
            let message = format!("`{name}` cannot be the name of an environment variable");
            reading.diagnostics.push(Diagnostic::error("bad-name", message).at(node.span, ""));
        } else if let Value::String(value) = value {
            environment.insert(name, value);
        }
    }
}

fn duration(reading: &mut Reading<'_>, name: &str, node: &Node) -> Option<u64> {
    match reading.take(name, &Shape::Duration, node) {
        Taken::Known(value) => value.as_u64(),
        _ => None,
    }
}

fn retry(reading: &mut Reading<'_>, node: &Node) -> Option<Retry> {
    let Some(entries) = node.entries() else {
        let diagnostic =
            wrong_type("retry", &Shape::Mapping(&Shape::Any), node.describe(), node.span);
        reading.diagnostics.push(diagnostic.help("for example `retry: { times: 3, delay: 10s }`"));
        return None;
    };
    let mut retry = Retry { times: 0, delay: RETRY_DELAY };
    for (key, value) in entries {
        match key.as_text() {
            Some("times") => {
                if let Taken::Known(times) = reading.take("times", &Shape::Integer, value) {
                    match times.as_u64().and_then(|times| u32::try_from(times).ok()) {
                        Some(times) => retry.times = times,
                        None => {
                            let message = format!("`times` cannot be {times}");
                            let diagnostic = Diagnostic::error("bad-number", message);
                            reading.diagnostics.push(diagnostic.at(value.span, ""));
                        }
                    }
                }
            }
            Some("delay") => {
                retry.delay = duration(reading, "delay", value).unwrap_or(RETRY_DELAY);
            }
            other => {
                let name = other.unwrap_or_default();
                let label = nearest(name, names(RETRY)).map_or_else(
                    || "it takes `times` and `delay`".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                let message = format!("unknown key `{name}` for `retry`");
                let diagnostic = Diagnostic::error("unknown-key", message);
                reading.diagnostics.push(diagnostic.at(key.span, label));
            }
        }
    }
    if node.get("times").is_none() {
        let diagnostic = Diagnostic::error("missing-argument", "`retry` needs `times`");
        reading.diagnostics.push(diagnostic.at(node.span, ""));
    }
    Some(retry)
}
