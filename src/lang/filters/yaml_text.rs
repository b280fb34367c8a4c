//! YAML as libyaml's emitter writes it, which PyYAML and so Ansible use.
//!
//! Where a plain scalar would be something else in YAML 1.1 or 1.2 it has quotes, and there are no
//! anchors: what stands twice is written twice.

use std::sync::LazyLock;

use minijinja::value::ValueKind;
use minijinja::{Error, Value};
use regex::Regex;
use serde_json::Value as Json;

use super::super::python;
use super::super::value::{is_omitted, json_of};

/// Which collections are written on one line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Never,
    /// Those that hold plain scalars only.
    Leaves,
    Always,
}

/// How a scalar is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

/// How a document is written.
pub(super) struct Document {
    pub(super) indent: usize,
    /// A line longer than this is broken at its next blank.
    pub(super) width: usize,
    pub(super) flow: Flow,
    pub(super) sort: bool,
    /// What all scalars have, unless they cannot.
    pub(super) style: Style,
    /// Whether `---` and `...` are written.
    pub(super) start: bool,
    pub(super) end: bool,
    /// Whether other characters than those of ASCII are written as they are.
    pub(super) unicode: bool,
}

/// A value as the emitter sees it.
enum Tree {
    Scalar { text: String, is_text: bool },
    List(Vec<Tree>),
    Mapping(Vec<(Tree, Tree)>),
}

impl Document {
    /// The document of a value.
    pub(super) fn write(&self, value: &Value) -> Result<String, Error> {
        let tree = self.tree(value)?;
        let mut emitter = Emitter {
            document: self,
            text: String::new(),
            column: 0,
            indent: None,
            flow_level: 0,
            after_blank: true,
            at_line_start: true,
            open_ended: false,
        };
        if self.start {
            emitter.indicator("---", true, false, false);
        }
        emitter.node(&tree, false, false);
        emitter.indentation();
        if self.end || emitter.open_ended {
            emitter.indicator("...", true, false, false);
            emitter.indentation();
        }
        Ok(emitter.text)
    }

    fn tree(&self, value: &Value) -> Result<Tree, Error> {
        let text = |text: String| Tree::Scalar { text, is_text: false };
        Ok(match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.checked();
                let items = items.filter(|item| !item.as_ref().is_ok_and(is_omitted));
                Tree::List(items.map(|item| self.tree(&item?)).collect::<Result<_, Error>>()?)
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
                if self.sort {
                    keys.sort();
                }
                let mut entries = Vec::new();
                for key in keys {
                    let entry = value.get_item(&key)?;
                    if !is_omitted(&entry) {
                        entries.push((self.tree(&key)?, self.tree(&entry)?));
                    }
                }
                Tree::Mapping(entries)
            }
            _ => match json_of(value)? {
                Json::String(text) => Tree::Scalar { text, is_text: true },
                Json::Null => text(String::from("null")),
                Json::Number(number) if number.is_f64() => {
                    text(python::yaml_float(number.as_f64().unwrap_or(f64::NAN)))
                }
                other => text(other.to_string()),
            },
        })
    }
}

impl Tree {
    fn is_empty(&self) -> bool {
        match self {
            Self::Scalar { .. } => false,
            Self::List(items) => items.is_empty(),
            Self::Mapping(entries) => entries.is_empty(),
        }
    }

    fn is_plain(&self, document: &Document) -> bool {
        matches!(self, Self::Scalar { .. }) && document.style == Style::Plain
    }

    fn is_flow(&self, document: &Document) -> bool {
        match document.flow {
            Flow::Always => true,
            Flow::Never => false,
            Flow::Leaves => match self {
                Self::Scalar { .. } => false,
                Self::List(items) => items.iter().all(|item| item.is_plain(document)),
                Self::Mapping(entries) => entries
                    .iter()
                    .all(|(key, value)| key.is_plain(document) && value.is_plain(document)),
            },
        }
    }
}

struct Emitter<'a> {
    document: &'a Document,
    text: String,
    column: usize,
    /// None outside of all collections.
    indent: Option<usize>,
    flow_level: usize,
    /// Whether a blank was written last.
    after_blank: bool,
    /// Whether the line has nothing but indentation so far.
    at_line_start: bool,
    /// Whether the last literal scalar keeps the line ends that follow it.
    open_ended: bool,
}

