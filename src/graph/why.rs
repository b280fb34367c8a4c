//! Why steps come after others: the graph once more with the reason of every edge.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt::Write as _;

use super::build::{Item, PlayDeclarations, PlayGraph, number};
use super::overlap::{Overlap, overlaps};
use super::types::{Graph, NOT_SELECTED, NodeIndex};
use crate::diagnostic::{Diagnostics, Sources, nearest};
use crate::kind::Footprint;
use crate::lang::{Names, Skipped};

/// A host's graph with the reason of every edge.
pub struct Explained {
    /// The graph.
    pub graph: Graph,
    /// What each node comes after; nodes of one step are there with all that the step waits for.
    pub(super) links: Vec<Vec<Link>>,
    /// What is special about a node, by node.
    pub(super) standings: Vec<Standing>,
    /// What each node touches; none where it does nothing.
    footprints: Vec<Option<Footprint>>,
    plays: Vec<PlayNames>,
}

/// An edge of the graph.
#[derive(Debug)]
pub(super) struct Link {
    /// What has to be done before.
    pub earlier: NodeIndex,
    /// At least one.
    pub reasons: Vec<Reason>,
}

/// Why something comes before something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The project says so.
    Requisite {
        /// `require`, `watch`, …
        word: &'static str,
        /// Where.
        at: String,
    },
    /// They touch the same.
    Overlap(Overlap),
    /// They are one transaction of the package manager.
    Together,
}

/// Whether a node is certain to have something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is.
    Certain,
    /// It is left out, for this reason.
    LeftOut(String),
    /// That needs facts.
    Undecided(&'static str),
    /// It is the reaction of a service.
    Reaction,
}

/// What the nodes of a play can be called.
struct PlayNames {
    names: Names,
    /// The node of each declaration.
    declared: Vec<NodeIndex>,
    /// The nodes of the reactions of services.
    reactions: HashMap<usize, NodeIndex>,
    all: Vec<String>,
}

/// A reference that does not name one resource.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// It names none.
    #[error("`{text}` is no resource of this state file{}", hint(.near.as_deref()))]
    Unknown {
        /// As given.
        text: String,
        /// What was probably meant.
        near: Option<String>,
    },
    /// It names several.
    #[error("`{text}` means {count} resources, and has to mean one: {ids}")]
    Several {
        /// As given.
        text: String,
        /// How many.
        count: usize,
        /// The first of them.
        ids: String,
    },
}

fn hint(near: Option<&str>) -> String {
    match near {
        Some(near) => format!("; did you mean `{near}`?"),
        None => String::from(
            "\n  help: references are `kind:key`, for example `file:/etc/motd`, or an `id`",
        ),
    }
}

/// Makes the graph of one host, as [`super::build`] does, with the reason of every edge.
pub fn explain(
    plays: &[PlayDeclarations],
    sources: &Sources,
    diagnostics: &mut Diagnostics,
) -> Explained {
    let mut explained = Explained {
        graph: Graph::default(),
        links: Vec::new(),
        standings: Vec::new(),
        footprints: Vec::new(),
        plays: Vec::new(),
    };
    for (index, play) in plays.iter().enumerate() {
        explained.graph.plays.push(play.play.clone());
        let base = explained.graph.nodes.len();
        let play_graph = PlayGraph::new(&play.declarations, sources);
        play_graph.append_to(&mut explained.graph, index, diagnostics);
        // With a cycle of requisites, which was said, there is no order.
        if explained.graph.nodes.len() > base {
            explained.add(play_graph, base, sources);
        }
    }
    explained
}

impl Explained {
    fn add(&mut self, play: PlayGraph<'_>, base: usize, sources: &Sources) {
        let order = play.visit_order();
        let footprints: Vec<Option<Footprint>> =
            order.iter().map(|item| play.footprint(*item)).collect();
        let mut steps: BTreeMap<NodeIndex, Vec<NodeIndex>> = BTreeMap::new();
        for (node, index) in self.graph.nodes.iter().zip(0..).skip(base) {
            steps.entry(node.step).or_default().push(index);
        }
        for (offset, item) in order.iter().enumerate() {
            let node = &self.graph.nodes[base + offset];
            let step = |index: &NodeIndex| self.graph.nodes[*index as usize].step;
            let waits: BTreeSet<NodeIndex> = node
                .after
                .iter()
                .flat_map(|earlier| steps.get(&step(earlier)).into_iter().flatten().copied())
                .collect();
            let mut links = Vec::new();
            for earlier in waits {
                let before = earlier as usize - base;
                let mut reasons = requisites(&play, order[before], *item, sources);
                if let (Some(one), Some(other)) = (&footprints[before], &footprints[offset]) {
                    reasons.extend(overlaps(one, other).into_iter().map(Reason::Overlap));
                }
                if !reasons.is_empty() {
                    links.push(Link { earlier, reasons });
                }
            }
            let own = steps.get(&node.step).into_iter().flatten();
            for other in own.filter(|other| **other as usize != base + offset) {
                links.push(Link { earlier: *other, reasons: vec![Reason::Together] });
            }
            self.links.push(links);
            self.standings.push(standing(&play, *item));
        }
        let nodes = || (base..).map(number).zip(&order);
        let mut declared = vec![0; play.declarations.len()];
        let mut reactions = HashMap::new();
        for (node, item) in nodes() {
            match item {
                Item::Declared(index) => declared[*index] = node,
                Item::Reaction(index) => {
                    reactions.insert(*index, node);
                }
            }
        }
        self.footprints.extend(footprints);
        let ids = self.graph.nodes[base..].iter().map(|node| node.id.to_string());
        let aliases = play.declarations.iter().filter_map(|one| one.alias.clone());
        let all = ids.chain(aliases).collect();
        self.plays.push(PlayNames { names: play.names, declared, reactions, all });
    }

