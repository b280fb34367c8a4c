//! YAML inventories: groups with `hosts`, `children` and `vars`.

use super::tree::Tree;
use super::yaml11::{self, Value};
use crate::diagnostic::{Diagnostic, Diagnostics, nearest};
use crate::lang::yaml::{Kind, Node};

/// What a group may have.
const GROUP_KEYS: [&str; 3] = ["hosts", "children", "vars"];

/// Reads a file's root into the tree.
pub(super) fn read(root: &Node, tree: &mut Tree, diagnostics: &mut Diagnostics) {
    if root.is_null() {
        return;
    }
    let Some(entries) = root.entries() else {
        let message = "an inventory is a mapping of groups";
        diagnostics.push(
            Diagnostic::error("wrong-type", message)
                .at(root.span, format!("this is {}", root.describe())),
        );
        return;
    };
    if let Some((key, _)) = entries.iter().find(|(key, _)| key.as_text() == Some("plugin")) {
        let message = "inventory plugins are not known here";
        let help =
            "have the plugin's answer written to a file: `ansible-inventory --list --export`";
        diagnostics
            .push(Diagnostic::error("inventory-plugin", message).at(key.span, "").help(help));
        return;
    }
    for (key, body) in entries {
        let is_misplaced = key.as_text().is_some_and(|name| GROUP_KEYS.contains(&name));
        if is_misplaced {
            let message = format!("`{}` stands where a group is expected", sourced(key));
            diagnostics.push(
                Diagnostic::error("inventory-key", message)
                    .at(key.span, "")
                    .help("put it below a group, such as `all:`"),
            );
            continue;
        }
        group(key, body, tree, diagnostics);
    }
}

fn sourced(key: &Node) -> &str {
    key.as_text().unwrap_or_default()
}

/// The text of a key that has to be a string.
fn name<'a>(key: &'a Node, of: &str, diagnostics: &mut Diagnostics) -> Option<&'a str> {
    let scalar = key.scalar()?;
    if let Value::Text(text) = yaml11::scalar(scalar)
        && !text.is_empty()
    {
        return Some(&scalar.text);
    }
    let message = format!("the name of a {of} has to be a string");
    let label = match scalar.text.as_ref() {
        "" => "this is empty".to_owned(),
        text => format!("write `\"{text}\"`"),
    };
    diagnostics.push(Diagnostic::error("wrong-type", message).at(key.span, label));
    None
}

fn group(key: &Node, body: &Node, tree: &mut Tree, diagnostics: &mut Diagnostics) -> Option<usize> {
    let group_name = name(key, "group", diagnostics)?;
    let group_index = tree.add_group(group_name, Some(key.span));
    if body.is_null() {
        return Some(group_index);
    }
    let Some(entries) = body.entries() else {
        let message = format!("the group `{group_name}` has to be a mapping");
        diagnostics.push(
            Diagnostic::error("wrong-type", message)
                .at(body.span, format!("this is {}", body.describe()))
                .help("a group has `hosts`, `children` and `vars`"),
        );
        return Some(group_index);
    };
    for (key, value) in entries {
        let section = sourced(key);
        if !GROUP_KEYS.contains(&section) {
            diagnostics.push(unknown_key(group_name, key));
            continue;
        }
        if value.is_null() {
            continue;
        }
        // One name may stand there instead of a mapping.
        let alone;
        let entries: &[(Node, Node)] = match (&value.kind, value.as_text()) {
            (Kind::Mapping(entries), _) => entries.as_slice(),
            (_, Some(_)) if section != "vars" => {
                alone = [(value.clone(), super::plain_node(value.span, ""))];
                &alone[..]
            }
            _ => {
                diagnostics.push(wrong_section(group_name, section, value));
                continue;
            }
        };
        for (key, value) in entries {
            match section {
                "vars" => tree.set_on_group(group_index, key, value, diagnostics),
                "children" => {
                    if let Some(child) = group(key, value, tree, diagnostics) {
                        tree.add_child(group_index, child, Some(key.span), diagnostics);
                    }
                }
                _ => hosts(key, value, group_index, tree, diagnostics),
            }
        }
    }
    Some(group_index)
}

fn hosts(key: &Node, value: &Node, group: usize, tree: &mut Tree, diagnostics: &mut Diagnostics) {
    let Some(pattern) = name(key, "host", diagnostics) else { return };
    let names = tree.add_hosts(pattern, key.span, group, diagnostics);
    if let Some(entries) = value.entries() {
        for (key, value) in entries {
            for host in &names {
                tree.set_on_host(host, key, value, diagnostics);
            }
        }
    } else if !value.is_null() {
        let message = format!("the variables of `{pattern}` have to be a mapping");
        diagnostics.push(
            Diagnostic::error("wrong-type", message)
                .at(value.span, format!("this is {}", value.describe())),
        );
    }
}

fn unknown_key(group: &str, key: &Node) -> Diagnostic {
    let found = sourced(key);
    let message = format!("unknown key `{found}` in the group `{group}`");
    let diagnostic = Diagnostic::error("inventory-key", message);
    match nearest(found, GROUP_KEYS) {
        Some(near) => diagnostic.at(key.span, format!("did you mean `{near}`?")),
        None => diagnostic
            .at(key.span, "")
            .help("a group has `hosts`, `children` and `vars`; variables go below `vars`"),
    }
}

fn wrong_section(group: &str, section: &str, value: &Node) -> Diagnostic {
    let message = format!("`{section}` of the group `{group}` has to be a mapping");
    let diagnostic = Diagnostic::error("wrong-type", message)
        .at(value.span, format!("this is {}", value.describe()));
    let first = value.items().and_then(<[Node]>::first);
    let first = first.filter(|first| first.scalar().is_some_and(|scalar| !scalar.secret));
    match first.and_then(Node::as_text) {
        Some(first) if section != "vars" => {
            diagnostic.help(format!("write `{first}:` instead of `- {first}`"))
        }
        _ => diagnostic,
    }
}
