//! Files of variables, which may be encrypted as a whole, and what is said where no key opens a
//! secret.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, SourceId, Sources, Span};
use crate::secret::{KeyError, Keyring, is_encrypted};

/// The code of what is encrypted and stays so.
pub(super) const WITHOUT_KEY: &str = "secret-without-key";

/// Why a file's text cannot be had.
pub(crate) enum Unread {
    /// It is wrong, for this reason.
    Wrong(Box<Diagnostic>),
    /// It is encrypted, and no key was given.
    Locked(Box<Diagnostic>),
}

impl Unread {
    /// What is said of it.
    pub(crate) fn diagnostic(self) -> Diagnostic {
        match self {
            Self::Wrong(diagnostic) | Self::Locked(diagnostic) => *diagnostic,
        }
    }
}

/// Adds the text of a file of variables to the sources, decrypted if need be: then it is hidden, and
/// all that is read from it is secret.
pub(crate) fn add_file(
    sources: &Sources,
    name: &str,
    bytes: Vec<u8>,
    keyring: &Keyring,
) -> Result<SourceId, Unread> {
    let wrong =
        |message: String| Unread::Wrong(Box::new(Diagnostic::error("unreadable-file", message)));
    if !is_encrypted(&bytes) {
        return match String::from_utf8(bytes) {
            Ok(text) => Ok(sources.add(name, text)),
            Err(_) => Err(wrong(format!("{name} cannot be read: it is not UTF-8"))),
        };
    }
    match keyring.open(&bytes) {
        Ok(plain) => match std::str::from_utf8(&plain) {
            Ok(text) => Ok(sources.add_hidden(name, text)),
            Err(_) => {
                Err(wrong(format!("{name} cannot be read: what is encrypted in it is not UTF-8")))
            }
        },
        Err(error) => {
            let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let line = String::from_utf8_lossy(first).trim_end().to_owned();
            let end = line.len();
            let source = sources.add(name, line);
            let diagnostic = Box::new(stays_closed(&error, Span::new(source, 0, end)));
            Err(match error {
                KeyError::Missing { .. } => Unread::Locked(diagnostic),
                _ => Unread::Wrong(diagnostic),
            })
        }
    }
}

/// What is said of a secret that no key opens.
pub(super) fn stays_closed(error: &KeyError, span: Span) -> Diagnostic {
    match error {
        KeyError::Missing { help } => {
            let message = "this is encrypted, and there is no key for it";
            Diagnostic::error(WITHOUT_KEY, message).at(span, "").help(help.as_str())
        }
        KeyError::Wrong { reason, help } => {
            let message = format!("this is encrypted, and stays so: {reason}");
            Diagnostic::error(WITHOUT_KEY, message).at(span, "").help(help.as_str())
        }
        KeyError::Damaged(reason) => {
            let message = format!("this cannot be decrypted: {reason}");
            Diagnostic::error("bad-secret", message).at(span, "")
        }
    }
}

/// The text of a secret.
pub(super) fn opened(secret: &str, keyring: &Keyring) -> Result<Arc<str>, KeyError> {
    let plain = keyring.open(secret.as_bytes())?;
    let text = std::str::from_utf8(&plain);
    text.map(Arc::from)
        .map_err(|_| KeyError::Damaged(String::from("what is in it is not UTF-8 text")))
}
