use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::arrival::{connect, follow};
use super::declaring::{Declarations, declare};
use super::host::{Host, HostError, Order, PlanEnd};
use super::limits::HostLimits;
use super::saved::HostPlan;
use crate::lang::ContentStore;
use crate::report::{Event, Status};
use crate::ssh::{AgentProgram, Client, Destination, Privilege, Request};
use crate::wire::{PlanOptions, STOPPED};

/// How a host is reached.
#[derive(Clone, Debug)]
pub enum Reach {
    /// Over SSH, as the inventory and the user's configuration say.
    Ssh(Box<Request>),
    /// Over SSH, as said here.
    Resolved(Box<Destination>),
    /// It is this machine.
    Local,
}

/// A host that takes part in a run.
#[derive(Clone, Debug)]
pub struct HostRun {
    /// Its name in the inventory.
    pub name: String,
    /// How it is reached.
    pub reach: Reach,
    /// As whom the agent runs there.
    pub privilege: Privilege,
}

/// What a run is there for.
#[derive(Clone)]
pub enum Purpose {
    /// To converge hosts to what this compiles for each once its facts are known.
    Converge(Arc<dyn Declarations>),
    /// To do what was planned before, host by host, and nothing else.
    Apply(Arc<HashMap<String, Arc<HostPlan>>>),
    /// To take a run back.
    Undo {
        /// Its name.
        run: String,
        /// Whether what was changed since is overwritten.
        force: bool,
        /// Only what that play has changed, and no packages and accounts: a failed run goes back.
        rollback: Option<String>,
    },
}

/// Hosts, and all that it takes to reach them.
#[derive(Clone)]
pub struct Reachable {
    /// In the order in which plays select them.
    pub hosts: Vec<HostRun>,
    /// All contents that declarations name.
    pub contents: Arc<ContentStore>,
    /// Connects.
    pub client: Arc<Client>,
    /// The program that is pushed.
    pub program: Arc<AgentProgram>,
    /// Hosts that are connected to, planned and changed at the same time.
    pub forks: usize,
    /// When a host is given up.
    pub limits: HostLimits,
}

/// A run on many hosts.
pub struct Run {
    /// The hosts.
    pub reachable: Reachable,
    /// What it is there for.
    pub purpose: Purpose,
    /// Nothing is changed.
    pub dry_run: bool,
    /// Takes what was planned, by host, where that is to be saved.
    pub plans: Option<Plans>,
    /// How to plan.
    pub plan: PlanOptions,
    /// Whether it waits for locks that other runs have, instead of ending.
    pub wait: bool,
    /// Whether a failed host keeps the plays after it from beginning anywhere, by play.
    pub any_errors_fatal: Vec<bool>,
}

/// What was planned, by host.
pub type Plans = Arc<Mutex<Vec<(String, HostPlan)>>>;

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// The input was refused when the facts were known; nothing was planned.
    pub refused: bool,
    /// A host failed or could not be reached.
    pub failed: bool,
    /// Something was changed, or would be.
    pub changed: bool,
    /// It was stopped before its end.
    pub interrupted: bool,
    /// Another run has the lock of a host, or a host is not as it was when it was planned; none was
    /// changed.
    pub declined: bool,
    /// It failed, and every host was taken back.
    pub rolled_back: bool,
    /// The first play in which a host failed.
    pub failed_play: Option<usize>,
}

pub(super) type Events = mpsc::UnboundedSender<Event>;

/// About how long to wait before locks are tried once more.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// Converges all hosts of a run, or plans only. `interrupt` turns true when the user wants it to
/// stop: hosts then finish what is in hand.
pub async fn converge(run: Run, events: Events, interrupt: watch::Receiver<bool>) -> Ended {
    let run = Arc::new(run);
    let mut ended = Ended::default();
    let (hosts, late) = connect(&run, &events, &mut ended, interrupt.clone()).await;
    let (go, waiting) = watch::channel(false);
    let late = follow(Arc::clone(&run), late, events.clone(), interrupt.clone(), waiting);
    let mut late = Some(tokio::spawn(late));
    let declared = declare(&run, hosts, &events, &mut ended, interrupt.clone()).await;
    let Some(hosts) = declared else {
        late.iter().for_each(tokio::task::JoinHandle::abort);
        ended.refused = true;
        return ended;
    };
    let mut hosts = plan(&run, hosts, &events, &mut ended, interrupt.clone()).await;
    if ended.declined {
        late.iter().for_each(tokio::task::JoinHandle::abort);
    } else if !run.dry_run {
        go.send_replace(true);
        let mut left_out = false;
        for play in 0..run.any_errors_fatal.len() {
            let fatal = play > 0 && run.any_errors_fatal[play - 1];
            if *interrupt.borrow() || (fatal && ended.failed) {
                left_out = true;
                break;
            }
            let failed_before = ended.failed;
            hosts = apply(&run, play, hosts, &events, &mut ended, interrupt.clone()).await;
            // Who was late has caught up before anybody begins with the next play.
            if let Some(late) = late.take() {
                hosts.extend(joined(late, &mut ended).await);
            }
            if ended.failed && !failed_before && !*interrupt.borrow() {
                ended.failed_play = Some(play);
            }
        }
        if let Some(late) = late.take() {
            hosts.extend(joined(late, &mut ended).await);
        }
        let place =
            |host: &Host| run.reachable.hosts.iter().position(|one| one.name == host.name());
        hosts.sort_by_key(place);
        let because =
            if *interrupt.borrow() { STOPPED } else { "a host failed in an earlier play" };
        for host in &mut hosts {
            host.leave_rest(because, &events);
        }
        let complete = !left_out && !*interrupt.borrow();
        hosts = finish(&run, hosts, complete, &events, &mut ended).await;
    }
    for mut host in hosts {
        if let (Some(plans), Some(plan)) = (&run.plans, host.kept_plan()) {
            let mut plans = plans.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            plans.push((host.name().to_owned(), plan));
        }
        ended.changed |= host.changed();
        let (status, summary) = host.status(run.dry_run);
        let name = host.name().to_owned();
        let error = if *interrupt.borrow() { host.stopped_at() } else { None };
        let verified = host.verified();
        host.close().await;
        let _ = events.send(Event::HostDone { host: name, status, error, summary, verified });
    }
    ended.interrupted = *interrupt.borrow();
    ended
}

