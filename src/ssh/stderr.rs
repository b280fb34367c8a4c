//! The standard error of a command on a host: kept, bounded, and there to be watched.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::error::printable;

/// How much is kept: the end, because that is where the reason stands.
const KEPT: usize = 64 * 1024;

/// Holds what a command wrote to its standard error.
///
/// Reading it never blocks the command, and never waits: copies share one buffer, of which only the last 64 KiB are
/// kept.
#[derive(Clone, Debug)]
pub struct Stderr {
    kept: Arc<Mutex<Kept>>,
    written: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: VecDeque<u8>,
    /// Bytes ever written.
    total: u64,
}

impl Default for Stderr {
    fn default() -> Self {
        Self { kept: Arc::default(), written: Arc::new(watch::Sender::new(0)) }
    }
}

impl Stderr {
    /// Adds what has just come.
    pub(super) fn push(&self, bytes: &[u8]) {
        let mut kept = self.lock();
        kept.bytes.extend(bytes);
        let excess = kept.bytes.len().saturating_sub(KEPT);
        kept.bytes.drain(..excess);
        kept.total += bytes.len() as u64;
        let total = kept.total;
        drop(kept);
        self.written.send_replace(total);
    }

    /// Takes a text of our own out again: what remains is the command's.
    pub(super) fn erase(&self, text: &str) {
        let mut kept = self.lock();
        let bytes = kept.bytes.make_contiguous();
        let found = bytes.windows(text.len()).position(|window| window == text.as_bytes());
        if let Some(at) = found {
            kept.bytes.drain(at..at + text.len());
            kept.total -= text.len() as u64;
        }
    }

    /// Tells when more has come: the value is the number of bytes ever written.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// Everything that came after the first `seen` bytes, as far as it is kept, and the new value for `seen`.
    #[must_use]
    pub fn since(&self, seen: u64) -> (Vec<u8>, u64) {
        let kept = self.lock();
        let first = kept.total - kept.bytes.len() as u64;
        let skip = usize::try_from(seen.saturating_sub(first)).unwrap_or(usize::MAX);
        (kept.bytes.iter().skip(skip).copied().collect(), kept.total)
    }

    /// The end of it, fit to be shown.
    #[must_use]
    pub fn text(&self) -> String {
        printable(&self.since(0).0)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_positions_stay_true() {
        let stderr = Stderr::default();
        stderr.push(b"first ");
        let (_, seen) = stderr.since(0);
        stderr.push(b"second");
        assert_eq!(stderr.since(seen), (b"second".to_vec(), 12));
        stderr.erase("second");
        assert_eq!(stderr.since(0), (b"first ".to_vec(), 6));
        stderr.push(b"second");
        stderr.push(&vec![b'x'; KEPT]);
        assert_eq!(stderr.since(seen).0.len(), KEPT);
        assert_eq!(stderr.since(12 + KEPT as u64).0, b"");
    }
}
