//! What is asked of apt-get, and what its simulation answers.

use crate::change::{PackageMove, PackageTransaction};
use crate::world::Answer;

/// Bound of waiting for another program that holds dpkg's lock, in seconds.
pub(super) const LOCK_SECONDS: u32 = 300;

/// What is asked of apt-get, to be simulated or done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    verb: Vec<String>,
    options: Vec<String>,
    targets: Vec<String>,
}

impl Request {
    /// What a transaction needs apt-get for; none where only marks change, or an unfinished
    /// configuration is to be finished.
    ///
    /// What is requested is named with its version where that is known. What comes along is left
    /// to apt: naming it would mark it as wanted for its own sake.
    pub fn of(transaction: &PackageTransaction) -> Option<Self> {
        let requested: Vec<&PackageMove> =
            transaction.moves.iter().filter(|step| step.requested && moves(step)).collect();
        if requested.is_empty() && !transaction.upgrade_all {
            return None;
        }
        let removals = requested.iter().filter(|step| step.after.is_none()).count();
        let purge = requested.iter().any(|step| step.purge);
        let names = || requested.iter().map(|step| step.name.clone()).collect();
        let verb: &[&str];
        let targets: Vec<String>;
        if transaction.upgrade_all {
            // Never removes anything; new packages that upgrades need may come.
            verb = &["upgrade", "--with-new-pkgs"];
            targets = Vec::new();
        } else if removals == requested.len() {
            verb = if purge { &["purge"] } else { &["remove"] };
            targets = names();
        } else {
            verb = if purge { &["install", "--purge"] } else { &["install"] };
            targets = requested.iter().map(|step| target(step)).collect();
        }
        let mut options = vec![
            String::from("-q"),
            String::from("-y"),
            String::from("-o"),
            format!("APT::Install-Recommends={}", transaction.recommends),
        ];
        if let Some(release) = &transaction.release {
            options.extend([String::from("-t"), release.clone()]);
        }
        // Only what was shown happens, so that these need no further asking.
        options.push(String::from("--allow-downgrades"));
        let held = |step: &&PackageMove| step.before.as_ref().is_some_and(|state| state.hold);
        if !transaction.upgrade_all && requested.iter().any(held) {
            options.push(String::from("--allow-change-held-packages"));
        }
        let verb = verb.iter().map(ToString::to_string).collect();
        Some(Self { verb, options, targets })
    }

    /// The command line that says what would happen.
    pub fn simulation(&self) -> Vec<String> {
        self.argv(&["-s"])
    }

    /// The command line that makes it happen: changed configuration files are kept, and nothing
    /// is asked.
    pub fn action(&self) -> Vec<String> {
        let lock = format!("DPkg::Lock::Timeout={LOCK_SECONDS}");
        self.argv(&[
            "-o",
            &lock,
            "-o",
            "Acquire::Retries=3",
            "-o",
            "Dpkg::Use-Pty=0",
            "-o",
            "Dpkg::Options::=--force-confdef",
            "-o",
            "Dpkg::Options::=--force-confold",
        ])
    }

    fn argv(&self, mode: &[&str]) -> Vec<String> {
        let mut argv = vec![String::from("apt-get")];
        argv.extend(mode.iter().map(ToString::to_string));
        argv.extend(self.options.iter().cloned());
        argv.extend(self.verb.iter().cloned());
        if !self.targets.is_empty() {
            argv.push(String::from("--"));
            argv.extend(self.targets.iter().cloned());
        }
        argv
    }
}

/// Whether a package comes, goes or changes its version; marks alone are not apt-get's business.
pub(super) fn moves(step: &PackageMove) -> bool {
    match (&step.before, &step.after) {
        (Some(before), Some(after)) => before.version.is_none() || before.version != after.version,
        (None, None) => step.purge,
        _ => true,
    }
}

fn target(step: &PackageMove) -> String {
    match (&step.after, &step.source) {
        (None, _) => format!("{}-", step.name),
        (Some(_), Some(path)) => path.to_string(),
        (Some(state), None) => match &state.version {
            Some(version) => format!("{}={version}", step.name),
            None => step.name.clone(),
        },
    }
}

/// One package's way, as apt-get simulates it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulated {
    /// With `:ARCH` only for foreign architectures.
    pub name: String,
    /// The version that is installed.
    pub before: Option<String>,
    /// The version that would be; the same where only its configuration is unfinished.
    pub after: Option<String>,
    /// Whether its configuration goes with it.
    pub purge: bool,
}

