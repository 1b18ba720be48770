//! A repository, or one directory of a snapshot, as a read-only file system (FUSE).
//!
//! ```text
//! kernel -> door (threads) -> bridge -> server (one task) -> inodes, virtuals: what a number stands for
//!                                                         -> shelf, layout: which snapshots there are
//!                                                         -> listing, dirs, pages: directories
//!                                                         -> files, extents, segments: content
//! ```
//!
//! Threads take what the kernel asks and hand it over the one bridge; a task answers many questions at a time. Opening segments
//! is done by other threads, ahead of whoever reads in order.
//!
//! # Invariants
//! * Every byte and every name is one that was saved, or the answer is an error, which is told once. What is damaged costs what
//!   needs it and nothing else; a store that does not answer costs the questions of that time.
//! * Memory is bounded, whatever the tree: pages, descriptions of files, opened segments and numbers are kept while there is
//!   room; questions under way, and bytes that are fetched for them, are limited.
//! * A number never means another entry. After some sixty thousand other pages of directories a number that was not used may be
//!   *stale*: the kernel then finds the entry by its path again.
//!
//! # Crash
//! The mount stays behind without anyone to answer, as after any crash of such a program; `umount` takes it away. Nothing is
//! stored.
//!
//! # Must not
//! Change anything, follow what is stored to anywhere outside of its own tree, or recurse over it.

mod answer;
mod attr;
mod bare;
mod dirs;
mod door;
mod extents;
mod files;
mod inodes;
mod layout;
mod listing;
mod lru;
mod names;
mod pages;
mod place;
mod segments;
mod server;
mod session;
mod shelf;
mod told;
mod virtuals;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, channel, unbounded_channel};

use self::door::{Door, Question};
use self::segments::Wish;
use self::server::{Root, Server};
use self::session::{Gone, Session};
use self::shelf::Shelf;
use self::told::Told;
use crate::error::Error;
use crate::event::Event;
use crate::format::node::{FileTime, Node, NodeKind};
use crate::ops::restore::as_path;
use crate::ops::snapshots::{SnapshotFilter, SnapshotInfo};
use crate::ops::tree::{Found, Lookup};
use crate::repo::{Env, Repository};

pub use self::session::Access;

/// Questions that are answered at the same time; each may hold as much as one read.
const QUESTIONS: usize = 128;

/// What is shown.
#[derive(Debug, Clone)]
pub enum Show {
    /// The snapshots that match, by id, job, host and tag. New ones appear while it is mounted.
    Snapshots(SnapshotFilter),
    /// One directory of a snapshot: its stored path; empty or `/` for the root.
    Directory(Box<SnapshotInfo>, Vec<u8>),
}

/// What to mount, and where.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// What is shown.
    pub show: Show,
    /// Where: an empty directory.
    pub place: PathBuf,
    /// Who may use it.
    pub access: Access,
}

/// What was met while it was mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountSummary {
    /// Entries that could not be read because of damage in the repository.
    pub damaged: u64,
    /// Entries that could not be read for another reason.
    pub failed: u64,
}

/// Mounts, calls `mounted` when it stands, and answers until somebody unmounts it or the run is asked to stop, which is a
/// regular end: the mount is taken away then; one in use is detached, and its users get errors.
///
/// # Errors
/// [`Error::MountPoint`], [`Error::InsideRepository`], [`Error::NoFuse`], [`Error::OthersRefused`] and
/// [`Error::MountRefused`] before it stands; [`Error::NoSuchPath`] and [`Error::NotADirectory`] for a directory to show.
/// Afterwards what goes wrong with an entry is an event, and an error for who reads it.
pub async fn mount(
    repo: &Repository,
    options: MountOptions,
    mounted: impl FnOnce(),
) -> Result<MountSummary, Error> {
    place::check(repo, &options.place)?;
    let lookup = Lookup::open(repo).await?;
    let root = match options.show {
        Show::Snapshots(filter) => Root::Shelf(Shelf::open(&lookup, filter).await?.into()),
        Show::Directory(snapshot, path) => Root::Tree(directory(&lookup, &snapshot, path).await?.into()),
    };
    let (wishing, wishes) = unbounded_channel();
    let told = Told::new(Arc::clone(&repo.env().observer), options.place.clone());
    let server = Server::new(&lookup, root, told, wishing)?;
    let (bridge, questions) = channel(QUESTIONS);
    let door = Door::new(bridge, Arc::clone(&server.bare), options.access == Access::Checked);
    let mut session = session::start(door, &options.place, options.access).await?;
    mounted();
    // What was not answered when this ends is answered with an error, so that nobody waits for ever.
    let ended = serve((&server, repo.env()), questions, wishes, &mut session).await;
    match ended {
        Some(ended) => ended.map_err(|source| Error::MountRefused { path: options.place.clone(), source })?,
        None if session.end().await? == Gone::Detached => {
            let message =
                format!("{} was in use: it is detached, and its users get errors", options.place.display());
            repo.env().observer.observe(&Event::Warning { message: &message });
        }
        None => {}
    }
    let told = &server.told;
    Ok(MountSummary {
        damaged: told.damaged.load(Ordering::Relaxed),
        failed: told.failed.load(Ordering::Relaxed),
    })
}

/// The directory at a stored path.
async fn directory(lookup: &Lookup<'_>, snapshot: &SnapshotInfo, path: Vec<u8>) -> Result<Node, Error> {
    let mut reader = lookup.reader()?;
    match reader.find(snapshot.snapshot.root, &path).await? {
        None => Err(Error::NoSuchPath { path: as_path(path) }),
        Some(Found::Node(node)) if node.kind == NodeKind::Directory => Ok(*node),
        Some(Found::Node(_)) => Err(Error::NotADirectory { path: as_path(path) }),
        Some(Found::Root(tree)) => {
            let time = snapshot.snapshot.time;
            let mut node = Node::new(b"/".to_vec(), NodeKind::Directory);
            node.mode = 0o555;
            node.uid = rustix::process::getuid().as_raw();
            node.gid = rustix::process::getgid().as_raw();
            let (seconds, nanos) = (time.div_euclid(1_000_000_000), time.rem_euclid(1_000_000_000));
            node.mtime = FileTime { seconds, nanos: nanos as u32 };
            node.tree = tree;
            Ok(node)
        }
    }
}

/// Answers until the mount is gone, and says how the threads of the door ended; `None` if the run is to stop.
async fn serve(
    (server, env): (&Server<'_>, &Env),
    mut questions: Receiver<Question>,
    mut wishes: UnboundedReceiver<Wish>,
    session: &mut Session,
) -> Option<std::io::Result<()>> {
    let stop = env.cancel.wait(&*env.clock, Duration::MAX);
    let mut stop = std::pin::pin!(stop);
    let mut answers = FuturesUnordered::new();
    let mut granted = FuturesUnordered::new();
    loop {
        tokio::select! {
            _ = &mut stop => return None,
            ended = &mut session.ended => return Some(ended.unwrap_or(Ok(()))),
            Some(()) = answers.next(), if !answers.is_empty() => {}
            Some(()) = granted.next(), if !granted.is_empty() => {}
            Some(wish) = wishes.recv() => granted.push(server.grant(wish).boxed()),
            Some(question) = questions.recv(), if answers.len() < QUESTIONS => {
                answers.push(server.answer(question).boxed_local());
            }
        }
    }
}

#[cfg(test)]
mod tests;
