//! Host patterns: `web:&eu`, `web:!web3`, `~regex`, `web[0]`, globs.
//!
//! As in Ansible: parts are separated by commas or colons; plain parts add hosts, then `&` parts
//! keep only theirs, then `!` parts take theirs away. Without a plain part, all hosts are meant.

use std::path::Path;
use std::sync::LazyLock;

use fancy_regex::Regex;
use indexmap::IndexSet;

use super::range;
use super::tree::{ALL, Tree};
use crate::diagnostic::{Diagnostic, Diagnostics, Sources, Span, nearest};

/// Names of the controller itself.
pub(super) const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Which hosts are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    effect: Effect,
    /// Without `&` or `!`.
    text: String,
    span: Option<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Add,
    Keep,
    Remove,
}

impl Pattern {
    /// The pattern that a text stands for; `span` is where the text was written, if it was.
    pub fn parse(text: &str, span: Option<Span>) -> Self {
        let mut pattern = Self::default();
        pattern.add(text, span);
        pattern
    }

    /// Adds the parts of another text, as of a further item in a list of patterns.
    pub fn add(&mut self, text: &str, span: Option<Span>) {
        for (at, part) in split(text) {
            // In quotes, or folded over lines, places inside are not known exactly.
            let exact = |span: Span| (span.end - span.start) as usize == text.len();
            let span =
                span.map(|span| if exact(span) { span.part(at, at + part.len()) } else { span });
            self.add_part(part, span);
        }
    }

    /// The pattern of a `--limit`: a part `@FILE` stands for the lines of that file, which is
    /// looked for in `directory`.
    pub fn limit(
        text: &str,
        directory: &Path,
        sources: &Sources,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let argument = sources.add("--limit", text);
        let mut pattern = Self::default();
        for (at, part) in split(text) {
            let span = Span::new(argument, at, at + part.len());
            let Some(file) = part.strip_prefix('@') else {
                pattern.add_part(part, Some(span));
                continue;
            };
            let content = match std::fs::read_to_string(directory.join(file)) {
                Ok(content) => content,
                Err(error) => {
                    let message = format!("cannot read `{file}`: {error}");
                    diagnostics.push(Diagnostic::error("missing-file", message).at(span, ""));
                    continue;
                }
            };
            let source = sources.add(file, content.as_str());
            let mut start = 0;
            for line in content.split_inclusive('\n') {
                let name = line.trim();
                let at = start + (line.len() - line.trim_start().len());
                start += line.len();
                if !name.is_empty() {
                    let span = Span::new(source, at, at + name.len());
                    pattern.add_part(name, Some(span));
                }
            }
        }
        pattern
    }

    fn add_part(&mut self, part: &str, span: Option<Span>) {
        let (effect, text) = match part.as_bytes().first() {
            Some(b'!') => (Effect::Remove, &part[1..]),
            Some(b'&') => (Effect::Keep, &part[1..]),
            _ => (Effect::Add, part),
        };
        self.parts.push(Part { effect, text: text.to_owned(), span });
    }

    /// Whether it has no parts at all, and so means all hosts.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

/// The hosts that a pattern means, part by part, in the order of each group; a part that means none
/// is an error.
pub(super) fn select(
    tree: &Tree,
    pattern: &Pattern,
    diagnostics: &mut Diagnostics,
) -> IndexSet<usize> {
    let parts = |effect: Effect| pattern.parts.iter().filter(move |part| part.effect == effect);
    let mut selected = IndexSet::new();
    if parts(Effect::Add).next().is_none() {
        selected = tree.members(ALL);
    }
    for part in parts(Effect::Add) {
        // A name that is a host's means that host; after `&` and `!` a group of the name comes first.
        match tree.hosts.get_index_of(part.text.as_str()) {
            Some(host) => drop(selected.insert(host)),
            None => selected.extend(part_hosts(tree, part, diagnostics)),
        }
    }
    // All names of the implicit host mean the one machine.
    let implicit = selected.iter().copied().find(|host| tree.hosts[*host].implicit);
    selected.retain(|host| !tree.hosts[*host].implicit || Some(*host) == implicit);
    for part in parts(Effect::Keep) {
        let kept = part_hosts(tree, part, diagnostics);
        selected.retain(|host| is_among(tree, *host, &kept));
    }
    for part in parts(Effect::Remove) {
        let removed = part_hosts(tree, part, diagnostics);
        selected.retain(|host| !is_among(tree, *host, &removed));
    }
    selected
}

/// Whether a host is one of these, or is the implicit host as one of these is.
pub(super) fn is_among<'a>(
    tree: &Tree,
    host: usize,
    hosts: impl IntoIterator<Item = &'a usize>,
) -> bool {
    let implicit = tree.hosts[host].implicit;
    hosts.into_iter().any(|one| *one == host || (implicit && tree.hosts[*one].implicit))
}

