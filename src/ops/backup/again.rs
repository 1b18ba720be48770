//! Files whose name stands for another file by now: programs that save a file by renaming a new one over it are many, and
//! what they do between the walk and the read must not leave the file out of the backup.

use std::path::PathBuf;

use super::options::Databases;
use super::sink::Sink;
use super::state::Fingerprint;
use super::worker::FileJob;
use crate::source::file::{FileReader, open_file};
use crate::source::sqlite::{Copying, is_database, is_in_use};
use crate::source::walk::Entry;
use crate::source::{SourceError, Stat};
use crate::sqlite::{HEADER_LEN, Header, begins_beside, database_of};

/// What stands under the name of a file that was replaced, if that is a file too; otherwise `error` as it is.
pub(super) fn look(entry: &Entry, error: SourceError) -> Result<Stat, SourceError> {
    if !matches!(error, SourceError::Replaced { .. }) {
        return Err(error);
    }
    let now = entry.look_again()?;
    if now.is_file() { Ok(now) } else { Err(error) }
}

/// Opens a file, or the one that took its place since the walk.
pub(super) fn open(entry: &Entry) -> Result<FileReader, SourceError> {
    entry.open().or_else(|error| {
        let now = look(entry, error)?;
        open_file(entry.dir(), entry.source_name(), &now)
    })
}

/// Opens a database as it is at one moment.
pub(super) fn open_database(entry: &Entry, sink: &Sink) -> Result<FileReader, SourceError> {
    let go_on = || !sink.stopped() && !sink.cancelled();
    open(entry)?.consistent(&Copying { scratch: &sink.scratch, clock: &*sink.clock, go_on: &go_on })
}

/// The fingerprint of what is open.
pub(super) fn print(reader: &FileReader) -> Fingerprint {
    // Nothing tells whether a device changed, or the log beside a database: the next run reads it again.
    if reader.is_device() || reader.is_copy() {
        Fingerprint::default()
    } else {
        Fingerprint::of(reader.stat())
    }
}

/// The database in use that a file is or belongs to, which was just read as any file; `head` is how it begins.
pub(super) fn live(file: &FileJob, head: &[u8]) -> Option<PathBuf> {
    let (dir, name) = (file.entry.dir(), file.entry.source_name());
    if file.databases != Databases::Warn || file.image {
        return None;
    }
    if Header::parse(head).is_some() {
        return is_in_use(dir, name).then(|| file.entry.path());
    }
    let database = database_of(name).filter(|_| begins_beside(head))?;
    is_database(dir, database).then(|| dir.path_of(database))
}

/// The same of a file that is open.
pub(super) fn live_at(file: &FileJob, reader: &FileReader) -> Option<PathBuf> {
    let mut head = [0; HEADER_LEN];
    let read = reader.read_at(&mut head, 0).unwrap_or(0);
    live(file, &head[..read])
}
