//! `docs/format.md` section 1: the names of objects. Names end in the hash of the object, so storage can be verified
//! without a key.

use super::log::LogName;
use crate::id::{ClusterId, ObjectHash, PackId, SnapshotId, WriterId};

/// Prefix of the configuration.
pub const CONFIG: &str = "config/";
/// Prefix of key slots.
pub const KEYS: &str = "keys/";
/// Prefix of the writers' registry.
pub const WRITERS: &str = "writers/";
/// Prefix of packs.
pub const PACKS: &str = "packs/";
/// Prefix of index objects.
pub const INDEX: &str = "index/";
/// Prefix of snapshots and their confirmations.
pub const SNAPSHOTS: &str = "snapshots/";
/// Prefix of condemnations.
pub const CONDEMNED: &str = "gc/condemned/";
/// Prefix of horizons.
pub const HORIZON: &str = "gc/horizon/";
/// Prefix of removals.
pub const REMOVED: &str = "gc/removed/";
/// Prefix of what takes tombs back.
pub const UNDONE: &str = "gc/undone/";
/// Prefix of trims.
pub const TRIMMED: &str = "gc/trimmed/";
/// Prefix of tombs.
pub const TOMBS: &str = "tombs/";
/// Prefix of holds.
pub const HOLDS: &str = "holds/";
/// Prefix of tags given after a snapshot was made.
pub const LABELS: &str = "labels/";

/// Prefix of what a store is tried out with. It is no part of the repository: nothing is read there but what was just stored.
pub const PROBE: &str = "probe/";
/// Prefix of anchors.
pub const ANCHORS: &str = "anchors/";
/// Prefix of the records of database clusters.
pub const CLUSTERS: &str = "clusters/";
/// Prefix of what was verified.
pub const LEDGER: &str = "ledger/";
/// Prefix of the logs of database clusters.
pub const STREAMS: &str = "streams/";

/// Every prefix a repository of this version may hold objects under.
pub const PREFIXES: [&str; 18] = [
    CONFIG, KEYS, WRITERS, PACKS, INDEX, SNAPSHOTS, CONDEMNED, HORIZON, REMOVED, UNDONE, TRIMMED, TOMBS,
    HOLDS, LABELS, ANCHORS, LEDGER, CLUSTERS, STREAMS,
];

/// The highest number in a name: it has ten digits.
pub const NUMBER_MAX: u64 = 9_999_999_999;

/// The name of an object, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectName {
    /// `config/<n>-<hash>`
    Config(u64, ObjectHash),
    /// `keys/<hash>`
    KeySlot(ObjectHash),
    /// `writers/<id>/<n>-<hash>`
    Writer(WriterId, u64, ObjectHash),
    /// `packs/<xx>/<hash>`
    Pack(PackId),
    /// `index/<writer>/<hash>`
    Index(WriterId, ObjectHash),
    /// `snapshots/<writer>/<seq>-<hash>`
    Snapshot(WriterId, u64, SnapshotId),
    /// `snapshots/<writer>/<seq>-<hash>.ok`
    Confirmation(WriterId, u64, SnapshotId),
    /// `gc/condemned/<hash>`
    Condemned(ObjectHash),
    /// `gc/horizon/<n>-<hash>`
    Horizon(u64, ObjectHash),
    /// `gc/removed/<hash>`
    Removed(ObjectHash),
    /// `gc/undone/<hash>`
    Undone(ObjectHash),
    /// `gc/trimmed/<hash>`
    Trimmed(ObjectHash),
    /// `tombs/<snapshot>-<hash>`
    Tomb(SnapshotId, ObjectHash),
    /// `holds/<hash>`
    Hold(ObjectHash),
    /// `labels/<snapshot>-<hash>`
    Labels(SnapshotId, ObjectHash),
    /// `anchors/<hash>`
    Anchor(ObjectHash),
    /// `ledger/<hash>`
    Verified(ObjectHash),
    /// `clusters/<cluster>/<n>-<hash>`
    Cluster(ClusterId, u64, ObjectHash),
    /// `streams/<cluster>/<history>/…`
    Log(LogName),
}

pub(super) fn numbered(text: &str) -> Option<(u64, &str)> {
    let (number, rest) = text.split_once('-')?;
    let canonical = number.len() == 10 && number.bytes().all(|digit| digit.is_ascii_digit());
    canonical.then(|| number.parse().ok().map(|n| (n, rest)))?
}

