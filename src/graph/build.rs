use std::collections::HashMap;

use petgraph::algo::{has_path_connecting, tarjan_scc};
use petgraph::graph::{DiGraph, NodeIndex as PetIndex};
use petgraph::visit::{Dfs, EdgeRef};

use super::hazard::Hazards;
use super::types::{Graph, NOT_SELECTED, Node, Play, Work};
use crate::diagnostic::{Diagnostic, Diagnostics, Sources, Span};
use crate::kind::{Claim, Footprint};
use crate::lang::{Common, Declaration, Names, Reference, Skipped};
use crate::resource::ResourceId;

/// One play's declarations for a host.
pub struct PlayDeclarations {
    /// What of it concerns all of its nodes.
    pub play: Play,
    /// In file order.
    pub declarations: Vec<Declaration>,
}

/// Makes the resource graph of one host. Cycles of requisites are diagnostics that show each edge.
pub fn build(
    plays: &[PlayDeclarations],
    sources: &Sources,
    diagnostics: &mut Diagnostics,
) -> Graph {
    let mut graph = Graph::default();
    for (number, play) in plays.iter().enumerate() {
        graph.plays.push(play.play.clone());
        PlayGraph::new(&play.declarations, sources).append_to(&mut graph, number, diagnostics);
    }
    graph
}

/// Says the same as [`build`], for a fraction of its cost, and makes nothing.
pub fn check(plays: &[PlayDeclarations], sources: &Sources, diagnostics: &mut Diagnostics) {
    for play in plays {
        PlayGraph::new(&play.declarations, sources).report_cycles(diagnostics);
    }
}

/// Two states whose order in the file a requisite of a third one has turned around, although they
/// overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reversal {
    /// What comes first, and its place: further down in the file.
    pub first: (ResourceId, Span),
    /// What comes after it, and its place.
    pub second: (ResourceId, Span),
    /// The requisite that did it.
    pub requisite: Span,
}

/// The overlaps that requisites have reversed without saying so: for each state that came forward,
/// the first one that it has overtaken.
pub fn reversals(plays: &[PlayDeclarations], sources: &Sources) -> Vec<Reversal> {
    let plays = plays.iter().map(|play| PlayGraph::new(&play.declarations, sources));
    plays.flat_map(|play| play.reversals()).collect()
}

/// How files are named that are unit files of administrators.
const UNIT_FILE: &str = "file:/etc/systemd/system/";

/// What a vertex stands for: a declaration, or the reaction of a service's declaration.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Declared(usize),
    Reaction(usize),
}

/// Why one vertex has to come before another.
pub(super) struct Requisite {
    /// `require`, `onchanges`, …
    pub(super) word: &'static str,
    pub(super) span: Span,
}

/// The requisites between the declarations of one play.
pub(super) struct PlayGraph<'a> {
    pub(super) declarations: &'a [Declaration],
    pub(super) names: Names,
    sources: &'a Sources,
    pub(super) graph: DiGraph<Item, Requisite>,
    pub(super) vertices: HashMap<Item, PetIndex>,
    /// In file order, reactions right after the last thing that they watch.
    order: Vec<Item>,
}

/// Which declarations are about the unit files of services, by the service.
fn unit_files(declarations: &[Declaration]) -> HashMap<usize, Vec<usize>> {
    let mut services: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, declaration) in declarations.iter().enumerate() {
        if declaration.spec.name == "service" {
            let unit = crate::world::systemd::full_name(&declaration.key);
            services.entry(unit).or_default().push(index);
        }
    }
    let mut found: HashMap<usize, Vec<usize>> = HashMap::new();
    for (index, declaration) in declarations.iter().enumerate() {
        let id = declaration.id.as_str();
        let unit = id.strip_prefix("unit:").or_else(|| id.strip_prefix(UNIT_FILE));
        for service in unit.and_then(|unit| services.get(unit)).into_iter().flatten() {
            found.entry(*service).or_default().push(index);
        }
    }
    found
}

impl<'a> PlayGraph<'a> {
    pub(super) fn new(declarations: &'a [Declaration], sources: &'a Sources) -> Self {
        let names = Names::new(declarations);
        let unit_files = unit_files(declarations);
        let mut graph = DiGraph::new();
        let mut vertices = HashMap::new();
        let mut placed: Vec<(usize, Item)> = Vec::new();
        for (index, declaration) in declarations.iter().enumerate() {
            placed.push((index, Item::Declared(index)));
            let common = &declaration.common;
            // Tags leave out a service's state, not that it takes up what they selected.
            if matches!(declaration.skipped, None | Some(Skipped::Tags))
                && declaration.declared.is_some()
                && !(common.watch.is_empty()
                    && common.restart_on.is_empty()
                    && !unit_files.contains_key(&index))
            {
                let watched = common.watch.iter().chain(&common.restart_on);
                let watched = watched.flat_map(|reference| names.matching(reference));
                let last =
                    watched.chain(unit_files.get(&index).into_iter().flatten().copied()).max();
                placed.push((last.map_or(index, |last| last.max(index)), Item::Reaction(index)));
            }
        }
        placed.sort_by_key(|(position, item)| (*position, matches!(item, Item::Reaction(_))));
        let order: Vec<Item> = placed.into_iter().map(|(_, item)| item).collect();
        for item in &order {
            vertices.insert(*item, graph.add_node(*item));
        }
        let mut play = Self { declarations, names, sources, graph, vertices, order };
        play.add_requisites(&unit_files);
        play
    }

