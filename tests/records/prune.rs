use crate::hosts::{Hosts, Report, play};

fn pruned(states: &str) -> String {
    play(states).replace("hosts: all", "hosts: all\nprune: true")
}

/// Those resources that go, in order.
fn going(report: &Report) -> Vec<String> {
    let resources = report.only().resources.iter();
    let gone = resources.filter(|resource| resource.verdict == "change");
    gone.map(|resource| resource.id.clone()).collect()
}

const ALL: &str = "\
- group: crew
- user: jack
  group: crew
- directory: /srv/ship
- file: /srv/ship/log
  content: x
- symlink: /srv/link
  target: /srv/ship
- unit: ship.service
  content: |
    [Service]
    ExecStart=/bin/sleep infinity
    [Install]
    WantedBy=multi-user.target
- service: ship
- file: /srv/kept
  content: x
  prune: false
- file: /etc/issue
  content: theirs
";

#[test]
fn what_has_left_the_file_goes_in_reverse_order_if_that_is_wanted() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.converge_file(&pruned(ALL)).succeeds();
    hosts.converge_file(&pruned(ALL)).succeeds().assert_unchanged();

    let shown = hosts.converge_file(&play("- file: /srv/other\n  content: x")).succeeds();
    let stale = shown.resource("file:/srv/ship/log");
    assert_eq!(stale.verdict, "skipped", "{shown}");
    assert!(stale.because.contains("`prune: true`"), "{shown}");
    assert_eq!(
        stale.changes[0].diff,
        "--- /srv/ship/log\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n\\ No newline at end of file\n"
    );
    assert_eq!(hosts.sh("a", "cat /srv/ship/log"), "x");

    let rest = pruned("- file: /srv/other\n  content: x");
    let plan = hosts.converge_file(&rest).dry_run().succeeds();
    let order = going(&plan);
    assert_eq!(order.len(), 7, "{plan}");
    let place = |id: &str| order.iter().position(|one| one == id).unwrap();
    assert!(place("service:ship") < place("unit:ship.service"), "{plan}");
    assert!(place("file:/srv/ship/log") < place("directory:/srv/ship"), "{plan}");
    assert!(place("user:jack") < place("group:crew"), "{plan}");
    let run = hosts.converge_file(&rest).succeeds();
    assert_eq!(going(&run), order, "{run}");
    // Never what it did not create, nor what says that it stays.
    assert_eq!(hosts.sh("a", "cat /srv/kept /etc/issue /srv/other"), "xtheirsx");
    let gone = hosts.sh("a", "ls /srv; getent passwd jack || echo no; getent group crew || echo no; systemctl is-active ship || true");
    assert_eq!(gone, "kept\nother\nno\nno\ninactive\n");
    hosts.converge_file(&rest).succeeds().assert_unchanged();
}

#[test]
fn what_is_left_out_is_declared_all_the_same() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let one = "- file: /srv/one\n  content: x\n  tags: [one]\n";
    let two = "- file: /srv/two\n  content: x\n";
    hosts.converge_file(&pruned(&format!("{one}{two}"))).succeeds();
    let by_when = format!("- file: /srv/one\n  content: x\n  when: false\n{two}");
    hosts.converge_file(&pruned(&by_when)).succeeds().assert_unchanged();
    hosts
        .converge_file(&pruned(&format!("{one}{two}")))
        .args(&["--tags", "one"])
        .succeeds()
        .assert_unchanged();
    hosts
        .converge_file(&pruned(&format!("{one}{two}")))
        .args(&["--skip-tags", "one"])
        .succeeds()
        .assert_unchanged();
    // Another state is about the same path now.
    let renamed = "- environment_file: /srv/one\n  variables: { A: b }\n";
    hosts.converge_file(&pruned(&format!("{renamed}{two}"))).succeeds();
    assert_eq!(hosts.sh("a", "cat /srv/one"), "A=\"b\"\n");
}

