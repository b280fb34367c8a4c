use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use super::arguments::{Reading, is_template, literal_boolean};
use super::composite::Use;
use super::conditions::is_variable;
use super::files::StateFile;
use super::health::{self, OnFailure};
use super::include::{Gathered, Include, Loader};
use super::keywords::{Keyword, PLAY, keyword, names};
use super::layer::Layer;
use super::own_facts::{self, Asked};
use super::scope::Scope;
use super::state::State;
use super::yaml::{Kind, Node};
use crate::diagnostic::{Diagnostic, Diagnostics, Sources, Span, nearest};
use crate::secret::Keyring;

/// Keys of the language that this version does not know.
const LATER_KEYS: &[&str] = &["rollout", "finally"];

/// Keys of other tools' plays, and what stands for them here.
const FOREIGN: &[(&str, &str)] = &[
    ("gather_facts", "facts arrive with the connection: leave it out"),
    ("handlers", "services say it themselves: `watch` reloads, `restart_on` restarts"),
    ("post_tasks", "did you mean `states`? They run in the order of the file"),
    ("pre_tasks", "did you mean `states`? They run in the order of the file"),
    ("roles", "did you mean `include`?"),
    ("tasks", "did you mean `states`?"),
];

/// A state file with all that it includes; nothing in it is evaluated.
#[derive(Clone, Default)]
pub struct Program {
    /// In the order in which they run.
    pub plays: Vec<Play>,
    /// The state files that it consists of, with all links followed.
    pub files: Vec<PathBuf>,
}

/// States for some hosts; not evaluated.
#[derive(Clone)]
pub struct Play {
    /// Its `name`, or the pattern of its hosts.
    pub name: String,
    /// The whole play.
    pub span: Span,
    /// The pattern of its hosts: a string or a list; may have templates. None if it is missing,
    /// which was said.
    pub hosts: Option<Node>,
    /// `ssh`, `local` or `sandbox`; may be a template.
    pub connection: Option<Node>,
    /// The user to log in as; may be a template.
    pub remote_user: Option<Node>,
    /// Whether a later play begins only if no host failed in this one.
    pub any_errors_fatal: bool,
    /// Whether what earlier runs created and is no longer declared is removed.
    pub prune: bool,
    /// What happens on its hosts when it fails.
    pub on_failure: OnFailure,
    pub(super) becomes: Option<Node>,
    pub(super) become_user: Option<Node>,
    pub(super) environment: Option<Node>,
    pub(super) tags: Option<Node>,
    pub(super) items: Vec<Item>,
    /// Kinds of states that could not be read; empty names for those that cannot be told.
    pub(super) broken: Vec<String>,
    pub(super) defaults: Vec<Arc<Layer>>,
    pub(super) vars: Option<Arc<Layer>>,
    pub(super) vars_files: Vec<VarsFile>,
    pub(super) facts: Vec<Asked>,
    file: Arc<StateFile>,
}

/// A state, or what stands for several.
#[derive(Clone, Debug)]
pub(super) enum Item {
    State(Box<State>),
    Include(Box<Include>),
    /// Of a composite kind.
    Use(Box<Use>),
}

/// A file of variables.
#[derive(Clone)]
pub(super) enum VarsFile {
    Read(Arc<Layer>),
    /// Its name has to be evaluated first.
    Named(Node),
}

impl Program {
    /// Reads a state file and all that it includes. What is wrong goes into `diagnostics`; what
    /// could be read is given all the same, so that everything wrong can be said at once.
    ///
    /// Where the project is not trusted, nothing outside of the folder `confined` is read. Files of
    /// variables may be encrypted.
    pub fn load(
        sources: &Sources,
        path: &Path,
        confined: Option<&Path>,
        keyring: &Keyring,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let mut loader = Loader::new(sources, keyring, diagnostics);
        let mut program = Self::default();
        if let Some(node) = loader.enter(path, None) {
            let file = Arc::new(StateFile {
                path: path.to_owned(),
                includer: None,
                confined: confined.map(Arc::from),
            });
            program.add(&node, &file, &mut loader);
            loader.leave();
        }
        program.files = loader.files();
        program
    }

    /// One play over all hosts that declares nothing: for what concerns an inventory alone.
    pub fn without_states(sources: &Sources) -> Self {
        let source = sources.add("hosts", String::from("all"));
        let hosts = Node::text(Span::new(source, 0, 3), "all");
        let file = StateFile { path: Path::new("hosts").into(), includer: None, confined: None };
        let mut play = Play::blank(hosts.span, Arc::new(file));
        play.name = String::from("all");
        play.hosts = Some(hosts);
        Self { plays: vec![play], files: Vec::new() }
    }

