//! All that is to be seen of a file tree, and what changes make of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use converge::change::{Change, Content};
use converge::world::{ContentId, Metadata};

/// What stands at a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub what: What,
    pub uid: u32,
    pub gid: u32,
    /// The lower twelve bits; none of a link, where it means nothing.
    pub mode: Option<u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    File(ContentId),
    Link(PathBuf),
    Folder,
    Pipe,
}

pub type Listing = BTreeMap<PathBuf, Seen>;

/// Lists a tree, its root included.
pub fn list(root: &Path) -> Listing {
    let mut listing = Listing::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let what = if kind.is_symlink() {
            What::Link(fs::read_link(&path).unwrap())
        } else if kind.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            What::Folder
        } else if kind.is_fifo() {
            What::Pipe
        } else {
            What::File(ContentId::of(&fs::read(&path).unwrap()))
        };
        let mode = (!kind.is_symlink()).then_some(metadata.mode() & 0o7777);
        listing.insert(path, Seen { what, uid: metadata.uid(), gid: metadata.gid(), mode });
    }
    listing
}

/// What differs between two listings.
pub fn differences(left: &Listing, right: &Listing) -> Vec<String> {
    let paths = left.keys().chain(right.keys().filter(|path| !left.contains_key(*path)));
    paths
        .filter(|path| left.get(*path) != right.get(*path))
        .map(|path| format!("{path:?}: {:?} and {:?}", left.get(path), right.get(path)))
        .collect()
}

/// Makes a change of a tree in its listing; what its `before` says has to stand there.
pub fn make(change: &Change, listing: &mut Listing) -> Result<(), String> {
    match change {
        Change::Content { path, before, after } => {
            let path = &real(path.as_path(), listing);
            let stands = match listing.get(path).map(|seen| &seen.what) {
                None => Content::Absent,
                Some(What::File(id)) => Content::File(*id),
                Some(What::Link(target)) => Content::Link(target.clone().into()),
                Some(What::Folder) => Content::Folder,
                Some(What::Pipe) => Content::Other,
            };
            if stands != *before {
                return Err(format!(
                    "{path:?}: {stands:?} stands there, {before:?} was planned on"
                ));
            }
            let what = match after {
                Content::Absent => {
                    listing.remove(path);
                    return Ok(());
                }
                Content::File(id) => What::File(*id),
                Content::Link(target) => What::Link(target.as_path().to_owned()),
                Content::Folder => What::Folder,
                Content::Other => What::Pipe,
            };
            let before = listing.get(path);
            let (uid, gid) = before.map_or((0, 0), |seen| (seen.uid, seen.gid));
            let mode = match (&what, before) {
                (What::Link(_), _) => None,
                (_, Some(Seen { mode: Some(mode), .. })) => Some(*mode),
                (What::Folder, _) => Some(0o755),
                _ => Some(0o644),
            };
            listing.insert(path.to_owned(), Seen { what, uid, gid, mode });
        }
        Change::Metadata { path, after: Metadata { owner, group, mode }, .. } => {
            let path = real(path.as_path(), listing);
            let seen = listing.get_mut(&path);
            let seen = seen.ok_or_else(|| format!("{path:?}: nothing stands there"))?;
            seen.uid = number(owner, "/etc/passwd");
            seen.gid = number(group, "/etc/group");
            seen.mode = seen.mode.map(|_| *mode);
        }
        _ => {}
    }
    Ok(())
}

/// Where a path leads, the links of its folders followed.
pub fn real(path: &Path, listing: &Listing) -> PathBuf {
    let mut real = PathBuf::new();
    let mut rest: Vec<_> =
        path.components().rev().map(|part| part.as_os_str().to_owned()).collect();
    while let Some(part) = rest.pop() {
        if part == ".." {
            real.pop();
        } else if part != "." {
            real.push(part);
        }
        if !rest.is_empty()
            && let Some(Seen { what: What::Link(target), .. }) = listing.get(&real)
        {
            real.pop();
            rest.extend(target.components().rev().map(|part| part.as_os_str().to_owned()));
        }
    }
    real
}

/// The number of a user or group of this machine.
fn number(name: &str, table: &str) -> u32 {
    let text = fs::read_to_string(table).unwrap();
    let entries = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = entries.into_iter().find(|entry| entry[0] == name);
    found.map_or(name, |entry| entry[2]).parse().unwrap()
}
