use serde::{Deserialize, Serialize};

use super::lines::{Anchor, Lines, edit_file};
use super::{Argument, Claim, Footprint, Key, Kind, PlanError, Planning, Presence, Shape, Spec};
use crate::world::{ContentId, RemotePath};

/// Lines of a file between two marker lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockInFile {
    path: RemotePath,
    #[serde(default)]
    content: Option<ContentId>,
    #[serde(default = "usual_marker")]
    marker: String,
    #[serde(default)]
    insert_after: Option<String>,
    #[serde(default)]
    insert_before: Option<String>,
    #[serde(default)]
    state: Presence,
    #[serde(default)]
    validate: Option<String>,
}

fn usual_marker() -> String {
    String::from("# {mark} converge managed block")
}

/// What `block_in_file` is called and takes.
pub static SPEC: Spec = Spec {
    name: "block_in_file",
    summary: "Lines of a text file between two markers; the file is made if it is missing",
    key: Key { name: "path", shape: Shape::Path, summary: "The file", identity: &["marker"] },
    arguments: &[
        Argument::optional(
            "content",
            Shape::Content,
            "What stands between the markers; if it is empty, the block goes with its markers",
        ),
        Argument::optional(
            "marker",
            Shape::Text,
            "The marker lines, with `{mark}` where they say BEGIN and END",
        )
        .with_default("# {mark} converge managed block"),
        Argument::optional(
            "insert_after",
            Shape::Text,
            "Where a block that is not there yet goes: after the last line that this regular \
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
- block_in_file: /etc/hosts
  content: |
    10.0.0.5 db1
    10.0.0.6 db2
",
};

/// What the arguments come to.
#[derive(Debug)]
struct Block {
    begin: Vec<u8>,
    end: Vec<u8>,
    anchor: Anchor,
}

impl BlockInFile {
    fn block(&self) -> Result<Block, PlanError> {
        if !self.marker.contains("{mark}") || self.marker.contains(['\n', '\r']) {
            return Err(PlanError::new("`marker` is not one line with `{mark}` in it")
                .help("write it as `# {mark} NAME`"));
        }
        Ok(Block {
            begin: self.marker.replace("{mark}", "BEGIN").into_bytes(),
            end: self.marker.replace("{mark}", "END").into_bytes(),
            anchor: Anchor::new(self.insert_after.as_deref(), self.insert_before.as_deref())?,
        })
    }
}

impl Block {
    /// Edits a text so that the block holds `content`, or is not there if that is empty.
    fn apply(&self, text: &[u8], content: &[u8]) -> Result<Vec<u8>, PlanError> {
        let content = Lines::of(content);
        if content.texts().any(|line| line == self.begin || line == self.end) {
            return Err(PlanError::new("a marker of the block stands in its content"));
        }
        let mut lines = Lines::of(text);
        let begin = lines.last(|line| line == self.begin);
        let end = lines.last(|line| line == self.end);
        let place = match (begin, end) {
            (Some(begin), Some(end)) if begin < end => begin..end + 1,
            (None, None) if content.len() == 0 => return Ok(text.to_vec()),
            (None, None) => {
                let at = lines.place(&self.anchor);
                at..at
            }
            _ => {
                return Err(PlanError::new(
                    "one marker of the block stands there without the other",
                )
                .help("remove it by hand, or put the other one back"));
            }
        };
        if content.len() == 0 {
            lines.splice(place, []);
        } else {
            let block: Vec<&[u8]> = std::iter::once(self.begin.as_slice())
                .chain(content.texts())
                .chain(std::iter::once(self.end.as_slice()))
                .collect();
            let standing = lines.texts().skip(place.start).take(place.len());
            if !standing.eq(block.iter().copied()) {
                lines.splice(place, block);
            }
        }
        Ok(lines.bytes())
    }
}

impl Kind for BlockInFile {
    fn footprint(&self) -> Footprint {
        Footprint::default().writing(Claim::Path(self.path.clone()))
    }

    fn check_arguments(&self) -> Result<(), PlanError> {
        if self.state == Presence::Present && self.content.is_none() {
            return Err(PlanError::new("no `content` is given"));
        }
        self.block().map(drop)
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        self.check_arguments()?;
        let block = self.block()?;
        let content = match (self.state, &self.content) {
            (Presence::Present, Some(content)) => Some(planning.bytes(content)?),
            _ => None,
        };
        let content = content.as_deref().unwrap_or_default();
        let state = if content.is_empty() { Presence::Absent } else { Presence::Present };
        edit_file(planning, &self.path, state, |text| block.apply(text, content))
    }

    fn validate(&self) -> Option<&str> {
        self.validate.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(insert_after: Option<&str>, insert_before: Option<&str>) -> Block {
        BlockInFile {
            path: RemotePath::new("/etc/x"),
            content: None,
            marker: String::from("# {mark} m"),
            insert_after: insert_after.map(str::to_owned),
            insert_before: insert_before.map(str::to_owned),
            state: Presence::Present,
            validate: None,
        }
        .block()
        .unwrap()
    }

    #[test]
    fn a_block_is_put_changed_and_taken() {
        let cases = [
            // before, content, after
            ("", "x\n", "# BEGIN m\nx\n# END m\n"),
            ("a", "x", "a\n# BEGIN m\nx\n# END m\n"),
            ("a\r\n", "x\ny\n", "a\r\n# BEGIN m\r\nx\r\ny\r\n# END m\r\n"),
            ("# BEGIN m\nx\n# END m", "x\n", "# BEGIN m\nx\n# END m"),
            ("a\n# BEGIN m\nx\n# END m\nb\n", "y\n", "a\n# BEGIN m\ny\n# END m\nb\n"),
            ("a\n# BEGIN m\n# END m\nb\n", "y\n\nz", "a\n# BEGIN m\ny\n\nz\n# END m\nb\n"),
            ("a\n# BEGIN m\nx\n# END m\nb\n", "", "a\nb\n"),
            ("# BEGIN other\nx\n# END other\n", "", "# BEGIN other\nx\n# END other\n"),
            ("# BEGIN m\nx\n# END m\n", "", ""),
        ];
        let block = block(None, None);
        for (before, content, after) in cases {
            let edited = block.apply(before.as_bytes(), content.as_bytes()).unwrap();
            assert_eq!(String::from_utf8_lossy(&edited), after, "of {before:?}");
            assert_eq!(
                block.apply(&edited, content.as_bytes()).unwrap(),
                edited,
                "twice {before:?}"
            );
        }
    }

    #[test]
    fn a_new_block_goes_where_it_is_told() {
        for (after, before, wanted) in [
            (Some("^a"), None, "a\na\n# BEGIN m\nx\n# END m\nb\n"),
            (None, Some("^a"), "a\n# BEGIN m\nx\n# END m\na\nb\n"),
            (None, Some("BOF"), "# BEGIN m\nx\n# END m\na\na\nb\n"),
            (Some("EOF"), None, "a\na\nb\n# BEGIN m\nx\n# END m\n"),
            (Some("none"), None, "a\na\nb\n# BEGIN m\nx\n# END m\n"),
        ] {
            let edited = block(after, before).apply(b"a\na\nb\n", b"x\n").unwrap();
            assert_eq!(String::from_utf8_lossy(&edited), wanted);
        }
    }

    #[test]
    fn half_a_block_is_an_error() {
        let block = block(None, None);
        assert!(block.apply(b"# BEGIN m\nx\n", b"x\n").is_err());
        assert!(block.apply(b"# END m\n# BEGIN m\n", b"x\n").is_err());
        assert!(block.apply(b"", b"# END m\n").is_err());
    }
}
