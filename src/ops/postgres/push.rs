//! `archive-push`: a file of the log that a server has ended goes into the repository.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::cluster::{Server, history_of, known_history, server_of, system_of};
use crate::error::{Error, LogError};
use crate::format::cluster::History;
use crate::format::layout::ObjectName;
use crate::format::log::{Checked, LOG_PLAIN_MAX, LogFacts, LogFile, LogName};
use crate::id::LogHash;
use crate::postgres::{WalError, Walker, first_page, parse_history};
use crate::repo::{ListedLog, NewLog, RepoError, Repository, StoredCluster};

/// Most bytes of a file that is no segment.
const SMALL_MAX: u64 = 1 << 20;

/// What to do about a segment that is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalCheck {
    /// Refuse it.
    Error,
    /// Store it, say so, and note it in the facts.
    Warn,
    /// Do not look.
    Off,
}

/// What is to be archived, and how.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// The file, named as the server names it.
    pub path: PathBuf,
    /// The cluster's name; `None` for the only one there is, or for `main` if there is none.
    pub cluster: Option<String>,
    /// What to do about damage.
    pub check: WalCheck,
    /// The server is another one than before: begin a history.
    pub new_history: bool,
    /// Name of this machine; raw bytes.
    pub host: Vec<u8>,
    /// Version of the program.
    pub program: String,
}

/// A file that is archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The file.
    pub file: LogFile,
    /// The cluster's name.
    pub cluster: String,
    /// Number of its history.
    pub history: u64,
    /// It was there before, with the same content.
    pub already: bool,
    /// Its length.
    pub bytes: u64,
    /// Length of what was stored.
    pub stored: u64,
    /// What is wrong with it, if it was stored all the same.
    pub fault: Option<WalError>,
}

/// Archives a file: durable, and alone under its name, when this returns.
///
/// # Errors
/// [`LogError`] for whatever is wrong with the file or the server it comes from; nothing was acknowledged then.
pub async fn push(repo: &Repository, options: &PushOptions) -> Result<Pushed, Error> {
    let name = options.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let named: Result<LogFile, _> = name.parse();
    let file = named.map_err(|source| LogError::FileName { path: options.path.clone(), source })?;
    let content = read(&options.path, file)?;
    let (facts, server, fault) = examine(file, &content, options.check)?;
    let cluster = options.cluster.as_deref();
    let (cluster, history) = match server {
        Some(server) => history_of(repo, cluster, server, options.new_history).await?,
        None => told_elsewhere(repo, options).await?,
    };
    let time = repo.env().clock.now().0;
    let facts = LogFacts { host: options.host.clone(), program: options.program.clone(), time, ..facts };
    let new = NewLog { place: (&cluster, history.number), file, content: &content, facts: &facts };
    let (stored, already) = store(repo, new, &history).await?;
    // What a writer stored that is being revoked may not count.
    repo.still_counts().await?;
    Ok(Pushed {
        file,
        cluster: cluster.cluster.name.clone(),
        history: history.number,
        already,
        bytes: content.len() as u64,
        stored: stored.size,
        fault,
    })
}

/// The history that a file belongs to which does not say what its server is. It may be the first one of a cluster, since a server
/// archives histories of timelines before all else: the segments beside it say it then.
async fn told_elsewhere(repo: &Repository, options: &PushOptions) -> Result<(StoredCluster, History), Error> {
    let (log, name) = (options.path.parent(), options.cluster.as_deref());
    match known_history(repo, name, log.and_then(Path::parent).and_then(system_of)).await {
        Err(Error::Log(error @ (LogError::NoCluster { .. } | LogError::NoClusters))) => {
            let server = log.and_then(server_of).ok_or(error)?;
            history_of(repo, name, server, false).await
        }
        found => found,
    }
}

/// Stores a file unless the same is there, and says which; fails if something else is there.
async fn store(repo: &Repository, new: NewLog<'_>, history: &History) -> Result<(ListedLog, bool), Error> {
    let ((cluster, _), file) = (new.place, new.file);
    let prefix = LogName::prefix(cluster.id, history.number, file);
    let plain = repo.log_hash(new.content)?;
    if let Some(same) = among(repo, (cluster, file, plain), &prefix, None).await? {
        return Ok((same, true));
    }
    let stored = repo.put_log(new, &repo.new_run_keys()?).await?;
    // Whoever comes later sees the other one.
    match among(repo, (cluster, file, plain), &prefix, Some(stored.name)).await? {
        Some(_) => Ok((stored, false)),
        None => Err(RepoError::NotListedBack { key: ObjectName::Log(stored.name).key() }.into()),
    }
}

