use indexmap::{IndexMap, IndexSet};
use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::{Arguments, Filter, Undefined, entries, filter, list, wrong};

/// Filters of lists and mappings.
pub(super) const FILTERS: &[Filter] = &[
    filter("combine", &["*", "recursive", "list_merge"], combine),
    filter("dict2items", &["key_name", "value_name"], dict2items),
    filter("items2dict", &["key_name", "value_name"], items2dict),
    filter("flatten", &["levels", "skip_nulls"], flatten),
    filter("union", &["other"], |value, arguments| {
        let mut all = set("union", value)?;
        all.extend(list("union", &arguments.needed("other")?)?);
        Ok(all.into_iter().collect())
    }),
    filter("intersect", &["other"], |value, arguments| {
        let other = set("intersect", &arguments.needed("other")?)?;
        Ok(set("intersect", value)?.into_iter().filter(|item| other.contains(item)).collect())
    }),
    filter("difference", &["other"], |value, arguments| {
        let other = set("difference", &arguments.needed("other")?)?;
        Ok(set("difference", value)?.into_iter().filter(|item| !other.contains(item)).collect())
    }),
    filter("symmetric_difference", &["other"], |value, arguments| {
        let left = set("symmetric_difference", value)?;
        let right = set("symmetric_difference", &arguments.needed("other")?)?;
        Ok(left.symmetric_difference(&right).cloned().collect())
    }),
    filter("batch", &["linecount", "fill_with"], batch),
    filter("slice", &["slices", "fill_with"], slice),
    filter("zip_longest", &["*", "fillvalue"], zip_longest),
    filter("product", &["*", "repeat"], product),
    filter("permutations", &["size"], |value, arguments| {
        let size = arguments.integer("size")?.map(usize::try_from);
        chosen("permutations", value, size.and_then(Result::ok), |row, next| !row.contains(&next))
    }),
    filter("combinations", &["size"], |value, arguments| {
        let size = usize::try_from(i64::try_from(arguments.needed("size")?)?).ok();
        chosen("combinations", value, size, |row, next| row.last().is_none_or(|last| *last < next))
    }),
    filter("rekey_on_member", &["key", "duplicates"], rekey_on_member),
    filter("extract", &["container", "morekeys"], extract),
    filter("subelements", &["subelements", "skip_missing"], subelements),
    filter("ternary", &["true_val", "false_val", "none_val"], |value, arguments| {
        match arguments.get("none_val") {
            Some(none) if value.is_none() => Ok(none),
            _ if value.is_true() => arguments.needed("true_val"),
            _ => arguments.needed("false_val"),
        }
    })
    .taking_undefined(Undefined::InArguments),
    filter("default", DEFAULT, default).taking_undefined(Undefined::Everywhere),
    filter("d", DEFAULT, default).taking_undefined(Undefined::Everywhere),
    filter("mandatory", &["msg"], |value, arguments| {
        if !value.is_undefined() {
            return Ok(value.clone());
        }
        match arguments.get("msg") {
            Some(message) => Err(wrong(message.to_string())),
            None => super::required(value).map(|()| value.clone()),
        }
    })
    .taking_undefined(Undefined::Everywhere),
];

const DEFAULT: &[&str] = &["default_value", "boolean"];

fn default(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    if value.is_undefined() || (arguments.flag("boolean", false) && !value.is_true()) {
        Ok(arguments.get("default_value").unwrap_or_else(|| Value::from("")))
    } else {
        Ok(value.clone())
    }
}

fn set(what: &str, value: &Value) -> Result<IndexSet<Value>, Error> {
    Ok(list(what, value)?.into_iter().collect())
}

/// What `combine` does with two lists under one key.
#[derive(Clone, Copy)]
enum ListMerge {
    Replace,
    Keep,
    Append,
    Prepend,
    /// As `Append`, without what the other has as well.
    AppendOthers,
    /// As `Prepend`, without what the other has as well.
    PrependOthers,
}

fn combine(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let recursive = arguments.flag("recursive", false);
    let merge = match arguments.text("list_merge", "replace").as_str() {
        "replace" => ListMerge::Replace,
        "keep" => ListMerge::Keep,
        "append" => ListMerge::Append,
        "prepend" => ListMerge::Prepend,
        "append_rp" => ListMerge::AppendOthers,
        "prepend_rp" => ListMerge::PrependOthers,
        other => return Err(wrong(format!("`combine` knows no `list_merge` named `{other}`"))),
    };
    let mut mappings = Vec::new();
    for one in std::iter::once(value).chain(arguments.rest()) {
        // A list stands for its mappings, and nothing for none.
        if one.is_none() {
            continue;
        }
        if one.kind() == ValueKind::Seq {
            mappings.extend(list("combine", one)?);
        } else {
            mappings.push(one.clone());
        }
    }
    let mut combined = IndexMap::new();
    for mapping in &mappings {
        merge_into(&mut combined, mapping, recursive, merge)?;
    }
    Ok(Value::from_pairs(combined))
}

