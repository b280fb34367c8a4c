//! What is known of a host before anything is compared: `facts` in expressions.
//!
//! Read from files that the kernel and the distribution keep, without starting a process and
//! without asking the network. What is missing is null, never an error.

mod network;

use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

/// Most bytes of one file that are read; a router's tables may be longer.
const FILE_LIMIT: u64 = 1 << 20;

/// The facts of the host whose files are below `root`, as a JSON object. Kernel and architecture
/// are those of the running system.
pub fn gather(root: &Path) -> Value {
    let read = |path: &str| read(root, path);
    let exists = |path: &str| fs::symlink_metadata(root.join(path)).is_ok();
    let uname = rustix::system::uname();
    let node = first([
        one_line(&read("proc/sys/kernel/hostname")),
        one_line(&read("etc/hostname")),
        one_line(&uname.nodename().to_string_lossy()),
    ]);
    let network = network::gather(&network::Tables {
        route: &read("proc/net/route"),
        fib_trie: &read("proc/net/fib_trie"),
        if_inet6: &read("proc/net/if_inet6"),
        ipv6_route: &read("proc/net/ipv6_route"),
        devices: devices(root),
    });
    let os_release = match read("etc/os-release") {
        text if text.is_empty() => read("usr/lib/os-release"),
        text => text,
    };
    let cpus = cpus(&read("sys/devices/system/cpu/online"))
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    let init = if exists("run/systemd/system") {
        Some(String::from("systemd"))
    } else {
        one_line(&read("proc/1/comm"))
    };
    let machine_id =
        first([one_line(&read("etc/machine-id")), one_line(&read("var/lib/dbus/machine-id"))]);
    json!({
        "os": operating_system(&os_release),
        "kernel": uname.release().to_string_lossy(),
        "arch": uname.machine().to_string_lossy(),
        "cpus": cpus,
        "memory_mb": memory_mb(&read("proc/meminfo")),
        "hostname": node.as_deref().map(short_name),
        "fqdn": node.as_deref().map(|node| full_name(node, &read("etc/hosts"))),
        "machine_id": machine_id.filter(|id| id != "uninitialized"),
        "init": init,
        "ipv4": { "default": network.ipv4 },
        "ipv6": { "default": network.ipv6 },
        "interfaces": network.interfaces,
        "mounts": mounts(&read("proc/self/mountinfo")),
        "reboot_required": exists("run/reboot-required") || exists("var/run/reboot-required"),
    })
}

/// A file's text; empty if there is none.
fn read(root: &Path, path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(root.join(path)) {
        // What was read before an error is better than nothing.
        let _ = file.take(FILE_LIMIT).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn first<const N: usize>(candidates: [Option<String>; N]) -> Option<String> {
    candidates.into_iter().flatten().next()
}

/// The first line, unless it is empty.
fn one_line(text: &str) -> Option<String> {
    let line = text.lines().next().unwrap_or_default().trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// The network devices and their hardware addresses, by name.
fn devices(root: &Path) -> Vec<(String, Option<String>)> {
    let Ok(entries) = fs::read_dir(root.join("sys/class/net")) else { return Vec::new() };
    let mut devices: Vec<_> = entries
        .flatten()
        // There are files beside the devices, `bonding_masters` for one.
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let address = one_line(&read(&entry.path(), "address"));
            Some((name, address.filter(|address| address != "00:00:00:00:00:00")))
        })
        .collect();
    devices.sort();
    devices
}

/// `os`: from os-release(5).
fn operating_system(os_release: &str) -> Value {
    let value = |wanted: &str| {
        os_release
            .lines()
            .filter_map(|line| line.trim().split_once('='))
            .find(|(key, _)| *key == wanted)
            .map(|(_, value)| unquote(value))
            .filter(|value| !value.is_empty())
    };
    let id = value("ID");
    let like = value("ID_LIKE").unwrap_or_default();
    let family = id
        .iter()
        .map(String::as_str)
        .chain(like.split_whitespace())
        .find_map(family)
        .map(str::to_owned)
        .or_else(|| id.clone());
    let codename = value("VERSION_CODENAME").or_else(|| value("UBUNTU_CODENAME"));
    json!({
        "family": family,
        "id": id,
        "version": value("VERSION_ID"),
        "codename": codename,
    })
}

/// The family that a distribution's `ID` belongs to, by the way in which it is managed.
fn family(id: &str) -> Option<&'static str> {
    Some(match id {
        "debian" | "ubuntu" => "debian",
        "rhel" | "fedora" | "centos" | "rocky" | "almalinux" | "ol" | "amzn" => "redhat",
        "suse" | "sles" | "opensuse" | "opensuse-leap" | "opensuse-tumbleweed" => "suse",
        "arch" | "archlinux" => "arch",
        "alpine" => "alpine",
        "gentoo" => "gentoo",
        _ => return None,
    })
}

