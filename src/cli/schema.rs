use super::screen::show;
use super::{CliError, EXIT_OK, Surroundings};
use crate::diagnostic::{Diagnostics, Sources};
use crate::lang::{self, OwnKinds};
use crate::project::Project;

/// `converge schema`: prints the JSON Schema of state files.
pub(super) fn run(surroundings: &Surroundings) -> Result<u8, CliError> {
    surroundings.print(&lang::schema(&own_kinds(surroundings)?))?;
    Ok(EXIT_OK)
}

/// The kinds of the project that the working directory is in, if there is one.
pub(super) fn own_kinds(surroundings: &Surroundings) -> Result<OwnKinds, CliError> {
    let sources = Sources::default();
    let mut diagnostics = Diagnostics::default();
    let project = Project::find(&surroundings.directory, &sources, &mut diagnostics);
    let folder = project.shown(&project.root.join("states/kinds"));
    let own = OwnKinds::load(&sources, folder.as_ref(), &mut diagnostics);
    show(surroundings, &sources, &diagnostics)?;
    Ok(own)
}
