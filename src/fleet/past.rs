use tokio::sync::mpsc;

use super::host::Host;
use super::run::{Reachable, for_each};
use crate::report::{Event, PastRun};

/// What one host tells of its past.
#[derive(Debug)]
pub struct HostPast {
    /// The host.
    pub name: String,
    /// Its runs, oldest first, and what is wrong with records that cannot be read; or why the host
    /// tells nothing.
    pub past: Result<(Vec<PastRun>, Vec<String>), String>,
}

/// Asks hosts for the runs that were there, or for one of them with its differences. Warnings go
/// out as events.
pub async fn past(
    reachable: &Reachable,
    run: Option<String>,
    events: mpsc::UnboundedSender<Event>,
) -> Vec<HostPast> {
    for_each(reachable.forks, reachable.hosts.clone(), |host| {
        let (reachable, run, events) = (reachable.clone(), run.clone(), events.clone());
        async move {
            let name = host.name.clone();
            let past = async {
                let mut host = Host::connect(&reachable, host, &events).await?;
                let past = host.past(run).await;
                host.close().await;
                past
            };
            HostPast { name, past: past.await.map_err(|error| error.message) }
        }
    })
    .await
}
