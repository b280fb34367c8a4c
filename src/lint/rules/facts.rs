use crate::diagnostic::Diagnostic;
use crate::lint::names::Used;
use crate::lint::rule::Check;
use crate::lint::{Level, Rule, Whole};

pub(super) static FACT_COMPARISON: Rule = Rule {
    name: "fact-comparison",
    summary: "A fact that is compared with what it never is",
    why: "`facts.os.version` is a text, and a text compared with a number has the same answer on all hosts. \
          Names of systems and machines are in small letters: nothing with a capital in it is equal.",
    instead: "Compare versions with `is version('12', '>=')`, and write the name in small letters.",
    level: Level::Warn,
    wrong: "- package: nginx\n  when: facts.os.version >= 12\n",
    right: "- package: nginx\n  when: facts.os.version is version('12', '>=')\n",
    check: Check::Whole(compared),
};

/// Facts that are texts.
const TEXTS: [&str; 8] =
    ["arch", "fqdn", "hostname", "init", "kernel", "os.codename", "os.id", "os.version"];
/// Facts that have no capital in them.
const SMALL: [&str; 5] = ["arch", "init", "os.codename", "os.family", "os.id"];

fn compared(whole: &Whole<'_>, found: &mut Vec<Diagnostic>) {
    for Used { parts, span, .. } in &whole.used {
        if !matches!(parts[0].as_str(), "facts" | "ansible_facts") {
            continue;
        }
        let fact = parts[1..].join(".");
        let text = whole.sources.text(span.source);
        let Some(rest) = text.get(span.end as usize..) else { continue };
        let Some((operator, operand)) = operator(rest.trim_start_matches(' ')) else { continue };
        let equality = matches!(operator, "==" | "!=");
        if !equality && TEXTS.contains(&fact.as_str()) {
            let end = operand.find(|one: char| !one.is_ascii_digit() && one != '.');
            let number = &operand[..end.unwrap_or(operand.len())];
            if number.starts_with(|one: char| one.is_ascii_digit()) {
                let message = format!("`{fact}` is a text, which is compared with a number");
                found.push(Diagnostic::warning(FACT_COMPARISON.name, message).at(*span, "").help(
                    format!("write `is version('{number}', '{operator}')`, or `| int` behind it"),
                ));
            }
        } else if equality && SMALL.contains(&fact.as_str()) {
            let quote = operand.chars().next().filter(|quote| matches!(quote, '\'' | '"'));
            let literal = quote.and_then(|quote| operand[1..].split(quote).next());
            let Some(literal) = literal else { continue };
            if literal.contains(char::is_uppercase) {
                let small = literal.to_lowercase();
                let message = format!("`{fact}` is never `{literal}`: it is in small letters");
                found.push(
                    Diagnostic::warning(FACT_COMPARISON.name, message)
                        .at(*span, format!("compare it with `{small}`")),
                );
            }
        }
    }
}

/// The comparison that a text begins with, and what comes after it.
fn operator(text: &str) -> Option<(&'static str, &str)> {
    let operators = ["==", "!=", "<=", ">=", "<", ">"];
    let operator = operators.into_iter().find(|operator| text.starts_with(operator))?;
    Some((operator, text[operator.len()..].trim_start_matches(' ')))
}
