use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

/// What the process finds around it; the rooms below the command line get it from here only.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The command line, the program's name included.
    pub arguments: Vec<OsString>,
    /// The environment.
    pub variables: BTreeMap<String, String>,
    /// The working directory.
    pub directory: PathBuf,
    /// The user's home.
    pub home: Option<PathBuf>,
    /// The user's login name.
    pub user: String,
    /// The user's number.
    pub user_id: u32,
    /// This machine's name.
    pub host_name: String,
    /// Where this program lies.
    pub executable: PathBuf,
    /// Whether standard output is a terminal.
    pub output_terminal: bool,
    /// Whether standard error is a terminal.
    pub error_terminal: bool,
    /// The terminal's width.
    pub width: usize,
    /// The wall clock.
    pub clock: fn() -> SystemTime,
}

impl Surroundings {
    /// A variable of the environment that is not empty.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Where what can be made again is kept (XDG Base Directory Specification).
    pub(crate) fn cache(&self) -> Option<PathBuf> {
        let own = |variable: &str| self.variable(variable).map(PathBuf::from);
        own("CONVERGE_CACHE_DIR")
            .or_else(|| own("XDG_CACHE_HOME").map(|base| base.join("converge")))
            .or_else(|| self.home.as_ref().map(|home| home.join(".cache/converge")))
    }

    /// Whether messages are coloured: on a terminal, unless `NO_COLOR` is set (no-color.org).
    pub(crate) fn colours(&self, terminal: bool) -> bool {
        terminal
            && self.variable("NO_COLOR").is_none()
            && self.variable("TERM").is_none_or(|term| term != "dumb")
    }

    /// Says something to people.
    pub(crate) fn complain(&self, text: &str) {
        // Where nobody listens there is nothing to be done.
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// Prints data.
    pub(crate) fn print(&self, text: &str) -> Result<(), super::CliError> {
        let mut output = std::io::stdout();
        match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(super::CliError::Machine(format!("standard output: {error}")))
            }
            _ => Ok(()),
        }
    }
}
