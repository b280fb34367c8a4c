//! Kinds that are written in YAML: a key, arguments with types, and the states that they stand for.
//!
//! `NAME.yml` in a folder `kinds` beside the state file, or beside one that includes it, or in
//! `states/kinds` of the project.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::arguments::{has_template, literal_boolean};
use super::conditions::is_variable;
use super::files::StateFile;
use super::include::{Gathered, Loader};
use super::keywords::{COMMON, KIND, KIND_ARGUMENT, keyword, names};
use super::layer::Layer;
use super::play::{Item, unknown_key};
use super::state::{Broken, CommonKeys, LATER_COMMON, is_reserved};
use super::yaml::Node;
use crate::diagnostic::{Diagnostic, Diagnostics, Sources, Span, nearest};
use crate::kind::Shape;
use crate::secret::Keyring;

/// The types of arguments.
pub(super) const TYPES: &[(&str, Shape)] = &[
    ("string", Shape::Text),
    ("integer", Shape::Integer),
    ("boolean", Shape::Boolean),
    ("list", Shape::List(&Shape::Any)),
    ("mapping", Shape::Mapping(&Shape::Any)),
    ("path", Shape::Path),
    (SECRET, Shape::Text),
];
/// The type of an argument that is a secret, wherever its value comes from.
const SECRET: &str = "secret";

/// A kind that is written in YAML.
#[derive(Debug)]
pub(super) struct Composite {
    /// As states name it.
    pub name: String,
    /// What it makes so, for people; may be empty.
    pub summary: String,
    /// In the order of the file; one of them is the key.
    pub parameters: Vec<Parameter>,
    /// What it stands for.
    pub items: Vec<Item>,
    /// Defaults of files that it includes, lowest first.
    defaults: Vec<Arc<Layer>>,
    /// Kinds of its states that could not be read.
    broken: Vec<String>,
}

/// An argument of a composite kind.
#[derive(Debug)]
pub(super) struct Parameter {
    /// The variable that its states see.
    pub name: Arc<str>,
    /// Whether it is the value of the kind's key.
    pub key: bool,
    /// What it has to look like.
    pub shape: Shape,
    /// Whether it is a secret.
    pub secret: bool,
    /// Whether it has to be given.
    pub required: bool,
    /// What it is otherwise; may use the arguments before it.
    pub default: Option<Node>,
    /// The only values that it may have, if there are any.
    pub choices: Vec<String>,
    /// For people.
    pub summary: String,
}

/// A state of a composite kind; not evaluated.
#[derive(Clone, Debug)]
pub(super) struct Use {
    /// The kind.
    pub composite: Arc<Composite>,
    /// The value of its key.
    pub key: Node,
    /// What is given, by the position of its parameter: the place of the name, and the value.
    pub arguments: BTreeMap<usize, (Span, Node)>,
    /// Common keys: they apply to all inside.
    pub common: CommonKeys,
    /// The name of the kind.
    pub kind_span: Span,
}

impl Composite {
    /// The parameter that the kind's key gives.
    pub fn key(&self) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.key)
    }

    fn named(&self, name: &str) -> Option<usize> {
        self.parameters.iter().position(|parameter| !parameter.key && *parameter.name == *name)
    }
}

/// The composite kinds that states can name, found where they are first asked for.
#[derive(Default)]
pub(super) struct Library {
    /// Names and files, by folder.
    folders: HashMap<PathBuf, Rc<BTreeMap<String, PathBuf>>>,
    /// What was read, by file; none for those that could not be.
    read: HashMap<PathBuf, Option<Arc<Composite>>>,
}

impl Library {
    /// The file of each kind that a state file can name; nearer ones hide those further off.
    pub fn names(&mut self, file: &StateFile) -> BTreeMap<String, PathBuf> {
        let mut names = BTreeMap::new();
        for folder in places(file) {
            for (name, path) in self.folder(&folder).iter() {
                names.entry(name.clone()).or_insert_with(|| path.clone());
            }
        }
        names
    }

    fn folder(&mut self, folder: &Path) -> Rc<BTreeMap<String, PathBuf>> {
        if let Some(known) = self.folders.get(folder) {
            return Rc::clone(known);
        }
        let read = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let entries = fs::read_dir(read).into_iter().flatten().filter_map(Result::ok);
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        // Of `x.yaml` and `x.yml` the latter counts.
        names.sort();
        let found = names.iter().filter_map(|file_name| {
            let name = file_name.strip_suffix(".yml").or(file_name.strip_suffix(".yaml"))?;
            Some((name.to_owned(), folder.join(file_name)))
        });
        let found = Rc::new(found.collect());
        self.folders.insert(folder.to_owned(), Rc::clone(&found));
        found
    }
}

