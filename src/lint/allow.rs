//! Comments that allow something: `# converge: allow RULE, RULE`, and why if one likes.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{UnknownRule, is_of_rule, rule};
use crate::diagnostic::{Diagnostic, Diagnostics, SourceId, Sources, Span};
use crate::lang::Program;
use crate::lang::yaml::{self, Kind, Node};

/// One rule that one comment allows.
struct Allow {
    name: String,
    /// Where the comment names it.
    span: Span,
    /// Where what it allows begins: bytes of the source.
    place: Range<usize>,
    used: bool,
}

/// What comments allow.
pub(super) struct Allows(Vec<Allow>);

impl Allows {
    /// Reads the comments of all state files of a program.
    pub(super) fn read(sources: &Sources, program: &Program) -> Self {
        let mut states: BTreeSet<Span> = BTreeSet::new();
        let mut files: BTreeSet<SourceId> = BTreeSet::new();
        for play in &program.plays {
            files.insert(play.span.source);
            states.extend(play.states().into_iter().map(|state| state.span));
            let values =
                play.definitions().into_iter().flat_map(|(_, layer)| layer.variables.values());
            files.extend(values.map(|node| node.span.source));
        }
        files.extend(states.iter().map(|span| span.source));
        let mut allows = Vec::new();
        for file in files {
            let own = states.iter().filter(|span| span.source == file);
            let own: Vec<Range<usize>> =
                own.map(|span| span.start as usize..span.end as usize).collect();
            in_file(sources, file, &own, &mut allows);
        }
        Self(allows)
    }

    /// Whether a comment allows it.
    pub(super) fn allow(&mut self, diagnostic: &Diagnostic) -> bool {
        let Some(label) = diagnostic.labels.first().filter(|_| is_of_rule(diagnostic)) else {
            return false;
        };
        let at = label.span.start as usize;
        let mut allowed = false;
        for allow in &mut self.0 {
            let same = allow.span.source == label.span.source && allow.name == diagnostic.code;
            if same && allow.place.contains(&at) {
                allow.used = true;
                allowed = true;
            }
        }
        allowed
    }

    /// What is wrong with the comments themselves. That one allows nothing can be said only if all
    /// of the file was looked at (`complete`).
    pub(super) fn complaints(&self, complete: bool) -> Vec<Diagnostic> {
        let complaints = self.0.iter().filter_map(|allow| {
            if rule(&allow.name).is_none() {
                let unknown = UnknownRule::new(&allow.name);
                return Some(
                    Diagnostic::warning("unknown-rule", unknown.to_string()).at(allow.span, ""),
                );
            }
            let message = format!("nothing here has to be allowed by `{}`", allow.name);
            (complete && !allow.used).then(|| {
                Diagnostic::warning("unused-allow", message)
                    .at(allow.span, "")
                    .help("take the comment away")
            })
        });
        complaints.collect()
    }
}

fn in_file(sources: &Sources, file: SourceId, states: &[Range<usize>], allows: &mut Vec<Allow>) {
    let text = sources.text(file);
    if !text.contains("converge:") {
        return;
    }
    let mut scalars = Vec::new();
    for node in yaml::parse(sources, file, &mut Diagnostics::default()) {
        scalars_of(&node, file, &mut scalars);
    }
    scalars.sort_by_key(|scalar: &Range<usize>| scalar.start);
    let within = |at: usize| {
        let before = scalars.partition_point(|scalar| scalar.start <= at);
        before > 0 && scalars[before - 1].contains(&at)
    };
    let lines = lines(&text);
    let below = below(&text, &lines, states);
    let mut code_seen = false;
    for (number, line) in lines.iter().enumerate() {
        let raw = &text[line.clone()];
        let comment = comment(raw).filter(|at| !within(line.start + at));
        let code = comment.map_or(raw, |at| &raw[..at]).trim();
        let alone = code.is_empty() || code.starts_with('#');
        if let Some(at) = comment
            && let Some(names) = named(&raw[at..])
        {
            let place = if !alone {
                line.clone()
            } else if !code_seen {
                0..text.len() + 1
            } else {
                below[number].clone()
            };
            for name in names {
                let start = line.start + at + name.start;
                let span = Span::new(file, start, start + name.len());
                let place = place.clone();
                let name = raw[at..][name].to_owned();
                allows.push(Allow { name, span, place, used: false });
            }
        }
        // The mark of a document's beginning is not yet in it.
        code_seen |= !alone && code != "---";
    }
}

