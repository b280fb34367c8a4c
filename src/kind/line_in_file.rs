use regex::bytes::Regex;
use serde::{Deserialize, Serialize};

use super::lines::{Anchor, Lines, expression};
use super::{Argument, Claim, Footprint, Key, Kind, PlanError, Planning, Presence, Shape, Spec};
use crate::world::RemotePath;

/// One line of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LineInFile {
    path: RemotePath,
    #[serde(default)]
    line: Option<String>,
    #[serde(default, rename = "match")]
    pattern: Option<String>,
    #[serde(default)]
    insert_after: Option<String>,
    #[serde(default)]
    insert_before: Option<String>,
    #[serde(default)]
    state: Presence,
    #[serde(default)]
    validate: Option<String>,
}

/// What `line_in_file` is called and takes.
pub static SPEC: Spec = Spec {
    name: "line_in_file",
    summary: "One line of a text file; the file is made if it is missing",
    key: Key {
        name: "path",
        shape: Shape::Path,
        summary: "The file",
        identity: &["match", "line"],
    },
    arguments: &[
        Argument::optional("line", Shape::Text, "The line, without its ending").secret(),
        Argument::optional(
            "match",
            Shape::Text,
            "A regular expression; the last line that it matches is replaced, and with \
             `state: absent` all that it matches go",
        ),
        Argument::optional(
            "insert_after",
            Shape::Text,
            "Where a line that is not there yet goes: after the last line that this regular \
             expression matches, `BOF`, or `EOF`, which is the default",
        ),
        Argument::optional(
            "insert_before",
            Shape::Text,
            "The same, before the last line that it matches",
        ),
        Argument::optional(
            "state",
            Shape::Choice(&["present", "absent"]),
            "Whether it is to be there: `present` or `absent`",
        ),
        Argument::optional(
            "validate",
            Shape::Text,
            "A command that checks the content before it goes live; `%s` stands for the candidate",
        ),
    ],
    exclusive: &[&["insert_after", "insert_before"]],
    example: "\
- line_in_file: /etc/login.defs
  match: '^UMASK\\s'
  line: UMASK 027
",
};

/// What the arguments come to.
#[derive(Debug)]
enum Edit<'a> {
    Present { line: &'a [u8], pattern: Option<Regex>, anchor: Anchor },
    AbsentMatches(Regex),
    AbsentLine(&'a [u8]),
}

impl LineInFile {
    fn edit(&self) -> Result<Edit<'_>, PlanError> {
        // A block scalar in YAML ends its text with a newline.
        let line = self.line.as_deref().map(|line| line.strip_suffix('\n').unwrap_or(line));
        if line.is_some_and(|line| line.contains(['\n', '\r'])) {
            return Err(PlanError::new("`line` holds more than one line")
                .help("use `block_in_file` for several lines"));
        }
        let pattern =
            self.pattern.as_deref().map(|pattern| expression("match", pattern)).transpose()?;
        let line = line.map(str::as_bytes);
        let anchor = Anchor::new(self.insert_after.as_deref(), self.insert_before.as_deref())?;
        match (self.state, line, pattern) {
            (Presence::Present, Some(line), pattern) => Ok(Edit::Present { line, pattern, anchor }),
            (Presence::Present, None, _) => Err(PlanError::new("no `line` is given")),
            (Presence::Absent, _, Some(pattern)) => Ok(Edit::AbsentMatches(pattern)),
            (Presence::Absent, Some(line), None) => Ok(Edit::AbsentLine(line)),
            (Presence::Absent, None, None) => {
                Err(PlanError::new("neither `line` nor `match` says which lines go"))
            }
        }
    }
}

impl Edit<'_> {
    fn apply(&self, text: &[u8]) -> Vec<u8> {
        let mut lines = Lines::of(text);
        match self {
            Edit::AbsentMatches(pattern) => lines.remove(|line| pattern.is_match(line)),
            Edit::AbsentLine(wanted) => lines.remove(|line| line == *wanted),
            Edit::Present { line, pattern, anchor } => {
                let there = lines.last(|other| other == *line);
                let matched = pattern
                    .as_ref()
                    // Where the new line does not match itself, the next plan would replace the
                    // next line that does, and so on: once it is there, that is enough.
                    .filter(|pattern| there.is_none() || pattern.is_match(line))
                    .and_then(|pattern| lines.last(|other| pattern.is_match(other)));
                match (matched, there) {
                    (Some(at), _) if there != Some(at) => lines.replace(at, line),
                    (Some(_), _) | (None, Some(_)) => {}
                    (None, None) => {
                        let at = lines.place(anchor);
                        lines.splice(at..at, [*line]);
                    }
                }
            }
        }
        lines.bytes()
    }
}

