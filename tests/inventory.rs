//! Inventories against what `ansible-inventory` of ansible-core 2.19.14 printed for them, and what
//! is said of inventories that are wrong.
//!
//! A case is a folder of `tests/inventory`: `arguments` has an `-i` a line, `list.json` and
//! `graph.txt` the answers to `--list` and `--graph`, printed in that folder. Variables beside the
//! state file are in `play`, which Ansible was told of with `--playbook-dir`; without it, Ansible
//! takes the working directory. What Ansible does not read has `refused` instead.
//! `tests/inventory/expected.py` asks Ansible again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use converge::diagnostic::{Diagnostics, Severity, Sources};
use converge::inventory::{Given, Inventory, Pattern, Spec, Trust};
use serde_json::Value as Json;

fn load(folder: &Path, arguments: &[&str]) -> (Inventory, Sources, Diagnostics) {
    let given = arguments.iter().map(|argument| {
        let path = folder.join(argument);
        if argument.contains(',') && !path.exists() {
            Given::Hosts((*argument).to_owned())
        } else {
            Given::Path(path)
        }
    });
    let mut spec = Spec::new(given.collect(), folder.to_owned());
    let play = folder.join("play");
    spec.beside = vec![if play.is_dir() { play } else { folder.to_owned() }];
    let sources = Sources::default();
    let mut diagnostics = Diagnostics::default();
    let inventory = Inventory::load(&sources, &spec, &mut diagnostics);
    (inventory, sources, diagnostics)
}

/// One line each: place, message, and what is said there.
fn said(diagnostics: &Diagnostics, sources: &Sources) -> Vec<String> {
    let lines = diagnostics.sorted().into_iter().map(|one| {
        let labels = one.labels.iter().map(|label| {
            let separator = if label.text.is_empty() { "" } else { " " };
            format!("{}{separator}{}", sources.place(label.span), label.text)
        });
        std::iter::once(one.message.clone()).chain(labels).collect::<Vec<_>>().join("; ")
    });
    lines.collect()
}

#[test]
fn inventories_are_listed_as_ansible_lists_them() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inventory");
    let reasons = fs::read_to_string(cases.join("intended.yml")).unwrap();
    let reasons: BTreeMap<String, Vec<String>> = serde_yaml::from_str(&reasons).unwrap();
    let intended: BTreeSet<String> = reasons.into_values().flatten().collect();
    let mut folders: Vec<PathBuf> = fs::read_dir(cases)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("arguments").is_file())
        .collect();
    folders.sort();
    let answers: BTreeMap<String, [String; 2]> =
        folders.iter().flat_map(|folder| answers(folder)).collect();
    assert!(answers.len() >= 270, "{}", answers.len());
    let unknown: Vec<_> = intended.iter().filter(|name| !answers.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "intended.yml names cases that are not there: {unknown:?}");
    let mut wrong = Vec::new();
    for (name, [expected, found]) in &answers {
        match (expected == found, intended.contains(name)) {
            (false, false) => {
                wrong.push(format!("{name}: expected\n{expected}\nfound\n{found}"));
            }
            (true, true) => wrong.push(format!("{name} is listed and does not differ")),
            _ => {}
        }
    }
    // Not captured, so that every run says it.
    let (all, intended) = (answers.len(), intended.len());
    let line = format!("inventories: {all} cases, {intended} intended differences, 0 wrong\n");
    assert!(wrong.is_empty(), "{}\n{} cases", wrong.join("\n"), wrong.len());
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

/// Ansible's answers about an inventory, and ours, by case: `FOLDER/FILE`, with the host or the
/// pattern that was asked for.
fn answers(folder: &Path) -> Vec<(String, [String; 2])> {
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
    let name = |what: &str| format!("{}/{what}", folder.file_name().unwrap().to_string_lossy());
    let arguments = read("arguments").unwrap();
    let arguments: Vec<&str> = arguments.lines().collect();
    let (inventory, sources, mut diagnostics) = load(folder, &arguments);
    let accepted = |refused: bool| String::from(if refused { "refused" } else { "accepted" });
    let refused = [read("refused").is_some(), diagnostics.has_errors()];
    let mut answers = vec![(name("read"), refused.map(accepted))];
    if refused.contains(&true) {
        return answers;
    }
    let limit = read("limit").map(|limit| {
        Pattern::limit(limit.lines().next().unwrap(), folder, &sources, &mut diagnostics)
    });
    let list = inventory.list(limit.as_ref(), &mut diagnostics);
    answers.push((name("list.json"), [read("list.json").unwrap(), list]));
    let graph = inventory.graph("all").unwrap();
    answers.push((name("graph.txt"), [read("graph.txt").unwrap(), graph]));
    let hosts: BTreeMap<String, Json> =
        serde_json::from_str(&read("host.json").unwrap_or("{}".into())).unwrap();
    for (host, expected) in hosts {
        let found = inventory.host_variables(&host);
        let found: Json = found.map_or(Json::Null, |text| serde_json::from_str(&text).unwrap());
        let texts = [expected, found].map(|answer| format!("{answer:#}"));
        answers.push((name(&format!("host.json {host}")), texts));
    }
    let patterns: BTreeMap<String, Json> =
        serde_json::from_str(&read("patterns.json").unwrap_or("{}".into())).unwrap();
    for (text, expected) in patterns {
        let mut said = Diagnostics::default();
        let (pattern, limit) = text.split_once(" -l ").unzip();
        let limit = limit.map(|limit| Pattern::limit(limit, folder, &sources, &mut said));
        let pattern = Pattern::parse(pattern.unwrap_or(&text), None);
        let found = inventory.select(&pattern, limit.as_ref(), &mut said);
        // No hosts is no answer, as it is for Ansible.
        let fails = said.has_errors() || found.is_empty() || pattern.is_empty();
        let found = if fails { Json::Null } else { Json::from(found) };
        answers.push((name(&text), [expected, found].map(|answer| answer.to_string())));
    }
    answers
}

