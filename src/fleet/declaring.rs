//! From facts to what is declared: hosts answer the project's own questions, others tell the facts
//! that are needed of them, and then all are compiled for before any of them plans.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use super::host::{Host, HostError};
use super::run::{Ended, Events, HostRun, Purpose, Run, for_each, keep};
use crate::graph::Graph;
use crate::wire::{Answer, Question};

/// The input of some host was refused; what is wrong was said where it was found.
#[derive(Debug)]
pub struct Refused;

/// What is declared for a host.
#[derive(Debug)]
pub enum Declared {
    /// This.
    Graph(Arc<Graph>),
    /// That cannot be told without facts of these other hosts.
    Lacks(Vec<String>),
}

/// What is declared for hosts, once their facts are known.
pub trait Declarations: Send + Sync {
    /// What a host is asked for beyond its facts, which are JSON.
    fn questions(&self, host: &str, facts: &str) -> Result<Vec<Question>, Refused>;

    /// Takes in a host's facts, and its answers; none: nobody has asked. An error is the host's.
    fn learn(&self, host: &str, facts: &str, answers: Option<Vec<Answer>>) -> Result<(), String>;

    /// Hosts whose facts others need, and which are not known so far.
    fn wanted(&self) -> Vec<String>;

    /// Whether hosts need facts of others, as far as can be told.
    fn spans_hosts(&self) -> bool;

    /// How a host is reached that is asked for its facts alone.
    fn reach(&self, host: &str) -> Result<HostRun, String>;

    /// What is declared for a host whose facts are known.
    fn compile(&self, host: &str) -> Result<Declared, Refused>;
}

/// Compiles for all hosts before any of them plans; none if the input is refused.
pub(super) async fn declare(
    run: &Arc<Run>,
    hosts: Vec<Host>,
    events: &Events,
    ended: &mut Ended,
    interrupt: watch::Receiver<bool>,
) -> Option<Vec<Host>> {
    let mut hosts = hosts;
    for host in hosts.iter_mut().filter(|_| run.plans.is_some()) {
        host.keep_plan();
    }
    let declarations = match &run.purpose {
        Purpose::Converge(declarations) => declarations,
        Purpose::Apply(plans) => {
            for host in &mut hosts {
                host.bind(plans.get(host.name()).map(Arc::clone).unwrap_or_default());
            }
            return Some(hosts);
        }
        Purpose::Undo { .. } => {
            hosts.iter_mut().for_each(|host| host.declare(Arc::default()));
            return Some(hosts);
        }
    };
    // Facts of hosts that are in the run are known after this, or cannot be had.
    let mut tried: BTreeMap<String, String> = BTreeMap::new();
    for host in &run.reachable.hosts {
        tried.insert(host.name.clone(), String::from("it could not be reached"));
    }
    let learned = learn(run, declarations, hosts, interrupt.clone()).await?;
    for (name, result) in &learned {
        if let Err(error) = result {
            tried.insert(name.clone(), error.message.clone());
        }
    }
    let mut hosts = keep(learned, events, ended);
    loop {
        let new: Vec<String> =
            declarations.wanted().into_iter().filter(|name| !tried.contains_key(name)).collect();
        for (name, failure) in look(run, declarations, new, events, interrupt.clone()).await {
            tried.insert(name, failure.unwrap_or_default());
        }
        let compiled = compile(run, declarations, hosts).await?;
        let lacking: HashSet<&String> =
            compiled.iter().filter_map(|(_, lacks)| lacks.as_ref()).flatten().collect();
        if lacking.iter().all(|name| tried.contains_key(*name)) {
            let results = compiled.into_iter().map(|(host, lacks)| {
                let name = host.name().to_owned();
                (name, lacks.map_or(Ok(host), |lacks| Err(without(&lacks, &tried))))
            });
            return Some(keep(results.collect(), events, ended));
        }
        hosts = compiled.into_iter().map(|(host, _)| host).collect();
    }
}

