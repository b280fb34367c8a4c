//! The agent: beside the files, it compares a host with its graph and makes the changes.
//!
//! It speaks with the controller over its standard input and output and with nobody else. It
//! plans the whole graph first, in the predicted world; in an apply every step is planned again
//! at its turn, and does nothing that the plan did not list or announce. When the connection ends
//! it finishes what is in hand and stops.

mod act;
mod answers;
mod apply;
mod bounds;
mod carry_out;
mod confirm;
mod contents;
mod environment;
mod journal;
mod output;
mod own_program;
mod past;
mod patience;
mod pieces;
mod plan;
mod recorder;
mod repair;
mod show;
mod steps;
mod sweep;
mod switch;
mod taking_back;
mod verify;
mod wait;
mod wave;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::SystemTime;

pub use journal::{next_ledger, past_run};

use act::Actuator;
use apply::Applier;
use confirm::{Confirmation, Confirmations};
use contents::Store;
use journal::{
    Journal, Lock, NotLocked, Purpose, Reacting, Records, RunEnd, StateFolder, boot_id, by_debtor,
    try_lock_account,
};
use output::Output;
use pieces::Piece;
use plan::Planner;
use recorder::Recorder;
use steps::Steps;
pub use switch::{SWITCH, keep_watch};

use crate::graph::{Graph, Node, Work};
use crate::kind::{Actor, Restore};
use crate::report::RunInfo;
use crate::wire::{
    self, AddedNode, Bound, CutOff, FromAgent, HEARTBEAT, Hello, MAGIC, Notes, PlanOptions, ToAgent,
};
use crate::world::process::Identity;
use crate::world::{Digests, Host, facts};

/// Bytes that are read from the controller at once: contents are many small messages.
const INPUT_BUFFER: usize = 256 << 10;

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

/// Serves one run over two streams; ends when the controller says so or is gone.
pub fn serve(input: impl AsFd, output: impl AsFd, start: &Start) -> Result<(), AgentError> {
    let open = |stream: &dyn AsFd| stream.as_fd().try_clone_to_owned().map(File::from);
    let lost = patience::Lost::default();
    let input = patience::Input::new(open(&input)?, Arc::clone(&lost));
    let output = patience::Output::new(open(&output)?, lost);
    let program = own_program::own_digest(&start.program, start.now)?;
    // Whatever is made here and says nothing else is readable, as after a login.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let output = Arc::new(Output::new(Box::new(output)));
    let host = match (digests_of(&start.program), start.now) {
        (Some(file), Some(now)) => Host::remembering(Digests::new(file, now)),
        _ => Host::default(),
    };
    greet(&output, program)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (pieces, incoming) = pieces::channel();
    let (control, orders) = mpsc::channel();
    let (answers, confirmations) = mpsc::channel();
    let reader_stop = Arc::clone(&stop);
    std::thread::spawn(move || {
        listen(input, &pieces, &control, &answers, &reader_stop);
        reader_stop.store(true, Ordering::Relaxed);
    });
    if let Some(now) = start.now {
        sweep::sweep(&start.program, now);
    }
    let _beat = beat(&output);
    let store = Store::new(Arc::clone(&output), incoming);
    let state = match &start.state {
        Some(folder) => StateFolder::at(folder),
        None => StateFolder::of(&host.own_identity()?),
    }
    .watched_by(start.on_journal);
    let mut session = Session {
        host: &host,
        store: &store,
        output: &output,
        stop: &stop,
        state,
        confirmations: &Mutex::new(confirmations),
        locked: false,
    };
    let result = session.run(&orders, start);
    if let Err(error) = &result {
        // The connection may be what failed.
        let _ = output.send(&FromAgent::Fatal(error.to_string()));
    }
    result
}