impl ObjectName {
    /// The key of the object below the repository's root.
    pub fn key(&self) -> String {
        match self {
            Self::Config(n, hash) => format!("{CONFIG}{n:010}-{hash}"),
            Self::KeySlot(hash) => format!("{KEYS}{hash}"),
            Self::Writer(id, n, hash) => format!("{WRITERS}{id}/{n:010}-{hash}"),
            Self::Pack(id) => {
                let hex = id.to_string();
                format!("{PACKS}{}/{hex}", &hex[..2])
            }
            Self::Index(writer, hash) => format!("{INDEX}{writer}/{hash}"),
            Self::Snapshot(writer, n, id) => format!("{SNAPSHOTS}{writer}/{n:010}-{id}"),
            Self::Confirmation(writer, n, id) => format!("{SNAPSHOTS}{writer}/{n:010}-{id}.ok"),
            Self::Condemned(hash) => format!("{CONDEMNED}{hash}"),
            Self::Horizon(n, hash) => format!("{HORIZON}{n:010}-{hash}"),
            Self::Removed(hash) => format!("{REMOVED}{hash}"),
            Self::Undone(hash) => format!("{UNDONE}{hash}"),
            Self::Trimmed(hash) => format!("{TRIMMED}{hash}"),
            Self::Tomb(snapshot, hash) => format!("{TOMBS}{snapshot}-{hash}"),
            Self::Hold(hash) => format!("{HOLDS}{hash}"),
            Self::Labels(snapshot, hash) => format!("{LABELS}{snapshot}-{hash}"),
            Self::Anchor(hash) => format!("{ANCHORS}{hash}"),
            Self::Verified(hash) => format!("{LEDGER}{hash}"),
            Self::Cluster(id, n, hash) => format!("{CLUSTERS}{id}/{n:010}-{hash}"),
            Self::Log(name) => name.key(),
        }
    }

    /// The number in the name, if names of this kind have one. One above [`NUMBER_MAX`] makes a key that nothing parses.
    pub fn number(&self) -> Option<u64> {
        match *self {
            Self::Config(n, _)
            | Self::Writer(_, n, _)
            | Self::Snapshot(_, n, _)
            | Self::Confirmation(_, n, _)
            | Self::Cluster(_, n, _)
            | Self::Horizon(n, _) => Some(n),
            Self::Log(name) => Some(name.history),
            _ => None,
        }
    }

    /// Takes a key apart; `None` for anything that is not exactly an object's name.
    pub fn parse(key: &str) -> Option<Self> {
        if let Some(rest) = key.strip_prefix("gc/") {
            return Self::parse_collection(rest);
        }
        if let Some(rest) = key.strip_prefix(STREAMS) {
            return LogName::parse(rest).map(Self::Log);
        }
        let mut parts = key.split('/');
        let (room, first, second) = (parts.next()?, parts.next()?, parts.next());
        if parts.next().is_some() {
            return None;
        }
        match (room, second) {
            ("config", None) => numbered(first).and_then(|(n, h)| Some(Self::Config(n, h.parse().ok()?))),
            ("keys", None) => first.parse().ok().map(Self::KeySlot),
            ("anchors", None) => first.parse().ok().map(Self::Anchor),
            ("ledger", None) => first.parse().ok().map(Self::Verified),
            ("holds", None) => first.parse().ok().map(Self::Hold),
            ("tombs", None) => {
                let (snapshot, hash) = first.split_once('-')?;
                Some(Self::Tomb(snapshot.parse().ok()?, hash.parse().ok()?))
            }
            ("labels", None) => {
                let (snapshot, hash) = first.split_once('-')?;
                Some(Self::Labels(snapshot.parse().ok()?, hash.parse().ok()?))
            }
            ("packs", Some(hash)) if hash.get(..2) == Some(first) => hash.parse().ok().map(Self::Pack),
            ("writers", Some(rest)) => {
                let (n, hash) = numbered(rest)?;
                Some(Self::Writer(first.parse().ok()?, n, hash.parse().ok()?))
            }
            ("clusters", Some(rest)) => {
                let (n, hash) = numbered(rest)?;
                Some(Self::Cluster(first.parse().ok()?, n, hash.parse().ok()?))
            }
            ("index", Some(hash)) => Some(Self::Index(first.parse().ok()?, hash.parse().ok()?)),
            ("snapshots", Some(rest)) => Self::parse_snapshot(first.parse().ok()?, rest),
            _ => None,
        }
    }

