//! `docs/format.md` section 10: what a snapshot says of a base backup of PostgreSQL.
//!
//! # Invariants
//! Everything that a restore decides by, before it has read a file of the tree, stands here.

use super::FormatError;
use super::cbor::{Cbor, Out, Written};
use crate::id::ClusterId;

/// Most settings and tablespaces of a base backup.
const SETTINGS_MAX: u64 = 64;
const TABLESPACES_MAX: u64 = 4096;
/// Longest name of a setting or a tablespace.
const NAME_MAX: usize = 256;
/// Longest path of a tablespace.
const PLACE_MAX: usize = 4096;

/// A base backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresBackup {
    /// The cluster.
    pub cluster: ClusterId,
    /// Number of the history in the cluster's record.
    pub history: u64,
    /// What the server calls itself: the system identifier.
    pub system: u64,
    /// Version of the server, as `server_version_num` has it.
    pub version: u32,
    /// Bytes of a log segment, a power of two.
    pub segment_size: u32,
    /// The timeline it was taken on.
    pub timeline: u32,
    /// Where recovery begins to read the log.
    pub start: u64,
    /// Where the log must be read to at least.
    pub stop: u64,
    /// When it began, by the server's clock; nanoseconds since 1970.
    pub started: i64,
    /// When it ended, by the server's clock: no earlier state can be restored from it.
    pub stopped: i64,
    /// Whether the log from `start` to `stop` was in the archive when the snapshot was made.
    pub complete: bool,
    /// Whether pages have checksums, which were verified then.
    pub checksums: bool,
    /// Pages whose checksum was wrong.
    pub wrong_pages: u64,
    /// Settings that must not be lower on a server that recovers from it, by name, ascending.
    pub settings: Vec<(String, u64)>,
    /// Its tablespaces, by number, ascending.
    pub tablespaces: Vec<Tablespace>,
}

/// A tablespace; its files stand in the tree below `pg_tblspc/` and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its number.
    pub oid: u32,
    /// What people call it.
    pub name: Vec<u8>,
    /// Where it was.
    pub place: Vec<u8>,
}

impl PostgresBackup {
    /// One of the first history of a cluster, with segments of this size, that needs this part of a timeline's log.
    #[cfg(test)]
    pub(crate) fn sample(
        cluster: ClusterId,
        segment_size: u32,
        timeline: u32,
        log: std::ops::Range<u64>,
    ) -> Self {
        Self {
            cluster,
            history: 1,
            system: 7,
            version: 150_000,
            segment_size,
            timeline,
            start: log.start,
            stop: log.end,
            started: 1,
            stopped: 2,
            complete: true,
            checksums: true,
            wrong_pages: 0,
            settings: Vec::new(),
            tablespaces: Vec::new(),
        }
    }

    pub(super) fn encode(&self, e: &mut Out<'_>) -> Written {
        e.map(15)?.u8(0)?.bytes(self.cluster.as_bytes())?.u8(1)?.u64(self.history)?;
        e.u8(2)?.u64(self.system)?.u8(3)?.u32(self.version)?.u8(4)?.u32(self.segment_size)?;
        e.u8(5)?.u32(self.timeline)?.u8(6)?.u64(self.start)?.u8(7)?.u64(self.stop)?;
        e.u8(8)?.i64(self.started)?.u8(9)?.i64(self.stopped)?;
        e.u8(10)?.u8(self.complete.into())?.u8(11)?.u8(self.checksums.into())?;
        e.u8(12)?.u64(self.wrong_pages)?.u8(13)?.array(self.settings.len() as u64)?;
        for (name, value) in &self.settings {
            e.map(2)?.u8(0)?.str(name)?.u8(1)?.u64(*value)?;
        }
        e.u8(14)?.array(self.tablespaces.len() as u64)?;
        for Tablespace { oid, name, place } in &self.tablespaces {
            e.map(3)?.u8(0)?.u32(*oid)?.u8(1)?.bytes(name)?.u8(2)?.bytes(place)?;
        }
        Ok(())
    }

    pub(super) fn decode(d: &mut Cbor<'_>) -> Result<Self, FormatError> {
        let (mut fields, mut found) = (0_u32, Self::empty());
        d.map(|d, key| {
            match key {
                0 => found.cluster = ClusterId::new(d.fixed()?),
                1 => found.history = d.u64()?,
                2 => found.system = d.u64()?,
                3 => found.version = d.u32()?,
                4 => found.segment_size = d.u32()?,
                5 => found.timeline = d.u32()?,
                6 => found.start = d.u64()?,
                7 => found.stop = d.u64()?,
                8 => found.started = d.i64()?,
                9 => found.stopped = d.i64()?,
                10 => found.complete = flag(d)?,
                11 => found.checksums = flag(d)?,
                12 => found.wrong_pages = d.u64()?,
                13 => found.settings = d.array(SETTINGS_MAX, setting)?,
                14 => found.tablespaces = d.array(TABLESPACES_MAX, tablespace)?,
                _ => return Ok(false),
            }
            fields |= 1 << key;
            Ok(true)
        })?;
        let bad = d.value("base backup");
        let size = found.segment_size;
        let sound = fields == (1 << 15) - 1
            && found.history > 0
            && found.timeline > 0
            && size.is_power_of_two()
            && (1 << 20..=1 << 30).contains(&size)
            && found.start <= found.stop
            && found.settings.is_sorted_by(|a, b| a.0 < b.0)
            && found.tablespaces.is_sorted_by(|a, b| a.oid < b.oid);
        if sound { Ok(found) } else { Err(bad) }
    }

    fn empty() -> Self {
        Self {
            cluster: ClusterId::new([0; 16]),
            history: 0,
            system: 0,
            version: 0,
            segment_size: 0,
            timeline: 0,
            start: 0,
            stop: 0,
            started: 0,
            stopped: 0,
            complete: false,
            checksums: false,
            wrong_pages: 0,
            settings: Vec::new(),
            tablespaces: Vec::new(),
        }
    }

    /// The major version of the server.
    pub fn major(&self) -> u32 {
        self.version / 10_000
    }
}

fn flag(d: &mut Cbor<'_>) -> Result<bool, FormatError> {
    match d.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(d.value("base backup")),
    }
}

fn setting(d: &mut Cbor<'_>) -> Result<(String, u64), FormatError> {
    let (mut name, mut value) = (None, None);
    d.map(|d, key| {
        match key {
            0 => name = Some(d.text(NAME_MAX)?),
            1 => value = Some(d.u64()?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    // It becomes a line of a configuration file.
    let plain = |name: &String| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    name.filter(plain).zip(value).ok_or_else(|| d.value("setting of a base backup"))
}

fn tablespace(d: &mut Cbor<'_>) -> Result<Tablespace, FormatError> {
    let (mut oid, mut name, mut place) = (None, None, None);
    d.map(|d, key| {
        match key {
            0 => oid = Some(d.u32()?),
            1 => name = Some(d.bytes(NAME_MAX)?),
            2 => place = Some(d.bytes(PLACE_MAX)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let absolute = |place: &Vec<u8>| place.starts_with(b"/") && !place.contains(&0);
    match (oid, name, place.filter(absolute)) {
        (Some(oid), Some(name), Some(place)) => Ok(Tablespace { oid, name, place }),
        _ => Err(d.value("tablespace of a base backup")),
    }
}
