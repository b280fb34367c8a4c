//! Values of INI inventories: Python literals, as Ansible reads them there.
//!
//! Whatever is not a literal is the text itself, so `yes` is a string and `True` a boolean. The
//! grammar is that of the Python language reference, chapter 2.4 and 6.2, without operators.

use std::sync::Arc;

use super::{plain_node, yaml11};
use crate::diagnostic::Span;
use crate::lang::python;
use crate::lang::yaml::{Kind, Node, Scalar, Style};

/// Deepest nesting.
const DEPTH_LIMIT: usize = 50;

/// The value that a text stands for; all of it has the one place.
pub(super) fn value(text: &str, span: Span) -> Node {
    Parser { rest: text.trim_start_matches([' ', '\t']), span }
        .whole()
        .unwrap_or_else(|| Node::text(span, text))
}

struct Parser<'a> {
    rest: &'a str,
    span: Span,
}

impl<'a> Parser<'a> {
    fn whole(mut self) -> Option<Node> {
        let first = self.expression(0)?;
        let node = if self.peek() == Some(',') {
            let mut items = vec![first];
            while self.take(',') {
                if self.is_at_end() {
                    break;
                }
                items.push(self.expression(0)?);
            }
            self.list(items)
        } else {
            first
        };
        self.is_at_end().then_some(node)
    }

