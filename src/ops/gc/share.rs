//! How much each snapshot needs alone, and what forgetting some would free.
//!
//! # Invariants
//! Memory is three bits a record, whatever is counted. No page is read more than twice for all snapshots together and once
//! more for the one that needs it alone.

use std::collections::{HashMap, HashSet};

use futures::StreamExt;

use super::reach::{Live, Marker, Reach, Step};
use super::world::{Root, read_roots};
use crate::class::Class;
use crate::error::Error;
use crate::id::{ChunkId, PackId, SnapshotId};
use crate::index::{BitSet, IndexError, LiveSet, View};
use crate::repo::{Listed, Repository};

/// Bytes that only some snapshots need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Of chunks, trees included, before compression.
    pub bytes: u64,
    /// About as many stored: each chunk's part of the pack it is in.
    pub stored: u64,
}

/// What would be free if these snapshots were removed: what they need and no other does.
pub async fn freed(repo: &Repository, forgotten: &HashSet<SnapshotId>) -> Result<Share, Error> {
    let listed = repo.list_snapshots().await?;
    let (gone, kept): (Vec<Listed>, Vec<Listed>) =
        listed.into_iter().partition(|listed| forgotten.contains(&listed.id));
    let kept = read_roots(repo, &kept).await?.read;
    let view = repo.load_index().await?.view;
    let mut reach = Reach::new(repo, view.clone(), Live::new(view.clone()))?;
    for root in &kept {
        reach.snapshot(root.tree).await?;
    }
    let before = amounts(&reach.marker.set)?;
    for root in readable(repo, gone).await? {
        reach.snapshot(root.tree).await?;
    }
    let mut share = Share::default();
    for (pack, (live, plain, size)) in amounts(&reach.marker.set)? {
        let added = live - before.get(&pack).map_or(0, |(live, ..)| *live);
        share.bytes += added;
        share.stored += part(size, added, plain);
    }
    Ok(share)
}

/// Those that can be read: what another one would free nobody knows, and it may be just what is to go.
async fn readable(repo: &Repository, listed: Vec<Listed>) -> Result<Vec<Root>, Error> {
    let mut reads = futures::stream::iter(listed)
        .map(|listed| async move { read_roots(repo, &[listed]).await })
        .buffered(repo.env().limits.requests.max(1));
    let mut found = Vec::new();
    while let Some(roots) = reads.next().await {
        match roots {
            Ok(roots) => found.extend(roots.read),
            Err(error) if error.class() == Class::Damage => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn part(size: u64, bytes: u64, plain: u64) -> u64 {
    if plain == 0 {
        return 0;
    }
    u64::try_from(u128::from(size) * u128::from(bytes.min(plain)) / u128::from(plain)).unwrap_or(u64::MAX)
}

/// For each pack: live bytes, bytes of its segments, stored bytes.
fn amounts(live: &LiveSet) -> Result<HashMap<PackId, (u64, u64, u64)>, IndexError> {
    let mut amounts: HashMap<PackId, (u64, u64, u64)> = HashMap::new();
    for pack in live.view().packs() {
        let (number, row) = pack?;
        let bytes = live.usage(number).bytes;
        let known = amounts.entry(row.id).or_default();
        known.0 += bytes;
        if known.2 == 0 {
            let segments = live.view().segments(number)?;
            known.1 = segments.iter().map(|segment| u64::from(segment.plain_len)).sum();
            known.2 = u64::from(row.size);
        }
    }
    Ok(amounts)
}

/// What each snapshot needs alone, in the order of the listing.
pub async fn shares(repo: &Repository) -> Result<Vec<(SnapshotId, Share)>, Error> {
    let roots = read_roots(repo, &repo.list_snapshots().await?).await?.read;
    let view = repo.load_index().await?.view;
    let mut reach = Reach::new(repo, view.clone(), Sharing::new(view.clone()))?;
    for root in &roots {
        reach.marker.begin(false);
        reach.snapshot(root.tree).await?;
    }
    let mut shares = Vec::new();
    for root in &roots {
        reach.marker.begin(true);
        reach.snapshot(root.tree).await?;
        shares.push((root.listed.id, reach.marker.alone));
    }
    Ok(shares)
}

/// Tells chunks that several snapshots reach from those that one does.
struct Sharing {
    view: View,
    /// Reached by any.
    once: BitSet,
    /// Reached by more than one.
    shared: BitSet,
    /// Reached by the one at hand.
    here: BitSet,
    /// Whether what is not shared is being counted.
    counting: bool,
    alone: Share,
}

impl Sharing {
    fn new(view: View) -> Self {
        let slots = usize::try_from(view.slots()).unwrap_or(usize::MAX);
        let bits = || BitSet::new(slots);
        let (once, shared, here) = (bits(), bits(), bits());
        Self { view, once, shared, here, counting: false, alone: Share::default() }
    }

    /// The next snapshot.
    fn begin(&mut self, counting: bool) {
        self.here.clear();
        (self.counting, self.alone) = (counting, Share::default());
    }

    fn reach(&mut self, id: &ChunkId, len: u32) -> Result<Step, IndexError> {
        let Some(copy) = self.view.copies(id).next().transpose()? else { return Ok(Step::Missing) };
        let slot = usize::try_from(copy.slot).unwrap_or(usize::MAX);
        let known = self.shared.get(slot);
        if self.here.get(slot) || known {
            // Below what is shared everything is.
            return Ok(Step::Skip);
        }
        self.here.set(slot);
        if self.counting {
            let pack = self.view.pack(copy.pack)?;
            let segments = self.view.segments(copy.pack)?;
            let plain = segments.iter().map(|segment| u64::from(segment.plain_len)).sum();
            self.alone.bytes += u64::from(len);
            self.alone.stored += part(u64::from(pack.size), u64::from(len), plain);
        } else if self.once.get(slot) {
            self.shared.set(slot);
        } else {
            self.once.set(slot);
        }
        Ok(Step::Enter)
    }
}

impl Marker for Sharing {
    fn page(&mut self, _key: u128, id: &ChunkId, len: u32) -> Result<Step, IndexError> {
        self.reach(id, len)
    }

    fn entered(&mut self, _key: u128) {}

    fn data(&mut self, id: &ChunkId, len: u32) -> Result<bool, IndexError> {
        Ok(!matches!(self.reach(id, len)?, Step::Missing))
    }
}
