//! Readers of a repository whose index is too large to be fetched, and readers whose index or packs move meanwhile.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use futures::FutureExt;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::format::envelope::ChunkKind;
use crate::format::index::{IndexBuilder, NewChunk, NewPack};
use crate::format::layout::{self, ObjectName};
use crate::format::segment::{Codec, SegmentEntry};
use crate::id::{ChunkId, PackId};
use crate::repo::PackKeys;
use crate::store::fault::{Fault, Op};

fn hashed(number: u64, what: u8) -> [u8; 32] {
    *blake3::hash(&[&number.to_le_bytes()[..], &[what]].concat()).as_bytes()
}

/// Adds packs that nobody ever stored: 128 chunks each, four a segment.
pub(super) fn add_fakes(
    builder: &mut IndexBuilder,
    repo: &Repository,
    records: u64,
    (kind, seed): (ChunkKind, u64),
) {
    let keys = repo.new_run_keys().unwrap();
    let data_key = builder.data_key(keys.sealed(kind)).unwrap();
    let origin = builder.origin(repo.writer().unwrap().0).unwrap();
    let segments: Vec<_> = (0..32)
        .map(|number| SegmentEntry {
            offset: 32 + number * 1000,
            stored_len: 1000,
            plain_len: 1 << 20,
            codec: Codec::Zstd,
            flags: 0,
            data_key,
            origin,
            n1: [number as u8; 12],
            n2: [1; 12],
        })
        .collect();
    for pack in 0..records / 128 {
        let number = seed << 40 | pack;
        let new = NewPack {
            id: PackId::new(hashed(number, 1)),
            size: 1 << 25,
            directory_offset: 1 << 24,
            directory_len: 5000,
            kind,
        };
        let chunk = |at: u64| NewChunk {
            id: ChunkId::new(hashed(number << 7 | at, 0)),
            segment: (at / 4) as u16,
            offset: (at % 4) as u32 * 1000,
            len: 1000,
        };
        builder.add_pack(new, &segments, &(0..128).map(chunk).collect::<Vec<_>>()).unwrap();
    }
}

/// Replaces all index objects by `objects` large ones of `records` each, for each kind; the real packs are in one of them.
pub(super) async fn grow(repo: &Repository, kind: ChunkKind, objects: u64, records: u64) {
    let (writer, signing) = repo.writer().unwrap();
    for number in 0..objects {
        let mut builder = IndexBuilder::new(writer, 0, Vec::new());
        if number == objects / 2 {
            for pack in repo.store().list(layout::PACKS).await.unwrap() {
                let Some(ObjectName::Pack(id)) = ObjectName::parse(pack.key.as_str()) else { continue };
                let head = repo.store().get_range(&pack.key, 0..32).await.unwrap();
                if head[11] != kind as u8 {
                    continue;
                }
                let (footer, directory) = repo.read_directory(id, pack.size).await.unwrap();
                Repository::index_pack(&mut builder, (id, kind, pack.size), &footer, &directory).unwrap();
            }
        }
        add_fakes(&mut builder, repo, records, (kind, number << 1 | kind as u64));
        repo.put_index(&builder.finish(), &signing).await.unwrap();
    }
}

pub(super) async fn remove_index(repo: &Repository) {
    for object in repo.list_index().await.unwrap() {
        let key = crate::store::Key::new(object.name().key()).unwrap();
        repo.store().delete(&key).await.unwrap();
    }
}

/// How many requests there were, and how many bytes they fetched.
#[derive(Debug)]
struct Cost {
    requests: usize,
    bytes: u64,
}

fn cost(ops: &[Op], sizes: impl Fn(&str) -> u64) -> Cost {
    let bytes = |op: &Op| match op.kind {
        OpKind::Get => sizes(&op.key),
        _ => op.bytes,
    };
    Cost { requests: ops.len(), bytes: ops.iter().map(bytes).sum() }
}

