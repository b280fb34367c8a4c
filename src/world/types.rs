use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An absolute path on a host, as bytes: a host's names need not be UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemotePath(Box<[u8]>);

impl RemotePath {
    /// Takes a path as it is; nothing is resolved.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self(path.as_ref().as_os_str().as_bytes().into())
    }

    /// For the system calls of the host.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The folder that holds it; none for `/`.
    pub fn parent(&self) -> Option<Self> {
        self.as_path().parent().map(Self::new)
    }

    /// A name below it.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> Self {
        Self::new(self.as_path().join(name))
    }

    /// Whether it is `folder` or lies below it.
    pub fn is_within(&self, folder: &Self) -> bool {
        self.as_path().starts_with(folder.as_path())
    }

    /// All folders above it, nearest first.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        self.as_path().ancestors().skip(1).map(Self::new)
    }
}

/// Control characters and bytes that are not UTF-8 are shown as `\xNN`, so that a host's names
/// cannot steer a terminal.
impl fmt::Display for RemotePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    for byte in character.to_string().bytes() {
                        write!(formatter, "\\x{byte:02x}")?;
                    }
                } else {
                    write!(formatter, "{character}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(formatter, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RemotePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<&str> for RemotePath {
    fn from(path: &str) -> Self {
        Self::new(path)
    }
}

impl From<PathBuf> for RemotePath {
    fn from(path: PathBuf) -> Self {
        Self::new(path)
    }
}

impl Serialize for RemotePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) if serializer.is_human_readable() => serializer.serialize_str(text),
            _ => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RemotePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Text, or bytes where the name is not UTF-8.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Readable {
            Text(String),
            Bytes(Vec<u8>),
        }
        if deserializer.is_human_readable() {
            Ok(match Readable::deserialize(deserializer)? {
                Readable::Text(text) => Self(text.into_bytes().into()),
                Readable::Bytes(bytes) => Self(bytes.into()),
            })
        } else {
            Vec::<u8>::deserialize(deserializer).map(|bytes| Self(bytes.into()))
        }
    }
}

/// The BLAKE3 digest of a content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of bytes at hand.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// What a hasher has seen.
    pub fn finish(hasher: &blake3::Hasher) -> Self {
        Self(*hasher.finalize().as_bytes())
    }
}

/// Hexadecimal where people may read it: as JSON's numbers, thousands of digests weigh megabytes.
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&HEXLOWER.encode(&self.0))
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return <[u8; 32]>::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        let length = bytes.len();
        let wrong = |_| serde::de::Error::invalid_length(length, &"32 bytes");
        <[u8; 32]>::try_from(bytes).map(Self).map_err(wrong)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", &self.to_string()[..12])
    }
}

/// A content by its digest; the bytes travel only when they are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContentId {
    /// Names the bytes.
    pub digest: Digest,
    /// How many bytes there are.
    pub size: u64,
}

impl ContentId {
    /// The name of bytes at hand.
    pub fn of(bytes: &[u8]) -> Self {
        Self { digest: Digest::of(bytes), size: bytes.len() as u64 }
    }
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// Nothing.
    Absent,
    /// A regular file of so many bytes.
    File {
        /// In bytes.
        size: u64,
        /// Who may do what.
        metadata: Metadata,
    },
    /// A symbolic link.
    Link {
        /// Where it points, as written.
        target: RemotePath,
        /// Its owner; the mode means nothing.
        metadata: Metadata,
    },
    /// A directory.
    Folder {
        /// Who may do what.
        metadata: Metadata,
    },
    /// A device, a socket, a pipe.
    Other {
        /// Who may do what.
        metadata: Metadata,
    },
}

impl Entry {
    /// Who may do what; none where nothing stands.
    pub fn metadata(&self) -> Option<&Metadata> {
        match self {
            Entry::Absent => None,
            Entry::File { metadata, .. }
            | Entry::Link { metadata, .. }
            | Entry::Folder { metadata }
            | Entry::Other { metadata } => Some(metadata),
        }
    }

    /// In words, for messages.
    pub fn describe(&self) -> &'static str {
        match self {
            Entry::Absent => "nothing",
            Entry::File { .. } => "a file",
            Entry::Link { .. } => "a symbolic link",
            Entry::Folder { .. } => "a directory",
            Entry::Other { .. } => "a special file",
        }
    }
}

/// Owner, group and mode of a path.
///
/// Names where the host has an entry for the number (or the plan is about to make one), decimal
/// numbers otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Metadata {
    /// User name or number.
    pub owner: String,
    /// Group name or number.
    pub group: String,
    /// The lower twelve bits.
    pub mode: u32,
}

/// An entry of `passwd(5)`, with what `shadow(5)` and `group(5)` say of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserEntry {
    /// The login name.
    pub name: String,
    /// None while it is only planned and the host will choose.
    pub uid: Option<u32>,
    /// The primary group, by name (by number where it has none); none while the host will choose.
    pub group: Option<String>,
    /// Supplementary groups, sorted.
    pub groups: Vec<String>,
    /// The home directory.
    pub home: String,
    /// The login shell.
    pub shell: String,
    /// The comment (GECOS) field.
    pub comment: String,
    /// The second field of `shadow(5)`; none where it could not be read. Never shown.
    pub password_hash: Option<String>,
}

/// An entry of `group(5)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEntry {
    /// The group's name.
    pub name: String,
    /// None while it is only planned and the host will choose.
    pub gid: Option<u32>,
    /// Users who have it as a supplementary group, sorted.
    pub members: Vec<String>,
}

/// A package as the manager's database has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageEntry {
    /// Name, with `:ARCH` only for foreign architectures.
    pub name: String,
    /// The installed version; none if only its configuration is left.
    pub version: Option<String>,
    /// Whether unpacking or configuring it is unfinished.
    pub broken: bool,
    /// Whether it is held at its version.
    pub hold: bool,
}

/// What the service manager says of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitEntry {
    /// With its suffix, for example `nginx.service`.
    pub name: String,
    /// Whether there is a unit file, or it is otherwise known.
    pub exists: bool,
    /// Whether it runs (`active`, `reloading` or `activating`).
    pub active: bool,
    /// `systemctl is-enabled`: `enabled`, `disabled`, `static`, `masked`, ….
    pub enablement: String,
    /// Whether `ExecReload` is set, or the unit's type can reload otherwise.
    pub can_reload: bool,
    /// Whether the file on disk is newer than what the manager has loaded.
    pub needs_daemon_reload: bool,
    /// When the main process started, in microseconds of the monotonic clock; none if not running.
    pub started_at: Option<u64>,
}
