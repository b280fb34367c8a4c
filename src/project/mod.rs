//! Where things are: the project's folder, its settings, its inventories and state files.
//!
//! Both `inventory/` and `states/` are found from the working directory upwards, as is
//! `converge.yml`. Here a state file and an inventory come together: the room knows the language,
//! inventories and graphs, and neither connections nor a terminal.

mod commit;
mod compilation;
mod download;
mod settings;
mod texts;

use std::path::{Path, PathBuf};

pub use commit::commit;
pub use compilation::{Compilation, Compiled, Outline};
pub use download::{Download, Nothing};
pub use settings::{LintSettings, Settings};
pub use texts::texts_below;

use crate::diagnostic::{Diagnostics, Sources, nearest};

/// Endings under which a name is looked for.
const ENDINGS: [&str; 4] = ["", ".yml", ".yaml", ".ini"];

/// A project, seen from a working directory.
#[derive(Clone, Debug)]
pub struct Project {
    /// The working directory.
    pub base: PathBuf,
    /// The folder of `converge.yml`, else of `states/` or `inventory/`, else the working directory.
    pub root: PathBuf,
    /// What `converge.yml` says.
    pub settings: Settings,
}

/// A name that stands for nothing.
#[derive(Debug, thiserror::Error)]
#[error("{what} `{name}` was not found{hint}")]
pub struct NotFound {
    what: &'static str,
    name: String,
    hint: String,
}

impl Project {
    /// Finds the project that a folder belongs to.
    pub fn find(base: &Path, sources: &Sources, diagnostics: &mut Diagnostics) -> Self {
        let marked = |marker: &str| base.ancestors().find(|folder| folder.join(marker).exists());
        let root = marked("converge.yml")
            .or_else(|| marked("states"))
            .or_else(|| marked("inventory"))
            .unwrap_or(base)
            .to_owned();
        let settings = Settings::read(&root.join("converge.yml"), base, sources, diagnostics);
        Self { base: base.to_owned(), root, settings }
    }

    /// The project's name: as set, else that of its folder.
    pub fn name(&self) -> String {
        self.settings.project.clone().unwrap_or_else(|| {
            self.root.file_name().map_or_else(
                || String::from("converge"),
                |name| name.to_string_lossy().into_owned(),
            )
        })
    }

    /// A state file: a path, or a name under `states/`.
    pub fn state_file(&self, name: &str) -> Result<PathBuf, NotFound> {
        self.look_for(name, "states", "state file", Path::is_file)
    }

    /// An inventory: a path, or a name under `inventory/`.
    pub fn inventory(&self, name: &str) -> Result<PathBuf, NotFound> {
        self.look_for(name, "inventory", "inventory", Path::exists)
    }

    fn look_for(
        &self,
        name: &str,
        folder: &str,
        what: &'static str,
        fits: fn(&Path) -> bool,
    ) -> Result<PathBuf, NotFound> {
        let direct = self.base.join(name);
        if fits(&direct) {
            return Ok(direct);
        }
        let folders: Vec<PathBuf> = self
            .base
            .ancestors()
            .map(|base| base.join(folder))
            .filter(|path| path.is_dir())
            .collect();
        for candidate in &folders {
            for ending in ENDINGS {
                let path = candidate.join(format!("{name}{ending}"));
                if fits(&path) {
                    return Ok(path);
                }
            }
        }
        let known: Vec<String> = folders
            .iter()
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        let stems = known.iter().flat_map(|file| {
            let stem = file.rsplit_once('.').map_or(file.as_str(), |(stem, _)| stem);
            [file.as_str(), stem]
        });
        let hint = match (nearest(name, stems), folders.first()) {
            (Some(near), _) => format!("; did you mean `{near}`?"),
            (None, Some(folder)) => {
                let shown = folder.strip_prefix(&self.base).unwrap_or(folder);
                format!(": neither a path nor a name under {}/", shown.display())
            }
            (None, None) => format!(": it is no path, and there is no folder `{folder}/` here"),
        };
        Err(NotFound { what, name: name.to_owned(), hint })
    }

    /// A path as records of a host know it: relative to the project, wherever converge was started.
    pub fn named(&self, path: &Path) -> String {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let root = std::path::absolute(&self.root).unwrap_or_else(|_| self.root.clone());
        absolute.strip_prefix(&root).unwrap_or(&absolute).display().to_string()
    }

    /// Whether a path, links resolved, is below the project's folder.
    pub fn holds(&self, path: &Path) -> bool {
        match (path.canonicalize(), self.root.canonicalize()) {
            (Ok(path), Ok(root)) => path.starts_with(root),
            _ => false,
        }
    }

    /// A path as messages show it: relative to the working directory where it is below it.
    pub fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.base).unwrap_or(path).display().to_string()
    }
}
