//! Runs with secrets on real hosts: nothing that anybody reads has one in it.

use std::fs;

use crate::hosts::{Ended, Hosts, play};

const INLINE: &str = include_str!("inline.yml");
const VAULT: &str = include_str!("vault.yml");

/// What is encrypted in the variables, and what is made of it.
const SECRETS: [&str; 6] =
    ["tr0ub4dor&3", "tr0ub4dor", "hunter2-hunter2", "aGVudGVy", "age-s3cret-value", "9f8e7d"];

const KEYS: [&str; 6] =
    ["--vault-password-file", "one", "--vault-id", "prod@two", "--identity", "key.txt"];

const TEMPLATE: &str = "\
# of {{ inventory_hostname }}
[smtp]
password = {{ smtp_password }}
[database]
password = {{ database.password }}
token = {{ api_token }}
{% for user in users %}
{{ user.name }} = {{ user.password }}
{% endfor %}
";

const STATES: &str = "\
- file: /etc/app.conf
  template: app.conf.j2
  mode: 0644
- file: /etc/private.conf
  template: app.conf.j2
  mode: 0600
- environment_file: /etc/app.env
  variables:
    PASSWORD: \"{{ database.password }}\"
    URL: \"smtp://x:{{ smtp_password }}@localhost\"
  mode: 0644
- line_in_file: /etc/line.conf
  match: ^password=
  line: \"password={{ age_secret }}\"
- block_in_file: /etc/line.conf
  content: |
    key={{ smtp_password | b64encode }}
    public=yes
- file: /etc/made.conf
  content: \"auth = {{ smtp_password | b64encode }}\\n\"
- command: cat >/srv/stdin; printf %s \"$TOKEN\" >/srv/token; cat /proc/[0-9]*/cmdline | tr '\\0' ' ' >/srv/ps
  stdin: \"{{ age_secret }}\"
  environment:
    TOKEN: \"{{ api_token }}\"
  creates: /srv/ps
- command: cat /etc/app.conf; cat /etc/made.conf; echo \"bad token $TOKEN $MADE\" >&2; exit 3
  environment:
    TOKEN: \"{{ api_token }}\"
    MADE: \"{{ smtp_password | b64encode }}\"
  unless: test -e /srv/no
  ignore_errors: true
";

fn prepare(hosts: &Hosts) {
    hosts.write("converge.yml", "project: test\n");
    let made = hosts.run(&["secrets", "keygen", "key.txt", "--add"]).ended();
    assert_eq!(made.code, 0, "{made}");
    hosts.write("one", "correct horse\n");
    hosts.write("two", "staple\n");
    let indented = INLINE.lines().skip(1).map(|line| format!("      {}\n", line.trim()));
    let users = format!(
        "users:\n  - name: anna\n    password: !vault |\n{}  - name: ben\n    password: of ben\n",
        indented.collect::<String>()
    );
    hosts.write("inventory/group_vars/all/main.yml", &format!("{INLINE}\n{users}"));
    hosts.write("inventory/group_vars/all/vault.yml", VAULT);
    age_secret(hosts, "age-s3cret-value");
    hosts.write("templates/app.conf.j2", TEMPLATE);
}

fn age_secret(hosts: &Hosts, secret: &str) {
    let _ = fs::remove_file(hosts.path("inventory/host_vars/a.yml.age"));
    hosts.write("inventory/host_vars/a.yml", &format!("age_secret: {secret}\n"));
    let made = hosts.run(&["secrets", "encrypt", "inventory/host_vars/a.yml"]).ended();
    assert_eq!(made.code, 0, "{made}");
}

/// Runs the program; nothing that it prints has a secret.
#[track_caller]
fn run(hosts: &Hosts, arguments: &[&str]) -> Ended {
    let ended = hosts.run(arguments).args(&KEYS).ended();
    assert_silent(&format!("{ended}"), &format!("{arguments:?}"));
    ended
}

#[track_caller]
fn assert_silent(text: &str, what: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{what} has {secret}:\n{text}");
    }
}

