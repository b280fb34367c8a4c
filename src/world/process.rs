//! Running programs on the host: bounded in time and output, as the user that is asked for.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Gid, Uid};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::{Answer, RemotePath};

/// Most bytes of each output that are kept; the end counts more than the beginning.
pub const OUTPUT_LIMIT: usize = 1 << 20;
/// How long outputs are still read after the program has ended, for programs that leave a daemon
/// behind which holds them open.
const LINGER: Duration = Duration::from_millis(200);
/// The search path of whatever runs on a host.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The numbers of a user on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Login name.
    pub name: String,
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one too.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// A program to run.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory; `/` if none.
    pub cwd: Option<RemotePath>,
    /// Added to a minimal environment.
    pub environment: Vec<(String, String)>,
    /// Fed to standard input.
    pub stdin: Option<Vec<u8>>,
    /// Killed with all its children after that.
    pub timeout: Option<Duration>,
}

/// Does something as a user: files are opened, and programs started, with that user's rights.
///
/// Credentials belong to a thread on Linux; only this one changes, and changes back. Without
/// root rights only the own user can be had.
pub fn acting_as<T>(identity: &Identity, act: impl FnOnce() -> T) -> io::Result<T> {
    let own = rustix::process::geteuid().as_raw();
    if own == identity.uid {
        return Ok(act());
    }
    if own != 0 {
        let message = format!("only root can act as {}", identity.name);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    let before = rustix::process::getgroups()?;
    let own_group = rustix::process::getegid();
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_thread_groups(&groups)?;
    let restore = Restore { groups: before, group: own_group };
    rustix::thread::set_thread_res_gid(gid, gid, own_group)?;
    // The saved user stays root, so that this thread can return; exec drops it.
    rustix::thread::set_thread_res_uid(uid, uid, Uid::ROOT)?;
    let result = act();
    drop(restore);
    Ok(result)
}

/// Takes a thread back to root, also when what it did has panicked.
struct Restore {
    groups: Vec<Gid>,
    group: Gid,
}

impl Drop for Restore {
    fn drop(&mut self) {
        let back = rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
            .and_then(|()| rustix::thread::set_thread_res_gid(self.group, self.group, self.group))
            .and_then(|()| rustix::thread::set_thread_groups(&self.groups));
        if back.is_err() {
            // Going on with mixed rights would be worse than ending here.
            std::process::abort();
        }
    }
}

/// Runs a program as a user and waits for it.
pub fn run(job: &Job, identity: &Identity) -> io::Result<Answer> {
    let Some((program, arguments)) = job.argv.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty command"));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(job.cwd.as_ref().map_or(std::path::Path::new("/"), RemotePath::as_path))
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .env("HOME", &identity.home)
        .env("USER", &identity.name)
        .env("LOGNAME", &identity.name)
        .env("SHELL", &identity.shell)
        .envs(job.environment.iter().map(|(name, value)| (name, value)))
        .stdin(if job.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let child = acting_as(identity, || command.spawn())??;
    wait(child, job)
}

fn wait(mut child: Child, job: &Job) -> io::Result<Answer> {
    let (ends, ended_streams) = mpsc::channel();
    let output = child.stdout.take().map(|pipe| collect(pipe, ends.clone()));
    let error = child.stderr.take().map(|pipe| collect(pipe, ends));
    if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), job.stdin.clone()) {
        std::thread::spawn(move || {
            // A program that does not read its input to the end is its own business.
            let _ = pipe.write_all(&bytes);
        });
    }
    let ended = wait_for_end(&mut child, job.timeout.map(|timeout| Instant::now() + timeout));
    if !matches!(ended, Ok(true)) {
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        let _ = child.wait();
        ended?;
        let seconds = job.timeout.unwrap_or_default().as_secs_f32();
        let message = format!("it did not end within {seconds} s, and was killed");
        return Err(io::Error::new(io::ErrorKind::TimedOut, message));
    }
    let status = child.wait()?;
    // Bounded: a daemon that holds the pipes open must not hold up the run.
    let deadline = Instant::now() + LINGER;
    for _ in 0..2 {
        let _ = ended_streams.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
    Ok(Answer {
        code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        output: output.map(taken).unwrap_or_default(),
        error: error.map(taken).unwrap_or_default(),
    })
}

type Kept = Arc<Mutex<Vec<u8>>>;

fn taken(kept: Kept) -> String {
    let kept = kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    String::from_utf8_lossy(&kept[kept.len().saturating_sub(OUTPUT_LIMIT)..]).into_owned()
}

fn collect(mut pipe: impl Read + Send + 'static, end: mpsc::Sender<()>) -> Kept {
    let kept = Kept::default();
    let shared = Arc::clone(&kept);
    std::thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            let mut kept = shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            append(&mut kept, &buffer[..count]);
        }
        let _ = end.send(());
    });
    kept
}

fn append(kept: &mut Vec<u8>, bytes: &[u8]) {
    kept.extend_from_slice(bytes);
    if kept.len() > 2 * OUTPUT_LIMIT {
        kept.drain(..kept.len() - OUTPUT_LIMIT);
    }
}

/// Whether a program ends before the deadline.
fn wait_for_end(child: &mut Child, deadline: Option<Instant>) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    let handle = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        // Older kernels (before 5.3), and sandboxes that do not know the call.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            return poll_for_end(child, deadline);
        }
        other => other?,
    };
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let bound = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        let mut watched = [PollFd::new(&handle, PollFlags::IN)];
        match rustix::event::poll(&mut watched, bound.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn poll_for_end(child: &mut Child, deadline: Option<Instant>) -> io::Result<bool> {
    loop {
        if child.try_wait()?.is_some() {
            return Ok(true);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Identity {
        Identity {
            name: String::from("me"),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: Vec::new(),
            home: String::from("/"),
            shell: String::from("/bin/sh"),
        }
    }

    fn shell(line: &str) -> Job {
        Job { argv: vec!["sh".into(), "-c".into(), line.into()], ..Job::default() }
    }

    #[test]
    fn a_program_answers_with_code_and_outputs() {
        let mut job = shell("cat; echo no >&2; exit 3");
        job.stdin = Some(b"hi".to_vec());
        let answer = run(&job, &own()).unwrap();
        assert_eq!((answer.code, answer.output.as_str(), answer.error.as_str()), (3, "hi", "no\n"));
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let mut job = shell("sleep 100 & sleep 100");
        job.timeout = Some(Duration::from_millis(50));
        let error = run(&job, &own()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_daemon_that_holds_the_output_open_does_not_hold_up_the_run() {
        let begun = Instant::now();
        let answer = run(&shell("echo done; sleep 5 &"), &own()).unwrap();
        assert_eq!(answer.code, 0);
        assert!(begun.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn root_becomes_another_user_and_comes_back() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let nobody = Identity { name: "nobody".into(), uid: 65534, gid: 65534, ..own() };
        let answer =
            run(&shell("id -u; id -g; grep -E '^(Uid|CapPrm)' /proc/self/status"), &nobody);
        let output = answer.unwrap().output;
        assert!(output.starts_with("65534\n65534\nUid:\t65534\t65534\t65534\t65534\n"), "{output}");
        assert!(output.ends_with("CapPrm:\t0000000000000000\n"), "{output}");
        assert!(rustix::process::geteuid().is_root());
    }
}
