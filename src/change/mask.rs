use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// What stands in the place of a secret.
pub const SECRET: &str = "[secret]";
/// The same where it is another one than before.
pub(super) const CHANGED_SECRET: &str = "[secret, changed]";

/// Shorter texts are not looked for: they stand everywhere by chance. In characters.
const SHORTEST: usize = 4;

/// What of contents and messages is secret, so that it is hidden wherever it is shown.
///
/// It holds the secrets themselves, so it is never shown and goes where contents go.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mask {
    /// Whatever stands in one of these lines, in bytes.
    lines: BTreeMap<String, Vec<(usize, usize)>>,
    /// These, wherever they stand.
    texts: BTreeSet<String>,
    /// There is a secret too short to be found again in what is made of it.
    short: bool,
}

impl fmt::Debug for Mask {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.is_empty() { "Mask(nothing)" } else { "Mask(…)" })
    }
}

impl Mask {
    /// Whether nothing is secret.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.texts.is_empty() && !self.short
    }

    /// Whether there is a secret that cannot be found in contents that hosts make of it.
    pub fn has_short(&self) -> bool {
        self.short
    }

    /// Hides a text wherever it stands; also as files of environment variables write it.
    pub fn add_text(&mut self, text: &str) {
        for line in text.lines().map(str::trim).filter(|line| line.chars().count() >= SHORTEST) {
            self.texts.insert(line.to_owned());
            if line.contains(['"', '\\', '`', '$']) {
                let escape = |one: char| match one {
                    '"' | '\\' | '`' | '$' => format!("\\{one}"),
                    one => one.to_string(),
                };
                self.texts.insert(line.chars().map(escape).collect());
            }
        }
    }

    /// Hides a text that a host makes something of: where it is too short to be found again, nothing
    /// of that is shown.
    pub fn add_ingredient(&mut self, text: &str) {
        self.add_text(text);
        let short = |line: &str| (1..SHORTEST).contains(&line.trim().chars().count());
        self.short |= text.lines().any(short);
    }

    /// Hides parts of a content, given in bytes, in the lines in which they stand.
    pub fn add_parts(&mut self, content: &str, parts: &[Range<usize>]) {
        let mut start = 0;
        for line in content.split_inclusive('\n') {
            let text = line.strip_suffix('\n').unwrap_or(line);
            let mut found: Vec<(usize, usize)> = parts
                .iter()
                .map(|part| (part.start.max(start), part.end.min(start + text.len())))
                .filter(|(from, to)| from < to)
                .map(|(from, to)| (from - start, to - start))
                .collect();
            if !found.is_empty() {
                let known = self.lines.entry(text.to_owned()).or_default();
                known.append(&mut found);
                known.sort_unstable();
                known.dedup();
            }
            start += line.len();
        }
    }

    /// Takes in another one.
    pub fn add(&mut self, other: &Self) {
        for (line, parts) in &other.lines {
            let known = self.lines.entry(line.clone()).or_default();
            known.extend(parts);
            known.sort_unstable();
            known.dedup();
        }
        self.texts.extend(other.texts.iter().cloned());
        self.short |= other.short;
    }

    /// A message without secrets.
    pub fn hide<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut parts = Vec::new();
        self.find(text, &mut parts);
        hidden(text, &joined(parts), SECRET)
    }

    fn find(&self, text: &str, parts: &mut Vec<Range<usize>>) {
        for secret in &self.texts {
            parts.extend(text.match_indices(secret.as_str()).map(|(at, _)| at..at + secret.len()));
        }
    }

    /// The secret parts of a line of a content; its end does not count.
    pub(super) fn parts(&self, line: &str) -> Vec<Range<usize>> {
        if self.is_empty() {
            return Vec::new();
        }
        let text = line.strip_suffix('\n').unwrap_or(line);
        let known = self.lines.get(text).into_iter().flatten();
        let mut parts: Vec<Range<usize>> = known.map(|(from, to)| *from..*to).collect();
        self.find(text, &mut parts);
        joined(parts)
    }
}

