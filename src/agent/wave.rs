use crate::change::Change;
use crate::graph::NodeIndex;

/// Steps that only put contents in place and are ready at the same time: written, synced and made
/// visible together.
#[derive(Default)]
pub(super) struct Wave {
    steps: Vec<(usize, StepWork)>,
}

/// The nodes of a step with the changes of each.
pub(super) type StepWork = Vec<(NodeIndex, Vec<Change>)>;

impl Wave {
    pub(super) fn add(&mut self, step: usize, work: StepWork) {
        self.steps.push((step, work));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// All nodes with their changes.
    pub(super) fn work(&self) -> impl Iterator<Item = &(NodeIndex, Vec<Change>)> {
        self.steps.iter().flat_map(|(_, work)| work)
    }

    pub(super) fn into_steps(self) -> Vec<(usize, StepWork)> {
        self.steps
    }
}
