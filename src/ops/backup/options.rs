//! What a backup is asked to do, and what it says it did.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::dumps::Ending;
use crate::error::Error;
use crate::filter::Filter;
use crate::format::node::NAME_MAX;
use crate::format::snapshot::Snapshot;
use crate::format::tree::TreeRef;
use crate::id::{PackId, SnapshotId};
use crate::source::SourceError;
#[cfg(test)]
use crate::source::walk::Tuning;

/// How many streams are read side by side, if nobody says.
const STREAMS_AT_ONCE: usize = 8;

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

/// Something without a name in the file system that is saved as one file.
#[derive(Debug, Clone)]
pub struct StreamSource {
    /// What it is called among the sources; several streams may be parts of one.
    pub source: Vec<u8>,
    /// Where it stands in the snapshot.
    pub stored: PathBuf,
    /// Where its content comes from.
    pub input: Input,
    /// How it ends if it is whole.
    pub ending: Ending,
}

impl StreamSource {
    /// The output of a command for the shell, under a path in the snapshot, after which it is called.
    pub fn shell(name: &Path, command: OsString) -> Self {
        // Nothing else is called so: paths are absolute, and a command has no such name.
        let name = name.strip_prefix("/").unwrap_or(name);
        let source = [b"stream:", name.as_os_str().as_bytes()].concat();
        let stored = Path::new("/").join(name);
        let input = Input::Shell(command);
        Self { source, stored, input, ending: Ending::Any }
    }
}

/// Where the content of a stream comes from.
#[derive(Debug, Clone)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// What a program writes to standard output, given with its arguments; the backup fails if it does.
    Command(Vec<OsString>),
    /// The same of a command for the shell, in which a pipe fails if a part of it does.
    Shell(OsString),
}

/// A stream in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedStream {
    /// Where it stands.
    pub path: PathBuf,
    /// How long it is.
    pub bytes: u64,
}

/// How to save it.
#[derive(Debug)]
pub struct BackupOptions {
    /// What is saved.
    pub source: BackupSource,
    /// Block devices and files that are saved as images, beside paths; absolute, links are followed.
    pub images: Vec<PathBuf>,
    /// Streams that are saved beside paths.
    pub streams: Vec<StreamSource>,
    /// How many streams are read side by side; at least one.
    pub streams_at_once: usize,
    /// Names of variables that no command gets to see.
    pub withheld: Vec<OsString>,
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
    /// What is done with databases of SQLite.
    pub databases: Databases,
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
    /// What was read of standard input and commands.
    pub streams: Vec<SavedStream>,
    /// How long it took.
    pub elapsed: Duration,
    /// A snapshot of this run that a collector interfered with.
    pub(super) unconfirmed: Option<SnapshotId>,
    /// The snapshot's root.
    pub(super) root: Option<TreeRef>,
    /// The packs that the snapshot needs.
    pub(super) packs: Vec<PackId>,
}

/// What is done with databases of SQLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Databases {
    /// They are files as all others.
    Ignore,
    /// They are files as all others, and those that are in use are named.
    Warn,
    /// Nothing else is saved: each as of one moment, whatever stands beside it.
    Copy,
}

impl BackupOptions {
    /// Saves this source as it is, at the default level, under no name of a machine or a user.
    pub fn new(source: BackupSource) -> Self {
        Self {
            source,
            images: Vec::new(),
            streams: Vec::new(),
            streams_at_once: STREAMS_AT_ONCE,
            withheld: Vec::new(),
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
            databases: Databases::Warn,
            allow_shrink: false,
            dry_run: false,
            timeless: false,
            #[cfg(test)]
            tuning: None,
        }
    }

    /// The job this run belongs to: if it has no other name, that of its sources. With streams among them these come first,
    /// which no path could, and every space is one between two sources: other sources are another job.
    pub fn job_name(&self) -> Vec<u8> {
        if let Some(job) = &self.job {
            return job.clone().into_bytes();
        }
        let mut parts: Vec<Vec<u8>> = self.source_names();
        parts.sort();
        if !self.streams.is_empty() {
            parts.sort_by_key(|part| !self.streams.iter().any(|stream| stream.source == *part));
            parts = parts.iter().map(|part| without_spaces(part)).collect();
        }
        parts.join(&b' ')
    }

