//! `docs/format.md` section 22: records of what was verified.
//!
//! # Invariants
//! A record says what its author found, and counts only as far as the author's authority goes; nothing is deleted or restored by
//! what it says. When something was verified is for the store's clock to say, less the time that had passed then; the author's
//! clock can only make it longer ago, so that a copy of a record is as old as the record.

use super::FormatError;
use super::cbor::{Cbor, Out, Written, encode};
use super::gc::Nonce;
use crate::id::{ObjectHash, WriterId};

const SECTION: &str = "22";

/// Most objects that one record says of that they are good, and as many that it says are damaged.
pub const VERIFIED_MAX: usize = 65_536;

/// How objects were looked at. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Look {
    /// Every byte was read and has the hash that is in the name.
    Read = 0,
    /// Also opened, and everything in it is what it is called.
    Opened = 1,
}

/// What was verified, in one run or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Who verified; must hold the authority of a verifier.
    pub author: WriterId,
    /// How.
    pub look: Look,
    /// When the first of these objects was looked at, by the author's clock, in nanoseconds since 1970.
    pub began: i64,
    /// How many nanoseconds before this was put that was.
    pub passed: u64,
    /// Packs and files of logs that are as they should be, ascending.
    pub good: Vec<ObjectHash>,
    /// Those that are not, ascending.
    pub damaged: Vec<ObjectHash>,
    /// In the last record of a run that came to its end: how many damages it found, in whatever objects.
    pub ended: Option<u64>,
    /// Makes the name unique.
    pub nonce: Nonce,
}

fn put_hashes(e: &mut Out<'_>, hashes: &[ObjectHash]) -> Written {
    e.array(hashes.len() as u64)?;
    for hash in hashes {
        e.bytes(hash.as_bytes())?;
    }
    Ok(())
}

fn hashes(d: &mut Cbor<'_>) -> Result<Vec<ObjectHash>, FormatError> {
    let hashes = d.array(VERIFIED_MAX as u64, |d| Ok(ObjectHash::new(d.fixed()?)))?;
    if hashes.is_sorted_by(|one, next| one < next) {
        Ok(hashes)
    } else {
        Err(d.value("order of what was verified"))
    }
}

impl Verified {
    /// The CBOR value.
    pub fn encode(&self) -> Vec<u8> {
        encode(|e| {
            e.map(7 + u64::from(self.ended.is_some()))?;
            e.u8(0)?.bytes(self.author.as_bytes())?.u8(1)?;
            put_hashes(e, &self.good)?;
            e.u8(2)?.bytes(&self.nonce)?;
            e.u8(3)?.u8(self.look as u8)?.u8(4)?.u64(self.passed)?.u8(5)?;
            put_hashes(e, &self.damaged)?;
            e.u8(6)?.i64(self.began)?;
            if let Some(damages) = self.ended {
                e.u8(7)?.u64(damages)?;
            }
            Ok(())
        })
    }

    /// Reads the CBOR value.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut author, mut good, mut nonce, mut look) = (None, None, None, None);
        let (mut passed, mut damaged, mut began, mut ended) = (None, None, None, None);
        let mut d = Cbor::new(bytes, SECTION, "record");
        d.map(|d, field| {
            match field {
                0 => author = Some(WriterId::new(d.fixed()?)),
                1 => good = Some(hashes(d)?),
                2 => nonce = Some(d.fixed()?),
                3 => look = Some(decode_look(d)?),
                4 => passed = Some(d.u64()?),
                5 => damaged = Some(hashes(d)?),
                6 => began = Some(d.i64()?),
                7 => ended = Some(d.u64()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let missing = d.value("record");
        d.finish(bytes.len())?;
        let whole = author.zip(look).zip(passed).zip(good).zip(damaged).zip(began).zip(nonce);
        let ((((((author, look), passed), good), damaged), began), nonce) = whole.ok_or(missing)?;
        Ok(Self { author, look, began, passed, good, damaged, ended, nonce })
    }
}

fn decode_look(d: &mut Cbor<'_>) -> Result<Look, FormatError> {
    match d.u64()? {
        0 => Ok(Look::Read),
        1 => Ok(Look::Opened),
        _ => Err(d.value("look")),
    }
}
