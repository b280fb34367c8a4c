use super::arguments::InventoryArguments;
use super::load;
use super::screen::show;
use super::{CliError, EXIT_OK, Surroundings};
use crate::diagnostic::Diagnostics;

/// `converge inventory`: prints what `ansible-inventory` prints for the same input.
pub(super) fn run(
    surroundings: &Surroundings,
    arguments: &InventoryArguments,
) -> Result<u8, CliError> {
    let mut diagnostics = Diagnostics::default();
    if arguments.source.limit.is_some() && (arguments.graph || arguments.host.is_some()) {
        let message = "--limit is for --list; --graph shows all groups, and --host one host";
        return Err(CliError::Usage(message.to_owned()));
    }
    let beside = [surroundings.directory.clone()];
    let loaded = load::inventory(surroundings, &arguments.source, &beside, &mut diagnostics)?;
    let inventory = &loaded.inventory;
    let limit = load::limit(surroundings, &arguments.source, &loaded.sources, &mut diagnostics)?;
    let listed = inventory.list(limit.as_ref(), &mut diagnostics);
    show(surroundings, &loaded.sources, &diagnostics)?;
    let text = match &arguments.host {
        Some(host) => inventory.host_variables(host).ok_or_else(|| {
            let near = crate::diagnostic::nearest(host, inventory.hosts());
            let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            CliError::Usage(format!("there is no host `{host}` in the inventory{hint}"))
        })?,
        None if arguments.graph => inventory.graph("all").unwrap_or_default(),
        None => listed,
    };
    surroundings.print(&text)?;
    Ok(EXIT_OK)
}
