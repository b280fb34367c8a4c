use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::scope::{Evaluated, OMIT, Scope};
use super::taint::{self, Secret};
use super::template::{self, Form};
use super::yaml::{Kind, Node, Resolved, Scalar};
use crate::change::Mask;
use crate::diagnostic::{Diagnostic, Diagnostics, Span, nearest};
use crate::kind::Shape;

/// What became of a value that was checked against a shape.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Taken {
    /// The value as the kind's struct wants it.
    Known(Value),
    /// It needs facts that are not known yet.
    Unknown,
    /// It evaluated to `omit`: as if it had not been given.
    Omitted,
    /// It is wrong, and that has been said.
    Refused,
}

/// Evaluates values in one scope and checks them; what is wrong goes into `diagnostics`.
pub(super) struct Reading<'a> {
    /// The variables.
    pub scope: &'a Scope,
    /// Leaves templates alone (they are unknown): the state is skipped, and what its templates need
    /// may not exist.
    pub lenient: bool,
    /// What is wrong.
    pub diagnostics: &'a mut Diagnostics,
    /// What becomes of secrets.
    pub secrets: Secrets,
    /// The secrets that were taken.
    pub mask: Mask,
    /// Whether the last value had one.
    pub took_secret: bool,
    /// The secrets that the last value was computed from.
    used: BTreeSet<String>,
}

/// What becomes of secrets that a value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrets {
    /// They are errors: the value is shown, or stands where all can see it.
    Refused,
    /// They are taken, and masked where the value stands as it is.
    Masked,
    /// The same, for values that hosts make something else of.
    Ingredients,
    /// They stay what they are: the value is data for templates.
    Kept,
}

/// A value that is neither a list nor a mapping, with its text as it was written.
enum Leaf {
    Null,
    Boolean(bool, String),
    Integer(i64, String),
    Float(String),
    Text(String),
}

impl Leaf {
    fn of_scalar(scalar: &Scalar) -> Self {
        let written = scalar.text.to_string();
        match scalar.resolve() {
            Resolved::Null => Self::Null,
            Resolved::Boolean(value) => Self::Boolean(value, written),
            Resolved::Integer(value) => Self::Integer(value, written),
            Resolved::Float(_) => Self::Float(written),
            Resolved::Text(_) => Self::Text(written),
        }
    }

    /// None for lists and mappings.
    fn of_value(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => Self::Null,
            // As a template that is more than one expression would print it.
            Value::Bool(value) => {
                Self::Boolean(*value, if *value { "True" } else { "False" }.to_owned())
            }
            Value::Number(number) => match number.as_i64() {
                Some(integer) => Self::Integer(integer, number.to_string()),
                None => Self::Float(number.to_string()),
            },
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(_) | Value::Object(_) => return None,
        })
    }

    fn describe(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Boolean(..) => "a boolean",
            Self::Integer(..) | Self::Float(_) => "a number",
            Self::Text(_) => "a string",
        }
    }

    /// The text as it was written; none for null.
    fn written(&self) -> Option<&str> {
        match self {
            Self::Null => None,
            Self::Boolean(_, text)
            | Self::Integer(_, text)
            | Self::Float(text)
            | Self::Text(text) => Some(text),
        }
    }
}

impl<'a> Reading<'a> {
    /// Reads values of a scope, in which secrets are errors.
    pub fn new(scope: &'a Scope, lenient: bool, diagnostics: &'a mut Diagnostics) -> Self {
        let (secrets, mask, used) = (Secrets::Refused, Mask::default(), BTreeSet::new());
        Self { scope, lenient, diagnostics, secrets, mask, took_secret: false, used }
    }

