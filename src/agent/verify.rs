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
        let nothing = vec![None; self.graph.nodes.len()];
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
                let planned = self.plan_nodes(&open, &world, &nothing);
                for (index, planned) in open.into_iter().zip(planned) {
                    let views = match planned {
                        Ok(planned) => {
                            let lasting: Vec<Change> =
                                planned.changes.into_iter().filter(lasts).collect();
                            let views = self.views(index, &lasting, None).into_iter();
                            views.map(|shown| shown.view).collect::<Vec<_>>()
                        }
                        Err(error) => vec![ChangeView {
                            action: String::from("error"),
                            target: self.graph.nodes[index as usize].id.to_string(),
                            diff: super::plan::explain(&error),
                        }],
                    };
                    if !views.is_empty() {
                        differs.push(Differing { node: index, changes: views });
                    }
                }
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
