use super::{CliError, EXIT_OK, Surroundings};
use crate::lang;

/// `converge schema`: prints the JSON Schema of state files.
pub(super) fn run(surroundings: &Surroundings) -> Result<u8, CliError> {
    surroundings.print(&lang::schema())?;
    Ok(EXIT_OK)
}
