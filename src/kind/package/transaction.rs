//! Several packages planned together, with at most one simulation.

use super::{Package, Wanted, lists, needs_root, simulate, state_of};
use crate::change::packages::{Refusal, Request, Simulated, parse_simulation};
use crate::change::{Change, PackageMove, PackageState, PackageTransaction};
use crate::kind::{PlanError, Planning};
use crate::resource::ResourceId;
use crate::world::{PackageEntry, RemotePath};

/// Plans package states that stand next to each other and have the same [`transaction`] key.
///
/// Which of them have something to do, dpkg's database alone tells; only then is apt asked, once
/// for all. Each gets the moves that it asks for; what comes along with any of them is with the
/// first one that moves. The transactions are carried out as one: [`merge`].
///
/// Errors stand at the positions of the states that they are about; those without one have their
/// plan all the same.
///
/// [`transaction`]: crate::kind::Kind::transaction
/// [`merge`]: crate::change::packages::merge
pub fn plan_transaction(
    packages: &[&Package],
    plannings: &mut [Planning<'_>],
) -> Result<(), Vec<Option<PlanError>>> {
    let mut errors: Vec<Option<PlanError>> = packages.iter().map(|_| None).collect();
    let mut group = Vec::new();
    for (index, (package, planning)) in packages.iter().zip(plannings.iter_mut()).enumerate() {
        match package.first_look(planning) {
            Ok(None) => {}
            Ok(Some(step)) => group.push(Member { index, package, step }),
            Err(error) => errors[index] = Some(error),
        }
    }
    if let Err(problems) = plan_group(group, packages, plannings) {
        for (index, error) in problems {
            errors[index] = Some(error);
        }
    }
    if errors.iter().all(Option::is_none) { Ok(()) } else { Err(errors) }
}

/// A state that has something to do.
struct Member<'a> {
    index: usize,
    package: &'a Package,
    step: PackageMove,
}

impl Member<'_> {
    /// Whether apt has to say what happens; the rest is marks and unfinished configurations.
    fn asks_apt(&self) -> bool {
        Request::of(&self.alone()).is_some()
    }

    fn alone(&self) -> PackageTransaction {
        PackageTransaction { moves: vec![self.step.clone()], ..self.package.empty_transaction() }
    }

    /// Whether it goes without saying that nothing is to do after all.
    fn is_optional(&self) -> bool {
        matches!(self.package.state, Wanted::Latest | Wanted::Upgraded)
    }
}

/// Errors with the positions of the states that they are about.
type Problems = Vec<(usize, PlanError)>;

impl Package {
    /// What it needs, if that takes part in a common transaction; the rest is planned here.
    fn first_look(&self, planning: &mut Planning<'_>) -> Result<Option<PackageMove>, PlanError> {
        self.check()?;
        if self.is_everything() {
            return self.plan_everything(planning).map(|()| None);
        }
        let Some(step) = self.needed(planning)? else { return Ok(None) };
        match &self.content {
            Some(content) if step.after.is_some() && Self::is_move(&step) => {
                needs_root(planning)?;
                self.plan_local(content, step, planning).map(|()| None)
            }
            _ => Ok(Some(step)),
        }
    }

    fn is_move(step: &PackageMove) -> bool {
        step.before.as_ref().map(|state| &state.version)
            != step.after.as_ref().map(|state| &state.version)
    }
}

