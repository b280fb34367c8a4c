//! The agent: beside the files, it compares a host with its graph and makes the changes.
//!
//! It speaks with the controller over its standard input and output and with nobody else. It
//! plans the whole graph first, in the predicted world; in an apply every step is planned again
//! at its turn, and does nothing that the plan did not list or announce. When the connection ends
//! it finishes what is in hand and stops.

mod act;
mod apply;
mod contents;
mod environment;
mod journal;
mod output;
mod plan;
mod recorder;
mod show;
mod steps;
mod sweep;
mod taking_back;
mod verify;
mod wave;

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::SystemTime;

use act::Actuator;
use apply::Applier;
use contents::{Piece, Store};
use journal::{
    Holder, Journal, Lock, NotLocked, Objects, PastJournal, Purpose, Records, StateFolder, boot_id,
    by_debtor, past_runs, try_lock_account,
};
use output::Output;
use plan::Planner;
use recorder::Recorder;
use steps::Steps;

use crate::graph::{Graph, Node, Work};
use crate::kind::{Actor, Declared, Restore};
use crate::report::RunInfo;
use crate::resource::ResourceId;
use crate::wire::{self, AddedNode, CutOff, FromAgent, Hello, MAGIC, Notes, PlanOptions, ToAgent};
use crate::world::process::Identity;
use crate::world::{Digests, Host, facts};

/// Pieces of contents that may wait between the connection and whoever takes them in.
const PIECES: usize = 8;

/// What the agent's process was told from outside.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// The user who logged in, where it is not the one that the agent runs as (sudo).
    pub login: Option<String>,
    /// Where its program lies.
    pub program: PathBuf,
    /// The wall clock at the start.
    pub now: Option<SystemTime>,
    /// Where records are kept, if it is not the usual place.
    pub state: Option<PathBuf>,
    /// Called before and after each line of the journal: for tests of crashes.
    pub on_journal: Option<fn()>,
}

/// Something that ends the agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The connection to the controller broke.
    #[error("the connection to the controller broke: {0}")]
    Connection(#[from] io::Error),
    /// The program is not what its name says.
    #[error("this program is damaged: its name is the digest of another one")]
    Damaged,
    /// The host could not be looked at.
    #[error("{0}")]
    Observe(#[from] crate::world::ObserveError),
    /// What outlives a run cannot be read or kept.
    #[error("{0}")]
    Record(String),
}

/// Serves one run; ends when the controller says so or is gone.
pub fn serve(
    input: impl Read + Send + 'static,
    output: impl Write + Send + 'static,
    start: &Start,
) -> Result<(), AgentError> {
    let program = own_digest(&start.program)?;
    // Whatever is made here and says nothing else is readable, as after a login.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let output = Arc::new(Output::new(Box::new(output)));
    let host = match (digests_of(&start.program), start.now) {
        (Some(file), Some(now)) => Host::remembering(Digests::new(file, now)),
        _ => Host::default(),
    };
    greet(&output, program)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (pieces, incoming) = mpsc::sync_channel(PIECES);
    let (control, orders) = mpsc::channel();
    let reader_stop = Arc::clone(&stop);
    std::thread::spawn(move || {
        listen(input, &pieces, &control, &reader_stop);
        reader_stop.store(true, Ordering::Relaxed);
    });
    if let Some(now) = start.now {
        sweep::sweep(&start.program, now);
    }
    let store = Store::new(Arc::clone(&output), incoming);
    let state = match &start.state {
        Some(folder) => StateFolder::at(folder),
        None => StateFolder::of(&host.own_identity()?),
    }
    .watched_by(start.on_journal);
    let mut session = Session { host: &host, store: &store, output: &output, stop: &stop, state };
    let result = session.run(&orders, start);
    if let Err(error) = &result {
        // The connection may be what failed.
        let _ = output.send(&FromAgent::Fatal(error.to_string()));
    }
    result
}

/// The digest of the program that runs, which has to be its name if that is a digest: then
/// converge has put it there, and it has been damaged since, or on its way.
fn own_digest(program: &Path) -> Result<String, AgentError> {
    // In pieces: filling megabytes of new memory takes longer than hashing them.
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(std::fs::File::open("/proc/self/exe")?)?;
    let digest = hasher.finalize().to_string();
    let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if sweep::is_digest(name) && name != digest { Err(AgentError::Damaged) } else { Ok(digest) }
}

/// Where digests of files are remembered: in the agent's state folder, where its program lies too
/// unless programs are not run from there. Nowhere for a program that was started by hand.
fn digests_of(program: &Path) -> Option<PathBuf> {
    let folder = program.parent().filter(|folder| folder.ends_with("agent"))?;
    Some(folder.with_file_name("digests"))
}

/// Magic, identity and facts, in one write.
fn greet(output: &Output, program: String) -> Result<(), AgentError> {
    let hello = FromAgent::Hello(Hello {
        build: wire::BUILD.to_owned(),
        program,
        facts: wire::Facts { json: facts::gather(Path::new("/")).to_string() },
    });
    let mut bytes = MAGIC.to_vec();
    bytes.extend(wire::encode(&hello).map_err(|error| io::Error::other(error.to_string()))?);
    Ok(output.raw(&bytes)?)
}

/// Takes messages apart until the controller is gone.
fn listen(
    mut input: impl Read,
    pieces: &mpsc::SyncSender<Piece>,
    control: &mpsc::Sender<ToAgent>,
    stop: &AtomicBool,
) {
    loop {
        let sent = match wire::read_frame(&mut input) {
            Ok(ToAgent::Content { bytes, last }) => pieces.send(Piece::Bytes(bytes, last)).is_ok(),
            Ok(ToAgent::NoContent { reason }) => pieces.send(Piece::Missing(reason)).is_ok(),
            // Contents of what is in hand are still taken in.
            Ok(ToAgent::Stop) => {
                stop.store(true, Ordering::Relaxed);
                true
            }
            Err(_) => return,
            Ok(order) => control.send(order).is_ok(),
        };
        if !sent {
            return;
        }
    }
}

struct Session<'a> {
    host: &'a Host,
    store: &'a Store,
    output: &'a Arc<Output>,
    stop: &'a AtomicBool,
    /// Where records are kept.
    state: StateFolder,
}

