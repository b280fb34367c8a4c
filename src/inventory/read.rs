//! Reading inventory sources: which file has which form, and what is left alone in folders.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::tree::{Tree, UNGROUPED};
use super::{Given, Spec, Trust, ini, json_nodes, script, variables, yaml};
use crate::diagnostic::{Diagnostic, Diagnostics, SourceId, Sources, Span};
use crate::lang::yaml::Node;
use crate::lang::{Unread, add_file};
use crate::secret::is_encrypted;

/// Largest file that is read, in bytes.
const SIZE_LIMIT: u64 = 64 << 20;
/// Deepest nesting of inventory folders.
const DEPTH_LIMIT: usize = 16;
/// Endings that Ansible leaves alone in a folder of inventories.
const IGNORED_ENDINGS: [&str; 12] =
    [".pyc", ".pyo", ".swp", ".bak", "~", ".rpm", ".md", ".txt", ".rst", ".orig", ".cfg", ".retry"];
/// Folders that have another meaning.
const IGNORED_NAMES: [&str; 3] = ["group_vars", "host_vars", "vars_plugins"];

/// Reads files into sources, with what the caller allows.
pub(super) struct Reader<'a> {
    pub(super) sources: &'a Sources,
    pub(super) spec: &'a Spec,
    /// Whether there was a file of variables without a key.
    pub(super) locked: Cell<bool>,
}

