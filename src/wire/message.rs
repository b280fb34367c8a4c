use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::graph::{Graph, NodeIndex};
use crate::report::{ChangeView, Verdict};
use crate::world::ContentId;

/// The first bytes that an agent says; all before them is noise of the login.
pub const MAGIC: [u8; 8] = *b"cnvrg\x01\r\n";

/// Why a node was left out of a run that was stopped.
pub const STOPPED: &str = "the run was stopped";

/// What the controller says.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToAgent {
    /// Compare the host with this graph.
    Plan {
        /// What is declared.
        graph: Arc<Graph>,
        /// How.
        options: PlanOptions,
    },
    /// A piece of a content that the agent asked for; in the order of asking.
    Content {
        /// The bytes.
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
    /// Finish what is in hand and begin nothing more.
    Stop,
}

/// How to plan.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PlanOptions {
    /// Whether differences are wanted as text.
    pub diff: bool,
    /// Nothing that the project says is run: guards and checks make what they decide wait.
    pub untrusted: bool,
}

/// What the agent says.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromAgent {
    /// The first message.
    Hello(Hello),
    /// These contents are needed, in this order.
    Need(Vec<ContentId>),
    /// Nodes were planned.
    Planned(Vec<PlannedNode>),
    /// All is planned.
    PlanDone,
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
    /// The play is done as far as it could be.
    PlayDone {
        /// Whether something failed.
        failed: bool,
    },
    /// The agent cannot go on.
    Fatal(String),
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
