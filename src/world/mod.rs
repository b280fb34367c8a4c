//! What a host looks like: what is observed, and what the changes planned so far will make of it.
//!
//! Reading only. The room knows nothing of kinds, graphs or connections.

pub mod accounts;
pub mod data;
mod digests;
pub mod dpkg;
pub mod facts;
mod host;
pub mod links;
mod predicted;
pub mod process;
mod system;
pub mod systemd;
mod types;

pub use digests::Digests;
pub use host::Host;
pub use predicted::{Opaque, Predicted, World};
pub use system::{Answer, EDIT_LIMIT, ObserveError, Probe, System};
pub use types::{
    ContentId, Digest, Entry, GroupEntry, Metadata, PackageEntry, RemotePath, UnitEntry, UserEntry,
};
