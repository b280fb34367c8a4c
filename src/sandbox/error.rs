//! What can go wrong with throw-away hosts, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a throw-away host could not be made, reached or ended.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Something that the machine has to have is not there.
    #[error("throw-away hosts need {}", needs(*.root, .packages))]
    Requirements {
        /// Whether the rights of root are missing.
        root: bool,
        /// Debian packages whose programs were not found.
        packages: Vec<&'static str>,
    },
    /// A program could not be started at all.
    #[error("`{command}` could not be started: {source}")]
    Start {
        /// The program and its arguments.
        command: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A program said that it failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Failed {
        /// The program and its arguments.
        command: String,
        /// Its exit code or signal.
        status: String,
        /// The end of what it wrote to its standard error.
        stderr: String,
    },
    /// A program was ended because it took too long.
    #[error("`{command}` was ended after {} s: {stderr}", .limit.as_secs())]
    TimedOut {
        /// The program and its arguments.
        command: String,
        /// How long it was given.
        limit: Duration,
        /// The end of what it wrote to its standard error.
        stderr: String,
    },
    /// A file, a folder or a mount could not be handled.
    #[error("{doing} {}: {source}", .path.display())]
    Path {
        /// The act, for example `writing`.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The machine's apt sources name no Debian mirror with that suite.
    #[error("the machine's apt sources name no Debian mirror that has {suite}")]
    NoMirror {
        /// Debian's code name.
        suite: String,
    },
    /// A name that no host can have.
    #[error(
        "`{name}` cannot be the name of a throw-away host: letters, digits, `-`, `_` and `.`, at most 64"
    )]
    HostName {
        /// The name.
        name: String,
    },
    /// More hosts than one sandbox has addresses for.
    #[error("a sandbox has room for {0} hosts")]
    TooMany(u16),
    /// A host that is not up.
    #[error("the throw-away host {name} is not up")]
    NoHost {
        /// Its name.
        name: String,
    },
    /// A host that did not come up.
    #[error("the throw-away host {host} did not boot: {reason}\n{console}")]
    Boot {
        /// Its name.
        host: String,
        /// What was waited for.
        reason: String,
        /// The end of its console.
        console: String,
    },
    /// The network of the hosts could not be reached.
    #[error("{doing} {target}: {source}")]
    Network {
        /// The act, for example `connecting to`.
        doing: &'static str,
        /// With what.
        target: String,
        /// The system's reason.
        source: io::Error,
    },
}

impl SandboxError {
    /// The way out, where there is a known one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Requirements { root, packages } => {
                let install = format!("apt-get install {}", packages.join(" "));
                Some(match (root, packages.is_empty()) {
                    (true, true) => "run it as root, for example with sudo".to_owned(),
                    (true, false) => format!("as root: {install}; then run converge as root"),
                    (false, _) => install,
                })
            }
            Self::NoMirror { suite } => Some(format!(
                "add a source with the suite {suite} and the component main to /etc/apt/sources.list.d"
            )),
            Self::Path { doing: "mounting", .. } => Some(
                "the cache and the state folder must lie on a file system that an overlay can be made of (ext4, xfs, btrfs, tmpfs; not another overlay), and mounting must be permitted".to_owned(),
            ),
            Self::Boot { .. } => Some(
                "`converge sandbox down` removes what is left; its console is shown above".to_owned(),
            ),
            Self::NoHost { .. } => Some("`converge sandbox up` boots the inventory's hosts".to_owned()),
            _ => None,
        }
    }

    /// Makes `map_err` short for whatever is done to a path.
    pub(super) fn path(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Path { doing, path: path.to_owned(), source }
    }
}

fn needs(root: bool, packages: &[&str]) -> String {
    let programs = format!("programs of {}", packages.join(", "));
    match (root, packages.is_empty()) {
        (true, true) => "the rights of root".to_owned(),
        (true, false) => format!("the rights of root, and {programs}"),
        (false, _) => programs,
    }
}
