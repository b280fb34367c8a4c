//! `converge secrets edit`: the plain text is in a private folder only while the editor runs.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Work, mode_of, recipients, sealed_to, usage};
use crate::cli::converge::runtime;
use crate::cli::prompt::Terminal;
use crate::cli::{CliError, Surroundings};
use crate::diagnostic::{Diagnostics, Sources};
use crate::lang::yaml;
use crate::secret::{self, VAULT_MARK};

/// Where files never reach a disk, on Linux.
const IN_MEMORY: &str = "/dev/shm";

/// A folder that is gone when this is dropped, with all that is in it.
struct Private(PathBuf);

impl Private {
    fn new(surroundings: &Surroundings) -> Result<Self, CliError> {
        let usual = surroundings.variable("TMPDIR").unwrap_or("/tmp");
        let number = RandomState::new().hash_one(std::process::id());
        let mut wrong = None;
        for base in [IN_MEMORY, usual] {
            let path = Path::new(base).join(format!("converge-{number:016x}"));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) => wrong = Some(usage(&path, error)),
            }
        }
        Err(wrong
            .unwrap_or_else(|| CliError::Machine(String::from("there is no temporary folder"))))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // Nothing is left to be tried where even that fails.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Decrypts a file, lets somebody edit it, and encrypts it anew if it was changed.
pub(super) fn run(work: &Work<'_>) -> Result<(), CliError> {
    let (surroundings, file) = (work.surroundings, &work.arguments.file);
    if work.arguments.value.is_some() || work.arguments.output.is_some() || work.is_standard() {
        return Err(CliError::Usage(String::from(
            "`edit` takes a file that is encrypted as a whole",
        )));
    }
    let sealed = work.read()?;
    if sealed.starts_with(VAULT_MARK.as_bytes()) {
        return Err(usage(file, "Ansible Vault is only read: decrypt it, and encrypt it with age"));
    }
    if !secret::is_encrypted(&sealed) {
        return Err(usage(file, "it is not encrypted"));
    }
    let plain = work.opened(&sealed)?;
    let with_passphrase = secret::needs_passphrase(&sealed).map_err(|error| usage(file, error))?;
    // Who nobody could be encrypted to is said before somebody has edited for an hour.
    let recipients = match with_passphrase || work.arguments.passphrase {
        true => None,
        false => Some(recipients(surroundings, &work.arguments.recipient)?),
    };
    let Some(edited) = edited(surroundings, file, &plain)? else {
        surroundings.complain("nothing was changed");
        return Ok(());
    };
    let sealed = match &recipients {
        Some(recipients) => sealed_to(recipients, &edited).map_err(|error| usage(file, error))?,
        None => work.sealed_with_passphrase(&edited)?,
    };
    let path = work.path();
    let mode = mode_of(&path).unwrap_or(0o600);
    secret::replace_file(&path, sealed.as_bytes(), mode).map_err(|error| usage(file, error))
}

/// What somebody has made of a text; none if it is as it was.
fn edited(
    surroundings: &Surroundings,
    file: &Path,
    plain: &Arc<[u8]>,
) -> Result<Option<Vec<u8>>, CliError> {
    let folder = Private::new(surroundings)?;
    let name = super::without_ending(file);
    let path = folder.0.join(name.file_name().unwrap_or_default());
    let written = secret::create_private(&path).and_then(|mut file| file.write_all(plain));
    written.map_err(|error| usage(&path, error))?;
    let was_yaml = problem(file, plain).is_none();
    loop {
        edit(surroundings, &path)?;
        let bytes = fs::read(&path).map_err(|error| usage(&path, error))?;
        if bytes == plain.as_ref() {
            return Ok(None);
        }
        let Some(problem) = problem(file, &bytes).filter(|_| was_yaml) else {
            return Ok(Some(bytes));
        };
        surroundings.complain(&format!("error: {problem}"));
        let terminal = Terminal { present: surroundings.error_terminal };
        if !terminal.agrees("edit it again? otherwise the change is thrown away") {
            return Err(usage(file, "it was left as it is"));
        }
    }
}

/// Why a text cannot be read as YAML, without a word of it.
fn problem(file: &Path, bytes: &[u8]) -> Option<String> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Some(format!("{}: it is not UTF-8 text", file.display()));
    };
    let sources = Sources::default();
    let source = sources.add(file.display().to_string(), text);
    let mut diagnostics = Diagnostics::default();
    yaml::parse_one(&sources, source, &mut diagnostics);
    let wrong = diagnostics.sorted().into_iter().next()?;
    let place = wrong.labels.first().map(|label| sources.place(label.span));
    let place = place.map_or_else(|| file.display().to_string(), |place| place.to_string());
    Some(format!("{place}: it cannot be read as YAML ({})", wrong.code))
}

/// Runs the editor. It alone answers to Ctrl-C; whoever ends converge ends it, too.
fn edit(surroundings: &Surroundings, path: &Path) -> Result<(), CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let editor = surroundings.variable("VISUAL").or_else(|| surroundings.variable("EDITOR"));
    let editor = editor.unwrap_or("vi");
    let failed = |why: String| CliError::Machine(format!("the editor `{editor}` {why}"));
    let started = |error: std::io::Error| failed(format!("cannot be run: {error}"));
    runtime()?.block_on(async {
        let mut terminated = signal(SignalKind::terminate()).map_err(started)?;
        let mut hung_up = signal(SignalKind::hangup()).map_err(started)?;
        let _interrupted = signal(SignalKind::interrupt()).map_err(started)?;
        let _quit = signal(SignalKind::quit()).map_err(started)?;
        let mut child = tokio::process::Command::new("/bin/sh")
            .args(["-c", &format!("{editor} \"$1\""), "sh"])
            .arg(path)
            .current_dir(&surroundings.directory)
            .kill_on_drop(true)
            .spawn()
            .map_err(started)?;
        let status = tokio::select! {
            status = child.wait() => status.map_err(started)?,
            _ = terminated.recv() => return Err(failed(String::from("was ended"))),
            _ = hung_up.recv() => return Err(failed(String::from("was ended"))),
        };
        if status.success() { Ok(()) } else { Err(failed(format!("failed ({status})"))) }
    })
}
