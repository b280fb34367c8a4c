use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use minijinja::value::{Enumerator, Object, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use serde_json::{Map, Value as Json};

use super::encrypted::{opened, stays_closed};
use super::fault::{CYCLE, Carried, Fault, Names, Site, UNDEFINED, is_certain, without_values};
use super::filters::function_names;
use super::layer::Layer;
use super::lenient::expression_end;
use super::python;
use super::taint::{self, Seen};
use super::template::{Form, OMIT_IN_TEXT, Templates, is_template};
use super::value::{
    self, Written, describe_json, mark_assumed, mark_outside, mark_unknown, unknown, watched,
    written,
};
use super::yaml::{Kind, Node, Resolved, Scalar, Style};
use crate::change::Mask;
use crate::diagnostic::{Diagnostic, Span};
use crate::secret::KeyError;

/// What `omit` evaluates to: an argument with this value counts as not given.
pub const OMIT: &str = "__converge_omit__9e1a7c55";

/// Deepest nesting of variables whose values use other variables.
const DEPTH_LIMIT: usize = 50;
/// Longest text that a template makes, in bytes.
const TEXT_LIMIT: usize = 64 << 20;

/// What is known of a host itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Facts {
    /// It has been asked.
    Known(Json),
    /// It has been asked, but not for these ones.
    Partly(Json, Vec<String>),
    /// There has been no connection so far.
    Unknown,
}

/// The value of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Evaluated {
    /// This; secrets in it are wrapped, see [`super::has_secret`] and [`super::reveal`].
    Known(Json),
    /// It needs facts that are not known yet.
    Unknown,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It does.
    True,
    /// It does not.
    False,
    /// It needs facts that are not known yet.
    Unknown,
}

/// What a template file gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rendered {
    /// This text, and what of it is secret.
    Known(String, Mask),
    /// It needs facts that are not known yet.
    Unknown,
}

/// What names mean at one place for one host; cheap to clone.
///
/// From high to low: values added by [`Scope::with_value`], facts, magic variables, layers from the
/// last to the first. A name's value is evaluated when it is first used, and kept.
#[derive(Clone)]
pub struct Scope {
    inner: Arc<Inner>,
}

impl fmt::Debug for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<_> = self.inner.layers.iter().map(|layer| &layer.label).collect();
        formatter.debug_struct("Scope").field("layers", &labels).finish_non_exhaustive()
    }
}

struct Inner {
    templates: Arc<Templates>,
    layers: Vec<Arc<Layer>>,
    magic: Arc<BTreeMap<String, Value>>,
    facts: Option<Value>,
    items: BTreeMap<Arc<str>, Item>,
    /// Whether variables may also be defined elsewhere, and how many layers those go before.
    open: Option<usize>,
    /// Where the items of loops come from.
    loops: BTreeMap<Arc<str>, Loop>,
    /// Who is told when the facts are used, and of which host they are.
    told: Option<(Arc<HostVariables>, String)>,
    cache: Mutex<HashMap<Arc<str>, Cached>>,
}

/// A value that goes before everything else.
#[derive(Clone)]
struct Item {
    /// None: it is not defined, whatever is so called elsewhere.
    value: Option<Seen>,
    /// Whether it is data from outside of the project.
    outside: bool,
}

impl Item {
    fn outside(data: &Json) -> Self {
        Self { value: Some(Seen::of(data, BTreeSet::new())), outside: true }
    }
}

/// What an argument of a composite kind is inside of it.
#[derive(Clone, Debug)]
pub(super) enum Argument {
    /// This.
    Known {
        /// Plain data; secrets in it are wrapped.
        value: Json,
        /// Whether it is made of data from outside of the project.
        outside: bool,
    },
    /// It needs facts that are not known yet.
    Unknown,
    /// It is not given: it is not defined.
    None,
}

/// Where the item of a loop comes from.
#[derive(Clone)]
struct Loop {
    around: Arc<Inner>,
    items: Arc<Node>,
    index: usize,
}

#[derive(Clone)]
struct Cached {
    outcome: Outcome,
    /// Whether data from outside of the project is in it.
    outside: bool,
    /// Whether others may go before it, or before what it uses.
    assumed: bool,
}