/// Restores, lists and shows one path through a store that counts; everything that is fetched counts.
async fn read_one_path(
    objects: Arc<dyn ObjectStore>,
    repo: &Repository,
    path: &Path,
    place: &Path,
) -> [Cost; 3] {
    let counting = FaultStore::recording(Arc::clone(&objects));
    let repo = repo.with_store(store_over(Arc::new(counting.clone())));
    let sizes: std::collections::HashMap<_, _> =
        repo.store().list("index/").await.unwrap().into_iter().map(|o| (o.key.to_string(), o.size)).collect();
    let sizes = |key: &str| sizes.get(key).copied().unwrap_or(1000);
    let stored = path.as_os_str().as_encoded_bytes();
    counting.take_record();

    let snapshot = resolve(&repo, "latest", &SnapshotFilter::default()).await.unwrap();
    let target = place.join("target");
    let mut one = options(snapshot.clone(), &target);
    one.path = stored.to_vec();
    let done = restore(&repo, one).await.unwrap();
    assert_eq!((done.failed, done.damaged_count, done.files), (0, 0, 1));
    assert!(fs::read(target.join(path.file_name().unwrap())).unwrap() == fs::read(path).unwrap());
    let restored = cost(&counting.take_record(), sizes);

    let mut out = Vec::new();
    cat(&repo, &snapshot, stored, &mut out).await.unwrap();
    assert!(out == fs::read(path).unwrap());
    let shown = cost(&counting.take_record(), sizes);

    let mut seen = 0;
    let parent = path.parent().unwrap().as_os_str().as_encoded_bytes().to_vec();
    ls(&repo, LsOptions { snapshot, path: parent, recursive: true }, |_, _| seen += 1).await.unwrap();
    assert!(seen > 5);
    [restored, shown, cost(&counting.take_record(), sizes)]
}

