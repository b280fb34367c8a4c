use std::collections::HashMap;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::contents::Store;
use super::environment::environment_of;
use super::wave::Wave;
use crate::change::files::{Backup, Numbers, Place, SYNC_FILE_SYSTEM, Staged, Unsynced};
use crate::change::{self, Act, ApplyError, Change, Command, Content, Execution, Run, Runner};
use crate::graph::{Node, NodeIndex, Work};

use crate::world::process::{self, Identity, Job, acting_as};
use crate::world::{Answer, Host, Metadata, RemotePath};

/// Most contents that hold a file open, and perhaps a folder, while they are staged: a process may
/// have 1,024 of them.
const OPEN_LIMIT: usize = 400;
/// Most contents that are staged before they are synced and made visible, all at once: every sync
/// costs some milliseconds.
const STAGE_LIMIT: usize = 20_000;
/// Most bytes of them: until then what they replace takes up its room, too.
const STAGE_BYTES: u64 = 256 << 20;
/// How long a command may take, if nothing else is declared.
pub(super) const COMMAND_PATIENCE: Duration = Duration::from_secs(3600);
/// How long a check of contents may take, if nothing else is declared.
const CHECK_PATIENCE: Duration = Duration::from_secs(60);

/// Makes changes on the real host.
pub(super) struct Actuator<'a> {
    pub(super) host: &'a Host,
    pub(super) store: &'a Store,
    /// The user who logged in.
    pub(super) login: &'a Identity,
    /// The run is to end.
    pub(super) stop: &'a AtomicBool,
    /// Held while users and groups are changed: gpasswd(1) reads a group before it locks the file,
    /// and takes back what another program has made of it meanwhile.
    pub(super) accounts: Mutex<()>,
}

/// A content that is ready to become visible.
struct Ready {
    node: NodeIndex,
    staged: Staged,
}

