use std::collections::{BTreeSet, HashMap};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

use super::{
    Argument, Claim, Footprint, Key, Kind, Ownership, PlanError, Planning, Shape, Spec, Surveyed,
};
use crate::change::{Change, Content};
use crate::world::{ContentId, Entry, Metadata, RemotePath};

/// A directory with all that is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tree {
    path: RemotePath,
    #[serde(default)]
    entries: Vec<TreeEntry>,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    mode: Option<u32>,
    #[serde(default)]
    directory_mode: Option<u32>,
    #[serde(default)]
    delete: bool,
    #[serde(default)]
    exclude: Vec<String>,
    /// Declared paths below it. They, and what is in them, are their own states' business.
    #[serde(default)]
    spared: Vec<RemotePath>,
}

/// One thing in a local folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEntry {
    /// Relative to the folder, with `/` between its parts.
    pub path: String,
    /// What it is.
    pub entry: TreeNode,
    /// Of the local one; only whether its owner may execute it counts.
    pub mode: u32,
}

/// What a thing in a local folder is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeNode {
    /// A folder.
    Folder,
    /// A regular file.
    File(ContentId),
    /// A symbolic link and where it points, as written.
    Link(String),
}

/// What `tree` is called and takes.
pub static SPEC: Spec = Spec {
    name: "tree",
    summary: "A directory with all that is in a local one; missing parents are made",
    key: Key {
        name: "path",
        shape: Shape::Path,
        summary: "Where the directory stands",
        identity: &[],
    },
    arguments: &[
        Argument::required("source", Shape::LocalFolder, "The local directory"),
        Argument::optional("owner", Shape::Principal, "User name or number; left as it is"),
        Argument::optional("group", Shape::Principal, "Group name or number; left as it is"),
        Argument::optional(
            "mode",
            Shape::Mode,
            "Permissions of files; new ones get 0755 if they are executable locally, else 0644, \
             and existing ones are made executable as the local ones are",
        ),
        Argument::optional(
            "directory_mode",
            Shape::Mode,
            "Permissions of directories; left as they are, new ones get 0755",
        ),
        Argument::optional(
            "delete",
            Shape::Boolean,
            "Whether what is in it and neither in `source` nor declared goes",
        )
        .with_default("false"),
        Argument::optional(
            "exclude",
            Shape::List(&Shape::Text),
            "Patterns of what is neither copied nor deleted; one without a slash holds for names \
             at any depth",
        ),
    ],
    exclusive: &[],
    example: "\
- tree: /srv/shop/htdocs
  source: htdocs
  owner: www-data
  delete: true
  exclude: ['*.swp', cache/]
",
};

/// Patterns of relative paths that are left out of a tree, with all that is below them.
#[derive(Clone, Debug)]
pub struct Exclusion(GlobSet);

impl Exclusion {
    /// Takes the patterns as users write them; the error is about the first that is none.
    pub fn new(patterns: &[String]) -> Result<Self, globset::Error> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            let pattern = pattern.trim_end_matches('/');
            let anchored = match pattern.strip_prefix('/') {
                Some(anchored) => anchored.to_owned(),
                None if pattern.contains('/') => pattern.to_owned(),
                None => format!("**/{pattern}"),
            };
            for pattern in [format!("{anchored}/**"), anchored] {
                set.add(GlobBuilder::new(&pattern).literal_separator(true).build()?);
            }
        }
        Ok(Self(set.build()?))
    }

    /// Whether a relative path is left out.
    pub fn matches(&self, path: &str) -> bool {
        self.0.is_match(path)
    }
}

