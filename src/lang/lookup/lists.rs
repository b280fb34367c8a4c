//! Lookups that make lists of values.

use std::collections::BTreeMap;

use minijinja::formatting::FormatStyle;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, Value};

use super::super::filters::formatting::formatted;
use super::{flattened, refusal, texts};

/// Most items that a lookup makes.
const ITEM_LIMIT: usize = 100_000;

/// The words of a term: `key name=value name=value`.
pub(super) fn words(term: &str) -> (String, BTreeMap<&str, &str>) {
    let (named, plain): (Vec<&str>, Vec<&str>) =
        term.split_whitespace().partition(|word| word.contains('='));
    (plain.join(" "), named.iter().filter_map(|word| word.split_once('=')).collect())
}

/// The names in texts and in lists of texts, which may each have several; nothing and what is
/// undefined has none.
pub(super) fn names(given: &[Value], ends: &[char]) -> Result<Vec<String>, Error> {
    let mut items = flattened(given)?;
    items.retain(|item| !item.is_none() && !item.is_undefined());
    let names = texts(&items)?.flat_map(|text| text.split(ends));
    Ok(names.filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// Each name in each folder, or as it is if there are no folders.
pub(super) fn below<'a>(folders: &[String], names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let candidates = |name: &str| match folders {
        [] => vec![name.to_owned()],
        _ => folders.iter().map(|folder| format!("{folder}/{name}")).collect(),
    };
    names.flat_map(candidates).collect()
}

/// `sequence`: `start=1 end=4 stride=2 format=web%02d`, `count=3`, or `1-4/2:web%02d`.
pub(super) fn sequence(terms: &[Value], options: &Kwargs) -> Result<Vec<Value>, Error> {
    let mut results = Vec::new();
    let terms = if terms.is_empty() { &[Value::from("")] } else { terms };
    for term in terms {
        let term = term.to_string();
        let (short, mut given) = words(&term);
        let short = short.replace("0x", "");
        let (range, shape) = short
            .split_once(':')
            .map_or((short.as_str(), None), |(range, shape)| (range, Some(shape)));
        let (range, stride) =
            range.split_once('/').map_or((range, None), |(range, stride)| (range, Some(stride)));
        let (start, end) =
            range.split_once('-').map_or((None, range), |(start, end)| (Some(start), end));
        let short = [("start", start), ("end", Some(end)), ("stride", stride), ("format", shape)];
        for (name, value) in short {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                given.insert(name, value);
            }
        }
        let known = ["start", "end", "stride", "count", "format"];
        if let Some(other) = given.keys().find(|name| !known.contains(name)) {
            return Err(refusal(format!("`lookup('sequence', …)` has no `{other}`")));
        }
        let option = |name: &str| -> Result<Option<String>, Error> {
            let named: Option<Value> = options.get(name)?;
            Ok(given.get(name).map(|text| (*text).to_owned()).or(named.map(|one| one.to_string())))
        };
        let number = |name: &str| -> Result<Option<i64>, Error> {
            let Some(text) = option(name)? else { return Ok(None) };
            let read = match text.strip_prefix("0x") {
                Some(digits) => i64::from_str_radix(digits, 16),
                None => text.parse(),
            };
            read.map(Some).map_err(|_| refusal(format!("`{name}={text}` is not a whole number")))
        };
        let start = number("start")?.unwrap_or(1);
        let stride = number("stride")?.unwrap_or(1);
        let end = match (number("end")?, number("count")?) {
            (Some(end), None) => end,
            (None, Some(0)) => continue,
            (None, Some(count)) => {
                start.saturating_add(count.saturating_sub(1).saturating_mul(stride))
            }
            _ => return Err(refusal("a sequence has an `end` or a `count`".into())),
        };
        let backwards = stride < 0;
        if stride == 0 || (end != start && backwards != (end < start)) {
            return Err(refusal(format!("no `stride={stride}` leads from {start} to {end}")));
        }
        let shape = option("format")?;
        let mut at = start;
        while if backwards { at >= end } else { at <= end } {
            if results.len() >= ITEM_LIMIT {
                return Err(refusal(format!("a sequence of more than {ITEM_LIMIT} numbers")));
            }
            results.push(Value::from(match &shape {
                Some(shape) => formatted(FormatStyle::Printf, shape, &[Value::from(at)])?,
                None => at.to_string(),
            }));
            let Some(next) = at.checked_add(stride) else { break };
            at = next;
        }
    }
    Ok(results)
}

/// `together`: the first items of all lists, the second ones, and so on.
pub(super) fn together(terms: &[Value]) -> Result<Vec<Value>, Error> {
    let lists = lists(terms)?;
    let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
    let item = |list: &Vec<Value>, at: usize| list.get(at).cloned().unwrap_or(Value::from(()));
    let row = |at| lists.iter().map(|list| item(list, at)).collect::<Vec<Value>>();
    Ok((0..longest).map(|at| Value::from(row(at))).collect())
}

/// `nested`: each item of the first list with each of the second, and so on.
pub(super) fn nested(terms: &[Value]) -> Result<Vec<Value>, Error> {
    let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
    for list in lists(terms)? {
        if rows.len().saturating_mul(list.len()) > ITEM_LIMIT {
            return Err(refusal(format!("more than {ITEM_LIMIT} combinations")));
        }
        let longer = |row: &Vec<Value>| -> Result<Vec<Vec<Value>>, Error> {
            let with =
                |item: &Value| Ok([row.clone(), flattened(std::slice::from_ref(item))?].concat());
            list.iter().map(with).collect()
        };
        let all: Result<Vec<_>, Error> = rows.iter().map(longer).collect();
        rows = all?.concat();
    }
    Ok(rows.into_iter().map(Value::from).collect())
}

/// `subelements`: each mapping without a list of its own, with each item of that list.
pub(super) fn subelements(terms: &[Value]) -> Result<Vec<Value>, Error> {
    let (of, path, flags) = match terms {
        [of, path] => (of, path.to_string(), None),
        [of, path, flags] => (of, path.to_string(), Some(flags)),
        _ => return Err(refusal("`subelements` takes a list and the name of a list in it".into())),
    };
    let skip = match flags {
        Some(flags) => flags.get_attr("skip_missing")?.is_true(),
        None => false,
    };
    let is_mapping = of.kind() == ValueKind::Map;
    let mut pairs = Vec::new();
    for one in of.try_iter()?.checked() {
        let element = if is_mapping { of.get_item(&one?)? } else { one? };
        let mut found = element.clone();
        for part in path.split('.') {
            found = found.get_attr(part)?;
            if found.is_undefined() {
                break;
            }
        }
        if found.is_undefined() {
            if skip {
                continue;
            }
            return Err(refusal(format!("an element has no `{path}`")));
        }
        let rest = without(&element, &path)?;
        for item in found.try_iter()?.checked() {
            pairs.push(Value::from(vec![rest.clone(), item?]));
        }
    }
    Ok(pairs)
}

/// A mapping without the entry at a path.
fn without(value: &Value, path: &str) -> Result<Value, Error> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let mut entries = Vec::new();
    for key in value.try_iter()?.checked() {
        let key = key?;
        let entry = value.get_item(&key)?;
        match (key.as_str() == Some(first), rest) {
            (false, _) => entries.push((key, entry)),
            (true, "") => {}
            (true, rest) => entries.push((key, without(&entry, rest)?)),
        }
    }
    Ok(Value::from_pairs(entries))
}

fn lists(terms: &[Value]) -> Result<Vec<Vec<Value>>, Error> {
    terms.iter().map(|term| flattened(std::slice::from_ref(term))).collect()
}
