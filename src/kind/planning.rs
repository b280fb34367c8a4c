use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use crate::change::{Change, Content};
use crate::resource::ResourceId;
use crate::world::{
    Answer, ContentId, EDIT_LIMIT, Entry, GroupEntry, Metadata, ObserveError, PackageEntry,
    Predicted, Probe, RemotePath, UnitEntry, UserEntry, World,
};

/// Where programs are looked for on a host.
const PROGRAM_FOLDERS: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Why a resource cannot be planned: one sentence, and perhaps the way out.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PlanError {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl PlanError {
    /// An error without advice.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    /// Adds advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl From<ObserveError> for PlanError {
    fn from(error: ObserveError) -> Self {
        Self::new(error.to_string())
    }
}

/// Contents by their digest: those that the controller has, and those that plans make.
pub trait Contents: Send + Sync {
    /// The bytes; asks the controller for them if need be.
    fn bytes(&self, id: &ContentId) -> io::Result<Arc<[u8]>>;
    /// Keeps bytes that a plan has made.
    fn keep(&self, bytes: Vec<u8>) -> ContentId;
}

/// The user as whom a resource is converged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Login name.
    pub user: String,
    /// Name of the primary group.
    pub group: String,
    /// Whether it is the superuser.
    pub root: bool,
}

/// What a file is declared to be; what is none is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// User name or number.
    pub owner: Option<String>,
    /// Group name or number.
    pub group: Option<String>,
    /// The lower twelve bits.
    pub mode: Option<u32>,
}

/// One resource being planned: it looks at the predicted world and collects differences.
///
/// Whatever is looked at here is remembered, so that the verdict follows by itself: a target that
/// does not exist now and that a pending opaque change may bring makes the resource wait
/// (`depends`), one that exists is planned on the assumption that it is left alone (`assuming`).
pub struct Planning<'a> {
    /// The resource.
    pub id: &'a ResourceId,
    /// As whom.
    pub actor: Actor,
    /// Environment for whatever it runs.
    pub environment: Vec<(String, String)>,
    world: &'a World<'a>,
    contents: &'a dyn Contents,
    changes: Vec<Change>,
    depends_on: BTreeSet<ResourceId>,
    assuming: BTreeSet<ResourceId>,
    because: Option<String>,
    undecided: Option<String>,
    untrusted: bool,
}

/// What a plan came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// In the order in which they are to happen.
    pub changes: Vec<Change>,
    /// Pending changes that decide whether and how it changes.
    pub depends_on: Vec<ResourceId>,
    /// Pending changes that are assumed to leave it alone.
    pub assuming: Vec<ResourceId>,
    /// Why, where the differences do not say it by themselves.
    pub because: Option<String>,
    /// Why it cannot be told whether anything happens, if it cannot.
    pub undecided: Option<String>,
}

impl<'a> Planning<'a> {
    /// Begins to plan a resource in a world.
    pub fn new(
        id: &'a ResourceId,
        actor: Actor,
        environment: Vec<(String, String)>,
        world: &'a World<'a>,
        contents: &'a dyn Contents,
    ) -> Self {
        Self {
            id,
            actor,
            environment,
            world,
            contents,
            changes: Vec::new(),
            depends_on: BTreeSet::new(),
            assuming: BTreeSet::new(),
            because: None,
            undecided: None,
            untrusted: false,
        }
    }

    /// Whether nothing may be run that the project says.
    #[must_use]
    pub fn untrusted(mut self, untrusted: bool) -> Self {
        self.untrusted = untrusted;
        self
    }

    /// Whether a command of the project may be run in order to look; if not, the verdict is
    /// `depends`.
    pub fn may_look(&mut self) -> bool {
        if self.untrusted {
            self.undecided =
                Some(String::from("commands of the project are not run (--untrusted)"));
        }
        !self.untrusted
    }

    /// What the plan came to.
    pub fn finish(self) -> Planned {
        // Waiting for something says more than assuming that it leaves the target alone.
        let assuming = self.assuming.difference(&self.depends_on).cloned().collect();
        Planned {
            changes: self.changes,
            depends_on: self.depends_on.into_iter().collect(),
            assuming,
            because: self.because,
            undecided: self.undecided,
        }
    }

