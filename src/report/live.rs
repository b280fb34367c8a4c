use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::table::counted;
use super::text::{Text, phase_words};
use super::{Event, Options, Phase, Reporter, Verdict, clean};

/// Hosts that are shown one by one.
const ROWS: usize = 10;
/// Columns that a host's name may take.
const NAME: usize = 30;
/// How often the display is drawn.
const TICK: Duration = Duration::from_millis(100);

/// Shows on standard error what the hosts are doing, below the text of a run.
pub(super) struct Live {
    text: Text,
    out: Box<dyn Write + Send>,
    board: Arc<Mutex<Board>>,
    bar: ProgressBar,
    now: fn() -> Instant,
}

impl Live {
    pub(super) fn new(options: Options, out: Box<dyn Write + Send>) -> Self {
        let board = Arc::new(Mutex::new(Board::new(options.width)));
        let (shown, now) = (Arc::clone(&board), options.now);
        let style = ProgressStyle::with_template("{board}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner())
            .with_key("board", move |_: &ProgressState, into: &mut dyn fmt::Write| {
                // What is drawn next makes up for what cannot be drawn now.
                let _ = into.write_str(&lock(&shown).draw(now()));
            });
        let target = ProgressDrawTarget::stderr_with_hz(10);
        let bar = ProgressBar::with_draw_target(None, target).with_style(style);
        Self { text: Text::new(options), out, board, bar, now }
    }
}

impl Reporter for Live {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        lock(&self.board).event(event, (self.now)());
        match event {
            Event::RunStarted { .. } => self.bar.enable_steady_tick(TICK),
            Event::RunDone { .. } => {
                self.bar.disable_steady_tick();
                self.bar.finish_and_clear();
            }
            _ => {}
        }
        let text = self.text.event(event);
        if text.is_empty() {
            return Ok(());
        }
        let finished = self.bar.is_finished();
        let out = &mut self.out;
        let mut write = || {
            out.write_all(text.as_bytes())?;
            out.flush()
        };
        if finished { write() } else { self.bar.suspend(write) }
    }
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the hosts are doing.
struct Board {
    width: usize,
    total: usize,
    done: usize,
    /// The hosts that take part and are not done, in the order of their beginnings.
    hosts: IndexMap<String, Doing>,
}

/// What one host is doing.
struct Doing {
    phase: Phase,
    since: Instant,
    /// The resources in hand.
    hands: Vec<String>,
    /// How many resources have something to do, and how many of them are done.
    due: usize,
    settled: usize,
}

impl Doing {
    fn is_busy(&self) -> bool {
        match self.phase {
            Phase::Waiting => false,
            Phase::Applying => !self.hands.is_empty() || self.settled < self.due,
            Phase::Connecting | Phase::Uploading | Phase::Planning => true,
        }
    }

    fn words(&self) -> String {
        let mut words = phase_words(self.phase).to_owned();
        if self.phase == Phase::Applying {
            let _ = write!(words, " {}/{}", self.settled.min(self.due), self.due);
        }
        if let Some(first) = self.hands.first() {
            let _ = write!(words, "  {}", clean::line(first));
        }
        if self.hands.len() > 1 {
            let _ = write!(words, " (+{})", self.hands.len() - 1);
        }
        words
    }
}

impl Board {
    fn new(width: usize) -> Self {
        Self { width, total: 0, done: 0, hosts: IndexMap::new() }
    }

    fn event(&mut self, event: &Event, now: Instant) {
        match event {
            Event::RunStarted { hosts, .. } => self.total = hosts.len(),
            Event::HostPhase { host, phase } => {
                let doing = self.host(host, now);
                doing.phase = *phase;
                doing.since = now;
            }
            Event::Planned { host, resource } => {
                let due = matches!(resource.verdict, Verdict::Change | Verdict::Depends);
                self.host(host, now).due += usize::from(due);
            }
            Event::HostPlanned { host, .. } => self.host(host, now).phase = Phase::Waiting,
            Event::Started { host, id, .. } => {
                let doing = self.host(host, now);
                doing.phase = Phase::Applying;
                if doing.hands.is_empty() {
                    doing.since = now;
                }
                doing.hands.push(id.clone());
            }
            Event::Done { host, resource } => {
                let doing = self.host(host, now);
                if let Some(place) = doing.hands.iter().position(|id| *id == resource.id) {
                    doing.hands.remove(place);
                    doing.settled += 1;
                    doing.since = now;
                }
            }
            Event::HostDone { host, .. } => {
                self.hosts.shift_remove(host);
                self.done += 1;
            }
            Event::Warning { .. } | Event::RunDone { .. } => {}
        }
    }

