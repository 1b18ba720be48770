//! The mount itself: made, and taken away.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fuser::{Config, MountOption, SessionACL, SessionUnmounter};
use rustix::mount::{UnmountFlags, unmount};
use tokio::sync::oneshot;

use super::door::Door;
use crate::error::Error;
use crate::repo::RepoError;

/// Where the kernel is asked to mount.
const DEVICE: &str = "/dev/fuse";
/// Threads that take questions: one may wait for room on the bridge.
const THREADS: usize = 2;
/// How long the kernel may take to let go of what is not mounted any more.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who may use the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Who made it, who may read everything.
    #[default]
    Own,
    /// Everybody, as far as modes and access control lists of the entries let them.
    Checked,
    /// Everybody, and everything.
    Open,
}

/// A mount that stands.
pub(super) struct Session {
    unmounter: SessionUnmounter,
    place: PathBuf,
    /// Sent when it is gone, whoever took it away.
    pub(super) ended: oneshot::Receiver<io::Result<()>>,
}

/// How a mount was taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// It is gone.
    Clean,
    /// Nobody finds it any more, but somebody was using it.
    Detached,
}

/// Mounts.
pub(super) async fn start(door: Door, place: &Path, access: Access) -> Result<Session, Error> {
    let dir = place.to_owned();
    let started = tokio::task::spawn_blocking(move || start_now(door, &dir, access)).await;
    started.map_err(|_| RepoError::Task)?
}

fn start_now(door: Door, place: &Path, access: Access) -> Result<Session, Error> {
    if !Path::new(DEVICE).exists() {
        return Err(Error::NoFuse { missing: DEVICE });
    }
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    config.acl = if access == Access::Own { SessionACL::Owner } else { SessionACL::All };
    config.mount_options = vec![
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
        MountOption::FSName("lifeboat".to_owned()),
    ];
    if access == Access::Checked {
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    let mut session = fuser::Session::new(door, place, &config).map_err(|error| refused(place, error))?;
    let unmounter = session.unmount_callable();
    let (sender, ended) = oneshot::channel();
    let serve = move || {
        // Nobody waits for that any more when the program ends first.
        let _ = sender.send(session.run());
    };
    let thread = std::thread::Builder::new().name("mount".to_owned()).spawn(serve);
    thread.map_err(|source| Error::MountRefused { path: place.to_owned(), source })?;
    Ok(Session { unmounter, place: place.to_owned(), ended })
}

/// Why the system did not mount.
fn refused(place: &Path, error: io::Error) -> Error {
    let text = error.to_string();
    match error.kind() {
        // The directory is there: what was not found is the program that mounts for ordinary users.
        io::ErrorKind::NotFound => Error::NoFuse { missing: "fusermount3" },
        _ if text.contains("user_allow_other") => Error::OthersRefused,
        _ => {
            let source = io::Error::new(error.kind(), text.trim().to_owned());
            Error::MountRefused { path: place.to_owned(), source }
        }
    }
}

impl Session {
    /// Takes the mount away. If it is in use, it is made that nobody new finds it.
    pub(super) async fn end(self) -> Result<Gone, Error> {
        let Self { mut unmounter, place, ended } = self;
        let path = place.clone();
        let taken = tokio::task::spawn_blocking(move || match unmounter.unmount() {
            Ok(()) => Ok(Gone::Clean),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                let detached = unmount(&path, UnmountFlags::DETACH);
                detached.map(|()| Gone::Detached).map_err(io::Error::from)
            }
            Err(error) => Err(error),
        });
        let taken = taken.await.map_err(|_| RepoError::Task)?;
        let gone = taken.map_err(|source| Error::MountRefused { path: place, source })?;
        if gone == Gone::Clean {
            // In another namespace somebody may still have it: that is not waited for.
            let _ = tokio::time::timeout(PATIENCE, ended).await;
        }
        Ok(gone)
    }
}
