//! A command that runs on a host, or as a child of the controller: its streams and its end.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};

use super::{Session, Stderr};

/// What a command, or an agent, writes to us.
pub type Reader = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// What we write to a command, or an agent. Shutting it down is its end of file.
pub type Writer = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// A running command with its three streams.
///
/// Nothing is buffered without bound: a reader that does not read makes the command wait, and a command that does not
/// read makes the writer wait. Read and write from different tasks if both may be long.
pub struct Process {
    /// The command's standard input.
    pub stdin: Writer,
    /// The command's standard output.
    pub stdout: Reader,
    /// The command's standard error, as far as it has come.
    pub stderr: Stderr,
    /// The command's end.
    pub control: Control,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("stderr", &self.stderr)
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It ended by itself with this status.
    Status(u32),
    /// A signal ended it.
    Signal(String),
    /// The host did not start it.
    Refused,
    /// The connection broke; the text says how, as far as it is known.
    Lost(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::Refused => f.write_str("the host does not start commands for this user"),
            Self::Lost(reason) => write!(f, "the connection was lost: {reason}"),
        }
    }
}

/// Waits for the end of a command, and can bring it about.
#[derive(Clone, Debug)]
pub struct Control {
    exit: watch::Receiver<Option<Exit>>,
    stop: Stop,
}

#[derive(Clone, Debug)]
enum Stop {
    /// The command runs on this connection.
    Connection(Session),
    /// A task kills the child when it is told so, or when every sender is gone.
    Child(mpsc::Sender<()>),
}

impl Control {
    pub(super) fn of_session(exit: watch::Receiver<Option<Exit>>, session: Session) -> Self {
        Self { exit, stop: Stop::Connection(session) }
    }

    pub(super) fn of_child(exit: watch::Receiver<Option<Exit>>, stop: mpsc::Sender<()>) -> Self {
        Self { exit, stop: Stop::Child(stop) }
    }

    /// Waits until the command has ended.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or(Exit::Lost("it ended without a status".into())),
            Err(_) => Exit::Lost("nobody waits for it any more".into()),
        }
    }

    /// How the command ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// Ends it at once: closes the connection, or kills the child.
    pub async fn close(&self) {
        match &self.stop {
            Stop::Connection(session) => session.close().await,
            Stop::Child(stop) => drop(stop.try_send(())),
        }
    }

    /// The connection that the command runs on; none for a local child.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        match &self.stop {
            Stop::Connection(session) => Some(session),
            Stop::Child(_) => None,
        }
    }
}

/// Standard output as it comes out of the task that drains the channel.
pub(super) struct Chunks {
    coming: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Chunks {
    pub(super) fn new(coming: mpsc::Receiver<Bytes>) -> Self {
        Self { coming, current: Bytes::new() }
    }
}

impl AsyncRead for Chunks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        while self.current.is_empty() {
            match ready!(self.coming.poll_recv(cx)) {
                Some(chunk) => self.current = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.current.len().min(buffer.remaining());
        buffer.put_slice(&self.current[..length]);
        self.current.advance(length);
        Poll::Ready(Ok(()))
    }
}
