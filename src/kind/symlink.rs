use serde::{Deserialize, Serialize};

use super::{
    Argument, Claim, Footprint, Key, Kind, Ownership, PlanError, Planning, Presence, Shape, Spec,
};
use crate::change::{Change, Content};
use crate::world::{Entry, RemotePath};

/// A symbolic link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Symlink {
    path: RemotePath,
    #[serde(default)]
    target: Option<RemotePath>,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    state: Presence,
}

/// What `symlink` is called and takes.
pub static SPEC: Spec = Spec {
    name: "symlink",
    summary: "A symbolic link; a file in its place is replaced, a directory is not",
    key: Key { name: "path", shape: Shape::Path, summary: "Where the link stands", identity: &[] },
    arguments: &[
        Argument::optional(
            "target",
            Shape::Text,
            "Where it points, as it is to be written: absolute, or relative to the link's \
             directory; need not exist",
        ),
        Argument::optional(
            "owner",
            Shape::Principal,
            "User name or number that owns the link itself; left as it is",
        ),
        Argument::optional(
            "state",
            Shape::Choice(&["present", "absent"]),
            "Whether it is to be there: `present` or `absent`",
        ),
    ],
    exclusive: &[],
    example: "\
- symlink: /etc/nginx/sites-enabled/shop
  target: ../sites-available/shop
",
};

impl Kind for Symlink {
    fn footprint(&self) -> Footprint {
        Footprint::default()
            .owned_by(self.owner.as_deref(), None)
            .writing(Claim::Path(self.path.clone()))
    }

    fn check_arguments(&self) -> Result<(), PlanError> {
        if self.state == Presence::Present && self.target.is_none() {
            return Err(PlanError::new(format!("the link {} has no target", self.path))
                .help("say where it points with `target`"));
        }
        Ok(())
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        let entry = planning.entry(&self.path)?;
        if self.state == Presence::Absent {
            return match entry {
                Entry::Absent | Entry::Link { .. } => planning.absent(&self.path),
                other => Err(PlanError::new(format!(
                    "{} is {}, not a symbolic link",
                    self.path,
                    other.describe()
                ))
                .help("remove it with `file` or `directory` and `state: absent`")),
            };
        }
        self.check_arguments()?;
        let Some(target) = &self.target else { return Ok(()) };
        let before = match &entry {
            Entry::Absent => {
                planning.needs_parent(&self.path)?;
                Content::Absent
            }
            Entry::File { .. } => Content::File(planning.identify(&self.path)?),
            Entry::Link { target, .. } => Content::Link(target.clone()),
            Entry::Folder { .. } => {
                return Err(PlanError::new(format!("{} is a directory", self.path))
                    .help("remove it before with `directory` and `state: absent`"));
            }
            Entry::Other { .. } => Content::Other,
        };
        let after = Content::Link(target.clone());
        let current = match &entry {
            Entry::Link { metadata, .. } => Some(metadata),
            _ => None,
        };
        if before != after {
            planning.may_change(&self.path)?;
            planning.push(Change::Content { path: self.path.clone(), before, after });
        }
        let ownership = Ownership { owner: self.owner.clone(), ..Ownership::default() };
        // The mode of a link means nothing; Linux shows 0777.
        planning.metadata(&self.path, current, &ownership, 0o777)
    }
}
