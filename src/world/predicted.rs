use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::systemd::template_of;
use super::{
    ContentId, Entry, GroupEntry, ObserveError, PackageEntry, RemotePath, System, UnitEntry,
    UserEntry,
};
use crate::resource::ResourceId;

/// The world in which a resource is planned: the observed one with all changes that are planned
/// before it laid over.
pub struct World<'a> {
    system: &'a dyn System,
    overlay: RwLock<Overlay>,
}

/// What the changes planned so far will make of the host.
#[derive(Default)]
struct Overlay {
    /// Counts what was laid over, so that "planned after that" can be told.
    clock: u64,
    entries: HashMap<RemotePath, Laid<(Entry, Option<ContentId>)>>,
    users: BTreeMap<String, Laid<Option<UserEntry>>>,
    groups: BTreeMap<String, Laid<Option<GroupEntry>>>,
    packages: BTreeMap<String, Laid<Option<PackageEntry>>>,
    units: BTreeMap<String, Laid<UnitEntry>>,
    opaque: Vec<Laid<Opaque>>,
    /// Resources whose changes only may happen: what they lay is not sure.
    undecided: HashSet<ResourceId>,
}

struct Laid<T> {
    at: u64,
    by: ResourceId,
    value: T,
}

/// What an opaque change may touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opaque {
    /// Anything: a command.
    Everything,
    /// Anything but the set of packages: a package transaction, through maintainer scripts.
    EverythingButPackages,
    /// What lies at or below these paths.
    Paths(Vec<RemotePath>),
}

/// A thing of the predicted world, and how sure it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicted<T> {
    /// What it will be.
    pub value: T,
    /// The resource whose planned change makes it so; none if it is as observed.
    pub by: Option<ResourceId>,
    /// Pending opaque changes that may touch it in between.
    pub tainted_by: Vec<ResourceId>,
}

impl<T> Predicted<T> {
    fn map<U>(self, convert: impl FnOnce(T) -> U) -> Predicted<U> {
        Predicted { value: convert(self.value), by: self.by, tainted_by: self.tainted_by }
    }
}

impl<'a> World<'a> {
    /// The world as it is now.
    pub fn observed(system: &'a dyn System) -> Self {
        Self { system, overlay: RwLock::default() }
    }