    /// Nothing, or a comment, is left.
    fn is_at_end(&mut self) -> bool {
        matches!(self.peek(), None | Some('#'))
    }

    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\u{c}']);
        self.rest.chars().next()
    }

    fn take(&mut self, character: char) -> bool {
        let is_next = self.peek() == Some(character);
        if is_next {
            self.rest = &self.rest[character.len_utf8()..];
        }
        is_next
    }

    fn list(&self, items: Vec<Node>) -> Node {
        Node { span: self.span, kind: Kind::Sequence(Arc::new(items)) }
    }

    fn expression(&mut self, depth: usize) -> Option<Node> {
        if depth > DEPTH_LIMIT {
            return None;
        }
        match self.peek()? {
            '[' => {
                self.take('[');
                let (items, _) = self.items(']', depth)?;
                Some(self.list(items))
            }
            '(' => {
                self.take('(');
                let (mut items, comma) = self.items(')', depth)?;
                if items.len() == 1 && !comma { items.pop() } else { Some(self.list(items)) }
            }
            '{' => {
                self.take('{');
                self.braces(depth)
            }
            sign @ ('+' | '-') => {
                self.take(sign);
                self.peek().filter(|next| next.is_ascii_digit() || *next == '.')?;
                self.number(sign == '-')
            }
            first if first.is_ascii_digit() => self.number(false),
            '.' => {
                if let Some(rest) = self.rest.strip_prefix("...") {
                    self.rest = rest;
                    return Some(Node::text(self.span, "..."));
                }
                self.number(false)
            }
            _ => self.string_or_name(),
        }
    }

    /// What stands up to a closing bracket, and whether there was a comma.
    fn items(&mut self, close: char, depth: usize) -> Option<(Vec<Node>, bool)> {
        let mut items = Vec::new();
        let mut comma = false;
        while !self.take(close) {
            if !items.is_empty() && !comma {
                return None;
            }
            items.push(self.expression(depth + 1)?);
            comma = self.take(',');
        }
        Some((items, comma))
    }

    /// A dictionary or a set.
    fn braces(&mut self, depth: usize) -> Option<Node> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        let mut items = Vec::new();
        let mut comma = true;
        while !self.take('}') {
            if !comma {
                return None;
            }
            let first = self.expression(depth + 1)?;
            if self.take(':') {
                let value = self.expression(depth + 1)?;
                first.scalar()?;
                match entries.iter_mut().find(|(key, _)| key.as_text() == first.as_text()) {
                    Some(entry) => entry.1 = value,
                    None => entries.push((first, value)),
                }
            } else {
                items.push(first);
            }
            comma = self.take(',');
        }
        match (entries.is_empty(), items.is_empty()) {
            (_, true) => Some(Node { span: self.span, kind: Kind::Mapping(Arc::new(entries)) }),
            (true, false) => Some(self.list(items)),
            (false, false) => None,
        }
    }

    fn number(&mut self, negative: bool) -> Option<Node> {
        let mut previous = ' ';
        let is_decimal = !self.rest.starts_with("0x") && !self.rest.starts_with("0X");
        let end = self.rest.find(|next: char| {
            let sign = "+-".contains(next) && is_decimal && "eE".contains(previous);
            previous = next;
            !(next.is_alphanumeric() || next == '_' || next == '.' || sign)
        });
        let (text, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        let bytes = text.as_bytes();
        // An underscore stands between two digits, or after the letter of the base.
        let misplaced = bytes.iter().enumerate().any(|(at, byte)| {
            let digit = |at: Option<usize>| {
                at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_hexdigit)
            };
            let after_base = at == 2 && bytes[0] == b'0' && bytes[1].is_ascii_alphabetic();
            *byte == b'_' && !((digit(at.checked_sub(1)) || after_base) && digit(Some(at + 1)))
        });
        if misplaced {
            return None;
        }
        let lower = text.to_ascii_lowercase();
        let based = [("0x", 16), ("0o", 8), ("0b", 2)]
            .into_iter()
            .find_map(|(prefix, base)| Some((lower.strip_prefix(prefix)?, base)));
        let magnitude = if let Some((digits, base)) = based {
            yaml11::in_decimal(digits, base)?
        } else if lower.contains(['.', 'e']) {
            let clean = lower.replace('_', "");
            // Rust also reads words such as `inf`.
            if !clean.bytes().all(|byte| byte.is_ascii_digit() || b".e+-".contains(&byte)) {
                return None;
            }
            let number: f64 = clean.parse().ok()?;
            let number = if negative { -number } else { number };
            return Some(plain_node(self.span, python::yaml_float(number)));
        } else {
            let digits = yaml11::in_decimal(&lower, 10)?;
            if lower.starts_with('0') && digits != "0" {
                return None;
            }
            digits
        };
        let sign = if negative && magnitude != "0" { "-" } else { "" };
        Some(plain_node(self.span, format!("{sign}{magnitude}")))
    }

    fn string_or_name(&mut self) -> Option<Node> {
        let end = self.rest.find(|next: char| !next.is_alphanumeric() && next != '_');
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        if !rest.starts_with(['"', '\'']) {
            self.rest = rest;
            return match word {
                "True" => Some(plain_node(self.span, "true")),
                "False" => Some(plain_node(self.span, "false")),
                "None" => Some(plain_node(self.span, "null")),
                "set" => (self.take('(') && self.take(')')).then(|| self.list(Vec::new())),
                _ => None,
            };
        }
        let mut text = String::new();
        let mut bytes = None;
        loop {
            let end = self.rest.find(['"', '\''])?;
            let (prefix, rest) = self.rest.split_at(end);
            let prefix = prefix.to_ascii_lowercase();
            let (raw, is_bytes) = match prefix.as_str() {
                "" | "u" => (false, false),
                "r" => (true, false),
                "b" => (false, true),
                "br" | "rb" => (true, true),
                _ => return None,
            };
            if *bytes.get_or_insert(is_bytes) != is_bytes {
                return None;
            }
            self.rest = rest;
            self.string(raw, is_bytes, &mut text)?;
            // Adjacent strings are one.
            self.peek();
            let word = self.rest.trim_start_matches(|next: char| next.is_ascii_alphabetic());
            if !word.starts_with(['"', '\'']) {
                break;
            }
        }
        let mut node = Node::text(self.span, text);
        if bytes == Some(true) {
            // Ansible keeps text that comes from bytes from being a template.
            if let Kind::Scalar(Scalar { tag, style: Style::Quoted, .. }) = &mut node.kind {
                *tag = Some(Arc::from("unsafe"));
            }
        }
        Some(node)
    }

    /// One quoted piece.
    fn string(&mut self, raw: bool, is_bytes: bool, text: &mut String) -> Option<()> {
        let quote = self.rest.chars().next()?;
        let triple: String = [quote; 3].iter().collect();
        let close = if self.rest.starts_with(&triple) { triple } else { quote.to_string() };
        let mut rest: &'a str = &self.rest[close.len()..];
        loop {
            if let Some(after) = rest.strip_prefix(close.as_str()) {
                self.rest = after;
                return Some(());
            }
            let next = rest.chars().next()?;
            rest = &rest[next.len_utf8()..];
            if next != '\\' {
                if is_bytes && !next.is_ascii() {
                    return None;
                }
                text.push(next);
                continue;
            }
            let escaped = rest.chars().next()?;
            if raw {
                text.push('\\');
                text.push(escaped);
                rest = &rest[escaped.len_utf8()..];
                continue;
            }
            rest = escape(rest, is_bytes, text)?;
        }
    }
}

