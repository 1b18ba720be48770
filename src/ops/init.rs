//! Making a repository: the place, a trial of the store, keys, and the configuration last.
//!
//! # Crash
//! Before the configuration is durable there is no repository. What an interrupted `init` leaves behind, key slots and
//! a writer's entry that protect nothing, is removed by the next one.
//!
//! # Must not
//! Touch a place that holds packs, index objects or snapshots: a repository that lost its configuration must never lose
//! its key slots as well.

use zeroize::Zeroizing;

use crate::chunk::ChunkParams;
use crate::error::Error;
use crate::format::config::Lock;
use crate::format::layout;
use crate::id::RepositoryId;
use crate::repo::{Env, NewSlot, Plan, RepoError, create};
use crate::store::{ProbeExtent, ProbeReport, ProbeStep, Store};

/// How a new repository opens, and how it cuts content.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Makes a slot that opens with this passphrase.
    pub passphrase: Option<Zeroizing<String>>,
    /// Makes a slot that opens with a new key file.
    pub new_key_file: bool,
    /// Makes a slot that opens with new recovery words.
    pub recovery_words: bool,
    /// How content is cut, for as long as the repository lives.
    pub chunk_params: ChunkParams,
    /// Locks every object that is stored, in a bucket that can.
    pub lock: Option<Lock>,
    /// Makes the repository even if the store does not keep the promises that safe deletion rests on.
    pub accept_weak_store: bool,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            passphrase: None,
            new_key_file: false,
            recovery_words: false,
            chunk_params: ChunkParams::FILES,
            lock: None,
            accept_weak_store: false,
        }
    }
}

/// What [`init`] made. The secrets are shown once: they are stored nowhere.
#[derive(Debug)]
pub struct Initialised {
    /// The repository's name.
    pub repository: RepositoryId,
    /// Text of the key file, if one was wanted. The caller writes it where only its owner can read it.
    pub key_file: Option<Zeroizing<String>>,
    /// The recovery words, if they were wanted.
    pub recovery_words: Option<Zeroizing<String>>,
    /// How the store did in its trial.
    pub probe: ProbeReport,
}

/// Makes a repository in `store`. Each key slot has been read back from the store and opened when this returns.
///
/// # Errors
/// [`RepoError::AlreadyExists`] if there is one, [`Error::Remains`] if there are parts of one, [`Error::NoKeySlot`] if
/// nothing would open it, [`Error::NotLockable`] if objects are to be locked where they cannot be, [`Error::WeakStore`] if the store failed its trial.
pub async fn init(store: Store, env: &Env, options: InitOptions) -> Result<Initialised, Error> {
    let mut slots = Vec::new();
    slots.extend(options.passphrase.map(NewSlot::Passphrase));
    slots.extend(options.new_key_file.then_some(NewSlot::KeyFile));
    slots.extend(options.recovery_words.then_some(NewSlot::Words));
    if slots.is_empty() {
        return Err(Error::NoKeySlot);
    }
    if options.lock.is_some() && !store.can_lock().await? {
        return Err(Error::NotLockable { url: store.url().to_string() });
    }
    store.create_root().await?;
    clear_leftovers(&store).await?;
    let probe = store.probe(ProbeExtent::Small).await?;
    let bits = probe_bits(&probe);
    if bits != PROBE_ALL && !options.accept_weak_store {
        return Err(Error::WeakStore { url: store.url().to_string() });
    }
    let plan = Plan { chunk_params: options.chunk_params, store_probe: bits, lock: options.lock };
    let mut created = create(&store, env, &slots, plan).await?;
    Ok(Initialised {
        repository: created.repository,
        key_file: created.key_files.pop(),
        recovery_words: created.words.pop(),
        probe,
    })
}

const PROBE_LIST: u32 = 1;
const PROBE_RANGES: u32 = 2;
const PROBE_DELETE: u32 = 4;
const PROBE_ALL: u32 = PROBE_LIST | PROBE_RANGES | PROBE_DELETE;

/// The stored form of a probe's result.
fn probe_bits(probe: &ProbeReport) -> u32 {
    let bit = |step, bit| if probe.holds(step) { bit } else { 0 };
    bit(ProbeStep::List, PROBE_LIST)
        | bit(ProbeStep::Range, PROBE_RANGES)
        | bit(ProbeStep::Delete, PROBE_DELETE)
}

