//! Putting contents in place: whole or not at all, under the right owner and mode from the first
//! moment, and never through a link that another user could have planted.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::fs::{Gid, Uid};

use crate::world::RemotePath;
use crate::world::links::{self, Last};

/// From that many on, one sync of a file system is cheaper than one for each file or folder.
pub const SYNC_FILE_SYSTEM: usize = 16;
/// Most folders that are held open until they are synced.
const HELD_FOLDERS: usize = 100;

/// Owner, group and mode as the kernel takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The lower twelve bits.
    pub mode: u32,
}

/// What stands under a temporary name.
#[derive(Clone, Copy)]
enum Purpose {
    /// What is to come.
    New,
    /// What stood there before.
    Old,
}

/// A name in a folder that is held open, so that nobody can swap the folder in between.
pub struct Place {
    /// Shared by all places in it, so that many files need few descriptors.
    folder: Arc<OwnedFd>,
    name: OsString,
    path: RemotePath,
}

/// A new file content, complete but not yet visible.
pub struct Staged {
    place: Place,
    /// None once it was let go of; then it has a name.
    file: Option<File>,
    /// Its name, if it has one by now.
    name: Option<OsString>,
}

/// A file that was put in place, with what stood there kept aside until it is settled.
pub struct Backup {
    place: Place,
    /// None where nothing stood.
    name: Option<OsString>,
}

impl Place {
    /// Opens the folder of a path. As root, links on the way are followed only out of folders
    /// that nobody but root can write.
    pub fn open(path: &RemotePath) -> io::Result<Self> {
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let name = path.as_path().file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let folder =
            links::open(parent.as_path(), OFlags::PATH | OFlags::DIRECTORY, Last::Followed)?;
        Ok(Self { folder: Arc::new(folder), name, path: path.clone() })
    }

    /// The same place once more.
    fn again(&self) -> Self {
        let Self { folder, name, path } = self;
        Self { folder: Arc::clone(folder), name: name.clone(), path: path.clone() }
    }

