//! An SSH connection that is logged in, and the commands on it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use russh::client::{ChannelOpenHandle, DisconnectReason, Handle, Handler, Msg, Session as Driver};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelMsg, ChannelStream, Disconnect};
use tokio::sync::{mpsc, watch};

use super::error::printable;
use super::host_key::HostKeyCheck;
use super::process::{Chunks, Control, Exit, Process};
use super::{Destination, Error, Stderr};

/// How many packets (of at most 32 KiB) wait for a reader before the host has to wait.
pub(super) const WAITING_PACKETS: usize = 16;

/// One connection to a host, logged in. Copies are the same connection; it closes when it is told to, or when the last
/// copy and the last stream of its commands are gone.
#[derive(Clone)]
pub struct Session(Arc<Connection>);

struct Connection {
    handle: Handle<Peer>,
    address: String,
    trace: Trace,
    /// The connection to the jump host below this one.
    _via: Option<Session>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("address", &self.0.address).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(
        handle: Handle<Peer>,
        destination: &Destination,
        trace: Trace,
        via: Option<Self>,
    ) -> Self {
        Self(Arc::new(Connection { handle, address: destination.address(), trace, _via: via }))
    }

    /// Starts a command, which the user's login shell reads. Costs one round trip; what is written to its standard
    /// input goes out with it.
    pub async fn exec(&self, command: &str) -> Result<Process, Error> {
        let refused = |error: russh::Error| Error::Exec {
            address: self.0.address.clone(),
            reason: self.explain(&error),
        };
        let channel = self.0.handle.channel_open_session().await.map_err(refused)?;
        channel.exec(true, command).await.map_err(refused)?;
        let (mut incoming, outgoing) = channel.split();
        let stdin = Box::new(outgoing.make_writer());
        let stderr = Stderr::default();
        let (stdout, chunks) = mpsc::channel(WAITING_PACKETS);
        let (ended, exit) = watch::channel(None);
        let (kept, trace) = (stderr.clone(), self.0.trace.clone());
        // A task of its own, so that the connection never waits for a channel that nobody looks at.
        tokio::spawn(async move {
            let exit = drain(&mut incoming, &stdout, &kept).await;
            let lost = || Exit::Lost(trace.reason().unwrap_or_else(|| "the host closed it".into()));
            ended.send_replace(Some(exit.unwrap_or_else(lost)));
        });
        let stdout = Box::new(Chunks::new(chunks));
        Ok(Process { stdin, stdout, stderr, control: Control::of_session(exit, self.clone()) })
    }

    /// A stream to another address, as the host reaches it.
    pub(super) async fn forward(&self, to: &Destination) -> Result<ChannelStream<Msg>, Error> {
        let open = self.0.handle.channel_open_direct_tcpip(
            to.host.as_str(),
            to.port.into(),
            "127.0.0.1",
            0,
        );
        let channel = open.await.map_err(|error| Error::Forward {
            hop: self.0.address.clone(),
            address: to.address(),
            reason: self.explain(&error),
        })?;
        Ok(channel.into_stream())
    }

    /// Says good-bye and closes the connection. It never waits long.
    pub async fn close(&self) {
        let farewell = self.0.handle.disconnect(Disconnect::ByApplication, "", "en");
        let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
    }

    /// Whether the connection is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.handle.is_closed()
    }

    fn explain(&self, error: &russh::Error) -> String {
        match error {
            russh::Error::ChannelOpenFailure(reason) => format!("{reason:?}"),
            other => self.0.trace.reason().unwrap_or_else(|| other.to_string()),
        }
    }
}

/// Takes a command's messages until its end; `None` if it had none.
async fn drain(
    incoming: &mut russh::ChannelReadHalf,
    stdout: &mpsc::Sender<Bytes>,
    stderr: &Stderr,
) -> Option<Exit> {
    let mut exit = None;
    while let Some(message) = incoming.wait().await {
        match message {
            // Whoever has dropped the reader does not want the rest; the command goes on all the same.
            ChannelMsg::Data { data } => drop(stdout.send(data).await),
            ChannelMsg::ExtendedData { data, .. } => stderr.push(&data),
            ChannelMsg::ExitStatus { exit_status } => exit = Some(Exit::Status(exit_status)),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                exit = Some(Exit::Signal(format!("{signal_name:?}")))
            }
            ChannelMsg::Failure => {
                exit = Some(Exit::Refused);
                break;
            }
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    exit
}

/// How a connection ended, as far as the protocol told.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace(Arc<Mutex<Option<String>>>);

impl Trace {
    fn set(&self, reason: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }

    pub(super) fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Answers the protocol's questions: the host's key is judged, and everything that a host might want to open on our
/// side is declined.
pub(super) struct Peer {
    pub(super) check: HostKeyCheck,
    pub(super) trace: Trace,
}

/// What ends a connection: our verdict on the host's key, or the protocol.
#[derive(Debug)]
pub(super) enum Broken {
    Judged(Error),
    Protocol(russh::Error),
}

impl From<russh::Error> for Broken {
    fn from(error: russh::Error) -> Self {
        Self::Protocol(error)
    }
}

impl Handler for Peer {
    type Error = Broken;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Broken> {
        self.check.check(shown).map(|()| true).map_err(Broken::Judged)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Broken>) -> Result<(), Broken> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                self.trace.set(printable(info.message.as_bytes()));
                Ok(())
            }
            DisconnectReason::Error(error) => {
                self.trace.set(match &error {
                    Broken::Protocol(russh::Error::KeepaliveTimeout) => {
                        "the host does not answer any more".into()
                    }
                    Broken::Protocol(error) => printable(error.to_string().as_bytes()),
                    Broken::Judged(error) => error.to_string(),
                });
                Err(error)
            }
        }
    }

    // A dropped `reply` declines.

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _connected_address: &str,
        _connected_port: u32,
        _originator_address: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Driver,
    ) -> Result<(), Broken> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        _reply: ChannelOpenHandle,
        _session: &mut Driver,
    ) -> Result<(), Broken> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _channel: Channel<Msg>,
        _reply: ChannelOpenHandle,
        _session: &mut Driver,
    ) -> Result<(), Broken> {
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        _reply: ChannelOpenHandle,
        _session: &mut Driver,
    ) -> Result<(), Broken> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host_to_connect: &str,
        _port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Driver,
    ) -> Result<(), Broken> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _socket_path: &str,
        _reply: ChannelOpenHandle,
        _session: &mut Driver,
    ) -> Result<(), Broken> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        _reply: ChannelOpenHandle,
        _session: &mut Driver,
    ) -> Result<(), Broken> {
        Ok(())
    }
}
