//! Text for people: lines of a width, sizes in words, and markup.

use minijinja::{Error, Value};

use super::{Arguments, Filter, entries, filter, wrong};

/// Filters of text for people.
pub(super) const FILTERS: &[Filter] = &[
    filter("truncate", &["length", "killwords", "end", "leeway"], truncate),
    filter("wordwrap", &["width", "break_long_words", "wrapstring", "break_on_hyphens"], wordwrap),
    filter("wordcount", &[], |value, _| {
        let text = value.to_string();
        let words = text.split(|one: char| !(one.is_alphanumeric() || one == '_'));
        Ok(Value::from(words.filter(|word| !word.is_empty()).count()))
    }),
    filter("filesizeformat", &["binary"], filesizeformat),
    filter("escape", &[], |value, _| Ok(Value::from(escaped(&value.to_string())))),
    filter("e", &[], |value, _| Ok(Value::from(escaped(&value.to_string())))),
    filter("forceescape", &[], |value, _| Ok(Value::from(escaped(&value.to_string())))),
    filter("striptags", &[], |value, _| Ok(Value::from(without_tags(&value.to_string())))),
    filter("xmlattr", &["autospace"], |value, arguments| {
        let mut attributes = Vec::new();
        for (key, entry) in entries("xmlattr", value)? {
            if !entry.is_none() && !entry.is_undefined() {
                let (key, entry) = (key.to_string(), entry.to_string());
                if key.contains(|one: char| one.is_whitespace() || "/>=".contains(one)) {
                    return Err(wrong(format!("`{key}` cannot be the name of an attribute")));
                }
                attributes.push(format!("{}=\"{}\"", escaped(&key), escaped(&entry)));
            }
        }
        let text = attributes.join(" ");
        let space = arguments.flag("autospace", true) && !text.is_empty();
        Ok(Value::from(format!("{}{text}", if space { " " } else { "" })))
    }),
];

/// As Jinja's `truncate`.
fn truncate(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let text = value.to_string();
    let count = |name, default| -> Result<usize, Error> {
        Ok(usize::try_from(arguments.integer(name)?.unwrap_or(default)).unwrap_or(0))
    };
    let (length, leeway) = (count("length", 255)?, count("leeway", 5)?);
    let end = arguments.text("end", "...");
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(Value::from(text));
    }
    let Some(kept) = length.checked_sub(end.chars().count()) else {
        return Err(wrong(format!("`truncate` has no place for `{end}` in {length} characters")));
    };
    let mut beginning: String = text.chars().take(kept).collect();
    if !arguments.flag("killwords", false)
        && let Some(at) = beginning.rfind(' ')
    {
        beginning.truncate(at);
    }
    Ok(Value::from(beginning + &end))
}

/// As Jinja's `wordwrap`: each line of the text is wrapped for itself.
fn wordwrap(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let width = usize::try_from(arguments.integer("width")?.unwrap_or(79)).unwrap_or(0);
    if width == 0 {
        return Err(wrong("`wordwrap` needs a width of at least 1"));
    }
    let break_words = arguments.flag("break_long_words", true);
    let break_hyphens = arguments.flag("break_on_hyphens", true);
    let separator = arguments.text("wrapstring", "\n");
    let text = value.to_string();
    let wrapped: Vec<String> = text
        .lines()
        .map(|line| wrapped(line, width, break_words, break_hyphens).join(&separator))
        .collect();
    Ok(Value::from(wrapped.join(&separator)))
}

fn wrapped(line: &str, width: usize, break_words: bool, break_hyphens: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut current = String::new();
    let mut used = 0;
    for mut piece in pieces(line, break_hyphens) {
        let is_blank = piece.trim().is_empty();
        let length = piece.chars().count();
        if used + length <= width {
            current.push_str(piece);
            used += length;
            continue;
        }
        if is_blank {
            // The blank at which a line is broken belongs to neither.
            lines.push(std::mem::take(&mut current));
            used = 0;
            continue;
        }
        if length > width && break_words {
            loop {
                let room = width.saturating_sub(used);
                let cut = piece.char_indices().nth(room).map_or(piece.len(), |(at, _)| at);
                current.push_str(&piece[..cut]);
                piece = &piece[cut..];
                if piece.is_empty() {
                    used = current.chars().count();
                    break;
                }
                lines.push(std::mem::take(&mut current));
                used = 0;
            }
            continue;
        }
        if !current.is_empty() {
            lines.push(std::mem::take(&mut current));
        }
        current.push_str(piece);
        used = length;
    }
    if !current.is_empty() {
        lines.push(current);
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// Words and the blanks between them; with `hyphens`, words end after one.
fn pieces(line: &str, hyphens: bool) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut before: Option<char> = None;
    for (at, character) in line.char_indices() {
        let ends = before.is_some_and(|before| {
            before.is_whitespace() != character.is_whitespace()
                || hyphens && before == '-' && character.is_alphabetic()
        });
        if ends {
            pieces.push(&line[start..at]);
            start = at;
        }
        before = Some(character);
    }
    if start < line.len() {
        pieces.push(&line[start..]);
    }
    pieces
}

/// As Jinja's `filesizeformat`.
fn filesizeformat(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let size = match value.as_str() {
        Some(text) => text.trim().parse::<f64>().ok(),
        None => f64::try_from(value.clone()).ok(),
    };
    let Some(size) = size else {
        return Err(wrong(format!("`filesizeformat` takes a number, not `{value}`")));
    };
    let binary = arguments.flag("binary", false);
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    let prefixes = if binary {
        ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]
    } else {
        ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"]
    };
    if size == 1.0 {
        return Ok(Value::from("1 Byte"));
    }
    if size < base {
        return Ok(Value::from(format!("{} Bytes", size.trunc())));
    }
    let mut unit = base;
    let last = prefixes.len() - 1;
    let mut index = 0;
    while index < last && size >= unit * base {
        unit *= base;
        index += 1;
    }
    Ok(Value::from(format!("{:.1} {}", size / unit, prefixes[index])))
}

/// As Python's `markupsafe.escape`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Text without comments and tags, its blanks made one each.
fn without_tags(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(open) = rest.find('<') {
        plain.push_str(&rest[..open]);
        let end = match rest[open..].starts_with("<!--") {
            true => rest[open..].find("-->").map(|end| open + end + 3),
            false => rest[open..].find('>').map(|end| open + end + 1),
        };
        match end {
            Some(end) => rest = &rest[end..],
            None => {
                plain.push('<');
                rest = &rest[open + 1..];
            }
        }
    }
    plain.push_str(rest);
    let words = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    // `&amp;` last: what it makes is no entity.
    let entities =
        [("&lt;", "<"), ("&gt;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&quot;", "\"")];
    let unescaped = entities.iter().fold(words, |text, (from, to)| text.replace(from, to));
    unescaped.replace("&amp;", "&")
}
