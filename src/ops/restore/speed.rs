//! How fast restores from a repository were on this machine, to say how long the next one will take.
//!
//! # Invariants
//! A figure comes from runs that were measured, or there is none. One file a repository in the local state; the newest runs
//! of each kind count.
//!
//! # Crash
//! The file is replaced whole. Losing it loses the figure, nothing else.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::repo::Repository;

const NAME: &str = "restore-speed";
/// Runs of one kind that are remembered.
const RUNS: usize = 8;
/// A longer file is not ours.
const LEN_MAX: u64 = 64 << 10;
/// About what an entry costs more than its content, in bytes of content; only to tell what a run was mostly busy with.
const ENTRY_WEIGHT: u64 = 16 << 10;

/// What a restore has to do, or did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Work {
    /// Bytes fetched.
    pub(super) fetched: u64,
    /// Bytes read in the target and compared.
    pub(super) compared: u64,
    /// Entries made or set.
    pub(super) entries: u64,
}

/// What takes most of a run's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fetch,
    Compare,
    Entries,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Fetch, Self::Compare, Self::Entries];

    fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Compare => "compare",
            Self::Entries => "entries",
        }
    }

    fn amount(self, work: Work) -> u64 {
        match self {
            Self::Fetch => work.fetched,
            Self::Compare => work.compared,
            Self::Entries => work.entries,
        }
    }

    /// Less than this takes no time that anybody would ask for, and tells nothing of speed.
    fn least(self) -> u64 {
        match self {
            Self::Fetch | Self::Compare => 1 << 20,
            Self::Entries => 1000,
        }
    }

    /// What this work is mostly.
    fn of(work: Work) -> Self {
        let entries = work.entries.saturating_mul(ENTRY_WEIGHT);
        if entries > work.fetched.saturating_add(work.compared) {
            Self::Entries
        } else if work.compared > work.fetched {
            Self::Compare
        } else {
            Self::Fetch
        }
    }
}

/// One run that was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    kind: Kind,
    amount: u64,
    nanos: u64,
}

impl Sample {
    fn of(work: Work, elapsed: Duration) -> Option<Self> {
        let kind = Kind::of(work);
        let (amount, nanos) = (kind.amount(work), u64::try_from(elapsed.as_nanos()).ok()?);
        (amount >= kind.least() && nanos > 0).then_some(Self { kind, amount, nanos })
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let name = words.next()?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name)?;
        let (amount, nanos) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        (words.next().is_none() && amount > 0 && nanos > 0).then_some(Self { kind, amount, nanos })
    }

    fn nanos_each(self) -> f64 {
        self.nanos as f64 / self.amount as f64
    }
}

/// What one of `kind` takes, in nanoseconds: the median of the runs that were mostly that.
fn rate(samples: &[Sample], kind: Kind) -> Option<f64> {
    let mut rates: Vec<f64> = samples.iter().filter(|s| s.kind == kind).map(|s| s.nanos_each()).collect();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied()
}

/// How long the work will take. `None` if no run of a kind was measured that matters here.
fn estimate(samples: &[Sample], work: Work) -> Option<Duration> {
    let mut nanos = 0.0;
    for kind in Kind::ALL {
        let amount = kind.amount(work);
        match rate(samples, kind) {
            // Runs of one kind did something of the others too, so that a part that is small beside the rest is in.
            Some(rate) if amount >= kind.least() && (kind == Kind::of(work) || kind != Kind::Entries) => {
                nanos += rate * amount as f64;
            }
            None if amount >= kind.least() && kind == Kind::of(work) => return None,
            _ => {}
        }
    }
    (nanos > 0.0).then(|| Duration::from_nanos(nanos as u64))
}

fn path(repo: &Repository) -> PathBuf {
    repo.env().places.state.join(repo.id().to_string()).join(NAME)
}

