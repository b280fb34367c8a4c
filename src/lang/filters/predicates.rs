use std::cmp::Ordering;

use minijinja::{Error, Value};

use super::patterns::Pattern;
use super::urls;
use super::{Arguments, Test, list, test, wrong};

/// Ansible's tests.
pub(super) const TESTS: &[Test] = &[
    test("match", REGEX, |value, arguments| matches(value, arguments, Place::Start)),
    test("search", REGEX, |value, arguments| matches(value, arguments, Place::Anywhere)),
    test("regex", &["pattern", "ignorecase", "multiline", "match_type"], |value, arguments| {
        let place = match arguments.text("match_type", "search").as_str() {
            "search" => Place::Anywhere,
            "match" => Place::Start,
            "fullmatch" => Place::All,
            other => return Err(wrong(format!("`regex` knows no `match_type` named `{other}`"))),
        };
        matches(value, arguments, place)
    }),
    test("version", VERSION, version),
    test("version_compare", VERSION, version),
    test("subset", &["other"], |value, arguments| holds_all(&arguments.needed("other")?, value)),
    test("issubset", &["other"], |value, arguments| holds_all(&arguments.needed("other")?, value)),
    test("superset", &["other"], |value, arguments| holds_all(value, &arguments.needed("other")?)),
    test("issuperset", &["other"], |value, arguments| {
        holds_all(value, &arguments.needed("other")?)
    }),
    test("contains", &["item"], |value, arguments| {
        let item = arguments.needed("item")?;
        match (value.as_str(), item.as_str()) {
            (Some(text), Some(part)) => Ok(text.contains(part)),
            _ => Ok(list("contains", value)?.contains(&item)),
        }
    }),
    test("truthy", &["convert_bool"], truthy),
    test("falsy", &["convert_bool"], |value, arguments| {
        truthy(value, arguments).map(|holds| !holds)
    }),
    test("any", &[], |value, _| Ok(list("any", value)?.iter().any(Value::is_true))),
    test("all", &[], |value, _| Ok(list("all", value)?.iter().all(Value::is_true))),
    test("url", &["schemes"], |value, arguments| {
        Ok(urls::is_url(&value.to_string(), &schemes(arguments)?))
    }),
    test("uri", &["schemes"], |value, arguments| {
        Ok(urls::is_uri(&value.to_string(), &schemes(arguments)?))
    }),
    test("urn", &[], |value, _| Ok(urls::is_urn(&value.to_string()))),
    test("nan", &[], |value, _| Ok(is_nan(value))),
    test("isnan", &[], |value, _| Ok(is_nan(value))),
    test("is_abs", &[], |value, _| Ok(value.to_string().starts_with('/'))),
    test("none", &[], |value, _| Ok(value.is_none())),
    test("abs", &[], |value, _| Ok(value.to_string().starts_with('/'))),
];

const REGEX: &[&str] = &["pattern", "ignorecase", "multiline"];
const VERSION: &[&str] = &["version", "operator", "strict", "version_type"];

fn is_nan(value: &Value) -> bool {
    value.is_number() && f64::try_from(value.clone()).is_ok_and(f64::is_nan)
}

fn schemes(arguments: &Arguments) -> Result<Vec<String>, Error> {
    match arguments.get("schemes") {
        Some(schemes) if !schemes.is_none() => {
            Ok(list("schemes", &schemes)?.iter().map(|scheme| scheme.to_string()).collect())
        }
        _ => Ok(Vec::new()),
    }
}

/// Where a pattern has to match.
#[derive(Clone, Copy)]
enum Place {
    Start,
    Anywhere,
    All,
}

fn matches(value: &Value, arguments: &Arguments, place: Place) -> Result<bool, Error> {
    let text = arguments.text("pattern", "");
    let text = match place {
        Place::Start => format!(r"\A(?:{text})"),
        Place::Anywhere => text,
        Place::All => format!(r"\A(?:{text})\z"),
    };
    let ignore_case = arguments.flag("ignorecase", false);
    let multi_line = arguments.flag("multiline", false);
    Pattern::new(&text, ignore_case, multi_line)?.is_match(&value.to_string())
}

