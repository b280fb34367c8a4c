use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};

use super::arguments::{ConnectionArguments, ConvergeArguments, OutputArguments, PlanArguments};
use super::declaring::Declaring;
use super::keys::recipients;
use super::load::{Loaded, load};
use super::prompt::Terminal;
use super::rollback::with_rollback;
use super::sandbox::Hosts;
use super::screen::{Screen, show};
use super::{
    CliError, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_PENDING, EXIT_REFUSED, EXIT_ROLLED_BACK,
    EXIT_USAGE, Surroundings,
};
use crate::diagnostic::Diagnostics;
use crate::fleet::{
    self, Ended, HostLimits, HostPlan, HostRun, PlanFile, Plans, Purpose, Reach, Reachable, Run,
    SavedHost, SavedPlan,
};
use crate::inventory::{Connection, ConnectionKind};
use crate::report::{self, Event, RunInfo};
use crate::secret::Recipients;
use crate::ssh::{AgentProgram, Client, Environment, Password, Privilege, Request};
use crate::wire::PlanOptions;

/// Hosts at the same time, if nothing else is said.
const FORKS: usize = 50;

/// Converges, or only plans.
pub(super) fn run(
    surroundings: &Surroundings,
    arguments: &ConvergeArguments,
) -> Result<u8, CliError> {
    let dry_run = arguments.output.dry_run;
    report_refusal(surroundings, arguments, dry_run, |begun| {
        converge(surroundings, arguments, dry_run, None, begun)
    })
}

/// Only plans, and saves the plan if that is asked for.
pub(super) fn plan(surroundings: &Surroundings, arguments: &PlanArguments) -> Result<u8, CliError> {
    let saving = arguments.out.as_deref().map(|file| Saving {
        file,
        key: arguments.sign.as_deref(),
        recipients: &arguments.recipient,
    });
    report_refusal(surroundings, &arguments.converge, true, |begun| {
        converge(surroundings, &arguments.converge, true, saving, begun)
    })
}

/// Where a document was asked for, there is one also if the input is refused.
fn report_refusal(
    surroundings: &Surroundings,
    arguments: &ConvergeArguments,
    dry_run: bool,
    run: impl FnOnce(&mut bool) -> Result<u8, CliError>,
) -> Result<u8, CliError> {
    let mut begun = false;
    let result = run(&mut begun);
    if let Err(error) = &result
        && !begun
        && arguments.output.format == "json"
    {
        let errors = match error {
            CliError::Refused(errors) => errors.clone(),
            other => vec![other.to_string()],
        };
        surroundings.print(&report::refused(
            &arguments.source.inventory.join("+"),
            arguments.state_file.as_deref().unwrap_or_default(),
            dry_run,
            i32::from(error.exit_code()),
            &errors,
        ))?;
    }
    result
}

/// The same; `begun` turns true once the events of the run are reported.
fn converge(
    surroundings: &Surroundings,
    arguments: &ConvergeArguments,
    dry_run: bool,
    saving: Option<Saving<'_>>,
    begun: &mut bool,
) -> Result<u8, CliError> {
    if arguments.source.untrusted && !dry_run {
        let message = "--untrusted is for plans: add --dry-run, or use `converge plan`";
        return Err(CliError::Usage(message.to_owned()));
    }
    if arguments.source.untrusted {
        bound_memory();
    }
    let loaded = load(surroundings, arguments)?;
    if arguments.list_hosts {
        let hosts = loaded.compilation.hosts();
        return surroundings.print(&lines(hosts.iter().map(String::as_str))).map(|()| EXIT_OK);
    }
    if arguments.list_tags {
        let plays = &loaded.compilation.program.plays;
        let tags: std::collections::BTreeSet<String> =
            plays.iter().flat_map(|play| play.tag_listing()).collect();
        return surroundings.print(&lines(tags.iter().map(String::as_str))).map(|()| EXIT_OK);
    }
    let recipients = match &saving {
        Some(saving) => recipients(surroundings, &loaded.project.root, saving.recipients)?,
        None => Recipients::default(),
    };
    let mut screen = Screen::open(surroundings, &arguments.output, dry_run)?;
    let hosts = Hosts::boot(surroundings, &loaded, true)?;
    let prepared = prepare(surroundings, &arguments.connection, &arguments.output, loaded, &hosts)?;
    *begun = true;
    let plans = saving.is_some().then(Plans::default);
    let errand = Errand {
        dry_run,
        wait: arguments.wait && !dry_run,
        plans: plans.clone(),
        ..Errand::default()
    };
    let (ended, diagnostics) =
        with_rollback(surroundings, &prepared, &errand, &mut |event| screen.event(event))?;
    show(surroundings, &prepared.loaded.compilation.sources, &diagnostics)?;
    if let (Some(saving), Some(plans)) = (saving, plans) {
        if ended.failed || ended.interrupted || ended.refused {
            surroundings.complain("the plan was not saved: it does not cover all hosts");
        } else {
            let source = &arguments.source.inventory;
            save(surroundings, &prepared, source, &plans, &saving, &recipients)?;
        }
    }
    // The process ends here: taking large graphs apart piece by piece would only cost time.
    std::mem::forget(prepared);
    Ok(exit_code(ended, dry_run, arguments.output.exit_code))
}

