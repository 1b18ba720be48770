//! Trying out a store: does it keep the promises that the commit protocol rests on?

use std::time::Duration;

use bytes::Bytes;

use super::{Key, Store, StoreError};
use crate::clock::Timestamp;
use crate::format::layout::PROBE;
use crate::random::random_array;

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeExtent {
    /// A few small requests: seconds.
    Small,
    /// Many round trips and a large object.
    Full,
}

/// One promise of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProbeStep {
    /// An object is stored.
    Put,
    /// It is read back as it was.
    Get,
    /// Parts of it are, to the byte.
    Range,
    /// A listing shows it at once, with its size.
    List,
    /// Storing the same again succeeds.
    Overwrite,
    /// A name of 200 characters works.
    LongName,
    /// A large object is stored and read back.
    Large,
    /// A deleted object is gone from reads and listings at once.
    Delete,
    /// Deleting what is not there succeeds.
    DeleteMissing,
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeFailure {
    /// A request failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store answered, but not the truth.
    #[error("the store returned something else than was stored")]
    Mismatch,
    /// An object that was stored is not listed.
    #[error("the listing does not show what was stored before it")]
    NotListed,
    /// An object that was deleted is still listed or read.
    #[error("what was deleted is still shown")]
    StillThere,
}

/// How one check went.
#[derive(Debug)]
pub struct ProbeCheck {
    /// What was tried.
    pub step: ProbeStep,
    /// How often.
    pub rounds: u32,
    /// How long all rounds took.
    pub took: Duration,
    /// Why it failed, if it did.
    pub failure: Option<ProbeFailure>,
}

/// What is now known of a store.
#[derive(Debug, Default)]
pub struct ProbeReport {
    /// Every check, in the order it was made.
    pub checks: Vec<ProbeCheck>,
    /// Nanoseconds by which the store's clock is ahead of ours, to within the time of a request.
    pub clock_offset: Option<i64>,
    /// Bytes a second of the large object, sent.
    pub upload_rate: Option<u64>,
    /// Bytes a second of the large object, fetched.
    pub download_rate: Option<u64>,
}

impl ProbeReport {
    /// Whether every check passed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.failure.is_none())
    }

    /// Whether this check was made and passed in every round.
    pub fn holds(&self, step: ProbeStep) -> bool {
        let mut of_step = self.checks.iter().filter(|check| check.step == step).peekable();
        of_step.peek().is_some() && of_step.all(|check| check.failure.is_none())
    }

    fn note(&mut self, step: ProbeStep, took: Duration, failure: Option<ProbeFailure>) {
        match self.checks.iter_mut().find(|check| check.step == step) {
            Some(check) => {
                check.rounds += 1;
                check.took += took;
                check.failure = check.failure.take().or(failure);
            }
            None => self.checks.push(ProbeCheck { step, rounds: 1, took, failure }),
        }
    }
}

/// What the first object holds.
const FIRST: &[u8] = b"lifeboat";
const LARGE: usize = 64 * 1024 * 1024;

struct Probe<'a> {
    store: &'a Store,
    prefix: String,
    report: ProbeReport,
}

impl Store {
    /// Tries the store out below `probe/`, under a random name that is removed again. An error only when nothing can be
    /// learned, because not even one object can be stored; every other failure is in the report.
    pub async fn probe(&self, extent: ProbeExtent) -> Result<ProbeReport, StoreError> {
        let name = random_array::<8>(self.0.env.random.as_ref())?;
        let prefix = format!("{PROBE}{:016x}/", u64::from_le_bytes(name));
        let mut probe = Probe { store: self, prefix, report: ProbeReport::default() };
        let first = probe.key("first")?;
        let before = self.0.env.clock.now().0;
        self.put(&first, vec![Bytes::from_static(FIRST)]).await?;
        let after = self.0.env.clock.now().0;
        probe.clock(before.midpoint(after)).await;
        let rounds = if extent == ProbeExtent::Full { 50 } else { 2 };
        for round in 0..rounds {
            probe.round(round).await?;
        }
        probe.long_name().await?;
        if extent == ProbeExtent::Full {
            probe.large().await?;
        }
        probe.finish(&first).await?;
        Ok(probe.report)
    }

    /// The time of the store's clock, by an object below `probe/` that is stored for it and deleted again. `None` from a
    /// store that does not list what was just stored.
    pub async fn time(&self) -> Result<Option<Timestamp>, StoreError> {
        let name = random_array::<8>(self.0.env.random.as_ref())?;
        let key = Key::new(format!("{PROBE}{:016x}/time", u64::from_le_bytes(name)))?;
        self.put(&key, vec![Bytes::from_static(FIRST)]).await?;
        let listed = self.list(key.as_str()).await;
        self.delete(&key).await?;
        Ok(listed?.iter().find(|object| object.key == key).map(|object| object.modified))
    }
}