    /// Adds a difference.
    pub fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Says why, where the differences do not say it by themselves.
    pub fn because(&mut self, reason: impl Into<String>) {
        self.because = Some(reason.into());
    }

    /// Makes the verdict `depends`: what happens is decided by that pending change.
    pub fn wait_for(&mut self, resources: impl IntoIterator<Item = ResourceId>) {
        self.depends_on.extend(resources);
    }

    /// The predicted world, for what has no method here; taints are then the caller's business.
    pub fn world(&self) -> &'a World<'a> {
        self.world
    }

    /// What stands at the resource's target.
    pub fn entry(&mut self, path: &RemotePath) -> Result<Entry, PlanError> {
        let predicted = self.world.entry(path)?;
        let missing = predicted.value == Entry::Absent;
        Ok(self.taken(predicted, missing))
    }

    /// What stands at the resource's target, without its metadata.
    pub fn content(&mut self, path: &RemotePath) -> Result<Content, PlanError> {
        Ok(match self.entry(path)? {
            Entry::Absent => Content::Absent,
            Entry::File { .. } => Content::File(self.identify(path)?),
            Entry::Link { target, .. } => Content::Link(target),
            Entry::Folder { .. } => Content::Folder,
            Entry::Other { .. } => Content::Other,
        })
    }

    /// How many differences were added so far.
    pub fn count(&self) -> usize {
        self.changes.len()
    }

    /// The paths that are gone by what was planned of this resource so far.
    pub fn removed(&self) -> BTreeSet<RemotePath> {
        let removed = self.changes.iter().filter_map(|change| match change {
            Change::Content { path, after: Content::Absent, .. } => Some(path.clone()),
            _ => None,
        });
        removed.collect()
    }

    /// The bytes of a file at a path, as they will be; bounded by [`EDIT_LIMIT`].
    pub fn read(&mut self, path: &RemotePath) -> Result<Arc<[u8]>, PlanError> {
        if let Some(id) = self.world.planned_content(path) {
            return self.bytes(&id);
        }
        Ok(self.world.system().read(path)?.into())
    }

    /// Digest and size of a file at a path, as they will be.
    pub fn identify(&mut self, path: &RemotePath) -> Result<ContentId, PlanError> {
        match self.world.planned_content(path) {
            Some(id) => Ok(id),
            None => Ok(self.world.system().identify(path)?),
        }
    }

    /// The bytes of a declared content; bounded by [`EDIT_LIMIT`].
    pub fn bytes(&mut self, id: &ContentId) -> Result<Arc<[u8]>, PlanError> {
        if id.size > EDIT_LIMIT {
            let limit = EDIT_LIMIT >> 20;
            return Err(PlanError::new(format!(
                "a content of more than {limit} MiB cannot be edited"
            )));
        }
        self.contents
            .bytes(id)
            .map_err(|error| PlanError::new(format!("a declared content cannot be had: {error}")))
    }

    /// Keeps a content that the plan has made.
    pub fn keep(&mut self, bytes: Vec<u8>) -> ContentId {
        self.contents.keep(bytes)
    }

    /// A user that is the resource's target.
    pub fn user(&mut self, name: &str) -> Result<Option<UserEntry>, PlanError> {
        let predicted = self.world.user(name)?;
        let missing = predicted.value.is_none();
        Ok(self.taken(predicted, missing))
    }

    /// A group that is the resource's target.
    pub fn group(&mut self, name: &str) -> Result<Option<GroupEntry>, PlanError> {
        let predicted = self.world.group(name)?;
        let missing = predicted.value.is_none();
        Ok(self.taken(predicted, missing))
    }

    /// A package that is the resource's target.
    pub fn package(&mut self, name: &str) -> Result<Option<PackageEntry>, PlanError> {
        let predicted = self.world.package(name)?;
        let missing = predicted.value.as_ref().is_none_or(|entry| entry.version.is_none());
        Ok(self.taken(predicted, missing))
    }

