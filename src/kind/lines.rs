//! A text as lines with their endings, for the kinds that edit a part of a file.

use regex::bytes::Regex;

use super::{Ownership, PlanError, Planning, Presence};
use crate::world::{Entry, RemotePath};

/// A text as lines. Bytes that are not UTF-8 pass through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lines {
    lines: Vec<Line>,
    /// What new lines end with: as the first line of the text does.
    ending: &'static str,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    text: Vec<u8>,
    /// `\n`, `\r\n`, or nothing at the end of a text that lacks it.
    ending: &'static str,
}

/// Where new lines go.
#[derive(Clone, Debug)]
pub(super) enum Anchor {
    /// Before all others.
    Beginning,
    /// After all others.
    End,
    /// After the last line that matches; at the end if none does.
    After(Regex),
    /// Before the last line that matches; at the end if none does.
    Before(Regex),
}

impl Anchor {
    /// Reads `insert_after` and `insert_before`: `BOF`, `EOF` or a regular expression.
    pub(super) fn new(after: Option<&str>, before: Option<&str>) -> Result<Self, PlanError> {
        Ok(match (after, before) {
            (None | Some("EOF"), None) | (None, Some("EOF")) => Anchor::End,
            (Some("BOF"), None) | (None, Some("BOF")) => Anchor::Beginning,
            (Some(pattern), _) => Anchor::After(expression("insert_after", pattern)?),
            (None, Some(pattern)) => Anchor::Before(expression("insert_before", pattern)?),
        })
    }
}

/// Reads a regular expression; `argument` is named in the error.
pub(super) fn expression(argument: &str, pattern: &str) -> Result<Regex, PlanError> {
    Regex::new(pattern).map_err(|error| {
        let error = error.to_string();
        // The lines before show the expression once more.
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        PlanError::new(format!("`{argument}` is not a regular expression: {reason}"))
            .help("look-around and backreferences are not supported")
    })
}

impl Lines {
    /// Splits a text.
    pub(super) fn of(text: &[u8]) -> Self {
        let lines: Vec<Line> = text
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| {
                let (text, ending) = match line {
                    [text @ .., b'\r', b'\n'] => (text, "\r\n"),
                    [text @ .., b'\n'] => (text, "\n"),
                    text => (text, ""),
                };
                Line { text: text.to_vec(), ending }
            })
            .collect();
        let ending = match lines.first() {
            Some(Line { ending: "\r\n", .. }) => "\r\n",
            _ => "\n",
        };
        Self { lines, ending }
    }

    /// The text again.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in &self.lines {
            bytes.extend_from_slice(&line.text);
            bytes.extend_from_slice(line.ending.as_bytes());
        }
        bytes
    }

    /// Number of lines.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The last line for which `holds`, given the line without its ending.
    pub(super) fn last(&self, holds: impl Fn(&[u8]) -> bool) -> Option<usize> {
        self.lines.iter().rposition(|line| holds(&line.text))
    }

    /// Where the anchor puts new lines.
    pub(super) fn place(&self, anchor: &Anchor) -> usize {
        match anchor {
            Anchor::Beginning => 0,
            Anchor::End => self.len(),
            Anchor::After(pattern) => {
                self.last(|line| pattern.is_match(line)).map_or(self.len(), |at| at + 1)
            }
            Anchor::Before(pattern) => {
                self.last(|line| pattern.is_match(line)).unwrap_or(self.len())
            }
        }
    }

    /// Puts lines in the place of a range; a line before them that lacks its ending gets it.
    pub(super) fn splice<'t>(
        &mut self,
        range: std::ops::Range<usize>,
        texts: impl IntoIterator<Item = &'t [u8]>,
    ) {
        let ending = self.ending;
        let new: Vec<Line> =
            texts.into_iter().map(|text| Line { text: text.to_vec(), ending }).collect();
        if !new.is_empty()
            && let Some(previous) = range.start.checked_sub(1)
            && let Some(line) = self.lines.get_mut(previous)
            && line.ending.is_empty()
        {
            line.ending = ending;
        }
        self.lines.splice(range, new);
    }

    /// Replaces one line; it keeps its ending, and gets one if it lacks it.
    pub(super) fn replace(&mut self, at: usize, text: &[u8]) {
        let ending = self.ending;
        if let Some(line) = self.lines.get_mut(at) {
            line.text = text.to_vec();
            if line.ending.is_empty() {
                line.ending = ending;
            }
        }
    }

    /// Removes all lines for which `holds`, given the line without its ending.
    pub(super) fn remove(&mut self, holds: impl Fn(&[u8]) -> bool) {
        self.lines.retain(|line| !holds(&line.text));
    }

    /// The lines without their endings.
    pub(super) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().map(|line| line.text.as_slice())
    }
}

/// Plans that the file at a path has its content edited; a missing one counts as empty, and is
/// made unless something is only to go from it.
pub(super) fn edit_file(
    planning: &mut Planning<'_>,
    path: &RemotePath,
    state: Presence,
    edit: impl FnOnce(&[u8]) -> Result<Vec<u8>, PlanError>,
) -> Result<(), PlanError> {
    let before = match planning.entry(path)? {
        Entry::File { .. } => Some(planning.read(path)?),
        Entry::Absent if state == Presence::Absent => return Ok(()),
        Entry::Absent => None,
        Entry::Link { target, .. } => {
            return Err(PlanError::new(format!("{path} is a symbolic link"))
                .help(format!("declare the file that it points to ({target})")));
        }
        other => {
            return Err(PlanError::new(format!("{path} is {}, not a file", other.describe())));
        }
    };
    let after = edit(before.as_deref().unwrap_or_default())?;
    if before.as_deref() == Some(after.as_slice()) {
        return Ok(());
    }
    let content = planning.keep(after);
    planning.file(path, Some(content), &Ownership::default(), 0o644)
}
