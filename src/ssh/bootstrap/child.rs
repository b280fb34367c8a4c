//! A command as a child of this process, with the same face as one on a host.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll};

use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};

use crate::ssh::Stderr;
use crate::ssh::process::{Control, Exit, Process};

/// Starts a shell command in a process group of its own, so that Ctrl-C in the terminal reaches the controller only,
/// which then ends it in good order.
pub(super) fn spawn(command: &str) -> io::Result<Process> {
    let mut child = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let missing = || io::Error::other("a stream is missing");
    let stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let mut errors = child.stderr.take().ok_or_else(missing)?;
    let stderr = Stderr::default();
    let kept = stderr.clone();
    let reading = tokio::spawn(async move {
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = errors.read(&mut chunk).await {
            kept.push(&chunk[..read]);
        }
    });
    let (ended, exit) = watch::channel(None);
    let (stop, stopping) = mpsc::channel(1);
    tokio::spawn(async move {
        let status = wait(child, stopping).await;
        // A grandchild may keep the stream open; what the command itself had to say is there by then.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(200), reading).await;
        ended.send_replace(Some(status));
    });
    let control = Control::of_child(exit, stop);
    Ok(Process { stdin: Box::new(Input(Some(stdin))), stdout: Box::new(stdout), stderr, control })
}

async fn wait(mut child: Child, mut stopping: mpsc::Receiver<()>) -> Exit {
    let status = tokio::select! {
        status = child.wait() => status,
        Some(()) = stopping.recv() => {
            // It may have ended by itself in this moment.
            let _ = child.start_kill();
            child.wait().await
        }
        // Reached if nobody can stop it any more: then it ends by itself, at the end of its input.
        else => child.wait().await,
    };
    status.map_or_else(|error| Exit::Lost(error.to_string()), describe)
}

fn describe(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Status(code.unsigned_abs()),
        (None, Some(signal)) => Exit::Signal(signal.to_string()),
        (None, None) => Exit::Lost("it ended without a status".into()),
    }
}

/// A child's standard input whose shutting down is its end of file; tokio's own closes when it is dropped.
struct Input(Option<ChildStdin>);

impl Input {
    fn open(&mut self) -> io::Result<Pin<&mut ChildStdin>> {
        self.0.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl AsyncWrite for Input {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.open()?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0.as_mut() {
            Some(input) => Pin::new(input).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0 = None;
        Poll::Ready(Ok(()))
    }
}
