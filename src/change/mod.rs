//! The closed set of differences, and how one is shown, applied and encoded.
//!
//! The room knows what a host looks like (`world`); it knows neither kinds nor connections.

mod accounts;
mod diff;
pub mod files;
mod inverse;
mod mask;
mod overlay;
pub mod packages;
mod render;
mod runner;
mod types;
mod units;

pub use accounts::apply as apply_account;
pub use diff::{Masking, sanitize};
pub use inverse::{Inverse, inverse};
pub use mask::{Mask, SECRET};
pub use overlay::lay_over;
pub use packages::{apply as apply_packages, is_within, merge as merge_packages};
pub use render::{Sides, view};
pub use runner::{ApplyError, Execution, Runner};
pub use types::{
    Account, Act, Change, Command, Content, HomeDirectory, HttpAnswer, PackageManager, PackageMove,
    PackageState, PackageTransaction, Reaction, Run, Stop, UnitState, Wait, WaitFor,
};
pub use units::{apply as apply_unit, react, reload_manager};
