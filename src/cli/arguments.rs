use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Converge hosts to what state files declare, applying only differences.
#[derive(Debug, Parser)]
#[command(
    name = "converge",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 all is as declared; 1 bad input or usage, no host touched; 2 changes are pending \
                  (with --dry-run --exit-code); 3 a host failed or could not be reached; 4 a deployment failed and every host was taken \
                  back; 5 refused: another run \
                  is changing a host, or a plan is stale or tampered with; 130 interrupted."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) converge: ConvergeArguments,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what a run would change (the same as --dry-run); can save it.
    Plan(PlanArguments),
    /// Do exactly what a saved plan says, or refuse.
    Apply(ApplyArguments),
    /// Take a run's changes back, where they can be.
    Undo(UndoArguments),
    /// What is not any more as runs have left it, and who is changing a host.
    Status(StatusArguments),
    /// Past runs, newest first; one run with its differences.
    History(HistoryArguments),
    /// Check state files without touching a host, and say what is likely wrong in them.
    Lint(LintArguments),
    /// Rehearse a state file on throw-away hosts: converge, then converge again.
    Test(ConvergeArguments),
    /// Show the hosts and variables of an inventory, as ansible-inventory does.
    Inventory(InventoryArguments),
    /// Show the variables of a host, and where each comes from.
    Vars(VarsArguments),
    /// Draw the order of a host's resources, or say why one comes before another.
    Graph(GraphArguments),
    /// Make keys; encrypt and decrypt files of variables and single values.
    Secrets(SecretsArguments),
    /// The throw-away hosts of an inventory.
    Sandbox(SandboxArguments),
    /// Explain a kind and its arguments, or list the kinds.
    Doc(DocArguments),
    /// Print the JSON Schema of state files, for editors.
    Schema,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    pub(crate) converge: ConvergeArguments,
    /// Save the plan in a file, for `converge apply`.
    #[arg(long, value_name = "FILE", conflicts_with = "adopt")]
    pub(crate) out: Option<PathBuf>,
    /// Sign the saved plan with an SSH key (a public key: the agent's).
    #[arg(long, value_name = "KEY", requires = "out")]
    pub(crate) sign: Option<PathBuf>,
    /// Encrypt the saved plan to a public key, age's or SSH's, beside those in .converge/recipients.
    #[arg(long, value_name = "KEY", requires = "out")]
    pub(crate) recipient: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ApplyArguments {
    /// The plan, as `converge plan --out` has saved it.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Only plans that one of these has signed [default: .converge/allowed_signers, where that is].
    #[arg(long, value_name = "FILE")]
    pub(crate) allowed_signers: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) keys: KeyArguments,
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
    /// Wait for hosts that another run is changing, instead of ending with 5.
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct UndoArguments {
    /// The run, as `converge history` names it.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) source: InventorySource,
    /// Overwrite what was changed by others since.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
    /// Wait for hosts that another run is changing, instead of ending with 5.
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArguments {
    /// The state file whose runs are meant.
    #[arg(value_name = "STATE_FILE")]
    pub(crate) state_file: String,
    #[command(flatten)]
    pub(crate) source: InventorySource,
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
    /// What is printed: text or json.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: String,
    /// Exit with 2 if something has drifted.
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// No colours.
    #[arg(long)]
    pub(crate) no_color: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct HistoryArguments {
    /// A state file, whose runs are shown, and a run, which is shown with its differences.
    #[arg(value_name = "STATE_FILE] [RUN", num_args = 0..=2)]
    pub(crate) what: Vec<String>,
    #[command(flatten)]
    pub(crate) source: InventorySource,
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
    /// At most so many runs.
    #[arg(short = 'n', value_name = "N", default_value_t = 20)]
    pub(crate) number: usize,
    /// What is printed: text or json.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: String,
    /// No colours.
    #[arg(long)]
    pub(crate) no_color: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct GraphArguments {
    /// State file: a path, or a name under states/.
    #[arg(value_name = "STATE_FILE")]
    pub(crate) state_file: String,
    #[command(flatten)]
    pub(crate) source: InventorySource,
    /// Variables: `k=v`, a mapping, or `@FILE`.
    #[arg(short, long = "extra-vars", value_name = "k=v|@FILE")]
    pub(crate) extra_vars: Vec<String>,
    /// What is printed.
    #[arg(long, default_value = "dot", value_parser = ["dot", "mermaid", "svg"])]
    pub(crate) format: String,
    /// Say why one resource comes before the other, or that nothing orders them.
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with = "format")]
    pub(crate) why: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct VarsArguments {
    /// The host.
    #[arg(value_name = "HOST")]
    pub(crate) host: String,
    /// Inventory: a path, a name under inventory/, or a comma list `web1,web2,`.
    #[arg(short, long = "inventory", value_name = "INVENTORY")]
    pub(crate) inventory: Vec<String>,
    /// Also the variables that the plays of this state file give the host.
    #[arg(long, value_name = "FILE")]
    pub(crate) state_file: Option<String>,
    /// Variables: `k=v`, a mapping, or `@FILE`.
    #[arg(short, long = "extra-vars", value_name = "k=v|@FILE")]
    pub(crate) extra_vars: Vec<String>,
    /// Say where a variable comes from: every layer that has it, and all that its value uses.
    #[arg(long, value_name = "NAME", conflicts_with = "format")]
    pub(crate) explain: Option<String>,
    /// What is printed: text or json.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: String,
    /// Run nothing that the project says: scripts, commands, lookups.
    #[arg(long)]
    pub(crate) untrusted: bool,
    #[command(flatten)]
    pub(crate) keys: KeyArguments,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct LintArguments {
    /// State files: paths, or names under states/.
    #[arg(value_name = "STATE_FILE", required_unless_present_any = ["rules", "explain"])]
    pub(crate) state_files: Vec<String>,
    /// Inventory: a path, a name under inventory/, or a comma list `web1,web2,`. Without it, variables
    /// of hosts are taken for not known.
    #[arg(short, long = "inventory", value_name = "INVENTORY")]
    pub(crate) inventory: Vec<String>,
    /// Variables: `k=v`, a mapping, or `@FILE`.
    #[arg(short, long = "extra-vars", value_name = "k=v|@FILE")]
    pub(crate) extra_vars: Vec<String>,
    /// Run nothing that the project says: scripts, commands, lookups.
    #[arg(long)]
    pub(crate) untrusted: bool,
    /// Make a rule's findings errors; `warnings` stands for all warnings.
    #[arg(long, value_name = "RULE")]
    pub(crate) deny: Vec<String>,
    /// What is printed: text, json, github or sarif.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: String,
    /// List the rules, and end.
    #[arg(long)]
    pub(crate) rules: bool,
    /// Explain a rule, with examples, and end.
    #[arg(long, value_name = "RULE")]
    pub(crate) explain: Option<String>,
    /// No colours.
    #[arg(long)]
    pub(crate) no_color: bool,
}

/// Where the hosts are.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct InventorySource {
    /// Inventory: a path, a name under inventory/, or a comma list `web1,web2,`.
    #[arg(short, long = "inventory", value_name = "INVENTORY")]
    pub(crate) inventory: Vec<String>,
    /// Only these hosts, a pattern; `@FILE` reads patterns from a file.
    #[arg(short, long, value_name = "PATTERN")]
    pub(crate) limit: Option<String>,
    /// Run nothing that the project says: scripts, commands, lookups.
    #[arg(long)]
    pub(crate) untrusted: bool,
    #[command(flatten)]
    pub(crate) keys: KeyArguments,
    /// Whether what is encrypted need not be read: the command only looks at the project.
    #[arg(skip)]
    pub(crate) without_keys: bool,
}

/// The keys of secrets.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct KeyArguments {
    /// Read what is encrypted with this private key, age's or SSH's [env: CONVERGE_AGE_IDENTITY].
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Vec<PathBuf>,
    /// Read what Ansible Vault has encrypted with the password in this file, or that it prints if it is a program
    /// [env: ANSIBLE_VAULT_PASSWORD_FILE].
    #[arg(long, alias = "vault-pass-file", value_name = "FILE")]
    pub(crate) vault_password_file: Vec<PathBuf>,
    /// The same for a label of Ansible Vault; `prompt` asks for the password.
    #[arg(long, value_name = "[ID@]FILE|prompt")]
    pub(crate) vault_id: Vec<String>,
    /// Ask for the password of Ansible Vault.
    #[arg(long, alias = "ask-vault-password")]
    pub(crate) ask_vault_pass: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ConvergeArguments {
    /// State file: a path, or a name under states/.
    #[arg(value_name = "STATE_FILE", required = true)]
    pub(crate) state_file: Option<String>,
    #[command(flatten)]
    pub(crate) source: InventorySource,
    /// Only states with these tags.
    #[arg(short, long, value_name = "TAG", value_delimiter = ',')]
    pub(crate) tags: Vec<String>,
    /// No states with these tags.
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    pub(crate) skip_tags: Vec<String>,
    /// Only these resources; globs are allowed.
    #[arg(long, value_name = "KIND:KEY")]
    pub(crate) only: Vec<String>,
    /// Variables: `k=v`, a mapping, or `@FILE`.
    #[arg(short, long = "extra-vars", value_name = "k=v|@FILE")]
    pub(crate) extra_vars: Vec<String>,
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
    /// List the hosts that would take part, and end.
    #[arg(long)]
    pub(crate) list_hosts: bool,
    /// List the tags of the state file, and end.
    #[arg(long)]
    pub(crate) list_tags: bool,
    /// Take over what hosts remember of a state file that has another name by now.
    #[arg(long, value_name = "OLD")]
    pub(crate) adopt: Option<String>,
    /// Wait for hosts that another run is changing, instead of ending with 5.
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
    /// Nothing is fetched: contents do not matter.
    #[arg(skip)]
    pub(crate) offline: bool,
}

impl ConvergeArguments {
    /// A run over an inventory's hosts that declares nothing.
    pub(crate) fn without_states(
        source: &InventorySource,
        connection: &ConnectionArguments,
        output: &OutputArguments,
    ) -> Self {
        Self {
            state_file: None,
            source: source.clone(),
            tags: Vec::new(),
            skip_tags: Vec::new(),
            only: Vec::new(),
            extra_vars: Vec::new(),
            connection: connection.clone(),
            list_hosts: false,
            list_tags: false,
            adopt: None,
            wait: false,
            output: output.clone(),
            offline: false,
        }
    }
}

/// How hosts are reached.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ConnectionArguments {
    /// Hosts at the same time [default: 50].
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) forks: Option<u16>,
    /// Log in as this user.
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Become another user (root) where states do not say otherwise.
    #[arg(short, long = "become")]
    pub(crate) becomes: bool,
    /// Ask for the password of sudo.
    #[arg(short = 'K', long)]
    pub(crate) ask_become_pass: bool,
    /// Ask for the password of the login.
    #[arg(short = 'k', long)]
    pub(crate) ask_pass: bool,
    /// Log in with this private key.
    #[arg(long, value_name = "FILE")]
    pub(crate) private_key: Option<PathBuf>,
}

