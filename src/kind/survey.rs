//! Many paths looked at together: a tree has thousands.

use std::sync::OnceLock;

use super::{PlanError, Planning};
use crate::world::{ContentId, Entry, Predicted, RemotePath};

/// One of many paths that were looked at together.
pub struct Surveyed {
    entry: Predicted<Entry>,
    content: Option<ContentId>,
}

impl Planning<'_> {
    /// What stands at many paths, with the contents of files: looked at on several threads, since
    /// a tree has thousands. To be handed to [`Planning::surveyed`] one by one.
    pub fn survey(&self, paths: &[&RemotePath]) -> Vec<Result<Surveyed, PlanError>> {
        let seen: Vec<OnceLock<_>> = paths.iter().map(|_| OnceLock::new()).collect();
        self.world().system().look_at_many(paths.len(), &|index| {
            let _ = seen[index].set(self.survey_one(paths[index]));
        });
        let results = seen.into_iter().zip(paths);
        // Whatever was not looked at before is now.
        results
            .map(|(seen, path)| seen.into_inner().unwrap_or_else(|| self.survey_one(path)))
            .collect()
    }

    fn survey_one(&self, path: &RemotePath) -> Result<Surveyed, PlanError> {
        let entry = self.world().entry(path)?;
        let content = match (&entry.value, self.world().planned_content(path)) {
            (Entry::File { .. }, Some(planned)) => Some(planned),
            (Entry::File { .. }, None) => Some(self.world().system().identify(path)?),
            _ => None,
        };
        Ok(Surveyed { entry, content })
    }

    /// What was surveyed at a path, and the content if it is a file.
    pub fn surveyed(&mut self, surveyed: Surveyed) -> (Entry, Option<ContentId>) {
        let missing = surveyed.entry.value == Entry::Absent;
        (self.taken(surveyed.entry, missing), surveyed.content)
    }
}
