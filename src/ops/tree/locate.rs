//! Where chunks are, as far as one view of the index tells, and what opens them.

use std::sync::Arc;

use super::{ChunkCopy, Lookup, OpenedKeys, is_local_damage};
use crate::crypto::DataKey;
use crate::error::Error;
use crate::format::content::ChunkRow;
use crate::format::envelope::ChunkKind;
use crate::index::{Location, View};

/// Looks up one chunk after another.
pub(crate) struct Locator<'a> {
    lookup: &'a Lookup<'a>,
    generation: u64,
    view: View,
    keys: OpenedKeys,
}

/// A copy of a chunk whose key can be used.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) location: Location,
    pub(crate) copy: ChunkCopy,
    pub(crate) key: Arc<DataKey>,
}

impl<'a> Locator<'a> {
    /// Goes by the view as it is now.
    pub(crate) fn new(lookup: &'a Lookup<'a>) -> Self {
        // In this order: a view that is newer than its number is only looked up once too often.
        let generation = lookup.generation();
        Self { lookup, generation, view: lookup.view(), keys: lookup.opened_keys() }
    }

    /// Takes over an index of which more is known.
    pub(crate) fn renew(&mut self) {
        if self.generation != self.lookup.generation() {
            *self = Self::new(self.lookup);
        }
    }

    /// Of which view it tells, for [`Lookup::look`] and [`Lookup::more`].
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// All copies of a chunk in this view.
    pub(crate) fn copies(&mut self, row: &ChunkRow) -> Result<Vec<(Location, ChunkCopy)>, Error> {
        self.keys.copies(&self.view, (&row.id, row.len))
    }

    /// The first copy in this view whose key can be used.
    pub(crate) fn here(&mut self, row: &ChunkRow) -> Result<Option<Located>, Error> {
        for (location, copy) in self.copies(row)? {
            match self.keys.get(self.lookup.repo(), &self.view, location.data_key) {
                Ok(key) => return Ok(Some(Located { location, copy, key })),
                Err(error) if is_local_damage(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// As [`Locator::here`], in all that can be known of the index; `None` if the chunk is lost.
    pub(crate) async fn find(&mut self, row: &ChunkRow) -> Result<Option<Located>, Error> {
        loop {
            if let Some(found) = self.here(row)? {
                return Ok(Some(found));
            }
            if !self.lookup.more(self.generation, ChunkKind::Data, &row.id).await? {
                return Ok(None);
            }
            self.renew();
        }
    }
}
