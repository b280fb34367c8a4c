use crate::change::Change;
use crate::graph::NodeIndex;
use crate::wire::Outcome;

/// Steps that only put contents in place and are ready at the same time: written, synced and made
/// visible together.
#[derive(Default)]
pub(super) struct Wave {
    steps: Vec<WaveStep>,
}

/// A step's number, its work, and those of its nodes that have nothing to do.
type WaveStep = (usize, StepWork, Vec<(NodeIndex, Outcome)>);

/// The nodes of a step with the changes of each.
pub(super) type StepWork = Vec<(NodeIndex, Vec<Change>)>;

impl Wave {
    pub(super) fn add(&mut self, step: usize, work: StepWork, settled: Vec<(NodeIndex, Outcome)>) {
        self.steps.push((step, work, settled));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// All nodes with their changes.
    pub(super) fn work(&self) -> impl Iterator<Item = &(NodeIndex, Vec<Change>)> {
        self.steps.iter().flat_map(|(_, work, _)| work)
    }

    pub(super) fn into_steps(self) -> Vec<WaveStep> {
        self.steps
    }
}
