//! Where the value of a variable comes from: all layers that have it, and what its templates use.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value as Json;

use super::filters::function_names;
use super::layer::{Layer, RESERVED};
use super::scope::{Evaluated, Scope};
use super::taint;
use super::yaml::{Kind, Node};
use crate::diagnostic::{Diagnostic, Span};

/// Deepest nesting of uses that is shown; evaluation has a limit of its own.
const DEPTH_LIMIT: usize = 50;

/// What a variable comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    /// This.
    Known(Json),
    /// That needs facts of the host.
    NeedsFacts,
    /// It cannot be told; why is said here.
    Failed(Box<Diagnostic>),
}

/// Where a variable comes from.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// All layers that have it, the lowest first: the last one holds.
    pub layers: Vec<LayerValue>,
    /// What it comes to.
    pub value: Shown,
    /// The names that its templates use, and those that theirs use.
    pub uses: Vec<Use>,
}

/// What one layer says of a variable.
#[derive(Clone, Debug)]
pub struct LayerValue {
    /// What the layer is called.
    pub layer: String,
    /// What it says, not evaluated.
    pub span: Span,
}

/// A name that a template uses.
#[derive(Clone, Debug)]
pub struct Use {
    /// How many templates lie between it and the variable.
    pub depth: usize,
    /// The name.
    pub name: String,
    /// What says what it is.
    pub said: Said,
    /// What it comes to; none where that is not shown: all hosts' variables, and what is shown
    /// further up.
    pub value: Option<Shown>,
}

/// What says what a name is.
#[derive(Clone, Debug)]
pub enum Said {
    /// A layer: it is a variable.
    By(LayerValue),
    /// Converge knows it by itself.
    Known,
    /// Nothing does.
    Nowhere,
}

impl Scope {
    /// The names of all variables of the layers, sorted.
    pub fn variable_names(&self) -> Vec<&str> {
        let names = self.layers().iter().flat_map(|layer| layer.variables.keys());
        names.map(|name| &**name).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What a variable comes to, and what says so; none if no layer has it.
    pub fn shown(&self, name: &str) -> Option<(LayerValue, Shown)> {
        let (layer, node) = self.saying(name).next_back()?;
        Some((said(layer, node), self.value_shown(node)))
    }

    /// Where a variable comes from; none if no layer has it.
    pub fn explain(&self, name: &str) -> Option<Explanation> {
        let (_, node) = self.saying(name).next_back()?;
        let layers = self.saying(name).map(|(layer, node)| said(layer, node)).collect();
        let mut uses = Vec::new();
        let mut seen = BTreeSet::from([name.to_owned()]);
        self.add_uses(node, 0, &mut seen, &mut uses);
        Some(Explanation { layers, value: self.value_shown(node), uses })
    }

    /// The layers that have a variable, lowest first, each once.
    fn saying<'a>(&'a self, name: &str) -> impl DoubleEndedIterator<Item = (&'a Layer, &'a Node)> {
        let layers = self.layers();
        layers.iter().enumerate().filter_map(move |(index, layer)| {
            // What has to stay on top is there twice.
            let again = layers[index + 1..].iter().any(|higher| Arc::ptr_eq(higher, layer));
            let node = layer.variables.get(name).filter(|_| !again)?;
            Some((&**layer, node))
        })
    }

    /// What a node comes to, without secrets.
    fn value_shown(&self, node: &Node) -> Shown {
        match self.evaluate(node) {
            Ok(Evaluated::Known(value)) => Shown::Known(taint::shown(&value)),
            Ok(Evaluated::Unknown) => Shown::NeedsFacts,
            Err(diagnostic) => Shown::Failed(Box::new(diagnostic)),
        }
    }

    fn add_uses(
        &self,
        node: &Node,
        depth: usize,
        seen: &mut BTreeSet<String>,
        uses: &mut Vec<Use>,
    ) {
        let mut names = Vec::new();
        self.names_in(node, &mut names);
        for name in names {
            // What converge knows by itself goes before variables of that name.
            let own = RESERVED.contains(&name.as_str());
            let variable = self.saying(&name).next_back().filter(|_| !own);
            let function = name == "omit" || function_names().contains(&name.as_str());
            if variable.is_none() && function {
                continue;
            }
            let again = !seen.insert(name.clone());
            let (said, value) = match variable {
                Some((layer, node)) => (Said::By(said(layer, node)), Some(self.value_shown(node))),
                None if self.defined(&name) => {
                    let itself = Node::text(node.span, format!("{{{{ {name} }}}}"));
                    // Each host's variables would be there, and theirs of each other.
                    let shown = name != "hostvars";
                    (Said::Known, shown.then(|| self.value_shown(&itself)))
                }
                None => (Said::Nowhere, None),
            };
            uses.push(Use { depth, name, said, value: value.filter(|_| !again) });
            if let Some((_, node)) = variable.filter(|_| !again && depth < DEPTH_LIMIT) {
                self.add_uses(node, depth + 1, seen, uses);
            }
        }
    }

    fn names_in(&self, node: &Node, names: &mut Vec<String>) {
        match &node.kind {
            Kind::Scalar(scalar) if scalar.secret => {}
            Kind::Scalar(scalar) if scalar.tag.as_deref() != Some("unsafe") => {
                for name in self.templates().names_in(&scalar.text) {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
            }
            Kind::Scalar(_) => {}
            Kind::Sequence(items) => items.iter().for_each(|item| self.names_in(item, names)),
            Kind::Mapping(entries) => {
                entries.iter().for_each(|(_, value)| self.names_in(value, names));
            }
        }
    }
}

fn said(layer: &Layer, node: &Node) -> LayerValue {
    LayerValue { layer: layer.label.clone(), span: node.span }
}
