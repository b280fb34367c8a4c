use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use super::effect::Effect;
use super::record::{HostRecord, RunRecord};
use super::table::{counted, status_words};
use super::text::unnamed_target;
use super::{Event, Reporter, Resource, Status, Verdict, clean};

/// Most bytes of a comment; forges refuse somewhat more than that.
const LIMIT: usize = 60_000;
/// Bytes kept for saying what was left out.
const RESERVE: usize = 500;
/// Bytes that all errors of hosts, and all warnings, may take.
const MESSAGES: usize = 15_000;
/// Bytes of one error.
const MESSAGE: usize = 2_000;
/// Bytes of one difference.
const DIFF: usize = 8_000;
/// Lines of a difference that does not fold.
const OPEN_LINES: usize = 30;
/// Names that are listed before the rest is counted.
const NAMES: usize = 20;
/// Characters of a name, and of a line.
const NAME: usize = 200;
const LINE: usize = 1_000;

/// Writes a comment for a pull request when the run is done.
pub(super) struct Markdown {
    record: RunRecord,
    out: Box<dyn Write + Send>,
}

impl Markdown {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { record: RunRecord::default(), out }
    }
}

impl Reporter for Markdown {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.record.event(event);
        if !matches!(event, Event::RunDone { .. }) {
            return Ok(());
        }
        self.out.write_all(comment(&self.record).as_bytes())?;
        self.out.flush()
    }
}

/// What did not fit.
#[derive(Default)]
struct LeftOut {
    messages: usize,
    resources: usize,
    differences: usize,
}

/// The whole comment, within its limit.
fn comment(record: &RunRecord) -> String {
    let mut text = head(record);
    let mut left_out = LeftOut::default();
    let mut budget = MESSAGES;
    for message in host_errors(record).into_iter().chain(warnings(record)) {
        if message.len() <= budget {
            budget -= message.len();
            text.push_str(&message);
        } else {
            left_out.messages += 1;
        }
    }
    // Every resource gets its line before any gets its difference.
    let mut budget = LIMIT.saturating_sub(RESERVE + text.len());
    let mut shown = Vec::new();
    for group in groups(record) {
        let line = group.line(record.dry_run);
        if line.len() <= budget {
            budget -= line.len();
            shown.push((group, line));
        } else {
            left_out.resources += 1;
        }
    }
    for (group, line) in shown {
        text.push_str(&line);
        let Some(difference) = group.difference() else { continue };
        if difference.len() <= budget {
            budget -= difference.len();
            text.push_str(&difference);
        } else {
            left_out.differences += 1;
        }
    }
    text.push_str(&left_out.words());
    text
}

impl LeftOut {
    fn words(&self) -> String {
        let counts = [
            (self.messages, "message"),
            (self.resources, "resource"),
            (self.differences, "difference"),
        ];
        let parts: Vec<String> = counts
            .iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, noun)| counted(*number, noun))
            .collect();
        if parts.is_empty() {
            return String::new();
        }
        format!("\n_Left out, for their size: {}._\n", parts.join(", "))
    }
}

/// The marker, the totals, and which run it is.
fn head(record: &RunRecord) -> String {
    let resources = || record.hosts.values().flat_map(|host| &host.resources);
    let with = |verdict: Verdict| resources().filter(|one| one.verdict == verdict).count();
    let changes = |host: &&HostRecord| {
        host.resources.iter().any(|resource| resource.verdict == Verdict::Change)
    };
    let changed_hosts = record.hosts.values().filter(changes).count();
    let verb = if record.dry_run { "would change" } else { "changed" };
    let hosts = counted(record.hosts.len(), "host");
    let mut totals = match with(Verdict::Change) {
        0 => format!("nothing {verb} on {hosts}"),
        number => format!("{} {verb} on {changed_hosts} of {hosts}", counted(number, "resource")),
    };
    for (verdict, word) in [(Verdict::Depends, "depends"), (Verdict::Failed, "failed")] {
        let number = with(verdict);
        if number > 0 {
            let _ = write!(totals, ", {number} {word}");
        }
    }
    for status in [Status::Failed, Status::Unreachable, Status::RolledBack] {
        let number = record.hosts.values().filter(|host| host.status == Some(status)).count();
        if number > 0 {
            let words = status_words(status, record.dry_run);
            let _ = write!(totals, ", {} {words}", counted(number, "host"));
        }
    }
    let mut text = format!(
        "<!-- converge {} {} -->\n### converge: {totals}\n\n{} · {} · {} {}",
        in_comment(&record.inventory),
        in_comment(&record.state_file),
        code(&record.inventory),
        code(&record.state_file),
        if record.dry_run { "dry run" } else { "run" },
        code(&record.run),
    );
    for (verdict, word) in [(Verdict::Ok, "ok"), (Verdict::Skipped, "skipped")] {
        let number = with(verdict);
        if number > 0 {
            let _ = write!(text, " · {number} {word}");
        }
    }
    text.push('\n');
    text
}

