//! The order of things: declarations of a host become one graph in which every step comes after
//! all that it has to wait for.
//!
//! File order is the meaning. Explicit requisites come first; hazards (overlaps of what steps read
//! and write) are found through an index and oriented along the resulting order. Why an edge is there is found
//! again when somebody asks (`converge graph`): hosts are not sent reasons. The room knows
//! declarations and kinds' footprints; it knows nothing of hosts.

mod build;
mod hazard;
mod overlap;
mod picture;
mod types;
mod why;

pub use build::{PlayDeclarations, Reversal, build, check, reversals};
pub use types::{Graph, NOT_SELECTED, Node, NodeIndex, Play, Work};
pub use why::{Explained, ReferenceError, explain};