#[test]
fn a_wrong_inventory_says_what_is_wrong_and_where() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "hosts.yml",
            "web:\n  hots: { web1: }\n  vars: [a]\n  hosts: [web1]\n",
            &[
                "unknown key `hots` in the group `web`; hosts.yml:2:3 did you mean `hosts`?",
                "`vars` of the group `web` has to be a mapping; hosts.yml:3:9 this is a list",
                "`hosts` of the group `web` has to be a mapping; hosts.yml:4:10 this is a list",
            ],
        ),
        (
            "hosts.yml",
            "hosts: { web1: }\nweb:\n  hosts:\n    10:\n    web[1:x]:\n    w2: 5\n",
            &[
                "`hosts` stands where a group is expected; hosts.yml:1:1",
                "the name of a host has to be a string; hosts.yml:4:5 write `\"10\"`",
                "the range in `web[1:x]` cannot be expanded; \
                 hosts.yml:5:8 `x` is neither a number nor a letter",
                "the variables of `w2` have to be a mapping; hosts.yml:6:9 this is a number",
            ],
        ),
        (
            "hosts.yml",
            "a: { children: { b: { children: { c: { children: { a: } } } } } }\n",
            &["`b` cannot be below `a`, which is below `b`; \
               hosts.yml:1:18 puts `b` below `a`; \
               hosts.yml:1:35 puts `c` below `b`; \
               hosts.yml:1:52 puts `a` below `c`"],
        ),
        (
            "hosts.yml",
            "- web1\n",
            &["an inventory is a mapping of groups; hosts.yml:1:1 this is a list"],
        ),
        (
            "hosts.yml",
            "plugin: aws_ec2\n",
            &["inventory plugins are not known here; hosts.yml:1:1"],
        ),
        (
            "hosts.ini",
            "[web:hots]\nweb1\n[db]\ndb1 port\ndb[2:1]\ndb3 a='x\n[web children]\n[db:vars]\nx\n",
            &[
                "unknown kind of section `hots`; hosts.ini:1:1 did you mean `[web:hosts]`?",
                "`port` is not a variable; hosts.ini:4:5 expected `name=value`",
                "the range in `db[2:1]` cannot be expanded; hosts.ini:5:3 `2` is more than `1`",
                "a quote or a backslash without its end; hosts.ini:6:7",
                "`[web children]` is not a section; hosts.ini:7:1 \
                 a section is written `[group]`, `[group:vars]` or `[group:children]`",
                "`x` is not a variable; hosts.ini:9:1 expected `name=value`",
            ],
        ),
        (
            "hosts.ini",
            "[web]\nweb1\n[site:children]\nwbe\nnothing\n[wbe:vars]\na=1\n",
            &[
                "the child group `wbe` is not defined; hosts.ini:4:1 did you mean `web`?",
                "the child group `nothing` is not defined; \
                 hosts.ini:5:1 no section `[nothing]` is there",
            ],
        ),
        (
            "hosts.ini",
            "[web]\nweb1\n[wbe:vars]\na=1\n",
            &["variables for the group `wbe`, which is not defined; \
               hosts.ini:3:1 did you mean `web`?"],
        ),
        (
            "hosts.ini",
            "[web:children]\nweb\n",
            &["the group `web` is its own child; hosts.ini:2:1 puts `web` below `web`"],
        ),
        (
            "web[1:,w[3:1]",
            "",
            &[
                "the range in `web[1:` cannot be expanded; \
                 --inventory:1:4 a `[` without its `]`",
                "the range in `w[3:1]` cannot be expanded; --inventory:1:9 `3` is more than `1`",
            ],
        ),
        ("hosts.toml", "[web]\n", &["`hosts.toml`: TOML inventories are not read"]),
    ];
    for (name, text, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        if !text.is_empty() {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let (_, sources, diagnostics) = load(folder.path(), &[*name]);
        assert_eq!(said(&diagnostics, &sources), *expected, "{text}");
    }
}

