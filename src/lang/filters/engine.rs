//! Filters that the template engine has too, with the arguments that Jinja's take and without its
//! leniency: an item without the attribute that is asked for is an error.

use std::sync::Arc;

use minijinja::value::{
    Enumerator, Kwargs, Object, ObjectRepr, Rest, ValueKind, ValueOrKwargs, from_args,
};
use minijinja::{Environment, Error, State, Value, filters};

use super::super::python;
use super::{list, required, wrong};

/// The engine's own filters with the names of their arguments, in Jinja's order.
const NAMED: &[(&str, &[&str])] = &[
    ("sort", &["reverse", "case_sensitive", "attribute"]),
    ("dictsort", &["case_sensitive", "by", "reverse"]),
    ("unique", &["case_sensitive", "attribute"]),
    ("sum", &["attribute", "start"]),
    ("join", &["d", "attribute"]),
    ("groupby", &["attribute", "default", "case_sensitive"]),
];

/// The engine's own filters of lists that look at the items.
const OF_ITEMS: [&str; 4] = ["list", "max", "min", "reverse"];

/// The name under which a filter of the engine is kept; no template can write it.
fn kept(name: &str) -> String {
    format!("{name} of the engine")
}

/// Adds the filters of this file.
pub(super) fn register(environment: &mut Environment<'static>) {
    environment.add_filter(kept("sort"), filters::sort);
    environment.add_filter(kept("dictsort"), filters::dictsort);
    environment.add_filter(kept("unique"), filters::unique);
    environment.add_filter(kept("sum"), filters::sum);
    environment.add_filter(kept("join"), filters::join);
    environment.add_filter(kept("groupby"), filters::groupby);
    environment.add_filter(kept("map"), filters::map);
    environment.add_filter(kept("list"), filters::list);
    environment.add_filter(kept("max"), filters::max);
    environment.add_filter(kept("min"), filters::min);
    environment.add_filter(kept("reverse"), filters::reverse);
    for name in OF_ITEMS {
        let call = move |state: &mut State, value: Value, given: Rest<ValueOrKwargs>| {
            let mut arguments = vec![complete(value)?];
            arguments.extend(given.into_values());
            state.apply_filter(&kept(name), &arguments)
        };
        environment.add_filter(name, call);
    }
    environment.add_filter("select", |state: &mut State, value: Value, given| {
        chosen(state, "select", &value, given, true)
    });
    environment.add_filter("reject", |state: &mut State, value: Value, given| {
        chosen(state, "reject", &value, given, false)
    });
    for (name, parameters) in NAMED {
        let call = move |state: &mut State, value: Value, given: Rest<ValueOrKwargs>| {
            named(state, name, parameters, value, given)
        };
        environment.add_filter(*name, call);
    }
    environment.add_filter("map", map);
    environment.add_filter("selectattr", |state: &mut State, value: Value, given| {
        chosen_by_attribute(state, "selectattr", &value, given, true)
    });
    environment.add_filter("rejectattr", |state: &mut State, value: Value, given| {
        chosen_by_attribute(state, "rejectattr", &value, given, false)
    });
}

fn split(given: Rest<ValueOrKwargs>) -> Result<(Vec<Value>, Kwargs), Error> {
    let given = given.into_values();
    let (positional, named): (&[Value], Kwargs) = from_args(&given)?;
    Ok((positional.to_vec(), named))
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

/// A list of which no item is undefined; another value as it is.
fn complete(value: Value) -> Result<Value, Error> {
    if !is_list(&value) {
        return Ok(value);
    }
    let items = list("a filter", &value)?;
    items.iter().try_for_each(required)?;
    // What hands out its items only once has done so.
    Ok(if value.kind() == ValueKind::Iterable { Value::from(items) } else { value })
}

fn named(
    state: &mut State,
    name: &str,
    parameters: &[&str],
    mut value: Value,
    given: Rest<ValueOrKwargs>,
) -> Result<Value, Error> {
    let (positional, named) = split(given)?;
    if positional.len() > parameters.len() {
        return Err(Error::from(minijinja::ErrorKind::TooManyArguments));
    }
    let mut arguments: Vec<(String, Value)> = Vec::new();
    for (parameter, value) in parameters.iter().zip(positional) {
        arguments.push(((*parameter).to_owned(), value));
    }
    for parameter in named.args() {
        arguments.push((parameter.to_owned(), named.get(parameter)?));
    }
    // An attribute may be the number of an item.
    let attribute = arguments.iter_mut().find(|(parameter, _)| parameter == "attribute");
    let attribute = attribute.filter(|(_, value)| !value.is_none()).map(|(_, value)| {
        *value = Value::from(value.to_string());
        value.to_string()
    });
    value = complete(value)?;
    if name == "join" && attribute.is_none() && is_list(&value) {
        let items = list(name, &value)?;
        let texts: Result<Vec<String>, Error> = items.iter().map(python::text).collect();
        value = Value::from(texts?);
    }
    let lenient = name == "unique" || arguments.iter().any(|(parameter, _)| parameter == "default");
    if let Some(attribute) = attribute.filter(|_| !lenient) {
        let items = list(name, &value)?;
        for item in &items {
            for path in attribute.split(',') {
                attribute_of(item, path.trim())?;
            }
        }
        // What hands out its items only once has done so.
        value = Value::from(items);
    }
    let arguments: Kwargs = arguments.into_iter().collect();
    let found = state.apply_filter(&kept(name), &[value.clone(), arguments.clone().into()])?;
    match name {
        "unique" => without_equal_booleans(&found),
        "groupby" => first_keys(&found, &arguments),
        _ => Ok(found),
    }
}

/// As in Python, where `True` is 1 and `False` is 0.
fn without_equal_booleans(unique: &Value) -> Result<Value, Error> {
    let number = |value: &Value| match value.kind() {
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        _ => None,
    };
    let mut kept: Vec<Value> = Vec::new();
    for item in list("unique", unique)? {
        let equal = |one: &Value| number(one).is_some() && number(one) == number(&item);
        if !kept.iter().any(equal) {
            kept.push(item);
        }
    }
    Ok(Value::from(kept))
}

/// Groups that differ in case only go by the name that the first of their items has.
fn first_keys(groups: &Value, arguments: &Kwargs) -> Result<Value, Error> {
    let path = arguments.get::<Value>("attribute")?.to_string();
    let mut named = Vec::new();
    for group in list("groupby", groups)? {
        let parts = list("groupby", &group)?;
        let [key, items] = parts.as_slice() else { return Ok(groups.clone()) };
        let first = items.try_iter()?.next();
        let found = first.map(|first| at(&first, &path)).transpose()?;
        let key = found.filter(|found| !found.is_undefined()).unwrap_or_else(|| key.clone());
        named.push(Value::from_object(Group([key, items.clone()])));
    }
    Ok(Value::from(named))
}

/// A pair that also has names.
#[derive(Debug)]
struct Group([Value; 2]);

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let index = match key.as_str() {
            Some("grouper") => 0,
            Some("list") => 1,
            _ => key.as_usize()?,
        };
        self.0.get(index).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }
}

