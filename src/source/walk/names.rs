//! The names of one directory in byte order, each once, in bounded memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ffi::CStr;
use std::ops::Range;
use std::sync::Arc;

use super::spill::Spill;

/// How much of a run is read at a time.
const RUN_BUFFER: usize = 64 * 1024;

/// Names one after another in one allocation, each ended by a zero byte, as system calls want them.
#[derive(Debug, Default)]
pub(super) struct Arena {
    bytes: Vec<u8>,
    index: Vec<Slice>,
}

#[derive(Debug, Clone, Copy)]
struct Slice {
    /// The first eight bytes as a number, which settles most comparisons.
    prefix: u64,
    at: usize,
    len: u16,
}

impl Slice {
    fn range(&self) -> Range<usize> {
        self.at..self.at + usize::from(self.len)
    }
}

impl Arena {
    pub(super) fn push(&mut self, name: &CStr) {
        self.push_bytes(name.to_bytes());
    }

    fn push_bytes(&mut self, name: &[u8]) {
        let mut prefix = [0; 8];
        let known = name.len().min(8);
        prefix[..known].copy_from_slice(&name[..known]);
        let len = u16::try_from(name.len()).unwrap_or(u16::MAX);
        let at = self.bytes.len();
        self.index.push(Slice { prefix: u64::from_be_bytes(prefix), at, len });
        // A record of getdents has at most 65,535 bytes, so nothing is cut here.
        self.bytes.extend_from_slice(&name[..usize::from(len)]);
        self.bytes.push(0);
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes of memory in use.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() + self.index.len() * size_of::<Slice>()
    }

    pub(super) fn get(&self, i: usize) -> &[u8] {
        &self.bytes[self.index[i].range()]
    }

    /// The name for a system call.
    pub(super) fn c_str(&self, i: usize) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes[self.index[i].at..]).unwrap_or_default()
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        let name = |s: &Slice| &bytes[s.range()];
        self.index.sort_unstable_by(|a, b| a.prefix.cmp(&b.prefix).then_with(|| name(a).cmp(name(b))));
        // A file system may show a name twice when it changes during the listing.
        self.index.dedup_by(|a, b| a.prefix == b.prefix && name(a) == name(b));
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.index.clear();
    }
}

/// Takes names in any order.
#[derive(Debug)]
pub(super) struct NamesBuilder<'a> {
    arena: Arena,
    runs: Vec<Range<u64>>,
    spill: &'a Arc<Spill>,
    limit: usize,
}

impl<'a> NamesBuilder<'a> {
    /// Beyond `limit` bytes, names go to `spill`. Where that fails they stay in memory: better slow than incomplete.
    pub(super) fn new(spill: &'a Arc<Spill>, limit: usize) -> Self {
        Self { arena: Arena::default(), runs: Vec::new(), spill, limit }
    }

    pub(super) fn push(&mut self, name: &CStr) {
        if self.arena.size() >= self.limit {
            self.flush();
        }
        self.arena.push(name);
    }

    fn flush(&mut self) {
        self.arena.sort();
        let mut run = Vec::with_capacity(self.arena.bytes.len());
        for i in 0..self.arena.len() {
            run.extend_from_slice(self.arena.get(i));
            run.push(0);
        }
        match self.spill.write(&run) {
            Ok(range) => {
                self.runs.push(range);
                self.arena.clear();
            }
            Err(_) => self.limit = usize::MAX,
        }
    }

    pub(super) fn finish(mut self) -> Names {
        self.arena.sort();
        let mut merge = None;
        if !self.runs.is_empty() {
            let runs = self.runs.iter().cloned().map(Run::new).collect();
            merge =
                Some(Merge { runs, heap: BinaryHeap::new(), spill: Arc::clone(self.spill), started: false });
        }
        Names { arena: self.arena, next: 0, merge, last: None }
    }
}

/// The names in order, handed out in batches.
#[derive(Debug)]
pub(super) struct Names {
    arena: Arena,
    next: usize,
    merge: Option<Merge>,
    last: Option<Vec<u8>>,
}

impl Names {
    /// No names.
    pub(super) fn empty() -> Self {
        Self { arena: Arena::default(), next: 0, merge: None, last: None }
    }

    /// Bytes of memory in use.
    pub(super) fn size(&self) -> usize {
        self.arena.size()
    }

