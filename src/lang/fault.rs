//! What the template engine says went wrong, as a diagnostic with its place in the source.

use std::error::Error as _;
use std::ops::Range;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use super::encrypted::WITHOUT_KEY;
use super::template::{Form, Templates};
use super::yaml::{Kind, Node, Style};
use super::{filters, value};
use crate::diagnostic::{Diagnostic, Label, Sources, Span, nearest};

/// A diagnostic on its way out through the template engine.
#[derive(Debug)]
pub(super) struct Carried(pub Diagnostic);

impl std::fmt::Display for Carried {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl std::error::Error for Carried {}

/// What names mean where the error happened.
pub(super) trait Names {
    /// All names that could have been meant.
    fn names(&self) -> Vec<String>;
    /// A variable's value; none if it is not defined or cannot be evaluated.
    fn value(&self, name: &str) -> Option<Value>;
    /// Why a variable that is there counts as undefined: its value uses something undefined.
    fn undefined_because(&self, name: &str) -> Option<Diagnostic>;
}

/// Where an evaluated text stands.
#[derive(Clone, Copy)]
pub(super) enum Site<'a> {
    /// In this scalar.
    Scalar(&'a Node),
    /// In a template file that is mentioned here.
    File(Span),
}

/// An error of the engine, and what it takes to explain it.
pub(super) struct Fault<'a> {
    pub templates: &'a Templates,
    pub names: &'a dyn Names,
    pub site: Site<'a>,
}

