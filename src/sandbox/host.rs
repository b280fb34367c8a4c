//! One throw-away host: its root, its boot, and what a test may do to it.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::image::{REPOSITORIES, make_folder, remove_tree, write};
use super::process::{program, tail};
use super::{Forward, SandboxError, mounts, network};

/// How long a host may take to boot; it takes less than a second on an idle machine.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// How long a killed host may take to be gone.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Runs the program after `--` in the control groups before it, again and again as long as the host asks for a reboot
/// (nspawn's exit code 133), and notes its process. The shell itself stays out of the groups, since one that has
/// subgroups must not have processes of its own.
const LAUNCH: &str = r#"pid_file=$1; shift
groups=
while [ "$1" != -- ]; do groups="$groups $1"; shift; done; shift
while :; do
    (for group in $groups; do echo 0 >"$group/cgroup.procs" || exit 1; done; exec "$@") &
    echo $! >"$pid_file"
    wait $!
    [ $? = 133 ] || exit
done"#;

/// A throw-away host that has been booted.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name, which is also its host name.
    pub name: String,
    /// Its address, reachable in the controller's namespace only.
    pub address: IpAddr,
    /// Where its sshd listens.
    pub port: u16,
    /// The controller's end of the network: sockets made inside of it reach the host.
    pub namespace: PathBuf,
    /// Its root folder, as seen from the machine.
    pub root: PathBuf,
    /// The private key that root on the host accepts.
    pub identity_file: PathBuf,
    /// A known_hosts file that has the keys of all hosts of the sandbox.
    pub known_hosts: PathBuf,
    /// Where all that belongs to the host is kept.
    pub(super) folder: PathBuf,
    /// What the names of the sandbox's namespaces begin with; also the controller's own.
    pub(super) prefix: String,
    /// Counts from 1; the address follows from it.
    pub(super) number: u16,
    /// The folders that are seen at [`REPOSITORIES`].
    pub(super) repositories: [PathBuf; 2],
}

impl Host {
    /// Whether it is up (or still booting).
    pub fn is_running(&self) -> bool {
        self.process().is_some()
    }

    /// Boots it over what it wrote before, and waits until its system is up and sshd listens.
    ///
    /// # Errors
    /// [`SandboxError::Boot`] with the end of its console.
    pub fn boot(&self) -> Result<(), SandboxError> {
        if self.is_running() {
            return Ok(());
        }
        let machine = self.machine();
        // The system in the host says on this socket when it is up (sd_notify(3)). An abstract one has no path that
        // could be too long.
        let notified = |source| SandboxError::Network {
            doing: "listening for the boot of",
            target: self.name.clone(),
            source,
        };
        let socket_name = format!("converge-sandbox/{machine}");
        let address = UnixAddress::from_abstract_name(&socket_name).map_err(notified)?;
        let socket = UnixDatagram::bind_addr(&address).map_err(notified)?;
        socket.set_read_timeout(Some(Duration::from_millis(100))).map_err(notified)?;

        let pid_file = self.folder.join("pid");
        remove_tree(&pid_file)?;
        let console = self.folder.join("console");
        let output = File::create(&console).map_err(SandboxError::path("writing", &console))?;
        let complaints = output.try_clone().map_err(SandboxError::path("writing", &console))?;
        let mut command = program("setsid");
        command.args(["--fork", "sh", "-c", LAUNCH, "converge-sandbox"]).arg(&pid_file);
        command.args(control_groups(&machine)?).arg("--");
        command
            .args([
                "systemd-nspawn",
                "--quiet",
                "--boot",
                "--register=no",
                "--keep-unit",
                "--notify-ready=yes",
            ])
            .args(["--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe"])
            .arg(format!("--machine={machine}"))
            .arg(format!("--hostname={}", self.name))
            .arg(format!("--network-namespace-path={}", network::path(&machine).display()))
            .arg("--directory")
            .arg(&self.root);
        for (folder, seen) in self.repositories.iter().zip(REPOSITORIES) {
            let folder = mounts::escaped(folder, b"\\:");
            command.arg(format!("--bind-ro={}:{seen}", String::from_utf8_lossy(&folder)));
        }
        command.env("NOTIFY_SOCKET", format!("@{socket_name}")).stdout(output).stderr(complaints);
        let started = Instant::now();
        command
            .status()
            .map_err(|source| SandboxError::Start { command: "setsid".to_owned(), source })?;
        self.wait_until_up(&socket, started)
    }

