use std::collections::{HashMap, HashSet};

use super::{Account, Act, Change, Command, Content, HomeDirectory, PackageTransaction, Run, Stop};
use crate::world::{GroupEntry, Metadata, RemotePath};

/// What takes changes back: changes towards what was before, and what no change can bring back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inverse {
    /// In the order in which they are to happen.
    pub changes: Vec<Change>,
    /// What stays as it is, each with the reason.
    pub cannot: Vec<String>,
}

/// The way back from changes that were made in this order.
///
/// Of several changes about one path only the first `before` and the last `after` count. `stood`
/// is the metadata of paths that changes removed or replaced by something else without saying it,
/// `groups` are those that went with users.
/// Reactions are not taken back: they follow from what is restored.
pub fn inverse(
    changes: &[Change],
    stood: &[(RemotePath, Metadata)],
    groups: &[GroupEntry],
) -> Inverse {
    let stood: HashMap<&RemotePath, &Metadata> =
        stood.iter().map(|(path, metadata)| (path, metadata)).collect();
    let mut paths: HashMap<&RemotePath, Net<'_>> = HashMap::new();
    for change in changes {
        match change {
            Change::Content { path, before, after } => {
                let net = paths.entry(path).or_default();
                net.before.get_or_insert(before);
                net.after = Some(after);
            }
            Change::Metadata { path, before, after } => {
                let net = paths.entry(path).or_default();
                if !net.has_metadata {
                    net.metadata_before = before.as_ref();
                    net.has_metadata = true;
                }
                net.metadata_after = Some(after);
            }
            _ => {}
        }
    }
    let mut inverse = Inverse::default();
    let mut seen = HashSet::new();
    let mut managers = Vec::new();
    for change in changes.iter().rev() {
        match change {
            Change::Content { path, .. } | Change::Metadata { path, .. } => {
                if seen.insert(path)
                    && let Some(net) = paths.get(path)
                {
                    net.inverse(path, stood.get(path).copied(), &mut inverse);
                }
            }
            Change::Account { before, after } => {
                let account = |account: &Option<Account>, home| with_home(account.as_ref(), home);
                // A home that came with its user goes with it.
                let made = matches!(
                    (before, after),
                    (None, Some(Account::User { home: HomeDirectory::Create, .. }))
                );
                let home = if made { HomeDirectory::Remove } else { HomeDirectory::Leave };
                let mut restored = HomeDirectory::Leave;
                if let Some(Account::User { entry, home: HomeDirectory::Remove, .. }) = before {
                    inverse.cannot.push(format!("what was in {}", entry.home));
                    restored = HomeDirectory::Create;
                }
                if let (Some(Account::User { entry, .. }), None) = (before, after)
                    && let Some(group) =
                        groups.iter().find(|group| entry.group.as_ref() == Some(&group.name))
                {
                    let after = Account::Group { entry: group.clone(), system: false };
                    inverse.changes.push(Change::Account { before: None, after: Some(after) });
                }
                let (before, after) = (account(after, home), account(before, restored));
                inverse.changes.push(Change::Account { before, after });
            }
            Change::Packages(transaction) => packages(transaction, &mut inverse),
            Change::Unit { name, before, after, .. } => inverse.changes.push(Change::Unit {
                name: name.clone(),
                before: *after,
                after: *before,
                stop: Stop::default(),
            }),
            Change::Act(Act::Run(command)) => match &command.undo {
                Some(undo) => inverse.changes.push(Change::Act(Act::Run(Command {
                    run: Run::Shell(undo.clone()),
                    cwd: command.cwd.clone(),
                    stdin: None,
                    ok_codes: Vec::new(),
                    undo: None,
                }))),
                None => inverse.cannot.push(String::from("the command names no `undo`")),
            },
            Change::Act(Act::ReloadManager { user }) => {
                if !managers.contains(user) {
                    managers.push(user.clone());
                }
            }
            Change::Act(Act::React { .. } | Act::Wait(_)) => {}
        }
    }
    let reloads = managers.into_iter().map(|user| Change::Act(Act::ReloadManager { user }));
    inverse.changes.extend(reloads);
    inverse
}

/// What changes made of one path.
#[derive(Default)]
struct Net<'a> {
    before: Option<&'a Content>,
    after: Option<&'a Content>,
    has_metadata: bool,
    metadata_before: Option<&'a Metadata>,
    metadata_after: Option<&'a Metadata>,
}