    fn add(&mut self, node: &Node, file: &Arc<StateFile>, loader: &mut Loader<'_>) {
        match &node.kind {
            Kind::Mapping(_) => self.plays.extend(play(node, file, loader)),
            Kind::Sequence(items) => {
                for item in items.iter() {
                    let entries = item.entries().unwrap_or_default();
                    match entries {
                        [(key, names)] if key.as_text() == Some("include") => {
                            self.include(names, file, loader);
                        }
                        _ => self.plays.extend(play(item, file, loader)),
                    }
                }
            }
            Kind::Scalar(_) => {
                let message =
                    format!("a state file is a play or a list of plays, not {}", node.describe());
                loader.diagnostics.push(Diagnostic::error("wrong-type", message).at(node.span, ""));
            }
        }
    }

    /// `- include: other.yml` stands for that file's plays.
    fn include(&mut self, names: &Node, file: &Arc<StateFile>, loader: &mut Loader<'_>) {
        for name in names.items().unwrap_or(std::slice::from_ref(names)) {
            let Some(path) = loader.find(name, file) else { continue };
            if let Some(node) = loader.enter(&path, Some(name.span)) {
                let included = Arc::new(StateFile {
                    path,
                    includer: Some(file.clone()),
                    confined: file.confined.clone(),
                });
                self.add(&node, &included, loader);
                loader.leave();
            }
        }
    }
}

impl Play {
    /// A play that says nothing.
    fn blank(span: Span, file: Arc<StateFile>) -> Self {
        Self {
            name: String::new(),
            span,
            hosts: None,
            connection: None,
            remote_user: None,
            any_errors_fatal: true,
            prune: false,
            on_failure: OnFailure::Stop,
            becomes: None,
            become_user: None,
            environment: None,
            tags: None,
            items: Vec::new(),
            broken: Vec::new(),
            defaults: Vec::new(),
            vars: None,
            vars_files: Vec::new(),
            facts: Vec::new(),
            file,
        }
    }

    /// The layers of variables of one host in this play, lowest first: `defaults`, `inventory`
    /// (as given), `vars`, `vars_files`, `extra`.
    ///
    /// Files of variables whose names are templates come in by [`Play::with_vars_files`].
    pub fn scope_layers(&self, inventory: Vec<Arc<Layer>>, extra: Arc<Layer>) -> Vec<Arc<Layer>> {
        let mut layers = self.defaults.clone();
        layers.extend(inventory);
        layers.extend(self.vars.clone());
        layers.extend(self.vars_files.iter().map_while(|file| match file {
            VarsFile::Read(layer) => Some(layer.clone()),
            VarsFile::Named(_) => None,
        }));
        layers.push(extra);
        layers
    }

    /// How many of these layers are `defaults`.
    pub fn default_layers(&self) -> usize {
        self.defaults.len()
    }

    /// Adds the files of variables whose names are templates, evaluated in the scope of the other
    /// layers; `extra` stays on top. A name that needs facts which are not known adds nothing.
    pub fn with_vars_files(
        &self,
        scope: &Scope,
        extra: &Arc<Layer>,
        sources: &Sources,
        diagnostics: &mut Diagnostics,
    ) -> Scope {
        let fixed =
            self.vars_files.iter().take_while(|file| matches!(file, VarsFile::Read(_))).count();
        if fixed == self.vars_files.len() {
            return scope.clone();
        }
        let mut extended = scope.clone();
        for file in &self.vars_files[fixed..] {
            let layer = match file {
                VarsFile::Read(layer) => Some(layer.clone()),
                VarsFile::Named(node) => {
                    let mut reading = Reading::new(scope, false, diagnostics);
                    match reading.text("vars_files", node) {
                        Some(name) => Loader::new(sources, scope.keyring(), &mut *diagnostics)
                            .variables(&Node::text(node.span, name), &self.file),
                        None => None,
                    }
                }
            };
            if let Some(layer) = layer {
                extended = extended.with_layer(layer);
            }
        }
        extended.with_layer(extra.clone())
    }

    /// All tags that stand in the play, sorted, for `--list-tags`; templates as they are written.
    pub fn tag_listing(&self) -> Vec<String> {
        let mut tags = BTreeSet::new();
        list_tags(self.tags.as_ref(), &mut tags);
        list_item_tags(&self.items, &mut tags);
        tags.into_iter().collect()
    }
}

