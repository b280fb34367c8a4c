use std::ops::Range;

use minijinja::formatting::FormatStyle;
use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, ErrorKind, Value};

use super::super::python;
use super::encodings::{decoded, encoded};
use super::formatting::formatted;
use super::{bounded, entries, list, required, wrong};

/// Python's methods of strings, mappings and lists, as templates call them.
pub(super) fn call(value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            match name {
                "format" => formatted(FormatStyle::StrFormat, text, arguments).map(Value::from),
                "format_map" => {
                    let (of,): (Value,) = from_args(arguments)?;
                    let named: Kwargs = entries(name, &of)?
                        .into_iter()
                        .map(|(key, entry)| (key.to_string(), entry))
                        .collect();
                    formatted(FormatStyle::StrFormat, text, &[named.into()]).map(Value::from)
                }
                _ => {
                    let (positional, named): (&[Value], Kwargs) = from_args(arguments)?;
                    let result = of_string(text, name, &Given(positional, &named))?;
                    named.assert_all_used()?;
                    Ok(result)
                }
            }
        }
        ValueKind::Bytes if name == "decode" => {
            let (encoding,): (Option<&str>,) = from_args(arguments)?;
            let bytes = value.as_bytes().unwrap_or_default();
            decoded(bytes, encoding.unwrap_or("utf-8")).map(Value::from)
        }
        ValueKind::Number => match (name, i128::try_from(value.clone())) {
            ("bit_length", Ok(number)) if value.is_integer() => {
                Ok(Value::from(u128::BITS - number.unsigned_abs().leading_zeros()))
            }
            ("is_integer", _) => {
                Ok(Value::from(f64::try_from(value.clone()).is_ok_and(|one| one.fract() == 0.0)))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        },
        ValueKind::Map => of_mapping(value, name, arguments),
        ValueKind::Seq | ValueKind::Iterable => of_list(value, name, arguments),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// What a method is called with, by position and by name.
struct Given<'a>(&'a [Value], &'a Kwargs);

impl Given<'_> {
    fn text(&self, index: usize) -> Result<String, Error> {
        match self.0.get(index) {
            Some(value) if !value.is_undefined() => Ok(value.to_string()),
            _ => Err(Error::from(ErrorKind::MissingArgument)),
        }
    }

    fn given(&self, index: usize) -> Option<&Value> {
        self.0.get(index).filter(|value| !value.is_none())
    }

    fn integer(&self, index: usize, default: i64) -> Result<i64, Error> {
        self.given(index).map_or(Ok(default), |value| i64::try_from(value.clone()))
    }

    /// An argument that may have its name.
    fn named(&self, index: usize, name: &str) -> Result<Option<Value>, Error> {
        let named = self.1.get::<Option<Value>>(name)?;
        Ok(self.given(index).cloned().or(named).filter(|value| !value.is_none()))
    }

    /// The bytes of a text that two optional arguments bound, as a slice does.
    fn bounds(&self, text: &str, index: usize) -> Result<Range<usize>, Error> {
        let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        let at = |index, default| -> Result<usize, Error> {
            let at = self.integer(index, default)?;
            let at = if at < 0 { at + length } else { at }.clamp(0, length);
            let byte = text.char_indices().nth(usize::try_from(at).unwrap_or(0));
            Ok(byte.map_or(text.len(), |(byte, _)| byte))
        };
        let (from, to) = (at(index, 0)?, at(index + 1, length)?);
        Ok(from..to.max(from))
    }

    fn part<'b>(&self, text: &'b str, index: usize) -> Result<&'b str, Error> {
        Ok(&text[self.bounds(text, index)?])
    }

    /// The set of characters that `strip` and the like take.
    fn characters(&self) -> impl Fn(char) -> bool {
        let set = self.given(0).map(Value::to_string);
        move |one| set.as_ref().map_or(one.is_whitespace(), |set| set.contains(one))
    }

    /// Whether `test` holds for the first argument, or for one of a tuple.
    fn any_text(&self, test: impl Fn(&str) -> bool) -> Result<bool, Error> {
        match self.0.first() {
            Some(several) if several.kind() == ValueKind::Seq => {
                Ok(list("startswith", several)?.iter().filter_map(Value::as_str).any(test))
            }
            _ => Ok(test(&self.text(0)?)),
        }
    }
}

