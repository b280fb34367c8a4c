//! What Ansible has otherwise than Jinja, written out before a template is compiled.
//!
//! `a.b.c | default(x)` and `a.b.c is defined` hold in Ansible whichever part is missing, while
//! everywhere else a missing part is an error. Jinja knows only one rule for both, so such chains
//! become `((a|default({})).b|default({})).c`.
//!
//! A line end of Windows is a line end, and the one after `{% raw %}` stays.
//!
//! In the expressions of YAML's values a backslash is itself (`regex_replace('(a)', '\1')`), so it is
//! doubled there.

use std::ops::Range;

use super::template::HEADER;

/// A template with its lenient chains written out, and where its pieces came from.
pub(super) struct Lenient {
    /// What is compiled.
    pub text: String,
    /// Start in `text`, start in the original, length; in order.
    pieces: Vec<(usize, usize, usize)>,
    /// What to add: before which byte of the original, which character, and how many; in order.
    added: Vec<(usize, char, usize)>,
}

/// What a backslash means in the strings of `{{ … }}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backslashes {
    /// The start of an escape, as in Jinja.
    Escape,
    /// Itself; only a quote after it does not end the string.
    Literal,
}

impl Lenient {
    pub(super) fn new(original: &str, backslashes: Backslashes) -> Self {
        let Scan { chains, expressions, raw } = scan(original);
        let headed = backslashes == Backslashes::Escape && original.starts_with(HEADER);
        let mut added = match backslashes {
            Backslashes::Escape => Vec::new(),
            Backslashes::Literal => literal_backslashes(original.as_bytes(), &expressions),
        };
        // The engine drops the line end after `{% raw %}`, as after other blocks; Jinja does not.
        added.extend(raw.into_iter().filter(|_| !headed).map(|at| (at, '\n', 1)));
        added.sort_unstable();
        let text = String::with_capacity(original.len());
        let mut lenient = Self { text, pieces: Vec::new(), added };
        let header =
            if headed { original.find('\n').map_or(original.len(), |at| at + 1) } else { 0 };
        let mut copied = header;
        for chain in chains.into_iter().filter(|chain| chain.start >= header) {
            lenient.copy(original, copied..chain.start);
            lenient.text.push_str(&"(".repeat(chain.accessors.len()));
            lenient.copy(original, chain.root.clone());
            copied = chain.root.end;
            for accessor in chain.accessors {
                lenient.text.push_str("|default({}))");
                copied = accessor.end;
                lenient.copy(original, accessor);
            }
            copied = copied.max(chain.end);
        }
        lenient.copy(original, copied..original.len());
        lenient
    }

    fn copy(&mut self, original: &str, range: Range<usize>) {
        let first = self.added.partition_point(|(at, _, _)| *at <= range.start);
        let mut start = range.start;
        for index in first..self.added.len() {
            let (at, character, count) = self.added[index];
            if at > range.end {
                break;
            }
            self.copy_as_it_is(original, start..at);
            self.text.extend(std::iter::repeat_n(character, count));
            start = at;
        }
        self.copy_as_it_is(original, start..range.end);
    }

    /// Copies, with the line ends of Windows as Jinja has them.
    fn copy_as_it_is(&mut self, original: &str, range: Range<usize>) {
        let mut start = range.start;
        for (index, line) in original[range].split("\r\n").enumerate() {
            if index > 0 {
                self.text.push('\n');
            }
            self.pieces.push((self.text.len(), start, line.len()));
            self.text.push_str(line);
            start += line.len() + 2;
        }
    }

    /// Where a byte of the compiled text stands in the original.
    pub(super) fn original(&self, at: usize) -> usize {
        let after = self.pieces.partition_point(|(start, _, _)| *start <= at);
        match after.checked_sub(1).and_then(|index| self.pieces.get(index)) {
            Some((start, original, length)) => original + (at - start).min(*length),
            None => 0,
        }
    }
}

