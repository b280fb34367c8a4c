use std::collections::{BTreeSet, HashMap};

use crate::diagnostic::{Diagnostic, distance, nearest};
use crate::lang::yaml::{Kind, Node, Style};
use crate::lint::names::Used;
use crate::lint::rule::Check;
use crate::lint::{Level, Rule, Whole};

pub(super) static MISSPELT_VARIABLE: Rule = Rule {
    name: "misspelt-variable",
    summary: "A variable that nothing here defines, and whose name differs by one letter from one that is defined",
    why: "Without an inventory, any name may be a variable of the hosts. One that nearly has the name of another is more \
          likely misspelt. With `-i`, a name that nothing defines is an error.",
    instead: "Write the name that is defined.",
    level: Level::Warn,
    wrong: "hosts: web\nvars: { greeting: Welcome }\nstates:\n  - file: /etc/motd\n    content: \"{{ greting }} and {{ greeting }}\"\n",
    right: "hosts: web\nvars: { greeting: Welcome }\nstates:\n  - file: /etc/motd\n    content: \"{{ greeting }}\"\n",
    check: Check::Whole(misspelt),
};

/// Names shorter than this are too near to each other.
const SHORTEST: usize = 4;

fn misspelt(whole: &Whole<'_>, found: &mut Vec<Diagnostic>) {
    if whole.subject.inventory {
        return;
    }
    let defined = defined(whole);
    let mut meant: HashMap<&str, Option<&str>> = HashMap::new();
    for used in &whole.used {
        let name = used.parts[0].as_str();
        if name.chars().count() < SHORTEST || defined.contains(name) || KNOWN.contains(&name) {
            continue;
        }
        let near = meant.entry(name).or_insert_with(|| {
            defined.iter().chain(&KNOWN[..]).copied().find(|other| is_slip(name, other))
        });
        if let Some(near) = near {
            let message = format!("nothing here defines `{name}`");
            found.push(
                Diagnostic::warning(MISSPELT_VARIABLE.name, message)
                    .at(used.root, format!("did you mean `{near}`?")),
            );
        }
    }
}

/// Whether one of two names is the other with a slip of the hand: one letter. A plural is none.
fn is_slip(name: &str, other: &str) -> bool {
    let plural = |one: &str, other: &str| one.strip_suffix('s') == Some(other);
    let number = |name: &str| name.ends_with(|last: char| last.is_ascii_digit());
    // `server1` and `server2` are two.
    let apart = plural(name, other) || plural(other, name) || number(name) || number(other);
    distance(name, other) == 1 && !apart
}

/// Names that converge itself gives a meaning.
const KNOWN: [&str; 16] = [
    "ansible_facts",
    "ansible_play_hosts",
    "dict",
    "facts",
    "group_names",
    "groups",
    "host",
    "hostvars",
    "inventory_hostname",
    "inventory_hostname_short",
    "lookup",
    "namespace",
    "omit",
    "play_hosts",
    "query",
    "range",
];

fn defined<'a>(whole: &Whole<'a>) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for play in &whole.subject.program.plays {
        for (_, layer) in play.definitions() {
            names.extend(layer.variables.keys().map(|name| &**name));
        }
        names.extend(play.local_names());
    }
    names
}

pub(super) static UNKNOWN_FACT: Rule = Rule {
    name: "unknown-fact",
    summary: "A fact that no host has",
    why: "Facts arrive with the connection, so a run sees only then that one is missing, on every host.",
    instead: "Use one of the facts that there are; the page on state files lists them.",
    level: Level::Warn,
    wrong: "- package: nginx\n  when: facts.os.familly == 'debian'\n",
    right: "- package: nginx\n  when: facts.os.family == 'debian'\n",
    check: Check::Whole(unknown_fact),
};

/// All facts; those below `mounts` and `interfaces` are the host's.
const FACTS: [&str; 14] = [
    "arch",
    "cpus",
    "fqdn",
    "hostname",
    "init",
    "interfaces",
    "ipv4",
    "ipv6",
    "kernel",
    "machine_id",
    "memory_mb",
    "mounts",
    "os",
    "reboot_required",
];

