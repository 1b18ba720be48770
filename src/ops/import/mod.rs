//! Import: snapshots of another tool's repository become snapshots of this one. So far that tool is restic.
//!
//! Nothing is restored to disk on the way: directories and content go from their packs to the transfer of
//! [`crate::ops::backup`], which cuts, names, seals, checks and confirms them as those of a backup.
//!
//! # Invariants
//! * Every piece has the SHA-256 that restic gave it. What is damaged or gone is recorded with its entry, counted, and said;
//!   everything else is imported.
//! * A snapshot is imported once: it carries where it came from.
//! * What is as it was in the snapshot of the same machine and sources that was imported before is not read again.
//!
//! # Must not
//! Write to the other repository.

mod before;
mod convert;
mod plan;
mod send;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::{HashMap, VecDeque};

use tokio::sync::Mutex;

use self::send::ResticTree;
use self::walk::Earlier;
use super::backup::{Arrival, Base, Brought, TransferPlace, Transferred, transfer};
use super::snapshots::{SnapshotFilter, SnapshotInfo, list_checked};
use crate::crypto::{SecretKey, context};
use crate::error::Error;
use crate::event::{Event, Phase};
use crate::format::snapshot::Origin;
use crate::format::tree::TreeRef;
use crate::id::{ResticId, SnapshotId};
use crate::repo::Repository;
use crate::restic::{Catalog, Restic, ResticError, Snapshot};

/// What an origin is called that is a repository of restic.
pub const RESTIC: &str = "restic";

/// Which snapshots are imported, and how.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Beginnings of ids; all snapshots if there are none.
    pub named: Vec<String>,
    /// Made on any of these machines.
    pub hosts: Vec<String>,
    /// With all of these tags.
    pub tags: Vec<String>,
    /// Made of all of these sources.
    pub paths: Vec<String>,
    /// Import those again that could not be brought in full before.
    pub again: bool,
    /// Level of zstd.
    pub level: i32,
}

/// A snapshot that is here already.
#[derive(Debug, Clone)]
pub struct Known {
    /// As restic has it.
    pub theirs: Snapshot,
    /// Its name here.
    pub snapshot: SnapshotId,
    /// Entries that could not be brought in full.
    pub missing: u64,
}

/// What became of a snapshot.
#[derive(Debug)]
pub enum Done {
    /// It was imported.
    Imported(Box<Snapshot>, Brought),
    /// Its root cannot be read, so there is nothing to import.
    Unreadable(Box<Snapshot>, Error),
}

/// Machine and sources: what snapshots must have in common to be compared.
type Group = (String, Vec<String>);

/// What of an imported snapshot the next one of its group is compared with.
struct Previous {
    tree: ResticId,
    root: Option<TreeRef>,
    whole: bool,
    base: Option<Base>,
}

/// An import from a repository of restic, one snapshot at a time.
pub struct Import<'r> {
    repo: &'r Repository,
    restic_id: Vec<u8>,
    catalog: Mutex<Catalog>,
    place: TransferPlace,
    hard_links: SecretKey,
    level: i32,
    todo: VecDeque<Snapshot>,
    known: Vec<Known>,
    problems: Vec<ResticError>,
    previous: HashMap<Group, Previous>,
}

impl std::fmt::Debug for Import<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Import").field("todo", &self.todo.len()).finish_non_exhaustive()
    }
}

impl<'r> Import<'r> {
    /// Finds out what is to be done. Nothing is stored.
    ///
    /// # Errors
    /// [`Error::Busy`] if another import from there is at work on this machine; [`crate::repo::RepoError::RoleForbids`] unless
    /// the key is a maintainer's; [`ResticError::NoSnapshot`] and
    /// [`ResticError::AmbiguousSnapshot`] for names; whatever keeps either repository from being read.
    pub async fn plan(repo: &'r Repository, restic: &Restic, options: &ImportOptions) -> Result<Self, Error> {
        let restic_id = repository_name(restic);
        let lock = [RESTIC.as_bytes(), b":", &restic_id].concat();
        let place = TransferPlace::lock(repo, &lock).await?;
        let observer = &*repo.env().observer;
        observer.observe(&Event::PhaseStarted { phase: Phase::Plan, total: None });
        let requests = repo.env().limits.requests;
        // Snapshots before indexes: what a snapshot needs was indexed before it was there.
        let (snapshots, mut problems) = restic.snapshots(requests).await?;
        let chosen = choose(snapshots, options)?;
        let places = &repo.env().places;
        let scratch = places.cache.as_ref().unwrap_or(&places.state).join("import");
        let (catalog, unread) = restic.catalog(&scratch, requests).await?;
        problems.extend(unread);
        let mut import = Self {
            repo,
            restic_id,
            catalog: Mutex::new(catalog),
            place,
            hard_links: repo.dedup_key(context::HARD_LINK)?,
            level: options.level,
            todo: VecDeque::new(),
            known: Vec::new(),
            problems,
            previous: HashMap::new(),
        };
        import.sort_out(chosen, options.again).await?;
        observer.observe(&Event::PhaseFinished { phase: Phase::Plan });
        Ok(import)
    }

