use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{ContentId, Digest};

/// How long a file has to have rested before its digest is remembered.
///
/// Two things can change a file and leave its ctime as it was: a second write within one tick of
/// the kernel's clock (some milliseconds; git calls such an index entry racily clean), and a write
/// through a shared mapping to a page that is dirty already. Dirty pages are written back after at
/// most 35 s (`dirty_expire_centisecs` and `dirty_writeback_centisecs`, proc_sys_vm(5)), and the
/// next write to them sets the ctime anew.
const REST: Duration = Duration::from_secs(60);
/// Smaller files are read about as fast as they are looked up.
const WORTH: u64 = 4096;
/// Most files that are remembered.
const MOST: usize = 65_536;
/// Most bytes of a file of digests that are read.
const FILE_LIMIT: u64 = 8 << 20;
/// What a file of digests begins with; the number is that of its format.
const MAGIC: &[u8] = b"converge digests 1\n";
/// Local file systems on which every write to a file sets its ctime, by this machine's clock:
/// ext, xfs, btrfs, f2fs, zfs, bcachefs and overlayfs (statfs(2)).
const RELIABLE: [u32; 7] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x2fc1_2fc1, 0xca45_1a4e, 0x794c_7630];

/// Digests of large files that earlier runs have read, so that what has not changed since need not
/// be read again.
///
/// A digest counts only for a file with the same device, inode, size, mtime and ctime, all in
/// nanoseconds, and is only remembered if the ctime was [`REST`] old by then. No program can set a
/// ctime, so a file that was changed and given its old size and mtime is seen.
///
/// They are kept in one file, which is replaced whole. It is read only if it belongs to the user
/// of this process and to nobody else's eyes or hands (0600), and is ignored if anything about it
/// is odd; losing it costs time only.
#[derive(Debug, Default)]
pub struct Digests {
    file: Option<PathBuf>,
    /// What was changed after that is not remembered; in seconds and nanoseconds.
    settled: (i64, i64),
    known: OnceLock<HashMap<Inode, Seen>>,
    learned: Mutex<HashMap<Inode, Seen>>,
}

/// Device and number.
type Inode = (u64, u64);

/// A file when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    digest: Digest,
}

impl Seen {
    fn of(metadata: &fs::Metadata, digest: Digest) -> Self {
        Self {
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            digest,
        }
    }
}

impl Digests {
    /// Those in a file, which need not exist. `now` is a time before anything is read.
    pub fn new(file: PathBuf, now: SystemTime) -> Self {
        let settled = now.checked_sub(REST).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let settled = settled.unwrap_or_default();
        let seconds = i64::try_from(settled.as_secs()).unwrap_or(i64::MAX);
        let settled = (seconds, i64::from(settled.subsec_nanos()));
        Self { file: Some(file), settled, ..Self::default() }
    }

    /// The content of a regular file that is as it was when it was last read.
    pub fn get(&self, metadata: &fs::Metadata) -> Option<ContentId> {
        let file = self.file.as_ref().filter(|_| metadata.len() >= WORTH)?;
        let known = self.known.get_or_init(|| read(file).unwrap_or_default());
        let seen = known.get(&(metadata.dev(), metadata.ino()))?;
        let same = *seen == Seen::of(metadata, seen.digest);
        same.then_some(ContentId { digest: seen.digest, size: seen.size })
    }

    /// Remembers what was read from a file; `metadata` is from before reading.
    pub fn learn(&self, file: &File, metadata: &fs::Metadata, content: ContentId) {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let worth = self.file.is_some() && content.size >= WORTH;
        if !worth || content.size != metadata.len() || changed > self.settled || !reliable(file) {
            return;
        }
        let seen = Seen::of(metadata, content.digest);
        self.learned().insert((metadata.dev(), metadata.ino()), seen);
    }

    /// Writes down what was learned, if anything was. A failure is harmless.
    pub fn save(&self) {
        let mut all = std::mem::take(&mut *self.learned());
        let Some(file) = self.file.as_ref().filter(|_| !all.is_empty()) else { return };
        for (inode, seen) in self.known.get().into_iter().flatten() {
            if all.len() >= MOST {
                break;
            }
            all.entry(*inode).or_insert(*seen);
        }
        let records: Vec<_> = all.into_iter().take(MOST).collect();
        let _ = write(file, &records);
    }

    fn learned(&self) -> MutexGuard<'_, HashMap<Inode, Seen>> {
        self.learned.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Whether a file's ctime tells of every change.
fn reliable(file: &File) -> bool {
    // The type's width differs between architectures; its low half is the number.
    rustix::fs::fstatfs(file).is_ok_and(|stat| RELIABLE.contains(&(stat.f_type as u32)))
}

/// The records of a file; none if it is not ours alone, or not whole.
fn read(path: &Path) -> Option<HashMap<Inode, Seen>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).custom_flags(flags.bits().cast_signed()).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if !ours || !metadata.is_file() || metadata.mode() & 0o7777 != 0o600 {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 > FILE_LIMIT {
        return None;
    }
    let (body, check) = bytes.split_last_chunk::<32>()?;
    if blake3::hash(body).as_bytes() != check {
        return None;
    }
    let records: Vec<(Inode, Seen)> = postcard::from_bytes(body.strip_prefix(MAGIC)?).ok()?;
    (records.len() <= MOST).then(|| records.into_iter().collect())
}

