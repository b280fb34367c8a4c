//! URLs as Python's `urllib.parse` takes them apart, and names in them.

use minijinja::{Error, Value};
use sha1::Digest;

use super::{Filter, entries, filter, list, wrong};

/// Filters of URLs.
pub(super) const FILTERS: &[Filter] = &[
    filter("urlsplit", &["query"], |value, arguments| {
        let text = value.to_string();
        let parts = split(&text)?;
        let Some(wanted) = arguments.get("query").map(|query| query.to_string()) else {
            return Ok(Value::from_pairs(parts));
        };
        if wanted.is_empty() {
            return Ok(Value::from_pairs(parts));
        }
        let found = parts.into_iter().find(|(name, _)| *name == wanted).map(|(_, part)| part);
        found.ok_or_else(|| wrong(format!("`urlsplit` knows no part named `{wanted}`")))
    }),
    filter("urlencode", &[], |value, _| {
        use minijinja::value::ValueKind;
        let pairs: Vec<(Value, Value)> = match value.kind() {
            ValueKind::Map => entries("urlencode", value)?,
            ValueKind::Seq | ValueKind::Iterable => list("urlencode", value)?
                .iter()
                .map(|pair| match list("urlencode", pair)?.as_slice() {
                    [key, value] => Ok((key.clone(), value.clone())),
                    _ => Err(wrong("`urlencode` takes a text, a mapping or pairs")),
                })
                .collect::<Result<_, Error>>()?,
            _ => return Ok(Value::from(encoded(&value.to_string(), "/", "%20"))),
        };
        let part = |value: &Value| encoded(&value.to_string(), "", "+");
        let pair = |(key, value): &(Value, Value)| format!("{}={}", part(key), part(value));
        Ok(Value::from(pairs.iter().map(pair).collect::<Vec<_>>().join("&")))
    }),
    filter("urldecode", &[], |value, _| {
        Ok(Value::from(decoded(&value.to_string().replace('+', " "))))
    }),
    filter("to_uuid", &["namespace"], |value, arguments| {
        let namespace = arguments.text("namespace", "361E6D51-FAEC-444A-9079-341386DA8E2E");
        uuid(&namespace, &value.to_string()).map(Value::from)
    }),
];

/// Text with all but letters, digits, `-._~` and some others as `%` and their bytes.
fn encoded(text: &str, also: &str, blank: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        let character = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-._~".contains(character) || also.contains(character) {
            encoded.push(character);
        } else if byte == b' ' {
            encoded.push_str(blank);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The parts of a URL, by name.
fn split(url: &str) -> Result<Vec<(&'static str, Value)>, Error> {
    let (scheme, rest) = match url.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_lowercase(), rest),
        _ => (String::new(), url),
    };
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", rest),
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let (name, port) = match host.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((name, port)) => (name, port.strip_prefix(':')),
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let port = match port.filter(|port| !port.is_empty()) {
        None => Value::from(()),
        Some(port) => match port.parse::<u16>() {
            Ok(port) => Value::from(port),
            Err(_) => return Err(wrong(format!("`{port}` is not a port"))),
        },
    };
    let some = |text: Option<&str>| text.map_or(Value::from(()), Value::from);
    let (username, password) = match user {
        Some(user) => match user.split_once(':') {
            Some((username, password)) => (Some(username), Some(password)),
            None => (Some(user), None),
        },
        None => (None, None),
    };
    let hostname = name.to_lowercase();
    Ok(vec![
        ("fragment", Value::from(fragment)),
        ("hostname", some(Some(hostname.as_str()).filter(|name| !name.is_empty()))),
        ("netloc", Value::from(authority)),
        ("password", some(password)),
        ("path", Value::from(path)),
        ("port", port),
        ("query", Value::from(query)),
        ("scheme", Value::from(scheme)),
        ("username", some(username)),
    ])
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|one| one.is_ascii_alphanumeric() || "+-.".contains(one))
}

/// What `%XX` stand for.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = text.get(at + 1..at + 3).filter(|_| byte == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                decoded.push(value);
                at += 3;
            }
            None => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// A UUID of version 5 (RFC 9562, section 5.5).
fn uuid(namespace: &str, name: &str) -> Result<String, Error> {
    let digits = namespace.replace(['-', '{', '}'], "").to_lowercase();
    let namespace_bytes = data_encoding::HEXLOWER.decode(digits.as_bytes()).ok();
    let Some(namespace_bytes) = namespace_bytes.filter(|bytes| bytes.len() == 16) else {
        return Err(wrong(format!("the namespace `{namespace}` is not a UUID")));
    };
    let mut hasher = sha1::Sha1::new();
    hasher.update(&namespace_bytes);
    hasher.update(name.as_bytes());
    let mut bytes = hasher.finalize()[..16].to_vec();
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = data_encoding::HEXLOWER.encode(&bytes);
    let parts = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
    Ok(parts.join("-"))
}

/// Whether a text is a URI, as Ansible's test takes it: anything that can be taken apart, with a
/// scheme among `schemes` if there are any.
pub(super) fn is_uri(text: &str, schemes: &[String]) -> bool {
    split(text).is_ok() && (schemes.is_empty() || schemes.contains(&scheme(text)))
}

/// Whether a text is a URL: it has a scheme, and a host if it is no `file`.
pub(super) fn is_url(text: &str, schemes: &[String]) -> bool {
    let Ok(parts) = split(text) else { return false };
    let has_host = parts.iter().any(|(name, part)| *name == "netloc" && part.is_true())
        || scheme(text) == "file";
    is_uri(text, schemes) && !scheme(text).is_empty() && has_host
}

/// Whether a text is a URN.
pub(super) fn is_urn(text: &str) -> bool {
    scheme(text) == "urn"
}

fn scheme(text: &str) -> String {
    match text.split_once(':') {
        Some((scheme, _)) if is_scheme(scheme) => scheme.to_lowercase(),
        _ => String::new(),
    }
}
