//! Template values as data: conversion from and to JSON, values that are not known yet, and what
//! one evaluation leaves behind beside its result.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};
use serde_json::{Map, Number, Value as Json};

use super::filters::Moment;
use super::python;
use super::scope::OMIT;
use super::taint::{self, Mixed};

/// What an evaluation used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    /// Facts that are not known yet.
    pub unknown: bool,
    /// Data from outside of the project: facts, and items of loops.
    pub outside: bool,
    /// Values that variables from elsewhere may go before.
    pub assumed: bool,
    /// Secrets: what is computed is one, too.
    pub secret: bool,
}

thread_local! {
    /// An evaluation stays on one thread and the template engine gives its objects no context of
    /// their own, so what they notice is left here; evaluations nest.
    static MARKS: Cell<Marks> = const {
        Cell::new(Marks { unknown: false, outside: false, assumed: false, secret: false })
    };
    /// Whether anything asked for facts that were not known; unlike a mark, it stays.
    static ASKED: Cell<bool> = const { Cell::new(false) };
    static WRITTEN: RefCell<Written> = const { RefCell::new(Written::Nothing) };
    static ROOT: RefCell<Option<Value>> = const { RefCell::new(None) };
}

/// Runs an evaluation and says what it used; the surrounding evaluation learns only of outside data and
/// of what is assumed.
pub(super) fn watched<T>(run: impl FnOnce() -> T) -> (T, Marks) {
    let before = MARKS.replace(Marks::default());
    let result = run();
    let marks = MARKS.get();
    MARKS.set(Marks {
        outside: before.outside || marks.outside,
        assumed: before.assumed || marks.assumed,
        ..before
    });
    (result, marks)
}

/// Runs something on this thread and says whether it would come to something else with facts.
pub fn asks_for_facts<T>(run: impl FnOnce() -> T) -> (T, bool) {
    ASKED.set(false);
    let result = run();
    (result, ASKED.get())
}

/// Notes that the evaluation depends on facts that are not known.
pub(super) fn mark_unknown() {
    ASKED.set(true);
    MARKS.set(Marks { unknown: true, ..MARKS.get() });
}

/// Notes that the evaluation uses data from outside of the project.
pub(super) fn mark_outside() {
    MARKS.set(Marks { outside: true, ..MARKS.get() });
}

/// Notes that the evaluation uses a value that others may go before.
pub(super) fn mark_assumed() {
    MARKS.set(Marks { assumed: true, ..MARKS.get() });
}

/// Notes that the evaluation reads secrets, with the texts in them; `spills` if it may hold parts of
/// them in variables.
pub(super) fn mark_secret(texts: impl Iterator<Item = String>, spills: bool) {
    MARKS.set(Marks { secret: true, ..MARKS.get() });
    taint::note(texts, spills);
}

/// Whether the evaluation has read a secret so far.
pub(super) fn secret_used() -> bool {
    MARKS.get().secret
}

/// Whether the evaluation has used data from outside of the project so far.
pub(super) fn outside_used() -> bool {
    MARKS.get().outside
}

/// What the `{{ … }}` of a template have given.
#[derive(Debug, Default)]
pub(super) enum Written {
    /// None of them was reached.
    #[default]
    Nothing,
    /// The value of a template that is one expression.
    Data(Json),
    /// The only value so far of a template that makes text.
    One(Value),
    /// More than one.
    Several,
}

/// Leaves the value of an expression for whoever runs it.
pub(super) fn write_data(value: Json) {
    WRITTEN.set(Written::Data(value));
}

/// Notes a value that goes into a text.
pub(super) fn write_into_text(value: &Value) {
    WRITTEN.with_borrow_mut(|written| {
        *written = match written {
            Written::Nothing => Written::One(value.clone()),
            _ => Written::Several,
        }
    });
}