/// What a run is about.
enum Subject {
    /// What is declared.
    Declared(Arc<Graph>),
    /// What was before a run.
    Before { run: String, force: bool },
}

/// How a round of planning and applying ended.
enum Round {
    /// It is over.
    Over,
    /// All of it is to be done once more, lock included.
    Again,
}

impl Session<'_> {
    fn run(&mut self, orders: &mpsc::Receiver<ToAgent>, start: &Start) -> Result<(), AgentError> {
        let login = match &start.login {
            Some(name) => self.host.identity(name)?,
            None => self.host.own_identity()?,
        };
        let (subject, options) = match orders.recv() {
            Ok(ToAgent::Plan { graph, options }) => (Subject::Declared(graph), options),
            Ok(ToAgent::Undo { run, force, options }) => (Subject::Before { run, force }, options),
            Ok(ToAgent::Past { run }) => return self.tell_past(run.as_deref()),
            _ => return Ok(()),
        };
        while let Round::Again = self.round(orders, &login, &subject, &options)? {
            self.host.forget();
        }
        Ok(())
    }

    /// Takes the host's lock and those of the accounts that are acted for, all or none; says who
    /// has one otherwise.
    fn lock(&self, graph: &Graph, run: &RunInfo) -> Result<Option<Vec<Lock>>, AgentError> {
        let failed = |what: &str, error: &io::Error| {
            AgentError::Record(format!("{}: {what}: {error}", self.state.path().display()))
        };
        let held = |holder: Option<Box<Holder>>, account: Option<String>| {
            let holder = holder.map(|holder| holder.run);
            self.output.send(&FromAgent::Held { holder, account })
        };
        let mut locks = Vec::new();
        match self.state.try_lock(run) {
            Ok(lock) => locks.push(lock),
            Err(NotLocked::Held(holder)) => return Ok(held(holder, None).map(|()| None)?),
            Err(NotLocked::Failed(error)) => {
                return Err(failed("its lock cannot be taken", &error));
            }
        }
        let own = rustix::process::geteuid().as_raw();
        let accounts: BTreeSet<&String> =
            graph.nodes.iter().filter_map(|node| node.become_user.as_ref()).collect();
        for name in accounts {
            // One that is yet to come has run nothing.
            let Ok(account) = self.host.identity(name) else { continue };
            if account.uid == own || own != 0 {
                continue;
            }
            match try_lock_account(&account, run) {
                Ok(lock) => locks.extend(lock),
                Err(NotLocked::Held(holder)) => {
                    return Ok(held(holder, Some(name.clone())).map(|()| None)?);
                }
                Err(NotLocked::Failed(error)) => {
                    return Err(failed(&format!("the lock of {name} cannot be taken"), &error));
                }
            }
        }
        Ok(Some(locks))
    }

    fn round(
        &self,
        orders: &mpsc::Receiver<ToAgent>,
        login: &Identity,
        subject: &Subject,
        options: &PlanOptions,
    ) -> Result<Round, AgentError> {
        let empty = Arc::new(Graph::default());
        let declared = match subject {
            Subject::Declared(graph) => graph,
            Subject::Before { .. } => &empty,
        };
        let mut locks = Vec::new();
        if options.lock {
            match self.lock(declared, &options.run)? {
                Some(taken) => locks = taken,
                None => return Ok(await_again(orders)),
            }
        }
        let records = Records::read(&self.state);
        let mut graph = declared.clone();
        let mut run = options.run.clone();
        let (added, purpose, scope) = match subject {
            Subject::Declared(_) => {
                let scope = records.scope(&run);
                let stale = match records.unreadable {
                    None => taking_back::prune(&graph, &scope),
                    Some(_) => Vec::new(),
                };
                (stale, Purpose::Converge, scope)
            }
            Subject::Before { run: before, force } => {
                let (added, info) = self.what_undoes(before, *force)?;
                // Its records are those of what it takes back.
                if let Some(info) = info {
                    run = RunInfo { id: run.id, who: run.who, begun: run.begun, ..info };
                }
                (added, Purpose::Undo(before.clone()), records.scope(&run))
            }
        };
        if !added.is_empty() {
            let told = added.iter().map(|node| AddedNode {
                id: node.id.to_string(),
                at: node.at.clone(),
                play: node.play,
            });
            self.output.send(&FromAgent::Added(told.collect()))?;
            Arc::make_mut(&mut graph).nodes.extend(added);
        }
        let running = if options.lock { None } else { self.state.holder() };
        let notes = Notes {
            cut_off: records.cut_off.iter().filter(|_| running.is_none()).map(cut_off).collect(),
            unreadable: records.unreadable.clone(),
            running: running.map(|holder| holder.run),
            cannot: graph.nodes.iter().filter_map(cannot).collect(),
        };
        let steps = Steps::of(&graph);
        let actors = self.actors(&graph, login)?;
        let units = services(&graph);
        if !units.is_empty() {
            // One question for all; a failure shows where a unit is really needed.
            let _ = self.host.prefetch_units(&units);
        }
        let planner = Planner {
            host: self.host,
            graph: &graph,
            steps: &steps,
            store: self.store,
            actors: &actors,
            diff: options.diff,
            untrusted: options.untrusted,
            owed: by_debtor(&scope.owed),
            boot: boot_id(),
        };
        let plan = planner.plan_all(|nodes| self.output.send(&FromAgent::Planned(nodes)))?;
        // Before the controller hears of the end, which may be the agent's own.
        self.host.remember();
        self.output.send(&FromAgent::PlanDone(notes))?;
        self.store.settle()?;
        let mut ended = vec![None; graph.nodes.len()];
        let mut records = Some(records);
        let mut journal: Option<Mutex<Journal>> = None;
        let actuator = Actuator {
            host: self.host,
            store: self.store,
            login,
            stop: self.stop,
            accounts: Mutex::default(),
        };
        let mut round = Round::Over;
        while let Ok(order) = orders.recv() {
            match order {
                ToAgent::Apply { play } => {
                    if let Some(records) = records.take() {
                        let services = reacting(&graph);
                        let purpose = purpose.clone();
                        let begun = Journal::create(&self.state, records, &run, purpose, services);
                        journal = Some(Mutex::new(begun.map_err(|error| {
                            AgentError::Record(format!(
                                "{}: the run's journal cannot be kept, so nothing was changed: \
                                 {error}",
                                self.state.path().display()
                            ))
                        })?));
                    }
                    let Some(journal) = &journal else { continue };
                    let applier = Applier {
                        planner: &planner,
                        plan: &plan,
                        actuator: &actuator,
                        output: self.output,
                        stop: self.stop,
                        recorder: &Recorder::new(&planner, journal),
                    };
                    let failed = applier.apply_play(play, &mut ended)?;
                    self.output.send(&FromAgent::PlayDone { failed })?;
                }
                ToAgent::Finish => {
                    let differs = planner.verify(&ended);
                    if let Some(journal) = journal.take() {
                        let mut journal = opened(journal);
                        if !differs.is_empty() {
                            journal.fail();
                        }
                        journal.finish(differs.is_empty()).map_err(|error| {
                            AgentError::Record(format!("the run's journal: {error}"))
                        })?;
                    }
                    self.output.send(&FromAgent::Finished { differs })?;
                }
                ToAgent::Release => {
                    locks.clear();
                    round = await_again(orders);
                    break;
                }
                _ => {}
            }
        }
        if let Some(journal) = journal.take() {
            // The controller has ended the run, or is gone: what was not come to is not done.
            let mut journal = opened(journal);
            journal.fail();
            let _ = journal.finish(false);
        }
        drop(locks);
        Ok(round)
    }

    /// The nodes that take a run back, and what that run was.
    fn what_undoes(
        &self,
        run: &str,
        force: bool,
    ) -> Result<(Vec<Node>, Option<RunInfo>), AgentError> {
        let failed = |what: &str| AgentError::Record(format!("{run}: {what}"));
        let (journals, unreadable) = past_runs(&self.state, |id| id == run)
            .map_err(|error| failed(&format!("its journal cannot be read: {error}")))?;
        if let Some(what) = unreadable.first() {
            return Err(failed(what));
        }
        // A host that the run did not change has nothing to take back.
        let Some(journal) = journals.first() else { return Ok((Vec::new(), None)) };
        let objects =
            self.state.open("objects", false).ok().map(|folder| Arc::new(Objects::new(folder)));
        let nodes = taking_back::undo(journal, force, objects.as_deref());
        if let Some(objects) = objects {
            self.store.also_from(objects);
        }
        Ok((nodes, Some(journal.header.run.clone())))
    }

    fn tell_past(&self, run: Option<&str>) -> Result<(), AgentError> {
        let running = self.state.holder().map(|holder| holder.run.id);
        let (journals, unreadable) = past_runs(&self.state, |id| run.is_none_or(|run| run == id))
            .map_err(|error| {
            AgentError::Record(format!("{}: {error}", self.state.path().display()))
        })?;
        for journal in journals {
            let mut past = journal.past(running.as_ref() == Some(&journal.header.run.id));
            if run.is_none() {
                // Differences are told of one run at a time.
                past.resources.iter_mut().for_each(|resource| resource.changes.clear());
            }
            self.output.send(&FromAgent::Past(vec![past]))?;
        }
        Ok(self.output.send(&FromAgent::PastDone { unreadable })?)
    }

    /// As whom the graph's nodes act. A user that does not exist yet is taken by its name.
    fn actors(
        &self,
        graph: &Graph,
        login: &Identity,
    ) -> Result<HashMap<Option<String>, Actor>, AgentError> {
        let groups = crate::world::System::groups(self.host)?;
        let group_name = |gid: u32| {
            groups
                .values()
                .find(|group| group.gid == Some(gid))
                .map_or_else(|| gid.to_string(), |group| group.name.clone())
        };
        let actor = |identity: &Identity| Actor {
            user: identity.name.clone(),
            group: group_name(identity.gid),
            root: identity.uid == 0,
        };
        let mut actors = HashMap::from([(None, actor(login))]);
        for name in graph.nodes.iter().filter_map(|node| node.become_user.as_ref()) {
            let key = Some(name.clone());
            actors.entry(key).or_insert_with(|| match self.host.identity(name) {
                Ok(identity) => actor(&identity),
                Err(_) => Actor { user: name.clone(), group: name.clone(), root: false },
            });
        }
        Ok(actors)
    }
}