impl Emitter<'_> {
    fn put(&mut self, character: char) {
        self.text.push(character);
        self.column = if is_break(character) { 0 } else { self.column + 1 };
    }

    fn indicator(&mut self, text: &str, blank: bool, is_blank: bool, is_indentation: bool) {
        if blank && !self.after_blank {
            self.put(' ');
        }
        text.chars().for_each(|one| self.put(one));
        self.after_blank = is_blank;
        self.at_line_start = self.at_line_start && is_indentation;
    }

    /// Begins a new line, unless it is new already.
    fn indentation(&mut self) {
        let indent = self.indent.unwrap_or(0);
        if !self.at_line_start || self.column > indent || self.column == indent && !self.after_blank
        {
            self.put('\n');
        }
        while self.column < indent {
            self.put(' ');
        }
        self.after_blank = true;
        self.at_line_start = true;
    }

    /// Runs with a deeper indentation.
    fn deeper(&mut self, flow: bool, same: bool, run: impl FnOnce(&mut Self)) {
        let before = self.indent;
        self.indent = Some(match before {
            None if flow => self.document.indent,
            None => 0,
            Some(indent) if same => indent,
            Some(indent) => indent + self.document.indent,
        });
        run(self);
        self.indent = before;
    }

    fn node(&mut self, tree: &Tree, in_mapping: bool, is_key: bool) {
        let flow = self.flow_level > 0 || tree.is_empty() || tree.is_flow(self.document);
        match tree {
            Tree::Scalar { text, is_text } => self.scalar(text, *is_text, is_key),
            Tree::List(items) if flow => self.flow('[', ']', |emitter| {
                for (index, item) in items.iter().enumerate() {
                    emitter.flow_item(index);
                    emitter.node(item, false, false);
                }
            }),
            Tree::Mapping(entries) if flow => self.flow('{', '}', |emitter| {
                for (index, (key, value)) in entries.iter().enumerate() {
                    emitter.flow_item(index);
                    emitter.entry(key, value);
                }
            }),
            Tree::List(items) => {
                let same = in_mapping && !self.at_line_start;
                self.deeper(false, same, |emitter| {
                    for item in items {
                        emitter.indentation();
                        emitter.indicator("-", true, false, true);
                        emitter.node(item, false, false);
                    }
                });
            }
            Tree::Mapping(entries) => self.deeper(false, false, |emitter| {
                for (key, value) in entries {
                    emitter.indentation();
                    emitter.entry(key, value);
                }
            }),
        }
    }

    fn flow(&mut self, open: char, close: char, run: impl FnOnce(&mut Self)) {
        self.indicator(open.encode_utf8(&mut [0; 4]), true, true, false);
        self.flow_level += 1;
        self.deeper(true, false, run);
        self.flow_level -= 1;
        self.indicator(close.encode_utf8(&mut [0; 4]), false, false, false);
    }

    fn flow_item(&mut self, index: usize) {
        if index > 0 {
            self.indicator(",", false, false, false);
        }
        if self.column > self.document.width {
            self.indentation();
        }
    }

    fn entry(&mut self, key: &Tree, value: &Tree) {
        const KEY_LIMIT: usize = 128;
        let simple = match key {
            Tree::Scalar { text, .. } => !text.contains(is_break) && text.len() <= KEY_LIMIT,
            collection => collection.is_empty(),
        };
        let block = self.flow_level == 0;
        if simple {
            self.node(key, true, true);
            self.indicator(":", false, false, false);
        } else {
            self.indicator("?", true, false, block);
            self.node(key, true, false);
            if block || self.column > self.document.width {
                self.indentation();
            }
            self.indicator(":", true, false, block);
        }
        self.node(value, true, false);
    }

    fn scalar(&mut self, text: &str, is_text: bool, is_key: bool) {
        let allowed = Allowed::of(text, self.document.unicode);
        let flow = self.flow_level > 0;
        let mut style = self.document.style;
        if is_key && text.contains(is_break) {
            style = Style::Double;
        }
        let plain = if flow { allowed.flow_plain } else { allowed.block_plain };
        if style == Style::Plain && (!plain || is_text && is_no_string(text)) {
            style = Style::Single;
        }
        if style == Style::Single && !allowed.single
            || style == Style::Literal && (!allowed.literal || flow || is_key)
        {
            style = Style::Double;
        }
        // With quotes, what is no text needs a tag that says so.
        if !is_text && style != Style::Plain {
            self.indicator("!", true, false, false);
        }
        self.deeper(true, false, |emitter| match style {
            Style::Plain => emitter.plain(text, !is_key),
            Style::Single => emitter.single(text, !is_key),
            Style::Double => emitter.double(text, !is_key),
            Style::Literal => emitter.literal(text),
        });
    }

    fn plain(&mut self, text: &str, breaks: bool) {
        if !self.after_blank && (!text.is_empty() || self.flow_level > 0) {
            self.put(' ');
        }
        self.folded(text, breaks, false);
        (self.after_blank, self.at_line_start) = (false, false);
    }

    fn single(&mut self, text: &str, breaks: bool) {
        self.indicator("'", true, false, false);
        self.folded(text, breaks, true);
        self.indicator("'", false, false, false);
        (self.after_blank, self.at_line_start) = (false, false);
    }

    /// The text of a plain scalar, or of one in single quotes; lines end at a blank once they are
    /// longer than the width, and a line end of the text is written twice.
    fn folded(&mut self, text: &str, breaks: bool, quoted: bool) {
        let (mut after_space, mut after_break) = (false, false);
        let mut characters = text.char_indices().peekable();
        while let Some((at, character)) = characters.next() {
            let next = characters.peek().map(|(_, next)| *next);
            if character == ' ' {
                let inside = !quoted || at > 0 && next.is_some();
                if breaks
                    && !after_space
                    && self.column > self.document.width
                    && inside
                    && next != Some(' ')
                {
                    self.indentation();
                } else {
                    self.put(' ');
                }
                after_space = true;
            } else if is_break(character) {
                if !after_break && character == '\n' {
                    self.put('\n');
                }
                self.put(character);
                self.at_line_start = true;
                after_break = true;
            } else {
                if after_break {
                    self.indentation();
                }
                if quoted && character == '\'' {
                    self.put('\'');
                }
                self.put(character);
                self.at_line_start = false;
                (after_space, after_break) = (false, false);
            }
        }
        if quoted && after_break {
            self.indentation();
        }
    }

    fn double(&mut self, text: &str, breaks: bool) {
        self.indicator("\"", true, false, false);
        let mut after_space = false;
        let mut characters = text.char_indices().peekable();
        while let Some((at, character)) = characters.next() {
            let next = characters.peek().map(|(_, next)| *next);
            let bare = is_printable(character)
                && (self.document.unicode || character.is_ascii())
                && !is_break(character)
                && !matches!(character, '"' | '\\');
            if !bare {
                escaped(character).chars().for_each(|one| self.put(one));
                after_space = false;
            } else if character == ' ' {
                let wide = self.column > self.document.width;
                if breaks && !after_space && wide && at > 0 && next.is_some() {
                    self.indentation();
                    if next == Some(' ') {
                        self.put('\\');
                    }
                } else {
                    self.put(' ');
                }
                after_space = true;
            } else {
                self.put(character);
                after_space = false;
            }
        }
        self.indicator("\"", false, false, false);
        (self.after_blank, self.at_line_start) = (false, false);
    }

    fn literal(&mut self, text: &str) {
        self.indicator("|", true, false, false);
        if text.starts_with([' ', '\n']) {
            self.indicator(&self.document.indent.to_string(), false, false, false);
        }
        let end = text.len() - text.trim_end_matches(is_break).len();
        self.open_ended = false;
        if end == 0 {
            self.indicator("-", false, false, false);
        } else if end > 1 || end == text.len() {
            self.indicator("+", false, false, false);
            self.open_ended = true;
        }
        self.put('\n');
        (self.after_blank, self.at_line_start) = (true, true);
        let mut after_break = true;
        for character in text.chars() {
            if !is_break(character) && after_break {
                self.indentation();
            }
            self.put(character);
            after_break = is_break(character);
            self.at_line_start = after_break;
        }
    }
}

