//! The inventory: hosts, groups, patterns, and variables with where each came from.
//!
//! Ansible's inventories are read as they are: YAML, INI, folders, programs, comma lists,
//! `group_vars` and `host_vars`. The room may know files that it is given paths of, sources and
//! diagnostics, YAML as data, and a keyring that opens encrypted files. It must never know states,
//! connections that are open, the keys themselves, the environment or the home directory: variables leave it unevaluated, and whoever needs
//! a value passes in what evaluates it.
//!
//! What Ansible prints is the measure: [`Inventory::list`] is compared with `ansible-inventory` in
//! `tests/inventory`. Where Ansible skips what it does not understand with a warning, this is an
//! error with a place, since a host that silently drops out is worse than a refusal.

mod connection;
mod ini;
mod json;
mod json_nodes;
mod literal;
mod pattern;
mod range;
mod read;
mod script;
mod tree;
mod variables;
mod yaml;
mod yaml11;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use indexmap::{IndexMap, IndexSet};
use serde_json::Value;

pub(crate) use connection::not_plain;
pub use connection::{Connection, ConnectionKind};
pub use pattern::Pattern;
pub use variables::{Layer, Origin, Variable};

use crate::diagnostic::{Diagnostic, Diagnostics, Sources, Span};
use crate::lang::yaml::{Kind, Node, Scalar, Style};
use crate::secret::Keyring;
use tree::{ALL, Host, Tree};

/// One `-i`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// A file, a program, or a folder of them.
    Path(PathBuf),
    /// A comma list, as in `web1,web2:2222,`.
    Hosts(String),
}

/// Whether what the project says may be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The project is the user's own.
    Full,
    /// Nobody has reviewed it (`--untrusted`): programs are errors, and so are links to files that
    /// are outside of this folder.
    Untrusted {
        /// The project's root.
        project: PathBuf,
    },
}

/// What to read, and how.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Later ones add to earlier ones, and win.
    pub given: Vec<Given>,
    /// Further folders whose `group_vars` and `host_vars` count, above those beside the
    /// inventories: the folder of the state file.
    pub beside: Vec<PathBuf>,
    /// Paths below it are shown relative to it in messages: the working directory.
    pub base: PathBuf,
    /// Whether programs may be run.
    pub trust: Trust,
    /// How long a program may take for one answer.
    pub script_timeout: Duration,
    /// Opens files that are encrypted.
    pub keyring: Arc<Keyring>,
}

impl Spec {
    /// A trusted inventory, with a minute for each answer of a program.
    pub fn new(given: Vec<Given>, base: PathBuf) -> Self {
        let script_timeout = Duration::from_secs(60);
        let keyring = Arc::default();
        Self { given, beside: Vec::new(), base, trust: Trust::Full, script_timeout, keyring }
    }
}

/// Hosts, groups and variables of all sources, merged.
///
/// If no source declares the controller, it is there as an implicit host with the name that a
/// pattern calls it by (`localhost`, `127.0.0.1`, `::1`): no group and no list has it.
#[derive(Debug)]
pub struct Inventory {
    tree: Tree,
    /// Declared hosts, in inventory order.
    order: IndexSet<usize>,
    /// How many folders of variables come from inventories; the others are beside state files.
    beside: usize,
    /// Whether some files of variables are encrypted, and there is no key and need not be one.
    locked: bool,
}

impl Inventory {
    /// Reads and merges all sources; what is wrong is said in `diagnostics`, and what could be read
    /// is still given.
    pub fn load(sources: &Sources, spec: &Spec, diagnostics: &mut Diagnostics) -> Self {
        let mut tree = Tree::new();
        let reader = read::Reader { sources, spec, locked: Cell::new(false) };
        for given in &spec.given {
            reader.given(given, &mut tree, diagnostics);
        }
        tree.settle(diagnostics);
        let order = tree.members(ALL);
        tree.add_implicit_hosts();
        let inventory_folders = spec.given.iter().filter_map(|given| match given {
            Given::Path(path) if path.is_dir() => Some(path.clone()),
            Given::Path(path) => path.parent().map(Path::to_owned),
            Given::Hosts(_) => None,
        });
        // A folder that is there twice counts at its last place.
        let state_folders = last_of_each(spec.beside.iter().cloned());
        let mut folders = last_of_each(
            inventory_folders.filter(|folder| !state_folders.iter().any(|one| same(one, folder))),
        );
        let beside = folders.len();
        folders.extend(state_folders);
        variables::read_folders(&reader, &folders, &mut tree, diagnostics);
        connection::warn_of_ignored(&tree, diagnostics);
        Self { tree, order, beside, locked: reader.locked.get() }
    }

    /// Whether there are variables that cannot be read: files are encrypted, there is no key, and there
    /// need not be one.
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    fn host(&self, name: &str) -> Option<&Host> {
        self.tree.hosts.get(name)
    }

