//! The command line: parse, call, exit code.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use converge::cli::{self, Surroundings};

fn main() -> ExitCode {
    let directory = match std::env::current_dir() {
        Ok(directory) => directory,
        Err(error) => {
            eprintln!("error: the working directory cannot be read: {error}");
            return ExitCode::FAILURE;
        }
    };
    let variables: std::collections::BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let user_id = rustix::process::getuid().as_raw();
    let user = ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| variables.get(*name).cloned())
        .unwrap_or_else(|| if user_id == 0 { "root".to_owned() } else { user_id.to_string() });
    cli::main(&Surroundings {
        arguments: std::env::args_os().collect(),
        directory,
        home: std::env::home_dir().filter(|home| !home.as_os_str().is_empty()),
        user,
        user_id,
        host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        executable: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("converge")),
        output_terminal: std::io::stdout().is_terminal(),
        error_terminal: std::io::stderr().is_terminal(),
        width: usize::from(console::Term::stdout().size().1),
        variables,
        clock: SystemTime::now,
    })
}
