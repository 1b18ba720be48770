//! What one pack's bytes must be: their hash, their directory, and every segment opened to the chunks it should hold.

use std::collections::HashMap;
use std::sync::Arc;

use super::finding::{BadPack, Problem};
use super::pipeline::Verdict;
use super::read::is_fatal;
use super::said::Said;
use crate::crypto::{ObjectHasher, SecretKey, chunk_id, context, object_hash};
use crate::format::FormatError;
use crate::format::envelope::{ChunkKind, ObjectKind, Preamble};
use crate::format::pack::{Directory, Footer, PackedChunk, Proof};
use crate::format::segment::SegmentEntry;
use crate::id::PackId;
use crate::index::{PackNumber, View};
use crate::repo::{
    RepoError, Repository, merkle_root, open_directory, origin_message, proven_root, segment_leaf,
};
use crate::seal::SegmentOpener;

/// What all threads share.
pub(super) struct PackChecker {
    pub(super) repo: Repository,
    pub(super) view: View,
    said: Arc<Said>,
    index_key: SecretKey,
    id_key: SecretKey,
}

/// What a pack turned out to be.
#[derive(Default)]
pub(super) struct PackOutcome {
    pub(super) problems: Vec<Problem>,
    pub(super) bad: Option<BadPack>,
    pub(super) chunks: u64,
}

impl PackOutcome {
    pub(super) fn verdict(self) -> Verdict<Self> {
        Verdict { suspicious: !self.problems.is_empty(), answer: self }
    }
}

/// Compares the hash alone.
pub(super) fn check_hash(id: PackId, bytes: &[u8]) -> PackOutcome {
    let mut outcome = PackOutcome::default();
    if PackId::from(object_hash(bytes)) != id {
        outcome.problems.push(Problem::HashMismatch);
    }
    outcome
}

impl PackChecker {
    pub(super) fn new(repo: &Repository, view: View, said: Arc<Said>) -> Result<Arc<Self>, RepoError> {
        Ok(Arc::new(Self {
            repo: repo.clone(),
            view,
            said,
            index_key: repo.index_key()?.clone(),
            id_key: repo.dedup_key(context::CHUNK_ID)?,
        }))
    }
}

/// One thread's part.
pub(super) struct PackWorker {
    shared: Arc<PackChecker>,
    opener: SegmentOpener,
    plain: Vec<u8>,
}

/// The segments as whoever restores would look for them.
struct Rows {
    kind: ChunkKind,
    segments: Vec<SegmentEntry>,
    number: Option<PackNumber>,
}

impl PackWorker {
    pub(super) fn new(shared: &Arc<PackChecker>) -> Result<Self, RepoError> {
        Ok(Self {
            shared: Arc::clone(shared),
            opener: SegmentOpener::new(shared.repo.id())?,
            plain: Vec::new(),
        })
    }

    /// Checks everything about a pack. An error is one of the run; what is wrong with the pack is in the outcome.
    pub(super) fn check(&mut self, id: PackId, bytes: &[u8]) -> Result<PackOutcome, RepoError> {
        let mut outcome = PackOutcome::default();
        let shared = Arc::clone(&self.shared);
        let opened = open_directory(&shared.index_key, shared.repo.id(), bytes, bytes.len() as u64);
        let preamble = Preamble::expect(bytes, ObjectKind::Pack, &shared.repo.id());
        // One pass gives both hashes.
        let body = opened.as_ref().map_or(bytes.len(), |(footer, _)| footer.directory_offset as usize);
        let (body, rest) = bytes.split_at(body.min(bytes.len()));
        let mut hasher = ObjectHasher::new();
        hasher.update(body);
        let body_hash = hasher.finish();
        hasher.update(rest);
        if PackId::from(hasher.finish()) != id {
            outcome.problems.push(Problem::HashMismatch);
        }
        let directory = match (opened, &preamble) {
            (Ok((footer, directory)), Ok(_)) => Some((footer, directory)),
            (Err(error), _) => {
                outcome.problems.push(Problem::Directory(error));
                None
            }
            (_, Err(rule)) => {
                outcome.problems.push(Problem::Directory(rule.clone().into()));
                None
            }
        };
        if directory.as_ref().is_some_and(|(_, directory)| directory.body_hash != *body_hash.as_bytes()) {
            outcome.problems.push(Problem::BodyHash);
        }
        let rows = shared.rows(id, (preamble.ok(), directory.as_ref()), bytes.len(), &mut outcome)?;
        let Some(rows) = rows else {
            outcome.bad = Some(BadPack::Whole);
            return Ok(outcome);
        };
        self.check_segments(&rows, directory.as_ref().map(|(_, directory)| directory), bytes, &mut outcome)?;
        Ok(outcome)
    }

