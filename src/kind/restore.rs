use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::package::moved_along;
use super::planning::{PlanError, Planning};
use crate::change::{Account, Act, Change, Content, HomeDirectory, PackageTransaction};
use crate::world::{Entry, GroupEntry, Metadata, PackageEntry, RemotePath, UserEntry};

/// What runs have changed goes back to what it was: undo, rollback and prune are plans of it.
///
/// Its changes lead from what a run left to what was before. What is so already is met; what is
/// neither was changed by somebody else since, and is not overwritten.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restore {
    /// From what is expected to stand there to what is to stand there, in the order in which they
    /// are to happen.
    pub changes: Vec<Change>,
    /// What no change can bring back.
    pub cannot: Vec<String>,
    /// What is done with things that are not as the run left them.
    pub since: Since,
    /// It is shown what would be done, and nothing is.
    pub only_shown: bool,
    /// Changes of later nodes about the same things: what one of them has brought about already is
    /// on its way back, and nobody else's doing.
    pub further: Vec<Change>,
}

/// What is done with things that were changed by somebody else since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Since {
    /// Nothing of it is touched, and that is an error.
    Refuse,
    /// They stay, and the plan says so.
    Keep,
    /// They are overwritten, and what was put into folders and homes since goes with them.
    Overwrite,
}

/// Something is not as a run left it.
enum Outcome {
    Done,
    Differs(String),
}

/// The states that paths go through on their way back.
struct Way<'a> {
    /// What this plan has made of them so far.
    made: HashMap<&'a RemotePath, &'a Content>,
    /// What they come to, each at which step; those of later nodes are behind all steps.
    contents: HashMap<&'a RemotePath, Vec<(usize, &'a Content)>>,
    /// What later nodes make of their owner, group and mode.
    metadata: HashMap<&'a RemotePath, Vec<&'a Metadata>>,
}

impl<'a> Way<'a> {
    fn of(restore: &'a Restore) -> Self {
        let mut way =
            Self { made: HashMap::new(), contents: HashMap::new(), metadata: HashMap::new() };
        for (step, change) in restore.changes.iter().chain(&restore.further).enumerate() {
            match change {
                Change::Content { path, after, .. } => {
                    way.contents.entry(path).or_default().push((step, after));
                }
                Change::Metadata { path, after, .. } if step >= restore.changes.len() => {
                    way.metadata.entry(path).or_default().push(after);
                }
                _ => {}
            }
        }
        way
    }

    /// Whether a path comes to a content after that step.
    fn comes_to(&self, path: &RemotePath, content: &Content, step: usize) -> bool {
        let mut states = self.contents.get(path).into_iter().flatten();
        states.any(|(at, after)| *at > step && *after == content)
    }
}