fn plan_group(
    mut group: Vec<Member<'_>>,
    packages: &[&Package],
    plannings: &mut [Planning<'_>],
) -> Result<(), Problems> {
    let asking: Vec<usize> =
        (0..group.len()).filter(|position| group[*position].asks_apt()).collect();
    let mut along = Vec::new();
    let mut refresh = false;
    if let Some(first) = asking.first() {
        let everybody = |error: PlanError| -> Problems {
            let copy = || PlanError { message: error.message.clone(), help: error.help.clone() };
            asking.iter().map(|position| (group[*position].index, copy())).collect()
        };
        let planning = &plannings[group[*first].index];
        let wanted = PackageTransaction {
            moves: asking.iter().map(|position| group[*position].step.clone()).collect(),
            ..group[*first].package.empty_transaction()
        };
        match outlook(&wanted, planning).map_err(everybody)? {
            Outlook::Known(simulated) => {
                along = settle(&mut group, &asking, simulated, packages, plannings)?
            }
            Outlook::Unknown(sources) => {
                refresh = true;
                for position in &asking {
                    let member = &mut group[*position];
                    if let Some(state) = &mut member.step.after {
                        state.version =
                            state.version.take().filter(|version| !version.contains('*'));
                    }
                    let planning = &mut plannings[member.index];
                    planning.wait_for(sources.iter().cloned());
                    planning.because("the package lists have to be fetched first");
                }
            }
        }
    }
    let mut problems = Problems::new();
    for member in group {
        if let Err(error) = needs_root(&plannings[member.index]) {
            problems.push((member.index, error));
            continue;
        }
        let moves = Request::of(&member.alone()).is_some();
        let mut transaction = member.alone();
        if moves {
            transaction.refresh_lists = refresh;
            transaction.moves.append(&mut along);
            if member.step.after.is_some() {
                transaction.debconf = member.package.answers();
            }
        }
        plannings[member.index].push(Change::Packages(transaction));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// What can be said of a transaction before it happens.
enum Outlook {
    /// All that moves.
    Known(Vec<Simulated>),
    /// The lists have to be fetched first, perhaps after these have changed the sources.
    Unknown(Vec<ResourceId>),
}

fn outlook(wanted: &PackageTransaction, planning: &Planning<'_>) -> Result<Outlook, PlanError> {
    let installs = wanted.moves.iter().any(|step| step.after.is_some());
    if installs {
        let sources = planning.world().planned_below(&RemotePath::from("/etc/apt"));
        if !sources.is_empty() || lists::incomplete(planning.world().system())? {
            return Ok(Outlook::Unknown(sources));
        }
    }
    let Some(request) = Request::of(wanted) else { return Ok(Outlook::Known(Vec::new())) };
    match parse_simulation(&simulate(&request, planning)?) {
        Ok(simulated) => Ok(Outlook::Known(simulated)),
        Err(Refusal::NoSuchPackage(names)) if lists::any(planning.world().system())? => {
            Err(PlanError::new(format!("no source of packages has {names}")).help(
                "declare its `repository` before it, or look for its name with `apt-cache search`",
            ))
        }
        // Newer lists may know it; if not, apt says so before anything moves.
        Err(Refusal::Unknown(_) | Refusal::NoSuchPackage(_)) if installs => {
            Ok(Outlook::Unknown(Vec::new()))
        }
        Err(Refusal::Virtual(providers)) => {
            Err(PlanError::new("a name stands for a virtual package, which several provide")
                .help(format!("name one of {providers}")))
        }
        Err(refusal) => Err(PlanError::new(format!("apt refuses: {}", refusal.text()))),
    }
}

/// Gives the members their versions, drops those that have nothing to do after all, and answers
/// what comes along, by name.
fn settle(
    group: &mut Vec<Member<'_>>,
    asking: &[usize],
    simulated: Vec<Simulated>,
    packages: &[&Package],
    plannings: &mut [Planning<'_>],
) -> Result<Vec<PackageMove>, Problems> {
    let mut problems = Problems::new();
    let mut nothing = Vec::new();
    for position in asking {
        let member = &mut group[*position];
        let one = simulated.iter().find(|one| one.name == member.step.name);
        let version = one.and_then(|one| one.after.clone());
        let before = member.step.before.as_ref().and_then(|state| state.version.clone());
        let optional = member.is_optional();
        match &mut member.step.after {
            None => {}
            Some(state) if version.is_some() && version != before => state.version = version,
            Some(state) if optional => {
                state.version = before;
                let hold = member.step.before.as_ref().map(|state| state.hold);
                let broken = plannings[member.index]
                    .world()
                    .package(&member.step.name)
                    .is_ok_and(|found| found.value.is_some_and(|entry| entry.broken));
                if hold == Some(state.hold) && !broken {
                    nothing.push(*position);
                }
            }
            Some(_) => {
                let message = format!("apt installs nothing of the name {}", member.step.name);
                let error = PlanError::new(message)
                    .help("it may be a virtual package: name the one that provides it");
                problems.push((member.index, error));
            }
        }
    }
    let named = |name: &str| asking.iter().any(|position| group[*position].step.name == name);
    let mut along_all = Vec::new();
    if let Some(first) = asking.first() {
        let index = group[*first].index;
        for one in simulated.iter().filter(|one| !named(&one.name)) {
            let current = match plannings[index].world().package(&one.name) {
                Ok(predicted) => predicted.value,
                Err(error) => {
                    problems.push((index, error.into()));
                    continue;
                }
            };
            let Some(step) = along(one, current.as_ref()) else { continue };
            let wants = |package: &&&Package| {
                let gone = matches!(package.state, Wanted::Absent | Wanted::Purged);
                package.name == one.name && !gone
            };
            if step.after.is_none()
                && let Some(package) = packages.iter().find(wants)
            {
                let message = format!("{} would be removed, which is declared", package.name);
                problems.push((index, PlanError::new(message)));
            }
            if step.after.is_some() && step.before.as_ref().is_some_and(|state| state.hold) {
                let message = format!("the held package {} would change its version", one.name);
                problems
                    .push((index, PlanError::new(message).help("declare it too, or unhold it")));
            }
            along_all.push(step);
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    for position in nothing.into_iter().rev() {
        group.remove(position);
    }
    along_all.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(along_all)
}

/// A package that comes along; none if it will be so anyway by what is planned before.
pub(super) fn along(one: &Simulated, current: Option<&PackageEntry>) -> Option<PackageMove> {
    let version = current.and_then(|entry| entry.version.as_ref());
    let unfinished = current.is_some_and(|entry| entry.broken);
    let done = match &one.after {
        Some(after) => version == Some(after) && !unfinished,
        None => version.is_none() && !(one.purge && current.is_some()),
    };
    if done {
        return None;
    }
    let hold = current.is_some_and(|entry| entry.hold);
    Some(PackageMove {
        name: one.name.clone(),
        before: current.filter(|entry| entry.version.is_some()).map(state_of),
        after: one.after.clone().map(|version| PackageState { version: Some(version), hold }),
        purge: one.purge,
        requested: false,
        source: None,
    })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::change::packages::{merge, render};
    use crate::kind::{Actor, Contents, Kind};
    use crate::world::data::FakeSystem;
    use crate::world::{Answer, ContentId, World};

    struct Nothing;

    impl Contents for Nothing {
        fn bytes(&self, _: &ContentId) -> io::Result<Arc<[u8]>> {
            Err(io::ErrorKind::NotFound.into())
        }

        fn keep(&self, bytes: Vec<u8>) -> ContentId {
            ContentId::of(&bytes)
        }
    }

    /// The transactions of each package as they are shown, and all of them as one.
    fn plan(system: &FakeSystem, names: &[&str]) -> Result<(Vec<String>, String), Vec<String>> {
        let packages: Vec<Package> = names
            .iter()
            .map(|name| serde_json::from_value(json!({ "name": name })).unwrap())
            .collect();
        assert!(packages.windows(2).all(|pair| pair[0].transaction() == pair[1].transaction()));
        let ids: Vec<ResourceId> =
            names.iter().map(|name| ResourceId::new(format!("package:{name}"))).collect();
        let user = String::from("root");
        let actor = Actor { group: user.clone(), user, root: true };
        let world = World::observed(system);
        let mut plannings: Vec<Planning<'_>> = ids
            .iter()
            .map(|id| Planning::new(id, actor.clone(), Vec::new(), &world, &Nothing))
            .collect();
        let references: Vec<&Package> = packages.iter().collect();
        if let Err(errors) = plan_transaction(&references, &mut plannings) {
            let text =
                |error: Option<PlanError>| error.map_or(String::new(), |error| error.message);
            return Err(errors.into_iter().map(text).collect());
        }
        let changes: Vec<Vec<Change>> =
            plannings.into_iter().map(|planning| planning.finish().changes).collect();
        let transactions = || {
            changes.iter().flatten().filter_map(|change| match change {
                Change::Packages(transaction) => Some(transaction),
                _ => None,
            })
        };
        let shown = |changes: &Vec<Change>| match changes.as_slice() {
            [Change::Packages(transaction)] => render(transaction),
            _ => String::new(),
        };
        let merged = merge(transactions()).map_or(String::new(), |merged| render(&merged));
        Ok((changes.iter().map(shown).collect(), merged))
    }

    fn simulating(call: &str, code: i32, output: &str, error: &str) -> FakeSystem {
        let mut system = FakeSystem::default();
        let (output, error) = (output.to_owned(), error.to_owned());
        system.put_probe(&format!("{call}*"), Answer { code, output, error });
        system.put_package(PackageEntry {
            name: String::from("curl"),
            version: Some(String::from("7")),
            broken: false,
            hold: false,
        });
        system
    }

    #[test]
    fn several_packages_are_one_transaction() {
        let options = "-q -y -o APT::Install-Recommends=true --allow-downgrades";
        let call = format!("apt-get -s {options} install -- nginx git");
        let output = "Inst nginx-common (1.22 Debian [all])\nInst git (2 Debian [amd64])\n\
                      Inst nginx (1.22 Debian [amd64])\n";
        let (each, all) =
            plan(&simulating(&call, 0, output, ""), &["curl", "nginx", "git"]).unwrap();
        let expected = [
            "",
            "+ nginx 1.22 (requested)\n+ nginx-common 1.22 (comes along)\n",
            "+ git 2 (requested)\n",
        ];
        assert_eq!(each, expected);
        let expected =
            "+ nginx 1.22 (requested)\n+ git 2 (requested)\n+ nginx-common 1.22 (comes along)\n";
        assert_eq!(all, expected);
    }

    #[test]
    fn what_fails_fails_for_those_that_need_it() {
        let system = simulating("apt-get -s", 100, "", "E: Conflicts.\n");
        let errors = plan(&system, &["curl", "nginx", "git"]).unwrap_err();
        assert_eq!(errors, ["", "apt refuses: Conflicts.", "apt refuses: Conflicts."]);
    }

    #[test]
    fn what_is_declared_does_not_go_for_another() {
        let system =
            simulating("apt-get -s", 0, "Remv curl [7]\nInst nginx (1 Debian [all])\n", "");
        let errors = plan(&system, &["curl", "nginx"]).unwrap_err();
        assert_eq!(errors, ["", "curl would be removed, which is declared"]);
    }
}
