//! What stands in a play as it is written, for whoever reads it and evaluates nothing.

use std::path::PathBuf;
use std::sync::Arc;

use super::composite::Composite;
use super::include::Include;
use super::layer::Layer;
use super::own_facts::Asked;
use super::play::{Item, Play, VarsFile};
use super::state::State;
use super::yaml::Node;

/// What a value that is written down is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Data, with templates in braces.
    Data,
    /// An expression, also without braces (`when`, `loop`).
    Expression,
}

/// Where variables that a play brings along are defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Definition {
    /// `defaults` of the play, or of a file that it includes.
    Defaults,
    /// `vars` of the play.
    Vars,
    /// A file in `vars_files`.
    File,
    /// `vars` of an include.
    Include,
}

impl State {
    /// The value of an argument of the kind's own, if it is given.
    pub fn argument(&self, name: &str) -> Option<&Node> {
        let given = self.arguments.iter().find(|given| given.argument.name == name);
        given.map(|given| &given.value)
    }

    /// All arguments of the kind's own that are given.
    pub fn arguments(&self) -> impl Iterator<Item = (&'static crate::kind::Argument, &Node)> {
        self.arguments.iter().map(|given| (given.argument, &given.value))
    }

    /// The value of a common key, if it is given.
    pub fn common(&self, name: &str) -> Option<&Node> {
        self.common.get(name)
    }

    /// The folders in which the files that it names are looked for.
    pub fn folders(&self) -> Vec<PathBuf> {
        self.file.folders()
    }
}

impl Play {
    /// All states, those of included files and of composite kinds too, in the order of the source.
    pub fn states(&self) -> Vec<&State> {
        let mut states = Vec::new();
        walk(&self.items, &mut |item| {
            if let Item::State(state) = item {
                states.push(&**state);
            }
        });
        states
    }

    /// The variables that it brings along, and where they are defined.
    pub fn definitions(&self) -> Vec<(Definition, &Arc<Layer>)> {
        let mut found: Vec<_> =
            self.defaults.iter().map(|layer| (Definition::Defaults, layer)).collect();
        found.extend(self.vars.iter().map(|layer| (Definition::Vars, layer)));
        found.extend(self.vars_files.iter().filter_map(|file| match file {
            VarsFile::Read(layer) => Some((Definition::File, layer)),
            VarsFile::Named(_) => None,
        }));
        walk(&self.items, &mut |item| {
            if let Item::Include(include) = item {
                found.extend(include.vars.iter().map(|layer| (Definition::Include, layer)));
            }
        });
        found
    }

    /// The names that its loops give their items, and those of the arguments of composite kinds.
    pub fn local_names(&self) -> Vec<&str> {
        let mut names = vec!["item"];
        walk(&self.items, &mut |item| {
            let node = match item {
                Item::State(state) => state.common.get("loop_var"),
                Item::Include(include) => include.loop_var.as_ref(),
                Item::Use(one) => {
                    let parameters = one.composite.parameters.iter();
                    names.extend(parameters.map(|parameter| &*parameter.name));
                    one.common.get("loop_var")
                }
            };
            names.extend(node.and_then(Node::as_text));
        });
        names
    }

    /// The names of the facts that its hosts are asked for.
    pub fn fact_names(&self) -> Vec<&str> {
        self.facts.iter().map(Asked::name).collect()
    }

    /// All conditions of its states and includes.
    pub fn conditions(&self) -> Vec<&Node> {
        let mut found = Vec::new();
        walk(&self.items, &mut |item| {
            let node = match item {
                Item::State(state) => state.common.get("when"),
                Item::Include(include) => include.when.as_ref(),
                Item::Use(one) => one.common.get("when"),
            };
            let Some(node) = node else { return };
            found.extend(node.items().unwrap_or(std::slice::from_ref(node)));
        });
        found
    }

    /// All values in which names of variables may stand.
    pub fn values(&self) -> Vec<(Reads, &Node)> {
        let own = [&self.hosts, &self.connection, &self.remote_user, &self.becomes];
        let more = [&self.become_user, &self.environment, &self.tags];
        let own = own.into_iter().chain(more).flatten();
        let mut values: Vec<_> = own.map(|node| (Reads::Data, node)).collect();
        for file in &self.vars_files {
            if let VarsFile::Named(node) = file {
                values.push((Reads::Data, node));
            }
        }
        values.extend(self.facts.iter().flat_map(Asked::values).map(|node| (Reads::Data, node)));
        for (_, layer) in self.definitions() {
            values.extend(layer.variables.values().map(|node| (Reads::Data, node)));
        }
        walk(&self.items, &mut |item| match item {
            Item::State(state) => {
                values.push((Reads::Data, &state.key));
                values.extend(state.arguments().map(|(_, node)| (Reads::Data, node)));
                let common = state.common.entries();
                values.extend(common.map(|(name, node)| (reads(name), node)));
            }
            Item::Include(include) => values.extend(include_values(include)),
            Item::Use(one) => {
                values.push((Reads::Data, &one.key));
                values.extend(one.arguments.values().map(|(_, node)| (Reads::Data, node)));
                let common = one.common.entries();
                values.extend(common.map(|(name, node)| (reads(name), node)));
                let parameters = one.composite.parameters.iter();
                let defaults = parameters.filter_map(|parameter| parameter.default.as_ref());
                values.extend(defaults.map(|node| (Reads::Data, node)));
            }
        });
        values
    }
}

fn reads(key: &str) -> Reads {
    if matches!(key, "when" | "loop") { Reads::Expression } else { Reads::Data }
}

fn include_values(include: &Include) -> impl Iterator<Item = (Reads, &Node)> {
    let expressions = [&include.when, &include.looped].into_iter().flatten();
    let tags = include.tags.iter().map(|node| (Reads::Data, node));
    expressions.map(|node| (Reads::Expression, node)).chain(tags)
}

/// Calls `see` for each item, for those of includes, and once for those of each composite kind.
fn walk<'a>(items: &'a [Item], see: &mut dyn FnMut(&'a Item)) {
    walk_new(items, &mut Vec::new(), see);
}

fn walk_new<'a>(
    items: &'a [Item],
    seen: &mut Vec<&'a Arc<Composite>>,
    see: &mut dyn FnMut(&'a Item),
) {
    for item in items {
        see(item);
        match item {
            Item::State(_) => {}
            Item::Include(include) => walk_new(&include.items, seen, see),
            Item::Use(one) => {
                if !seen.iter().any(|composite| Arc::ptr_eq(composite, &one.composite)) {
                    seen.push(&one.composite);
                    walk_new(&one.composite.items, seen, see);
                }
            }
        }
    }
}
