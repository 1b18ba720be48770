//! Exit codes: the table of `docs/exit-codes.md`, in one place.

use lifeboat::class::Class;

/// How a run ended, as scripts see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All was done.
    Done,
    /// Anything that has a class.
    Class(Class),
    /// What a server asked for is proven to be absent: an answer, and no failure.
    Absent,
    /// A signal asked for the end.
    Signal(u8),
}

/// Number of the signal a broken pipe raises.
pub(crate) const SIGPIPE: u8 = 13;

impl Exit {
    /// The number a script sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Absent => 1,
            Self::Class(class) => of_class(class),
            Self::Signal(signal) => 128 + signal,
        }
    }
}

fn of_class(class: Class) -> u8 {
    match class {
        Class::Failed => 1,
        Class::Usage => 2,
        Class::Partial => 3,
        Class::Damage => 4,
        Class::Missed => 5,
        Class::Refused => 7,
        Class::Unconfirmed => 8,
        Class::NoRepository => 10,
        Class::Busy => 11,
        Class::Denied => 12,
        Class::Unreachable => 13,
        Class::NoSpace => 14,
        Class::Tampered => 15,
        // Raised by other means than a signal; the code of Ctrl-C.
        Class::Cancelled => 130,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_the_code_of_the_contract() {
        for (class, code) in [
            (Class::Failed, 1),
            (Class::Usage, 2),
            (Class::Partial, 3),
            (Class::Damage, 4),
            (Class::Missed, 5),
            (Class::Refused, 7),
            (Class::Unconfirmed, 8),
            (Class::NoRepository, 10),
            (Class::Busy, 11),
            (Class::Denied, 12),
            (Class::Unreachable, 13),
            (Class::NoSpace, 14),
            (Class::Tampered, 15),
            (Class::Cancelled, 130),
        ] {
            assert_eq!(Exit::Class(class).code(), code, "{class:?}");
        }
        assert_eq!(Exit::Done.code(), 0);
        assert_eq!(Exit::Signal(2).code(), 130);
        assert_eq!(Exit::Signal(15).code(), 143);
        assert_eq!(Exit::Signal(SIGPIPE).code(), 141);
    }
}