    fn add_requisites(&mut self, unit_files: &HashMap<usize, Vec<usize>>) {
        for (index, declaration) in self.declarations.iter().enumerate() {
            let common = &declaration.common;
            let this = Item::Declared(index);
            let lists = [
                ("require", &common.require),
                ("onchanges", &common.onchanges),
                ("onfail", &common.onfail),
            ];
            for (word, references) in lists {
                for reference in references {
                    for item in self.resolve(reference) {
                        self.connect(item, this, word, reference.span);
                    }
                }
            }
            let reaction = Item::Reaction(index);
            if !self.vertices.contains_key(&reaction) {
                continue;
            }
            self.connect(this, reaction, "service", declaration.span);
            for file in unit_files.get(&index).into_iter().flatten() {
                self.connect(Item::Declared(*file), reaction, "unit file", declaration.span);
            }
            for (word, references) in [("watch", &common.watch), ("restart_on", &common.restart_on)]
            {
                for reference in references {
                    for watched in self.names.matching(reference) {
                        self.connect(Item::Declared(watched), reaction, word, reference.span);
                        // What stands before the service is in place before it starts at first.
                        if watched < index {
                            self.connect(Item::Declared(watched), this, word, reference.span);
                        }
                    }
                }
            }
        }
    }

    /// What a reference names: resources, and reactions as `reaction:service:NAME`.
    fn resolve(&self, reference: &Reference) -> Vec<Item> {
        match reference.text.strip_prefix("reaction:") {
            Some(rest) => {
                let service = Reference { text: rest.to_owned(), span: reference.span };
                self.names
                    .matching(&service)
                    .into_iter()
                    .map(|index| {
                        let reaction = Item::Reaction(index);
                        if self.vertices.contains_key(&reaction) {
                            reaction
                        } else {
                            Item::Declared(index)
                        }
                    })
                    .collect()
            }
            None => self.names.matching(reference).into_iter().map(Item::Declared).collect(),
        }
    }

    fn connect(&mut self, from: Item, to: Item, word: &'static str, span: Span) {
        if let (Some(from), Some(to)) = (self.vertices.get(&from), self.vertices.get(&to)) {
            self.graph.add_edge(*from, *to, Requisite { word, span });
        }
    }

    fn name(&self, item: Item) -> String {
        match item {
            Item::Declared(index) => self.declarations[index].id.to_string(),
            Item::Reaction(index) => format!("reaction:{}", self.declarations[index].id),
        }
    }

    /// Says each cycle of requisites, edge by edge.
    fn report_cycles(&self, diagnostics: &mut Diagnostics) -> bool {
        let mut found = false;
        for component in tarjan_scc(&self.graph) {
            if let [one] = component[..]
                && self.graph.find_edge(one, one).is_none()
            {
                continue;
            }
            let mut edges: Vec<_> = self
                .graph
                .edge_references()
                .filter(|edge| {
                    component.contains(&edge.source()) && component.contains(&edge.target())
                })
                .collect();
            if edges.is_empty() {
                continue;
            }
            found = true;
            edges.sort_by_key(|edge| edge.weight().span);
            let names: Vec<_> =
                component.iter().map(|vertex| self.name(self.graph[*vertex])).collect();
            let message = format!("requisites go round in a circle: {}", names.join(", "));
            let mut diagnostic = Diagnostic::error("cycle", message);
            for edge in edges {
                let before = self.name(self.graph[edge.source()]);
                let after = self.name(self.graph[edge.target()]);
                let word = edge.weight().word;
                let text = format!("`{word}`: {after} comes after {before}");
                diagnostic = diagnostic.at(edge.weight().span, text);
            }
            diagnostics.push(diagnostic.help("take one of these requisites away"));
        }
        found
    }

