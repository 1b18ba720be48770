//! The process groups of commands that run: which there are, and whether anything lives in one.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process_group};

use super::ready_within;

/// The longest pause between two looks.
const PAUSE_MS: i64 = 100;

/// The groups of commands that were started and not yet waited for: their numbers mean nothing else.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

pub(super) fn note(group: Pid) {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner).push(group);
}

/// Must come before the leader is waited for.
pub(super) fn forget(group: Pid) {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner).retain(|&other| other != group);
}

pub(super) fn kill_all() {
    for &group in RUNNING.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Waits until nothing lives in the groups any more, but not longer than told. A shell that is told to end does so before
/// what it started, so the end of the leader says nothing.
pub(super) fn wait_until_empty(mut groups: Vec<Pid>, patience_ms: i64) {
    let (mut waited, mut pause) = (0, 5);
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
