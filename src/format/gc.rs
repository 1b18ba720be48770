//! `docs/format.md` section 11: what collection says to writers and readers: condemnations, horizons, tombs and their
//! undoing, removals, holds, trims.
//!
//! # Invariants
//! Each value names its author, who signed the object; which authority counts is for the reader to check. Those that may
//! be deleted again carry a nonce, so that no name is ever used twice.

use super::FormatError;
use super::cbor::{Cbor, Out, Written, encode};
use super::log::SegmentName;
use crate::id::{ClusterId, ObjectHash, PackId, SnapshotId, WriterId};

const SECTION: &str = "11";

/// Most packs in one condemnation.
pub const PACKS_MAX: usize = 400_000;
/// Most snapshots in one removal or hold, and most tombs in one undo.
pub const SNAPSHOTS_MAX: usize = 400_000;
/// Most removals that one removal replaces: with as many snapshots as it may name it still fits into an object.
pub const REPLACED_MAX: usize = 50_000;

/// Most timelines in one trim.
pub const TIMELINES_MAX: usize = 65_536;

/// Random bytes that make a name unique.
pub type Nonce = [u8; 16];

/// Packs that will be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condemnation {
    /// Who condemned them; must hold the authority of a maintainer.
    pub author: WriterId,
    /// The packs.
    pub packs: Vec<PackId>,
    /// Makes the name unique.
    pub nonce: Nonce,
}

/// A numbered mark: what was condemned before it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// Who collected; must hold the authority of a maintainer.
    pub author: WriterId,
    /// The number, which is in the name too.
    pub number: u64,
    /// Makes the name unique.
    pub nonce: Nonce,
}

/// Why a snapshot was given a tomb. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TombReason {
    /// A retention policy did not keep it.
    Policy = 0,
    /// Someone named it.
    Named = 1,
    /// It was never confirmed.
    Unconfirmed = 2,
}

/// The wish to remove a snapshot, honoured after a delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tomb {
    /// Who wants it; must hold the authority of a maintainer.
    pub author: WriterId,
    /// Who wrote the snapshot.
    pub writer: WriterId,
    /// Its number among the writer's snapshots.
    pub sequence: u64,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Why.
    pub reason: TombReason,
    /// Makes the name unique.
    pub nonce: Nonce,
}

/// Takes tombs back: exactly those it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undo {
    /// Who takes them back; must hold the authority of a maintainer.
    pub author: WriterId,
    /// The hashes of the tombs.
    pub tombs: Vec<ObjectHash>,
}

/// Snapshots that are removed, or about to be: from here on it is too late to hold or undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Who removes them; must hold the authority of a maintainer.
    pub author: WriterId,
    /// The snapshots.
    pub snapshots: Vec<SnapshotId>,
    /// Makes the name unique.
    pub nonce: Nonce,
    /// Removals that say nothing any more, because of this one.
    pub replaces: Vec<ObjectHash>,
}

/// Snapshots that nobody may remove while the hold stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Who holds them; must hold the authority of a maintainer.
    pub author: WriterId,
    /// The snapshots.
    pub snapshots: Vec<SnapshotId>,
    /// Until when, nanoseconds since 1970 on the store's clock; for ever if there is none.
    pub until: Option<i64>,
    /// Makes the name unique.
    pub nonce: Nonce,
}

/// Parts of a database's log that may be gone: segments that end at or before a position of their timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trim {
    /// Who trims it; must hold the authority of a maintainer.
    pub author: WriterId,
    /// The cluster.
    pub cluster: ClusterId,
    /// Number of its history.
    pub history: u64,
    /// Timelines, ascending, each with its position.
    pub below: Vec<(u32, u64)>,
    /// Makes the name unique.
    pub nonce: Nonce,
}

fn put_ids<'a, const N: usize>(e: &mut Out<'_>, ids: impl ExactSizeIterator<Item = &'a [u8; N]>) -> Written {
    e.array(ids.len() as u64)?;
    for id in ids {
        e.bytes(id)?;
    }
    Ok(())
}

fn ids<T>(d: &mut Cbor<'_>, max: usize, make: impl Fn([u8; 32]) -> T) -> Result<Vec<T>, FormatError> {
    d.array(max as u64, |d| Ok(make(d.fixed()?)))
}

