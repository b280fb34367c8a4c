//! The keys of a run: opened when the first secret is met, and asked once for each secret.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::vault::{VAULT_MARK, Vault};
use super::{Ask, Identities, SecretError};

/// Why a secret stays closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No key was given that could open it.
    #[error("there is no key for it")]
    Missing {
        /// The way out: which option names one.
        help: String,
    },
    /// None of the keys that were given opens it.
    #[error("{reason}")]
    Wrong {
        /// What was tried.
        reason: String,
        /// The way out: which option names another one.
        help: String,
    },
    /// It is no secret that is understood, or was damaged.
    #[error("{0}")]
    Damaged(String),
}

/// A password of Ansible Vault.
pub struct VaultPassword {
    /// Its label; `default` where none was given.
    pub id: String,
    /// The password.
    pub password: Vec<u8>,
}

type Opened<T> = LazyLock<Result<T, String>, Box<dyn FnOnce() -> Result<T, String> + Send>>;
type Answer = Result<Arc<[u8]>, KeyError>;

/// Opens secrets with the keys of whoever runs converge.
pub struct Keyring {
    passwords: Opened<Vec<VaultPassword>>,
    age: AgeKeys,
    /// Each secret is opened once, by its digest: that takes milliseconds, and hosts share secrets.
    known: Mutex<HashMap<blake3::Hash, Answer>>,
    missed: AtomicBool,
    may_miss: bool,
}

/// Reads the keys of age.
pub type OpenIdentities = Box<dyn FnOnce(&Ask) -> Result<Identities, String> + Send>;

impl Default for Keyring {
    /// A ring without keys.
    fn default() -> Self {
        let nobody: Ask = Arc::new(|_| None);
        Self::new(Box::new(|_| Ok(Identities::default())), Box::new(|| Ok(Vec::new())), nobody)
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Keyring")
    }
}

/// Whether a text is encrypted as a whole.
pub fn is_encrypted(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii_start();
    let begins = |mark: &str| bytes.starts_with(mark.as_bytes());
    begins(VAULT_MARK)
        || begins("age-encryption.org/")
        || begins("-----BEGIN AGE ENCRYPTED FILE-----")
}

impl Keyring {
    /// A ring whose keys are read when the first secret asks for them; `ask` asks somebody for
    /// passphrases, each once.
    pub fn new(
        identities: OpenIdentities,
        passwords: Box<dyn FnOnce() -> Result<Vec<VaultPassword>, String> + Send>,
        ask: Ask,
    ) -> Self {
        let age = AgeKeys { open: Mutex::new(Some((identities, ask))), worker: Mutex::default() };
        let passwords = LazyLock::new(passwords);
        Self {
            passwords,
            age,
            known: Mutex::default(),
            missed: AtomicBool::new(false),
            may_miss: false,
        }
    }

    /// The same where secrets need no keys: what is in them is then not known.
    #[must_use]
    pub fn optional(self, optional: bool) -> Self {
        Self { may_miss: optional, ..self }
    }

    /// Whether secrets need no keys.
    pub fn may_miss(&self) -> bool {
        self.may_miss
    }

    /// Whether some secret had no key so far.
    pub fn has_missed(&self) -> bool {
        self.missed.load(Ordering::Relaxed)
    }

