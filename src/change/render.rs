use super::{Account, Act, Change, Command, Content, Reaction, Run, Wait, WaitFor, diff, packages};
use crate::report::ChangeView;
use crate::world::Metadata;

/// The two sides of a content change, as far as they may be shown.
#[derive(Clone, Copy, Debug)]
pub enum Sides<'a> {
    /// The bytes; none where nothing stands.
    Shown {
        /// What stands there.
        before: Option<&'a [u8]>,
        /// What is to stand there.
        after: Option<&'a [u8]>,
        /// What of them is not shown.
        masking: diff::Masking<'a>,
    },
    /// Not everybody may see them.
    Hidden,
    /// They were not asked for, or are too large.
    Omitted,
}

/// A change as people and programs read it.
pub fn view(change: &Change, sides: Sides<'_>) -> ChangeView {
    let (action, target, text) = match change {
        Change::Content { path, before, after } => {
            ("content", path.to_string(), content(&path.to_string(), before, after, sides))
        }
        Change::Metadata { path, before, after } => {
            ("metadata", path.to_string(), metadata(before.as_ref(), after))
        }
        Change::Account { before, after } => (
            "account",
            account_name(before.as_ref().or(after.as_ref())),
            super::accounts::render(before.as_ref(), after.as_ref()),
        ),
        Change::Packages(transaction) => {
            let names: Vec<_> = transaction
                .moves
                .iter()
                .filter(|moved| moved.requested)
                .map(|moved| moved.name.as_str())
                .collect();
            ("packages", names.join(" "), packages::render(transaction))
        }
        Change::Unit { name, before, after, .. } => {
            ("unit", name.clone(), super::units::render(before, after))
        }
        Change::Act(act) => ("act", act_target(act), act_text(act)),
    };
    let mut safe = String::with_capacity(target.len());
    diff::sanitize(&target, &mut safe);
    ChangeView { action: action.to_owned(), target: safe, diff: text }
}

fn content(path: &str, before: &Content, after: &Content, sides: Sides<'_>) -> String {
    let (old, new) = (before, after);
    match (before, after, sides) {
        (Content::Absent | Content::File(_), Content::Absent | Content::File(_), sides) => {
            match sides {
                Sides::Shown { before, after, .. }
                    if before.is_none_or(<[u8]>::is_empty)
                        && after.is_none_or(<[u8]>::is_empty) =>
                {
                    format!("{} → {}\n", describe(old), describe(new))
                }
                Sides::Shown { before, after, masking } => {
                    diff::masked(path, before, after, &masking)
                }
                Sides::Hidden => {
                    format!("{} → {} (hidden)\n", describe(before), describe(after))
                }
                Sides::Omitted => format!("{} → {}\n", describe(before), describe(after)),
            }
        }
        _ => format!("{} → {}\n", describe(before), describe(after)),
    }
}

fn describe(content: &Content) -> String {
    match content {
        Content::Absent => String::from("absent"),
        Content::File(id) => format!("file of {} bytes", id.size),
        Content::Link(target) => format!("link to {target}"),
        Content::Folder => String::from("directory"),
        Content::Other => String::from("special file"),
    }
}

fn metadata(before: Option<&Metadata>, after: &Metadata) -> String {
    let Some(before) = before else {
        return format!("+ {}:{} {:04o}\n", after.owner, after.group, after.mode);
    };
    let mut text = String::new();
    if before.owner != after.owner {
        text.push_str(&format!("~ owner {} → {}\n", before.owner, after.owner));
    }
    if before.group != after.group {
        text.push_str(&format!("~ group {} → {}\n", before.group, after.group));
    }
    if before.mode != after.mode {
        text.push_str(&format!("~ mode {:04o} → {:04o}\n", before.mode, after.mode));
    }
    text
}

fn account_name(account: Option<&Account>) -> String {
    match account {
        Some(Account::User { entry, .. }) => entry.name.clone(),
        Some(Account::Group { entry, .. }) => entry.name.clone(),
        None => String::new(),
    }
}

/// What an act is about: a command line, a unit.
fn act_target(act: &Act) -> String {
    match act {
        Act::Run(Command { run: Run::Shell(line), .. }) => line.clone(),
        Act::Run(Command { run: Run::Program(argv), .. }) => argv.join(" "),
        Act::React { unit, .. } => unit.clone(),
        Act::ReloadManager { .. } => String::from("systemd"),
        Act::Wait(Wait { until, .. }) => match until {
            WaitFor::Port(address) => address.clone(),
            WaitFor::Path(path) => path.to_string(),
            WaitFor::Http(http) => http.address.clone(),
            WaitFor::Command(line) => line.clone(),
        },
    }
}

fn act_text(act: &Act) -> String {
    match act {
        Act::Run(command) => match &command.cwd {
            Some(cwd) => format!("run in {cwd}\n"),
            None => String::from("run\n"),
        },
        Act::React { reaction, check, .. } => {
            let how = match reaction {
                Reaction::Reload => "reload",
                Reaction::Restart => "restart",
                Reaction::RestartCannotReload => "restart (cannot reload)",
            };
            match check {
                Some(check) => format!("{how}, if `{check}` succeeds\n"),
                None => format!("{how}\n"),
            }
        }
        Act::ReloadManager { .. } => String::from("daemon-reload\n"),
        Act::Wait(wait) => format!("wait, {} s at most\n", wait.within.div_ceil(1000)),
    }
}
