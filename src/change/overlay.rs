use super::{Account, Act, Change, Content, HomeDirectory};
use crate::resource::ResourceId;
use crate::world::{Entry, GroupEntry, Metadata, ObserveError, PackageEntry, RemotePath, World};

/// Folders in which the service manager finds unit files that administrators write.
const UNIT_FOLDERS: [&str; 2] = ["/etc/systemd/system", "/usr/local/lib/systemd/system"];

/// Lays a planned change over the world in which later resources are planned.
pub fn lay_over(change: &Change, by: &ResourceId, world: &World<'_>) -> Result<(), ObserveError> {
    match change {
        Change::Content { path, after, .. } => lay_content(path, after, by, world)?,
        Change::Metadata { path, after, .. } => {
            let content = world.planned_content(path);
            let entry = with_metadata(world.entry(path)?.value, after.clone());
            world.lay_entry(by, path.clone(), entry, content);
        }
        Change::Account { before, after } => {
            lay_account(before.as_ref(), after.as_ref(), by, world);
            lay_members(before.as_ref(), after.as_ref(), by, world)?;
        }
        Change::Packages(transaction) => {
            for moved in &transaction.moves {
                let entry = moved.after.as_ref().map(|state| PackageEntry {
                    name: moved.name.clone(),
                    version: Some(state.version.clone().unwrap_or_default()),
                    broken: false,
                    hold: state.hold,
                });
                world.lay_package(by, &moved.name, entry);
            }
        }
        Change::Unit { name, before, after, .. } => {
            let mut entry = world.unit(name)?.value;
            entry.exists = true;
            entry.active = after.active;
            if !before.active {
                entry.started_at = None;
            }
            let enablement = match (after.masked, after.enabled) {
                (true, _) => "masked",
                (false, true) => "enabled",
                (false, false) => "disabled",
            };
            if after.masked != before.masked || after.enabled != before.enabled {
                enablement.clone_into(&mut entry.enablement);
            }
            world.lay_unit(by, entry);
        }
        Change::Act(Act::Run(_) | Act::React { .. } | Act::ReloadManager { .. } | Act::Wait(_)) => {
        }
    }
    Ok(())
}

fn lay_content(
    path: &RemotePath,
    after: &Content,
    by: &ResourceId,
    world: &World<'_>,
) -> Result<(), ObserveError> {
    let metadata = world.entry(path)?.value.metadata().cloned().unwrap_or(Metadata {
        owner: String::from("root"),
        group: String::from("root"),
        mode: 0o644,
    });
    let (entry, content) = match after {
        Content::Absent | Content::Other => (Entry::Absent, None),
        Content::File(id) => (Entry::File { size: id.size, metadata }, Some(*id)),
        Content::Link(target) => (Entry::Link { target: target.clone(), metadata }, None),
        Content::Folder => (Entry::Folder { metadata }, None),
    };
    let exists = entry != Entry::Absent;
    world.lay_entry(by, path.clone(), entry, content);
    if let Some(name) = unit_of(path) {
        let mut unit = world.unit(&name)?.value;
        unit.exists = exists;
        world.lay_unit(by, unit);
    }
    Ok(())
}

/// The unit that a path is the file of.
fn unit_of(path: &RemotePath) -> Option<String> {
    let folder = path.parent()?;
    UNIT_FOLDERS
        .iter()
        .any(|candidate| folder.as_path() == std::path::Path::new(candidate))
        .then(|| path.as_path().file_name()?.to_str().map(str::to_owned))
        .flatten()
}

fn with_metadata(entry: Entry, metadata: Metadata) -> Entry {
    match entry {
        Entry::Absent => Entry::Absent,
        Entry::File { size, .. } => Entry::File { size, metadata },
        Entry::Link { target, .. } => Entry::Link { target, metadata },
        Entry::Folder { .. } => Entry::Folder { metadata },
        Entry::Other { .. } => Entry::Other { metadata },
    }
}

