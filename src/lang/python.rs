//! Numbers and collections as Python writes them.

use minijinja::Value;
use minijinja::value::ValueKind;

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

/// A value as the text that a template makes of it; tuples are lists, as in Ansible.
pub(super) fn text(value: &Value) -> String {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => inside(value),
        ValueKind::Number if !value.is_integer() => {
            f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float)
        }
        _ => value.to_string(),
    }
}

/// A value as it stands inside of a list, or as `repr` has it: texts have quotes.
pub(super) fn inside(value: &Value) -> String {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let Ok(items) = value.try_iter() else { return value.to_string() };
            let items: Vec<String> = items.map(|item| inside(&item)).collect();
            format!("[{}]", items.join(", "))
        }
        ValueKind::Map => {
            let Ok(keys) = value.try_iter() else { return value.to_string() };
            let entry = |key: Value| {
                let entry = value.get_item(&key).unwrap_or_default();
                format!("{}: {}", inside(&key), inside(&entry))
            };
            format!("{{{}}}", keys.map(entry).collect::<Vec<_>>().join(", "))
        }
        ValueKind::String => {
            let alone = Value::from(vec![value.clone()]).to_string();
            alone.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&alone).into()
        }
        _ => text(value),
    }
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
