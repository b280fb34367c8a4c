use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::lazy::Lazy;
use super::read::PastJournal;
use super::record::{Begin, Debt, Header, Made, Owes, Purpose, VERSION, made};
use crate::change::{Account, Change};
use crate::graph::{Graph, Node};
use crate::lang::Prune;
use crate::report::{PastOutcome, RunInfo};
use crate::resource::ResourceId;
use crate::world::Metadata;

/// What journals come to: who created what, and which reactions are owed. A file of it stands for
/// journals that are gone or need not be read again; it is folded from them and from nothing else.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::agent) struct Ledger {
    /// [`VERSION`].
    version: u32,
    /// The number of the last run that is folded in.
    pub(in crate::agent) upto: u64,
    /// The runs that are folded in and whose journals are still there.
    pub(in crate::agent) folded: BTreeSet<String>,
    /// Runs that lost their controller, and that nobody was told of yet.
    #[serde(default)]
    pub(in crate::agent) interrupted: Vec<RunInfo>,
    /// By project, state file and inventory.
    scopes: BTreeMap<String, Lazy<Scope>>,
}

/// The records of one project, state file and inventory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::agent) struct Scope {
    /// What its runs have made of the host, by target.
    pub(in crate::agent) things: BTreeMap<String, Thing>,
    /// What its runs owe.
    pub(in crate::agent) owed: Vec<Debt>,
    /// Its last run that changed something.
    pub(in crate::agent) last_run: Option<RunInfo>,
    /// How many things it has met so far.
    met: u64,
}

/// A thing as runs of ours have left it: what every run asks of it, and the rest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::agent) struct Thing {
    /// The resource.
    pub(in crate::agent) id: ResourceId,
    /// Its play.
    pub(in crate::agent) play: String,
    /// Whether it was not there before the first of these runs.
    pub(in crate::agent) created: bool,
    /// What `prune:` said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::agent) prune: Option<Prune>,
    /// How it was left.
    pub(in crate::agent) left: Lazy<Left>,
}

/// How a thing was left.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::agent) struct Left {
    /// `file:line:column` of the state.
    pub(in crate::agent) at: String,
    /// As whom it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::agent) become_user: Option<String>,
    /// The last run that changed it.
    pub(in crate::agent) run: String,
    /// Counts what the scope met: what came later goes first.
    pub(in crate::agent) order: u64,
    /// From what was before the first run to what the last one left.
    pub(in crate::agent) change: Change,
    /// Owner, group and mode that the last run left, where it set them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::agent) metadata: Option<Metadata>,
    /// What has to follow when it changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::agent) owes: Vec<Owes>,
    /// Whether its contents are hidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::agent) sensitive: Option<bool>,
}

impl Scope {
    /// The things that were hidden when they were left.
    pub(in crate::agent) fn hidden(&self) -> HashSet<String> {
        let hidden = self.things.iter().filter(|(_, thing)| match &thing.left {
            // Taken apart are only those that may be.
            Lazy::Text(text) if !text.get().contains("\"sensitive\":true") => false,
            left => left.get().is_some_and(|left| left.sensitive == Some(true)),
        });
        hidden.map(|(target, _)| target.clone()).collect()
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            version: VERSION,
            upto: 0,
            folded: BTreeSet::new(),
            interrupted: Vec::new(),
            scopes: BTreeMap::new(),
        }
    }
}

