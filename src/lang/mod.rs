//! The language: YAML state files become declarations, each with its place in the source.
//!
//! The room reads sources that it is given and knows variables as data; it knows nothing of
//! hosts, connections or what a kind does to a host.

mod arguments;
mod common_keys;
mod compile;
mod conditions;
mod contents;
mod declaration;
mod fault;
mod files;
mod filters;
mod health;
mod include;
mod keys;
mod layer;
mod lenient;
mod lookup;
mod play;
pub mod python;
mod references;
mod scope;
mod state;
mod template;
mod unite;
mod value;
pub mod yaml;

pub use compile::CompileOptions;
pub use contents::{ContentReader, ContentStore, Fetch, FolderError};
pub use declaration::{CONFIRM_CONNECTION, Common, Declaration, Prune, Reference, Retry, Skipped};
pub use filters::{filter_names, test_names};
pub use health::OnFailure;
pub use layer::Layer;
pub use minijinja::Value as TemplateValue;
pub use play::{Play, Program};
pub use references::Names;
pub use scope::{Evaluated, Facts, HostVariables, OMIT, Rendered, Scope, Truth};
pub use template::{LookupEnvironment, Templates};
pub use value::{asks_for_facts, value_of};
