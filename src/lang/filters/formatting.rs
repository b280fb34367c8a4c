//! Python's two styles of format strings, with what they may make bounded.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Rest, ValueOrKwargs};
use minijinja::{Environment, Error, Value};

use super::super::python;
use super::{bounded, required};

/// Adds the filter of this file.
pub(super) fn register(environment: &mut Environment<'static>) {
    environment.add_filter("format", |value: Value, arguments: Rest<ValueOrKwargs>| {
        required(&value)?;
        formatted(FormatStyle::Printf, &python::text(&value)?, &arguments.into_values())
    });
}

/// A format string with values in it; an error where a width is too large or a value is undefined.
pub fn formatted(style: FormatStyle, text: &str, values: &[Value]) -> Result<String, Error> {
    for value in values {
        required(value)?;
        python::text(value)?;
    }
    for spec in specs(style, text) {
        for digits in spec.split(|one: char| !one.is_ascii_digit()) {
            let digits = digits.trim_start_matches('0');
            if !digits.is_empty() {
                bounded("a width in a format string", digits.parse().unwrap_or(i64::MAX))?;
            }
        }
    }
    format(style, text, values)
}

/// Where a format string says how a value is written: `>10` in `{name:>10}`, `05.1f` in `%05.1f`.
fn specs(style: FormatStyle, text: &str) -> Vec<&str> {
    let mark = match style {
        FormatStyle::Printf => '%',
        FormatStyle::StrFormat => '{',
    };
    let mut specs = Vec::new();
    let mut rest = text;
    while let Some((_, field)) = rest.split_once(mark) {
        if let Some(after) = field.strip_prefix(mark) {
            rest = after;
            continue;
        }
        let (spec, after) = match style {
            FormatStyle::Printf => printf_spec(field),
            FormatStyle::StrFormat => braced_spec(field),
        };
        specs.push(spec);
        rest = after;
    }
    specs
}

/// What is between `%` with its `(key)` and the letter of the conversion, and what follows.
fn printf_spec(field: &str) -> (&str, &str) {
    let spec = match field.starts_with('(') {
        true => field.split_once(')').map_or("", |(_, spec)| spec),
        false => field,
    };
    let end = spec.find(|one: char| one.is_ascii_alphabetic()).unwrap_or(spec.len());
    spec.split_at(end)
}

/// What is between the `:` and the `}` of a field, and what follows.
fn braced_spec(field: &str) -> (&str, &str) {
    let mut rest = field;
    loop {
        let Some(at) = rest.find(['[', ':', '}']) else { return ("", "") };
        let (mark, after) = rest[at..].split_at(1);
        rest = match mark {
            // A key may have any of these in it.
            "[" => after.split_once(']').map_or("", |(_, after)| after),
            ":" => {
                let fill = after.chars().next().map_or(0, char::len_utf8);
                let aligned = after[fill..].starts_with(['<', '>', '^']);
                let from = if aligned { fill } else { 0 };
                let end = after[from..].find('}').map_or(after.len(), |at| from + at);
                return after.split_at(end);
            }
            _ => return ("", after),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_bounded_wherever_they_stand() {
        let one = [Value::from(1)];
        let refused = [
            (FormatStyle::StrFormat, "{:99999999999}"),
            (FormatStyle::StrFormat, "{:999999999}"),
            (FormatStyle::StrFormat, "{{}}{:999999999999999999999}"),
            (FormatStyle::StrFormat, "{:}>99999}"),
            (FormatStyle::StrFormat, "{0[:}]:99999}"),
            (FormatStyle::StrFormat, "{0:.99999f}"),
            (FormatStyle::StrFormat, "{0} {0:010001}"),
            (FormatStyle::Printf, "%999999999d"),
            (FormatStyle::Printf, "%.999999999f"),
            (FormatStyle::Printf, "%%%-0999999999d"),
            (FormatStyle::Printf, "%(a%b)99999d"),
        ];
        for (style, text) in refused {
            let error = formatted(style, text, &one).unwrap_err().to_string();
            assert!(error.contains("at most 10000"), "{text}: {error}");
        }
        let taken = [
            (FormatStyle::StrFormat, "{:>3}: port 20000", "  1: port 20000"),
            (FormatStyle::StrFormat, "{{:99999}} {}", "{:99999} 1"),
            (FormatStyle::Printf, "%d of 20000, 100%%20000", "1 of 20000, 100%20000"),
            (FormatStyle::Printf, "%05d", "00001"),
        ];
        for (style, text, expected) in taken {
            assert_eq!(formatted(style, text, &one).unwrap(), expected, "{text}");
        }
    }
}
