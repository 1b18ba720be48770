//! The local side of a job: its lock, its last state and its journal, in one directory.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::Error;
use crate::id::RepositoryId;
use crate::repo::Env;

/// How often a lock is tried.
const TRIES: u32 = 20;
/// How long is waited after each try.
const PAUSE: Duration = Duration::from_millis(25);

/// Tries for half a second: a process that is just being started holds a copy of every open file until it runs its own
/// program, and so keeps a lock a moment longer than its owner.
async fn try_lock(file: &File, env: &Env) -> Result<(), Errno> {
    for _ in 1..TRIES {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            // Whoever is to stop learns it soon enough from what follows.
            Err(Errno::WOULDBLOCK) if env.cancel.wait(&*env.clock, PAUSE).await.is_ok() => {}
            other => return other,
        }
    }
    flock(file, FlockOperation::NonBlockingLockExclusive)
}

/// The directory of a job, locked as long as this lives.
#[derive(Debug)]
pub(super) struct JobPlace {
    dir: PathBuf,
    _lock: File,
}

impl JobPlace {
    /// Locks the directory of this job on this machine.
    ///
    /// # Errors
    /// [`Error::Busy`] if another run of the job holds it.
    pub(super) async fn lock(env: &Env, repository: RepositoryId, job: &[u8]) -> Result<Self, Error> {
        let hash = blake3::hash(job).to_hex();
        let dir = env.places.state.join(repository.to_string()).join("jobs").join(&hash.as_str()[..32]);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|source| Error::Local { path: dir.clone(), source })?;
        let path = dir.join("lock");
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(|source| Error::Local { path: path.clone(), source })?;
        match try_lock(&file, env).await {
            Ok(()) => Ok(Self { dir, _lock: file }),
            Err(Errno::WOULDBLOCK) => Err(Error::Busy { lock: path }),
            Err(errno) => Err(Error::Local { path, source: errno.into() }),
        }
    }

    /// The last run's state.
    pub(super) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// What a run knew whose snapshot could not be confirmed at once.
    pub(super) fn aside(&self) -> PathBuf {
        self.dir.join("state-unconfirmed")
    }

    /// The journal.
    pub(super) fn journal(&self) -> PathBuf {
        self.dir.join("journal")
    }
}
