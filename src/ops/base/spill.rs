//! A place for what is too long for memory.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};

use super::copy::PIECE;

/// A file without a name, for what is too long for memory.
pub(super) struct Spill(File);

impl Spill {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => Ok(Self(fd.into())),
            // A file system without files that have no name.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
                let path = dir.join(format!(".lifeboat-{}", std::process::id()));
                let file = File::options().read(true).write(true).create_new(true).open(&path)?;
                std::fs::remove_file(&path)?;
                Ok(Self(file))
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Goes back to the beginning.
    pub(super) fn rewind(&mut self) -> io::Result<()> {
        self.0.rewind()
    }

    /// The next piece; `None` at the end.
    pub(super) fn read(&mut self) -> io::Result<Option<Bytes>> {
        let mut piece = Vec::new();
        Read::by_ref(&mut self.0).take(PIECE as u64).read_to_end(&mut piece)?;
        Ok((!piece.is_empty()).then(|| Bytes::from(piece)))
    }
}

impl Write for Spill {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_comes_back_in_pieces() {
        let place = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(place.path()).unwrap();
        let written: Vec<u8> = (0..PIECE + 1000).map(|at| at as u8).collect();
        spill.write_all(&written).unwrap();
        spill.rewind().unwrap();
        let mut read = Vec::new();
        while let Some(piece) = spill.read().unwrap() {
            assert!(piece.len() <= PIECE);
            read.extend_from_slice(&piece);
        }
        assert!(read == written);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "it has no name");
    }
}
