//! Opening paths without following links that another user could have planted.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::RemotePath;

/// Most links that are followed on one way, as in path_resolution(7).
const LINK_LIMIT: usize = 40;

/// What happens if the last component of a path is a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// It is followed, like all before it.
    Followed,
    /// It is an error.
    Refused,
}

/// Opens a path. As root, links on the way are followed only out of folders that nobody but root
/// can write.
pub fn open(path: &Path, flags: OFlags, last: Last) -> io::Result<OwnedFd> {
    let strict = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC;
    let directly = |path: &Path| {
        rustix::fs::openat2(CWD, path, flags, Mode::empty(), strict).map_err(io::Error::from)
    };
    match rustix::fs::openat2(CWD, path, flags, Mode::empty(), strict) {
        Ok(file) => Ok(file),
        Err(Errno::LOOP) if rustix::process::geteuid().is_root() => directly(&resolve(path, last)?),
        Err(Errno::LOOP) if last == Last::Followed => {
            Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
        }
        Err(Errno::LOOP) => {
            Ok(rustix::fs::openat(CWD, path, flags | OFlags::NOFOLLOW, Mode::empty())?)
        }
        // Older kernels (before 5.6), and sandboxes that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            let root = rustix::process::geteuid().is_root();
            let path = if root { resolve(path, last)? } else { path.to_owned() };
            let flags =
                if last == Last::Followed && !root { flags } else { flags | OFlags::NOFOLLOW };
            Ok(rustix::fs::openat(CWD, &path, flags, Mode::empty())?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Where a path leads if links are followed only out of folders that root alone can write.
fn resolve(path: &Path, last: Last) -> io::Result<PathBuf> {
    let mut current = PathBuf::from("/");
    let mut pending: Vec<OsString> = components(path);
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == ".." {
            current.pop();
            continue;
        }
        let next = current.join(&name);
        if pending.is_empty() && last == Last::Refused {
            return Ok(next);
        }
        let stat = rustix::fs::lstat(&next)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            current = next;
            continue;
        }
        let folder = rustix::fs::stat(&current)?;
        if folder.st_uid != 0 || folder.st_mode & 0o022 != 0 {
            let message = format!(
                "{} is a link in a folder that other users can write, so it is not followed",
                RemotePath::new(&next)
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        links += 1;
        if links > LINK_LIMIT {
            return Err(Errno::LOOP.into());
        }
        let target = std::fs::read_link(&next)?;
        if target.is_absolute() {
            current = PathBuf::from("/");
        }
        pending.extend(components(&target));
    }
    Ok(current)
}

/// The names of a path, last first.
fn components(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_only_out_of_folders_of_root() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for (name, mode) in [("safe", 0o755), ("open", 0o777)] {
            std::fs::create_dir(root.join(name)).unwrap();
            rustix::fs::chmod(root.join(name), Mode::from_raw_mode(mode)).unwrap();
        }
        std::fs::create_dir(root.join("real")).unwrap();
        std::fs::write(root.join("real/file"), "x").unwrap();
        for name in ["safe", "open"] {
            std::os::unix::fs::symlink("../real", root.join(name).join("link")).unwrap();
        }
        assert!(open(&root.join("real/file"), OFlags::RDONLY, Last::Refused).is_ok());
        assert!(open(&root.join("safe/link/file"), OFlags::RDONLY, Last::Refused).is_ok());
        let error = open(&root.join("open/link/file"), OFlags::RDONLY, Last::Refused).unwrap_err();
        assert!(error.to_string().contains("not followed"), "{error}");
        std::os::unix::fs::symlink("/etc/passwd", root.join("open/last")).unwrap();
        assert!(open(&root.join("open/last"), OFlags::RDONLY, Last::Refused).is_err());
    }
}
