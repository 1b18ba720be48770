//! Sources without a name in the file system: standard input, and what commands write.
//!
//! # Invariants
//! The output of a command counts only after [`Step::End`] has said that the command succeeded: a dump that broke off looks
//! complete from here. A command runs in a process group of its own, which never outlives a stream that did not come to its
//! end; it is always waited for.
//!
//! # Must not
//! Wait: what there is is taken by [`Stream::step`], and [`wait_for`] waits for all streams together.

mod groups;
mod shell;

pub use groups::Group;
pub use shell::Shell;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};

use super::error::{CommandEnd, SourceError};
use super::sys::file as sys;
use super::sys::stat::{Kind, stat_open};

/// How much of a command's standard error is kept for the message.
const STDERR_TAIL: usize = 4096;
/// A longer line of it is shown in parts.
const LINE_MAX: usize = 4096;

/// How long a wait lasts before the wish to stop is looked at again, one for the end of a command, and before a command that
/// was told to end is killed.
const TICK_MS: i64 = 100;
const END_TICK_MS: i64 = 10;
const PATIENCE: Duration = Duration::from_secs(2);
/// Reads of what a command wrote last to standard error: as much as a pipe holds, however much still comes.
const LAST_READS: usize = (1 << 20) / MESSAGES;
const MESSAGES: usize = 4096;
/// How long something that a command left behind may hold its output open without a byte.
const HELD: Duration = Duration::from_secs(10);

/// What a look at a stream brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many bytes, now in the buffer.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// All of it was given, and can be trusted.
    End,
}

/// A stream that is read.
#[derive(Debug)]
pub enum Stream {
    /// Standard input.
    Stdin(StdinStream),
    /// The output of a command.
    Command(CommandStream),
}

impl Stream {
    /// Takes what there is, after [`wait_for`] has said what that is; `now` is monotonic. Lines that a command writes to
    /// standard error go to `say`, without their ends.
    pub fn step(
        &mut self,
        ready: Ready,
        now: Duration,
        buffer: &mut [u8],
        say: &mut dyn FnMut(&[u8]),
    ) -> Result<Step, SourceError> {
        match self {
            Self::Stdin(stream) => stream.step(ready, buffer),
            Self::Command(stream) => stream.step(ready, now, buffer, say),
        }
    }

    fn fds(&self) -> [Option<BorrowedFd<'_>>; 2] {
        match self {
            Self::Stdin(_) => [Some(rustix::stdio::stdin()), None],
            Self::Command(stream) => {
                [stream.stdout.as_ref().map(AsFd::as_fd), stream.stderr.as_ref().map(AsFd::as_fd)]
            }
        }
    }

    /// Whether only the end of its command is to come, of which no descriptor tells.
    fn is_ending(&self) -> bool {
        matches!(self, Self::Command(stream) if stream.stdout.is_none())
    }
}

/// Asks the commands of all streams to end, and waits for them together, but not for long: dropped, a stream ends what is
/// left of its own.
pub fn end_all<'s>(streams: impl Iterator<Item = &'s mut Stream>) {
    let told = streams.filter_map(|stream| match stream {
        Stream::Command(stream) => stream.tell_to_end(),
        Stream::Stdin(_) => None,
    });
    groups::wait_until_empty(told.collect(), PATIENCE);
}

/// Kills every command that still runs with all that it started, for a process that ends at once.
pub fn kill_all() {
    groups::kill_all();
}

/// Whether output can be read, or has ended, and whether messages can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready {
    output: bool,
    messages: bool,
}

/// Waits until one of the streams has something, but only for a moment.
pub fn wait_for<'s>(streams: impl Iterator<Item = &'s Stream> + Clone) -> Result<Vec<Ready>, SourceError> {
    let ending = streams.clone().any(Stream::is_ending);
    let fds: Vec<_> = streams.map(Stream::fds).collect();
    let ready = ready_within(&fds, if ending { END_TICK_MS } else { TICK_MS });
    ready.map_err(|source| SourceError::Io { action: "wait for", path: PathBuf::from("a stream"), source })
}

/// Standard input.
#[derive(Debug)]
pub struct StdinStream(());

impl StdinStream {
    /// Refuses an input that cannot hold anything, because an empty backup would look like a good one.
    pub fn new() -> Result<Self, SourceError> {
        let stat = stat_open(rustix::stdio::stdin()).map_err(|_| SourceError::NoInput)?;
        let null = rustix::fs::makedev(1, 3);
        if stat.is_dir() || (stat.kind() == Kind::CharDevice && stat.rdev == null) {
            return Err(SourceError::NoInput);
        }
        Ok(Self(()))
    }

