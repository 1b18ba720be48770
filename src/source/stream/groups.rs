//! The process groups of commands that run: which there are, and whether anything lives in one.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid};

use super::ready_within;

/// The first pause between two looks, and the longest.
const FIRST_PAUSE_MS: i64 = 5;
const PAUSE_MS: i64 = 100;

/// The groups of commands that were started and not yet waited for: their numbers mean nothing else.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// A command that runs as the leader of a process group of its own. [`kill_all`](super::kill_all) reaches it until it is waited
/// for. Dropped before that, it is killed with all that it started.
#[derive(Debug)]
pub struct Group {
    leader: Child,
    /// Its number means this group: it was not waited for yet.
    noted: bool,
}

impl Group {
    /// Starts it.
    ///
    /// # Errors
    /// What the system says if it cannot be.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let group = Self { leader: command.process_group(0).spawn()?, noted: true };
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).push(group.pid());
        Ok(group)
    }

    /// The command itself, of which the pipes can be taken.
    pub(super) fn leader(&mut self) -> &mut Child {
        &mut self.leader
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.leader)
    }

    /// What became of the command itself; `None` while it runs. It is not taken away from the system by that, so its number still
    /// means it and its group.
    pub(super) fn look(&self) -> io::Result<Option<WaitIdStatus>> {
        let options =
            WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(self.pid()), options)?)
    }

    /// Whether the command itself has ended; what it started may live on.
    pub fn has_ended(&self) -> io::Result<bool> {
        Ok(self.look()?.is_some_and(|status| !status.stopped()))
    }

    /// Asks all of it to end.
    pub fn tell_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits until nothing of it lives any more, but not longer than this. It blocks the thread.
    pub fn wait_until_empty(&self, patience: Duration) {
        wait_until_empty(vec![self.pid()], patience);
    }

    /// Kills all of it.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        if self.noted {
            // One that is gone has nothing to end.
            let _ = kill_process_group(self.pid(), signal);
        }
    }

    /// Waits for the command itself, and leaves alone what it started and did not wait for.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        if std::mem::take(&mut self.noted) {
            // Before the wait: from then on the number may mean another one.
            let group = self.pid();
            RUNNING.lock().unwrap_or_else(PoisonError::into_inner).retain(|&other| other != group);
        }
        self.leader.wait()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.noted {
            self.kill();
            let _ = self.wait();
        }
    }
}

pub(super) fn kill_all() {
    for &group in RUNNING.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Waits until nothing lives in the groups any more, but not longer than told. A shell that is told to end does so before
/// what it started, so the end of the leader says nothing.
pub(super) fn wait_until_empty(mut groups: Vec<Pid>, patience: Duration) {
    let patience_ms = i64::try_from(patience.as_millis()).unwrap_or(i64::MAX);
    let (mut waited, mut pause) = (0, FIRST_PAUSE_MS);
    loop {
        groups.retain(|&group| lives(Path::new("/proc"), group));
        if groups.is_empty() || waited >= patience_ms {
            return;
        }
        // With nothing to look at it sleeps.
        let _ = ready_within(&[], pause);
        waited += pause;
        pause = (pause * 2).min(PAUSE_MS);
    }
}

/// Whether the group has a process that is no zombie; true if the system does not tell.
fn lives(proc: &Path, group: Pid) -> bool {
    let Ok(entries) = std::fs::read_dir(proc) else { return true };
    let mut any = false;
    for entry in entries.flatten() {
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        any = true;
        // One that has ended since is none.
        let stat = std::fs::read(entry.path().join("stat")).unwrap_or_default();
        if state_and_group(&stat).is_some_and(|(state, of)| of == group && !matches!(state, b'Z' | b'X')) {
            return true;
        }
    }
    !any
}

/// The state and the group in a line of `/proc/PID/stat`; the program's name may hold anything.
fn state_and_group(stat: &[u8]) -> Option<(u8, Pid)> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some((state, Pid::from_raw(fields.nth(1)?.parse().ok()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_lives_while_one_of_it_does() {
        let temp = tempfile::tempdir().unwrap();
        let put = |pid: u32, stat: &str| {
            let dir = temp.path().join(pid.to_string());
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("stat"), stat).unwrap();
        };
        let group = Pid::from_raw(70).unwrap();
        assert!(lives(&temp.path().join("none"), group) && lives(temp.path(), group), "nobody tells");
        put(70, "70 (sh) Z 1 70 1 0\n");
        put(71, "71 (a ) S 70 70 (x) S 1 9 1 0\n");
        put(72, "72 (gone");
        std::fs::create_dir_all(temp.path().join("73")).unwrap();
        assert!(!lives(temp.path(), group));
        put(74, "74 (cat) D 70 70 1 0\n");
        assert!(lives(temp.path(), group));
    }
}
