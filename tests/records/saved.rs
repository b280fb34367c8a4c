use std::process::Command;

use crate::hosts::{Ended, Hosts, play};

const STATES: &str = "\
- file: /srv/one
  source: one.txt
- file: /srv/two
  content: \"two\\n\"
- line_in_file: /srv/two
  line: three
  require: [file:/srv/first]
- file: /srv/first
  content: first
- command: cp /srv/one /srv/copied
  creates: /srv/copied
";

fn plan(hosts: &Hosts, states: &str, arguments: &[&str]) -> Ended {
    hosts.write("state.yml", &play(states));
    hosts.run(&["plan", "-i", "test", "state.yml", "--out", "saved.plan"]).args(arguments).ended()
}

fn apply(hosts: &Hosts, arguments: &[&str]) -> Ended {
    hosts.run(&["apply", "saved.plan"]).args(arguments).ended()
}

#[test]
fn a_saved_plan_is_done_as_it_was_shown() {
    let Some(hosts) = Hosts::new(&["a", "b"]) else { return };
    let states = STATES
        .replace("- line_in_file: /srv/two\n  line: three\n  require: [file:/srv/first]\n", "");
    hosts.write("files/one.txt", "as planned\n");
    let planned = plan(&hosts, &states, &[]);
    assert_eq!(planned.code, 0, "{planned}");
    assert!(planned.stderr.contains("the plan is saved (not signed)"), "{planned}");
    assert_eq!(hosts.sh("a", "ls /srv"), "");
    // What the project says by now is another matter.
    hosts.write("files/one.txt", "changed since\n");
    hosts.write("state.yml", &play("- file: /srv/other\n  content: x\n"));
    let applied = apply(&hosts, &[]);
    assert_eq!(applied.code, 0, "{applied}");
    assert!(applied.stderr.contains("only checked for corruption"), "{applied}");
    for host in ["a", "b"] {
        let there = hosts.sh(host, "cat /srv/one /srv/two /srv/first /srv/copied; ls /srv");
        assert_eq!(there, "as planned\ntwo\nfirstas planned\ncopied\nfirst\none\ntwo\n");
    }
    // Once more: all of it is met.
    let again = apply(&hosts, &["--format", "json"]);
    assert_eq!(again.code, 0, "{again}");
    assert!(!again.stdout.contains("\"verdict\":\"change\""), "{again}");
}

#[test]
fn a_stale_plan_is_refused_on_all_hosts() {
    let Some(hosts) = Hosts::new(&["a", "b"]) else { return };
    let states = "- file: /srv/one\n  content: \"new\\n\"\n- file: /srv/two\n  content: x\n";
    for host in ["a", "b"] {
        hosts.sh(host, "echo old >/srv/one");
    }
    assert_eq!(plan(&hosts, states, &[]).code, 0);
    hosts.sh("b", "echo theirs >/srv/one");
    let refused = apply(&hosts, &[]);
    assert_eq!(refused.code, 5, "{refused}");
    assert!(refused.stdout.contains("the plan is stale: file:/srv/one"), "{refused}");
    assert!(
        refused.stdout.contains("planned: content") && refused.stdout.contains("of 7 bytes"),
        "{refused}"
    );
    for host in ["a", "b"] {
        assert_eq!(hosts.sh(host, "ls /srv"), "one\n");
    }
    // What is done already is no contradiction.
    hosts.sh("b", "echo new >/srv/one");
    let applied = apply(&hosts, &[]);
    assert_eq!(applied.code, 0, "{applied}");
    assert_eq!(hosts.sh("a", "cat /srv/one /srv/two"), "new\nx");

    // What the plan says nothing of is not done, though it is declared by the same resources.
    assert_eq!(plan(&hosts, states, &[]).code, 0);
    hosts.sh("a", "rm /srv/two");
    let refused = apply(&hosts, &[]);
    assert_eq!(refused.code, 5, "{refused}");
    assert_eq!(hosts.try_sh("a", "test -e /srv/two").code, 1);
}

#[test]
fn what_depends_happens_within_what_was_announced() {
    let Some(hosts) = Hosts::with_packages(&["a"], &["nginx"]) else { return };
    let states = "\
- package: nginx
- file: /etc/nginx/conf.d/own.conf
  content: \"server { listen 8080; return 200 'saved'; }\\n\"
- service: nginx
  watch: [file:/etc/nginx/conf.d/own.conf]
";
    let planned = plan(&hosts, states, &[]);
    assert_eq!(planned.code, 0, "{planned}");
    let applied = apply(&hosts, &[]);
    assert_eq!(applied.code, 0, "{applied}");
    hosts.sh("a", "systemctl is-active nginx");
    hosts.converge(states).succeeds().assert_unchanged();
}

#[test]
fn a_plan_that_was_tampered_with_is_refused() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    assert_eq!(plan(&hosts, "- file: /srv/one\n  content: good\n", &[]).code, 0);
    let path = hosts.path("saved.plan");
    let bytes = std::fs::read(&path).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    for wrong in
        [text.replace("/srv/one", "/srv/two"), text[..text.len() - 9].to_owned(), String::from("x")]
    {
        std::fs::write(&path, wrong).unwrap();
        let refused = apply(&hosts, &[]);
        assert_eq!(refused.code, 5, "{refused}");
        assert!(refused.stderr.contains("saved.plan: it "), "{refused}");
    }
    assert_eq!(hosts.sh("a", "ls /srv"), "");
}

