//! Files whose name stands for another file by now: programs that save a file by renaming a new one over it are many, and
//! what they do between the walk and the read must not leave the file out of the backup.

use crate::source::file::{FileReader, open_file};
use crate::source::walk::Entry;
use crate::source::{SourceError, Stat};

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
