//! Services take up what changed, and requisites say what happens after a change or a failure.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod hosts;

use hosts::{Hosts, Report, assert_as_planned};

/// Converges as a plan said, then shows that nothing is left to do.
fn converge(hosts: &Hosts, states: &str) -> Report {
    let planned = hosts.converge(states).dry_run().succeeds();
    let done = hosts.converge(states).succeeds();
    assert_as_planned(&planned, &done);
    hosts.converge(states).succeeds().assert_unchanged();
    done
}

/// What a reaction was, such as `reload`.
fn reaction(report: &Report, id: &str) -> String {
    let resource = report.resource(id);
    resource.changes.first().map_or_else(String::new, |change| change.diff.trim_end().to_owned())
}

/// The main process of a service, and its children.
fn processes(hosts: &Hosts, service: &str) -> (String, String) {
    let main = hosts.sh("a", &format!("systemctl show -p MainPID --value {service}"));
    let children = hosts.try_sh("a", &format!("pgrep -P {main}")).stdout;
    (main, children)
}

fn nginx(greeting: &str, how: &str) -> String {
    format!(
        "
- package: nginx
- file: /etc/nginx/conf.d/shop.conf
  content: |
    server {{ listen 8080; return 200 '{greeting}'; }}
- service: nginx
  {how}: ['file:/etc/nginx/conf.d/*']
  check: nginx -t
"
    )
}

fn page(hosts: &Hosts) -> String {
    hosts.sh("a", "curl -s http://127.0.0.1:8080/")
}

#[test]
fn nginx_takes_up_its_configuration() {
    let Some(hosts) = Hosts::with_packages(&["a"], &["nginx"]) else { return };
    converge(&hosts, &nginx("one", "watch"));
    assert_eq!(page(&hosts), "one");
    let (main, workers) = processes(&hosts, "nginx");

    let done = converge(&hosts, &nginx("two", "watch"));
    assert_eq!(reaction(&done, "reaction:service:nginx"), "reload, if `nginx -t` succeeds");
    assert_eq!(page(&hosts), "two");
    let (same, others) = processes(&hosts, "nginx");
    assert_eq!(same, main, "it was reloaded, not restarted");
    assert_ne!(others, workers);

    let done = converge(&hosts, &nginx("three", "restart_on"));
    assert_eq!(reaction(&done, "reaction:service:nginx"), "restart, if `nginx -t` succeeds");
    let (main, _) = processes(&hosts, "nginx");
    assert_ne!(main, same);

    // A start is as good as a reload.
    hosts.sh("a", "systemctl stop nginx");
    let done = converge(&hosts, &nginx("four", "watch"));
    assert_eq!(done.resource("service:nginx").verdict, "change");
    assert_eq!(done.resource("reaction:service:nginx").verdict, "ok");
    assert_eq!(page(&hosts), "four");

    // A stopped service never reacts.
    let stopped = nginx("five", "watch") + "  state: stopped\n";
    let done = converge(&hosts, &stopped);
    assert_eq!(done.resource("reaction:service:nginx").verdict, "ok");
    assert_eq!(hosts.try_sh("a", "systemctl is-active nginx").code, 3);
}

#[test]
fn a_check_that_fails_stops_a_reaction() {
    let Some(hosts) = Hosts::with_packages(&["a"], &["nginx"]) else { return };
    converge(&hosts, &nginx("one", "watch"));
    let processes_before = processes(&hosts, "nginx");
    let broken = nginx("two'; nonsense 'x", "watch");
    let report = hosts.converge(&broken).report();
    assert_eq!(report.exit_code, 3, "{report}");
    let failed = report.resource("reaction:service:nginx");
    assert_eq!(failed.verdict, "failed", "{report}");
    assert!(failed.because.contains("nonsense"), "{failed}");
    assert_eq!(processes(&hosts, "nginx"), processes_before);
    assert_eq!(page(&hosts), "one");
    // The file is corrected, and that is taken up.
    converge(&hosts, &nginx("three", "watch"));
    assert_eq!(page(&hosts), "three");
}

#[test]
fn files_that_are_checked_together_are_put_back_together() {
    let Some(hosts) = Hosts::with_packages(&["a"], &["nginx"]) else { return };
    let states = |one: &str, other: &str| {
        format!(
            "
- package: nginx
- file: /etc/nginx/conf.d/map.conf
  content: |
    map $host $name {{ default {one}; }}
  validate: nginx -t
- file: /etc/nginx/conf.d/shop.conf
  content: |
    server {{ listen 8080; return 200 $name{other}; }}
  validate: nginx -t
- file: /srv/after
  content: {one}
  require: file:/etc/nginx/conf.d/shop.conf
- service: nginx
  watch: ['file:/etc/nginx/conf.d/*']
"
        )
    };
    converge(&hosts, &states("one", ""));
    assert_eq!(page(&hosts), "one");
    let before = hosts.sh("a", "cd /etc/nginx/conf.d; stat -c '%n %a %U' *; cat *");
    let report = hosts.converge(&states("two", " nonsense nonsense")).report();
    assert_eq!(report.exit_code, 3, "{report}");
    for id in ["file:/etc/nginx/conf.d/map.conf", "file:/etc/nginx/conf.d/shop.conf"] {
        assert_eq!(report.resource(id).verdict, "failed", "{report}");
    }
    assert_eq!(report.resource("file:/srv/after").verdict, "skipped", "{report}");
    assert_eq!(hosts.sh("a", "cd /etc/nginx/conf.d; stat -c '%n %a %U' *; cat *"), before);
    assert_eq!(page(&hosts), "one");
    converge(&hosts, &states("three", ""));
    assert_eq!(page(&hosts), "three");
}