fn is_break(character: char) -> bool {
    matches!(character, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// What libyaml takes for printable: no tabs, and nothing beyond the first plane.
fn is_printable(character: char) -> bool {
    matches!(character, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
        && character != '\u{feff}'
}

/// A character in double quotes that cannot stand there as it is.
fn escaped(character: char) -> String {
    let short = match character {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        other => {
            return match u32::from(other) {
                code @ ..=0xff => format!("\\x{code:02X}"),
                code @ ..=0xffff => format!("\\u{code:04X}"),
                code => format!("\\U{code:08X}"),
            };
        }
    };
    format!("\\{short}")
}

/// How a text may be written.
struct Allowed {
    flow_plain: bool,
    block_plain: bool,
    single: bool,
    literal: bool,
}

impl Allowed {
    fn of(text: &str, unicode: bool) -> Self {
        if text.is_empty() {
            return Self { flow_plain: false, block_plain: true, single: true, literal: false };
        }
        let (mut flow_indicators, mut block_indicators) = (false, false);
        if text.starts_with("---") || text.starts_with("...") {
            (flow_indicators, block_indicators) = (true, true);
        }
        let blank = |one: Option<char>| one.is_none_or(|one| " \t".contains(one) || is_break(one));
        let (mut break_space, mut space_break) = (false, false);
        let mut special = false;
        let mut before: Option<char> = None;
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let before_blank = blank(characters.peek().copied());
            let (flow, block) = match (character, before) {
                ('#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|', None)
                | ('>' | '\'' | '"' | '%' | '@' | '`', None) => (true, true),
                ('?', None) | (':', _) => (true, before_blank),
                ('-', None) => (before_blank, before_blank),
                (',' | '?' | '[' | ']' | '{' | '}', _) => (true, false),
                ('#', _) => (blank(before), blank(before)),
                _ => (false, false),
            };
            flow_indicators |= flow;
            block_indicators |= block;
            special |= !is_printable(character) || !unicode && !character.is_ascii();
            break_space |= character == ' ' && before.is_some_and(is_break);
            space_break |= is_break(character) && before == Some(' ');
            before = Some(character);
        }
        let edges = |one: char| one == ' ' || is_break(one);
        let plain = !text.starts_with(edges)
            && !text.ends_with(edges)
            && !text.contains(is_break)
            && !special;
        Self {
            flow_plain: plain && !flow_indicators,
            block_plain: plain && !block_indicators,
            single: !break_space && !space_break && !special,
            literal: !text.ends_with(' ') && !space_break && !special,
        }
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
