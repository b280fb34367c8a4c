//! Transactions of the package manager: shown, merged, compared, and applied with apt-get.

mod apt;

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use super::diff::sanitize;
use super::runner::{ApplyError, Execution, Runner};
use super::{PackageMove, PackageState, PackageTransaction};
use crate::world::Answer;

pub use apt::{Refusal, Request, Simulated, parse_simulation};

/// Bound of one transaction: downloads may be large, and maintainer scripts slow.
const TRANSACTION: Duration = Duration::from_secs(3600);
/// Bound of fetching the lists.
const UPDATE: Duration = Duration::from_secs(900);
/// Bound of everything else.
const QUICK: Duration = Duration::from_secs(300);
/// Attempts at fetching the lists.
const UPDATES: u32 = 3;
/// Pause before another attempt, and between two looks at a held lock.
const PAUSE: Duration = Duration::from_secs(2);

/// A transaction in lines of `+`, `-` and `~`. Answers to questions are named and never shown.
pub fn render(transaction: &PackageTransaction) -> String {
    let mut text = String::new();
    if transaction.refresh_lists {
        text.push_str(
            "the package lists are fetched first; what is needed beyond this comes along\n",
        );
    }
    for step in &transaction.moves {
        sanitize(&line(step, transaction.upgrade_all), &mut text);
        text.push('\n');
    }
    if transaction.upgrade_all && transaction.moves.is_empty() {
        text.push_str("~ all packages that have an upgrade\n");
    }
    if let Some(release) = &transaction.release {
        sanitize(&format!("from the release {release}"), &mut text);
        text.push('\n');
    }
    for (package, question, _, _) in &transaction.debconf {
        sanitize(&format!("~ answer to {question} of {package}"), &mut text);
        text.push('\n');
    }
    text
}

fn line(step: &PackageMove, upgrade_all: bool) -> String {
    let name = &step.name;
    let remark = match (&step.source, step.requested) {
        (Some(path), _) => format!(" (from {path})"),
        (None, true) if upgrade_all => String::new(),
        (None, true) => String::from(" (requested)"),
        (None, false) => String::from(" (comes along)"),
    };
    let version = |state: &PackageState| state.version.clone().unwrap_or_else(|| String::from("?"));
    match (&step.before, &step.after) {
        (None, None) => format!("- {name} (its configuration)"),
        (None, Some(after)) => {
            let held = if after.hold { ", held" } else { "" };
            match &after.version {
                Some(version) => format!("+ {name} {version}{held}{remark}"),
                None => format!("+ {name}{held}{remark}"),
            }
        }
        (Some(before), None) => {
            let purged = if step.purge { " and its configuration" } else { "" };
            format!("- {name} {}{purged}{remark}", version(before))
        }
        (Some(before), Some(after)) => {
            let mut text = format!("~ {name} {}", version(before));
            if apt::moves(step) {
                let _ = write!(text, " → {}", version(after));
            }
            match (before.hold, after.hold) {
                (false, true) => text.push_str(", held from now on"),
                (true, false) => text.push_str(", no longer held"),
                _ if !apt::moves(step) => text.push_str(", its installation is finished"),
                _ => {}
            }
            text + &remark
        }
    }
}

/// Makes one transaction of those that adjacent states have planned; none of no transactions.
///
/// They were planned with one simulation, and have the same options.
pub fn merge<'a>(
    transactions: impl IntoIterator<Item = &'a PackageTransaction>,
) -> Option<PackageTransaction> {
    let mut transactions = transactions.into_iter();
    let mut merged = transactions.next()?.clone();
    for other in transactions {
        merged.moves.extend(other.moves.iter().cloned());
        merged.debconf.extend(other.debconf.iter().cloned());
        merged.refresh_lists |= other.refresh_lists;
        merged.upgrade_all |= other.upgrade_all;
    }
    // Stable: what is requested keeps the order of the file.
    merged.moves.sort_by(|left, right| {
        right.requested.cmp(&left.requested).then_with(|| {
            if left.requested { std::cmp::Ordering::Equal } else { left.name.cmp(&right.name) }
        })
    });
    Some(merged)
}

