use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Programs that no run has used for so long are removed.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);
/// How often a program is marked as used.
const MARKED: Duration = Duration::from_secs(7 * 24 * 3600);
/// An upload that has not ended by then never will.
const STALE_UPLOAD: Duration = Duration::from_secs(24 * 3600);

/// Marks this program as used, and removes what older versions and cut-off uploads have left
/// beside it. Whatever cannot be removed is left for the next run.
pub(super) fn sweep(program: &Path, now: SystemTime) {
    let (Some(folder), Some(name)) = (program.parent(), program.file_name()) else { return };
    // A program that lies anywhere else was started by hand.
    if !name.to_str().is_some_and(is_digest) {
        return;
    }
    // Not each time: the program's times tell whether it is the one that was found to be right.
    let used = |file: &File| file.metadata()?.modified();
    let _ = File::open(program).and_then(|file| {
        let since = now.duration_since(used(&file)?).unwrap_or_default();
        if since > MARKED { file.set_modified(now) } else { Ok(()) }
    });
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let other = entry.file_name();
        let Some(text) = other.to_str().filter(|_| other != name) else { continue };
        let stamped = text.strip_prefix('.').and_then(|rest| rest.strip_suffix(CHECKED));
        if stamped.is_some_and(|program| folder.join(program).exists()) {
            continue;
        }
        let limit = if is_digest(text) {
            UNUSED
        } else if text.strip_prefix('.').is_some_and(|rest| rest.get(..64).is_some_and(is_digest)) {
            STALE_UPLOAD
        } else {
            continue;
        };
        let age = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|modified| now.duration_since(modified).ok());
        if age.is_some_and(|age| age > limit) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// How the name of a stamp ends that says that a program was found to be right.
pub(super) const CHECKED: &str = ".checked";

/// Whether a file's name is one that converge gives to programs.
pub(super) fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_programs_and_uploads_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let digest = |letter: &str| letter.repeat(64);
        let days = |count: u64| Duration::from_secs(count * 24 * 3600);
        let files = [
            (digest("a"), days(40), true),
            (digest("b"), days(40), false),
            (digest("c"), days(20), true),
            (format!(".{}.12", digest("d")), days(2), false),
            (format!(".{}.13", digest("d")), days(0), true),
            (String::from("other"), days(100), true),
        ];
        for (name, age, _) in &files {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(now - *age).unwrap();
        }
        sweep(&folder.path().join(digest("a")), now);
        for (name, _, kept) in &files {
            assert_eq!(folder.path().join(name).exists(), *kept, "{name}");
        }
    }
}
