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
mod output;
mod plan;
mod show;
mod steps;
mod sweep;
mod wave;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::SystemTime;

use act::Actuator;
use apply::Applier;
use contents::{Piece, Store};
use output::Output;
use plan::Planner;
use steps::Steps;

use crate::graph::Graph;
use crate::kind::Actor;
use crate::wire::{self, FromAgent, Hello, MAGIC, PlanOptions, ToAgent};
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
    let mut session = Session { host: &host, store: &store, output: &output, stop: &stop };
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
}

impl Session<'_> {
    fn run(&mut self, orders: &mpsc::Receiver<ToAgent>, start: &Start) -> Result<(), AgentError> {
        let login = match &start.login {
            Some(name) => self.host.identity(name)?,
            None => self.host.own_identity()?,
        };
        let Ok(ToAgent::Plan { graph, options }) = orders.recv() else { return Ok(()) };
        self.converge(orders, &login, &graph, &options)
    }

    fn converge(
        &self,
        orders: &mpsc::Receiver<ToAgent>,
        login: &Identity,
        graph: &Graph,
        options: &PlanOptions,
    ) -> Result<(), AgentError> {
        let steps = Steps::of(graph);
        let actors = self.actors(graph, login)?;
        let units = services(graph);
        if !units.is_empty() {
            // One question for all; a failure shows where a unit is really needed.
            let _ = self.host.prefetch_units(&units);
        }
        let planner = Planner {
            host: self.host,
            graph,
            steps: &steps,
            store: self.store,
            actors: &actors,
            diff: options.diff,
            untrusted: options.untrusted,
        };
        let plan = planner.plan_all(|nodes| self.output.send(&FromAgent::Planned(nodes)))?;
        // Before the controller hears of the end, which may be the agent's own.
        self.host.remember();
        self.output.send(&FromAgent::PlanDone)?;
        self.store.settle()?;
        let mut ended = vec![None; graph.nodes.len()];
        let actuator = Actuator { host: self.host, store: self.store, login, stop: self.stop };
        while let Ok(order) = orders.recv() {
            let ToAgent::Apply { play } = order else { continue };
            let applier = Applier {
                planner: &planner,
                plan: &plan,
                actuator: &actuator,
                output: self.output,
                stop: self.stop,
            };
            let failed = applier.apply_play(play, &mut ended)?;
            self.output.send(&FromAgent::PlayDone { failed })?;
        }
        Ok(())
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

/// The units that the graph's services are about.
fn services(graph: &Graph) -> Vec<String> {
    use crate::graph::Work;
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
