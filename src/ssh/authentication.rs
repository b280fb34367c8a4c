//! Logging in: which ways are tried, in which order, and what came of each.

use std::path::Path;
use std::time::Duration;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey};
use russh::{MethodKind, MethodSet};
use tokio::net::UnixStream;

use super::deadline::Deadline;
use super::error::printable;
use super::identity::{FileSigner, Keys, Known, NotSigned, certificate};
use super::session::{Peer, Trace};
use super::{Attempt, Destination, Error};

/// How long an agent may take to sign: it may ask a person, or wait for a touch.
const AGENT_PATIENCE: Duration = Duration::from_secs(120);
/// How many times a host may ask again in a keyboard-interactive log-in.
const ROUNDS: usize = 5;

/// A key that could be offered, and who would sign with it.
enum Candidate<'a> {
    Agent {
        key: PublicKey,
        comment: String,
    },
    AgentCertificate {
        certificate: Box<Certificate>,
        comment: String,
    },
    File {
        path: &'a Path,
        key: PublicKey,
    },
    /// A key file with a certificate beside it.
    Certified {
        path: &'a Path,
        certificate: Box<Certificate>,
    },
    SealedFile {
        path: &'a Path,
    },
}

/// Logs in on a connection whose host key was accepted.
pub(super) struct Login<'a> {
    pub(super) handle: &'a mut Handle<Peer>,
    pub(super) destination: &'a Destination,
    pub(super) keys: &'a Keys,
    pub(super) deadline: &'a Deadline,
    pub(super) trace: &'a Trace,
    pub(super) attempts: Vec<Attempt>,
    pub(super) offered: MethodSet,
    pub(super) rsa_hash: Option<Option<HashAlg>>,
}

/// What one way in came to.
enum Step {
    In,
    Next,
    /// The connection is gone.
    Over,
}

