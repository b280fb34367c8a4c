//! Connecting to a destination, hop by hop.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use russh::client::{Config, connect_stream};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{MethodSet, Preferred, cipher};
use tokio::io::{AsyncRead, AsyncWrite};

use super::authentication::Login;
use super::configuration::Resolver;
use super::deadline::{Deadline, TimeUp};
use super::error::printable;
use super::host_key::{HostKeyCheck, Ledger};
use super::identity::Keys;
use super::session::{Broken, Peer, Trace, WAITING_PACKETS};
use super::{Destination, Environment, Error, Prompt, Request, Resolved, Session, Stage, network};

/// Reaches hosts; keeps for all of them what need not be asked twice: keys, `known_hosts`, answers of `ssh -G`.
pub struct Client {
    environment: Environment,
    resolver: Resolver,
    keys: Keys,
    ledger: Arc<Ledger>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("environment", &self.environment).finish_non_exhaustive()
    }
}

/// The kinds of host key that we take, best first: OpenSSH's order. RSA never with SHA-1.
const HOST_KEYS: [Algorithm; 6] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Client {
    /// Makes a client for one run.
    pub fn new(environment: Environment, prompt: Arc<dyn Prompt>) -> Self {
        Self {
            environment,
            resolver: Resolver::default(),
            keys: Keys::new(prompt),
            ledger: Arc::default(),
        }
    }

    /// Decides everything about a connection: what the inventory says goes before OpenSSH's configuration.
    pub async fn resolve(&self, request: &Request) -> Result<Resolved, Error> {
        self.resolver.resolve(&self.environment, request).await
    }

    /// Connects and logs in, through the jump hosts if there are any.
    ///
    /// Each hop has the whole of its own time-out.
    pub async fn connect(&self, destination: &Destination) -> Result<Session, Error> {
        let mut via: Option<Session> = None;
        for hop in &destination.jump {
            let session = self.hop(hop, &destination.network, via).await;
            via =
                Some(session.map_err(|error| Error::Jump {
                    hop: hop.name.clone(),
                    source: Box::new(error),
                })?);
        }
        self.hop(destination, &destination.network, via).await
    }

    async fn hop(
        &self,
        destination: &Destination,
        network: &super::Network,
        via: Option<Session>,
    ) -> Result<Session, Error> {
        let deadline = Deadline::after(destination.connect_timeout);
        let check = HostKeyCheck::new(destination, &self.ledger, self.environment.clock)?;
        let late = |stage| {
            let (address, after) = (destination.address(), destination.connect_timeout);
            move |TimeUp| Error::TimedOut { address, stage, after }
        };
        let stream: Box<dyn Stream> = match (&via, &destination.proxy_command) {
            (Some(via), _) => {
                let forward = deadline.run(via.forward(destination)).await;
                Box::new(forward.map_err(late(Stage::Connecting))??)
            }
            (None, Some(command)) => Box::new(network::proxy(command)?),
            (None, None) => {
                let dial = deadline.run(network::dial(destination, network)).await;
                Box::new(network::PromptStream::new(dial.map_err(late(Stage::Connecting))??))
            }
        };
        let trace = Trace::default();
        let config = Arc::new(config(destination, &check));
        let peer = Peer { check, trace: trace.clone() };
        let connecting = deadline.run(connect_stream(config, stream, peer)).await;
        let mut handle =
            connecting.map_err(late(Stage::KeyExchange))?.map_err(|broken| match broken {
                Broken::Judged(error) => error,
                Broken::Protocol(error) => {
                    Error::Protocol { address: destination.address(), reason: explain(&error) }
                }
            })?;
        let login = Login {
            handle: &mut handle,
            destination,
            keys: &self.keys,
            deadline: &deadline,
            trace: &trace,
            attempts: Vec::new(),
            offered: MethodSet::empty(),
            rsa_hash: None,
        };
        deadline.run(login.run()).await.map_err(late(Stage::Authentication))??;
        Ok(Session::new(handle, destination, trace, via))
    }
}

fn explain(error: &russh::Error) -> String {
    match error {
        russh::Error::NoCommonAlgo { kind, theirs, .. } => printable(
            format!("it knows no {kind:?} algorithm of ours, only {}", theirs.join(", "))
                .as_bytes(),
        ),
        russh::Error::HUP | russh::Error::Disconnect => {
            "it closed the connection before the log-in".into()
        }
        other => printable(other.to_string().as_bytes()),
    }
}

fn config(destination: &Destination, check: &HostKeyCheck) -> Config {
    let mut ciphers = Preferred::DEFAULT.cipher.to_vec();
    if has_aes() {
        ciphers.sort_by_key(|name| *name != cipher::AES_256_GCM);
    }
    let key = check.preferred(&HOST_KEYS);
    let host_key_certificates =
        if check.wants_certificate() { HOST_KEYS.to_vec() } else { Vec::new() };
    Config {
        preferred: Preferred {
            key: Cow::Owned(key),
            host_key_certificates: Cow::Owned(host_key_certificates),
            cipher: Cow::Owned(ciphers),
            // Packages and programs are compressed already, and plans are small.
            compression: Cow::Borrowed(&[russh::compression::NONE]),
            ..Preferred::DEFAULT
        },
        channel_buffer_size: WAITING_PACKETS,
        keepalive_interval: destination.keepalive.interval,
        keepalive_max: usize::try_from(destination.keepalive.count).unwrap_or(usize::MAX),
        nodelay: true,
        ..Config::default()
    }
}

/// Whether AES is the machine's own: then AES-GCM is half again as fast as ChaCha20, otherwise slower.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}
