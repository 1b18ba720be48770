//! Block devices and disk images: saved as regular files, zeroes left out.
//!
//! # Invariants
//! What is named as an image is saved as one, or is an entry that failed: a device never becomes the node of a device
//! because something changed on the way. Cut points and holes depend on content and size alone.

use std::collections::BTreeSet;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::again;
use super::options::BackupOptions;
use super::worker::{SpanContent, Worker};
use crate::chunk::{Blanks, Part, blank_block};
use crate::error::Error;
use crate::event::{Counters, Event, Observer};
use crate::format::content::ChunkRow;
use crate::source::device::{DeviceUse, device_uses, file_uses, open_device};
use crate::source::file::FileReader;
use crate::source::walk::{Entry, Root};
use crate::source::{Kind, SourceError};

/// Bytes read at a time.
const READ: usize = 512 << 10;
/// Zeroes that turned out to be content.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// The images of a run.
#[derive(Debug, Default, Clone)]
pub(super) struct Images {
    /// Where they really are; the walk shows them under these paths.
    places: BTreeSet<PathBuf>,
}

impl Images {
    /// Looks at what is to be saved as an image. The roots are for the walk, under the paths that were given.
    ///
    /// # Errors
    /// [`SourceError::NotAnImage`] for a directory and the like. What is missing is left to the walk.
    pub(super) fn find(options: &BackupOptions, observer: &dyn Observer) -> Result<(Self, Vec<Root>), Error> {
        let mut images = Self::default();
        let mut roots = Vec::with_capacity(options.images.len());
        for path in &options.images {
            let place = path.canonicalize().unwrap_or_else(|_| path.clone());
            if let Ok(found) = std::fs::metadata(&place) {
                let kind = found.file_type();
                if !kind.is_block_device() && !kind.is_file() {
                    return Err(SourceError::NotAnImage { path: path.clone() }.into());
                }
                let device = kind.is_block_device();
                let uses = if device { device_uses(found.rdev()) } else { file_uses(&place) };
                warn(path, &uses, observer);
            }
            images.places.insert(place.clone());
            roots.push(Root { path: place, stored: Root::at(path.clone()).stored });
        }
        Ok((images, roots))
    }

    /// Whether an entry of the walk is to be saved as an image.
    pub(super) fn contain(&self, entry: &Entry) -> bool {
        let name = entry.source_name();
        let alike = |place: &PathBuf| place.file_name().is_some_and(|last| last.as_bytes() == name);
        // A path is made only for what may be one.
        self.places.iter().any(alike) && self.places.contains(&entry.path())
    }
}

fn warn(path: &Path, uses: &[DeviceUse], observer: &dyn Observer) {
    if let Some(written) =
        uses.iter().find(|found| !matches!(found, DeviceUse::Mounted { writable: false, .. }))
    {
        let message = format!(
            "{} is {written}: what changes while it is read makes an image of several moments; save a snapshot of the volume, or mount it read-only",
            path.display()
        );
        observer.observe(&Event::Warning { message: &message });
    }
}

/// Opens an image.
pub(super) fn open(entry: &Entry) -> Result<FileReader, SourceError> {
    match entry.stat().kind() {
        Kind::File => again::open(entry),
        Kind::BlockDevice => open_device(entry.dir(), entry.source_name(), entry.stat()),
        _ => Err(SourceError::NotAnImage { path: entry.path() }),
    }
}

impl Worker<'_> {
    /// Reads one span of an image. Blocks of zeroes are left out, and what lies between them is cut as ranges of a file are.
    pub(super) fn image_span(
        &mut self,
        file: &FileReader,
        range: Range<u64>,
    ) -> Result<Result<SpanContent, SourceError>, Error> {
        let (mut content, mut parts) = (SpanContent::default(), Vec::new());
        let mut blanks = Blanks::new(blank_block(file.stat().size), range.start);
        let mut bytes = vec![0; READ];
        let (mut offset, mut settled) = (range.start, range.start);
        self.buffer.clear();
        while offset < range.end {
            self.go_on()?;
            let room = bytes.len().min(usize::try_from(range.end - offset).unwrap_or(usize::MAX));
            let read = match file.read_at(&mut bytes[..room], offset) {
                // An image file that shrank.
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => return Ok(Err(error)),
            };
            Counters::add(&self.sink.observer.counters().bytes_read, read as u64);
            offset += read as u64;
            blanks.push(&bytes[..read], &mut parts);
            for part in parts.drain(..) {
                settled = self.image_part((part, &bytes), settled, &mut content)?;
            }
        }
        blanks.finish(&mut parts);
        for part in parts.drain(..) {
            settled = self.image_part((part, &bytes), settled, &mut content)?;
        }
        self.cut_buffered(true, &mut content.rows)?;
        file.done_with(&range);
        Ok(Ok(content))
    }

    /// Takes a part that begins at `at` of the image; returns where it ends.
    fn image_part(
        &mut self,
        (part, bytes): (Part, &[u8]),
        at: u64,
        content: &mut SpanContent,
    ) -> Result<u64, Error> {
        match part {
            Part::Data(range) => {
                let len = range.len() as u64;
                self.buffer.extend_from_slice(bytes.get(range).unwrap_or_default());
                self.cut_buffered(false, &mut content.rows)?;
                Ok(at + len)
            }
            Part::Zeroes(len) => {
                let mut left = len;
                while left > 0 {
                    let some = left.min(ZEROES.len() as u64);
                    self.buffer.extend_from_slice(&ZEROES[..some as usize]);
                    self.cut_buffered(false, &mut content.rows)?;
                    left -= some;
                }
                Ok(at + len)
            }
            Part::Blank(len) => {
                self.cut_buffered(true, &mut content.rows)?;
                content.blank(at..at + len);
                Ok(at + len)
            }
        }
    }

    /// Stores what can be cut from the buffer: everything if it is the end of a range.
    fn cut_buffered(&mut self, last: bool, rows: &mut Vec<ChunkRow>) -> Result<(), Error> {
        let most = self.image_cutter.params().max() as usize;
        // Not for each piece: what is left is moved to the front.
        if !last && self.buffer.len() < READ + most {
            return Ok(());
        }
        let mut start = 0;
        while self.buffer.len() - start >= most || (last && self.buffer.len() > start) {
            let len = self.image_cutter.cut(&self.buffer[start..]);
            let id = self.segment.store(&self.buffer[start..start + len])?;
            rows.push(ChunkRow { id, len: len as u32 });
            start += len;
        }
        self.buffer.drain(..start);
        Ok(())
    }
}
