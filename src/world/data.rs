//! A host made from data, for tests: what stands where, who there is, and what probes answer.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer};

use super::{
    Answer, ContentId, Entry, GroupEntry, Metadata, ObserveError, PackageEntry, Probe, RemotePath,
    System, UnitEntry, UserEntry,
};

/// How many symbolic links are followed before a path counts as a loop, as Linux does.
const LINK_LIMIT: u32 = 40;

/// Folders that are always there.
const USUAL_FOLDERS: [&str; 7] = ["/etc", "/home", "/root", "/run", "/tmp", "/usr", "/var"];

/// A host made from data, for tests of whatever looks at a host through [`System`].
///
/// Its form in YAML is described in `tests/kinds.rs`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Written")]
pub struct FakeSystem {
    /// What stands where; a path's folders are always there.
    paths: BTreeMap<RemotePath, FakePath>,
    users: Arc<BTreeMap<String, UserEntry>>,
    groups: Arc<BTreeMap<String, GroupEntry>>,
    packages: Arc<BTreeMap<String, PackageEntry>>,
    units: BTreeMap<String, UnitEntry>,
    probes: IndexMap<String, Answer>,
}

/// What stands at a path of a [`FakeSystem`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakePath {
    /// What it is.
    pub node: FakeNode,
    /// Who may do what.
    pub metadata: Metadata,
}

/// What a path of a [`FakeSystem`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FakeNode {
    /// A regular file with its bytes.
    File(Arc<[u8]>),
    /// A directory.
    Folder,
    /// A symbolic link and where it points, as written.
    Link(RemotePath),
    /// A device, a socket, a pipe.
    Special,
}

impl FakeNode {
    /// The mode that it has if none is given.
    fn default_mode(&self) -> u32 {
        match self {
            FakeNode::File(_) | FakeNode::Special => 0o644,
            FakeNode::Folder => 0o755,
            FakeNode::Link(_) => 0o777,
        }
    }
}

/// A host with the usual folders and a root user, and nothing else.
impl Default for FakeSystem {
    fn default() -> Self {
        Written::default().into()
    }
}

impl FakeSystem {
    /// Puts something at a path, owned by `owner` and `group`, with its folders above.
    pub fn put(&mut self, path: &RemotePath, node: FakeNode, owner: &str, group: &str) {
        let mode = node.default_mode();
        let metadata = Metadata { owner: owner.to_owned(), group: group.to_owned(), mode };
        self.place(path, FakePath { node, metadata });
    }

    /// Changes owner, group and mode of what stands at a path; nothing happens if nothing does.
    pub fn set_metadata(&mut self, path: &RemotePath, metadata: Metadata) {
        if let Some(standing) = self.paths.get_mut(path) {
            standing.metadata = metadata;
        }
    }

    /// Removes a path and all below it.
    pub fn remove(&mut self, path: &RemotePath) {
        self.paths.retain(|standing, _| !standing.is_within(path));
    }

    /// Sets an entry of `passwd(5)`; the host chooses numbers and groups that it does not have.
    pub fn put_user(&mut self, mut entry: UserEntry) {
        let users = Arc::make_mut(&mut self.users);
        entry.uid.get_or_insert_with(|| free(users.values().filter_map(|user| user.uid)));
        let uid = entry.uid;
        let group = entry.group.get_or_insert_with(|| entry.name.clone()).clone();
        users.insert(entry.name.clone(), entry);
        if !self.groups.contains_key(&group) {
            self.put_group(GroupEntry { name: group, gid: uid, members: Vec::new() });
        }
    }

    /// Removes a user.
    pub fn remove_user(&mut self, name: &str) {
        Arc::make_mut(&mut self.users).remove(name);
    }

    /// Sets an entry of `group(5)`; the host chooses a number if it has none.
    pub fn put_group(&mut self, mut entry: GroupEntry) {
        let groups = Arc::make_mut(&mut self.groups);
        entry.gid.get_or_insert_with(|| free(groups.values().filter_map(|group| group.gid)));
        groups.insert(entry.name.clone(), entry);
    }

    /// Removes a group.
    pub fn remove_group(&mut self, name: &str) {
        Arc::make_mut(&mut self.groups).remove(name);
    }

