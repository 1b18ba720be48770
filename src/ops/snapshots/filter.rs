//! Which snapshots count.

use std::path::PathBuf;

use crate::format::snapshot::Snapshot;

/// Which snapshots count. What is empty does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// Made on any of these machines.
    pub hosts: Vec<String>,
    /// Of any of these jobs.
    pub jobs: Vec<String>,
    /// With all of these tags; `key` is also met by `key=value`.
    pub tags: Vec<String>,
    /// Made of all of these sources, as they were given.
    pub paths: Vec<PathBuf>,
}

impl SnapshotFilter {
    /// Whether every snapshot counts.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.jobs.is_empty() && self.tags.is_empty() && self.paths.is_empty()
    }

    /// Whether this one counts.
    pub fn matches(&self, snapshot: &Snapshot) -> bool {
        let any = |wanted: &[String], found: &[u8]| {
            wanted.is_empty() || wanted.iter().any(|wanted| wanted.as_bytes() == found)
        };
        let tagged = |wanted: &String| {
            snapshot.tags.iter().any(|tag| {
                tag.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
            })
        };
        let of_path = |wanted: &PathBuf| {
            let wanted = wanted.as_os_str().as_encoded_bytes();
            snapshot.paths.iter().any(|path| path == wanted)
        };
        any(&self.hosts, &snapshot.host)
            && any(&self.jobs, &snapshot.job)
            && self.tags.iter().all(tagged)
            && self.paths.iter().all(of_path)
    }
}
