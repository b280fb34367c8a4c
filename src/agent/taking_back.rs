//! Nodes that take back what runs have done, made from the host's records: undo and prune are
//! ordinary plans towards what was before.

use std::collections::{HashMap, HashSet};

use super::journal::{Created, How, Objects, PastJournal, Scope};
use crate::change::{Account, Change, Content, PackageMove, inverse};
use crate::graph::{Graph, Node, NodeIndex, Work};
use crate::kind::{Claim, Declared, Footprint, Restore, Since};
use crate::lang::Prune;
use crate::report::PastOutcome;
use crate::resource::ResourceId;
use crate::world::RemotePath;

/// A node of records: nothing of it was declared in this run.
fn node(index: usize, id: ResourceId, at: String, play: u32, work: Work) -> Node {
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    Node {
        id,
        label: None,
        at,
        play,
        step: number,
        work,
        after: Vec::new(),
        require: Vec::new(),
        onchanges: None,
        onfail: None,
        unless: Vec::new(),
        onlyif: Vec::new(),
        become_user: None,
        environment: Vec::new(),
        environment_file: None,
        retry: None,
        timeout: None,
        ignore_errors: false,
        sensitive: None,
        prune: None,
    }
}

/// What earlier runs of a scope created and is no longer declared, what came last first. It goes
/// after all else, where its play says `prune: true`, and is only shown elsewhere.
pub(super) fn prune(graph: &Graph, scope: &Scope) -> Vec<Node> {
    if scope.created.is_empty() || graph.plays.is_empty() {
        return Vec::new();
    }
    let ids: HashSet<&ResourceId> = graph.nodes.iter().map(|node| &node.id).collect();
    let declared = Declarations::of(graph);
    let stale = scope.created.iter().filter(|(target, created)| {
        !ids.contains(&created.id)
            && created.prune != Some(Prune::Keep)
            && !declared.have(target, &created.change)
    });
    let mut stale: Vec<&Created> = stale.map(|(_, created)| created).collect();
    stale.sort_by_key(|created| std::cmp::Reverse(created.order));
    let last_play = u32::try_from(graph.plays.len() - 1).unwrap_or(0);
    let mut nodes: Vec<Node> = Vec::new();
    let mut places: HashMap<&ResourceId, usize> = HashMap::new();
    for created in stale {
        let back = inverse(std::slice::from_ref(&created.change), &[], &[]);
        let position = *places.entry(&created.id).or_insert(nodes.len());
        if let Some(Node { work: Work::Restore(restore), .. }) = nodes.get_mut(position) {
            restore.changes.extend(back.changes);
            restore.cannot.extend(back.cannot);
            continue;
        }
        let own = graph.plays.iter().find(|play| play.name == created.play);
        let wanted = own.map_or_else(|| graph.plays.iter().any(|play| play.prune), |own| own.prune);
        let since =
            if created.prune == Some(Prune::Force) { Since::Overwrite } else { Since::Keep };
        let restore = Restore {
            changes: back.changes,
            cannot: back.cannot,
            since,
            only_shown: !wanted,
            further: Vec::new(),
        };
        let index = graph.nodes.len() + nodes.len();
        let work = Work::Restore(restore);
        let mut made = node(index, created.id.clone(), created.at.clone(), last_play, work);
        made.become_user.clone_from(&created.become_user);
        made.after = match nodes.len() {
            0 => (0..u32::try_from(graph.nodes.len()).unwrap_or(u32::MAX)).collect(),
            _ => vec![u32::try_from(index - 1).unwrap_or(u32::MAX)],
        };
        nodes.push(made);
    }
    nodes
}

/// What the states of a graph are about, whatever they are called.
struct Declarations {
    paths: HashSet<RemotePath>,
    subtrees: Vec<RemotePath>,
    others: HashSet<String>,
}

impl Declarations {
    fn of(graph: &Graph) -> Self {
        let mut found =
            Self { paths: HashSet::new(), subtrees: Vec::new(), others: HashSet::new() };
        for node in &graph.nodes {
            let Work::Resource(declared) = &node.work else { continue };
            let Footprint { writes, .. } = declared.kind().footprint();
            for claim in writes {
                match claim {
                    Claim::Path(path) => drop(found.paths.insert(path)),
                    Claim::Subtree(path) => found.subtrees.push(path),
                    Claim::User(name) => drop(found.others.insert(format!("user:{name}"))),
                    Claim::Group(name) => drop(found.others.insert(format!("group:{name}"))),
                    Claim::Unit(name) => drop(found.others.insert(format!("service:{name}"))),
                    Claim::Packages | Claim::World => {}
                }
            }
        }
        found
    }

    fn have(&self, target: &str, change: &Change) -> bool {
        match change {
            Change::Content { path, .. } => {
                self.paths.contains(path)
                    || self.subtrees.iter().any(|folder| path.is_within(folder))
                    // A folder that holds something declared stays.
                    || self.paths.iter().chain(&self.subtrees).any(|inner| inner.is_within(path))
            }
            _ => self.others.contains(target),
        }
    }
}

