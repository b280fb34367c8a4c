use std::collections::HashMap;

use crate::graph::{Graph, NodeIndex};

/// The graph's nodes grouped into steps, and the steps into levels: all steps of a level may run
/// at the same time once the levels before it are done.
pub(super) struct Steps {
    members: Vec<Vec<NodeIndex>>,
    /// The step of a graph's step number.
    numbers: HashMap<NodeIndex, usize>,
    after: Vec<Vec<usize>>,
    plays: Vec<u32>,
    levels: Vec<Vec<usize>>,
}

impl Steps {
    pub(super) fn of(graph: &Graph) -> Self {
        let mut members: Vec<Vec<NodeIndex>> = Vec::new();
        let mut numbers = HashMap::new();
        let mut plays = Vec::new();
        for (node, index) in graph.nodes.iter().zip(0..) {
            let step = *numbers.entry(node.step).or_insert_with(|| {
                members.push(Vec::new());
                plays.push(node.play);
                members.len() - 1
            });
            members[step].push(index);
        }
        let mut after = Vec::with_capacity(members.len());
        let mut levels: Vec<Vec<usize>> = Vec::new();
        let mut level_of = vec![0; members.len()];
        let mut play = 0;
        let mut base = 0;
        for (step, nodes) in members.iter().enumerate() {
            let mut earlier: Vec<usize> = nodes
                .iter()
                .flat_map(|index| &graph.nodes[*index as usize].after)
                .filter_map(|index| graph.nodes.get(*index as usize))
                .map(|node| numbers[&node.step])
                .filter(|earlier| *earlier < step)
                .collect();
            earlier.sort_unstable();
            earlier.dedup();
            if plays[step] != play {
                play = plays[step];
                base = levels.len();
            }
            let level = earlier.iter().map(|earlier| level_of[*earlier] + 1).max().unwrap_or(0);
            let level = level.max(base);
            level_of[step] = level;
            if levels.len() <= level {
                levels.resize_with(level + 1, Vec::new);
            }
            levels[level].push(step);
            after.push(earlier);
        }
        Self { members, numbers, after, plays, levels }
    }

    pub(super) fn levels(&self) -> &[Vec<usize>] {
        &self.levels
    }

    pub(super) fn members(&self, step: usize) -> &[NodeIndex] {
        self.members.get(step).map_or(&[], Vec::as_slice)
    }

    /// The step with this number in the graph.
    pub(super) fn step_of(&self, number: NodeIndex) -> usize {
        self.numbers.get(&number).copied().unwrap_or(usize::MAX)
    }

    /// The members of the step with this number in the graph.
    pub(super) fn members_of(&self, number: NodeIndex) -> &[NodeIndex] {
        self.numbers.get(&number).map_or(&[], |step| self.members(*step))
    }

    /// The steps of a play, with what each comes after.
    pub(super) fn of_play(&self, play: u32) -> Vec<usize> {
        (0..self.members.len()).filter(|step| self.plays[*step] == play).collect()
    }

    pub(super) fn after(&self, step: usize) -> &[usize] {
        self.after.get(step).map_or(&[], Vec::as_slice)
    }
}
