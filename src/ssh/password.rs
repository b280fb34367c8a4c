//! A password or passphrase on its way to whoever asks for it.

use std::fmt;
use std::sync::Arc;

/// Holds a password so that it cannot end up in a log, an error or a panic message by accident.
///
/// `Debug` prints no part of it and there is no `Display`; [`Password::reveal`] is the one way to the text. Copies
/// share one buffer.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Arc<str>);

impl Password {
    /// Wraps a password that was typed, or read from an encrypted file.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the protocol that needs it and for nothing else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(hidden)")
    }
}
