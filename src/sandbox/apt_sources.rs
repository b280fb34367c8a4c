//! Where the machine gets Debian from: its own apt sources.
//!
//! Both formats of sources.list(5) are read: one line a source, and deb822 (`*.sources`).

use std::fs;
use std::path::Path;

use super::SandboxError;

/// One source of Debian packages, one suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// The address up to, and without, `dists/`.
    pub uri: String,
    /// For example `bookworm-security`.
    pub suite: String,
    /// For example `main`.
    pub components: Vec<String>,
    /// The file with the keys that it is signed with; `None`: those that apt trusts for everything.
    pub signed_by: Option<String>,
}

/// The machine's sources of one Debian release, the release itself first, then its updates.
///
/// # Errors
/// [`SandboxError::NoMirror`] where none has the suite.
pub(super) fn debian(suite: &str) -> Result<Vec<Source>, SandboxError> {
    let mut all = fs::read_to_string("/etc/apt/sources.list")
        .map_or_else(|_| Vec::new(), |text| one_line(&text));
    let mut files: Vec<_> = fs::read_dir("/etc/apt/sources.list.d")
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.sort();
    for file in files {
        // A file that cannot be read is no source; the error below says what is missing then.
        let text = fs::read_to_string(&file).unwrap_or_default();
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => all.extend(one_line(&text)),
            Some("sources") => all.extend(deb822(&text)),
            _ => {}
        }
    }
    let mut chosen = choose(all, suite);
    for source in &mut chosen {
        source.uri = resolved(&source.uri);
    }
    if chosen
        .first()
        .is_none_or(|source| source.suite != suite && !ALIASES.contains(&source.suite.as_str()))
    {
        return Err(SandboxError::NoMirror { suite: suite.to_owned() });
    }
    Ok(chosen)
}

/// Names that point at some release instead of naming one.
const ALIASES: [&str; 4] = ["stable", "oldstable", "testing", "unstable"];

/// Debian's own sources for a release: third parties use its code name as a suite too.
fn choose(all: Vec<Source>, suite: &str) -> Vec<Source> {
    let mut chosen: Vec<Source> = Vec::new();
    // Those that Debian's own keys sign, or that look like a mirror, come before all others.
    let (first, rest): (Vec<_>, Vec<_>) = all
        .into_iter()
        .filter(|source| source.components.iter().any(|component| component == "main"))
        .partition(|source| match &source.signed_by {
            Some(keys) => keys.contains("debian-archive"),
            None => {
                source.uri.trim_end_matches('/').ends_with("debian")
                    || source.uri.contains("debian-security")
            }
        });
    for ending in ["", "-updates", "-security"] {
        let wanted = format!("{suite}{ending}");
        let named = |source: &&Source| source.suite == wanted;
        let aliased = |source: &&Source| {
            ALIASES.iter().any(|alias| source.suite == format!("{alias}{ending}"))
        };
        let found = first
            .iter()
            .find(named)
            .or_else(|| first.iter().find(aliased))
            // Updates are taken from Debian only.
            .or_else(|| if ending.is_empty() { rest.iter().find(named) } else { None });
        chosen.extend(found.cloned());
    }
    chosen
}

/// A `mirror+file:` address is a file with mirrors in it (apt-transport-mirror(1)); the first one is taken.
fn resolved(uri: &str) -> String {
    let Some(list) = uri.strip_prefix("mirror+file:") else { return uri.to_owned() };
    let list = Path::new("/").join(list.trim_start_matches('/'));
    fs::read_to_string(list)
        .ok()
        .and_then(|text| {
            text.lines()
                .map(str::trim)
                .find(|line| !line.is_empty() && !line.starts_with('#'))
                .and_then(|line| line.split_whitespace().next())
                .map(str::to_owned)
        })
        .unwrap_or_else(|| uri.to_owned())
}

