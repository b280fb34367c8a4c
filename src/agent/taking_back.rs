//! Nodes that take back what runs have done, made from the host's records: undo and prune are
//! ordinary plans towards what was before.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::journal::{How, Left, Objects, Owes, PastJournal, Reacting, Scope, Thing};
use crate::change::{Account, Act, Change, Content, Mask, PackageMove, inverse};
use crate::graph::{Graph, Node, NodeIndex, Work};
use crate::kind::{Claim, Footprint, Restore, Since};
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
        mask: Mask::default(),
        prune: None,
        confirm_connection: None,
    }
}

/// The home of a user of the host, if there is one of that name.
pub(super) type HomeOf<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What earlier runs of a scope created and is no longer declared, what came last first. It goes
/// after all else, where its play says `prune: true`, and is only shown elsewhere; then services
/// react that reacted to it.
pub(super) fn prune(graph: &Graph, scope: &Scope, home_of: HomeOf<'_>) -> Vec<Node> {
    if graph.plays.is_empty() || !scope.things.values().any(|thing| thing.created) {
        return Vec::new();
    }
    let declared = Declarations::of(graph, home_of);
    let stale = scope.things.iter().filter(|(_, thing)| {
        thing.created && thing.prune != Some(Prune::Keep) && !declared.know(&thing.id)
    });
    let mut stale: Vec<(&Thing, Cow<'_, Left>)> = stale
        .filter_map(|(target, thing)| Some((target, thing, thing.left.get()?)))
        .filter(|(target, _, left)| !declared.have(target, left))
        .map(|(_, thing, left)| (thing, left))
        .collect();
    stale.sort_by_key(|(_, left)| std::cmp::Reverse(left.order));
    let last_play = u32::try_from(graph.plays.len() - 1).unwrap_or(0);
    let mut nodes: Vec<Node> = Vec::new();
    let mut owed = Vec::new();
    for (thing, left) in stale {
        let back = inverse(std::slice::from_ref(&left.change), &[], &[]);
        let wanted = is_wanted(graph, thing);
        let mut changes = back.changes;
        if is_unit_file(&left.change) {
            changes.push(Change::Act(Act::ReloadManager { user: None }));
        }
        // A tree's things go together, unless something else came between.
        if let Some(Node { id, work: Work::Restore(restore), .. }) = nodes.last_mut()
            && *id == thing.id
            && restore.only_shown != wanted
        {
            restore.changes.extend(changes);
            restore.cannot.extend(back.cannot);
            continue;
        }
        let since = if thing.prune == Some(Prune::Force) { Since::Overwrite } else { Since::Keep };
        let work = Work::Restore(Restore {
            changes,
            cannot: back.cannot,
            since,
            only_shown: !wanted,
            further: Vec::new(),
        });
        let index = graph.nodes.len() + nodes.len();
        let mut made = node(index, thing.id.clone(), left.at.clone(), last_play, work);
        // Who made it may be gone.
        made.become_user = left.become_user.clone().filter(|name| home_of(name).is_some());
        made.sensitive = left.sensitive;
        if wanted {
            owed.extend(left.owes.iter().map(|owes| (number(index), owes.clone())));
        }
        nodes.push(made);
    }
    let first = number(graph.nodes.len());
    let mut order = Order::default();
    for (index, made) in (first..).zip(&mut nodes) {
        made.after = order.place(index, &made.work);
        if index == first {
            made.after = (0..first).collect();
            order.barrier = Some(first);
        }
    }
    let mut reactions = Reactions::default();
    for (index, owes) in owed {
        reactions.add(index, &owes);
    }
    let all = first..number(graph.nodes.len() + nodes.len());
    for own in &graph.nodes {
        let Some((reload, restart)) = reactions.take(&own.id) else { continue };
        let Work::Reaction { service, declared, .. } = &own.work else { continue };
        let work =
            Work::Reaction { service: *service, declared: declared.clone(), reload, restart };
        let index = graph.nodes.len() + nodes.len();
        let mut made = node(index, own.id.clone(), own.at.clone(), last_play, work);
        made.become_user.clone_from(&own.become_user);
        made.after = all.clone().collect();
        nodes.push(made);
    }
    nodes
}

fn number(index: usize) -> NodeIndex {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// Whether the play of a thing says that it is to go. Plays may share a name, and a play that is
/// gone has no say: then all of them have to say so.
fn is_wanted(graph: &Graph, thing: &Thing) -> bool {
    let own: Vec<_> = graph.plays.iter().filter(|play| play.name == thing.play).collect();
    match own.as_slice() {
        [] => graph.plays.iter().all(|play| play.prune),
        own => own.iter().all(|play| play.prune),
    }
}

fn is_unit_file(change: &Change) -> bool {
    let folder = RemotePath::from("/etc/systemd/system");
    matches!(change, Change::Content { path, .. } if path.is_within(&folder))
}

/// Which nodes services have to react to: for a reload, and for a restart.
#[derive(Default)]
struct Reactions(HashMap<ResourceId, (Vec<NodeIndex>, Vec<NodeIndex>)>);

impl Reactions {
    fn add(&mut self, index: NodeIndex, owes: &Owes) {
        let (reload, restart) = self.0.entry(owes.to.clone()).or_default();
        match owes.how {
            How::Reload => reload.push(index),
            How::Restart => restart.push(index),
            How::Act => {}
        }
    }

    fn take(&mut self, id: &ResourceId) -> Option<(Vec<NodeIndex>, Vec<NodeIndex>)> {
        self.0.remove(id).filter(|(reload, restart)| !(reload.is_empty() && restart.is_empty()))
    }
}

/// What the states of a graph are about, whatever they are called.
#[derive(Default)]
struct Declarations<'a> {
    ids: HashSet<&'a ResourceId>,
    paths: HashSet<RemotePath>,
    /// All folders above declared paths: they hold something that stays.
    above: HashSet<RemotePath>,
    subtrees: Vec<RemotePath>,
    others: HashSet<String>,
    /// Kinds of states whose keys are not known on this host.
    unknown: HashSet<&'a str>,
}

impl<'a> Declarations<'a> {
    fn of(graph: &'a Graph, home_of: HomeOf<'_>) -> Self {
        let mut found = Self::default();
        for node in &graph.nodes {
            found.ids.insert(&node.id);
            let Some((kind, key)) = node.id.as_str().split_once(':') else { continue };
            // A state that is left out may have a key that cannot be known here.
            if key.contains("{{") {
                found.unknown.insert(kind);
            }
            let (reads, writes) = match &node.work {
                Work::Resource(declared) => {
                    let Footprint { reads, writes } = declared.kind().footprint();
                    (reads, writes)
                }
                // What is left out is declared all the same; its key says what it is about.
                Work::Skipped(_) | Work::Unknown(_) => {
                    let path = key.split(" [").next().unwrap_or(key);
                    let claim = match kind {
                        "user" => Claim::User(key.to_owned()),
                        "group" => Claim::Group(key.to_owned()),
                        "service" => Claim::Unit(crate::world::systemd::full_name(key)),
                        _ if path.starts_with('/') => Claim::Subtree(RemotePath::from(path)),
                        _ => continue,
                    };
                    (Vec::new(), vec![claim])
                }
                Work::Reaction { .. } | Work::Restore(_) => continue,
            };
            // Their files lie in homes, which footprints only guess.
            if matches!(kind, "authorized_key" | "unit") {
                let key_of = |claim: &Claim| match claim {
                    Claim::User(name) => Some(name.clone()),
                    _ => None,
                };
                let named = (kind == "authorized_key").then(|| key.split(' ').next()).flatten();
                let users = reads.iter().chain(&writes).filter_map(key_of);
                for user in users.chain(named.map(str::to_owned)) {
                    if let Some(home) = home_of(&user) {
                        let home = RemotePath::from(home.as_str());
                        found.subtrees.extend([home.join(".ssh"), home.join(".config/systemd")]);
                    }
                }
            }
            for claim in writes {
                found.add(claim);
            }
        }
        found
    }

    fn add(&mut self, claim: Claim) {
        match claim {
            Claim::Path(path) => {
                self.above.extend(path.ancestors());
                self.paths.insert(path);
            }
            Claim::Subtree(path) => {
                self.above.extend(path.ancestors());
                self.subtrees.push(path);
            }
            Claim::User(name) => drop(self.others.insert(format!("user:{name}"))),
            Claim::Group(name) => drop(self.others.insert(format!("group:{name}"))),
            Claim::Unit(name) => drop(self.others.insert(format!("service:{name}"))),
            Claim::Packages | Claim::World => {}
        }
    }

    /// Whether a resource is declared, or may be without its key being known.
    fn know(&self, id: &ResourceId) -> bool {
        let kind = id.as_str().split(':').next().unwrap_or_default();
        self.ids.contains(id) || self.unknown.contains(kind)
    }

    /// Whether something else that is declared is about the same thing.
    fn have(&self, target: &str, left: &Left) -> bool {
        match &left.change {
            Change::Content { path, .. } => {
                self.paths.contains(path)
                    || self.above.contains(path)
                    || self.subtrees.iter().any(|folder| path.is_within(folder))
            }
            _ => self.others.contains(target),
        }
    }
}

/// Nodes that lead to what runs of a scope have left, each with the run: what of them differs has
/// drifted. They are never carried out.
pub(super) fn drift(scope: &Scope) -> (Vec<Node>, Vec<String>) {
    let mut nodes = Vec::new();
    let mut runs = Vec::new();
    for thing in scope.things.values() {
        let Some(left) = thing.left.get() else { continue };
        let changes = towards(&left);
        if changes.is_empty() {
            continue;
        }
        let restore = Restore {
            changes,
            cannot: Vec::new(),
            since: Since::Overwrite,
            only_shown: true,
            further: Vec::new(),
        };
        let work = Work::Restore(restore);
        let mut made = node(nodes.len(), thing.id.clone(), left.at.clone(), 0, work);
        made.become_user.clone_from(&left.become_user);
        made.sensitive = left.sensitive;
        nodes.push(made);
        runs.push(left.run.clone());
    }
    (nodes, runs)
}

/// From whatever a thing is to what the last run left of it.
fn towards(left: &Left) -> Vec<Change> {
    let mut changes = Vec::new();
    let path = match &left.change {
        Change::Content { path, after, .. } => {
            let (before, after) = (after.clone(), after.clone());
            changes.push(Change::Content { path: path.clone(), before, after });
            Some(path)
        }
        Change::Metadata { path, .. } => Some(path),
        Change::Account { before, after } => {
            changes.push(Change::Account { before: before.clone(), after: after.clone() });
            None
        }
        Change::Packages(_) | Change::Unit { .. } => {
            changes.push(left.change.clone());
            None
        }
        Change::Act(_) => None,
    };
    if let (Some(path), Some(after)) = (path, &left.metadata) {
        let (path, after) = (path.clone(), after.clone());
        changes.push(Change::Metadata { path, before: None, after });
    }
    changes
}

/// A graph that takes a run back: what it did last goes first, then the services that reacted to
/// it react once more. A rollback is about one play, and leaves packages and accounts; `only` are
/// the resources that go back, if not all do.
pub(super) fn undo(
    journal: &PastJournal,
    force: bool,
    rollback: Option<&str>,
    only: Option<&HashSet<String>>,
    objects: Option<&Objects>,
) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    let since = if force { Since::Overwrite } else { Since::Refuse };
    let mut reactions = Reactions::default();
    let mut order = Order::default();
    let touched = journal.touched();
    // One transaction's packages stand with the first of its resources.
    let all_moved: HashSet<&str> = touched
        .iter()
        .flat_map(|(.., moved)| moved.iter())
        .map(|moved| moved.name.as_str())
        .collect();
    for (begin, outcome, moved) in touched.into_iter().rev() {
        if outcome == PastOutcome::Met || begin.changes.is_empty() {
            continue;
        }
        if rollback.is_some_and(|play| play != begin.play)
            || only.is_some_and(|only| !only.contains(begin.id.as_str()))
        {
            continue;
        }
        let mut changes = with_what_moved(&begin.changes, moved, &all_moved);
        if rollback.is_some() {
            changes
                .retain(|change| !matches!(change, Change::Account { .. } | Change::Packages(_)));
        }
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
        let number = number(index);
        begin.owes.iter().for_each(|owes| reactions.add(number, owes));
        let work = Work::Restore(Restore {
            changes: back.changes,
            cannot: back.cannot,
            since,
            only_shown: false,
            further: Vec::new(),
        });
        let mut made = node(index, begin.id.clone(), begin.at.clone(), 0, work);
        made.become_user.clone_from(&begin.become_user);
        made.environment_file.clone_from(&begin.environment_file);
        made.timeout = begin.timeout;
        made.sensitive = begin.sensitive;
        made.after = order.place(number, &made.work);
        nodes.push(made);
    }
    look_further(&mut nodes);
    for service in &journal.header.reacting {
        let Some((reload, restart)) = reactions.take(&service.id) else { continue };
        react(&mut nodes, service, reload, restart);
    }
    nodes
}

