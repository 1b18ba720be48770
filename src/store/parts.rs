//! Reading several parts of an object by one request, each handed on when it is there.
//!
//! # Invariants
//! Each part is given exactly once, in order, also if a request breaks off and is made again.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytes::{Buf, Bytes};
use futures::StreamExt;

use super::error::Operation;
use super::pool::Buffer;
use super::{Key, Part, Store, StoreError};
use crate::event::Counters;

/// Parts that were given, and who takes them.
struct Progress<'a> {
    done: usize,
    take: &'a mut (dyn FnMut(Range<usize>, Bytes) + Send),
}

impl Progress<'_> {
    fn give(&mut self, parts: Range<usize>, bytes: Bytes) {
        self.done = parts.end;
        (self.take)(parts, bytes);
    }
}

/// A part of which some bytes are there.
struct Open {
    buffer: Buffer,
    filled: usize,
}

impl Store {
    /// Reads these parts of an object, none of them empty, each behind the one before it, by one request; what lies between
    /// two of them comes along and is dropped. `take` is given each part when it is there. Several that came in one piece
    /// are given together, with the bytes from the beginning of the first to the end of the last.
    ///
    /// What breaks off goes on behind the last part that was given. [`StoreError::Short`] if the object ends too early; then,
    /// as with any error, the first parts may have been given.
    pub async fn get_parts(
        &self,
        key: &Key,
        parts: &[Range<u64>],
        take: &mut (dyn FnMut(Range<usize>, Bytes) + Send),
    ) -> Result<(), StoreError> {
        let progress = Mutex::new(Progress { done: 0, take });
        self.attempts(Operation::Get, key.as_str(), || self.parts_once(key, parts, &progress)).await
    }

    async fn parts_once(
        &self,
        key: &Key,
        parts: &[Range<u64>],
        progress: &Mutex<Progress<'_>>,
    ) -> Result<(), StoreError> {
        let mut next = progress.lock().unwrap_or_else(PoisonError::into_inner).done;
        let (Some(first), Some(last)) = (parts.get(next), parts.last()) else { return Ok(()) };
        let (mut at, end) = (first.start, last.end);
        let (result, _) = self.ask(key, &Part::Range(at..end)).await?;
        let mut stream = result.into_stream();
        let mut open = None;
        while let Some(piece) = stream.next().await {
            let mut piece = piece.map_err(|error| self.classify(Operation::Get, key.as_str(), error))?;
            self.take(self.0.download.as_ref(), piece.len() as u64, Operation::Get, key.as_str()).await?;
            Counters::add(&self.0.env.observer.counters().bytes_fetched, piece.len() as u64);
            let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(part) = parts.get(next).filter(|_| !piece.is_empty()) {
                let before = piece.len();
                if at < part.start {
                    piece.advance(fitting(part.start - at).min(before));
                } else if let Some(whole) = whole_parts(&parts[next..], (at, before)) {
                    let bytes = piece.split_to(fitting(parts[next + whole - 1].end - at));
                    progress.give(next..next + whole, bytes);
                    next += whole;
                } else if let Some(bytes) = self.fill(&mut open, part, &mut piece) {
                    progress.give(next..next + 1, bytes);
                    next += 1;
                }
                at += (before - piece.len()) as u64;
            }
        }
        if next == parts.len() {
            return Ok(());
        }
        Err(StoreError::Short { key: key.to_string(), wanted: end - first.start, found: at - first.start })
    }

    /// Takes as much of a part as there is; gives it when it is complete.
    fn fill(&self, open: &mut Option<Open>, part: &Range<u64>, piece: &mut Bytes) -> Option<Bytes> {
        let begin = || Open { buffer: self.0.pool.take(fitting(part.end - part.start)), filled: 0 };
        let Open { buffer, filled } = open.get_or_insert_with(begin);
        let room = &mut buffer[*filled..];
        let count = room.len().min(piece.len());
        piece.copy_to_slice(&mut room[..count]);
        *filled += count;
        let complete = *filled == buffer.len();
        open.take_if(|_| complete).map(|open| open.buffer.freeze())
    }
}

/// How many parts a piece of so many bytes, which begins at `at`, holds from their beginning to their end.
fn whole_parts(parts: &[Range<u64>], (at, len): (u64, usize)) -> Option<usize> {
    let begins = parts.first().is_some_and(|first| first.start == at);
    let count = parts.iter().take_while(|part| part.end <= at + len as u64).count();
    Some(count).filter(|count| begins && *count > 0)
}

