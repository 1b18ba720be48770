//! Where the content of a file goes: into a file of the target directory, or onto a block device.

use std::ops::Range;
use std::sync::Arc;

use super::entries::{DAMAGED, FAILED, File};
use super::flaw::Flaw;
use super::layout::without_zeroes;
use super::run::{EntryProblem, Run};
use crate::class::Class;
use crate::source::target::{
    LinkSource, Metadata, MetadataFailure, Target, TargetDevice, TargetError, TargetFile,
};

/// Runs of zeroes within content that are at least this long are left to the device.
const RUN_LEAST: usize = 64 << 10;
/// Bytes that are read back at a time.
const READ: u64 = 1 << 20;

/// What a restore writes to.
#[derive(Debug)]
pub(super) enum Place {
    /// A directory.
    Directory(Target),
    /// A block device, which takes one file.
    Device(Arc<TargetDevice>),
}

/// What a file is written to.
#[derive(Debug)]
pub(super) enum Output {
    /// A file that is new, or kept where it matches.
    File(TargetFile),
    /// A device.
    Device(Arc<TargetDevice>),
}

impl Output {
    /// Writes a piece of content; with `sparse` blocks of zeroes become holes of a file.
    pub(super) fn write_at(&self, bytes: &[u8], offset: u64, sparse: bool) -> Result<(), TargetError> {
        let part =
            |range: Range<usize>| (bytes.get(range.clone()).unwrap_or_default(), offset + range.start as u64);
        match self {
            Self::File(file) if !sparse => file.write_at(bytes, offset),
            Self::File(file) => {
                let mut end = 0;
                let written = without_zeroes(bytes, offset).try_for_each(|range| {
                    // What stood before may stand where the zeroes belong.
                    file.clear(offset + end as u64, (range.start - end) as u64)?;
                    end = range.end;
                    let (bytes, place) = part(range);
                    file.write_at(bytes, place)
                });
                written.and_then(|()| file.clear(offset + end as u64, (bytes.len() - end) as u64))
            }
            Self::Device(device) => runs(bytes, offset).into_iter().try_for_each(|(range, zeroes)| {
                let (bytes, place) = part(range);
                match zeroes {
                    true => device.zero_run(place..place + bytes.len() as u64),
                    false => device.write_at(bytes, place),
                }
            }),
        }
    }

    /// Reads back exactly what `buffer` has room for.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), TargetError> {
        match self {
            Self::File(file) => file.read_at(buffer, offset),
            Self::Device(device) => device.read_at(buffer, offset),
        }
    }

    /// Completes what was written; what further names of a file need comes back too.
    pub(super) fn finish(
        self,
        metadata: &Metadata<'_>,
    ) -> Result<(Option<LinkSource>, Vec<MetadataFailure>), TargetError> {
        match self {
            Self::File(file) => file.finish_linked(metadata).map(|(source, unset)| (Some(source), unset)),
            Self::Device(device) => device.settle().map(|()| (None, Vec::new())),
        }
    }

    /// Gives it up because the run ends.
    pub(super) fn abandon(self) -> Result<(), TargetError> {
        match self {
            Self::File(file) => file.abandon(),
            Self::Device(device) => device.settle(),
        }
    }

    /// Whether a file that stood before is neither the old one nor the new one.
    pub(super) fn is_mixed(&self) -> bool {
        match self {
            Self::File(file) => file.is_mixed(),
            Self::Device(_) => false,
        }
    }

    /// Removes what cannot be completed. From a device nothing can be taken back: what it has, it shall keep.
    pub(super) fn discard(self) -> Result<(), TargetError> {
        match self {
            Self::File(file) => file.discard(),
            Self::Device(device) => device.settle(),
        }
    }
}