/// Reads sources of one line each.
fn one_line(text: &str) -> Vec<Source> {
    text.lines()
        .filter_map(|line| line_source(line.split('#').next().unwrap_or_default()))
        .collect()
}

fn line_source(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb")?;
    // Not deb-src.
    let mut rest = rest.starts_with(char::is_whitespace).then_some(rest)?.trim_start();
    let mut signed_by = None;
    if let Some(options) = rest.strip_prefix('[') {
        let (options, after) = options.split_once(']')?;
        signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(str::to_owned);
        rest = after;
    }
    let mut words = rest.split_whitespace();
    let uri = words.next()?;
    let suite = words.next()?;
    usable(uri).then(|| Source {
        uri: uri.to_owned(),
        suite: suite.trim_end_matches('/').to_owned(),
        components: words.map(str::to_owned).collect(),
        signed_by,
    })
}

/// Reads sources of one paragraph each.
fn deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(paragraph(&std::mem::take(&mut fields)));
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn paragraph(fields: &[(String, String)]) -> Vec<Source> {
    let field = |wanted: &str| {
        fields
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.as_str())
            .unwrap_or_default()
    };
    let words =
        |wanted: &str| field(wanted).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    if field("enabled").eq_ignore_ascii_case("no")
        || !words("types").iter().any(|kind| kind == "deb")
    {
        return Vec::new();
    }
    // A key written into the field is more than one line; a file's name is one.
    let signed_by =
        Some(field("signed-by")).filter(|keys| keys.starts_with('/') && !keys.contains('\n'));
    let mut sources = Vec::new();
    for uri in words("uris").iter().filter(|uri| usable(uri)) {
        for suite in words("suites") {
            sources.push(Source {
                uri: uri.clone(),
                suite: suite.trim_end_matches('/').to_owned(),
                components: words("components"),
                signed_by: signed_by.map(str::to_owned),
            });
        }
    }
    sources
}

fn usable(uri: &str) -> bool {
    ["http://", "https://", "file:", "mirror+file:"].iter().any(|scheme| uri.starts_with(scheme))
}

/// Sources as the text of a `sources.list`.
pub(super) fn written(sources: &[Source]) -> String {
    let mut text = String::new();
    for source in sources {
        let options = source
            .signed_by
            .as_ref()
            .map(|keys| format!("[signed-by={keys}] "))
            .unwrap_or_default();
        text.push_str(&format!(
            "deb {options}{} {} {}\n",
            source.uri,
            source.suite,
            source.components.join(" ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIRROR: &str = "\
# made by somebody
Types: deb deb-src
URIs: http://mirror.example.com/debian/
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example.com/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
Enabled: no
URIs: http://off.example.com/debian
Suites: bookworm
Components: main
";

    #[test]
    fn sources_of_both_formats() {
        let cases = [
            // (deb822, one-line, what debian's bookworm comes from)
            (
                MIRROR,
                "",
                "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example.com/debian/ bookworm main contrib
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example.com/debian/ bookworm-updates main contrib
deb http://mirror.example.com/debian-security bookworm-security main
",
            ),
            (
                "",
                "deb cdrom:[Debian 12]/ bookworm main
deb [arch=amd64 signed-by=/etc/apt/keyrings/tool.gpg] https://tool.example.com/linux/debian bookworm main
deb-src http://mirror.example.com/debian bookworm main
deb https://other.example.com bookworm stable
deb   http://mirror.example.com/debian  bookworm  main  non-free-firmware # the one
",
                "deb http://mirror.example.com/debian bookworm main non-free-firmware\n",
            ),
            ("", "deb http://mirror.example.com/debian stable main\n", "deb http://mirror.example.com/debian stable main\n"),
            ("", "deb http://ubuntu.example.com/ubuntu noble main\n", ""),
        ];
        for (paragraphs, lines, expected) in cases {
            let mut all = one_line(lines);
            all.extend(deb822(paragraphs));
            assert_eq!(written(&choose(all, "bookworm")), expected);
        }
    }
}
