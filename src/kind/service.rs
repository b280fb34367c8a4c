use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Argument, Claim, Footprint, Key, Kind, PlanError, Planning, Shape, Spec};
use crate::change::{Act, Change, Reaction, Stop, UnitState};
use crate::diagnostic::nearest;
use crate::world::systemd::{UNIT_FOLDERS, UnitFile, full_name, is_unit_name, unit_files};
use crate::world::{Entry, RemotePath, UnitEntry};

/// A service and whether it runs, now and after a boot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    name: String,
    #[serde(default)]
    state: Option<Activity>,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    masked: Option<bool>,
    #[serde(default)]
    check: Option<String>,
    #[serde(default)]
    stop_timeout: Option<u64>,
    #[serde(default)]
    stop_signal: Option<String>,
    #[serde(default)]
    provider: Provider,
}

/// Whether a service is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Activity {
    Running,
    Stopped,
}

/// Who runs a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Provider {
    #[default]
    Auto,
    Systemd,
    SystemdUser,
    Supervisor,
}

/// What `service` is called and takes.
pub static SPEC: Spec = Spec {
    name: "service",
    summary: "A service, running or stopped, which reloads or restarts when what it watches changes",
    key: Key {
        name: "name",
        shape: Shape::Name,
        summary: "The unit; `nginx` is `nginx.service`, other units need their suffix",
        identity: &[],
    },
    arguments: &[
        Argument::optional(
            "state",
            Shape::Choice(&["running", "stopped"]),
            "`running` or `stopped`; a masked one is stopped",
        ),
        Argument::optional(
            "enabled",
            Shape::Boolean,
            "Whether it starts at boot; as `state`, where the unit can be enabled at all",
        ),
        Argument::optional(
            "masked",
            Shape::Boolean,
            "`true` keeps anything from starting it, `false` takes that back; left as it is",
        ),
        Argument::optional(
            "check",
            Shape::Text,
            "A command that has to succeed before it reloads or restarts",
        ),
        Argument::optional(
            "stop_timeout",
            Shape::Duration,
            "How long it may take to stop before it is killed; as its unit says",
        ),
        Argument::optional(
            "stop_signal",
            Shape::Text,
            "The signal that asks it to stop, such as `SIGQUIT`; as its unit says",
        ),
        Argument::optional(
            "provider",
            Shape::Choice(&["auto", "systemd", "systemd-user", "supervisor"]),
            "Who runs it; `auto` is systemd",
        ),
    ],
    exclusive: &[],
    example: "\
- service: nginx
  check: nginx -t
  watch: [file:/etc/nginx/*]
",
};

impl Kind for Service {
    fn takes(&self) -> Duration {
        Duration::from_millis(self.stop_timeout.unwrap_or(0))
    }

    fn footprint(&self) -> Footprint {
        let unit = self.unit();
        let mut footprint = Footprint::default();
        for folder in UNIT_FOLDERS {
            // Its file and what is laid beside it (`NAME.d/*.conf`).
            let folder = RemotePath::from(folder);
            footprint = footprint
                .reading(Claim::Path(folder.join(&unit)))
                .reading(Claim::Subtree(folder.join(format!("{unit}.d"))));
        }
        footprint.writing(Claim::Unit(unit))
    }

    fn check_arguments(&self) -> Result<(), PlanError> {
        self.check()
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        self.check()?;
        let Some(entry) = self.observe(planning)? else {
            planning.because(format!("{} does not exist", self.unit()));
            return Ok(());
        };
        let (before, after) = self.states(&entry)?;
        if before == after {
            return Ok(());
        }
        if after.masked && !before.masked {
            // systemd masks a unit by a link of that name, and does not put it in a file's place.
            let path = RemotePath::from("/etc/systemd/system").join(&entry.name);
            if matches!(planning.entry(&path)?, Entry::File { .. }) {
                let message = format!("{} cannot be masked: {path} is its unit file", entry.name);
                return Err(PlanError::new(message)
                    .help("stop it with `state: stopped`, or remove that file"));
            }
        }
        if !planning.actor.root {
            // Rules of polkit may let that user all the same; they are nobody's to read.
            let user = &planning.actor.user;
            planning.because(format!("{user} is not root, so systemd may refuse it"));
        }
        planning.push(Change::Unit { name: entry.name, before, after, stop: self.stop() });
        Ok(())
    }
}

impl Service {
    /// The unit's full name, as declared.
    /// Its unit, with the suffix.
    pub fn unit(&self) -> String {
        full_name(&self.name)
    }

    /// How it is to be stopped.
    fn stop(&self) -> Stop {
        Stop { signal: self.stop_signal.clone(), timeout: self.stop_timeout }
    }

    fn check(&self) -> Result<(), PlanError> {
        match self.provider {
            Provider::Auto | Provider::Systemd => {}
            Provider::SystemdUser | Provider::Supervisor => {
                return Err(PlanError::new("this provider is not supported yet")
                    .help("only `systemd` is: leave out `provider`"));
            }
        }
        let unit = self.unit();
        if !is_unit_name(&unit) {
            return Err(PlanError::new(format!("`{unit}` is not the name of one unit")));
        }
        if self.masked == Some(true) {
            let other = [
                ("state: running", self.state == Some(Activity::Running)),
                ("enabled: true", self.enabled == Some(true)),
            ];
            if let Some((argument, _)) = other.into_iter().find(|(_, given)| *given) {
                let message = format!("`masked: true` and `{argument}` contradict each other");
                return Err(PlanError::new(message));
            }
        }
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"+-".contains(&byte);
        if let Some(signal) = &self.stop_signal
            && !signal.bytes().all(letters)
        {
            return Err(PlanError::new(format!("`{signal}` is not the name of a signal")));
        }
        Ok(())
    }

    /// The unit as it will be; none if it is not there and need not be.
    fn observe(&self, planning: &mut Planning<'_>) -> Result<Option<UnitEntry>, PlanError> {
        let name = self.unit();
        let predicted = planning.world().unit(&name)?;
        let mut entry = planning.unit(&name)?;
        if entry.exists {
            // What is planned of its file is known better from the file.
            for path in unit_files(&name) {
                if let Some(id) = planning.world().planned_content(&path) {
                    let file = UnitFile::parse(&planning.bytes(&id)?);
                    entry.can_reload = file.can_reload;
                    let known = ["enabled", "enabled-runtime", "disabled"]
                        .contains(&entry.enablement.as_str());
                    if !file.installable {
                        entry.enablement = String::from("static");
                    } else if !known {
                        entry.enablement = String::from("disabled");
                    }
                    entry.needs_daemon_reload = false; // the unit file's own state sees to it
                    break;
                }
            }
            return Ok(Some(entry));
        }
        let may_come = predicted.by.is_none() && !predicted.tainted_by.is_empty();
        if may_come || self.masked == Some(true) {
            return Ok(Some(entry));
        }
        if self.wants_active() || self.enabled == Some(true) || self.masked.is_some() {
            let error = PlanError::new(format!("there is no unit {name}"));
            return Err(match nearby(planning, &name) {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error.help(format!(
                    "declare `unit: {name}`, or the package that brings it, before it"
                )),
            });
        }
        Ok(None)
    }

    /// Whether it is to run.
    pub fn wants_active(&self) -> bool {
        match self.state {
            Some(activity) => activity == Activity::Running,
            None => self.masked != Some(true),
        }
    }

    /// What it is and what it is to be.
    fn states(&self, entry: &UnitEntry) -> Result<(UnitState, UnitState), PlanError> {
        let masked = entry.enablement.starts_with("masked");
        let enabled = entry.enablement == "enabled";
        let before = UnitState { active: entry.active, enabled, masked };
        let mut after = UnitState {
            active: self.wants_active(),
            enabled,
            masked: self.masked.unwrap_or(masked),
        };
        if after.masked {
            if after.active || self.enabled == Some(true) {
                return Err(PlanError::new(format!("{} is masked", entry.name))
                    .help("say `masked: false` to have that taken back"));
            }
            after.enabled = false; // nothing is asked of what cannot start
            return Ok((before, after));
        }
        match entry.enablement.as_str() {
            "enabled" | "enabled-runtime" | "disabled" | "linked" | "linked-runtime" | "masked"
            | "masked-runtime" | "not-found" => {
                after.enabled = self.enabled.unwrap_or(after.active);
            }
            state => {
                // Started by what refers to it (`static`, `generated`, …), not by enabling.
                if self.enabled == Some(true) && state == "static" {
                    let message =
                        format!("{} has no [Install] section and cannot be enabled", entry.name);
                    return Err(PlanError::new(message).help("leave out `enabled`"));
                }
            }
        }
        Ok((before, after))
    }
}

/// The unit on the host whose name is nearest to one that does not exist.
fn nearby(planning: &Planning<'_>, name: &str) -> Option<String> {
    let mut names = Vec::new();
    for folder in UNIT_FOLDERS {
        let listed = planning.world().list(&RemotePath::from(folder)).unwrap_or_default();
        names.extend(
            listed
                .iter()
                .filter_map(|path| path.as_path().file_name()?.to_str().map(str::to_owned)),
        );
    }
    // Without the suffix, which is alike in all of them.
    let (stem, suffix) = name.rsplit_once('.')?;
    let stems =
        names.iter().filter_map(|name| name.rsplit_once('.').filter(|(_, other)| *other == suffix));
    nearest(stem, stems.map(|(stem, _)| stem)).map(|stem| format!("{stem}.{suffix}"))
}

/// Whether something that a service watches has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It has not, and will not.
    No,
    /// It may, which is known once it is its turn.
    Maybe,
    /// It is going to: a change is planned.
    Planned,
    /// It has, and that finished then: microseconds of the monotonic clock.
    Finished(u64),
}

/// What of all that a service watches has changed. Of several, the strongest counts: the latest
/// that finished, else one that is planned, else one that may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Whether some of it comes after the service's own state.
    pub late: bool,
    /// What it is to reload for.
    pub reload: Changed,
    /// What it is to restart for.
    pub restart: Changed,
    /// Its own unit file.
    pub unit_file: Changed,
    /// What earlier runs owe it.
    pub owed: OwedReaction,
}

/// What earlier runs owe a service: the times at which what it watches had changed last, in
/// microseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwedReaction {
    /// For a reload.
    pub reload: Option<u64>,
    /// For a restart.
    pub restart: Option<u64>,
}

/// A reaction that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueReaction {
    /// The unit.
    pub unit: String,
    /// The strongest that is foreseen: a restart permits a reload, and what is not certain
    /// permits any.
    pub reaction: Reaction,
    /// A command that has to succeed first.
    pub check: Option<String>,
    /// How it stops, where it restarts.
    pub stop: Stop,
    /// Whether it is sure; otherwise it depends on changes that may come.
    pub certain: bool,
}

impl DueReaction {
    /// The difference that it is.
    pub fn change(self) -> Change {
        Change::Act(Act::React {
            unit: self.unit,
            reaction: self.reaction,
            check: self.check,
            stop: self.stop,
        })
    }
}

/// How a service takes up what it watches, if it has to.
///
/// In a plan the service's own state has been planned before, in the world as it will be. At its
/// turn in an apply that state has been reached, and the time of its start tells whether the
/// process has seen the change.
pub fn plan_reaction(
    service: &Service,
    planning: &mut Planning<'_>,
    watched: Watched,
) -> Result<Option<DueReaction>, PlanError> {
    service.check()?;
    if [watched.reload, watched.restart, watched.unit_file] == [Changed::No; 3]
        && watched.owed == OwedReaction::default()
    {
        return Ok(None);
    }
    let name = service.unit();
    let predicted = planning.world().unit(&name)?;
    if !predicted.value.exists && (predicted.by.is_some() || predicted.tainted_by.is_empty()) {
        return Ok(None); // it is gone, or goes
    }
    let Some(mut entry) = service.observe(planning)? else { return Ok(None) };
    let now = planning.world().system().unit(&name)?;
    // A package that is yet to come may start it before the change is made.
    let may_come = !now.exists
        && service.wants_active()
        && !unit_files(&name).any(|path| planning.world().planned_content(&path).is_some());
    if may_come {
        entry.can_reload = true; // as far as anybody knows
    } else if !entry.active || (!now.active && !watched.late) {
        // A stopped service never reacts, and one that is started takes up everything by that.
        return Ok(None);
    }
    Ok(due(&entry, watched).map(|(reaction, certain)| DueReaction {
        unit: entry.name,
        reaction,
        check: service.check.clone(),
        stop: service.stop(),
        certain: certain && !may_come,
    }))
}

/// How a running unit takes up what it watches, and whether that is sure.
fn due(entry: &UnitEntry, watched: Watched) -> Option<(Reaction, bool)> {
    let asks = |changed: Changed| match changed {
        Changed::No => None,
        Changed::Maybe => Some(false),
        Changed::Planned => Some(true),
        // When it started is not known of what has no process: better once too often.
        Changed::Finished(at) => {
            entry.started_at.is_none_or(|started| started < at).then_some(true)
        }
    };
    let owed = |since: Option<u64>| since.and_then(|since| asks(Changed::Finished(since)));
    let reload = asks(watched.reload).max(owed(watched.owed.reload));
    // None < Some(false) < Some(true).
    let restart =
        asks(watched.restart).max(asks(watched.unit_file)).max(owed(watched.owed.restart));
    let certain = reload.max(restart)?;
    let reaction = match restart {
        Some(_) => Reaction::Restart,
        None if entry.can_reload => Reaction::Reload,
        None => Reaction::RestartCannotReload,
    };
    // Where only the restart is in doubt, that it happens at all is not, but how.
    Some((reaction, certain && restart != Some(false)))
}

#[cfg(test)]
mod tests {
    use super::Changed::{Finished, Maybe, No, Planned};
    use super::*;

    #[test]
    fn a_restart_absorbs_a_reload_and_a_later_start_satisfies_both() {
        let reload = Some((Reaction::Reload, true));
        let restart = Some((Reaction::Restart, true));
        let cases = [
            (true, No, No, No, None),
            (true, Planned, No, No, reload),
            (true, Planned, Planned, No, restart),
            (true, Planned, No, Planned, restart),
            (false, Planned, No, No, Some((Reaction::RestartCannotReload, true))),
            (false, No, Planned, No, restart),
            (true, Maybe, No, No, Some((Reaction::Reload, false))),
            (true, Planned, Maybe, No, Some((Reaction::Restart, false))),
            (true, Maybe, Planned, No, restart),
            (true, Finished(99), Finished(100), No, None), // it started at 100
            (true, Finished(101), No, No, reload),
            (true, Finished(101), Finished(99), No, reload),
            (true, Finished(101), Finished(102), Finished(99), restart),
        ];
        for (can_reload, reload, restart, unit_file, expected) in cases {
            let entry = UnitEntry {
                active: true,
                can_reload,
                started_at: Some(100),
                ..UnitEntry::unknown("nginx.service")
            };
            let owed = OwedReaction::default();
            let watched = Watched { late: false, reload, restart, unit_file, owed };
            assert_eq!(due(&entry, watched), expected, "{watched:?}");
        }
    }

    #[test]
    fn what_is_owed_lapses_when_the_process_has_started_since() {
        let entry = UnitEntry {
            active: true,
            can_reload: true,
            started_at: Some(100),
            ..UnitEntry::unknown("nginx.service")
        };
        for (reload, restart, expected) in [
            (Some(101), None, Some((Reaction::Reload, true))),
            (Some(99), None, None),
            (Some(101), Some(101), Some((Reaction::Restart, true))),
            (Some(101), Some(99), Some((Reaction::Reload, true))),
            (None, Some(u64::MAX), Some((Reaction::Restart, true))),
        ] {
            let owed = OwedReaction { reload, restart };
            let watched = Watched { late: false, reload: No, restart: No, unit_file: No, owed };
            assert_eq!(due(&entry, watched), expected, "{owed:?}");
        }
    }
}