    /// Sets what the package manager knows of a package.
    pub fn put_package(&mut self, entry: PackageEntry) {
        Arc::make_mut(&mut self.packages).insert(entry.name.clone(), entry);
    }

    /// Makes the package manager forget a package.
    pub fn remove_package(&mut self, name: &str) {
        Arc::make_mut(&mut self.packages).remove(name);
    }

    /// Sets what the service manager says of a unit.
    pub fn put_unit(&mut self, entry: UnitEntry) {
        self.units.insert(entry.name.clone(), entry);
    }

    /// Sets what a probe answers: its arguments joined by blanks, a trailing `*` takes any rest.
    pub fn put_probe(&mut self, line: &str, answer: Answer) {
        self.probes.insert(line.to_owned(), answer);
    }

    fn place(&mut self, path: &RemotePath, standing: FakePath) {
        for folder in path.ancestors() {
            self.paths
                .entry(folder)
                .or_insert_with(|| FakePath { node: FakeNode::Folder, metadata: root(0o755) });
        }
        self.paths.insert(path.clone(), standing);
    }

    /// What stands at a path, with the links above it followed, not the last one.
    fn look(&self, path: &RemotePath) -> Option<(RemotePath, &FakePath)> {
        let mut path = path.clone();
        for _ in 0..LINK_LIMIT {
            if let Some(standing) = self.paths.get(&path) {
                return Some((path, standing));
            }
            // The nearest folder that stands by this name; if it is a link, go on at its target.
            let above = path.ancestors().find(|folder| self.paths.contains_key(folder))?;
            let FakeNode::Link(target) = &self.paths.get(&above)?.node else {
                return None;
            };
            let rest = path.as_path().strip_prefix(above.as_path()).ok()?.to_owned();
            path = above.parent()?.join(target.as_path()).join(rest);
        }
        None
    }

    /// The bytes of a file; links are followed.
    fn file(&self, path: &RemotePath) -> Result<Arc<[u8]>, ObserveError> {
        let mut at = path.clone();
        let mut kind = io::ErrorKind::Other;
        for _ in 0..LINK_LIMIT {
            match self.look(&at) {
                Some((_, FakePath { node: FakeNode::File(bytes), .. })) => return Ok(bytes.clone()),
                Some((link, FakePath { node: FakeNode::Link(target), .. })) => {
                    let folder = link.parent().unwrap_or_else(|| RemotePath::new("/"));
                    at = folder.join(target.as_path());
                }
                Some(_) => {
                    kind = io::ErrorKind::InvalidInput;
                    break;
                }
                None => {
                    kind = io::ErrorKind::NotFound;
                    break;
                }
            }
        }
        Err(ObserveError::new(format!("reading {path}"), kind.into()))
    }
}

impl System for FakeSystem {
    fn entry(&self, path: &RemotePath) -> Result<Entry, ObserveError> {
        let Some((_, FakePath { node, metadata })) = self.look(path) else {
            return Ok(Entry::Absent);
        };
        let metadata = metadata.clone();
        Ok(match node {
            FakeNode::File(bytes) => Entry::File { size: bytes.len() as u64, metadata },
            FakeNode::Folder => Entry::Folder { metadata },
            FakeNode::Link(target) => Entry::Link { target: target.clone(), metadata },
            FakeNode::Special => Entry::Other { metadata },
        })
    }

    fn read(&self, path: &RemotePath) -> Result<Vec<u8>, ObserveError> {
        Ok(self.file(path)?.to_vec())
    }

    fn may_write(&self, folder: &RemotePath, user: &str) -> Result<bool, ObserveError> {
        let found = self.look(folder);
        Ok(found.is_some_and(|(_, standing)| {
            let metadata = &standing.metadata;
            user == "root" || metadata.owner == user || metadata.mode & 0o002 != 0
        }))
    }

    fn identify(&self, path: &RemotePath) -> Result<ContentId, ObserveError> {
        Ok(ContentId::of(&self.file(path)?))
    }

