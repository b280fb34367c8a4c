//! Programs of the machine, run with a time limit and with their complaints kept.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::SandboxError;

/// Where the programs of a Debian machine are, whatever the caller's own search path is.
pub(super) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of a program's standard error is kept for a message, in bytes.
const KEPT: usize = 4096;

/// How long a program that only asks or sets something may take.
pub(super) const SHORT: Duration = Duration::from_secs(30);

/// A program with a neutral language, a full search path and nothing to read.
pub(super) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command
        .env("PATH", SEARCH_PATH)
        .env("LC_ALL", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .current_dir("/")
        .stdin(Stdio::null());
    command
}

/// Runs a program to its end and gives what it printed; anything but success is an error.
pub(super) fn run(command: &mut Command, limit: Duration) -> Result<Vec<u8>, SandboxError> {
    run_with(command, &[], limit, &|_| {})
}

enum Heard {
    Line(Vec<u8>),
    OutputEnded,
    Complaints(Vec<u8>),
}

/// As [`run`], with something to read for the program, and each line it prints given to `on_line` at once.
pub(super) fn run_with(
    command: &mut Command,
    input: &[u8],
    limit: Duration,
    on_line: &dyn Fn(&str),
) -> Result<Vec<u8>, SandboxError> {
    let shown = shown(command);
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = Instant::now();
    let mut child =
        command.spawn().map_err(|source| SandboxError::Start { command: shown.clone(), source })?;
    let (sender, receiver) = mpsc::channel();
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_owned();
        // A program that does not read all of it says so by its exit code.
        thread::spawn(move || stdin.write_all(&input));
    }
    if let Some(stdout) = child.stdout.take() {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(read) if read > 0) {
                if sender.send(Heard::Line(std::mem::take(&mut line))).is_err() {
                    break;
                }
            }
            // Nobody listens any more when the limit has passed.
            let _ = sender.send(Heard::OutputEnded);
        });
    }
    if let Some(mut stderr) = child.stderr.take() {
        thread::spawn(move || {
            let mut kept = Vec::new();
            let mut buffer = [0; 4096];
            while let Ok(read) = stderr.read(&mut buffer) {
                if read == 0 {
                    break;
                }
                kept.extend_from_slice(&buffer[..read]);
                if kept.len() > 2 * KEPT {
                    kept.drain(..kept.len() - KEPT);
                }
            }
            let _ = sender.send(Heard::Complaints(kept));
        });
    }
    let mut output = Vec::new();
    let mut complaints = None;
    let mut ended = false;
    let out_of_time = loop {
        if ended && complaints.is_some() {
            break false;
        }
        match receiver.recv_timeout(limit.saturating_sub(started.elapsed())) {
            Ok(Heard::Line(line)) => {
                on_line(String::from_utf8_lossy(&line).trim_end());
                output.extend_from_slice(&line);
            }
            Ok(Heard::OutputEnded) => ended = true,
            Ok(Heard::Complaints(bytes)) => complaints = Some(bytes),
            Err(RecvTimeoutError::Timeout) => break true,
            Err(RecvTimeoutError::Disconnected) => break false,
        }
    };
    if out_of_time {
        // Already gone is as good.
        let _ = child.kill();
    }
    let status =
        child.wait().map_err(|source| SandboxError::Start { command: shown.clone(), source })?;
    let stderr = tail(&complaints.unwrap_or_default());
    if out_of_time {
        return Err(SandboxError::TimedOut { command: shown, limit, stderr });
    }
    if !status.success() {
        return Err(SandboxError::Failed { command: shown, status: said(status), stderr });
    }
    Ok(output)
}

/// The end of a text, as it is shown in an error.
pub(super) fn tail(text: &[u8]) -> String {
    let from = text.len().saturating_sub(KEPT);
    String::from_utf8_lossy(&text[from..]).trim().to_owned()
}

fn said(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    }
}

fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| {
            let word = word.to_string_lossy();
            // Scripts of ours are long; their first line says enough.
            match word.split_once('\n') {
                Some((first, _)) => format!("'{first}…'"),
                None => word.into_owned(),
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_kept_and_its_time_is_bounded() {
        let second = Duration::from_secs(1);
        let output = run(program("sh").args(["-c", "echo one; echo two"]), second).unwrap();
        assert_eq!(output, b"one\ntwo\n");
        let output = run_with(&mut program("cat"), b"read", second, &|_| {}).unwrap();
        assert_eq!(output, b"read");
        let error = run(program("sh").args(["-c", "echo bad >&2; exit 3"]), second).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c echo bad >&2; exit 3` failed (exit code 3): bad");
        let error = run(program("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, SandboxError::TimedOut { .. }), "{error}");
        let error = run(&mut program("no-such-program-here"), second).unwrap_err();
        assert!(matches!(error, SandboxError::Start { .. }), "{error}");
    }
}