/// A value of os-release: as a shell would read it, without expansions.
fn unquote(value: &str) -> String {
    let value = value.trim();
    if let Some(inner) = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return inner.to_owned();
    }
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        let character = if character == '\\' { characters.next() } else { Some(character) };
        plain.extend(character);
    }
    plain
}

/// How many processors a list such as `0-3,6` names.
fn cpus(online: &str) -> Option<usize> {
    let mut count = 0_usize;
    for range in online.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

/// All memory, in MiB, from proc_meminfo(5).
fn memory_mb(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes / 1024)
}

fn short_name(node: &str) -> &str {
    node.split('.').next().unwrap_or(node)
}

/// The name with its domain, as hosts(5) has it; otherwise the name itself.
fn full_name(node: &str, hosts: &str) -> String {
    let short = short_name(node);
    if node.len() > short.len() {
        return node.to_owned();
    }
    hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(|line| line.split_whitespace().skip(1))
        .find(|name| name.strip_prefix(short).is_some_and(|rest| rest.starts_with('.')))
        .unwrap_or(node)
        .to_owned()
}

/// What is mounted, from proc_pid_mountinfo(5).
fn mounts(mountinfo: &str) -> Vec<Value> {
    let mount = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(4);
        let (path, options) = (mount.next()?, mount.next()?);
        let mut file_system = file_system.split(' ');
        let (fstype, device) = (file_system.next()?, file_system.next()?);
        let mut all: Vec<&str> = options.split(',').collect();
        for option in file_system.next().unwrap_or_default().split(',') {
            if !option.is_empty() && !all.contains(&option) {
                all.push(option);
            }
        }
        Some(json!({
            "path": unescape(path),
            "device": unescape(device),
            "fstype": fstype,
            "options": all.join(","),
        }))
    };
    mountinfo.lines().filter_map(mount).collect()
}

/// Takes back the octal escapes of blanks and backslashes.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if *byte == b'\\' => {
                bytes.push(code);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_have_families() {
        let cases = [
            (
                "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n",
                r#"{"family":"debian","id":"debian","version":"12","codename":"bookworm"}"#,
            ),
            (
                "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID='21'\nUBUNTU_CODENAME=jammy\n",
                r#"{"family":"debian","id":"linuxmint","version":"21","codename":"jammy"}"#,
            ),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.3\"\n",
                r#"{"family":"redhat","id":"rocky","version":"9.3","codename":null}"#,
            ),
            ("ID=nixos\n", r#"{"family":"nixos","id":"nixos","version":null,"codename":null}"#),
            ("", r#"{"family":null,"id":null,"version":null,"codename":null}"#),
        ];
        for (text, expected) in cases {
            assert_eq!(operating_system(text).to_string(), expected);
        }
    }

    #[test]
    fn numbers_are_counted() {
        let cases =
            [("0-3\n", Some(4)), ("0", Some(1)), ("0-1,4,6-7", Some(5)), ("", None), ("3-1", None)];
        for (text, expected) in cases {
            assert_eq!(cpus(text), expected, "{text:?}");
        }
        assert_eq!(memory_mb("MemTotal:       24684092 kB\nMemFree: 1 kB\n"), Some(24_105));
        assert_eq!(memory_mb("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn names_have_domains() {
        let hosts = "127.0.0.1 localhost web1\n127.0.1.1 web10.example.com web1.example.com web1\n";
        assert_eq!(full_name("web1", hosts), "web1.example.com");
        assert_eq!(full_name("web2", hosts), "web2");
        assert_eq!(full_name("web1.example.org", hosts), "web1.example.org");
        assert_eq!(short_name("web1.example.org"), "web1");
    }

    #[test]
    fn mounts_are_told() {
        let text = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
                    30 27 8:1 / /srv/a\\040b rw,noatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
                    broken\n";
        let expected = [
            r#"{"path":"/proc","device":"proc","fstype":"proc","options":"rw,relatime"}"#,
            r#"{"path":"/srv/a b","device":"/dev/sda1","fstype":"ext4","options":"rw,noatime,errors=remount-ro"}"#,
        ];
        let told: Vec<String> = mounts(text).iter().map(Value::to_string).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn an_empty_root_has_all_names() {
        let root = tempfile::tempdir().unwrap();
        let facts = gather(root.path());
        assert_eq!(facts["os"]["family"], Value::Null);
        assert_eq!(facts["ipv4"]["default"]["address"], Value::Null);
        assert_eq!(facts["reboot_required"], false);
        assert!(facts["kernel"].is_string());
        fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
        fs::write(root.path().join("run/reboot-required"), "").unwrap();
        let facts = gather(root.path());
        assert_eq!(facts["init"], "systemd");
        assert_eq!(facts["reboot_required"], true);
    }
}
