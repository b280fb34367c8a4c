//! What `converge doc` prints: kinds and keys, from what they say of themselves.

use std::fmt::Write;

use super::composite::{Composite, OwnKinds};
use super::keywords::{CHECK, COMMON, FACT, INCLUDE, INCLUDED_FILE, Keyword, PLAY, RETRY};
use super::state::LATER_KINDS;
use super::yaml::Node;
use crate::diagnostic::nearest;
use crate::kind::{self, SPECS, Spec};

/// The topic of the keys of plays.
const PLAYS: &str = "play";
/// The topic of the keys of all states.
const STATES: &str = "common";
/// No line is longer, however wide the terminal is.
const WIDEST: usize = 100;

/// Why there is nothing to be said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchTopic {
    /// The kind is one of the language.
    #[error("kind `{0}` is not supported by this version")]
    Later(String),
    /// Nothing is called that.
    #[error("there is no kind `{topic}`; {}", match .near {
        Some(near) => format!("did you mean `{near}`?"),
        None => String::from("`converge doc` lists them"),
    })]
    Unknown {
        /// What was asked for.
        topic: String,
        /// What was probably meant.
        near: Option<String>,
    },
}

/// A kind with its arguments, the keys of plays (`play`) or of all states (`common`); all kinds if
/// nothing is asked for, `own` ones of the project too. Lines are not broken without a width.
pub fn manual(
    topic: Option<&str>,
    own: &OwnKinds,
    width: Option<usize>,
) -> Result<String, NoSuchTopic> {
    let composite = |name: &str| own.0.iter().find(|composite| composite.name == name);
    let mut page = Page { text: String::new(), width: width.map(|width| width.min(WIDEST)) };
    match topic {
        None => page.kinds(own),
        Some(PLAYS) => page.plays(),
        Some(STATES) => page.states(),
        Some(name) => match (kind::spec(name), composite(name)) {
            (Some(spec), _) => page.kind(spec),
            (_, Some(composite)) => page.composite(composite),
            _ if LATER_KINDS.contains(&name) => return Err(NoSuchTopic::Later(name.to_owned())),
            _ => {
                let own = own.0.iter().map(|composite| composite.name.as_str());
                let topics = SPECS.iter().map(|spec| spec.name).chain([PLAYS, STATES]);
                let near = nearest(name, own.chain(topics.map(|topic| topic as &str)));
                let near = near.map(str::to_owned);
                return Err(NoSuchTopic::Unknown { topic: name.to_owned(), near });
            }
        },
    }
    Ok(page.text)
}

/// A text that grows paragraph by paragraph.
struct Page {
    text: String,
    width: Option<usize>,
}

impl Page {
    fn kinds(&mut self, own: &OwnKinds) {
        let kinds = SPECS.iter().map(|spec| (spec.name, spec.summary)).collect();
        self.list("The kinds of states:", kinds);
        if !own.0.is_empty() {
            let own = own.0.iter();
            let own = own.map(|composite| (composite.name.as_str(), composite.summary.as_str()));
            self.list("Kinds of this project:", own.collect());
        }
        self.paragraph(
            0,
            "`converge doc KIND` explains one of them, `converge doc play` the keys of a play, \
             `converge doc common` those that every state may have.",
        );
    }

    fn list(&mut self, heading: &str, entries: Vec<(&str, &str)>) {
        self.paragraph(0, heading);
        self.gap();
        let longest = entries.iter().map(|(name, _)| name.chars().count()).max();
        let longest = longest.unwrap_or_default();
        for (name, summary) in entries {
            self.hanging(&format!("  {name:longest$}  "), summary);
        }
        self.gap();
    }

    fn composite(&mut self, composite: &Composite) {
        let summary = composite.summary.trim_end_matches('.');
        let summary = if summary.is_empty() { "a kind of this project" } else { summary };
        self.paragraph(0, &format!("{}: {summary}.", composite.name));
        self.gap();
        for parameter in &composite.parameters {
            let mut value = match parameter.choices.as_slice() {
                [] => parameter.shape.describe(),
                choices => quoted(choices.iter().map(String::as_str), ", "),
            };
            if parameter.required && !parameter.key {
                value.push_str(", required");
            }
            if let Some(default) = parameter.default.as_ref().and_then(Node::as_text) {
                value.push_str(&format!("; default `{default}`"));
            }
            if parameter.key {
                value.push_str(", or a list; the key");
                self.entry(&composite.name, &value, &parameter.summary);
            } else {
                self.entry(&parameter.name, &value, &parameter.summary);
            }
        }
        self.gap();
        self.paragraph(
            0,
            "Common keys (`converge doc common`) apply to all the states that it stands for.",
        );
    }

