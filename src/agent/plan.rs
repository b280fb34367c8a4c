use std::collections::HashMap;
use std::time::Instant;

use super::contents::{SMALL, Store};
use super::environment::environment_of;
use super::steps::Steps;
use crate::change::{self, Change, Content, Sides};
use crate::graph::{Graph, Node, NodeIndex, Work};
use crate::kind::{
    Actor, Changed, Contents, Declared, PlanError, Planned, Planning, Watched, plan_reaction,
};
use crate::report::Verdict;
use crate::resource::ResourceId;
use crate::wire::{PlannedNode, ShownChange};
use crate::world::{Host, Metadata, Probe, System, World};

/// What was planned for one node.
#[derive(Clone, Debug)]
pub(super) struct NodePlan {
    pub(super) verdict: Verdict,
    pub(super) because: String,
    pub(super) changes: Vec<Change>,
    pub(super) depends_on: Vec<NodeIndex>,
    pub(super) assuming: Vec<NodeIndex>,
}

impl NodePlan {
    fn settled(verdict: Verdict, because: impl Into<String>) -> Self {
        Self {
            verdict,
            because: because.into(),
            changes: Vec::new(),
            depends_on: Vec::new(),
            assuming: Vec::new(),
        }
    }

    /// Whether something is going to happen, or may.
    pub(super) fn pending(&self) -> bool {
        matches!(self.verdict, Verdict::Change | Verdict::Depends)
    }
}

/// Everything that planning a host needs.
pub(super) struct Planner<'a> {
    pub(super) host: &'a Host,
    pub(super) graph: &'a Graph,
    pub(super) steps: &'a Steps,
    pub(super) store: &'a Store,
    pub(super) actors: &'a HashMap<Option<String>, Actor>,
    pub(super) diff: bool,
    /// Guards are not run: what they decide waits.
    pub(super) untrusted: bool,
}

/// A plan of all nodes, by their index.
pub(super) type Plan = Vec<Option<NodePlan>>;

