//! Snapshots, labels and confirmations that were read and verified before: opening one costs a decapsulation, and there
//! may be thousands.
//!
//! ```text
//! frames: salt 32 | length u32 | sealed; a frame's plaintext is records: id 32 | length u32 | body
//! ```
//!
//! A snapshot's record is under the hash of its whole name: a copy under another name is not it. So is a confirmation's, which
//! is empty. The record of labels is under the hash in their name, and holds their author and their body.
//!
//! # Invariants
//! Each frame is sealed with the local-state key under a salt of its own, so processes may append at the same time and
//! what is damaged or foreign is ignored.
//!
//! # Crash
//! A torn frame ends the reading; the next run writes the file anew. Losing it costs reading the snapshots again.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::crypto::{ObjectSealer, SecretKey, context, object_hash};
use crate::format::envelope::ObjectKind;
use crate::format::labels::Labels;
use crate::format::layout::ObjectName;
use crate::format::segment::TAG_LEN;
use crate::format::snapshot::{SNAPSHOT, Snapshot};
use crate::format::wire::Reader;
use crate::id::{ObjectHash, RepositoryId, WriterId};
use crate::random::{Random, random_array};
use crate::repo::{Listed, Repository, StoredLabels};

/// Longest file that is read.
const FILE_MAX: u64 = 1 << 30;
/// A frame is closed at this many bytes of plaintext.
const FRAME: usize = 1 << 20;
/// With more frames the file is written anew: opening each costs a key.
const FRAMES_MAX: usize = 64;
/// So few records are no reason to write the file anew.
const KEPT_LEAST: usize = 2;

/// The cache of one run. Nothing it meets is an error: without a usable file there is no cache.
pub(super) struct BodyCache {
    place: Option<Place>,
    /// Plaintext of all frames, one behind another.
    plain: Vec<u8>,
    bodies: HashMap<ObjectHash, Range<usize>>,
    new: Vec<u8>,
    frames: usize,
    /// Whether the file holds something that is of no use.
    torn: bool,
}

struct Place {
    path: PathBuf,
    key: SecretKey,
    repository: RepositoryId,
    random: std::sync::Arc<dyn Random>,
}

impl BodyCache {
    /// Reads the repository's cache, if it has one.
    pub(super) fn open(repo: &Repository) -> Self {
        let place = repo.env().places.cache.as_ref().and_then(|cache| {
            Some(Place {
                path: cache.join(repo.id().to_string()).join("snapshots"),
                key: repo.dedup_key(context::LOCAL_STATE).ok()?,
                repository: repo.id(),
                random: std::sync::Arc::clone(&repo.env().random),
            })
        });
        let mut cache = Self {
            place,
            plain: Vec::new(),
            bodies: HashMap::new(),
            new: Vec::new(),
            frames: 0,
            torn: false,
        };
        if let Some(place) = &cache.place
            && let Ok(bytes) = read_file(&place.path)
        {
            cache.load(&bytes);
        }
        cache
    }

    fn load(&mut self, bytes: &[u8]) {
        let mut reader = Reader::new(bytes);
        self.plain.reserve(bytes.len());
        while reader.remaining() > 0 {
            let Some(mut frame) = self.place.as_ref().and_then(|place| place.open_frame(&mut reader)) else {
                self.torn = true;
                return;
            };
            self.frames += 1;
            let base = self.plain.len();
            self.plain.append(&mut frame);
            self.torn |= self.index(base).is_none();
        }
    }

    /// Notes where the records from `base` on are.
    fn index(&mut self, base: usize) -> Option<()> {
        let mut reader = Reader::new(&self.plain[base..]);
        while reader.remaining() > 0 {
            let id = ObjectHash::new(reader.array().ok()?);
            let len = reader.u32().ok()? as usize;
            let start = self.plain.len() - reader.remaining();
            reader.bytes(len).ok()?;
            self.bodies.insert(id, start..start + len);
        }
        Some(())
    }

    /// The body of this snapshot, if it was read before.
    pub(super) fn get(&self, listed: &Listed) -> Option<Snapshot> {
        Snapshot::decode_body(self.body(&body(listed))?).ok()
    }

    /// The labels of this name, if they were read before.
    pub(super) fn labels(&self, hash: &ObjectHash) -> Option<StoredLabels> {
        let mut reader = Reader::new(self.body(hash)?);
        let author = WriterId::new(reader.array().ok()?);
        let labels = Labels::decode_body(reader.bytes(reader.remaining()).ok()?).ok()?;
        Some(StoredLabels { hash: *hash, author, labels })
    }

    /// Whether the signature of this snapshot's confirmation was checked before.
    pub(super) fn is_confirmed(&self, listed: &Listed) -> bool {
        self.bodies.contains_key(&confirmation(listed))
    }

    fn body(&self, id: &ObjectHash) -> Option<&[u8]> {
        self.plain.get(self.bodies.get(id)?.clone())
    }

    /// Takes a body that was read and verified.
    pub(super) fn add(&mut self, listed: &Listed, snapshot: &Snapshot) {
        self.record(body(listed), &[&snapshot.encode_body()]);
    }

    /// Takes labels that were read and verified.
    pub(super) fn add_labels(&mut self, labels: &StoredLabels) {
        self.record(labels.hash, &[labels.author.as_bytes(), &labels.labels.encode_body()]);
    }

    /// Takes note of a confirmation whose signature is right.
    pub(super) fn add_confirmed(&mut self, listed: &Listed) {
        self.record(confirmation(listed), &[]);
    }

