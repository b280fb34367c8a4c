//! Changes that can lock their operator out: they go back unless a fresh login, and becoming root,
//! work after them.

use std::sync::{Mutex, MutexGuard, mpsc};
use std::time::Duration;

use super::act::COMMAND_PATIENCE;
use super::apply::{Applier, Walk};
use super::journal::{Lock, StateFolder};
use super::plan::is_change;
use super::switch::Switch;
use super::wave::StepWork;
use crate::change::{Account, Act, Change};
use crate::graph::{Node, NodeIndex, Work};
use crate::lang::CONFIRM_CONNECTION;
use crate::report::RunInfo;
use crate::wire::FromAgent;
use crate::world::process::Identity;
use crate::world::{GroupEntry, RemotePath};

/// How much longer than the controller may take for the login its answer is awaited.
const ANSWER: Duration = Duration::from_secs(20);
/// What decides who may log in, and who may become root.
const GATES: [&str; 4] =
    ["/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d", "/etc/sudoers", "/etc/sudoers.d"];
/// What lets people in; Debian and others name it differently.
const DAEMONS: [&str; 4] = ["ssh.service", "sshd.service", "ssh.socket", "sshd.socket"];

/// What comes of the question whether a fresh login works.
pub(super) type Confirmations = Mutex<mpsc::Receiver<Option<String>>>;

/// What a run needs in order to be sure that it locks nobody out.
pub(super) struct Confirmation<'a> {
    pub(super) lock: Option<&'a Lock>,
    pub(super) run: &'a RunInfo,
    pub(super) state: &'a StateFolder,
    /// Who logged in; none where nobody did.
    pub(super) login: Option<&'a Identity>,
    pub(super) answers: &'a Confirmations,
    pub(super) switch: Mutex<Option<Switch>>,
}

impl Confirmation<'_> {
    fn switch(&self) -> MutexGuard<'_, Option<Switch>> {
        self.switch.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// How long a fresh login may take after these changes, if one is needed.
    fn within(&self, node: &Node, changes: &[Change]) -> Option<Duration> {
        let concerned = match (node.confirm_connection, self.login) {
            (Some(_), _) => changes.iter().any(|change| is_change(change) || is_reaction(change)),
            (None, Some(login)) => changes.iter().any(|change| can_lock_out(change, login)),
            (None, None) => false,
        };
        let within = Duration::from_millis(node.confirm_connection.unwrap_or(CONFIRM_CONNECTION));
        (concerned && !within.is_zero()).then_some(within)
    }

    /// Has resources go back unless they are confirmed.
    fn arm(&self, resources: Vec<String>) -> Result<(), String> {
        // Who takes a switch's changes back needs no other one.
        let Some(lock) = self.lock else { return Ok(()) };
        let mut switch = self.switch();
        let armed = match switch.as_mut() {
            Some(switch) => switch.arm(resources),
            None => Switch::start(lock, self.run, self.state)
                .and_then(|started| switch.insert(started).arm(resources)),
        };
        armed.map_err(|error| {
            format!(
                "the process that would take it back, if no login worked any more, cannot be \
                 started, so nothing was changed: {error}"
            )
        })
    }

    /// Whether a fresh login works; why not, if it does not.
    fn ask(&self, applier: &Applier<'_>, within: Duration) -> Result<(), String> {
        let lost = "the connection to the controller is lost";
        if let Some(switch) = self.switch().as_mut() {
            switch.asked(within).map_err(|error| format!("its switch is gone: {error}"))?;
        }
        let milliseconds = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        if applier.output.send(&FromAgent::Confirm { within: milliseconds }).is_err() {
            return Err(lost.to_owned());
        }
        let answers = self.answers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match answers.recv_timeout(within + ANSWER) {
            Ok(None) => Ok(()),
            Ok(Some(reason)) => Err(reason),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(String::from("the controller is silent")),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(lost.to_owned()),
        }
    }
}

