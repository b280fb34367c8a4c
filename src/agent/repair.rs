//! What runs that died have left beside the files that they were changing, and what they had put in
//! place only in order to check it.

use std::collections::HashMap;

use super::journal::{Begin, PastJournal};
use crate::change::files::Leftovers;
use crate::change::{Change, Content};
use crate::world::process::{Identity, acting_as};
use crate::world::{Entry, Host, ObserveError, RemotePath, System};

/// Takes back what nobody has checked, and removes what lies beside it and beside all else that was
/// in hand. Only the holder of the lock may. What cannot be done is in the way of nobody: the plan
/// sees what stands there.
pub(super) fn repair(dead: &[PastJournal], host: &Host, login: &Identity) {
    each(dead, host, login, |path, unchecked| {
        let Ok(leftovers) = Leftovers::of(path) else { return };
        // What could not be put back is still kept.
        if !unchecked || leftovers.put_back().is_ok() {
            leftovers.sweep();
        }
    });
}

/// What stands where such a repair would put something back, for who only looks.
pub(super) fn seen_instead(
    dead: &[PastJournal],
    host: &Host,
    login: &Identity,
) -> HashMap<RemotePath, Option<RemotePath>> {
    let mut seen = HashMap::new();
    each(dead, host, login, |path, unchecked| {
        if unchecked && let Ok(kept) = Leftovers::of(path).and_then(|leftovers| leftovers.kept()) {
            seen.insert(path.clone(), kept);
        }
    });
    seen
}

/// Calls something for each content that was in hand, as the user who was making it: whether it is
/// in place without having been checked.
fn each(
    dead: &[PastJournal],
    host: &Host,
    login: &Identity,
    mut with: impl FnMut(&RemotePath, bool),
) {
    for begin in dead.iter().flat_map(PastJournal::in_hand) {
        let identity = match &begin.become_user {
            None => Ok(login.clone()),
            Some(name) => host.identity(name),
        };
        let Ok(identity) = identity else { continue };
        let _ = acting_as(&identity, || {
            for change in &begin.changes {
                let Change::Content { path, before, after } = change else { continue };
                // Where that cannot be told, what was kept stays.
                if let Ok(unchecked) = is_unchecked(begin, path, before, after, host) {
                    with(path, unchecked);
                }
            }
        });
    }
}

/// Whether the new content of a path is there and waits for its check: as long as what stood there
/// is still kept, or nothing stood there. What somebody else has made of it since is theirs.
fn is_unchecked(
    begin: &Begin,
    path: &RemotePath,
    before: &Content,
    after: &Content,
    host: &Host,
) -> Result<bool, ObserveError> {
    let Content::File(wanted) = after else { return Ok(false) };
    if !begin.unchecked || !matches!(host.entry(path)?, Entry::File { .. }) {
        return Ok(false);
    }
    if host.identify(path)? != *wanted {
        return Ok(false);
    }
    let looked = Leftovers::of(path).and_then(|leftovers| leftovers.kept());
    let kept = looked.map_err(|error| ObserveError::new(format!("looking at {path}"), error))?;
    Ok(kept.is_some() || *before == Content::Absent)
}
