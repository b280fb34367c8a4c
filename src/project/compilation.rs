use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use indexmap::{IndexMap, IndexSet};
use serde_json::{Value, json};

use crate::diagnostic::{Diagnostic, Diagnostics, Sources, Span, nearest};
use crate::graph::{self, Explained, Graph, PlayDeclarations};
use crate::inventory::{Connection, ConnectionKind, Inventory, Pattern, Spec, not_plain};
use crate::lang::yaml::Node;
use crate::lang::{
    CompileOptions, ContentStore, Declaration, Evaluated, Facts, HostVariables, Layer, Names,
    OwnFact, Play, Program, Scope, Skipped, TemplateValue, Templates, asks_for_facts, has_secret,
    reveal, value_of,
};
use crate::ssh::{is_host_name, is_user_name};

/// A state file and an inventory brought together: what is declared for which host.
///
/// Hosts are compiled twice: without facts, before any connection, so that whatever is wrong is
/// said at once; and with the facts of each host.
pub struct Compilation {
    /// All texts that were read.
    pub sources: Arc<Sources>,
    /// The hosts.
    pub inventory: Inventory,
    /// The plays.
    pub program: Program,
    /// All contents that declarations name.
    pub contents: Arc<ContentStore>,
    templates: Arc<Templates>,
    options: CompileOptions,
    extra: Arc<Layer>,
    /// The hosts of each play, in the order of its pattern.
    members: Vec<Vec<String>>,
    /// All hosts that a play selects, in the order in which the plays name them.
    hosts: Vec<String>,
    /// The inventory's layers of each host.
    layers: HashMap<String, Vec<Arc<Layer>>>,
    /// `groups` and `hostvars`, the same for all hosts.
    common: BTreeMap<String, TemplateValue>,
    /// The graphs of hosts whose declarations do not depend on facts.
    ready: Mutex<HashMap<String, Arc<Graph>>>,
    /// How many nodes these have.
    kept: AtomicUsize,
    host_variables: Arc<HostVariables>,
    /// What is known of hosts, and own facts that nobody asks for.
    facts: Mutex<HashMap<String, Facts>>,
    /// Whether there is no inventory: one host takes part in all plays, and nothing is known of it.
    stranger: bool,
}

/// Most nodes of graphs that are kept until their hosts are reached; more are compiled once more.
const READY_LIMIT: usize = 50_000;

/// What is declared for a host without facts, and what is wrong with it.
struct Checked {
    plays: Vec<PlayDeclarations>,
    /// None if facts will change it, or enough are kept.
    graph: Option<Graph>,
    outline: Outline,
    said: Diagnostics,
}

/// What is declared for a host whose facts are known.
pub enum Compiled {
    /// This.
    Graph(Arc<Graph>),
    /// That cannot be told without facts of these other hosts.
    Lacks(Vec<String>),
}

/// The host that stands for any, where there is no inventory.
const STRANGER: &str = "any host";

/// What is known of a host before it is connected to.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    /// Whether any state becomes another user.
    pub becomes: bool,
    /// The packages that are declared, for machines that have to have them at hand.
    pub packages: Vec<String>,
}

impl Compilation {
    /// Selects the hosts of each play. `limit` narrows them.
    pub fn new(
        sources: Arc<Sources>,
        inventory: Inventory,
        program: Program,
        templates: Arc<Templates>,
        options: CompileOptions,
        limit: Option<&Pattern>,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let extra = options.extra.clone().unwrap_or_default();
        let mut compilation = Self {
            sources,
            inventory,
            program,
            contents: Arc::default(),
            templates,
            options,
            extra,
            members: Vec::new(),
            hosts: Vec::new(),
            layers: HashMap::new(),
            common: BTreeMap::new(),
            ready: Mutex::default(),
            kept: AtomicUsize::new(0),
            host_variables: Arc::default(),
            facts: Mutex::default(),
            stranger: false,
        };
        compilation.select(limit, diagnostics);
        compilation.share();
        compilation
    }

