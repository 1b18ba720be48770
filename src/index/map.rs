//! The bytes of a level: a mapped file, or memory when there is no cache directory.
#![expect(unsafe_code, reason = "mapping a file is unsafe by nature; it is confined to this file")]

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::path::PathBuf;

/// Bytes that do not change while they are held.
pub(super) enum Backing {
    /// Held in memory.
    Memory(Vec<u8>),
    /// A mapped file, and where its name stands if it has one that lasts.
    Map(memmap2::Mmap, Option<PathBuf>),
}

impl Backing {
    /// Maps a whole file for reading.
    pub(super) fn map(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(Self::Memory(Vec::new()));
        }
        // SAFETY: the map is only sound while nobody changes or shortens the file. Level files are written under a
        // temporary name, complete before they are mapped, never opened for writing again, and removed only by unlink,
        // which leaves maps intact. They lie in a directory of mode 0700 as files of mode 0600, so only the same user
        // could break this. Contents are checked against sums, so no meaning rests on the map's stability. Scratch files
        // have no name when they are written and are mapped by the only one who could write them, as its last act.
        let map = unsafe { memmap2::Mmap::map(file) }?;
        Ok(Self::Map(map, None))
    }

    /// The same bytes, of which it is known that their file stands here.
    pub(super) fn at(self, path: PathBuf) -> Self {
        match self {
            Self::Map(map, _) => Self::Map(map, Some(path)),
            memory @ Self::Memory(_) => memory,
        }
    }

    /// Removes the file of bytes that turned out to be damaged, so that nobody finds it again. Failing means that whoever comes
    /// next meets the same damage.
    pub(super) fn discard(&self) {
        if let Self::Map(_, Some(path)) = self {
            let _ = fs::remove_file(path);
        }
    }

    /// Whether the bytes count as this process's own memory.
    pub(super) fn is_memory(&self) -> bool {
        matches!(self, Self::Memory(_))
    }
}

impl Deref for Backing {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Map(map, _) => map,
        }
    }
}

impl fmt::Debug for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_memory() { "memory" } else { "map" };
        write!(f, "Backing({kind}, {} bytes)", self.len())
    }
}
