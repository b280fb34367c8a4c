//! What OpenSSH's configuration says about a host: the answers of `ssh -G`.
//!
//! The program answers exactly, with Host, Match, Include, tokens and canonicalisation, in about 12 ms. Hosts whose
//! answer must be equal are asked for once ([`sharing`]). What the inventory says goes before it.

mod answer;
mod sharing;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::process::Command;
use tokio::sync::{OnceCell, Semaphore};

use self::answer::Answer;
use self::sharing::Sharing;
use super::error::printable;
use super::{
    Destination, Error, IdentityFile, Network, Password, UnknownHostKey, is_host_name, is_user_name,
};

/// What surrounds the controller; collected by the command line, because this room looks at none of it.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The home folder of whoever runs the controller.
    pub home: Option<PathBuf>,
    /// The name of whoever runs the controller: the user to log in as if nothing says otherwise.
    pub user: String,
    /// The numeric user id of whoever runs the controller.
    pub user_id: u32,
    /// The controller's own host name.
    pub host_name: String,
    /// The socket of the ssh agent (`SSH_AUTH_SOCK`).
    pub agent: Option<PathBuf>,
    /// The `ssh` program, if it is installed; [`Environment::find_ssh`] looks for it.
    pub ssh_program: Option<PathBuf>,
    /// A configuration file to read in place of the user's and the system's (`ssh -F`).
    pub configuration_file: Option<PathBuf>,
    /// The system's configuration file.
    pub system_configuration: PathBuf,
    /// The clock; certificates of hosts have a time.
    pub clock: fn() -> SystemTime,
}

impl Environment {
    /// An environment with OpenSSH's usual places and no agent.
    pub fn new(home: Option<PathBuf>, user: impl Into<String>, clock: fn() -> SystemTime) -> Self {
        Self {
            home,
            user: user.into(),
            user_id: rustix::process::getuid().as_raw(),
            host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            agent: None,
            ssh_program: None,
            configuration_file: None,
            system_configuration: "/etc/ssh/ssh_config".into(),
            clock,
        }
    }

    /// Looks for the `ssh` program in the folders of a `PATH`.
    #[must_use]
    pub fn find_ssh(path: &OsStr) -> Option<PathBuf> {
        std::env::split_paths(path)
            .map(|folder| folder.join("ssh"))
            .find(|program| program.is_file())
    }

    fn user_configuration(&self) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(".ssh/config"))
    }

    /// Expands a leading `~/`.
    fn expand_home(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), &self.home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => path.into(),
        }
    }
}

/// What the inventory and the command line say about reaching a host. What they leave open, OpenSSH's configuration
/// decides.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The host's name in the inventory.
    pub name: String,
    /// The name or address to connect to, if it is another (`ansible_host`, `ssh: { host }`).
    pub host: Option<String>,
    /// The port (`ansible_port`).
    pub port: Option<u16>,
    /// The user (`ansible_user`, `-u`).
    pub user: Option<String>,
    /// Key files, offered before those of the configuration (`--private-key`).
    pub identity_files: Vec<PathBuf>,
    /// The hosts to pass through, as `ssh -J` takes them: `[user@]host[:port],…`; `none` for none.
    pub jump: Option<String>,
    /// The password to log in with (`-k`).
    pub password: Option<Password>,
    /// How long connecting may take.
    pub connect_timeout: Option<Duration>,
    /// The network to connect in.
    pub network: Network,
}

/// Where to connect, and what a person should know about how that was decided.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Everything that the connection needs.
    pub destination: Destination,
    /// What the configuration asks for and is not done here.
    pub warnings: Vec<String>,
}

impl Resolved {
    /// What an answer of `ssh -G` comes to for a host, but for its jump hosts.
    pub fn of_answer(
        environment: &Environment,
        request: &Request,
        answer: &str,
    ) -> Result<Self, Error> {
        let host = request.host.as_deref().unwrap_or(&request.name);
        let wrong = |reason| Error::Configuration { host: host.to_owned(), reason };
        let mut warnings = Vec::new();
        let answer = Answer::parse(answer);
        let destination =
            build(environment, request, host, &answer, &mut warnings).map_err(wrong)?;
        Ok(Self { destination, warnings })
    }
}

