//! `converge secrets`: makes keys, encrypts and decrypts files of variables and single values.

mod edit;

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::arguments::{CipherArguments, KeygenArguments, RekeyArguments, SecretsAction};
use super::keys::{self, RECIPIENTS};
use super::prompt::Terminal;
use super::screen::show;
use super::{CliError, EXIT_OK, Surroundings};
use crate::diagnostic::{Diagnostic, Diagnostics, SourceId, Sources};
use crate::lang;
use crate::project::Project;
use crate::secret::{self, KeyError, Keyring, Recipients, VAULT_MARK};

/// The ending of files that are encrypted as a whole.
const ENDING: &str = "age";
/// Standard input or output in place of a file.
const STANDARD: &str = "-";

/// Does what was asked for.
pub(super) fn run(surroundings: &Surroundings, action: &SecretsAction) -> Result<u8, CliError> {
    match action {
        SecretsAction::Keygen(arguments) => keygen(surroundings, arguments),
        SecretsAction::Encrypt(arguments) => Work::new(surroundings, arguments).encrypt(),
        SecretsAction::Decrypt(arguments) => Work::new(surroundings, arguments).decrypt(),
        SecretsAction::Edit(arguments) => edit::run(&Work::new(surroundings, arguments)),
        SecretsAction::Rekey(arguments) => rekey(surroundings, arguments),
    }?;
    Ok(EXIT_OK)
}

fn usage(path: &Path, why: impl std::fmt::Display) -> CliError {
    CliError::Usage(format!("{}: {why}", path.display()))
}

/// Makes a key, and says its public part.
fn keygen(surroundings: &Surroundings, arguments: &KeygenArguments) -> Result<(), CliError> {
    let key = secret::generate();
    let path = surroundings.directory.join(&arguments.file);
    let mut file = secret::create_private(&path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            usage(&arguments.file, "it is there already, and keys are not overwritten")
        }
        _ => usage(&arguments.file, error),
    })?;
    let text = format!("# public key: {}\n{}\n", key.public, key.secret);
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| usage(&arguments.file, error))?;
    if arguments.add {
        let root = root(surroundings);
        let path = root.join(RECIPIENTS);
        let wrong = |error: io::Error| usage(&path, error);
        let mut list = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(wrong)?,
        };
        if !list.is_empty() && !list.ends_with('\n') {
            list.push('\n');
        }
        list.push_str(&format!("{}\n", key.public));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(wrong)?;
        }
        secret::replace_file(&path, list.as_bytes(), mode_of(&path).unwrap_or(0o644))
            .map_err(wrong)?;
    }
    surroundings.print(&format!("{}\n", key.public))
}

fn root(surroundings: &Surroundings) -> PathBuf {
    let sources = Sources::default();
    Project::find(&surroundings.directory, &sources, &mut Diagnostics::default()).root
}

fn mode_of(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|metadata| metadata.permissions().mode() & 0o7777)
}

/// A file that is encrypted or decrypted, and the keys for it.
struct Work<'a> {
    surroundings: &'a Surroundings,
    arguments: &'a CipherArguments,
    keyring: Keyring,
}

/// Who may read a file that is written.
#[derive(Clone, Copy)]
enum Readers {
    /// Those who could read what it comes from.
    AsBefore,
    /// Its owner alone: it is not encrypted any more.
    Owner,
}

impl<'a> Work<'a> {
    fn new(surroundings: &'a Surroundings, arguments: &'a CipherArguments) -> Self {
        let keyring = keys::keyring(surroundings, &arguments.keys, false);
        Self { surroundings, arguments, keyring }
    }

    fn is_standard(&self) -> bool {
        self.arguments.file.as_os_str() == STANDARD
    }

    fn path(&self) -> PathBuf {
        self.surroundings.directory.join(&self.arguments.file)
    }