    /// Tells what is here already from what is to be done.
    async fn sort_out(&mut self, chosen: Vec<Snapshot>, again: bool) -> Result<(), Error> {
        let found = list_checked(self.repo, &SnapshotFilter::default()).await?;
        for (key, error) in &found.unreadable {
            let message = format!("{key} cannot be read, so what it was imported from is not known: {error}");
            self.repo.env().observer.observe(&Event::Warning { message: &message });
        }
        let from_here = |info: &SnapshotInfo| {
            let origin = info.origin()?;
            let known = origin.kind == RESTIC && origin.repository == self.restic_id;
            let counts = known && info.confirmed && info.forgotten.is_none();
            counts.then(|| (origin.snapshot.clone(), (info.id, info.snapshot.root, origin.missing)))
        };
        let mut here: HashMap<Vec<u8>, (SnapshotId, Option<TreeRef>, u64)> = HashMap::new();
        for (theirs, ours) in found.snapshots.iter().filter_map(from_here) {
            // Of several the one counts that lacks least.
            let least = here.entry(theirs).or_insert(ours);
            if ours.2 < least.2 {
                *least = ours;
            }
        }
        for theirs in chosen {
            let before = here.get(&theirs.id.as_bytes()[..]).copied();
            let Some((snapshot, root, missing)) = before.filter(|(.., missing)| *missing == 0 || !again)
            else {
                self.todo.push_back(theirs);
                continue;
            };
            let previous = Previous { tree: theirs.tree, root, whole: missing == 0, base: None };
            self.previous.insert(group(&theirs), previous);
            self.known.push(Known { theirs, snapshot, missing });
        }
        Ok(())
    }

    /// What is here already, the oldest first.
    pub fn known(&self) -> &[Known] {
        &self.known
    }

    /// Snapshots and indexes of restic that could not be read.
    pub fn problems(&self) -> &[ResticError] {
        &self.problems
    }

    /// What is still to be imported, the oldest first.
    pub fn left(&self) -> impl ExactSizeIterator<Item = &Snapshot> {
        self.todo.iter()
    }

    /// Imports the next snapshot, the oldest first; `None` at the end.
    ///
    /// # Errors
    /// What ends the import. What concerns entries only is counted.
    pub async fn next(&mut self) -> Result<Option<Done>, Error> {
        let Some(theirs) = self.todo.pop_front() else { return Ok(None) };
        match self.catalog.lock().await.read_tree(&theirs.tree).await {
            Ok(_) => {}
            Err(error) if error.is_local() => {
                return Ok(Some(Done::Unreadable(Box::new(theirs), error.into())));
            }
            Err(error) => return Err(error.into()),
        }
        let group = group(&theirs);
        let previous = self.previous.remove(&group);
        let base = match &previous {
            Some(Previous { base: Some(base), .. }) => Some(base.clone()),
            Some(previous) => Base::of(self.repo, previous.root).await?,
            None => None,
        };
        let earlier = previous.as_ref().filter(|_| base.is_some());
        let earlier = earlier.map(|Previous { tree, root, whole, .. }| Earlier {
            tree: *tree,
            root: *root,
            whole: *whole,
        });
        let tree = ResticTree {
            repo: self.repo,
            catalog: &self.catalog,
            tree: theirs.tree,
            earlier,
            hard_links: &self.hard_links,
        };
        let arrival = self.arrival(&theirs);
        let done = transfer(self.repo, &self.place, (&arrival, base.as_ref()), &tree).await?;
        let Transferred { brought, root, base } = done;
        let whole = brought.missing == 0;
        self.previous.insert(group, Previous { tree: theirs.tree, root, whole, base: Some(base) });
        Ok(Some(Done::Imported(Box::new(theirs), brought)))
    }

