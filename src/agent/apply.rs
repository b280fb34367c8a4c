use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::act::Actuator;
use super::confirm::Confirmation;
use super::output::Output;
use super::plan::{NodePlan, Plan, Planner, explain, is_change};
use super::recorder::Recorder;
use super::wave::{StepWork, Wave};
use crate::change::{Change, Content, PackageMove};
use crate::graph::{Node, NodeIndex, Work};
use crate::kind::{Changed, Declared, Restore, Watched, plan_reaction};
use crate::report::{ChangeView, Verdict};
use crate::wire::{FromAgent, Outcome, STOPPED};
use crate::world::World;

/// How a node ended, as later ones need to know it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ended {
    pub(super) changed: bool,
    failed: bool,
    /// It failed, or was left out because of a failure.
    blocked: bool,
    /// On the monotonic clock, in microseconds.
    at: u64,
}

impl Ended {
    /// Whether it was changed, or was as declared.
    pub(super) fn succeeded(&self) -> bool {
        !self.blocked
    }
}

/// Applies one play of a plan, in graph order, in parallel.
pub(super) struct Applier<'a> {
    pub(super) planner: &'a Planner<'a>,
    pub(super) plan: &'a Plan,
    pub(super) actuator: &'a Actuator<'a>,
    pub(super) output: &'a Arc<Output>,
    pub(super) stop: &'a AtomicBool,
    pub(super) recorder: &'a Recorder<'a>,
    pub(super) confirmation: &'a Confirmation<'a>,
}

/// A step that was carried out on its own: its outcomes, how long it took, and the packages that
/// moved.
struct Carried {
    step: usize,
    outcomes: Vec<(NodeIndex, Outcome)>,
    ms: u64,
    moved: Vec<PackageMove>,
}

/// What a step comes to at its turn.
enum Turn {
    /// Nothing to do.
    Settled(Vec<(NodeIndex, Outcome)>),
    /// These changes are to be made, node by node; the rest of the step is settled.
    Act(StepWork, Vec<(NodeIndex, Outcome)>),
}

/// State of one play's walk.
pub(super) struct Walk {
    pub(super) ended: Vec<Option<Ended>>,
    /// Steps after which something had changed on their way.
    disturbed: Vec<bool>,
    waiting: Vec<usize>,
    done: HashSet<usize>,
    pub(super) failed: bool,
    /// Changes that may have locked the operator out, with how long a login may take after them.
    pub(super) unconfirmed: Vec<(NodeIndex, Duration)>,
    /// Why nothing more begins, where those go back.
    pub(super) over: Option<String>,
}

impl Walk {
    /// Puts a step back among those that wait.
    fn wait(&mut self, step: usize) {
        let place = self.waiting.partition_point(|other| *other < step);
        self.waiting.insert(place, step);
    }
}

