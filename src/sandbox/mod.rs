//! Throw-away hosts: real Debian systems with a real sshd and systemd, booted in well under a second each, for
//! `converge test`, `converge sandbox` and the project's own tests.
//!
//! A host is `systemd-nspawn` over an overlay: below is a Debian root that is made once and cached, above is what the
//! host writes. The hosts of a sandbox share a network of their own without a route out, and find packages in a
//! repository that the machine fills for them. The machine has to be a Linux with apt, and the caller root.
//!
//! The room may know the machine that it runs on: its programs, apt sources, mounts and namespaces. It must never know
//! inventories, states or connections: it is given names and folders, and gives back where hosts are reached. What it
//! leaves on the machine is below [`Locations`], in `/run/netns` and in control groups, all under names that begin with
//! the sandbox's own prefix, and gone after [`Sandbox::down`]. One limit of the kernel is raised and stays so until the
//! machine boots again (`fs.inotify.max_user_instances`).

mod apt_sources;
mod error;
mod forward;
mod host;
mod image;
mod lock;
mod mounts;
mod network;
mod packages;
mod process;
mod requirements;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

pub use error::SandboxError;
pub use forward::Forward;
pub use host::Host;
pub use network::inside;
pub use requirements::requirements;

use image::{Image, children, make_folder, write};
use lock::Lock;
use packages::{Fetcher, Repository};
use process::{SHORT, program, run};

/// Told, in one line each, what takes its time.
pub type Progress<'a> = &'a dyn Fn(&str);

/// Ends hosts; the same text for [`Sandbox::down`] and for the watcher that outlives a killed process.
const TAKEDOWN: &str = include_str!("takedown.sh");

/// How long ending hosts may take.
const TAKEDOWN_LIMIT: Duration = Duration::from_secs(120);

/// How many hosts boot at the same time.
const BOOTING: usize = 8;

/// Where a sandbox keeps its things; both must be absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locations {
    /// What can be made again: the root image and packages, shared by all sandboxes.
    pub cache: PathBuf,
    /// What belongs to hosts that are up.
    pub state: PathBuf,
}

/// How long hosts live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until [`Sandbox::down`].
    Kept,
    /// Until [`Sandbox::down`], or until the [`Sandbox`] is dropped or its process ends, however it ends.
    WithProcess,
}

/// The throw-away hosts of one inventory.
#[derive(Debug)]
pub struct Sandbox {
    locations: Locations,
    prefix: String,
    folder: PathBuf,
    watch: Mutex<Option<Watch>>,
}

/// The hold on a watcher: it ends the hosts when the pipe ends and `lifetime` still has its token.
#[derive(Debug)]
struct Watch {
    token: String,
    _pipe: ChildStdin,
}

impl Sandbox {
    /// The sandbox of that name, whether anything of it is up or not.
    pub fn new(name: &str, locations: Locations) -> Self {
        let hash =
            blake3::hash(format!("{}\0{name}", locations.state.display()).as_bytes()).to_hex();
        let clean: String = name
            .chars()
            .take(40)
            .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' })
            .collect();
        let folder = locations.state.join(format!("{clean}-{}", &hash[..8]));
        Self { locations, prefix: format!("cv-{}", &hash[..8]), folder, watch: Mutex::new(None) }
    }