    /// The declared hosts, in inventory order.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.order
            .iter()
            .filter_map(|host| self.tree.hosts.get_index(*host))
            .map(|(name, _)| &**name)
    }

    /// Whether a host is declared, or is a name of the implicit one.
    pub fn contains(&self, host: &str) -> bool {
        self.host(host).is_some()
    }

    /// All groups, `all` and `ungrouped` included, in the order of their first mention.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.tree.groups.keys().map(|name| &**name)
    }

    /// The hosts of a group and of the groups below it, in the order of the group; none if there is
    /// no such group.
    pub fn members(&self, group: &str) -> Option<Vec<&str>> {
        let group = self.tree.groups.get_index_of(group)?;
        Some(self.names(&self.tree.members(group)))
    }

    /// The groups that a host is in, `all` left out, by name.
    pub fn groups_of(&self, host: &str) -> Vec<&str> {
        let groups = self.host(host).into_iter().flat_map(|host| &host.groups);
        let mut names: Vec<&str> = groups
            .filter_map(|group| self.tree.groups.get_index(*group))
            .map(|(name, _)| &**name)
            .collect();
        names.sort_unstable();
        names
    }

    /// Where a host was named first; none for the implicit `localhost` and unknown hosts.
    pub fn place_of(&self, host: &str) -> Option<Span> {
        self.host(host)?.span
    }

    /// The inventory file that named a host first.
    pub fn file_of(&self, host: &str) -> Option<&Path> {
        self.host(host)?.file.as_deref()
    }

    /// The hosts of a pattern that a limit leaves, in the order of the pattern; a part that means no
    /// host is an error.
    pub fn select(
        &self,
        pattern: &Pattern,
        limit: Option<&Pattern>,
        diagnostics: &mut Diagnostics,
    ) -> Vec<&str> {
        self.names(&self.selected(pattern, limit, diagnostics))
    }

    fn selected(
        &self,
        pattern: &Pattern,
        limit: Option<&Pattern>,
        diagnostics: &mut Diagnostics,
    ) -> IndexSet<usize> {
        let mut selected = pattern::select(&self.tree, pattern, diagnostics);
        if let Some(limit) = limit {
            let kept = pattern::select(&self.tree, limit, diagnostics);
            selected.retain(|host| pattern::is_among(&self.tree, *host, &kept));
        }
        selected
    }

    fn names(&self, hosts: &IndexSet<usize>) -> Vec<&str> {
        let named = hosts.iter().filter_map(|host| self.tree.hosts.get_index(*host));
        named.map(|(name, _)| &**name).collect()
    }

    /// All variables of a host with all layers, the lowest first: the last one of a name holds.
    pub fn variables(&self, host: &str) -> Vec<&Variable> {
        let Some(host) = self.tree.hosts.get_index_of(host) else { return Vec::new() };
        variables::layers(&self.tree, host, self.beside)
    }

    /// The variables of a host that hold, by name.
    pub fn merged(&self, host: &str) -> IndexMap<&str, &Variable> {
        variables::merged(self.variables(host))
    }

    /// How to reach a host, and whom to become there, by its variables.
    ///
    /// `evaluate` gives the values of what may be templates; what is wrong is said in
    /// `diagnostics`, and then there is no connection.
    pub fn connection(
        &self,
        host: &str,
        evaluate: &dyn Fn(&Node) -> Result<Value, Diagnostic>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Connection> {
        let (name, declared) = self.tree.hosts.get_key_value(host)?;
        let kind = if declared.implicit { ConnectionKind::Local } else { ConnectionKind::Ssh };
        connection::read(name, kind, &self.variables(host), evaluate, diagnostics)
    }

    /// What `ansible-inventory --list` prints of the hosts that a limit leaves.
    pub fn list(&self, limit: Option<&Pattern>, diagnostics: &mut Diagnostics) -> String {
        json::list(self, &self.selected(&Pattern::default(), limit, diagnostics))
    }

    /// What `ansible-inventory --host` prints; none if there is no such host.
    pub fn host_variables(&self, host: &str) -> Option<String> {
        Some(json::host(self, self.tree.hosts.get_index_of(host)?))
    }

    /// What `ansible-inventory --graph` prints, from `all` or another group downwards; none if
    /// there is no such group.
    pub fn graph(&self, group: &str) -> Option<String> {
        Some(json::graph(&self.tree, self.tree.groups.get_index_of(group)?))
    }
}

/// A plain scalar that was computed, for what stands at a place.
fn plain_node(span: Span, text: impl Into<Arc<str>>) -> Node {
    let scalar = Scalar { text: text.into(), style: Style::Plain, tag: None, secret: false };
    Node { span, kind: Kind::Scalar(scalar) }
}

/// Whether two paths are the same folder.
fn same(left: &Path, right: &Path) -> bool {
    canonical(left) == canonical(right)
}

/// The path without links; an empty one, as the parent of a bare name, is the working directory.
fn canonical(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn last_of_each(folders: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut found: IndexMap<PathBuf, PathBuf> = IndexMap::new();
    for folder in folders {
        let key = canonical(&folder);
        found.shift_remove(&key);
        found.insert(key, folder);
    }
    found.into_values().collect()
}