fn merge_into(
    combined: &mut IndexMap<Value, Value>,
    mapping: &Value,
    recursive: bool,
    merge: ListMerge,
) -> Result<(), Error> {
    for (key, new) in entries("combine", mapping)? {
        let merged = match combined.get(&key) {
            None => new,
            Some(old) if recursive && both(old, &new, ValueKind::Map) => {
                let mut inner: IndexMap<Value, Value> =
                    entries("combine", old)?.into_iter().collect();
                merge_into(&mut inner, &new, recursive, merge)?;
                Value::from_pairs(inner)
            }
            Some(old) if both(old, &new, ValueKind::Seq) => merge_lists(old, &new, merge)?,
            Some(_) => new,
        };
        combined.insert(key, merged);
    }
    Ok(())
}

fn both(left: &Value, right: &Value, kind: ValueKind) -> bool {
    left.kind() == kind && right.kind() == kind
}

fn merge_lists(old: &Value, new: &Value, merge: ListMerge) -> Result<Value, Error> {
    let (old, new) = (list("combine", old)?, list("combine", new)?);
    let without = |items: &[Value], others: &[Value]| -> Vec<Value> {
        items.iter().filter(|item| !others.contains(item)).cloned().collect()
    };
    Ok(Value::from(match merge {
        ListMerge::Replace => new,
        ListMerge::Keep => old,
        ListMerge::Append => [old, new].concat(),
        ListMerge::Prepend => [new, old].concat(),
        ListMerge::AppendOthers => [without(&old, &new), new].concat(),
        ListMerge::PrependOthers => {
            let rest = without(&old, &new);
            [new, rest].concat()
        }
    }))
}

fn dict2items(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let key_name = arguments.text("key_name", "key");
    let value_name = arguments.text("value_name", "value");
    let items = entries("dict2items", value)?.into_iter();
    Ok(items
        .map(|(key, value)| {
            Value::from_pairs([(key_name.as_str(), key), (value_name.as_str(), value)])
        })
        .collect())
}

fn items2dict(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let key_name = arguments.text("key_name", "key");
    let value_name = arguments.text("value_name", "value");
    let part = |item: &Value, name: &str| {
        let part = item.get_item(&Value::from(name))?;
        if part.is_undefined() {
            return Err(wrong(format!("`items2dict` found an item without `{name}`")));
        }
        Ok(part)
    };
    let mut pairs = Vec::new();
    for item in list("items2dict", value)? {
        pairs.push((part(&item, &key_name)?, part(&item, &value_name)?));
    }
    Ok(Value::from_pairs(pairs))
}

fn flatten(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let levels = arguments.integer("levels")?;
    let skip_nulls = arguments.flag("skip_nulls", true);
    let mut flat = Vec::new();
    flatten_into(&mut flat, list("flatten", value)?, levels.unwrap_or(i64::MAX), skip_nulls)?;
    Ok(Value::from(flat))
}

fn flatten_into(
    flat: &mut Vec<Value>,
    items: Vec<Value>,
    levels: i64,
    skip_nulls: bool,
) -> Result<(), Error> {
    for item in items {
        match item.kind() {
            ValueKind::None if skip_nulls => {}
            ValueKind::Seq | ValueKind::Iterable if levels > 0 => {
                flatten_into(flat, list("flatten", &item)?, levels - 1, skip_nulls)?;
            }
            _ => flat.push(item),
        }
    }
    Ok(())
}

/// The items of a list, or the characters of a text, and into how many they are to be parted.
fn parted(
    what: &str,
    value: &Value,
    arguments: &Arguments,
    name: &str,
) -> Result<(Vec<Value>, usize), Error> {
    let items = match value.as_str() {
        Some(text) => text.chars().map(Value::from).collect(),
        None => list(what, value)?,
    };
    arguments.needed(name)?;
    match arguments.count(name)? {
        Some(count @ 1..) => Ok((items, count)),
        _ => Err(wrong(format!("`{what}` takes a number of at least 1"))),
    }
}

/// As Jinja's `batch`: rows of so many items; the last one is filled up.
fn batch(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let (items, count) = parted("batch", value, arguments, "linecount")?;
    let mut rows: Vec<Vec<Value>> = items.chunks(count).map(<[Value]>::to_vec).collect();
    let fill = arguments.get("fill_with").filter(|fill| !fill.is_none());
    if let (Some(last), Some(fill)) = (rows.last_mut(), fill) {
        last.resize(count, fill);
    }
    Ok(rows.into_iter().map(Value::from).collect())
}

/// As Jinja's `slice`: so many rows; those without an item more than the others get the filling.
fn slice(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let (items, count) = parted("slice", value, arguments, "slices")?;
    let (each, longer) = (items.len() / count, items.len() % count);
    let fill = arguments.get("fill_with").filter(|fill| !fill.is_none());
    let mut items = items.into_iter();
    let row = |at: usize| {
        let is_longer = at < longer;
        let mut row: Vec<Value> = items.by_ref().take(each + usize::from(is_longer)).collect();
        row.extend(fill.clone().filter(|_| !is_longer));
        Value::from(row)
    };
    Ok((0..count).map(row).collect())
}

