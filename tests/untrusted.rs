//! Projects of strangers, planned with `--untrusted`: what they can name, and what is shown of it.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod hosts;

use std::os::unix::fs::symlink;

use hosts::Hosts;

#[test]
fn what_not_everybody_may_read_is_not_shown() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.sh(
        "a",
        "echo s3cret >/etc/private; chmod 640 /etc/private; mkdir -m 700 /srv/apart; echo s3cret >/srv/apart/notes
         echo everybody >/etc/public",
    );
    let states = ["/etc/private", "/srv/apart/notes", "/etc/public"]
        .map(|path| format!("- line_in_file: {path}\n  line: more\n  sensitive: false\n"))
        .concat();
    let plan = |arguments: &[&str]| {
        let ended = hosts.converge(&states).dry_run().args(arguments).ended();
        assert_eq!(ended.code, 0, "{ended}");
        ended.stdout
    };
    assert!(plan(&[]).contains("s3cret"));
    let shown = plan(&["--untrusted"]);
    assert!(!shown.contains("s3cret") && shown.contains("(hidden)"), "{shown}");
    assert!(shown.contains("everybody"), "{shown}");
}

#[test]
fn a_stranger_reaches_neither_this_machine_nor_its_shell() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let play =
        |more: &str| format!("hosts: all\n{more}\nstates:\n  - file: /srv/x\n    content: x\n");
    let here = "is this machine, which is not looked at here";
    let cases: [(&str, &str, &str, (&str, &str)); 6] = [
        ("play", "all:\n  hosts:\n    a:\n", "connection: local", (here, "state.yml:2:13")),
        (
            "inventory",
            "all:\n  hosts:\n    a: { connection: local }\n",
            "",
            (here, "inventory/hostile.yml:3:22"),
        ),
        ("implicit", "all:\n  hosts:\n    a:\n", "", (here, "state.yml:1:8")),
        (
            "host",
            "all:\n  hosts:\n    a: { ansible_host: 'x;touch /tmp/y' }\n",
            "",
            ("`x;touch /tmp/y` is not the name of a host", "inventory/hostile.yml:3:24"),
        ),
        (
            "user",
            "all:\n  hosts:\n    a: { ssh: { user: 'x`id`' } }\n",
            "",
            ("`x`id`` is not the name of a user", "inventory/hostile.yml:3:23"),
        ),
        (
            "name",
            "all:\n  hosts:\n    $(id):\n",
            "",
            ("`$(id)` is not the name of a host", "inventory/hostile.yml:3:5"),
        ),
    ];
    for (name, inventory, more, (message, place)) in cases {
        hosts.write("inventory/hostile.yml", inventory);
        let text = play(more);
        let text =
            if name == "implicit" { text.replace("hosts: all", "hosts: localhost") } else { text };
        hosts.write("state.yml", &text);
        let ended = hosts.run(&["plan", "--untrusted", "-i", "hostile", "state.yml"]).ended();
        let said = ended.stderr.contains(message) && ended.stderr.contains(place);
        assert!(ended.code == 1 && said, "{name}: {ended}");
    }
}

#[test]
fn a_stranger_reads_nothing_outside_of_the_project_and_eats_no_machine() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "s3cret: [\n").unwrap();
    let plan = || hosts.run(&["plan", "--untrusted", "-i", "test", "state.yml"]).ended();
    for name in ["state.yml", "converge.yml"] {
        hosts.write("state.yml", &hosts::play("- file: /srv/x\n  content: x\n"));
        let _ = std::fs::remove_file(hosts.path(name));
        symlink(outside.path().join("secret"), hosts.path(name)).unwrap();
        let ended = plan();
        let message = format!("{name} is outside of the project");
        assert!(ended.code == 1 && ended.stderr.contains(&message), "{ended}");
        assert!(!ended.stderr.contains("s3cret"), "{ended}");
        std::fs::remove_file(hosts.path(name)).unwrap();
    }
    // Doubled again and again: the process ends before the machine's memory does.
    let doubling = "{% set ns = namespace(a='xxxxxxxxxx') %}{% for i in range(50) %}\
                    {% set ns.a = ns.a ~ ns.a %}{% endfor %}{{ ns.a | length }}";
    hosts.write("state.yml", &hosts::play(&format!("- file: /srv/x\n  content: \"{doubling}\"\n")));
    let ended = plan();
    assert!(ended.code != 0, "{ended}");
}
