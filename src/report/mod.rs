//! What people and programs read: reporters turn the events of a run into text, JSON, Markdown.
//!
//! The room reads events and knows no engine: neither how hosts are reached nor what kinds there
//! are. Where to write, whether there is a terminal, how wide it is, colours and the clock are
//! passed in. All that hosts say is untrusted: it steers no terminal and forms no Markdown.

mod clean;
mod effect;
mod event;
mod graph;
mod history;
mod json;
mod jsonl;
mod live;
mod markdown;
mod paint;
mod past;
mod record;
mod reporter;
mod status;
mod table;
mod text;
mod variables;

#[cfg(test)]
mod samples;

pub use clean::block as harmless;
pub use event::{ChangeView, Event, IGNORED, Phase, Resource, Status, Summary, Verdict};
pub use graph::{GraphBox, GraphEdge, GraphFormat, GraphPicture, GraphPlay, GraphStanding, draw};
pub use history::{PastHosts, history_json, history_text};
pub use json::refused;
pub use past::{Drift, HostStatus, PastOutcome, PastResource, PastRun, PastVerdict, RunInfo};
pub use reporter::{Format, FormatError, Options, Reporter, reporter};
pub use status::status_text;
pub use variables::{
    PlayVariables, VariableOrigin, VariablePlace, VariableSource, VariableUse, VariableValue,
    origin_text, variables_json, variables_text,
};
