use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::link::Link;
use super::run::{HostRun, Reach, Run};
use crate::graph::{Graph, NodeIndex};
use crate::report::{ChangeView, Event, IGNORED, Phase, Resource, Status, Summary, Verdict};
use crate::ssh::{self, bootstrap};
use crate::wire::{
    self, FromAgent, Outcome, PlanOptions, PlannedNode, STOPPED, ToAgent, WireError,
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
    run: &Run,
    host: &HostRun,
    destination: &ssh::Destination,
) -> Result<ssh::AgentStream, ssh::Error> {
    let session = run.client.connect(destination).await?;
    bootstrap::over_ssh(&session, &host.name, &run.program, &host.privilege).await
}

/// A host with a running agent.
pub(super) struct Host {
    name: String,
    link: Link,
    facts: String,
    graph: Arc<Graph>,
    /// What is known of each node: its plan, then what was done.
    resources: Vec<Option<Resource>>,
    /// Which of them the agent has reported as done.
    done: Vec<bool>,
    /// Whether the plan left anything to do in a play.
    busy: Vec<bool>,
    applied: bool,
}

impl Host {
    pub(super) async fn connect(
        run: &Run,
        host: HostRun,
        events: &Events,
    ) -> Result<Self, HostError> {
        let stream = match &host.reach {
            Reach::Ssh(request) => {
                let resolved = run
                    .client
                    .resolve(request)
                    .await
                    .map_err(|error| HostError::from_ssh(&error))?;
                for message in resolved.warnings {
                    let _ = events.send(Event::Warning { host: Some(host.name.clone()), message });
                }
                over_ssh(run, &host, &resolved.destination).await
            }
            Reach::Resolved(destination) => over_ssh(run, &host, destination).await,
            Reach::Local => bootstrap::local(&host.name, &run.program, &host.privilege).await,
        };
        let stream = stream.map_err(|error| HostError::from_ssh(&error))?;
        let (link, hello) = Link::greet(stream, run.contents.clone())
            .await
            .map_err(|error| HostError::new(Status::Unreachable, error.to_string()))?;
        if hello.program != run.program.digest() {
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
            name: host.name,
            link,
            facts: hello.facts.json,
            graph: Arc::default(),
            resources: Vec::new(),
            done: Vec::new(),
            busy: Vec::new(),
            applied: false,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The host's facts as JSON text.
    pub(super) fn facts(&self) -> &str {
        &self.facts
    }

    /// Takes what is declared.
    pub(super) fn declare(&mut self, graph: Arc<Graph>) {
        self.resources = vec![None; graph.nodes.len()];
        self.done = vec![false; graph.nodes.len()];
        self.busy = vec![false; graph.plays.len()];
        self.graph = graph;
    }

    /// Lets the agent plan.
    pub(super) async fn plan(
        &mut self,
        options: &PlanOptions,
        events: &Events,
    ) -> Result<(), HostError> {
        let host = self.name.clone();
        let _ = events.send(Event::HostPhase { host, phase: Phase::Planning });
        let order = ToAgent::Plan { graph: Arc::clone(&self.graph), options: options.clone() };
        self.link.say(&order).map_err(|error| self.lost(&error))?;
        loop {
            match self.link.next().await.map_err(|error| self.lost(&error))? {
                FromAgent::Planned(nodes) => {
                    for node in nodes {
                        self.planned(node, events)?;
                    }
                }
                FromAgent::PlanDone => break,
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
        Ok(())
    }

    /// Says that all of it is planned.
    pub(super) fn tell_planned(&self, events: &Events) {
        let (host, summary) = (self.name.clone(), self.summary());
        let _ = events.send(Event::HostPlanned { host, summary });
    }

    fn planned(&mut self, node: PlannedNode, events: &Events) -> Result<(), HostError> {
        let Some(declared) = self.graph.nodes.get(node.node as usize) else {
            return Err(
                self.failed(String::from("the agent names a resource that was not declared"))
            );
        };
        if self.resources.get(node.node as usize).is_some_and(Option::is_some) {
            return Err(self.failed(String::from("the agent plans a resource twice")));
        }
        let names = |indexes: &[NodeIndex]| -> Vec<String> {
            indexes
                .iter()
                .filter_map(|index| self.graph.nodes.get(*index as usize))
                .map(|node| node.id.to_string())
                .collect()
        };
        let acts =
            matches!(node.verdict, Verdict::Change | Verdict::Depends) || !node.changes.is_empty();
        if acts && let Some(busy) = self.busy.get_mut(declared.play as usize) {
            *busy = true;
        }
        let resource = Resource {
            id: declared.id.to_string(),
            label: declared.label.clone(),
            play: self.graph.plays.get(declared.play as usize).cloned().unwrap_or_default(),
            verdict: node.verdict,
            because: node.because,
            depends_on: names(&node.depends_on),
            assuming: names(&node.assuming),
            owed: false,
            changes: node.changes.into_iter().map(|shown| shown.view).collect(),
            at: declared.at.clone(),
            ms: node.ms,
        };
        let host = self.name.clone();
        let _ = events.send(Event::Planned { host, resource: resource.clone() });
        self.resources[node.node as usize] = Some(resource);
        Ok(())
    }

    /// Lets the agent apply a play; a play with nothing to do costs nothing.
    pub(super) async fn apply(
        &mut self,
        play: u32,
        events: &Events,
        interrupt: watch::Receiver<bool>,
    ) -> Result<(), HostError> {
        let mut result = self.apply_play(play, events, interrupt).await;
        if let Err(error) = &mut result {
            let because = format!("not known to be done: {}", error.message);
            error.summary = self.leave_rest(&because, events);
        }
        result
    }

    async fn apply_play(
        &mut self,
        play: u32,
        events: &Events,
        mut interrupt: watch::Receiver<bool>,
    ) -> Result<(), HostError> {
        let busy = self.busy.get(play as usize).copied().unwrap_or(false);
        // What an earlier play changed may concern what was as declared here.
        let concerned = self.applied && self.graph.nodes.iter().any(|node| node.play == play);
        if !busy && !concerned {
            return Ok(());
        }
        self.applied = true;
        let host = self.name.clone();
        let _ = events.send(Event::HostPhase { host, phase: Phase::Applying });
        self.link.say(&ToAgent::Apply { play }).map_err(|error| self.lost(&error))?;
        let stopper = self.link.stopper();
        let mut stopping = false;
        loop {
            let message = tokio::select! {
                message = self.link.next() => message,
                _ = interrupt.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    stopper.stop();
                    continue;
                }
            };
            match message.map_err(|error| self.lost(&error))? {
                FromAgent::Started(node) => {
                    if let Some(node) = self.graph.nodes.get(node as usize) {
                        let _ = events.send(Event::Started {
                            host: self.name.clone(),
                            id: node.id.to_string(),
                            label: node.label.clone(),
                        });
                    }
                }
                FromAgent::Done { node, outcome, ms } => self.done(node, outcome, ms, events),
                FromAgent::PlayDone { failed: false } => {
                    let host = self.name.clone();
                    let _ = events.send(Event::HostPhase { host, phase: Phase::Waiting });
                    return Ok(());
                }
                FromAgent::PlayDone { failed: true } => {
                    let error = self.resources.iter().flatten().find_map(|resource| {
                        (resource.verdict == Verdict::Failed)
                            .then(|| format!("{}: {}", resource.id, resource.because))
                    });
                    // The agent has reported all of this play.
                    self.leave_rest("an earlier play failed here", events);
                    return Err(self.failed(error.unwrap_or_else(|| String::from("a step failed"))));
                }
                FromAgent::Fatal(message) => return Err(self.failed(message)),
                _ => return Err(self.failed(String::from("the agent answers out of turn"))),
            }
        }
    }

    fn done(&mut self, node: NodeIndex, outcome: Outcome, ms: u64, events: &Events) {
        let Some(Some(resource)) = self.resources.get_mut(node as usize) else { return };
        self.done[node as usize] = true;
        resource.ms = ms;
        let (verdict, because, changes): (_, String, Vec<ChangeView>) = match outcome {
            Outcome::Changed(views) if views.is_empty() => {
                (Verdict::Change, resource.because.clone(), std::mem::take(&mut resource.changes))
            }
            Outcome::Changed(views) => (Verdict::Change, resource.because.clone(), views),
            Outcome::Met { because } => (Verdict::Ok, because, Vec::new()),
            Outcome::Skipped { because } => (Verdict::Skipped, because, Vec::new()),
            Outcome::Failed { message, ignored: false } => {
                (Verdict::Failed, message, std::mem::take(&mut resource.changes))
            }
            Outcome::Failed { message, ignored: true } => {
                let host = Some(self.name.clone());
                let because = format!("{IGNORED}{message}");
                let warning = format!("{} {because}", resource.id);
                let _ = events.send(Event::Warning { host, message: warning });
                (Verdict::Ok, because, Vec::new())
            }
        };
        resource.verdict = verdict;
        resource.because = because;
        resource.changes = changes;
        resource.depends_on = Vec::new();
        resource.assuming = Vec::new();
        let _ = events.send(Event::Done { host: self.name.clone(), resource: resource.clone() });
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

    fn failed(&self, message: String) -> HostError {
        HostError { status: Status::Failed, message, summary: self.summary() }
    }

    fn lost(&self, error: &WireError) -> HostError {
        let mut message = error.to_string();
        let words = self.link.last_words();
        if !words.trim().is_empty() {
            message.push_str(": ");
            message.push_str(words.trim());
        }
        self.failed(message)
    }

    pub(super) async fn close(self) {
        self.link.close().await;
    }
}
