//! How long runs take, beside what the same machine needs for `ssh HOST true` (and, for a tree,
//! for rsync) in the same minute: `cargo bench`. Prints a table and never fails, since a busy
//! machine says nothing about the code.
//!
//! Twenty throw-away hosts are booted; it needs root and what `converge sandbox` needs. The table
//! is made by a second process of this program, inside the network namespace that reaches them and
//! with a home of its own, where OpenSSH's configuration for all of them lies: both programs read
//! the same one, and both are started anew for each measurement, in turns. Words after
//! `cargo bench --` choose the rows that have one of them in their name.

use std::cell::Cell;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use converge::sandbox::{self, Host, Lifetime, Locations, Sandbox};

/// Hosts that are booted.
const HOSTS: usize = 20;
/// Says to the second process that it is the one inside.
const INSIDE: &str = "--inside";
/// The same exchange as ours: OpenSSH's first choice is slower.
const KEY_EXCHANGE: &str = "KexAlgorithms=curve25519-sha256";
/// How often a run is repeated that takes a part of a second.
const MANY: usize = 9;
/// How often a run is repeated that takes longer.
const FEW: usize = 5;
/// Where what stays between the runs is.
const KEPT: &str = "/srv/kept";
/// How long a tree is left alone before it is looked at again.
const REST: Duration = Duration::from_secs(65);
/// Between two looks at the memory of a running process.
const LOOK: Duration = Duration::from_millis(1);

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let result = match arguments.split_first() {
        Some((first, rest)) if first == INSIDE => measure(rest),
        _ => prepare(&arguments),
    };
    if let Err(error) = result {
        println!("left out: {error}");
    }
    ExitCode::SUCCESS
}

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in the system's folder for temporary files is harmless.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Boots the hosts, writes the project, and starts this program again inside their network.
fn prepare(words: &[String]) -> Outcome<()> {
    sandbox::requirements()?;
    let root = std::env::temp_dir().join(format!("converge-bench-{}", std::process::id()));
    fs::create_dir_all(&root)?;
    let root = Folder(root);
    let cache =
        std::env::var_os("CONVERGE_CACHE_DIR").map_or("/var/cache/converge".into(), PathBuf::from);
    let locations = Locations { cache: cache.join("sandbox"), state: root.0.join("sandbox") };
    let sandbox = Sandbox::new("bench", locations);
    let progress = |line: &str| eprintln!("{line}");
    let no_rsync = sandbox.packages(&[String::from("rsync")], &progress).is_err();
    let names: Vec<String> = (1..=HOSTS).map(|number| format!("host{number}")).collect();
    let hosts = sandbox.up(&names, Lifetime::WithProcess, &|_| {})?;
    let first = hosts.first().ok_or("no host was booted")?;
    if !no_rsync {
        // Where that fails, its rows are left out.
        first.ssh("apt-get -qq update && apt-get -qq -y install rsync")?;
    }
    let project = root.0.join("project");
    write_project(&project, &hosts)?;
    let home = root.0.join("home");
    write_home(&home, first)?;
    let namespace = first.namespace.file_name().ok_or("the hosts' network has no name")?;
    // ip-netns(8) gives the command mounts of its own, and OpenSSH finds the home in the password
    // database whatever HOME says.
    let script = "mount --bind \"$1\" \"$2\" && HOME=$2 && export HOME && shift 2 && exec \"$@\"";
    Command::new("ip")
        .args(["netns", "exec"])
        .arg(namespace)
        .args(["sh", "-c", script, "sh"])
        .args([home.as_path(), &home_of_root()?, &std::env::current_exe()?])
        .arg(INSIDE)
        .args(words)
        .current_dir(&project)
        .env_remove("SSH_AUTH_SOCK")
        .status()?;
    sandbox.down()?;
    Ok(())
}

fn home_of_root() -> Outcome<PathBuf> {
    let accounts = fs::read_to_string("/etc/passwd")?;
    let fields = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut roots = fields.filter(|fields| fields.get(2) == Some(&"0"));
    Ok(roots
        .next()
        .and_then(|fields| fields.get(5).map(PathBuf::from))
        .ok_or("root has no home")?)
}

/// What OpenSSH and converge both read.
fn write_home(home: &Path, host: &Host) -> Outcome<()> {
    let folder = home.join(".ssh");
    fs::create_dir_all(&folder)?;
    let configuration = format!(
        "Host *\n  User root\n  IdentityFile {}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  \
         GlobalKnownHostsFile /dev/null\n  LogLevel ERROR\n",
        host.identity_file.display(),
        host.known_hosts.display()
    );
    fs::write(folder.join("config"), configuration)?;
    Ok(())
}

