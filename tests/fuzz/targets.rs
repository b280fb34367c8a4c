//! What is fuzzed: one function a target, over any bytes. It panics where something is found.
//!
//! Both the fuzz targets and `tests/fuzz_corpora.rs` include this file, so that what was found once
//! is looked at in every run of the tests.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use converge::agent::{next_ledger, past_run};
use converge::diagnostic::{Diagnostic, Diagnostics, Sources, Style, render};
use converge::fleet::{PlanFile, SavedPlan};
use converge::inventory::{Given, Inventory, Pattern, Spec, Trust};
use converge::lang::yaml::Node;
use converge::lang::{CompileOptions, Facts, LookupEnvironment, Program, Templates};
use converge::lint::{Finding, Levels, Linter, Subject};
use converge::project::{Compilation, Compiled};
use converge::secret::Keyring;
use converge::ssh::known_hosts::{HostKey, HostName, KnownHosts};
use converge::ssh::{Environment, Request, Resolved, share_settings};
use converge::wire::{self, FromAgent, ToAgent};

/// A target: its name, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 7] = [
    ("state_file", state_file),
    ("inventory_ini", inventory_ini),
    ("ssh_config", ssh_config),
    ("wire_frames", wire_frames),
    ("plan_file", plan_file),
    ("journal", journal),
    ("ledger", ledger),
];

/// In a plan's seeds, stands for the build that reads them.
pub const BUILD_MARK: &str = "@BUILD@";

/// A folder of its own for what a thread's inputs are written to.
fn folder() -> PathBuf {
    thread_local!(static FOLDER: tempfile::TempDir = tempfile::tempdir().unwrap());
    FOLDER.with(|folder| folder.path().to_owned())
}

/// Everything that was said, as it is printed.
fn say(diagnostics: Diagnostics, sources: &Sources) {
    for diagnostic in diagnostics.sorted() {
        render(diagnostic, sources, Style::Plain);
    }
}

/// A stranger's state file: parsed, compiled without facts and with them, for two hosts.
pub fn state_file(bytes: &[u8]) {
    let folder = folder();
    let path = folder.join("site.yml");
    fs::write(&path, bytes).unwrap();
    let sources = Arc::new(Sources::default());
    let mut diagnostics = Diagnostics::default();
    let program =
        Program::load(&sources, &path, Some(&folder), &Keyring::default(), &mut diagnostics);
    let mut spec = Spec::new(vec![Given::Hosts("web1,web2,".to_owned())], folder.clone());
    spec.trust = Trust::Untrusted { project: folder.clone() };
    let inventory = Inventory::load(&sources, &spec, &mut diagnostics);
    let lookup = LookupEnvironment { project: folder, ..LookupEnvironment::default() };
    let templates = Arc::new(Templates::new(sources.clone(), true, lookup));
    let options = CompileOptions::default();
    let compilation = Compilation::new(
        sources.clone(),
        inventory,
        program,
        templates.clone(),
        options,
        None,
        &mut diagnostics,
    );
    let mut linter = Linter::new(&sources);
    compilation.check_each(&mut diagnostics, |plays| linter.host(plays));
    let subject = Subject {
        program: &compilation.program,
        templates: &templates,
        beside: Vec::new(),
        inventory: false,
    };
    let found = linter.finish(&subject, &Levels::default(), Diagnostics::default());
    Finding::all(&found, &sources, Style::Plain);
    for host in compilation.hosts() {
        compilation.connection(host, &mut diagnostics);
        let facts = serde_json::json!({ "os": { "family": "debian" }, "cpus": 2 });
        compilation.questions(host, &facts, &mut diagnostics);
        compilation.learn(host, Facts::Known(facts));
        if let Compiled::Graph(graph) = compilation.compile(host, &mut diagnostics) {
            assert!(graph.is_sound());
        }
    }
    say(diagnostics, &sources);
}

/// A stranger's inventory: read, listed, and how to reach its first hosts.
pub fn inventory_ini(bytes: &[u8]) {
    let folder = folder();
    let path = folder.join("hosts.ini");
    fs::write(&path, bytes).unwrap();
    let sources = Sources::default();
    let mut diagnostics = Diagnostics::default();
    let mut spec = Spec::new(vec![Given::Path(path)], folder.clone());
    spec.trust = Trust::Untrusted { project: folder };
    let inventory = Inventory::load(&sources, &spec, &mut diagnostics);
    inventory.list(None, &mut diagnostics);
    inventory.graph("all");
    let pattern = Pattern::parse("all:!ungrouped", None);
    inventory.select(&pattern, None, &mut diagnostics);
    let raw = |node: &Node| -> Result<serde_json::Value, Diagnostic> {
        Ok(serde_json::Value::from(node.as_text().unwrap_or_default()))
    };
    let hosts: Vec<String> = inventory.hosts().take(20).map(str::to_owned).collect();
    for host in &hosts {
        inventory.connection(host, &raw, &mut diagnostics);
        inventory.host_variables(host).unwrap();
    }
    say(diagnostics, &sources);
}