    /// File order, but each one's requisites first.
    pub(super) fn visit_order(&self) -> Vec<Item> {
        let mut visited = vec![false; self.graph.node_count()];
        let mut result = Vec::with_capacity(self.order.len());
        let position: HashMap<Item, usize> =
            self.order.iter().enumerate().map(|(position, item)| (*item, position)).collect();
        let before = |vertex: PetIndex| {
            let mut before: Vec<PetIndex> =
                self.graph.neighbors_directed(vertex, petgraph::Direction::Incoming).collect();
            before.sort_by_key(|vertex| std::cmp::Reverse(position[&self.graph[*vertex]]));
            before.dedup();
            before
        };
        for item in &self.order {
            let mut stack = vec![(self.vertices[item], false)];
            while let Some((vertex, done)) = stack.pop() {
                if done {
                    result.push(self.graph[vertex]);
                    continue;
                }
                if std::mem::replace(&mut visited[vertex.index()], true) {
                    continue;
                }
                stack.push((vertex, true));
                for earlier in before(vertex) {
                    if !visited[earlier.index()] {
                        stack.push((earlier, false));
                    }
                }
            }
        }
        result
    }

    pub(super) fn append_to(&self, graph: &mut Graph, play: usize, diagnostics: &mut Diagnostics) {
        if self.report_cycles(diagnostics) {
            return;
        }
        let base = graph.nodes.len();
        let order = self.visit_order();
        let rank: HashMap<Item, u32> =
            order.iter().enumerate().map(|(rank, item)| (*item, number(base + rank))).collect();
        let mut hazards = Hazards::default();
        // The package states next to each other that are one transaction so far.
        let mut transaction: Option<(String, Vec<u32>)> = None;
        let mut transaction_before: Vec<usize> = Vec::new();
        for item in &order {
            let this = rank[item];
            let mut node = self.node(*item, &rank, play);
            let footprint = self.footprint(*item);
            let key = self.transaction(*item);
            let joins = match (&transaction, &key) {
                (Some((open, members)), Some(key)) => {
                    open == key && !node.after.iter().any(|earlier| members.contains(earlier))
                }
                _ => false,
            };
            if joins {
                if let Some((_, members)) = &mut transaction {
                    node.step = members[0];
                    members.push(this);
                }
                node.after.extend(transaction_before.iter().map(|earlier| number(*earlier)));
            } else {
                node.step = this;
                let before = match &footprint {
                    Some(footprint) => hazards.visit(this as usize, footprint),
                    None => Vec::new(),
                };
                node.after.extend(before.iter().map(|earlier| number(*earlier)));
                if footprint.is_some() {
                    transaction = key.map(|key| (key, vec![this]));
                    transaction_before = before;
                }
            }
            node.after.sort_unstable();
            node.after.dedup();
            graph.nodes.push(node);
        }
    }

    fn reversals(&self) -> Vec<Reversal> {
        if self.report_cycles(&mut Diagnostics::default()) {
            return Vec::new();
        }
        let order = self.visit_order();
        let mut hazards = Hazards::default();
        let mut found: Vec<Reversal> = Vec::new();
        for (rank, item) in order.iter().enumerate() {
            let Some(footprint) = self.footprint(*item) else { continue };
            for earlier in hazards.visit(rank, &footprint) {
                let (Item::Declared(first), Item::Declared(second)) = (order[earlier], *item)
                else {
                    continue;
                };
                let (one, other) = (&self.declarations[first], &self.declarations[second]);
                let packages = one.spec.name == "package" && other.spec.name == "package";
                let (from, to) = (self.vertices[&order[earlier]], self.vertices[item]);
                let said = found.iter().any(|reversal| reversal.first.1 == one.key_span);
                if first < second
                    || packages
                    || said
                    || has_path_connecting(&self.graph, from, to, None)
                {
                    continue;
                }
                if let Some(requisite) = self.taken_forward(from, first) {
                    found.push(Reversal {
                        first: (one.id.clone(), one.key_span),
                        second: (other.id.clone(), other.key_span),
                        requisite,
                    });
                }
            }
        }
        found
    }

    /// The requisite of an earlier declaration that wants this one, or what needs it.
    fn taken_forward(&self, from: PetIndex, first: usize) -> Option<Span> {
        let mut walk = Dfs::new(&self.graph, from);
        let mut wanted = Vec::new();
        while let Some(vertex) = walk.next(&self.graph) {
            wanted.extend(self.graph.edges(vertex).filter_map(|edge| {
                match self.graph[edge.target()] {
                    Item::Declared(index) if index < first => Some((index, edge.weight().span)),
                    _ => None,
                }
            }));
        }
        wanted.into_iter().min().map(|(_, span)| span)
    }

    fn transaction(&self, item: Item) -> Option<String> {
        let Item::Declared(index) = item else { return None };
        let declaration = &self.declarations[index];
        let common = &declaration.common;
        // What a guard decides cannot wait for others.
        if declaration.is_left_out() || has_guards(common) {
            return None;
        }
        let key = declaration.declared.as_ref()?.kind().transaction()?;
        Some(format!(
            "{key} {:?} {:?} {:?} {:?}",
            common.become_user, common.environment, common.environment_file, common.timeout
        ))
    }

