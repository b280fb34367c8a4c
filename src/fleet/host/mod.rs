mod applying;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::fleet::link::{Link, LinkError};
use crate::fleet::run::{HostRun, Reach, Reachable};
use crate::fleet::saved::HostPlan;
use crate::graph::{Graph, NodeIndex};
use crate::report::{
    ChangeView, Event, HostStatus, PastRun, Phase, Resource, RunInfo, Status, Summary, Verdict,
};
use crate::ssh::{self, bootstrap};
use crate::wire::{
    self, AddedNode, Answer, Bound, Differing, FromAgent, Notes, PlanOptions, PlannedNode,
    Question, STOPPED, ToAgent,
};

/// Most bytes of facts that are believed.
const FACTS_LIMIT: usize = 4 << 20;

type Events = mpsc::UnboundedSender<Event>;

/// Why a host takes no further part.
#[derive(Debug)]
pub(super) struct HostError {
    pub(super) status: Status,
    pub(super) message: String,
    pub(super) summary: Summary,
}

impl HostError {
    fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), summary: Summary::default() }
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(Status::Failed, message)
    }

    pub(super) fn stopped() -> Self {
        Self::new(Status::Skipped, "the run was stopped")
    }

    fn from_ssh(error: &ssh::Error) -> Self {
        let mut message = error.to_string();
        if let Some(hint) = error.hint() {
            message.push_str("\n  help: ");
            message.push_str(&hint);
        }
        Self::new(Status::Unreachable, message)
    }
}

async fn over_ssh(
    reachable: &Reachable,
    host: &HostRun,
    destination: &ssh::Destination,
) -> Result<ssh::AgentStream, ssh::Error> {
    let session = reachable.client.connect(destination).await?;
    bootstrap::over_ssh(&session, &host.name, &reachable.program, &host.privilege).await
}

/// A host with a running agent.
pub(super) struct Host {
    name: String,
    /// How it is reached, for a login anew.
    reached: (Reachable, HostRun),
    link: Link,
    facts: String,
    graph: Arc<Graph>,
    /// Nodes that the host's records have brought, behind those of the graph.
    added: Vec<AddedNode>,
    /// What is known of each node: its plan, then what was done.
    resources: Vec<Option<Resource>>,
    /// Which of them the agent has reported as begun, and as done.
    begun: Vec<bool>,
    done: Vec<bool>,
    /// Whether the plan left anything to do in a play.
    busy: Vec<bool>,
    applied: bool,
    verified: bool,
    /// What an earlier plan allows, where nothing else may be done.
    bound: Option<Arc<HostPlan>>,
    /// What the agent has planned, where that is to be saved.
    kept: Option<Vec<PlannedNode>>,
}

/// What a host was asked to compare itself with.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// With what is declared for it.
    Plan,
    /// With what was before a run.
    Undo {
        /// The run.
        run: String,
        /// Whether what was changed since is overwritten.
        force: bool,
        /// Only what that play has changed, and no packages and accounts.
        rollback: Option<String>,
    },
    /// The same as before, with its lock tried once more.
    Again,
}

/// How planning went.
pub(super) enum PlanEnd {
    Planned,
    /// Another run has the lock.
    Held {
        /// Who, in a sentence.
        message: String,
        /// The run's name, if that is known.
        by: Option<String>,
    },
    /// The host is not as it was when the plan was made that it is bound to; where, line by line.
    Stale(String),
}

/// Most past runs that a host may tell of: more than it keeps.
const PAST_LIMIT: usize = 64;
/// Most nodes that a host's records may bring.
const ADDED_LIMIT: usize = 1 << 20;

impl Host {
    pub(super) async fn connect(
        reachable: &Reachable,
        host: HostRun,
        events: &Events,
    ) -> Result<Self, HostError> {
        let limits = reachable.limits;
        let greeting = tokio::time::timeout(limits.greeting, async {
            Self::start(reachable, &host, events).await
        });
        let stream = greeting.await.unwrap_or_else(|_| {
            let message = "the agent does not start";
            Err(HostError::new(Status::Unreachable, message))
        })?;
        let (link, hello) = Link::greet(stream, reachable.contents.clone(), limits)
            .await
            .map_err(|error| HostError::new(Status::Unreachable, error.to_string()))?;
        if hello.program != reachable.program.digest() {
            let message = "the host runs another agent than the one that was sent there";
            return Err(HostError::new(Status::Unreachable, message));
        }
        if hello.build != wire::BUILD {
            let message = "converge and converge-agent are not of the same build; build both anew \
                           with `cargo build`";
            return Err(HostError::new(Status::Unreachable, message));
        }
        let readable = hello.facts.json.len() <= FACTS_LIMIT
            && serde_json::from_str::<serde_json::Value>(&hello.facts.json)
                .is_ok_and(|facts| facts.is_object());
        if !readable {
            let message = "the host's facts cannot be read";
            return Err(HostError::new(Status::Unreachable, message));
        }
        Ok(Self {
            name: host.name.clone(),
            reached: (reachable.clone(), host),
            link,
            facts: hello.facts.json,
            graph: Arc::default(),
            added: Vec::new(),
            resources: Vec::new(),
            begun: Vec::new(),
            done: Vec::new(),
            busy: Vec::new(),
            applied: false,
            verified: false,
            bound: None,
            kept: None,
        })
    }