/// Whether the configuration files give two hosts the same settings, as far as that can be told
/// without asking `ssh -G` for each.
pub fn share_settings(environment: &Environment, one: &str, other: &str) -> bool {
    let sharing = Sharing::read(environment);
    sharing.class(one) == sharing.class(other)
}

/// The files that OpenSSH offers by default.
const DEFAULT_IDENTITIES: [&str; 5] =
    ["id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk"];
/// Jump hosts behind jump hosts, at most.
const DEEPEST: usize = 8;
/// Processes of `ssh -G` at a time.
const PROCESSES: usize = 8;

/// Asks `ssh -G`, and keeps its answers.
#[derive(Debug)]
pub(super) struct Resolver {
    sharing: OnceLock<Sharing>,
    answers: Mutex<HashMap<Question, Arc<OnceCell<Arc<Answer>>>>>,
    processes: Semaphore,
}

impl Default for Resolver {
    fn default() -> Self {
        Self {
            sharing: OnceLock::new(),
            answers: Mutex::default(),
            processes: Semaphore::new(PROCESSES),
        }
    }
}

/// What an answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    host: sharing::Class,
    port: Option<u16>,
    user: Option<String>,
}

impl Resolver {
    pub(super) async fn resolve(
        &self,
        environment: &Environment,
        request: &Request,
    ) -> Result<Resolved, Error> {
        let mut warnings = Vec::new();
        let destination = self.destination(environment, request, &mut warnings, 0).await?;
        Ok(Resolved { destination, warnings })
    }

    async fn destination(
        &self,
        environment: &Environment,
        request: &Request,
        warnings: &mut Vec<String>,
        depth: usize,
    ) -> Result<Destination, Error> {
        let host = request.host.as_deref().unwrap_or(&request.name);
        let wrong = |reason: String| Error::Configuration { host: host.to_owned(), reason };
        if !is_host_name(host) {
            return Err(wrong(format!("`{}` is no host name", host.escape_debug())));
        }
        if let Some(user) = request.user.as_deref().filter(|user| !is_user_name(user)) {
            return Err(wrong(format!("`{}` is no user name", user.escape_debug())));
        }
        if depth > DEEPEST {
            return Err(wrong("the jump hosts lead in a circle".into()));
        }
        let answer = self.ask(environment, host, request, warnings).await?;
        let mut destination =
            build(environment, request, host, &answer, warnings).map_err(wrong)?;
        let jump = request
            .jump
            .as_deref()
            .or_else(|| answer.one("proxyjump"))
            .filter(|jump| *jump != "none");
        if let Some(jump) = jump {
            destination.proxy_command = None;
            for (index, hop) in jump.split(',').enumerate() {
                let mut hop =
                    parse_hop(hop).ok_or_else(|| wrong(format!("`{hop}` is no jump host")))?;
                // As in OpenSSH, only the first hop is reached as its own configuration says.
                hop.jump = (index > 0).then(|| "none".to_owned());
                let mut hop =
                    Box::pin(self.destination(environment, &hop, warnings, depth + 1)).await?;
                destination.jump.append(&mut hop.jump);
                if index > 0 {
                    hop.proxy_command = None;
                }
                destination.jump.push(hop);
            }
        } else if request.jump.is_some() {
            destination.proxy_command = None;
        }
        Ok(destination)
    }

