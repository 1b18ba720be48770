use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::format::ledger::Verified;
use crate::id::WriterId;

const DAY: i64 = 24 * 3600 * 1_000_000_000;

/// Later than everything that is said.
const LATE: Timestamp = Timestamp(1000 * DAY);

fn hash(number: u64) -> ObjectHash {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    ObjectHash::new(bytes)
}

fn record(number: u64, stored: i64, look: Look, (good, damaged): (&[u64], &[u64])) -> StoredVerified {
    let hashes = |numbers: &[u64]| numbers.iter().map(|number| hash(*number)).collect();
    let verified = Verified {
        author: WriterId::new([7; 16]),
        look,
        began: stored,
        passed: 0,
        good: hashes(good),
        damaged: hashes(damaged),
        ended: None,
        nonce: [0; 16],
    };
    StoredVerified { hash: hash(1_000_000 + number), verified, stored: Timestamp(stored) }
}

fn at(ledger: &Ledger, number: u64, look: Look) -> Option<i64> {
    ledger.good(&hash(number), look).map(|at| at.0)
}

#[test]
fn a_closer_look_counts_for_both_and_the_newest_counts() {
    let records = [
        record(0, 10, Look::Opened, (&[1, 2], &[])),
        record(1, 20, Look::Read, (&[1], &[])),
        record(2, 5, Look::Opened, (&[2], &[])),
    ];
    let ledger = Ledger::of(&records, LATE);
    assert_eq!((at(&ledger, 1, Look::Read), at(&ledger, 1, Look::Opened)), (Some(20), Some(10)));
    assert_eq!((at(&ledger, 2, Look::Read), at(&ledger, 2, Look::Opened)), (Some(10), Some(10)));
    assert_eq!(at(&ledger, 3, Look::Read), None);
}

#[test]
fn a_record_speaks_of_the_time_at_which_its_run_began() {
    let mut slow = record(0, 10 * DAY, Look::Read, (&[1], &[]));
    slow.verified.passed = 2 * DAY as u64;
    assert_eq!(at(&Ledger::of(std::slice::from_ref(&slow), LATE), 1, Look::Read), Some(8 * DAY));
    slow.verified.passed = u64::MAX;
    assert!(
        at(&Ledger::of(&[slow], LATE), 1, Look::Read).unwrap() < -DAY,
        "an absurd time makes it old, not new"
    );
}

#[test]
fn damage_stands_until_as_close_a_look_finds_none() {
    let stored = Stored { hash: hash(1), size: 5, stored: Timestamp(0) };
    let mut records = vec![
        record(0, 10, Look::Opened, (&[1], &[])),
        record(1, 20, Look::Opened, (&[], &[1])),
        record(2, 30, Look::Read, (&[1], &[])),
    ];
    let ledger = Ledger::of(&records, LATE);
    assert!(ledger.is_damaged(&hash(1)), "its bytes have the right hash, and do not open");
    assert_eq!(ledger.waits(&stored, Look::Read), Timestamp(30));
    assert_eq!(ledger.waits(&stored, Look::Opened), Timestamp(20), "it takes its turn");
    let coverage = ledger.coverage(&[stored], Look::Opened);
    assert_eq!((coverage.verified, coverage.damaged, coverage.oldest), (0, 1, None));
    records.push(record(3, 40, Look::Opened, (&[1], &[])));
    let ledger = Ledger::of(&records, LATE);
    assert!(!ledger.is_damaged(&hash(1)));
    assert_eq!(ledger.coverage(&[stored], Look::Opened).verified, 5);
}

#[test]
fn what_was_never_looked_at_waits_since_it_was_stored() {
    let of = |number, stored| Stored { hash: hash(number), size: 1, stored: Timestamp(stored) };
    let all = [of(1, 5), of(2, 50), of(3, 1)];
    let ledger = Ledger::of(&[record(0, 20, Look::Read, (&[3], &[]))], LATE);
    assert_eq!(order(&ledger, (&all, Look::Read)), [0, 2, 1]);
    assert_eq!(order(&ledger, (&all, Look::Opened)), [2, 0, 1], "nobody has opened any of them");
    let coverage = ledger.coverage(&all, Look::Read);
    assert_eq!((coverage.verified, coverage.bytes, coverage.oldest), (1, 3, Some(Timestamp(5))));
    // Stored anew under the same name: what was found before says nothing of it.
    assert_eq!(ledger.waits(&of(3, 90), Look::Read), Timestamp(90));
    assert_eq!(ledger.coverage(&[of(3, 90)], Look::Read).verified, 0);
}