    /// A state file without an inventory: all plays are for one host of which nothing is known, so
    /// that names which nothing defines may be its variables.
    pub fn without_inventory(
        sources: Arc<Sources>,
        program: Program,
        templates: Arc<Templates>,
        options: CompileOptions,
    ) -> Self {
        let members = vec![vec![STRANGER.to_owned()]; program.plays.len()];
        let nothing = Spec::new(Vec::new(), PathBuf::new());
        Self {
            inventory: Inventory::load(&sources, &nothing, &mut Diagnostics::default()),
            sources,
            program,
            contents: Arc::default(),
            templates,
            extra: options.extra.clone().unwrap_or_default(),
            options,
            members,
            hosts: vec![STRANGER.to_owned()],
            layers: HashMap::new(),
            common: BTreeMap::new(),
            ready: Mutex::default(),
            kept: AtomicUsize::new(0),
            host_variables: Arc::default(),
            facts: Mutex::default(),
            stranger: true,
        }
    }

    fn select(&mut self, limit: Option<&Pattern>, diagnostics: &mut Diagnostics) {
        let layers = vec![self.extra.clone()];
        let scope =
            Scope::new(self.templates.clone(), layers, BTreeMap::new(), Facts::Known(json!({})));
        for play in &self.program.plays {
            let mut members = Vec::new();
            if let Some(hosts) = &play.hosts {
                match pattern(hosts, &scope) {
                    Ok(pattern) => {
                        let selected = self.inventory.select(&pattern, limit, diagnostics);
                        members = selected.into_iter().map(str::to_owned).collect();
                    }
                    Err(diagnostic) => diagnostics.push(*diagnostic),
                }
            }
            self.members.push(members);
        }
        let none = self.members.iter().all(Vec::is_empty) && limit.is_none();
        if none && !diagnostics.has_errors() {
            for hosts in self.program.plays.iter().filter_map(|play| play.hosts.as_ref()) {
                let message = "no host is selected";
                diagnostics.push(Diagnostic::error("no-hosts", message).at(hosts.span, ""));
            }
        }
        let chosen: IndexSet<&String> = self.members.iter().flatten().collect();
        self.hosts = chosen.into_iter().cloned().collect();
    }

    /// Makes what all hosts see of each other.
    fn share(&mut self) {
        let groups: serde_json::Map<String, Value> = self
            .inventory
            .groups()
            .map(|group| {
                (group.to_owned(), json!(self.inventory.members(group).unwrap_or_default()))
            })
            .collect();
        self.common = BTreeMap::from([
            (String::from("groups"), value_of(&Value::Object(groups))),
            (String::from("hostvars"), self.host_variables.value()),
        ]);
        let names: IndexSet<String> =
            self.inventory.hosts().map(str::to_owned).chain(self.hosts.iter().cloned()).collect();
        for name in &names {
            self.layers.insert(name.clone(), inventory_layers(&self.inventory, name));
        }
        for name in names {
            let scope = self.own_scope(&name, Facts::Unknown).telling(&name, &self.host_variables);
            self.host_variables.set(name, scope);
        }
    }

    /// What a host's names mean outside of a play.
    fn own_scope(&self, host: &str, facts: Facts) -> Scope {
        let mut layers = self.inventory_layers(host);
        layers.push(self.extra.clone());
        Scope::new(self.templates.clone(), layers, self.magic(host, &[]), facts)
    }

    /// All hosts that a play selects, in the order in which the plays name them.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Compiles all hosts without facts; says what is wrong, and what is known by then.
    pub fn check(&self, diagnostics: &mut Diagnostics) -> IndexMap<String, Outline> {
        self.check_each(diagnostics, |_| {})
    }

    /// The same; `see` gets what is declared for each host.
    pub fn check_each(
        &self,
        diagnostics: &mut Diagnostics,
        mut see: impl FnMut(&[PlayDeclarations]),
    ) -> IndexMap<String, Outline> {
        let mut unmatched = Unmatched::new(&self.options);
        let mut outlines = IndexMap::with_capacity(self.hosts.len());
        for_each_on_all_cores(
            &self.hosts,
            |host| self.check_one(host),
            |host, checked: Checked| {
                diagnostics.extend(checked.said);
                see(&checked.plays);
                checked.plays.iter().for_each(|play| unmatched.see(&play.declarations));
                if let Some(graph) = checked.graph {
                    self.kept.fetch_add(graph.nodes.len(), Ordering::Relaxed);
                    let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
                    ready.insert(host.clone(), Arc::new(graph));
                }
                outlines.insert(host.clone(), checked.outline);
            },
        );
        if !self.hosts.is_empty() {
            unmatched.report(diagnostics);
        }
        outlines
    }

