//! What a plan says of a host before anything is there, exit codes, and the forms of a report.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod hosts;

use std::time::{Duration, Instant};

use hosts::{Hosts, assert_as_planned, play};

const CHAIN: &str = r#"
- package: nginx
- directory: /srv/shop
  owner: www-data
- user: shop
  system: true
  home: /srv/shop/home
- file: /srv/shop/shop.conf
  content: "port = 8000\n"
  owner: shop
- file: /etc/nginx/conf.d/shop.conf
  content: "server { listen 8080; return 200 'shop'; }\n"
- unit: shop.service
  content: |
    [Service]
    User=shop
    ExecStart=sleep 1000
    [Install]
    WantedBy=multi-user.target
- service: shop
  restart_on: [file:/srv/shop/shop.conf]
- service: nginx
  watch: ["file:/etc/nginx/conf.d/*"]
  check: nginx -t
- command: nginx -v
  unless: test -e /srv/shop/built
  id: build
- file: /srv/shop/built
- wait_for: the page
  http: http://127.0.0.1:8080/
  within: 20s
"#;

#[test]
fn a_chain_on_a_bare_host_is_planned_to_its_end() {
    let Some(hosts) = Hosts::with_packages(&["a"], &["nginx"]) else { return };
    let planned = hosts.converge(CHAIN).dry_run().succeeds();
    let said: Vec<String> = planned
        .only()
        .resources
        .iter()
        .map(|resource| {
            let mut text = format!("{} {}", resource.id, resource.verdict);
            for (word, names) in [("<-", &resource.depends_on), ("assuming", &resource.assuming)] {
                if !names.is_empty() {
                    text.push_str(&format!(" {word} {}", names.join(" ")));
                }
            }
            text
        })
        .collect();
    let expected = "\
package:nginx change
directory:/srv/shop depends <- package:nginx
user:shop depends <- package:nginx
file:/srv/shop/shop.conf depends <- package:nginx
file:/etc/nginx/conf.d/shop.conf depends <- package:nginx
unit:shop.service depends <- package:nginx
service:shop depends <- unit:shop.service
reaction:service:shop ok
service:nginx depends <- package:nginx
reaction:service:nginx depends <- file:/etc/nginx/conf.d/shop.conf service:nginx
command:build depends <- package:nginx directory:/srv/shop user:shop file:/srv/shop/shop.conf \
file:/etc/nginx/conf.d/shop.conf unit:shop.service service:shop service:nginx reaction:service:nginx
file:/srv/shop/built depends <- package:nginx command:build
wait_for:the page ok";
    assert_eq!(said.join("\n"), expected, "{planned}");
    let done = hosts.converge(CHAIN).succeeds();
    assert_as_planned(&planned, &done);
    hosts.sh("a", "systemctl is-active nginx shop");
    hosts.converge(CHAIN).succeeds().assert_unchanged();
    hosts.converge(CHAIN).dry_run().succeeds().assert_unchanged();
}

#[test]
fn exit_codes() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let states = "- file: /srv/one\n  content: one\n";
    for (arguments, code) in [
        (&["--dry-run"] as &[&str], 0),
        (&["--dry-run", "--exit-code"], 2),
        (&[], 0),
        (&["--dry-run", "--exit-code"], 0),
        (&["--limit", "nowhere"], 1),
        (&["--extra-vars", "{"], 1),
        (&["--no-such-option"], 1),
        (&["--untrusted"], 1),
    ] {
        let ended = hosts.converge(states).args(arguments).ended();
        assert_eq!(ended.code, code, "{arguments:?}\n{ended}");
    }
    let pending = "- file: /srv/two\n  content: two\n";
    let report = hosts.converge(pending).args(&["--dry-run", "--exit-code"]).report();
    assert_eq!(report.exit_code, 2, "{report}");

    for (text, code) in [
        ("hosts: all\nstates:\n- file: /srv/x\n  ownr: root\n", 1),
        ("hosts: nowhere\nstates:\n- file: /srv/x\n", 1),
        ("hosts: all\nstates:\n- file: /srv/x\n  content: '{{ missing }}'\n", 1),
        ("hosts: all\nstates:\n- file: /srv/missing/x\n", 3),
        ("hosts: all\nstates:\n- command: 'false'\n", 3),
    ] {
        let ended = hosts.converge_file(text).ended();
        assert_eq!(ended.code, code, "{text}\n{ended}");
    }
    hosts.sh("a", "[ ! -e /srv/x ]");
    let ended = hosts.run(&["-i", "no-such-inventory", "state.yml"]).ended();
    assert_eq!(ended.code, 1, "{ended}");
}

