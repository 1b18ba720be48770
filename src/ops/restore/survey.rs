//! Holding the snapshot's files against what stands in the target, before anything is fetched for them.
//!
//! # Invariants
//! Content is kept only if its chunk ids were computed again from what stands, at the places where the snapshot wants them.
//! Times and sizes are believed only if the user asked for that. Nothing is changed here: what stands is opened for reading.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tokio::sync::mpsc::UnboundedSender;

use super::entries::{Dir, FAILED, File, Judged};
use super::output::Output;
use super::run::{Policy, Run};
use crate::crypto::chunk_id;
use crate::event::Counters;
use crate::format::content::ChunkRow;
use crate::format::envelope::ChunkKind;
use crate::source::target::{Overwrite, Stands, TargetDir, TargetFile};

/// Bytes that one worker compares at once: a large file is for all of them.
const BATCH_BYTES: u64 = 8 << 20;
/// Parts of files that one worker looks at at once.
const BATCH_PARTS: usize = 64;

/// Some neighbouring chunks of a file, each with where it begins in the content.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) file: Arc<File>,
    pub(super) rows: Vec<(u64, ChunkRow)>,
    /// The walk is through with the file.
    pub(super) last: bool,
}

/// Rows of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) part: usize,
    pub(super) rows: Range<usize>,
}

/// What a worker says of a piece: for each row whether it stands in the target.
pub(super) type Answer = (Piece, Vec<bool>);

/// Work of one worker. Whoever waits for the answers hears of it when it is dropped.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) parts: Arc<Vec<Part>>,
    pub(super) pieces: Vec<Piece>,
    pub(super) answers: UnboundedSender<Answer>,
}

