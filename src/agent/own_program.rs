//! Whether the program that runs is the one that was sent.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::AgentError;
use super::sweep::{CHECKED, is_digest};

/// As long as it is younger, somebody might change a program without its times changing with it.
const REST: Duration = Duration::from_secs(60);
/// Most bytes of a stamp that are looked at.
const STAMP_LIMIT: u64 = 1024;

/// The digest of the program that runs, which has to be its name if that is a digest: then
/// converge has put it there, and it has been damaged since, or on its way.
///
/// Hashing some megabytes is much of what a run without a change costs on a host. So a stamp beside
/// the program says which file was found to be right: the same device, inode, size and times are
/// the same program, by the rule of [`Digests`](crate::world::Digests).
pub(super) fn own_digest(program: &Path, now: Option<SystemTime>) -> Result<String, AgentError> {
    let own = File::open("/proc/self/exe")?;
    let metadata = own.metadata()?;
    let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stamp = is_digest(name).then(|| program.with_file_name(format!(".{name}{CHECKED}")));
    let identity = identity(&metadata);
    if stamp.as_deref().is_some_and(|stamp| is_stamped(stamp, &identity)) {
        return Ok(name.to_owned());
    }
    // In pieces: filling megabytes of new memory takes longer than hashing them.
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(own)?;
    let digest = hasher.finalize().to_string();
    let Some(stamp) = stamp else { return Ok(digest) };
    if name != digest {
        return Err(AgentError::Damaged);
    }
    if rests(&metadata, now) {
        // Without it the next run hashes once more.
        let _ = write(&stamp, &identity);
    }
    Ok(digest)
}

fn identity(metadata: &Metadata) -> String {
    format!(
        "{}:{} {} {}.{:09} {}.{:09}\n",
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec()
    )
}

/// Whether a stamp that nobody else can have written says that.
fn is_stamped(stamp: &Path, identity: &str) -> bool {
    let read = || -> io::Result<bool> {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        let file = File::options().read(true).custom_flags(flags).open(stamp)?;
        let found = file.metadata()?;
        let own = found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0;
        let mut text = String::new();
        file.take(STAMP_LIMIT).read_to_string(&mut text)?;
        Ok(own && found.is_file() && text == identity)
    };
    read().unwrap_or(false)
}

fn rests(metadata: &Metadata, now: Option<SystemTime>) -> bool {
    let settled = now.and_then(|now| now.checked_sub(REST)?.duration_since(UNIX_EPOCH).ok());
    let changed = u64::try_from(metadata.ctime()).unwrap_or(u64::MAX);
    settled.is_some_and(|settled| changed < settled.as_secs())
}

fn write(stamp: &Path, identity: &str) -> io::Result<()> {
    let new = PathBuf::from(format!("{}.{}", stamp.display(), std::process::id()));
    let mut options = File::options();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&new)?;
    let written =
        io::Write::write_all(&mut file, identity.as_bytes()).and_then(|()| fs::rename(&new, stamp));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_stamp_holds_for_the_file_that_it_was_made_of_and_nobody_else_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let (program, stamp) = (folder.path().join("program"), folder.path().join("stamp"));
        fs::write(&program, "one").unwrap();
        let found = || identity(&fs::metadata(&program).unwrap());
        assert!(!is_stamped(&stamp, &found()));
        write(&stamp, &found()).unwrap();
        assert!(is_stamped(&stamp, &found()));
        // The same size and time of change of its content: the other time tells.
        let modified = fs::metadata(&program).unwrap().modified().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&program, "two").unwrap();
        File::options().write(true).open(&program).unwrap().set_modified(modified).unwrap();
        assert!(!is_stamped(&stamp, &found()));
        write(&stamp, &found()).unwrap();
        assert!(is_stamped(&stamp, &found()));
        fs::set_permissions(&stamp, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(!is_stamped(&stamp, &found()));
        fs::remove_file(&stamp).unwrap();
        std::os::unix::fs::symlink(&program, &stamp).unwrap();
        assert!(!is_stamped(&stamp, "two"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_stamp_outlives_the_sweep_after_each_start() {
        let folder = tempfile::tempdir().unwrap();
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open("/proc/self/exe").unwrap()).unwrap();
        let program = folder.path().join(hasher.finalize().to_string());
        // What is looked at is the program that runs, wherever its name says that it lies.
        fs::write(&program, "").unwrap();
        let later = SystemTime::now() + 2 * REST;
        for _ in 0..2 {
            own_digest(&program, Some(later)).unwrap();
            let stamp = identity(&fs::metadata("/proc/self/exe").unwrap());
            let name = program.file_name().unwrap().to_str().unwrap();
            let written = folder.path().join(format!(".{name}{CHECKED}"));
            assert!(is_stamped(&written, &stamp));
            let before = fs::metadata(&program).unwrap().modified().unwrap();
            super::super::sweep::sweep(&program, later);
            super::super::sweep::sweep(&program, later + Duration::from_secs(2 * 24 * 3600));
            assert!(is_stamped(&written, &stamp));
            assert_eq!(fs::metadata(&program).unwrap().modified().unwrap(), before);
        }
    }

    #[test]
    fn a_young_program_is_not_stamped() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = fs::metadata(folder.path()).unwrap();
        let now = SystemTime::now();
        assert!(!rests(&metadata, Some(now)) && !rests(&metadata, None));
        assert!(rests(&metadata, Some(now + REST + Duration::from_secs(2))));
        assert!(!rests(&metadata, Some(UNIX_EPOCH)));
    }
}