#[test]
fn a_host_that_cannot_be_reached_holds_up_nobody() {
    let Some(hosts) = Hosts::new(&["a", "b"]) else { return };
    let configuration = std::fs::read_to_string(hosts.path("home/.ssh/config")).unwrap();
    hosts.write("home/.ssh/config", &format!("{configuration}Host *\n  ConnectTimeout 20\n"));
    hosts.host("b").link_down().unwrap();
    let begun = Instant::now();
    let plays = "\
- name: first
  hosts: all
  states: [{ file: /srv/one, content: one }]
- name: second
  hosts: all
  states: [{ file: /srv/two, content: two }]
";
    let running = hosts.converge_file(plays).args(&["--format", "json"]).start();
    while hosts.try_sh("a", "test -e /srv/one").code != 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the other host was held up");
    }
    // Who comes late catches up, and only then the next play begins.
    assert_eq!(hosts.try_sh("a", "test -e /srv/two").code, 1, "the next play did not wait");
    hosts.host("b").link_up().unwrap();
    let ended = running.ended();
    assert_eq!(ended.code, 0, "{ended}");
    assert_eq!(hosts.sh("b", "cat /srv/one /srv/two"), "onetwo");
    let document: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(document["hosts"]["b"]["status"], "changed", "{ended}");

    hosts.write("home/.ssh/config", &format!("{configuration}Host *\n  ConnectTimeout 5\n"));
    hosts.host("b").link_down().unwrap();
    let report = hosts.converge_file(&plays.replace("content: ", "content: new ")).report();
    assert_eq!(report.exit_code, 3, "{report}");
    assert_eq!(report.hosts["a"].status, "changed", "{report}");
    assert_eq!(report.hosts["b"].status, "unreachable", "{report}");
    assert_eq!(hosts.sh("a", "cat /srv/one /srv/two"), "new onetwo");
}

#[test]
fn an_unknown_host_key_is_an_error_that_says_what_to_do() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let configuration = std::fs::read_to_string(hosts.path("home/.ssh/config")).unwrap();
    let known = hosts.host("a").known_hosts.display().to_string();
    let unknown = hosts.path("known").display().to_string();
    hosts.write("home/.ssh/config", &configuration.replace(&known, &unknown));
    let states = "- file: /srv/one\n  content: one\n";
    let report = hosts.converge(states).report();
    assert_eq!(report.exit_code, 3);
    let error = report.only().error.clone().unwrap();
    assert!(error.contains("is not known") && error.contains("accept it: `echo"), "{error}");

    // Another key than the one that is known.
    let Ok(other) = std::fs::read_to_string(hosts.host("a").identity_file.with_extension("pub"))
    else {
        panic!("the sandbox has no key");
    };
    hosts.write("known", &format!("{} {other}", hosts.host("a").address));
    let report = hosts.converge(states).report();
    assert_eq!(report.exit_code, 3);
    let error = report.only().error.clone().unwrap();
    assert!(error.contains("changed"), "{error}");
    hosts.sh("a", "[ ! -e /srv/one ]");
}

