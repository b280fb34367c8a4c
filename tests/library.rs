//! The kinds of `states/kinds` on a real host: what `states/orders.yml` makes of all of them takes orders and fulfils
//! them, and a change of one of them touches nothing but what it has to.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod hosts;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use hosts::{Hosts, Report, Run, assert_as_planned};

/// What the library's kinds install, and what `states/orders.yml` and `states/base.yml` do beside.
const PACKAGES: &[&str] = &[
    "ca-certificates",
    "celery",
    "curl",
    "gunicorn",
    "less",
    "nginx",
    "openssh-server",
    "python3-redis",
    "redis-server",
    "sudo",
];

/// The services that states of the library run.
const SERVICES: &str = "orders orders-worker nginx ssh";

/// A host, and a project with the repository's states.
fn booted() -> Option<Hosts> {
    let hosts = Hosts::with_packages(&["shop"], PACKAGES)?;
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("states");
    let copied = Command::new("cp").arg("-r").arg(from).arg(hosts.path("states")).status().unwrap();
    assert!(copied.success());
    hosts.write("inventory/test.yml", "web:\n  hosts:\n    shop:\n");
    Some(hosts)
}

fn orders<'h>(hosts: &'h Hosts) -> Run<'h> {
    hosts.run(&["-i", "test", "orders.yml"])
}

/// Changes a file of the project.
#[track_caller]
fn edit(hosts: &Hosts, name: &str, from: &str, to: &str) {
    let text = fs::read_to_string(hosts.path(name)).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from} in {name}");
    hosts.write(name, &text.replace(from, to));
}

