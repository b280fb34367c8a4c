//! The program that converge pushes to a host: it serves one run over standard input and output.

use std::process::ExitCode;

use converge::agent;

fn main() -> ExitCode {
    let start = agent::Start {
        // Set by sudo for whatever it starts.
        login: std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty()),
        program: std::env::current_exe().unwrap_or_default(),
        now: Some(std::time::SystemTime::now()),
        state: None,
        on_journal: None,
    };
    let result = match std::env::args().nth(1) {
        Some(word) if word == agent::SWITCH => agent::keep_watch(&start),
        _ => agent::serve(std::io::stdin(), std::io::stdout(), &start),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("converge-agent: {error}");
            ExitCode::FAILURE
        }
    }
}