fn holds_all(whole: &Value, part: &Value) -> Result<bool, Error> {
    let whole = list("subset", whole)?;
    Ok(list("subset", part)?.iter().all(|item| whole.contains(item)))
}

fn truthy(value: &Value, arguments: &Arguments) -> Result<bool, Error> {
    if arguments.flag("convert_bool", false)
        && let Some(text) = value.as_str()
    {
        match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "true" | "1" | "y" | "t" => return Ok(true),
            "no" | "off" | "false" | "0" | "n" | "f" => return Ok(false),
            _ => {}
        }
    }
    Ok(value.is_true())
}

fn version(value: &Value, arguments: &Arguments) -> Result<bool, Error> {
    let (left, right) = (value.to_string(), arguments.needed("version")?.to_string());
    if left.trim().is_empty() || right.trim().is_empty() {
        return Err(wrong("an empty version cannot be compared"));
    }
    let ordering = match arguments.text("version_type", "loose").as_str() {
        "semver" | "semantic" => semantic(&left, &right)?,
        "loose" | "strict" | "pep440" => loose(&left, &right),
        other => return Err(wrong(format!("`version` knows no `version_type` named `{other}`"))),
    };
    match arguments.text("operator", "eq").as_str() {
        "==" | "=" | "eq" => Ok(ordering == Ordering::Equal),
        "!=" | "<>" | "ne" => Ok(ordering != Ordering::Equal),
        "<" | "lt" => Ok(ordering == Ordering::Less),
        "<=" | "le" => Ok(ordering != Ordering::Greater),
        ">" | "gt" => Ok(ordering == Ordering::Greater),
        ">=" | "ge" => Ok(ordering != Ordering::Less),
        other => Err(wrong(format!("`version` knows no operator `{other}`"))),
    }
}

/// A part of a version; words come before numbers, and a missing part before both.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Word(String),
    Number(u128),
}

/// As Python's `LooseVersion`: runs of digits and of letters.
fn parts(version: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = version.trim();
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let same = |one: char| {
            if digits { one.is_ascii_digit() } else { !one.is_ascii_digit() && one != '.' }
        };
        let end = rest.find(|one| !same(one)).unwrap_or(rest.len());
        if end == 0 {
            rest = &rest[first.len_utf8()..];
            continue;
        }
        parts.push(match rest[..end].parse() {
            Ok(number) => Part::Number(number),
            Err(_) => Part::Word(rest[..end].to_owned()),
        });
        rest = &rest[end..];
    }
    parts
}

fn loose(left: &str, right: &str) -> Ordering {
    parts(left).cmp(&parts(right))
}

/// Semantic Versioning 2.0.0, section 11.
fn semantic(left: &str, right: &str) -> Result<Ordering, Error> {
    fn split(version: &str) -> Result<([u64; 3], Option<&str>), Error> {
        let version = version.trim().trim_start_matches('v');
        let bare = version.split('+').next().unwrap_or_default();
        let (core, pre_release) = match bare.split_once('-') {
            Some((core, pre_release)) => (core, Some(pre_release)),
            None => (bare, None),
        };
        let numbers: Vec<u64> = core.split('.').map_while(|part| part.parse().ok()).collect();
        match <[u64; 3]>::try_from(numbers) {
            Ok(numbers) if core.split('.').count() == 3 => Ok((numbers, pre_release)),
            _ => Err(wrong(format!("`{version}` is not a semantic version"))),
        }
    }
    let ((left, left_pre), (right, right_pre)) = (split(left)?, split(right)?);
    Ok(left.cmp(&right).then_with(|| match (left_pre, right_pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(left), Some(right)) => pre_release(left).cmp(&pre_release(right)),
    }))
}

/// The identifiers of a pre-release; numbers come before words.
fn pre_release(text: &str) -> Vec<Result<u64, String>> {
    text.split('.').map(|part| part.parse().map_err(|_| part.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered() {
        let rising = ["1.9", "1.10", "1.10.1", "1.10.2rc1", "2"];
        for pair in rising.windows(2) {
            assert_eq!(loose(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
        let rising = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0"];
        for pair in rising.windows(2) {
            assert_eq!(semantic(pair[0], pair[1]).unwrap(), Ordering::Less, "{pair:?}");
        }
    }
}
