//! Index objects and lists that are signed and say what is not so, and stores that refuse.

use super::*;
use crate::format::content::{ChunkRow, Content, ListPage, ListRef};
use crate::format::envelope::ChunkKind;
use crate::format::index::{PackRow, Record};
use crate::id::{SnapshotId, WriterId};
use crate::ops::tree::testing::Forge;
use crate::repo::Listed;
use crate::store::fault::Failure;

fn first_data_record(tables: &IndexTables) -> usize {
    let is_data = |row: &[u8; 28]| tables.packs[Record::decode(row).pack as usize].kind == ChunkKind::Data;
    tables.records.iter().position(is_data).unwrap()
}

fn swap_segments(tables: &mut IndexTables) {
    let pack = *tables.packs.iter().find(|pack| pack.segments > 1).unwrap();
    let first = pack.first_segment as usize;
    let (a, b) = (tables.segments[first].offset, tables.segments[first + 1].offset);
    (tables.segments[first].offset, tables.segments[first + 1].offset) = (b, a);
    tables.segments[first].stored_len = 17;
    tables.segments[first + 1].stored_len = 17;
}

#[tokio::test]
async fn index_objects_that_contradict_each_other_about_a_pack_are_found() {
    type Wrong<'a> = &'a dyn Fn(&mut IndexTables);
    let wrong: [Wrong<'_>; 6] = [
        // A chunk that is not there in place of one that is, of equal length.
        &|tables| {
            let row = first_data_record(tables);
            let mut record = Record::decode(&tables.records[row]);
            record.prefix[0] ^= 0x55;
            tables.records[row] = record.encode();
        },
        &|tables| {
            let row = first_data_record(tables);
            let mut record = Record::decode(&tables.records[row]);
            record.len -= 1;
            tables.records[row] = record.encode();
        },
        &|tables| {
            let row = tables.records.iter().position(|row| Record::decode(row).offset > 0).unwrap();
            let mut record = Record::decode(&tables.records[row]);
            record.offset -= 1;
            tables.records[row] = record.encode();
        },
        &swap_segments,
        &|tables| tables.segments[0].n2[3] ^= 1,
        &|tables| tables.data_keys[0][30] ^= 1,
    ];
    for (number, wrong) in wrong.into_iter().enumerate() {
        for depth in [Depth::Structure, Depth::Data] {
            let world = world().await;
            contradict(&world, wrong).await;
            let report = verify(&world.repo, depth).await.unwrap();
            let differs = |f: &&Finding| matches!(f.problem, Problem::IndexDiffers { .. });
            assert!(
                report.findings.iter().any(|f| differs(&f) && f.severity == Severity::Damage),
                "{number} {depth:?}: {:?}",
                lines(&report)
            );
        }
    }
}

#[tokio::test]
async fn an_index_object_that_says_the_same_again_is_no_damage() {
    let world = world().await;
    contradict(&world, |_| {}).await;
    // What fades, and in which order keys stand, is each object's own business.
    contradict(&world, |tables| tables.segments.iter_mut().for_each(|segment| segment.flags = 1)).await;
    for depth in [Depth::Structure, Depth::Data] {
        assert_eq!(lines(&verify(&world.repo, depth).await.unwrap()), [""; 0]);
    }
}

/// Makes an object too large for memory, as tests see it: a pack that is not there, with many chunks.
fn grow(tables: &mut IndexTables) {
    let (segment, first) = (tables.segments[0], tables.segments.len() as u32);
    let number = tables.packs.len() as u32;
    let id = PackId::new([0xff; 32]);
    tables.packs.push(PackRow { id, segments: 1, first_segment: first, ..tables.packs[0] });
    tables.segments.push(segment);
    tables.records.extend((0..4000_u32).map(|n| {
        let mut prefix = [0xee; 16];
        prefix[..4].copy_from_slice(&n.to_be_bytes());
        Record { prefix, pack: number, segment: 0, offset: 0, len: 1 }.encode()
    }));
}

#[tokio::test]
async fn large_index_objects_are_compared_in_a_file() {
    for lies in [false, true] {
        let world = world().await;
        let large = contradict(&world, |tables| {
            grow(tables);
            if lies {
                let row = first_data_record(tables);
                let mut record = Record::decode(&tables.records[row]);
                record.prefix[0] ^= 0x55;
                tables.records[row] = record.encode();
            }
        })
        .await;
        let asked = Arc::new(FaultStore::recording(world.objects.clone()));
        let cache = tempfile::tempdir().unwrap();
        let mut env = world.repo.env().clone();
        env.places.cache = Some(cache.path().to_owned());
        let repo = world.repo.with_env(env).with_store(store_over(Arc::<FaultStore>::clone(&asked)));
        let report = verify(&repo, Depth::Data).await.unwrap();
        let pieces = asked.record().into_iter().filter(|op| op.key == large.as_str());
        assert!(pieces.clone().count() > 5 && pieces.clone().all(|op| op.kind == OpKind::GetRange));
        assert_eq!(report.has_damage(), lies, "{:?}", lines(&report));
        let missing = report.findings.iter().filter(|f| matches!(f.problem, Problem::Missing));
        assert_eq!(missing.count(), 1, "{:?}", lines(&report));
    }
}

