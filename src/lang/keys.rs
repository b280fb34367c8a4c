use serde_json::Value;

use super::arguments::{Reading, Taken, is_template, wrong_type};
use super::state::State;
use super::yaml::Node;
use crate::diagnostic::Span;
use crate::kind::Shape;

/// One key of a state.
pub(super) struct Key {
    /// As identities and references have it.
    pub text: String,
    /// None if it is not known.
    pub value: Option<Value>,
    /// Its place.
    pub span: Span,
    /// A command that was given as a list.
    pub argv: Option<Value>,
}

/// The keys of a state: one, or several where a list stands.
pub(super) fn keys(state: &State, reading: &mut Reading<'_>) -> Vec<Key> {
    let spec = state.spec;
    let node = &state.key;
    let span = node.span;
    let list = Shape::List(&Shape::Text);
    if spec.name == "command" && node.items().is_some() {
        let argv = reading.take(spec.name, &list, node);
        return vec![command(argv, span, node)];
    }
    if let Some(items) = node.items() {
        return items
            .iter()
            .flat_map(|item| {
                let taken = reading.take(spec.name, &spec.key.shape, item);
                key(taken, item)
            })
            .collect();
    }
    if !node.scalar().is_some_and(is_template) {
        let taken = reading.take(spec.name, &spec.key.shape, node);
        return key(taken, node).into_iter().collect();
    }
    match reading.evaluate(node) {
        Taken::Known(Value::Array(values)) if spec.name == "command" => {
            let argv = reading.take_value(spec.name, &list, &Value::Array(values), span);
            vec![command(argv, span, node)]
        }
        Taken::Known(Value::Array(values)) => values
            .iter()
            .flat_map(|value| {
                let taken = reading.take_value(spec.name, &spec.key.shape, value, span);
                key(taken, node)
            })
            .collect(),
        Taken::Known(value) => {
            let taken = reading.take_value(spec.name, &spec.key.shape, &value, span);
            key(taken, node).into_iter().collect()
        }
        Taken::Omitted => {
            reading.diagnostics.push(wrong_type(spec.name, &spec.key.shape, "nothing", span));
            key(Taken::Refused, node).into_iter().collect()
        }
        taken => key(taken, node).into_iter().collect(),
    }
}

/// A key that was checked; none if it is omitted from a list.
fn key(taken: Taken, node: &Node) -> Option<Key> {
    let as_written = || node.as_text().unwrap_or("?").to_owned();
    let (text, value) = match taken {
        Taken::Known(Value::String(text)) => (text.clone(), Some(Value::String(text))),
        Taken::Known(value) => (value.to_string(), Some(value)),
        Taken::Omitted => return None,
        Taken::Unknown | Taken::Refused => (as_written(), None),
    };
    Some(Key { text, value, span: node.span, argv: None })
}

/// The key of a command that is given as a list: the shell line that would mean the same.
fn command(argv: Taken, span: Span, node: &Node) -> Key {
    let words = match &argv {
        Taken::Known(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
        _ => {
            let items = node.items().unwrap_or(std::slice::from_ref(node));
            items.iter().filter_map(Node::as_text).collect::<Vec<_>>()
        }
    };
    let text = words.into_iter().map(quoted).collect::<Vec<_>>().join(" ");
    let argv = match argv {
        Taken::Known(argv) => Some(argv),
        _ => None,
    };
    let value = argv.is_some().then(|| Value::String(text.clone()));
    Key { text, value, span, argv }
}

/// A word as a shell would have to be given it.
fn quoted(word: &str) -> String {
    let plain =
        |character: char| character.is_ascii_alphanumeric() || "_@%+=:,./-".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What an argument adds to an identity: short, on one line, and different for different values.
pub(super) fn identity_text(value: &Value) -> Option<String> {
    const LIMIT: usize = 64;
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        Value::Null => return None,
        other => other.to_string(),
    };
    let line = text.trim();
    if line.chars().count() <= LIMIT && !line.contains('\n') {
        return Some(line.to_owned());
    }
    let first = line.lines().next().unwrap_or_default();
    let beginning: String = first.chars().take(LIMIT / 2).collect();
    let digest = blake3::hash(text.as_bytes()).to_hex();
    Some(format!("{beginning}… #{}", &digest[..8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_stay_short_and_different() {
        let long = |end: &str| Value::String(format!("ssh-ed25519 {}{end}", "A".repeat(80)));
        let (one, other) = (identity_text(&long("x")), identity_text(&long("y")));
        assert_ne!(one, other);
        assert!(one.unwrap().chars().count() < 50);
        assert_eq!(identity_text(&Value::from("^Port ")).as_deref(), Some("^Port"));
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_split_them() {
        let cases = [("ls", "ls"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''")];
        for (word, expected) in cases {
            assert_eq!(quoted(word), expected);
        }
    }
}
