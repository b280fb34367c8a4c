use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::limits::{Allowance, HostLimits};
use crate::graph::Graph;
use crate::lang::ContentStore;
use crate::ssh::{AgentStream, Reader, Writer};
use crate::wire::{self, FRAME_LIMIT, FromAgent, HEARTBEAT, Hello, ToAgent, WireError};
use crate::world::ContentId;

/// Bytes of a content that travel in one frame.
const CHUNK: usize = 256 << 10;
/// How long a host may take from the start of the agent to its first message.
const HELLO_PATIENCE: Duration = Duration::from_secs(30);

/// Why a conversation with an agent ends before its time.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// The connection is gone, or what comes over it is no message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It does not begin as an agent does.
    #[error("the agent does not {0}")]
    Rude(&'static str),
    /// Nothing comes over a connection that is there.
    #[error("the agent has said nothing for {}, not even that it is alive", shown(*.0))]
    Silent(Duration),
    /// It says that it is alive, and nothing else.
    #[error("the agent is alive, and has come no further for {}", shown(*.0))]
    Standstill(Duration),
    /// More than a host may say.
    #[error("the host says more than {0} bytes in answer to one order")]
    Flood(u64),
    /// The same contents, again and again.
    #[error("the host asks for contents without end")]
    Greedy,
}