    /// Connects, and starts the agent.
    async fn start(
        reachable: &Reachable,
        host: &HostRun,
        events: &Events,
    ) -> Result<ssh::AgentStream, HostError> {
        let stream = match &host.reach {
            Reach::Ssh(request) => {
                let resolved = reachable
                    .client
                    .resolve(request)
                    .await
                    .map_err(|error| HostError::from_ssh(&error))?;
                for message in resolved.warnings {
                    let _ = events.send(Event::Warning { host: Some(host.name.clone()), message });
                }
                over_ssh(reachable, host, &resolved.destination).await
            }
            Reach::Resolved(destination) => over_ssh(reachable, host, destination).await,
            Reach::Local => bootstrap::local(&host.name, &reachable.program, &host.privilege).await,
        };
        stream.map_err(|error| HostError::from_ssh(&error))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The host's facts as JSON text.
    pub(super) fn facts(&self) -> &str {
        &self.facts
    }

    /// Has commands run that only read, and gives what each wrote.
    pub(super) async fn ask(&mut self, questions: Vec<Question>) -> Result<Vec<Answer>, HostError> {
        let count = questions.len();
        self.link.say(&ToAgent::Ask(questions)).map_err(|error| self.lost(&error))?;
        let mut answers = Vec::with_capacity(count);
        while answers.len() < count {
            match self.link.next().await.map_err(|error| self.lost(&error))? {
                FromAgent::Answer(answer) => {
                    let size = answer.as_ref().map_or_else(String::len, String::len);
                    if size > FACTS_LIMIT {
                        return Err(self.failed(String::from("an answer is too long to be read")));
                    }
                    answers.push(answer);
                }
                FromAgent::Fatal(message) => return Err(self.failed(message)),
                _ => return Err(self.failed(String::from("the agent answers out of turn"))),
            }
        }
        Ok(answers)
    }

    /// Takes what is declared.
    pub(super) fn declare(&mut self, graph: Arc<Graph>) {
        self.link.allow(Arc::clone(&graph));
        self.graph = graph;
        self.clear();
    }

    /// Takes what was planned before: nothing else is done.
    pub(super) fn bind(&mut self, plan: Arc<HostPlan>) {
        self.declare(Arc::clone(&plan.graph));
        self.bound = Some(plan);
    }

    /// Keeps what is going to be planned.
    pub(super) fn keep_plan(&mut self) {
        self.kept = Some(Vec::new());
    }

    /// What was planned, if it was kept.
    pub(super) fn kept_plan(&mut self) -> Option<HostPlan> {
        let planned = self.kept.take()?;
        Some(HostPlan { graph: Arc::clone(&self.graph), added: self.added.clone(), planned })
    }

    /// Forgets what was planned.
    fn clear(&mut self) {
        self.added.clear();
        self.resources = vec![None; self.graph.nodes.len()];
        self.begun = vec![false; self.graph.nodes.len()];
        self.done = vec![false; self.graph.nodes.len()];
        self.busy = vec![false; self.graph.plays.len().max(1)];
    }

    /// What is known of a node by its number.
    fn named(&self, node: NodeIndex) -> Option<Named<'_>> {
        let index = node as usize;
        if let Some(node) = self.graph.nodes.get(index) {
            let label = node.label.as_deref();
            return Some(Named { id: node.id.as_str(), label, at: &node.at, play: node.play });
        }
        let added = self.added.get(index.checked_sub(self.graph.nodes.len())?)?;
        Some(Named { id: &added.id, label: None, at: &added.at, play: added.play })
    }

    /// Takes in what the host's records bring.
    fn add(&mut self, nodes: Vec<AddedNode>) -> Result<(), HostError> {
        if self.added.len() + nodes.len() > ADDED_LIMIT {
            return Err(self.failed(String::from("the host's records name too many things")));
        }
        self.added.extend(nodes);
        let all = self.graph.nodes.len() + self.added.len();
        self.resources.resize_with(all, || None);
        self.begun.resize(all, false);
        self.done.resize(all, false);
        Ok(())
    }

