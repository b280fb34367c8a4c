//! Each kind's plans as data: declared state + observed world → expected changes.
//!
//! Every file `tests/kinds/KIND.yml` is a list of cases. A case:
//!
//! ```yaml
//! - name: a missing file is made            # a sentence; shown when the case fails
//!   world:                                  # what is observed; all parts may be left out
//!     paths:                                # folders above a path are there by themselves, and so
//!                                           # are /etc /home /root /run /tmp /usr /var
//!       /etc/motd: "Hello\n"                # a file, root root 0644, with this text
//!       /etc/shop.env: { text: "A=1\n", owner: shop, group: shop, mode: 0600 }
//!       /etc/empty/: {}                     # a trailing slash makes a folder (root root 0755)
//!       /srv/www/: { owner: www-data, mode: 0750 }
//!       /srv/current: { link: releases/1 }  # a symbolic link
//!       /dev/null: { special: true }
//!     users:                                # root is always there; a group of the user's name too
//!       shop: { uid: 1001, group: shop, groups: [www-data], home: /home/shop, shell: /bin/sh,
//!               comment: The shop, password_hash: "!" }      # each may be left out
//!     groups: { www-data: { gid: 33, members: [] } }         # `www-data: 33` says the same
//!     packages: { nginx: 1.22-1, old: { version: null }, half: { version: 1, broken: true, hold: true } }
//!     units:
//!       nginx.service: { active: true, enablement: enabled, can_reload: true,
//!                        needs_daemon_reload: false, started_at: 1000 }   # `exists: true` by itself
//!     probes:                               # arguments joined by blanks; a trailing `*` takes any rest
//!       nginx -t: 0                         # the exit code alone, or:
//!       apt-get -s *: { code: 0, output: "Inst nginx …", error: "" }
//!   actor: shop                             # as whom; root if left out
//!   environment: { LANG: C.UTF-8 }          # of whatever it runs
//!   earlier:                                # states planned before it, whose changes are laid over the world
//!     - user: shop
//!   pending:                                # opaque changes before it: everything, packages, or paths
//!     command:build: everything
//!     package:nginx: packages
//!     command:make: [/srv/app]
//!   spared: [/etc/conf.d/kept]              # declared paths, which purge and delete leave alone
//!   state:                                  # as in a state file; contents, templates and local files
//!     file: /etc/motd                       # are given as their text, local folders as a mapping of
//!     content: "Hello\n"                    # relative paths written like `paths` above
//!     mode: 0644
//!   changes:                                # all of them, in order; left out: none
//!     - file: /etc/motd                     # this text is to stand there …
//!       text: "Hello\n"
//!     - metadata: /etc/motd                 # … with this owner, group and mode
//!       is: root root 0644
//!   depends_on: [command:build]             # left out: none
//!   assuming: [package:nginx]               # left out: none
//!   because: is not root                    # a part of the reason, where the plan gives one
//!   error: does not exist                   # or, instead: a part of the error's sentence or help
//! ```
//!
//! How the other changes are written:
//!
//! ```yaml
//!     - folder: /srv
//!     - link: /srv/current
//!       target: releases/2
//!     - remove: /etc/old
//!     - user: shop                          # a new user: all that is set
//!       new: { uid: 1001, group: shop, groups: [www-data], home: /home/shop, shell: /bin/sh,
//!              comment: The shop, password_hash: "!", system: true, create_home: true }
//!     - user: shop                          # a changed one: what differs
//!       set: { shell: /bin/bash }
//!     - user: shop                          # one that goes; `remove_home: true` if that goes too
//!       removed: {}
//!     - group: www-data                     # the same three: new, set, removed; gid members system
//!       new: { gid: 33 }
//!     - packages:                           # NAME: BEFORE -> AFTER, then what is said of it; `?` is a
//!         - "nginx: none -> 1.22-1"         # version not known yet
//!         - "nginx-common: none -> 1.22-1 (comes along)"
//!         - "vim: 9.0 -> purged"            # or `none`, if its configuration stays
//!         - "curl: 7.1 -> 7.1 held"
//!       recommends: false                   # only if false; only if they are set: release: …,
//!       refresh_lists: true                 # refresh_lists: true, debconf: [[package, question, type, value]]
//!     - unit: nginx.service                 # what differs: active enabled masked
//!       set: { active: true }
//!     - react: nginx.service                # how: reload, restart, restart_cannot_reload
//!       how: reload
//!       check: nginx -t                     # only if there is one
//!     - reload_manager: true
//!     - run: make all                       # a list if it is run without a shell; only if they are set:
//!       cwd: /srv                           # cwd stdin undo, and ok_codes if they are not [0]
//!     - wait: { port: "127.0.0.1:8000" }    # or path, http, command
//!       within: 300s
//!       every: 1s
//! ```
//!
//! Beyond what it says, each case shows that every `before` is what stood there, that the
//! resource survives the wire, that the same plan twice is equal, and that its changes converge:
//! once they are applied to the world, and also once they are only laid over it, a second plan
//! has none left (acts aside, which only happen; nothing is applied where the plan waits).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use converge::change::{
    Account, Act, Change, Command, Content, HomeDirectory, PackageManager, PackageMove,
    PackageTransaction, Reaction, Run, Stop, UnitState, WaitFor,
};
use converge::kind::{
    Actor, Contents, Declared, Planned, Planning, SPECS, Shape, Spec, TreeEntry, TreeNode, spec,
};
use converge::resource::ResourceId;
use converge::world::data::{FakeNode, FakeSystem, WrittenPath};
use converge::world::{
    ContentId, Entry, GroupEntry, Metadata, Opaque, PackageEntry, RemotePath, System, UserEntry,
    World,
};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    world: FakeSystem,
    #[serde(default)]
    actor: Option<String>,
    #[serde(default)]
    environment: IndexMap<String, String>,
    #[serde(default)]
    earlier: Vec<Map<String, Value>>,
    #[serde(default)]
    pending: IndexMap<String, Touches>,
    #[serde(default)]
    spared: Vec<RemotePath>,
    state: Map<String, Value>,
    #[serde(default)]
    changes: Vec<Value>,
    #[serde(default)]
    depends_on: Vec<String>,
    #[serde(default)]
    assuming: Vec<String>,
    #[serde(default)]
    because: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Touches {
    Word(String),
    Paths(Vec<RemotePath>),
}

