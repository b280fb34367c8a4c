//! Pieces of contents on their way from the connection to whoever takes them in: what has arrived
//! while a journal was written need not be waited for afterwards.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};

/// Most bytes that wait. One piece may always wait, however large it is.
const ROOM: usize = 16 << 20;

/// A piece of a content, as the controller sends it.
#[derive(Debug)]
pub(super) enum Piece {
    /// Bytes, and whether the content ends with them.
    Bytes(Vec<u8>, bool),
    /// The content cannot be had.
    Missing(String),
}

impl Piece {
    /// What it counts for: a piece costs something even without bytes.
    fn weight(&self) -> usize {
        let bytes = match self {
            Self::Bytes(bytes, _) => bytes.len(),
            Self::Missing(reason) => reason.len(),
        };
        bytes + std::mem::size_of::<Self>()
    }
}

#[derive(Default)]
struct Waiting {
    bytes: usize,
    /// Nobody takes anything in any more.
    over: bool,
}

#[derive(Default)]
struct Room {
    waiting: Mutex<Waiting>,
    less: Condvar,
}

impl Room {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where pieces go in.
pub(super) struct Sender {
    pieces: mpsc::Sender<Piece>,
    room: Arc<Room>,
}

/// Where they come out, in their order.
pub(super) struct Receiver {
    pieces: mpsc::Receiver<Piece>,
    room: Arc<Room>,
}

/// A way for pieces of which not too many bytes wait.
pub(super) fn channel() -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel();
    let room = Arc::<Room>::default();
    (Sender { pieces: sender, room: Arc::clone(&room) }, Receiver { pieces: receiver, room })
}

impl Sender {
    /// Puts a piece in, as soon as there is room; `false` if nobody takes anything in any more.
    pub(super) fn send(&self, piece: Piece) -> bool {
        let weight = piece.weight();
        let full = |waiting: &mut Waiting| {
            waiting.bytes > 0 && waiting.bytes + weight > ROOM && !waiting.over
        };
        let waiting = self.room.less.wait_while(self.room.waiting(), full);
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        waiting.bytes += weight;
        drop(waiting);
        self.pieces.send(piece).is_ok()
    }
}

impl Receiver {
    /// The next piece; none if no more can come.
    pub(super) fn recv(&self) -> Option<Piece> {
        let piece = self.pieces.recv().ok()?;
        self.room.waiting().bytes -= piece.weight();
        self.room.less.notify_one();
        Some(piece)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.room.waiting().over = true;
        self.room.less.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(size: usize) -> Piece {
        Piece::Bytes(vec![0; size], true)
    }

    #[test]
    fn only_so_many_bytes_wait_and_all_come_through_in_order() {
        let (sender, receiver) = channel();
        let total = 100;
        let sending = std::thread::spawn(move || {
            (0..total).all(|number| sender.send(piece((1 << 20) + number)))
        });
        let mut most = 0;
        for number in 0..total {
            most = most.max(receiver.room.waiting().bytes);
            match receiver.recv() {
                Some(Piece::Bytes(bytes, true)) => assert_eq!(bytes.len(), (1 << 20) + number),
                other => panic!("{other:?}"),
            }
        }
        assert!(sending.join().unwrap());
        assert!(most <= ROOM, "{most}");
        assert!(receiver.recv().is_none());
    }

    #[test]
    fn one_that_is_larger_than_all_room_passes_and_nobody_waits_for_who_is_gone() {
        let (sender, receiver) = channel();
        assert!(sender.send(piece(ROOM + 1)));
        let sending = std::thread::spawn(move || sender.send(piece(1)));
        assert!(receiver.recv().is_some());
        assert!(receiver.recv().is_some());
        assert!(sending.join().unwrap());
        let (sender, receiver) = channel();
        assert!(sender.send(piece(ROOM)));
        let sending = std::thread::spawn(move || sender.send(piece(ROOM)));
        drop(receiver);
        assert!(!sending.join().unwrap());
    }
}
