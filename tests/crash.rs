//! An agent that is killed before and after every single line of its journal: the next run finishes what it began.
//!
//! This program is the test, and, when it is started with `serve`, the agent: with one that kills itself (SIGKILL) at
//! the line of the journal that a file on the host names. Hosts are converged to one version after the other, several
//! at once, each killed at another line, until no line is left to be killed at. After each kill the next run has to
//! bring about what a run that nobody kills does: all of the new version, every reaction done, nothing left behind.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod hosts;
mod versions;

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Instant, SystemTime};

use converge::agent;
use hosts::{Hosts, Report};

const NAME: &str = "an_agent_that_is_killed_at_any_line_of_its_journal";
/// The file on a host that names the place at which its agent kills itself: they are counted from 1, one before and
/// one after each line.
const CRASH: &str = "srv/crash";
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == "serve") {
        return serve();
    }
    // What test runners ask for.
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("{NAME}: test");
        }
        return ExitCode::SUCCESS;
    }
    let mut words = arguments.iter().filter(|argument| !argument.starts_with('-')).peekable();
    if words.peek().is_none() || words.any(|word| NAME.contains(word.as_str())) {
        an_agent_that_is_killed_at_any_line_of_its_journal();
    }
    ExitCode::SUCCESS
}

fn serve() -> ExitCode {
    let start = agent::Start {
        program: std::env::current_exe().unwrap(),
        now: Some(SystemTime::now()),
        on_journal: Some(|| {
            static PLACES: AtomicU32 = AtomicU32::new(0);
            let place = PLACES.fetch_add(1, Ordering::Relaxed) + 1;
            let wanted = fs::read_to_string(Path::new("/").join(CRASH)).unwrap_or_default();
            if wanted.trim() == place.to_string() {
                let own = rustix::process::getpid();
                rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
                std::thread::park();
            }
        }),
        ..agent::Start::default()
    };
    match agent::serve(io::stdin(), io::stdout(), &start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The hosts, and a folder with this program as their agent.
struct Fleet {
    hosts: Hosts,
    version: u32,
}

impl Fleet {
    fn new() -> Option<Self> {
        let hosts = Hosts::new(&NAMES)?;
        let program = hosts.path("agent/converge-agent");
        fs::create_dir(program.parent().unwrap()).unwrap();
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        // It is only for its size.
        let _ = Command::new("strip").arg(&program).status();
        Some(Self { hosts, version: 0 })
    }

    fn run(&self) -> hosts::Run<'_> {
        let folder = self.hosts.path("agent");
        let run = self.hosts.converge(&versions::states(self.version));
        run.env("CONVERGE_AGENT_DIR", folder.to_str().unwrap())
    }

    /// Converges with an agent that is killed at that place of each host.
    fn killed_at(&self, places: [u32; 4]) -> Report {
        println!("version {}: killed at {places:?}", self.version);
        let files = NAMES.map(|name| self.hosts.host(name).root.join(CRASH));
        for (file, place) in files.iter().zip(places) {
            fs::write(file, place.to_string()).unwrap();
        }
        let report = self.run().report();
        files.iter().for_each(|file| fs::remove_file(file).unwrap());
        for host in report.hosts.values().filter(|host| host.status == "failed") {
            let error = host.error.as_deref().unwrap_or_default();
            assert!(error.contains("the connection ended"), "{report}");
        }
        report
    }

    /// The next run brings all about that a run does which nobody kills.
    fn finish(&self) {
        self.run().succeeds();
        for name in NAMES {
            versions::assert_converged(self.hosts.host(name), self.version);
        }
        versions::assert_swept(NAMES.map(|name| self.hosts.host(name)));
        self.run().succeeds().assert_unchanged();
    }
}

fn killed(report: &Report) -> usize {
    report.hosts.values().filter(|host| host.status == "failed").count()
}

fn an_agent_that_is_killed_at_any_line_of_its_journal() {
    let begun = Instant::now();
    let Some(mut fleet) = Fleet::new() else { return };
    fleet.run().succeeds();
    let mut kills = 0;
    for first in (1..).step_by(NAMES.len()) {
        fleet.version += 1;
        let report = fleet.killed_at([first, first + 1, first + 2, first + 3]);
        kills += killed(&report);
        fleet.finish();
        if killed(&report) == 0 {
            let changes = report.count("change") / NAMES.len();
            assert!(changes >= 40, "a whole run makes {changes} changes");
            assert!(kills >= 4 * changes, "of {changes} changes it was killed at {kills} places");
            break;
        }
    }
    // The run that finishes what a dead one has begun dies too: where it takes that over, and right after.
    for second in 1..=6 {
        fleet.version += 1;
        assert_eq!(killed(&fleet.killed_at([20, 70, 120, 170])), NAMES.len());
        let again = killed(&fleet.killed_at([second; 4]));
        assert_eq!(again, NAMES.len());
        kills += 2 * again;
        fleet.finish();
    }
    println!("killed {kills} times, {:?}", begun.elapsed());
}
