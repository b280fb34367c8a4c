//! Everything that can go wrong on the way to a host, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a host could not be reached, or the agent could not be started on it.
///
/// Texts that come from a host are bounded and free of control characters.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's name has no address.
    #[error("cannot find the address of {host}: {source}")]
    Lookup {
        /// The name that was looked up.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No address of the host accepted a TCP connection.
    #[error("cannot connect to {host} port {port}: {reason}")]
    Connect {
        /// The name or address that was dialled.
        host: String,
        /// The TCP port.
        port: u16,
        /// What each address answered.
        reason: String,
    },
    /// The network name space could not be entered.
    #[error("cannot enter the network name space {}: {source}", path.display())]
    Namespace {
        /// Where it is bound.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `ProxyCommand` could not be started.
    #[error("cannot start the proxy command `{command}`: {source}")]
    ProxyCommand {
        /// The command, with its tokens expanded.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// The host did not get through with connecting in time.
    #[error("{address} did not finish {stage} within {} s", after.as_secs_f32())]
    TimedOut {
        /// Host and port.
        address: String,
        /// What was going on.
        stage: Stage,
        /// The time that all of connecting may take.
        after: Duration,
    },
    /// The peer does not speak SSH as we do.
    #[error("cannot agree with {address} on a connection: {reason}")]
    Protocol {
        /// Host and port.
        address: String,
        /// What happened.
        reason: String,
    },
    /// No `known_hosts` file knows the host.
    #[error("the host key of {} is not known: {shown}", shown.address)]
    HostKeyUnknown {
        /// The key that the host showed.
        shown: Box<ShownKey>,
        /// The command line that accepts it, once the fingerprint was compared.
        accept: String,
    },
    /// The host showed another key than the one that is on file.
    #[error(
        "the host key of {} has changed: it is now {shown}, {}:{line} says otherwise",
        shown.address, file.display()
    )]
    HostKeyChanged {
        /// The key that the host showed.
        shown: Box<ShownKey>,
        /// The file with the other key.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// The command line that forgets the old key.
        forget: String,
    },
    /// The host showed a key that is marked `@revoked`.
    #[error("the host key of {} is revoked by {}:{line}: {shown}", shown.address, file.display())]
    HostKeyRevoked {
        /// The key that the host showed.
        shown: Box<ShownKey>,
        /// The file that revokes it.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// A `known_hosts` file exists and cannot be read or written.
    #[error("cannot use {}: {source}", file.display())]
    KnownHosts {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The host let us in by none of the ways that we have.
    #[error("{address} does not let {user} in{}", Attempts(attempts))]
    Authentication {
        /// Host and port.
        address: String,
        /// The user that was to log in.
        user: String,
        /// What was tried, in order.
        attempts: Vec<Attempt>,
        /// The methods that the host would accept, as it names them.
        offered: Vec<String>,
    },
    /// OpenSSH's configuration gives no usable answer for the host.
    #[error("cannot read the ssh configuration for {host}: {reason}")]
    Configuration {
        /// The name that was asked for.
        host: String,
        /// What `ssh -G` said, or what is wrong with its answer.
        reason: String,
    },
    /// One of the hosts on the way failed.
    #[error("jump host {hop}: {source}")]
    Jump {
        /// The hop that failed.
        hop: String,
        /// Why.
        source: Box<Error>,
    },
    /// A jump host is connected, but does not forward to the next host.
    #[error("{hop} does not forward to {address}: {reason}")]
    Forward {
        /// The jump host.
        hop: String,
        /// The host behind it.
        address: String,
        /// What the jump host said.
        reason: String,
    },
    /// The host refused to start a command.
    #[error("{address} does not start a command: {reason}")]
    Exec {
        /// Host and port.
        address: String,
        /// What it said.
        reason: String,
    },
    /// The connection broke while the agent was being started.
    #[error("the connection to {host} broke: {reason}")]
    Lost {
        /// The host's name.
        host: String,
        /// What was seen.
        reason: String,
    },
    /// The host is of another kind than the agent program that we have.
    #[error("{host} is {theirs}; there is no agent for it here, only for {ours}")]
    NoAgentFor {
        /// The host's name.
        host: String,
        /// What `uname -s` and `uname -m` say there.
        theirs: String,
        /// The system and machine that our program is for.
        ours: String,
    },
    /// `become` was asked for and the host has no sudo.
    #[error("sudo is not installed on {host}")]
    SudoMissing {
        /// The host's name.
        host: String,
    },
    /// sudo wants a password and there is none.
    #[error("sudo on {host} needs a password")]
    SudoPasswordNeeded {
        /// The host's name.
        host: String,
    },
    /// sudo did not take the password.
    #[error("sudo on {host} does not accept the password")]
    SudoPasswordWrong {
        /// The host's name.
        host: String,
    },
    /// sudo refuses for another reason.
    #[error("sudo on {host} refuses: {reason}")]
    SudoRefused {
        /// The host's name.
        host: String,
        /// What sudo said.
        reason: String,
    },
    /// No folder on the host can hold the agent safely.
    #[error("no folder on {host} can hold the agent: {reason}")]
    NoFolder {
        /// The host's name.
        host: String,
        /// Each folder, with what is wrong with it.
        reason: String,
    },
    /// The agent's program could not be written on the host.
    #[error("cannot store the agent on {host}: {reason}")]
    Upload {
        /// The host's name.
        host: String,
        /// What the host said.
        reason: String,
    },
    /// The command that starts the agent ended without a word from the agent.
    #[error("the agent did not start on {host}: {reason}")]
    Silent {
        /// The host's name.
        host: String,
        /// How it ended, and what it printed.
        reason: String,
    },
    /// Our own agent program cannot be read.
    #[error("cannot read the agent program {}: {source}", path.display())]
    Program {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// What a person can do about it, in a sentence or two; none where the message says it all.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Lookup { .. } => "check the name, or give the address as `ansible_host` or `ssh: { host: … }`".into(),
            Self::Connect { .. } => "check that the host is up, that sshd listens there, and the port".into(),
            Self::TimedOut { .. } => {
                "check that the host is up and that no firewall drops the packets; `ConnectTimeout` in ~/.ssh/config \
                 allows more time"
                    .into()
            }
            Self::HostKeyUnknown { accept, .. } => format!(
                "compare the fingerprint with the one that the host's console shows (`ssh-keygen -lf \
                 /etc/ssh/ssh_host_…_key.pub`), then accept it: {accept}"
            ),
            Self::HostKeyChanged { forget, .. } => format!(
                "somebody may be between you and the host, or it was installed anew. If you know why the key \
                 changed: {forget}"
            ),
            Self::HostKeyRevoked { .. } => "give the host a new key; this one must not be trusted".into(),
            Self::Authentication { offered, attempts, .. } => authentication_hint(offered, attempts),
            Self::Protocol { reason, .. } if reason.contains("closed") => {
                "sshd may have too many connections at once (MaxStartups): use fewer --forks, or look at its log".into()
            }
            Self::Forward { .. } => "check AllowTcpForwarding in the jump host's sshd_config".into(),
            Self::NoAgentFor { theirs, .. } => {
                format!("build converge-agent for {theirs} and name its folder in CONVERGE_AGENT_DIR")
            }
            Self::SudoMissing { .. } => "install sudo there, log in as root, or leave out `become`".into(),
            Self::SudoPasswordNeeded { .. } => "give -K (--ask-become-pass), or allow the user NOPASSWD in sudoers".into(),
            Self::SudoPasswordWrong { .. } => "-K asks for the password of the login user on that host".into(),
            Self::SudoRefused { reason, .. } if reason.contains("tty") => {
                "remove `Defaults requiretty` from the host's sudoers".into()
            }
            Self::SudoRefused { .. } => {
                "look at `sudo -l` there; if it needs a password, give -K (--ask-become-pass)".into()
            }
            Self::Upload { .. } => "free some space there; nothing was left under the agent's name".into(),
            Self::Jump { source, .. } => return source.hint(),
            _ => return None,
        })
    }
}

