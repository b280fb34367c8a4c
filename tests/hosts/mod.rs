//! Throw-away hosts, and the real `converge` program to converge them with, for the tests of this folder.
//!
//! The hosts are booted by the library's own sandbox and end with the test. The program runs in a project folder of
//! its own, inside the hosts' network, and reaches them over ssh by an `ssh_config` that it finds as any other. Where
//! the machine cannot boot hosts, [`Hosts::new`] says so and gives nothing, and the test is left out.

#![allow(dead_code)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use converge::sandbox::{self, Host, Lifetime, Locations, Sandbox};
use indexmap::IndexMap;
use serde::Deserialize;
use tempfile::TempDir;

/// How long a run of the program may take.
const LIMIT: Duration = Duration::from_secs(180);

/// Booted hosts, and a project folder whose inventory is these hosts.
pub struct Hosts {
    sandbox: Sandbox,
    hosts: Vec<Host>,
    folder: TempDir,
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if let Err(error) = self.sandbox.down() {
            eprintln!("the hosts did not end: {error}");
        }
    }
}

impl Hosts {
    /// Boots hosts of these names.
    pub fn new(names: &[&str]) -> Option<Self> {
        Self::with_packages(names, &[])
    }

    /// Boots hosts that can install these packages.
    pub fn with_packages(names: &[&str], packages: &[&str]) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !can_boot() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tests-{}-{number}", std::process::id());
        let sandbox = Sandbox::new(&name, locations(&folder.path().join("sandbox")));
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let packages: Vec<String> = packages.iter().map(|name| (*name).to_owned()).collect();
        let progress = |line: &str| eprintln!("{line}");
        let missing = sandbox.packages(&packages, &progress).unwrap();
        assert!(missing.is_empty(), "no package source has {missing:?}");
        let hosts = sandbox.up(&names, Lifetime::WithProcess, &progress).unwrap();
        let hosts = Self { sandbox, hosts, folder };
        hosts.prepare();
        Some(hosts)
    }

    fn prepare(&self) {
        let lines: String = self.hosts.iter().map(|host| format!("    {}:\n", host.name)).collect();
        self.write("inventory/test.yml", &format!("all:\n  hosts:\n{lines}"));
        let mut configuration = String::new();
        for host in &self.hosts {
            let Host { name, address, port, identity_file, known_hosts, .. } = host;
            let _ = write!(
                configuration,
                "Host {name}\n  HostName {address}\n  Port {port}\n  IdentityFile \"{}\"\n  IdentitiesOnly yes\n  \
                 UserKnownHostsFile \"{}\"\n  GlobalKnownHostsFile /dev/null\n",
                identity_file.display(),
                known_hosts.display(),
            );
        }
        self.write("home/.ssh/config", &configuration);
        // OpenSSH takes the home folder from the accounts and not from the environment.
        let program = "#!/bin/sh\nexec /usr/bin/ssh -F \"${0%/bin/ssh}/home/.ssh/config\" \"$@\"\n";
        self.write("bin/ssh", program);
        let status = Command::new("chmod").arg("755").arg(self.path("bin/ssh")).status().unwrap();
        assert!(status.success());
    }

    /// A place in the project folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// One of the hosts.
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name == name).unwrap()
    }

    /// Runs a shell script on a host as root, and gives what it printed; a line that fails fails the test.
    pub fn sh(&self, host: &str, script: &str) -> String {
        let ended = self.try_sh(host, script);
        assert!(ended.code == 0, "on {host}:\n{script}\n{ended}");
        ended.stdout
    }

    /// Runs a shell script on a host as root.
    pub fn try_sh(&self, host: &str, script: &str) -> Ended {
        let mut command = self.host(host).ssh_command("root");
        let script = format!("set -eu\n{script}");
        Ended::of(command.arg("--").arg(script).stdin(Stdio::null()).output().unwrap())
    }

    /// Converges all hosts to a list of states.
    pub fn converge(&self, states: &str) -> Run<'_> {
        self.converge_file(&play(states))
    }

    /// Converges to a state file.
    pub fn converge_file(&self, text: &str) -> Run<'_> {
        self.write("state.yml", text);
        self.run(&["-i", "test", "state.yml"])
    }

    /// Runs the program with these arguments.
    pub fn run(&self, arguments: &[&str]) -> Run<'_> {
        let namespace = self.hosts[0].namespace.file_name().unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec"]).arg(namespace).arg(env!("CARGO_BIN_EXE_converge"));
        Run { hosts: self, command }.args(arguments)
    }
}