/// Why a simulation has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The lists do not know a package, a version or a release; newer ones may.
    Unknown(String),
    /// The lists do not know packages of these names.
    NoSuchPackage(String),
    /// Several packages provide what is named.
    Virtual(String),
    /// It cannot be done.
    Impossible(String),
}

impl Refusal {
    /// What apt said, or the names that it is about.
    pub fn text(&self) -> &str {
        match self {
            Refusal::Unknown(text)
            | Refusal::NoSuchPackage(text)
            | Refusal::Virtual(text)
            | Refusal::Impossible(text) => text,
        }
    }
}

/// Reads what `apt-get -s` answers: lines `Inst NAME [OLD] (NEW ORIGIN [ARCH])`, `Conf NAME (…)`,
/// `Remv NAME [OLD]` and `Purg NAME [OLD]`, as apt-get(8) describes them.
pub fn parse_simulation(answer: &Answer) -> Result<Vec<Simulated>, Refusal> {
    if answer.code != 0 {
        return Err(refusal(answer));
    }
    let mut found: Vec<Simulated> = Vec::new();
    for line in answer.output.lines() {
        let Some((verb, rest)) = line.split_once(' ') else { continue };
        if !matches!(verb, "Inst" | "Conf" | "Remv" | "Purg") {
            continue;
        }
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let (old, rest) = bracketed(rest, '[', ']');
        let (new, _) = bracketed(rest, '(', ')');
        let new = new.and_then(|text| text.split_whitespace().next()).map(str::to_owned);
        let old = old.filter(|version| !version.is_empty()).map(str::to_owned);
        let known = found.iter().position(|simulated| simulated.name == name);
        match (verb, known) {
            // Configured after it was unpacked, which was told before.
            ("Conf", Some(_)) => {}
            ("Conf", None) => found.push(Simulated {
                name: name.to_owned(),
                before: new.clone(),
                after: new,
                purge: false,
            }),
            // Removed for a moment, to get around a conflict.
            ("Inst", Some(at)) => {
                found[at].after = new;
                found[at].purge = false;
            }
            ("Inst", None) => {
                let name = name.to_owned();
                found.push(Simulated { name, before: old, after: new, purge: false });
            }
            (_, Some(at)) => {
                found[at].after = None;
                found[at].purge |= verb == "Purg";
            }
            (_, None) => {
                let (name, purge) = (name.to_owned(), verb == "Purg");
                found.push(Simulated { name, before: old, after: None, purge });
            }
        }
    }
    Ok(found)
}

/// The text in brackets at the beginning, and what follows.
fn bracketed(text: &str, open: char, close: char) -> (Option<&str>, &str) {
    let inside = text.trim_start().strip_prefix(open).and_then(|text| text.split_once(close));
    match inside {
        Some((inside, rest)) => (Some(inside), rest),
        None => (None, text),
    }
}

fn refusal(answer: &Answer) -> Refusal {
    let lines = || answer.output.lines().chain(answer.error.lines());
    let errors: Vec<&str> =
        answer.error.lines().filter_map(|line| line.strip_prefix("E: ")).collect();
    if let Some(at) = lines().position(|line| line.ends_with("is a virtual package provided by:")) {
        let providers: Vec<&str> = lines()
            .skip(at + 1)
            .take_while(|line| line.starts_with(' '))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        return Refusal::Virtual(providers.join(", "));
    }
    // What exactly cannot be met stands indented in the output.
    let unmet = answer
        .output
        .lines()
        .skip_while(|line| *line != "The following packages have unmet dependencies:")
        .skip(1)
        .take_while(|line| line.starts_with(' '));
    let mut text: Vec<&str> = errors.clone();
    text.extend(unmet.map(str::trim));
    if text.is_empty() {
        text.extend(answer.error.lines().rev().take(5).collect::<Vec<_>>().into_iter().rev());
    }
    let text = text.join("; ");
    const NO_SUCH: &str = "Unable to locate package ";
    let unknown = |line: &str| {
        line.starts_with(NO_SUCH)
            || line.ends_with(" has no installation candidate")
            || (line.starts_with("Version '") && line.ends_with(" was not found"))
            || line.contains("is invalid for APT::Default-Release")
    };
    if !errors.is_empty() && errors.iter().all(|line| unknown(line)) {
        let names = errors.iter().filter_map(|line| line.strip_prefix(NO_SUCH));
        let names: Vec<&str> = names.collect();
        if names.is_empty() {
            Refusal::Unknown(text)
        } else {
            Refusal::NoSuchPackage(names.join(", "))
        }
    } else {
        Refusal::Impossible(text)
    }
}