    /// The nodes that a reference means: one, or one in several plays.
    pub fn find(&self, text: &str) -> Result<Vec<NodeIndex>, ReferenceError> {
        let (plain, reaction) = match text.strip_prefix("reaction:") {
            Some(service) => (service, true),
            None => (text, false),
        };
        let mut found = Vec::new();
        for play in &self.plays {
            for index in play.names.matching_text(plain) {
                let node =
                    if reaction { play.reactions.get(&index) } else { play.declared.get(index) };
                found.extend(node);
            }
        }
        let ids: BTreeSet<&str> = found.iter().map(|node| self.id(*node)).collect();
        match ids.len() {
            1 => Ok(found),
            0 => {
                let all = || self.plays.iter().flat_map(|play| &play.all).map(String::as_str);
                let keyed =
                    all().find(|name| name.split_once(':').is_some_and(|(_, key)| key == text));
                let near = keyed.or_else(|| nearest(text, all())).map(str::to_owned);
                Err(ReferenceError::Unknown { text: text.to_owned(), near })
            }
            count => {
                const SHOWN: usize = 5;
                let mut shown: Vec<&str> = ids.into_iter().take(SHOWN).collect();
                if count > SHOWN {
                    shown.push("…");
                }
                let ids = shown.join(", ");
                Err(ReferenceError::Several { text: text.to_owned(), count, ids })
            }
        }
    }

    /// Why one resource comes before the other, or that nothing orders them, for people.
    pub fn why(&self, first: &str, second: &str) -> Result<String, ReferenceError> {
        let (first, second) = (self.find(first)?, self.find(second)?);
        // Where both are in several plays, the nearest pair is meant: that of one play.
        let pairs = || first.iter().flat_map(|one| second.iter().map(move |other| (*one, *other)));
        let same_play = pairs().find(|(one, other)| self.play_of(*one) == self.play_of(*other));
        let Some((first, second)) = same_play.or_else(|| pairs().next()) else {
            return Ok(String::new());
        };
        if first == second {
            return Ok(format!("{} is one resource\n", self.id(first)));
        }
        let (one, other) = (self.id(first), self.id(second));
        let mut text = if self.play_of(first) != self.play_of(second) {
            let forwards = self.play_of(first) < self.play_of(second);
            let (word, earlier, later) =
                if forwards { ("before", first, second) } else { ("after", second, first) };
            format!(
                "{one} comes {word} {other}:\n  {}\n  {}\n    all of the play `{}` is done \
                 before the play `{}` begins\n",
                self.placed(earlier),
                self.placed(later),
                self.graph.plays[self.play_of(earlier)].name,
                self.graph.plays[self.play_of(later)].name,
            )
        } else if let Some(hops) = self.hops(first, second) {
            if self.are_together(first, second) {
                format!("{one} and {other} are done together:\n{hops}")
            } else {
                format!("{one} comes before {other}:\n{hops}")
            }
        } else if let Some(hops) = self.hops(second, first) {
            format!("{one} comes after {other}:\n{hops}")
        } else {
            format!("nothing orders {one} and {other}: they may run at the same time\n")
        };
        for node in [first, second] {
            let id = self.id(node);
            match &self.standings[node as usize] {
                // A string takes whatever is written to it.
                Standing::LeftOut(why) => {
                    let _ = writeln!(text, "{id} is left out here, and touches nothing: {why}");
                }
                Standing::Undecided(why) => {
                    let _ = writeln!(text, "{id}: {why}, which are not known before a connection");
                }
                Standing::Certain | Standing::Reaction => {}
            }
        }
        Ok(text)
    }

