//! The door over a network: TLS, one HTTP request that is upgraded to frames, and a token that says who comes.
//!
//! `tokens` is the file of who may come in; `http` the request; `tls` the certificate; `keeper` who is let in and who is here;
//! `run` accepts, watches files and ends.
//!
//! # Invariants
//! Nothing is done for whoever shows no token of the file. What a client may do was decided by the line of its token; when the line
//! goes or changes, its connections end. Of those who have shown none, so many are heard at once, each for so long and for so many
//! bytes; of those who have, so many of each token, each with the windows of the door.
//!
//! # Crash
//! As of the door: whole objects, or files in `tmp/`.
//!
//! # Must not
//! Log a token, or anything a client says as it is.

mod http;
mod keeper;
mod run;
mod tls;
mod tokens;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;

use super::door::{ServeError, Tally};
use crate::class::Class;
use crate::store::{StoreEnv, StoreError};

pub use self::tls::TlsFiles;
pub use self::tokens::{Grant, GrantError, NewTokenError, TokenHash, Tokens};
pub use crate::store::door::Fingerprint;

/// Where clients come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host and a port.
    Tcp(String),
    /// A socket of this machine.
    Unix(PathBuf),
}

/// What is opened, and where.
#[derive(Debug, Clone)]
pub struct ListenOptions {
    /// The directory that nothing leads out of, as an absolute path.
    pub top: PathBuf,
    /// Where clients come to.
    pub address: Address,
    /// Certificate and key; without them only this machine may come, and something else sees to encryption.
    pub tls: Option<TlsFiles>,
    /// The file of tokens.
    pub tokens: PathBuf,
    /// Most connections at once.
    pub most: usize,
    /// Most connections at once with one token.
    pub most_of_token: usize,
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// An address.
    Tcp(SocketAddr),
    /// A program of this machine.
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.pad("the socket"),
        }
    }
}

/// What happens, for a log.
#[derive(Debug)]
#[non_exhaustive]
pub enum Happening<'a> {
    /// Clients may come.
    Listening {
        /// To where.
        address: String,
        /// Of the certificate.
        fingerprint: Option<Fingerprint>,
        /// How many tokens there are.
        tokens: usize,
    },
    /// Somebody was let in.
    Entered {
        /// The name of the token.
        name: &'a str,
        /// From where.
        peer: Peer,
    },
    /// Somebody who was let in is gone.
    Left {
        /// The name of the token.
        name: &'a str,
        /// From where.
        peer: Peer,
        /// What was done, as counts.
        tally: String,
        /// What ended it, if that was not the client.
        error: Option<&'a ServeError>,
    },
    /// Somebody was not let in.
    Refused {
        /// From where.
        peer: Peer,
        /// Why.
        why: &'a str,
        /// How many were refused since the start, this one included. Where there are many, not each is told of.
        count: u64,
    },
    /// Files were read again.
    Reloaded {
        /// How many tokens there are.
        tokens: usize,
        /// How many connections ended because their line is gone.
        ended: usize,
    },
    /// Files were read again and are of no use: what was read before counts.
    NotReloaded {
        /// What is wrong.
        error: &'a ListenError,
    },
    /// A connection could not be taken.
    NotAccepted {
        /// What the system said.
        error: &'a io::Error,
    },
    /// Nobody is let in any more, and what was begun is finished.
    Draining {
        /// How many connections there are.
        connections: usize,
    },
}

impl fmt::Display for Happening<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening { address, fingerprint: Some(fingerprint), tokens } => {
                write!(f, "listening at {address}, certificate {fingerprint}, tokens: {tokens}")
            }
            Self::Listening { address, fingerprint: None, tokens } => {
                write!(f, "listening at {address} without encryption, tokens: {tokens}")
            }
            Self::Entered { name, peer } => write!(f, "{name} has come from {peer}"),
            Self::Left { name, peer, tally, error } => {
                write!(f, "{name} from {peer} is gone: {tally}")?;
                error.map_or(Ok(()), |error| write!(f, "; ended because {error}"))
            }
            Self::Refused { peer, why, count } => {
                write!(f, "refused {peer}: {why}; refused since the start: {count}")
            }
            Self::Reloaded { tokens, ended } => {
                write!(f, "read the files again, tokens: {tokens}, connections ended: {ended}")
            }
            Self::NotReloaded { error } => {
                write!(
                    f,
                    "the files have changed and cannot be used, so what was read before counts: {error}"
                )?;
                let source = std::error::Error::source(error);
                source.map_or(Ok(()), |source| write!(f, ": {source}"))
            }
            Self::NotAccepted { error } => write!(f, "cannot take a connection: {error}"),
            Self::Draining { connections } => write!(f, "ending, connections: {connections}"),
        }
    }
}