#[tokio::test]
async fn a_store_that_refuses_to_be_read_is_an_error_and_not_damage() {
    let world = world().await;
    for prefix in ["", "packs/", "index/", "snapshots/", "writers/"] {
        let faults = FaultStore::new(world.objects.clone(), move |op| match op.kind {
            OpKind::Get | OpKind::GetRange if op.key.starts_with(prefix) => Fault::Before(Failure::Denied),
            _ => Fault::None,
        });
        let store = store_over(Arc::new(faults));
        let repo = world.repo.with_store(store.clone());
        let error = verify(&repo, Depth::Data).await.unwrap_err();
        assert_eq!(error.class(), crate::class::Class::Denied, "{prefix}");
        let error = verify_packs_without_key(store, repo.env()).await.unwrap_err();
        assert_eq!(error.class(), crate::class::Class::Denied, "{prefix}");
    }
}

/// The world behind a store that refuses to give these objects.
fn refusing(world: &World, keys: &[&Key]) -> (Repository, Store) {
    let keys: Vec<String> = keys.iter().map(|key| key.as_str().to_owned()).collect();
    let faults = FaultStore::new(world.objects.clone(), move |op| match op.kind {
        OpKind::Get | OpKind::GetRange if keys.contains(&op.key) => Fault::Before(Failure::Denied),
        _ => Fault::None,
    });
    let store = store_over(Arc::new(faults));
    (world.repo.with_store(store.clone()), store)
}

#[tokio::test]
async fn one_object_that_is_refused_hides_no_damage() {
    let world = world().await;
    let data = world.packs(ChunkKind::Data).await.remove(0);
    let tree = world.packs(ChunkKind::Tree).await.remove(0);
    let index = world.keys(layout::INDEX).await.remove(0);
    let snapshot = world.keys(layout::SNAPSHOTS).await.remove(0);
    world.flip(&data, |_| 100).await;
    for refused in [&tree, &index, &snapshot] {
        let (repo, store) = refusing(&world, &[refused]);
        for depth in [Depth::Packs, Depth::Data] {
            let report = verify(&repo, depth).await.unwrap();
            assert!(report.has_damage());
            for key in [refused, &data] {
                let found = of(&report, key);
                assert!(found.iter().any(|f| f.severity == Severity::Damage), "{key} {:?}", lines(&report));
            }
        }
        let report = verify_packs_without_key(store, repo.env()).await.unwrap();
        let damaged = report.findings.iter().map(|finding| finding.key.as_str());
        let damaged: std::collections::BTreeSet<_> = damaged.collect();
        assert_eq!(damaged, [refused.as_str(), data.as_str()].into());
    }
}

#[tokio::test]
async fn pages_that_are_refused_are_damage_only_if_others_are_read() {
    let world = world().await;
    let trees = world.packs(ChunkKind::Tree).await;
    assert!(trees.len() > 1);
    let (repo, _) = refusing(&world, &trees.iter().collect::<Vec<_>>());
    let error = verify(&repo, Depth::Structure).await.unwrap_err();
    assert_eq!(error.class(), crate::class::Class::Denied);
    let (repo, _) = refusing(&world, &[&trees[0]]);
    let report = verify(&repo, Depth::Structure).await.unwrap();
    let found = of(&report, &trees[0]);
    assert!(found.iter().any(|f| f.severity == Severity::Damage && f.affected_count > 0));
}

#[tokio::test]
async fn a_wrong_promise_about_a_list_that_another_file_shares_is_found() {
    let repo = new_repository(Arc::new(InMemory::new()), env()).await;
    let mut forge = Forge::new(&repo);
    let parts: Vec<Vec<u8>> = (0..3_u8).map(|n| vec![n; 100]).collect();
    let rows: Vec<ChunkRow> = parts.iter().map(|part| forge.row(part)).collect();
    let page = ListPage::Rows(rows).encode();
    let id = forge.chunk(ChunkKind::Tree, &page);
    let list = ListRef { level: 0, id, len: page.len() as u32, rows: 3 };
    let mut good = forge.file("a", &[]);
    (good.size, good.content) = (300, Content::Paged(list));
    for wrong in 0..3 {
        let mut forge = Forge::new(&repo);
        for part in &parts {
            forge.row(part);
        }
        forge.chunk(ChunkKind::Tree, &page);
        let mut other = good.clone();
        other.name = b"b".to_vec();
        match wrong {
            0 => {}
            1 => other.size = 301,
            _ => other.content = Content::Paged(ListRef { rows: 4, ..list }),
        }
        let root = forge.page(&[good.clone(), other]);
        forge.store(root, 1).await;
        let mut survey = survey(&repo, false).await.unwrap();
        let listed = Listed {
            writer: WriterId::new([1; 16]),
            sequence: 1,
            id: SnapshotId::new([2; 32]),
            confirmed: true,
            stored: crate::clock::Timestamp(0),
        };
        survey.snapshots = vec![survey::Root { listed, tree: Some(root) }];
        let mut walked = walk(&repo, &survey, &HashMap::new()).await.unwrap();
        let found = walked.findings();
        assert_eq!(found.len(), usize::from(wrong > 0), "{wrong}: {found:?}");
        assert!(found.iter().all(|finding| finding.affected.iter().all(|hit| hit.path == b"/b")));
    }
}
