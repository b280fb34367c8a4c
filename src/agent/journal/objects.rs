use std::collections::HashSet;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Mutex;

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::world::{ContentId, Digest};

/// Most bytes that are kept in order to undo runs: half of them of the newest run.
pub(in crate::agent) const KEPT_BYTES: u64 = 256 << 20;

/// Contents that undo needs, by their digest: what stood in a place before a run changed it.
pub(in crate::agent) struct Objects {
    folder: OwnedFd,
    /// What this run may still add.
    room: Mutex<u64>,
}

impl Objects {
    pub(in crate::agent) fn new(folder: OwnedFd) -> Self {
        Self { folder, room: Mutex::new(KEPT_BYTES / 2) }
    }

    /// Keeps a content. What does not fit any more is left out, and cannot be restored then, unless
    /// it has to be.
    pub(in crate::agent) fn keep(
        &self,
        id: &ContentId,
        mut content: impl Read,
        has_to_be: bool,
    ) -> io::Result<()> {
        let name = id.digest.to_string();
        if self.has(id) {
            return Ok(());
        }
        {
            let mut room = self.room.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            match room.checked_sub(id.size) {
                Some(left) => *room = left,
                None if has_to_be => {}
                None => return Ok(()),
            }
        }
        let new = format!(".{name}.new");
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.folder, &new, flags, Mode::from_raw_mode(0o600))?;
        let mut file = File::from(opened);
        let copied = copy(&mut content, &mut file, id);
        if copied.is_err() {
            let _ = rustix::fs::unlinkat(&self.folder, &new, AtFlags::empty());
        }
        copied?;
        Ok(rustix::fs::renameat(&self.folder, &new, &self.folder, &name)?)
    }

    /// Whether a content is there.
    pub(in crate::agent) fn has(&self, id: &ContentId) -> bool {
        let name = id.digest.to_string();
        // After a power loss one may be there and be empty.
        rustix::fs::statat(&self.folder, &name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| u64::try_from(stat.st_size) == Ok(id.size))
    }

    /// Opens a content.
    pub(in crate::agent) fn open(&self, id: &ContentId) -> io::Result<File> {
        let name = id.digest.to_string();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.folder, &name, flags, Mode::empty())?))
    }

    /// Makes all that was kept durable.
    pub(in crate::agent) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.folder)?)
    }

    /// How many bytes are kept.
    pub(in crate::agent) fn size(&self) -> io::Result<u64> {
        let sizes = self.names()?.into_iter().map(|name| {
            let stat = rustix::fs::statat(&self.folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(u64::try_from(stat.st_size).unwrap_or(0))
        });
        sizes.sum()
    }

    /// Removes what is not wanted any more.
    pub(in crate::agent) fn sweep(&self, wanted: &HashSet<Digest>) -> io::Result<()> {
        let wanted: HashSet<String> = wanted.iter().map(ToString::to_string).collect();
        for name in self.names()? {
            if !name.to_str().is_ok_and(|name| wanted.contains(name)) {
                rustix::fs::unlinkat(&self.folder, &name, AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Removes contents that came half-way.
    pub(in crate::agent) fn tidy(&self) {
        let names = self.names().unwrap_or_default();
        for name in names.iter().filter(|name| name.to_bytes().starts_with(b".")) {
            let _ = rustix::fs::unlinkat(&self.folder, name, AtFlags::empty());
        }
    }

    fn names(&self) -> io::Result<Vec<CString>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.folder)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        Ok(names)
    }
}

fn copy(content: &mut impl Read, file: &mut File, id: &ContentId) -> io::Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    let mut size = 0;
    loop {
        let count = content.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        size += count as u64;
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count])?;
        if size > id.size {
            break;
        }
    }
    if (ContentId { digest: Digest::finish(&hasher), size }) == *id {
        return Ok(());
    }
    let message = "it is not the content any more that this was planned on";
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}
