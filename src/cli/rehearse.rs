use std::collections::BTreeMap;

use super::arguments::ConvergeArguments;
use super::converge::{Errand, execute, exit_code, prepare};
use super::load::load;
use super::sandbox::Hosts;
use super::screen::{Screen, show};
use super::{CliError, EXIT_FAILED, EXIT_OK, Surroundings};
use crate::inventory::ConnectionKind;
use crate::report::{Event, Resource, Verdict};

/// What an event stream says of each resource: host, play and identity.
type Seen = BTreeMap<(String, String, String), Resource>;

/// `converge test`: converges throw-away hosts, and shows that a plan says what an apply does and
/// that a second run has nothing left to do.
///
/// Whatever the inventory says, the hosts are booted for this and thrown away afterwards.
pub(super) fn run(
    surroundings: &Surroundings,
    arguments: &ConvergeArguments,
) -> Result<u8, CliError> {
    if arguments.output.dry_run {
        let message = "`converge test` changes throw-away hosts; --dry-run makes no sense with it";
        return Err(CliError::Usage(message.to_owned()));
    }
    let mut loaded = load(surroundings, arguments)?;
    let wanted = loaded.compilation.wanted();
    loaded.beside.retain(|host, _| wanted.contains(host));
    for connection in loaded.connections.values_mut().chain(loaded.beside.values_mut()) {
        // Nothing of a real host may be reached by a rehearsal.
        connection.kind = ConnectionKind::Sandbox;
        connection.user = None;
    }
    let mut screen = Screen::open(surroundings, &arguments.output, false)?;
    let hosts = Hosts::boot(surroundings, &loaded, false)?;
    let prepared = prepare(surroundings, &arguments.connection, &arguments.output, loaded, &hosts)?;
    let sources = &prepared.loaded.compilation.sources;

    let mut planned = Seen::new();
    let (ended, diagnostics) = execute(surroundings, &prepared, &Errand::plan(), &mut |event| {
        collect(event, &mut planned);
        Ok(())
    })?;
    show(surroundings, sources, &diagnostics)?;
    if ended.failed || ended.interrupted {
        // The run below says why, resource by resource.
        surroundings.complain("the plan already fails:");
    }

    surroundings.complain("converging");
    let mut done = Seen::new();
    let (ended, diagnostics) =
        execute(surroundings, &prepared, &Errand::converge(), &mut |event| {
            collect(event, &mut done);
            screen.event(event)
        })?;
    show(surroundings, sources, &diagnostics)?;
    if ended.failed || ended.interrupted || ended.refused {
        return Ok(exit_code(ended, false, false));
    }

    surroundings.complain("converging again");
    let mut again = Seen::new();
    let (ended, diagnostics) =
        execute(surroundings, &prepared, &Errand::converge(), &mut |event| {
            collect(event, &mut again);
            Ok(())
        })?;
    show(surroundings, sources, &diagnostics)?;
    if ended.failed || ended.interrupted {
        surroundings.complain("the second run failed, though the first did not");
        return Ok(exit_code(ended, false, false));
    }

    let mut wrong = differences(&planned, &done);
    wrong.extend(lies(&again));
    if wrong.is_empty() {
        surroundings.print("the rehearsal succeeded: the plan was what happened, and a second run changes nothing\n")?;
        return Ok(EXIT_OK);
    }
    surroundings.print(&format!("the rehearsal failed:\n{}", wrong.concat()))?;
    Ok(EXIT_FAILED)
}

fn collect(event: &Event, seen: &mut Seen) {
    if let Event::Planned { host, resource } | Event::Done { host, resource } = event {
        let key = (host.clone(), resource.play.clone(), resource.id.clone());
        seen.insert(key, resource.clone());
    }
}

/// Where what was done is not what was planned. A `depends` permits either.
fn differences(planned: &Seen, done: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((host, play, id), resource) in done {
        let Some(plan) = planned.get(&(host.clone(), play.clone(), id.clone())) else { continue };
        let same = match (plan.verdict, resource.verdict) {
            (Verdict::Depends, Verdict::Change | Verdict::Ok) => true,
            (Verdict::Change, Verdict::Change) => {
                let targets = |resource: &Resource| -> Vec<(String, String)> {
                    resource
                        .changes
                        .iter()
                        .map(|change| (change.action.clone(), change.target.clone()))
                        .collect()
                };
                targets(plan) == targets(resource)
            }
            (planned, done) => planned == done,
        };
        if !same {
            wrong.push(format!(
                "  {host}: {id} was planned as {:?} and ended as {:?} ({})\n",
                plan.verdict, resource.verdict, resource.at
            ));
        }
    }
    wrong
}

/// What a second run still changed. Commands without a guard are shown as what they are.
fn lies(again: &Seen) -> Vec<String> {
    again
        .iter()
        .filter(|(_, resource)| resource.verdict == Verdict::Change)
        .map(|((host, _, id), resource)| {
            let hint = if id.starts_with("command:") {
                ": a command without a guard runs every time; give it `creates`, `unless` or `read_only`"
            } else {
                ": it does not converge"
            };
            format!("  {host}: {id} changed again in the second run ({}){hint}\n", resource.at)
        })
        .collect()
}
