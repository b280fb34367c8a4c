//! The language: YAML state files become declarations, each with its place in the source.
//!
//! The room reads sources that it is given and knows variables as data; it knows nothing of
//! hosts, connections or what a kind does to a host.

mod arguments;
mod common_keys;
mod compile;
mod composite;
mod conditions;
mod contents;
mod declaration;
mod encrypted;
mod expand;
mod explain;
mod fault;
mod files;
mod filters;
mod health;
mod include;
mod keys;
mod keywords;
mod layer;
mod lenient;
mod lookup;
mod manual;
mod own_facts;
mod play;
pub mod python;
mod references;
mod schema;
mod scope;
mod sealing;
mod state;
mod taint;
mod template;
mod unite;
mod value;
mod written;
pub mod yaml;

pub use compile::CompileOptions;
pub use composite::OwnKinds;
pub use contents::{ContentReader, ContentStore, Fetch, FolderError};
pub use declaration::{
    CONFIRM_CONNECTION, Common, Declaration, Prune, Reference, Retry, Skipped, Used,
};
pub(crate) use encrypted::{Unread, add_file};
pub use explain::{Explanation, LayerValue, Said, Shown, Use};
pub use filters::{filter_names, test_names};
pub use health::OnFailure;
pub use keywords::{
    CHECK, COMMON, FACT, Form, INCLUDE, INCLUDED_FILE, KIND, KIND_ARGUMENT, Keyword, PLAY,
};
pub use layer::Layer;
pub use manual::{NoSuchTopic, manual};
pub use minijinja::Value as TemplateValue;
pub use own_facts::{OwnFact, with_own_facts};
pub use play::{Play, Program};
pub use references::Names;
pub use schema::schema;
pub use scope::{Evaluated, Facts, HostVariables, OMIT, Rendered, Scope, Truth};
pub use sealing::{reseal, seal, unseal};
pub use state::State;
pub use taint::{has_secret, reveal};
pub use template::{LookupEnvironment, Templates};
pub use value::{asks_for_facts, value_of};
pub use written::{Definition, Reads};
