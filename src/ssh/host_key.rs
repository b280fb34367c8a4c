//! Whether the host is the one that it should be: the rules of a destination, applied to the key that it shows.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey, PublicKeyOrCertificate};

use super::error::ShownKey;
use super::known_hosts::{Files, HostKey, HostName, KnownHosts, Verdict, line_for, match_list};
use super::quote::for_sh;
use super::{Destination, Error, UnknownHostKey};

/// The `known_hosts` files of all destinations of a run, and the one pen that writes in them.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    files: Files,
    pen: Mutex<()>,
}

/// Judges the key that one destination shows.
#[derive(Debug)]
pub(super) struct HostKeyCheck {
    known: KnownHosts,
    name: HostName,
    destination: Destination,
    ledger: Arc<Ledger>,
    clock: fn() -> SystemTime,
}

impl HostKeyCheck {
    pub(super) fn new(
        destination: &Destination,
        ledger: &Arc<Ledger>,
        clock: fn() -> SystemTime,
    ) -> Result<Self, Error> {
        let rules = &destination.host_keys;
        let paths = rules.user_files.iter().chain(&rules.global_files);
        let known = ledger
            .files
            .open(paths)
            .map_err(|(file, source)| Error::KnownHosts { file, source })?;
        let name = HostName::new(&destination.host, destination.port, rules.alias.as_deref());
        Ok(Self { known, name, destination: destination.clone(), ledger: ledger.clone(), clock })
    }

    /// The kinds of host key to ask for, best first: what is on file goes before what is not, so that a host with
    /// several keys shows the known one. OpenSSH's `order_hostkeyalgs` does the same.
    pub(super) fn preferred(&self, all: &[Algorithm]) -> Vec<Algorithm> {
        let kinds = self.known.kinds(&self.name);
        let on_file = |algorithm: &Algorithm| match algorithm {
            Algorithm::Rsa { .. } => kinds.iter().any(|kind| matches!(kind, Algorithm::Rsa { .. })),
            other => kinds.contains(other),
        };
        if all.first().is_some_and(on_file) {
            return all.to_vec();
        }
        let (mut first, last): (Vec<_>, Vec<_>) = all.iter().cloned().partition(on_file);
        first.extend(last);
        first
    }

    /// Whether a host certificate is worth asking for.
    pub(super) fn wants_certificate(&self) -> bool {
        !self.known.authorities(&self.name).is_empty()
    }

    /// Accepts the host, or says why not.
    pub(super) fn check(&self, shown: &PublicKeyOrCertificate) -> Result<(), Error> {
        if let PublicKeyOrCertificate::Certificate(certificate) = shown {
            for key in [certificate.public_key(), certificate.signature_key()] {
                let key = PublicKey::from(key.clone());
                if let Some(Verdict::Revoked { file, line }) = self.known.revoked(&self.name, &key)
                {
                    return Err(self.revoked(&HostKey(key), file, line));
                }
            }
            if self.certified(certificate) {
                return Ok(());
            }
            // No authority that we trust vouches for it: the key within may be known by itself.
        }
        let key = HostKey(shown.public_key());
        match self.known.judge(&self.name, &key) {
            Verdict::Known => Ok(()),
            Verdict::Revoked { file, line } => Err(self.revoked(&key, file, line)),
            Verdict::Changed { file, line } => Err(Error::HostKeyChanged {
                shown: self.shown(&key),
                forget: format!(
                    "ssh-keygen -f {} -R {}",
                    shell_path(&file),
                    for_sh(&self.name.to_string())
                ),
                file,
                line,
            }),
            Verdict::Unknown => self.unknown(&key),
        }
    }

    fn unknown(&self, key: &HostKey) -> Result<(), Error> {
        let file = self.destination.host_keys.user_files.first();
        match (self.destination.host_keys.unknown, file) {
            (UnknownHostKey::Append, Some(file)) => self
                .append(file, key)
                .map_err(|source| Error::KnownHosts { file: file.clone(), source }),
            _ => Err(Error::HostKeyUnknown {
                shown: self.shown(key),
                accept: self.how_to_accept(file, key),
            }),
        }
    }

    /// The command that a person runs to accept the key: exactly this key, and it works behind jump hosts as well.
    fn how_to_accept(&self, file: Option<&PathBuf>, key: &HostKey) -> String {
        let Destination { host, port, user, .. } = &self.destination;
        let port = if *port == 22 { String::new() } else { format!("-p {port} ") };
        let by_ssh = format!("`ssh {port}{}` and answer yes", for_sh(&format!("{user}@{host}")));
        match (file, line_for(&self.name, key, None)) {
            (Some(file), Some(line)) => {
                format!("`echo {} >> {}`, or {by_ssh}", for_sh(line.trim_end()), shell_path(file))
            }
            _ => by_ssh,
        }
    }

    fn shown(&self, key: &HostKey) -> Box<ShownKey> {
        let (algorithm, fingerprint) = (key.kind(), key.fingerprint());
        Box::new(ShownKey { address: self.destination.address(), algorithm, fingerprint })
    }

    fn revoked(&self, key: &HostKey, file: PathBuf, line: usize) -> Error {
        Error::HostKeyRevoked { shown: self.shown(key), file, line }
    }

    /// Whether an authority on file vouches for this host by this certificate, now; PROTOCOL.certkeys of OpenSSH.
    fn certified(&self, certificate: &Certificate) -> bool {
        let now = (self.clock)().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let trusted = self.known.authorities(&self.name).into_iter();
        let signer = trusted.into_iter().find(|key| key.key_data() == certificate.signature_key());
        let Some(signer) = signer else { return false };
        let weak = matches!(
            certificate.signature().algorithm(),
            Algorithm::Rsa { hash: None } | Algorithm::Dsa
        );
        let named = self
            .destination
            .host_keys
            .alias
            .as_deref()
            .unwrap_or(&self.destination.host)
            .to_lowercase();
        let principals = certificate.valid_principals();
        certificate.cert_type().is_host()
            && !weak
            && certificate.critical_options().is_empty()
            && (principals.is_empty()
                || principals.iter().any(|principal| match_list(&named, principal)))
            && certificate.validate_at(now, [&signer.fingerprint(HashAlg::Sha256)]).is_ok()
    }

    /// Writes the key down, as OpenSSH does: at the end of the user's first file, which is made if it is missing.
    fn append(&self, file: &Path, key: &HostKey) -> io::Result<()> {
        let salt = if self.destination.host_keys.hash_names { Some(random()?) } else { None };
        let line = line_for(&self.name, key, salt)
            .ok_or_else(|| io::Error::other("the key cannot be written"))?;
        let _pen = self.ledger.pen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = file.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut open =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(file)?;
        let mut text = String::new();
        if open.metadata()?.len() > 0 {
            let mut last = [0];
            open.seek(SeekFrom::End(-1))?;
            open.read_exact(&mut last)?;
            if last != *b"\n" {
                text.push('\n');
            }
        }
        text.push_str(&line);
        open.write_all(text.as_bytes())
    }
}

fn shell_path(path: &Path) -> String {
    for_sh(&path.to_string_lossy())
}

/// Random bytes of the system: for salts, and for marks that nobody can guess.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
