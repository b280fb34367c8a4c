use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::report::RunInfo;
use crate::world::process::{Identity, acting_as};

/// How long a lock may be had by who only looks whether it is free.
const MOMENT: Duration = Duration::from_millis(200);
/// Most bytes of a lock file that are believed.
const HOLDER_LIMIT: u64 = 16 << 10;

/// Where an agent keeps what outlives a run: the lock, journals, and the contents that undo needs.
///
/// `/var/lib/converge` as root, `~/.local/state/converge/<machine-id>` otherwise, since homes may
/// be shared between machines. The place of the agent's program never moves it.
#[derive(Clone, Debug)]
pub(in crate::agent) struct StateFolder {
    path: PathBuf,
    /// Called before and after each line of a journal.
    on_journal: Option<fn()>,
}

/// Who holds a lock, as its file says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::agent) struct Holder {
    /// The run.
    pub(in crate::agent) run: RunInfo,
    /// The agent's process.
    pub(in crate::agent) process: u32,
}

/// The right to change a host, or to act as an account: gone with the process.
pub(in crate::agent) struct Lock {
    file: File,
}

impl Lock {
    /// The same lock for another process: it is held until both have ended.
    pub(in crate::agent) fn again(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }
}

/// Why a lock was not had.
#[derive(Debug)]
pub(in crate::agent) enum NotLocked {
    /// Another run has it; who, if its file can be read.
    Held(Option<Box<Holder>>),
    /// It could not be tried.
    Failed(io::Error),
}

impl From<io::Error> for NotLocked {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl StateFolder {
    /// The folder of the agent that runs as this user.
    pub(in crate::agent) fn of(own: &Identity) -> Self {
        if own.uid == 0 {
            return Self::at(Path::new("/var/lib/converge"));
        }
        Self::at_home(&own.home)
    }

    /// A folder of that name, for whoever runs the agent elsewhere.
    pub(in crate::agent) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), on_journal: None }
    }

    fn at_home(home: &str) -> Self {
        Self::at(&Path::new(home).join(".local/state/converge").join(machine_id()))
    }

    /// The folder, with what is called before and after each line of a journal in it.
    pub(in crate::agent) fn watched_by(self, on_journal: Option<fn()>) -> Self {
        Self { on_journal, ..self }
    }

    /// Adds a line to a journal. One that comes half-way is for the caller to remove.
    pub(in crate::agent) fn add_line(&self, journal: &mut File, line: &[u8]) -> io::Result<()> {
        self.on_journal.iter().for_each(|call| call());
        journal.write_all(line)?;
        self.on_journal.iter().for_each(|call| call());
        Ok(())
    }

    /// Where it is, for messages.
    pub(in crate::agent) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a folder in it; with `make`, makes what is missing. What is not the agent's alone
    /// cannot be relied upon.
    pub(in crate::agent) fn open(&self, name: &str, make: bool) -> io::Result<OwnedFd> {
        let path = self.path.join(name);
        if make {
            let mut builder = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.recursive(true).create(&path)?;
        }
        for folder in [&self.path, &path] {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = rustix::fs::open(folder, flags, Mode::empty())?;
            let stat = rustix::fs::fstat(&opened)?;
            if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
                let message = format!("{} can be written by others", folder.display());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::open(&path, flags, Mode::empty())?)
    }

    /// Takes the host's lock for a run, or says who has it. Never waits.
    pub(in crate::agent) fn try_lock(&self, run: &RunInfo) -> Result<Lock, NotLocked> {
        let folder = self.open("", true)?;
        try_lock(&folder, run)
    }

    /// Who changes this host at the moment, if anybody does. Nothing is written.
    pub(in crate::agent) fn holder(&self) -> Option<Holder> {
        let folder = self.open("", false).ok()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&folder, "lock", flags, Mode::empty()).ok()?);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(rustix::io::Errno::WOULDBLOCK) => Some(read_holder(&mut file).unwrap_or_default()),
            _ => None,
        }
    }
}

/// Takes the lock of another account for a run: whoever converges as that user has a state folder
/// in its home. An account that never did has none, and nothing is made there.
pub(in crate::agent) fn try_lock_account(
    account: &Identity,
    run: &RunInfo,
) -> Result<Option<Lock>, NotLocked> {
    let folder = StateFolder::at_home(&account.home).path;
    acting_as(account, || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(&folder, flags, Mode::empty()) {
            Ok(folder) => try_lock(&folder, run).map(Some),
            Err(_) => Ok(None),
        }
    })?
}

fn try_lock(folder: &OwnedFd, run: &RunInfo) -> Result<Lock, NotLocked> {
    // A pipe in its place would be waited for.
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(folder, "lock", flags, Mode::from_raw_mode(0o600));
    let mut file = File::from(opened.map_err(io::Error::from)?);
    if !file.metadata()?.is_file() {
        let message = "the lock is not a regular file";
        return Err(NotLocked::Failed(io::Error::new(io::ErrorKind::InvalidInput, message)));
    }
    let begun = Instant::now();
    let locked = loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // Somebody who only looks has it for a moment.
            Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < MOMENT => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => break other,
        }
    };
    match locked {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(NotLocked::Held(read_holder(&mut file).map(Box::new)));
        }
        Err(error) => return Err(NotLocked::Failed(error.into())),
    }
    let holder = Holder { run: run.clone(), process: std::process::id() };
    // Who holds it is for people; a full disk is no reason to go without the lock.
    let text = serde_json::to_vec(&holder).unwrap_or_default();
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&text));
    Ok(Lock { file })
}

fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = Vec::new();
    file.take(HOLDER_LIMIT).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// What tells this machine from others that share its homes; as the script that starts the agent
/// has it.
fn machine_id() -> String {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let id = read("/etc/machine-id")
        .filter(|id| !id.trim().is_empty())
        .or_else(|| read("/var/lib/dbus/machine-id"))
        .map(|id| id.lines().next().unwrap_or_default().trim().to_owned())
        .filter(|id| !id.is_empty() && !id.contains('/'));
    id.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// Writes a file of a state folder whole: beside it, synced, renamed.
pub(in crate::agent) fn replace(folder: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = format!(".{name}.new");
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(folder, &new, flags, Mode::from_raw_mode(0o600))?;
    let mut file = File::from(opened);
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = rustix::fs::unlinkat(folder, &new, AtFlags::empty());
        return Err(error);
    }
    rustix::fs::renameat(folder, &new, folder, name)?;
    Ok(rustix::fs::fsync(folder)?)
}
