use super::arguments::{ConvergeArguments, InventorySource, VarsArguments};
use super::history::is_json;
use super::load;
use super::screen::show;
use super::{CliError, EXIT_OK, Surroundings};
use crate::diagnostic::{Diagnostics, Sources, nearest};
use crate::lang::{LayerValue, Said, Scope, Shown};
use crate::report::{
    PlayVariables, VariableOrigin, VariablePlace, VariableSource, VariableUse, VariableValue,
    origin_text, variables_json, variables_text,
};

/// `converge vars`: what the variables of a host come to, and where they come from. The host is not
/// connected to.
pub(super) fn run(surroundings: &Surroundings, arguments: &VarsArguments) -> Result<u8, CliError> {
    let json = is_json(&arguments.format)?;
    let source = InventorySource {
        inventory: arguments.inventory.clone(),
        limit: None,
        untrusted: arguments.untrusted,
        keys: arguments.keys.clone(),
        without_keys: false,
    };
    let reading =
        ConvergeArguments::reading(arguments.state_file.as_deref(), &source, &arguments.extra_vars);
    let mut diagnostics = Diagnostics::default();
    let compilation = load::read(surroundings, &reading, &mut diagnostics)?.compilation;
    let host = arguments.host.as_str();
    let scopes = compilation.scopes(host, &mut diagnostics);
    show(surroundings, &compilation.sources, &diagnostics)?;
    if scopes.is_empty() {
        return Err(CliError::Usage(unknown_host(host, &compilation.inventory, arguments)));
    }
    let sources = &compilation.sources;
    let named = arguments.state_file.is_some();
    let scopes: Vec<(Option<String>, Scope)> =
        scopes.into_iter().map(|(play, scope)| (named.then(|| play.name.clone()), scope)).collect();
    let text = match &arguments.explain {
        Some(name) => origin_text(host, name, &origins(host, name, &scopes, sources)?),
        None if json => variables_json(host, &variables(&scopes, sources)),
        None => variables_text(&variables(&scopes, sources)),
    };
    surroundings.print(&text)?;
    Ok(EXIT_OK)
}

fn unknown_host(
    host: &str,
    inventory: &crate::inventory::Inventory,
    arguments: &VarsArguments,
) -> String {
    if inventory.hosts().any(|known| known == host) {
        let file = arguments.state_file.as_deref().unwrap_or_default();
        return format!("no play of `{file}` is for `{host}`");
    }
    let near = nearest(host, inventory.hosts());
    let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    format!("there is no host `{host}` in the inventory{hint}")
}

fn variables(scopes: &[(Option<String>, Scope)], sources: &Sources) -> Vec<PlayVariables> {
    let scopes = scopes.iter().map(|(play, scope)| {
        let variables = scope.variable_names().into_iter().filter_map(|name| {
            let (said, shown) = scope.shown(name)?;
            Some((name.to_owned(), place(&said, sources), value(shown, sources)))
        });
        PlayVariables { play: play.clone(), variables: variables.collect() }
    });
    scopes.collect()
}

fn origins(
    host: &str,
    name: &str,
    scopes: &[(Option<String>, Scope)],
    sources: &Sources,
) -> Result<Vec<VariableOrigin>, CliError> {
    let mut merged: Vec<VariableOrigin> = Vec::new();
    for (play, scope) in scopes {
        let Some(explanation) = scope.explain(name) else { continue };
        let uses = explanation.uses.into_iter().map(|used| VariableUse {
            depth: used.depth,
            name: used.name,
            source: match used.said {
                Said::By(said) => VariableSource::Place(place(&said, sources)),
                Said::Known => VariableSource::Known,
                Said::Nowhere => VariableSource::Nowhere,
            },
            value: used.value.map(|shown| value(shown, sources)),
        });
        let origin = VariableOrigin {
            plays: Vec::new(),
            places: explanation.layers.iter().map(|said| place(said, sources)).collect(),
            value: value(explanation.value, sources),
            uses: uses.collect(),
        };
        let equal = merged.iter_mut().find(|known| {
            known.places == origin.places
                && known.value == origin.value
                && known.uses == origin.uses
        });
        match equal {
            Some(known) => known.plays.extend(play.clone()),
            None => {
                merged.push(VariableOrigin { plays: play.clone().into_iter().collect(), ..origin });
            }
        }
    }
    if merged.is_empty() {
        let names = scopes.iter().flat_map(|(_, scope)| scope.variable_names());
        let hint = match nearest(name, names) {
            _ if scopes.iter().any(|(_, scope)| scope.defined(name)) => {
                String::from(": it is what converge knows by itself")
            }
            Some(near) => format!("; did you mean `{near}`?"),
            None => String::new(),
        };
        let message = format!("`{host}` has no variable `{name}`{hint}");
        return Err(CliError::Usage(message));
    }
    Ok(merged)
}

fn place(said: &LayerValue, sources: &Sources) -> VariablePlace {
    VariablePlace {
        layer: said.layer.clone(),
        at: sources.place(said.span).to_string(),
        text: match sources.is_hidden(said.span.source) {
            true => String::from("(secret)"),
            false => sources.slice(said.span),
        },
    }
}

fn value(shown: Shown, sources: &Sources) -> VariableValue {
    match shown {
        Shown::Known(value) => VariableValue::Known(value),
        Shown::NeedsFacts => VariableValue::NeedsFacts,
        Shown::Failed(diagnostic) => VariableValue::Failed(match diagnostic.labels.first() {
            Some(label) => format!("{}, {}", diagnostic.message, sources.place(label.span)),
            None => diagnostic.message.clone(),
        }),
    }
}