    /// A unit that is the resource's target.
    pub fn unit(&mut self, name: &str) -> Result<UnitEntry, PlanError> {
        let predicted = self.world.unit(name)?;
        let missing = !predicted.value.exists;
        Ok(self.taken(predicted, missing))
    }

    /// Runs a command that only looks, as the resource's user and in its environment.
    ///
    /// Its answer is about the host as it is now: where opaque changes are pending, or what it
    /// reads is about to change, the caller has to wait instead.
    pub fn probe(&mut self, argv: &[&str]) -> Result<Answer, PlanError> {
        let mut probe = Probe::new([]);
        probe.argv = argv.iter().map(ToString::to_string).collect();
        probe.user = Some(self.actor.user.clone());
        probe.environment = self.environment.clone();
        Ok(self.world.system().probe(&probe)?)
    }

    /// Waits for pending packages and commands if the program of a check is not installed yet, and
    /// is an error if nothing pending can bring it. Only what changes anything is checked.
    pub fn needs_program_of(&mut self, check: &str) -> Result<(), PlanError> {
        let Some(program) = check.split_whitespace().next() else { return Ok(()) };
        // A builtin, a variable or a group is the shell's own business.
        let is_name =
            |character: char| character.is_ascii_alphanumeric() || "._+-/".contains(character);
        if self.changes.is_empty() || !program.chars().all(is_name) {
            return Ok(());
        }
        let candidates: Vec<RemotePath> = if program.starts_with('/') {
            vec![program.into()]
        } else {
            PROGRAM_FOLDERS.iter().map(|folder| RemotePath::new(folder).join(program)).collect()
        };
        for candidate in &candidates {
            if self.world.entry(candidate)?.value != Entry::Absent {
                return Ok(());
            }
        }
        let opaque = self.world.opaque();
        if opaque.is_empty() {
            let message = format!("`{check}` cannot check it: {program} is not installed");
            return Err(PlanError::new(message)
                .help("declare the package that brings it, before this state"));
        }
        self.wait_for(opaque);
        Ok(())
    }

    pub(super) fn taken<T>(&mut self, predicted: Predicted<T>, missing: bool) -> T {
        if missing && predicted.by.is_none() {
            self.depends_on.extend(predicted.tainted_by);
        } else {
            self.assuming.extend(predicted.tainted_by);
        }
        // What may come out otherwise decides what is built on it.
        if let Some(by) = predicted.by.filter(|by| self.world.is_doubtful(by)) {
            self.depends_on.insert(by);
        }
        predicted.value
    }

    /// Plans that a file with this content stands at a path; `None` leaves the content as it is
    /// and needs a file to be there, or to come.
    pub fn file(
        &mut self,
        path: &RemotePath,
        content: Option<ContentId>,
        ownership: &Ownership,
        default_mode: u32,
    ) -> Result<(), PlanError> {
        let entry = self.entry(path)?;
        let before = match &entry {
            Entry::Absent => {
                self.needs_parent(path)?;
                Content::Absent
            }
            Entry::File { size, .. } => {
                let same_size = content.is_some_and(|wanted| wanted.size == *size);
                if same_size || content.is_some() {
                    Content::File(self.identify(path)?)
                } else {
                    Content::Absent // not looked at: the content stays
                }
            }
            Entry::Link { target, .. } => Content::Link(target.clone()),
            Entry::Folder { .. } => {
                return Err(PlanError::new(format!("{path} is a directory"))
                    .help("declare it as `directory`, or remove it first"));
            }
            Entry::Other { .. } => Content::Other,
        };
        let existing = matches!(entry, Entry::File { .. });
        match content {
            Some(wanted) if before != Content::File(wanted) => {
                self.may_change(path)?;
                let after = Content::File(wanted);
                self.push(Change::Content { path: path.clone(), before, after });
            }
            None if entry == Entry::Absent => {
                let empty = self.keep(Vec::new());
                self.push(Change::Content {
                    path: path.clone(),
                    before,
                    after: Content::File(empty),
                });
            }
            None if !existing => {
                return Err(PlanError::new(format!("{path} is {}, not a file", entry.describe())));
            }
            _ => {}
        }
        let current = if existing { entry.metadata() } else { None };
        self.metadata(path, current, ownership, default_mode)
    }

