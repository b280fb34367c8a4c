use super::composite::TYPES;
use crate::kind::Shape;

/// A key of the language itself: of states of every kind, of plays, of includes and so on.
///
/// What is checked, the schema and the documentation are made from the same lists.
#[derive(Debug)]
pub struct Keyword {
    /// As users write it.
    pub name: &'static str,
    /// What its value has to look like.
    pub form: Form,
    /// What it means; the default in words where there is one.
    pub summary: &'static str,
    /// The only kind whose states may have it, if not all may.
    pub kind: Option<&'static str>,
}

/// What the value of a [`Keyword`] has to look like.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// The same as for an argument of a kind.
    Value(Shape),
    /// The same, but no template: it is read before there are variables.
    Literal(Shape),
    /// An expression, or a list of them.
    Condition,
    /// A list, or an expression that gives one.
    Loop,
    /// The name of a variable.
    VariableName,
    /// Variables by name.
    Variables,
    /// A mapping that has these keys.
    Fields(&'static [Keyword]),
    /// A duration, or a boolean.
    DurationOrBoolean,
    /// `false`, or this word.
    FalseOr(&'static str),
    /// The name of a file that is included.
    Included,
    /// What is included: a name, a mapping with `file`, or a list of these.
    Includes,
    /// States, and includes among them.
    States,
    /// One check of health, or a list of them.
    Checks,
    /// Arguments of a composite kind by name.
    Arguments,
    /// A type of arguments.
    Type,
    /// Facts of the project's own by name.
    Facts,
}

const TEXT: Form = Form::Value(Shape::Text);
const BOOLEAN: Form = Form::Value(Shape::Boolean);
const DURATION: Form = Form::Value(Shape::Duration);
const TEXTS: Form = Form::Value(Shape::List(&Shape::Text));
const NAMES: Form = Form::Value(Shape::Mapping(&Shape::Text));

const fn key(name: &'static str, form: Form, summary: &'static str) -> Keyword {
    Keyword { name, form, summary, kind: None }
}

/// The keys that states of every kind may have.
pub static COMMON: &[Keyword] = &[
    key("name", TEXT, "A label for people"),
    key("id", TEXT, "Another name to refer to it by"),
    key("when", Form::Condition, "An expression, or a list of which all must hold; false skips it"),
    key("loop", Form::Loop, "It is there once for each item, which is `item`"),
    key("loop_var", Form::VariableName, "What the item of `loop` is called; `item`"),
    key(
        "require",
        TEXTS,
        "After those, and only if they succeeded: `kind:key`, with globs, or an `id`",
    ),
    key("onchanges", TEXTS, "Acts only if one of those changed"),
    key("onfail", TEXTS, "Acts only if one of those failed; the run has failed all the same"),
    Keyword {
        kind: Some("service"),
        ..key("watch", TEXTS, "The service reloads when one of those changed")
    },
    Keyword {
        kind: Some("service"),
        ..key("restart_on", TEXTS, "The service restarts when one of those changed")
    },
    key(
        "unless",
        TEXTS,
        "Shell lines for the host: nothing is done if one succeeds. They run in dry runs too",
    ),
    key(
        "onlyif",
        TEXTS,
        "Shell lines for the host: nothing is done if one fails. They run in dry runs too",
    ),
    key("become", BOOLEAN, "Whether to become another user on the host; as the play says"),
    key("become_user", Form::Value(Shape::Name), "Whom to become; as the play says, else root"),
    key("environment", NAMES, "Environment variables for whatever runs, added to the play's"),
    key(
        "environment_file",
        Form::Value(Shape::Path),
        "Environment variables from that file on the host, for whatever runs",
    ),
    key("retry", Form::Fields(RETRY), "Further attempts after a failure"),
    key("timeout", DURATION, "How long each attempt may take; a command has 1h"),
    key("ignore_errors", BOOLEAN, "Whether a failure is reported and the run goes on; `false`"),
    key("tags", TEXTS, "Labels for `--tags` and `--skip-tags`; `always` and `never` are special"),
    key(
        "sensitive",
        BOOLEAN,
        "`true` hides its content in diffs, `false` shows it although not everybody may read the file",
    ),
    key(
        "prune",
        Form::FalseOr("force"),
        "`false` keeps it when it leaves the file, `force` removes it then even if it holds data",
    ),
    key(
        "irreversible",
        BOOLEAN,
        "`true` says that it is known that a rollback does not take it back",
    ),
    key(
        "confirm_connection",
        Form::DurationOrBoolean,
        "It goes back by itself unless a fresh login works within this time; 60s for what decides \
         about logins",
    ),
];

/// The keys of `retry`.
pub(super) static RETRY: &[Keyword] = &[
    key("times", Form::Value(Shape::Integer), "How often it is tried again; required"),
    key("delay", DURATION, "The pause before each; 5s"),
];

/// The keys of a play.
pub static PLAY: &[Keyword] = &[
    key("name", TEXT, "A label for people; without it, the pattern of its hosts"),
    key("hosts", TEXTS, "Which hosts of the inventory: a pattern, or a list of them; required"),
    key(
        "connection",
        Form::Value(Shape::Choice(&["ssh", "local", "sandbox"])),
        "How its hosts are reached; as the inventory says",
    ),
    key("remote_user", Form::Value(Shape::Name), "Who logs in; as the inventory says"),
    key("become", BOOLEAN, "Whether its states become another user on the host"),
    key("become_user", Form::Value(Shape::Name), "Whom they become; root"),
    key("vars", Form::Variables, "Variables, which win over those of the inventory"),
    key("vars_files", TEXTS, "Files of variables, which win over `vars`"),
    key("defaults", Form::Variables, "Variables that are used where nothing else sets them"),
    key("facts", Form::Facts, "What the project wants to know of its hosts, by name"),
    key("include", Form::Includes, "Files whose states come before its own"),
    key("states", Form::States, "What holds on its hosts, in this order"),
    key("environment", NAMES, "Environment variables for whatever runs"),
    key("tags", TEXTS, "Labels for all its states"),
    key(
        "any_errors_fatal",
        Form::Literal(Shape::Boolean),
        "Whether later plays begin only if no host failed in this one; `true`",
    ),
    key(
        "prune",
        Form::Literal(Shape::Boolean),
        "`true` removes what earlier runs created and is no longer declared; it is only shown \
         otherwise",
    ),
    key("health", Form::Checks, "One check or a list, waited for once all states hold"),
    key(
        "on_failure",
        Form::Literal(Shape::Choice(&["stop", "rollback"])),
        "What happens on its hosts when it fails: nothing more, or what this run has changed in it \
         is taken back, which needs `health`",
    ),
];

/// The keys of a file that a play includes.
pub static INCLUDED_FILE: &[Keyword] = &[
    key("name", TEXT, "A label for people"),
    key("defaults", Form::Variables, "Variables that are used where nothing else sets them"),
    key("facts", Form::Facts, "What the project wants to know of its hosts, by name"),
    key("include", Form::Includes, "Files whose states come before its own"),
    key("states", Form::States, "The states that stand for this file where it is included"),
];

/// The keys of an include.
pub static INCLUDE: &[Keyword] = &[
    key("file", Form::Included, "The file, beside this one or beside the one that includes it"),
    key("name", TEXT, "A label for people"),
    key("vars", Form::Variables, "Variables for its states"),
    key("when", Form::Condition, "An expression, or a list of which all must hold; false skips it"),
    key("tags", TEXTS, "Labels for all its states"),
    key("loop", Form::Loop, "Its states are there once for each item"),
    key("loop_var", Form::VariableName, "What the item of `loop` is called; `item`"),
];

/// The keys of a check of `health`; one of the first three says what is looked at.
pub static CHECK: &[Keyword] = &[
    key("http", TEXT, "An `http://` address that answers with a status below 400"),
    key("tcp", TEXT, "A TCP port that accepts connections: `PORT` on 127.0.0.1, or `HOST:PORT`"),
    key("command", TEXT, "A shell line that succeeds on the host"),
    key(
        "status",
        Form::Value(Shape::List(&Shape::Integer)),
        "With `http`: the answer has one of these",
    ),
    key("body", TEXT, "With `http`: a regular expression that the body matches somewhere"),
    key("header", NAMES, "With `http`: headers, with a regular expression for the value of each"),
    key("within", DURATION, "How long it may take until it holds; 30s"),
    key("every", DURATION, "The pause between two looks; 1s"),
    key("successes", Form::Value(Shape::Integer), "So many looks in a row have to succeed; 1"),
    key("for", DURATION, "From then on it has to go on holding for so long; not at all"),
];

/// What is said of a fact of the project's own.
pub static FACT: &[Keyword] = &[
    key(
        "command",
        Form::Value(Shape::List(&Shape::Text)),
        "A shell line, or a program and its arguments as a list; it only reads; required",
    ),
    key("json", Form::Literal(Shape::Boolean), "Whether what it writes is JSON; text otherwise"),
    key("default", Form::Value(Shape::Any), "What the fact is if the command fails"),
    key("timeout", DURATION, "How long it may take; 30s"),
];

/// The keys of a file that defines a composite kind.
pub static KIND: &[Keyword] = &[
    key("kind", Form::Literal(Shape::Name), "The kind's name, which is that of the file"),
    key("summary", TEXT, "One sentence: what it makes so"),
    key("arguments", Form::Arguments, "Its arguments; one of them is the value of its key"),
    key("include", Form::Includes, "Files whose states come before its own"),
    key("states", Form::States, "What it stands for; its arguments are variables there"),
];

/// What is said of an argument of a composite kind.
pub static KIND_ARGUMENT: &[Keyword] = &[
    key("key", Form::Literal(Shape::Boolean), "Whether it is the value of the kind's key"),
    key("type", Form::Type, "What it has to look like; `string`"),
    key("required", Form::Literal(Shape::Boolean), "Whether it has to be given"),
    key(
        "default",
        Form::Value(Shape::Any),
        "What it is otherwise; may use the arguments before it",
    ),
    key("choices", TEXTS, "The only values that it may have"),
    key("summary", TEXT, "What it means"),
];

/// How many keys of [`CHECK`] say what is looked at: a check has exactly one of these.
pub(super) const CHECKED: usize = 3;

/// The key of that name.
pub(super) fn keyword(keys: &'static [Keyword], name: &str) -> Option<&'static Keyword> {
    keys.iter().find(|key| key.name == name)
}

/// The names of keys.
pub(super) fn names(keys: &'static [Keyword]) -> impl Iterator<Item = &'static str> + Clone {
    keys.iter().map(|key| key.name)
}

impl Form {
    /// What a value looks like, in words.
    pub fn describe(&self) -> String {
        match self {
            Self::Value(shape) => shape.describe(),
            Self::Literal(shape) => format!("{}; no template", shape.describe()),
            Self::Condition => "expression, or a list of them".into(),
            Self::Loop => "list, or an expression that gives one".into(),
            Self::VariableName => "name of a variable".into(),
            Self::Variables => "mapping of variables".into(),
            Self::Fields(keys) => {
                let names: Vec<String> = names(keys).map(|name| format!("`{name}`")).collect();
                format!("mapping of {}", names.join(", "))
            }
            Self::DurationOrBoolean => "duration, or a boolean".into(),
            Self::FalseOr(word) => format!("`false`, `{word}`"),
            Self::Included => "local file".into(),
            Self::Includes => "local file, mapping with `file`, or a list of them".into(),
            Self::States => "list of states".into(),
            Self::Checks => "mapping, or a list of them".into(),
            Self::Arguments | Self::Facts => "mapping of names to mappings".into(),
            Self::Type => {
                let words: Vec<String> =
                    TYPES.iter().map(|(word, _)| format!("`{word}`")).collect();
                words.join(", ")
            }
        }
    }
}
