//! Writing zip in one pass: APPNOTE 6.3, with zip64, UTF-8 names and the extra fields of Info-ZIP for times and owners.
//!
//! # Invariants
//! A file that was held back whole has its sizes and sum in front. A larger one has them behind it, and is always of the method
//! "deflate", whose end a reader can see; what cannot be compressed is in blocks that are stored. The list at the end, which
//! readers go by, names nothing that is not whole.
//!
//! # Memory
//! The list at the end is kept compressed until then, some twenty bytes an entry.

mod packer;
mod records;

use std::io::{Read, Write};

pub(super) use self::packer::{Packed, Packer};
use self::records::{Member, Sizes, end_of_list};
use super::entry::{Entry, Piece, Problem, Refusal};
use super::sink::Sink;
use crate::error::Error;
use crate::format::node::NodeKind;
use crate::ops::restore::layout::Layout;

/// Zeroes that are compressed once and used again and again.
const ZEROES: usize = 1 << 20;
/// A last, empty block of deflate.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// The file under way.
struct Open {
    member: Member,
    /// Where the next byte of the file belongs.
    at: u64,
    size: u64,
    sum: flate2::Crc,
    /// Compressed bytes.
    stored: u64,
}

pub(super) struct Zip {
    packer: Packer,
    zeroes: Option<Packed>,
    open: Option<Open>,
    /// What the list at the end will say, compressed.
    list: zstd::stream::write::Encoder<'static, Vec<u8>>,
    list_len: u64,
    count: u64,
}

impl Zip {
    pub(super) fn new() -> Result<Self, Error> {
        let list = zstd::stream::write::Encoder::new(Vec::new(), 3).map_err(Error::Output)?;
        Ok(Self { packer: Packer::default(), zeroes: None, open: None, list, list_len: 0, count: 0 })
    }

    /// Writes an entry that is not a regular file.
    pub(super) async fn entry(&mut self, sink: &mut Sink, entry: &Entry) -> Result<(), Refusal> {
        let content = match entry.node.kind {
            NodeKind::Directory if entry.name().is_empty() => return Ok(()),
            NodeKind::Directory => Vec::new(),
            NodeKind::Symlink => entry.node.target.clone(),
            _ => return Err(Refusal::Entry(Problem::NotInZip)),
        };
        let mut sum = flate2::Crc::new();
        sum.update(&content);
        let mut member = Member::new(entry, sink.at())?;
        member.sizes = Sizes { sum: sum.sum(), stored: content.len() as u64, size: content.len() as u64 };
        sink.put(&member.local()).await?;
        sink.give(content).await?;
        self.list(&member)?;
        Ok(())
    }

    /// Writes a regular file without holes, all of which is there.
    pub(super) async fn whole(
        &mut self,
        sink: &mut Sink,
        entry: &Entry,
        pieces: Vec<Piece>,
    ) -> Result<(), Refusal> {
        let mut sum = flate2::Crc::new();
        let (mut size, mut packed_size) = (0, LAST_BLOCK.len() as u64);
        for piece in &pieces {
            size += piece.raw.len() as u64;
            if let Some(packed) = &piece.packed {
                sum.combine(&packed.sum);
                packed_size += packed.bytes.len() as u64;
            }
        }
        let mut member = Member::new(entry, sink.at())?;
        member.deflated = packed_size < size;
        member.sizes = Sizes { sum: sum.sum(), stored: size.min(packed_size), size };
        sink.put(&member.local()).await?;
        for Piece { raw, packed, .. } in pieces {
            match packed.filter(|_| member.deflated) {
                Some(packed) => sink.give(packed.bytes).await?,
                None => sink.give(raw).await?,
            }
        }
        if member.deflated {
            sink.put(&LAST_BLOCK).await?;
        }
        self.list(&member)?;
        Ok(())
    }

