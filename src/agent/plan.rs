use std::collections::{HashMap, HashSet};
use std::time::Instant;

use super::contents::Store;
use super::environment::environment_of;
use super::journal::{Debt, How};
use super::show::SHOWN;
use super::steps::Steps;
use crate::change::{self, Account, Change, Content, HomeDirectory, Mask};
use crate::graph::{Graph, Node, NodeIndex, Work};
use crate::kind::{
    Actor, Changed, Contents, Declared, OwedReaction, PlanError, Planned, Planning, Watched,
    plan_reaction,
};
use crate::report::{IGNORED, Verdict};
use crate::resource::ResourceId;
use crate::wire::PlannedNode;
use crate::world::{
    Entry, Host, Metadata, ObserveError, Probe, RemotePath, System, UserEntry, World,
};

/// What was planned for one node.
#[derive(Clone, Debug)]
pub(super) struct NodePlan {
    pub(super) verdict: Verdict,
    pub(super) because: String,
    pub(super) changes: Vec<Change>,
    pub(super) depends_on: Vec<NodeIndex>,
    pub(super) assuming: Vec<NodeIndex>,
    /// It failed, which is ignored.
    pub(super) ignored: bool,
    /// An earlier run owed it.
    pub(super) owed: bool,
}

impl NodePlan {
    fn settled(verdict: Verdict, because: impl Into<String>) -> Self {
        Self {
            verdict,
            because: because.into(),
            changes: Vec::new(),
            depends_on: Vec::new(),
            assuming: Vec::new(),
            ignored: false,
            owed: false,
        }
    }

