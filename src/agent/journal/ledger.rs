use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::read::PastJournal;
use super::record::{Begin, Debt, Made, VERSION, made};
use crate::change::{Change, Content, PackageMove};
use crate::lang::Prune;
use crate::report::PastOutcome;
use crate::resource::ResourceId;

/// What journals come to: who created what, and which reactions are owed. A file of it stands for
/// journals that are gone or need not be read again; it is folded from them and from nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::agent) struct Ledger {
    /// [`VERSION`].
    version: u32,
    /// The number of the last run that is folded in.
    pub(in crate::agent) upto: u64,
    /// The runs that are folded in and whose journals are still there.
    pub(in crate::agent) folded: BTreeSet<String>,
    /// By project, state file and inventory.
    scopes: BTreeMap<String, Scope>,
}

/// The records of one project, state file and inventory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::agent) struct Scope {
    /// What its runs created and is still there as far as they know, by target.
    pub(in crate::agent) created: BTreeMap<String, Created>,
    /// What its runs owe.
    pub(in crate::agent) owed: Vec<Debt>,
    /// Its last run that changed something.
    pub(in crate::agent) last_run: Option<String>,
}

/// A thing that was not there before a run of ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::agent) struct Created {
    /// The resource.
    pub(in crate::agent) id: ResourceId,
    /// Its play.
    pub(in crate::agent) play: String,
    /// `file:line:column` of the state.
    pub(in crate::agent) at: String,
    /// As whom it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::agent) become_user: Option<String>,
    /// The run.
    pub(in crate::agent) run: String,
    /// Counts what the scope created: what came later goes first.
    pub(in crate::agent) order: u64,
    /// The change that made it, with what later runs made of it.
    pub(in crate::agent) change: Change,
    /// What `prune:` said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::agent) prune: Option<Prune>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { version: VERSION, upto: 0, folded: BTreeSet::new(), scopes: BTreeMap::new() }
    }
}

impl Ledger {
    /// A ledger from its file; none if it is not one of this version.
    pub(in crate::agent) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|ledger: &Self| ledger.version == VERSION)
    }

    /// The records of a scope.
    pub(in crate::agent) fn scope(&self, name: &str) -> Option<&Scope> {
        self.scopes.get(name)
    }

    /// Takes in the next journal.
    pub(in crate::agent) fn fold(&mut self, journal: &PastJournal) {
        self.upto = self.upto.max(journal.header.number);
        self.folded.insert(journal.header.run.id.clone());
        let scope = self.scopes.entry(journal.header.run.scope()).or_default();
        scope.last_run = Some(journal.header.run.id.clone());
        for (begin, outcome, moved) in journal.touched() {
            // What was being made when the run died, or when it failed half-way, may be there.
            if outcome != PastOutcome::Met {
                let known = (outcome != PastOutcome::CutOff).then_some(moved);
                scope.take(begin, known, &journal.header.run.id);
            }
        }
        scope.owed = journal.owed(std::mem::take(&mut scope.owed));
    }
}

impl Scope {
    /// Takes in what one resource's changes have made; of packages those that have `moved`, where
    /// that is known.
    fn take(&mut self, begin: &Begin, moved: Option<&[PackageMove]>, run: &str) {
        for change in &begin.changes {
            for (target, how) in made(change) {
                let stayed = |moved: &[PackageMove]| {
                    !moved.iter().any(|one| target == format!("package:{}", one.name))
                };
                if matches!(change, Change::Packages(_)) && moved.is_some_and(stayed) {
                    continue;
                }
                match how {
                    Made::Gone => {
                        self.created.remove(&target);
                    }
                    Made::Changed => {
                        if let Some(created) = self.created.get_mut(&target) {
                            created.now(change);
                        }
                    }
                    Made::New => {
                        let order =
                            1 + self.created.values().map(|one| one.order).max().unwrap_or(0);
                        let order = match self.created.get(&target) {
                            Some(created) => created.order,
                            None => order,
                        };
                        let created = Created {
                            id: begin.id.clone(),
                            play: begin.play.clone(),
                            at: begin.at.clone(),
                            become_user: begin.become_user.clone(),
                            run: run.to_owned(),
                            order,
                            change: only(change, &target),
                            prune: begin.prune,
                        };
                        self.created.insert(target, created);
                    }
                }
            }
        }
    }
}

impl Created {
    /// Takes in what a later run made of it.
    fn now(&mut self, change: &Change) {
        if let (Change::Content { after, .. }, Change::Content { after: now, .. }) =
            (&mut self.change, change)
            && *now != Content::Absent
        {
            *after = now.clone();
        }
        if let (Change::Account { after, .. }, Change::Account { after: now, .. }) =
            (&mut self.change, change)
        {
            after.clone_from(now);
        }
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
