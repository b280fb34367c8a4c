use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use indexmap::IndexMap;

use super::effect::Effect;
use super::paint::{Ink, Paint};
use super::table::{self, Row, counted, duration, tally};
use super::{
    ChangeView, Event, Options, Phase, Reporter, Resource, Status, Summary, Verdict, clean,
};

/// What stands below a resource begins here.
const INDENT: &str = "      ";

/// Writes what people read, as the run goes.
pub(super) struct TextReporter {
    text: Text,
    out: Box<dyn Write + Send>,
}

impl TextReporter {
    pub(super) fn new(text: Text, out: Box<dyn Write + Send>) -> Self {
        Self { text, out }
    }
}

impl Reporter for TextReporter {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        let text = self.text.event(event);
        if text.is_empty() {
            return Ok(());
        }
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

/// Makes text of events; the hosts' lines never mix within a line.
pub(super) struct Text {
    options: Options,
    paint: Paint,
    dry_run: bool,
    hosts: IndexMap<String, HostText>,
}

/// What is yet to be said of a host.
#[derive(Default)]
struct HostText {
    begun: Option<Instant>,
    took: Option<Duration>,
    status: Option<Status>,
    error: Option<String>,
    summary: Summary,
    /// In a dry run: the lines of its resources, until all of them are planned.
    block: String,
    /// The resources that failed: the first line of an error that says the same, and the text.
    failures: Vec<(String, String)>,
    /// With `-v`, in a live run: resources that the run has not come to, by play and identity.
    idle: IndexMap<(String, String), String>,
    /// How many resources failed, which is ignored.
    ignored: usize,
    /// How many resources were changed, and the last of them.
    changed: usize,
    last: String,
}

impl Text {
    pub(super) fn new(options: Options) -> Self {
        let paint = Paint::new(options.colour);
        Self { options, paint, dry_run: false, hosts: IndexMap::new() }
    }

    /// What an event has people read; ends with a newline unless it is empty.
    pub(super) fn event(&mut self, event: &Event) -> String {
        match event {
            Event::RunStarted { run, inventory, state_file, dry_run, hosts } => {
                self.dry_run = *dry_run;
                for host in hosts {
                    self.host(host);
                }
                if self.options.quiet {
                    return String::new();
                }
                let what = if *dry_run { "dry run" } else { "run" };
                let hosts = counted(hosts.len(), "host");
                let line = format!("{inventory}: {state_file} on {hosts}, {what} {run}");
                format!("{}\n", clean::line(&line))
            }
            Event::HostPhase { host, phase } => self.phase(host, *phase),
            Event::Planned { host, resource } => self.planned(host, resource),
            Event::HostPlanned { host, summary } => self.host_planned(host, *summary),
            Event::Started { host, id, .. } if self.options.verbose >= 2 => {
                let line = format!("{host}: begins {id}");
                format!("{}\n", self.paint.ink(Ink::Dim, &clean::line(&line)))
            }
            Event::Started { .. } => String::new(),
            Event::Done { host, resource } => self.done(host, resource),
            Event::HostDone { host, status, error, summary, .. } => {
                self.host_done(host, *status, error.as_deref(), *summary)
            }
            Event::Warning { host, message } => {
                let host = host.as_ref().map(|host| format!("{}: ", clean::line(host)));
                let word = self.paint.ink(Ink::Yellow, "warning");
                format!("{word}: {}{}\n", host.unwrap_or_default(), clean::line(message))
            }
            Event::RunDone { exit_code, ms } => self.run_done(*exit_code, *ms),
        }
    }

    fn host(&mut self, name: &str) -> &mut HostText {
        self.hosts.entry(name.to_owned()).or_default()
    }

    fn phase(&mut self, name: &str, phase: Phase) -> String {
        let now = (self.options.now)();
        self.host(name).begun.get_or_insert(now);
        if self.options.verbose < 2 {
            return String::new();
        }
        let line = format!("{}: {}", clean::line(name), phase_words(phase));
        format!("{}\n", self.paint.ink(Ink::Dim, &line))
    }

