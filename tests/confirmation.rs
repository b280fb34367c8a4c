//! Changes that lock their operator out take themselves back.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod hosts;

use std::time::{Duration, Instant};

use hosts::{Hosts, Report, Run};

/// A user who may become root.
const SAILOR: &str = "
useradd -m -s /bin/sh sailor
install -d -m 700 -o sailor -g sailor /home/sailor/.ssh
install -m 600 -o sailor -g sailor /root/.ssh/authorized_keys /home/sailor/.ssh/authorized_keys
echo 'sailor ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/sailor
";

fn booted() -> Option<Hosts> {
    let hosts = Hosts::new(&["a"])?;
    hosts.sh("a", SAILOR);
    Some(hosts)
}

/// A run that logs in as that user.
fn run<'h>(hosts: &'h Hosts, states: &str) -> Run<'h> {
    let text = format!("become: true\n{}", hosts::play(states));
    hosts.converge_file(&text).args(&["-u", "sailor"])
}

/// sshd is told something, and reads it.
fn sshd(line: &str, more: &str) -> String {
    format!(
        "\
- file: /etc/ssh/sshd_config.d/10-test.conf
  content: \"{line}\\n\"
  {more}
- file: /etc/after
  content: after
  require: [service:ssh]
- service: ssh
  watch: [file:/etc/ssh/sshd_config.d/*]
  check: sshd -t
"
    )
}

/// The run has failed, and says of these that they went back.
fn assert_taken_back(report: &Report, ids: &[&str]) {
    assert_eq!(report.exit_code, 3, "{report}");
    for id in ids {
        let resource = report.resource(id);
        assert_eq!(resource.verdict, "failed", "{report}");
        for words in ["no fresh login worked after it within 3 s", "it was taken back"] {
            assert!(resource.because.contains(words), "{id}: {}", resource.because);
        }
    }
}

#[test]
fn what_locks_its_operator_out_goes_back() {
    let Some(hosts) = booted() else { return };
    let own = "confirm_connection: 3s";
    let file = "file:/etc/ssh/sshd_config.d/10-test.conf";
    let report = run(&hosts, &sshd("DenyUsers sailor", own)).report();
    assert_taken_back(&report, &[file, "reaction:service:ssh"]);
    hosts.sh("a", "[ ! -e /etc/ssh/sshd_config.d/10-test.conf ]");
    // What it was before is on the records, and what took it back is a run of its own.
    let history = run_history(&hosts);
    assert!(history.contains(&format!("{}-back", report.run)), "{history}");
    assert!(history.contains(&format!("undo {}", report.run)), "{history}");
    // What decides about root is as much of a lock as what decides about logins.
    let sudoers = "\
- file: /etc/sudoers.d/zz-nobody
  content: \"sailor ALL=(ALL) !ALL\\n\"
  mode: \"0440\"
  validate: visudo -cf %s
  confirm_connection: 3s
";
    let report = run(&hosts, sudoers).report();
    assert_taken_back(&report, &["file:/etc/sudoers.d/zz-nobody"]);
    let keys = "\
- file: /home/sailor/.ssh/authorized_keys
  content: \"\"
  confirm_connection: 3s
- file: /etc/beside
  content: beside
";
    let before = hosts.sh("a", "cat /home/sailor/.ssh/authorized_keys");
    let report = run(&hosts, keys).report();
    assert_taken_back(&report, &["file:/home/sailor/.ssh/authorized_keys"]);
    assert_eq!(hosts.sh("a", "cat /home/sailor/.ssh/authorized_keys"), before);
    // All else stays.
    hosts.sh("a", "[ -e /etc/beside ]");
    // And it can be had, by who says so.
    let asked = sudoers.replace("3s", "false");
    run(&hosts, &asked).succeeds();
    hosts.sh("a", "[ -e /etc/sudoers.d/zz-nobody ] && [ -z \"$(pgrep -f [u]nless-confirmed)\" ]");
}

fn run_history(hosts: &Hosts) -> String {
    let ended = hosts.run(&["history", "-i", "test", "-u", "sailor", "-b"]).ended();
    assert_eq!(ended.code, 0, "{ended}");
    ended.stdout
}

#[test]
fn what_locks_nobody_out_stays() {
    let Some(hosts) = booted() else { return };
    let states = sshd("X11Forwarding no", "");
    let report = run(&hosts, &states).succeeds();
    assert_eq!(report.resource("reaction:service:ssh").verdict, "change", "{report}");
    hosts.sh("a", "sshd -T | grep -qx 'x11forwarding no'");
    hosts.sh("a", "[ -e /etc/after ] && [ -z \"$(pgrep -f [u]nless-confirmed)\" ]");
    run(&hosts, &states).succeeds().assert_unchanged();
    // Nobody logs in anew for what decides nothing.
    let logins = || hosts.sh("a", "journalctl -u ssh | grep -c 'Accepted publickey for sailor'");
    let before: u32 = logins().trim().parse().unwrap();
    run(&hosts, "- file: /etc/else\n  content: else\n").succeeds();
    let after: u32 = logins().trim().parse().unwrap();
    assert_eq!(after - before, 1);
}

#[test]
fn a_run_that_dies_before_it_is_confirmed() {
    let Some(hosts) = booted() else { return };
    let states = sshd("DenyUsers sailor", "");
    let running = run(&hosts, &states).start();
    let wait = |what: &str, script: &str| {
        let begun = Instant::now();
        while hosts.try_sh("a", script).code != 0 {
            assert!(begun.elapsed() < Duration::from_secs(30), "waiting for: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait("a refused login", "journalctl -u ssh | grep -q 'sailor.*not allowed because listed'");
    hosts.sh("a", "pkill -KILL -f 'converge/[a]gent'");
    running.signal("KILL");
    // It may have seen by then that its agent is gone.
    let code = running.ended().code;
    assert!([-9, 3].contains(&code), "{code}");
    wait("the file is gone", "[ ! -e /etc/ssh/sshd_config.d/10-test.conf ]");
    wait("the lock is free", "[ -z \"$(pgrep -f [u]nless-confirmed)\" ]");
    run(&hosts, &sshd("X11Forwarding no", "")).succeeds();
}
