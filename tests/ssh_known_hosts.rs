//! Our verdicts on host keys, compared with OpenSSH's own: each odd `known_hosts` file is given to the real `ssh` and to
//! us, against the same real sshd.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod sshd;

use std::path::Path;
use std::process::Command;

use converge::ssh::{Destination, Error};

use sshd::{KeyRing, Options, Sshd, client, keygen};

/// A name, the alias to look up (none: host and port), and the file. In the file, `P` in braces is the port, `ED`, `EC`
/// and `RSA` the keys that the host has, `NOED`, `NOEC`, `NORSA` others, `CA` and `NOCA` the authority that signed the
/// host's certificate and another, `HASH` the hashed host and port. `----` begins the system's file.
const CASES: &[(&str, Option<&str>, &str)] = &[
    ("empty", None, ""),
    ("right key", None, "[127.0.0.1]:{P} {ED}\n"),
    ("other key", None, "[127.0.0.1]:{P} {NOED}\n"),
    ("no line feed at the end", None, "[127.0.0.1]:{P} {ED}"),
    ("carriage returns", None, "# windows\r\n[127.0.0.1]:{P} {ED}\r\n"),
    ("tabs", None, "[127.0.0.1]:{P}\t{ED}\tme@here\n"),
    ("tab before the name", None, "\t [127.0.0.1]:{P}   {ED}   a comment\n"),
    ("commented out", None, "# [127.0.0.1]:{P} {ED}\n"),
    ("comment with a hash sign", None, "[127.0.0.1]:{P} {ED} # and more\n"),
    ("bare host vouches", None, "127.0.0.1 {ED}\n"),
    ("bare host with another key", None, "127.0.0.1 {NOED}\n"),
    ("bare host revoked", None, "@revoked 127.0.0.1 {ED}\n"),
    ("bare host revoked and known", None, "@revoked 127.0.0.1 {ED}\n[127.0.0.1]:{P} {ED}\n"),
    ("another port", None, "[127.0.0.1]:1 {ED}\n"),
    ("wrong key first, right key second", None, "[127.0.0.1]:{P} {NOED}\n[127.0.0.1]:{P} {ED}\n"),
    ("right key first, wrong key second", None, "[127.0.0.1]:{P} {ED}\n[127.0.0.1]:{P} {NOED}\n"),
    ("only rsa is known", None, "[127.0.0.1]:{P} {RSA}\n"),
    ("only ecdsa is known", None, "[127.0.0.1]:{P} {EC}\n"),
    ("another rsa is known", None, "[127.0.0.1]:{P} {NORSA}\n"),
    ("another rsa, right ed25519", None, "[127.0.0.1]:{P} {NORSA}\n[127.0.0.1]:{P} {ED}\n"),
    ("another ed25519, right rsa", None, "[127.0.0.1]:{P} {NOED}\n[127.0.0.1]:{P} {RSA}\n"),
    ("revoked", None, "@revoked [127.0.0.1]:{P} {ED}\n"),
    ("revoked after known", None, "[127.0.0.1]:{P} {ED}\n@revoked [127.0.0.1]:{P} {ED}\n"),
    ("revoked for everybody", None, "@revoked * {ED}\n[127.0.0.1]:{P} {ED}\n"),
    ("another key is revoked", None, "@revoked * {NOED}\n[127.0.0.1]:{P} {ED}\n"),
    ("revoked with tabs only", None, "@revoked\t*\t{ED TABS}\n[127.0.0.1]:{P} {ED}\n"),
    ("revoked with one tab", None, "@revoked\t* {ED}\n[127.0.0.1]:{P} {ED}\n"),
    ("two markers", None, "@revoked @revoked * {ED}\n[127.0.0.1]:{P} {ED}\n"),
    ("unknown marker", None, "@trusted [127.0.0.1]:{P} {ED}\n"),
    ("marker in capitals", None, "@REVOKED * {ED}\n[127.0.0.1]:{P} {ED}\n"),
    ("hashed", None, "{HASH} {ED}\n"),
    ("hashed, other key", None, "{HASH} {NOED}\n"),
    ("hashed and revoked", None, "@revoked {HASH} {ED}\n[127.0.0.1]:{P} {ED}\n"),
    ("broken hash", None, "|1|AAAA|BBBB {ED}\n"),
    ("half a hash", None, "|1|AAAA {ED}\n[127.0.0.1]:{P} {NOED}\n"),
    ("another kind of hash", None, "|2|x|y {ED}\n"),
    ("wildcard host", None, "[127.0.*]:{P} {ED}\n"),
    ("wildcard port", None, "[127.0.0.1]:* {ED}\n"),
    ("question marks", None, "[127.?.?.1]:{P} {ED}\n"),
    ("star alone", None, "* {ED}\n"),
    ("negated", None, "*,![127.0.0.1]:{P} {ED}\n"),
    ("negated first", None, "![127.0.0.1]:{P},* {ED}\n"),
    ("negated other", None, "!web,[127.0.0.1]:{P} {ED}\n"),
    ("negation alone", None, "!web {ED}\n"),
    ("list", None, "web,[127.0.0.1]:{P},db {ED}\n"),
    ("list with a blank", None, "web, [127.0.0.1]:{P} {ED}\n"),
    ("empty pattern in the list", None, ",,[127.0.0.1]:{P} {ED}\n"),
    ("name only", None, "[127.0.0.1]:{P}\n[127.0.0.1]:{P} {ED}\n"),
    ("key is no base64", None, "[127.0.0.1]:{P} ssh-ed25519 !!!!\n"),
    ("key is cut short", None, "[127.0.0.1]:{P} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\n"),
    ("type and key differ", None, "[127.0.0.1]:{P} ssh-rsa {ED BLOB}\n"),
    ("unknown type", None, "[127.0.0.1]:{P} ssh-future {ED BLOB}\n"),
    ("protocol 1", None, "[127.0.0.1]:{P} 1024 35 1234567890\n"),
    ("spaces at the end", None, "[127.0.0.1]:{P} {ED}   \n"),
    ("system file", None, "----[127.0.0.1]:{P} {ED}\n"),
    ("system file knows another", None, "[127.0.0.1]:{P} {ED}\n----[127.0.0.1]:{P} {NOED}\n"),
    ("user file knows another", None, "[127.0.0.1]:{P} {NOED}\n----[127.0.0.1]:{P} {ED}\n"),
    ("system file revokes", None, "[127.0.0.1]:{P} {ED}\n----@revoked * {ED}\n"),
    ("alias", Some("web1"), "web1 {ED}\n"),
    ("alias ignores host and port", Some("web1"), "[127.0.0.1]:{P} {ED}\n"),
    ("alias, other key", Some("web1"), "web1 {NOED}\n"),
    ("alias by wildcard", Some("web1.example.com"), "*.example.com {ED}\n"),
    ("alias by capitals in the file", Some("web1"), "WEB1 {ED}\n"),
    ("alias in a negated list", Some("web1"), "web*,!web1 {ED}\n"),
    ("alias that looks like host and port", Some("[web1]:22"), "[web1]:22 {ED}\n"),
    ("several stars", Some("a.b.c.example.com"), "a*b*c*.com {ED}\n"),
    ("several stars, no match", Some("a.b.c.example.com"), "a*b*d*.com {ED}\n"),
    ("authority", None, "@cert-authority [127.0.0.1]:{P} {CA}\n"),
    ("authority for everybody", None, "@cert-authority * {CA}\n"),
    ("authority for the bare host", None, "@cert-authority 127.0.0.1 {CA}\n"),
    ("another authority", None, "@cert-authority * {NOCA}\n"),
    ("another authority, key known", None, "@cert-authority * {NOCA}\n[127.0.0.1]:{P} {ED}\n"),
    ("another authority, another key", None, "@cert-authority * {NOCA}\n[127.0.0.1]:{P} {NOED}\n"),
    ("authority revoked", None, "@cert-authority * {CA}\n@revoked * {CA}\n"),
    ("certified key revoked", None, "@cert-authority * {CA}\n@revoked * {ED}\n"),
    ("authority without its marker", None, "[127.0.0.1]:{P} {CA}\n"),
    ("the key as an authority", None, "@cert-authority * {ED}\n"),
    ("authority with tabs only", None, "@cert-authority\t*\t{CA TABS}\n"),
    ("authority for another name", Some("web1"), "@cert-authority * {CA}\n"),
    (
        "authority, key known under a name not certified",
        Some("web1"),
        "@cert-authority * {CA}\nweb1 {ED}\n",
    ),
];