#[test]
fn signatures_are_those_of_allowed_signers() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let key = |name: &str| {
        let path = hosts.path(name);
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path);
        assert!(command.status().unwrap().success());
        std::fs::read_to_string(path.with_extension("pub")).unwrap()
    };
    let (ann, _eve) = (key("ann"), key("eve"));
    hosts.write(".converge/allowed_signers", &format!("ann@example.com {ann}"));
    let states = "- file: /srv/one\n  content: good\n";

    assert_eq!(plan(&hosts, states, &[]).code, 0);
    let unsigned = apply(&hosts, &[]);
    assert_eq!(unsigned.code, 5, "{unsigned}");
    assert!(unsigned.stderr.contains("it is not signed"), "{unsigned}");

    assert_eq!(plan(&hosts, states, &["--sign", "eve"]).code, 0);
    let stranger = apply(&hosts, &[]);
    assert_eq!(stranger.code, 5, "{stranger}");
    assert!(stranger.stderr.contains("no allowed signer"), "{stranger}");

    let planned = plan(&hosts, states, &["--sign", "ann"]);
    assert!(planned.stderr.contains("(signed)"), "{planned}");
    // Another body under the same signature, with the right digest.
    let path = hosts.path("saved.plan");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, body) = text.split_once('\n').unwrap();
    let other = body.replace("/srv/one", "/srv/two");
    let digest = |body: &str| blake3::hash(body.as_bytes()).to_string();
    let head = head.replace(&digest(body), &digest(&other));
    std::fs::write(&path, format!("{head}\n{other}")).unwrap();
    let forged = apply(&hosts, &[]);
    assert_eq!(forged.code, 5, "{forged}");
    assert!(forged.stderr.contains("its signature does not hold"), "{forged}");

    std::fs::write(&path, text).unwrap();
    let applied = apply(&hosts, &[]);
    assert_eq!(applied.code, 0, "{applied}");
    assert!(applied.stderr.contains("signed by ann@example.com"), "{applied}");
    assert_eq!(hosts.sh("a", "cat /srv/one"), "good");
}

#[test]
fn what_is_private_is_not_saved_in_clear() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    for states in [
        "- environment_file: /srv/env\n  variables: { KEY: hush }\n",
        "- file: /srv/key\n  content: hush\n  mode: 0600\n",
        "- command: cat\n  stdin: hush\n",
        "- command: env\n  environment: { KEY: hush }\n",
        "- user: jack\n  password_hash: $y$hush\n",
    ] {
        let refused = plan(&hosts, states, &[]);
        assert_eq!(refused.code, 1, "{refused}");
        assert!(refused.stderr.contains("the plan was not saved: it would hold"), "{refused}");
        assert!(!hosts.path("saved.plan").exists());
    }
}

#[test]
fn a_plan_that_is_encrypted_holds_what_is_private() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let key = |name: &str| {
        let path = hosts.path(name);
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&path);
        assert!(keygen.status().unwrap().success());
        std::fs::read_to_string(path.with_extension("pub")).unwrap()
    };
    let (ours, _) = (key("ours"), key("another"));
    hosts.write(".converge/recipients", &format!("# us\n{ours}"));
    let states = "\
- environment_file: /srv/env
  variables: { KEY: hush }
- file: /srv/key
  content: hush
  mode: 0600
- command: cat >/srv/stdin
  stdin: hush
  creates: /srv/stdin
";
    let planned = plan(&hosts, states, &["--sign", "ours"]);
    assert_eq!(planned.code, 0, "{planned}");
    assert!(planned.stderr.contains("saved (signed, encrypted to one key)"), "{planned}");
    let saved = std::fs::read(hosts.path("saved.plan")).unwrap();
    for secret in ["hush", "aHVza", "state.yml"] {
        let mut parts = saved.windows(secret.len());
        assert!(!parts.any(|part| part == secret.as_bytes()), "{secret}");
    }
    for (arguments, words) in [
        (&[][..], "it is encrypted; name a key that reads it with --identity"),
        (&["--identity", "another"], "No matching keys found"),
        (&["--identity", "missing"], "missing cannot be read"),
    ] {
        let refused = apply(&hosts, arguments);
        assert_eq!(refused.code, 1, "{refused}");
        assert!(refused.stderr.contains(words), "{refused}");
    }
    assert_eq!(hosts.sh("a", "ls /srv"), "");
    let applied = hosts.run(&["apply", "saved.plan"]).env("CONVERGE_AGE_IDENTITY", "ours").ended();
    assert_eq!(applied.code, 0, "{applied}");
    assert_eq!(hosts.sh("a", "cat /srv/env /srv/key /srv/stdin"), "KEY=\"hush\"\nhushhush");
    // What is no key is said before anything is planned.
    hosts.write(".converge/recipients", "age1nonsense\n");
    let refused = plan(&hosts, states, &[]);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.stderr.contains(".converge/recipients:1: this is neither"), "{refused}");
}