    /// What is in a secret.
    pub fn open(&self, secret: &[u8]) -> Answer {
        // Held meanwhile, so that twenty hosts do not open it twenty times.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = known.entry(blake3::hash(secret)).or_insert_with(|| {
            let plain = if secret.trim_ascii_start().starts_with(VAULT_MARK.as_bytes()) {
                self.open_vault(secret)?
            } else if is_encrypted(secret) {
                self.age.open(secret)?
            } else {
                let reason = "this is neither encrypted with age nor with Ansible Vault";
                return Err(KeyError::Damaged(reason.to_owned()));
            };
            Ok(plain.into())
        });
        if matches!(answer, Err(KeyError::Missing { .. })) {
            self.missed.store(true, Ordering::Relaxed);
        }
        answer.clone()
    }

    fn open_vault(&self, secret: &[u8]) -> Result<Vec<u8>, KeyError> {
        let text = std::str::from_utf8(secret).unwrap_or_default();
        let vault = Vault::parse(text).map_err(KeyError::Damaged)?;
        let help = match vault.id.as_deref().filter(|id| *id != "default") {
            Some(id) => format!("name its password with `--vault-id {id}@FILE`"),
            None => String::from(
                "name its password with `--vault-password-file FILE`, or have it asked for with \
                 `--ask-vault-pass`",
            ),
        };
        let passwords = match &*self.passwords {
            Ok(passwords) => passwords,
            Err(reason) => return Err(KeyError::Wrong { reason: reason.clone(), help }),
        };
        // Those of its label first, then all others, as Ansible does.
        let labelled = |one: &&VaultPassword| Some(&one.id) == vault.id.as_ref();
        let others = passwords.iter().filter(|one| !labelled(one));
        let mut candidates = passwords.iter().filter(labelled).chain(others);
        match candidates.find_map(|candidate| vault.decrypt(&candidate.password)) {
            Some(plain) => Ok(plain),
            None if passwords.is_empty() => Err(KeyError::Missing { help }),
            None => {
                let reason = String::from("none of the given passwords opens it");
                Err(KeyError::Wrong { reason, help })
            }
        }
    }
}

/// The keys of age. They cannot be shared between threads: one thread has them, and answers.
struct AgeKeys {
    open: Mutex<Option<(OpenIdentities, Ask)>>,
    worker: Mutex<Option<Sender<Request>>>,
}

struct Request {
    secret: Vec<u8>,
    answer: Sender<Result<Vec<u8>, KeyError>>,
}

impl AgeKeys {
    fn open(&self, secret: &[u8]) -> Result<Vec<u8>, KeyError> {
        let gone = || KeyError::Damaged(String::from("the thread with the keys has ended"));
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = match &*worker {
            Some(sender) => sender,
            None => {
                let opener = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
                let (identities, ask) = opener.ok_or_else(gone)?;
                let (sender, requests) = mpsc::channel::<Request>();
                std::thread::spawn(move || {
                    let keys = Keys::new(identities, &ask);
                    for request in requests {
                        // Whoever asked may be gone by now.
                        let _ = request.answer.send(keys.open(&request.secret));
                    }
                });
                worker.insert(sender)
            }
        };
        let (answer, answers) = mpsc::channel();
        sender.send(Request { secret: secret.to_vec(), answer }).map_err(|_| gone())?;
        answers.recv().unwrap_or_else(|_| Err(gone()))
    }
}

/// What the thread has.
struct Keys {
    identities: Result<Identities, String>,
    ask: Ask,
}

impl Keys {
    fn new(identities: OpenIdentities, ask: &Ask) -> Self {
        let answers: Mutex<HashMap<String, Option<String>>> = Mutex::default();
        let ask = Arc::clone(ask);
        let once: Ask = Arc::new(move |question| {
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.entry(question.to_owned()).or_insert_with(|| ask(question)).clone()
        });
        Self { identities: identities(&once), ask: once }
    }