/// Common keys that examples use; they are no part of a kind.
const COMMON: [&str; 4] = ["watch", "restart_on", "require", "unless"];

#[test]
fn every_case_plans_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kinds");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut failures = Vec::new();
    let mut count = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "yml")) {
        let text = std::fs::read_to_string(file).unwrap();
        let cases: Vec<Case> = serde_yaml::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let stem = file.file_stem().unwrap().to_string_lossy();
        for case in cases {
            count += 1;
            if let Err(failure) = case.check() {
                failures.push(format!("{stem}: {}\n{failure}", case.name));
            }
        }
    }
    assert!(count > 0, "no cases found");
    assert!(
        failures.is_empty(),
        "{} of {count} failed\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

#[test]
fn every_example_is_a_state_of_its_kind() {
    for spec in SPECS {
        let states: Vec<Map<String, Value>> = serde_yaml::from_str(spec.example)
            .unwrap_or_else(|error| panic!("the example of {}: {error}", spec.name));
        assert!(!states.is_empty(), "the example of {} is empty", spec.name);
        let shows =
            |state: &Map<String, Value>| state.keys().next().is_some_and(|kind| kind == spec.name);
        assert!(states.iter().any(shows), "the example of {} is of another kind", spec.name);
        for state in states {
            let memory = Memory::default();
            if let Err(failure) = declare(&state, &memory) {
                panic!("the example of {}: {failure}", spec.name);
            }
        }
    }
}

impl Case {
    fn check(&self) -> Result<(), String> {
        let memory = Memory::default();
        let mut system = self.world.clone();
        let world = self.prepare(&system, &memory)?;
        let (id, mut declared) = declare(&self.state, &memory)?;
        declared.spare(|| self.spared.clone());
        let planned = match (self.plan(&id, &declared, &world, &memory), &self.error) {
            (Err(error), Some(wanted)) if error.contains(wanted.as_str()) => return Ok(()),
            (Err(error), Some(wanted)) => {
                return Err(format!("the error is to say `{wanted}` and says:\n{error}"));
            }
            (Err(error), None) => return Err(format!("it fails: {error}")),
            (Ok(planned), Some(wanted)) => {
                let changes = shown(&written_all(&planned.changes, &memory));
                return Err(format!("it is to fail with `{wanted}` and plans:\n{changes}"));
            }
            (Ok(planned), None) => planned,
        };
        let again = self.plan(&id, &declared, &world, &memory)?;
        if again != planned {
            return Err(format!("two plans differ:\n{planned:#?}\n{again:#?}"));
        }
        let changes = written_all(&planned.changes, &memory);
        if changes != self.changes {
            return Err(format!(
                "expected:\n{}\nplanned:\n{}",
                shown(&self.changes),
                shown(&changes)
            ));
        }
        same("depends_on", &self.depends_on, &planned.depends_on)?;
        same("assuming", &self.assuming, &planned.assuming)?;
        if let Some(part) = &self.because
            && !planned.because.as_ref().is_some_and(|because| because.contains(part))
        {
            return Err(format!("because: expected {part}, planned {:?}", planned.because));
        }

        lay_over(&id, &declared, &planned.changes, &world)?;
        let waits = !planned.depends_on.is_empty();
        if !waits {
            self.converges("laid over", &id, &declared, &world, &memory)?;
        }
        if self.earlier.is_empty() && self.pending.is_empty() {
            for change in &planned.changes {
                apply(change, &mut system, &memory)?;
            }
            let world = World::observed(&system);
            self.converges("applied", &id, &declared, &world, &memory)?;
        }
        Ok(())
    }

    /// The world with what is planned before, and what is pending, laid over.
    fn prepare<'a>(&self, system: &'a FakeSystem, memory: &Memory) -> Result<World<'a>, String> {
        let world = World::observed(system);
        for state in &self.earlier {
            let (id, mut declared) = declare(state, memory)?;
            declared.spare(|| self.spared.clone());
            let planned = self.plan(&id, &declared, &world, memory)?;
            lay_over(&id, &declared, &planned.changes, &world)?;
        }
        for (id, touches) in &self.pending {
            let opaque = match touches {
                Touches::Word(word) if word == "everything" => Opaque::Everything,
                Touches::Word(word) if word == "packages" => Opaque::EverythingButPackages,
                Touches::Word(word) => return Err(format!("`pending: {word}` means nothing")),
                Touches::Paths(paths) => Opaque::Paths(paths.clone()),
            };
            world.lay_opaque(&ResourceId::new(id.as_str()), opaque);
        }
        Ok(world)
    }

    fn plan(
        &self,
        id: &ResourceId,
        declared: &Declared,
        world: &World<'_>,
        memory: &Memory,
    ) -> Result<Planned, String> {
        let user = self.actor.clone().unwrap_or_else(|| String::from("root"));
        let root = user == "root";
        let group = user.clone();
        let actor = Actor { user, group, root };
        let environment: Vec<(String, String)> =
            self.environment.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut planning = Planning::new(id, actor, environment.clone(), world, memory);
        match declared.kind().plan(&mut planning) {
            Ok(()) => Ok(planning.finish()),
            Err(error) => {
                Err(format!("{error}\nhelp: {}", error.help.as_deref().unwrap_or("none")))
            }
        }
    }

    fn converges(
        &self,
        how: &str,
        id: &ResourceId,
        declared: &Declared,
        world: &World<'_>,
        memory: &Memory,
    ) -> Result<(), String> {
        let planned = self
            .plan(id, declared, world, memory)
            .map_err(|error| format!("once its changes are {how}, it fails: {error}"))?;
        let left: Vec<Value> = planned
            .changes
            .iter()
            .filter(|change| !matches!(change, Change::Act(_)))
            .map(|change| written(change, memory))
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(format!(
            "once its changes are {how}, there is still something to do:\n{}",
            shown(&left)
        ))
    }
}

