use serde::{Deserialize, Serialize};

use crate::world::{ContentId, GroupEntry, Metadata, RemotePath, UserEntry};

/// One difference between what is and what is declared: target, before, after.
///
/// The set is closed. How a change is shown, applied, undone and encoded stands once, in this room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "accounts are few, and most changes are small anyway"
)]
pub enum Change {
    /// A path's content.
    Content {
        /// The path.
        path: RemotePath,
        /// What stands there.
        before: Content,
        /// What is to stand there.
        after: Content,
    },
    /// A path's owner, group and mode. Beside a content change of the same path, both happen in
    /// one step, so that a content is never visible under the wrong mode.
    Metadata {
        /// The path.
        path: RemotePath,
        /// None where nothing stands.
        before: Option<Metadata>,
        /// What is wanted.
        after: Metadata,
    },
    /// A user or a group.
    Account {
        /// None where it does not exist.
        before: Option<Account>,
        /// None where it is to go.
        after: Option<Account>,
    },
    /// A set of packages of one manager, in one transaction.
    Packages(PackageTransaction),
    /// A service's activity and enablement.
    Unit {
        /// With its suffix.
        name: String,
        /// What it is.
        before: UnitState,
        /// What it is to be.
        after: UnitState,
        /// How it is asked to stop, if it has to.
        stop: Stop,
    },
    /// Something that only happens.
    Act(Act),
}

/// What stands at a path, without its metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Content {
    /// Nothing.
    Absent,
    /// A regular file.
    File(ContentId),
    /// A symbolic link and where it points.
    Link(RemotePath),
    /// A directory.
    Folder,
    /// Anything else; can only be removed.
    Other,
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Account {
    /// An entry of `passwd(5)`. With `remove_home`, its home goes when it goes.
    User {
        /// The entry.
        entry: UserEntry,
        /// Whether the host chooses its numbers from the system range when they are not given.
        system: bool,
        /// Whether the home directory is made or removed together with it.
        home: HomeDirectory,
    },
    /// An entry of `group(5)`.
    Group {
        /// The entry.
        entry: GroupEntry,
        /// Whether the host chooses its number from the system range when it is not given.
        system: bool,
    },
}

/// What happens to a home directory when its user is made or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HomeDirectory {
    /// Nothing.
    Leave,
    /// Made with the user (from the host's skeleton).
    Create,
    /// Removed with the user.
    Remove,
}

/// Which packages move, all at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageTransaction {
    /// The package manager.
    pub manager: PackageManager,
    /// What moves, the requested ones first, then what comes along, by name.
    pub moves: Vec<PackageMove>,
    /// Whether recommended packages come along.
    pub recommends: bool,
    /// The target release, if one is asked for.
    pub release: Option<String>,
    /// Answers for the packages' questions: package, question, type, value.
    pub debconf: Vec<(String, String, String, String)>,
    /// Whether every installed package is upgraded.
    pub upgrade_all: bool,
    /// Whether the manager's lists have to be fetched first: with it, versions are not known yet.
    pub refresh_lists: bool,
}

/// A package manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PackageManager {
    /// Debian's.
    Apt,
}

/// One package's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageMove {
    /// The package.
    pub name: String,
    /// None if it is not installed.
    pub before: Option<PackageState>,
    /// None if it is to go.
    pub after: Option<PackageState>,
    /// Whether its configuration goes with it.
    pub purge: bool,
    /// Whether a state asks for it; otherwise it comes along.
    pub requested: bool,
    /// A `.deb` that it is installed from.
    pub source: Option<RemotePath>,
}

/// What is known of an installed package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageState {
    /// None while the lists that would tell have yet to be fetched.
    pub version: Option<String>,
    /// Whether it is held at its version.
    pub hold: bool,
}

/// What a service is declared to be; none leaves it as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitState {
    /// Whether it runs.
    pub active: bool,
    /// Whether it starts at boot.
    pub enabled: bool,
    /// Whether it can be started at all.
    pub masked: bool,
}

/// How a service is asked to stop; what is none is as its unit says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The signal, such as `SIGQUIT`.
    pub signal: Option<String>,
    /// Killed after that, in milliseconds.
    pub timeout: Option<u64>,
}

/// Something that only happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Act {
    /// A command.
    Run(Command),
    /// A running service takes up a change.
    React {
        /// With its suffix.
        unit: String,
        /// How.
        reaction: Reaction,
        /// A command that has to succeed first.
        check: Option<String>,
        /// How it is asked to stop, where it is restarted.
        stop: Stop,
    },
    /// The service manager reads its unit files again.
    ReloadManager {
        /// Whose manager; none for the system's.
        user: Option<String>,
    },
    /// Waiting until something holds.
    Wait(Wait),
}

/// How a running service takes up a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reaction {
    /// The process goes on.
    Reload,
    /// The process is replaced.
    Restart,
    /// The process is replaced because the unit cannot reload.
    RestartCannotReload,
}

/// A command to run on the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// A shell line, or a program and its arguments.
    pub run: Run,
    /// Working directory; `/` if none.
    pub cwd: Option<RemotePath>,
    /// Fed to standard input; never shown.
    pub stdin: Option<String>,
    /// Exit codes that count as success.
    pub ok_codes: Vec<i32>,
    /// A command that takes it back.
    pub undo: Option<String>,
}

/// What to execute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Run {
    /// A line for `/bin/sh -c`.
    Shell(String),
    /// A program and its arguments, without a shell.
    Program(Vec<String>),
}

/// What to wait for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    /// What has to hold.
    pub until: WaitFor,
    /// In milliseconds.
    pub within: u64,
    /// Pause between two looks, in milliseconds.
    pub every: u64,
    /// So many looks in a row have to find that it holds.
    pub successes: u32,
    /// From then on it has to go on holding for so long, in milliseconds.
    pub soak: u64,
}

/// How an `http://` address has to answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpAnswer {
    /// The address.
    pub address: String,
    /// With one of these; none: with any below 400.
    pub status: Vec<u16>,
    /// A regular expression that its body matches somewhere.
    pub body: Option<String>,
    /// Names of headers, with a regular expression for the value of each.
    pub header: Vec<(String, String)>,
}

/// What has to hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WaitFor {
    /// A TCP port of an address accepts connections: `HOST:PORT`.
    Port(String),
    /// Something stands at a path.
    Path(RemotePath),
    /// An `http://` address answers.
    Http(HttpAnswer),
    /// A shell line succeeds.
    Command(String),
}