/// Whether a transaction that is planned anew stays within the one that was announced: versions
/// that were not known may be known by now, and less may be left to do.
pub fn is_within(now: &PackageTransaction, announced: &PackageTransaction) -> bool {
    let options = now.manager == announced.manager
        && now.recommends == announced.recommends
        && now.release == announced.release
        && now.upgrade_all == announced.upgrade_all
        && now.debconf == announced.debconf
        && (announced.refresh_lists || !now.refresh_lists);
    let mut moves = now.moves.iter();
    options
        && moves.all(|step| {
            let version = |state: &Option<PackageState>| {
                state.as_ref().and_then(|state| state.version.clone())
            };
            let simulated = Simulated {
                name: step.name.clone(),
                before: version(&step.before),
                after: version(&step.after),
                purge: step.purge,
            };
            let planned = announced.moves.iter().find(|planned| planned.name == step.name);
            let hold = |step: &PackageMove| step.after.as_ref().map(|state| state.hold);
            match planned {
                // Versions are not known on either side, or known on both.
                Some(planned) => {
                    step.after.is_some() == planned.after.is_some()
                        && hold(step) == hold(planned)
                        && step.source == planned.source
                        && (simulated.after.is_none() || permits(announced, &simulated))
                }
                None => !step.requested && permits(announced, &simulated),
            }
        })
}

/// Whether a transaction announces what apt would do with one package.
fn permits(announced: &PackageTransaction, simulated: &Simulated) -> bool {
    if simulated.before.is_some() && simulated.before == simulated.after {
        return true; // only its configuration is finished, as the repair does anyway
    }
    match announced.moves.iter().find(|step| step.name == simulated.name) {
        Some(step) => match (&step.after, &simulated.after) {
            (Some(state), Some(version)) => {
                state.version.as_ref().is_none_or(|planned| planned == version)
            }
            (None, None) => step.purge || !simulated.purge,
            _ => false,
        },
        // What comes along was not known; that something would go, is never taken for granted.
        None => {
            let open =
                announced.refresh_lists || announced.moves.iter().any(|step| step.source.is_some());
            open && simulated.after.is_some()
        }
    }
}

/// Carries a transaction out as root.
///
/// Before anything moves, it is simulated once more; if apt would now do something that was not
/// announced, nothing is done. Whether all is there in the end is for the caller to see.
pub fn apply(transaction: &PackageTransaction, runner: &dyn Runner) -> Result<(), ApplyError> {
    let apt = Apt { runner };
    apt.repair()?;
    let mut update = None;
    if transaction.refresh_lists {
        update = Some(apt.update()?);
    }
    apt.answer(&transaction.debconf)?;
    if let Some(request) = Request::of(transaction) {
        apt.check(&request, transaction, update.as_deref())?;
        let mut answer = apt.act(&request)?;
        if answer.code != 0 && update.is_none() && cannot_fetch(&answer) {
            // The lists name what the archive no longer has.
            let update = apt.update()?;
            apt.check(&request, transaction, Some(&update))?;
            answer = apt.act(&request)?;
        }
        if answer.code != 0 {
            return Err(ended_badly("apt-get", &answer));
        }
    }
    apt.mark(transaction)
}

/// The programs that change packages.
struct Apt<'a> {
    runner: &'a dyn Runner,
}