impl Restore {
    /// Adds the differences between the predicted world and what was before.
    pub fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        let mut kept = Vec::new();
        let mut way = Way::of(self);
        // Paths at which something comes to be that was not there.
        let mut fresh: HashSet<&RemotePath> = HashSet::new();
        for (step, change) in self.changes.iter().enumerate() {
            let outcome = match change {
                Change::Content { path, before, after } => {
                    let pushed = planning.count();
                    let outcome = self.content(planning, &mut way, step, (path, before, after))?;
                    let same_type = std::mem::discriminant(before) == std::mem::discriminant(after);
                    if planning.count() > pushed && !same_type {
                        fresh.insert(path);
                    }
                    outcome
                }
                Change::Metadata { path, after, .. } if fresh.contains(path) => {
                    let (path, after) = (path.clone(), after.clone());
                    planning.push(Change::Metadata { path, before: None, after });
                    Outcome::Done
                }
                Change::Metadata { path, before, after } => {
                    self.metadata(planning, &way, path, before.as_ref(), after)?
                }
                Change::Account { before, after } => {
                    self.account(planning, before.as_ref(), after.as_ref())?
                }
                Change::Packages(transaction) => self.packages(planning, transaction)?,
                Change::Unit { name, before, after, stop } => {
                    let entry = planning.unit(name)?;
                    let mut current = *before;
                    current.active = entry.active;
                    current.enabled = entry.enablement.starts_with("enabled");
                    current.masked = entry.enablement.starts_with("masked");
                    let further = self.is_further(|change| {
                        matches!(change, Change::Unit { name: other, after, .. }
                            if other == name && *after == current)
                    });
                    if !entry.exists || current == *after || further {
                        Outcome::Done
                    } else if current == *before || self.since != Since::Refuse {
                        planning.push(Change::Unit {
                            name: name.clone(),
                            before: current,
                            after: *after,
                            stop: stop.clone(),
                        });
                        Outcome::Done
                    } else {
                        Outcome::Differs(format!("the state of {name}"))
                    }
                }
                Change::Act(Act::ReloadManager { .. }) => {
                    if !way.made.is_empty() {
                        planning.push(change.clone());
                    }
                    Outcome::Done
                }
                Change::Act(_) => {
                    planning.push(change.clone());
                    Outcome::Done
                }
            };
            if let Outcome::Differs(what) = outcome {
                kept.push(what);
            }
        }
        if !kept.is_empty() && self.since == Since::Refuse {
            let message = format!("not as that run left it: {}", kept.join(", "));
            return Err(PlanError::new(message).help("--force overwrites what was changed since"));
        }
        let mut reasons = Vec::new();
        if !kept.is_empty() {
            reasons.push(format!("changed since, and kept: {}", kept.join(", ")));
        }
        if !self.cannot.is_empty() {
            reasons.push(format!("cannot be taken back: {}", self.cannot.join(", ")));
        }
        if !reasons.is_empty() {
            planning.because(reasons.join("; "));
        }
        Ok(())
    }

    fn is_further(&self, about: impl Fn(&Change) -> bool) -> bool {
        self.further.iter().any(about)
    }

    fn content<'a>(
        &self,
        planning: &mut Planning<'_>,
        way: &mut Way<'a>,
        step: usize,
        (path, before, after): (&'a RemotePath, &Content, &'a Content),
    ) -> Result<Outcome, PlanError> {
        let current = match way.made.get(path) {
            Some(made) => (*made).clone(),
            None => planning.content(path)?,
        };
        let further = !way.made.contains_key(path) && way.comes_to(path, &current, step);
        if current == *after || further {
            return Ok(Outcome::Done);
        }
        let expected = current == *before;
        if !expected && self.since != Since::Overwrite {
            let what = if current == Content::Absent { "gone" } else { "changed" };
            return Ok(Outcome::Differs(format!("{path} ({what})")));
        }
        if current == Content::Folder && *after != Content::Folder {
            if self.since == Since::Overwrite {
                planning.absent(path)?;
                way.made.insert(path, after);
                if *after == Content::Absent {
                    return Ok(Outcome::Done);
                }
                let (path, after) = (path.clone(), after.clone());
                planning.push(Change::Content { path, before: Content::Absent, after });
                return Ok(Outcome::Done);
            }
            if !self.will_be_empty(planning, path)? {
                return Ok(Outcome::Differs(format!("{path} (not empty)")));
            }
        }
        if *after != Content::Absent {
            planning.needs_parent(path)?;
        }
        way.made.insert(path, after);
        planning.push(Change::Content {
            path: path.clone(),
            before: current,
            after: after.clone(),
        });
        Ok(Outcome::Done)
    }

    fn metadata(
        &self,
        planning: &mut Planning<'_>,
        way: &Way<'_>,
        path: &RemotePath,
        before: Option<&Metadata>,
        after: &Metadata,
    ) -> Result<Outcome, PlanError> {
        // Nothing there: its content was refused, or is gone already.
        let Some(current) = planning.entry(path)?.metadata().cloned() else {
            return Ok(Outcome::Done);
        };
        let further = way.metadata.get(path).into_iter().flatten().copied();
        for wanted in further.chain([after]) {
            if planning.same_metadata(&current, wanted)? {
                return Ok(Outcome::Done);
            }
        }
        if self.since != Since::Overwrite
            && let Some(before) = before
            && !planning.same_metadata(&current, before)?
        {
            return Ok(Outcome::Differs(format!("owner or mode of {path}")));
        }
        planning.push(Change::Metadata {
            path: path.clone(),
            before: Some(current),
            after: after.clone(),
        });
        Ok(Outcome::Done)
    }

    /// Whether a folder is empty once the changes before have happened.
    fn will_be_empty(
        &self,
        planning: &mut Planning<'_>,
        folder: &RemotePath,
    ) -> Result<bool, PlanError> {
        let removed = planning.removed();
        let left = planning.world().list(folder)?;
        Ok(left.iter().all(|path| removed.contains(path)))
    }

    fn account(
        &self,
        planning: &mut Planning<'_>,
        before: Option<&Account>,
        after: Option<&Account>,
    ) -> Result<Outcome, PlanError> {
        match before.or(after) {
            Some(Account::User { entry, .. }) => {
                let name = entry.name.clone();
                let current = planning.user(&name)?;
                let wanted = user(after);
                let expected = user(before);
                let joined = wanted.map(|wanted| self.with_groups_to_come(wanted));
                let further = self.is_further(|change| {
                    matches!(change, Change::Account { before, after }
                        if user(before.as_ref().or(after.as_ref())).is_some_and(|it| it.name == name)
                            && same_user(user(after.as_ref()), current.as_ref()))
                });
                if same_user(wanted, current.as_ref())
                    || same_user(joined.as_ref(), current.as_ref())
                    || further
                {
                    return Ok(Outcome::Done);
                }
                if !same_user(expected, current.as_ref()) && self.since != Since::Overwrite {
                    return Ok(Outcome::Differs(format!("the user {name}")));
                }
                let mut before = before.cloned();
                if let Some(Account::User { entry, home, .. }) = &mut before {
                    if let Some(current) = current {
                        *entry = current;
                    }
                    if *home == HomeDirectory::Remove
                        && self.since != Since::Overwrite
                        && !is_untouched(planning, &RemotePath::from(entry.home.as_str()))?
                    {
                        let home_path = entry.home.clone();
                        if self.since == Since::Refuse {
                            return Ok(Outcome::Differs(format!("{home_path} (files were added)")));
                        }
                        *home = HomeDirectory::Leave;
                        planning.because(format!("its home {home_path} stays"));
                    }
                }
                planning.push(Change::Account { before, after: after.cloned() });
            }
            Some(Account::Group { entry, system }) => {
                let name = entry.name.clone();
                let current = planning.group(&name)?;
                let further = self.is_further(|change| {
                    matches!(change, Change::Account { before, after }
                        if group(before.as_ref().or(after.as_ref())).is_some_and(|it| it.name == name)
                            && same_group(group(after.as_ref()), current.as_ref()))
                });
                if same_group(group(after), current.as_ref()) || further {
                    return Ok(Outcome::Done);
                }
                if !same_group(group(before), current.as_ref()) && self.since != Since::Overwrite {
                    return Ok(Outcome::Differs(format!("the group {name}")));
                }
                let system = *system;
                // Who is in it is with its users, and may change on the way.
                let members = entry.members.clone();
                let mut after = after.cloned();
                if let (None, Some(Account::Group { entry, .. })) = (&current, &mut after) {
                    // Others are put into it when they come back themselves.
                    for member in std::mem::take(&mut entry.members) {
                        if planning.user(&member)?.is_some() {
                            entry.members.push(member);
                        }
                    }
                }
                let before = current.map(|current| Account::Group {
                    entry: GroupEntry { members, ..current },
                    system,
                });
                planning.push(Change::Account { before, after });
            }
            None => {}
        }
        Ok(Outcome::Done)
    }

    /// A user with the groups that later nodes bring back with that user in them.
    fn with_groups_to_come(&self, user: &UserEntry) -> UserEntry {
        let mut user = user.clone();
        for change in &self.further {
            let Change::Account { before: None, after: Some(Account::Group { entry, .. }) } =
                change
            else {
                continue;
            };
            if entry.members.contains(&user.name) && !user.groups.contains(&entry.name) {
                user.groups.push(entry.name.clone());
            }
        }
        user.groups.sort();
        user
    }

    fn packages(
        &self,
        planning: &mut Planning<'_>,
        transaction: &PackageTransaction,
    ) -> Result<Outcome, PlanError> {
        let mut back = PackageTransaction { moves: Vec::new(), ..transaction.clone() };
        let mut differs = Vec::new();
        for step in &transaction.moves {
            let entry = planning.package(&step.name)?.filter(|entry| entry.version.is_some());
            let version = |entry: &PackageEntry| entry.version.clone();
            let current = entry.as_ref().and_then(version);
            let expected = step.before.as_ref().and_then(|state| state.version.clone());
            let wanted = step.after.as_ref().and_then(|state| state.version.clone());
            if current == wanted {
                continue;
            }
            // Where the lists were fetched first, the version was not known; and what is to go
            // goes at any version.
            let unknown = step.before.as_ref().is_some_and(|state| state.version.is_none());
            let any = unknown || (self.since == Since::Keep && wanted.is_none());
            let same = current == expected || (current.is_some() && any);
            if !same && self.since != Since::Overwrite {
                differs.push(step.name.clone());
                continue;
            }
            let mut step = step.clone();
            step.before = entry.as_ref().map(super::package::state_of);
            back.moves.push(step);
        }
        if !back.moves.is_empty() {
            let others = if self.only_shown { Vec::new() } else { moved_along(&back, planning)? };
            if !others.is_empty() {
                return Ok(Outcome::Differs(format!(
                    "packages that others need by now: {} would go along",
                    others.join(", ")
                )));
            }
            planning.push(Change::Packages(back));
        }
        if differs.is_empty() {
            Ok(Outcome::Done)
        } else {
            Ok(Outcome::Differs(format!("packages: {}", differs.join(", "))))
        }
    }
}