impl Fault<'_> {
    /// The diagnostic for an error of the engine.
    pub(super) fn explain(&self, error: &Error) -> Diagnostic {
        let inner = innermost(error);
        let (text, range) = self.text_and_range(inner);
        let Said { mut diagnostic, place, label } = match carried(error) {
            Some(diagnostic) => Said::plain(diagnostic.clone(), range),
            None => self.own(inner, &text, range),
        };
        // Each place where it is used would only repeat it.
        if diagnostic.code == WITHOUT_KEY {
            return diagnostic;
        }
        let carries = !diagnostic.labels.is_empty();
        // A cycle is shown by its own edges; every way into it would only repeat them.
        if !(carries && diagnostic.code == CYCLE) {
            let label = if carries { "used here" } else { label.as_str() };
            diagnostic = mark(diagnostic, self.span(inner.name(), &text, place), label);
        }
        let mut outer = Some(error);
        while let Some(one) = outer.filter(|one| !std::ptr::eq(*one, inner)) {
            let (text, range) = self.text_and_range(one);
            diagnostic = mark(diagnostic, self.span(one.name(), &text, range), "included here");
            outer = one.source().and_then(|source| source.downcast_ref::<Error>());
        }
        if let Site::File(mention) = self.site {
            diagnostic = mark(diagnostic, mention, "the template is used here");
        }
        diagnostic
    }

    /// The text as the user wrote it, and the place in it.
    fn text_and_range(&self, error: &Error) -> (String, Option<Range<usize>>) {
        let Some((form, text)) = error.name().and_then(Form::of) else {
            return (String::new(), None);
        };
        let original = match form {
            Form::File => self.templates.file(text).map(|(_, text)| text.to_string()),
            _ => Some(text.to_owned()),
        };
        let original = original.unwrap_or_default();
        let (wrapped, offset) = form.wrapped(&original);
        let lenient = form.compiled(&wrapped);
        let range = error.range().map(|range| {
            let place = |at| lenient.original(at).saturating_sub(offset).min(original.len());
            let start = place(range.start);
            start..place(range.end).max(start)
        });
        let range = range.or_else(|| line_range(&original, error.line()?));
        (original, range)
    }

    /// The place in a source.
    fn span(&self, name: Option<&str>, text: &str, range: Option<Range<usize>>) -> Span {
        if let Some((Form::File, path)) = name.and_then(Form::of)
            && let Some((source, text)) = self.templates.file(path)
        {
            let range = range.unwrap_or(0..0);
            let end = range.end.max((range.start + 1).min(text.len()));
            return Span::new(source, range.start, end);
        }
        match (self.site, range) {
            (Site::Scalar(node), Some(range)) => {
                within_scalar(self.templates.sources(), node, text, range)
            }
            (Site::Scalar(node), None) => node.span,
            (Site::File(mention), _) => mention,
        }
    }

    /// An error that happened in this very text.
    fn own(&self, error: &Error, text: &str, range: Option<Range<usize>>) -> Said {
        let detail = error.detail().unwrap_or_default();
        let said =
            |code, message: String| Said::plain(Diagnostic::error(code, message), range.clone());
        let form = error.name().and_then(Form::of).map(|(form, _)| form);
        match error.kind() {
            ErrorKind::UndefinedError => match undefined_expression(detail) {
                Some(expression) => {
                    let place = find(text, range.clone(), expression).or(range);
                    self.undefined(expression, place)
                }
                None if detail.is_empty() => {
                    said(UNDEFINED, String::from("something in here is undefined"))
                }
                None => said(UNDEFINED, detail.to_owned()),
            },
            ErrorKind::SyntaxError => {
                let words = syntax_words(detail, form);
                let cannot = |words: &str| format!("this template cannot be read: {words}");
                match unended(text).filter(|_| words.starts_with("it ends too early")) {
                    Some((word, place)) => {
                        let message = cannot(&format!("`{word}` is not ended by `end{word}`"));
                        Said::plain(Diagnostic::error("template-syntax", message), Some(place))
                    }
                    None => said("template-syntax", cannot(&words)),
                }
            }
            ErrorKind::UnknownFilter => self.unknown(Unknown::Filter, detail, text, range),
            ErrorKind::UnknownTest => self.unknown(Unknown::Test, detail, text, range),
            ErrorKind::UnknownFunction => {
                let name = detail.strip_suffix(" is unknown").unwrap_or(detail);
                match self.names.undefined_because(name) {
                    Some(reason) => Said::plain(reason, range),
                    None => self.unknown(Unknown::Function, detail, text, range),
                }
            }
            ErrorKind::TemplateNotFound => {
                let message = format!("there is no template `{}`", missing_template(detail));
                let help = "it is looked for beside the template that names it, and in the folders \
                            above";
                Said::plain(Diagnostic::error("missing-template", message).help(help), range)
            }
            ErrorKind::OutOfFuel => {
                said("template-limit", String::from("this template does not come to an end"))
            }
            ErrorKind::MissingArgument if detail.is_empty() => {
                said(TEMPLATE, String::from("an argument is missing here"))
            }
            ErrorKind::TooManyArguments if detail.is_empty() => {
                said(TEMPLATE, String::from("there are too many arguments here"))
            }
            kind if detail.is_empty() => said(TEMPLATE, kind.to_string()),
            _ => said(TEMPLATE, value_words(detail)),
        }
    }

    fn undefined(&self, expression: &str, place: Option<Range<usize>>) -> Said {
        let root = root_of(expression);
        if let Some(reason) = self.names.undefined_because(root) {
            return Said::plain(reason, place);
        }
        if root == expression {
            let names = self.names.names();
            let message = format!("undefined variable `{expression}`");
            let near = nearest(expression, names.iter().map(String::as_str));
            return Said::near(Diagnostic::error(UNDEFINED, message), place, near);
        }
        let said =
            |message: String| Said::plain(Diagnostic::error(UNDEFINED, message), place.clone());
        let found =
            split_last(expression).and_then(|(base, key)| Some((base, key, self.resolve(base)?)));
        let Some((base, key, value)) = found else {
            return said(format!("`{expression}` is undefined"));
        };
        match value.kind() {
            ValueKind::Map => {
                let keys: Vec<String> =
                    value.try_iter().into_iter().flatten().map(|key| key.to_string()).collect();
                let message = match key {
                    Some(key) => format!("`{base}` has no key `{key}`"),
                    None => format!("`{base}` has no such key"),
                };
                let diagnostic = Diagnostic::error(UNDEFINED, message);
                match key.and_then(|key| nearest(key, keys.iter().map(String::as_str))) {
                    Some(near) => Said::near(diagnostic, place, Some(near)),
                    None => Said::plain(diagnostic.note(listing(&keys)), place),
                }
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let count = value.len().unwrap_or_default();
                let message = match key {
                    Some(key) => format!("the list `{base}` has no item `{key}`, it has {count}"),
                    None => format!("the list `{base}` has no such item, it has {count}"),
                };
                said(message)
            }
            _ => {
                let what = value::describe(&value);
                let key = key.map_or_else(|| String::from("items"), |key| format!("`{key}`"));
                said(format!("`{base}` is {what} and has no {key}"))
            }
        }
    }

    /// The value of a plain path such as `a.b['c'][0]`.
    fn resolve(&self, path: &str) -> Option<Value> {
        let root = root_of(path);
        let mut value = self.names.value(root)?;
        let mut rest = &path[root.len()..];
        while !rest.is_empty() {
            let (key, after) = if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                (Value::from(&after[..end]), &after[end..])
            } else {
                let inner = rest.strip_prefix('[')?;
                let end = inner.find(']')?;
                let key = &inner[..end];
                let number = key.parse::<i64>().map(Value::from);
                (number.unwrap_or_else(|_| Value::from(unquoted(key))), &inner[end + 1..])
            };
            value = value.get_item(&key).ok().filter(|value| !value.is_undefined())?;
            rest = after;
        }
        Some(value)
    }

    fn unknown(
        &self,
        what: Unknown,
        detail: &str,
        text: &str,
        range: Option<Range<usize>>,
    ) -> Said {
        let (word, code, known) = match what {
            Unknown::Filter => ("filter", "unknown-filter", filters::filter_names()),
            Unknown::Test => ("test", "unknown-test", filters::test_names()),
            Unknown::Function => ("function", "unknown-function", filters::function_names()),
        };
        let name = detail.strip_prefix(word).unwrap_or(detail).trim();
        let name = name.strip_suffix(" is unknown").unwrap_or_default();
        if name.is_empty() {
            return Said::plain(Diagnostic::error(code, format!("there is no such {word}")), range);
        }
        let diagnostic = Diagnostic::error(code, format!("unknown {word} `{name}`"));
        let place = find(text, range.clone(), name).or(range);
        Said::near(diagnostic, place, nearest(name, known))
    }
}