/// Of the objects under a file's name one that is whole and has this content; `own` is one that was just stored.
///
/// # Errors
/// [`LogError::Different`] if one that counts has another content.
async fn among(
    repo: &Repository,
    (cluster, file, plain): (&StoredCluster, LogFile, LogHash),
    prefix: &str,
    own: Option<LogName>,
) -> Result<Option<ListedLog>, Error> {
    let (ours, _) = repo.writer()?;
    let mut same = None;
    for listed in repo.list_logs(prefix).await? {
        if !repo.archives(cluster, &listed.name.writer) || (listed.name.plain == plain && same.is_some()) {
            continue;
        }
        if own == Some(listed.name) {
            same = Some(listed);
            continue;
        }
        let is_same = listed.name.plain == plain;
        match repo.check_log(&listed).await {
            Ok(()) if is_same => same = Some(listed),
            // Anyone may put garbage. What is damaged may have been another content; the same one is stored beside it.
            Err(error) if error.is_invalid() || (error.is_damage() && is_same) => {}
            Err(error) if !error.is_damage() => return Err(error.into()),
            _ => return Err(LogError::Different { file, theirs: listed.name.writer, ours }.into()),
        }
    }
    Ok(same)
}

fn read(path: &Path, file: LogFile) -> Result<Vec<u8>, Error> {
    let failed = |source| LogError::Read { path: path.to_owned(), source };
    let opened = File::open(path).map_err(failed)?;
    let size = opened.metadata().map_err(failed)?.len();
    let most = match file {
        LogFile::Segment(_) | LogFile::Partial(_) => LOG_PLAIN_MAX as u64,
        LogFile::Backup(..) | LogFile::History(_) => SMALL_MAX,
    };
    if size > most {
        return Err(LogError::TooLong { path: path.to_owned(), size }.into());
    }
    let mut content = Vec::with_capacity(size as usize);
    opened.take(most + 1).read_to_end(&mut content).map_err(failed)?;
    match content.len() as u64 {
        size if size > most => Err(LogError::TooLong { path: path.to_owned(), size }.into()),
        _ => Ok(content),
    }
}

/// What a file says of itself: facts, the server it comes from, and what is wrong with it.
///
/// # Errors
/// If it is not what its name says, whatever `check` is: such a file must never stand in for the one that belongs there.
fn examine(
    file: LogFile,
    content: &[u8],
    check: WalCheck,
) -> Result<(LogFacts, Option<Server>, Option<WalError>), Error> {
    let name = match file {
        LogFile::Segment(name) | LogFile::Partial(name) => name,
        LogFile::History(timeline) => {
            parse_history(timeline, content).map_err(|source| LogError::History { file, source })?;
            return Ok((LogFacts::default(), None, None));
        }
        LogFile::Backup(..) => return Ok((LogFacts::default(), None, None)),
    };
    let refused = |source| LogError::Segment { file, source };
    let first = first_page(content).map_err(refused)?;
    first.belongs_to(content, name).map_err(refused)?;
    let server = Some(Server::from(first));
    if check == WalCheck::Off || matches!(file, LogFile::Partial(_)) {
        return Ok((LogFacts::default(), server, None));
    }
    match Walker::new().walk(content, name) {
        Ok(found) => {
            let facts = LogFacts {
                checked: Checked::Good,
                records: found.records,
                commits: found.commits,
                first_commit: found.first_commit,
                last_commit: found.last_commit,
                follows: found.follows,
                last: found.last,
                open: found.open,
                continues: found.continues,
                overwrites: found.overwrites,
                end: Some(found.end),
                ..LogFacts::default()
            };
            Ok((facts, server, None))
        }
        Err(fault) if check == WalCheck::Warn => {
            let facts =
                LogFacts { checked: Checked::Faulty, fault: Some(fault.to_string()), ..LogFacts::default() };
            Ok((facts, server, Some(fault)))
        }
        Err(fault) => Err(refused(fault).into()),
    }
}
