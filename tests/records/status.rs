use crate::hosts::Hosts;

const STATES: &str = "\
- file: /srv/kept
  content: kept
- file: /srv/edited
  content: one
- file: /srv/opened
  content: x
  mode: 0644
- symlink: /srv/link
  target: /srv/kept
- file: /etc/issue
  state: absent
- user: jack
  comment: Jack
- unit: idle.service
  content: |
    [Service]
    ExecStart=/bin/sleep infinity
- service: idle
";

#[test]
fn what_has_drifted_is_shown_with_the_run_that_left_it_otherwise() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let status = |arguments: &[&str]| {
        hosts.run(&["status", "-i", "test", "state.yml"]).args(arguments).ended()
    };
    hosts.write("state.yml", &crate::hosts::play(STATES));
    let never = status(&[]);
    assert_eq!(never.stdout, "a: no run has changed it, as far as it remembers\n", "{never}");
    let first = hosts.converge(STATES).succeeds();
    let second = hosts.converge(&STATES.replace("content: one", "content: two")).succeeds();
    let clean = status(&["--exit-code"]);
    assert_eq!(clean.code, 0, "{clean}");
    assert!(clean.stdout.starts_with("a: as it was left\n  last changed by run "), "{clean}");
    assert!(clean.stdout.contains(&second.run), "{clean}");

    hosts.sh(
        "a",
        "echo mine >/srv/edited; chmod 666 /srv/opened; rm /srv/link; echo back >/etc/issue; \
         usermod -c Other jack; systemctl stop idle",
    );
    let drifted = status(&["--format", "json", "--exit-code"]);
    assert_eq!(drifted.code, 2, "{drifted}");
    let document: serde_json::Value = serde_json::from_str(&drifted.stdout).unwrap();
    let mut found: Vec<String> = document["a"]["drift"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {}", one["id"].as_str().unwrap(), one["run"].as_str().unwrap()))
        .collect();
    found.sort();
    let mut expected: Vec<String> =
        ["file:/etc/issue", "file:/srv/opened", "service:idle", "symlink:/srv/link", "user:jack"]
            .map(|id| format!("{id} {}", first.run))
            .into();
    expected.push(format!("file:/srv/edited {}", second.run));
    expected.sort();
    assert_eq!(found, expected, "{drifted}");
    // Looking changes nothing; converging takes it back.
    assert_eq!(hosts.sh("a", "cat /srv/edited"), "mine\n");
    hosts.run(&["-i", "test", "state.yml"]).succeeds();
    let again = status(&["--exit-code"]);
    assert_eq!(again.code, 0, "{again}");
}