struct Bench {
    sshd: Sshd,
    /// sshd reads the certificate for each connection.
    _work: tempfile::TempDir,
    keys: Vec<(&'static str, String)>,
}

impl Bench {
    fn new(certified: bool) -> Option<Self> {
        let ring = KeyRing::get();
        let work = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        for name in ["ca", "no_ca"] {
            keygen(&["-t", "ed25519", "-N", "", "-f", name], work.path());
        }
        let public = ring.path("host_ed25519.pub");
        let certificate = work.path().join("host_ed25519-cert.pub");
        std::fs::copy(public, work.path().join("host_ed25519.pub")).unwrap();
        keygen(
            &["-s", "ca", "-I", "host", "-h", "-n", "127.0.0.1", "host_ed25519.pub"],
            work.path(),
        );
        if certified {
            options.config = format!("HostCertificate {}", certificate.display());
        }
        let sshd = Sshd::start(&options)?;
        let read = |name: &str| {
            let text = std::fs::read_to_string(work.path().join(name)).unwrap();
            text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
        };
        let ed = ring.public("host_ed25519");
        let keys = vec![
            ("{P}", sshd.port.to_string()),
            ("{ED BLOB}", ed.split(' ').nth(1).unwrap().to_owned()),
            ("{ED TABS}", ed.replace(' ', "\t")),
            ("{ED}", ed),
            ("{EC}", ring.public("host_ecdsa")),
            ("{RSA}", ring.public("host_rsa")),
            ("{NOED}", ring.public("other_ed25519")),
            ("{NOEC}", ring.public("other_ecdsa")),
            ("{NORSA}", ring.public("other_rsa")),
            ("{CA TABS}", read("ca.pub").replace(' ', "\t")),
            ("{CA}", read("ca.pub")),
            ("{NOCA}", read("no_ca.pub")),
            ("{HASH}", hashed(work.path(), &format!("[127.0.0.1]:{}", sshd.port), &read("ca.pub"))),
        ];
        Some(Self { sshd, keys, _work: work })
    }

