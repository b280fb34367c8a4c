use std::collections::{BTreeMap, BTreeSet};

use petgraph::adj::{List, UnweightedList};
use petgraph::algo::tred::dag_transitive_reduction_closure;
use petgraph::visit::{EdgeRef, IntoEdgeReferences};

use super::types::NodeIndex;
use super::why::{Explained, Reason, Standing};
use crate::report::{GraphBox, GraphEdge, GraphPicture, GraphPlay, GraphStanding};

/// Most reasons that the label of an edge names.
const LABELS: usize = 2;

impl Explained {
    /// What there is to draw: a box for each step, and of the edges those that do not follow from
    /// others.
    pub fn picture(&self) -> GraphPicture {
        let plays = self.graph.plays.iter().enumerate();
        let plays = plays.map(|(index, play)| self.play(index, play.name.clone()));
        let plays = plays.filter(|play| !play.boxes.is_empty()).collect();
        GraphPicture { hosts: Vec::new(), plays }
    }

    fn play(&self, index: usize, name: String) -> GraphPlay {
        let mut steps: Vec<Vec<NodeIndex>> = Vec::new();
        let mut numbers: BTreeMap<NodeIndex, usize> = BTreeMap::new();
        for (node, number) in self.graph.nodes.iter().zip(0..) {
            if node.play as usize == index {
                let step = *numbers.entry(node.step).or_insert_with(|| {
                    steps.push(Vec::new());
                    steps.len() - 1
                });
                steps[step].push(number);
            }
        }
        let step_of = |node: NodeIndex| numbers[&self.graph.nodes[node as usize].step];
        let mut edges: BTreeMap<(usize, usize), GraphEdge> = BTreeMap::new();
        for (later, members) in steps.iter().enumerate() {
            for node in members {
                for link in &self.links[*node as usize] {
                    let earlier = step_of(link.earlier);
                    if earlier < later {
                        let edge = edges
                            .entry((earlier, later))
                            .or_insert_with(|| GraphEdge::between(earlier, later));
                        self.add_reasons(edge, link.earlier, *node, &link.reasons);
                    }
                }
            }
        }
        let kept = reduced(steps.len(), edges.keys());
        let edges = edges.into_iter().filter(|(ends, _)| kept.contains(ends));
        let edges = edges.map(|(_, edge)| edge).collect();
        GraphPlay { name, boxes: steps.iter().map(|step| self.step(step)).collect(), edges }
    }

    fn add_reasons(
        &self,
        edge: &mut GraphEdge,
        earlier: NodeIndex,
        later: NodeIndex,
        reasons: &[Reason],
    ) {
        edge.title.push(format!("{} before {}", self.placed(earlier), self.placed(later)));
        for reason in reasons {
            edge.title.push(format!("  {}", reason.words(self.id(earlier), self.id(later))));
            edge.said |= matches!(reason, Reason::Requisite { .. });
            let label = reason.label();
            if edge.labels.contains(&label) || edge.labels.len() > LABELS {
                continue;
            }
            edge.labels.push(if edge.labels.len() == LABELS { String::from("…") } else { label });
        }
    }

    fn step(&self, members: &[NodeIndex]) -> GraphBox {
        let mut drawn = GraphBox {
            lines: Vec::with_capacity(members.len()),
            title: Vec::with_capacity(members.len()),
            standing: GraphStanding::Certain,
        };
        for member in members {
            let id = self.id(*member);
            let standing = &self.standings[*member as usize];
            drawn.lines.push(match standing {
                Standing::Undecided(_) => format!("{id} (needs facts)"),
                _ => id.to_owned(),
            });
            drawn.title.push(match standing {
                Standing::LeftOut(why) => format!("{}: left out, {why}", self.placed(*member)),
                Standing::Undecided(why) => format!("{}: {why}", self.placed(*member)),
                Standing::Certain | Standing::Reaction => self.placed(*member),
            });
            match standing {
                Standing::LeftOut(_) => drawn.standing = GraphStanding::LeftOut,
                Standing::Undecided(_) => drawn.standing = GraphStanding::Undecided,
                Standing::Reaction => drawn.standing = GraphStanding::Reaction,
                Standing::Certain => {}
            }
        }
        drawn
    }
}

/// The edges that do not follow from others; all lead to a larger number.
fn reduced<'a>(
    count: usize,
    edges: impl Iterator<Item = &'a (usize, usize)>,
) -> BTreeSet<(usize, usize)> {
    let mut list: UnweightedList<u32> = List::with_capacity(count);
    for _ in 0..count {
        list.add_node();
    }
    let index = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    // In the order of their ends, which the algorithm relies on.
    for (earlier, later) in edges {
        list.add_edge(index(*earlier), index(*later), ());
    }
    let (reduced, _) = dag_transitive_reduction_closure(&list);
    let ends = reduced.edge_references();
    ends.map(|edge| (edge.source() as usize, edge.target() as usize)).collect()
}
