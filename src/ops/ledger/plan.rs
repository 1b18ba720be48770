//! What follows from a ledger.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::{Fact, Ledger, Stored};
use crate::clock::{Timestamp, later};
use crate::format::ledger::Look;
use crate::id::ObjectHash;
use crate::repo::StoredVerified;

/// How many gaps between runs say how often there is one.
const GAPS: usize = 7;
/// How many ends of runs are kept, of each way to look.
const ENDS_KEPT: usize = GAPS + 1;
/// A record is kept for so long, whatever it says.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// When everything will have been looked at again, if it goes on like this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// After so many runs as the last one.
    pub runs: u64,
    /// Within this time, if it is known how often there is a run.
    pub within: Option<Duration>,
}

/// What follows if everything takes so many runs, of which the last ones ended at these times, oldest first.
pub fn forecast(runs: u64, ends: &[Timestamp]) -> Forecast {
    let mut gaps: Vec<i64> = ends.windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].0)).collect();
    let recent = gaps.split_off(gaps.len().saturating_sub(GAPS));
    let longest = recent.into_iter().max().and_then(|gap| u64::try_from(gap).ok());
    let within = longest.map(|gap| Duration::from_nanos(gap.saturating_mul(runs)));
    Forecast { runs, within }
}

/// In how many runs of at most so many bytes each everything is looked at, one after the other as it waits.
///
/// Taking an object away makes them no more, and what is stored meanwhile waits behind (Murgolo 1988: next fit is monotonic).
pub fn rounds(ledger: &Ledger, (all, look): (&[Stored], Look), most: u64) -> u64 {
    let (mut runs, mut sum) = (0_u64, u64::MAX);
    for at in order(ledger, (all, look)) {
        sum = sum.saturating_add(all[at].size);
        if sum > most {
            (runs, sum) = (runs + 1, all[at].size);
        }
    }
    runs.max(1)
}

/// What is left of a budget of bytes in one run.
#[derive(Debug, Clone, Copy)]
pub struct Purse {
    most: u64,
    spent: u64,
}

impl Purse {
    /// With so many bytes in it.
    pub fn new(most: u64) -> Self {
        Self { most, spent: 0 }
    }

    /// Whether there is enough for an object of this size; for the first one there always is.
    pub fn has(&self, size: u64) -> bool {
        self.spent == 0 || self.spent.saturating_add(size) <= self.most
    }

    /// Spends that.
    pub fn spend(&mut self, size: u64) {
        self.spent = self.spent.saturating_add(size);
    }

    /// Takes it back: nothing came of it.
    pub fn refund(&mut self, size: u64) {
        self.spent = self.spent.saturating_sub(size);
    }
}

/// In which order things are looked at: positions in `all`, what waits for longest first.
pub fn order(ledger: &Ledger, (all, look): (&[Stored], Look)) -> Vec<usize> {
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_cached_key(|at| (ledger.waits(&all[*at], look), all[*at].hash));
    order
}

/// Which records say nothing any more: of each object that is there another one says something newer, and they are neither
/// young nor among the last ends of runs.
pub fn superseded(
    records: &[StoredVerified],
    there: &HashSet<ObjectHash>,
    now: Timestamp,
) -> Vec<ObjectHash> {
    let mut kept: HashSet<ObjectHash> = HashSet::new();
    // What is newest of an object: the time, and the record.
    let mut newest: HashMap<(ObjectHash, Fact, Look), (Timestamp, ObjectHash)> = HashMap::new();
    let ledger = Ledger::of(records, now);
    for record in records {
        let (at, look) = (record.since(), record.verified.look);
        let mut take = |object: &ObjectHash, fact| {
            if !there.contains(object) || !ledger.believes(record) {
                return;
            }
            let looks: &[Look] = match (fact, look) {
                (Fact::Good, Look::Opened) => &[Look::Read, Look::Opened],
                (Fact::Good, Look::Read) => &[Look::Read],
                (Fact::Damaged, _) if ledger.is_damaged(object) => &[look],
                (Fact::Damaged, _) => &[],
            };
            for look in looks {
                let best = newest.entry((*object, fact, *look)).or_insert((at, record.hash));
                *best = (*best).max((at, record.hash));
            }
        };
        record.verified.good.iter().for_each(|object| take(object, Fact::Good));
        record.verified.damaged.iter().for_each(|object| take(object, Fact::Damaged));
    }
    kept.extend(newest.into_values().map(|(_, record)| record));
    for look in [Look::Read, Look::Opened] {
        // By the time that they are read by.
        let ends = records.iter().filter(|record| {
            record.verified.ended.is_some() && record.verified.look == look && ledger.believes(record)
        });
        let mut ends: Vec<_> = ends.map(|record| (record.since(), record.hash)).collect();
        ends.sort_unstable();
        kept.extend(ends.into_iter().rev().take(ENDS_KEPT).map(|(_, hash)| hash));
    }
    let young = |record: &&StoredVerified| later(record.stored, KEPT_FOR) > now;
    kept.extend(records.iter().filter(young).map(|record| record.hash));
    records.iter().map(|record| record.hash).filter(|hash| !kept.contains(hash)).collect()
}
