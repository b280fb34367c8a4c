use std::fmt::Write;

use indexmap::IndexMap;
use serde::Serialize;

use super::clean;
use super::paint::{Ink, Paint};
use super::table::counted;
use super::{PastOutcome, PastRun, PastVerdict, RunInfo};

/// Past runs of many hosts, put together again.
#[derive(Debug, Default)]
pub struct PastHosts {
    runs: IndexMap<String, MergedRun>,
}

/// One run as its hosts remember it.
#[derive(Debug, Serialize)]
struct MergedRun {
    #[serde(flatten)]
    info: RunInfo,
    purpose: String,
    hosts: IndexMap<String, PastHost>,
}

#[derive(Debug, Serialize)]
struct PastHost {
    verdict: PastVerdict,
    verified: bool,
    changed: usize,
    resources: Vec<super::PastResource>,
}

impl PastHosts {
    /// Takes in what one host remembers.
    pub fn add(&mut self, host: &str, runs: impl IntoIterator<Item = PastRun>) {
        for run in runs {
            let changed = run.changes();
            let merged = self.runs.entry(run.info.id.clone()).or_insert_with(|| MergedRun {
                info: run.info,
                purpose: run.purpose,
                hosts: IndexMap::new(),
            });
            let past = PastHost {
                verdict: run.verdict,
                verified: run.verified,
                changed,
                resources: run.resources,
            };
            merged.hosts.insert(host.to_owned(), past);
        }
    }

    /// Whether no host remembers anything.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The newest runs first, as many as are wanted.
    fn newest(&self, number: usize) -> Vec<&MergedRun> {
        let mut runs: Vec<&MergedRun> = self.runs.values().collect();
        runs.sort_by(|left, right| {
            (right.info.begun, &right.info.id).cmp(&(left.info.begun, &left.info.id))
        });
        runs.truncate(number);
        runs
    }
}

impl MergedRun {
    /// In a word: the worst of its hosts.
    fn verdict(&self) -> (&'static str, Ink) {
        let any = |verdict| self.hosts.values().any(|host| host.verdict == verdict);
        if any(PastVerdict::Running) {
            ("running", Ink::Blue)
        } else if any(PastVerdict::CutOff) {
            ("cut off", Ink::Red)
        } else if any(PastVerdict::Failed) {
            ("failed", Ink::Red)
        } else if self.hosts.values().all(|host| host.verified) {
            ("ok, verified", Ink::Green)
        } else {
            ("ok", Ink::Green)
        }
    }

    fn time(&self) -> String {
        i64::try_from(self.info.begun)
            .ok()
            .and_then(|begun| jiff::Timestamp::from_millisecond(begun).ok())
            .map_or_else(|| String::from("?"), |time| time.strftime("%F %T UTC").to_string())
    }

    fn what(&self) -> String {
        let what = match self.purpose.as_str() {
            "converge" => format!("{} for {}", self.info.state_file, self.info.inventory),
            purpose => purpose.to_owned(),
        };
        clean::line(&what)
    }
}

/// Past runs as one JSON document: a list, newest first.
pub fn history_json(past: &PastHosts, number: usize) -> String {
    let mut text = serde_json::to_string(&past.newest(number)).unwrap_or_default();
    text.push('\n');
    text
}

/// Past runs for people, newest first; with `one`, each with its differences. `hosts` is how many
/// were asked.
pub fn history_text(
    past: &PastHosts,
    number: usize,
    one: bool,
    hosts: usize,
    colour: bool,
) -> String {
    let paint = Paint::new(colour);
    let mut text = String::new();
    if past.is_empty() {
        return String::from("no host remembers a run\n");
    }
    for run in past.newest(number) {
        let (verdict, ink) = run.verdict();
        let changed: usize = run.hosts.values().map(|host| host.changed).sum();
        let _ = writeln!(
            text,
            "{}  {}  {}",
            paint.ink(Ink::Bold, &clean::line(&run.info.id)),
            run.what(),
            paint.ink(ink, verdict)
        );
        let mut details = vec![run.time(), format!("by {}", clean::line(&run.info.who))];
        if let Some(commit) = &run.info.commit {
            let short = commit.get(..12).unwrap_or(commit);
            let dirty = if commit.ends_with("-dirty") { "-dirty" } else { "" };
            details.push(format!("commit {}{dirty}", clean::line(short)));
        }
        if let Some(digest) = &run.info.digest {
            details.push(format!("file {}", clean::line(digest.get(..12).unwrap_or(digest))));
        }
        details.push(format!("{} changed", counted(changed, "resource")));
        details.push(format!("{} of {hosts}", counted(run.hosts.len(), "host")));
        let _ = writeln!(text, "  {}", paint.ink(Ink::Dim, &details.join(", ")));
        if one {
            differences(run, paint, &mut text);
        }
    }
    text
}

