//! A port of a host, reachable on the machine's loopback.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::{SandboxError, network};

/// How long the host may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A loopback port whose connections end at a port of a host.
#[derive(Debug)]
pub struct Forward {
    listener: TcpListener,
    address: SocketAddr,
    namespace: PathBuf,
    target: SocketAddr,
}

impl Forward {
    pub(super) fn new(namespace: PathBuf, target: SocketAddr) -> Result<Self, SandboxError> {
        let failed = |source| SandboxError::Network {
            doing: "listening on loopback for",
            target: target.to_string(),
            source,
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, namespace, target })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves connections until the process ends, each on threads of its own. One that the host does not accept is
    /// closed.
    ///
    /// # Errors
    /// [`SandboxError::Network`] if the loopback port is lost.
    pub fn serve(self) -> Result<(), SandboxError> {
        loop {
            match self.listener.accept() {
                Ok((near, _)) => {
                    let (namespace, target) = (self.namespace.clone(), self.target);
                    thread::spawn(move || {
                        let far = network::inside(&namespace, || {
                            TcpStream::connect_timeout(&target, CONNECT_LIMIT)
                        });
                        if let Ok(Ok(far)) = far {
                            // A broken connection ends both ends, which is all there is to tell anybody.
                            let _ = join(&near, &far);
                        }
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(SandboxError::Network {
                        doing: "accepting a connection for",
                        target: self.target.to_string(),
                        source,
                    });
                }
            }
        }
    }
}

/// Carries bytes both ways until both sides have ended.
fn join(near: &TcpStream, far: &TcpStream) -> io::Result<()> {
    thread::scope(|scope| {
        let back = scope.spawn(|| carry(far, near));
        let forth = carry(near, far);
        match back.join() {
            Ok(back) => forth.and(back),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn carry(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let carried = io::copy(&mut from, &mut to);
    match carried {
        Ok(_) => to.shutdown(Shutdown::Write),
        Err(error) => {
            // The other direction waits on these.
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            Err(error)
        }
    }
}
