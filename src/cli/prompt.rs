use std::path::Path;

use console::Term;

use super::CliError;
use crate::ssh::{Password, Prompt};

/// Asks at the terminal.
pub(super) struct Terminal {
    /// Whether anybody is there to answer.
    pub(super) present: bool,
}

impl Terminal {
    /// Asks for something that is not shown while it is typed.
    pub(super) fn secret(&self, question: &str) -> Result<Password, CliError> {
        if !self.present {
            let message = format!("there is no terminal to ask for the {question}");
            return Err(CliError::Usage(message));
        }
        ask(question)
            .ok_or_else(|| CliError::Usage(format!("no answer to the question for the {question}")))
    }

    /// Asks whether something is to be done; no where nobody is there.
    pub(super) fn agrees(&self, question: &str) -> bool {
        let terminal = Term::stderr();
        self.present
            && terminal.write_str(&format!("{question} [y/N] ")).is_ok()
            && terminal
                .read_line()
                .is_ok_and(|answer| ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
    }
}

fn ask(question: &str) -> Option<Password> {
    let terminal = Term::stderr();
    terminal.write_str(&format!("{question}: ")).ok()?;
    terminal.read_secure_line().ok().map(Password::new)
}

impl Prompt for Terminal {
    fn passphrase(&self, path: &Path, again: bool) -> Option<Password> {
        if !self.present {
            return None;
        }
        let wrong = if again { "wrong passphrase; " } else { "" };
        ask(&format!("{wrong}passphrase of {}", path.display()))
    }
}
