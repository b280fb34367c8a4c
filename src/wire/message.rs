use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::graph::{Graph, NodeIndex};
use crate::report::{ChangeView, HostStatus, PastRun, RunInfo, Verdict};
use crate::world::ContentId;

/// The first bytes that an agent says; all before them is noise of the login.
pub const MAGIC: [u8; 8] = *b"cnvrg\x01\r\n";

/// How often either end says something: the controller if it has nothing else to say.
pub const HEARTBEAT: Duration = Duration::from_secs(10);

/// After so long a silence, the controller is gone: a network that is cut tells neither end.
pub const SILENCE: Duration = Duration::from_secs(45);

/// Why a node was left out of a run that was stopped.
pub const STOPPED: &str = "the run was stopped";

/// What the controller says.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToAgent {
    /// Run these commands, which only read, and tell what they write.
    Ask(Vec<Question>),
    /// Compare the host with this graph.
    Plan {
        /// What is declared.
        graph: Arc<Graph>,
        /// How.
        options: PlanOptions,
        /// What an earlier plan of this host allows, where nothing else may be done.
        bound: Option<Arc<Bound>>,
    },
    /// Compare the host with what was before a run.
    Undo {
        /// The run.
        run: String,
        /// Whether what was changed since is overwritten.
        force: bool,
        /// Only what that play has changed, and no packages and accounts: a failed run goes back.
        rollback: Option<String>,
        /// How.
        options: PlanOptions,
    },
    /// Let go of the host's lock; what was planned is forgotten.
    Release,
    /// Try the host's lock once more, and plan anew.
    Again,
    /// Tell what is not any more as runs of this one's scope have left it.
    Status {
        /// Names the scope.
        run: RunInfo,
    },
    /// Tell of past runs.
    Past {
        /// Only that one.
        run: Option<String>,
    },
    /// A piece of a content that the agent asked for; in the order of asking.
    Content {
        /// The bytes.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        /// Whether the content ends here.
        last: bool,
    },
    /// A content that the agent asked for cannot be had.
    NoContent {
        /// Why.
        reason: String,
    },
    /// Apply the plan of one play.
    Apply {
        /// The play's number.
        play: u32,
    },
    /// Nothing more is applied: look whether all is as declared, and end the run.
    Finish {
        /// Whether all plays were done.
        complete: bool,
    },
    /// Whether a fresh login has worked that the agent asked for.
    Confirmed {
        /// Why it did not.
        failure: Option<String>,
    },
    /// Finish what is in hand and begin nothing more.
    Stop,
    /// The controller is still there; said every [`HEARTBEAT`].
    Alive,
}

/// How to plan.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PlanOptions {
    /// Whether differences are wanted as text.
    pub diff: bool,
    /// Nothing that the project says is run: guards and checks make what they decide wait.
    pub untrusted: bool,
    /// The run that this is part of.
    pub run: RunInfo,
    /// Whether it is going to change the host, which only one run at a time may.
    pub lock: bool,
    /// Names that the state file may have had before: the records of such a one are taken over.
    pub adopt: Vec<String>,
    /// Whether the host was logged into, so that a change can lock its operator out.
    pub login: bool,
}

/// A command that only reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// As whom it runs; none: the login user.
    pub become_user: Option<String>,
    /// Added to its environment.
    pub environment: Vec<(String, String)>,
    /// How long it may take, in milliseconds.
    pub timeout: u64,
}

/// What a command wrote, or why it gave no answer.
pub type Answer = Result<String, String>;