/// A repository with a few real files.
async fn small_world(place: &Path, objects: Arc<dyn ObjectStore>) -> (Repository, PathBuf) {
    let source = place.join("source");
    fs::create_dir_all(source.join("deep/er")).unwrap();
    for number in 0..10 {
        fs::write(source.join(format!("deep/er/{number}")), noise(700_000, number)).unwrap();
    }
    let mut env = env();
    env.places.state = place.join("state");
    let repo = new_repository(objects, env).await;
    back_up(&repo, &source).await;
    remove_index(&repo).await;
    (repo, source.join("deep/er/7"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_path_of_a_large_repository_costs_few_requests() {
    let place = tempfile::tempdir().unwrap();
    let objects = Arc::new(InMemory::new());
    let (repo, path) =
        small_world(place.path(), Arc::<InMemory>::clone(&objects) as Arc<dyn ObjectStore>).await;
    grow(&repo, ChunkKind::Data, 6, 500_000).await;
    grow(&repo, ChunkKind::Tree, 2, 100_000).await;
    let index: u64 = repo.list_index().await.unwrap().iter().map(|object| object.size).sum();
    assert!(index > 100 << 20);
    let costs = read_one_path(objects, &repo, &path, place.path()).await;
    for cost in &costs {
        assert!(cost.requests < 35 && cost.bytes < 16 << 20, "{costs:?}");
    }
    assert!(costs[2].requests < 20, "trees take no lookups in indexes of data: {costs:?}");
}

/// 10^8 chunks, on a disk. `LIFEBOAT_COLD_PLACE` names a directory for 4 GB.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes 4 GB of disk and some minutes: `tests/long` runs it"]
async fn one_path_of_a_hundred_million_chunks() {
    let root = std::env::var("LIFEBOAT_COLD_PLACE").map_or(std::env::temp_dir(), Into::into);
    let place = tempfile::tempdir_in(root).unwrap();
    fs::create_dir(place.path().join("store")).unwrap();
    let objects = Arc::new(LocalFileSystem::new_with_prefix(place.path().join("store")).unwrap());
    let (repo, path) =
        small_world(place.path(), Arc::<LocalFileSystem>::clone(&objects) as Arc<dyn ObjectStore>).await;
    grow(&repo, ChunkKind::Data, 16, 6_200_000).await;
    grow(&repo, ChunkKind::Tree, 2, 900_000).await;
    let index: u64 = repo.list_index().await.unwrap().iter().map(|object| object.size).sum();
    let costs = read_one_path(objects, &repo, &path, place.path()).await;
    println!("index of {index} bytes; restore, cat, ls: {costs:?}");
    assert!(costs.iter().all(|cost| cost.requests < 50 && cost.bytes < 64 << 20), "{costs:?}");
}

/// Three runs, the last snapshot, and a plan of faults to read it through.
struct Moving {
    place: tempfile::TempDir,
    objects: Arc<InMemory>,
    repo: Repository,
    snapshot: SnapshotInfo,
    source: PathBuf,
}

impl Moving {
    async fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let source = place.path().join("source");
        fs::create_dir(&source).unwrap();
        let objects = Arc::new(InMemory::new());
        let mut env = env();
        env.places.state = place.path().join("state");
        let repo = new_repository(Arc::<InMemory>::clone(&objects), env).await;
        for run in 0..3 {
            for file in 0..4 {
                fs::write(source.join(format!("{run}-{file}")), noise(400_000, run * 10 + file)).unwrap();
            }
            back_up(&repo, &source).await;
        }
        let snapshot = resolve(&repo, "latest", &SnapshotFilter::default()).await.unwrap();
        Self { place, objects, repo, snapshot, source }
    }

    /// The repository through a store that runs `act` before the request that `when` picks, once.
    fn when(
        &self,
        when: impl Fn(&Op) -> bool + Send + Sync + 'static,
        act: impl Fn() + Send + Sync + 'static,
    ) -> (Repository, Arc<AtomicUsize>) {
        let acted = Arc::new(AtomicUsize::new(0));
        let (count, done) = (Arc::clone(&acted), AtomicBool::new(false));
        let store = FaultStore::new(Arc::<InMemory>::clone(&self.objects), move |op| {
            if when(op) && !done.swap(true, Ordering::SeqCst) {
                act();
                count.fetch_add(1, Ordering::SeqCst);
            }
            Fault::None
        });
        (self.repo.with_store(store_over(Arc::new(store))), acted)
    }

    /// Moves every pack: all content under new names, a new index, the old packs and index objects deleted. Gives what does so.
    async fn moved_world(&self) -> impl Fn() + Send + Sync + use<> {
        let before: Vec<_> = self.repo.store().list("").await.unwrap();
        let old: Vec<_> = before
            .into_iter()
            .filter(|o| o.key.as_str().starts_with("packs/") || o.key.as_str().starts_with("index/"))
            .collect();
        // The same segments in packs with another name: filling behind the directory's range is part of the name.
        let (writer, signing) = self.repo.writer().unwrap();
        let mut builder = IndexBuilder::new(writer, 0, Vec::new());
        let mut new = Vec::new();
        for object in &old {
            let Some(ObjectName::Pack(id)) = ObjectName::parse(object.key.as_str()) else { continue };
            let mut bytes = self.repo.store().get(&object.key, 1 << 26).await.unwrap().to_vec();
            let (mut footer, directory) = self.repo.read_directory(id, object.size).await.unwrap();
            // Parity, which readers ignore, makes it another pack.
            let at = bytes.len() - 64;
            bytes.splice(at..at, [1, 2, 3, 4]);
            footer.parity_len = 4;
            bytes[at + 4..].copy_from_slice(&footer.encode());
            let id = PackId::new(*blake3::hash(&bytes).as_bytes());
            let kind = ChunkKind::from_number(bytes[11]).unwrap();
            Repository::index_pack(&mut builder, (id, kind, bytes.len() as u64), &footer, &directory)
                .unwrap();
            new.push((ObjectName::Pack(id).key(), bytes));
        }
        let index = self.repo.index_key().unwrap();
        let random = &*self.repo.env().random;
        let keys = PackKeys { repository: self.repo.id(), index, writer, signing: &signing, data_key: &[] };
        let bytes = crate::repo::seal_index_object(&builder.finish(), &keys, random).unwrap();
        let hash = crate::crypto::object_hash(&bytes);
        new.push((ObjectName::Index(writer, hash).key(), bytes));
        let objects = Arc::clone(&self.objects);
        let new = Mutex::new(new);
        move || {
            for (key, bytes) in new.lock().unwrap().drain(..) {
                objects.put(&key.into(), bytes.into()).now_or_never().unwrap().unwrap();
            }
            for object in &old {
                objects.delete(&object.key.as_str().into()).now_or_never().unwrap().unwrap();
            }
        }
    }

    async fn restores(&self, repo: &Repository, name: &str) {
        let target = self.place.path().join(name);
        let mut all = options(self.snapshot.clone(), &target);
        all.path = self.source.as_os_str().as_encoded_bytes().to_vec();
        let done = restore(repo, all).await.unwrap();
        assert_eq!((done.failed, done.damaged_count, done.files), (0, 0, 12), "{name}");
        assert_eq!(differences(&self.source, &target), "");
    }

    async fn shows(&self, repo: &Repository) {
        for entry in fs::read_dir(&self.source).unwrap() {
            let path = entry.unwrap().path();
            let mut out = Vec::new();
            cat(repo, &self.snapshot, path.as_os_str().as_encoded_bytes(), &mut out).await.unwrap();
            assert!(out == fs::read(&path).unwrap());
        }
    }
}

fn reads_pack(op: &Op) -> bool {
    op.kind == OpKind::GetRange && op.key.starts_with("packs/")
}

fn reads_index(op: &Op) -> bool {
    matches!(op.kind, OpKind::Get | OpKind::GetRange) && op.key.starts_with("index/")
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_that_move_while_somebody_reads_are_found_again() {
    for cold in [false, true] {
        for nth in 0..4 {
            for show in [false, true] {
                let world = Moving::new().await;
                let act = world.moved_world().await;
                let seen = AtomicUsize::new(0);
                let (repo, acted) =
                    world.when(move |op| reads_pack(op) && seen.fetch_add(1, Ordering::SeqCst) == nth, act);
                let repo = if cold { repo.with_cold_from(0) } else { repo };
                match show {
                    true => world.shows(&repo).await,
                    false => world.restores(&repo, "target").await,
                }
                assert_eq!(acted.load(Ordering::SeqCst), 1, "nothing moved");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_compacted_while_somebody_loads_it_is_loaded_again() {
    for cold in [false, true] {
        for nth in 0..3 {
            let world = Moving::new().await;
            if cold {
                remove_index(&world.repo).await;
                grow(&world.repo, ChunkKind::Data, 2, 40_000).await;
                grow(&world.repo, ChunkKind::Tree, 2, 40_000).await;
            }
            let loaded = world.repo.load_index().await.unwrap();
            let replace: Vec<_> = loaded.objects.iter().map(|o| (o.author, o.object)).collect();
            let plan = crate::repo::CompactPlan { replace, drop: Default::default() };
            world.repo.compact_index(&loaded.view, &plan).await.unwrap();
            let new: Vec<_> = world.repo.store().list("index/").await.unwrap();
            let old: Vec<_> = loaded.objects.iter().map(|o| o.name().key()).collect();
            let mut hidden = Vec::new();
            for object in new.iter().filter(|object| !old.contains(&object.key.to_string())) {
                hidden.push((
                    object.key.to_string(),
                    world.repo.store().get(&object.key, 1 << 30).await.unwrap(),
                ));
                world.repo.store().delete(&object.key).await.unwrap();
            }
            let objects = Arc::clone(&world.objects);
            let act = move || {
                for (key, bytes) in &hidden {
                    objects.put(&key.as_str().into(), bytes.clone().into()).now_or_never().unwrap().unwrap();
                }
                for key in &old {
                    objects.delete(&key.as_str().into()).now_or_never().unwrap().unwrap();
                }
            };
            let seen = AtomicUsize::new(0);
            let (repo, acted) =
                world.when(move |op| reads_index(op) && seen.fetch_add(1, Ordering::SeqCst) == nth, act);
            let repo = if cold { repo.with_cold_from(0) } else { repo };
            world.restores(&repo, "target").await;
            world.shows(&repo).await;
            assert_eq!(acted.load(Ordering::SeqCst), 1, "nothing was deleted");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_is_lost_after_one_more_listing() {
    for cold in [false, true] {
        let world = Moving::new().await;
        if cold {
            remove_index(&world.repo).await;
            grow(&world.repo, ChunkKind::Data, 2, 40_000).await;
            grow(&world.repo, ChunkKind::Tree, 2, 40_000).await;
        }
        let real: Vec<_> = world.repo.list_packs().await.unwrap().into_iter().collect();
        let mut removed = 0;
        for pack in real {
            let key = crate::store::Key::new(ObjectName::Pack(pack).key()).unwrap();
            if world.repo.store().get_range(&key, 0..32).await.unwrap()[11] == ChunkKind::Data as u8 {
                remove(&world.objects, pack).await;
                removed += 1;
            }
        }
        assert!(removed > 0);
        let counting = FaultStore::recording(Arc::<InMemory>::clone(&world.objects) as Arc<dyn ObjectStore>);
        let repo = world.repo.with_store(store_over(Arc::new(counting.clone())));
        let repo = if cold { repo.with_cold_from(0) } else { repo };
        let all = options(world.snapshot.clone(), &world.place.path().join("target"));
        let done = restore(&repo, all).await.unwrap();
        assert_eq!(done.damaged_count, 12);
        let lists =
            counting.take_record().into_iter().filter(|op| op.kind == OpKind::List && op.key == "index");
        assert!(lists.count() <= 4, "not once for each chunk");
        let path = world.source.join("1-1");
        let shown = cat(&repo, &world.snapshot, path.as_os_str().as_encoded_bytes(), std::io::sink()).await;
        assert!(matches!(shown, Err(Error::ChunkLost { .. })), "{shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_and_damaged_index_objects_mislead_no_cold_reader() {
    let world = Moving::new().await;
    remove_index(&world.repo).await;
    grow(&world.repo, ChunkKind::Data, 1, 40_000).await;
    grow(&world.repo, ChunkKind::Tree, 1, 40_000).await;
    let good = world.repo.list_index().await.unwrap();
    // A copy whose signature is broken, under the name that its bytes have.
    for object in &good {
        let key = crate::store::Key::new(object.name().key()).unwrap();
        let bytes = world.repo.store().get(&key, 1 << 30).await.unwrap();
        let read = crate::repo::open_index_object(&world.repo, key.as_str(), &bytes).unwrap();
        assert!(!read.records.is_empty());
        for place in [40, 2000, bytes.len() / 2] {
            let mut bytes = bytes.to_vec();
            bytes[place] ^= 1;
            let hash = crate::crypto::object_hash(&bytes);
            let name = ObjectName::Index(object.author, hash).key();
            world.objects.put(&name.into(), bytes.into()).await.unwrap();
        }
    }
    world.restores(&world.repo.with_cold_from(0), "with garbage beside").await;
    // Without a good signature anywhere nothing is believed.
    for object in world.repo.list_index().await.unwrap() {
        let key = object.name().key();
        let bytes = world.objects.get(&key.as_str().into()).await.unwrap().bytes().await.unwrap();
        let mut bytes = bytes.to_vec();
        world.objects.delete(&key.as_str().into()).await.unwrap();
        if !good.contains(&object) {
            continue;
        }
        let end = crate::repo::signature_at(&world.repo, &key, &bytes).unwrap();
        bytes[end] ^= 1;
        let name = ObjectName::Index(object.author, crate::crypto::object_hash(&bytes)).key();
        world.objects.put(&name.into(), bytes.into()).await.unwrap();
    }
    let repo = world.repo.with_cold_from(0);
    let all = options(world.snapshot.clone(), &world.place.path().join("none"));
    let outcome = restore(&repo, all).await;
    let lost = matches!(outcome, Err(Error::ChunkLost { .. }))
        || outcome.as_ref().is_ok_and(|done| done.files == 0 && done.damaged_count > 0);
    assert!(lost, "{outcome:?}");
}
