use std::fmt::Write;

use minijinja::{Error, Value};
use serde_json::{Map, Value as Json};

use super::super::value::{json_of, value_of};
use super::super::yaml::{self, Kind, Node};
use super::super::{python, scope, value};
use super::yaml_text::{Document, Flow, Style};
use super::{Arguments, Filter, filter, list, wrong};
use crate::diagnostic::{Diagnostics, Sources};

/// Filters between data and text: JSON and YAML.
pub(super) const FILTERS: &[Filter] = &[
    filter("to_json", JSON, |value, arguments| {
        to_json(value, arguments, arguments.count("indent")?, false)
    }),
    filter("to_nice_json", JSON, |value, arguments| {
        to_json(value, arguments, arguments.count("indent")?.or(Some(4)), true)
    }),
    filter("from_json", &[], |value, _| {
        let text = value.to_string();
        let parsed: Result<Json, _> = serde_json::from_str(&text);
        parsed
            .map(|json| value_of(&json))
            .map_err(|error| wrong(format!("`from_json` got no JSON: {error}")))
    }),
    filter("to_yaml", YAML, |value, arguments| to_yaml(value, arguments, 2, Flow::Leaves)),
    filter("to_nice_yaml", YAML, |value, arguments| to_yaml(value, arguments, 4, Flow::Never)),
    filter("from_yaml", &[], |value, _| from_yaml(value)),
    filter("from_yaml_all", &[], |value, _| Ok(documents(value)?.iter().map(value_of).collect())),
    filter("tojson", &["indent"], |value, arguments| {
        let text = to_json(value, arguments, arguments.count("indent")?, true)?.to_string();
        let marks = [("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("'", "\\u0027")];
        let safe = marks.iter().fold(text, |text, (mark, code)| text.replace(mark, code));
        Ok(Value::from(safe))
    }),
];

const JSON: &[&str] = &["indent", "sort_keys", "ensure_ascii", "separators"];
const YAML: &[&str] = &[
    "indent",
    "sort_keys",
    "default_flow_style",
    "width",
    "default_style",
    "explicit_start",
    "explicit_end",
    "allow_unicode",
];

fn to_json(
    value: &Value,
    arguments: &Arguments,
    indent: Option<usize>,
    sort: bool,
) -> Result<Value, Error> {
    // `to_nice_json` has its own ones, whatever is given.
    let separators = match arguments.get("separators").filter(|given| !given.is_none() && !sort) {
        Some(given) => match list("to_json", &given)?.as_slice() {
            [between, colon] => (between.to_string(), colon.to_string()),
            _ => return Err(wrong("`separators` is a pair of texts")),
        },
        None => (String::from(if indent.is_some() { "," } else { ", " }), String::from(": ")),
    };
    let style = JsonStyle {
        indent,
        separators,
        sort: arguments.flag("sort_keys", sort),
        ascii: arguments.flag("ensure_ascii", true),
    };
    let mut text = String::new();
    style.write(&mut text, &json_of(value)?, 0);
    Ok(Value::from(text))
}

/// JSON as Python's `json.dumps` writes it.
struct JsonStyle {
    indent: Option<usize>,
    /// Between entries, and between a key and its value.
    separators: (String, String),
    sort: bool,
    ascii: bool,
}

impl JsonStyle {
    fn write(&self, text: &mut String, json: &Json, depth: usize) {
        match json {
            Json::Array(items) if !items.is_empty() => {
                text.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.separate(text, index, depth + 1);
                    self.write(text, item, depth + 1);
                }
                self.line(text, depth);
                text.push(']');
            }
            Json::Object(entries) if !entries.is_empty() => {
                text.push('{');
                for (index, (key, entry)) in ordered(entries, self.sort).into_iter().enumerate() {
                    self.separate(text, index, depth + 1);
                    self.string(text, key);
                    text.push_str(&self.separators.1);
                    self.write(text, entry, depth + 1);
                }
                self.line(text, depth);
                text.push('}');
            }
            Json::Array(_) => text.push_str("[]"),
            Json::Object(_) => text.push_str("{}"),
            Json::String(string) => self.string(text, string),
            Json::Number(number) if number.is_f64() => {
                text.push_str(&python::float(number.as_f64().unwrap_or(f64::NAN)));
            }
            other => text.push_str(&other.to_string()),
        }
    }

    fn separate(&self, text: &mut String, index: usize, depth: usize) {
        if index > 0 {
            text.push_str(&self.separators.0);
        }
        self.line(text, depth);
    }

    fn line(&self, text: &mut String, depth: usize) {
        if let Some(indent) = self.indent {
            text.push('\n');
            text.push_str(&" ".repeat(indent * depth));
        }
    }

    fn string(&self, text: &mut String, string: &str) {
        let quoted = Json::from(string).to_string();
        for character in quoted.chars() {
            if self.ascii && !character.is_ascii() {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a string does not fail.
                    let _ = write!(text, "\\u{unit:04x}");
                }
            } else {
                text.push(character);
            }
        }
    }
}

