//! `docs/format.md` section 11: condemnations, signed objects that a writer reads before it trusts a pack.

use super::FormatError;
use super::cbor::{Cbor, encode};
use crate::id::{PackId, WriterId};

/// Most packs in one condemnation.
const PACKS_MAX: u64 = 400_000;

/// Packs that will be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condemnation {
    /// Who condemned them; must hold the authority of a maintainer.
    pub author: WriterId,
    /// The packs.
    pub packs: Vec<PackId>,
}

impl Condemnation {
    /// The CBOR value.
    pub fn encode(&self) -> Vec<u8> {
        encode(|e| {
            e.map(2)?;
            e.u8(0)?.bytes(self.author.as_bytes())?;
            e.u8(1)?.array(self.packs.len() as u64)?;
            for pack in &self.packs {
                e.bytes(pack.as_bytes())?;
            }
            Ok(())
        })
    }

    /// Reads the CBOR value.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut author, mut packs) = (None, Vec::new());
        let mut d = Cbor::new(bytes, "11", "condemnation");
        d.map(|d, field| {
            match field {
                0 => author = Some(WriterId::new(d.fixed()?)),
                1 => packs = d.array(PACKS_MAX, |d| Ok(PackId::new(d.fixed()?)))?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let missing = d.value("condemnation");
        d.finish(bytes.len())?;
        author.map(|author| Self { author, packs }).ok_or(missing)
    }
}
