//! Starting the agent: one command, whether the host has the program or not.
//!
//! The command is a shell script ([`script`]) that runs the program if the host has it, and otherwise says so, receives
//! it on its standard input, and runs it then. From the agent's [`MAGIC`] on, the same streams are the agent's: a host
//! that has the program costs no round trip beyond the command itself. Of a program that is there, owner, mode and size
//! are checked before it is run, and its digest by itself before it does anything: one that is damaged is replaced. With [`Privilege::Sudo`] the script runs as that
//! user from the beginning, so that the program is received into storage of that user and never run from a copy that
//! the login user could change.

mod child;
mod scan;
mod script;

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::scan::{Found, Scanner};
use self::script::Script;
use super::error::printable;
use super::host_key::random;
use super::process::{Control, Exit, Process, Reader, Writer};
use super::{Error, Password, Session, Stage, Stderr};

/// The first bytes that an agent writes to its standard output.
pub const MAGIC: [u8; 8] = *b"cnvrg\x01\r\n";

/// How long the host may be silent while the agent is started: PAM modules and name services may be slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait for the status of a command whose output has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The agent's program, for one kind of host.
#[derive(Clone)]
pub struct AgentProgram {
    digest: String,
    bytes: Bytes,
    system: String,
    machine: String,
}

impl AgentProgram {
    /// Takes a program for hosts whose `uname` says this system (`Linux`) and this machine (`x86_64`).
    pub fn new(
        bytes: impl Into<Bytes>,
        system: impl Into<String>,
        machine: impl Into<String>,
    ) -> Self {
        let bytes = bytes.into();
        let digest = blake3::hash(&bytes).to_hex().to_string();
        Self { digest, bytes, system: system.into(), machine: machine.into() }
    }

    /// Reads a program from a file.
    pub fn read(
        path: &Path,
        system: impl Into<String>,
        machine: impl Into<String>,
    ) -> Result<Self, Error> {
        let bytes = std::fs::read(path)
            .map_err(|source| Error::Program { path: path.to_owned(), source })?;
        Ok(Self::new(bytes, system, machine))
    }

    /// The BLAKE3 digest of the program, in hexadecimal: its name on the host.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

impl AgentProgram {
    /// How many bytes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl fmt::Debug for AgentProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { digest, bytes, system, machine } = self;
        write!(f, "AgentProgram({digest}, {} bytes, {system} {machine})", bytes.len())
    }
}

/// As whom the agent runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// The user that is logged in.
    Login,
    /// Another user, by sudo. Where the login user is that user already and it is root, sudo is left out.
    Sudo {
        /// The user to become, mostly `root`.
        user: String,
        /// The login user's password, for a sudo that asks.
        password: Option<Password>,
    },
}

/// A running agent, its reader positioned right after [`MAGIC`].
pub struct AgentStream {
    /// What the agent says.
    pub reader: Reader,
    /// What the agent hears. Shutting it down tells it to end.
    pub writer: Writer,
    /// The agent's standard error, for error messages.
    pub stderr: Stderr,
    /// The agent's end.
    pub control: Control,
    /// Whether the program had to be sent.
    pub uploaded: bool,
}

impl fmt::Debug for AgentStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stderr, control, uploaded, .. } = self;
        let mut shown = f.debug_struct("AgentStream");
        shown
            .field("stderr", stderr)
            .field("control", control)
            .field("uploaded", uploaded)
            .finish_non_exhaustive()
    }
}

/// Starts the agent on a host. `host` is its name for messages.
pub async fn over_ssh(
    session: &Session,
    host: &str,
    program: &AgentProgram,
    privilege: &Privilege,
) -> Result<AgentStream, Error> {
    start(host, program, privilege, Place::Host(session)).await
}

/// Starts the agent as a child of this process, on this machine (`connection: local`).
///
/// It goes the same way as on a host: a program that becomes root by sudo must not be run from a file that the user
/// can write.
pub async fn local(
    host: &str,
    program: &AgentProgram,
    privilege: &Privilege,
) -> Result<AgentStream, Error> {
    start(host, program, privilege, Place::Here).await
}