/// A diagnostic without its place, where in the text that is, and what is said there.
struct Said {
    diagnostic: Diagnostic,
    place: Option<Range<usize>>,
    label: String,
}

impl Said {
    fn plain(diagnostic: Diagnostic, place: Option<Range<usize>>) -> Self {
        Self { diagnostic, place, label: String::new() }
    }

    fn near(diagnostic: Diagnostic, place: Option<Range<usize>>, near: Option<&str>) -> Self {
        let label = near.map(|near| format!("did you mean `{near}`?")).unwrap_or_default();
        Self { diagnostic, place, label }
    }
}

#[derive(Clone, Copy)]
enum Unknown {
    Filter,
    Test,
    Function,
}

/// A diagnostic that quotes no values, if the evaluation has read a secret; if its text is `closed`,
/// nothing of that either.
pub(super) fn without_values(diagnostic: Diagnostic, secret: bool, closed: bool) -> Diagnostic {
    /// They say names that stand in the text, and nothing of values.
    const NAMES: [&str; 8] = [
        UNDEFINED,
        CYCLE,
        WITHOUT_KEY,
        "bad-secret",
        "unknown-filter",
        "unknown-test",
        "unknown-function",
        "template-syntax",
    ];
    if !secret || (!closed && NAMES.contains(&diagnostic.code)) || diagnostic.code == WITHOUT_KEY {
        return diagnostic;
    }
    let message = if closed {
        "a secret is a template, and cannot be evaluated"
    } else {
        "this cannot be evaluated; why is not shown, because it uses a secret"
    };
    let labels = diagnostic.labels.into_iter().map(|label| Label { text: String::new(), ..label });
    Diagnostic { labels: labels.collect(), ..Diagnostic::error(diagnostic.code, message) }
}

/// The code of everything undefined.
pub(super) const UNDEFINED: &str = "undefined-variable";
/// The code of variables that need each other.
pub(super) const CYCLE: &str = "variable-cycle";
const TEMPLATE: &str = "template";

/// Adds a label, unless something is said of that place already.
fn mark(diagnostic: Diagnostic, span: Span, text: &str) -> Diagnostic {
    if diagnostic.labels.iter().any(|label| label.span == span) {
        return diagnostic;
    }
    let text = text.to_owned();
    diagnostic.at(span, text)
}

