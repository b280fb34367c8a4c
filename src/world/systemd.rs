//! Units, as systemd tells of them.

use super::{Answer, RemotePath, UnitEntry};

/// The template of an instance: `shop@.service` of `shop@1.service` (systemd.unit(5)).
pub fn template_of(name: &str) -> Option<String> {
    let (stem, suffix) = name.rsplit_once('.')?;
    let (stem, instance) = stem.split_once('@')?;
    (!instance.is_empty()).then(|| format!("{stem}@.{suffix}"))
}

/// The properties that an observation of a unit is made from (systemd.unit(5), D-Bus API).
const PROPERTIES: &str = "--property=LoadState,ActiveState,SubState,UnitFileState,CanReload,NeedDaemonReload,\
ExecMainStartTimestampMonotonic,ActiveEnterTimestampMonotonic,MainPID";

/// What may stand at the end of a unit's name.
const SUFFIXES: [&str; 11] = [
    "service",
    "socket",
    "timer",
    "target",
    "path",
    "mount",
    "automount",
    "swap",
    "slice",
    "scope",
    "device",
];

/// Where the unit files of the system's manager are, the strongest first.
pub const UNIT_FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// A unit's name with its suffix: a service if it has none.
pub fn full_name(name: &str) -> String {
    if has_suffix(name) { name.to_owned() } else { format!("{name}.service") }
}

/// Whether a name ends as the names of units do.
pub fn has_suffix(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(stem, suffix)| !stem.is_empty() && SUFFIXES.contains(&suffix))
}

/// Whether a full name can be that of one unit: a template (`name@.service`) stands for many, and
/// asking for it spoils the answers about all others.
pub fn is_unit_name(name: &str) -> bool {
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    has_suffix(name) && name.bytes().all(letters) && !is_template(name) && !name.starts_with('@')
}

/// Whether a unit's full name is that of a template.
pub fn is_template(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, _)| stem.ends_with('@'))
}

/// The program that says all about units, in one call for any number of them. Names that cannot
/// be those of one unit are left out.
pub fn show_argv<S: AsRef<str>>(names: &[S]) -> Vec<String> {
    let mut argv =
        ["systemctl", "show", "--no-pager", PROPERTIES, "--"].map(str::to_owned).to_vec();
    argv.extend(valid(names).map(str::to_owned));
    argv
}

/// Reads the answer to [`show_argv`]: one entry for each name, in that order and under the name
/// that was asked for, which may be an alias (`sshd.service` for `ssh.service`). An error is a
/// sentence.
pub fn parse_show<S: AsRef<str>>(names: &[S], answer: &Answer) -> Result<Vec<UnitEntry>, String> {
    let asked = valid(names).count();
    let mut blocks = Vec::new();
    if asked > 0 {
        let said = answer.error.trim();
        let absent = ["not been booted with systemd", "Failed to connect to bus"];
        if absent.iter().any(|sign| said.contains(sign)) {
            return Err(String::from("systemd does not run on this host"));
        }
        if answer.code != 0 {
            return Err(format!("systemctl show: {said}"));
        }
        blocks = answer.output.split("\n\n").filter(|block| !block.trim().is_empty()).collect();
    }
    if blocks.len() != asked {
        return Err(String::from("the answer of systemctl is incomplete"));
    }
    let mut blocks = blocks.into_iter();
    let entry = |name: &S| {
        let name = name.as_ref();
        let block = if is_unit_name(name) { blocks.next() } else { None };
        block.map_or_else(|| UnitEntry::unknown(name), |block| parse(name, block))
    };
    Ok(names.iter().map(entry).collect())
}

fn valid<S: AsRef<str>>(names: &[S]) -> impl Iterator<Item = &str> {
    names.iter().map(S::as_ref).filter(|name| is_unit_name(name))
}

/// One unit's properties, in lines of `NAME=VALUE`.
fn parse(name: &str, block: &str) -> UnitEntry {
    let property = |key: &str| {
        block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default()
    };
    let exists = !matches!(property("LoadState"), "" | "not-found");
    // A unit that is between two attempts does not run.
    let active = matches!(property("ActiveState"), "active" | "reloading" | "activating")
        && property("SubState") != "auto-restart";
    let since = match property("MainPID") {
        "" | "0" => property("ActiveEnterTimestampMonotonic"),
        _ => property("ExecMainStartTimestampMonotonic"),
    };
    let enablement = match property("UnitFileState") {
        "" if exists => "transient", // no file: made by the manager itself, or by a program
        "" => "not-found",
        state => state,
    };
    UnitEntry {
        name: name.to_owned(),
        exists,
        active,
        enablement: enablement.to_owned(),
        can_reload: property("CanReload") == "yes",
        needs_daemon_reload: property("NeedDaemonReload") == "yes",
        started_at: since.parse().ok().filter(|since| active && *since != 0),
    }
}

/// What a unit file says of the unit before any manager has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitFile {
    /// Whether it says by what it is started once it is enabled; otherwise it is `static`.
    pub installable: bool,
    /// Whether the service can reload.
    pub can_reload: bool,
}

impl UnitFile {
    /// Reads what matters here of systemd.unit(5) and systemd.service(5).
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut file = Self { installable: false, can_reload: false };
        let mut section = "";
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name;
            } else if let Some((key, value)) = line.split_once('=') {
                match (section, key.trim_end(), value.trim()) {
                    ("Service", "ExecReload", value) => file.can_reload = !value.is_empty(),
                    ("Service", "Type", "notify-reload") => file.can_reload = true,
                    (
                        "Install",
                        "WantedBy" | "RequiredBy" | "UpheldBy" | "Alias" | "Also",
                        value,
                    ) => {
                        file.installable |= !value.is_empty();
                    }
                    _ => {}
                }
            }
        }
        file
    }
}

