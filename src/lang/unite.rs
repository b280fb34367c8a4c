use std::collections::HashMap;

use serde_json::{Map, Value};

use super::declaration::{Common, Declaration, Reference, Skipped, Used};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::resource::ResourceId;

/// A declaration with the arguments that it was made from.
pub(super) struct Built {
    /// The declaration.
    pub declaration: Declaration,
    /// As its kind's struct takes them, without the bulk of contents.
    pub arguments: Map<String, Value>,
}

impl Built {
    /// Whether it is known to apply, tags apart.
    fn applies(&self) -> bool {
        matches!(self.declaration.skipped, None | Some(Skipped::Tags))
    }
}

/// Makes one of declarations that are equal, and says which differ although they are of one thing.
///
/// One whose `when` is false gives way to one that applies; nothing is said of those. Their `id`s
/// come beside: a reference to one of them is satisfied.
pub(super) fn unite(built: Vec<Built>, diagnostics: &mut Diagnostics) -> (Vec<Built>, Vec<String>) {
    let mut united: Vec<Option<Built>> = Vec::with_capacity(built.len());
    let mut places: HashMap<ResourceId, usize> = HashMap::with_capacity(built.len());
    let mut hidden = Vec::new();
    for one in built {
        let place = places.entry(one.declaration.id.clone()).or_insert(united.len());
        let Some(slot) = united.get_mut(*place) else {
            united.push(Some(one));
            continue;
        };
        match slot {
            Some(first) if first.applies() && one.applies() => {
                let differences = differences(first, &one);
                if differences.is_empty() {
                    join(&mut first.declaration, one.declaration);
                } else {
                    diagnostics.push(declared_twice(first, &one, &differences));
                }
            }
            // It comes at the place that it has in the source.
            Some(first) if one.applies() => {
                hidden.extend(first.declaration.alias.take());
                hidden.extend(names_of_uses(std::mem::take(&mut first.declaration.used)));
                *slot = None;
                *place = united.len();
                united.push(Some(one));
            }
            _ => {
                hidden.extend(one.declaration.alias);
                hidden.extend(names_of_uses(one.declaration.used));
            }
        }
    }
    (united.into_iter().flatten().collect(), hidden)
}

/// What the states of composite kinds are called that a declaration is inside of.
fn names_of_uses(used: Vec<Used>) -> impl Iterator<Item = String> {
    used.into_iter().flat_map(|used| std::iter::once(used.name).chain(used.alias))
}

/// The names of all that differs; nothing where one of them is not known, or is wrong anyway.
fn differences(first: &Built, second: &Built) -> Vec<String> {
    let mut names = Vec::new();
    let (one, other) = (&first.declaration, &second.declaration);
    if let (Some(left), Some(right)) = (&one.declared, &other.declared)
        && left != right
    {
        let keys = first.arguments.keys().chain(second.arguments.keys());
        for key in keys {
            if first.arguments.get(key) != second.arguments.get(key) && !names.contains(key) {
                names.push(key.clone());
            }
        }
        if names.is_empty() {
            names.push("source".to_owned());
        }
    }
    let (left, right) = (&one.common, &other.common);
    let common = [
        ("become_user", left.become_user != right.become_user),
        ("unless", left.unless != right.unless),
        ("onlyif", left.onlyif != right.onlyif),
        ("environment", left.environment != right.environment),
        ("environment_file", left.environment_file != right.environment_file),
        ("retry", left.retry != right.retry),
        ("timeout", left.timeout != right.timeout),
        ("ignore_errors", left.ignore_errors != right.ignore_errors),
        ("confirm_connection", left.confirm_connection != right.confirm_connection),
        ("sensitive", left.sensitive != right.sensitive),
        ("id", one.alias.is_some() && other.alias.is_some() && one.alias != other.alias),
    ];
    names.extend(common.iter().filter(|(_, differs)| *differs).map(|(name, _)| (*name).to_owned()));
    names
}

fn declared_twice(first: &Built, second: &Built, differences: &[String]) -> Diagnostic {
    let names: Vec<_> = differences.iter().map(|name| format!("`{name}`")).collect();
    let message = format!("`{}` is declared twice, differently", second.declaration.id);
    let mut diagnostic = Diagnostic::error("declared-twice", message)
        .at(second.declaration.key_span, format!("they differ in {}", names.join(", ")));
    for used in second.declaration.used.iter().rev() {
        diagnostic = diagnostic.at(used.span, "used here");
    }
    diagnostic = diagnostic.at(first.declaration.key_span, "first here");
    for used in first.declaration.used.iter().rev() {
        diagnostic = diagnostic.at(used.span, "first used here");
    }
    diagnostic
}