/// Whether a composite kind cannot have that name.
fn is_taken(name: &str) -> bool {
    is_reserved(name) || keyword(COMMON, name).is_some() || LATER_COMMON.contains(&name)
}

/// The folders in which kinds may be defined, nearest first.
fn places(file: &StateFile) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let mut add = |place: PathBuf| {
        if !places.contains(&place) {
            places.push(place);
        }
    };
    let folders = file.folders();
    for folder in &folders {
        // A kind's own file lies in such a folder.
        if folder.ends_with("kinds") {
            add(folder.clone());
        }
        add(folder.join("kinds"));
    }
    for folder in folders.iter().flat_map(|folder| folder.ancestors()) {
        add(folder.join("states/kinds"));
    }
    places
}

/// The composite kinds of a folder, for schema and documentation.
#[derive(Debug, Default)]
pub struct OwnKinds(pub(super) Vec<Composite>);

impl OwnKinds {
    /// Reads all kinds of a folder, in the order of their names; what is wrong with them is said.
    /// There are none if there is no such folder.
    pub fn load(sources: &Sources, folder: &Path, diagnostics: &mut Diagnostics) -> Self {
        let keyring = Keyring::default();
        let mut loader = Loader::new(sources, &keyring, diagnostics);
        let paths = loader.library.folder(folder);
        let composites = paths.values().filter_map(|path| {
            let node = loader.enter(path, None)?;
            let file = StateFile { path: path.clone(), includer: None, confined: None };
            let composite = loader.definition(&node, &Arc::new(file));
            loader.leave();
            composite
        });
        Self(composites.collect())
    }
}

