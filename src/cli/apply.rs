use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::arguments::{ApplyArguments, ConvergeArguments, InventorySource};
use super::converge::{Apply, Errand, execute, exit_code, prepare};
use super::keys;
use super::load::{Loaded, load};
use super::sandbox::Hosts;
use super::screen::{Screen, show};
use super::{CliError, Surroundings};
use crate::fleet::{PlanFile, SavedError, SavedPlan};
use crate::inventory::ConnectionKind;
use crate::project::Outline;

/// `converge apply`: does exactly what a saved plan says, or refuses.
pub(super) fn run(surroundings: &Surroundings, arguments: &ApplyArguments) -> Result<u8, CliError> {
    let path = surroundings.directory.join(&arguments.file);
    let shown = arguments.file.display();
    let declined = |error: SavedError| CliError::Declined(format!("{shown}: {error}"));
    let bytes = std::fs::read(&path)
        .map_err(|error| CliError::Usage(format!("{shown} cannot be read: {error}")))?;
    let file = PlanFile::decode(&bytes).map_err(declined)?;
    check_signature(surroundings, arguments, &file)?;
    let body = if file.encrypted {
        let identities =
            keys::identities(surroundings, &arguments.keys.identity, &keys::ask(surroundings))?;
        if identities.is_empty() {
            return Err(CliError::Usage(format!(
                "{shown}: it is encrypted; name a key that reads it with --identity"
            )));
        }
        let plain = identities.decrypt(&file.body);
        plain.map_err(|error| CliError::Usage(format!("{shown}: {error}")))?
    } else {
        file.body
    };
    let plan = SavedPlan::parse(&body).map_err(declined)?;
    let contents = Arc::new(plan.contents().map_err(declined)?);
    let source = InventorySource {
        inventory: plan.inventory.clone(),
        keys: arguments.keys.clone(),
        ..InventorySource::default()
    };
    let without_states =
        ConvergeArguments::without_states(&source, &arguments.connection, &arguments.output);
    let mut loaded = load(surroundings, &without_states)?;
    take_plan(&mut loaded, &plan, arguments.connection.user.is_some())?;
    let mut screen = Screen::open(surroundings, &arguments.output, arguments.output.dry_run)?;
    let hosts = Hosts::boot(surroundings, &loaded, true)?;
    let mut prepared =
        prepare(surroundings, &arguments.connection, &arguments.output, loaded, &hosts)?;
    prepared.reachable.contents = contents;
    let plans: HashMap<_, _> =
        plan.hosts.into_iter().map(|host| (host.name, Arc::new(host.plan))).collect();
    let apply = Apply { plans: Arc::new(plans), any_errors_fatal: plan.any_errors_fatal };
    let errand = Errand {
        dry_run: arguments.output.dry_run,
        wait: arguments.wait,
        apply: Some(apply),
        ..Errand::default()
    };
    let (ended, diagnostics) =
        execute(surroundings, &prepared, &errand, &mut |event| screen.event(event))?;
    show(surroundings, &prepared.loaded.compilation.sources, &diagnostics)?;
    Ok(exit_code(ended, errand.dry_run, arguments.output.exit_code))
}

/// Where allowed signers are named, only their plans are taken; otherwise it is said what is not
/// known.
fn check_signature(
    surroundings: &Surroundings,
    arguments: &ApplyArguments,
    file: &PlanFile,
) -> Result<(), CliError> {
    let usual = Path::new(".converge/allowed_signers");
    let in_project = surroundings
        .directory
        .ancestors()
        .map(|folder| folder.join(usual))
        .find(|path| path.is_file());
    let named = arguments.allowed_signers.as_ref().map(|path| surroundings.directory.join(path));
    let shown = arguments.file.display();
    match (named.or(in_project), &file.signature) {
        (Some(allowed), Some(signature)) => {
            let signer = crate::ssh::verify(&allowed, signature, &file.body)
                .map_err(|error| CliError::Declined(format!("{shown}: {error}")))?;
            surroundings.complain(&format!("the plan is signed by {signer}"));
            Ok(())
        }
        (Some(allowed), None) => Err(CliError::Declined(format!(
            "{shown}: it is not signed, and only plans signed as {} says are applied",
            allowed.display()
        ))),
        (None, Some(_)) => {
            surroundings.complain(
                "warning: the plan is signed, but nobody says who may sign: it is only checked for \
                 corruption (--allowed-signers)",
            );
            Ok(())
        }
        (None, None) => {
            surroundings
                .complain("warning: the plan is not signed: it is only checked for corruption");
            Ok(())
        }
    }
}

/// Narrows an inventory to the plan's hosts, and reaches them as the plan did.
fn take_plan(loaded: &mut Loaded, plan: &SavedPlan, user_given: bool) -> Result<(), CliError> {
    let mut connections = indexmap::IndexMap::new();
    loaded.outlines.clear();
    for host in &plan.hosts {
        let Some(mut connection) = loaded.connections.shift_remove(&host.name) else {
            let name = &host.name;
            return Err(CliError::Declined(format!(
                "the plan is stale: {name} is not in the inventory any more"
            )));
        };
        connection.kind = ConnectionKind::named(&host.connection).unwrap_or(connection.kind);
        if !user_given {
            connection.user.clone_from(&host.user);
        }
        connections.insert(host.name.clone(), connection);
        let outline = Outline { becomes: host.becomes, ..Outline::default() };
        loaded.outlines.insert(host.name.clone(), outline);
    }
    loaded.connections = connections;
    loaded.state_file.clone_from(&plan.state_file);
    loaded.info = plan.run.clone();
    Ok(())
}
