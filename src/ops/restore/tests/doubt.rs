//! Index objects that contradict each other, are spoilt on their way, or are listed and not there.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use object_store::{ObjectStore, ObjectStoreExt};

use super::cold::{add_fakes, grow, remove_index};
use super::*;
use crate::event::{Counters, Observer};
use crate::format::envelope::ChunkKind;
use crate::format::index::{IndexBuilder, IndexTables, NewChunk, NewPack, Record};
use crate::format::layout::ObjectName;
use crate::format::segment::SegmentEntry;
use crate::id::{ChunkId, PackId};
use crate::store::fault::{Failure, Fault, Op};

/// Keeps the warnings.
#[derive(Default)]
struct Heard(Counters, Mutex<Vec<String>>);

impl Observer for Heard {
    fn observe(&self, event: &Event<'_>) {
        if let Event::Warning { message } = event {
            self.1.lock().unwrap().push((*message).to_owned());
        }
    }

    fn counters(&self) -> &Counters {
        &self.0
    }
}

impl Heard {
    /// How many warnings speak of this.
    fn of(&self, what: &str) -> usize {
        self.1.lock().unwrap().iter().filter(|warning| warning.contains(what)).count()
    }
}

fn listening(repo: &Repository) -> (Repository, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    let mut env = repo.env().clone();
    env.observer = Arc::<Heard>::clone(&heard);
    (repo.with_env(env), heard)
}

async fn put_index(repo: &Repository, tables: &IndexTables) -> ObjectName {
    let (writer, signing) = repo.writer().unwrap();
    ObjectName::Index(writer, repo.put_index(tables, &signing).await.unwrap())
}

/// Puts another object that says what `edit` makes of the only one there is, under a name that is looked at before it.
async fn contradict(repo: &Repository, edit: impl FnOnce(&mut IndexTables)) {
    let [honest] = repo.list_index().await.unwrap()[..] else { panic!("not one index object") };
    let mut tables = repo.fetch_index(honest.name()).await.unwrap();
    edit(&mut tables);
    tables.records.sort_unstable();
    tables.check().unwrap();
    loop {
        let name = put_index(repo, &tables).await;
        if name.key() < honest.name().key() {
            return;
        }
        let key = crate::store::Key::new(name.key()).unwrap();
        repo.store().delete(&key).await.unwrap();
    }
}

async fn ten_stored(repo: &Repository) -> SnapshotInfo {
    let mut forge = Forge::new(repo);
    let mut files = ten_files(&mut forge);
    let last = files.pop().unwrap();
    let dir = forge.dir("d", &[last]);
    files.push(dir);
    let root = forge.page(&files);
    forge.a_segment = 1;
    forge.store(root, 1).await
}