    /// Demands that a reader will accept what the snapshot says of this run, and that everything has a place in it: better
    /// now than after hours.
    ///
    /// # Errors
    /// [`Error::DescriptionTooLong`], [`Error::StoredPathTooLong`], [`SourceError::BadStoredPath`] and
    /// [`SourceError::Collision`] of streams.
    pub fn check(&self) -> Result<(), Error> {
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
        let streams = self.all_streams();
        for stored in self.stored_as.iter().chain(streams.iter().map(|stream| &stream.stored)) {
            if stored.components().any(|part| part.as_os_str().len() > NAME_MAX) {
                return Err(Error::StoredPathTooLong { path: stored.clone() });
            }
        }
        self.check_places(&streams)
    }

    /// Demands that nothing is stored where a stream is, above or below it.
    fn check_places(&self, streams: &[StreamSource]) -> Result<(), Error> {
        let mut taken = BTreeMap::new();
        let paths = if let BackupSource::Paths(paths) = &self.source { &paths[..] } else { &[] };
        let (several, stored_as) = (paths.len() + self.images.len() > 1, self.stored_as.as_deref());
        for path in paths.iter().chain(&self.images) {
            let own = stored_parts(path, None);
            let parts = match stored_as {
                Some(stored) => stored_parts(stored, own.last().cloned().filter(|_| several)),
                None => own,
            };
            taken.insert(parts, path);
        }
        for stream in streams {
            let bad = || SourceError::BadStoredPath { path: stream.stored.clone() };
            let parts = named_parts(&stream.stored).ok_or_else(bad)?;
            let above = (0..=parts.len()).find_map(|len| taken.get(&parts[..len]));
            let below = || taken.range(parts.clone()..).next().filter(|(other, _)| other.starts_with(&parts));
            if let Some(other) = above.or_else(|| below().map(|(_, other)| other)) {
                let (first, second) = ((*other).clone(), stream.stored.clone());
                return Err(SourceError::Collision { first, second }.into());
            }
            taken.insert(parts, &stream.stored);
        }
        Ok(())
    }

    /// All streams: standard input or a command, if that is the source, or those beside paths.
    pub(super) fn all_streams(&self) -> Vec<StreamSource> {
        let input = match &self.source {
            BackupSource::Paths(_) => return self.streams.clone(),
            BackupSource::Stdin => Input::Stdin,
            BackupSource::Command(argv) => Input::Command(argv.clone()),
        };
        let source = self.source_names().swap_remove(0);
        let (stored, ending) = (self.stream_path(), Ending::Any);
        std::iter::once(StreamSource { source, stored, input, ending }).chain(self.streams.clone()).collect()
    }

    /// The sources as given.
    pub fn source_names(&self) -> Vec<Vec<u8>> {
        let mut names: Vec<Vec<u8>> = match &self.source {
            BackupSource::Paths(paths) => {
                paths.iter().chain(&self.images).map(|p| p.as_os_str().as_bytes().to_vec()).collect()
            }
            BackupSource::Stdin => vec![b"-".to_vec()],
            BackupSource::Command(argv) => {
                vec![argv.iter().map(|arg| arg.as_bytes()).collect::<Vec<_>>().join(&b' ')]
            }
        };
        for stream in &self.streams {
            if !names.contains(&stream.source) {
                names.push(stream.source.clone());
            }
        }
        names
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

/// Each space, and what stands for one, as `%` and two digits.
fn without_spaces(part: &[u8]) -> Vec<u8> {
    let escaped = part.iter().flat_map(|byte| match byte {
        b' ' => b"%20",
        b'%' => b"%25",
        other => std::slice::from_ref(other),
    });
    escaped.copied().collect()
}

/// The parts of the path that a source is stored under; with several sources each keeps its last name.
pub(super) fn stored_parts(stored: &Path, name: Option<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = stored
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.as_bytes().to_vec()),
            _ => None,
        })
        .collect();
    parts.extend(name);
    parts
}

