//! `converge test` and `converge sandbox`: throw-away hosts from the command line.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod hosts;

use std::process::{Command, Stdio};

use hosts::{Ended, can_boot};
use tempfile::TempDir;

/// A project with an inventory of sandbox hosts, whose hosts end with it.
struct Project(TempDir);

impl Project {
    fn new() -> Option<Self> {
        if !can_boot() {
            return None;
        }
        let project = Self(tempfile::tempdir().unwrap());
        project.write(
            "inventory/sandbox.yml",
            "all:\n  vars:\n    connection: sandbox\n  hosts:\n    web1:\n    web2:\n",
        );
        Some(project)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let output = Command::new(env!("CARGO_BIN_EXE_converge"))
            .args(arguments)
            .current_dir(self.0.path())
            .env("CONVERGE_STATE_DIR", self.0.path().join("state"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Ended::of(output)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        self.run(&["sandbox", "down"]);
    }
}

#[test]
fn a_rehearsal_that_succeeds() {
    let Some(project) = Project::new() else { return };
    let states = "
- package: hello
- user: shop
- directory: /srv/shop
  owner: shop
- file: /srv/shop/one
  content: \"{{ inventory_hostname }}\\n\"
- command: hello >/srv/shop/two
  creates: /srv/shop/two
  id: two
- unit: shop.service
  content: |
    [Service]
    ExecStart=sleep 1000
    [Install]
    WantedBy=multi-user.target
- service: shop
  restart_on: [file:/srv/shop/one]
";
    project.write("states/small.yml", &hosts::play(states));
    let ended = project.run(&["test", "-i", "sandbox", "small.yml"]);
    assert_eq!(ended.code, 0, "{ended}");
    assert!(ended.stdout.contains("the rehearsal succeeded"), "{ended}");
    // Its hosts are gone.
    let ended = project.run(&["sandbox", "list"]);
    assert_eq!(ended.stdout, "", "{ended}");
    assert!(ended.stderr.contains("no sandbox host of the inventory `sandbox` is up"), "{ended}");
}

#[test]
fn a_rehearsal_that_shows_what_does_not_converge() {
    let Some(project) = Project::new() else { return };
    let states = "- command: date >>/srv/log\n  id: unguarded\n- file: /srv/one\n";
    project.write("never.yml", &hosts::play(states));
    let ended = project.run(&["test", "-i", "sandbox", "never.yml", "--limit", "web1"]);
    assert_eq!(ended.code, 3, "{ended}");
    let line = "web1: command:unguarded changed again in the second run (never.yml:4:5): a command without a guard";
    assert!(ended.stdout.contains(line), "{ended}");
}

#[test]
fn hosts_that_are_kept() {
    let Some(project) = Project::new() else { return };
    let up = project.run(&["sandbox", "up"]);
    assert_eq!(up.code, 0, "{up}");
    let list = project.run(&["sandbox", "list"]);
    assert_eq!(list.stdout, up.stdout);
    let lines: Vec<&str> = list.stdout.lines().collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.ends_with("  up")), "{list}");

    project.write("one.yml", &hosts::play("- file: /srv/one\n  content: one\n"));
    let ended = project.run(&["-i", "sandbox", "one.yml"]);
    assert_eq!(ended.code, 0, "{ended}");
    let ended = project.run(&["-i", "sandbox", "one.yml", "--dry-run", "--exit-code"]);
    assert_eq!(ended.code, 0, "{ended}");
    let ended = project.run(&["sandbox", "ssh", "web1", "cat", "/srv/one"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "one"), "{ended}");
    let ended = project.run(&["sandbox", "ssh", "web1", "exit 7"]);
    assert_eq!(ended.code, 7, "{ended}");

    let ended = project.run(&["sandbox", "down"]);
    assert_eq!(ended.code, 0, "{ended}");
    let ended = project.run(&["sandbox", "list"]);
    assert_eq!(ended.stdout, "", "{ended}");
    let ended = project.run(&["sandbox", "ssh", "web1", "true"]);
    assert_eq!(ended.code, 3, "{ended}");
}
