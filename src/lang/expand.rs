//! States of composite kinds become the states that they stand for.

use std::sync::Arc;

use serde_json::Value;

use super::arguments::{Reading, Secrets, Taken, is_template, secret_argument};
use super::common_keys::{self, Inherited};
use super::compile::{Compiler, Context, Outer, Repeated};
use super::composite::{Composite, Parameter, Use, missing};
use super::declaration::{Skipped, Used};
use super::scope::{Argument, Scope};
use super::taint;
use super::value::watched;
use super::yaml::Node;
use crate::diagnostic::{Diagnostic, Diagnostics, nearest};

impl Compiler<'_> {
    pub(super) fn composite(&mut self, one: &Use, context: &Context) {
        let keys = &one.common;
        let repeated =
            self.repeated(keys.get("loop"), keys.get("loop_var"), keys.get("when"), context);
        match repeated {
            Repeated::Once => self.composite_once(one, &context.scope, context, None),
            Repeated::Each(scopes) => {
                if scopes.is_empty() {
                    self.none_used(one, context);
                }
                for scope in &scopes {
                    self.composite_once(one, scope, context, None);
                }
            }
            Repeated::Unknown(scope) => {
                self.unknown.insert(String::new());
                self.composite_once(one, &scope, context, Some(Skipped::Undecided));
            }
            Repeated::Wrong(_, said) => {
                self.diagnostics.extend(said);
                self.unknown.insert(String::new());
            }
        }
    }

    /// A state with its item, if it has a loop. `forced` says that the item is not known.
    fn composite_once(
        &mut self,
        one: &Use,
        scope: &Scope,
        context: &Context,
        forced: Option<Skipped>,
    ) {
        let composite = &one.composite;
        let skipped = self.skipped(one.common.get("when"), scope, context, forced);
        let left_out = matches!(skipped, Some(Skipped::When(_)));
        let lenient = left_out;
        let mut reading = Reading::new(scope, lenient, self.diagnostics);
        let mut common = common_keys::read(
            &one.common,
            &composite.name,
            &mut reading,
            &context.inherited,
            &context.tags,
        );
        if let Some(outer) = &context.outer {
            common.apply(&outer.common);
        }
        let label = one.common.get("name").and_then(|node| reading.text("name", node));
        let alias = one.common.get("id").and_then(|node| reading.text("id", node));
        common.mask.add(&std::mem::take(&mut reading.mask));
        let Some(key) = composite.key() else { return };
        // What is left out is known by its names where they evaluate; what is wrong with them does
        // not matter.
        let mut ignored = Diagnostics::default();
        let diagnostics = if left_out { &mut ignored } else { &mut *self.diagnostics };
        let mut reading = Reading::new(scope, false, diagnostics);
        let keys = key_values(composite, key, one, &mut reading);
        let given: Vec<Option<Argument>> = composite
            .parameters
            .iter()
            .enumerate()
            .map(|(index, parameter)| {
                let (_, node) = one.arguments.get(&index)?;
                let argument = take(parameter, node, &mut reading);
                if argument.is_none() && parameter.required {
                    reading.diagnostics.push(missing(composite, parameter, one.kind_span));
                }
                argument
            })
            .collect();
        let inherited = Arc::new(Inherited {
            becomes: common.become_user.is_some(),
            become_user: common
                .become_user
                .clone()
                .unwrap_or_else(|| context.inherited.become_user.clone()),
            login: context.inherited.login.clone(),
            environment: common.environment.iter().cloned().collect(),
            mask: common.mask.clone(),
        });
        let tags = common.tags.clone();
        let outer_label = context.outer.as_ref().and_then(|outer| outer.label.clone());
        let label = label.or(outer_label);
        for (text, argument) in keys {
            let mut used =
                context.outer.as_ref().map(|outer| outer.used.clone()).unwrap_or_default();
            used.push(Used {
                name: format!("{}:{text}", composite.name),
                alias: alias.clone(),
                span: one.kind_span,
            });
            if matches!(argument, Argument::Unknown) {
                self.unknown.insert(composite.name.clone());
            }
            // What is wrong inside is also wrong at the place of use.
            let before = std::mem::take(self.diagnostics);
            let inner = self.inner_scope(composite, scope, argument, &given, left_out);
            let outer = Outer { common: common.clone(), label: label.clone(), used };
            let inside = Context {
                scope: inner,
                tags: tags.clone(),
                skipped: skipped.clone(),
                inherited: Arc::clone(&inherited),
                outer: Some(Arc::new(outer)),
            };
            self.items(&composite.items, &inside);
            let said = std::mem::replace(self.diagnostics, before);
            self.diagnostics.extend(said.also_at(one.kind_span, "used here"));
        }
    }

    /// What names mean inside: the arguments come before everything else, and those that are not
    /// given are not defined.
    fn inner_scope(
        &mut self,
        composite: &Composite,
        scope: &Scope,
        key: Argument,
        given: &[Option<Argument>],
        left_out: bool,
    ) -> Scope {
        let none = |parameter: &Parameter| (parameter.name.clone(), Argument::None);
        let mut inner = scope.with_arguments(composite.parameters.iter().map(none).collect());
        for (parameter, given) in composite.parameters.iter().zip(given) {
            let argument = match (given, &parameter.default) {
                _ if parameter.key => key.clone(),
                (Some(given), _) => given.clone(),
                (None, Some(default)) => {
                    let scope = &inner;
                    let mut ignored = Diagnostics::default();
                    let diagnostics = if left_out { &mut ignored } else { &mut *self.diagnostics };
                    let mut reading = Reading::new(scope, false, diagnostics);
                    take(parameter, default, &mut reading).unwrap_or(Argument::None)
                }
                // That was said.
                (None, None) if parameter.required => Argument::Unknown,
                (None, None) => continue,
            };
            inner = inner.with_arguments(vec![(parameter.name.clone(), argument)]);
        }
        inner
    }
}

