use std::sync::Arc;

use super::arguments::has_template;
use super::files::StateFile;
use super::keywords::{COMMON, keyword, names};
use super::yaml::{Kind, Node};
use crate::diagnostic::{Diagnostic, Diagnostics, Place, Sources, Span, nearest};
use crate::kind::{self, Argument, Spec};

/// Common keys of the language that this version does not know.
pub(super) const LATER_COMMON: &[&str] = &["stop_before", "run_once"];

/// Kinds of the language that this version does not know.
pub(super) const LATER_KINDS: &[&str] = &[
    "activate",
    "announce",
    "archive",
    "certificate",
    "cron",
    "firewall",
    "git",
    "git_tag",
    "hostname",
    "ini",
    "kernel_module",
    "locale",
    "migration",
    "mount",
    "postgres_database",
    "postgres_extension",
    "postgres_grant",
    "postgres_role",
    "program",
    "reboot",
    "release",
    "slot",
    "static",
    "swap",
    "sysctl",
    "timezone",
    "virtualenv",
];

/// Words of other tools, and what stands for them here.
const FOREIGN: &[(&str, &str)] = &[
    ("async", "`timeout` bounds how long a state may take"),
    ("become_method", "root is reached by sudo"),
    ("changed_when", "a `command` is bounded by `creates`, `unless`, `onlyif` or `read_only`"),
    ("delay", "did you mean `retry: {times: …, delay: …}`?"),
    ("delegate_to", "give the other host a play of its own"),
    ("dest", "the path is the key itself, for example `file: /etc/motd`"),
    ("failed_when", "a `command` takes `ok_codes`"),
    ("no_log", "did you mean `sensitive: true`?"),
    ("notify", "the service says it: `watch` reloads, `restart_on` restarts"),
    ("register", "there is no `register`: guards look at the host themselves"),
    ("retries", "did you mean `retry: {times: …, delay: …}`?"),
    ("src", "did you mean `source` or `template`?"),
    ("until", "did you mean `wait_for`, or `retry` on the state itself?"),
    ("with_items", "did you mean `loop`?"),
];

/// Ansible's modules, and what does the same here.
const FOREIGN_KINDS: &[(&str, &str)] = &[
    ("apt", "did you mean `package`?"),
    ("apt_repository", "did you mean `repository`?"),
    ("blockinfile", "did you mean `block_in_file`?"),
    ("copy", "did you mean `file` with `source` or `content`, or `tree` for a folder?"),
    ("cron", "cron jobs are not supported by this version"),
    ("debug", "there is no `debug`: `converge plan -v` shows what every state comes to"),
    ("import_tasks", "did you mean `include`?"),
    ("include_role", "did you mean `include`?"),
    ("include_tasks", "did you mean `include`?"),
    ("lineinfile", "did you mean `line_in_file`?"),
    ("raw", "did you mean `command`?"),
    ("script", "did you mean `command`?"),
    ("shell", "did you mean `command`? It takes a shell line"),
    ("synchronize", "did you mean `tree`?"),
    ("systemd", "did you mean `service`, or `unit` for its file?"),
    ("systemd_service", "did you mean `service`, or `unit` for its file?"),
    ("template", "did you mean `file` with `template`?"),
];

/// A state as it stands in a file: its kind is known, its values are not evaluated.
#[derive(Clone, Debug)]
pub struct State {
    /// The kind.
    pub spec: &'static Spec,
    /// The value of the kind's key.
    pub key: Node,
    /// Arguments of the kind, in the order of the source.
    pub(super) arguments: Vec<Given>,
    /// Common keys.
    pub(super) common: CommonKeys,
    /// The whole state.
    pub span: Span,
    /// The name of the kind.
    pub kind_span: Span,
    /// Where it begins, for people.
    pub(super) place: Place,
    /// Where it stands among the files that include each other.
    pub(super) file: Arc<StateFile>,
}

/// An argument that is given.
#[derive(Clone, Debug)]
pub(super) struct Given {
    /// Which.
    pub argument: &'static Argument,
    /// The place of its name.
    pub name: Span,
    /// The value.
    pub value: Node,
}

