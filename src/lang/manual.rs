//! What `converge doc` prints: kinds and keys, from what they say of themselves.

use std::fmt::Write;

use super::keywords::{CHECK, COMMON, FACT, INCLUDE, INCLUDED_FILE, Keyword, PLAY, RETRY};
use super::state::LATER_KINDS;
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
        near: Option<&'static str>,
    },
}

/// A kind with its arguments, the keys of plays (`play`) or of all states (`common`); all kinds if
/// nothing is asked for. Lines are not broken without a width.
pub fn manual(topic: Option<&str>, width: Option<usize>) -> Result<String, NoSuchTopic> {
    let mut page = Page { text: String::new(), width: width.map(|width| width.min(WIDEST)) };
    match topic {
        None => page.kinds(),
        Some(PLAYS) => page.plays(),
        Some(STATES) => page.states(),
        Some(name) => match kind::spec(name) {
            Some(spec) => page.kind(spec),
            None if LATER_KINDS.contains(&name) => return Err(NoSuchTopic::Later(name.to_owned())),
            None => {
                let topics = SPECS.iter().map(|spec| spec.name).chain([PLAYS, STATES]);
                let near = nearest(name, topics);
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
    fn kinds(&mut self) {
        self.paragraph(0, "The kinds of states:");
        self.gap();
        let longest = SPECS.iter().map(|spec| spec.name.len()).max().unwrap_or_default();
        for spec in SPECS {
            let name = format!("  {:longest$}  ", spec.name);
            self.hanging(&name, spec.summary);
        }
        self.gap();
        self.paragraph(
            0,
            "`converge doc KIND` explains one of them, `converge doc play` the keys of a play, \
             `converge doc common` those that every state may have.",
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
        self.paragraph(6, summary);
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
        assert_eq!(manual(Some("group"), Some(72)).unwrap(), expected);
    }

    #[test]
    fn lines_fit_the_terminal_and_are_whole_without_one() {
        let topics = SPECS.iter().map(|spec| Some(spec.name));
        for topic in topics.chain([None, Some(PLAYS), Some(STATES)]) {
            let narrow = manual(topic, Some(60)).unwrap();
            let prose = narrow.split("Example:").next().unwrap_or_default();
            let long = prose.lines().find(|line| line.chars().count() > 60);
            assert_eq!(long, None, "{topic:?}");
            let whole = manual(topic, None).unwrap();
            assert!(whole.lines().count() < narrow.lines().count(), "{topic:?}");
            assert!(whole.split_whitespace().eq(narrow.split_whitespace()), "{topic:?}");
        }
    }

    #[test]
    fn what_was_meant_is_said() {
        let message = |topic| manual(Some(topic), None).unwrap_err().to_string();
        assert_eq!(message("fiel"), "there is no kind `fiel`; did you mean `file`?");
        assert_eq!(message("plya"), "there is no kind `plya`; did you mean `play`?");
        assert_eq!(message("release"), "kind `release` is not supported by this version");
        assert_eq!(message("xyzzyx"), "there is no kind `xyzzyx`; `converge doc` lists them");
    }
}
