//! The snapshots that are shown: what was listed last, and when to list again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::layout::{Layout, Shown};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::event::Event;
use crate::ops::anchor::trusted;
use crate::ops::snapshots::{SnapshotFilter, SnapshotInfo, list_checked};
use crate::ops::tree::Lookup;
use crate::repo::Repository;

/// Snapshots are listed again after this time, near and far away.
const PAUSE_NEAR: Duration = Duration::from_secs(2);
const PAUSE_FAR: Duration = Duration::from_secs(15);

pub(super) struct Shelf<'a> {
    lookup: &'a Lookup<'a>,
    filter: SnapshotFilter,
    now: Mutex<(Arc<Layout>, Duration)>,
    looking: tokio::sync::Mutex<HashSet<String>>,
}

impl<'a> Shelf<'a> {
    /// Lists for the first time.
    pub(super) async fn open(lookup: &'a Lookup<'a>, filter: SnapshotFilter) -> Result<Self, Error> {
        let mut told = HashSet::new();
        let layout = read(lookup.repo(), &filter, &mut told).await?;
        let now = Mutex::new((Arc::new(layout), lookup.repo().env().clock.monotonic()));
        Ok(Self { lookup, filter, now, looking: tokio::sync::Mutex::new(told) })
    }

    fn now(&self) -> MutexGuard<'_, (Arc<Layout>, Duration)> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was listed last.
    pub(super) fn layout(&self) -> Arc<Layout> {
        Arc::clone(&self.now().0)
    }

    /// What there is, listed again if that was long ago. While one lists, or cannot, the others see what was there before.
    pub(super) async fn look(&self) -> Arc<Layout> {
        let repo = self.lookup.repo();
        let pause = if repo.store().is_local() { PAUSE_NEAR } else { PAUSE_FAR };
        let (known, looked) = self.now().clone();
        if repo.env().clock.monotonic().saturating_sub(looked) < pause {
            return known;
        }
        let Ok(mut told) = self.looking.try_lock() else { return known };
        let found = match read(repo, &self.filter, &mut told).await {
            Ok(layout) => Arc::new(layout),
            Err(error) => {
                let message = format!("cannot look for new snapshots: {}", chain(&error));
                repo.env().observer.observe(&Event::Warning { message: &message });
                known
            }
        };
        self.lookup.renew().await;
        *self.now() = (Arc::clone(&found), repo.env().clock.monotonic());
        found
    }
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

async fn read(
    repo: &Repository,
    filter: &SnapshotFilter,
    told: &mut HashSet<String>,
) -> Result<Layout, Error> {
    let found = list_checked(repo, filter).await?;
    for (key, error) in &found.unreadable {
        if told.insert(key.clone()) {
            let message = format!("{key} is left out: {}", chain(error));
            repo.env().observer.observe(&Event::Warning { message: &message });
        }
    }
    // Where the store shows less than it did, nothing may pass for the latest.
    let less = trusted(repo).is_err().then_some(Timestamp(i64::MAX));
    let unread = less.or_else(|| found.unread.iter().map(|listed| listed.stored).max());
    let standing = found.snapshots.into_iter().filter(|info| info.forgotten.is_none());
    let shown: Vec<Shown> = standing.map(shown).collect();
    Ok(Layout::new(&shown, unread))
}

fn shown(info: SnapshotInfo) -> Shown {
    let snapshot = info.snapshot;
    Shown {
        id: info.id,
        root: snapshot.root,
        time: snapshot.time,
        stored: info.stored,
        confirmed: info.confirmed,
        host: snapshot.host,
        job: snapshot.job,
        tags: snapshot.tags,
    }
}
