//! INI inventories: `[group]`, `[group:vars]` and `[group:children]`.

use std::ops::Range;

use indexmap::IndexMap;

use super::literal;
use super::tree::{Tree, UNGROUPED};
use crate::diagnostic::{Diagnostic, Diagnostics, SourceId, Span, nearest};
use crate::lang::yaml::Node;

/// What a section may hold.
const SECTION_KINDS: [&str; 3] = ["hosts", "vars", "children"];

/// Reads a file into the tree; a line that is wrong is said and left out.
pub(super) fn read(text: &str, source: SourceId, tree: &mut Tree, diagnostics: &mut Diagnostics) {
    let mut reader =
        Reader { tree, diagnostics, section: Section::Hosts(UNGROUPED), pending: IndexMap::new() };
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        let at = start + (line.len() - line.trim_start().len());
        start += line.len();
        if !trimmed.is_empty() && !trimmed.starts_with(['#', ';']) {
            reader.line(trimmed, Span::new(source, at, at + trimmed.len()));
        }
    }
    reader.finish();
}

struct Reader<'a> {
    tree: &'a mut Tree,
    diagnostics: &'a mut Diagnostics,
    section: Section,
    /// Groups that are spoken of, and that no section of this file has declared so far.
    pending: IndexMap<String, Pending>,
}

#[derive(Clone, Copy)]
enum Section {
    Hosts(usize),
    Variables(usize),
    Children(usize),
    /// Its header was wrong.
    Broken,
}

enum Pending {
    /// Has variables.
    Variables(Span),
    /// Is named as a child of these.
    Child { parents: Vec<(usize, Span)> },
}

impl Reader<'_> {
    fn error(&mut self, message: impl Into<String>, span: Span, label: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error("inventory-ini", message).at(span, label));
    }

    fn line(&mut self, line: &str, span: Span) {
        if let Some((name, kind, end)) = header(line) {
            self.header(name, kind, span.part(0, end));
            return;
        }
        if line.starts_with('[') && line.ends_with(']') {
            self.section = Section::Broken;
            let label = "a section is written `[group]`, `[group:vars]` or `[group:children]`";
            self.error(format!("`{line}` is not a section"), span, label);
            return;
        }
        match self.section {
            Section::Hosts(group) => self.host(line, span, group),
            Section::Variables(group) => self.variable(line, span, group),
            Section::Children(group) => self.child(line, span, group),
            Section::Broken => {}
        }
    }

    fn header(&mut self, name: &str, kind: Option<&str>, span: Span) {
        let kind = kind.unwrap_or("hosts");
        if !SECTION_KINDS.contains(&kind) {
            self.section = Section::Broken;
            let label = match nearest(kind, SECTION_KINDS) {
                Some(near) => format!("did you mean `[{name}:{near}]`?"),
                None => "there is `[group]`, `[group:vars]` and `[group:children]`".to_owned(),
            };
            self.error(format!("unknown kind of section `{kind}`"), span, label);
            return;
        }
        let is_new = !self.tree.groups.contains_key(name);
        let group = self.tree.add_group(name, Some(span));
        if kind == "vars" {
            self.section = Section::Variables(group);
            if is_new && !self.pending.contains_key(name) {
                self.pending.insert(name.to_owned(), Pending::Variables(span));
            }
            return;
        }
        self.section =
            if kind == "hosts" { Section::Hosts(group) } else { Section::Children(group) };
        match self.pending.get(name) {
            Some(Pending::Child { .. }) => self.declare(name, group),
            Some(Pending::Variables(_)) => {
                self.pending.shift_remove(name);
            }
            None => {}
        }
    }

    /// Hangs a group below those that named it as a child, and those in turn.
    fn declare(&mut self, name: &str, group: usize) {
        let Some(Pending::Child { parents }) = self.pending.shift_remove(name) else { return };
        for (parent, span) in parents {
            self.tree.add_child(parent, group, Some(span), self.diagnostics);
            let name = self.tree.name_of_group(parent);
            if let Some(Pending::Child { .. }) = self.pending.get(name.as_ref()) {
                self.declare(&name, parent);
            }
        }
    }

    fn host(&mut self, line: &str, span: Span, group: usize) {
        let words = match split(line) {
            Ok(words) => words,
            Err(at) => {
                self.error("a quote or a backslash without its end", span.part(at, line.len()), "");
                return;
            }
        };
        let Some((first, rest)) = words.split_first() else { return };
        let place = span.part(first.at.start, first.at.end);
        let name = first.text.as_str();
        if name == "---" {
            let label = "this looks like YAML; such files end in `.yml`";
            self.error("`---` is not a host", place, label);
            return;
        }
        if name.ends_with(':') {
            let label =
                "a port has to follow the colon; in YAML files, which end in `.yml`, groups do";
            self.error(format!("`{name}` is not a host"), place, label);
            return;
        }
        let hosts = self.tree.add_hosts(name, place, group, self.diagnostics);
        for word in rest {
            let place = span.part(word.at.start, word.at.end);
            let Some((key, value)) = word.text.split_once('=') else {
                let label = "expected `name=value`";
                self.error(format!("`{}` is not a variable", word.text), place, label);
                continue;
            };
            let equals = line[word.at.clone()].find('=').unwrap_or(0);
            let length = word.at.len();
            let key = Node::text(place.part(0, equals), key);
            let value = literal::value(value, place.part(equals + 1, length));
            for host in &hosts {
                self.tree.set_on_host(host, &key, &value, self.diagnostics);
            }
        }
    }

    fn variable(&mut self, line: &str, span: Span, group: usize) {
        let Some((key, value)) = line.split_once('=') else {
            self.error(format!("`{line}` is not a variable"), span, "expected `name=value`");
            return;
        };
        let start = line.len() - value.trim_start().len();
        let key_node = Node::text(span.part(0, key.trim_end().len()), key.trim());
        let value = literal::value(value.trim(), span.part(start, line.len()));
        self.tree.set_on_group(group, &key_node, &value, self.diagnostics);
    }

    fn child(&mut self, line: &str, span: Span, group: usize) {
        let name = line.split('#').next().unwrap_or_default().trim_end();
        let wrong = |found: char| found.is_whitespace() || found == ':' || found == ']';
        let span = span.part(0, name.len());
        if name.is_empty() || name.contains(wrong) {
            self.error(format!("`{line}` is not the name of a group"), span, "");
            return;
        }
        if let Some(child) = self.tree.groups.get_index_of(name) {
            self.tree.add_child(group, child, Some(span), self.diagnostics);
            return;
        }
        match self.pending.get_mut(name) {
            Some(Pending::Child { parents }) => parents.push((group, span)),
            _ => {
                let parents = vec![(group, span)];
                self.pending.insert(name.to_owned(), Pending::Child { parents });
            }
        }
    }

    /// Says which groups were never declared.
    fn finish(self) {
        let Self { tree, diagnostics, pending: all, .. } = self;
        for (name, pending) in &all {
            let known = tree.groups.keys().map(|known| &**known);
            let near = nearest(name, known.filter(|known: &&str| !all.contains_key(*known)));
            let label = near.map_or_else(
                || format!("no section `[{name}]` is there"),
                |near| format!("did you mean `{near}`?"),
            );
            let diagnostic = match pending {
                Pending::Variables(span) => {
                    let message = format!("variables for the group `{name}`, which is not defined");
                    Diagnostic::error("inventory-ini", message).at(*span, label)
                }
                Pending::Child { parents } => {
                    let message = format!("the child group `{name}` is not defined");
                    let mut diagnostic = Diagnostic::error("inventory-ini", message);
                    for (index, (_, span)) in parents.iter().enumerate() {
                        let text = if index == 0 { label.as_str() } else { "" };
                        diagnostic = diagnostic.at(*span, text);
                    }
                    diagnostic
                }
            };
            diagnostics.push(diagnostic);
        }
    }
}