/// The hosts that went wrong, those with the same error together.
fn host_errors(record: &RunRecord) -> Vec<String> {
    let mut groups: Vec<(Status, &str, Vec<&str>)> = Vec::new();
    let mut places = HashMap::new();
    for (name, host) in &record.hosts {
        let Some(status @ (Status::Failed | Status::Unreachable | Status::RolledBack)) =
            host.status
        else {
            continue;
        };
        let error = host.error.as_deref().unwrap_or_default();
        let words = status_words(status, record.dry_run);
        let place = *places.entry((words, error)).or_insert(groups.len());
        if place == groups.len() {
            groups.push((status, error, Vec::new()));
        }
        groups[place].2.push(name);
    }
    groups
        .into_iter()
        .map(|(status, error, hosts)| {
            let words = status_words(status, record.dry_run);
            let block = fenced("text", error, MESSAGE);
            format!("\n**{words}**: {}\n{block}", listed(&hosts))
        })
        .collect()
}

fn warnings(record: &RunRecord) -> Vec<String> {
    let mut warnings: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut places = HashMap::new();
    for (host, message) in &record.warnings {
        let place = *places.entry(message.as_str()).or_insert(warnings.len());
        if place == warnings.len() {
            warnings.push((message.as_str(), Vec::new()));
        }
        warnings[place].1.extend(host.as_deref());
    }
    warnings
        .into_iter()
        .map(|(message, hosts)| {
            let on =
                if hosts.is_empty() { String::new() } else { format!(" on {}", listed(&hosts)) };
            format!("\n**warning**{on}: {}\n", code(message))
        })
        .collect()
}

/// A resource, and the hosts on which the very same happens to it.
struct Group<'a> {
    resource: &'a Resource,
    effect: Effect,
    hosts: Vec<&'a str>,
}

/// All of a resource but how long it took.
type Likeness<'a> = (
    (&'a str, Option<&'a str>, &'a str, &'a str),
    (Verdict, &'a str, bool),
    (&'a [String], &'a [String]),
    Vec<(&'a str, &'a str, &'a str)>,
);

fn likeness(resource: &Resource) -> Likeness<'_> {
    let changes = resource.changes.iter();
    (
        (
            resource.id.as_str(),
            resource.label.as_deref(),
            resource.play.as_str(),
            resource.at.as_str(),
        ),
        (resource.verdict, resource.because.as_str(), resource.owed),
        (resource.depends_on.as_slice(), resource.assuming.as_slice()),
        changes
            .map(|change| (change.action.as_str(), change.target.as_str(), change.diff.as_str()))
            .collect(),
    )
}

/// What happens, failures first, then in the order of the hosts and their plans.
fn groups(record: &RunRecord) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut places = HashMap::new();
    for (name, host) in &record.hosts {
        for resource in &host.resources {
            let effect = Effect::of(resource);
            if matches!(effect, Effect::Skip | Effect::Nothing) {
                continue;
            }
            let place = *places.entry(likeness(resource)).or_insert(groups.len());
            if place == groups.len() {
                groups.push(Group { resource, effect, hosts: Vec::new() });
            }
            groups[place].hosts.push(name);
        }
    }
    groups.sort_by_key(|group| group.effect != Effect::Fail);
    groups
}