fn write_project(project: &Path, hosts: &[Host]) -> Outcome<()> {
    for folder in ["inventory", "states/files"] {
        fs::create_dir_all(project.join(folder))?;
    }
    let mut inventory = String::from("[all_hosts]\n");
    for host in hosts {
        writeln!(inventory, "{}", host.address)?;
    }
    if let Some(host) = hosts.first() {
        write!(inventory, "\n[one_host]\n{}\n", host.address)?;
    }
    fs::write(project.join("inventory/bench.ini"), inventory)?;
    let states = [
        ("first", head("one_host", "  - directory: /srv\n")),
        ("mixed", head("one_host", &mixed())),
        ("mixed-everywhere", head("all_hosts", &mixed())),
        ("files-200", head("one_host", &files("{{ path }}", 200, 1024))),
        ("files-2000", head("one_host", &files("/srv/files-2000", 2_000, 16))),
        ("files-10000", head("one_host", &files("/srv/files-10000", 10_000, 16))),
        ("tree", head("one_host", "  - tree: \"{{ path }}\"\n    source: tree\n")),
    ];
    for (name, text) in states {
        fs::write(project.join(format!("states/{name}.yml")), text)?;
    }
    write_tree(&project.join("states/files/tree"))
}

fn head(hosts: &str, states: &str) -> String {
    format!("hosts: {hosts}\nstates:\n{states}")
}

/// Sixty resources, as a small server has them: 4 + 10 + 16 + 8 + 6 + 4 + 6 + 6.
fn mixed() -> String {
    let mut text = String::from("  - package: [ca-certificates, openssh-server, sudo, dbus]\n");
    text.push_str("  - directory: /srv/mixed\n");
    for number in 0..9 {
        let _ = write!(text, "  - directory: /srv/mixed/{number}\n    mode: 0750\n");
    }
    for number in 0..16 {
        let folder = number % 9;
        let _ = write!(
            text,
            "  - file: /srv/mixed/{folder}/{number}.conf\n    content: \"number = {number}\\n\"\n"
        );
    }
    for number in 0..4 {
        let _ = write!(
            text,
            "  - group: team{number}\n  - user: person{number}\n    group: team{number}\n"
        );
    }
    for number in 0..6 {
        let _ = write!(text, "  - symlink: /srv/mixed/link{number}\n    target: \"{number}\"\n");
    }
    for number in 0..4 {
        let _ = write!(
            text,
            "  - environment_file: /srv/mixed/{number}.env\n    variables: {{ NUMBER: \"{number}\" }}\n"
        );
    }
    text.push_str("  - file: /srv/mixed/lines\n    content: \"# ours\\n\"\n    replace: false\n");
    for number in 0..5 {
        let _ = write!(
            text,
            "  - line_in_file: /srv/mixed/lines\n    line: key{number}=1\n    match: ^key{number}=\n"
        );
    }
    for number in 0..3 {
        let _ = write!(
            text,
            "  - unit: bench{number}.service\n    content: |\n      [Service]\n      \
             ExecStart=/bin/sleep infinity\n      [Install]\n      WantedBy=multi-user.target\n  \
             - service: bench{number}\n"
        );
    }
    text
}

fn files(folder: &str, count: usize, size: usize) -> String {
    let mut text = format!("  - directory: \"{folder}\"\n");
    for number in 0..count {
        let content = format!("{number} ").repeat(size).split_at(size).0.to_owned();
        let _ = write!(
            text,
            "  - file: \"{folder}/{number}\"\n    content: \"{content}\"\n    mode: 0644\n"
        );
    }
    text
}

/// Five thousand files of 10 KB that neither compress nor repeat.
fn write_tree(folder: &Path) -> Outcome<()> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    for number in 0..5_000 {
        let place = folder.join(format!("{}", number / 50));
        if number % 50 == 0 {
            fs::create_dir_all(&place)?;
        }
        let mut bytes = Vec::with_capacity(10_240);
        while bytes.len() < 10_240 {
            // Marsaglia's xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        fs::write(place.join(format!("{number}")), bytes)?;
    }
    Ok(())
}