/// A duration in its largest whole unit.
fn shown(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        seconds if seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

/// The conversation with one agent. Reading never waits for writing, so that neither end can
/// block the other.
pub(super) struct Link {
    reader: Reader,
    /// What has come of the next messages.
    received: Vec<u8>,
    orders: mpsc::UnboundedSender<Order>,
    stream: Ending,
    limits: HostLimits,
    allowance: Allowance,
    /// Bytes that the host has said since the last order.
    said: u64,
    /// Bytes that the host has taken.
    taken: Arc<AtomicU64>,
}

/// What is left of the stream while its ends are in use.
struct Ending {
    control: crate::ssh::Control,
    stderr: crate::ssh::Stderr,
}

enum Order {
    Say(Vec<u8>),
    /// Contents, each with whether it is declared for the host.
    Send(Vec<(ContentId, bool)>),
}

/// A handle that can speak to an agent from outside.
#[derive(Clone)]
pub(super) struct Stopper {
    orders: mpsc::UnboundedSender<Order>,
}

impl Stopper {
    /// Asks the agent to finish what is in hand and to begin nothing more.
    pub(super) fn stop(&self) {
        self.say(&ToAgent::Stop);
    }

    /// Tells it whether a fresh login has worked, or why not.
    pub(super) fn confirm(&self, failure: Option<String>) {
        self.say(&ToAgent::Confirmed { failure });
    }

    fn say(&self, message: &ToAgent) {
        if let Ok(frame) = wire::encode(message) {
            let _ = self.orders.send(Order::Say(frame));
        }
    }
}

impl Link {
    /// Takes over a started agent and reads its greeting.
    pub(super) async fn greet(
        stream: AgentStream,
        contents: Arc<ContentStore>,
        limits: HostLimits,
    ) -> Result<(Self, Hello), LinkError> {
        let (orders, incoming) = mpsc::unbounded_channel();
        let taken = Arc::default();
        tokio::spawn(write(stream.writer, incoming, contents, Arc::clone(&taken)));
        let ending = Ending { control: stream.control, stderr: stream.stderr };
        let mut link = Self {
            reader: stream.reader,
            received: Vec::new(),
            orders,
            stream: ending,
            limits,
            allowance: Allowance::default(),
            said: 0,
            taken,
        };
        let first = tokio::time::timeout(HELLO_PATIENCE, link.receive()).await;
        match first.map_err(|_| LinkError::Rude("answer"))?? {
            FromAgent::Hello(hello) => Ok((link, hello)),
            _ => Err(LinkError::Rude("greet")),
        }
    }

    /// Says what is declared for the host: it gets no other contents, and its longest step is waited
    /// for.
    pub(super) fn allow(&mut self, graph: Arc<Graph>) {
        self.allowance = Allowance::of(graph);
    }

    pub(super) fn stopper(&self) -> Stopper {
        Stopper { orders: self.orders.clone() }
    }

    /// Says something; a broken connection shows when the answer is awaited.
    pub(super) fn say(&mut self, message: &ToAgent) -> Result<(), LinkError> {
        self.said = 0;
        self.allowance.renew();
        let _ = self.orders.send(Order::Say(wire::encode(message)?));
        Ok(())
    }

    /// The next message that is not about contents; those are answered on the way.
    pub(super) async fn next(&mut self) -> Result<FromAgent, LinkError> {
        let patience = self.limits.standstill.saturating_add(self.allowance.longest_step());
        let mut taken = self.taken.load(Ordering::Relaxed);
        let mut begun = Instant::now();
        loop {
            let left = patience.saturating_sub(begun.elapsed());
            let Ok(message) = tokio::time::timeout(left, self.receive()).await else {
                // A large content that is on its way is a step forward, too.
                let now = self.taken.load(Ordering::Relaxed);
                if now == taken {
                    return Err(LinkError::Standstill(patience));
                }
                (taken, begun) = (now, Instant::now());
                continue;
            };
            match message? {
                FromAgent::Alive => {}
                FromAgent::Need(ids) => {
                    let allowed = |id| Some((id, self.allowance.ask(&id)?));
                    let ids: Option<Vec<_>> = ids.into_iter().map(allowed).collect();
                    let _ = self.orders.send(Order::Send(ids.ok_or(LinkError::Greedy)?));
                }
                other => return Ok(other),
            }
        }
    }

    /// The next message; a call that is cancelled loses nothing.
    async fn receive(&mut self) -> Result<FromAgent, LinkError> {
        loop {
            if let Some(prefix) = self.received.first_chunk::<4>() {
                let length = u32::from_le_bytes(*prefix) as usize;
                if length > FRAME_LIMIT {
                    return Err(WireError::TooLong(length).into());
                }
                if let Some(frame) = self.received.get(4..4 + length) {
                    let message = wire::decode(frame);
                    self.received.drain(..4 + length);
                    return Ok(message?);
                }
            }
            self.received.reserve(16 << 10);
            let silence = self.limits.silence;
            let read = tokio::time::timeout(silence, self.reader.read_buf(&mut self.received));
            let count = read.await.map_err(|_| LinkError::Silent(silence))?;
            match count.map_err(WireError::Broken)? {
                0 => return Err(WireError::Closed.into()),
                count => self.said += count as u64,
            }
            if self.said > self.limits.said {
                return Err(LinkError::Flood(self.limits.said));
            }
        }
    }

    /// What the agent's program said on standard error, for error messages.
    pub(super) fn last_words(&self) -> String {
        self.stream.stderr.text()
    }

    /// Ends the conversation.
    pub(super) async fn close(self) {
        drop(self.orders);
        self.stream.control.close().await;
    }
}

/// Writes frames and contents in the order in which they were asked for.
async fn write(
    writer: Writer,
    mut orders: mpsc::UnboundedReceiver<Order>,
    contents: Arc<ContentStore>,
    taken: Arc<AtomicU64>,
) {
    let mut writer = BufWriter::with_capacity(CHUNK, writer);
    loop {
        let order = match tokio::time::timeout(HEARTBEAT, orders.recv()).await {
            Ok(Some(order)) => order,
            Ok(None) => break,
            Err(_) => match wire::encode(&ToAgent::Alive) {
                Ok(frame) => Order::Say(frame),
                Err(_) => break,
            },
        };
        let written = match order {
            Order::Say(frame) => writer.write_all(&frame).await,
            Order::Send(ids) => send_contents(&mut writer, &ids, &contents, &taken).await,
        };
        // More orders that are waiting go out together.
        if written.is_err() || (orders.is_empty() && writer.flush().await.is_err()) {
            return;
        }
    }
    let _ = writer.shutdown().await;
}

async fn send_contents(
    writer: &mut BufWriter<Writer>,
    ids: &[(ContentId, bool)],
    contents: &Arc<ContentStore>,
    taken: &AtomicU64,
) -> std::io::Result<()> {
    for (id, declared) in ids {
        let mut reader = match contents.open(id).filter(|_| *declared) {
            Some(Ok(reader)) => reader,
            Some(Err(error)) => {
                say(writer, &ToAgent::NoContent { reason: error.to_string() }).await?;
                continue;
            }
            None => {
                let reason =
                    String::from("the host asks for a content that is not declared for it");
                say(writer, &ToAgent::NoContent { reason }).await?;
                continue;
            }
        };
        let mut left = id.size;
        loop {
            let mut bytes = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
            let mut filled = 0;
            let mut failure = None;
            while filled < bytes.len() {
                match std::io::Read::read(&mut reader, &mut bytes[filled..]) {
                    Ok(0) => {
                        failure = Some(String::from("the file became shorter while it was read"));
                        break;
                    }
                    Ok(count) => filled += count,
                    Err(error) => {
                        failure = Some(error.to_string());
                        break;
                    }
                }
            }
            if let Some(reason) = failure {
                say(writer, &ToAgent::NoContent { reason }).await?;
                break;
            }
            left -= filled as u64;
            let last = left == 0;
            say(writer, &ToAgent::Content { bytes, last }).await?;
            taken.fetch_add(filled as u64, Ordering::Relaxed);
            if last {
                break;
            }
        }
    }
    Ok(())
}

async fn say(writer: &mut BufWriter<Writer>, message: &ToAgent) -> std::io::Result<()> {
    let frame = wire::encode(message).map_err(|error| std::io::Error::other(error.to_string()))?;
    writer.write_all(&frame).await
}