    fn check_one(&self, host: &str) -> Checked {
        let facts = Facts::Unknown;
        let mut said = Diagnostics::default();
        let (plays, asks) = asks_for_facts(|| self.declarations(host, &facts, &mut said));
        // Cycles do not depend on facts.
        let graph = if asks || self.kept.load(Ordering::Relaxed) >= READY_LIMIT {
            graph::check(&plays, &self.sources, &mut said);
            None
        } else {
            Some(graph::build(&plays, &self.sources, &mut said))
        };
        let asked = self.questions_with(host, &facts, &mut said);
        let all = || plays.iter().flat_map(|play| &play.declarations);
        let outline = Outline {
            // Where nothing is declared the command line says it.
            becomes: all().any(|declaration| declaration.common.become_user.is_some())
                || asked.iter().any(|fact| fact.become_user.is_some())
                || (all().next().is_none() && self.options.becomes),
            packages: all()
                .filter(|declaration| declaration.spec.name == "package")
                .map(|declaration| declaration.key.clone())
                // One that is not known yet is there as it is written.
                .filter(|name| !name.contains('{'))
                .collect(),
        };
        Checked { plays, graph, outline, said }
    }

    /// What a host is to be asked for once its facts are known.
    pub fn questions(
        &self,
        host: &str,
        facts: &Value,
        diagnostics: &mut Diagnostics,
    ) -> Vec<OwnFact> {
        self.questions_with(host, &Facts::Known(facts.clone()), diagnostics)
    }

    fn questions_with(
        &self,
        host: &str,
        facts: &Facts,
        diagnostics: &mut Diagnostics,
    ) -> Vec<OwnFact> {
        let mut questions: Vec<OwnFact> = Vec::new();
        for (play, members) in self.plays_of(host) {
            if !play.has_own_facts() {
                continue;
            }
            let scope = self.scope(host, play, members, facts, diagnostics);
            for one in play.own_facts(&scope, &self.options, diagnostics) {
                match questions.iter().find(|other| other.name == one.name) {
                    Some(other) if OwnFact { span: other.span, ..one.clone() } != *other => {
                        let message = format!("the fact `{}` is declared twice", one.name);
                        diagnostics.push(
                            Diagnostic::error("declared-twice", message)
                                .at(one.span, "differently here")
                                .at(other.span, "first here"),
                        );
                    }
                    Some(_) => {}
                    None => questions.push(one),
                }
            }
        }
        questions
    }

    /// The plays of a host, with all hosts of each.
    fn plays_of(&self, host: &str) -> impl Iterator<Item = (&Play, &[String])> {
        let plays = self.program.plays.iter().zip(self.members.iter().map(Vec::as_slice));
        plays.filter(move |(_, members)| members.iter().any(|member| member == host))
    }

