//! Debian packages for hosts that have no network: a repository in a folder, which every host sees.
//!
//! What a host needs is fetched once on the machine, by its own apt and so with its own mirrors, proxies and keys, but
//! against the database of the packages that the image has.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::image::{Image, children, make_folder, write};
use super::lock::Lock;
use super::process::{program, run};
use super::requirements::installed;
use super::{Progress, SandboxError, apt_sources};

/// How long apt may take to fetch lists or packages.
const FETCH_LIMIT: Duration = Duration::from_secs(30 * 60);

/// What apt says of a name that it has nothing for.
const UNKNOWN: &[&str] =
    &["Unable to locate package", "has no installation candidate", "was not found"];

/// A folder with packages and their index.
#[derive(Clone, Debug)]
pub(super) struct Repository {
    /// The folder; the hosts see it read-only.
    pub folder: PathBuf,
}

impl Repository {
    /// Makes the folder and an empty index, where there is none.
    pub fn ensure(folder: PathBuf) -> Result<Self, SandboxError> {
        make_folder(&folder)?;
        let index = folder.join("Packages");
        match File::create_new(&index) {
            // It is there, or somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => drop(created.map_err(SandboxError::path("writing", &index))?),
        }
        Ok(Self { folder })
    }

    /// The names of its packages.
    fn names(&self) -> BTreeSet<String> {
        let index = fs::read_to_string(self.folder.join("Packages")).unwrap_or_default();
        index.lines().filter_map(|line| line.strip_prefix("Package: ")).map(str::to_owned).collect()
    }

    /// Makes the index anew and puts it in place at once, so that a host that reads it sees the old or the new one.
    fn index(&self) -> Result<(), SandboxError> {
        let mut command = if installed("apt-ftparchive") {
            let mut command = program("apt-ftparchive");
            command.args(["packages", "."]);
            command
        } else {
            let mut command = program("dpkg-scanpackages");
            command.args(["--multiversion", "."]);
            command
        };
        let index = run(command.current_dir(&self.folder), FETCH_LIMIT)?;
        let (new, place) = (self.folder.join("Packages.new"), self.folder.join("Packages"));
        fs::write(&new, index).map_err(SandboxError::path("writing", &new))?;
        fs::rename(&new, &place).map_err(SandboxError::path("renaming", &new))
    }

    /// Takes over the packages of a folder of the user's; those that are gone from it go here too.
    pub fn mirror(&self, source: &Path) -> Result<(), SandboxError> {
        let packages = packages_in(source)?;
        let wanted: BTreeSet<_> =
            packages.iter().filter_map(|package| package.file_name()).collect();
        for old in packages_in(&self.folder)? {
            if old.file_name().is_none_or(|name| !wanted.contains(name)) {
                fs::remove_file(&old).map_err(SandboxError::path("removing", &old))?;
            }
        }
        for package in &packages {
            if let Some(name) = package.file_name() {
                fs::copy(package, self.folder.join(name))
                    .map_err(SandboxError::path("copying", package))?;
            }
        }
        self.index()
    }
}

/// Fetches packages into the repository that all hosts of one image share.
#[derive(Debug)]
pub(super) struct Fetcher<'a> {
    image: &'a Image,
    folder: PathBuf,
    /// What has been fetched.
    pub repository: Repository,
}

impl<'a> Fetcher<'a> {
    /// The one for the hosts of an image.
    pub fn new(cache: &Path, image: &'a Image) -> Result<Self, SandboxError> {
        let folder = cache.join("packages").join(&image.key);
        let repository = Repository::ensure(folder.join("repository"))?;
        Ok(Self { image, folder, repository })
    }

    /// Sees to it that the hosts can install these, each a name as `apt-get install` takes it, and gives those that
    /// no source has. Starts no process if all are there.
    pub fn ensure(
        &self,
        names: &[String],
        progress: Progress<'_>,
    ) -> Result<Vec<String>, SandboxError> {
        if self.missing(names).is_empty() {
            return Ok(Vec::new());
        }
        let _lock = Lock::take(&self.folder.join("lock"), "fetching packages", progress)?;
        let missing = self.missing(names);
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        progress(&format!("fetching packages for the hosts: {}", missing.join(" ")));
        let fresh = !self.folder.join("lists").exists();
        if fresh {
            self.update(progress)?;
        }
        let mut result = self.fetch(&missing);
        if !fresh && !matches!(&result, Ok(unknown) if unknown.is_empty()) {
            // The mirror has moved on, or has something new.
            self.update(progress)?;
            result = self.fetch(&missing);
        }
        let unknown = result?;
        self.take_over()?;
        let mut fetched = self.fetched();
        fetched.extend(missing.into_iter().filter(|name| !unknown.contains(name)));
        let lines = fetched.into_iter().map(|name| name + "\n").collect::<String>();
        write(&self.folder.join("fetched"), &lines, 0o644)?;
        Ok(unknown)
    }

    fn missing(&self, names: &[String]) -> Vec<String> {
        let there = self.repository.names();
        let fetched = self.fetched();
        let mut missing: Vec<String> = Vec::new();
        for name in names {
            if !there.contains(name)
                && !fetched.contains(name)
                && !missing.contains(name)
                && is_name(name)
            {
                missing.push(name.clone());
            }
        }
        missing
    }