/// The hosts that were late, and what became of them.
async fn joined(late: tokio::task::JoinHandle<(Vec<Host>, Ended)>, ended: &mut Ended) -> Vec<Host> {
    match late.await {
        Ok((hosts, own)) => {
            ended.failed |= own.failed;
            ended.changed |= own.changed;
            hosts
        }
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Vec::new(),
    }
}

/// Runs something for each host, `forks` at a time; results in the order of the hosts.
pub(super) async fn for_each<T, U, F>(forks: usize, items: Vec<T>, act: impl Fn(T) -> F) -> Vec<U>
where
    F: Future<Output = U> + Send + 'static,
    U: Send + 'static,
{
    let permits = Arc::new(Semaphore::new(forks.max(1)));
    let mut tasks = JoinSet::new();
    for (index, item) in items.into_iter().enumerate() {
        let permits = Arc::clone(&permits);
        let work = act(item);
        tasks.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire().await;
            (index, work.await)
        });
    }
    let mut results = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok(result) => results.push(result),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {}
        }
    }
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

pub(super) async fn plan(
    run: &Arc<Run>,
    hosts: Vec<Host>,
    events: &Events,
    ended: &mut Ended,
    interrupt: watch::Receiver<bool>,
) -> Vec<Host> {
    let mut order = match &run.purpose {
        Purpose::Converge(_) | Purpose::Apply(_) => Order::Plan,
        Purpose::Undo { run, force, rollback } => {
            Order::Undo { run: run.clone(), force: *force, rollback: rollback.clone() }
        }
    };
    let mut hosts = hosts;
    let mut attempts: u32 = 0;
    loop {
        let (planned, held) = plan_all(run, hosts, &order, events, ended, interrupt.clone()).await;
        if held.is_empty() {
            for host in planned.iter().filter(|_| run.wait) {
                host.tell_resources(events);
                host.tell_planned(events);
            }
            return planned;
        }
        // None of them is changed, so that two runs over the same hosts never wait for each other.
        let stale = held.iter().any(|(.., refusal)| matches!(refusal, Refusal::Stale(_)));
        if !run.wait || stale || *interrupt.borrow() {
            ended.declined = true;
            refuse(planned, held, events).await;
            return Vec::new();
        }
        for (host, refusal) in &held {
            let message = format!("{}; waiting", refusal.message());
            let _ = events.send(Event::Warning { host: Some(host.name().to_owned()), message });
        }
        // Of two runs that wait for each other's hosts, the older comes first: the other one lets
        // it have more and more time, since it may take long to look at its hosts.
        let older = held.iter().all(|(_, refusal)| refusal.is_younger(&run.plan.run.id));
        let patience = if older { 0.2 } else { f64::from(1_u32 << attempts.min(3)) };
        let pause = LOCK_PAUSE.mul_f64(patience * (0.5 + f64::from(rand_byte()) / 255.0));
        hosts = planned;
        for host in &mut hosts {
            host.release();
        }
        hosts.extend(held.into_iter().map(|(host, _)| host));
        let order_of =
            |host: &Host| run.reachable.hosts.iter().position(|one| one.name == host.name());
        hosts.sort_by_key(order_of);
        order = Order::Again;
        attempts += 1;
        let mut interrupt = interrupt.clone();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = interrupt.wait_for(|stop| *stop) => {}
        }
    }
}

/// Why a host may not be changed by this run.
enum Refusal {
    /// Another one is changing it.
    Locked { message: String, by: Option<String> },
    /// It is not as it was when the plan was made.
    Stale(String),
}

impl Refusal {
    fn message(&self) -> &str {
        match self {
            Self::Locked { message, .. } | Self::Stale(message) => message,
        }
    }

