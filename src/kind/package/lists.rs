//! Whether apt has fetched the lists of all its sources, seen from the names of its files.

use crate::world::{Entry, ObserveError, RemotePath, System};

const FOLDER: &str = "/etc/apt/sources.list.d";
const LISTS: &str = "/var/lib/apt/lists";

/// Whether a source is configured of which no list was ever fetched.
pub(super) fn incomplete(system: &dyn System) -> Result<bool, ObserveError> {
    let mut prefixes = Vec::new();
    let mut files = vec![RemotePath::from("/etc/apt/sources.list")];
    files.extend(list(system, FOLDER)?);
    for path in files {
        let deb822 = path.as_bytes().ends_with(b".sources");
        if !deb822 && !path.as_bytes().ends_with(b".list") {
            continue;
        }
        if matches!(system.entry(&path)?, Entry::Absent | Entry::Folder { .. }) {
            continue;
        }
        let bytes = system.read(&path)?;
        let text = String::from_utf8_lossy(&bytes);
        prefixes.extend(if deb822 { of_stanzas(&text) } else { of_lines(&text) });
    }
    if prefixes.is_empty() {
        return Ok(false);
    }
    let lists = list(system, LISTS)?;
    let fetched = |prefix: &String| {
        lists.iter().any(|path| {
            let name = path.as_path().file_name();
            name.is_some_and(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
        })
    };
    Ok(!prefixes.iter().all(fetched))
}

/// Whether apt has any lists.
pub(super) fn any(system: &dyn System) -> Result<bool, ObserveError> {
    let is_list = |path: &RemotePath| {
        let name = path.as_path().file_name().unwrap_or_default().as_encoded_bytes();
        name.windows(9).any(|part| part == b"_Packages") || name.ends_with(b"Release")
    };
    Ok(list(system, LISTS)?.iter().any(is_list))
}

fn list(system: &dyn System, folder: &str) -> Result<Vec<RemotePath>, ObserveError> {
    let folder = RemotePath::from(folder);
    match system.entry(&folder)? {
        Entry::Folder { .. } => system.list(&folder),
        _ => Ok(Vec::new()),
    }
}

/// The beginnings of list names that a deb822 file asks for; sources.list(5).
fn of_stanzas(text: &str) -> Vec<String> {
    let mut prefixes = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
            continue;
        }
        if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            continue;
        }
        let fields = std::mem::take(&mut fields);
        let words = |wanted: &str| {
            let field = fields.iter().find(|(name, _)| name == wanted);
            field.map_or("", |(_, value)| value.as_str()).split_whitespace()
        };
        let disabled = words("enabled").any(|word| word.eq_ignore_ascii_case("no"));
        if disabled || !words("types").any(|kind| kind == "deb") {
            continue;
        }
        for uri in words("uris") {
            prefixes.extend(words("suites").filter_map(|suite| prefix(uri, suite)));
        }
    }
    prefixes
}

/// The same for a file in the one-line format: `deb [options] uri suite components`.
fn of_lines(text: &str) -> Vec<String> {
    let source = |line: &str| {
        let rest = line.trim().strip_prefix("deb")?;
        if !rest.starts_with([' ', '\t']) {
            return None;
        }
        let rest = match rest.trim_start().strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        prefix(words.next()?, words.next()?)
    };
    text.lines().filter_map(source).collect()
}

/// How the names of a source's lists begin: its address without scheme and password, with `_`
/// for `/` and odd characters as `%xx` (apt's `URItoFileName`). None where that cannot be told.
fn prefix(uri: &str, suite: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once(':')?;
    if !matches!(scheme, "http" | "https" | "file" | "copy") || uri.contains("$(") {
        return None;
    }
    let rest = match rest.strip_prefix("//") {
        Some(rest) => {
            let authority = rest.find('/').unwrap_or(rest.len());
            rest[..authority].rfind('@').map_or(rest, |at| &rest[at + 1..])
        }
        None => rest,
    };
    let base = rest.trim_end_matches('/');
    let full = match suite.strip_suffix('/') {
        Some("") => format!("{base}/"),
        Some(folder) => format!("{base}/{folder}"),
        None => format!("{base}/dists/{suite}/"),
    };
    let mut name = String::with_capacity(full.len());
    for byte in full.bytes() {
        match byte {
            b'/' => name.push('_'),
            byte if byte <= b' ' || byte >= 0x7f || b"%\\|{}[]<>\"^~_=!@#$&*".contains(&byte) => {
                name.push_str(&format!("%{byte:02x}"));
            }
            byte => name.push(byte.into()),
        }
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::{of_lines, of_stanzas};

    #[test]
    fn names_of_lists_are_those_of_apt() {
        let lines = "\
# deb http://example.com/no stable main
deb http://deb.debian.org/debian bookworm main contrib
deb-src http://deb.debian.org/debian bookworm main
  deb [trusted=yes arch=amd64] file:/srv/packages ./
deb file:///srv/my_x~y flat/
deb http://user:password@127.0.0.1:9/some_path/ bookworm/updates main
deb cdrom:[Debian]/ bookworm main
";
        let expected = [
            "deb.debian.org_debian_dists_bookworm_",
            "_srv_packages_.",
            "_srv_my%5fx%7ey_flat",
            "127.0.0.1:9_some%5fpath_dists_bookworm_updates_",
        ];
        assert_eq!(of_lines(lines), expected);
        let stanzas = "\
# Managed
Types: deb deb-src
URIs: http://deb.debian.org/debian
Suites: bookworm
 bookworm-updates
Components: main

Types: deb
Enabled: no
URIs: http://example.com/
Suites: stable

Types: deb-src
URIs: http://example.com/
Suites: stable
";
        let expected = [
            "deb.debian.org_debian_dists_bookworm_",
            "deb.debian.org_debian_dists_bookworm-updates_",
        ];
        assert_eq!(of_stanzas(stanzas), expected);
    }
}
