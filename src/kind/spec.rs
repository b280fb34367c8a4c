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
    /// What it means; what holds without it, where that is no value that could be given.
    pub summary: &'static str,
    /// Whether it has to be given.
    pub required: bool,
    /// The value that leaving it out stands for, as users would write it. That of a
    /// [`Shape::Choice`] is its first word.
    default: Option<&'static str>,
    /// Whether a secret may stand in it: it is nowhere shown, or only masked. Contents may always be.
    pub secret: bool,
}

impl Argument {
    /// An argument that may be left out.
    pub const fn optional(name: &'static str, shape: Shape, summary: &'static str) -> Self {
        Self { name, shape, summary, required: false, default: None, secret: false }
    }

    /// An argument that has to be given.
    pub const fn required(name: &'static str, shape: Shape, summary: &'static str) -> Self {
        Self { name, shape, summary, required: true, default: None, secret: false }
    }

    /// The same, in which secrets may stand.
    #[must_use]
    pub const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// The same argument, where leaving it out stands for a value.
    pub const fn with_default(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    /// The value that leaving it out stands for, as users would write it.
    pub fn default(&self) -> Option<&'static str> {
        match self.shape {
            Shape::Choice(words) if !self.required => words.first().copied(),
            _ => self.default,
        }
    }

    /// What a value looks like, in words, with the default and whether it is required.
    pub fn describe(&self) -> String {
        let shape = self.shape.describe();
        match (self.required, self.default()) {
            (true, _) => format!("{shape}, required"),
            (false, Some(default)) => format!("{shape}; default `{default}`"),
            (false, None) => shape,
        }
    }
}

impl Spec {
    /// Sentences that say which arguments exclude each other.
    pub fn exclusions(&self) -> Vec<String> {
        let quoted = |names: &[&str]| -> Vec<String> {
            names.iter().map(|name| format!("`{name}`")).collect()
        };
        let sentences = self.exclusive.iter().filter_map(|names| {
            let (last, rest) =
                quoted(names).split_last().map(|(last, rest)| (last.clone(), rest.join(", ")))?;
            Some(format!("At most one of {rest} and {last} may stand."))
        });
        sentences.collect()
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
    /// One of these words, of which the first is the default; a string.
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

impl Shape {
    /// What a value looks like, in words.
    pub fn describe(&self) -> String {
        match self {
            Self::Text => "string".into(),
            Self::Path => "absolute path".into(),
            Self::Name => "name".into(),
            Self::Principal => "name or number".into(),
            Self::Mode => "permissions".into(),
            Self::Boolean => "boolean".into(),
            Self::Integer => "integer".into(),
            Self::Duration => "duration".into(),
            Self::Choice(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
                words.join(", ")
            }
            Self::List(inner) => match inner {
                Self::Text => "list of strings".into(),
                Self::Name => "list of names".into(),
                Self::Path => "list of absolute paths".into(),
                Self::Integer => "list of integers".into(),
                other => format!("list of {}", other.describe()),
            },
            Self::Mapping(inner) => match inner {
                Self::Text => "mapping of names to strings".into(),
                Self::List(_) => "mapping of names to lists".into(),
                other => format!("mapping of names to {}", other.describe()),
            },
            Self::Content => "text".into(),
            Self::Template => "template".into(),
            Self::LocalFile => "local file".into(),
            Self::LocalFolder => "local directory".into(),
            Self::Any => "any".into(),
        }
    }
}