impl Loader<'_> {
    /// The composite kind of a state, with the place of its name, if it is of one. That it cannot
    /// be read is an error, and was said.
    pub fn composite_of(
        &mut self,
        node: &Node,
        file: &Arc<StateFile>,
    ) -> Option<Result<(Arc<Composite>, Span), Broken>> {
        let entries = node.entries()?;
        let names = self.library.names(file);
        if names.is_empty() {
            return None;
        }
        for (name, path) in names.iter().filter(|(name, _)| is_taken(name)) {
            let what = if is_reserved(name) { "a kind of the language" } else { "a common key" };
            let message = format!("the kind in {} cannot be called `{name}`", path.display());
            let help = format!("`{name}` is {what}: give the file another name");
            self.diagnostics.push(Diagnostic::error("kind-name", message).help(help));
        }
        let first = entries.iter().find_map(|(key, _)| {
            let name = key.as_text()?;
            (is_reserved(name) || (names.contains_key(name) && !is_taken(name)))
                .then_some((key, name))
        });
        let (key, name) = first.filter(|(_, name)| !is_reserved(name))?;
        let path = names.get(name)?;
        let composite = self.composite(path, key.span, file);
        Some(composite.map(|composite| (composite, key.span)).ok_or(Broken(name.to_owned())))
    }

    /// Reads a kind's file, once.
    fn composite(
        &mut self,
        path: &Path,
        mention: Span,
        file: &Arc<StateFile>,
    ) -> Option<Arc<Composite>> {
        if let Some(known) = self.library.read.get(path) {
            return known.clone();
        }
        let composite = self.read_composite(path, mention, file).map(Arc::new);
        // A kind that uses itself is met while it is read, and said then.
        self.library.read.insert(path.to_owned(), composite.clone());
        composite
    }

    fn read_composite(
        &mut self,
        path: &Path,
        mention: Span,
        file: &Arc<StateFile>,
    ) -> Option<Composite> {
        if !file.may_read(path) {
            let message = format!("{} is outside of the project", path.display());
            let help = "with --untrusted nothing outside of the project is read";
            let diagnostic = Diagnostic::error("untrusted", message).at(mention, "").help(help);
            self.diagnostics.push(diagnostic);
            return None;
        }
        let node = self.enter(path, Some(mention))?;
        let own = Arc::new(StateFile {
            path: path.to_owned(),
            includer: Some(file.clone()),
            confined: file.confined.clone(),
        });
        let composite = self.definition(&node, &own);
        self.leave();
        composite
    }

    fn definition(&mut self, node: &Node, file: &Arc<StateFile>) -> Option<Composite> {
        let stem = file.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let Some(entries) = node.entries() else {
            let message = format!("a kind is a mapping, not {}", node.describe());
            let help = "it has `kind`, `arguments` and `states`";
            let diagnostic = Diagnostic::error("wrong-type", message).at(node.span, "").help(help);
            self.diagnostics.push(diagnostic);
            return None;
        };
        let mut composite = Composite {
            name: stem.clone(),
            summary: String::new(),
            parameters: Vec::new(),
            items: Vec::new(),
            defaults: Vec::new(),
            broken: Vec::new(),
        };
        let mut gathered = Gathered::default();
        let mut before = Vec::new();
        let mut named = false;
        for (key, value) in entries {
            match key.as_text().unwrap_or_default() {
                "kind" => {
                    named = true;
                    if value.as_text() != Some(&stem) {
                        let message = format!("the kind in {stem}.yml is called `{stem}`");
                        let diagnostic = Diagnostic::error("kind-name", message);
                        self.diagnostics.push(diagnostic.at(value.span, "the file has its name"));
                    }
                }
                "summary" => {
                    value.as_text().unwrap_or_default().clone_into(&mut composite.summary);
                }
                "arguments" => composite.parameters = parameters(value, self.diagnostics),
                "include" => before = self.includes(value, file, &mut gathered),
                "states" => composite.items = self.states(value, file, &mut gathered),
                name => {
                    let diagnostic = unknown_key(name, key.span, "a kind", KIND);
                    self.diagnostics.push(diagnostic);
                }
            }
        }
        let place = entries.first().map_or(node.span, |(key, _)| key.span);
        let mut wrong = |message: &str, help: &str| {
            let diagnostic = Diagnostic::error("missing-argument", message).at(place, "");
            self.diagnostics.push(diagnostic.help(help));
        };
        if !named {
            wrong("a kind says its name", &format!("`kind: {stem}`"));
        }
        if composite.key().is_none() && node.get("arguments").is_none_or(|it| !it.is_null()) {
            wrong(
                "one argument of a kind is its key",
                "for example `arguments: { name: { key: true } }`",
            );
        }
        if node.get("states").is_none() && before.is_empty() {
            wrong("a kind without `states`", "they are what it stands for");
        }
        before.append(&mut composite.items);
        composite.items = before;
        composite.defaults = gathered.defaults;
        composite.broken = gathered.broken;
        Some(composite)
    }

    /// Reads a state of a composite kind.
    pub fn use_of(
        &mut self,
        node: &Node,
        composite: &Arc<Composite>,
        kind_span: Span,
        gathered: &mut Gathered,
    ) -> Use {
        let entries = node.entries().unwrap_or_default();
        let mut one = Use {
            composite: Arc::clone(composite),
            key: node.clone(),
            arguments: BTreeMap::new(),
            common: CommonKeys::default(),
            kind_span,
        };
        for (key, value) in entries {
            let name = key.as_text().unwrap_or_default();
            if key.span == kind_span {
                one.key = value.clone();
            } else if let Some(index) = composite.named(name) {
                one.arguments.insert(index, (key.span, value.clone()));
            } else if let Some(common) = keyword(COMMON, name) {
                one.common.add(common.name, value.clone());
            } else {
                let diagnostic = unknown_argument(name, key.span, composite);
                self.diagnostics.push(diagnostic);
            }
        }
        for (index, parameter) in composite.parameters.iter().enumerate() {
            if parameter.required && !parameter.key && !one.arguments.contains_key(&index) {
                self.diagnostics.push(missing(composite, parameter, kind_span));
            }
        }
        for layer in &composite.defaults {
            if !gathered.defaults.iter().any(|known| Arc::ptr_eq(known, layer)) {
                gathered.defaults.push(Arc::clone(layer));
            }
        }
        gathered.broken.extend(composite.broken.iter().cloned());
        one
    }
}

/// That a required argument is missing.
pub(super) fn missing(composite: &Composite, parameter: &Parameter, place: Span) -> Diagnostic {
    let message = format!("kind `{}` needs `{}`", composite.name, parameter.name);
    let diagnostic = Diagnostic::error("missing-argument", message).at(place, "");
    match parameter.summary.as_str() {
        "" => diagnostic,
        summary => diagnostic.help(format!("`{}`: {summary}", parameter.name)),
    }
}

fn unknown_argument(name: &str, span: Span, composite: &Composite) -> Diagnostic {
    if LATER_COMMON.contains(&name) {
        let message = format!("`{name}` is not supported by this version");
        return Diagnostic::error("unsupported", message).at(span, "");
    }
    let message = format!("unknown argument `{name}` for kind `{}`", composite.name);
    let diagnostic = Diagnostic::error("unknown-argument", message);
    if let Some(key) = composite.key().filter(|key| *key.name == *name) {
        let example = format!("`{}: …` gives it: it is the key", composite.name);
        return diagnostic.at(span, example).help(format!("inside it is called `{}`", key.name));
    }
    let given = || composite.parameters.iter().filter(|parameter| !parameter.key);
    let own = given().map(|parameter| &*parameter.name);
    match nearest(name, own.clone().chain(names(COMMON).map(|name| name as &str))) {
        Some(near) => diagnostic.at(span, format!("did you mean `{near}`?")),
        None => {
            let names: Vec<_> = own.map(|name| format!("`{name}`")).collect();
            let takes = if names.is_empty() { "no arguments".into() } else { names.join(", ") };
            diagnostic.at(span, "").help(format!("`{}` takes {takes}", composite.name))
        }
    }
}

