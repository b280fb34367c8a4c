//! The agent, served by a thread of the test over pipes, and a controller that takes every answer as it comes.

use std::io::{PipeReader, PipeWriter, Read};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use converge::agent::{self, AgentError};
use converge::change::Change;
use converge::graph::Graph;
use converge::lang::ContentStore;
use converge::report::{RunInfo, Verdict};
use converge::wire::{
    self, AddedNode, Differing, FromAgent, MAGIC, Outcome, PlanOptions, PlannedNode, ToAgent,
};

/// An agent that serves one run.
pub struct Agent {
    orders: PipeWriter,
    answers: PipeReader,
    contents: Arc<ContentStore>,
    served: JoinHandle<Result<(), AgentError>>,
}

/// What an agent has planned.
#[derive(Debug, Default)]
pub struct Plan {
    /// In the order of their nodes.
    pub nodes: Vec<PlannedNode>,
    /// What its records have brought.
    pub added: Vec<AddedNode>,
    /// What no undo brings back.
    pub cannot: Vec<String>,
}

impl Plan {
    /// Nodes that cannot be planned, each with its reason.
    pub fn failed(&self) -> Vec<(usize, &str)> {
        let failed = self.nodes.iter().filter(|node| node.verdict == Verdict::Failed);
        failed.map(|node| (node.node as usize, node.because.as_str())).collect()
    }
}

/// The changes of a planned node.
pub fn changes(node: &PlannedNode) -> impl Iterator<Item = &Change> {
    node.changes.iter().map(|shown| &shown.change)
}

impl Agent {
    /// Starts one whose records are in that folder.
    pub fn start(state: &Path, contents: Arc<ContentStore>) -> Self {
        let (input, orders) = std::io::pipe().unwrap();
        let (mut answers, output) = std::io::pipe().unwrap();
        let start = agent::Start { state: Some(state.to_owned()), ..agent::Start::default() };
        let served = std::thread::spawn(move || agent::serve(input, output, &start));
        let mut magic = [0; MAGIC.len()];
        answers.read_exact(&mut magic).unwrap();
        assert_eq!(magic, MAGIC);
        let mut agent = Self { orders, answers, contents, served };
        assert!(matches!(agent.next(), Ok(FromAgent::Hello(_))));
        agent
    }

    fn say(&mut self, order: &ToAgent) {
        wire::write_frame(&mut self.orders, order).unwrap();
    }

    /// The next message that is not about contents.
    fn next(&mut self) -> Result<FromAgent, String> {
        loop {
            match wire::read_frame(&mut self.answers).map_err(|error| error.to_string())? {
                FromAgent::Need(ids) => {
                    for id in ids {
                        let bytes = self.contents.get(&id).unwrap().to_vec();
                        self.say(&ToAgent::Content { bytes, last: true });
                    }
                }
                FromAgent::Alive => {}
                FromAgent::Fatal(message) => return Err(message),
                other => return Ok(other),
            }
        }
    }

    /// Has it compare the host with a graph, as a run that is going to change it.
    pub fn plan(&mut self, graph: &Arc<Graph>, run: &RunInfo) -> Result<Plan, String> {
        let options = PlanOptions { run: run.clone(), lock: true, ..PlanOptions::default() };
        self.say(&ToAgent::Plan { graph: Arc::clone(graph), options, bound: None });
        self.planned()
    }

    /// Has it compare the host with what was before a run.
    pub fn plan_undo(&mut self, undone: &RunInfo, run: &RunInfo) -> Result<Plan, String> {
        let options = PlanOptions { run: run.clone(), lock: true, ..PlanOptions::default() };
        self.say(&ToAgent::Undo { run: undone.id.clone(), force: false, rollback: None, options });
        self.planned()
    }

    /// Has it plan once more.
    pub fn plan_again(&mut self) -> Result<Plan, String> {
        self.say(&ToAgent::Release);
        self.say(&ToAgent::Again);
        self.planned()
    }

    fn planned(&mut self) -> Result<Plan, String> {
        let mut plan = Plan::default();
        loop {
            match self.next()? {
                FromAgent::Added(nodes) => plan.added.extend(nodes),
                FromAgent::Planned(nodes) => plan.nodes.extend(nodes),
                FromAgent::PlanDone(notes) => {
                    assert!(notes.unreadable.is_none(), "{notes:?}");
                    plan.cannot = notes.cannot;
                    plan.nodes.sort_by_key(|node| node.node);
                    return Ok(plan);
                }
                other => return Err(format!("out of turn: {other:?}")),
            }
        }
    }

    /// Has it apply the only play; gives how each node ended, in the order of the nodes.
    pub fn apply(&mut self, nodes: usize) -> Result<Vec<Option<Outcome>>, String> {
        self.say(&ToAgent::Apply { play: 0 });
        let mut outcomes = Vec::new();
        outcomes.resize_with(nodes, || None);
        loop {
            match self.next()? {
                FromAgent::Done { node, outcome, .. } => outcomes[node as usize] = Some(outcome),
                FromAgent::Started(_) => {}
                FromAgent::PlayDone { .. } => return Ok(outcomes),
                other => return Err(format!("out of turn: {other:?}")),
            }
        }
    }

    /// Has it look whether all is as declared by now.
    pub fn finish(&mut self) -> Result<Vec<Differing>, String> {
        self.say(&ToAgent::Finish { complete: true });
        match self.next()? {
            FromAgent::Finished { differs } => Ok(differs),
            other => Err(format!("out of turn: {other:?}")),
        }
    }

    /// Lets it go.
    pub fn end(self) {
        drop(self.orders);
        self.served.join().unwrap().unwrap();
    }
}