    fn list(&self, path: &RemotePath) -> Result<Vec<RemotePath>, ObserveError> {
        match self.look(path) {
            Some((at, FakePath { node: FakeNode::Folder, .. })) => Ok(self
                .paths
                .keys()
                .filter(|standing| standing.parent().as_ref() == Some(&at))
                .filter_map(|standing| Some(path.join(standing.as_path().file_name()?)))
                .collect()),
            _ => Err(ObserveError::new(
                format!("listing {path}"),
                io::ErrorKind::NotADirectory.into(),
            )),
        }
    }

    fn users(&self) -> Result<Arc<BTreeMap<String, UserEntry>>, ObserveError> {
        Ok(self.users.clone())
    }

    fn groups(&self) -> Result<Arc<BTreeMap<String, GroupEntry>>, ObserveError> {
        Ok(self.groups.clone())
    }

    fn packages(&self) -> Result<Arc<BTreeMap<String, PackageEntry>>, ObserveError> {
        Ok(self.packages.clone())
    }

    fn unit(&self, name: &str) -> Result<UnitEntry, ObserveError> {
        Ok(self.units.get(name).cloned().unwrap_or_else(|| UnitEntry::unknown(name)))
    }

    fn probe(&self, probe: &Probe) -> Result<Answer, ObserveError> {
        let line = probe.argv.join(" ");
        self.probes
            .iter()
            .find(|(wanted, _)| match wanted.strip_suffix('*') {
                Some(beginning) => line.starts_with(beginning),
                None => **wanted == line,
            })
            .map(|(_, answer)| answer.clone())
            .ok_or_else(|| {
                let doing = format!("running `{line}`, for which the test's world has no answer");
                ObserveError::new(doing, io::ErrorKind::NotFound.into())
            })
    }
}

fn root(mode: u32) -> Metadata {
    Metadata { owner: String::from("root"), group: String::from("root"), mode }
}

/// The number that a host would choose for somebody new.
fn free(taken: impl Iterator<Item = u32>) -> u32 {
    taken.filter(|number| (1000..60_000).contains(number)).max().map_or(1000, |highest| highest + 1)
}

/// The form in YAML.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    paths: IndexMap<String, WrittenPath>,
    users: IndexMap<String, WrittenUser>,
    groups: IndexMap<String, WrittenGroup>,
    packages: IndexMap<String, WrittenPackage>,
    units: IndexMap<String, WrittenUnit>,
    probes: IndexMap<String, WrittenAnswer>,
}

/// What stands at a path, as tests write it: the text of a file, or a mapping.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum WrittenPath {
    /// The text of a file.
    Text(String),
    /// What it is, and what is not as usual about it.
    Detailed(WrittenDetails),
}

/// What it is, and what is not as usual about it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WrittenDetails {
    /// The text of a file.
    pub text: Option<String>,
    /// Where a symbolic link points.
    pub link: Option<RemotePath>,
    /// Whether it is a special file.
    pub special: bool,
    /// User; root if none.
    pub owner: Option<String>,
    /// Group; root if none.
    pub group: Option<String>,
    /// In octal; 0644, folders 0755.
    #[serde(deserialize_with = "octal")]
    pub mode: Option<u32>,
}