impl Actuator<'_> {
    pub(super) fn identity(&self, node: &Node) -> Result<Identity, String> {
        match &node.become_user {
            None => Ok(self.login.clone()),
            Some(name) => self.host.identity(name).map_err(|error| error.to_string()),
        }
    }

    /// Makes the changes of one node, in their order.
    pub(super) fn make(&self, node: &Node, changes: &[Change]) -> Result<(), String> {
        let is_file =
            |change: &Change| matches!(change, Change::Content { .. } | Change::Metadata { .. });
        let mut rest = changes;
        while let Some(first) = rest.first() {
            let files = rest.iter().take_while(|change| is_file(change)).count();
            if files > 0 {
                let (now, later) = rest.split_at(files);
                let mut wave = Wave::default();
                wave.add(0, vec![(0, now.to_vec())], Vec::new());
                if let Some(message) = self.make_wave(&wave, &|_| node).remove(&0) {
                    return Err(message);
                }
                rest = later;
                continue;
            }
            self.make_one(node, first)?;
            // What was read before may be different now.
            self.host.forget();
            rest = &rest[1..];
        }
        Ok(())
    }

    fn make_one(&self, node: &Node, change: &Change) -> Result<(), String> {
        let environment = self.environment(node)?;
        let timeout = Self::timeout(node);
        let identity = self.identity(node)?;
        let runner =
            HostRunner { host: self.host, identity: &identity, environment: &environment, timeout };
        let say = |error: ApplyError| error.to_string();
        match change {
            Change::Content { .. } | Change::Metadata { .. } => Ok(()),
            Change::Account { before, after } => {
                let _alone = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
                change::apply_account(before.as_ref(), after.as_ref(), &runner).map_err(say)
            }
            Change::Packages(transaction) => {
                change::apply_packages(transaction, &runner).map_err(say)
            }
            Change::Unit { name, before, after, stop } => {
                change::apply_unit(name, before, after, stop, &runner).map_err(say)
            }
            Change::Act(Act::React { unit, reaction, check, stop }) => {
                change::react(unit, *reaction, check.as_deref(), stop, &runner).map_err(say)
            }
            Change::Act(Act::ReloadManager { user }) => {
                change::reload_manager(user.as_deref(), &runner).map_err(say)
            }
            Change::Act(Act::Run(command)) => self.run(node, command),
            Change::Act(Act::Wait(wait)) => self.wait(node, wait),
        }
    }

    /// The environment of whatever a node runs: its file's variables, then its own.
    pub(super) fn environment(&self, node: &Node) -> Result<Vec<(String, String)>, String> {
        environment_of(node, self.host).map_err(|error| error.to_string())
    }

    /// How long one attempt of a node may take.
    fn timeout(node: &Node) -> Option<Duration> {
        node.timeout.map(Duration::from_millis)
    }

    fn run(&self, node: &Node, command: &Command) -> Result<(), String> {
        let argv = match &command.run {
            Run::Shell(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
            Run::Program(argv) => argv.clone(),
        };
        let job = Job {
            argv,
            cwd: command.cwd.clone(),
            environment: self.environment(node)?,
            stdin: command.stdin.clone().map(String::into_bytes),
            timeout: Self::timeout(node).or(Some(COMMAND_PATIENCE)),
        };
        let answer =
            process::run(&job, &self.identity(node)?).map_err(|error| error.to_string())?;
        let ok = if command.ok_codes.is_empty() {
            answer.code == 0
        } else {
            command.ok_codes.contains(&answer.code)
        };
        if ok {
            Ok(())
        } else if node.sensitive == Some(true) {
            Err(format!("the command ended with code {} (its output is hidden)", answer.code))
        } else {
            Err(ended_badly("the command", &answer))
        }
    }

    /// Puts the contents of a wave in place; says what failed, by node.
    pub(super) fn make_wave<'n>(
        &self,
        wave: &Wave,
        node_of: &dyn Fn(NodeIndex) -> &'n Node,
    ) -> HashMap<NodeIndex, String> {
        let mut failed = HashMap::new();
        let mut unsynced = Unsynced::default();
        let mut ready: Vec<Ready> = Vec::new();
        // Of those: how many files and folders are held open, and what they come to.
        let (mut open, mut folders, mut bytes) = (0, 0, 0);
        let mut early = EarlySync::default();
        // Contents that one command checks all at once.
        let mut checked: HashMap<(String, Option<String>), Vec<Ready>> = HashMap::new();
        for (index, changes) in wave.work() {
            let node = node_of(*index);
            // What is checked has to be complete first; a large tree is written in parts.
            let size = if check_of(node).is_some() { usize::MAX } else { OPEN_LIMIT };
            for part in parts(changes, size) {
                let size: u64 = part.iter().map(bytes_of).sum();
                let further = folders_of(part);
                if ready.len() + part.len() > STAGE_LIMIT
                    || folders + further > OPEN_LIMIT
                    || bytes + size > STAGE_BYTES
                {
                    let early = std::mem::take(&mut early);
                    settle(std::mem::take(&mut ready), early, &mut unsynced, &mut failed);
                    (open, folders, bytes) = (0, 0, 0);
                } else if open + part.len() > OPEN_LIMIT {
                    let_go(&mut ready, &mut failed);
                    open = 0;
                }
                bytes += size;
                folders += further;
                let staged = self
                    .identity(node)
                    .and_then(|identity| {
                        acting_as(&identity, || self.stage(part, &mut unsynced))
                            .map_err(|error| error.to_string())?
                    })
                    .and_then(|staged| {
                        let begun = early.wrote(size, staged.last());
                        begun.map(|()| staged).map_err(|error| error.to_string())
                    })
                    .and_then(|staged| self.check_candidates(node, staged));
                let staged = match staged {
                    Ok(staged) => staged,
                    Err(message) => {
                        failed.insert(*index, message);
                        break;
                    }
                };
                open += staged.len();
                let staged = staged.into_iter().map(|staged| Ready { node: *index, staged });
                match check_of(node).filter(|check| !check.contains("%s")) {
                    Some(check) => checked
                        .entry((check.to_owned(), node.become_user.clone()))
                        .or_default()
                        .extend(staged),
                    None => ready.extend(staged),
                }
            }
        }
        settle(ready, early, &mut unsynced, &mut failed);
        for ((check, _), group) in checked {
            self.settle_checked(&check, group, node_of, &mut unsynced, &mut failed);
        }
        if let Err(error) = unsynced.sync() {
            for (index, _) in wave.work() {
                failed.entry(*index).or_insert_with(|| error.to_string());
            }
        }
        failed
    }

    /// Does at once what can be done at once, and stages file contents.
    fn stage(&self, changes: &[Change], unsynced: &mut Unsynced) -> Result<Vec<Staged>, String> {
        let mut staged = Vec::new();
        let mut with_content: Vec<&RemotePath> = Vec::new();
        for change in changes {
            let result = match change {
                Change::Content { path, after, .. } => {
                    with_content.push(path);
                    let wanted = changes.iter().find_map(|other| match other {
                        Change::Metadata { path: other, after, .. } if other == path => Some(after),
                        _ => None,
                    });
                    self.stage_content(path, after, wanted, &mut staged, unsynced)
                }
                Change::Metadata { path, after, .. } if !with_content.contains(&path) => self
                    .numbers(after)
                    .and_then(|numbers| Place::open(path)?.set_numbers(numbers))
                    .map_err(|error| format!("setting owner and mode of {path}: {error}")),
                _ => Ok(()),
            };
            result?;
            // Only neighbours share a path; this keeps large trees linear.
            if with_content.len() > 4 {
                with_content.drain(..with_content.len() - 4);
            }
        }
        Ok(staged)
    }

    fn stage_content(
        &self,
        path: &RemotePath,
        after: &Content,
        metadata: Option<&Metadata>,
        staged: &mut Vec<Staged>,
        unsynced: &mut Unsynced,
    ) -> Result<(), String> {
        let (doing, result) = match after {
            Content::File(id) => {
                let result = (|| {
                    let numbers = metadata.map(|metadata| self.numbers(metadata)).transpose()?;
                    let neighbour = staged.last().and_then(|last: &Staged| last.beside(path));
                    let place = neighbour.map_or_else(|| Place::open(path), Ok)?;
                    let write = |file: &mut std::fs::File| self.store.write_to(id, file);
                    staged.push(Staged::write(place, numbers, write)?);
                    Ok(())
                })();
                ("writing", result)
            }
            Content::Folder => {
                let result = (|| {
                    let numbers = match metadata {
                        Some(metadata) => self.numbers(metadata)?,
                        None => Numbers {
                            uid: rustix::process::geteuid().as_raw(),
                            gid: rustix::process::getegid().as_raw(),
                            mode: 0o755,
                        },
                    };
                    unsynced.add(Place::open(path)?.make_folder(numbers)?)
                })();
                ("making the directory", result)
            }
            Content::Link(target) => {
                let result = (|| {
                    let owner = metadata
                        .map(|metadata| self.numbers(metadata))
                        .transpose()?
                        .map(|numbers| (numbers.uid, numbers.gid));
                    unsynced.add(Place::open(path)?.make_link(target.as_path(), owner)?)
                })();
                ("making the link", result)
            }
            Content::Absent | Content::Other => {
                let removed = Place::open(path).and_then(|place| place.remove());
                ("removing", removed.and_then(|settled| unsynced.add(settled)))
            }
        };
        result.map_err(|error: io::Error| format!("{doing} {path}: {error}"))
    }

    fn numbers(&self, metadata: &Metadata) -> io::Result<Numbers> {
        let look = |error: crate::world::ObserveError| io::Error::other(error.to_string());
        Ok(Numbers {
            uid: self.host.user_number(&metadata.owner).map_err(look)?,
            gid: self.host.group_number(&metadata.group).map_err(look)?,
            mode: metadata.mode,
        })
    }

    /// Checks candidates one by one (`%s`) before anything of the node becomes visible.
    fn check_candidates(
        &self,
        node: &Node,
        mut staged: Vec<Staged>,
    ) -> Result<Vec<Staged>, String> {
        let Some(check) = check_of(node).filter(|check| check.contains("%s")) else {
            return Ok(staged);
        };
        for one in &mut staged {
            let path = one.path().clone();
            let candidate =
                one.candidate().map_err(|error| format!("a candidate of {path}: {error}"))?;
            let line = check.replace("%s", &crate::ssh::for_sh(&candidate.display().to_string()));
            self.check(node, &line, check)?;
        }
        Ok(staged)
    }

    fn check(&self, node: &Node, line: &str, shown: &str) -> Result<(), String> {
        let job = Job {
            argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()],
            environment: self.environment(node)?,
            timeout: Self::timeout(node).or(Some(CHECK_PATIENCE)),
            ..Job::default()
        };
        let answer =
            process::run(&job, &self.identity(node)?).map_err(|error| error.to_string())?;
        if answer.code == 0 { Ok(()) } else { Err(ended_badly(&format!("`{shown}`"), &answer)) }
    }

    /// Makes a group visible, checks all of it once, and puts it back if the check fails.
    fn settle_checked<'n>(
        &self,
        check: &str,
        group: Vec<Ready>,
        node_of: &dyn Fn(NodeIndex) -> &'n Node,
        unsynced: &mut Unsynced,
        failed: &mut HashMap<NodeIndex, String>,
    ) {
        let Some(first) = group.first().map(|ready| ready.node) else { return };
        let nodes: Vec<NodeIndex> = group.iter().map(|ready| ready.node).collect();
        let mut backups: Vec<Backup> = Vec::new();
        let mut result = Ok(());
        for ready in group {
            let made = ready.staged.sync().and_then(|()| {
                backups.push(ready.staged.keep_before()?);
                unsynced.add(ready.staged.commit()?)
            });
            if let Err(error) = made {
                result = Err(error.to_string());
                break;
            }
        }
        let result = result.and_then(|()| self.check(node_of(first), check, check));
        match result {
            Ok(()) => backups.into_iter().for_each(Backup::discard),
            Err(mut message) => {
                for backup in backups.into_iter().rev() {
                    if let Err(error) = backup.restore() {
                        message.push_str(&format!("\nputting back what stood there: {error}"));
                    }
                }
                failed.extend(nodes.into_iter().map(|node| (node, message.clone())));
            }
        }
    }
}

