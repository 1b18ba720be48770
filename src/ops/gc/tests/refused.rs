//! Collections that end early: what they leave, and what they may not touch.

use std::sync::Mutex;

use futures::FutureExt;
use object_store::ObjectStoreExt;

use super::*;
use crate::ops::backup::{BackupOptions, BackupSource, backup};
use crate::ops::undelete::undelete;
use crate::store::fault::Failure;

/// The same repository over a store that fails as told.
fn failing(world: &World, plan: impl Fn(&Op) -> Fault + Send + Sync + 'static) -> Repository {
    let objects = Arc::clone(&world.objects) as Arc<dyn ObjectStore>;
    world.repo.with_store(store_over(Arc::new(FaultStore::new(objects, plan))))
}

async fn forgotten() -> (World, SnapshotId) {
    let mut world = World::new().await;
    world.write("a", &noise(1, 100_000));
    let first = world.save().await;
    world.write("a", &noise(2, 100_000));
    world.save().await;
    world.forget(first).await;
    (world, first)
}

/// An undo that cannot be read stops removals: not as a hold, but as what it may be.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_undo_is_called_one() {
    for (name, word) in [
        (ObjectName::Undone(ObjectHash::new([7; 32])), "taken back"),
        (ObjectName::Hold(ObjectHash::new([7; 32])), "hold"),
    ] {
        let (world, _) = forgotten().await;
        let location = object_store::path::Path::from(name.key());
        world.objects.put(&location, vec![7; 100].into()).await.unwrap();
        let refused = prune(&world.repo, &NOW).await.unwrap_err();
        assert!(matches!(&refused, Error::MarkDamaged { key } if *key == name.key()), "{refused}");
        assert!(refused.to_string().contains(word), "{refused}");
    }
}
