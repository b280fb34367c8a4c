use tokio::sync::mpsc;

use super::host::{Host, HostError};
use super::run::{Reachable, for_each};
use crate::report::{Event, HostStatus, PastRun, RunInfo};

/// What one host tells; why it tells nothing otherwise.
#[derive(Debug)]
pub struct Told<T> {
    /// The host.
    pub name: String,
    /// What it tells.
    pub told: Result<T, String>,
}

type Events = mpsc::UnboundedSender<Event>;

/// Asks hosts for the runs that were there, oldest first, or for one of them with its differences;
/// and what is wrong with records that cannot be read. Warnings go out as events.
pub async fn past(
    reachable: &Reachable,
    run: Option<String>,
    events: Events,
) -> Vec<Told<(Vec<PastRun>, Vec<String>)>> {
    ask(reachable, events, move |mut host| {
        let run = run.clone();
        async move {
            let past = host.past(run).await;
            host.close().await;
            let (runs, unreadable) = past?;
            Ok((runs, unreadable.iter().map(|what| clean(what)).collect()))
        }
    })
    .await
}

/// Asks hosts what is not any more as runs of this one's scope have left it.
pub async fn status(reachable: &Reachable, run: RunInfo, events: Events) -> Vec<Told<HostStatus>> {
    ask(reachable, events, move |mut host| {
        let run = run.clone();
        async move {
            let status = host.standing(run).await;
            host.close().await;
            status
        }
    })
    .await
}

async fn ask<T, F>(
    reachable: &Reachable,
    events: Events,
    question: impl Fn(Host) -> F + Clone + Send + Sync + 'static,
) -> Vec<Told<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, HostError>> + Send + 'static,
{
    for_each(reachable.forks, reachable.hosts.clone(), |host| {
        let (reachable, events) = (reachable.clone(), events.clone());
        let question = question.clone();
        async move {
            let name = host.name.clone();
            let told = match Host::connect(&reachable, host, &events).await {
                Ok(host) => question(host).await,
                Err(error) => Err(error),
            };
            Told { name, told: told.map_err(|error| clean(&error.message)) }
        }
    })
    .await
}

/// What comes from a host steers no terminal.
fn clean(text: &str) -> String {
    let mut clean = String::new();
    crate::change::sanitize(text, &mut clean);
    clean
}
