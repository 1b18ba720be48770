//! Files whose name stands for another file by now: programs that save a file by renaming a new one over it are many, and
//! what they do between the walk and the read must not leave the file out of the backup.

use std::path::PathBuf;

use super::options::Databases;
use super::sink::Sink;
use super::state::Fingerprint;
use super::worker::FileJob;
use crate::error::Error;
use crate::source::file::{FileReader, open_file};
use crate::source::sqlite::{Copying, in_use};
use crate::source::walk::Entry;
use crate::source::{SourceError, Stat};

/// How often a database is looked for that another takes the place of.
const TRIES: u32 = 3;

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

/// Opens a database as it is at one moment; if another took its place meanwhile, that one.
///
/// # Errors
/// Those that end the run, and of the entry otherwise.
pub(super) fn open_database(entry: &Entry, sink: &Sink) -> Result<Result<FileReader, SourceError>, Error> {
    let go_on = || !sink.stopped() && !sink.cancelled();
    let how = Copying { scratch: &sink.scratch, clock: &*sink.clock, go_on: &go_on };
    let copied = || open(entry)?.consistent(&how);
    let mut tries = 1;
    loop {
        match copied() {
            Err(SourceError::Replaced { .. }) if tries < TRIES => tries += 1,
            Err(error) if error.ends_run() => return Err(error.into()),
            done => return Ok(done),
        }
    }
}

/// Opens a file, or a copy of it if it is to be saved as a database.
pub(super) fn open_as(file: &FileJob, sink: &Sink) -> Result<Result<FileReader, SourceError>, Error> {
    match file.databases {
        Databases::Copy => open_database(&file.entry, sink),
        Databases::Ignore | Databases::Warn => Ok(open(&file.entry)),
    }
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
    let asked = file.databases == Databases::Warn && !file.image;
    asked.then(|| in_use(file.entry.dir(), file.entry.source_name(), head)).flatten()
}