    /// Takes in what is known of a host.
    pub fn learn(&self, host: &str, facts: Facts) {
        let scope = self.own_scope(host, facts.clone()).telling(host, &self.host_variables);
        self.host_variables.set(host.to_owned(), scope);
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned(), facts);
    }

    /// Hosts whose facts others need, and which are not known so far.
    pub fn wanted(&self) -> Vec<String> {
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        self.host_variables.used().into_iter().filter(|host| !facts.contains_key(host)).collect()
    }

    /// Whether any host needs facts of another one, as far as can be told.
    pub fn spans_hosts(&self) -> bool {
        !self.host_variables.used().is_empty()
    }

    /// What is declared for a host whose facts are known.
    pub fn compile(&self, host: &str, diagnostics: &mut Diagnostics) -> Compiled {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned();
        if let Some(graph) = ready {
            return Compiled::Graph(graph);
        }
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned();
        let facts = facts.unwrap_or(Facts::Unknown);
        let mut plays = self.declarations(host, &facts, diagnostics);
        let declarations = plays.iter_mut().flat_map(|play| &mut play.declarations);
        let undecided: Vec<&mut Declaration> = declarations
            .filter(|declaration| {
                declaration.skipped == Some(Skipped::Undecided)
                    || (declaration.skipped.is_none() && declaration.declared.is_none())
            })
            .collect();
        let any_undecided = !undecided.is_empty();
        if self.is_locked() {
            undecided.into_iter().for_each(|one| one.skipped = Some(Skipped::Locked));
        }
        if any_undecided && !diagnostics.has_errors() {
            let wanted = self.wanted();
            if !wanted.is_empty() {
                return Compiled::Lacks(wanted);
            }
        }
        Compiled::Graph(Arc::new(graph::build(&plays, &self.sources, diagnostics)))
    }

    /// The graph of a host as far as it is known without facts, with the reasons of its edges.
    pub fn explain(&self, host: &str, diagnostics: &mut Diagnostics) -> Explained {
        let plays = self.declarations(host, &Facts::Unknown, diagnostics);
        graph::explain(&plays, &self.sources, diagnostics)
    }

    /// Whether what is not known may be a secret without a key.
    fn is_locked(&self) -> bool {
        self.templates.is_locked()
    }

    fn declarations(
        &self,
        host: &str,
        facts: &Facts,
        diagnostics: &mut Diagnostics,
    ) -> Vec<PlayDeclarations> {
        self.program
            .plays
            .iter()
            .zip(&self.members)
            .map(|(play, members)| {
                let declarations = if members.iter().any(|member| member == host) {
                    let scope = self.scope(host, play, members, facts, diagnostics);
                    play.compile(&scope, &self.options, &self.contents, diagnostics)
                } else {
                    Vec::new()
                };
                let play = graph::Play { name: play.name.clone(), prune: play.prune };
                PlayDeclarations { play, declarations }
            })
            .collect()
    }

    /// The variables of a host in a play.
    fn scope(
        &self,
        host: &str,
        play: &Play,
        members: &[String],
        facts: &Facts,
        diagnostics: &mut Diagnostics,
    ) -> Scope {
        let layers = play.scope_layers(self.inventory_layers(host), self.extra.clone());
        let magic = self.magic(host, members);
        let scope = Scope::new(self.templates.clone(), layers, magic, facts.clone());
        let scope = if self.stranger { scope.open(play.default_layers()) } else { scope };
        play.with_vars_files(&scope, &self.extra, &self.sources, diagnostics)
    }

    /// The variables of a host before there are facts, in each play that selects it.
    pub fn scopes(&self, host: &str, diagnostics: &mut Diagnostics) -> Vec<(&Play, Scope)> {
        let scope = |(play, members): (_, &[String])| {
            (play, self.scope(host, play, members, &Facts::Unknown, diagnostics))
        };
        self.plays_of(host).map(scope).collect()
    }

    fn inventory_layers(&self, host: &str) -> Vec<Arc<Layer>> {
        self.layers.get(host).cloned().unwrap_or_default()
    }

    /// The names that every host has.
    fn magic(&self, host: &str, members: &[String]) -> BTreeMap<String, TemplateValue> {
        if self.stranger {
            return BTreeMap::new();
        }
        let groups = self.inventory.groups_of(host);
        let short = host.split('.').next().unwrap_or(host);
        [
            ("host", json!({ "name": host, "groups": groups })),
            ("inventory_hostname", json!(host)),
            ("inventory_hostname_short", json!(short)),
            ("group_names", json!(groups)),
            ("play_hosts", json!(members)),
            ("ansible_play_hosts", json!(members)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value_of(&value)))
        .chain(self.common.clone())
        .collect()
    }

    /// How a host is reached, and whom to become there; none if that was refused.
    pub fn connection(&self, host: &str, diagnostics: &mut Diagnostics) -> Option<Connection> {
        let scope = self.own_scope(host, Facts::Unknown);
        let evaluate = |node: &Node| {
            let value = known(&scope, node)?;
            if has_secret(&value) {
                let message = "a secret cannot say how a host is reached: that is shown";
                return Err(Diagnostic::error("secret-argument", message).at(node.span, ""));
            }
            Ok(value)
        };
        let mut connection = self.inventory.connection(host, &evaluate, diagnostics)?;
        for (play, _) in self.plays_of(host) {
            if let Some(node) = &play.remote_user {
                let user = text(&scope, node, diagnostics);
                if let Some(user) = user.as_ref().filter(|user| !is_user_name(user)) {
                    diagnostics.push(not_plain(user, "user", node.span));
                }
                connection.user = user.or(connection.user);
            }
            if let Some(node) = &play.connection
                && let Some(word) = text(&scope, node, diagnostics)
                && let Some(kind) = connection_kind(&word, node, diagnostics)
            {
                connection.kind = kind;
                connection.kind_said = Some(node.span);
            }
        }
        if connection.kind == ConnectionKind::Ssh
            && connection.host == host
            && !is_host_name(host)
            && let Some(place) = self.inventory.place_of(host)
        {
            diagnostics.push(not_plain(host, "host", place));
        }
        Some(connection)
    }

    /// What the plays say of connections, as far as it is known without an inventory: whether a host
    /// is this machine, with the place.
    pub fn check_connections(&self, diagnostics: &mut Diagnostics) -> Option<Span> {
        let mut local = None;
        for play in &self.program.plays {
            let members = [STRANGER.to_owned()];
            let mut said = Diagnostics::default();
            let scope = self.scope(STRANGER, play, &members, &Facts::Unknown, &mut said);
            let word = |node: &Node| match scope.evaluate(node) {
                Ok(Evaluated::Known(Value::String(word))) => Some(word),
                _ => None,
            };
            if let Some(node) = &play.remote_user
                && let Some(user) = word(node).filter(|user| !is_user_name(user))
            {
                diagnostics.push(not_plain(&user, "user", node.span));
            }
            if let Some(node) = &play.connection
                && let Some(word) = word(node)
                && connection_kind(&word, node, diagnostics) == Some(ConnectionKind::Local)
            {
                local.get_or_insert(node.span);
            }
        }
        local
    }

    /// The value of a secret of a connection.
    pub fn password(
        &self,
        host: &str,
        node: &Node,
        diagnostics: &mut Diagnostics,
    ) -> Option<String> {
        let mut said = Diagnostics::default();
        let password = text(&self.own_scope(host, Facts::Unknown), node, &mut said);
        // Without a key the host is reached without it, or not at all.
        if !self.is_locked() {
            diagnostics.extend(said);
        }
        password
    }
}

