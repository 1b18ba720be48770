use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};

use super::*;
use crate::crypto::keyfile;
use crate::id::ObjectHash;
use crate::ops::init::{InitOptions, init};
use crate::ops::testing::{env, store_over};
use crate::repo::Limits;
use crate::store::fault::{FaultStore, OpKind};

/// Garbage under the names of key slots, however much of it, locks nobody out.
#[tokio::test]
async fn garbage_before_a_good_slot_does_not_keep_it_from_opening() {
    let store = store_over(Arc::new(InMemory::new()));
    let options = InitOptions { new_key_file: true, ..InitOptions::default() };
    let made = init(store.clone(), &env(), options).await.unwrap();
    let (_, key) = keyfile::decode(&made.key_file.unwrap()).unwrap();
    for number in 0..=SLOTS_MAX {
        // Names that come before any other.
        let mut hash = [0; 32];
        hash[31] = number as u8;
        let name = ObjectName::KeySlot(ObjectHash::new(hash));
        store.put(&object_key(name).unwrap(), vec!["garbage".into()]).await.unwrap();
        // And some that are what their name says, and still no slots.
        let bytes = format!("garbage {number}");
        let name = ObjectName::KeySlot(object_hash(bytes.as_bytes()));
        store.put(&object_key(name).unwrap(), vec![bytes.into()]).await.unwrap();
    }
    Repository::open(store, env(), &Unlock::KeyFile(key)).await.unwrap();
}

/// A key file is tried on every slot: it costs no more than a look.
#[tokio::test]
async fn however_many_have_key_files_each_of_them_opens() {
    let store = store_over(Arc::new(InMemory::new()));
    let options = InitOptions { new_key_file: true, ..InitOptions::default() };
    let made = init(store.clone(), &env(), options).await.unwrap();
    let (_, key) = keyfile::decode(&made.key_file.unwrap()).unwrap();
    let repo = Repository::open(store.clone(), env(), &Unlock::KeyFile(key.clone())).await.unwrap();
    let mut keys = vec![key];
    for _ in 0..=SLOTS_MAX {
        let key = SecretKey::generate(&crate::random::SystemRandom).unwrap();
        repo.copy_slot(&Unlock::KeyFile(key.clone()), None, None).await.unwrap();
        keys.push(key);
    }
    for key in keys {
        Repository::open(store.clone(), env(), &Unlock::KeyFile(key)).await.unwrap();
    }
}

/// Where one request is allowed at a time each waits for the one before it, in an order that is always the same.
#[tokio::test]
async fn a_repository_is_opened_by_six_requests_whose_order_is_fixed_if_they_may_not_overlap() {
    // A listing is not there at once, so whatever else may be asked for is asked for first.
    let config = ThrottleConfig { wait_list_per_call: Duration::from_millis(1), ..ThrottleConfig::default() };
    let asked = Arc::new(FaultStore::recording(Arc::new(ThrottledStore::new(InMemory::new(), config))));
    let store = store_over(Arc::<FaultStore>::clone(&asked));
    let options = InitOptions { new_key_file: true, ..InitOptions::default() };
    let made = init(store.clone(), &env(), options).await.unwrap();
    let key_file = made.key_file.unwrap();
    let key = || Unlock::KeyFile(keyfile::decode(&key_file).unwrap().1);
    let listed = |kind: OpKind, key: &str| (kind, key.split('/').next().unwrap().to_owned());
    let in_order = [
        (OpKind::List, "config"),
        (OpKind::List, "keys"),
        (OpKind::Get, "keys"),
        (OpKind::Get, "config"),
        (OpKind::List, "writers"),
        (OpKind::Get, "writers"),
    ];
    let in_order = in_order.map(|(kind, key)| (kind, key.to_owned()));
    for requests in [1, 8] {
        asked.take_record();
        let env = Env { limits: Limits { requests, ..env().limits }, ..env() };
        Repository::open(store.clone(), env, &key()).await.unwrap();
        let mut found: Vec<_> = asked.take_record().iter().map(|op| listed(op.kind, &op.key)).collect();
        if requests > 1 {
            assert_eq!(found[..3].iter().filter(|(kind, _)| *kind == OpKind::List).count(), 3, "{found:?}");
            found.sort_by_key(|request| in_order.iter().position(|wanted| wanted == request));
        }
        assert_eq!(found, in_order);
    }
}
