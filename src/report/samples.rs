//! Runs for the tests of this room.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use super::{ChangeView, Event, Format, Options, Phase, Resource, Status, Summary, Verdict};

/// A clock that stands still.
pub(super) fn frozen() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Plain text with differences, 80 columns wide.
pub(super) fn options() -> Options {
    Options {
        colour: false,
        verbose: 0,
        quiet: false,
        diff: true,
        terminal: false,
        width: 80,
        now: frozen,
    }
}

/// What a reporter writes.
pub(super) fn report(format: Format, events: &[Event]) -> String {
    report_with(format, options(), events)
}

/// What a reporter writes, as it was told.
pub(super) fn report_with(format: Format, options: Options, events: &[Event]) -> String {
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let out = Shared::default();
    let mut reporter = super::reporter(format, options, Box::new(out.clone()));
    for event in events {
        reporter.event(event).unwrap();
    }
    drop(reporter);
    let bytes = out.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// A resource without differences.
pub(super) fn resource(id: &str, verdict: Verdict) -> Resource {
    Resource {
        id: id.to_owned(),
        label: None,
        play: String::from("web"),
        verdict,
        because: String::new(),
        depends_on: Vec::new(),
        assuming: Vec::new(),
        owed: false,
        changes: Vec::new(),
        at: String::from("states/web.yml:20:5"),
        ms: 1,
    }
}

/// A difference.
pub(super) fn change(action: &str, target: &str, diff: &str) -> ChangeView {
    ChangeView { action: action.to_owned(), target: target.to_owned(), diff: diff.to_owned() }
}

/// A file that is made.
pub(super) fn motd() -> Resource {
    let diff = "--- /dev/null\n+++ /etc/motd\n@@ -0,0 +1 @@\n+hello\n";
    Resource {
        label: Some(String::from("the greeting")),
        changes: vec![change("content", "/etc/motd", diff)],
        at: String::from("states/web.yml:12:5"),
        ms: 3,
        ..resource("file:/etc/motd", Verdict::Change)
    }
}

pub(super) fn started(run: &str, dry_run: bool, hosts: &[&str]) -> Event {
    Event::RunStarted {
        run: run.to_owned(),
        inventory: String::from("production"),
        state_file: String::from("web.yml"),
        dry_run,
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
    }
}

/// A host's plan, and what it counts.
pub(super) fn planned(host: &str, resources: &[Resource]) -> Vec<Event> {
    let mut events: Vec<Event> = resources
        .iter()
        .map(|resource| Event::Planned { host: host.to_owned(), resource: resource.clone() })
        .collect();
    events.push(Event::HostPlanned { host: host.to_owned(), summary: summary(resources) });
    events
}

pub(super) fn summary(resources: &[Resource]) -> Summary {
    let mut summary = Summary::default();
    for resource in resources {
        summary.count(resource.verdict);
    }
    summary
}

pub(super) fn host_done(
    host: &str,
    status: Status,
    error: Option<&str>,
    resources: &[Resource],
) -> Event {
    Event::HostDone {
        host: host.to_owned(),
        status,
        error: error.map(str::to_owned),
        summary: summary(resources),
        verified: false,
    }
}

/// Two hosts that would change alike, and one that cannot be reached.
pub(super) fn dry_run() -> Vec<Event> {
    let service = Resource {
        depends_on: vec![String::from("package:nginx")],
        assuming: vec![String::from("command:setup")],
        changes: vec![change("unit", "nginx", "~ inactive → active\n")],
        ..resource("service:nginx", Verdict::Depends)
    };
    let curl = resource("package:curl", Verdict::Ok);
    let web1 = [motd(), service, curl.clone()];
    let web2 = [Resource { ms: 5, ..motd() }, curl];
    let mut events = vec![started("r1", true, &["web1", "web2", "db1"])];
    for host in ["web1", "web2", "db1"] {
        events.push(Event::HostPhase { host: host.to_owned(), phase: Phase::Connecting });
    }
    let refused = "connection refused\n  help: is sshd running?";
    events.push(host_done("db1", Status::Unreachable, Some(refused), &[]));
    events.extend(planned("web1", &web1));
    events.extend(planned("web2", &web2));
    events.push(host_done("web1", Status::Changed, None, &web1));
    events.push(host_done("web2", Status::Changed, None, &web2));
    events.push(Event::RunDone { exit_code: 3, ms: 2_300 });
    events
}

/// One host that fails half-way, and one on which nothing differs.
pub(super) fn live_run() -> Vec<Event> {
    let service = Resource {
        changes: vec![change("act", "nginx", "reload\n")],
        ..resource("service:nginx", Verdict::Change)
    };
    let curl = resource("package:curl", Verdict::Ok);
    let issue = resource("file:/etc/issue", Verdict::Change);
    let plan = [motd(), service.clone(), curl.clone(), issue.clone()];
    let failed = Resource {
        verdict: Verdict::Failed,
        because: String::from("nginx: [emerg] bad\nline two"),
        ..service
    };
    let skipped = Resource {
        verdict: Verdict::Skipped,
        because: String::from("an earlier step failed"),
        ..issue
    };
    let done = [motd(), failed.clone(), curl.clone(), skipped.clone()];
    let mut events = vec![started("r2", false, &["web1", "web2"])];
    events.extend(planned("web1", &plan));
    events.extend(planned("web2", std::slice::from_ref(&curl)));
    events.push(Event::Started {
        host: String::from("web1"),
        id: String::from("file:/etc/motd"),
        label: None,
    });
    for resource in [motd(), curl.clone(), failed, skipped] {
        events.push(Event::Done { host: String::from("web1"), resource });
    }
    let error = "service:nginx: nginx: [emerg] bad\nline two";
    events.push(host_done("web1", Status::Failed, Some(error), &done));
    events.push(host_done("web2", Status::Ok, None, &[curl]));
    events.push(Event::RunDone { exit_code: 3, ms: 65_000 });
    events
}

/// A run that ended when the facts of its only host were known.
pub(super) fn refused() -> Vec<Event> {
    vec![
        started("r3", false, &["web1"]),
        Event::HostPhase { host: String::from("web1"), phase: Phase::Connecting },
        Event::RunDone { exit_code: 1, ms: 100 },
    ]
}
