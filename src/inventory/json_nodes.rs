//! JSON as the same tree that YAML gives, with places.
//!
//! Ansible reads whatever is JSON as JSON, and numbers, escapes and surrogates differ from YAML's.
//! Numbers become plain scalars that every YAML schema reads alike.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::de::IgnoredAny;

use super::plain_node;
use crate::diagnostic::{Diagnostic, Diagnostics, SourceId, Span};
use crate::lang::python;
use crate::lang::yaml::{Kind, Node};

/// Deepest nesting.
const DEPTH_LIMIT: usize = 100;

/// Whether the whole text is a JSON object or list.
pub(super) fn is_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The tree of a text that is JSON.
pub(super) fn read(text: &str, source: SourceId, diagnostics: &mut Diagnostics) -> Option<Node> {
    let mut reader = Reader { text, source, at: 0 };
    match reader.value(0, diagnostics) {
        Ok(node) => Some(node),
        Err(diagnostic) => {
            diagnostics.push(diagnostic);
            None
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    source: SourceId,
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize, diagnostics: &mut Diagnostics) -> Result<Node, Diagnostic> {
        let first = self.peek();
        let start = self.at;
        if depth > DEPTH_LIMIT {
            let message = format!("nested more than {DEPTH_LIMIT} deep");
            let span = Span::new(self.source, start, start + 1);
            return Err(Diagnostic::error("yaml-limit", message).at(span, ""));
        }
        let kind = match first {
            Some(b'{') => self.mapping(depth, diagnostics)?,
            Some(b'[') => {
                self.at += 1;
                let mut items = Vec::new();
                while self.peek().is_some_and(|byte| byte != b']') {
                    items.push(self.value(depth + 1, diagnostics)?);
                    self.skip(b',');
                }
                self.skip(b']');
                Kind::Sequence(Arc::new(items))
            }
            Some(b'"') => return self.string(),
            _ => {
                let rest = &self.text[start..];
                let end =
                    rest.find(|next: char| !next.is_ascii_alphanumeric() && !"+-.".contains(next));
                self.at = start + end.unwrap_or(rest.len());
                if self.at == start {
                    return Err(self.unexpected());
                }
                let span = Span::new(self.source, start, self.at);
                return Ok(plain_node(span, number(&self.text[start..self.at])));
            }
        };
        Ok(Node { span: Span::new(self.source, start, self.at), kind })
    }

    fn mapping(&mut self, depth: usize, diagnostics: &mut Diagnostics) -> Result<Kind, Diagnostic> {
        self.at += 1;
        let mut entries: IndexMap<Arc<str>, (Node, Node)> = IndexMap::new();
        while self.peek().is_some_and(|byte| byte != b'}') {
            let key = self.string()?;
            self.skip(b':');
            let value = self.value(depth + 1, diagnostics)?;
            self.skip(b',');
            let name: Arc<str> = Arc::from(key.as_text().unwrap_or_default());
            if let Some((first, _)) = entries.get(&name) {
                let message = format!("the key `{name}` stands here twice");
                diagnostics.push(
                    Diagnostic::error("duplicate-key", message)
                        .at(key.span, "again here")
                        .at(first.span, "first here"),
                );
            }
            entries.insert(name, (key, value));
        }
        self.skip(b'}');
        Ok(Kind::Mapping(Arc::new(entries.into_values().collect())))
    }

    fn string(&mut self) -> Result<Node, Diagnostic> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected());
        }
        let start = self.at;
        let mut escaped = false;
        let mut inside = self.text.bytes().enumerate().skip(start + 1);
        let end = inside
            .find(|(_, byte)| {
                let ends = *byte == b'"' && !escaped;
                escaped = *byte == b'\\' && !escaped;
                ends
            })
            .map_or(self.text.len(), |(at, _)| at + 1);
        self.at = end;
        let span = Span::new(self.source, start, end);
        match serde_json::from_str::<String>(&self.text[start..end]) {
            Ok(text) => Ok(Node::text(span, text)),
            Err(error) => {
                let message = format!("this string is not text: {error}");
                Err(Diagnostic::error("json-syntax", message).at(span, ""))
            }
        }
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip(&mut self, byte: u8) {
        if self.peek() == Some(byte) {
            self.at += 1;
        }
    }

    fn unexpected(&self) -> Diagnostic {
        let span = Span::new(self.source, self.at, self.at + 1);
        Diagnostic::error("json-syntax", "this is not JSON").at(span, "")
    }
}

/// Numbers in a form that all YAML schemas read alike; `true`, `false` and `null` as they are.
fn number(text: &str) -> String {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return text.to_owned();
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return if digits == "0" { digits.to_owned() } else { text.to_owned() };
    }
    text.parse().map_or_else(|_| text.to_owned(), python::yaml_float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Sources;
    use crate::inventory::yaml11::{self, Value};

    #[test]
    fn json_keeps_its_places_and_its_types() {
        let text = r#"{"a": [1e3, -0, true, null], "é": {"b": "\ud83d\ude00\/"}}"#;
        assert!(is_json(text) && !is_json("{a: b}") && !is_json("\"text\""));
        let sources = Sources::default();
        let source = sources.add("x.json", text);
        let mut diagnostics = Diagnostics::default();
        let root = read(text, source, &mut diagnostics).unwrap();
        assert!(diagnostics.is_empty());
        let list = root.get("a").unwrap();
        assert_eq!(sources.slice(list.span), "[1e3, -0, true, null]");
        let expected = Value::List(vec![
            Value::Float(1000.0),
            Value::Integer("0".into()),
            Value::Boolean(true),
            Value::Null,
        ]);
        assert_eq!(yaml11::value(list), expected);
        assert_eq!(root.get("é").unwrap().get("b").unwrap().as_text(), Some("😀/"));
    }
}
