mod lists;
mod transaction;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{Argument, Claim, Footprint, Key, Kind, Ownership, PlanError, Planning, Shape, Spec};
use crate::change::packages::{Request, parse_simulation};
use crate::change::{Change, PackageManager, PackageMove, PackageState, PackageTransaction};
use crate::world::{Answer, ContentId, Opaque, PackageEntry, Probe, RemotePath};

pub use transaction::plan_transaction;

/// Where local packages are put on a host.
const CACHE: &str = "/var/cache/converge/packages";

/// A package of the host's distribution, or a local one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Package {
    name: String,
    #[serde(default)]
    state: Wanted,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    hold: Option<bool>,
    #[serde(default = "super::yes")]
    recommends: bool,
    #[serde(default)]
    release: Option<String>,
    #[serde(default)]
    content: Option<ContentId>,
    #[serde(default)]
    debconf: IndexMap<String, Vec<String>>,
    #[serde(default)]
    provider: Provider,
}

/// What a package is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    /// Installed.
    #[default]
    Present,
    /// Not installed; its configuration may stay.
    Absent,
    /// Gone with its configuration.
    Purged,
    /// Installed in the newest version that the lists know.
    Latest,
    /// The same if it is installed; otherwise left out.
    Upgraded,
}

/// The manager that is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Provider {
    #[default]
    Auto,
    Apt,
    Dnf,
}

/// What `package` is called and takes.
pub static SPEC: Spec = Spec {
    name: "package",
    summary: "A package with its version; those next to each other are one transaction",
    key: Key {
        name: "name",
        shape: Shape::Name,
        summary: "Its name, `name=version`, or `*` with `state: upgraded` for all that are installed",
        identity: &[],
    },
    arguments: &[
        Argument::optional(
            "state",
            Shape::Choice(&["present", "absent", "purged", "latest", "upgraded"]),
            "`present`, `absent`, `purged` (configuration too), `latest` (of what the lists on the \
             host know), or `upgraded` (`latest`, if it is installed)",
        ),
        Argument::optional(
            "version",
            Shape::Text,
            "The exact version, older ones too; `*` in it stands for anything",
        ),
        Argument::optional(
            "hold",
            Shape::Boolean,
            "Whether it is held at its version; left as it is",
        ),
        Argument::optional(
            "recommends",
            Shape::Boolean,
            "`true` installs recommended packages too; `false` does not",
        )
        .with_default("true"),
        Argument::optional(
            "release",
            Shape::Name,
            "The release that it comes from, such as `bookworm-backports`",
        ),
        Argument::optional(
            "source",
            Shape::LocalFile,
            "A local `.deb` that it is installed from; needs `version`",
        ),
        Argument::optional(
            "debconf",
            Shape::Mapping(&Shape::List(&Shape::Text)),
            "Answers for its installation: `question: [type, value]`; never shown",
        )
        .secret(),
        Argument::optional(
            "provider",
            Shape::Choice(&["auto", "apt", "dnf"]),
            "The package manager: `auto`, `apt` or `dnf`",
        ),
    ],
    exclusive: &[&["source", "release"]],
    example: "\
- package: nginx
- package: postgresql-15
  recommends: false
- package: exim4-base
  state: absent
",
};

impl Kind for Package {
    fn footprint(&self) -> Footprint {
        Footprint::default().writing(Claim::Packages)
    }

    fn check_arguments(&self) -> Result<(), PlanError> {
        self.check()
    }

    fn private_part(&self) -> Option<&'static str> {
        (!self.debconf.is_empty()).then_some("answers for debconf")
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        match plan_transaction(&[self], std::slice::from_mut(planning)) {
            Ok(()) => Ok(()),
            Err(errors) => errors.into_iter().flatten().next().map_or(Ok(()), Err),
        }
    }

    fn opaque(&self) -> Option<Opaque> {
        Some(Opaque::EverythingButPackages)
    }

    fn transaction(&self) -> Option<String> {
        if self.content.is_some() || self.is_everything() {
            return None;
        }
        Some(match self.state {
            Wanted::Absent => String::from("remove"),
            Wanted::Purged => String::from("purge"),
            Wanted::Present | Wanted::Latest | Wanted::Upgraded => {
                let release = self.release.as_deref().unwrap_or_default();
                format!("install {} {release}", self.recommends)
            }
        })
    }
}

