//! Random states on random hosts: a run does what its plan says, a second plan is empty, and undo gives back what was.
//!
//! Every case has a seed, which is printed when it fails: `CONVERGE_SEED=… CONVERGE_CASES=1` repeats it alone.
//! `CONVERGE_CASES` is how many there are.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[path = "convergence/accounts.rs"]
mod accounts;
#[path = "convergence/agent.rs"]
mod agent;
#[path = "convergence/cases.rs"]
mod cases;
mod hosts;
#[path = "convergence/listing.rs"]
mod listing;
mod random;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use converge::change::{Act, Change};
use converge::diagnostic::{Diagnostics, Sources, Style, render};
use converge::graph::Graph;
use converge::inventory::{Given, Inventory, Spec};
use converge::lang::{CompileOptions, ContentStore, Facts, LookupEnvironment, Program, Templates};
use converge::project::{Compilation, Compiled};
use converge::report::{RunInfo, Verdict};
use converge::secret::Keyring;
use converge::wire::Outcome;
use converge::world::RemotePath;
use serde_json::{Value, json};

use agent::{Agent, Plan, changes};
use cases::Case;
use listing::{Listing, differences, list, make};
use random::Random;

/// Cases that one run is about.
const BATCH: usize = 5;
const SOURCES: [&str; 2] = ["flat", "deep"];

/// What cases came to.
#[derive(Default, Debug)]
struct Tally {
    cases: usize,
    /// Refused by the compiler, and by the plan.
    refused: usize,
    unplannable: usize,
    nodes: usize,
    changes: usize,
    depends: usize,
    assuming: usize,
}

