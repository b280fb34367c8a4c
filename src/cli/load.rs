use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use super::arguments::{ConvergeArguments, InventorySource};
use super::keys;
use super::screen::show;
use super::{CliError, Surroundings};
use crate::diagnostic::{Diagnostic, Diagnostics, Sources, Span};
use crate::inventory::{Connection, ConnectionKind, Given, Inventory, Pattern, Spec, Trust};
use crate::lang::yaml::{self, Node};
use crate::lang::{
    CompileOptions, ContentStore, Layer, LookupEnvironment, Program, Templates, add_file,
};
use crate::project::{Compilation, Download, Nothing, Outline, Project};
use crate::report::RunInfo;
use crate::secret::Keyring;
use crate::world::Digests;

/// Why there is nothing to be done.
pub(super) const NO_HOST: &str = "no host is selected: the plays and --limit have none in common";

/// Everything that is known before a host is connected to; nothing in it is wrong.
pub(super) struct Loaded {
    pub(super) project: Project,
    pub(super) compilation: Compilation,
    pub(super) outlines: IndexMap<String, Outline>,
    pub(super) connections: IndexMap<String, Connection>,
    /// Of hosts that may be asked for their facts alone.
    pub(super) beside: IndexMap<String, Connection>,
    /// The inventory's name: as it was given.
    pub(super) inventory: String,
    /// The state file as it was given.
    pub(super) state_file: String,
    /// Names that it may have had before.
    pub(super) adopt: Vec<String>,
    /// What the hosts' records know this by; the run itself is not named yet.
    pub(super) info: RunInfo,
    pub(super) untrusted: bool,
}

/// An inventory, read.
pub(super) struct LoadedInventory {
    pub(super) project: Project,
    pub(super) sources: Arc<Sources>,
    pub(super) inventory: Inventory,
    pub(super) name: String,
    pub(super) keyring: Arc<Keyring>,
}

/// Reads an inventory; `beside` are further folders with variables.
pub(super) fn inventory(
    surroundings: &Surroundings,
    source: &InventorySource,
    beside: &[PathBuf],
    diagnostics: &mut Diagnostics,
) -> Result<LoadedInventory, CliError> {
    let sources = Arc::new(Sources::default());
    let project = Project::find(&surroundings.directory, &sources, diagnostics);
    let names = if source.inventory.is_empty() {
        project.settings.inventory.clone()
    } else {
        source.inventory.clone()
    };
    if names.is_empty() {
        let message = "no inventory was given: name one with -i, or `inventory:` in converge.yml";
        return Err(CliError::Usage(message.to_owned()));
    }
    let mut given = Vec::new();
    for name in &names {
        given.push(if name.contains(',') {
            Given::Hosts(name.clone())
        } else {
            Given::Path(project.inventory(name)?)
        });
    }
    let mut spec = Spec::new(given, surroundings.directory.clone());
    spec.beside = beside.to_vec();
    let keyring = keys::keyring(surroundings, &source.keys, source.untrusted);
    let keyring = Arc::new(keyring.optional(source.untrusted || source.without_keys));
    spec.keyring = keyring.clone();
    if source.untrusted {
        spec.trust = Trust::Untrusted { project: project.root.clone() };
    }
    let inventory = Inventory::load(&sources, &spec, diagnostics);
    Ok(LoadedInventory { project, sources, inventory, name: names.join("+"), keyring })
}

/// The hosts that `--limit` leaves.
pub(super) fn limit(
    surroundings: &Surroundings,
    source: &InventorySource,
    sources: &Sources,
    diagnostics: &mut Diagnostics,
) -> Result<Option<Pattern>, CliError> {
    let Some(limit) = &source.limit else { return Ok(None) };
    if limit.trim_matches([' ', ',']).is_empty() {
        let message = "--limit is empty; leave it out to mean all hosts";
        return Err(CliError::Usage(message.to_owned()));
    }
    Ok(Some(Pattern::limit(limit, &surroundings.directory, sources, diagnostics)))
}