/// That a host cannot take part because of others.
fn without(lacks: &[String], tried: &BTreeMap<String, String>) -> HostError {
    let names = lacks.iter().map(|name| match tried.get(name).map(String::as_str) {
        Some("") | None => format!("`{name}`"),
        Some(why) => format!("`{name}` ({})", why.lines().next().unwrap_or_default()),
    });
    let names: Vec<String> = names.collect();
    HostError::failed(format!(
        "what is declared for it needs facts of other hosts: {}",
        names.join(", ")
    ))
}

/// Asks hosts what the project wants to know of them.
async fn learn(
    run: &Arc<Run>,
    declarations: &Arc<dyn Declarations>,
    hosts: Vec<Host>,
    interrupt: watch::Receiver<bool>,
) -> Option<Vec<(String, Result<Host, HostError>)>> {
    let learned = for_each(run.reachable.forks, hosts, |mut host| {
        let (declarations, mut interrupt) = (Arc::clone(declarations), interrupt.clone());
        async move {
            let name = host.name().to_owned();
            let facts = host.facts().to_owned();
            let questions = {
                let (declarations, facts, name) =
                    (Arc::clone(&declarations), facts.clone(), name.clone());
                blocking(move || declarations.questions(&name, &facts)).await
            };
            let questions = match questions {
                Ok(questions) => questions,
                Err(Refused) => return None,
            };
            let mut answers = None;
            if !questions.is_empty() {
                let asked = tokio::select! {
                    asked = host.ask(questions) => asked,
                    _ = interrupt.wait_for(|stop| *stop) => Err(HostError::stopped()),
                };
                match asked {
                    Ok(given) => answers = Some(given),
                    Err(error) => return Some((name, Err(error))),
                }
            }
            let learned = declarations.learn(&name, &facts, answers);
            Some((name, learned.map(|()| host).map_err(HostError::failed)))
        }
    })
    .await;
    learned.into_iter().collect()
}

/// Connects to hosts for their facts alone; says of each what went wrong.
async fn look(
    run: &Arc<Run>,
    declarations: &Arc<dyn Declarations>,
    names: Vec<String>,
    events: &Events,
    interrupt: watch::Receiver<bool>,
) -> Vec<(String, Option<String>)> {
    for_each(run.reachable.forks, names, |name| {
        let (run, declarations) = (Arc::clone(run), Arc::clone(declarations));
        let (events, mut interrupt) = (events.clone(), interrupt.clone());
        async move {
            let host = match declarations.reach(&name) {
                Ok(host) => host,
                Err(message) => return (name, Some(message)),
            };
            let connected = tokio::select! {
                connected = Host::connect(&run.reachable, host, &events) => connected,
                _ = interrupt.wait_for(|stop| *stop) => Err(HostError::stopped()),
            };
            let failure = match connected {
                Ok(host) => {
                    let learned = declarations.learn(&name, host.facts(), None);
                    host.close().await;
                    learned.err()
                }
                Err(error) => Some(error.message),
            };
            (name, failure)
        }
    })
    .await
}

/// Hosts with what is declared for them, or with the hosts whose facts that needs.
async fn compile(
    run: &Arc<Run>,
    declarations: &Arc<dyn Declarations>,
    hosts: Vec<Host>,
) -> Option<Vec<(Host, Option<Vec<String>>)>> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let permits = Arc::new(Semaphore::new(workers));
    let compiled = for_each(run.reachable.forks, hosts, |mut host| {
        let (declarations, permits) = (Arc::clone(declarations), Arc::clone(&permits));
        async move {
            let _permit = permits.acquire().await;
            let name = host.name().to_owned();
            match blocking(move || declarations.compile(&name)).await {
                Err(Refused) => None,
                Ok(Declared::Lacks(hosts)) => Some((host, Some(hosts))),
                Ok(Declared::Graph(graph)) => {
                    host.declare(graph);
                    Some((host, None))
                }
            }
        }
    })
    .await;
    compiled.into_iter().collect()
}

/// Does what takes a while beside the connections.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Refused),
    }
}
