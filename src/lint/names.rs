//! Names that templates use, found by reading them: nothing is evaluated.

use std::collections::HashSet;
use std::ops::Range;

use super::Subject;
use crate::diagnostic::{Sources, Span};
use crate::lang::Reads;
use crate::lang::yaml::{Kind, Node, Style};

/// A name with the plain accesses after it, as a template uses it: `facts.os.family`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// The name, and what is asked of it.
    pub parts: Vec<String>,
    /// The place of the name.
    pub root: Range<usize>,
    /// The place of all of it.
    pub range: Range<usize>,
}

/// A chain with its place in a source.
#[derive(Clone, Debug)]
pub(super) struct Used {
    /// The name, and what is asked of it.
    pub parts: Vec<String>,
    /// The place of the name.
    pub root: Span,
    /// The place of all of it.
    pub span: Span,
}

/// All that the templates of a state file use: in its values, and in the template files that were
/// rendered.
pub(super) fn used(sources: &Sources, subject: &Subject<'_>) -> Vec<Used> {
    let mut used = Vec::new();
    let mut seen: HashSet<Span> = HashSet::new();
    for play in &subject.program.plays {
        for (reads, node) in play.values() {
            in_node(sources, reads, node, &mut seen, &mut used);
        }
    }
    for (source, text) in subject.templates.files() {
        let all = Span::new(source, 0, text.len());
        used.extend(chains(&text, Reads::Data).into_iter().map(|chain| placed(chain, all)));
    }
    used
}

fn in_node(
    sources: &Sources,
    reads: Reads,
    node: &Node,
    seen: &mut HashSet<Span>,
    used: &mut Vec<Used>,
) {
    match &node.kind {
        Kind::Scalar(scalar) => {
            // A file that is included several times is read several times.
            if scalar.tag.as_deref().is_some_and(|tag| tag != "str") || !seen.insert(node.span) {
                return;
            }
            let raw = unescaped(sources.slice(node.span), scalar.style);
            let braces = scalar.text.contains("{{") || scalar.text.contains("{%");
            let reads = if braces { Reads::Data } else { reads };
            used.extend(chains(&raw, reads).into_iter().map(|chain| placed(chain, node.span)));
        }
        Kind::Sequence(items) => {
            items.iter().for_each(|item| in_node(sources, reads, item, seen, used));
        }
        Kind::Mapping(entries) => {
            for (key, value) in entries.iter() {
                in_node(sources, Reads::Data, key, seen, used);
                in_node(sources, reads, value, seen, used);
            }
        }
    }
}

fn placed(chain: Chain, within: Span) -> Used {
    Used {
        parts: chain.parts,
        root: within.part(chain.root.start, chain.root.end),
        span: within.part(chain.range.start, chain.range.end),
    }
}

/// A scalar as it stands in the source, with the quotes of its templates as templates have them. The
/// length stays.
fn unescaped(raw: String, style: Style) -> String {
    if style != Style::Quoted {
        return raw;
    }
    let (quote, escaped, plain) =
        if raw.starts_with('\'') { ('\'', "''", " '") } else { ('"', "\\\"", " \"") };
    let inner = raw.strip_prefix(quote).and_then(|inner| inner.strip_suffix(quote));
    match inner {
        Some(inner) => format!(" {} ", inner.replace(escaped, plain)),
        None => raw,
    }
}

/// The chains of a text, without names that the text itself introduces.
pub(super) fn chains(text: &str, reads: Reads) -> Vec<Chain> {
    let mut reader = Reader::default();
    match reads {
        Reads::Expression => reader.read(text, 0..text.len(), false),
        Reads::Data => {
            for (inside, statement) in insides(text) {
                reader.read(text, inside, statement);
            }
        }
    }
    reader.found.retain(|chain| !reader.own.contains(&chain.parts[0]));
    reader.found
}