    fn kind(&mut self, spec: &Spec) {
        self.paragraph(0, &format!("{}: {}.", spec.name, spec.summary));
        self.gap();
        let key = spec.key.shape.describe();
        self.entry(spec.name, &format!("{key}, or a list; the key"), spec.key.summary);
        for argument in spec.arguments {
            self.entry(argument.name, &argument.describe(), argument.summary);
        }
        self.gap();
        let mut more = spec.exclusions();
        if !spec.key.identity.is_empty() {
            more.push(format!(
                "The identity of a state is its key together with {}.",
                quoted(spec.key.identity.iter().copied(), " or ")
            ));
        }
        for sentence in &more {
            self.paragraph(0, sentence);
        }
        if !more.is_empty() {
            self.gap();
        }
        let own = |name: &str| name == spec.name || has_argument(spec, name);
        let common = COMMON
            .iter()
            .filter(|key| key.kind.is_none_or(|kind| kind == spec.name) && !own(key.name));
        let common = quoted(common.map(|key| key.name), ", ");
        self.paragraph(0, &format!("Common keys (`converge doc common`): {common}."));
        self.example(spec.example);
    }

    fn plays(&mut self) {
        self.paragraph(
            0,
            "A state file is a play, a list of plays, or a file that plays include. A play has \
             these keys:",
        );
        self.keys(PLAY);
        self.paragraph(0, "A check of `health` has one of `http`, `tcp` and `command`, and:");
        self.keys(CHECK);
        self.paragraph(0, "A fact of the project's own has:");
        self.keys(FACT);
        self.paragraph(0, "An include that is a mapping has these:");
        self.keys(INCLUDE);
        self.paragraph(0, "A file that is included has these:");
        self.keys(INCLUDED_FILE);
        self.heading_of_example();
        self.indented(
            "hosts: web\nbecome: true\nvars: { app: shop }\nstates:\n  - package: nginx\n  \
             - directory: \"/srv/{{ app }}\"\nhealth: { tcp: 80 }\n",
        );
    }

    fn states(&mut self) {
        self.paragraph(0, "States of every kind may have these keys:");
        self.keys(COMMON);
        self.paragraph(0, "`retry` has these:");
        self.keys(RETRY);
        self.heading_of_example();
        self.indented(
            "- package: nginx\n  id: web server\n  retry: { times: 3, delay: 10s }\n\
             - service: nginx\n  require: web server\n  when: facts.init == 'systemd'\n",
        );
    }

    /// Keys of the language, between gaps.
    fn keys(&mut self, keys: &[Keyword]) {
        self.gap();
        for key in keys {
            let only = key.kind.map_or_else(String::new, |kind| format!("; for `{kind}` only"));
            self.entry(key.name, &format!("{}{only}", key.form.describe()), key.summary);
        }
        self.gap();
    }

    /// A key with what its value looks like, and below it what it means.
    fn entry(&mut self, name: &str, value: &str, summary: &str) {
        self.hanging(&format!("  {name}: "), value);
        if !summary.is_empty() {
            self.paragraph(6, summary);
        }
    }

    fn example(&mut self, yaml: &str) {
        self.gap();
        self.heading_of_example();
        self.indented(yaml);
    }

    fn heading_of_example(&mut self) {
        self.paragraph(0, "Example:");
        self.gap();
    }

    /// Lines that are not broken.
    fn indented(&mut self, lines: &str) {
        for line in lines.lines() {
            // A string takes whatever is written to it.
            let _ = writeln!(self.text, "  {line}");
        }
    }

    fn gap(&mut self) {
        self.text.push('\n');
    }

    fn paragraph(&mut self, indent: usize, text: &str) {
        self.fill(&" ".repeat(indent), indent, text);
    }

    /// Text beside its heading.
    fn hanging(&mut self, heading: &str, text: &str) {
        self.fill(heading, heading.chars().count(), text);
    }

