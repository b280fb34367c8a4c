use serde::{Deserialize, Serialize};

use crate::change::{Account, Act, Change, Command, Content, PackageMove, PackageTransaction, Run};
use crate::kind::Declared;
use crate::lang::Prune;
use crate::report::{ChangeView, PastOutcome, RunInfo};
use crate::resource::ResourceId;
use crate::world::{GroupEntry, Metadata, RemotePath};

/// The version of the journal's and the ledger's form.
pub(in crate::agent) const VERSION: u32 = 1;

/// One line of a journal, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::agent) enum Line {
    /// The first: which run this is.
    Run(Header),
    /// A resource's changes are about to be made.
    Begin(Begin),
    /// A resource was left so.
    End(End),
    /// The last: the run is over.
    Done(Done),
}

/// Which run a journal is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::agent) struct Header {
    /// [`VERSION`].
    pub(in crate::agent) version: u32,
    /// Counts the host's runs: clocks may jump, this does not.
    pub(in crate::agent) number: u64,
    /// The run.
    pub(in crate::agent) run: RunInfo,
    /// What it is there for.
    pub(in crate::agent) purpose: Purpose,
    /// The host's boot, so that times of its monotonic clock can be compared.
    pub(in crate::agent) boot: String,
    /// The services that react in this run, as they are declared: undoing lets them react too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::agent) reacting: Vec<Reacting>,
}

/// A service that reacts in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::agent) struct Reacting {
    /// The reaction.
    pub(in crate::agent) id: ResourceId,
    /// The service.
    pub(in crate::agent) service: Declared,
    /// As whom it is told to; none for the login user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::agent) become_user: Option<String>,
}

/// What a run is there for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::agent) enum Purpose {
    /// To converge.
    Converge,
    /// To take back the run of that name.
    Undo(String),
}

/// The changes of a resource, before they are made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::agent) struct Begin {
    /// Pairs it with its end.
    pub(in crate::agent) node: u32,
    /// The resource.
    pub(in crate::agent) id: ResourceId,
    /// Its play.
    pub(in crate::agent) play: String,
    /// `file:line:column` of the state.
    pub(in crate::agent) at: String,
    /// As whom it is changed; none for the login user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::agent) become_user: Option<String>,
    /// Variables for whatever runs, from that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::agent) environment_file: Option<RemotePath>,
    /// Bound of each attempt, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::agent) timeout: Option<u64>,
    /// Whether its contents are hidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::agent) sensitive: Option<bool>,
    /// In the order in which they are made.
    pub(in crate::agent) changes: Vec<Change>,
    /// They are checked once they are made, and put back if the check fails.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::agent) unchecked: bool,
    /// What has to follow once it has changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::agent) owes: Vec<Owes>,
    /// Owner, group and mode of what a change removes or replaces by something else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::agent) stood: Vec<(RemotePath, Metadata)>,
    /// The groups that may go with users that a change removes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::agent) groups: Vec<GroupEntry>,
    /// What `prune:` says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::agent) prune: Option<Prune>,
    /// What people see of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::agent) shown: Vec<ChangeView>,
}

/// What has to follow a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::agent) struct Owes {
    /// The reaction, or the resource with `onchanges`.
    pub(in crate::agent) to: ResourceId,
    /// How.
    pub(in crate::agent) how: How,
}

/// How something follows a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::agent) enum How {
    /// `onchanges`.
    Act,
    /// `watch`.
    Reload,
    /// `restart_on`, or a unit file.
    Restart,
}

/// How a resource was left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::agent) struct End {
    /// The resource's number.
    pub(in crate::agent) node: u32,
    /// Its name: what settles a debt need not have begun.
    pub(in crate::agent) id: ResourceId,
    /// How.
    pub(in crate::agent) outcome: PastOutcome,
    /// When, in microseconds of the monotonic clock.
    pub(in crate::agent) finished: u64,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(in crate::agent) because: String,
    /// The packages that moved, those included that came along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::agent) moved: Vec<PackageMove>,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::agent) struct Done {
    /// Something failed or was left out.
    pub(in crate::agent) failed: bool,
    /// The run died before; a later one wrote this line.
    pub(in crate::agent) cut_off: bool,
    /// The host was planned again, and nothing differed.
    pub(in crate::agent) verified: bool,
    /// All that is owed by now.
    pub(in crate::agent) owed: Vec<Debt>,
}