/// Most bytes of memory in which a stranger's project is planned: a short template can double a text
/// again and again.
const UNTRUSTED_MEMORY: u64 = 2 << 30;

/// Lets the kernel end this process instead of the machine's others.
pub(super) fn bound_memory() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Data);
    limit.current = Some(limit.maximum.unwrap_or(u64::MAX).min(UNTRUSTED_MEMORY));
    // Where that cannot be, the limits of templates and files hold all the same.
    let _ = setrlimit(Resource::Data, limit);
}

fn lines<'a>(items: impl Iterator<Item = &'a str>) -> String {
    items.map(|item| format!("{item}\n")).collect()
}

/// The process's exit code for how a run ended.
pub(super) fn exit_code(ended: Ended, dry_run: bool, wanted: bool) -> u8 {
    if ended.rolled_back {
        EXIT_ROLLED_BACK
    } else if ended.interrupted {
        EXIT_INTERRUPTED
    } else if ended.refused {
        EXIT_USAGE
    } else if ended.declined {
        EXIT_REFUSED
    } else if ended.failed {
        EXIT_FAILED
    } else if dry_run && wanted && ended.changed {
        EXIT_PENDING
    } else {
        EXIT_OK
    }
}

/// All that a run of the fleet needs; can be run several times.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) loaded: Arc<Loaded>,
    pub(super) reachable: Reachable,
    /// Hosts that may be asked for their facts alone.
    pub(super) beside: Arc<HashMap<String, HostRun>>,
    diff: bool,
    exit_code: bool,
}

/// What a run is to do with its hosts.
#[derive(Clone, Debug, Default)]
pub(super) struct Errand {
    /// Nothing is changed.
    pub(super) dry_run: bool,
    /// It waits for locks that other runs have.
    pub(super) wait: bool,
    /// It takes a run back.
    pub(super) undo: Option<Undo>,
    /// It does what was planned before, and nothing else.
    pub(super) apply: Option<Apply>,
    /// Takes what is planned.
    pub(super) plans: Option<Plans>,
}

/// A run that is to be taken back.
#[derive(Clone, Debug)]
pub(super) struct Undo {
    /// Which.
    pub(super) run: String,
    /// Whether what was changed since is overwritten.
    pub(super) force: bool,
    /// Only what that play has changed.
    pub(super) rollback: Option<String>,
}

/// A saved plan that is to be done.
#[derive(Clone, Debug)]
pub(super) struct Apply {
    /// By host.
    pub(super) plans: Arc<HashMap<String, Arc<HostPlan>>>,
    /// By play: whether a failed host keeps later ones from beginning.
    pub(super) any_errors_fatal: Vec<bool>,
}

impl Errand {
    pub(super) fn plan() -> Self {
        Self { dry_run: true, ..Self::default() }
    }

    pub(super) fn converge() -> Self {
        Self::default()
    }
}

