//! What a host may take and say before it is given up: it may hang, and it may be hostile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::saved::named_contents;
use crate::graph::{Graph, Node, Work};
use crate::world::ContentId;

/// How long a host is waited for, and how much it may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostLimits {
    /// From the start of the agent to its greeting, its program's way there included.
    pub greeting: Duration,
    /// The longest silence of an agent, which says every [`HEARTBEAT`](crate::wire::HEARTBEAT) that
    /// it is alive.
    pub silence: Duration,
    /// The longest time in which an agent comes no further, beyond what its longest step may take by
    /// what is declared.
    pub standstill: Duration,
    /// Most bytes in answer to one order.
    pub said: u64,
}

impl Default for HostLimits {
    fn default() -> Self {
        Self {
            greeting: Duration::from_secs(15 * 60),
            silence: Duration::from_secs(2 * 60),
            standstill: Duration::from_secs(2 * 3600),
            said: 1 << 30,
        }
    }
}

/// How often a host may ask for a content in answer to one order, for each time that it is
/// declared and each attempt: to compare, to compare again at its turn, and to write; contents that
/// do not fit into its memory more than once.
const ASKS: u64 = 16;
/// How often a host may ask for contents that are not declared for it: those of runs before, which
/// only its own records have.
const STRANGE_ASKS: u64 = 100_000;

/// What is declared for a host, as far as it bounds what the host may ask for and take.
#[derive(Default)]
pub(super) struct Allowance {
    graph: Arc<Graph>,
    /// How often each content is declared; looked up once the host asks for any.
    declared: Option<HashMap<ContentId, u64>>,
    asked: HashMap<ContentId, u64>,
    strange: u64,
}

impl Allowance {
    pub(super) fn of(graph: Arc<Graph>) -> Self {
        Self { graph, ..Self::default() }
    }

    /// Forgets what was asked for in answer to an earlier order.
    pub(super) fn renew(&mut self) {
        self.asked.clear();
        self.strange = 0;
    }

    /// Whether a content is declared for the host; none if it was asked for too often.
    pub(super) fn ask(&mut self, id: &ContentId) -> Option<bool> {
        let graph = &self.graph;
        let declared = self.declared.get_or_insert_with(|| {
            let mut declared = HashMap::new();
            for id in graph.nodes.iter().flat_map(named_contents) {
                *declared.entry(id).or_default() += ASKS * attempts(graph);
            }
            declared
        });
        let Some(most) = declared.get(id) else {
            self.strange += 1;
            return (self.strange <= STRANGE_ASKS).then_some(false);
        };
        let asked = self.asked.entry(*id).or_default();
        *asked += 1;
        (*asked <= *most).then_some(true)
    }

    /// How long the longest step may take, by what is declared.
    pub(super) fn longest_step(&self) -> Duration {
        self.graph.nodes.iter().map(longest).max().unwrap_or_default()
    }
}

/// Most attempts that a node of the graph has.
fn attempts(graph: &Graph) -> u64 {
    let retries = graph.nodes.iter().filter_map(|node| node.retry);
    1 + retries.map(|retry| u64::from(retry.times)).max().unwrap_or(0)
}

fn longest(node: &Node) -> Duration {
    let own = match &node.work {
        Work::Resource(declared) | Work::Reaction { declared, .. } => declared.kind().takes(),
        Work::Restore(_) | Work::Skipped(_) | Work::Unknown(_) => Duration::ZERO,
    };
    let own = own.saturating_add(Duration::from_millis(node.confirm_connection.unwrap_or(0)));
    let once = own.saturating_add(Duration::from_millis(node.timeout.unwrap_or(0)));
    let (times, delay) = node.retry.map_or((0, 0), |retry| (retry.times, retry.delay));
    let again = once.saturating_add(Duration::from_millis(delay)).saturating_mul(times);
    once.saturating_add(again)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_declared_is_told_apart_and_nothing_is_asked_for_without_end() {
        let mut allowance = Allowance::of(Arc::default());
        let id = ContentId::of(b"of another host");
        assert_eq!(allowance.ask(&id), Some(false));
        for _ in 1..STRANGE_ASKS {
            allowance.ask(&id);
        }
        assert_eq!(allowance.ask(&id), None);
        allowance.renew();
        assert_eq!(allowance.ask(&id), Some(false));
    }
}