/// Makes the table. The working folder is the project.
fn measure(words: &[String]) -> Outcome<()> {
    let hosts = addresses()?;
    let first = hosts.first().ok_or("no host")?.as_str();
    let table = Table { words };
    table.head();
    // All hosts have had the program for a while when they are measured together.
    converge("mixed-everywhere", KEPT)?;
    let ssh = || ssh(first, "true");
    table.unchanged("1 resource without a change", "first", MANY, None, &ssh);
    table.unchanged("60 mixed resources without a change", "mixed", MANY, Some(1.0), &ssh);
    table.unchanged("2,000 files without a change", "files-2000", MANY, Some(1.5), &ssh);
    table.unchanged("10,000 files without a change", "files-10000", FEW, Some(3.0), &ssh);
    // What is written at first goes to a new place each time: file systems are slow to take up what
    // was removed a moment ago.
    let places = Cell::new(0);
    let new_place = || {
        places.set(places.get() + 1);
        format!("/srv/new-{}", places.get())
    };
    table.row("200 files of 1 KiB at first", MANY, Some(1.5), &ssh, &|| {
        forget(first)?;
        converge("files-200", &new_place())
    });
    table.row("first contact, with upload of the agent", FEW, Some(2.0), &ssh, &|| {
        self::ssh(first, "rm -rf /var/lib/converge; sync")?;
        converge("first", KEPT)
    });
    let has_rsync = Command::new("rsync").arg("--version").output().is_ok()
        && self::ssh(first, "command -v rsync").is_ok();
    if has_rsync {
        let rsync_at_first = || {
            rest(first)?;
            rsync(first, &new_place())
        };
        let name = "tree of 5,000 files at first, beside rsync";
        table.row(name, FEW, Some(1.2), &rsync_at_first, &|| {
            forget(first)?;
            converge("tree", &new_place())
        });
        let name = "tree of 5,000 files without a change, beside rsync";
        let kept = "/srv/kept-by-rsync";
        if table.wants(name) {
            forget(first)?;
            rsync(first, kept)?;
            converge("tree", KEPT)?;
            // As between two runs in practice: digests of files are remembered once these rest.
            std::thread::sleep(REST);
            converge("tree", KEPT)?;
        }
        table.unchanged(name, "tree", MANY, Some(0.7), &|| rsync(first, kept));
    } else {
        println!("tree: left out, since rsync is missing here or on the hosts");
    }
    let everywhere = "mixed-everywhere";
    let name = format!("{HOSTS} hosts, 60 resources without a change");
    table.unchanged(&name, everywhere, FEW, Some(1.2), &|| all_at_once(&hosts));
    if table.wants("memory") {
        match peak_memory(everywhere) {
            Ok(kibibytes) => {
                let met = if kibibytes < 64 << 10 { "met" } else { "not met" };
                let measured = kibibytes as f64 / 1024.0;
                println!(
                    "{:52} {measured:6.1} MiB {:>18} < 64 MiB  {met}",
                    "peak memory at 20 hosts", ""
                );
            }
            Err(error) => println!("peak memory: left out: {error}"),
        }
    }
    for (name, path) in [
        ("size of converge", env!("CARGO_BIN_EXE_converge")),
        ("size of converge-agent", env!("CARGO_BIN_EXE_converge-agent")),
    ] {
        println!("{name:52} {:6.2} MB", fs::metadata(path)?.len() as f64 / 1e6);
    }
    Ok(())
}

/// The hosts that the project's inventory names.
fn addresses() -> Outcome<Vec<String>> {
    let inventory = fs::read_to_string("inventory/bench.ini")?;
    let lines = inventory.lines().skip(1).take_while(|line| !line.is_empty());
    Ok(lines.map(str::to_owned).collect())
}

/// Prints rows as they are measured.
struct Table<'a> {
    words: &'a [String],
}

