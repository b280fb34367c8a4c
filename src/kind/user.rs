use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    Argument, Claim, Footprint, Key, Kind, Ownership, PlanError, Planning, Presence, Shape, Spec,
};
use crate::change::{Account, Change, HomeDirectory};
use crate::world::{Entry, RemotePath, UserEntry};

/// A user of the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct User {
    name: String,
    #[serde(default)]
    uid: Option<u32>,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    groups: Option<Vec<String>>,
    #[serde(default = "super::yes")]
    append: bool,
    #[serde(default)]
    home: Option<RemotePath>,
    #[serde(default)]
    shell: Option<String>,
    #[serde(default)]
    system: bool,
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    password_hash: Option<String>,
    #[serde(default)]
    remove_home: bool,
    #[serde(default)]
    state: Presence,
}

/// What `user` is called and takes.
pub static SPEC: Spec = Spec {
    name: "user",
    summary: "A user with its groups, home directory and login shell",
    key: Key { name: "name", shape: Shape::Name, summary: "The login name", identity: &[] },
    arguments: &[
        Argument::optional("uid", Shape::Integer, "Its number; a new user gets the next free one"),
        Argument::optional(
            "group",
            Shape::Principal,
            "The primary group, which has to exist; a new user gets one of its own name",
        ),
        Argument::optional(
            "groups",
            Shape::List(&Shape::Name),
            "Supplementary groups, which have to exist",
        ),
        Argument::optional(
            "append",
            Shape::Boolean,
            "`true` leaves the user in its other groups; `false` takes it out of them",
        )
        .with_default("true"),
        Argument::optional(
            "home",
            Shape::Path,
            "The home directory, made if it is missing; a new user gets one in /home. Nothing is \
             made of `/nonexistent`, and nothing is moved when it changes",
        ),
        Argument::optional(
            "shell",
            Shape::Text,
            "The login shell; a new user gets the host's default",
        ),
        Argument::optional(
            "system",
            Shape::Boolean,
            "Whether a new user's numbers come from the system range",
        )
        .with_default("false"),
        Argument::optional(
            "comment",
            Shape::Text,
            "The comment (GECOS) field, such as the full name",
        ),
        Argument::optional(
            "password_hash",
            Shape::Text,
            "The hashed password as `mkpasswd` prints it, or `!` for none; never shown",
        )
        .secret(),
        Argument::optional(
            "remove_home",
            Shape::Boolean,
            "Whether the home directory and mail go with the user",
        )
        .with_default("false"),
        Argument::optional(
            "state",
            Shape::Choice(&["present", "absent"]),
            "Whether it is to be there: `present` or `absent`",
        ),
    ],
    exclusive: &[],
    example: "\
- user: shop
  system: true
  home: /srv/shop
  shell: /usr/sbin/nologin
",
};

impl Kind for User {
    fn footprint(&self) -> Footprint {
        let home = match &self.home {
            Some(home) => home.clone(),
            None => RemotePath::new(format!("/home/{}", self.name)),
        };
        // Which numbers are free depends on who came before.
        let mut footprint = Footprint::default()
            .writing(Claim::User(self.name.clone()))
            .writing(Claim::Path(RemotePath::from("/etc/passwd")))
            .writing(Claim::Path(RemotePath::from("/etc/group")));
        if self.state == Presence::Absent {
            // The group of its own name goes with it.
            footprint = footprint.writing(Claim::Group(self.name.clone()));
            return if self.remove_home {
                footprint.writing(Claim::Subtree(home))
            } else {
                footprint
            };
        }
        footprint = match &self.group {
            Some(group) => footprint.reading(Claim::Group(group.clone())),
            None => footprint.writing(Claim::Group(self.name.clone())),
        };
        for group in self.groups.iter().flatten() {
            footprint = footprint.reading(Claim::Group(group.clone()));
        }
        footprint.writing(Claim::Path(home))
    }

    fn check_arguments(&self) -> Result<(), PlanError> {
        self.check()
    }

    fn private_part(&self) -> Option<&'static str> {
        self.password_hash.as_ref().map(|_| "a password's hash")
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        self.check()?;
        let current = planning.user(&self.name)?;
        match (self.state, current) {
            (Presence::Absent, None) => Ok(()),
            (Presence::Absent, Some(current)) => self.plan_removal(planning, current),
            (Presence::Present, None) => self.plan_new(planning),
            (Presence::Present, Some(current)) => self.plan_existing(planning, current),
        }
    }
}

