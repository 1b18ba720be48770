//! No key encrypts two things with one nonce, in everything that a repository holds: segments, blocks of objects, key slots and
//! their notes, and data keys that are sealed to somebody.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lifeboat::chunk::ChunkParams;
use lifeboat::crypto::slot::Unlock;
use lifeboat::crypto::{SecretKey, keyfile, object_hash};
use lifeboat::format::datakey::SealedDataKey;
use lifeboat::format::gc::TombReason;
use lifeboat::format::keyslot::{KeySlot, Role};
use lifeboat::format::labels::LabelsObject;
use lifeboat::format::layout::ObjectName;
use lifeboat::format::sealed::SealedObject;
use lifeboat::format::snapshot::SnapshotObject;
use lifeboat::format::wire::Reader;
use lifeboat::id::{PackId, SnapshotId};
use lifeboat::ops::backup::{BackupOptions, BackupSource, backup};
use lifeboat::ops::gc::{PruneOptions, prune};
use lifeboat::ops::init::{InitOptions, init};
use lifeboat::random::{Random, RandomError, SystemRandom};
use lifeboat::repo::{Env, Limits, Places, Repository};
use lifeboat::store::{Key, Store, StoreOptions};
use object_store::memory::InMemory;

/// Everything that was sealed, by what makes key and nonce: equal bytes are one sealing, moved or stored again.
#[derive(Default)]
struct Sealed {
    seen: BTreeMap<(&'static str, Vec<u8>), [u8; 32]>,
    /// How many sealings of each kind there are.
    counts: BTreeMap<&'static str, usize>,
    /// How many were found again.
    again: usize,
}

impl Sealed {
    fn add(&mut self, kind: &'static str, unique: &[&[u8]], sealed: &[u8]) {
        let hash = *object_hash(sealed).as_bytes();
        match self.seen.insert((kind, unique.concat()), hash) {
            Some(before) => {
                assert_eq!(before, hash, "{kind}: two things under one key and nonce");
                self.again += 1;
            }
            None => *self.counts.entry(kind).or_default() += 1,
        }
    }

    /// A data key as it is sealed to its recipients.
    fn add_data_key(&mut self, bytes: &[u8]) -> SealedDataKey {
        let mut reader = Reader::new(bytes);
        let key = SealedDataKey::decode(&mut reader).unwrap();
        for recipient in key.recipients() {
            let sealed = key.sealed_to(recipient).unwrap();
            let info = [&key.run().as_bytes()[..], &[key.kind() as u8], recipient.as_bytes()].concat();
            self.add("data key", &[&sealed[..1120], &info], sealed);
        }
        key
    }

    fn add_body(&mut self, object: &SealedObject<'_>) {
        let key = self.add_data_key(object.data_key);
        self.add("body", &[key.commitment(), &object.salt], object.body);
    }

    async fn add_pack(&mut self, repo: &Repository, (id, bytes): (PackId, &[u8])) {
        let (footer, directory) = repo.read_directory(id, bytes.len() as u64).await.unwrap();
        let at = |offset: u32, len: u32| &bytes[offset as usize..(offset + len) as usize];
        self.add("block", &[&footer.salt], at(footer.directory_offset, footer.directory_len));
        let keys: Vec<_> = directory.data_keys.iter().map(|key| self.add_data_key(key)).collect();
        for row in &directory.segments {
            let commitment = keys[usize::from(row.data_key)].commitment();
            self.add("segment", &[commitment, &row.n1, &row.n2], at(row.offset, row.stored_len));
        }
    }

