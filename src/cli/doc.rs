use super::arguments::DocArguments;
use super::schema::own_kinds;
use super::{CliError, EXIT_OK, Surroundings};
use crate::lang::{self, OwnKinds};

/// `converge doc`: explains a kind, or lists the kinds.
pub(super) fn run(surroundings: &Surroundings, arguments: &DocArguments) -> Result<u8, CliError> {
    let width = surroundings.output_terminal.then_some(surroundings.width);
    let topic = arguments.topic.as_deref();
    // What is always there is explained even if a kind of the project is wrong.
    let text = match lang::manual(topic, &OwnKinds::default(), width) {
        Ok(text) if topic.is_some() => text,
        _ => lang::manual(topic, &own_kinds(surroundings)?, width)
            .map_err(|error| CliError::Usage(error.to_string()))?,
    };
    surroundings.print(&text)?;
    Ok(EXIT_OK)
}