/// The insides of `{{ … }}` and `{% … %}`, and whether each is a statement.
pub(super) fn insides(text: &str) -> Vec<(Range<usize>, bool)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(open) = text[at..].find('{').map(|offset| at + offset) {
        let statement = match bytes.get(open + 1) {
            Some(b'{') => false,
            Some(b'%') => true,
            Some(b'#') => {
                at = text[open..].find("#}").map_or(text.len(), |end| open + end + 2);
                continue;
            }
            _ => {
                at = open + 1;
                continue;
            }
        };
        let close = if statement { "%}" } else { "}}" };
        let end = inside_end(text, open + 2, close);
        let inside = open + 2..end;
        at = (end + 2).min(text.len());
        if statement && text[inside.clone()].trim_matches(['-', '+', ' ']) == "raw" {
            at = text[at..].find("endraw").map_or(text.len(), |end| at + end);
            continue;
        }
        found.push((inside, statement));
    }
    found
}

fn inside_end(text: &str, from: usize, close: &str) -> usize {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'\'' | b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b'}' if depth > 0 => depth -= 1,
            b'{' => depth += 1,
            _ if bytes[at..].starts_with(close.as_bytes()) => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// One past the quote that closes the string that begins at `from`.
fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            _ if byte == bytes[from] => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn word_end(bytes: &[u8], from: usize, end: usize) -> usize {
    let end = end.max(from);
    from + bytes[from..end].iter().take_while(|byte| is_word(**byte)).count()
}

fn blank_end(bytes: &[u8], from: usize, end: usize) -> usize {
    let end = end.max(from);
    from + bytes[from..end].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Words of Jinja that are no names.
const WORDS: [&str; 38] = [
    "and",
    "as",
    "autoescape",
    "block",
    "break",
    "call",
    "caller",
    "context",
    "continue",
    "do",
    "elif",
    "else",
    "endfor",
    "endif",
    "endmacro",
    "endset",
    "extends",
    "false",
    "False",
    "filter",
    "for",
    "from",
    "if",
    "import",
    "in",
    "include",
    "is",
    "loop",
    "macro",
    "none",
    "None",
    "not",
    "or",
    "recursive",
    "set",
    "true",
    "True",
    "with",
];

#[derive(Default)]
struct Reader {
    found: Vec<Chain>,
    /// Names that the text gives values to.
    own: HashSet<String>,
}

impl Reader {
    fn read(&mut self, text: &str, inside: Range<usize>, statement: bool) {
        let bytes = text.as_bytes();
        let end = inside.end;
        let mut at = inside.start;
        let mut before = b' ';
        // The last words, for `is not NAME`.
        let mut word = "";
        let mut word_before;
        // In a statement, names up to here are given values: all of `for a, b`, `set a`, `macro a(b)`.
        let mut giving = false;
        let mut first = statement;
        while at < end {
            let byte = bytes[at];
            if byte == b'\'' || byte == b'"' {
                at = string_end(bytes, at).min(end);
                before = byte;
                word = "";
                continue;
            }
            if !is_word(byte) {
                if giving && byte == b'=' {
                    giving = false;
                }
                if !byte.is_ascii_whitespace() {
                    before = byte;
                    word = "";
                }
                at += 1;
                continue;
            }
            let root = at..word_end(bytes, at, end);
            at = root.end;
            word_before = word;
            word = &text[root.clone()];
            let follows = before;
            before = b'a';
            if std::mem::take(&mut first) {
                giving = matches!(word, "for" | "set" | "macro" | "call" | "import" | "from");
                continue;
            }
            if giving && word == "in" {
                giving = false;
                continue;
            }
            let next = blank_end(bytes, at, end);
            let assigned = bytes.get(next) == Some(&b'=') && bytes.get(next + 1) != Some(&b'=');
            let named = matches!(word_before, "as" | "import");
            if giving || named {
                self.own.insert(word.to_owned());
                continue;
            }
            let tested = word_before == "is" || (word_before == "not" && self.tests(text, &root));
            if matches!(follows, b'.' | b'|')
                || tested
                || byte.is_ascii_digit()
                || WORDS.contains(&word)
                || (assigned && next < end)
            {
                continue;
            }
            let (parts, chain_end) = accesses(text, at, end);
            at = chain_end;
            let mut all = vec![word.to_owned()];
            all.extend(parts);
            self.found.push(Chain { parts: all, root: root.clone(), range: root.start..chain_end });
            word = "";
        }
    }

    /// Whether `is` stands before the `not` before a word.
    fn tests(&self, text: &str, root: &Range<usize>) -> bool {
        let before = text[..root.start].trim_end();
        let before = before.strip_suffix("not").unwrap_or(before).trim_end();
        before
            .strip_suffix("is")
            .is_some_and(|rest| !rest.ends_with(|last: char| last.is_alphanumeric()))
    }
}

/// The accesses after a name, `.name` and `['name']`, and where they end. A method that is called is
/// none.
fn accesses(text: &str, from: usize, end: usize) -> (Vec<String>, usize) {
    let bytes = text.as_bytes();
    let mut parts = Vec::new();
    let mut at = from;
    while at < end {
        let (part, next) = match bytes[at] {
            b'.' => {
                let word = at + 1..word_end(bytes, (at + 1).min(end), end);
                if word.is_empty() {
                    break;
                }
                (text[word.clone()].to_owned(), word.end)
            }
            b'[' => {
                let open = blank_end(bytes, at + 1, end);
                if !matches!(bytes.get(open), Some(b'\'' | b'"')) {
                    break;
                }
                let close = string_end(bytes, open).min(end);
                let bracket = blank_end(bytes, close, end);
                if bytes.get(bracket) != Some(&b']') || close < open + 2 {
                    break;
                }
                (text.get(open + 1..close - 1).unwrap_or_default().to_owned(), bracket + 1)
            }
            _ => break,
        };
        if bytes.get(next) == Some(&b'(') && next < end {
            break;
        }
        parts.push(part);
        at = next;
    }
    (parts, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, reads: Reads) -> String {
        let chains = chains(text, reads);
        for chain in &chains {
            assert_eq!(text[chain.root.clone()], chain.parts[0]);
        }
        chains.iter().map(|chain| chain.parts.join(".")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn names_are_found_and_what_only_looks_like_one_is_not() {
        let cases = [
            ("a {{ b.c['d'].e | default(f, boolean=true) }} g", "b.c.d.e f"),
            ("{{ 'a' ~ \"b }}\" ~ c }}", "c"),
            ("{% for x in xs if x.on %}{{ x }}{{ loop.index }}{% endfor %}", "xs"),
            ("{% set one = two %}{{ one }}", "two"),
            ("{% macro m(p) %}{{ p }}{% endmacro %}{{ m(q) }}", "q"),
            ("{% import 'x.j2' as lib %}{{ lib.f(y) }}", "y"),
            ("{{ a is defined and b is not mapping and not c }}", "a b c"),
            ("{{ a.items() | map(attribute='x') | list }}", "a"),
            ("{{ {'k': v}['k'] }}{# {{ no }} #}{% raw %}{{ no }}{% endraw %}", "v"),
            ("{% if a == b %}{% elif c >= 1 %}{% endif %}", "a b c"),
            ("{{ x if y else z }}", "x y z"),
            ("plain text", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(names(text, Reads::Data), expected, "{text}");
        }
        assert_eq!(
            names("facts.os.family == 'debian' and tls", Reads::Expression),
            "facts.os.family tls"
        );
    }

    #[test]
    fn quotes_of_yaml_are_taken_for_those_of_the_template() {
        let double = unescaped(String::from(r#""{{ a == \"b\" }}""#), Style::Quoted);
        assert_eq!(names(&double, Reads::Data), "a");
        let single = unescaped(String::from("'{{ a == ''b'' }}'"), Style::Quoted);
        assert_eq!(names(&single, Reads::Data), "a");
    }
}
