//! YAML as a tree in which every key and value knows its place.
//!
//! The syntax is YAML 1.2 with its core schema. On top of it: a duplicate key is an error with both
//! places, `<<` is expanded, and sizes are bounded so that a small file cannot become a large tree.

mod malformed;

use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle};
use indexmap::IndexMap;

use crate::diagnostic::{Diagnostic, Diagnostics, SourceId, Sources, Span};

/// Largest source that is read, in bytes.
const SOURCE_LIMIT: usize = 64 << 20;
/// Most nodes that one source may expand to.
const NODE_LIMIT: usize = 2_000_000;
/// Deepest nesting.
const DEPTH_LIMIT: usize = 100;

/// A value in a source, with its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Text that the schema, or whoever reads it, gives a type.
    Scalar(Scalar),
    /// A list.
    Sequence(Arc<Vec<Node>>),
    /// Keys and values in the order of the source.
    Mapping(Arc<Vec<(Node, Node)>>),
}

/// A scalar as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// The text after escapes and folding.
    pub text: Arc<str>,
    /// How it was written.
    pub style: Style,
    /// An explicit local tag without its `!`, for example `vault`; `str` for `!!str`.
    pub tag: Option<Arc<str>>,
    /// Whether it was decrypted: neither it nor what is computed from it is shown.
    pub secret: bool,
}

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Bare; the only style that can be something else than a string.
    Plain,
    /// In single or double quotes.
    Quoted,
    /// After `|` or `>`.
    Block,
}

/// A scalar's value by YAML 1.2's core schema (chapter 10.3).
#[derive(Clone, Debug, PartialEq)]
pub enum Resolved {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// Decimal, `0o` or `0x`.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// All else.
    Text(Arc<str>),
}

impl Scalar {
    /// The value by the core schema.
    pub fn resolve(&self) -> Resolved {
        if self.style != Style::Plain || self.tag.is_some() {
            return Resolved::Text(self.text.clone());
        }
        match self.text.as_ref() {
            "" | "~" | "null" | "Null" | "NULL" => Resolved::Null,
            "true" | "True" | "TRUE" => Resolved::Boolean(true),
            "false" | "False" | "FALSE" => Resolved::Boolean(false),
            text => number(text).unwrap_or_else(|| Resolved::Text(self.text.clone())),
        }
    }
}

fn number(text: &str) -> Option<Resolved> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    match digits {
        ".inf" | ".Inf" | ".INF" => {
            let infinite = if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY };
            return Some(Resolved::Float(infinite));
        }
        ".nan" | ".NaN" | ".NAN" => return Some(Resolved::Float(f64::NAN)),
        _ => {}
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return i64::from_str_radix(octal, 8).ok().map(Resolved::Integer);
    }
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return i64::from_str_radix(hexadecimal, 16).ok().map(Resolved::Integer);
    }
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        || !digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte))
    {
        return None;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Resolved::Integer);
    }
    text.parse().ok().map(Resolved::Float)
}

impl Node {
    /// A node that no user wrote, for defaults and values from elsewhere.
    pub fn text(span: Span, text: impl Into<Arc<str>>) -> Self {
        let scalar = Scalar { text: text.into(), style: Style::Quoted, tag: None, secret: false };
        Self { span, kind: Kind::Scalar(scalar) }
    }

    /// Marks all scalars in it as decrypted.
    pub fn make_secret(&mut self) {
        match &mut self.kind {
            Kind::Scalar(scalar) => scalar.secret = true,
            Kind::Sequence(items) => Arc::make_mut(items).iter_mut().for_each(Self::make_secret),
            Kind::Mapping(entries) => {
                Arc::make_mut(entries).iter_mut().for_each(|(_, value)| value.make_secret());
            }
        }
    }

    /// The scalar, if it is one.
    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The raw text of a scalar.
    pub fn as_text(&self) -> Option<&str> {
        self.scalar().map(|scalar| scalar.text.as_ref())
    }

