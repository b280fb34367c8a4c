use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{Argument, Claim, Footprint, Key, Kind, Ownership, PlanError, Planning, Shape, Spec};
use crate::world::RemotePath;

/// A file of environment variables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentFile {
    path: RemotePath,
    variables: IndexMap<String, String>,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    group: Option<String>,
    #[serde(default = "private")]
    mode: u32,
}

/// It mostly holds secrets.
fn private() -> u32 {
    0o600
}

/// What `environment_file` is called and takes.
pub static SPEC: Spec = Spec {
    name: "environment_file",
    summary: "A file of environment variables that systemd and sh read alike",
    key: Key { name: "path", shape: Shape::Path, summary: "Where the file stands", identity: &[] },
    arguments: &[
        Argument::required(
            "variables",
            Shape::Mapping(&Shape::Text),
            "Names and values; values hold no line breaks or other control characters",
        )
        .secret(),
        Argument::optional("owner", Shape::Principal, "User name or number; left as it is"),
        Argument::optional("group", Shape::Principal, "Group name or number; left as it is"),
        Argument::optional("mode", Shape::Mode, "Permissions").with_default("0600"),
    ],
    exclusive: &[],
    example: "\
- environment_file: /etc/shop.env
  variables:
    DJANGO_SETTINGS_MODULE: shop.settings
    GREETING: costs $5, \"really\"
",
};

impl Kind for EnvironmentFile {
    fn footprint(&self) -> Footprint {
        Footprint::default()
            .owned_by(self.owner.as_deref(), self.group.as_deref())
            .writing(Claim::Path(self.path.clone()))
    }

    fn check_arguments(&self) -> Result<(), PlanError> {
        written(&self.variables).map(drop)
    }

    fn private_part(&self) -> Option<&'static str> {
        (!self.variables.is_empty()).then_some("the variables of an environment_file")
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        let text = written(&self.variables)?;
        let content = planning.keep(text.into_bytes());
        let ownership = Ownership {
            owner: self.owner.clone(),
            group: self.group.clone(),
            mode: Some(self.mode),
        };
        planning.file(&self.path, Some(content), &ownership, self.mode)
    }
}

/// Writes variables, one a line, as `NAME="value"`.
///
/// Between double quotes, a backslash takes away the meaning of `"`, `\`, `` ` `` and `$` and is
/// itself kept before anything else: in POSIX sh (Shell Command Language, 2.2.3) and in systemd's
/// `EnvironmentFile=` (systemd.exec(5)) alike.
fn written(variables: &IndexMap<String, String>) -> Result<String, PlanError> {
    let mut text = String::new();
    for (name, value) in variables {
        if !is_name(name) {
            return Err(PlanError::new(format!("`{name}` cannot be the name of a variable"))
                .help("names are of letters, digits and `_`, and do not begin with a digit"));
        }
        // systemd drops a variable with control characters; tabs are allowed.
        if value.contains(|character: char| character.is_ascii_control() && character != '\t') {
            return Err(PlanError::new(format!(
                "the value of {name} has a line break or another control character in it"
            )));
        }
        text.push_str(name);
        text.push_str("=\"");
        for character in value.chars() {
            if matches!(character, '"' | '\\' | '`' | '$') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push_str("\"\n");
    }
    Ok(text)
}

/// Reads variables as systemd and POSIX sh do from such a file: one a line, in double, single or
/// no quotes; comments and lines that are no assignment are passed over.
pub fn parse(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let line = line.trim_start();
            let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
            is_name(name).then(|| (name.to_owned(), unquoted(value.trim_end())))
        })
        .collect()
}

fn unquoted(value: &str) -> String {
    let mut plain = String::with_capacity(value.len());
    let mut quote = None;
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            (Some('\''), other) => plain.push(other),
            (Some(_), '\\') => match characters.next() {
                Some(taken @ ('"' | '\\' | '`' | '$')) => plain.push(taken),
                Some(kept) => plain.extend(['\\', kept]),
                None => plain.push('\\'),
            },
            (None, '\\') => plain.extend(characters.next()),
            (_, other) => plain.push(other),
        }
    }
    plain
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_for_both_readers() {
        for (value, wanted) in [
            ("", r#"A="""#),
            ("plain", r#"A="plain""#),
            ("two words # no comment", r#"A="two words # no comment""#),
            (r#"say "hi""#, r#"A="say \"hi\"""#),
            (r"back\slash \n", r#"A="back\\slash \\n""#),
            ("$HOME `id`", r#"A="\$HOME \`id\`""#),
            ("it's = 100% ü!", r#"A="it's = 100% ü!""#),
        ] {
            let variables = IndexMap::from([(String::from("A"), value.to_owned())]);
            assert_eq!(written(&variables).unwrap(), format!("{wanted}\n"));
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let value = "a \"b\" \\ $HOME `id` 'c' # \\n ü !";
        let variables = IndexMap::from([(String::from("A"), value.to_owned())]);
        let text = format!("# comment\n\n{}B=plain\nC='it'\n", written(&variables).unwrap());
        let expected = [("A", value), ("B", "plain"), ("C", "it")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(&text), expected);
    }

    #[test]
    fn sh_reads_what_was_written() {
        let value = "a \"b\" \\ $HOME `id` 'c' # \\n ü !";
        let variables = IndexMap::from([(String::from("A"), value.to_owned())]);
        let script = format!("{}printf %s \"$A\"", written(&variables).unwrap());
        let output = std::process::Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), value);
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        for (name, value) in
            [("1A", "x"), ("", "x"), ("A B", "x"), ("A=B", "x"), ("A", "a\nb"), ("A", "a\0b")]
        {
            let variables = IndexMap::from([(name.to_owned(), value.to_owned())]);
            assert!(written(&variables).is_err(), "{name:?}={value:?}");
        }
    }
}