/// OpenSSH's files, as far as they are read here: which hosts share their settings, what an answer
/// of `ssh -G` comes to, and whether a `known_hosts` file vouches for a key.
pub fn ssh_config(bytes: &[u8]) {
    let folder = folder();
    let path = folder.join("config");
    fs::write(&path, bytes).unwrap();
    let text = String::from_utf8_lossy(bytes);
    let mut environment = Environment::new(Some(folder), "zoe", || SystemTime::UNIX_EPOCH);
    environment.configuration_file = Some(path.clone());
    let shared = share_settings(&environment, "web1.example.com", "web2");
    assert_eq!(shared, share_settings(&environment, "web2", "web1.example.com"));
    let request = Request { name: "web1".to_owned(), ..Request::default() };
    // Errors are fine, panics are not.
    let _ = Resolved::of_answer(&environment, &request, &text);
    let mut known_hosts = KnownHosts::default();
    known_hosts.add(&path, &text);
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKkBNOJU9MLBuQFAPJ3JDXKdlh02lWh6BDMBRJPWjhY5";
    let key = HostKey::parse(key).unwrap();
    let _ = known_hosts.judge(&HostName::new("web1", 22, None), &key);
    let _ = known_hosts.judge(&HostName::new("web1", 2222, Some("alias")), &key);
}

/// What comes over the wire, from either end: the first byte says which; frames follow.
pub fn wire_frames(bytes: &[u8]) {
    fn read<T: serde::Serialize + serde::de::DeserializeOwned>(mut bytes: &[u8]) {
        while let Ok(message) = wire::read_frame::<T>(&mut bytes) {
            let frame = wire::encode(&message).unwrap();
            let again: T = wire::decode(&frame[4..]).unwrap();
            assert_eq!(frame, wire::encode(&again).unwrap());
        }
    }
    match bytes.split_first() {
        Some((b'a', frames)) => read::<FromAgent>(frames),
        Some((_, frames)) => read::<ToAgent>(frames),
        None => {}
    }
}

/// A plan file that somebody else made: the file as it is, and the bytes as a body whose digest is
/// right.
pub fn plan_file(bytes: &[u8]) {
    if let Ok(file) = PlanFile::decode(bytes) {
        assert_eq!(PlanFile::decode(&file.encode()).unwrap(), file);
    }
    let body = String::from_utf8_lossy(bytes).replace(BUILD_MARK, wire::BUILD);
    let Ok(plan) = SavedPlan::parse(body.as_bytes()) else { return };
    let _ = plan.contents();
    let again = plan.to_body().unwrap();
    let again = SavedPlan::parse(&again).unwrap().to_body().unwrap();
    assert_eq!(again, plan.to_body().unwrap());
}

/// A journal that was damaged: what is told of it, and what the ledger makes of it.
pub fn journal(bytes: &[u8]) {
    let Some(run) = past_run(bytes) else { return };
    assert!(run.changes() <= run.resources.len());
    let first = next_ledger(EMPTY_LEDGER, bytes).unwrap();
    // The next run has the ledger, and reads the same journal once more if it is not named there.
    next_ledger(&first, bytes).unwrap();
}

/// A ledger that was damaged, with a run after it.
pub fn ledger(bytes: &[u8]) {
    let Some(next) = next_ledger(bytes, SMALL_JOURNAL) else { return };
    assert!(next_ledger(&next, SMALL_JOURNAL).is_some(), "a ledger that cannot be read again");
}

/// A ledger of no runs.
const EMPTY_LEDGER: &[u8] = br#"{"version":1,"upto":0,"folded":[],"scopes":{}}"#;
/// A journal of a run that changed a file and what it owes for that.
const SMALL_JOURNAL: &[u8] = include_bytes!("seeds/journal/small.jsonl");

/// Everything that a target begins with: its seeds, what was found, and files that are there for
/// other tests. In the order of their paths.
pub fn inputs(root: &Path, target: &str) -> Vec<PathBuf> {
    let others: HashMap<&str, &[&str]> = HashMap::from([
        ("state_file", &["states", "tests/messages", "tests/declarations"][..]),
        ("inventory_ini", &["tests/inventory"][..]),
    ]);
    let mut folders = vec![
        root.join("tests/fuzz/seeds").join(target),
        root.join("tests/fuzz/found").join(target),
    ];
    folders.extend(others.get(target).copied().unwrap_or_default().iter().map(|at| root.join(at)));
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
