//! Trims: which parts of databases' logs are gone because a maintainer removed them, or are about to go.
//!
//! # Invariants
//! A trim is durable before the first file that it covers is deleted, and stands as long as no other one says all that it
//! says: so who misses a file learns that it was there. A trim takes nothing away by itself: what is needed of what it covers is
//! decided anew by whoever deletes.

use super::error::RepoError;
use super::load::Problem;
use super::marks::refuse_damage;
use super::open::Repository;
use crate::clock::Timestamp;
use crate::format::envelope::ObjectKind;
use crate::format::gc::Trim;
use crate::format::layout::{self, ObjectName};
use crate::format::log::SegmentName;
use crate::id::{ClusterId, ObjectHash};

/// A trim as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTrim {
    /// Its name.
    pub hash: ObjectHash,
    /// What it says.
    pub trim: Trim,
    /// When the store got it.
    pub stored: Timestamp,
}

/// The highest position up to which these trims say that a timeline may be gone.
pub fn trimmed(trims: &[StoredTrim], timeline: u32) -> Option<u64> {
    trims.iter().filter_map(|stored| stored.trim.below(timeline)).max()
}

impl StoredTrim {
    /// Whether it is of this log.
    pub fn is_of(&self, cluster: ClusterId, history: u64) -> bool {
        (self.trim.cluster, self.trim.history) == (cluster, history)
    }

    /// Whether it covers a segment that the store had when the trim was put.
    pub fn covers(&self, name: SegmentName, size: u32, stored: Timestamp) -> bool {
        stored < self.stored && self.trim.covers(name, size)
    }
}

impl Repository {
    /// All trims. One that cannot be read is a problem, not an error: it takes nothing away. If one goes away after it was listed,
    /// trims are listed again: what it said stands in another one, which was put before that.
    pub async fn trims(&self, problems: &mut Vec<Problem>) -> Result<Vec<StoredTrim>, RepoError> {
        let said = self.said_whole::<Trim>(layout::TRIMMED, problems).await?;
        let stored = said.into_iter().filter_map(|(name, trim, stored)| match name {
            ObjectName::Trimmed(hash) => Some(StoredTrim { hash, trim, stored }),
            _ => None,
        });
        Ok(stored.collect())
    }

    /// The trims of one log. Damage is an error: it may have said that a file is gone which is missed.
    pub async fn trims_of(&self, cluster: ClusterId, history: u64) -> Result<Vec<StoredTrim>, RepoError> {
        let mut problems = Vec::new();
        let mut trims = self.trims(&mut problems).await?;
        refuse_damage(problems)?;
        trims.retain(|stored| stored.is_of(cluster, history));
        Ok(trims)
    }

    /// Says that these timelines of a log, ascending, may be gone up to these positions.
    pub async fn put_trim(
        &self,
        (cluster, history): (ClusterId, u64),
        below: Vec<(u32, u64)>,
    ) -> Result<ObjectHash, RepoError> {
        let (author, _) = self.maintainer()?;
        let trim = Trim { author, cluster, history, below, nonce: self.nonce()? };
        self.say(ObjectKind::Trim, &trim.encode(), ObjectName::Trimmed).await
    }
}
