use std::time::Duration;

use crate::world::{Answer, RemotePath};

/// Why a change could not be made: one sentence, perhaps with what the tool said below it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApplyError {
    /// What went wrong.
    pub message: String,
}

impl ApplyError {
    /// Says what went wrong.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// One call of a tool that changes the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Execution {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Runs as this user; none for the agent's own.
    pub user: Option<String>,
    /// Working directory; `/` if none.
    pub cwd: Option<RemotePath>,
    /// Added to a minimal environment.
    pub environment: Vec<(String, String)>,
    /// Fed to standard input; empty if none. Secrets go this way, never in arguments.
    pub stdin: Option<Vec<u8>>,
    /// Killed with all its children after that.
    pub timeout: Option<Duration>,
}

/// Runs the tools that changes are made with: the real host, or a script in tests.
pub trait Runner {
    /// Runs a tool to its end; its exit code is the caller's to judge.
    fn run(&self, execution: &Execution) -> Result<Answer, ApplyError>;
}