/// The parts of the path of a stream; `None` for one that names no file, or climbs.
pub(super) fn named_parts(stored: &Path) -> Option<Vec<Vec<u8>>> {
    let bytes = stored.as_os_str().as_bytes();
    let ends_well = !bytes.ends_with(b"/") && !bytes.ends_with(b"/.") && !bytes.contains(&0);
    let climbs = stored.components().any(|part| part == Component::ParentDir);
    let parts = stored_parts(stored, None);
    (ends_well && !climbs && !parts.is_empty()).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Class;

    fn checked(paths: &[&str], streams: &[&str], stored_as: Option<&str>) -> Result<(), Error> {
        let stream = |name: &&str| StreamSource::shell(Path::new(name), "true".into());
        let options = BackupOptions {
            streams: streams.iter().map(stream).collect(),
            stored_as: stored_as.map(PathBuf::from),
            ..BackupOptions::new(BackupSource::Paths(paths.iter().map(PathBuf::from).collect()))
        };
        options.check()
    }

    #[test]
    fn a_stream_has_a_place_of_its_own() {
        for (paths, streams) in [
            (&["/etc", "/srv/a"][..], &["db/a.sql", "db/b.sql", "srv/b", "/etcetera", "x./.y/..z"][..]),
            (&[], &["a"]),
            (&["/srv/db/x"], &["srv/db/xy"]),
        ] {
            checked(paths, streams, None).unwrap();
        }
        let long = "n".repeat(NAME_MAX + 1);
        for (paths, streams, stored_as) in [
            (&[][..], &["a", "a"][..], None),
            (&[], &["a", "/a"], None),
            (&[], &["a//b", "a/./b"], None),
            (&[], &["a/b", "a"], None),
            (&[], &["a", "a/b"], None),
            (&["/etc"], &["etc/dump.sql"], None),
            (&["/srv/db/x"], &["srv/db"], None),
            (&["/"], &["a"], None),
            (&["/home/ann"], &["stored"], Some("/stored")),
            (&["/home/ann", "/home/bob"], &["stored/bob"], Some("/stored")),
            (&[], &[""], None),
            (&[], &["/"], None),
            (&[], &["a/"], None),
            (&[], &["a/."], None),
            (&[], &["../a"], None),
            (&[], &["a/../b"], None),
            (&[], &["a\0b"], None),
            (&[], &[long.as_str()], None),
        ] {
            let error = checked(paths, streams, stored_as).unwrap_err();
            assert_eq!(error.class(), Class::Usage, "{paths:?} {streams:?}: {error}");
        }
    }

    #[test]
    fn the_job_goes_by_names_and_not_by_commands() {
        let stream = |name: &str, command: &str| StreamSource::shell(Path::new(name), command.into());
        let parts = |command| vec![stream("b.sql", command), stream("a.sql", command)];
        let job = |command| {
            let source = BackupSource::Paths(vec!["/etc".into()]);
            BackupOptions { streams: parts(command), ..BackupOptions::new(source) }.job_name()
        };
        assert_eq!(job("dump --password=x"), b"stream:a.sql stream:b.sql /etc");
        assert_eq!(stream("/a", "").source, stream("a", "").source);
        assert_eq!(job("dump"), job("other"));
    }

    #[test]
    fn other_sources_are_another_job() {
        let paths = |paths: &[&str]| BackupSource::Paths(paths.iter().map(PathBuf::from).collect());
        let with = |source, names: &[&str]| {
            let streams = names.iter().map(|name| StreamSource::shell(Path::new(name), "x".into())).collect();
            BackupOptions { streams, ..BackupOptions::new(source) }.job_name()
        };
        let command = |argv: &[&str]| BackupSource::Command(argv.iter().map(OsString::from).collect());
        let jobs = [
            with(BackupSource::Stdin, &[]),
            with(paths(&[]), &["-"]),
            with(command(&["pg_dump", "db"]), &[]),
            with(paths(&[]), &["pg_dump db"]),
            with(paths(&[]), &["pg_dump", "db"]),
            with(paths(&[]), &["pg_dump stream:db"]),
            with(paths(&[]), &["pg_dump%20db"]),
            with(paths(&["/etc"]), &["a"]),
            with(paths(&["/etc stream:a"]), &[]),
            with(paths(&[]), &["a /etc"]),
            with(paths(&["/etc", "/srv"]), &["a"]),
            with(paths(&["/etc /srv"]), &["a"]),
            with(paths(&[]), &["dump:redis"]),
            b"dump:redis".to_vec(),
        ];
        let different: std::collections::BTreeSet<_> = jobs.iter().collect();
        assert_eq!(different.len(), jobs.len(), "{jobs:?}");
    }
}
