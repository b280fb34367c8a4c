//! The root that all throw-away hosts share: a small Debian, made once and cached.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lock::Lock;
use super::process::{SHORT, program, run, run_with};
use super::{Progress, SandboxError, apt_sources, mounts};

/// Counts up whenever what is made below changes: an image of another recipe is not used.
const RECIPE: u32 = 1;

/// The suite where the machine itself is not a Debian.
const DEFAULT_SUITE: &str = "bookworm";

/// What a host has beside Debian's essential packages.
const PACKAGES: &str =
    "systemd,systemd-sysv,dbus,openssh-server,sudo,iproute2,ca-certificates,procps,curl";

/// Where the hosts see the repositories, and so where apt looks for packages.
pub(super) const REPOSITORIES: [&str; 2] =
    ["/usr/local/share/packages", "/usr/local/share/own-packages"];

/// How long making the root may take.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Units that do nothing for a host that lives for minutes, take part in its boot, or would hold dpkg's lock.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "console-getty.service",
    "getty@tty1.service",
    "systemd-firstboot.service",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
];

/// Files of the image; the places of ours are chosen so that a state file has the usual ones for itself.
const FILES: &[(&str, &str)] = &[
    (
        // The first value of an option is the one that counts, so a state file's own drop-in comes before this one.
        "etc/ssh/sshd_config.d/zz-sandbox.conf",
        "MaxStartups 500:30:1000\nMaxSessions 100\nUseDNS no\nPermitRootLogin prohibit-password\n",
    ),
    ("etc/default/locale", "LANG=C.UTF-8\n"),
    ("etc/apt/apt.conf.d/80sandbox", "Acquire::Languages \"none\";\n"),
    // A host that is thrown away needs no protection from the machine's loss of power.
    ("etc/dpkg/dpkg.cfg.d/sandbox", "force-unsafe-io\n"),
    (
        "etc/apt/sources.list.d/sandbox.list",
        "deb [trusted=yes] file:/usr/local/share/packages ./\ndeb [trusted=yes] file:/usr/local/share/own-packages ./\n",
    ),
    // Empty: systemd takes the one that each host is given, and does not think it is the first boot.
    ("etc/machine-id", ""),
];

/// What the bootstrap leaves behind of the machine or of itself.
const REMOVED: &[&str] = &[
    "etc/apt/sources.list",
    "etc/hostname",
    "etc/resolv.conf",
    "var/log/bootstrap.log",
    "var/cache/apt/archives",
];

/// The cached root of a Debian release.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// Its root folder, which nobody writes to.
    pub root: PathBuf,
    /// Release, architecture and recipe, as one name.
    pub key: String,
    /// Debian's code name.
    pub suite: String,
    /// Debian's name of the architecture.
    pub architecture: String,
    /// The public host keys, each as `TYPE BASE64`.
    pub host_keys: Vec<String>,
}

impl Image {
    /// The image in the cache, made now if it is not there.
    pub fn ensure(cache: &Path, progress: Progress<'_>) -> Result<Self, SandboxError> {
        let suite = suite(&fs::read_to_string("/etc/os-release").unwrap_or_default());
        let architecture = run(program("dpkg").arg("--print-architecture"), SHORT)?;
        let architecture = String::from_utf8_lossy(&architecture).trim().to_owned();
        let key = format!("{suite}-{architecture}-{RECIPE}");
        let images = cache.join("images");
        let root = images.join(&key);
        if !root.is_dir() {
            let _lock = Lock::take(
                &images.join(format!("{key}.lock")),
                "making the hosts' root image",
                progress,
            )?;
            if !root.is_dir() {
                make(&images.join(format!("{key}.partial")), &root, &suite, progress)?;
            }
        }
        let host_keys = host_keys(&root)?;
        Ok(Self { root, key, suite, architecture, host_keys })
    }

    /// The database of the packages that are installed in it.
    pub fn package_status(&self) -> PathBuf {
        self.root.join("var/lib/dpkg/status")
    }
}

/// The suite of the machine if it is a Debian, from os-release(5).
fn suite(os_release: &str) -> String {
    let value = |name: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches(['"', '\'']))
    };
    match (value("ID"), value("VERSION_CODENAME")) {
        (Some("debian"), Some(suite)) if !suite.is_empty() => suite.to_owned(),
        _ => DEFAULT_SUITE.to_owned(),
    }
}