/// Runs a template and gives what its expressions wrote. Templates nest: a variable is evaluated
/// while the template that uses it is.
pub(super) fn written<T>(run: impl FnOnce() -> T) -> (T, Written) {
    let before = WRITTEN.take();
    let result = run();
    (result, WRITTEN.replace(before))
}

/// Runs a template whose names are these.
pub(super) fn with_root<T>(names: &Value, run: impl FnOnce() -> T) -> T {
    let before = ROOT.replace(Some(names.clone()));
    let result = run();
    ROOT.set(before);
    result
}

/// The names of the template that is run.
pub(super) fn root() -> Option<Value> {
    ROOT.with_borrow(Clone::clone)
}

/// A value that will be known with the facts; whatever is made of it is not known either.
#[derive(Debug)]
struct NotKnownYet;

/// A value that will be known with the facts.
pub fn unknown() -> Value {
    Value::from_object(NotKnownYet)
}

/// Facts of which those with these names are not known.
pub(super) fn partly_known(facts: &Json, unasked: Vec<String>) -> Value {
    Value::from_object(PartlyKnown { known: value_of(facts), unasked })
}

/// A mapping of which some entries are not known. They are noted where they are taken out: a
/// comparison with a text would not ask them.
#[derive(Debug)]
struct PartlyKnown {
    known: Value,
    unasked: Vec<String>,
}

impl Object for PartlyKnown {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        if key.as_str().is_some_and(|name| self.unasked.iter().any(|unasked| unasked == name)) {
            mark_unknown();
            return Some(unknown());
        }
        self.known.get_item(key).ok().filter(|value| !value.is_undefined())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let known = self.known.try_iter().into_iter().flatten();
        let unasked = self.unasked.iter().map(|name| Value::from(name.as_str()));
        Enumerator::Values(known.chain(unasked).collect())
    }
}

/// Whether a value will be known with the facts.
pub(super) fn is_unknown(value: &Value) -> bool {
    value.downcast_object_ref::<NotKnownYet>().is_some()
}

impl Object for NotKnownYet {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, _key: &Value) -> Option<Value> {
        mark_unknown();
        Some(unknown())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        mark_unknown();
        Enumerator::Empty
    }

    fn is_true(self: &Arc<Self>) -> bool {
        mark_unknown();
        true
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, _: &[Value]) -> Result<Value, Error> {
        mark_unknown();
        Ok(unknown())
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        _: &str,
        _: &[Value],
    ) -> Result<Value, Error> {
        mark_unknown();
        Ok(unknown())
    }

    fn custom_cmp(self: &Arc<Self>, _other: &DynObject) -> Option<Ordering> {
        mark_unknown();
        Some(Ordering::Equal)
    }

    fn render(self: &Arc<Self>, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        mark_unknown();
        Ok(())
    }
}

/// Data as a template sees it; keys keep their order and strings are never templates again. A secret in
/// a list or mapping marks the evaluation that reads it.
pub fn value_of(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => number
            .as_i64()
            .map(Value::from)
            .or_else(|| number.as_u64().map(Value::from))
            .unwrap_or_else(|| Value::from(number.as_f64().unwrap_or(f64::NAN))),
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) if items.iter().any(is_secret) => Mixed::list(items),
        Json::Array(items) => items.iter().map(value_of).collect(),
        Json::Object(entries) if entries.values().any(is_secret) => Mixed::mapping(entries),
        Json::Object(entries) => {
            Value::from_pairs(entries.iter().map(|(key, value)| (key.as_str(), value_of(value))))
        }
    }
}

fn is_secret(data: &Json) -> bool {
    taint::secret(data).is_some()
}

/// Whether a list or a mapping is to leave it out.
pub(super) fn is_omitted(value: &Value) -> bool {
    value.as_str() == Some(OMIT)
}

/// A template's value as data; what is `omit` in a list or mapping is left out. A value that is not known marks the evaluation and gives null;
/// what is no data (a function, something undefined) is an error.
pub(super) fn json_of(value: &Value) -> Result<Json, Error> {
    convert(value, &json_of)
}

