use std::path::Path;

use minijinja::{Error, Value};
use regex::{Captures, Regex, RegexBuilder};

use super::{Arguments, Filter, filter, list, wrong};

/// Filters of text and paths.
pub(super) const FILTERS: &[Filter] = &[
    filter(
        "regex_replace",
        &["pattern", "replacement", "ignorecase", "multiline", "count"],
        regex_replace,
    ),
    filter("regex_search", &["*", "ignorecase", "multiline"], regex_search),
    filter("regex_findall", &["pattern", "multiline", "ignorecase"], regex_findall),
    filter("regex_escape", &["re_type"], |value, _| {
        Ok(Value::from(regex_escape(&value.to_string())))
    }),
    filter("quote", &[], |value, _| Ok(Value::from(quote(&value.to_string())))),
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
        let width = arguments.integer("width")?.unwrap_or(80);
        Ok(Value::from(super::methods::padded(&value.to_string(), width, ' ', 0.5)))
    }),
    filter("wordcount", &[], |value, _| {
        Ok(Value::from(value.to_string().split_whitespace().count()))
    }),
    filter("type_debug", &[], |value, _| Ok(Value::from(type_name(value)))),
];

/// A pattern as Python has it; what this engine cannot do is said.
pub(super) fn pattern(text: &str, ignore_case: bool, multi_line: bool) -> Result<Regex, Error> {
    // Python's end of text; the names of groups are written alike.
    let text = text.replace("\\Z", "\\z");
    let built = RegexBuilder::new(&text)
        .case_insensitive(ignore_case)
        .multi_line(multi_line)
        .size_limit(8 << 20)
        .build();
    built.map_err(|error| {
        let why = error.to_string();
        let why = why.trim().lines().last().unwrap_or_default().trim_start_matches("error: ");
        wrong(format!("the regular expression `{text}` is not understood: {why}"))
    })
}

fn regex_replace(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let pattern = pattern(
        &arguments.text("pattern", ""),
        arguments.flag("ignorecase", false),
        arguments.flag("multiline", false),
    )?;
    let replacement = arguments.text("replacement", "");
    let count = usize::try_from(arguments.integer("count")?.unwrap_or(0)).unwrap_or(0);
    let text = value.to_string();
    let replaced =
        pattern.replacen(&text, count, |captures: &Captures<'_>| expand(&replacement, captures));
    Ok(Value::from(replaced.into_owned()))
}

/// `\1` and `\g<name>` in a replacement, and Python's escapes.
fn expand(replacement: &str, captures: &Captures<'_>) -> String {
    let mut expanded = String::new();
    let mut rest = replacement;
    while let Some(at) = rest.find('\\') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let named = after.strip_prefix("g<").and_then(|inner| inner.split_once('>'));
        let digits: String = after.chars().take(2).take_while(char::is_ascii_digit).collect();
        if let Some((name, following)) = named {
            expanded.push_str(group(captures, name));
            rest = following;
        } else if !digits.is_empty() {
            expanded.push_str(group(captures, &digits));
            rest = &after[digits.len()..];
        } else {
            let mut characters = after.chars();
            match characters.next() {
                Some('n') => expanded.push('\n'),
                Some('t') => expanded.push('\t'),
                Some('r') => expanded.push('\r'),
                Some('\\') | None => expanded.push('\\'),
                Some(other) => expanded.extend(['\\', other]),
            }
            rest = characters.as_str();
        }
    }
    expanded.push_str(rest);
    expanded
}

fn group<'a>(captures: &'a Captures<'_>, name: &str) -> &'a str {
    let found = match name.parse::<usize>() {
        Ok(index) => captures.get(index),
        Err(_) => captures.name(name),
    };
    found.map_or("", |one| one.as_str())
}

fn regex_search(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let [expression, groups @ ..] = arguments.rest() else {
        return Err(wrong("`regex_search` needs a pattern"));
    };
    let pattern = pattern(
        &expression.to_string(),
        arguments.flag("ignorecase", false),
        arguments.flag("multiline", false),
    )?;
    let text = value.to_string();
    let Some(captures) = pattern.captures(&text) else { return Ok(Value::from(())) };
    if groups.is_empty() {
        return Ok(Value::from(group(&captures, "0")));
    }
    let mut found = Vec::new();
    for wanted in groups {
        let wanted = wanted.to_string();
        let name = match wanted.strip_prefix("\\g<").and_then(|rest| rest.strip_suffix('>')) {
            Some(name) => name,
            None => wanted.trim_start_matches('\\'),
        };
        found.push(Value::from(group(&captures, name)));
    }
    Ok(Value::from(found))
}

fn regex_findall(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let pattern = pattern(
        &arguments.needed("pattern")?.to_string(),
        arguments.flag("ignorecase", false),
        arguments.flag("multiline", false),
    )?;
    let text = value.to_string();
    let one = |captures: Captures<'_>| match captures.len() {
        1 => Value::from(group(&captures, "0")),
        2 => Value::from(group(&captures, "1")),
        count => (1..count).map(|index| group(&captures, &index.to_string()).to_owned()).collect(),
    };
    Ok(pattern.captures_iter(&text).map(one).collect())
}

/// As Python's `re.escape`.
fn regex_escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        if "()[]{}?*+-|^$\\.&~# \t\n\r\u{b}\u{c}".contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

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
    const WIDTH_LIMIT: i64 = 1000;
    let indentation = match arguments.get("width") {
        Some(text) if text.as_str().is_some() => text.to_string(),
        _ => {
            let width = arguments.integer("width")?.unwrap_or(4).clamp(0, WIDTH_LIMIT);
            " ".repeat(usize::try_from(width).unwrap_or(0))
        }
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
    let count = |name| -> Result<usize, Error> {
        Ok(usize::try_from(arguments.integer(name)?.unwrap_or(1).min(1000)).unwrap_or(0))
    };
    let mut text = arguments.text("beginning", beginning);
    if !text.is_empty() {
        text.push_str(&newline);
    }
    if !prefix.is_empty() {
        let line = if prefix == newline { prefix } else { prefix + &newline };
        text.push_str(&line.repeat(count("prefix_count")?));
    }
    let body = value.to_string().replace(newline.as_str(), &format!("{newline}{decoration}"));
    let empty = (format!("{decoration}{newline}"), format!("{edge}{newline}"));
    text.push_str(&format!("{decoration}{body}").replace(&empty.0, &empty.1));
    text.push_str(&format!("{newline}{postfix}").repeat(count("postfix_count")?));
    let end = arguments.text("end", end);
    if !end.is_empty() {
        text.push_str(&newline);
        text.push_str(&end);
    }
    Ok(Value::from(text))
}

/// The name of the type that a value has in Python.
fn type_name(value: &Value) -> &'static str {
    use minijinja::value::ValueKind;
    match value.kind() {
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Seq | ValueKind::Iterable => "list",
        ValueKind::Map => "dict",
        _ => "object",
    }
}
