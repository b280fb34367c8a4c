//! The language: YAML state files become declarations, each with its place in the source.
//!
//! The room reads sources that it is given and knows variables as data; it knows nothing of
//! hosts, connections or what a kind does to a host.

mod declaration;
pub mod yaml;

pub use declaration::{Common, Declaration, Reference, Retry, Skipped};
