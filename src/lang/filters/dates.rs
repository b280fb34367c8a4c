//! Dates and times. There is no clock here: the time now is nothing that two plans agree on.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use minijinja::value::{DynObject, Object, ObjectRepr};
use minijinja::{Error, ErrorKind, State, Value};

use super::{Arguments, Filter, filter, wrong};

/// Filters of dates and times.
pub(super) const FILTERS: &[Filter] = &[
    filter("strftime", &["second", "utc"], strftime),
    filter("to_datetime", &["format"], |value, arguments| {
        let (text, format) = (value.to_string(), arguments.text("format", "%Y-%m-%d %H:%M:%S"));
        let read = DateTime::strptime(&format, &text)
            .map_err(|error| wrong(format!("`{text}` is no time as `{format}` says: {error}")))?;
        Ok(Value::from_object(Moment(read)))
    }),
];

/// A format with the seconds since 1970 in it, in UTC: a plan does not depend on where it is made.
fn strftime(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let Some(second) = arguments.get("second").filter(|second| !second.is_none()) else {
        return Err(wrong("`strftime` needs a time here: a plan has no clock"));
    };
    let seconds: Result<f64, _> = second.to_string().trim().parse();
    let time = seconds.ok().and_then(|seconds| {
        // Whole seconds within jiff's years are exact in a float.
        let whole = seconds.floor();
        Timestamp::new(whole as i64, ((seconds - whole) * 1e9) as i32).ok()
    });
    let time = time.ok_or_else(|| wrong(format!("`{second}` is no number of seconds")))?;
    formatted(&value.to_string(), "%%f", &time.to_zoned(TimeZone::UTC))
}

/// A time as a format says, in C's locale; `%f` stands for `fraction`.
fn formatted(
    format: &str,
    fraction: &str,
    time: impl Into<strtime::BrokenDownTime>,
) -> Result<Value, Error> {
    let mut known = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        known.push_str(before);
        let directive = after.chars().next();
        known.push_str(&match directive {
            Some('c') => String::from("%a %b %e %H:%M:%S %Y"),
            Some('x') => String::from("%m/%d/%y"),
            Some('f') => fraction.to_owned(),
            other => format!("%{}", other.map(String::from).unwrap_or_default()),
        });
        rest = &after[directive.map_or(0, char::len_utf8)..];
    }
    known.push_str(rest);
    let text = time.into().to_string(&known);
    text.map(Value::from).map_err(|error| wrong(format!("`{format}` is no format: {error}")))
}

/// A date with its time, as Python's `datetime`.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(DateTime);

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, time) = (self.0.date(), self.0.time());
        let (hour, minute, second) = (time.hour(), time.minute(), time.second());
        write!(formatter, "{date} {hour:02}:{minute:02}:{second:02}")?;
        match time.subsec_nanosecond() / 1000 {
            0 => Ok(()),
            micro => write!(formatter, ".{micro:06}"),
        }
    }
}

impl Object for Moment {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let time = &self.0;
        Some(Value::from(match key.as_str()? {
            "year" => i32::from(time.year()),
            "month" => i32::from(time.month()),
            "day" => i32::from(time.day()),
            "hour" => i32::from(time.hour()),
            "minute" => i32::from(time.minute()),
            "second" => i32::from(time.second()),
            "microsecond" => time.subsec_nanosecond() / 1000,
            _ => return None,
        }))
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        arguments: &[Value],
    ) -> Result<Value, Error> {
        let time = &self.0;
        Ok(match (method, arguments) {
            ("strftime", [format]) => return formatted(&format.to_string(), "%6f", *time),
            ("isoformat", []) => Value::from(self.to_string().replacen(' ', "T", 1)),
            ("weekday", []) => Value::from(time.weekday().to_monday_zero_offset()),
            ("isoweekday", []) => Value::from(time.weekday().to_monday_one_offset()),
            ("timestamp", []) => {
                let zoned =
                    time.to_zoned(TimeZone::UTC).map_err(|error| wrong(error.to_string()))?;
                Value::from(zoned.timestamp().as_microsecond() as f64 / 1e6)
            }
            _ => return Err(Error::from(ErrorKind::UnknownMethod)),
        })
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        Some(self.as_ref().cmp(other.downcast_ref::<Self>()?))
    }

    fn render(self: &Arc<Self>, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_ref(), formatter)
    }
}