/// The ranges of `bytes`, in order and without gaps, and whether one is a long run of zeroes.
fn runs(bytes: &[u8], offset: u64) -> Vec<(Range<usize>, bool)> {
    let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
    let mut end = 0;
    for data in without_zeroes(bytes, offset).chain(std::iter::once(bytes.len()..bytes.len())) {
        if data.start - end >= RUN_LEAST {
            runs.push((end..data.start, true));
            end = data.start;
        }
        match runs.last_mut() {
            Some((last, false)) => last.end = data.end,
            _ if end < data.end => runs.push((end..data.end, false)),
            _ => {}
        }
        end = data.end;
    }
    runs
}

impl Run {
    /// The directory that is written to, if it is one.
    pub(super) fn directory(&self) -> Option<&Target> {
        match &self.target {
            Some(Place::Directory(target)) => Some(target),
            _ => None,
        }
    }

    /// Whether more of a file is to be written. A device gets what there is, also if a part is lost.
    pub(super) fn goes_on(&self, file: &File) -> bool {
        file.takes_content() || (matches!(self.target, Some(Place::Device(_))) && file.is_only_damaged())
    }

    /// How a file is named of which a part is lost.
    pub(super) fn loss(&self) -> EntryProblem {
        match self.target {
            Some(Place::Device(_)) => EntryProblem::LostOnDevice,
            _ => Flaw::Lost.into(),
        }
    }

    /// Makes a hole of the file zeroes on the device.
    pub(super) fn zero(&self, file: &Arc<File>, range: Range<u64>) {
        if let Some(Place::Device(device)) = &self.target
            && self.goes_on(file)
            && let Err(error) = device.zero(range)
        {
            file.give_up(FAILED);
            self.report_refused(file.path(), error);
        }
        self.done_with_chunk(file);
    }

    /// Whether the holes of a file read as zeroes on the device; a difference is reported. In a new file they do.
    pub(super) fn holes_read_back(&self, file: &File) -> bool {
        let Some(Place::Device(device)) = &self.target else { return true };
        let mut buffer = vec![0; READ as usize];
        for hole in file.layout.holes() {
            let mut at = hole.start;
            while at < hole.end {
                let len = (hole.end - at).min(READ);
                let buffer = &mut buffer[..len as usize];
                if let Err(error) = device.read_at(buffer, at) {
                    file.give_up(FAILED);
                    self.report_refused(file.path(), error);
                    return false;
                }
                if !crate::chunk::is_zero(buffer) {
                    file.give_up(FAILED);
                    self.report_failed(file.path(), &EntryProblem::ReadBack, Class::Failed);
                    return false;
                }
                at += len;
            }
        }
        true
    }
}

impl File {
    /// Whether nothing is wrong but that a part of its content is lost.
    fn is_only_damaged(&self) -> bool {
        self.state.load(std::sync::atomic::Ordering::Relaxed) == DAMAGED
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_cover_everything_once_and_only_long_zeroes_are_apart(
            parts in prop::collection::vec((any::<bool>(), 1_usize..200_000), 0..6),
            offset in 0_u64..9000,
        ) {
            let bytes: Vec<u8> = parts.into_iter().flat_map(|(zero, len)| vec![u8::from(!zero); len]).collect();
            let (mut end, mut last) = (0, None);
            for (range, zeroes) in runs(&bytes, offset) {
                prop_assert!(range.start == end && !range.is_empty());
                prop_assert!(last != Some(zeroes), "neighbours are of two kinds");
                prop_assert!(!zeroes || (range.len() >= RUN_LEAST && bytes[range.clone()].iter().all(|b| *b == 0)));
                (end, last) = (range.end, Some(zeroes));
            }
            prop_assert_eq!(end, bytes.len());
        }
    }

    #[test]
    fn a_chunk_of_zeroes_is_one_run() {
        assert_eq!(runs(&[0; 1 << 18], 0), [(0..1 << 18, true)]);
        assert_eq!(runs(&[0; 4096], 0), [(0..4096, false)]);
        assert_eq!(runs(&[], 0), []);
    }
}