#[derive(Clone)]
enum Outcome {
    Known(Seen),
    Unknown,
    Failed(Arc<Diagnostic>),
}

impl Scope {
    /// A scope of layers (lowest first), magic variables (`host`, `groups`, `inventory_hostname`, …;
    /// plain data, see [`super::value_of`]) and facts.
    pub fn new(
        templates: Arc<Templates>,
        layers: Vec<Arc<Layer>>,
        magic: BTreeMap<String, Value>,
        facts: Facts,
    ) -> Self {
        let facts = match facts {
            Facts::Known(facts) => Some(value::value_of(&facts)),
            Facts::Partly(facts, unasked) => Some(value::partly_known(&facts, unasked)),
            Facts::Unknown => None,
        };
        let inner = Inner {
            templates,
            layers,
            magic: Arc::new(magic),
            facts,
            items: BTreeMap::new(),
            open: None,
            loops: BTreeMap::new(),
            told: None,
            cache: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The same; whenever the facts are used it is noted that those of `host` are.
    #[must_use]
    pub fn telling(&self, host: &str, all: &Arc<HostVariables>) -> Self {
        let mut inner = self.inner.renewed();
        inner.told = Some((Arc::clone(all), String::from(host)));
        Self { inner: Arc::new(inner) }
    }

    /// The same where variables may also be defined elsewhere: a name that nothing defines here is not
    /// known, and what the lowest `defaults` layers say is only assumed.
    #[must_use]
    pub fn open(&self, defaults: usize) -> Self {
        Self { inner: Arc::new(Inner { open: Some(defaults), ..self.inner.renewed() }) }
    }

    /// Whether a name that nothing defines here may be defined elsewhere.
    pub(super) fn is_open(&self) -> bool {
        self.inner.open.is_some()
    }

    /// The same with a value that is not known, such as the item of a loop over facts.
    pub(super) fn with_unknown(&self, name: &str) -> Self {
        let mut inner = self.inner.renewed();
        let item = Item { value: Some(Seen::plain(unknown())), outside: false };
        inner.items.insert(Arc::from(name), item);
        Self { inner: Arc::new(inner) }
    }

    /// The same with a further layer on top.
    #[must_use]
    pub fn with_layer(&self, layer: Arc<Layer>) -> Self {
        let mut inner = self.inner.renewed();
        inner.layers.push(layer);
        Self { inner: Arc::new(inner) }
    }

    /// The same with a value that goes before everything else, for example the item of a loop. It
    /// is plain data: templates in it are not evaluated, and it never reaches `lookup('pipe')`.
    #[must_use]
    pub fn with_value(&self, name: &str, value: Json) -> Self {
        let mut inner = self.inner.renewed();
        inner.items.insert(Arc::from(name), Item::outside(&value));
        Self { inner: Arc::new(inner) }
    }

    /// The same with the arguments of a composite kind, which go before everything else.
    pub(super) fn with_arguments(&self, arguments: Vec<(Arc<str>, Argument)>) -> Self {
        let mut inner = self.inner.renewed();
        for (name, argument) in arguments {
            let item = match argument {
                Argument::Known { value, outside } => {
                    Item { value: Some(Seen::of(&value, BTreeSet::new())), outside }
                }
                Argument::Unknown => Item { value: Some(Seen::plain(unknown())), outside: false },
                Argument::None => Item { value: None, outside: false },
            };
            inner.loops.remove(&name);
            inner.items.insert(name, item);
        }
        Self { inner: Arc::new(inner) }
    }

    /// The same with the item of a loop: the one at `index` of what `items` come to here.
    pub(super) fn with_item(
        &self,
        name: &str,
        value: &Json,
        items: &Arc<Node>,
        index: usize,
    ) -> Self {
        let mut inner = self.inner.renewed();
        inner.items.insert(Arc::from(name), Item::outside(value));
        let origin = Loop { around: self.inner.clone(), items: items.clone(), index };
        inner.loops.insert(Arc::from(name), origin);
        Self { inner: Arc::new(inner) }
    }

    /// Whether facts lead the name of a local file elsewhere: it would have other folders with plain
    /// words in place of their `/` and `..`.
    pub(super) fn facts_lead(&self, node: &Node, name: &str) -> bool {
        if !name.contains('/') && name != ".." {
            return false;
        }
        let (_, marks) = watched(|| self.evaluate(node));
        if !marks.outside {
            return false;
        }
        match (Self { inner: self.inner.plain() }).evaluate(node) {
            Ok(Evaluated::Known(Json::String(plain))) => !same_folders(&plain, name),
            _ => true,
        }
    }

    /// A whole tree with its templates evaluated. A scalar that is exactly one expression has that
    /// expression's type; keys of mappings are taken as they are.
    pub fn evaluate(&self, node: &Node) -> Result<Evaluated, Diagnostic> {
        Ok(evaluated(self.inner.json(node)?))
    }

    /// The value of an expression, given without braces (`loop: users`) or as a template; whatever
    /// is no text is evaluated as by [`Scope::evaluate`].
    pub fn expression(&self, node: &Node) -> Result<Evaluated, Diagnostic> {
        match &node.kind {
            Kind::Scalar(scalar) if is_expression(scalar) => {
                Ok(evaluated(self.inner.bare(&scalar.text, node)?))
            }
            _ => self.evaluate(node),
        }
    }

    /// Whether a `when` holds: an expression, a boolean, or a list of which all must hold (the
    /// first one that does not ends it).
    pub fn condition(&self, node: &Node) -> Result<Truth, Diagnostic> {
        let Some(items) = node.items() else { return self.one_condition(node) };
        let mut truth = Truth::True;
        for item in items {
            match (self.condition(item), truth) {
                (Ok(Truth::False), _) => return Ok(Truth::False),
                (Ok(Truth::Unknown), _) => truth = Truth::Unknown,
                (Ok(Truth::True), _) => {}
                // What is not known yet may be what guards this one.
                (Err(diagnostic), Truth::Unknown) if diagnostic.code == UNDEFINED => {}
                (Err(diagnostic), _) => return Err(diagnostic),
            }
        }
        Ok(truth)
    }

    fn one_condition(&self, node: &Node) -> Result<Truth, Diagnostic> {
        let (value, marks) = watched(|| match &node.kind {
            Kind::Scalar(scalar) if is_expression(scalar) => match as_boolean(&scalar.text) {
                Some(boolean) => Ok(Some(Json::Bool(boolean))),
                None => self.inner.bare(&scalar.text, node),
            },
            _ => self.inner.json(node),
        });
        let Some(value) = value?.filter(|_| !marks.assumed).map(taint::reveal) else {
            return Ok(Truth::Unknown);
        };
        // Braces with something around them make text, which is never what was meant.
        let pasted = node
            .as_text()
            .is_some_and(|text| is_template(text) && Form::of_scalar(text) == Form::Text);
        let holds = match &value {
            // An empty `when:` asks for nothing.
            Json::Null => node.is_null(),
            Json::Bool(boolean) => *boolean,
            Json::Number(number) => number.as_f64() != Some(0.0),
            Json::String(text) => match as_boolean(text) {
                Some(boolean) => boolean,
                None if pasted => {
                    let message = "a condition has to be an expression, and this gives a text";
                    return Err(Diagnostic::error("condition", message)
                        .at(node.span, "")
                        .help("write it without braces: `when: port == 80`"));
                }
                None => !text.is_empty(),
            },
            Json::Array(items) => !items.is_empty(),
            Json::Object(_) if node.entries().is_some() => {
                let message = format!(
                    "a condition has to be an expression or a list of them, not {}",
                    describe_json(&value)
                );
                return Err(Diagnostic::error("condition", message).at(node.span, ""));
            }
            Json::Object(entries) => !entries.is_empty(),
        };
        Ok(if holds { Truth::True } else { Truth::False })
    }

    /// Renders a template file that was found already; `mention` is where the project names it.
    pub fn render_file(&self, path: &Path, mention: Span) -> Result<Rendered, Diagnostic> {
        let unreadable = |why: &str| {
            let message = format!("the template `{}` cannot be read: {why}", path.display());
            Diagnostic::error("unreadable-file", message).at(mention, "")
        };
        let name = path.to_str().ok_or_else(|| unreadable("its name is not UTF-8"))?;
        let (_, source) = self.inner.templates.read(path).map_err(|why| unreadable(&why))?;
        let (result, used) = taint::using(|| self.inner.run(Form::File, name, Site::File(mention)));
        let Some(data) = result? else { return Ok(Rendered::Unknown) };
        let mut mask = Mask::default();
        let (plain, parts) = match taint::secret(&data) {
            Some(secret) => (secret.value, secret.parts.unwrap_or_default()),
            None => (&data, Vec::new()),
        };
        let text = plain.as_str().map_or_else(|| plain.to_string(), str::to_owned);
        mask.add_parts(&text, &parts);
        used.iter().for_each(|secret| mask.add_text(secret));
        Ok(Rendered::Known(with_line_ends_of(text, &source), mask))
    }

    /// The layers of variables, lowest first.
    pub(super) fn layers(&self) -> &[Arc<Layer>] {
        &self.inner.layers
    }

    /// What compiles its templates.
    pub(super) fn templates(&self) -> &Templates {
        &self.inner.templates
    }

    /// The keys for secrets.
    pub(super) fn keyring(&self) -> &crate::secret::Keyring {
        self.inner.templates.keyring()
    }

    /// Whether a name means something here.
    pub fn defined(&self, name: &str) -> bool {
        self.inner.is_defined(name)
    }
}

/// A result with at least as many line ends at its end as its template has. Jinja drops one of each
/// template, and Ansible puts back those of the outermost.
pub(super) fn with_line_ends_of(mut text: String, template: &str) -> String {
    let count = |text: &str| text.len() - text.trim_end_matches('\n').len();
    let missing = count(template).saturating_sub(count(&text));
    text.extend(std::iter::repeat_n('\n', missing));
    text
}

/// A value whose texts have no `/` and no `..`.
fn without_paths(value: &Value) -> Json {
    fn plain(json: Json) -> Json {
        let text = |text: String| text.replace('/', "_").replace("..", "__");
        match json {
            Json::String(one) => Json::String(text(one)),
            Json::Array(items) => items.into_iter().map(plain).collect(),
            Json::Object(entries) => {
                entries.into_iter().map(|(key, value)| (text(key), plain(value))).collect()
            }
            other => other,
        }
    }
    plain(value::json_of(value).unwrap_or_default())
}

/// Whether two paths go up and down in the same way.
fn same_folders(left: &str, right: &str) -> bool {
    let steps = |path: &str| -> Vec<bool> {
        let parts = Path::new(path).components();
        parts.map(|part| matches!(part, Component::Normal(_))).collect()
    };
    steps(left) == steps(right)
}

/// The text that a template makes, as far as it may.
#[derive(Default)]
struct Bounded(Vec<u8>);

impl Bounded {
    fn is_full(&self) -> bool {
        self.0.len() > TEXT_LIMIT
    }
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(&bytes[..bytes.len().min(TEXT_LIMIT + 1 - self.0.len())]);
        taint::note_length(self.0.len());
        if self.is_full() { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn evaluated(value: Option<Json>) -> Evaluated {
    value.map_or(Evaluated::Unknown, Evaluated::Known)
}

/// Whether a scalar is to be read as an expression: text without braces.
fn is_expression(scalar: &Scalar) -> bool {
    !is_template(&scalar.text) && matches!(scalar.resolve(), Resolved::Text(_))
}

/// Words that are taken for booleans where one is expected.
fn as_boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

impl Inner {
    /// The same with nothing evaluated so far.
    fn renewed(&self) -> Self {
        Self {
            templates: self.templates.clone(),
            layers: self.layers.clone(),
            magic: self.magic.clone(),
            facts: self.facts.clone(),
            items: self.items.clone(),
            open: self.open,
            loops: self.loops.clone(),
            told: self.told.clone(),
            cache: Mutex::default(),
        }
    }

    /// The same with facts that cannot be parts of paths.
    fn plain(&self) -> Arc<Self> {
        let mut plain = self.renewed();
        plain.facts = self.facts.as_ref().map(|facts| value::value_of(&without_paths(facts)));
        for (name, origin) in &self.loops {
            let around = Scope { inner: origin.around.plain() };
            let items = around.expression(&origin.items);
            let item = match items {
                Ok(Evaluated::Known(Json::Array(items))) => items.get(origin.index).cloned(),
                _ => None,
            };
            let item =
                item.or_else(|| Some(without_paths(&self.items.get(name)?.value.as_ref()?.give())));
            plain.items.extend(item.map(|item| (name.clone(), Item::outside(&item))));
        }
        for (name, item) in self.items.iter().filter(|(name, _)| !self.loops.contains_key(*name)) {
            if let Some(value) = item.value.as_ref().filter(|_| item.outside) {
                plain.items.insert(name.clone(), Item::outside(&without_paths(&value.give())));
            }
        }
        Arc::new(plain)
    }

    /// The value of a node; none if it is not known yet.
    fn json(self: &Arc<Self>, node: &Node) -> Result<Option<Json>, Diagnostic> {
        match &node.kind {
            Kind::Scalar(scalar) => self.scalar(scalar, node),
            Kind::Sequence(items) => {
                let mut values = Some(Vec::with_capacity(items.len()));
                for item in items.iter() {
                    match (self.json(item)?, &mut values) {
                        (Some(value), _) if value.as_str() == Some(OMIT) => {}
                        (Some(value), Some(values)) => values.push(value),
                        _ => values = None,
                    }
                }
                Ok(values.map(Json::Array))
            }
            Kind::Mapping(entries) => {
                let mut values = Some(Map::new());
                for (key, value) in entries.iter() {
                    let key = key.as_text().unwrap_or_default();
                    match (self.json(value)?, &mut values) {
                        (Some(value), _) if value.as_str() == Some(OMIT) => {}
                        (Some(value), Some(values)) => {
                            values.insert(key.to_owned(), value);
                        }
                        _ => values = None,
                    }
                }
                Ok(values.map(Json::Object))
            }
        }
    }

    fn scalar(self: &Arc<Self>, scalar: &Scalar, node: &Node) -> Result<Option<Json>, Diagnostic> {
        if scalar.secret {
            let shown = Scalar { secret: false, ..scalar.clone() };
            return Ok(self.scalar(&shown, node)?.map(taint::hide));
        }
        match scalar.tag.as_deref() {
            None | Some("str") => {}
            Some("secret" | "vault" | "vault-encrypted") => return self.encrypted(scalar, node),
            // Ansible's mark for text that only looks like a template.
            Some("unsafe") => return Ok(Some(Json::String(scalar.text.to_string()))),
            Some("int" | "float" | "bool" | "null") => {
                let plain = Scalar { style: Style::Plain, tag: None, ..scalar.clone() };
                return Ok(Some(resolved(plain.resolve())));
            }
            Some(_) if scalar.secret || self.templates.sources().is_hidden(node.span.source) => {
                let message =
                    "a tag is not understood here; a value that begins with `!` needs quotes";
                return Err(Diagnostic::error("unknown-tag", message).at(node.span, ""));
            }
            Some(tag) => {
                let message = format!("the tag `!{tag}` is not understood here");
                return Err(Diagnostic::error("unknown-tag", message).at(node.span, ""));
            }
        }
        if !is_template(&scalar.text) {
            return Ok(Some(resolved(scalar.resolve())));
        }
        let form = Form::of_scalar(&scalar.text);
        let value = self.run(form, &scalar.text, Site::Scalar(node))?;
        if let Some(secret) = value.as_ref().and_then(taint::secret) {
            return Ok(Some(match (secret.value, secret.parts) {
                (Json::String(text), _) if text == OMIT => Json::String(text.clone()),
                (Json::String(text), Some(parts)) => {
                    taint::hide_parts(with_line_ends_of(text.clone(), &scalar.text), &parts)
                }
                (Json::String(text), None) => {
                    taint::hide(Json::String(with_line_ends_of(text.clone(), &scalar.text)))
                }
                (other, _) => taint::hide(other.clone()),
            }));
        }
        match value {
            Some(Json::String(text)) if text == OMIT => Ok(Some(Json::String(text))),
            Some(Json::String(text)) if form == Form::Text && text.contains(OMIT) => {
                Err(Diagnostic::error("template", OMIT_IN_TEXT).at(node.span, ""))
            }
            Some(Json::String(text)) => {
                Ok(Some(Json::String(with_line_ends_of(text, &scalar.text))))
            }
            other => Ok(other),
        }
    }

    /// A value that is encrypted by itself. What is in it may be a template, as in Ansible.
    fn encrypted(
        self: &Arc<Self>,
        scalar: &Scalar,
        node: &Node,
    ) -> Result<Option<Json>, Diagnostic> {
        match opened(&scalar.text, self.templates.keyring()) {
            Ok(text) => {
                let plain = Scalar { text, style: Style::Quoted, tag: None, secret: true };
                self.scalar(&plain, &Node { span: node.span, kind: Kind::Scalar(plain.clone()) })
            }
            Err(KeyError::Missing { .. }) if self.templates.keyring().may_miss() => {
                mark_unknown();
                Ok(None)
            }
            Err(error) => Err(stays_closed(&error, node.span)),
        }
    }

    /// The value of an expression without braces.
    fn bare(self: &Arc<Self>, text: &str, node: &Node) -> Result<Option<Json>, Diagnostic> {
        let (wrapped, _) = Form::Bare.wrapped(text);
        if expression_end(&wrapped, 2).is_some_and(|end| end != wrapped.len()) {
            let message = "this is not one expression: it has a `}}` in it";
            return Err(Diagnostic::error("template-syntax", message).at(node.span, ""));
        }
        self.run(Form::Bare, text, Site::Scalar(node))
    }

    fn run(
        self: &Arc<Self>,
        form: Form,
        text: &str,
        site: Site<'_>,
    ) -> Result<Option<Json>, Diagnostic> {
        let explain = |error: &Error| {
            let fault = Fault { templates: &self.templates, names: self, site };
            watched(|| fault.explain(error)).0
        };
        let closed =
            matches!(site, Site::Scalar(Node { kind: Kind::Scalar(one), .. }) if one.secret);
        let unread = |error: &Error| without_values(explain(error), closed, closed);
        let environment = self.templates.environment(form, text).map_err(|error| unread(&error))?;
        let template = environment.get_template(&form.name(text));
        let template = template.map_err(|error| unread(&error))?;
        let mut output = Bounded::default();
        let captures = match form {
            Form::File => self.templates.file(text).is_none_or(|(_, text)| taint::captures(&text)),
            _ => taint::captures(text),
        };
        let (result, marks) = watched(|| {
            written(|| {
                taint::writing(captures, || {
                    let root = Value::from_object(Root(self.clone()));
                    value::with_root(&root, || {
                        template.render_captured_to(&root, &mut output).map(drop)
                    })
                })
            })
        });
        let ((result, parts), written) = result;
        match result {
            Ok(_) if marks.unknown => Ok(None),
            Ok(()) => {
                let text = String::from_utf8(output.0).unwrap_or_default();
                Ok(Some(match written {
                    Written::Data(value) if marks.secret => taint::hide(value),
                    Written::Data(value) => value,
                    Written::Nothing if form != Form::File && text.is_empty() => Json::Null,
                    // Statements around a lone expression leave its type alone.
                    Written::One(value)
                        if form == Form::Text
                            && python::text(&value).is_ok_and(|one| one == text) =>
                    {
                        let data = value::data_of(&value).unwrap_or(Json::String(text));
                        if marks.secret { taint::hide(data) } else { data }
                    }
                    // A file's words are public, whatever decides whether they stand there.
                    _ if marks.secret && (form == Form::File || !parts.is_empty()) => {
                        taint::hide_parts(text, &parts)
                    }
                    _ if marks.secret => taint::hide(Json::String(text)),
                    _ => Json::String(text),
                }))
            }
            Err(_) if output.is_full() => {
                let message = format!("the template makes more than {} MiB", TEXT_LIMIT >> 20);
                let text = match site {
                    Site::Scalar(node) => node.span,
                    Site::File(mention) => mention,
                };
                Err(Diagnostic::error("template-limit", message).at(text, ""))
            }
            Err(error)
                if (marks.unknown || marks.assumed)
                    && !is_certain(&error, |name| self.is_defined(name)) =>
            {
                Ok(None)
            }
            Err(error) => Err(without_values(explain(&error), marks.secret || closed, closed)),
        }
    }

    fn is_defined(&self, name: &str) -> bool {
        is_facts(name)
            || self.items.get(name).is_some_and(|item| item.value.is_some())
            || self.magic.contains_key(name)
            || self.layers.iter().any(|layer| layer.locked || layer.variables.contains_key(name))
    }

    /// What a template sees under a name.
    fn lookup(self: &Arc<Self>, name: &str) -> Option<Value> {
        if let Some(item) = self.items.get(name) {
            if item.outside {
                mark_outside();
            }
            // A comparison with a text would not ask it.
            if item.value.as_ref().is_some_and(Seen::is_unknown) {
                mark_unknown();
            }
            return item.value.as_ref().map(Seen::give);
        }
        if is_facts(name) {
            mark_outside();
            if let Some((all, host)) = &self.told {
                all.note_use(host);
            }
            return Some(self.facts.clone().unwrap_or_else(unknown));
        }
        if let Some(value) = self.magic.get(name) {
            if name == "hostvars" {
                mark_outside();
            }
            return Some(value.clone());
        }
        let Some(cached) = self.variable(name) else {
            // It may stand in a file that is encrypted.
            let hidden = || self.layers.iter().any(|layer| layer.locked);
            let own = name == "omit" || function_names().contains(&name);
            let elsewhere = !own && (self.open.is_some() || hidden());
            return elsewhere.then(|| {
                mark_unknown();
                unknown()
            });
        };
        if cached.outside {
            mark_outside();
        }
        if cached.assumed {
            mark_assumed();
        }
        match cached.outcome {
            Outcome::Known(seen) => Some(seen.give()),
            Outcome::Unknown => {
                mark_unknown();
                Some(unknown())
            }
            // As in Ansible, what uses something undefined is undefined: `default` works on it.
            Outcome::Failed(diagnostic) if diagnostic.code == UNDEFINED => None,
            Outcome::Failed(diagnostic) => {
                let diagnostic = Diagnostic::clone(&diagnostic);
                let error = Error::new(ErrorKind::InvalidOperation, diagnostic.message.clone());
                Some(Value::from(error.with_source(Carried(diagnostic))))
            }
        }
    }

    /// A variable of the layers, evaluated once.
    fn variable(self: &Arc<Self>, name: &str) -> Option<Cached> {
        let (layer, (name, node)) = self
            .layers
            .iter()
            .enumerate()
            .rev()
            .find_map(|(index, layer)| Some((index, layer.variables.get_key_value(name)?)))?;
        if let Some(cached) = self.cached(name) {
            return Some(cached);
        }
        // What fails here is part of a chain that is being evaluated: its ends keep the error.
        let entered = match Entered::new(Arc::as_ptr(self) as usize, name, node.span) {
            Ok(entered) => entered,
            Err(diagnostic) => {
                let outcome = Outcome::Failed(Arc::new(diagnostic));
                return Some(Cached { outcome, outside: false, assumed: false });
            }
        };
        let ((result, used), marks) = watched(|| taint::using(|| self.json(node)));
        drop(entered);
        let outcome = match result {
            Ok(Some(json)) => Outcome::Known(Seen::of(&json, used)),
            Ok(None) => Outcome::Unknown,
            Err(diagnostic) => Outcome::Failed(Arc::new(diagnostic)),
        };
        let assumed = marks.assumed || self.open.is_some_and(|defaults| layer < defaults);
        let cached = Cached { outcome, outside: marks.outside, assumed };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(name.clone(), cached.clone());
        Some(cached)
    }

    fn cached(&self, name: &str) -> Option<Cached> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn visible_names(&self) -> Vec<String> {
        let mut names: Vec<String> = vec![String::from("facts")];
        let items = self.items.iter().filter(|(_, item)| item.value.is_some());
        names.extend(items.map(|(name, _)| name.to_string()));
        names.extend(self.magic.keys().cloned());
        let variables = self.layers.iter().flat_map(|layer| layer.variables.keys());
        names.extend(variables.map(|name| name.to_string()));
        names.sort();
        names.dedup();
        names
    }
}

fn is_facts(name: &str) -> bool {
    matches!(name, "facts" | "ansible_facts")
}

/// A scalar of the core schema as JSON.
pub(super) fn resolved(value: Resolved) -> Json {
    match value {
        Resolved::Null => Json::Null,
        Resolved::Boolean(value) => Json::Bool(value),
        Resolved::Integer(value) => Json::from(value),
        // JSON has no infinities: they stay the text that they were.
        Resolved::Float(value) => serde_json::Number::from_f64(value)
            .map_or_else(|| Json::String(value.to_string()), Json::Number),
        Resolved::Text(text) => Json::String(text.to_string()),
    }
}

impl Names for Arc<Inner> {
    fn names(&self) -> Vec<String> {
        self.visible_names()
    }

    fn value(&self, name: &str) -> Option<Value> {
        self.lookup(name).filter(|value| value.kind() != ValueKind::Invalid)
    }

    fn undefined_because(&self, name: &str) -> Option<Diagnostic> {
        if is_facts(name) || self.items.contains_key(name) || self.magic.contains_key(name) {
            return None;
        }
        match self.cached(name)?.outcome {
            Outcome::Failed(diagnostic) if diagnostic.code == UNDEFINED => {
                Some(Diagnostic::clone(&diagnostic))
            }
            _ => None,
        }
    }
}

thread_local! {
    /// The variables that are being evaluated on this thread, outermost first.
    static ENTERED: RefCell<Vec<(usize, Arc<str>, Span)>> = const { RefCell::new(Vec::new()) };
}

/// A variable that is being evaluated, until it is dropped.
struct Entered;

impl Entered {
    fn new(scope: usize, name: &Arc<str>, span: Span) -> Result<Self, Diagnostic> {
        ENTERED.with_borrow_mut(|entered| {
            let earlier =
                entered.iter().position(|(other, known, _)| *other == scope && known == name);
            if let Some(from) = earlier {
                return Err(cycle(&entered[from..]));
            }
            if entered.len() >= DEPTH_LIMIT {
                let message = format!("more than {DEPTH_LIMIT} variables need one another");
                return Err(Diagnostic::error("variable-depth", message).at(span, ""));
            }
            entered.push((scope, name.clone(), span));
            Ok(Self)
        })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        ENTERED.with_borrow_mut(|entered| entered.pop());
    }
}

fn cycle(members: &[(usize, Arc<str>, Span)]) -> Diagnostic {
    let mut diagnostic = match members.first() {
        Some((_, name, _)) => {
            Diagnostic::error(CYCLE, format!("the variable `{name}` needs itself"))
        }
        None => Diagnostic::error(CYCLE, "a variable needs itself"),
    };
    let following = members.iter().cycle().skip(1);
    for ((_, name, span), (_, next, _)) in members.iter().zip(following) {
        diagnostic = diagnostic.at(*span, format!("`{name}` needs `{next}`"));
    }
    diagnostic
}

/// All names of a scope, as the template engine and `hostvars` see them.
struct Root(Arc<Inner>);

impl fmt::Debug for Root {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the variables of a host")
    }
}

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.lookup(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.0.lookup(key)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        // `hostvars` has every host's variables, and so would have itself in itself.
        let names = self.0.visible_names().into_iter().filter(|name| name != "hostvars");
        Enumerator::Values(names.map(Value::from).collect())
    }
}

/// `hostvars`: the scopes of all hosts by name. It is part of every scope, so it is made before
/// them and filled afterwards.
#[derive(Default)]
pub struct HostVariables {
    scopes: RwLock<BTreeMap<String, Scope>>,
    /// Hosts whose facts something has used.
    used: Mutex<BTreeSet<String>>,
}

impl fmt::Debug for HostVariables {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the variables of all hosts")
    }
}

impl HostVariables {
    /// The value for the magic variable `hostvars`.
    pub fn value(self: &Arc<Self>) -> Value {
        Value::from_dyn_object(self.clone())
    }

    /// Takes the scope of a host, in place of the one that it had.
    pub fn set(&self, host: String, scope: Scope) {
        self.scopes.write().unwrap_or_else(PoisonError::into_inner).insert(host, scope);
    }

    fn note_use(&self, host: &str) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if !used.contains(host) {
            used.insert(host.to_owned());
        }
    }

    /// The hosts whose facts something has used so far.
    pub fn used(&self) -> BTreeSet<String> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn scopes(&self) -> RwLockReadGuard<'_, BTreeMap<String, Scope>> {
        self.scopes.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Object for HostVariables {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let inner = self.scopes().get(key.as_str()?)?.inner.clone();
        Some(Value::from_object(Root(inner)))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.scopes().keys().map(Value::from).collect())
    }
}

#[cfg(test)]
mod secrets;
#[cfg(test)]
mod tests;