impl Kind for LineInFile {
    fn footprint(&self) -> Footprint {
        Footprint::default().writing(Claim::Path(self.path.clone()))
    }

    fn check_arguments(&self) -> Result<(), PlanError> {
        self.edit().map(drop)
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        let edit = self.edit()?;
        super::lines::edit_file(planning, &self.path, self.state, |text| Ok(edit.apply(text)))
    }

    fn validate(&self) -> Option<&str> {
        self.validate.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(line: &str) -> LineInFile {
        LineInFile {
            path: RemotePath::new("/etc/x"),
            line: Some(line.to_owned()),
            pattern: None,
            insert_after: None,
            insert_before: None,
            state: Presence::Present,
            validate: None,
        }
    }

    #[track_caller]
    fn check(declared: &LineInFile, cases: &[(&str, &str)]) {
        let edit = declared.edit().unwrap();
        for (before, after) in cases {
            let edited = edit.apply(before.as_bytes());
            assert_eq!(String::from_utf8_lossy(&edited), *after, "of {before:?}");
            assert_eq!(edit.apply(&edited), edited, "twice, of {before:?}");
        }
    }

    #[test]
    fn a_line_is_added_once() {
        check(
            &present("b"),
            &[
                ("", "b\n"),
                ("a\n", "a\nb\n"),
                ("a", "a\nb\n"),
                ("a\r\n", "a\r\nb\r\n"),
                ("b", "b"),
                ("b\na\n", "b\na\n"),
                ("b \n", "b \nb\n"),
                ("\n", "\nb\n"),
            ],
        );
    }

    #[test]
    fn the_last_line_that_matches_is_replaced() {
        let declared = LineInFile { pattern: Some(String::from("^a=")), ..present("a=3") };
        check(
            &declared,
            &[
                ("a=1\nx\na=2\ny\n", "a=1\nx\na=3\ny\n"),
                ("x\na=2", "x\na=3\n"),
                ("a=3\na=2\n", "a=3\na=3\n"),
                ("a=2\r\nx\r\n", "a=3\r\nx\r\n"),
                ("#a=2\n", "#a=2\na=3\n"),
            ],
        );
    }

    #[test]
    fn a_line_that_its_own_match_does_not_match_replaces_only_one() {
        let declared = LineInFile { pattern: Some(String::from("^#a")), ..present("a=3") };
        check(&declared, &[("#a=1\n#a=2\n", "#a=1\na=3\n"), ("#a=1\na=3\n", "#a=1\na=3\n")]);
    }

    #[test]
    fn a_new_line_goes_where_it_is_told() {
        let after =
            |place: &str| LineInFile { insert_after: Some(place.to_owned()), ..present("n") };
        let before =
            |place: &str| LineInFile { insert_before: Some(place.to_owned()), ..present("n") };
        check(
            &after("^a"),
            &[("a1\na2\nb\n", "a1\na2\nn\nb\n"), ("b\n", "b\nn\n"), ("a", "a\nn\n")],
        );
        check(&before("^a"), &[("a1\na2\nb\n", "a1\nn\na2\nb\n"), ("b\n", "b\nn\n")]);
        check(&after("EOF"), &[("a\n", "a\nn\n")]);
        check(&before("BOF"), &[("a\n", "n\na\n"), ("", "n\n")]);
    }

    #[test]
    fn lines_go() {
        let line = LineInFile { state: Presence::Absent, ..present("b") };
        check(&line, &[("a\nb\nc\nb\n", "a\nc\n"), ("a\nb", "a\n"), ("", ""), ("bb", "bb")]);
        let matching = LineInFile { pattern: Some(String::from("b")), line: None, ..line };
        check(&matching, &[("a\nb\nbb\n", "a\n")]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for declared in [
            present("a\nb"),
            LineInFile { line: None, ..present("") },
            LineInFile { line: None, state: Presence::Absent, ..present("") },
            LineInFile { pattern: Some(String::from("(")), ..present("a") },
        ] {
            assert!(declared.edit().is_err(), "{declared:?}");
        }
    }
}