    /// Boots hosts of these names and waits until all are up; those that run already are kept as they are.
    ///
    /// # Errors
    /// The first host's that did not boot, after all others have been tried, or whatever came before the first boot.
    pub fn up(
        &self,
        names: &[String],
        lifetime: Lifetime,
        progress: Progress<'_>,
    ) -> Result<Vec<Host>, SandboxError> {
        requirements()?;
        if let Some(name) = names.iter().find(|name| !is_host_name(name)) {
            return Err(SandboxError::HostName { name: name.clone() });
        }
        let image = Image::ensure(&self.locations.cache, progress)?;
        let common = Fetcher::new(&self.locations.cache, &image)?.repository;

        let _lock = self.lock(progress)?;
        make_folder(&self.folder.join("hosts"))?;
        self.begin_lifetime(lifetime)?;
        let own = Repository::ensure(self.own_packages())?;
        write(&self.folder.join("repository"), &common.folder.to_string_lossy(), 0o644)?;
        let repositories = [common.folder, own.folder];
        let authorized_key = self.identity()?;
        network::make_controller_end(&self.prefix)?;
        make_room(names.len());

        let mut hosts = self.known(&repositories)?;
        hosts.retain(|host| host.is_running() || !names.contains(&host.name));
        let mut new: Vec<Host> = Vec::new();
        for name in names {
            if !hosts.iter().chain(&new).any(|host| host.name == *name) {
                let number = (1..=network::ROOM)
                    .find(|number| !hosts.iter().chain(&new).any(|host| host.number == *number))
                    .ok_or(SandboxError::TooMany(network::ROOM))?;
                new.push(self.at(name, number, &repositories));
            }
        }
        if !new.is_empty() {
            let ended: Vec<&Host> = new.iter().filter(|host| host.folder.exists()).collect();
            if !ended.is_empty() {
                self.take_down(&ended)?;
            }
            let all: Vec<&Host> = hosts.iter().chain(&new).collect();
            write(&self.folder.join("known_hosts"), &known_hosts(&all, &image.host_keys), 0o644)?;
            let failure = boot_all(&new, &image.root, &authorized_key, &addresses(&all), progress);
            for host in hosts.iter().filter(|host| host.is_running()) {
                write_addresses(host, &addresses(&all))?;
            }
            if let Some(error) = failure {
                return Err(error);
            }
        }
        hosts.extend(new);
        names
            .iter()
            .map(|name| {
                let host = hosts.iter().find(|host| host.name == *name);
                host.cloned().ok_or_else(|| SandboxError::NoHost { name: name.clone() })
            })
            .collect()
    }