fn opened(journal: Mutex<Journal>) -> Journal {
    journal.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Waits until the controller wants all of it done once more.
fn await_again(orders: &mpsc::Receiver<ToAgent>) -> Round {
    loop {
        match orders.recv() {
            Ok(ToAgent::Again) => return Round::Again,
            Ok(_) => {}
            Err(_) => return Round::Over,
        }
    }
}

/// What no change can bring back.
fn cannot(node: &Node) -> Option<String> {
    match &node.work {
        Work::Restore(Restore { cannot, only_shown: false, .. }) if !cannot.is_empty() => {
            Some(format!("{}: cannot be taken back: {}", node.id, cannot.join(", ")))
        }
        _ => None,
    }
}

fn cut_off(journal: &PastJournal) -> CutOff {
    CutOff { run: journal.header.run.clone(), in_hand: journal.in_hand() }
}

/// The services that react in a graph, as they are declared.
fn reacting(graph: &Graph) -> Vec<(ResourceId, Declared)> {
    let reacting = graph.nodes.iter().filter_map(|node| match &node.work {
        Work::Reaction { declared, .. } => Some((node.id.clone(), declared.clone())),
        _ => None,
    });
    reacting.collect()
}

/// The units that the graph's services are about.
fn services(graph: &Graph) -> Vec<String> {
    use crate::kind::Claim;
    let mut units: Vec<String> = graph
        .nodes
        .iter()
        .filter_map(|node| match &node.work {
            Work::Resource(declared) => Some(declared.kind().footprint()),
            _ => None,
        })
        .flat_map(|footprint| footprint.writes.into_iter().chain(footprint.reads))
        .filter_map(|claim| match claim {
            Claim::Unit(name) => Some(name),
            _ => None,
        })
        .collect();
    units.sort();
    units.dedup();
    units
}
