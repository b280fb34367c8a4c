use super::shell::{commands, first_argument, program, writes_to_file};
use super::{is_true, literal};
use crate::diagnostic::{Diagnostic, Span};
use crate::lang::State;
use crate::lang::yaml::Node;
use crate::lint::rule::Check;
use crate::lint::{Level, Rule};

pub(super) static COMMAND_WITHOUT_GUARD: Rule = Rule {
    name: "command-without-guard",
    summary: "A `command` that nothing keeps from being run each time",
    why: "It is run in every run and is a change in every plan, so a host is never as declared, and what reacts to it \
          reacts each time. Without `touches` it also may change anything: everything in the file keeps its order with it.",
    instead: "Say when there is nothing to do (`creates`, `removes`, `unless`, `onlyif`, `onchanges`), that it is a check \
              (`read_only: true`), or at least what it `touches`. One that is run on demand has the tag `never`.",
    level: Level::Warn,
    wrong: "- command: /srv/shop/manage create-tables\n",
    right: "- command: /srv/shop/manage create-tables\n  creates: /var/lib/shop/tables\n",
    check: Check::State(without_guard),
};

fn without_guard(state: &State, found: &mut Vec<Diagnostic>) {
    const ARGUMENTS: [&str; 4] = ["creates", "removes", "read_only", "touches"];
    const COMMON: [&str; 4] = ["unless", "onlyif", "onchanges", "onfail"];
    if state.spec.name != "command"
        || ARGUMENTS.iter().any(|name| state.argument(name).is_some())
        || COMMON.iter().any(|name| state.common(name).is_some())
        || is_on_demand(state)
    {
        return;
    }
    found.push(
        Diagnostic::warning(COMMAND_WITHOUT_GUARD.name, "a command that is run each time")
            .at(state.key.span, "")
            .help("say when there is nothing to do: `creates`, `removes`, `unless`, `onlyif` or `onchanges`")
            .help("`read_only: true` if it is a check, `touches` if it has to be run each time"),
    );
}

fn is_on_demand(state: &State) -> bool {
    let Some(tags) = state.common("tags") else { return false };
    let mut tags = tags.items().unwrap_or(std::slice::from_ref(tags)).iter();
    tags.any(|tag| {
        tag.as_text().is_some_and(|text| text.split(',').any(|one| one.trim() == "never"))
    })
}

pub(super) static COMMAND_WHERE_KIND: Rule = Rule {
    name: "command-where-kind",
    summary: "A `command` that does what a kind of state does",
    why: "A kind looks first and changes only what differs, shows exactly that in the plan, and can be undone. A command is \
          opaque: nobody knows beforehand what it will do, and everything waits for it.",
    instead: "Declare what there is to be, with the kind that the message names.",
    level: Level::Warn,
    wrong: "- command: systemctl enable --now nginx\n  unless: systemctl is-active nginx\n",
    right: "- service: nginx\n",
    check: Check::State(where_kind),
};

fn where_kind(state: &State, found: &mut Vec<Diagnostic>) {
    let commands = commands_of(state);
    let replaced: Vec<_> =
        commands.iter().filter_map(|words| Some((words, kind_for(words)?))).collect();
    // What belongs to a longer script is left to it, unless no script should do it.
    let all = replaced.len() == commands.len();
    let one = replaced.iter().find(|(_, kind)| all || kind.anywhere);
    if let Some((words, kind)) = one {
        let message = format!("`{}` in a command does what {} does", program(words), kind.name);
        found.push(
            Diagnostic::warning(COMMAND_WHERE_KIND.name, message)
                .at(state.key.span, "")
                .help(kind.help),
        );
    }
}

/// What a state does that a command does too.
struct Replacement {
    name: &'static str,
    help: &'static str,
    /// Whether it has no place in a longer script either.
    anywhere: bool,
}

fn kind_for(words: &[String]) -> Option<Replacement> {
    let has = |option: &str| words.iter().any(|word| word == option);
    let short = |letter: char| {
        words
            .iter()
            .any(|word| word.starts_with('-') && !word.starts_with("--") && word.contains(letter))
    };
    let of = |name, help, anywhere| Some(Replacement { name, help, anywhere });
    let argument = first_argument(words).unwrap_or_default();
    match program(words) {
        "systemctl" if has("--user") => None,
        "systemctl" | "service" | "invoke-rc.d" | "update-rc.d" => {
            const VERBS: [&str; 11] = [
                "start",
                "stop",
                "restart",
                "reload",
                "try-restart",
                "reload-or-restart",
                "enable",
                "disable",
                "mask",
                "unmask",
                "defaults",
            ];
            if argument == "daemon-reload" {
                let help = "`unit` writes a unit file and has systemd read it";
                return of("`unit`", help, true);
            }
            let verb = words.iter().skip(1).any(|word| VERBS.contains(&word.as_str()));
            let help = "`service` says whether it runs and is enabled; `watch` reloads it and `restart_on` restarts it \
                        when something has changed";
            if verb { of("`service`", help, true) } else { None }
        }
        "apt-get" | "apt" | "aptitude" => {
            const VERBS: [&str; 7] =
                ["install", "remove", "purge", "upgrade", "dist-upgrade", "full-upgrade", "update"];
            let only_looks = ["-s", "--simulate", "--dry-run"].into_iter().any(has);
            if only_looks || !VERBS.contains(&argument) {
                return None;
            }
            of(
                "`package`",
                "`package` fetches lists when they are needed, and shows what it will install",
                true,
            )
        }
        "dpkg" if has("-i") || has("--install") => {
            of("`package`", "`package` with `source` installs a local .deb", true)
        }
        "apt-key" | "add-apt-repository" => {
            of("`repository`", "`repository` declares a source of packages with its key", true)
        }
        "useradd" | "adduser" | "usermod" | "userdel" | "deluser" | "chpasswd" => {
            of("`user`", "`user` declares a user with its groups, home and password hash", true)
        }
        "groupadd" | "addgroup" | "groupmod" | "groupdel" | "delgroup" => {
            of("`group`", "`group` declares a group", true)
        }
        "sed" if short('i') || words.iter().any(|word| word.starts_with("--in-place")) => of(
            "`line_in_file`",
            "`line_in_file` and `block_in_file` edit a file and show the difference",
            false,
        ),
        "mkdir" => {
            of("`directory`", "`directory` makes a folder with owner, group and mode", false)
        }
        "ln" if short('s') || has("--symbolic") => {
            of("`symlink`", "`symlink` declares a link", false)
        }
        "chmod" | "chown" | "chgrp" => of(
            "`owner`, `group` and `mode`",
            "`file` and `directory` take `owner`, `group` and `mode`",
            false,
        ),
        "touch" => of("`file`", "a `file` without content only has to be there", false),
        _ => None,
    }
}

