//! Users and groups, read from their files.

use std::collections::{BTreeMap, BTreeSet};

use super::{GroupEntry, UserEntry};

/// Reads users from the bytes of `passwd(5)`, `group(5)` and, where it may be read, `shadow(5)`.
///
/// As the C library does: the first entry of a name counts; lines that are invalid, comments or
/// references to NIS (`+name`) are left out.
pub fn parse_users(
    passwd: &[u8],
    shadow: Option<&[u8]>,
    groups: &BTreeMap<String, GroupEntry>,
) -> BTreeMap<String, UserEntry> {
    let hashes = shadow.map(parse_hashes).unwrap_or_default();
    let names: BTreeMap<u32, &str> = groups
        .values()
        .rev() // two groups with one number: the first by name wins
        .filter_map(|group| Some((group.gid?, group.name.as_str())))
        .collect();
    let mut memberships: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for group in groups.values() {
        for member in &group.members {
            memberships.entry(member).or_default().insert(&group.name);
        }
    }
    let mut users = BTreeMap::new();
    for fields in lines(passwd) {
        let [name, _, uid, gid, comment, home, shell] = fields.as_slice() else { continue };
        let (Some(uid), Some(gid)) = (number(uid), number(gid)) else { continue };
        if users.contains_key(name) {
            continue;
        }
        let groups = memberships.get(name.as_str());
        let entry = UserEntry {
            name: name.clone(),
            uid: Some(uid),
            group: Some(names.get(&gid).map_or_else(|| gid.to_string(), ToString::to_string)),
            groups: groups.into_iter().flatten().map(ToString::to_string).collect(),
            home: home.clone(),
            // passwd(5): an empty field means /bin/sh.
            shell: if shell.is_empty() { String::from("/bin/sh") } else { shell.clone() },
            comment: comment.clone(),
            password_hash: hashes.get(name).cloned(),
        };
        users.insert(name.clone(), entry);
    }
    users
}

/// Reads the groups from the bytes of `group(5)`; invalid lines are left out.
pub fn parse_groups(group: &[u8]) -> BTreeMap<String, GroupEntry> {
    let mut groups = BTreeMap::new();
    for fields in lines(group) {
        let [name, _, gid, members] = fields.as_slice() else { continue };
        let Some(gid) = number(gid) else { continue };
        if groups.contains_key(name) {
            continue;
        }
        let members: BTreeSet<_> =
            members.split(',').map(str::trim).filter(|member| !member.is_empty()).collect();
        let members = members.into_iter().map(str::to_owned).collect();
        groups.insert(name.clone(), GroupEntry { name: name.clone(), gid: Some(gid), members });
    }
    groups
}

/// The program that knows one name of `passwd` or `group` which the files do not: a directory
/// service's. Its output is a line of that database; it exits with 2 where there is none.
pub fn getent(database: &str, name: &str) -> Vec<String> {
    ["getent", "--", database, name].map(str::to_owned).into()
}

/// Whether `nsswitch.conf(5)` sends questions for `passwd` or `group` anywhere but to the files,
/// so that `getent` may know more than they do.
pub fn asks_elsewhere(nsswitch: &[u8], database: &str) -> bool {
    String::from_utf8_lossy(nsswitch)
        .lines()
        .filter_map(|line| line.split('#').next()?.split_once(':'))
        .filter(|(name, _)| name.trim() == database)
        .flat_map(|(_, services)| services.split_whitespace())
        .any(|service| {
            !service.starts_with('[') && !["files", "compat", "systemd"].contains(&service)
        })
}

/// The second fields of `shadow(5)`, by name.
fn parse_hashes(shadow: &[u8]) -> BTreeMap<String, String> {
    let mut hashes = BTreeMap::new();
    for fields in lines(shadow) {
        if let [name, hash, ..] = fields.as_slice() {
            hashes.entry(name.clone()).or_insert_with(|| hash.clone());
        }
    }
    hashes
}

/// The fields of all lines that name something. Bytes that are not UTF-8 (old comments) are
/// replaced.
fn lines(bytes: &[u8]) -> impl Iterator<Item = Vec<String>> + '_ {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| {
            !matches!(line.first(), None | Some(b'#' | b'+' | b'-' | b':' | b' ' | b'\t'))
        })
        .map(|line| String::from_utf8_lossy(line).split(':').map(str::to_owned).collect())
}

fn number(field: &str) -> Option<u32> {
    // `parse` alone would take a leading plus.
    field.bytes().all(|byte| byte.is_ascii_digit()).then(|| field.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &[u8] = b"root:x:0:\nadm:x:4:syslog,shop\nshop:x:1001:\nsudo:x:27:shop, shop,\n\
        broken:x\nnumber:x:x:\nshop:x:9999:root\n+::::\n# a comment:x:1:\n\nclone:x:1001:\n";

    #[test]
    fn groups_are_read_and_what_is_invalid_is_left_out() {
        let groups = parse_groups(GROUP);
        let seen: Vec<_> = groups
            .values()
            .map(|group| {
                format!("{} {} {}", group.name, group.gid.unwrap(), group.members.join(","))
            })
            .collect();
        assert_eq!(
            seen,
            ["adm 4 shop,syslog", "clone 1001 ", "root 0 ", "shop 1001 ", "sudo 27 shop"]
        );
    }

    #[test]
    fn users_are_read_with_their_groups_and_hashes() {
        let groups = parse_groups(GROUP);
        let cases: [(&[u8], &str); 10] = [
            (
                b"shop:x:1001:27:The Shop,,,:/srv/shop:/bin/bash",
                "1001 sudo adm,sudo /srv/shop /bin/bash $6$a",
            ),
            (b"root:x:0:0:root:/root:", "0 root  /root /bin/sh none"),
            (b"lone:x:7:4711::/:/bin/sh", "7 4711  / /bin/sh none"),
            (b"latin:x:8:0:Andr\xe9:/home/latin:/bin/sh", "8 root  /home/latin /bin/sh none"),
            (b"short:x:1:1:/", ""),
            (b"number:x:-1:0::/:/bin/sh", ""),
            (b"number:x:+1:0::/:/bin/sh", ""),
            (b"number:x:4294967296:0::/:/bin/sh", ""),
            (b"+nis::::::", ""),
            (b"two:x:5:0::/a:/bin/sh\ntwo:x:6:0::/b:/bin/sh", "5 root  /a /bin/sh none"),
        ];
        for (passwd, expected) in cases {
            let users = parse_users(passwd, Some(b"shop:$6$a:19000:0:99999:7:::\n"), &groups);
            let seen: Vec<_> = users
                .values()
                .map(|user| {
                    format!(
                        "{} {} {} {} {} {}",
                        user.uid.unwrap(),
                        user.group.as_deref().unwrap(),
                        user.groups.join(","),
                        user.home,
                        user.shell,
                        user.password_hash.as_deref().unwrap_or("none"),
                    )
                })
                .collect();
            assert_eq!(seen.join("\n"), expected, "{}", String::from_utf8_lossy(passwd));
        }
    }

    #[test]
    fn only_directory_services_need_getent() {
        let cases: [(&[u8], bool); 6] = [
            (b"passwd:         files systemd\ngroup: files sss\n", false),
            (b"passwd: files [NOTFOUND=return] compat\n", false),
            (b"passwd: files sss\n", true),
            (b"passwd:\tcompat ldap # directory\n", true),
            (b"#passwd: files ldap\n", false),
            (b"", false),
        ];
        for (nsswitch, expected) in cases {
            assert_eq!(asks_elsewhere(nsswitch, "passwd"), expected);
        }
    }
}