/// A length that memory can hold, because a reply of so many bytes was promised.
fn fitting(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use object_store::chunked::ChunkedStore;
    use object_store::memory::InMemory;
    use proptest::prelude::*;

    use super::*;
    use crate::clock::SystemClock;
    use crate::store::StoreOptions;
    use crate::store::fault::{Fault, FaultStore, Op, OpKind};
    use crate::store::tests::env_with;

    /// Parts with gaps, from lengths and gaps.
    fn parts(lens: &[(u64, u64)]) -> Vec<Range<u64>> {
        let mut at = 0;
        let mut part = |(gap, len): &(u64, u64)| {
            let start = at + gap;
            at = start + len;
            start..at
        };
        lens.iter().map(&mut part).collect()
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    /// What was given, part by part, and the error; the first reply may end early.
    async fn read(
        ranges: &[Range<u64>],
        (size, piece): (u64, usize),
        fault: Fault,
    ) -> (Vec<Vec<u8>>, Result<(), StoreError>, Vec<Op>) {
        let content: Vec<u8> = (0..size).map(|n| (n * 31 % 251) as u8).collect();
        let memory = Arc::new(InMemory::new());
        let asked = Arc::new(FaultStore::new(memory, move |op| match op.number {
            0 => Fault::None,
            1 => fault,
            _ => Fault::None,
        }));
        let chunked = Arc::new(ChunkedStore::new(Arc::<FaultStore>::clone(&asked), piece));
        let options = StoreOptions { retry_for: Duration::from_secs(60), ..StoreOptions::default() };
        let store = Store::from_object_store(chunked, &options, env_with(SystemClock::new()).0);
        let key = Key::new("packs/x").unwrap();
        store.put(&key, vec![content.into()]).await.unwrap();
        let mut given: Vec<Vec<u8>> = Vec::new();
        let mut take = |came: Range<usize>, bytes: Bytes| {
            assert_eq!(came.start, given.len(), "each once, in order");
            let start = ranges[came.start].start;
            let part = |part: &Range<u64>| {
                bytes[(part.start - start) as usize..(part.end - start) as usize].to_vec()
            };
            given.extend(ranges[came].iter().map(part));
        };
        let result = store.get_parts(&key, ranges, &mut take).await;
        (given, result, asked.take_record())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_part_is_given_as_it_is(
            lens in prop::collection::vec((0_u64..9, 1_u64..40), 1..12),
            piece in 1_usize..100,
        ) {
            let ranges = parts(&lens);
            let size = ranges.last().unwrap().end + 5;
            let (given, result, asked) = block_on(read(&ranges, (size, piece), Fault::None));
            prop_assert!(result.is_ok());
            let expected: Vec<Vec<u8>> =
                ranges.iter().map(|part| part.clone().map(|n| (n * 31 % 251) as u8).collect()).collect();
            prop_assert_eq!(given, expected);
            prop_assert_eq!(asked.iter().filter(|op| op.kind == OpKind::GetRange).count(), 1);
        }
    }

    #[tokio::test]
    async fn a_request_that_breaks_off_goes_on_behind_what_was_given() {
        let ranges = parts(&[(3, 10), (0, 10), (4, 10)]);
        // The first reply ends in the middle of the second part.
        let (given, result, asked) = read(&ranges, (60, 4), Fault::Short(15)).await;
        result.unwrap();
        assert_eq!(given.len(), 3);
        let bytes: Vec<u64> =
            asked.iter().filter(|op| op.kind == OpKind::GetRange).map(|op| op.bytes).collect();
        assert_eq!(bytes, [34, 24]);
    }

    #[tokio::test]
    async fn an_object_that_ends_too_early_is_short_and_nothing_at_all_is_no_request() {
        let ranges = parts(&[(0, 10), (0, 30)]);
        let (_, result, _) = read(&ranges, (20, 4), Fault::None).await;
        assert!(matches!(result, Err(StoreError::Short { .. })), "{result:?}");
        let (given, result, asked) = read(&[], (20, 4), Fault::None).await;
        assert!(given.is_empty() && result.is_ok() && asked.len() == 1);
    }
}