    async fn ask(
        &self,
        environment: &Environment,
        host: &str,
        request: &Request,
        warnings: &mut Vec<String>,
    ) -> Result<Arc<Answer>, Error> {
        let Some(program) = &environment.ssh_program else {
            let configuration = environment.user_configuration().filter(|file| file.exists());
            if let Some(file) = configuration {
                let file = file.display();
                warnings.push(format!(
                    "{file} is not read: the `ssh` program, which understands it, is not installed"
                ));
            }
            return Ok(Arc::default());
        };
        let class = self.sharing.get_or_init(|| Sharing::read(environment)).class(host);
        let question = Question { host: class, port: request.port, user: request.user.clone() };
        let shared = matches!(question.host, sharing::Class::Shared(_));
        let cell = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.entry(question).or_default().clone()
        };
        let answer = cell
            .get_or_try_init(|| async {
                // Closing the semaphore is nobody's business, so that this cannot fail.
                let _turn = self.processes.acquire().await;
                run(program, environment, host, request).await.map(Arc::new)
            })
            .await?;
        if shared { Ok(Arc::new(answer.for_host(host))) } else { Ok(answer.clone()) }
    }
}

async fn run(
    program: &Path,
    environment: &Environment,
    host: &str,
    request: &Request,
) -> Result<Answer, Error> {
    let wrong = |reason: String| Error::Configuration { host: host.to_owned(), reason };
    let mut command = Command::new(program);
    command.arg("-G").stdin(Stdio::null()).kill_on_drop(true);
    if let Some(file) = &environment.configuration_file {
        command.arg("-F").arg(file);
    }
    if let Some(port) = request.port {
        command.arg("-p").arg(port.to_string());
    }
    if let Some(user) = &request.user {
        command.arg("-l").arg(user);
    }
    command.arg("--").arg(host);
    let output = tokio::time::timeout(Duration::from_secs(30), command.output()).await;
    let output = output.map_err(|_| wrong("`ssh -G` does not end".into()))?;
    let output =
        output.map_err(|error| wrong(format!("cannot start {}: {error}", program.display())))?;
    if !output.status.success() {
        return Err(wrong(printable(&output.stderr)));
    }
    Ok(Answer::parse(&String::from_utf8_lossy(&output.stdout)))
}

/// `[user@]host[:port]` or `ssh://…`, as in `ProxyJump`.
fn parse_hop(text: &str) -> Option<Request> {
    let text = text.trim();
    let text = text.strip_prefix("ssh://").unwrap_or(text);
    let (user, address) = match text.rsplit_once('@') {
        Some((user, address)) => (Some(user.to_owned()), address),
        None => (None, text),
    };
    let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
        None => match address.split_once(':') {
            // More than one colon: an IPv6 address without brackets.
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (address, None),
        },
    };
    let port = port.map(str::parse).transpose().ok()?;
    (!host.is_empty()).then(|| Request { name: host.to_owned(), user, port, ..Request::default() })
}

