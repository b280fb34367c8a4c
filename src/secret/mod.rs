//! What only those may read who have a key: encrypted as age does it (age-encryption.org/v1), to
//! X25519 and SSH keys or with a passphrase, or as Ansible Vault does it, which is only read.
//!
//! The room may know files that it is given, and whom to ask for passphrases. It must never know
//! where keys are named (that is the command line's), nor what a secret is used for.

mod keyring;
mod replace;
mod vault;

pub use keyring::{KeyError, Keyring, OpenIdentities, VaultPassword, is_encrypted};
pub use replace::{create_private, replace_file};
pub use vault::VAULT_MARK;

use std::io::{self, Read, Write};
use std::sync::Arc;

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::{ExposeSecret, SecretString};
use age::{Callbacks, DecryptError, Decryptor, EncryptError, Encryptor, Identity, IdentityFile};

/// The largest work factor of a passphrase that is tried: 2^22 takes some seconds.
const WORK_FACTOR: u8 = 22;

/// Why something cannot be encrypted or read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A line of a list of recipients is none.
    #[error("{place}:{line}: this is neither an age nor an SSH public key")]
    Recipient {
        /// The file, or where else it came from.
        place: String,
        /// Counts from 1.
        line: usize,
    },
    /// A file of keys holds none that are understood.
    #[error("{place}: {reason}")]
    Identity {
        /// The file.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It was not encrypted.
    #[error("it cannot be encrypted: {0}")]
    Encrypt(#[from] EncryptError),
    /// None of the keys is one that it was encrypted to, or it is damaged.
    #[error("it cannot be decrypted: {0}")]
    Decrypt(#[from] DecryptError),
    /// It was cut off or changed.
    #[error("it cannot be decrypted: {0}")]
    Io(#[from] io::Error),
}

/// Asks somebody for a passphrase; the argument says for which key.
pub type Ask = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// To whom something is encrypted.
#[derive(Default)]
pub struct Recipients {
    keys: Vec<Box<dyn age::Recipient + Send>>,
}

impl Recipients {
    /// Adds the public keys of a list: one a line, `#` begins a comment.
    pub fn add(&mut self, list: &str, place: &str) -> Result<(), SecretError> {
        for (line, number) in list.lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = || SecretError::Recipient { place: place.to_owned(), line: number };
            if let Ok(key) = line.parse::<age::x25519::Recipient>() {
                self.keys.push(Box::new(key));
            } else {
                let key = line.parse::<age::ssh::Recipient>().map_err(|_| wrong())?;
                self.keys.push(Box::new(key));
            }
        }
        Ok(())
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Encrypts to all of them.
    pub fn encrypt(&self, plain: &[u8]) -> Result<Vec<u8>, SecretError> {
        let keys = self.keys.iter().map(|key| key.as_ref() as &dyn age::Recipient);
        let mut writer = Encryptor::with_recipients(keys)?.wrap_output(Vec::new())?;
        writer.write_all(plain)?;
        Ok(writer.finish()?)
    }
}

/// The keys that somebody has.
#[derive(Default)]
pub struct Identities {
    keys: Vec<Box<dyn Identity>>,
}

impl Identities {
    /// Adds the private keys of a file: age's own, encrypted with a passphrase or not, or an SSH
    /// key.
    pub fn add(&mut self, file: &[u8], place: &str, ask: &Ask) -> Result<(), SecretError> {
        let wrong = |reason: &dyn std::fmt::Display| SecretError::Identity {
            place: place.to_owned(),
            reason: reason.to_string(),
        };
        let asking = Asking(Arc::clone(ask));
        let begins = |mark: &str| file.trim_ascii_start().starts_with(mark.as_bytes());
        if begins("-----BEGIN AGE ENCRYPTED FILE-----") || begins("age-encryption.org/") {
            let reader = ArmoredReader::new(io::Cursor::new(file.to_vec()));
            let name = Some(place.to_owned());
            let key =
                age::encrypted::Identity::from_buffer(reader, name, asking, Some(WORK_FACTOR))
                    .map_err(|error| wrong(&error))?
                    .ok_or_else(|| wrong(&"it is not encrypted with a passphrase"))?;
            self.keys.push(Box::new(key));
        } else if begins("-----BEGIN ") {
            let key = age::ssh::Identity::from_buffer(file, Some(place.to_owned()))
                .map_err(|error| wrong(&error))?;
            if let age::ssh::Identity::Unsupported(_) = key {
                return Err(wrong(&"SSH keys of this type cannot be used for encryption"));
            }
            self.keys.push(Box::new(key.with_callbacks(asking)));
        } else {
            let keys = IdentityFile::from_buffer(file)
                .map_err(|error| wrong(&error))?
                .into_identities()
                .map_err(|error| wrong(&error))?;
            if keys.is_empty() {
                return Err(wrong(&"there is no key in it"));
            }
            self.keys.extend(keys);
        }
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Decrypts what was encrypted to one of them, armored or not.
    pub fn decrypt(&self, cipher: &[u8]) -> Result<Vec<u8>, SecretError> {
        let decryptor = Decryptor::new(ArmoredReader::new(cipher.trim_ascii_start()))?;
        let keys = self.keys.iter().map(AsRef::as_ref);
        let mut plain = Vec::new();
        decryptor.decrypt(keys)?.read_to_end(&mut plain)?;
        Ok(plain)
    }
}

/// A new key of age.
pub struct NewIdentity {
    /// The private part: `AGE-SECRET-KEY-…`.
    pub secret: String,
    /// The public part: `age1…`.
    pub public: String,
}

/// Makes a key of age (X25519).
pub fn generate() -> NewIdentity {
    let key = age::x25519::Identity::generate();
    let public = key.to_public().to_string();
    NewIdentity { secret: key.to_string().expose_secret().to_owned(), public }
}

/// What was encrypted, as lines of text.
pub fn armored(cipher: &[u8]) -> Result<String, SecretError> {
    let mut writer = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)?;
    writer.write_all(cipher)?;
    Ok(String::from_utf8_lossy(&writer.finish()?).into_owned())
}

/// Encrypts with a passphrase.
pub fn encrypt_with_passphrase(plain: &[u8], passphrase: &str) -> Result<Vec<u8>, SecretError> {
    let encryptor = Encryptor::with_user_passphrase(SecretString::from(passphrase.to_owned()));
    let mut writer = encryptor.wrap_output(Vec::new())?;
    writer.write_all(plain)?;
    Ok(writer.finish()?)
}

/// Whether something was encrypted with a passphrase.
pub fn needs_passphrase(cipher: &[u8]) -> Result<bool, SecretError> {
    let reader = ArmoredReader::new(cipher.trim_ascii_start());
    Ok(Decryptor::new(reader)?.is_scrypt())
}

/// Decrypts what was encrypted with a passphrase.
fn decrypt_with_passphrase(cipher: &[u8], passphrase: String) -> Result<Vec<u8>, SecretError> {
    let decryptor = Decryptor::new(ArmoredReader::new(cipher.trim_ascii_start()))?;
    let mut identity = age::scrypt::Identity::new(SecretString::from(passphrase));
    identity.set_max_work_factor(WORK_FACTOR);
    let mut plain = Vec::new();
    decryptor.decrypt(std::iter::once(&identity as &dyn Identity))?.read_to_end(&mut plain)?;
    Ok(plain)
}

/// Asks for passphrases, and for nothing else.
#[derive(Clone)]
struct Asking(Ask);

impl Callbacks for Asking {
    fn display_message(&self, _: &str) {}

    fn confirm(&self, _: &str, _: &str, _: Option<&str>) -> Option<bool> {
        None
    }

    fn request_public_string(&self, _: &str) -> Option<String> {
        None
    }

    fn request_passphrase(&self, question: &str) -> Option<SecretString> {
        self.0(question).map(SecretString::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> Ask {
        Arc::new(|_| None)
    }

    #[test]
    fn who_has_a_key_reads_it_and_nobody_else() {
        let keys: Vec<_> = (0..3).map(|_| age::x25519::Identity::generate()).collect();
        let list = format!("# us\n{}\n\n{}\n", keys[0].to_public(), keys[1].to_public());
        let mut recipients = Recipients::default();
        recipients.add(&list, "recipients").unwrap();
        assert_eq!(recipients.len(), 2);
        let cipher = recipients.encrypt(b"hush").unwrap();
        assert!(!cipher.windows(4).any(|part| part == b"hush"));
        for (number, key) in keys.iter().enumerate() {
            let mut identities = Identities::default();
            let file = format!("# key\n{}\n", key.to_string().expose_secret());
            identities.add(file.as_bytes(), "key.txt", &nobody()).unwrap();
            let plain = identities.decrypt(&cipher);
            assert_eq!(plain.ok(), (number < 2).then(|| b"hush".to_vec()), "{number}");
            let cut = &cipher[..cipher.len() - 1];
            assert!(identities.decrypt(cut).is_err());
        }
    }

    #[test]
    fn what_is_no_key_is_named() {
        let mut recipients = Recipients::default();
        let error = recipients.add("# one\nage1nonsense\n", "recipients").unwrap_err();
        assert_eq!(error.to_string(), "recipients:2: this is neither an age nor an SSH public key");
        assert!(recipients.is_empty());
        for file in ["", "# nothing\n", "hello\n", "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n"] {
            let error = Identities::default().add(file.as_bytes(), "key.txt", &nobody());
            assert!(error.unwrap_err().to_string().starts_with("key.txt: "), "{file:?}");
        }
    }
}
