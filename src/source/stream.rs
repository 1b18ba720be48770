//! Sources without a name in the file system: standard input, and what a command writes.
//!
//! # Invariants
//! The output of a command counts only after [`CommandStream::finish`] has said that the command succeeded: a dump that
//! broke off looks complete from here. A command never outlives its stream; it is always waited for.
//!
//! # Must not
//! Go through a shell.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::error::{CommandEnd, SourceError};
use super::sys::file as sys;
use super::sys::stat::{Kind, stat_open};
use crate::cancel::Cancel;

/// How much of a command's standard error is kept for the message.
const STDERR_TAIL: usize = 4096;

/// How long a wait lasts before the wish to stop is looked at again, and before a command that was told to end is killed.
const TICK_MS: i64 = 100;
const PATIENCE_MS: i64 = 2000;

/// Standard input.
#[derive(Debug)]
pub struct StdinStream {
    cancel: Cancel,
}

impl StdinStream {
    /// Refuses an input that cannot hold anything, because an empty backup would look like a good one.
    pub fn new(cancel: &Cancel) -> Result<Self, SourceError> {
        let stat = stat_open(rustix::stdio::stdin()).map_err(|_| SourceError::NoInput)?;
        let null = rustix::fs::makedev(1, 3);
        if stat.is_dir() || (stat.kind() == Kind::CharDevice && stat.rdev == null) {
            return Err(SourceError::NoInput);
        }
        Ok(Self { cancel: cancel.clone() })
    }

    /// Reads what there is; zero is the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let failed =
            |source| SourceError::Io { action: "read", path: PathBuf::from("standard input"), source };
        loop {
            if self.cancel.is_raised() {
                return Err(SourceError::Cancelled);
            }
            if ready_within([Some(rustix::stdio::stdin()), None], TICK_MS).map_err(failed)?[0] {
                return sys::read(rustix::stdio::stdin(), buffer).map_err(failed);
            }
        }
    }
}

/// A running command and what it writes to standard output.
#[derive(Debug)]
pub struct CommandStream {
    program: PathBuf,
    child: Child,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    tail: VecDeque<u8>,
    status: Option<ExitStatus>,
    cancel: Cancel,
}

/// What becomes of a command's standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stderr {
    /// It goes where ours goes.
    Inherit,
    /// Its end is kept for the error message.
    Keep,
}

impl CommandStream {
    /// Starts a program with its arguments; standard input is empty.
    pub fn start(
        program: &Path,
        args: &[OsString],
        stderr: Stderr,
        cancel: &Cancel,
    ) -> Result<Self, SourceError> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(if stderr == Stderr::Keep { Stdio::piped() } else { Stdio::inherit() });
        let started = command.spawn();
        let mut child =
            started.map_err(|source| SourceError::CommandStart { program: program.to_owned(), source })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (program, cancel) = (program.to_owned(), cancel.clone());
        Ok(Self { program, child, stdout, stderr, tail: VecDeque::new(), status: None, cancel })
    }

    /// Reads what there is; zero is the end of the output, after which [`CommandStream::finish`] must be asked.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        while self.stdout.is_some() {
            if self.cancel.is_raised() {
                return Err(SourceError::Cancelled);
            }
            let [output, errors] = self.wait(TICK_MS).map_err(|error| self.failure(error))?;
            if errors {
                self.drain_stderr();
            }
            let Some(stdout) = self.stdout.as_ref().filter(|_| output) else { continue };
            let len = sys::read(stdout, buffer).map_err(|error| self.failure(error))?;
            if len > 0 || buffer.is_empty() {
                return Ok(len);
            }
            self.stdout = None;
        }
        Ok(0)
    }

    /// Waits for the command and tells whether its output can be trusted.
    pub fn finish(mut self) -> Result<(), SourceError> {
        self.stdout = None;
        let status = loop {
            if self.cancel.is_raised() {
                return Err(SourceError::Cancelled);
            }
            if let Some(status) = self.child.try_wait().map_err(|error| self.failure(error))? {
                break status;
            }
            if self.wait(TICK_MS / 10).map_err(|error| self.failure(error))?[1] {
                self.drain_stderr();
            }
        };
        self.status = Some(status);
        // What the command wrote last; something it left behind may hold the pipe open, so there is no wait for the end.
        while self.stderr.is_some() && self.wait(0).is_ok_and(|[_, errors]| errors) {
            self.drain_stderr();
        }
        if status.success() {
            return Ok(());
        }
        let end = match (status.code(), status.signal()) {
            (Some(code), _) => CommandEnd::Code(code),
            (None, signal) => CommandEnd::Signal(signal.unwrap_or(0)),
        };
        let tail: Vec<u8> = std::mem::take(&mut self.tail).into();
        let stderr = String::from_utf8_lossy(&tail).trim().to_owned();
        Err(SourceError::CommandFailed { program: self.program.clone(), end, stderr })
    }

    fn wait(&self, millis: i64) -> io::Result<[bool; 2]> {
        let (stdout, stderr) = (self.stdout.as_ref(), self.stderr.as_ref());
        ready_within([stdout.map(AsFd::as_fd), stderr.map(AsFd::as_fd)], millis)
    }

    fn drain_stderr(&mut self) {
        let mut buffer = [0; 4096];
        let Some(stderr) = &self.stderr else { return };
        match sys::read(stderr, &mut buffer) {
            Ok(0) | Err(_) => self.stderr = None,
            Ok(len) => {
                self.tail.extend(&buffer[..len]);
                let excess = self.tail.len().saturating_sub(STDERR_TAIL);
                self.tail.drain(..excess);
            }
        }
    }

    fn failure(&self, source: io::Error) -> SourceError {
        SourceError::Io { action: "read from", path: self.program.clone(), source }
    }

    /// Asks the command to end, then ends it.
    fn end(&mut self) {
        self.stdout = None;
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Not reaped yet, so the number still means this process.
            let _ = kill_process(pid, Signal::TERM);
            if let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) {
                let _ = ready_within([Some(fd.as_fd()), None], PATIENCE_MS);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for CommandStream {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.end();
        }
    }
}