/// A play of all hosts with these states.
pub fn play(states: &str) -> String {
    let indented: String = states.lines().map(|line| format!("  {line}\n")).collect();
    format!("name: test\nhosts: all\nstates:\n{indented}")
}

/// Whether this machine can boot hosts; says what it lacks.
pub fn can_boot() -> bool {
    match sandbox::requirements() {
        Ok(()) => true,
        Err(error) => {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            println!("left out: {test}: {error}");
            false
        }
    }
}

/// Where hosts' things are, with the machine's usual cache.
pub fn locations(state: &Path) -> Locations {
    let cache = std::env::var("CONVERGE_CACHE_DIR")
        .map_or_else(|_| "/var/cache/converge".into(), PathBuf::from)
        .join("sandbox");
    Locations { cache, state: state.to_owned() }
}

/// A run of the program that has yet to begin.
pub struct Run<'a> {
    hosts: &'a Hosts,
    command: Command,
}

impl Run<'_> {
    /// Only plans.
    pub fn dry_run(self) -> Self {
        self.args(&["--dry-run"])
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// Adds a variable to the program's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end.
    pub fn ended(self) -> Ended {
        self.start().ended()
    }

    /// Runs it to its end, and reads its JSON document.
    pub fn report(self) -> Report {
        let ended = self.args(&["--format", "json"]).ended();
        let mut report: Report = serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|error| panic!("no document: {error}\n{ended}"));
        assert_eq!(report.exit_code, ended.code, "{ended}");
        report.text = timeless(&ended.stdout);
        report.stderr = ended.stderr;
        report
    }

    /// Runs it to its end, which must be a success.
    pub fn succeeds(self) -> Report {
        let report = self.report();
        assert_eq!(report.exit_code, 0, "{report}");
        report
    }

    /// Starts it.
    pub fn start(mut self) -> Running {
        let (home, bin) = (self.hosts.path("home"), self.hosts.path("bin"));
        let child = self
            .command
            .current_dir(self.hosts.folder.path())
            .env("HOME", home)
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()))
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running { child }
    }
}

/// A run of the program that goes on.
pub struct Running {
    child: Child,
}

impl Running {
    /// Sends it a signal, such as `KILL`.
    pub fn signal(&self, name: &str) {
        let arguments = ["-s", name, &self.child.id().to_string()];
        assert!(Command::new("kill").args(arguments).status().unwrap().success());
    }

    /// Waits for its end.
    pub fn ended(self) -> Ended {
        let (pid, begun) = (self.child.id().to_string(), Instant::now());
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let watch = std::thread::spawn(move || {
            if receiver.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").args(["-s", "KILL", &pid]).status();
            }
        });
        let ended = Ended::of(self.child.wait_with_output().unwrap());
        drop(sender);
        watch.join().unwrap();
        assert!(begun.elapsed() < LIMIT, "it took too long:\n{ended}");
        ended
    }
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; negative is a signal.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Ended {
    /// How a program ended.
    pub fn of(output: std::process::Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        Self {
            code: output.status.code().unwrap_or_else(|| -output.status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "exit code {}\n{}\n{}", self.code, self.stdout, self.stderr)
    }
}

/// The JSON document of a run.
#[derive(Debug, Deserialize)]
pub struct Report {
    /// The run's name.
    pub run: String,
    /// The exit code.
    pub exit_code: i32,
    /// The hosts by name.
    pub hosts: IndexMap<String, HostReport>,
    /// The document as it was printed, without names and times of the run.
    #[serde(skip)]
    pub text: String,
    /// What was complained about.
    #[serde(skip)]
    pub stderr: String,
}

/// What a document says of a host.
#[derive(Debug, Deserialize)]
#[allow(missing_docs)]
pub struct HostReport {
    pub status: String,
    pub error: Option<String>,
    pub resources: Vec<Resource>,
}

/// What a document says of a resource.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Resource {
    pub id: String,
    pub verdict: String,
    pub because: String,
    pub depends_on: Vec<String>,
    pub assuming: Vec<String>,
    pub owed: bool,
    pub changes: Vec<Change>,
}

