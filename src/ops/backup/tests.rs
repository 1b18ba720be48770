//! The backup as a whole, over a store in memory.

mod collector;
mod heads;
mod hostile;
mod incomplete;
mod streams;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::{BackupOptions, BackupSource, BackupSummary, backup};
use crate::cancel::Cancel;
use crate::class::Class;
use crate::crypto::object_hash;
use crate::error::Error;
use crate::event::{Counters, Event, Observer};
use crate::format::envelope::{ChunkKind, ObjectKind, Preamble};
use crate::format::gc::Condemnation;
use crate::format::layout::ObjectName;
use crate::format::signed::signed_message;
use crate::id::PackId;
use crate::ops::testing::{World, env, noise};
use crate::repo::{Env, Repository};
use crate::store::fault::{Fault, FaultStore, Op, OpKind};

impl World {
    fn options(&self) -> BackupOptions {
        options(&self.source())
    }

    async fn save(&self, repo: &Repository) -> BackupSummary {
        // What was written a moment ago is looked at again by the next run.
        tokio::time::sleep(std::time::Duration::from_millis(80)).await;
        backup(repo, self.options()).await.unwrap()
    }

    fn put(&self, key: String, bytes: Vec<u8>) {
        let place = key.as_str().into();
        let put = self.objects.put(&place, PutPayload::from(bytes));
        put.now_or_never().expect("memory answers at once").unwrap();
    }
}

fn options(path: &Path) -> BackupOptions {
    BackupOptions::new(BackupSource::Paths(vec![path.to_owned()]))
}