fn list_item_tags(items: &[Item], tags: &mut BTreeSet<String>) {
    for item in items {
        match item {
            Item::State(state) => list_tags(state.common.get("tags"), tags),
            Item::Include(include) => {
                list_tags(include.tags.as_ref(), tags);
                list_item_tags(&include.items, tags);
            }
            Item::Use(one) => {
                list_tags(one.common.get("tags"), tags);
                list_item_tags(&one.composite.items, tags);
            }
        }
    }
}

fn list_tags(node: Option<&Node>, tags: &mut BTreeSet<String>) {
    let Some(node) = node else { return };
    for item in node.items().unwrap_or(std::slice::from_ref(node)) {
        tags.extend(item.as_text().into_iter().flat_map(split_tags).map(str::to_owned));
    }
}

/// The labels of `a, b`.
pub(super) fn split_tags(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|tag| !tag.is_empty())
}

/// Reads a play; none if it is no mapping at all.
fn play(node: &Node, file: &Arc<StateFile>, loader: &mut Loader<'_>) -> Option<Play> {
    let Some(entries) = node.entries() else {
        let message = format!("a play is a mapping, not {}", node.describe());
        loader.diagnostics.push(Diagnostic::error("wrong-type", message).at(node.span, ""));
        return None;
    };
    if let Some(kind) = stray_state(entries) {
        let message = format!("the state `{kind}` stands where a play is expected");
        loader.diagnostics.push(
            Diagnostic::error("stray-state", message)
                .at(entries.first().map_or(node.span, |(key, _)| key.span), "")
                .help("a play has `hosts`, and its states stand below `states`"),
        );
        return None;
    }
    let mut play = Play::blank(node.span, file.clone());
    let mut gathered = Gathered::default();
    let mut own_defaults = None;
    let mut own_states = Vec::new();
    let mut own_health = Vec::new();
    let mut own_facts = Vec::new();
    for (key, value) in entries {
        let name = key.as_text().unwrap_or_default();
        if value.is_null() && keyword(PLAY, name).is_some() && name != "hosts" {
            continue;
        }
        match name {
            "name" => play.name = value.as_text().unwrap_or_default().to_owned(),
            "hosts" => play.hosts = hosts(value, loader.diagnostics),
            "connection" => play.connection = Some(value.clone()),
            "remote_user" => play.remote_user = Some(value.clone()),
            "any_errors_fatal" => {
                play.any_errors_fatal =
                    literal_boolean(name, value, loader.diagnostics).unwrap_or(true);
            }
            "prune" => {
                play.prune = literal_boolean(name, value, loader.diagnostics).unwrap_or(false);
            }
            "health" => {
                let states = health::states(value, loader.diagnostics);
                own_health = loader.states(&states, file, &mut gathered);
            }
            "on_failure" => play.on_failure = OnFailure::read(value, loader.diagnostics),
            "become" => play.becomes = Some(value.clone()),
            "become_user" => play.become_user = Some(value.clone()),
            "environment" => play.environment = Some(value.clone()),
            "tags" => play.tags = Some(value.clone()),
            "vars" => play.vars = layer(name, value, file, loader.diagnostics),
            "defaults" => own_defaults = layer(name, value, file, loader.diagnostics),
            "vars_files" => play.vars_files = vars_files(value, file, loader),
            "facts" => own_facts = own_facts::read(value, loader.diagnostics),
            "include" => play.items = loader.includes(value, file, &mut gathered),
            "states" => own_states = loader.states(value, file, &mut gathered),
            _ => loader.diagnostics.push(unknown_key(name, key.span, "a play", PLAY)),
        }
    }
    if play.hosts.is_none() && !entries.iter().any(|(key, _)| key.as_text() == Some("hosts")) {
        let place = entries.first().map_or(node.span, |(key, _)| key.span);
        let error = Diagnostic::error("missing-hosts", "a play without `hosts`").at(place, "");
        loader.diagnostics.push(match loader.mention() {
            Some(mention) => error
                .at(mention, "its plays are included here")
                .help("to include states, put `include` inside of a play, or among its states"),
            None => error.help("`hosts: all`, or a pattern of the inventory's hosts and groups"),
        });
    }
    if let Some((key, _)) = entries.iter().find(|(key, _)| key.as_text() == Some("on_failure"))
        && play.on_failure == OnFailure::Rollback
        && !entries.iter().any(|(key, _)| key.as_text() == Some("health"))
    {
        let message = "`on_failure: rollback` needs `health`, which says when a play has failed";
        loader.diagnostics.push(
            Diagnostic::error("missing-argument", message)
                .at(key.span, "")
                .help("for example `health: { tcp: 80 }`"),
        );
    }
    if play.name.is_empty() {
        play.name = match play.hosts.as_ref().map(|hosts| &hosts.kind) {
            Some(Kind::Scalar(scalar)) => scalar.text.to_string(),
            Some(Kind::Sequence(items)) => {
                items.iter().filter_map(Node::as_text).collect::<Vec<_>>().join(",")
            }
            _ => file.path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        };
    }
    play.items.extend(own_states);
    play.items.extend(own_health);
    play.defaults = gathered.defaults;
    play.defaults.extend(own_defaults);
    play.broken = gathered.broken;
    play.facts = gathered.facts;
    play.facts.append(&mut own_facts);
    Some(play)
}