    fn read(&self) -> Result<Vec<u8>, CliError> {
        let read = if self.is_standard() {
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes).map(|_| bytes)
        } else {
            fs::read(self.path())
        };
        read.map_err(|error| usage(&self.arguments.file, format!("it cannot be read: {error}")))
    }

    /// Writes where `--output` says, or else to `usual`, in whose place the old file then is gone.
    fn write(
        &self,
        bytes: &[u8],
        usual: Option<PathBuf>,
        readers: Readers,
    ) -> Result<(), CliError> {
        let old = (!self.is_standard()).then(|| self.path());
        let (new, named) = match (&self.arguments.output, usual) {
            (Some(output), _) if output.as_os_str() == STANDARD => return self.print(bytes),
            (Some(output), _) => (self.surroundings.directory.join(output), true),
            (None, Some(usual)) => (usual, false),
            (None, None) => return self.print(bytes),
        };
        if new.exists() && Some(&new) != old.as_ref() {
            return Err(usage(&new, "it is there already"));
        }
        let mode = old.as_deref().and_then(mode_of).unwrap_or(0o600);
        let mode = match readers {
            Readers::AsBefore => mode,
            Readers::Owner => mode & 0o700,
        };
        secret::replace_file(&new, bytes, mode).map_err(|error| usage(&new, error))?;
        match old.filter(|old| !named && *old != new) {
            Some(old) => fs::remove_file(&old)
                .map_err(|error| usage(&old, format!("it is still there: {error}"))),
            None => Ok(()),
        }
    }

    fn print(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut output = io::stdout();
        output
            .write_all(bytes)
            .and_then(|()| output.flush())
            .map_err(|error| CliError::Machine(format!("standard output: {error}")))
    }

    fn encrypt(&self) -> Result<(), CliError> {
        let plain = self.read()?;
        if let Some(name) = &self.arguments.value {
            let seal = |text: &str| self.sealed(text.as_bytes()).map_err(|error| error.to_string());
            return self
                .change_value(&plain, |sources, source| lang::seal(sources, source, name, seal));
        }
        if secret::is_encrypted(&plain) {
            return Err(usage(
                &self.arguments.file,
                "it is encrypted already; `rekey` encrypts it anew",
            ));
        }
        let sealed = self.sealed(&plain)?;
        let usual = (!self.is_standard()).then(|| with_ending(&self.path()));
        self.write(sealed.as_bytes(), usual, Readers::AsBefore)
    }

    fn decrypt(&self) -> Result<(), CliError> {
        let sealed = self.read()?;
        if let Some(name) = &self.arguments.value {
            let open = |sealed: &[u8]| {
                let plain = self.keyring.open(sealed).map_err(|error| said(&error))?;
                String::from_utf8(plain.to_vec()).map_err(|_| String::from("it is not UTF-8 text"))
            };
            return self.change_value(&sealed, |sources, source| {
                lang::unseal(sources, source, name, open)
            });
        }
        let plain = self.opened(&sealed)?;
        let usual = (!self.is_standard()).then(|| without_ending(&self.path()));
        self.write(&plain, usual, Readers::Owner)
    }

    /// What is in an encrypted file.
    fn opened(&self, sealed: &[u8]) -> Result<std::sync::Arc<[u8]>, CliError> {
        self.keyring.open(sealed).map_err(|error| usage(&self.arguments.file, said(&error)))
    }

    /// Encrypts with a passphrase, or to the recipients of the project and those that are named.
    fn sealed(&self, plain: &[u8]) -> Result<String, CliError> {
        if self.arguments.passphrase {
            return self.sealed_with_passphrase(plain);
        }
        let recipients = recipients(self.surroundings, &self.arguments.recipient)?;
        sealed_to(&recipients, plain).map_err(|error| usage(&self.arguments.file, error))
    }

    fn sealed_with_passphrase(&self, plain: &[u8]) -> Result<String, CliError> {
        let wrong = |error: secret::SecretError| usage(&self.arguments.file, error);
        let terminal = Terminal { present: self.surroundings.error_terminal };
        let passphrase = terminal.secret("passphrase")?;
        if passphrase.reveal() != terminal.secret("the same passphrase again")?.reveal() {
            return Err(CliError::Usage(String::from("the two passphrases differ")));
        }
        let cipher = secret::encrypt_with_passphrase(plain, passphrase.reveal()).map_err(wrong)?;
        secret::armored(&cipher).map_err(wrong)
    }

    /// Changes one value of a YAML file, in place.
    fn change_value(
        &self,
        bytes: &[u8],
        change: impl FnOnce(&Sources, SourceId) -> Result<String, Diagnostic>,
    ) -> Result<(), CliError> {
        let changed = in_source(self.surroundings, &self.arguments.file, bytes, change)?;
        let usual = (!self.is_standard()).then(|| self.path());
        self.write(changed.as_bytes(), usual, Readers::AsBefore)
    }
}

