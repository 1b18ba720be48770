//! The end of a collection: index objects that resist, temporary files, answers that do not fit together.

use futures::FutureExt;
use object_store::ObjectStoreExt;

use super::*;
use crate::crypto::keyfile;
use crate::crypto::slot::Unlock;
use crate::format::envelope::{ChunkKind, Preamble};
use crate::format::index::IndexBuilder;
use crate::ops::init::{InitOptions, init};
use crate::ops::snapshots::{SnapshotFilter, resolve};
use crate::store::{Store, StoreEnv, StoreOptions, StoreUrl};

/// Many index objects that contradict each other on one pack cost the compaction, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn contradicting_index_objects_do_not_stop_a_collection() {
    let mut world = World::new().await;
    world.write("a", &noise(1, 100_000));
    let first = world.save().await;
    let before = world.repo.list_packs().await.unwrap();
    world.write("a", &noise(2, 100_000));
    world.save().await;
    world.forget(first).await;
    let (writer, signing) = world.repo.writer().unwrap();
    // One that stays.
    let id = *world.repo.list_packs().await.unwrap().difference(&before).next().unwrap();
    let listed = world.repo.store().list(&ObjectName::Pack(id).key()).await.unwrap();
    let pack = &listed[0];
    let (footer, directory) = world.repo.read_directory(id, pack.size).await.unwrap();
    let bytes = world.repo.store().get(&pack.key, 1 << 30).await.unwrap();
    let kind = Preamble::decode(&bytes).unwrap().chunk_kind;
    for version in 1..=65 {
        let mut index = IndexBuilder::new(writer, 0, Vec::new());
        Repository::index_pack(&mut index, (id, kind, pack.size + version), &footer, &directory).unwrap();
        world.repo.put_index(&index.finish(), &signing).await.unwrap();
    }
    let report = prune(&world.repo, &NOW).await.unwrap();
    assert!(report.deleted >= 1, "{report:?}");
    assert_eq!(world.repo.horizon().await.unwrap(), 1);
    assert!(world.repo.condemned(&mut Vec::new()).await.unwrap().is_empty());
    assert_eq!((report.index_deleted, report.index_written), (0, 0), "what was not merged is still there");
    assert_eq!(resolve(&world.repo, "latest", &SnapshotFilter::default()).await.unwrap().sequence, 1);
}

/// What a killed writer left half written in a directory goes after a week.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_sweeps_old_temporary_files() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env { places: Places { state: dir.path().join("state"), cache: None }, ..env() };
    let place = dir.path().join("repository");
    let store_env = StoreEnv {
        clock: Arc::clone(&env.clock),
        random: Arc::clone(&env.random),
        observer: Arc::clone(&env.observer),
        cancel: env.cancel.clone(),
    };
    let store = Store::open(&StoreUrl::local(&place), &StoreOptions::default(), store_env).await.unwrap();
    let options = InitOptions { new_key_file: true, ..InitOptions::default() };
    let made = init(store.clone(), &env, options).await.unwrap();
    let (_, key) = keyfile::decode(&made.key_file.unwrap()).unwrap();
    let repo = Repository::open(store, env, &Unlock::KeyFile(key)).await.unwrap();
    let now = Duration::from_nanos(u64::try_from(repo.env().clock.now().0).unwrap());
    let old = std::time::SystemTime::UNIX_EPOCH + now - Duration::from_secs(8 * 24 * 3600);
    for (name, time) in [("old", Some(old)), ("new", None)] {
        let file = fs::File::create(place.join("tmp").join(name)).unwrap();
        if let Some(time) = time {
            file.set_modified(time).unwrap();
        }
    }
    prune(&repo, &PruneOptions { dry_run: true, ..NOW }).await.unwrap();
    assert!(place.join("tmp/old").exists(), "a dry run deletes nothing");
    prune(&repo, &NOW).await.unwrap();
    assert!(!place.join("tmp/old").exists() && place.join("tmp/new").exists());
}

/// The data packs that are not among `before`.
async fn data_packs(world: &World, before: &HashSet<PackId>) -> Vec<PackId> {
    let mut found = Vec::new();
    for id in world.repo.list_packs().await.unwrap().difference(before) {
        let key = crate::store::Key::new(ObjectName::Pack(*id).key()).unwrap();
        let bytes = world.repo.store().get(&key, 1 << 30).await.unwrap();
        if Preamble::decode(&bytes).unwrap().chunk_kind == ChunkKind::Data {
            found.push(*id);
        }
    }
    found
}

/// A store that answers two requests for one pack with two packs: what the first said does not fit the bytes of the second.
#[tokio::test(flavor = "multi_thread")]
async fn a_pack_whose_answers_do_not_fit_together_is_left_alone() {
    let mut world = World::new().await;
    world.write("large", &noise(1, 300_000));
    world.save().await;
    let large = data_packs(&world, &HashSet::new()).await[0];
    // One that the collection comes to first, or what it seems to hold is in a better place by then.
    let mut number = 2;
    let small = loop {
        let before = world.repo.list_packs().await.unwrap();
        world.write("small", &noise(number, 20_000));
        world.save().await;
        match data_packs(&world, &before).await[..] {
            [small] if small < large => break small,
            _ => number += 1,
        }
    };
    let named = vec![small, large];
    let [small, large] = [small, large].map(|id| crate::store::Key::new(ObjectName::Pack(id).key()).unwrap());
    let location = object_store::path::Path::from(small.as_str());
    let real = world.repo.store().get(&small, 1 << 30).await.unwrap();
    let other = world.repo.store().get(&large, 1 << 30).await.unwrap();
    world.objects.put(&location, other.into()).await.unwrap();
    world.repo.put_condemnation(named).await.unwrap();
    let repo = {
        let (objects, small) = (Arc::clone(&world.objects), small.clone());
        let faulty = FaultStore::new(Arc::clone(&world.objects) as Arc<dyn ObjectStore>, move |op| {
            if op.kind == OpKind::Get && op.key == small.as_str() {
                objects.put(&location, real.clone().into()).now_or_never().unwrap().unwrap();
            }
            Fault::None
        });
        world.repo.with_store(store_over(Arc::new(faulty)))
    };
    let report = prune(&repo, &NOW).await.unwrap();
    let left: Vec<_> = report.left.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(left, [small.as_str()]);
    // The next one is told the truth.
    let report = prune(&repo, &NOW).await.unwrap();
    assert_eq!(report.left, []);
    world.check().await;
}