/// Finds the agent's program, asks for passwords, and says how each host is reached.
pub(super) fn prepare(
    surroundings: &Surroundings,
    arguments: &ConnectionArguments,
    output: &OutputArguments,
    loaded: Loaded,
    booted: &Hosts,
) -> Result<Prepared, CliError> {
    let program = Arc::new(agent_program(surroundings)?);
    let terminal = Arc::new(Terminal { present: surroundings.error_terminal });
    let login_password = arguments.ask_pass.then(|| terminal.secret("SSH password")).transpose()?;
    let become_password =
        arguments.ask_become_pass.then(|| terminal.secret("sudo password")).transpose()?;
    let mut environment =
        Environment::new(surroundings.home.clone(), surroundings.user.clone(), surroundings.clock);
    environment.user_id = surroundings.user_id;
    environment.host_name.clone_from(&surroundings.host_name);
    environment.agent = surroundings.variable("SSH_AUTH_SOCK").map(PathBuf::from);
    environment.ssh_program = surroundings
        .variable("PATH")
        .and_then(|path| Environment::find_ssh(std::ffi::OsStr::new(path)));
    let client = Arc::new(Client::new(environment, terminal));
    let mut diagnostics = Diagnostics::default();
    let mut hosts = Vec::new();
    for (name, connection) in &loaded.connections {
        let becomes = loaded.outlines.get(name).is_some_and(|outline| outline.becomes);
        let secret = |node: Option<&crate::lang::yaml::Node>, diagnostics: &mut Diagnostics| {
            node.and_then(|node| loaded.compilation.password(name, node, diagnostics))
                .map(Password::new)
        };
        let privilege = if becomes {
            let stored = secret(connection.become_password.as_ref(), &mut diagnostics);
            Privilege::Sudo {
                user: String::from("root"),
                password: become_password.clone().or(stored),
            }
        } else {
            Privilege::Login
        };
        let stored = secret(connection.password.as_ref(), &mut diagnostics);
        let password = login_password.clone().or(stored);
        let reach = reach(surroundings, arguments, connection, password, booted)?;
        hosts.push(HostRun { name: name.clone(), reach, privilege });
    }
    show(surroundings, &loaded.compilation.sources, &diagnostics)?;
    let mut beside = HashMap::new();
    for (name, connection) in &loaded.beside {
        let node = connection.password.as_ref();
        let stored =
            node.and_then(|node| loaded.compilation.password(name, node, &mut diagnostics));
        let password = login_password.clone().or(stored.map(Password::new));
        if let Ok(reach) = reach(surroundings, arguments, connection, password, booted) {
            let privilege = Privilege::Login;
            beside.insert(name.clone(), HostRun { name: name.clone(), reach, privilege });
        }
    }
    let settings = &loaded.project.settings;
    Ok(Prepared {
        beside: Arc::new(beside),
        reachable: Reachable {
            hosts,
            contents: loaded.compilation.contents.clone(),
            client,
            program,
            forks: arguments.forks.map(usize::from).or(settings.forks).unwrap_or(FORKS),
            limits: HostLimits::default(),
        },
        diff: output.diff || settings.diff.unwrap_or(false) || output.format != "text",
        exit_code: output.exit_code,
        loaded: Arc::new(loaded),
    })
}

fn reach(
    surroundings: &Surroundings,
    arguments: &ConnectionArguments,
    connection: &Connection,
    password: Option<Password>,
    booted: &Hosts,
) -> Result<Reach, CliError> {
    let home = |path: &str| match (path.strip_prefix("~/"), &surroundings.home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => surroundings.directory.join(path),
    };
    Ok(match connection.kind {
        ConnectionKind::Local => Reach::Local,
        ConnectionKind::Sandbox => {
            let user = connection.user.as_deref().unwrap_or("root");
            Reach::Resolved(Box::new(booted.destination(&connection.name, user)?))
        }
        ConnectionKind::Ssh => {
            if let Some(key) = arguments.private_key.as_ref().filter(|key| !key.is_file()) {
                let message = format!("--private-key: there is no file {}", key.display());
                return Err(CliError::Usage(message));
            }
            let named = arguments
                .private_key
                .clone()
                .or_else(|| connection.identity_file.as_deref().map(home));
            Reach::Ssh(Box::new(Request {
                name: connection.name.to_string(),
                host: (connection.host != *connection.name).then(|| connection.host.clone()),
                port: connection.port,
                user: connection.user.clone(),
                identity_files: named.into_iter().collect(),
                jump: connection.jump.clone(),
                password,
                ..Request::default()
            }))
        }
    })
}