impl Ledger {
    /// A ledger from its file; none if it is not one of this version.
    pub(in crate::agent) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|ledger: &Self| ledger.version == VERSION)
    }

    /// Makes the records of one scope another's, beside those that it has; false if there are none.
    pub(in crate::agent) fn adopt(&mut self, from: &str, to: &str) -> bool {
        if from == to || self.scopes.get_mut(from).is_none_or(|scope| scope.get_mut().is_none()) {
            return false;
        }
        let Some(Lazy::Known(from)) = self.scopes.remove(from) else { return false };
        let scope =
            self.scopes.entry(to.to_owned()).or_insert_with(|| Lazy::Known(Scope::default()));
        match scope.get_mut() {
            Some(scope) => scope.adopt(from),
            None => *scope = Lazy::Known(from),
        }
        true
    }

    /// The records of a scope.
    pub(in crate::agent) fn scope(&self, name: &str) -> Option<Cow<'_, Scope>> {
        self.scopes.get(name)?.get()
    }

    /// Takes the records of a scope apart, so that they need not be again; false if they are none.
    pub(in crate::agent) fn open(&mut self, name: &str) -> bool {
        self.scopes.get_mut(name).is_none_or(|scope| scope.get_mut().is_some())
    }

    /// Takes over what is declared by now of things that are known: where they stand, and whether
    /// they may go. Says whether anything is new.
    pub(in crate::agent) fn refresh(&mut self, scope: &str, graph: &Graph) -> bool {
        let scope = self.scopes.get_mut(scope).and_then(Lazy::get_mut);
        let Some(scope) = scope else { return false };
        let declared: HashMap<&ResourceId, &Node> =
            graph.nodes.iter().map(|node| (&node.id, node)).collect();
        let mut new = false;
        for thing in scope.things.values_mut() {
            let Some(node) = declared.get(&thing.id) else { continue };
            let play = graph.plays.get(node.play as usize).map(|play| play.name.as_str());
            if thing.prune != node.prune || Some(thing.play.as_str()) != play {
                thing.prune = node.prune;
                thing.play = play.unwrap_or_default().to_owned();
                new = true;
            }
        }
        new
    }

    /// Takes in the next journal.
    pub(in crate::agent) fn fold(&mut self, journal: &PastJournal) {
        self.upto = self.upto.max(journal.header.number);
        self.folded.insert(journal.header.run.id.clone());
        let scope = self
            .scopes
            .entry(journal.header.run.scope())
            .or_insert_with(|| Lazy::Known(Scope::default()));
        // Records that are none begin anew.
        if scope.get_mut().is_none() {
            *scope = Lazy::Known(Scope::default());
        }
        let Some(scope) = scope.get_mut() else { return };
        scope.last_run = Some(journal.header.run.clone());
        let touched = journal.touched();
        let moved: HashSet<&str> = touched
            .iter()
            .flat_map(|(.., moved)| moved.iter())
            .map(|moved| moved.name.as_str())
            .collect();
        for (begin, outcome, _) in &touched {
            // What was being made when the run died, or when it failed half-way, may be there.
            if *outcome != PastOutcome::Met {
                let known = (*outcome != PastOutcome::CutOff).then_some(&moved);
                scope.take(begin, known, &journal.header);
            }
        }
        scope.owed = journal.owed(std::mem::take(&mut scope.owed));
    }
}

impl Scope {
    /// Takes over what another scope has; of what both know, this one was the last.
    fn adopt(&mut self, other: Self) {
        self.met = self.met.max(other.met);
        for (target, thing) in other.things {
            self.things.entry(target).or_insert(thing);
        }
        let new = |debt: &Debt| {
            !self.owed.iter().any(|own| (&own.to, &own.from) == (&debt.to, &debt.from))
        };
        let owed: Vec<Debt> = other.owed.into_iter().filter(|debt| new(debt)).collect();
        self.owed.extend(owed);
        self.last_run = self.last_run.take().or(other.last_run);
    }

