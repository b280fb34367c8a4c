use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use globset::GlobMatcher;
use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::arguments::{Reading, Secrets, Taken, brief, has_template, secret_argument};
use super::common_keys::{self, Inherited};
use super::composite::Use;
use super::conditions::{Holds, conditions, is_variable, items_of};
use super::contents::{ContentStore, Fetch};
use super::declaration::{Common, Declaration, Skipped, Used};
use super::files::Materials;
use super::health::OnFailure;
use super::include::Include;
use super::keys::{Key, identity_text, keys};
use super::layer::Layer;
use super::play::{Item, Play, split_tags};
use super::references::{Names, Pattern, exact_form, plain_service};
use super::scope::Scope;
use super::state::State;
use super::unite::{Built, check_aliases, check_overlaps, unite};
use super::yaml::Node;
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::kind::{Declared, Shape};
use crate::resource::ResourceId;

/// What a command line and an inventory say about the states of one host.
#[derive(Clone, Default)]
pub struct CompileOptions {
    /// Only states with one of these labels (and those with `always`); empty for all.
    pub tags: Vec<String>,
    /// No states with one of these labels.
    pub skip_tags: Vec<String>,
    /// Only the states that these references mean (`kind:key`, globs, `id`s); empty for all.
    pub only: Vec<String>,
    /// Who logs in on the host, if that is known; becoming that user is nothing to do.
    pub login: Option<String>,
    /// Whether states become another user where neither they nor the play say so.
    pub becomes: bool,
    /// Whom to become where neither the state nor the play says so; `root` by default.
    pub become_user: Option<String>,
    /// The variables of the command line, which stay above those of an include.
    pub extra: Option<Arc<Layer>>,
    /// For `http(s)` addresses, if they can be fetched.
    pub fetch: Option<Arc<dyn Fetch>>,
}

impl Play {
    /// What the play declares for the host whose variables `scope` has, in the order of the source.
    ///
    /// What is wrong goes into `diagnostics`, and everything that could be made is given all the
    /// same. Facts may be unknown: what depends on them is then [`Skipped::Undecided`] or has no
    /// [`Declaration::declared`]; neither has a state whose `when` is false.
    pub fn compile(
        &self,
        scope: &Scope,
        options: &CompileOptions,
        contents: &ContentStore,
        diagnostics: &mut Diagnostics,
    ) -> Vec<Declaration> {
        scope.layers().iter().for_each(|layer| layer.check_names(diagnostics));
        let mut reading = Reading::new(scope, false, diagnostics);
        let inherited = Arc::new(self.inherited(&mut reading, options));
        let tags = tags_of(&mut reading, self.tags.as_ref(), &[]);
        let mut compiler = Compiler {
            options,
            contents,
            diagnostics,
            built: Vec::new(),
            unknown: self.broken.iter().cloned().collect(),
            nothing: HashSet::new(),
            nothing_like: Vec::new(),
            commands: HashMap::new(),
        };
        let context = Context { scope: scope.clone(), tags, skipped: None, inherited, outer: None };
        compiler.items(&self.items, &context);
        let declarations = compiler.finish();
        check_confirmed(&declarations, diagnostics);
        if self.on_failure == OnFailure::Rollback {
            check_reversible(&declarations, diagnostics);
        }
        declarations
    }
}

impl Play {
    /// What its states inherit.
    pub(super) fn inherited(
        &self,
        reading: &mut Reading<'_>,
        options: &CompileOptions,
    ) -> Inherited {
        let mut environment = IndexMap::new();
        if let Some(node) = &self.environment {
            common_keys::add_environment(reading, node, &mut environment);
        }
        let becomes = self.becomes.as_ref().and_then(|node| reading.boolean("become", node));
        let become_user = self.become_user.as_ref();
        let become_user = become_user.and_then(|node| common_keys::user_name(reading, node));
        Inherited {
            becomes: becomes.unwrap_or(options.becomes),
            become_user: become_user
                .or_else(|| options.become_user.clone())
                .unwrap_or_else(|| "root".to_owned()),
            login: options.login.clone(),
            environment,
            mask: std::mem::take(&mut reading.mask),
        }
    }
}

