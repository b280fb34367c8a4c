//! Runs that lose their controller, their network or their agent at any moment: the next one finishes what they began.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod hosts;
mod random;
mod versions;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use hosts::{Hosts, Report, Running};
use random::Random;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// So many hosts have to be cut off, …
const CUT_OFFS: usize = 60;
/// … so many of them between their first and their last change; …
const BETWEEN: usize = 25;
/// … and that many rounds are enough for them.
const ROUNDS: usize = 30;

/// What a run loses.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Controller,
    Network,
    /// For less time than either end takes to notice.
    NetworkForAMoment,
    Agent,
}

const LOSSES: [Loss; 7] = [
    Loss::Controller,
    Loss::Controller,
    Loss::Network,
    Loss::Network,
    Loss::NetworkForAMoment,
    Loss::Agent,
    Loss::Agent,
];

struct Fleet {
    hosts: Hosts,
    random: Random,
    version: u32,
    /// How long a run changes hosts that nobody cuts off, in milliseconds.
    length: usize,
    /// How much it changes on a host.
    changes: usize,
    cut_off: usize,
    between: usize,
}

impl Fleet {
    fn new() -> Option<Self> {
        let hosts = Hosts::new(&NAMES)?;
        let configuration = std::fs::read_to_string(hosts.path("home/.ssh/config")).unwrap();
        let impatient =
            format!("{configuration}Host *\n  ServerAliveInterval 1\n  ServerAliveCountMax 2\n");
        hosts.write("home/.ssh/config", &impatient);
        hosts.converge(&versions::states(0)).succeeds();
        let random = Random::new(Random::seed());
        let mut fleet =
            Self { hosts, random, version: 0, length: 0, changes: 0, cut_off: 0, between: 0 };
        let running = fleet.start();
        let begun = Instant::now();
        let ended = running.ended();
        assert_eq!(ended.code, 0, "{ended}");
        fleet.length = usize::try_from(begun.elapsed().as_millis()).unwrap();
        let report: Report = serde_json::from_str(&ended.stdout).unwrap();
        fleet.changes = changes(&report, "a");
        Some(fleet)
    }

    /// Begins a run to the next version, and waits until it changes the first host.
    fn start(&mut self) -> Running {
        self.version += 1;
        let journals = |hosts: &Hosts| -> BTreeSet<OsString> {
            let folders = NAMES.map(|name| hosts.host(name).root.join("var/lib/converge/runs"));
            let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
            entries.map(|entry| entry.unwrap().file_name()).collect()
        };
        let before = journals(&self.hosts);
        let run = self.hosts.converge(&versions::states(self.version));
        let running = run.args(&["--format", "json"]).start();
        let begun = Instant::now();
        while journals(&self.hosts).is_subset(&before) {
            assert!(begun.elapsed() < Duration::from_secs(60), "it never began");
            std::thread::sleep(Duration::from_millis(1));
        }
        running
    }

    /// Cuts off a run to the next version, and finishes it.
    fn round(&mut self) {
        let loss = *self.random.pick(&LOSSES);
        let moment = Duration::from_millis(self.random.below(self.length) as u64);
        let mut lost: Vec<&str> = NAMES.to_vec();
        if !matches!(loss, Loss::Controller) {
            lost.retain(|_| !self.random.one_in(6));
        }
        let running = self.start();
        println!("version {}: {loss:?} of {} lost after {moment:?}", self.version, lost.join(", "));
        std::thread::sleep(moment);
        match loss {
            Loss::Controller => running.signal("KILL"),
            Loss::Agent => lost.iter().for_each(|name| {
                self.hosts.try_sh(name, "pkill -KILL -f '[c]onverge/agent'");
            }),
            Loss::Network | Loss::NetworkForAMoment => {
                lost.iter().for_each(|name| self.hosts.host(name).link_down().unwrap());
            }
        }
        if matches!(loss, Loss::NetworkForAMoment) {
            std::thread::sleep(Duration::from_millis(300));
            lost.iter().for_each(|name| self.hosts.host(name).link_up().unwrap());
        }
        let ended = running.ended();
        match loss {
            Loss::Controller => assert!([-9, 0].contains(&ended.code), "{ended}"),
            Loss::NetworkForAMoment => assert_eq!(ended.code, 0, "{ended}"),
            Loss::Network | Loss::Agent => assert!([0, 3].contains(&ended.code), "{ended}"),
        }
        if matches!(loss, Loss::Network) {
            for name in &lost {
                self.hosts.host(name).link_up().unwrap();
                self.end_session(name);
            }
        }
        // The agent may still be finishing what it has in hand.
        let states = versions::states(self.version);
        let finished = self.hosts.converge(&states).args(&["--wait"]).succeeds();
        let hosts = NAMES.map(|name| self.hosts.host(name));
        hosts.iter().for_each(|host| versions::assert_converged(host, self.version));
        versions::assert_swept(hosts);
        self.hosts.converge(&states).succeeds().assert_unchanged();
        self.cut_off += match serde_json::from_str::<Report>(&ended.stdout) {
            Ok(report) => report.hosts.values().filter(|host| host.status == "failed").count(),
            Err(_) => NAMES.len(),
        };
        let left = NAMES.iter().map(|name| changes(&finished, name));
        self.between += left.filter(|left| (1..self.changes).contains(left)).count();
    }

    /// Ends the sshd of a session that has been cut off, which notices that by itself much later.
    fn end_session(&self, name: &str) {
        let begun = Instant::now();
        let script = "for agent in $(pgrep -f '[c]onverge/agent'); do kill -KILL $(ps -o ppid= -p $agent); done";
        while self.hosts.try_sh(name, script).code == 255 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{name} does not come back");
        }
    }
}

fn changes(report: &Report, name: &str) -> usize {
    let resources = report.hosts[name].resources.iter();
    resources.filter(|resource| resource.verdict == "change").count()
}

#[test]
fn a_run_that_loses_anything_at_any_moment() {
    let begun = Instant::now();
    let Some(mut fleet) = Fleet::new() else { return };
    let mut rounds = 0;
    // How many are cut off between two changes, chance decides, and how fast the machine is.
    while (fleet.cut_off < CUT_OFFS || fleet.between < BETWEEN) && rounds < ROUNDS {
        fleet.round();
        rounds += 1;
        let Fleet { cut_off, between, .. } = fleet;
        println!("{cut_off} cut off, {between} of them between two changes, {:?}", begun.elapsed());
    }
    assert!(fleet.cut_off >= 50 && fleet.between > 0);
}