/// The agent lies beside this program, or where `CONVERGE_AGENT_DIR` says.
fn agent_program(surroundings: &Surroundings) -> Result<AgentProgram, CliError> {
    const NAME: &str = "converge-agent";
    let beside = surroundings.executable.parent().map(|folder| folder.join(NAME));
    let named =
        surroundings.variable("CONVERGE_AGENT_DIR").map(|folder| Path::new(folder).join(NAME));
    let machine = env!("CONVERGE_TARGET").split('-').next().unwrap_or("x86_64");
    let candidates: Vec<PathBuf> = named.into_iter().chain(beside).collect();
    let found = candidates.iter().find(|path| path.is_file()).ok_or_else(|| {
        let places: Vec<String> =
            candidates.iter().map(|path| path.display().to_string()).collect();
        CliError::Machine(format!(
            "the agent's program was not found as {}\n  help: `cargo build` makes it beside converge; \
             elsewhere set CONVERGE_AGENT_DIR to its folder",
            places.join(" or ")
        ))
    })?;
    AgentProgram::read(found, "Linux", machine)
        .map_err(|error| CliError::Machine(error.to_string()))
}

/// The threads on which connections are served.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).min(8))
        .enable_all()
        .build()
        .map_err(|error| CliError::Machine(format!("threads cannot be started: {error}")))
}

/// Runs the fleet once, and hands on its events as they come.
pub(super) fn execute(
    surroundings: &Surroundings,
    prepared: &Prepared,
    errand: &Errand,
    on_event: &mut dyn FnMut(&Event) -> Result<(), CliError>,
) -> Result<(Ended, Diagnostics), CliError> {
    let runtime = runtime()?;
    let begun = Instant::now();
    let loaded = &prepared.loaded;
    let diagnostics = Arc::new(Mutex::new(Diagnostics::default()));
    let dry_run = errand.dry_run;
    let info = run_info(surroundings, loaded, dry_run);
    let run_id = info.id.clone();
    let purpose = match (&errand.undo, &errand.apply) {
        (Some(Undo { run, force, rollback }), _) => {
            Purpose::Undo { run: run.clone(), force: *force, rollback: rollback.clone() }
        }
        (None, Some(apply)) => Purpose::Apply(Arc::clone(&apply.plans)),
        (None, None) => Purpose::Converge(Arc::new(Declaring {
            loaded: Arc::clone(loaded),
            beside: Arc::clone(&prepared.beside),
            diagnostics: Arc::clone(&diagnostics),
        })),
    };
    let run = Run {
        reachable: prepared.reachable.clone(),
        purpose,
        dry_run,
        plans: errand.plans.clone(),
        wait: errand.wait,
        plan: PlanOptions {
            diff: dry_run || prepared.diff,
            untrusted: loaded.untrusted,
            run: info,
            lock: !dry_run,
            adopt: loaded.adopt.clone(),
            login: false,
        },
        any_errors_fatal: match &errand.apply {
            Some(apply) => apply.any_errors_fatal.clone(),
            None => any_errors_fatal(loaded),
        },
    };
    on_event(&Event::RunStarted {
        run: run_id,
        inventory: loaded.inventory.clone(),
        state_file: match &errand.undo {
            Some(Undo { run, .. }) => format!("undo {run}"),
            None => loaded.state_file.clone(),
        },
        dry_run,
        hosts: run.reachable.hosts.iter().map(|host| host.name.clone()).collect(),
    })?;
    let (events, mut incoming) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let result = runtime.block_on(async {
        tokio::spawn(watch_interrupts(surroundings.clone(), stop));
        let fleet = tokio::spawn(fleet::converge(run, events, stopped));
        while let Some(event) = incoming.recv().await {
            on_event(&event)?;
        }
        fleet.await.map_err(|error| {
            CliError::Machine(format!("{error}; this is a bug of converge, please report it"))
        })
    });
    loaded.compilation.contents.remember();
    runtime.shutdown_timeout(Duration::from_millis(200));
    let ended = result?;
    let code = exit_code(ended, dry_run, prepared.exit_code);
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    on_event(&Event::RunDone { exit_code: i32::from(code), ms })?;
    let diagnostics =
        std::mem::take(&mut *diagnostics.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    Ok((ended, diagnostics))
}

/// The first Ctrl-C, or SIGTERM, lets the hosts finish what is in hand; the second ends at once.
async fn watch_interrupts(surroundings: Surroundings, stop: watch::Sender<bool>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    let mut asked = false;
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if asked {
            surroundings.complain("ended at once; what hosts had in hand may still go on there");
            std::process::exit(i32::from(EXIT_INTERRUPTED));
        }
        asked = true;
        surroundings.complain("stopping: hosts finish what is in hand; once more ends at once");
        stop.send_replace(true);
    }
}

