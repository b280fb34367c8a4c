//! What OpenSSH's `known_hosts` files say about a host's key.
//!
//! The format is that of sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"; the verdicts are those of OpenSSH's `hostfile.c` and
//! `sshconnect.c` (9.2), which `tests/ssh_known_hosts.rs` compares on odd files. One thing is stricter: a file that
//! exists and cannot be read is an error here and empty there.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit, Mac};
use russh::keys::ssh_encoding::base64::{Base64, Encoding};
use russh::keys::ssh_key::known_hosts::HostPatterns;
use russh::keys::{Algorithm, HashAlg, PublicKey};
use sha1::Sha1;

/// A host's public key, as it is compared: without its comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKey(pub(super) PublicKey);

impl HostKey {
    /// Reads `TYPE BASE64 [COMMENT]`; `None` where that is no key of a kind that SSH hosts have.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        parse_key(line).map(Self)
    }

    /// The kind of key, as it is named in `known_hosts`.
    #[must_use]
    pub fn kind(&self) -> String {
        self.0.algorithm().as_str().to_owned()
    }

    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }
}

/// The names under which a host's key is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    /// The first choice: the alias, `host`, or `[host]:port`.
    name: String,
    /// Looked up where the first choice is unknown: the bare host of `[host]:port`.
    without_port: Option<String>,
}