/// The keys of a use, each with how references name it: one, or several where a list stands.
fn key_values(
    composite: &Composite,
    key: &Parameter,
    one: &Use,
    reading: &mut Reading<'_>,
) -> Vec<(String, Argument)> {
    let node = &one.key;
    if let Some(items) = node.items() {
        let taken = items.iter().map(|item| (named(item), take(key, item, reading)));
        return taken.filter_map(|(name, taken)| Some(with_name(name, taken?))).collect();
    }
    if node.scalar().is_some_and(is_template) {
        let (taken, marks) = watched(|| reading.evaluate(node));
        if let Taken::Known(Value::Array(values)) = taken {
            return values
                .iter()
                .filter_map(|value| {
                    let taken = reading.take_value(&key.name, &key.shape, value, node.span);
                    let argument = checked(key, taken, marks.outside, node, reading)?;
                    Some(with_name(named(node), argument))
                })
                .collect();
        }
    }
    match take(key, node, reading) {
        Some(argument) => vec![with_name(named(node), argument)],
        None => {
            reading.diagnostics.push(missing(composite, key, one.kind_span));
            Vec::new()
        }
    }
}

fn named(node: &Node) -> String {
    node.as_text().unwrap_or("?").to_owned()
}

fn with_name(written: String, argument: Argument) -> (String, Argument) {
    let name = match &argument {
        Argument::Known { value: Value::String(text), .. } => text.clone(),
        Argument::Known { value, .. } => value.to_string(),
        Argument::Unknown | Argument::None => written,
    };
    (name, argument)
}

/// The value of an argument; none if it is as if it had not been given.
fn take(parameter: &Parameter, node: &Node, reading: &mut Reading<'_>) -> Option<Argument> {
    // Inside it is data: where it goes there decides whether a secret may.
    let secrets = if parameter.key { Secrets::Refused } else { Secrets::Kept };
    let (taken, marks) = watched(|| {
        reading
            .with_secrets(secrets, |reading| reading.take(&parameter.name, &parameter.shape, node))
    });
    checked(parameter, taken, marks.outside, node, reading)
}

fn checked(
    parameter: &Parameter,
    taken: Taken,
    outside: bool,
    node: &Node,
    reading: &mut Reading<'_>,
) -> Option<Argument> {
    let value = match taken {
        Taken::Known(value) => value,
        Taken::Omitted => return None,
        // What is wrong was said; what is made of it says nothing more.
        Taken::Unknown | Taken::Refused => return Some(Argument::Unknown),
    };
    if parameter.secret {
        return Some(Argument::Known { value: taint::hide(value), outside });
    }
    if !parameter.choices.is_empty() && taint::has_secret(&value) {
        reading.diagnostics.push(secret_argument(&parameter.name, node.span));
        return Some(Argument::Unknown);
    }
    let text = match &value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if !parameter.choices.is_empty() && !parameter.choices.contains(&text) {
        let choices: Vec<_> = parameter.choices.iter().map(|one| format!("`{one}`")).collect();
        let message =
            format!("`{}` is one of {}, not `{text}`", parameter.name, choices.join(", "));
        let near = nearest(&text, parameter.choices.iter().map(String::as_str));
        let label = near.map_or_else(String::new, |near| format!("did you mean `{near}`?"));
        reading.diagnostics.push(Diagnostic::error("unknown-choice", message).at(node.span, label));
        return Some(Argument::Unknown);
    }
    Some(Argument::Known { value, outside })
}