/// Reads a map whose field 0 is the author; `field` takes the others.
fn decode(
    bytes: &[u8],
    what: &'static str,
    mut field: impl FnMut(&mut Cbor<'_>, u32) -> Result<bool, FormatError>,
) -> Result<Option<WriterId>, FormatError> {
    let mut author = None;
    let mut d = Cbor::new(bytes, SECTION, what);
    d.map(|d, key| match key {
        0 => {
            author = Some(WriterId::new(d.fixed()?));
            Ok(true)
        }
        key => field(d, key),
    })?;
    d.finish(bytes.len())?;
    Ok(author)
}

fn missing(what: &'static str) -> FormatError {
    FormatError::Value { section: SECTION, what }
}

impl Condemnation {
    /// The CBOR value.
    pub fn encode(&self) -> Vec<u8> {
        encode(|e| {
            e.map(3)?.u8(0)?.bytes(self.author.as_bytes())?.u8(1)?;
            put_ids(e, self.packs.iter().map(PackId::as_bytes))?;
            e.u8(2)?.bytes(&self.nonce)?;
            Ok(())
        })
    }

    /// Reads the CBOR value.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut packs, mut nonce) = (None, None);
        let author = decode(bytes, "condemnation", |d, key| {
            match key {
                1 => packs = Some(ids(d, PACKS_MAX, PackId::new)?),
                2 => nonce = Some(d.fixed()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let whole = author.zip(packs).zip(nonce);
        let ((author, packs), nonce) = whole.ok_or(missing("condemnation"))?;
        Ok(Self { author, packs, nonce })
    }
}

impl Horizon {
    /// The CBOR value.
    pub fn encode(&self) -> Vec<u8> {
        encode(|e| {
            e.map(3)?.u8(0)?.bytes(self.author.as_bytes())?;
            e.u8(1)?.u64(self.number)?.u8(2)?.bytes(&self.nonce)?;
            Ok(())
        })
    }

    /// Reads the CBOR value.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut number, mut nonce) = (None, None);
        let author = decode(bytes, "horizon", |d, key| {
            match key {
                1 => number = Some(d.u64()?),
                2 => nonce = Some(d.fixed()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let whole = author.zip(number).zip(nonce);
        let ((author, number), nonce) = whole.ok_or(missing("horizon"))?;
        Ok(Self { author, number, nonce })
    }
}

impl TombReason {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Policy, Self::Named, Self::Unconfirmed].into_iter().find(|reason| *reason as u8 == number)
    }
}

impl Tomb {
    /// The CBOR value.
    pub fn encode(&self) -> Vec<u8> {
        encode(|e| {
            e.map(6)?.u8(0)?.bytes(self.author.as_bytes())?;
            e.u8(1)?.bytes(self.writer.as_bytes())?.u8(2)?.u64(self.sequence)?;
            e.u8(3)?.bytes(self.snapshot.as_bytes())?.u8(4)?.u8(self.reason as u8)?;
            e.u8(5)?.bytes(&self.nonce)?;
            Ok(())
        })
    }

    /// Reads the CBOR value.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut writer, mut sequence, mut snapshot) = (None, None, None);
        let (mut reason, mut nonce) = (None, None);
        let author = decode(bytes, "tomb", |d, key| {
            match key {
                1 => writer = Some(WriterId::new(d.fixed()?)),
                2 => sequence = Some(d.u64()?),
                3 => snapshot = Some(SnapshotId::new(d.fixed()?)),
                4 => reason = TombReason::from_number(d.u8()?),
                5 => nonce = Some(d.fixed()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let whole = author.zip(writer).zip(sequence).zip(snapshot).zip(reason.zip(nonce));
        let ((((author, writer), sequence), snapshot), (reason, nonce)) = whole.ok_or(missing("tomb"))?;
        Ok(Self { author, writer, sequence, snapshot, reason, nonce })
    }
}

impl Undo {
    /// The CBOR value.
    pub fn encode(&self) -> Vec<u8> {
        encode(|e| {
            e.map(2)?.u8(0)?.bytes(self.author.as_bytes())?.u8(1)?;
            put_ids(e, self.tombs.iter().map(ObjectHash::as_bytes))
        })
    }

    /// Reads the CBOR value.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut tombs = None;
        let author = decode(bytes, "undo", |d, key| {
            match key {
                1 => tombs = Some(ids(d, SNAPSHOTS_MAX, ObjectHash::new)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let (author, tombs) = author.zip(tombs).ok_or(missing("undo"))?;
        Ok(Self { author, tombs })
    }
}

impl Removal {
    /// The CBOR value.
    pub fn encode(&self) -> Vec<u8> {
        encode(|e| {
            e.map(3 + u64::from(!self.replaces.is_empty()))?.u8(0)?.bytes(self.author.as_bytes())?.u8(1)?;
            put_ids(e, self.snapshots.iter().map(SnapshotId::as_bytes))?;
            e.u8(2)?.bytes(&self.nonce)?;
            if !self.replaces.is_empty() {
                e.u8(3)?;
                put_ids(e, self.replaces.iter().map(ObjectHash::as_bytes))?;
            }
            Ok(())
        })
    }

    /// Reads the CBOR value.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut snapshots, mut nonce, mut replaces) = (None, None, Vec::new());
        let author = decode(bytes, "removal", |d, key| {
            match key {
                1 => snapshots = Some(ids(d, SNAPSHOTS_MAX, SnapshotId::new)?),
                2 => nonce = Some(d.fixed()?),
                3 => replaces = ids(d, REPLACED_MAX, ObjectHash::new)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let whole = author.zip(snapshots).zip(nonce);
        let ((author, snapshots), nonce) = whole.ok_or(missing("removal"))?;
        Ok(Self { author, snapshots, nonce, replaces })
    }
}

impl Trim {
    /// The position up to which a timeline may be gone; `None` if the trim says nothing of it.
    pub fn below(&self, timeline: u32) -> Option<u64> {
        let at = self.below.binary_search_by_key(&timeline, |(timeline, _)| *timeline).ok()?;
        Some(self.below[at].1)
    }

    /// Whether a segment of this size may be gone.
    pub fn covers(&self, name: SegmentName, size: u32) -> bool {
        let end = name.start(size).and_then(|start| start.checked_add(size.into()));
        end.is_some_and(|end| self.below(name.timeline).is_some_and(|below| end <= below))
    }

    /// Whether all that another one of the same log says is said by this one.
    pub fn includes(&self, other: &Self) -> bool {
        let further =
            |(timeline, below): &(u32, u64)| self.below(*timeline).is_some_and(|mine| mine >= *below);
        (self.cluster, self.history) == (other.cluster, other.history) && other.below.iter().all(further)
    }

    /// The CBOR value.
    pub fn encode(&self) -> Vec<u8> {
        encode(|e| {
            e.map(5)?.u8(0)?.bytes(self.author.as_bytes())?.u8(1)?.bytes(self.cluster.as_bytes())?;
            e.u8(2)?.u64(self.history)?.u8(3)?.array(self.below.len() as u64)?;
            for (timeline, below) in &self.below {
                e.array(2)?.u32(*timeline)?.u64(*below)?;
            }
            e.u8(4)?.bytes(&self.nonce)?;
            Ok(())
        })
    }

    /// Reads the CBOR value.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut cluster, mut history, mut below, mut nonce) = (None, None, None, None);
        let author = decode(bytes, "trim", |d, key| {
            match key {
                1 => cluster = Some(ClusterId::new(d.fixed()?)),
                2 => history = Some(d.u64()?),
                3 => below = Some(d.array(TIMELINES_MAX as u64, trimmed)?),
                4 => nonce = Some(d.fixed()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let below = below.filter(|below| below.is_sorted_by(|one, other| one.0 < other.0));
        let whole = author.zip(cluster).zip(history).zip(below.zip(nonce));
        let (((author, cluster), history), (below, nonce)) = whole.ok_or(missing("trim"))?;
        Ok(Self { author, cluster, history, below, nonce })
    }
}

fn trimmed(d: &mut Cbor<'_>) -> Result<(u32, u64), FormatError> {
    let (mut timeline, mut below, mut field) = (0, 0, 0);
    d.array(2, |d| {
        match field {
            0 => timeline = d.u32()?,
            _ => below = d.u64()?,
        }
        field += 1;
        Ok(())
    })?;
    if field == 2 && timeline > 0 { Ok((timeline, below)) } else { Err(missing("timeline of a trim")) }
}

impl Hold {
    /// The CBOR value.
    pub fn encode(&self) -> Vec<u8> {
        encode(|e| {
            e.map(3 + u64::from(self.until.is_some()))?.u8(0)?.bytes(self.author.as_bytes())?.u8(1)?;
            put_ids(e, self.snapshots.iter().map(SnapshotId::as_bytes))?;
            e.u8(2)?.bytes(&self.nonce)?;
            if let Some(until) = self.until {
                e.u8(3)?.i64(until)?;
            }
            Ok(())
        })
    }

    /// Reads the CBOR value.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut snapshots, mut nonce, mut until) = (None, None, None);
        let author = decode(bytes, "hold", |d, key| {
            match key {
                1 => snapshots = Some(ids(d, SNAPSHOTS_MAX, SnapshotId::new)?),
                2 => nonce = Some(d.fixed()?),
                3 => until = Some(d.i64()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let whole = author.zip(snapshots).zip(nonce);
        let ((author, snapshots), nonce) = whole.ok_or(missing("hold"))?;
        Ok(Self { author, snapshots, until, nonce })
    }
}