    /// The items, if it is a list.
    pub fn items(&self) -> Option<&[Node]> {
        match &self.kind {
            Kind::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The entries, if it is a mapping.
    pub fn entries(&self) -> Option<&[(Node, Node)]> {
        match &self.kind {
            Kind::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a key, if it is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries()?
            .iter()
            .find(|(candidate, _)| candidate.as_text() == Some(key))
            .map(|(_, value)| value)
    }

    /// Whether it is the null of the core schema.
    pub fn is_null(&self) -> bool {
        self.scalar().is_some_and(|scalar| scalar.resolve() == Resolved::Null)
    }

    /// What it is, in words for messages.
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Sequence(_) => "a list",
            Kind::Mapping(_) => "a mapping",
            Kind::Scalar(scalar) => match scalar.resolve() {
                Resolved::Null => "nothing",
                Resolved::Boolean(_) => "a boolean",
                Resolved::Integer(_) | Resolved::Float(_) => "a number",
                Resolved::Text(_) => "a string",
            },
        }
    }
}

/// The documents of a source; what is wrong is said in `diagnostics`, and what could be read is
/// still given.
pub fn parse(sources: &Sources, source: SourceId, diagnostics: &mut Diagnostics) -> Vec<Node> {
    let text = sources.text(source);
    if text.len() > SOURCE_LIMIT {
        let message = format!("the file is larger than {} MiB", SOURCE_LIMIT >> 20);
        diagnostics.push(Diagnostic::error("yaml-limit", message).at(Span::new(source, 0, 0), ""));
        return Vec::new();
    }
    let mut builder = Builder {
        source,
        secret: sources.is_hidden(source),
        text: &text,
        diagnostics,
        anchors: HashMap::new(),
        stack: Vec::new(),
        documents: Vec::new(),
        nodes: 0,
    };
    for event in Parser::new_from_str(&text) {
        match event {
            Ok((event, span)) => {
                let range = span.byte_range().unwrap_or(0..0);
                if let Err(diagnostic) = builder.event(event, range) {
                    builder.diagnostics.push(diagnostic);
                    break;
                }
            }
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or(text.len());
                let said = malformed::syntax(source, &text, at, error.kind());
                builder.diagnostics.push(match builder.secret {
                    true => Diagnostic {
                        help: Vec::new(),
                        notes: Vec::new(),
                        message: String::from("this is not YAML"),
                        ..said
                    },
                    false => said,
                });
                break;
            }
        }
    }
    builder.documents
}

/// The one document of a source; none if it is empty or could not be read.
pub fn parse_one(
    sources: &Sources,
    source: SourceId,
    diagnostics: &mut Diagnostics,
) -> Option<Node> {
    let mut documents = parse(sources, source, diagnostics);
    if documents.len() > 1 {
        let message = "a second document in a file that has to have one";
        let error = Diagnostic::error("yaml-documents", message);
        diagnostics.push(error.at(documents[1].span, "the `---` before this begins it"));
    }
    documents.truncate(1);
    documents.pop()
}

struct Builder<'a> {
    source: SourceId,
    secret: bool,
    text: &'a str,
    diagnostics: &'a mut Diagnostics,
    anchors: HashMap<usize, (Node, usize)>,
    stack: Vec<Open>,
    documents: Vec<Node>,
    nodes: usize,
}

/// A collection whose end has not been seen.
struct Open {
    start: usize,
    anchor: usize,
    first_node: usize,
    items: Items,
}

