use std::fmt::Write;
use std::sync::LazyLock;

use data_encoding::{BASE64, BASE64URL, HEXLOWER};
use minijinja::{Error, Value};
use regex::Regex;
use serde_json::{Map, Value as Json};
use sha2::Digest;

use super::super::value::{json_of, value_of};
use super::super::yaml::{self, Kind, Node};
use super::super::{scope, value};
use super::{Arguments, Filter, filter, wrong};
use crate::diagnostic::{Diagnostics, Sources};

/// Filters between data and text: JSON, YAML, Base64, digests.
pub(super) const FILTERS: &[Filter] = &[
    filter("to_json", JSON, |value, arguments| {
        let indent = arguments.integer("indent")?.and_then(|indent| usize::try_from(indent).ok());
        to_json(value, arguments, indent, false)
    }),
    filter("to_nice_json", JSON, |value, arguments| {
        let indent = usize::try_from(arguments.integer("indent")?.unwrap_or(4)).unwrap_or(0);
        to_json(value, arguments, Some(indent), true)
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
    filter("b64encode", &["encoding", "urlsafe"], |value, arguments| {
        let bytes = bytes(value);
        let encoding = if arguments.flag("urlsafe", false) { &BASE64URL } else { &BASE64 };
        Ok(Value::from(encoding.encode(&bytes)))
    }),
    filter("b64decode", &["encoding", "urlsafe"], b64decode),
    filter("hash", &["hashtype"], |value, arguments| {
        digest(value, &arguments.text("hashtype", "sha1"))
    }),
    filter("checksum", &[], |value, _| digest(value, "sha1")),
    filter("sha1", &[], |value, _| digest(value, "sha1")),
    filter("md5", &[], |value, _| digest(value, "md5")),
];

const JSON: &[&str] = &["indent", "sort_keys", "ensure_ascii"];
const YAML: &[&str] = &["indent", "sort_keys", "default_flow_style", "width"];

fn bytes(value: &Value) -> Vec<u8> {
    match value.as_bytes() {
        Some(bytes) => bytes.to_vec(),
        None => value.to_string().into_bytes(),
    }
}

fn b64decode(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let mut text: Vec<u8> = bytes(value);
    text.retain(|byte| !byte.is_ascii_whitespace());
    let encoding = if arguments.flag("urlsafe", false) { &BASE64URL } else { &BASE64 };
    let decoded = encoding
        .decode(&text)
        .map_err(|error| wrong(format!("`b64decode` got no Base64: {error}")))?;
    let text = String::from_utf8(decoded)
        .map_err(|_| wrong("`b64decode` gives bytes that are not UTF-8 text"))?;
    Ok(Value::from(text))
}

fn digest(value: &Value, algorithm: &str) -> Result<Value, Error> {
    let bytes = bytes(value);
    let digest = match algorithm {
        "md5" => HEXLOWER.encode(&md5::compute(&bytes).0),
        "sha1" => HEXLOWER.encode(&sha1::Sha1::digest(&bytes)[..]),
        "sha224" => HEXLOWER.encode(&sha2::Sha224::digest(&bytes)[..]),
        "sha256" => HEXLOWER.encode(&sha2::Sha256::digest(&bytes)[..]),
        "sha384" => HEXLOWER.encode(&sha2::Sha384::digest(&bytes)[..]),
        "sha512" => HEXLOWER.encode(&sha2::Sha512::digest(&bytes)[..]),
        _ => return Err(wrong(format!("`hash` knows no `{algorithm}`"))),
    };
    Ok(Value::from(digest))
}

fn to_json(
    value: &Value,
    arguments: &Arguments,
    indent: Option<usize>,
    sort: bool,
) -> Result<Value, Error> {
    let style = JsonStyle {
        indent,
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
                    text.push_str(": ");
                    self.write(text, entry, depth + 1);
                }
                self.line(text, depth);
                text.push('}');
            }
            Json::Array(_) => text.push_str("[]"),
            Json::Object(_) => text.push_str("{}"),
            Json::String(string) => self.string(text, string),
            other => text.push_str(&other.to_string()),
        }
    }

    fn separate(&self, text: &mut String, index: usize, depth: usize) {
        if index > 0 {
            text.push_str(if self.indent.is_some() { "," } else { ", " });
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

/// Which collections are written on one line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Never,
    /// Those that hold scalars only.
    Leaves,
    Always,
}

fn to_yaml(
    value: &Value,
    arguments: &Arguments,
    indent: usize,
    flow: Flow,
) -> Result<Value, Error> {
    let indent = match arguments.integer("indent")? {
        Some(given) => usize::try_from(given).unwrap_or(2).clamp(2, 9),
        None => indent,
    };
    let flow = match arguments.get("default_flow_style") {
        Some(given) if given.is_none() => Flow::Leaves,
        Some(given) if given.is_true() => Flow::Always,
        Some(_) => Flow::Never,
        None => flow,
    };
    let style = YamlStyle { indent, flow, sort: arguments.flag("sort_keys", true) };
    let json = json_of(value)?;
    let mut text = String::new();
    if style.on_one_line(&json) {
        style.flow(&mut text, &json, false);
        text.push('\n');
        // PyYAML ends a document that is a plain scalar so.
        if !matches!(json, Json::Array(_) | Json::Object(_)) && !text.starts_with(['"', '\'']) {
            text.push_str("...\n");
        }
    } else {
        style.block(&mut text, &json, 0, true);
    }
    Ok(Value::from(text))
}

/// YAML as PyYAML's `dump` writes it, but for its folding of long lines.
struct YamlStyle {
    indent: usize,
    flow: Flow,
    sort: bool,
}

impl YamlStyle {
    fn on_one_line(&self, json: &Json) -> bool {
        let scalar = |json: &Json| !matches!(json, Json::Array(_) | Json::Object(_));
        match json {
            Json::Array(items) if items.is_empty() => true,
            Json::Object(entries) if entries.is_empty() => true,
            _ if scalar(json) => true,
            _ if self.flow == Flow::Always => true,
            _ if self.flow == Flow::Never => false,
            Json::Array(items) => items.iter().all(scalar),
            Json::Object(entries) => entries.values().all(scalar),
            _ => true,
        }
    }

    /// Writes a collection, a line an entry. With `inline`, the first line has its indentation.
    fn block(&self, text: &mut String, json: &Json, column: usize, inline: bool) {
        let mut first = inline;
        let mut start = |text: &mut String| {
            if !std::mem::take(&mut first) {
                text.push_str(&" ".repeat(column));
            }
        };
        match json {
            Json::Array(items) => {
                for item in items {
                    start(text);
                    if self.on_one_line(item) {
                        text.push_str("- ");
                        self.flow(text, item, false);
                        text.push('\n');
                    } else {
                        text.push('-');
                        text.push_str(&" ".repeat(self.indent - 1));
                        self.block(text, item, column + self.indent, true);
                    }
                }
            }
            Json::Object(entries) => {
                for (key, entry) in ordered(entries, self.sort) {
                    start(text);
                    text.push_str(&yaml_string(key, false));
                    text.push(':');
                    if self.on_one_line(entry) {
                        text.push(' ');
                        self.flow(text, entry, false);
                        text.push('\n');
                    } else {
                        text.push('\n');
                        // Lists in mappings are not indented.
                        let inner = if entry.is_array() { 0 } else { self.indent };
                        self.block(text, entry, column + inner, false);
                    }
                }
            }
            _ => self.flow(text, json, false),
        }
    }

    /// Writes a value on one line; `inside` of another one, more strings need quotes.
    fn flow(&self, text: &mut String, json: &Json, inside: bool) {
        match json {
            Json::Null => text.push_str("null"),
            Json::String(string) => text.push_str(&yaml_string(string, inside)),
            Json::Array(items) => {
                text.push('[');
                for (index, item) in items.iter().enumerate() {
                    text.push_str(if index > 0 { ", " } else { "" });
                    self.flow(text, item, true);
                }
                text.push(']');
            }
            Json::Object(entries) => {
                text.push('{');
                for (index, (key, entry)) in ordered(entries, self.sort).into_iter().enumerate() {
                    text.push_str(if index > 0 { ", " } else { "" });
                    text.push_str(&yaml_string(key, true));
                    text.push_str(": ");
                    self.flow(text, entry, true);
                }
                text.push('}');
            }
            other => text.push_str(&other.to_string()),
        }
    }
}

/// A string as a YAML scalar: plain where YAML 1.1 and 1.2 both read a string, else in quotes.
fn yaml_string(string: &str, inside: bool) -> String {
    if string.chars().any(char::is_control) {
        // JSON's strings are YAML's.
        return Json::from(string).to_string();
    }
    let special = ",[]{}#&*!|>'\"%@`";
    let marked = string.starts_with(|first| special.contains(first))
        || matches!(string, "-" | "?" | ":")
        || ["- ", "? ", ": ", "---", "..."].iter().any(|start| string.starts_with(start));
    let broken = string.contains(": ")
        || string.contains(" #")
        || string.ends_with(':')
        || string.trim() != string
        || inside && string.contains([',', '[', ']', '{', '}', ':', '?']);
    if string.is_empty() || marked || broken || is_no_string(string) {
        format!("'{}'", string.replace('\'', "''"))
    } else {
        string.to_owned()
    }
}

/// Whether a plain scalar would be read as null, a boolean, a number or a time.
fn is_no_string(string: &str) -> bool {
    /// The resolvers of YAML 1.1 (as PyYAML has them) and 1.2.
    static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let pattern = r"(?x)^(
            | ~ | null | Null | NULL | = | <<
            | true | True | TRUE | false | False | FALSE
            | yes | Yes | YES | no | No | NO | on | On | ON | off | Off | OFF
            | [-+]? ( [0-9][0-9_]* | 0b[01_]+ | 0o[0-7]+ | 0x[0-9a-fA-F_]+ )
            | [-+]? [0-9][0-9_]* ( : [0-5]?[0-9] )+ ( \. [0-9_]* )?
            | [-+]? ( [0-9][0-9_]* ( \. [0-9_]* )? | \. [0-9_]+ ) ( [eE][-+]?[0-9]+ )?
            | [-+]? \. ( inf | Inf | INF ) | \. ( nan | NaN | NAN )
            | [0-9]{4}-[0-9]{1,2}-[0-9]{1,2} .*
        )$";
        Regex::new(pattern).ok()
    });
    PATTERN.as_ref().is_some_and(|pattern| pattern.is_match(string))
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
