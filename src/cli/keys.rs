use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::arguments::KeyArguments;
use super::prompt::Terminal;
use super::{CliError, Surroundings};
use crate::secret::{Ask, Identities, Keyring, Recipients, SecretError, VaultPassword};

/// Where the public keys of a project stand, from its root.
pub(super) const RECIPIENTS: &str = ".converge/recipients";

/// The keys that are named on the command line and in the environment; they are read when the first
/// secret needs them.
pub(super) fn keyring(
    surroundings: &Surroundings,
    arguments: &KeyArguments,
    untrusted: bool,
) -> Keyring {
    let (near, named) = (surroundings.clone(), arguments.identity.clone());
    let open = move |ask: &Ask| identities(&near, &named, ask).map_err(|error| error.to_string());
    let (near, arguments) = (surroundings.clone(), arguments.clone());
    let passwords =
        move || vault_passwords(&near, &arguments, untrusted).map_err(|error| error.to_string());
    // A check of a stranger's project has no keys.
    Keyring::new(Box::new(open), Box::new(passwords), ask(surroundings)).optional(untrusted)
}

/// Asks at the terminal.
pub(super) fn ask(surroundings: &Surroundings) -> Ask {
    let terminal = Terminal { present: surroundings.error_terminal };
    Arc::new(move |question| {
        terminal.secret(question).ok().map(|password| password.reveal().to_owned())
    })
}

/// The keys of age that are named.
pub(super) fn identities(
    surroundings: &Surroundings,
    named: &[PathBuf],
    ask: &Ask,
) -> Result<Identities, CliError> {
    let mut identities = Identities::default();
    let mut add = |bytes: &[u8], place: &str| {
        let added = identities.add(bytes, place, ask);
        added.map_err(|error| CliError::Usage(error.to_string()))
    };
    let variable = "CONVERGE_AGE_IDENTITY";
    let given = surroundings.variable(variable).map(str::to_owned);
    let from_environment = given.filter(|_| named.is_empty());
    let file = match &from_environment {
        // The key itself, as CI systems hand secrets to their jobs.
        Some(key) if key.starts_with("AGE-SECRET-KEY-") => {
            add(key.as_bytes(), variable)?;
            None
        }
        Some(path) => Some(PathBuf::from(path)),
        None => None,
    };
    for path in named.iter().chain(&file) {
        let shown = path.display().to_string();
        let bytes = std::fs::read(surroundings.directory.join(path))
            .map_err(|error| CliError::Usage(format!("{shown} cannot be read: {error}")))?;
        add(&bytes, &shown)?;
    }
    Ok(identities)
}

/// The passwords of Ansible Vault that are named, in their order.
fn vault_passwords(
    surroundings: &Surroundings,
    arguments: &KeyArguments,
    untrusted: bool,
) -> Result<Vec<VaultPassword>, CliError> {
    const DEFAULT: &str = "default";
    let terminal = Terminal { present: surroundings.error_terminal };
    let asked = |id: &str| {
        let question = match id {
            DEFAULT => String::from("vault password"),
            id => format!("vault password ({id})"),
        };
        let password = terminal.secret(&question)?;
        let password = password.reveal().as_bytes().to_vec();
        Ok::<_, CliError>(VaultPassword { id: id.to_owned(), password })
    };
    let from_file = |id: &str, file: &Path| {
        let password = password_from(surroundings, file, id, untrusted)?;
        Ok::<_, CliError>(VaultPassword { id: id.to_owned(), password })
    };
    let mut passwords = Vec::new();
    for given in &arguments.vault_id {
        let (id, place) = match given.split_once('@') {
            Some((id, place)) if !id.is_empty() => (id, place),
            Some((_, place)) => (DEFAULT, place),
            None => (DEFAULT, given.as_str()),
        };
        passwords.push(match place {
            "prompt" | "prompt_ask_vault_pass" => asked(id)?,
            file => from_file(id, Path::new(file))?,
        });
    }
    for file in &arguments.vault_password_file {
        passwords.push(from_file(DEFAULT, file)?);
    }
    if arguments.ask_vault_pass {
        passwords.push(asked(DEFAULT)?);
    }
    if passwords.is_empty()
        && let Some(file) = surroundings.variable("ANSIBLE_VAULT_PASSWORD_FILE")
    {
        passwords.push(from_file(DEFAULT, Path::new(file))?);
    }
    Ok(passwords)
}

/// The password that stands in a file, or that a program prints, without line ends.
fn password_from(
    surroundings: &Surroundings,
    file: &Path,
    id: &str,
    untrusted: bool,
) -> Result<Vec<u8>, CliError> {
    use std::os::unix::fs::PermissionsExt;
    let shown = file.display();
    let path = match (file.strip_prefix("~"), &surroundings.home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => surroundings.directory.join(file),
    };
    let unreadable =
        |error: &dyn std::fmt::Display| CliError::Usage(format!("{shown} cannot be read: {error}"));
    let metadata = path.metadata().map_err(|error| unreadable(&error))?;
    let executable = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
    let bytes = if executable && untrusted {
        return Err(CliError::Usage(format!(
            "{shown} is a program, which --untrusted does not run"
        )));
    } else if executable {
        let mut program = Command::new(&path);
        // As Ansible asks those that know several passwords.
        if path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("-client")) {
            program.args(["--vault-id", id]);
        }
        program.current_dir(&surroundings.directory).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = program.output();
        let output =
            output.map_err(|error| CliError::Usage(format!("{shown} cannot be run: {error}")))?;
        if !output.status.success() {
            return Err(CliError::Usage(format!("{shown} gave no password ({})", output.status)));
        }
        output.stdout
    } else {
        std::fs::read(&path).map_err(|error| unreadable(&error))?
    };
    let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let start = bytes.iter().take_while(|byte| is_end(byte)).count();
    let end = bytes.iter().rposition(|byte| !is_end(byte)).map_or(start, |at| at + 1);
    match &bytes[start..end] {
        [] => Err(CliError::Usage(format!("there is no password in {shown}"))),
        password => Ok(password.to_vec()),
    }
}

/// To whom something is encrypted: those of the project with that root, and those that are named.
pub(super) fn recipients(
    surroundings: &Surroundings,
    root: &Path,
    named: &[String],
) -> Result<Recipients, CliError> {
    let mut recipients = Recipients::default();
    let wrong = |error: SecretError| CliError::Usage(error.to_string());
    let path = root.join(RECIPIENTS);
    let shown = path.strip_prefix(&surroundings.directory).unwrap_or(&path).display().to_string();
    match std::fs::read_to_string(&path) {
        Ok(list) => recipients.add(&list, &shown).map_err(wrong)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(CliError::Usage(format!("{shown} cannot be read: {error}"))),
    }
    for key in named {
        recipients.add(key, "--recipient").map_err(wrong)?;
    }
    Ok(recipients)
}
