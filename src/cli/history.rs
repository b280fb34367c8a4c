use std::sync::Arc;

use tokio::sync::mpsc;

use super::arguments::{ConvergeArguments, HistoryArguments, OutputArguments};
use super::converge::{prepare, runtime};
use super::load::load;
use super::sandbox::Hosts;
use super::{CliError, EXIT_FAILED, EXIT_OK, Surroundings};
use crate::fleet;
use crate::report::{Event, PastHosts, history_json, history_text};

/// `converge history`: the runs that hosts remember, merged; or one of them with its differences.
pub(super) fn run(
    surroundings: &Surroundings,
    arguments: &HistoryArguments,
) -> Result<u8, CliError> {
    let json = is_json(&arguments.format)?;
    // A run's name begins with its time, and no state file's does.
    let (runs, files): (Vec<&String>, Vec<&String>) =
        arguments.what.iter().partition(|word| is_run(word));
    if runs.len() > 1 || files.len() > 1 {
        let message = "history takes one state file and one run at most";
        return Err(CliError::Usage(message.to_owned()));
    }
    let output = OutputArguments::looking(&arguments.format, arguments.no_color);
    let mut states =
        ConvergeArguments::without_states(&arguments.source, &arguments.connection, &output);
    states.state_file = files.first().map(|file| (*file).clone());
    let loaded = load(surroundings, &states)?;
    let booted = Hosts::boot(surroundings, &loaded, true)?;
    let prepared = prepare(surroundings, &arguments.connection, &output, loaded, &booted)?;
    let wanted = runs.first().map(|run| (*run).clone());
    let runtime = runtime()?;
    let (events, mut incoming) = mpsc::unbounded_channel();
    let told = runtime.block_on(fleet::past(&prepared.reachable, wanted.clone(), events));
    warn(surroundings, &mut incoming);
    let mut merged = PastHosts::default();
    let mut failed = false;
    for host in told {
        match host.told {
            Ok((runs, unreadable)) => {
                for what in unreadable {
                    surroundings.complain(&format!("warning: {}: {what}", host.name));
                }
                let scope = files.first().map(|_| prepared.loaded.info.scope());
                let ours = |scope_of: String| scope.as_ref().is_none_or(|scope| *scope == scope_of);
                let runs = runs.into_iter().filter(|run| ours(run.info.scope()));
                merged.add(&host.name, runs);
            }
            Err(message) => {
                failed = true;
                surroundings.complain(&format!("error: {}: {message}", host.name));
            }
        }
    }
    let loaded = Arc::clone(&prepared.loaded);
    let all = loaded.compilation.hosts().len();
    if let Some(run) = wanted.filter(|_| merged.is_empty() && !failed) {
        surroundings.complain(&format!(
            "error: no host has a run `{run}` in its records\n  help: the records of root are read \
             with --become"
        ));
        return Ok(EXIT_FAILED);
    }
    let colour = !arguments.no_color && surroundings.colours(surroundings.output_terminal);
    let one = !runs.is_empty();
    let text = if json {
        history_json(&merged, arguments.number)
    } else {
        history_text(&merged, arguments.number, one, all, colour)
    };
    surroundings.print(&text)?;
    Ok(if failed { EXIT_FAILED } else { EXIT_OK })
}

/// Whether a command that prints by itself is to print JSON.
pub(super) fn is_json(format: &str) -> Result<bool, CliError> {
    match format {
        "text" => Ok(false),
        "json" => Ok(true),
        other => Err(CliError::Usage(format!("this is printed as text or json, not `{other}`"))),
    }
}

/// Says what hosts were warned of while they were asked.
pub(super) fn warn(surroundings: &Surroundings, events: &mut mpsc::UnboundedReceiver<Event>) {
    while let Ok(event) = events.try_recv() {
        if let Event::Warning { host, message } = event {
            let host = host.map(|host| format!("{host}: ")).unwrap_or_default();
            surroundings.complain(&format!("warning: {host}{message}"));
        }
    }
}

/// Whether a word is the name of a run, such as `20261121T120000Z-1a2b`.
fn is_run(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() > 16
        && bytes[..8].iter().all(u8::is_ascii_digit)
        && bytes[8] == b'T'
        && bytes[15] == b'Z'
        && bytes[16] == b'-'
}