    fn stat(&self) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A name beside the place. It is the same each time, so that what a run that was killed has left under it is
    /// in the way of the next one, which replaces it.
    fn temporary_name(&self, purpose: Purpose) -> OsString {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.path.as_bytes());
        hasher.update(&[0, purpose as u8]);
        let hash = hasher.finalize().to_hex();
        let mut name = b".".to_vec();
        let stem = self.name.as_bytes();
        name.extend_from_slice(&stem[..stem.len().min(200)]);
        name.extend_from_slice(format!(".converge-{}", &hash[..16]).as_bytes());
        OsString::from_vec(name)
    }

    /// Makes something under a temporary name, in place of what an earlier run has left there.
    fn make_anew<T>(
        &self,
        name: &OsStr,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        match make() {
            Err(rustix::io::Errno::EXIST) => {
                rustix::fs::unlinkat(&self.folder, name, AtFlags::empty())?;
                Ok(make()?)
            }
            made => Ok(made?),
        }
    }

    /// Syncs the folder, so that names in it outlive a power loss.
    fn sync(&self) -> io::Result<()> {
        let folder = rustix::fs::openat(
            &self.folder,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        match folder {
            Ok(folder) => Ok(rustix::fs::fsync(folder)?),
            // A folder that may be written but not read cannot be synced by its user.
            Err(rustix::io::Errno::ACCESS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What has to be synced now that a name here has changed.
    fn settled(&self) -> Settled {
        Settled { folder: Arc::clone(&self.folder) }
    }

    /// Makes a directory.
    pub fn make_folder(&self, numbers: Numbers) -> io::Result<Settled> {
        rustix::fs::mkdirat(&self.folder, &self.name, Mode::from_raw_mode(0o700))?;
        self.set_numbers(numbers)?;
        Ok(self.settled())
    }

    /// Makes or replaces a symbolic link. Without an owner it gets that of the link that it replaces.
    pub fn make_link(&self, target: &Path, owner: Option<(u32, u32)>) -> io::Result<Settled> {
        let owner = match owner {
            Some(owner) => Some(owner),
            None => self
                .stat()?
                .filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
                .map(|stat| (stat.st_uid, stat.st_gid)),
        };
        let temporary = self.temporary_name(Purpose::New);
        self.make_anew(&temporary, || rustix::fs::symlinkat(target, &self.folder, &temporary))?;
        let result = self.own_link(&temporary, owner).and_then(|()| {
            rustix::fs::renameat(&self.folder, &temporary, &self.folder, &self.name)
                .map_err(io::Error::from)
        });
        if result.is_err() {
            let _ = rustix::fs::unlinkat(&self.folder, &temporary, AtFlags::empty());
        }
        result?;
        Ok(self.settled())
    }

    fn own_link(&self, name: &OsStr, owner: Option<(u32, u32)>) -> io::Result<()> {
        if let Some((uid, gid)) = owner {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(&self.folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// Removes what stands there; a directory has to be empty.
    pub fn remove(&self) -> io::Result<Settled> {
        let Some(stat) = self.stat()? else { return Ok(self.settled()) };
        let flags = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        rustix::fs::unlinkat(&self.folder, &self.name, flags)?;
        Ok(self.settled())
    }

    /// Sets owner, group and mode of what stands there; a link gets only the owner.
    pub fn set_numbers(&self, numbers: Numbers) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = rustix::fs::openat(&self.folder, &self.name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&held)?;
        if stat.st_uid != numbers.uid || stat.st_gid != numbers.gid {
            let (uid, gid) = (Some(Uid::from_raw(numbers.uid)), Some(Gid::from_raw(numbers.gid)));
            rustix::fs::chownat(&held, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            let by_descriptor = format!("/proc/self/fd/{}", held.as_raw_fd());
            let mode = Mode::from_raw_mode(numbers.mode);
            rustix::fs::chmodat(CWD, by_descriptor.as_str(), mode, AtFlags::empty())?;
        }
        Ok(())
    }
}

impl Staged {
    /// Writes a content beside its place. Without `numbers` it gets those of the file that it
    /// replaces.
    pub fn write(
        place: Place,
        numbers: Option<Numbers>,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let (file, name) = match rustix::fs::openat(&place.folder, ".", flags, mode) {
            Ok(file) => (file, None),
            Err(
                rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::NOENT,
            ) => {
                let name = place.temporary_name(Purpose::New);
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let open = || rustix::fs::openat(&place.folder, &name, flags, mode);
                let file = place.make_anew(&name, open)?;
                (file, Some(name))
            }
            Err(error) => return Err(error.into()),
        };
        let mut file = File::from(file);
        let mut staged = Self { place, file: None, name };
        fill(&mut file)?;
        let numbers = match numbers {
            Some(numbers) => Some(numbers),
            None => staged.place.stat()?.map(|stat| Numbers {
                uid: stat.st_uid,
                gid: stat.st_gid,
                mode: stat.st_mode & 0o7777,
            }),
        };
        if let Some(numbers) = numbers {
            let own = rustix::fs::fstat(&file)?;
            if own.st_uid != numbers.uid || own.st_gid != numbers.gid {
                let (uid, gid) = (Uid::from_raw(numbers.uid), Gid::from_raw(numbers.gid));
                rustix::fs::fchown(&file, Some(uid), Some(gid))?;
            }
            rustix::fs::fchmod(&file, Mode::from_raw_mode(numbers.mode))?;
        }
        staged.file = Some(file);
        Ok(staged)
    }

    /// Gives it a name beside its place, where a check can read it: another user could not look at
    /// this process's open files.
    pub fn candidate(&mut self) -> io::Result<PathBuf> {
        let name = match (self.name.take(), &self.file) {
            (Some(name), _) => name,
            (None, Some(file)) => {
                let name = self.place.temporary_name(Purpose::New);
                let file = format!("/proc/self/fd/{}", file.as_raw_fd());
                let follow = AtFlags::SYMLINK_FOLLOW;
                let folder = &self.place.folder;
                let link = || rustix::fs::linkat(CWD, file.as_str(), folder, &name, follow);
                self.place.make_anew(&name, link)?;
                name
            }
            (None, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        let folder = self.place.path.parent();
        let path = folder.map_or_else(PathBuf::new, |folder| folder.as_path().join(&name));
        // Making it visible renames it, letting go of it removes it.
        self.name = Some(name);
        Ok(path)
    }

    /// Closes its file, under a name: a process may have only so many open.
    pub fn let_go(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            self.candidate()?;
            self.file = None;
        }
        Ok(())
    }

    /// Its file, or the folder that it is in: something of its file system.
    fn opened(&self) -> io::Result<OwnedFd> {
        if let Some(file) = &self.file {
            return Ok(file.try_clone()?.into());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&self.place.folder, ".", flags, Mode::empty());
        match (folder, &self.name) {
            // A folder that may be written but not read.
            (Err(rustix::io::Errno::ACCESS), Some(name)) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                Ok(rustix::fs::openat(&self.place.folder, name, flags, Mode::empty())?)
            }
            (folder, _) => Ok(folder?),
        }
    }

    /// The file system that it is on.
    pub fn file_system(&self) -> io::Result<FileSystem> {
        Ok(FileSystem(self.opened()?))
    }

    /// The place of another path, if it is in the same folder, which is held open already.
    pub fn beside(&self, path: &RemotePath) -> Option<Place> {
        let same = path.parent()? == self.place.path.parent()?;
        let name = path.as_path().file_name()?.to_owned();
        let folder = Arc::clone(&self.place.folder);
        same.then(|| Place { folder, name, path: path.clone() })
    }

    /// Where it is going to stand.
    pub fn path(&self) -> &RemotePath {
        &self.place.path
    }

    /// Makes many contents durable at once, each file system they are on in one go.
    pub fn sync_file_systems<'a>(staged: impl Iterator<Item = &'a Staged>) -> io::Result<()> {
        let mut seen = HashSet::new();
        for one in staged {
            if seen.insert(rustix::fs::fstat(&one.place.folder)?.st_dev) {
                rustix::fs::syncfs(one.opened()?)?;
            }
        }
        Ok(())
    }

    /// Makes the content durable, still invisible.
    pub fn sync(&self) -> io::Result<()> {
        match &self.file {
            Some(file) => file.sync_all(),
            None => Ok(rustix::fs::syncfs(self.opened()?)?),
        }
    }

    /// Makes the content visible, in one step, and gives the folder back for its sync.
    pub fn commit(mut self) -> io::Result<Settled> {
        let name = match (self.name.take(), &self.file) {
            (Some(name), _) => name,
            (None, None) => return Err(io::ErrorKind::NotFound.into()),
            (None, Some(file)) => {
                let by_descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
                let follow = AtFlags::SYMLINK_FOLLOW;
                let place = &self.place;
                if place.stat()?.is_none() {
                    let linked = rustix::fs::linkat(
                        CWD,
                        by_descriptor.as_str(),
                        &place.folder,
                        &place.name,
                        follow,
                    );
                    match linked {
                        Ok(()) => return Ok(place.settled()),
                        Err(rustix::io::Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                let name = place.temporary_name(Purpose::New);
                let link = || {
                    rustix::fs::linkat(CWD, by_descriptor.as_str(), &place.folder, &name, follow)
                };
                place.make_anew(&name, link)?;
                name
            }
        };
        let place = &self.place;
        if let Err(error) = rustix::fs::renameat(&place.folder, &name, &place.folder, &place.name) {
            let _ = rustix::fs::unlinkat(&place.folder, &name, AtFlags::empty());
            return Err(error.into());
        }
        Ok(place.settled())
    }

    /// Keeps what stands at the place aside, so that it can be put back.
    pub fn keep_before(&self) -> io::Result<Backup> {
        let place = self.place.again();
        let name = match place.stat()? {
            None => None,
            Some(_) => {
                let name = place.temporary_name(Purpose::Old);
                let flags = AtFlags::empty();
                let link =
                    || rustix::fs::linkat(&place.folder, &place.name, &place.folder, &name, flags);
                place.make_anew(&name, link)?;
                Some(name)
            }
        };
        Ok(Backup { place, name })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = rustix::fs::unlinkat(&self.place.folder, name, AtFlags::empty());
        }
    }
}

/// A file system, by something that is open on it.
pub struct FileSystem(OwnedFd);

impl FileSystem {
    /// Makes durable what was written to it so far.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.0)?)
    }
}

/// The folder of a name that has changed.
pub struct Settled {
    folder: Arc<OwnedFd>,
}

/// Folders in which names have changed, each once, until that is made durable.
#[derive(Default)]
pub struct Unsynced {
    folders: HashMap<(u64, u64), Arc<OwnedFd>>,
}

impl Unsynced {
    /// Takes in a folder. Where it would be too many to be held open, all are synced.
    pub fn add(&mut self, settled: Settled) -> io::Result<()> {
        let stat = rustix::fs::fstat(&settled.folder)?;
        self.folders.entry((stat.st_dev, stat.st_ino)).or_insert(settled.folder);
        if self.folders.len() < HELD_FOLDERS { Ok(()) } else { self.sync() }
    }

    /// Makes all names durable.
    pub fn sync(&mut self) -> io::Result<()> {
        let whole = self.folders.len() >= SYNC_FILE_SYSTEM;
        let mut seen = HashSet::new();
        for ((device, _), folder) in self.folders.drain() {
            if whole && seen.contains(&device) {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match rustix::fs::openat(&folder, ".", flags, Mode::empty()) {
                Ok(folder) if whole => {
                    rustix::fs::syncfs(folder)?;
                    seen.insert(device);
                }
                Ok(folder) => rustix::fs::fsync(folder)?,
                // A folder that may be written but not read cannot be synced by its user.
                Err(rustix::io::Errno::ACCESS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Backup {
    /// Puts back what stood there.
    pub fn restore(mut self) -> io::Result<()> {
        match self.name.take() {
            Some(name) => {
                let place = &self.place;
                rustix::fs::renameat(&place.folder, &name, &place.folder, &place.name)?;
                // Of two names of one file, rename keeps both.
                let _ = rustix::fs::unlinkat(&place.folder, &name, AtFlags::empty());
                place.sync()
            }
            None => {
                self.place.remove()?;
                self.place.sync()
            }
        }
    }

    /// Lets go of what stood there.
    pub fn discard(mut self) {
        self.unlink();
    }

    fn unlink(&mut self) {
        if let Some(name) = self.name.take() {
            let _ = rustix::fs::unlinkat(&self.place.folder, &name, AtFlags::empty());
        }
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        self.unlink();
    }
}

/// What a run that was killed has left beside a path.
pub struct Leftovers {
    place: Place,
}

impl Leftovers {
    /// Of that path.
    pub fn of(path: &RemotePath) -> io::Result<Self> {
        Ok(Self { place: Place::open(path)? })
    }

    /// Where it has kept what stood there before, if it has.
    pub fn kept(&self) -> io::Result<Option<RemotePath>> {
        let name = self.place.temporary_name(Purpose::Old);
        match rustix::fs::statat(&self.place.folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(self.place.path.parent().map(|folder| folder.join(&name))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts back what stood there: what was kept, or nothing.
    pub fn put_back(&self) -> io::Result<()> {
        let name = self.kept()?.map(|_| self.place.temporary_name(Purpose::Old));
        let place = self.place.again();
        Backup { place, name }.restore()
    }

    /// Removes it all. Nothing is there, in most cases.
    pub fn sweep(&self) {
        for purpose in [Purpose::New, Purpose::Old] {
            let name = self.place.temporary_name(purpose);
            let _ = rustix::fs::unlinkat(&self.place.folder, &name, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn remote(path: &Path) -> RemotePath {
        RemotePath::new(path)
    }

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "old").unwrap();
        let own = rustix::fs::stat(&path).unwrap();
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o640)).unwrap();
        let place = Place::open(&remote(&path)).unwrap();
        let mut staged = Staged::write(place, None, |file| file.write_all(b"new")).unwrap();
        assert_eq!(std::fs::read(staged.candidate().unwrap()).unwrap(), b"new");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        staged.sync().unwrap();
        let mut unsynced = Unsynced::default();
        unsynced.add(staged.commit().unwrap()).unwrap();
        unsynced.sync().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        let stat = rustix::fs::stat(&path).unwrap();
        assert_eq!((stat.st_mode & 0o7777, stat.st_uid), (0o640, own.st_uid));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left");
    }

    #[test]
    fn what_a_killed_run_has_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "old").unwrap();
        let place = Place::open(&remote(&path)).unwrap();
        let left = folder.path().join(place.temporary_name(Purpose::New));
        std::fs::write(&left, "half").unwrap();
        let staged = Staged::write(place, None, |file| file.write_all(b"new")).unwrap();
        staged.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        std::fs::write(&left, "half").unwrap();
        Place::open(&remote(&path)).unwrap().make_link(Path::new("target"), None).unwrap();
        assert_eq!(std::fs::read_link(&path).unwrap(), Path::new("target"));
        assert!(!left.exists());
    }

    #[test]
    fn files_that_were_let_go_of_are_put_in_place_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for before in [None, Some("old")] {
            if let Some(before) = before {
                std::fs::write(&path, before).unwrap();
            }
            let write = || {
                let place = Place::open(&remote(&path)).unwrap();
                let mut staged = Staged::write(place, None, |file| file.write_all(b"new")).unwrap();
                staged.let_go().unwrap();
                staged
            };
            let names = || std::fs::read_dir(folder.path()).unwrap().count();
            drop(write());
            assert_eq!(names(), usize::from(before.is_some()));
            let staged = write();
            Staged::sync_file_systems([&staged].into_iter()).unwrap();
            staged.sync().unwrap();
            staged.commit().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"new");
            assert_eq!(names(), 1);
        }
    }

    #[test]
    fn what_is_not_committed_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let place = Place::open(&remote(&path)).unwrap();
        let failed = Staged::write(place, None, |_| Err(io::Error::other("no")));
        assert!(failed.is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_backup_puts_back_what_stood_there() {
        let folder = tempfile::tempdir().unwrap();
        for before in [Some("old"), None] {
            let path = folder.path().join("file");
            let _ = std::fs::remove_file(&path);
            if let Some(before) = before {
                std::fs::write(&path, before).unwrap();
            }
            let place = Place::open(&remote(&path)).unwrap();
            let staged = Staged::write(place, None, |file| file.write_all(b"new")).unwrap();
            let backup = staged.keep_before().unwrap();
            staged.commit().unwrap();
            backup.restore().unwrap();
            assert_eq!(std::fs::read_to_string(&path).ok().as_deref(), before);
        }
    }

    #[test]
    fn a_link_that_another_user_can_plant_is_not_followed_by_root() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        std::fs::create_dir(&open).unwrap();
        rustix::fs::chmod(&open, Mode::from_raw_mode(0o777)).unwrap();
        std::os::unix::fs::symlink("/etc", open.join("link")).unwrap();
        let error = Place::open(&remote(&open.join("link/x"))).err().unwrap();
        assert!(error.to_string().contains("not followed"), "{error}");
    }
}