    /// The real host below the prediction.
    pub fn system(&self) -> &'a dyn System {
        self.system
    }

    /// What will stand at a path. A folder that is predicted to go takes all below it along.
    pub fn entry(&self, path: &RemotePath) -> Result<Predicted<Entry>, ObserveError> {
        {
            let overlay = self.read();
            if let Some(laid) = overlay.entries.get(path) {
                let taints = overlay.taints(laid.at, |opaque| opaque.touches_path(path));
                let by = Some(laid.by.clone());
                return Ok(Predicted { value: laid.value.0.clone(), by, tainted_by: taints });
            }
            if !overlay.entries.is_empty() {
                for folder in path.ancestors() {
                    if let Some(laid) = overlay.entries.get(&folder)
                        && !matches!(laid.value.0, Entry::Folder { .. } | Entry::Link { .. })
                    {
                        let taints = overlay.taints(laid.at, |opaque| opaque.touches_path(path));
                        let by = Some(laid.by.clone());
                        return Ok(Predicted { value: Entry::Absent, by, tainted_by: taints });
                    }
                }
            }
        }
        let value = self.system.entry(path)?;
        let tainted_by = self.read().taints(0, |opaque| opaque.touches_path(path));
        Ok(Predicted { value, by: None, tainted_by })
    }

    /// The content that a file will have, if a planned change sets it.
    pub fn planned_content(&self, path: &RemotePath) -> Option<ContentId> {
        self.read().entries.get(path).and_then(|laid| laid.value.1)
    }

    /// The names that will be in a directory, sorted, as full paths.
    pub fn list(&self, path: &RemotePath) -> Result<Vec<RemotePath>, ObserveError> {
        let observed = match self.system.entry(path)? {
            Entry::Folder { .. } => self.system.list(path)?,
            _ => Vec::new(),
        };
        let overlay = self.read();
        let mut names: Vec<_> = observed
            .into_iter()
            .filter(|name| {
                overlay.entries.get(name).is_none_or(|laid| laid.value.0 != Entry::Absent)
            })
            .collect();
        for (planned, laid) in &overlay.entries {
            if laid.value.0 != Entry::Absent && planned.parent().as_ref() == Some(path) {
                names.push(planned.clone());
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// A user as it will be.
    pub fn user(&self, name: &str) -> Result<Predicted<Option<UserEntry>>, ObserveError> {
        let observed = || Ok(self.system.users()?.get(name).cloned());
        self.look(|overlay| overlay.users.get(name), observed, Opaque::touches_accounts)
    }

    /// A group as it will be.
    pub fn group(&self, name: &str) -> Result<Predicted<Option<GroupEntry>>, ObserveError> {
        let observed = || Ok(self.system.groups()?.get(name).cloned());
        self.look(|overlay| overlay.groups.get(name), observed, Opaque::touches_accounts)
    }

    /// All users as they will be, by name; without taints.
    pub fn users(&self) -> Result<BTreeMap<String, UserEntry>, ObserveError> {
        let mut users = self.system.users()?.as_ref().clone();
        for (name, laid) in &self.read().users {
            match &laid.value {
                Some(entry) => users.insert(name.clone(), entry.clone()),
                None => users.remove(name),
            };
        }
        Ok(users)
    }

    /// A package as it will be.
    pub fn package(&self, name: &str) -> Result<Predicted<Option<PackageEntry>>, ObserveError> {
        let observed = || Ok(self.system.packages()?.get(name).cloned());
        self.look(|overlay| overlay.packages.get(name), observed, Opaque::touches_packages)
    }

    /// A unit as it will be. A unit file that is planned makes a unit exist.
    pub fn unit(&self, name: &str) -> Result<Predicted<UnitEntry>, ObserveError> {
        let observed = || self.system.unit(name).map(Some);
        let predicted: Predicted<Option<UnitEntry>> = {
            let overlay = self.read();
            if let Some(laid) = overlay.units.get(name) {
                let taints = overlay.taints(laid.at, Opaque::touches_units);
                Predicted {
                    value: Some(laid.value.clone()),
                    by: Some(laid.by.clone()),
                    tainted_by: taints,
                }
            } else {
                let taints = overlay.taints(0, Opaque::touches_units);
                let template = template_of(name)
                    .and_then(|template| overlay.units.get(&template))
                    .filter(|laid| laid.value.exists)
                    .map(|laid| laid.by.clone());
                drop(overlay);
                let mut value = observed()?;
                // An instance comes with its template.
                let comes = value.as_ref().is_none_or(|unit| !unit.exists);
                let by = template.filter(|_| comes);
                if by.is_some() {
                    value = Some(UnitEntry { exists: true, ..UnitEntry::unknown(name) });
                }
                Predicted { value, by, tainted_by: taints }
            }
        };
        Ok(predicted.map(|entry| entry.unwrap_or_else(|| UnitEntry::unknown(name))))
    }

    /// The resources that have planned a change at or below any of these paths.
    pub fn planned_below(&self, folder: &RemotePath) -> Vec<ResourceId> {
        let overlay = self.read();
        let mut found: Vec<_> = overlay
            .entries
            .iter()
            .filter(|(path, _)| path.is_within(folder))
            .map(|(_, laid)| laid.by.clone())
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// All pending changes, opaque or not.
    pub fn pending(&self) -> Vec<ResourceId> {
        let overlay = self.read();
        let mut pending: Vec<_> = (overlay.entries.values().map(|laid| &laid.by))
            .chain(overlay.users.values().map(|laid| &laid.by))
            .chain(overlay.groups.values().map(|laid| &laid.by))
            .chain(overlay.packages.values().map(|laid| &laid.by))
            .chain(overlay.units.values().map(|laid| &laid.by))
            .chain(overlay.opaque.iter().map(|laid| &laid.by))
            .cloned()
            .collect();
        pending.sort();
        pending.dedup();
        pending
    }

    /// Pending changes that may touch anything; guards and commands wait for them.
    pub fn opaque(&self) -> Vec<ResourceId> {
        self.read().taints(0, |_| true)
    }

    /// Says that what a resource lays over the world may also not happen, or come out otherwise.
    pub fn doubt(&self, by: &ResourceId) {
        self.write().undecided.insert(by.clone());
    }

    /// Whether what a resource has laid over the world is not sure.
    pub fn is_doubtful(&self, by: &ResourceId) -> bool {
        self.read().undecided.contains(by)
    }

    /// Lays a path over the observed world.
    pub fn lay_entry(
        &self,
        by: &ResourceId,
        path: RemotePath,
        entry: Entry,
        content: Option<ContentId>,
    ) {
        let mut overlay = self.write();
        let at = overlay.tick();
        overlay.entries.insert(path, Laid { at, by: by.clone(), value: (entry, content) });
    }

    /// Lays a user over the observed world; none if it will be gone.
    pub fn lay_user(&self, by: &ResourceId, name: &str, entry: Option<UserEntry>) {
        let mut overlay = self.write();
        let at = overlay.tick();
        overlay.users.insert(name.to_owned(), Laid { at, by: by.clone(), value: entry });
    }

    /// Lays a group over the observed world; none if it will be gone.
    pub fn lay_group(&self, by: &ResourceId, name: &str, entry: Option<GroupEntry>) {
        let mut overlay = self.write();
        let at = overlay.tick();
        overlay.groups.insert(name.to_owned(), Laid { at, by: by.clone(), value: entry });
    }

    /// Lays a package over the observed world; none if it will be gone.
    pub fn lay_package(&self, by: &ResourceId, name: &str, entry: Option<PackageEntry>) {
        let mut overlay = self.write();
        let at = overlay.tick();
        overlay.packages.insert(name.to_owned(), Laid { at, by: by.clone(), value: entry });
    }

    /// Lays a unit over the observed world.
    pub fn lay_unit(&self, by: &ResourceId, entry: UnitEntry) {
        let mut overlay = self.write();
        let at = overlay.tick();
        overlay.units.insert(entry.name.clone(), Laid { at, by: by.clone(), value: entry });
    }

    /// Remembers that a planned change may touch more than it says.
    pub fn lay_opaque(&self, by: &ResourceId, opaque: Opaque) {
        let mut overlay = self.write();
        let at = overlay.tick();
        overlay.opaque.push(Laid { at, by: by.clone(), value: opaque });
    }

    fn look<T: Clone>(
        &self,
        find: impl FnOnce(&Overlay) -> Option<&Laid<Option<T>>>,
        observed: impl FnOnce() -> Result<Option<T>, ObserveError>,
        touches: impl Fn(&Opaque) -> bool,
    ) -> Result<Predicted<Option<T>>, ObserveError> {
        let overlay = self.read();
        if let Some(laid) = find(&overlay) {
            let tainted_by = overlay.taints(laid.at, touches);
            return Ok(Predicted {
                value: laid.value.clone(),
                by: Some(laid.by.clone()),
                tainted_by,
            });
        }
        let tainted_by = overlay.taints(0, touches);
        drop(overlay);
        Ok(Predicted { value: observed()?, by: None, tainted_by })
    }

    fn read(&self) -> RwLockReadGuard<'_, Overlay> {
        self.overlay.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, Overlay> {
        self.overlay.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Overlay {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn taints(&self, since: u64, touches: impl Fn(&Opaque) -> bool) -> Vec<ResourceId> {
        self.opaque
            .iter()
            .filter(|laid| laid.at > since && touches(&laid.value))
            .map(|laid| laid.by.clone())
            .collect()
    }
}

impl Opaque {
    fn touches_path(&self, path: &RemotePath) -> bool {
        match self {
            Opaque::Paths(paths) => paths.iter().any(|folder| path.is_within(folder)),
            _ => true,
        }
    }

    fn touches_accounts(&self) -> bool {
        !matches!(self, Opaque::Paths(_))
    }

    fn touches_units(&self) -> bool {
        !matches!(self, Opaque::Paths(_))
    }

    fn touches_packages(&self) -> bool {
        matches!(self, Opaque::Everything)
    }
}

impl UnitEntry {
    /// A unit that the manager does not know.
    pub fn unknown(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            exists: false,
            active: false,
            enablement: String::from("not-found"),
            can_reload: false,
            needs_daemon_reload: false,
            started_at: None,
        }
    }
}
