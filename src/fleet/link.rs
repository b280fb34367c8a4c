use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};
use tokio::sync::mpsc;

use crate::lang::ContentStore;
use crate::ssh::{AgentStream, Reader, Writer};
use crate::wire::{self, FRAME_LIMIT, FromAgent, HEARTBEAT, Hello, ToAgent, WireError};
use crate::world::ContentId;

/// Bytes of a content that travel in one frame.
const CHUNK: usize = 256 << 10;
/// How long a host may take from the start of the agent to its first message.
const HELLO_PATIENCE: Duration = Duration::from_secs(30);

/// The conversation with one agent. Reading never waits for writing, so that neither end can
/// block the other.
pub(super) struct Link {
    reader: Reader,
    /// What has come of the next messages.
    received: Vec<u8>,
    orders: mpsc::UnboundedSender<Order>,
    stream: Ending,
}

/// What is left of the stream while its ends are in use.
struct Ending {
    control: crate::ssh::Control,
    stderr: crate::ssh::Stderr,
}

enum Order {
    Say(Vec<u8>),
    Send(Vec<ContentId>),
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
    ) -> Result<(Self, Hello), WireError> {
        let (orders, incoming) = mpsc::unbounded_channel();
        tokio::spawn(write(stream.writer, incoming, contents));
        let ending = Ending { control: stream.control, stderr: stream.stderr };
        let mut link = Self { reader: stream.reader, received: Vec::new(), orders, stream: ending };
        let first = tokio::time::timeout(HELLO_PATIENCE, link.receive()).await;
        let first = first.map_err(|_| {
            let message = "the agent does not answer";
            WireError::Broken(std::io::Error::new(std::io::ErrorKind::TimedOut, message))
        })?;
        match first? {
            FromAgent::Hello(hello) => Ok((link, hello)),
            _ => Err(WireError::Broken(std::io::Error::other("the agent does not greet"))),
        }
    }

    pub(super) fn stopper(&self) -> Stopper {
        Stopper { orders: self.orders.clone() }
    }

    /// Says something; a broken connection shows when the answer is awaited.
    pub(super) fn say(&self, message: &ToAgent) -> Result<(), WireError> {
        let _ = self.orders.send(Order::Say(wire::encode(message)?));
        Ok(())
    }

    /// The next message that is not about contents; those are answered on the way.
    pub(super) async fn next(&mut self) -> Result<FromAgent, WireError> {
        loop {
            match self.receive().await? {
                FromAgent::Need(ids) => {
                    let _ = self.orders.send(Order::Send(ids));
                }
                other => return Ok(other),
            }
        }
    }

    /// The next message; a call that is cancelled loses nothing.
    async fn receive(&mut self) -> Result<FromAgent, WireError> {
        loop {
            if let Some(prefix) = self.received.first_chunk::<4>() {
                let length = u32::from_le_bytes(*prefix) as usize;
                if length > FRAME_LIMIT {
                    return Err(WireError::TooLong(length));
                }
                if let Some(frame) = self.received.get(4..4 + length) {
                    let message = wire::decode(frame);
                    self.received.drain(..4 + length);
                    return message;
                }
            }
            self.received.reserve(16 << 10);
            if self.reader.read_buf(&mut self.received).await? == 0 {
                return Err(WireError::Closed);
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
            Order::Send(ids) => send_contents(&mut writer, &ids, &contents).await,
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
    ids: &[ContentId],
    contents: &Arc<ContentStore>,
) -> std::io::Result<()> {
    for id in ids {
        let mut reader = match contents.open(id) {
            Some(Ok(reader)) => reader,
            Some(Err(error)) => {
                say(writer, &ToAgent::NoContent { reason: error.to_string() }).await?;
                continue;
            }
            None => {
                let reason = String::from("the host asks for a content that nothing declares");
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