/// Cases on this machine, in a folder of their own.
struct Bench {
    folder: tempfile::TempDir,
    tally: Tally,
    runs: usize,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join("project/files").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("flat/a", "one\n");
        write("flat/b", "");
        write("deep/a/b/c", "deep\n");
        write("deep/d/x y", "spaces");
        std::os::unix::fs::symlink("a/b", folder.path().join("project/files/deep/link")).unwrap();
        fs::create_dir(folder.path().join("hosts")).unwrap();
        Self { folder, tally: Tally::default(), runs: 0 }
    }

    /// A graph of states, or what is wrong with them.
    fn compile(&self, states: &[Value]) -> Result<(Arc<Graph>, Arc<ContentStore>), String> {
        let project = self.folder.path().join("project");
        let path = project.join("state.yml");
        let play = json!({"name": "test", "hosts": "localhost", "states": states});
        fs::write(&path, play.to_string()).unwrap();
        let sources = Arc::new(Sources::default());
        let mut diagnostics = Diagnostics::default();
        let spec = Spec::new(vec![Given::Hosts(String::from("localhost,"))], project.clone());
        let inventory = Inventory::load(&sources, &spec, &mut diagnostics);
        let program = Program::load(&sources, &path, None, &Keyring::default(), &mut diagnostics);
        let lookup = LookupEnvironment { variables: BTreeMap::new(), project };
        let templates = Arc::new(Templates::new(sources.clone(), false, lookup));
        let compilation = Compilation::new(
            sources.clone(),
            inventory,
            program,
            templates,
            CompileOptions::default(),
            None,
            &mut diagnostics,
        );
        compilation.learn("localhost", Facts::Known(json!({})));
        let compiled = compilation.compile("localhost", &mut diagnostics);
        if diagnostics.has_errors() {
            let errors = diagnostics.sorted();
            let errors = errors.iter().map(|one| render(one, &sources, Style::Plain));
            return Err(errors.collect());
        }
        let Compiled::Graph(graph) = compiled else { unreachable!("there is one host") };
        Ok((graph, Arc::clone(&compilation.contents)))
    }

    fn run_info(&mut self, state_file: &str) -> RunInfo {
        self.runs += 1;
        let id = format!("20260101T000000Z-{:04}", self.runs);
        RunInfo { id, state_file: state_file.to_owned(), ..RunInfo::default() }
    }

    /// Checks cases, several in one run; what is wrong, if anything is.
    fn check(&mut self, seeds: &[u64]) -> Result<(), String> {
        let hosts = self.folder.path().join("hosts");
        let mut cases: Vec<Case> =
            seeds.iter().map(|seed| Case::make(*seed, &hosts, &SOURCES)).collect();
        let before = list(&hosts);
        let all = cases.len();
        cases.retain(|case| self.compile(&case.states).is_ok());
        self.tally.cases += all;
        self.tally.refused += all - cases.len();
        let result = self.run(&mut cases, &before);
        fs::remove_dir_all(&hosts).unwrap();
        fs::create_dir(&hosts).unwrap();
        let states: Vec<&Vec<Value>> = cases.iter().map(|case| &case.states).collect();
        result
            .map_err(|error| format!("{error}\n{}", serde_json::to_string_pretty(&states).unwrap()))
    }

    fn run(&mut self, cases: &mut Vec<Case>, before: &Listing) -> Result<(), String> {
        let hosts = self.folder.path().join("hosts");
        let state = tempfile::tempdir().unwrap();
        let (mut agent, plan, graph, run) = loop {
            if cases.is_empty() {
                return Ok(());
            }
            let states: Vec<Value> = cases.iter().flat_map(|case| case.states.clone()).collect();
            let (graph, contents) = self.compile(&states)?;
            let run = self.run_info("state.yml");
            let mut agent = Agent::start(state.path(), contents);
            let plan = agent.plan(&graph, &run)?;
            same("a plan changes something", before, &list(&hosts))?;
            let failed = plan.failed();
            if failed.is_empty() {
                break (agent, plan, graph, run);
            }
            // What cannot be planned is refused as a whole.
            let count = cases.len();
            let mut ends = Vec::new();
            for case in cases.iter() {
                ends.push(ends.last().unwrap_or(&0) + case.states.len());
            }
            let line = |node: usize| graph.nodes[node].id.to_string();
            let bad: Vec<String> = failed.iter().map(|(node, _)| line(*node)).collect();
            cases.retain(|case| {
                let root = format!("{}/", case.root.display());
                let root_ends = format!("{}", case.root.display());
                !bad.iter().any(|id| id.contains(&root) || id.ends_with(&root_ends))
            });
            if cases.len() == count {
                return Err(format!("cannot be planned: {failed:?}"));
            }
            self.tally.unplannable += count - cases.len();
            agent.end();
        };
        self.count(&plan);
        let outcomes = agent.apply(plan.nodes.len())?;
        let after = list(&hosts);
        as_planned(&plan, &outcomes, &graph)?;
        as_said(&plan, before, &after)?;
        let differs = agent.finish()?;
        if !differs.is_empty() {
            let names = differs.iter().map(|one| graph.nodes[one.node as usize].id.to_string());
            return Err(format!("does not converge: {:?}\n{differs:?}", names.collect::<Vec<_>>()));
        }
        let second = agent.plan_again()?;
        for node in &second.nodes {
            // Commands without a guard happen each time, and something may wait for them.
            let waits = node.verdict == Verdict::Depends && !node.depends_on.is_empty();
            let lasting: Vec<&Change> =
                changes(node).filter(|one| !waits && !is_act(one)).collect();
            if node.verdict == Verdict::Failed || !lasting.is_empty() {
                let id = &graph.nodes[node.node as usize].id;
                return Err(format!("the second plan of {id}: {} {lasting:?}", node.because));
            }
        }
        same("the second plan changes something", &after, &list(&hosts))?;
        agent.end();
        self.undo(state.path(), &run, before)
    }

    fn undo(&mut self, state: &Path, run: &RunInfo, before: &Listing) -> Result<(), String> {
        let hosts = self.folder.path().join("hosts");
        let undoing = self.run_info("");
        let mut agent = Agent::start(state, Arc::default());
        let plan = agent.plan_undo(run, &undoing)?;
        if !plan.failed().is_empty() {
            return Err(format!("cannot be undone: {:?}", plan.failed()));
        }
        let outcomes = agent.apply(plan.nodes.len())?;
        for (node, outcome) in plan.added.iter().zip(outcomes) {
            if let Some(Outcome::Failed { message, .. }) = outcome {
                return Err(format!("undoing {} fails: {message}", node.id));
            }
        }
        let differs = agent.finish()?;
        if !differs.is_empty() {
            return Err(format!("the undo does not converge: {differs:?}"));
        }
        agent.end();
        // A pipe cannot be made again, and the plan has said so.
        let mut expected = before.clone();
        let mut after = list(&hosts);
        for what in &plan.cannot {
            let pipe = |path: &Path, seen: &listing::Seen| {
                let path = RemotePath::from(path.to_owned());
                // It may have been named by a way through links.
                let name = path.as_path().file_name().unwrap_or_default();
                seen.what == listing::What::Pipe
                    && what.contains(&RemotePath::new(name).to_string())
            };
            let gone: Vec<_> = expected
                .iter()
                .filter(|(path, seen)| pipe(path, seen))
                .map(|one| one.0.clone())
                .collect();
            for path in gone {
                expected.remove(&path);
                after.remove(&path);
            }
        }
        same("undo does not give back what was", &expected, &after)
    }

    fn count(&mut self, plan: &Plan) {
        let count = |wanted: fn(&converge::wire::PlannedNode) -> bool| {
            plan.nodes.iter().filter(|node| wanted(node)).count()
        };
        self.tally.nodes += plan.nodes.len();
        self.tally.changes += count(|node| node.verdict == Verdict::Change);
        self.tally.depends += count(|node| node.verdict == Verdict::Depends);
        self.tally.assuming += count(|node| !node.assuming.is_empty());
    }
}