    /// Ends all hosts and removes everything of the sandbox, also what a run that died has left.
    ///
    /// # Errors
    /// [`SandboxError::Failed`] with what could not be removed.
    pub fn down(&self) -> Result<(), SandboxError> {
        make_folder(&self.locations.state)?;
        let lock = self.lock(&|_| {})?;
        self.take_down(&[])?;
        drop(lock);
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// The hosts of the sandbox, those that have ended included, by name.
    ///
    /// # Errors
    /// [`SandboxError::Path`] if the state cannot be read.
    pub fn list(&self) -> Result<Vec<Host>, SandboxError> {
        match fs::read_to_string(self.folder.join("repository")) {
            Ok(common) => self.known(&[PathBuf::from(common), self.own_packages()]),
            // Nothing was ever booted.
            Err(_) => Ok(Vec::new()),
        }
    }

    /// One host that is up.
    ///
    /// # Errors
    /// [`SandboxError::NoHost`] if it is not.
    pub fn host(&self, name: &str) -> Result<Host, SandboxError> {
        self.list()?
            .into_iter()
            .find(|host| host.name == name && host.is_running())
            .ok_or_else(|| SandboxError::NoHost { name: name.to_owned() })
    }

    /// Sees to it that the hosts, also those that are up, can install these packages without a network; each is a
    /// name as `apt-get install` takes it. Gives back those that no Debian source of the machine has. Quick where all
    /// are there.
    ///
    /// # Errors
    /// apt's, if packages cannot be fetched.
    pub fn packages(
        &self,
        names: &[String],
        progress: Progress<'_>,
    ) -> Result<Vec<String>, SandboxError> {
        requirements()?;
        let image = Image::ensure(&self.locations.cache, progress)?;
        Fetcher::new(&self.locations.cache, &image)?.ensure(names, progress)
    }

    /// Gives the hosts of this sandbox the `.deb` files of a folder, in place of those given before.
    ///
    /// # Errors
    /// [`SandboxError::Path`] if the folder cannot be read; the indexing program's if a file is not a package.
    pub fn own_package_folder(&self, folder: &Path) -> Result<(), SandboxError> {
        requirements()?;
        let _lock = self.lock(&|_| {})?;
        Repository::ensure(self.own_packages())?.mirror(folder)
    }

    fn own_packages(&self) -> PathBuf {
        self.folder.join("packages")
    }

    /// The lock that the watcher takes too.
    fn lock(&self, progress: Progress<'_>) -> Result<Lock, SandboxError> {
        let mut path = self.folder.clone().into_os_string();
        path.push(".lock");
        Lock::take(Path::new(&path), "starting or ending these hosts", progress)
    }

    fn at(&self, name: &str, number: u16, repositories: &[PathBuf; 2]) -> Host {
        let folder = self.folder.join("hosts").join(name);
        Host {
            name: name.to_owned(),
            address: network::address(number),
            port: 22,
            namespace: network::path(&self.prefix),
            root: folder.join("root"),
            identity_file: self.folder.join("identity"),
            known_hosts: self.folder.join("known_hosts"),
            folder,
            prefix: self.prefix.clone(),
            number,
            repositories: repositories.clone(),
        }
    }

    /// The hosts that have a folder and a number.
    fn known(&self, repositories: &[PathBuf; 2]) -> Result<Vec<Host>, SandboxError> {
        let mut hosts = Vec::new();
        for folder in children(&self.folder.join("hosts"))? {
            let number =
                fs::read_to_string(folder.join("number")).ok().and_then(|text| text.parse().ok());
            let name = folder.file_name().and_then(|name| name.to_str());
            if let (Some(number), Some(name)) = (number, name) {
                hosts.push(self.at(name, number, repositories));
            }
        }
        Ok(hosts)
    }

    /// The public half of the controller's key pair, which is made when it is needed first.
    fn identity(&self) -> Result<String, SandboxError> {
        let private = self.folder.join("identity");
        let public = self.folder.join("identity.pub");
        if !public.exists() {
            image::remove_tree(&private)?;
            run(
                program("ssh-keygen")
                    .args(["-q", "-t", "ed25519", "-N", "", "-C", "converge-sandbox", "-f"])
                    .arg(&private),
                SHORT,
            )?;
        }
        fs::read_to_string(&public).map_err(SandboxError::path("reading", &public))
    }

    /// Says who ends the hosts from now on: whoever did before stands back.
    fn begin_lifetime(&self, lifetime: Lifetime) -> Result<(), SandboxError> {
        let place = self.folder.join("lifetime");
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        match lifetime {
            Lifetime::Kept => {
                write(&place, "kept", 0o644)?;
                *watch = None;
            }
            Lifetime::WithProcess => {
                let current = fs::read_to_string(&place).unwrap_or_default();
                if watch.as_ref().is_some_and(|watch| watch.token == current) {
                    return Ok(());
                }
                let uuid = Path::new("/proc/sys/kernel/random/uuid");
                let token =
                    fs::read_to_string(uuid).map_err(SandboxError::path("reading", uuid))?;
                let token = token.trim().to_owned();
                let pipe = self.start_watcher(&token)?;
                write(&place, &token, 0o644)?;
                *watch = Some(Watch { token, _pipe: pipe });
            }
        }
        Ok(())
    }

    /// A process in a session of its own that waits for the end of this one.
    fn start_watcher(&self, token: &str) -> Result<ChildStdin, SandboxError> {
        let failed = |source| SandboxError::Start { command: "setsid".to_owned(), source };
        let mut watcher = program("setsid");
        watcher.args(["--fork", "sh", "-c", TAKEDOWN, "converge-sandbox", "--watch", token]);
        let mut child = watcher
            .arg(&self.prefix)
            .arg(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let pipe = child.stdin.take();
        // setsid ends as soon as it has forked.
        child.wait().map_err(failed)?;
        pipe.ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))
    }

    /// Ends these hosts, or everything if none is given.
    fn take_down(&self, hosts: &[&Host]) -> Result<(), SandboxError> {
        let mut command: Command = program("sh");
        command.args(["-c", TAKEDOWN, "converge-sandbox", &self.prefix]).arg(&self.folder);
        run(command.args(hosts.iter().map(|host| &host.name)), TAKEDOWN_LIMIT)?;
        Ok(())
    }
}