impl Probe<'_> {
    fn key(&self, name: &str) -> Result<Key, StoreError> {
        Ok(Key::new(format!("{}{name}", self.prefix))?)
    }

    /// Makes one check and notes how it went.
    async fn check(
        &mut self,
        step: ProbeStep,
        request: impl Future<Output = Result<Option<ProbeFailure>, StoreError>>,
    ) -> Duration {
        let clock = &self.store.0.env.clock;
        let start = clock.monotonic();
        let failure = request.await.unwrap_or_else(|error| Some(error.into()));
        let took = clock.monotonic().saturating_sub(start);
        self.report.note(step, took, failure);
        took
    }

    /// `stored_at` lies in the middle of the request that stored the first object.
    async fn clock(&mut self, stored_at: i64) {
        if let Ok(objects) = self.store.list(&self.prefix).await
            && let Some(object) = objects.first()
        {
            self.report.clock_offset = Some(object.modified.0.saturating_sub(stored_at));
        }
    }

    async fn round(&mut self, round: u32) -> Result<(), StoreError> {
        let (store, prefix) = (self.store, self.prefix.clone());
        let key = self.key(&format!("round-{round}"))?;
        let body = Bytes::from(format!("{key} ").repeat(20 + round as usize));
        let size = body.len() as u64;
        let put = || store.put(&key, vec![body.slice(..10), body.slice(10..)]);
        self.check(ProbeStep::Put, async { put().await.map(|()| None) }).await;
        self.check(ProbeStep::Get, async {
            Ok((store.get(&key, size).await? != body).then_some(ProbeFailure::Mismatch))
        })
        .await;
        self.check(ProbeStep::Range, async {
            let first = store.get_range(&key, 0..1).await?;
            let last = store.get_range(&key, size - 7..size).await?;
            let same = first == body.slice(..1) && last == body.slice(body.len() - 7..);
            Ok((!same).then_some(ProbeFailure::Mismatch))
        })
        .await;
        self.check(ProbeStep::List, async {
            let listed = store.list(&prefix).await?.into_iter().any(|o| o.key == key && o.size == size);
            Ok((!listed).then_some(ProbeFailure::NotListed))
        })
        .await;
        self.check(ProbeStep::Overwrite, async {
            put().await?;
            Ok((store.get(&key, size).await? != body).then_some(ProbeFailure::Mismatch))
        })
        .await;
        self.check(ProbeStep::Delete, gone(store, (&key, size), &prefix)).await;
        Ok(())
    }

    async fn long_name(&mut self) -> Result<(), StoreError> {
        let (store, prefix) = (self.store, self.prefix.clone());
        let key = self.key(&"n".repeat(200))?;
        self.check(ProbeStep::LongName, async {
            store.put(&key, vec![Bytes::from_static(b"n")]).await?;
            let listed = store.list(&prefix).await?.into_iter().any(|o| o.key == key);
            store.delete(&key).await?;
            Ok((!listed).then_some(ProbeFailure::NotListed))
        })
        .await;
        Ok(())
    }

    async fn large(&mut self) -> Result<(), StoreError> {
        let store = self.store;
        let key = self.key("large")?;
        let mut seed = [0; 64 * 1024];
        store.0.env.random.fill(&mut seed)?;
        let piece = Bytes::copy_from_slice(&seed);
        let body = vec![piece.clone(); LARGE / piece.len()];
        let sent = self.check(ProbeStep::Large, async { store.put(&key, body).await.map(|()| None) }).await;
        let fetched = self
            .check(ProbeStep::Large, async {
                let found = store.get(&key, LARGE as u64).await?;
                let same = found.len() == LARGE && found.chunks_exact(piece.len()).all(|part| part == piece);
                Ok((!same).then_some(ProbeFailure::Mismatch))
            })
            .await;
        self.check(ProbeStep::Large, async { store.delete(&key).await.map(|()| None) }).await;
        let rate = |took: Duration| Some((LARGE as f64 / took.as_secs_f64().max(1e-9)) as u64);
        if self.report.holds(ProbeStep::Large) {
            (self.report.upload_rate, self.report.download_rate) = (rate(sent), rate(fetched));
        }
        Ok(())
    }

    /// Removes what is left and tries deletes that have nothing to do.
    async fn finish(&mut self, first: &Key) -> Result<(), StoreError> {
        let (store, prefix) = (self.store, self.prefix.clone());
        self.check(ProbeStep::Delete, gone(store, (first, FIRST.len() as u64), &prefix)).await;
        self.check(ProbeStep::DeleteMissing, async { store.delete(first).await.map(|()| None) }).await;
        if let Ok(left) = store.list(&prefix).await {
            for object in left {
                // The checks above have already said that deleting fails.
                let _ = store.delete(&object.key).await;
            }
        }
        Ok(())
    }
}

/// Deletes an object of `size` bytes and looks whether it is really gone.
async fn gone(
    store: &Store,
    (key, size): (&Key, u64),
    prefix: &str,
) -> Result<Option<ProbeFailure>, StoreError> {
    store.delete(key).await?;
    let listed = store.list(prefix).await?.iter().any(|object| object.key == *key);
    let read = match store.get(key, size).await {
        Err(StoreError::NotFound { .. }) => false,
        // Whatever it is by now, and however much of it.
        Ok(_) | Err(StoreError::TooLarge { .. }) => true,
        Err(error) => return Err(error),
    };
    Ok((listed || read).then_some(ProbeFailure::StillThere))
}

#[cfg(test)]
mod tests;
