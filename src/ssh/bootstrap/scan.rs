//! Finding the agent, or the script's words, in whatever a host prints at log-in.

use super::MAGIC;
use crate::ssh::error::printable;

/// How much a host may print before the agent begins.
const MOST_NOISE: usize = 64 * 1024;

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing that is for us.
    Nothing,
    /// The agent has begun; these bytes came after its magic.
    Agent(Vec<u8>),
    /// The host does not have the program.
    Need { system: String, machine: String },
    /// The script has given up, with this word and its reason.
    Failed(String),
    /// The host prints more than any log-in message.
    TooMuch,
}

/// Reads standard output until the agent begins. The script's words carry a number that nobody else knows.
pub(super) struct Scanner {
    need: Vec<u8>,
    fail: Vec<u8>,
    unread: Vec<u8>,
    noise: Vec<u8>,
}

impl Scanner {
    pub(super) fn new(nonce: &str) -> Self {
        let word = |word: &str| format!("converge-{word} {nonce} ").into_bytes();
        Self { need: word("need"), fail: word("fail"), unread: Vec::new(), noise: Vec::new() }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Found {
        self.unread.extend(bytes);
        let magic = find(&self.unread, &MAGIC);
        let need = self.line(&self.need);
        let fail = self.line(&self.fail);
        let first = [magic, need.as_ref().map(|line| line.0), fail.as_ref().map(|line| line.0)];
        match first.into_iter().flatten().min() {
            None if self.unread.len() + self.noise.len() > MOST_NOISE => Found::TooMuch,
            None => Found::Nothing,
            Some(at) if Some(at) == magic => {
                let rest = self.unread.split_off(at + MAGIC.len());
                Found::Agent(rest)
            }
            Some(at) => {
                let (is_need, line) = match (need, fail) {
                    (Some(need), _) if need.0 == at => (true, need),
                    (_, Some(fail)) => (false, fail),
                    _ => return Found::Nothing,
                };
                let (_, text, end) = line;
                self.noise.extend(self.unread.drain(..at));
                self.unread.drain(..end - at);
                if !is_need {
                    return Found::Failed(text);
                }
                let (system, machine) = text.split_once(' ').unwrap_or((&text, ""));
                Found::Need {
                    system: printable(system.as_bytes()),
                    machine: printable(machine.as_bytes()),
                }
            }
        }
    }

    /// A complete line that begins with a word: where it begins, what follows the word, where it ends.
    fn line(&self, word: &[u8]) -> Option<(usize, String, usize)> {
        let at = find(&self.unread, word)?;
        let rest = self.unread.get(at + word.len()..)?;
        let length = rest.iter().position(|byte| *byte == b'\n')?;
        let text = String::from_utf8_lossy(rest.get(..length)?).trim().to_owned();
        Some((at, text, at + word.len() + length + 1))
    }

    /// Everything that was not for us, fit to be shown.
    pub(super) fn noise(&self) -> String {
        printable(&[self.noise.as_slice(), self.unread.as_slice()].concat())
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(chunks: &[&[u8]]) -> Vec<Found> {
        let mut scanner = Scanner::new("1f");
        chunks
            .iter()
            .map(|chunk| scanner.push(chunk))
            .filter(|found| *found != Found::Nothing)
            .collect()
    }

    #[test]
    fn the_agent_and_the_words_are_found_in_any_noise_and_any_chunks() {
        let need = || Found::Need { system: "Linux".into(), machine: "x86_64".into() };
        assert_eq!(feed(&[b"Welcome!\ncnvrg\x01\r\nhello"]), [Found::Agent(b"hello".to_vec())]);
        assert_eq!(feed(&[b"motd cnv", b"rg\x01", b"\r\n"]), [Found::Agent(Vec::new())]);
        assert_eq!(feed(&[b"x\nconverge-need 1f Lin", b"ux x86_64", b"\n"]), [need()]);
        assert_eq!(
            feed(&[b"converge-need 1f Linux x86_64\n", b"cnvrg\x01\r\n12"]),
            [need(), Found::Agent(b"12".to_vec())]
        );
        assert_eq!(feed(&[b"converge-need 2e Linux x86_64\n"]), []);
        assert_eq!(
            feed(&[b"converge-fail 1f store it is full\n"]),
            [Found::Failed("store it is full".into())]
        );
        assert_eq!(feed(&[&[b'x'; MOST_NOISE + 1]]), [Found::TooMuch]);
    }
}
