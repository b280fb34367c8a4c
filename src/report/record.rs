use std::collections::HashMap;

use indexmap::IndexMap;

use super::{Event, Resource, Status, Summary};

/// All that is known of a run, folded from its events; for reporters that speak at the end.
#[derive(Debug, Default)]
pub(super) struct RunRecord {
    pub(super) run: String,
    pub(super) inventory: String,
    pub(super) state_file: String,
    pub(super) dry_run: bool,
    /// Every selected host, in inventory order.
    pub(super) hosts: IndexMap<String, HostRecord>,
    /// Whom it concerns, and what it says.
    pub(super) warnings: Vec<(Option<String>, String)>,
}

/// All that is known of a host.
#[derive(Debug, Default)]
pub(super) struct HostRecord {
    /// None as long as it is not done.
    pub(super) status: Option<Status>,
    pub(super) error: Option<String>,
    pub(super) summary: Summary,
    pub(super) verified: bool,
    /// In the order of the plan; what was done replaces what was planned.
    pub(super) resources: Vec<Resource>,
    done: Vec<bool>,
    /// Places in `resources` by play and identity.
    places: HashMap<(String, String), Vec<usize>>,
}

impl HostRecord {
    fn planned(&mut self, resource: &Resource) {
        let key = (resource.play.clone(), resource.id.clone());
        self.places.entry(key).or_default().push(self.resources.len());
        self.resources.push(resource.clone());
        self.done.push(false);
    }

    fn done(&mut self, resource: &Resource) {
        let key = (resource.play.clone(), resource.id.clone());
        let places = self.places.get(&key).map(Vec::as_slice).unwrap_or_default();
        let open = places.iter().copied().find(|place| !self.done[*place]);
        let place = open.or_else(|| places.last().copied());
        match place {
            Some(place) => {
                self.resources[place] = resource.clone();
                self.done[place] = true;
            }
            None => {
                self.planned(resource);
                if let Some(last) = self.done.last_mut() {
                    *last = true;
                }
            }
        }
    }
}

impl RunRecord {
    /// Takes in what happened.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::RunStarted { run, inventory, state_file, dry_run, hosts } => {
                self.run.clone_from(run);
                self.inventory.clone_from(inventory);
                self.state_file.clone_from(state_file);
                self.dry_run = *dry_run;
                for host in hosts {
                    self.host(host);
                }
            }
            Event::Planned { host, resource } => self.host(host).planned(resource),
            Event::Done { host, resource } => self.host(host).done(resource),
            Event::HostPlanned { host, summary } => self.host(host).summary = *summary,
            Event::HostDone { host, status, error, summary, verified } => {
                let host = self.host(host);
                host.status = Some(*status);
                host.error.clone_from(error);
                host.summary = *summary;
                host.verified = *verified;
            }
            Event::Warning { host, message } => self.warnings.push((host.clone(), message.clone())),
            Event::HostPhase { .. } | Event::Started { .. } | Event::RunDone { .. } => {}
        }
    }

    fn host(&mut self, name: &str) -> &mut HostRecord {
        self.hosts.entry(name.to_owned()).or_default()
    }
}