/// Divides parts, by the lengths of their rows, into what workers take at once.
pub(super) fn batches(parts: &[Part]) -> Vec<Vec<Piece>> {
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for (part, Part { rows, .. }) in parts.iter().enumerate() {
        let mut start = 0;
        loop {
            let mut end = start;
            while end < rows.len() && (bytes < BATCH_BYTES || end == start) {
                bytes += rows.get(end).map_or(0, |(_, row)| u64::from(row.len));
                end += 1;
            }
            batch.push(Piece { part, rows: start..end });
            start = end;
            if bytes >= BATCH_BYTES || batch.len() >= BATCH_PARTS {
                batches.push(std::mem::take(&mut batch));
                bytes = 0;
            }
            if start >= rows.len() {
                break;
            }
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

impl Run {
    /// Does the work of one batch.
    pub(super) fn survey(&self, survey: &Survey, buffer: &mut Vec<u8>) {
        for piece in &survey.pieces {
            if self.stopped() {
                return;
            }
            let Some(part) = survey.parts.get(piece.part) else { continue };
            let rows = part.rows.get(piece.rows.clone()).unwrap_or_default();
            let kept = self.hold_against(&part.file, rows, buffer);
            // Nobody listens any more only if the run ends early.
            let _ = survey.answers.send((piece.clone(), kept));
        }
    }

    fn hold_against(&self, file: &File, rows: &[(u64, ChunkRow)], buffer: &mut Vec<u8>) -> Vec<bool> {
        let nothing = vec![false; rows.len()];
        if !file.takes_content() {
            return nothing;
        }
        let dir = self.stands(&file.dir);
        let judged = *file.judged.get_or_init(|| self.judge(file, dir));
        let (Judged::Compared(expected), Some(dir), Some(target)) = (judged, dir, self.directory()) else {
            return nothing;
        };
        {
            // What was written so far counts: it may be another file by now than the one that stood.
            let open = file.handle.read().unwrap_or_else(PoisonError::into_inner);
            match open.as_ref() {
                Some(Output::File(open)) => return self.compare(open, file, rows, buffer),
                Some(Output::Device(_)) => return nothing,
                None => {}
            }
        }
        let found = target.open_standing(dir, &file.name, file.size);
        let refused = match found {
            Ok(Some(found)) if found.stood().is_some_and(|stood| stood.same_file(&expected)) => {
                return self.compare(&found, file, rows, buffer);
            }
            // Another thread has just begun to write to a copy, or somebody else replaced the file: the writer will see.
            Ok(_) => return nothing,
            Err(error) => error,
        };
        file.give_up(FAILED);
        self.report_refused(file.path(), refused);
        nothing
    }

    /// Which chunks stand where the snapshot wants them. What cannot be read is to be written again.
    fn compare(
        &self,
        target: &TargetFile,
        file: &File,
        rows: &[(u64, ChunkRow)],
        buffer: &mut Vec<u8>,
    ) -> Vec<bool> {
        let size = target.size_now().unwrap_or(0);
        let counters = self.observer.counters();
        let stands = rows.iter().map(|(at, row)| {
            buffer.resize(row.len as usize, 0);
            let mut there = true;
            for (piece, offset) in file.layout.pieces(*at, buffer.len()) {
                let piece = buffer.get_mut(piece).unwrap_or_default();
                there &= offset < size && target.read_at(piece, offset).is_ok();
            }
            Counters::add(&counters.bytes_read, u64::from(row.len));
            self.tally.compared.fetch_add(u64::from(row.len), Ordering::Relaxed);
            let kept = there && chunk_id(&self.id_key, ChunkKind::Data, buffer) == row.id;
            if kept {
                self.tally.kept.fetch_add(u64::from(row.len), Ordering::Relaxed);
                Counters::add(&counters.bytes, u64::from(row.len));
            }
            kept
        });
        stands.collect()
    }

    /// Decides what is done about whatever stands in a file's place; reported if it is to stay and that is a failure.
    fn judge(&self, file: &File, dir: Option<&TargetDir>) -> Judged {
        let stored = file.size.saturating_sub(file.layout.holes().map(|hole| hole.end - hole.start).sum());
        let stands = match (dir, self.directory()) {
            (Some(dir), Some(target)) => target.look(dir, &file.name).ok().flatten(),
            _ => None,
        };
        let judged = match &stands {
            Some(stands) => judge(self.policy, (file.size, file.meta.mtime()), stands),
            None => Judged::Fresh,
        };
        if matches!(judged, Judged::Stays)
            && self.policy.overwrite == Overwrite::Never
            && let Some(dir) = dir
        {
            file.give_up(FAILED);
            self.report_refused(file.path(), dir.exists(&file.name));
        }
        self.tally.growth.fetch_add(growth(judged, stored, stands.as_ref()), Ordering::Relaxed);
        judged
    }

    /// The directory that stands in the target, if one does; nothing is made.
    fn stands<'d>(&self, dir: &'d Dir) -> Option<&'d TargetDir> {
        let known = |dir: &Dir| dir.made.get().is_some() || dir.stands.get().is_some();
        // Up to what is known, then down again: a chain may be too long to recurse over.
        let mut unknown = Vec::new();
        let mut next = Some(dir);
        while let Some(at) = next.filter(|at| !known(at)) {
            unknown.push(at);
            next = at.parent.as_deref();
        }
        while let Some(dir) = unknown.pop() {
            dir.stands.get_or_init(|| {
                let target = self.directory()?;
                let Some(parent) = dir.parent.as_deref() else { return Some(target.root()) };
                let above = at_hand(parent)?;
                if dir.stripped {
                    Some(above.clone())
                } else {
                    target.enter_dir(above, &dir.name).ok().flatten()
                }
            });
        }
        at_hand(dir)
    }
}

/// The directory of the target, made or found before.
fn at_hand(dir: &Dir) -> Option<&TargetDir> {
    dir.made.get().or_else(|| dir.stands.get())?.as_ref()
}

/// What is done about `stands` in the place of a file of this size and time.
pub(super) fn judge(policy: Policy, (size, mtime): (u64, (i64, u32)), stands: &Stands) -> Judged {
    let same = stands.is_file() && (stands.size, stands.mtime) == (size, mtime);
    match policy.overwrite {
        // Nothing else than a directory can stand in the way of one, so its error is reported where the file is made.
        _ if stands.is_dir() => Judged::Fresh,
        Overwrite::Never => Judged::Stays,
        Overwrite::IfNewer if stands.mtime >= mtime => Judged::Stays,
        Overwrite::IfChanged if same => Judged::Trusted(*stands),
        _ if policy.in_place && stands.is_file() => Judged::Compared(*stands),
        _ => Judged::Fresh,
    }
}

/// Bytes that the file system has less in the end, when a file with `stored` bytes of content is restored.
pub(super) fn growth(judged: Judged, stored: u64, stands: Option<&Stands>) -> i64 {
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    match (judged, stands) {
        (Judged::Stays | Judged::Trusted(_), _) => 0,
        // What another name keeps is not given back.
        (_, Some(stands)) if stands.is_file() && stands.links < 2 => {
            signed(stored) - signed(stands.allocated)
        }
        _ => signed(stored),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(lengths: &[Vec<u32>]) -> Vec<Part> {
        let part = |lengths: &Vec<u32>| {
            let row = |len: &u32| (0, ChunkRow { id: crate::id::ChunkId::new([0; 32]), len: *len });
            Part { file: File::for_test(), rows: lengths.iter().map(row).collect(), last: true }
        };
        lengths.iter().map(part).collect()
    }

    proptest! {
        #[test]
        fn every_row_is_in_one_piece_and_no_batch_is_too_large(
            lengths in prop::collection::vec(prop::collection::vec(1_u32..9 << 20, 0..12), 0..200),
        ) {
            let parts = parts(&lengths);
            let batches = batches(&parts);
            let mut next: Vec<usize> = vec![0; parts.len()];
            let mut seen = vec![false; parts.len()];
            for batch in &batches {
                prop_assert!(!batch.is_empty() && batch.len() <= BATCH_PARTS);
                let mut lens = Vec::new();
                for piece in batch {
                    prop_assert_eq!(piece.rows.start, next[piece.part]);
                    next[piece.part] = piece.rows.end;
                    seen[piece.part] = true;
                    lens.extend(lengths[piece.part][piece.rows.clone()].iter().map(|len| u64::from(*len)));
                }
                let all: u64 = lens.iter().sum();
                prop_assert!(all < BATCH_BYTES + lens.last().copied().unwrap_or(0) || lens.len() == 1);
            }
            prop_assert!(seen.iter().all(|seen| *seen), "files without content are looked at too");
            prop_assert_eq!(next, lengths.iter().map(Vec::len).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_stands_is_judged_by_policy_type_size_and_time() {
        use crate::source::target::{Target, TargetOptions};
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), b"12345").unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::os::unix::fs::symlink("f", dir.path().join("l")).unwrap();
        let target = Target::open(dir.path(), TargetOptions::default()).unwrap();
        let look = |name: &[u8]| target.look(&target.root(), name).unwrap().unwrap();
        let (file, directory, link) = (look(b"f"), look(b"d"), look(b"l"));
        let (seconds, nanos) = file.mtime;
        let policy = |overwrite, in_place| Policy { overwrite, in_place, dry: false };
        let judged = |overwrite, in_place, size, mtime, stands| match judge(
            policy(overwrite, in_place),
            (size, mtime),
            stands,
        ) {
            Judged::Fresh => "fresh",
            Judged::Stays => "stays",
            Judged::Trusted(_) => "trusted",
            Judged::Compared(_) => "compared",
        };
        let (now, later, earlier) = (file.mtime, (seconds + 1, nanos), (seconds - 1, nanos));
        for (overwrite, in_place, size, mtime, stands, expected) in [
            (Overwrite::Always, false, 5, now, &file, "fresh"),
            (Overwrite::Always, true, 5, now, &file, "compared"),
            (Overwrite::Always, true, 9, later, &file, "compared"),
            (Overwrite::Always, true, 5, now, &link, "fresh"),
            (Overwrite::IfChanged, false, 5, now, &file, "trusted"),
            (Overwrite::IfChanged, true, 5, now, &file, "trusted"),
            (Overwrite::IfChanged, true, 5, later, &file, "compared"),
            (Overwrite::IfChanged, false, 4, now, &file, "fresh"),
            (Overwrite::IfChanged, true, link.size, link.mtime, &link, "fresh"),
            (Overwrite::IfNewer, false, 9, now, &file, "stays"),
            (Overwrite::IfNewer, true, 9, earlier, &file, "stays"),
            (Overwrite::IfNewer, true, 9, later, &file, "compared"),
            (Overwrite::IfNewer, false, 9, later, &file, "fresh"),
            (Overwrite::Never, true, 9, later, &file, "stays"),
            (Overwrite::Never, true, 9, later, &directory, "fresh"),
        ] {
            assert_eq!(
                judged(overwrite, in_place, size, mtime, stands),
                expected,
                "{overwrite:?} {in_place} {size} {mtime:?}"
            );
        }
    }

    #[test]
    fn a_file_that_is_damaged_elsewhere_is_still_compared_and_one_that_is_given_up_is_not() {
        use super::super::entries::DAMAGED;
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("f"), b"12345").unwrap();
        let run = Run::for_test(place.path());
        let file = File::for_test();
        let target = run.directory().unwrap();
        let stands = target.look(&target.root(), b"f").unwrap().unwrap();
        file.judged.set(Judged::Compared(stands)).unwrap();
        let rows = [(0, ChunkRow { id: chunk_id(&run.id_key, ChunkKind::Data, b"12345"), len: 5 })];
        let kept = || run.hold_against(&file, &rows, &mut Vec::new());
        assert_eq!(kept(), [true]);
        file.give_up(DAMAGED);
        assert_eq!(kept(), [true]);
        file.give_up(FAILED);
        assert_eq!(kept(), [false]);
    }
}