/// The mode that useradd gives to a new home: `HOME_MODE`, else what `UMASK` leaves, in
/// `login.defs(5)`.
fn home_mode(world: &World<'_>) -> u32 {
    let settings = world.system().read(&RemotePath::from("/etc/login.defs")).unwrap_or_default();
    let settings = String::from_utf8_lossy(&settings);
    let octal = |name: &str| {
        let words = settings.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut values = words.filter(|words| words.first() == Some(&name));
        values.next().and_then(|words| u32::from_str_radix(words.get(1)?, 8).ok())
    };
    octal("HOME_MODE").unwrap_or_else(|| 0o777 & !octal("UMASK").unwrap_or(0o022))
}

/// Groups have as members who belongs to them.
fn lay_members(
    before: Option<&Account>,
    after: Option<&Account>,
    by: &ResourceId,
    world: &World<'_>,
) -> Result<(), ObserveError> {
    let groups = |account: Option<&Account>| match account {
        Some(Account::User { entry, .. }) => entry.groups.clone(),
        _ => Vec::new(),
    };
    let user = match before.or(after) {
        Some(Account::User { entry, .. }) => &entry.name,
        Some(Account::Group { entry, .. }) if before.is_none() => {
            for member in &entry.members {
                let Some(mut user) = world.user(member)?.value else { continue };
                if !user.groups.contains(&entry.name) {
                    user.groups.push(entry.name.clone());
                    user.groups.sort();
                    world.lay_user(by, member, Some(user));
                }
            }
            return Ok(());
        }
        Some(Account::Group { entry, .. }) if after.is_none() => {
            for mut user in world.users()?.into_values() {
                let before = user.groups.len();
                user.groups.retain(|group| *group != entry.name);
                if user.groups.len() < before {
                    world.lay_user(by, &user.name.clone(), Some(user));
                }
            }
            return Ok(());
        }
        _ => return Ok(()),
    };
    let (left, joined) = (groups(before), groups(after));
    let left = left.iter().filter(|name| !joined.contains(name)).map(|name| (name, false));
    for (name, belongs) in left.chain(joined.iter().map(|name| (name, true))) {
        let Some(mut group) = world.group(name)?.value else { continue };
        if group.members.contains(user) == belongs {
            continue;
        }
        group.members.retain(|member| member != user);
        if belongs {
            group.members.push(user.clone());
        }
        world.lay_group(by, name, Some(group));
    }
    Ok(())
}

fn lay_account(
    before: Option<&Account>,
    after: Option<&Account>,
    by: &ResourceId,
    world: &World<'_>,
) {
    match (before, after) {
        (_, Some(Account::User { entry, home, .. })) => {
            let mut entry = entry.clone();
            if entry.group.is_none() {
                // A new user gets a group of its own name.
                let group = GroupEntry { name: entry.name.clone(), gid: None, members: Vec::new() };
                world.lay_group(by, &entry.name, Some(group));
                entry.group = Some(entry.name.clone());
            }
            if *home == HomeDirectory::Create && before.is_none() {
                let metadata = Metadata {
                    owner: entry.name.clone(),
                    group: entry.group.clone().unwrap_or_else(|| entry.name.clone()),
                    mode: home_mode(world),
                };
                let folder = Entry::Folder { metadata };
                world.lay_entry(by, RemotePath::new(&entry.home), folder, None);
            }
            let name = entry.name.clone();
            world.lay_user(by, &name, Some(entry));
        }
        (Some(Account::User { entry, .. }), None) => {
            world.lay_user(by, &entry.name, None);
            if matches!(before, Some(Account::User { home: HomeDirectory::Remove, .. })) {
                world.lay_entry(by, RemotePath::new(&entry.home), Entry::Absent, None);
            }
            if entry.group.as_deref() == Some(&entry.name) {
                world.lay_group(by, &entry.name, None);
            }
        }
        (_, Some(Account::Group { entry, .. })) => {
            world.lay_group(by, &entry.name, Some(entry.clone()));
        }
        (Some(Account::Group { entry, .. }), None) => world.lay_group(by, &entry.name, None),
        (None, None) => {}
    }
}
