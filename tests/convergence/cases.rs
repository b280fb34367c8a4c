//! Random trees of files, and random states about them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::random::Random;

/// Names of what stands there before, odd ones among them.
const NAMES: [&[u8]; 16] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"etc",
    b"new\nline",
    b"two words",
    b"it's \"quoted\"",
    b"-dash",
    b".hidden",
    b"\xc3\xbcber",
    b"inv\xff\xfealid",
    b"100%s",
    b"st*r[x]",
    b"back\\slash",
    b"$HOME`id`",
];
const CONTENTS: [&str; 8] = [
    "",
    "\n",
    "one\n",
    "no newline",
    "first\nsecond\nthird\n",
    "tab\tand \u{fc}\n",
    "windows\r\nline\r\n",
    "# BEGIN converge managed block\nold\n# END converge managed block\nrest\n",
];
const MODES: [u32; 10] = [0o644, 0o600, 0o755, 0o700, 0o640, 0o4755, 0o2755, 0o1777, 0o444, 0];
const OWNERS: [&str; 5] = ["root", "daemon", "nobody", "0", "54321"];
const GROUPS: [&str; 5] = ["root", "daemon", "nogroup", "0", "54321"];
const TARGETS: [&str; 9] =
    ["missing", ".", "..", "a", "b/c", "/etc/hostname", "/nonexistent/x", "two words", "./a/../b"];

/// A tree, and states about it.
pub struct Case {
    pub seed: u64,
    pub root: PathBuf,
    pub states: Vec<Value>,
    random: Random,
    /// What stood there before.
    paths: Vec<PathBuf>,
    claims: Vec<(PathBuf, Claim)>,
}

/// What a state of the case says of a path already, so that no other contradicts it.
#[derive(Clone, Copy, PartialEq)]
enum Claim {
    /// A folder, in which there may be more.
    Folder,
    /// Anything else, or nothing: there is nothing below it.
    Leaf,
}

impl Case {
    /// Makes the tree of a seed in a folder, and its states; of local trees `sources` can be used.
    pub fn make(seed: u64, folder: &Path, sources: &[&str]) -> Self {
        let root = folder.join(format!("case{seed}"));
        let mut case = Self {
            seed,
            root,
            states: Vec::new(),
            random: Random::new(seed),
            paths: Vec::new(),
            claims: Vec::new(),
        };
        case.plant();
        let count = 1 + case.random.below(7);
        while case.states.len() < count {
            case.declare(sources);
        }
        case.relate();
        case
    }