fn same(what: &str, expected: &[String], planned: &[ResourceId]) -> Result<(), String> {
    let planned: Vec<_> = planned.iter().map(ToString::to_string).collect();
    if planned == expected {
        return Ok(());
    }
    Err(format!("{what} is to be {expected:?} and is {planned:?}"))
}

fn shown(changes: &[Value]) -> String {
    serde_yaml::to_string(changes).unwrap()
}

/// Contents in memory.
#[derive(Default)]
struct Memory(Mutex<HashMap<ContentId, Arc<[u8]>>>);

impl Contents for Memory {
    fn bytes(&self, id: &ContentId) -> io::Result<Arc<[u8]>> {
        self.0.lock().unwrap().get(id).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn keep(&self, bytes: Vec<u8>) -> ContentId {
        let id = ContentId::of(&bytes);
        self.0.lock().unwrap().insert(id, bytes.into());
        id
    }
}

/// Makes a resource from a state as a state file has it, and sends it over the wire.
fn declare(state: &Map<String, Value>, memory: &Memory) -> Result<(ResourceId, Declared), String> {
    let (kind, key) = state.iter().next().ok_or("the state is empty")?;
    let spec = spec(kind).ok_or_else(|| format!("no kind is called {kind}"))?;
    let arguments = normalised(spec, state, memory)?;
    let declared = Declared::new(kind, arguments).map_err(|error| error.to_string())?;
    let sent = postcard::to_stdvec(&declared).map_err(|error| error.to_string())?;
    let received: Declared = postcard::from_bytes(&sent).map_err(|error| error.to_string())?;
    if received != declared {
        return Err(format!("the wire makes {received:?} of {declared:?}"));
    }
    let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
    Ok((ResourceId::new(format!("{kind}:{key}")), declared))
}

/// What `lang` does with arguments, without its messages.
fn normalised(
    spec: &Spec,
    state: &Map<String, Value>,
    memory: &Memory,
) -> Result<Map<String, Value>, String> {
    let mut arguments = Map::new();
    for (index, (name, value)) in state.iter().enumerate() {
        if index == 0 {
            if spec.name == "command" && value.is_array() {
                arguments.insert(String::from("argv"), value.clone());
                continue;
            }
            let value = shaped(&spec.key.shape, value, memory)?;
            arguments.insert(spec.key.name.to_owned(), value);
            continue;
        }
        if COMMON.contains(&name.as_str()) {
            continue;
        }
        let argument = spec
            .arguments
            .iter()
            .find(|argument| argument.name == name)
            .ok_or_else(|| format!("{} has no argument {name}", spec.name))?;
        let field = match argument.shape {
            Shape::Content | Shape::Template | Shape::LocalFile => "content",
            Shape::LocalFolder => "entries",
            _ => argument.name,
        };
        let value =
            shaped(&argument.shape, value, memory).map_err(|why| format!("{name}: {why}"))?;
        arguments.insert(field.to_owned(), value);
    }
    for argument in spec.arguments.iter().filter(|argument| argument.required) {
        if !state.contains_key(argument.name) {
            return Err(format!("{} needs the argument {}", spec.name, argument.name));
        }
    }
    Ok(arguments)
}

fn shaped(shape: &Shape, value: &Value, memory: &Memory) -> Result<Value, String> {
    let text = || match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(format!("{other} is not a string")),
    };
    Ok(match shape {
        Shape::Text | Shape::Path | Shape::Name | Shape::Principal => Value::String(text()?),
        Shape::Choice(words) => {
            let word = text()?;
            if !words.contains(&word.as_str()) {
                return Err(format!("{word} is none of {words:?}"));
            }
            Value::String(word)
        }
        Shape::Mode => {
            json!(u32::from_str_radix(&text()?, 8).map_err(|error| error.to_string())?)
        }
        Shape::Boolean if !value.is_boolean() => return Err(format!("{value} is not a boolean")),
        Shape::Integer if !value.is_i64() => return Err(format!("{value} is not an integer")),
        Shape::Boolean | Shape::Integer | Shape::Any => value.clone(),
        Shape::Duration => {
            let text = text()?;
            let number = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
            let unit: u64 = match &text[number.len()..] {
                "" | "s" => 1_000,
                "ms" => 1,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                other => return Err(format!("{other} is no unit of time")),
            };
            json!(number.parse::<u64>().map_err(|error| error.to_string())? * unit)
        }
        Shape::List(item) => match value {
            Value::Array(items) => {
                let items: Result<Vec<Value>, String> =
                    items.iter().map(|value| shaped(item, value, memory)).collect();
                Value::Array(items?)
            }
            alone => Value::Array(vec![shaped(item, alone, memory)?]),
        },
        Shape::Mapping(item) => {
            let entries = value.as_object().ok_or_else(|| format!("{value} is not a mapping"))?;
            let entries: Result<Map<String, Value>, String> = entries
                .iter()
                .map(|(name, value)| Ok((name.clone(), shaped(item, value, memory)?)))
                .collect();
            Value::Object(entries?)
        }
        Shape::Content | Shape::Template | Shape::LocalFile => {
            serde_json::to_value(memory.keep(text()?.into_bytes())).unwrap()
        }
        Shape::LocalFolder if value.is_string() => json!([]), // its name, in an example
        Shape::LocalFolder => {
            let paths: IndexMap<String, WrittenPath> =
                serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
            let entries: Vec<TreeEntry> = paths
                .into_iter()
                .map(|(path, standing)| {
                    let standing = standing.read(&path);
                    let entry = match standing.node {
                        FakeNode::File(bytes) => TreeNode::File(memory.keep(bytes.to_vec())),
                        FakeNode::Link(target) => TreeNode::Link(target.to_string()),
                        FakeNode::Folder | FakeNode::Special => TreeNode::Folder,
                    };
                    let path = path.trim_end_matches('/').to_owned();
                    TreeEntry { path, entry, mode: standing.metadata.mode }
                })
                .collect();
            serde_json::to_value(entries).unwrap()
        }
    })
}

