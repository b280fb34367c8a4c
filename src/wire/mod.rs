//! Frames and messages between controller and agent.
//!
//! Both ends are of the same build, so there is no schema evolution: a frame is its length (four
//! bytes, little-endian) and a postcard message. What comes from a host is untrusted: a frame is
//! bounded, and what does not decode ends the connection.

mod frame;
mod message;

pub use frame::{FRAME_LIMIT, WireError, decode, encode, read_frame, write_frame};
pub use message::{
    AddedNode, Answer, Bound, CutOff, Differing, Facts, FromAgent, HEARTBEAT, Hello, MAGIC, Notes,
    Outcome, PlanOptions, PlannedNode, Question, SILENCE, STOPPED, ShownChange, ToAgent,
};

/// The build that both ends must be of.
pub const BUILD: &str = env!("CONVERGE_BUILD");
