//! A host that is being changed: what it reports, and whether its operator still gets in.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{Events, Host, HostError, HostRun, Reachable};
use crate::graph::NodeIndex;
use crate::report::{ChangeView, Event, IGNORED, Phase, Verdict};
use crate::wire::{FromAgent, Outcome, ToAgent};

/// Logins anew that a host may ask for in a play, for each of its resources.
const LOGINS: usize = 4;
/// A login anew is tried no longer than that, whatever a host asks for.
const LOGIN_LIMIT: Duration = Duration::from_secs(3600);
/// Between two of its attempts.
const LOGIN_PAUSE: Duration = Duration::from_secs(1);

impl Host {
    /// Lets the agent apply a play; a play with nothing to do costs nothing.
    pub(in crate::fleet) async fn apply(
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
        // Of a host that asks again and again, the login before ends first.
        let mut login = JoinSet::new();
        let mut logins = 0;
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
                FromAgent::Started(node) => self.started(node, events)?,
                FromAgent::Done { node, outcome, ms } => self.done(node, outcome, ms, events)?,
                FromAgent::Confirm { within } => {
                    login.abort_all();
                    logins += 1;
                    if logins > LOGINS * self.resources.len() {
                        let message = "the host asks for logins without end";
                        return Err(self.failed(String::from(message)));
                    }
                    let within = Duration::from_millis(within).min(LOGIN_LIMIT);
                    let (reached, stopper) = (self.reached.clone(), stopper.clone());
                    login.spawn(async move {
                        stopper.confirm(log_in_anew(&reached, within).await.err());
                    });
                }
                FromAgent::Unconfirmed { nodes, message } => {
                    self.unconfirmed(&nodes, &message, events);
                }
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

    /// What went well before has gone back.
    fn unconfirmed(&mut self, nodes: &[NodeIndex], message: &str, events: &Events) {
        for node in nodes {
            let Some(Some(resource)) = self.resources.get_mut(*node as usize) else { continue };
            // Each of them once, however often it is named.
            if resource.verdict == Verdict::Failed {
                continue;
            }
            resource.verdict = Verdict::Failed;
            message.clone_into(&mut resource.because);
            let (host, resource) = (self.name.clone(), resource.clone());
            let _ = events.send(Event::Done { host, resource });
        }
    }

    fn started(&mut self, node: NodeIndex, events: &Events) -> Result<(), HostError> {
        let Some(named) = self.named(node) else { return Err(self.undeclared()) };
        let (id, label) = (named.id.to_owned(), named.label.map(str::to_owned));
        if std::mem::replace(&mut self.begun[node as usize], true) {
            return Err(self.failed(format!("the agent begins {id} twice")));
        }
        let _ = events.send(Event::Started { host: self.name.clone(), id, label });
        Ok(())
    }

    fn done(
        &mut self,
        node: NodeIndex,
        outcome: Outcome,
        ms: u64,
        events: &Events,
    ) -> Result<(), HostError> {
        let Some(Some(resource)) = self.resources.get_mut(node as usize) else {
            return Err(self.undeclared());
        };
        if std::mem::replace(&mut self.done[node as usize], true) {
            let message = format!("the agent is through with {} twice", resource.id);
            return Err(self.failed(message));
        }
        resource.ms = ms;
        let (verdict, because, changes): (_, String, Vec<ChangeView>) = match outcome {
            Outcome::Changed(views) if views.is_empty() => {
                (Verdict::Change, resource.because.clone(), std::mem::take(&mut resource.changes))
            }
            Outcome::Changed(views) => (Verdict::Change, resource.because.clone(), views),
            Outcome::Met { because } => (Verdict::Ok, because, Vec::new()),
            // What is only shown stays shown.
            Outcome::Skipped { because } if resource.verdict == Verdict::Skipped => {
                (Verdict::Skipped, because, std::mem::take(&mut resource.changes))
            }
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
        Ok(())
    }
}

/// Logs in and becomes root, over a connection of its own; tries again until the time is over.
async fn log_in_anew(reached: &(Reachable, HostRun), within: Duration) -> Result<(), String> {
    let (reachable, host) = reached;
    let begun = Instant::now();
    let mut last = String::from("it did not answer");
    loop {
        let left = within.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(last);
        }
        // What is to be said of the connection was said the first time.
        let (events, _) = mpsc::unbounded_channel();
        let login = Host::connect(reachable, host.clone(), &events);
        match tokio::time::timeout(left, login).await {
            Ok(Ok(host)) => {
                host.close().await;
                return Ok(());
            }
            Ok(Err(error)) => last = error.message,
            Err(_) => return Err(last),
        }
        tokio::time::sleep(LOGIN_PAUSE.min(left)).await;
    }
}