    /// Everything in the store of a repository.
    async fn add_all(&mut self, repo: &Repository) {
        for object in repo.store().list("").await.unwrap() {
            let bytes: Bytes = repo.store().get(&object.key, u64::MAX).await.unwrap();
            match ObjectName::parse(object.key.as_str()).unwrap() {
                ObjectName::Pack(id) => self.add_pack(repo, (id, &bytes)).await,
                ObjectName::Index(..) => {
                    // Its blocks have the numbers 0 to n as their nonces, so the salt is what must not come twice.
                    self.add("block", &[&bytes[32..64]], &bytes[64..]);
                }
                ObjectName::Snapshot(..) => {
                    self.add_body(&SnapshotObject::decode(&bytes, &repo.id()).unwrap().sealed);
                }
                ObjectName::Labels(..) => {
                    self.add_body(&LabelsObject::decode(&bytes, &repo.id()).unwrap().sealed);
                }
                ObjectName::KeySlot(_) => {
                    // Key and nonce of the secrets, and of the note, come from the salt and what unlocks.
                    self.add("slot", &[&KeySlot::decode(&bytes).unwrap().salt], &bytes);
                }
                _ => {}
            }
        }
    }
}

fn env(state: &Path, random: Arc<dyn Random>) -> Env {
    let places = Places { state: state.to_owned(), cache: None };
    Env { random, ..Env::system(Limits { workers: 2, requests: 4 }, places) }
}

fn memory(env: &Env) -> Store {
    let options = StoreOptions { retry_for: Duration::ZERO, ..StoreOptions::default() };
    Store::from_object_store(Arc::new(InMemory::new()), &options, env.store_env())
}

async fn new_repository(env: &Env) -> (Repository, SecretKey) {
    let store = memory(env);
    let chunk_params = ChunkParams::new(64, 4096, 4096).unwrap();
    let options =
        InitOptions { new_key_file: true, recovery_words: true, chunk_params, ..InitOptions::default() };
    let made = init(store.clone(), env, options).await.unwrap();
    let (_, key) = keyfile::decode(&made.key_file.unwrap()).unwrap();
    let repo = Repository::open(store, env.clone(), &Unlock::KeyFile(key.clone())).await.unwrap();
    (repo, key)
}

async fn save(repo: &Repository, source: &Path, seed: u8) -> SnapshotId {
    let mut noise = vec![0; 40_000];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut noise);
    std::fs::write(source.join("noise"), &noise).unwrap();
    std::fs::write(source.join(format!("kept-{seed}")), &noise[..5000]).unwrap();
    std::fs::write(source.join("text"), format!("the same again {seed}\n").repeat(900)).unwrap();
    let options = BackupOptions::new(BackupSource::Paths(vec![source.to_owned()]));
    backup(repo, options).await.unwrap().snapshot.unwrap()
}

const NOW: PruneOptions = PruneOptions::AT_ONCE;

#[tokio::test(flavor = "multi_thread")]
async fn no_key_meets_a_nonce_twice_in_a_repository_that_has_lived() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let (repo, _) = new_repository(&env(&place.path().join("state"), Arc::new(SystemRandom))).await;
    let mut sealed = Sealed::default();
    for seed in 1..=2 {
        save(&repo, &source, seed).await;
    }
    let writer = Unlock::KeyFile(SecretKey::from_bytes([4; 32]));
    repo.add_slot(&writer, Role::Writer, Some("other machine".into())).await.unwrap();
    let other = env(&place.path().join("other"), Arc::new(SystemRandom));
    let other = Repository::open(repo.store().clone(), other, &writer).await.unwrap();
    save(&other, &source, 3).await;
    let listed = repo.list_snapshots().await.unwrap();
    for (number, listed) in listed.iter().enumerate() {
        repo.put_labels(listed, (0, vec![format!("number={number}")])).await.unwrap();
    }
    sealed.add_all(&repo).await;
    let before = sealed.again;
    // What a collection moves has the keys, the nonces and the bytes that it had.
    let gone = listed[0];
    repo.put_tomb((gone.writer, gone.sequence, gone.id), TombReason::Named).await.unwrap();
    prune(&repo, &NOW).await.unwrap();
    save(&repo, &source, 4).await;
    sealed.add_all(&repo).await;
    assert!(sealed.again > before);
    println!("{:?}, {} found again", sealed.counts, sealed.again);
    for (kind, least) in [("segment", 8), ("block", 12), ("body", 7), ("slot", 3), ("data key", 8)] {
        assert!(sealed.counts[kind] >= least, "{kind}: {:?}", sealed.counts);
    }
}

/// What the generator of a machine does that is set back to the same state again and again.
#[derive(Debug)]
struct Repeats;

impl Random for Repeats {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
        out.fill(7);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_cloned_uses_no_nonce_twice_for_other_content() {
    let place = tempfile::tempdir().unwrap();
    let (first, key) = new_repository(&env(&place.path().join("state"), Arc::new(SystemRandom))).await;
    let objects = first.store().list("").await.unwrap();
    let mut sealed = Sealed::default();
    for clone in 1..=3 {
        // Each goes on from one image of a machine, at a store of its own, so that nobody sees what the others do.
        let env = env(&place.path().join(format!("clone-{clone}")), Arc::new(Repeats));
        let (store, source) = (memory(&env), place.path().join("source"));
        for object in &objects {
            let bytes = first.store().get(&object.key, u64::MAX).await.unwrap();
            store.put(&Key::new(object.key.as_str()).unwrap(), vec![bytes]).await.unwrap();
        }
        let repo = Repository::open(store, env, &Unlock::KeyFile(key.clone())).await.unwrap();
        let _ = std::fs::create_dir(&source);
        for round in 0..2 {
            save(&repo, &source, clone * 10 + round).await;
        }
        let listed = repo.list_snapshots().await.unwrap()[0];
        repo.put_labels(&listed, (0, vec![format!("clone={clone}")])).await.unwrap();
        sealed.add_all(&repo).await;
    }
    println!("{:?}, {} found again", sealed.counts, sealed.again);
    assert!(sealed.counts["segment"] >= 12 && sealed.counts["body"] >= 9, "{:?}", sealed.counts);
}