/// Parts of about `size` changes; neighbours about one path stay together.
fn parts(mut rest: &[Change], size: usize) -> impl Iterator<Item = &[Change]> {
    let path_of = |change: &Change| match change {
        Change::Content { path, .. } | Change::Metadata { path, .. } => Some(path.clone()),
        _ => None,
    };
    std::iter::from_fn(move || {
        let mut end = size.min(rest.len());
        if end == 0 {
            return None;
        }
        while end < rest.len() && path_of(&rest[end]) == path_of(&rest[end - 1]) {
            end += 1;
        }
        let (part, left) = rest.split_at(end);
        rest = left;
        Some(part)
    })
}

/// The command that checks a node's contents before they go live.
pub(super) fn check_of(node: &Node) -> Option<&str> {
    match &node.work {
        Work::Resource(declared) => declared.kind().validate(),
        _ => None,
    }
}

fn bytes_of(change: &Change) -> u64 {
    match change {
        Change::Content { after: Content::File(id), .. } => id.size,
        _ => 0,
    }
}

/// How many folders are held open for a part: neighbours share theirs.
fn folders_of(part: &[Change]) -> usize {
    let parents = part.iter().filter_map(|change| match change {
        Change::Content { path, after: Content::File(_), .. } => path.parent(),
        _ => None,
    });
    let mut last = None;
    parents.filter(|parent| last.replace(parent.clone()) != Some(parent.clone())).count()
}

