//! Which copies of chunks are needed: one bit a record of a frozen view.
//!
//! # Invariants
//! Of each chunk that was marked exactly one copy is live: one that a writer may depend on if there is any, else one that
//! is there. Memory is one bit a record and sixteen bytes a pack, whatever is marked.

use super::IndexError;
use super::bits::Bits;
use super::view::{PackNumber, View};
use crate::format::envelope::ChunkKind;
use crate::id::ChunkId;

/// What marking a chunk brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It was not marked before.
    New,
    /// It was marked before.
    Known,
    /// No copy of this kind and length is there.
    Missing,
}

/// How much of a pack is live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Chunks whose live copy is in the pack.
    pub chunks: u64,
    /// Their bytes before compression.
    pub bytes: u64,
}

/// The live copies of a view.
#[derive(Debug)]
pub struct LiveSet {
    view: View,
    bits: Bits,
    usage: Vec<Usage>,
    marked: u64,
}

impl LiveSet {
    /// Nothing is live yet.
    pub fn new(view: View) -> Self {
        let slots = usize::try_from(view.slots()).unwrap_or(usize::MAX);
        let usage = vec![Usage::default(); view.pack_count() as usize];
        Self { view, bits: Bits::new(slots, false), usage, marked: 0 }
    }

    /// The view that the marks are in.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// How many different chunks were marked.
    pub fn marked(&self) -> u64 {
        self.marked
    }

    /// Makes a chunk of this kind and length live.
    pub fn mark(&mut self, kind: ChunkKind, id: &ChunkId, len: u32) -> Result<Mark, IndexError> {
        let mut best: Option<(u64, PackNumber, bool)> = None;
        for copy in self.view.copies(id) {
            let copy = copy?;
            if copy.kind != kind || copy.length != len {
                continue;
            }
            if self.bits.get(copy.slot as usize) {
                return Ok(Mark::Known);
            }
            let usable = self.view.is_usable(copy.pack);
            if best.is_none_or(|(.., found)| usable && !found) {
                best = Some((copy.slot, copy.pack, usable));
            }
        }
        let Some((slot, pack, _)) = best else { return Ok(Mark::Missing) };
        self.bits.set(slot as usize, true);
        self.marked += 1;
        if let Some(usage) = self.usage.get_mut(pack.0 as usize) {
            usage.chunks += 1;
            usage.bytes += u64::from(len);
        }
        Ok(Mark::New)
    }

    /// Whether the chunk was marked, whichever copy is the live one.
    pub fn is_live(&self, id: &ChunkId) -> Result<bool, IndexError> {
        for copy in self.view.copies(id) {
            if self.bits.get(copy?.slot as usize) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the mark of a chunk away.
    pub fn unmark(&mut self, id: &ChunkId) -> Result<(), IndexError> {
        for copy in self.view.copies(id) {
            self.bits.set(copy?.slot as usize, false);
        }
        Ok(())
    }

    /// How much of a pack is live.
    pub fn usage(&self, pack: PackNumber) -> Usage {
        self.usage.get(pack.0 as usize).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::testing::{chunk_id, sample_view};

    #[test]
    fn one_copy_is_live_and_a_usable_one_if_there_is_one() {
        // Chunk 0 is in both packs; the others are in the first alone.
        let mut view = sample_view(&[&[0, 1, 2], &[0]]);
        let packs: Vec<_> = view.packs().map(|pack| pack.unwrap().1.id).collect();
        for usable in packs {
            view.set_usable(|pack| *pack == usable).unwrap();
            let mut live = LiveSet::new(view.clone());
            let kind = ChunkKind::Data;
            assert_eq!(live.mark(kind, &chunk_id(0), 1).unwrap(), Mark::New);
            assert_eq!(live.mark(kind, &chunk_id(0), 1).unwrap(), Mark::Known);
            assert_eq!(live.mark(ChunkKind::Tree, &chunk_id(1), 2).unwrap(), Mark::Missing, "other kind");
            assert_eq!(live.mark(kind, &chunk_id(1), 3).unwrap(), Mark::Missing, "other length");
            assert_eq!(live.mark(kind, &chunk_id(9), 10).unwrap(), Mark::Missing);
            let number = view.pack_by_id(&usable).unwrap().unwrap();
            assert_eq!(live.usage(number), Usage { chunks: 1, bytes: 1 });
            assert!(live.is_live(&chunk_id(0)).unwrap() && !live.is_live(&chunk_id(1)).unwrap());
            // A copy that nobody may depend on is live when there is no other.
            assert_eq!(live.mark(kind, &chunk_id(2), 3).unwrap(), Mark::New);
            assert_eq!(live.marked(), 2);
        }
    }
}