fn part_hosts(tree: &Tree, part: &Part, diagnostics: &mut Diagnostics) -> Vec<usize> {
    match hosts_of(tree, &part.text) {
        Ok(hosts) => hosts,
        Err((message, label)) => {
            let diagnostic = Diagnostic::error("host-pattern", message);
            diagnostics.push(match part.span {
                Some(span) => diagnostic.at(span, label),
                None if label.is_empty() => diagnostic,
                None => diagnostic.help(label),
            });
            Vec::new()
        }
    }
}

/// The hosts of one part, or what is wrong with it and what was probably meant.
///
/// A host that a group and a glob both mean is there twice, and a subscript counts it twice.
fn hosts_of(tree: &Tree, text: &str) -> Result<Vec<usize>, (String, String)> {
    if let Some(expression) = text.strip_prefix('~') {
        let regex = Regex::new(&format!("^(?:{expression})")).map_err(|error| {
            let reason = error.to_string();
            let why = reason.trim().rsplit(": ").next().unwrap_or_default().to_owned();
            (format!("`{text}` is not a regular expression"), why)
        })?;
        return matching(tree, &regex, Names::GroupsAndHosts).ok_or_else(|| {
            (format!("the pattern `{text}` matches no host and no group"), String::new())
        });
    }
    let (name, subscript) = split_subscript(text);
    let has_wildcard = name.contains(['.', '?', '*', '[']);
    let names = if has_wildcard { Names::GroupsAndHosts } else { Names::GroupsElseHosts };
    let found = glob(name).and_then(|regex| matching(tree, &regex, names));
    let Some(found) = found.or_else(|| local_host(tree, name)) else {
        let names = || tree.groups.keys().chain(tree.hosts.keys()).map(|name| &**name);
        let label = nearest(name, names()).map(|near| format!("did you mean `{near}`?"));
        let message = format!("the pattern `{text}` matches no host and no group");
        return Err((message, label.unwrap_or_default()));
    };
    let Some((first, last)) = subscript else { return Ok(found) };
    let at = if first < 0 {
        found.len().checked_sub(first.unsigned_abs())
    } else {
        Some(first.unsigned_abs())
    };
    let chosen: Vec<usize> = match (at, last) {
        (None, _) => Vec::new(),
        (Some(at), Some(Some(last))) if last > 0 => {
            let length = last.saturating_add(1).saturating_sub(at);
            found.iter().skip(at).take(length).copied().collect()
        }
        (Some(at), Some(None)) => found.iter().skip(at).copied().collect(),
        (Some(at), _) => found.get(at).copied().into_iter().collect(),
    };
    if chosen.is_empty() {
        let label = format!("`{name}` has {} hosts, counted from 0", found.len());
        return Err((format!("the pattern `{text}` is outside of what there is"), label));
    }
    Ok(chosen)
}

/// Which names a part is compared with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    GroupsAndHosts,
    /// Hosts only if no group has the name.
    GroupsElseHosts,
}

/// The hosts of the groups and the hosts whose names match; none if no name does.
fn matching(tree: &Tree, regex: &Regex, names: Names) -> Option<Vec<usize>> {
    // What backtracks beyond all measure matches nothing.
    let is_match = |name: &str| regex.is_match(name).unwrap_or(false);
    let mut found = Vec::new();
    let mut any = false;
    for (group, name) in tree.groups.keys().enumerate() {
        if is_match(name) {
            any = true;
            found.extend(tree.members(group));
        }
    }
    if !any || names == Names::GroupsAndHosts {
        for (host, (name, declared)) in tree.hosts.iter().enumerate() {
            if !declared.implicit && is_match(name) {
                any = true;
                found.push(host);
            }
        }
    }
    any.then_some(found)
}