/// Tells the controller every [`HEARTBEAT`] that the agent is there, until what is given is dropped.
fn beat(output: &Arc<Output>) -> mpsc::Sender<()> {
    let (end, ended) = mpsc::channel();
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        while ended.recv_timeout(HEARTBEAT) == Err(mpsc::RecvTimeoutError::Timeout) {
            if output.send(&FromAgent::Alive).is_err() {
                break;
            }
        }
    });
    end
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
    input: impl Read,
    pieces: &pieces::Sender,
    control: &mpsc::Sender<ToAgent>,
    answers: &mpsc::Sender<Option<String>>,
    stop: &AtomicBool,
) {
    let mut input = BufReader::with_capacity(INPUT_BUFFER, input);
    loop {
        let sent = match wire::read_frame(&mut input) {
            Ok(ToAgent::Content { bytes, last }) => pieces.send(Piece::Bytes(bytes, last)),
            Ok(ToAgent::NoContent { reason }) => pieces.send(Piece::Missing(reason)),
            Ok(ToAgent::Confirmed { failure }) => answers.send(failure).is_ok(),
            Ok(ToAgent::Alive) => true,
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
    confirmations: &'a Confirmations,
    /// The locks are held by whoever began this session.
    locked: bool,
}

/// What a run is about.
enum Subject {
    /// What is declared; where it was planned before, nothing outside of that plan is done.
    Declared { graph: Arc<Graph>, bound: Option<Arc<Bound>> },
    /// What was before a run.
    Before { run: String, force: bool, rollback: Option<String>, only: Option<HashSet<String>> },
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
        let first = loop {
            match orders.recv() {
                Ok(ToAgent::Ask(questions)) => {
                    let login = self.login(start)?;
                    for answer in answers::answers(&questions, self.host, &login) {
                        self.output.send(&FromAgent::Answer(answer))?;
                    }
                }
                other => break other,
            }
        };
        let (subject, options) = match first {
            Ok(ToAgent::Plan { graph, options, bound }) => {
                (Subject::Declared { graph, bound }, options)
            }
            Ok(ToAgent::Undo { run, force, rollback, options }) => {
                (Subject::Before { run, force, rollback, only: None }, options)
            }
            Ok(ToAgent::Past { run }) => return self.tell_past(run.as_deref()),
            Ok(ToAgent::Status { run }) => return self.tell_status(&run, &self.login(start)?),
            _ => return Ok(()),
        };
        self.serve(orders, start, &subject, &options)
    }

    fn login(&self, start: &Start) -> Result<Identity, AgentError> {
        Ok(match &start.login {
            Some(name) => self.host.identity(name)?,
            None => self.host.own_identity()?,
        })
    }

    /// Plans and applies, as often as it is asked to.
    fn serve(
        &mut self,
        orders: &mpsc::Receiver<ToAgent>,
        start: &Start,
        subject: &Subject,
        options: &PlanOptions,
    ) -> Result<(), AgentError> {
        let login = self.login(start)?;
        while let Round::Again = self.round(orders, &login, subject, options)? {
            self.host.forget();
        }
        Ok(())
    }

    /// Takes the host's lock, or says who has it.
    fn lock(&self, run: &RunInfo) -> Result<Option<Lock>, AgentError> {
        match self.state.try_lock(run) {
            Ok(lock) => Ok(Some(lock)),
            Err(NotLocked::Held(holder))
                if holder.as_ref().is_some_and(|it| it.run.id == run.id) =>
            {
                let message = "this run is changing the host under another name of the inventory";
                Err(AgentError::Record(message.to_owned()))
            }
            Err(NotLocked::Held(holder)) => {
                let holder = holder.map(|holder| holder.run);
                self.output.send(&FromAgent::Held { holder, account: None })?;
                Ok(None)
            }
            Err(NotLocked::Failed(error)) => {
                let place = self.state.path().display();
                Err(AgentError::Record(format!(
                    "{place}: converge keeps its records there, and cannot: {error}"
                )))
            }
        }
    }

    /// Takes the locks of the accounts that a root agent acts for, all or none; says who has one
    /// otherwise.
    fn lock_accounts(
        &self,
        graph: &Graph,
        login: &Identity,
        run: &RunInfo,
    ) -> Result<Option<Vec<Lock>>, AgentError> {
        let mut locks = Vec::new();
        if !rustix::process::geteuid().is_root() {
            return Ok(Some(locks));
        }
        let accounts: BTreeSet<&String> = graph
            .nodes
            .iter()
            .map(|node| node.become_user.as_ref().unwrap_or(&login.name))
            .collect();
        for name in accounts {
            // One that is yet to come has run nothing.
            let Ok(account) = self.host.identity(name) else { continue };
            if account.uid == 0 {
                continue;
            }
            match try_lock_account(&account, run) {
                Ok(lock) => locks.extend(lock),
                Err(NotLocked::Held(holder)) => {
                    let holder = holder.map(|holder| holder.run);
                    let account = Some(name.clone());
                    self.output.send(&FromAgent::Held { holder, account })?;
                    return Ok(None);
                }
                Err(NotLocked::Failed(error)) => {
                    let message = format!("the lock of {name} cannot be taken: {error}");
                    return Err(AgentError::Record(message));
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
            Subject::Declared { graph, .. } => graph,
            Subject::Before { .. } => &empty,
        };
        let mut locks = Vec::new();
        if options.lock && !self.locked {
            match self.lock(&options.run)? {
                Some(lock) => locks.push(lock),
                None => return Ok(await_again(orders)),
            }
        }
        let mut records = Records::read(&self.state);
        let adopted = records.adopt(&options.run, &options.adopt);
        records.open(&options.run);
        if options.lock {
            records.tidy(&self.state);
            records.refresh(&self.state, &options.run, declared, adopted).map_err(|error| {
                AgentError::Record(format!("{}: {error}", self.state.path().display()))
            })?;
        }
        let mut graph = declared.clone();
        let mut run = options.run.clone();
        let (added, purpose) = match subject {
            Subject::Declared { .. } => {
                let stale = match (&records.unreadable, records.scope(&run)) {
                    (None, Some(scope)) => taking_back::prune(&graph, &scope, &|name| {
                        self.host.identity(name).ok().map(|identity| identity.home)
                    }),
                    _ => Vec::new(),
                };
                (stale, Purpose::Converge)
            }
            Subject::Before { run: before, force, rollback, only } => {
                let (added, info) =
                    self.what_undoes(before, *force, rollback.as_deref(), only.as_ref())?;
                // Its records are those of what it takes back.
                if let Some(info) = info {
                    run = RunInfo { id: run.id, who: run.who, begun: run.begun, ..info };
                }
                (added, Purpose::Undo(before.clone()))
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
        if options.lock && !self.locked {
            match self.lock_accounts(&graph, login, &options.run)? {
                Some(taken) => locks.extend(taken),
                None => {
                    drop(locks);
                    return Ok(await_again(orders));
                }
            }
        }
        if options.lock {
            // Now that no run of those accounts is under way.
            repair::repair(&records.cut_off, self.host, login);
        }
        let running = if options.lock { None } else { self.state.holder() };
        if !options.lock && running.is_none() {
            self.host.see_instead(repair::seen_instead(&records.cut_off, self.host, login));
        }
        let notes = Notes {
            cut_off: cut_off(&records, running.is_some()),
            unreadable: records.unreadable.clone(),
            nothing_adopted: !options.adopt.is_empty() && !adopted,
            running: running.map(|holder| holder.run),
            cannot: graph.nodes.iter().filter_map(cannot).collect(),
            outside: Vec::new(),
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
            mask: graph.mask(),
            hidden_before: records.scope(&run).map(|scope| scope.hidden()).unwrap_or_default(),
            untrusted: options.untrusted,
            owed: by_debtor(&records.owed(&run)),
            boot: boot_id(),
        };
        let mut plan = planner.plan_all(|nodes| self.output.send(&FromAgent::Planned(nodes)))?;
        let mut notes = notes;
        if let Subject::Declared { bound: Some(bound), .. } = subject {
            let allowed = planner.allowed(bound);
            notes.outside = planner.outside(&allowed, &plan);
            plan = allowed;
        }
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
        let confirmation = Confirmation {
            lock: locks.first(),
            run: &options.run,
            state: &self.state,
            login: options.login.then_some(login),
            answers: self.confirmations,
            switch: Mutex::default(),
        };
        let mut round = Round::Over;
        while let Ok(order) = orders.recv() {
            match order {
                ToAgent::Apply { play } => {
                    if let Some(records) = records.take() {
                        let reacting = reacting(&graph);
                        let purpose = purpose.clone();
                        let begun = Journal::create(&self.state, records, &run, purpose, reacting);
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
                        confirmation: &confirmation,
                    };
                    let failed = applier.apply_play(play, &mut ended)?;
                    self.output.send(&FromAgent::PlayDone { failed })?;
                }
                ToAgent::Finish { complete } => {
                    let differs = planner.verify(&ended);
                    let end = match complete && differs.is_empty() {
                        true => RunEnd::Verified,
                        false => RunEnd::Incomplete,
                    };
                    if let Some(journal) = journal.take() {
                        opened(journal).finish(end).map_err(|error| {
                            AgentError::Record(format!("the run's journal: {error}"))
                        })?;
                    }
                    self.output.send(&FromAgent::Finished { differs })?;
                }
                ToAgent::Release => {
                    round = Round::Again;
                    break;
                }
                _ => {}
            }
        }
        if let Some(journal) = journal.take() {
            // Where something failed the controller has ended the run; else it is gone.
            let _ = opened(journal).finish(RunEnd::CutOff);
        }
        drop(confirmation);
        drop(locks);
        match round {
            Round::Again => Ok(await_again(orders)),
            Round::Over => Ok(Round::Over),
        }
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

/// Runs that died; one that has not ended may be the one that is going on.
fn cut_off(records: &Records, running: bool) -> Vec<CutOff> {
    let dead = records.cut_off.iter().filter(|_| !running);
    let dead = dead.map(|journal| CutOff {
        run: journal.header.run.clone(),
        in_hand: journal.in_hand().map(|begin| begin.id.to_string()).collect(),
    });
    let interrupted = records.interrupted().iter();
    let interrupted = interrupted.map(|run| CutOff { run: run.clone(), in_hand: Vec::new() });
    dead.chain(interrupted).collect()
}

/// The services that react in a graph, as they are declared.
fn reacting(graph: &Graph) -> Vec<Reacting> {
    let reacting = graph.nodes.iter().filter_map(|node| match &node.work {
        Work::Reaction { declared, .. } => Some(Reacting {
            id: node.id.clone(),
            service: declared.clone(),
            become_user: node.become_user.clone(),
        }),
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
