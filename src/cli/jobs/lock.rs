//! One run at a time. A lock is one of the system, so it ends with whoever holds it, whatever ends them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use lifeboat::cancel::Cancel;
use lifeboat::clock::Clock;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::record::Place;

/// How often it is tried: a process that is just being started holds copies of all files for a moment.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(25);

/// The right to run, as long as this lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Whether a run is at work. What cannot be found out is no run; nothing is made.
    pub(crate) fn is_held(place: &Place) -> bool {
        let Ok(file) = File::open(place.path("lock")) else { return false };
        flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    }

    /// Takes it; `None` if another run has it.
    pub(crate) async fn take(place: &Place, clock: &dyn Clock, cancel: &Cancel) -> io::Result<Option<Self>> {
        place.make()?;
        let path = place.path("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        for _ in 0..TRIES {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Self { _file: file })),
                Err(Errno::WOULDBLOCK) => {}
                Err(error) => return Err(error.into()),
            }
            if cancel.wait(clock, PAUSE).await.is_err() {
                break;
            }
        }
        Ok(None)
    }
}
