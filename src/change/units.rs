//! Services and the manager that runs them: shown, and applied with `systemctl`.

use std::thread;
use std::time::Duration;

use super::diff::sanitize;
use super::runner::{ApplyError, Execution, Runner};
use super::{Reaction, Stop, UnitState};
use crate::world::Answer;

/// Bound of a start, reload or stop whose unit sets none or a longer one.
const TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Bound of everything else that is asked of the manager.
const QUICK: Duration = Duration::from_secs(90);

/// How long a process that says by nothing that it is ready has to live to count as started.
const SETTLING: Duration = Duration::from_millis(200);

/// What differs between two states of a unit, on one line.
pub fn render(before: &UnitState, after: &UnitState) -> String {
    let mut parts = Vec::new();
    let mut differ = |before: bool, after: bool, yes: &str, no: &str| {
        if before != after {
            let word = |state| if state { yes } else { no };
            parts.push(format!("{} → {}", word(before), word(after)));
        }
    };
    differ(before.active, after.active, "active", "inactive");
    if !after.masked {
        differ(before.enabled, after.enabled, "enabled", "disabled");
    }
    differ(before.masked, after.masked, "masked", "unmasked");
    if parts.is_empty() { String::new() } else { format!("~ {}\n", parts.join(", ")) }
}

/// Brings a unit from one state to another: what allows a start comes before it, what forbids one
/// after the stop.
pub fn apply(
    name: &str,
    before: &UnitState,
    after: &UnitState,
    stop: &Stop,
    runner: &dyn Runner,
) -> Result<(), ApplyError> {
    let systemd = Systemd { runner };
    if before.masked && !after.masked {
        systemd.order("unmask", name)?;
    }
    if before.active && !after.active {
        systemd.stop(name, stop)?;
    }
    // What a masked unit was below the mask is not known: it is said again.
    let uncovered = before.masked && !after.masked;
    if !after.masked && (uncovered || before.enabled != after.enabled) {
        let verb = if after.enabled { "enable" } else { "disable" };
        systemd.order(verb, &systemd.own_name(name)?)?;
    }
    if after.active && !before.active {
        // Its file may have been changed without the manager being told.
        if systemd.status(name)?.needs_daemon_reload {
            reload_manager(None, runner)?;
        }
        systemd.start(name, "start")?;
    }
    if after.masked && !before.masked {
        systemd.order("mask", name)?;
    }
    Ok(())
}

/// Has a running service take up what changed. One that does not run is left alone.
pub fn react(
    name: &str,
    reaction: Reaction,
    check: Option<&str>,
    stop: &Stop,
    runner: &dyn Runner,
) -> Result<(), ApplyError> {
    let systemd = Systemd { runner };
    let status = systemd.status(name)?;
    if !status.runs() {
        return Ok(());
    }
    if let Some(check) = check {
        let argv = ["/bin/sh", "-c", check].map(str::to_owned).into();
        let answer = runner.run(&Execution { timeout: Some(TIMEOUT), ..execution(argv) })?;
        if answer.code != 0 {
            let said = excerpt(&[&answer.error, &answer.output]);
            return Err(ApplyError::new(format!(
                "{name} was not touched, because `{check}` failed with exit code {}{said}",
                answer.code
            )));
        }
    }
    if status.needs_daemon_reload {
        reload_manager(None, runner)?;
    }
    match reaction {
        Reaction::Reload => systemd.start(name, "reload"),
        Reaction::Restart | Reaction::RestartCannotReload if *stop == Stop::default() => {
            systemd.start(name, "restart")
        }
        Reaction::Restart | Reaction::RestartCannotReload => {
            systemd.stop(name, stop)?;
            systemd.start(name, "start")
        }
    }
}

/// Has the service manager read its unit files again: the system's, or that of a user.
///
/// A user's manager that does not run has nothing to forget.
pub fn reload_manager(user: Option<&str>, runner: &dyn Runner) -> Result<(), ApplyError> {
    let Some(user) = user else {
        return Systemd { runner }.call(&["daemon-reload"], QUICK).map(drop);
    };
    // The shell runs as the user, who finds the manager's socket below /run/user.
    let line = "XDG_RUNTIME_DIR=/run/user/$(id -u); export XDG_RUNTIME_DIR; \
                [ -S \"$XDG_RUNTIME_DIR/systemd/private\" ] || exit 0; \
                exec systemctl --user daemon-reload";
    let argv = ["/bin/sh", "-c", line].map(str::to_owned).into();
    let answer = runner.run(&Execution { user: Some(user.to_owned()), ..execution(argv) })?;
    if answer.code == 0 {
        return Ok(());
    }
    let said = excerpt(&[&answer.error]);
    Err(ApplyError::new(format!(
        "the service manager of {user} does not read its units again{said}"
    )))
}

