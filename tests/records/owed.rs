use std::time::{Duration, Instant};

use crate::hosts::{Hosts, Report};

/// A service that counts its reloads, something that keeps a run busy between the change and its
/// reaction, and a command that follows the change.
fn states(content: &str) -> String {
    format!(
        "\
- unit: counter.service
  content: |
    [Service]
    ExecStart=/bin/sleep infinity
    ExecReload=/bin/sh -c 'echo reload >>/srv/reloads'
- file: /srv/watched
  content: {content}
- command: echo follow >>/srv/follows
  id: follow
  onchanges: [file:/srv/watched]
  require: [command:busy]
- command: grep -q {content} /srv/began || {{ echo {content} >/srv/began; test -e /srv/quick || sleep 60; }}
  id: busy
  unless: grep -q {content} /srv/began
- service: counter
  watch: [file:/srv/watched]
  require: [command:busy]
"
    )
}

fn booted() -> Option<Hosts> {
    let hosts = Hosts::new(&["a"])?;
    hosts.sh("a", "touch /srv/quick /srv/began");
    hosts.converge(&states("one")).succeeds();
    hosts.sh("a", "rm /srv/quick; rm -f /srv/reloads /srv/follows");
    Some(hosts)
}

/// Kills the agent between a change and what follows from it.
fn cut_off(hosts: &Hosts) {
    let running = hosts.converge(&states("two")).start();
    let begun = Instant::now();
    while hosts.try_sh("a", "grep -q two /srv/began").code != 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never began");
    }
    hosts.sh("a", "pkill -KILL -f converge/agent");
    hosts.try_sh("a", "pkill -x -f 'sleep 60'");
    assert_eq!(running.ended().code, 3);
    assert_eq!(
        hosts.sh("a", "cat /srv/watched; cat /srv/reloads /srv/follows 2>/dev/null || true"),
        "two"
    );
}

fn owed(report: &Report) -> Vec<String> {
    let resources = report.only().resources.iter().filter(|resource| resource.owed);
    resources.map(|resource| resource.id.clone()).collect()
}

#[test]
fn what_a_dead_run_owed_is_shown_and_done_once() {
    let Some(hosts) = booted() else { return };
    cut_off(&hosts);
    let plan = hosts.converge(&states("two")).dry_run().succeeds();
    assert_eq!(owed(&plan), ["command:follow", "reaction:service:counter"], "{plan}");
    let reaction = plan.resource("reaction:service:counter");
    assert_eq!(reaction.changes[0].diff, "reload\n");
    assert!(reaction.because.contains("which changed file:/srv/watched"), "{plan}");
    let shown = hosts.run(&["-i", "test", "state.yml", "--dry-run"]).ended();
    assert!(shown.stdout.contains("was cut off here"), "{shown}");

    let run = hosts.converge(&states("two")).succeeds();
    assert_eq!(owed(&run), ["command:follow", "reaction:service:counter"], "{run}");
    assert_eq!(hosts.sh("a", "cat /srv/reloads /srv/follows"), "reload\nfollow\n");
    hosts.converge(&states("two")).succeeds().assert_unchanged();
    assert_eq!(hosts.sh("a", "cat /srv/reloads /srv/follows"), "reload\nfollow\n");
}

#[test]
fn what_was_owed_lapses_when_the_process_has_started_since() {
    let Some(hosts) = booted() else { return };
    cut_off(&hosts);
    hosts.sh("a", "systemctl restart counter");
    let plan = hosts.converge(&states("two")).dry_run().succeeds();
    assert_eq!(owed(&plan), ["command:follow"], "{plan}");
    hosts.converge(&states("two")).succeeds();
    assert_eq!(hosts.try_sh("a", "test -e /srv/reloads").code, 1);
    hosts.converge(&states("two")).succeeds().assert_unchanged();
}

#[test]
fn a_failure_between_a_change_and_its_reaction_owes_it() {
    let Some(hosts) = booted() else { return };
    let failing = format!("{}- command: 'false'\n  id: bad\n", states("two"));
    let failing = failing.replace(
        "require: [command:busy]\n- command: 'false'",
        "require: [command:bad]\n- command: 'false'",
    );
    hosts.sh("a", "touch /srv/quick");
    let failed = hosts.converge(&failing).report();
    assert_eq!(failed.exit_code, 3, "{failed}");
    assert_eq!(hosts.try_sh("a", "test -e /srv/reloads").code, 1);
    let run = hosts.converge(&states("two")).succeeds();
    assert_eq!(owed(&run), ["reaction:service:counter"], "{run}");
    assert_eq!(hosts.sh("a", "cat /srv/reloads"), "reload\n");
    hosts.converge(&states("two")).succeeds().assert_unchanged();
}

#[test]
fn another_state_file_does_not_pay() {
    let Some(hosts) = booted() else { return };
    cut_off(&hosts);
    hosts.write("other.yml", &crate::hosts::play(&states("two")));
    let other = hosts.run(&["-i", "test", "other.yml"]).succeeds();
    assert_eq!(owed(&other), Vec::<String>::new(), "{other}");
    let run = hosts.converge(&states("two")).succeeds();
    assert_eq!(owed(&run), ["command:follow", "reaction:service:counter"], "{run}");
}

#[test]
fn what_tags_have_left_out_is_owed() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let states = |content: &str| {
        format!(
            "- file: /srv/aliases\n  content: {content}\n  tags: [conf]\n\
             - command: echo new >>/srv/newaliases\n  id: newaliases\n  onchanges: [file:/srv/aliases]\n"
        )
    };
    hosts.converge(&states("one")).succeeds();
    hosts.converge(&states("two")).args(&["--tags", "conf"]).succeeds();
    assert_eq!(hosts.sh("a", "wc -l </srv/newaliases"), "1\n");
    let run = hosts.converge(&states("two")).succeeds();
    assert_eq!(owed(&run), ["command:newaliases"], "{run}");
    assert_eq!(hosts.sh("a", "wc -l </srv/newaliases"), "2\n");
    hosts.converge(&states("two")).succeeds().assert_unchanged();
}