/// The same, with secrets in lists and mappings kept apart; reading them does not mark the evaluation.
pub(super) fn data_of(value: &Value) -> Result<Json, Error> {
    match Mixed::data(value) {
        Some(data) => Ok(data),
        None => convert(value, &data_of),
    }
}

/// `part` converts what is in a list or mapping.
fn convert(value: &Value, part: &dyn Fn(&Value) -> Result<Json, Error>) -> Result<Json, Error> {
    if is_unknown(value) {
        mark_unknown();
        return Ok(Json::Null);
    }
    Ok(match value.kind() {
        ValueKind::None => Json::Null,
        ValueKind::Bool => Json::Bool(value.is_true()),
        ValueKind::Number => Json::Number(number(value)?),
        ValueKind::String => Json::String(value.as_str().unwrap_or_default().to_owned()),
        ValueKind::Bytes => {
            Json::String(String::from_utf8_lossy(value.as_bytes().unwrap_or_default()).into_owned())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?.checked();
            let items = items.filter(|item| !item.as_ref().is_ok_and(is_omitted));
            Json::Array(items.map(|item| part(&item?)).collect::<Result<_, Error>>()?)
        }
        ValueKind::Map => {
            let mut entries = Map::new();
            for key in value.try_iter()?.checked() {
                let key = key?;
                let entry = value.get_item(&key)?;
                if !is_omitted(&entry) {
                    entries.insert(key_of(&key)?, part(&entry)?);
                }
            }
            Json::Object(entries)
        }
        // Only iteration hands out the error that such a value holds.
        ValueKind::Invalid => match Value::from(vec![value.clone()]).try_iter()?.checked().next() {
            Some(Err(error)) => return Err(error),
            _ => Json::Null,
        },
        ValueKind::Undefined => return Err(python::undefined_part()),
        _ if value.downcast_object_ref::<Moment>().is_some() => Json::String(value.to_string()),
        _ => {
            let message = format!("{} is not data", describe(value));
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
    })
}

/// A key as JSON has it.
fn key_of(key: &Value) -> Result<String, Error> {
    Ok(match key.kind() {
        ValueKind::None => String::from("null"),
        ValueKind::Bool => key.is_true().to_string(),
        _ => python::text(key)?,
    })
}

fn number(value: &Value) -> Result<Number, Error> {
    if value.is_integer() {
        if let Some(integer) = value.as_i64() {
            return Ok(Number::from(integer));
        }
        if let Ok(integer) = u64::try_from(value.clone()) {
            return Ok(Number::from(integer));
        }
        let message = format!("the number {value} does not fit in 64 bits");
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    Number::from_f64(f64::try_from(value.clone())?).ok_or_else(|| {
        Error::new(ErrorKind::InvalidOperation, format!("{value} is not a finite number"))
    })
}

/// What a value is, in words for messages.
pub(super) fn describe(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "something undefined",
        ValueKind::None => "nothing",
        ValueKind::Bool => "a boolean",
        ValueKind::Number => "a number",
        ValueKind::String | ValueKind::Bytes => "a string",
        ValueKind::Seq | ValueKind::Iterable => "a list",
        ValueKind::Map => "a mapping",
        _ => "a function",
    }
}

/// What JSON is, in words for messages.
pub(super) fn describe_json(value: &Json) -> &'static str {
    match value {
        Json::Null => "nothing",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "a mapping",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_survives_the_way_through_a_template() {
        let json: Json = serde_json::from_str(
            r#"{"z": 1, "a": [null, true, -3, 18446744073709551615, 1.5, "{{ x }}"], "m": {}}"#,
        )
        .unwrap();
        let back = json_of(&value_of(&json)).unwrap();
        assert_eq!(back.to_string(), json.to_string());
    }
}
