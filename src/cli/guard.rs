//! What keeps `postgres archive-get` from ending with a code that a server would take for the end of its log.
//!
//! # Invariants
//! PostgreSQL takes every code from 1 to 125 for "there is no such file": it stops replaying, opens the database, and reports
//! success without what is missing. So this verb ends with 0 if the file is in its place, with 1 if it is proven absent, with
//! 128+n for a signal, and with 200 whatever else happens: wrong arguments, `--help`, a panic, a bad configuration.

use std::ffi::OsString;
use std::panic::{UnwindSafe, catch_unwind};

use super::exit::Exit;

/// The code that stops a server.
pub(super) const STOP: u8 = 200;

const GROUP: &str = "postgres";
const VERB: &str = "archive-get";
/// The other verbs of the group: what is none of them may have been meant to be this one.
const OTHERS: [&str; 7] = ["archive-push", "info", "verify", "allow", "backup", "restore", "help"];

/// How the program came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// A verb ran.
    Ran(Exit),
    /// None did: the arguments were wrong, or asked for help.
    Arguments(u8),
}

/// How much of a call is guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// Nothing: no server waits for it.
    None,
    /// Wrong arguments: this verb may have been meant, and was misspelt.
    Arguments,
    /// Everything.
    Whole,
}

impl Guard {
    /// For this command line.
    pub(super) fn of(arguments: &[OsString]) -> Self {
        let typed = arguments.get(1..).unwrap_or_default();
        if typed.iter().any(|argument| argument == VERB) {
            return Self::Whole;
        }
        let Some(group) = typed.iter().position(|argument| argument == GROUP) else { return Self::None };
        let (before, after) = typed.split_at(group);
        // Options, and what may belong to one.
        let option = |at: usize| before[at].as_encoded_bytes().starts_with(b"-");
        let first = (0..before.len()).all(|at| option(at) || (at > 0 && option(at - 1)));
        let known = after.iter().any(|argument| OTHERS.iter().any(|other| argument == other));
        if first && !known && after.len() > 1 { Self::Arguments } else { Self::None }
    }
}

/// Runs the program, and gives its code.
pub(super) fn run(guard: Guard, program: impl FnOnce() -> End + UnwindSafe) -> u8 {
    if guard != Guard::Whole {
        return match program() {
            End::Arguments(_) if guard == Guard::Arguments => STOP,
            End::Arguments(code) => code,
            End::Ran(exit) => exit.code(),
        };
    }
    match catch_unwind(program) {
        Ok(End::Ran(exit @ (Exit::Done | Exit::Absent | Exit::Signal(_)))) => exit.code(),
        Ok(End::Ran(Exit::Class(_)) | End::Arguments(_)) | Err(_) => STOP,
    }
}

#[cfg(test)]
mod tests {
    use lifeboat::class::Class;

    use super::*;

    fn of(text: &str) -> Guard {
        Guard::of(&text.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_server_is_told_of_an_end_only_where_it_is_proven() {
        let run = |program: fn() -> End| run(Guard::Whole, program);
        assert_eq!(run(|| End::Ran(Exit::Done)), 0);
        assert_eq!(run(|| End::Ran(Exit::Absent)), 1);
        assert_eq!(run(|| End::Ran(Exit::Signal(15))), 143);
        assert_eq!(run(|| panic!("a panic")), 200);
        assert_eq!(run(|| End::Arguments(0)), 200);
        assert_eq!(run(|| End::Arguments(2)), 200);
        assert_eq!(run(|| End::Ran(Exit::Class(Class::Failed))), 200);
        assert_eq!(run(|| End::Ran(Exit::Class(Class::Usage))), 200);
        assert_eq!(run(|| End::Ran(Exit::Class(Class::Unreachable))), 200);
        assert_eq!(run(|| End::Ran(Exit::Class(Class::Cancelled))), 200);
    }

    #[test]
    fn a_misspelt_verb_is_not_taken_for_the_end_of_a_log_either() {
        assert_eq!(run(Guard::Arguments, || End::Arguments(2)), 200);
        assert_eq!(run(Guard::Arguments, || End::Ran(Exit::Done)), 0);
        assert_eq!(run(Guard::None, || End::Arguments(2)), 2);
        assert_eq!(run(Guard::None, || End::Ran(Exit::Class(Class::Failed))), 1);
    }

    #[test]
    fn whatever_may_be_meant_to_give_a_file_back_is_guarded() {
        for text in [
            "lifeboat postgres archive-get a b",
            "lifeboat -r x postgres --json archive-get a b",
            "lifeboat postgres --cluster main archive-get",
            "lifeboat posgres archive-get a b",
            "lifeboat postgres archive-get --help",
        ] {
            assert_eq!(of(text), Guard::Whole, "{text}");
        }
        for text in ["lifeboat postgres archiveget a b", "lifeboat -q -r x postgres a b"] {
            assert_eq!(of(text), Guard::Arguments, "{text}");
        }
        for text in [
            "lifeboat postgres archive-push x",
            "lifeboat postgres",
            "lifeboat postgres --json info",
            "lifeboat backup postgres x --nothing",
            "lifeboat backup x",
            "lifeboat",
        ] {
            assert_eq!(of(text), Guard::None, "{text}");
        }
    }
}