    /// Up to `count` names. The second part tells whether more may follow.
    pub(super) fn batch(&mut self, count: usize) -> std::io::Result<(Arena, bool)> {
        if self.merge.is_none() && self.next == 0 && self.arena.len() <= count {
            return Ok((std::mem::take(&mut self.arena), false));
        }
        let mut batch = Arena::default();
        while batch.len() < count {
            let Some(name) = self.smallest()? else { return Ok((batch, false)) };
            if self.last.as_deref() != Some(&name) {
                batch.push_bytes(&name);
                self.last = Some(name);
            }
        }
        Ok((batch, true))
    }

    fn smallest(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let in_memory = (self.next < self.arena.len()).then(|| self.arena.get(self.next));
        if let Some(merge) = &mut self.merge
            && let Some(spilled) = merge.peek()?
            && in_memory.is_none_or(|name| spilled < name)
        {
            return merge.pop();
        }
        let name = in_memory.map(<[u8]>::to_vec);
        self.next += usize::from(name.is_some());
        Ok(name)
    }
}

#[derive(Debug)]
struct Merge {
    runs: Vec<Run>,
    heap: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
    spill: Arc<Spill>,
    started: bool,
}

impl Merge {
    fn peek(&mut self) -> std::io::Result<Option<&[u8]>> {
        if !self.started {
            self.started = true;
            for run in 0..self.runs.len() {
                self.refill(run)?;
            }
        }
        Ok(self.heap.peek().map(|Reverse((name, _))| name.as_slice()))
    }

    fn pop(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let Some(Reverse((name, run))) = self.heap.pop() else { return Ok(None) };
        self.refill(run)?;
        Ok(Some(name))
    }

    fn refill(&mut self, run: usize) -> std::io::Result<()> {
        if let Some(name) = self.runs[run].next(&self.spill)? {
            self.heap.push(Reverse((name, run)));
        }
        Ok(())
    }
}

impl Drop for Merge {
    fn drop(&mut self) {
        self.runs.iter().for_each(|run| self.spill.free(&run.whole));
    }
}

/// A sorted run, read a piece at a time.
#[derive(Debug)]
struct Run {
    whole: Range<u64>,
    at: u64,
    buffer: Vec<u8>,
    next: usize,
}

impl Run {
    fn new(whole: Range<u64>) -> Self {
        Self { at: whole.start, whole, buffer: Vec::new(), next: 0 }
    }

    fn next(&mut self, spill: &Spill) -> std::io::Result<Option<Vec<u8>>> {
        loop {
            let rest = &self.buffer[self.next..];
            if let Some(len) = rest.iter().position(|&byte| byte == 0) {
                let name = rest[..len].to_vec();
                self.next += len + 1;
                return Ok(Some(name));
            }
            if self.at == self.whole.end {
                return Ok(None);
            }
            self.buffer.drain(..self.next);
            self.next = 0;
            let kept = self.buffer.len();
            self.buffer.resize(kept + RUN_BUFFER, 0);
            let read = spill.read(&mut self.buffer[kept..], self.at, self.whole.end)?;
            self.buffer.truncate(kept + read);
            self.at += read as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::CString;

    use proptest::prelude::*;

    use super::*;

    fn sorted(names: &[Vec<u8>], limit: usize, batch: usize) -> Vec<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let spill = Arc::new(Spill::new(dir.path().to_owned()));
        let mut builder = NamesBuilder::new(&spill, limit);
        for name in names {
            builder.push(&CString::new(name.clone()).unwrap());
        }
        let mut names = builder.finish();
        let mut out = Vec::new();
        loop {
            let (arena, more) = names.batch(batch).unwrap();
            out.extend((0..arena.len()).map(|i| arena.get(i).to_vec()));
            if !more {
                assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
                return out;
            }
        }
    }

    proptest! {
        #[test]
        fn spilled_or_not_the_names_come_sorted_and_once(
            names in prop::collection::vec(prop::collection::vec(1_u8.., 1..12), 0..200),
            limit in 1_usize..4000,
            batch in 1_usize..50,
        ) {
            let expected: Vec<_> = names.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
            prop_assert_eq!(sorted(&names, limit, batch), expected.clone());
            prop_assert_eq!(sorted(&names, usize::MAX, batch), expected);
        }
    }

    #[test]
    fn without_a_place_to_spill_nothing_is_lost() {
        let spill = Arc::new(Spill::new("/nonexistent".into()));
        let mut builder = NamesBuilder::new(&spill, 10);
        for i in 0..100 {
            builder.push(&CString::new(format!("{:02}", 99 - i)).unwrap());
        }
        let (arena, more) = builder.finish().batch(1000).unwrap();
        assert!(arena.len() == 100 && !more && arena.get(7) == b"07");
    }
}
