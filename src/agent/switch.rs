//! A dead man's switch: a process of its own that takes changes back unless it hears that they are
//! fine, whatever has become of the agent that made them.
//!
//! It holds the host's lock together with its agent, so that nobody else changes the host before
//! it has ended. What it does is an undo like any other, with a journal of its own.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::contents::Store;
use super::journal::{Lock, StateFolder};
use super::output::Output;
use super::{AgentError, Session, Start, Subject};
use crate::report::RunInfo;
use crate::wire::{self, FromAgent, Outcome, PlanOptions, ToAgent};
use crate::world::Host;

/// The argument that makes an agent's program the switch.
pub const SWITCH: &str = "take-back-unless-confirmed";
/// How much longer than a confirmation takes an agent is believed to be alive.
const GRACE: Duration = Duration::from_secs(60);
/// How long the switch may take to begin, and to take all of it back.
const START: Duration = Duration::from_secs(10);
const TAKING_BACK: Duration = Duration::from_secs(600);
/// Added to the name of a run for the run that takes changes of it back.
const BACK: &str = "-back";

/// What the switch is told, line by line.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    /// The first: what it watches over.
    Watch { run: Box<RunInfo>, state: PathBuf },
    /// These resources go back, unless the next word is [`Word::Confirmed`].
    Arm { resources: Vec<String> },
    /// It is known after so many milliseconds, or the agent has died.
    Asked { within: u64 },
    /// All is fine.
    Confirmed,
    /// It is not.
    TakeBack,
}

/// What the switch says.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// It is armed.
    Armed,
    /// It was pulled; what could not be taken back.
    TakenBack { failures: Vec<String> },
}

/// The agent's end of the switch.
pub(super) struct Switch {
    child: Child,
    connection: BufReader<UnixStream>,
}

impl Switch {
    /// Starts the process that watches over a run, with the host's lock.
    pub(super) fn start(lock: &Lock, run: &RunInfo, state: &StateFolder) -> io::Result<Self> {
        let (own, other) = UnixStream::pair()?;
        let child = Command::new("/proc/self/exe")
            .arg(SWITCH)
            .stdin(OwnedFd::from(other))
            // It says nothing there; the lock is held as long as it lives.
            .stdout(lock.again()?)
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()?;
        own.set_read_timeout(Some(START))?;
        let mut switch = Self { child, connection: BufReader::new(own) };
        let state = state.path().to_owned();
        switch.say(&Word::Watch { run: Box::new(run.clone()), state })?;
        Ok(switch)
    }

