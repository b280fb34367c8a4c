use crate::world::RemotePath;

/// What a resource reads and writes. Two resources whose footprints overlap, one of them writing,
/// keep the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// What its plan looks at.
    pub reads: Vec<Claim>,
    /// What it may change.
    pub writes: Vec<Claim>,
}

/// A part of the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// A path by itself. Reading a path also reads all folders above it.
    Path(RemotePath),
    /// A path and all below it.
    Subtree(RemotePath),
    /// A user.
    User(String),
    /// A group.
    Group(String),
    /// The packages of the host. Package states do not conflict with each other.
    Packages,
    /// A unit of the service manager, with its suffix.
    Unit(String),
    /// Everything: nothing before it may come after it, and the other way round.
    World,
}

impl Claim {
    /// Whether a path belongs to it.
    pub fn covers(&self, path: &RemotePath) -> bool {
        match self {
            Claim::Path(own) => own == path,
            Claim::Subtree(folder) => path.is_within(folder),
            Claim::World => true,
            Claim::User(_) | Claim::Group(_) | Claim::Packages | Claim::Unit(_) => false,
        }
    }
}

impl Footprint {
    /// Adds something that is read.
    #[must_use]
    pub fn reading(mut self, claim: Claim) -> Self {
        self.reads.push(claim);
        self
    }

    /// Adds something that is written.
    #[must_use]
    pub fn writing(mut self, claim: Claim) -> Self {
        self.writes.push(claim);
        self
    }

    /// Adds the users and groups that a declared owner and group name.
    #[must_use]
    pub fn owned_by(mut self, owner: Option<&str>, group: Option<&str>) -> Self {
        self.reads.extend(owner.map(|name| Claim::User(name.to_owned())));
        self.reads.extend(group.map(|name| Claim::Group(name.to_owned())));
        self
    }
}