/// Does `work` for many things on all cores, and hands on each result in their order.
fn for_each_on_all_cores<T: Sync, R: Send + Sync>(
    all: &[T],
    work: impl Fn(&T) -> R + Sync,
    mut take: impl FnMut(&T, R),
) {
    /// Results that wait for each core: they may be large.
    const AHEAD: usize = 8;
    /// Templates and YAML nest.
    const STACK: usize = 8 << 20;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for some in all.chunks(cores * AHEAD) {
        let next = AtomicUsize::new(0);
        let results: Vec<OnceLock<R>> = some.iter().map(|_| OnceLock::new()).collect();
        let one_by_one = || {
            while let Some((one, result)) = {
                let index = next.fetch_add(1, Ordering::Relaxed);
                some.get(index).zip(results.get(index))
            } {
                let _ = result.set(work(one));
            }
        };
        std::thread::scope(|scope| {
            // One is not worth a thread. Where there can be none, this one does it all.
            for _ in 1..cores.min(some.len()) {
                let _ =
                    std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, one_by_one);
            }
            one_by_one();
        });
        for (one, result) in some.iter().zip(results) {
            if let Some(result) = result.into_inner() {
                take(one, result);
            }
        }
    }
}

/// A host's variables from the inventory, a layer for each origin, lowest first.
fn inventory_layers(inventory: &Inventory, host: &str) -> Vec<Arc<Layer>> {
    let mut layers: Vec<Layer> = Vec::new();
    for variable in inventory.variables(host) {
        let label = variable.origin.to_string();
        if layers.last().is_none_or(|layer| layer.label != label) {
            layers.push(Layer { label, variables: IndexMap::new(), locked: false });
        }
        if let Some(layer) = layers.last_mut() {
            layer.variables.insert(variable.name.clone(), variable.value.clone());
        }
    }
    if inventory.is_locked() {
        let label = String::from("encrypted files");
        layers.insert(0, Layer { label, variables: IndexMap::new(), locked: true });
    }
    layers.into_iter().map(Arc::new).collect()
}

