//! What every store must do, to be run against memory, directories and real servers.

use bytes::Bytes;

use super::{Key, Store, StoreError};

/// A promise that was not kept.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A request failed that had to succeed.
    #[error("{check}")]
    Store {
        /// The promise.
        check: &'static str,
        /// What the request said.
        #[source]
        source: StoreError,
    },
    /// A request gave the wrong result.
    #[error("{check}: found {found}")]
    Wrong {
        /// The promise.
        check: &'static str,
        /// What it gave.
        found: String,
    },
}

trait Checked<T> {
    fn on(self, check: &'static str) -> Result<T, Failure>;
}

impl<T> Checked<T> for Result<T, StoreError> {
    fn on(self, check: &'static str) -> Result<T, Failure> {
        self.map_err(|source| Failure::Store { check, source })
    }
}

fn ensure(check: &'static str, holds: bool, found: impl std::fmt::Debug) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::Wrong { check, found: format!("{found:?}") }) }
}

fn key(text: &str) -> Result<Key, Failure> {
    Key::new(text).map_err(StoreError::from).on("the key is valid")
}

/// Runs every check on a store without objects, and leaves it so.
pub async fn run(store: &Store) -> Result<(), Failure> {
    objects(store).await?;
    ranges(store).await?;
    listings(store).await?;
    deletes(store).await?;
    large(store).await?;
    let left = store.list("").await.on("the whole store is listed")?;
    ensure("nothing is left", left.is_empty(), left)
}

async fn objects(store: &Store) -> Result<(), Failure> {
    let missing = store.get(&key("objects/missing")?, 10).await;
    ensure("a missing object is not found", matches!(missing, Err(StoreError::NotFound { .. })), missing)?;
    for (name, body) in [("empty", vec![]), ("one", vec!["x"]), ("parts", vec!["abc", "", "de", "f"])] {
        let key = key(&format!("objects/{name}"))?;
        let whole = body.concat();
        let body: Vec<Bytes> = body.into_iter().map(|part| Bytes::from_static(part.as_bytes())).collect();
        for _ in 0..2 {
            store.put(&key, body.clone()).await.on("an object is stored, and stored again")?;
        }
        let found = store.get(&key, whole.len() as u64).await.on("an object is read")?;
        ensure("an object is as it was stored", found == whole, &found)?;
        if let Some(less) = (whole.len() as u64).checked_sub(1) {
            let found = store.get(&key, less).await;
            ensure("a large object is refused", matches!(found, Err(StoreError::TooLarge { .. })), found)?;
        }
        store.delete(&key).await.on("an object is deleted")?;
    }
    Ok(())
}

async fn ranges(store: &Store) -> Result<(), Failure> {
    let object = key("ranges/object")?;
    let body: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    store.put(&object, vec![Bytes::from(body.clone())]).await.on("an object is stored")?;
    for range in [0..1, 0..100_000, 99_999..100_000, 1234..56_789, 5..5] {
        let found = store.get_range(&object, range.clone()).await.on("a range is read")?;
        let wanted = body.get(range.start as usize..range.end as usize);
        ensure("a range is exact", wanted == Some(found.as_ref()), range)?;
    }
    for range in [0..100_001, 99_999..100_002, 100_000..100_001, 200_000..200_010] {
        let found = store.get_range(&object, range).await;
        ensure("a range over the end is short", matches!(found, Err(StoreError::Short { .. })), found)?;
    }
    let missing = store.get_range(&key("ranges/missing")?, 0..1).await;
    ensure("a range of nothing is not found", matches!(missing, Err(StoreError::NotFound { .. })), missing)?;
    store.delete(&object).await.on("an object is deleted")
}

async fn listings(store: &Store) -> Result<(), Failure> {
    let names = [
        "list/a",
        "list/a-b",
        "list/a.b/c",
        "list/a/b",
        "list/a0",
        "list/b/1-x",
        "list/b/1-y",
        "list/b/2-x",
        "listing/x",
    ];
    // A directory cannot hold a file and a directory of one name, so `list/a` is left to stores that have no directories.
    let names: Vec<&str> = names.into_iter().filter(|name| !store.is_local() || *name != "list/a").collect();
    for (size, name) in names.iter().enumerate().rev() {
        let body = Bytes::from(vec![b'x'; size]);
        store.put(&key(name)?, vec![body]).await.on("an object is stored")?;
    }
    for prefix in [
        "",
        "list/",
        "list/a",
        "list/a.",
        "list/b/",
        "list/b/1",
        "list/b/1-",
        "list/b/1-x",
        "list",
        "none/",
        "list/none/x",
    ] {
        let found = store.list(prefix).await.on("a prefix is listed")?;
        let found: Vec<(&str, u64)> = found.iter().map(|o| (o.key.as_str(), o.size)).collect();
        let mut wanted: Vec<(&str, u64)> = names
            .iter()
            .enumerate()
            .map(|(size, name)| (*name, size as u64))
            .filter(|(name, _)| name.starts_with(prefix))
            .collect();
        wanted.sort_unstable();
        ensure("a listing is complete, exact and sorted", found == wanted, (prefix, &found))?;
    }
    for name in names {
        store.delete(&key(name)?).await.on("an object is deleted")?;
    }
    Ok(())
}

async fn deletes(store: &Store) -> Result<(), Failure> {
    store.delete(&key("deletes/missing")?).await.on("deleting nothing succeeds")?;
    let object = key("deletes/object")?;
    store.put(&object, vec![Bytes::from_static(b"x")]).await.on("an object is stored")?;
    for _ in 0..2 {
        store.delete(&object).await.on("an object is deleted, and deleted again")?;
        let found = store.get(&object, 10).await;
        ensure("a deleted object is not found", matches!(found, Err(StoreError::NotFound { .. })), found)?;
        let found = store.list("deletes/").await.on("an emptied prefix is listed")?;
        ensure("a deleted object is not listed", found.is_empty(), found)?;
    }
    Ok(())
}

async fn large(store: &Store) -> Result<(), Failure> {
    let object = key("large/object")?;
    // Neither the whole nor its parts fit a page or a block.
    let piece: Vec<u8> = (0..100_003_u32).map(|n| (n % 241) as u8).collect();
    let body = vec![Bytes::from(piece.clone()); 85];
    let size = 85 * piece.len() as u64;
    store.put(&object, body).await.on("a large object is stored")?;
    let found = store.get(&object, size).await.on("a large object is read")?;
    let same = found.len() as u64 == size && found.chunks(piece.len()).all(|part| part == piece);
    ensure("a large object is as it was stored", same, found.len())?;
    let middle = store.get_range(&object, 100_003 * 40..100_003 * 41).await.on("its middle is read")?;
    ensure("its middle is exact", middle == piece, middle.len())?;
    store.delete(&object).await.on("a large object is deleted")
}
