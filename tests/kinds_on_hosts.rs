//! Every kind on a real host, one step after the other, as `tests/hosts/kinds/KIND.yml` says: what a dry run predicts
//! is what is then done, a second run changes nothing, and the host is as the step's shell lines demand.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod hosts;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use hosts::{Hosts, Report, Resource, assert_as_planned, play};
use indexmap::IndexMap;
use serde::Deserialize;

/// The host's way through the life of a kind's resources.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Life {
    /// What the host can install.
    #[serde(default)]
    packages: Vec<String>,
    /// Shell lines for the host before the first step.
    #[serde(default)]
    setup: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    name: String,
    /// Files of the project that are written before; nothing removes a file.
    #[serde(default)]
    project: IndexMap<String, Option<String>>,
    /// Shell lines for the host before the step.
    #[serde(default)]
    before: String,
    states: serde_yaml::Value,
    /// What the dry run says; what is not named is `ok`.
    #[serde(default)]
    expect: IndexMap<String, Expected>,
    /// What the run says, of resources that the plan did not know for certain.
    #[serde(default)]
    done: IndexMap<String, Expected>,
    /// What a second run says, of resources that never rest.
    #[serde(default)]
    again: IndexMap<String, Expected>,
    /// Words of the error that the step ends with; the plan has it already.
    fails: Option<String>,
    /// Shell lines for the host that must all succeed afterwards.
    #[serde(default)]
    check: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Expected {
    Verdict(String),
    /// The verdict is `change`, and these are the changes, each as `ACTION TARGET`.
    Changes(Vec<String>),
    Depends {
        depends_on: Vec<String>,
        changes: Vec<String>,
    },
}

impl Expected {
    fn fits(&self, resource: &Resource) -> bool {
        match self {
            Self::Verdict(verdict) => resource.verdict == *verdict,
            Self::Changes(changes) => resource.verdict == "change" && resource.acts() == *changes,
            Self::Depends { depends_on, changes } => {
                resource.verdict == "depends"
                    && resource.depends_on == *depends_on
                    && resource.acts() == *changes
            }
        }
    }
}

macro_rules! kinds {
    ($($kind:ident)*) => {
        $(
            #[test]
            fn $kind() {
                converges(stringify!($kind));
            }
        )*

        const KINDS: &[&str] = &[$(stringify!($kind)),*];
    };
}

kinds! {
    authorized_key block_in_file command directory environment_file file group line_in_file package repository service
    symlink tree unit user wait_for
}

#[test]
fn every_kind_has_its_steps() {
    let mut kinds: Vec<&str> = converge::kind::SPECS.iter().map(|spec| spec.name).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, KINDS);
    for kind in KINDS {
        read(kind);
    }
}

fn read(kind: &str) -> Life {
    let path = folder().join(kind).with_extension("yml");
    let text = std::fs::read_to_string(&path).unwrap();
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts/kinds")
}

fn converges(kind: &str) {
    let life = read(kind);
    let packages: Vec<&str> = life.packages.iter().map(String::as_str).collect();
    let Some(hosts) = Hosts::with_packages(&["host"], &packages) else { return };
    if !life.setup.is_empty() {
        hosts.sh("host", &life.setup);
    }
    let mut failed = Vec::new();
    for step in &life.steps {
        println!("{kind}: {}", step.name);
        // The message has been printed by the panic itself; later steps may say more.
        if std::panic::catch_unwind(AssertUnwindSafe(|| step.take(&hosts))).is_err() {
            failed.push(step.name.as_str());
        }
    }
    assert!(failed.is_empty(), "{kind}: {}", failed.join("; "));
}

impl Step {
    fn take(&self, hosts: &Hosts) {
        for (name, content) in &self.project {
            match content {
                Some(content) => hosts.write(name, content),
                None => std::fs::remove_file(hosts.path(name)).unwrap(),
            }
        }
        if !self.before.is_empty() {
            hosts.sh("host", &self.before);
        }
        let states = play(&serde_yaml::to_string(&self.states).unwrap());
        let plan = || hosts.converge_file(&states).dry_run().report();
        let run = || hosts.converge_file(&states).report();

        let planned = plan();
        if let Some(words) = &self.fails {
            assert_expected(&planned, &self.expect);
            assert_failed(&planned, words);
            return assert_failed(&run(), words);
        }
        assert_eq!(planned.exit_code, 0, "{planned}");
        assert_expected(&planned, &self.expect);
        let done = run();
        assert_eq!(done.exit_code, 0, "{done}");
        assert_as_planned(&planned, &done);
        assert_expected_of(&done, &self.done);
        if !self.check.is_empty() {
            hosts.sh("host", &self.check);
        }

        let again = run();
        assert_eq!(again.exit_code, 0, "{again}");
        assert_expected(&again, &self.again);
        let (one, other) = (plan(), plan());
        assert_eq!(one.text, other.text);
        assert_expected(&one, &self.again);
    }
}

#[track_caller]
fn assert_failed(report: &Report, words: &str) {
    assert_eq!(report.exit_code, 3, "{report}");
    let failed = report.only().resources.iter().find(|one| one.verdict == "failed");
    assert!(failed.is_some_and(|one| one.because.contains(words)), "{report}");
}

/// Every resource is as expected; those that are not named are `ok`.
#[track_caller]
fn assert_expected(report: &Report, expected: &IndexMap<String, Expected>) {
    assert_expected_of(report, expected);
    for resource in &report.only().resources {
        let named = expected.keys().any(|id| names(id, resource));
        // What an earlier step has made is no longer declared, and nothing prunes it.
        let stale = resource.verdict == "skipped" && resource.because.starts_with("no longer");
        assert!(named || stale || resource.verdict == "ok", "not expected: {resource}");
    }
}

#[track_caller]
fn assert_expected_of(report: &Report, expected: &IndexMap<String, Expected>) {
    for (id, expected) in expected {
        let mut named = report.only().resources.iter().filter(|one| names(id, one)).peekable();
        assert!(named.peek().is_some(), "there is no {id}\n{report}");
        for resource in named {
            assert!(expected.fits(resource), "not expected: {resource}");
        }
    }
}

/// A name that ends in `*` stands for all that begin so.
fn names(id: &str, resource: &Resource) -> bool {
    match id.strip_suffix('*') {
        Some(beginning) => resource.id.starts_with(beginning),
        None => resource.id == id,
    }
}
