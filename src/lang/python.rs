//! Numbers and collections as Python writes them.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// A float as Python's `repr` and JSON write it.
pub fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = value.to_string();
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// A float as a plain scalar that YAML 1.1 and 1.2 both read as that float.
pub fn yaml_float(value: f64) -> String {
    if value.is_nan() {
        return ".nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { ".inf".into() } else { "-.inf".into() };
    }
    let text = float(value);
    if text.contains('.') { text } else { text.replacen('e', ".0e", 1) }
}

/// A value as the text that a template makes of it; tuples are lists, as in Ansible. An error where
/// a part of it is undefined.
pub(super) fn text(value: &Value) -> Result<String, Error> {
    Ok(match value.kind() {
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => inside(value)?,
        ValueKind::Number if !value.is_integer() => {
            f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float)
        }
        _ => value.to_string(),
    })
}

/// The error that something undefined inside of a list or a mapping is.
pub(super) fn undefined_part() -> Error {
    Error::new(ErrorKind::UndefinedError, "a part of the value is undefined")
}

/// A value as it stands inside of a list, or as `repr` has it: texts have quotes.
pub(super) fn inside(value: &Value) -> Result<String, Error> {
    Ok(match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?.checked();
            let items: Result<Vec<String>, Error> = items.map(|item| inside(&item?)).collect();
            format!("[{}]", items?.join(", "))
        }
        ValueKind::Map => {
            let keys = value.try_iter()?.checked();
            let entry = |key: Result<Value, Error>| {
                let key = key?;
                Ok(format!("{}: {}", inside(&key)?, inside(&value.get_item(&key)?)?))
            };
            let entries: Result<Vec<String>, Error> = keys.map(entry).collect();
            format!("{{{}}}", entries?.join(", "))
        }
        ValueKind::String => {
            let alone = Value::from(vec![value.clone()]).to_string();
            alone.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&alone).into()
        }
        ValueKind::Undefined => return Err(undefined_part()),
        _ => text(value)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let cases = [
            (1.0, "1.0", "1.0"),
            (-0.0, "-0.0", "-0.0"),
            (1e16, "1e+16", "1.0e+16"),
            (0.00001, "1e-05", "1.0e-05"),
            (1.005e-8, "1.005e-08", "1.005e-08"),
            (0.0001, "0.0001", "0.0001"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17", "1.2345678901234568e+17"),
            (f64::INFINITY, "Infinity", ".inf"),
        ];
        for (value, written, scalar) in cases {
            assert_eq!(float(value), written);
            assert_eq!(yaml_float(value), scalar);
        }
    }
}