/// Joins an equal declaration into the first: their requisites and labels unite, and it is selected
/// if either is.
fn join(first: &mut Declaration, second: Declaration) {
    let Common { require, onchanges, onfail, watch, restart_on, tags, mask, .. } = second.common;
    let common = &mut first.common;
    common.mask.add(&mask);
    add(&mut common.require, require);
    add(&mut common.onchanges, onchanges);
    add(&mut common.onfail, onfail);
    add(&mut common.watch, watch);
    add(&mut common.restart_on, restart_on);
    common.tags.extend(tags);
    common.tags.sort();
    common.tags.dedup();
    if second.skipped.is_none() {
        first.skipped = None;
    }
    for used in second.used {
        if !first.used.contains(&used) {
            first.used.push(used);
        }
    }
    first.alias = first.alias.take().or(second.alias);
    first.label = first.label.take().or(second.label);
    first.declared = first.declared.take().or(second.declared);
}

fn add(references: &mut Vec<Reference>, more: Vec<Reference>) {
    for reference in more {
        if !references.iter().any(|known| known.text == reference.text) {
            references.push(reference);
        }
    }
}

/// What may stand at a path only by itself. A `tree` may fill a `directory`.
const WHOLE: [&str; 5] = ["file", "symlink", "directory", "tree", "environment_file"];

/// Says where one path is declared as different things, and where a file is written whole and
/// edited in parts: the two would undo each other.
pub(super) fn check_overlaps(built: &[Built], diagnostics: &mut Diagnostics) {
    let applying = || built.iter().filter(|one| one.applies());
    let mut whole: HashMap<&str, Vec<&Built>> = HashMap::new();
    for one in applying().filter(|one| WHOLE.contains(&one.declaration.spec.name)) {
        let others = whole.entry(one.declaration.key.as_str()).or_default();
        if let Some(other) = others.iter().find(|other| !go_together(one, other)) {
            let (kind, path) = (one.declaration.spec.name, &one.declaration.key);
            let message =
                format!("{path} cannot be a `{kind}` and a `{}`", other.declaration.spec.name);
            diagnostics.push(
                Diagnostic::error("declared-twice", message)
                    .at(one.declaration.key_span, "")
                    .at(other.declaration.key_span, "first here"),
            );
        }
        others.push(one);
    }
    for edit in applying() {
        let kind = edit.declaration.spec.name;
        if !["line_in_file", "block_in_file", "ini"].contains(&kind) {
            continue;
        }
        let written = whole.get(edit.declaration.key.as_str()).into_iter().flatten().find(|one| {
            let kind = one.declaration.spec.name;
            let replaces = one.arguments.get("replace") != Some(&Value::Bool(false));
            (kind == "file" && replaces) || kind == "environment_file"
        });
        if let Some(file) = written {
            let (path, writer) = (&edit.declaration.key, file.declaration.spec.name);
            let help = match writer {
                "file" => "give the `file` `replace: false`, or put this into its content",
                _ => "put this into its `variables`",
            };
            let article = if writer == "file" { "a" } else { "an" };
            let message = format!("`{kind}` edits {path}, which {article} `{writer}` writes whole");
            diagnostics.push(
                Diagnostic::error("edited-and-written", message)
                    .at(edit.declaration.key_span, "edited here")
                    .at(file.declaration.key_span, "written here")
                    .help(help),
            );
        }
    }
}

/// Whether two declarations of one path do not contradict each other.
fn go_together(one: &Built, other: &Built) -> bool {
    let kinds = [one.declaration.spec.name, other.declaration.spec.name];
    let absent = |one: &Built| one.arguments.get("state").is_some_and(|state| state == "absent");
    let both = ["directory", "tree"].iter().all(|kind| kinds.contains(kind));
    kinds[0] == kinds[1]
        || (both && !absent(one) && !absent(other))
        || (absent(one) && absent(other))
}

/// Says where different states have one `id`. A state that stands for several gives it to all.
pub(super) fn check_aliases(built: &[Built], diagnostics: &mut Diagnostics) {
    // A state of a composite kind gives its `id` to all inside.
    let mut uses: HashMap<&str, Span> = HashMap::new();
    for used in built.iter().filter(|one| one.applies()).flat_map(|one| &one.declaration.used) {
        let Some(alias) = &used.alias else { continue };
        let first = *uses.entry(alias).or_insert(used.span);
        if first != used.span {
            diagnostics.push(same_alias(alias, used.span, first));
        }
    }
    let mut named: HashMap<&str, &Declaration> = HashMap::new();
    for declaration in built.iter().filter(|one| one.applies()).map(|one| &one.declaration) {
        let Some(alias) = &declaration.alias else { continue };
        if let Some(first) = uses.get(alias.as_str()) {
            diagnostics.push(same_alias(alias, declaration.span, *first));
        }
        let first = named.entry(alias).or_insert(declaration);
        if first.span != declaration.span && first.id != declaration.id {
            diagnostics.push(same_alias(alias, declaration.span, first.span));
        }
    }
}

fn same_alias(alias: &str, second: Span, first: Span) -> Diagnostic {
    let message = format!("two states have the `id` `{alias}`");
    Diagnostic::error("declared-twice", message).at(second, "").at(first, "first here")
}
