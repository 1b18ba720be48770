//! Step 4 of a writer (`docs/protocol.md`): the check after the snapshot was stored, and what heals it.
//!
//! # Invariants
//! A snapshot is confirmed only after a check that came out clean (I5). What is lost is remembered from check to check until
//! every chunk of the snapshot was found in a pack that was listed after the index objects and is not condemned.
//!
//! # Crash
//! The snapshot is stored and nobody was told of it. It is a root all the same: what it needs is moved, not deleted.

use std::collections::HashSet;
use std::time::Duration;

use crate::error::Error;
use crate::event::Event;
use crate::format::layout::{self, ObjectName};
use crate::format::tree::TreeRef;
use crate::id::{PackId, SnapshotId};
use crate::ops::gc::reach::{Live, Reach};
use crate::ops::tree::is_cache_damage;
use crate::repo::{CheckOutcome, Dependencies, ListedIndex, LoadedIndex, RepoError, Repository};

/// How long a collector is given to move what a snapshot needs: its usual grace, and a day.
const LIMIT: Duration = Duration::from_secs(8 * 24 * 3600);
/// How long content that is nowhere is waited for: whoever deleted it may be about to name its new place.
const GONE_LIMIT: Duration = Duration::from_secs(3600);
/// How often it is looked whether there are new index objects.
const POLL: Duration = Duration::from_secs(60);
/// How often packs may be condemned or deleted while their content is looked up, before that is given up.
const LOOKS: usize = 16;

/// A snapshot that is stored and not confirmed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored {
    pub sequence: u64,
    pub id: SnapshotId,
    pub root: Option<TreeRef>,
    /// The sources can be read again.
    pub repeatable: bool,
}

impl Stored {
    fn unconfirmed(&self, reason: &'static str) -> Error {
        Error::Unconfirmed { snapshot: self.id.into(), reason }
    }
}

/// What the checks came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// The snapshot may be confirmed.
    Clean,
    /// Some of its content must be read and stored again.
    Again,
}

/// Checks the snapshot until it may be confirmed; `lost` are packs that were found condemned before. `index` and
/// `dependencies` are brought up to date.
///
/// # Errors
/// [`Error::Unconfirmed`] if it can never be confirmed, or was not within the time that a collector is given.
pub(super) async fn settle(
    repo: &Repository,
    stored: &Stored,
    index: &mut LoadedIndex,
    dependencies: &mut Dependencies,
    mut lost: HashSet<PackId>,
) -> Result<Settled, Error> {
    let mut patience = Patience::new(repo);
    let mut found_again = 0;
    while repo.check_commit(index, dependencies, &mut lost).await? == CheckOutcome::Lost {
        let listed = repo.list_index().await?;
        match look_again(repo, stored.root).await? {
            Look::Found(fresh, found) if found_again < LOOKS => {
                (*index, *dependencies) = (*fresh, found);
                lost.clear();
                found_again += 1;
            }
            _ if stored.repeatable => return Ok(Settled::Again),
            Look::Found(..) => return Err(stored.unconfirmed("collectors removed its packs again and again")),
            Look::Forbidden => {
                return Err(stored.unconfirmed(
                    "a collector removed packs it depends on, and this key may not look what was in them",
                ));
            }
            Look::Condemned => patience.wait(stored, &listed, false).await?,
            Look::Gone => patience.wait(stored, &listed, true).await?,
        }
    }
    wanted(repo, stored).await.map(|()| Settled::Clean)
}

/// What a look at everything below a snapshot found.
enum Look {
    /// All of it is in packs that may be depended on: these.
    Found(Box<LoadedIndex>, Dependencies),
    /// Some of it is only in packs that are condemned: a collector will move it.
    Condemned,
    /// Some of it is nowhere.
    Gone,
    /// This key may not read trees.
    Forbidden,
}

/// The packs that everything below a root is in, if a snapshot may depend on all of them.
pub(super) async fn usable(repo: &Repository, root: Option<TreeRef>) -> Result<Option<Dependencies>, Error> {
    Ok(match look_again(repo, root).await? {
        Look::Found(_, found) => Some(found),
        Look::Condemned | Look::Gone | Look::Forbidden => None,
    })
}