/// Lays planned changes over a world, as the agent does.
fn lay_over(
    id: &ResourceId,
    declared: &Declared,
    changes: &[Change],
    world: &World<'_>,
) -> Result<(), String> {
    for change in changes {
        converge::change::lay_over(change, id, world).map_err(|error| error.to_string())?;
    }
    if !changes.is_empty()
        && let Some(opaque) = declared.kind().opaque()
    {
        world.lay_opaque(id, opaque);
    }
    Ok(())
}

/// Does to a host of data what `change` does to a real one; each `before` must stand there.
fn apply(change: &Change, system: &mut FakeSystem, memory: &Memory) -> Result<(), String> {
    match change {
        Change::Content { path, before, after } => {
            let standing = match system.entry(path).unwrap() {
                Entry::Absent => Content::Absent,
                Entry::File { .. } => Content::File(system.identify(path).unwrap()),
                Entry::Link { target, .. } => Content::Link(target),
                Entry::Folder { .. } => Content::Folder,
                Entry::Other { .. } => Content::Other,
            };
            if standing != *before {
                return Err(format!("{path}: before is {before:?}, but it was {standing:?}"));
            }
            let metadata = kept(&system.entry(path).unwrap(), after);
            let node = match after {
                Content::Absent => {
                    if !system.list(path).unwrap_or_default().is_empty() {
                        return Err(format!("{path} is removed while it is not empty"));
                    }
                    system.remove(path);
                    return Ok(());
                }
                Content::File(id) => FakeNode::File(memory.bytes(id).unwrap()),
                Content::Link(target) => FakeNode::Link(target.clone()),
                Content::Folder => FakeNode::Folder,
                Content::Other => return Err(format!("a special file is planned at {path}")),
            };
            let parent = path.parent().unwrap_or_else(|| RemotePath::new("/"));
            if system.entry(&parent).unwrap() == Entry::Absent {
                return Err(format!("{path} is made before its folder"));
            }
            system.put(path, node, &metadata.owner, &metadata.group);
            system.set_metadata(path, metadata);
        }
        Change::Metadata { path, before, after } => {
            let standing = system.entry(path).unwrap();
            if before.is_some() && before.as_ref() != standing.metadata() {
                return Err(format!("{path}: before is {before:?}, but it was {standing:?}"));
            }
            if standing == Entry::Absent {
                return Err(format!("metadata of nothing at {path}"));
            }
            system.set_metadata(path, after.clone());
        }
        Change::Account { before, after } => {
            apply_account(before.as_ref(), after.as_ref(), system)?
        }
        Change::Packages(transaction) => {
            for step in &transaction.moves {
                match package_after(step) {
                    Some(entry) => system.put_package(entry),
                    None => system.remove_package(&step.name),
                }
            }
        }
        Change::Unit { name, after, .. } => {
            let mut entry = system.unit(name).unwrap();
            entry.active = after.active;
            entry.enablement = enablement(*after, &entry.enablement);
            system.put_unit(entry);
        }
        Change::Act(_) => {}
    }
    Ok(())
}

