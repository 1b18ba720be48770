//! Why a server of SFTP does not do what was asked.

use super::super::door::{DoorError, FarKind, said};
use super::super::local::Step;

/// What was asked of the server, for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) step: Step,
    pub(super) path: &'a str,
}

/// The codes of an answer that says no.
pub(super) mod code {
    pub(in super::super) const OK: u32 = 0;
    pub(in super::super) const END: u32 = 1;
    pub(in super::super) const NO_SUCH_FILE: u32 = 2;
    pub(in super::super) const DENIED: u32 = 3;
    /// Everything else: a full disk, a name that is taken, a directory that is not empty.
    pub(in super::super) const FAILURE: u32 = 4;
    /// The connection of the server to what it serves is not there, or lost.
    pub(in super::super) const NO_CONNECTION: u32 = 6;
    pub(in super::super) const CONNECTION_LOST: u32 = 7;
    /// Later versions have codes for these, and some servers send them all the same.
    pub(in super::super) const READ_ONLY: u32 = 12;
    pub(in super::super) const NO_SPACE: u32 = 14;
    pub(in super::super) const QUOTA: u32 = 15;
}

/// A failure of the connection, or an answer that says no.
#[derive(Debug, Clone, thiserror::Error)]
pub(in crate::store) enum SftpError {
    /// The connection.
    #[error(transparent)]
    Line(#[from] DoorError),
    /// The server lets us in, and offers no SFTP.
    #[error("the other machine offers no SFTP{}", if said.is_empty() { String::new() } else { format!(": {said}") })]
    NoSubsystem { said: String },
    /// Something else than SFTP spoke.
    #[error("the other machine printed `{text}` instead of speaking SFTP: its login must print nothing")]
    Noise { text: String },
    /// Older than anything that is known.
    #[error("the other machine speaks version {theirs} of SFTP, and not version 3")]
    Version { theirs: u32 },
    /// The server broke the rules.
    #[error("the other machine broke the protocol of SFTP: {what}")]
    Broken { what: String },
    /// The directory of the repository is not there.
    #[error("`{path}` is not there")]
    NoRoot { path: String },
    /// A link, a device or another thing stands where a file or directory of the repository belongs.
    #[error("`{path}` is neither a plain file nor a directory of the repository")]
    Foreign { path: String },
    /// The file ended before the bytes that its size promised.
    #[error("`{path}` ends before the {size} bytes that it should have")]
    Shrunk { path: String, size: u64 },
    /// What is stored there might be lost again.
    #[error("the server cannot make `{path}` durable ({said}); the option unsafe_no_fsync=true does without")]
    NoSync { path: String, said: String },
    /// The disk, or what the user may use of it, is full.
    #[error("cannot {step} `{path}`: no space is left there")]
    NoSpace { step: Step, path: String },
    /// Nothing can be written there.
    #[error("cannot {step} `{path}`: it is on a file system that is only read")]
    ReadOnly { step: Step, path: String },
    /// Something has the name.
    #[error("`{path}` is there already")]
    Exists { path: String },
    /// The server says no.
    #[error("cannot {step} `{path}`: the server answers `{message}`")]
    Answer { step: Step, path: String, code: u32, message: String },
}

impl SftpError {
    /// An answer that says no.
    pub(super) fn answer(at: At<'_>, code: u32, message: &[u8]) -> Self {
        let message = match code {
            _ if !message.is_empty() => said(message),
            code::NO_SUCH_FILE => "No such file".to_owned(),
            code::DENIED => "Permission denied".to_owned(),
            code => format!("code {code}"),
        };
        Self::Answer { step: at.step, path: at.path.to_owned(), code, message }
    }

    /// Why a connection was not made or ended, as the program that makes connections tells it.
    pub(super) fn of_line(error: DoorError) -> Self {
        match error {
            // A forced command or a missing program of the server is no better the next time.
            DoorError::Lost { said } | DoorError::Ended { said }
                if said.contains("subsystem request failed") =>
            {
                Self::NoSubsystem { said }
            }
            DoorError::NoProgram { said } => Self::NoSubsystem { said },
            error => Self::Line(error),
        }
    }

    fn code(&self) -> Option<u32> {
        if let Self::Answer { code, .. } = self { Some(*code) } else { None }
    }

    /// Whether there is no such file.
    pub(super) fn is_missing(&self) -> bool {
        self.code() == Some(code::NO_SUCH_FILE)
    }

    /// Whether the server says no more than that it failed.
    pub(super) fn is_plain_failure(&self) -> bool {
        self.code() == Some(code::FAILURE)
    }

    /// Whether the server has answered, and said no.
    pub(super) fn is_answer(&self) -> bool {
        self.code().is_some()
    }

    /// Whether this user may not do it.
    pub(super) fn is_denied(&self) -> bool {
        self.code() == Some(code::DENIED)
    }

    pub(in crate::store) fn kind(&self) -> FarKind {
        match self {
            Self::Line(error) => error.kind(),
            Self::NoRoot { .. } => FarKind::NoRoot,
            Self::NoSpace { .. } => FarKind::NoSpace,
            Self::ReadOnly { .. } => FarKind::Denied,
            Self::Answer { code, .. } => match *code {
                code::DENIED | code::READ_ONLY => FarKind::Denied,
                code::NO_SPACE | code::QUOTA => FarKind::NoSpace,
                code::NO_CONNECTION | code::CONNECTION_LOST => FarKind::Unreachable,
                _ => FarKind::Other,
            },
            _ => FarKind::Other,
        }
    }

    /// As the trait's error.
    pub(super) fn into_store(self, key: &str) -> object_store::Error {
        let path = key.to_owned();
        if self.is_missing() || matches!(self, Self::NoRoot { .. }) {
            object_store::Error::NotFound { path, source: Box::new(self) }
        } else if matches!(self, Self::Exists { .. }) {
            object_store::Error::AlreadyExists { path, source: Box::new(self) }
        } else {
            object_store::Error::Generic { store: "sftp", source: Box::new(self) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_will_not_be_better_the_next_time_is_told_apart() {
        let lost = |said: &str| SftpError::of_line(DoorError::Lost { said: said.to_owned() });
        assert!(matches!(lost("subsystem request failed on channel 0"), SftpError::NoSubsystem { .. }));
        assert_eq!(lost("Connection reset by peer").kind(), FarKind::Unreachable);
        let gone = SftpError::of_line(DoorError::NoProgram { said: "sh: sftp-server: not found".to_owned() });
        assert!(gone.to_string().contains("offers no SFTP: sh: sftp-server: not found"), "{gone}");
    }

    #[test]
    fn what_a_server_answers_is_sorted_and_is_no_command_for_a_terminal() {
        let at = At { step: Step::Write, path: "tmp/x" };
        for (code, kind) in [
            (code::DENIED, FarKind::Denied),
            (code::FAILURE, FarKind::Other),
            (code::NO_SPACE, FarKind::NoSpace),
            (code::CONNECTION_LOST, FarKind::Unreachable),
            (99, FarKind::Other),
        ] {
            assert_eq!(SftpError::answer(at, code, b"x").kind(), kind, "{code}");
        }
        let text = SftpError::answer(at, code::FAILURE, b"\x1b[31mno").to_string();
        assert_eq!(text, "cannot write `tmp/x`: the server answers `\\u{1b}[31mno`");
        assert!(SftpError::answer(at, code::DENIED, b"").to_string().contains("Permission denied"));
        assert!(SftpError::answer(at, code::NO_SUCH_FILE, b"").is_missing());
    }
}
