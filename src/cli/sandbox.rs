use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use super::arguments::{InventorySource, SandboxAction, SandboxArguments};
use super::load::{self, Loaded};
use super::screen::show;
use super::{CliError, EXIT_OK, Surroundings};
use crate::diagnostic::Diagnostics;
use crate::inventory::ConnectionKind;
use crate::sandbox::{Host, Lifetime, Locations, Sandbox};
use crate::ssh::{Destination, HostKeyRules, IdentityFile, Network, UnknownHostKey};

/// The sandbox hosts of a run, by their name in the inventory.
#[derive(Default)]
pub(super) struct Hosts {
    hosts: BTreeMap<String, Host>,
    /// Ends its hosts when it goes, unless they are kept.
    _sandbox: Option<Sandbox>,
}

impl Hosts {
    /// Boots the sandbox hosts that a run needs, with the packages that it declares at hand.
    pub(super) fn boot(
        surroundings: &Surroundings,
        loaded: &Loaded,
        keep: bool,
    ) -> Result<Self, CliError> {
        let wanted: Vec<String> = loaded
            .connections
            .iter()
            .chain(&loaded.beside)
            .filter(|(_, connection)| connection.kind == ConnectionKind::Sandbox)
            .map(|(name, _)| name.clone())
            .collect();
        if wanted.is_empty() {
            return Ok(Self::default());
        }
        let suffix = if keep { String::new() } else { format!("-test-{}", std::process::id()) };
        let name = format!("{}-{}{suffix}", loaded.project.name(), loaded.inventory);
        let sandbox = Sandbox::new(&name, locations(surroundings));
        let progress = |line: &str| surroundings.complain(line);
        let lifetime = if keep { Lifetime::Kept } else { Lifetime::WithProcess };
        let mut packages: Vec<String> =
            loaded.outlines.values().flat_map(|outline| outline.packages.clone()).collect();
        packages.retain(|name| !name.contains('*'));
        packages.sort();
        packages.dedup();
        sandbox.packages(&packages, &progress)?;
        let hosts = sandbox.up(&wanted, lifetime, &progress)?;
        let hosts = hosts.into_iter().map(|host| (host.name.clone(), host)).collect();
        Ok(Self { hosts, _sandbox: Some(sandbox) })
    }

    /// How a booted host is reached.
    pub(super) fn destination(&self, name: &str, user: &str) -> Result<Destination, CliError> {
        let host = self
            .hosts
            .get(name)
            .ok_or_else(|| CliError::Machine(format!("the sandbox host {name} was not booted")))?;
        let mut destination = Destination::new(host.address.to_string(), user);
        name.clone_into(&mut destination.name);
        destination.port = host.port;
        destination.identity_files =
            vec![IdentityFile { path: host.identity_file.clone(), named: true }];
        destination.identities_only = true;
        destination.host_keys = HostKeyRules {
            user_files: vec![host.known_hosts.clone()],
            global_files: Vec::new(),
            unknown: UnknownHostKey::Refuse,
            ..destination.host_keys
        };
        destination.network = Network::Namespace(host.namespace.clone());
        Ok(destination)
    }
}

/// What can be made again is a cache, what belongs to running hosts is state (file-hierarchy(7)).
fn locations(surroundings: &Surroundings) -> Locations {
    let folder = |variable: &str, default: &str| {
        surroundings
            .variable(variable)
            .map_or_else(|| PathBuf::from(default), |base| PathBuf::from(base).join("sandbox"))
    };
    Locations {
        cache: folder("CONVERGE_CACHE_DIR", "/var/cache/converge/sandbox"),
        state: folder("CONVERGE_STATE_DIR", "/var/lib/converge/sandbox"),
    }
}

/// `converge sandbox …`
pub(super) fn run(
    surroundings: &Surroundings,
    arguments: &SandboxArguments,
) -> Result<u8, CliError> {
    let mut diagnostics = Diagnostics::default();
    let source =
        InventorySource { inventory: arguments.inventory.clone(), ..InventorySource::default() };
    let loaded = load::inventory(surroundings, &source, &[], &mut diagnostics)?;
    let mut names = Vec::new();
    for host in loaded.inventory.hosts() {
        let plain = |node: &crate::lang::yaml::Node| {
            Ok(serde_json::Value::String(node.as_text().unwrap_or_default().to_owned()))
        };
        let mut ignored = Diagnostics::default();
        let connection = loaded.inventory.connection(host, &plain, &mut ignored);
        if connection.is_some_and(|connection| connection.kind == ConnectionKind::Sandbox) {
            names.push(host.to_owned());
        }
    }
    show(surroundings, &loaded.sources, &diagnostics)?;
    let name = format!("{}-{}", loaded.project.name(), loaded.name);
    let sandbox = Sandbox::new(&name, locations(surroundings));
    let progress = |line: &str| surroundings.complain(line);
    match &arguments.action {
        SandboxAction::Up { packages, package_folder } => {
            if names.is_empty() {
                let message =
                    format!("no host of the inventory `{}` has `connection: sandbox`", loaded.name);
                return Err(CliError::Usage(message));
            }
            if !packages.is_empty() {
                let missing = sandbox.packages(packages, &progress)?;
                if !missing.is_empty() {
                    let message = format!("no package source has {}", missing.join(", "));
                    return Err(CliError::Usage(message));
                }
            }
            if let Some(folder) = package_folder {
                sandbox.own_package_folder(&surroundings.directory.join(folder))?;
            }
            let hosts = sandbox.up(&names, Lifetime::Kept, &progress)?;
            surroundings.print(&table(&hosts))?;
        }
        SandboxAction::Down => sandbox.down()?,
        SandboxAction::List => {
            let hosts = sandbox.list()?;
            if hosts.is_empty() {
                let name = loaded.name;
                surroundings.complain(&format!("no sandbox host of the inventory `{name}` is up"));
            }
            surroundings.print(&table(&hosts))?;
        }
        SandboxAction::Ssh { host, command } => {
            let mut ssh = sandbox.host(host)?.ssh_command("root");
            if !command.is_empty() {
                ssh.arg("--").args(command);
            } else if surroundings.output_terminal {
                ssh.arg("-t");
            }
            // Takes this process's place, so that terminal and exit code are ssh's own.
            let error = ssh.stdin(std::process::Stdio::inherit()).exec();
            return Err(CliError::Machine(format!("ssh cannot be run: {error}")));
        }
        SandboxAction::Open { host, port } => {
            let forward = sandbox.host(host)?.forward(*port)?;
            surroundings.print(&format!("http://{}/\n", forward.address()))?;
            forward.serve()?;
        }
    }
    Ok(EXIT_OK)
}

fn table(hosts: &[Host]) -> String {
    let width = hosts.iter().map(|host| host.name.len()).max().unwrap_or(0);
    hosts
        .iter()
        .map(|host| {
            let state = if host.is_running() { "up" } else { "ended" };
            format!("{:width$}  {}  {state}\n", host.name, host.address)
        })
        .collect()
}
