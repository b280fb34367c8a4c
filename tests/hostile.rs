//! What a host's files can be like at their worst: each case ends, with a clear error where there is one, and leaves
//! nothing half-done.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod hosts;

use std::time::{Duration, Instant};

use hosts::{Hosts, Report};

/// Far more than any of these takes, and far less than reading without end.
const SOON: Duration = Duration::from_secs(100);

#[track_caller]
fn assert_fails(report: &Report, part: &str) {
    let error = report.only().error.clone().unwrap_or_default();
    let because = report.only().resources.iter().map(|one| one.because.as_str());
    let said = because.chain([error.as_str()]).any(|text| text.contains(part));
    assert!(report.exit_code == 3 && said, "`{part}` is not said\n{report}");
}

fn assert_swept(hosts: &Hosts) {
    assert_eq!(hosts.sh("a", "find /srv /etc -name '.*converge-*'"), "");
}

#[test]
fn a_read_only_file_system() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.sh(
        "a",
        "mkdir -p /srv/never /srv/late
         mount -t tmpfs -o ro tmpfs /srv/never
         mount -t tmpfs tmpfs /srv/late; echo before >/srv/late/stands",
    );
    // Said by the plan, before anything is changed.
    let report = hosts
        .converge("- file: /srv/other\n  content: x\n- file: /srv/never/x\n  content: x\n")
        .report();
    assert_fails(&report, "root cannot write in /srv/never");
    assert_eq!(hosts.sh("a", "ls /srv"), "late\nnever\n");
    // Becoming so in the middle of a run.
    let late = "- command: mount -o remount,ro /srv/late\n- file: /srv/late/stands\n  content: after\n\
                - file: /srv/last\n  content: x\n";
    let report = hosts.converge(late).report();
    assert_fails(&report, "root cannot write in /srv/late; its file system is read-only");
    assert_eq!(report.resource("file:/srv/last").verdict, "skipped", "{report}");
    assert_eq!(hosts.sh("a", "cat /srv/late/stands; ls -A /srv/late"), "before\nstands\n");
    assert_swept(&hosts);
    // Where records are kept: nothing is changed that could not be remembered.
    let states = "- file: /srv/recorded\n  content: x\n";
    hosts.converge(states).dry_run().report();
    hosts.sh("a", "mount --bind /var/lib/converge /var/lib/converge; mount -o remount,bind,ro /var/lib/converge");
    let report = hosts.converge(states).report();
    assert_fails(&report, "Read-only file system");
    assert_eq!(hosts.sh("a", "ls /srv"), "late\nnever\n");
    hosts.sh("a", "umount /var/lib/converge; mount -o remount,rw /srv/late");
    hosts.converge("- file: /srv/late/stands\n  content: after\n").succeeds();
}

