//! Searching sorted records by interpolation: ids are uniform, so where a row stands can be computed.

use crate::format::index::RECORD_LEN;
use crate::id::ChunkId;

/// The prefix of a chunk id that records carry.
pub(super) type Prefix = [u8; ChunkId::PREFIX_LEN];

/// The part of a prefix that filters and interpolation work on.
#[inline]
pub(super) fn key_of(row: &[u8]) -> u64 {
    row.first_chunk().map_or(0, |key| u64::from_be_bytes(*key))
}

/// How many rows there are, at least one, and the keys of the first and of the last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sorted {
    pub(super) rows: u64,
    pub(super) first_key: u64,
    pub(super) last_key: u64,
}

impl Sorted {
    /// The first row not before `prefix`: three guesses by the density of the ids, then a doubling search around the
    /// last one, so that no distribution of ids makes it much worse than a binary search. Whatever `row` returns, the
    /// answer is at most the number of rows and no row beyond them is asked for.
    #[inline]
    pub(super) fn lower_bound<'a, E>(
        &self,
        prefix: &Prefix,
        row: impl Fn(u64) -> Result<&'a [u8; RECORD_LEN], E>,
    ) -> Result<u64, E> {
        let key = key_of(prefix);
        let last = self.rows.saturating_sub(1);
        let span = self.last_key.saturating_sub(self.first_key) as f64;
        let density = if span > 0.0 { last as f64 / span } else { 0.0 };
        let mut guess = ((key.saturating_sub(self.first_key) as f64 * density) as u64).min(last);
        let (mut low, mut high) = (0, self.rows);
        let mut before = false;
        for _ in 0..3 {
            let found = row(guess)?;
            before = found[..prefix.len()] < prefix[..];
            if before {
                low = low.max(guess + 1)
            } else {
                high = high.min(guess)
            }
            let found = key_of(found);
            let step = (key.abs_diff(found) as f64 * density) as u64;
            if step < 3 || low >= high {
                break;
            }
            let next = if found < key { guess.saturating_add(step) } else { guess.saturating_sub(step) };
            guess = next.clamp(low, high - 1);
        }
        gallop((low, high), before, |number| row(number).map(|row| row[..prefix.len()] < prefix[..]))
    }
}

/// The first number in `low..high` that is not `before`, or `high`, looked for from one end in doubling steps.
fn gallop<E>(
    (mut low, mut high): (u64, u64),
    from_low: bool,
    before: impl Fn(u64) -> Result<bool, E>,
) -> Result<u64, E> {
    let mut step = 1;
    while low < high {
        let reach = step.min(high - low);
        let probe = if from_low { low + reach - 1 } else { high - reach };
        let is_before = before(probe)?;
        if is_before {
            low = probe + 1
        } else {
            high = probe
        }
        if is_before != from_low {
            break; // passed: the answer is in the last step
        }
        step *= 2;
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle)? { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn rows(keys: impl Iterator<Item = u128>) -> Vec<[u8; RECORD_LEN]> {
        let mut rows: Vec<_> = keys
            .map(|key| {
                let mut row = [9; RECORD_LEN];
                row[..16].copy_from_slice(&key.to_be_bytes());
                row
            })
            .collect();
        rows.sort_unstable();
        rows
    }

    /// Finds a key and counts the rows it took.
    fn find(rows: &[[u8; RECORD_LEN]], key: u128) -> (usize, usize) {
        let sorted = Sorted {
            rows: rows.len() as u64,
            first_key: key_of(&rows[0]),
            last_key: key_of(&rows[rows.len() - 1]),
        };
        let looked = Cell::new(0);
        let found = sorted.lower_bound(&key.to_be_bytes(), |row| {
            looked.set(looked.get() + 1);
            Ok::<_, Infallible>(&rows[row as usize])
        });
        (found.unwrap() as usize, looked.get())
    }

    fn check(rows: &[[u8; RECORD_LEN]], key: u128) {
        let expected = rows.partition_point(|row| row[..16] < key.to_be_bytes()[..]);
        assert_eq!(find(rows, key).0, expected, "{key:x}");
    }

    #[test]
    fn uniform_rows_take_a_handful_of_looks() {
        let hash = |n: u64| {
            let bytes = *blake3::hash(&n.to_le_bytes()).as_bytes().first_chunk::<16>().unwrap();
            u128::from_be_bytes(bytes)
        };
        let sorted = rows((0..200_000).map(hash));
        let mut looks = 0;
        for n in 0..4000 {
            check(&sorted, hash(n * 51));
            looks += find(&sorted, hash(n * 51)).1;
        }
        assert!(looks < 4000 * 9, "{} looks a search", looks as f64 / 4000.0);
    }

    proptest! {
        #[test]
        fn every_distribution_is_searched_right(
            spread in 0_u32..128,
            keys in proptest::collection::vec(any::<u128>(), 1..600),
            others in proptest::collection::vec(any::<u128>(), 20),
        ) {
            let sorted = rows(keys.iter().map(|key| key >> spread));
            for key in keys.iter().chain(&others).flat_map(|key| [key >> spread, (key >> spread) ^ 1, *key]) {
                check(&sorted, key);
            }
            check(&sorted, 0);
            check(&sorted, u128::MAX);
        }
    }
}
