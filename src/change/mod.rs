//! The closed set of differences, and how one is shown, applied and encoded.
//!
//! The room knows what a host looks like (`world`); it knows neither kinds nor connections.

mod types;

pub use types::{
    Account, Act, Change, Command, Content, HomeDirectory, PackageManager, PackageMove, PackageState,
    PackageTransaction, Reaction, Run, UnitState, Wait, WaitFor,
};
