//! Variables with where each came from, and the folders `group_vars` and `host_vars`.
//!
//! The order of layers is Ansible's default: what inventory sources say of `all`, then of groups
//! (parents before children, then by `ansible_group_priority`, then by name), then `group_vars` of
//! `all`, then of groups, then the host's own, then `host_vars`; folders beside the inventory come
//! before those beside the state file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use super::read::Reader;
use super::tree::{ALL, Group, Tree};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::lang::yaml::Node;

/// The ending of files that age has encrypted.
const ENCRYPTED: &str = "age";
/// Deepest nesting of folders of variables.
const DEPTH_LIMIT: usize = 16;

/// A variable as it was written, not evaluated.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name.
    pub name: Arc<str>,
    /// Where the name stands.
    pub key: Span,
    /// What was written.
    pub value: Node,
    /// What gave it.
    pub origin: Origin,
}

/// What gave a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The kind of place.
    pub layer: Layer,
    /// The name of the group or host.
    pub owner: Arc<str>,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let owner = &self.owner;
        match self.layer {
            Layer::Group => write!(formatter, "group `{owner}`"),
            Layer::GroupVars => write!(formatter, "group_vars of `{owner}`"),
            Layer::Host => write!(formatter, "host `{owner}`"),
            Layer::HostVars => write!(formatter, "host_vars of `{owner}`"),
        }
    }
}

/// The kind of place that gave a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// An inventory source, for a group.
    Group,
    /// A file of `group_vars`.
    GroupVars,
    /// An inventory source, for a host.
    Host,
    /// A file of `host_vars`.
    HostVars,
}

/// All variables of a host, lowest layer first.
pub(super) fn layers(tree: &Tree, host: usize, beside: usize) -> Vec<&Variable> {
    let host = &tree.hosts[host];
    let groups: Vec<&Group> = host.groups.iter().map(|group| &tree.groups[*group]).collect();
    let all = &tree.groups[ALL];
    let mut found: Vec<&Variable> = Vec::new();
    found.extend(&all.variables);
    found.extend(groups.iter().flat_map(|group| &group.variables));
    // Ansible goes through the folders first and through the groups inside; the folders beside the
    // state file, from `beside` on, come last as a whole.
    let inventory = 0..beside.min(all.files.len());
    let state_file = inventory.end..all.files.len();
    for folder in inventory.clone().chain(state_file.clone()) {
        found.extend(&all.files[folder]);
    }
    for folder in inventory.chain(state_file) {
        found.extend(groups.iter().filter_map(|group| group.files.get(folder)).flatten());
    }
    found.extend(&host.variables);
    found.extend(host.files.iter().flatten());
    found
}

/// The last one of each name, in the order of the names' first mention.
pub(super) fn merged(layers: Vec<&Variable>) -> IndexMap<&str, &Variable> {
    layers.into_iter().map(|variable| (variable.name.as_ref(), variable)).collect()
}

/// Reads `group_vars` and `host_vars` of each folder, for all groups and hosts.
pub(super) fn read_folders(
    reader: &Reader<'_>,
    folders: &[PathBuf],
    tree: &mut Tree,
    diagnostics: &mut Diagnostics,
) {
    for folder in folders {
        let group_vars = Folder::open(&folder.join("group_vars"));
        for (name, group) in &mut tree.groups {
            let origin = Origin { layer: Layer::GroupVars, owner: name.clone() };
            group.files.push(group_vars.read(reader, &origin, diagnostics));
        }
        let host_vars = Folder::open(&folder.join("host_vars"));
        for (name, host) in &mut tree.hosts {
            let origin = Origin { layer: Layer::HostVars, owner: name.clone() };
            host.files.push(host_vars.read(reader, &origin, diagnostics));
        }
    }
}

/// A folder of files that are named after groups or hosts.
struct Folder {
    path: PathBuf,
    names: BTreeSet<String>,
}

impl Folder {
    /// A folder that is not there has no names.
    fn open(path: &Path) -> Self {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        Self { path: path.to_owned(), names }
    }

    /// The variables of one group or host: of the first of `NAME`, `NAME.yml`, `NAME.yaml` and
    /// `NAME.json` that is there, and of the first of these with `.age`; a folder gives all its files,
    /// by name.
    fn read(
        &self,
        reader: &Reader<'_>,
        origin: &Origin,
        diagnostics: &mut Diagnostics,
    ) -> Vec<Variable> {
        let mut variables = Vec::new();
        let names = ["", ".yml", ".yaml", ".json"]
            .iter()
            .map(|extension| format!("{}{extension}", origin.owner));
        let mut files = Vec::new();
        if let Some(name) = names.clone().find(|name| self.names.contains(name)) {
            collect(&self.path.join(name), 0, &mut files);
        }
        // What is encrypted stands beside what is not, and goes before it.
        let encrypted = names.map(|name| format!("{name}.{ENCRYPTED}"));
        if let Some(name) = encrypted.into_iter().find(|name| self.names.contains(name)) {
            collect(&self.path.join(name), 0, &mut files);
        }
        for file in files {
            let Some(root) = reader.read_variables(&file, diagnostics) else { continue };
            for (key, value) in root.entries().unwrap_or_default() {
                variables.push(Variable {
                    name: Arc::from(key.as_text().unwrap_or_default()),
                    key: key.span,
                    value: value.clone(),
                    origin: origin.clone(),
                });
            }
        }
        variables
    }
}

/// A file, or the files below a folder in the order of their names; hidden ones, backups and those
/// with foreign extensions are left out, as Ansible does.
fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    if !path.is_dir() {
        files.push(path.to_owned());
        return;
    }
    if depth > DEPTH_LIMIT {
        return;
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    for name in names {
        if name.starts_with('.') || name.ends_with('~') {
            continue;
        }
        let entry = path.join(&name);
        let extension = entry.extension().and_then(|extension| extension.to_str());
        let known = matches!(extension, None | Some("yml" | "yaml" | "json" | ENCRYPTED));
        if (entry.is_dir() && extension.is_none()) || (entry.is_file() && known) {
            collect(&entry, depth + 1, files);
        }
    }
}

/// A file of variables that is not a mapping.
pub(super) fn wrong_root(root: &Node) -> Diagnostic {
    let message = "a file of variables has to be a mapping of names to values";
    Diagnostic::error("wrong-type", message).at(root.span, format!("this is {}", root.describe()))
}