async fn clear_leftovers(store: &Store) -> Result<(), Error> {
    let url = || store.url().to_string();
    if !store.list(layout::CONFIG).await?.is_empty() {
        return Err(RepoError::AlreadyExists { url: url() }.into());
    }
    for prefix in [layout::SNAPSHOTS, layout::INDEX, layout::PACKS] {
        if !store.list(prefix).await?.is_empty() {
            return Err(Error::Remains { url: url() });
        }
    }
    for prefix in [layout::KEYS, layout::WRITERS] {
        for object in store.list(prefix).await? {
            store.delete(&object.key).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::crypto::slot::Unlock;
    use crate::crypto::{keyfile, words};
    use crate::ops::testing::{env, memory_store, store_over};
    use crate::repo::Repository;
    use crate::store::Key;
    use crate::store::fault::{Fault, FaultStore, OpKind};

    fn key_options() -> InitOptions {
        InitOptions { new_key_file: true, recovery_words: true, ..InitOptions::default() }
    }

    #[tokio::test]
    async fn what_init_gives_opens_the_repository() {
        let (store, env) = (memory_store(), env());
        let made = init(store.clone(), &env, key_options()).await.unwrap();
        let (id, key) = keyfile::decode(&made.key_file.unwrap()).unwrap();
        assert_eq!(id, made.repository);
        let words = words::decode(&made.recovery_words.unwrap()).unwrap();
        for unlock in [Unlock::KeyFile(key), Unlock::Words(words)] {
            let repo = Repository::open(store.clone(), env.clone(), &unlock).await.unwrap();
            assert_eq!(repo.id(), made.repository);
            assert_eq!(repo.config().store_probe, PROBE_ALL);
        }
        let again = init(store.clone(), &env, key_options()).await;
        assert!(matches!(again, Err(Error::Repo(RepoError::AlreadyExists { .. }))));
        assert!(store.list("probe/").await.unwrap().is_empty(), "the trial cleans up");
    }

    #[tokio::test]
    async fn a_repository_that_nothing_opens_is_not_made() {
        let refused = init(memory_store(), &env(), InitOptions::default()).await;
        assert!(matches!(refused, Err(Error::NoKeySlot)));
    }

    #[tokio::test]
    async fn an_interrupted_init_is_begun_again_wherever_it_stopped() {
        let env = env();
        for stop in 0.. {
            let objects = Arc::new(InMemory::new());
            let faults = FaultStore::new(objects.clone(), move |op| {
                if op.number == stop { Fault::StopAfter } else { Fault::None }
            });
            let first = init(store_over(Arc::new(faults)), &env, key_options()).await;
            let store = store_over(objects);
            if first.is_ok() {
                break;
            }
            let made = match init(store.clone(), &env, key_options()).await {
                // The configuration was durable; only the answer to it was lost.
                Err(Error::Repo(RepoError::AlreadyExists { .. })) => continue,
                made => made.unwrap(),
            };
            let (_, key) = keyfile::decode(&made.key_file.unwrap()).unwrap();
            Repository::open(store.clone(), env.clone(), &Unlock::KeyFile(key)).await.unwrap();
            assert_eq!(store.list(layout::KEYS).await.unwrap().len(), 2, "stopped at {stop}");
        }
    }

    #[tokio::test]
    async fn keys_of_a_repository_that_lost_its_configuration_are_left_alone() {
        let (store, env) = (memory_store(), env());
        init(store.clone(), &env, key_options()).await.unwrap();
        let config = store.list(layout::CONFIG).await.unwrap().remove(0).key;
        store.delete(&config).await.unwrap();
        let pack = Key::new(format!("packs/00/{}", "0".repeat(64))).unwrap();
        store.put(&pack, vec!["pack".into()]).await.unwrap();
        assert!(matches!(init(store.clone(), &env, key_options()).await, Err(Error::Remains { .. })));
        assert_eq!(store.list(layout::KEYS).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_store_that_forgets_what_it_listed_is_refused() {
        let objects = Arc::new(InMemory::new());
        // Deletes are answered, and have no effect: a put of the name comes right behind.
        let faults = FaultStore::new(objects, |op| {
            if op.kind == OpKind::Delete {
                Fault::Before(crate::store::fault::Failure::NotFound)
            } else {
                Fault::None
            }
        });
        let refused = init(store_over(Arc::new(faults)), &env(), key_options()).await;
        assert!(matches!(refused, Err(Error::WeakStore { .. })), "{refused:?}");
    }
}
