use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{ContentId, Entry, GroupEntry, PackageEntry, RemotePath, UnitEntry, UserEntry};

/// Largest file that is read whole in order to be edited or compared line by line, in bytes.
pub const EDIT_LIMIT: u64 = 16 << 20;

/// Something could not be observed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct ObserveError {
    /// What was being looked at, for example `reading /etc/passwd`.
    pub doing: String,
    /// What the system said.
    pub source: io::Error,
}

impl ObserveError {
    /// Says what was being looked at.
    pub fn new(doing: impl Into<String>, source: io::Error) -> Self {
        Self { doing: doing.into(), source }
    }
}

/// A command that only looks: a guard, a simulation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Runs as this user; none for the agent's own.
    pub user: Option<String>,
    /// Working directory; `/` if none.
    pub cwd: Option<RemotePath>,
    /// Added to a minimal environment.
    pub environment: Vec<(String, String)>,
    /// Killed with all its children after that.
    pub timeout: Duration,
}

impl Probe {
    /// A program that answers quickly, run as the agent itself.
    pub fn new<const N: usize>(argv: [&str; N]) -> Self {
        Self {
            argv: argv.iter().map(ToString::to_string).collect(),
            user: None,
            cwd: None,
            environment: Vec::new(),
            timeout: Duration::from_secs(60),
        }
    }
}

/// What a probe answered; both outputs are cut at 1 MiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The exit code; 128 + n after signal n.
    pub code: i32,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub error: String,
}

/// The ways of looking at a host. Nothing here writes.
///
/// There is one for the real host and one for tests that is made from data.
pub trait System: Send + Sync {
    /// What stands at a path; the last component is not followed if it is a link.
    fn entry(&self, path: &RemotePath) -> Result<Entry, ObserveError>;
    /// The bytes of a regular file of at most [`EDIT_LIMIT`].
    fn read(&self, path: &RemotePath) -> Result<Vec<u8>, ObserveError>;
    /// Whether a user may put things into a directory, or take them out. An error for root if a
    /// link leads there that another user could have planted.
    fn may_write(&self, folder: &RemotePath, user: &str) -> Result<bool, ObserveError>;
    /// Digest and size of a regular file of any size.
    fn identify(&self, path: &RemotePath) -> Result<ContentId, ObserveError>;
    /// The names in a directory, sorted, as full paths.
    fn list(&self, path: &RemotePath) -> Result<Vec<RemotePath>, ObserveError>;
    /// All users, by name.
    fn users(&self) -> Result<Arc<BTreeMap<String, UserEntry>>, ObserveError>;
    /// All groups, by name.
    fn groups(&self) -> Result<Arc<BTreeMap<String, GroupEntry>>, ObserveError>;
    /// All packages that the manager's database knows, by name.
    fn packages(&self) -> Result<Arc<BTreeMap<String, PackageEntry>>, ObserveError>;
    /// A unit, by its full name.
    fn unit(&self, name: &str) -> Result<UnitEntry, ObserveError>;
    /// Runs a command that only looks.
    fn probe(&self, probe: &Probe) -> Result<Answer, ObserveError>;
    /// Calls `look` once for each number below `count`, perhaps on several threads.
    fn look_at_many(&self, count: usize, look: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(look);
    }
}
