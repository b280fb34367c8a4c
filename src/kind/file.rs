use serde::{Deserialize, Serialize};

use super::{
    Argument, Claim, Footprint, Key, Kind, Ownership, PlanError, Planning, Presence, Shape, Spec,
};
use crate::world::{ContentId, Entry, RemotePath};

/// A regular file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct File {
    path: RemotePath,
    #[serde(default)]
    content: Option<ContentId>,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    mode: Option<u32>,
    #[serde(default)]
    state: Presence,
    #[serde(default = "super::yes")]
    replace: bool,
    #[serde(default)]
    validate: Option<String>,
}

/// What `file` is called and takes.
pub static SPEC: Spec = Spec {
    name: "file",
    summary: "A regular file with its content, owner, group and mode",
    key: Key { name: "path", shape: Shape::Path, summary: "Where the file stands", identity: &[] },
    arguments: &[
        Argument::optional("content", Shape::Content, "The content as text"),
        Argument::optional("template", Shape::Template, "A Jinja template that gives the content"),
        Argument::optional(
            "source",
            Shape::LocalFile,
            "A local file that gives the content, or an http(s) address beside `checksum`",
        ),
        Argument::optional("checksum", Shape::Text, "`sha256:HEX` of what `source` fetches"),
        Argument::optional("owner", Shape::Principal, "User name or number; left as it is"),
        Argument::optional("group", Shape::Principal, "Group name or number; left as it is"),
        Argument::optional(
            "mode",
            Shape::Mode,
            "Permissions; left as they are, new files get 0644",
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
        Argument::optional(
            "replace",
            Shape::Boolean,
            "`false` writes the content only if the file does not exist yet",
        )
        .with_default("true"),
    ],
    exclusive: &[&["content", "template", "source"]],
    example: "\
- file: /etc/motd
  content: |
    Managed by converge.
  owner: root
  mode: 0644
",
};

impl Kind for File {
    fn footprint(&self) -> Footprint {
        Footprint::default()
            .owned_by(self.owner.as_deref(), self.group.as_deref())
            .writing(Claim::Path(self.path.clone()))
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        if self.state == Presence::Absent {
            if let Entry::Folder { .. } = planning.entry(&self.path)? {
                return Err(PlanError::new(format!("{} is a directory", self.path))
                    .help("remove it with `directory` and `state: absent`"));
            }
            return planning.absent(&self.path);
        }
        let exists = planning.entry(&self.path)? != Entry::Absent;
        let content = self.content.filter(|_| self.replace || !exists);
        let ownership =
            Ownership { owner: self.owner.clone(), group: self.group.clone(), mode: self.mode };
        planning.file(&self.path, content, &ownership, 0o644)
    }

    fn validate(&self) -> Option<&str> {
        self.validate.as_deref()
    }

    fn content(&self) -> Option<ContentId> {
        self.content
    }
}
