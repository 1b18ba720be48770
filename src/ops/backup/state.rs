//! The last run's state: what was saved and what the file system said of it, in walk order, one sequential file a job.
//!
//! ```text
//! preamble 32 | salt 32 | blocks: length u32, sealed | trailer: length u32, sealed | trailer's number u32, offset u64
//! ```
//!
//! # Invariants
//! Every block is sealed with the local-state key, so a damaged or foreign file is never believed.
//!
//! # Crash
//! Written under a temporary name and renamed after the snapshot is confirmed. Losing it costs reading, never data.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::node::file_time;
use crate::crypto::{ObjectSealer, SecretKey};
use crate::error::Error;
use crate::format::FormatError;
use crate::format::content::ChunkRow;
use crate::format::envelope::{ChunkKind, ObjectKind, PREAMBLE_LEN, Preamble};
use crate::format::node::{FileTime, Totals};
use crate::format::wire::Reader;
use crate::id::{PackId, RepositoryId};
use crate::random::{Random, random_array};
use crate::source::Stat;

const BLOCK: usize = 256 << 10;
const BLOCK_MAX: usize = 1 << 30;
const TAIL_LEN: usize = 12;
/// The number of blocks is not known when the first is sealed; the trailer says it.
const BLOCKS: u32 = u32::MAX;

/// Most rows that are remembered of one file, because a block holds at least a whole entry. A longer list is taken over
/// by its first page as long as every pack of the last run is there; otherwise the file is read again.
pub(super) const ROWS_MAX: usize = 1 << 18;

const ENTER: u8 = 1;
const ENTRY: u8 = 2;
const LEAVE: u8 = 3;

/// What the file system said of an entry. A file is taken as unchanged if all of this is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fingerprint {
    pub size: u64,
    pub ino: u64,
    pub mtime: FileTime,
    pub ctime: FileTime,
}

impl Fingerprint {
    pub(super) fn of(stat: &Stat) -> Self {
        Self { size: stat.size, ino: stat.ino, mtime: file_time(stat.mtime), ctime: file_time(stat.ctime) }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.ino.to_le_bytes());
        for time in [self.mtime, self.ctime] {
            out.extend_from_slice(&time.seconds.to_le_bytes());
            out.extend_from_slice(&time.nanos.to_le_bytes());
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let (size, ino) = (reader.u64()?, reader.u64()?);
        let mut time = || -> Result<FileTime, FormatError> {
            Ok(FileTime { seconds: reader.u64()? as i64, nanos: reader.u32()? })
        };
        Ok(Self { size, ino, mtime: time()?, ctime: time()? })
    }
}

/// One record of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// A directory, before its entries: its node without the tree.
    Enter { print: Fingerprint, node: Vec<u8> },
    /// Any other entry: its node, and the rows of its content if the node has them in pages.
    Entry { print: Fingerprint, node: Vec<u8>, rows: Vec<ChunkRow> },
    /// The end of a directory.
    Leave,
}

/// What is known of the run as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Trailer {
    /// Totals of the snapshot.
    pub totals: Totals,
    /// Packs the snapshot depends on.
    pub packs: Vec<PackId>,
}

/// Key, repository and place of a state file.
#[derive(Debug, Clone, Copy)]
pub(super) struct StateFile<'a> {
    pub path: &'a Path,
    /// Where it is read, if not there: what a run that met a collector knew.
    pub aside: Option<&'a Path>,
    pub key: &'a SecretKey,
    pub repository: RepositoryId,
}

impl StateFile<'_> {
    fn sealer(&self, salt: &[u8; 32]) -> ObjectSealer {
        ObjectSealer::new(self.key, salt, self.repository, ObjectKind::LocalState)
    }

    fn temporary(&self) -> PathBuf {
        self.path.with_extension("new")
    }
}

/// Writes the state of the run that goes on.
pub(super) struct StateWriter {
    file: BufWriter<File>,
    sealer: ObjectSealer,
    block: Vec<u8>,
    number: u32,
    offset: u64,
    temporary: PathBuf,
    path: PathBuf,
}

