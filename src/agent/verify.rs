use super::apply::Ended;
use super::plan::Planner;
use crate::change::Change;
use crate::graph::{Node, NodeIndex, Work};
use crate::kind::Restore;
use crate::report::ChangeView;
use crate::wire::Differing;
use crate::world::World;

impl Planner<'_> {
    /// Plans once more all that was changed and all that comes after it, on the host as it is;
    /// what differs still does not converge. Acts only happen: they cannot be looked at.
    pub(super) fn verify(&self, ended: &[Option<Ended>]) -> Vec<Differing> {
        self.host.forget();
        let world = World::observed(self.host);
        let mut concerned = vec![false; self.graph.nodes.len()];
        let mut differs = Vec::new();
        for level in self.steps.levels() {
            for step in level {
                let members = self.steps.members(*step);
                let touched = members.iter().any(|index| {
                    let node = &self.graph.nodes[*index as usize];
                    ended[*index as usize].is_some_and(|ended| ended.changed)
                        || node.after.iter().any(|earlier| concerned[*earlier as usize])
                });
                if !touched {
                    continue;
                }
                for index in members {
                    concerned[*index as usize] = true;
                }
                let open: Vec<NodeIndex> = members
                    .iter()
                    .copied()
                    .filter(|index| {
                        let node = &self.graph.nodes[*index as usize];
                        self.holds(node, ended[*index as usize], &world)
                    })
                    .collect();
                differs.extend(self.still_differing(&open, &world));
            }
        }
        differs
    }

    /// All nodes that differ from the host as it is.
    pub(super) fn differing(&self) -> Vec<Differing> {
        let world = World::observed(self.host);
        let nodes = (0..).zip(&self.graph.nodes).map(|(index, _)| index);
        nodes.flat_map(|index| self.still_differing(&[index], &world)).collect()
    }

    /// Those of a step's nodes that differ from the host as it is.
    fn still_differing(&self, open: &[NodeIndex], world: &World<'_>) -> Vec<Differing> {
        let mut differs = Vec::new();
        let nothing = vec![None; self.graph.nodes.len()];
        for (index, planned) in open.iter().zip(self.plan_nodes(open, world, &nothing)) {
            let views = match planned {
                Ok(planned) => {
                    let lasting: Vec<Change> = planned.changes.into_iter().filter(lasts).collect();
                    let views = self.views(*index, &lasting, None).into_iter();
                    views.map(|shown| shown.view).collect::<Vec<_>>()
                }
                Err(error) => vec![ChangeView {
                    action: String::from("error"),
                    target: self.graph.nodes[*index as usize].id.to_string(),
                    diff: super::plan::explain(&error),
                }],
            };
            if !views.is_empty() {
                differs.push(Differing { node: *index, changes: views });
            }
        }
        differs
    }

    /// Whether a node says how the host has to be by now: not if it was left out, if something
    /// else had to happen first, or if its guards say that there is nothing to do.
    fn holds(&self, node: &Node, ended: Option<Ended>, world: &World<'_>) -> bool {
        let Some(ended) = ended.filter(Ended::succeeded) else { return false };
        if matches!(node.work, Work::Restore(Restore { only_shown: true, .. })) {
            return false;
        }
        let conditional = node.onchanges.is_some() || node.onfail.is_some();
        matches!(node.work, Work::Resource(_) | Work::Restore(_))
            && (ended.changed || !conditional)
            && matches!(self.guards(node, world), Ok(None))
    }
}

/// Whether a change leaves something that can be looked at.
fn lasts(change: &Change) -> bool {
    !matches!(change, Change::Act(_))
}
