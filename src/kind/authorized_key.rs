use serde::{Deserialize, Serialize};

use super::lines::Lines;
use super::{Argument, Claim, Footprint, Key, Kind, PlanError, Planning, Presence, Shape, Spec};
use crate::change::{Change, Content};
use crate::world::{Entry, Metadata, RemotePath, UserEntry};

/// Keys with which somebody may log in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuthorizedKey {
    user: String,
    key: Vec<String>,
    #[serde(default)]
    exclusive: bool,
    #[serde(default)]
    state: Presence,
}

/// What `authorized_key` is called and takes.
pub static SPEC: Spec = Spec {
    name: "authorized_key",
    summary: "SSH keys with which a user may log in, in `~/.ssh/authorized_keys`",
    key: Key {
        name: "user",
        shape: Shape::Name,
        summary: "Who may log in; may be declared before",
        identity: &["key"],
    },
    arguments: &[
        Argument::required(
            "key",
            Shape::List(&Shape::Text),
            "One key or a list, as in a `.pub` file, options before it allowed; compared by type \
             and data",
        ),
        Argument::optional("exclusive", Shape::Boolean, "Whether all other keys of the user go")
            .with_default("false"),
        Argument::optional(
            "state",
            Shape::Choice(&["present", "absent"]),
            "Whether they are to be there: `present` or `absent`",
        ),
    ],
    exclusive: &[],
    example: "\
- authorized_key: deploy
  key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6oE1hTrBlzz1Z1HNlHLj2GFuPq9hw0vlbmLc0pOLQx ann@example.com
",
};

/// A line of `authorized_keys`, as sshd(8) describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeyLine<'a> {
    /// What stands before the key; empty if nothing does.
    options: &'a str,
    /// For example `ssh-ed25519`.
    algorithm: &'a str,
    /// In base64.
    data: &'a str,
}

impl<'a> KeyLine<'a> {
    /// Reads a line; none if it is empty, a comment, or no key.
    fn read(line: &'a str) -> Option<Self> {
        let line = line.trim();
        if line.starts_with('#') {
            return None;
        }
        let (first, rest) = cut(line);
        if is_algorithm(first) {
            let (data, _) = cut(rest);
            return is_data(data).then_some(Self { options: "", algorithm: first, data });
        }
        let (algorithm, rest) = cut(rest);
        let (data, _) = cut(rest);
        (is_algorithm(algorithm) && is_data(data)).then_some(Self {
            options: first,
            algorithm,
            data,
        })
    }

    fn is_same_key(&self, other: &KeyLine<'_>) -> bool {
        self.algorithm == other.algorithm && self.data == other.data
    }
}

/// The first word, and what follows it; blanks between double quotes belong to the word.
fn cut(text: &str) -> (&str, &str) {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b' ' | b'\t' if !quoted => return (&text[..at], text[at..].trim_start()),
            _ => {}
        }
    }
    (text, "")
}

fn is_algorithm(word: &str) -> bool {
    ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-sha2-"].iter().any(|start| word.starts_with(start))
}

/// Every key begins with the length of its algorithm's name, of which the upper bytes are zero.
fn is_data(word: &str) -> bool {
    word.starts_with("AAAA")
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}

impl AuthorizedKey {
    /// The declared lines; one value may hold several, as the content of a file does.
    fn lines(&self) -> Result<Vec<(&str, KeyLine<'_>)>, PlanError> {
        let mut lines: Vec<(&str, KeyLine<'_>)> = Vec::new();
        for line in self.key.iter().flat_map(|key| key.lines()).map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some(key) = KeyLine::read(line) else {
                let beginning: String = line.chars().take(40).collect();
                return Err(PlanError::new(format!("`{beginning}…` is not a public key"))
                    .help("give the content of a `.pub` file, not its name"));
            };
            if !lines.iter().any(|(_, other)| other.is_same_key(&key)) {
                lines.push((line, key));
            }
        }
        if lines.is_empty() && !self.exclusive {
            return Err(PlanError::new("no key is given"));
        }
        Ok(lines)
    }