/// Raises, until the machine's next boot, how many watches on files one user may have. The system in a host has about
/// five, the usual limit is 128, and past it hosts hang or come up degraded.
fn make_room(hosts: usize) {
    let limit = Path::new("/proc/sys/fs/inotify/max_user_instances");
    let wanted = (16 * hosts).max(1024);
    let current = fs::read_to_string(limit).ok().and_then(|text| text.trim().parse::<usize>().ok());
    if current.is_some_and(|current| current < wanted) {
        // Where it may not be changed, a few hosts boot all the same.
        let _ = fs::write(limit, wanted.to_string());
    }
}

/// Prepares and boots hosts, some at a time; gives the first failure after all have been tried.
fn boot_all(
    hosts: &[Host],
    image: &Path,
    authorized_key: &str,
    addresses: &str,
    progress: Progress<'_>,
) -> Option<SandboxError> {
    let queue = Mutex::new(hosts.iter());
    let (sender, receiver) = mpsc::channel();
    let mut failure = None;
    thread::scope(|scope| {
        for _ in 0..BOOTING.min(hosts.len()) {
            let sender = sender.clone();
            let queue = &queue;
            scope.spawn(move || {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(host) = next else { break };
                    let booted = host
                        .prepare(image, authorized_key)
                        .and_then(|()| write_addresses(host, addresses))
                        .and_then(|()| host.boot());
                    if sender.send((&host.name, booted)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (name, booted) in receiver {
            match booted {
                Ok(()) => progress(&format!("{name} is up")),
                Err(error) => {
                    progress(&format!("{name} did not boot"));
                    failure.get_or_insert(error);
                }
            }
        }
    });
    failure
}

/// The text of /etc/hosts, without the line of the host itself.
fn addresses(hosts: &[&Host]) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    for host in hosts {
        let short = host.name.split('.').next().unwrap_or_default();
        let alias = if short == host.name || short.is_empty() {
            String::new()
        } else {
            format!(" {short}")
        };
        text.push_str(&format!("{} {}{alias}\n", host.address, host.name));
    }
    text
}

fn write_addresses(host: &Host, text: &str) -> Result<(), SandboxError> {
    write(&host.root.join("etc/hosts"), text, 0o644)
}

/// A known_hosts file (sshd(8)): all hosts have the keys of their image.
fn known_hosts(hosts: &[&Host], keys: &[String]) -> String {
    let mut text = String::new();
    for host in hosts {
        for key in keys {
            text.push_str(&format!("{},{} {key}\n", host.name, host.address));
        }
    }
    text
}

/// Whether systemd-nspawn takes it as a host name, and a folder can be called so.
fn is_host_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && !name.ends_with(['.', '-'])
        && !name.contains("..")
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(name: &str) -> Sandbox {
        let locations = Locations { cache: "/cache".into(), state: "/state".into() };
        Sandbox::new(name, locations)
    }

    #[test]
    fn sandboxes_of_different_names_share_nothing() {
        let (one, other) = (sandbox("shop/staging"), sandbox("shop.staging"));
        assert_ne!(one.folder, other.folder);
        assert_ne!(one.prefix, other.prefix);
        // An interface's or namespace's name must stay short.
        assert_eq!(one.prefix.len(), 11);
    }

    #[test]
    fn what_the_hosts_know_of_each_other() {
        let sandbox = sandbox("shop");
        let repositories = [PathBuf::new(), PathBuf::new()];
        let (web, db) =
            (sandbox.at("web1.example.com", 1, &repositories), sandbox.at("db1", 2, &repositories));
        assert_eq!(
            addresses(&[&web, &db]),
            "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n10.213.0.2 web1.example.com web1\n10.213.0.3 db1\n"
        );
        assert_eq!(
            known_hosts(&[&db], &["ssh-ed25519 AAAA".to_owned()]),
            "db1,10.213.0.3 ssh-ed25519 AAAA\n"
        );
    }

    #[test]
    fn names_of_hosts() {
        for (name, expected) in [
            ("web1", true),
            ("web_1.example.com", true),
            ("-rf", false),
            ("..", false),
            ("a/b", false),
            ("", false),
            ("a b", false),
        ] {
            assert_eq!(is_host_name(name), expected, "{name}");
        }
    }
}