#[test]
fn what_holds_data_or_was_changed_since_stays() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let states = "- directory: /srv/data\n- file: /srv/edited\n  content: x\n- user: jack\n";
    hosts.converge_file(&pruned(states)).succeeds();
    hosts.sh("a", "echo mine >/srv/data/file; echo mine >/srv/edited; echo mine >/home/jack/file");
    let rest = pruned("- file: /srv/other\n  content: x");
    let run = hosts.converge_file(&rest).succeeds();
    assert_eq!(run.resource("directory:/srv/data").verdict, "ok", "{run}");
    assert!(run.resource("file:/srv/edited").because.contains("changed since"), "{run}");
    assert_eq!(
        hosts.sh("a", "cat /srv/data/file /srv/edited /home/jack/file"),
        "mine\nmine\nmine\n"
    );

    // What says `force` goes whatever it holds.
    let forced = "- directory: /srv/more\n  prune: force\n";
    hosts.converge_file(&pruned(forced)).succeeds();
    hosts.sh("a", "echo mine >/srv/more/file");
    hosts.converge_file(&rest).succeeds();
    assert_eq!(hosts.try_sh("a", "test -e /srv/more").code, 1);
}

#[test]
fn two_state_files_do_not_prune_each_other() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.write("one.yml", &pruned("- file: /srv/one\n  content: x"));
    hosts.write("two.yml", &pruned("- file: /srv/two\n  content: x"));
    hosts.run(&["-i", "test", "one.yml"]).succeeds();
    hosts.run(&["-i", "test", "two.yml"]).succeeds();
    hosts.run(&["-i", "test", "one.yml"]).succeeds().assert_unchanged();
    assert_eq!(hosts.sh("a", "ls /srv"), "one\ntwo\n");
}

#[test]
fn a_renamed_state_file_adopts_its_records() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.write("states/one.yml", &pruned("- file: /srv/one\n  content: x\n"));
    hosts.run(&["-i", "test", "one.yml"]).succeeds();
    std::fs::remove_file(hosts.path("states/one.yml")).unwrap();
    hosts.write("two.yml", &pruned("- file: /srv/two\n  content: x\n"));
    let run = |arguments: &[&str]| hosts.run(&["-i", "test", "two.yml"]).args(arguments);
    let wrong = run(&["--dry-run", "--adopt", "another"]).ended();
    let told = format!("{}{}", wrong.stdout, wrong.stderr);
    assert!(told.contains("no records of the state file that --adopt names"), "{wrong}");
    assert!(!told.contains("/srv/one"), "{wrong}");
    let planned = run(&["--dry-run", "--adopt", "one"]).succeeds();
    assert_eq!(going(&planned), ["file:/srv/two", "file:/srv/one"]);
    run(&["--adopt", "one"]).succeeds();
    assert_eq!(hosts.sh("a", "ls /srv"), "two\n");
    run(&[]).succeeds().assert_unchanged();
    // Adopting counts also where nothing is left to be done.
    hosts.write("states/three.yml", &pruned("- file: /srv/two\n  content: x\n"));
    hosts.run(&["-i", "test", "three.yml", "--adopt", "two"]).succeeds().assert_unchanged();
    hosts.write("states/three.yml", &pruned("- directory: /srv\n"));
    hosts.run(&["-i", "test", "three.yml"]).succeeds();
    assert_eq!(hosts.sh("a", "ls /srv"), "");
    hosts.write("states/three.yml", &pruned("- file: /srv/two\n  content: x\n"));
    hosts.run(&["-i", "test", "three.yml"]).succeeds();
    // There is nothing left to be adopted.
    hosts.write("states/one.yml", &pruned("- file: /srv/one\n  content: x\n"));
    hosts.run(&["-i", "test", "one.yml"]).succeeds();
    assert_eq!(hosts.sh("a", "ls /srv"), "one\ntwo\n");
}

#[test]
fn a_lost_or_unreadable_record_prunes_nothing() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let rest = pruned("- file: /srv/other\n  content: x");
    hosts.converge_file(&pruned("- file: /srv/one\n  content: x")).succeeds();
    hosts.sh("a", "echo garbage >/var/lib/converge/runs/ledger.json");
    let run = hosts.converge_file(&rest).ended();
    assert_eq!(run.code, 0, "{run}");
    assert!(run.stdout.contains("cannot be read, so nothing is pruned"), "{run}");
    hosts.sh("a", "rm -r /var/lib/converge/runs");
    hosts.converge_file(&rest).succeeds();
    assert_eq!(hosts.sh("a", "ls /srv"), "one\nother\n");
}

