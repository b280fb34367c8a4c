//! Regular expressions as Python's `re` has them.

use fancy_regex::{Captures, Regex, RegexBuilder};
use minijinja::{Error, Value};

use super::{Arguments, Filter, filter, wrong};

/// Filters of regular expressions.
pub(super) const FILTERS: &[Filter] = &[
    filter(
        "regex_replace",
        &["pattern", "replacement", "ignorecase", "multiline", "count", "mandatory_count"],
        regex_replace,
    ),
    filter("regex_search", &["*", "ignorecase", "multiline"], regex_search),
    filter("regex_findall", &["pattern", "multiline", "ignorecase"], regex_findall),
    filter("regex_escape", &["re_type"], |value, arguments| {
        let text = value.to_string();
        match arguments.text("re_type", "python").as_str() {
            "python" => Ok(Value::from(escaped(&text, "()[]{}?*+-|^$\\.&~# \t\n\r\u{b}\u{c}"))),
            "posix_basic" => Ok(Value::from(escaped(&text, "].[^$*\\"))),
            other => Err(wrong(format!("`regex_escape` knows no `re_type` named `{other}`"))),
        }
    }),
];

/// A compiled pattern.
pub(super) struct Pattern(Regex);

impl Pattern {
    pub(super) fn new(text: &str, ignore_case: bool, multi_line: bool) -> Result<Self, Error> {
        let built = RegexBuilder::new(&without_python(text))
            .case_insensitive(ignore_case)
            .multi_line(multi_line)
            .delegate_size_limit(8 << 20)
            .build();
        built.map(Self).map_err(|error| {
            let why = error.to_string();
            let why = why.trim().lines().last().unwrap_or_default().trim_start_matches("error: ");
            wrong(format!("the regular expression `{text}` is not understood: {why}"))
        })
    }

    fn of(text: &str, arguments: &Arguments) -> Result<Self, Error> {
        let (ignore_case, multi_line) =
            (arguments.flag("ignorecase", false), arguments.flag("multiline", false));
        Self::new(text, ignore_case, multi_line)
    }

    /// Whether it is found in a text.
    pub(super) fn is_match(&self, text: &str) -> Result<bool, Error> {
        self.0.is_match(text).map_err(given_up)
    }

    /// The first match at or after a byte of the text.
    fn first<'a>(&self, text: &'a str, from: usize) -> Result<Option<Match<'a>>, Error> {
        let captures = self.0.captures_from_pos(text, from).map_err(given_up)?;
        Ok(captures.and_then(|captures| {
            let whole = captures.get(0)?;
            Some(Match { start: whole.start(), end: whole.end(), captures })
        }))
    }

    /// All matches, or the first `limit`. Unlike Rust's, Python's may be empty right after another.
    fn all<'a>(&self, text: &'a str, limit: usize) -> Result<Vec<Match<'a>>, Error> {
        let mut found = Vec::new();
        let mut from = 0;
        while found.len() < limit && from <= text.len() {
            let Some(one) = self.first(text, from)? else { break };
            let next = text[one.end..].chars().next().map_or(1, char::len_utf8);
            from = if one.start == one.end { one.end + next } else { one.end };
            found.push(one);
        }
        Ok(found)
    }

    /// What a group of a match took; none if it took no part. An error if the pattern has no such
    /// group.
    fn group<'a>(&self, one: &Match<'a>, name: &str) -> Result<Option<&'a str>, Error> {
        let found = match name.parse::<usize>() {
            Ok(index) if index < self.0.captures_len() => one.captures.get(index),
            Err(_) if self.0.capture_names().flatten().any(|known| known == name) => {
                one.captures.name(name)
            }
            _ => return Err(wrong(format!("the regular expression has no group `{name}`"))),
        };
        Ok(found.map(|found| found.as_str()))
    }
}

/// A match and its groups.
struct Match<'a> {
    start: usize,
    end: usize,
    captures: Captures<'a, str>,
}

fn given_up(error: fancy_regex::Error) -> Error {
    wrong(format!("the regular expression comes to no end: {error}"))
}

