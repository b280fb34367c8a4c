//! The rules, by what they are about.

mod commands;
mod comments;
mod compiler;
mod conditions;
mod facts;
mod order;
mod packages;
mod permissions;
mod secrets;
mod services;
mod shell;
mod unused;
mod variables;

use super::Rule;
use crate::lang::yaml::{Node, Resolved};

/// All rules, in the order of the book.
pub static RULES: &[&Rule] = &[
    &commands::COMMAND_WITHOUT_GUARD,
    &commands::COMMAND_WHERE_KIND,
    &commands::SUDO_IN_COMMAND,
    &commands::GUARD_THAT_CHANGES,
    &secrets::PLAIN_SECRET,
    &secrets::READABLE_SECRET,
    &permissions::ODD_MODE,
    &permissions::WORLD_WRITABLE,
    &permissions::UNVALIDATED_FILE,
    &packages::UNPINNED_PACKAGE,
    &packages::LATEST_PACKAGE,
    &services::UNWATCHED_SERVICE,
    &services::RESTART_WHERE_RELOAD,
    &services::REACTION_OF_STOPPED,
    &order::REVERSED_ORDER,
    &unused::UNUSED_VARIABLE,
    &variables::MISSPELT_VARIABLE,
    &variables::UNKNOWN_FACT,
    &variables::FOREIGN_FACT,
    &facts::FACT_COMPARISON,
    &variables::WORD_FOR_BOOLEAN,
    &conditions::BRACES_IN_WHEN,
    &conditions::CONSTANT_WHEN,
    &conditions::IGNORED_ERRORS,
    &compiler::BOOLEAN_WORD,
    &compiler::NO_BECOME,
    &compiler::RESERVED_NAME,
    &comments::UNUSED_ALLOW,
    &comments::UNKNOWN_RULE,
];

/// Whether a text has templates in it.
fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// The text of a scalar that is there as it will be: no template, no tag.
fn literal(node: &Node) -> Option<&str> {
    let scalar = node.scalar()?;
    let plain = scalar.tag.as_deref().is_none_or(|tag| tag == "str") && !is_template(&scalar.text);
    (plain && !node.is_null()).then_some(&*scalar.text)
}

/// Whether a value is `true` as it stands there.
fn is_true(node: &Node) -> bool {
    node.scalar().is_some_and(|scalar| scalar.resolve() == Resolved::Boolean(true))
}
