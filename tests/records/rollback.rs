use crate::hosts::{Ended, Hosts};

/// A service that reads its configuration when it is reloaded, and a play that is well as long as
/// nothing is broken.
fn play(content: &str, more: &str) -> String {
    format!(
        "\
- name: base
  hosts: all
  states:
    - file: /srv/base
      content: \"{content}\\n\"
- name: app
  hosts: all
  health: {{ command: test ! -e /srv/broken, within: 2s }}
  on_failure: rollback
  states:
    - unit: app.service
      content: |
        [Service]
        ExecStart=/bin/sh -c 'echo it begins with {content}; exec sleep infinity'
        ExecReload=/bin/sh -c 'cat /srv/app.conf >>/srv/reloads'
    - file: /srv/app.conf
      content: \"{content}\\n\"
    - file: /srv/{content}
      content: x
{more}    - service: app
      watch: [file:/srv/app.conf]
- name: after
  hosts: all
  states:
    - file: /srv/after
      content: \"{content}\\n\"
"
    )
}

fn converge(hosts: &Hosts, text: &str) -> Ended {
    hosts.write("state.yml", text);
    hosts.run(&["-i", "test", "state.yml"]).ended()
}

#[test]
fn a_play_that_is_not_well_takes_itself_back_on_all_hosts() {
    let Some(hosts) = Hosts::new(&["a", "b"]) else { return };
    assert_eq!(converge(&hosts, &play("one", "")).code, 0);
    hosts.sh("a", "touch /srv/broken");
    hosts.write("state.yml", &play("two", ""));
    let report = hosts.run(&["-i", "test", "state.yml"]).report();
    assert_eq!(report.exit_code, 4, "{report}");
    for host in ["a", "b"] {
        assert_eq!(report.hosts[host].status, "rolled_back", "{report}");
        let there = hosts.sh(
            host,
            "cat /srv/app.conf /srv/base /srv/after; test ! -e /srv/two; tail -n1 /srv/reloads || true; \
             systemctl is-active app; systemctl show -P ExecStart app | grep -o 'with [a-z]*'",
        );
        // The play before it stays; the play after it never began.
        assert!(there.starts_with("one\ntwo\none\n"), "{host}: {there}\n{report}");
        assert!(there.ends_with("active\nwith one\n"), "{host}: {there}\n{report}");
    }
    // What was seen is told before anything is undone.
    let error = report.hosts["a"].error.clone().unwrap();
    assert!(
        error.contains("wait_for:health") && error.contains("app.service said last:"),
        "{error}"
    );
    assert_eq!(report.hosts["b"].error.as_deref(), Some("another host failed"));

    hosts.sh("a", "rm /srv/broken");
    let healed = converge(&hosts, &play("two", ""));
    assert_eq!(healed.code, 0, "{healed}");
    assert_eq!(hosts.sh("a", "cat /srv/app.conf"), "two\n");
}

#[test]
fn a_first_time_goes_back_to_nothing_and_what_cannot_be_taken_back_is_named() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.sh("a", "touch /srv/broken");
    let failed = converge(&hosts, &play("one", ""));
    assert_eq!(failed.code, 4, "{failed}");
    let there = hosts.sh(
        "a",
        "ls /srv; systemctl is-active app || true; ls /etc/systemd/system | grep app || true",
    );
    assert_eq!(there, "base\nbroken\ninactive\n");

    // A command whose way back fails leaves the host where it is, and says so.
    let command = "    - command: touch /srv/told\n      creates: /srv/told\n      undo: echo no way back; exit 1\n";
    let stuck = converge(&hosts, &play("two", command));
    assert_eq!(stuck.code, 3, "{stuck}");
    assert!(stuck.stdout.contains("it was not taken back"), "{stuck}");

    let untold = "    - command: touch /srv/told\n      creates: /srv/told\n";
    let refused = converge(&hosts, &play("two", untold));
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.stderr.contains("cannot take command:touch /srv/told back"), "{refused}");
    assert!(refused.stderr.contains("irreversible: true"), "{refused}");
    let known = format!("{untold}      irreversible: true\n");
    let failed = converge(&hosts, &play("two", &known));
    assert_eq!(failed.code, 4, "{failed}");
    assert_eq!(hosts.sh("a", "ls /srv/told"), "/srv/told\n");
}

#[test]
fn health_is_checked_without_a_change_too() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    assert_eq!(converge(&hosts, &play("one", "")).code, 0);
    hosts.sh("a", "touch /srv/broken");
    let sick = converge(&hosts, &play("one", ""));
    // Nothing was changed, and nothing is taken back.
    assert_eq!(sick.code, 4, "{sick}");
    assert!(sick.stdout.contains("wait_for:health"), "{sick}");
    assert_eq!(hosts.sh("a", "cat /srv/app.conf; systemctl is-active app"), "one\nactive\n");
    let wrong = play("one", "")
        .replace("command: test ! -e /srv/broken, within: 2s", "command: x, from: controller");
    let refused = converge(&hosts, &wrong);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.stderr.contains("`from` of `health` is not supported"), "{refused}");
}

#[test]
fn health_has_to_last_as_long_as_is_said() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let play = |looks: u32| {
        format!(
            "\
hosts: all
health:
  - command: echo >>/srv/looks; test $(wc -l </srv/looks) -lt {looks}
    every: 50ms
    successes: 2
    for: 300ms
states:
  - directory: /srv/there
"
        )
    };
    let failed = converge(&hosts, &play(4));
    assert_eq!(failed.code, 3, "{failed}");
    assert!(failed.stdout.contains("and not for 0.3 s: the command ended with code 1"), "{failed}");
    hosts.sh("a", "rm /srv/looks");
    let failed = converge(&hosts, &play(2).replace("every", "within: 200ms\n    every"));
    assert!(failed.stdout.contains("it did not come true within 0.2 s"), "{failed}");
    hosts.sh("a", "rm /srv/looks");
    let well = converge(&hosts, &play(1_000));
    assert_eq!(well.code, 0, "{well}");
    let looks: u32 = hosts.sh("a", "wc -l </srv/looks").trim().parse().unwrap();
    assert!(looks >= 3, "{looks}");
}
