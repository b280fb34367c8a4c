//! Hosts that lie: each case runs beside one that behaves, ends in time with an error that says what
//! was wrong, and does not keep the other from its end.
//!
//! A shell script in the agent's place says what the test has written down for it; it runs as `zoe`
//! (the liar) and as `dan` on a real sshd.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod sshd;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use converge::fleet::{
    self, Declarations, Declared, HostLimits, HostRun, Purpose, Reach, Reachable, Refused, Run,
    SavedPlan,
};
use converge::graph::Graph;
use converge::lang::ContentStore;
use converge::report::{Event, Status, Summary};
use converge::ssh::{AgentProgram, Privilege};
use converge::wire::{
    self, Answer, Facts, FromAgent, Hello, MAGIC, Notes, Outcome, PlanOptions, PlannedNode,
    Question,
};
use converge::world::ContentId;
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use sshd::{Options, Sshd, client};

/// The same for all hosts.
struct Same(Arc<Graph>);

impl Declarations for Same {
    fn questions(&self, _: &str, _: &str) -> Result<Vec<Question>, Refused> {
        Ok(Vec::new())
    }

    fn learn(&self, _: &str, _: &str, _: Option<Vec<Answer>>) -> Result<(), String> {
        Ok(())
    }

    fn wanted(&self) -> Vec<String> {
        Vec::new()
    }

    fn spans_hosts(&self) -> bool {
        false
    }

    fn reach(&self, host: &str) -> Result<HostRun, String> {
        Err(host.to_owned())
    }

    fn compile(&self, _: &str) -> Result<Declared, Refused> {
        Ok(Declared::Graph(Arc::clone(&self.0)))
    }
}

/// Short ones, so that the test does not take hours; long enough for a loaded machine.
const LIMITS: HostLimits = HostLimits {
    greeting: Duration::from_secs(60),
    silence: Duration::from_secs(5),
    standstill: Duration::from_secs(10),
    said: 8 << 20,
};
/// By then every case is over; most take a moment.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the hosts are told, and what an honest one answers.
struct Honest {
    graph: Arc<Graph>,
    planned: Vec<PlannedNode>,
}

impl Honest {
    fn new() -> Self {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds/plan_file/body.json");
        let body = fs::read_to_string(path).unwrap().replace("@BUILD@", wire::BUILD);
        let plan = SavedPlan::parse(body.as_bytes()).unwrap().hosts.remove(0).plan;
        Self { graph: plan.graph, planned: plan.planned }
    }

    fn plan(&self) -> Vec<FromAgent> {
        vec![FromAgent::Planned(self.planned.clone()), FromAgent::PlanDone(Notes::default())]
    }

    fn apply(&self) -> Vec<FromAgent> {
        let outcomes = self.planned.iter().flat_map(|planned| {
            let outcome = Outcome::Changed(Vec::new());
            [
                FromAgent::Started(planned.node),
                FromAgent::Done { node: planned.node, outcome, ms: 1 },
            ]
        });
        outcomes.chain([FromAgent::PlayDone { failed: false }]).collect()
    }
}

fn frames(messages: &[impl Serialize]) -> Vec<u8> {
    messages.iter().flat_map(|message| wire::encode(message).unwrap()).collect()
}