/// A reaction that is owed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::agent) struct Debt {
    /// The reaction, or the resource with `onchanges`.
    pub(in crate::agent) to: ResourceId,
    /// How it follows.
    pub(in crate::agent) how: How,
    /// What changed.
    pub(in crate::agent) from: ResourceId,
    /// The run that changed it.
    pub(in crate::agent) run: String,
    /// The boot in which it changed: whatever runs since a later one has seen the change.
    pub(in crate::agent) boot: String,
    /// When the change was complete, in microseconds of that boot; none if the run died meanwhile.
    pub(in crate::agent) finished: Option<u64>,
}

/// A change as the journal holds it, without what may be secret and nothing needs later: what a
/// command reads, the line of one that is `sensitive`, answers for packages.
pub(in crate::agent) fn without_secrets(change: &Change, sensitive: Option<bool>) -> Change {
    match change {
        Change::Act(Act::Run(command)) => {
            let run = match sensitive {
                Some(true) => Run::Shell(String::from("(hidden)")),
                _ => command.run.clone(),
            };
            Change::Act(Act::Run(Command { stdin: None, run, ..command.clone() }))
        }
        Change::Packages(transaction) => {
            Change::Packages(PackageTransaction { debconf: Vec::new(), ..transaction.clone() })
        }
        other => other.clone(),
    }
}

/// The thing that a change brought into being, if nothing was there before: its name, and the
/// change that says how it looks.
pub(in crate::agent) fn made(change: &Change) -> Vec<(String, Made)> {
    let one = |target: String, made| vec![(target, made)];
    match change {
        Change::Content { path, before: Content::Absent, .. }
        | Change::Content { path, after: Content::Absent, .. } => {
            let made = matches!(change, Change::Content { before: Content::Absent, .. });
            one(target_of_path(path), if made { Made::New } else { Made::Gone })
        }
        Change::Content { path, .. } | Change::Metadata { path, .. } => {
            one(target_of_path(path), Made::Changed)
        }
        Change::Account { before, after } => {
            let Some(account) = after.as_ref().or(before.as_ref()) else { return Vec::new() };
            let target = match account {
                Account::User { entry, .. } => format!("user:{}", entry.name),
                Account::Group { entry, .. } => format!("group:{}", entry.name),
            };
            one(target, Made::between(before.is_some(), after.is_some()))
        }
        Change::Packages(transaction) => {
            let requested = transaction.moves.iter().filter(|moved| moved.requested);
            requested
                .map(|moved| {
                    let made = Made::between(moved.before.is_some(), moved.after.is_some());
                    (format!("package:{}", moved.name), made)
                })
                .collect()
        }
        Change::Unit { name, before, after, .. } => {
            let made = match ((before.active, before.enabled), (after.active, after.enabled)) {
                ((false, false), (false, false)) => Made::Changed,
                ((false, false), _) => Made::New,
                (_, (false, false)) => Made::Gone,
                _ => Made::Changed,
            };
            one(format!("service:{name}"), made)
        }
        Change::Act(_) => Vec::new(),
    }
}

/// How records name what stands at a path.
pub(in crate::agent) fn target_of_path(path: &RemotePath) -> String {
    format!("path:{path}")
}

/// What a change does to whether a thing is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent) enum Made {
    /// It was not there before.
    New,
    /// It is there before and after.
    Changed,
    /// It is gone.
    Gone,
    /// It was there once, and an undo has brought it back.
    Back,
}

impl Made {
    fn between(before: bool, after: bool) -> Self {
        match (before, after) {
            (false, _) => Self::New,
            (true, true) => Self::Changed,
            (true, false) => Self::Gone,
        }
    }
}