/// What follows a backslash; gives what is left.
fn escape<'a>(rest: &'a str, is_bytes: bool, text: &mut String) -> Option<&'a str> {
    let first = rest.chars().next()?;
    let after = &rest[first.len_utf8()..];
    let simple = match first {
        '\\' | '\'' | '"' => Some(first),
        'a' => Some('\u{7}'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\u{b}'),
        _ => None,
    };
    if let Some(character) = simple {
        text.push(character);
        return Some(after);
    }
    let digits = match first {
        'x' => 2,
        'u' if !is_bytes => 4,
        'U' if !is_bytes => 8,
        'N' if !is_bytes => return None,
        '0'..='7' => {
            let end = rest.bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
            let number = u32::from_str_radix(&rest[..end], 8).ok()?;
            text.push(char::from_u32(number)?);
            return Some(&rest[end..]);
        }
        _ => {
            text.push('\\');
            text.push(first);
            return Some(after);
        }
    };
    let number = u32::from_str_radix(after.get(..digits)?, 16).ok()?;
    text.push(char::from_u32(number)?);
    after.get(digits..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Sources;
    use crate::inventory::json;

    #[test]
    fn python_literals_have_types_and_all_else_is_text() {
        let span = Span::new(Sources::default().add("x", ""), 0, 0);
        let cases = [
            ("80", "80"),
            ("80 # comment", "80"),
            ("foo # bar", r#""foo # bar""#),
            ("0644", r#""0644""#),
            ("00", "0"),
            ("yes", r#""yes""#),
            ("True", "true"),
            ("true", r#""true""#),
            ("None", "null"),
            ("-5", "-5"),
            ("--5", r#""--5""#),
            ("1_000", "1000"),
            ("1__0", r#""1__0""#),
            ("0xff", "255"),
            ("0o17", "15"),
            ("1e3", "1000.0"),
            ("1.", "1.0"),
            ("1.2.3", r#""1.2.3""#),
            ("10.0.0.1", r#""10.0.0.1""#),
            ("1j", r#""1j""#),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("", r#""""#),
            ("'a b'", r#""a b""#),
            ("'a' \"b\"", r#""ab""#),
            (r"'a\nb'", r#""a\nb""#),
            (r"r'a\nb'", r#""a\\nb""#),
            (r"'\x41\u00e9\101\q'", r#""AéA\\q""#),
            ("f'x'", r#""f'x'""#),
            ("b'x'", r#"{"__ansible_unsafe":"x"}"#),
            ("'''x'''", r#""x""#),
            ("'x", r#""'x""#),
            ("[1, 'a', (2,), [], ]", r#"[1,"a",[2],[]]"#),
            ("[1 2]", r#""[1 2]""#),
            ("(1)", "1"),
            ("1,2", "[1,2]"),
            ("1,", "[1]"),
            ("{'a': 1, 2: {'b': None}}", r#"{"2":{"b":null},"a":1}"#),
            ("{1}", "[1]"),
            ("{}", "{}"),
            ("{{ foo }}", r#""{{ foo }}""#),
            ("...", r#""...""#),
            ("a=b", r#""a=b""#),
        ];
        for (text, expected) in cases {
            assert_eq!(json::compact(&value(text, span)), expected, "{text}");
        }
    }
}