fn read(path: &Path) -> Vec<Sample> {
    let short = fs::metadata(path).is_ok_and(|found| found.len() <= LEN_MAX);
    let text = if short { fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    text.lines().filter_map(Sample::parse).collect()
}

fn add(path: &Path, sample: Sample) -> io::Result<()> {
    let mut samples = read(path);
    samples.push(sample);
    let mut text = String::new();
    for kind in Kind::ALL {
        let of_kind: Vec<_> = samples.iter().filter(|sample| sample.kind == kind).collect();
        for sample in of_kind.iter().skip(of_kind.len().saturating_sub(RUNS)) {
            text.push_str(&format!("{} {} {}\n", kind.name(), sample.amount, sample.nanos));
        }
    }
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let new = path.with_extension("new");
    File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?
        .write_all(text.as_bytes())?;
    fs::rename(&new, path)
}

/// Remembers a run, if it did enough to tell something.
pub(super) fn note(repo: &Repository, work: Work, elapsed: Duration) -> io::Result<()> {
    match Sample::of(work, elapsed) {
        Some(sample) => add(&path(repo), sample),
        None => Ok(()),
    }
}

/// How long the work will take, if runs like it were measured on this machine.
pub(super) fn expected(repo: &Repository, work: Work) -> Option<Duration> {
    estimate(&read(&path(repo)), work)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(amount: u64, seconds: u64) -> Sample {
        Sample { kind: Kind::Fetch, amount, nanos: seconds * 1_000_000_000 }
    }

    #[test]
    fn a_figure_is_the_median_of_like_runs_or_none() {
        let work = Work { fetched: 100 << 20, entries: 10, compared: 0 };
        assert_eq!(estimate(&[], work), None);
        let samples = [fetch(10 << 20, 1), fetch(10 << 20, 2), fetch(10 << 20, 50)];
        assert_eq!(estimate(&samples, work), Some(Duration::from_secs(20)));
        let many = Work { fetched: 1 << 20, entries: 1_000_000, compared: 0 };
        assert_eq!(estimate(&samples, many), None, "nothing is known of many small files");
        let mostly_read = Work { fetched: 100 << 20, compared: 10 << 30, entries: 1 };
        assert_eq!(estimate(&samples, mostly_read), None);
        let compare = Sample { kind: Kind::Compare, amount: 1 << 30, nanos: 1_000_000_000 };
        let both = [&samples[..], &[compare]].concat();
        assert_eq!(estimate(&both, mostly_read), Some(Duration::from_secs(30)));
        assert_eq!(estimate(&both, Work::default()), None, "nothing to do takes no figure");
    }

    #[test]
    fn runs_that_did_next_to_nothing_are_not_remembered() {
        let second = Duration::from_secs(1);
        assert_eq!(Sample::of(Work { fetched: 1000, ..Work::default() }, second), None);
        assert_eq!(Sample::of(Work { fetched: 1 << 30, ..Work::default() }, Duration::ZERO), None);
        let many = Work { fetched: 5 << 20, entries: 2000, compared: 0 };
        assert_eq!(Sample::of(many, second).map(|sample| sample.kind), Some(Kind::Entries));
    }

    #[test]
    fn the_newest_runs_are_kept_and_what_is_no_run_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/restore-speed");
        for number in 1..=20 {
            add(&path, fetch(number << 20, 1)).unwrap();
        }
        let samples = read(&path);
        assert_eq!(samples.len(), RUNS);
        assert_eq!(samples.last(), Some(&fetch(20 << 20, 1)));
        let hostile = "fetch 0 1\nfetch 1 0\nfetch x y\nwrite 1 1\nfetch 1 1 1\n\u{0}\nfetch 99999999999999999999 1\nfetch 7 9\n";
        fs::write(&path, hostile).unwrap();
        assert_eq!(read(&path), [Sample { kind: Kind::Fetch, amount: 7, nanos: 9 }]);
        fs::write(&path, "fetch 7 9\n".repeat(10_000)).unwrap();
        assert_eq!(read(&path), []);
    }
}