#[test]
fn files_that_change_while_they_are_read() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.sh(
        "a",
        "mkdir -p /srv/log /srv/busy
         cat >/run/append <<'END'
while [ -e /run/go ]; do
    head -c 4M /dev/zero >>/srv/log/large
    [ $(stat -c %s /srv/log/large) -lt 500000000 ] || : >/srv/log/large
done
END
         cat >/run/churn <<'END'
while [ -e /run/go ]; do
    for n in 1 2 3 4 5 6 7 8 9; do mkdir -p /srv/busy/$n/$n; echo $n >/srv/busy/$n/file; echo $n >/srv/busy/$n/$n/x; done
    rm -rf /srv/busy/*
done
END
         mount -t tmpfs -o size=1g tmpfs /srv/log
         touch /run/go
         for what in append churn; do setsid sh /run/$what </dev/null >/dev/null 2>&1 & done",
    );
    let log = "- file: /srv/log/large\n  content: small\n";
    let busy = "- directory: /srv/busy\n  purge: true\n  recurse: true\n  mode: 0750\n";
    for _ in 0..5 {
        for states in [log, busy] {
            let begun = Instant::now();
            let report = hosts.converge(states).report();
            assert!(begun.elapsed() < SOON, "{report}");
            // Whoever looks at what changes may lose; then it is said what changed.
            if report.exit_code != 0 {
                assert_fails(&report, "/srv/");
            }
        }
    }
    hosts.sh("a", "rm /run/go; sleep 1");
    for states in [log, busy] {
        hosts.converge(states).succeeds();
        hosts.converge(states).dry_run().report().assert_unchanged();
    }
    assert_eq!(
        hosts.sh("a", "cat /srv/log/large; ls -A /srv/busy; stat -c %a /srv/busy"),
        "small750\n"
    );
    assert_swept(&hosts);
}

#[test]
fn huge_files_and_deep_folders() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.sh(
        "a",
        "mkdir -p /srv/full/deep; truncate -s 1T /srv/full/huge; truncate -s 2G /srv/full/large
         cd /srv/full/deep; n=0; while [ $n -lt 300 ]; do mkdir d; cd -P d; n=$((n+1)); done",
    );
    let begun = Instant::now();
    let too_large = "it has 1024 GiB, and files of more than 64 GiB are not read";
    for states in [
        "- file: /srv/full/huge\n  content: small\n",
        "- file: /srv/full/huge\n  state: absent\n",
        "- directory: /srv/full\n  purge: true\n",
    ] {
        assert_fails(&hosts.converge(states).report(), too_large);
    }
    let edited = "- line_in_file: /srv/full/large\n  line: x\n";
    assert_fails(&hosts.converge(edited).report(), "it is larger than");
    // Owner and mode do not take reading.
    hosts.converge("- directory: /srv/full\n  recurse: true\n  owner: daemon\n").succeeds();
    assert!(begun.elapsed() < SOON);
    hosts.sh("a", "rm /srv/full/huge");
    hosts.converge("- directory: /srv/full\n  purge: true\n").succeeds();
    assert_eq!(hosts.sh("a", "ls -A /srv/full"), "");
}

#[test]
fn names_that_are_no_text() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let fill = r#"
        rm -rf /srv/odd; mkdir -p /srv/odd/sub; cd /srv/odd
        for name in "$(printf 'new\nline')" "$(printf '\377\376')" "$(printf '\033[31mred')" ' -rf ' '*' \
            "$(printf 'sub/\n\n.')" "$(printf 'sub/a\rb')" "$(printf 'n%.0s' $(seq 255))" "$(printf 'sub/\342\200\256txt')"; do
            printf '%s' "$name" >"$name"
        done
        ln -s "$(printf 'to\n\377')" "$(printf 'link\n\377')"
        mkdir "$(printf 'folder\n\377')"; touch "$(printf 'folder\n\377/\377')""#;
    let all = r#"cd /srv; find odd -printf '%p %y %m %l\0' | sort -z | md5sum; find odd -type f -print0 | sort -z | xargs -0 md5sum | md5sum"#;
    hosts.sh("a", fill);
    let before = hosts.sh("a", all);
    hosts.write("files/odd/one", "1");
    for states in [
        "- directory: /srv/odd\n  purge: true\n",
        "- tree: /srv/odd\n  source: odd\n  delete: true\n",
    ] {
        let planned = hosts.converge(states).dry_run().report();
        let text = hosts.converge(states).dry_run().ended().stdout;
        assert!(text.contains("/srv/odd/new\\x0aline"), "{text}");
        assert!(!text.contains(['\u{1b}', '\r', '\u{202e}']), "{text}");
        let done = hosts.converge(states).succeeds();
        hosts::assert_as_planned(&planned, &done);
        hosts.converge(states).dry_run().report().assert_unchanged();
        assert!(hosts.sh("a", "ls -A /srv/odd").lines().count() <= 1);
        let history = hosts.run(&["history", "-i", "test", &done.run]).ended();
        assert!(history.code == 0 && history.stdout.contains("new\\x0aline"), "{history}");
        let undone = hosts.run(&["undo", "-i", "test", &done.run]).ended();
        assert_eq!(undone.code, 0, "{undone}");
        assert_eq!(hosts.sh("a", all), before);
    }
    hosts
        .converge("- directory: /srv/odd\n  recurse: true\n  owner: daemon\n  mode: 0640\n")
        .succeeds();
    assert_eq!(hosts.sh("a", "find /srv/odd ! -user daemon"), "");
    assert_swept(&hosts);
}

#[test]
fn links_that_another_user_plants() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.sh(
        "a",
        "useradd --create-home eve; mkdir -p /srv/eve/real; chown -R eve: /srv/eve
         cd /srv/eve; for link in sub:/etc conf:/etc/shadow real/deep:/root; do
             su eve -c \"ln -s ${link#*:} ${link%%:*}\"
         done",
    );
    let sums =
        "md5sum /etc/passwd /etc/shadow; stat -c '%U %a' /etc /etc/shadow /root; ls -A /root";
    let before = hosts.sh("a", sums);
    for states in [
        "- file: /srv/eve/sub/passwd\n  content: evil\n",
        "- line_in_file: /srv/eve/sub/passwd\n  line: evil::0:0::/:/bin/sh\n",
        "- directory: /srv/eve/real/deep/new\n",
        "- tree: /srv/eve/sub\n  source: odd\n",
        "- file: /srv/eve/real/deep/.profile\n  state: absent\n",
    ] {
        hosts.write("files/odd/passwd", "evil");
        let report = hosts.converge(states).report();
        assert_eq!(report.exit_code, 3, "{states}{report}");
        assert_eq!(hosts.sh("a", sums), before, "{states}{report}");
    }
    // A link at a managed path is replaced itself; what is recursed into does not lead out.
    hosts.converge("- file: /srv/eve/conf\n  content: own\n- directory: /srv/eve\n  recurse: true\n  owner: eve\n  mode: 0700\n").succeeds();
    assert_eq!(hosts.sh("a", sums), before);
    assert_eq!(hosts.sh("a", "cat /srv/eve/conf; stat -c %F /srv/eve/conf"), "ownregular file\n");
}

/// Runs are in the order in which they came, whatever clocks say of that.
#[test]
fn clocks_that_jump() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    hosts.converge("- file: /srv/x\n  content: one\n").succeeds();
    let second = hosts.converge("- file: /srv/x\n  content: two\n").succeeds();
    // As if the first run had been by a controller of the next century, and the host's clock with it.
    hosts.sh(
        "a",
        r#"cd /var/lib/converge/runs; sed -i -E 's/"begun":[0-9]+/"begun":4102444800000/' $(ls *.jsonl | head -n 1)
           touch -d '2099-01-01' /srv/x *.jsonl ledger.json ../agent/*"#,
    );
    hosts.converge("- file: /srv/x\n  content: two\n").dry_run().report().assert_unchanged();
    let undone = hosts.run(&["undo", "-i", "test", &second.run]).ended();
    assert_eq!(undone.code, 0, "{undone}");
    assert_eq!(hosts.sh("a", "cat /srv/x"), "one");
    // What is newer than the clock counts like anything else.
    hosts.sh("a", "touch -d '2099-01-01' /srv/x");
    hosts.converge("- file: /srv/x\n  content: three\n").succeeds();
    assert_eq!(hosts.sh("a", "cat /srv/x; stat -c %Y /srv/x | cut -c1-2"), "three17\n");
}