    fn planned(&mut self, name: &str, resource: &Resource) -> String {
        if resource.verdict == Verdict::Failed {
            self.remember_failure(name, resource);
        }
        if self.dry_run {
            self.host(name).ignored += usize::from(resource.is_ignored());
            if self.shows(resource) {
                let text = self.announce(resource, "  ");
                self.host(name).block.push_str(&text);
            }
            return String::new();
        }
        let lead = format!("{}: ", clean::line(name));
        if resource.verdict == Verdict::Failed {
            return self.announce(resource, &lead);
        }
        let idle = matches!(resource.verdict, Verdict::Ok | Verdict::Skipped);
        if idle && self.shows(resource) {
            let text = self.describe(resource, &lead, false);
            let key = (resource.play.clone(), resource.id.clone());
            self.host(name).idle.insert(key, text);
        }
        String::new()
    }

    fn host_planned(&mut self, name: &str, summary: Summary) -> String {
        let (dry_run, quiet) = (self.dry_run, self.options.quiet);
        let host = self.host(name);
        host.summary = summary;
        let block = std::mem::take(&mut host.block);
        if quiet && (block.is_empty() || !dry_run) {
            return String::new();
        }
        let counts = plan_counts(summary, dry_run);
        let heading = format!("{}: {counts}\n", self.paint.ink(Ink::Bold, &clean::line(name)));
        if block.is_empty() { heading } else { format!("\n{heading}{block}") }
    }

    fn done(&mut self, name: &str, resource: &Resource) -> String {
        if resource.verdict == Verdict::Failed {
            self.remember_failure(name, resource);
        }
        let host = self.host(name);
        if let Some(text) = host.idle.get_mut(&(resource.play.clone(), resource.id.clone())) {
            // Its place is kept: taking it out would cost a walk over all others.
            text.clear();
        }
        host.ignored += usize::from(resource.is_ignored());
        if resource.verdict == Verdict::Change {
            host.changed += 1;
            host.last.clone_from(&resource.id);
        }
        if !self.shows(resource) {
            return String::new();
        }
        self.announce(resource, &format!("{}: ", clean::line(name)))
    }

    fn host_done(
        &mut self,
        name: &str,
        status: Status,
        error: Option<&str>,
        summary: Summary,
    ) -> String {
        let now = (self.options.now)();
        let (paint, quiet, dry_run) = (self.paint, self.options.quiet, self.dry_run);
        let host = self.host(name);
        host.took = host.begun.map(|begun| now.saturating_duration_since(begun));
        host.status = Some(status);
        host.error = error.map(str::to_owned);
        host.summary = summary;
        let mut text = String::new();
        let block = std::mem::take(&mut host.block);
        if !block.is_empty() {
            let name = paint.ink(Ink::Bold, &clean::line(name));
            let _ = write!(text, "\n{name}:\n{block}");
        }
        for (_, line) in std::mem::take(&mut host.idle) {
            text.push_str(&line);
        }
        let said = !host.failures.is_empty() || (quiet && status == Status::Skipped);
        if let Some(error) = error
            && !said
        {
            let first = error.lines().next().unwrap_or_default();
            let words = paint.ink(table::status_ink(status), table::status_words(status, dry_run));
            let _ = writeln!(text, "{}: {words}: {}", clean::line(name), clean::line(first));
        }
        text
    }

    fn remember_failure(&mut self, name: &str, resource: &Resource) {
        let text = self.describe(resource, "  ", false);
        let same = format!("{}: {}", resource.id, resource.because);
        self.host(name).failures.push((same, text));
    }

    /// Whether a resource is worth a line.
    fn shows(&self, resource: &Resource) -> bool {
        match resource.verdict {
            Verdict::Change | Verdict::Depends | Verdict::Failed => true,
            // A reaction that is due is announced, although it is no change.
            Verdict::Ok | Verdict::Skipped => {
                self.options.verbose >= 1 || (self.dry_run && !resource.changes.is_empty())
            }
        }
    }

    /// A resource as it is said at its turn: of an error only the beginning, since all of it stands
    /// at the end.
    fn announce(&self, resource: &Resource, lead: &str) -> String {
        if resource.verdict != Verdict::Failed {
            return self.describe(resource, lead, self.options.diff);
        }
        let because = beginning(&resource.because);
        self.describe(&Resource { because, ..resource.clone() }, lead, self.options.diff)
    }

