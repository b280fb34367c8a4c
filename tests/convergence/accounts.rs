//! Random users and groups on a host, and random states about them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::hosts::{Hosts, assert_as_planned, play};
use crate::random::Random;

/// Users and groups of one run.
const USERS: usize = 20;
const GROUPS: usize = 10;
/// Groups with lower numbers are named by users, the others come and go.
const LASTING: usize = 5;

/// All that there is of accounts, with the members of groups in order.
const PICTURE: &str = r"
sort /etc/passwd /etc/shadow
sed 's/:[^:]*$//' /etc/group /etc/gshadow | sort
awk -F: '{ n = split($4, members, /,/); for (i = 1; i <= n; i++) print FILENAME, $1, members[i] }' \
    /etc/group /etc/gshadow | sort
find /home /srv -printf '%p %y %m %U %G %l\n' | sort
";

/// A shell script that makes accounts of a round.
fn prior(random: &mut Random, round: usize) -> String {
    let mut script = String::new();
    for group in 0..GROUPS {
        if group < LASTING || random.one_in(2) {
            let gid = 3000 + 100 * round + group;
            let number = if random.one_in(2) { format!("-g {gid}") } else { String::new() };
            let _ = writeln!(script, "groupadd {number} g{round}-{group}");
        }
    }
    for user in 0..USERS {
        if random.one_in(3) {
            continue;
        }
        let mut line = String::from("useradd");
        if random.one_in(2) {
            line.push_str(" -m");
        }
        if random.one_in(3) {
            let _ = write!(line, " -u {}", 4000 + 100 * round + user);
        }
        if random.one_in(3) {
            line.push_str(" -s /usr/sbin/nologin");
        }
        if random.one_in(3) {
            line.push_str(" -c 'Somebody Else'");
        }
        if random.one_in(4) {
            line.push_str(" -p '$6$salt$hash'");
        }
        if random.one_in(4) {
            let _ = write!(line, " -g g{round}-4");
        }
        let groups: Vec<String> =
            (0..4).filter(|_| random.one_in(3)).map(|group| format!("g{round}-{group}")).collect();
        if !groups.is_empty() {
            let _ = write!(line, " -G {}", groups.join(","));
        }
        let _ = writeln!(script, "{line} u{round}-{user}");
    }
    script
}

fn states(random: &mut Random, round: usize) -> Vec<Value> {
    let mut states = Vec::new();
    for group in LASTING..GROUPS {
        let name = format!("g{round}-{group}");
        match random.below(4) {
            0 => states.push(json!({"group": name, "state": "absent"})),
            1 => states.push(json!({"group": name, "gid": 5000 + 100 * round + group})),
            2 => states.push(json!({"group": name, "system": true})),
            _ => {}
        }
    }
    for user in 0..USERS {
        let name = format!("u{round}-{user}");
        if random.one_in(4) {
            states.push(json!({"user": name, "state": "absent"}));
            continue;
        }
        let mut state = json!({"user": name});
        if random.one_in(4) {
            state["uid"] = json!(6000 + 100 * round + user);
        }
        if random.one_in(2) {
            let groups: Vec<String> = (0..4)
                .filter(|_| random.one_in(2))
                .map(|group| format!("g{round}-{group}"))
                .collect();
            state["groups"] = json!(groups);
            state["append"] = json!(random.one_in(2));
        }
        if random.one_in(4) {
            state["group"] = json!(format!("g{round}-{}", random.below(LASTING)));
        }
        if random.one_in(3) {
            state["comment"] = json!(*random.pick(&["", "Ann, of the crew", "Zo\u{eb}"]));
        }
        if random.one_in(3) {
            state["shell"] = json!(*random.pick(&["/bin/sh", "/bin/bash", "/usr/sbin/nologin"]));
        }
        if random.one_in(4) {
            state["home"] = json!(*random.pick(&["/nonexistent", "/srv/homes"]));
            if state["home"] == "/srv/homes" {
                state["home"] = json!(format!("/srv/home-{name}"));
            }
        }
        if random.one_in(4) {
            state["password_hash"] = json!(*random.pick(&["!", "$6$other$hash"]));
        }
        states.push(state);
    }
    states
}

/// One round; gives how many accounts it was about.
pub fn round(hosts: &Hosts, random: &mut Random, round: usize) -> usize {
    let script = prior(random, round);
    let states = states(random, round);
    println!("round {round}: {} states", states.len());
    hosts.sh("a", &script);
    let before = hosts.sh("a", PICTURE);
    let text = play(&serde_yaml::to_string(&states).unwrap());
    let planned = hosts.converge_file(&text).dry_run().succeeds();
    assert_eq!(hosts.sh("a", PICTURE), before, "a plan changes something");
    let done = hosts.converge_file(&text).report();
    assert_eq!(done.exit_code, 0, "{script}\n{text}\n{done}");
    assert_as_planned(&planned, &done);
    hosts.converge_file(&text).succeeds().assert_unchanged();
    let undone = hosts.run(&["undo", "-i", "test", &done.run]).ended();
    assert_eq!(undone.code, 0, "{script}\n{text}\n{undone}");
    let after = hosts.sh("a", PICTURE);
    let lines = |text: &str, other: &str| {
        let here = text.lines().filter(|line| !other.lines().any(|one| one == *line));
        here.map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(
        before == after,
        "{script}\n{text}\nbefore: {:#?}\nafter: {:#?}",
        lines(&before, &after),
        lines(&after, &before)
    );
    states.len()
}