/// Closes the files of staged contents.
fn let_go(ready: &mut Vec<Ready>, failed: &mut HashMap<NodeIndex, String>) {
    ready.retain_mut(|one| match one.staged.let_go() {
        Ok(()) => true,
        Err(error) => {
            failed.insert(one.node, format!("writing {}: {error}", one.staged.path()));
            false
        }
    });
}

/// Makes staged contents durable, then visible.
fn settle(
    ready: Vec<Ready>,
    early: EarlySync,
    unsynced: &mut Unsynced,
    failed: &mut HashMap<NodeIndex, String>,
) {
    if ready.is_empty() {
        return;
    }
    if let Err(error) = early.finish() {
        failed.extend(ready.into_iter().map(|one| (one.node, error.to_string())));
        return;
    }
    let all_at_once = ready.len() >= SYNC_FILE_SYSTEM;
    if all_at_once
        && let Err(error) = Staged::sync_file_systems(ready.iter().map(|one| &one.staged))
    {
        failed.extend(ready.into_iter().map(|one| (one.node, error.to_string())));
        return;
    }
    let show = |one: Ready| {
        let path = one.staged.path().clone();
        let synced = if all_at_once { Ok(()) } else { one.staged.sync() };
        (one.node, path, synced.and_then(|()| one.staged.commit()))
    };
    for (node, path, made) in on_all_cores(ready, show) {
        if let Err(error) = made.and_then(|settled| unsynced.add(settled)) {
            failed.insert(node, format!("writing {path}: {error}"));
        }
    }
}

