use serde::{Deserialize, Serialize};

use crate::change::Mask;
use crate::kind::{Declared, Restore};
use crate::lang::{Prune, Retry};
use crate::resource::ResourceId;
use crate::world::RemotePath;

/// All that is declared for one host, in an order that keeps every hazard.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Graph {
    /// The plays in order. A play begins when the one before it is done.
    pub plays: Vec<Play>,
    /// Every node comes after all nodes that it waits for.
    pub nodes: Vec<Node>,
}

impl Graph {
    /// The secrets of all nodes: what one of them writes, another one may show.
    pub fn mask(&self) -> Mask {
        let mut mask = Mask::default();
        self.nodes.iter().for_each(|node| mask.add(&node.mask));
        mask
    }

    /// Whether its numbers mean something: those of one that was made here do, those of one that came
    /// from a file may not.
    pub fn is_sound(&self) -> bool {
        let known = |numbers: &[NodeIndex]| {
            numbers.iter().all(|number| (*number as usize) < self.nodes.len())
        };
        self.nodes.iter().enumerate().all(|(index, node)| {
            let reacts = match &node.work {
                Work::Reaction { service, reload, restart, .. } => {
                    known(&[*service]) && known(reload) && known(restart)
                }
                Work::Resource(_) | Work::Restore(_) | Work::Skipped(_) | Work::Unknown(_) => true,
            };
            let watched = [&node.onchanges, &node.onfail].into_iter().flatten();
            (node.play as usize) < self.plays.len()
                && node.after.iter().all(|earlier| (*earlier as usize) < index)
                && known(&node.require)
                && watched.into_iter().all(|watched| known(watched))
                && reacts
        })
    }
}

/// What of a play concerns all of its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Play {
    /// Its name.
    pub name: String,
    /// Whether what earlier runs created and is no longer declared is removed.
    pub prune: bool,
}

/// Why a node is left out that tags do not select.
pub const NOT_SELECTED: &str = "not selected";

/// Names a node within its graph.
pub type NodeIndex = u32;

/// One step of a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// `kind:key`, or `reaction:service:NAME`.
    pub id: ResourceId,
    /// `name:`, for people.
    pub label: Option<String>,
    /// `file:line:column` of the state.
    pub at: String,
    /// The number of its play.
    pub play: u32,
    /// Nodes of one step are planned and applied together (package transactions).
    pub step: NodeIndex,
    /// What it is.
    pub work: Work,
    /// All nodes that have to be done before it.
    pub after: Vec<NodeIndex>,
    /// Those that have to have succeeded.
    pub require: Vec<NodeIndex>,
    /// It acts only if one of those changed; none: it always acts.
    pub onchanges: Option<Vec<NodeIndex>>,
    /// It acts only if one of those failed; none: it always acts.
    pub onfail: Option<Vec<NodeIndex>>,
    /// Shell lines: if one succeeds there is nothing to do.
    pub unless: Vec<String>,
    /// Shell lines: only if all succeed there is something to do.
    pub onlyif: Vec<String>,
    /// The user that it becomes; none: the login user.
    pub become_user: Option<String>,
    /// Added to the environment of whatever runs.
    pub environment: Vec<(String, String)>,
    /// A file on the host whose variables are added too.
    pub environment_file: Option<RemotePath>,
    /// Attempts after a failure.
    pub retry: Option<Retry>,
    /// Bound of each attempt, in milliseconds.
    pub timeout: Option<u64>,
    /// A failure is reported and nothing more.
    pub ignore_errors: bool,
    /// Whether contents are hidden; none: hidden if not everybody may read the file.
    pub sensitive: Option<bool>,
    /// What of its contents and of what it says is secret.
    #[serde(default)]
    pub mask: Mask,
    /// What happens when it is no longer declared; none: what its play says.
    pub prune: Option<Prune>,
    /// Taken back unless a fresh login works within so many milliseconds after it; 0: never. None:
    /// where the change can lock the operator out.
    pub confirm_connection: Option<u64>,
}

/// What a node is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Work {
    /// A declared resource.
    Resource(Declared),
    /// A service takes up changes.
    Reaction {
        /// The node of the service.
        service: NodeIndex,
        /// What is declared of it, also where its own state is left out.
        declared: Declared,
        /// A reload is due if one of those changed.
        reload: Vec<NodeIndex>,
        /// A restart is due if one of those changed.
        restart: Vec<NodeIndex>,
    },
    /// What a run has changed goes back to what it was: only agents make such nodes, from journals.
    Restore(Restore),
    /// Left out, for this reason; satisfies whoever requires it.
    Skipped(String),
    /// What is declared cannot be told, for this reason.
    Unknown(String),
}
