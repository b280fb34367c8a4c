//! What outlives a run on a host: locks, history, owed reactions, undo and prune, on real hosts.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod hosts;

#[path = "records/history.rs"]
mod history;
#[path = "records/locks.rs"]
mod locks;
#[path = "records/owed.rs"]
mod owed;
#[path = "records/prune.rs"]
mod prune;
#[path = "records/rollback.rs"]
mod rollback;
#[path = "records/saved.rs"]
mod saved;
#[path = "records/status.rs"]
mod status;
#[path = "records/undo.rs"]
mod undo;
#[path = "records/verified.rs"]
mod verified;
