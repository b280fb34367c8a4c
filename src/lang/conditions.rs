use serde_json::Value;

use super::arguments::{Reading, Secrets, Taken, is_template, wrong_type};
use super::fault::UNDEFINED;
use super::scope::{Evaluated, Scope, Truth};
use super::taint;
use super::yaml::{Kind, Node, Resolved};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::kind::Shape;

/// Whether conditions hold.
pub(super) enum Holds {
    /// They do.
    Yes,
    /// The condition, as written, that does not.
    No(String),
    /// That needs facts, or a condition is wrong, which was said.
    Unknown,
}

/// The items of a loop as an array.
pub(super) fn items_of(
    scope: &Scope,
    lenient: bool,
    node: &Node,
    diagnostics: &mut Diagnostics,
) -> Taken {
    let mut reading = Reading::new(scope, lenient, diagnostics);
    reading.secrets = Secrets::Kept;
    let value = match &node.kind {
        Kind::Sequence(_) => return reading.take("loop", &Shape::List(&Shape::Any), node),
        Kind::Scalar(scalar) if !is_template(scalar) && !node.is_null() && !lenient => {
            match scope.expression(node) {
                Ok(Evaluated::Known(value)) => Taken::Known(value),
                Ok(Evaluated::Unknown) => Taken::Unknown,
                Err(diagnostic) => {
                    reading.diagnostics.push(diagnostic);
                    Taken::Refused
                }
            }
        }
        Kind::Scalar(scalar) if is_template(scalar) => reading.evaluate(node),
        Kind::Scalar(_) if lenient => Taken::Unknown,
        _ => Taken::Known(Value::Null),
    };
    let value = match value {
        // A list that is secret as a whole has secret items.
        Taken::Known(value) => {
            Taken::Known(match taint::secret(&value).map(|secret| secret.value) {
                Some(Value::Array(items)) => items.iter().cloned().map(taint::hide).collect(),
                Some(plain) => plain.clone(),
                None => value,
            })
        }
        other => other,
    };
    match value {
        Taken::Known(Value::Array(values)) => Taken::Known(Value::Array(values)),
        Taken::Known(value) => {
            let found = match (&node.kind, &value) {
                (Kind::Mapping(_), _) | (_, Value::Object(_)) => "a mapping",
                (_, Value::Null) => "nothing",
                (_, Value::String(_)) => "a string",
                (_, Value::Bool(_)) => "a boolean",
                _ => "a number",
            };
            let list = Shape::List(&Shape::Any);
            let diagnostic = wrong_type("loop", &list, found, node.span);
            reading.diagnostics.push(match found {
                "a mapping" => diagnostic.help("`| dict2items` makes a list of a mapping"),
                _ => diagnostic,
            });
            Taken::Refused
        }
        other => other,
    }
}

/// Evaluates `when`. A condition that is wrong is said, and counts as unknown.
pub(super) fn conditions(
    scope: &Scope,
    when: Option<&Node>,
    diagnostics: &mut Diagnostics,
) -> Holds {
    let Some(when) = when else { return Holds::Yes };
    let mut holds = Holds::Yes;
    for condition in when.items().unwrap_or(std::slice::from_ref(when)) {
        let Some(scalar) = condition.scalar() else {
            let message = format!("`when` takes an expression, not {}", condition.describe());
            diagnostics.push(Diagnostic::error("wrong-type", message).at(condition.span, ""));
            holds = Holds::Unknown;
            continue;
        };
        let truth = match scalar.resolve() {
            Resolved::Boolean(true) => Ok(Truth::True),
            Resolved::Boolean(false) => Ok(Truth::False),
            _ => scope.condition(condition),
        };
        match truth {
            Ok(Truth::True) => {}
            Ok(Truth::False) => return Holds::No(scalar.text.to_string()),
            Ok(Truth::Unknown) => holds = Holds::Unknown,
            // What is not known yet may be what guards this one.
            Err(diagnostic) if diagnostic.code == UNDEFINED && matches!(holds, Holds::Unknown) => {}
            Err(diagnostic) => {
                diagnostics.push(diagnostic);
                holds = Holds::Unknown;
            }
        }
    }
    holds
}

/// Whether a name can be used in expressions.
pub(super) fn is_variable(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && characters.all(|one| one.is_alphanumeric() || one == '_')
}