/// The error at the bottom of includes, blocks and recursive loops.
fn innermost(error: &Error) -> &Error {
    let mut inner = error;
    while let Some(next) = inner.source().and_then(|source| source.downcast_ref::<Error>()) {
        inner = next;
    }
    inner
}

fn carried(error: &Error) -> Option<&Diagnostic> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(one) = next {
        if let Some(Carried(diagnostic)) = one.downcast_ref() {
            return Some(diagnostic);
        }
        next = one.source();
    }
    None
}

/// A line (from 1) without its indentation.
fn line_range(text: &str, line: usize) -> Option<Range<usize>> {
    let mut start = 0;
    for (index, one) in text.split_inclusive('\n').enumerate() {
        if index + 1 == line {
            let indented = one.len() - one.trim_start().len();
            let end = start + one.trim_end().len();
            return Some((start + indented).min(end)..end);
        }
        start += one.len();
    }
    None
}

/// Whether an error holds whatever the facts will be.
pub(super) fn is_certain(error: &Error, is_defined: impl Fn(&str) -> bool) -> bool {
    let inner = innermost(error);
    match inner.kind() {
        _ if carried(error).is_some() => true,
        ErrorKind::SyntaxError | ErrorKind::UnknownFilter | ErrorKind::UnknownTest => true,
        ErrorKind::UnknownFunction | ErrorKind::OutOfFuel => true,
        ErrorKind::UndefinedError => undefined_expression(inner.detail().unwrap_or_default())
            .is_some_and(|expression| {
                let root = root_of(expression);
                !root.is_empty() && root == expression && !is_defined(root)
            }),
        _ => false,
    }
}

