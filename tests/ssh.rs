//! The ssh room against a real sshd: log-in, host keys, jump hosts, time-outs, streams.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod sshd;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use converge::ssh::{
    Client, Destination, Error, Exit, IdentityFile, Network, Password, Prompt, Session, Stage,
    UnknownHostKey,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use sshd::{KeyRing, Options, PASSWORD, Relay, Sshd, client, environment};

fn with_key(destination: &Destination, name: &str) -> Destination {
    let path = KeyRing::get().path(name);
    Destination { identity_files: vec![IdentityFile { path, named: true }], ..destination.clone() }
}

async fn output(session: &Session, command: &str) -> String {
    let mut process = session.exec(command).await.unwrap();
    let mut text = String::new();
    process.stdout.read_to_string(&mut text).await.unwrap();
    text
}

/// Answers with a passphrase, and counts the questions.
struct Answering {
    answer: Option<&'static str>,
    asked: AtomicUsize,
}

impl Prompt for Answering {
    fn passphrase(&self, _key: &Path, _again: bool) -> Option<Password> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.answer.map(Password::new)
    }
}

#[tokio::test]
async fn every_kind_of_key_logs_in() {
    let Some(sshd) = Sshd::start(&Options::default()) else {
        return;
    };
    let good = sshd.destination("zoe");
    for kind in sshd::KINDS {
        let session = client().connect(&with_key(&good, &format!("user_{kind}"))).await.unwrap();
        assert_eq!(output(&session, "id -un").await, "zoe\n");
    }
    // A passphrase is asked for once, whatever the number of hosts, and of connections at a time.
    for key in ["user_locked", "user_sealed"] {
        let prompt =
            Arc::new(Answering { answer: Some("open sesame"), asked: AtomicUsize::new(0) });
        let client = Client::new(environment(), prompt.clone());
        let good = with_key(&good, key);
        let (one, two) = tokio::join!(client.connect(&good), client.connect(&good));
        assert!(one.is_ok() && two.is_ok() && client.connect(&good).await.is_ok());
        assert_eq!(prompt.asked.load(Ordering::Relaxed), 1);
    }
    for (answer, questions, expected) in
        [(None, 1, "no passphrase was given"), (Some("wrong"), 3, "is wrong")]
    {
        let prompt = Arc::new(Answering { answer, asked: AtomicUsize::new(0) });
        let client = Client::new(environment(), prompt.clone());
        let error = client.connect(&with_key(&good, "user_locked")).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(prompt.asked.load(Ordering::Relaxed), questions);
    }
}

#[tokio::test]
async fn the_agent_signs() {
    let Some(sshd) = Sshd::start(&Options::default()) else {
        return;
    };
    let socket = sshd.folder.path().join("agent");
    let mut agent = Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !socket.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    for key in ["other_ed25519", "user_rsa"] {
        let mut add = Command::new("ssh-add");
        assert!(
            add.arg("-q")
                .arg(KeyRing::get().path(key))
                .env("SSH_AUTH_SOCK", &socket)
                .status()
                .unwrap()
                .success()
        );
    }
    let mut destination = sshd.destination("zoe");
    destination.identity_files.clear();
    destination.agent = Some(socket);
    let session = client().connect(&destination).await;
    // With IdentitiesOnly, what the agent holds beyond the named files is not offered.
    destination.identities_only = true;
    let refused = client().connect(&with_key(&destination, "other_ecdsa")).await.unwrap_err();
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_eq!(output(&session.unwrap(), "id -un").await, "zoe\n");
    let Error::Authentication { attempts, .. } = refused else { panic!("{refused}") };
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    // An agent that is gone is no obstacle.
    destination.identities_only = false;
    assert!(client().connect(&with_key(&destination, "user_ed25519")).await.is_ok());
}

#[tokio::test]
async fn certificates_of_users_log_in() {
    let work = tempfile::tempdir().unwrap();
    for (name, kind) in [("ca", "ed25519"), ("one", "ed25519"), ("two", "rsa")] {
        sshd::keygen(&["-t", kind, "-N", "", "-f", name], work.path());
    }
    for name in ["one.pub", "two.pub"] {
        sshd::keygen(&["-s", "ca", "-I", name, "-n", "zoe", name], work.path());
    }
    let config = format!("TrustedUserCAKeys {}/ca.pub", work.path().display());
    let Some(sshd) = Sshd::start(&Options { config, ..Options::default() }) else {
        return;
    };
    for name in ["one", "two"] {
        let path = work.path().join(name);
        let mut destination = sshd.destination("zoe");
        destination.identity_files = vec![IdentityFile { path, named: true }];
        assert!(client().connect(&destination).await.is_ok(), "{name}");
        let other = Destination { user: "dan".into(), ..destination };
        assert!(matches!(client().connect(&other).await, Err(Error::Authentication { .. })));
    }
}