/// Reads a text as YAML and changes it; what is wrong is said with its place.
fn in_source<T>(
    surroundings: &Surroundings,
    file: &Path,
    bytes: &[u8],
    change: impl FnOnce(&Sources, SourceId) -> Result<T, Diagnostic>,
) -> Result<T, CliError> {
    let text = std::str::from_utf8(bytes).map_err(|_| usage(file, "it is not UTF-8 text"))?;
    let sources = Sources::default();
    let source = sources.add_hidden(file.display().to_string(), text);
    change(&sources, source).map_err(|wrong| {
        let mut diagnostics = Diagnostics::default();
        diagnostics.push(wrong);
        match show(surroundings, &sources, &diagnostics) {
            Err(_) => usage(file, "it was left as it is"),
            Ok(()) => usage(file, "it cannot be changed"),
        }
    })
}

/// To whom the project encrypts; nobody is an error.
fn recipients(surroundings: &Surroundings, named: &[String]) -> Result<Recipients, CliError> {
    let recipients = keys::recipients(surroundings, &root(surroundings), named)?;
    if recipients.is_empty() {
        return Err(CliError::Usage(format!(
            "nobody is named to encrypt to: put public keys into {RECIPIENTS} (`converge secrets keygen \
             --add`), name one with --recipient, or use --passphrase"
        )));
    }
    Ok(recipients)
}

fn sealed_to(recipients: &Recipients, plain: &[u8]) -> Result<String, secret::SecretError> {
    secret::armored(&recipients.encrypt(plain)?)
}

/// A key's error with its way out.
fn said(error: &KeyError) -> String {
    match error {
        KeyError::Missing { help } | KeyError::Wrong { help, .. } => format!("{error}; {help}"),
        KeyError::Damaged(_) => error.to_string(),
    }
}

fn with_ending(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ENDING);
    PathBuf::from(name)
}

fn without_ending(path: &Path) -> PathBuf {
    match path.extension() {
        Some(extension) if extension == ENDING => path.with_extension(""),
        _ => path.to_owned(),
    }
}

/// Encrypts files, and values in files, to the present recipients.
fn rekey(surroundings: &Surroundings, arguments: &RekeyArguments) -> Result<(), CliError> {
    let keyring = keys::keyring(surroundings, &arguments.keys, false);
    let recipients = recipients(surroundings, &arguments.recipient)?;
    let again = |sealed: &[u8]| -> Result<String, String> {
        if sealed.starts_with(VAULT_MARK.as_bytes()) {
            return Err(String::from(
                "Ansible Vault is only read: decrypt it, and encrypt it with age",
            ));
        }
        let plain = keyring.open(sealed).map_err(|error| said(&error))?;
        sealed_to(&recipients, &plain).map_err(|error| error.to_string())
    };
    for file in &arguments.files {
        let path = surroundings.directory.join(file);
        let bytes =
            fs::read(&path).map_err(|error| usage(file, format!("it cannot be read: {error}")))?;
        let (renewed, count) = if secret::is_encrypted(&bytes) {
            (again(&bytes).map_err(|why| usage(file, why))?, 1)
        } else {
            in_source(surroundings, file, &bytes, |sources, source| {
                lang::reseal(sources, source, again)
            })?
        };
        if count == 0 {
            return Err(usage(file, "there is nothing encrypted in it"));
        }
        let mode = mode_of(&path).unwrap_or(0o600);
        secret::replace_file(&path, renewed.as_bytes(), mode)
            .map_err(|error| usage(file, error))?;
    }
    Ok(())
}