/// What a comment on each line would stand above: the next line that says something, and all of the
/// state that begins there. States are in the order of the source.
fn below(text: &str, lines: &[Range<usize>], states: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut next = 0..0;
    let mut below = vec![0..0; lines.len()];
    for (number, line) in lines.iter().enumerate().rev() {
        below[number] = next.clone();
        let says = text[line.clone()].trim();
        if !says.is_empty() && !says.starts_with('#') {
            let first = states.partition_point(|state| state.start < line.start);
            let state = states.get(first).filter(|state| line.contains(&state.start));
            next = line.start..state.map_or(line.end, |state| state.end.max(line.end));
        }
    }
    below
}

fn lines(text: &str) -> Vec<Range<usize>> {
    let mut start = 0;
    let lines = text.split_inclusive('\n').map(|line| {
        let range = start..start + line.len();
        start = range.end;
        range
    });
    lines.collect()
}

fn scalars_of(node: &Node, file: SourceId, scalars: &mut Vec<Range<usize>>) {
    match &node.kind {
        Kind::Scalar(_) if node.span.source == file => {
            scalars.push(node.span.start as usize..node.span.end as usize);
        }
        Kind::Scalar(_) => {}
        Kind::Sequence(items) => items.iter().for_each(|item| scalars_of(item, file, scalars)),
        Kind::Mapping(entries) => {
            for (key, value) in entries.iter() {
                scalars_of(key, file, scalars);
                scalars_of(value, file, scalars);
            }
        }
    }
}

/// Where a comment that says something to converge begins in a line.
fn comment(line: &str) -> Option<usize> {
    line.match_indices('#').map(|(at, _)| at).find(|at| {
        let before = line[..*at].chars().next_back();
        before.is_none_or(char::is_whitespace)
            && line[at + 1..].trim_start().starts_with("converge:")
    })
}

/// The names in `# converge: allow one, two because …`; none if it says something else.
fn named(comment: &str) -> Option<Vec<Range<usize>>> {
    let after = comment.find("converge:")? + "converge:".len();
    let word = after + (comment[after..].len() - comment[after..].trim_start().len());
    let rest = comment[word..].strip_prefix("allow")?;
    let mut names = Vec::new();
    let mut at = comment.len() - rest.len();
    loop {
        at += comment[at..].len() - comment[at..].trim_start().len();
        let letters =
            |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        let end = at + comment[at..].find(|letter| !letters(letter)).unwrap_or(comment.len() - at);
        if end == at {
            break;
        }
        names.push(at..end);
        let next = comment[end..].trim_start();
        match next.strip_prefix(',') {
            Some(more) => at = comment.len() - more.len(),
            None => break,
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_separated_by_commas_and_a_reason_may_follow() {
        let cases: [(&str, Option<Vec<&str>>); 5] = [
            ("# converge: allow one", Some(vec!["one"])),
            ("# converge:allow one-two, three (since it is so)", Some(vec!["one-two", "three"])),
            ("# converge: allow one because, well", Some(vec!["one"])),
            ("# converge: allow", Some(vec![])),
            ("# converge: refuse one", None),
        ];
        for (text, expected) in cases {
            let found = named(text)
                .map(|names| names.into_iter().map(|name| &text[name]).collect::<Vec<_>>());
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn comments_begin_after_a_blank() {
        assert_eq!(comment("a: b # converge: allow x\n"), Some(5));
        assert_eq!(comment("a: b# converge: allow x\n"), None);
        assert_eq!(comment("# see converge: allow x\n"), None);
        assert_eq!(comment("# also # converge: allow x\n"), Some(7));
    }
}