    /// A resource: its line, the differences, what it waits for.
    fn describe(&self, resource: &Resource, lead: &str, diff: bool) -> String {
        let paint = self.paint;
        let effect = Effect::of(resource);
        let sign = paint.ink(effect.ink(), &effect.sign().to_string());
        let mut text = format!("{lead}{sign} {}", paint.ink(Ink::Bold, &clean::line(&resource.id)));
        if let Some(label) = &resource.label {
            let _ = write!(text, " ({})", clean::line(label));
        }
        let _ = writeln!(text, "  {}", paint.ink(Ink::Dim, &clean::line(&resource.at)));
        if diff {
            for change in &resource.changes {
                self.difference(resource, change, &mut text);
            }
        }
        if !resource.depends_on.is_empty() {
            let _ = writeln!(text, "{INDENT}waits for {}", names(&resource.depends_on));
        }
        if !resource.assuming.is_empty() {
            let leaves = if resource.assuming.len() == 1 { "leaves" } else { "leave" };
            let names = names(&resource.assuming);
            let _ = writeln!(text, "{INDENT}assuming {names} {leaves} it alone");
        }
        if resource.owed {
            let _ = writeln!(text, "{INDENT}owed by an earlier run");
        }
        if resource.because.is_empty() {
            return text;
        }
        if resource.verdict == Verdict::Failed {
            for line in clean::block(&resource.because).lines() {
                let _ = writeln!(text, "{INDENT}{}", paint.ink(Ink::Red, line));
            }
        } else {
            let _ = writeln!(text, "{INDENT}because {}", clean::line(&resource.because));
        }
        text
    }

    fn difference(&self, resource: &Resource, change: &ChangeView, text: &mut String) {
        let diff = clean::block(&change.diff);
        if let Some(target) = unnamed_target(resource, change) {
            let target = clean::line(target);
            let mut lines = diff.lines();
            if let (Some(line), None) = (lines.next(), lines.next()) {
                let _ = writeln!(text, "{INDENT}{target}: {}", self.paint.diff_line(line));
                return;
            }
            let _ = writeln!(text, "{INDENT}{target}:");
        }
        for line in diff.lines() {
            let _ = writeln!(text, "{INDENT}{}", self.paint.diff_line(line));
        }
    }

    fn run_done(&self, exit_code: i32, ms: u64) -> String {
        // What was refused is said by whoever refused it.
        if exit_code == 1 && self.hosts.values().all(|host| host.status.is_none()) {
            return String::new();
        }
        let status = |host: &HostText| host.status.unwrap_or(Status::Skipped);
        let rows: Vec<Row> = self
            .hosts
            .iter()
            .filter(|(_, host)| {
                !self.options.quiet || !matches!(status(host), Status::Ok | Status::Skipped)
            })
            .map(|(name, host)| Row {
                host: clean::line(name),
                status: status(host),
                summary: host.summary,
                took: host.took,
            })
            .collect();
        let mut text = String::new();
        if !rows.is_empty() {
            text.push('\n');
            text.push_str(&table::table(&rows, self.dry_run, self.options.width, self.paint));
        }
        // Hosts on which the same went wrong share its text.
        let mut failures: IndexMap<(Status, String), Vec<String>> = IndexMap::new();
        for (name, host) in &self.hosts {
            if let Some(failure) = self.failure(host) {
                failures.entry(failure).or_default().push(clean::line(name));
            }
        }
        for ((status, failure), names) in failures {
            let words = table::status_words(status, self.dry_run);
            let words = self.paint.ink(table::status_ink(status), words);
            let _ = writeln!(text, "\n{words}: {}", self.paint.ink(Ink::Bold, &names.join(", ")));
            text.push_str(&failure);
        }
        if exit_code == 130 {
            self.interruption(&mut text);
        }
        let mut total = Summary::default();
        for host in self.hosts.values() {
            total.ok += host.summary.ok;
            total.change += host.summary.change;
            total.depends += host.summary.depends;
            total.failed += host.summary.failed;
        }
        let dry_run = if self.dry_run { "dry run: " } else { "" };
        let hosts = counted(self.hosts.len(), "host");
        let tally = tally(self.hosts.values().map(status), self.dry_run);
        let changed = if self.dry_run { "would change" } else { "changed" };
        let _ = write!(text, "\n{dry_run}{hosts}: {tally}; ");
        let _ = write!(text, "{} {changed}", counted(total.change, "resource"));
        let ignored = self.hosts.values().map(|host| host.ignored).sum();
        let more = [(total.depends, "depends"), (total.failed, "failed"), (ignored, "ignored")];
        for (number, word) in more {
            if number > 0 {
                let _ = write!(text, ", {number} {word}");
            }
        }
        let _ = writeln!(text, "; {}", duration(Duration::from_millis(ms)));
        text
    }