#[test]
fn a_service_takes_up_its_unit() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let states = |seconds: u32, setting: &str| {
        format!(
            "
- unit: shop.service
  content: |
    [Service]
    ExecStart=sleep {seconds}
    [Install]
    WantedBy=multi-user.target
- file: /etc/shop.conf
  content: {setting}
- service: shop
  watch: [file:/etc/shop.conf]
"
        )
    };
    let done = converge(&hosts, &states(1000, "one"));
    assert_eq!(done.resource("reaction:service:shop").verdict, "ok", "a start is enough");
    let (main, _) = processes(&hosts, "shop");

    let done = converge(&hosts, &states(2000, "one"));
    assert_eq!(reaction(&done, "reaction:service:shop"), "restart");
    hosts.sh(
        "a",
        "tr '\\0' ' ' </proc/$(systemctl show -p MainPID --value shop)/cmdline | grep 'sleep 2000'",
    );
    let (other, _) = processes(&hosts, "shop");
    assert_ne!(main, other);

    let done = converge(&hosts, &states(2000, "two"));
    assert_eq!(reaction(&done, "reaction:service:shop"), "restart (cannot reload)");
    let (main, _) = processes(&hosts, "shop");
    assert_ne!(main, other);

    // Its unit file it watches in any case.
    let alone = states(3000, "two").replace("  watch: [file:/etc/shop.conf]\n", "");
    let done = converge(&hosts, &alone);
    assert_eq!(reaction(&done, "reaction:service:shop"), "restart");
    assert_ne!(processes(&hosts, "shop").0, main);
}

#[test]
fn what_follows_a_change() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let states = |content: &str| {
        format!(
            "
- file: /srv/one
  content: {content}
- file: /srv/other
- command: echo rebuilt >>/srv/log
  onchanges: [file:/srv/one]
  id: rebuild
- command: echo other >>/srv/log
  onchanges: [file:/srv/other]
  id: other
"
        )
    };
    converge(&hosts, &states("1"));
    assert_eq!(hosts.sh("a", "cat /srv/log"), "rebuilt\nother\n");
    let done = converge(&hosts, &states("2"));
    assert_eq!(done.resource("command:other").verdict, "ok");
    assert_eq!(hosts.sh("a", "cat /srv/log"), "rebuilt\nother\nrebuilt\n");
}

#[test]
fn what_follows_a_failure() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let states = "
- command: echo first >>/srv/log
  id: first
- command: 'echo the reason >&2; false'
  id: fails
  require: command:first
- file: /srv/required
  require: command:fails
- file: /srv/later
- command: echo repaired >>/srv/log
  onfail: command:fails
  id: repair
- command: echo never >>/srv/log
  onfail: command:first
  id: never
";
    let report = hosts.converge(states).report();
    assert_eq!(report.exit_code, 3, "{report}");
    assert!(report.resource("command:fails").because.contains("the reason"), "{report}");
    for (id, verdict) in [
        ("command:first", "change"),
        ("command:fails", "failed"),
        ("file:/srv/required", "skipped"),
        ("file:/srv/later", "skipped"),
        ("command:repair", "change"),
    ] {
        assert_eq!(report.resource(id).verdict, verdict, "{id}\n{report}");
    }
    assert_ne!(report.resource("command:never").verdict, "change", "{report}");
    assert_eq!(hosts.sh("a", "cat /srv/log"), "first\nrepaired\n");
    hosts.sh("a", "[ ! -e /srv/required ] && [ ! -e /srv/later ]");
}

#[test]
fn errors_that_are_ignored_and_attempts_that_are_repeated() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let states = "
- command: 'false'
  ignore_errors: true
  id: ignored
- file: /srv/later
- command: echo x >>/srv/attempts; [ $(wc -l </srv/attempts) = 3 ]
  retry: { times: 5, delay: 0.1s }
  creates: /srv/attempted
  id: retried
- command: sleep 30
  timeout: 1s
  ignore_errors: true
  id: late
";
    let report = hosts.converge(states).report();
    assert_eq!(report.exit_code, 0, "{report}");
    for id in ["command:ignored", "command:late"] {
        assert!(report.resource(id).because.contains("failed, which is ignored"), "{report}");
    }
    assert_eq!(report.resource("command:retried").verdict, "change", "{report}");
    hosts.sh("a", "[ -e /srv/later ] && [ $(wc -l </srv/attempts) = 3 ]");
    assert_eq!(hosts.try_sh("a", "pgrep -x sleep").code, 1, "what ran too long was left running");
}
