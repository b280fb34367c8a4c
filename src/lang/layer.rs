use std::sync::Arc;

use indexmap::IndexMap;

use super::yaml::Node;
use crate::diagnostic::{Diagnostic, Diagnostics};

/// Names that always mean what converge knows: a variable that is called so is never seen.
pub(super) const RESERVED: [&str; 10] = [
    "ansible_facts",
    "ansible_play_hosts",
    "facts",
    "group_names",
    "groups",
    "host",
    "hostvars",
    "inventory_hostname",
    "inventory_hostname_short",
    "play_hosts",
];

/// One layer of variables. The values are not evaluated: templates in them are evaluated where
/// they are used, as in Ansible.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    /// Where they come from, for people.
    pub label: String,
    /// Each variable with the place of its value.
    pub variables: IndexMap<Arc<str>, Node>,
    /// Whether there are further variables in it that cannot be read: names that mean nothing else may
    /// be theirs.
    pub locked: bool,
}

impl Layer {
    /// Says which variables are never seen, because their names are taken.
    pub(super) fn check_names(&self, diagnostics: &mut Diagnostics) {
        for name in RESERVED {
            let Some(node) = self.variables.get(name) else { continue };
            let message = format!("the variable `{name}` is never seen");
            diagnostics.push(
                Diagnostic::warning("reserved-name", message)
                    .at(node.span, "")
                    .help(format!("`{name}` always is what converge knows: give it another name")),
            );
        }
    }
}