    /// How a host failed, if it did, and the full text of its errors.
    fn failure(&self, host: &HostText) -> Option<(Status, String)> {
        let status = host.status.filter(|status| {
            matches!(status, Status::Failed | Status::Unreachable | Status::RolledBack)
        })?;
        let mut text = String::new();
        if let Some(error) = &host.error
            && !host.failures.iter().any(|(same, _)| same == error)
        {
            for line in clean::block(error).lines() {
                let _ = writeln!(text, "  {line}");
            }
        }
        for (_, failure) in &host.failures {
            text.push_str(failure);
        }
        Some((status, text))
    }

    /// Where the run was stopped.
    fn interruption(&self, text: &mut String) {
        text.push_str("\ninterrupted");
        if self.dry_run {
            text.push_str(": nothing was changed\n");
            return;
        }
        text.push_str(": what was in hand was finished, nothing more was begun\n");
        let mut untouched = 0;
        for (name, host) in &self.hosts {
            if host.changed == 0 {
                untouched += 1;
                continue;
            }
            let changed = counted(host.changed, "resource");
            let (name, last) = (clean::line(name), clean::line(&host.last));
            let _ = writeln!(text, "  {name}: {changed} changed, the last one {last}");
        }
        if untouched > 0 {
            let _ = writeln!(text, "  nothing was changed on {}", counted(untouched, "host"));
        }
    }
}

/// The target of a difference that neither the resource's identity nor the difference names.
pub(super) fn unnamed_target<'a>(resource: &Resource, change: &'a ChangeView) -> Option<&'a str> {
    let named = change.target.is_empty()
        || change.diff.starts_with("--- ")
        || resource.id.ends_with(&change.target);
    (!named).then_some(change.target.as_str())
}

/// The first line of an error, cut where it is long.
fn beginning(error: &str) -> String {
    const LONGEST: usize = 120;
    let line = error.lines().next().unwrap_or_default();
    if line.len() == error.trim_end().len() && line.chars().count() <= LONGEST {
        return error.to_owned();
    }
    let line: String = line.chars().take(LONGEST).collect();
    format!("{} …", line.trim_end())
}

/// What a host is doing, in a word.
pub(super) const fn phase_words(phase: Phase) -> &'static str {
    match phase {
        Phase::Connecting => "connecting",
        Phase::Uploading => "uploading",
        Phase::Planning => "planning",
        Phase::Waiting => "waiting",
        Phase::Applying => "applying",
    }
}

fn names(ids: &[String]) -> String {
    let names: Vec<String> = ids.iter().map(|id| clean::line(id)).collect();
    names.join(", ")
}