fn make(
    partial: &Path,
    root: &Path,
    suite: &str,
    progress: Progress<'_>,
) -> Result<(), SandboxError> {
    let sources = apt_sources::debian(suite)?;
    let Some(mirror) = sources.first() else {
        return Err(SandboxError::NoMirror { suite: suite.to_owned() });
    };
    remove_tree(partial)?;
    progress(&format!(
        "making the hosts' root image: Debian {suite} from {} (once; one to four minutes)",
        mirror.uri
    ));
    run_with(
        program("debootstrap")
            .args(["--variant=minbase", &format!("--include={PACKAGES}"), suite])
            .arg(partial)
            .arg(&mirror.uri),
        &[],
        LIMIT,
        &|line| progress(line.trim_start_matches("I: ")),
    )?;
    progress("finishing the hosts' root image");
    finish(partial)?;
    mounts::unmount_below(partial)?;
    fs::rename(partial, root).map_err(SandboxError::path("renaming", partial))
}

/// Makes a host's root of what the bootstrap left.
fn finish(root: &Path) -> Result<(), SandboxError> {
    for name in REMOVED {
        remove_tree(&root.join(name))?;
    }
    for folder in ["var/cache/apt/archives/partial", "var/lib/apt/lists/partial"] {
        make_folder(&root.join(folder))?;
    }
    for (name, text) in FILES {
        write(&root.join(name), text, 0o644)?;
    }
    for unit in MASKED {
        replace_link(Path::new("/dev/null"), &root.join("etc/systemd/system").join(unit))?;
    }
    // apt links the index of a local repository instead of copying it. With the links made here, whatever is in the
    // repositories can be installed at once, and without `apt-get update`.
    let lists = root.join("var/lib/apt/lists");
    for list in children(&lists)? {
        if list.is_file() {
            fs::remove_file(&list).map_err(SandboxError::path("removing", &list))?;
        }
    }
    for repository in REPOSITORIES {
        make_folder(&root.join(repository.trim_start_matches('/')))?;
        let list = format!("{}_._Packages", repository.replace('/', "_"));
        replace_link(Path::new(&format!("{repository}/./Packages")), &lists.join(list))?;
    }
    for name in ["pkgcache.bin", "srcpkgcache.bin"] {
        remove_tree(&root.join("var/cache/apt").join(name))?;
    }
    run(program("chroot").arg(root).args(["ssh-keygen", "-q", "-A"]), SHORT)?;
    Ok(())
}

fn host_keys(root: &Path) -> Result<Vec<String>, SandboxError> {
    let mut keys = Vec::new();
    for file in children(&root.join("etc/ssh"))? {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("ssh_host_") && name.ends_with("_key.pub") {
            let text = fs::read_to_string(&file).map_err(SandboxError::path("reading", &file))?;
            keys.push(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
        }
    }
    Ok(keys)
}

/// The entries of a folder, sorted.
pub(super) fn children(folder: &Path) -> Result<Vec<PathBuf>, SandboxError> {
    let failed = || SandboxError::path("reading", folder);
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed())? {
        entries.push(entry.map_err(failed())?.path());
    }
    entries.sort();
    Ok(entries)
}

/// Makes a folder and those above it; everybody may look into it, whatever the caller's umask is.
pub(super) fn make_folder(folder: &Path) -> Result<(), SandboxError> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)
        .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(0o755)))
        .map_err(SandboxError::path("making the folder", folder))
}

/// Writes a small file with its folder; a link there is replaced, not followed.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> Result<(), SandboxError> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    remove_tree(path)?;
    fs::write(path, text).map_err(SandboxError::path("writing", path))?;
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(SandboxError::path("setting the mode of", path))
}

/// Removes a file or a folder, whatever is mounted in it first; what is not there is fine.
pub(super) fn remove_tree(path: &Path) -> Result<(), SandboxError> {
    let removed = match fs::symlink_metadata(path) {
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => {
            mounts::unmount_below(path)?;
            fs::remove_dir_all(path)
        }
        Ok(_) => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(SandboxError::path("removing", path)(error))
        }
        _ => Ok(()),
    }
}

fn replace_link(target: &Path, link: &Path) -> Result<(), SandboxError> {
    remove_tree(link)?;
    symlink(target, link).map_err(SandboxError::path("linking", link))
}

#[cfg(test)]
mod tests {
    use super::suite;

    #[test]
    fn the_suite_is_the_machines_own_where_it_is_a_debian() {
        for (text, expected) in [
            ("ID=debian\nVERSION_CODENAME=trixie\n", "trixie"),
            ("ID=\"debian\"\nVERSION_CODENAME=\"bookworm\"\n", "bookworm"),
            ("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n", "bookworm"),
            ("ID_LIKE=debian\n", "bookworm"),
            ("", "bookworm"),
        ] {
            assert_eq!(suite(text), expected, "{text}");
        }
    }
}
