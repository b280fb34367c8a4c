//! A run that is cut off, wherever it is, leaves every file either old or new, and the next one finishes.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod hosts;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use hosts::{Hosts, Running};

const FILES: usize = 400;

/// Many files in a folder, with commands between them.
fn states(content: &str) -> String {
    let mut text = String::from("- directory: /srv/many\n");
    for number in 0..FILES {
        let body = format!("{content} {number} ").repeat(200);
        let _ = write!(text, "- file: /srv/many/{number}\n  content: \"{body}\"\n");
        if number % 40 == 20 {
            let _ = write!(
                text,
                "- command: sleep 0.1; echo {content} >/srv/step{number}\n  unless: grep -qs {content} \
                 /srv/step{number}\n  id: step{number}\n"
            );
        }
    }
    text
}

/// Each file is whole: old or new.
fn assert_whole(hosts: &Hosts) {
    let check = r#"
        cd /srv/many
        awk '{
            whole = NF == 400
            for (field = 1; field < NF; field += 2)
                whole = whole && $field == $1 && ($1 == "old" || $1 == "new") && $(field + 1) == FILENAME
            if (!whole) { print "half-written:", FILENAME; exit 1 }
            files += 1
        }
        END { if (files != ARGC - 1) { print ARGC - 1 - files, "files are empty"; exit 1 } }' *"#;
    hosts.sh("a", check);
}

/// Nothing is there but the files.
fn assert_swept(hosts: &Hosts) {
    assert_eq!(hosts.sh("a", "find /srv -name '.*.converge-*'"), "");
}

/// How many files are new.
fn new_files(hosts: &Hosts) -> usize {
    let count = hosts.sh("a", "cd /srv/many; grep -l '^new' * | wc -l");
    count.trim().parse().unwrap()
}

fn booted() -> Option<Hosts> {
    let hosts = Hosts::new(&["a"])?;
    hosts.converge(&states("old")).succeeds();
    assert_whole(&hosts);
    Some(hosts)
}

/// Starts a run to the new state, and waits until it is in its middle.
fn in_the_middle(hosts: &Hosts) -> Running {
    let running = hosts.converge(&states("new")).start();
    let begun = Instant::now();
    while hosts.try_sh("a", "grep -qs new /srv/step60").code != 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never came to its middle");
    }
    running
}

fn assert_finishes(hosts: &Hosts) {
    assert_whole(hosts);
    let between = new_files(hosts);
    assert!(between < FILES, "it was over before it was cut off");
    hosts.converge(&states("new")).succeeds();
    assert_whole(hosts);
    assert_swept(hosts);
    assert_eq!(new_files(hosts), FILES);
    hosts.converge(&states("new")).succeeds().assert_unchanged();
    assert_eq!(hosts.try_sh("a", "pgrep -f converge/agent").code, 1, "an agent was left running");
}

#[test]
fn a_controller_that_is_killed() {
    let Some(hosts) = booted() else { return };
    let running = in_the_middle(&hosts);
    running.signal("KILL");
    assert_eq!(running.ended().code, -9);
    std::thread::sleep(Duration::from_secs(1));
    assert_finishes(&hosts);
}