/// Where the command runs.
#[derive(Clone, Copy)]
enum Place<'a> {
    Host(&'a Session),
    Here,
}

async fn start(
    host: &str,
    program: &AgentProgram,
    privilege: &Privilege,
    place: Place<'_>,
) -> Result<AgentStream, Error> {
    let mut has_it = true;
    loop {
        let nonce: [u8; 16] = random().map_err(|error| no_nonce(host, &error))?;
        let nonce = nonce.map(|byte| format!("{byte:02x}")).concat();
        let script = Script {
            digest: &program.digest,
            size: program.bytes.len(),
            nonce: &nonce,
            trust_kept: has_it,
        };
        let command = script.command(privilege);
        let process = match place {
            Place::Host(session) => session.exec(&command).await?,
            Place::Here => child::spawn(&command).map_err(|source| Error::Silent {
                host: host.to_owned(),
                reason: source.to_string(),
            })?,
        };
        let control = process.control.clone();
        let mut start = Start { host, program, privilege, nonce: &nonce, uploaded: false };
        let result = start.drive(process).await;
        if result.is_err() && matches!(place, Place::Here) {
            control.close().await;
        }
        match result {
            // The program that the host had does not start; perhaps it is damaged. A new copy is the cure.
            Err(Error::Silent { .. }) if has_it && !start.uploaded => has_it = false,
            result => return result,
        }
    }
}

fn no_nonce(host: &str, error: &io::Error) -> Error {
    Error::Silent { host: host.to_owned(), reason: format!("no random numbers: {error}") }
}

/// One start of the agent, while it is on its way.
struct Start<'a> {
    host: &'a str,
    program: &'a AgentProgram,
    privilege: &'a Privilege,
    nonce: &'a str,
    uploaded: bool,
}

