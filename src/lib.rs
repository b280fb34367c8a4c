//! converge compiles YAML state files into an idempotent dependency graph and converges hosts to
//! it over SSH, applying only differences.

#![forbid(unsafe_code)]
#![warn(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::dbg_macro
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod agent;
pub mod change;
pub mod cli;
pub mod diagnostic;
pub mod fleet;
pub mod graph;
pub mod inventory;
pub mod kind;
pub mod lang;
pub mod lint;
pub mod project;
pub mod report;
pub mod resource;
pub mod sandbox;
pub mod secret;
pub mod ssh;
pub mod wire;
pub mod world;