    fn fill(&self, text: &str) -> String {
        self.keys.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    async fn compare(
        &self,
        (name, alias, text): (&str, Option<&str>, &str),
        number: usize,
    ) -> Option<String> {
        let text = self.fill(text);
        let (user, system) = text.split_once("----").unwrap_or((&text, ""));
        let files = [("user", user), ("system", system)].map(|(kind, text)| {
            let path = self.sshd.folder.path().join(format!("known_{kind}_{number}"));
            std::fs::write(&path, text).unwrap();
            path
        });
        let mut destination = self.sshd.destination("dan");
        destination.host_keys.user_files = vec![files[0].clone()];
        destination.host_keys.global_files = vec![files[1].clone()];
        destination.host_keys.alias = alias.map(str::to_owned);
        let ours = ours(&destination).await;
        let theirs = tokio::task::spawn_blocking(move || theirs(&destination)).await.unwrap();
        (ours != theirs).then(|| format!("{name}: we say {ours}, OpenSSH says {theirs}"))
    }
}

fn hashed(folder: &Path, name: &str, key: &str) -> String {
    let file = folder.join("hash");
    std::fs::write(&file, format!("{name} {key}\n")).unwrap();
    keygen(&["-H", "-f", "hash"], folder);
    std::fs::read_to_string(file).unwrap().split(' ').next().unwrap().to_owned()
}

async fn ours(destination: &Destination) -> String {
    match client().connect(destination).await {
        Ok(session) => {
            session.close().await;
            "known".into()
        }
        Err(Error::HostKeyUnknown { .. }) => "unknown".into(),
        Err(Error::HostKeyChanged { .. }) => "changed".into(),
        Err(Error::HostKeyRevoked { .. }) => "revoked".into(),
        Err(error) => error.to_string(),
    }
}

fn theirs(destination: &Destination) -> String {
    let mut ssh = Command::new("ssh");
    ssh.args([
        "-F",
        "/dev/null",
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "IdentityAgent=none",
    ]);
    ssh.arg("-i").arg(&destination.identity_files[0].path);
    for (option, files) in [
        ("UserKnownHostsFile", &destination.host_keys.user_files),
        ("GlobalKnownHostsFile", &destination.host_keys.global_files),
    ] {
        ssh.arg("-o").arg(format!("{option}={}", files[0].display()));
    }
    if let Some(alias) = &destination.host_keys.alias {
        ssh.arg("-o").arg(format!("HostKeyAlias={alias}"));
    }
    let output =
        ssh.args(["-p", &destination.port.to_string(), "dan@127.0.0.1", "true"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let verdict = [
        ("REVOKED HOST KEY", "revoked"),
        ("HAS CHANGED", "changed"),
        ("host key is known for", "unknown"),
    ];
    match verdict.iter().find(|(text, _)| said.contains(text)) {
        _ if output.status.success() => "known".into(),
        Some((_, verdict)) => (*verdict).into(),
        None => said.into_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn verdicts_are_those_of_openssh() {
    let mut differences = Vec::new();
    for certified in [false, true] {
        let Some(bench) = Bench::new(certified) else {
            return;
        };
        let bench = std::sync::Arc::new(bench);
        let mut running = tokio::task::JoinSet::new();
        // What no authority is asked about is the same with and without a certificate.
        let concerned = |case: &str| case.contains("authority") || case.contains("certified");
        for (number, case) in CASES.iter().enumerate() {
            if certified && !concerned(case.0) && number % 8 != 0 {
                continue;
            }
            let bench = bench.clone();
            running.spawn(async move { bench.compare(*case, number).await });
        }
        let found = running.join_all().await.into_iter().flatten();
        differences.extend(found.map(|text| format!("certified {certified}: {text}")));
    }
    println!("{} files compared", CASES.len());
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}