    /// The shortest way from one node to a later one.
    fn path(&self, from: NodeIndex, to: NodeIndex) -> Option<Vec<(NodeIndex, &Link)>> {
        let mut next: HashMap<NodeIndex, (NodeIndex, &Link)> = HashMap::new();
        let mut queue = VecDeque::from([to]);
        while let Some(node) = queue.pop_front() {
            if node == from {
                let mut path = Vec::new();
                let mut at = from;
                while let Some((later, link)) = next.get(&at) {
                    path.push((*later, *link));
                    if *later == to {
                        break;
                    }
                    at = *later;
                }
                return Some(path);
            }
            for link in &self.links[node as usize] {
                if link.earlier != to && !next.contains_key(&link.earlier) {
                    next.insert(link.earlier, (node, link));
                    queue.push_back(link.earlier);
                }
            }
        }
        None
    }

    /// Why one comes before the other, place by place; none if it does not.
    fn hops(&self, from: NodeIndex, to: NodeIndex) -> Option<String> {
        let path = self.path(from, to)?;
        let direct = match (&self.footprints[from as usize], &self.footprints[to as usize]) {
            // The graph has no edges that follow from others: here they say more.
            (Some(one), Some(other)) if path.len() > 1 && !self.are_together(from, to) => {
                overlaps(one, other).into_iter().map(Reason::Overlap).collect()
            }
            _ => Vec::new(),
        };
        let direct = Link { earlier: from, reasons: direct };
        let path = if direct.reasons.is_empty() { path } else { vec![(to, &direct)] };
        let mut text = format!("  {}\n", self.placed(from));
        for (later, link) in path {
            // A string takes whatever is written to it.
            let _ = writeln!(text, "  {}", self.placed(later));
            for reason in &link.reasons {
                let words = reason.words(self.id(link.earlier), self.id(later));
                let _ = writeln!(text, "    {words}");
            }
        }
        Some(text)
    }

    /// A resource with its place.
    pub(super) fn placed(&self, node: NodeIndex) -> String {
        format!("{} ({})", self.id(node), self.graph.nodes[node as usize].at)
    }

    fn are_together(&self, one: NodeIndex, other: NodeIndex) -> bool {
        self.graph.nodes[one as usize].step == self.graph.nodes[other as usize].step
    }

    pub(super) fn id(&self, node: NodeIndex) -> &str {
        self.graph.nodes[node as usize].id.as_str()
    }

    fn play_of(&self, node: NodeIndex) -> usize {
        self.graph.nodes[node as usize].play as usize
    }
}

impl Reason {
    /// In a word or two.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Requisite { word, .. } => (*word).to_owned(),
            Self::Overlap(overlap) => overlap.label(),
            Self::Together => String::from("one transaction"),
        }
    }

    /// As a sentence.
    pub(super) fn words(&self, earlier: &str, later: &str) -> String {
        match self {
            Self::Requisite { word: "service", at } => {
                format!("a reaction comes after the state of its service ({at})")
            }
            Self::Requisite { word: "unit file", at } => {
                format!("{earlier} is the unit file of the service ({at})")
            }
            Self::Requisite { word, at } => format!("`{word}` of {later} names it ({at})"),
            Self::Overlap(overlap) => overlap.words(earlier, later),
            Self::Together => String::from("they are one transaction of the package manager"),
        }
    }
}

fn requisites(play: &PlayGraph<'_>, earlier: Item, later: Item, sources: &Sources) -> Vec<Reason> {
    let (from, to) = (play.vertices[&earlier], play.vertices[&later]);
    let mut reasons: Vec<Reason> = play
        .graph
        .edges_connecting(from, to)
        .map(|edge| {
            let requisite = edge.weight();
            let at = sources.place(requisite.span).to_string();
            Reason::Requisite { word: requisite.word, at }
        })
        .collect();
    reasons.reverse(); // the graph gives the newest first
    let mut once: Vec<Reason> = Vec::with_capacity(reasons.len());
    for reason in reasons {
        if !once.contains(&reason) {
            once.push(reason);
        }
    }
    once
}

fn standing(play: &PlayGraph<'_>, item: Item) -> Standing {
    let index = match item {
        Item::Reaction(_) => return Standing::Reaction,
        Item::Declared(index) => index,
    };
    let declaration = &play.declarations[index];
    match (&declaration.skipped, &declaration.declared) {
        (Some(Skipped::When(condition)), _) => {
            Standing::LeftOut(format!("`when: {condition}` is false"))
        }
        (Some(Skipped::Tags), _) => Standing::LeftOut(NOT_SELECTED.to_owned()),
        (Some(Skipped::Locked), _) => Standing::Undecided("what it declares needs a secret"),
        (Some(Skipped::Undecided), _) => Standing::Undecided("whether it is there needs facts"),
        (None, None) => Standing::Undecided("what it declares needs facts"),
        (None, Some(_)) => Standing::Certain,
    }
}