    /// Whether the other one began after a run. Names of runs begin with their time.
    fn is_younger(&self, run: &str) -> bool {
        matches!(self, Self::Locked { by: Some(by), .. } if by.as_str() > run)
    }
}

/// Says of all hosts that none was changed, because others are being changed by another run.
async fn refuse(planned: Vec<Host>, held: Vec<(Host, Refusal)>, events: &Events) {
    let mut ends: Vec<(Host, Status, String)> = planned
        .into_iter()
        .map(|host| {
            let message = String::from("nothing was changed: another host refused");
            (host, Status::Skipped, message)
        })
        .collect();
    let refused = held.into_iter().map(|(host, refusal)| {
        let message = refusal.message().to_owned();
        (host, Status::Failed, message)
    });
    ends.extend(refused);
    for (mut host, status, message) in ends {
        let summary = host.leave_rest("the run did not begin", events);
        let name = host.name().to_owned();
        host.close().await;
        let error = Some(message);
        let _ =
            events.send(Event::HostDone { host: name, status, error, summary, verified: false });
    }
}

/// A byte that nobody can foresee.
fn rand_byte() -> u8 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(()).to_le_bytes()[0]
}

/// Lets all hosts plan; those whose locks others have are apart, with who has them.
async fn plan_all(
    run: &Arc<Run>,
    hosts: Vec<Host>,
    order: &Order,
    events: &Events,
    ended: &mut Ended,
    interrupt: watch::Receiver<bool>,
) -> (Vec<Host>, Vec<(Host, Refusal)>) {
    let planned = for_each(run.reachable.forks, hosts, |mut host| {
        let (run, events, mut interrupt) = (Arc::clone(run), events.clone(), interrupt.clone());
        let order = order.clone();
        async move {
            let name = host.name().to_owned();
            let mut result = tokio::select! {
                result = host.plan(&order, &run.plan, &events) => result,
                _ = interrupt.wait_for(|stop| *stop) => Err(HostError::stopped()),
            };
            match result {
                Ok(PlanEnd::Held { message, by }) => {
                    return (name, Ok((host, Some(Refusal::Locked { message, by }))));
                }
                Ok(PlanEnd::Stale(message)) => {
                    return (name, Ok((host, Some(Refusal::Stale(message)))));
                }
                _ => {}
            }
            // Where locks are waited for, it may all be planned once more.
            if !run.wait || result.is_err() {
                host.tell_resources(&events);
            }
            // A dry run is read as a whole, and shows hosts in their order.
            if !run.dry_run && !run.wait {
                host.tell_planned(&events);
            }
            if let Err(error) = &mut result
                && !run.dry_run
            {
                error.summary = host.leave_rest("the host was not planned to its end", &events);
            }
            (name, result.map(|_| (host, None)))
        }
    })
    .await;
    if run.dry_run {
        let hosts = planned.iter().filter_map(|(_, result)| result.as_ref().ok());
        hosts.for_each(|(host, _)| host.tell_planned(events));
    }
    let mut free = Vec::new();
    let mut held = Vec::new();
    for (host, message) in keep(planned, events, ended) {
        match message {
            None => free.push(host),
            Some(message) => held.push((host, message)),
        }
    }
    (free, held)
}

/// Has hosts look whether all is as declared by now.
async fn finish(
    run: &Arc<Run>,
    hosts: Vec<Host>,
    complete: bool,
    events: &Events,
    ended: &mut Ended,
) -> Vec<Host> {
    let finished = for_each(run.reachable.forks, hosts, |mut host| {
        let events = events.clone();
        async move {
            let name = host.name().to_owned();
            let result = host.finish(complete, &events).await;
            (name, result.map(|()| host))
        }
    })
    .await;
    keep(finished, events, ended)
}

pub(super) async fn apply(
    run: &Arc<Run>,
    play: usize,
    hosts: Vec<Host>,
    events: &Events,
    ended: &mut Ended,
    interrupt: watch::Receiver<bool>,
) -> Vec<Host> {
    let applied = for_each(run.reachable.forks, hosts, |mut host| {
        let (events, interrupt) = (events.clone(), interrupt.clone());
        async move {
            let name = host.name().to_owned();
            let play = u32::try_from(play).unwrap_or(u32::MAX);
            let result = host.apply(play, &events, interrupt).await;
            (name, result.map(|()| host))
        }
    })
    .await;
    keep(applied, events, ended)
}

/// Reports the hosts that failed, and keeps the others.
pub(super) fn keep<T>(
    results: Vec<(String, Result<T, HostError>)>,
    events: &Events,
    ended: &mut Ended,
) -> Vec<T> {
    let mut hosts = Vec::new();
    for (name, result) in results {
        match result {
            Ok(host) => hosts.push(host),
            Err(error) => {
                ended.failed |= error.status != Status::Skipped;
                ended.changed |= error.summary.change > 0;
                let _ = events.send(Event::HostDone {
                    host: name,
                    status: error.status,
                    error: Some(error.message),
                    summary: error.summary,
                    verified: false,
                });
            }
        }
    }
    hosts
}
