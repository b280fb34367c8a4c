//! Scalars as YAML 1.1 types them: what Ansible shows.
//!
//! The language itself follows YAML 1.2. Only what is compared with Ansible's own output goes
//! through here. The rules are those of <https://yaml.org/type/> as PyYAML implements them.

use std::sync::{Arc, LazyLock};

use regex::Regex;

use crate::lang::python;
use crate::lang::yaml::{Kind, Node, Scalar, Style};

/// A value as Ansible's JSON output shows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// Decimal digits with their sign, of any length.
    Integer(String),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(Arc<str>),
    /// A string that is never a template.
    Unsafe(Arc<str>),
    /// A string that is encrypted with Ansible Vault.
    Vault(Arc<str>),
    /// A list.
    List(Vec<Value>),
    /// Keys and values; a later one with the same key wins.
    Mapping(Vec<(String, Value)>),
}

/// The value of a node and all that is in it.
pub(super) fn value(node: &Node) -> Value {
    match &node.kind {
        Kind::Scalar(one) => scalar(one),
        Kind::Sequence(items) => Value::List(items.iter().map(value).collect()),
        Kind::Mapping(entries) => Value::Mapping(
            entries.iter().map(|(name, content)| (key(name), value(content))).collect(),
        ),
    }
}

/// A key as JSON shows it, where all keys are strings.
fn key(node: &Node) -> String {
    let found = match node.scalar() {
        // Names are no secrets.
        Some(name) if name.secret => scalar(&Scalar { secret: false, ..name.clone() }),
        _ => value(node),
    };
    match found {
        Value::Null => "null".into(),
        Value::Boolean(boolean) => boolean.to_string(),
        Value::Integer(digits) => digits,
        Value::Float(number) => python::float(number),
        Value::Text(text) | Value::Unsafe(text) | Value::Vault(text) => text.to_string(),
        Value::List(_) | Value::Mapping(_) => String::new(),
    }
}

/// The value of a scalar.
pub(super) fn scalar(scalar: &Scalar) -> Value {
    if scalar.secret || scalar.tag.as_deref() == Some("secret") {
        return Value::Text(Arc::from("(secret)"));
    }
    let text = || Value::Text(scalar.text.clone());
    match scalar.tag.as_deref() {
        Some("vault" | "vault-encrypted") => return Value::Vault(scalar.text.clone()),
        Some("unsafe") => return Value::Unsafe(scalar.text.clone()),
        Some("float") => {
            let read = plain(&scalar.text).unwrap_or_else(text);
            let Value::Integer(digits) = &read else { return read };
            return digits.parse().map_or(read, Value::Float);
        }
        Some("int" | "bool" | "null") => return plain(&scalar.text).unwrap_or_else(text),
        Some(_) => return text(),
        None => {}
    }
    if scalar.style == Style::Plain { plain(&scalar.text).unwrap_or_else(text) } else { text() }
}

fn plain(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Some(Value::Boolean(true));
        }
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Some(Value::Boolean(false));
        }
        _ => {}
    }
    if !text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first)) {
        return None;
    }
    float(text)
        .map(Value::Float)
        .or_else(|| integer(text).map(Value::Integer))
        .or_else(|| timestamp(text).map(|text| Value::Text(text.into())))
}

#[expect(clippy::expect_used, reason = "the patterns are constants, and a test uses each of them")]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern")
}

static DECIMAL_FLOAT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?)$")
});
static SIXTIES: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$"));
static TIMESTAMP: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?x)^ ([0-9]{4}) - ([0-9]{1,2}) - ([0-9]{1,2})
          (?: (?: [Tt] | [\ \t]+ ) ([0-9]{1,2}) : ([0-9]{2}) : ([0-9]{2}) (?: \. ([0-9]*) )?
              (?: [\ \t]* (?: (Z) | ([-+]) ([0-9]{1,2}) (?: : ([0-9]{2}) )? ) )? )? $",
    )
});