/// Looks everything up again, as a run does that begins now: index objects first, packs second, condemnations third.
async fn look_again(repo: &Repository, root: Option<TreeRef>) -> Result<Look, Error> {
    for _ in 1..LOOKS {
        match look_once(repo, root).await {
            Err(error) if passes(&error) => {}
            other => return other,
        }
    }
    look_once(repo, root).await
}

/// Whether another look may go better: a damaged cache was dropped when it was found, and a pack that was listed and then
/// deleted by a collector is listed no more, while its content has another place.
fn passes(error: &Error) -> bool {
    match error {
        Error::Store(error) | Error::Repo(RepoError::Store(error)) => error.is_not_found(),
        error => is_cache_damage(error),
    }
}

async fn look_once(repo: &Repository, root: Option<TreeRef>) -> Result<Look, Error> {
    let index = repo.load_index().await?;
    let mut reach = Reach::new(repo, index.view.clone(), Live::new(index.view.clone()))?;
    let broken = match reach.snapshot(root).await {
        Err(Error::Repo(RepoError::RoleForbids { .. } | RepoError::StaleKey)) => return Ok(Look::Forbidden),
        other => other?,
    };
    if broken.count > 0 {
        return Ok(Look::Gone);
    }
    let live = reach.marker.set;
    let mut found = HashSet::new();
    for pack in index.view.packs() {
        let (number, row) = pack?;
        if live.usage(number).chunks == 0 {
            continue;
        }
        if !index.view.is_usable(number) {
            return Ok(Look::Condemned);
        }
        found.insert(row.id);
    }
    Ok(Look::Found(Box::new(index), Dependencies(found)))
}

/// A snapshot that somebody removes must not be acknowledged. A tomb stays until the snapshot is gone, so looking for the one
/// and then for the other misses neither.
async fn wanted(repo: &Repository, stored: &Stored) -> Result<(), Error> {
    let tombs = repo.store().list(&format!("{}{}-", layout::TOMBS, stored.id)).await?;
    if !tombs.is_empty() {
        let marks = repo.read_marks().await?;
        // A tomb whose bytes are damaged may be one that counts.
        let unread = marks.is_damaged();
        if unread || marks.tombs.contains_key(&stored.id) || marks.removed.contains(&stored.id) {
            return Err(stored.unconfirmed("somebody has forgotten it already"));
        }
    }
    let (writer, _) = repo.writer()?;
    let key = ObjectName::Snapshot(writer, stored.sequence, stored.id).key();
    let listed = repo.store().list(&key).await?;
    if listed.iter().any(|object| object.key.as_str() == key) {
        Ok(())
    } else {
        Err(stored.unconfirmed("it is gone from the store"))
    }
}

/// Waiting for a collector, which moves what the snapshot needs and names the new place in an index object.
struct Patience<'a> {
    repo: &'a Repository,
    began: Duration,
    gone_since: Option<Duration>,
    told: bool,
}

impl<'a> Patience<'a> {
    fn new(repo: &'a Repository) -> Self {
        Self { repo, began: repo.env().clock.monotonic(), gone_since: None, told: false }
    }

    /// Waits until other index objects are listed than `seen`.
    async fn wait(&mut self, stored: &Stored, seen: &[ListedIndex], gone: bool) -> Result<(), Error> {
        let env = self.repo.env();
        if !std::mem::replace(&mut self.told, true) {
            let message = "packs of this snapshot were condemned: waiting until their content is moved";
            env.observer.observe(&Event::Warning { message });
        }
        loop {
            let now = env.clock.monotonic();
            let gone_since = *self.gone_since.get_or_insert(now);
            if !gone {
                self.gone_since = None;
            } else if now.saturating_sub(gone_since) >= GONE_LIMIT {
                return Err(stored.unconfirmed(
                    "a collector removed packs it depends on, and the stream cannot be read again",
                ));
            }
            if now.saturating_sub(self.began) >= LIMIT {
                return Err(stored.unconfirmed("a collector condemned packs it depends on and moved nothing"));
            }
            self.pause(stored).await?;
            wanted(self.repo, stored).await?;
            if self.repo.list_index().await? != seen {
                return Ok(());
            }
        }
    }

    async fn pause(&self, stored: &Stored) -> Result<(), Error> {
        let env = self.repo.env();
        let waited = env.cancel.wait(&*env.clock, POLL).await;
        waited.map_err(|_| stored.unconfirmed("the run was stopped while it waited for a collector"))
    }
}
