use indexmap::IndexMap;
use tokio::sync::mpsc;

use super::arguments::{ConvergeArguments, OutputArguments, StatusArguments};
use super::converge::{prepare, runtime};
use super::history::{is_json, warn};
use super::load::load;
use super::sandbox::Hosts;
use super::{CliError, EXIT_FAILED, EXIT_OK, EXIT_PENDING, Surroundings};
use crate::fleet;
use crate::report::status_text;

/// `converge status`: what is not any more as the runs of a state file have left it, and since
/// which run.
pub(super) fn run(
    surroundings: &Surroundings,
    arguments: &StatusArguments,
) -> Result<u8, CliError> {
    let json = is_json(&arguments.format)?;
    let output = OutputArguments::looking(&arguments.format, arguments.no_color);
    let mut states =
        ConvergeArguments::without_states(&arguments.source, &arguments.connection, &output);
    states.state_file = Some(arguments.state_file.clone());
    let loaded = load(surroundings, &states)?;
    let booted = Hosts::boot(surroundings, &loaded, true)?;
    let prepared = prepare(surroundings, &arguments.connection, &output, loaded, &booted)?;
    let (events, mut incoming) = mpsc::unbounded_channel();
    let question = fleet::status(&prepared.reachable, prepared.loaded.info.clone(), events);
    let told = runtime()?.block_on(question);
    warn(surroundings, &mut incoming);
    let colour = !arguments.no_color && surroundings.colours(surroundings.output_terminal);
    let (mut failed, mut drifted) = (false, false);
    let mut text = String::new();
    let mut document = IndexMap::new();
    for host in told {
        match host.told {
            Ok(status) => {
                drifted |= !status.drift.is_empty();
                text.push_str(&status_text(&host.name, &status, colour));
                document.insert(host.name, status);
            }
            Err(message) => {
                failed = true;
                surroundings.complain(&format!("error: {}: {message}", host.name));
            }
        }
    }
    if json {
        text = serde_json::to_string(&document)
            .map_err(|error| CliError::Machine(error.to_string()))?;
        text.push('\n');
    }
    surroundings.print(&text)?;
    Ok(match (failed, drifted && arguments.exit_code) {
        (true, _) => EXIT_FAILED,
        (_, true) => EXIT_PENDING,
        _ => EXIT_OK,
    })
}
