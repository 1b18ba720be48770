//! Snapshots as restic describes them.

use serde::Deserialize;

use super::error::Fault;
use super::text::Time;
use crate::id::ResticId;

/// Longest snapshot that is read.
pub(super) const SNAPSHOT_MAX: usize = 4 << 20;

#[derive(Deserialize)]
struct Stored {
    time: Time,
    tree: ResticId,
    paths: Option<Vec<String>>,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    username: String,
    tags: Option<Vec<String>>,
    #[serde(default)]
    summary: Option<Summary>,
}

#[derive(Deserialize)]
struct Summary {
    backup_start: Option<Time>,
    backup_end: Option<Time>,
    total_bytes_processed: Option<u64>,
}

/// One saved state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub id: ResticId,
    /// When the backup began, nanoseconds since 1970.
    pub time: i64,
    /// How long it took in nanoseconds, if restic said so.
    pub duration: u64,
    /// The root directory.
    pub tree: ResticId,
    /// The sources.
    pub paths: Vec<String>,
    /// Name of the machine.
    pub host: String,
    /// Name of the user.
    pub user: String,
    /// Tags; none is empty.
    pub tags: Vec<String>,
    /// Bytes of all files, if restic said so.
    pub bytes: Option<u64>,
}

impl Snapshot {
    pub(super) fn decode(id: ResticId, json: &[u8]) -> Result<Self, Fault> {
        let stored: Stored = serde_json::from_slice(json).map_err(Fault::Json)?;
        let nanos = |time: Time| {
            let seconds = time.0.seconds.checked_mul(1_000_000_000)?;
            seconds.checked_add(i64::from(time.0.nanos))
        };
        let time = nanos(stored.time).ok_or(Fault::Value { what: "the time" })?;
        let mut tags = stored.tags.unwrap_or_default();
        tags.retain(|tag| !tag.is_empty());
        let summary = stored.summary.as_ref();
        let ends = summary.and_then(|s| nanos(s.backup_end?)?.checked_sub(nanos(s.backup_start?)?));
        Ok(Self {
            id,
            time,
            duration: ends.and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or(0),
            tree: stored.tree,
            paths: stored.paths.unwrap_or_default(),
            host: stored.hostname,
            user: stored.username,
            tags,
            bytes: summary.and_then(|summary| summary.total_bytes_processed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "2da81727b6585232894cfbb8f8bdab8d1eccd3d8f7c92bc934d62e62e618ffdf";

    fn decode(json: &str) -> Result<Snapshot, Fault> {
        Snapshot::decode(ResticId::new([7; 32]), json.replace("TREE", TREE).as_bytes())
    }

    #[test]
    fn the_documented_snapshot_is_read() {
        let snapshot = decode(
            r#"{"time":"2015-01-02T18:10:50.895208559+01:00","tree":"TREE","paths":["/tmp/testdata"],
            "hostname":"kasimir","username":"fd0","uid":1000,"gid":100,"tags":["NL",""],
            "summary":{"backup_start":"2015-01-02T18:10:50Z","backup_end":"2015-01-02T18:10:51.5Z","total_bytes_processed":7}}"#,
        )
        .unwrap();
        assert_eq!((snapshot.time, snapshot.duration), (1_420_218_650_895_208_559, 1_500_000_000));
        assert_eq!((snapshot.host.as_str(), snapshot.user.as_str()), ("kasimir", "fd0"));
        assert_eq!(
            (snapshot.paths, snapshot.tags),
            (vec!["/tmp/testdata".to_owned()], vec!["NL".to_owned()])
        );
        assert_eq!(snapshot.bytes, Some(7));
    }

    #[test]
    fn little_is_enough_and_less_is_not() {
        let least =
            decode(r#"{"time":"2015-01-02T18:10:50Z","tree":"TREE","paths":null,"new":{"x":[1]}}"#).unwrap();
        assert_eq!((least.duration, least.bytes, least.host.as_str()), (0, None, ""));
        for bad in [
            "{}",
            "null",
            r#"{"time":"2015-01-02T18:10:50Z","tree":null}"#,
            r#"{"time":"2015-01-02T18:10:50Z","tree":"ab"}"#,
            r#"{"time":"9999-01-02T18:10:50Z","tree":"TREE"}"#,
            r#"{"time":1,"tree":"TREE"}"#,
        ] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }
}
