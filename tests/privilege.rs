//! Who logs in, whom converge becomes, and where its agent lies.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod hosts;

use hosts::Hosts;

/// Users: `free` may become root without a password, `asked` with its password `secret`, `plain` never.
const USERS: &str = r#"
for user in free asked plain other; do
    useradd -m -s /bin/sh $user
    install -d -m 700 -o $user -g $user /home/$user/.ssh
    install -m 600 -o $user -g $user /root/.ssh/authorized_keys /home/$user/.ssh/authorized_keys
    echo "$user:secret" | chpasswd
done
echo 'free ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/free
echo 'asked ALL=(ALL) ALL' >/etc/sudoers.d/asked
"#;

const STATES: &str = "
- file: /etc/one
  content: one
- file: /home/other/two
  content: two
  become_user: other
- command: id -un >/home/other/three
  creates: /home/other/three
  become_user: other
  id: three
";

fn booted() -> Option<Hosts> {
    let hosts = Hosts::new(&["a"])?;
    hosts.sh("a", USERS);
    Some(hosts)
}

fn becoming(states: &str) -> String {
    format!("become: true\n{}", hosts::play(states))
}

#[test]
fn sudo_without_a_password() {
    let Some(hosts) = booted() else { return };
    let run = |arguments: &[&str]| {
        hosts.converge_file(&becoming(STATES)).args(&["-u", "free"]).args(arguments)
    };
    run(&["--dry-run"]).succeeds();
    run(&[]).succeeds();
    hosts.sh(
        "a",
        r#"
        [ "$(stat -c '%U %G' /etc/one)" = 'root root' ]
        [ "$(stat -c '%U %G' /home/other/two /home/other/three)" = "other other
other other" ]
        [ "$(cat /home/other/three)" = other ]
        [ "$(stat -c %U /var/lib/converge/agent)" = root ]
        [ ! -e /home/free/.local ]"#,
    );
    run(&[]).succeeds().assert_unchanged();
    // The same from the command line.
    hosts.converge(STATES).args(&["-u", "free", "--become"]).succeeds().assert_unchanged();
}

#[test]
fn sudo_with_a_password() {
    let Some(hosts) = booted() else { return };
    let text = becoming(STATES);
    let login = |password: &str| {
        let variables = format!("all:\n  hosts:\n    a:\n      ansible_user: asked\n{password}");
        hosts.write("inventory/test.yml", &variables);
        hosts.converge_file(&text)
    };
    for (line, words) in [("", "password"), ("      become_password: wrong\n", "password")] {
        let report = login(line).report();
        assert_eq!(report.exit_code, 3, "{report}");
        let error = report.only().error.clone().unwrap();
        assert!(error.contains(words), "{error}");
        assert!(!error.contains("wrong\n") && !error.contains("secret"), "{error}");
    }
    hosts.sh("a", "[ ! -e /etc/one ]");
    login("      become_password: secret\n").succeeds();
    login("      ansible_become_password: secret\n").succeeds().assert_unchanged();
    hosts.sh("a", "[ \"$(stat -c %U /etc/one)\" = root ]");
    // The password is nowhere to be seen.
    hosts
        .sh("a", "! grep -rl --exclude-dir=agent secret /var/lib/converge /home/asked 2>/dev/null");
}

#[test]
fn no_sudo_at_all() {
    let Some(hosts) = booted() else { return };
    let states = "
- directory: /home/plain/app
  mode: '0700'
- file: /home/plain/app/one
  content: one
- line_in_file: /home/plain/.profile
  line: export APP=1
- command: id -un >/home/plain/app/two
  creates: /home/plain/app/two
  id: two
- authorized_key: plain
  key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ6oE1hTrBlzz1Z1HNlHLj2GFuPq9hw0vlbmLc0pOLQx ann@example.com
";
    let run = |states: &str| hosts.converge(states).args(&["-u", "plain"]);
    run(states).dry_run().succeeds();
    run(states).succeeds();
    hosts.sh(
        "a",
        r#"
        [ "$(stat -c '%U %G %a' /home/plain/app/one)" = 'plain plain 644' ]
        [ "$(cat /home/plain/app/two)" = plain ]
        [ -d /home/plain/.local/state/converge ]
        [ ! -e /var/lib/converge ]"#,
    );
    run(states).succeeds().assert_unchanged();

    // What only root may do is said in the plan.
    for states in ["- user: new\n", "- package: hello\n"] {
        let report = run(states).dry_run().report();
        assert_eq!(report.exit_code, 3, "{states}\n{report}");
        let because = &report.only().resources[0].because;
        assert!(because.contains("only root"), "{because}");
    }
    let report = hosts.converge_file(&becoming(states)).args(&["-u", "plain"]).report();
    assert_eq!(report.exit_code, 3, "{report}");
    assert_eq!(report.only().status, "unreachable", "{report}");
}

#[test]
fn the_agent_is_sent_once() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let converge = || hosts.converge("- file: /srv/one\n");
    let kept = || hosts.sh("a", "cd /var/lib/converge/agent; stat -c '%n %i' *");
    converge().succeeds();
    let program = std::fs::read(env!("CARGO_BIN_EXE_converge-agent")).unwrap();
    let digest = blake3::hash(&program);
    let first = kept();
    assert_eq!(first.lines().count(), 1, "{first}");
    assert!(first.starts_with(digest.to_hex().as_str()), "{first}");
    converge().succeeds();
    assert_eq!(kept(), first);
    // One that somebody else can write is not run, and one that is broken is replaced.
    for damage in [
        "chmod 777 *; echo 'touch /srv/evil' >*",
        "chown daemon *",
        "head -c 100000 /dev/zero >*",
        ": >*",
    ] {
        hosts.sh(
            "a",
            &format!(
                "cd /var/lib/converge/agent; {}",
                damage.replace('*', digest.to_hex().as_str())
            ),
        );
        converge().succeeds();
        hosts.sh("a", "[ ! -e /srv/evil ]");
        assert_eq!(
            hosts.sh("a", &format!("wc -c </var/lib/converge/agent/{}", digest.to_hex())).trim(),
            program.len().to_string(),
            "{damage}"
        );
    }
}

#[test]
fn the_controller_itself() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let place = hosts.path("local");
    std::fs::create_dir(&place).unwrap();
    let states = format!(
        "- file: {0}/one\n  content: one\n- command: echo two >{0}/two\n  creates: {0}/two\n  id: two\n",
        place.display()
    );
    let text = hosts::play(&states).replace("hosts: all", "hosts: all\nconnection: local");
    let run = || hosts.converge_file(&text);
    hosts.write("inventory/test.yml", "all:\n  hosts:\n    here: { connection: local }\n");
    run().dry_run().succeeds();
    assert!(!place.join("one").exists());
    run().succeeds();
    assert_eq!(std::fs::read_to_string(place.join("one")).unwrap(), "one");
    run().succeeds().assert_unchanged();
}
