//! What a backup is asked to do, and what it says it did.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::filter::Filter;
use crate::format::node::NAME_MAX;
use crate::format::snapshot::Snapshot;
use crate::format::tree::TreeRef;
use crate::id::{PackId, SnapshotId};
#[cfg(test)]
use crate::source::walk::Tuning;

/// What is saved.
#[derive(Debug, Clone)]
pub enum BackupSource {
    /// Files and directories; absolute paths.
    Paths(Vec<PathBuf>),
    /// Standard input, as one file.
    Stdin,
    /// The output of a command, as one file; the backup fails if the command does.
    Command(Vec<OsString>),
}

/// How to save it.
#[derive(Debug)]
pub struct BackupOptions {
    /// What is saved.
    pub source: BackupSource,
    /// Block devices and files that are saved as images, beside paths; absolute, links are followed.
    pub images: Vec<PathBuf>,
    /// The path it is stored under, if not its own.
    pub stored_as: Option<PathBuf>,
    /// The job; by default the sorted sources.
    pub job: Option<String>,
    /// Name of the machine.
    pub host: Vec<u8>,
    /// Name of the user.
    pub user: Vec<u8>,
    /// Tags, `key` or `key=value`.
    pub tags: Vec<String>,
    /// What to leave out.
    pub filter: Arc<Filter>,
    /// Stay on the file systems of the sources.
    pub one_file_system: bool,
    /// Leave out directories that are tagged as caches.
    pub exclude_caches: bool,
    /// Leave out larger files.
    pub exclude_larger_than: Option<u64>,
    /// Level of zstd.
    pub level: i32,
    /// Read what the file system says is a hole, for file systems that are not to be trusted with it.
    pub read_holes: bool,
    /// Save even if most of what the last run saw is gone.
    pub allow_shrink: bool,
    /// Read and count, but store nothing.
    pub dry_run: bool,
    /// Store no times of files, so that equal trees make equal snapshots whenever they were written. For simulation.
    #[doc(hidden)]
    pub timeless: bool,
    /// Other bounds of the walk, which then lists nothing ahead.
    #[cfg(test)]
    pub(crate) tuning: Option<Tuning>,
}

/// What a backup did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackupSummary {
    /// The snapshot; none after a dry run.
    pub snapshot: Option<SnapshotId>,
    /// Entries in the snapshot.
    pub entries: u64,
    /// Regular files in the snapshot.
    pub files: u64,
    /// Regular files that the last run did not have.
    pub new_files: u64,
    /// Regular files that differ from the last run.
    pub changed_files: u64,
    /// Regular files that are as they were.
    pub unchanged_files: u64,
    /// Bytes of all regular files.
    pub bytes: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Bytes that the repository did not have, before compression.
    pub new_bytes: u64,
    /// Bytes that were sent to the store.
    pub stored_bytes: u64,
    /// Bytes of packs that an interrupted run had stored and this one took over.
    pub resumed_bytes: u64,
    /// Failures: entries or parts of their metadata.
    pub failed: u64,
    /// Sources that do not exist.
    pub missing: Vec<PathBuf>,
    /// Entries left out by rules.
    pub excluded: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// A snapshot of this run that a collector interfered with.
    pub(super) unconfirmed: Option<SnapshotId>,
    /// The snapshot's root.
    pub(super) root: Option<TreeRef>,
    /// The packs that the snapshot needs.
    pub(super) packs: Vec<PackId>,
}

impl BackupOptions {
    /// Saves this source as it is, at the default level, under no name of a machine or a user.
    pub fn new(source: BackupSource) -> Self {
        Self {
            source,
            images: Vec::new(),
            stored_as: None,
            job: None,
            host: Vec::new(),
            user: Vec::new(),
            tags: Vec::new(),
            filter: Arc::new(Filter::default()),
            one_file_system: false,
            exclude_caches: false,
            exclude_larger_than: None,
            level: 1,
            read_holes: false,
            allow_shrink: false,
            dry_run: false,
            timeless: false,
            #[cfg(test)]
            tuning: None,
        }
    }

    /// The job this run belongs to.
    pub fn job_name(&self) -> Vec<u8> {
        if let Some(job) = &self.job {
            return job.clone().into_bytes();
        }
        let mut parts: Vec<Vec<u8>> = self.source_names();
        parts.sort();
        parts.join(&b' ')
    }

    /// Demands that a reader will accept what the snapshot says of this run: better now than after hours.
    pub(super) fn check(&self) -> Result<(), Error> {
        let described = Snapshot {
            host: self.host.clone(),
            user: self.user.clone(),
            job: self.job_name(),
            paths: self.source_names(),
            tags: self.tags.clone(),
            // As many parents as nobody has: they are not known yet.
            parents: vec![SnapshotId::new([0; 32]); 256],
            ..Snapshot::empty()
        };
        described.check().map_err(Error::DescriptionTooLong)?;
        let stored = self.stored_as.clone().unwrap_or_else(|| self.stream_path());
        if stored.components().any(|part| part.as_os_str().len() > NAME_MAX) {
            return Err(Error::StoredPathTooLong { path: stored });
        }
        Ok(())
    }

    /// The sources as given.
    pub fn source_names(&self) -> Vec<Vec<u8>> {
        use std::os::unix::ffi::OsStrExt;
        match &self.source {
            BackupSource::Paths(paths) => {
                paths.iter().chain(&self.images).map(|p| p.as_os_str().as_bytes().to_vec()).collect()
            }
            BackupSource::Stdin => vec![b"-".to_vec()],
            BackupSource::Command(argv) => {
                vec![argv.iter().map(|arg| arg.as_bytes()).collect::<Vec<_>>().join(&b' ')]
            }
        }
    }

    /// The path a stream is stored under.
    pub fn stream_path(&self) -> PathBuf {
        match (&self.stored_as, &self.source) {
            (Some(path), _) => path.clone(),
            (None, BackupSource::Command(argv)) => {
                let program = argv.first().map_or(Path::new("command"), Path::new);
                Path::new("/").join(program.file_name().unwrap_or(program.as_os_str()))
            }
            (None, _) => PathBuf::from("/stdin"),
        }
    }
}