fn user(account: Option<&Account>) -> Option<&UserEntry> {
    match account {
        Some(Account::User { entry, .. }) => Some(entry),
        _ => None,
    }
}

fn group(account: Option<&Account>) -> Option<&GroupEntry> {
    match account {
        Some(Account::Group { entry, .. }) => Some(entry),
        _ => None,
    }
}

/// Whether a user is as it was recorded; what the host chose by itself counts for nothing.
fn same_user(recorded: Option<&UserEntry>, current: Option<&UserEntry>) -> bool {
    match (recorded, current) {
        (None, None) => true,
        (Some(recorded), Some(current)) => {
            let either = |left: &Option<String>, right: &Option<String>| {
                left.is_none() || right.is_none() || left == right
            };
            (recorded.uid.is_none() || recorded.uid == current.uid)
                && either(&recorded.group, &current.group)
                && either(&recorded.password_hash, &current.password_hash)
                && recorded.groups == current.groups
                && recorded.home == current.home
                && recorded.shell == current.shell
                && recorded.comment == current.comment
        }
        _ => false,
    }
}

fn same_group(recorded: Option<&GroupEntry>, current: Option<&GroupEntry>) -> bool {
    match (recorded, current) {
        (None, None) => true,
        // Who is in it is with its users.
        (Some(recorded), Some(current)) => recorded.gid.is_none() || recorded.gid == current.gid,
        _ => false,
    }
}

/// Whether a home has nothing in it but what came from the host's skeleton.
fn is_untouched(planning: &mut Planning<'_>, home: &RemotePath) -> Result<bool, PlanError> {
    below_is(planning, home, &RemotePath::from("/etc/skel"))
}

fn below_is(
    planning: &mut Planning<'_>,
    folder: &RemotePath,
    model: &RemotePath,
) -> Result<bool, PlanError> {
    if planning.world().entry(folder)?.value == Entry::Absent {
        return Ok(true);
    }
    for path in planning.world().list(folder)? {
        let Some(name) = path.as_path().file_name() else { return Ok(false) };
        let like = model.join(name);
        let (here, there) =
            (planning.world().entry(&path)?.value, planning.world().entry(&like)?.value);
        let same = match (&here, &there) {
            (Entry::Absent, _) => true,
            (Entry::File { size, .. }, Entry::File { size: other, .. }) => {
                size == other && planning.identify(&path)? == planning.identify(&like)?
            }
            (Entry::Link { target, .. }, Entry::Link { target: other, .. }) => target == other,
            (Entry::Folder { .. }, Entry::Folder { .. }) => below_is(planning, &path, &like)?,
            _ => false,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}