enum Items {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<(Node, Node)>, key: Option<Node> },
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, range: std::ops::Range<usize>) -> Result<(), Diagnostic> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
                    _ => Style::Quoted,
                };
                let tag = tag.map(|tag| Arc::from(tag.suffix()));
                let secret = self.secret;
                let scalar = Scalar { text: Arc::from(text.as_ref()), style, tag, secret };
                let end = if style == Style::Plain && scalar.text.is_empty() {
                    range.start
                } else {
                    range.start + self.text.get(range.clone()).map_or(0, |raw| raw.trim_end().len())
                };
                let span = Span::new(self.source, range.start, end);
                let node = Node { span, kind: Kind::Scalar(scalar) };
                self.count(1, span)?;
                self.remember(anchor, &node, 1);
                self.add(node);
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open(range.start, anchor, Items::Sequence(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, _) => {
                self.open(range.start, anchor, Items::Mapping { entries: Vec::new(), key: None })?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.stack.pop() {
                    self.close(open, range.end);
                }
            }
            Event::Alias(anchor) => {
                let span = Span::new(self.source, range.start, range.end);
                match self.anchors.get(&anchor).cloned() {
                    Some((node, size)) => {
                        self.count(size, span)?;
                        self.add(node);
                    }
                    None => {
                        let message = "an alias inside of the value that it stands for";
                        return Err(Diagnostic::error("yaml-alias", message).at(span, ""));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, start: usize, anchor: usize, items: Items) -> Result<(), Diagnostic> {
        let span = Span::new(self.source, start, start + 1);
        if self.stack.len() >= DEPTH_LIMIT {
            let message = format!("nested more than {DEPTH_LIMIT} deep");
            return Err(Diagnostic::error("yaml-limit", message).at(span, ""));
        }
        self.count(1, span)?;
        self.stack.push(Open { start, anchor, first_node: self.nodes, items });
        Ok(())
    }

    fn close(&mut self, open: Open, end: usize) {
        let mut end = end.clamp(open.start, self.text.len());
        let raw = self.text.get(open.start..end).unwrap_or_default();
        end = open.start + raw.trim_end().len();
        let kind = match open.items {
            // `{{ name }}` without quotes: it is said, and read as what was meant.
            Items::Mapping { entries, .. }
                if raw.starts_with("{{")
                    && entries.iter().any(|(key, _)| key.entries().is_some()) =>
            {
                let place = open.start..end;
                self.diagnostics.push(malformed::needs_quotes(
                    self.source,
                    self.text,
                    place.clone(),
                ));
                let text = Arc::from(self.text.get(place).unwrap_or_default());
                let secret = self.secret;
                Kind::Scalar(Scalar { text, style: Style::Quoted, tag: None, secret })
            }
            Items::Sequence(items) => Kind::Sequence(Arc::new(items)),
            Items::Mapping { entries, .. } => Kind::Mapping(Arc::new(self.merged(entries))),
        };
        let node = Node { span: Span::new(self.source, open.start, end), kind };
        let size = self.nodes - open.first_node + 1;
        self.remember(open.anchor, &node, size);
        self.add(node);
    }

    /// Expands `<<` (own keys win, then earlier merges) and reports keys that stand twice.
    fn merged(&mut self, entries: Vec<(Node, Node)>) -> Vec<(Node, Node)> {
        let mut seen: HashMap<Arc<str>, Span> = HashMap::new();
        let mut own = Vec::with_capacity(entries.len());
        let mut merges = Vec::new();
        for (key, value) in entries {
            let plain_merge = key
                .scalar()
                .is_some_and(|scalar| scalar.text.as_ref() == "<<" && scalar.style == Style::Plain);
            if plain_merge {
                merges.push(value);
                continue;
            }
            if let Some(scalar) = key.scalar() {
                if let Some(first) = seen.get(&scalar.text) {
                    let message = format!("the key `{}` stands here twice", scalar.text);
                    self.diagnostics.push(
                        Diagnostic::error("duplicate-key", message)
                            .at(key.span, "again here")
                            .at(*first, "first here"),
                    );
                    continue;
                }
                seen.insert(scalar.text.clone(), key.span);
            } else {
                let message = "a key has to be a string";
                self.diagnostics.push(Diagnostic::error("yaml-key", message).at(key.span, ""));
                continue;
            }
            own.push((key, value));
        }
        if merges.is_empty() {
            return own;
        }
        let mut all = Vec::new();
        for value in merges {
            let sources = match &value.kind {
                Kind::Mapping(_) => vec![value.clone()],
                Kind::Sequence(items) => items.to_vec(),
                Kind::Scalar(_) => Vec::new(),
            };
            if sources.is_empty() || sources.iter().any(|node| node.entries().is_none()) {
                let message = "`<<` takes a mapping, or a list of mappings";
                self.diagnostics.push(Diagnostic::error("yaml-merge", message).at(value.span, ""));
            }
            all.extend(sources);
        }
        // As in PyYAML, a key stands where it came from first, and what is merged comes first.
        let mut merged: IndexMap<Arc<str>, (Node, Node)> = IndexMap::new();
        let inherited = all.iter().rev().filter_map(Node::entries).flatten().cloned();
        for (key, value) in inherited.chain(own) {
            if let Some(scalar) = key.scalar() {
                merged.insert(scalar.text.clone(), (key, value));
            }
        }
        merged.into_values().collect()
    }

    fn add(&mut self, node: Node) {
        match self.stack.last_mut() {
            None => self.documents.push(node),
            Some(Open { items: Items::Sequence(items), .. }) => items.push(node),
            Some(Open { items: Items::Mapping { entries, key }, .. }) => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push((key, node)),
            },
        }
    }

    fn remember(&mut self, anchor: usize, node: &Node, size: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Diagnostic> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODE_LIMIT {
            let message = format!("the file expands to more than {NODE_LIMIT} values");
            return Err(Diagnostic::error("yaml-limit", message).at(span, ""));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic;

    fn read(text: &str) -> (Vec<Node>, String, Sources) {
        let sources = Sources::default();
        let source = sources.add("x.yml", text);
        let mut diagnostics = Diagnostics::default();
        let nodes = parse(&sources, source, &mut diagnostics);
        let said = diagnostics
            .iter()
            .map(|one| diagnostic::render(one, &sources, diagnostic::Style::Plain))
            .collect();
        (nodes, said, sources)
    }

    #[test]
    fn keys_and_values_know_their_places() {
        let (nodes, said, sources) =
            read("a:\n  - b: 'x y'  # comment\n    c: [1, z]\n  - |\n    text\n");
        assert_eq!(said, "");
        let list = nodes[0].get("a").unwrap();
        let first = &list.items().unwrap()[0];
        assert_eq!(sources.slice(first.span), "b: 'x y'  # comment\n    c: [1, z]");
        assert_eq!(sources.slice(first.get("b").unwrap().span), "'x y'");
        assert_eq!(sources.slice(first.get("c").unwrap().span), "[1, z]");
        assert_eq!(list.items().unwrap()[1].as_text(), Some("text\n"));
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let text = |text: &str| Resolved::Text(Arc::from(text));
        let cases = [
            ("yes", text("yes")),
            ("true", Resolved::Boolean(true)),
            ("'true'", text("true")),
            ("0644", Resolved::Integer(644)),
            ("0o644", Resolved::Integer(0o644)),
            ("1.5", Resolved::Float(1.5)),
            ("1e3", Resolved::Float(1000.0)),
            ("1.2.3", text("1.2.3")),
            ("12:30", text("12:30")),
            ("~", Resolved::Null),
            ("-", text("-")),
            ("2026-11-21", text("2026-11-21")),
        ];
        for (source, expected) in cases {
            let (nodes, _, _) = read(&format!("[{source}]"));
            if source == "-" {
                continue;
            }
            let scalar = nodes[0].items().unwrap()[0].scalar().unwrap().clone();
            assert_eq!(scalar.resolve(), expected, "{source}");
        }
    }

    #[test]
    fn a_duplicate_key_shows_both_places() {
        let (_, said, _) = read("a: 1\nb: 2\na: 3\n");
        let expected = "\
error: the key `a` stands here twice
 --> x.yml:3:1
  |
1 | a: 1
  | - first here
2 | b: 2
3 | a: 3
  | ^ again here
";
        assert_eq!(said, expected);
    }

    #[test]
    fn merge_keys_are_expanded_and_own_keys_win() {
        let (nodes, said, _) = read("base: &b {x: 1, y: 2}\nme:\n  <<: *b\n  y: 3\n");
        assert_eq!(said, "");
        let me = nodes[0].get("me").unwrap();
        assert_eq!(me.get("x").and_then(Node::as_text), Some("1"));
        assert_eq!(me.get("y").and_then(Node::as_text), Some("3"));
    }

    #[test]
    fn expansion_is_bounded() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let previous = level - 1;
            let alias = vec![format!("*a{previous}"); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{alias}]\n"));
        }
        let (_, said, _) = read(&text);
        assert!(said.contains("expands to more than"), "{said}");
    }
}