#[cfg(test)]
mod tests {
    use super::{Refusal, parse_simulation};
    use crate::world::Answer;

    fn answer(code: i32, output: &str, error: &str) -> Answer {
        Answer { code, output: output.to_owned(), error: error.to_owned() }
    }

    #[test]
    fn simulations_are_read() {
        let cases = [
            (
                "Reading package lists...\n0 upgraded, 2 newly installed\n\
                 Inst nginx-common (1.22.1-9+deb12u10 Debian-Security:12/oldstable-security [all])\n\
                 Inst nginx (1.22.1-9+deb12u10 Debian-Security:12/oldstable-security [amd64])\n\
                 Conf nginx-common (1.22.1-9+deb12u10 Debian-Security:12/oldstable-security [all])\n\
                 Conf nginx (1.22.1-9+deb12u10 Debian-Security:12/oldstable-security [amd64])\n",
                "nginx-common none -> 1.22.1-9+deb12u10; nginx none -> 1.22.1-9+deb12u10",
            ),
            (
                "Inst bash [5.2.15-2+b8] (5.2.15-2+b13 Debian:12.15/oldstable [amd64]) [a:amd64 ]\n\
                 Conf bash (5.2.15-2+b13 Debian:12.15/oldstable [amd64])\n",
                "bash 5.2.15-2+b8 -> 5.2.15-2+b13",
            ),
            (
                "Remv libpq-dev [15.18-0+deb12u1]\nRemv libpq5 [15.18-0+deb12u1] [b:amd64 ]\n",
                "libpq-dev 15.18-0+deb12u1 -> none; libpq5 15.18-0+deb12u1 -> none",
            ),
            (
                "Purg libpq5 [15.18-0+deb12u1]\nPurg old\n",
                "libpq5 15.18-0+deb12u1 -> purged; old none -> purged",
            ),
            ("Conf half (1.0-1 Debian:12/stable [amd64])\n", "half 1.0-1 -> 1.0-1"),
            ("Remv a [1]\nInst a [1] (2 Debian:12/stable [all])\n", "a 1 -> 2"),
            ("Inst libc6:i386 (2.36-9 Debian:12/stable [i386])\n", "libc6:i386 none -> 2.36-9"),
            ("bash is already the newest version (5.2.15-2+b8).\n", ""),
        ];
        for (output, expected) in cases {
            let moves: Vec<String> = parse_simulation(&answer(0, output, ""))
                .unwrap()
                .into_iter()
                .map(|one| {
                    let gone = if one.purge { "purged" } else { "none" };
                    let before = one.before.as_deref().unwrap_or("none");
                    format!("{} {before} -> {}", one.name, one.after.as_deref().unwrap_or(gone))
                })
                .collect();
            assert_eq!(moves.join("; "), expected);
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        let unknown = |text: &str| Refusal::Unknown(text.to_owned());
        let cases = [
            (
                "",
                "E: Unable to locate package nosuch\n",
                Refusal::NoSuchPackage(String::from("nosuch")),
            ),
            (
                "Package bash is not available, but is referred to by another package.\n",
                "E: Version '9.9' for 'bash' was not found\n",
                unknown("Version '9.9' for 'bash' was not found"),
            ),
            (
                "Package awk is a virtual package provided by:\n  mawk 1.3.4\n  gawk 1:5.2.1-2\n\n",
                "E: Package 'awk' has no installation candidate\n",
                Refusal::Virtual(String::from("mawk, gawk")),
            ),
            (
                "The following packages have unmet dependencies:\n nginx : Depends: nginx-common (< 2)\n",
                "E: Unable to correct problems, you have held broken packages.\n",
                Refusal::Impossible(String::from(
                    "Unable to correct problems, you have held broken packages.; \
                     nginx : Depends: nginx-common (< 2)",
                )),
            ),
        ];
        for (output, error, expected) in cases {
            assert_eq!(parse_simulation(&answer(100, output, error)), Err(expected));
        }
    }
}
