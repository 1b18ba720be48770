//! Copying snapshots into another repository, which has its own keys.
//!
//! Content is read and checked with the keys of the source, and goes the way of a backup into the target: cut, named and
//! sealed with the keys there. What the target has is not stored again, and what did not change since the snapshot that was
//! copied before is not even read.
//!
//! # Invariants
//! Nothing is decrypted to disk. The source is only read; in the target nothing is removed. A copy that lacks something
//! says so in its origin, and never passes for a whole one.
//!
//! # Crash
//! Snapshots that were copied stand. Of the one that was under way the packs stand, and the next copy adopts them.

mod ahead;
mod plan;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::{HashMap, VecDeque};

use self::plan::{Held, There, Wishes, group_of, judge};
pub use self::plan::{Planned, Verdict};
use self::tree::{Pair, SourceTree};
use crate::error::Error;
use crate::event::Event;
use crate::ops::backup::{Arrival, Base, Brought, Foreign, TransferPlace, Transferred, transfer};
use crate::ops::snapshots::{
    SnapshotFilter, SnapshotInfo, check_confirmations, judge_unread, list, resolve_all,
};
use crate::repo::Repository;
use crate::retention::Group;

/// What to copy.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// Selectors of snapshots; if there are none, all that match the filter, that were confirmed, and that nobody forgot.
    pub named: Vec<String>,
    /// Which snapshots count.
    pub filter: SnapshotFilter,
    /// Keep the target in step: only what is newer than what was copied before, and not what is forgotten meanwhile.
    pub mirror: bool,
    /// Copy those again whose copy lacks something.
    pub again: bool,
    /// Level of zstd.
    pub level: i32,
}

impl CopyOptions {
    /// Everything that is not there.
    pub fn new() -> Self {
        Self { named: Vec::new(), filter: SnapshotFilter::default(), mirror: false, again: false, level: 1 }
    }
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// What became of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was copied.
    Copied(Brought),
    /// It was removed from the source, or forgotten there, while it was copied; nothing was made of it.
    Gone,
    /// Not even its root can be read; nothing was made of it, because an empty snapshot would stand for all that it held.
    Unreadable,
    /// It was left as it is.
    Left(Verdict),
}

/// What was known of the last copy of a job of a machine.
struct Last {
    pair: Pair,
    /// What it needs, once that was looked at.
    base: Option<Base>,
    looked: bool,
}

/// A copy that is planned and goes on snapshot by snapshot, oldest first.
pub struct Copy<'a> {
    from: &'a Repository,
    to: &'a Repository,
    options: CopyOptions,
    place: Option<TransferPlace>,
    left: VecDeque<Planned>,
    last: HashMap<Group, Last>,
    /// Whole copies that the target had before.
    there: There,
    /// Snapshots of the source that cannot be read, by key; they may have been meant.
    pub unreadable: Vec<(String, Error)>,
}

impl<'a> Copy<'a> {
    /// Looks what both repositories have, and decides. Nothing is stored.
    ///
    /// # Errors
    /// [`Error::SameRepository`]; a selector that means no snapshot; what the stores say.
    pub async fn plan(from: &'a Repository, to: &'a Repository, options: CopyOptions) -> Result<Self, Error> {
        if from.id() == to.id() {
            return Err(Error::SameRepository { repository: from.id() });
        }
        let (snapshots, unreadable) = sources(from, &options).await?;
        let mut target = list(to, &SnapshotFilter::default()).await?;
        check_confirmations(to, &mut target.snapshots).await?;
        for (key, error) in &target.unreadable {
            let message = format!("object {key} of the target cannot be read and may be a copy: {error}");
            to.env().observer.observe(&Event::Warning { message: &message });
        }
        let there = There::new(to.id(), from.id(), &target.snapshots);
        let wishes = Wishes { mirror: options.mirror, again: options.again };
        let left = judge(from.id(), snapshots, &there, wishes).into();
        Ok(Self { from, to, options, place: None, left, last: HashMap::new(), there, unreadable })
    }

    /// The snapshots that are still to be dealt with.
    pub fn planned(&self) -> impl Iterator<Item = &Planned> {
        self.left.iter()
    }

