//! Secrets in data and in evaluations, value by value.
//!
//! In data a secret is wrapped in an object of its own, so that `item.name` is public beside
//! `item.password`. A template sees the plain value, and whatever it reads of it marks the
//! evaluation: what that computes is secret as a whole. In texts only what the `{{ … }}` have
//! written counts that used a secret.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr};
use serde_json::{Map, Value as Json, json};

use super::value::{mark_secret, value_of};

/// The key of the object that a secret is wrapped in.
const SECRET: &str = "__converge_secret__4be90a17";
/// The key of its secret parts, where it is a text that has others.
const PARTS: &str = "parts";

/// A secret in data.
pub(super) struct Secret<'a> {
    /// The plain value; no secret is in it.
    pub value: &'a Json,
    /// Its secret parts, in bytes, where it is a text that has others.
    pub parts: Option<Vec<Range<usize>>>,
}

/// Makes data secret as a whole.
pub(super) fn hide(data: Json) -> Json {
    json!({ SECRET: reveal(data) })
}

/// Makes parts of a text secret.
pub(super) fn hide_parts(text: String, parts: &[Range<usize>]) -> Json {
    let parts: Vec<[usize; 2]> = parts.iter().map(|part| [part.start, part.end]).collect();
    json!({ SECRET: text, PARTS: parts })
}

/// The secret that data is, if it is one.
pub(super) fn secret(data: &Json) -> Option<Secret<'_>> {
    let entries = data.as_object().filter(|entries| entries.len() <= 2)?;
    let value = entries.get(SECRET)?;
    let parts = entries.get(PARTS).and_then(|parts| {
        let part = |part: &Json| {
            let at = |index: usize| usize::try_from(part.get(index)?.as_u64()?).ok();
            Some(at(0)?..at(1)?)
        };
        parts.as_array()?.iter().map(part).collect()
    });
    Some(Secret { value, parts })
}

/// Whether there is a secret anywhere in data.
pub fn has_secret(data: &Json) -> bool {
    secret(data).is_some()
        || match data {
            Json::Array(items) => items.iter().any(has_secret),
            Json::Object(entries) => entries.values().any(has_secret),
            _ => false,
        }
}

/// Data with its secrets in clear, for whoever uses them.
pub fn reveal(data: Json) -> Json {
    if let Some(found) = secret(&data) {
        return found.value.clone();
    }
    match data {
        Json::Array(items) => items.into_iter().map(reveal).collect(),
        Json::Object(entries) => {
            entries.into_iter().map(|(key, value)| (key, reveal(value))).collect()
        }
        other => other,
    }
}

/// Data as people may read it.
pub(super) fn shown(data: &Json) -> Json {
    match data {
        _ if secret(data).is_some() => Json::from("(secret)"),
        Json::Array(items) => items.iter().map(shown).collect(),
        Json::Object(entries) => {
            entries.iter().map(|(key, value)| (key.clone(), shown(value))).collect()
        }
        other => other.clone(),
    }
}

/// The texts in data, keys too.
pub(super) fn texts(data: &Json, found: &mut BTreeSet<String>) {
    match data {
        Json::String(text) => {
            found.insert(text.clone());
        }
        Json::Number(number) => {
            found.insert(number.to_string());
        }
        Json::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Json::Object(entries) => {
            for (key, value) in entries {
                found.insert(key.clone());
                texts(value, found);
            }
        }
        Json::Null | Json::Bool(_) => {}
    }
}

/// A value that templates see under a name, and whether it is secret.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    value: Value,
    /// The texts in it, if it is.
    secret: Option<Arc<BTreeSet<String>>>,
}

impl Seen {
    /// Takes data; `used` are further secrets that went into it.
    pub(super) fn of(data: &Json, mut used: BTreeSet<String>) -> Self {
        match secret(data) {
            Some(found) => {
                texts(found.value, &mut used);
                Self { value: value_of(found.value), secret: Some(Arc::new(used)) }
            }
            None => Self { value: value_of(data), secret: None },
        }
    }