/// Which nodes have to wait for which: files and folders only for those that they overlap with, so
/// that many go back together; all else for everything before it.
#[derive(Default)]
struct Order {
    /// The last node that everything waits for.
    barrier: Option<NodeIndex>,
    /// All nodes since then.
    since: Vec<NodeIndex>,
    /// Those of them about a path, and about something below a path.
    at: HashMap<RemotePath, Vec<NodeIndex>>,
    below: HashMap<RemotePath, Vec<NodeIndex>>,
}

impl Order {
    /// Takes in the next node, and says which it comes after.
    fn place(&mut self, index: NodeIndex, work: &Work) -> Vec<NodeIndex> {
        let changes = match work {
            Work::Restore(restore) => restore.changes.as_slice(),
            _ => &[],
        };
        let mut after: Vec<NodeIndex> = self.barrier.into_iter().collect();
        let paths: Vec<&RemotePath> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Content { path, .. } | Change::Metadata { path, .. } => Some(path),
                _ => None,
            })
            .collect();
        if paths.len() < changes.len() || changes.is_empty() {
            after.append(&mut self.since);
            self.at.clear();
            self.below.clear();
            self.barrier = Some(index);
            return after;
        }
        for path in &paths {
            after.extend(self.at.get(*path).into_iter().flatten());
            after.extend(self.below.get(*path).into_iter().flatten());
            after.extend(path.ancestors().filter_map(|folder| self.at.get(&folder)).flatten());
        }
        for path in paths {
            self.at.entry(path.clone()).or_default().push(index);
            for folder in path.ancestors() {
                let below = self.below.entry(folder).or_default();
                if below.last() != Some(&index) {
                    below.push(index);
                }
            }
        }
        self.since.push(index);
        after.sort_unstable();
        after.dedup();
        after.retain(|earlier| *earlier != index);
        after
    }
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

