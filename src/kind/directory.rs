use serde::{Deserialize, Serialize};

use super::{
    Argument, Claim, Footprint, Key, Kind, Ownership, PlanError, Planning, Presence, Shape, Spec,
};
use crate::world::{Entry, RemotePath};

/// A directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Directory {
    path: RemotePath,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    mode: Option<u32>,
    #[serde(default)]
    recurse: bool,
    #[serde(default)]
    purge: bool,
    #[serde(default)]
    state: Presence,
    /// Declared paths below it. They, and what is in them, are their own states' business.
    #[serde(default)]
    spared: Vec<RemotePath>,
}

/// What `directory` is called and takes.
pub static SPEC: Spec = Spec {
    name: "directory",
    summary: "A directory with its owner, group and mode; missing parents are made",
    key: Key {
        name: "path",
        shape: Shape::Path,
        summary: "Where the directory stands",
        identity: &[],
    },
    arguments: &[
        Argument::optional("owner", Shape::Principal, "User name or number; left as it is"),
        Argument::optional("group", Shape::Principal, "Group name or number; left as it is"),
        Argument::optional(
            "mode",
            Shape::Mode,
            "Permissions; left as they are, new directories get 0755",
        ),
        Argument::optional(
            "recurse",
            Shape::Boolean,
            "Whether `owner`, `group` and `mode` hold for all that is in it; directories may then \
             be entered by whoever may read them",
        )
        .with_default("false"),
        Argument::optional("purge", Shape::Boolean, "Whether what is in it and not declared goes")
            .with_default("false"),
        Argument::optional(
            "state",
            Shape::Choice(&["present", "absent"]),
            "Whether it is to be there: `present` or `absent`, with all that is in it",
        ),
    ],
    exclusive: &[],
    example: "\
- directory: /srv/shop/media
  owner: www-data
  group: www-data
  mode: 0750
",
};

impl Directory {
    fn ownership(&self) -> Ownership {
        Ownership { owner: self.owner.clone(), group: self.group.clone(), mode: self.mode }
    }

    /// Plans all below a folder: what is not declared goes or gets the declared metadata.
    fn below(&self, folder: &RemotePath, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        for path in planning.world().list(folder)? {
            if self.spared.contains(&path) {
                continue;
            }
            let planned_before = planning.world().entry(&path)?.by.is_some();
            let holds_spared = self.spared.iter().any(|spared| spared.is_within(&path));
            if self.purge && !planned_before && !holds_spared {
                planning.absent(&path)?;
                continue;
            }
            let entry = planning.entry(&path)?;
            if entry == Entry::Absent {
                continue; // gone since the folder was listed
            }
            if self.recurse {
                let mut ownership = self.ownership();
                ownership.mode = match &entry {
                    Entry::Folder { .. } => self.mode.map(enterable),
                    Entry::Link { .. } => None,
                    _ => self.mode,
                };
                planning.metadata(&path, entry.metadata(), &ownership, 0)?;
            }
            if let Entry::Folder { .. } = entry {
                self.below(&path, planning)?;
            }
        }
        Ok(())
    }
}

impl Kind for Directory {
    fn footprint(&self) -> Footprint {
        let whole = self.recurse || self.purge || self.state == Presence::Absent;
        let claim = if whole { Claim::Subtree } else { Claim::Path };
        Footprint::default()
            .owned_by(self.owner.as_deref(), self.group.as_deref())
            .writing(claim(self.path.clone()))
    }

    fn check_arguments(&self) -> Result<(), PlanError> {
        // What a slip in a variable would cost is out of proportion to any use.
        let depth = self.path.ancestors().count();
        if self.state == Presence::Absent && depth <= 1 {
            return Err(PlanError::new(format!("{} is never removed", self.path))
                .help("folders right below `/` and `/` itself belong to the system"));
        }
        Ok(())
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        let entry = planning.entry(&self.path)?;
        if self.state == Presence::Absent {
            return match entry {
                Entry::Absent | Entry::Folder { .. } => planning.absent(&self.path),
                other => Err(PlanError::new(format!(
                    "{} is {}, not a directory",
                    self.path,
                    other.describe()
                ))
                .help("remove it with `file` or `symlink` and `state: absent`")),
            };
        }
        if entry == Entry::Absent {
            planning.parents(&self.path)?;
        }
        let mut ownership = self.ownership();
        if self.recurse {
            ownership.mode = self.mode.map(enterable);
        }
        planning.folder(&self.path, &ownership, 0o755)?;
        if (self.recurse || self.purge) && entry != Entry::Absent {
            self.below(&self.path, planning)?;
        }
        Ok(())
    }

    fn spare(&mut self, declared: Vec<RemotePath>) {
        self.spared = super::tree::below(&self.path, declared);
    }

    fn cleans_up(&self) -> bool {
        self.purge || self.recurse
    }
}

/// Adds the right to enter wherever there is the right to read.
fn enterable(mode: u32) -> u32 {
    mode | ((mode & 0o444) >> 2)
}

#[cfg(test)]
mod tests {
    use super::enterable;

    #[test]
    fn who_may_read_a_directory_may_enter_it() {
        for (mode, wanted) in [(0o644, 0o755), (0o640, 0o750), (0o600, 0o700), (0o2664, 0o2775)] {
            assert_eq!(enterable(mode), wanted, "{mode:o}");
        }
    }
}