    fn arrival(&self, theirs: &Snapshot) -> Arrival {
        let bytes = |text: &String| text.clone().into_bytes();
        let mut sources = theirs.paths.clone();
        sources.sort();
        Arrival {
            time: theirs.time,
            duration: theirs.duration,
            host: bytes(&theirs.host),
            user: bytes(&theirs.user),
            // As a backup of the same sources would be called, so that it can go on with this job.
            job: sources.join(" ").into_bytes(),
            paths: theirs.paths.iter().map(bytes).collect(),
            tags: theirs.tags.clone(),
            problems: 0,
            origin: Origin {
                kind: RESTIC.to_owned(),
                repository: self.restic_id.clone(),
                snapshot: theirs.id.as_bytes().to_vec(),
                time: theirs.time,
                missing: 0,
            },
            total: theirs.bytes,
            level: self.level,
        }
    }
}

fn group(snapshot: &Snapshot) -> Group {
    (snapshot.host.clone(), snapshot.paths.clone())
}

/// What names the repository in an origin: its id, as bytes if it is the hexadecimal number that it should be.
fn repository_name(restic: &Restic) -> Vec<u8> {
    let id = restic.id();
    id.parse::<ResticId>().map_or_else(|_| id.as_bytes().to_vec(), |id| id.as_bytes().to_vec())
}

/// The snapshots that the options mean, in the order they had.
fn choose(snapshots: Vec<Snapshot>, options: &ImportOptions) -> Result<Vec<Snapshot>, ResticError> {
    let ImportOptions { named, hosts, tags, paths, .. } = options;
    for selector in named {
        let count = snapshots.iter().filter(|snapshot| is_named(snapshot, selector)).count();
        let selector = selector.clone();
        match count {
            0 => return Err(ResticError::NoSnapshot { selector }),
            1 => {}
            count => return Err(ResticError::AmbiguousSnapshot { selector, count }),
        }
    }
    let chosen = |snapshot: &Snapshot| {
        (named.is_empty() || named.iter().any(|selector| is_named(snapshot, selector)))
            && (hosts.is_empty() || hosts.contains(&snapshot.host))
            && tags.iter().all(|tag| snapshot.tags.contains(tag))
            && paths.iter().all(|path| snapshot.paths.contains(path))
    };
    Ok(snapshots.into_iter().filter(chosen).collect())
}

fn is_named(snapshot: &Snapshot, selector: &str) -> bool {
    !selector.is_empty() && snapshot.id.to_string().starts_with(&selector.to_ascii_lowercase())
}

#[cfg(test)]
mod choice {
    use super::*;

    fn snapshot(byte: u8, host: &str, tags: &[&str]) -> Snapshot {
        Snapshot {
            id: ResticId::new([byte; 32]),
            time: i64::from(byte),
            duration: 0,
            tree: ResticId::new([0; 32]),
            paths: vec!["/a".to_owned(), "/b".to_owned()],
            host: host.to_owned(),
            user: String::new(),
            tags: tags.iter().map(ToString::to_string).collect(),
            bytes: None,
        }
    }

    fn chosen(options: &ImportOptions) -> Result<Vec<u8>, ResticError> {
        let all = vec![
            snapshot(0x1a, "one", &["x"]),
            snapshot(0x1b, "two", &["x", "y"]),
            snapshot(0x2c, "one", &[]),
        ];
        Ok(choose(all, options)?.iter().map(|snapshot| snapshot.id.as_bytes()[0]).collect())
    }

    fn text(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_and_filters_narrow_the_choice() {
        let none = ImportOptions::default;
        assert_eq!(chosen(&none()).unwrap(), [0x1a, 0x1b, 0x2c]);
        assert_eq!(chosen(&ImportOptions { named: text(&["2c", "1A1a"]), ..none() }).unwrap(), [0x1a, 0x2c]);
        assert_eq!(
            chosen(&ImportOptions { hosts: text(&["one", "three"]), ..none() }).unwrap(),
            [0x1a, 0x2c]
        );
        assert_eq!(chosen(&ImportOptions { tags: text(&["x", "y"]), ..none() }).unwrap(), [0x1b]);
        assert_eq!(chosen(&ImportOptions { paths: text(&["/b"]), ..none() }).unwrap().len(), 3);
        assert_eq!(chosen(&ImportOptions { paths: text(&["/c"]), ..none() }).unwrap(), Vec::<u8>::new());
        for (name, many) in [("1", true), ("3", false), ("", false), ("zz", false)] {
            let refused = chosen(&ImportOptions { named: text(&[name]), ..none() });
            assert_eq!(
                matches!(refused, Err(ResticError::AmbiguousSnapshot { count: 2, .. })),
                many,
                "{name}"
            );
            assert_eq!(matches!(refused, Err(ResticError::NoSnapshot { .. })), !many, "{name}");
        }
    }
}