impl StateWriter {
    /// Begins a new file beside the old one.
    pub(super) fn create(place: &StateFile<'_>, random: &dyn Random) -> Result<Self, Error> {
        let temporary = place.temporary();
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
        let file = file.map_err(|source| Error::Local { path: temporary.clone(), source })?;
        let salt: [u8; 32] = random_array(random).map_err(crate::repo::RepoError::from)?;
        let mut writer = Self {
            file: BufWriter::with_capacity(BLOCK + 4096, file),
            sealer: place.sealer(&salt),
            block: Vec::with_capacity(BLOCK + 4096),
            number: 0,
            offset: 0,
            temporary,
            path: place.path.to_owned(),
        };
        let preamble = Preamble::new(ObjectKind::LocalState, ChunkKind::Data, place.repository).encode();
        writer.write(&preamble)?;
        writer.write(&salt)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.offset += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|source| Error::Local { path: self.temporary.clone(), source })
    }

    fn flush_block(&mut self) -> Result<(), Error> {
        let mut block = std::mem::take(&mut self.block);
        self.sealer.seal_block(self.number, BLOCKS, &mut block)?;
        self.number += 1;
        self.write(&(block.len() as u32).to_le_bytes())?;
        self.write(&block)?;
        block.clear();
        self.block = block;
        Ok(())
    }

    fn put(&mut self, tag: u8, print: &Fingerprint, node: &[u8]) -> Result<(), Error> {
        if self.block.len() >= BLOCK {
            self.flush_block()?;
        }
        self.block.push(tag);
        print.encode(&mut self.block);
        self.block.extend_from_slice(&(node.len() as u32).to_le_bytes());
        self.block.extend_from_slice(node);
        Ok(())
    }

    /// Appends a directory's beginning.
    pub(super) fn enter(&mut self, print: &Fingerprint, node: &[u8]) -> Result<(), Error> {
        self.put(ENTER, print, node)
    }

    /// Appends an entry; more than [`ROWS_MAX`] rows are left out.
    pub(super) fn entry(&mut self, print: &Fingerprint, node: &[u8], rows: &[ChunkRow]) -> Result<(), Error> {
        self.put(ENTRY, print, node)?;
        let rows = ChunkRow::encode_all(if rows.len() > ROWS_MAX { &[] } else { rows });
        self.block.extend_from_slice(&(rows.len() as u32).to_le_bytes());
        self.block.extend_from_slice(&rows);
        Ok(())
    }

    /// Appends a directory's end.
    pub(super) fn leave(&mut self) {
        self.block.push(LEAVE);
    }

    /// Completes the file under its temporary name.
    pub(super) fn complete(mut self, trailer: &Trailer) -> Result<CompleteState, Error> {
        if !self.block.is_empty() {
            self.flush_block()?;
        }
        let (number, offset) = (self.number, self.offset);
        for total in [trailer.totals.entries, trailer.totals.files, trailer.totals.bytes] {
            self.block.extend_from_slice(&total.to_le_bytes());
        }
        for pack in &trailer.packs {
            self.block.extend_from_slice(pack.as_bytes());
        }
        self.flush_block()?;
        self.write(&number.to_le_bytes())?;
        self.write(&offset.to_le_bytes())?;
        self.file.flush().map_err(|source| Error::Local { path: self.temporary.clone(), source })?;
        Ok(CompleteState { temporary: self.temporary, path: self.path })
    }
}

/// A complete file that does not count yet.
#[derive(Debug)]
pub(super) struct CompleteState {
    temporary: PathBuf,
    path: PathBuf,
}

impl CompleteState {
    /// Puts it where only the next try of this run looks: its snapshot is not confirmed.
    pub(super) fn put_aside(self, path: &Path) -> Result<(), Error> {
        std::fs::rename(&self.temporary, path)
            .map_err(|source| Error::Local { path: path.to_owned(), source })
    }

    /// Makes it the last run's state; called once the snapshot is confirmed.
    pub(super) fn install(self) -> Result<(), Error> {
        std::fs::rename(&self.temporary, &self.path)
            .map_err(|source| Error::Local { path: self.path.clone(), source })
    }
}

/// Reads the last run's state in order.
pub(super) struct StateReader {
    file: File,
    sealer: ObjectSealer,
    block: Vec<u8>,
    at: usize,
    next: u32,
    blocks: u32,
    trailer: Trailer,
}

impl StateReader {
    /// Opens a state file; `None` if there is none, or none that can be believed.
    pub(super) fn open(place: &StateFile<'_>) -> Option<Self> {
        let mut file = File::open(place.aside.unwrap_or(place.path)).ok()?;
        let mut head = [0; PREAMBLE_LEN + 32];
        file.read_exact(&mut head).ok()?;
        Preamble::expect(&head, ObjectKind::LocalState, &place.repository).ok()?;
        let salt = head[PREAMBLE_LEN..].try_into().ok()?;
        file.seek(SeekFrom::End(-(TAIL_LEN as i64))).ok()?;
        let mut tail = [0; TAIL_LEN];
        file.read_exact(&mut tail).ok()?;
        let mut reader = Reader::new(&tail);
        let (number, offset) = (reader.u32().ok()?, reader.u64().ok()?);
        file.seek(SeekFrom::Start(offset)).ok()?;
        let mut state = Self {
            file,
            sealer: place.sealer(&salt),
            block: Vec::new(),
            at: 0,
            next: number,
            blocks: number + 1,
            trailer: Trailer::default(),
        };
        state.read_block().ok()?;
        state.trailer = decode_trailer(&state.block).ok()?;
        state.file.seek(SeekFrom::Start(head.len() as u64)).ok()?;
        (state.next, state.blocks) = (0, number);
        state.block.clear();
        Some(state)
    }

    /// What is known of the run as a whole.
    pub(super) fn trailer(&self) -> &Trailer {
        &self.trailer
    }

