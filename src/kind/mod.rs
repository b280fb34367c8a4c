//! The kinds of things that a state file can declare: arguments, footprint, plan.
//!
//! A kind does not act. It looks at the predicted world and lowers what is declared to changes.
//! The room knows `change` and `world`; it must never know the agent, the wire or the controller.
//! Whoever adds a kind writes one file here, names it in the list below, and writes its page.

mod authorized_key;
mod block_in_file;
mod command;
mod directory;
mod environment_file;
mod file;
mod footprint;
mod group;
mod line_in_file;
mod lines;
mod package;
mod planning;
mod repository;
mod restore;
mod service;
mod spec;
mod survey;
mod symlink;
mod tree;
mod unit;
mod user;
mod wait_for;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::world::{ContentId, Opaque, RemotePath};

pub use environment_file::parse as parse_environment_file;
pub use footprint::{Claim, Footprint};
pub use planning::{Actor, Contents, Ownership, PlanError, Planned, Planning};
pub use restore::{Restore, Since};
pub use service::{Changed, DueReaction, OwedReaction, Service, Watched, plan_reaction};
pub use spec::{Argument, Key, Shape, Spec};
pub use survey::Surveyed;
pub use tree::{Exclusion, TreeEntry, TreeNode};

/// What a kind does: it says what it touches, and it plans.
pub trait Kind {
    /// What it reads and writes, from its arguments alone.
    fn footprint(&self) -> Footprint;

    /// An error that the arguments alone show, so that it is said before any host is touched.
    fn check_arguments(&self) -> Result<(), PlanError> {
        Ok(())
    }

    /// Adds the differences between the predicted world and what is declared.
    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError>;

    /// A command that checks a content before it goes live (`%s` is the candidate's path).
    fn validate(&self) -> Option<&str> {
        None
    }

    /// What of its arguments may be a secret, if any of them is given.
    fn private_part(&self) -> Option<&'static str> {
        None
    }

    /// The content that it declares for the whole of a file.
    fn content(&self) -> Option<ContentId> {
        None
    }

    /// Whether nothing can take it back.
    fn is_irreversible(&self) -> bool {
        false
    }

    /// What its changes may touch beyond what they say; only commands and packages have any.
    fn opaque(&self) -> Option<Opaque> {
        None
    }

    /// How long it may wait by its own arguments, beyond what every kind may take.
    fn takes(&self) -> Duration {
        Duration::ZERO
    }

    /// States with equal keys that stand next to each other are one step, planned and applied
    /// together.
    fn transaction(&self) -> Option<String> {
        None
    }

    /// Takes the declared paths of the play, so that a clean-up spares them; called only where
    /// [`Kind::cleans_up`] holds.
    fn spare(&mut self, _declared: Vec<RemotePath>) {}

    /// Whether it removes what is not declared.
    fn cleans_up(&self) -> bool {
        false
    }
}

/// Whether a thing is to be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It is.
    #[default]
    Present,
    /// It is not.
    Absent,
}

/// The default of arguments that are true unless said otherwise.
fn yes() -> bool {
    true
}

macro_rules! kinds {
    ($($name:literal => $module:ident :: $type:ident,)*) => {
        /// A declared resource, of one of the kinds.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub enum Declared {
            $(
                #[doc = concat!("A `", $name, "`.")]
                $type($module::$type),
            )*
        }

        /// All kinds, in the order of the book.
        pub static SPECS: &[&Spec] = &[$(&$module::SPEC,)*];

        impl Declared {
            /// Makes a resource from arguments that were checked against the kind's [`Spec`].
            pub fn new(
                kind: &str,
                arguments: serde_json::Map<String, serde_json::Value>,
            ) -> Result<Self, serde_json::Error> {
                let arguments = serde_json::Value::Object(arguments);
                match kind {
                    $($name => serde_json::from_value(arguments).map(Self::$type),)*
                    _ => Err(serde::de::Error::custom(format!("no kind is called {kind}"))),
                }
            }

            /// The kind's behaviour.
            pub fn kind(&self) -> &dyn Kind {
                match self {
                    $(Self::$type(kind) => kind,)*
                }
            }

            /// Hands over the declared paths of the play if the kind removes what is not
            /// declared.
            pub fn spare(&mut self, declared: impl FnOnce() -> Vec<RemotePath>) {
                let kind: &mut dyn Kind = match self {
                    $(Self::$type(kind) => kind,)*
                };
                if kind.cleans_up() {
                    kind.spare(declared());
                }
            }

            /// The kind's name and arguments.
            pub fn spec(&self) -> &'static Spec {
                match self {
                    $(Self::$type(_) => &$module::SPEC,)*
                }
            }
        }
    };
}

kinds! {
    "package" => package::Package,
    "repository" => repository::Repository,
    "file" => file::File,
    "directory" => directory::Directory,
    "symlink" => symlink::Symlink,
    "tree" => tree::Tree,
    "line_in_file" => line_in_file::LineInFile,
    "block_in_file" => block_in_file::BlockInFile,
    "environment_file" => environment_file::EnvironmentFile,
    "user" => user::User,
    "group" => group::Group,
    "authorized_key" => authorized_key::AuthorizedKey,
    "service" => service::Service,
    "unit" => unit::Unit,
    "command" => command::Command,
    "wait_for" => wait_for::WaitFor,
}

impl Declared {
    /// Plans resources with equal [`Kind::transaction`] keys together, each in its own planning.
    ///
    /// Errors stand at the positions of the resources that they are about.
    pub fn plan_together(
        declared: &[&Declared],
        plannings: &mut [Planning<'_>],
    ) -> Result<(), Vec<Option<PlanError>>> {
        let packages: Vec<&package::Package> = declared
            .iter()
            .filter_map(|declared| match declared {
                Declared::Package(package) => Some(package),
                _ => None,
            })
            .collect();
        if packages.len() == declared.len() {
            return package::plan_transaction(&packages, plannings);
        }
        let errors: Vec<Option<PlanError>> = declared
            .iter()
            .zip(plannings)
            .map(|(declared, planning)| declared.kind().plan(planning).err())
            .collect();
        if errors.iter().all(Option::is_none) { Ok(()) } else { Err(errors) }
    }
}

/// The kind of that name.
pub fn spec(name: &str) -> Option<&'static Spec> {
    SPECS.iter().copied().find(|spec| spec.name == name)
}