    fn plant(&mut self) {
        fs::create_dir(&self.root).unwrap();
        let mut folders = vec![self.root.clone()];
        for _ in 0..self.random.below(14) {
            let name = OsStr::from_bytes(self.random.pick::<&[u8]>(&NAMES));
            let path = self.random.pick(&folders).join(name);
            if path.symlink_metadata().is_ok() {
                continue;
            }
            match self.random.below(20) {
                0..8 => {
                    let large = self.random.one_in(20);
                    let content = match self.random.pick(&CONTENTS) {
                        _ if large => self.random.number().to_string().repeat(20_000).into_bytes(),
                        &"" if self.random.one_in(2) => b"\0\xff binary \xfe".to_vec(),
                        text => text.as_bytes().to_vec(),
                    };
                    fs::write(&path, content).unwrap();
                }
                8..14 => {
                    fs::create_dir(&path).unwrap();
                    folders.push(path.clone());
                }
                14..19 => symlink(self.random.pick(&TARGETS), &path).unwrap(),
                _ => rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap(),
            }
            self.paths.push(path);
        }
        for path in &self.paths {
            if self.random.one_in(2) {
                let number = *self.random.pick(&[0, 1, 65534, 54321]);
                let group = *self.random.pick(&[0, 1, 65534, 54321]);
                lchown(path, Some(number), Some(group)).unwrap();
            }
            if !path.is_symlink() {
                let mode = *self.random.pick(&MODES);
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
    }

    /// A path that a state file can say, mostly one that stands there; `deep` if its folder may be missing.
    fn path(&mut self, deep: bool) -> PathBuf {
        loop {
            let old = !self.paths.is_empty() && !self.random.one_in(3);
            let path = if old {
                self.random.pick(&self.paths).clone()
            } else {
                let folders: Vec<&PathBuf> =
                    self.paths.iter().filter(|path| path.is_dir()).collect();
                let folder = match folders.is_empty() || self.random.one_in(3) {
                    true => self.root.clone(),
                    false => (*self.random.pick(&folders)).clone(),
                };
                let deep = if deep && self.random.one_in(4) { "not/there" } else { "" };
                folder.join(deep).join(OsStr::from_bytes(self.random.pick::<&[u8]>(&NAMES)))
            };
            if path.to_str().is_some() {
                return path;
            }
        }
    }

    /// Whether a path is still free for a state that says so much of it; then it is taken.
    fn take(&mut self, path: &Path, claim: Claim) -> bool {
        let parent = path.parent().unwrap();
        let above = parent.ancestors().take_while(|above| *above != self.root);
        let links: Vec<&Path> = above.filter(|above| above.is_symlink()).collect();
        if !links.is_empty() {
            let Ok(folder) = parent.canonicalize() else { return false };
            let real = folder.join(path.file_name().unwrap());
            // Not out of the case, and not through a link in what may go.
            let within = |link: &Path| {
                let folder = link.parent().unwrap().canonicalize().unwrap();
                folder.join(link.file_name().unwrap()).starts_with(&real)
            };
            let lost = !real.starts_with(&self.root) || links.iter().any(|link| within(link));
            // One file under two names could have two states.
            if lost || !self.claims.is_empty() {
                return false;
            }
            self.claims.push((self.root.clone(), Claim::Leaf));
            return true;
        }
        let taken = self.claims.iter().any(|(other, what)| {
            other == path
                || (path.starts_with(other) && *what == Claim::Leaf)
                || (other.starts_with(path) && claim == Claim::Leaf)
        });
        if !taken {
            self.claims.push((path.to_owned(), claim));
        }
        !taken
    }

    fn ownership(&mut self, state: &mut Map<String, Value>, with_mode: bool) {
        if self.random.one_in(3) {
            state.insert("owner".into(), json!(self.random.pick(&OWNERS)));
        }
        if with_mode && self.random.one_in(3) {
            state.insert("group".into(), json!(self.random.pick(&GROUPS)));
        }
        if with_mode && self.random.one_in(2) {
            state.insert("mode".into(), json!(format!("{:04o}", self.random.pick(&MODES))));
        }
    }

    /// Adds a state, or several that belong together.
    fn declare(&mut self, sources: &[&str]) {
        let kind = self.random.below(22);
        let path = self.path(matches!(kind, 5..8 | 18 | 19));
        let text = path.to_str().unwrap().to_owned();
        let stands = path.symlink_metadata().map(|found| found.file_type());
        let fits = match &stands {
            Ok(kind_of) if kind_of.is_symlink() => matches!(kind, 0..=3 | 11..=13 | 20..),
            Ok(kind_of) if kind_of.is_dir() => matches!(kind, 5..=10 | 18..),
            Ok(kind_of) if kind_of.is_file() => matches!(kind, 0..=4 | 11 | 12 | 14..=17 | 20..),
            _ => true,
        };
        // What does not fit is mostly refused.
        if !fits && !self.random.one_in(12) {
            return;
        }
        let claim = if matches!(kind, 5..8) { Claim::Folder } else { Claim::Leaf };
        if kind < 20 && !self.take(&path, claim) {
            return;
        }
        let content = json!(self.random.pick(&CONTENTS));
        let mut state = match kind {
            0..4 => json!({"file": text, "content": content}),
            4 => json!({"file": text, "state": "absent"}),
            5..7 => json!({"directory": text}),
            7 => json!({"directory": text, "purge": true}),
            8 => json!({"directory": text, "recurse": true}),
            9..11 => json!({"directory": text, "state": "absent"}),
            11..13 => json!({"symlink": text, "target": self.random.pick(&TARGETS)}),
            13 => json!({"symlink": text, "state": "absent"}),
            14 => {
                let lines = ["one", "second", "added", "windows"];
                for line in &lines[..1 + self.random.below(4)] {
                    let mut state = json!({"line_in_file": text, "line": line});
                    match self.random.below(5) {
                        0 => state["insert_after"] = json!("BOF"),
                        1 => state["state"] = json!("absent"),
                        2 => state["insert_before"] = json!("^first"),
                        _ => {}
                    }
                    self.states.push(state);
                }
                return;
            }
            15 => json!({"block_in_file": text, "content": "one\ntwo\n"}),
            16 => json!({"environment_file": text, "variables": {"A": "1", "B": "it's $x \"y\""}}),
            17 => {
                self.states.push(json!({"file": text, "content": content, "replace": false}));
                json!({"line_in_file": text, "line": "added"})
            }
            18 => json!({"tree": text, "source": self.random.pick(sources), "delete": true}),
            19 => json!({"tree": text, "source": self.random.pick(sources)}),
            20 => {
                let name = format!("made{}", self.states.len());
                let path = self.root.join(name);
                let path = path.to_str().unwrap();
                let state = json!({
                    "command": format!("printf made >{path}"),
                    "creates": path,
                    "undo": format!("rm {path}"),
                });
                self.claims.push((path.into(), Claim::Leaf));
                state
            }
            // Anything may be different after it, as far as a plan knows.
            _ => json!({
                "command": ":",
                "id": format!("anything{}-{}", self.seed, self.states.len()),
                "undo": ":",
            }),
        };
        if let Some(state) = state.as_object_mut() {
            let absent = state.get("state").is_some();
            match kind {
                0..=3 | 5..=8 | 16 | 18 | 19 if !absent => self.ownership(state, true),
                11..13 => self.ownership(state, false),
                20 if self.random.one_in(2) => {
                    let touched = state["creates"].clone();
                    state.insert("touches".into(), json!([touched]));
                }
                _ => {}
            }
            if kind == 8 && !["owner", "group", "mode"].iter().any(|key| state.contains_key(*key)) {
                state.insert("mode".into(), json!("0640"));
            }
            if kind < 20 && self.random.one_in(25) {
                state.insert("when".into(), json!("false"));
            }
        }
        self.states.push(state);
    }

    /// Lets some states follow others, whichever comes first in the file.
    fn relate(&mut self) {
        let references: Vec<String> = self.states.iter().filter_map(reference).collect();
        for index in 0..self.states.len() {
            if references.is_empty() || !self.random.one_in(6) {
                continue;
            }
            let other = self.random.pick(&references).clone();
            let how = if self.random.one_in(3) { "onchanges" } else { "require" };
            if reference(&self.states[index]) != Some(other.clone()) {
                self.states[index][how] = json!([other]);
            }
        }
    }
}

/// How other states name one.
fn reference(state: &Value) -> Option<String> {
    let (kind, key) = state.as_object()?.iter().next()?;
    let key = state.get("id").or(Some(key))?.as_str()?;
    let named = !key.contains(['*', '?', '[']);
    named.then(|| if state.get("id").is_some() { key.to_owned() } else { format!("{kind}:{key}") })
}
