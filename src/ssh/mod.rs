//! The way to a host: one SSH connection, one command on it, and the agent started by that command.
//!
//! The room may know: the SSH protocol (through `russh`), OpenSSH's configuration, `known_hosts`, keys and agents,
//! network name spaces, and how the agent program comes to a host. It must never know: what the agent says once it
//! runs (that is `wire`), inventories, state files, or a terminal. The home directory, the environment, the clock
//! and questions to a person are passed in ([`Environment`], [`Prompt`]). No type of `russh` leaves this room,
//! because its minor versions break.
//!
//! How the parts lie:
//!
//! - [`Client::resolve`] turns a [`Request`] (what the inventory says) into a [`Destination`] with OpenSSH's own
//!   answers (`configuration`).
//! - [`Client::connect`] dials it (`network`), checks the host key (`known_hosts`, `host_key`), authenticates
//!   (`authentication`, `identity`) and gives a [`Session`]; through jump hosts it does so for each hop.
//! - [`Session::exec`] starts a command and gives its streams, a [`Process`].
//! - [`bootstrap::over_ssh`] and [`bootstrap::local`] start the agent, uploading it where it is missing, and give an
//!   [`AgentStream`] that is positioned at the agent's first frame.
//! - [`sign`] and [`verify`] make and check signatures with SSH keys.

mod authentication;
pub mod bootstrap;
mod client;
mod configuration;
mod deadline;
mod destination;
mod error;
mod host_key;
mod identity;
pub mod known_hosts;
mod network;
mod password;
mod process;
mod quote;
mod session;
mod signature;
mod stderr;

pub use bootstrap::{AgentProgram, AgentStream, Privilege};
pub use client::Client;
pub use configuration::{Environment, Request, Resolved, share_settings};
pub use destination::{
    Destination, HostKeyRules, IdentityFile, Keepalive, Network, UnknownHostKey, is_host_name,
    is_user_name,
};
pub use error::{Attempt, Error, ShownKey, Stage};
pub use identity::{Prompt, Refuse};
pub use network::open_tcp;
pub use password::Password;
pub use process::{Control, Exit, Process, Reader, Writer};
pub use quote::{for_any_shell, for_sh};
pub use session::Session;
pub use signature::{SignatureError, sign, verify};
pub use stderr::Stderr;
