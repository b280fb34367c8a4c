//! Ansible's filters and tests, as functions of data.
//!
//! Each is an entry in a table: its name, its parameters and a function. What Jinja itself has
//! (`map`, `selectattr`, `default`, …) comes with the template engine.

mod addresses;
mod chance;
mod collections;
mod controller;
mod dates;
mod encodings;
mod engine;
mod formats;
pub(super) mod formatting;
mod functions;
mod methods;
mod network;
mod numbers;
mod passwords;
mod paths;
mod patterns;
mod predicates;
mod prose;
mod text;
mod urls;
mod versions;
mod yaml_text;

pub use dates::Moment;

use std::sync::Arc;

use minijinja::value::{Kwargs, Rest};
use minijinja::{Environment, Error, ErrorKind, Value};

use super::lookup::Lookup;

/// A filter.
struct Filter {
    name: &'static str,
    /// Names of its parameters in their order; `*` first: any number by position, the others by
    /// name only.
    parameters: &'static [&'static str],
    undefined: Undefined,
    apply: fn(&Value, &Arguments) -> Result<Value, Error>,
}

/// Where a filter takes something undefined.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Undefined {
    Nowhere,
    /// As an argument, which it may leave unused.
    InArguments,
    Everywhere,
}

/// A test.
struct Test {
    name: &'static str,
    parameters: &'static [&'static str],
    holds: fn(&Value, &Arguments) -> Result<bool, Error>,
}

const fn filter(
    name: &'static str,
    parameters: &'static [&'static str],
    apply: fn(&Value, &Arguments) -> Result<Value, Error>,
) -> Filter {
    Filter { name, parameters, undefined: Undefined::Nowhere, apply }
}

impl Filter {
    const fn taking_undefined(mut self, undefined: Undefined) -> Self {
        self.undefined = undefined;
        self
    }
}

const fn test(
    name: &'static str,
    parameters: &'static [&'static str],
    holds: fn(&Value, &Arguments) -> Result<bool, Error>,
) -> Test {
    Test { name, parameters, holds }
}

const TABLES: [&[Filter]; 13] = [
    collections::FILTERS,
    text::FILTERS,
    prose::FILTERS,
    patterns::FILTERS,
    paths::FILTERS,
    urls::FILTERS,
    formats::FILTERS,
    encodings::FILTERS,
    passwords::FILTERS,
    numbers::FILTERS,
    chance::FILTERS,
    dates::FILTERS,
    addresses::FILTERS,
];

/// What the template engine has of its own, for suggestions.
const BUILT_IN_FILTERS: &[&str] = &[
    "safe",
    "lower",
    "upper",
    "title",
    "capitalize",
    "length",
    "count",
    "dictsort",
    "items",
    "reverse",
    "trim",
    "join",
    "split",
    "lines",
    "round",
    "abs",
    "attr",
    "first",
    "last",
    "min",
    "max",
    "sort",
    "list",
    "sum",
    "select",
    "reject",
    "selectattr",
    "rejectattr",
    "map",
    "groupby",
    "unique",
    "chain",
    "zip",
    "format",
];
const BUILT_IN_TESTS: &[&str] = &[
    "undefined",
    "defined",
    "safe",
    "escaped",
    "boolean",
    "odd",
    "even",
    "number",
    "integer",
    "int",
    "float",
    "string",
    "iterable",
    "mapping",
    "startingwith",
    "endingwith",
    "lower",
    "upper",
    "sameas",
    "eq",
    "equalto",
    "ne",
    "lt",
    "lessthan",
    "le",
    "gt",
    "greaterthan",
    "ge",
    "in",
    "true",
    "false",
    "filter",
    "test",
];

/// A filter as the engine calls it.
fn called(
    entry: &'static Filter,
) -> impl Fn(Value, Rest<Value>, Kwargs) -> Result<Value, Error> + Send + Sync + 'static {
    move |value, positional, named| {
        if entry.undefined != Undefined::Everywhere {
            required(&value)?;
        }
        let arguments = Arguments::new(entry.parameters, positional, named)?;
        if entry.undefined == Undefined::Nowhere {
            arguments.required()?;
        }
        (entry.apply)(&value, &arguments)
    }
}

/// Adds all filters, tests and methods.
pub(super) fn register(environment: &mut Environment<'static>) {
    for entry in TABLES.into_iter().flatten() {
        environment.add_filter(entry.name, called(entry));
        environment.add_filter(format!("ansible.builtin.{}", entry.name), called(entry));
    }
    for entry in addresses::FILTERS {
        for collection in ["ansible.utils", "ansible.netcommon"] {
            environment.add_filter(format!("{collection}.{}", entry.name), called(entry));
        }
    }
    for entry in predicates::TESTS {
        let call = move |value: Value, positional: Rest<Value>, named: Kwargs| {
            required(&value)?;
            let arguments = Arguments::new(entry.parameters, positional, named)?;
            arguments.required()?;
            (entry.holds)(&value, &arguments)
        };
        environment.add_test(entry.name, call);
        environment.add_test(format!("ansible.builtin.{}", entry.name), call);
    }
    engine::register(environment);
    formatting::register(environment);
    functions::register(environment);
    environment.set_unknown_method_callback(|_, value, name, arguments| {
        methods::call(value, name, arguments)
    });
}