/// The system's service manager.
struct Systemd<'a> {
    runner: &'a dyn Runner,
}

/// What the manager says of a unit at this moment.
#[derive(Debug, Default)]
struct Status {
    id: String,
    kind: String,
    active: String,
    sub: String,
    result: String,
    restarts: u32,
    needs_daemon_reload: bool,
}

impl Status {
    fn parse(output: &str) -> Self {
        let mut status = Self::default();
        for (key, value) in output.lines().filter_map(|line| line.split_once('=')) {
            match key {
                "Id" => value.clone_into(&mut status.id),
                "Type" => value.clone_into(&mut status.kind),
                "ActiveState" => value.clone_into(&mut status.active),
                "SubState" => value.clone_into(&mut status.sub),
                "Result" => value.clone_into(&mut status.result),
                "NRestarts" => status.restarts = value.parse().unwrap_or_default(),
                "NeedDaemonReload" => status.needs_daemon_reload = value == "yes",
                _ => {}
            }
        }
        status
    }

    fn runs(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading" | "activating")
            && self.sub != "auto-restart"
    }

    /// Whether `systemctl start` returns before the process has said that it is ready.
    fn says_nothing(&self) -> bool {
        matches!(self.kind.as_str(), "simple" | "exec" | "idle")
    }
}

impl Systemd<'_> {
    /// `start`, `restart` or `reload`, which wait until the unit has done so; then it has to run.
    fn start(&self, name: &str, verb: &str) -> Result<(), ApplyError> {
        let answer = self.ask(&[verb, "--", name], TIMEOUT)?;
        if answer.code != 0 {
            return Err(self.failure(name, verb, &answer.error));
        }
        let mut status = self.status(name)?;
        if status.says_nothing() && status.runs() {
            thread::sleep(SETTLING);
            let earlier = status.restarts;
            status = self.status(name)?;
            // `start` and `restart` begin to count anew.
            let allowed = if verb == "reload" { earlier } else { 0 };
            if status.restarts > allowed {
                return Err(self.failure(
                    name,
                    verb,
                    "its process ends and is started again and again",
                ));
            }
        }
        // A task that is done is as good as one that runs.
        let done = status.kind == "oneshot" && status.result == "success";
        if status.runs() || done {
            return Ok(());
        }
        let end = format!("it is {} ({})", status.active, status.result);
        Err(self.failure(name, verb, &end))
    }

    /// Stops a unit and waits until it has.
    ///
    /// An own signal or time is laid over the unit for this one stop: sending the signal beside
    /// the manager would have it start the service again (`Restart=always`), and would not
    /// lengthen the unit's own time-out.
    fn stop(&self, name: &str, stop: &Stop) -> Result<(), ApplyError> {
        let own = *stop != Stop::default() && name.ends_with(".service");
        if !own {
            return self.order("stop", name);
        }
        let mut settings = String::from("[Service]\n");
        if let Some(signal) = &stop.signal {
            settings.push_str(&format!("KillSignal={signal}\n"));
        }
        if let Some(milliseconds) = stop.timeout {
            settings.push_str(&format!("TimeoutStopSec={milliseconds}ms\n"));
        }
        let folder = format!("/run/systemd/system/{name}.d");
        let script = |line: &str| {
            execution(["/bin/sh", "-c", line, "sh", &folder].map(str::to_owned).into())
        };
        let lay = Execution {
            stdin: Some(settings.into_bytes()),
            ..script("mkdir -p -- \"$1\" && cat > \"$1/zz-converge-stop.conf\"")
        };
        let lift =
            script("rm -f -- \"$1/zz-converge-stop.conf\"; rmdir -- \"$1\" 2>/dev/null; true");
        let answer = self.runner.run(&lay)?;
        if answer.code != 0 {
            let said = excerpt(&[&answer.error]);
            return Err(ApplyError::new(format!("{name} cannot be given its way to stop{said}")));
        }
        let patience = stop.timeout.map_or(TIMEOUT, |milliseconds| {
            TIMEOUT.max(Duration::from_millis(milliseconds).saturating_add(QUICK))
        });
        let stopped = self
            .call(&["daemon-reload"], QUICK)
            .and_then(|_| self.call(&["stop", "--", name], patience));
        self.runner.run(&lift)?;
        self.call(&["daemon-reload"], QUICK)?;
        stopped.map(drop)
    }

    fn order(&self, verb: &str, name: &str) -> Result<(), ApplyError> {
        self.call(&[verb, "--", name], TIMEOUT).map(drop)
    }

    /// The name of the unit behind an alias, which alone can be enabled: `ssh.service` where
    /// `sshd.service` is asked for.
    fn own_name(&self, name: &str) -> Result<String, ApplyError> {
        let status = self.status(name)?;
        Ok(if status.id.is_empty() { name.to_owned() } else { status.id })
    }

    fn status(&self, name: &str) -> Result<Status, ApplyError> {
        const PROPERTIES: &str =
            "--property=Id,Type,ActiveState,SubState,Result,NRestarts,NeedDaemonReload";
        let answer = self.call(&["show", PROPERTIES, "--", name], QUICK)?;
        Ok(Status::parse(&answer.output))
    }

    /// Asks, and takes anything but success for an error.
    fn call(&self, arguments: &[&str], timeout: Duration) -> Result<Answer, ApplyError> {
        let answer = self.ask(arguments, timeout)?;
        if answer.code == 0 {
            return Ok(answer);
        }
        let said = excerpt(&[&answer.error]);
        Err(ApplyError::new(format!("`systemctl {}` failed{said}", arguments.join(" "))))
    }

    fn ask(&self, arguments: &[&str], timeout: Duration) -> Result<Answer, ApplyError> {
        let argv = ["systemctl"].iter().chain(arguments).map(ToString::to_string).collect();
        self.runner.run(&Execution { timeout: Some(timeout), ..execution(argv) })
    }

    /// What went wrong, with the end of the unit's log.
    fn failure(&self, name: &str, verb: &str, what: &str) -> ApplyError {
        let unit = format!("--unit={name}");
        let argv = ["journalctl", &unit, "--lines=20", "--no-pager", "--quiet", "--output=cat"];
        let argv = argv.map(str::to_owned).into();
        let log = self.runner.run(&execution(argv)).map(|answer| answer.output).unwrap_or_default();
        let what = what.lines().next().unwrap_or_default().trim_end_matches('.');
        let log = excerpt(&[&log]);
        ApplyError::new(format!("{name} does not {verb}: {what}{log}"))
    }
}