impl HostName {
    /// The name for a host and port, or for a `HostKeyAlias`, which stands for both.
    #[must_use]
    pub fn new(host: &str, port: u16, alias: Option<&str>) -> Self {
        let host = host.to_lowercase();
        match alias {
            Some(alias) => Self { name: alias.to_owned(), without_port: None },
            None if port == 22 => Self { name: host, without_port: None },
            None => Self { name: format!("[{host}]:{port}"), without_port: Some(host) },
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// What the files say about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The key is on file for this host.
    Known,
    /// No key is on file for this host.
    Unknown,
    /// Other keys are on file for this host, and not this one.
    Changed {
        /// The file with the last of them.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// The key is marked `@revoked` for this host.
    Revoked {
        /// The file that says so.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
}

/// The marker at the beginning of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    None,
    Authority,
    Revoked,
}

/// One line that names hosts and a key.
#[derive(Debug)]
struct Line {
    number: usize,
    marker: Marker,
    names: Names,
    key: PublicKey,
}

#[derive(Debug)]
enum Names {
    Patterns(String),
    Hashed { salt: Vec<u8>, hash: [u8; 20] },
}

/// A file's lines, as far as they can be read; OpenSSH passes over the others as well.
#[derive(Debug, Default)]
struct File {
    path: PathBuf,
    lines: Vec<Line>,
}

/// Several `known_hosts` files, asked as one.
#[derive(Clone, Debug, Default)]
pub struct KnownHosts {
    files: Vec<Arc<File>>,
}

impl KnownHosts {
    /// Adds a file's text.
    pub fn add(&mut self, path: &Path, text: &str) {
        self.files.push(Arc::new(File::parse(path, text)));
    }

    /// Judges a key that a host has shown.
    #[must_use]
    pub fn judge(&self, host: &HostName, key: &HostKey) -> Verdict {
        match self.judge_under(&host.name, key) {
            Verdict::Unknown => {}
            verdict => return verdict,
        }
        let Some(bare) = &host.without_port else {
            return Verdict::Unknown;
        };
        match self.judge_under(bare, key) {
            // The bare name may be another server on the same machine: it can vouch for a key, and revoke it, but a
            // differing key there says nothing.
            Verdict::Changed { .. } => Verdict::Unknown,
            verdict => verdict,
        }
    }

    fn judge_under(&self, name: &str, key: &HostKey) -> Verdict {
        let mut verdict = Verdict::Unknown;
        for (file, line) in self.lines_for(name) {
            let same = line.key.key_data() == key.0.key_data();
            match line.marker {
                Marker::Revoked if same => {
                    return Verdict::Revoked { file: file.path.clone(), line: line.number };
                }
                Marker::None if same => verdict = Verdict::Known,
                Marker::None if verdict != Verdict::Known => {
                    verdict = Verdict::Changed { file: file.path.clone(), line: line.number };
                }
                _ => {}
            }
        }
        verdict
    }

    /// The kinds of the keys that are on file for a host: what to ask the host for first.
    pub(super) fn kinds(&self, host: &HostName) -> Vec<Algorithm> {
        let plain = self.lines_for(&host.name).filter(|(_, line)| line.marker == Marker::None);
        plain.map(|(_, line)| line.key.algorithm()).collect()
    }

    /// The keys of the authorities that may certify a host's key.
    pub(super) fn authorities(&self, host: &HostName) -> Vec<&PublicKey> {
        let under =
            |name| self.lines_for(name).filter(|(_, line)| line.marker == Marker::Authority);
        let found: Vec<&PublicKey> = under(&host.name).map(|(_, line)| &line.key).collect();
        match &host.without_port {
            Some(bare) if found.is_empty() => under(bare).map(|(_, line)| &line.key).collect(),
            _ => found,
        }
    }

    /// Where a key is revoked for a host, under any of its names.
    pub(super) fn revoked(&self, host: &HostName, key: &PublicKey) -> Option<Verdict> {
        [Some(&host.name), host.without_port.as_ref()].into_iter().flatten().find_map(|name| {
            self.lines_for(name)
                .find(|(_, line)| {
                    line.marker == Marker::Revoked && line.key.key_data() == key.key_data()
                })
                .map(|(file, line)| Verdict::Revoked { file: file.path.clone(), line: line.number })
        })
    }

    fn lines_for<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a File, &'a Line)> {
        self.files.iter().flat_map(move |file| {
            file.lines
                .iter()
                .filter(move |line| line.names.match_name(name))
                .map(move |line| (&**file, line))
        })
    }
}

impl File {
    fn parse(path: &Path, text: &str) -> Self {
        let lines = text.split('\n').enumerate();
        let lines = lines.filter_map(|(index, line)| Line::parse(index + 1, line)).collect();
        Self { path: path.to_owned(), lines }
    }
}

impl Line {
    fn parse(number: usize, line: &str) -> Option<Self> {
        let line = skip_blanks(line);
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (marker, line) = parse_marker(line)?;
        let (names, key) = line.split_once(BLANKS)?;
        let names = match names.strip_prefix('|') {
            None => Names::Patterns(names.to_lowercase()),
            Some(_) => match names.parse().ok()? {
                HostPatterns::HashedName { salt, hash } => Names::Hashed { salt, hash },
                HostPatterns::Patterns(_) => return None,
            },
        };
        Some(Self { number, marker, names, key: parse_key(key)? })
    }
}

const BLANKS: [char; 2] = [' ', '\t'];

fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches(BLANKS)
}

/// Splits the marker off; `None` where OpenSSH would pass over the line.
fn parse_marker(line: &str) -> Option<(Marker, &str)> {
    if !line.starts_with('@') {
        return Some((Marker::None, line));
    }
    // OpenSSH looks for a space anywhere before it looks for a tab.
    let (word, rest) = line.split_once(' ').or_else(|| line.split_once('\t'))?;
    let marker = match word {
        "@cert-authority" => Marker::Authority,
        "@revoked" => Marker::Revoked,
        _ => return None,
    };
    let rest = skip_blanks(rest);
    (!rest.starts_with('@')).then_some((marker, rest))
}

/// Reads `TYPE BASE64 [COMMENT]`. The type is said twice, and both must agree.
fn parse_key(text: &str) -> Option<PublicKey> {
    let (kind, rest) = skip_blanks(text).split_once(BLANKS)?;
    let encoded = skip_blanks(rest).split(BLANKS).next()?;
    let encoded: String = encoded.split_ascii_whitespace().collect();
    let key = PublicKey::from_bytes(&Base64::decode_vec(&encoded).ok()?).ok()?;
    let algorithm = key.algorithm();
    let judged = !matches!(algorithm, Algorithm::Other(_)) && algorithm.as_str() == kind;
    judged.then_some(key)
}

impl Names {
    fn match_name(&self, name: &str) -> bool {
        match self {
            Self::Patterns(list) => match_list(name, list),
            Self::Hashed { salt, hash } => {
                hash_name(salt, name).is_some_and(|found| found.as_slice() == hash.as_slice())
            }
        }
    }
}

/// HMAC-SHA1 of a name, as `HashKnownHosts` stores it.
fn hash_name(salt: &[u8], name: &str) -> Option<[u8; 20]> {
    let mut mac = Hmac::<Sha1>::new_from_slice(salt).ok()?;
    mac.update(name.as_bytes());
    Some(mac.finalize().into_bytes().into())
}

/// A comma-separated list of patterns; one that begins with `!` and matches decides against the list.
pub(super) fn match_list(name: &str, list: &str) -> bool {
    let mut matched = false;
    for pattern in list.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if match_pattern(name.as_bytes(), pattern.as_bytes()) => return false,
            None if match_pattern(name.as_bytes(), pattern.as_bytes()) => matched = true,
            _ => {}
        }
    }
    matched
}

