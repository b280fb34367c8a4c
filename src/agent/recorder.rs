use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::act::check_of;
use super::journal::{Begin, End, How, Journal, Owes, RunEnd, without_secrets};
use super::plan::{Planner, is_change};
use super::show::{Bounds, to_look_at};
use crate::change::{Account, Change, Content, PackageMove};
use crate::graph::{Graph, NOT_SELECTED, NodeIndex, Work};
use crate::kind::Restore;
use crate::report::{ChangeView, PastOutcome};
use crate::wire::Outcome;
use crate::world::{Entry, GroupEntry, Metadata, RemotePath, System};

/// Most bytes of one content whose difference a journal shows.
const SHOWN_EACH: u64 = 32 << 10;
/// Most bytes of differences that one journal shows, and of contents that it looks at for them.
const SHOWN_ALL: usize = 2 << 20;

/// Writes the journal of a run beside what it does: before a change what it is and what stood
/// there, after it how it ended.
pub(super) struct Recorder<'a> {
    planner: &'a Planner<'a>,
    journal: &'a Mutex<Journal>,
    owes: HashMap<NodeIndex, Vec<Owes>>,
    begun: Mutex<HashSet<NodeIndex>>,
    /// What goes back if nobody can log in after it: what it replaces is kept in any case.
    armed: Mutex<HashSet<NodeIndex>>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(planner: &'a Planner<'a>, journal: &'a Mutex<Journal>) -> Self {
        Self {
            planner,
            journal,
            owes: owes(planner),
            begun: Mutex::default(),
            armed: Mutex::default(),
        }
    }

    fn journal(&self) -> MutexGuard<'a, Journal> {
        self.journal.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn begun(&self) -> MutexGuard<'_, HashSet<NodeIndex>> {
        self.begun.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// From now on what that node replaces is kept, however much is kept already.
    pub(super) fn arm(&self, index: NodeIndex) {
        self.armed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(index);
    }

    fn is_armed(&self, index: NodeIndex) -> bool {
        self.armed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).contains(&index)
    }

    /// Says that changes of nodes are about to be made, and keeps what they replace. Nothing may
    /// be changed if that fails.
    pub(super) fn begin<'w>(
        &self,
        work: impl Iterator<Item = &'w (NodeIndex, Vec<Change>)>,
    ) -> Result<(), String> {
        let mut begins = Vec::new();
        let mut kept = false;
        for (index, changes) in work {
            if !changes.iter().any(is_change) {
                continue;
            }
            let node = &self.planner.graph.nodes[*index as usize];
            let play = self.planner.graph.plays.get(node.play as usize);
            let stood = self.keep(*index, changes, &mut kept).map_err(|error| {
                format!("what stands there cannot be kept, so nothing was changed: {error}")
            })?;
            begins.push(Begin {
                node: *index,
                id: node.id.clone(),
                play: play.map(|play| play.name.clone()).unwrap_or_default(),
                at: node.at.clone(),
                become_user: node.become_user.clone(),
                environment_file: node.environment_file.clone(),
                timeout: node.timeout,
                // A later run has other secrets, or none: what it takes back it cannot mask.
                sensitive: if node.mask.is_empty() { node.sensitive } else { Some(true) },
                changes: changes
                    .iter()
                    .map(|change| without_secrets(change, node.sensitive))
                    .collect(),
                unchecked: check_of(node).is_some_and(|check| !check.contains("%s")),
                owes: self.owes.get(index).cloned().unwrap_or_default(),
                stood,
                groups: self.groups_of_removed(changes),
                prune: node.prune,
                shown: self.shown(*index, changes),
            });
            self.begun().insert(*index);
        }
        if begins.is_empty() {
            return Ok(());
        }
        let mut journal = self.journal();
        let written = if kept { journal.objects.sync() } else { Ok(()) };
        written.and_then(|()| journal.begin(begins)).map_err(|error| {
            format!("the run's journal cannot be written, so nothing was changed: {error}")
        })
    }

    /// Says how nodes ended; `moved` are the packages that did.
    pub(super) fn end<'o>(
        &self,
        outcomes: impl Iterator<Item = (NodeIndex, &'o Outcome)>,
        finished: u64,
        mut moved: Vec<PackageMove>,
    ) -> io::Result<()> {
        let mut journal = self.journal();
        let mut ends = Vec::new();
        for (index, outcome) in outcomes {
            let node = &self.planner.graph.nodes[index as usize];
            let begun = self.begun().remove(&index);
            let (outcome, because) = match outcome {
                Outcome::Changed(_) => (PastOutcome::Changed, String::new()),
                Outcome::Met { .. } => (PastOutcome::Met, String::new()),
                Outcome::Failed { message, ignored } => {
                    if !ignored {
                        journal.fail();
                    }
                    (PastOutcome::Failed, message.clone())
                }
                Outcome::Skipped { .. } => {
                    let on_purpose = matches!(
                        node.work,
                        Work::Skipped(_) | Work::Restore(Restore { only_shown: true, .. })
                    );
                    if !on_purpose {
                        journal.fail();
                    }
                    continue;
                }
            };
            if begun || journal.owes(&node.id) {
                let id = node.id.clone();
                // They belong to their transaction as a whole.
                let packages =
                    begun && matches!(outcome, PastOutcome::Changed | PastOutcome::Failed);
                let moved = if packages { std::mem::take(&mut moved) } else { Vec::new() };
                ends.push(End { node: index, id, outcome, finished, because, moved });
            }
        }
        if ends.is_empty() { Ok(()) } else { journal.end(ends) }
    }

    /// Ends the journal before the run itself has ended: what comes now is another run's.
    pub(super) fn close(&self) -> io::Result<()> {
        self.journal().finish(RunEnd::Incomplete)
    }

    /// Keeps the contents that changes replace, and says whose they were.
    fn keep(
        &self,
        index: NodeIndex,
        changes: &[Change],
        kept: &mut bool,
    ) -> io::Result<Vec<(RemotePath, Metadata)>> {
        let node = &self.planner.graph.nodes[index as usize];
        let user = self.planner.acting_user(node);
        let host = self.planner.host;
        let objects = Arc::clone(&self.journal().objects);
        let mut stood = Vec::new();
        for change in changes {
            let Change::Content { path, before, after } = change else { continue };
            if let Content::File(id) = before
                && !objects.has(id)
            {
                let content = host.reading_as(&user, || host.open(path))?;
                objects
                    .keep(id, content, self.is_armed(index))
                    .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
                *kept = true;
            }
            let same_type = std::mem::discriminant(before) == std::mem::discriminant(after);
            if *before != Content::Absent && !same_type {
                let entry = host.reading_as(&user, || host.entry(path));
                let entry = entry.map_err(|error| io::Error::other(error.to_string()))?;
                if let Some(metadata) = entry.metadata().filter(|_| entry != Entry::Absent) {
                    stood.push((path.clone(), metadata.clone()));
                }
            }
        }
        Ok(stood)
    }

    /// A user's own group goes with it.
    fn groups_of_removed(&self, changes: &[Change]) -> Vec<GroupEntry> {
        let removed = changes.iter().filter_map(|change| match change {
            Change::Account { before: Some(Account::User { entry, .. }), after: None } => {
                entry.group.clone()
            }
            _ => None,
        });
        let groups = |name: String| self.planner.host.groups().ok()?.get(&name).cloned();
        removed.filter_map(groups).collect()
    }

    fn shown(&self, index: NodeIndex, changes: &[Change]) -> Vec<ChangeView> {
        let mut journal = self.journal();
        let bounds = Bounds {
            each: SHOWN_EACH,
            all: SHOWN_ALL.saturating_sub(journal.shown),
            looked_at: (SHOWN_ALL as u64).saturating_sub(journal.looked_at),
        };
        let views = self.planner.views_within(index, changes, None, bounds);
        let views: Vec<ChangeView> = views.into_iter().map(|shown| shown.view).collect();
        let sizes = changes.iter().map(|change| to_look_at(change, SHOWN_EACH));
        journal.looked_at = sizes.fold(journal.looked_at, u64::saturating_add);
        journal.shown += views.iter().map(|view| view.diff.len()).sum::<usize>();
        views
    }
}

/// What has to follow each node's change.
fn owes(planner: &Planner<'_>) -> HashMap<NodeIndex, Vec<Owes>> {
    let graph: &Graph = planner.graph;
    let mut owes: HashMap<NodeIndex, Vec<Owes>> = HashMap::new();
    for node in &graph.nodes {
        let mut add = |watched: &[NodeIndex], how: How| {
            for index in watched {
                let owed = owes.entry(*index).or_default();
                match owed.iter_mut().find(|one| one.to == node.id) {
                    Some(one) => one.how = one.how.max(how),
                    None => owed.push(Owes { to: node.id.clone(), how }),
                }
            }
        };
        match &node.work {
            Work::Reaction { service, reload, restart, .. } => {
                add(reload, How::Reload);
                add(restart, How::Restart);
                add(&planner.unit_files_of(*service), How::Restart);
            }
            // What tags have left out is owed until they do not.
            Work::Skipped(reason) if reason != NOT_SELECTED => {}
            Work::Resource(_) | Work::Skipped(_) | Work::Unknown(_) => {
                if let Some(watched) = &node.onchanges {
                    add(watched, How::Act);
                }
            }
            Work::Restore(_) => {}
        }
    }
    owes
}
