use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::journal::Objects;
use super::output::Output;
use super::pieces::{Piece, Receiver};
use crate::kind::Contents;
use crate::wire::FromAgent;
use crate::world::{ContentId, Digest};

/// Most bytes of fetched contents that are kept in memory.
const MEMORY_LIMIT: u64 = 64 << 20;
/// Contents up to that size are fetched ahead and kept; larger ones go straight to their place.
pub(super) const SMALL: u64 = 1 << 20;

/// Contents by digest: what plans have made, and what the controller has, fetched when needed.
pub(super) struct Store {
    output: Arc<Output>,
    /// What plans have made; lives as long as the run.
    made: Mutex<HashMap<ContentId, Arc<[u8]>>>,
    /// What earlier runs have kept, where this one takes something back.
    kept: OnceLock<Arc<Objects>>,
    channel: Mutex<Channel>,
}

/// The one conversation about contents; answers come in the order of asking.
struct Channel {
    pieces: Receiver,
    asked: VecDeque<ContentId>,
    pending: HashSet<ContentId>,
    kept: HashMap<ContentId, Arc<[u8]>>,
    kept_order: VecDeque<ContentId>,
    kept_bytes: u64,
}

impl Store {
    pub(super) fn new(output: Arc<Output>, pieces: Receiver) -> Self {
        let channel = Channel {
            pieces,
            asked: VecDeque::new(),
            pending: HashSet::new(),
            kept: HashMap::new(),
            kept_order: VecDeque::new(),
            kept_bytes: 0,
        };
        Self { output, made: Mutex::default(), kept: OnceLock::new(), channel: Mutex::new(channel) }
    }

    /// Takes contents also from what earlier runs have kept.
    pub(super) fn also_from(&self, objects: Arc<Objects>) {
        let _ = self.kept.set(objects);
    }

    fn kept(&self, id: &ContentId) -> Option<File> {
        self.kept.get()?.open(id).ok()
    }

    fn made(&self, id: &ContentId) -> Option<Arc<[u8]>> {
        let made = self.made.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        made.get(id).cloned()
    }

    fn channel(&self) -> MutexGuard<'_, Channel> {
        self.channel.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Asks for small contents ahead, all in one message.
    pub(super) fn prefetch(&self, ids: impl IntoIterator<Item = ContentId>) -> io::Result<()> {
        let mut channel = self.channel();
        let mut wanted = Vec::new();
        for id in ids {
            let known = id.size > SMALL
                || channel.kept.contains_key(&id)
                || channel.pending.contains(&id)
                || self.made(&id).is_some()
                || self.kept(&id).is_some();
            if !known {
                channel.pending.insert(id);
                wanted.push(id);
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        channel.asked.extend(&wanted);
        self.output.send(&FromAgent::Need(wanted))
    }

    /// Takes in what was asked for and not used, so that orders behind it come through.
    pub(super) fn settle(&self) -> io::Result<()> {
        let mut channel = self.channel();
        while !channel.asked.is_empty() {
            match channel.take_one() {
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes a content of any size.
    pub(super) fn write_to(&self, id: &ContentId, target: &mut dyn Write) -> io::Result<()> {
        if id.size <= SMALL {
            return target.write_all(&self.bytes(id)?);
        }
        if let Some(bytes) = self.made(id) {
            return target.write_all(&bytes);
        }
        if let Some(file) = self.kept(id) {
            return copy_kept(file, id, target);
        }
        let mut channel = self.channel();
        while !channel.asked.is_empty() {
            channel.take_one()?;
        }
        self.output.send(&FromAgent::Need(vec![*id]))?;
        let mut hasher = blake3::Hasher::new();
        // After a failure to write, the rest of the content still has to be taken in.
        let mut written = Ok(());
        channel.receive(|bytes| {
            hasher.update(bytes);
            if written.is_ok() {
                written = target.write_all(bytes);
            }
        })?;
        written?;
        if Digest::finish(&hasher) == id.digest { Ok(()) } else { Err(wrong_content()) }
    }
}

/// Copies a content that an earlier run has kept.
fn copy_kept(mut file: File, id: &ContentId, target: &mut dyn Write) -> io::Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        target.write_all(&buffer[..count])?;
    }
    if Digest::finish(&hasher) == id.digest {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "what was kept of it is damaged"))
}

fn wrong_content() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the controller sent another content than declared")
}

impl Channel {
    /// One whole content, piece by piece.
    fn receive(&mut self, mut piece: impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            match self.pieces.recv() {
                Some(Piece::Bytes(bytes, last)) => {
                    piece(&bytes);
                    if last {
                        return Ok(());
                    }
                }
                Some(Piece::Missing(reason)) => return Err(io::Error::other(reason)),
                None => {
                    let message = "the controller is gone";
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, message));
                }
            }
        }
    }

    /// Takes in the next content that was asked for.
    fn take_one(&mut self) -> io::Result<()> {
        let Some(id) = self.asked.pop_front() else { return Ok(()) };
        self.pending.remove(&id);
        let mut all = Vec::with_capacity(usize::try_from(id.size.min(SMALL)).unwrap_or(0));
        self.receive(|bytes| all.extend_from_slice(bytes))?;
        if ContentId::of(&all) != id {
            return Err(wrong_content());
        }
        self.keep(id, all.into());
        Ok(())
    }

    fn keep(&mut self, id: ContentId, bytes: Arc<[u8]>) {
        self.kept_bytes += id.size;
        if self.kept.insert(id, bytes).is_none() {
            self.kept_order.push_back(id);
        }
        while self.kept_bytes > MEMORY_LIMIT
            && let Some(oldest) = self.kept_order.pop_front()
        {
            self.kept.remove(&oldest);
            self.kept_bytes -= oldest.size;
        }
    }
}

impl Contents for Store {
    fn bytes(&self, id: &ContentId) -> io::Result<Arc<[u8]>> {
        if id.size == 0 {
            return Ok(Arc::from([]));
        }
        if let Some(bytes) = self.made(id) {
            return Ok(bytes);
        }
        if let Some(file) = self.kept(id) {
            let mut bytes = Vec::new();
            copy_kept(file, id, &mut bytes)?;
            return Ok(bytes.into());
        }
        let mut channel = self.channel();
        if !channel.kept.contains_key(id) && !channel.pending.contains(id) {
            channel.pending.insert(*id);
            channel.asked.push_back(*id);
            self.output.send(&FromAgent::Need(vec![*id]))?;
        }
        while !channel.kept.contains_key(id) && channel.pending.contains(id) {
            channel.take_one()?;
        }
        channel.kept.get(id).cloned().ok_or_else(|| io::Error::other("the content was let go"))
    }

    fn keep(&self, bytes: Vec<u8>) -> ContentId {
        let id = ContentId::of(&bytes);
        let mut made = self.made.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        made.entry(id).or_insert_with(|| bytes.into());
        id
    }
}
