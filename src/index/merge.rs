//! Writing a level: a streaming merge of any number of inputs, in memory that depends on packs and not on chunks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::io::{self, Write};

use xorf::{BinaryFuse8, DmaSerializable};

use super::IndexError;
use super::cursor::{Input, Position};
use super::directory::NAME_LEN;
use super::header::{DESCRIPTOR_LEN, Header, Shard};
use super::level::{LevelPack, PACK_SOURCE_AT};
use super::pieces::PieceWriter;
use super::search::{Prefix, key_of};
use crate::format::index::RECORD_LEN;
use crate::format::segment::SegmentEntry;
use crate::id::PackId;

/// Most distinct keys of a shard. Small enough that its filter is built within 3 MiB and checked in 10 µs at the first
/// touch; large enough that it takes 9.5 bits a key. Tests cut more finely.
pub(super) const SHARD_KEYS: usize = if cfg!(test) { 24 } else { 1 << 16 };

/// Bit of a segment's flags: writers treat its chunks as unknown.
pub(super) const FADING: u8 = 1;

/// Where a segment's flags stand in its stored form.
const FLAGS_AT: usize = 13;

/// Stands for the new number of a pack that does not count any more.
const DROPPED: u32 = u32::MAX;

/// Why a level could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum MergeError {
    #[error("a level cannot be written")]
    Write(#[from] io::Error),
    #[error(transparent)]
    Read(#[from] IndexError),
}

/// Writes the level that holds what counts in all inputs, and gives the name that its content has.
pub(super) fn write_level(inputs: &[Input<'_>], out: &mut dyn Write) -> Result<String, MergeError> {
    let mut pieces = PieceWriter::new(&mut *out);
    let plan = Plan::new(inputs)?;
    let mut header = plan.write_tables(inputs, &mut pieces)?;
    header.shards = write_records(inputs, &plan, &mut pieces)?;
    (header.data_len, header.sums) = pieces.finish()?;
    let (end, hash) = header.encode();
    out.write_all(&end)?;
    Ok(hash.to_hex()[..NAME_LEN].to_owned())
}

/// The next pack of an input: its name, new source, input, and number there.
type PackHead = Reverse<(PackId, u32, usize, u32)>;

/// What is where in the new level.
struct Plan {
    header: Header,
    /// For each new source its input and its number there.
    sources: Vec<(usize, usize)>,
    /// For each new pack its input and its number there.
    packs: Vec<(u32, u32)>,
    /// For each input the new numbers of its packs.
    pack_numbers: Vec<Vec<u32>>,
    /// For each input the new numbers of its sources.
    source_numbers: Vec<Vec<u32>>,
}

impl Plan {
    fn new(inputs: &[Input<'_>]) -> Result<Self, IndexError> {
        let mut plan = Self {
            header: Header::default(),
            sources: Vec::new(),
            packs: Vec::new(),
            pack_numbers: Vec::new(),
            source_numbers: Vec::new(),
        };
        for (number, input) in inputs.iter().enumerate() {
            let mut numbers = vec![DROPPED; input.source_count()];
            for (local, entry) in input.sources() {
                numbers[local] = count("sources", plan.sources.len() as u64)?;
                plan.header.keys = count("data keys", u64::from(plan.header.keys) + u64::from(entry.keys))?;
                plan.header.origins =
                    count("origins", u64::from(plan.header.origins) + u64::from(entry.origins))?;
                plan.sources.push((number, local));
                plan.header.sources.push(entry);
            }
            plan.source_numbers.push(numbers);
        }
        plan.order_packs(inputs)?;
        Ok(plan)
    }

    /// Merges the pack tables by name; of one name the order of the sources decides.
    fn order_packs(&mut self, inputs: &[Input<'_>]) -> Result<(), IndexError> {
        let mut heap = BinaryHeap::new();
        let head = |input: usize, from: u32| -> Result<Option<PackHead>, IndexError> {
            for number in from..inputs[input].pack_count() {
                let pack = inputs[input].pack(number)?;
                let source = self.source_numbers[input][pack.source as usize];
                if source != DROPPED {
                    return Ok(Some(Reverse((pack.row.id, source, input, number))));
                }
            }
            Ok(None)
        };
        for (number, input) in inputs.iter().enumerate() {
            self.pack_numbers.push(vec![DROPPED; input.pack_count() as usize]);
            heap.extend(head(number, 0)?);
        }
        while let Some(Reverse((_, _, input, number))) = heap.pop() {
            self.pack_numbers[input][number as usize] = count("packs", self.packs.len() as u64)?;
            self.packs.push((input as u32, number));
            heap.extend(head(input, number + 1)?);
        }
        Ok(())
    }

    fn pack<'a>(
        &self,
        inputs: &[Input<'a>],
        place: (u32, u32),
    ) -> Result<(Input<'a>, LevelPack), IndexError> {
        let input = inputs[place.0 as usize];
        let mut pack = input.pack(place.1)?;
        pack.source = self.source_numbers[place.0 as usize][pack.source as usize];
        Ok((input, pack))
    }

    /// Writes everything before the records, and gives the header without shards.
    fn write_tables(&self, inputs: &[Input<'_>], out: &mut PieceWriter<'_>) -> Result<Header, MergeError> {
        let mut header = self.header.clone();
        header.packs = count("packs", self.packs.len() as u64)?;
        for place in &self.packs {
            let (_, mut pack) = self.pack(inputs, *place)?;
            pack.row.first_segment = header.segments;
            header.segments = count("segments", u64::from(header.segments) + u64::from(pack.row.segments))?;
            let mut row = pack.row.encode();
            row[PACK_SOURCE_AT..PACK_SOURCE_AT + 4].copy_from_slice(&pack.source.to_le_bytes());
            out.write(&row)?;
        }
        for place in &self.packs {
            let (input, pack) = self.pack(inputs, *place)?;
            let rows = input.segments(&pack.row)?;
            header.fading |= rows.iter().skip(FLAGS_AT).step_by(SegmentEntry::LEN).any(|f| f & FADING != 0);
            out.write(&rows)?;
        }
        for (entry, (input, source)) in self.header.sources.iter().zip(&self.sources) {
            for number in 0..entry.origins {
                out.write(inputs[*input].origin(*source, number)?.as_bytes())?;
            }
        }
        self.each_key(inputs, |key| {
            header.keys_len += key.len() as u64;
            out.write(&header.keys_len.to_le_bytes())
        })?;
        self.each_key(inputs, |key| out.write(key))?;
        Ok(header)
    }

    fn each_key(
        &self,
        inputs: &[Input<'_>],
        mut then: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), MergeError> {
        for (entry, (input, source)) in self.header.sources.iter().zip(&self.sources) {
            for number in 0..entry.keys {
                then(inputs[*input].data_key(*source, number)?)?;
            }
        }
        Ok(())
    }
}

/// A number below [`DROPPED`], which stands for none.
fn count(what: &'static str, number: u64) -> Result<u32, IndexError> {
    let limit = u64::from(DROPPED) - 1;
    let fits = u32::try_from(number).ok().filter(|number| u64::from(*number) <= limit);
    fits.ok_or(IndexError::TooMany { what, limit })
}

fn write_records(
    inputs: &[Input<'_>],
    plan: &Plan,
    out: &mut PieceWriter<'_>,
) -> Result<Vec<Shard>, MergeError> {
    let mut heads: Vec<(Position, [u8; RECORD_LEN])> = vec![Default::default(); inputs.len()];
    let mut heap: BinaryHeap<Reverse<(Prefix, usize)>> = BinaryHeap::new();
    for (number, input) in inputs.iter().enumerate() {
        if let Some(prefix) = advance(input, &plan.pack_numbers[number], &mut heads[number])? {
            heap.push(Reverse((prefix, number)));
        }
    }
    let mut shards = ShardWriter { keys: Vec::new(), at: out.position(), rows: 0, shards: Vec::new() };
    while let Some(mut top) = heap.peek_mut() {
        let number = top.0.1;
        shards.push(&heads[number].1, out)?;
        match advance(&inputs[number], &plan.pack_numbers[number], &mut heads[number])? {
            Some(prefix) => top.0.0 = prefix,
            None => {
                PeekMut::pop(top);
            }
        }
    }
    shards.finish(out)
}

/// Loads the input's next record that counts, its pack renumbered, and gives its prefix.
fn advance(
    input: &Input<'_>,
    pack_numbers: &[u32],
    head: &mut (Position, [u8; RECORD_LEN]),
) -> Result<Option<Prefix>, IndexError> {
    while let Some(mut row) = input.next_record(&mut head.0)? {
        let old = u32::from_le_bytes([row[16], row[17], row[18], row[19]]);
        let new = *pack_numbers.get(old as usize).ok_or_else(|| input.damage())?;
        if new != DROPPED {
            row[16..20].copy_from_slice(&new.to_le_bytes());
            head.1 = row;
            return Ok(row.first_chunk().copied());
        }
    }
    Ok(None)
}

/// Cuts the stream of records into shards and puts a filter behind each.
struct ShardWriter {
    keys: Vec<u64>,
    at: u64,
    rows: u64,
    shards: Vec<Shard>,
}

impl ShardWriter {
    fn push(&mut self, row: &[u8; RECORD_LEN], out: &mut PieceWriter<'_>) -> io::Result<()> {
        let key = key_of(row);
        // Records of one key stay in one shard, however many there are.
        if self.keys.last() != Some(&key) {
            if self.keys.len() == SHARD_KEYS {
                self.end_shard(out)?;
            }
            self.keys.push(key);
        }
        self.rows += 1;
        out.write(row)
    }

    fn end_shard(&mut self, out: &mut PieceWriter<'_>) -> io::Result<()> {
        let (Some(&first_key), Some(&last_key)) = (self.keys.first(), self.keys.last()) else {
            return Ok(());
        };
        let filter_at = out.position();
        let mut descriptor = [0; DESCRIPTOR_LEN];
        let mut filter_len = 0;
        // Building fails with a probability nobody will meet; the shard then does without a filter.
        if let Ok(filter) = BinaryFuse8::try_from(self.keys.as_slice()) {
            filter.dma_copy_descriptor_to(&mut descriptor);
            filter_len = filter.dma_fingerprints().len() as u32;
            out.write(filter.dma_fingerprints())?;
        }
        let (rows, at) = (self.rows, self.at);
        self.shards.push(Shard { first_key, last_key, rows, at, filter_at, filter_len, descriptor });
        self.keys.clear();
        (self.at, self.rows) = (out.position(), 0);
        Ok(())
    }

    fn finish(mut self, out: &mut PieceWriter<'_>) -> Result<Vec<Shard>, MergeError> {
        self.end_shard(out)?;
        Ok(self.shards)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use xorf::{BinaryFuse8Ref, Filter, FilterRef};

    use super::*;
    use crate::index::bits::Bits;
    use crate::index::level::Level;
    use crate::index::map::Backing;
    use crate::index::testing::{Model, Object, all_ids};
    use crate::index::view::View;

    /// The level that objects are merged to.
    fn level_of(objects: &[Object]) -> Vec<u8> {
        let inputs: Vec<_> = objects
            .iter()
            .map(|object| Input::Tables { object: object.hash, tables: &object.tables })
            .collect();
        let mut bytes = Vec::new();
        write_level(&inputs, &mut bytes).unwrap();
        bytes
    }

    fn small_level() -> (Model, Vec<u8>) {
        let objects: Vec<_> = (0..2).map(Object::numbered).collect();
        let bytes = level_of(&objects);
        (Model::new(objects), bytes)
    }

    fn compare(model: &Model, bytes: Vec<u8>) -> Result<(), IndexError> {
        let level = Arc::new(Level::open("tried", Backing::Memory(bytes))?);
        let alive = Bits::new(level.header.sources.len(), true);
        let result =
            View::new(vec![(Arc::clone(&level), alive)]).and_then(|view| model.compare(view, 0x5a5a, 0xffff));
        assert_eq!(level.is_damaged(), result.is_err());
        result
    }

    #[test]
    fn every_flipped_bit_is_noticed_or_changes_nothing() {
        let (model, bytes) = small_level();
        assert_eq!(compare(&model, bytes.clone()), Ok(()));
        let mut unnoticed = 0;
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match compare(&model, bytes) {
                Ok(()) => unnoticed += 1,
                Err(IndexError::CacheDamaged { .. }) => {}
                Err(other) => panic!("bit {bit}: {other}"),
            }
        }
        assert_eq!(unnoticed, 0, "the comparison touches every piece");
    }

    #[test]
    fn a_level_cut_short_does_not_open() {
        let (_, bytes) = small_level();
        for len in 0..bytes.len() {
            assert!(Level::open("cut", Backing::Memory(bytes[..len].to_vec())).is_err(), "{len}");
        }
    }

    #[test]
    fn headers_with_valid_sums_and_absurd_ranges_are_refused() {
        let (_, bytes) = small_level();
        let good = Header::read(&bytes).unwrap();
        let sums_end = good.data_len as usize + 16 * (good.data_len as usize).div_ceil(64 << 10);
        let spoils: &[fn(&mut Header)] = &[
            |h| h.packs = u32::MAX,
            |h| h.segments = u32::MAX,
            |h| h.keys_len = u64::MAX,
            |h| h.keys += 1,
            |h| h.origins -= 1,
            |h| h.data_len = u64::MAX,
            |h| h.shards[0].rows = u64::MAX / 28,
            |h| h.shards[0].rows = 0,
            |h| h.shards[0].at = u64::MAX,
            |h| h.shards[0].filter_at = u64::MAX,
            |h| h.shards[0].filter_len = 1,
            |h| h.shards[0].descriptor[8..20].fill(0),
            |h| h.shards[0].descriptor[16] ^= 1,
            |h| (h.shards[0].first_key, h.shards[0].last_key) = (1, 0),
            |h| h.shards[0].first_key = u64::MAX,
        ];
        for (number, spoil) in spoils.iter().enumerate() {
            let mut header = good.clone();
            spoil(&mut header);
            let file = [&bytes[..sums_end], &header.encode().0].concat();
            assert!(Header::read(&file).is_err(), "{number}");
        }
        assert_eq!(Header::read(&[&bytes[..sums_end], &good.encode().0].concat()), Ok(good));
    }

    /// Fails once it has taken so many bytes.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_an_error_of_writing_wherever_it_strikes() {
        let (_, bytes) = small_level();
        let object = Object::numbered(0);
        let input = [Input::Tables { object: object.hash, tables: &object.tables }];
        let failed = (0..bytes.len())
            .step_by(50)
            .filter(|room| matches!(write_level(&input, &mut Full(*room)), Err(MergeError::Write(_))));
        assert!(failed.count() > 10);
    }

    #[test]
    fn filters_of_every_small_size_hold_their_keys() {
        for size in 1..300_u64 {
            let keys: Vec<u64> = (0..size).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
            let Ok(filter) = BinaryFuse8::try_from(keys.as_slice()) else { continue };
            let mut descriptor = [0; DESCRIPTOR_LEN];
            filter.dma_copy_descriptor_to(&mut descriptor);
            let mapped = BinaryFuse8Ref::from_dma(&descriptor, filter.dma_fingerprints());
            assert!(keys.iter().all(|key| mapped.contains(key)), "{size}");
        }
    }

    #[test]
    fn a_search_finds_the_first_row_wherever_ids_lie() {
        // Ids in clumps: interpolation guesses wrong every time.
        let objects: Vec<_> = (0..120).map(Object::numbered).collect();
        let bytes = level_of(&objects);
        let level = Level::open("clumps", Backing::Memory(bytes.clone())).unwrap();
        assert!(level.header.shards.len() > 2);
        assert_eq!(
            level.header.records(),
            objects.iter().map(|o| o.tables.records.len() as u64).sum::<u64>()
        );
        assert!(all_ids().iter().any(|id| level.find(&id.prefix()).unwrap().is_none()));
        compare(&Model::new(objects), bytes).unwrap();
    }
}
