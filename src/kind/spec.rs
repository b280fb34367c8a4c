/// What a kind is called and takes; documentation, schema and the checks of input come from it.
#[derive(Debug)]
pub struct Spec {
    /// The key that makes a state one of this kind.
    pub name: &'static str,
    /// One sentence: what it makes so.
    pub summary: &'static str,
    /// What stands as the key's value.
    pub key: Key,
    /// All arguments of its own; common keys are not listed.
    pub arguments: &'static [Argument],
    /// Groups of arguments of which at most one may stand.
    pub exclusive: &'static [&'static [&'static str]],
    /// A state that works as it stands, in YAML.
    pub example: &'static str,
}

/// What stands as the value of a kind's key.
#[derive(Debug)]
pub struct Key {
    /// The field of the kind's struct that takes it.
    pub name: &'static str,
    /// What it has to look like.
    pub shape: Shape,
    /// What it means.
    pub summary: &'static str,
    /// Arguments that are part of the identity, the first that is given counts.
    pub identity: &'static [&'static str],
}

/// An argument of a kind.
#[derive(Debug)]
pub struct Argument {
    /// As users write it.
    pub name: &'static str,
    /// What it has to look like.
    pub shape: Shape,
    /// What it means; the default in words where there is one.
    pub summary: &'static str,
    /// Whether it has to be given.
    pub required: bool,
}

impl Argument {
    /// An argument that may be left out.
    pub const fn optional(name: &'static str, shape: Shape, summary: &'static str) -> Self {
        Self { name, shape, summary, required: false }
    }

    /// An argument that has to be given.
    pub const fn required(name: &'static str, shape: Shape, summary: &'static str) -> Self {
        Self { name, shape, summary, required: true }
    }
}

/// What a value has to look like, and the JSON that the kind's struct is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A string; numbers are taken as they were written.
    Text,
    /// An absolute path on the host; a string.
    Path,
    /// The name of a user, group, package, unit, …: a string without blanks, `/` or control
    /// characters.
    Name,
    /// A user or group: a name or a number, given as a string.
    Principal,
    /// File permissions, always octal; a number.
    Mode,
    /// A boolean.
    Boolean,
    /// An integer.
    Integer,
    /// A duration (`60s`, `10m`, `1h`, `14d`, bare numbers are seconds); milliseconds.
    Duration,
    /// One of these words; a string.
    Choice(&'static [&'static str]),
    /// A list of what is named; one value alone stands for a list of it.
    List(&'static Shape),
    /// A mapping of strings to what is named; order is kept.
    Mapping(&'static Shape),
    /// The content of a file, as text. Arrives in the field `content` as a `ContentId`.
    Content,
    /// A template's name. It is rendered and arrives in the field `content` as a `ContentId`.
    Template,
    /// A local file's name, or an `http(s)` address beside `checksum`. Arrives in the field
    /// `content` as a `ContentId`.
    LocalFile,
    /// A local folder's name. Arrives in the field `entries` as a list of `TreeEntry`.
    LocalFolder,
    /// Any value, as JSON.
    Any,
}