    fn wait_until_up(&self, socket: &UnixDatagram, started: Instant) -> Result<(), SandboxError> {
        let failed = |reason: &str| SandboxError::Boot {
            host: self.name.clone(),
            reason: reason.to_owned(),
            console: fs::read(self.folder.join("console"))
                .map(|text| tail(&text))
                .unwrap_or_default(),
        };
        let mut message = [0; 4096];
        loop {
            match socket.recv(&mut message) {
                Ok(length) if says_ready(&message[..length]) => break,
                Ok(_) => continue,
                Err(error) if waits(&error) => {}
                Err(error) => return Err(failed(&error.to_string())),
            }
            let launched =
                self.folder.join("pid").exists() || started.elapsed() > Duration::from_secs(10);
            if launched && !self.is_running() {
                return Err(failed("it ended"));
            }
            if started.elapsed() > BOOT_LIMIT {
                return Err(failed(&format!("it was not up after {} s", BOOT_LIMIT.as_secs())));
            }
        }
        let sshd = SocketAddr::new(self.address, self.port);
        loop {
            match network::inside(&self.namespace, || {
                TcpStream::connect_timeout(&sshd, Duration::from_secs(1))
            })? {
                Ok(_) => return Ok(()),
                Err(error) if started.elapsed() > BOOT_LIMIT => {
                    return Err(failed(&format!("its sshd does not answer: {error}")));
                }
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Takes its power away: every process of it is killed at once, and what it wrote stays for the next
    /// [`boot`](Self::boot).
    ///
    /// # Errors
    /// [`SandboxError::Boot`] if something of it cannot be killed.
    pub fn power_off_hard(&self) -> Result<(), SandboxError> {
        let machine = self.machine();
        let started = Instant::now();
        loop {
            // nspawn alone is not enough: the host's first process outlives it for a while.
            let mut processes = network::processes(&machine);
            processes.extend(self.process());
            if processes.is_empty() {
                return remove_tree(&self.folder.join("pid"));
            }
            if started.elapsed() > END_LIMIT {
                return Err(SandboxError::Boot {
                    host: self.name.clone(),
                    reason: format!("{} of its processes cannot be killed", processes.len()),
                    console: String::new(),
                });
            }
            for process in processes {
                // It may have ended by itself.
                let _ = kill_process(process, Signal::KILL);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Cuts it off from the network; it runs on.
    ///
    /// # Errors
    /// Those of ip(8).
    pub fn link_down(&self) -> Result<(), SandboxError> {
        network::set_link(&self.prefix, &network::link(self.number), "down")
    }

    /// Joins it to the network again.
    ///
    /// # Errors
    /// Those of ip(8).
    pub fn link_up(&self) -> Result<(), SandboxError> {
        network::set_link(&self.prefix, &network::link(self.number), "up")
    }

    /// OpenSSH's `ssh` to it as that user, without any configuration of the machine's. Standard input is empty
    /// unless the caller says otherwise; a command to run there may be added as an argument.
    pub fn ssh_command(&self, user: &str) -> Command {
        let mut command = program("ip");
        command
            .args(["netns", "exec", &self.prefix, "ssh", "-F", "none", "-i"])
            .arg(&self.identity_file)
            .args([
                "-o",
                "IdentitiesOnly=yes",
                "-o",
                "StrictHostKeyChecking=yes",
                "-o",
                "LogLevel=ERROR",
            ])
            .args(["-o", "GlobalKnownHostsFile=/dev/null", "-o"])
            .arg(format!("UserKnownHostsFile=\"{}\"", self.known_hosts.display()))
            .args(["-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5"])
            .args(["-p", &self.port.to_string(), "-l", user, &self.address.to_string()]);
        command
    }

    /// Runs a shell command on it as root and waits for its end; its exit code is the caller's to judge.
    ///
    /// # Errors
    /// [`SandboxError::Start`] if ssh cannot be run.
    pub fn ssh(&self, command: &str) -> Result<Output, SandboxError> {
        self.ssh_command("root")
            .args(["--", command])
            .stdin(Stdio::null())
            .output()
            .map_err(|source| SandboxError::Start { command: "ssh".to_owned(), source })
    }

    /// Makes one of its ports reachable on a loopback port of the machine.
    ///
    /// # Errors
    /// [`SandboxError::Network`] if no loopback port can be had.
    pub fn forward(&self, port: u16) -> Result<Forward, SandboxError> {
        Forward::new(self.namespace.clone(), SocketAddr::new(self.address, port))
    }

    /// Gives it a root, a network and what it needs to know; anything older of it must be gone.
    pub(super) fn prepare(&self, image: &Path, authorized_key: &str) -> Result<(), SandboxError> {
        let (upper, work) = (self.folder.join("upper"), self.folder.join("work"));
        for folder in [&upper, &work, &self.root] {
            make_folder(folder)?;
        }
        write(&self.folder.join("number"), &self.number.to_string(), 0o644)?;
        network::make_host_end(&self.prefix, &self.machine(), self.number)?;
        mounts::overlay(image, &upper, &work, &self.root)?;
        let uuid = Path::new("/proc/sys/kernel/random/uuid");
        let uuid = fs::read_to_string(uuid).map_err(SandboxError::path("reading", uuid))?;
        write(&self.root.join("etc/machine-id"), &uuid.replace('-', ""), 0o444)?;
        write(&self.root.join("etc/hostname"), &format!("{}\n", self.name), 0o644)?;
        write(&self.root.join("root/.ssh/authorized_keys"), authorized_key, 0o600)
    }

    /// The name of its namespace, its control groups and its machine.
    pub(super) fn machine(&self) -> String {
        format!("{}-{}", self.prefix, self.number)
    }

    /// The process of nspawn, if it is there: a number alone may be somebody else's by now.
    fn process(&self) -> Option<Pid> {
        let pid: i32 = fs::read_to_string(self.folder.join("pid")).ok()?.trim().parse().ok()?;
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let wanted = format!("--machine={}", self.machine());
        arguments
            .split(|byte| *byte == 0)
            .any(|argument| argument == wanted.as_bytes())
            .then(|| Pid::from_raw(pid))
            .flatten()
    }
}

/// Makes a control group for the host in each hierarchy that systemd uses: without one of their own, the hosts that
/// one process boots would share theirs, and each would stop the others' services.
fn control_groups(machine: &str) -> Result<Vec<PathBuf>, SandboxError> {
    let base = Path::new("/sys/fs/cgroup");
    let hierarchies = if base.join("cgroup.controllers").exists() {
        vec![base.to_owned()]
    } else {
        vec![base.join("unified"), base.join("systemd")]
    };
    let mut groups = Vec::new();
    for hierarchy in
        hierarchies.into_iter().filter(|hierarchy| hierarchy.join("cgroup.procs").exists())
    {
        let group = hierarchy.join(machine);
        make_folder(&group)?;
        groups.push(group);
    }
    Ok(groups)
}

fn says_ready(message: &[u8]) -> bool {
    message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
}

fn waits(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