    /// Takes a value in which no secret is.
    pub(super) fn plain(value: Value) -> Self {
        Self { value, secret: None }
    }

    /// Whether it is not known.
    pub(super) fn is_unknown(&self) -> bool {
        super::value::is_unknown(&self.value)
    }

    /// Gives the value to a template.
    pub(super) fn give(&self) -> Value {
        if let Some(texts) = &self.secret {
            let spills = self.value.as_object().is_some();
            mark_secret(texts.iter().cloned(), spills);
        }
        self.value.clone()
    }
}

/// A list or mapping that has secrets in it.
#[derive(Debug)]
pub(super) enum Mixed {
    List(Vec<Json>),
    Mapping(Map<String, Json>),
}

impl Mixed {
    /// A list as a template sees it.
    pub(super) fn list(items: &[Json]) -> Value {
        Value::from_object(Self::List(items.to_vec()))
    }

    /// A mapping as a template sees it.
    pub(super) fn mapping(entries: &Map<String, Json>) -> Value {
        Value::from_object(Self::Mapping(entries.clone()))
    }

    /// The data that a value was made of, each secret by itself; none if it is another value.
    pub(super) fn data(value: &Value) -> Option<Json> {
        Some(match value.downcast_object_ref::<Self>()? {
            Self::List(items) => Json::Array(items.clone()),
            Self::Mapping(entries) => Json::Object(entries.clone()),
        })
    }

    /// Reads one of its values, which marks the evaluation if that is secret.
    fn read(&self, data: &Json) -> Value {
        let Some(found) = secret(data) else { return value_of(data) };
        let mut used = BTreeSet::new();
        texts(found.value, &mut used);
        // Whoever goes through a list holds its items in a variable, and may write one again.
        let spills =
            matches!(self, Self::List(_)) || found.value.is_array() || found.value.is_object();
        mark_secret(used.into_iter(), spills);
        value_of(found.value)
    }
}

impl Object for Mixed {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        match **self {
            Self::List(_) => ObjectRepr::Seq,
            Self::Mapping(_) => ObjectRepr::Map,
        }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let data = match &**self {
            Self::List(items) => items.get(key.as_usize()?)?,
            Self::Mapping(entries) => entries.get(key.as_str()?)?,
        };
        Some(self.read(data))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match &**self {
            Self::List(items) => Enumerator::Seq(items.len()),
            Self::Mapping(entries) => {
                Enumerator::Values(entries.keys().map(|key| Value::from(key.as_str())).collect())
            }
        }
    }
}

/// What a template that makes text has written so far.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// A captured value carries no mark: after a first secret, whatever is written may be one.
    captures: bool,
    /// Whether that is so by now.
    spilled: bool,
    /// What was read since something was last written.
    pending: Option<BTreeSet<String>>,
    /// The bytes that were written.
    length: usize,
    /// Which of them are secret.
    parts: Vec<Range<usize>>,
}