fn execution(argv: Vec<String>) -> Execution {
    Execution {
        argv,
        user: None,
        cwd: None,
        environment: vec![
            (String::from("LC_ALL"), String::from("C")),
            (String::from("SYSTEMD_COLORS"), String::from("0")),
        ],
        stdin: None,
        timeout: Some(QUICK),
    }
}

/// The last lines of what programs said, each on a line of its own and indented; nothing if they
/// said nothing.
fn excerpt(outputs: &[&str]) -> String {
    let lines: Vec<_> = outputs
        .iter()
        .flat_map(|output| output.lines())
        .filter(|line| !line.trim().is_empty())
        .collect();
    let mut text = String::new();
    for line in lines.iter().skip(lines.len().saturating_sub(20)) {
        text.push_str("\n  ");
        sanitize(line.trim_end(), &mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Answers by the beginning of the command, in turn, and remembers what was run.
    struct Script {
        answers: Mutex<Vec<(&'static str, i32, &'static str)>>,
        ran: Mutex<Vec<String>>,
    }

    impl Script {
        fn new(answers: &[(&'static str, i32, &'static str)]) -> Self {
            Self { answers: Mutex::new(answers.to_vec()), ran: Mutex::default() }
        }

        /// All but the questions.
        fn ran(&self) -> String {
            let ran = self.ran.lock().unwrap();
            let told: Vec<_> =
                ran.iter().filter(|line| !line.starts_with("systemctl show")).cloned().collect();
            told.join("\n")
        }
    }

    impl Runner for Script {
        fn run(&self, execution: &Execution) -> Result<Answer, ApplyError> {
            let line = execution.argv.join(" ");
            let mut answers = self.answers.lock().unwrap();
            let found = answers.iter().position(|(begin, ..)| line.starts_with(begin));
            self.ran.lock().unwrap().push(line);
            let (code, text) = match found {
                Some(place) => {
                    let (_, code, text) = answers.remove(place);
                    (code, text)
                }
                None => (0, ""),
            };
            let (output, error) = if code == 0 { (text, "") } else { ("", text) };
            Ok(Answer { code, output: output.to_owned(), error: error.to_owned() })
        }
    }

    const RUNS: (&str, i32, &str) = (
        "systemctl show",
        0,
        "Type=notify\nActiveState=active\nSubState=running\nResult=success\n",
    );

    fn state(active: bool, enabled: bool, masked: bool) -> UnitState {
        UnitState { active, enabled, masked }
    }

    #[test]
    fn what_allows_a_start_comes_before_it_and_what_forbids_it_after_the_stop() {
        let stop = Stop { signal: Some(String::from("SIGQUIT")), timeout: Some(60_000) };
        let none = Stop::default();
        let cases = [
            (
                state(false, false, false),
                state(true, true, false),
                &none,
                "systemctl enable -- a.service\nsystemctl start -- a.service",
                "~ inactive → active, disabled → enabled\n",
            ),
            (
                state(false, false, true),
                state(true, false, false),
                &none,
                "systemctl unmask -- a.service\nsystemctl disable -- a.service\n\
                 systemctl start -- a.service",
                "~ inactive → active, masked → unmasked\n",
            ),
            (
                state(true, true, false),
                state(false, false, true),
                &none,
                "systemctl stop -- a.service\nsystemctl mask -- a.service",
                "~ active → inactive, unmasked → masked\n",
            ),
            (
                state(true, true, false),
                state(false, true, false),
                &stop,
                "/bin/sh -c mkdir -p -- \"$1\" && cat > \"$1/zz-converge-stop.conf\" sh \
                 /run/systemd/system/a.service.d\n\
                 systemctl daemon-reload\n\
                 systemctl stop -- a.service\n\
                 /bin/sh -c rm -f -- \"$1/zz-converge-stop.conf\"; rmdir -- \"$1\" 2>/dev/null; true \
                 sh /run/systemd/system/a.service.d\n\
                 systemctl daemon-reload",
                "~ active → inactive\n",
            ),
        ];
        for (before, after, stop, commands, shown) in cases {
            let script = Script::new(&[RUNS, RUNS, RUNS]);
            apply("a.service", &before, &after, stop, &script).unwrap();
            assert_eq!(script.ran(), commands);
            assert_eq!(render(&before, &after), shown);
        }
    }

    #[test]
    fn a_start_that_fails_shows_the_end_of_the_log() {
        let simple = ("systemctl show", 0, "Type=simple\nActiveState=active\nSubState=running\n");
        let failed = ("systemctl show", 0, "Type=simple\nActiveState=failed\nResult=exit-code\n");
        let again = (
            "systemctl show",
            0,
            "Type=simple\nActiveState=active\nSubState=running\nNRestarts=1\n",
        );
        let task = ("systemctl show", 0, "Type=oneshot\nActiveState=inactive\nResult=success\n");
        let log = ("journalctl", 0, "no database\n");
        let refused = ("systemctl start", 1, "Job for a.service failed.\nSee more.\n");
        let cases = [
            (vec![RUNS], None),
            (vec![task], None),
            (vec![simple, simple], None),
            (vec![refused, log], Some("does not start: Job for a.service failed\n  no database")),
            (vec![simple, failed, log], Some("it is failed (exit-code)\n  no database")),
            (vec![simple, again, log], Some("again and again\n  no database")),
        ];
        for (answers, expected) in cases {
            let script = Script::new(&answers);
            let result = Systemd { runner: &script }.start("a.service", "start");
            match (result, expected) {
                (Ok(()), None) => {}
                (Err(error), Some(part)) => {
                    let text = error.to_string();
                    assert!(text.contains(part), "{text}");
                }
                (result, expected) => panic!("{result:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn a_reaction_is_checked_first_and_a_stopped_service_never_reacts() {
        let stopped = ("systemctl show", 0, "Type=notify\nActiveState=inactive\n");
        let stale =
            ("systemctl show", 0, "Type=notify\nActiveState=active\nNeedDaemonReload=yes\n");
        let invalid = ("/bin/sh -c nginx -t", 1, "unknown directive\n");
        let cases = [
            (
                vec![RUNS, RUNS],
                Reaction::Reload,
                true,
                "/bin/sh -c nginx -t\nsystemctl reload -- a.service",
            ),
            (vec![stopped], Reaction::Restart, true, ""),
            (vec![RUNS, invalid], Reaction::Reload, false, "/bin/sh -c nginx -t"),
            (
                vec![stale, RUNS],
                Reaction::RestartCannotReload,
                true,
                "/bin/sh -c nginx -t\nsystemctl daemon-reload\nsystemctl restart -- a.service",
            ),
        ];
        for (answers, reaction, succeeds, commands) in cases {
            let script = Script::new(&answers);
            let result = react("a.service", reaction, Some("nginx -t"), &Stop::default(), &script);
            assert_eq!(result.is_ok(), succeeds);
            assert_eq!(script.ran(), commands);
        }
    }
}