    /// Deals with the next snapshot; `None` if there is no more.
    ///
    /// # Errors
    /// What ends the copy; what was copied before stands.
    pub async fn next(&mut self) -> Result<Option<(Planned, Outcome)>, Error> {
        let Some(planned) = self.left.pop_front() else { return Ok(None) };
        let outcome = match planned.verdict {
            Verdict::Copy => Box::pin(self.copy(&planned)).await?,
            verdict => {
                self.remember_held(&planned);
                Outcome::Left(verdict)
            }
        };
        Ok(Some((planned, outcome)))
    }

    /// A snapshot that was copied in full is what the next one of its job is compared with.
    fn remember_held(&mut self, planned: &Planned) {
        if planned.origin.missing == 0
            && let Some(Held { root, missing: 0, .. }) = self.there.get(&planned.origin)
        {
            let pair = Pair { source: planned.info.snapshot.root, copy: *root };
            self.last.insert(group_of(&planned.info), Last { pair, base: None, looked: false });
        }
    }

    async fn copy(&mut self, planned: &Planned) -> Result<Outcome, Error> {
        if self.place.is_none() {
            let origin = self.from.id().to_string();
            self.place = Some(TransferPlace::lock(self.to, origin.as_bytes()).await?);
        }
        let group = group_of(&planned.info);
        if let Some(last) = self.last.get_mut(&group).filter(|last| !last.looked) {
            last.base = Base::of(self.to, last.pair.copy).await?;
            last.looked = true;
        }
        let last = self.last.get(&group);
        let snapshot = &planned.info.snapshot;
        let arrival = Arrival {
            time: snapshot.time,
            duration: snapshot.duration,
            host: snapshot.host.clone(),
            user: snapshot.user.clone(),
            job: snapshot.job.clone(),
            paths: snapshot.paths.clone(),
            tags: snapshot.tags.clone(),
            problems: snapshot.problems,
            origin: planned.origin.clone(),
            total: Some(snapshot.totals.bytes),
            level: self.options.level,
        };
        let tree = SourceTree {
            from: self.from,
            to: self.to,
            listed: planned.info.listed(),
            root: snapshot.root,
            bytes: snapshot.totals.bytes,
            before: last.map(|last| last.pair),
            unless_forgotten: self.options.mirror,
        };
        let base = last.and_then(|last| last.base.as_ref());
        let Some(place) = &self.place else { return Ok(Outcome::Gone) };
        let done = match Box::pin(transfer(self.to, place, (&arrival, base), &tree)).await {
            Err(Error::OriginGone) => return Ok(Outcome::Gone),
            // What is removed while it is read is not damaged.
            Err(Error::SnapshotUnreadable { .. }) if tree.stands().await? => return Ok(Outcome::Unreadable),
            Err(Error::SnapshotUnreadable { .. }) => return Ok(Outcome::Gone),
            done => done?,
        };
        let Transferred { brought, root, base } = done;
        if brought.missing + planned.origin.missing == 0 {
            let pair = Pair { source: snapshot.root, copy: root };
            self.last.insert(group, Last { pair, base: Some(base), looked: true });
        }
        Ok(Outcome::Copied(brought))
    }
}

/// The snapshots that are meant, oldest first, and those that cannot be read and may be.
async fn sources(
    from: &Repository,
    options: &CopyOptions,
) -> Result<(Vec<SnapshotInfo>, Vec<(String, Error)>), Error> {
    if !options.named.is_empty() {
        let mut named = resolve_all(from, &options.named, &options.filter).await?;
        check_confirmations(from, &mut named).await?;
        named.sort_by_key(|info| (info.counted(), info.writer, info.sequence));
        return Ok((named, Vec::new()));
    }
    let mut found = list(from, &options.filter).await?;
    check_confirmations(from, &mut found.snapshots).await?;
    found.snapshots.retain(|info| info.confirmed && info.forgotten.is_none());
    judge_unread(from, &mut found).await?;
    let meant: Vec<_> = found.unread.iter().map(|listed| listed.name().key()).collect();
    found.unreadable.retain(|(key, _)| meant.contains(key));
    Ok((found.snapshots, found.unreadable))
}