    /// What cannot be planned fails, unless that is ignored.
    fn failed(node: &Node, error: &PlanError) -> Self {
        let reason = explain(error);
        if node.ignore_errors {
            let reason = format!("{IGNORED}{reason}");
            return Self { ignored: true, ..Self::settled(Verdict::Ok, reason) };
        }
        Self::settled(Verdict::Failed, reason)
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
    /// The secrets of all of the graph's nodes.
    pub(super) mask: Mask,
    /// What earlier runs have hidden, as records name it.
    pub(super) hidden_before: HashSet<String>,
    /// Guards are not run: what they decide waits.
    pub(super) untrusted: bool,
    /// What earlier runs owe, by whom it is owed to.
    pub(super) owed: HashMap<ResourceId, Vec<Debt>>,
    /// What the kernel calls this boot.
    pub(super) boot: String,
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
            let mut shown = self.show(&world, &planned)?;
            for (position, slot) in planned.iter_mut().enumerate() {
                // What stands before it in the file and in this level counts for it too: two may
                // make the same parent folder, or one may need what the other makes.
                let (index, ms) = (slot.0, slot.2);
                if makes_planned_folder(&slot.1, &world)? || slot.1.verdict == Verdict::Failed {
                    let step = self.steps.step_of(self.graph.nodes[index as usize].step);
                    let fresh = self.plan_step(step, &world, &plan, &by_id);
                    if let Some((_, fresh)) = fresh.into_iter().find(|(fresh, _)| *fresh == index) {
                        let one = [(index, fresh, ms)];
                        shown.splice(position..=position, self.show(&world, &one)?);
                        let [(_, fresh, _)] = one;
                        slot.1 = fresh;
                    }
                }
                self.lay_over(index, &slot.1, &world)?;
            }
            for (index, node_plan, _) in planned {
                plan[index as usize] = Some(node_plan);
            }
            let mut batch = Vec::new();
            let mut size = 0;
            for node in shown {
                size += node.changes.iter().map(|one| one.view.diff.len()).sum::<usize>();
                batch.push(node);
                if size > SHOWN {
                    tell(std::mem::take(&mut batch))?;
                    size = 0;
                }
            }
            if !batch.is_empty() {
                tell(batch)?;
            }
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
                    let node = &self.graph.nodes[index as usize];
                    let visible = planned.changes.iter().any(is_change);
                    let owed = visible.then(|| self.owed_by(node, plan)).flatten();
                    if let Work::Restore(restore) = &node.work
                        && restore.only_shown
                    {
                        let reason = "no longer declared; `prune: true` in its play removes it";
                        let settled = if visible {
                            NodePlan::settled(Verdict::Skipped, reason)
                        } else {
                            NodePlan::settled(Verdict::Ok, "")
                        };
                        result.push((index, NodePlan { changes: planned.changes, ..settled }));
                        continue;
                    }
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
                        owed: owed.is_some(),
                        because: undecided.or(owed).or(planned.because).unwrap_or_default(),
                        assuming: indexes(&planned.assuming),
                        changes: planned.changes,
                        depends_on,
                        ignored: false,
                    }
                }
                Err(error) => NodePlan::failed(&self.graph.nodes[index as usize], &error),
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
        indexes
            .iter()
            .map(|index| {
                let user = self.actor(&self.graph.nodes[*index as usize], world).user;
                self.host.reading_as(&user, || self.plan_node(*index, world, plan))
            })
            .collect()
    }

    /// Begins to plan a node in a world.
    pub(super) fn planning<'w>(&'w self, node: &'w Node, world: &'w World<'w>) -> Planning<'w> {
        // The file may be about to come; whatever runs then finds it, or says what is missing.
        let environment =
            environment_of(node, self.host).unwrap_or_else(|_| node.environment.clone());
        Planning::new(&node.id, self.actor(node, world), environment, world, self.store)
            .untrusted(self.untrusted)
    }

    /// The name of the user as whom a node acts.
    pub(super) fn acting_user(&self, node: &Node) -> String {
        match &node.become_user {
            Some(name) => name.clone(),
            None => {
                self.actors.get(&None).map_or_else(|| "root".into(), |actor| actor.user.clone())
            }
        }
    }

    /// As whom a node acts in a world, where the user may be one that is planned.
    fn actor(&self, node: &Node, world: &World<'_>) -> Actor {
        if let Some(name) = &node.become_user
            && let Ok(predicted) = world.user(name)
            && let Some(user) = predicted.value
        {
            let group = user.group.unwrap_or_else(|| name.clone());
            return Actor { user: user.name, group, root: user.uid == Some(0) };
        }
        self.actors.get(&node.become_user).cloned().unwrap_or_else(|| Actor {
            user: String::from("root"),
            group: String::from("root"),
            root: true,
        })
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
            Work::Skipped(_) | Work::Unknown(_) => {}
            Work::Restore(restore) => restore.plan(&mut planning)?,
            Work::Resource(declared) => {
                declared.kind().plan(&mut planning)?;
                if let Some(check) = declared.kind().validate() {
                    planning.needs_program_of(check)?;
                }
            }
            Work::Reaction { service, declared, reload, restart } => {
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
                    late: reload.iter().chain(restart).any(|index| {
                        index > service
                            && plan[*index as usize].as_ref().is_some_and(NodePlan::pending)
                    }),
                    owed: self.owed_reaction(&node.id),
                };
                let Declared::Service(declared) = declared else { return Ok(planning.finish()) };
                let Some(due) = plan_reaction(declared, &mut planning, watched)? else {
                    // Whatever was looked at decides nothing then.
                    return Ok(self.planning(node, world).finish());
                };
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
        Ok(planning.finish())
    }

    /// The reaction that is owed to a service, with the times since which it is. What runs since a
    /// later boot has seen all of it.
    pub(super) fn owed_reaction(&self, id: &ResourceId) -> OwedReaction {
        let mut owed = OwedReaction::default();
        for debt in self.owed.get(id).into_iter().flatten().filter(|debt| debt.boot == self.boot) {
            let since = debt.finished.unwrap_or(u64::MAX);
            match debt.how {
                How::Restart => owed.restart = owed.restart.max(Some(since)),
                How::Reload => owed.reload = owed.reload.max(Some(since)),
                How::Act => {}
            }
        }
        owed
    }

    /// Why a node acts though nothing makes it act in this run: an earlier one owed it.
    fn owed_by(&self, node: &Node, plan: &Plan) -> Option<String> {
        let debts = self.owed.get(&node.id)?;
        let changing = |nodes: &[NodeIndex]| {
            nodes.iter().any(|index| plan[*index as usize].as_ref().is_some_and(NodePlan::pending))
        };
        let due_anyway = match &node.work {
            Work::Reaction { reload, restart, .. } => changing(reload) || changing(restart),
            _ => node.onchanges.as_ref().is_some_and(|watched| changing(watched)),
        };
        let debt = debts.first().filter(|_| !due_anyway)?;
        Some(format!("owed since run {}, which changed {}", debt.run, debt.from))
    }

    /// The nodes that declare the unit file of a service.
    pub(super) fn unit_files_of(&self, service: NodeIndex) -> Vec<NodeIndex> {
        let node = &self.graph.nodes[service as usize];
        let Some(name) = node.id.as_str().strip_prefix("service:") else { return Vec::new() };
        let file = crate::world::systemd::full_name(name);
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
        if let Work::Unknown(reason) = &node.work {
            return Gate::Settled(NodePlan::settled(Verdict::Depends, reason));
        }
        let failed = node.require.iter().find(|index| {
            plan[**index as usize]
                .as_ref()
                .is_some_and(|plan| plan.verdict == Verdict::Failed || plan.ignored)
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
                if waits.is_empty() && !self.owed.contains_key(&node.id) {
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
            Err(error) => Gate::Settled(NodePlan::failed(node, &error)),
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
            probe.user = Some(self.acting_user(node));
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
        let mut seen = HashSet::new();
        let mut stack: Vec<NodeIndex> = node.after.clone();
        // A play comes after all of the plays before it.
        let mut pending: Vec<NodeIndex> = (0..)
            .zip(plan)
            .filter(|(index, plan): &(NodeIndex, _)| {
                self.graph.nodes[*index as usize].play < node.play
                    && plan.as_ref().is_some_and(NodePlan::pending)
            })
            .map(|(index, _)| index)
            .collect();
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
        if plan.verdict == Verdict::Skipped {
            return Ok(()); // it is only shown
        }
        if plan.verdict == Verdict::Depends {
            world.doubt(&node.id);
        }
        for one in &plan.changes {
            change::lay_over(one, &node.id, world)
                .map_err(|error| std::io::Error::other(error.to_string()))?;
            if let Change::Account {
                before: None,
                after: Some(Account::User { entry, home: HomeDirectory::Create, .. }),
            } = one
            {
                // A skeleton that cannot be read shows when the user is made.
                let _ = self.lay_skeleton(
                    &RemotePath::from("/etc/skel"),
                    &RemotePath::new(&entry.home),
                    entry,
                    &node.id,
                    world,
                );
            }
        }
        if plan.pending()
            && let Work::Resource(declared) = &node.work
            && let Some(opaque) = declared.kind().opaque()
        {
            world.lay_opaque(&node.id, opaque);
        }
        Ok(())
    }

    /// Lays what useradd copies into a new home.
    fn lay_skeleton(
        &self,
        from: &RemotePath,
        to: &RemotePath,
        user: &UserEntry,
        by: &ResourceId,
        world: &World<'_>,
    ) -> Result<(), ObserveError> {
        if !matches!(self.host.entry(from)?, Entry::Folder { .. }) {
            return Ok(());
        }
        for source in self.host.list(from)? {
            let Some(name) = source.as_path().file_name() else { continue };
            let target = to.join(name);
            let own = |metadata: Metadata| Metadata {
                owner: user.name.clone(),
                group: user.group.clone().unwrap_or_else(|| user.name.clone()),
                mode: metadata.mode,
            };
            match self.host.entry(&source)? {
                Entry::File { size, metadata } => {
                    let content = self.store.keep(self.host.read(&source)?);
                    let entry = Entry::File { size, metadata: own(metadata) };
                    world.lay_entry(by, target, entry, Some(content));
                }
                Entry::Folder { metadata } => {
                    let entry = Entry::Folder { metadata: own(metadata) };
                    world.lay_entry(by, target.clone(), entry, None);
                    self.lay_skeleton(&source, &target, user, by, world)?;
                }
                Entry::Link { target: link, metadata } => {
                    let entry = Entry::Link { target: link, metadata: own(metadata) };
                    world.lay_entry(by, target, entry, None);
                }
                Entry::Absent | Entry::Other { .. } => {}
            }
        }
        Ok(())
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
