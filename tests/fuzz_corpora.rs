//! What fuzzing begins with and what it has found, without a fuzzer: see `tests/fuzz`.
//!
//! With `CONVERGE_ACCEPT=1` in the environment the frames and the plan file that fuzzing begins with are written anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "fuzz/targets.rs"]
mod targets;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use converge::fleet::{PlanFile, SavedPlan};
use converge::report::Verdict;
use converge::wire::{
    self, AddedNode, Bound, FromAgent, Hello, Notes, Outcome, PlanOptions, ToAgent,
};
use serde::Serialize;
use targets::{BUILD_MARK, TARGETS, inputs};

/// Each target at some places of an input: cut off there, and with the byte there changed.
const PLACES: usize = 3;

#[test]
fn every_input_is_survived() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, target) in TARGETS {
        let inputs = inputs(root, name);
        assert!(!inputs.is_empty(), "{name} has no inputs");
        for path in inputs {
            // Shown if it fails.
            println!("{name}: {}", path.display());
            let bytes = fs::read(&path).unwrap();
            target(&bytes);
            for place in (0..bytes.len()).step_by(bytes.len() / PLACES + 1) {
                target(&bytes[..place]);
                let mut changed = bytes.clone();
                changed[place] ^= 1;
                target(&changed);
            }
        }
    }
}

fn seed(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(name)).unwrap()
}

fn plan() -> SavedPlan {
    let body = String::from_utf8(seed("plan_file/body.json")).unwrap();
    SavedPlan::parse(body.replace(BUILD_MARK, wire::BUILD).as_bytes()).unwrap()
}

/// A seed that this build does not understand any more would fuzz nothing but the parser of JSON.
#[test]
fn seeds_are_understood() {
    for journal in ["small", "large", "cut-off"] {
        let journal = seed(&format!("journal/{journal}.jsonl"));
        let run = converge::agent::past_run(&journal).unwrap();
        assert!(run.changes() > 0);
        let ledger = converge::agent::next_ledger(&seed("ledger/ledger.json"), &journal);
        assert!(ledger.is_some());
    }
    let saved = PlanFile::decode(&seed("plan_file/file")).unwrap();
    assert!(SavedPlan::parse(&saved.body).is_err(), "it is of no build");
    plan().contents().unwrap();
}

fn frames(from: u8, messages: &[impl Serialize]) -> Vec<u8> {
    let mut bytes = vec![from];
    for message in messages {
        bytes.extend(wire::encode(message).unwrap());
    }
    bytes
}

#[test]
fn frames_and_files_are_those_of_this_build() {
    let plan = plan();
    let host = &plan.hosts[0].plan;
    let options = PlanOptions { diff: true, run: plan.run.clone(), ..PlanOptions::default() };
    let bound = Some(Arc::new(Bound { planned: host.planned.clone() }));
    let to_agent = [
        ToAgent::Plan { graph: Arc::clone(&host.graph), options: options.clone(), bound },
        ToAgent::Content { bytes: b"some".to_vec(), last: false },
        ToAgent::NoContent { reason: "gone".to_owned() },
        ToAgent::Apply { play: 0 },
        ToAgent::Finish { complete: true },
        ToAgent::Undo {
            run: plan.run.id.clone(),
            force: false,
            rollback: Some("web".to_owned()),
            options,
        },
        ToAgent::Again,
        ToAgent::Status { run: plan.run.clone() },
        ToAgent::Past { run: None },
        ToAgent::Stop,
        ToAgent::Alive,
    ];
    let views = host.planned[0].changes.iter().map(|shown| shown.view.clone()).collect();
    let past = converge::agent::past_run(&seed("journal/large.jsonl")).unwrap();
    assert!(host.planned.iter().any(|node| node.verdict == Verdict::Depends));
    let from_agent = [
        FromAgent::Hello(Hello {
            build: "build".to_owned(),
            program: "digest".to_owned(),
            facts: wire::Facts { json: "{}".to_owned() },
        }),
        FromAgent::Alive,
        FromAgent::Need(Vec::new()),
        FromAgent::Added(vec![AddedNode {
            id: "file:/a".to_owned(),
            at: "a.yml:1:1".to_owned(),
            play: 0,
        }]),
        FromAgent::Planned(host.planned.clone()),
        FromAgent::PlanDone(Notes { cannot: vec!["it".to_owned()], ..Notes::default() }),
        FromAgent::Started(0),
        FromAgent::Done { node: 0, outcome: Outcome::Changed(views), ms: 3 },
        FromAgent::PlayDone { failed: false },
        FromAgent::Finished { differs: Vec::new() },
        FromAgent::Held { holder: Some(plan.run.clone()), account: None },
        FromAgent::Past(vec![past]),
        FromAgent::PastDone { unreadable: Vec::new() },
        FromAgent::Fatal("no".to_owned()),
    ];
    let body = b"{\"build\": \"of another\"}".to_vec();
    for (path, bytes) in [
        ("wire_frames/to-agent", frames(b'c', &to_agent)),
        ("wire_frames/from-agent", frames(b'a', &from_agent)),
        ("plan_file/file", PlanFile { body, encrypted: false, signature: None }.encode()),
    ] {
        if std::env::var_os("CONVERGE_ACCEPT").is_some() {
            let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds");
            fs::write(seeds.join(path), bytes).unwrap();
        } else {
            assert!(seed(path) == bytes, "{path}: write it anew with CONVERGE_ACCEPT=1");
        }
    }
}
