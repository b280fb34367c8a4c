//! Errors of YAML's syntax, in the words of those who write it.

use std::ops::Range;

use granit_parser::ErrorKind;

use crate::diagnostic::{Diagnostic, SourceId, Span};

/// What is wrong at a place of a text that is no YAML.
pub(super) fn syntax(source: SourceId, text: &str, at: usize, kind: &ErrorKind) -> Diagnostic {
    let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    if let Some(place) = unquoted_template(text, at) {
        return needs_quotes(source, text, place);
    }
    let rest = &text[at..];
    let here = at..at + rest.chars().next().map_or(0, char::len_utf8);
    let said = |message: &str, place: Range<usize>, label: &str| {
        Diagnostic::error("yaml-syntax", message)
            .at(Span::new(source, place.start, place.end), label)
    };
    let line = line_at(text, at);
    match kind {
        ErrorKind::UnknownAnchor => {
            let word = rest.split(|character: char| character.is_whitespace() || character == ',');
            let alias = word.into_iter().next().unwrap_or_default();
            let message =
                format!("no value before this is marked `&{}`", alias.trim_start_matches('*'));
            said(&message, at..at + alias.len(), "").help(
                "`*name` stands for the value marked `&name`; quote a value that begins with `*`",
            )
        }
        ErrorKind::MissingAnchorOrAliasName | ErrorKind::UnexpectedCharacter { .. } => {
            let message = match rest.chars().next() {
                Some(character) => format!("a value cannot begin with `{character}`"),
                None => String::from("a value is missing"),
            };
            said(&message, here, "put the value in quotes")
        }
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart => {
            let indented = text[line.clone()].len() - text[line.clone()].trim_start().len();
            let tab = text[line.start..line.start + indented].find('\t');
            let place = tab.map_or(here, |tab| line.start + tab..line.start + tab + 1);
            said("YAML is indented with blanks, not with tabs", place, "a tab")
        }
        ErrorKind::MappingValueNotAllowed => match text[line.start..at].find(": ") {
            Some(colon) => {
                let value = line.start + colon + 2;
                let value = value + blanks(&text[value..at]);
                said(
                    "a value that has `: ` in it needs quotes",
                    value..line.end,
                    "put it in quotes",
                )
            }
            None => {
                let begin = line.start + blanks(&text[line.clone()]);
                let message = "this line belongs to the value before it, and cannot have a `:`";
                said(message, begin..line.end, "").help(INDENTATION)
            }
        },
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::InvalidIndentation
        | ErrorKind::InvalidSimpleKey
        | ErrorKind::SimpleKeyExpected => {
            let begin = line.start + blanks(&text[line.clone()]);
            if text[begin..line.end].contains(':') || text[begin..line.end].starts_with("- ") {
                let message = "this line is indented differently from those that it belongs to";
                said(message, begin..line.end, "").help(INDENTATION)
            } else {
                said("a key has a `:` after it", begin..line.end, "there is none here")
            }
        }
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator
        | ErrorKind::BlockEntryInFlowCollection
        | ErrorKind::InvalidFlowScalarIndent
        | ErrorKind::InvalidColonPlacement => match open_bracket(text, at) {
            Some(bracket) => {
                let message = format!("`{}` is not closed", &text[bracket..=bracket]);
                let diagnostic = said(&message, bracket..bracket + 1, "opened here");
                if here.is_empty() {
                    diagnostic
                } else {
                    let place = Span::new(source, here.start, here.end);
                    diagnostic.at(place, "this cannot stand in it")
                }
            }
            None => said("a `:` cannot stand here", here, "quote a value that has one in it"),
        },
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            said(&format!("`{open}` is closed by `{close}`"), here, "")
        }
        ErrorKind::MisplacedFlowCollectionEnd => said("this bracket closes nothing", here, ""),
        ErrorKind::UnclosedQuotedScalar
        | ErrorKind::InvalidQuotedScalarIndent
        | ErrorKind::DocumentIndicatorInQuotedScalar => {
            let place = open_quote(text, at).map_or(here, |quote| quote..quote + 1);
            said("a quote is not closed", place, "it begins here")
        }
        ErrorKind::InvalidTrailingSingleQuotedScalar
        | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
            said("something stands after a closing quote", at..line.end.max(at), "")
                .help("quotes go around a whole value; a quote inside of them is `''` or `\\\"`")
        }
        ErrorKind::UnknownQuotedScalarEscape
        | ErrorKind::InvalidQuotedScalarHexEscape
        | ErrorKind::InvalidUnicodeEscape => {
            let place = wrong_escape(&text[at..line.end.max(at)]);
            let place = place.map_or(here, |place| at + place.start..at + place.end);
            said("in double quotes a `\\` begins an escape, and this is none", place, "")
                .help("single quotes take a `\\` as it is")
        }
        ErrorKind::BlockSequenceEntryNotAllowed => said("a list cannot begin here", here, "")
            .help("its first `- ` stands on a line of its own, below the key"),
        other => said(&format!("this is no YAML: {other}"), here, ""),
    }
}

const INDENTATION: &str =
    "keys of one mapping begin in the same column, and so do the `- ` of one list";

/// That a value is a template which YAML takes for something else.
pub(super) fn needs_quotes(source: SourceId, text: &str, place: Range<usize>) -> Diagnostic {
    let begin = text.get(place.start..place.start + 2).unwrap_or_default();
    Diagnostic::error("yaml-syntax", format!("a value that begins with `{begin}` needs quotes"))
        .at(Span::new(source, place.start, place.end), "put the whole value in quotes")
        .help("without them, YAML takes `{` for the beginning of a mapping")
}