/// A graph that takes a run back: what it did last goes first, then the services that reacted to
/// it react once more.
pub(super) fn undo(journal: &PastJournal, force: bool, objects: Option<&Objects>) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    let since = if force { Since::Overwrite } else { Since::Refuse };
    // Which nodes a service has to react to, and how.
    let mut reactions: HashMap<&ResourceId, (Vec<NodeIndex>, Vec<NodeIndex>)> = HashMap::new();
    for (begin, outcome, moved) in journal.touched().into_iter().rev() {
        if outcome == PastOutcome::Met || begin.changes.is_empty() {
            continue;
        }
        let changes = with_what_moved(&begin.changes, moved);
        let mut back = inverse(&changes, &begin.stood, &begin.groups);
        back.changes.retain(|change| match change {
            Change::Content { path, after: Content::File(id), .. }
                if id.size > 0 && !objects.is_some_and(|objects| objects.has(id)) =>
            {
                back.cannot.push(format!("{path}: its former content was not kept"));
                false
            }
            _ => true,
        });
        if back.changes.is_empty() && back.cannot.is_empty() {
            continue;
        }
        let index = nodes.len();
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        for owes in &begin.owes {
            let (reload, restart) = reactions.entry(&owes.to).or_default();
            match owes.how {
                How::Reload => reload.push(number),
                How::Restart => restart.push(number),
                How::Act => {}
            }
        }
        let work = Work::Restore(Restore {
            changes: back.changes,
            cannot: back.cannot,
            since,
            only_shown: false,
            further: Vec::new(),
        });
        let mut made = node(index, begin.id.clone(), begin.at.clone(), 0, work);
        made.become_user.clone_from(&begin.become_user);
        made.after = index
            .checked_sub(1)
            .and_then(|before| u32::try_from(before).ok())
            .into_iter()
            .collect();
        nodes.push(made);
    }
    look_further(&mut nodes);
    for (id, service) in &journal.header.services {
        let Some((reload, restart)) = reactions.remove(id) else { continue };
        react(&mut nodes, id, service, reload, restart);
    }
    nodes
}

/// What a change is about, where several of a run can be about the same.
#[derive(PartialEq, Eq, Hash)]
enum Target {
    Path(RemotePath),
    User(String),
    Group(String),
    Unit(String),
}

fn target(change: &Change) -> Option<Target> {
    match change {
        Change::Content { path, .. } | Change::Metadata { path, .. } => {
            Some(Target::Path(path.clone()))
        }
        Change::Account { before, after } => match before.as_ref().or(after.as_ref())? {
            Account::User { entry, .. } => Some(Target::User(entry.name.clone())),
            Account::Group { entry, .. } => Some(Target::Group(entry.name.clone())),
        },
        Change::Unit { name, .. } => Some(Target::Unit(name.clone())),
        Change::Packages(_) | Change::Act(_) => None,
    }
}

/// Tells each node what later ones make of the same things.
fn look_further(nodes: &mut [Node]) {
    let mut further: HashMap<Target, Vec<Change>> = HashMap::new();
    for node in nodes.iter_mut().rev() {
        let Work::Restore(restore) = &mut node.work else { continue };
        let targets: HashSet<Target> = restore.changes.iter().filter_map(target).collect();
        let later = targets.iter().filter_map(|target| further.get(target));
        restore.further = later.flatten().cloned().collect();
        for change in &restore.changes {
            if let Some(target) = target(change) {
                further.entry(target).or_default().push(change.clone());
            }
        }
    }
}

fn react(
    nodes: &mut Vec<Node>,
    id: &ResourceId,
    service: &Declared,
    reload: Vec<NodeIndex>,
    restart: Vec<NodeIndex>,
) {
    let index = nodes.len();
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    let name = id.as_str().strip_prefix("reaction:").unwrap_or(id.as_str());
    let reason = Work::Skipped(String::from("its state went back by itself"));
    let own = node(index, ResourceId::new(name), String::new(), 0, reason);
    let work = Work::Reaction { service: number, declared: service.clone(), reload, restart };
    let mut reaction = node(index + 1, id.clone(), String::new(), 0, work);
    reaction.after = (0..=number).collect();
    nodes.extend([own, reaction]);
}

/// The changes with the packages that really moved: which come along is not always known before.
fn with_what_moved(changes: &[Change], moved: &[PackageMove]) -> Vec<Change> {
    let mut moved = Some(moved).filter(|moved| !moved.is_empty());
    let replaced = changes.iter().map(|change| match change {
        Change::Packages(transaction) => {
            let mut transaction = transaction.clone();
            if let Some(moved) = moved.take() {
                transaction.moves = moved.to_vec();
            }
            Change::Packages(transaction)
        }
        other => other.clone(),
    });
    replaced.collect()
}
