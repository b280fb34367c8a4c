//! Files that keep two processes from making the same thing at once.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::{Progress, SandboxError};

/// Held until it is dropped, or the process ends in whatever way.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, waiting for whoever holds it; `doing` says in the progress what is waited for.
    pub fn take(path: &Path, doing: &str, progress: Progress<'_>) -> Result<Self, SandboxError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(SandboxError::path("making the folder", folder))?;
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(SandboxError::path("opening the lock", path))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            progress(&format!("waiting for another process that is {doing}"));
            flock(&file, FlockOperation::LockExclusive)
                .map_err(|error| SandboxError::path("locking", path)(error.into()))?;
        }
        Ok(Self { _file: file })
    }
}