/// Says which states could not be taken back if nobody could log in after them.
fn check_confirmed(declarations: &[Declaration], diagnostics: &mut Diagnostics) {
    for declaration in declarations.iter().filter(|one| one.skipped.is_none()) {
        let Some(declared) = &declaration.declared else { continue };
        let confirmed = declaration.common.confirm_connection.is_some_and(|within| within > 0);
        if confirmed && declared.kind().is_irreversible() {
            let message = format!("`confirm_connection` cannot take {} back", declaration.id);
            diagnostics.push(
                Diagnostic::error("irreversible", message)
                    .at(declaration.span, "")
                    .help("give it `undo`"),
            );
        }
    }
}

/// Says which states a rollback could not take back, and do not say that they know.
fn check_reversible(declarations: &[Declaration], diagnostics: &mut Diagnostics) {
    for declaration in declarations.iter().filter(|one| one.skipped.is_none()) {
        let Some(declared) = &declaration.declared else { continue };
        if declared.kind().is_irreversible() && !declaration.common.irreversible {
            let message = format!("`on_failure: rollback` cannot take {} back", declaration.id);
            let help = "give it `undo`, or say `irreversible: true`";
            diagnostics.push(
                Diagnostic::error("irreversible", message).at(declaration.span, "").help(help),
            );
        }
    }
}

/// What holds for the states at one place: of the play, of an include, or of a composite kind.
pub(super) struct Context {
    pub(super) scope: Scope,
    pub(super) tags: Vec<String>,
    pub(super) skipped: Option<Skipped>,
    pub(super) inherited: Arc<Inherited>,
    /// What holds inside of a composite kind.
    pub(super) outer: Option<Arc<Outer>>,
}

/// What a state of a composite kind says about all inside.
pub(super) struct Outer {
    pub(super) common: Common,
    pub(super) label: Option<String>,
    /// That state, and those that it is inside of, outermost first.
    pub(super) used: Vec<Used>,
}

impl Context {
    /// Templates of what is not there need not evaluate.
    fn lenient(&self) -> bool {
        matches!(self.skipped, Some(Skipped::When(_)))
    }
}

pub(super) struct Compiler<'a> {
    options: &'a CompileOptions,
    contents: &'a ContentStore,
    pub(super) diagnostics: &'a mut Diagnostics,
    built: Vec<Built>,
    /// Kinds of states whose keys are not known: references to them cannot be checked. An empty
    /// name stands for any kind.
    pub(super) unknown: HashSet<String>,
    /// References to states whose loops have no items.
    nothing: HashSet<String>,
    /// The same where the references have templates in them.
    nothing_like: Vec<GlobMatcher>,
    /// Where identities of commands were first given, and how often at that place.
    commands: HashMap<String, (Span, usize)>,
}

/// How often a state stands, and with which variables.
pub(super) enum Repeated {
    Once,
    Each(Vec<Scope>),
    /// That needs facts; the scope is that of an item that is not known.
    Unknown(Scope),
    /// It cannot be told; why is said here.
    Wrong(Scope, Diagnostics),
}