/// The places where the file of a system unit may stand, the strongest first.
pub fn unit_files(name: &str) -> impl Iterator<Item = RemotePath> + '_ {
    UNIT_FOLDERS.iter().map(move |folder| RemotePath::from(*folder).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As systemd 252 prints them.
    const OUTPUT: &str = "\
MainPID=34
ExecMainStartTimestampMonotonic=2567016814
Id=ssh.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
ActiveEnterTimestampMonotonic=2567032562
CanReload=yes
NeedDaemonReload=no

MainPID=0
ExecMainStartTimestampMonotonic=0
Id=nope.service
LoadState=not-found
ActiveState=inactive
SubState=dead
UnitFileState=
ActiveEnterTimestampMonotonic=0
CanReload=no
NeedDaemonReload=no

MainPID=0
ExecMainStartTimestampMonotonic=0
Id=getty@tty1.service
LoadState=masked
ActiveState=inactive
SubState=dead
UnitFileState=masked
ActiveEnterTimestampMonotonic=0
CanReload=no
NeedDaemonReload=no

Id=systemd-tmpfiles-clean.timer
LoadState=loaded
ActiveState=active
SubState=waiting
UnitFileState=static
ActiveEnterTimestampMonotonic=2566983262
CanReload=no
NeedDaemonReload=yes

MainPID=0
ExecMainStartTimestampMonotonic=3113111513
Id=crash.service
LoadState=loaded
ActiveState=activating
SubState=auto-restart
UnitFileState=disabled
ActiveEnterTimestampMonotonic=3113111513
CanReload=no
NeedDaemonReload=no

MainPID=0
ExecMainStartTimestampMonotonic=3113111513
Id=broken.service
LoadState=loaded
ActiveState=failed
SubState=failed
UnitFileState=disabled
ActiveEnterTimestampMonotonic=0
CanReload=no
NeedDaemonReload=no
";

    #[test]
    fn the_answers_are_matched_with_the_names_by_their_order() {
        let cases = [
            ("sshd.service", true, true, "enabled", true, false, Some(2567016814)),
            ("nope.service", false, false, "not-found", false, false, None),
            ("getty@tty1.service", true, false, "masked", false, false, None),
            ("systemd-tmpfiles-clean.timer", true, true, "static", false, true, Some(2566983262)),
            ("getty@.service", false, false, "not-found", false, false, None), // not asked for
            ("crash.service", true, false, "disabled", false, false, None),
            ("broken.service", true, false, "disabled", false, false, None),
        ];
        let names = cases.map(|case| case.0);
        let answer = Answer { code: 0, output: OUTPUT.to_owned(), error: String::new() };
        assert_eq!(show_argv(&names).len(), 5 + names.len() - 1);
        let entries = parse_show(&names, &answer).unwrap();
        for (case, entry) in cases.into_iter().zip(entries) {
            let (name, exists, active, enablement, can_reload, needs_daemon_reload, started_at) =
                case;
            let expected = UnitEntry {
                name: name.to_owned(),
                exists,
                active,
                enablement: enablement.to_owned(),
                can_reload,
                needs_daemon_reload,
                started_at,
            };
            assert_eq!(entry, expected);
        }
    }

    #[test]
    fn a_missing_manager_and_a_short_answer_are_errors() {
        let cases = [
            (
                1,
                "",
                "System has not been booted with systemd as init system (PID 1). Can't operate.\n\
                 Failed to connect to bus: Host is down",
                "systemd does not run on this host",
            ),
            (
                1,
                OUTPUT,
                "Failed to get properties: Unit name a@.service is neither…",
                "Unit name a@",
            ),
            (0, OUTPUT, "", "incomplete"),
            (0, "", "", "incomplete"),
        ];
        let names = ["a.service"; 7];
        for (code, output, error, expected) in cases {
            let answer = Answer { code, output: output.to_owned(), error: error.to_owned() };
            let error = parse_show(&names, &answer).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn names_get_their_suffix_and_templates_are_told_apart() {
        let cases = [
            ("nginx", "nginx.service", true),
            ("nginx.service", "nginx.service", true),
            ("backup.timer", "backup.timer", true),
            ("my.app", "my.app.service", true),
            ("php8.2-fpm", "php8.2-fpm.service", true),
            ("worker@1", "worker@1.service", true),
            ("worker@", "worker@.service", false),
            ("-.mount", "-.mount", true),
            (".service", ".service.service", true),
            ("a\nb", "a\nb.service", false),
        ];
        for (name, full, valid) in cases {
            assert_eq!(full_name(name), full);
            assert_eq!(is_unit_name(full), valid, "{full}");
        }
    }

    #[test]
    fn a_unit_file_says_whether_it_can_be_enabled_and_reloaded() {
        let cases = [
            ("[Service]\nExecStart=/bin/a\n", false, false),
            ("[Service]\nExecReload = /bin/a\n[Install]\nWantedBy=multi-user.target\n", true, true),
            ("[Service]\nExecReload=/bin/a\nExecReload=\n[Install]\n#WantedBy=x\n", false, false),
            ("[Service]\nType=notify-reload\n[Install]\nAlias=b.service\n", true, true),
            ("ExecReload=/bin/a\nWantedBy=x\n", false, false),
        ];
        for (text, installable, can_reload) in cases {
            assert_eq!(
                UnitFile::parse(text.as_bytes()),
                UnitFile { installable, can_reload },
                "{text}"
            );
        }
    }
}
