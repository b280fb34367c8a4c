use minijinja::{Error, Value};

use super::{Arguments, Filter, filter, wrong};

/// Filters of numbers and booleans.
pub(super) const FILTERS: &[Filter] = &[
    filter("bool", &[], |value, _| Ok(boolean(value))),
    filter("int", &["default", "base"], int),
    filter("float", &["default"], |value, arguments| {
        let default = arguments.get("default").unwrap_or_else(|| Value::from(0.0));
        Ok(match value.as_str() {
            Some(text) => text.trim().parse::<f64>().map_or(default, Value::from),
            None if value.kind() == minijinja::value::ValueKind::Bool => {
                Value::from(if value.is_true() { 1.0 } else { 0.0 })
            }
            None => f64::try_from(value.clone()).map_or(default, Value::from),
        })
    }),
    filter("log", &["base"], |value, arguments| {
        let number = f64::try_from(value.clone())?;
        Ok(Value::from(match arguments.get("base") {
            // Exact for powers of these, as in Python.
            Some(base) if base == Value::from(2) => number.log2(),
            Some(base) if base == Value::from(10) => number.log10(),
            Some(base) => number.log(f64::try_from(base)?),
            None => number.ln(),
        }))
    }),
    filter("pow", &["power"], |value, arguments| {
        let power = f64::try_from(arguments.needed("power")?)?;
        Ok(Value::from(f64::try_from(value.clone())?.powf(power)))
    }),
    filter("root", &["base"], |value, arguments| {
        let base = arguments.get("base").map_or(Ok(2.0), f64::try_from)?;
        Ok(Value::from(f64::try_from(value.clone())?.powf(base.recip())))
    }),
    filter("human_readable", &["isbits", "unit"], human_readable),
    filter("human_to_bytes", &["default_unit", "isbits"], human_to_bytes),
];

/// As Ansible: what reads as true is, all else is false.
fn boolean(value: &Value) -> Value {
    Value::from(match value.as_str() {
        Some(text) => {
            matches!(text.to_ascii_lowercase().as_str(), "yes" | "on" | "1" | "true")
        }
        None if value.kind() == minijinja::value::ValueKind::Number => *value == Value::from(1),
        None => value.is_true(),
    })
}

/// As Jinja: what is no number gives the default.
fn int(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let default = arguments.get("default").unwrap_or_else(|| Value::from(0));
    let Some(text) = value.as_str() else {
        if value.is_integer() {
            return Ok(value.clone());
        }
        if value.kind() == minijinja::value::ValueKind::Bool {
            return Ok(Value::from(i64::from(value.is_true())));
        }
        return Ok(match f64::try_from(value.clone()) {
            Ok(number) => truncated(number, default),
            Err(_) => default,
        });
    };
    let text = text.trim().replace('_', "");
    let base = u32::try_from(arguments.integer("base")?.unwrap_or(10)).unwrap_or(10);
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    if !(2..=36).contains(&base) {
        return Err(wrong(format!("`int` has no base {base}")));
    }
    let digits = text.strip_prefix(prefix).unwrap_or(&text);
    Ok(match i128::from_str_radix(digits, base) {
        Ok(number) => Value::from(number),
        Err(_) if base == 10 => match text.parse::<f64>() {
            Ok(number) => truncated(number, default),
            Err(_) => default,
        },
        Err(_) => default,
    })
}

fn truncated(number: f64, default: Value) -> Value {
    // Beyond 2^53 a float names no integer exactly.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.abs() <= EXACT { Value::from(number.trunc() as i64) } else { default }
}

static UNITS: [(&str, f64); 9] = [
    ("Y", 1_208_925_819_614_629_174_706_176.0),
    ("Z", 1_180_591_620_717_411_303_424.0),
    ("E", 1_152_921_504_606_846_976.0),
    ("P", 1_125_899_906_842_624.0),
    ("T", 1_099_511_627_776.0),
    ("G", 1_073_741_824.0),
    ("M", 1_048_576.0),
    ("K", 1024.0),
    ("B", 1.0),
];

fn human_readable(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let size = f64::try_from(int(value, arguments).unwrap_or_else(|_| value.clone()))?;
    let bits = arguments.flag("isbits", false);
    let wanted = arguments.get("unit").map(|unit| unit.to_string().to_uppercase());
    let fits = |(unit, limit): &&(&'static str, f64)| match &wanted {
        Some(wanted) => wanted == unit,
        None => size >= *limit,
    };
    let (unit, limit) = UNITS.iter().find(fits).unwrap_or(&("B", 1.0));
    let name = match (*limit > 1.0, bits) {
        (true, true) => format!("{unit}b"),
        (true, false) => format!("{unit}B"),
        (false, true) => String::from("bits"),
        (false, false) => String::from("Bytes"),
    };
    Ok(Value::from(format!("{:.2} {name}", size / limit)))
}

fn human_to_bytes(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let text = value.to_string();
    let text = text.trim();
    let end = text.find(|one: char| !one.is_ascii_digit() && one != '.').unwrap_or(text.len());
    let default = arguments.text("default_unit", "B");
    let unit = match text[end..].trim() {
        "" => default.as_str(),
        unit => unit,
    };
    let first = unit.get(..1).unwrap_or_default().to_uppercase();
    let limit = UNITS.iter().find(|(name, _)| *name == first).map(|(_, limit)| *limit);
    match (text[..end].parse::<f64>(), limit) {
        (Ok(number), Some(limit)) => {
            Ok(truncated((number * limit).round(), Value::from(number * limit)))
        }
        _ => Err(wrong(format!("`human_to_bytes` cannot read `{text}`"))),
    }
}
