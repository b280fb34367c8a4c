use std::time::{Duration, Instant};

use crate::hosts::{Hosts, Running, play};

const SLOW: &str = "- command: touch /run/began; sleep 4; echo x >>/srv/slow\n";

/// Starts a run that takes a while on one host, and waits until it changes it.
fn slow(hosts: &Hosts, host: &str) -> Running {
    hosts.write("slow.yml", &play(SLOW));
    let running = hosts.run(&["-i", "test", "slow.yml", "--limit", host]).start();
    let begun = Instant::now();
    while hosts.try_sh(host, "test -e /run/began").code != 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never began");
    }
    running
}

#[test]
fn a_host_is_changed_by_one_run_at_a_time() {
    let Some(hosts) = Hosts::new(&["a", "b"]) else { return };
    let running = slow(&hosts, "b");
    hosts.write("quick.yml", &play("- file: /srv/quick\n  content: x"));
    let refused = hosts.run(&["-i", "test", "quick.yml"]).report();
    assert_eq!(refused.exit_code, 5, "{refused}");
    let error = refused.hosts["b"].error.clone().unwrap();
    assert!(error.contains("slow.yml for test, by "), "{error}");
    assert!(error.contains(", since 20") && error.contains("is changing this host"), "{error}");
    assert_eq!(refused.hosts["a"].status, "skipped", "{refused}");
    assert_eq!(hosts.try_sh("a", "test -e /srv/quick").code, 1, "a host was changed all the same");

    // Looking is always allowed, and says that things are moving.
    let looking = hosts.run(&["-i", "test", "quick.yml", "--dry-run"]).ended();
    assert_eq!(looking.code, 0, "{looking}");
    assert!(looking.stdout.contains("is changing this host meanwhile"), "{looking}");

    let waited = hosts.run(&["-i", "test", "quick.yml", "--wait"]).succeeds();
    assert_eq!(waited.count("change"), 2, "{waited}");
    assert_eq!(running.ended().code, 0);
    assert_eq!(hosts.sh("b", "cat /srv/slow"), "x\n");
}

#[test]
fn a_lock_dies_with_its_holder() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let running = slow(&hosts, "a");
    hosts.sh("a", "pkill -KILL -f converge/agent");
    assert_eq!(running.ended().code, 3);
    hosts.converge("- file: /srv/quick\n  content: x").succeeds();
}

#[test]
fn runs_that_want_each_others_hosts_do_not_block_each_other() {
    let Some(hosts) = Hosts::new(&["a", "b"]) else { return };
    hosts.write("inventory/forth.yml", "all:\n  hosts:\n    a:\n    b:\n");
    hosts.write("inventory/back.yml", "all:\n  hosts:\n    b:\n    a:\n");
    let state = |word: &str| play(&format!("- command: echo {word} >>/srv/log; sleep 1"));
    hosts.write("forth.yml", &state("forth"));
    hosts.write("back.yml", &state("back"));
    let running: Vec<Running> = (0..3)
        .flat_map(|_| {
            ["forth", "back"]
                .map(|name| hosts.run(&["-i", name, &format!("{name}.yml"), "--wait"]).start())
        })
        .collect();
    for run in running {
        let ended = run.ended();
        assert_eq!(ended.code, 0, "{ended}");
    }
    for host in ["a", "b"] {
        assert_eq!(hosts.sh(host, "wc -l </srv/log"), "6\n");
    }
}

#[test]
fn root_and_an_account_do_not_change_the_account_at_once() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.sh(
        "a",
        "useradd -m -s /bin/sh dep; mkdir -p ~dep/.ssh; cp /root/.ssh/authorized_keys ~dep/.ssh/; \
         chown -R dep: ~dep",
    );
    hosts.write("own.yml", &play("- command: touch /tmp/began; sleep 3\n"));
    // Its first run leaves the state folder that locks are kept in.
    let own = || hosts.run(&["-i", "test", "own.yml", "--user", "dep"]);
    own().succeeds();
    hosts.sh("a", "rm /tmp/began");
    let running = own().start();
    let begun = Instant::now();
    while hosts.try_sh("a", "test -e /tmp/began").code != 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never began");
    }
    let state = "- file: /home/dep/x\n  content: x\n  become: true\n  become_user: dep\n";
    let refused = hosts.converge(state).report();
    assert_eq!(refused.exit_code, 5, "{refused}");
    let error = refused.only().error.clone().unwrap();
    assert!(error.contains("what belongs to dep here"), "{error}");
    assert_eq!(running.ended().code, 0);
    hosts.converge(state).succeeds();
}
