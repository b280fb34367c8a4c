use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::arguments::is_template;
use super::composite::Library;
use super::encrypted::{Unread, add_file};
use super::files::StateFile;
use super::keywords::{INCLUDE, INCLUDED_FILE, keyword};
use super::layer::Layer;
use super::own_facts::{self, Asked};
use super::play::{Item, layer, unknown_key, variables};
use super::state::State;
use super::yaml::{self, Kind, Node};
use crate::diagnostic::{Diagnostic, Diagnostics, SourceId, Sources, Span};
use crate::kind;
use crate::secret::Keyring;

/// An include: the states of its files, under its conditions and with its variables.
#[derive(Clone, Debug)]
pub(super) struct Include {
    /// The states, and includes in them.
    pub items: Vec<Item>,
    /// Variables for them.
    pub vars: Option<Arc<Layer>>,
    /// An expression, or a list of them.
    pub when: Option<Node>,
    /// Labels that they all get.
    pub tags: Option<Node>,
    /// The states are there once for each item.
    pub looped: Option<Node>,
    /// What the item is called.
    pub loop_var: Option<Node>,
}

/// What files that are included bring into the play.
#[derive(Default)]
pub(super) struct Gathered {
    /// Their defaults, lowest first.
    pub defaults: Vec<Arc<Layer>>,
    /// What their hosts are asked for.
    pub facts: Vec<Asked>,
    /// Kinds of states that could not be read; empty names for those that cannot be told.
    pub broken: Vec<String>,
}

/// Reads state files, each once, and knows which of them are open.
pub(super) struct Loader<'a> {
    pub(super) sources: &'a Sources,
    pub(super) keyring: &'a Keyring,
    /// Kinds that are written in YAML.
    pub(super) library: Library,
    /// What is wrong.
    pub diagnostics: &'a mut Diagnostics,
    read: HashMap<PathBuf, Option<Node>>,
    open: Vec<Open>,
}

/// A file that is being read, and where it was named.
struct Open {
    path: PathBuf,
    mention: Option<Span>,
}

impl<'a> Loader<'a> {
    pub fn new(
        sources: &'a Sources,
        keyring: &'a Keyring,
        diagnostics: &'a mut Diagnostics,
    ) -> Self {
        let library = Library::default();
        Self { sources, keyring, library, diagnostics, read: HashMap::new(), open: Vec::new() }
    }

    /// Reads a state file and opens it; none if it cannot be read, is empty or is open already.
    /// [`Loader::leave`] closes it.
    pub fn enter(&mut self, path: &Path, mention: Option<Span>) -> Option<Node> {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if let Some(first) = self.open.iter().position(|open| open.path == real) {
            self.cycle(first, path, mention);
            return None;
        }
        let node = match self.read.get(&real) {
            Some(node) => node.clone(),
            None => {
                let node = self.parse(path, mention);
                self.read.insert(real.clone(), node.clone());
                node
            }
        }?;
        self.open.push(Open { path: real, mention });
        Some(node)
    }

    /// The state files that were read, with all links followed, sorted.
    pub fn files(self) -> Vec<PathBuf> {
        let read = self.read.into_iter().filter(|(_, node)| node.is_some());
        let mut files: Vec<PathBuf> = read.map(|(path, _)| path).collect();
        files.sort();
        files
    }

    /// Closes the file that was opened last.
    pub fn leave(&mut self) {
        self.open.pop();
    }

    fn cycle(&mut self, first: usize, path: &Path, mention: Option<Span>) {
        let message = match path.parent() {
            Some(folder) if folder.ends_with("kinds") => {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                format!("the kind `{name}` uses itself")
            }
            _ => format!("{} includes itself", path.display()),
        };
        let mut diagnostic = Diagnostic::error("include-cycle", message);
        if let Some(mention) = mention {
            diagnostic = diagnostic.at(mention, "here it comes round again");
        }
        for open in &self.open[first + 1..] {
            if let Some(mention) = open.mention {
                diagnostic = diagnostic.at(mention, "on the way from here");
            }
        }
        self.diagnostics.push(diagnostic);
    }