impl<'a> Login<'a> {
    /// Tries agent keys that the configuration names, other agent keys, key files, and then the password: OpenSSH's
    /// order.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        let user = self.destination.user.clone();
        let none = self.handle.authenticate_none(user).await;
        let step = match none {
            Ok(AuthResult::Success) => Step::In,
            Ok(AuthResult::Failure { remaining_methods, .. }) => {
                self.offered = remaining_methods;
                if self.handle.is_closed() { Step::Over } else { Step::Next }
            }
            Err(error) => return Err(self.refused(&error.to_string())),
        };
        let step = match step {
            Step::Next => self.try_all().await,
            other => other,
        };
        match step {
            Step::In => Ok(()),
            Step::Next => Err(self.failed()),
            Step::Over if self.attempts.is_empty() => {
                let reason =
                    self.trace.reason().unwrap_or_else(|| "it closed the connection".into());
                Err(self.refused(&reason))
            }
            Step::Over => Err(self.failed()),
        }
    }

    async fn try_all(&mut self) -> Step {
        let mut agent = self.connect_agent().await;
        let held = match &mut agent {
            Some(agent) => self.list(agent).await,
            None => Vec::new(),
        };
        for candidate in self.candidates(held) {
            if !self.accepts(MethodKind::PublicKey) {
                break;
            }
            match self.try_key(&candidate, agent.as_mut()).await {
                Step::Next => {}
                step => return step,
            }
        }
        let Some(password) = self.destination.password.clone() else {
            return Step::Next;
        };
        if self.accepts(MethodKind::Password) {
            let user = self.destination.user.clone();
            let result = self.handle.authenticate_password(user, password.reveal()).await;
            match self.note("password".into(), result.map_err(|error| error.to_string())) {
                Step::Next => {}
                step => return step,
            }
        }
        if self.accepts(MethodKind::KeyboardInteractive) {
            return self.answer_questions(password.reveal()).await;
        }
        Step::Next
    }

    fn accepts(&self, method: MethodKind) -> bool {
        self.offered.contains(&method)
    }

    async fn connect_agent(&mut self) -> Option<AgentClient<UnixStream>> {
        let socket = self.destination.agent.as_ref()?;
        if !self.accepts(MethodKind::PublicKey) {
            return None;
        }
        match AgentClient::connect_uds(socket).await {
            Ok(agent) => Some(agent),
            Err(error) => {
                let method = format!("ssh agent {}", socket.display());
                self.attempts.push(Attempt { method, outcome: error.to_string() });
                None
            }
        }
    }

    async fn list(&mut self, agent: &mut AgentClient<UnixStream>) -> Vec<AgentIdentity> {
        // Agents with keys bound to destinations want to know the connection; others do not know the question.
        if let Some(binding) = self.handle.agent_session_binding() {
            let _ = agent.bind_session(binding, false).await;
        }
        match agent.request_identities().await {
            Ok(identities) => identities,
            Err(error) => {
                self.attempts
                    .push(Attempt { method: "ssh agent".into(), outcome: error.to_string() });
                Vec::new()
            }
        }
    }

    fn candidates(&mut self, mut held: Vec<AgentIdentity>) -> Vec<Candidate<'a>> {
        let destination = self.destination;
        let mut certified = Vec::new();
        let mut by_agent = Vec::new();
        let mut by_file = Vec::new();
        for file in &destination.identity_files {
            let path = file.path.as_path();
            match self.keys.look(path) {
                Known::Missing if !file.named => {}
                Known::Missing => self.attempts.push(file_attempt(path, "there is no such file")),
                Known::Unusable(reason) => self.attempts.push(file_attempt(path, &reason)),
                Known::Sealed => by_file.push(Candidate::SealedFile { path }),
                Known::Public(key) => {
                    if let Some(certificate) = certificate(path, &key) {
                        let certificate = Box::new(certificate);
                        certified.push(Candidate::Certified { path, certificate });
                    }
                    let same =
                        |held: &AgentIdentity| held.public_key().key_data() == key.key_data();
                    if !held.iter().any(same) {
                        by_file.push(Candidate::File { path, key });
                        continue;
                    }
                    let (mine, others) = held.into_iter().partition(same);
                    held = others;
                    by_agent.extend::<Vec<AgentIdentity>>(mine);
                }
            }
        }
        if !destination.identities_only {
            by_agent.extend(held);
        }
        // A certificate says more than the key that it is for.
        let (certificates, plain): (Vec<_>, Vec<_>) = by_agent
            .into_iter()
            .partition(|held| matches!(held, AgentIdentity::Certificate { .. }));
        let mut candidates = certified;
        candidates.extend(certificates.into_iter().chain(plain).map(Candidate::held));
        candidates.extend(by_file);
        candidates
    }

    async fn try_key(
        &mut self,
        candidate: &Candidate<'_>,
        agent: Option<&mut AgentClient<UnixStream>>,
    ) -> Step {
        let user = self.destination.user.clone();
        let method = candidate.describe();
        let result = match (candidate, agent) {
            (Candidate::Agent { key, .. }, Some(agent)) => {
                let hash = self.hash_for(key.algorithm()).await;
                let mut signer = PatientAgent { agent, deadline: self.deadline };
                self.handle.authenticate_publickey_with(user, key.clone(), hash, &mut signer).await
            }
            (Candidate::AgentCertificate { certificate, .. }, Some(agent)) => {
                let hash = self.hash_for(certificate.algorithm()).await;
                let mut signer = PatientAgent { agent, deadline: self.deadline };
                let certificate = (**certificate).clone();
                self.handle
                    .authenticate_certificate_with(user, certificate, hash, &mut signer)
                    .await
            }
            (Candidate::Certified { path, certificate }, _) => {
                let hash = self.hash_for(certificate.algorithm()).await;
                let mut signer = FileSigner { keys: self.keys, path, deadline: self.deadline };
                let certificate = (**certificate).clone();
                self.handle
                    .authenticate_certificate_with(user, certificate, hash, &mut signer)
                    .await
            }
            (Candidate::File { path, key }, _) => {
                let hash = self.hash_for(key.algorithm()).await;
                let mut signer = FileSigner { keys: self.keys, path, deadline: self.deadline };
                self.handle.authenticate_publickey_with(user, key.clone(), hash, &mut signer).await
            }
            (Candidate::SealedFile { path }, _) => {
                match self.keys.open(path, self.deadline).await {
                    Err(reason) => Err(NotSigned(reason)),
                    Ok(key) => {
                        let hash = self.hash_for(key.algorithm()).await;
                        let mut signer =
                            FileSigner { keys: self.keys, path, deadline: self.deadline };
                        let public = key.public_key().clone();
                        self.handle
                            .authenticate_publickey_with(user, public, hash, &mut signer)
                            .await
                    }
                }
            }
            (_, None) => return Step::Next,
        };
        self.note(method, result.map_err(|NotSigned(reason)| reason))
    }

    /// The hash for RSA signatures: the best that the host knows, never SHA-1 unless it knows nothing else.
    async fn hash_for(&mut self, algorithm: Algorithm) -> Option<HashAlg> {
        if !matches!(algorithm, Algorithm::Rsa { .. }) {
            return None;
        }
        if self.rsa_hash.is_none() {
            let best = self.handle.best_supported_rsa_hash().await;
            self.rsa_hash = Some(best.ok().flatten().unwrap_or(Some(HashAlg::Sha512)));
        }
        self.rsa_hash.flatten()
    }

    async fn answer_questions(&mut self, password: &str) -> Step {
        let method = || "keyboard-interactive".to_owned();
        let user = self.destination.user.clone();
        let mut response = self.handle.authenticate_keyboard_interactive_start(user, None).await;
        for _ in 0..ROUNDS {
            let prompts = match response {
                Ok(KeyboardInteractiveAuthResponse::Success) => return Step::In,
                Ok(KeyboardInteractiveAuthResponse::Failure {
                    remaining_methods,
                    partial_success,
                }) => {
                    return self.note(
                        method(),
                        Ok(AuthResult::Failure { remaining_methods, partial_success }),
                    );
                }
                Ok(KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. }) => prompts,
                Err(error) => return self.note(method(), Err(error.to_string())),
            };
            // Whatever is shown while it is typed is no password: we have no answer to that.
            let answers = prompts
                .iter()
                .map(|prompt| if prompt.echo { String::new() } else { password.to_owned() });
            let answers = answers.collect();
            response = self.handle.authenticate_keyboard_interactive_respond(answers).await;
        }
        self.note(method(), Err("the host keeps asking".into()))
    }

    /// Keeps what an attempt came to.
    fn note(&mut self, method: String, result: Result<AuthResult, String>) -> Step {
        let outcome = match result {
            Ok(AuthResult::Success) => return Step::In,
            Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                let over = remaining_methods.is_empty() && self.handle.is_closed();
                if !over {
                    self.offered = remaining_methods;
                }
                match (over, partial_success) {
                    (true, _) => self
                        .trace
                        .reason()
                        .unwrap_or_else(|| "the host closed the connection".into()),
                    (false, true) => "accepted, but the host wants more".into(),
                    (false, false) => "not accepted".into(),
                }
            }
            Err(reason) => reason,
        };
        self.attempts.push(Attempt { method, outcome });
        if self.handle.is_closed() { Step::Over } else { Step::Next }
    }

    fn failed(self) -> Error {
        let offered = self.offered.iter().map(|method| <&str>::from(method).to_owned()).collect();
        let Destination { user, .. } = self.destination;
        let address = self.destination.address();
        Error::Authentication { address, user: user.clone(), attempts: self.attempts, offered }
    }

    fn refused(&self, reason: &str) -> Error {
        Error::Protocol {
            address: self.destination.address(),
            reason: printable(reason.as_bytes()),
        }
    }
}

