use std::fmt::Write;

use super::clean;
use super::paint::{Ink, Paint};
use super::{HostStatus, RunInfo};

/// What a host is like beside what runs have left there, for people.
pub fn status_text(host: &str, status: &HostStatus, colour: bool) -> String {
    let paint = Paint::new(colour);
    let mut text = String::new();
    let verdict = match (status.drift.len(), status.owed.len(), &status.last) {
        (_, _, None) => paint.ink(Ink::Dim, "no run has changed it, as far as it remembers"),
        (0, 0, _) => paint.ink(Ink::Green, "as it was left"),
        (0, ..) => paint.ink(Ink::Yellow, "reactions are owed"),
        (1, ..) => paint.ink(Ink::Red, "1 resource has drifted"),
        (many, ..) => paint.ink(Ink::Red, &format!("{many} resources have drifted")),
    };
    let _ = writeln!(text, "{}: {verdict}", paint.ink(Ink::Bold, &clean::line(host)));
    if let Some(run) = &status.last {
        let _ = writeln!(text, "  last changed by {}", describe(run));
    }
    if let Some(run) = &status.running {
        let _ = writeln!(text, "  {} {}", paint.ink(Ink::Blue, "being changed by"), describe(run));
    }
    if let Some(reason) = &status.unreadable {
        let _ = writeln!(text, "  its records cannot be read: {}", clean::line(reason));
    }
    for id in &status.owed {
        let _ = writeln!(text, "  owed: {}", clean::line(id));
    }
    for drift in &status.drift {
        let (id, at, run) =
            (clean::line(&drift.id), clean::line(&drift.at), clean::line(&drift.run));
        let since = paint.ink(Ink::Dim, &format!("{at}, since run {run}"));
        let _ = writeln!(text, "  {} {id}  {since}", paint.ink(Ink::Yellow, "~"));
        for change in &drift.changes {
            if !drift.id.ends_with(&change.target) {
                let _ = writeln!(text, "      {}:", clean::line(&change.target));
            }
            for line in clean::block(&change.diff).lines() {
                let _ = writeln!(text, "      {}", paint.diff_line(line));
            }
        }
    }
    text
}

/// A run in a line.
fn describe(run: &RunInfo) -> String {
    let when = i64::try_from(run.begun)
        .ok()
        .and_then(|begun| jiff::Timestamp::from_millisecond(begun).ok())
        .map_or_else(|| String::from("?"), |time| time.strftime("%F %T UTC").to_string());
    let mut text = format!("run {}, {when}, by {}", clean::line(&run.id), clean::line(&run.who));
    if let Some(commit) = &run.commit {
        let _ = write!(text, ", commit {}", clean::line(commit));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{ChangeView, Drift};

    #[test]
    fn a_host_is_told_in_lines() {
        let nothing = status_text("a", &HostStatus::default(), false);
        assert_eq!(nothing, "a: no run has changed it, as far as it remembers\n");
        let status = HostStatus {
            last: Some(RunInfo {
                id: String::from("r2"),
                who: String::from("ann@desk"),
                begun: 2_000,
                ..RunInfo::default()
            }),
            owed: vec![String::from("reaction:service:nginx")],
            drift: vec![Drift {
                id: String::from("file:/etc/motd"),
                at: String::from("web.yml:3:5"),
                run: String::from("r1"),
                changes: vec![ChangeView {
                    action: String::from("content"),
                    target: String::from("/etc/motd"),
                    diff: String::from("file of 3 bytes → file of 4 bytes\n"),
                }],
            }],
            ..HostStatus::default()
        };
        let expected = "\
a: 1 resource has drifted
  last changed by run r2, 1970-01-01 00:00:02 UTC, by ann@desk
  owed: reaction:service:nginx
  ~ file:/etc/motd  web.yml:3:5, since run r1
      file of 3 bytes → file of 4 bytes
";
        assert_eq!(status_text("a", &status, false), expected);
    }
}
