//! Mounting and unmounting below the sandbox's own folders.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::SandboxError;

/// Lays `upper` over `lower`, seen at `merged`; `work` is an empty folder beside `upper`.
pub(super) fn overlay(
    lower: &Path,
    upper: &Path,
    work: &Path,
    merged: &Path,
) -> Result<(), SandboxError> {
    let mut options = b"lowerdir=".to_vec();
    options.extend(escaped(lower, b"\\:,"));
    options.extend(b",upperdir=");
    options.extend(escaped(upper, b"\\,"));
    options.extend(b",workdir=");
    options.extend(escaped(work, b"\\,"));
    let failed = SandboxError::path("mounting", merged);
    match CString::new(options) {
        Ok(options) => mount("overlay", merged, "overlay", MountFlags::empty(), options.as_c_str())
            .map_err(|error| failed(error.into())),
        Err(error) => Err(failed(io::Error::new(io::ErrorKind::InvalidInput, error))),
    }
}

/// Unmounts everything at and below a folder, even while it is in use.
pub(super) fn unmount_below(folder: &Path) -> Result<(), SandboxError> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read(table).map_err(SandboxError::path("reading", table))?;
    // The table has no links in it.
    let folder = fs::canonicalize(folder).map_err(SandboxError::path("looking at", folder))?;
    for point in mount_points(&text).into_iter().rev().filter(|point| point.starts_with(&folder)) {
        unmount(&point, UnmountFlags::DETACH)
            .map_err(|error| SandboxError::path("unmounting", &point)(error.into()))?;
    }
    Ok(())
}

/// The fifth fields of proc_pid_mountinfo(5), in the order of mounting.
fn mount_points(text: &[u8]) -> Vec<PathBuf> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescaped(field))))
        .collect()
}

/// Blanks, tabs, line ends and backslashes stand there as three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    bytes
}

/// A path with the bytes that mean something to the reader behind a backslash.
pub(super) fn escaped(path: &Path, special: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for byte in OsStr::as_bytes(path.as_os_str()) {
        if special.contains(byte) {
            bytes.push(b'\\');
        }
        bytes.push(*byte);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_they_were_written() {
        let text = b"22 1 8:1 / / rw - ext4 /dev/vda rw\n49 27 0:39 / /var/my\\040hosts\\134/root rw - overlay overlay rw\n";
        assert_eq!(mount_points(text), [PathBuf::from("/"), PathBuf::from("/var/my hosts\\/root")]);
        assert_eq!(escaped(Path::new("/a,b:c"), b"\\:,"), b"/a\\,b\\:c");
    }
}