/// What an item has at a path of names and numbers, or something undefined.
fn at(item: &Value, path: &str) -> Result<Value, Error> {
    let mut found = item.clone();
    for part in path.split('.') {
        if found.is_undefined() {
            break;
        }
        found = match part.parse::<usize>() {
            Ok(index) if found.kind() != ValueKind::Map => found.get_item(&Value::from(index))?,
            _ => found.get_item(&Value::from(part))?,
        };
    }
    Ok(found)
}

/// The same; an error if there is nothing.
fn attribute_of(item: &Value, path: &str) -> Result<Value, Error> {
    let found = at(item, path)?;
    if found.is_undefined() {
        return Err(wrong(format!("an item has no `{path}`")));
    }
    Ok(found)
}

/// `map(attribute=…)`, or `map('FILTER', …)` with all arguments of that filter.
fn map(state: &mut State, value: Value, given: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let (positional, named) = split(given)?;
    let Some((filter, rest)) = positional.split_first() else {
        let mut arguments: Vec<(String, Value)> = Vec::new();
        for name in named.args() {
            let argument: Value = named.get(name)?;
            // As in Jinja, where that is no default.
            if name != "default" || !argument.is_none() {
                arguments.push((name.to_owned(), argument));
            }
        }
        let arguments: Kwargs = arguments.into_iter().collect();
        return state.apply_filter(&kept("map"), &[value, arguments.into()]);
    };
    let Some(filter) = filter.as_str() else {
        return Err(wrong("`map` takes the name of a filter, or `attribute=`"));
    };
    let mut mapped = Vec::new();
    for item in list("map", &value)? {
        let mut arguments = vec![item];
        arguments.extend(rest.iter().cloned());
        if named.args().next().is_some() {
            arguments.push(named.clone().into());
        }
        mapped.push(state.apply_filter(filter, &arguments)?);
    }
    Ok(Value::from(mapped))
}

/// The items that pass a test, or are true without one; or the others.
fn chosen(
    state: &mut State,
    name: &str,
    value: &Value,
    given: Rest<ValueOrKwargs>,
    wanted: bool,
) -> Result<Value, Error> {
    required(value)?;
    let given = given.into_values();
    let items = match value.as_str() {
        Some(text) => text.chars().map(Value::from).collect(),
        None => list(name, value)?,
    };
    let items = items.into_iter().map(|item| (item.clone(), item));
    passing(state, items.collect(), &given, wanted)
}

/// The items whose attribute passes a test, or is true without one; or the others.
fn chosen_by_attribute(
    state: &mut State,
    name: &str,
    value: &Value,
    given: Rest<ValueOrKwargs>,
    wanted: bool,
) -> Result<Value, Error> {
    let given = given.into_values();
    let Some((attribute, test)) = given.split_first() else {
        return Err(wrong(format!("`{name}` needs the name of an attribute")));
    };
    let path = attribute.to_string();
    let mut items = Vec::new();
    for item in list(name, value)? {
        let may_be_missing = takes_undefined(test);
        let found = if may_be_missing { at(&item, &path)? } else { attribute_of(&item, &path)? };
        items.push((item, found));
    }
    passing(state, items, test, wanted)
}

/// Whether a test, which is its name and its arguments, is of what is undefined.
fn takes_undefined(test: &[Value]) -> bool {
    let name = test.first().and_then(Value::as_str);
    matches!(name, Some("defined" | "undefined"))
}

/// The items of which what stands beside them passes a test, or is true without one; or the others.
fn passing(
    state: &mut State,
    items: Vec<(Value, Value)>,
    test: &[Value],
    wanted: bool,
) -> Result<Value, Error> {
    let may_be_missing = takes_undefined(test);
    let test = test.split_first();
    let test_name = test.map(|(name, _)| name.to_string());
    let mut chosen = Vec::new();
    for (item, found) in items {
        if !may_be_missing {
            required(&found)?;
        }
        let holds = match (&test_name, test) {
            (Some(name), Some((_, rest))) => {
                let arguments: Vec<Value> =
                    std::iter::once(found).chain(rest.iter().cloned()).collect();
                state.perform_test(name, &arguments)?
            }
            _ => found.is_true(),
        };
        if holds == wanted {
            chosen.push(item);
        }
    }
    Ok(Value::from(chosen))
}
