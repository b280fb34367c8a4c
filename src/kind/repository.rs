use serde::{Deserialize, Serialize};

use super::{
    Argument, Claim, Footprint, Key, Kind, Ownership, PlanError, Planning, Presence, Shape, Spec,
};
use crate::world::{ContentId, Entry, RemotePath};

/// A source of packages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Repository {
    name: String,
    #[serde(default)]
    uris: Vec<String>,
    #[serde(default)]
    suites: Vec<String>,
    #[serde(default)]
    components: Vec<String>,
    /// The key that it is signed with.
    #[serde(default)]
    content: Option<ContentId>,
    #[serde(default)]
    fingerprint: Option<String>,
    #[serde(default)]
    state: Presence,
}

/// What `repository` is called and takes.
pub static SPEC: Spec = Spec {
    name: "repository",
    summary: "A source of packages with its key, in /etc/apt/sources.list.d; packages after it see it",
    key: Key {
        name: "name",
        shape: Shape::Name,
        summary: "The name of its file, without `.sources`",
        identity: &[],
    },
    arguments: &[
        Argument::optional("uris", Shape::List(&Shape::Text), "Where it is; several are mirrors"),
        Argument::optional(
            "suites",
            Shape::List(&Shape::Text),
            "Suites such as `bookworm`, or a folder with a trailing slash such as `./`",
        ),
        Argument::optional(
            "components",
            Shape::List(&Shape::Text),
            "Components such as `main`; none if the suite is a folder",
        ),
        Argument::optional(
            "key",
            Shape::LocalFile,
            "The key that it is signed with: a local file, the armored text itself, or an http(s) address beside `fingerprint`",
        ),
        Argument::optional(
            "fingerprint",
            Shape::Text,
            "The fingerprint of a `key` that is an address: what is fetched has to have it",
        ),
        Argument::optional(
            "state",
            Shape::Choice(&["present", "absent"]),
            "Whether it is to be there: `present` or `absent`",
        ),
    ],
    exclusive: &[],
    example: "\
- repository: nginx
  uris: https://nginx.org/packages/debian
  suites: bookworm
  components: nginx
  key: nginx-signing.asc
",
};

impl Kind for Repository {
    fn footprint(&self) -> Footprint {
        let [armored, binary] = self.keyrings();
        Footprint::default()
            .writing(Claim::Path(self.sources()))
            .writing(Claim::Path(armored))
            .writing(Claim::Path(binary))
    }

    fn check_arguments(&self) -> Result<(), PlanError> {
        self.check()
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        self.check()?;
        let missing = |path: &str| -> Result<bool, PlanError> {
            Ok(planning.world().entry(&RemotePath::from(path))?.value == Entry::Absent)
        };
        if missing("/etc/apt")? && !missing("/etc/yum.repos.d")? {
            return Err(PlanError::new("repositories of dnf are not supported yet"));
        }
        if self.state == Presence::Absent {
            planning.absent(&self.sources())?;
            return self.keyrings().iter().try_for_each(|path| planning.absent(path));
        }
        let ownership = Ownership::default();
        let mut signed_by = None;
        if let Some(key) = &self.content {
            let path = self.keyring(key, planning)?;
            planning.parents(&path)?;
            planning.file(&path, Some(*key), &ownership, 0o644)?;
            signed_by = Some(path);
        }
        let content = planning.keep(self.stanza(signed_by.as_ref()).into_bytes());
        planning.file(&self.sources(), Some(content), &ownership, 0o644)
    }
}

impl Repository {
    fn sources(&self) -> RemotePath {
        RemotePath::from("/etc/apt/sources.list.d").join(format!("{}.sources", self.name))
    }

    /// Where its key stands if it is armored, and if it is binary: apt goes by the ending.
    fn keyrings(&self) -> [RemotePath; 2] {
        let folder = RemotePath::from("/etc/apt/keyrings");
        ["asc", "gpg"].map(|ending| folder.join(format!("{}.{ending}", self.name)))
    }

    /// Where this key goes. Its bytes are asked for only if it does not stand there yet.
    fn keyring(
        &self,
        key: &ContentId,
        planning: &mut Planning<'_>,
    ) -> Result<RemotePath, PlanError> {
        for path in self.keyrings() {
            let standing = planning.world().entry(&path)?.value;
            if matches!(standing, Entry::File { size, .. } if size == key.size)
                && planning.identify(&path)? == *key
            {
                return Ok(path);
            }
        }
        let bytes = planning.bytes(key)?;
        let [armored, binary] = self.keyrings();
        if bytes.trim_ascii_start().starts_with(b"-----BEGIN PGP PUBLIC KEY BLOCK-----") {
            return Ok(armored);
        }
        // RFC 9580, section 4.2: a packet begins with a set bit; text never does.
        if bytes.first().is_some_and(|byte| byte & 0x80 != 0) {
            return Ok(binary);
        }
        Err(PlanError::new(format!("the key of {} is not an OpenPGP public key", self.name)))
    }

    fn check(&self) -> Result<(), PlanError> {
        // Files with other names are ignored by apt; sources.list(5).
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        if self.name.is_empty() || self.name.starts_with('.') || !self.name.bytes().all(plain) {
            let message = format!("`{}` cannot be the name of a repository", self.name);
            return Err(
                PlanError::new(message).help("it may have letters, digits, `_`, `-` and `.`")
            );
        }
        if self.state == Presence::Absent {
            return Ok(());
        }
        for (argument, values) in
            [("uris", &self.uris), ("suites", &self.suites), ("components", &self.components)]
        {
            let odd = |value: &String| value.is_empty() || value.contains(char::is_whitespace);
            if let Some(value) = values.iter().find(|value| odd(value)) {
                return Err(PlanError::new(format!("`{value}` cannot stand in `{argument}`")));
            }
            if values.is_empty() && argument != "components" {
                let message = format!("the repository {} needs `{argument}`", self.name);
                return Err(PlanError::new(message));
            }
        }
        if let Some(uri) = self.uris.iter().find(|uri| !uri.contains(":/")) {
            return Err(PlanError::new(format!("`{uri}` is not an address"))
                .help("such as `https://example.com/debian`, or `file:/srv/packages`"));
        }
        let folders = self.suites.iter().filter(|suite| suite.ends_with('/')).count();
        if folders > 0 && (folders < self.suites.len() || !self.components.is_empty()) {
            return Err(PlanError::new("a folder as a suite has no components, and stands alone")
                .help("declare another `repository` for the other suites"));
        }
        if folders == 0 && self.components.is_empty() {
            let message = format!("the repository {} needs `components`", self.name);
            return Err(PlanError::new(message)
                .help("such as `main`; only a suite that is a folder (`./`) has none"));
        }
        Ok(())
    }

    /// The file in the format deb822; sources.list(5).
    fn stanza(&self, signed_by: Option<&RemotePath>) -> String {
        let mut text = String::from("# Managed by converge\nTypes: deb\n");
        let lists =
            [("URIs", &self.uris), ("Suites", &self.suites), ("Components", &self.components)];
        for (field, values) in lists {
            if !values.is_empty() {
                text.push_str(&format!("{field}: {}\n", values.join(" ")));
            }
        }
        if let Some(path) = signed_by {
            text.push_str(&format!("Signed-By: {path}\n"));
        }
        text
    }
}
