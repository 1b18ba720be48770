//! What can go wrong while writing a target.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::class::Class;

/// Why an entry could not be written. Paths start with the target directory as it was given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The name is not one plain component, so it could lead out of its directory.
    #[error("refused the unsafe name \"{}\" in {dir:?}", name.escape_ascii())]
    UnsafeName {
        /// The directory it was meant for.
        dir: PathBuf,
        /// The name, raw.
        name: Vec<u8>,
    },
    /// Something stands there already, and the options say to leave it.
    #[error("{path:?} exists already")]
    Exists {
        /// The entry.
        path: PathBuf,
    },
    /// A directory stands where an entry of another kind belongs; directories are never removed.
    #[error("{path:?} is a directory in the target, but not in the snapshot")]
    IsDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The flag immutable or append-only protects what is in the way.
    #[error("{path:?} is immutable or append-only (chattr -ia removes that)")]
    Immutable {
        /// The protected entry.
        path: PathBuf,
    },
    /// An entry that the restore had made or entered is another one now.
    #[error("{path:?} was replaced while the restore ran")]
    Changed {
        /// The entry.
        path: PathBuf,
    },
    /// Another file system is mounted where something was to be removed.
    #[error("{path:?} is another file system, which is left alone")]
    Mounted {
        /// The directory.
        path: PathBuf,
    },
    /// The content goes on after the announced length.
    #[error("content for {path:?} reaches beyond its {len} bytes")]
    BeyondEnd {
        /// The file.
        path: PathBuf,
        /// Its announced length in bytes.
        len: u64,
    },
    /// A device that would be written is in use.
    #[error("{path:?} is in use ({uses}): nothing was written")]
    DeviceInUse {
        /// The device.
        path: PathBuf,
        /// How.
        uses: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {path:?}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The entry.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl TargetError {
    pub(super) fn io(action: &'static str, path: PathBuf, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path, source: source.into() }
    }

    /// Whether this may mean that the whole file system went away or takes no writes any more; [`super::Target::is_gone`]
    /// tells.
    pub fn may_be_gone(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                Errno::from_io_error(source),
                Some(
                    Errno::ROFS | Errno::STALE | Errno::NODEV | Errno::NOTCONN | Errno::SHUTDOWN | Errno::IO
                )
            ),
            _ => false,
        }
    }

    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        match self {
            Self::UnsafeName { .. } | Self::BeyondEnd { .. } => Class::Damage,
            Self::Exists { .. } | Self::DeviceInUse { .. } => Class::Refused,
            Self::Io { source, .. } => match Errno::from_io_error(source) {
                Some(Errno::NOSPC | Errno::DQUOT) => Class::NoSpace,
                _ => Class::Failed,
            },
            Self::IsDirectory { .. }
            | Self::Immutable { .. }
            | Self::Mounted { .. }
            | Self::Changed { .. } => Class::Failed,
        }
    }
}

/// A property of an entry beside its content.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attribute {
    /// The owning user.
    User,
    /// The owning group.
    Group,
    /// The permission bits, or a set-id bit that was left out because the owner is not the right one.
    Mode,
    /// An extended attribute (access control lists and capabilities are some), by name.
    Xattr(Vec<u8>),
    /// The times.
    Times,
    /// The flags of `chattr`.
    Flags,
    /// All of them: the entry could not be reached again after it was made.
    All,
    /// The entry itself, a device that an ordinary user may not make.
    Device,
}

impl std::fmt::Display for Attribute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User => f.write_str("the owner"),
            Self::Group => f.write_str("the group"),
            Self::Mode => f.write_str("the mode"),
            Self::Xattr(name) => write!(f, "the extended attribute {}", name.escape_ascii()),
            Self::Times => f.write_str("the times"),
            Self::Flags => f.write_str("the flags"),
            Self::All => f.write_str("the attributes"),
            Self::Device => f.write_str("the device"),
        }
    }
}

/// Something about an entry that could not be set. The entry stands all the same.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {what}")]
pub struct MetadataFailure {
    /// Which property.
    pub what: Attribute,
    /// Why.
    #[source]
    pub error: io::Error,
}

impl MetadataFailure {
    pub(super) fn new(what: Attribute, error: impl Into<io::Error>) -> Self {
        Self { what, error: error.into() }
    }

    /// What kind of failure this is: the restore is done, but not in full.
    pub fn class(&self) -> Class {
        match Errno::from_io_error(&self.error) {
            Some(Errno::NOSPC | Errno::DQUOT) => Class::NoSpace,
            _ => Class::Partial,
        }
    }
}
