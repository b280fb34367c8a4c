//! What the machine has to have before it can boot throw-away hosts.

use std::path::Path;

use super::SandboxError;
use super::process::SEARCH_PATH;

/// Programs of which one must be there, and the Debian package that has it.
const PROGRAMS: &[(&[&str], &str)] = &[
    (&["systemd-nspawn"], "systemd-container"),
    (&["debootstrap"], "debootstrap"),
    (&["ip"], "iproute2"),
    (&["ssh"], "openssh-client"),
    (&["ssh-keygen"], "openssh-client"),
    (&["apt-ftparchive", "dpkg-scanpackages"], "apt-utils"),
    (&["apt-get"], "apt"),
    (&["dpkg"], "dpkg"),
    (&["setsid"], "util-linux"),
    (&["flock"], "util-linux"),
    (&["umount"], "mount"),
    (&["chroot"], "coreutils"),
    (&["find"], "findutils"),
];

/// Checks that throw-away hosts can be made here.
///
/// # Errors
/// One error that names everything that is missing; its hint is the line that installs it.
pub fn requirements() -> Result<(), SandboxError> {
    let mut packages = Vec::new();
    for (programs, package) in PROGRAMS {
        if !programs.iter().any(|program| installed(program)) && !packages.contains(package) {
            packages.push(*package);
        }
    }
    let root = !rustix::process::geteuid().is_root();
    if root || !packages.is_empty() {
        return Err(SandboxError::Requirements { root, packages });
    }
    Ok(())
}

/// Whether a program is on the search path that the room uses.
pub(super) fn installed(program: &str) -> bool {
    SEARCH_PATH.split(':').any(|folder| Path::new(folder).join(program).is_file())
}
