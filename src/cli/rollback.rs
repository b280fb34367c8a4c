use indexmap::IndexMap;

use super::converge::{Errand, Prepared, Undo, execute};
use super::{CliError, EXIT_FAILED, EXIT_ROLLED_BACK, Surroundings};
use crate::diagnostic::Diagnostics;
use crate::fleet::Ended;
use crate::lang::OnFailure;
use crate::report::{Event, Status};

/// How a host ended: the event that says so.
type Ends = IndexMap<String, Event>;

/// Runs the fleet once; where a play fails that says `on_failure: rollback`, what the run has
/// changed in it is taken back on all of its hosts before the run ends.
pub(super) fn with_rollback(
    surroundings: &Surroundings,
    prepared: &Prepared,
    errand: &Errand,
    on_event: &mut dyn FnMut(&Event) -> Result<(), CliError>,
) -> Result<(Ended, Diagnostics), CliError> {
    let plays = &prepared.loaded.compilation.program.plays;
    let may_roll_back = plays.iter().any(|play| play.on_failure == OnFailure::Rollback);
    if errand.dry_run || !may_roll_back {
        return execute(surroundings, prepared, errand, on_event);
    }
    // How hosts ended is not known before that.
    let mut run = String::new();
    let mut ends = Ends::new();
    let mut last = None;
    let (mut ended, mut diagnostics) = execute(surroundings, prepared, errand, &mut |event| {
        match event {
            Event::HostDone { host, .. } => drop(ends.insert(host.clone(), event.clone())),
            Event::RunDone { .. } => last = Some(event.clone()),
            Event::RunStarted { run: name, .. } => {
                run.clone_from(name);
                on_event(event)?;
            }
            _ => on_event(event)?,
        }
        Ok(())
    })?;
    let failed = ended.failed_play.and_then(|play| plays.get(play));
    if let Some(play) = failed.filter(|play| play.on_failure == OnFailure::Rollback) {
        let undo = Undo { run, force: false, rollback: Some(play.name.clone()) };
        let (back, also) = roll_back(surroundings, prepared, undo, &ends, on_event)?;
        diagnostics.extend(also);
        ended.rolled_back = tell(&back, &mut ends);
        if let Some(Event::RunDone { exit_code, .. }) = &mut last {
            let code = if ended.rolled_back { EXIT_ROLLED_BACK } else { EXIT_FAILED };
            *exit_code = i32::from(code);
        }
    }
    for event in ends.values().chain(&last) {
        on_event(event)?;
    }
    Ok((ended, diagnostics))
}

/// Takes a failed play back on all hosts that the run has reached; how each of them ended.
fn roll_back(
    surroundings: &Surroundings,
    prepared: &Prepared,
    undo: Undo,
    ends: &Ends,
    on_event: &mut dyn FnMut(&Event) -> Result<(), CliError>,
) -> Result<(Ends, Diagnostics), CliError> {
    let mut reached = prepared.clone();
    reached.reachable.hosts.retain(|host| {
        !matches!(
            ends.get(&host.name),
            None | Some(Event::HostDone { status: Status::Unreachable, .. })
        )
    });
    let play = undo.rollback.clone().unwrap_or_default();
    let hosts = reached.reachable.hosts.len();
    on_event(&Event::Warning {
        host: None,
        message: format!("the play `{play}` failed: it is taken back on {hosts} hosts"),
    })?;
    let errand = Errand { wait: true, undo: Some(undo), ..Errand::default() };
    let mut back = Ends::new();
    let (_, diagnostics) = execute(surroundings, &reached, &errand, &mut |event| {
        match event {
            Event::HostDone { host, .. } => drop(back.insert(host.clone(), event.clone())),
            Event::RunStarted { .. } | Event::RunDone { .. } => {}
            _ => on_event(event)?,
        }
        Ok(())
    })?;
    Ok((back, diagnostics))
}

/// Says of each host whether it is back; whether all are.
fn tell(back: &Ends, ends: &mut Ends) -> bool {
    let mut all = true;
    for (name, end) in ends {
        let Event::HostDone { status, error, .. } = end else { continue };
        match back.get(name) {
            Some(Event::HostDone { status: Status::Ok | Status::Changed, .. }) => {
                *status = Status::RolledBack;
                error.get_or_insert_with(|| String::from("another host failed"));
            }
            Some(Event::HostDone { error: reason, .. }) => {
                all = false;
                *status = Status::Failed;
                let reason = reason.as_deref().unwrap_or("it was stopped");
                let before = error.take().map(|error| format!("{error}\n")).unwrap_or_default();
                *error = Some(format!("{before}it was not taken back: {reason}"));
            }
            // It was not reached, and so it was not changed.
            _ => {}
        }
    }
    all
}
