//! Which hosts must get the same answer from `ssh -G`, so that 1,000 hosts do not cost 1,000 processes.
//!
//! OpenSSH's files are read for one thing only: the patterns of their `Host` lines. Two hosts that the same lines match
//! get the same settings, unless something in the files looks at the host's name in another way; then nothing is
//! shared. What is not understood here is no error: it only costs processes.

use std::path::{Path, PathBuf};

use super::Environment;
use crate::ssh::known_hosts::match_list;

/// Files that include files, at most; OpenSSH's own limit.
const DEEPEST: usize = 16;

/// What the answers depend on.
#[derive(Clone, Debug)]
pub(super) enum Sharing {
    /// On the host's name, in a way that is not understood here.
    Never,
    /// On which of these match.
    ByPatterns(Vec<Block>),
}

/// A `Host` line, and whether a `HostName` stands below it.
#[derive(Clone, Debug)]
pub(super) struct Block {
    patterns: Vec<String>,
    names_host: bool,
}

/// Hosts of one class get the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// A host that is asked for by itself.
    Single(String),
    /// All hosts that the same `Host` lines match.
    Shared(Vec<bool>),
}

impl Sharing {
    /// Reads the files that `ssh -G` will read.
    pub(super) fn read(environment: &Environment) -> Self {
        let mut blocks = vec![Block { patterns: vec!["*".into()], names_host: false }];
        let files = match &environment.configuration_file {
            Some(file) => vec![file.clone()],
            None => environment
                .user_configuration()
                .into_iter()
                .chain([environment.system_configuration.clone()])
                .collect(),
        };
        for file in files {
            let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
            if read(&file, &folder, environment, &mut blocks, 0).is_none() {
                return Self::Never;
            }
            blocks.push(Block { patterns: vec!["*".into()], names_host: false });
        }
        Self::ByPatterns(blocks)
    }

    pub(super) fn class(&self, host: &str) -> Class {
        let Self::ByPatterns(blocks) = self else {
            return Class::Single(host.to_owned());
        };
        let matching: Vec<bool> =
            blocks.iter().map(|block| match_list(host, &block.patterns.join(","))).collect();
        if blocks.iter().zip(&matching).any(|(block, matching)| block.names_host && *matching) {
            return Class::Single(host.to_owned());
        }
        Class::Shared(matching)
    }
}

/// Collects a file's blocks; `None` where answers may depend on more than patterns.
fn read(
    file: &Path,
    folder: &Path,
    environment: &Environment,
    blocks: &mut Vec<Block>,
    depth: usize,
) -> Option<()> {
    if depth > DEEPEST {
        return None;
    }
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(()),
        Err(_) => return None,
    };
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // Tokens that stand for the host's name.
        if ["%h", "%n", "%k", "%C"].iter().any(|token| line.contains(token)) {
            return None;
        }
        let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
        let (keyword, value) = line.split_at(end);
        let value = value.trim_start_matches(|c: char| c.is_whitespace() || c == '=').trim();
        match keyword.to_ascii_lowercase().as_str() {
            "host" if value.contains(['"', ',', '#']) => return None,
            "host" => {
                let patterns = value.split_whitespace().map(str::to_owned).collect();
                blocks.push(Block { patterns, names_host: false });
            }
            "match" if value.eq_ignore_ascii_case("all") => {
                blocks.push(Block { patterns: vec!["*".into()], names_host: false });
            }
            "match" => return None,
            "canonicalizehostname" if !value.eq_ignore_ascii_case("no") => return None,
            "hostname" => blocks.last_mut()?.names_host = true,
            "include" => {
                let current = blocks.last()?.clone();
                for included in included(value, folder, environment)? {
                    read(&included, folder, environment, blocks, depth + 1)?;
                }
                // What follows belongs to the block in which the file was included.
                blocks.push(current);
            }
            _ => {}
        }
    }
    Some(())
}

/// The files of an `Include` line. Patterns are understood in the last part of a path.
fn included(value: &str, folder: &Path, environment: &Environment) -> Option<Vec<PathBuf>> {
    if value.contains(['"', '%', '$']) {
        return None;
    }
    let mut files = Vec::new();
    for word in value.split_whitespace() {
        let path = folder.join(environment.expand_home(word));
        let name = path.file_name()?.to_str()?.to_owned();
        let parent = path.parent()?;
        if parent.to_str()?.contains(['*', '?', '[']) || name.contains('[') {
            return None;
        }
        if !name.contains(['*', '?']) {
            files.push(path);
            continue;
        }
        let Ok(entries) = std::fs::read_dir(parent) else {
            continue;
        };
        let found = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let matching = |path: &PathBuf| {
            path.file_name()
                .and_then(|found| found.to_str())
                .is_some_and(|found| match_list(found, &name))
        };
        let mut found: Vec<PathBuf> = found.filter(matching).collect();
        found.sort();
        files.extend(found);
    }
    Some(files)
}