    /// Begins a regular file.
    pub(super) async fn begin(&mut self, sink: &mut Sink, entry: &Entry) -> Result<(), Refusal> {
        // A hole beyond the end was refused before.
        let size = Layout::new(entry.node.size, &entry.node.holes).map_or(0, |_| entry.node.size);
        let mut member = Member::new(entry, sink.at())?;
        member.deflated = true;
        member.streamed = Some(size);
        sink.put(&member.local()).await?;
        self.open = Some(Open { member, at: 0, size, sum: flate2::Crc::new(), stored: 0 });
        Ok(())
    }

    /// Writes bytes of the file, which come in order.
    pub(super) async fn piece(&mut self, sink: &mut Sink, piece: Piece) -> Result<(), Error> {
        self.fill(sink, piece.place).await?;
        let Some(open) = &mut self.open else { return Ok(()) };
        let packed = piece.packed.unwrap_or_else(|| self.packer.pack(&piece.raw));
        open.add(&packed);
        sink.give(packed.bytes).await
    }

    /// Writes a hole as zeroes, up to a place of the file.
    async fn fill(&mut self, sink: &mut Sink, to: u64) -> Result<(), Error> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let mut left = to.saturating_sub(open.at);
        while left > 0 {
            let few;
            let packed = if left < ZEROES as u64 {
                few = self.packer.pack(&vec![0; left as usize]);
                &few
            } else {
                self.zeroes.get_or_insert_with(|| self.packer.pack(&vec![0; ZEROES]))
            };
            left -= packed.len;
            open.add(packed);
            sink.put(&packed.bytes).await?;
        }
        Ok(())
    }

    /// Ends the file, all of whose content was written.
    pub(super) async fn end(&mut self, sink: &mut Sink) -> Result<(), Error> {
        let size = self.open.as_ref().map_or(0, |open| open.size);
        self.fill(sink, size).await?;
        let Some(mut open) = self.open.take() else { return Ok(()) };
        sink.put(&LAST_BLOCK).await?;
        let stored = open.stored + LAST_BLOCK.len() as u64;
        open.member.sizes = Sizes { sum: open.sum.sum(), stored, size: open.at };
        sink.put(&open.member.descriptor()).await?;
        self.list(&open.member)
    }

    /// Ends a file whose content is lost. The list will not name it, and who reads without the list finds a wrong sum.
    pub(super) async fn spoil(&mut self, sink: &mut Sink) -> Result<(), Error> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        sink.put(&LAST_BLOCK).await?;
        let stored = open.stored + LAST_BLOCK.len() as u64;
        open.member.sizes = Sizes { sum: !open.sum.sum(), stored, size: open.at };
        sink.put(&open.member.descriptor()).await
    }

    fn list(&mut self, member: &Member) -> Result<(), Error> {
        let record = member.listed();
        self.list_len += record.len() as u64;
        self.count += 1;
        self.list.write_all(&record).map_err(Error::Output)
    }

    /// Writes the list, and the end.
    pub(super) async fn finish(self, sink: &mut Sink) -> Result<(), Error> {
        let begin = sink.at();
        let list = self.list.finish().map_err(Error::Output)?;
        let mut records = zstd::stream::read::Decoder::new(&list[..]).map_err(Error::Output)?;
        let mut piece = vec![0; 64 << 10];
        loop {
            let len = records.read(&mut piece).map_err(Error::Output)?;
            if len == 0 {
                break;
            }
            sink.put(&piece[..len]).await?;
        }
        sink.put(&end_of_list(self.count, begin, self.list_len)).await
    }
}

impl Open {
    fn add(&mut self, packed: &Packed) {
        self.sum.combine(&packed.sum);
        self.at += packed.len;
        self.stored += packed.bytes.len() as u64;
    }
}

/// What of an entry an archive does not hold. Labels of the system's own policy are not missed.
pub(super) fn lacks(entry: &Entry) -> Option<Problem> {
    if std::str::from_utf8(entry.name()).is_err() {
        return Some(Problem::ForeignName);
    }
    let missed = entry.node.xattrs.iter().any(|(name, _)| name != b"security.selinux");
    missed.then_some(Problem::Attributes)
}
