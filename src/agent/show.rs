//! How plans and changes are shown to the controller.

use std::collections::HashSet;

use super::contents::SMALL;
use super::journal::target_of_path;
use super::plan::{NodePlan, Planner};
use crate::change::{self, Change, Content, Masking, Sides};
use crate::graph::{Node, NodeIndex, Work};
use crate::kind::Contents;
use crate::report::ChangeView;
use crate::wire::{PlannedNode, ShownChange};
use crate::world::{Metadata, RemotePath, System, World};

/// Most bytes of differences that are shown of one node, and about as many travel in one message.
pub(super) const SHOWN: usize = 4 << 20;

/// How much of contents is shown.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Contents of at most so many bytes.
    pub(super) each: u64,
    /// So many bytes of text in all.
    pub(super) all: usize,
    /// So many bytes of contents are looked at for that: new ones have to be there first.
    pub(super) looked_at: u64,
}

impl Bounds {
    const NOTHING: Self = Self { each: 0, all: 0, looked_at: 0 };
}

impl Planner<'_> {
    /// Plans as the controller is told of them, with differences as text if they are wanted.
    pub(super) fn show(
        &self,
        world: &World<'_>,
        planned: &[(NodeIndex, NodePlan, u64)],
    ) -> std::io::Result<Vec<PlannedNode>> {
        if self.diff {
            let wanted = planned.iter().flat_map(|(index, plan, _)| {
                let node = &self.graph.nodes[*index as usize];
                let private = made_private(&plan.changes);
                plan.changes.iter().filter_map(move |one| match one {
                    Change::Content { after: Content::File(id), .. }
                        if self.hidden(node, one, &private, Some(world)) != Hidden::All =>
                    {
                        Some(*id)
                    }
                    _ => None,
                })
            });
            self.store.prefetch(wanted.collect::<Vec<_>>())?;
        }
        Ok(planned
            .iter()
            .map(|(index, plan, ms)| PlannedNode {
                node: *index,
                verdict: plan.verdict,
                because: self.mask.hide(&plan.because).into_owned(),
                depends_on: plan.depends_on.clone(),
                assuming: plan.assuming.clone(),
                owed: plan.owed,
                ignored: plan.ignored,
                changes: self.views(*index, &plan.changes, Some(world)),
                ms: *ms,
            })
            .collect())
    }

    /// How much of a content may not be shown: it says so, or not everybody may read the file. Where
    /// it is known what of a declared content is secret, the rest of it is shown in any case.
    fn hidden(
        &self,
        node: &Node,
        change: &Change,
        made_private: &HashSet<&RemotePath>,
        world: Option<&World<'_>>,
    ) -> Hidden {
        let Change::Content { path, after, .. } = change else { return Hidden::Nothing };
        // What the host makes of a secret that is too short cannot be told from the rest.
        if node.sensitive == Some(true) || node.mask.has_short() {
            return Hidden::All;
        }
        // A stranger does not say what may be shown.
        if node.sensitive == Some(false) && !self.untrusted {
            return Hidden::Nothing;
        }
        let private = made_private.contains(path)
            || (self.untrusted && self.stands_apart(path))
            || match world {
                Some(world) => world.entry(path).map(|found| found.value),
                None => self.host.entry(path),
            }
            .map_or(true, |entry| entry.metadata().is_some_and(is_private));
        // Where no secret is known any more, what stands there may have the one that was.
        let had_secret =
            || node.mask.is_empty() && self.hidden_before.contains(&target_of_path(path));
        match private {
            false if had_secret() => Hidden::Old,
            false => Hidden::Nothing,
            true if self.untrusted || node.mask.is_empty() => Hidden::All,
            true => match (&node.work, after) {
                (Work::Resource(declared), Content::File(id))
                    if declared.kind().content() == Some(*id) =>
                {
                    Hidden::Old
                }
                _ => Hidden::All,
            },
        }
    }

    /// Whether not everybody may enter the folders on the way to a path.
    fn stands_apart(&self, path: &RemotePath) -> bool {
        let folders = std::iter::successors(path.parent(), RemotePath::parent);
        folders.into_iter().any(|folder| match self.host.entry(&folder) {
            Ok(entry) => entry.metadata().is_some_and(|metadata| metadata.mode & 0o001 == 0),
            Err(_) => true,
        })
    }

    /// Changes as people read them.
    pub(super) fn views(
        &self,
        index: NodeIndex,
        changes: &[Change],
        world: Option<&World<'_>>,
    ) -> Vec<ShownChange> {
        let bounds = match self.diff {
            true => Bounds { each: SMALL, all: SHOWN, looked_at: u64::MAX },
            false => Bounds::NOTHING,
        };
        self.views_within(index, changes, world, bounds)
    }

    /// Changes as people read them, with as many differences of contents as fit.
    pub(super) fn views_within(
        &self,
        index: NodeIndex,
        changes: &[Change],
        world: Option<&World<'_>>,
        bounds: Bounds,
    ) -> Vec<ShownChange> {
        let node = &self.graph.nodes[index as usize];
        let private = made_private(changes);
        let mut room = bounds.all;
        let mut looked_at: u64 = 0;
        changes
            .iter()
            .map(|one| {
                let view = match one {
                    Change::Content { .. }
                        if self.hidden(node, one, &private, world) == Hidden::All =>
                    {
                        change::view(one, Sides::Hidden)
                    }
                    Change::Content { path, before, after }
                        if room > 0 && looked_at < bounds.looked_at =>
                    {
                        looked_at = looked_at.saturating_add(to_look_at(one, bounds.each));
                        let old = match before {
                            Content::File(id) if id.size <= bounds.each => {
                                let planned = world
                                    .is_some_and(|world| world.planned_content(path) == Some(*id));
                                if planned {
                                    self.store.bytes(id).ok()
                                } else {
                                    {
                                        let user = self.acting_user(node);
                                        let read = || self.host.read(path);
                                        self.host.reading_as(&user, read).ok().map(Into::into)
                                    }
                                }
                            }
                            _ => None,
                        };
                        let new = match after {
                            Content::File(id) if id.size <= bounds.each => {
                                self.store.bytes(id).ok()
                            }
                            _ => None,
                        };
                        let lost = |side: &Content, bytes: bool| {
                            matches!(side, Content::File(_)) && !bytes
                        };
                        if lost(before, old.is_some()) || lost(after, new.is_some()) {
                            change::view(one, Sides::Omitted)
                        } else {
                            let hide_old = self.hidden(node, one, &private, world) == Hidden::Old;
                            let sides = Sides::Shown {
                                before: old.as_deref(),
                                after: new.as_deref(),
                                masking: Masking { mask: &self.mask, hide_old },
                            };
                            change::view(one, sides)
                        }
                    }
                    _ => change::view(one, Sides::Omitted),
                };
                let view = match one {
                    Change::Act(change::Act::Run(_)) if node.sensitive == Some(true) => {
                        ChangeView { target: String::from("(hidden)"), ..view }
                    }
                    Change::Act(_) | Change::Unit { .. } | Change::Account { .. } => ChangeView {
                        target: self.mask.hide(&view.target).into_owned(),
                        diff: self.mask.hide(&view.diff).into_owned(),
                        ..view
                    },
                    _ => view,
                };
                let view =
                    if view.diff.len() > room { change::view(one, Sides::Omitted) } else { view };
                room = room.saturating_sub(view.diff.len());
                ShownChange { change: one.clone(), view }
            })
            .collect()
    }
}

/// How much of a content's difference is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hidden {
    /// All is shown but for what is secret.
    Nothing,
    /// What stood there before.
    Old,
    /// Nothing is shown.
    All,
}

/// How many bytes there are to look at in order to show a change, of contents of at most `each`.
pub(super) fn to_look_at(change: &Change, each: u64) -> u64 {
    let Change::Content { before, after, .. } = change else { return 0 };
    let size = |side: &Content| match side {
        Content::File(id) if id.size <= each => id.size,
        _ => 0,
    };
    size(before).saturating_add(size(after))
}

/// The paths that changes close to others than their owner and group.
fn made_private(changes: &[Change]) -> HashSet<&RemotePath> {
    let private = changes.iter().filter_map(|change| match change {
        Change::Metadata { path, after, .. } if is_private(after) => Some(path),
        _ => None,
    });
    private.collect()
}

fn is_private(metadata: &Metadata) -> bool {
    metadata.mode & 0o004 == 0
}
