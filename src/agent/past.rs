//! What the agent says of runs that were, and what takes them back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::journal::{Objects, Records, past_runs};
use super::plan::Planner;
use super::steps::Steps;
use super::{AgentError, Session, taking_back};
use crate::graph::{Graph, Node};
use crate::report::{Drift, HostStatus, RunInfo};
use crate::wire::FromAgent;
use crate::world::process::Identity;

impl Session<'_> {
    /// The nodes that take a run back, and what that run was.
    pub(super) fn what_undoes(
        &self,
        run: &str,
        force: bool,
        rollback: Option<&str>,
        only: Option<&HashSet<String>>,
    ) -> Result<(Vec<Node>, Option<RunInfo>), AgentError> {
        let failed = |what: &str| AgentError::Record(format!("{run}: {what}"));
        let (journals, unreadable) = past_runs(&self.state, |id| id == run)
            .map_err(|error| failed(&format!("its journal cannot be read: {error}")))?;
        if let Some(what) = unreadable.first() {
            return Err(failed(what));
        }
        // A host that the run did not change has nothing to take back.
        let Some(journal) = journals.first() else { return Ok((Vec::new(), None)) };
        let objects =
            self.state.open("objects", false).ok().map(|folder| Arc::new(Objects::new(folder)));
        let nodes = taking_back::undo(journal, force, rollback, only, objects.as_deref());
        if let Some(objects) = objects {
            self.store.also_from(objects);
        }
        Ok((nodes, Some(journal.header.run.clone())))
    }

    pub(super) fn tell_status(&self, run: &RunInfo, login: &Identity) -> Result<(), AgentError> {
        let mut records = Records::read(&self.state);
        records.open(run);
        let scope = records.scope(run);
        let mut status = HostStatus {
            last: scope.as_ref().and_then(|scope| scope.last_run.clone()),
            running: self.state.holder().map(|holder| holder.run),
            owed: scope
                .as_ref()
                .map(|scope| scope.owed.iter().map(|debt| debt.to.to_string()).collect())
                .unwrap_or_default(),
            unreadable: records.unreadable.clone(),
            drift: Vec::new(),
        };
        let (nodes, runs) = scope.map(|scope| taking_back::drift(&scope)).unwrap_or_default();
        let graph = Graph { plays: Vec::new(), nodes };
        let actors = self.actors(&graph, login)?;
        let planner = Planner {
            host: self.host,
            graph: &graph,
            steps: &Steps::of(&graph),
            store: self.store,
            actors: &actors,
            diff: false,
            mask: graph.mask(),
            hidden_before: HashSet::new(),
            untrusted: true,
            owed: HashMap::new(),
            boot: String::new(),
        };
        for differing in planner.differing() {
            let index = differing.node as usize;
            let Some((node, run)) = graph.nodes.get(index).zip(runs.get(index)) else { continue };
            status.drift.push(Drift {
                id: node.id.to_string(),
                at: node.at.clone(),
                run: run.clone(),
                changes: differing.changes,
            });
        }
        Ok(self.output.send(&FromAgent::Status(status))?)
    }

    pub(super) fn tell_past(&self, run: Option<&str>) -> Result<(), AgentError> {
        let running = self.state.holder().map(|holder| holder.run.id);
        let (journals, unreadable) = past_runs(&self.state, |id| run.is_none_or(|run| run == id))
            .map_err(|error| {
            AgentError::Record(format!("{}: {error}", self.state.path().display()))
        })?;
        for journal in journals {
            let mut past = journal.past(running.as_ref() == Some(&journal.header.run.id));
            if run.is_none() {
                // Differences are told of one run at a time.
                past.resources.iter_mut().for_each(|resource| resource.changes.clear());
            }
            self.output.send(&FromAgent::Past(vec![past]))?;
        }
        Ok(self.output.send(&FromAgent::PastDone { unreadable })?)
    }
}