fn differences(run: &MergedRun, paint: Paint, text: &mut String) {
    for (name, host) in &run.hosts {
        let _ = writeln!(text, "\n{}:", paint.ink(Ink::Bold, &clean::line(name)));
        for resource in &host.resources {
            let (word, ink) = match resource.outcome {
                PastOutcome::Changed => ("changed", Ink::Yellow),
                PastOutcome::Met => ("was as declared", Ink::Dim),
                PastOutcome::Failed => ("failed", Ink::Red),
                PastOutcome::CutOff => ("cut off meanwhile", Ink::Red),
            };
            let (id, at) = (clean::line(&resource.id), clean::line(&resource.at));
            let _ =
                writeln!(text, "  {id}: {}  {}", paint.ink(ink, word), paint.ink(Ink::Dim, &at));
            for line in clean::block(&resource.because).lines() {
                let _ = writeln!(text, "      {line}");
            }
            for change in &resource.changes {
                if !change.diff.starts_with("--- ") && !resource.id.ends_with(&change.target) {
                    let _ = writeln!(text, "      {}:", clean::line(&change.target));
                }
                for line in clean::block(&change.diff).lines() {
                    let _ = writeln!(text, "      {}", paint.diff_line(line));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{ChangeView, PastResource};

    fn run(id: &str, begun: u64, verdict: PastVerdict) -> PastRun {
        PastRun {
            info: RunInfo {
                id: id.to_owned(),
                who: String::from("ann@desk"),
                begun,
                state_file: String::from("states/web.yml"),
                inventory: String::from("production"),
                commit: Some(String::from("0123456789abcdef0123456789abcdef01234567-dirty")),
                ..RunInfo::default()
            },
            purpose: String::from("converge"),
            verdict,
            verified: verdict == PastVerdict::Ok,
            resources: vec![PastResource {
                id: String::from("file:/etc/motd"),
                at: String::from("states/web.yml:3:5"),
                outcome: PastOutcome::Changed,
                because: String::new(),
                changes: vec![ChangeView {
                    action: String::from("content"),
                    target: String::from("/etc/motd"),
                    diff: String::from("--- /dev/null\n+++ /etc/motd\n@@ -0,0 +1 @@\n+hello\n"),
                }],
            }],
        }
    }

    #[test]
    fn runs_of_several_hosts_are_put_together_newest_first() {
        let mut past = PastHosts::default();
        past.add("web1", [run("r1", 1_000, PastVerdict::Ok), run("r2", 2_000, PastVerdict::Ok)]);
        past.add("web2", [run("r2", 2_000, PastVerdict::CutOff)]);
        let expected = "\
r2  states/web.yml for production  cut off
  1970-01-01 00:00:02 UTC, by ann@desk, commit 0123456789ab-dirty, 2 resources changed, 2 hosts of 3
r1  states/web.yml for production  ok, verified
  1970-01-01 00:00:01 UTC, by ann@desk, commit 0123456789ab-dirty, 1 resource changed, 1 host of 3
";
        assert_eq!(history_text(&past, 20, false, 3, false), expected);
        let one = history_text(&past, 1, true, 3, false);
        assert!(one.contains("web2:\n  file:/etc/motd: changed  states/web.yml:3:5\n"), "{one}");
        assert!(one.contains("      +hello\n"), "{one}");
        let json: serde_json::Value = serde_json::from_str(&history_json(&past, 20)).unwrap();
        assert_eq!(json[0]["hosts"]["web2"]["verdict"], "cut_off");
        assert_eq!(json[1]["id"], "r1");
    }
}
