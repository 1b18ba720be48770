use std::sync::Arc;

use object_store::memory::InMemory;

use super::*;
use crate::crypto::keyfile;
use crate::id::ObjectHash;
use crate::ops::init::{InitOptions, init};
use crate::ops::testing::{env, store_over};

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