#[tokio::test]
async fn passwords_log_in_and_wrong_ones_say_so() {
    for config in ["PasswordAuthentication yes", "UsePAM yes\nKbdInteractiveAuthentication yes"] {
        let Some(sshd) = Sshd::start(&Options { config: config.into(), ..Options::default() })
        else {
            return;
        };
        let mut destination = sshd.destination("zoe");
        destination.identity_files.clear();
        destination.password = Some(Password::new(PASSWORD));
        let session = client().connect(&destination).await.unwrap();
        assert_eq!(output(&session, "id -un").await, "zoe\n");
        destination.password = Some(Password::new("wrong"));
        let error = client().connect(&destination).await.unwrap_err();
        assert!(
            matches!(&error, Error::Authentication { attempts, .. } if !attempts.is_empty()),
            "{error}"
        );
        destination.password = None;
        let error = client().connect(&destination).await.unwrap_err();
        assert!(error.hint().unwrap().contains("-k"), "{error}: {:?}", error.hint());
    }
}

#[tokio::test]
async fn two_factors_are_two_steps() {
    let config = "PasswordAuthentication yes\nAuthenticationMethods publickey,password".into();
    let Some(sshd) = Sshd::start(&Options { config, ..Options::default() }) else {
        return;
    };
    let mut destination = sshd.destination("zoe");
    destination.password = Some(Password::new(PASSWORD));
    assert!(client().connect(&destination).await.is_ok());
}

#[tokio::test]
async fn an_error_names_what_was_tried() {
    let Some(sshd) = Sshd::start(&Options::default()) else {
        return;
    };
    let mut destination = with_key(&sshd.destination("zoe"), "other_rsa");
    destination.identity_files.push(IdentityFile { path: "/no/such/key".into(), named: true });
    destination.identity_files.push(IdentityFile { path: "/no/default/key".into(), named: false });
    destination.agent = Some("/no/agent".into());
    let error = client().connect(&destination).await.unwrap_err();
    let text = error.to_string();
    for expected in [
        "zoe",
        "other_rsa: not accepted",
        "/no/such/key: there is no such file",
        "ssh agent /no/agent",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    assert!(!text.contains("default"), "{text}");
    assert!(error.hint().unwrap().contains("authorized_keys"));
}

#[tokio::test]
async fn unknown_and_changed_host_keys_stop() {
    let Some(sshd) = Sshd::start(&Options::default()) else {
        return;
    };
    let ring = KeyRing::get();
    let mut destination = sshd.destination("zoe");
    sshd.known_hosts("");
    let unknown = client().connect(&destination).await.unwrap_err();
    let Error::HostKeyUnknown { shown, accept } = &unknown else { panic!("{unknown}") };
    assert!(shown.fingerprint.starts_with("SHA256:"));
    // The command that it names is enough to accept the key.
    let command = accept.split('`').nth(1).unwrap();
    assert!(Command::new("/bin/sh").args(["-c", command]).status().unwrap().success());
    assert!(client().connect(&destination).await.is_ok(), "{accept}");

    sshd.known_hosts(&format!(
        "# nothing\n[127.0.0.1]:{} {}\n",
        sshd.port,
        ring.public("other_ed25519")
    ));
    let changed = client().connect(&destination).await.unwrap_err();
    assert!(matches!(changed, Error::HostKeyChanged { line: 2, .. }), "{changed}");

    // accept-new writes unknown keys down, once, and still stops at a changed one.
    destination.host_keys.unknown = UnknownHostKey::Append;
    assert!(matches!(client().connect(&destination).await, Err(Error::HostKeyChanged { .. })));
    for hash_names in [false, true] {
        destination.host_keys.hash_names = hash_names;
        let file = sshd.known_hosts("# no line feed at the end");
        let client = client();
        for _ in 0..2 {
            assert!(client.connect(&destination).await.is_ok());
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 2);
    }
    let folder = sshd.folder.path().to_owned();
    destination.host_keys.user_files = vec![folder];
    assert!(matches!(client().connect(&destination).await, Err(Error::KnownHosts { .. })));
}

#[tokio::test]
async fn jump_hosts_are_checked_hop_by_hop() {
    let Some(sshd) = Sshd::start(&Options::default()) else {
        return;
    };
    let target = sshd.destination("zoe");
    let through = |jump: Vec<Destination>| Destination { jump, ..target.clone() };
    let two = through(vec![sshd.destination("dan"), sshd.destination("amy")]);
    let session = client().connect(&two).await.unwrap();
    assert_eq!(output(&session, "id -un").await, "zoe\n");
    let shut = with_key(&sshd.destination("dan"), "other_rsa");
    let error = client().connect(&through(vec![shut])).await.unwrap_err();
    assert!(matches!(error, Error::Jump { .. }), "{error}");
    let nowhere = Destination { port: 1, ..through(vec![sshd.destination("dan")]) };
    assert!(matches!(client().connect(&nowhere).await, Err(Error::Forward { .. })));
}

#[tokio::test]
async fn a_proxy_command_carries_the_connection() {
    let Some(sshd) = Sshd::start(&Options::default()) else {
        return;
    };
    let mut destination = sshd.destination("zoe");
    let key = destination.identity_files[0].path.display().to_string();
    let known = destination.host_keys.user_files[0].display().to_string();
    destination.proxy_command = Some(format!(
        "ssh -F /dev/null -i {key} -o UserKnownHostsFile={known} -p {port} -W 127.0.0.1:{port} dan@127.0.0.1",
        port = sshd.port
    ));
    let session = client().connect(&destination).await.unwrap();
    assert_eq!(output(&session, "id -un").await, "zoe\n");
    destination.proxy_command = Some("exit 1".into());
    assert!(matches!(client().connect(&destination).await, Err(Error::Protocol { .. })));
}

#[tokio::test]
async fn connecting_ends_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut destination = Destination::new("127.0.0.1", "zoe");
    destination.port = silent.local_addr().unwrap().port();
    destination.connect_timeout = Duration::from_millis(300);
    let begin = Instant::now();
    let error = client().connect(&destination).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { stage: Stage::KeyExchange, .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(3));
    drop(silent);
    assert!(matches!(client().connect(&destination).await, Err(Error::Connect { .. })));
    let nowhere = Destination::new("no-such-host.invalid", "zoe");
    assert!(matches!(
        client().connect(&nowhere).await,
        Err(Error::Lookup { .. } | Error::TimedOut { .. })
    ));
}

