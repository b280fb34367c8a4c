use std::io::{self, Write};

use super::{Event, Reporter};

/// Writes each event as a line of JSON when it happens.
pub(super) struct JsonLines {
    out: Box<dyn Write + Send>,
}

impl JsonLines {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out }
    }
}

impl Reporter for JsonLines {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.out.write_all(&line)?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use crate::report::samples::{self, report};
    use crate::report::{Event, Format, Phase};

    #[test]
    fn an_event_is_a_line() {
        let events = samples::dry_run();
        let text = report(Format::Jsonl, &events);
        assert_eq!(text.lines().count(), events.len());
        assert_eq!(
            text.lines().next().unwrap(),
            concat!(
                r#"{"event":"run_started","run":"r1","inventory":"production","#,
                r#""state_file":"web.yml","dry_run":true,"hosts":["web1","web2","db1"]}"#
            )
        );
        let phase = Event::HostPhase { host: String::from("web1"), phase: Phase::Connecting };
        assert_eq!(
            report(Format::Jsonl, &[phase]),
            "{\"event\":\"host_phase\",\"host\":\"web1\",\"phase\":\"connecting\"}\n"
        );
    }
}