/// What a document says of a change.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Change {
    pub action: String,
    pub target: String,
    pub diff: String,
}

impl Resource {
    /// Its changes, each as `ACTION TARGET`.
    pub fn acts(&self) -> Vec<String> {
        self.changes.iter().map(|change| format!("{} {}", change.action, change.target)).collect()
    }
}

impl Report {
    /// The only host.
    pub fn only(&self) -> &HostReport {
        assert_eq!(self.hosts.len(), 1, "{self}");
        &self.hosts[0]
    }

    /// A resource of the only host.
    pub fn resource(&self, id: &str) -> &Resource {
        let found = self.only().resources.iter().find(|resource| resource.id == id);
        found.unwrap_or_else(|| panic!("there is no {id}\n{self}"))
    }

    /// Verdicts of the only host, each as `ID VERDICT`.
    pub fn verdicts(&self) -> Vec<String> {
        let resources = self.only().resources.iter();
        resources.map(|resource| format!("{} {}", resource.id, resource.verdict)).collect()
    }

    /// How many resources of all hosts have a verdict.
    pub fn count(&self, verdict: &str) -> usize {
        let all = self.hosts.values().flat_map(|host| &host.resources);
        all.filter(|resource| resource.verdict == verdict).count()
    }

    /// Fails unless all is as declared.
    #[track_caller]
    pub fn assert_unchanged(&self) {
        assert_eq!(self.exit_code, 0, "{self}");
        for verdict in ["change", "depends", "failed"] {
            assert_eq!(self.count(verdict), 0, "{self}");
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(out, "exit code {}", self.exit_code)?;
        for (name, host) in &self.hosts {
            writeln!(out, "{name}: {} {}", host.status, host.error.as_deref().unwrap_or_default())?;
            // Of many, those that are not of interest are left out.
            let many = host.resources.len() > 40;
            let shown = host.resources.iter().filter(|one| !many || one.verdict == "failed");
            for resource in shown.take(40) {
                writeln!(out, "  {resource}")?;
            }
        }
        write!(out, "{}", self.stderr)
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} {}", self.id, self.verdict)?;
        if !self.depends_on.is_empty() {
            write!(out, " depends on {}", self.depends_on.join(", "))?;
        }
        if !self.assuming.is_empty() {
            write!(out, " assuming {}", self.assuming.join(", "))?;
        }
        if self.owed {
            write!(out, " owed")?;
        }
        if !self.because.is_empty() {
            write!(out, " ({})", self.because)?;
        }
        for change in &self.changes {
            write!(out, "\n    {} {}", change.action, change.target)?;
            for line in change.diff.lines().take(12) {
                write!(out, "\n      {line:.120}")?;
            }
        }
        Ok(())
    }
}

/// A document without what differs from run to run.
fn timeless(document: &str) -> String {
    let times = regex::Regex::new(r#""(run":"[^"]*"|ms":\d+)"#).unwrap();
    times.replace_all(document, "\"\"").into_owned()
}

/// Fails unless what was done is what a plan said, change by change. What the plan did not know for certain may have
/// been left out, and nothing beyond the announcement may have been done.
#[track_caller]
pub fn assert_as_planned(planned: &Report, done: &Report) {
    let names = |report: &Report| report.hosts.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(planned), names(done));
    for (plan, done) in planned.hosts.values().zip(done.hosts.values()) {
        let ids = |host: &HostReport| {
            host.resources.iter().map(|resource| resource.id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(ids(plan), ids(done), "{planned}\n{}", done.resources.len());
        for (plan, done) in plan.resources.iter().zip(&done.resources) {
            let announced = plan.acts();
            let within = done.acts().iter().all(|act| announced.contains(act));
            let as_planned = match plan.verdict.as_str() {
                "depends" => ["change", "ok"].contains(&done.verdict.as_str()) && within,
                // A wait may be over at once.
                "ok" => done.verdict == "ok" && within,
                verdict => verdict == done.verdict && plan.changes == done.changes,
            };
            assert!(as_planned, "planned: {plan}\n\ndone:    {done}");
        }
    }
}
