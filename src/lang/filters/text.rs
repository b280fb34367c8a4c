use std::path::Path;

use minijinja::{Error, Value};

use super::super::python;
use super::{Arguments, Filter, filter, list, wrong};

/// Filters of text and paths.
pub(super) const FILTERS: &[Filter] = &[
    filter("quote", &[], |value, _| {
        let text = if value.is_none() { String::new() } else { value.to_string() };
        Ok(Value::from(quote(&text)))
    }),
    filter("basename", &[], |value, _| {
        Ok(Value::from(value.to_string().rsplit('/').next().unwrap_or_default()))
    }),
    filter("dirname", &[], |value, _| Ok(Value::from(dirname(&value.to_string())))),
    filter("splitext", &[], |value, _| {
        let text = value.to_string();
        let (stem, extension) = splitext(&text);
        Ok([stem, extension].into_iter().collect())
    }),
    filter("replace", &["old", "new", "count"], |value, arguments| {
        let (old, new) = (arguments.needed("old")?, arguments.needed("new")?);
        let (text, old, new) = (value.to_string(), old.to_string(), new.to_string());
        Ok(Value::from(match arguments.integer("count")?.map(usize::try_from) {
            Some(Ok(count)) => text.replacen(&old, &new, count),
            _ => text.replace(&old, &new),
        }))
    }),
    filter("indent", &["width", "first", "blank"], indent),
    filter("path_join", &["*"], path_join),
    filter("comment", COMMENT, comment),
    filter("center", &["width"], |value, arguments| {
        let width = arguments.count("width")?.unwrap_or(80);
        Ok(Value::from(super::methods::padded(&value.to_string(), width, ' ', 0.5)))
    }),
    filter("pprint", &["verbose"], |value, _| python::inside(value).map(Value::from)),
    filter("string", &[], |value, _| match value.as_str() {
        Some(_) => Ok(value.clone()),
        None => python::text(value).map(Value::from),
    }),
    filter("type_debug", &[], |value, _| Ok(Value::from(type_name(value)))),
];

/// A word for a POSIX shell, as Python's `shlex.quote`.
fn quote(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

/// As Jinja's `indent`: a line end at the end stays.
fn indent(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let indentation = match arguments.get("width") {
        Some(text) if text.as_str().is_some() => text.to_string(),
        _ => " ".repeat(arguments.count("width")?.unwrap_or(4)),
    };
    let text = value.to_string().replace("\r\n", "\n");
    let blank = arguments.flag("blank", false);
    let mut indented = String::new();
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            indented.push('\n');
        }
        let wanted =
            if index == 0 { arguments.flag("first", false) } else { blank || !line.is_empty() };
        if wanted {
            indented.push_str(&indentation);
        }
        indented.push_str(line);
    }
    Ok(Value::from(indented))
}

/// As Python's `os.path.dirname`.
fn dirname(path: &str) -> String {
    let head = path.rfind('/').map_or("", |at| &path[..=at]);
    let trimmed = head.trim_end_matches('/');
    if trimmed.is_empty() { head.to_owned() } else { trimmed.to_owned() }
}

/// As Python's `os.path.splitext`.
fn splitext(path: &str) -> (&str, &str) {
    let name_start = path.rfind('/').map_or(0, |at| at + 1);
    let name = &path[name_start..];
    let leading = name.len() - name.trim_start_matches('.').len();
    match name.rfind('.') {
        Some(dot) if dot >= leading && leading < name.len() => path.split_at(name_start + dot),
        _ => (path, ""),
    }
}

fn path_join(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let mut parts = match value.as_str() {
        Some(text) => vec![Value::from(text)],
        None => list("path_join", value)?,
    };
    parts.extend(arguments.rest().iter().cloned());
    let joined = parts
        .iter()
        .fold(std::path::PathBuf::new(), |path, part| path.join(Path::new(&part.to_string())));
    Ok(Value::from(joined.to_string_lossy()))
}

const COMMENT: &[&str] = &[
    "style",
    "decoration",
    "beginning",
    "end",
    "prefix",
    "postfix",
    "prefix_count",
    "postfix_count",
    "newline",
];

fn comment(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let style = arguments.text("style", "plain");
    let (beginning, decoration, end) = match style.as_str() {
        "plain" => ("", "# ", ""),
        "erlang" => ("", "% ", ""),
        "c" => ("", "// ", ""),
        "cblock" => ("/*", " * ", " */"),
        "xml" => ("<!--", " - ", "-->"),
        _ => return Err(wrong(format!("`comment` knows no style named `{style}`"))),
    };
    let newline = arguments.text("newline", "\n");
    let decoration = arguments.text("decoration", decoration);
    let edge = decoration.trim_end();
    let prefix = arguments.text("prefix", edge);
    let postfix = arguments.text("postfix", edge);
    let mut text = arguments.text("beginning", beginning);
    if !text.is_empty() {
        text.push_str(&newline);
    }
    if !prefix.is_empty() {
        let line = if prefix == newline { prefix } else { prefix + &newline };
        text.push_str(&line.repeat(arguments.count("prefix_count")?.unwrap_or(1)));
    }
    let body = value.to_string().replace(newline.as_str(), &format!("{newline}{decoration}"));
    let empty = (format!("{decoration}{newline}"), format!("{edge}{newline}"));
    text.push_str(&format!("{decoration}{body}").replace(&empty.0, &empty.1));
    let postfixes = arguments.count("postfix_count")?.unwrap_or(1);
    text.push_str(&format!("{newline}{postfix}").repeat(postfixes));
    let end = arguments.text("end", end);
    if !end.is_empty() {
        text.push_str(&newline);
        text.push_str(&end);
    }
    Ok(Value::from(text))
}

/// The name of the type that a value has in Python.
fn type_name(value: &Value) -> &'static str {
    use minijinja::value::{Tuple, ValueKind};
    match value.kind() {
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        _ if value.downcast_object_ref::<Tuple>().is_some() => "tuple",
        ValueKind::Seq | ValueKind::Iterable => "list",
        ValueKind::Map => "dict",
        ValueKind::Bytes => "bytes",
        _ => "object",
    }
}