fn write(path: &Path, records: &[(Inode, Seen)]) -> io::Result<()> {
    let mut bytes = postcard::to_extend(records, MAGIC.to_vec()).map_err(io::Error::other)?;
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    if let Some(folder) = path.parent() {
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(folder)?;
    }
    let new = path.with_extension("new");
    // What a run that was cut off has left is not written into: it may be somebody else's.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(&bytes).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Its name, what happens, and whether the digest counts after that.
    type Case = (&'static str, fn(&Path), bool);

    /// A folder on the disk, since digests of a memory file system are not remembered.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir_in(env!("OUT_DIR")).unwrap();
        assert!(reliable(&File::open(folder.path()).unwrap()), "target/ is on a disk");
        folder
    }

    fn bytes(letter: &str) -> String {
        letter.repeat(usize::try_from(WORTH).unwrap())
    }

    fn learn(digests: &Digests, path: &Path) -> ContentId {
        let id = ContentId::of(&fs::read(path).unwrap());
        let file = File::open(path).unwrap();
        digests.learn(&file, &file.metadata().unwrap(), id);
        id
    }

    /// Long enough after whatever a test writes.
    fn later() -> SystemTime {
        SystemTime::now() + REST + Duration::from_secs(1)
    }

    #[test]
    fn a_digest_counts_only_for_what_was_read() {
        let what: &[Case] = &[
            ("nothing", |_| {}, true),
            (
                "same size and mtime, other bytes",
                |path| {
                    let before = fs::metadata(path).unwrap().modified().unwrap();
                    fs::write(path, bytes("b")).unwrap();
                    File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
                },
                false,
            ),
            ("another size", |path| fs::write(path, bytes("a") + "a").unwrap(), false),
            ("a link more", |path| fs::hard_link(path, path.with_extension("b")).unwrap(), false),
            (
                "another file in its place",
                |path| {
                    let before = fs::metadata(path).unwrap().modified().unwrap();
                    let new = path.with_extension("new");
                    fs::write(&new, bytes("b")).unwrap();
                    File::options().write(true).open(&new).unwrap().set_modified(before).unwrap();
                    fs::rename(&new, path).unwrap();
                },
                false,
            ),
        ];
        for (name, change, counts) in what {
            let folder = folder();
            let (path, store) = (folder.path().join("a"), folder.path().join("digests"));
            fs::write(&path, bytes("a")).unwrap();
            let digests = Digests::new(store.clone(), later());
            let id = learn(&digests, &path);
            digests.save();
            // The kernel's clock ticks every few milliseconds.
            std::thread::sleep(Duration::from_millis(20));
            change(&path);
            let found = Digests::new(store, later()).get(&fs::metadata(&path).unwrap());
            assert_eq!(found, counts.then_some(id), "{name}");
        }
    }

    #[test]
    fn what_was_changed_a_moment_ago_or_is_small_is_not_remembered() {
        for (size, now, remembered) in [
            (WORTH, later(), true),
            (WORTH - 1, later(), false),
            (WORTH, SystemTime::now() + REST - Duration::from_secs(5), false),
        ] {
            let folder = folder();
            let (path, store) = (folder.path().join("a"), folder.path().join("digests"));
            fs::write(&path, vec![b'a'; usize::try_from(size).unwrap()]).unwrap();
            let digests = Digests::new(store.clone(), now);
            learn(&digests, &path);
            digests.save();
            let found = Digests::new(store.clone(), now).get(&fs::metadata(&path).unwrap());
            assert_eq!(found.is_some(), remembered, "{size} {now:?}");
            assert_eq!(store.exists(), remembered);
        }
    }

    #[test]
    fn a_file_of_digests_that_is_odd_is_not_read() {
        let root = rustix::process::geteuid().is_root();
        let odd: &[Case] = &[
            ("nothing", |_| {}, true),
            ("readable by others", |store| mode(store, 0o644), false),
            (
                "cut off",
                |store| {
                    let bytes = fs::read(store).unwrap();
                    fs::write(store, &bytes[..bytes.len() - 1]).unwrap();
                },
                false,
            ),
            (
                "a bit changed",
                |store| {
                    let mut bytes = fs::read(store).unwrap();
                    bytes[MAGIC.len() + 3] ^= 1;
                    fs::write(store, &bytes).unwrap();
                },
                false,
            ),
            (
                "a link",
                |store| {
                    let real = store.with_extension("real");
                    fs::rename(store, &real).unwrap();
                    std::os::unix::fs::symlink(&real, store).unwrap();
                },
                false,
            ),
            (
                "planted by another user",
                |store| {
                    std::os::unix::fs::chown(store, Some(65_534), Some(65_534)).unwrap();
                },
                false,
            ),
        ];
        for (name, change, counts) in odd {
            if name.contains("another user") && !root {
                continue;
            }
            let folder = folder();
            let (path, store) = (folder.path().join("a"), folder.path().join("digests"));
            fs::write(&path, bytes("a")).unwrap();
            let digests = Digests::new(store.clone(), later());
            learn(&digests, &path);
            digests.save();
            change(&store);
            let found = Digests::new(store, later()).get(&fs::metadata(&path).unwrap());
            assert_eq!(found.is_some(), *counts, "{name}");
        }
    }

    #[test]
    fn a_host_sees_what_was_changed_since_it_remembered() {
        use crate::world::{Host, RemotePath, System};
        let folder = folder();
        let (path, store) = (folder.path().join("a"), folder.path().join("digests"));
        let host = || Host::remembering(Digests::new(store.clone(), later()));
        let identify = |host: &Host| host.identify(&RemotePath::new(&path)).unwrap();
        for letter in ["a", "b"] {
            fs::write(&path, bytes(letter)).unwrap();
            for _ in 0..2 {
                let host = host();
                assert_eq!(identify(&host), ContentId::of(bytes(letter).as_bytes()));
                host.remember();
            }
            assert!(store.exists());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}
