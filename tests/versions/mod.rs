//! States that make more than forty changes and several reactions whenever their version does, and what a host looks
//! like that has come to one: for runs that are cut off.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use converge::sandbox::Host;

/// More than forty changes in several waves, with reactions of all sorts among and after them.
pub fn states(version: u32) -> String {
    let parity = if version.is_multiple_of(2) { "absent" } else { "present" };
    let mut text = format!(
        "\
- file: /srv/reloaded
  content: \"{version}\\n\"
- file: /srv/restarted
  content: \"{version}\\n\"
- file: /srv/followed
  content: \"{version}\\n\"
- unit: reloads.service
  content: |
    [Service]
    ExecStart=/bin/sleep infinity
    ExecReload=/bin/sh -c 'cat /srv/reloaded >>/srv/reloads.log'
- unit: starts.service
  content: |
    [Service]
    ExecStartPre=/bin/sh -c 'cat /srv/restarted >>/srv/starts.log'
    ExecStart=/bin/sleep infinity
- unit: changes.service
  content: |
    [Service]
    ExecStartPre=/bin/sh -c 'echo {version} >>/srv/changes.log'
    ExecStart=/bin/sleep infinity
- user: sailor
  comment: version {version}
- directory: /srv/wave0
- directory: /srv/comes
  state: {parity}
- symlink: /srv/link
  target: version{version}
- command: cat /srv/followed >>/srv/follows.log
  id: follow
  onchanges: [file:/srv/followed]
  touches: [/srv/follows.log]
"
    );
    for wave in 1..=4 {
        let before = wave - 1;
        let _ = write!(
            text,
            "\
- directory: /srv/wave{wave}
  mode: \"07{wave}{}\"
  require: [directory:/srv/wave{before}]
- command: echo {version} >/srv/step{wave}
  id: step{wave}
  unless: grep -qx {version} /srv/step{wave}
  touches: [/srv/step{wave}]
  require: [directory:/srv/wave{wave}]
- line_in_file: /srv/lines{wave}
  match: \"^version\"
  line: version {version}
  require: [command:step{wave}]
- file: /srv/wave{wave}/checked
  content: \"{version}\\n\"
  validate: grep -qx {version} %s
  require: [command:step{wave}]
- file: /srv/wave{wave}/group
  content: \"{version}\\n\"
  validate: test -e /srv/wave1/group
  require: [command:step{wave}]
- symlink: /srv/wave{wave}/link
  target: \"{version}\"
  require: [command:step{wave}]
",
            version % 6
        );
        for file in 0..3 {
            let _ = write!(
                text,
                "- file: /srv/wave{wave}/{file}\n  content: \"{version}\\n\"\n  require: [command:step{wave}]\n"
            );
        }
    }
    text.push_str(
        "\
- service: reloads
  watch: [file:/srv/reloaded]
  require: [command:step3]
- service: starts
  restart_on: [file:/srv/restarted]
- service: changes
  watch: [file:/srv/followed]
  require: [command:step2]
",
    );
    text
}

/// All of a host is of that version, and all reactions have seen it.
pub fn assert_converged(host: &Host, version: u32) {
    let Host { name, root, .. } = host;
    let read =
        |path: &str| fs::read_to_string(root.join(path)).unwrap_or_else(|error| error.to_string());
    let last = |path: &str| read(path).lines().last().unwrap_or_default().to_owned();
    let wanted = version.to_string();
    for log in ["reloads", "starts", "changes", "follows"] {
        let log = format!("srv/{log}.log");
        assert_eq!(last(&log), wanted, "{name}: a reaction is lost: {log}\n{}", read(&log));
    }
    for file in ["reloaded", "restarted", "followed"] {
        assert_eq!(last(&format!("srv/{file}")), wanted, "{name}: {file}");
    }
    let link = |path: &str| fs::read_link(root.join(path)).unwrap();
    assert_eq!(link("srv/link"), Path::new(&format!("version{version}")), "{name}");
    assert_eq!(root.join("srv/comes").exists(), !version.is_multiple_of(2), "{name}");
    for wave in 1..=4 {
        assert_eq!(read(&format!("srv/lines{wave}")), format!("version {version}\n"), "{name}");
        assert_eq!(link(&format!("srv/wave{wave}/link")), Path::new(&wanted), "{name}");
        for file in ["0", "1", "2", "checked", "group"] {
            let file = format!("srv/wave{wave}/{file}");
            assert_eq!(read(&file), format!("{version}\n"), "{name}: {file}");
        }
    }
    let comment = format!(":version {version}:");
    assert!(read("etc/passwd").contains(&comment), "{name}: {}", read("etc/passwd"));
}

/// Nothing temporary is left anywhere on hosts.
pub fn assert_swept<'a>(hosts: impl IntoIterator<Item = &'a Host>) {
    let mut find = Command::new("find");
    find.args(hosts.into_iter().map(|host| &host.root));
    find.args(["-xdev", "(", "-name", ".*.converge-*", "-o", "-name", ".*.new", ")", "-print"]);
    let found = find.output().unwrap();
    assert!(found.status.success(), "{found:?}");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "left behind");
}