/// A pattern of Python's in this engine's words: the end of the text, and braces and brackets that
/// mean themselves.
fn without_python(text: &str) -> String {
    let mut written = String::new();
    let mut rest = text.char_indices();
    // The number of characters so far in a class, if in one.
    let mut class: Option<usize> = None;
    while let Some((at, character)) = rest.next() {
        match (character, class) {
            ('\\', _) => {
                let next = rest.next().map(|(_, next)| next);
                written.push('\\');
                written.extend(next.map(|next| if next == 'Z' { 'z' } else { next }));
                class = class.map(|count| count + 1);
            }
            ('[', None) => {
                class = Some(0);
                written.push('[');
                if text[at + 1..].starts_with('^') {
                    rest.next();
                    written.push('^');
                }
            }
            (']', Some(1..)) => {
                class = None;
                written.push(']');
            }
            ('[' | ']', Some(count)) => {
                class = Some(count + 1);
                written.extend(['\\', character]);
            }
            ('{', None) if !is_repetition(&text[at..]) => written.push_str("\\{"),
            _ => {
                class = class.map(|count| count + 1);
                written.push(character);
            }
        }
    }
    written
}

/// Whether `{` begins `{2}`, `{2,}`, `{,3}` or `{2,3}`.
fn is_repetition(text: &str) -> bool {
    let inside = text[1..].split_once('}').map(|(inside, _)| inside);
    inside.is_some_and(|inside| {
        inside.bytes().any(|byte| byte.is_ascii_digit())
            && inside.bytes().all(|byte| byte.is_ascii_digit() || byte == b',')
            && inside.bytes().filter(|byte| *byte == b',').count() <= 1
    })
}

fn regex_replace(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let pattern = Pattern::of(&arguments.text("pattern", ""), arguments)?;
    let replacement = arguments.text("replacement", "");
    let limit = match usize::try_from(arguments.integer("count")?.unwrap_or(0)) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(limit) => limit,
    };
    let text = value.to_string();
    let mut replaced = String::new();
    let mut copied = 0;
    let matches = pattern.all(&text, limit)?;
    for one in &matches {
        replaced.push_str(&text[copied..one.start]);
        expand(&mut replaced, &replacement, &pattern, one)?;
        copied = one.end;
    }
    replaced.push_str(&text[copied..]);
    let wanted = arguments.integer("mandatory_count")?.unwrap_or(0);
    if wanted != 0 && usize::try_from(wanted) != Ok(matches.len()) {
        let message = format!("`regex_replace` replaced {} and not {wanted} times", matches.len());
        return Err(wrong(message));
    }
    Ok(Value::from(replaced))
}

/// `\1` and `\g<name>` in a replacement, and Python's escapes.
fn expand(
    expanded: &mut String,
    replacement: &str,
    pattern: &Pattern,
    one: &Match<'_>,
) -> Result<(), Error> {
    let mut rest = replacement;
    while let Some(at) = rest.find('\\') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let named = after.strip_prefix("g<").and_then(|inner| inner.split_once('>'));
        let digits = after.bytes().take(2).take_while(u8::is_ascii_digit).count();
        if let Some((name, following)) = named {
            expanded.push_str(pattern.group(one, name)?.unwrap_or_default());
            rest = following;
        } else if digits > 0 {
            expanded.push_str(pattern.group(one, &after[..digits])?.unwrap_or_default());
            rest = &after[digits..];
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
    Ok(())
}

fn regex_search(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let [expression, groups @ ..] = arguments.rest() else {
        return Err(wrong("`regex_search` needs a pattern"));
    };
    let pattern = Pattern::of(&expression.to_string(), arguments)?;
    let mut names = Vec::new();
    for group in groups {
        let text = group.to_string();
        let named = text.strip_prefix("\\g<").and_then(|rest| rest.strip_suffix('>'));
        let Some(name) = named.or_else(|| text.strip_prefix('\\')) else {
            let message =
                format!("`regex_search` takes groups as `\\1` or `\\g<name>`, not `{text}`");
            return Err(wrong(message));
        };
        names.push(name.to_owned());
    }
    let text = value.to_string();
    let Some(one) = pattern.first(&text, 0)? else { return Ok(Value::from(())) };
    if names.is_empty() {
        return Ok(Value::from(&text[one.start..one.end]));
    }
    names.iter().map(|name| pattern.group(&one, name).map(Value::from)).collect()
}

fn regex_findall(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let pattern = Pattern::of(&arguments.needed("pattern")?.to_string(), arguments)?;
    let text = value.to_string();
    let group = |one: &Match<'_>, index| {
        Value::from(one.captures.get(index).map_or("", |found| found.as_str()))
    };
    let matches = pattern.all(&text, usize::MAX)?;
    Ok(matches
        .iter()
        .map(|one| match one.captures.len() {
            1 => group(one, 0),
            2 => group(one, 1),
            count => (1..count).map(|index| group(one, index)).collect(),
        })
        .collect())
}

fn escaped(text: &str, special: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        if special.contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}
