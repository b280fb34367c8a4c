//! `converge secrets`, and what a run makes of secrets.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "secrets/command.rs"]
mod command;
mod hosts;
#[path = "secrets/project.rs"]
mod project;
#[path = "secrets/run.rs"]
mod run;