fn condemnation(repo: &Repository, packs: Vec<PackId>) -> (String, Vec<u8>) {
    let (author, signing) = repo.writer().unwrap();
    let value = Condemnation { author, packs, nonce: [3; 16] }.encode();
    let preamble = Preamble::new(ObjectKind::Condemnation, ChunkKind::Data, repo.id());
    let mut bytes = signed_message(preamble, &value);
    let signature = signing.sign(&bytes);
    bytes.extend_from_slice(&signature);
    (ObjectName::Condemned(object_hash(&bytes)).key(), bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_reads_and_stores_only_what_changed() {
    let world = World::new();
    for n in 0..300 {
        world.write(&format!("f{n}"), &noise(n, 3000));
    }
    let repo = world.repository().await;
    let first = world.save(&repo).await;
    assert_eq!((first.new_files, first.bytes, first.failed), (300, 900_000, 0));
    assert!(first.new_bytes >= 900_000 && first.snapshot.is_some());

    let again = world.save(&repo).await;
    assert_eq!((again.unchanged_files, again.bytes_read), (300, 0));
    assert!(again.new_bytes < 1000, "the pages of directories above the source at most: {}", again.new_bytes);
    assert_ne!(again.snapshot, first.snapshot);

    world.write("f7", &noise(1000, 5000));
    fs::rename(world.source().join("f8"), world.source().join("g8")).unwrap();
    let third = world.save(&repo).await;
    assert_eq!((third.changed_files, third.new_files, third.unchanged_files), (1, 1, 298));
    assert_eq!(third.bytes_read, 8000, "the changed file and the one under a new name");
    let pages = 64 << 10;
    assert!(third.new_bytes >= 5000 && third.new_bytes < 5000 + pages, "{}", third.new_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_sends_packs_index_and_two_requests_and_an_unchanged_one_nearly_nothing() {
    let world = World::new();
    for n in 0..60 {
        world.write(&format!("f{n}"), &noise(n, 800_000));
    }
    let first = world.repository().await;
    let inner = Arc::clone(&world.objects) as Arc<dyn ObjectStore>;
    let counting = Arc::new(FaultStore::recording(inner));
    let repo =
        first.with_store(crate::ops::testing::store_over(Arc::clone(&counting) as Arc<dyn ObjectStore>));
    world.save(&repo).await;
    let objects =
        repo.store().list("packs/").await.unwrap().len() + repo.store().list("index/").await.unwrap().len();
    assert!(objects >= 4, "several packs");
    assert_eq!(
        counting.count(OpKind::Put),
        objects + 2,
        "packs, index objects, the snapshot, its confirmation"
    );
    counting.take_record();
    world.save(&repo).await;
    let [puts, gets] = [OpKind::Put, OpKind::Get].map(|kind| counting.count(kind));
    let lists = counting.count(OpKind::List);
    assert!(
        puts <= 4 && gets <= 2 && lists <= 11,
        "{puts} PUTs, {gets} GETs, {lists} lists: {:?}",
        counting.record()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn content_whose_pack_is_gone_is_stored_again() {
    let world = World::new();
    world.write("file", &noise(1, 300_000));
    let repo = world.repository().await;
    world.save(&repo).await;
    for object in repo.store().list("packs/").await.unwrap() {
        repo.store().delete(&object.key).await.unwrap();
    }
    let healed = world.save(&repo).await;
    assert!(healed.new_bytes >= 300_000, "{}", healed.new_bytes);
    assert!(world.save(&repo).await.new_bytes < 1000, "pages of the directories above at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condemned_pack_is_never_depended_on() {
    let world = World::new();
    world.write("file", &noise(1, 300_000));
    let repo = world.repository().await;
    world.save(&repo).await;
    let packs = repo.list_packs().await.unwrap().into_iter().collect();
    let (key, bytes) = condemnation(&repo, packs);
    world.put(key, bytes);
    let healed = world.save(&repo).await;
    assert!(healed.new_bytes >= 300_000, "{}", healed.new_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_condemned_behind_the_back_of_a_run_are_replaced_before_it_acknowledges() {
    let world = World::new();
    world.write("file", &noise(1, 300_000));
    let first = world.repository().await;
    world.save(&first).await;
    let before: Vec<_> = first.list_packs().await.unwrap().into_iter().collect();
    let (key, bytes) = condemnation(&first, before.clone());
    // The collector strikes in the moment between the listing of step 1 and the snapshot of step 3.
    let (objects, struck) = (Arc::clone(&world.objects), AtomicBool::new(false));
    let strike = move |op: &Op| {
        let snapshot = op.kind == OpKind::Put && op.key.starts_with("snapshots/");
        if snapshot && !struck.swap(true, Ordering::SeqCst) {
            let place = key.as_str().into();
            let put = objects.put(&place, PutPayload::from(bytes.clone()));
            put.now_or_never().expect("memory answers at once").unwrap();
        }
        Fault::None
    };
    let inner = Arc::clone(&world.objects) as Arc<dyn ObjectStore>;
    let store = crate::ops::testing::store_over(Arc::new(FaultStore::new(inner, strike)));
    let repo = first.with_store(store);
    let healed = world.save(&repo).await;
    assert!(healed.new_bytes >= 300_000, "{}", healed.new_bytes);
    let snapshots = repo.list_snapshots().await.unwrap();
    let confirmed: Vec<_> = snapshots.iter().filter(|snapshot| snapshot.confirmed).map(|s| s.id).collect();
    assert_eq!(snapshots.len(), 3, "the one that met the collector stays, unconfirmed");
    assert_eq!(confirmed.len(), 2);
    assert!(confirmed.contains(&healed.snapshot.unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_source_is_refused_unless_it_is_meant() {
    let world = World::new();
    for n in 0..100 {
        world.write(&format!("f{n}"), b"content");
    }
    let repo = world.repository().await;
    world.save(&repo).await;
    for n in 1..100 {
        fs::remove_file(world.source().join(format!("f{n}"))).unwrap();
    }
    let refused = backup(&repo, world.options()).await.unwrap_err();
    assert!(matches!(refused, Error::Shrunk { .. }) && refused.class() == Class::Refused, "{refused}");
    let meant = BackupOptions { allow_shrink: true, ..world.options() };
    assert_eq!(backup(&repo, meant).await.unwrap().files, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_sources_fail_the_run_only_if_there_is_no_other() {
    let world = World::new();
    world.write("file", b"content");
    let repo = world.repository().await;
    let gone = world.dir.path().join("gone");
    let nothing = backup(&repo, options(&gone)).await.unwrap_err();
    assert!(matches!(nothing, Error::NoSource { .. }) && nothing.class() == Class::Failed);
    let both = BackupSource::Paths(vec![gone.clone(), world.source()]);
    let partial = backup(&repo, BackupOptions { source: both, ..world.options() }).await.unwrap();
    assert_eq!((partial.missing, partial.files), (vec![gone], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_and_writes_nothing() {
    let world = World::new();
    world.write("file", &noise(5, 200_000));
    let repo = world.repository().await;
    let before = repo.store().list("").await.unwrap().len();
    let dry = backup(&repo, BackupOptions { dry_run: true, ..world.options() }).await.unwrap();
    assert_eq!((dry.snapshot, dry.files), (None, 1));
    assert!(dry.new_bytes >= 200_000);
    assert_eq!(repo.store().list("").await.unwrap().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_leaves_no_snapshot() {
    let world = World::new();
    let repo = world.repository().await;
    let run = |script: &str| BackupOptions {
        source: BackupSource::Command(["sh", "-c", script].map(Into::into).to_vec()),
        ..world.options()
    };
    let failed = backup(&repo, run("echo half; exit 3")).await.unwrap_err();
    assert!(matches!(failed, Error::CommandFailed { .. }), "{failed}");
    assert!(repo.list_snapshots().await.unwrap().is_empty());
    let saved = backup(&repo, run("echo whole")).await.unwrap();
    assert_eq!((saved.files, saved.bytes), (1, 6));
}

/// Raises the flag when it has seen so many entries.
struct StopAt {
    counters: Counters,
    cancel: Mutex<Cancel>,
    left: AtomicU64,
}

impl Observer for StopAt {
    fn observe(&self, event: &Event<'_>) {
        if matches!(event, Event::Entry { .. }) && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.cancel.lock().unwrap().raise();
        }
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn wants_entries(&self) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_run_is_taken_up_by_the_next() {
    let world = World::new();
    for n in 0..2000 {
        world.write(&format!("f{n:05}"), &noise(n, 20_000));
    }
    let repo = world.repository().await;
    let cancel = Cancel::new();
    let left = AtomicU64::new(1500);
    let observer = StopAt { counters: Counters::default(), cancel: Mutex::new(cancel.clone()), left };
    let stopping = repo.with_env(Env { observer: Arc::new(observer), cancel, ..world.env() });
    let stopped = backup(&stopping, world.options()).await.unwrap_err();
    assert_eq!(stopped.class(), Class::Cancelled, "{stopped}");
    assert!(repo.list_snapshots().await.unwrap().is_empty());
    let rest = world.save(&repo).await;
    assert_eq!(rest.files, 2000);
    let all = 2000 * 20_000;
    assert!(rest.new_bytes < all / 4 * 3, "of {all} bytes {} were sent again", rest.new_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_after_a_crash_adopts_the_packs_of_its_journal() {
    let world = World::new();
    for n in 0..40 {
        world.write(&format!("f{n:05}"), &noise(n, 1_000_000));
    }
    let first = world.repository().await;
    // The machine dies with the first index object: packs are there, nothing names them.
    let inner = Arc::clone(&world.objects) as Arc<dyn ObjectStore>;
    let die = |op: &Op| match op.kind {
        OpKind::Put if op.key.starts_with("index/") => Fault::Stop,
        _ => Fault::None,
    };
    let dying = first.with_store(crate::ops::testing::store_over(Arc::new(FaultStore::new(inner, die))));
    backup(&dying, world.options()).await.unwrap_err();
    let orphans: u64 = first.store().list("packs/").await.unwrap().iter().map(|pack| pack.size).sum();
    assert!(orphans > 30_000_000, "{orphans}");
    let adopted = world.save(&first).await;
    assert!(adopted.resumed_bytes > 30_000_000, "{}", adopted.resumed_bytes);
    assert!(adopted.new_bytes < 1_000_000, "{} bytes were sent again", adopted.new_bytes);
}