    fn open(&self, secret: &[u8]) -> Result<Vec<u8>, KeyError> {
        if super::needs_passphrase(secret).map_err(|error| KeyError::Damaged(error.to_string()))? {
            let help =
                String::from("it is encrypted with a passphrase, which is asked for at a terminal");
            let Some(passphrase) = (self.ask)("passphrase of the secrets") else {
                return Err(KeyError::Missing { help });
            };
            return super::decrypt_with_passphrase(secret, passphrase).map_err(|error| {
                KeyError::Wrong {
                    reason: format!("the passphrase does not open it: {error}"),
                    help,
                }
            });
        }
        let help = String::from("name a key with `--identity FILE` or `CONVERGE_AGE_IDENTITY`");
        match &self.identities {
            Ok(identities) if identities.is_empty() => Err(KeyError::Missing { help }),
            Ok(identities) => identities.decrypt(secret).map_err(|error| match error {
                SecretError::Decrypt(age::DecryptError::NoMatchingKeys) => {
                    let reason = String::from("none of the given keys opens it");
                    KeyError::Wrong { reason, help }
                }
                other => KeyError::Damaged(other.to_string()),
            }),
            Err(reason) => Err(KeyError::Wrong { reason: reason.clone(), help }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::super::{Recipients, armored, encrypt_with_passphrase, generate};
    use super::*;

    fn ring(identity: Option<String>, passwords: &[(&str, &str)], ask: Ask) -> Keyring {
        let open: OpenIdentities = Box::new(move |ask| {
            let mut identities = Identities::default();
            if let Some(identity) = identity {
                identities.add(identity.as_bytes(), "key.txt", ask).map_err(|e| e.to_string())?;
            }
            Ok(identities)
        });
        let passwords = passwords
            .iter()
            .map(|(id, password)| VaultPassword {
                id: (*id).to_owned(),
                password: password.as_bytes().to_vec(),
            })
            .collect();
        Keyring::new(open, Box::new(|| Ok(passwords)), ask)
    }

    fn nobody() -> Ask {
        Arc::new(|_| None)
    }

    #[test]
    fn each_form_is_opened_by_its_key_and_no_other() {
        let key = generate();
        let mut recipients = Recipients::default();
        recipients.add(&key.public, "recipients").unwrap();
        let binary = recipients.encrypt(b"with age").unwrap();
        let armor = armored(&binary).unwrap();
        let vault = include_bytes!("../../tests/secrets/labelled.txt");
        let passwords = [("default", "no"), ("prod", "no"), ("prod", "staple")];
        let full = ring(Some(key.secret.clone()), &passwords, nobody());
        assert_eq!(full.open(&binary).unwrap().as_ref(), b"with age");
        assert_eq!(full.open(armor.as_bytes()).unwrap().as_ref(), b"with age");
        assert_eq!(full.open(vault).unwrap().as_ref(), b"hunter2-hunter2");
        assert!(matches!(full.open(b"plain"), Err(KeyError::Damaged(_))));
        assert!(matches!(full.open(&binary[..binary.len() - 1]), Err(KeyError::Damaged(_))));

        let other = ring(Some(generate().secret), &[("default", "no")], nobody());
        for secret in [&binary[..], vault] {
            assert!(matches!(other.open(secret), Err(KeyError::Wrong { .. })));
        }
        let empty = Keyring::default();
        let missing = |secret: &[u8]| match empty.open(secret) {
            Err(KeyError::Missing { help }) => help,
            other => panic!("{other:?}"),
        };
        assert!(missing(&binary).contains("--identity"));
        assert!(missing(vault).contains("--vault-id prod@FILE"));
        assert!(
            missing(include_bytes!("../../tests/secrets/vault.yml"))
                .contains("--vault-password-file")
        );
    }

    #[test]
    fn a_passphrase_is_asked_for_once() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let ask: Ask = Arc::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Some(String::from("open sesame"))
        });
        let ring = ring(None, &[], ask);
        let secret = encrypt_with_passphrase(b"plain", "open sesame").unwrap();
        assert_eq!(ring.open(&secret).unwrap().as_ref(), b"plain");
        let other = encrypt_with_passphrase(b"plain", "other").unwrap();
        assert!(matches!(ring.open(&other), Err(KeyError::Wrong { .. })));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn keys_that_cannot_be_read_are_said_where_they_are_needed() {
        let open: OpenIdentities = Box::new(|_| Err(String::from("key.txt cannot be read")));
        let ring = Keyring::new(open, Box::new(|| Err(String::from("no password"))), nobody());
        let vault = include_bytes!("../../tests/secrets/vault.yml");
        assert_eq!(ring.open(vault).unwrap_err().to_string(), "no password");
    }
}