impl Group<'_> {
    /// What happens to the resource, where, and what it waits for.
    fn line(&self, dry_run: bool) -> String {
        let resource = self.resource;
        let mut text = format!("\n**{}** {}", self.effect.words(dry_run), code(&resource.id));
        if let Some(label) = &resource.label {
            let _ = write!(text, " ({})", code(label));
        }
        let _ = writeln!(text, " on {} · {}", listed(&self.hosts), code(&resource.at));
        let mut notes = Vec::new();
        if !resource.depends_on.is_empty() {
            notes.push(format!("waits for {}", listed(&strs(&resource.depends_on))));
        }
        if !resource.assuming.is_empty() {
            let leaves = if resource.assuming.len() == 1 { "leaves" } else { "leave" };
            let names = listed(&strs(&resource.assuming));
            notes.push(format!("assuming {names} {leaves} it alone"));
        }
        if resource.owed {
            notes.push(String::from("owed by an earlier run"));
        }
        let failed = resource.verdict == Verdict::Failed;
        if !failed && !resource.because.is_empty() {
            notes.push(format!("because {}", code(&resource.because)));
        }
        if !notes.is_empty() {
            let _ = writeln!(text, "{}", notes.join("; "));
        }
        if failed {
            text.push_str(&fenced("text", &resource.because, MESSAGE));
        }
        text
    }

    /// The differences, folded if they are long; none if there is nothing to show.
    fn difference(&self) -> Option<String> {
        let mut diff = String::new();
        for change in &self.resource.changes {
            if let Some(target) = unnamed_target(self.resource, change) {
                let _ = write!(diff, "{}:", clean::line(target));
                diff.push(if change.diff.lines().count() == 1 { ' ' } else { '\n' });
            }
            diff.push_str(&change.diff);
            if !diff.ends_with('\n') {
                diff.push('\n');
            }
        }
        if diff.trim().is_empty() {
            return None;
        }
        let block = fenced("diff", &diff, DIFF);
        let lines = diff.lines().count();
        Some(if lines > OPEN_LINES {
            format!("\n<details><summary>{lines} lines</summary>\n{block}\n</details>\n")
        } else {
            block
        })
    }
}

fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// Names as code; the first ones, and how many more there are.
fn listed(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(NAMES).map(|name| code(name)).collect();
    let mut text = shown.join(", ");
    let more = names.len().saturating_sub(NAMES);
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    text
}

/// Text from outside as a code span (CommonMark 6.1): in there, nothing is a link, a mention,
/// emphasis or HTML.
fn code(text: &str) -> String {
    let text = clean::fit(&clean::line(text), NAME);
    if text.trim().is_empty() {
        return String::from("` `");
    }
    let ticks = "`".repeat(longest_run(&text) + 1);
    let edge = |side: Option<char>| matches!(side, Some('`' | ' '));
    if edge(text.chars().next()) || edge(text.chars().next_back()) {
        return format!("{ticks} {text} {ticks}");
    }
    format!("{ticks}{text}{ticks}")
}

/// Text from outside as a fenced block (CommonMark 4.5) of about so many bytes; what is cut is
/// counted. Nothing for no text.
fn fenced(info: &str, text: &str, limit: usize) -> String {
    let text = clean::block(text);
    let mut body = String::new();
    let mut lines = text.lines();
    let mut next = lines.next();
    while let Some(line) = next {
        let line = clean::fit(line, LINE);
        if body.len() + line.len() > limit && !body.is_empty() {
            break;
        }
        body.push_str(&line);
        body.push('\n');
        next = lines.next();
    }
    if body.is_empty() {
        return String::new();
    }
    if next.is_some() {
        let _ = writeln!(body, "… {} more lines", 1 + lines.count());
    }
    let fence = "`".repeat((longest_run(&body) + 1).max(3));
    format!("\n{fence}{info}\n{body}{fence}\n")
}

/// The longest run of backticks.
fn longest_run(text: &str) -> usize {
    text.split(|character| character != '`').map(str::len).max().unwrap_or(0)
}

