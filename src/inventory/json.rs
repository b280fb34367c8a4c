//! The inventory as `ansible-inventory` of ansible-core 2.19 prints it: `--list`, `--host` and
//! `--graph`.
//!
//! JSON is printed as Python's `json.dumps(sort_keys=True, indent=4)` would, and scalars have the
//! types that YAML 1.1 gives them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use indexmap::IndexSet;

use super::tree::{ALL, Tree};
use super::yaml11::{self, Value};
use super::{Inventory, variables};
use crate::lang::python;

/// Names that Ansible keeps for itself and never prints.
const INTERNAL: [&str; 32] = [
    "ansible_async_path",
    "ansible_collection_name",
    "ansible_config_file",
    "ansible_dependent_role_names",
    "ansible_diff_mode",
    "ansible_facts",
    "ansible_forks",
    "ansible_inventory_sources",
    "ansible_limit",
    "ansible_play_batch",
    "ansible_play_hosts",
    "ansible_play_hosts_all",
    "ansible_play_role_names",
    "ansible_playbook_python",
    "ansible_role_name",
    "ansible_role_names",
    "ansible_run_tags",
    "ansible_skip_tags",
    "ansible_verbosity",
    "ansible_version",
    "group_names",
    "groups",
    "hostvars",
    "inventory_dir",
    "inventory_file",
    "inventory_hostname",
    "inventory_hostname_short",
    "play_hosts",
    "playbook_dir",
    "role_name",
    "role_path",
    "role_uuid",
];

/// As `ansible-inventory --list` of the hosts that a limit leaves.
pub(super) fn list(inventory: &Inventory, selected: &IndexSet<usize>) -> String {
    let tree = &inventory.tree;
    let text = |name: &Arc<str>| Value::Text(name.clone());
    let mut root: BTreeMap<String, Value> = BTreeMap::new();
    for group in tree.descendants(ALL) {
        let mut entry = Vec::new();
        let found = &tree.groups[group];
        let hosts = found.hosts.iter().filter(|host| selected.contains(*host));
        let hosts: Vec<Value> = hosts.map(|host| text(&tree.name_of_host(*host))).collect();
        if group != ALL && !hosts.is_empty() {
            entry.push(("hosts".to_owned(), Value::List(hosts)));
        }
        if !found.children.is_empty() {
            let children = found.children.keys().map(|child| text(&tree.name_of_group(*child)));
            entry.push(("children".to_owned(), Value::List(children.collect())));
        }
        if !entry.is_empty() {
            root.insert(tree.name_of_group(group).to_string(), Value::Mapping(entry));
        }
    }
    let hosts = selected.iter().filter_map(|&host| {
        let variables = host_variables(inventory, host);
        (!variables.is_empty())
            .then(|| (tree.name_of_host(host).to_string(), Value::Mapping(variables)))
    });
    let meta = vec![
        ("hostvars".to_owned(), Value::Mapping(hosts.collect())),
        ("profile".to_owned(), Value::Text(Arc::from("inventory_legacy"))),
    ];
    root.insert("_meta".to_owned(), Value::Mapping(meta));
    let mut printer = Printer { out: String::new(), indent: Some(0), marks: Marks::Shown };
    printer.value(&Value::Mapping(root.into_iter().collect()));
    printer.out.push('\n');
    printer.out
}

/// As `ansible-inventory --host`, where strings that are never templates are not marked as such.
pub(super) fn host(inventory: &Inventory, host: usize) -> String {
    let mut printer = Printer { out: String::new(), indent: Some(0), marks: Marks::Hidden };
    printer.value(&Value::Mapping(host_variables(inventory, host)));
    printer.out.push('\n');
    printer.out
}

/// As `ansible-inventory --graph`, from a group downwards.
pub(super) fn graph(tree: &Tree, group: usize) -> String {
    fn walk(tree: &Tree, group: usize, depth: usize, out: &mut String) {
        let line = |depth: usize, text: &str, out: &mut String| {
            if depth > 0 {
                out.push_str(&"  |".repeat(depth));
                out.push_str("--");
            }
            out.push_str(text);
            out.push('\n');
        };
        line(depth, &format!("@{}:", tree.name_of_group(group)), out);
        for child in tree.groups[group].children.keys() {
            walk(tree, *child, depth + 1, out);
        }
        if group != ALL {
            for host in &tree.groups[group].hosts {
                line(depth + 1, &tree.name_of_host(*host), out);
            }
        }
    }
    let mut out = String::new();
    walk(tree, group, 0, &mut out);
    out
}

fn host_variables(inventory: &Inventory, host: usize) -> Vec<(String, Value)> {
    let layers = variables::layers(&inventory.tree, host, inventory.beside);
    variables::merged(layers)
        .into_iter()
        .filter(|(name, _)| !INTERNAL.contains(name))
        .map(|(name, variable)| (name.to_owned(), yaml11::value(&variable.value)))
        .collect()
}

/// Whether strings that are never templates are marked.
#[derive(Clone, Copy)]
enum Marks {
    Shown,
    Hidden,
}

struct Printer {
    out: String,
    /// Levels of indentation; none prints everything on one line.
    indent: Option<usize>,
    marks: Marks,
}

impl Printer {
    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.out.push_str("null"),
            Value::Boolean(true) => self.out.push_str("true"),
            Value::Boolean(false) => self.out.push_str("false"),
            Value::Integer(digits) => self.out.push_str(digits),
            Value::Float(number) => self.out.push_str(&python::float(*number)),
            Value::Text(text) => self.string(text),
            Value::Unsafe(text) => match self.marks {
                Marks::Shown => self.marked("__ansible_unsafe", text),
                Marks::Hidden => self.string(text),
            },
            Value::Vault(text) => self.marked("__ansible_vault", text),
            Value::List(items) => {
                self.between('[', ']', items.iter(), |printer, item| printer.value(item));
            }
            Value::Mapping(entries) => {
                let sorted: BTreeMap<&str, &Value> =
                    entries.iter().map(|(key, value)| (key.as_str(), value)).collect();
                self.between('{', '}', sorted.into_iter(), |printer, (key, value)| {
                    printer.string(key);
                    printer.out.push_str(if printer.indent.is_some() { ": " } else { ":" });
                    printer.value(value);
                });
            }
        }
    }

    fn marked(&mut self, mark: &str, text: &Arc<str>) {
        self.value(&Value::Mapping(vec![(mark.to_owned(), Value::Text(text.clone()))]));
    }

    fn between<T>(
        &mut self,
        open: char,
        close: char,
        items: impl ExactSizeIterator<Item = T>,
        print: impl Fn(&mut Self, T),
    ) {
        self.out.push(open);
        let is_empty = items.len() == 0;
        self.indent = self.indent.map(|levels| levels + 1);
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            self.new_line();
            print(self, item);
        }
        self.indent = self.indent.map(|levels| levels - 1);
        if !is_empty {
            self.new_line();
        }
        self.out.push(close);
    }

    fn new_line(&mut self) {
        if let Some(levels) = self.indent {
            self.out.push('\n');
            self.out.push_str(&"    ".repeat(levels));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                control if control < ' ' => {
                    // Writing to a string cannot fail.
                    let _ = write!(self.out, "\\u{:04x}", u32::from(control));
                }
                other => self.out.push(other),
            }
        }
        self.out.push('"');
    }
}

/// A value on one line.
#[cfg(test)]
pub(super) fn compact(node: &crate::lang::yaml::Node) -> String {
    let mut printer = Printer { out: String::new(), indent: None, marks: Marks::Shown };
    printer.value(&yaml11::value(node));
    printer.out
}