impl Applier<'_> {
    /// Applies a play; whether something failed that counts. `ended` is what earlier plays came to,
    /// and takes what this one comes to.
    pub(super) fn apply_play(
        &self,
        play: u32,
        ended: &mut Vec<Option<Ended>>,
    ) -> std::io::Result<bool> {
        let steps = self.planner.steps;
        let waiting = steps.of_play(play);
        let first = waiting.first().copied().unwrap_or(0);
        // Whatever an earlier play changed may concern all of this one.
        let disturbed = ended.iter().flatten().any(|ended| ended.changed);
        let mut walk = Walk {
            ended: std::mem::take(ended),
            disturbed: vec![disturbed; steps.levels().iter().map(Vec::len).sum()],
            waiting,
            done: HashSet::new(),
            failed: false,
            unconfirmed: Vec::new(),
            over: None,
        };
        let result = self.walk(&mut walk, first);
        self.confirm(&mut walk, true);
        self.take_back_unconfirmed(&mut walk);
        *ended = walk.ended;
        result.map(|()| walk.failed)
    }

    fn walk(&self, walk: &mut Walk, first: usize) -> std::io::Result<()> {
        let (results, finished) = mpsc::channel();
        let threads = std::thread::available_parallelism().map_or(2, usize::from) * 4;
        std::thread::scope(|scope| {
            let mut running = 0;
            loop {
                self.confirm(walk, false);
                let ready = self.take_ready(walk, first, running);
                let idle = ready.is_empty();
                let mut wave = Wave::default();
                // What the wave is about to do counts for those that join it later.
                let world = World::observed(self.planner.host);
                for step in ready {
                    match self.turn(step, walk, &world) {
                        Turn::Settled(outcomes) => self.finish(walk, step, outcomes, 0),
                        // It is looked at anew once a thread is free.
                        Turn::Act(work, _) if running >= threads && !self.is_light(&work) => {
                            walk.wait(step);
                        }
                        Turn::Act(work, settled) => {
                            if let Err(message) = self.arm(walk, &work) {
                                let outcomes = self.fail_all(&work, settled, &message);
                                self.finish(walk, step, outcomes, 0);
                                continue;
                            }
                            if self.is_light(&work) {
                                self.lay_over(&work, &world)?;
                                wave.add(step, work, settled);
                                continue;
                            }
                            if let Err(message) = self.recorder.begin(work.iter()) {
                                let outcomes = self.fail_all(&work, settled, &message);
                                self.finish(walk, step, outcomes, 0);
                                continue;
                            }
                            self.announce(&work);
                            running += 1;
                            let results = results.clone();
                            scope.spawn(move || {
                                let begun = Instant::now();
                                let (mut outcomes, moved) = self.carry_out(&work);
                                outcomes.extend(settled);
                                let ms = milliseconds(begun);
                                let _ = results.send(Carried { step, outcomes, ms, moved });
                            });
                        }
                    }
                }
                if !wave.is_empty() {
                    self.apply_wave(walk, wave);
                } else if running > 0 && (idle || running >= threads) {
                    let Ok(carried) = finished.recv() else { break };
                    running -= 1;
                    self.planner.host.forget();
                    self.conclude(walk, vec![carried]);
                } else if idle {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Steps all of whose predecessors are done.
    fn take_ready(&self, walk: &mut Walk, first: usize, running: usize) -> Vec<usize> {
        let steps = self.planner.steps;
        let (ready, waiting) = std::mem::take(&mut walk.waiting).into_iter().partition(|step| {
            let after = steps.after(*step);
            after.iter().all(|earlier| *earlier < first || walk.done.contains(earlier))
        });
        walk.waiting = waiting;
        let ready: Vec<usize> = ready;
        for step in &ready {
            walk.disturbed[*step] |= steps.after(*step).iter().any(|earlier| {
                walk.disturbed[*earlier]
                    || steps
                        .members(*earlier)
                        .iter()
                        .any(|index| walk.ended[*index as usize].is_some_and(|ended| ended.changed))
            });
        }
        // Files that one command checks as a whole go in together.
        let together = |step: &usize| {
            self.group_check(*step).is_some_and(|check| {
                walk.waiting.iter().any(|other| self.group_check(*other) == Some(check))
            })
        };
        let (held, go): (Vec<usize>, Vec<usize>) = ready.into_iter().partition(together);
        if go.is_empty() && running == 0 {
            return held; // nothing else can bring the others
        }
        held.into_iter().for_each(|step| walk.wait(step));
        go
    }

    /// The command that checks a step's files together with all others of that command.
    fn group_check(&self, step: usize) -> Option<(&str, Option<&str>)> {
        let [index] = self.planner.steps.members(step) else { return None };
        let node = self.node(*index);
        let Work::Resource(declared) = &node.work else { return None };
        let pending = self.plan[*index as usize].as_ref().is_some_and(NodePlan::pending);
        let check = declared.kind().validate().filter(|check| pending && !check.contains("%s"))?;
        Some((check, node.become_user.as_deref()))
    }

    pub(super) fn node(&self, index: NodeIndex) -> &Node {
        &self.planner.graph.nodes[index as usize]
    }

    fn turn(&self, step: usize, walk: &Walk, world: &World<'_>) -> Turn {
        let mut settled = Vec::new();
        let mut open = Vec::new();
        for index in self.planner.steps.members(step) {
            match self.gate(*index, walk, walk.disturbed[step]) {
                Some(outcome) => settled.push((*index, outcome)),
                None => open.push(*index),
            }
        }
        if open.is_empty() {
            return Turn::Settled(settled);
        }
        let work = self.plan_again(&open, walk, world);
        let mut act = Vec::new();
        let mut nothing = true;
        for (index, planned) in open.iter().zip(work) {
            match planned {
                Ok(changes) => {
                    nothing &= changes.is_empty();
                    act.push((*index, changes));
                }
                Err(outcome) => settled.push((*index, outcome)),
            }
        }
        // A step is settled as a whole: what failed to be planned fails all of it.
        if settled.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed { .. })) {
            for (index, _) in act {
                let because = String::from("another part of its transaction failed");
                settled.push((index, Outcome::Skipped { because }));
            }
            return Turn::Settled(settled);
        }
        if nothing {
            for (index, _) in act {
                let plan = self.plan[index as usize].as_ref();
                let because = match plan {
                    Some(plan) if !plan.pending() => plan.because.clone(),
                    _ => String::from("it is as declared by now"),
                };
                settled.push((index, Outcome::Met { because }));
            }
            return Turn::Settled(settled);
        }
        Turn::Act(act, settled)
    }

    /// What is decided before the kind looks again.
    fn gate(&self, index: NodeIndex, walk: &Walk, disturbed: bool) -> Option<Outcome> {
        let node = self.node(index);
        let plan = self.plan[index as usize].as_ref()?;
        let skipped = |because: &str| Some(Outcome::Skipped { because: because.to_owned() });
        if let Work::Skipped(reason) = &node.work {
            return skipped(reason);
        }
        if let Work::Unknown(reason) = &node.work {
            return Some(Outcome::Failed { message: reason.clone(), ignored: false });
        }
        if let Work::Restore(Restore { only_shown: true, .. }) = &node.work {
            return match plan.verdict {
                Verdict::Skipped => skipped(&plan.because),
                _ => Some(Outcome::Met { because: String::new() }),
            };
        }
        if self.stop.load(Ordering::Relaxed) {
            return skipped(STOPPED);
        }
        if walk.over.is_some() {
            return skipped("no fresh login worked");
        }
        let ended = |index: &NodeIndex| walk.ended[*index as usize].unwrap_or_default();
        if let Some(failed) = node.require.iter().find(|index| ended(index).blocked) {
            return skipped(&format!("{} failed", self.node(*failed).id));
        }
        match &node.onfail {
            Some(watched) if !watched.iter().any(|index| ended(index).failed) => {
                return Some(Outcome::Met { because: String::from("nothing failed") });
            }
            None if walk.failed => return skipped("an earlier step failed"),
            _ => {}
        }
        if let Some(watched) = &node.onchanges
            && !watched.iter().any(|index| ended(index).changed)
            && !self.planner.owed.contains_key(&node.id)
        {
            let because = String::from("nothing changed that it waits for");
            return Some(Outcome::Met { because });
        }
        if plan.ignored && !disturbed {
            let message = self.planner.mask.hide(&plan.because).into_owned();
            return Some(Outcome::Failed { message, ignored: true });
        }
        if plan.verdict == Verdict::Ok
            && !disturbed
            && plan.changes.is_empty()
            && node.onfail.is_none()
        {
            let because = self.planner.mask.hide(&plan.because).into_owned();
            return Some(Outcome::Met { because });
        }
        if node.unless.is_empty() && node.onlyif.is_empty() {
            return None;
        }
        match self.planner.guards(node, &World::observed(self.planner.host)) {
            Ok(None) => None,
            Ok(Some(because)) => Some(Outcome::Met { because }),
            Err(error) => Some(self.failed(node, explain(&error))),
        }
    }

    /// Plans nodes once more at their turn, on the host as it is; what comes out has to be what
    /// was planned, or within what was announced.
    fn plan_again(
        &self,
        open: &[NodeIndex],
        walk: &Walk,
        world: &World<'_>,
    ) -> Vec<Result<Vec<Change>, Outcome>> {
        let planned = match open {
            [index] if matches!(self.node(*index).work, Work::Reaction { .. }) => {
                vec![self.reaction(*index, walk, world)]
            }
            _ => self
                .planner
                .plan_nodes(open, world, self.plan)
                .into_iter()
                .map(|result| result.map(|planned| planned.changes))
                .collect(),
        };
        open.iter()
            .zip(planned)
            .map(|(index, result)| {
                let node = self.node(*index);
                let changes = result.map_err(|error| self.failed(node, explain(&error)))?;
                match self.planner.contradiction(self.plan, *index, &changes) {
                    None => Ok(changes),
                    Some(message) => Err(self.failed(node, message)),
                }
            })
            .collect()
    }

    /// What a service still owes, from what really changed.
    fn reaction(
        &self,
        index: NodeIndex,
        walk: &Walk,
        world: &World<'_>,
    ) -> Result<Vec<Change>, crate::kind::PlanError> {
        let node = self.node(index);
        let Work::Reaction { service, declared, reload, restart } = &node.work else {
            return Ok(Vec::new());
        };
        let changed = |nodes: &[NodeIndex]| {
            let ended = nodes.iter().filter_map(|index| walk.ended[*index as usize]);
            match ended.filter(|ended| ended.changed).map(|ended| ended.at).max() {
                Some(at) => Changed::Finished(at),
                None => Changed::No,
            }
        };
        let watched = Watched {
            reload: changed(reload),
            restart: changed(restart),
            unit_file: changed(&self.planner.unit_files_of(*service)),
            // Whether it started after what it watches, the times tell.
            late: true,
            owed: self.planner.owed_reaction(&node.id),
        };
        let Declared::Service(declared) = declared else { return Ok(Vec::new()) };
        let mut planning = self.planner.planning(node, world);
        let due = plan_reaction(declared, &mut planning, watched)?;
        Ok(due.map(|due| vec![due.change()]).unwrap_or_default())
    }

    pub(super) fn failed(&self, node: &Node, message: String) -> Outcome {
        let message = self.planner.mask.hide(&message).into_owned();
        // What is taken back does not know any more what of it is secret.
        let nodes = &self.planner.graph.nodes;
        let hides = nodes.iter().any(|node| node.sensitive == Some(true))
            && nodes.iter().any(|node| matches!(node.work, Work::Restore(_)));
        let message = match message.split_once('\n') {
            Some((first, _)) if hides => format!("{first} (its output is hidden)"),
            _ => message,
        };
        Outcome::Failed { message, ignored: node.ignore_errors }
    }

    /// Whether a step only puts contents in place, so that it can join a wave.
    fn is_light(&self, work: &[(NodeIndex, Vec<Change>)]) -> bool {
        work.iter().all(|(index, changes)| {
            let node = self.node(*index);
            node.retry.is_none()
                && changes.iter().all(|change| {
                    matches!(change, Change::Content { .. } | Change::Metadata { .. })
                })
        })
    }

    fn lay_over(
        &self,
        work: &[(NodeIndex, Vec<Change>)],
        world: &World<'_>,
    ) -> std::io::Result<()> {
        for (index, changes) in work {
            for change in changes {
                crate::change::lay_over(change, &self.node(*index).id, world)
                    .map_err(|error| std::io::Error::other(error.to_string()))?;
            }
        }
        Ok(())
    }

    fn announce(&self, work: &[(NodeIndex, Vec<Change>)]) {
        for (index, _) in work {
            self.tell(&FromAgent::Started(*index));
        }
    }

    /// Tells the controller; where it is gone, what is in hand is finished and nothing more begun.
    pub(super) fn tell(&self, message: &FromAgent) {
        if self.output.send(message).is_err() {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn fail_all(
        &self,
        work: &StepWork,
        settled: Vec<(NodeIndex, Outcome)>,
        message: &str,
    ) -> Vec<(NodeIndex, Outcome)> {
        let failed = |index: NodeIndex| self.failed(self.node(index), message.to_owned());
        work.iter().map(|(index, _)| (*index, failed(*index))).chain(settled).collect()
    }

    pub(super) fn made(&self, index: NodeIndex, changes: &[Change]) -> Outcome {
        if !changes.iter().any(is_change) {
            return Outcome::Met { because: String::new() };
        }
        let same = self.plan[index as usize].as_ref().is_some_and(|plan| plan.changes == changes);
        // The controller has the views of what was planned.
        let views: Vec<ChangeView> = if same {
            Vec::new()
        } else {
            self.planner.views(index, changes, None).into_iter().map(|shown| shown.view).collect()
        };
        Outcome::Changed(views)
    }

    fn apply_wave(&self, walk: &mut Walk, wave: Wave) {
        let begun = Instant::now();
        let results = match self.make_wave(&wave) {
            Ok(results) => results,
            Err(message) => wave.work().map(|(index, _)| (*index, message.clone())).collect(),
        };
        self.planner.host.forget();
        let ms = milliseconds(begun);
        let mut carried = Vec::new();
        for (step, nodes, settled) in wave.into_steps() {
            let outcomes = nodes
                .into_iter()
                .map(|(index, changes)| {
                    let outcome = match results.get(&index) {
                        Some(message) => self.failed(self.node(index), message.clone()),
                        None => self.made(index, &changes),
                    };
                    (index, outcome)
                })
                .chain(settled)
                .collect();
            carried.push(Carried { step, outcomes, ms, moved: Vec::new() });
        }
        self.conclude(walk, carried);
    }

    /// Puts the contents of a wave in place; says what failed, by node.
    fn make_wave(&self, wave: &Wave) -> Result<HashMap<NodeIndex, String>, String> {
        let wanted =
            wave.work().flat_map(|(_, changes)| changes).filter_map(|change| match change {
                Change::Content { after: Content::File(id), .. } => Some(*id),
                _ => None,
            });
        let store = self.planner.store;
        store.prefetch(wanted.collect::<Vec<_>>()).map_err(|error| error.to_string())?;
        // What was asked for is taken in, whatever comes of it: orders stand behind it.
        let results = self
            .recorder
            .begin(wave.work())
            .map(|()| self.actuator.make_wave(wave, &|index| self.node(index)));
        store.settle().map_err(|error| error.to_string())?;
        results
    }

    fn finish(&self, walk: &mut Walk, step: usize, outcomes: Vec<(NodeIndex, Outcome)>, ms: u64) {
        self.conclude(walk, vec![Carried { step, outcomes, ms, moved: Vec::new() }]);
    }

    /// Steps are done: first the journal says so, then the controller is told.
    fn conclude(&self, walk: &mut Walk, steps: Vec<Carried>) {
        let at = monotonic_microseconds();
        let outcomes = steps
            .iter()
            .flat_map(|carried| &carried.outcomes)
            .map(|(index, outcome)| (*index, outcome));
        let moved = steps.iter().flat_map(|carried| &carried.moved).cloned().collect();
        let lost = self.recorder.end(outcomes, at, moved).err().map(|error| {
            // What was done is done; without a journal nothing more may begin.
            self.stop.store(true, Ordering::Relaxed);
            format!("it was done, but the run's journal cannot be written: {error}")
        });
        for Carried { step, outcomes, ms, .. } in steps {
            walk.done.insert(step);
            for (node, outcome) in outcomes {
                let outcome = match (&lost, outcome) {
                    (Some(message), Outcome::Changed(_)) => {
                        Outcome::Failed { message: message.clone(), ignored: false }
                    }
                    (_, outcome) => outcome,
                };
                let failed = matches!(outcome, Outcome::Failed { .. });
                let counts = matches!(outcome, Outcome::Failed { ignored: false, .. });
                let changed = matches!(outcome, Outcome::Changed(_));
                let shown = matches!(self.node(node).work, Work::Skipped(_))
                    || matches!(
                        self.node(node).work,
                        Work::Restore(Restore { only_shown: true, .. })
                    );
                let left_out = matches!(outcome, Outcome::Skipped { .. }) && !shown;
                let blocked = failed || left_out;
                walk.ended[node as usize] = Some(Ended { changed, failed, blocked, at });
                walk.failed |= counts;
                self.tell(&FromAgent::Done { node, outcome, ms });
            }
        }
    }
}

fn milliseconds(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The clock that systemd tells process starts in.
fn monotonic_microseconds() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}