    /// What was asked for and fetched: an index does not tell for `name=version`, nor for a virtual package.
    fn fetched(&self) -> BTreeSet<String> {
        let text = fs::read_to_string(self.folder.join("fetched")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// apt on the machine, seeing the image's packages and Debian's sources only.
    fn apt(&self, name: &str) -> Command {
        let mut command = program(name);
        command.arg("-c").arg(self.folder.join("apt.conf")).arg("-qq");
        command
    }

    /// Fetches the lists of what the mirrors have.
    fn update(&self, progress: Progress<'_>) -> Result<(), SandboxError> {
        let sources = apt_sources::debian(&self.image.suite)?;
        write(&self.folder.join("sources.list"), &apt_sources::written(&sources), 0o644)?;
        let configuration =
            configuration(&self.folder, &self.image.package_status(), &self.image.architecture);
        write(&self.folder.join("apt.conf"), &configuration, 0o644)?;
        make_folder(&self.folder.join("archives/partial"))?;
        make_folder(&self.folder.join("lists/partial"))?;
        progress("fetching the lists of packages");
        run(self.apt("apt-get").args(["--error-on=any", "update"]), FETCH_LIMIT).inspect_err(
            |_| {
                // Half of the lists would pass for all of them.
                let _ = fs::remove_dir_all(self.folder.join("lists"));
            },
        )?;
        Ok(())
    }

    /// Downloads what is needed for each name, and gives the names that there is nothing for.
    fn fetch(&self, names: &[String]) -> Result<Vec<String>, SandboxError> {
        match self.download(names) {
            Ok(()) => Ok(Vec::new()),
            // Names that exclude each other can be fetched one by one; what is unknown is found that way too.
            Err(_) if names.len() > 1 => {
                let mut unknown = Vec::new();
                for name in names {
                    unknown.extend(self.fetch(std::slice::from_ref(name))?);
                }
                Ok(unknown)
            }
            Err(SandboxError::Failed { stderr, .. })
                if UNKNOWN.iter().any(|said| stderr.contains(said)) =>
            {
                Ok(names.to_vec())
            }
            Err(error) => Err(error),
        }
    }

    fn download(&self, names: &[String]) -> Result<(), SandboxError> {
        run(
            self.apt("apt-get")
                .args(["--download-only", "--no-remove", "install", "--"])
                .args(names),
            FETCH_LIMIT,
        )?;
        Ok(())
    }

    /// Moves what was downloaded into the repository.
    fn take_over(&self) -> Result<(), SandboxError> {
        for package in packages_in(&self.folder.join("archives"))? {
            let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let place = self.repository.folder.join(pool_name(&name));
            fs::rename(&package, &place).map_err(SandboxError::path("moving", &package))?;
        }
        self.repository.index()
    }
}

/// apt's configuration, read after the machine's own: what that says of proxies and keys stays.
fn configuration(folder: &Path, status: &Path, architecture: &str) -> String {
    let (folder, status) = (folder.display(), status.display());
    format!(
        "#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
#clear Acquire::IndexTargets::deb::DEP-11;
#clear APT::Architectures;
#clear APT::Default-Release;
APT::Architecture \"{architecture}\";
APT::Architectures {{ \"{architecture}\"; }};
APT::Install-Recommends \"true\";
APT::Install-Suggests \"false\";
APT::Get::Assume-Yes \"true\";
APT::Sandbox::User \"root\";
Acquire::Languages \"none\";
Acquire::Retries \"3\";
Acquire::http::Timeout \"30\";
Acquire::https::Timeout \"30\";
Dir::Etc::sourcelist \"{folder}/sources.list\";
Dir::Etc::sourceparts \"/dev/null\";
Dir::Etc::preferences \"/dev/null\";
Dir::Etc::preferencesparts \"/dev/null\";
Dir::State \"{folder}\";
Dir::State::lists \"{folder}/lists\";
Dir::State::status \"{status}\";
Dir::State::extended_states \"{folder}/extended_states\";
Dir::Cache \"{folder}\";
Dir::Cache::archives \"{folder}/archives\";
Dir::Cache::pkgcache \"\";
Dir::Cache::srcpkgcache \"\";
"
    )
}

/// Whether apt would take it as the name of a package: not an option, a path, or a pattern for many.
fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "+-.~:=/_".contains(letter))
}

/// The name that Debian's own pool gives a file: without the epoch, whose `%3a` apt would decode in the index.
fn pool_name(file: &str) -> String {
    match file.split_once('_') {
        Some((name, rest)) => {
            let rest = rest.split_once("%3a").map_or(rest, |(_, version)| version);
            format!("{name}_{}", rest.replace('%', "_"))
        }
        None => file.to_owned(),
    }
}

fn packages_in(folder: &Path) -> Result<Vec<PathBuf>, SandboxError> {
    let mut packages = children(folder)?;
    packages.retain(|file| {
        file.extension().is_some_and(|extension| extension == "deb") && file.is_file()
    });
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_in_debians_pool() {
        for (file, expected) in [
            ("nginx_1.22.1-9+deb12u10_amd64.deb", "nginx_1.22.1-9+deb12u10_amd64.deb"),
            ("zlib1g_1%3a1.2.13.dfsg-1_amd64.deb", "zlib1g_1.2.13.dfsg-1_amd64.deb"),
        ] {
            assert_eq!(pool_name(file), expected);
        }
    }

    #[test]
    fn only_names_are_given_to_apt() {
        for name in ["nginx", "g++", "nginx=1.22.1-9", "nginx/bookworm", "libc6:amd64"] {
            assert!(is_name(name), "{name}");
        }
        for other in ["*", "-o", "./a.deb", "", "a b", "~nnginx"] {
            assert!(!is_name(other), "{other}");
        }
    }
}