impl Candidate<'_> {
    fn held(identity: AgentIdentity) -> Self {
        match identity {
            AgentIdentity::PublicKey { key, comment } => Self::Agent { key, comment },
            AgentIdentity::Certificate { certificate, comment } => {
                Self::AgentCertificate { certificate: Box::new(certificate), comment }
            }
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Agent { key, comment } => {
                format!("agent key {} {}", key.algorithm().as_str(), shown(comment, key))
            }
            Self::AgentCertificate { certificate, comment } => {
                format!("agent certificate {} {comment}", certificate.key_id())
            }
            Self::Certified { path, .. } => format!("certificate of {}", path.display()),
            Self::File { path, .. } | Self::SealedFile { path } => {
                format!("key {}", path.display())
            }
        }
    }
}

fn shown(comment: &str, key: &PublicKey) -> String {
    if comment.is_empty() {
        key.fingerprint(HashAlg::Sha256).to_string()
    } else {
        comment.to_owned()
    }
}

fn file_attempt(path: &Path, outcome: &str) -> Attempt {
    Attempt { method: format!("key {}", path.display()), outcome: outcome.to_owned() }
}

/// An agent that may ask a person before it signs.
struct PatientAgent<'a> {
    agent: &'a mut AgentClient<UnixStream>,
    deadline: &'a Deadline,
}

impl russh::Signer for PatientAgent<'_> {
    type Error = NotSigned;

    async fn auth_sign(
        &mut self,
        key: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, NotSigned> {
        let signing =
            tokio::time::timeout(AGENT_PATIENCE, self.agent.sign_request(key, hash, data));
        match self.deadline.pause(signing).await {
            Ok(signed) => {
                signed.map_err(|error| NotSigned(format!("the agent does not sign: {error}")))
            }
            Err(_) => Err(NotSigned("the agent does not answer".into())),
        }
    }
}