impl Net<'_> {
    fn inverse(&self, path: &RemotePath, stood: Option<&Metadata>, inverse: &mut Inverse) {
        let mut push = |before: &Content, after: &Content| {
            inverse.changes.push(Change::Content {
                path: path.clone(),
                before: before.clone(),
                after: after.clone(),
            });
        };
        let mut gone = false;
        if let (Some(before), Some(after)) = (self.before, self.after)
            && before != after
        {
            if *before == Content::Other {
                inverse.cannot.push(format!("the special file that {path} was"));
                return;
            }
            gone = *before == Content::Absent;
            let folder = |content: &Content| *content == Content::Folder;
            let absent = |content: &Content| *content == Content::Absent;
            // A folder cannot be renamed over a file, nor a file over a folder.
            if folder(before) != folder(after) && !absent(before) && !absent(after) {
                push(after, &Content::Absent);
                push(&Content::Absent, before);
            } else {
                push(after, before);
            }
        }
        let original = self.metadata_before.or(stood);
        if let Some(original) = original.filter(|_| !gone) {
            let before = match self.after {
                Some(Content::Absent) => None,
                _ => self.metadata_after.cloned(),
            };
            inverse.changes.push(Change::Metadata {
                path: path.clone(),
                before,
                after: original.clone(),
            });
        }
    }
}

fn with_home(account: Option<&Account>, with: HomeDirectory) -> Option<Account> {
    account.cloned().map(|account| match account {
        Account::User { entry, system, .. } => Account::User { entry, system, home: with },
        group @ Account::Group { .. } => group,
    })
}

fn packages(transaction: &PackageTransaction, inverse: &mut Inverse) {
    let mut back = PackageTransaction {
        moves: Vec::new(),
        debconf: Vec::new(),
        refresh_lists: false,
        upgrade_all: false,
        ..transaction.clone()
    };
    for step in &transaction.moves {
        let mut step = step.clone();
        std::mem::swap(&mut step.before, &mut step.after);
        if step.after.as_ref().is_some_and(|state| state.version.is_none()) {
            inverse.cannot.push(format!("{}: its former version is not known", step.name));
            continue;
        }
        if step.purge && step.before.is_none() {
            inverse.cannot.push(format!("the configuration of {}", step.name));
        }
        // A purge may delete data: that is never taken for granted.
        step.purge = false;
        step.requested = true;
        step.source = None;
        back.moves.push(step);
    }
    if !back.moves.is_empty() {
        inverse.changes.push(Change::Packages(back));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::ContentId;

    fn file(text: &str) -> Content {
        Content::File(ContentId::of(text.as_bytes()))
    }

    fn content(path: &str, before: Content, after: Content) -> Change {
        Change::Content { path: path.into(), before, after }
    }

    fn mode(mode: u32) -> Metadata {
        Metadata { owner: String::from("root"), group: String::from("root"), mode }
    }

    fn metadata(path: &str, before: Option<u32>, after: u32) -> Change {
        Change::Metadata { path: path.into(), before: before.map(mode), after: mode(after) }
    }

    #[test]
    fn what_was_made_goes_children_first() {
        let made = [
            content("/a", Content::Absent, Content::Folder),
            metadata("/a", None, 0o755),
            content("/a/b", Content::Absent, file("x")),
            metadata("/a/b", None, 0o644),
        ];
        let back = inverse(&made, &[], &[]);
        assert_eq!(
            back.changes,
            [
                content("/a/b", file("x"), Content::Absent),
                content("/a", Content::Folder, Content::Absent),
            ]
        );
    }

    #[test]
    fn what_was_removed_comes_back_with_its_mode_parents_first() {
        let removed = [
            content("/a/b", file("x"), Content::Absent),
            content("/a", Content::Folder, Content::Absent),
        ];
        let stood = [("/a/b".into(), mode(0o600)), ("/a".into(), mode(0o700))];
        assert_eq!(
            inverse(&removed, &stood, &[]).changes,
            [
                content("/a", Content::Absent, Content::Folder),
                metadata("/a", None, 0o700),
                content("/a/b", Content::Absent, file("x")),
                metadata("/a/b", None, 0o600),
            ]
        );
    }

    #[test]
    fn of_several_changes_of_a_path_only_the_ends_count() {
        let replaced = [
            content("/a", file("x"), Content::Absent),
            content("/a", Content::Absent, Content::Folder),
            metadata("/a", Some(0o644), 0o755),
            content("/a/b", Content::Absent, file("y")),
        ];
        assert_eq!(
            inverse(&replaced, &[], &[]).changes,
            [
                content("/a/b", file("y"), Content::Absent),
                content("/a", Content::Folder, Content::Absent),
                content("/a", Content::Absent, file("x")),
                metadata("/a", Some(0o755), 0o644),
            ]
        );
    }

    #[test]
    fn a_command_without_an_undo_cannot_be_taken_back() {
        let run = |undo: Option<&str>| {
            [Change::Act(Act::Run(Command {
                run: Run::Shell(String::from("make")),
                cwd: None,
                stdin: Some(String::from("secret")),
                ok_codes: vec![3],
                undo: undo.map(str::to_owned),
            }))]
        };
        assert_eq!(inverse(&run(None), &[], &[]).cannot, ["the command names no `undo`"]);
        let back = inverse(&run(Some("unmake")), &[], &[]);
        let [Change::Act(Act::Run(command))] = &back.changes[..] else { panic!("{back:?}") };
        assert_eq!((&command.run, &command.stdin), (&Run::Shell(String::from("unmake")), &None));
    }
}