/// One past the `}}` that closes an expression whose inside begins at `from`.
pub(super) fn expression_end(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut at = from;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\'' | b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b'}' if depth == 0 => {
                return (bytes.get(at + 1) == Some(&b'}')).then_some(at + 2);
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// A chain of accesses that may be missing anywhere: `a.b`, `(a.b)`, `(a.b).c`.
struct Chain {
    start: usize,
    root: Range<usize>,
    accessors: Vec<Range<usize>>,
    end: usize,
}

/// What is found in a template.
#[derive(Default)]
struct Scan {
    chains: Vec<Chain>,
    /// The insides of `{{ … }}`.
    expressions: Vec<Range<usize>>,
    /// Line ends right after `{% raw %}`.
    raw: Vec<usize>,
}

fn scan(text: &str) -> Scan {
    let bytes = text.as_bytes();
    let Scan { mut chains, mut expressions, mut raw } = Scan::default();
    let mut at = 0;
    while let Some(open) = text[at..].find('{').map(|offset| at + offset) {
        at = match bytes.get(open + 1) {
            Some(b'{') => {
                let end = inside(bytes, open + 2, b'}', &mut chains);
                expressions.push(open + 2..end);
                end
            }
            Some(b'%') if is_raw(text, open) => {
                let tag = text[open..].find("%}").map_or(text.len(), |end| open + end);
                if text[tag..].starts_with("%}\n") && !text[..tag].ends_with(['-', '+']) {
                    raw.push(tag + 2);
                }
                text[open..].find("endraw").map_or(text.len(), |end| open + end)
            }
            Some(b'%') => inside(bytes, open + 2, b'%', &mut chains),
            Some(b'#') => text[open..].find("#}").map_or(text.len(), |end| open + end + 2),
            _ => open + 1,
        };
    }
    Scan { chains, expressions, raw }
}

/// What has to be added so that each backslash in these expressions is itself. They stand in strings
/// only: anywhere else they are an error of syntax.
fn literal_backslashes(bytes: &[u8], expressions: &[Range<usize>]) -> Vec<(usize, char, usize)> {
    let mut added = Vec::new();
    for expression in expressions {
        let mut at = expression.start;
        while at < expression.end {
            if bytes[at] != b'\\' {
                at += 1;
                continue;
            }
            match bytes.get(at + 1) {
                Some(b'\'' | b'"') => added.push((at + 1, '\\', 2)),
                Some(b'\\') => added.extend([(at + 1, '\\', 1), (at + 2, '\\', 1)]),
                _ => added.push((at + 1, '\\', 1)),
            }
            at += 2;
        }
    }
    added
}

fn is_raw(text: &str, open: usize) -> bool {
    let tag = text[open + 2..].trim_start_matches(['-', '+']).trim_start();
    tag.strip_prefix("raw").is_some_and(|rest| !rest.starts_with(is_word_character))
}

fn is_word_character(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Collects the chains of one `{{ … }}` or `{% … %}`; gives where it ends.
fn inside(bytes: &[u8], from: usize, closing: u8, found: &mut Vec<Chain>) -> usize {
    let mut depth = 0_usize;
    let mut at = from;
    // The last character that was no blank: names after these are not the start of a chain.
    let mut before = b' ';
    while let Some(&byte) = bytes.get(at) {
        if byte == closing && bytes.get(at + 1) == Some(&b'}') && depth == 0 {
            return at + 2;
        }
        match byte {
            b'\'' | b'"' => at = string_end(bytes, at),
            _ if is_word(byte) => {
                let chain = chain(bytes, at);
                at = chain.end;
                let starts = !matches!(before, b'.' | b'|') && !byte.is_ascii_digit();
                if starts && !chain.accessors.is_empty() && is_lenient(bytes, chain.end) {
                    found.push(chain);
                }
            }
            b'(' if !is_called(bytes, from, at)
                && let Some(chain) = lenient_inside(bytes, at) =>
            {
                at = chain.end;
                found.push(chain);
            }
            b'(' | b'[' | b'{' => {
                depth += 1;
                at += 1;
            }
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
        if !byte.is_ascii_whitespace() {
            before = byte;
        }
    }
    at
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn word_end(bytes: &[u8], from: usize) -> usize {
    from + bytes[from..].iter().take_while(|byte| is_word(**byte)).count()
}

fn blank_end(bytes: &[u8], from: usize) -> usize {
    from + bytes[from..].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// One past the quote that closes the string that begins at `from`.
fn string_end(bytes: &[u8], from: usize) -> usize {
    let quote = bytes[from];
    let mut at = from + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            _ if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// A name and the plain accesses after it.
fn chain(bytes: &[u8], from: usize) -> Chain {
    let root = from..word_end(bytes, from);
    let (accessors, end) = accessors(bytes, root.end);
    Chain { start: from, root, accessors, end }
}

/// Whether a parenthesis begins the arguments of a call, or follows a word that may be a function's.
fn is_called(bytes: &[u8], from: usize, open: usize) -> bool {
    const OPERATORS: [&[u8]; 7] = [b"not", b"and", b"or", b"in", b"if", b"elif", b"else"];
    let before = bytes[from..open].trim_ascii_end();
    let word = before.iter().rev().take_while(|byte| is_word(**byte)).count();
    match before.last() {
        Some(b')' | b']') => true,
        _ => word > 0 && !OPERATORS.contains(&&before[before.len() - word..]),
    }
}

/// The chain that is all of a parenthesis, with the accesses after it, if it may be missing.
fn lenient_inside(bytes: &[u8], open: usize) -> Option<Chain> {
    let from = blank_end(bytes, open + 1);
    let inner = match bytes.get(from) {
        Some(byte) if is_word(*byte) && !byte.is_ascii_digit() => chain(bytes, from),
        _ => return None,
    };
    let close = blank_end(bytes, inner.end);
    if bytes.get(close) != Some(&b')') {
        return None;
    }
    let (outer, end) = accessors(bytes, close + 1);
    let accessors = [inner.accessors, outer].concat();
    let found = Chain { start: open, root: inner.root, accessors, end };
    (!found.accessors.is_empty() && is_lenient(bytes, end)).then_some(found)
}

/// Plain accesses, and where they end: `.name`, `['text']`, `[1]`, `[name]`.
fn accessors(bytes: &[u8], from: usize) -> (Vec<Range<usize>>, usize) {
    let mut accessors = Vec::new();
    let mut at = from;
    loop {
        let end = match bytes.get(at) {
            Some(b'.') if bytes.get(at + 1).is_some_and(|byte| is_word(*byte)) => {
                word_end(bytes, at + 1)
            }
            Some(b'[') => {
                let inner = match bytes.get(at + 1) {
                    Some(b'\'' | b'"') => string_end(bytes, at + 1),
                    Some(byte) if is_word(*byte) => word_end(bytes, at + 1),
                    _ => break,
                };
                if bytes.get(inner) != Some(&b']') {
                    break;
                }
                inner + 1
            }
            _ => break,
        };
        accessors.push(at..end);
        at = end;
    }
    (accessors, at)
}

/// Whether what follows a chain asks for it to be lenient.
fn is_lenient(bytes: &[u8], from: usize) -> bool {
    let at = blank_end(bytes, from);
    if bytes.get(at) == Some(&b'|') {
        let name = blank_end(bytes, at + 1);
        return matches!(&bytes[name..word_end(bytes, name)], b"default" | b"d");
    }
    let mut words = [b"".as_slice(); 3];
    let mut next = at;
    for word in &mut words {
        let start = blank_end(bytes, next);
        next = word_end(bytes, start);
        *word = &bytes[start..next];
    }
    matches!(
        words,
        [b"is", b"defined" | b"undefined", _] | [b"is", b"not", b"defined" | b"undefined"]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_before_default_and_defined_are_lenient_and_others_are_not() {
        let cases = [
            ("{{ a.b | default(1) }}", "{{ (a|default({})).b | default(1) }}"),
            ("{{ a.b['c'].d|d }}", "{{ (((a|default({})).b|default({}))['c']|default({})).d|d }}"),
            ("{% if a.b is not defined %}", "{% if (a|default({})).b is not defined %}"),
            ("{{ a.b }} a.b | default", "{{ a.b }} a.b | default"),
            ("{{ 'a.b | default' }}", "{{ 'a.b | default' }}"),
            ("{{ a | default(b.c | d) }}", "{{ a | default((b|default({})).c | d) }}"),
            ("{{ f(x).a.b | default }}", "{{ f(x).a.b | default }}"),
            ("{{ a.get('b') | default }}", "{{ a.get('b') | default }}"),
            ("{{ (a.b) | d }}", "{{ (a|default({})).b | d }}"),
            (
                "{{ not ( a.b ).c is defined }}",
                "{{ not ((a|default({})).b|default({})).c is defined }}",
            ),
            ("{{ f(a.b) | d }}", "{{ f(a.b) | d }}"),
            ("{{ (a.b ~ c) | d }}", "{{ (a.b ~ c) | d }}"),
            ("{% raw %}{{ a.b | d }}{% endraw %}", "{% raw %}{{ a.b | d }}{% endraw %}"),
            ("{% raw %}\na{% endraw %}\n", "{% raw %}\n\na{% endraw %}\n"),
            ("a\r\n\r\nb\r", "a\n\nb\r"),
            ("#jinja2: trim_blocks:False\n{{ a }}", "{{ a }}"),
        ];
        for (original, expected) in cases {
            assert_eq!(Lenient::new(original, Backslashes::Escape).text, expected);
        }
    }

    #[test]
    fn backslashes_of_expressions_are_doubled_and_others_are_not() {
        let cases = [
            (r"{{ a('\1') }} \1 {% if '\1' %}", r"{{ a('\\1') }} \1 {% if '\1' %}"),
            (r"{{ 'it\'s' }}", r"{{ 'it\\\'s' }}"),
            (r"{{ 'a\\' ~ b }}", r"{{ 'a\\\\' ~ b }}"),
            (r"{{ a.b['\d'] | d }}", r"{{ ((a|default({})).b|default({}))['\\d'] | d }}"),
        ];
        for (original, expected) in cases {
            assert_eq!(Lenient::new(original, Backslashes::Literal).text, expected);
        }
        let original = r"{{ '\1' ~ nope }}";
        let lenient = Lenient::new(original, Backslashes::Literal);
        let at = lenient.text.find("nope").unwrap();
        assert_eq!(lenient.original(at), original.find("nope").unwrap());
    }

    #[test]
    fn places_are_found_back() {
        let original = "{{ a.b | default(nope) }}";
        let lenient = Lenient::new(original, Backslashes::Escape);
        let at = lenient.text.find("nope").unwrap();
        assert_eq!(lenient.original(at), original.find("nope").unwrap());
        let at = lenient.text.find('a').unwrap();
        assert_eq!(lenient.original(at), 3);
    }

    #[test]
    fn an_expression_ends_at_its_own_braces() {
        let cases = [
            ("{{ a }}", Some(7)),
            ("{{ {'a': {}} }}", Some(15)),
            ("{{ '}}' }} x", Some(10)),
            ("{{ a }", None),
        ];
        for (text, expected) in cases {
            assert_eq!(expression_end(text, 2), expected, "{text}");
        }
    }
}