impl Package {
    fn is_everything(&self) -> bool {
        self.name == "*"
    }

    /// What neither apt nor the plan could make sense of.
    fn check(&self) -> Result<(), PlanError> {
        if self.provider == Provider::Dnf {
            return Err(PlanError::new("packages of dnf are not supported yet")
                .help("leave out `provider`, on hosts that have apt"));
        }
        if self.is_everything() {
            let alone = self.state == Wanted::Upgraded
                && self.version.is_none()
                && self.hold.is_none()
                && self.content.is_none()
                && self.release.is_none()
                && self.debconf.is_empty();
            return if alone {
                Ok(())
            } else {
                Err(PlanError::new("`*` stands for all packages that are installed")
                    .help("it goes with `state: upgraded`, and nothing but `recommends`"))
            };
        }
        // Debian Policy 5.6.1, and an architecture.
        let (name, architecture) = self.name.split_once(':').unwrap_or((self.name.as_str(), "any"));
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let legal = name.len() > 1
            && name.bytes().next().is_some_and(plain)
            && name.bytes().all(|byte| plain(byte) || b"+-.".contains(&byte))
            && !name.ends_with('-')
            && !architecture.is_empty()
            && architecture.bytes().all(|byte| plain(byte) || byte == b'-');
        if !legal {
            return Err(PlanError::new(format!("`{}` cannot be the name of a package", self.name)));
        }
        if let Some(version) = &self.version {
            let odd = |character: char| {
                !character.is_ascii_alphanumeric() && !".+-~:*".contains(character)
            };
            if version.is_empty() || version.starts_with('-') || version.contains(odd) {
                return Err(PlanError::new(format!("`{version}` cannot be a version")));
            }
            if self.state != Wanted::Present {
                return Err(PlanError::new("`version` goes with `state: present` only"));
            }
        }
        let gone = matches!(self.state, Wanted::Absent | Wanted::Purged);
        let exact = self.version.as_ref().is_some_and(|version| !version.contains('*'));
        if self.content.is_some() && !gone && !exact {
            let message = format!("the version of the local package {} is not said", self.name);
            return Err(PlanError::new(message).help(
                "say it beside `source`: `version: …`, as `dpkg-deb -f FILE Version` prints it",
            ));
        }
        if self.hold == Some(true) && gone {
            return Err(PlanError::new("a package that is not there cannot be held"));
        }
        for (question, answer) in &self.debconf {
            let odd = |text: &String| text.contains(char::is_control);
            if answer.len() != 2 || answer.iter().any(odd) || question.contains(char::is_whitespace)
            {
                return Err(PlanError::new(format!("`debconf` of `{question}` is not an answer"))
                    .help("write `question: [type, value]`, each on one line"));
            }
        }
        Ok(())
    }