/// `*` and `?` as in ssh_config(5), "PATTERNS"; in linear space and without backtracking over more than one `*`.
fn match_pattern(name: &[u8], pattern: &[u8]) -> bool {
    let (mut at, mut want) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(at) {
        match pattern.get(want) {
            Some(b'*') => {
                retry = Some((at, want));
                want += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at += 1;
                want += 1;
            }
            _ => match &mut retry {
                None => return false,
                Some((from, star)) => {
                    *from += 1;
                    at = *from;
                    want = *star + 1;
                }
            },
        }
    }
    pattern.iter().skip(want).all(|rest| *rest == b'*')
}

/// The line that makes a key known, as OpenSSH appends it.
pub(super) fn line_for(host: &HostName, key: &HostKey, salt: Option<[u8; 20]>) -> Option<String> {
    let name = match salt {
        None => host.name.clone(),
        Some(salt) => {
            let hash = hash_name(&salt, &host.name)?;
            format!("|1|{}|{}", Base64::encode_string(&salt), Base64::encode_string(&hash))
        }
    };
    let key = Base64::encode_string(&key.0.to_bytes().ok()?);
    let kind =
        russh::keys::PublicKey::from_bytes(&Base64::decode_vec(&key).ok()?).ok()?.algorithm();
    Some(format!("{name} {} {key}\n", kind.as_str()))
}

/// Reads `known_hosts` files once for many hosts, and again when they have changed.
#[derive(Debug, Default)]
pub(super) struct Files {
    read: Mutex<HashMap<PathBuf, (Stamp, Arc<File>)>>,
}

/// What tells that a file is still the one that was read.
type Stamp = (u64, Option<SystemTime>);

impl Files {
    /// Opens the files together; one that does not exist is empty, one that cannot be read is an error.
    pub(super) fn open<'a>(
        &self,
        paths: impl Iterator<Item = &'a PathBuf>,
    ) -> Result<KnownHosts, (PathBuf, io::Error)> {
        let mut files = Vec::new();
        for path in paths {
            match self.open_one(path) {
                Ok(file) => files.push(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
                Err(error) => return Err((path.clone(), error)),
            }
        }
        Ok(KnownHosts { files })
    }

    fn open_one(&self, path: &Path) -> io::Result<Arc<File>> {
        let metadata = std::fs::metadata(path)?;
        let stamp = (metadata.len(), metadata.modified().ok());
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, file)) = read.get(path)
            && *known == stamp
        {
            return Ok(file.clone());
        }
        let file = if metadata.is_file() {
            Arc::new(File::parse(path, &String::from_utf8_lossy(&std::fs::read(path)?)))
        } else if path == Path::new("/dev/null") {
            Arc::new(File::default())
        } else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        };
        read.insert(path.to_owned(), (stamp, file.clone()));
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
    const TWO: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB9dG4kjRhQTtWTVzd2t27+t0DEHBPW7iOD23TUiYLio";

    #[test]
    fn patterns_match_as_ssh_config_says() {
        for (list, name, expected) in [
            ("web*", "web1", true),
            ("*.example.com,!db.example.com", "db.example.com", false),
            ("!db.example.com,*.example.com", "web.example.com", true),
            ("!db", "web", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("?", "", false),
            ("", "", true),
            ("[web]:22?2", "[web]:2222", true),
        ] {
            assert_eq!(match_list(name, list), expected, "{list} {name}");
        }
    }

    #[test]
    fn the_bare_name_vouches_for_another_port_but_does_not_condemn() {
        let port = HostName::new("Web", 2222, None);
        for (text, expected) in [
            (format!("web {ONE}\n"), Verdict::Known),
            (format!("web {TWO}\n"), Verdict::Unknown),
            (
                format!("[web]:2222 {TWO}\nweb {ONE}\n"),
                Verdict::Changed { file: "known".into(), line: 1 },
            ),
            (format!("@revoked web {ONE}\n"), Verdict::Revoked { file: "known".into(), line: 1 }),
        ] {
            let mut known = KnownHosts::default();
            known.add(Path::new("known"), &text);
            assert_eq!(known.judge(&port, &HostKey::parse(ONE).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn an_appended_line_is_found_again() {
        let host = HostName::new("web", 2222, None);
        let key = HostKey::parse(ONE).unwrap();
        for salt in [None, Some([7; 20])] {
            let mut known = KnownHosts::default();
            known.add(Path::new("known"), &line_for(&host, &key, salt).unwrap());
            assert_eq!(known.judge(&host, &key), Verdict::Known);
        }
    }
}