#[test]
fn nothing_of_a_time_to_come_is_believed_and_it_keeps_nothing_from_being_looked_at() {
    let now = Timestamp(100 * DAY);
    let of = |number, stored| Stored { hash: hash(number), size: 1, stored: Timestamp(stored) };
    let all = [of(1, 5 * DAY), of(2, 4000 * DAY)];
    let ledger = Ledger::of(&[record(0, 5000 * DAY, Look::Opened, (&[1, 2], &[]))], now);
    assert_eq!(ledger.coverage(&all, Look::Read).verified, 0);
    assert_eq!(order(&ledger, (&all, Look::Read)), [1, 0]);
    assert!(ledger.coverage(&all, Look::Read).age(now) > Duration::from_secs(3000 * 24 * 3600));
    // Once looked at it takes its turn.
    let ledger = Ledger::of(&[record(0, 90 * DAY, Look::Opened, (&[2], &[]))], now);
    assert_eq!(order(&ledger, (&all, Look::Read)), [0, 1]);
    assert_eq!(ledger.coverage(&all, Look::Read).verified, 1);
    // Clocks that differ by minutes are not taken for lies.
    let ledger = Ledger::of(&[record(0, now.0 + DAY / 100, Look::Opened, (&[1], &[]))], now);
    assert_eq!(ledger.coverage(&all, Look::Read).verified, 1);
}

#[test]
fn a_copy_of_a_record_is_as_old_as_the_record() {
    let mut copied = record(0, 300 * DAY, Look::Read, (&[1], &[]));
    copied.verified.began = 2 * DAY;
    assert_eq!(at(&Ledger::of(std::slice::from_ref(&copied), LATE), 1, Look::Read), Some(2 * DAY));
    // A clock that is ahead makes nothing newer.
    copied.verified.began = 900 * DAY;
    assert_eq!(at(&Ledger::of(&[copied], LATE), 1, Look::Read), Some(300 * DAY));
}

#[test]
fn a_forecast_goes_by_the_longest_gap_of_late() {
    let ends = |days: &[i64]| days.iter().map(|day| Timestamp(day * DAY)).collect::<Vec<_>>();
    let days = |count: u64| Some(Duration::from_secs(count * 24 * 3600));
    let of = |runs, at: &[i64]| forecast(runs, &ends(at)).within;
    assert_eq!(of(21, &[1, 2, 3]), days(21));
    assert_eq!(of(21, &[1, 2, 4]), days(42));
    assert_eq!(of(21, &[1]), None);
    let long_ago: Vec<i64> = std::iter::once(-300).chain(0..9).collect();
    assert_eq!(of(1, &long_ago), days(1), "a summer without runs is forgotten");
}

#[test]
fn everything_takes_as_many_runs_as_its_objects_fill() {
    let of = |sizes: &[u64], most| {
        let stored = |(number, size): (usize, &u64)| Stored {
            hash: hash(number as u64),
            size: *size,
            stored: Timestamp(0),
        };
        let all: Vec<Stored> = sizes.iter().enumerate().map(stored).collect();
        rounds(&Ledger::new(LATE), (&all, Look::Read), most)
    };
    assert_eq!([of(&[], 5), of(&[1], 5), of(&[9], 5)], [1, 1, 1]);
    assert_eq!([of(&[5, 5, 5], 5), of(&[3, 3, 3], 5), of(&[2, 3, 9, 1, 1], 5)], [3, 3, 3]);
    assert_eq!(of(&[1, 2, 3], u64::MAX), 1);
}

/// A month of nights, in each of which something is stored, something goes, a part is verified, and now and then a bit flips.
struct Month {
    /// What is stored, by number.
    all: BTreeMap<u64, Stored>,
    ledger: Ledger,
    ends: Vec<Timestamp>,
    /// Damaged by a flip at this time, with the bound that was printed last for it.
    flipped: BTreeMap<u64, (Timestamp, Option<Duration>)>,
    bound: Option<Duration>,
    next: u64,
}

impl Month {
    fn store(&mut self, size: u64, now: Timestamp) {
        self.all.insert(self.next, Stored { hash: hash(self.next), size, stored: now });
        self.next += 1;
    }

    /// One night.
    fn night(&mut self, budget: u64, now: Timestamp) {
        let numbers: Vec<u64> = self.all.keys().copied().collect();
        let all: Vec<Stored> = self.all.values().copied().collect();
        let mut purse = Purse::new(budget);
        for at in order(&self.ledger, (&all, Look::Read)) {
            if !purse.has(all[at].size) {
                break;
            }
            purse.spend(all[at].size);
            let flipped = self.flipped.get(&numbers[at]);
            if let Some((when, bound)) = flipped.copied() {
                if !self.ledger.is_damaged(&all[at].hash) {
                    let passed = Duration::from_nanos((now.0 - when.0).try_into().unwrap());
                    assert!(
                        bound.is_none_or(|bound| passed <= bound),
                        "found after {passed:?}, not {bound:?}"
                    );
                }
                self.ledger.add(all[at].hash, Fact::Damaged, (Look::Read, now));
            } else {
                self.ledger.add(all[at].hash, Fact::Good, (Look::Read, now));
            }
        }
        self.ends.push(now);
        self.bound = forecast(rounds(&self.ledger, (&all, Look::Read), budget), &self.ends).within;
        for (when, bound) in self.flipped.values_mut().filter(|(_, bound)| bound.is_none()) {
            (*when, *bound) = (now, self.bound);
        }
    }
}