/// What the agent says.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromAgent {
    /// The first message.
    Hello(Hello),
    /// The agent is still there; said every [`HEARTBEAT`].
    Alive,
    /// These contents are needed, in this order.
    Need(Vec<ContentId>),
    /// An answer to [`ToAgent::Ask`]; in the order of the questions.
    Answer(Answer),
    /// Nodes were planned.
    Planned(Vec<PlannedNode>),
    /// Another run has the host's lock; nothing was planned.
    Held {
        /// Who, as far as that can be read.
        holder: Option<RunInfo>,
        /// The account whose lock it is, where it is not the host's.
        account: Option<String>,
    },
    /// Nodes that the graph did not have, from the host's records.
    Added(Vec<AddedNode>),
    /// All is planned.
    PlanDone(Notes),
    /// A node's change has begun.
    Started(NodeIndex),
    /// A node is done.
    Done {
        /// Which.
        node: NodeIndex,
        /// How.
        outcome: Outcome,
        /// In milliseconds.
        ms: u64,
    },
    /// What was changed may lock its operator out: it goes back unless a fresh login, and becoming
    /// root, work now.
    Confirm {
        /// In so many milliseconds at most.
        within: u64,
    },
    /// What these nodes had changed was not confirmed, and goes back.
    Unconfirmed {
        /// Which.
        nodes: Vec<NodeIndex>,
        /// Why, and what did not go back.
        message: String,
    },
    /// The play is done as far as it could be.
    PlayDone {
        /// Whether something failed.
        failed: bool,
    },
    /// The run is over.
    Finished {
        /// What still differs from what is declared, after all of it was made so.
        differs: Vec<Differing>,
    },
    /// What the host is like beside what runs have left there.
    Status(HostStatus),
    /// Past runs, oldest first.
    Past(Vec<PastRun>),
    /// All past runs were told; what is wrong with records that cannot be read.
    PastDone {
        /// One sentence each.
        unreadable: Vec<String>,
    },
    /// The agent cannot go on.
    Fatal(String),
}

/// A node that the host's records have brought: something to be pruned or taken back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddedNode {
    /// `kind:key`.
    pub id: String,
    /// `file:line:column` where it was declared.
    pub at: String,
    /// The number of the play that it is part of.
    pub play: u32,
}

/// What a host's records say that people should know.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Notes {
    /// Runs that died here.
    pub cut_off: Vec<CutOff>,
    /// Why nothing can be pruned.
    pub unreadable: Option<String>,
    /// There are no records of the state file whose ones were to be taken over.
    pub nothing_adopted: bool,
    /// A run that is changing the host while this one only looks.
    pub running: Option<RunInfo>,
    /// What an undo cannot bring back, one sentence each.
    pub cannot: Vec<String>,
    /// Where the host asks for something else than the plan allows that it was bound to.
    pub outside: Vec<String>,
}

/// A plan that was made before: what it allows, and nothing else, may be done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Bound {
    /// What was planned of each node.
    pub planned: Vec<PlannedNode>,
}

/// A run that died.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CutOff {
    /// Which.
    pub run: RunInfo,
    /// What it was changing when it died.
    pub in_hand: Vec<String>,
}

/// A resource that does not stay as it was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Differing {
    /// Which.
    pub node: NodeIndex,
    /// What would be done once more.
    pub changes: Vec<ChangeView>,
}

/// Who the agent is, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The build that it is of.
    pub build: String,
    /// The BLAKE3 digest of its program, as hexadecimal.
    pub program: String,
    /// What is known of the host.
    pub facts: Facts,
}

/// What is known of a host, as the JSON object that expressions see as `facts`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// JSON text; parsed with bounds on the controller.
    pub json: String,
}

/// A plan of one node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlannedNode {
    /// Which.
    pub node: NodeIndex,
    /// The verdict.
    pub verdict: Verdict,
    /// Why; empty where the differences say it.
    pub because: String,
    /// Nodes that it waits for.
    pub depends_on: Vec<NodeIndex>,
    /// Nodes that are assumed to leave it alone.
    pub assuming: Vec<NodeIndex>,
    /// Whether an earlier run owed it.
    pub owed: bool,
    /// Whether it failed, which is ignored.
    pub ignored: bool,
    /// The differences.
    pub changes: Vec<ShownChange>,
    /// In milliseconds.
    pub ms: u64,
}

/// A difference, as data and as people read it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShownChange {
    /// The difference.
    pub change: Change,
    /// How it is shown.
    pub view: ChangeView,
}

/// How a node ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// The changes were made.
    Changed(Vec<ChangeView>),
    /// Nothing had to be done.
    Met {
        /// Why, where the plan said otherwise.
        because: String,
    },
    /// It was left out.
    Skipped {
        /// Why.
        because: String,
    },
    /// It failed.
    Failed {
        /// What happened, and what to do about it.
        message: String,
        /// Whether it is to count as a failure (`ignore_errors`).
        ignored: bool,
    },
}