fn any_errors_fatal(loaded: &Loaded) -> Vec<bool> {
    loaded.compilation.program.plays.iter().map(|play| play.any_errors_fatal).collect()
}

/// Where a plan goes, and who may read it.
struct Saving<'a> {
    file: &'a Path,
    /// Signs it.
    key: Option<&'a Path>,
    /// Public keys that it is encrypted to, beside those of the project.
    recipients: &'a [String],
}

/// Saves what was planned.
fn save(
    surroundings: &Surroundings,
    prepared: &Prepared,
    inventory: &[String],
    plans: &Plans,
    Saving { file, key, .. }: &Saving<'_>,
    recipients: &Recipients,
) -> Result<(), CliError> {
    let loaded = &prepared.loaded;
    let plans = std::mem::take(&mut *plans.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    let hosts = plans.into_iter().filter_map(|(name, plan)| {
        let connection = loaded.connections.get(&name)?;
        Some(SavedHost {
            connection: connection.kind.name().to_owned(),
            user: connection.user.clone(),
            becomes: loaded.outlines.get(&name).is_some_and(|outline| outline.becomes),
            name,
            plan,
        })
    });
    let mut saved = SavedPlan {
        build: crate::wire::BUILD.to_owned(),
        run: run_info(surroundings, loaded, false),
        inventory: match inventory {
            [] => loaded.project.settings.inventory.clone(),
            given => given.to_vec(),
        },
        state_file: loaded.state_file.clone(),
        any_errors_fatal: any_errors_fatal(loaded),
        hosts: hosts.collect(),
        contents: std::collections::BTreeMap::new(),
    };
    let not_saved = |error: &dyn std::fmt::Display| {
        CliError::Machine(format!("{}: the plan was not saved: {error}", file.display()))
    };
    let encrypted = !recipients.is_empty();
    if !encrypted {
        saved.private().map_err(|error| not_saved(&error))?;
    }
    saved.take_contents(&loaded.compilation.contents);
    let mut body = saved.to_body().map_err(|error| not_saved(&error))?;
    if encrypted {
        body = recipients.encrypt(&body).map_err(|error| not_saved(&error))?;
    }
    let signature = match key {
        Some(key) => Some(crate::ssh::sign(key, &body).map_err(|error| not_saved(&error))?),
        None => None,
    };
    let bytes = PlanFile { body, encrypted, signature }.encode();
    let path = surroundings.directory.join(file);
    std::fs::write(&path, bytes).map_err(|error| not_saved(&error))?;
    let signed = if key.is_some() { "signed" } else { "not signed" };
    let how = match recipients.len() {
        0 => signed.to_owned(),
        1 => format!("{signed}, encrypted to one key"),
        many => format!("{signed}, encrypted to {many} keys"),
    };
    surroundings.complain(&format!(
        "the plan is saved ({how}): `converge apply {}` does it, or refuses",
        file.display()
    ));
    Ok(())
}

/// The run that is about to begin, as hosts keep it.
fn run_info(surroundings: &Surroundings, loaded: &Loaded, dry_run: bool) -> RunInfo {
    let now = (surroundings.clock)();
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    RunInfo {
        id: run_id(now),
        who: format!("{}@{}", surroundings.user, surroundings.host_name),
        begun: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        // Only what changes a host is kept there.
        commit: match &loaded.info.commit {
            None if !dry_run => crate::project::commit(&loaded.project.root),
            known => known.clone(),
        },
        ..loaded.info.clone()
    }
}

/// Names a run: its begin in UTC, and something that sets it apart.
fn run_id(now: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(now).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let random = RandomState::new().hash_one(now);
    format!("{}-{:04x}", time.strftime("%Y%m%dT%H%M%SZ"), random & 0xffff)
}
