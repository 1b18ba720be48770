//! What a client did, counted.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::request::Refusal;
use crate::store::door::wire::{Ask, Code};
use crate::units::ByteSize;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Store(u64),
    Read,
    Delete,
    Other,
}

impl Deed {
    pub(super) fn of(ask: &Ask) -> Self {
        match ask {
            Ask::Put { size, .. } => Self::Store(*size),
            Ask::Get { .. } => Self::Read,
            Ask::Delete { .. } => Self::Delete,
            _ => Self::Other,
        }
    }
}

/// Counts of one connection. Prints as a line for a log.
#[derive(Debug, Default)]
pub(in crate::serve) struct Tally {
    stored: AtomicU64,
    bytes: AtomicU64,
    read: AtomicU64,
    deleted: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    pub(super) fn note(&self, deed: Deed, result: &Result<(), Refusal>) {
        let more = |count: &AtomicU64, by| {
            count.fetch_add(by, Ordering::Relaxed);
        };
        match (result, deed) {
            (Ok(()), Deed::Store(size)) => {
                more(&self.stored, 1);
                more(&self.bytes, size);
            }
            (Ok(()), Deed::Read) => more(&self.read, 1),
            (Ok(()), Deed::Delete) => more(&self.deleted, 1),
            (Ok(()), Deed::Other) | (Err(Refusal::Gone), _) => {}
            (Err(Refusal::No { code, .. }), _) => match code {
                // Questions that have an answer, and a put that was there already.
                Code::NotFound | Code::Exists => {}
                Code::NoRoot | Code::Denied | Code::NoSpace | Code::Invalid => more(&self.refused, 1),
                Code::Broken | Code::Failed => more(&self.failed, 1),
            },
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        write!(
            f,
            "stored {} ({}), read {}, deleted {}, refused {}, failed {}",
            of(&self.stored),
            ByteSize(of(&self.bytes)),
            of(&self.read),
            of(&self.deleted),
            of(&self.refused),
            of(&self.failed)
        )
    }
}