fn of_string(text: &str, name: &str, given: &Given<'_>) -> Result<Value, Error> {
    let every = |test: fn(char) -> bool| Value::from(!text.is_empty() && text.chars().all(test));
    Ok(match name {
        "upper" => Value::from(text.to_uppercase()),
        "lower" => Value::from(text.to_lowercase()),
        // By way of capitals, as some letters fold to several.
        "casefold" => Value::from(text.to_uppercase().to_lowercase()),
        "capitalize" => Value::from(capitalized(text)),
        "title" => Value::from(titled(text)),
        "strip" => Value::from(text.trim_matches(given.characters())),
        "lstrip" => Value::from(text.trim_start_matches(given.characters())),
        "rstrip" => Value::from(text.trim_end_matches(given.characters())),
        "split" => split(text, given, false)?,
        "rsplit" => split(text, given, true)?,
        "splitlines" => {
            let keep = given.named(0, "keepends")?.is_some_and(|keep| keep.is_true());
            let end = |line: &'_ str| {
                if keep { line.len() } else { line.trim_end_matches(is_line_end).len() }
            };
            lines(text).map(|line| &line[..end(line)]).collect()
        }
        "swapcase" => {
            let swapped = |one: char| -> String {
                if one.is_uppercase() {
                    one.to_lowercase().collect()
                } else {
                    one.to_uppercase().collect()
                }
            };
            text.chars().map(swapped).collect::<String>().into()
        }
        "istitle" => {
            Value::from(titled(text) == text && text.to_lowercase() != text.to_uppercase())
        }
        "isidentifier" => {
            let word = |one: char| one.is_alphanumeric() || one == '_';
            Value::from(
                text.chars().all(word) && !text.is_empty() && !text.starts_with(char::is_numeric),
            )
        }
        "isascii" => Value::from(text.is_ascii()),
        "expandtabs" => {
            let size = given.named(0, "tabsize")?.map_or(Ok(8), i64::try_from)?;
            let size = bounded("`tabsize`", size)?;
            Value::from(without_tabs(text, size))
        }
        "encode" => {
            let encoding =
                given.named(0, "encoding")?.map_or_else(|| "utf-8".into(), |one| one.to_string());
            Value::from_bytes(encoded(text, &encoding)?)
        }
        "partition" => {
            let separator = given.text(0)?;
            let (before, after) = text.split_once(&separator).unwrap_or((text, ""));
            let found = if before.len() < text.len() { separator.as_str() } else { "" };
            [before, found, after].into_iter().collect()
        }
        "rpartition" => {
            let separator = given.text(0)?;
            match text.rsplit_once(&separator) {
                Some((before, after)) => [before, separator.as_str(), after].into_iter().collect(),
                None => ["", "", text].into_iter().collect(),
            }
        }
        "startswith" => {
            let text = given.part(text, 1)?;
            Value::from(given.any_text(|prefix| text.starts_with(prefix))?)
        }
        "endswith" => {
            let text = given.part(text, 1)?;
            Value::from(given.any_text(|suffix| text.ends_with(suffix))?)
        }
        "removeprefix" => {
            let prefix = given.text(0)?;
            Value::from(text.strip_prefix(prefix.as_str()).unwrap_or(text))
        }
        "removesuffix" => {
            let suffix = given.text(0)?;
            Value::from(text.strip_suffix(suffix.as_str()).unwrap_or(text))
        }
        "replace" => {
            let (old, new) = (given.text(0)?, given.text(1)?);
            match usize::try_from(given.integer(2, -1)?) {
                Ok(count) => Value::from(text.replacen(&old, &new, count)),
                Err(_) => Value::from(text.replace(&old, &new)),
            }
        }
        "join" => {
            let items = given.0.first().ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
            let text_of = |item: Result<Value, Error>| {
                let item = item?;
                required(&item)?;
                python::text(&item)
            };
            let items: Result<Vec<String>, Error> =
                items.try_iter()?.checked().map(text_of).collect();
            Value::from(items?.join(text))
        }
        "find" | "rfind" | "index" => {
            let part = given.text(0)?;
            let bounds = given.bounds(text, 1)?;
            let within = &text[bounds.clone()];
            let at = if name == "rfind" { within.rfind(&part) } else { within.find(&part) };
            match at {
                Some(at) => Value::from(text[..bounds.start + at].chars().count()),
                None if name == "index" => {
                    return Err(wrong(format!("`{part}` is not in the string")));
                }
                None => Value::from(-1),
            }
        }
        "count" => Value::from(given.part(text, 1)?.matches(given.text(0)?.as_str()).count()),
        "isdigit" | "isdecimal" | "isnumeric" => every(char::is_numeric),
        "isalpha" => every(char::is_alphabetic),
        "isalnum" => every(char::is_alphanumeric),
        "isspace" => every(char::is_whitespace),
        "isupper" => Value::from(text.to_uppercase() == text && text.to_lowercase() != text),
        "islower" => Value::from(text.to_lowercase() == text && text.to_uppercase() != text),
        "zfill" => {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
            let width = bounded("the width", given.integer(0, 0)?)?.saturating_sub(sign.len());
            Value::from(format!("{sign}{}", padded(digits, width, '0', 1.0)))
        }
        "rjust" | "ljust" | "center" => {
            let fill = match given.given(1) {
                Some(fill) => fill.to_string().chars().next().unwrap_or(' '),
                None => ' ',
            };
            let before = match name {
                "rjust" => 1.0,
                "ljust" => 0.0,
                _ => 0.5,
            };
            let width = bounded("the width", given.integer(0, 0)?)?;
            Value::from(padded(text, width, fill, before))
        }
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    })
}

