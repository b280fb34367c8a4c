//! What a plan permits: each change is checked against it once more at its turn, and a saved plan
//! before anything begins.

use super::plan::{NodePlan, Plan, Planner, is_change};
use crate::change::{Account, Act, Change, Reaction, is_within};
use crate::graph::{NodeIndex, Work};
use crate::report::Verdict;
use crate::wire::{Bound, PlannedNode};
use crate::world::UserEntry;

impl Planner<'_> {
    /// The plan that an earlier one of this host allows.
    pub(super) fn allowed(&self, bound: &Bound) -> Plan {
        let mut plan: Plan = vec![None; self.graph.nodes.len()];
        for planned in &bound.planned {
            if let Some(slot) = plan.get_mut(planned.node as usize) {
                *slot = Some(NodePlan::of(planned));
            }
        }
        plan
    }

    /// Where a plan of now is not within an earlier one: the resource, and both.
    pub(super) fn outside(&self, allowed: &Plan, now: &Plan) -> Vec<String> {
        let mut outside = Vec::new();
        for (index, now) in (0..).zip(now) {
            let Some(now) = now else { continue };
            let id = &self.graph.nodes[index as usize].id;
            match &allowed[index as usize] {
                None => outside.push(format!("{id}: it is not in the plan")),
                Some(_) if now.verdict == Verdict::Skipped => {}
                Some(_) => {
                    let contradiction = self.contradiction(allowed, index, &now.changes);
                    outside.extend(contradiction.map(|what| format!("{id}: {what}")));
                }
            }
        }
        outside
    }

    /// Why changes may not be made: they are neither what was planned nor within the announcement.
    pub(super) fn contradiction(
        &self,
        plan: &Plan,
        index: NodeIndex,
        changes: &[Change],
    ) -> Option<String> {
        let plan = plan[index as usize].as_ref()?;
        let planned = |now: &Change| plan.changes.iter().any(|planned| permits(planned, now));
        // Waiting changes nothing, and less than planned may be left to do. A large tree is mostly
        // as it was planned, and comparing each with each would take long.
        if changes == plan.changes || changes.iter().all(|now| !is_change(now) || planned(now)) {
            return None;
        }
        // Announced as "acts only if something fails": what it would do depends on what failed.
        if self.graph.nodes[index as usize].onfail.is_some() {
            return None;
        }
        if plan.verdict == Verdict::Depends && self.announced(index, plan, changes) {
            return None;
        }
        let shown = |changes: &[Change]| {
            let views = self.views(index, changes, None);
            let lines: Vec<String> = views
                .into_iter()
                .map(|shown| {
                    format!(
                        "{} {}: {}",
                        shown.view.action,
                        shown.view.target,
                        shown.view.diff.trim_end()
                    )
                })
                .collect();
            if lines.is_empty() { String::from("nothing to do") } else { lines.join("\n") }
        };
        Some(format!(
            "the host is not as it was when this was planned\nplanned: {}\nnow: {}",
            shown(&plan.changes),
            shown(changes)
        ))
    }

    /// Whether changes stay within what a `depends` has announced: the same targets and actions,
    /// or a target of the resource's own.
    fn announced(&self, index: NodeIndex, plan: &NodePlan, changes: &[Change]) -> bool {
        let node = &self.graph.nodes[index as usize];
        let own = match &node.work {
            Work::Resource(declared) => declared.kind().footprint().writes,
            _ => return true,
        };
        changes.iter().all(|change| {
            let same_target = plan.changes.iter().any(|planned| same_target(planned, change));
            same_target
                || match change {
                    Change::Content { path, .. } | Change::Metadata { path, .. } => {
                        own.iter().any(|claim| claim.covers(path))
                    }
                    Change::Packages(now) => plan.changes.iter().all(|planned| match planned {
                        Change::Packages(announced) => is_within(now, announced),
                        _ => true,
                    }),
                    // The other actions of a kind have no target but the declared one.
                    _ => true,
                }
        })
    }
}

impl NodePlan {
    /// What was planned of a node before.
    fn of(planned: &PlannedNode) -> Self {
        Self {
            verdict: planned.verdict,
            because: planned.because.clone(),
            changes: planned.changes.iter().map(|shown| shown.change.clone()).collect(),
            depends_on: planned.depends_on.clone(),
            assuming: planned.assuming.clone(),
            ignored: planned.ignored,
            owed: planned.owed,
        }
    }
}

/// Whether a change is the planned one, or what that leaves open.
pub(super) fn permits(planned: &Change, now: &Change) -> bool {
    match (planned, now) {
        (Change::Packages(planned), Change::Packages(now)) => {
            planned == now || is_within(now, planned)
        }
        // A restart takes up what a reload would.
        (
            Change::Act(Act::React { unit, check, stop, reaction }),
            Change::Act(Act::React { unit: unit_now, check: check_now, stop: stop_now, .. }),
        ) if *reaction != Reaction::Reload => {
            (unit, check, stop) == (unit_now, check_now, stop_now)
        }
        (
            Change::Account {
                before: Some(Account::User { entry: before, .. }),
                after: Some(Account::User { entry: after, home, .. }),
            },
            Change::Account {
                before: Some(Account::User { entry: before_now, .. }),
                after: Some(Account::User { entry: after_now, home: home_now, .. }),
            },
        ) => {
            home == home_now
                && filled(before, before_now) == *before_now
                && filled(after, after_now) == *after_now
        }
        _ => planned == now,
    }
}

/// What the host chose, where the prediction could not know it.
fn filled(planned: &UserEntry, now: &UserEntry) -> UserEntry {
    UserEntry {
        uid: planned.uid.or(now.uid),
        group: planned.group.clone().or_else(|| now.group.clone()),
        password_hash: planned.password_hash.clone().or_else(|| now.password_hash.clone()),
        ..planned.clone()
    }
}

fn same_target(left: &Change, right: &Change) -> bool {
    match (left, right) {
        (Change::Content { path: left, .. }, Change::Content { path: right, .. })
        | (Change::Metadata { path: left, .. }, Change::Metadata { path: right, .. }) => {
            left == right
        }
        (Change::Packages(_), _) => false,
        _ => std::mem::discriminant(left) == std::mem::discriminant(right),
    }
}