#[tokio::test]
async fn a_dead_host_is_noticed() {
    let Some(sshd) = Sshd::start(&Options::default()) else {
        return;
    };
    let relay = Relay::to(sshd.port);
    let mut destination = sshd.destination("zoe");
    destination.host_keys.alias = Some(format!("[127.0.0.1]:{}", sshd.port));
    destination.port = relay.port;
    destination.keepalive.interval = Some(Duration::from_millis(200));
    destination.keepalive.count = 2;
    let session = client().connect(&destination).await.unwrap();
    let process = session.exec("sleep 60").await.unwrap();
    // A host that answers stays: silence of the command alone is no sign of death.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(process.control.ended(), None);
    relay.stand_still();
    let begin = Instant::now();
    let Exit::Lost(reason) = process.control.wait().await else { panic!() };
    assert!(reason.contains("does not answer"), "{reason}");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn streams_have_back_pressure_and_ends() {
    let Some(sshd) = Sshd::start(&Options::default()) else {
        return;
    };
    let session = client().connect(&sshd.destination("dan")).await.unwrap();
    // 24 MB there and back, with a reader that begins late: nothing is lost, and nothing is hoarded meanwhile.
    let mut process = session.exec("cat; echo done >&2; exit 7").await.unwrap();
    let mut stdin = process.stdin;
    let written = Arc::new(AtomicUsize::new(0));
    let count = written.clone();
    let writing = tokio::spawn(async move {
        let block: Vec<u8> = (0..24_000u32).map(|i| i as u8).collect();
        for _ in 0..1000 {
            stdin.write_all(&block).await.unwrap();
            count.fetch_add(block.len(), Ordering::Relaxed);
        }
        stdin.shutdown().await.unwrap();
    });
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(written.load(Ordering::Relaxed) < 16_000_000, "{written:?}");
    let mut back = Vec::new();
    process.stdout.read_to_end(&mut back).await.unwrap();
    writing.await.unwrap();
    assert_eq!(back.len(), 24_000_000);
    assert!(
        back.chunks(24_000).all(|block| block.iter().enumerate().all(|(i, byte)| *byte == i as u8))
    );
    assert_eq!(process.control.wait().await, Exit::Status(7));
    assert_eq!(process.stderr.text(), "done");

    let process = session.exec("kill -9 $$").await.unwrap();
    assert!(matches!(process.control.wait().await, Exit::Signal(_)));
    session.close().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(session.is_closed() && session.exec("true").await.is_err());
}

#[tokio::test]
async fn sockets_are_made_in_the_name_space() {
    let Some(sshd) = Sshd::start(&Options { own_network: true, ..Options::default() }) else {
        return;
    };
    let mut destination = sshd.destination("zoe");
    assert!(matches!(client().connect(&destination).await, Err(Error::Connect { .. })));
    destination.network = Network::Namespace(PathBuf::from(format!("/proc/{}/ns/net", sshd.pid())));
    let session = client().connect(&destination).await.unwrap();
    assert_eq!(output(&session, "id -un").await, "zoe\n");
    let address = ([127, 0, 0, 1], sshd.port).into();
    assert!(converge::ssh::open_tcp(address, &destination.network).await.is_ok());
    destination.network = Network::Namespace("/no/such/namespace".into());
    assert!(matches!(client().connect(&destination).await, Err(Error::Namespace { .. })));
}
