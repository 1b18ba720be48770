//! A level's bytes in pieces of 64 KiB, each with its BLAKE3 sum, checked at the first touch.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::bits::AtomicBits;
use super::map::Backing;

/// Length of a piece; the last one is shorter.
pub(super) const PIECE_LEN: usize = 64 << 10;

/// Length of a piece's sum: half a BLAKE3 is far beyond chance.
pub(super) const SUM_LEN: usize = 16;

fn sum(piece: &[u8]) -> [u8; SUM_LEN] {
    let mut out = [0; SUM_LEN];
    out.copy_from_slice(&blake3::hash(piece).as_bytes()[..SUM_LEN]);
    out
}

/// A piece that does not match its sum, or a range outside the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PieceDamaged;

/// Checked access to a level's data.
#[derive(Debug)]
pub(super) struct Pieces {
    backing: Backing,
    data_len: usize,
    checked: AtomicBits,
    damaged: AtomicBool,
}

impl Pieces {
    /// The first `data_len` bytes of `backing` are data, and their sums follow directly. The caller has checked the
    /// sums themselves.
    pub(super) fn new(backing: Backing, data_len: usize) -> Self {
        let checked = AtomicBits::new(data_len.div_ceil(PIECE_LEN));
        Self { backing, data_len, checked, damaged: AtomicBool::new(false) }
    }

    /// How many bytes the sums of `data_len` bytes take; none if that is beyond memory.
    pub(super) fn sums_len(data_len: usize) -> Option<usize> {
        data_len.div_ceil(PIECE_LEN).checked_mul(SUM_LEN)
    }

    /// `len` bytes of data at `at`, checked.
    #[inline]
    pub(super) fn bytes(&self, at: u64, len: usize) -> Result<&[u8], PieceDamaged> {
        let start = usize::try_from(at).map_err(|_| PieceDamaged)?;
        let end = start.checked_add(len).filter(|end| *end <= self.data_len).ok_or_else(|| self.damage())?;
        let last = end.saturating_sub(1).max(start) / PIECE_LEN;
        for piece in start / PIECE_LEN..=last {
            if !self.checked.get(piece) {
                self.check(piece)?;
            }
        }
        Ok(&self.backing[start..end])
    }

    /// `len` bytes of data at `at`, which [`Self::bytes`] has given before; nothing if they are not data.
    #[inline]
    pub(super) fn checked(&self, at: u64, len: usize) -> &[u8] {
        let start = at as usize;
        start.checked_add(len).and_then(|end| self.backing.get(start..end)).unwrap_or(&[])
    }

    /// An array of data at `at`, checked.
    #[inline]
    pub(super) fn array<const N: usize>(&self, at: u64) -> Result<[u8; N], PieceDamaged> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(at, N)?);
        Ok(out)
    }

    #[cold]
    fn check(&self, piece: usize) -> Result<(), PieceDamaged> {
        let start = piece * PIECE_LEN;
        if start >= self.data_len {
            return Ok(()); // an empty range at the very end
        }
        let end = self.data_len.min(start + PIECE_LEN);
        let sum_at = self.data_len + piece * SUM_LEN;
        let matches = self.backing.get(start..end).is_some_and(|bytes| {
            self.backing.get(sum_at..sum_at + SUM_LEN).is_some_and(|stored| stored == sum(bytes))
        });
        if !matches {
            return Err(self.damage());
        }
        self.checked.set(piece);
        Ok(())
    }

    /// Remembers that the level is of no use, and sees to it that no later run opens it: whoever met the damage may hold no
    /// more than a view of it.
    #[cold]
    pub(super) fn damage(&self) -> PieceDamaged {
        if !self.damaged.swap(true, Ordering::Relaxed) {
            self.backing.discard();
        }
        PieceDamaged
    }

    /// Whether damage was ever seen.
    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Whether the bytes count as this process's own memory.
    pub(super) fn is_memory(&self) -> bool {
        self.backing.is_memory()
    }
}

/// Writes data in pieces and gathers their sums.
pub(super) struct PieceWriter<'a> {
    out: &'a mut dyn Write,
    piece: Vec<u8>,
    written: u64,
    sums: Vec<u8>,
}

impl<'a> PieceWriter<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, piece: Vec::with_capacity(PIECE_LEN), written: 0, sums: Vec::new() }
    }

    /// How many bytes of data there are so far.
    pub(super) fn position(&self) -> u64 {
        self.written + self.piece.len() as u64
    }

    /// Appends data.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = PIECE_LEN - self.piece.len();
            let (head, tail) = bytes.split_at(room.min(bytes.len()));
            self.piece.extend_from_slice(head);
            bytes = tail;
            if self.piece.len() == PIECE_LEN {
                self.end_piece()?;
            }
        }
        Ok(())
    }

    fn end_piece(&mut self) -> io::Result<()> {
        self.sums.extend_from_slice(&sum(&self.piece));
        self.out.write_all(&self.piece)?;
        self.written += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }

    /// Ends the data, writes the sums after it, and gives the length of the data and the sums' own hash.
    pub(super) fn finish(mut self) -> io::Result<(u64, [u8; 32])> {
        if !self.piece.is_empty() {
            self.end_piece()?;
        }
        self.out.write_all(&self.sums)?;
        Ok((self.written, *blake3::hash(&self.sums).as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = PieceWriter::new(&mut out);
        data.chunks(1000).for_each(|part| writer.write(part).unwrap());
        assert_eq!(writer.position(), data.len() as u64);
        let (len, sums) = writer.finish().unwrap();
        assert_eq!(len, data.len() as u64);
        assert_eq!(sums, *blake3::hash(&out[data.len()..]).as_bytes());
        out
    }

    #[test]
    fn only_the_damaged_piece_is_refused() {
        let data: Vec<u8> = (0..3 * PIECE_LEN as u32 + 5).map(|n| (n % 251) as u8).collect();
        let mut bytes = level(&data);
        bytes[PIECE_LEN + 9] ^= 1;
        let pieces = Pieces::new(Backing::Memory(bytes), data.len());
        let whole = PIECE_LEN as u64;
        assert_eq!(pieces.bytes(0, PIECE_LEN), Ok(&data[..PIECE_LEN]));
        assert_eq!(pieces.bytes(2 * whole, PIECE_LEN + 5), Ok(&data[2 * PIECE_LEN..]));
        assert_eq!(pieces.bytes(data.len() as u64, 0), Ok(&[][..]));
        assert!(!pieces.is_damaged());
        assert_eq!(pieces.bytes(whole - 1, 2), Err(PieceDamaged));
        assert!(pieces.is_damaged());
    }

    #[test]
    fn ranges_outside_the_data_are_refused() {
        let bytes = level(&[7; 100]);
        for (at, len) in [(0, 101), (100, 1), (u64::MAX, 1), (1, usize::MAX)] {
            let pieces = Pieces::new(Backing::Memory(bytes.clone()), 100);
            assert_eq!(pieces.bytes(at, len), Err(PieceDamaged), "{at} {len}");
        }
    }
}