    /// Reads something with another rule for its secrets.
    pub fn with_secrets<T>(&mut self, secrets: Secrets, read: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.secrets, secrets);
        let result = read(self);
        self.secrets = before;
        result
    }

    /// Takes a secret as the rule says; gives the plain value.
    fn take_secret(&mut self, name: &str, secret: &Secret<'_>, span: Span) -> Option<Value> {
        match self.secrets {
            Secrets::Refused => {
                self.diagnostics.push(secret_argument(name, span));
                return None;
            }
            Secrets::Kept => return Some(taint::hide(secret.value.clone())),
            Secrets::Masked | Secrets::Ingredients => {}
        }
        self.took_secret = true;
        std::mem::take(&mut self.used).iter().for_each(|text| self.mask.add_text(text));
        let parts = match (secret.value, &secret.parts) {
            (Value::String(text), Some(parts)) => {
                parts.iter().filter_map(|part| text.get(part.clone())).map(str::to_owned).collect()
            }
            (value, _) => {
                let mut texts = BTreeSet::new();
                taint::texts(value, &mut texts);
                texts
            }
        };
        if self.secrets == Secrets::Ingredients {
            parts.iter().for_each(|part| self.mask.add_ingredient(part));
        } else if let Some(text) = secret.value.as_str() {
            if secret.parts.is_none() {
                self.mask.add_text(text);
            }
            let whole = std::iter::once(0..text.len()).collect();
            self.mask.add_parts(text, secret.parts.as_ref().unwrap_or(&whole));
        } else {
            parts.iter().for_each(|part| self.mask.add_text(part));
        }
        Some(secret.value.clone())
    }

    /// A value of any type, with its secrets taken as the rule says.
    fn take_any(&mut self, name: &str, value: Value, span: Span) -> Taken {
        if self.secrets == Secrets::Kept || !taint::has_secret(&value) {
            return Taken::Known(value);
        }
        let whole = taint::hide(value);
        let plain = taint::secret(&whole).and_then(|secret| self.take_secret(name, &secret, span));
        plain.map_or(Taken::Refused, Taken::Known)
    }

    /// The value of a node, of whatever type; secrets in it are wrapped.
    pub fn evaluate(&mut self, node: &Node) -> Taken {
        if self.lenient && has_template(node) {
            return Taken::Unknown;
        }
        let (result, used) = taint::using(|| self.scope.evaluate(node));
        self.used = used;
        match result {
            Ok(Evaluated::Known(Value::String(text))) if text == OMIT => Taken::Omitted,
            // `options: "{% if verbose %}-v{% endif %}"`: a text that came out empty.
            Ok(Evaluated::Known(Value::Null)) if makes_text(node) => {
                Taken::Known(Value::String(String::new()))
            }
            Ok(Evaluated::Known(value)) => Taken::Known(value),
            Ok(Evaluated::Unknown) => Taken::Unknown,
            Err(diagnostic) => {
                self.diagnostics.push(diagnostic);
                Taken::Refused
            }
        }
    }

    /// The value of a node, checked and normalised by a shape; `name` is what messages call it.
    ///
    /// Shapes that name contents ([`Shape::Content`], [`Shape::Template`], …) give the text only.
    pub fn take(&mut self, name: &str, shape: &Shape, node: &Node) -> Taken {
        if *shape == Shape::Any {
            return match self.evaluate(node) {
                Taken::Known(value) => self.take_any(name, value, node.span),
                other => other,
            };
        }
        match (&node.kind, shape) {
            (Kind::Scalar(scalar), _) if is_template(scalar) => match self.evaluate(node) {
                Taken::Known(value) => self.take_value(name, shape, &value, node.span),
                other => other,
            },
            (Kind::Sequence(items), Shape::List(inner)) => {
                let taken = items.iter().map(|item| self.take(name, inner, item)).collect();
                together(taken)
            }
            (Kind::Mapping(_), Shape::List(inner)) if takes_no_mapping(inner) => {
                self.wrong_type(name, shape, node.describe(), node.span)
            }
            (_, Shape::List(inner)) => match self.take(name, inner, node) {
                Taken::Known(value) => Taken::Known(Value::Array(vec![value])),
                other => other,
            },
            (Kind::Mapping(entries), Shape::Mapping(inner)) => {
                let entries = entries.iter().map(|(key, value)| {
                    let at = key.as_text().map_or_else(|| name.to_owned(), str::to_owned);
                    let key = self.with_secrets(Secrets::Refused, |reading| {
                        reading.take(name, &Shape::Text, key)
                    });
                    (key, self.take(&at, inner, value))
                });
                together_mapping(entries.collect())
            }
            (Kind::Scalar(scalar), _) => {
                self.take_leaf(name, shape, &Leaf::of_scalar(scalar), node.span)
            }
            _ => self.wrong_type(name, shape, node.describe(), node.span),
        }
    }

    /// The same for a value that a template gave; `span` is the template's place.
    pub fn take_value(&mut self, name: &str, shape: &Shape, value: &Value, span: Span) -> Taken {
        if value.as_str() == Some(OMIT) {
            return Taken::Omitted;
        }
        if *shape == Shape::Any {
            return self.take_any(name, value.clone(), span);
        }
        if let Some(secret) = taint::secret(value) {
            return match self.take_secret(name, &secret, span) {
                Some(kept) if self.secrets == Secrets::Kept => Taken::Known(kept),
                Some(plain) => self.take_value(name, shape, &plain, span),
                None => Taken::Refused,
            };
        }
        match (value, shape) {
            (Value::Array(items), Shape::List(inner)) => together(
                items.iter().map(|item| self.take_value(name, inner, item, span)).collect(),
            ),
            (Value::Object(_), Shape::List(inner)) if takes_no_mapping(inner) => {
                self.wrong_type(name, shape, "a mapping", span)
            }
            (_, Shape::List(inner)) => match self.take_value(name, inner, value, span) {
                Taken::Known(value) => Taken::Known(Value::Array(vec![value])),
                other => other,
            },
            (Value::Object(entries), Shape::Mapping(inner)) => {
                let entries = entries.iter().map(|(key, value)| {
                    let taken = self.take_value(key, inner, value, span);
                    (Taken::Known(Value::String(key.clone())), taken)
                });
                together_mapping(entries.collect())
            }
            (Value::Array(_), _) => self.wrong_type(name, shape, "a list", span),
            (Value::Object(_), _) => self.wrong_type(name, shape, "a mapping", span),
            _ => match Leaf::of_value(value) {
                Some(leaf) => self.take_leaf(name, shape, &leaf, span),
                None => self.wrong_type(name, shape, "a value of another type", span),
            },
        }
    }

    fn take_leaf(&mut self, name: &str, shape: &Shape, leaf: &Leaf, span: Span) -> Taken {
        let checked = match (shape, leaf) {
            (_, Leaf::Null) => Err(wrong_type(name, shape, leaf.describe(), span)),
            (Shape::Boolean, Leaf::Boolean(value, _)) => Ok(Value::Bool(*value)),
            (Shape::Boolean, Leaf::Text(text)) => match boolean_word(text) {
                Some(Word::Exact(value)) => Ok(Value::Bool(value)),
                Some(Word::Loose(value)) => {
                    self.diagnostics.push(loose_boolean(text, value, span));
                    Ok(Value::Bool(value))
                }
                None => Err(wrong_type(name, shape, leaf.describe(), span)),
            },
            (Shape::Integer, Leaf::Integer(value, _)) => integer(name, *value, span),
            (Shape::Integer, Leaf::Text(text)) => match text.parse::<i64>() {
                Ok(value) => integer(name, value, span),
                Err(_) => Err(wrong_type(name, shape, leaf.describe(), span)),
            },
            (Shape::Boolean | Shape::Integer | Shape::List(_) | Shape::Mapping(_), _) => {
                Err(wrong_type(name, shape, leaf.describe(), span))
            }
            // A name that is `true` is a slip; a text that is `true` is what was written.
            (
                Shape::Path
                | Shape::Name
                | Shape::Principal
                | Shape::Mode
                | Shape::Duration
                | Shape::Template
                | Shape::LocalFile
                | Shape::LocalFolder,
                Leaf::Boolean(..),
            ) => Err(wrong_type(name, shape, leaf.describe(), span)),
            _ => written(name, shape, leaf.written().unwrap_or_default(), span),
        };
        match checked {
            Ok(value) => Taken::Known(value),
            Err(diagnostic) => {
                self.diagnostics.push(diagnostic);
                Taken::Refused
            }
        }
    }

    fn wrong_type(&mut self, name: &str, shape: &Shape, found: &str, span: Span) -> Taken {
        self.diagnostics.push(wrong_type(name, shape, found, span));
        Taken::Refused
    }

    /// A string; none if it is not known, omitted or wrong.
    pub fn text(&mut self, name: &str, node: &Node) -> Option<String> {
        match self.take(name, &Shape::Text, node) {
            Taken::Known(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// A string or a list of strings, each with its place; without those that are not known.
    pub fn texts(&mut self, name: &str, node: &Node) -> Vec<(String, Span)> {
        let mut texts = Vec::new();
        for item in node.items().unwrap_or(std::slice::from_ref(node)) {
            if let Taken::Known(Value::Array(values)) =
                self.take(name, &Shape::List(&Shape::Text), item)
            {
                texts.extend(values.into_iter().filter_map(|value| match value {
                    Value::String(text) => Some((text, item.span)),
                    _ => None,
                }));
            }
        }
        texts
    }

    /// A boolean; none if it is not known, omitted or wrong.
    pub fn boolean(&mut self, name: &str, node: &Node) -> Option<bool> {
        match self.take(name, &Shape::Boolean, node) {
            Taken::Known(value) => value.as_bool(),
            _ => None,
        }
    }
}

/// The error that a secret stands where all can see it.
pub(super) fn secret_argument(name: &str, span: Span) -> Diagnostic {
    let message = format!("a secret cannot stand in `{name}`, which is not hidden");
    Diagnostic::error("secret-argument", message).at(span, "").help(
        "a command takes secrets by `stdin` or `environment`; files by `content`, `template` or \
         `variables`",
    )
}

/// Whether a scalar makes text: it is not one expression alone.
fn makes_text(node: &Node) -> bool {
    node.as_text()
        .is_some_and(|text| template::is_template(text) && Form::of_scalar(text) == Form::Text)
}

/// Whether a scalar has to go through the variables: template syntax, or a tag that is not YAML's.
pub(super) fn is_template(scalar: &Scalar) -> bool {
    scalar.tag.as_deref().is_some_and(|tag| tag != "str") || template::is_template(&scalar.text)
}

/// Whether a template stands anywhere in a value.
pub(super) fn has_template(node: &Node) -> bool {
    match &node.kind {
        Kind::Scalar(scalar) => is_template(scalar),
        Kind::Sequence(items) => items.iter().any(has_template),
        Kind::Mapping(entries) => {
            entries.iter().any(|(key, value)| has_template(key) || has_template(value))
        }
    }
}

/// A boolean that may not be a template, as a play's key; none if it is wrong, which is said.
pub(super) fn literal_boolean(
    name: &str,
    node: &Node,
    diagnostics: &mut Diagnostics,
) -> Option<bool> {
    match node.scalar().map(Leaf::of_scalar) {
        Some(Leaf::Boolean(value, _)) => return Some(value),
        Some(Leaf::Text(text)) => match boolean_word(&text) {
            Some(Word::Exact(value)) => return Some(value),
            Some(Word::Loose(value)) => {
                diagnostics.push(loose_boolean(&text, value, node.span));
                return Some(value);
            }
            None => {}
        },
        _ => {}
    }
    diagnostics.push(wrong_type(name, &Shape::Boolean, node.describe(), node.span));
    None
}

/// A message that a value has another type than its shape.
pub(super) fn wrong_type(name: &str, shape: &Shape, found: &str, span: Span) -> Diagnostic {
    let message = format!("`{name}` takes {}, not {found}", expected(shape));
    Diagnostic::error("wrong-type", message).at(span, "")
}

fn takes_no_mapping(shape: &Shape) -> bool {
    !matches!(shape, Shape::Mapping(_) | Shape::Any)
}

fn expected(shape: &Shape) -> String {
    match shape {
        Shape::Text | Shape::Content => "a string".into(),
        Shape::Path => "an absolute path".into(),
        Shape::Name => "a name".into(),
        Shape::Principal => "a name or a number".into(),
        Shape::Mode => "an octal mode".into(),
        Shape::Boolean => "`true` or `false`".into(),
        Shape::Integer => "an integer".into(),
        Shape::Duration => "a duration".into(),
        Shape::Choice(choices) => one_of(choices),
        Shape::List(Shape::Any) => "a list".into(),
        Shape::List(inner) => format!("{} or a list", expected(inner)),
        Shape::Mapping(_) => "a mapping".into(),
        Shape::Template => "the name of a template".into(),
        Shape::LocalFile => "the name of a local file".into(),
        Shape::LocalFolder => "the name of a local folder".into(),
        Shape::Any => "a value".into(),
    }
}

fn one_of(choices: &[&str]) -> String {
    let quoted: Vec<_> = choices.iter().map(|choice| format!("`{choice}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => "nothing".into(),
    }
}

/// Checks a text against the shapes that are read from text.
fn written(name: &str, shape: &Shape, text: &str, span: Span) -> Result<Value, Diagnostic> {
    match shape {
        Shape::Path => absolute(text).map(Value::String).map_err(|problem| {
            let what = if text.starts_with('/') { "a plain" } else { "an absolute" };
            let message = format!("`{text}` is not {what} path");
            Diagnostic::error("bad-path", message).at(span, problem)
        }),
        Shape::Name | Shape::Principal => match bad_name(text) {
            None => Ok(Value::String(text.to_owned())),
            Some(problem) => {
                let message = format!("`{text}` cannot be a name for `{name}`");
                Err(Diagnostic::error("bad-name", message).at(span, problem))
            }
        },
        Shape::Mode => mode(text).map(Value::from).ok_or_else(|| {
            let message = format!("`{text}` is not an octal mode");
            Diagnostic::error("bad-mode", message)
                .at(span, "modes are three or four octal digits, for example 0644")
        }),
        Shape::Duration => milliseconds(text).map(Value::from).ok_or_else(|| {
            let message = format!("`{text}` is not a duration");
            Diagnostic::error("bad-duration", message)
                .at(span, "for example `90`, `60s`, `10m`, `1h30m`, `14d` or `500ms`")
        }),
        Shape::Choice(choices) if !choices.contains(&text) => {
            let message = format!("`{name}` takes {}, not `{text}`", one_of(choices));
            let label = nearest(text, choices.iter().copied())
                .map_or_else(String::new, |near| format!("did you mean `{near}`?"));
            Err(Diagnostic::error("unknown-choice", message).at(span, label))
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

/// Whatever is counted or numbered is neither negative nor larger than the numbers of users, whose
/// largest stands for none (chown(2)).
fn integer(name: &str, value: i64, span: Span) -> Result<Value, Diagnostic> {
    const LARGEST: i64 = u32::MAX as i64 - 1;
    if (0..=LARGEST).contains(&value) {
        return Ok(Value::from(value));
    }
    let message = format!("`{name}` cannot be {value}");
    Err(Diagnostic::error("bad-number", message).at(span, format!("it is from 0 to {LARGEST}")))
}

/// A path in the form that identities use, or why it is none.
fn absolute(text: &str) -> Result<String, &'static str> {
    if text.starts_with('~') {
        return Err("homes are not expanded here: it has to begin with `/`");
    }
    if !text.starts_with('/') {
        return Err("it has to begin with `/`");
    }
    if text.contains('\0') {
        return Err("a path cannot have a NUL character");
    }
    let parts = || text.split('/').filter(|part| !part.is_empty() && *part != ".");
    if parts().any(|part| part == "..") {
        return Err("`..` means something else where a folder is a link: write the path out");
    }
    let mut path = String::with_capacity(text.len());
    for part in parts() {
        path.push('/');
        path.push_str(part);
    }
    if path.is_empty() {
        path.push('/');
    }
    Ok(path)
}

fn bad_name(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        Some("it is empty")
    } else if text.contains(char::is_whitespace) {
        Some("it has a blank")
    } else if text.contains('/') {
        Some("it has a `/`")
    } else if text.contains(char::is_control) {
        Some("it has a control character")
    } else {
        None
    }
}

/// File permissions as digits, always octal: `0644`, `644`, `0o644`.
fn mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let right_length = match digits.len() {
        3 | 4 => true,
        5 => digits.starts_with('0'),
        _ => false,
    };
    if octal && right_length { u32::from_str_radix(digits, 8).ok() } else { None }
}

/// A duration in milliseconds: a bare number of seconds, or numbers with `ms`, `s`, `m`, `h`, `d`.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest
            .find(|character: char| !character.is_ascii_digit() && character != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|character: char| character.is_ascii_digit() || character == '.')
            .unwrap_or(rest.len());
        let factor = match rest[..end].trim() {
            "" if end == rest.len() && total == 0.0 => 1e3,
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 60e3,
            "h" => 3600e3,
            "d" => 86400e3,
            _ => return None,
        };
        total += number * factor;
        rest = &rest[end..];
    }
    // Bounded so that sums of times cannot overflow: three hundred years.
    if total <= 1e13 { Some(total.round() as u64) } else { None }
}

enum Word {
    /// What YAML 1.2 has as a boolean, given as a string.
    Exact(bool),
    /// What YAML 1.1 had.
    Loose(bool),
}

fn boolean_word(text: &str) -> Option<Word> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(Word::Exact(true)),
        "false" => Some(Word::Exact(false)),
        "yes" | "on" => Some(Word::Loose(true)),
        "no" | "off" => Some(Word::Loose(false)),
        _ => None,
    }
}