impl User {
    /// What the tools would refuse half-way is refused before anything is done.
    fn check(&self) -> Result<(), PlanError> {
        check_name("user", &self.name)?;
        for group in self.groups.iter().flatten() {
            check_name("group", group)?;
        }
        let home = self.home.as_ref().map(home_text).transpose()?;
        let fields =
            [("home", home), ("shell", self.shell.clone()), ("comment", self.comment.clone())];
        for (argument, value) in fields {
            let breaks = |character: char| character == ':' || character.is_control();
            if value.is_some_and(|value| value.contains(breaks)) {
                let message = format!("`{argument}` may have no colon and no control character");
                return Err(PlanError::new(message));
            }
        }
        if let Some(shell) = &self.shell
            && !shell.starts_with('/')
        {
            return Err(PlanError::new(format!("the shell `{shell}` is not an absolute path"))
                .help(format!("perhaps `/bin/{shell}`")));
        }
        if let Some(hash) = &self.password_hash {
            let hashed = hash.starts_with(['$', '!', '*']);
            if !hashed || hash.contains([':', ' ']) || hash.contains(char::is_control) {
                return Err(PlanError::new("`password_hash` is not the hash of a password")
                    .help("make one with `mkpasswd`, or say `!` for no password"));
            }
        }
        Ok(())
    }

    fn plan_removal(
        &self,
        planning: &mut Planning<'_>,
        current: UserEntry,
    ) -> Result<(), PlanError> {
        needs_root(planning, "user", &self.name)?;
        if current.uid == Some(0) {
            return Err(PlanError::new(format!("{} is the superuser and stays", self.name)));
        }
        let mut home = HomeDirectory::Leave;
        if self.remove_home {
            if RemotePath::from(current.home.as_str()).parent().is_none() {
                let message = format!("the home directory of {} is {}", self.name, current.home);
                return Err(PlanError::new(message).help("leave out `remove_home`"));
            }
            home = HomeDirectory::Remove;
        }
        let before = Account::User { entry: current, system: self.system, home };
        planning.push(Change::Account { before: Some(before), after: None });
        Ok(())
    }

    fn plan_new(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        needs_root(planning, "user", &self.name)?;
        self.check_uid(planning)?;
        let group = match &self.group {
            Some(group) => Some(primary_group(planning, group)?),
            // As a user of that name would expect: the group that is there is its own.
            None => planning.group(&self.name)?.map(|group| group.name),
        };
        let defaults = Defaults::of(planning)?;
        let home = match &self.home {
            Some(home) => home_text(home)?,
            None => format!("{}/{}", defaults.homes, self.name),
        };
        let made = self.makes_home(planning, &home)?;
        let entry = UserEntry {
            name: self.name.clone(),
            uid: self.uid,
            group,
            groups: self.supplementary(planning, &[])?,
            home,
            shell: self.shell.clone().unwrap_or(defaults.shell),
            comment: self.comment.clone().unwrap_or_default(),
            password_hash: self.password_hash.clone(),
        };
        let home = if made { HomeDirectory::Create } else { HomeDirectory::Leave };
        let after = Account::User { entry, system: self.system, home };
        planning.push(Change::Account { before: None, after: Some(after) });
        Ok(())
    }

    fn plan_existing(
        &self,
        planning: &mut Planning<'_>,
        current: UserEntry,
    ) -> Result<(), PlanError> {
        let mut wanted = current.clone();
        if self.uid.is_some() && self.uid != current.uid {
            self.check_uid(planning)?;
            wanted.uid = self.uid;
        }
        if let Some(group) = &self.group {
            wanted.group = Some(primary_group(planning, group)?);
        }
        if self.groups.is_some() {
            wanted.groups = self.supplementary(planning, &current.groups)?;
        }
        if let Some(home) = &self.home {
            wanted.home = home_text(home)?;
        }
        if let Some(shell) = &self.shell {
            wanted.shell.clone_from(shell);
        }
        if let Some(comment) = &self.comment {
            wanted.comment.clone_from(comment);
        }
        if self.password_hash.is_some() {
            if current.password_hash.is_none() && !planning.actor.root {
                let message = format!("the password of {} cannot be compared", self.name);
                return Err(
                    PlanError::new(message).help("only root reads /etc/shadow: `become: true`")
                );
            }
            wanted.password_hash.clone_from(&self.password_hash);
        }
        let home = wanted.home.clone();
        let group = wanted.group.clone();
        if wanted != current {
            needs_root(planning, "user", &self.name)?;
            let account =
                |entry| Account::User { entry, system: self.system, home: HomeDirectory::Leave };
            planning.push(Change::Account {
                before: Some(account(current)),
                after: Some(account(wanted)),
            });
        }
        // A home that was declared and never made, or is a new one.
        if self.home.is_some() && self.makes_home(planning, &home)? {
            let ownership = Ownership { owner: Some(self.name.clone()), group, mode: None };
            planning.folder(&RemotePath::from(home.as_str()), &ownership, 0o755)?;
        }
        Ok(())
    }