/// Waits until a script succeeds on the host.
#[track_caller]
fn wait(hosts: &Hosts, script: &str) {
    let begun = Instant::now();
    loop {
        let ended = hosts.try_sh("shop", script);
        if ended.code == 0 {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "in vain: {script}\n{ended}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Orders something, and waits until the page says that it is done.
#[track_caller]
fn order(hosts: &Hosts, what: &str) {
    hosts.sh("shop", &format!("curl -sSf -d what={what} http://127.0.0.1:8080/"));
    wait(hosts, &format!("curl -sSf http://127.0.0.1:8080/ | grep -q '<li>{what}'"));
}

/// The main processes of the services, which a restart replaces and a reload keeps.
fn processes(hosts: &Hosts) -> Vec<(String, String)> {
    let script = format!("for s in {SERVICES}; do echo $s $(systemctl show -P MainPID $s); done");
    let lines = hosts.sh("shop", &script);
    let words = lines.lines().map(|line| line.split_once(' ').unwrap());
    words.map(|(name, process)| (name.to_owned(), process.to_owned())).collect()
}

/// What is not as declared, waits apart; a reaction with what it does.
fn changed(report: &Report) -> Vec<String> {
    let resources = report.only().resources.iter();
    let changed = resources.filter(|one| one.verdict != "ok" && one.verdict != "skipped");
    changed
        .filter(|one| !one.id.starts_with("wait_for:"))
        .map(|one| match one.id.strip_prefix("reaction:service:") {
            Some(name) => {
                let said = &one.changes[0].diff;
                format!("{name}: {}", said.split(',').next().unwrap_or_default().trim())
            }
            None => one.id.clone(),
        })
        .collect()
}

/// The first run did what its plan said. Of Debian's own site the plan only knows that nginx may bring it.
#[track_caller]
fn assert_first_as_planned(mut planned: Report, mut done: Report) {
    let default = "symlink:/etc/nginx/sites-enabled/default";
    let waits_for = &planned.resource(default).depends_on;
    assert!(waits_for.iter().any(|id| id == "package:nginx"), "{planned}");
    for report in [&mut planned, &mut done] {
        report.hosts[0].resources.retain(|one| one.id != default);
    }
    assert_as_planned(&planned, &done);
}

/// A change of the project does exactly this; a restart replaces its process, all else keeps them.
#[track_caller]
fn does(hosts: &Hosts, expected: &[&str]) {
    let before = processes(hosts);
    let planned = orders(hosts).dry_run().succeeds();
    assert_eq!(changed(&planned), expected, "{planned}");
    let done = orders(hosts).succeeds();
    assert_as_planned(&planned, &done);
    for ((name, before), (_, after)) in before.iter().zip(processes(hosts)) {
        let restarted = expected.contains(&format!("{name}: restart").as_str());
        assert_eq!(*before != after, restarted, "{name}: {before}, then {after}\n{done}");
    }
}

#[test]
fn orders_are_taken_and_fulfilled() {
    let Some(hosts) = booted() else { return };
    hosts.sh("shop", "useradd -m sailor && echo sailor:ahoy | chpasswd");
    let offered = "ssh -o PreferredAuthentications=none -o StrictHostKeyChecking=no \
                   -o UserKnownHostsFile=/dev/null sailor@127.0.0.1 2>&1 | grep -o '(publickey.*)'";
    assert_eq!(hosts.sh("shop", offered), "(publickey,password)\n");

    let planned = orders(&hosts).dry_run().succeeds();
    let first = orders(&hosts).succeeds();
    assert_first_as_planned(planned, first);
    orders(&hosts).succeeds().assert_unchanged();

    // nginx has it from gunicorn, and what is posted comes to the worker.
    let head = "curl -sSfI http://127.0.0.1:8080/healthz | grep -qx 'Server: nginx.*'
                curl -sSfI --unix-socket /run/orders/gunicorn.sock http://orders/healthz | grep -q gunicorn
                curl -sSf http://127.0.0.1:8080/static/style.css | grep -q font";
    hosts.sh("shop", head);
    order(&hosts, "tea");
    hosts.sh("shop", "[ $(stat -c %U:%a /var/lib/orders/done) = orders:640 ]");

    // Keys only, for root too; this test logs in with one all the time.
    assert_eq!(hosts.sh("shop", offered), "(publickey)\n");
    hosts.sh("shop", "sshd -T | grep -qx 'permitrootlogin without-password'");

    one_changed_argument(&hosts);
    a_task_in_hand_is_finished(&hosts);
    who_locks_himself_out_is_let_in_again(&hosts);
}

fn one_changed_argument(hosts: &Hosts) {
    let state = "states/orders.yml";
    edit(hosts, state, "orders_workers: 2", "orders_workers: 3");
    does(hosts, &["unit:orders.service", "orders: restart"]);
    wait(hosts, "[ $(pgrep -c -u orders gunicorn) = 4 ]");

    let queues = "    queues: [orders]\n";
    edit(hosts, state, queues, &format!("{queues}    concurrency: 1\n"));
    does(hosts, &["unit:orders-worker.service", "orders-worker: restart"]);

    let site = "    listen: \"{{ orders_port }}\"\n";
    edit(hosts, state, site, &format!("{site}    client_max_body_size: 1k\n"));
    does(hosts, &["file:/etc/nginx/sites-available/orders", "nginx: reload"]);
    // A reload is over before the old workers of nginx are.
    let large = "head -c 2000 /dev/zero | tr '\\0' a | curl -s -o /dev/null -w '%{http_code}' -d @- 127.0.0.1:8080";
    wait(hosts, &format!("[ $({large}) = 413 ]"));

    edit(
        hosts,
        "states/base.yml",
        "hardened_ssh: 10-hardened\n",
        "hardened_ssh: 10-hardened\n    allow_users: [root]\n",
    );
    does(hosts, &["file:/etc/ssh/sshd_config.d/10-hardened.conf", "ssh: reload"]);

    let variable = "      DATA: /var/lib/orders\n";
    edit(hosts, state, variable, &format!("{variable}      MORE: more\n"));
    does(hosts, &["environment_file:/etc/orders.env", "orders: restart", "orders-worker: restart"]);

    edit(hosts, "states/files/orders/orders.py", "<h1>Orders</h1>", "<h1>All orders</h1>");
    does(hosts, &["tree:/srv/orders", "orders: reload", "orders-worker: restart"]);
    wait(hosts, "curl -sSf http://127.0.0.1:8080/ | grep -q 'All orders'");
    order(hosts, "coffee");
}

/// The worker is asked to stop while it has a task, and waits for it.
fn a_task_in_hand_is_finished(hosts: &Hosts) {
    let slow = "    import time\n    DONE.with_name('begun').touch()\n    \
                while what == 'slow' and not DONE.with_name('go').exists():\n        time.sleep(0.05)\n    \
                with DONE.open";
    edit(hosts, "states/files/orders/tasks.py", "    with DONE.open", slow);
    does(hosts, &["tree:/srv/orders", "orders: reload", "orders-worker: restart"]);
    hosts.sh("shop", "curl -sSf -d what=slow http://127.0.0.1:8080/");
    wait(hosts, "[ -e /var/lib/orders/begun ]");
    edit(hosts, "states/orders.yml", "concurrency: 1", "concurrency: 2");
    let running = orders(hosts).start();
    wait(hosts, "[ $(systemctl show -P ActiveState orders-worker) = deactivating ]");
    hosts.sh("shop", "! grep slow /var/lib/orders/done && touch /var/lib/orders/go");
    assert_eq!(running.ended().code, 0);
    // Once, and not again by the worker that came after.
    order(hosts, "milk");
    orders(hosts).succeeds().assert_unchanged();
    assert_eq!(hosts.sh("shop", "grep -c slow /var/lib/orders/done"), "1\n");
}

/// This test is root: it shuts the door on itself.
fn who_locks_himself_out_is_let_in_again(hosts: &Hosts) {
    let before = hosts.sh("shop", "cat /etc/ssh/sshd_config.d/10-hardened.conf");
    let report = hosts
        .converge("- hardened_ssh: 10-hardened\n  allow_users: [root]\n  confirm_connection: 3s\n")
        .report();
    assert_eq!(report.exit_code, 3, "{report}");
    let file = report.resource("file:/etc/ssh/sshd_config.d/10-hardened.conf");
    assert!(file.because.contains("it was taken back"), "{report}");
    assert_eq!(hosts.sh("shop", "cat /etc/ssh/sshd_config.d/10-hardened.conf"), before);
}

/// Folders, certificates and what else a site and an application may have.
const SITES: &str = "\
- command: openssl req -x509 -newkey ed25519 -nodes -subj /CN=shop -keyout privkey.pem -out fullchain.pem
  cwd: /etc/ssl
  creates: /etc/ssl/fullchain.pem
- directory: [/srv/site, /srv/factory]
- file: /srv/site/index.html
  content: of a folder
- file: /srv/factory/factory.py
  content: |
    def create():
        def application(environ, start_response):
            content = b'of ' + environ['HTTP_X_FORWARDED_PROTO'].encode()
            start_response('200 OK', [('Content-Length', str(len(content)))])
            return [content]
        return application
- gunicorn_app: factory
  app: factory:create()
  bind: 127.0.0.1:8000
  workers: 1
  options: --threads 2
- nginx_site: secure
  certificate: /etc/ssl/fullchain.pem
  upstream: 127.0.0.1:8000
  extra: |
    location = /teapot {
        return 418;
    }
- nginx_site: files
  server_name: files.example.com files
  listen: 8081
  root: /srv/site
- wait_for: the application
  port: 8000
";

#[test]
fn sites_of_all_sorts() {
    let Some(hosts) = booted() else { return };
    let planned = hosts.converge(SITES).dry_run().succeeds();
    let done = hosts.converge(SITES).succeeds();
    assert_first_as_planned(planned, done);
    hosts.converge(SITES).succeeds().assert_unchanged();
    // A reload is over before nginx has done what it says.
    let answers = |address: &str, expected: &str| {
        let script = format!("curl -sSk -w ' %{{http_code}} %{{redirect_url}}' {address}");
        wait(&hosts, &format!("[ \"$({script})\" = '{expected}' ]"));
    };
    answers("https://127.0.0.1/", "of https 200 ");
    answers("-o /dev/null https://127.0.0.1/teapot", " 418 ");
    answers("-o /dev/null -H 'Host: shop' http://127.0.0.1/a?b", " 301 https://shop/a?b");
    answers("-H 'Host: files' http://127.0.0.1:8081/", "of a folder 200 ");
    answers("-o /dev/null -H 'Host: files' http://127.0.0.1:8081/missing", " 404 ");
    hosts.sh("shop", "[ ! -e /etc/nginx/sites-enabled/default ] && pgrep -u factory gunicorn");

    // What nginx would refuse it is not told, and what is enabled is put back.
    let further = |line: &str| {
        let site = "- nginx_site: further\n  server_name: further\n  extra:";
        hosts.converge(&format!("{SITES}{site} {line}\n"))
    };
    let refused = further("nonsense on;").report();
    assert_eq!(refused.exit_code, 3, "{refused}");
    let reaction = refused.resource("reaction:service:nginx");
    assert!(reaction.because.contains("unknown directive \"nonsense\""), "{refused}");
    answers("https://127.0.0.1/", "of https 200 ");
    further("return 204;").succeeds();
    answers("-H 'Host: further' http://127.0.0.1/", " 204 ");
    let refused = further("worse on;").report();
    assert_eq!(refused.exit_code, 3, "{refused}");
    let file = refused.resource("file:/etc/nginx/sites-available/further");
    assert!(file.because.contains("unknown directive \"worse\""), "{refused}");
    hosts.sh("shop", "nginx -t && grep -q 'return 204;' /etc/nginx/sites-enabled/further");
}