/// Parts in their order, without overlaps.
fn joined(mut parts: Vec<Range<usize>>) -> Vec<Range<usize>> {
    parts.sort_by_key(|part| part.start);
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(parts.len());
    for part in parts {
        match joined.last_mut() {
            Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
            _ => joined.push(part),
        }
    }
    joined
}

/// A text with something else in the place of its parts.
pub(super) fn hidden<'t>(text: &'t str, parts: &[Range<usize>], instead: &str) -> Cow<'t, str> {
    if parts.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut from = 0;
    for part in parts {
        shown.push_str(text.get(from..part.start).unwrap_or_default());
        shown.push_str(instead);
        from = part.end;
    }
    shown.push_str(text.get(from..).unwrap_or_default());
    Cow::Owned(shown)
}

/// Whether a line is another one but for what is secret in that.
pub(super) fn fits(line: &str, other: &str, parts: &[Range<usize>]) -> bool {
    let (line, other) = (line.trim_end_matches('\n'), other.trim_end_matches('\n'));
    let mut rest = line;
    let mut from = 0;
    for (number, part) in parts.iter().enumerate() {
        let public = other.get(from..part.start).unwrap_or_default();
        let at =
            if number == 0 { rest.starts_with(public).then_some(0) } else { rest.find(public) };
        let Some(at) = at else { return false };
        rest = &rest[at + public.len()..];
        from = part.end;
    }
    rest.ends_with(other.get(from..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        let mut mask = Mask::default();
        mask.add_text("hunter2\n");
        mask.add_text("-----BEGIN-----\nabc\nABCDEF\n");
        mask.add_text("abc");
        let said = mask.hide("login hunter2 failed: hunter2, ABCDEF abc");
        assert_eq!(said, "login [secret] failed: [secret], [secret] abc");
        mask.add_text("pa$$word");
        assert_eq!(mask.hide(r#"A="pa\$\$word""#), r#"A="[secret]""#);
        assert!(!format!("{mask:?}").contains("hunter2"));
        assert!(!mask.has_short());
        mask.add_ingredient("123");
        assert!(mask.has_short());
    }

    #[test]
    fn overlapping_secrets_are_one() {
        let mut mask = Mask::default();
        ["hunter", "hunter2", "er2-long"].iter().for_each(|text| mask.add_text(text));
        assert_eq!(mask.hide("xhunter2-longx"), "x[secret]x");
    }

    #[test]
    fn parts_of_a_content_are_found_by_their_lines() {
        let content = "user=shop\npin=12 # of shop\nkey=a\nb\nend\n";
        let mut mask = Mask::default();
        let pin = content.find("12").unwrap();
        let key = content.find("a\nb").unwrap();
        mask.add_parts(content, &[pin..pin + 2, key..key + 3]);
        let shown = |line: &str| hidden(line, &mask.parts(line), SECRET).into_owned();
        assert_eq!(shown("pin=12 # of shop\n"), "pin=[secret] # of shop\n");
        assert_eq!(shown("key=a\n"), "key=[secret]\n");
        assert_eq!(shown("b"), "[secret]");
        assert_eq!(shown("user=shop\n"), "user=shop\n");
        // Too short to be looked for elsewhere.
        assert_eq!(shown("max=12\n"), "max=12\n");
    }

    #[test]
    fn a_line_fits_another_but_for_its_secret() {
        let other = "a=X;b=Y;";
        let parts = [2..3, 6..7];
        for (line, expected) in [
            ("a=old;b=older;\n", true),
            ("a=;b=;", true),
            ("a=old;b=older", false),
            ("c=old;b=older;", false),
            ("a=old;", false),
        ] {
            assert_eq!(fits(line, other, &parts), expected, "{line}");
        }
    }
}