/// A plan by verdict: `2 would change, 12 ok`.
fn plan_counts(summary: Summary, dry_run: bool) -> String {
    let change = if dry_run { "would change" } else { "to change" };
    let counts = [
        (summary.failed, "failed"),
        (summary.change, change),
        (summary.depends, "depends"),
        (summary.ok, "ok"),
        (summary.skipped, "skipped"),
    ];
    let parts: Vec<String> = counts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, word)| format!("{number} {word}"))
        .collect();
    if parts.is_empty() { String::from("nothing is declared") } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Format;
    use crate::report::samples::{self, change, options, report, report_with, resource};

    #[test]
    fn a_dry_run_shows_each_host_and_sums_up() {
        let expected = "\
production: web.yml on 3 hosts, dry run r1
db1: unreachable: connection refused

web1: 1 would change, 1 depends, 1 ok
  + file:/etc/motd (the greeting)  states/web.yml:12:5
      --- /dev/null
      +++ /etc/motd
      @@ -0,0 +1 @@
      +hello
  ? service:nginx  states/web.yml:20:5
      ~ inactive → active
      waits for package:nginx
      assuming command:setup leaves it alone

web2: 1 would change, 1 ok
  + file:/etc/motd (the greeting)  states/web.yml:12:5
      --- /dev/null
      +++ /etc/motd
      @@ -0,0 +1 @@
      +hello

host  status        ok  change  depends  failed  skipped  time
web1  would change   1       1        1       0        0  0 ms
web2  would change   1       1        0       0        0  0 ms
db1   unreachable    0       0        0       0        0  0 ms

unreachable: db1
  connection refused
    help: is sshd running?

dry run: 3 hosts: 2 would change, 1 unreachable; 2 resources would change, 1 depends; 2.3 s
";
        assert_eq!(report(Format::Text, &samples::dry_run()), expected);
    }

    #[test]
    fn a_live_run_reports_as_it_goes() {
        let options = Options { diff: false, ..options() };
        let expected = "\
production: web.yml on 2 hosts, run r2
web1: 3 to change, 1 ok
web2: 1 ok
web1: + file:/etc/motd (the greeting)  states/web.yml:12:5
web1: ! service:nginx  states/web.yml:20:5
      nginx: [emerg] bad …

host  status  ok  changed  failed  skipped  time
web1  failed   1        1       1        1     -
web2  ok       1        0       0        0     -

failed: web1
  ! service:nginx  states/web.yml:20:5
      nginx: [emerg] bad
      line two

2 hosts: 1 ok, 1 failed; 1 resource changed, 1 failed; 1 m 05 s
";
        assert_eq!(report_with(Format::Text, options, &samples::live_run()), expected);
    }

    #[test]
    fn quiet_leaves_changes_failures_and_the_sum() {
        let options = Options { diff: false, quiet: true, ..options() };
        let text = report_with(Format::Text, options, &samples::live_run());
        let expected = "\
web1: + file:/etc/motd (the greeting)  states/web.yml:12:5
web1: ! service:nginx  states/web.yml:20:5
      nginx: [emerg] bad …

host  status  ok  changed  failed  skipped  time
web1  failed   1        1       1        1     -
";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn verbose_lists_what_is_as_declared() {
        let options = Options { diff: false, verbose: 1, ..options() };
        let text = report_with(Format::Text, options, &samples::live_run());
        for line in [
            "web1: = package:curl  states/web.yml:20:5\n",
            "web1: · file:/etc/issue  states/web.yml:20:5\n      because an earlier step failed\n",
            "web2: = package:curl  states/web.yml:20:5\n",
        ] {
            assert_eq!(text.matches(line).count(), 1, "{line}{text}");
        }
    }

    #[test]
    fn a_refused_run_leaves_the_word_to_the_diagnostics() {
        let text = report(Format::Text, &samples::refused());
        assert_eq!(text, "production: web.yml on 1 host, run r3\n");
    }

    #[test]
    fn an_interrupted_run_says_where_it_stopped() {
        let mut events = samples::live_run();
        events.pop();
        events.push(Event::RunDone { exit_code: 130, ms: 10 });
        let text = report(Format::Text, &events);
        let expected = "
interrupted: what was in hand was finished, nothing more was begun
  web1: 1 resource changed, the last one file:/etc/motd
  nothing was changed on 1 host
";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn differences_name_their_target_where_nothing_else_does() {
        let text = Text::new(options());
        let cases = [
            ("command:nginx -t", change("act", "nginx -t", "run\n"), "      run\n"),
            (
                "unit:a",
                change("act", "systemd", "daemon-reload\n"),
                "      systemd: daemon-reload\n",
            ),
            (
                "tree:/srv",
                change("metadata", "/srv/a", "~ owner a → b\n~ mode 0600 → 0644\n"),
                "      /srv/a:\n      ~ owner a → b\n      ~ mode 0600 → 0644\n",
            ),
            ("file:/x", change("content", "/x", ""), ""),
        ];
        for (id, view, expected) in cases {
            let mut shown = String::new();
            text.difference(&resource(id, Verdict::Change), &view, &mut shown);
            assert_eq!(shown, expected, "{id}");
        }
    }

    #[test]
    fn hosts_do_not_steer_the_terminal() {
        let mut hostile = resource("command:\u{1b}[2Jx\ny", Verdict::Failed);
        hostile.because = String::from("\u{1b}]0;title\u{7}\nsecond");
        let mut events = vec![samples::started("r", false, &["web1"])];
        events.extend(samples::planned("web1", std::slice::from_ref(&hostile)));
        events.push(samples::host_done("web1", Status::Failed, Some("\u{1b}c"), &[hostile]));
        events.push(Event::RunDone { exit_code: 3, ms: 1 });
        let text = report(Format::Text, &events);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text:?}");
        assert!(text.contains("web1: ! command:\\x1b[2Jx\\ny  "), "{text}");
    }

    #[test]
    fn colours_are_only_added() {
        let coloured = Options { colour: true, ..options() };
        let text = report_with(Format::Text, coloured, &samples::dry_run());
        let mut plain = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("\u{1b}[") {
            plain.push_str(before);
            rest = after.split_once('m').unwrap().1;
        }
        plain.push_str(rest);
        assert_eq!(plain, report(Format::Text, &samples::dry_run()));
    }
}