fn apply_account(
    before: Option<&Account>,
    after: Option<&Account>,
    system: &mut FakeSystem,
) -> Result<(), String> {
    match before {
        Some(Account::User { entry, .. })
            if system.users().unwrap().get(&entry.name) != Some(entry) =>
        {
            return Err(format!("before is {entry:?}, which is not what the user was"));
        }
        Some(Account::Group { entry, .. })
            if system.groups().unwrap().get(&entry.name) != Some(entry) =>
        {
            return Err(format!("before is {entry:?}, which is not what the group was"));
        }
        _ => {}
    }
    match (before, after) {
        (_, Some(Account::User { entry, home, .. })) => {
            if *home == HomeDirectory::Create {
                let path = RemotePath::new(&entry.home);
                let group = entry.group.as_deref().unwrap_or(&entry.name);
                system.put(&path, FakeNode::Folder, &entry.name, group);
            }
            system.put_user(entry.clone());
        }
        (_, Some(Account::Group { entry, .. })) => system.put_group(entry.clone()),
        (Some(Account::User { entry, .. }), None) => system.remove_user(&entry.name),
        (Some(Account::Group { entry, .. }), None) => system.remove_group(&entry.name),
        (None, None) => return Err(String::from("an account that never was")),
    }
    Ok(())
}

