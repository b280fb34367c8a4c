use serde::{Deserialize, Serialize};

use super::user::{check_name, needs_root};
use super::{Argument, Claim, Footprint, Key, Kind, PlanError, Planning, Presence, Shape, Spec};
use crate::change::{Account, Change};
use crate::world::{GroupEntry, RemotePath};

/// A group of the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    name: String,
    #[serde(default)]
    gid: Option<u32>,
    #[serde(default)]
    system: bool,
    #[serde(default)]
    state: Presence,
}

/// What `group` is called and takes.
pub static SPEC: Spec = Spec {
    name: "group",
    summary: "A group",
    key: Key { name: "name", shape: Shape::Name, summary: "The group's name", identity: &[] },
    arguments: &[
        Argument::optional("gid", Shape::Integer, "Its number; a new group gets the next free one"),
        Argument::optional(
            "system",
            Shape::Boolean,
            "Whether a new group's number comes from the system range",
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
- group: deploy
  gid: 2000
",
};

impl Kind for Group {
    fn footprint(&self) -> Footprint {
        // Which numbers are free depends on who came before.
        Footprint::default()
            .writing(Claim::Group(self.name.clone()))
            .writing(Claim::Path(RemotePath::from("/etc/group")))
    }

    fn check_arguments(&self) -> Result<(), PlanError> {
        check_name("group", &self.name)
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        check_name("group", &self.name)?;
        let current = planning.group(&self.name)?;
        let account = |entry| Account::Group { entry, system: self.system };
        if self.state == Presence::Absent {
            let Some(current) = current else { return Ok(()) };
            let users = planning.world().users()?;
            if let Some(user) =
                users.values().find(|user| user.group.as_deref() == Some(self.name.as_str()))
            {
                let user = &user.name;
                let message = format!("{} is the primary group of the user {user}", self.name);
                return Err(PlanError::new(message)
                    .help("remove that user, or give it another `group`, before the group"));
            }
            needs_root(planning, "group", &self.name)?;
            planning.push(Change::Account { before: Some(account(current)), after: None });
            return Ok(());
        }
        if let Some(gid) = self.gid
            && current.as_ref().is_none_or(|current| current.gid != Some(gid))
        {
            let groups = planning.world().system().groups()?;
            let holder =
                groups.values().find(|group| group.gid == Some(gid) && group.name != self.name);
            if let Some(holder) = holder
                && planning.world().group(&holder.name)?.value.and_then(|group| group.gid)
                    == Some(gid)
            {
                let message = format!("the number {gid} belongs to the group {}", holder.name);
                return Err(PlanError::new(message));
            }
        }
        let wanted = match &current {
            Some(current) => GroupEntry { gid: self.gid.or(current.gid), ..current.clone() },
            None => GroupEntry { name: self.name.clone(), gid: self.gid, members: Vec::new() },
        };
        if current.as_ref() != Some(&wanted) {
            needs_root(planning, "group", &self.name)?;
            planning.push(Change::Account {
                before: current.map(account),
                after: Some(account(wanted)),
            });
        }
        Ok(())
    }
}
