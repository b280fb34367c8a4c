use std::io::{self, Write};
use std::sync::Mutex;

use crate::wire::{FromAgent, WireError, encode};

/// The agent's way to the controller; messages of several threads never mix.
pub(super) struct Output {
    writer: Mutex<Box<dyn Write + Send>>,
}

impl Output {
    pub(super) fn new(writer: Box<dyn Write + Send>) -> Self {
        Self { writer: Mutex::new(writer) }
    }

    /// Sends bytes as they are.
    pub(super) fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        writer.write_all(bytes)?;
        writer.flush()
    }

    /// Sends a message.
    pub(super) fn send(&self, message: &FromAgent) -> io::Result<()> {
        let frame = encode(message).map_err(|error| match error {
            WireError::Broken(error) => error,
            other => io::Error::other(other.to_string()),
        })?;
        self.raw(&frame)
    }
}