    /// Where a host asks for something else than the plan allows that it is bound to.
    fn outside(&self, notes: &Notes) -> Vec<String> {
        let ids = |nodes: &[AddedNode]| -> Vec<String> {
            nodes.iter().map(|node| node.id.clone()).collect()
        };
        let planned = self.bound.as_ref().map(|plan| ids(&plan.added)).unwrap_or_default();
        if planned != ids(&self.added) {
            return vec![String::from("the host's records are not as they were when it was made")];
        }
        notes.outside.clone()
    }

    fn tell_notes(&self, notes: Notes, dry_run: bool, events: &Events) {
        let warn = |message: String| {
            let _ = events.send(Event::Warning { host: Some(self.name.clone()), message });
        };
        for cut_off in notes.cut_off {
            let who = describe_run(&cut_off.run);
            let hand = match cut_off.in_hand.len() {
                0 => String::from("between two changes"),
                1..=3 => format!("while it changed {}", cut_off.in_hand.join(", ")),
                many => format!("while it changed {} and {} more", cut_off.in_hand[0], many - 1),
            };
            let now = if dry_run { "the next run finishes it" } else { "this run finishes it" };
            warn(format!("{who} was cut off here {hand}; {now}"));
        }
        if let Some(reason) = notes.unreadable {
            warn(format!("records of earlier runs cannot be read, so nothing is pruned: {reason}"));
        }
        if notes.nothing_adopted {
            warn(String::from("there are no records of the state file that --adopt names"));
        }
        for what in notes.cannot {
            warn(what);
        }
        if let Some(run) = notes.running {
            warn(format!("{} is changing this host meanwhile", describe_run(&run)));
        }
    }

    /// Lets the agent plan.
    pub(super) async fn plan(
        &mut self,
        order: &Order,
        options: &PlanOptions,
        events: &Events,
    ) -> Result<PlanEnd, HostError> {
        let host = self.name.clone();
        let _ = events.send(Event::HostPhase { host, phase: Phase::Planning });
        self.clear();
        let login = !matches!(self.reached.1.reach, Reach::Local);
        let options = PlanOptions { login, ..options.clone() };
        let order = match order {
            Order::Plan => {
                let bound = self.bound.as_ref().map(|plan| {
                    Arc::new(Bound { planned: plan.planned.iter().map(without_views).collect() })
                });
                let graph = Arc::clone(&self.graph);
                ToAgent::Plan { graph, options: options.clone(), bound }
            }
            Order::Undo { run, force, rollback } => ToAgent::Undo {
                run: run.clone(),
                force: *force,
                rollback: rollback.clone(),
                options: options.clone(),
            },
            Order::Again => ToAgent::Again,
        };
        self.link.say(&order).map_err(|error| self.lost(&error))?;
        loop {
            match self.link.next().await.map_err(|error| self.lost(&error))? {
                FromAgent::Held { holder, account } => {
                    let by = holder.as_ref().map(|run| run.id.clone());
                    let who = holder.map_or_else(
                        || String::from("a run that does not say who it is"),
                        |run| describe_run(&run),
                    );
                    let what = account.map_or_else(
                        || String::from("this host"),
                        |account| format!("what belongs to {account} here"),
                    );
                    let mut message = String::new();
                    crate::change::sanitize(&format!("{who} is changing {what}"), &mut message);
                    return Ok(PlanEnd::Held { message, by });
                }
                FromAgent::Added(nodes) if !nodes.is_empty() => self.add(nodes)?,
                FromAgent::PlanDone(notes) if self.bound.is_some() => {
                    let outside = self.outside(&notes);
                    if !outside.is_empty() {
                        let message = format!("the plan is stale: {}", outside.join("\n"));
                        return Ok(PlanEnd::Stale(message));
                    }
                    self.tell_notes(notes, !options.lock, events);
                    break;
                }
                FromAgent::Planned(nodes) if !nodes.is_empty() => {
                    for node in nodes {
                        self.planned(node)?;
                    }
                }
                FromAgent::PlanDone(notes) => {
                    self.tell_notes(notes, !options.lock, events);
                    break;
                }
                FromAgent::Fatal(message) => return Err(self.failed(message)),
                _ => return Err(self.failed(String::from("the agent answers out of turn"))),
            }
        }
        let summary = self.summary();
        if summary.failed > 0 {
            return Err(
                self.failed(format!("{} of its resources cannot be planned", summary.failed))
            );
        }
        Ok(PlanEnd::Planned)
    }