/// The users that come back into a group with it.
fn members(change: &Change) -> Vec<Target> {
    match change {
        Change::Account { before: None, after: Some(Account::Group { entry, .. }) } => {
            entry.members.iter().cloned().map(Target::User).collect()
        }
        _ => Vec::new(),
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
            for target in target(change).into_iter().chain(members(change)) {
                further.entry(target).or_default().push(change.clone());
            }
        }
    }
}

fn react(
    nodes: &mut Vec<Node>,
    Reacting { id, service, become_user }: &Reacting,
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
    reaction.become_user.clone_from(become_user);
    reaction.after = (0..=number).collect();
    nodes.extend([own, reaction]);
}

/// The changes with the packages that really moved: which come along is not always known before.
/// `all` are those of the whole run: what moved with another resource of its transaction is taken
/// back there.
fn with_what_moved(changes: &[Change], moved: &[PackageMove], all: &HashSet<&str>) -> Vec<Change> {
    let mut moved = Some(moved).filter(|moved| !moved.is_empty());
    let replaced = changes.iter().filter_map(|change| match change {
        Change::Packages(transaction) => {
            let mut transaction = transaction.clone();
            match moved.take() {
                Some(moved) => transaction.moves = moved.to_vec(),
                None => transaction.moves.retain(|step| !all.contains(step.name.as_str())),
            }
            (!transaction.moves.is_empty()).then_some(Change::Packages(transaction))
        }
        other => Some(other.clone()),
    });
    replaced.collect()
}