    /// Edits the text of `authorized_keys`.
    fn apply(&self, text: &[u8], wanted: &[(&str, KeyLine<'_>)]) -> Vec<u8> {
        let mut lines = Lines::of(text);
        let is_wanted = |line: &[u8]| -> Option<bool> {
            let line = std::str::from_utf8(line).ok()?;
            let key = KeyLine::read(line)?;
            Some(wanted.iter().any(|(_, other)| other.is_same_key(&key)))
        };
        match self.state {
            Presence::Absent => lines.remove(|line| is_wanted(line) == Some(true)),
            Presence::Present => {
                if self.exclusive {
                    lines.remove(|line| is_wanted(line) == Some(false));
                }
                for (line, key) in wanted {
                    let standing = lines.last(|other| {
                        std::str::from_utf8(other)
                            .ok()
                            .and_then(KeyLine::read)
                            .is_some_and(|other| other.is_same_key(key))
                    });
                    match standing {
                        None => {
                            let end = lines.len();
                            lines.splice(end..end, [line.as_bytes()]);
                        }
                        // Options that are declared hold; others and comments stay as they are.
                        Some(at) if !key.options.is_empty() => {
                            let options = lines
                                .texts()
                                .nth(at)
                                .and_then(|line| std::str::from_utf8(line).ok())
                                .and_then(KeyLine::read)
                                .map(|other| other.options.to_owned());
                            if options.as_deref() != Some(key.options) {
                                lines.replace(at, line.as_bytes());
                            }
                        }
                        Some(_) => {}
                    }
                }
            }
        }
        lines.bytes()
    }
}

impl Kind for AuthorizedKey {
    fn footprint(&self) -> Footprint {
        // The home is known on the host only; this is where it mostly is.
        let home = match self.user.as_str() {
            "root" => RemotePath::new("/root"),
            name => RemotePath::new("/home").join(name),
        };
        Footprint::default()
            .reading(Claim::User(self.user.clone()))
            .writing(Claim::User(self.user.clone()))
            .writing(Claim::Subtree(home.join(".ssh")))
    }

    fn check_arguments(&self) -> Result<(), PlanError> {
        self.lines().map(drop)
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        let wanted = self.lines()?;
        let Some(user) = planning.user(&self.user)? else {
            let tainted_by = planning.world().user(&self.user)?.tainted_by;
            if !tainted_by.is_empty() {
                planning.wait_for(tainted_by);
                return Ok(());
            }
            if self.state == Presence::Absent {
                return Ok(());
            }
            return Err(PlanError::new(format!("the user {} does not exist", self.user))
                .help(format!("declare `user: {}` before it", self.user)));
        };
        let folder = RemotePath::new(&user.home).join(".ssh");
        let path = folder.join("authorized_keys");
        let standing = match planning.entry(&path)? {
            Entry::Absent => None,
            Entry::File { metadata, .. } => Some(metadata),
            other => {
                return Err(PlanError::new(format!("{path} is {}, not a file", other.describe())));
            }
        };
        let text = match &standing {
            Some(_) => planning.read(&path)?.to_vec(),
            None => Vec::new(),
        };
        let edited = self.apply(&text, &wanted);
        if standing.is_none() && edited.is_empty() {
            return Ok(());
        }
        self.folder(&folder, &user, planning)?;
        if standing.is_none() || edited != text {
            let before = match &standing {
                Some(_) => Content::File(planning.identify(&path)?),
                None => Content::Absent,
            };
            let after = Content::File(planning.keep(edited));
            planning.push(Change::Content { path: path.clone(), before, after });
        }
        private(&path, standing.as_ref(), &user, 0o600, planning);
        Ok(())
    }
}

impl AuthorizedKey {
    fn folder(
        &self,
        folder: &RemotePath,
        user: &UserEntry,
        planning: &mut Planning<'_>,
    ) -> Result<(), PlanError> {
        let entry = planning.entry(folder)?;
        match &entry {
            Entry::Folder { .. } => {}
            Entry::Absent => {
                // The home of a user that is only planned comes with it.
                if planning.world().user(&self.user)?.by.is_none() {
                    planning.needs_parent(folder)?;
                }
                planning.push(Change::Content {
                    path: folder.clone(),
                    before: Content::Absent,
                    after: Content::Folder,
                });
            }
            other => {
                let what = other.describe();
                return Err(PlanError::new(format!("{folder} is {what}, not a directory")));
            }
        }
        private(folder, entry.metadata(), user, 0o700, planning);
        Ok(())
    }
}

/// Plans that a path is the user's own. An existing one keeps its group, since only the owner and
/// the mode matter to sshd.
fn private(
    path: &RemotePath,
    current: Option<&Metadata>,
    user: &UserEntry,
    mode: u32,
    planning: &mut Planning<'_>,
) {
    let group = match (current, &user.group) {
        (Some(current), _) => current.group.clone(),
        (None, Some(group)) => group.clone(),
        // The host will choose, and it makes a group of the user's name.
        (None, None) => user.name.clone(),
    };
    let after = Metadata { owner: user.name.clone(), group, mode };
    if current != Some(&after) {
        planning.push(Change::Metadata { path: path.clone(), before: current.cloned(), after });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = "ssh-ed25519 AAAAann ann@example.com";
    const BOB: &str = "ssh-rsa AAAAbob== bob";

    #[test]
    fn lines_are_read_as_sshd_reads_them() {
        let key = |options, algorithm, data| Some(KeyLine { options, algorithm, data });
        for (line, wanted) in [
            (ANN, key("", "ssh-ed25519", "AAAAann")),
            ("  ssh-rsa\tAAAAbob==", key("", "ssh-rsa", "AAAAbob==")),
            (
                r#"command="echo \"hi there\"",no-pty ssh-rsa AAAA x"#,
                key(r#"command="echo \"hi there\"",no-pty"#, "ssh-rsa", "AAAA"),
            ),
            ("sk-ssh-ed25519@openssh.com AAAAx", key("", "sk-ssh-ed25519@openssh.com", "AAAAx")),
            ("# ssh-rsa AAAA", None),
            ("", None),
            ("ssh-rsa", None),
            ("/home/ann/.ssh/id_ed25519.pub", None),
        ] {
            assert_eq!(KeyLine::read(line), wanted, "{line}");
        }
    }

    #[test]
    fn keys_come_and_go() {
        let with = |keys: &[&str], exclusive, state| AuthorizedKey {
            user: String::from("deploy"),
            key: keys.iter().map(ToString::to_string).collect(),
            exclusive,
            state,
        };
        let present = |keys: &[&str]| with(keys, false, Presence::Present);
        let restricted = format!("restrict {ANN}");
        let both = format!("{ANN}\n{BOB}\n");
        for (declared, before, after) in [
            (present(&[ANN]), String::new(), format!("{ANN}\n")),
            (present(&[ANN, BOB]), String::from("# ours"), format!("# ours\n{both}")),
            (present(&[&both]), String::new(), both.clone()),
            (present(&["ssh-ed25519 AAAAann other"]), format!("{ANN}\n"), format!("{ANN}\n")),
            (present(&[ANN]), format!("{restricted}\n"), format!("{restricted}\n")),
            (present(&[&restricted]), format!("{ANN}\n"), format!("{restricted}\n")),
            (
                with(&[BOB], true, Presence::Present),
                format!("# x\n{ANN}\n"),
                format!("# x\n{BOB}\n"),
            ),
            (with(&[], true, Presence::Present), both.clone(), String::new()),
            (with(&[ANN], false, Presence::Absent), both.clone(), format!("{BOB}\n")),
        ] {
            let wanted = declared.lines().unwrap();
            let edited = declared.apply(before.as_bytes(), &wanted);
            assert_eq!(String::from_utf8_lossy(&edited), after, "{declared:?} of {before:?}");
            assert_eq!(declared.apply(&edited, &wanted), edited, "twice, {declared:?}");
        }
    }
}