/// What `work` makes of many things, in their order.
fn on_all_cores<T: Send, R: Send>(mut all: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    /// Fewer are not worth a thread.
    const EACH: usize = 256;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let each = all.len().div_ceil(threads).max(EACH);
    let mut parts = Vec::new();
    while all.len() > each {
        let rest = all.split_off(each);
        parts.push(std::mem::replace(&mut all, rest));
    }
    let one_by_one = |part: Vec<T>| part.into_iter().map(&work).collect::<Vec<R>>();
    std::thread::scope(|scope| {
        let others: Vec<_> =
            parts.into_iter().map(|part| scope.spawn(|| one_by_one(part))).collect();
        let last = one_by_one(all);
        let mut results: Vec<R> = Vec::new();
        for other in others {
            match other.join() {
                Ok(part) => results.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results.extend(last);
        results
    })
}

/// Begins to make contents durable while further ones are still written, so that less is left to
/// wait for at the end.
#[derive(Default)]
struct EarlySync {
    written: u64,
    running: Option<std::thread::JoinHandle<io::Result<()>>>,
}

impl EarlySync {
    /// After how many bytes.
    const EVERY: u64 = 8 << 20;

    /// So many bytes were written, `last` among them.
    fn wrote(&mut self, bytes: u64, last: Option<&Staged>) -> io::Result<()> {
        self.written += bytes;
        if self.written < Self::EVERY {
            return Ok(());
        }
        if self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            return Ok(());
        }
        self.finish_running()?;
        if let Some(last) = last {
            let file_system = last.file_system()?;
            self.running = Some(std::thread::spawn(move || file_system.sync()));
            self.written = 0;
        }
        Ok(())
    }

    fn finish_running(&mut self) -> io::Result<()> {
        match self.running.take().map(std::thread::JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }

    fn finish(mut self) -> io::Result<()> {
        self.finish_running()
    }
}

/// What a program said when it failed, cut to its last lines.
pub(super) fn ended_badly(what: &str, answer: &Answer) -> String {
    let said = if answer.error.trim().is_empty() { &answer.output } else { &answer.error };
    let lines: Vec<&str> = said.trim_end().lines().collect();
    let last = lines[lines.len().saturating_sub(20)..].join("\n");
    let mut text = format!("{what} ended with code {}", answer.code);
    if !last.is_empty() {
        text.push('\n');
        for line in last.lines() {
            change::sanitize(line, &mut text);
            text.push('\n');
        }
        text.pop();
    }
    text
}

/// Runs the tools that changes are made with.
struct HostRunner<'a> {
    host: &'a Host,
    /// As whom tools run that do not name a user.
    identity: &'a Identity,
    environment: &'a [(String, String)],
    /// Bound of the whole attempt, where one is declared.
    timeout: Option<Duration>,
}

impl Runner for HostRunner<'_> {
    fn run(&self, execution: &Execution) -> Result<Answer, ApplyError> {
        let identity = match &execution.user {
            Some(user) => self.host.identity(user),
            None => Ok(self.identity.clone()),
        };
        let identity = identity.map_err(|error| ApplyError::new(error.to_string()))?;
        let mut environment = self.environment.to_vec();
        environment.extend(execution.environment.iter().cloned());
        let job = Job {
            argv: execution.argv.clone(),
            cwd: execution.cwd.clone(),
            environment,
            stdin: execution.stdin.clone(),
            timeout: match (execution.timeout, self.timeout) {
                (Some(own), Some(declared)) => Some(own.min(declared)),
                (own, declared) => own.or(declared),
            },
        };
        process::run(&job, &identity).map_err(|error| {
            ApplyError::new(format!("running `{}`: {error}", execution.argv.join(" ")))
        })
    }
}