thread_local! {
    /// An evaluation stays on one thread, and the engine gives neither objects nor formatters a
    /// context of their own.
    static TEXT: RefCell<Text> = RefCell::default();
    /// The secrets that were read.
    static USED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// Runs something and gives the secrets that it has read.
pub(super) fn using<T>(run: impl FnOnce() -> T) -> (T, BTreeSet<String>) {
    let before = USED.take();
    let result = run();
    (result, USED.replace(before))
}

/// Runs a template that makes text; `captures` says whether it can hold what it computes in
/// variables. Gives the secret parts of the text.
pub(super) fn writing<T>(captures: bool, run: impl FnOnce() -> T) -> (T, Vec<Range<usize>>) {
    let before = TEXT.replace(Text { captures, ..Text::default() });
    let result = run();
    (result, TEXT.replace(before).parts)
}

/// Notes that secrets were read.
pub(super) fn note(secrets: impl Iterator<Item = String>, spills: bool) {
    TEXT.with_borrow_mut(|text| {
        text.spilled |= spills;
        let pending = text.pending.get_or_insert_default();
        USED.with_borrow_mut(|used| {
            for secret in secrets {
                pending.insert(secret.clone());
                used.insert(secret);
            }
        });
    });
}

/// Notes how long the text is by now.
pub(super) fn note_length(length: usize) {
    TEXT.with_borrow_mut(|text| text.length = length);
}

/// How long the text is by now.
pub(super) fn length() -> usize {
    TEXT.with_borrow(|text| text.length)
}

/// Notes that a `{{ … }}` has written something; `start` is how long the text was before.
pub(super) fn note_written(written: &str, start: usize) {
    TEXT.with_borrow_mut(|text| {
        let secret = text.spilled || text.pending.is_some();
        let read = text.pending.take();
        // Whatever is made of a secret may stand elsewhere, too.
        if read.is_some() {
            USED.with_borrow_mut(|used| used.insert(written.to_owned()));
        }
        if let Some(pending) = read {
            // What was read and not written may be in a variable, or be written piece by piece.
            let elsewhere = pending.iter().any(|secret| !written.contains(secret.as_str()));
            text.spilled |= text.captures || elsewhere;
        }
        // What goes into a variable is not part of the text.
        if secret && text.length == start + written.len() && !written.is_empty() {
            text.parts.push(start..text.length);
        }
    });
}

/// Statements after which a value can be written that was computed before.
const CAPTURING: [&str; 11] = [
    "set", "with", "macro", "call", "filter", "block", "import", "from", "include", "extends", "do",
];

/// Whether a template can hold what it computes in variables of its own. A loop over a plain name does
/// not: its items carry their marks.
pub(super) fn captures(template: &str) -> bool {
    // Whose first line gives statements another look may have any.
    template.starts_with("#jinja2:")
        || template.match_indices("{%").any(|(at, _)| {
            let statement = template[at + 2..].trim_start_matches(['-', '+']).trim_start();
            let end = statement.find(|one: char| !one.is_alphanumeric() && one != '_');
            let (word, rest) = statement.split_at(end.unwrap_or(statement.len()));
            CAPTURING.contains(&word) || (word == "for" && !is_plain_loop(rest))
        })
}

fn is_plain_loop(rest: &str) -> bool {
    let statement = rest.split("%}").next().unwrap_or_default().trim_end_matches(['-', '+']);
    let items = statement.split_once(" in ").map(|(_, items)| items.trim());
    items.is_some_and(|items| {
        !items.is_empty()
            && items.chars().all(|one| one.is_alphanumeric() || one == '_' || one == '.')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_in_data() {
        let data = json!({"users": [{"name": "a", "password": hide(json!("hunter2"))}, 1]});
        assert!(has_secret(&data));
        assert_eq!(reveal(data), json!({"users": [{"name": "a", "password": "hunter2"}, 1]}));
        // A secret is one, however much is in it.
        let all = hide(json!({"a": hide(json!("x")), "b": 1}));
        let found = secret(&all).unwrap();
        assert_eq!(*found.value, json!({"a": "x", "b": 1}));
        assert!(!has_secret(found.value));
        let parts = hide_parts(String::from("a=x;b=y"), &[2..3, 6..7]);
        assert_eq!(secret(&parts).unwrap().parts, Some(vec![2..3, 6..7]));
    }

    #[test]
    fn templates_that_hold_values_are_known() {
        let holding = [
            "{% set a = b %}",
            "{%- set a %}x{% endset %}",
            "{% for a in b | sort %}",
            "{% for a in b.split() %}",
            "{% for a in b[0] %}",
            "{% for k, v in b.items() -%}",
            "{%+ macro x() %}",
            "x{% include 'y' %}",
            "#jinja2: block_start_string:'<%'\n<% set a = b %>",
        ];
        assert!(holding.iter().all(|template| captures(template)));
        let plain = [
            "{{ a }}",
            "{% if a %}b{% endif %}",
            "{% for a in b.c %}",
            "{%- for a in b -%}",
            "{# set #}",
        ];
        assert!(!plain.iter().any(|template| captures(template)));
    }
}