fn unknown_fact(whole: &Whole<'_>, found: &mut Vec<Diagnostic>) {
    let plays = &whole.subject.program.plays;
    let own: Vec<&str> = plays.iter().flat_map(|play| play.fact_names()).collect();
    for used in &whole.used {
        if !matches!(used.parts[0].as_str(), "facts" | "ansible_facts") {
            continue;
        }
        let parts: Vec<&str> = used.parts[1..].iter().map(String::as_str).collect();
        if parts.first().is_some_and(|name| own.contains(name)) {
            continue;
        }
        let Some((path, known)) = missing(&parts) else { continue };
        let own = if path.contains('.') { &[][..] } else { &own[..] };
        let known: Vec<&str> = known.iter().chain(own).copied().collect();
        let diagnostic =
            Diagnostic::warning(UNKNOWN_FACT.name, format!("there is no fact `{path}`"));
        let last = path.rsplit('.').next().unwrap_or_default();
        let foreign = FOREIGN.iter().find(|(name, _)| name.strip_prefix("ansible_") == Some(last));
        found.push(match (foreign, nearest(last, known.iter().copied())) {
            (Some((_, instead)), _) if parts.len() == 1 || !path.contains('.') => {
                diagnostic.at(used.span, format!("did you mean `{instead}`?"))
            }
            (_, Some(near)) => diagnostic.at(used.span, format!("did you mean `{near}`?")),
            (_, None) => {
                let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
                diagnostic.at(used.span, "").help(format!("there are {}", known.join(", ")))
            }
        });
    }
}

/// The first part of a path of facts that is not there, with all before it, and what there is beside
/// it.
fn missing(parts: &[&str]) -> Option<(String, &'static [&'static str])> {
    let (first, rest) = parts.split_first()?;
    if !FACTS.contains(first) {
        return Some(((*first).to_owned(), &FACTS));
    }
    let levels: &[&'static [&'static str]] = match *first {
        "os" => &[&["codename", "family", "id", "version"]],
        "ipv4" | "ipv6" => &[&["default"], &["address", "gateway", "interface"]],
        _ => &[],
    };
    for (depth, (part, known)) in rest.iter().zip(levels).enumerate() {
        if !known.contains(part) {
            return Some((parts[..depth + 2].join("."), known));
        }
    }
    None
}

pub(super) static FOREIGN_FACT: Rule = Rule {
    name: "foreign-fact",
    summary: "A variable that Ansible has, and converge has under another name",
    why: "Ansible gives facts names of their own beside `ansible_facts`. Here they are below `facts`; without an inventory \
          the name is taken for a variable of the hosts, with one it is an error.",
    instead: "Use the fact that the message names.",
    level: Level::Warn,
    wrong: "- package: nginx\n  when: ansible_os_family == 'Debian'\n",
    right: "- package: nginx\n  when: facts.os.family == 'debian'\n",
    check: Check::Whole(foreign_fact),
};

/// Ansible's names for facts, and ours.
const FOREIGN: [(&str, &str); 19] = [
    ("ansible_architecture", "facts.arch"),
    ("ansible_default_ipv4", "facts.ipv4.default"),
    ("ansible_default_ipv6", "facts.ipv6.default"),
    ("ansible_distribution", "facts.os.id"),
    ("ansible_distribution_major_version", "facts.os.version"),
    ("ansible_distribution_release", "facts.os.codename"),
    ("ansible_distribution_version", "facts.os.version"),
    ("ansible_fqdn", "facts.fqdn"),
    ("ansible_hostname", "facts.hostname"),
    ("ansible_interfaces", "facts.interfaces"),
    ("ansible_kernel", "facts.kernel"),
    ("ansible_machine", "facts.arch"),
    ("ansible_machine_id", "facts.machine_id"),
    ("ansible_memtotal_mb", "facts.memory_mb"),
    ("ansible_mounts", "facts.mounts"),
    ("ansible_nodename", "facts.hostname"),
    ("ansible_os_family", "facts.os.family"),
    ("ansible_processor_vcpus", "facts.cpus"),
    ("ansible_service_mgr", "facts.init"),
];

