use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use super::super::StoreOptions;
use super::super::fault::{Fault, FaultStore, OpKind};
use super::super::tests::env_with;
use super::*;
use crate::clock::SystemClock;

/// What a store shows under a name that was deleted is not read further than what was stored there.
#[tokio::test]
async fn what_is_still_there_is_not_read_beyond_what_was_stored() {
    let objects = Arc::new(InMemory::new());
    let faulty = {
        let inner = Arc::clone(&objects);
        let deleted = std::sync::Mutex::new(std::collections::HashSet::new());
        FaultStore::new(Arc::clone(&objects) as Arc<dyn object_store::ObjectStore>, move |op| {
            let mut deleted = deleted.lock().unwrap();
            if op.kind == OpKind::Delete {
                deleted.insert(op.key.clone());
            } else if op.kind == OpKind::Get && deleted.contains(&op.key) {
                let location = object_store::path::Path::from(op.key.as_str());
                inner.put(&location, vec![0; 4 << 20].into()).now_or_never().unwrap().unwrap();
            }
            Fault::None
        })
    };
    let (env, _) = env_with(SystemClock::new());
    let observer = Arc::clone(&env.observer);
    let options = StoreOptions { retry_for: Duration::ZERO, ..StoreOptions::default() };
    let store = Store::from_object_store(Arc::new(faulty), &options, env);
    let report = store.probe(ProbeExtent::Small).await.unwrap();
    let delete = report.checks.iter().find(|check| check.step == ProbeStep::Delete).unwrap();
    assert!(matches!(delete.failure, Some(ProbeFailure::StillThere)), "{delete:?}");
    assert!(observer.counters().bytes_fetched.load(Ordering::Relaxed) < 1 << 20);
}