pub(super) static SUDO_IN_COMMAND: Rule = Rule {
    name: "sudo-in-command",
    summary: "A `command` that becomes another user by itself",
    why: "The agent may already be root, sudo may ask for a password that nobody can give, and neither the plan nor the \
          order of things knows whom the command runs as.",
    instead: "Say it beside the command: `become: true`, and `become_user` if it is not root.",
    level: Level::Warn,
    wrong: "- command: sudo -u shop /srv/shop/manage create-tables\n  creates: /var/lib/shop/tables\n",
    right: "- command: /srv/shop/manage create-tables\n  creates: /var/lib/shop/tables\n  become: true\n  become_user: shop\n",
    check: Check::State(sudo),
};

fn sudo(state: &State, found: &mut Vec<Diagnostic>) {
    const PROGRAMS: [&str; 5] = ["sudo", "su", "doas", "runuser", "setpriv"];
    let commands = commands_of(state);
    let one = commands.iter().map(|words| program(words)).find(|name| PROGRAMS.contains(name));
    if let Some(name) = one {
        let message = format!("`{name}` in a command becomes another user behind the plan's back");
        found.push(
            Diagnostic::warning(SUDO_IN_COMMAND.name, message)
                .at(state.key.span, "")
                .help("`become: true` becomes root, with `become_user` another user"),
        );
    }
}

pub(super) static GUARD_THAT_CHANGES: Rule = Rule {
    name: "guard-that-changes",
    summary: "A guard (`unless`, `onlyif`) or check (`read_only`) that changes something",
    why: "Guards and checks are run while planning, in dry runs too: a plan would change the host.",
    instead: "Let the guard only look, and do what it does in the command or in a state of its own.",
    level: Level::Warn,
    wrong: "- command: make install\n  cwd: /usr/local/src/tool\n  onlyif: mkdir /var/lock/tool\n",
    right: "- command: make install\n  cwd: /usr/local/src/tool\n  onlyif: test ! -e /usr/local/bin/tool\n",
    check: Check::State(guard),
};

fn guard(state: &State, found: &mut Vec<Diagnostic>) {
    for name in ["unless", "onlyif"] {
        let Some(node) = state.common(name) else { continue };
        for line in node.items().unwrap_or(std::slice::from_ref(node)) {
            let Some(text) = line.as_text() else { continue };
            report_change(&format!("`{name}`"), text, line.span, found);
        }
    }
    if state.spec.name == "command"
        && state.argument("read_only").is_some_and(is_true)
        && let Some(text) = state.key.as_text()
    {
        report_change("a check", text, state.key.span, found);
    }
}

fn report_change(what: &str, line: &str, span: Span, found: &mut Vec<Diagnostic>) {
    const PROGRAMS: [&str; 8] = ["rm", "mv", "cp", "tee", "install", "rmdir", "truncate", "ln"];
    let commands = commands(line);
    let acts =
        |words: &&Vec<String>| PROGRAMS.contains(&program(words)) || kind_for(words).is_some();
    let message = match commands.iter().find(acts) {
        Some(words) => format!("{what} runs `{}`, which changes something", program(words)),
        None if writes_to_file(line) => format!("{what} writes to a file"),
        None => return,
    };
    found.push(
        Diagnostic::warning(GUARD_THAT_CHANGES.name, message)
            .at(span, "this is run in dry runs too")
            .help("let it only look"),
    );
}

/// The words of each program that a command starts; templates stay as they are written.
fn commands_of(state: &State) -> Vec<Vec<String>> {
    if state.spec.name != "command" {
        return Vec::new();
    }
    let list = state.argument("argv").unwrap_or(&state.key);
    match list.items() {
        Some(items) => {
            let words = items.iter().filter_map(Node::as_text).map(str::to_owned);
            vec![words.collect()]
        }
        None => literal_or_written(list).map(commands).unwrap_or_default(),
    }
}

/// A shell line; where it is a template altogether there is nothing to see.
fn literal_or_written(node: &Node) -> Option<&str> {
    literal(node).or_else(|| node.as_text().filter(|text| !text.starts_with("{{")))
}
