//! Why a path of this machine is saved or is not, when it was saved last, and whether it has changed since.
//!
//! # Invariants
//! What is said of rules comes from the steps of the walk that a backup makes, taken for this one path.
//!
//! # Must not
//! Read the content of files, neither here nor in the repository.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::class::Class;
use crate::error::Error;
use crate::event::Event;
use crate::format::node::{Node, NodeKind};
use crate::ops::anchor::trusted;
use crate::ops::backup::{BackupOptions, BackupSource, file_time, node_kind, walk_options};
use crate::ops::diff::{Change, Field, change, fields};
use crate::ops::snapshots::{SnapshotFilter, SnapshotInfo, SnapshotList, list};
use crate::ops::tree::{Absent, Found, Lookup, is_local_damage};
use crate::repo::Repository;
use crate::source::Stat;
pub use crate::source::walk::{Explanation, Fate, Omission};
use crate::source::walk::{WalkOptions, explain};

/// Bytes of trees that one request to a store far away may fetch.
const AHEAD: u64 = 1 << 20;

/// What to explain.
#[derive(Debug)]
pub struct WhyOptions {
    /// An absolute path of this machine.
    pub path: PathBuf,
    /// The sources and rules of the backup; without paths, the sources are those of the newest snapshot that counts and has one
    /// at the path or above it, or of the newest that counts.
    pub backup: BackupOptions,
    /// The snapshots that count.
    pub filter: SnapshotFilter,
}

/// What was saved last.
#[derive(Debug)]
pub struct LastSaved {
    /// The newest snapshot that holds the path.
    pub snapshot: SnapshotInfo,
    /// What it holds; `None` for the root, of which nothing is stored.
    pub node: Option<Box<Node>>,
    /// Whether it is the newest of all that count; false if one of them cannot be read.
    pub is_newest: bool,
    /// Whether a newer one, with a source at the path or above it, does not hold the path.
    pub is_dropped: bool,
    /// How what stands there now differs from it.
    pub since: Since,
}

/// What became of an entry since it was saved, as its size, its times and its other metadata show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// Nothing.
    Unchanged,
    /// It is another now.
    Changed(Change, Vec<Field>),
    /// It is gone.
    Gone,
    /// Nobody can tell.
    Unknown,
}

/// The answer.
#[derive(Debug)]
pub struct Why {
    /// The sources that count.
    pub sources: Vec<PathBuf>,
    /// What a backup of them would do.
    pub fate: Fate,
    /// What there is of the path in the repository.
    pub saved: Option<LastSaved>,
    /// Snapshots that cannot be read, or not at this path.
    pub damaged: u64,
}

/// Explains one path.
///
/// # Errors
/// A mistake in the rules or the sources, as a backup would find it; what concerns the whole run.
pub async fn why(repo: &Repository, options: WhyOptions) -> Result<Why, Error> {
    let WhyOptions { path, mut backup, filter } = options;
    let mut known = list(repo, &filter).await?;
    known.snapshots.retain(|info| info.forgotten.is_none());
    let sources = match &backup.source {
        BackupSource::Paths(paths) if !paths.is_empty() => paths.clone(),
        _ => sources(&known.snapshots, &path),
    };
    backup.source = BackupSource::Paths(sources.clone());
    let Explanation { fate, stat } = explain(walk(repo, backup)?, &path)?;
    let (saved, damaged) = last_saved(repo, &known, &path).await?;
    let saved = saved.map(|Held { snapshot, node, is_newest, is_dropped }| {
        let since = match (&node, &stat) {
            (Some(node), Ok(stat)) => since(node, stat, &path),
            (_, Err(error)) if is_gone(error) => Since::Gone,
            _ => Since::Unknown,
        };
        LastSaved { snapshot, node, is_newest, is_dropped, since }
    });
    Ok(Why { sources, fate, saved, damaged })
}

/// As a backup walks; where one would refuse to begin, so does this.
fn walk(repo: &Repository, backup: BackupOptions) -> Result<WalkOptions, Error> {
    // Where a path is stored has no part in whether it is.
    let plain = BackupOptions { stored_as: None, ..backup };
    walk_options(repo, &plain)
}

