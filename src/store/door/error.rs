//! Why a door does not open, or does not give what was asked.

use std::io;

use super::wire::{Code, VERSIONS};

/// Most characters of what another program said that are repeated.
const SAID: usize = 600;

/// A failure of the connection, or an answer that says no.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum DoorError {
    /// It ended, or could not be made for now.
    #[error("the connection is lost{}", colon(said))]
    Lost { said: String },
    /// Nothing comes and nothing goes.
    #[error("the other side has not answered for {seconds} s")]
    Silent { seconds: u64 },
    /// The other machine lets us in not at all, or is not the one it was.
    #[error("the connection was refused{}", colon(said))]
    Refused { said: String },
    /// The program that makes connections is not there.
    #[error("cannot run `{command}`: {error}")]
    NoCommand { command: String, error: String },
    /// There is no lifeboat on the other machine.
    #[error("the other machine does not find the program lifeboat{}", colon(said))]
    NoProgram { said: String },
    /// The program there ended before it spoke.
    #[error("the program on the other machine ended{}", colon(said))]
    Ended { said: String },
    /// Something else than a door spoke.
    #[error("the other machine printed `{text}` before lifeboat could speak: its login must print nothing")]
    Noise { text: String },
    /// Too old or too new.
    #[error(
        "the two programs have no version of the protocol in common: this one speaks {} to {}, the other one {} to {}",
        VERSIONS.0, VERSIONS.1, theirs.0, theirs.1
    )]
    Version { theirs: (u16, u16) },
    /// The other side broke the rules.
    #[error("the other side broke the protocol: {what}")]
    Broken { what: String },
    /// The certificate is not one that is trusted here.
    #[error("the server's certificate is not trusted: {why}; its fingerprint is {fingerprint}")]
    Certificate { why: String, fingerprint: String },
    /// Something else than a door answers there.
    #[error("no server of lifeboat answers there{}", colon(said))]
    NoDoor { said: String },
    /// The token cannot be read.
    #[error("cannot get the token: {what}")]
    Token { what: String },
    /// The answer says no.
    #[error("{message}")]
    Answer { code: Code, message: String },
}

/// What the sorting of errors must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum FarKind {
    Unreachable,
    Denied,
    NoSpace,
    NoRoot,
    Other,
}

impl DoorError {
    pub(in crate::store) fn kind(&self) -> FarKind {
        match self {
            Self::Lost { .. } | Self::Silent { .. } => FarKind::Unreachable,
            Self::Refused { .. }
            | Self::Certificate { .. }
            | Self::Token { .. }
            | Self::Answer { code: Code::Denied, .. } => FarKind::Denied,
            Self::Answer { code: Code::NoSpace, .. } => FarKind::NoSpace,
            Self::Answer { code: Code::NoRoot, .. } => FarKind::NoRoot,
            _ => FarKind::Other,
        }
    }

    pub(super) fn lost(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => Self::Lost { said: String::new() },
            _ => Self::Lost { said: error.to_string() },
        }
    }

    /// As the trait's error.
    pub(super) fn into_store(self, key: &str) -> object_store::Error {
        let path = key.to_owned();
        match &self {
            Self::Answer { code: Code::NotFound | Code::NoRoot, .. } => {
                object_store::Error::NotFound { path, source: Box::new(self) }
            }
            Self::Answer { code: Code::Exists, .. } => {
                object_store::Error::AlreadyExists { path, source: Box::new(self) }
            }
            _ => object_store::Error::Generic { store: "door", source: Box::new(self) },
        }
    }
}

fn colon(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// What another program said, in one line that no terminal takes for a command.
pub(in crate::store) fn said(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let clean = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let line: String = lines.join("; ").chars().map(clean).collect();
    // What was said last says why.
    let count = line.chars().count();
    if count > SAID { format!("… {}", line.chars().skip(count - SAID).collect::<String>()) } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_is_one_line_without_control_characters() {
        assert_eq!(said(b"  a\r\n\x1b[31mred\x07\n\n"), "a; \\u{1b}[31mred\\u{7}");
        assert_eq!(said(b"\xff"), "\u{fffd}");
        let long = said("x".repeat(5000).as_bytes());
        assert!(long.starts_with("… x") && long.chars().count() == SAID + 2);
    }
}