    fn read_block(&mut self) -> Result<(), FormatError> {
        let mut len = [0; 4];
        self.file.read_exact(&mut len).map_err(|_| FormatError::Truncated)?;
        let len = u32::from_le_bytes(len) as usize;
        if len > BLOCK_MAX {
            return Err(FormatError::Truncated);
        }
        self.block.resize(len, 0);
        self.file.read_exact(&mut self.block).map_err(|_| FormatError::Truncated)?;
        let opened = self.sealer.open_block(self.next, BLOCKS, &mut self.block);
        opened.map_err(|_| FormatError::Value { section: "local state", what: "sealed block" })?;
        self.next += 1;
        self.at = 0;
        Ok(())
    }

    /// The next record; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Record>, FormatError> {
        if self.at == self.block.len() {
            if self.next == self.blocks {
                return Ok(None);
            }
            self.read_block()?;
        }
        let mut reader = Reader::new(&self.block[self.at..]);
        let before = reader.remaining();
        let record = decode_record(&mut reader)?;
        self.at += before - reader.remaining();
        Ok(Some(record))
    }
}

fn decode_record(reader: &mut Reader<'_>) -> Result<Record, FormatError> {
    let tag = reader.u8()?;
    if tag == LEAVE {
        return Ok(Record::Leave);
    }
    let print = Fingerprint::decode(reader)?;
    let len = reader.u32()? as usize;
    let node = reader.bytes(len)?.to_vec();
    match tag {
        ENTER => Ok(Record::Enter { print, node }),
        ENTRY => {
            let len = reader.u32()? as usize;
            let rows = ChunkRow::decode_all(reader.bytes(len)?)?;
            Ok(Record::Entry { print, node, rows })
        }
        _ => Err(FormatError::Value { section: "local state", what: "record" }),
    }
}

fn decode_trailer(bytes: &[u8]) -> Result<Trailer, FormatError> {
    let mut reader = Reader::new(bytes);
    let totals = Totals { entries: reader.u64()?, files: reader.u64()?, bytes: reader.u64()? };
    let mut packs = Vec::with_capacity(reader.remaining() / PackId::LEN);
    while reader.remaining() > 0 {
        packs.push(PackId::new(reader.array()?));
    }
    Ok(Trailer { totals, packs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ChunkId;
    use crate::random::SystemRandom;

    fn sample(count: usize) -> Vec<Record> {
        let print = Fingerprint { size: 5, ino: 9, ..Fingerprint::default() };
        let row = ChunkRow { id: ChunkId::new([4; 32]), len: 77 };
        let mut records = vec![Record::Enter { print, node: b"dir".to_vec() }];
        for n in 0..count {
            records.push(Record::Entry { print, node: vec![b'n'; n % 300], rows: vec![row; n % 3] });
        }
        records.push(Record::Leave);
        records
    }

    fn write(place: &StateFile<'_>, records: &[Record], trailer: &Trailer) {
        let mut writer = StateWriter::create(place, &SystemRandom).unwrap();
        for record in records {
            match record {
                Record::Enter { print, node } => writer.enter(print, node).unwrap(),
                Record::Entry { print, node, rows } => writer.entry(print, node, rows).unwrap(),
                Record::Leave => writer.leave(),
            }
        }
        writer.complete(trailer).unwrap().install().unwrap();
    }

    #[test]
    fn what_was_written_is_read_and_damage_is_never_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let key = SecretKey::from_bytes([8; 32]);
        let place = StateFile { path: &path, aside: None, key: &key, repository: RepositoryId::new([2; 16]) };
        assert!(StateReader::open(&place).is_none());
        let totals = Totals { entries: 5000, files: 4999, bytes: 1 };
        let trailer = Trailer { totals, packs: vec![PackId::new([6; 32]); 3] };
        let records = sample(5000);
        write(&place, &records, &trailer);
        let mut reader = StateReader::open(&place).unwrap();
        assert_eq!(reader.trailer(), &trailer);
        let mut found = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            found.push(record);
        }
        assert_eq!(found, records);

        let good = std::fs::read(&path).unwrap();
        for at in [0, 40, 70, good.len() / 2, good.len() - 20, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            let believed = StateReader::open(&place).is_some_and(|mut reader| {
                loop {
                    match reader.next() {
                        Ok(Some(_)) => {}
                        Ok(None) => break true,
                        Err(_) => break false,
                    }
                }
            });
            assert!(!believed, "a flipped bit at {at} was believed");
        }
        // A file of so many chunks would make a block that nobody reads back.
        let print = Fingerprint::default();
        let row = ChunkRow { id: ChunkId::new([4; 32]), len: 77 };
        let long = |count| Record::Entry { print, node: b"long".to_vec(), rows: vec![row; count] };
        write(&place, &[long(ROWS_MAX), long(ROWS_MAX + 1), Record::Leave], &trailer);
        let mut reader = StateReader::open(&place).unwrap();
        let mut next = || reader.next().unwrap();
        assert!(next() == Some(long(ROWS_MAX)) && next() == Some(long(0)), "the node alone is remembered");
        assert!(next() == Some(Record::Leave) && next().is_none());

        let other = StateFile { repository: RepositoryId::new([3; 16]), ..place };
        std::fs::write(&path, &good).unwrap();
        assert!(StateReader::open(&other).is_none());
    }
}