/// Restores and shows all.
async fn comes_back(repo: &Repository, snapshot: &SnapshotInfo) {
    for cold in [false, true] {
        let repo = if cold { repo.with_cold_from(0) } else { repo.clone() };
        let target = tempfile::tempdir().unwrap();
        let done = restore(&repo, options(snapshot.clone(), target.path())).await.unwrap();
        assert_eq!((done.damaged_count, done.failed, done.files), (0, 0, 10), "cold: {cold}");
        for (path, n) in [("4", 4), ("d/9", 9)] {
            let whole = [noise(3000, n), noise(2000, 100 + n)].concat();
            assert!(fs::read(target.path().join(path)).unwrap() == whole);
            let mut out = Vec::new();
            cat(&repo, snapshot, path.as_bytes(), &mut out).await.unwrap();
            assert!(out == whole);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_object_with_wrong_segment_rows_hides_no_good_copy() {
    type Wrong<'a> = &'a dyn Fn(&mut [SegmentEntry]);
    let wrong: [Wrong<'_>; 4] = [
        &|segments| segments.swap(0, 1),
        &|segments| segments.reverse(),
        &|segments| segments.iter_mut().for_each(|segment| segment.n1[0] ^= 1),
        &|segments| segments.iter_mut().for_each(|segment| segment.stored_len -= 1),
    ];
    for wrong in wrong {
        let (_, repo) = repository().await;
        let snapshot = ten_stored(&repo).await;
        contradict(&repo, |tables| {
            for pack in tables.packs.clone() {
                let first = pack.first_segment as usize;
                let segments = &mut tables.segments[first..first + usize::from(pack.segments)];
                let lens: Vec<_> = segments.iter().map(|segment| segment.plain_len).collect();
                wrong(segments);
                // Records must still lie inside.
                segments.iter_mut().zip(lens).for_each(|(segment, len)| segment.plain_len = len);
            }
        })
        .await;
        comes_back(&repo, &snapshot).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_object_with_wrong_places_in_segments_hides_no_good_copy() {
    let (_, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    let files = ten_files(&mut forge);
    let root = forge.page(&files);
    let snapshot = forge.store(root, 1).await;
    contradict(&repo, |tables| {
        for row in &mut tables.records {
            let mut record = Record::decode(row);
            record.offset = record.offset.saturating_sub(1);
            *row = record.encode();
        }
    })
    .await;
    let target = tempfile::tempdir().unwrap();
    let done = restore(&repo, options(snapshot, target.path())).await.unwrap();
    assert_eq!((done.damaged_count, done.failed, done.files), (0, 0, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_key_that_cannot_be_used_costs_only_its_copies() {
    // In the commitment, and in what is sealed.
    for place in [20, 200] {
        let (_, repo) = repository().await;
        let snapshot = ten_stored(&repo).await;
        contradict(&repo, |tables| tables.data_keys.iter_mut().for_each(|key| key[place] ^= 1)).await;
        comes_back(&repo, &snapshot).await;
    }
}

/// One file of one chunk, beside an index that is not fetched as a whole and that `add` adds to.
async fn one_file(
    add: impl FnOnce(&mut IndexBuilder, &Repository, ChunkId),
) -> (Arc<InMemory>, Repository, SnapshotInfo) {
    let (objects, repo) = repository().await;
    let mut forge = Forge::new(&repo);
    let file = forge.file("f", &[b"content"]);
    let Content::Inline(rows) = &file.content else { panic!() };
    let id = rows[0].id;
    let root = forge.page(&[file]);
    let snapshot = forge.store(root, 1).await;
    let [object] = repo.list_index().await.unwrap()[..] else { panic!() };
    remove_index(&repo).await;
    grow(&repo, ChunkKind::Tree, 1, 40_000).await;
    let (writer, _) = repo.writer().unwrap();
    let mut builder = IndexBuilder::new(writer, 0, Vec::new());
    add(&mut builder, &repo, id);
    for pack in repo.list_packs().await.unwrap() {
        let key = crate::store::Key::new(ObjectName::Pack(pack).key()).unwrap();
        let bytes = repo.store().get(&key, 1 << 26).await.unwrap();
        if bytes[11] == ChunkKind::Data as u8 {
            let size = bytes.len() as u64;
            let (footer, directory) = repo.read_directory(pack, size).await.unwrap();
            let place = (pack, ChunkKind::Data, size);
            Repository::index_pack(&mut builder, place, &footer, &directory).unwrap();
        }
    }
    add_fakes(&mut builder, &repo, 40_000, (ChunkKind::Data, 7));
    put_index(&repo, &builder.finish()).await;
    assert!(repo.list_index().await.unwrap().iter().all(|found| found.size > object.size));
    (objects, repo, snapshot)
}

async fn one_comes_back(repo: &Repository, snapshot: &SnapshotInfo) {
    let target = tempfile::tempdir().unwrap();
    let done = restore(repo, options(snapshot.clone(), target.path())).await.unwrap();
    assert_eq!((done.damaged_count, done.failed, done.files), (0, 0, 1));
    assert_eq!(fs::read(target.path().join("f")).unwrap(), b"content");
    let mut out = Vec::new();
    cat(repo, snapshot, b"f", &mut out).await.unwrap();
    assert_eq!(out, b"content");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_packs_that_are_gone_hide_no_copy_from_a_cold_reader() {
    let (_, repo, snapshot) = one_file(|builder, repo, id| {
        let keys = repo.new_run_keys().unwrap();
        for number in 0..30_u8 {
            let key = builder.data_key(keys.sealed(ChunkKind::Data)).unwrap();
            let origin = builder.origin(repo.writer().unwrap().0).unwrap();
            let mut name = [0; 32];
            name[31] = number;
            let new = NewPack {
                id: PackId::new(name),
                size: 5000,
                directory_offset: 2000,
                directory_len: 1000,
                kind: ChunkKind::Data,
            };
            let segment = SegmentEntry {
                offset: 32,
                stored_len: 1000,
                plain_len: 1000,
                codec: crate::format::segment::Codec::Raw,
                flags: 0,
                data_key: key,
                origin,
                n1: [1; 12],
                n2: [2; 12],
            };
            let chunk = NewChunk { id, segment: 0, offset: 0, len: 7 };
            builder.add_pack(new, &[segment], &[chunk]).unwrap();
        }
    })
    .await;
    one_comes_back(&repo.with_cold_from(0), &snapshot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_object_that_is_listed_and_not_there_is_left_out_with_a_warning() {
    let (objects, repo, snapshot) = one_file(|_, _, _| {}).await;
    let (writer, _) = repo.writer().unwrap();
    let ghost = ObjectName::Index(writer, crate::id::ObjectHash::new([0; 32])).key();
    objects.put(&ghost.as_str().into(), vec![0; 2 << 20].into()).await.unwrap();
    for cold in [false, true] {
        let (seen, named) = (Arc::new(AtomicUsize::new(0)), ghost.clone());
        let count = Arc::clone(&seen);
        let faults = FaultStore::new(Arc::<InMemory>::clone(&objects) as Arc<dyn ObjectStore>, move |op| {
            if op.key == named && matches!(op.kind, OpKind::Get | OpKind::GetRange) {
                count.fetch_add(1, Ordering::SeqCst);
                return Fault::Before(Failure::NotFound);
            }
            Fault::None
        });
        let (repo, heard) = listening(&repo.with_store(store_over(Arc::new(faults))));
        let repo = if cold { repo.with_cold_from(0) } else { repo };
        one_comes_back(&repo, &snapshot).await;
        assert!(seen.load(Ordering::SeqCst) > 0);
        // A restore and a `cat`.
        assert_eq!(heard.of(&ghost), 2, "cold: {cold}: {:?}", heard.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_object_that_is_spoilt_on_its_way_is_read_again() {
    let (objects, repo, snapshot) = one_file(|_, _, _| {}).await;
    for cold in [false, true] {
        for place in [40, 700, 5000] {
            let cache = tempfile::tempdir().unwrap();
            let (spoilt, count) = (Mutex::new(HashSet::new()), Arc::new(AtomicUsize::new(0)));
            let counted = Arc::clone(&count);
            let faults =
                FaultStore::new(Arc::<InMemory>::clone(&objects) as Arc<dyn ObjectStore>, move |op: &Op| {
                    let reads = matches!(op.kind, OpKind::Get | OpKind::GetRange);
                    let what = (op.key.clone(), cold.then_some(op.bytes));
                    if reads && op.key.starts_with("index/") && spoilt.lock().unwrap().insert(what) {
                        counted.fetch_add(1, Ordering::SeqCst);
                        return Fault::Corrupt(place);
                    }
                    Fault::None
                });
            let mut env = repo.env().clone();
            // With a cache large objects are fetched piece by piece.
            env.places.cache = (!cold).then(|| cache.path().to_owned());
            let repo = repo.with_env(env).with_store(store_over(Arc::new(faults)));
            let repo = if cold { repo.with_cold_from(0) } else { repo };
            one_comes_back(&repo, &snapshot).await;
            assert!(count.load(Ordering::SeqCst) >= 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_object_that_is_skipped_is_named() {
    let (objects, repo, snapshot) = one_file(|_, _, _| {}).await;
    let (writer, _) = repo.writer().unwrap();
    let mut bad = Vec::new();
    for size in [3000, 100_000, 2 << 20] {
        let hash = crate::id::ObjectHash::new(*blake3::hash(&[size as u8]).as_bytes());
        let name = ObjectName::Index(writer, hash).key();
        objects.put(&name.as_str().into(), noise(size, 1).into()).await.unwrap();
        bad.push(name);
    }
    for cold in [false, true] {
        let cache = tempfile::tempdir().unwrap();
        let (repo, heard) = listening(&repo);
        let mut env = repo.env().clone();
        env.places.cache = Some(cache.path().to_owned());
        let repo = repo.with_env(env);
        let repo = if cold { repo.with_cold_from(0) } else { repo };
        one_comes_back(&repo, &snapshot).await;
        for name in &bad {
            assert_eq!(heard.of(name), 2, "cold: {cold}: {:?}", heard.1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_restore_from_damage_ends() {
    let (objects, repo) = repository().await;
    // Three chunks in one segment, so that they are lost together.
    let mut forge = Forge::new(&repo);
    let nodes = ["a", "b", "c"].map(|name| forge.file(name, &[name.as_bytes()]));
    let ids = nodes.clone().map(|node| match node.content {
        Content::Inline(rows) => rows[0].id,
        Content::Paged(_) => panic!(),
    });
    let root = forge.page(&nodes);
    let snapshot = forge.store(root, 1).await;
    let copy = copies(&repo, &ids[0]).await.remove(0);
    flip(&objects, copy.pack_id, copy.segment.offset).await;
    // And each in a pack that has more records than are kept, so that whoever finds it forgets the others.
    for (number, id) in ids.into_iter().enumerate() {
        let mut forge = Forge::new(&repo);
        forge.a_segment = 700;
        forge.lie(ChunkKind::Data, id, b"of another length");
        for filler in 0..4200 {
            forge.chunk(ChunkKind::Data, &noise(16, (number as u64 + 1) << 32 | filler));
        }
        let root = forge.page(&[]);
        forge.store(root, 1).await;
    }
    remove_index(&repo).await;
    grow(&repo, ChunkKind::Data, 1, 40_000).await;
    grow(&repo, ChunkKind::Tree, 1, 40_000).await;
    let faults = FaultStore::new(Arc::<InMemory>::clone(&objects) as Arc<dyn ObjectStore>, |op| {
        match op.number > 600 {
            true => Fault::Before(Failure::Unreachable),
            false => Fault::None,
        }
    });
    let repo = repo.with_store(store_over(Arc::new(faults))).with_cold_from(0);
    let target = tempfile::tempdir().unwrap();
    let done = restore(&repo, options(snapshot, target.path())).await.unwrap();
    assert_eq!((done.damaged_count, done.files), (3, 0));
}