#[test]
fn nothing_that_anybody_reads_has_a_secret() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    prepare(&hosts);
    hosts.write("state.yml", &play(STATES));
    // What stood there before has old ones, and everybody may read it.
    hosts.sh("a", "printf '# of a\\n[smtp]\\npassword = old-s3cret\\n' >/etc/app.conf; printf 'password=old-s3cret\\n' >/etc/line.conf");
    let converge = ["-i", "test", "state.yml"];
    for format in ["text", "json", "jsonl", "markdown"] {
        let planned =
            run(&hosts, &[&converge[..], &["--dry-run", "-vv", "--format", format]].concat());
        assert_eq!(planned.code, 0, "{planned}");
        assert!(!planned.stdout.contains("old-s3cret"), "{planned}");
        assert!(planned.stdout.contains("password = [secret, changed]"), "{planned}");
        assert!(planned.stdout.contains("token = [secret]"), "{planned}");
        assert!(planned.stdout.contains("anna = [secret]"), "{planned}");
        assert!(planned.stdout.contains("ben = of ben"), "{planned}");
        assert!(planned.stdout.contains("public=yes"), "{planned}");
        assert!(planned.stdout.contains("[smtp]"), "{planned}");
        assert!(planned.stdout.contains("smtp://x:[secret]@localhost"), "{planned}");
    }
    let reports =
        ["--report", "json=r.json", "--report", "jsonl=r.jsonl", "--report", "markdown=r.md"];
    let done =
        run(&hosts, &[&converge[..], &["-D", "-vv", "--report", "text=r.txt"], &reports].concat());
    assert_eq!(done.code, 0, "{done}");
    assert!(done.stdout.contains("bad token [secret]"), "{done}");
    for report in ["r.json", "r.jsonl", "r.md", "r.txt"] {
        assert_silent(&fs::read_to_string(hosts.path(report)).unwrap(), report);
    }

    // All of it is where it belongs.
    let conf = hosts.sh("a", "cat /etc/app.conf");
    let expected = "# of a\n[smtp]\npassword = hunter2-hunter2\n[database]\npassword = tr0ub4dor&3\ntoken = tok-a-9f8e7d\nanna = hunter2-hunter2\nben = of ben\n";
    assert_eq!(conf, expected);
    assert_eq!(hosts.sh("a", "cat /etc/private.conf"), expected);
    assert_eq!(
        hosts.sh("a", ". /etc/app.env; echo $PASSWORD $URL"),
        "tr0ub4dor&3 smtp://x:hunter2-hunter2@localhost\n"
    );
    assert_eq!(hosts.sh("a", "cat /srv/stdin /srv/token"), "age-s3cret-valuetok-a-9f8e7d");
    assert_silent(&hosts.sh("a", "cat /srv/ps"), "the list of processes");
    assert!(hosts.sh("a", "cat /srv/ps").contains("/srv/stdin"));

    // Neither has what the host remembers, apart from what stood there before.
    assert_silent(
        &hosts
            .sh("a", "cat /var/lib/converge/runs/* /var/lib/converge/ledger* 2>/dev/null || true"),
        "the journal",
    );
    let private =
        hosts.sh("a", "find /var/lib/converge -not -path '*/agent*' -perm /077 -not -type l");
    assert_eq!(private, "");

    // A new secret, and then what it was like.
    age_secret(&hosts, "age-s3cret-value-2");
    let changed = run(&hosts, &[&converge[..], &["-D", "--format", "json"]].concat());
    assert_eq!(changed.code, 0, "{changed}");
    assert!(changed.stdout.contains("password=[secret, changed]"), "{changed}");
    let name: serde_json::Value = serde_json::from_str(&changed.stdout).unwrap();
    let name = name["run"].as_str().unwrap();
    for arguments in [
        &["history", "-i", "test"][..],
        &["history", "-i", "test", name],
        &["history", "-i", "test", name, "--format", "json"],
        &["status", "-i", "test", "state.yml"],
        &["undo", "-i", "test", name, "--dry-run", "-D"],
        &["undo", "-i", "test", name, "-D", "--format", "json"],
        &["inventory", "-i", "test", "--list"],
    ] {
        let ended = run(&hosts, arguments);
        assert_eq!(ended.code, 0, "{arguments:?}\n{ended}");
    }
    assert_eq!(hosts.sh("a", "grep ^password /etc/line.conf"), "password=age-s3cret-value\n");
    assert_silent(&hosts.sh("a", "cat /var/lib/converge/runs/*"), "the journal");

    // A secret that is taken out of a file is not shown on its way.
    hosts.write("templates/app.conf.j2", "nothing\n");
    let planned =
        run(&hosts, &[&converge[..], &["--dry-run", "--only", "file:/etc/app.conf"]].concat());
    assert!(
        planned.stdout.contains("-[hidden]") && planned.stdout.contains("+nothing"),
        "{planned}"
    );
}

#[test]
fn a_saved_plan_with_secrets_is_encrypted_or_refused() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    prepare(&hosts);
    hosts.write("state.yml", &play("- file: /etc/app.conf\n  template: app.conf.j2\n"));
    let plan = ["plan", "-i", "test", "state.yml", "--out", "saved.plan"];
    let recipients = hosts.path(".converge/recipients");
    let list = fs::read_to_string(&recipients).unwrap();
    fs::remove_file(&recipients).unwrap();
    let refused = run(&hosts, &plan);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(
        refused.stderr.contains("it would hold a secret (file:/etc/app.conf on a)"),
        "{refused}"
    );
    fs::write(&recipients, list).unwrap();
    let planned = run(&hosts, &plan);
    assert_eq!(planned.code, 0, "{planned}");
    assert_silent(
        &String::from_utf8_lossy(&fs::read(hosts.path("saved.plan")).unwrap()),
        "the plan",
    );
    let applied = run(&hosts, &["apply", "saved.plan", "-D"]);
    assert_eq!(applied.code, 0, "{applied}");
    assert!(hosts.sh("a", "cat /etc/app.conf").contains("token = tok-a-9f8e7d\n"));
}

#[test]
fn a_strangers_plan_needs_no_keys() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    prepare(&hosts);
    let states = format!(
        "{STATES}- file: /etc/motd\n  content: hello\n- file: /etc/issue\n  content: \"{{{{ users[1].name }}}}\"\n"
    );
    hosts.write("state.yml", &play(&states));
    let planned = hosts.run(&["-i", "test", "state.yml", "--dry-run", "--untrusted"]).report();
    assert_eq!(planned.exit_code, 0, "{planned}");
    let because = "it needs a secret, and there is no key for that";
    for id in ["file:/etc/app.conf", "environment_file:/etc/app.env"] {
        let resource = planned.resource(id);
        assert_eq!((resource.verdict.as_str(), resource.because.as_str()), ("depends", because));
        assert!(resource.changes.is_empty(), "{planned}");
    }
    assert_eq!(planned.resource("file:/etc/motd").verdict, "change");
}