impl Apt<'_> {
    /// Finishes what an interrupted run of dpkg has left.
    fn repair(&self) -> Result<(), ApplyError> {
        let audit = self.runner.run(&execution(["dpkg", "--audit"], QUICK))?;
        if audit.code == 0 && audit.output.trim().is_empty() {
            return Ok(());
        }
        let argv = ["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"];
        let answer = self.patiently(&execution(argv, TRANSACTION))?;
        if answer.code == 0 { Ok(()) } else { Err(ended_badly("dpkg --configure -a", &answer)) }
    }

    /// Fetches the lists; says what went wrong with single ones, whose old state is then used.
    fn update(&self) -> Result<String, ApplyError> {
        let argv = ["apt-get", "-q", "-o", "Acquire::Retries=3", "update"];
        let mut attempt = 1;
        loop {
            let answer = self.patiently(&execution(argv, UPDATE))?;
            if answer.code == 0 {
                return Ok(answer.error);
            }
            if attempt == UPDATES {
                return Err(ended_badly("apt-get update", &answer));
            }
            attempt += 1;
            thread::sleep(PAUSE);
        }
    }

    /// Sets answers to questions before they are asked (debconf-set-selections(1)).
    fn answer(&self, answers: &[(String, String, String, String)]) -> Result<(), ApplyError> {
        if answers.is_empty() {
            return Ok(());
        }
        let mut lines = String::new();
        for (package, question, kind, value) in answers {
            let _ = writeln!(lines, "{package} {question} {kind} {value}");
        }
        let call = Execution {
            stdin: Some(lines.into_bytes()),
            ..execution(["debconf-set-selections"], QUICK)
        };
        let answer = self.patiently(&call)?;
        // What it says may hold a value.
        if answer.code == 0 {
            Ok(())
        } else {
            Err(ApplyError::new(format!("debconf-set-selections ended with code {}", answer.code)))
        }
    }

    /// An error unless apt would do what was announced, and nothing else.
    fn check(
        &self,
        request: &Request,
        transaction: &PackageTransaction,
        update: Option<&str>,
    ) -> Result<(), ApplyError> {
        let call = Execution { argv: request.simulation(), ..execution([], QUICK) };
        let simulated = match parse_simulation(&self.runner.run(&call)?) {
            Ok(simulated) => simulated,
            Err(refusal) => {
                let mut message = String::from("apt refuses: ");
                match &refusal {
                    Refusal::Virtual(providers) => {
                        let _ = write!(message, "several packages provide it: {providers}");
                    }
                    other => sanitize(other.text(), &mut message),
                }
                let complaints = update.unwrap_or_default().lines().filter(|line| !line.is_empty());
                for complaint in complaints.take(5) {
                    message.push('\n');
                    sanitize(complaint, &mut message);
                }
                return Err(ApplyError::new(message));
            }
        };
        if simulated.iter().all(|one| permits(transaction, one)) {
            return Ok(());
        }
        let mut message = String::from("apt would do something else than planned\nplanned:\n");
        for step in &transaction.moves {
            message.push_str("  ");
            sanitize(&line(step, transaction.upgrade_all), &mut message);
            message.push('\n');
        }
        message.push_str("now:");
        for one in &simulated {
            let state =
                |version: &String| PackageState { version: Some(version.clone()), hold: false };
            let step = PackageMove {
                name: one.name.clone(),
                before: one.before.as_ref().map(state),
                after: one.after.as_ref().map(state),
                purge: one.purge,
                requested: true,
                source: None,
            };
            message.push_str("\n  ");
            sanitize(&line(&step, true), &mut message);
        }
        if update.is_some() && !transaction.refresh_lists {
            message
                .push_str("\nthe package lists were out of date and are fetched now: plan again");
        }
        Err(ApplyError::new(message))
    }

    fn act(&self, request: &Request) -> Result<Answer, ApplyError> {
        let call = Execution { argv: request.action(), ..execution([], TRANSACTION) };
        self.patiently(&call)
    }

    /// Holds packages at their versions, or lets them go. Moving a held package may have dropped
    /// its mark, so that it is set again.
    fn mark(&self, transaction: &PackageTransaction) -> Result<(), ApplyError> {
        let held = |state: &Option<PackageState>| state.as_ref().is_some_and(|state| state.hold);
        let names = |wanted: &dyn Fn(&PackageMove) -> bool| -> Vec<String> {
            transaction
                .moves
                .iter()
                .filter(|step| wanted(step))
                .map(|step| step.name.clone())
                .collect()
        };
        let hold = names(&|step| held(&step.after));
        let unhold =
            names(&|step| held(&step.before) && step.after.is_some() && !held(&step.after));
        for (verb, names) in [("hold", hold), ("unhold", unhold)] {
            if names.is_empty() {
                continue;
            }
            let mut call = execution(["apt-mark", verb], QUICK);
            call.argv.extend(names);
            let answer = self.patiently(&call)?;
            if answer.code != 0 {
                return Err(ended_badly(&format!("apt-mark {verb}"), &answer));
            }
        }
        Ok(())
    }

    /// Runs a program, again while another one holds a lock. apt-get itself waits for dpkg's lock
    /// only, not for the one of the lists.
    fn patiently(&self, call: &Execution) -> Result<Answer, ApplyError> {
        let mut waited = Duration::ZERO;
        loop {
            let answer = self.runner.run(call)?;
            let patient = waited < Duration::from_secs(apt::LOCK_SECONDS.into());
            if answer.code == 0 || !patient || !is_locked(&answer) {
                return Ok(answer);
            }
            thread::sleep(PAUSE);
            waited += PAUSE;
        }
    }
}