impl Reader<'_> {
    /// Reads one `-i` into the tree.
    pub(super) fn given(&self, given: &Given, tree: &mut Tree, diagnostics: &mut Diagnostics) {
        match given {
            Given::Path(path) => self.path(path, 0, tree, diagnostics),
            Given::Hosts(list) => self.list(list, tree, diagnostics),
        }
    }

    /// A comma list: names with ranges and ports.
    fn list(&self, list: &str, tree: &mut Tree, diagnostics: &mut Diagnostics) {
        let source = self.sources.add("--inventory", list);
        tree.current = None;
        let mut start = 0;
        for part in list.split(',') {
            let text = part.trim();
            let at = start + (part.len() - part.trim_start().len());
            start += part.len() + 1;
            if !text.is_empty() {
                let span = Span::new(source, at, at + text.len());
                tree.add_hosts(text, span, UNGROUPED, diagnostics);
            }
        }
    }

    fn path(&self, path: &Path, depth: usize, tree: &mut Tree, diagnostics: &mut Diagnostics) {
        let name = self.name(path);
        if path.is_dir() {
            if depth > DEPTH_LIMIT {
                let message = format!("`{name}` is nested more than {DEPTH_LIMIT} folders deep");
                diagnostics.push(Diagnostic::error("inventory-folder", message));
                return;
            }
            for entry in self.entries(path, diagnostics) {
                self.path(&entry, depth + 1, tree, diagnostics);
            }
            return;
        }
        tree.current = Some(Arc::from(path));
        if is_program(path) {
            if let Trust::Untrusted { .. } = self.spec.trust {
                let message = format!("the inventory `{name}` is a program, and is not run here");
                diagnostics.push(
                    Diagnostic::error("untrusted", message)
                        .help("with `--untrusted` an inventory has to be YAML or INI"),
                );
                return;
            }
            script::read(self, path, &name, tree, diagnostics);
            return;
        }
        if let Some((source, text)) = self.text(path, diagnostics) {
            self.file(path, source, &text, tree, diagnostics);
        }
    }

    /// The entries of a folder that are inventories, by name.
    fn entries(&self, folder: &Path, diagnostics: &mut Diagnostics) -> Vec<PathBuf> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => {
                diagnostics.push(self.unreadable(folder, &error.to_string()));
                return Vec::new();
            }
        };
        let mut found: Vec<PathBuf> = entries
            .flatten()
            .filter(|entry| !is_ignored(&entry.file_name().to_string_lossy()))
            .map(|entry| entry.path())
            .filter(|path| path.is_dir() || path.is_file())
            .collect();
        found.sort();
        found
    }

    /// A file by its form: YAML by its extension, or because it is YAML; INI otherwise.
    fn file(
        &self,
        path: &Path,
        source: SourceId,
        text: &str,
        tree: &mut Tree,
        diagnostics: &mut Diagnostics,
    ) {
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension {
            Some("toml") => {
                let message = format!("`{}`: TOML inventories are not read", self.name(path));
                let help = "write it as YAML or INI";
                diagnostics.push(Diagnostic::error("inventory-form", message).help(help));
                return;
            }
            None | Some("yml" | "yaml" | "json") => {}
            Some(_) => {
                self.ini(path, text, source, tree, diagnostics);
                return;
            }
        }
        let mut said = Diagnostics::default();
        let root = self.node(source, text, &mut said);
        let is_mapping = root.as_ref().is_some_and(|root| root.entries().is_some());
        if !is_mapping && (looks_like_ini(text) || (extension.is_none() && !looks_like_yaml(text)))
        {
            self.ini(path, text, source, tree, diagnostics);
            return;
        }
        diagnostics.extend(said);
        if let Some(root) = root {
            yaml::read(&root, tree, diagnostics);
        }
    }

    /// A file of variables: none if it is empty or could not be read.
    pub(super) fn read_variables(
        &self,
        path: &Path,
        diagnostics: &mut Diagnostics,
    ) -> Option<Node> {
        let (source, text) = match self.bounded(path) {
            Ok(bytes) => match self.add(path, bytes) {
                Ok(read) => read,
                Err(Unread::Locked(_)) if self.spec.keyring.may_miss() => {
                    self.locked.set(true);
                    return None;
                }
                Err(unread) => {
                    diagnostics.push(unread.diagnostic());
                    return None;
                }
            },
            Err(reason) => {
                diagnostics.push(self.unreadable(path, &reason));
                return None;
            }
        };
        let root = self.node(source, &text, diagnostics)?;
        if root.is_null() {
            return None;
        }
        if root.entries().is_none() {
            diagnostics.push(variables::wrong_root(&root));
            return None;
        }
        Some(root)
    }

    /// An inventory in INI. Nothing in it could be kept secret: values are made of words of a line.
    fn ini(
        &self,
        path: &Path,
        text: &str,
        source: SourceId,
        tree: &mut Tree,
        diagnostics: &mut Diagnostics,
    ) {
        if self.sources.is_hidden(source) {
            let message = format!("`{}`: an encrypted inventory cannot be INI", self.name(path));
            let help = "write it as YAML, or keep the secrets in `group_vars` and `host_vars`";
            diagnostics.push(Diagnostic::error("inventory-form", message).help(help));
            return;
        }
        ini::read(text, source, tree, diagnostics);
    }

    /// The value in a text: JSON if it is JSON, as Ansible tries first, else YAML.
    pub(super) fn node(
        &self,
        source: SourceId,
        text: &str,
        diagnostics: &mut Diagnostics,
    ) -> Option<Node> {
        if json_nodes::is_json(text) {
            let mut root = json_nodes::read(text, source, diagnostics)?;
            if self.sources.is_hidden(source) {
                root.make_secret();
            }
            return Some(root);
        }
        crate::lang::yaml::parse_one(self.sources, source, diagnostics)
    }

    /// The text of a file; what is wrong with it is said.
    fn text(&self, path: &Path, diagnostics: &mut Diagnostics) -> Option<(SourceId, Arc<str>)> {
        let read = self.bounded(path).map_err(|reason| self.unreadable(path, &reason));
        let read = read.and_then(|bytes| self.add(path, bytes).map_err(Unread::diagnostic));
        read.map_err(|diagnostic| diagnostics.push(diagnostic)).ok()
    }

    /// The bytes of a file, if it may be read.
    fn bounded(&self, path: &Path) -> Result<Vec<u8>, String> {
        let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
        if !metadata.is_file() {
            return Err("it is not a file".into());
        }
        if metadata.len() > SIZE_LIMIT {
            return Err(format!("it is larger than {} MiB", SIZE_LIMIT >> 20));
        }
        if let Trust::Untrusted { project } = &self.spec.trust {
            let inside = fs::canonicalize(path)
                .and_then(|path| Ok(path.starts_with(fs::canonicalize(project)?)));
            if !inside.map_err(|error| error.to_string())? {
                return Err("with `--untrusted` nothing outside of the project is read".into());
            }
        }
        fs::read(path).map_err(|error| error.to_string())
    }

    /// Adds the text of a file to the sources, decrypted if it is encrypted.
    fn add(&self, path: &Path, mut bytes: Vec<u8>) -> Result<(SourceId, Arc<str>), Unread> {
        if is_encrypted(&bytes) {
            let source = add_file(self.sources, &self.name(path), bytes, &self.spec.keyring)?;
            return Ok((source, self.sources.text(source)));
        }
        if std::str::from_utf8(&bytes).is_err() {
            blank_foreign_comments(&mut bytes);
        }
        match String::from_utf8(bytes) {
            Ok(text) => {
                let text: Arc<str> = Arc::from(text);
                let source = self.sources.add(self.name(path), text.clone());
                Ok((source, text))
            }
            Err(error) => {
                let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
                let reason = format!("line {line} is not UTF-8");
                Err(Unread::Wrong(Box::new(self.unreadable(path, &reason))))
            }
        }
    }

    fn unreadable(&self, path: &Path, reason: &str) -> Diagnostic {
        let message = format!("cannot read `{}`: {reason}", self.name(path));
        Diagnostic::error("missing-file", message)
    }

    /// The name that messages show.
    pub(super) fn name(&self, path: &Path) -> String {
        path.strip_prefix(&self.spec.base).unwrap_or(path).display().to_string()
    }
}