/// Whom something belongs to until its metadata is set: nobody, so that forgetting it is seen.
fn nobody() -> Metadata {
    Metadata { owner: String::from("nobody"), group: String::from("nogroup"), mode: 0 }
}

/// A new content of the same type keeps the metadata; whatever else is new belongs to nobody.
fn kept(standing: &Entry, after: &Content) -> Metadata {
    match (standing, after) {
        (Entry::File { metadata, .. }, Content::File(_))
        | (Entry::Link { metadata, .. }, Content::Link(_))
        | (Entry::Folder { metadata }, Content::Folder) => metadata.clone(),
        _ => nobody(),
    }
}

fn package_after(step: &PackageMove) -> Option<PackageEntry> {
    let name = step.name.clone();
    let entry = match &step.after {
        Some(state) => PackageEntry {
            name,
            version: Some(state.version.clone().unwrap_or_else(|| String::from("1"))),
            broken: false,
            hold: state.hold,
        },
        None if step.purge => return None,
        None => PackageEntry { name, version: None, broken: false, hold: false },
    };
    Some(entry)
}

fn enablement(after: UnitState, before: &str) -> String {
    match after {
        UnitState { masked: true, .. } => String::from("masked"),
        UnitState { enabled: true, .. }
            if !matches!(before, "masked" | "disabled" | "not-found") =>
        {
            before.to_owned()
        }
        UnitState { enabled: true, .. } => String::from("enabled"),
        _ if matches!(before, "static" | "indirect" | "generated") => before.to_owned(),
        _ => String::from("disabled"),
    }
}

fn written_all(changes: &[Change], memory: &Memory) -> Vec<Value> {
    changes.iter().map(|change| written(change, memory)).collect()
}

