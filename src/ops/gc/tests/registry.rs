//! Writers who are registered while a collection is at work, and a registry that rots.

use futures::FutureExt;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use super::*;
use crate::crypto::keyfile;
use crate::crypto::object_hash;
use crate::crypto::sign::SigningKey;
use crate::crypto::slot::Unlock;
use crate::format::config::{Authority, Standing, WriterEntry};
use crate::format::envelope::{ChunkKind, ObjectKind, Preamble};
use crate::format::gc::TombReason;
use crate::format::signed::signed_message;
use crate::ops::init::{InitOptions, init};
use crate::repo::RepoError;

/// A repository that can be opened again, and the entry of its writer.
struct Opened {
    world: World,
    unlock: Unlock,
    entry: String,
}

impl Opened {
    async fn new() -> Self {
        let mut world = World::new().await;
        world.base.objects = Arc::new(InMemory::new());
        let store = store_over(Arc::clone(&world.objects) as Arc<dyn ObjectStore>);
        let options = InitOptions { new_key_file: true, ..InitOptions::default() };
        let made = init(store, world.repo.env(), options).await.unwrap();
        let (_, key) = keyfile::decode(&made.key_file.unwrap()).unwrap();
        let mut opened = Self { world, unlock: Unlock::KeyFile(key), entry: String::new() };
        opened.world.repo = opened.again().await;
        let entries = opened.world.repo.store().list(layout::WRITERS).await.unwrap();
        opened.entry = entries[0].key.as_str().to_owned();
        opened
    }

    async fn again(&self) -> Repository {
        let store = store_over(Arc::clone(&self.world.objects) as Arc<dyn ObjectStore>);
        Repository::open(store, self.world.repo.env().clone(), &self.unlock).await.unwrap()
    }

    async fn put(&self, key: &str, bytes: Vec<u8>) {
        self.world.objects.put(&key.into(), bytes.into()).await.unwrap();
    }

