//! Stores whose objects are files in directories, here or on another machine: what they have beside objects.

use std::path::Path;

use object_store::Result;

use super::STALE;
use super::door::DoorStore;
use super::local::LocalStore;
use super::sftp::SftpStore;

/// A store whose objects are files. Clones share it.
#[derive(Clone)]
pub(super) enum Files {
    /// Of this machine.
    Local(LocalStore),
    /// Of another one, which runs lifeboat.
    Door(DoorStore),
    /// Of another one, which lets us do things to files.
    Sftp(SftpStore),
}

impl Files {
    /// Makes the directory of the repository, durably, if it is not there.
    pub(super) async fn create_root(&self) -> Result<()> {
        match self {
            Self::Local(local) => local.create_root().await,
            Self::Door(door) => door.create_root().await,
            Self::Sftp(sftp) => sftp.create_root().await,
        }
    }

    /// Removes half-written files that are a week old at `now`, nanoseconds of 1970; says how many. Behind a door its owner
    /// does that.
    pub(super) async fn sweep(&self, now: i64) -> Result<u64> {
        let age = i64::try_from(STALE.as_nanos()).unwrap_or(i64::MAX);
        let before = now.saturating_sub(age);
        match self {
            Self::Local(local) => local.sweep(before).await,
            Self::Door(_) => Ok(0),
            Self::Sftp(sftp) => sftp.sweep(before / 1_000_000_000).await,
        }
    }

    /// Bytes that may still be stored, if that is known.
    pub(super) async fn free_space(&self) -> Option<u64> {
        match self {
            Self::Local(local) => {
                let local = local.clone();
                tokio::task::spawn_blocking(move || local.free_space()).await.ok()?
            }
            Self::Door(door) => door.free_space().await.ok()?,
            Self::Sftp(sftp) => sftp.free_space().await.ok()?,
        }
    }

    /// The directory, if it is one of this machine.
    pub(super) fn local_root(&self) -> Option<&Path> {
        match self {
            Self::Local(local) => Some(local.root()),
            Self::Door(_) | Self::Sftp(_) => None,
        }
    }
}