fn float(text: &str) -> Option<f64> {
    match text {
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    let clean = text.replace('_', "");
    if DECIMAL_FLOAT.is_match(text) {
        return clean.parse().ok();
    }
    if !text.contains('.') || !SIXTIES.is_match(text) {
        return None;
    }
    let (sign, digits) = signed(&clean);
    let mut total = 0.0;
    for part in digits.split(':') {
        total = total * 60.0 + part.parse::<f64>().ok()?;
    }
    Some(if sign == "-" { -total } else { total })
}

fn signed(text: &str) -> (&'static str, &str) {
    match text.as_bytes().first() {
        Some(b'-') => ("-", &text[1..]),
        Some(b'+') => ("", &text[1..]),
        _ => ("", text),
    }
}

fn integer(text: &str) -> Option<String> {
    let (sign, digits) = signed(text);
    let magnitude = if let Some(binary) = digits.strip_prefix("0b") {
        in_decimal(binary, 2)?
    } else if let Some(hexadecimal) = digits.strip_prefix("0x") {
        in_decimal(hexadecimal, 16)?
    } else if digits != "0" && digits.starts_with('0') {
        in_decimal(&digits[1..], 8)?
    } else if digits.contains(':') && SIXTIES.is_match(digits) && !digits.contains('.') {
        let mut number = Decimal::default();
        for (index, part) in digits.split(':').enumerate() {
            if index == 0 {
                for digit in part.bytes().filter(u8::is_ascii_digit) {
                    number.push(10, u32::from(digit - b'0'));
                }
            } else {
                number.push(60, part.parse().ok()?);
            }
        }
        number.to_string()
    } else {
        in_decimal(digits, 10)?
    };
    Some(if magnitude == "0" { magnitude } else { format!("{sign}{magnitude}") })
}

/// A number of any length, with `_` between its digits, written in decimal.
pub(super) fn in_decimal(digits: &str, base: u32) -> Option<String> {
    let mut number = Decimal::default();
    let mut any = false;
    for character in digits.chars().filter(|character| *character != '_') {
        number.push(base, character.to_digit(base)?);
        any = true;
    }
    any.then(|| number.to_string())
}

/// An integer without bounds, lowest digit first.
#[derive(Default)]
struct Decimal(Vec<u8>);

impl Decimal {
    /// Appends a digit of another base.
    fn push(&mut self, base: u32, digit: u32) {
        let mut carry = digit;
        for place in &mut self.0 {
            let sum = u32::from(*place) * base + carry;
            *place = u8::try_from(sum % 10).unwrap_or(0);
            carry = sum / 10;
        }
        while carry > 0 {
            self.0.push(u8::try_from(carry % 10).unwrap_or(0));
            carry /= 10;
        }
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("0");
        }
        self.0.iter().rev().try_for_each(|digit| write!(formatter, "{digit}"))
    }
}

/// A date or a time in the form of ISO 8601.
fn timestamp(text: &str) -> Option<String> {
    let found = TIMESTAMP.captures(text)?;
    let number = |index: usize| found.get(index).and_then(|part| part.as_str().parse::<u32>().ok());
    let (year, month, day) = (number(1)?, number(2)?, number(3)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let date = format!("{year:04}-{month:02}-{day:02}");
    let Some(hour) = number(4) else {
        // A bare date has to be written in full.
        return (text.len() == 10).then_some(date);
    };
    let mut iso = format!("{date}T{hour:02}:{:02}:{:02}", number(5)?, number(6)?);
    let fraction = found.get(7).map_or("", |part| part.as_str());
    let micro = format!("{fraction:0<6.6}");
    if micro != "000000" {
        iso.push('.');
        iso.push_str(&micro);
    }
    if found.get(8).is_some() {
        iso.push_str("+00:00");
    } else if let (Some(sign), Some(hours)) = (found.get(9), number(10)) {
        let minutes = number(11).unwrap_or(0);
        let sign = if hours == 0 && minutes == 0 { "+" } else { sign.as_str() };
        iso.push_str(&format!("{sign}{hours:02}:{minutes:02}"));
    }
    Some(iso)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Value {
        scalar(&Scalar { text: text.into(), style: Style::Plain, tag: None, secret: false })
    }

    #[test]
    fn scalars_are_typed_as_yaml_1_1_types_them() {
        let integer = |digits: &str| Value::Integer(digits.into());
        let text = |text: &str| Value::Text(text.into());
        let cases = [
            ("yes", Value::Boolean(true)),
            ("Off", Value::Boolean(false)),
            ("y", text("y")),
            ("~", Value::Null),
            ("0644", integer("420")),
            ("0o17", text("0o17")),
            ("08", text("08")),
            ("0_7", integer("7")),
            ("0b101", integer("5")),
            ("-0x1f", integer("-31")),
            ("+5", integer("5")),
            ("1_000", integer("1000")),
            ("12:30", integer("750")),
            ("190:20:30", integer("685230")),
            ("12345678901234567890123", integer("12345678901234567890123")),
            ("0xffffffffffffffffffff", integer("1208925819614629174706175")),
            ("1:30.5", Value::Float(90.5)),
            ("5.", Value::Float(5.0)),
            (".5", Value::Float(0.5)),
            ("-.5", text("-.5")),
            ("1e3", text("1e3")),
            ("1.5e+3", Value::Float(1500.0)),
            ("1.5e3", text("1.5e3")),
            ("1.2.3", text("1.2.3")),
            ("10.0.0.1", text("10.0.0.1")),
            ("2026-11-21", text("2026-11-21")),
            ("2026-1-2", text("2026-1-2")),
            ("2026-1-2 3:04:05", text("2026-01-02T03:04:05")),
            ("2001-12-14t21:59:43.10-05:00", text("2001-12-14T21:59:43.100000-05:00")),
            ("2026-01-02T03:04:05.123Z", text("2026-01-02T03:04:05.123000+00:00")),
        ];
        for (source, expected) in cases {
            assert_eq!(read(source), expected, "{source}");
        }
    }
}