impl WrittenPath {
    /// What stands there; a path with a trailing slash is a folder.
    pub fn read(self, path: &str) -> FakePath {
        let details = match self {
            WrittenPath::Text(text) => WrittenDetails { text: Some(text), ..Default::default() },
            WrittenPath::Detailed(details) => details,
        };
        let node = match details {
            WrittenDetails { link: Some(target), .. } => FakeNode::Link(target),
            WrittenDetails { special: true, .. } => FakeNode::Special,
            _ if path.ends_with('/') => FakeNode::Folder,
            WrittenDetails { text, .. } => {
                FakeNode::File(text.unwrap_or_default().into_bytes().into())
            }
        };
        let mode = details.mode.unwrap_or_else(|| node.default_mode());
        let metadata = Metadata {
            owner: details.owner.unwrap_or_else(|| String::from("root")),
            group: details.group.unwrap_or_else(|| String::from("root")),
            mode,
        };
        FakePath { node, metadata }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenUser {
    uid: Option<u32>,
    group: Option<String>,
    groups: Vec<String>,
    home: Option<String>,
    shell: Option<String>,
    comment: String,
    password_hash: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenGroup {
    Number(u32),
    Detailed {
        gid: Option<u32>,
        #[serde(default)]
        members: Vec<String>,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenPackage {
    Version(Scalar),
    Detailed {
        version: Option<Scalar>,
        #[serde(default)]
        broken: bool,
        #[serde(default)]
        hold: bool,
    },
}

/// A version or a mode may look like a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Integer(u64),
    Decimal(f64),
}

impl Scalar {
    fn text(self) -> String {
        match self {
            Scalar::Text(text) => text,
            Scalar::Integer(number) => number.to_string(),
            Scalar::Decimal(number) => number.to_string(),
        }
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenUnit {
    exists: bool,
    active: bool,
    enablement: String,
    can_reload: bool,
    needs_daemon_reload: bool,
    started_at: Option<u64>,
}

impl Default for WrittenUnit {
    fn default() -> Self {
        Self {
            exists: true,
            active: false,
            enablement: String::from("disabled"),
            can_reload: false,
            needs_daemon_reload: false,
            started_at: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenAnswer {
    Code(i32),
    Detailed {
        #[serde(default)]
        code: i32,
        #[serde(default)]
        output: String,
        #[serde(default)]
        error: String,
    },
}

/// Modes are written as in state files; `0644` and `644` mean the same.
fn octal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let Some(mode) = Option::<Scalar>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let mode = mode.text();
    u32::from_str_radix(&mode, 8)
        .map(Some)
        .map_err(|error| serde::de::Error::custom(format!("the mode {mode}: {error}")))
}

impl From<Written> for FakeSystem {
    fn from(written: Written) -> Self {
        let mut system = Self {
            paths: BTreeMap::new(),
            users: Arc::default(),
            groups: Arc::default(),
            packages: Arc::default(),
            units: BTreeMap::new(),
            probes: IndexMap::new(),
        };
        for folder in USUAL_FOLDERS {
            let standing = FakePath { node: FakeNode::Folder, metadata: root(0o755) };
            system.place(&RemotePath::new(folder), standing);
        }
        for (name, group) in written.groups {
            let (gid, members) = match group {
                WrittenGroup::Number(gid) => (Some(gid), Vec::new()),
                WrittenGroup::Detailed { gid, members } => (gid, members),
            };
            system.put_group(GroupEntry { name, gid, members });
        }
        let mut users = written.users;
        users.entry(String::from("root")).or_insert_with(|| WrittenUser {
            uid: Some(0),
            home: Some(String::from("/root")),
            shell: Some(String::from("/bin/bash")),
            ..Default::default()
        });
        for (name, user) in users {
            system.put_user(UserEntry {
                uid: user.uid,
                group: user.group,
                groups: user.groups,
                home: user.home.unwrap_or_else(|| format!("/home/{name}")),
                shell: user.shell.unwrap_or_else(|| String::from("/bin/sh")),
                comment: user.comment,
                password_hash: user.password_hash,
                name,
            });
        }
        for (name, package) in written.packages {
            let (version, broken, hold) = match package {
                WrittenPackage::Version(version) => (Some(version.text()), false, false),
                WrittenPackage::Detailed { version, broken, hold } => {
                    (version.map(Scalar::text), broken, hold)
                }
            };
            system.put_package(PackageEntry { name, version, broken, hold });
        }
        for (name, unit) in written.units {
            system.put_unit(UnitEntry {
                name,
                exists: unit.exists,
                active: unit.active,
                enablement: unit.enablement,
                can_reload: unit.can_reload,
                needs_daemon_reload: unit.needs_daemon_reload,
                started_at: unit.started_at,
            });
        }
        for (line, answer) in written.probes {
            let answer = match answer {
                WrittenAnswer::Code(code) => {
                    Answer { code, output: String::new(), error: String::new() }
                }
                WrittenAnswer::Detailed { code, output, error } => Answer { code, output, error },
            };
            system.put_probe(&line, answer);
        }
        for (path, standing) in written.paths {
            let standing = standing.read(&path);
            system.place(&RemotePath::new(path.trim_end_matches('/')), standing);
        }
        system
    }
}
