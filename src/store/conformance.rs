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

/// A store, and what all keys begin with.
#[derive(Clone, Copy)]
struct Place<'a> {
    store: &'a Store,
    base: &'a str,
}

impl Place<'_> {
    fn text(&self, text: &str) -> String {
        format!("{}{text}", self.base)
    }

    fn key(&self, text: &str) -> Result<Key, Failure> {
        Key::new(self.text(text)).map_err(StoreError::from).on("the key is valid")
    }
}

/// Runs every check on a store without objects, and leaves it so.
pub async fn run(store: &Store) -> Result<(), Failure> {
    run_below(store, "").await
}

/// As [`run`], with keys that begin with `base`: for a store that takes no others. It ends with a slash, or is empty.
pub async fn run_below(store: &Store, base: &str) -> Result<(), Failure> {
    let place = Place { store, base };
    objects(place).await?;
    ranges(place).await?;
    listings(place).await?;
    deletes(place).await?;
    large(place).await?;
    let left = store.list(base).await.on("the whole store is listed")?;
    ensure("nothing is left", left.is_empty(), left)
}

async fn objects(place: Place<'_>) -> Result<(), Failure> {
    let store = place.store;
    let missing = store.get(&place.key("objects/missing")?, 10).await;
    ensure("a missing object is not found", matches!(missing, Err(StoreError::NotFound { .. })), missing)?;
    for (name, body) in [("empty", vec![]), ("one", vec!["x"]), ("parts", vec!["abc", "", "de", "f"])] {
        let key = place.key(&format!("objects/{name}"))?;
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

async fn ranges(place: Place<'_>) -> Result<(), Failure> {
    let store = place.store;
    let object = place.key("ranges/object")?;
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
    let missing = store.get_range(&place.key("ranges/missing")?, 0..1).await;
    ensure("a range of nothing is not found", matches!(missing, Err(StoreError::NotFound { .. })), missing)?;
    store.delete(&object).await.on("an object is deleted")
}

async fn listings(place: Place<'_>) -> Result<(), Failure> {
    let store = place.store;
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
    let names: Vec<&str> =
        names.into_iter().filter(|name| !store.has_directories() || *name != "list/a").collect();
    for (size, name) in names.iter().enumerate().rev() {
        let body = Bytes::from(vec![b'x'; size]);
        store.put(&place.key(name)?, vec![body]).await.on("an object is stored")?;
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
        let found = store.list(&place.text(prefix)).await.on("a prefix is listed")?;
        let name = |key: &Key| key.as_str().strip_prefix(place.base).unwrap_or("").to_owned();
        let found: Vec<(String, u64)> = found.iter().map(|o| (name(&o.key), o.size)).collect();
        let mut wanted: Vec<(String, u64)> = names
            .iter()
            .enumerate()
            .map(|(size, name)| ((*name).to_owned(), size as u64))
            .filter(|(name, _)| name.starts_with(prefix))
            .collect();
        wanted.sort_unstable();
        ensure("a listing is complete, exact and sorted", found == wanted, (prefix, &found))?;
    }
    for name in names {
        store.delete(&place.key(name)?).await.on("an object is deleted")?;
    }
    Ok(())
}

async fn deletes(place: Place<'_>) -> Result<(), Failure> {
    let store = place.store;
    store.delete(&place.key("deletes/missing")?).await.on("deleting nothing succeeds")?;
    let object = place.key("deletes/object")?;
    store.put(&object, vec![Bytes::from_static(b"x")]).await.on("an object is stored")?;
    for _ in 0..2 {
        store.delete(&object).await.on("an object is deleted, and deleted again")?;
        let found = store.get(&object, 10).await;
        ensure("a deleted object is not found", matches!(found, Err(StoreError::NotFound { .. })), found)?;
        let found = store.list(&place.text("deletes/")).await.on("an emptied prefix is listed")?;
        ensure("a deleted object is not listed", found.is_empty(), found)?;
    }
    Ok(())
}

async fn large(place: Place<'_>) -> Result<(), Failure> {
    let store = place.store;
    let object = place.key("large/object")?;
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
