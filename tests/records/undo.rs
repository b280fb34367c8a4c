use crate::hosts::{Ended, Hosts};

/// All of a host that states change here, in lines that can be compared.
const PICTURE: &str = "\
find /srv /home /etc/systemd/system -printf '%p %y %m %u %g %l\\n' | sort
find /srv -type f -exec sha256sum {} + | sort
sort /etc/passwd /etc/shadow /etc/group /etc/gshadow
dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\\n' | grep 'ii *$'
systemctl is-active odd cron || true
systemctl is-enabled odd cron || true
";

/// What the host is before.
const BEFORE: &str = "\
mkdir -p /srv/old/deep; echo old >/srv/old/file; echo x >/srv/old/deep/x; chmod 640 /srv/old/file
chown daemon:adm /srv/old/file; ln -s old /srv/link; echo line >/srv/lines; printf 'no newline' >/srv/odd
groupadd crew; useradd -m -G crew -c Before old; useradd -M gone
printf '[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n' \\
    >/etc/systemd/system/odd.service; systemctl daemon-reload; systemctl -q start odd
";

const STATES: &str = "\
- package: gawk
- file: /srv/old/file
  content: new
  mode: 0644
  owner: root
- file: /srv/new/file
  content: new
  require: [directory:/srv/new]
- directory: /srv/new
- directory: /srv/old/deep
  state: absent
- file: /srv/odd
  state: absent
- symlink: /srv/link
  target: new
- line_in_file: /srv/lines
  line: second
- user: fresh
- group: sailors
- user: old
  comment: After
  groups: [sailors]
- user: gone
  state: absent
- service: odd
  state: stopped
  enabled: true
- command: touch /srv/made
  creates: /srv/made
  undo: rm /srv/made
";

fn undo(hosts: &Hosts, run: &str, arguments: &[&str]) -> Ended {
    hosts.run(&["undo", "-i", "test", run]).args(arguments).ended()
}

#[test]
fn undo_gives_back_exactly_what_was() {
    let Some(hosts) = Hosts::with_packages(&["a"], &["gawk"]) else { return };
    hosts.sh("a", BEFORE);
    let before = hosts.sh("a", PICTURE);
    let run = hosts.converge(STATES).succeeds();
    assert_ne!(hosts.sh("a", PICTURE), before);

    let plan = undo(&hosts, &run.run, &["--dry-run"]);
    assert_eq!(plan.code, 0, "{plan}");
    assert!(plan.stdout.contains("-new\n"), "{plan}");
    let done = undo(&hosts, &run.run, &[]);
    assert_eq!(done.code, 0, "{done}");
    let after = hosts.sh("a", PICTURE);
    for (was, is) in before.lines().zip(after.lines()) {
        assert_eq!(was, is, "{done}");
    }
    assert_eq!(before, after);
    // Taken back once more, it is as declared again.
    let history = hosts.run(&["history", "-i", "test", "--format", "json"]).ended();
    let runs: serde_json::Value = serde_json::from_str(&history.stdout).unwrap();
    let undone = runs[0]["id"].as_str().unwrap();
    assert_eq!(runs[0]["purpose"], format!("undo {}", run.run));
    let again = undo(&hosts, undone, &[]);
    assert_eq!(again.code, 0, "{again}");
    // What took the command back names nothing that takes it back in turn.
    assert!(again.stdout.contains("command:touch /srv/made: cannot be taken back"), "{again}");
    let left = hosts.converge(STATES).succeeds();
    assert_eq!(left.count("change"), 1, "{left}");
    assert_eq!(left.resource("command:touch /srv/made").verdict, "change", "{left}");
}