/// What was selected on the command line and nothing has so far.
struct Unmatched {
    tags: BTreeSet<String>,
    only: BTreeSet<String>,
    known_tags: BTreeSet<String>,
}

impl Unmatched {
    fn new(options: &CompileOptions) -> Self {
        // These mean something whatever is declared.
        let special = ["all", "always", "never", "tagged", "untagged"];
        let tags = options.tags.iter().chain(&options.skip_tags);
        Self {
            tags: tags.filter(|tag| !special.contains(&tag.as_str())).cloned().collect(),
            only: options.only.iter().cloned().collect(),
            known_tags: BTreeSet::new(),
        }
    }

    fn see(&mut self, declarations: &[Declaration]) {
        if self.tags.is_empty() && self.only.is_empty() {
            return;
        }
        for tag in declarations.iter().flat_map(|declaration| &declaration.common.tags) {
            self.tags.remove(tag);
            self.known_tags.insert(tag.clone());
        }
        let names = Names::new(declarations);
        self.only.retain(|text| names.matching_text(text).is_empty());
    }

    fn report(&self, diagnostics: &mut Diagnostics) {
        for tag in &self.tags {
            let message = format!("no state has the tag `{tag}`");
            let near = nearest(tag, self.known_tags.iter().map(String::as_str));
            let error = Diagnostic::error("unknown-tag", message);
            diagnostics.push(match near {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error.help("`--list-tags` lists the tags"),
            });
        }
        for text in &self.only {
            let message = format!("`--only {text}` selects nothing");
            diagnostics.push(
                Diagnostic::error("unknown-reference", message)
                    .help("a resource is named `kind:key`, for example `file:/etc/motd`"),
            );
        }
    }
}

fn pattern(hosts: &Node, scope: &Scope) -> Result<Pattern, Box<Diagnostic>> {
    let mut pattern: Option<Pattern> = None;
    for item in hosts.items().unwrap_or(std::slice::from_ref(hosts)) {
        let words = match scope.evaluate(item)? {
            Evaluated::Known(Value::String(text)) => vec![text],
            Evaluated::Known(Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
                .collect(),
            Evaluated::Known(Value::Number(number)) => vec![number.to_string()],
            _ => {
                let error = Diagnostic::error("wrong-type", "`hosts` has to be a pattern");
                return Err(Box::new(error.at(item.span, "")));
            }
        };
        for word in words {
            match &mut pattern {
                Some(pattern) => pattern.add(&word, Some(item.span)),
                None => pattern = Some(Pattern::parse(&word, Some(item.span))),
            }
        }
    }
    pattern.filter(|pattern| !pattern.is_empty()).ok_or_else(|| {
        Box::new(Diagnostic::error("no-hosts", "`hosts` names no hosts").at(hosts.span, ""))
    })
}

/// The kind of connection that a play names; says so if there is none of that name.
fn connection_kind(
    word: &str,
    node: &Node,
    diagnostics: &mut Diagnostics,
) -> Option<ConnectionKind> {
    let kind = ConnectionKind::named(word);
    if kind.is_none() {
        let message = format!("unknown connection `{word}`");
        let error = Diagnostic::error("unknown-connection", message);
        let choices = "the connections are `ssh`, `local` and `sandbox`";
        diagnostics.push(error.at(node.span, "").help(choices));
    }
    kind
}

fn known(scope: &Scope, node: &Node) -> Result<Value, Diagnostic> {
    match scope.evaluate(node)? {
        Evaluated::Known(value) => Ok(value),
        Evaluated::Unknown => {
            let message = "this is needed before there are facts of the host";
            Err(Diagnostic::error("facts-unknown", message).at(node.span, ""))
        }
    }
}

fn text(scope: &Scope, node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    match known(scope, node).map(reveal) {
        Ok(Value::String(text)) => Some(text),
        Ok(other) if !other.is_object() && !other.is_array() => Some(other.to_string()),
        Ok(_) => {
            let message = format!("this has to be a string, not {}", node.describe());
            diagnostics.push(Diagnostic::error("wrong-type", message).at(node.span, ""));
            None
        }
        Err(diagnostic) => {
            diagnostics.push(diagnostic);
            None
        }
    }
}
