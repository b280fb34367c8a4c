use super::arguments::DocArguments;
use super::{CliError, EXIT_OK, Surroundings};
use crate::lang;

/// `converge doc`: explains a kind, or lists the kinds.
pub(super) fn run(surroundings: &Surroundings, arguments: &DocArguments) -> Result<u8, CliError> {
    let width = surroundings.output_terminal.then_some(surroundings.width);
    let text = lang::manual(arguments.topic.as_deref(), width)
        .map_err(|error| CliError::Usage(error.to_string()))?;
    surroundings.print(&text)?;
    Ok(EXIT_OK)
}