    fn say(&mut self, word: &Word) -> io::Result<()> {
        let mut line = serde_json::to_vec(word)?;
        line.push(b'\n');
        self.connection.get_mut().write_all(&line)
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let mut line = String::new();
        if self.connection.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// From now on these resources go back if the agent dies. Nothing of them may be changed if
    /// that fails.
    pub(super) fn arm(&mut self, resources: Vec<String>) -> io::Result<()> {
        self.say(&Word::Arm { resources })?;
        match self.answer()? {
            Answer::Armed => Ok(()),
            Answer::TakenBack { .. } => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// From now on they go back after that time, too, and a little.
    pub(super) fn asked(&mut self, within: Duration) -> io::Result<()> {
        self.say(&Word::Asked { within: u64::try_from(within.as_millis()).unwrap_or(u64::MAX) })
    }

    /// They stay.
    pub(super) fn confirmed(&mut self) -> io::Result<()> {
        self.say(&Word::Confirmed)
    }

    /// They go back now; says what does not.
    pub(super) fn take_back(&mut self) -> io::Result<Vec<String>> {
        self.connection.get_ref().set_read_timeout(Some(TAKING_BACK))?;
        self.say(&Word::TakeBack)?;
        loop {
            // One that was armed late says so first.
            if let Answer::TakenBack { failures } = self.answer()? {
                return Ok(failures);
            }
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.connection.get_ref().shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

/// Watches over the run of the agent that has started this program with [`SWITCH`], until it is
/// confirmed or taken back.
pub fn keep_watch(start: &Start) -> Result<(), AgentError> {
    let begun = Instant::now();
    let agent = rustix::process::getppid();
    // The end of a session is not the end of the watch.
    let _ = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let connection = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut words = BufReader::new(connection.try_clone()?);
    let mut watched = None;
    let mut armed: HashSet<String> = HashSet::new();
    let mut deadline: Option<Instant> = None;
    let pulled = loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        connection.set_read_timeout(left.map(|left| left.max(Duration::from_millis(1))))?;
        let mut line = String::new();
        match words.read_line(&mut line) {
            Ok(0) => break !armed.is_empty(),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // It hangs, and so nobody else would do it.
                kill(agent);
                await_end(&connection, &mut words);
                break true;
            }
            Err(_) => break !armed.is_empty(),
        }
        match serde_json::from_str(&line) {
            Ok(Word::Watch { run, state }) => watched = Some((run, state)),
            Ok(Word::Arm { resources }) => {
                armed.extend(resources);
                answer(&connection, &Answer::Armed);
            }
            Ok(Word::Asked { within }) => {
                deadline = Some(Instant::now() + Duration::from_millis(within) + GRACE);
            }
            Ok(Word::Confirmed) => {
                armed.clear();
                deadline = None;
            }
            Ok(Word::TakeBack) => break true,
            Err(_) => break !armed.is_empty(),
        }
    };
    let Some((run, state)) = watched.filter(|_| pulled) else { return Ok(()) };
    let now = start.now.map(|now| now + begun.elapsed());
    let failures = take_back(&run, &StateFolder::at(&state), armed, now, start);
    answer(&connection, &Answer::TakenBack { failures });
    Ok(())
}

fn kill(agent: Option<Pid>) {
    // Once it has died another process may have its number.
    if agent == rustix::process::getppid()
        && let Some(agent) = agent
    {
        let _ = rustix::process::kill_process(agent, Signal::KILL);
    }
}

/// Waits until the agent is gone: what it has in hand must not come after it was taken back.
fn await_end(connection: &UnixStream, words: &mut impl BufRead) {
    let _ = connection.set_read_timeout(Some(START));
    let mut line = String::new();
    while words.read_line(&mut line).is_ok_and(|count| count > 0) {
        line.clear();
    }
}

fn answer(mut connection: &UnixStream, answer: &Answer) {
    if let Ok(mut line) = serde_json::to_vec(answer) {
        line.push(b'\n');
        // The agent may be gone.
        let _ = connection.write_all(&line);
    }
}

/// Takes resources back as `converge undo` would, and says what did not go back.
fn take_back(
    run: &RunInfo,
    state: &StateFolder,
    only: HashSet<String>,
    now: Option<SystemTime>,
    start: &Start,
) -> Vec<String> {
    let said = Said::default();
    let output = Arc::new(Output::new(Box::new(said.clone())));
    let host = Host::default();
    let (_, nothing) = mpsc::channel();
    let (pieces, incoming) = super::pieces::channel();
    drop(pieces);
    let store = Store::new(Arc::clone(&output), incoming);
    let (orders, rest) = mpsc::channel();
    for order in [ToAgent::Apply { play: 0 }, ToAgent::Finish { complete: true }] {
        let _ = orders.send(order);
    }
    drop(orders);
    let since_epoch = now.and_then(|now| now.duration_since(UNIX_EPOCH).ok());
    let begun = since_epoch.and_then(|time| u64::try_from(time.as_millis()).ok());
    let own = RunInfo {
        id: format!("{}{BACK}", run.id),
        begun: begun.unwrap_or(run.begun),
        ..run.clone()
    };
    let options = PlanOptions { run: own, lock: true, ..PlanOptions::default() };
    let subject =
        Subject::Before { run: run.id.clone(), force: true, rollback: None, only: Some(only) };
    let mut session = Session {
        host: &host,
        store: &store,
        output: &output,
        stop: &AtomicBool::new(false),
        state: state.clone(),
        confirmations: &Mutex::new(nothing),
        locked: true,
    };
    let result = session.serve(&rest, start, &subject, &options);
    let mut failures: Vec<String> = result.err().iter().map(ToString::to_string).collect();
    failures.extend(said.failures());
    failures
}

/// What an agent says that no controller listens to.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Said {
    fn failures(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut rest = bytes.as_slice();
        let mut names = HashMap::new();
        let mut failures = Vec::new();
        while let Ok(message) = wire::read_frame(&mut rest) {
            match message {
                FromAgent::Added(nodes) => {
                    names.extend((0..).zip(nodes.into_iter().map(|node| node.id)));
                }
                FromAgent::PlanDone(notes) => failures.extend(notes.cannot),
                FromAgent::Planned(nodes) => {
                    let failed = nodes
                        .into_iter()
                        .filter(|node| node.verdict == crate::report::Verdict::Failed);
                    failures.extend(failed.map(|node| {
                        format!(
                            "{}: {}",
                            names.get(&node.node).unwrap_or(&String::new()),
                            node.because
                        )
                    }));
                }
                FromAgent::Done { node, outcome: Outcome::Failed { message, .. }, .. } => {
                    let name = names.get(&node).map(String::as_str).unwrap_or_default();
                    failures.push(format!("{name}: {message}"));
                }
                FromAgent::Fatal(message) => failures.push(message),
                _ => {}
            }
        }
        failures
    }
}