fn same(what: &str, left: &Listing, right: &Listing) -> Result<(), String> {
    let differences = differences(left, right);
    if differences.is_empty() {
        Ok(())
    } else {
        Err(format!("{what}:\n{}", differences.join("\n")))
    }
}

fn is_act(change: &Change) -> bool {
    matches!(change, Change::Act(_))
}

/// Every node ends as its plan says.
fn as_planned(plan: &Plan, outcomes: &[Option<Outcome>], graph: &Graph) -> Result<(), String> {
    for (node, outcome) in plan.nodes.iter().zip(outcomes) {
        let as_planned = match (node.verdict, outcome) {
            // Without views of its own it is what was planned.
            (Verdict::Change, Some(Outcome::Changed(views))) => views.is_empty(),
            (Verdict::Ok, Some(Outcome::Met { .. })) => true,
            (Verdict::Skipped, Some(Outcome::Skipped { .. })) => true,
            (Verdict::Depends, Some(Outcome::Met { .. } | Outcome::Changed(_))) => true,
            _ => false,
        };
        if !as_planned {
            let id = &graph.nodes[node.node as usize].id;
            return Err(format!("{id} was planned as {node:?}\nand ended as {outcome:?}"));
        }
    }
    Ok(())
}

/// The host is what the plan's changes make of what it was, and nothing else has changed. What commands have made
/// is theirs, and what depends on others may have been left out.
fn as_said(plan: &Plan, before: &Listing, after: &Listing) -> Result<(), String> {
    let mut said = before.clone();
    let mut after = after.clone();
    let mut open = Vec::new();
    for node in &plan.nodes {
        for change in changes(node) {
            match change {
                Change::Content { path, .. } | Change::Metadata { path, .. }
                    if node.verdict == Verdict::Depends =>
                {
                    // Its folder may be a link, and yet to be replaced.
                    open.push(listing::real(path.as_path(), &said));
                    open.push(path.as_path().to_owned());
                }
                Change::Act(Act::Run(_)) => {}
                change => make(change, &mut said)?,
            }
        }
    }
    let is_open = |path: &Path| {
        open.iter().any(|one| one == path)
            || path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("made"))
    };
    said.retain(|path, _| !is_open(path));
    after.retain(|path, _| !is_open(path));
    same("the host is not what the plan said", &said, &after)
}

#[test]
fn plans_are_what_happens_and_undo_gives_back_what_was() {
    if !rustix::process::geteuid().is_root() {
        println!("left out: owners can be given by root only");
        return;
    }
    let begun = Instant::now();
    let first = Random::seed();
    let seeds: Vec<u64> =
        (0..number_of_cases() as u64).map(|number| first.wrapping_add(number)).collect();
    let mut bench = Bench::new();
    let mut failures = Vec::new();
    for batch in seeds.chunks(BATCH) {
        let Err(together) = bench.check(batch) else { continue };
        let alone = batch.iter().find_map(|seed| {
            let error = bench.check(&[*seed]).err()?;
            Some(format!("CONVERGE_SEED={seed} CONVERGE_CASES=1\n{error}"))
        });
        failures.push(alone.unwrap_or_else(|| format!("CONVERGE_SEED={}\n{together}", batch[0])));
        if failures.len() > 5 {
            break;
        }
    }
    println!("{:?} in {:?}", bench.tally, begun.elapsed());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn users_and_groups_are_as_planned_and_undo_gives_them_back() {
    let Some(hosts) = hosts::Hosts::new(&["a"]) else { return };
    let begun = Instant::now();
    let mut random = Random::new(Random::seed());
    let (mut cases, mut rounds) = (0, 0);
    while cases < number_of_cases() / 10 {
        cases += accounts::round(&hosts, &mut random, rounds);
        rounds += 1;
    }
    println!("{cases} users and groups in {rounds} runs, {:?}", begun.elapsed());
}

fn number_of_cases() -> usize {
    std::env::var("CONVERGE_CASES").map_or(1000, |count| count.parse().unwrap())
}
