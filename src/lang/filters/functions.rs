//! Functions that templates call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::value::{Kwargs, Object, ObjectRepr, Rest, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value, functions};

use super::{entries, list, required, wrong};

/// Names of the functions of this file.
pub(super) const NAMES: [&str; 5] = ["cycler", "dict", "joiner", "namespace", "undef"];

/// Adds the functions of this file.
pub(super) fn register(environment: &mut Environment<'static>) {
    environment.add_function("dict", dict);
    environment.add_function("namespace", namespace);
    environment.add_function("undef", |_hint: Option<Value>, _: Kwargs| Value::UNDEFINED);
    environment.add_function("cycler", |items: Rest<Value>| match items.is_empty() {
        true => Err(wrong("`cycler` takes the values that it goes through")),
        false => Ok(Value::from_object(Cycler { items: items.0, at: AtomicUsize::new(0) })),
    });
    environment.add_function("joiner", |separator: Option<Value>| {
        let separator = separator.unwrap_or_else(|| Value::from(", "));
        Value::from_object(Joiner { separator, calls: AtomicUsize::new(0) })
    });
}

/// A mapping of another one or of pairs, and of named values.
fn dict(of: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    for name in named.args() {
        required(&named.get::<Value>(name)?)?;
    }
    let is_list = |of: &Value| matches!(of.kind(), ValueKind::Seq | ValueKind::Iterable);
    let of = match of {
        Some(of) if is_list(&of) => of,
        of => return functions::dict(of, named),
    };
    let mut pairs = Vec::new();
    for pair in list("dict", &of)? {
        match list("dict", &pair)?.as_slice() {
            [key, value] => {
                required(value)?;
                pairs.push((key.clone(), value.clone()));
            }
            items => {
                let message = format!("`dict` takes pairs, and one of these has {}", items.len());
                return Err(wrong(message));
            }
        }
    }
    for name in named.args() {
        pairs.push((Value::from(name), named.get(name)?));
    }
    Ok(Value::from_pairs(pairs))
}

/// The engine's, of a mapping and of named values at once.
fn namespace(of: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let mut pairs = match of {
        Some(of) => entries("namespace", &of)?,
        None => Vec::new(),
    };
    for name in named.args() {
        pairs.push((Value::from(name), named.get(name)?));
    }
    let (defaults,) = from_args(&[Value::from_pairs(pairs)])?;
    functions::namespace(defaults)
}

/// Goes through its values again and again.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl Cycler {
    fn item(&self, at: usize) -> Value {
        self.items.get(at % self.items.len()).cloned().unwrap_or_default()
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.item(self.at.load(Ordering::Relaxed)))
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        _: &[Value],
    ) -> Result<Value, Error> {
        match method {
            "next" => Ok(self.item(self.at.fetch_add(1, Ordering::Relaxed))),
            "reset" => {
                self.at.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// Nothing when it is called first, then its separator.
#[derive(Debug)]
struct Joiner {
    separator: Value,
    calls: AtomicUsize,
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, _: &[Value]) -> Result<Value, Error> {
        Ok(match self.calls.fetch_add(1, Ordering::Relaxed) {
            0 => Value::from(""),
            _ => self.separator.clone(),
        })
    }
}
