//! The shell script that finds, receives and starts the agent on a host.
//!
//! It needs `/bin/sh` and coreutils. The login shell, which may be any, sees it as one quoted word.

use super::Privilege;
use crate::ssh::quote::for_any_shell;

/// The word for a host without sudo.
pub(super) const NO_SUDO: &str = "no-sudo";
/// The word for a host on which no folder can hold the program.
pub(super) const NO_FOLDER: &str = "no-folder";

/// What one start of the agent is made from.
pub(super) struct Script<'a> {
    /// The program's name: hexadecimal digits.
    pub(super) digest: &'a str,
    /// The program's length in bytes.
    pub(super) size: usize,
    /// Hexadecimal digits that mark the script's words and sudo's prompt as ours.
    pub(super) nonce: &'a str,
    /// Whether a program that the host has is run, or replaced.
    pub(super) trust_kept: bool,
}

/// The text by which sudo asks for a password. It holds no `%`, which sudo would expand.
pub(super) fn prompt(nonce: &str) -> String {
    format!("converge-password-{nonce}:")
}

/// Before anything: as whom, and the words.
///
/// A script is one line, and has no `'`, no `\` and no `!`, so that any shell can pass it on.
const PROLOGUE: &[&str] = &[
    "umask 077;",
    "unset LC_ALL;",
    "u=$(id -u);",
    "say() { echo \"converge-$1 $n $2\"; };",
    "fail() { say fail \"$1\"; exit 1; };",
    // Folders and files that only their owner can write, and the owner is us: no links, which `ls -ld` marks. A file
    // has the program's size. One `ls` for all of them, since starting it takes longer than the rest of the script.
    "owned() { c=$#; ls -ldn \"$@\" 2>/dev/null | { while read -r p l o g z r; do",
    "[ \"$o\" = \"$u\" ] || exit 1; case \"$p\" in d????-??-*) ;; -????-??-*) [ \"$z\" = \"$s\" ] || exit 1;;",
    "*) exit 1;; esac; c=$((c-1)); done;",
    "[ \"$c\" = 0 ]; }; };",
    // Homes may be shared between machines, so that a machine has a folder of its own there.
    "m=;",
    "for f in /etc/machine-id /var/lib/dbus/machine-id; do",
    "if [ -z \"$m\" ] && [ -r \"$f\" ]; then read -r m <\"$f\"; fi; done;",
    "case \"$m\" in */*|\"\") m=$(uname -n);; esac;",
    // Offers the folders to a function until one suits it.
    "each() { if [ \"$u\" = 0 ]; then \"$1\" /var/lib/converge/agent; return; fi;",
    "[ -n \"$HOME\" ] && \"$1\" \"$HOME/.local/state/converge/$m/agent\" && return 0;",
    "\"$1\" \"/var/tmp/converge-$u\"; };",
    "secure() { if [ \"$u\" = 0 ]; then owned /var/lib/converge \"$@\"; else owned \"$@\"; fi; };",
];

/// Runs the program that is there, if nobody else could have written it and it is whole; that it is what its name says
/// it checks itself, before all else. A digest taken here would guard against nobody more, since whoever can write
/// there is this user or root, and `sha256sum` would cost each run 13 ms and a processor's time. `-x` fails on a file system that is mounted `noexec`.
const WARM: &[&str] = &[
    "warm() { [ -f \"$1/$d\" ] && [ -x \"$1/$d\" ] && secure \"$1\" \"$1/$d\" || return 1;",
    "exec \"$1/$d\" serve; };",
    "each warm;",
];

/// Makes a place for the program, and sees to it before anything is sent that programs run there.
const COLD: &[&str] = &[
    "w=; t=;",
    "cold() { mkdir -p \"$1\" 2>/dev/null;",
    "secure \"$1\" || { w=\"$w $1 is not ours alone, or cannot be made;\"; return 1; };",
    "t=\"$1/.$d.$$\";",
    "( : >\"$t\" ) 2>/dev/null || { w=\"$w $1 cannot be written;\"; t=; return 1; };",
    "chmod 700 \"$t\"; [ -x \"$t\" ] && return 0;",
    "rm -f \"$t\"; t=; w=\"$w $1 does not allow programs (noexec);\"; return 1; };",
    "each cold || fail \"no-folder$w\";",
    "drop() { rm -f \"$t\"; }; trap drop 0; trap \"exit 1\" 1 2 13 15;",
    "say need \"$(uname -s) $(uname -m)\";",
    "head -c \"$s\" >\"$t\" || fail \"store it cannot be written\";",
    "[ \"$(wc -c <\"$t\")\" -eq \"$s\" ] || fail \"store it did not come whole\";",
    // A power failure must not leave an empty file under the program's name.
    "chmod 755 \"$t\" && { sync \"$t\" 2>/dev/null || sync; } && mv -f \"$t\" \"${t%/*}/$d\"",
    "|| fail \"store it cannot be put in place\";",
    "trap - 0 1 2 13 15; exec \"${t%/*}/$d\" serve",
];

impl Script<'_> {
    /// The command to run on the host, quoted for any login shell.
    pub(super) fn command(&self, privilege: &Privilege) -> String {
        let script = self.script();
        let (become_flags, user) = match privilege {
            Privilege::Login => return format!("exec /bin/sh -c {}", for_any_shell(&script)),
            Privilege::Sudo { user, password: Some(_) } => ("-S -p \"$1\"", user),
            Privilege::Sudo { user, password: None } => ("-n", user),
        };
        // sudo's messages are read here, so they must be in one language; the script has its own again.
        let outer = format!(
            "if [ \"$2\" = root ] && [ \"$(id -u)\" = 0 ]; then exec /bin/sh -c \"$3\"; fi; f=fail; \
             command -v sudo >/dev/null 2>&1 || {{ echo \"converge-$f {} {NO_SUDO}\"; exit 127; }}; \
             LC_ALL=C; export LC_ALL; exec sudo -H {become_flags} -u \"$2\" -- /bin/sh -c \"$3\"",
            self.nonce
        );
        let words = [outer.as_str(), "sh", &prompt(self.nonce), user, &script].map(for_any_shell);
        format!("exec /bin/sh -c {}", words.join(" "))
    }

    fn script(&self) -> String {
        let Self { digest, size, nonce, trust_kept } = self;
        let values = format!("d={digest}; s={size}; n={nonce};");
        let warm: &[&str] = if *trust_kept { WARM } else { &[] };
        let lines = [values.as_str()].into_iter().chain([PROLOGUE, warm, COLD].concat());
        lines.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_survives_any_shells_quoting() {
        let script = Script { digest: "ab12", size: 7, nonce: "1f", trust_kept: true }.script();
        assert!(!script.contains(['\'', '\\', '!', '\n']), "{script}");
        let checked =
            std::process::Command::new("/bin/sh").args(["-n", "-c", &script]).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}