/// Bytes of older encodings are harmless in comments.
fn blank_foreign_comments(bytes: &mut [u8]) {
    for line in bytes.split_mut(|byte| *byte == b'\n') {
        if matches!(line.first(), Some(b'#' | b';')) && std::str::from_utf8(line).is_err() {
            line.iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b'?');
        }
    }
}

fn is_ignored(name: &str) -> bool {
    name.starts_with('.')
        || IGNORED_NAMES.contains(&name)
        || IGNORED_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Whether the system would run the file: the bit alone says little, file systems set it on all.
fn is_program(path: &Path) -> bool {
    use std::io::Read;
    let executable =
        fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
    if !executable {
        return false;
    }
    let mut start = [0; 4];
    let read = fs::File::open(path).and_then(|mut file| file.read(&mut start));
    read.is_ok_and(|count| start[..count].starts_with(b"#!") || &start[..count] == b"\x7fELF")
}

fn first_line(text: &str) -> Option<&str> {
    text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with(['#', ';']))
}

/// Whether it begins with a section, or has nothing in it.
fn looks_like_ini(text: &str) -> bool {
    first_line(text).is_none_or(|line| {
        line.strip_prefix('[').and_then(|line| line.split_once(']')).is_some_and(|(name, rest)| {
            let rest = rest.trim_start();
            !name.contains([',', '"', '\'']) && (rest.is_empty() || rest.starts_with('#'))
        })
    })
}

/// Whether its first line can only be YAML.
fn looks_like_yaml(text: &str) -> bool {
    first_line(text).is_some_and(|line| {
        line == "---" || line.starts_with("--- ") || line.starts_with(['{', '%']) || {
            let line = line.split(" #").next().unwrap_or_default().trim_end();
            line.ends_with(':')
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_have_names_that_are_left_alone() {
        let ignored = ["a.pyc", "b.cfg", "c~", ".git", "group_vars", "host_vars", "x.md", "y.bak"];
        assert!(ignored.iter().all(|name| is_ignored(name)));
        let read = ["hosts", "01.yml", "web.ini", "cfg", "group_vars.yml"];
        assert!(!read.iter().any(|name| is_ignored(name)));
    }

    #[test]
    fn the_form_of_a_file_is_seen_in_its_first_line() {
        let cases = [
            ("# x\n[web]\nweb1\n", true, false),
            ("web1 a=b\n", false, false),
            ("; nothing\n", true, false),
            ("---\nall:\n", false, true),
            ("all: # everything\n", false, true),
            ("[\"a\"]\n", false, false),
        ];
        for (text, ini, yaml) in cases {
            assert_eq!((looks_like_ini(text), looks_like_yaml(text)), (ini, yaml), "{text}");
        }
    }
}
