use super::literal;
use crate::diagnostic::Diagnostic;
use crate::kind::Shape;
use crate::lang::State;
use crate::lang::yaml::Node;
use crate::lint::rule::Check;
use crate::lint::{Level, Rule};

pub(super) static ODD_MODE: Rule = Rule {
    name: "odd-mode",
    summary: "Permissions that give others more than the owner",
    why: "Permissions are always octal here, so `mode: 420`, which is 0644 in decimal, is 0420: the owner may only read, and \
          the group may write. A mode that gives the group or others what the owner does not have is hardly ever meant.",
    instead: "Write the octal digits: `mode: 0644`.",
    level: Level::Warn,
    wrong: "- file: /etc/motd\n  content: Welcome\n  mode: 420\n",
    right: "- file: /etc/motd\n  content: Welcome\n  mode: 0644\n",
    check: Check::State(odd),
};

pub(super) static WORLD_WRITABLE: Rule = Rule {
    name: "world-writable",
    summary: "A file or folder that everybody on the host may write",
    why: "Any user and any service that is broken into may change it, and with a folder replace what is in it.",
    instead: "Give it an owner or a group that writes it. A folder for everybody has the sticky bit: `mode: 1777`.",
    level: Level::Warn,
    wrong: "- directory: /srv/shop/uploads\n  mode: 0777\n",
    right: "- directory: /srv/shop/uploads\n  owner: shop\n  mode: 0750\n",
    check: Check::State(writable),
};

/// Permissions as the language reads them: octal, whatever stands before the digits.
pub(super) fn octal(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777)
}

/// The permissions of a state that are there as they will be.
fn modes(state: &State) -> impl Iterator<Item = (&'static str, &Node, u32)> {
    let given = state.arguments().filter(|(argument, _)| argument.shape == Shape::Mode);
    given.filter_map(|(argument, node)| Some((argument.name, node, octal(literal(node)?)?)))
}

/// Whether the group or others have a right that the owner lacks.
fn is_odd(mode: u32) -> bool {
    let (owner, group, others) = (mode >> 6 & 7, mode >> 3 & 7, mode & 7);
    (group | others) & !owner != 0
}

fn odd(state: &State, found: &mut Vec<Diagnostic>) {
    for (_, node, mode) in modes(state).filter(|(_, _, mode)| is_odd(*mode)) {
        let message = format!("{mode:04o} gives others more than the owner");
        let diagnostic = Diagnostic::warning(ODD_MODE.name, message);
        let decimal = literal(node).and_then(|text| text.parse::<u32>().ok());
        let meant = decimal.filter(|meant| {
            *meant <= 0o7777
                && meant >> 6 & 6 == 6
                && !is_odd(*meant)
                && !literal(node).is_some_and(|text| text.starts_with('0'))
        });
        found.push(match meant {
            Some(meant) => diagnostic
                .at(node.span, format!("did you mean {meant:04o}, which is {meant} in decimal?")),
            None => diagnostic.at(node.span, ""),
        });
    }
}

fn writable(state: &State, found: &mut Vec<Diagnostic>) {
    for (name, node, mode) in modes(state) {
        let folder = state.spec.name == "directory" || name == "directory_mode";
        let sticky = folder && mode & 0o1000 != 0;
        if mode & 0o002 == 0 || sticky || is_odd(mode) {
            continue;
        }
        let diagnostic =
            Diagnostic::warning(WORLD_WRITABLE.name, "everybody on the host may write this");
        let diagnostic = diagnostic.at(node.span, "");
        found.push(if folder {
            diagnostic.help("a folder for everybody has the sticky bit: `mode: 1777`")
        } else {
            diagnostic.help("give it an `owner` or a `group` that writes it")
        });
    }
}

pub(super) static UNVALIDATED_FILE: Rule = Rule {
    name: "unvalidated-file",
    summary: "A file of sudo or sshd that nothing checks before it is in place",
    why: "A mistake in it locks everybody out: sudo refuses to work with a file that it cannot read, and sshd does not start \
          again.",
    instead: "Have it checked by `validate`; `%s` is the path of the candidate.",
    level: Level::Warn,
    wrong: "- file: /etc/sudoers.d/deploy\n  content: \"deploy ALL=(ALL) NOPASSWD: ALL\"\n  mode: 0440\n",
    right: "- file: /etc/sudoers.d/deploy\n  content: \"deploy ALL=(ALL) NOPASSWD: ALL\"\n  mode: 0440\n  validate: visudo -cf %s\n",
    check: Check::State(unvalidated),
};

fn unvalidated(state: &State, found: &mut Vec<Diagnostic>) {
    let takes = state.spec.arguments.iter().any(|argument| argument.name == "validate");
    let absent = state.argument("state").is_some_and(|node| literal(node) == Some("absent"));
    if !takes || state.argument("validate").is_some() {
        return;
    }
    for key in state.key.items().unwrap_or(std::slice::from_ref(&state.key)) {
        let Some(path) = key.as_text() else { continue };
        let whole = state.spec.name == "file" && absent;
        let command = match path {
            "/etc/sudoers" => "visudo -cf %s",
            "/etc/ssh/sshd_config" => "/usr/sbin/sshd -t -f %s",
            _ if path.starts_with("/etc/sudoers.d/") => "visudo -cf %s",
            _ if path.starts_with("/etc/ssh/sshd_config.d/") => "/usr/sbin/sshd -t",
            _ => continue,
        };
        if whole {
            continue;
        }
        found.push(
            Diagnostic::warning(
                UNVALIDATED_FILE.name,
                "a mistake in this file locks everybody out",
            )
            .at(key.span, "")
            .help(format!("`validate: {command}` checks it before it counts")),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_that_give_others_more_are_odd() {
        for mode in [0o420, 0o416, 0o436, 0o070, 0o046] {
            assert!(is_odd(mode), "{mode:o}");
        }
        for mode in [0o644, 0o600, 0o755, 0o1777, 0o2770, 0o711, 0o440, 0o000, 0o511] {
            assert!(!is_odd(mode), "{mode:o}");
        }
    }
}
