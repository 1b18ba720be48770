//! Retention: which snapshots a policy keeps, and why.
//!
//! A policy is a set of rules: how many snapshots, hours, days, weeks, months, quarters or years to keep, for how long,
//! and which tags. [`Policy::judge`] holds it against a list of snapshots and gives a [`Verdict`] on each. A snapshot is
//! kept with *all* reasons for it; it is forgotten exactly when there is none. The rules mean what restic's `--keep-*`
//! options mean, the oldest snapshot included, which is kept as long as a rule has not yet kept all it may. Where a
//! count stands, a duration may stand too: `--keep-daily 30d` is `--keep-within-daily 30d`.
//!
//! # Invariants
//! * Snapshots are judged by host and job; those of one group never touch those of another.
//! * Counted is the time of the store, or the one that a maintainer signed for a snapshot brought from elsewhere. What
//!   the writer claims is only compared with it: if they differ by more than [`CLOCK_TOLERANCE`], or if the time lies as
//!   far in the future, the snapshot is kept, takes no place of another one, and nothing is measured from it.
//! * A snapshot that is not confirmed is left alone, and counts for nothing.
//! * A policy without rules forgets nothing.
//! * A rule that allows more keeps no less. What a policy kept, the same policy keeps when it is applied again.
//! * The order of the input decides nothing.
//!
//! # Must not
//! Read a clock or the zone of the machine, or remove anything.

mod bucket;
mod judge;
mod period;
mod policy;
#[cfg(test)]
mod restic;

pub use bucket::{Bucket, Every};
pub use judge::{CLOCK_TOLERANCE, Candidate, Group, Reason, Verdict, group};
pub use period::Period;
pub use policy::{Limit, Policy, Rule, TagList};

use crate::class::Class;

/// Text that is no part of a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RetentionError {
    /// There is no text where an amount is needed.
    #[error("expected an amount such as 7, 30d or 1y6m")]
    Empty,
    /// Something else stands where a number must.
    #[error("expected a number, found {found:?}")]
    NoNumber {
        /// What stands there.
        found: char,
    },
    /// A number below zero; only `-1` has a meaning, and only as a count.
    #[error("less than nothing cannot be kept: use a positive number, or \"unlimited\"")]
    Negative,
    /// A number that is larger than any that makes sense.
    #[error("the number is too large: at most {max} is possible")]
    TooLarge {
        /// The largest possible.
        max: u32,
    },
    /// A duration ends with a number.
    #[error("{number} of what? use y (years), m (months), d (days) or h (hours)")]
    NoUnit {
        /// The number.
        number: u32,
    },
    /// A letter that is no unit. There is none for weeks: seven days are `7d`.
    #[error("{unit:?} is no unit of time: use y (years), m (months), d (days, 7d for a week) or h (hours)")]
    UnknownUnit {
        /// What stands where a unit must.
        unit: char,
    },
    /// A unit stands twice, so that one of the two would be lost.
    #[error("the unit {unit} stands twice")]
    RepeatedUnit {
        /// The unit.
        unit: char,
    },
    /// Nothing stands between two commas of a list of tags.
    #[error("an empty tag in {list:?}: leave the whole list empty to mean snapshots without tags")]
    EmptyTag {
        /// The list.
        list: String,
    },
}

impl RetentionError {
    /// Always a mistake in arguments or configuration.
    pub fn class(&self) -> Class {
        Class::Usage
    }
}