    /// The one document of a file. An empty file is said to be so.
    fn parse(&mut self, path: &Path, mention: Option<Span>) -> Option<Node> {
        let source = self.source(path, mention)?;
        let before = self.diagnostics.len();
        let node = yaml::parse_one(self.sources, source, self.diagnostics);
        let empty = node.as_ref().is_none_or(Node::is_null);
        if empty && self.diagnostics.len() == before {
            let message = format!("{} is empty", path.display());
            let span = Span::new(source, 0, 0);
            self.diagnostics.push(Diagnostic::error("empty-file", message).at(span, ""));
        }
        node.filter(|node| !node.is_null())
    }

    fn source(&mut self, path: &Path, mention: Option<Span>) -> Option<SourceId> {
        let problem = match fs::read(path).map(String::from_utf8) {
            Ok(Ok(text)) => return Some(self.sources.add(path.display().to_string(), text)),
            Ok(Err(_)) => "it is not UTF-8".to_owned(),
            Err(error) => error.to_string(),
        };
        let message = format!("{} cannot be read: {problem}", path.display());
        let diagnostic = Diagnostic::error("unreadable-file", message);
        self.diagnostics.push(match mention {
            Some(mention) => diagnostic.at(mention, ""),
            None => diagnostic,
        });
        None
    }

    /// The path of a file that is named in another; what is wrong is said.
    pub fn find(&mut self, name: &Node, file: &StateFile) -> Option<PathBuf> {
        let scalar = name.scalar().filter(|_| !name.is_null());
        let Some(scalar) = scalar else {
            let message = format!("the name of a file is expected, not {}", name.describe());
            self.diagnostics.push(Diagnostic::error("wrong-type", message).at(name.span, ""));
            return None;
        };
        if is_template(scalar) {
            self.diagnostics.push(
                Diagnostic::error("unsupported", "the name of an included file cannot be a template")
                    .at(name.span, "")
                    .help("name the files, and choose with `when`; `vars` and `loop` give the same file other values"),
            );
            return None;
        }
        match file.find(&scalar.text, "", name.span) {
            Ok(path) => Some(path),
            Err(diagnostic) => {
                self.diagnostics.push(diagnostic);
                None
            }
        }
    }

