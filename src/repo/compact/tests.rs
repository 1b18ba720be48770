mod keys;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::*;
use crate::format::index::IndexTables;
use crate::index::View;
use crate::ops::testing::{back_up, env, new_repository, noise, store_over};
use crate::repo::Env;
use crate::store::fault::{Failure, Fault, FaultStore, OpKind};

fn stat(author: u8, object: u8, size: u64, dropped: u64) -> IndexStat {
    let (author, object) = (WriterId::new([author; 16]), ObjectHash::new([object; 32]));
    IndexStat { author, object, size, packs: 100, dropped, table: 2 }
}

fn chosen(stats: &[IndexStat]) -> Vec<u8> {
    let plan = CompactPlan::new(stats, HashSet::new(), |author| *author != WriterId::new([9; 16]));
    assert_eq!(plan.is_empty(), plan.replace.is_empty());
    plan.replace.iter().map(|(_, object)| object.as_bytes()[0]).collect()
}

#[test]
fn many_small_objects_or_much_that_is_gone_make_a_plan() {
    let small = |count: u8| (0..count).map(|n| stat(1, n, 1000, 0)).collect::<Vec<_>>();
    assert_eq!(chosen(&small(8)), [0; 0]);
    assert_eq!(chosen(&small(9)), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    let with = |more| [small(8), vec![more]].concat();
    assert_eq!(chosen(&with(stat(1, 50, SMALL, 0))), [0; 0], "no longer small");
    assert_eq!(chosen(&with(stat(9, 50, 1000, 0))), [0; 0], "somebody else's");
    assert_eq!(chosen(&with(stat(1, 50, INDEX_FULL, 20))), [0; 0]);
    assert_eq!(chosen(&with(stat(1, 50, INDEX_FULL, 21))), [50]);
    assert_eq!(chosen(&with(stat(9, 50, INDEX_FULL, 99))), [0; 0]);
    assert_eq!(chosen(&with(stat(1, 50, 1000, 100))).len(), 9);
}

/// A repository in memory with runs that each left an index object.
struct World {
    objects: Arc<InMemory>,
    repo: Repository,
    place: tempfile::TempDir,
}

impl World {
    async fn new(runs: u64) -> Self {
        let place = tempfile::tempdir().unwrap();
        let objects = Arc::new(InMemory::new());
        let mut env: Env = env();
        env.places.state = place.path().join("state");
        let repo = new_repository(Arc::<InMemory>::clone(&objects), env).await;
        let source = place.path().join("source");
        fs::create_dir(&source).unwrap();
        for run in 0..runs {
            for file in 0..20 {
                fs::write(source.join(format!("{run}-{file}")), noise(run * 100 + file, 30_000)).unwrap();
            }
            back_up(&repo, &source).await;
        }
        Self { objects, repo, place }
    }

    async fn view(&self) -> (View, Vec<ListedIndex>) {
        let loaded = self.repo.load_index().await.unwrap();
        assert!(loaded.problems.is_empty());
        (loaded.view, loaded.objects)
    }

    async fn delete(&self, objects: &[(WriterId, ObjectHash)]) {
        for (writer, object) in objects {
            let key = object_key(ObjectName::Index(*writer, *object)).unwrap();
            self.repo.store.delete(&key).await.unwrap();
        }
    }

    async fn tables(&self, object: &ListedIndex) -> IndexTables {
        self.repo.fetch_index(object.name()).await.unwrap()
    }

    /// What all index objects say, by names instead of numbers.
    async fn said(&self) -> Vec<String> {
        let mut said = Vec::new();
        for object in self.repo.list_index().await.unwrap() {
            let tables = self.tables(&object).await;
            for row in &tables.records {
                let record = crate::format::index::Record::decode(row);
                let pack = &tables.packs[record.pack as usize];
                let segment = tables.segments_of(pack)[usize::from(record.segment)];
                let (key, origin) = (usize::from(segment.data_key), usize::from(segment.origin));
                let segment = (segment.offset, segment.n1, &tables.data_keys[key], tables.origins[origin]);
                let place = (pack.id, record.segment, record.offset, record.len);
                said.push(format!("{:?} {place:?} {segment:?}", record.prefix));
            }
        }
        said.sort();
        said.dedup();
        said
    }
}

fn whole_plan(listed: &[ListedIndex]) -> CompactPlan {
    let replace = listed.iter().map(|listed| (listed.author, listed.object)).collect();
    CompactPlan { replace, drop: HashSet::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_runs_become_one_object_a_kind_and_say_the_same() {
    let world = World::new(10).await;
    let before = world.said().await;
    let (view, listed) = world.view().await;
    let plan = world.repo.plan_compaction((&view, &listed), HashSet::new()).unwrap();
    assert_eq!((listed.len(), plan.replace.len()), (10, 10));
    assert_eq!(world.repo.superseded(&view, &listed), []);
    let new = world.repo.compact_index(&view, &plan).await.unwrap();
    assert_eq!(new.len(), 2);

    // Nothing was deleted; the new objects say so, and may.
    let (view, listed) = world.view().await;
    assert_eq!(listed.len(), 12);
    let mut superseded = world.repo.superseded(&view, &listed);
    superseded.sort();
    assert_eq!(superseded, plan.replace);
    world.delete(&superseded).await;
    assert_eq!(world.said().await, before);
    let (view, listed) = world.view().await;
    let mut kinds = Vec::new();
    for object in &listed {
        let tables = world.tables(object).await;
        kinds.push(tables.packs[0].kind);
        assert!(tables.packs.iter().all(|pack| pack.kind == tables.packs[0].kind));
    }
    kinds.sort();
    assert_eq!(kinds, [crate::format::envelope::ChunkKind::Data, crate::format::envelope::ChunkKind::Tree]);
    // A second time there is nothing to do.
    assert!(world.repo.plan_compaction((&view, &listed), HashSet::new()).unwrap().is_empty());
    let scratch = world.place.path().join("state").join(world.repo.id().to_string()).join("compact");
    assert_eq!(files_in(&scratch), 0);
}

fn files_in(place: &Path) -> usize {
    fs::read_dir(place).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_put_fails_the_old_objects_are_superseded_only_by_all_new_ones() {
    let world = World::new(3).await;
    let before = world.said().await;
    let (view, listed) = world.view().await;
    let plan = whole_plan(&listed);
    // Objects of one pack each: several PUTs, of which one fails.
    for puts in 0..20 {
        let inner = Arc::clone(&world.objects) as Arc<dyn ObjectStore>;
        let count = std::sync::atomic::AtomicUsize::new(0);
        let failing = FaultStore::new(inner, move |op| match op.kind {
            OpKind::Put if count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == puts => {
                Fault::Before(Failure::NoSpace)
            }
            _ => Fault::None,
        });
        let repo = world.repo.with_store(store_over(Arc::new(failing)));
        let done = repo.compact_index_to(&view, &plan, 1).await;
        let (view, listed) = world.view().await;
        let superseded = world.repo.superseded(&view, &listed);
        if done.is_ok() {
            assert!(puts >= 2, "there is more than one object");
            assert_eq!(superseded.len(), plan.replace.len());
            world.delete(&superseded).await;
            assert_eq!(world.said().await, before);
            // What failed attempts left behind goes with the next compaction.
            let (view, listed) = world.view().await;
            let plan = whole_plan(&listed);
            assert!(listed.len() > puts);
            assert_eq!(world.repo.compact_index(&view, &plan).await.unwrap().len(), 2);
            world.delete(&plan.replace).await;
            assert_eq!(world.said().await, before);
            return;
        }
        assert_eq!(superseded, [], "an old object still says what no new one does");
    }
    panic!("the compaction never came to its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_packs_to_drop_are_left_out() {
    let world = World::new(2).await;
    let (view, listed) = world.view().await;
    let gone = view.packs().map(Result::unwrap).next().unwrap().1.id;
    let mut plan = whole_plan(&listed);
    plan.drop.insert(gone);
    let before = world.said().await;
    world.repo.compact_index(&view, &plan).await.unwrap();
    world.delete(&plan.replace).await;
    let name = format!("{gone:?}");
    let expected: Vec<_> = before.iter().filter(|line| !line.contains(&name)).cloned().collect();
    assert!(expected.len() < before.len());
    assert_eq!(world.said().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_writer_replaces_and_supersedes_only_its_own() {
    let world = World::new(9).await;
    let (view, mut listed) = world.view().await;
    let (writer, _) = world.repo.writer().unwrap();
    let mut plain = world.repo.clone();
    plain.registry = plain.registry.with_authority(writer, Authority::Writer);
    let own = |repo: &Repository, listed: &[ListedIndex]| {
        repo.plan_compaction((&view, listed), HashSet::new()).unwrap().replace.len()
    };
    assert_eq!((own(&world.repo, &listed), own(&plain, &listed)), (9, 9));
    listed[0].author = WriterId::new([0xaa; 16]);
    assert_eq!((own(&world.repo, &listed), own(&plain, &listed)), (9, 0), "eight of its own are few");

    let (view, listed) = world.view().await;
    world.repo.compact_index(&view, &whole_plan(&listed)).await.unwrap();
    let (view, mut listed) = world.view().await;
    assert_eq!(world.repo.superseded(&view, &listed).len(), 9);
    listed.iter_mut().for_each(|listed| listed.author = WriterId::new([0xaa; 16]));
    assert_eq!(world.repo.superseded(&view, &listed).len(), 9, "a maintainer may");
    assert_eq!(plain.superseded(&view, &listed), [], "a writer may not");
}
