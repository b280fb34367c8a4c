//! The kinds of things that a state file can declare: arguments, footprint, plan.
//!
//! A kind does not act. It looks at the predicted world and lowers what is declared to changes.
//! The room knows `change` and `world`; it must never know the agent, the wire or the controller.
//! Whoever adds a kind writes one file here, names it in the list below, and writes its page.

mod file;
mod footprint;
mod planning;
mod spec;

use serde::{Deserialize, Serialize};

pub use footprint::{Claim, Footprint};
pub use planning::{Actor, Contents, Ownership, PlanError, Planned, Planning};
pub use spec::{Argument, Key, Shape, Spec};

/// What a kind does: it says what it touches, and it plans.
pub trait Kind {
    /// What it reads and writes, from its arguments alone.
    fn footprint(&self) -> Footprint;

    /// Adds the differences between the predicted world and what is declared.
    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError>;

    /// A command that checks a content before it goes live (`%s` is the candidate's path).
    fn validate(&self) -> Option<&str> {
        None
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
    "file" => file::File,
}

/// The kind of that name.
pub fn spec(name: &str) -> Option<&'static Spec> {
    SPECS.iter().copied().find(|spec| spec.name == name)
}