impl Planner<'_> {
    /// Plans all nodes in the predicted world; `tell` gets them level by level.
    pub(super) fn plan_all(
        &self,
        mut tell: impl FnMut(Vec<PlannedNode>) -> std::io::Result<()>,
    ) -> std::io::Result<Plan> {
        let world = World::observed(self.host);
        let by_id: HashMap<ResourceId, NodeIndex> = self
            .graph
            .nodes
            .iter()
            .zip(0..)
            .map(|(node, index)| (node.id.clone(), index))
            .collect();
        let mut plan: Plan = vec![None; self.graph.nodes.len()];
        for level in self.steps.levels() {
            let mut planned = self.plan_level(level, &world, &plan, &by_id);
            let shown = self.show(&world, &planned)?;
            let mut again = Vec::new();
            for (position, (index, node_plan, _)) in planned.iter().enumerate() {
                if makes_planned_folder(node_plan, &world)? {
                    again.push(position);
                } else {
                    self.lay_over(*index, node_plan, &world)?;
                }
            }
            // Two of a level may both make a parent folder: the later one finds it planned.
            let mut shown = shown;
            for position in again {
                let (index, _, ms) = planned[position];
                let step = self.steps.step_of(self.graph.nodes[index as usize].step);
                let fresh = self.plan_step(step, &world, &plan, &by_id);
                if let Some((_, node_plan)) = fresh.into_iter().find(|(fresh, _)| *fresh == index) {
                    let one = [(index, node_plan, ms)];
                    shown.splice(position..=position, self.show(&world, &one)?);
                    let [(_, node_plan, _)] = one;
                    self.lay_over(index, &node_plan, &world)?;
                    planned[position].1 = node_plan;
                }
            }
            for (index, node_plan, _) in planned {
                plan[index as usize] = Some(node_plan);
            }
            tell(shown)?;
        }
        Ok(plan)
    }

    fn plan_level(
        &self,
        level: &[usize],
        world: &World<'_>,
        plan: &Plan,
        by_id: &HashMap<ResourceId, NodeIndex>,
    ) -> Vec<(NodeIndex, NodePlan, u64)> {
        let one = |step: &usize| -> Vec<(NodeIndex, NodePlan, u64)> {
            let begun = Instant::now();
            let planned = self.plan_step(*step, world, plan, by_id);
            let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            planned.into_iter().map(|(index, plan)| (index, plan, ms)).collect()
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        if level.len() < 64 || threads == 1 {
            return level.iter().flat_map(one).collect();
        }
        let size = level.len().div_ceil(threads);
        std::thread::scope(|scope| {
            let workers: Vec<_> = level
                .chunks(size)
                .map(|chunk| scope.spawn(move || chunk.iter().flat_map(one).collect::<Vec<_>>()))
                .collect();
            workers
                .into_iter()
                .zip(level.chunks(size))
                .flat_map(|(worker, chunk)| {
                    worker.join().unwrap_or_else(|_| {
                        let bug = "planning panicked; this is a bug of converge, please report it";
                        let failed = |step: &usize| {
                            let members = self.steps.members(*step).iter();
                            members
                                .map(|index| (*index, NodePlan::settled(Verdict::Failed, bug), 0))
                                .collect::<Vec<_>>()
                        };
                        chunk.iter().flat_map(failed).collect()
                    })
                })
                .collect()
        })
    }

    fn plan_step(
        &self,
        step: usize,
        world: &World<'_>,
        plan: &Plan,
        by_id: &HashMap<ResourceId, NodeIndex>,
    ) -> Vec<(NodeIndex, NodePlan)> {
        let mut result = Vec::new();
        let mut together = Vec::new();
        for index in self.steps.members(step) {
            let node = &self.graph.nodes[*index as usize];
            match self.before_planning(node, world, plan) {
                Gate::Settled(settled) => result.push((*index, settled)),
                Gate::Open(waits) => together.push((*index, waits, None)),
                Gate::Undecided(reason) => together.push((*index, Vec::new(), Some(reason))),
            }
        }
        let indexes: Vec<NodeIndex> = together.iter().map(|(index, ..)| *index).collect();
        let planned = self.plan_nodes(&indexes, world, plan);
        for ((index, waits, undecided), planned) in together.into_iter().zip(planned) {
            let node_plan = match planned {
                Ok(mut planned) => {
                    planned.depends_on.retain(|id| by_id.contains_key(id));
                    let indexes = |ids: &[ResourceId]| -> Vec<NodeIndex> {
                        ids.iter().filter_map(|id| by_id.get(id).copied()).collect()
                    };
                    let mut depends_on = indexes(&planned.depends_on);
                    depends_on.extend(waits);
                    depends_on.sort_unstable();
                    depends_on.dedup();
                    let visible = planned.changes.iter().any(is_change);
                    let undecided = undecided.map(str::to_owned).or(planned.undecided);
                    let verdict = if undecided.is_some() || !depends_on.is_empty() {
                        Verdict::Depends
                    } else if visible {
                        Verdict::Change
                    } else {
                        Verdict::Ok
                    };
                    NodePlan {
                        verdict,
                        because: undecided.or(planned.because).unwrap_or_default(),
                        assuming: indexes(&planned.assuming),
                        changes: planned.changes,
                        depends_on,
                    }
                }
                Err(error) => NodePlan::settled(Verdict::Failed, explain(&error)),
            };
            result.push((index, node_plan));
        }
        result
    }

    /// Plans nodes of one step on a world; used for the prediction and again at their turn.
    pub(super) fn plan_nodes(
        &self,
        indexes: &[NodeIndex],
        world: &World<'_>,
        plan: &Plan,
    ) -> Vec<Result<Planned, PlanError>> {
        if indexes.len() > 1 {
            let mut plannings = Vec::new();
            let mut declared = Vec::new();
            for index in indexes {
                let node = &self.graph.nodes[*index as usize];
                if let Work::Resource(resource) = &node.work {
                    declared.push(resource);
                    plannings.push(self.planning(node, world));
                }
            }
            if declared.len() == indexes.len() {
                return match Declared::plan_together(&declared, &mut plannings) {
                    Ok(()) => plannings.into_iter().map(|planning| Ok(planning.finish())).collect(),
                    Err(errors) => errors
                        .into_iter()
                        .zip(plannings)
                        .map(|(error, planning)| match error {
                            Some(error) => Err(error),
                            None => Ok(planning.finish()),
                        })
                        .collect(),
                };
            }
        }
        indexes.iter().map(|index| self.plan_node(*index, world, plan)).collect()
    }

    fn planning<'w>(&'w self, node: &'w Node, world: &'w World<'w>) -> Planning<'w> {
        // The file may be about to come; whatever runs then finds it, or says what is missing.
        let environment =
            environment_of(node, self.host).unwrap_or_else(|_| node.environment.clone());
        Planning::new(&node.id, self.actor(node), environment, world, self.store)
            .untrusted(self.untrusted)
    }

    fn actor(&self, node: &Node) -> &Actor {
        static NOBODY: std::sync::LazyLock<Actor> = std::sync::LazyLock::new(|| Actor {
            user: String::from("root"),
            group: String::from("root"),
            root: true,
        });
        self.actors.get(&node.become_user).unwrap_or(&NOBODY)
    }

    fn plan_node(
        &self,
        index: NodeIndex,
        world: &World<'_>,
        plan: &Plan,
    ) -> Result<Planned, PlanError> {
        let node = &self.graph.nodes[index as usize];
        let mut planning = self.planning(node, world);
        match &node.work {
            Work::Skipped(_) => {}
            Work::Resource(declared) => {
                declared.kind().plan(&mut planning)?;
                if let Some(check) = declared.kind().validate() {
                    planning.needs_program_of(check)?;
                }
            }
            Work::Reaction { service, reload, restart } => {
                let changed = |nodes: &[NodeIndex]| {
                    let verdicts =
                        || nodes.iter().filter_map(|index| plan[*index as usize].as_ref());
                    if verdicts().any(|plan| plan.verdict == Verdict::Change) {
                        Changed::Planned
                    } else if verdicts().any(|plan| plan.verdict == Verdict::Depends) {
                        Changed::Maybe
                    } else {
                        Changed::No
                    }
                };
                let watched = Watched {
                    reload: changed(reload),
                    restart: changed(restart),
                    unit_file: changed(&self.unit_files_of(*service)),
                };
                let Work::Resource(Declared::Service(declared)) =
                    &self.graph.nodes[*service as usize].work
                else {
                    return Ok(planning.finish());
                };
                if let Some(due) = plan_reaction(declared, &mut planning, watched)? {
                    if !due.certain {
                        let maybe = reload.iter().chain(restart).chain([service]).filter(|index| {
                            plan[**index as usize]
                                .as_ref()
                                .is_some_and(|plan| plan.verdict == Verdict::Depends)
                        });
                        let ids = maybe.map(|index| self.graph.nodes[*index as usize].id.clone());
                        planning.wait_for(ids.collect::<Vec<_>>());
                    }
                    planning.push(due.change());
                }
            }
        }
        Ok(planning.finish())
    }

    /// The nodes that declare the unit file of a service.
    pub(super) fn unit_files_of(&self, service: NodeIndex) -> Vec<NodeIndex> {
        let node = &self.graph.nodes[service as usize];
        let Some(name) = node.id.as_str().strip_prefix("service:") else { return Vec::new() };
        let file = if name.contains('.') { name.to_owned() } else { format!("{name}.service") };
        let unit = format!("unit:{file}");
        let path = format!("file:/etc/systemd/system/{file}");
        self.graph
            .nodes
            .iter()
            .zip(0..)
            .filter(|(node, _)| node.id.as_str() == unit || node.id.as_str() == path)
            .map(|(_, index)| index)
            .collect()
    }

    /// What is decided before a kind looks: `when`, `onchanges`, `onfail`, failures, guards.
    fn before_planning(&self, node: &Node, world: &World<'_>, plan: &Plan) -> Gate {
        if let Work::Skipped(reason) = &node.work {
            return Gate::Settled(NodePlan::settled(Verdict::Skipped, reason));
        }
        let failed = node.require.iter().find(|index| {
            plan[**index as usize].as_ref().is_some_and(|plan| plan.verdict == Verdict::Failed)
        });
        if let Some(failed) = failed {
            let reason = format!("{} failed", self.graph.nodes[*failed as usize].id);
            return Gate::Settled(NodePlan::settled(Verdict::Skipped, reason));
        }
        let mut waits = Vec::new();
        if let Some(watched) = &node.onchanges {
            let verdict = |index: &NodeIndex| {
                plan[*index as usize].as_ref().map_or(Verdict::Ok, |plan| plan.verdict)
            };
            if !watched.iter().any(|index| verdict(index) == Verdict::Change) {
                waits.extend(watched.iter().filter(|index| verdict(index) == Verdict::Depends));
                if waits.is_empty() {
                    let reason = "nothing changed that it waits for";
                    return Gate::Settled(NodePlan::settled(Verdict::Ok, reason));
                }
            }
        }
        if node.onfail.is_some() {
            let reason = "acts only if something fails";
            return Gate::Settled(NodePlan::settled(Verdict::Ok, reason));
        }
        if node.unless.is_empty() && node.onlyif.is_empty() {
            return Gate::Open(waits);
        }
        let pending = self.pending_before(node, plan);
        if !pending.is_empty() {
            waits.extend(pending);
            return Gate::Open(waits);
        }
        if self.untrusted {
            return Gate::Undecided("its guards are not run (--untrusted)");
        }
        match self.guards(node, world) {
            Ok(None) => Gate::Open(waits),
            Ok(Some(reason)) => Gate::Settled(NodePlan::settled(Verdict::Ok, reason)),
            Err(error) => Gate::Settled(NodePlan::settled(Verdict::Failed, explain(&error))),
        }
    }

    /// Runs the guards; the reason if they say that there is nothing to do.
    pub(super) fn guards(
        &self,
        node: &Node,
        world: &World<'_>,
    ) -> Result<Option<String>, PlanError> {
        let run = |line: &str| -> Result<bool, PlanError> {
            let mut probe = Probe::new(["/bin/sh", "-c", line]);
            probe.user = Some(self.actor(node).user.clone());
            probe.environment = environment_of(node, self.host)?;
            if let Some(timeout) = node.timeout {
                probe.timeout = std::time::Duration::from_millis(timeout);
            }
            Ok(world.system().probe(&probe)?.code == 0)
        };
        for line in &node.unless {
            if run(line)? {
                return Ok(Some(format!("`unless: {line}` succeeds")));
            }
        }
        for line in &node.onlyif {
            if !run(line)? {
                return Ok(Some(format!("`onlyif: {line}` fails")));
            }
        }
        Ok(None)
    }

    /// The pending changes, near and far, that a node comes after. The nearest ones stand for
    /// those before them.
    fn pending_before(&self, node: &Node, plan: &Plan) -> Vec<NodeIndex> {
        let mut seen = std::collections::HashSet::new();
        let mut stack: Vec<NodeIndex> = node.after.clone();
        let mut pending = Vec::new();
        while let Some(index) = stack.pop() {
            if !seen.insert(index) {
                continue;
            }
            let step = self.graph.nodes[index as usize].step;
            for member in self.steps.members_of(step) {
                seen.insert(*member);
                if plan[*member as usize].as_ref().is_some_and(NodePlan::pending) {
                    pending.push(*member);
                } else {
                    stack.extend(&self.graph.nodes[*member as usize].after);
                }
            }
        }
        pending.sort_unstable();
        pending
    }

    pub(super) fn lay_over(
        &self,
        index: NodeIndex,
        plan: &NodePlan,
        world: &World<'_>,
    ) -> std::io::Result<()> {
        let node = &self.graph.nodes[index as usize];
        for one in &plan.changes {
            change::lay_over(one, &node.id, world)
                .map_err(|error| std::io::Error::other(error.to_string()))?;
        }
        if plan.pending()
            && let Work::Resource(declared) = &node.work
            && let Some(opaque) = declared.kind().opaque()
        {
            world.lay_opaque(&node.id, opaque);
        }
        Ok(())
    }

    /// Plans as the controller is told of them, with differences as text if they are wanted.
    fn show(
        &self,
        world: &World<'_>,
        planned: &[(NodeIndex, NodePlan, u64)],
    ) -> std::io::Result<Vec<PlannedNode>> {
        if self.diff {
            let wanted = planned.iter().flat_map(|(index, plan, _)| {
                let node = &self.graph.nodes[*index as usize];
                plan.changes.iter().filter_map(move |one| match one {
                    Change::Content { after: Content::File(id), .. }
                        if !self.hidden(node, one, &plan.changes) =>
                    {
                        Some(*id)
                    }
                    _ => None,
                })
            });
            self.store.prefetch(wanted.collect::<Vec<_>>())?;
        }
        Ok(planned
            .iter()
            .map(|(index, plan, ms)| PlannedNode {
                node: *index,
                verdict: plan.verdict,
                because: plan.because.clone(),
                depends_on: plan.depends_on.clone(),
                assuming: plan.assuming.clone(),
                changes: self.views(*index, &plan.changes, Some(world)),
                ms: *ms,
            })
            .collect())
    }

    /// Whether a content may not be shown: it says so, or not everybody may read the file.
    fn hidden(&self, node: &Node, change: &Change, changes: &[Change]) -> bool {
        if let Some(sensitive) = node.sensitive {
            return sensitive;
        }
        let Change::Content { path, .. } = change else { return false };
        let private = |metadata: &Metadata| metadata.mode & 0o004 == 0;
        let planned = changes.iter().any(|other| match other {
            Change::Metadata { path: other, after, .. } => other == path && private(after),
            _ => false,
        });
        planned
            || self
                .host
                .entry(path)
                .ok()
                .and_then(|entry| entry.metadata().cloned())
                .is_some_and(|metadata| private(&metadata))
    }

    /// Changes as people read them.
    pub(super) fn views(
        &self,
        index: NodeIndex,
        changes: &[Change],
        world: Option<&World<'_>>,
    ) -> Vec<ShownChange> {
        let node = &self.graph.nodes[index as usize];
        changes
            .iter()
            .map(|one| {
                let view = match one {
                    Change::Content { .. } if self.hidden(node, one, changes) => {
                        change::view(one, Sides::Hidden)
                    }
                    Change::Content { path, before, after } if self.diff => {
                        let old = match before {
                            Content::File(id) if id.size <= SMALL => {
                                let planned = world
                                    .is_some_and(|world| world.planned_content(path) == Some(*id));
                                if planned {
                                    self.store.bytes(id).ok()
                                } else {
                                    self.host.read(path).ok().map(Into::into)
                                }
                            }
                            _ => None,
                        };
                        let new = match after {
                            Content::File(id) if id.size <= SMALL => self.store.bytes(id).ok(),
                            _ => None,
                        };
                        let lost = |side: &Content, bytes: bool| {
                            matches!(side, Content::File(_)) && !bytes
                        };
                        if lost(before, old.is_some()) || lost(after, new.is_some()) {
                            change::view(one, Sides::Omitted)
                        } else {
                            let sides =
                                Sides::Shown { before: old.as_deref(), after: new.as_deref() };
                            change::view(one, sides)
                        }
                    }
                    _ => change::view(one, Sides::Omitted),
                };
                ShownChange { change: one.clone(), view }
            })
            .collect()
    }
}

/// Whether a plan makes a folder that another plan of the same level makes already.
fn makes_planned_folder(plan: &NodePlan, world: &World<'_>) -> std::io::Result<bool> {
    for change in &plan.changes {
        if let Change::Content { path, before: Content::Absent, after: Content::Folder } = change {
            let predicted =
                world.entry(path).map_err(|error| std::io::Error::other(error.to_string()))?;
            if matches!(predicted.value, crate::world::Entry::Folder { .. }) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What is decided before a kind looks.
enum Gate {
    Settled(NodePlan),
    /// The kind plans; the node waits for these all the same.
    Open(Vec<NodeIndex>),
    /// The kind plans; whether anything happens is not known, for this reason.
    Undecided(&'static str),
}

/// Whether it counts as a change: looking and waiting do not.
pub(super) fn is_change(change: &Change) -> bool {
    !matches!(change, Change::Act(change::Act::Wait(_)))
}

/// A plan error as one text.
pub(super) fn explain(error: &PlanError) -> String {
    match &error.help {
        Some(help) => format!("{}; {help}", error.message),
        None => error.message.clone(),
    }
}
