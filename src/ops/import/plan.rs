//! Which bytes of which packs are fetched together. Pure.
//!
//! # Invariants
//! Every wanted blob is in exactly one read, and wholly. A read is no longer than [`READ_MAX`], unless one blob alone is.

use crate::id::ResticId;
use crate::restic::Place;

/// Most bytes of one request.
const READ_MAX: u32 = 8 << 20;
/// Bytes between two wanted blobs that are fetched rather than skipped.
const GAP_MAX: u32 = 128 << 10;

/// A blob, and the copy of it that is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) id: ResticId,
    pub(super) place: Place,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) pack: u32,
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) blobs: Vec<Want>,
}

/// The requests for these blobs, in the order of packs.
pub(super) fn reads(mut wants: Vec<Want>) -> Vec<Read> {
    wants.sort_unstable_by_key(|want| (want.place, want.id));
    wants.dedup();
    let mut reads: Vec<Read> = Vec::new();
    for want in wants {
        let Place { pack, offset, length, .. } = want.place;
        let end = offset.saturating_add(length);
        match reads.last_mut() {
            Some(read)
                if read.pack == pack
                    && offset <= read.end.saturating_add(GAP_MAX)
                    && end.max(read.end) - read.start <= READ_MAX =>
            {
                read.end = read.end.max(end);
                read.blobs.push(want);
            }
            _ => reads.push(Read { pack, start: offset, end, blobs: vec![want] }),
        }
    }
    reads
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_blob_is_in_one_read(
            places in proptest::collection::vec((0u32..3, 0u32..40_000_000, 32u32..9_000_000), 0..40)
        ) {
            let wants: Vec<Want> = places
                .iter()
                .enumerate()
                .map(|(at, (pack, offset, length))| Want {
                    id: ResticId::new([at as u8; 32]),
                    place: Place::stored(*pack, *offset, *length),
                })
                .collect();
            let reads = reads(wants.clone());
            let mut seen: Vec<Want> = Vec::new();
            for read in &reads {
                prop_assert!(read.blobs.len() == 1 || read.end - read.start <= READ_MAX);
                for want in &read.blobs {
                    prop_assert_eq!(want.place.pack, read.pack);
                    prop_assert!(want.place.offset >= read.start);
                    prop_assert!(want.place.offset + want.place.length <= read.end);
                    seen.push(*want);
                }
            }
            seen.sort_by_key(|want| want.id);
            prop_assert_eq!(seen, wants);
        }
    }

    #[test]
    fn neighbours_are_fetched_together_and_once() {
        let want = |id: u8, offset, length| Want {
            id: ResticId::new([id; 32]),
            place: Place::stored(0, offset, length),
        };
        let (a, b, far) = (want(1, 0, 100), want(2, 1000, 100), want(3, 1_000_000, 100));
        let reads = reads(vec![far, b, a, b]);
        assert_eq!(reads.len(), 2);
        assert_eq!((reads[0].start, reads[0].end, &reads[0].blobs), (0, 1100, &vec![a, b]));
        assert_eq!((reads[1].start, reads[1].end), (1_000_000, 1_000_100));
    }
}
