//! Paths as Python's `os.path` and `ntpath` have them; no file is looked at.

use minijinja::{Error, Value};

use super::{Filter, filter, list, wrong};

/// Filters of paths.
pub(super) const FILTERS: &[Filter] = &[
    filter("normpath", &[], |value, _| Ok(Value::from(normalised(&value.to_string())))),
    filter("relpath", &["start"], |value, arguments| {
        relative(&value.to_string(), &arguments.text("start", ".")).map(Value::from)
    }),
    filter("commonpath", &[], |value, _| common(value)),
    filter("win_basename", &[], |value, _| {
        let text = value.to_string();
        let (_, path) = drive(&text);
        Ok(Value::from(path.rsplit(['\\', '/']).next().unwrap_or_default()))
    }),
    filter("win_dirname", &[], |value, _| {
        let text = value.to_string();
        let (drive, path) = drive(&text);
        let head = path.rfind(['\\', '/']).map_or("", |at| &path[..=at]);
        let trimmed = head.trim_end_matches(['\\', '/']);
        Ok(Value::from(format!("{drive}{}", if trimmed.is_empty() { head } else { trimmed })))
    }),
    filter("win_splitdrive", &[], |value, _| {
        let text = value.to_string();
        let (drive, path) = drive(&text);
        Ok([drive, path].into_iter().collect())
    }),
];

/// As `os.path.normpath`.
fn normalised(path: &str) -> String {
    // POSIX gives two slashes at the start, and only two, a meaning of their own.
    let root = match path.len() - path.trim_start_matches('/').len() {
        0 => "",
        2 => "//",
        _ => "/",
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if !root.is_empty() => {}
            part => parts.push(part),
        }
    }
    let joined = format!("{root}{}", parts.join("/"));
    if joined.is_empty() { String::from(".") } else { joined }
}

/// As `os.path.relpath`, but for paths of which one begins at the working directory.
fn relative(path: &str, start: &str) -> Result<String, Error> {
    if path.starts_with('/') != start.starts_with('/') {
        return Err(wrong("`relpath` takes two absolute paths, or two relative ones"));
    }
    let (path, start) = (normalised(path), normalised(start));
    let parts = |path: &str| -> Vec<String> {
        path.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_owned).collect()
    };
    let (path, start) = (parts(&path), parts(&start));
    let shared = path.iter().zip(&start).take_while(|(left, right)| left == right).count();
    if start[shared..].iter().any(|part| part == "..") {
        return Err(wrong("`relpath` cannot know the names of the folders above"));
    }
    let up = std::iter::repeat_n("..", start.len() - shared);
    let steps: Vec<&str> = up.chain(path[shared..].iter().map(String::as_str)).collect();
    Ok(if steps.is_empty() { String::from(".") } else { steps.join("/") })
}

/// As `os.path.commonpath`.
fn common(value: &Value) -> Result<Value, Error> {
    let paths: Vec<String> = list("commonpath", value)?.iter().map(Value::to_string).collect();
    let Some(first) = paths.first() else {
        return Err(wrong("`commonpath` takes a list that is not empty"));
    };
    let absolute = first.starts_with('/');
    if paths.iter().any(|path| path.starts_with('/') != absolute) {
        return Err(wrong("`commonpath` takes absolute paths or relative ones, not both"));
    }
    let parts = |path: &str| -> Vec<String> {
        path.split('/').filter(|part| !matches!(*part, "" | ".")).map(str::to_owned).collect()
    };
    let mut shared = parts(first);
    for path in &paths {
        let same = shared.iter().zip(parts(path)).take_while(|(left, right)| *left == right);
        shared.truncate(same.count());
    }
    Ok(Value::from(format!("{}{}", if absolute { "/" } else { "" }, shared.join("/"))))
}

/// A Windows path's drive or share, and the rest.
fn drive(path: &str) -> (&str, &str) {
    let is_separator = |character: char| matches!(character, '\\' | '/');
    if path.starts_with(is_separator) && path[1..].starts_with(is_separator) {
        let share = path[2..].match_indices(is_separator).nth(1);
        return path.split_at(share.map_or(path.len(), |(at, _)| at + 2));
    }
    if path.as_bytes().get(1) == Some(&b':') { path.split_at(2) } else { ("", path) }
}