    /// Plans that a directory stands at a path. Missing parents are made too with `parents`
    /// (0755, owned by whoever acts).
    pub fn folder(
        &mut self,
        path: &RemotePath,
        ownership: &Ownership,
        default_mode: u32,
    ) -> Result<(), PlanError> {
        let entry = self.entry(path)?;
        let existing = match &entry {
            Entry::Folder { .. } => true,
            Entry::Absent => {
                self.may_change(path)?;
                self.push(Change::Content {
                    path: path.clone(),
                    before: Content::Absent,
                    after: Content::Folder,
                });
                false
            }
            other => {
                return Err(PlanError::new(format!(
                    "{path} is {}, not a directory",
                    other.describe()
                )));
            }
        };
        let current = if existing { entry.metadata() } else { None };
        self.metadata(path, current, ownership, default_mode)
    }

    /// Plans missing folders above a path: 0755, owned by whoever acts.
    pub fn parents(&mut self, path: &RemotePath) -> Result<(), PlanError> {
        let mut missing = Vec::new();
        for folder in path.ancestors() {
            match self.world.entry(&folder)?.value {
                Entry::Absent => missing.push(folder),
                Entry::Folder { .. } | Entry::Link { .. } => break,
                other => {
                    let what = other.describe();
                    return Err(PlanError::new(format!("{folder} is {what}, not a directory")));
                }
            }
        }
        for folder in missing.into_iter().rev() {
            self.folder(&folder, &Ownership::default(), 0o755)?;
        }
        Ok(())
    }

    /// An error unless the folder of a path exists, was planned before, or may be brought by a
    /// pending opaque change.
    pub fn needs_parent(&mut self, path: &RemotePath) -> Result<(), PlanError> {
        let Some(folder) = path.parent() else { return Ok(()) };
        self.needs_folder(&folder)?;
        self.may_change(path)
    }

    /// An error if a path's folder is there and the resource's user cannot write in it, or would
    /// have to follow a link on the way that another user could have planted.
    pub fn may_change(&self, path: &RemotePath) -> Result<(), PlanError> {
        let Some(folder) = path.parent() else { return Ok(()) };
        let predicted = self.world.entry(&folder)?;
        // Anything else is yet to become a folder.
        let observed = predicted.by.is_none()
            && matches!(predicted.value, Entry::Folder { .. } | Entry::Link { .. });
        let user = &self.actor.user;
        if !observed || self.world.system().may_write(&folder, user)? {
            return Ok(());
        }
        let error = PlanError::new(format!("{user} cannot write in {folder}"));
        Err(if self.actor.root {
            error.help("its file system is read-only")
        } else {
            error.help("`become: true` does it as root, unless its file system is read-only")
        })
    }

    /// The same as [`Planning::needs_parent`] for a directory itself.
    pub fn needs_folder(&mut self, folder: &RemotePath) -> Result<(), PlanError> {
        let predicted = self.world.entry(folder)?;
        match &predicted.value {
            Entry::Folder { .. } => Ok(()),
            Entry::Link { .. } => Ok(()),
            Entry::Absent if self.makes_folder(folder) => Ok(()),
            Entry::Absent if predicted.by.is_none() && !predicted.tainted_by.is_empty() => {
                self.wait_for(predicted.tainted_by);
                Ok(())
            }
            Entry::Absent => Err(PlanError::new(format!("the directory {folder} does not exist"))
                .help(format!("declare `directory: {folder}` before it"))),
            other => {
                Err(PlanError::new(format!("{folder} is {}, not a directory", other.describe())))
            }
        }
    }

    /// Whether this very plan makes a folder.
    fn makes_folder(&self, folder: &RemotePath) -> bool {
        self.changes.iter().any(|change| {
            matches!(change, Change::Content { path, after: Content::Folder, .. } if path == folder)
        })
    }