/// The expression in `… (`a.b` is undefined …`.
fn undefined_expression(detail: &str) -> Option<&str> {
    let end = detail.rfind("` is undefined")?;
    let start = detail[..end].rfind('`')?;
    Some(&detail[start + 1..end])
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn root_of(expression: &str) -> &str {
    let end = expression.find(|character| !is_word(character)).unwrap_or(expression.len());
    &expression[..end]
}

/// `a.b` gives `a` and `b`; no key where it is computed.
fn split_last(expression: &str) -> Option<(&str, Option<&str>)> {
    if let Some(open) = expression.strip_suffix(']').and_then(|inner| inner.rfind('[')) {
        let key = &expression[open + 1..expression.len() - 1];
        return Some((&expression[..open], (key != "...").then(|| unquoted(key))));
    }
    let (base, key) = expression.rsplit_once('.')?;
    Some((base, Some(key)))
}

fn unquoted(key: &str) -> &str {
    key.trim_matches(['\'', '"'])
}

fn listing(keys: &[String]) -> String {
    const SHOWN: usize = 12;
    if keys.is_empty() {
        return String::from("it is empty");
    }
    let shown: Vec<String> = keys.iter().take(SHOWN).map(|key| format!("`{key}`")).collect();
    let more = keys.len().saturating_sub(SHOWN);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("its keys are {}{rest}", shown.join(", "))
}

/// The name in the engine's words for a template that is not there.
fn missing_template(detail: &str) -> &str {
    let quotes = ['"', '\''];
    let quoted = detail.find(quotes).zip(detail.rfind(quotes)).filter(|(from, to)| from < to);
    let name = quoted.map_or(detail, |(from, to)| &detail[from + 1..to]);
    // `extends` and `import` give the name of the form for missing files, escaped.
    name.rsplit("\\0").next().unwrap_or(name)
}

/// The statement that was opened last and has no end; the engine only says that the text ends.
fn unended(text: &str) -> Option<(&str, Range<usize>)> {
    const ENDED: [&str; 10] =
        ["autoescape", "block", "call", "filter", "for", "if", "macro", "raw", "set", "with"];
    let mut open = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find("{%").map(|start| at + start + 2) {
        let end = start + text[start..].find("%}")?;
        let inner = &text[start..end];
        let begin = inner.find(is_word).unwrap_or(inner.len());
        let length = inner[begin..].find(|one| !is_word(one)).unwrap_or(inner.len() - begin);
        let place = start + begin..start + begin + length;
        let word = &text[place.clone()];
        if word.strip_prefix("end").is_some_and(|word| ENDED.contains(&word)) {
            open.pop();
        } else if ENDED.contains(&word) && !(word == "set" && inner.contains('=')) {
            open.push((word, place));
        }
        at = end + 2;
    }
    open.pop()
}

/// The engine's words on syntax in those that users know.
fn syntax_words(detail: &str, form: Option<Form>) -> String {
    if let Some(name) = detail.strip_prefix("unknown statement ") {
        return match name.strip_prefix("end") {
            Some(opened) => format!("`{name}` ends no `{opened}`"),
            None => format!("there is no statement `{name}`"),
        };
    }
    match detail {
        "unexpected end of string" => return String::from("a quote is not closed"),
        "unexpected end of comment" => return String::from("the comment is not closed by `#}`"),
        "unexpected character" => return String::from("this character means nothing here"),
        _ => {}
    }
    let words = |text: &str| {
        text.replace("end of variable block", "`}}`")
            .replace("start of variable block", "`{{`")
            .replace("end of block", "`%}`")
            .replace("start of block", "`{%`")
            .replace("identifier", "a name")
            .replace("integer", "a number")
    };
    let Some(rest) = detail.strip_prefix("unexpected ") else { return words(detail) };
    let (found, expected) = rest.split_once(", expected ").unwrap_or((rest, ""));
    let (found, mut expected) = (words(found), words(expected));
    let ended = found == "end of input" || (found == "`}}`" && form == Some(Form::Bare));
    if expected == "in" {
        expected = String::from("`in`");
    }
    match (ended, expected.is_empty()) {
        (true, true) => String::from("it ends too early"),
        (true, false) => format!("it ends too early, {expected} is missing"),
        (false, true) => format!("{found} cannot stand here"),
        (false, false) => format!("{expected} has to stand here, not {found}"),
    }
}

/// The engine's words on values; what has backticks is ours.
fn value_words(detail: &str) -> String {
    if detail.contains('`') {
        return detail.to_owned();
    }
    detail.replace("sequence", "list").replace("iterator", "list").replace("map ", "mapping ")
}

/// Where `needle` stands as words of its own: in `range`, else nearest before it (a filter's place
/// is its name, after what it is applied to), else anywhere if only once.
fn find(text: &str, range: Option<Range<usize>>, needle: &str) -> Option<Range<usize>> {
    let places: Vec<usize> = text
        .match_indices(needle)
        .map(|(at, _)| at)
        .filter(|at| {
            let before = text[..*at].chars().next_back();
            let after = text[at + needle.len()..].chars().next();
            !before.is_some_and(|one| is_word(one) || one == '.') && !after.is_some_and(is_word)
        })
        .collect();
    let range = range.unwrap_or(0..text.len());
    let inside = places.iter().find(|at| range.contains(at));
    let before = places.iter().rfind(|at| **at < range.start);
    let only = if let [only] = places.as_slice() { Some(only) } else { None };
    let at = *inside.or(before).or(only)?;
    Some(at..at + needle.len())
}

/// The source of a piece of a scalar's text. Escapes, folding and indentation lie between the two:
/// the n-th time that the piece stands in the text is taken for the n-th time in the source.
fn within_scalar(sources: &Sources, node: &Node, text: &str, range: Range<usize>) -> Span {
    let raw = sources.slice(node.span);
    if raw == text {
        return node.span.part(range.start, range.end);
    }
    let quoted = matches!(&node.kind, Kind::Scalar(scalar) if scalar.style == Style::Quoted);
    if quoted && raw.get(1..raw.len().saturating_sub(1)) == Some(text) {
        return node.span.part(range.start + 1, range.end + 1);
    }
    let Some(piece) = text.get(range.clone()).map(str::trim_end).filter(|piece| !piece.is_empty())
    else {
        return node.span;
    };
    // Long pieces are likely to be folded or escaped: their first line is enough.
    let piece = piece.lines().next().unwrap_or(piece);
    let ordinal = text.match_indices(piece).take_while(|(at, _)| *at < range.start).count();
    let places: Vec<usize> = raw.match_indices(piece).map(|(at, _)| at).collect();
    if places.len() != text.match_indices(piece).count() {
        return node.span;
    }
    match places.get(ordinal) {
        Some(at) => node.span.part(*at, at + piece.len()),
        None => node.span,
    }
}