/// Text that does not end an HTML comment.
fn in_comment(text: &str) -> String {
    let mut text = clean::fit(&clean::line(text), LINE).replace('>', "&gt;");
    while text.contains("--") {
        text = text.replace("--", "- -");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Format;
    use crate::report::samples::{self, change, report, resource};

    #[test]
    fn a_dry_run_is_a_comment() {
        let expected = "\
<!-- converge production web.yml -->
### converge: 2 resources would change on 2 of 3 hosts, 1 depends, 1 host unreachable

`production` · `web.yml` · dry run `r1` · 2 ok

**unreachable**: `db1`

```text
connection refused
  help: is sshd running?
```

**would be created** `file:/etc/motd` (`the greeting`) on `web1`, `web2` · `states/web.yml:12:5`

```diff
--- /dev/null
+++ /etc/motd
@@ -0,0 +1 @@
+hello
```

**depends** `service:nginx` on `web1` · `states/web.yml:20:5`
waits for `package:nginx`; assuming `command:setup` leaves it alone

```diff
~ inactive → active
```
";
        assert_eq!(report(Format::Markdown, &samples::dry_run()), expected);
    }

    #[test]
    fn failures_of_a_live_run_come_first() {
        let text = report(Format::Markdown, &samples::live_run());
        let expected = "\
<!-- converge production web.yml -->
### converge: 1 resource changed on 1 of 2 hosts, 1 failed, 1 host failed

`production` · `web.yml` · run `r2` · 2 ok · 1 skipped

**failed**: `web1`

```text
service:nginx: nginx: [emerg] bad
line two
```

**failed** `service:nginx` on `web1` · `states/web.yml:20:5`

```text
nginx: [emerg] bad
line two
```

```diff
reload
```

**created** `file:/etc/motd` (`the greeting`) on `web1` · `states/web.yml:12:5`
";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn a_comment_stays_within_its_limit() {
        let line = format!("+{}\n", "x".repeat(98));
        let resources: Vec<Resource> = (0..1_000)
            .map(|number| {
                let lines = if number % 2 == 0 { 200 } else { 3 };
                let diff = format!("--- /dev/null\n+++ /{number}\n{}", line.repeat(lines));
                Resource {
                    changes: vec![change("content", "/", &diff)],
                    ..resource(&format!("file:/srv/{number}"), Verdict::Change)
                }
            })
            .collect();
        let hosts: Vec<String> = (0..300).map(|number| format!("web{number}")).collect();
        let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let mut events = vec![samples::started("r", true, &names)];
        events.extend(samples::planned("web0", &resources));
        for name in &names[1..] {
            let error = format!("{name}: {}", "no route ".repeat(1_000));
            events.push(samples::host_done(name, Status::Unreachable, Some(&error), &[]));
        }
        events.push(Event::RunDone { exit_code: 3, ms: 1 });
        let text = report(Format::Markdown, &events);
        assert!(text.len() <= LIMIT, "{}", text.len());
        assert!(text.len() > LIMIT / 2, "{}", text.len());
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("_Left out, for their size: "), "{last}");
        for noun in [" messages", " resources", " differences"] {
            assert!(last.contains(noun), "{last}");
        }
    }

    #[test]
    fn long_differences_fold() {
        let diff = format!("--- /a\n+++ /a\n{}", "+x\n".repeat(40));
        let long = Resource {
            changes: vec![change("content", "/a", &diff)],
            ..resource("file:/a", Verdict::Change)
        };
        let mut events = vec![samples::started("r", true, &["web1"])];
        events.extend(samples::planned("web1", &[long]));
        events.push(Event::RunDone { exit_code: 0, ms: 1 });
        let text = report(Format::Markdown, &events);
        assert!(text.contains("\n<details><summary>42 lines</summary>\n\n```diff\n"), "{text}");
        assert!(text.ends_with("+x\n```\n\n</details>\n"), "{text}");
    }

    #[test]
    fn hosts_write_no_markdown() {
        let cases = [
            ("plain", "`plain`"),
            ("@team #1 <b> https://example.com", "`@team #1 <b> https://example.com`"),
            ("a`b", "``a`b``"),
            ("``", "``` `` ```"),
            (" x", "`  x `"),
            ("two\nlines", "`two\\nlines`"),
            ("", "` `"),
        ];
        for (text, expected) in cases {
            assert_eq!(code(text), expected, "{text:?}");
        }
        assert_eq!(
            fenced("diff", "+```\n</details>\n@team", DIFF),
            "\n````diff\n+```\n</details>\n@team\n````\n"
        );
        assert_eq!(fenced("text", "", DIFF), "");
        assert_eq!(in_comment("a-->b---c"), "a- -&gt;b- - -c");
    }
}