fn foreign_fact(whole: &Whole<'_>, found: &mut Vec<Diagnostic>) {
    if whole.subject.inventory {
        return;
    }
    let defined = defined(whole);
    for Used { parts, root, .. } in &whole.used {
        let name = parts[0].as_str();
        let Some((_, instead)) = FOREIGN.iter().find(|(foreign, _)| *foreign == name) else {
            continue;
        };
        if !defined.contains(name) {
            let message = format!("`{name}` is a name of Ansible's");
            found.push(
                Diagnostic::warning(FOREIGN_FACT.name, message)
                    .at(*root, format!("here it is `{instead}`")),
            );
        }
    }
}

pub(super) static WORD_FOR_BOOLEAN: Rule = Rule {
    name: "word-for-boolean",
    summary: "A variable whose value is a bare `yes`, `no`, `on` or `off`",
    why: "By YAML 1.2 that is a text, and a text that is not empty counts as true in a template: with `tls: no`, \
          `{% if tls %}` holds.",
    instead: "Write `true` or `false`, or quote the text if it is meant.",
    level: Level::Warn,
    wrong: "hosts: web\nvars: { tls: no }\nstates:\n  - package: certbot\n    when: tls\n",
    right: "hosts: web\nvars: { tls: false }\nstates:\n  - package: certbot\n    when: tls\n",
    check: Check::Whole(word),
};

fn word(whole: &Whole<'_>, found: &mut Vec<Diagnostic>) {
    for play in &whole.subject.program.plays {
        for (_, layer) in play.definitions() {
            layer.variables.values().for_each(|node| words_in(node, found));
        }
    }
}

fn words_in(node: &Node, found: &mut Vec<Diagnostic>) {
    match &node.kind {
        Kind::Sequence(items) => items.iter().for_each(|item| words_in(item, found)),
        Kind::Mapping(entries) => entries.iter().for_each(|(_, value)| words_in(value, found)),
        Kind::Scalar(scalar) => {
            let text = &*scalar.text;
            let boolean = match text.to_ascii_lowercase().as_str() {
                "yes" | "on" => "true",
                "no" | "off" => "false",
                _ => return,
            };
            if scalar.style == Style::Plain && scalar.tag.is_none() {
                let message = format!("`{text}` is a text, which counts as true in a template");
                found.push(
                    Diagnostic::warning(WORD_FOR_BOOLEAN.name, message).at(
                        node.span,
                        format!("write `{boolean}`, or `\"{text}\"` if it is a text"),
                    ),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_a_path_that_is_missing_is_found() {
        let cases = [
            (vec!["os", "family"], None),
            (vec!["os", "familly", "x"], Some("os.familly")),
            (vec!["distribution"], Some("distribution")),
            (vec!["ipv4", "default", "adress"], Some("ipv4.default.adress")),
            (vec!["interfaces", "eth0", "mac"], None),
            (vec![], None),
        ];
        for (parts, expected) in cases {
            assert_eq!(missing(&parts).map(|(path, _)| path).as_deref(), expected, "{parts:?}");
        }
    }

    #[test]
    fn these_are_the_facts_that_agents_gather() {
        let facts = crate::world::facts::gather(std::path::Path::new("/"));
        let names: BTreeSet<&str> = facts.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, BTreeSet::from(FACTS));
        let os: Vec<&str> = facts["os"].as_object().unwrap().keys().map(String::as_str).collect();
        assert!(os.iter().all(|name| missing(&["os", name]).is_none()), "{os:?}");
        for family in ["ipv4", "ipv6"] {
            let default = facts[family]["default"].as_object().unwrap();
            assert!(default.keys().all(|name| missing(&[family, "default", name]).is_none()));
        }
    }
}