/// Name, kind and end of a section's header, if the line is one.
fn header(line: &str) -> Option<(&str, Option<&str>, usize)> {
    let (inside, rest) = line.strip_prefix('[')?.split_once(']')?;
    let rest = rest.trim_start();
    if !rest.is_empty() && !rest.starts_with('#') {
        return None;
    }
    let (name, kind) = match inside.split_once(':') {
        Some((name, kind)) => (name, Some(kind)),
        None => (inside, None),
    };
    let is_word = |text: &str| {
        !text.is_empty() && text.chars().all(|next| next.is_alphanumeric() || next == '_')
    };
    let fits = !name.is_empty() && !name.contains(char::is_whitespace) && kind.is_none_or(is_word);
    fits.then_some((name, kind, inside.len() + 2))
}

/// A word of a line, without its quotes.
#[derive(Debug, PartialEq, Eq)]
struct Word {
    text: String,
    /// Where it stands in the line, quotes included.
    at: Range<usize>,
}

/// The words of a line as a POSIX shell splits them, up to a `#`; the error is where a quote opens
/// that is not closed.
fn split(line: &str) -> Result<Vec<Word>, usize> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut characters = line.char_indices();
    while let Some((at, next)) = characters.next() {
        match next {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '#' => break,
            _ => {
                let word = word.get_or_insert_with(|| Word { text: String::new(), at: at..at });
                match next {
                    '\\' => {
                        let (_, escaped) = characters.next().ok_or(at)?;
                        word.text.push(escaped);
                    }
                    '\'' | '"' => loop {
                        let (_, inner) = characters.next().ok_or(at)?;
                        if inner == next {
                            break;
                        }
                        if inner == '\\' && next == '"' {
                            let (_, escaped) = characters.next().ok_or(at)?;
                            if escaped != '\\' && escaped != '"' {
                                word.text.push('\\');
                            }
                            word.text.push(escaped);
                        } else {
                            word.text.push(inner);
                        }
                    },
                    _ => word.text.push(next),
                }
                word.at.end = characters.offset();
            }
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_a_shell_splits_them() {
        let cases: [(&str, &[&str]); 7] = [
            ("web1 a=1  b=2", &["web1", "a=1", "b=2"]),
            ("web1 a='x y' b=\"z w\"", &["web1", "a=x y", "b=z w"]),
            ("web1 a='\"5\"'", &["web1", "a=\"5\""]),
            ("web1 a=\"q\\\"r\\n\"", &["web1", "a=q\"r\\n"]),
            ("web1 a=x\\ y", &["web1", "a=x y"]),
            ("web1 a='' # rest", &["web1", "a="]),
            ("web1#rest a=1", &["web1"]),
        ];
        for (line, expected) in cases {
            let words = split(line).unwrap();
            let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
            assert_eq!(texts, expected, "{line}");
        }
        assert_eq!(split("web1 a='x"), Err(7));
        assert_eq!(split("w a='x y'").unwrap()[1].at, 2..9);
    }

    #[test]
    fn headers_are_told_from_hosts() {
        assert_eq!(header("[web]"), Some(("web", None, 5)));
        assert_eq!(header("[web:vars] # those"), Some(("web", Some("vars"), 10)));
        for line in ["[fe80::1]:22", "[my web]", "[]", "[a:b:c]", "web[1:2]"] {
            assert_eq!(header(line), None, "{line}");
        }
    }
}