    fn step(&mut self, ready: Ready, buffer: &mut [u8]) -> Result<Step, SourceError> {
        if !ready.output {
            return Ok(Step::Nothing);
        }
        let failed =
            |source| SourceError::Io { action: "read", path: PathBuf::from("standard input"), source };
        match sys::read(rustix::stdio::stdin(), buffer).map_err(failed)? {
            0 => Ok(Step::End),
            len => Ok(Step::Bytes(len)),
        }
    }
}

/// A running command and what it writes to standard output.
#[derive(Debug)]
pub struct CommandStream {
    program: PathBuf,
    group: Group,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    /// What was written to standard error since the last line ended.
    line: Vec<u8>,
    tail: VecDeque<u8>,
    /// How it ended, if it has.
    end: Option<Result<(), CommandEnd>>,
    /// Since when there is no output, though it has ended.
    silent: Option<Duration>,
    /// It came to a good end, and what it left running is no concern of ours.
    whole: bool,
    /// It was asked to end.
    told: bool,
}

impl CommandStream {
    /// Starts a program with its arguments, without the variables that are `withheld`; standard input is empty.
    pub fn start(program: &Path, args: &[OsString], withheld: &[OsString]) -> Result<Self, SourceError> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in withheld {
            command.env_remove(name);
        }
        let started = Group::start(&mut command);
        let mut group =
            started.map_err(|source| SourceError::CommandStart { program: program.to_owned(), source })?;
        let (stdout, stderr) = (group.leader().stdout.take(), group.leader().stderr.take());
        Ok(Self {
            program: program.to_owned(),
            group,
            stdout,
            stderr,
            line: Vec::new(),
            tail: VecDeque::new(),
            end: None,
            silent: None,
            whole: false,
            told: false,
        })
    }

    fn step(
        &mut self,
        ready: Ready,
        now: Duration,
        buffer: &mut [u8],
        say: &mut dyn FnMut(&[u8]),
    ) -> Result<Step, SourceError> {
        if ready.messages {
            self.take_messages(say);
        }
        self.look()?;
        if let Some(Err(end)) = self.end {
            self.take_last_messages(say);
            let tail: Vec<u8> = std::mem::take(&mut self.tail).into();
            let stderr = String::from_utf8_lossy(&tail).trim().to_owned();
            return Err(SourceError::CommandFailed { program: self.program.clone(), end, stderr });
        }
        if let Some(stdout) = self.stdout.as_ref().filter(|_| ready.output) {
            match sys::read(stdout, buffer).map_err(|error| self.failure(error))? {
                0 => self.stdout = None,
                len => {
                    self.silent = None;
                    return Ok(Step::Bytes(len));
                }
            }
        }
        if self.end.is_none() {
            return Ok(Step::Nothing);
        }
        if self.stdout.is_none() {
            self.take_last_messages(say);
            self.whole = true;
            return Ok(Step::End);
        }
        // Something that it started may still write, and what it has written so far may be half of it.
        if now.saturating_sub(*self.silent.get_or_insert(now)) < HELD {
            return Ok(Step::Nothing);
        }
        // Whoever asks may have been held up since it looked.
        let comes = match &self.stdout {
            Some(stdout) => ready_within(&[[Some(stdout.as_fd()), None]], 0).is_ok_and(|now| now[0].output),
            None => false,
        };
        if comes { Ok(Step::Nothing) } else { Err(SourceError::OutputHeld { program: self.program.clone() }) }
    }

    /// Looks whether it has ended.
    fn look(&mut self) -> Result<(), SourceError> {
        if self.end.is_some() {
            return Ok(());
        }
        let Some(status) = self.group.look().map_err(|error| self.failure(error))? else { return Ok(()) };
        if status.stopped() {
            let terminal = [Signal::TTIN, Signal::TTOU].map(|signal| Some(signal.as_raw()));
            if terminal.contains(&status.stopping_signal()) {
                return Err(SourceError::WantsTerminal { program: self.program.clone() });
            }
            return Ok(());
        }
        self.end = Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(0), _) => Ok(()),
            (Some(code), _) => Err(CommandEnd::Code(code)),
            (None, signal) => Err(CommandEnd::Signal(signal.unwrap_or(0))),
        });
        Ok(())
    }

    fn take_messages(&mut self, say: &mut dyn FnMut(&[u8])) {
        let mut buffer = [0; MESSAGES];
        let Some(stderr) = &self.stderr else { return };
        let len = match sys::read(stderr, &mut buffer) {
            Ok(0) | Err(_) => {
                self.stderr = None;
                return;
            }
            Ok(len) => len,
        };
        self.tail.extend(&buffer[..len]);
        let excess = self.tail.len().saturating_sub(STDERR_TAIL);
        self.tail.drain(..excess);
        for &byte in &buffer[..len] {
            if byte != b'\n' {
                self.line.push(byte);
            }
            if byte == b'\n' || self.line.len() == LINE_MAX {
                self.end_line(say);
            }
        }
    }

    /// What it wrote last; something it left behind may hold the pipe open, or fill it again and again, so there is no wait for
    /// the end.
    fn take_last_messages(&mut self, say: &mut dyn FnMut(&[u8])) {
        for _ in 0..LAST_READS {
            let Some(stderr) = &self.stderr else { break };
            if !ready_within(&[[Some(stderr.as_fd()), None]], 0).is_ok_and(|ready| ready[0].output) {
                break;
            }
            self.take_messages(say);
        }
        self.end_line(say);
    }

    fn end_line(&mut self, say: &mut dyn FnMut(&[u8])) {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        if !line.is_empty() {
            say(line);
        }
        self.line.clear();
    }

    fn failure(&self, source: io::Error) -> SourceError {
        SourceError::Io { action: "read from", path: self.program.clone(), source }
    }

    /// Asks it to end, if it has not come to a good end, and was not asked before; gives its group.
    fn tell_to_end(&mut self) -> Option<Pid> {
        if self.whole || self.told {
            return None;
        }
        (self.stdout, self.told) = (None, true);
        self.group.tell_to_end();
        Some(self.group.pid())
    }
}