/// An inventory and a state file, read and brought together.
pub(super) struct Read {
    pub(super) project: Project,
    pub(super) compilation: Compilation,
    /// The inventory's name: as it was given.
    pub(super) inventory: String,
    /// The state file.
    pub(super) path: Option<PathBuf>,
}

/// Reads all that a run needs; nothing is compiled.
pub(super) fn read(
    surroundings: &Surroundings,
    arguments: &ConvergeArguments,
    diagnostics: &mut Diagnostics,
) -> Result<Read, CliError> {
    // The settings are read once more with the inventory; where the file is comes first.
    let finder =
        Project::find(&surroundings.directory, &Sources::default(), &mut Diagnostics::default());
    let path = match &arguments.state_file {
        Some(name) => Some(finder.state_file(name)?),
        None => None,
    };
    if arguments.source.untrusted {
        stays_inside(&finder, path.as_deref())?;
    }
    let loaded =
        inventory(surroundings, &arguments.source, &folder_of(path.as_deref()), diagnostics)?;
    let LoadedInventory { project, sources, inventory, name, keyring } = loaded;
    let confined = arguments.source.untrusted.then_some(project.root.as_path());
    let program = match &path {
        Some(path) => {
            let shown = PathBuf::from(project.shown(path));
            Program::load(&sources, &shown, confined, &keyring, diagnostics)
        }
        None => Program::without_states(&sources),
    };
    let limit = limit(surroundings, &arguments.source, &sources, diagnostics)?;
    let extra = Arc::new(extra_variables(
        &arguments.extra_vars,
        &surroundings.directory,
        &sources,
        &keyring,
        diagnostics,
    )?);
    let untrusted = arguments.source.untrusted;
    let templates = templates(surroundings, &project, &sources, untrusted, keyring);
    let options = CompileOptions {
        tags: arguments.tags.clone(),
        skip_tags: arguments.skip_tags.clone(),
        only: arguments.only.clone(),
        login: None,
        becomes: arguments.connection.becomes,
        become_user: None,
        extra: Some(extra),
        fetch: match (arguments.offline, arguments.source.untrusted) {
            (true, _) => Some(Arc::new(Nothing)),
            (false, true) => None,
            (false, false) => Some(Arc::new(Download)),
        },
    };
    let mut compilation = Compilation::new(
        sources.clone(),
        inventory,
        program,
        templates,
        options,
        limit.as_ref(),
        diagnostics,
    );
    if let Some(cache) = surroundings.cache() {
        let digests = Digests::new(cache.join("digests"), (surroundings.clock)());
        compilation.contents = Arc::new(ContentStore::remembering(digests));
    }
    Ok(Read { project, compilation, inventory: name, path })
}

/// Reads, compiles and checks all that a run needs; says what is wrong, all of it at once.
pub(super) fn load(
    surroundings: &Surroundings,
    arguments: &ConvergeArguments,
) -> Result<Loaded, CliError> {
    let mut diagnostics = Diagnostics::default();
    let read = read(surroundings, arguments, &mut diagnostics)?;
    let Read { project, compilation, inventory: name, path } = read;
    let outlines = compilation.check(&mut diagnostics);
    let mut connections = connections(&compilation, arguments.source.untrusted, &mut diagnostics);
    if let Some(user) = &arguments.connection.user {
        connections.values_mut().for_each(|connection| connection.user = Some(user.clone()));
    }
    let asked_alone = asked_alone(&compilation, arguments, &connections);
    show(surroundings, &compilation.sources, &diagnostics)?;
    if compilation.hosts().is_empty() {
        return Err(CliError::Usage(NO_HOST.to_owned()));
    }
    let info = RunInfo {
        project: project.name(),
        state_file: path.as_ref().map(|path| project.named(path)).unwrap_or_default(),
        digest: path
            .and_then(|path| std::fs::read(path).ok())
            .map(|text| blake3::hash(&text).to_string()),
        inventory: scope_name(&project, &name),
        ..RunInfo::default()
    };
    let untrusted = arguments.source.untrusted;
    let folder = surroundings.directory.strip_prefix(&project.root).unwrap_or(Path::new(""));
    let folder = folder.to_owned();
    Ok(Loaded {
        project,
        compilation,
        outlines,
        connections,
        beside: asked_alone,
        inventory: name,
        state_file: arguments.state_file.clone().unwrap_or_default(),
        adopt: arguments.adopt.as_deref().map(|old| former_names(&folder, old)).unwrap_or_default(),
        info,
        untrusted,
    })
}

