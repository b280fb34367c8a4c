//! The hosts' network: namespaces of its own, joined by a bridge, with no route out.
//!
//! The controller's end is a namespace too. It holds the bridge and answers `unreachable` for whatever is not a host,
//! so that a program that looks for the outside world fails at once instead of waiting.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::SandboxError;
use super::process::{SHORT, program, run, run_with};

/// Where ip-netns(8) keeps the namespaces.
const NAMESPACES: &str = "/run/netns";

/// The controller's address in the hosts' network.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 1);

/// How many hosts a sandbox can have.
pub(super) const ROOM: u16 = 4000;

/// The file of a namespace.
pub(super) fn path(namespace: &str) -> PathBuf {
    Path::new(NAMESPACES).join(namespace)
}

/// The address of the host with this number; numbers begin at 1.
pub(super) fn address(number: u16) -> IpAddr {
    let [high, low] = (number + 1).to_be_bytes();
    Ipv4Addr::new(10, 213, high, low).into()
}

/// The name of the bridge's end of a host's link.
pub(super) fn link(number: u16) -> String {
    format!("host{number}")
}

/// Makes the controller's end, if it is not there.
pub(super) fn make_controller_end(namespace: &str) -> Result<(), SandboxError> {
    if inside(&path(namespace), || fs::exists("/proc/sys/net/ipv4/conf/bridge"))
        .is_ok_and(|there| matches!(there, Ok(true)))
    {
        return Ok(());
    }
    delete(namespace)?;
    run(program("ip").args(["netns", "add", namespace]), SHORT)?;
    batch(
        namespace,
        &format!(
            "link set lo up\nlink add bridge type bridge\naddr add {GATEWAY}/16 dev bridge\nlink set bridge up\nroute add unreachable default\n"
        ),
    )?;
    // With forwarding off the kernel would drop in silence what has no route.
    let switch = Path::new("/proc/sys/net/ipv4/ip_forward");
    inside(&path(namespace), || fs::write(switch, "1"))?
        .map_err(SandboxError::path("writing", switch))
}

/// Makes a host's namespace, joined to the bridge.
pub(super) fn make_host_end(
    controller: &str,
    namespace: &str,
    number: u16,
) -> Result<(), SandboxError> {
    let (link, address) = (link(number), address(number));
    delete(namespace)?;
    run(program("ip").args(["netns", "add", namespace]), SHORT)?;
    batch(
        controller,
        &format!(
            "link add {link} type veth peer name eth0 netns {namespace}\nlink set {link} master bridge\nlink set {link} up\n"
        ),
    )?;
    batch(
        namespace,
        &format!(
            "link set lo up\naddr add {address}/16 dev eth0\nlink set eth0 up\nroute add default via {GATEWAY}\n"
        ),
    )
}

/// Cuts a host off from the bridge, or joins it again.
pub(super) fn set_link(controller: &str, link: &str, state: &str) -> Result<(), SandboxError> {
    batch(controller, &format!("link set {link} {state}\n"))
}

/// Deletes a namespace with all that is in it; one that is not there is fine.
pub(super) fn delete(namespace: &str) -> Result<(), SandboxError> {
    if path(namespace).exists() {
        run(program("ip").args(["netns", "del", namespace]), SHORT)?;
    }
    Ok(())
}

fn batch(namespace: &str, commands: &str) -> Result<(), SandboxError> {
    run_with(
        program("ip").args(["-n", namespace, "-batch", "-"]),
        commands.as_bytes(),
        SHORT,
        &|_| {},
    )?;
    Ok(())
}

/// Does something in a network namespace: sockets that `work` makes belong to it, wherever they are used later.
///
/// It runs on a thread of its own, since a thread cannot leave a namespace by itself.
///
/// # Errors
/// [`SandboxError::Network`] if the namespace cannot be entered.
pub fn inside<T: Send>(
    namespace: &Path,
    work: impl FnOnce() -> T + Send,
) -> Result<T, SandboxError> {
    let failed = |source| SandboxError::Network {
        doing: "entering the namespace",
        target: namespace.display().to_string(),
        source,
    };
    let file = File::open(namespace).map_err(failed)?;
    thread::scope(|scope| {
        let worker = scope.spawn(|| -> io::Result<T> {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        });
        match worker.join() {
            Ok(done) => done.map_err(failed),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The processes of a namespace, oldest first; one of a host is its whole system.
pub(super) fn processes(namespace: &str) -> Vec<Pid> {
    let Ok(wanted) = fs::metadata(path(namespace)) else { return Vec::new() };
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut found: Vec<i32> = entries
        .flatten()
        .filter(|entry| {
            fs::metadata(entry.path().join("ns/net"))
                .is_ok_and(|its| (its.dev(), its.ino()) == (wanted.dev(), wanted.ino()))
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    found.sort_unstable();
    found.into_iter().filter_map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::{ROOM, address};

    #[test]
    fn each_host_has_an_address_of_its_own() {
        for (number, expected) in
            [(1, "10.213.0.2"), (254, "10.213.0.255"), (255, "10.213.1.0"), (ROOM, "10.213.15.161")]
        {
            assert_eq!(address(number).to_string(), expected);
        }
    }
}
