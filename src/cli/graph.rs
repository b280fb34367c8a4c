use super::arguments::{ConvergeArguments, GraphArguments};
use super::load;
use super::screen::show;
use super::{CliError, EXIT_OK, Surroundings};
use crate::diagnostic::Diagnostics;
use crate::graph::{Explained, ReferenceError};
use crate::report::{GraphFormat, GraphPicture, draw, harmless};

/// `converge graph`: the order of resources as a picture, or why two of them are in it. No host is
/// connected to.
pub(super) fn run(surroundings: &Surroundings, arguments: &GraphArguments) -> Result<u8, CliError> {
    let reading = ConvergeArguments::reading(
        Some(&arguments.state_file),
        &arguments.source,
        &arguments.extra_vars,
    );
    let mut diagnostics = Diagnostics::default();
    let compilation = load::read(surroundings, &reading, &mut diagnostics)?.compilation;
    let hosts = compilation.hosts().iter();
    let graphs = hosts.map(|host| (host.as_str(), compilation.explain(host, &mut diagnostics)));
    let text = match arguments.why.as_slice() {
        [first, second] => why(graphs, first, second).map(|text| harmless(&text)),
        _ => Ok(draw(&pictures(graphs), format(&arguments.format))),
    };
    show(surroundings, &compilation.sources, &diagnostics)?;
    if compilation.hosts().is_empty() {
        return Err(CliError::Usage(load::NO_HOST.to_owned()));
    }
    surroundings.print(&text.map_err(|error| CliError::Usage(error.to_string()))?)?;
    Ok(EXIT_OK)
}

fn format(name: &str) -> GraphFormat {
    match name {
        "mermaid" => GraphFormat::Mermaid,
        "svg" => GraphFormat::Svg,
        _ => GraphFormat::Dot,
    }
}

/// The pictures of hosts, equal ones once.
fn pictures<'a>(graphs: impl Iterator<Item = (&'a str, Explained)>) -> Vec<GraphPicture> {
    let mut pictures: Vec<GraphPicture> = Vec::new();
    for (host, graph) in graphs {
        let picture = graph.picture();
        let equal = pictures.iter_mut().find(|known| known.plays == picture.plays);
        match equal {
            Some(known) => known.hosts.push(host.to_owned()),
            None => pictures.push(GraphPicture { hosts: vec![host.to_owned()], ..picture }),
        }
    }
    pictures
}

/// The answers for hosts, equal ones once; the error where no host has both resources.
fn why<'a>(
    graphs: impl Iterator<Item = (&'a str, Explained)>,
    first: &str,
    second: &str,
) -> Result<String, ReferenceError> {
    let mut answers: Vec<(Vec<&str>, String)> = Vec::new();
    let mut error = None;
    for (host, graph) in graphs {
        match graph.why(first, second) {
            Ok(answer) => match answers.iter_mut().find(|(_, known)| *known == answer) {
                Some((hosts, _)) => hosts.push(host),
                None => answers.push((vec![host], answer)),
            },
            Err(unknown) => error = error.or(Some(unknown)),
        }
    }
    match (answers.as_slice(), error) {
        ([], Some(error)) => Err(error),
        ([(_, answer)], None) => Ok(answer.clone()),
        (answers, _) => {
            let answer =
                |(hosts, answer): &(Vec<&str>, String)| format!("{}: {answer}", hosts.join(", "));
            Ok(answers.iter().map(answer).collect())
        }
    }
}