/// Which of the descriptors can be read, ended or failed; waits at most as long as told.
fn ready_within(fds: [Option<BorrowedFd<'_>>; 2], millis: i64) -> io::Result<[bool; 2]> {
    let mut polled = Vec::with_capacity(2);
    polled.extend(fds.iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)));
    let timeout = Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut answers = polled.iter().map(|fd| !fd.revents().is_empty());
    Ok(fds.map(|fd| fd.is_some() && answers.next().unwrap_or(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str, cancel: &Cancel) -> CommandStream {
        let args = ["-c", script].map(OsString::from);
        CommandStream::start(Path::new("/bin/sh"), &args, Stderr::Keep, cancel).unwrap()
    }

    fn read_all(stream: &mut CommandStream) -> Result<Vec<u8>, SourceError> {
        let (mut all, mut buffer) = (Vec::new(), [0; 5000]);
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(all),
                len => all.extend_from_slice(&buffer[..len]),
            }
        }
    }

    #[test]
    fn output_is_delivered_in_full_and_success_is_told() {
        let mut stream = start("head -c 300000 /dev/zero; echo end", &Cancel::new());
        let all = read_all(&mut stream).unwrap();
        assert!(all.len() == 300_004 && all.ends_with(b"end\n"));
        stream.finish().unwrap();
    }

    #[test]
    fn a_command_that_fails_after_its_output_is_a_failure_with_its_last_words() {
        for (script, expected) in [
            ("echo data; echo lost connection >&2; exit 3", CommandEnd::Code(3)),
            ("kill -9 $$", CommandEnd::Signal(9)),
        ] {
            let mut stream = start(script, &Cancel::new());
            read_all(&mut stream).unwrap();
            match stream.finish().unwrap_err() {
                SourceError::CommandFailed { end, stderr, .. } => {
                    assert_eq!(end, expected);
                    assert!(expected != CommandEnd::Code(3) || stderr == "lost connection");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn much_on_standard_error_blocks_nothing_and_only_its_end_is_kept() {
        let script =
            "i=0; while [ $i -lt 20000 ]; do echo 0123456789 >&2; i=$((i+1)); done; echo last >&2; exit 1";
        let mut stream = start(script, &Cancel::new());
        assert!(read_all(&mut stream).unwrap().is_empty());
        let SourceError::CommandFailed { stderr, .. } = stream.finish().unwrap_err() else { panic!() };
        assert!(stderr.len() <= STDERR_TAIL && stderr.ends_with("last"));
    }

    #[test]
    fn output_left_unread_does_not_hang_the_end() {
        let stream = start("yes", &Cancel::new());
        assert!(matches!(stream.finish(), Err(SourceError::CommandFailed { .. })));
    }

    #[test]
    fn a_wish_to_stop_ends_the_command_and_leaves_no_zombie() {
        let cancel = Cancel::new();
        let mut stream = start("exec sleep 1000", &cancel);
        let pid = Pid::from_raw(i32::try_from(stream.child.id()).unwrap()).unwrap();
        cancel.raise();
        assert!(matches!(stream.read(&mut [0; 10]), Err(SourceError::Cancelled)));
        drop(stream);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }

    #[test]
    fn a_program_that_is_not_there_does_not_start() {
        let error =
            CommandStream::start(Path::new("/no/such"), &[], Stderr::Keep, &Cancel::new()).unwrap_err();
        assert!(matches!(error, SourceError::CommandStart { .. }));
    }
}