/// The kind of a state that stands in the place of a play.
fn stray_state(entries: &[(Node, Node)]) -> Option<&'static str> {
    let names = || entries.iter().filter_map(|(key, _)| key.as_text());
    if names().any(|name| ["hosts", "states", "include"].contains(&name)) {
        return None;
    }
    names().find_map(|name| Some(crate::kind::spec(name)?.name))
}

fn hosts(value: &Node, diagnostics: &mut Diagnostics) -> Option<Node> {
    let patterns = value.items().unwrap_or(std::slice::from_ref(value));
    let wrong = patterns.iter().find(|pattern| pattern.scalar().is_none() || pattern.is_null());
    match wrong {
        Some(wrong) => {
            let message =
                format!("`hosts` takes a pattern or a list of them, not {}", wrong.describe());
            diagnostics.push(Diagnostic::error("wrong-type", message).at(wrong.span, ""));
            None
        }
        None => Some(value.clone()),
    }
}

fn vars_files(value: &Node, file: &Arc<StateFile>, loader: &mut Loader<'_>) -> Vec<VarsFile> {
    let names = value.items().unwrap_or(std::slice::from_ref(value));
    let files = names.iter().filter_map(|name| {
        if name.scalar().is_some_and(is_template) {
            return Some(VarsFile::Named(name.clone()));
        }
        loader.variables(name, file).map(VarsFile::Read)
    });
    files.collect()
}

/// A mapping of variables as a layer; `name` is the key that holds it.
pub(super) fn layer(
    name: &str,
    value: &Node,
    file: &StateFile,
    diagnostics: &mut Diagnostics,
) -> Option<Arc<Layer>> {
    let Some(entries) = value.entries() else {
        let message = format!("`{name}` takes a mapping of variables, not {}", value.describe());
        diagnostics.push(Diagnostic::error("wrong-type", message).at(value.span, ""));
        return None;
    };
    let label = format!("{name} of {}", file.path.display());
    let variables = variables(entries, diagnostics);
    Some(Arc::new(Layer { label, variables, locked: false }))
}

/// Variables by name; says which names no template could use.
pub(super) fn variables(
    entries: &[(Node, Node)],
    diagnostics: &mut Diagnostics,
) -> IndexMap<Arc<str>, Node> {
    let mut variables = IndexMap::with_capacity(entries.len());
    for (key, value) in entries {
        let Some(scalar) = key.scalar() else { continue };
        if !is_variable(&scalar.text) {
            let message = format!("`{}` cannot be the name of a variable", scalar.text);
            let label = "letters, digits and `_`, not beginning with a digit";
            diagnostics.push(Diagnostic::error("variable-name", message).at(key.span, label));
            continue;
        }
        variables.insert(scalar.text.clone(), value.clone());
    }
    variables
}

/// That a key is not known where it stands; `what` is what has these keys.
pub(super) fn unknown_key(
    name: &str,
    span: Span,
    what: &str,
    keys: &'static [Keyword],
) -> Diagnostic {
    if LATER_KEYS.contains(&name) {
        let message = format!("`{name}` is not supported by this version");
        return Diagnostic::error("unsupported", message).at(span, "");
    }
    let diagnostic = Diagnostic::error("unknown-key", format!("unknown key `{name}` for {what}"));
    if let Some((_, instead)) = FOREIGN.iter().find(|(foreign, _)| *foreign == name) {
        return diagnostic.at(span, *instead);
    }
    match nearest(name, names(keys)) {
        Some(near) => diagnostic.at(span, format!("did you mean `{near}`?")),
        None => {
            let keys: Vec<_> = names(keys).map(|key| format!("`{key}`")).collect();
            diagnostic.at(span, "").help(format!("{what} takes {}", keys.join(", ")))
        }
    }
}
