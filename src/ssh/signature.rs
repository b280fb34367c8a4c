//! Signatures made with SSH keys (`PROTOCOL.sshsig` of OpenSSH), by OpenSSH's own program: it knows
//! agents, hardware keys, passphrases, certificates and the rules of `allowed_signers` (ssh-keygen(1)).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::fs::MemfdFlags;

/// What the signatures are for; none of another purpose is taken.
const NAMESPACE: &str = "converge-plan";

/// A signature could not be made, or does not hold.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The program is missing or cannot be run.
    #[error("ssh-keygen cannot be run: {0}")]
    Program(#[from] io::Error),
    /// It was not made; what the program said.
    #[error("it was not signed: {0}")]
    NotSigned(String),
    /// It is not one of an allowed signer over these bytes; what the program said.
    #[error("its signature does not hold: {0}")]
    Wrong(String),
}

/// Signs bytes with a private key, or with the agent's key that a public key file names; the
/// signature is armoured.
pub fn sign(key: &Path, bytes: &[u8]) -> Result<String, SignatureError> {
    let mut command = Command::new("ssh-keygen");
    command.args(["-Y", "sign", "-n", NAMESPACE, "-f"]).arg(key);
    let output = feed(command, bytes)?;
    if !output.status.success() {
        return Err(SignatureError::NotSigned(said(&output)));
    }
    String::from_utf8(output.stdout).map_err(|error| SignatureError::NotSigned(error.to_string()))
}

/// Who of the allowed signers has signed these bytes.
pub fn verify(
    allowed_signers: &Path,
    signature: &str,
    bytes: &[u8],
) -> Result<String, SignatureError> {
    // The program reads the signature from a file; this one is nowhere but in memory.
    let held = rustix::fs::memfd_create("signature", MemfdFlags::CLOEXEC)
        .map_err(|error| SignatureError::Program(error.into()))?;
    let mut held = File::from(held);
    held.write_all(signature.as_bytes())?;
    let place = format!("/proc/{}/fd/{}", std::process::id(), held.as_raw_fd());
    let mut command = Command::new("ssh-keygen");
    command.args(["-Y", "find-principals", "-s", &place, "-f"]).arg(allowed_signers);
    let output = feed(command, b"")?;
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some(signer) = names.lines().next().filter(|_| output.status.success()) else {
        return Err(SignatureError::Wrong(String::from("it is of no allowed signer")));
    };
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-Y", "verify", "-n", NAMESPACE, "-I", signer, "-s", &place, "-f"])
        .arg(allowed_signers);
    let output = feed(command, bytes)?;
    if output.status.success() {
        Ok(signer.to_owned())
    } else {
        Err(SignatureError::Wrong(said(&output)))
    }
}

fn feed(mut command: Command, bytes: &[u8]) -> io::Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (mut input, mut said) = (child.stdin.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A program that ends early says why by itself.
            let _ = input.as_mut().map(|input| input.write_all(bytes));
        });
        let errors = scope.spawn(move || {
            let mut text = Vec::new();
            let _ = said.as_mut().map(|said| said.read_to_end(&mut text));
            text
        });
        let mut output = child.wait_with_output()?;
        output.stderr = errors.join().unwrap_or_default();
        Ok(output)
    })
}

/// The program's complaint, in one line.
fn said(output: &Output) -> String {
    super::error::printable(&output.stderr)
}
