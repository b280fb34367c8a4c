//! The database of dpkg, read without starting a process.

use std::collections::BTreeMap;

use super::PackageEntry;

/// The packages in the bytes of `/var/lib/dpkg/status`, by name; `:ARCH` stands only behind the
/// names of foreign ones.
///
/// Fields and states are those of dpkg(1), "Package states". The file is scanned by hand: of a
/// megabyte only four fields a package matter. Packages that are not installed and left nothing
/// are not in the answer.
pub fn parse_status(status: &[u8]) -> BTreeMap<String, PackageEntry> {
    let mut found = Vec::with_capacity(1024);
    let mut native: &[u8] = b"";
    let mut stanza = Stanza::default();
    for line in status.split(|byte| *byte == b'\n').chain([&b""[..]]) {
        if !line.is_empty() {
            stanza.take(line);
            continue;
        }
        let stanza = std::mem::take(&mut stanza);
        if stanza.package == b"dpkg" {
            // dpkg itself is always of the host's own architecture.
            native = stanza.architecture;
        }
        if let Some(entry) = stanza.entry() {
            found.push((stanza.architecture, entry));
        }
    }
    found
        .into_iter()
        .map(|(architecture, mut entry)| {
            let own = architecture == native || architecture == b"all";
            if !own && !native.is_empty() && !architecture.is_empty() {
                entry.name.push(':');
                entry.name.push_str(&String::from_utf8_lossy(architecture));
            }
            (entry.name.clone(), entry)
        })
        .collect()
}

/// The fields of one package that matter.
#[derive(Default)]
struct Stanza<'a> {
    package: &'a [u8],
    status: &'a [u8],
    version: &'a [u8],
    architecture: &'a [u8],
}

impl<'a> Stanza<'a> {
    fn take(&mut self, line: &'a [u8]) {
        // Most lines are continuations, which begin with a blank.
        let field = match line.first() {
            Some(b'P') => line.strip_prefix(b"Package:").map(|value| (&mut self.package, value)),
            Some(b'S') => line.strip_prefix(b"Status:").map(|value| (&mut self.status, value)),
            Some(b'V') => line.strip_prefix(b"Version:").map(|value| (&mut self.version, value)),
            Some(b'A') => {
                line.strip_prefix(b"Architecture:").map(|value| (&mut self.architecture, value))
            }
            _ => None,
        };
        if let Some((field, value)) = field {
            *field = value.trim_ascii();
        }
    }

    fn entry(&self) -> Option<PackageEntry> {
        let mut words = self.status.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let (want, flag, state) = (words.next()?, words.next()?, words.next()?);
        let (installed, unfinished) = match state {
            b"installed" => (true, false),
            b"unpacked" | b"half-configured" | b"triggers-awaited" | b"triggers-pending" => {
                (true, true)
            }
            b"half-installed" => (false, true),
            b"config-files" => (false, false),
            _ => return None,
        };
        if self.package.is_empty() {
            return None;
        }
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Some(PackageEntry {
            name: text(self.package),
            version: installed.then(|| text(self.version)),
            broken: unfinished || flag != b"ok",
            hold: want == b"hold",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::parse_status;

    /// Name, version, and what else is said of it, one package a line.
    fn read(status: &str) -> String {
        let mut text = String::new();
        for (name, entry) in parse_status(status.as_bytes()) {
            assert_eq!(name, entry.name);
            text.push_str(&format!("{name} {}", entry.version.as_deref().unwrap_or("none")));
            text.push_str(if entry.broken { " broken" } else { "" });
            text.push_str(if entry.hold { " held\n" } else { "\n" });
        }
        text
    }

    fn stanza(name: &str, status: &str, architecture: &str) -> String {
        format!(
            "Package: {name}\nStatus: {status}\nPriority: optional\nArchitecture: {architecture}\n\
             Version: 1.0-1\nConffiles:\n /etc/x 0123\nDescription: Package: no\n Status: no\n\n"
        )
    }

    #[test]
    fn states_of_packages() {
        let cases = [
            ("install ok installed", "a 1.0-1\n"),
            ("hold ok installed", "a 1.0-1 held\n"),
            ("deinstall ok config-files", "a none\n"),
            ("install ok unpacked", "a 1.0-1 broken\n"),
            ("install ok half-configured", "a 1.0-1 broken\n"),
            ("install ok triggers-pending", "a 1.0-1 broken\n"),
            ("install ok triggers-awaited", "a 1.0-1 broken\n"),
            ("install reinstreq half-installed", "a none broken\n"),
            ("purge ok not-installed", ""),
            ("deinstall ok installed", "a 1.0-1\n"),
            ("nonsense", ""),
        ];
        for (status, expected) in cases {
            assert_eq!(read(&stanza("a", status, "amd64")), expected, "{status}");
        }
    }

    #[test]
    fn only_foreign_packages_carry_their_architecture() {
        let installed = "install ok installed";
        let status = [
            stanza("libc6", installed, "i386"),
            stanza("libc6", installed, "amd64"),
            stanza("dpkg", installed, "amd64"),
            stanza("tzdata", installed, "all"),
        ]
        .concat();
        assert_eq!(read(&status), "dpkg 1.0-1\nlibc6 1.0-1\nlibc6:i386 1.0-1\ntzdata 1.0-1\n");
        // The last package need not be followed by an empty line.
        assert_eq!(read(status.trim_end()), read(&status));
        assert_eq!(read(""), "");
    }
}