    fn host(&mut self, name: &str, now: Instant) -> &mut Doing {
        self.hosts.entry(name.to_owned()).or_insert_with(|| Doing {
            phase: Phase::Connecting,
            since: now,
            hands: Vec::new(),
            due: 0,
            settled: 0,
        })
    }

    /// The lines of the display, without a newline at the end.
    fn draw(&self, now: Instant) -> String {
        // A line as wide as the terminal would wrap in some of them.
        let width = self.width.saturating_sub(1);
        let mut busy: Vec<(&String, &Doing)> =
            self.hosts.iter().filter(|(_, doing)| doing.is_busy()).collect();
        busy.sort_by_key(|(_, doing)| doing.since);
        let hidden = busy.len().saturating_sub(ROWS);
        busy.truncate(ROWS);
        let names: Vec<String> =
            busy.iter().map(|(name, _)| clean::fit(&clean::line(name), NAME)).collect();
        let column = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, (_, doing)) in names.iter().zip(&busy) {
            let seconds = now.saturating_duration_since(doing.since).as_secs();
            let elapsed = if seconds == 0 { String::new() } else { format!("  {seconds} s") };
            let left = width.saturating_sub(2 + column + 2 + elapsed.chars().count());
            let words = clean::fit(&doing.words(), left);
            // A string takes whatever is written to it.
            let _ = writeln!(text, "  {name:<column$}  {words}{elapsed}");
        }
        if hidden > 0 {
            let more = format!("  and {hidden} more at work");
            let _ = writeln!(text, "{}", clean::fit(&more, width));
        }
        text.push_str(&clean::fit(&self.counts(), width));
        text
    }

    fn counts(&self) -> String {
        let mut text = format!("{}/{} done", self.done, counted(self.total, "host"));
        let waiting = self.hosts.values().filter(|doing| !doing.is_busy()).count();
        for phase in [Phase::Connecting, Phase::Uploading, Phase::Planning, Phase::Applying] {
            let at_it = |doing: &&Doing| doing.phase == phase && doing.is_busy();
            let number = self.hosts.values().filter(at_it).count();
            if number > 0 {
                let _ = write!(text, " · {number} {}", phase_words(phase));
            }
        }
        if waiting > 0 {
            let _ = write!(text, " · {waiting} waiting");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Status;
    use crate::report::samples::{self, frozen, resource};

    fn phase(host: &str, phase: Phase) -> Event {
        Event::HostPhase { host: host.to_owned(), phase }
    }

    fn begun(host: &str, id: &str) -> Event {
        Event::Started { host: host.to_owned(), id: id.to_owned(), label: None }
    }

    #[test]
    fn the_display_follows_the_hosts() {
        let mut board = Board::new(60);
        let start = frozen();
        let mut say = |event: &Event| {
            board.event(event, start);
            board.draw(start + Duration::from_secs(4))
        };
        say(&samples::started("r", false, &["web1", "web2"]));
        assert_eq!(
            say(&phase("web1", Phase::Connecting)),
            "  web1  connecting  4 s\n0/2 hosts done · 1 connecting"
        );
        for id in ["file:/a", "service:nginx"] {
            let resource = resource(id, Verdict::Change);
            say(&Event::Planned { host: String::from("web1"), resource });
        }
        say(&phase("web1", Phase::Applying));
        say(&begun("web1", "file:/a"));
        assert_eq!(
            say(&begun("web1", "service:nginx")),
            "  web1  applying 0/2  file:/a (+1)  4 s\n0/2 hosts done · 1 applying"
        );
        for id in ["file:/a", "service:nginx"] {
            let resource = resource(id, Verdict::Change);
            say(&Event::Done { host: String::from("web1"), resource });
        }
        assert_eq!(
            say(&samples::host_done("web2", Status::Unreachable, None, &[])),
            "1/2 hosts done · 1 waiting"
        );
    }

    #[test]
    fn many_hosts_take_few_lines() {
        let names: Vec<String> = (0..200).map(|number| format!("web{number:03}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut board = Board::new(40);
        board.event(&samples::started("r", false, &names), frozen());
        for name in &names {
            board.event(&phase(name, Phase::Applying), frozen());
            board.event(&begun(name, "command:a line that does not fit at all"), frozen());
        }
        let text = board.draw(frozen());
        assert_eq!(text.lines().count(), ROWS + 2);
        assert!(text.lines().all(|line| line.chars().count() < 40), "{text}");
        assert!(text.contains("  and 190 more at work\n0/200 hosts done · 200 applying"), "{text}");
    }
}