/// The controller, under any of its names: the host of that name, else the one that was declared.
fn local_host(tree: &Tree, name: &str) -> Option<Vec<usize>> {
    if !LOCAL_NAMES.contains(&name) {
        return None;
    }
    let declared = || tree.hosts.keys().position(|host| LOCAL_NAMES.contains(&host.as_ref()));
    tree.hosts.get_index_of(name).or_else(declared).map(|host| vec![host])
}

#[expect(clippy::expect_used, reason = "the pattern is a constant, and a test uses it")]
static SUBSCRIPT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(.+)\[(?:(-?[0-9]+)|([0-9]+)[:-]([0-9]*))\]$").expect("a constant pattern")
});

/// First place, and, for a range, its last one (or none for "to the end").
type Subscript = (isize, Option<Option<usize>>);

/// `web[0]`, `web[-1]`, `web[0:2]` (the end included) and `web[1:]`.
fn split_subscript(text: &str) -> (&str, Option<Subscript>) {
    subscript(text).map_or((text, None), |(name, subscript)| (name, Some(subscript)))
}

fn subscript(text: &str) -> Option<(&str, Subscript)> {
    let found = SUBSCRIPT.captures(text).ok()??;
    let name = found.get(1)?.as_str();
    if let Some(index) = found.get(2) {
        return Some((name, (index.as_str().parse().ok()?, None)));
    }
    let first = found.get(3)?.as_str().parse().ok()?;
    let last = found.get(4)?.as_str();
    let last = if last.is_empty() { None } else { Some(last.parse().ok()?) };
    Some((name, (first, Some(last))))
}

