use std::sync::Mutex;

use object_store::ObjectStore;

use super::*;
use crate::ops::testing::{World, back_up, noise, restored, store_over};
use crate::repo::{Env, Places};
use crate::store::fault::{Fault, FaultStore, Op, OpKind};

fn pack(number: u8) -> PackId {
    PackId::new([number; 32])
}

async fn cache() -> (World, TreeCache) {
    let world = World::new();
    let mut repo = world.repository().await;
    let env = Env {
        places: Places { cache: Some(world.dir.path().join("cache")), ..repo.env().places.clone() },
        ..repo.env().clone()
    };
    repo = repo.with_env(env);
    let cache = Arc::into_inner(TreeCache::open(&repo).unwrap()).unwrap();
    (world, cache)
}

fn again(cache: &TreeCache) -> TreeCache {
    let again =
        TreeCache { dir: cache.dir.clone(), random: Arc::clone(&cache.random), held: Mutex::default() };
    again.find();
    again
}

#[tokio::test]
async fn what_was_put_is_there_in_the_next_run() {
    let (_world, cache) = cache().await;
    assert!(cache.put(&pack(1), 100, b"0123456789"));
    for cache in [&cache, &again(&cache)] {
        assert_eq!(cache.get(&pack(1), 100..110).unwrap(), "0123456789");
        assert_eq!(cache.get(&pack(1), 103..105).unwrap(), "34");
        assert_eq!(cache.get(&pack(1), 99..105), None);
        assert_eq!(cache.get(&pack(1), 103..111), None);
        assert_eq!(cache.get(&pack(2), 100..110), None);
    }
    cache.forget(&pack(1));
    assert_eq!(cache.get(&pack(1), 100..110), None);
    assert_eq!(again(&cache).get(&pack(1), 100..110), None);
}

#[tokio::test]
async fn a_range_takes_the_place_of_those_within_it() {
    let (_world, cache) = cache().await;
    for from in [10, 0, 5] {
        assert!(cache.put(&pack(1), from, b"01234"));
    }
    assert!(cache.put(&pack(1), 0, b"abcdefghijklmno"));
    for cache in [&cache, &again(&cache)] {
        assert_eq!(cache.get(&pack(1), 6..12).unwrap(), "ghijkl");
        assert_eq!(cache.held().bytes, 15);
    }
    assert_eq!(fs::read_dir(&cache.dir).unwrap().count(), 1);
}

#[tokio::test]
async fn the_oldest_make_room() {
    let (_world, cache) = cache().await;
    let part = vec![7; (BYTES_MAX / 8) as usize];
    for number in 0..10 {
        assert!(cache.put(&pack(number), 0, &part));
    }
    let there = |number| cache.get(&pack(number), 0..1).is_some();
    assert_eq!((0..10).filter(|number| there(*number)).collect::<Vec<_>>(), (2..10).collect::<Vec<_>>());
    assert!(cache.held().bytes <= BYTES_MAX);
    assert!(!cache.put(&pack(99), 0, &vec![7; (BYTES_MAX / 4) as usize + 1]));
}

#[tokio::test]
async fn what_does_not_belong_there_is_no_file_of_it() {
    let (_world, cache) = cache().await;
    assert!(cache.put(&pack(1), 0, b"x"));
    let one = pack(1).to_string();
    for name in ["x", "-", "-5", &format!("{one}-"), &format!("{one}-05"), &format!("{one}-1.00"), &one] {
        fs::write(cache.dir.join(name), b"garbage").unwrap();
    }
    fs::create_dir(cache.dir.join(format!("{one}-7"))).unwrap();
    let again = again(&cache);
    assert_eq!(again.held().order.len(), 1);
    // Cut by somebody else, or gone.
    fs::write(cache.dir.join(format!("{one}-0")), b"").unwrap();
    assert_eq!(again.get(&pack(1), 0..1), None);
    assert_eq!(again.held().bytes, 0);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_to_is_no_cache() {
    let (_world, cache) = cache().await;
    fs::create_dir_all(cache.dir.parent().unwrap()).unwrap();
    fs::write(&cache.dir, b"a file").unwrap();
    assert!(!cache.put(&pack(1), 0, b"x"));
    assert_eq!(cache.get(&pack(1), 0..1), None);
    assert_eq!(again(&cache).held().bytes, 0);
}

/// A tree that many backups have changed, in a store that counts bytes of packs.
#[tokio::test(flavor = "multi_thread")]
async fn packs_of_trees_are_fetched_once_and_damage_of_the_cache_does_no_harm() {
    let world = World::new();
    let cache = world.dir.path().join("cache");
    let fetched = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&fetched);
    let faults = FaultStore::new(Arc::clone(&world.objects) as Arc<dyn ObjectStore>, move |op: &Op| {
        if op.kind == OpKind::GetRange && op.key.starts_with("packs/") {
            *counted.lock().unwrap() += 1;
        }
        Fault::None
    });
    let plain = world.repository().await;
    let env = Env {
        places: Places { cache: Some(cache.clone()), ..plain.env().places.clone() },
        ..plain.env().clone()
    };
    let repo = plain.with_env(env).with_store(store_over(Arc::new(faults)));
    let mut id = None;
    for round in 0..12 {
        for dir in (0..12).filter(|dir| round == 0 || dir % 12 == round) {
            fs::create_dir_all(world.source().join(format!("d{dir}"))).unwrap();
            // Found again, so that reading content takes no request of its own but one.
            world.write(&format!("d{dir}/f{round}"), &noise(1, 3000));
        }
        id = Some(back_up(&repo, &world.source()).await);
    }
    let id = id.unwrap();
    let requests = || std::mem::take(&mut *fetched.lock().unwrap());
    requests();
    let first = restored(&repo, id, &world.source()).await;
    // Twelve packs of trees and the one of content.
    assert_eq!(requests(), 13);
    assert_eq!(restored(&repo, id, &world.source()).await, first);
    assert_eq!(requests(), 1);
    let trees = cache.join(repo.id().to_string()).join("trees");
    for file in fs::read_dir(&trees).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 1);
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!(restored(&repo, id, &world.source()).await, first);
    assert_eq!(requests(), 13);
    assert_eq!(restored(&repo, id, &world.source()).await, first);
    assert_eq!(requests(), 1);
}
