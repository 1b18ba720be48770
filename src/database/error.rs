//! What can go wrong with a server or its files.

use std::io;
use std::path::PathBuf;

use crate::class::Class;

/// Why a server, or a file of it, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PgError {
    /// Nobody answers there.
    #[error("cannot connect to PostgreSQL at {place}")]
    Connect {
        /// The socket, or host and port.
        place: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("PostgreSQL at {place} does not answer")]
    Silent {
        /// The socket, or host and port.
        place: String,
    },
    /// The connection broke off.
    #[error("the connection to PostgreSQL was lost")]
    Lost(#[source] io::Error),
    /// TLS is asked for.
    #[error("TLS to PostgreSQL is asked for (sslmode={mode}), and this program cannot do that")]
    NoTls {
        /// The mode that was asked for.
        mode: String,
    },
    /// The server wants a password, and there is none.
    #[error("PostgreSQL at {place} wants a password for {user:?}, and none was found")]
    NoPassword {
        /// The socket, or host and port.
        place: String,
        /// For whom.
        user: String,
    },
    /// The server wants to see the password itself, over a network that anyone may listen to.
    #[error("PostgreSQL at {place} asks for the password in clear text, over a network: it was not sent")]
    ClearText {
        /// The socket, or host and port.
        place: String,
    },
    /// The server wants a way of logging in that this program does not know.
    #[error("PostgreSQL at {place} wants to be logged in to by {method}, which this program cannot do")]
    Method {
        /// The socket, or host and port.
        place: String,
        /// The way.
        method: String,
    },
    /// The server does not know the password, though it let us in.
    #[error("PostgreSQL at {place} could not show that it knows the password: it may be another server")]
    NotProven {
        /// The socket, or host and port.
        place: String,
    },
    /// The server refused.
    #[error("PostgreSQL says: {message} ({code})")]
    Server {
        /// The SQLSTATE.
        code: String,
        /// What it said; control characters escaped.
        message: String,
    },
    /// The server sent what no server sends.
    #[error("PostgreSQL sent what is not of its protocol: {what}")]
    Protocol {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The server answered something else than what was asked.
    #[error("PostgreSQL gave no usable {what}")]
    Answer {
        /// What was asked.
        what: &'static str,
    },
    /// A name or a statement holds a zero byte.
    #[error("{what} holds a zero byte")]
    ZeroByte {
        /// What.
        what: &'static str,
    },
    /// A file of the server cannot be read or is not what it should be.
    #[error("{} {fault}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, after its name.
        fault: &'static str,
    },
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Others may read a file with passwords.
    #[error("{} can be read by others than its owner: it was not used", path.display())]
    OpenPassfile {
        /// The file.
        path: PathBuf,
    },
    /// The run was asked to stop.
    #[error("stopped while PostgreSQL was at work")]
    Cancelled,
}

impl PgError {
    /// What kind of failure it is.
    pub fn class(&self) -> Class {
        match self {
            Self::NoTls { .. } | Self::ZeroByte { .. } => Class::Usage,
            Self::Cancelled => Class::Cancelled,
            _ => Class::Failed,
        }
    }

    /// The SQLSTATE, if the server refused.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Server { code, .. } => Some(code),
            _ => None,
        }
    }
}
