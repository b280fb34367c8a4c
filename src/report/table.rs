use std::fmt::Write;
use std::time::Duration;

use super::paint::{Ink, Paint};
use super::{Status, Summary};

/// How one host ended.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) host: String,
    pub(super) status: Status,
    pub(super) summary: Summary,
    /// None where it was never begun.
    pub(super) took: Option<Duration>,
}

/// The hosts, a line each, under a heading. A name that does not fit takes a line of its own.
pub(super) fn table(rows: &[Row], dry_run: bool, width: usize, paint: Paint) -> String {
    let depends = rows.iter().any(|row| row.summary.depends > 0);
    let mut heads = vec!["ok", if dry_run { "change" } else { "changed" }];
    if depends {
        heads.push("depends");
    }
    heads.extend(["failed", "skipped", "time"]);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let Summary { ok, change, depends: waiting, failed, skipped } = row.summary;
            let mut numbers = vec![ok, change];
            if depends {
                numbers.push(waiting);
            }
            numbers.extend([failed, skipped]);
            let mut cells: Vec<String> = numbers.iter().map(usize::to_string).collect();
            cells.push(row.took.map_or_else(|| String::from("-"), duration));
            cells
        })
        .collect();
    let widths: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(column, head)| {
            let widest = cells.iter().map(|row| row[column].chars().count()).max();
            widest.unwrap_or(0).max(head.len())
        })
        .collect();
    let words = rows.iter().map(|row| status_words(row.status, dry_run).len());
    let status_width = words.max().unwrap_or(0).max("status".len());
    let rest = 2 + status_width + widths.iter().map(|width| width + 2).sum::<usize>();
    let longest = rows.iter().map(|row| row.host.chars().count()).max().unwrap_or(0);
    let host_width = longest.min(width.saturating_sub(rest)).max("host".len());

    let mut text = String::new();
    let mut line = |host: &str, status: &str, ink: Ink, cells: &[&str]| {
        let status = paint.ink(ink, &format!("{status:<status_width$}"));
        if host.chars().count() > host_width {
            // A string takes whatever is written to it; so below.
            let _ = writeln!(text, "{host}");
            let _ = write!(text, "{:host_width$}  {status}", "");
        } else {
            let _ = write!(text, "{host:<host_width$}  {status}");
        }
        for (cell, width) in cells.iter().zip(&widths) {
            let width = *width;
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    };
    line("host", "status", Ink::Bold, heads.as_slice());
    for (row, cells) in rows.iter().zip(&cells) {
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        line(
            &row.host,
            status_words(row.status, dry_run),
            status_ink(row.status),
            cells.as_slice(),
        );
    }
    text
}

/// How a host ended, or would end, in words.
pub(super) const fn status_words(status: Status, dry_run: bool) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Changed if dry_run => "would change",
        Status::Changed => "changed",
        Status::Failed => "failed",
        Status::Unreachable => "unreachable",
        Status::RolledBack => "rolled back",
        Status::Skipped => "skipped",
    }
}

pub(super) const fn status_ink(status: Status) -> Ink {
    match status {
        Status::Ok => Ink::Green,
        Status::Changed | Status::RolledBack => Ink::Yellow,
        Status::Failed | Status::Unreachable => Ink::Red,
        Status::Skipped => Ink::Dim,
    }
}

/// The hosts by status, without those that there are none of: `1 ok, 2 failed`.
pub(super) fn tally(statuses: impl Iterator<Item = Status>, dry_run: bool) -> String {
    const ORDER: [Status; 6] = [
        Status::Ok,
        Status::Changed,
        Status::Failed,
        Status::Unreachable,
        Status::RolledBack,
        Status::Skipped,
    ];
    let mut counts = [0_usize; ORDER.len()];
    for status in statuses {
        for (known, count) in ORDER.iter().zip(&mut counts) {
            *count += usize::from(*known == status);
        }
    }
    let parts: Vec<String> = ORDER
        .iter()
        .zip(counts)
        .filter(|(_, count)| *count > 0)
        .map(|(status, count)| format!("{count} {}", status_words(*status, dry_run)))
        .collect();
    parts.join(", ")
}

/// A number and its noun: `1 host`, `2 hosts`.
pub(super) fn counted(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A duration as people read it.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        _ => format!("{} m {:02} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(host: &str, status: Status, depends: usize) -> Row {
        Row {
            host: host.to_owned(),
            status,
            summary: Summary { ok: 1_200, change: 3, depends, failed: 0, skipped: 1 },
            took: Some(Duration::from_millis(1_240)),
        }
    }

    #[test]
    fn a_table_fits_its_width() {
        let long = "application-server-01.frankfurt.production.example.com";
        let rows = [row("web1", Status::Changed, 1), row(long, Status::RolledBack, 0)];
        let text = table(&rows, true, 80, Paint::Plain);
        let expected = "\
host                 status          ok  change  depends  failed  skipped   time
web1                 would change  1200       3        1       0        1  1.2 s
application-server-01.frankfurt.production.example.com
                     rolled back   1200       3        0       0        1  1.2 s
";
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn durations_are_short() {
        for (milliseconds, expected) in
            [(0, "0 ms"), (999, "999 ms"), (1_000, "1.0 s"), (65_000, "1 m 05 s")]
        {
            assert_eq!(duration(Duration::from_millis(milliseconds)), expected);
        }
    }
}