/// The common keys that are given.
#[derive(Clone, Debug, Default)]
pub(super) struct CommonKeys(Vec<(&'static str, Node)>);

impl CommonKeys {
    /// Adds one that is given.
    pub fn add(&mut self, name: &'static str, value: Node) {
        self.0.push((name, value));
    }

    /// The value of a common key.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.0.iter().find(|(given, _)| *given == name).map(|(_, node)| node)
    }

    /// All of them.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, &Node)> {
        self.0.iter().map(|(name, node)| (*name, node))
    }
}

/// The name of a kind that a state was meant to be of, when it could not be read.
pub(super) struct Broken(pub String);

impl State {
    /// Reads a state's keys. What is wrong is said; none only if its kind cannot be told.
    /// `composites` are the kinds that could have been meant besides.
    pub(super) fn read(
        node: &Node,
        file: &Arc<StateFile>,
        composites: &[&str],
        sources: &Sources,
        diagnostics: &mut Diagnostics,
    ) -> Result<Self, Broken> {
        let Some(entries) = node.entries() else {
            let message = format!("a state is a mapping, not {}", node.describe());
            let example = "for example `- package: nginx`";
            diagnostics.push(Diagnostic::error("wrong-type", message).at(node.span, example));
            return Err(Broken(String::new()));
        };
        let known = entries.iter().find_map(|(key, value)| {
            let name = key.as_text()?;
            if let Some(spec) = kind::spec(name) {
                return Some((key, value, Some(spec)));
            }
            LATER_KINDS.contains(&name).then_some((key, value, None))
        });
        let (kind_key, key, spec) = match known {
            Some((kind_key, key, Some(spec))) => (kind_key, key, spec),
            Some((kind_key, _, None)) => {
                let name = kind_key.as_text().unwrap_or_default();
                let message = format!("kind `{name}` is not supported by this version");
                diagnostics.push(Diagnostic::error("unsupported", message).at(kind_key.span, ""));
                return Err(Broken(name.to_owned()));
            }
            None => return Err(no_kind(node, entries, composites, diagnostics)),
        };
        let mut state = Self {
            spec,
            key: key.clone(),
            arguments: Vec::new(),
            common: CommonKeys::default(),
            span: node.span,
            kind_span: kind_key.span,
            place: sources.place(node.span),
            file: file.clone(),
        };
        for (name_node, value) in entries {
            if name_node.span == kind_key.span {
                continue;
            }
            let name = name_node.as_text().unwrap_or_default();
            if let Some(argument) = spec.arguments.iter().find(|argument| argument.name == name) {
                let given = Given { argument, name: name_node.span, value: value.clone() };
                state.arguments.push(given);
            } else if let Some(common) = keyword(COMMON, name) {
                state.common.add(common.name, value.clone());
            } else {
                diagnostics.push(unknown_argument(name, name_node.span, spec));
            }
        }
        for argument in spec.arguments.iter().filter(|argument| argument.required) {
            if !state.arguments.iter().any(|given| given.argument.name == argument.name) {
                diagnostics.push(state.missing(argument));
            }
        }
        let literal = state.arguments.iter().filter(|given| !has_template(&given.value));
        let literal: Vec<_> = literal.map(|given| given.argument.name).collect();
        state.check_exclusive(|name| literal.contains(&name), diagnostics);
        Ok(state)
    }

    /// The value of the argument that a message names first.
    pub(super) fn named_in(&self, message: &str) -> Option<Span> {
        let places = self.arguments.iter().filter_map(|given| {
            let at = message.find(&format!("`{}`", given.argument.name))?;
            Some((at, given.value.span))
        });
        places.min_by_key(|(at, _)| *at).map(|(_, span)| span)
    }

    /// That a required argument is missing.
    pub(super) fn missing(&self, argument: &Argument) -> Diagnostic {
        let message = format!("kind `{}` needs `{}`", self.spec.name, argument.name);
        Diagnostic::error("missing-argument", message)
            .at(self.kind_span, "")
            .help(format!("`{}`: {}", argument.name, argument.summary))
    }