#[test]
fn a_controller_that_falls_silent() {
    let Some(hosts) = booted() else { return };
    let running = in_the_middle(&hosts);
    running.signal("STOP");
    // It finishes what is in hand, stops, and lets go of the host.
    let begun = Instant::now();
    while hosts.try_sh("a", "pgrep -f 'converge/[a]gent'").code == 0 {
        assert!(begun.elapsed() < Duration::from_secs(75), "the agent waits for ever");
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_finishes(&hosts);
    running.signal("KILL");
    assert_eq!(running.ended().code, -9);
}

#[test]
fn a_connection_that_breaks() {
    let Some(hosts) = booted() else { return };
    let configuration = std::fs::read_to_string(hosts.path("home/.ssh/config")).unwrap();
    let impatient =
        format!("{configuration}Host *\n  ServerAliveInterval 1\n  ServerAliveCountMax 2\n");
    hosts.write("home/.ssh/config", &impatient);
    let running = in_the_middle(&hosts);
    hosts.host("a").link_down().unwrap();
    let begun = Instant::now();
    let ended = running.ended();
    assert_eq!(ended.code, 3, "{ended}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}\n{ended}", begun.elapsed());
    assert!(ended.stdout.contains("the connection ended"), "{ended}");
    hosts.host("a").link_up().unwrap();
    let begun = Instant::now();
    while hosts.try_sh("a", "true").code != 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the host does not come back");
    }
    // The agent has not yet seen that nobody listens: the next run says who is at work, or finds it gone.
    assert_whole(&hosts);
    let begun = Instant::now();
    loop {
        let report = hosts.converge(&states("new")).report();
        if report.exit_code == 0 {
            break;
        }
        println!("{report}");
        assert!(begun.elapsed() < Duration::from_secs(60), "the host stays locked");
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_whole(&hosts);
    assert_eq!(new_files(&hosts), FILES);
    hosts.converge(&states("new")).succeeds().assert_unchanged();
}

#[test]
fn an_agent_that_is_killed() {
    let Some(hosts) = booted() else { return };
    let running = in_the_middle(&hosts);
    hosts.sh("a", "pkill -KILL -f converge/agent");
    let ended = running.ended();
    assert_eq!(ended.code, 3, "{ended}");
    assert_finishes(&hosts);
}

#[test]
fn a_host_that_loses_its_power() {
    let Some(hosts) = booted() else { return };
    let running = in_the_middle(&hosts);
    hosts.host("a").power_off_hard().unwrap();
    running.signal("KILL");
    running.ended();
    hosts.host("a").boot().unwrap();
    assert_finishes(&hosts);
}

#[test]
fn a_disk_that_is_full() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.sh("a", "mkdir /srv/many; mount -t tmpfs -o size=500k tmpfs /srv/many");
    // As many bytes as fit, but not twice.
    let small = |content: &str| {
        let mut text = String::new();
        for number in 0..100 {
            let body = format!("{content} {number} ").repeat(200);
            let _ = write!(text, "- file: /srv/many/{number}\n  content: \"{body}\"\n");
        }
        text
    };
    hosts.sh("a", "head -c 300k /dev/zero >/srv/many/.ballast");
    let report = hosts.converge(&small("new")).report();
    assert_eq!(report.exit_code, 3, "{report}");
    let failed: Vec<_> =
        report.only().resources.iter().filter(|one| one.verdict == "failed").collect();
    assert!(failed.iter().any(|one| one.because.contains("No space left")), "{report}");
    hosts.sh("a", "rm /srv/many/.ballast");
    assert_whole(&hosts);
    assert_swept(&hosts);
    hosts.converge(&small("new")).succeeds();
    assert_whole(&hosts);
    hosts.converge(&small("new")).succeeds().assert_unchanged();
    assert_eq!(hosts.sh("a", "ls -A /srv/many | wc -l").trim(), "100");
}

#[test]
fn a_run_that_is_interrupted_stops_cleanly() {
    let Some(hosts) = booted() else { return };
    let running = in_the_middle(&hosts);
    running.signal("INT");
    let begun = Instant::now();
    let ended = running.ended();
    assert_eq!(ended.code, 130, "{ended}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{ended}");
    assert!(
        ended.stdout.contains("what was in hand was finished, nothing more was begun"),
        "{ended}"
    );
    assert_swept(&hosts);
    assert_finishes(&hosts);
}

#[test]
fn an_agent_that_is_killed_while_it_checks() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let states = |content: &str| {
        format!(
            "\
- file: /srv/changed
  content: \"{content}\\n\"
  validate: test ! -e /srv/slow || sleep 300
- file: /srv/new
  state: {}
  content: new
  validate: test ! -e /srv/slow || sleep 300
",
            if content == "old" { "absent" } else { "present" }
        )
    };
    let old = states("old").replace("  content: new\n", "");
    hosts.converge(&old).succeeds();
    hosts.sh("a", "touch /srv/slow");
    let running = hosts.converge(&states("new")).start();
    let begun = Instant::now();
    while hosts.try_sh("a", "grep -qs new /srv/new && pgrep -f '[s]leep 300'").code != 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never came to its check");
    }
    hosts.sh("a", "pkill -KILL -f 'converge/[a]gent'; pkill -f '[s]leep 300'; rm /srv/slow");
    assert_eq!(running.ended().code, 3);
    // Nobody has checked what is there: it does not count.
    hosts.sh("a", "grep -q new /srv/changed");
    let plan = hosts.converge(&states("new")).args(&["--dry-run"]).report();
    assert_eq!(plan.count("change"), 2, "{plan}");
    let plan = hosts.converge(&old).args(&["--dry-run"]).report();
    plan.assert_unchanged();
    assert_eq!(hosts.sh("a", "cat /srv/changed"), "new\n", "a dry run changes nothing");
    hosts.converge(&old).succeeds().assert_unchanged();
    assert_eq!(hosts.sh("a", "cat /srv/changed; ls -A /srv"), "old\nchanged\n");
    hosts.converge(&states("new")).succeeds();
    assert_eq!(hosts.sh("a", "cat /srv/changed; ls -A /srv"), "new\nchanged\nnew\n");
}
