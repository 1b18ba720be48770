//! Which cluster a server is, and which history of it.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::database::control;
use crate::error::{Error, LogError};
use crate::format::cluster::{Cluster, Engine, History, check_name};
use crate::format::log::LogFile;
use crate::id::WriterId;
use crate::postgres::{FirstPage, LONG_HEADER, first_page_of};
use crate::repo::{Repository, StoredCluster};

/// What the first cluster of a repository is called if nobody names it.
const DEFAULT: &str = "main";

/// What tells one server's log from another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// System identifier.
    pub system: u64,
    /// Major version.
    pub version: u32,
    /// Bytes of a segment.
    pub segment_size: u32,
    /// Bytes of a page of the log.
    pub page_size: u32,
}

impl From<FirstPage> for Server {
    fn from(page: FirstPage) -> Self {
        let FirstPage { version, system, segment_size, page_size, .. } = page;
        Self { system, version, segment_size, page_size }
    }
}

impl Server {
    fn is(&self, history: &History) -> bool {
        let History { system, version, segment_size, page_size, .. } = *history;
        *self == Self { system, version, segment_size, page_size }
    }

    fn history(self, number: u64) -> History {
        let Self { system, version, segment_size, page_size } = self;
        History { number, system, version, segment_size, page_size }
    }

    /// What differs from a history: its name, what the history has, what this has.
    fn difference(&self, history: &History) -> Option<(&'static str, u64, u64)> {
        let pairs = [
            ("the system identifier", history.system, self.system),
            ("the major version", history.version.into(), self.version.into()),
            ("the size of a log segment", history.segment_size.into(), self.segment_size.into()),
            ("the size of a page of the log", history.page_size.into(), self.page_size.into()),
        ];
        pairs.into_iter().find(|(_, expected, found)| expected != found)
    }
}

/// The system identifier of the server whose data directory this is; `None` if it cannot be read.
pub(super) fn system_of(data: &Path) -> Option<u64> {
    let bytes = fs::read(data.join(control::PATH)).ok()?;
    bytes.first_chunk().map(|system| u64::from_le_bytes(*system))
}

/// The server whose log lies in this directory, as one of its segments says; `None` if none is what its name says.
pub(super) fn server_of(log: &Path) -> Option<Server> {
    let system = log.parent().and_then(system_of);
    let said = |name: &str| {
        let LogFile::Segment(segment) = name.parse().ok()? else { return None };
        let (mut file, mut start) = (File::open(log.join(name)).ok()?, [0; LONG_HEADER]);
        file.read_exact(&mut start).ok()?;
        let first = first_page_of(&start, file.metadata().ok()?.len()).ok()?;
        // One that is kept for later still says what it was before.
        first.belongs_to(&start, segment).ok()?;
        Some(Server::from(first)).filter(|server| system.is_none_or(|system| system == server.system))
    };
    let names = fs::read_dir(log).ok()?.filter_map(Result::ok);
    names.filter_map(|entry| said(entry.file_name().to_str()?)).next()
}

/// The cluster of this name; without a name the only one there is.
///
/// # Errors
/// [`LogError::NoCluster`], [`LogError::NoClusters`], [`LogError::WhichCluster`], [`LogError::Name`].
pub async fn find_cluster(repo: &Repository, name: Option<&str>) -> Result<StoredCluster, Error> {
    match name {
        Some(name) => {
            let found = named(repo, name).await?;
            Ok(found.ok_or_else(|| LogError::NoCluster { name: name.to_owned() })?)
        }
        None => Ok(only(repo).await?.ok_or(LogError::NoClusters)?),
    }
}

async fn named(repo: &Repository, name: &str) -> Result<Option<StoredCluster>, Error> {
    check_name(name).map_err(|source| LogError::Name { name: name.to_owned(), source })?;
    Ok(repo.cluster(name).await?)
}

