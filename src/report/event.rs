use serde::Serialize;

/// What happens during a run, in the order in which the dispatcher saw it.
///
/// Reporters only read events; nothing else prints. As lines of JSON they are `--format jsonl`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first event.
    RunStarted {
        /// Names the run: sortable by time, unique.
        run: String,
        /// The inventory's name.
        inventory: String,
        /// The state file as the user named it.
        state_file: String,
        /// Whether nothing is to be changed.
        dry_run: bool,
        /// All selected hosts in inventory order.
        hosts: Vec<String>,
    },
    /// A host has begun something; for live display.
    HostPhase {
        /// The host.
        host: String,
        /// What it is doing.
        phase: Phase,
    },
    /// The host's plan of one resource is known.
    Planned {
        /// The host.
        host: String,
        /// The plan.
        resource: Resource,
    },
    /// All of a host is planned.
    HostPlanned {
        /// The host.
        host: String,
        /// Counted by verdict.
        summary: Summary,
    },
    /// A change has begun.
    Started {
        /// The host.
        host: String,
        /// The resource's identity.
        id: String,
        /// Its label, if it has one.
        label: Option<String>,
    },
    /// A resource is done; its verdict says what was done.
    Done {
        /// The host.
        host: String,
        /// What was done.
        resource: Resource,
    },
    /// A host is done.
    HostDone {
        /// The host.
        host: String,
        /// How it ended.
        status: Status,
        /// Why it failed or could not be reached.
        error: Option<String>,
        /// Counted by verdict.
        summary: Summary,
        /// Whether it was planned again after it was changed, and nothing differed.
        verified: bool,
    },
    /// Something that people should know and that fails nothing.
    Warning {
        /// The host that it concerns.
        host: Option<String>,
        /// One sentence.
        message: String,
    },
    /// The last event.
    RunDone {
        /// The exit code.
        exit_code: i32,
        /// In milliseconds.
        ms: u64,
    },
}

/// What a host is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Being connected to.
    Connecting,
    /// Receiving the agent.
    Uploading,
    /// Comparing.
    Planning,
    /// Planned, and waiting for the other hosts.
    Waiting,
    /// Changing.
    Applying,
}

/// How a host ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing differs.
    Ok,
    /// Something was (in a dry run: would be) changed.
    Changed,
    /// Something went wrong there.
    Failed,
    /// It could not be reached.
    Unreachable,
    /// It was taken back to where it was.
    RolledBack,
    /// It took no part.
    Skipped,
}

/// What a plan says of a resource, or what was done with it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is as declared.
    Ok,
    /// It differs; in a run: it was changed.
    Change,
    /// It may change once another change has happened.
    Depends,
    /// It could not be planned or changed.
    Failed,
    /// Left out by `when`, by tags, or by an earlier failure.
    Skipped,
}

/// One resource of one host, as programs read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Resource {
    /// `kind:key`.
    pub id: String,
    /// `name:`, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The play's name.
    pub play: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Why; empty where the differences say it.
    pub because: String,
    /// What it waits for.
    pub depends_on: Vec<String>,
    /// What is assumed to leave it alone.
    pub assuming: Vec<String>,
    /// Whether an earlier run owed it.
    pub owed: bool,
    /// The differences.
    pub changes: Vec<ChangeView>,
    /// `file:line:column` of the state.
    pub at: String,
    /// In milliseconds.
    pub ms: u64,
}

/// What the reason of a failure begins with that the state ignores: its verdict is `ok`.
pub const IGNORED: &str = "failed, which is ignored: ";

impl Resource {
    /// Whether it failed and that is ignored.
    pub fn is_ignored(&self) -> bool {
        self.verdict == Verdict::Ok && self.because.starts_with(IGNORED)
    }
}

/// One difference, as programs read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct ChangeView {
    /// `content`, `metadata`, `account`, `packages`, `unit`, `database` or `act`.
    pub action: String,
    /// A path, a name, a command.
    pub target: String,
    /// A unified diff for contents, lines of `+`, `-` and `~` for the rest.
    pub diff: String,
}

/// Resources counted by verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// As declared.
    pub ok: usize,
    /// Differing or changed.
    pub change: usize,
    /// Waiting for something.
    pub depends: usize,
    /// Failed.
    pub failed: usize,
    /// Left out.
    pub skipped: usize,
}

impl Summary {
    /// Counts one more.
    pub fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Ok => self.ok += 1,
            Verdict::Change => self.change += 1,
            Verdict::Depends => self.depends += 1,
            Verdict::Failed => self.failed += 1,
            Verdict::Skipped => self.skipped += 1,
        }
    }
}
