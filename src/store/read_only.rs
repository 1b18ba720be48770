//! A store that is only read: a repository of another tool, whose objects are not ours to write.
//!
//! The names of objects are what they are in every store; what they mean is known to whoever reads them.

use std::ops::Range;

use bytes::Bytes;

use super::{Key, Object, Store, StoreError, StoreUrl};

/// A store without the means to change it. Clones share it.
#[derive(Debug, Clone)]
pub struct ReadOnly(Store);

impl ReadOnly {
    /// Gives up the means to change what is there.
    pub fn new(store: Store) -> Self {
        Self(store)
    }

    /// As [`Store::get`].
    pub async fn get(&self, key: &Key, max: u64) -> Result<Bytes, StoreError> {
        self.0.get(key, max).await
    }

    /// As [`Store::get_range`].
    pub async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.0.get_range(key, range).await
    }

    /// As [`Store::list`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<Object>, StoreError> {
        self.0.list(prefix).await
    }

    /// Where the store lies.
    pub fn url(&self) -> &StoreUrl {
        self.0.url()
    }
}