fn authentication_hint(offered: &[String], attempts: &[Attempt]) -> String {
    let takes = |method: &str| offered.iter().any(|name| name == method);
    let passwords = takes("password") || takes("keyboard-interactive");
    if attempts.iter().any(|attempt| attempt.outcome.contains("Too many authentication failures")) {
        return "the agent offers too many keys: name the right one and set `IdentitiesOnly yes` in ~/.ssh/config".into();
    }
    match (takes("publickey"), passwords) {
        (true, true) => "add your public key to the user's authorized_keys there, name the key with --private-key, or \
                         give -k to be asked for a password"
            .into(),
        (false, true) => "the host wants a password: give -k (--ask-pass)".into(),
        _ => "add your public key to the user's authorized_keys there, or name the key with --private-key".into(),
    }
}

/// A host key, as a message shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownKey {
    /// Host and port of the host that showed it.
    pub address: String,
    /// The kind of key, as in `known_hosts`.
    pub algorithm: String,
    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
}

impl fmt::Display for ShownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, self.fingerprint)
    }
}

/// One way in that was tried, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The method and, for keys, which one.
    pub method: String,
    /// Why it did not work.
    pub outcome: String,
}

/// Prints attempts as the tail of a sentence.
struct Attempts<'a>(&'a [Attempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(": there is no key, no agent and no password to try");
        }
        let mut separator = ": ";
        for attempt in self.0 {
            write!(f, "{separator}{}: {}", attempt.method, attempt.outcome)?;
            separator = "; ";
        }
        Ok(())
    }
}

/// What was going on when the time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The TCP connection.
    Connecting,
    /// Banner and key exchange.
    KeyExchange,
    /// Logging in.
    Authentication,
    /// Starting the agent.
    Bootstrap,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "the TCP connection",
            Self::KeyExchange => "the SSH key exchange",
            Self::Authentication => "the log-in",
            Self::Bootstrap => "starting the agent",
        })
    }
}

/// The longest text of a host that goes into an error, in characters.
const LONGEST_TEXT: usize = 2000;

/// Makes text from a host fit to be shown: bounded, trimmed, and without control characters.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    let skip = text.chars().count().saturating_sub(LONGEST_TEXT);
    let mut shown: String = if skip > 0 { "…".into() } else { String::new() };
    for character in text.chars().skip(skip) {
        match character {
            '\r' => {}
            '\n' | '\t' => shown.push(character),
            control if control.is_control() => shown.extend(control.escape_default()),
            other => shown.push(other),
        }
    }
    shown
}
