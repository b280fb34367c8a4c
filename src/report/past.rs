//! Runs that were: what journals hold of them, as people and programs read it.

use serde::{Deserialize, Serialize};

use super::ChangeView;

/// A run, as journals, locks and the history name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Names the run: sortable by time, unique.
    pub id: String,
    /// Who started it: `USER@MACHINE` of the controller.
    pub who: String,
    /// When, in milliseconds since the epoch, on the controller's clock.
    pub begun: u64,
    /// The project's name.
    pub project: String,
    /// The root state file, relative to the project.
    pub state_file: String,
    /// The BLAKE3 digest of the state file.
    pub digest: Option<String>,
    /// The commit that the project's checkout stood at, with `-dirty` behind it where it was changed.
    pub commit: Option<String>,
    /// The inventory's name.
    pub inventory: String,
}

impl RunInfo {
    /// What ledger and owed reactions are kept by: records of two scopes never mix.
    pub fn scope(&self) -> String {
        [self.project.as_str(), &self.state_file, &self.inventory].join("\n")
    }
}

/// How a run that was has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PastVerdict {
    /// All that it set out to do was done.
    Ok,
    /// Something failed, or was left out because the run was stopped.
    Failed,
    /// It died: killed, or its host was.
    CutOff,
    /// It is going on.
    Running,
}

/// A run that was, on one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastRun {
    /// Which.
    pub info: RunInfo,
    /// What it was there for: `converge`, or `undo RUN`.
    pub purpose: String,
    /// How it ended.
    pub verdict: PastVerdict,
    /// Whether the host was planned again after it, and nothing differed.
    pub verified: bool,
    /// What it touched, in the order in which it was through with it.
    pub resources: Vec<PastResource>,
}

impl PastRun {
    /// How many resources were changed.
    pub fn changes(&self) -> usize {
        let changed = |resource: &&PastResource| resource.outcome == PastOutcome::Changed;
        self.resources.iter().filter(changed).count()
    }
}

/// How a run left a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PastOutcome {
    /// It was changed.
    Changed,
    /// It was as declared when its turn came.
    Met,
    /// Its change failed.
    Failed,
    /// The run died while it was being changed.
    CutOff,
}

/// A resource that a run touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastResource {
    /// `kind:key`.
    pub id: String,
    /// `file:line:column` of the state at that time.
    pub at: String,
    /// How it was left.
    pub outcome: PastOutcome,
    /// Why it failed; empty otherwise.
    pub because: String,
    /// The differences.
    pub changes: Vec<ChangeView>,
}

/// What a host is like beside what runs of one project, state file and inventory have left there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// The last of these runs that changed something.
    pub last: Option<RunInfo>,
    /// A run that is changing the host.
    pub running: Option<RunInfo>,
    /// What is not any more as it was left.
    pub drift: Vec<Drift>,
    /// Reactions that are owed.
    pub owed: Vec<String>,
    /// Why the host's records cannot be read.
    pub unreadable: Option<String>,
}

/// A thing that is not any more as a run left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// The resource that it belongs to.
    pub id: String,
    /// `file:line:column` where that was declared.
    pub at: String,
    /// The run that left it otherwise.
    pub run: String,
    /// What would take it back there.
    pub changes: Vec<ChangeView>,
}