/// The sources of the newest snapshot that tells of the path, or else of the newest.
fn sources(snapshots: &[SnapshotInfo], path: &Path) -> Vec<PathBuf> {
    let confirmed = || snapshots.iter().rev().filter(|info| info.confirmed);
    let covering = confirmed().find(|info| covers(info, path));
    covering.or_else(|| confirmed().next()).map(sources_of).unwrap_or_default()
}

fn sources_of(info: &SnapshotInfo) -> Vec<PathBuf> {
    let paths = info.snapshot.paths.iter().map(|path| super::restore::as_path(path.clone()));
    paths.filter(|path| path.is_absolute()).collect()
}

/// Whether a source of the snapshot is the path or above it.
fn covers(info: &SnapshotInfo, path: &Path) -> bool {
    sources_of(info).iter().any(|source| path.starts_with(source))
}

struct Held {
    snapshot: SnapshotInfo,
    node: Option<Box<Node>>,
    is_newest: bool,
    is_dropped: bool,
}

/// The newest snapshot that holds the path, and how many could not tell.
async fn last_saved(
    repo: &Repository,
    known: &SnapshotList,
    path: &Path,
) -> Result<(Option<Held>, u64), Error> {
    let mut damaged = known.unreadable.len() as u64;
    for (key, error) in &known.unreadable {
        let message = format!("{key} is left out: {error}");
        repo.env().observer.observe(&Event::Warning { message: &message });
    }
    let lookup = Lookup::open(repo).await?;
    let mut reader = lookup.reader_ahead(AHEAD)?;
    let mut absent = Absent::default();
    let stored = path.as_os_str().as_bytes();
    let mut is_dropped = false;
    for (age, info) in known.snapshots.iter().rev().enumerate() {
        if repo.env().cancel.is_raised() {
            return Err(Error::Cancelled);
        }
        let is_newest = age == 0 && known.unreadable.is_empty() && trusted(repo).is_ok();
        let held = |node| Held { snapshot: info.clone(), node, is_newest, is_dropped };
        match reader.find_anew(info.snapshot.root, stored, &mut absent).await {
            Ok(None | Some(Found::Root(None))) => is_dropped |= covers(info, path),
            Ok(Some(Found::Root(Some(_)))) => return Ok((Some(held(None)), damaged)),
            Ok(Some(Found::Node(node))) => return Ok((Some(held(Some(node))), damaged)),
            Err(error) if is_local_damage(&error) => {
                damaged += 1;
                let event = Event::EntryFailed { path, error: &error, class: Class::Damage };
                repo.env().observer.observe(&event);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((None, damaged))
}

fn is_gone(error: &crate::source::SourceError) -> bool {
    use crate::source::SourceError::{Missing, Replaced, Vanished};
    matches!(error, Missing { .. } | Vanished { .. } | Replaced { .. })
}

/// How an entry of this machine differs from what is stored of it. Attributes and names of owners are not asked for.
fn since(saved: &Node, stat: &Stat, path: &Path) -> Since {
    // What it was is not known, or an image of it was saved.
    let image = (saved.kind, node_kind(stat.kind())) == (NodeKind::File, NodeKind::BlockDevice);
    if saved.kind == NodeKind::Unknown || image {
        return Since::Unknown;
    }
    let mut now = saved.clone();
    now.kind = node_kind(stat.kind());
    now.mode = stat.mode & 0o7777;
    (now.uid, now.gid) = (stat.uid, stat.gid);
    now.mtime = file_time(stat.mtime);
    match now.kind {
        NodeKind::File => now.size = stat.size,
        NodeKind::CharDevice | NodeKind::BlockDevice => now.rdev = stat.rdev,
        NodeKind::Symlink => match std::fs::read_link(path) {
            Ok(target) => now.target = target.into_os_string().into_encoded_bytes(),
            Err(_) => return Since::Unknown,
        },
        _ => {}
    }
    change(saved, &now).map_or(Since::Unchanged, |change| Since::Changed(change, fields(saved, &now)))
}

#[cfg(test)]
mod tests;
