use crate::change::Mask;
use crate::diagnostic::Span;
use crate::kind::{Declared, Footprint, Spec};
use crate::resource::ResourceId;
use crate::world::RemotePath;

/// A state as it holds for one host: templates evaluated, arguments checked.
#[derive(Clone, Debug)]
pub struct Declaration {
    /// Its identity within the play.
    pub id: ResourceId,
    /// The kind.
    pub spec: &'static Spec,
    /// The key as declared, for example a path.
    pub key: String,
    /// What is declared; none while facts are not known that its arguments need.
    pub declared: Option<Declared>,
    /// What it touches as far as that is known while `declared` is not.
    pub touches: Option<Footprint>,
    /// `name:`, for people.
    pub label: Option<String>,
    /// `id:`, another name to refer to it by.
    pub alias: Option<String>,
    /// Why it is left out on this host (`when`, tags), if it is.
    pub skipped: Option<Skipped>,
    /// The whole state in the source.
    pub span: Span,
    /// The key's value in the source.
    pub key_span: Span,
    /// The common keys.
    pub common: Common,
    /// The states of composite kinds that it is inside of, outermost first.
    pub used: Vec<Used>,
}

/// A state of a composite kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// As references name it: `kind:key`.
    pub name: String,
    /// Its `id`.
    pub alias: Option<String>,
    /// Where.
    pub span: Span,
}

impl Declaration {
    /// Whether it is known that it does nothing on this host.
    pub fn is_left_out(&self) -> bool {
        matches!(self.skipped, Some(Skipped::When(_) | Skipped::Tags))
    }

    /// What it reads and writes, as far as that is known.
    pub fn footprint(&self) -> Option<Footprint> {
        match &self.declared {
            Some(declared) => Some(declared.kind().footprint()),
            None => self.touches.clone(),
        }
    }
}

/// Why a state is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// Its `when` (as written) is false.
    When(String),
    /// Tags select others.
    Tags,
    /// `when` needs facts that are not known yet; only in the check before any connection.
    Undecided,
    /// It needs a secret that has no key here; only where nobody has reviewed the project.
    Locked,
}

/// How long a fresh login may take, in milliseconds, where nothing else is declared.
pub const CONFIRM_CONNECTION: u64 = 60_000;

/// The keys that every kind has.
#[derive(Clone, Debug, Default)]
pub struct Common {
    /// After those, and only if they succeeded.
    pub require: Vec<Reference>,
    /// Acts only if one of those changed.
    pub onchanges: Vec<Reference>,
    /// Acts only if one of those failed.
    pub onfail: Vec<Reference>,
    /// A service reloads when one of those changed.
    pub watch: Vec<Reference>,
    /// A service restarts when one of those changed.
    pub restart_on: Vec<Reference>,
    /// Shell lines: if one succeeds there is nothing to do.
    pub unless: Vec<String>,
    /// Shell lines: only if all succeed there is something to do.
    pub onlyif: Vec<String>,
    /// Whether it becomes another user, and which; none: the login user.
    pub become_user: Option<String>,
    /// Added to the environment of whatever runs; later entries win.
    pub environment: Vec<(String, String)>,
    /// A file on the host whose variables are added to the environment.
    pub environment_file: Option<RemotePath>,
    /// Attempts after a failure.
    pub retry: Option<Retry>,
    /// Bound of each attempt, in milliseconds.
    pub timeout: Option<u64>,
    /// A failure is reported and nothing more.
    pub ignore_errors: bool,
    /// Labels, the play's and include's ones too, sorted.
    pub tags: Vec<String>,
    /// Whether contents are hidden; none: hidden if not everybody may read the file.
    pub sensitive: Option<bool>,
    /// What of its arguments is secret.
    pub mask: Mask,
    /// What happens when it is no longer declared; none: what its play says.
    pub prune: Option<Prune>,
    /// It is known that a rollback leaves it as it is.
    pub irreversible: bool,
    /// Taken back unless a fresh login works within so many milliseconds after it; 0: never. None:
    /// where the change can lock the operator out.
    pub confirm_connection: Option<u64>,
}

impl Common {
    /// Adds what holds for everything around a state. What the state says itself goes before it.
    pub(super) fn apply(&mut self, outer: &Self) {
        let lists = [
            (&mut self.require, &outer.require),
            (&mut self.onchanges, &outer.onchanges),
            (&mut self.onfail, &outer.onfail),
            (&mut self.watch, &outer.watch),
            (&mut self.restart_on, &outer.restart_on),
        ];
        for (own, outer) in lists {
            own.extend(outer.iter().cloned());
        }
        self.unless.extend(outer.unless.iter().cloned());
        self.onlyif.extend(outer.onlyif.iter().cloned());
        self.environment_file = self.environment_file.take().or(outer.environment_file.clone());
        self.retry = self.retry.or(outer.retry);
        self.timeout = self.timeout.or(outer.timeout);
        self.ignore_errors |= outer.ignore_errors;
        self.sensitive = self.sensitive.or(outer.sensitive);
        self.prune = self.prune.or(outer.prune);
        self.irreversible |= outer.irreversible;
        self.confirm_connection = self.confirm_connection.or(outer.confirm_connection);
    }
}

/// What happens to a resource that an earlier run created when it is no longer declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prune {
    /// It stays (`false`).
    Keep,
    /// It goes, even if it holds data (`force`).
    Force,
}

/// How often a failing resource is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Retry {
    /// Further attempts.
    pub times: u32,
    /// Pause before each, in milliseconds.
    pub delay: u64,
}

/// A reference to other resources, with its place: `kind:key` (globs allowed) or an `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// As written, after templates.
    pub text: String,
    /// Where.
    pub span: Span,
}
