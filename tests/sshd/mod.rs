//! A real sshd on loopback with users of its own, for tests of the ssh room.
//!
//! It runs in a mount name space in which `/etc/passwd`, `/home`, `/var/lib` and the like are the test's, so that
//! nothing on the machine is changed. That needs root; without it, or without sshd, tests say so and pass.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use converge::ssh::{Client, Destination, Environment, IdentityFile, Refuse};

/// The password of every user, and its hash.
pub const PASSWORD: &str = "correct horse";
const HASH: &str = "$6$converge$un9MzGBUi/l7DUvlUp1agt4L45O/o7O66poV7i0tFDiqlNno.QNAjTvjUqv/A0hGTpomgqLDix5CnvuO1n.V8.";

/// Users besides root: name, uid, shell.
const USERS: [(&str, u32, &str); 3] =
    [("zoe", 12345, "/bin/bash"), ("dan", 12346, "/bin/dash"), ("amy", 12347, "/bin/bash")];

/// Keys that are made once for all tests of a program.
pub struct KeyRing {
    folder: tempfile::TempDir,
}

/// All kinds of host and user keys.
pub const KINDS: [&str; 3] = ["ed25519", "ecdsa", "rsa"];

impl KeyRing {
    pub fn get() -> &'static Self {
        static RING: OnceLock<KeyRing> = OnceLock::new();
        RING.get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            for kind in KINDS {
                for purpose in ["host", "user", "other"] {
                    keygen(
                        &["-t", kind, "-N", "", "-f", &format!("{purpose}_{kind}")],
                        folder.path(),
                    );
                }
            }
            keygen(&["-t", "ed25519", "-N", "open sesame", "-f", "user_locked"], folder.path());
            keygen(
                &["-t", "rsa", "-m", "PEM", "-N", "open sesame", "-f", "user_sealed"],
                folder.path(),
            );
            fs::remove_file(folder.path().join("user_sealed.pub")).unwrap();
            Self { folder }
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `TYPE BASE64` of a key.
    pub fn public(&self, name: &str) -> String {
        let output = Command::new("ssh-keygen")
            .arg("-y")
            .args(["-P", "open sesame", "-f"])
            .arg(self.path(name))
            .output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }
}