#[test]
fn a_file_of_variables_has_to_be_a_mapping() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("group_vars")).unwrap();
    fs::write(folder.path().join("group_vars/all.yml"), "- a\n").unwrap();
    let (_, sources, diagnostics) = load(folder.path(), &["web1,"]);
    let expected = "a file of variables has to be a mapping of names to values; \
                    group_vars/all.yml:1:1 this is a list";
    assert_eq!(said(&diagnostics, &sources), [expected]);
}

#[test]
fn variables_keep_all_layers_with_their_places() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inventory/vars-beside");
    let (inventory, sources, _) = load(&folder, &["hosts.yml"]);
    let layers: Vec<String> = inventory
        .variables("h1")
        .into_iter()
        .filter(|variable| ["c", "k"].contains(&variable.name.as_ref()))
        .map(|variable| {
            let place = sources.place(variable.key);
            format!("{} {} {place}", variable.name, variable.origin)
        })
        .collect();
    let expected = [
        "c group `app` hosts.yml:4:35",
        "c group `web` hosts.yml:3:79",
        "c group_vars of `all` group_vars/all.yml:1:1",
        "k host_vars of `h1` host_vars/h1.yml:2:1",
        "k host_vars of `h1` play/host_vars/h1.yml:1:1",
    ];
    assert_eq!(layers, expected);
    assert_eq!(inventory.merged("h1")["c"].value.as_text(), Some("all-file"));
    assert_eq!(inventory.groups_of("h1"), ["app", "web"]);
}

#[test]
fn patterns_and_limits_select_in_the_order_of_the_pattern() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("hosts"), "[web]\nw[1:4]\n[db]\ndb1\n[eu]\ndb1\nw1\nw2\n")
        .unwrap();
    fs::write(folder.path().join("limit.txt"), "w2\n\n  db1\n").unwrap();
    let (inventory, sources, mut diagnostics) = load(folder.path(), &["hosts"]);
    let cases = [
        ("db,web", None, vec!["db1", "w1", "w2", "w3", "w4"]),
        ("web", Some("eu"), vec!["w1", "w2"]),
        ("all", Some("@limit.txt"), vec!["w2", "db1"]),
        ("web", Some("!w1:!w2"), vec!["w3", "w4"]),
        ("localhost", None, vec!["localhost"]),
        ("127.0.0.1", Some("localhost"), vec!["127.0.0.1"]),
    ];
    for (pattern, limit, expected) in cases {
        let limit =
            limit.map(|text| Pattern::limit(text, folder.path(), &sources, &mut diagnostics));
        let pattern = Pattern::parse(pattern, None);
        let hosts = inventory.select(&pattern, limit.as_ref(), &mut diagnostics);
        assert_eq!(hosts, expected);
    }
    assert!(diagnostics.is_empty());
    let limit = Pattern::limit("web,wbe", folder.path(), &sources, &mut diagnostics);
    inventory.select(&Pattern::default(), Some(&limit), &mut diagnostics);
    let expected =
        "the pattern `wbe` matches no host and no group; --limit:1:5 did you mean `web`?";
    assert_eq!(said(&diagnostics, &sources), [expected]);
}

#[test]
fn the_command_lists_what_a_limit_leaves() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inventory/limited");
    let run = |options: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_converge"))
            .args(["inventory", "-i", "hosts.yml"])
            .args(options)
            .current_dir(&folder)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let limit = fs::read_to_string(folder.join("limit")).unwrap();
    let expected = fs::read_to_string(folder.join("list.json")).unwrap();
    assert_eq!(run(&["--limit", limit.trim()]), (Some(0), expected, String::new()));
    let (code, listed, said) = run(&["--limit", "wbe"]);
    assert_eq!((code, listed.as_str()), (Some(1), ""));
    assert!(said.contains("the pattern `wbe` matches no host and no group"), "{said}");
    assert_eq!(run(&["--graph", "--limit", "web"]).0, Some(1));
}

#[test]
fn an_untrusted_inventory_runs_nothing_and_stays_inside_the_project() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inventory");
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(cases.join("empty/hosts.yml"), folder.path().join("link.yml"))
        .unwrap();
    let given = vec![
        Given::Path(cases.join("script/inventory.sh")),
        Given::Path(folder.path().join("link.yml")),
    ];
    let mut spec = Spec::new(given, folder.path().to_owned());
    spec.trust = Trust::Untrusted { project: folder.path().to_owned() };
    let mut diagnostics = Diagnostics::default();
    let inventory = Inventory::load(&Sources::default(), &spec, &mut diagnostics);
    assert_eq!(inventory.hosts().count(), 0);
    let codes: Vec<&str> = diagnostics
        .iter()
        .filter(|one| one.severity == Severity::Error)
        .map(|one| one.code)
        .collect();
    assert_eq!(codes, ["untrusted", "missing-file"]);
}