/// A template that begins a value without quotes, on the line of a place and not behind it.
fn unquoted_template(text: &str, at: usize) -> Option<Range<usize>> {
    let line = line_at(text, at);
    let until = (at + 2).min(line.end);
    let mut found = None;
    for (start, _) in text[line.clone()].match_indices('{') {
        let start = line.start + start;
        let end = match text.get(start..start + 2) {
            Some("{{") => "}}",
            Some("{%") => "%}",
            _ => continue,
        };
        let before = &text[line.start..start];
        let begins = before.trim_end().ends_with([':', '-', ',', '[', '{']);
        let quoted = ['"', '\''].iter().any(|quote| before.matches(*quote).count() % 2 == 1);
        if start < until && begins && !quoted && !before.contains(" #") {
            let length = text[start..line.end].find(end).map(|length| length + end.len());
            found = Some(start..length.map_or(line.end, |length| start + length));
        }
    }
    found
}

/// A line without its end and without blanks before that.
fn line_at(text: &str, at: usize) -> Range<usize> {
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let end = text[start..].find('\n').map_or(text.len(), |end| start + end);
    start..start + text[start..end].trim_end().len()
}

fn blanks(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// The bracket before a place that is not closed before it; what is in quotes counts too.
fn open_bracket(text: &str, at: usize) -> Option<usize> {
    let mut closed = 0_usize;
    for (place, character) in text[..at].char_indices().rev() {
        match character {
            ']' | '}' => closed += 1,
            '[' | '{' if closed == 0 => return Some(place),
            '[' | '{' => closed -= 1,
            _ => {}
        }
    }
    None
}

/// The quote before a place that begins a value and is not closed before the place.
fn open_quote(text: &str, at: usize) -> Option<usize> {
    let opened = [("\"", "\\\""), ("'", "''")].into_iter().filter_map(|(quote, escaped)| {
        text[..at].rmatch_indices(quote).map(|(place, _)| place).find(|place| {
            let before = text[..*place].chars().next_back();
            let begins = before.is_none_or(|one| one.is_whitespace() || "[{,".contains(one));
            begins && !text[place + 1..at].replace(escaped, "").contains(quote)
        })
    });
    opened.max()
}

/// The first escape that YAML does not have (chapter 5.7), if it is on this line.
fn wrong_escape(line: &str) -> Option<Range<usize>> {
    let mut characters = line.char_indices();
    while let Some((start, character)) = characters.next() {
        if character == '\\' {
            let (end, escaped) = characters.next()?;
            if !"0abt\tnvfre \"/\\N_LPxuU".contains(escaped) {
                return Some(start..end + escaped.len_utf8());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use crate::diagnostic::{Diagnostics, Sources};

    #[test]
    fn places_and_words_are_those_of_the_writer() {
        let cases = [
            ("a: {{ b }}", "1:4 a value that begins with `{{` needs quotes"),
            ("a: {{ b }}/c", "1:4 a value that begins with `{{` needs quotes"),
            ("a: [{{ b }}.c, d]", "1:5 a value that begins with `{{` needs quotes"),
            ("a: {% if b %}c", "1:4 a value that begins with `{%` needs quotes"),
            ("a: [b, c\nd: e", "1:4 `[` is not closed"),
            ("a: {b: c\nd: e\n", "1:4 `{` is not closed"),
            ("a: [b}", "1:4 `[` is closed by `}`"),
            ("a: b]\n- c", "2:1 this line is indented differently from those that it belongs to"),
            ("a: \"b\nc: d", "1:4 a quote is not closed"),
            ("a: 'it''s\nc: d", "1:4 a quote is not closed"),
            ("a: \"b 'c'\nd: e", "1:4 a quote is not closed"),
            ("a: \"b\" c", "1:8 something stands after a closing quote"),
            ("a: \"\\d\"", "1:5 in double quotes a `\\` begins an escape, and this is none"),
            ("a: b: c", "1:4 a value that has `: ` in it needs quotes"),
            ("a: b\n  c: d", "2:3 this line belongs to the value before it, and cannot have a `:`"),
            ("a: b\nc\nd: e", "2:1 a key has a `:` after it"),
            (
                "a:\n  b: c\n d: e",
                "3:2 this line is indented differently from those that it belongs to",
            ),
            ("a:\n\t- b", "2:1 YAML is indented with blanks, not with tabs"),
            ("a: @b", "1:4 a value cannot begin with `@`"),
            ("a: `b`", "1:4 a value cannot begin with ```"),
            ("a: *b", "1:4 no value before this is marked `&b`"),
            ("a: * b", "1:4 a value cannot begin with `*`"),
            ("a: - b", "1:4 a list cannot begin here"),
            ("ä: \"ö", "1:4 a quote is not closed"),
        ];
        for (text, expected) in cases {
            let sources = Sources::default();
            let source = sources.add("x", text);
            let mut diagnostics = Diagnostics::default();
            parse(&sources, source, &mut diagnostics);
            let said: Vec<String> = diagnostics
                .iter()
                .map(|one| {
                    let place = sources.place(one.labels[0].span);
                    format!("{}:{} {}", place.line, place.column, one.message)
                })
                .collect();
            assert_eq!(said, [expected], "{text}");
        }
    }
}