impl Compiler<'_> {
    pub(super) fn items(&mut self, items: &[Item], context: &Context) {
        for item in items {
            match item {
                Item::State(state) => self.state(state, context),
                Item::Include(include) => self.include(include, context),
                Item::Use(one) => self.composite(one, context),
            }
        }
    }

    fn include(&mut self, include: &Include, context: &Context) {
        let repeated = self.repeated(
            include.looped.as_ref(),
            include.loop_var.as_ref(),
            include.when.as_ref(),
            context,
        );
        match repeated {
            Repeated::Once => self.include_once(include, &context.scope, context, None),
            Repeated::Each(scopes) => {
                if scopes.is_empty() {
                    self.none_of(&include.items, context);
                }
                for scope in &scopes {
                    self.include_once(include, scope, context, None);
                }
            }
            Repeated::Unknown(scope) => {
                self.unknown.insert(String::new());
                self.include_once(include, &scope, context, Some(Skipped::Undecided));
            }
            // The states cannot be evaluated without the item: their structure was checked.
            Repeated::Wrong(_, said) => {
                self.diagnostics.extend(said);
                self.unknown.insert(String::new());
            }
        }
    }

    /// An include with its item, if it has a loop. `forced` says that the item is not known.
    fn include_once(
        &mut self,
        include: &Include,
        scope: &Scope,
        context: &Context,
        forced: Option<Skipped>,
    ) {
        let mut scope = scope.clone();
        if let Some(vars) = &include.vars {
            vars.check_names(self.diagnostics);
            scope = scope.with_layer(vars.clone());
            if let Some(extra) = &self.options.extra {
                scope = scope.with_layer(extra.clone());
            }
        }
        let skipped = self.skipped(include.when.as_ref(), &scope, context, forced);
        let lenient = context.lenient();
        let mut reading = Reading::new(&scope, lenient, self.diagnostics);
        let tags = tags_of(&mut reading, include.tags.as_ref(), &context.tags);
        let inherited = Arc::clone(&context.inherited);
        let outer = context.outer.clone();
        self.items(&include.items, &Context { scope, tags, skipped, inherited, outer });
    }

    fn state(&mut self, state: &State, context: &Context) {
        let keys = &state.common;
        let repeated =
            self.repeated(keys.get("loop"), keys.get("loop_var"), keys.get("when"), context);
        match repeated {
            Repeated::Once => self.one(state, &context.scope, context, None),
            Repeated::Each(scopes) => {
                if scopes.is_empty() {
                    self.none(state, context);
                }
                for scope in &scopes {
                    self.one(state, scope, context, None);
                }
            }
            Repeated::Unknown(scope) => self.one(state, &scope, context, Some(Skipped::Undecided)),
            Repeated::Wrong(scope, said) => {
                self.diagnostics.extend(said);
                self.one(state, &scope, context, Some(Skipped::Undecided));
            }
        }
    }

    /// Evaluates a loop.
    pub(super) fn repeated(
        &mut self,
        looped: Option<&Node>,
        loop_var: Option<&Node>,
        when: Option<&Node>,
        context: &Context,
    ) -> Repeated {
        let Some(looped) = looped else { return Repeated::Once };
        let name = match loop_var.map(|node| (node, node.as_text())) {
            None => "item",
            Some((_, Some(name))) if is_variable(name) => name,
            Some((node, _)) => {
                let message = "`loop_var` takes the name of a variable";
                self.diagnostics.push(Diagnostic::error("wrong-type", message).at(node.span, ""));
                "item"
            }
        };
        let mut said = Diagnostics::default();
        let values = items_of(&context.scope, context.lenient(), looped, &mut said);
        let not_known = || context.scope.with_unknown(name);
        match values {
            // Elsewhere it may have items.
            Taken::Known(Value::Array(values)) if values.is_empty() && context.scope.is_open() => {
                Repeated::Unknown(not_known())
            }
            Taken::Known(Value::Array(values)) => {
                let items = Arc::new(looped.clone());
                let scope = |(index, value)| context.scope.with_item(name, value, &items, index);
                Repeated::Each(values.iter().enumerate().map(scope).collect())
            }
            Taken::Refused => {
                // A state that does not apply need not have a loop that evaluates.
                let mut ignored = Diagnostics::default();
                match conditions(&context.scope, when, &mut ignored) {
                    Holds::No(_) => Repeated::Once,
                    _ => Repeated::Wrong(not_known(), said),
                }
            }
            // `omit` as a loop: no loop.
            Taken::Omitted => Repeated::Once,
            Taken::Unknown | Taken::Known(_) => Repeated::Unknown(not_known()),
        }
    }

    /// Why something is left out, from where it stands and from its own `when`.
    pub(super) fn skipped(
        &mut self,
        when: Option<&Node>,
        scope: &Scope,
        context: &Context,
        forced: Option<Skipped>,
    ) -> Option<Skipped> {
        if context.lenient() {
            return context.skipped.clone();
        }
        match conditions(scope, when, self.diagnostics) {
            Holds::No(condition) => Some(Skipped::When(condition)),
            _ if forced.is_some() => forced,
            Holds::Yes => context.skipped.clone(),
            Holds::Unknown => Some(Skipped::Undecided),
        }
    }

    /// A state that stands for nothing, since its loop has no items: it counts as skipped.
    fn none(&mut self, state: &State, context: &Context) {
        self.nothing_called(state.common.get("id"));
        if has_template(&state.key) {
            self.nothing_at(state.spec.name, &state.key);
            return;
        }
        let diagnostics = &mut Diagnostics::default();
        let scope = &context.scope;
        for key in keys(state, &mut Reading::new(scope, true, diagnostics)) {
            self.nothing.insert(format!("{}:{}", state.spec.name, key.text));
        }
    }

    /// The same for all states of an include or of a composite kind.
    pub(super) fn none_of(&mut self, items: &[Item], context: &Context) {
        for item in items {
            match item {
                Item::State(state) => self.none(state, context),
                Item::Include(include) => self.none_of(&include.items, context),
                Item::Use(one) => self.none_used(one, context),
            }
        }
    }

    /// The same for a state of a composite kind.
    pub(super) fn none_used(&mut self, one: &Use, context: &Context) {
        self.nothing_called(one.common.get("id"));
        self.nothing_at(&one.composite.name, &one.key);
        self.none_of(&one.composite.items, context);
    }

    fn nothing_called(&mut self, id: Option<&Node>) {
        if let Some(text) = id.and_then(Node::as_text) {
            self.nothing_like.extend(whatever_is_like(text));
        }
    }

    fn nothing_at(&mut self, kind: &str, key: &Node) {
        for text in
            key.items().unwrap_or(std::slice::from_ref(key)).iter().filter_map(Node::as_text)
        {
            self.nothing_like.extend(whatever_is_like(&format!("{kind}:{text}")));
        }
    }

    /// A state with its item, if it has a loop. `forced` says that the item is not known.
    fn one(&mut self, state: &State, scope: &Scope, context: &Context, forced: Option<Skipped>) {
        let skipped = self.skipped(state.common.get("when"), scope, context, forced);
        let left_out = matches!(skipped, Some(Skipped::When(_)));
        let mut reading = Reading::new(scope, left_out, self.diagnostics);
        let materials = Materials {
            file: &state.file,
            contents: self.contents,
            fetch: self.options.fetch.as_deref(),
        };
        let (mut arguments, mut complete, secrets) = arguments(state, &mut reading, &materials);
        let mut common = common_keys::read(
            &state.common,
            state.spec.name,
            &mut reading,
            &context.inherited,
            &context.tags,
        );
        let mut label = state.common.get("name").and_then(|node| reading.text("name", node));
        let mut used = Vec::new();
        if let Some(outer) = &context.outer {
            common.apply(&outer.common);
            if state.spec.name != "service" {
                common.watch.clear();
                common.restart_on.clear();
            }
            label = label.or_else(|| outer.label.clone());
            used.clone_from(&outer.used);
        }
        let alias = state.common.get("id").and_then(|node| reading.text("id", node));
        let keys = if left_out && has_template(&state.key) {
            // Known by its name where that evaluates; what is wrong with it does not matter.
            let diagnostics = &mut Diagnostics::default();
            keys(state, &mut Reading::new(scope, false, diagnostics))
        } else {
            keys(state, &mut reading)
        };
        common.mask.add(&std::mem::take(&mut reading.mask));
        complete &= !self.named_by_secret(state, &mut arguments, &secrets);
        let identified = complete || state.spec.key.identity.is_empty();
        if !identified || keys.iter().any(|key| key.value.is_none()) {
            self.unknown.insert(state.spec.name.to_owned());
        }
        if state.common.get("id").is_some() && alias.is_none() {
            self.unknown.insert(String::new());
        }
        let count = keys.len();
        for (number, mut key) in keys.into_iter().enumerate() {
            let last = number + 1 == count;
            let mut arguments =
                if last { std::mem::take(&mut arguments) } else { arguments.clone() };
            if state.spec.name == "package" {
                self.split_version(&mut key, &mut arguments);
            }
            if state.spec.name == "service" {
                let plain = plain_service(&key.text).to_owned();
                key.value = key.value.map(|_| Value::String(plain.clone()));
                key.text = plain;
            }
            let known = key.value.is_some() && complete && !left_out;
            let partly = key.value.is_some() && !complete && !left_out;
            arguments.extend(key.value.map(|value| (state.spec.key.name.to_owned(), value)));
            arguments.extend(key.argv.map(|argv| ("argv".to_owned(), argv)));
            // What needs facts is mostly a content: what is touched is known without it.
            let touches = partly.then(|| Declared::new(state.spec.name, arguments.clone()).ok());
            let touches = touches.flatten().map(|declared| declared.kind().footprint());
            let retained = retained(&arguments);
            let id = self.identity(state, &key.text, &retained, alias.as_deref());
            let keyed = format!("{}:{}", state.spec.name, key.text);
            let mut names = vec![id.as_str(), keyed.as_str()];
            for used in &used {
                names.push(&used.name);
                names.extend(used.alias.as_deref());
            }
            let skipped = match &skipped {
                None if !self.selected(&common.tags, &names, alias.as_deref()) => {
                    Some(Skipped::Tags)
                }
                other => other.clone(),
            };
            let declared = known.then(|| Declared::new(state.spec.name, arguments));
            let declared = declared.and_then(|made| match made {
                Ok(declared) => {
                    if let Err(error) = declared.kind().check_arguments() {
                        let place = state.named_in(&error.message).unwrap_or(key.span);
                        let message = common.mask.hide(&error.message).into_owned();
                        let diagnostic = Diagnostic::error("bad-argument", message);
                        let diagnostic = diagnostic.at(place, "");
                        self.diagnostics.push(match error.help {
                            Some(help) => diagnostic.help(help),
                            None => diagnostic,
                        });
                    }
                    Some(declared)
                }
                Err(error) => {
                    let message = format!("kind `{}`: {error}", state.spec.name);
                    let message = common.mask.hide(&message).into_owned();
                    let diagnostic = Diagnostic::error("bad-argument", message);
                    self.diagnostics.push(diagnostic.at(state.kind_span, ""));
                    None
                }
            });
            let declaration = Declaration {
                id: ResourceId::new(id),
                spec: state.spec,
                key: key.text,
                declared,
                touches,
                label: label.clone(),
                alias: alias.clone(),
                skipped,
                span: state.span,
                key_span: key.span,
                common: common.clone(),
                used: used.clone(),
            };
            self.built.push(Built { declaration, arguments: retained });
        }
    }

    /// Says it if a secret would be part of the state's name; that argument is not known then.
    fn named_by_secret(
        &mut self,
        state: &State,
        arguments: &mut Map<String, Value>,
        secrets: &[&str],
    ) -> bool {
        let named_by = state.spec.key.identity.iter();
        let Some(name) = named_by.copied().find(|name| arguments.contains_key(*name)) else {
            return false;
        };
        if !secrets.contains(&name) {
            return false;
        }
        arguments.remove(name);
        let given = state.arguments.iter().find(|given| given.argument.name == name);
        let span = given.map_or(state.span, |given| given.value.span);
        let mut diagnostic = secret_argument(name, span);
        if state.spec.name == "line_in_file" {
            diagnostic = diagnostic.help("with a `match` beside it, that names the state");
        }
        self.diagnostics.push(diagnostic);
        true
    }

    /// `name=version` is a name and a version.
    fn split_version(&mut self, key: &mut Key, arguments: &mut Map<String, Value>) {
        let Some((name, version)) = key.text.split_once('=') else { return };
        if key.value.is_none() {
            return;
        }
        let (name, version) = (name.to_owned(), version.to_owned());
        if name.is_empty() || version.is_empty() {
            let message = format!("`{}` is not `name=version`", key.text);
            self.diagnostics.push(Diagnostic::error("bad-name", message).at(key.span, ""));
            key.value = None;
            return;
        }
        if arguments.insert("version".to_owned(), Value::String(version)).is_some() {
            let message =
                format!("`{}` has a version, and there is a `version` beside it", key.text);
            self.diagnostics
                .push(Diagnostic::error("exclusive-arguments", message).at(key.span, ""));
        }
        key.value = Some(Value::String(name.clone()));
        key.text = name;
    }

    /// What a resource is called within the play.
    fn identity(
        &mut self,
        state: &State,
        key: &str,
        arguments: &Map<String, Value>,
        alias: Option<&str>,
    ) -> String {
        let spec = state.spec;
        if spec.name != "command" {
            let more = spec.key.identity.iter().find_map(|name| arguments.get(*name));
            return match more.and_then(identity_text) {
                Some(more) => format!("{}:{key} [{more}]", spec.name),
                None => format!("{}:{key}", spec.name),
            };
        }
        let base = format!("command:{}", alias.map_or_else(|| brief(key), Arc::from));
        match self.commands.get_mut(&base) {
            None => {
                self.commands.insert(base.clone(), (state.span, 1));
                base
            }
            Some((place, count)) if *place == state.span => {
                let same = |one: &&Built| one.declaration.id.as_str() == base;
                let first = self.built.iter().rev().find(same);
                if first.is_some_and(|first| first.arguments == *arguments) {
                    return base;
                }
                *count += 1;
                format!("{base} #{count}")
            }
            // With the same `id` at two places it is one thing that is declared twice.
            Some(_) if alias.is_some() => base,
            Some(_) => {
                let placed = format!("{base} @{}:{}", state.place.name, state.place.line);
                let (_, count) = self.commands.entry(placed.clone()).or_insert((state.span, 0));
                *count += 1;
                if *count == 1 { placed } else { format!("{placed} #{count}") }
            }
        }
    }

    /// Whether tags and `--only` select a state, whose tags and names these are.
    fn selected(&self, tags: &[String], names: &[&str], alias: Option<&str>) -> bool {
        let options = self.options;
        let has = |tag: &str| tags.iter().any(|own| own == tag);
        if !options.only.is_empty() {
            let named = options.only.iter().any(|only| {
                let matches = |name: &str| {
                    name == exact_form(only)
                        || Pattern::new(only).glob(true).is_some_and(|glob| glob.is_match(name))
                };
                names.iter().copied().any(matches) || alias.is_some_and(matches)
            });
            if !named {
                return false;
            }
        }
        let asked = |asked: &[String]| {
            asked.iter().any(|tag| match tag.as_str() {
                "tagged" => tags.iter().any(|own| own != "always" && own != "never"),
                "untagged" => tags.is_empty(),
                "all" => !has("never"),
                tag => has(tag),
            })
        };
        if asked(&options.skip_tags) {
            return false;
        }
        if options.tags.is_empty() { !has("never") } else { has("always") || asked(&options.tags) }
    }

    fn finish(self) -> Vec<Declaration> {
        let (built, hidden) = unite(self.built, self.diagnostics);
        check_overlaps(&built, self.diagnostics);
        check_aliases(&built, self.diagnostics);
        let declarations: Vec<_> = built.into_iter().map(|built| built.declaration).collect();
        let names = Names::new(&declarations);
        for declaration in &declarations {
            let common = &declaration.common;
            let lists = [
                &common.require,
                &common.onchanges,
                &common.onfail,
                &common.watch,
                &common.restart_on,
            ];
            for reference in lists.into_iter().flatten() {
                let text = reference.reaction().unwrap_or(&reference.text);
                let kind = text.split_once(':').map(|(kind, _)| kind);
                let known =
                    |kind: &&str| crate::kind::spec(kind).is_some() || self.unknown.contains(*kind);
                let kind = kind.filter(known);
                let excused = self.unknown.contains("")
                    || hidden.contains(&reference.text)
                    || self.nothing.contains(text)
                    || self.nothing_like.iter().any(|like| like.is_match(text))
                    || kind.map_or(!self.unknown.is_empty(), |kind| self.unknown.contains(kind));
                if !excused && names.matching(reference).is_empty() {
                    let mut unknown = names.unknown(reference);
                    for used in declaration.used.iter().rev() {
                        unknown = unknown.at(used.span, "used here");
                    }
                    self.diagnostics.push(unknown);
                }
            }
        }
        declarations
    }
}

