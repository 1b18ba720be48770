//! The words for events and phases.

use std::error::Error;

use lifeboat::class::Class;
use lifeboat::event::{EntryChange, Event, Phase};

use super::super::render::sanitize;

/// A line for standard error, and whether it is an error, which even `--quiet` shows.
pub(super) fn line(event: &Event<'_>) -> Option<(bool, String)> {
    match event {
        Event::EntryFailed { path, error, .. } => {
            Some((true, format!("error: {}: {}", sanitize::path(path), chain(*error))))
        }
        Event::Warning { message } => Some((false, format!("warning: {}", sanitize::line(message)))),
        Event::Said { name, line } => {
            Some((false, format!("{}: {}", sanitize::path(name), sanitize::line(line))))
        }
        Event::Retrying { key, attempt, error } => {
            let key = sanitize::line(key);
            Some((false, format!("warning: attempt {attempt} for {key} failed: {}", chain(*error))))
        }
        _ => None,
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        text.push_str(": ");
        text.push_str(&cause);
    }
    sanitize::line(&text)
}

/// What follows the first one of several things, if there are others.
pub(crate) fn and_more(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" and {others} more") }
}

/// The causes of an error, without those that only repeat what stands above them.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut all = Vec::new();
    let mut above = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !above.ends_with(&text) {
            all.push(text.clone());
            above = text;
        }
        next = cause.source();
    }
    all
}

pub(super) fn change(change: EntryChange) -> &'static str {
    match change {
        EntryChange::New => "new",
        EntryChange::Changed => "changed",
        EntryChange::Unchanged => "unchanged",
        EntryChange::Restored => "restored",
        EntryChange::Removed => "removed",
    }
}

/// For people.
pub(super) fn doing(phase: Phase) -> &'static str {
    match phase {
        Phase::Open => "opening the repository",
        Phase::Backup => "saving",
        Phase::Transfer => "copying",
        Phase::Commit => "finishing the snapshot",
        Phase::Plan => "planning",
        Phase::Restore => "restoring",
        Phase::Verify => "verifying",
        Phase::Mark => "finding out what is needed",
        Phase::Collect => "collecting",
        Phase::Reencrypt => "sealing again",
    }
}

/// For scripts.
pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Open => "open",
        Phase::Backup => "backup",
        Phase::Transfer => "transfer",
        Phase::Commit => "commit",
        Phase::Plan => "plan",
        Phase::Restore => "restore",
        Phase::Verify => "verify",
        Phase::Mark => "mark",
        Phase::Collect => "collect",
        Phase::Reencrypt => "reencrypt",
    }
}

/// For scripts.
pub(crate) fn class(class: Class) -> &'static str {
    match class {
        Class::Failed => "failed",
        Class::Usage => "usage",
        Class::Partial => "partial",
        Class::Damage => "damage",
        Class::Refused => "refused",
        Class::Missed => "missed",
        Class::Unconfirmed => "unconfirmed",
        Class::NoRepository => "no_repository",
        Class::Busy => "busy",
        Class::Denied => "denied",
        Class::Unreachable => "unreachable",
        Class::NoSpace => "no_space",
        Class::Tampered => "tampered",
        Class::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read it")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_failed_entry_is_one_harmless_line_with_its_causes() {
        let error = Outer(std::io::Error::other("bad\u{1b}[2J disk"));
        let event = Event::EntryFailed { path: Path::new("/a\nb"), error: &error, class: Class::Partial };
        let (is_error, line) = line(&event).unwrap();
        assert!(is_error);
        assert_eq!(line, "error: /a\\nb: cannot read it: bad\\x1b[2J disk");
    }

    #[test]
    fn warnings_are_no_errors() {
        assert!(!line(&Event::Warning { message: "m" }).unwrap().0);
        let said = line(&Event::Said { name: Path::new("db/a.sql"), line: "\u{1b}[2Jno\rsuch" }).unwrap();
        assert_eq!(said, (false, "db/a.sql: \\x1b[2Jno\\rsuch".to_owned()));
        assert!(line(&Event::PhaseFinished { phase: Phase::Open }).is_none());
    }
}