    /// What has to move, as far as dpkg's database alone tells: a version that only the lists
    /// know is none, or still has its `*`.
    fn needed(&self, planning: &mut Planning<'_>) -> Result<Option<PackageMove>, PlanError> {
        let name = self.database_name(planning)?;
        let current = planning.package(&name)?;
        let planned = planning.world().package(&name)?.by.is_some();
        let step = |before: Option<&PackageEntry>, after: Option<PackageState>| PackageMove {
            name: name.clone(),
            before: before.map(state_of),
            after,
            purge: false,
            requested: true,
            source: None,
        };
        let installed = current.as_ref().filter(|entry| entry.version.is_some());
        let Some(entry) = installed else {
            let left_over = current.as_ref().is_some_and(|entry| !entry.broken);
            return Ok(match self.state {
                Wanted::Absent | Wanted::Upgraded => None,
                Wanted::Purged if left_over => {
                    Some(PackageMove { purge: true, ..step(None, None) })
                }
                Wanted::Purged => None,
                Wanted::Present | Wanted::Latest => {
                    let hold = self.hold.unwrap_or(false);
                    Some(step(None, Some(PackageState { version: self.version.clone(), hold })))
                }
            });
        };
        let hold = self.hold.unwrap_or(entry.hold);
        let stays = PackageState { version: state_of(entry).version, hold };
        Ok(match self.state {
            Wanted::Absent => Some(step(Some(entry), None)),
            Wanted::Purged => Some(PackageMove { purge: true, ..step(Some(entry), None) }),
            Wanted::Present if !self.is_version(entry) => {
                Some(step(Some(entry), Some(PackageState { version: self.version.clone(), hold })))
            }
            // A package that is held stays, and one that is planned to come is new.
            Wanted::Latest | Wanted::Upgraded if !planned && (!entry.hold || !hold) => {
                Some(step(Some(entry), Some(PackageState { version: None, hold })))
            }
            _ if entry.broken || entry.hold != hold => Some(step(Some(entry), Some(stays))),
            _ => None,
        })
    }

    fn is_version(&self, entry: &PackageEntry) -> bool {
        match (&self.version, &entry.version) {
            (Some(pattern), Some(version)) => fits(pattern, version),
            (wanted, _) => wanted.is_none(),
        }
    }

    /// The name under which dpkg's database has it: the host's own architecture is left out.
    fn database_name(&self, planning: &mut Planning<'_>) -> Result<String, PlanError> {
        let Some((name, architecture)) = self.name.split_once(':') else {
            return Ok(self.name.clone());
        };
        if planning.world().package(&self.name)?.value.is_some() {
            return Ok(self.name.clone());
        }
        let answer = planning.probe(&["dpkg", "--print-architecture"])?;
        let own = architecture == "all" || answer.output.trim() == architecture;
        Ok(if own { name.to_owned() } else { self.name.clone() })
    }

    /// Answers for a package's questions, as transactions have them.
    fn answers(&self) -> Vec<(String, String, String, String)> {
        let answer = |(question, answer): (&String, &Vec<String>)| match answer.as_slice() {
            [kind, value] => {
                let name = self.name.split(':').next().unwrap_or_default();
                Some((name.to_owned(), question.clone(), kind.clone(), value.clone()))
            }
            _ => None,
        };
        self.debconf.iter().filter_map(answer).collect()
    }

    /// A transaction with these options in which nothing moves yet.
    fn empty_transaction(&self) -> PackageTransaction {
        PackageTransaction {
            manager: PackageManager::Apt,
            moves: Vec::new(),
            recommends: self.recommends,
            release: self.release.clone(),
            debconf: Vec::new(),
            refresh_lists: false,
            upgrade_all: false,
        }
    }

    /// Plans a local package: its file is put on the host, and installed from there. What it
    /// needs comes along and cannot be named, since the host has yet to see the file.
    fn plan_local(
        &self,
        content: &ContentId,
        mut step: PackageMove,
        planning: &mut Planning<'_>,
    ) -> Result<(), PlanError> {
        let version = self.version.as_deref().unwrap_or_default();
        let file = format!("{}_{version}_{:?}.deb", step.name, content.digest).replace(':', "%3a");
        let path = RemotePath::from(CACHE).join(file);
        planning.parents(&path)?;
        let ownership = Ownership {
            owner: Some(String::from("root")),
            group: Some(String::from("root")),
            mode: Some(0o644),
        };
        planning.file(&path, Some(*content), &ownership, 0o644)?;
        step.source = Some(path);
        planning.push(Change::Packages(PackageTransaction {
            moves: vec![step],
            debconf: self.answers(),
            ..self.empty_transaction()
        }));
        Ok(())
    }

