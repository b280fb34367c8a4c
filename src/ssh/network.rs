//! The byte stream below SSH: a TCP connection, in a network name space if need be, or a proxy command.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

use super::{Destination, Error, Keepalive, Network};

/// Connects to the destination's address, trying all that its name has, in order.
pub(super) async fn dial(destination: &Destination, network: &Network) -> Result<TcpStream, Error> {
    let addresses = look_up(&destination.host, destination.port).await?;
    let mut failures = Vec::new();
    for address in &addresses {
        match connect(*address, network).await {
            Ok(stream) => {
                tune(&stream, destination.keepalive);
                return Ok(stream);
            }
            Err(Failure::Namespace(path, source)) => return Err(Error::Namespace { path, source }),
            Err(Failure::Connect(error)) if addresses.len() == 1 => {
                failures.push(error.to_string())
            }
            Err(Failure::Connect(error)) => failures.push(format!("{}: {error}", address.ip())),
        }
    }
    let (host, port) = (destination.host.clone(), destination.port);
    Err(Error::Connect { host, port, reason: failures.join(", ") })
}

async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed = |source| Error::Lookup { host: host.to_owned(), source };
    let found: Vec<SocketAddr> =
        tokio::net::lookup_host((bare, port)).await.map_err(failed)?.collect();
    if found.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "it has no address")));
    }
    Ok(found)
}

/// Opens a TCP connection to an address, in the network that a host is in: to forward a port of it, or to look whether
/// it answers.
pub async fn open_tcp(address: SocketAddr, network: &Network) -> io::Result<TcpStream> {
    connect(address, network).await.map_err(|failure| match failure {
        Failure::Connect(error) | Failure::Namespace(_, error) => error,
    })
}

enum Failure {
    Namespace(PathBuf, io::Error),
    Connect(io::Error),
}

async fn connect(address: SocketAddr, network: &Network) -> Result<TcpStream, Failure> {
    let socket = match network {
        Network::Direct => {
            if address.is_ipv4() {
                TcpSocket::new_v4()
            } else {
                TcpSocket::new_v6()
            }
        }
        Network::Namespace(path) => {
            let failed = |error| Failure::Namespace(path.clone(), error);
            let socket = socket_inside(path, address.is_ipv4()).await.map_err(failed)?;
            Ok(TcpSocket::from_std_stream(socket.into()))
        }
    };
    socket.map_err(Failure::Connect)?.connect(address).await.map_err(Failure::Connect)
}

/// Makes a socket inside of a network name space. A socket stays where it was made, a thread's name space is its own:
/// so a thread of its own enters the name space, makes the socket, and ends.
async fn socket_inside(path: &Path, v4: bool) -> io::Result<OwnedFd> {
    let (give, take) = oneshot::channel();
    let path = path.to_owned();
    let make = move || -> io::Result<OwnedFd> {
        let namespace = File::open(&path)?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        let family = if v4 { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?)
    };
    std::thread::Builder::new()
        .name("ssh-namespace".into())
        .spawn(move || drop(give.send(make())))?;
    take.await.map_err(|_| io::Error::other("the thread that enters the name space died"))?
}

/// Small packets leave at once. What was sent and is never acknowledged ends the connection in about the time that
/// keepalive would take: while our own sending is stuck, no keepalive can be sent.
fn tune(stream: &TcpStream, keepalive: Keepalive) {
    // Neither is needed for correctness, so a system that does not have them is not an error.
    let _ = stream.set_nodelay(true);
    if let Some(interval) = keepalive.interval {
        let patience =
            interval.saturating_mul(keepalive.count.saturating_add(1)).max(Duration::from_secs(1));
        let _ = sockopt::set_tcp_user_timeout(
            stream,
            u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
        );
    }
}

/// How many reads acknowledge at once: enough for the key exchange, the log-in and the first command.
const PROMPT_READS: u32 = 64;

/// A TCP connection whose first packets are acknowledged at once.
///
/// sshd sends small packets while it waits for acknowledgements (Nagle's algorithm; it turns that off only for
/// terminals), and the kernel delays those by 40 ms: without this, the first command of a connection waits for as long.
pub(super) struct PromptStream {
    stream: TcpStream,
    left: u32,
}

impl PromptStream {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, left: PROMPT_READS }
    }
}

impl AsyncRead for PromptStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if self.left > 0 && read.is_ready() {
            self.left -= 1;
            // It lasts for a few packets only, and is no more than a wish.
            let _ = sockopt::set_tcp_quickack(&self.stream, true);
        }
        read
    }
}

impl AsyncWrite for PromptStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The standard input and output of a proxy command. The command ends with it.
pub(super) struct ProxyStream {
    output: ChildStdout,
    input: ChildStdin,
    _child: Child,
}

/// Starts a `ProxyCommand` as OpenSSH does: by a shell that makes way for it.
pub(super) fn proxy(command: &str) -> Result<ProxyStream, Error> {
    let failed = |source| Error::ProxyCommand { command: command.to_owned(), source };
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("exec {command}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    match (child.stdout.take(), child.stdin.take()) {
        (Some(output), Some(input)) => Ok(ProxyStream { output, input, _child: child }),
        _ => Err(failed(io::Error::other("it has no standard input or output"))),
    }
}

impl AsyncRead for ProxyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ProxyStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(cx)
    }
}