fn ordered(entries: &Map<String, Json>, sort: bool) -> Vec<(&String, &Json)> {
    let mut entries: Vec<_> = entries.iter().collect();
    if sort {
        entries.sort_by_key(|(key, _)| *key);
    }
    entries
}

fn to_yaml(
    value: &Value,
    arguments: &Arguments,
    indent: usize,
    flow: Flow,
) -> Result<Value, Error> {
    let number = |name, default: usize| -> Result<usize, Error> {
        Ok(arguments.integer(name)?.map_or(default, |one| usize::try_from(one).unwrap_or(0)))
    };
    let indent = match number("indent", indent)? {
        given @ 2..=9 => given,
        _ => 2,
    };
    let width = match arguments.integer("width")? {
        Some(..0) => usize::MAX,
        _ => Some(number("width", 80)?).filter(|width| *width > indent * 2).unwrap_or(80),
    };
    let flow = match arguments.get("default_flow_style") {
        Some(given) if given.is_none() => Flow::Leaves,
        Some(given) if given.is_true() => Flow::Always,
        Some(_) => Flow::Never,
        None => flow,
    };
    let style = match arguments.text("default_style", "").as_str() {
        "" | "None" => Style::Plain,
        "'" => Style::Single,
        "\"" => Style::Double,
        "|" => Style::Literal,
        other => return Err(wrong(format!("`to_yaml` knows no `default_style` `{other}`"))),
    };
    let document = Document {
        indent,
        width,
        flow,
        style,
        sort: arguments.flag("sort_keys", true),
        start: arguments.flag("explicit_start", false),
        end: arguments.flag("explicit_end", false),
        unicode: arguments.flag("allow_unicode", true),
    };
    document.write(value).map(Value::from)
}

fn from_yaml(value: &Value) -> Result<Value, Error> {
    let mut documents = documents(value)?;
    match documents.len() {
        0 => Ok(Value::from(())),
        1 => Ok(value_of(&documents.remove(0))),
        _ => Err(wrong("`from_yaml` got more than one document: `from_yaml_all` takes them")),
    }
}

fn documents(value: &Value) -> Result<Vec<Json>, Error> {
    if value.is_none() {
        return Ok(Vec::new());
    }
    let Some(text) = value.as_str() else {
        let found = value::describe(value);
        return Err(wrong(format!("`from_yaml` takes a string, not {found}")));
    };
    let (sources, mut diagnostics) = (Sources::default(), Diagnostics::default());
    let source = sources.add("", text);
    let documents = yaml::parse(&sources, source, &mut diagnostics);
    if let Some(first) = diagnostics.iter().next() {
        return Err(wrong(format!("`from_yaml` got no YAML: {}", first.message)));
    }
    Ok(documents.iter().map(plain).collect())
}

/// A node as it stands: templates in it are text.
fn plain(node: &Node) -> Json {
    match &node.kind {
        Kind::Scalar(scalar) => scope::resolved(scalar.resolve()),
        Kind::Sequence(items) => items.iter().map(plain).collect(),
        Kind::Mapping(entries) => entries
            .iter()
            .map(|(key, entry)| (key.as_text().unwrap_or_default().to_owned(), plain(entry)))
            .collect(),
    }
}