    fn check_segments(
        &mut self,
        rows: &Rows,
        directory: Option<&Directory>,
        bytes: &[u8],
        outcome: &mut PackOutcome,
    ) -> Result<(), RepoError> {
        let mut damaged = Vec::new();
        let mut leaves = Vec::with_capacity(rows.segments.len());
        let mut chunks = directory.map_or(&[][..], |directory| &directory.chunks[..]);
        for (number, segment) in rows.segments.iter().enumerate() {
            let own = chunks.iter().take_while(|chunk| usize::from(chunk.segment) == number).count();
            let (own, after) = chunks.split_at(own);
            chunks = after;
            let start = segment.offset as usize;
            let stored = bytes.get(start..start + segment.stored_len as usize).unwrap_or(&[]);
            // Another segment may stand in the directory here; then its chunks say nothing of this one.
            let same =
                directory.is_none_or(|d| d.segments.get(number).is_some_and(|s| same_segment(s, segment)));
            let key = self.shared.sealed_key(rows, segment, directory)?.to_vec();
            match self.check_segment((rows.kind, segment, &key), stored, if same { own } else { &[] }) {
                Ok(()) => {}
                Err(error) if is_fatal(&error) => return Err(error),
                Err(_) => damaged.push(number as u16),
            }
            leaves.push(segment_leaf(stored, own.iter().map(|chunk| (&chunk.id, chunk.len))));
            outcome.chunks += own.len() as u64;
        }
        if !chunks.is_empty() {
            outcome.problems.push(Problem::IndexDiffers { what: "the order of chunks" });
        }
        if !damaged.is_empty() {
            let of = rows.segments.len();
            outcome.problems.push(Problem::Segments { damaged: damaged.len(), of });
            outcome.bad = Some(BadPack::Segments(damaged));
        } else if let Some(directory) = directory {
            self.shared.check_origin(directory, &leaves, outcome);
        }
        Ok(())
    }

    /// Opens one segment and names every chunk again.
    fn check_segment(
        &mut self,
        (kind, segment, sealed): (ChunkKind, &SegmentEntry, &[u8]),
        stored: &[u8],
        chunks: &[PackedChunk],
    ) -> Result<(), RepoError> {
        let shared = &self.shared;
        let key = shared.repo.open_data_key(sealed)?;
        if key.kind() != kind {
            return Err(FormatError::Value { section: "5", what: "kind of a data key" }.into());
        }
        self.opener.open(&key, segment, stored, &mut self.plain)?;
        for chunk in chunks {
            let start = chunk.offset as usize;
            let plain = self.plain.get(start..start + chunk.len as usize).ok_or(FormatError::Truncated)?;
            if chunk_id(&shared.id_key, kind, plain) != chunk.id {
                return Err(FormatError::Value { section: "3", what: "chunk table" }.into());
            }
        }
        Ok(())
    }
}

