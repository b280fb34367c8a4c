//! One step that is not only about files: made, tried again, and what is known of it afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::apply::Applier;
use super::bounds::permits;
use super::plan::explain;
use super::wave::StepWork;
use crate::change::{Act, Change, PackageMove, PackageState, PackageTransaction, merge_packages};
use crate::graph::{Node, NodeIndex, Work};
use crate::kind::Declared;
use crate::wire::Outcome;
use crate::world::{PackageEntry, Probe, System, World};

/// So many services are asked for their last words.
const SERVICES_HEARD: usize = 5;

impl Applier<'_> {
    /// Carries out a step, and says which packages moved on the way: which come along is not
    /// always known before.
    pub(super) fn carry_out(
        &self,
        work: &StepWork,
    ) -> (Vec<(NodeIndex, Outcome)>, Vec<PackageMove>) {
        let mut all = work.iter().flat_map(|(_, changes)| changes);
        if !all.any(|change| matches!(change, Change::Packages(_))) {
            return (self.act_or_explain(work), Vec::new());
        }
        let host = self.planner.host;
        let before = host.packages();
        let outcomes = self.act_or_explain(work);
        host.forget();
        let moved = match (before, host.packages()) {
            (Ok(before), Ok(after)) => moved_between(&before, &after),
            _ => Vec::new(),
        };
        (outcomes, moved)
    }

    /// What services of a node's play have said last, for whoever looks for the reason of a failure.
    fn last_words(&self, node: &Node) -> String {
        let same_play = self.planner.graph.nodes.iter().filter(|other| other.play == node.play);
        let units = same_play.filter_map(|other| match &other.work {
            Work::Resource(Declared::Service(service)) => Some(service.unit()),
            _ => None,
        });
        let mut text = String::new();
        for unit in units.take(SERVICES_HEARD) {
            let name = format!("--unit={unit}");
            let argv = ["journalctl", &name, "--lines=10", "--no-pager", "--quiet", "--output=cat"];
            let Ok(answer) = self.planner.host.probe(&Probe::new(argv)) else { continue };
            if !answer.output.trim().is_empty() {
                text.push_str(&format!("\n{unit} said last:"));
            }
            for line in answer.output.lines() {
                text.push_str("\n  ");
                crate::change::sanitize(line, &mut text);
            }
        }
        text
    }

    /// What a step comes to, also if the code that makes its changes has a bug.
    fn act_or_explain(&self, work: &StepWork) -> Vec<(NodeIndex, Outcome)> {
        let acting = std::panic::AssertUnwindSafe(|| self.act(work));
        std::panic::catch_unwind(acting).unwrap_or_else(|_| {
            let bug = "this is a bug of converge, please report it";
            let failed = |index: &NodeIndex| self.failed(self.node(*index), bug.to_owned());
            work.iter().map(|(index, _)| (*index, failed(index))).collect()
        })
    }

    /// Makes the changes of a step that is not only about files, with its retries.
    fn act(&self, work: &[(NodeIndex, Vec<Change>)]) -> Vec<(NodeIndex, Outcome)> {
        if let Some(merged) = merged(work) {
            let node = self.node(work[0].0);
            let merged = [Change::Packages(merged)];
            let made = self.attempts(node, |_| self.actuator.make(node, &merged));
            return work
                .iter()
                .map(|(index, changes)| {
                    let outcome = match &made {
                        Ok(()) => self.made(*index, changes),
                        Err(message) => self.failed(self.node(*index), message.clone()),
                    };
                    (*index, outcome)
                })
                .collect();
        }
        let mut outcomes = Vec::new();
        let mut failed = false;
        for (index, changes) in work {
            let node = self.node(*index);
            if failed {
                let because = String::from("another part of its transaction failed");
                outcomes.push((*index, Outcome::Skipped { because }));
                continue;
            }
            let made = self.attempts(node, |again| {
                if again {
                    self.make_rest(*index, changes)
                } else {
                    self.actuator.make(node, changes)
                }
            });
            let waits = |change: &Change| matches!(change, Change::Act(Act::Wait(_)));
            let outcome = match made {
                Ok(()) => self.made(*index, changes),
                // What was waited for did not come: whoever was to bring it may have said why.
                Err(message) if changes.iter().all(waits) => {
                    self.failed(node, message + &self.last_words(node))
                }
                Err(message) => self.failed(node, message),
            };
            failed |= matches!(outcome, Outcome::Failed { .. });
            outcomes.push((*index, outcome));
        }
        outcomes
    }

    /// Tries, and tries again as often as the node says; the attempt is told whether it is a
    /// further one.
    fn attempts(
        &self,
        node: &Node,
        attempt: impl Fn(bool) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut left = node.retry.map_or(0, |retry| retry.times);
        let mut again = false;
        loop {
            match attempt(again) {
                Err(_) if left > 0 && self.pause(node.retry.map_or(0, |retry| retry.delay)) => {}
                result => return result,
            }
            left -= 1;
            again = true;
        }
    }

    /// Waits for so many milliseconds; false once the run is stopped.
    fn pause(&self, delay: u64) -> bool {
        let until = Instant::now() + Duration::from_millis(delay);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    /// Makes what an attempt that failed half-way has left to do.
    fn make_rest(&self, index: NodeIndex, changes: &[Change]) -> Result<(), String> {
        let node = self.node(index);
        if !matches!(node.work, Work::Resource(_)) {
            return self.actuator.make(node, changes);
        }
        self.planner.host.forget();
        let world = World::observed(self.planner.host);
        let planned = self.planner.plan_nodes(&[index], &world, self.plan);
        let Some(planned) = planned.into_iter().next() else { return Ok(()) };
        let rest = planned.map_err(|error| explain(&error))?.changes;
        let announced = |now: &Change| changes.iter().any(|planned| permits(planned, now));
        if rest.iter().all(announced) {
            self.actuator.make(node, &rest)
        } else {
            Err(String::from("after the failed attempt the host is not as it was planned any more"))
        }
    }
}

/// The packages that differ between two looks.
fn moved_between(
    before: &BTreeMap<String, PackageEntry>,
    after: &BTreeMap<String, PackageEntry>,
) -> Vec<PackageMove> {
    let state = |entry: Option<&PackageEntry>| {
        let entry = entry?;
        let version = Some(entry.version.clone()?);
        Some(PackageState { version, hold: entry.hold })
    };
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| {
            let (was, is) = (state(before.get(name)), state(after.get(name)));
            let gone = before.contains_key(name) && !after.contains_key(name);
            (was != is).then(|| PackageMove {
                name: name.clone(),
                before: was,
                after: is,
                purge: gone,
                requested: false,
                source: None,
            })
        })
        .collect()
}

/// The one transaction of a step's package states, if it has several.
fn merged(work: &[(NodeIndex, Vec<Change>)]) -> Option<PackageTransaction> {
    if work.len() < 2 {
        return None;
    }
    let mut transactions = Vec::new();
    for change in work.iter().flat_map(|(_, changes)| changes) {
        match change {
            Change::Packages(transaction) => transactions.push(transaction),
            _ => return None,
        }
    }
    merge_packages(transactions)
}