    /// Says which arguments exclude each other, of those that `given` confirms.
    pub(super) fn check_exclusive(
        &self,
        given: impl Fn(&str) -> bool,
        diagnostics: &mut Diagnostics,
    ) {
        for group in self.spec.exclusive {
            let standing: Vec<_> = self
                .arguments
                .iter()
                .filter(|one| group.contains(&one.argument.name) && given(one.argument.name))
                .collect();
            if let [first, second, ..] = standing[..] {
                let (one, other) = (first.argument.name, second.argument.name);
                let message = format!("`{one}` and `{other}` exclude each other");
                diagnostics.push(
                    Diagnostic::error("exclusive-arguments", message)
                        .at(second.name, "")
                        .at(first.name, "beside this"),
                );
            }
        }
    }
}

/// Whether a name is that of a kind of the language, and so cannot be a composite's.
pub(super) fn is_reserved(name: &str) -> bool {
    kind::spec(name).is_some() || LATER_KINDS.contains(&name) || name == "include"
}

fn no_kind(
    node: &Node,
    entries: &[(Node, Node)],
    composites: &[&str],
    diagnostics: &mut Diagnostics,
) -> Broken {
    let kinds = || kind::SPECS.iter().map(|spec| spec.name).chain(composites.iter().copied());
    let own = |key: &&Node| {
        key.as_text()
            .is_some_and(|name| keyword(COMMON, name).is_none() && !LATER_COMMON.contains(&name))
    };
    let keys = || entries.iter().map(|(key, _)| key).filter(own);
    // Later keys may be arguments that share a module's name.
    let foreign = keys().next().and_then(|key| {
        let name = key.as_text()?;
        let short = name.strip_prefix("ansible.builtin.").unwrap_or(name);
        let (_, instead) = FOREIGN_KINDS.iter().find(|(foreign, _)| *foreign == short)?;
        Some((key, name, *instead))
    });
    if let Some((key, name, instead)) = foreign {
        let message = format!("unknown kind `{name}`");
        diagnostics.push(Diagnostic::error("unknown-kind", message).at(key.span, instead));
        return Broken(String::new());
    }
    let near = keys().find_map(|key| Some((key, nearest(key.as_text()?, kinds())?)));
    if let Some((key, near)) = near {
        let message = format!("unknown kind `{}`", key.as_text().unwrap_or_default());
        let label = format!("did you mean `{near}`?");
        diagnostics.push(Diagnostic::error("unknown-kind", message).at(key.span, label));
        return Broken(near.to_owned());
    }
    let diagnostic = match keys().next() {
        Some(key) => {
            let name = key.as_text().unwrap_or_default();
            Diagnostic::error("unknown-kind", format!("unknown kind `{name}`")).at(key.span, "")
        }
        None => {
            Diagnostic::error("unknown-kind", "a state without a kind").at(first_place(node), "")
        }
    };
    let kinds: Vec<&str> = kinds().collect();
    diagnostics.push(diagnostic.help(format!("the kinds are {}", kinds.join(", "))));
    Broken(String::new())
}

/// The first key of a mapping, or the whole of any other node.
fn first_place(node: &Node) -> Span {
    match &node.kind {
        Kind::Mapping(entries) => entries.first().map_or(node.span, |(key, _)| key.span),
        _ => node.span,
    }
}

fn unknown_argument(name: &str, span: Span, spec: &'static Spec) -> Diagnostic {
    if LATER_COMMON.contains(&name) {
        let message = format!("`{name}` is not supported by this version");
        return Diagnostic::error("unsupported", message).at(span, "");
    }
    let message = format!("unknown argument `{name}` for kind `{}`", spec.name);
    let diagnostic = Diagnostic::error("unknown-argument", message);
    if kind::spec(name).is_some() {
        return diagnostic.at(span, "").help(format!(
            "this state is a `{}`, because that is its first key that names a kind; put `{name}` \
             first, or give it a state of its own",
            spec.name
        ));
    }
    if let Some((_, instead)) = FOREIGN.iter().find(|(foreign, _)| *foreign == name) {
        return diagnostic.at(span, *instead);
    }
    let own = spec.arguments.iter().map(|argument| argument.name);
    match nearest(name, own.clone().chain(names(COMMON))) {
        Some(near) => diagnostic.at(span, format!("did you mean `{near}`?")),
        None => {
            let own: Vec<_> = own.map(|argument| format!("`{argument}`")).collect();
            diagnostic.at(span, "").help(format!("`{}` takes {}", spec.name, own.join(", ")))
        }
    }
}
