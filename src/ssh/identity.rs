//! Private keys in files: read once for all hosts, their passphrases asked for once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use russh::keys::agent::AgentIdentity;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{
    Certificate, HashAlg, PrivateKey, PublicKey, decode_secret_key, load_openssh_certificate,
};
use tokio::sync::OnceCell;

use super::Password;
use super::deadline::Deadline;

/// Asks a person; only the command line can.
pub trait Prompt: Send + Sync {
    /// Asks for the passphrase of a key file, and waits for the answer. `again` says that the last answer was wrong.
    /// `None`: there is nobody to ask, or the person declined.
    fn passphrase(&self, key: &Path, again: bool) -> Option<Password>;
}

/// Declines every question; for runs that nobody watches.
#[derive(Clone, Copy, Debug)]
pub struct Refuse;

impl Prompt for Refuse {
    fn passphrase(&self, _key: &Path, _again: bool) -> Option<Password> {
        None
    }
}

/// How often a passphrase is asked for, as OpenSSH's `NumberOfPasswordPrompts`.
const QUESTIONS: usize = 3;

/// What is known of a key file without its passphrase.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// There is no such file.
    Missing,
    /// It is no key, or cannot be read; the text says why.
    Unusable(String),
    /// Its public part.
    Public(PublicKey),
    /// An encrypted file of an old format, which says nothing without its passphrase.
    Sealed,
}

/// All key files of a run.
pub(super) struct Keys {
    prompt: Arc<dyn Prompt>,
    known: Mutex<HashMap<PathBuf, Known>>,
    private: Mutex<HashMap<PathBuf, Arc<OnceCell<Opened>>>>,
    /// One question at a time.
    asking: Arc<Mutex<()>>,
}

type Opened = Result<Arc<PrivateKey>, String>;

impl Keys {
    pub(super) fn new(prompt: Arc<dyn Prompt>) -> Self {
        Self { prompt, known: Mutex::default(), private: Mutex::default(), asking: Arc::default() }
    }

    /// What the file says of itself, without asking anybody.
    pub(super) fn look(&self, path: &Path) -> Known {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(path.to_owned()).or_insert_with(|| look(path)).clone()
    }

    /// The private key, decrypted. The deadline stands still while a person is asked, and while another host's task
    /// has the same question open.
    pub(super) async fn open(&self, path: &Path, deadline: &Deadline) -> Opened {
        let cell = {
            let mut private = self.private.lock().unwrap_or_else(PoisonError::into_inner);
            private.entry(path.to_owned()).or_default().clone()
        };
        if let Some(opened) = cell.get() {
            return opened.clone();
        }
        let opening = cell.get_or_init(|| async {
            let (path, prompt, asking) =
                (path.to_owned(), self.prompt.clone(), self.asking.clone());
            let opening = tokio::task::spawn_blocking(move || open(&path, &*prompt, &asking));
            opening.await.unwrap_or_else(|_| Err("asking for the passphrase failed".into()))
        });
        deadline.pause(opening).await.clone()
    }
}

fn look(path: &Path) -> Known {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Known::Missing,
        Err(error) => return Known::Unusable(error.to_string()),
    };
    // An OpenSSH key file holds its public part in the clear.
    if let Ok(key) = PrivateKey::from_openssh(&text) {
        return Known::Public(key.public_key().clone());
    }
    match decode_secret_key(&text, None) {
        Ok(key) => Known::Public(key.public_key().clone()),
        Err(error) => match russh::keys::load_public_key(beside(path, ".pub")) {
            Ok(key) => Known::Public(key),
            Err(_) if text.contains("ENCRYPTED") => Known::Sealed,
            Err(_) => Known::Unusable(error.to_string()),
        },
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The certificate beside a key file (`PATH-cert.pub`), if there is one for this key.
pub(super) fn certificate(path: &Path, key: &PublicKey) -> Option<Certificate> {
    let certificate = load_openssh_certificate(beside(path, "-cert.pub")).ok()?;
    (certificate.public_key() == key.key_data()).then_some(certificate)
}

fn open(path: &Path, prompt: &dyn Prompt, asking: &Mutex<()>) -> Opened {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let first = match decode_secret_key(&text, None) {
        Ok(key) => return Ok(Arc::new(key)),
        Err(error) => error,
    };
    if !is_encrypted(&text) {
        return Err(first.to_string());
    }
    let _asking = asking.lock().unwrap_or_else(PoisonError::into_inner);
    for question in 0..QUESTIONS {
        let Some(passphrase) = prompt.passphrase(path, question > 0) else {
            return Err("it is encrypted, and no passphrase was given".into());
        };
        if let Ok(key) = decode_secret_key(&text, Some(passphrase.reveal())) {
            return Ok(Arc::new(key));
        }
    }
    Err("the passphrase is wrong".into())
}

fn is_encrypted(text: &str) -> bool {
    PrivateKey::from_openssh(text)
        .map_or_else(|_| text.contains("ENCRYPTED"), |key| key.is_encrypted())
}

/// Signs a log-in with a key from a file, which is opened only once the host has said that it would do.
pub(super) struct FileSigner<'a> {
    pub(super) keys: &'a Keys,
    pub(super) path: &'a Path,
    pub(super) deadline: &'a Deadline,
}

/// Why there is no signature.
#[derive(Debug)]
pub(super) struct NotSigned(pub(super) String);

impl From<russh::SendError> for NotSigned {
    fn from(_: russh::SendError) -> Self {
        Self("the connection was lost".into())
    }
}

impl russh::Signer for FileSigner<'_> {
    type Error = NotSigned;

    async fn auth_sign(
        &mut self,
        _key: &AgentIdentity,
        hash: Option<HashAlg>,
        mut data: Vec<u8>,
    ) -> Result<Vec<u8>, NotSigned> {
        let key = self.keys.open(self.path, self.deadline).await.map_err(NotSigned)?;
        let signature = sign(&key, hash, &data).map_err(|error| NotSigned(error.to_string()))?;
        // RFC 4252, section 7: the signed data, and after it the signature as a string of two strings.
        let (name, bytes) = (signature.algorithm(), signature.as_bytes());
        let name = name.as_str().as_bytes();
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
        data.extend(length(8 + name.len() + bytes.len()));
        for part in [name, bytes] {
            data.extend(length(part.len()));
            data.extend(part);
        }
        Ok(data)
    }
}

fn sign(
    key: &PrivateKey,
    hash: Option<HashAlg>,
    data: &[u8],
) -> Result<russh::keys::ssh_key::Signature, russh::keys::signature::Error> {
    use russh::keys::signature::Signer;
    match key.key_data() {
        KeypairData::Rsa(key) => (key, hash).try_sign(data),
        _ => key.try_sign(data),
    }
}