    async fn take(&self, key: &str) -> Vec<u8> {
        let bytes = self.world.objects.get(&key.into()).await.unwrap().bytes().await.unwrap();
        self.world.objects.delete(&key.into()).await.unwrap();
        bytes.to_vec()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_removed_while_an_entry_of_the_registry_is_damaged() {
    let mut opened = Opened::new().await;
    opened.world.write("a", &noise(1, 100_000));
    opened.world.save().await;
    let good = opened.take(&opened.entry).await;
    let repo = opened.world.repo.clone();
    // A valid entry below the damaged one: what the later one took from its writer is back.
    let (writer, signing) = repo.writer().unwrap();
    let entry = WriterEntry {
        writer,
        key: *signing.verifying_key().as_bytes(),
        authority: Authority::Writer,
        standing: Standing::Active,
    };
    let mut preamble = Preamble::new(ObjectKind::Writer, ChunkKind::Data, repo.id());
    preamble.key_generation = 1;
    let mut later = signed_message(preamble, &entry.encode());
    let root = SigningKey::from_seed(repo.secrets().root.clone().unwrap());
    let signature = root.sign(&later);
    later.extend_from_slice(&signature);
    let later_key = ObjectName::Writer(writer, 1, object_hash(&later)).key();
    opened.put(&opened.entry, good).await;
    opened.put(&later_key, vec![7; 200]).await;
    let revived = opened.again().await;
    assert!(revived.maintainer().is_ok(), "backups and restores go on");
    opened.world.repo = revived;
    let refused = prune(&opened.world.repo, &NOW).await;
    assert!(matches!(refused, Err(Error::Repo(RepoError::HashMismatch { .. }))), "{refused:?}");
    opened.world.save().await;
    opened.put(&later_key, later).await;
    opened.world.check().await;
    // An older one that is damaged says nothing any more.
    opened.put(&opened.entry, vec![7; 200]).await;
    assert!(opened.again().await.intact_registry().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_seen_confirmed_must_be_read_whatever_became_of_its_writer() {
    let mut opened = Opened::new().await;
    opened.world.write("a", &noise(1, 100_000));
    let id = opened.world.save().await;
    // Its bytes are whole, and not what a writer signed for this place.
    let (body, confirmation) = name_of(&opened.world.repo, id).await;
    let bytes = opened.take(&body.key()).await;
    remove::delete(&opened.world.repo, confirmation).await.unwrap();
    let ObjectName::Snapshot(writer, _, _) = body else { panic!() };
    let other = ObjectName::Snapshot(writer, 9, id);
    opened.put(&other.key(), bytes).await;
    let refused = prune(&opened.world.repo, &NOW).await;
    assert!(matches!(refused, Err(Error::SnapshotUnreadable { snapshot }) if snapshot == id), "{refused:?}");
    // Who gives it up says so.
    let tomb = (writer, 9, id);
    opened.world.repo.put_tomb(tomb, TombReason::Named).await.unwrap();
    prune(&opened.world.repo, &NOW).await.unwrap();
    assert!(opened.world.repo.list_snapshots().await.unwrap().is_empty());
}

/// The registry is read again when a signature is refused, and only then.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_who_is_registered_later_is_known_when_it_counts() {
    let mut opened = Opened::new().await;
    opened.world.write("a", &noise(1, 100_000));
    let held = opened.world.save().await;
    let content = opened.world.saved[&held].clone();
    opened.world.write("a", &noise(2, 100_000));
    opened.world.save().await;
    opened.world.forget(held).await;
    opened.world.saved.insert(held, content);
    let (repo, stale) = (opened.world.repo.clone(), opened.again().await);
    let garbage = b"garbage".to_vec();
    let nobody = ObjectName::Writer(crate::id::WriterId::new([8; 16]), 0, object_hash(&garbage)).key();
    opened.put(&nobody, garbage).await;
    repo.reread_registry().await.unwrap();
    opened.take(&nobody).await;
    // Opened while nobody knows another maintainer; that one then holds what is to be removed.
    let maintainer = SigningKey::generate(&crate::random::SystemRandom).unwrap();
    let author = crate::id::WriterId::new([9; 16]);
    let entry = WriterEntry {
        writer: author,
        key: *maintainer.verifying_key().as_bytes(),
        authority: Authority::Maintainer,
        standing: Standing::Active,
    };
    let root = SigningKey::from_seed(repo.secrets().root.clone().unwrap());
    let signed = |kind, value: &[u8], key: &SigningKey| {
        let mut bytes = signed_message(Preamble::new(kind, ChunkKind::Data, repo.id()), value);
        let signature = key.sign(&bytes);
        bytes.extend_from_slice(&signature);
        bytes
    };
    let entry = signed(ObjectKind::Writer, &entry.encode(), &root);
    opened.put(&ObjectName::Writer(author, 0, object_hash(&entry)).key(), entry).await;
    let hold = crate::format::gc::Hold { author, snapshots: vec![held], until: None, nonce: [1; 16] };
    let hold = signed(ObjectKind::Hold, &hold.encode(), &maintainer);
    opened.put(&ObjectName::Hold(object_hash(&hold)).key(), hold).await;
    let packs: Vec<PackId> = repo.list_packs().await.unwrap().into_iter().collect();
    let mut index = repo.load_index().await.unwrap();
    assert_eq!(repo.registry_version(), 0, "nothing was refused");
    let report = prune(&repo, &NOW).await.unwrap();
    assert_eq!((report.removed, report.spared), (0, 1));
    assert_eq!(repo.registry_version(), 1);
    opened.world.check().await;
    // The check of a writer as well.
    let late = crate::format::gc::Condemnation { author, packs: packs.clone(), nonce: [1; 16] };
    let late = signed(ObjectKind::Condemnation, &late.encode(), &maintainer);
    opened.put(&ObjectName::Condemned(object_hash(&late)).key(), late).await;
    let dependencies = crate::repo::Dependencies(packs.into_iter().collect());
    let outcome = stale.check_commit(&mut index, &dependencies, &mut HashSet::new()).await.unwrap();
    assert_eq!(outcome, crate::repo::CheckOutcome::Lost);
}

/// What a revoked maintainer puts says nothing, so nothing may go in its place.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_revoked_while_it_collects_deletes_nothing_for_what_it_just_put() {
    for (when, kept) in [(layout::REMOVED, layout::SNAPSHOTS), (layout::HORIZON, layout::CONDEMNED)] {
        let world = World::one_of_three_forgotten().await;
        let (writer, key) = world.repo.writer().unwrap();
        let key = *key.verifying_key().as_bytes();
        let standing = Standing::Closing(Vec::new());
        let entry = WriterEntry { writer, key, authority: Authority::Maintainer, standing };
        let before = world.repo.store().list(kept).await.unwrap().len();
        testing::put_entry(&world.repo, 1, &entry).await;
        let listed = world.repo.store().list(layout::WRITERS).await.unwrap();
        let entry = &listed.iter().find(|object| object.key.as_str().contains("/0000000001-")).unwrap().key;
        let path = object_store::path::Path::from(entry.as_str());
        let bytes = world.repo.store().get(entry, 1 << 20).await.unwrap();
        world.repo.store().delete(entry).await.unwrap();
        let objects = Arc::clone(&world.objects);
        let faulty = FaultStore::new(Arc::clone(&world.objects) as Arc<dyn ObjectStore>, move |op| {
            if op.kind == OpKind::Put && op.key.starts_with(when) {
                objects.put(&path, bytes.clone().into()).now_or_never().unwrap().unwrap();
            }
            Fault::None
        });
        let repo = world.repo.with_store(store_over(Arc::new(faulty)));
        let refused = prune(&repo, &NOW).await.unwrap_err();
        assert!(
            matches!(refused, Error::Repo(RepoError::WriterRevoked { .. } | RepoError::Closing { .. })),
            "{refused}"
        );
        let left = world.repo.store().list(kept).await.unwrap().len();
        assert!(left >= before.max(1), "{when}: {left} of {before} in {kept}");
    }
}