    /// Takes in what one resource's changes have made; of packages those that have `moved`, where
    /// that is known.
    fn take(&mut self, begin: &Begin, moved: Option<&HashSet<&str>>, header: &Header) {
        let mut gone = HashSet::new();
        for change in &begin.changes {
            for (target, how) in made(change) {
                let stayed = |moved: &HashSet<&str>| {
                    target.strip_prefix("package:").is_some_and(|name| !moved.contains(name))
                };
                if matches!(change, Change::Packages(_)) && moved.is_some_and(stayed) {
                    continue;
                }
                // What is replaced by something else was there before, and so was what an undo
                // brings back.
                let how = match how {
                    Made::New if gone.contains(&target) => Made::Changed,
                    Made::New if matches!(header.purpose, Purpose::Undo(_)) => Made::Back,
                    how => how,
                };
                if how == Made::Gone {
                    gone.insert(target.clone());
                }
                let run = &header.run.id;
                self.take_one(begin, change, target, how, run);
            }
        }
    }

    fn take_one(&mut self, begin: &Begin, change: &Change, target: String, how: Made, run: &str) {
        let known = self.things.remove(&target);
        let created_before = known.as_ref().is_some_and(|thing| thing.created);
        let known = known.and_then(|thing| thing.left.get().map(Cow::into_owned));
        let order = known.as_ref().map_or(self.met, |left| left.order);
        self.met += u64::from(known.is_none());
        let created = match how {
            Made::New => true,
            Made::Changed => created_before,
            Made::Gone | Made::Back => false,
        };
        let own = only(change, &target);
        let metadata = match change {
            Change::Metadata { after, .. } => Some(after.clone()),
            _ if how == Made::Changed => known.as_ref().and_then(|left| left.metadata.clone()),
            _ => None,
        };
        let change = match known {
            // Beside a content, owner and mode say nothing of what the thing is.
            Some(known) if matches!(change, Change::Metadata { .. }) => known.change,
            Some(known) if how == Made::Changed => onwards(known.change, own),
            _ => own,
        };
        let left = Left {
            at: begin.at.clone(),
            become_user: begin.become_user.clone(),
            run: run.to_owned(),
            order,
            change,
            metadata,
            owes: begin.owes.clone(),
            sensitive: begin.sensitive,
        };
        let thing = Thing {
            id: begin.id.clone(),
            play: begin.play.clone(),
            created,
            prune: begin.prune,
            left: Lazy::Known(left),
        };
        self.things.insert(target, thing);
    }
}

/// One change that does what two have done one after the other.
fn onwards(first: Change, second: Change) -> Change {
    match (first, second) {
        (Change::Content { path, before, .. }, Change::Content { after, .. }) => {
            Change::Content { path, before, after }
        }
        (Change::Account { before, after }, Change::Account { after: last, .. }) => {
            // How its home came to be is known from the first one.
            let after = match (after, last) {
                (Some(Account::User { system, home, .. }), Some(Account::User { entry, .. })) => {
                    Some(Account::User { entry, system, home })
                }
                (_, last) => last,
            };
            Change::Account { before, after }
        }
        (Change::Unit { name, before, stop, .. }, Change::Unit { after, .. }) => {
            Change::Unit { name, before, after, stop }
        }
        (Change::Packages(first), Change::Packages(mut second)) => {
            for step in &mut second.moves {
                let before = first.moves.iter().find(|before| before.name == step.name);
                if let Some(before) = before {
                    step.before.clone_from(&before.before);
                }
            }
            Change::Packages(second)
        }
        (_, second) => second,
    }
}

/// The part of a change that is about one target.
fn only(change: &Change, target: &str) -> Change {
    match change {
        Change::Packages(transaction) => {
            let mut transaction = transaction.clone();
            transaction.moves.retain(|moved| target == format!("package:{}", moved.name));
            transaction.debconf.clear();
            Change::Packages(transaction)
        }
        other => other.clone(),
    }
}

/// Debts by whom they are owed to.
pub(in crate::agent) fn by_debtor(owed: &[Debt]) -> HashMap<ResourceId, Vec<Debt>> {
    let mut debts: HashMap<ResourceId, Vec<Debt>> = HashMap::new();
    for debt in owed {
        debts.entry(debt.to.clone()).or_default().push(debt.clone());
    }
    debts
}