impl PackChecker {
    /// The segments by the index, and where the directory disagrees; by the directory if the pack is not indexed.
    fn rows(
        &self,
        id: PackId,
        (preamble, directory): (Option<Preamble>, Option<&(Footer, Directory)>),
        len: usize,
        outcome: &mut PackOutcome,
    ) -> Result<Option<Rows>, RepoError> {
        let Some(number) = self.view.pack_by_id(&id)? else {
            let rows = preamble.zip(directory).map(|(preamble, (_, directory))| Rows {
                kind: preamble.chunk_kind,
                segments: directory.segments.clone(),
                number: None,
            });
            return Ok(rows);
        };
        let row = self.view.pack(number)?;
        let rows = Rows { kind: row.kind, segments: self.view.segments(number)?, number: Some(number) };
        let Some((footer, directory)) = directory else { return Ok(Some(rows)) };
        let place = (footer.directory_offset, footer.directory_len, len);
        if place != (row.directory_offset, row.directory_len, row.size as usize)
            || preamble.is_some_and(|preamble| preamble.chunk_kind != row.kind)
        {
            outcome.problems.push(Problem::IndexDiffers { what: "the pack's row" });
        }
        if !self.same_segments(number, &rows, directory)? {
            outcome.problems.push(Problem::IndexDiffers { what: "the segments" });
        }
        if !self.said.agrees(&id, directory) {
            outcome.problems.push(Problem::IndexDiffers { what: "the chunks" });
        }
        Ok(Some(rows))
    }

    fn same_segments(
        &self,
        number: PackNumber,
        rows: &Rows,
        directory: &Directory,
    ) -> Result<bool, RepoError> {
        if rows.segments.len() != directory.segments.len() {
            return Ok(false);
        }
        for (row, segment) in rows.segments.iter().zip(&directory.segments) {
            let sealed = self.view.data_key(self.view.segment_key(number, row)?)?;
            let own = directory.data_keys.get(usize::from(segment.data_key));
            if !same_segment(row, segment) || own.is_none_or(|own| own != sealed) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn sealed_key<'a>(
        &'a self,
        rows: &Rows,
        segment: &SegmentEntry,
        directory: Option<&'a Directory>,
    ) -> Result<&'a [u8], RepoError> {
        match (rows.number, directory) {
            (Some(number), _) => Ok(self.view.data_key(self.view.segment_key(number, segment)?)?),
            (None, Some(directory)) => {
                Ok(directory.data_keys.get(usize::from(segment.data_key)).map_or(&[][..], Vec::as_slice))
            }
            (None, None) => Ok(&[]),
        }
    }

    /// Who first sealed a segment has signed for it: for all that are here without a proof together, for each moved one by
    /// its proof.
    fn check_origin(&self, directory: &Directory, leaves: &[[u8; 32]], outcome: &mut PackOutcome) {
        let proofs: HashMap<u16, &Proof> = directory.proofs.iter().map(|p| (p.segment, p)).collect();
        let rows = directory.segments.iter().zip(leaves).enumerate();
        let mut own: Vec<Vec<[u8; 32]>> = vec![Vec::new(); directory.origins.len()];
        let mut good = true;
        for (number, (segment, leaf)) in rows {
            match proofs.get(&(number as u16)) {
                None => own[usize::from(segment.origin)].push(*leaf),
                Some(proof) => good &= self.is_signed(directory, segment.origin, proven_root(*leaf, proof)),
            }
        }
        for (origin, leaves) in own.into_iter().enumerate().filter(|(_, leaves)| !leaves.is_empty()) {
            good &= self.is_signed(directory, origin as u8, Some(merkle_root(leaves)));
        }
        if !good {
            outcome.problems.push(Problem::OriginSignature);
        }
    }

    fn is_signed(&self, directory: &Directory, origin: u8, root: Option<[u8; 32]>) -> bool {
        let row = usize::from(origin);
        let signed = directory.origins.get(row).zip(directory.signatures.get(row)).zip(root);
        signed.is_some_and(|((origin, signature), root)| {
            let message = origin_message(&self.repo.id(), &root);
            self.repo.is_origin(origin, &message, signature)
        })
    }
}

fn same_segment(a: &SegmentEntry, b: &SegmentEntry) -> bool {
    let place = |s: &SegmentEntry| (s.offset, s.stored_len, s.plain_len, s.codec, s.n1, s.n2);
    place(a) == place(b)
}
