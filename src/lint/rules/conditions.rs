use super::is_true;
use crate::diagnostic::Diagnostic;
use crate::lang::State;
use crate::lang::yaml::{Node, Resolved};
use crate::lint::names::insides;
use crate::lint::rule::Check;
use crate::lint::{Level, Rule, Whole};

pub(super) static BRACES_IN_WHEN: Rule = Rule {
    name: "braces-in-when",
    summary: "Braces in a `when`",
    why: "A condition is an expression already. In braces, the text that it gives is taken for the condition's value, which \
          is not always the same.",
    instead: "Leave the braces and their quotes out.",
    level: Level::Warn,
    wrong: "- package: nginx\n  when: \"{{ facts.os.family == 'debian' }}\"\n",
    right: "- package: nginx\n  when: facts.os.family == 'debian'\n",
    check: Check::Whole(braces),
};

fn conditions<'a>(whole: &Whole<'a>) -> impl Iterator<Item = &'a Node> {
    whole.subject.program.plays.iter().flat_map(|play| play.conditions())
}

fn braces(whole: &Whole<'_>, found: &mut Vec<Diagnostic>) {
    for node in conditions(whole) {
        let Some(text) = node.as_text() else { continue };
        let Some((inside, false)) = insides(text).into_iter().next() else { continue };
        let message = "a condition is an expression already";
        let diagnostic = Diagnostic::warning(BRACES_IN_WHEN.name, message).at(node.span, "");
        let alone = text[..inside.start].trim() == "{{" && text[inside.end..].trim() == "}}";
        found.push(if alone {
            diagnostic.help(format!("write it without braces: `when: {}`", text[inside].trim()))
        } else {
            diagnostic.help("write it without braces")
        });
    }
}

pub(super) static CONSTANT_WHEN: Rule = Rule {
    name: "constant-when",
    summary: "A `when` that is always true, or always false",
    why: "It decides nothing: it is left over from an experiment, or something else was meant.",
    instead: "Take the `when` away, or the state. One that is run on demand has the tag `never`.",
    level: Level::Warn,
    wrong: "- package: nginx\n  when: false\n",
    right: "- package: nginx\n  tags: [never, web-server]\n",
    check: Check::Whole(constant),
};

fn constant(whole: &Whole<'_>, found: &mut Vec<Diagnostic>) {
    for node in conditions(whole) {
        let Some(scalar) = node.scalar() else { continue };
        let truth = match scalar.resolve() {
            Resolved::Boolean(truth) => truth,
            Resolved::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => true,
                "false" | "no" | "off" => false,
                _ => continue,
            },
            _ => continue,
        };
        let message = format!("this condition is always {truth}");
        found.push(Diagnostic::warning(CONSTANT_WHEN.name, message).at(node.span, ""));
    }
}

pub(super) static IGNORED_ERRORS: Rule = Rule {
    name: "ignored-errors",
    summary: "`ignore_errors: true`",
    why: "A failure that is expected and one that is not look alike: what comes later goes on as if the state held.",
    instead: "Say what is expected: `ok_codes` of a `command`, a guard, `retry` for what fails now and then, `onfail` for \
              what has to be done then.",
    level: Level::Warn,
    wrong: "- command: /srv/shop/manage clear-cache\n  onchanges: tree:/srv/shop/app\n  ignore_errors: true\n\
            - tree: /srv/shop/app\n  source: app\n",
    right: "- command: /srv/shop/manage clear-cache\n  onchanges: tree:/srv/shop/app\n  ok_codes: [0, 3]\n\
            - tree: /srv/shop/app\n  source: app\n",
    check: Check::State(ignored),
};

fn ignored(state: &State, found: &mut Vec<Diagnostic>) {
    if let Some(node) = state.common("ignore_errors").filter(|node| is_true(node)) {
        let message = "whatever goes wrong here is ignored";
        found.push(
            Diagnostic::warning(IGNORED_ERRORS.name, message)
                .at(node.span, "")
                .help("say what is expected: `ok_codes`, a guard, `retry` or `onfail`"),
        );
    }
}
