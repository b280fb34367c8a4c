//! Many hosts at once: reach them, let each plan, and let the plans begin.
//!
//! The room knows connections (`ssh`), the agent's messages (`wire`) and graphs; it neither sees a
//! terminal nor prints: what happens goes out as events. A host that fails or cannot be reached
//! never holds up the others.

mod arrival;
mod declaring;
mod host;
mod limits;
mod link;
mod past;
mod run;
mod saved;

pub use declaring::{Declarations, Declared, Refused};
pub use limits::HostLimits;
pub use past::{Told, past, status};
pub use run::{Ended, HostRun, Plans, Purpose, Reach, Reachable, Run, converge};
pub use saved::{HostPlan, PlanFile, SavedError, SavedHost, SavedPlan};