/// Puts an answer and a request together.
fn build(
    environment: &Environment,
    request: &Request,
    host: &str,
    answer: &Answer,
    warnings: &mut Vec<String>,
) -> Result<Destination, String> {
    let user = request.user.as_deref().or(answer.one("user")).unwrap_or(&environment.user);
    let mut destination = Destination::new(answer.one("hostname").unwrap_or(host), user);
    destination.name.clone_from(&request.name);
    destination.port = match (request.port, answer.one("port")) {
        (Some(port), _) => port,
        (None, Some(port)) => port.parse().map_err(|_| format!("`{port}` is no port"))?,
        (None, None) => 22,
    };
    destination.password.clone_from(&request.password);
    destination.network.clone_from(&request.network);
    let rules = &mut destination.host_keys;
    rules.alias = answer.one("hostkeyalias").map(str::to_owned);
    rules.unknown = match answer.one("stricthostkeychecking") {
        Some("accept-new" | "false" | "no" | "off") => UnknownHostKey::Append,
        _ => UnknownHostKey::Refuse,
    };
    rules.hash_names = answer.one("hashknownhosts") == Some("yes");
    let files = |key: &str, default: &str| -> Vec<PathBuf> {
        let listed = answer.one(key).unwrap_or(default);
        answer::split_paths(listed).iter().map(|path| environment.expand_home(path)).collect()
    };
    rules.user_files = files("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2");
    rules.global_files =
        files("globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2");
    if let Some(timeout) = request.connect_timeout.or_else(|| answer.seconds("connecttimeout")) {
        destination.connect_timeout = timeout;
    }
    // `ssh -G` says 0 where nothing is set, so that "never" cannot be told from "not set".
    if let Some(interval) =
        answer.seconds("serveraliveinterval").filter(|interval| !interval.is_zero())
    {
        destination.keepalive.interval = Some(interval);
    }
    if let Some(count) = answer.one("serveralivecountmax").and_then(|count| count.parse().ok()) {
        destination.keepalive.count = count;
    }
    let tokens = Tokens { environment, destination: &destination, host };
    let named =
        request.identity_files.iter().map(|path| IdentityFile { path: path.clone(), named: true });
    let defaults = DEFAULT_IDENTITIES.map(|name| format!("~/.ssh/{name}"));
    let configured: Vec<String> = match answer.all("identityfile") {
        [] => defaults.to_vec(),
        files => files.iter().filter(|file| *file != "none").cloned().collect(),
    };
    let configured = configured.iter().map(|file| IdentityFile {
        path: environment.expand_home(&tokens.expand(file)),
        named: !defaults.contains(file)
            && !["~/.ssh/id_xmss", "~/.ssh/id_dsa"].contains(&file.as_str()),
    });
    let identity_files = named.chain(configured).collect();
    let agent = match answer.one("identityagent") {
        None | Some("SSH_AUTH_SOCK" | "$SSH_AUTH_SOCK" | "${SSH_AUTH_SOCK}") => {
            environment.agent.clone()
        }
        Some("none") => None,
        Some(path) => Some(environment.expand_home(&tokens.expand(path))),
    };
    let proxy = answer.one("proxycommand").filter(|command| *command != "none");
    let proxy_command = proxy.map(|command| tokens.expand(command));
    destination.identity_files = identity_files;
    destination.identities_only = answer.one("identitiesonly") == Some("yes");
    destination.agent = agent;
    destination.proxy_command = proxy_command;
    for (option, harmless) in [
        ("knownhostscommand", "none"),
        ("revokedhostkeys", "none"),
        ("certificatefile", "none"),
        ("bindaddress", ""),
        ("bindinterface", ""),
    ] {
        if answer.one(option).is_some_and(|value| value != harmless) {
            warnings.push(format!(
                "the ssh configuration sets {option} for {host}, which is not honoured"
            ));
        }
    }
    Ok(destination)
}

/// The percent tokens of ssh_config(5), "TOKENS", as far as key files, agents and proxy commands take them.
struct Tokens<'a> {
    environment: &'a Environment,
    destination: &'a Destination,
    host: &'a str,
}

impl Tokens<'_> {
    fn expand(&self, text: &str) -> String {
        let mut expanded = String::with_capacity(text.len());
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                expanded.push(character);
                continue;
            }
            match characters.next() {
                Some(token) => match self.value(token) {
                    Some(value) => expanded.push_str(&value),
                    None => expanded.extend(['%', token]),
                },
                None => expanded.push('%'),
            }
        }
        expanded
    }

    fn value(&self, token: char) -> Option<String> {
        let Self { environment, destination, host } = self;
        Some(match token {
            '%' => "%".into(),
            'd' => environment.home.as_ref()?.to_string_lossy().into_owned(),
            'h' => destination.host.clone(),
            'i' => environment.user_id.to_string(),
            'k' => destination.host_keys.alias.clone().unwrap_or_else(|| (*host).to_owned()),
            'L' => environment.host_name.split('.').next().unwrap_or_default().to_owned(),
            'l' => environment.host_name.clone(),
            'n' => (*host).to_owned(),
            'p' => destination.port.to_string(),
            'r' => destination.user.clone(),
            'u' => environment.user.clone(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