    /// Plans that nothing stands at a path. A directory goes with all that is in it.
    pub fn absent(&mut self, path: &RemotePath) -> Result<(), PlanError> {
        let before = self.content(path)?;
        if before == Content::Absent {
            return Ok(());
        }
        if before == Content::Folder {
            for name in self.world.list(path)? {
                self.absent(&name)?;
            }
        }
        self.may_change(path)?;
        self.push(Change::Content { path: path.clone(), before, after: Content::Absent });
        Ok(())
    }

    /// Plans a path's owner, group and mode; `current` is none where it is new, and then the
    /// defaults apply: the acting user, its group, `default_mode`.
    pub fn metadata(
        &mut self,
        path: &RemotePath,
        current: Option<&Metadata>,
        ownership: &Ownership,
        default_mode: u32,
    ) -> Result<(), PlanError> {
        let wanted_owner = ownership.owner.as_deref();
        let wanted_group = ownership.group.as_deref();
        self.check_principals(wanted_owner, wanted_group)?;
        let actor = self.actor.clone();
        let after = match current {
            Some(current) => Metadata {
                owner: wanted_owner.unwrap_or(&current.owner).to_owned(),
                group: wanted_group.unwrap_or(&current.group).to_owned(),
                mode: ownership.mode.unwrap_or(current.mode),
            },
            None => Metadata {
                owner: wanted_owner.unwrap_or(&actor.user).to_owned(),
                group: wanted_group.unwrap_or(&actor.group).to_owned(),
                mode: ownership.mode.unwrap_or(default_mode),
            },
        };
        let same = match current {
            None => false,
            Some(current) => self.same_metadata(current, &after)?,
        };
        if !same {
            if self.actor.root {
                self.may_change(path)?;
            }
            self.push(Change::Metadata { path: path.clone(), before: current.cloned(), after });
        }
        Ok(())
    }

    /// An error unless owner and group exist, are numbers, were planned before, or may come with
    /// a pending opaque change.
    pub fn check_principals(
        &mut self,
        owner: Option<&str>,
        group: Option<&str>,
    ) -> Result<(), PlanError> {
        if let Some(name) = owner.filter(|name| !is_number(name)) {
            let predicted = self.world.user(name)?;
            if predicted.value.is_none() {
                if predicted.by.is_some() || predicted.tainted_by.is_empty() {
                    return Err(PlanError::new(format!("the user {name} does not exist"))
                        .help(format!("declare `user: {name}` before it")));
                }
                self.wait_for(predicted.tainted_by);
            }
        }
        if let Some(name) = group.filter(|name| !is_number(name)) {
            let predicted = self.world.group(name)?;
            if predicted.value.is_none() {
                if predicted.by.is_some() || predicted.tainted_by.is_empty() {
                    return Err(PlanError::new(format!("the group {name} does not exist"))
                        .help(format!("declare `group: {name}` before it")));
                }
                self.wait_for(predicted.tainted_by);
            }
        }
        Ok(())
    }

    /// Whether owner, group and mode are the same, be they said by name or by number.
    pub fn same_metadata(&self, left: &Metadata, right: &Metadata) -> Result<bool, PlanError> {
        Ok(left.mode == right.mode
            && self.same_user(&left.owner, &right.owner)?
            && self.same_group(&left.group, &right.group)?)
    }

    fn same_user(&self, left: &str, right: &str) -> Result<bool, PlanError> {
        if left == right {
            return Ok(true);
        }
        let number = |name: &str| -> Result<Option<u32>, PlanError> {
            match name.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Ok(self.world.user(name)?.value.and_then(|entry| entry.uid)),
            }
        };
        let (left, right) = (number(left)?, number(right)?);
        Ok(left.is_some() && left == right)
    }

    fn same_group(&self, left: &str, right: &str) -> Result<bool, PlanError> {
        if left == right {
            return Ok(true);
        }
        let number = |name: &str| -> Result<Option<u32>, PlanError> {
            match name.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Ok(self.world.group(name)?.value.and_then(|entry| entry.gid)),
            }
        };
        let (left, right) = (number(left)?, number(right)?);
        Ok(left.is_some() && left == right)
    }
}

fn is_number(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}