/// A shell glob as a regular expression: `*`, `?`, `[seq]`, `[!seq]`.
fn glob(text: &str) -> Option<Regex> {
    let mut expression = String::from("^(?s:");
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        rest = &rest[next.len_utf8()..];
        match next {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            '[' => {
                let negated = rest.strip_prefix('!');
                let inside = negated.unwrap_or(rest);
                // A `]` that comes first stands for itself.
                let from = inside.chars().next().map_or(0, char::len_utf8);
                let Some(end) = inside[from..].find(']').map(|end| end + from) else {
                    expression.push_str("\\[");
                    continue;
                };
                expression.push_str(if negated.is_some() { "[^" } else { "[" });
                for member in inside[..end].chars() {
                    if "\\[]^&~".contains(member) {
                        expression.push('\\');
                    }
                    expression.push(member);
                }
                expression.push(']');
                rest = &inside[end + 1..];
            }
            other => expression.push_str(&fancy_regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    expression.push_str(")$");
    Regex::new(&expression).ok()
}

/// The parts of a text and where each begins: split at commas; without any, an address is one
/// part, and all else is split at colons and white space outside of brackets.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    if text.contains(',') {
        let mut start = 0;
        for part in text.split(',') {
            let at = start + (part.len() - part.trim_start().len());
            parts.push((at, part.trim()));
            start += part.len() + 1;
        }
    } else if range::address(text).is_some() {
        parts.push((0, text));
    } else {
        let mut start = 0;
        let mut inside = false;
        for (at, next) in text.char_indices() {
            match next {
                ']' if inside => inside = false,
                _ if inside => {}
                '[' if text[at..].contains(']') => inside = true,
                ':' | '[' | ']' => {
                    parts.push((start, &text[start..at]));
                    start = at + 1;
                }
                _ if next.is_whitespace() => {
                    parts.push((start, &text[start..at]));
                    start = at + next.len_utf8();
                }
                _ => {}
            }
        }
        parts.push((start, &text[start..]));
    }
    parts.retain(|(_, part)| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// all: ungrouped (lone), web (web1..web3), eu (web1, db1), db (db1, db2.example.com)
    fn tree() -> Tree {
        let mut tree = Tree::new();
        let mut diagnostics = Diagnostics::default();
        let groups = [
            ("ungrouped", "lone fe80::1"),
            ("web", "web1 web2 web3"),
            ("eu", "db1 web1"),
            ("db", "db1 db2.example.com"),
            ("idle", ""),
        ];
        for (group, hosts) in groups {
            let group = tree.add_group(group, None);
            for host in hosts.split_whitespace() {
                tree.add_host(host, Some(group), None);
            }
        }
        tree.settle(&mut diagnostics);
        tree.add_implicit_hosts();
        assert!(diagnostics.is_empty());
        tree
    }

    fn names(tree: &Tree, text: &str) -> (String, String) {
        let mut diagnostics = Diagnostics::default();
        let found = select(tree, &Pattern::parse(text, None), &mut diagnostics);
        let names: Vec<String> =
            found.iter().map(|host| tree.name_of_host(*host).to_string()).collect();
        let said: Vec<String> = diagnostics
            .iter()
            .map(|one| [vec![one.message.clone()], one.help.clone()].concat().join("; "))
            .collect();
        (names.join(" "), said.join("\n"))
    }

    #[test]
    fn patterns_select_as_ansible_does() {
        let cases = [
            ("all", "lone fe80::1 web1 web2 web3 db1 db2.example.com"),
            ("*", "lone fe80::1 web1 web2 web3 db1 db2.example.com"),
            ("web", "web1 web2 web3"),
            ("web,db", "web1 web2 web3 db1 db2.example.com"),
            ("web, db1 ,", "web1 web2 web3 db1"),
            ("web:&eu", "web1"),
            ("&eu:web", "web1"),
            ("web:!web3", "web1 web2"),
            ("!web:!db", "lone fe80::1"),
            ("web:!web1:&eu", ""),
            ("web[0]", "web1"),
            ("web[-1]", "web3"),
            ("web[0:1]", "web1 web2"),
            ("web[1:]", "web2 web3"),
            ("web[1-2]", "web2 web3"),
            ("web[2]:db[0]", "web3 db1"),
            ("web?", "web1 web2 web3"),
            ("web[!1]", "web2 web3"),
            ("d*", "db1 db2.example.com"),
            ("*.example.com", "db2.example.com"),
            ("~web[12]", "web1 web2"),
            ("~(web|db)1", "web1 db1"),
            ("~(?!web|eu|all|ungrouped|lone|fe80)", "db1 db2.example.com"),
            ("db,web1", "db1 db2.example.com web1"),
            ("eu,web", "db1 web1 web2 web3"),
            ("web[1:0]", "web2"),
            ("localhost", "localhost"),
            ("::1,localhost,127.0.0.1", "::1"),
            ("127.0.0.1:&localhost", "127.0.0.1"),
            ("all,localhost,!localhost", "lone fe80::1 web1 web2 web3 db1 db2.example.com"),
            ("fe80::1", "fe80::1"),
            ("ungrouped", "lone fe80::1"),
            ("idle", ""),
            ("db2.example.com", "db2.example.com"),
        ];
        let tree = tree();
        for (text, expected) in cases {
            assert_eq!(names(&tree, text), (expected.to_owned(), String::new()), "{text}");
        }
    }

    #[test]
    fn a_part_that_means_no_host_is_an_error() {
        let cases = [
            ("wbe", "the pattern `wbe` matches no host and no group; did you mean `web`?"),
            ("web:!wbe3", "the pattern `wbe3` matches no host and no group; did you mean `web3`?"),
            ("nothing*", "the pattern `nothing*` matches no host and no group"),
            (
                "~x(",
                "`~x(` is not a regular expression; Opening parenthesis without closing parenthesis",
            ),
            (
                "web[3]",
                "the pattern `web[3]` is outside of what there is; `web` has 3 hosts, counted from 0",
            ),
            (
                "web[5:9]",
                "the pattern `web[5:9]` is outside of what there is; `web` has 3 hosts, counted from 0",
            ),
        ];
        let tree = tree();
        for (text, expected) in cases {
            assert_eq!(names(&tree, text).1, expected, "{text}");
        }
    }

    #[test]
    fn parts_know_their_places() {
        let cases = [
            ("web:&eu", vec![(0, "web"), (4, "&eu")]),
            ("a , b", vec![(0, "a"), (4, "b")]),
            ("web[0:2]:db", vec![(0, "web[0:2]"), (9, "db")]),
            ("web[1:3]", vec![(0, "web[1:3]")]),
            ("web1:22", vec![(0, "web1:22")]),
            ("::1", vec![(0, "::1")]),
            ("web db", vec![(0, "web"), (4, "db")]),
        ];
        for (text, expected) in cases {
            assert_eq!(split(text), expected, "{text}");
        }
    }
}