/// That a word of YAML 1.1 was taken for a boolean.
fn loose_boolean(text: &str, value: bool, span: Span) -> Diagnostic {
    let message = format!("`{text}` is understood as `{value}`");
    Diagnostic::warning("boolean-word", message).at(span, format!("write `{value}`"))
}

fn together(items: Vec<Taken>) -> Taken {
    if items.contains(&Taken::Refused) {
        return Taken::Refused;
    }
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Taken::Known(value) => values.push(value),
            Taken::Omitted => {}
            Taken::Unknown | Taken::Refused => return Taken::Unknown,
        }
    }
    Taken::Known(Value::Array(values))
}

fn together_mapping(entries: Vec<(Taken, Taken)>) -> Taken {
    if entries.iter().any(|(key, value)| *key == Taken::Refused || *value == Taken::Refused) {
        return Taken::Refused;
    }
    let mut mapping = Map::new();
    for (key, value) in entries {
        match (key, value) {
            (Taken::Known(Value::String(key)), Taken::Known(value)) => {
                mapping.insert(key, value);
            }
            (_, Taken::Omitted) => {}
            _ => return Taken::Unknown,
        }
    }
    Taken::Known(Value::Object(mapping))
}

/// A text as messages show it inside of a line: the first line, cut where it is long.
pub(super) fn brief(text: &str) -> Arc<str> {
    let first = text.lines().next().unwrap_or_default();
    let cut: String = first.chars().take(60).collect();
    if cut.len() < text.trim_end().len() { Arc::from(format!("{cut}…")) } else { Arc::from(cut) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_however_they_are_written() {
        let cases = [
            ("0644", Some(0o644)),
            ("644", Some(0o644)),
            ("0o644", Some(0o644)),
            ("2775", Some(0o2775)),
            ("02775", Some(0o2775)),
            ("12775", None),
            ("648", None),
            ("u=rw", None),
            ("44", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(mode(text), expected, "{text}");
        }
    }

    #[test]
    fn durations_have_units() {
        let cases = [
            ("90", Some(90_000)),
            ("0", Some(0)),
            ("1.5", Some(1_500)),
            ("60s", Some(60_000)),
            ("500ms", Some(500)),
            ("1h30m", Some(5_400_000)),
            ("14d", Some(1_209_600_000)),
            ("1h30", None),
            ("soon", None),
            ("5 minutes", None),
            ("-5", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(milliseconds(text), expected, "{text}");
        }
    }

    #[test]
    fn paths_have_one_form() {
        let cases = [
            ("/srv/x/", Ok("/srv/x".to_owned())),
            ("//srv/./x", Ok("/srv/x".to_owned())),
            ("/", Ok("/".to_owned())),
            ("srv", Err("it has to begin with `/`")),
        ];
        for (text, expected) in cases {
            assert_eq!(absolute(text), expected, "{text}");
        }
        assert!(absolute("/a/../b").is_err());
        assert!(absolute("~/x").is_err());
    }
}
