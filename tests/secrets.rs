//! `converge secrets`, and what a run makes of secrets.

#[path = "secrets/command.rs"]
mod command;
mod hosts;