/// Matches what a text with templates may come to.
fn whatever_is_like(text: &str) -> Option<GlobMatcher> {
    let mut glob = String::new();
    let mut rest = text;
    while let Some(start) = ["{{", "{%", "{#"].iter().filter_map(|open| rest.find(open)).min() {
        glob.push_str(&globset::escape(&rest[..start]));
        glob.push('*');
        let end = match &rest[start..start + 2] {
            "{{" => "}}",
            "{%" => "%}",
            _ => "#}",
        };
        rest = rest[start..].find(end).map_or("", |length| &rest[start + length + 2..]);
    }
    glob.push_str(&globset::escape(rest));
    Some(globset::Glob::new(&glob).ok()?.compile_matcher())
}

/// Evaluates and checks the arguments of a state; `false` if some are not known, or wrong. Gives also
/// the names of those with secrets.
fn arguments(
    state: &State,
    reading: &mut Reading<'_>,
    materials: &Materials<'_>,
) -> (Map<String, Value>, bool, Vec<&'static str>) {
    let mut arguments = Map::new();
    let mut with_secrets = Vec::new();
    let mut complete = true;
    let mut omitted = Vec::new();
    let mut named = Vec::new();
    for given in &state.arguments {
        let argument = given.argument;
        let secrets = match argument.shape {
            Shape::Content => Secrets::Masked,
            Shape::Mapping(_) if argument.secret => Secrets::Ingredients,
            _ if argument.secret => Secrets::Masked,
            _ => Secrets::Refused,
        };
        reading.took_secret = false;
        let taken = reading.with_secrets(secrets, |reading| {
            reading.take(argument.name, &argument.shape, &given.value)
        });
        with_secrets.extend(reading.took_secret.then_some(argument.name));
        match taken {
            Taken::Known(Value::String(text)) if is_material(&argument.shape) => {
                named.push((given, text));
            }
            Taken::Known(value) => {
                arguments.insert(argument.name.to_owned(), value);
            }
            Taken::Omitted => omitted.push(argument.name),
            Taken::Unknown | Taken::Refused => complete = false,
        }
    }
    for (given, text) in named {
        let shape = &given.argument.shape;
        match materials.make(reading, shape, &text, &given.value, &arguments) {
            (field, Taken::Known(value)) => {
                arguments.insert(field.to_owned(), value);
            }
            _ => complete = false,
        }
    }
    for argument in state.spec.arguments.iter().filter(|argument| argument.required) {
        if omitted.contains(&argument.name) {
            reading.diagnostics.push(state.missing(argument));
            complete = false;
        }
        // That it is not there at all was said when the file was read.
        complete &= state.arguments.iter().any(|given| given.argument.name == argument.name);
    }
    if !reading.lenient {
        state.check_exclusive(|name| !omitted.contains(&name), reading.diagnostics);
    }
    (arguments, complete, with_secrets)
}

/// The arguments without the bulk of contents, for comparisons.
fn retained(arguments: &Map<String, Value>) -> Map<String, Value> {
    let light = arguments.iter().filter(|(name, _)| *name != "entries");
    let light = light.map(|(name, value)| {
        let value = match name.as_str() {
            "content" => Value::String(value.to_string()),
            _ => value.clone(),
        };
        (name.clone(), value)
    });
    light.collect()
}

/// Whether a text names a content that is held beside the arguments.
fn is_material(shape: &Shape) -> bool {
    matches!(shape, Shape::Content | Shape::Template | Shape::LocalFile | Shape::LocalFolder)
}

/// The labels of something, beside those that it inherits.
fn tags_of(reading: &mut Reading<'_>, node: Option<&Node>, inherited: &[String]) -> Vec<String> {
    let mut tags = inherited.to_vec();
    if let Some(node) = node {
        for (text, _) in reading.texts("tags", node) {
            tags.extend(split_tags(&text).map(str::to_owned));
        }
    }
    tags
}
