use std::cmp::Ordering;

use minijinja::{Error, Value};

use super::patterns::Pattern;
use super::{Arguments, Test, list, test, wrong};
use super::{urls, versions};

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
    test("divisibleby", &["num"], |value, arguments| divisible(value, &arguments.needed("num")?)),
    test("nan", &[], |value, _| Ok(is_nan(value))),
    test("isnan", &[], |value, _| Ok(is_nan(value))),
    test("is_abs", &[], |value, _| Ok(value.to_string().starts_with('/'))),
    test("sequence", &[], |value, _| {
        use minijinja::value::ValueKind::{Iterable, Map, Seq, String};
        Ok(matches!(value.kind(), Seq | Iterable | Map | String))
    }),
    test("callable", &[], |value, _| Ok(value.kind() == minijinja::value::ValueKind::Plain)),
    test("vault_encrypted", &[], |value, _| {
        Ok(value.as_str().is_some_and(|text| text.starts_with("$ANSIBLE_VAULT;")))
    }),
    test("none", &[], |value, _| Ok(value.is_none())),
    test("abs", &[], |value, _| Ok(value.to_string().starts_with('/'))),
];

const REGEX: &[&str] = &["pattern", "ignorecase", "multiline"];
const VERSION: &[&str] = &["version", "operator", "strict", "version_type"];

fn divisible(value: &Value, by: &Value) -> Result<bool, Error> {
    let zero = || wrong("nothing is divisible by zero");
    if let (Ok(number), Ok(by)) = (i128::try_from(value.clone()), i128::try_from(by.clone())) {
        return if by == 0 { Err(zero()) } else { Ok(number.wrapping_rem(by) == 0) };
    }
    let (number, by) = (f64::try_from(value.clone())?, f64::try_from(by.clone())?);
    if by == 0.0 { Err(zero()) } else { Ok(number % by == 0.0) }
}

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
    // As in Python, a text is the list of its characters.
    let members = |of: &Value| match of.as_str() {
        Some(text) => Ok(text.chars().map(Value::from).collect()),
        None => list("subset", of),
    };
    let whole: Vec<Value> = members(whole)?;
    Ok(members(part)?.iter().all(|item| whole.contains(item)))
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
    let given = arguments.get("version_type").filter(|kind| !kind.is_none());
    let strict = arguments.get("strict").filter(|strict| !strict.is_none());
    if given.is_some() && strict.is_some() {
        return Err(wrong("`version` takes `strict` or `version_type`, not both"));
    }
    let strict = strict.is_some_and(|strict| strict.is_true());
    let kind = given.map_or_else(|| String::from("loose"), |kind| kind.to_string());
    let ordering = match kind.as_str() {
        _ if strict => versions::strict(&left, &right)?,
        "semver" | "semantic" => versions::semantic(&left, &right)?,
        "loose" => versions::loose(&left, &right),
        "strict" => versions::strict(&left, &right)?,
        "pep440" => versions::pep440(&left, &right)?,
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