    /// A file of variables as a layer; none if it cannot be read, which is said.
    pub fn variables(&mut self, name: &Node, file: &StateFile) -> Option<Arc<Layer>> {
        let path = self.find(name, file)?;
        let label = path.display().to_string();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let message = format!("{label} cannot be read: {error}");
                let diagnostic = Diagnostic::error("unreadable-file", message);
                self.diagnostics.push(diagnostic.at(name.span, ""));
                return None;
            }
        };
        let source = match add_file(self.sources, &label, bytes, self.keyring) {
            Ok(source) => source,
            Err(Unread::Locked(_)) if self.keyring.may_miss() => {
                let variables = indexmap::IndexMap::new();
                return Some(Arc::new(Layer { label, variables, locked: true }));
            }
            Err(unread) => {
                let diagnostic = unread.diagnostic();
                let placed = !diagnostic.labels.is_empty();
                let said = if placed { diagnostic } else { diagnostic.at(name.span, "") };
                self.diagnostics.push(said);
                return None;
            }
        };
        let before = self.diagnostics.len();
        let node = yaml::parse_one(self.sources, source, self.diagnostics);
        match node {
            Some(node) if !node.is_null() => match node.entries() {
                Some(entries) => {
                    let variables = variables(entries, self.diagnostics);
                    Some(Arc::new(Layer { label, variables, locked: false }))
                }
                None => {
                    let message =
                        format!("a file of variables is a mapping, not {}", node.describe());
                    let diagnostic = Diagnostic::error("wrong-type", message).at(node.span, "");
                    self.diagnostics.push(diagnostic);
                    None
                }
            },
            // An empty file of variables has none.
            _ if self.diagnostics.len() == before => {
                let variables = indexmap::IndexMap::new();
                Some(Arc::new(Layer { label, variables, locked: false }))
            }
            _ => None,
        }
    }

    /// The includes of a play or of an included file: a name, or a list of names and mappings.
    pub fn includes(
        &mut self,
        value: &Node,
        file: &Arc<StateFile>,
        gathered: &mut Gathered,
    ) -> Vec<Item> {
        let mut items = Vec::new();
        for one in value.items().unwrap_or(std::slice::from_ref(value)) {
            let include = match one.entries() {
                Some(entries) => {
                    let Some(name) = one.get("file") else {
                        self.no_file(one);
                        continue;
                    };
                    self.include(name, entries, file, gathered)
                }
                None => self.include(one, &[], file, gathered),
            };
            items.push(Item::Include(Box::new(include)));
        }
        items
    }

    /// Says that an include names no file; rather than that, which of its keys is none.
    fn no_file(&mut self, include: &Node) {
        let keys = include.entries().unwrap_or_default().iter().map(|(key, _)| key);
        let wrong = keys.filter_map(|key| key.as_text().map(|name| (name, key.span)));
        let mut wrong = wrong.filter(|(name, _)| keyword(INCLUDE, name).is_none()).peekable();
        if wrong.peek().is_none() {
            let message = "an include names its `file`";
            let diagnostic = Diagnostic::error("missing-argument", message);
            self.diagnostics.push(diagnostic.at(include.span, ""));
        }
        for (name, span) in wrong {
            self.diagnostics.push(unknown_key(name, span, "an include", INCLUDE));
        }
    }

    /// Where the file that is read was named; none for the state file itself.
    pub fn mention(&self) -> Option<Span> {
        self.open.last()?.mention
    }

    /// An include: the file (or files) named, and what stands beside the name.
    fn include(
        &mut self,
        names: &Node,
        beside: &[(Node, Node)],
        file: &Arc<StateFile>,
        gathered: &mut Gathered,
    ) -> Include {
        let mut include = Include {
            items: Vec::new(),
            vars: None,
            when: None,
            tags: None,
            looped: None,
            loop_var: None,
        };
        for (key, value) in beside {
            let name = key.as_text().unwrap_or_default();
            match name {
                "file" | "name" => {}
                "vars" => include.vars = layer(name, value, file, self.diagnostics),
                "when" => include.when = Some(value.clone()),
                "tags" => include.tags = Some(value.clone()),
                "loop" => include.looped = Some(value.clone()),
                "loop_var" => include.loop_var = Some(value.clone()),
                _ => self.diagnostics.push(unknown_key(name, key.span, "an include", INCLUDE)),
            }
        }
        let before = gathered.facts.len();
        for name in names.items().unwrap_or(std::slice::from_ref(names)) {
            let Some(path) = self.find(name, file) else {
                gathered.broken.push(String::new());
                continue;
            };
            let Some(node) = self.enter(&path, Some(name.span)) else {
                gathered.broken.push(String::new());
                continue;
            };
            let included = Arc::new(StateFile {
                path,
                includer: Some(file.clone()),
                confined: file.confined.clone(),
            });
            include.items.extend(self.included(&node, &included, gathered));
            self.leave();
        }
        let own = beside
            .iter()
            .find(|(key, _)| key.as_text().is_some_and(|name| ["vars", "loop"].contains(&name)));
        for asked in &mut gathered.facts[before..] {
            asked.when.extend(include.when.clone());
            if let Some((key, _)) = own {
                let message = "the facts of an included file are the play's: nothing of one include reaches them";
                self.diagnostics.push(
                    Diagnostic::error("included-facts", message)
                        .at(key.span, "")
                        .at(asked.span, "a fact of the file")
                        .help("declare the facts in the play, or in a file that is included once"),
                );
            }
        }
        include
    }

    /// The states of an included file; its defaults go to the play.
    fn included(
        &mut self,
        node: &Node,
        file: &Arc<StateFile>,
        gathered: &mut Gathered,
    ) -> Vec<Item> {
        let Some(entries) = node.entries() else {
            let message = format!("an included file is a mapping, not {}", node.describe());
            let help = "it has `states`, and `defaults` if it needs them; plays are included by \
                        `- include:` beside other plays";
            self.diagnostics
                .push(Diagnostic::error("wrong-type", message).at(node.span, "").help(help));
            return Vec::new();
        };
        let mut before = Vec::new();
        let mut states = Vec::new();
        let mut defaults = None;
        for (key, value) in entries {
            let name = key.as_text().unwrap_or_default();
            if value.is_null() && keyword(INCLUDED_FILE, name).is_some() {
                continue;
            }
            match name {
                "name" => {}
                "defaults" => defaults = layer(name, value, file, self.diagnostics),
                "facts" => gathered.facts.extend(own_facts::read(value, self.diagnostics)),
                "include" => before = self.includes(value, file, gathered),
                "states" => states = self.states(value, file, gathered),
                "hosts" => {
                    let message = "an included file has no `hosts`: they are the play's";
                    let diagnostic = Diagnostic::error("included-hosts", message).at(key.span, "");
                    self.diagnostics.push(diagnostic.help(
                        "`- include:` beside other plays, in the list of them, includes a whole play",
                    ));
                }
                _ => self.diagnostics.push(unknown_key(
                    name,
                    key.span,
                    "an included file",
                    INCLUDED_FILE,
                )),
            }
        }
        gathered.defaults.extend(defaults);
        before.extend(states);
        before
    }

    /// A list of states, and includes among them.
    pub fn states(
        &mut self,
        value: &Node,
        file: &Arc<StateFile>,
        gathered: &mut Gathered,
    ) -> Vec<Item> {
        let items = match &value.kind {
            Kind::Sequence(items) => items,
            _ => {
                let message = format!("`states` takes a list of states, not {}", value.describe());
                let label = match value.entries() {
                    Some([(key, _), ..])
                        if key.as_text().is_some_and(|key| key.starts_with('-')) =>
                    {
                        "put a blank after each `-`"
                    }
                    Some(_) => "put `- ` before each state",
                    None => "",
                };
                self.diagnostics
                    .push(Diagnostic::error("wrong-type", message).at(value.span, label));
                gathered.broken.push(String::new());
                return Vec::new();
            }
        };
        let mut read = Vec::with_capacity(items.len());
        for item in items.iter() {
            if let Some((names, beside)) = include_state(item) {
                match (names.entries(), names.get("file")) {
                    (Some(inner), Some(name)) => {
                        let beside = [beside, inner.to_vec()].concat();
                        let include = self.include(name, &beside, file, gathered);
                        read.push(Item::Include(Box::new(include)));
                    }
                    (Some(_), None) => read.extend(self.includes(names, file, gathered)),
                    (None, _) => {
                        let include = self.include(names, &beside, file, gathered);
                        read.push(Item::Include(Box::new(include)));
                    }
                }
                continue;
            }
            match self.composite_of(item, file) {
                Some(Ok((composite, kind_span))) => {
                    let one = self.use_of(item, &composite, kind_span, gathered);
                    read.push(Item::Use(Box::new(one)));
                    continue;
                }
                Some(Err(broken)) => {
                    gathered.broken.push(broken.0);
                    continue;
                }
                None => {}
            }
            let names = self.library.names(file);
            let names: Vec<&str> = names.keys().map(String::as_str).collect();
            match State::read(item, file, &names, self.sources, self.diagnostics) {
                Ok(state) => read.push(Item::State(Box::new(state))),
                Err(broken) => gathered.broken.push(broken.0),
            }
        }
        read
    }
}

/// The files of an include that stands as a state, and what stands beside it.
fn include_state(item: &Node) -> Option<(&Node, Vec<(Node, Node)>)> {
    let entries = item.entries()?;
    let first = entries.iter().find(|(key, _)| {
        key.as_text().is_some_and(|name| name == "include" || kind::spec(name).is_some())
    });
    let (key, names) = first.filter(|(key, _)| key.as_text() == Some("include"))?;
    let beside = entries.iter().filter(|(other, _)| other.span != key.span).cloned().collect();
    Some((names, beside))
}
