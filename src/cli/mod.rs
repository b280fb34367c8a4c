//! The command line: one file a command. What is decided here is only what was asked for and how
//! it is shown; the work is done in the rooms below.

mod apply;
mod arguments;
mod converge;
mod declaring;
mod doc;
mod graph;
mod history;
mod inventory;
mod keys;
mod lint;
mod load;
mod prompt;
mod rehearse;
mod rollback;
mod sandbox;
mod schema;
mod screen;
mod secrets;
mod status;
mod surroundings;
mod undo;
mod vars;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Cli, Command};
pub use surroundings::Surroundings;

/// All is as declared.
const EXIT_OK: u8 = 0;
/// Bad input or usage; no host was touched.
const EXIT_USAGE: u8 = 1;
/// With `--dry-run --exit-code`: changes are pending.
const EXIT_PENDING: u8 = 2;
/// A host failed or could not be reached.
const EXIT_FAILED: u8 = 3;
/// A deployment failed, and every host was taken back.
const EXIT_ROLLED_BACK: u8 = 4;
/// Refused: a lock is held, a plan is stale or was tampered with.
const EXIT_REFUSED: u8 = 5;
/// Interrupted.
const EXIT_INTERRUPTED: u8 = 130;

/// Commands of the contract that this version does not have.
const LATER: [&str; 5] = ["facts", "logs", "restart", "rollback", "run"];

/// Runs the command line and gives the process's exit code.
pub fn main(surroundings: &Surroundings) -> ExitCode {
    let first = surroundings.arguments.get(1).and_then(|argument| argument.to_str());
    if let Some(command) = first.filter(|first| LATER.contains(first))
        && !surroundings.directory.join(command).exists()
    {
        let message = format!("error: `converge {command}` is not supported by this version");
        surroundings.complain(&message);
        return ExitCode::from(EXIT_USAGE);
    }
    let cli = match Cli::try_parse_from(&surroundings.arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output, and are no errors.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { EXIT_OK });
        }
    };
    let result = match cli.command {
        None => converge::run(surroundings, &cli.converge),
        Some(Command::Plan(options)) => converge::plan(surroundings, &options),
        Some(Command::Apply(options)) => apply::run(surroundings, &options),
        Some(Command::Undo(options)) => undo::run(surroundings, &options),
        Some(Command::Status(options)) => status::run(surroundings, &options),
        Some(Command::History(options)) => history::run(surroundings, &options),
        Some(Command::Lint(options)) => lint::run(surroundings, &options),
        Some(Command::Test(options)) => rehearse::run(surroundings, &options),
        Some(Command::Inventory(options)) => inventory::run(surroundings, &options),
        Some(Command::Vars(options)) => vars::run(surroundings, &options),
        Some(Command::Graph(options)) => graph::run(surroundings, &options),
        Some(Command::Secrets(options)) => secrets::run(surroundings, &options.action),
        Some(Command::Sandbox(options)) => sandbox::run(surroundings, &options),
        Some(Command::Doc(options)) => doc::run(surroundings, &options),
        Some(Command::Schema) => schema::run(surroundings),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            surroundings.complain(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// What is wrong was said, each with its place.
    #[error("{}", said(.0.len()))]
    Refused(Vec<String>),
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A plan is not to be relied upon.
    #[error("{0}")]
    Declined(String),
    /// The machine that converge runs on does not let it.
    #[error("{0}")]
    Machine(String),
    /// Throw-away hosts could not be had.
    #[error("{}", with_hint(.0))]
    Sandbox(#[from] crate::sandbox::SandboxError),
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            CliError::Sandbox(_) => EXIT_FAILED,
            CliError::Declined(_) => EXIT_REFUSED,
            _ => EXIT_USAGE,
        }
    }
}

fn said(errors: usize) -> String {
    match errors {
        1 => String::from("1 error; no host was touched"),
        many => format!("{many} errors; no host was touched"),
    }
}

fn with_hint(error: &crate::sandbox::SandboxError) -> String {
    match error.hint() {
        Some(hint) => format!("{error}\n  help: {hint}"),
        None => error.to_string(),
    }
}

impl From<crate::project::NotFound> for CliError {
    fn from(error: crate::project::NotFound) -> Self {
        Self::Usage(error.to_string())
    }
}