#[test]
fn reports_in_all_forms() {
    let Some(hosts) = Hosts::new(&["a", "b"]) else { return };
    let states = "- file: /srv/one\n  content: |\n    one\n    two\n- directory: /srv/folder\n";
    let ended = hosts
        .converge(states)
        .dry_run()
        .args(&[
            "--format",
            "markdown",
            "--report",
            "json=plan.json",
            "--report",
            "jsonl=plan.jsonl",
        ])
        .ended();
    assert_eq!(ended.code, 0, "{ended}");
    assert_eq!(ended.stdout.lines().next(), Some("<!-- converge test state.yml -->"), "{ended}");
    // Identical changes are shown once, with both hosts' names.
    assert_eq!(ended.stdout.matches("+two").count(), 1, "{ended}");
    let text = std::fs::read_to_string(hosts.path("plan.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["hosts"].as_object().unwrap().len(), 2);
    assert_eq!(document["dry_run"], true);
    let text = std::fs::read_to_string(hosts.path("plan.jsonl")).unwrap();
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.first().unwrap()["event"], "run_started");
    assert_eq!(events.last().unwrap()["event"], "run_done");

    let ended = hosts.converge(states).dry_run().ended();
    assert!(ended.stdout.contains("+two"), "a dry run shows differences\n{ended}");
    assert!(!ended.stdout.contains('\x1b'), "no colours without a terminal\n{ended}");
    hosts.sh("a", "[ ! -e /srv/one ]");
}

#[test]
fn what_a_command_might_do_is_assumed_or_waited_for() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.sh("a", "echo old >/srv/there");
    let states = r#"
- command: echo new >/srv/new; touch /srv/marker
  id: unknown
  creates: /srv/marker
- file: /srv/there
  content: "new\n"
- file: /srv/new
  content: "new\n"
- command: touch /srv/guarded
  unless: test -e /srv/marker
  id: guarded
- command: echo elsewhere >/srv/sub/elsewhere
  touches: [/srv/sub]
  creates: /srv/sub/elsewhere
  id: bounded
  require: directory:/srv/sub
- directory: /srv/sub
"#;
    let planned = hosts.converge(states).dry_run().succeeds();
    println!("{planned}");
    let there = planned.resource("file:/srv/there");
    assert_eq!(
        (there.verdict.as_str(), &there.assuming[..]),
        ("change", &["command:unknown".to_owned()][..])
    );
    let new = planned.resource("file:/srv/new");
    assert_eq!(
        (new.verdict.as_str(), &new.depends_on[..]),
        ("depends", &["command:unknown".to_owned()][..])
    );
    assert!(new.changes[0].diff.contains("+new"), "{new}");
    assert_eq!(planned.resource("command:guarded").verdict, "depends");
    let done = hosts.converge(states).succeeds();
    assert_as_planned(&planned, &done);
    assert_eq!(done.resource("file:/srv/new").verdict, "ok", "the command had made it");
    assert_eq!(done.resource("command:guarded").verdict, "ok");
    hosts.converge(states).succeeds().assert_unchanged();
}

#[test]
fn selection_by_host_tag_and_resource() {
    let Some(hosts) = Hosts::new(&["a", "b"]) else { return };
    let states = "\
- file: /srv/one
  tags: one
- file: /srv/two
  tags: two
";
    let report = hosts.converge(states).args(&["--limit", "a", "--tags", "one"]).report();
    assert_eq!(report.verdicts(), ["file:/srv/one change", "file:/srv/two skipped"]);
    let report = hosts.converge(states).args(&["--limit", "b", "--only", "file:/srv/t*"]).report();
    assert_eq!(report.verdicts(), ["file:/srv/one skipped", "file:/srv/two change"]);
    hosts.sh("a", "[ -e /srv/one ] && [ ! -e /srv/two ]");
    hosts.sh("b", "[ -e /srv/two ] && [ ! -e /srv/one ]");
    let ended = hosts.converge(states).args(&["--list-hosts", "--limit", "b"]).ended();
    assert_eq!(ended.stdout, "b\n");
    let ended = hosts.converge(states).args(&["--list-tags"]).ended();
    assert_eq!(ended.stdout, "one\ntwo\n");
}

#[test]
fn plays_follow_each_other_and_stop_after_a_failure() {
    let Some(hosts) = Hosts::new(&["a", "b"]) else { return };
    let first = play("- command: '[ $(hostname) = a ]'\n  id: fails\n- file: /srv/one\n");
    let second = play("- file: /srv/two\n");
    let list = |text: &str| text.replace('\n', "\n  ");
    let text = format!("- {}\n- {}\n", list(&first).trim_end(), list(&second).trim_end());
    let report = hosts.converge_file(&text).report();
    assert_eq!(report.exit_code, 3, "{report}");
    hosts.sh("a", "[ -e /srv/one ] && [ ! -e /srv/two ]");
    hosts.sh("b", "[ ! -e /srv/one ] && [ ! -e /srv/two ]");
    assert_eq!(report.hosts["b"].status, "failed");
    for (host, one, two) in [("a", "change", "skipped"), ("b", "skipped", "skipped")] {
        let verdict = |id: &str| {
            let mut found = report.hosts[host].resources.iter().filter(|one| one.id == id);
            found.next().unwrap().verdict.clone()
        };
        assert_eq!(
            (verdict("file:/srv/one"), verdict("file:/srv/two")),
            (one.into(), two.into()),
            "{report}"
        );
    }

    // Facts of one host are known to the play of another.
    let text = "- hosts: a\n  states:\n  - file: /srv/fact\n    content: \"{{ facts.hostname }} {{ facts.os.id }}\\n\"\n";
    hosts.converge_file(text).succeeds();
    hosts.sh("a", "[ \"$(cat /srv/fact)\" = 'a debian' ]");
}