pub fn keygen(arguments: &[&str], folder: &Path) {
    let output =
        Command::new("ssh-keygen").arg("-q").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A running sshd.
pub struct Sshd {
    pub port: u16,
    pub folder: tempfile::TempDir,
    child: Child,
}

/// What is special about an sshd.
#[derive(Default)]
pub struct Options {
    /// Further lines of sshd_config.
    pub config: String,
    /// Shell lines that run in the name space before sshd starts; `$T` is the test's folder.
    pub setup: String,
    /// Whether it has a network name space of its own.
    pub own_network: bool,
}

impl Sshd {
    /// Starts sshd; `None`, with a line that says why, where that cannot be.
    pub fn start(options: &Options) -> Option<Self> {
        if let Some(missing) = missing() {
            println!("skipped: {missing}");
            return None;
        }
        let ring = KeyRing::get();
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
        let mut passwd =
            "root:x:0:0:root:/root:/bin/bash\nsshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n\
                          nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
                .to_owned();
        let mut group = "root:x:0:\nnogroup:x:65534:\n".to_owned();
        let mut shadow =
            format!("root:{HASH}:19000:0:99999:7:::\nsshd:*:19000::::::\nnobody:*:19000::::::\n");
        for (name, uid, shell) in USERS {
            passwd += &format!("{name}:x:{uid}:{uid}::/home/{name}:{shell}\n");
            group += &format!("{name}:x:{uid}:\n");
            shadow += &format!("{name}:{HASH}:19000:0:99999:7:::\n");
        }
        write("passwd", passwd);
        write("group", group);
        write("shadow", shadow);
        write("pam", "auth required pam_unix.so nodelay\naccount required pam_unix.so\nsession optional pam_permit.so\n".into());
        write("sudoers", "Defaults use_pty, !lecture\nroot ALL=(ALL:ALL) ALL\nzoe ALL=(ALL) ALL\ndan ALL=(ALL) NOPASSWD: ALL\n".into());
        fs::set_permissions(folder.path().join("sudoers"), fs::Permissions::from_mode(0o440))
            .unwrap();
        let keys = ["user_ed25519", "user_ecdsa", "user_rsa", "user_locked", "user_sealed"];
        write("authorized_keys", keys.map(|key| ring.public(key) + "\n").concat());
        let host_keys = KINDS
            .map(|kind| format!("HostKey {}\n", ring.path(&format!("host_{kind}")).display()))
            .concat();
        write(
            "sshd_config",
            format!(
                "{}\nListenAddress 127.0.0.1\nPort {port}\n{host_keys}AuthorizedKeysFile {}/authorized_keys\nPidFile none\n\
                 StrictModes no\nUseDNS no\nPermitRootLogin yes\nPasswordAuthentication no\n\
                 KbdInteractiveAuthentication no\nMaxStartups 500\nLogLevel ERROR\n",
                options.config,
                folder.path().display()
            ),
        );
        let setup = format!(
            "set -e; T={}; mount -t tmpfs tmpfs /home; mount -t tmpfs tmpfs /var/lib; mount -t tmpfs -o mode=1777 tmpfs /var/tmp\n\
             mount -t tmpfs tmpfs /run; mkdir -p /run/sshd /run/lock; ip link set lo up 2>/dev/null || true\n\
             for f in passwd group shadow sudoers; do [ ! -e /etc/$f ] || mount --bind $T/$f /etc/$f; done\n\
             for f in sshd sudo; do [ ! -e /etc/pam.d/$f ] || mount --bind $T/pam /etc/pam.d/$f; done\n\
             for u in zoe dan amy; do mkdir /home/$u; chown $u:$u /home/$u; done\n{}\n\
             exec /usr/sbin/sshd -D -E $T/log -f $T/sshd_config",
            folder.path().display(),
            options.setup
        );
        let mut command = Command::new("unshare");
        // A process name space as well: whatever a test leaves running ends with sshd.
        command.args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]);
        if options.own_network {
            command.arg("--net");
        }
        let child = command
            .args(["/bin/sh", "-c", &setup])
            .stdin(Stdio::null())
            .stderr(fs::File::create(folder.path().join("setup")).unwrap())
            .spawn()
            .unwrap();
        let mut sshd = Self { port, folder, child };
        if !options.own_network {
            sshd.wait();
        } else {
            std::thread::sleep(Duration::from_millis(500));
        }
        Some(sshd)
    }

    fn wait(&mut self) {
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(10), "sshd does not start");
            if self.child.try_wait().unwrap().is_some() {
                panic!(
                    "sshd has ended: {}",
                    fs::read_to_string(self.folder.path().join("setup")).unwrap()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The process of sshd: its name spaces are at `/proc/PID/ns`.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a `known_hosts` file.
    pub fn known_hosts(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join("known_hosts");
        fs::write(&path, text).unwrap();
        path
    }

    /// A destination that works: the host key is known, and a key is accepted.
    pub fn destination(&self, user: &str) -> Destination {
        let ring = KeyRing::get();
        let known = self.known_hosts(&format!(
            "[127.0.0.1]:{} {}\n",
            self.port,
            ring.public("host_ed25519")
        ));
        let mut destination = Destination::new("127.0.0.1", user);
        destination.name = "test".into();
        destination.port = self.port;
        destination.host_keys.user_files = vec![known];
        destination.identity_files =
            vec![IdentityFile { path: ring.path("user_ed25519"), named: true }];
        destination
    }

    /// Runs a command in sshd's mount name space, as root.
    pub fn inside(&self, script: &str) -> String {
        let pid = self.pid().to_string();
        let output = Command::new("nsenter")
            .args(["-t", &pid, "-m", "/bin/sh", "-c", script])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // sshd is the child of `unshare`, which waits for it.
        let pid = self.child.id();
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children
            .split_whitespace()
            .filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?));
        for child in children.collect::<Vec<_>>() {
            let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("a real sshd with users of its own needs root");
    }
    ["/usr/sbin/sshd", "/usr/bin/ssh-keygen", "/usr/bin/unshare"]
        .into_iter()
        .find(|program| !Path::new(program).exists())
}

/// A client that asks nobody.
pub fn client() -> Client {
    Client::new(environment(), Arc::new(Refuse))
}

pub fn environment() -> Environment {
    Environment::new(None, "root", SystemTime::now)
}

/// A TCP relay to a port that can be told to stand still, as a host that has lost its power.
pub struct Relay {
    pub port: u16,
    still: Arc<std::sync::atomic::AtomicBool>,
}

impl Relay {
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap().port();
        let still = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flag = still.clone();
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let far = TcpStream::connect(("127.0.0.1", port)).unwrap();
                for (mut from, mut to) in
                    [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)]
                {
                    let flag = flag.clone();
                    std::thread::spawn(move || {
                        let mut buffer = [0; 16384];
                        while let Ok(read @ 1..) = from.read(&mut buffer) {
                            while flag.load(std::sync::atomic::Ordering::Relaxed) {
                                std::thread::sleep(Duration::from_millis(20));
                            }
                            if to.write_all(&buffer[..read]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        Self { port: here, still }
    }

    pub fn stand_still(&self) {
        self.still.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}
