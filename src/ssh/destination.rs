//! Where to connect and under which rules, everything decided.

use std::path::PathBuf;
use std::time::Duration;

use super::Password;

/// Whether a text can be the name or address of a host, by OpenSSH's own rule since 9.6 (`valid_hostname` of ssh.c):
/// names go into the shell line of a `ProxyCommand`.
#[must_use]
pub fn is_host_name(name: &str) -> bool {
    let wrong = |c: char| c.is_whitespace() || c.is_control() || "'`\"$\\;&<>|(){}".contains(c);
    !name.is_empty() && !name.starts_with('-') && !name.contains(wrong)
}

/// Whether a text can be the name of a user to log in as (`valid_ruser` of ssh.c).
#[must_use]
pub fn is_user_name(name: &str) -> bool {
    let wrong = |c: char| c.is_control() || "'`\";&<>|(){}".contains(c);
    let mut pairs = name.chars().zip(name.chars().skip(1));
    !name.is_empty()
        && !name.starts_with('-')
        && !name.ends_with('\\')
        && !name.contains(wrong)
        && !pairs.any(|(first, second)| first.is_whitespace() && second == '-')
}

/// Says everything that one connection needs; made by [`Client::resolve`](super::Client::resolve).
///
/// Changing a field afterwards is fine: nothing here is asked from `ssh` again.
#[derive(Clone, Debug)]
pub struct Destination {
    /// What people call the host: the name in the inventory. Used in messages.
    pub name: String,
    /// The name or address that is dialled.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The user to log in as.
    pub user: String,
    /// Key files in the order in which they are offered.
    pub identity_files: Vec<IdentityFile>,
    /// Whether only `identity_files` are offered, even if the agent holds more keys (`IdentitiesOnly`).
    pub identities_only: bool,
    /// The socket of the ssh agent, if there is one.
    pub agent: Option<PathBuf>,
    /// The password to log in with (`-k`).
    pub password: Option<Password>,
    /// The hosts to pass through, nearest first.
    pub jump: Vec<Destination>,
    /// A command whose standard input and output are used in place of a TCP connection (`ProxyCommand`), with its
    /// tokens expanded.
    pub proxy_command: Option<String>,
    /// How the host's key is judged.
    pub host_keys: HostKeyRules,
    /// How long TCP connection, banner, key exchange and authentication may take together. The time that a person
    /// takes to answer a question does not count.
    pub connect_timeout: Duration,
    /// How a dead peer is noticed.
    pub keepalive: Keepalive,
    /// The network in which the TCP connection is made. Only the first hop's counts.
    pub network: Network,
}

impl Destination {
    /// Makes a destination with OpenSSH's defaults and nothing read from any configuration.
    pub fn new(host: impl Into<String>, user: impl Into<String>) -> Self {
        let host = host.into();
        Self {
            name: host.clone(),
            host,
            port: 22,
            user: user.into(),
            identity_files: Vec::new(),
            identities_only: false,
            agent: None,
            password: None,
            jump: Vec::new(),
            proxy_command: None,
            host_keys: HostKeyRules::default(),
            connect_timeout: Duration::from_secs(10),
            keepalive: Keepalive::default(),
            network: Network::Direct,
        }
    }

    /// `host` for the standard port, `host:port` otherwise; for messages.
    #[must_use]
    pub fn address(&self) -> String {
        match (self.port, self.host.contains(':')) {
            (22, _) => self.host.clone(),
            (port, false) => format!("{}:{port}", self.host),
            (port, true) => format!("[{}]:{port}", self.host),
        }
    }
}

/// A private key's file, and whether a person named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFile {
    /// The private key; its public part may lie beside it as `PATH.pub`.
    pub path: PathBuf,
    /// `false` for the files that are tried by default: they are passed over silently if missing.
    pub named: bool,
}

/// How a host's key is judged, and where the known ones are.
#[derive(Clone, Debug, Default)]
pub struct HostKeyRules {
    /// The name under which the key is looked up in place of host and port (`HostKeyAlias`).
    pub alias: Option<String>,
    /// The user's `known_hosts` files. The first is the one that `accept-new` appends to.
    pub user_files: Vec<PathBuf>,
    /// The system's `known_hosts` files.
    pub global_files: Vec<PathBuf>,
    /// What is done about a host that no file knows.
    pub unknown: UnknownHostKey,
    /// Whether appended names are hashed (`HashKnownHosts`).
    pub hash_names: bool,
}

/// What is done about a host key that no `known_hosts` file lists. A changed or revoked key always stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownHostKey {
    /// Refuse, and say how to accept it.
    #[default]
    Refuse,
    /// Write it down and go on (`StrictHostKeyChecking accept-new` or `no`).
    Append,
}

/// How a peer that has gone away without a word is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence after which the peer is asked for a sign of life; `None`: never.
    pub interval: Option<Duration>,
    /// Questions without an answer after which the connection counts as lost.
    pub count: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: Some(Duration::from_secs(15)), count: 3 }
    }
}

/// The network in which a TCP connection is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The controller's own.
    #[default]
    Direct,
    /// The network name space bound to this path (`/run/netns/NAME`).
    Namespace(PathBuf),
}