/// What the liar does.
struct Case {
    name: &'static str,
    /// Whether hosts are to be changed, or planned only.
    apply: bool,
    /// What it says, by the name of a file.
    files: Vec<(&'static str, Vec<u8>)>,
    /// Shell lines, in the folder of those files; `begin` is said before.
    script: &'static str,
    /// A part of the error.
    error: &'static str,
}

fn planning(name: &'static str, said: Vec<u8>, script: &'static str, error: &'static str) -> Case {
    Case { name, apply: false, files: vec![("said", said)], script, error }
}

fn cases(honest: &Honest) -> Vec<Case> {
    let first = honest.planned[0].clone();
    let through = || honest.apply().into_iter().nth(1).unwrap();
    let undeclared = PlannedNode { node: 9_999, ..first.clone() };
    let strangers: Vec<ContentId> =
        (0_u32..100).map(|number| ContentId::of(&number.to_le_bytes())).collect();
    let once = "cat said; exec sleep 1000";
    let for_ever = "while cat said; do :; done";
    let alive = "while cat said; do sleep 0.2; done";
    let mut cases = vec![
        planning("garbage", vec![3, 0, 0, 0, 255, 255, 255], once, "a frame that is not a message"),
        planning("long frame", b"yes\n".to_vec(), for_ever, "more than the protocol allows"),
        planning(
            "cut off",
            wire::encode(&honest.plan()[0]).unwrap()[..9].to_vec(),
            "cat said",
            "the connection ended",
        ),
        planning(
            "flood",
            frames(&[FromAgent::Alive]).repeat(10_000),
            for_ever,
            "the host says more than 8388608 bytes",
        ),
        planning(
            "asks for ever",
            frames(&[FromAgent::Need(strangers)]),
            for_ever,
            "asks for contents without end",
        ),
        planning(
            "undeclared",
            frames(&[FromAgent::Planned(vec![undeclared])]),
            once,
            "names a resource that was not declared",
        ),
        planning(
            "twice",
            frames(&[FromAgent::Planned(vec![first.clone(), first])]),
            once,
            "plans a resource twice",
        ),
        planning(
            "nothing",
            frames(&[FromAgent::Planned(Vec::new())]),
            for_ever,
            "answers out of turn",
        ),
        planning(
            "out of turn",
            frames(&[FromAgent::PlayDone { failed: false }]),
            once,
            "answers out of turn",
        ),
        planning(
            "silent",
            Vec::new(),
            once,
            "the agent has said nothing for 5 s, not even that it is alive; it has planned 0 of",
        ),
        planning(
            "alive",
            frames(&[FromAgent::Alive]),
            alive,
            "the agent is alive, and has come no further for 10 s; it has planned 0 of",
        ),
        planning(
            "trickles",
            frames(&honest.plan()),
            "head -c 40 said; while printf x; do sleep 0.2; done",
            "has come no further for 10 s",
        ),
    ];
    let applying: [(&'static str, Vec<FromAgent>, &'static str, &'static str); 6] = [
        ("begins twice", vec![FromAgent::Started(0), FromAgent::Started(0)], once, "twice"),
        (
            "begins what is not declared",
            vec![FromAgent::Started(9_999)],
            once,
            "names a resource that was not declared",
        ),
        (
            "does what is not declared",
            vec![FromAgent::Done { node: 9_999, outcome: Outcome::Changed(Vec::new()), ms: 1 }],
            once,
            "names a resource that was not declared",
        ),
        ("is through twice", vec![through(), through()], once, "twice"),
        ("plans while it applies", honest.plan(), once, "answers out of turn"),
        (
            "stands still",
            vec![FromAgent::Started(0)],
            "cat said; while cat alive; do sleep 0.2; done",
            "has come no further for 10 s; it is at directory:/srv/x/d",
        ),
    ];
    for (name, said, script, error) in applying {
        let said = [frames(&honest.plan()), frames(&said)].concat();
        let files = vec![("said", said), ("alive", frames(&[FromAgent::Alive]))];
        cases.push(Case { name, apply: true, files, script, error });
    }
    let said = [frames(&honest.plan()), frames(&honest.apply())].concat();
    let files = vec![("said", said), ("alive", frames(&[FromAgent::Alive]))];
    let script = "cat said; while cat alive; do sleep 0.2; done";
    let error = "has come no further for 10 s";
    cases.push(Case { name: "never verifies", apply: true, files, script, error });
    cases
}

/// A program that says what stands in a folder, and then does what is written there for its user.
fn program(folder: &Path) -> AgentProgram {
    let folder = folder.display();
    let text = format!("#!/bin/sh\ncd '{folder}' && cat begin && . ./$(id -un)\n");
    AgentProgram::new(text.into_bytes(), "Linux", std::env::consts::ARCH)
}

/// Writes down what the hosts of a case say.
fn write_down(folder: &Path, facts: &str, honest: &Honest, liar: &str) -> AgentProgram {
    fs::create_dir(folder).unwrap();
    let program = program(folder);
    let hello = Hello {
        build: wire::BUILD.to_owned(),
        program: program.digest().to_owned(),
        facts: Facts { json: facts.to_owned() },
    };
    let begin = [MAGIC.to_vec(), frames(&[FromAgent::Hello(hello)])].concat();
    let finished = [FromAgent::Finished { differs: Vec::new() }];
    let good = [frames(&honest.plan()), frames(&honest.apply()), frames(&finished)].concat();
    fs::write(folder.join("begin"), begin).unwrap();
    fs::write(folder.join("good"), good).unwrap();
    fs::write(folder.join("dan"), "cat good; exec cat >/dev/null\n").unwrap();
    fs::write(folder.join("zoe"), format!("{liar}\n")).unwrap();
    program
}

struct Hosts {
    sshd: Sshd,
    destinations: Vec<(String, converge::ssh::Destination)>,
}

impl Hosts {
    fn start() -> Option<Self> {
        let sshd = Sshd::start(&Options::default())?;
        let destinations = [("liar", "zoe"), ("honest", "dan")]
            .map(|(name, user)| (name.to_owned(), sshd.destination(user)));
        Some(Self { destinations: destinations.into(), sshd })
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.sshd.folder.path().join(name.replace(' ', "-"))
    }

    /// How the hosts end.
    fn run(
        &self,
        program: AgentProgram,
        contents: ContentStore,
        graph: &Arc<Graph>,
        dry_run: bool,
    ) -> impl Future<Output = HashMap<String, (Status, String, Summary)>> + use<> {
        let hosts = self.destinations.iter().map(|(name, destination)| HostRun {
            name: name.clone(),
            reach: Reach::Resolved(Box::new(destination.clone())),
            privilege: Privilege::Login,
        });
        let graph = Arc::clone(graph);
        let run = Run {
            reachable: Reachable {
                hosts: hosts.collect(),
                contents: Arc::new(contents),
                client: Arc::new(client()),
                program: Arc::new(program),
                forks: 5,
                limits: LIMITS,
            },
            purpose: Purpose::Converge(Arc::new(Same(graph))),
            dry_run,
            plans: None,
            plan: PlanOptions { lock: !dry_run, ..PlanOptions::default() },
            wait: false,
            any_errors_fatal: vec![true],
        };
        async move {
            let (events, mut happened) = mpsc::unbounded_channel();
            let (_keep, interrupt) = watch::channel(false);
            let run = tokio::spawn(fleet::converge(run, events, interrupt));
            let mut ends = HashMap::new();
            while let Some(event) = happened.recv().await {
                if let Event::HostDone { host, status, error, summary, .. } = event {
                    ends.insert(host, (status, error.unwrap_or_default(), summary));
                }
            }
            run.await.unwrap();
            ends
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_lies_fails_with_what_it_did_and_holds_up_nobody() {
    let Some(hosts) = Hosts::start() else { return };
    let honest = Honest::new();
    let mut running = Vec::new();
    for case in cases(&honest) {
        let folder = hosts.folder(case.name);
        let program = write_down(&folder, "{}", &honest, case.script);
        for (name, bytes) in &case.files {
            fs::write(folder.join(name), bytes).unwrap();
        }
        let run = hosts.run(program, ContentStore::default(), &honest.graph, !case.apply);
        running.push((case, tokio::spawn(tokio::time::timeout(PATIENCE, run))));
    }
    let mut wrong = Vec::new();
    for (case, run) in running {
        let Ok(ends) = run.await.unwrap() else {
            wrong.push(format!("{}: it does not end", case.name));
            continue;
        };
        let (status, error, _) = &ends["liar"];
        if *status != Status::Failed || !error.contains(case.error) {
            wrong.push(format!("{}: the liar is {status:?}: {error}", case.name));
        }
        let (status, error, _) = &ends["honest"];
        if *status != Status::Changed {
            wrong.push(format!("{}: the other is {status:?}: {error}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_that_are_too_many_are_not_read() {
    let Some(hosts) = Hosts::start() else { return };
    let honest = Honest::new();
    let facts = format!("{{\"a\": \"{}\"}}", "x".repeat(5 << 20));
    let program = write_down(&hosts.folder("facts"), &facts, &honest, "exec sleep 1000");
    let ends = hosts.run(program, ContentStore::default(), &honest.graph, true).await;
    let (status, error, _) = &ends["liar"];
    assert_eq!((*status, error.as_str()), (Status::Unreachable, "the host's facts cannot be read"));
}

/// The bytes of a content are sent to whom it is declared for, and to nobody else who knows its
/// digest.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_gets_no_contents_but_those_that_are_declared_for_it() {
    let Some(hosts) = Hosts::start() else { return };
    let honest = Honest::new();
    let contents = ContentStore::default();
    let (secret, declared) = ("of another host only", "first\nline 2\n");
    let asked = vec![contents.text(secret), contents.text(declared)];
    let folder = hosts.folder("contents");
    // It writes down what it hears until it has heard of both.
    let liar = "exec 3<&0; cat ask; cat <&3 >heard & \
                until grep -q 'line 2' heard; do sleep 0.1; done; cat good; wait";
    let program = write_down(&folder, "{}", &honest, liar);
    fs::write(folder.join("ask"), frames(&[FromAgent::Need(asked)])).unwrap();
    fs::write(folder.join("heard"), "").unwrap();
    for open in [&folder, &folder.join("heard")] {
        fs::set_permissions(open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    let ends = hosts.run(program, contents, &honest.graph, true).await;
    assert_eq!(ends["liar"].0, Status::Changed, "{}", ends["liar"].1);
    let heard = String::from_utf8_lossy(&fs::read(folder.join("heard")).unwrap()).into_owned();
    assert!(heard.contains("first\nline 2\n"));
    assert!(heard.contains("asks for a content that is not declared for it"), "{heard:?}");
    assert!(!heard.contains(secret));
}