impl Table<'_> {
    fn head(&self) {
        println!(
            "{:52} {:>10} {:>10} {:>6} {:>6}  {:>5}",
            "median of several runs, in turns", "measured", "reference", "ratio", "least", "goal"
        );
    }

    fn wants(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()))
    }

    /// A row about a state file that the hosts are brought to before.
    fn unchanged(
        &self,
        name: &str,
        state: &str,
        runs: usize,
        goal: Option<f64>,
        reference: &dyn Fn() -> Outcome<Duration>,
    ) {
        if !self.wants(name) {
            return;
        }
        if let Err(error) = converge(state, KEPT).and_then(|_| is_settled(state)) {
            println!("{name}: left out: {error}");
            return;
        }
        self.row(name, runs, goal, reference, &|| converge(state, KEPT));
    }

    /// A row about anything that says how long it took; what it prepares does not count.
    fn row(
        &self,
        name: &str,
        runs: usize,
        goal: Option<f64>,
        reference: &dyn Fn() -> Outcome<Duration>,
        subject: &dyn Fn() -> Outcome<Duration>,
    ) {
        if !self.wants(name) {
            return;
        }
        let mut times = (Vec::new(), Vec::new());
        for _ in 0..runs {
            match reference().and_then(|reference| Ok((reference, subject()?))) {
                Ok((reference, subject)) => {
                    times.0.push(reference);
                    times.1.push(subject);
                }
                Err(error) => {
                    println!("{name}: left out: {error}");
                    return;
                }
            }
        }
        let (reference, subject) = (Times::of(times.0), Times::of(times.1));
        let ratio = subject.median / reference.median;
        let goal = match goal {
            Some(goal) if ratio <= goal => format!("≤ {goal:3.1}  met"),
            Some(goal) => format!("≤ {goal:3.1}  not met"),
            None => String::new(),
        };
        println!(
            "{name:52} {:7.0} ms {:7.0} ms {ratio:6.2} {:6.2}  {goal}",
            subject.median * 1e3,
            reference.median * 1e3,
            subject.least / reference.least
        );
    }
}

/// Durations in seconds.
struct Times {
    median: f64,
    least: f64,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let seconds = |time: Option<&Duration>| time.map_or(f64::NAN, Duration::as_secs_f64);
        Self { median: seconds(times.get(times.len() / 2)), least: seconds(times.first()) }
    }
}

/// Runs a program to its end; how long it took, from before its start.
fn timed(command: &mut Command) -> Outcome<Duration> {
    let begun = Instant::now();
    let output =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    let took = begun.elapsed();
    if output.status.success() {
        return Ok(took);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{:?} ended with {}: {}", command.get_program(), output.status, said.trim()).into())
}

fn ssh_command(host: &str, line: &str) -> Command {
    let mut command = Command::new("ssh");
    command.args(["-o", KEY_EXCHANGE, host, line]);
    command
}

fn ssh(host: &str, line: &str) -> Outcome<Duration> {
    timed(&mut ssh_command(host, line))
}

/// Lets the disk of a host come to rest.
fn rest(host: &str) -> Outcome<()> {
    ssh(host, "sync").map(drop)
}

/// As [`rest`], on a host that remembers no run: with what earlier rounds made in other places on
/// record, a plan would list all of that as no longer declared.
fn forget(host: &str) -> Outcome<()> {
    ssh(host, "rm -rf /var/lib/converge/runs /var/lib/converge/objects; sync").map(drop)
}

fn rsync(host: &str, place: &str) -> Outcome<Duration> {
    let shell = format!("ssh -o {KEY_EXCHANGE}");
    let target = format!("{host}:{place}/");
    timed(Command::new("rsync").args(["-a", "-e", &shell, "states/files/tree/", &target]))
}

/// A run of a state file; `place` is where files and trees go that are written at first.
fn converge_command(state: &str, place: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_converge"));
    command.args(["-i", "bench", state, "-e", &format!("path={place}")]);
    command
}

fn converge(state: &str, place: &str) -> Outcome<Duration> {
    timed(&mut converge_command(state, place))
}

/// An error if another run would change something.
fn is_settled(state: &str) -> Outcome<()> {
    timed(converge_command(state, KEPT).args(["--dry-run", "--exit-code"]))
        .map(drop)
        .map_err(|error| format!("a second run would change something: {error}").into())
}

/// `ssh HOST true` to all hosts at the same time.
fn all_at_once(hosts: &[String]) -> Outcome<Duration> {
    let begun = Instant::now();
    let started: Vec<Child> = hosts
        .iter()
        .map(|host| ssh_command(host, "true").stdin(Stdio::null()).spawn())
        .collect::<Result<_, _>>()?;
    let mut failed = 0;
    for mut child in started {
        failed += usize::from(!child.wait()?.success());
    }
    let took = begun.elapsed();
    if failed == 0 { Ok(took) } else { Err(format!("ssh failed on {failed} hosts").into()) }
}

/// The most memory that a run has held, in KiB (`VmHWM` of proc_pid_status(5)).
fn peak_memory(state: &str) -> Outcome<u64> {
    let mut child =
        converge_command(state, KEPT).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        // A process that is about to end has none any more.
        let seen = fs::read_to_string(&status).ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().trim_end_matches(" kB").parse().ok()
        });
        peak = seen.unwrap_or(0).max(peak);
        std::thread::sleep(LOOK);
    }
    Ok(peak)
}