impl Start<'_> {
    async fn drive(&mut self, process: Process) -> Result<AgentStream, Error> {
        let Process { stdin: mut writer, stdout: mut reader, stderr, control } = process;
        match self.wait_for_agent(&mut writer, &mut reader, &stderr, &control).await {
            Ok(rest) => {
                stderr.erase(&script::prompt(self.nonce));
                let reader: Reader = Box::new(io::Cursor::new(rest).chain(reader));
                let uploaded = self.uploaded;
                Ok(AgentStream { reader, writer, stderr, control, uploaded })
            }
            Err(error) => {
                // Whatever still waits for input there, sudo for a password, has an end.
                let _ = tokio::time::timeout(LAST_WORDS, writer.shutdown()).await;
                Err(error)
            }
        }
    }

    /// Brings the agent to speak; gives what it said after its magic.
    async fn wait_for_agent(
        &mut self,
        writer: &mut Writer,
        reader: &mut Reader,
        stderr: &Stderr,
        control: &Control,
    ) -> Result<Vec<u8>, Error> {
        let mut scanner = Scanner::new(self.nonce);
        let mut chunk = vec![0; 32 * 1024];
        let program = self.program.bytes.clone();
        // What is still to be sent of the program.
        let mut unsent: &[u8] = &[];
        let mut errors = stderr.watch();
        let mut password = self.password();
        loop {
            tokio::select! {
                read = reader.read(&mut chunk) => {
                    let read = read.unwrap_or(0);
                    if read == 0 {
                        return Err(self.ended(control, &scanner, stderr).await);
                    }
                    match scanner.push(&chunk[..read]) {
                        Found::Nothing => {}
                        Found::Agent(rest) => return Ok(rest),
                        Found::Need { system, machine } => {
                            self.check_kind(&system, &machine)?;
                            self.uploaded = true;
                            unsent = &program;
                        }
                        Found::Failed(word) => return Err(self.failed(&word, stderr)),
                        Found::TooMuch => return Err(self.silent("it prints without end", &scanner, stderr)),
                    }
                }
                // A broken pipe here is explained by the end of the output.
                written = writer.write(unsent), if !unsent.is_empty() => {
                    unsent = &unsent[written.unwrap_or(unsent.len()).min(unsent.len())..];
                    if unsent.is_empty() {
                        let _ = writer.flush().await;
                    }
                }
                Ok(()) = errors.changed(), if password.is_some() => {
                    errors.mark_unchanged();
                    let seen = self.prompts(stderr);
                    if let Some(Answer { password: text, given }) = &mut password {
                        if seen > 1 {
                            return Err(Error::SudoPasswordWrong { host: self.host.to_owned() });
                        }
                        if seen == 1 && !*given {
                            *given = true;
                            let line = format!("{}\n", text.reveal());
                            let _ = writer.write_all(line.as_bytes()).await;
                            let _ = writer.flush().await;
                        }
                    }
                }
                () = tokio::time::sleep(PATIENCE) => {
                    let (address, after) = (self.host.to_owned(), PATIENCE);
                    return Err(Error::TimedOut { address, stage: Stage::Bootstrap, after });
                }
            }
        }
    }

    fn password(&self) -> Option<Answer> {
        match self.privilege {
            Privilege::Sudo { password: Some(password), .. } => {
                Some(Answer { password: password.clone(), given: false })
            }
            _ => None,
        }
    }

    /// How often sudo has asked for a password, by our own prompt.
    fn prompts(&self, stderr: &Stderr) -> usize {
        let (text, _) = stderr.since(0);
        String::from_utf8_lossy(&text).matches(&script::prompt(self.nonce)).count()
    }

    fn check_kind(&self, system: &str, machine: &str) -> Result<(), Error> {
        let ours = self.program;
        if ours.system == system && ours.machine == machine {
            return Ok(());
        }
        Err(Error::NoAgentFor {
            host: self.host.to_owned(),
            theirs: format!("{system} on {machine}"),
            ours: format!("{} on {}", ours.system, ours.machine),
        })
    }

    /// The script has said what is wrong.
    fn failed(&self, word: &str, stderr: &Stderr) -> Error {
        let host = self.host.to_owned();
        match word.split_once(' ').unwrap_or((word, "")) {
            (script::NO_SUDO, _) => Error::SudoMissing { host },
            (script::NO_FOLDER, reason) => {
                Error::NoFolder { host, reason: printable(reason.as_bytes()) }
            }
            (_, reason) => {
                let said = self.said(stderr);
                let reason = if said.is_empty() { printable(reason.as_bytes()) } else { said };
                Error::Upload { host, reason }
            }
        }
    }

    /// The command has ended and the agent has said nothing.
    async fn ended(&self, control: &Control, scanner: &Scanner, stderr: &Stderr) -> Error {
        let exit = tokio::time::timeout(LAST_WORDS, control.wait()).await;
        let exit = exit.unwrap_or(Exit::Lost("it does not say how the command ended".into()));
        let host = self.host.to_owned();
        let said = self.said(stderr);
        if let Exit::Lost(reason) = exit {
            let reason =
                if said.is_empty() { reason } else { format!("{reason}; it said: {said}") };
            return Error::Lost { host, reason };
        }
        if let Privilege::Sudo { password, .. } = self.privilege {
            let has = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
            if has(&["a password is required", "no password was provided"]) && password.is_none() {
                return Error::SudoPasswordNeeded { host };
            }
            if has(&["incorrect password", "Sorry, try again"]) {
                return Error::SudoPasswordWrong { host };
            }
            if said.lines().any(|line| line.starts_with("sudo:"))
                || has(&["is not in the sudoers", "may not run sudo", "is not allowed to execute"])
            {
                return Error::SudoRefused { host, reason: said };
            }
        }
        self.silent(&exit.to_string(), scanner, stderr)
    }

    fn silent(&self, what: &str, scanner: &Scanner, stderr: &Stderr) -> Error {
        let mut reason = what.to_owned();
        for (stream, text) in
            [("standard error", self.said(stderr)), ("standard output", scanner.noise())]
        {
            if !text.is_empty() {
                reason.push_str(&format!("; {stream}: {text}"));
            }
        }
        Error::Silent { host: self.host.to_owned(), reason }
    }

    /// What stands on standard error, without our own prompts.
    fn said(&self, stderr: &Stderr) -> String {
        stderr.text().replace(&script::prompt(self.nonce), "").trim().to_owned()
    }
}

/// A password that sudo may ask for, once.
struct Answer {
    password: Password,
    given: bool,
}