fn parameters(value: &Node, diagnostics: &mut Diagnostics) -> Vec<Parameter> {
    let Some(entries) = value.entries() else {
        let message = format!("`arguments` takes a mapping, not {}", value.describe());
        let help = "for example `arguments: { name: { key: true }, port: { type: integer } }`";
        diagnostics.push(Diagnostic::error("wrong-type", message).at(value.span, "").help(help));
        return Vec::new();
    };
    let mut parameters: Vec<Parameter> = Vec::new();
    let mut keyed: Option<Span> = None;
    for (name, value) in entries {
        let text = name.as_text().unwrap_or_default();
        if !is_variable(text) {
            let message = format!("`{text}` cannot be the name of an argument");
            let label = "letters, digits and `_`, not beginning with a digit";
            diagnostics.push(Diagnostic::error("variable-name", message).at(name.span, label));
            continue;
        }
        let parameter = parameter(text, value, diagnostics);
        if parameter.key {
            if let Some(first) = keyed {
                let message = "only one argument of a kind is its key";
                let diagnostic = Diagnostic::error("exclusive-arguments", message);
                diagnostics.push(diagnostic.at(name.span, "").at(first, "first here"));
            }
            keyed = Some(name.span);
        }
        parameters.push(parameter);
    }
    parameters
}

fn parameter(name: &str, value: &Node, diagnostics: &mut Diagnostics) -> Parameter {
    let mut parameter = Parameter {
        name: Arc::from(name),
        key: false,
        shape: Shape::Text,
        secret: false,
        required: false,
        default: None,
        choices: Vec::new(),
        summary: String::new(),
    };
    let Some(entries) = value.entries() else {
        if !value.is_null() {
            let message = format!("an argument is a mapping, not {}", value.describe());
            let example = format!("for example `{name}: {{ type: integer, default: 8000 }}`");
            diagnostics
                .push(Diagnostic::error("wrong-type", message).at(value.span, "").help(example));
        }
        return parameter;
    };
    for (key, value) in entries {
        match key.as_text().unwrap_or_default() {
            "key" => parameter.key = literal_boolean("key", value, diagnostics).unwrap_or(false),
            "required" => {
                parameter.required =
                    literal_boolean("required", value, diagnostics).unwrap_or(false);
            }
            "default" => parameter.default = Some(value.clone()),
            "summary" => value.as_text().unwrap_or_default().clone_into(&mut parameter.summary),
            "type" => match TYPES.iter().find(|(word, _)| value.as_text() == Some(word)) {
                Some((word, shape)) => {
                    parameter.shape = *shape;
                    parameter.secret = *word == SECRET;
                }
                None => diagnostics.push(unknown_type(value)),
            },
            "choices" => match value.items() {
                Some(items) if items.iter().all(|item| item.scalar().is_some()) => {
                    let texts = items.iter().filter_map(Node::as_text);
                    parameter.choices = texts.map(str::to_owned).collect();
                }
                _ => {
                    let message = format!("`choices` takes a list, not {}", value.describe());
                    diagnostics.push(Diagnostic::error("wrong-type", message).at(value.span, ""));
                }
            },
            other => {
                diagnostics.push(unknown_key(other, key.span, "an argument", KIND_ARGUMENT));
            }
        }
    }
    let both = parameter.required && parameter.default.is_some();
    if let Some((key, _)) = entries.iter().find(|(key, _)| key.as_text() == Some("required"))
        && both
    {
        let message = "what has a default need not be given";
        diagnostics.push(Diagnostic::error("exclusive-arguments", message).at(key.span, ""));
    }
    if let Some(default) = &parameter.default
        && !has_template(default)
        && !parameter.choices.is_empty()
        && !default.as_text().is_some_and(|text| parameter.choices.iter().any(|one| one == text))
    {
        let message = format!("the default of `{name}` is none of its choices");
        diagnostics.push(Diagnostic::error("unknown-choice", message).at(default.span, ""));
    }
    parameter
}

fn unknown_type(value: &Node) -> Diagnostic {
    let words = || TYPES.iter().map(|(word, _)| *word);
    let name = value.as_text().unwrap_or_default();
    let diagnostic = Diagnostic::error("unknown-choice", format!("unknown type `{name}`"));
    match nearest(name, words()) {
        Some(near) => diagnostic.at(value.span, format!("did you mean `{near}`?")),
        None => {
            let words: Vec<_> = words().map(|word| format!("`{word}`")).collect();
            diagnostic.at(value.span, "").help(format!("the types are {}", words.join(", ")))
        }
    }
}