/// A change as cases write it.
fn written(change: &Change, memory: &Memory) -> Value {
    match change {
        Change::Content { path, after, .. } => {
            let path = path.to_string();
            match after {
                Content::Absent => json!({ "remove": path }),
                Content::File(id) => {
                    let bytes = memory.bytes(id).unwrap();
                    json!({ "file": path, "text": String::from_utf8_lossy(&bytes) })
                }
                Content::Link(target) => json!({ "link": path, "target": target.to_string() }),
                Content::Folder => json!({ "folder": path }),
                Content::Other => json!({ "special": path }),
            }
        }
        Change::Metadata { path, after: Metadata { owner, group, mode }, .. } => {
            json!({ "metadata": path.to_string(), "is": format!("{owner} {group} {mode:04o}") })
        }
        Change::Account { before, after } => account(before.as_ref(), after.as_ref()),
        Change::Packages(transaction) => packages(transaction),
        Change::Unit { name, before, after, stop } => {
            let mut set = Map::new();
            differing(&mut set, "active", &before.active, &after.active);
            differing(&mut set, "enabled", &before.enabled, &after.enabled);
            differing(&mut set, "masked", &before.masked, &after.masked);
            let mut map = Map::from_iter([
                (String::from("unit"), json!(name)),
                (String::from("set"), Value::Object(set)),
            ]);
            add_stop(&mut map, stop);
            Value::Object(map)
        }
        Change::Act(act) => written_act(act),
    }
}

fn written_act(act: &Act) -> Value {
    match act {
        Act::Run(Command { run, cwd, stdin, ok_codes, undo }) => {
            let run = match run {
                Run::Shell(line) => json!(line),
                Run::Program(arguments) => json!(arguments),
            };
            let mut map = Map::from_iter([(String::from("run"), run)]);
            let cwd = cwd.as_ref().map(ToString::to_string);
            for (name, value) in [("cwd", &cwd), ("stdin", stdin), ("undo", undo)] {
                if let Some(value) = value {
                    map.insert(name.to_owned(), json!(value));
                }
            }
            if ok_codes != &[0] {
                map.insert(String::from("ok_codes"), json!(ok_codes));
            }
            Value::Object(map)
        }
        Act::React { unit, reaction, check, stop } => {
            let how = match reaction {
                Reaction::Reload => "reload",
                Reaction::Restart => "restart",
                Reaction::RestartCannotReload => "restart_cannot_reload",
            };
            let mut map = Map::from_iter([
                (String::from("react"), json!(unit)),
                (String::from("how"), json!(how)),
            ]);
            if let Some(check) = check {
                map.insert(String::from("check"), json!(check));
            }
            add_stop(&mut map, stop);
            Value::Object(map)
        }
        Act::ReloadManager { user: None } => json!({ "reload_manager": true }),
        Act::ReloadManager { user: Some(user) } => json!({ "reload_manager": user }),
        Act::Wait(wait) => {
            let until = match &wait.until {
                WaitFor::Port(address) => json!({ "port": address }),
                WaitFor::Path(path) => json!({ "path": path.to_string() }),
                WaitFor::Http(address) => json!({ "http": address }),
                WaitFor::Command(line) => json!({ "command": line }),
            };
            json!({ "wait": until, "within": duration(wait.within), "every": duration(wait.every) })
        }
    }
}

/// How a service is asked to stop, where that is declared.
fn add_stop(map: &mut Map<String, Value>, stop: &Stop) {
    if let Some(signal) = &stop.signal {
        map.insert(String::from("stop_signal"), json!(signal));
    }
    if let Some(timeout) = stop.timeout {
        map.insert(String::from("stop_timeout"), json!(duration(timeout)));
    }
}

fn duration(milliseconds: u64) -> String {
    if milliseconds.is_multiple_of(1000) {
        format!("{}s", milliseconds / 1000)
    } else {
        format!("{milliseconds}ms")
    }
}

fn differing<T: PartialEq + serde::Serialize>(
    set: &mut Map<String, Value>,
    name: &str,
    before: &T,
    after: &T,
) {
    if before != after {
        set.insert(name.to_owned(), json!(after));
    }
}

