//! Filters and tests that look at the files of the machine that converge runs on.

use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use minijinja::{Environment, Error, State, Value};

use super::super::lookup::Lookup;

/// Names of the filters of this file.
pub(super) const FILTERS: [&str; 4] = ["expanduser", "expandvars", "fileglob", "realpath"];

type FileTest = fn(&Path) -> bool;

/// Tests of a path.
pub(super) const TESTS: [(&str, FileTest); 11] = [
    ("exists", Path::exists),
    ("file", Path::is_file),
    ("is_file", Path::is_file),
    ("directory", Path::is_dir),
    ("is_dir", Path::is_dir),
    ("link", Path::is_symlink),
    ("is_link", Path::is_symlink),
    ("link_exists", |path| path.symlink_metadata().is_ok()),
    ("is_link_exists", |path| path.symlink_metadata().is_ok()),
    ("mount", is_mount),
    ("is_mount", is_mount),
];

/// Tests of two paths.
pub(super) const TESTS_OF_TWO: [&str; 2] = ["same_file", "is_same_file"];

/// Adds the filters and tests of this file.
pub(super) fn register(environment: &mut Environment<'static>, lookup: &Arc<Lookup>) {
    let files = lookup.clone();
    environment.add_filter("realpath", move |path: &Value| {
        let path = files.path(&path.to_string())?;
        Ok::<_, Error>(real(&path).to_string_lossy().into_owned())
    });
    let files = lookup.clone();
    environment.add_filter("fileglob", move |state: &State<'_, '_>, pattern: &Value| {
        files.matching(state.name(), &pattern.to_string())
    });
    let variables = lookup.clone();
    environment.add_filter("expanduser", move |path: &Value| {
        let path = path.to_string();
        let Some(rest) =
            path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'))
        else {
            return Ok(path);
        };
        let home = variables.environment_variable("HOME")?;
        Ok::<_, Error>(home.map_or_else(|| path.clone(), |home| format!("{home}{rest}")))
    });
    let variables = lookup.clone();
    environment.add_filter("expandvars", move |text: &Value| {
        expanded(&text.to_string(), |name| variables.environment_variable(name))
    });
    for (name, holds) in TESTS {
        let files = lookup.clone();
        environment.add_test(name, move |path: &Value| {
            files.path(&path.to_string()).map(|path| holds(&path))
        });
    }
    for name in TESTS_OF_TWO {
        let files = lookup.clone();
        environment.add_test(name, move |left: &Value, right: &Value| {
            let identity = |path: &Value| -> Result<_, Error> {
                let metadata = std::fs::metadata(files.path(&path.to_string())?).ok();
                Ok(metadata.map(|metadata| (metadata.dev(), metadata.ino())))
            };
            let (left, right) = (identity(left)?, identity(right)?);
            Ok::<_, Error>(left.is_some() && left == right)
        });
    }
}

/// The path without links, as far as it is there.
fn real(path: &Path) -> PathBuf {
    let mut found = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(found.pop()),
            part => {
                found.push(part);
                found = found.canonicalize().unwrap_or(found);
            }
        }
    }
    found
}

/// As Python's `os.path.ismount`: on another device than its parent, or the root.
fn is_mount(path: &Path) -> bool {
    let Ok(own) = path.symlink_metadata() else { return false };
    let Ok(above) = path.join("..").symlink_metadata() else { return false };
    !own.is_symlink() && (own.dev() != above.dev() || own.ino() == above.ino())
}

/// As Python's `os.path.expandvars`: names that are not set stay.
fn expanded<'a>(
    text: &str,
    variable: impl Fn(&str) -> Result<Option<&'a str>, Error>,
) -> Result<String, Error> {
    let mut written = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        written.push_str(before);
        let word = |one: char| !(one.is_ascii_alphanumeric() || one == '_');
        let (name, length) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, _)) => (name, name.len() + 2),
            None => {
                let end = after.find(word).unwrap_or(after.len());
                (&after[..end], end)
            }
        };
        match variable(name)? {
            Some(value) => written.push_str(value),
            None => {
                written.push('$');
                written.push_str(&after[..length]);
            }
        }
        rest = &after[length..];
    }
    written.push_str(rest);
    Ok(written)
}