impl Applier<'_> {
    /// Prepares that what a step is about to change goes back if nobody can log in after it.
    pub(super) fn arm(&self, walk: &mut Walk, work: &StepWork) -> Result<(), String> {
        for (index, changes) in work {
            let node = self.node(*index);
            let Some(within) = self.confirmation.within(node, changes) else { continue };
            let mut nodes = vec![*index];
            if let Work::Reaction { service, reload, restart, .. } = &node.work {
                // A reaction goes back with what it has taken up.
                let unit_files = self.planner.unit_files_of(*service);
                nodes.extend(reload.iter().chain(restart).chain(&unit_files));
            }
            let resources = nodes.iter().map(|index| self.node(*index).id.to_string());
            self.confirmation.arm(resources.collect())?;
            self.recorder.arm(*index);
            walk.unconfirmed.extend(nodes.into_iter().map(|index| (index, within)));
        }
        Ok(())
    }

    /// Once services have reacted to what was changed, asks whether its operator still gets in. If
    /// not, nothing more is begun.
    pub(super) fn confirm(&self, walk: &mut Walk, at_last: bool) {
        if walk.unconfirmed.is_empty() || walk.over.is_some() {
            return;
        }
        let open = |index: &NodeIndex| walk.ended[*index as usize].is_none();
        let in_hand = walk.unconfirmed.iter().any(|(index, _)| open(index));
        let waits =
            self.planner.graph.nodes.iter().zip(0..).any(|(node, index)| match &node.work {
                Work::Reaction { service, reload, restart, .. } if open(&index) => {
                    let unit_files = self.planner.unit_files_of(*service);
                    let mut watched = reload.iter().chain(restart).chain(&unit_files);
                    watched.any(|one| walk.unconfirmed.iter().any(|(index, _)| index == one))
                }
                _ => false,
            });
        if (in_hand || waits) && !at_last {
            return;
        }
        let within = walk.unconfirmed.iter().map(|(_, within)| *within).min().unwrap_or_default();
        let answer = self.confirmation.ask(self, within).and_then(|()| {
            match self.confirmation.switch().as_mut().map(Switch::confirmed) {
                Some(Err(error)) => Err(format!("its switch is gone: {error}")),
                _ => Ok(()),
            }
        });
        match answer {
            Ok(()) => walk.unconfirmed.clear(),
            Err(reason) => {
                // What is in hand is finished first, and the agent is well as long as it is.
                if let Some(switch) = self.confirmation.switch().as_mut() {
                    let _ = switch.asked(COMMAND_PATIENCE);
                }
                walk.failed = true;
                walk.over = Some(format!(
                    "no fresh login worked after it within {} s: {reason}",
                    within.as_secs_f32()
                ));
            }
        }
    }

    /// Takes back what was not confirmed, with the journal of this run closed.
    pub(super) fn take_back_unconfirmed(&self, walk: &mut Walk) {
        let Some(reason) = walk.over.clone() else { return };
        // A journal that is not closed is that of a run that died: it is taken back all the same.
        let _ = self.recorder.close();
        let taken_back = match self.confirmation.switch().as_mut() {
            Some(switch) => switch.take_back().map_err(|error| error.to_string()),
            None => Ok(Vec::new()),
        };
        let message = match taken_back {
            Ok(failures) if failures.is_empty() => format!("{reason}\nit was taken back"),
            Ok(failures) => format!("{reason}\nnot taken back: {}", failures.join("; ")),
            Err(error) => format!("{reason}\nnot taken back: {error}"),
        };
        let mut nodes: Vec<NodeIndex> =
            walk.unconfirmed.drain(..).map(|(index, _)| index).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.retain(|node| walk.ended[*node as usize].is_some_and(|ended| ended.changed));
        self.tell(&FromAgent::Unconfirmed { nodes, message });
    }
}

fn is_reaction(change: &Change) -> bool {
    matches!(change, Change::Act(Act::React { .. }))
}

/// Whether a change decides who may log in as that user, and become root.
fn can_lock_out(change: &Change, login: &Identity) -> bool {
    match change {
        Change::Content { path, .. } | Change::Metadata { path, .. } => {
            let home = RemotePath::from(login.home.as_str());
            let gates = GATES.iter().any(|gate| path.is_within(&RemotePath::from(*gate)));
            gates || *path == home || path.is_within(&home.join(".ssh"))
        }
        Change::Account { before, after } => {
            before.iter().chain(after).any(|account| match account {
                Account::User { entry, .. } => entry.name == login.name,
                Account::Group { entry, .. } => holds(entry, login),
            })
        }
        Change::Unit { name, .. } => DAEMONS.contains(&name.as_str()),
        Change::Act(Act::React { unit, .. }) => DAEMONS.contains(&unit.as_str()),
        Change::Packages(_) | Change::Act(_) => false,
    }
}

fn holds(group: &GroupEntry, login: &Identity) -> bool {
    group.members.contains(&login.name) || group.gid.is_some_and(|gid| login.groups.contains(&gid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Content, Reaction, Stop};

    #[test]
    fn what_decides_about_logins_is_confirmed() {
        let login = Identity {
            name: String::from("sailor"),
            uid: 1000,
            gid: 1000,
            groups: vec![1000, 27],
            home: String::from("/home/sailor"),
            shell: String::from("/bin/sh"),
        };
        let content = |path: &str| Change::Content {
            path: RemotePath::from(path),
            before: Content::Absent,
            after: Content::Absent,
        };
        let group = |name: &str, gid, members: &[&str]| Change::Account {
            before: None,
            after: Some(Account::Group {
                entry: GroupEntry {
                    name: name.to_owned(),
                    gid: Some(gid),
                    members: members.iter().map(|name| (*name).to_owned()).collect(),
                },
                system: false,
            }),
        };
        let react = |unit: &str| {
            Change::Act(Act::React {
                unit: unit.to_owned(),
                reaction: Reaction::Reload,
                check: None,
                stop: Stop::default(),
            })
        };
        for (change, expected) in [
            (content("/etc/ssh/sshd_config"), true),
            (content("/etc/ssh/sshd_config.d/10-own.conf"), true),
            (content("/etc/ssh/ssh_config"), false),
            (content("/etc/sudoers"), true),
            (content("/etc/sudoers.d/sailors"), true),
            (content("/home/sailor"), true),
            (content("/home/sailor/.ssh/authorized_keys"), true),
            (content("/home/sailor/.profile"), false),
            (content("/home/other/.ssh/authorized_keys"), false),
            (group("sudo", 27, &[]), true),
            (group("sudo", 99, &["sailor"]), true),
            (group("cooks", 99, &["other"]), false),
            (react("ssh.service"), true),
            (react("nginx.service"), false),
        ] {
            assert_eq!(can_lock_out(&change, &login), expected, "{change:?}");
        }
    }
}
