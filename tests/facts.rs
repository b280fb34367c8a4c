//! What hosts are asked for: facts of the project's own, and those of other hosts.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod hosts;

use hosts::Hosts;

const FILE: &str = "\
hosts: all
become: true
facts:
  shop: { command: cat /etc/shop, default: none }
  load: { command: [printf, '{\"cpus\": [1, 2]}'], json: true }
  who: { command: 'id -un; echo $GREETING' }
environment: { GREETING: hello }
states:
  - file: /srv/facts
    content: |
      {{ facts.shop }} {{ facts.load.cpus | sum }} {{ facts.who }}
  - file: /srv/large
    content: x
    when: facts.load.cpus | length > 1
  - file: \"/srv/number{{ item + 1 }}\"
    content: \"{{ 2 * item }}\"
    loop: \"{{ range(facts.load.cpus | length) | list }}\"
  - file: /srv/none
    content: none
    when: facts.shop == 'none'
";

#[test]
fn own_facts_are_what_commands_write() {
    let Some(hosts) = Hosts::new(&["a", "b"]) else { return };
    hosts.sh("a", "echo apples >/etc/shop; useradd -M who; chown who /srv");
    let planned = hosts.converge_file(FILE).dry_run().succeeds();
    assert_eq!(planned.hosts["a"].resources[0].changes[0].action, "content");
    assert!(planned.text.contains("+apples 3 root"), "{}", planned.text);
    hosts.converge_file(FILE).succeeds();
    assert_eq!(hosts.sh("a", "cat /srv/facts"), "apples 3 root\nhello\n");
    assert_eq!(
        hosts.sh("b", "cat /srv/facts /srv/large /srv/number2 /srv/none"),
        "none 3 root\nhello\nx2none"
    );
    hosts.converge_file(FILE).succeeds().assert_unchanged();
    // As whom the play becomes.
    let other = FILE.replace("become: true", "become: true\nbecome_user: who");
    let planned = hosts.converge_file(&other).args(&["-l", "a"]).dry_run().ended();
    assert!(planned.stdout.contains("+apples 3 who"), "{planned}");
}

#[test]
fn a_fact_that_cannot_be_had_fails_its_host_alone() {
    let Some(hosts) = Hosts::new(&["a", "b"]) else { return };
    hosts.sh("b", "echo '[1]' >/etc/list; printf '\\033[31mred\\n' >/etc/red");
    let file = "\
hosts: all
become: true
facts:
  list:
    command: cat /etc/list
    json: true
states:
  - file: /srv/list
    content: \"{{ facts.list[0] }}\"
";
    let run = hosts.converge_file(file).ended();
    assert_eq!(run.code, 3, "{run}");
    let report = hosts.converge_file(file).report();
    let error = report.hosts["a"].error.as_deref().unwrap();
    assert!(
        error.starts_with("the fact `list` (state.yml:4:3): its command ended with code 1"),
        "{error}"
    );
    assert!(error.contains("/etc/list"), "{error}");
    assert_eq!(report.hosts["a"].status, "failed");
    assert_eq!(hosts.sh("b", "cat /srv/list"), "1");
    // What a host says is never code for a terminal.
    let red = file.replace("/etc/list\n", "/etc/red\n");
    let report = hosts.converge_file(&red).args(&["-l", "b"]).report();
    assert!(report.hosts["b"].error.as_deref().unwrap().contains("no JSON"), "{}", report.text);
    let slow = file.replace("cat /etc/list", "sleep 60").replace("json: true", "timeout: 1");
    let report = hosts.converge_file(&slow).args(&["-l", "b"]).report();
    assert!(report.hosts["b"].error.as_deref().unwrap().contains("within 1 s"), "{}", report.text);
}

#[test]
fn without_trust_nobody_is_asked_and_what_needs_it_depends() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let file = format!("{FILE}  - file: /srv/other\n    content: x\n")
        .replace("cat /etc/shop", "touch /srv/asked");
    let plan = hosts.converge_file(&file).args(&["--untrusted"]).dry_run().report();
    assert_eq!(plan.resource("file:/srv/facts").verdict, "depends", "{}", plan.text);
    assert_eq!(plan.resource("file:/srv/large").verdict, "depends", "{}", plan.text);
    assert!(plan.resource("file:/srv/large").because.contains("--untrusted"), "{}", plan.text);
    assert_eq!(plan.resource("file:/srv/none").verdict, "depends", "{}", plan.text);
    assert_eq!(plan.resource("file:/srv/other").verdict, "change", "{}", plan.text);
    hosts.sh("a", "test ! -e /srv/asked");
}

#[test]
fn facts_of_other_hosts_are_known_whatever_the_limit() {
    let Some(hosts) = Hosts::new(&["a", "b"]) else { return };
    let file = "\
hosts: a
become: true
vars:
  # Used only by one of the states, and there through another variable.
  other: \"{{ hostvars['b'].facts.hostname }}\"
states:
  - file: /srv/peers
    content: |
      {% for host in groups.all %}
      {{ host }} {{ hostvars[host].facts.hostname }} {{ hostvars[host].facts.ipv4.default.address }}
      {% endfor %}
  - file: \"/srv/{{ other }}\"
    content: x
    when: facts.os.family == 'debian' and hostvars.b.facts.arch == facts.arch
";
    let planned = hosts.converge_file(file).args(&["-l", "a"]).dry_run().succeeds();
    assert_eq!(planned.count("change"), 2, "{}", planned.text);
    assert_eq!(planned.hosts.len(), 1, "b is asked, and takes no part");
    hosts.converge_file(file).args(&["-l", "a"]).succeeds();
    let name = |host: &str| hosts.sh(host, "cat /proc/sys/kernel/hostname").trim_end().to_owned();
    let peers = hosts.sh("a", "cat /srv/peers");
    assert!(peers.lines().nth(1).unwrap().starts_with(&format!("b {} ", name("b"))), "{peers}");
    hosts.sh("a", &format!("cat /srv/{}", name("b")));
    hosts.sh("b", "test ! -e /srv/peers");
    hosts.converge_file(file).args(&["-l", "a"]).succeeds().assert_unchanged();
    // Who cannot be asked is named by who needs it.
    hosts.sh("b", "systemctl stop ssh.socket ssh 2>/dev/null; true");
    let run = hosts.converge_file(file).args(&["-l", "a"]).ended();
    assert_eq!(run.code, 3, "{run}");
    assert!(run.stdout.contains("needs facts of other hosts: `b` ("), "{run}");
}