    /// Plans the upgrade of all that is installed; nothing is ever removed.
    fn plan_everything(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        let mut transaction = PackageTransaction { upgrade_all: true, ..self.empty_transaction() };
        let sources = planning.world().planned_below(&RemotePath::from("/etc/apt"));
        if !sources.is_empty() || lists::incomplete(planning.world().system())? {
            needs_root(planning)?;
            transaction.refresh_lists = true;
            planning.wait_for(sources);
            planning.because("the package lists have to be fetched first");
            planning.push(Change::Packages(transaction));
            return Ok(());
        }
        let Some(request) = Request::of(&transaction) else { return Ok(()) };
        let answer = simulate(&request, planning)?;
        let simulated = parse_simulation(&answer)
            .map_err(|refusal| PlanError::new(format!("apt refuses: {}", refusal.text())))?;
        for one in simulated {
            let current = planning.package(&one.name)?;
            let requested = one.before.is_some();
            if let Some(step) = transaction::along(&one, current.as_ref()) {
                transaction.moves.push(PackageMove { requested, ..step });
            }
        }
        if transaction.moves.is_empty() {
            return Ok(());
        }
        needs_root(planning)?;
        transaction.moves.sort_by(|left, right| {
            right.requested.cmp(&left.requested).then_with(|| left.name.cmp(&right.name))
        });
        planning.push(Change::Packages(transaction));
        Ok(())
    }
}

/// What is known of a package that is installed; a version that is only planned may not be known.
pub(super) fn state_of(entry: &PackageEntry) -> PackageState {
    let version = entry.version.clone().filter(|version| !version.is_empty());
    PackageState { version, hold: entry.hold }
}

/// Asks apt what would happen. Nothing is locked or written for that.
fn simulate(request: &Request, planning: &Planning<'_>) -> Result<Answer, PlanError> {
    let mut probe = Probe::new([]);
    probe.argv = request.simulation();
    probe.user = Some(planning.actor.user.clone());
    probe.environment = vec![(String::from("LC_ALL"), String::from("C.UTF-8"))];
    Ok(planning.world().system().probe(&probe)?)
}

/// The packages that apt would move besides those of a transaction.
pub(super) fn moved_along(
    transaction: &PackageTransaction,
    planning: &Planning<'_>,
) -> Result<Vec<String>, PlanError> {
    let Some(request) = Request::of(transaction) else { return Ok(Vec::new()) };
    let simulated = parse_simulation(&simulate(&request, planning)?)
        .map_err(|refusal| PlanError::new(format!("apt refuses: {}", refusal.text())))?;
    let named = |name: &str| transaction.moves.iter().any(|step| step.name == name);
    let mut others = Vec::new();
    for one in simulated.into_iter().filter(|one| one.before != one.after && !named(&one.name)) {
        // What is planned before may have seen to it by then.
        let planned = planning.world().package(&one.name)?.value.and_then(|entry| entry.version);
        if planned != one.after {
            others.push(one.name);
        }
    }
    Ok(others)
}

/// An error unless the resource is converged as root, who alone installs packages.
fn needs_root(planning: &Planning<'_>) -> Result<(), PlanError> {
    if planning.actor.root {
        return Ok(());
    }
    Err(PlanError::new(format!("{} cannot change packages", planning.actor.user))
        .help("only root does: `become: true`"))
}

/// Whether a text is what a pattern says, in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    let mut rest = rest;
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn versions_fit_patterns() {
        let cases = [
            ("1.22.1-9", "1.22.1-9", true),
            ("1.22.1-9", "1.22.1-9+deb12u1", false),
            ("1.22*", "1.22.1-9", true),
            ("1.23*", "1.22.1-9", false),
            ("*deb12u1", "1-9+deb12u1", true),
            ("1*-9*u1", "1.2-9+deb12u1", true),
            ("1*-9*u1", "1.2-8+deb12u1", false),
            ("1*1", "1", false),
            ("*", "", true),
        ];
        for (pattern, version, expected) in cases {
            assert_eq!(fits(pattern, version), expected, "{pattern} {version}");
        }
    }
}