async fn only(repo: &Repository) -> Result<Option<StoredCluster>, Error> {
    let mut clusters = repo.clusters().await?;
    match clusters.len() {
        0 | 1 => Ok(clusters.pop()),
        count => Err(LogError::WhichCluster { count }.into()),
    }
}

/// The cluster's history that a server is, made if there is no such cluster yet; with `new_history` also if the server is another
/// one than before. This key's writer counts in it, or it is an error.
pub(in crate::ops) async fn history_of(
    repo: &Repository,
    name: Option<&str>,
    server: Server,
    new_history: bool,
) -> Result<(StoredCluster, History), Error> {
    let found = match name {
        Some(name) => named(repo, name).await?,
        None => only(repo).await?,
    };
    let (me, _) = repo.writer()?;
    let Some(found) = found else {
        let (name, first) = (name.unwrap_or(DEFAULT).to_owned(), server.history(1));
        let cluster = Cluster { name, engine: Engine::Postgres, histories: vec![first], writers: vec![me] };
        return Ok((repo.put_cluster(0, &cluster).await?, first));
    };
    may_archive(repo, &found, me)?;
    let cluster = &found.cluster;
    // A record that was read has a history.
    let current = *cluster.current().ok_or(LogError::NoClusters)?;
    if server.is(&current) {
        return Ok((found, current));
    }
    if let Some(old) = cluster.histories.iter().find(|history| server.is(history)) {
        return Err(LogError::OldHistory { cluster: cluster.name.clone(), history: old.number }.into());
    }
    if !new_history {
        let (what, expected, found) = server.difference(&current).unwrap_or(("history", 0, 0));
        return Err(LogError::OtherServer { cluster: cluster.name.clone(), what, expected, found }.into());
    }
    let next = server.history(current.number + 1);
    let mut cluster = cluster.clone();
    cluster.histories.push(next);
    Ok((repo.put_cluster(found.number + 1, &cluster).await?, next))
}

/// The history that goes on of a cluster that is known already, for a file that does not say what its server is; `system` is what
/// the server says elsewhere.
pub(super) async fn known_history(
    repo: &Repository,
    name: Option<&str>,
    system: Option<u64>,
) -> Result<(StoredCluster, History), Error> {
    let found = find_cluster(repo, name).await?;
    may_archive(repo, &found, repo.writer()?.0)?;
    let current = *found.cluster.current().ok_or(LogError::NoClusters)?;
    match system.filter(|system| *system != current.system) {
        None => Ok((found, current)),
        Some(system) => {
            let (cluster, what) = (found.cluster.name, "the system identifier");
            Err(LogError::OtherServer { cluster, what, expected: current.system, found: system }.into())
        }
    }
}

fn may_archive(repo: &Repository, found: &StoredCluster, writer: WriterId) -> Result<(), Error> {
    if repo.archives(found, &writer) {
        return Ok(());
    }
    Err(LogError::NotAllowed { cluster: found.cluster.name.clone(), writer }.into())
}

/// A writer that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// The cluster.
    pub cluster: String,
    /// The writer.
    pub writer: WriterId,
    /// How many writers it names now.
    pub writers: usize,
}

/// Lets a writer archive the log of a cluster.
///
/// # Errors
/// [`LogError::AllowedAlready`]; what the registry says of writers that are not in it.
pub async fn allow(repo: &Repository, name: &str, writer: &str) -> Result<Allowed, Error> {
    repo.maintainer()?;
    let found = find_cluster(repo, Some(name)).await?;
    let writer = crate::ops::writers::find_writer(repo, writer)?;
    let mut cluster = found.cluster;
    let Err(place) = cluster.writers.binary_search(&writer) else {
        return Err(LogError::AllowedAlready { cluster: cluster.name, writer }.into());
    };
    cluster.writers.insert(place, writer);
    let stored = repo.put_cluster(found.number + 1, &cluster).await?;
    repo.still_counts().await?;
    Ok(Allowed { cluster: cluster.name, writer, writers: stored.cluster.writers.len() })
}