fn execution<const N: usize>(argv: [&str; N], timeout: Duration) -> Execution {
    let environment = [
        ("LC_ALL", "C.UTF-8"),
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("DEBIAN_PRIORITY", "critical"),
        ("APT_LISTCHANGES_FRONTEND", "none"),
        ("UCF_FORCE_CONFFOLD", "1"),
        // Services restart when the plan says so.
        ("NEEDRESTART_SUSPEND", "1"),
    ];
    Execution {
        argv: argv.iter().map(ToString::to_string).collect(),
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        timeout: Some(timeout),
        ..Execution::default()
    }
}

fn is_locked(answer: &Answer) -> bool {
    [
        "locked by another process",
        "Could not get lock",
        "Unable to lock",
        "Unable to acquire the dpkg",
    ]
    .iter()
    .any(|text| answer.error.contains(text))
}

/// Whether the archive did not have what the lists say; nothing was unpacked then.
fn cannot_fetch(answer: &Answer) -> bool {
    ["E: Unable to fetch some archives", "E: Failed to fetch"]
        .iter()
        .any(|text| answer.error.lines().any(|line| line.starts_with(text)))
}

/// What a program said when it failed: its errors and the last lines before them.
fn ended_badly(what: &str, answer: &Answer) -> ApplyError {
    let mut message = format!("{what} ended with code {}", answer.code);
    for output in [&answer.output, &answer.error] {
        let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
        for line in &lines[lines.len().saturating_sub(12)..] {
            message.push_str("\n  ");
            sanitize(line.trim_end(), &mut message);
        }
    }
    ApplyError::new(message)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::change::PackageManager;

    fn state(version: &str, hold: bool) -> Option<PackageState> {
        let version = (version != "?").then(|| version.to_owned());
        Some(PackageState { version, hold })
    }

    fn step(
        name: &str,
        before: Option<PackageState>,
        after: Option<PackageState>,
        requested: bool,
    ) -> PackageMove {
        PackageMove { name: name.to_owned(), before, after, purge: false, requested, source: None }
    }

    fn transaction(moves: Vec<PackageMove>) -> PackageTransaction {
        PackageTransaction {
            manager: PackageManager::Apt,
            moves,
            recommends: true,
            release: None,
            debconf: Vec::new(),
            refresh_lists: false,
            upgrade_all: false,
        }
    }

    fn nginx() -> PackageTransaction {
        transaction(vec![
            step("nginx", None, state("1.22", false), true),
            step("nginx-common", None, state("1.22", false), false),
        ])
    }

    const SIMULATED: &str =
        "Inst nginx-common (1.22 Debian [all])\nInst nginx (1.22 Debian [amd64])\n";

    /// Answers what is scripted for the first words of a command line, in turn; 0 otherwise.
    struct Script {
        answers: RefCell<Vec<(&'static str, Answer)>>,
        calls: RefCell<Vec<String>>,
    }

    impl Script {
        fn of(answers: &[(&'static str, i32, &str, &str)]) -> Self {
            let answers = answers.iter().map(|(call, code, output, error)| {
                let (output, error) = ((*output).to_owned(), (*error).to_owned());
                (*call, Answer { code: *code, output, error })
            });
            Self { answers: RefCell::new(answers.collect()), calls: RefCell::default() }
        }

        /// Verbs of the calls, in their order.
        fn calls(&self) -> Vec<String> {
            self.calls.borrow().clone()
        }
    }

    impl Runner for Script {
        fn run(&self, execution: &Execution) -> Result<Answer, ApplyError> {
            let words: Vec<&str> = execution
                .argv
                .iter()
                .map(String::as_str)
                .filter(|word| {
                    ["-s", "-a", "--audit"].contains(word)
                        || !(word.starts_with('-') || word.contains("::"))
                })
                .collect();
            let call = words.join(" ");
            self.calls.borrow_mut().push(call.clone());
            let mut answers = self.answers.borrow_mut();
            let found = answers.iter().position(|(wanted, _)| call.starts_with(wanted));
            Ok(match found {
                Some(at) => answers.remove(at).1,
                None => Answer { code: 0, output: String::new(), error: String::new() },
            })
        }
    }

    #[test]
    fn a_transaction_is_simulated_and_then_done() {
        let script = Script::of(&[("apt-get -s install", 0, SIMULATED, "")]);
        apply(&nginx(), &script).unwrap();
        let expected =
            ["dpkg --audit", "apt-get -s install nginx=1.22", "apt-get install nginx=1.22"];
        assert_eq!(script.calls(), expected);
    }

    #[test]
    fn what_was_not_announced_is_not_done() {
        let output = format!("Remv apache2 [2.4]\n{SIMULATED}");
        let script = Script::of(&[("apt-get -s install", 0, &output, "")]);
        let error = apply(&nginx(), &script).unwrap_err().to_string();
        let expected = "\
apt would do something else than planned
planned:
  + nginx 1.22 (requested)
  + nginx-common 1.22 (comes along)
now:
  - apache2 2.4
  + nginx-common 1.22
  + nginx 1.22";
        assert_eq!(error, expected);
        assert!(!script.calls().iter().any(|call| call.starts_with("apt-get install")));
    }

    #[test]
    fn stale_lists_are_fetched_and_looked_at_again() {
        let gone = "E: Failed to fetch http://example.com/nginx.deb  404  Not Found\n";
        let script = Script::of(&[
            ("apt-get -s install", 0, SIMULATED, ""),
            ("apt-get install", 100, "", gone),
            ("apt-get -s install", 100, "", "E: Version '1.22' for 'nginx' was not found\n"),
        ]);
        let error = apply(&nginx(), &script).unwrap_err().to_string();
        assert_eq!(error, "apt refuses: Version '1.22' for 'nginx' was not found");
        assert!(script.calls().contains(&String::from("apt-get update")));
    }

    #[test]
    fn an_interrupted_dpkg_is_repaired_and_marks_are_set() {
        let held = transaction(vec![
            step("a", state("1", false), state("1", true), true),
            step("b", state("1", true), state("1", false), true),
        ]);
        let script =
            Script::of(&[("dpkg --audit", 0, "The following packages are only half…\n", "")]);
        apply(&held, &script).unwrap();
        assert_eq!(
            script.calls(),
            ["dpkg --audit", "dpkg -a", "apt-mark hold a", "apt-mark unhold b"]
        );
    }

    #[test]
    fn a_transaction_is_shown_line_by_line() {
        let mut all = transaction(vec![
            step("new", None, state("1", true), true),
            step("unknown", None, state("?", false), true),
            step("up", state("1", false), state("2", false), true),
            step("gone", state("1", false), None, true),
            step("held", state("1", false), state("1", true), true),
            step("half", state("1", false), state("1", false), false),
        ]);
        all.debconf.push(("new".into(), "new/secret".into(), "password".into(), "hunter2".into()));
        let expected = "\
+ new 1, held (requested)
+ unknown (requested)
~ up 1 → 2 (requested)
- gone 1 (requested)
~ held 1, held from now on (requested)
~ half 1, its installation is finished (comes along)
~ answer to new/secret of new
";
        assert_eq!(render(&all), expected);
    }

    #[test]
    fn what_was_announced_bounds_what_is_done() {
        let announced = |refresh_lists| PackageTransaction {
            refresh_lists,
            ..transaction(vec![step("nginx", None, state("?", false), true)])
        };
        let removing = transaction(vec![step("nginx", state("1", false), None, true)]);
        let cases = [
            (nginx(), nginx(), true),
            (nginx(), announced(true), true),
            (nginx(), announced(false), false),
            (removing.clone(), nginx(), false),
            (transaction(Vec::new()), nginx(), true),
            (PackageTransaction { recommends: false, ..nginx() }, nginx(), false),
            (transaction(vec![step("nginx", None, state("1.23", false), true)]), nginx(), false),
            (announced(true), announced(true), true),
            (removing.clone(), removing, true),
        ];
        for (now, announced, expected) in cases {
            assert_eq!(is_within(&now, &announced), expected, "{now:#?}\n{announced:#?}");
        }
    }

    #[test]
    fn adjacent_transactions_are_one() {
        let other = transaction(vec![
            step("curl", None, state("7", false), true),
            step("libcurl4", None, state("7", false), false),
        ]);
        let merged = merge([&nginx(), &other]).unwrap();
        let names: Vec<_> = merged.moves.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["nginx", "curl", "libcurl4", "nginx-common"]);
        assert_eq!(merge([]), None);
    }
}
