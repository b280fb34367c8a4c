use serde::{Deserialize, Serialize};

use super::{
    Argument, Claim, Footprint, Key, Kind, Ownership, PlanError, Planning, Presence, Shape, Spec,
};
use crate::change::{Act, Change, Content};
use crate::world::systemd::{full_name, has_suffix, is_template};
use crate::world::{ContentId, Entry, RemotePath};

/// A unit file of systemd, of the system's manager or of a user's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    name: String,
    #[serde(default)]
    content: Option<ContentId>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    state: Presence,
}

/// What `unit` is called and takes.
pub static SPEC: Spec = Spec {
    name: "unit",
    summary: "A unit file of systemd, which is told to read it",
    key: Key {
        name: "name",
        shape: Shape::Name,
        summary: "The file's name with its suffix, such as `shop.service`",
        identity: &["user"],
    },
    arguments: &[
        Argument::optional("content", Shape::Content, "The unit file as text"),
        Argument::optional(
            "template",
            Shape::Template,
            "A Jinja template that gives the unit file",
        ),
        Argument::optional(
            "user",
            Shape::Name,
            "The user whose own systemd it is for; the file stands in ~/.config/systemd/user",
        ),
        Argument::optional(
            "state",
            Shape::Choice(&["present", "absent"]),
            "Whether it is to be there: `present` or `absent`; what runs is stopped with `service`",
        ),
    ],
    exclusive: &[&["content", "template"]],
    example: "\
- unit: shop.service
  content: |
    [Service]
    ExecStart=/srv/shop/serve
    ExecReload=kill -HUP $MAINPID
    [Install]
    WantedBy=multi-user.target
- service: shop
  restart_on: [unit:shop.service]
",
};

/// Where administrators put unit files (systemd.unit(5)).
const SYSTEM: &str = "/etc/systemd/system";

impl Kind for Unit {
    fn footprint(&self) -> Footprint {
        let footprint = Footprint::default();
        match &self.user {
            // The home is not known here; the user's own things are claimed through the user.
            Some(user) => footprint.reading(Claim::User(user.clone())).writing(Claim::Path(
                RemotePath::new(format!("/home/{user}/.config/systemd/user")).join(&self.name),
            )),
            None => footprint
                .writing(Claim::Path(RemotePath::from(SYSTEM).join(&self.name)))
                .writing(Claim::Unit(self.name.clone())),
        }
    }

    fn content(&self) -> Option<ContentId> {
        self.content
    }

    fn check_arguments(&self) -> Result<(), PlanError> {
        if !has_suffix(&self.name) {
            return Err(PlanError::new(format!("`{}` is not the name of a unit", self.name))
                .help(format!("perhaps `{}`", full_name(&self.name))));
        }
        if self.state == Presence::Present && self.content.is_none() {
            return Err(PlanError::new("a unit needs `content` or `template`"));
        }
        Ok(())
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        self.check_arguments()?;
        let Some((folder, ownership)) = self.place(planning)? else { return Ok(()) };
        let path = folder.join(&self.name);
        let reload = Change::Act(Act::ReloadManager { user: self.user.clone() });
        if self.state == Presence::Absent {
            if planning.entry(&path)? != Entry::Absent {
                planning.absent(&path)?;
                planning.push(reload);
            }
            return Ok(());
        }
        let Some(content) = self.content else {
            return Err(PlanError::new("a unit needs `content` or `template`"));
        };
        if self.user.is_some() && make_folders(planning, &folder, &ownership)? {
            // Into a folder that is only being planned.
            let after = Content::File(content);
            planning.push(Change::Content { path: path.clone(), before: Content::Absent, after });
            planning.metadata(&path, None, &ownership, 0o644)?;
            planning.push(reload);
            return Ok(());
        }
        let same = match planning.entry(&path)? {
            Entry::File { size, .. } => {
                size == content.size && planning.identify(&path)? == content
            }
            _ => false,
        };
        planning.file(&path, Some(content), &ownership, 0o644)?;
        // A reload that an earlier run did not come to is owed still. Only the system's manager
        // is asked: a user's may not run, and reads its files when it starts.
        let owed = same
            && self.user.is_none()
            && !is_template(&self.name)
            && planning.unit(&self.name)?.needs_daemon_reload;
        if !same || owed {
            planning.push(reload);
        }
        Ok(())
    }
}

impl Unit {
    /// The file's folder and who owns it; none while the user may come with a pending change,
    /// and where there is nothing to remove because the user is not there.
    fn place(
        &self,
        planning: &mut Planning<'_>,
    ) -> Result<Option<(RemotePath, Ownership)>, PlanError> {
        let owned_by = |user: &str, group: Option<String>| Ownership {
            owner: Some(user.to_owned()),
            group,
            mode: Some(0o644),
        };
        let Some(user) = &self.user else {
            let group = Some(String::from("root"));
            return Ok(Some((RemotePath::from(SYSTEM), owned_by("root", group))));
        };
        let Some(entry) = planning.user(user)? else {
            if self.state == Presence::Present {
                planning.check_principals(Some(user), None)?;
            }
            return Ok(None);
        };
        let folder = RemotePath::from(entry.home.as_str()).join(".config/systemd/user");
        Ok(Some((folder, owned_by(user, entry.group))))
    }
}

/// Makes what is missing between a user's home and the folder of its units; says whether anything
/// is.
fn make_folders(
    planning: &mut Planning<'_>,
    folder: &RemotePath,
    ownership: &Ownership,
) -> Result<bool, PlanError> {
    let mut missing = false;
    let mut folders: Vec<_> = folder.ancestors().take(2).collect();
    folders.insert(0, folder.clone());
    for folder in folders.iter().rev() {
        if !missing && planning.entry(folder)? != Entry::Absent {
            continue;
        }
        if !missing {
            planning.needs_parent(folder)?;
            missing = true;
        }
        let ownership = Ownership { mode: None, ..ownership.clone() };
        planning.folder(folder, &ownership, 0o755)?;
    }
    Ok(missing)
}
