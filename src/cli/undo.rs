use super::arguments::{ConvergeArguments, UndoArguments};
use super::converge::{Errand, Undo, execute, exit_code, prepare};
use super::load::load;
use super::sandbox::Hosts;
use super::screen::{Screen, show};
use super::{CliError, EXIT_FAILED, EXIT_INTERRUPTED, Surroundings};

/// `converge undo`: shows as a plan what takes a run back, and does it.
pub(super) fn run(surroundings: &Surroundings, arguments: &UndoArguments) -> Result<u8, CliError> {
    let UndoArguments { run, source, force, connection, wait, output } = arguments;
    let without_states = ConvergeArguments::without_states(source, connection, output);
    let loaded = load(surroundings, &without_states)?;
    let hosts = Hosts::boot(surroundings, &loaded, true)?;
    let prepared = prepare(surroundings, connection, output, loaded, &hosts)?;
    let undo = Some(Undo { run: run.clone(), force: *force, rollback: None });
    let mut errand = Errand { dry_run: true, undo, ..Errand::default() };
    let mut found = false;
    let mut screen = Screen::open(surroundings, output, true)?;
    let (planned, diagnostics) = execute(surroundings, &prepared, &errand, &mut |event| {
        found |= matches!(event, crate::report::Event::Planned { .. });
        screen.event(event)
    })?;
    show(surroundings, &prepared.loaded.compilation.sources, &diagnostics)?;
    if !found && !planned.failed && !planned.interrupted {
        surroundings.complain(&format!(
            "error: no host has changes of a run `{run}` in its records\n  help: `converge history` \
             lists them; the records of root are read with --become"
        ));
        return Ok(EXIT_FAILED);
    }
    if output.dry_run || planned.failed || planned.interrupted {
        let code = exit_code(planned, true, output.exit_code);
        return Ok(if planned.interrupted { EXIT_INTERRUPTED } else { code });
    }
    errand = Errand { dry_run: false, wait: *wait, ..errand };
    let mut screen = Screen::open(surroundings, output, false)?;
    let (ended, diagnostics) =
        execute(surroundings, &prepared, &errand, &mut |event| screen.event(event))?;
    show(surroundings, &prepared.loaded.compilation.sources, &diagnostics)?;
    Ok(exit_code(ended, false, output.exit_code))
}