/// Adds what looks at files of this machine.
pub(super) fn register_files(environment: &mut Environment<'static>, lookup: &Arc<Lookup>) {
    controller::register(environment, lookup);
}

/// Names of all filters that templates can use.
pub fn filter_names() -> Vec<&'static str> {
    let own = TABLES.into_iter().flatten().map(|entry| entry.name);
    own.chain(controller::FILTERS).chain(BUILT_IN_FILTERS.iter().copied()).collect()
}

/// Names of all tests that templates can use, after `is`.
pub fn test_names() -> Vec<&'static str> {
    let own = predicates::TESTS.iter().map(|entry| entry.name);
    let files = controller::TESTS.map(|(name, _)| name).into_iter().chain(controller::TESTS_OF_TWO);
    own.chain(files).chain(BUILT_IN_TESTS.iter().copied()).collect()
}

/// Names of all functions.
pub(super) fn function_names() -> Vec<&'static str> {
    ["lookup", "query", "q", "range"].into_iter().chain(functions::NAMES).collect()
}

/// What a call gave beside the value itself.
struct Arguments {
    parameters: &'static [&'static str],
    positional: Vec<Value>,
    named: Kwargs,
}

impl Arguments {
    fn new(
        parameters: &'static [&'static str],
        positional: Rest<Value>,
        named: Kwargs,
    ) -> Result<Self, Error> {
        let variadic = parameters.first() == Some(&"*");
        if !variadic && positional.len() > parameters.len() {
            return Err(Error::from(ErrorKind::TooManyArguments));
        }
        for name in named.args() {
            if !parameters.contains(&name) {
                let message = format!("there is no argument `{name}` here");
                return Err(Error::new(ErrorKind::TooManyArguments, message));
            }
        }
        Ok(Self { parameters, positional: positional.0, named })
    }

    /// Refuses arguments that are undefined.
    fn required(&self) -> Result<(), Error> {
        self.positional.iter().try_for_each(required)?;
        self.named.args().try_for_each(|name| required(&self.named.get::<Value>(name)?))
    }

    /// All that were given by position.
    fn rest(&self) -> &[Value] {
        &self.positional
    }

    fn get(&self, name: &str) -> Option<Value> {
        let index = self.parameters.iter().position(|parameter| *parameter == name)?;
        let positional = if self.parameters.first() == Some(&"*") {
            None
        } else {
            self.positional.get(index).cloned()
        };
        positional.or_else(|| {
            if self.named.has(name) { self.named.get::<Value>(name).ok() } else { None }
        })
    }

    fn needed(&self, name: &str) -> Result<Value, Error> {
        self.get(name).ok_or_else(|| {
            Error::new(ErrorKind::MissingArgument, format!("the argument `{name}` is missing"))
        })
    }

    fn text(&self, name: &str, default: &str) -> String {
        self.get(name).map_or_else(|| default.to_owned(), |value| value.to_string())
    }

    fn flag(&self, name: &str, default: bool) -> bool {
        self.get(name).map_or(default, |value| value.is_true())
    }

    fn integer(&self, name: &str) -> Result<Option<i64>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(value) if value.is_none() => Ok(None),
            Some(value) => i64::try_from(value).map(Some),
        }
    }

    /// A width or the like; what is below zero is zero.
    fn count(&self, name: &str) -> Result<Option<usize>, Error> {
        self.integer(name)?.map(|count| bounded(&format!("`{name}`"), count)).transpose()
    }
}

/// Refuses what is undefined, in the engine's own words: they name the expression.
fn required(value: &Value) -> Result<(), Error> {
    if value.is_undefined() { value.get_attr("").map(|_| ()) } else { Ok(()) }
}

/// Largest width, indentation or count that a template may ask for.
const COUNT_LIMIT: usize = 10_000;

/// A number that decides how much is made; `what` it is. What is below zero is zero.
fn bounded(what: &str, number: i64) -> Result<usize, Error> {
    let number = usize::try_from(number.max(0)).unwrap_or(usize::MAX);
    if number > COUNT_LIMIT {
        return Err(wrong(format!("{what} is at most {COUNT_LIMIT}")));
    }
    Ok(number)
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// The items of a list; `what` is the filter.
fn list(what: &str, value: &Value) -> Result<Vec<Value>, Error> {
    use minijinja::value::ValueKind;
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => value.try_iter()?.checked().collect(),
        // A value that is not known yet looks like an empty mapping.
        ValueKind::Map => value.try_iter()?.checked().collect(),
        _ => Err(wrong(format!("`{what}` takes a list, not {}", super::value::describe(value)))),
    }
}

/// The entries of a mapping; `what` is the filter.
fn entries(what: &str, value: &Value) -> Result<Vec<(Value, Value)>, Error> {
    if value.kind() != minijinja::value::ValueKind::Map {
        let found = super::value::describe(value);
        return Err(wrong(format!("`{what}` takes a mapping, not {found}")));
    }
    let keys = value.try_iter()?.checked();
    keys.map(|key| {
        let key = key?;
        let entry = value.get_item(&key)?;
        Ok((key, entry))
    })
    .collect()
}