/// How hosts are reached whose facts others use and that take no part themselves.
fn asked_alone(
    compilation: &Compilation,
    arguments: &ConvergeArguments,
    taking_part: &IndexMap<String, Connection>,
) -> IndexMap<String, Connection> {
    let mut beside = IndexMap::new();
    if !compilation.spans_hosts() {
        return beside;
    }
    let wanted = compilation.wanted();
    for host in compilation.inventory.hosts().filter(|host| !taking_part.contains_key(*host)) {
        // What is wrong with how it is reached is said if it comes to that.
        let mut ignored = Diagnostics::default();
        let Some(mut connection) = compilation.connection(host, &mut ignored) else { continue };
        let is_wanted = wanted.iter().any(|wanted| wanted == host);
        let possible = match connection.kind {
            ConnectionKind::Ssh => true,
            ConnectionKind::Local => !arguments.source.untrusted,
            // Such a host is booted for it.
            ConnectionKind::Sandbox => is_wanted,
        };
        if possible && !ignored.has_errors() {
            connection.user = arguments.connection.user.clone().or(connection.user);
            beside.insert(host.to_owned(), connection);
        }
    }
    beside
}

/// Refuses a state file, or settings, that are outside of a project which is not trusted.
pub(super) fn stays_inside(project: &Project, path: Option<&Path>) -> Result<(), CliError> {
    let settings = project.root.join("converge.yml");
    for path in path.into_iter().chain(settings.exists().then_some(settings.as_path())) {
        if !project.holds(path) {
            let message = format!(
                "{} is outside of the project; with --untrusted nothing there is read",
                project.shown(path)
            );
            return Err(CliError::Usage(message));
        }
    }
    Ok(())
}

/// The folder of a state file, whose variables count beside those of the inventory.
pub(super) fn folder_of(path: Option<&Path>) -> Vec<PathBuf> {
    path.and_then(Path::parent).map(Path::to_owned).into_iter().collect()
}

/// The templates of a project, with what they may look up.
pub(super) fn templates(
    surroundings: &Surroundings,
    project: &Project,
    sources: &Arc<Sources>,
    untrusted: bool,
    keyring: Arc<Keyring>,
) -> Arc<Templates> {
    let lookup = LookupEnvironment {
        variables: surroundings.variables.clone(),
        project: project.root.clone(),
    };
    Arc::new(Templates::new(sources.clone(), untrusted, lookup).with_keyring(keyring))
}

/// How all hosts of a compilation are reached.
pub(super) fn connections(
    compilation: &Compilation,
    untrusted: bool,
    diagnostics: &mut Diagnostics,
) -> IndexMap<String, Connection> {
    let mut connections = IndexMap::new();
    for host in compilation.hosts() {
        if let Some(connection) = compilation.connection(host, diagnostics) {
            if untrusted && connection.kind == ConnectionKind::Local {
                let patterns = compilation.program.plays.iter();
                let pattern = patterns.filter_map(|play| play.hosts.as_ref()).next();
                let place = connection.kind_said.or_else(|| pattern.map(|hosts| hosts.span));
                diagnostics.push(not_here(host, place));
            }
            connections.insert(host.clone(), connection);
        }
    }
    connections
}