    /// Words after what the line begins with; further lines are indented.
    fn fill(&mut self, begin: &str, indent: usize, text: &str) {
        let mut line = begin.to_owned();
        let mut empty = true;
        for word in text.split(' ') {
            let length = line.chars().count() + usize::from(!empty) + word.chars().count();
            if !empty && self.width.is_some_and(|width| length > width) {
                self.text.push_str(&line);
                self.text.push('\n');
                line = " ".repeat(indent);
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
            empty = false;
        }
        self.text.push_str(&line);
        self.text.push('\n');
    }
}

fn has_argument(spec: &Spec, name: &str) -> bool {
    spec.arguments.iter().any(|argument| argument.name == name)
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>, between: &str) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::{Diagnostics, Sources};

    #[test]
    fn a_kind_is_explained() {
        let expected = "\
group: A group.

  group: name, or a list; the key
      The group's name
  gid: integer
      Its number; a new group gets the next free one
  system: boolean; default `false`
      Whether a new group's number comes from the system range
  state: `present`, `absent`; default `present`
      Whether it is to be there: `present` or `absent`

Common keys (`converge doc common`): `name`, `id`, `when`, `loop`,
`loop_var`, `require`, `onchanges`, `onfail`, `unless`, `onlyif`,
`become`, `become_user`, `environment`, `environment_file`, `retry`,
`timeout`, `ignore_errors`, `tags`, `sensitive`, `prune`,
`irreversible`, `confirm_connection`.

Example:

  - group: deploy
    gid: 2000
";
        assert_eq!(manual(Some("group"), &OwnKinds::default(), Some(72)).unwrap(), expected);
    }

    #[test]
    fn lines_fit_the_terminal_and_are_whole_without_one() {
        let topics = SPECS.iter().map(|spec| Some(spec.name));
        for topic in topics.chain([None, Some(PLAYS), Some(STATES)]) {
            let narrow = manual(topic, &OwnKinds::default(), Some(60)).unwrap();
            let prose = narrow.split("Example:").next().unwrap_or_default();
            let long = prose.lines().find(|line| line.chars().count() > 60);
            assert_eq!(long, None, "{topic:?}");
            let whole = manual(topic, &OwnKinds::default(), None).unwrap();
            assert!(whole.lines().count() < narrow.lines().count(), "{topic:?}");
            assert!(whole.split_whitespace().eq(narrow.split_whitespace()), "{topic:?}");
        }
    }

    #[test]
    fn kinds_of_a_project_are_explained() {
        let folder = tempfile::tempdir().unwrap();
        let text = "kind: app\nsummary: A program under systemd\narguments:\n  name: { key: true }\n  \
                    port: { type: integer, default: 8000, summary: Where it listens }\n  \
                    level: { required: true, choices: [info, debug] }\nstates:\n  - service: \"{{ name }}\"\n";
        std::fs::write(folder.path().join("app.yml"), text).unwrap();
        let mut diagnostics = Diagnostics::default();
        let own = OwnKinds::load(&Sources::default(), folder.path(), &mut diagnostics);
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
        let expected = "\
app: A program under systemd.

  app: string, or a list; the key
  port: integer; default `8000`
      Where it listens
  level: `info`, `debug`, required

Common keys (`converge doc common`) apply to all the states that it stands for.
";
        assert_eq!(manual(Some("app"), &own, None).unwrap(), expected);
        let list = manual(None, &own, None).unwrap();
        assert!(
            list.contains("\nKinds of this project:\n\n  app  A program under systemd\n"),
            "{list}"
        );
        let near = manual(Some("apq"), &own, None).unwrap_err().to_string();
        assert_eq!(near, "there is no kind `apq`; did you mean `app`?");
    }

    #[test]
    fn what_was_meant_is_said() {
        let message =
            |topic| manual(Some(topic), &OwnKinds::default(), None).unwrap_err().to_string();
        assert_eq!(message("fiel"), "there is no kind `fiel`; did you mean `file`?");
        assert_eq!(message("plya"), "there is no kind `plya`; did you mean `play`?");
        assert_eq!(message("release"), "kind `release` is not supported by this version");
        assert_eq!(message("xyzzyx"), "there is no kind `xyzzyx`; `converge doc` lists them");
    }
}
