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
use std::path::PathBuf;
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
use crate::world::{Host, facts};

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
    // Whatever is made here and says nothing else is readable, as after a login.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let output = Arc::new(Output::new(Box::new(output)));
    let host = Host::default();
    greet(&output)?;
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

/// Magic, identity and facts, in one write.
fn greet(output: &Output) -> Result<(), AgentError> {
    // In pieces: filling megabytes of new memory takes longer than hashing them.
    let mut program = blake3::Hasher::new();
    program.update_reader(std::fs::File::open("/proc/self/exe")?)?;
    let hello = FromAgent::Hello(Hello {
        build: wire::BUILD.to_owned(),
        program: program.finalize().to_string(),
        facts: wire::Facts { json: facts::gather(std::path::Path::new("/")).to_string() },
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