/// Fills a text up to a width, with this share of the filling before it.
pub(super) fn padded(text: &str, width: usize, fill: char, before: f64) -> String {
    let missing = width.saturating_sub(text.chars().count());
    let left = if before >= 1.0 {
        missing
    } else if before > 0.0 {
        // As CPython, which gives the odd one to the left if the width is odd.
        missing / 2 + (missing & width & 1)
    } else {
        0
    };
    let fill = |count| fill.to_string().repeat(count);
    format!("{}{text}{}", fill(left), fill(missing - left))
}

fn is_line_end(character: char) -> bool {
    matches!(character, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}')
        || matches!(character, '\u{2028}' | '\u{2029}')
}

/// Lines with their ends, as Python's `splitlines` knows them.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let at = rest.find(is_line_end).unwrap_or(rest.len());
        let end = if rest[at..].starts_with("\r\n") {
            at + 2
        } else {
            at + rest[at..].chars().next().map_or(0, char::len_utf8)
        };
        let (line, after) = rest.split_at(end);
        rest = after;
        (!line.is_empty()).then_some(line)
    })
}

fn without_tabs(text: &str, size: usize) -> String {
    let mut expanded = String::new();
    let mut column: usize = 0;
    for one in text.chars() {
        if one == '\t' {
            let missing = size.saturating_sub(column.checked_rem(size).unwrap_or(0));
            expanded.extend(std::iter::repeat_n(' ', missing));
            column += missing;
        } else {
            expanded.push(one);
            column = if matches!(one, '\n' | '\r') { 0 } else { column + 1 };
        }
    }
    expanded
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first: String = characters.next().into_iter().flat_map(char::to_uppercase).collect();
    first + &characters.as_str().to_lowercase()
}

fn titled(text: &str) -> String {
    let mut inside = false;
    let mut titled = String::with_capacity(text.len());
    for one in text.chars() {
        if inside {
            titled.extend(one.to_lowercase());
        } else {
            titled.extend(one.to_uppercase());
        }
        inside = one.is_alphabetic();
    }
    titled
}

fn split(text: &str, given: &Given<'_>, from_right: bool) -> Result<Value, Error> {
    let most = given.named(1, "maxsplit")?.map_or(Ok(-1), i64::try_from)?;
    let most = usize::try_from(most).ok();
    let Some(separator) = given.named(0, "sep")?.map(|separator| separator.to_string()) else {
        let words = text.split_whitespace();
        let Some(most) = most else { return Ok(words.collect()) };
        return Ok(split_words(text, most, from_right));
    };
    if separator.is_empty() {
        return Err(wrong("a string cannot be split at nothing"));
    }
    let separator = separator.as_str();
    let mut parts: Vec<&str> = match most {
        None => text.split(separator).collect(),
        Some(most) if from_right => text.rsplitn(most.saturating_add(1), separator).collect(),
        Some(most) => text.splitn(most.saturating_add(1), separator).collect(),
    };
    if from_right && most.is_some() {
        parts.reverse();
    }
    Ok(parts.into_iter().collect())
}

/// Splits at blanks, at most so many times.
fn split_words(text: &str, most: usize, from_right: bool) -> Value {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let at = if from_right {
            rest.rfind(char::is_whitespace)
        } else {
            rest.find(char::is_whitespace)
        };
        match at.filter(|_| parts.len() < most) {
            None => {
                parts.push(rest);
                break;
            }
            Some(at) if from_right => {
                parts.push(rest[at..].trim_start());
                rest = rest[..at].trim_end();
            }
            Some(at) => {
                parts.push(&rest[..at]);
                rest = rest[at..].trim_start();
            }
        }
    }
    if from_right {
        parts.reverse();
    }
    parts.into_iter().collect()
}

fn of_mapping(value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    Ok(match name {
        "items" => {
            let pairs = entries("items", value)?.into_iter();
            pairs.map(|(key, entry)| Value::from(vec![key, entry])).collect()
        }
        "keys" => entries("keys", value)?.into_iter().map(|(key, _)| key).collect(),
        "values" => entries("values", value)?.into_iter().map(|(_, entry)| entry).collect(),
        "copy" => value.clone(),
        "get" => {
            let key = arguments.first().ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
            let found = value.get_item(key)?;
            if found.is_undefined() {
                arguments.get(1).cloned().unwrap_or_else(|| Value::from(()))
            } else {
                found
            }
        }
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    })
}

fn of_list(value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let items = list(name, value)?;
    let wanted = || arguments.first().ok_or_else(|| Error::from(ErrorKind::MissingArgument));
    Ok(match name {
        "index" => {
            let wanted = wanted()?;
            let at = items.iter().position(|item| item == wanted);
            Value::from(at.ok_or_else(|| wrong(format!("`{wanted}` is not in the list")))?)
        }
        "count" => {
            let wanted = wanted()?;
            Value::from(items.iter().filter(|item| *item == wanted).count())
        }
        "copy" => Value::from(items),
        "append" | "extend" | "insert" | "remove" | "pop" | "update" => {
            return Err(wrong(format!(
                "`{name}` would change a list in place: add lists with `+`"
            )));
        }
        _ => return Err(Error::from(ErrorKind::UnknownMethod)),
    })
}