#[test]
fn what_others_changed_since_is_not_overwritten_without_force() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.sh("a", "echo old >/srv/file; echo old >/srv/other");
    let states = "- file: /srv/file\n  content: new\n- file: /srv/other\n  content: new\n";
    let run = hosts.converge(states).succeeds();
    hosts.sh("a", "echo mine >/srv/file");
    let refused = undo(&hosts, &run.run, &[]);
    assert_eq!(refused.code, 3, "{refused}");
    assert!(refused.stdout.contains("not as that run left it: /srv/file (changed)"), "{refused}");
    assert!(refused.stdout.contains("--force"), "{refused}");
    assert_eq!(hosts.sh("a", "cat /srv/file /srv/other"), "mine\nnew", "nothing is done by half");
    let forced = undo(&hosts, &run.run, &["--force"]);
    assert_eq!(forced.code, 0, "{forced}");
    assert_eq!(hosts.sh("a", "cat /srv/file /srv/other"), "old\nold\n");
}

#[test]
fn one_path_that_several_states_and_steps_have_changed() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.sh(
        "a",
        "mkdir -p /srv/tree; echo one >/srv/lines; echo x >/srv/tree/d; chmod 640 /srv/lines",
    );
    let before = hosts.sh("a", PICTURE);
    hosts.write("files/tree/d/e", "e");
    // A number in place of a name, two edits of one file, and a directory in place of a file.
    let states = "\
- file: /srv/new
  content: new
  replace: false
  group: \"0\"
- line_in_file: /srv/new
  line: second
- line_in_file: /srv/lines
  line: two
- line_in_file: /srv/lines
  line: three
- tree: /srv/tree
  source: tree
";
    let run = hosts.converge(states).succeeds();
    let done = undo(&hosts, &run.run, &[]);
    assert_eq!(done.code, 0, "{done}");
    assert_eq!(hosts.sh("a", PICTURE), before);
    // What was taken back already is not what somebody else has changed.
    let again = undo(&hosts, &run.run, &[]);
    assert_eq!(again.code, 0, "{again}");
}

#[test]
fn services_take_up_what_is_restored_and_what_cannot_be_is_named() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.sh("a", "echo old >/srv/watched");
    let states = |content: &str| {
        format!(
            "\
- unit: counter.service
  content: |
    [Service]
    ExecStart=/bin/sleep infinity
    ExecReload=/bin/sh -c 'cat /srv/watched >>/srv/reloads'
- file: /srv/watched
  content: \"{content}\\n\"
- command: echo irrevocable >/srv/told
  creates: /srv/told
- service: counter
  watch: [file:/srv/watched]
"
        )
    };
    hosts.converge(&states("old")).succeeds();
    hosts.sh("a", "rm /srv/told");
    let run = hosts.converge(&states("new")).succeeds();
    let done = undo(&hosts, &run.run, &[]);
    assert_eq!(done.code, 0, "{done}");
    assert_eq!(hosts.sh("a", "cat /srv/reloads"), "new\nold\n");
    assert!(done.stdout.contains("cannot be taken back: the command names no `undo`"), "{done}");
}

#[test]
fn a_run_that_nobody_knows_is_an_error() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let unknown = undo(&hosts, "20200101T000000Z-0000", &[]);
    assert_eq!(unknown.code, 3, "{unknown}");
    assert!(unknown.stderr.contains("no host has changes of a run"), "{unknown}");
}

#[test]
fn groups_and_their_members_come_back_together() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let picture = "sort /etc/passwd /etc/group /etc/gshadow";
    hosts.sh("a", "groupadd crew; useradd -M -G crew,audio jack; useradd -M -g crew jill");
    let before = hosts.sh("a", picture);
    let user = |name: &str| format!("- user: {name}\n  state: absent\n");
    let group = "- group: crew\n  state: absent\n";
    let (jack, jill) = (user("jack"), user("jill"));
    for states in [
        format!("{jack}{jill}{group}"),
        format!("{jill}{jack}{group}"),
        format!("{jill}{group}{jack}"),
        format!("{jill}{group}"),
    ] {
        let run = hosts.converge(&states).succeeds().run;
        assert_ne!(hosts.sh("a", picture), before);
        let undone = undo(&hosts, &run, &[]);
        assert_eq!(undone.code, 0, "{states}{undone}");
        assert_eq!(hosts.sh("a", picture), before, "{states}");
    }
}