#[test]
fn a_package_that_others_need_stays() {
    let Some(hosts) = Hosts::with_packages(&["a"], &["gawk", "libmpfr6"]) else { return };
    hosts.converge_file(&pruned("- package: libmpfr6\n")).succeeds();
    hosts.sh("a", "apt-get -qy install gawk >/dev/null");
    let rest = pruned("- file: /srv/other\n  content: x");
    let run = hosts.converge_file(&rest).succeeds();
    assert!(run.resource("package:libmpfr6").because.contains("gawk would go along"), "{run}");
    hosts.sh("a", "apt-get -qy remove gawk >/dev/null");
    let run = hosts.converge_file(&rest).succeeds();
    assert_eq!(going(&run), ["package:libmpfr6"], "{run}");
    assert_eq!(hosts.try_sh("a", "dpkg -s libmpfr6").code, 1);
}

#[test]
fn what_an_undo_has_brought_back_is_theirs() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.sh("a", "echo theirs >/srv/file");
    let run = hosts.converge_file(&pruned("- file: /srv/file\n  state: absent")).succeeds();
    let undone = hosts.run(&["undo", "-i", "test", &run.run]).ended();
    assert_eq!(undone.code, 0, "{undone}");
    hosts.converge_file(&pruned("- file: /srv/other\n  content: x")).succeeds();
    assert_eq!(hosts.sh("a", "cat /srv/file"), "theirs\n");
}

#[test]
fn what_is_said_later_counts() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.converge_file(&pruned("- file: /srv/one\n  content: x")).succeeds();
    // Nothing changes but what is declared of its future.
    let kept = pruned("- file: /srv/one\n  content: x\n  prune: false");
    hosts.converge_file(&kept).succeeds().assert_unchanged();
    hosts.converge_file(&pruned("- file: /srv/other\n  content: x")).succeeds();
    assert_eq!(hosts.sh("a", "cat /srv/one"), "x");
}

#[test]
fn plays_of_one_name_have_to_agree() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let plays = |second: &str| {
        format!(
            "- hosts: all\n  prune: true\n  states: [{{ file: /srv/one, content: x }}]\n\
             - hosts: all\n  states: [{second}]\n"
        )
    };
    hosts.converge_file(&plays("{ file: /srv/two, content: x }")).succeeds();
    hosts.converge_file(&plays("")).succeeds();
    assert_eq!(hosts.sh("a", "ls /srv"), "one\ntwo\n");
}

#[test]
fn what_another_state_is_about_stays_though_tags_leave_that_out() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.converge_file(&pruned("- file: /srv/x\n  content: x")).succeeds();
    let other = "- environment_file: /srv/x\n  variables: { A: b }\n  tags: [rare]\n\
                 - file: /srv/y\n  content: y\n  tags: [often]\n";
    hosts.converge_file(&pruned(other)).args(&["--tags", "often"]).succeeds();
    assert_eq!(hosts.sh("a", "cat /srv/x"), "x");
}

#[test]
fn packages_of_one_transaction_all_go() {
    let Some(hosts) = Hosts::with_packages(&["a"], &["gawk", "libmpfr6", "sl"]) else { return };
    hosts.converge_file(&pruned("- package: [libmpfr6, sl]\n- package: gawk\n")).succeeds();
    let run = hosts.converge_file(&pruned("- file: /srv/other\n  content: x")).succeeds();
    assert_eq!(run.count("change"), 4, "{run}");
    for package in ["gawk", "libmpfr6", "sl"] {
        let status =
            hosts.sh("a", &format!("dpkg-query -W -f '${{db:Status-Abbrev}}' {package} || true"));
        assert!(!status.starts_with("ii"), "{package}: {status}\n{run}");
    }
}

#[test]
fn services_take_up_that_something_is_gone() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let rest = "\
- unit: counter.service
  content: |
    [Service]
    ExecStart=/bin/sleep infinity
    ExecReload=/bin/sh -c 'ls /srv/conf >>/srv/reloads; echo . >>/srv/reloads'
- directory: /srv/conf
";
    let service = |watch: &str| format!("- service: counter\n  watch: [{watch}]\n");
    let with =
        format!("{rest}- file: /srv/conf/site\n  content: x\n{}", service("\"file:/srv/conf/*\""));
    hosts.converge_file(&pruned(&with)).succeeds();
    let without = format!("{rest}{}", service("unit:counter.service"));
    let run = hosts.converge_file(&pruned(&without)).succeeds();
    assert_eq!(hosts.sh("a", "cat /srv/reloads"), ".\n", "{run}");
    hosts.converge_file(&pruned(&without)).succeeds().assert_unchanged();
}
