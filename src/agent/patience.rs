//! Streams that notice when nobody is at their other end any more: a network that is cut tells
//! neither end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::wire::SILENCE;

/// How often it is looked whether the other end is gone.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// What a pipe or a socket that says that it can take something takes without blocking (`PIPE_BUF`
/// of limits.h(7) on Linux).
const ATOMIC: usize = 4096;

/// Whether the controller is gone.
pub(super) type Lost = Arc<AtomicBool>;

/// What comes from the controller, which says something at least every
/// [`HEARTBEAT`](crate::wire::HEARTBEAT).
pub(super) struct Input {
    file: File,
    lost: Lost,
}

/// What goes to the controller.
pub(super) struct Output {
    file: File,
    lost: Lost,
}

impl Input {
    pub(super) fn new(file: File, lost: Lost) -> Self {
        Self { file, lost }
    }
}

impl Output {
    pub(super) fn new(file: File, lost: Lost) -> Self {
        Self { file, lost }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the controller has not been heard for a while")
}

/// Whether a stream is ready within a second.
fn is_ready(file: &File, flags: PollFlags) -> io::Result<bool> {
    let mut fds = [PollFd::new(file, flags)];
    match poll(&mut fds, Some(&LOOK)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let begun = Instant::now();
        while !is_ready(&self.file, PollFlags::IN)? {
            if begun.elapsed() > SILENCE {
                self.lost.store(true, Ordering::Relaxed);
                return Err(gone());
            }
        }
        self.file.read(buffer)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while !is_ready(&self.file, PollFlags::OUT)? {
            if self.lost.load(Ordering::Relaxed) {
                return Err(gone());
            }
        }
        self.file.write(&bytes[..bytes.len().min(ATOMIC)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_is_given_up_once_the_controller_is_lost() {
        let (reader, writer) = io::pipe().unwrap();
        let lost = Lost::default();
        let mut output = Output::new(File::from(OwnedFd::from(writer)), Arc::clone(&lost));
        let give_up = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            lost.store(true, Ordering::Relaxed);
        });
        let error = output.write_all(&vec![0; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        give_up.join().unwrap();
        drop(reader);
    }

    #[test]
    fn what_comes_is_read_and_the_end_is_seen() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut input = Input::new(File::from(OwnedFd::from(reader)), Lost::default());
        writer.write_all(b"word").unwrap();
        drop(writer);
        let mut text = String::new();
        input.read_to_string(&mut text).unwrap();
        assert_eq!(text, "word");
    }
}