    /// Lets go of the host's lock, and forgets the plan.
    pub(super) fn release(&mut self) {
        // A broken connection shows when the next answer is awaited.
        let _ = self.link.say(&ToAgent::Release);
    }

    /// Has the agent look whether all is as declared by now, and ends the run there.
    pub(super) async fn finish(
        &mut self,
        complete: bool,
        events: &Events,
    ) -> Result<(), HostError> {
        if !self.applied {
            return Ok(());
        }
        self.link.say(&ToAgent::Finish { complete }).map_err(|error| self.lost(&error))?;
        let differs = match self.link.next().await.map_err(|error| self.lost(&error))? {
            FromAgent::Finished { differs } => differs,
            FromAgent::Fatal(message) => return Err(self.failed(message)),
            _ => return Err(self.failed(String::from("the agent answers out of turn"))),
        };
        self.verified = complete && differs.is_empty();
        let mut names = Vec::new();
        for Differing { node, changes } in differs {
            let Some(Some(resource)) = self.resources.get_mut(node as usize) else { continue };
            resource.verdict = Verdict::Failed;
            resource.because = String::from(
                "it does not converge: after it was made as declared, it differs again",
            );
            resource.changes = changes;
            names.push(resource.id.clone());
            let _ =
                events.send(Event::Done { host: self.name.clone(), resource: resource.clone() });
        }
        if names.is_empty() {
            return Ok(());
        }
        Err(self.failed(format!("does not converge: {}", names.join(", "))))
    }

    /// What the host is like beside what runs have left there.
    pub(super) async fn standing(&mut self, run: RunInfo) -> Result<HostStatus, HostError> {
        self.link.say(&ToAgent::Status { run }).map_err(|error| self.lost(&error))?;
        match self.link.next().await.map_err(|error| self.lost(&error))? {
            FromAgent::Status(status) => Ok(status),
            FromAgent::Fatal(message) => Err(self.failed(message)),
            _ => Err(self.failed(String::from("the agent answers out of turn"))),
        }
    }

    /// The runs that were on the host, oldest first, and what is wrong with records that cannot be
    /// read.
    pub(super) async fn past(
        &mut self,
        run: Option<String>,
    ) -> Result<(Vec<PastRun>, Vec<String>), HostError> {
        self.link.say(&ToAgent::Past { run }).map_err(|error| self.lost(&error))?;
        let mut past = Vec::new();
        loop {
            match self.link.next().await.map_err(|error| self.lost(&error))? {
                FromAgent::Past(runs) if !runs.is_empty() && past.len() < PAST_LIMIT => {
                    past.extend(runs);
                }
                FromAgent::PastDone { unreadable } => return Ok((past, unreadable)),
                FromAgent::Fatal(message) => return Err(self.failed(message)),
                _ => return Err(self.failed(String::from("the agent answers out of turn"))),
            }
        }
    }

    /// Says what is planned of each resource.
    pub(super) fn tell_resources(&self, events: &Events) {
        for resource in self.resources.iter().flatten() {
            let (host, resource) = (self.name.clone(), resource.clone());
            let _ = events.send(Event::Planned { host, resource });
        }
    }

    /// Says that all of it is planned.
    pub(super) fn tell_planned(&self, events: &Events) {
        let (host, summary) = (self.name.clone(), self.summary());
        let _ = events.send(Event::HostPlanned { host, summary });
    }

    fn planned(&mut self, node: PlannedNode) -> Result<(), HostError> {
        if let Some(kept) = &mut self.kept {
            kept.push(node.clone());
        }
        let Some(named) = self.named(node.node) else {
            return Err(self.undeclared());
        };
        if self.resources.get(node.node as usize).is_some_and(Option::is_some) {
            return Err(self.failed(String::from("the agent plans a resource twice")));
        }
        let names = |indexes: &[NodeIndex]| -> Vec<String> {
            indexes
                .iter()
                .filter_map(|index| self.named(*index))
                .map(|named| named.id.to_owned())
                .collect()
        };
        let acts = matches!(node.verdict, Verdict::Change | Verdict::Depends)
            || (node.verdict == Verdict::Ok && !node.changes.is_empty());
        let (play, name) = (named.play as usize, self.graph.plays.get(named.play as usize));
        let resource = Resource {
            id: named.id.to_owned(),
            label: named.label.map(str::to_owned),
            play: name.map_or_else(|| String::from("undo"), |play| play.name.clone()),
            verdict: node.verdict,
            because: node.because,
            depends_on: names(&node.depends_on),
            assuming: names(&node.assuming),
            owed: node.owed,
            changes: node.changes.into_iter().map(|shown| shown.view).collect(),
            at: named.at.to_owned(),
            ms: node.ms,
        };
        if acts && let Some(busy) = self.busy.get_mut(play) {
            *busy = true;
        }
        self.resources[node.node as usize] = Some(resource);
        Ok(())
    }

    fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for resource in self.resources.iter().flatten() {
            summary.count(resource.verdict);
        }
        summary
    }

    /// Whether anything was changed, or would be.
    pub(super) fn changed(&self) -> bool {
        let summary = self.summary();
        summary.change > 0 || (!self.applied && summary.depends > 0)
    }

    /// How the host ended, if it did not fail.
    pub(super) fn status(&self, dry_run: bool) -> (Status, Summary) {
        let summary = self.summary();
        let changed = summary.change > 0 || (dry_run && summary.depends > 0);
        (if changed { Status::Changed } else { Status::Ok }, summary)
    }

    /// Where a stopped run ended on this host, if it left something out.
    pub(super) fn stopped_at(&self) -> Option<String> {
        let left: Vec<&str> = self
            .resources
            .iter()
            .flatten()
            .filter(|resource| resource.because == STOPPED)
            .map(|resource| resource.id.as_str())
            .collect();
        let first = left.first()?;
        Some(format!("stopped before {first}; {} resources were left as they are", left.len()))
    }

    /// Says of all that was planned and not reported as done that it was left out, and why.
    pub(super) fn leave_rest(&mut self, because: &str, events: &Events) -> Summary {
        for (resource, done) in self.resources.iter_mut().zip(&self.done) {
            let Some(resource) = resource.as_mut().filter(|_| !done) else { continue };
            if !matches!(resource.verdict, Verdict::Change | Verdict::Depends) {
                continue;
            }
            resource.verdict = Verdict::Skipped;
            because.clone_into(&mut resource.because);
            resource.changes.clear();
            resource.depends_on.clear();
            resource.assuming.clear();
            let _ =
                events.send(Event::Done { host: self.name.clone(), resource: resource.clone() });
        }
        self.summary()
    }

    /// Whether the host was planned again after the run, and nothing differed.
    pub(super) fn verified(&self) -> bool {
        self.verified
    }

    fn failed(&self, message: String) -> HostError {
        HostError { status: Status::Failed, message, summary: self.summary() }
    }

    fn undeclared(&self) -> HostError {
        self.failed(String::from("the agent names a resource that was not declared"))
    }

    fn lost(&self, error: &LinkError) -> HostError {
        let mut message = error.to_string();
        if let LinkError::Silent(_) | LinkError::Standstill(_) = error {
            message.push_str(&self.at());
        }
        let words = self.link.last_words();
        if !words.trim().is_empty() {
            message.push_str(": ");
            message.push_str(words.trim());
        }
        self.failed(message)
    }

    /// What the agent has last said that it is at.
    fn at(&self) -> String {
        let in_hand = (0..).zip(self.begun.iter().zip(&self.done));
        let in_hand: Vec<&str> = in_hand
            .filter(|(_, (begun, done))| **begun && !**done)
            .filter_map(|(node, _)| self.named(node))
            .map(|named| named.id)
            .collect();
        match in_hand.as_slice() {
            [] if self.applied => String::new(),
            [] => {
                let planned = self.resources.iter().flatten().count();
                format!("; it has planned {planned} of {} resources", self.resources.len())
            }
            [first] => format!("; it is at {first}"),
            [first, others @ ..] => format!("; it is at {first} and {} more", others.len()),
        }
    }

    pub(super) async fn close(self) {
        self.link.close().await;
    }
}

/// A plan as the agent needs it: how it is shown is not its business.
fn without_views(planned: &PlannedNode) -> PlannedNode {
    let mut planned = planned.clone();
    for shown in &mut planned.changes {
        shown.view = ChangeView::default();
    }
    planned
}

/// A node's name and place.
struct Named<'a> {
    id: &'a str,
    label: Option<&'a str>,
    at: &'a str,
    play: u32,
}

/// A run in a few words: what, who, since when.
fn describe_run(run: &RunInfo) -> String {
    let since = i64::try_from(run.begun)
        .ok()
        .and_then(|begun| jiff::Timestamp::from_millisecond(begun).ok())
        .map_or_else(String::new, |begun| format!(", since {}", begun.strftime("%F %T UTC")));
    let (id, who, file, inventory) = (&run.id, &run.who, &run.state_file, &run.inventory);
    let mut text = String::new();
    let words = format!("run {id} ({file} for {inventory}, by {who}{since})");
    crate::change::sanitize(&words, &mut text);
    text
}
