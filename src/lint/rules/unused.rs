use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::{Diagnostic, Sources, Span};
use crate::lang::Definition;
use crate::lint::names::insides;
use crate::lint::rule::Check;
use crate::lint::{Level, Rule, Whole};

pub(super) static UNUSED_VARIABLE: Rule = Rule {
    name: "unused-variable",
    summary: "A variable of `vars` or `defaults` that nothing uses",
    why: "Whoever changes it expects that something happens. Mostly it is left over, or is used under another name.",
    instead: "Take it away, or use it. A name counts as used if it stands anywhere in the state file, in what it includes, in \
              the templates beside it or in the inventory, as anything but a key.",
    level: Level::Warn,
    wrong: "hosts: web\ndefaults: { port: 80, workers: 4 }\nstates:\n  - wait_for: the site\n    port: \"{{ port }}\"\n",
    right: "hosts: web\ndefaults: { port: 80 }\nstates:\n  - wait_for: the site\n    port: \"{{ port }}\"\n",
    check: Check::Whole(unused),
};

fn unused(whole: &Whole<'_>, found: &mut Vec<Diagnostic>) {
    let mut defined: BTreeMap<&str, Span> = BTreeMap::new();
    for play in &whole.subject.program.plays {
        for (definition, layer) in play.definitions() {
            if definition == Definition::File {
                continue;
            }
            for (name, node) in &layer.variables {
                defined.entry(name).or_insert(node.span);
            }
        }
    }
    if defined.is_empty() {
        return;
    }
    let mut used = BTreeSet::new();
    for source in whole.sources.ids() {
        if !add_words(&whole.sources.text(source), &mut used) {
            return;
        }
    }
    for text in &whole.subject.beside {
        if !add_words(text, &mut used) {
            return;
        }
    }
    for (name, span) in defined {
        if !used.contains(name) {
            let message = format!("nothing uses the variable `{name}`");
            let place = key_of(whole.sources, name, span);
            found.push(Diagnostic::warning(UNUSED_VARIABLE.name, message).at(place, ""));
        }
    }
}

/// Adds the words of a text that may be uses of variables: all but keys of mappings. `false` if the
/// text gets at variables by names that it computes.
fn add_words(text: &str, used: &mut BTreeSet<String>) -> bool {
    let expressions: Vec<_> = insides(text).into_iter().map(|(inside, _)| inside).collect();
    for inside in &expressions {
        let inside = &text[inside.clone()];
        let looks_up = ["'vars'", "\"vars\"", "builtin.vars", " vars[", "vars ["];
        if looks_up.iter().any(|word| inside.contains(word)) {
            return false;
        }
    }
    let mut next = expressions.iter().peekable();
    let mut start = None;
    for (at, one) in text.char_indices().chain([(text.len(), ' ')]) {
        let is_word = one.is_alphanumeric() || one == '_';
        match start {
            None if is_word => start = Some(at),
            Some(from) if !is_word => {
                start = None;
                while next.next_if(|inside| inside.end <= from).is_some() {}
                let inside = next.peek().is_some_and(|inside| inside.contains(&from));
                let is_key = || text[at..].trim_start_matches(['"', '\'', ' ']).starts_with(':');
                if inside || !is_key() {
                    used.insert(text[from..at].to_owned());
                }
            }
            _ => {}
        }
    }
    true
}

/// The place of the name before a value; of the value where that is not found.
fn key_of(sources: &Sources, name: &str, value: Span) -> Span {
    let text = sources.text(value.source);
    let before = text.get(..value.start as usize).unwrap_or_default();
    match before.rfind(name) {
        Some(at)
            if before[at + name.len()..].trim_matches([' ', '\n', '"', '\'', ':']).is_empty() =>
        {
            Span::new(value.source, at, at + name.len())
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_no_uses_and_all_else_is() {
        let mut used = BTreeSet::new();
        let text =
            "a: 1\n\"b\": \"{{ c }}\"\nd: {e: f}\nwhen: g == 1\nh: \"{{ {'x': 1, y: i} }}\"\n";
        assert!(add_words(text, &mut used));
        let names: Vec<&str> = used.iter().map(String::as_str).collect();
        assert_eq!(names, ["1", "c", "f", "g", "i", "x", "y"]);
        assert!(!add_words("{{ lookup('vars', 'a' ~ b) }}", &mut used));
    }
}
