//! Files without a name, for what is built piece by piece and then sent as a whole: they take room on the disk instead of
//! memory.
//!
//! # Crash
//! The file has no name when it gets its first byte, so the system takes it back when its process ends. A process that is
//! killed in the moment between making and unlinking leaves an empty part, which the next one removes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::directory::Directory;
use super::map::Backing;

/// A file without a name.
#[derive(Debug)]
pub struct ScratchFile(File);

impl ScratchFile {
    /// Makes one on the file system of this directory, and the directory if it is not there.
    pub fn create(directory: &Path) -> io::Result<Self> {
        Directory::open(directory)?.nameless().map(Self)
    }

    /// Writes all of `bytes` at this place.
    pub fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }

    /// Ends the writing, and gives the content as mapped memory.
    pub fn map(self) -> io::Result<ScratchMap> {
        Backing::map(&self.0).map(ScratchMap)
    }
}

/// The content of a [`ScratchFile`]. It is mapped, and counts as memory of the file system, not of this process.
#[derive(Debug)]
pub struct ScratchMap(Backing);

impl AsRef<[u8]> for ScratchMap {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_out_of_order_is_mapped_and_leaves_no_file() {
        let temp = tempfile::tempdir().unwrap();
        let place = temp.path().join("deep/place");
        let file = ScratchFile::create(&place).unwrap();
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
        file.write_at(b"tail", 4).unwrap();
        file.write_at(b"head", 0).unwrap();
        assert_eq!(file.map().unwrap().as_ref(), b"headtail");
        assert_eq!(ScratchFile::create(&place).unwrap().map().unwrap().as_ref(), b"");
        assert!(ScratchFile::create(Path::new("/proc/none")).is_err());
    }
}
