//! An append-only door to a repository in a directory: for a backup server without a cloud.
//!
//! One session serves one client over one stream of bytes: in a process of its own, as `sshd` starts it for each connection, or as
//! one of many that `listen` lets in. What travels is
//! `docs/serve.md`; the directory is used as a local store uses it.
//!
//! # Invariants
//! What a client may do was decided by whoever opened the door, and nothing that comes through it makes that more. Nothing
//! outside the directory is opened, nothing is replaced, and no other file is made than objects of a repository.
//!
//! # Crash
//! As of a local store: whole objects, or files in `tmp/`, which a later connection removes when they are a week old.
//!
//! # Must not
//! Believe a length, a name, a number or an order that a client sends.

mod ends;
mod quota;
mod request;
mod role;
mod session;
mod tally;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use self::ends::Ends;
use crate::class::Class;
use crate::store::door::wire::WireError;
use crate::store::{Key, StoreEnv, StoreError};

pub(in crate::serve) use self::quota::Quota;
pub(in crate::serve) use self::session::{Guest, Patience};
pub(in crate::serve) use self::tally::Tally;
pub use crate::store::door::wire::Role;

/// What is behind the door, and for whom.
#[derive(Debug, Clone)]
pub struct DoorOptions {
    /// The directory that nothing leads out of, as an absolute path.
    pub top: PathBuf,
    /// The directory of the repository in it; without it the repository is `top`.
    pub prefix: Option<Key>,
    /// What the client may do.
    pub role: Role,
    /// Most bytes that may lie below `top`, whoever put them there.
    pub quota: Option<u64>,
    /// What `/~/` in the address of a client stands for.
    pub home: PathBuf,
}

/// Why a connection did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The client broke the rules of the protocol, or is no client.
    #[error("the client cannot be understood")]
    Wire(#[from] WireError),
    /// The client wants another directory.
    #[error("this door leads to another directory than `{}`", path.escape_default())]
    Elsewhere {
        /// The path in its address.
        path: String,
    },
    /// The client has said nothing for a long time.
    #[error("the client has been silent for too long")]
    Silent,
    /// Somebody asked for the end.
    #[error("the server was stopped")]
    Stopped,
    /// The store cannot be used at all.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No thread is to be had.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl ServeError {
    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        match self {
            Self::Wire(_) | Self::Silent | Self::Thread(_) => Class::Failed,
            Self::Elsewhere { .. } => Class::Denied,
            Self::Stopped => Class::Cancelled,
            Self::Store(error) => error.class(),
        }
    }
}

impl DoorOptions {
    /// Whether the path in a client's address, if there is one, is that of the repository.
    fn is_meant(&self, path: &str) -> bool {
        let root =
            self.prefix.as_ref().map_or_else(|| self.top.clone(), |prefix| self.top.join(prefix.as_str()));
        let wanted = match path.strip_prefix("/~/") {
            Some(rest) => self.home.join(rest),
            None => PathBuf::from(path),
        };
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        path.is_empty() || wanted == root || (wanted.is_absolute() && real(&wanted) == real(&root))
    }
}

/// Serves one client. Ends when it goes; what it had not finished leaves nothing behind.
///
/// # Errors
/// [`ServeError::Wire`] for what is no client, or one that breaks the rules; it was told so. What goes wrong with one request
/// is told to the client and is no error here.
pub async fn door(
    input: impl Read + Send + 'static,
    output: impl Write + Send + 'static,
    options: &DoorOptions,
    env: &StoreEnv,
) -> Result<(), ServeError> {
    let ends = Ends::of_threads(input, output)?;
    let tally = Arc::new(Tally::default());
    let guest = Guest { options: options.clone(), quota: None, patience: session::LONG, tally };
    session::run(ends, &guest, env).await
}

/// The same over a stream that does not block: one of many in this process.
pub(in crate::serve) async fn attend(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    guest: &Guest,
    env: &StoreEnv,
) -> Result<(), ServeError> {
    session::run(Ends::of_tasks(stream), guest, env).await
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