proptest! {
    /// With a budget of a twentieth each pack is verified within the time that was printed when it was verified last, and a bit
    /// that flips is found within the time that was printed last before.
    #[test]
    fn everything_is_verified_and_every_bit_that_flips_is_found_within_what_was_printed(
        sizes in prop::collection::vec(1_u64..200, 20..80),
        nights in prop::collection::vec((0_usize..3, 1_u64..200, any::<prop::sample::Index>(), any::<bool>(), 0_u64..12), 60..90),
    ) {
        let mut month = Month {
            all: BTreeMap::new(),
            ledger: Ledger::new(LATE),
            ends: Vec::new(),
            flipped: BTreeMap::new(),
            bound: None,
            next: 0,
        };
        for size in sizes {
            month.store(size, Timestamp(0));
        }
        let budget = month.all.values().map(|stored| stored.size).sum::<u64>() / 20;
        // When each was verified last, and what was printed then.
        let mut promised: BTreeMap<ObjectHash, (Timestamp, Duration)> = BTreeMap::new();
        for (night, (stored, size, which, gone, flip)) in nights.into_iter().enumerate() {
            let now = Timestamp((night as i64 + 1) * DAY);
            for _ in 0..stored {
                month.store(size, Timestamp(now.0 - DAY / 2));
            }
            let victim = *month.all.keys().nth(which.index(month.all.len())).unwrap();
            if flip == 0 {
                // Nothing was printed yet for what was stored since.
                let new = month.all[&victim].stored.0 > now.0 - DAY;
                let bound = month.bound.filter(|_| !new);
                month.flipped.entry(victim).or_insert((Timestamp(now.0 - DAY / 3), bound));
            } else if gone && month.all.len() > 5 {
                month.all.remove(&victim);
                month.flipped.remove(&victim);
            }
            let before = month.ledger.clone();
            month.night(budget, now);
            let Some(bound) = month.bound else { continue };
            for stored in month.all.values() {
                let good = month.ledger.good(&stored.hash, Look::Read);
                if good != before.good(&stored.hash, Look::Read) {
                    promised.insert(stored.hash, (now, bound));
                } else if let Some((when, bound)) = promised.get(&stored.hash)
                    && !month.ledger.is_damaged(&stored.hash)
                {
                    let waits = Duration::from_nanos((now.0 - when.0).try_into().unwrap());
                    prop_assert!(waits <= *bound, "waits {waits:?}, not {bound:?}");
                }
            }
        }
    }

    /// What is superseded changes nothing of what the ledger says of what is there.
    #[test]
    fn nothing_is_lost_with_records_that_are_superseded(
        records in prop::collection::vec(
            (0_i64..40, 0_i64..40, any::<bool>(), prop::collection::vec(0_u64..12, 0..5), prop::collection::vec(0_u64..12, 0..2), any::<bool>()), 0..30),
        there in prop::collection::hash_set(0_u64..12, 0..12),
    ) {
        let look = |opened| if opened { Look::Opened } else { Look::Read };
        let all: Vec<StoredVerified> = records.iter().enumerate().map(|(number, (day, began, opened, good, damaged, ended))| {
            let mut made = record(number as u64, day * DAY, look(*opened), (good, damaged));
            made.verified.ended = ended.then_some(0);
            // Copied from elsewhere, or by a clock that is ahead.
            made.verified.began = began * DAY;
            made
        }).collect();
        let there: HashSet<ObjectHash> = there.into_iter().map(hash).collect();
        let now = Timestamp(40 * DAY);
        let go: HashSet<ObjectHash> = superseded(&all, &there, now).into_iter().collect();
        let left: Vec<StoredVerified> = all.iter().filter(|record| !go.contains(&record.hash)).cloned().collect();
        let (before, after) = (Ledger::of(&all, now), Ledger::of(&left, now));
        for hash in &there {
            for look in [Look::Read, Look::Opened] {
                prop_assert_eq!(before.good(hash, look), after.good(hash, look));
            }
            prop_assert_eq!(before.is_damaged(hash), after.is_damaged(hash));
        }
        for look in [Look::Read, Look::Opened] {
            let last = |ledger: &Ledger| ledger.ends(look).map(|end| end.at).rev().take(8).collect::<Vec<_>>();
            prop_assert_eq!(last(&before), last(&after));
        }
        prop_assert!(superseded(&left, &there, now).is_empty(), "one pass is enough");
        let late = Timestamp(400 * DAY);
        let ends = all.iter().filter(|record| record.verified.ended.is_some()).count().min(16);
        let left = all.len() - superseded(&all, &there, late).len();
        prop_assert!(left <= there.len() * 4 + ends, "{left} records are left");
    }
}
