//! Hosts arrive one after the other, and some never do: who is late joins the run when it comes,
//! and nobody waits for it longer than a moment.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::declaring::declare;
use super::host::{Host, HostError};
use super::run::{Ended, Events, Purpose, Run, apply, keep, plan};
use crate::report::{Event, Phase, Status, Summary};

/// Who needs longer than that to be reached is late, if others have been reached by then.
const MOMENT: Duration = Duration::from_secs(3);
/// How often it is looked whether all who are not late are there.
const LOOK: Duration = Duration::from_millis(100);

type Arrival = (usize, String, Result<Host, HostError>);

/// Hosts that are still being connected to.
pub(super) type Late = JoinSet<Arrival>;

/// Connects to all hosts. Those that are there, in inventory order, and those that are late; a dry
/// run is read as a whole, and one that waits for locks holds all or none: both wait for all.
pub(super) async fn connect(
    run: &Arc<Run>,
    events: &Events,
    ended: &mut Ended,
    interrupt: watch::Receiver<bool>,
) -> (Vec<Host>, Late) {
    let hosts = run.reachable.hosts.clone();
    let begun: Arc<Vec<OnceLock<Instant>>> =
        Arc::new(hosts.iter().map(|_| OnceLock::new()).collect());
    let permits = Arc::new(Semaphore::new(run.reachable.forks.max(1)));
    let mut coming: Late = JoinSet::new();
    for (index, host) in hosts.into_iter().enumerate() {
        let (run, events, mut interrupt) = (Arc::clone(run), events.clone(), interrupt.clone());
        let (permits, begun) = (Arc::clone(&permits), Arc::clone(&begun));
        coming.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire().await;
            let _ = begun[index].set(Instant::now());
            let name = host.name.clone();
            let phase = Event::HostPhase { host: name.clone(), phase: Phase::Connecting };
            let _ = events.send(phase);
            let connected = tokio::select! {
                connected = Host::connect(&run.reachable, host, &events) => connected,
                _ = interrupt.wait_for(|stop| *stop) => Err(HostError::stopped()),
            };
            (index, name, connected)
        });
    }
    let mut arrived: Vec<Arrival> = Vec::new();
    let mut there = vec![false; begun.len()];
    while !coming.is_empty() {
        match tokio::time::timeout(LOOK, coming.join_next()).await {
            Ok(Some(joined)) => {
                let arrival = arrival(joined);
                there[arrival.0] = true;
                arrived.push(arrival);
            }
            Ok(None) => break,
            Err(_) => {
                let reached = arrived.iter().any(|(.., connected)| connected.is_ok());
                let is_late =
                    |index: usize| begun[index].get().is_some_and(|begun| begun.elapsed() > MOMENT);
                let all_late = (0..there.len()).all(|index| there[index] || is_late(index));
                // Others need the facts of some, of which nobody knows who they are.
                let spans_hosts = match &run.purpose {
                    Purpose::Converge(declarations) => declarations.spans_hosts(),
                    Purpose::Apply(_) | Purpose::Undo { .. } => false,
                };
                // Who waits for the lock of a late host while others are held may wait for somebody
                // who waits for these.
                if reached && all_late && !run.dry_run && !run.wait && !spans_hosts {
                    break;
                }
            }
        }
    }
    arrived.sort_by_key(|(index, ..)| *index);
    let arrived = arrived.into_iter().map(|(_, name, connected)| (name, connected)).collect();
    (keep(arrived, events, ended), coming)
}

fn arrival(joined: Result<Arrival, tokio::task::JoinError>) -> Arrival {
    match joined {
        Ok(arrival) => arrival,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Takes in hosts that are late, each as it comes: it is compiled for and planned, and once `go`
/// is true its first play is applied. They are through with it when this ends.
pub(super) async fn follow(
    run: Arc<Run>,
    mut late: Late,
    events: Events,
    interrupt: watch::Receiver<bool>,
    go: watch::Receiver<bool>,
) -> (Vec<Host>, Ended) {
    let mut following = JoinSet::new();
    let mut ended = Ended::default();
    let mut hosts = Vec::new();
    while let Some(joined) = late.join_next().await {
        let (_, name, connected) = arrival(joined);
        let arrived = keep(vec![(name, connected)], &events, &mut ended);
        for host in arrived {
            let (run, events) = (Arc::clone(&run), events.clone());
            following.spawn(catch_up(run, host, events, interrupt.clone(), go.clone()));
        }
    }
    while let Some(joined) = following.join_next().await {
        let (host, own) = match joined {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        hosts.extend(host);
        ended.failed |= own.failed;
        ended.changed |= own.changed;
    }
    (hosts, ended)
}

async fn catch_up(
    run: Arc<Run>,
    host: Host,
    events: Events,
    interrupt: watch::Receiver<bool>,
    mut go: watch::Receiver<bool>,
) -> (Vec<Host>, Ended) {
    let mut ended = Ended::default();
    let name = host.name().to_owned();
    let declared = declare(&run, vec![host], &events, &mut ended, interrupt.clone()).await;
    let Some(hosts) = declared else {
        let error = Some(String::from("what is declared for it was refused; the others went on"));
        let summary = Summary::default();
        let (status, verified) = (Status::Failed, false);
        let _ = events.send(Event::HostDone { host: name, status, error, summary, verified });
        return (Vec::new(), Ended { failed: true, ..ended });
    };
    let hosts = plan(&run, hosts, &events, &mut ended, interrupt.clone()).await;
    ended.failed |= ended.declined;
    // The sender is gone where the others are not to be changed.
    if go.wait_for(|go| *go).await.is_err() {
        return (hosts, ended);
    }
    (apply(&run, 0, hosts, &events, &mut ended, interrupt).await, ended)
}