/// How records may name a state file that is not there any more: from the project's root, however
/// it is named from the working directory.
fn former_names(folder: &Path, old: &str) -> Vec<String> {
    let mut names = Vec::new();
    for place in [folder, Path::new(""), Path::new("states")] {
        for ending in ["", ".yml", ".yaml"] {
            let name = place.join(format!("{old}{ending}")).display().to_string();
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// The error that a host is which is this machine, where nobody has reviewed the project: a plan shows
/// the files of the controller.
pub(super) fn not_here(host: &str, place: Option<Span>) -> Diagnostic {
    let message = format!("`{host}` is this machine, which is not looked at here");
    let diagnostic = Diagnostic::error("untrusted", message);
    let diagnostic = match place {
        Some(place) => diagnostic.at(place, ""),
        None => diagnostic,
    };
    diagnostic
        .help("with --untrusted hosts are reached over ssh: a plan shows what is in their files")
}

/// An inventory as records know it, however it was named: a path below `inventory/` without its
/// ending, or what was given.
fn scope_name(project: &Project, given: &str) -> String {
    let names = given.split('+').map(|name| match project.inventory(name) {
        Ok(path) if !name.contains(',') => {
            let path = project.named(&path);
            let name = path.strip_prefix("inventory/").unwrap_or(&path);
            let endings = [".yml", ".yaml", ".ini"];
            endings
                .iter()
                .find_map(|ending| name.strip_suffix(ending))
                .unwrap_or(name)
                .trim_end_matches('/')
                .to_owned()
        }
        _ => name.to_owned(),
    });
    names.collect::<Vec<_>>().join("+")
}

/// The variables of the command line: `k=v` (several, separated by blanks), a YAML mapping, or
/// `@FILE`.
pub(super) fn extra_variables(
    given: &[String],
    directory: &Path,
    sources: &Sources,
    keyring: &Keyring,
    diagnostics: &mut Diagnostics,
) -> Result<Layer, CliError> {
    let mut layer = Layer { label: String::from("-e"), ..Layer::default() };
    for text in given {
        if let Some(file) = text.strip_prefix('@') {
            let path = directory.join(file);
            let bytes = std::fs::read(&path)
                .map_err(|error| CliError::Usage(format!("-e @{file} cannot be read: {error}")))?;
            let source = match add_file(sources, file, bytes, keyring) {
                Ok(source) => source,
                Err(unread) => {
                    diagnostics.push(unread.diagnostic());
                    continue;
                }
            };
            take_mapping(yaml::parse_one(sources, source, diagnostics), &mut layer, diagnostics);
        } else if text.trim_start().starts_with('{') {
            let source = sources.add("-e", text.clone());
            take_mapping(yaml::parse_one(sources, source, diagnostics), &mut layer, diagnostics);
        } else {
            let source = sources.add("-e", text.clone());
            for (start, word) in words(text) {
                let span = Span::new(source, start, start + word.len());
                match word.split_once('=') {
                    Some((name, value)) if !name.is_empty() => {
                        let value = unquoted(value);
                        layer.variables.insert(Arc::from(name), Node::text(span, value));
                    }
                    _ => diagnostics.push(
                        Diagnostic::error("extra-vars", "a variable is given as `name=value`")
                            .at(span, ""),
                    ),
                }
            }
        }
    }
    Ok(layer)
}

fn take_mapping(node: Option<Node>, layer: &mut Layer, diagnostics: &mut Diagnostics) {
    let Some(node) = node else { return };
    match node.entries() {
        Some(entries) => {
            for (key, value) in entries {
                if let Some(name) = key.as_text() {
                    layer.variables.insert(Arc::from(name), value.clone());
                }
            }
        }
        None => {
            let message = format!("variables have to be a mapping, not {}", node.describe());
            diagnostics.push(Diagnostic::error("wrong-type", message).at(node.span, ""));
        }
    }
}

/// Words separated by blanks, with where each begins; quotes hold a word together.
fn words(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (None, ' ' | '\t' | '\n') => {
                if let Some(start) = start.take() {
                    words.push((start, &text[start..at]));
                }
                continue;
            }
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
        start.get_or_insert(at);
    }
    if let Some(start) = start {
        words.push((start, &text[start..]));
    }
    words
}

fn unquoted(value: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_what_is_quoted_together() {
        let found: Vec<_> =
            words("a=1 b='x y'  c=\"z\"").into_iter().map(|(_, word)| word).collect();
        assert_eq!(found, ["a=1", "b='x y'", "c=\"z\""]);
        assert_eq!(unquoted("'x y'"), "x y");
    }
}