    /// None for what is left out: it touches nothing.
    pub(super) fn footprint(&self, item: Item) -> Option<Footprint> {
        match item {
            Item::Reaction(index) => {
                let declaration = &self.declarations[index];
                let unit =
                    declaration.declared.as_ref().map(|declared| declared.kind().footprint());
                unit.or_else(|| {
                    Some(Footprint::default().writing(Claim::Unit(declaration.key.clone())))
                })
            }
            Item::Declared(index) => {
                let declaration = &self.declarations[index];
                if declaration.is_left_out() {
                    return None;
                }
                let mut footprint = declaration.footprint()?;
                let common = &declaration.common;
                if let Some(file) = &common.environment_file {
                    footprint.reads.push(Claim::Path(file.clone()));
                }
                if has_guards(common) {
                    footprint.reads.push(Claim::World); // a guard looks at anything
                }
                if let Some(user) = &common.become_user {
                    footprint.reads.push(Claim::User(user.clone()));
                }
                Some(footprint)
            }
        }
    }

    fn node(&self, item: Item, rank: &HashMap<Item, u32>, play: usize) -> Node {
        let index = match item {
            Item::Declared(index) | Item::Reaction(index) => index,
        };
        let declaration = &self.declarations[index];
        let common = &declaration.common;
        let ranks = |references: &[Reference]| -> Vec<u32> {
            let mut ranks: Vec<u32> = references
                .iter()
                .flat_map(|reference| self.resolve(reference))
                .filter_map(|item| rank.get(&item).copied())
                .collect();
            ranks.sort_unstable();
            ranks.dedup();
            ranks
        };
        let optional = |references: &[Reference]| {
            if references.is_empty() { None } else { Some(ranks(references)) }
        };
        let after = self
            .graph
            .neighbors_directed(self.vertices[&item], petgraph::Direction::Incoming)
            .map(|vertex| rank[&self.graph[vertex]])
            .collect();
        let (work, require, onchanges, onfail) = match item {
            Item::Reaction(_) => {
                let service = rank[&Item::Declared(index)];
                let work = match &declaration.declared {
                    Some(declared) => Work::Reaction {
                        service,
                        declared: declared.clone(),
                        reload: ranks(&common.watch),
                        restart: ranks(&common.restart_on),
                    },
                    None => Work::Unknown(String::from(NOT_ASKED)),
                };
                (work, vec![service], None, None)
            }
            Item::Declared(_) => (
                self.work(declaration),
                ranks(&common.require),
                optional(&common.onchanges),
                optional(&common.onfail),
            ),
        };
        let guards = matches!(item, Item::Declared(_));
        Node {
            id: ResourceId::new(self.name(item)),
            label: declaration.label.clone().filter(|_| guards),
            at: self.sources.place(declaration.span).to_string(),
            play: number(play),
            step: 0,
            work,
            after,
            require,
            onchanges,
            onfail,
            unless: if guards { common.unless.clone() } else { Vec::new() },
            onlyif: if guards { common.onlyif.clone() } else { Vec::new() },
            become_user: common.become_user.clone(),
            environment: common.environment.clone(),
            environment_file: common.environment_file.clone(),
            retry: common.retry,
            timeout: common.timeout,
            ignore_errors: common.ignore_errors,
            sensitive: common.sensitive,
            mask: common.mask.clone(),
            prune: common.prune,
            confirm_connection: common.confirm_connection,
        }
    }

    fn work(&self, declaration: &Declaration) -> Work {
        match (&declaration.skipped, &declaration.declared) {
            (Some(Skipped::When(condition)), _) => {
                Work::Skipped(format!("`when: {condition}` is false"))
            }
            (Some(Skipped::Tags), _) => Work::Skipped(String::from(NOT_SELECTED)),
            (Some(Skipped::Locked), _) => Work::Unknown(String::from(LOCKED)),
            (Some(Skipped::Undecided), _) | (None, None) => Work::Unknown(String::from(NOT_ASKED)),
            (None, Some(declared)) => {
                let mut declared = declared.clone();
                declared.spare(|| {
                    self.declarations
                        .iter()
                        .filter(|other| other.spec.key.shape == crate::kind::Shape::Path)
                        .map(|other| other.key.as_str().into())
                        .collect()
                });
                Work::Resource(declared)
            }
        }
    }
}

/// Why something is not known that all facts are known for which are asked for.
const LOCKED: &str = "it needs a secret, and there is no key for that";
const NOT_ASKED: &str = "it needs facts that the project asks for, and that were not asked for: --untrusted asks for none, and --limit leaves out those of other hosts";

fn has_guards(common: &Common) -> bool {
    !common.unless.is_empty() || !common.onlyif.is_empty()
}

pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