impl Drop for CommandStream {
    /// Asks the command and what it started to end, then ends them.
    fn drop(&mut self) {
        if self.tell_to_end().is_some() {
            self.group.wait_until_empty(PATIENCE);
        }
        if !self.whole {
            self.group.kill();
        }
        let _ = self.group.wait();
    }
}

/// Which of the descriptors can be read, ended or failed; waits at most as long as told.
fn ready_within(fds: &[[Option<BorrowedFd<'_>>; 2]], millis: i64) -> io::Result<Vec<Ready>> {
    let mut polled: Vec<_> =
        fds.iter().flatten().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut answers = polled.iter().map(|fd| !fd.revents().is_empty());
    let mut answer = |fd: &Option<BorrowedFd<'_>>| fd.is_some() && answers.next().unwrap_or(false);
    Ok(fds
        .iter()
        .map(|[output, messages]| Ready { output: answer(output), messages: answer(messages) })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> Stream {
        let args = ["-c", script].map(OsString::from);
        Stream::Command(CommandStream::start(Path::new("/bin/sh"), &args, &["HIDDEN".into()]).unwrap())
    }

    /// What a stream gives and says until it ends; time passes a second a step.
    fn read_all(stream: &mut Stream) -> (Vec<u8>, Vec<String>, Result<(), SourceError>) {
        let (mut all, mut said, mut buffer) = (Vec::new(), Vec::new(), [0; 5000]);
        for now in (0..).map(Duration::from_secs) {
            let ready = wait_for(std::iter::once(&*stream)).unwrap()[0];
            let mut say = |line: &[u8]| said.push(String::from_utf8_lossy(line).into_owned());
            match stream.step(ready, now, &mut buffer, &mut say) {
                Ok(Step::Bytes(len)) => all.extend_from_slice(&buffer[..len]),
                Ok(Step::Nothing) => {}
                Ok(Step::End) => return (all, said, Ok(())),
                Err(error) => return (all, said, Err(error)),
            }
        }
        unreachable!("time has no end")
    }

    fn pid_of(stream: &Stream) -> Pid {
        let Stream::Command(command) = stream else { panic!() };
        command.group.pid()
    }

    #[test]
    fn output_is_delivered_in_full_and_success_is_told() {
        let (all, said, end) = read_all(&mut start("head -c 300000 /dev/zero; echo end; echo done >&2"));
        assert!(all.len() == 300_004 && all.ends_with(b"end\n"));
        assert!(end.is_ok() && said == ["done"]);
    }

    #[test]
    fn a_command_that_fails_after_its_output_is_a_failure_with_its_last_words() {
        for (script, expected) in [
            ("echo data; echo lost connection >&2; exit 3", CommandEnd::Code(3)),
            ("kill -9 $$", CommandEnd::Signal(9)),
            // Though what it started goes on for ever.
            ("yes & exit 7", CommandEnd::Code(7)),
            ("yes >&2 & exit 7", CommandEnd::Code(7)),
        ] {
            match read_all(&mut start(script)).2.unwrap_err() {
                SourceError::CommandFailed { end, stderr, .. } => {
                    assert_eq!(end, expected);
                    assert!(expected != CommandEnd::Code(3) || stderr == "lost connection");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_it_says_comes_line_by_line_and_only_the_end_is_kept() {
        let script =
            "i=0; while [ $i -lt 20000 ]; do echo 0123456789 >&2; i=$((i+1)); done; printf last >&2; exit 1";
        let (all, said, end) = read_all(&mut start(script));
        assert!(all.is_empty() && said.len() == 20_001 && said[7] == "0123456789" && said[20_000] == "last");
        let Err(SourceError::CommandFailed { stderr, .. }) = end else { panic!("{end:?}") };
        assert!(stderr.len() <= STDERR_TAIL && stderr.ends_with("last"));
        let (_, said, end) = read_all(&mut start("head -c 10000 /dev/zero | tr '\\0' x >&2"));
        assert!(end.is_ok() && said.iter().map(String::len).eq([LINE_MAX, LINE_MAX, 10_000 - 2 * LINE_MAX]));
    }

    #[test]
    fn output_that_ends_before_its_command_counts_only_with_it() {
        assert!(read_all(&mut start("echo data; exec >&-; sleep 0.1")).2.is_ok());
        assert!(read_all(&mut start("echo data; exec >&-; sleep 0.1; exit 1")).2.is_err());
    }

    #[test]
    fn what_a_command_left_behind_is_waited_for_while_it_writes_and_no_longer() {
        let (all, _, end) = read_all(&mut start("(sleep 0.2; echo late) & echo early"));
        assert!(end.is_ok() && all == b"early\nlate\n", "{end:?}");
        let mut stream = start("sleep 1000 & echo $!");
        let (all, _, end) = read_all(&mut stream);
        assert!(matches!(end, Err(SourceError::OutputHeld { .. })), "{end:?}");
        drop(stream);
        let left = Pid::from_raw(String::from_utf8(all).unwrap().trim().parse().unwrap()).unwrap();
        assert!(is_gone(left), "it goes with its group");
    }

    #[test]
    fn output_that_came_while_nobody_looked_is_not_missing() {
        let mut stream = start("(sleep 0.3; echo late) & echo early");
        let mut buffer = [0; 100];
        let mut step = |stream: &mut Stream, ready, now| {
            stream.step(ready, Duration::from_secs(now), &mut buffer, &mut |_| {}).unwrap()
        };
        let Stream::Command(command) = &mut stream else { panic!() };
        while command.end.is_none() {
            command.look().unwrap();
        }
        let output = Ready { output: true, messages: false };
        assert_eq!(step(&mut stream, output, 0), Step::Bytes(6));
        assert_eq!(step(&mut stream, Ready::default(), 1), Step::Nothing);
        // Long after it was looked whether there is any.
        ready_within(&[[stream.fds()[0], None]], 60_000).unwrap();
        assert_eq!(step(&mut stream, Ready::default(), 1000), Step::Nothing);
        assert_eq!(step(&mut stream, output, 1001), Step::Bytes(5));
        assert_eq!(step(&mut stream, output, 1002), Step::End);
    }

    /// Whether a process has ended, or does so in a moment; a zombie that nobody waits for has.
    fn is_gone(pid: Pid) -> bool {
        let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
        (0..1000).any(|_| {
            let _ = ready_within(&[], 10);
            std::fs::read_to_string(&path).map_or(true, |stat| stat.contains(") Z"))
        })
    }

    #[test]
    fn what_a_shell_started_has_time_to_end_though_the_shell_has_none() {
        let temp = tempfile::tempdir().unwrap();
        let end = temp.path().join("end");
        let tidy = format!(
            "sh -c 'trap \"sleep 0.3; echo tidy >{}; exit\" TERM; echo on; while :; do sleep 0.05; done'",
            end.display()
        );
        for script in [format!("{tidy} | cat"), format!("{tidy} & sleep 0.2; exit 5")] {
            let mut stream = start(&script);
            let mut buffer = [0; 100];
            let mut now = 0;
            loop {
                let ready = wait_for(std::iter::once(&stream)).unwrap()[0];
                now += 1;
                match stream.step(ready, Duration::from_millis(now), &mut buffer, &mut |_| {}) {
                    Ok(Step::Bytes(_)) if script.ends_with("cat") => break,
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
            drop(stream);
            assert_eq!(std::fs::read(&end).unwrap(), b"tidy\n", "{script}");
            std::fs::remove_file(&end).unwrap();
        }
    }

    #[test]
    fn a_stream_that_is_dropped_ends_its_command_and_all_that_it_started() {
        let mut stream = start("trap '' TERM; sleep 1000 & sleep 1000; sleep 1000");
        let pid = pid_of(&stream);
        end_all(std::iter::once(&mut stream));
        drop(stream);
        assert!(rustix::process::test_kill_process(pid).is_err(), "no zombie");
        assert!(rustix::process::test_kill_process_group(pid).is_err());
    }

    #[test]
    fn a_program_that_is_not_there_does_not_start() {
        let error = CommandStream::start(Path::new("/no/such"), &[], &[]).unwrap_err();
        assert!(matches!(error, SourceError::CommandStart { .. }));
    }
}