fn account(before: Option<&Account>, after: Option<&Account>) -> Value {
    match (before, after) {
        (None, Some(Account::User { entry, system, home })) => {
            let mut new = Map::new();
            let nobody = UserEntry {
                name: entry.name.clone(),
                uid: None,
                group: None,
                groups: Vec::new(),
                home: String::new(),
                shell: String::new(),
                comment: String::new(),
                password_hash: None,
            };
            user_differences(&mut new, &nobody, entry);
            differing(&mut new, "system", &false, system);
            differing(&mut new, "create_home", &false, &(*home == HomeDirectory::Create));
            json!({ "user": entry.name, "new": new })
        }
        (Some(Account::User { entry: before, .. }), Some(Account::User { entry, home, .. })) => {
            let mut set = Map::new();
            user_differences(&mut set, before, entry);
            differing(&mut set, "create_home", &false, &(*home == HomeDirectory::Create));
            json!({ "user": entry.name, "set": set })
        }
        (Some(Account::User { entry, home, .. }), None) => {
            let mut removed = Map::new();
            differing(&mut removed, "remove_home", &false, &(*home == HomeDirectory::Remove));
            json!({ "user": entry.name, "removed": removed })
        }
        (None, Some(Account::Group { entry, system })) => {
            let mut new = Map::new();
            let nobody = GroupEntry { name: entry.name.clone(), gid: None, members: Vec::new() };
            group_differences(&mut new, &nobody, entry);
            differing(&mut new, "system", &false, system);
            json!({ "group": entry.name, "new": new })
        }
        (Some(Account::Group { entry: before, .. }), Some(Account::Group { entry, .. })) => {
            let mut set = Map::new();
            group_differences(&mut set, before, entry);
            json!({ "group": entry.name, "set": set })
        }
        (Some(Account::Group { entry, .. }), None) => json!({ "group": entry.name, "removed": {} }),
        (before, after) => json!({ "odd": format!("{before:?} -> {after:?}") }),
    }
}

fn user_differences(set: &mut Map<String, Value>, before: &UserEntry, after: &UserEntry) {
    differing(set, "uid", &before.uid, &after.uid);
    differing(set, "group", &before.group, &after.group);
    differing(set, "groups", &before.groups, &after.groups);
    differing(set, "home", &before.home, &after.home);
    differing(set, "shell", &before.shell, &after.shell);
    differing(set, "comment", &before.comment, &after.comment);
    differing(set, "password_hash", &before.password_hash, &after.password_hash);
}

fn group_differences(set: &mut Map<String, Value>, before: &GroupEntry, after: &GroupEntry) {
    differing(set, "gid", &before.gid, &after.gid);
    differing(set, "members", &before.members, &after.members);
}

fn packages(transaction: &PackageTransaction) -> Value {
    let PackageTransaction {
        manager: PackageManager::Apt,
        moves,
        recommends,
        release,
        debconf,
        upgrade_all,
        refresh_lists,
    } = transaction;
    let moves: Vec<Value> = moves.iter().map(|step| json!(package_move(step))).collect();
    let mut map = Map::from_iter([(String::from("packages"), Value::Array(moves))]);
    differing(&mut map, "recommends", &true, recommends);
    differing(&mut map, "release", &None, release);
    differing(&mut map, "upgrade_all", &false, upgrade_all);
    differing(&mut map, "refresh_lists", &false, refresh_lists);
    differing(&mut map, "debconf", &Vec::new(), debconf);
    Value::Object(map)
}

fn package_move(step: &PackageMove) -> String {
    let state = |state: &Option<converge::change::PackageState>, none: &str| match state {
        None => none.to_owned(),
        Some(state) => {
            let version = state.version.as_deref().unwrap_or("?");
            format!("{version}{}", if state.hold { " held" } else { "" })
        }
    };
    let before = state(&step.before, "none");
    let after = state(&step.after, if step.purge { "purged" } else { "none" });
    let source = step.source.as_ref().map(|source| format!(" (from {source})")).unwrap_or_default();
    let along = if step.requested { "" } else { " (comes along)" };
    format!("{}: {before} -> {after}{source}{along}", step.name)
}
