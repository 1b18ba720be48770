//! `docs/format.md` section 11: anchors, which say what a store has shown.
//!
//! # Invariants
//! An anchor is known by its hash to whoever relies on it. So what it says, and what the anchors say that it builds on, is
//! believed without a signature.

use super::FormatError;
use super::cbor::{Cbor, encode};
use crate::id::{ObjectHash, SnapshotId, WriterId};

const SECTION: &str = "11";

/// Most snapshots of one anchor.
pub const ANCHORED_MAX: usize = 400_000;
/// Most writers of one anchor.
pub const ANCHORED_WRITERS_MAX: usize = 65_536;

/// What a store showed to whoever put this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Who put it.
    pub author: WriterId,
    /// Number of the configuration.
    pub config: u64,
    /// Each writer with the number of the entry of the registry that counted.
    pub writers: Vec<(WriterId, u64)>,
    /// Confirmed snapshots, ascending, without those of `base`.
    pub snapshots: Vec<SnapshotId>,
    /// An anchor whose snapshots this one covers, too.
    pub base: Option<ObjectHash>,
}

impl Anchor {
    /// The CBOR value.
    pub fn encode(&self) -> Vec<u8> {
        encode(|e| {
            e.map(4 + u64::from(self.base.is_some()))?;
            e.u8(0)?.bytes(self.author.as_bytes())?;
            e.u8(1)?.u64(self.config)?;
            e.u8(2)?.array(self.writers.len() as u64)?;
            for (writer, number) in &self.writers {
                e.array(2)?.bytes(writer.as_bytes())?.u64(*number)?;
            }
            e.u8(3)?.array(self.snapshots.len() as u64)?;
            for snapshot in &self.snapshots {
                e.bytes(snapshot.as_bytes())?;
            }
            if let Some(base) = &self.base {
                e.u8(4)?.bytes(base.as_bytes())?;
            }
            Ok(())
        })
    }

    /// Reads the CBOR value.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut author, mut config, mut writers, mut snapshots) = (None, None, None, None);
        let mut base = None;
        let mut d = Cbor::new(bytes, SECTION, "anchor");
        d.map(|d, field| {
            match field {
                0 => author = Some(WriterId::new(d.fixed()?)),
                1 => config = Some(d.u64()?),
                2 => writers = Some(d.array(ANCHORED_WRITERS_MAX as u64, decode_writer)?),
                3 => {
                    snapshots = Some(d.array(ANCHORED_MAX as u64, |d| Ok(SnapshotId::new(d.fixed()?)))?);
                }
                4 => base = Some(ObjectHash::new(d.fixed()?)),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let missing = d.value("anchor");
        d.finish(bytes.len())?;
        match (author, config, writers, snapshots) {
            (Some(author), Some(config), Some(writers), Some(snapshots)) => {
                Ok(Self { author, config, writers, snapshots, base })
            }
            _ => Err(missing),
        }
    }
}

fn decode_writer(d: &mut Cbor<'_>) -> Result<(WriterId, u64), FormatError> {
    let (mut writer, mut number, mut field) = (WriterId::new([0; 16]), 0, 0);
    d.array(2, |d| {
        match field {
            0 => writer = WriterId::new(d.fixed()?),
            _ => number = d.u64()?,
        }
        field += 1;
        Ok(())
    })?;
    if field == 2 { Ok((writer, number)) } else { Err(d.value("writer of an anchor")) }
}