impl Tree {
    /// Plans one entry, in whose place `entry` stands, with its content if it is a file.
    fn place(
        &self,
        wanted: &TreeEntry,
        path: &RemotePath,
        (entry, content): (&Entry, Option<ContentId>),
        planning: &mut Planning<'_>,
    ) -> Result<(), PlanError> {
        let after = match &wanted.entry {
            TreeNode::Folder => Content::Folder,
            TreeNode::File(id) => Content::File(*id),
            TreeNode::Link(target) => Content::Link(RemotePath::new(target)),
        };
        let current = match (entry, &after) {
            (Entry::File { metadata, .. }, Content::File(_))
            | (Entry::Link { metadata, .. }, Content::Link(_))
            | (Entry::Folder { metadata }, Content::Folder) => Some(metadata),
            _ => None,
        };
        let before = match entry {
            Entry::Absent => Content::Absent,
            Entry::File { .. } => match content {
                Some(content) => Content::File(content),
                None => Content::File(planning.identify(path)?),
            },
            Entry::Link { target, .. } => Content::Link(target.clone()),
            Entry::Folder { .. } if after == Content::Folder => Content::Folder,
            Entry::Folder { .. } => {
                return Err(PlanError::new(format!(
                    "{path} is a directory and no longer in the tree"
                ))
                .help("remove it before with `directory` and `state: absent`"));
            }
            Entry::Other { .. } => Content::Other,
        };
        if before != after {
            planning.may_change(path)?;
            // A folder cannot be renamed over a file.
            let before = if after == Content::Folder && before != Content::Absent {
                let absent = Content::Absent;
                planning.push(Change::Content { path: path.clone(), before, after: absent });
                Content::Absent
            } else {
                before
            };
            planning.push(Change::Content { path: path.clone(), before, after: after.clone() });
        }
        let mode = match after {
            Content::Folder => self.directory_mode,
            Content::Link(_) => None,
            _ => self.mode.or_else(|| current.map(|current| executable_as(wanted, current))),
        };
        let default = match after {
            Content::Link(_) => 0o777,
            Content::File(_) if wanted.mode & 0o100 == 0 => 0o644,
            _ => 0o755,
        };
        let ownership = Ownership { owner: self.owner.clone(), group: self.group.clone(), mode };
        planning.metadata(path, current, &ownership, default)
    }