/// Told what happens; must not wait.
pub type Log = Arc<dyn Fn(&Happening<'_>) + Send + Sync>;

/// Why nobody can come.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A certificate or a key is none, or they do not belong together.
    #[error("{} cannot be used: {what}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A line of the file of tokens is wrong.
    #[error("line {line} of {}", path.display())]
    Tokens {
        /// The file.
        path: PathBuf,
        /// From 1 on.
        line: usize,
        /// What is wrong.
        #[source]
        source: GrantError,
    },
    /// The new token cannot be.
    #[error("no token can be made")]
    NewToken(#[from] NewTokenError),
    /// Tokens and names would travel in the clear.
    #[error(
        "without a certificate only this machine may be listened to, and {address} is not this machine alone"
    )]
    Exposed {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be used.
    #[error("cannot listen at {address}")]
    Bind {
        /// The address.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The directory is not there.
    #[error("the directory {} cannot be opened", path.display())]
    Top {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The store cannot be used at all.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ListenError {
    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        match self {
            Self::File { .. }
            | Self::Pem { .. }
            | Self::Tokens { .. }
            | Self::NewToken(NewTokenError::Grant(_))
            | Self::Exposed { .. } => Class::Usage,
            Self::Write { .. } | Self::Bind { .. } | Self::NewToken(NewTokenError::Random(_)) => {
                Class::Failed
            }
            Self::Top { .. } => Class::NoRepository,
            Self::Store(error) => error.class(),
        }
    }

    /// Whether the same files may do the next time: the system had no descriptor or no memory.
    fn may_pass(&self) -> bool {
        let Self::File { source, .. } = self else { return false };
        let lasts = matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied);
        source.raw_os_error().is_some() && !lasts
    }
}

/// Lets clients in until `env.cancel` is raised; then finishes what was begun. A notification of `again` makes it read the
/// files again, which it also does when they change.
///
/// # Errors
/// Whatever makes it impossible to begin. What goes wrong with one client is logged.
pub async fn listen(
    options: &ListenOptions,
    again: Arc<Notify>,
    log: Log,
    env: &StoreEnv,
) -> Result<(), ListenError> {
    run::run(options, again, log, env).await
}

/// Adds a line to a file of tokens, which is made, for its owner alone, if it is not there. Durable when it returns. A line is added
/// and nothing replaced, so that the file stays whose it is.
pub fn add_token(path: &Path, grant: &Grant) -> Result<(), ListenError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(ListenError::File { path: path.to_owned(), source }),
    };
    let mut tokens = parse(path, &text)?;
    tokens.add(grant.clone()).map_err(NewTokenError::Grant)?;
    let begun = !text.is_empty() && !text.ends_with('\n');
    text = format!("{}{grant}\n", if begun { "\n" } else { "" });
    let failed = |source| ListenError::Write { path: path.to_owned(), source };
    let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    let mut file = file.map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

fn parse(path: &Path, text: &str) -> Result<Tokens, ListenError> {
    let failed = |(line, source)| ListenError::Tokens { path: path.to_owned(), line, source };
    Tokens::parse(text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_only_could_not_be_read_now_are_tried_again() {
        let of = |source| ListenError::File { path: PathBuf::from("tokens"), source };
        assert!(of(io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error())).may_pass());
        assert!(!of(io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error())).may_pass());
        assert!(!of(io::ErrorKind::InvalidData.into()).may_pass());
        assert!(!ListenError::from(NewTokenError::Grant(GrantError::Words)).may_pass());
    }
}