    /// Whether the home directory has yet to be made.
    fn makes_home(&self, planning: &mut Planning<'_>, home: &str) -> Result<bool, PlanError> {
        if home == "/nonexistent" {
            return Ok(false);
        }
        let home = RemotePath::from(home);
        if planning.entry(&home)? != Entry::Absent {
            return Ok(false);
        }
        planning.needs_parent(&home)?;
        Ok(true)
    }

    /// The supplementary groups as they will be, sorted.
    fn supplementary(
        &self,
        planning: &mut Planning<'_>,
        current: &[String],
    ) -> Result<Vec<String>, PlanError> {
        let declared = self.groups.as_deref().unwrap_or_default();
        for group in declared {
            planning.check_principals(None, Some(group))?;
        }
        let kept = if self.append { current } else { &[] };
        let groups: BTreeSet<_> = kept.iter().chain(declared).cloned().collect();
        Ok(groups.into_iter().collect())
    }

    fn check_uid(&self, planning: &Planning<'_>) -> Result<(), PlanError> {
        let Some(uid) = self.uid else { return Ok(()) };
        let users = planning.world().users()?;
        match users.values().find(|user| user.uid == Some(uid) && user.name != self.name) {
            Some(holder) => {
                let message = format!("the number {uid} belongs to the user {}", holder.name);
                Err(PlanError::new(message))
            }
            None => Ok(()),
        }
    }
}

/// The name of a primary group that is given by name or number.
fn primary_group(planning: &mut Planning<'_>, group: &str) -> Result<String, PlanError> {
    let Ok(gid) = group.parse::<u32>() else {
        check_name("group", group)?;
        planning.check_principals(None, Some(group))?;
        return Ok(group.to_owned());
    };
    let groups = planning.world().system().groups()?;
    match groups.values().find(|entry| entry.gid == Some(gid)) {
        Some(entry) => Ok(entry.name.clone()),
        None => Err(PlanError::new(format!("no group has the number {gid}"))
            .help("declare the group before it, and refer to it by name")),
    }
}

/// What the host gives new users, from `/etc/default/useradd` (useradd(8)).
struct Defaults {
    homes: String,
    shell: String,
}

impl Defaults {
    fn of(planning: &mut Planning<'_>) -> Result<Self, PlanError> {
        let path = RemotePath::from("/etc/default/useradd");
        let bytes = match planning.world().entry(&path)?.value {
            Entry::File { .. } => planning.read(&path)?.to_vec(),
            _ => Vec::new(),
        };
        Ok(Self::parse(&bytes))
    }

    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let setting = |name: &str| {
            text.lines()
                .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .map(|value| value.trim().trim_matches('"').to_owned())
                .rfind(|value| value.starts_with('/'))
        };
        Self {
            homes: setting("HOME").unwrap_or_else(|| String::from("/home")),
            shell: setting("SHELL").unwrap_or_else(|| String::from("/bin/sh")),
        }
    }
}

/// As the field of `passwd(5)` has it.
fn home_text(home: &RemotePath) -> Result<String, PlanError> {
    match std::str::from_utf8(home.as_bytes()) {
        Ok("/") => Ok(String::from("/")),
        Ok(text) => Ok(text.trim_end_matches('/').to_owned()),
        Err(_) => Err(PlanError::new(format!("the home directory {home} is not UTF-8"))),
    }
}

/// An error for names that the host's tools and files cannot take.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), PlanError> {
    let breaks = |character: char| {
        character.is_control() || character.is_whitespace() || ":,/\"'\\".contains(character)
    };
    let number = name.bytes().all(|byte| byte.is_ascii_digit()); // an empty name, too
    if number || name.starts_with(['-', '+']) || name.contains(breaks) {
        return Err(PlanError::new(format!("`{name}` cannot be the name of a {what}")));
    }
    Ok(())
}

/// An error unless the resource is converged as root, who alone changes accounts.
pub(super) fn needs_root(planning: &Planning<'_>, what: &str, name: &str) -> Result<(), PlanError> {
    if planning.actor.root {
        return Ok(());
    }
    let actor = &planning.actor.user;
    Err(PlanError::new(format!("{actor} cannot change the {what} {name}"))
        .help("only root changes accounts: `become: true`"))
}

#[cfg(test)]
mod tests {
    use super::Defaults;

    #[test]
    fn the_host_s_defaults_are_read() {
        let cases = [
            ("", "/home", "/bin/sh"),
            ("# HOME=/x\nSHELL=/bin/bash\nHOME=/srv/homes\n", "/srv/homes", "/bin/bash"),
            ("SHELL=\nHOME_MODE=0700\n", "/home", "/bin/sh"),
        ];
        for (text, homes, shell) in cases {
            let defaults = Defaults::parse(text.as_bytes());
            assert_eq!(
                (defaults.homes.as_str(), defaults.shell.as_str()),
                (homes, shell),
                "{text}"
            );
        }
    }
}