    fn record(&mut self, id: ObjectHash, parts: &[&[u8]]) {
        if self.place.is_none() {
            return;
        }
        append_record(&mut self.new, id, parts);
    }

    /// Writes what is new. A file of far more than belongs to the snapshots and labels that are `listed` is written anew with
    /// that alone; who does not know what is listed keeps everything.
    pub(super) fn save(&mut self, listed: Option<(&[Listed], &[ObjectHash])>) {
        let Some(place) = &self.place else { return };
        let of_use = listed.map(|(snapshots, labels)| {
            let of_snapshots = snapshots.iter().flat_map(|listed| [body(listed), confirmation(listed)]);
            of_snapshots.chain(labels.iter().copied()).collect::<HashSet<_>>()
        });
        let keeps = |id: &ObjectHash| of_use.as_ref().is_none_or(|of_use| of_use.contains(id));
        let kept = self.bodies.keys().filter(|id| keeps(id)).count();
        let anew = self.torn || self.frames > FRAMES_MAX || self.bodies.len() > 2 * kept.max(KEPT_LEAST);
        if self.new.is_empty() && !anew {
            return;
        }
        // A cache that cannot be written costs time in the next run, which is no reason to fail this one.
        let _ =
            if anew { place.rewrite(&[&self.records(keeps), &self.new]) } else { place.append(&self.new) };
    }

    /// The records that were read and that `keeps` wants, each once.
    fn records(&self, keeps: impl Fn(&ObjectHash) -> bool) -> Vec<u8> {
        let mut records = Vec::new();
        for (id, range) in self.bodies.iter().filter(|(id, _)| keeps(id)) {
            let Some(body) = self.plain.get(range.clone()) else { continue };
            append_record(&mut records, *id, &[body]);
        }
        records
    }
}

fn append_record(out: &mut Vec<u8>, id: ObjectHash, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(&(len as u32).to_le_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// What stands for a snapshot.
fn body(listed: &Listed) -> ObjectHash {
    named(ObjectName::Snapshot(listed.writer, listed.sequence, listed.id))
}

/// What stands for the confirmation of a snapshot.
fn confirmation(listed: &Listed) -> ObjectHash {
    named(ObjectName::Confirmation(listed.writer, listed.sequence, listed.id))
}

fn named(name: ObjectName) -> ObjectHash {
    object_hash(name.key().as_bytes())
}

impl Place {
    fn sealer(&self, salt: &[u8; 32]) -> ObjectSealer {
        ObjectSealer::new(&self.key, salt, self.repository, ObjectKind::LocalState)
    }

    fn open_frame(&self, reader: &mut Reader<'_>) -> Option<Vec<u8>> {
        let salt = reader.array().ok()?;
        let len = reader.u32().ok()? as usize;
        let mut sealed = reader.bytes(len).ok()?.to_vec();
        self.sealer(&salt).open_block(0, 1, &mut sealed).ok()?;
        Some(sealed)
    }

    /// Seals records into frames of about [`FRAME`] bytes.
    fn frames(&self, records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut rest = records;
        while !rest.is_empty() {
            let len = frame_len(rest);
            let (frame, after) = rest.split_at(len);
            let salt = random_array(&*self.random).map_err(io::Error::other)?;
            let mut sealed = Vec::with_capacity(frame.len() + TAG_LEN);
            sealed.extend_from_slice(frame);
            self.sealer(&salt).seal_block(0, 1, &mut sealed).map_err(io::Error::other)?;
            out.extend_from_slice(&salt);
            out.extend_from_slice(&(sealed.len() as u32).to_le_bytes());
            out.extend_from_slice(&sealed);
            rest = after;
        }
        Ok(())
    }

    fn append(&self, records: &[u8]) -> io::Result<()> {
        let mut frames = Vec::new();
        self.frames(records, &mut frames)?;
        make_directory(&self.path)?;
        // In one write, so that frames of two processes do not mix.
        OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?.write_all(&frames)
    }

    fn rewrite(&self, records: &[&[u8]]) -> io::Result<()> {
        let mut frames = Vec::new();
        for records in records {
            self.frames(records, &mut frames)?;
        }
        make_directory(&self.path)?;
        let suffix = u64::from_le_bytes(random_array(&*self.random).map_err(io::Error::other)?);
        let part = self.path.with_extension(format!("{suffix:016x}"));
        let written = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&part)
            .and_then(|mut file| file.write_all(&frames))
            .and_then(|()| fs::rename(&part, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&part);
        }
        written
    }
}

/// Bytes of the whole records that make up the next frame.
fn frame_len(records: &[u8]) -> usize {
    let mut reader = Reader::new(records);
    let mut end = 0;
    while end < FRAME {
        let next = reader.bytes(ObjectHash::LEN).and_then(|_| reader.u32()).map(|len| len as usize);
        if next.and_then(|len| reader.bytes(len)).is_err() {
            break;
        }
        end = records.len() - reader.remaining();
    }
    // Records of a torn frame are not taken over: what is left cannot be told apart.
    if end == 0 { records.len() } else { end }
}

fn make_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => DirBuilder::new().recursive(true).mode(0o700).create(parent),
        None => Ok(()),
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = Vec::with_capacity(file.metadata()?.len().min(FILE_MAX) as usize + 1);
    file.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

const _: () = assert!(FRAME + SNAPSHOT.max < u32::MAX as usize, "a frame's length fits its field");