fn zip_longest(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let fill = arguments.get("fillvalue").unwrap_or_else(|| Value::from(()));
    let mut lists = vec![list("zip_longest", value)?];
    for other in arguments.rest() {
        lists.push(list("zip_longest", other)?);
    }
    let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
    let row = |index| {
        let items = lists.iter().map(|items| items.get(index).unwrap_or(&fill).clone());
        items.collect::<Value>()
    };
    Ok((0..longest).map(row).collect())
}

/// Most rows that `product` gives.
const PRODUCT_LIMIT: usize = 100_000;

fn product(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let mut lists = vec![list("product", value)?];
    for other in arguments.rest() {
        lists.push(list("product", other)?);
    }
    let repeat = arguments.count("repeat")?.unwrap_or(1);
    let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
    for items in (0..repeat).flat_map(|_| &lists) {
        if rows.len().saturating_mul(items.len()) > PRODUCT_LIMIT {
            return Err(wrong(format!("`product` gives more than {PRODUCT_LIMIT} rows here")));
        }
        let longer = |row: &Vec<Value>, item: &Value| {
            let mut row = row.clone();
            row.push(item.clone());
            row
        };
        rows =
            rows.iter().flat_map(|row| items.iter().map(move |item| longer(row, item))).collect();
    }
    Ok(rows.into_iter().map(Value::from).collect())
}

/// Rows of `size` items, or of all: those whose indices `fits` lets follow each other.
fn chosen(
    what: &str,
    value: &Value,
    size: Option<usize>,
    fits: fn(&[usize], usize) -> bool,
) -> Result<Value, Error> {
    let items = match value.as_str() {
        Some(text) => text.chars().map(Value::from).collect(),
        None => list(what, value)?,
    };
    let size = size.unwrap_or(items.len());
    if size > items.len() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    let mut rows: Vec<Vec<usize>> = vec![Vec::new()];
    for _ in 0..size {
        let mut longer = Vec::new();
        for row in &rows {
            for next in (0..items.len()).filter(|next| fits(row, *next)) {
                longer.push([row.as_slice(), &[next]].concat());
            }
            if longer.len() > PRODUCT_LIMIT {
                return Err(wrong(format!("`{what}` gives more than {PRODUCT_LIMIT} rows here")));
            }
        }
        rows = longer;
    }
    let row =
        |row: Vec<usize>| row.into_iter().map(|index| items[index].clone()).collect::<Value>();
    Ok(rows.into_iter().map(row).collect())
}

/// A mapping of the items of a list, or of the values of a mapping, by what they have under a name.
fn rekey_on_member(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let key = arguments.needed("key")?;
    let overwrite = match arguments.text("duplicates", "error").as_str() {
        "error" => false,
        "overwrite" => true,
        other => return Err(wrong(format!("`rekey_on_member` knows no `duplicates={other}`"))),
    };
    let items = match value.kind() {
        ValueKind::Map => {
            entries("rekey_on_member", value)?.into_iter().map(|(_, item)| item).collect()
        }
        _ => list("rekey_on_member", value)?,
    };
    let mut keyed = IndexMap::new();
    for item in items {
        let name = item.get_item(&key)?;
        if name.is_undefined() {
            return Err(wrong(format!("`rekey_on_member` found an item without `{key}`")));
        }
        if keyed.insert(name.clone(), item).is_some() && !overwrite {
            return Err(wrong(format!("`rekey_on_member` found `{name}` twice")));
        }
    }
    Ok(Value::from_pairs(keyed))
}

fn extract(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let mut found = arguments.needed("container")?;
    let mut keys = vec![value.clone()];
    match arguments.get("morekeys") {
        None => {}
        Some(more) if more.kind() == ValueKind::Seq => keys.extend(list("extract", &more)?),
        Some(more) => keys.push(more),
    }
    for key in keys {
        // `default` works on what is not there; anything else refuses it.
        found = found.get_item(&key)?;
        if found.is_undefined() {
            break;
        }
    }
    Ok(found)
}

fn subelements(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let path = arguments.needed("subelements")?;
    let keys: Vec<String> = match path.as_str() {
        Some(path) => path.split('.').map(str::to_owned).collect(),
        None => list("subelements", &path)?.iter().map(Value::to_string).collect(),
    };
    let skip_missing = arguments.flag("skip_missing", false);
    let elements = match value.kind() {
        ValueKind::Map => {
            entries("subelements", value)?.into_iter().map(|(_, element)| element).collect()
        }
        _ => list("subelements", value)?,
    };
    let mut pairs = Vec::new();
    for element in elements {
        let mut inner = element.clone();
        for key in &keys {
            if !inner.is_undefined() {
                inner = inner.get_item(&Value::from(key.as_str()))?;
            }
        }
        if inner.is_undefined() {
            if skip_missing {
                continue;
            }
            return Err(wrong(format!("`subelements` found an element without `{path}`")));
        }
        for item in list("subelements", &inner)? {
            pairs.push(Value::from(vec![element.clone(), item]));
        }
    }
    Ok(Value::from(pairs))
}