    /// Looks at all files whose folders are there.
    fn survey<'p>(
        &self,
        entries: &'p [(RemotePath, &TreeEntry)],
        planning: &Planning<'_>,
    ) -> Result<HashMap<&'p RemotePath, Result<Surveyed, PlanError>>, PlanError> {
        let mut standing = HashMap::new();
        let mut files = Vec::new();
        for (path, wanted) in entries {
            let (Some(folder), TreeNode::File(_)) = (path.parent(), &wanted.entry) else {
                continue;
            };
            let stands = match standing.get(&folder) {
                Some(stands) => *stands,
                None => {
                    let entry = planning.world().entry(&folder)?.value;
                    let stands = matches!(entry, Entry::Folder { .. });
                    standing.insert(folder, stands);
                    stands
                }
            };
            if stands && !self.spared.contains(path) {
                files.push(path);
            }
        }
        let seen = planning.survey(&files);
        Ok(files.into_iter().zip(seen).collect())
    }

    /// Plans that what is below a folder and neither in the tree nor spared goes.
    fn delete_below(
        &self,
        folder: &RemotePath,
        kept: &BTreeSet<RemotePath>,
        excluded: &Exclusion,
        planning: &mut Planning<'_>,
    ) -> Result<(), PlanError> {
        for path in planning.world().list(folder)? {
            let relative =
                path.as_path().strip_prefix(self.path.as_path()).unwrap_or(path.as_path());
            let left_out = excluded.matches(&relative.to_string_lossy());
            let planned_before = planning.world().entry(&path)?.by.is_some();
            if left_out || planned_before || self.spared.contains(&path) {
                continue;
            }
            let is_folder = matches!(planning.entry(&path)?, Entry::Folder { .. });
            let holds_spared = self.spared.iter().any(|spared| spared.is_within(&path));
            if kept.contains(&path) || holds_spared {
                if is_folder {
                    self.delete_below(&path, kept, excluded, planning)?;
                }
            } else if is_folder && self.holds_excluded(&path, excluded, planning)? {
                self.delete_below(&path, kept, excluded, planning)?;
            } else {
                planning.absent(&path)?;
            }
        }
        Ok(())
    }

    /// Whether something below a folder is excluded, so that the folder has to stay.
    fn holds_excluded(
        &self,
        folder: &RemotePath,
        excluded: &Exclusion,
        planning: &Planning<'_>,
    ) -> Result<bool, PlanError> {
        if self.exclude.is_empty() {
            return Ok(false);
        }
        for path in planning.world().list(folder)? {
            let relative =
                path.as_path().strip_prefix(self.path.as_path()).unwrap_or(path.as_path());
            if excluded.matches(&relative.to_string_lossy()) {
                return Ok(true);
            }
            if matches!(planning.world().entry(&path)?.value, Entry::Folder { .. })
                && self.holds_excluded(&path, excluded, planning)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Kind for Tree {
    fn footprint(&self) -> Footprint {
        Footprint::default()
            .owned_by(self.owner.as_deref(), self.group.as_deref())
            .writing(Claim::Subtree(self.path.clone()))
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        let excluded = Exclusion::new(&self.exclude).map_err(|error| {
            PlanError::new(format!("`exclude` has a pattern that is none: {error}"))
        })?;
        if planning.entry(&self.path)? == Entry::Absent {
            planning.parents(&self.path)?;
        }
        let ownership = Ownership {
            owner: self.owner.clone(),
            group: self.group.clone(),
            mode: self.directory_mode,
        };
        planning.folder(&self.path, &ownership, 0o755)?;

        let mut entries: Vec<(RemotePath, &TreeEntry)> = Vec::with_capacity(self.entries.len());
        for entry in self.entries.iter().filter(|entry| !excluded.matches(&entry.path)) {
            if !stays_inside(&entry.path) {
                let path = &entry.path;
                return Err(PlanError::new(format!("{path} is not the name of a thing in a tree")));
            }
            entries.push((self.path.join(&entry.path), entry));
        }
        entries.sort_by(|left, right| left.0.cmp(&right.0));
        // Folders of this tree in whose place there is none yet: nothing stands in them.
        let mut made: BTreeSet<RemotePath> = BTreeSet::new();
        let mut surveyed = self.survey(&entries, planning)?;
        for (path, wanted) in &entries {
            let in_made = path.parent().is_some_and(|folder| made.contains(&folder));
            let (entry, content) = match surveyed.remove(path) {
                _ if in_made => (Entry::Absent, None),
                Some(seen) => planning.surveyed(seen?),
                None => (planning.entry(path)?, None),
            };
            let folder = wanted.entry == TreeNode::Folder;
            let stands = matches!(entry, Entry::Folder { .. });
            if self.spared.contains(path) && (stands || !folder) {
                continue; // it has a state of its own
            }
            if folder && !stands {
                made.insert(path.clone());
            }
            self.place(wanted, path, (&entry, content), planning)?;
        }
        if self.delete && matches!(planning.world().entry(&self.path)?.value, Entry::Folder { .. })
        {
            let kept = entries.into_iter().map(|(path, _)| path).collect();
            self.delete_below(&self.path, &kept, &excluded, planning)?;
        }
        Ok(())
    }

    fn spare(&mut self, declared: Vec<RemotePath>) {
        self.spared = below(&self.path, declared);
    }

    fn cleans_up(&self) -> bool {
        true // what it deletes, and what it would write over
    }
}

/// Those of the declared paths that lie below a folder.
pub(super) fn below(folder: &RemotePath, declared: Vec<RemotePath>) -> Vec<RemotePath> {
    declared.into_iter().filter(|path| path != folder && path.is_within(folder)).collect()
}

/// The permissions of an existing file, executable if and only if the local one is.
fn executable_as(wanted: &TreeEntry, current: &Metadata) -> u32 {
    if wanted.mode & 0o100 == 0 {
        current.mode & !0o111
    } else if current.mode & 0o100 == 0 {
        current.mode | ((current.mode & 0o444) >> 2)
    } else {
        current.mode
    }
}

/// Whether a relative path names something below the folder that it is relative to.
fn stays_inside(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_hold_where_their_users_expect_it() {
        let cases: &[(&str, &str, bool)] = &[
            ("*.swp", "a.swp", true),
            ("*.swp", "deep/down/a.swp", true),
            ("*.swp", "a.swp.txt", false),
            ("cache/", "cache", true),
            ("cache/", "cache/deep/file", true),
            ("cache/", "sub/cache/file", true),
            ("/cache", "sub/cache", false),
            ("/cache", "cache/file", true),
            ("sub/*.txt", "sub/a.txt", true),
            ("sub/*.txt", "sub/deep/a.txt", false),
            ("sub/*.txt", "other/sub/a.txt", false),
            (".git", ".git/config", true),
            (".git", ".gitignore", false),
        ];
        for (pattern, path, wanted) in cases {
            let exclusion = Exclusion::new(&[pattern.to_string()]).unwrap();
            assert_eq!(exclusion.matches(path), *wanted, "{pattern} {path}");
        }
    }

    #[test]
    fn names_cannot_leave_the_tree() {
        for (path, wanted) in [
            ("a/b", true),
            ("a..b", true),
            ("../a", false),
            ("/a", false),
            ("a//b", false),
            ("", false),
        ] {
            assert_eq!(stays_inside(path), wanted, "{path}");
        }
    }
}