impl ConvergeArguments {
    /// A state file that is only read.
    pub(crate) fn reading(
        state_file: Option<&str>,
        source: &InventorySource,
        extra_vars: &[String],
    ) -> Self {
        let output = OutputArguments::looking("text", true);
        let mut arguments = Self::without_states(source, &ConnectionArguments::default(), &output);
        arguments.state_file = state_file.map(str::to_owned);
        arguments.extra_vars = extra_vars.to_vec();
        arguments.offline = true;
        arguments
    }
}

impl OutputArguments {
    /// Of a command that only looks, and prints by itself.
    pub(crate) fn looking(format: &str, no_color: bool) -> Self {
        Self {
            dry_run: true,
            diff: false,
            format: format.to_owned(),
            report: Vec::new(),
            exit_code: false,
            verbose: 0,
            quiet: false,
            no_color,
        }
    }
}

/// Whether anything is changed, and what is printed.
#[derive(Args, Clone, Debug)]
pub(crate) struct OutputArguments {
    /// Change nothing; show what would be changed.
    #[arg(short = 'C', long = "dry-run", visible_alias = "check")]
    pub(crate) dry_run: bool,
    /// Show differences of contents (on by default in a dry run).
    #[arg(short = 'D', long)]
    pub(crate) diff: bool,
    /// What is printed: text, json, jsonl or markdown.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: String,
    /// Write a further report to a file; may be given several times.
    #[arg(long, value_name = "FORMAT=FILE")]
    pub(crate) report: Vec<String>,
    /// In a dry run, exit with 2 if changes are pending.
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// Show also what is as declared.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Show only changes, failures and the summary.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// No colours.
    #[arg(long)]
    pub(crate) no_color: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InventoryArguments {
    #[command(flatten)]
    pub(crate) source: InventorySource,
    /// All groups and hosts with their variables, as JSON (the default).
    #[arg(long, conflicts_with_all = ["graph", "host"])]
    pub(crate) list: bool,
    /// The groups as a tree.
    #[arg(long, conflicts_with = "host")]
    pub(crate) graph: bool,
    /// The variables of one host, as JSON.
    #[arg(long, value_name = "HOST")]
    pub(crate) host: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct DocArguments {
    /// A kind; `play` for the keys of plays, `common` for those of all states.
    #[arg(value_name = "KIND")]
    pub(crate) topic: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct SecretsArguments {
    #[command(subcommand)]
    pub(crate) action: SecretsAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretsAction {
    /// Make a key in a new file, and print its public part.
    Keygen(KeygenArguments),
    /// Encrypt a file (x.yml becomes x.yml.age), or one value of a YAML file in its place.
    Encrypt(CipherArguments),
    /// Decrypt a file, or one value of a YAML file in its place; Ansible Vault's, too.
    Decrypt(CipherArguments),
    /// Edit an encrypted file with $VISUAL or $EDITOR.
    Edit(CipherArguments),
    /// Encrypt files, and values in files, to the present recipients.
    Rekey(RekeyArguments),
}

#[derive(Args, Debug)]
pub(crate) struct KeygenArguments {
    /// Where the private key goes; it is never overwritten.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Add the public key to .converge/recipients.
    #[arg(long)]
    pub(crate) add: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CipherArguments {
    /// The file; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Only this value of a YAML file; dots lead into mappings.
    #[arg(long, value_name = "NAME", conflicts_with = "output")]
    pub(crate) value: Option<String>,
    /// Write there, and leave the file as it is; `-` is standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Encrypt with a passphrase in place of keys.
    #[arg(short, long)]
    pub(crate) passphrase: bool,
    /// Encrypt to a public key, age's or SSH's, beside those in .converge/recipients.
    #[arg(long, value_name = "KEY")]
    pub(crate) recipient: Vec<String>,
    #[command(flatten)]
    pub(crate) keys: KeyArguments,
}

#[derive(Args, Debug)]
pub(crate) struct RekeyArguments {
    /// Files that are encrypted, or that have `!secret` values.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Encrypt to a public key, age's or SSH's, beside those in .converge/recipients.
    #[arg(long, value_name = "KEY")]
    pub(crate) recipient: Vec<String>,
    #[command(flatten)]
    pub(crate) keys: KeyArguments,
}

#[derive(Args, Debug)]
pub(crate) struct SandboxArguments {
    /// Inventory whose hosts have `connection: sandbox`.
    #[arg(
        short,
        long = "inventory",
        value_name = "INVENTORY",
        default_value = "sandbox",
        global = true
    )]
    pub(crate) inventory: Vec<String>,
    #[command(subcommand)]
    pub(crate) action: SandboxAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxAction {
    /// Boot the hosts of the inventory that are not up.
    Up {
        /// Make these packages available to the hosts.
        #[arg(long = "package", value_name = "NAME")]
        packages: Vec<String>,
        /// Make the .deb files of a folder available to the hosts.
        #[arg(long, value_name = "FOLDER")]
        package_folder: Option<PathBuf>,
    },
    /// End the hosts and throw away what they wrote.
    Down,
    /// List the hosts.
    List,
    /// Log in on a host as root, or run a command there.
    Ssh {
        /// The host.
        host: String,
        /// What to run; a shell if nothing is given.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Forward a port of a host to a port of this machine's loopback, until interrupted.
    Open {
        /// The host.
        host: String,
        /// The port there.
        port: u16,
    },
}