    fn parse_collection(rest: &str) -> Option<Self> {
        let (what, name) = rest.split_once('/')?;
        match what {
            "condemned" => name.parse().ok().map(Self::Condemned),
            "removed" => name.parse().ok().map(Self::Removed),
            "undone" => name.parse().ok().map(Self::Undone),
            "trimmed" => name.parse().ok().map(Self::Trimmed),
            "horizon" => {
                let (n, hash) = numbered(name)?;
                Some(Self::Horizon(n, hash.parse().ok()?))
            }
            _ => None,
        }
    }

    fn parse_snapshot(writer: WriterId, rest: &str) -> Option<Self> {
        let (n, hash) = numbered(rest)?;
        Some(match hash.strip_suffix(".ok") {
            Some(hash) => Self::Confirmation(writer, n, hash.parse().ok()?),
            None => Self::Snapshot(writer, n, hash.parse().ok()?),
        })
    }

    /// The hash that the object's bytes must have; a confirmation's name carries its snapshot's instead.
    pub fn content_hash(&self) -> Option<ObjectHash> {
        match *self {
            Self::Config(_, hash)
            | Self::KeySlot(hash)
            | Self::Writer(_, _, hash)
            | Self::Index(_, hash)
            | Self::Condemned(hash)
            | Self::Horizon(_, hash)
            | Self::Removed(hash)
            | Self::Undone(hash)
            | Self::Trimmed(hash)
            | Self::Tomb(_, hash)
            | Self::Hold(hash)
            | Self::Labels(_, hash)
            | Self::Anchor(hash)
            | Self::Verified(hash)
            | Self::Cluster(_, _, hash) => Some(hash),
            Self::Log(name) => Some(name.hash),
            Self::Pack(id) => Some(id.into()),
            Self::Snapshot(_, _, id) => Some(id.into()),
            Self::Confirmation(..) => None,
        }
    }

    /// What a revocation names if the object still counts: the object itself; of a confirmation its snapshot.
    pub fn accepted_as(&self) -> Self {
        match *self {
            Self::Confirmation(writer, number, id) => Self::Snapshot(writer, number, id),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_round_trips() {
        let (hash, writer) = (ObjectHash::new([0xab; 32]), WriterId::new([7; 16]));
        for name in [
            ObjectName::Config(3, hash),
            ObjectName::KeySlot(hash),
            ObjectName::Writer(writer, 0, hash),
            ObjectName::Pack(hash.into()),
            ObjectName::Index(writer, hash),
            ObjectName::Snapshot(writer, NUMBER_MAX, hash.into()),
            ObjectName::Confirmation(writer, 1, hash.into()),
            ObjectName::Condemned(hash),
            ObjectName::Horizon(12, hash),
            ObjectName::Removed(hash),
            ObjectName::Undone(hash),
            ObjectName::Trimmed(hash),
            ObjectName::Tomb(hash.into(), hash),
            ObjectName::Hold(hash),
            ObjectName::Labels(hash.into(), hash),
            ObjectName::Anchor(hash),
            ObjectName::Verified(hash),
            ObjectName::Cluster(ClusterId::new([8; 16]), 4, hash),
        ] {
            assert_eq!(ObjectName::parse(&name.key()), Some(name), "{}", name.key());
        }
    }

    #[test]
    fn anything_else_is_not_a_name() {
        let hex = "ab".repeat(32);
        for bad in [
            "",
            "packs",
            "packs/ab",
            &format!("packs/cd/{hex}"),
            &format!("packs/ab/{hex}/x"),
            &format!("config/1-{hex}"),
            &format!("config/+000000001-{hex}"),
            &format!("keys/{}", hex.to_uppercase()),
            &format!("snapshots/{}/0000000001-{hex}.okay", "07".repeat(16)),
            "gc/condemned/",
            "../etc/passwd",
        ] {
            assert_eq!(ObjectName::parse(bad), None, "{bad}");
        }
    }
}
