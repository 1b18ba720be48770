use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::format::index::{BlockKind, IndexTables, Record, decode_packs, decode_records, decode_segments};
use crate::id::WriterId;
use crate::index::Cache;
use crate::index::testing::{Object, damage_level, object_strategy, pack_id};

/// The tables of all new objects, put together from their blocks.
fn written(compaction: &Compaction<'_>) -> Vec<IndexTables> {
    let mut all = Vec::new();
    let mut number = 0;
    while let Some(tables) = compaction.tables(number) {
        all.push(IndexTables {
            author: WriterId::new([9; 16]),
            h0: 0,
            supersedes: Vec::new(),
            data_keys: tables.data_keys.clone(),
            origins: tables.origins.clone(),
            packs: Vec::new(),
            segments: Vec::new(),
            records: Vec::new(),
        });
        number += 1;
    }
    assert_eq!(number, compaction.len());
    for begin in (0..number).step_by(3) {
        let sink = |number: usize, block: PlainBlock| {
            let tables = &mut all[number];
            assert_eq!(block.bytes.len(), block.rows as usize * block.kind.row_len());
            match block.kind {
                BlockKind::Packs { first } => {
                    assert_eq!(first as usize, tables.packs.len());
                    tables.packs.extend(decode_packs(&block.bytes).unwrap());
                }
                BlockKind::Segments { first } => {
                    assert_eq!(first as usize, tables.segments.len());
                    tables.segments.extend(decode_segments(&block.bytes).unwrap());
                }
                BlockKind::Records { first } => {
                    let rows = decode_records(&block.bytes).unwrap();
                    assert_eq!(rows[0][..16], first);
                    tables.records.extend_from_slice(rows);
                }
            }
            Ok::<_, IndexError>(())
        };
        compaction.write(begin..(begin + 3).min(number), sink).unwrap();
    }
    for (number, tables) in all.iter().enumerate() {
        tables.check().unwrap();
        let told = compaction.tables(number).unwrap();
        assert_eq!(
            (told.packs() as usize, told.segments as usize),
            (tables.packs.len(), tables.segments.len())
        );
        assert_eq!(told.records, tables.records.len() as u64);
    }
    all
}

/// Everything that tables say, without numbers; and the packs apart, since one may have no records.
fn said<'a>(
    all: impl IntoIterator<Item = &'a IndexTables>,
    drop: &HashSet<PackId>,
) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut records, mut packs) = (BTreeSet::new(), BTreeSet::new());
    for tables in all {
        let mut names = Vec::new();
        for pack in &tables.packs {
            let segments = tables.segments_of(pack).iter().map(|segment| {
                let (key, origin) = (usize::from(segment.data_key), usize::from(segment.origin));
                let plain = SegmentEntry { data_key: 0, origin: 0, ..*segment };
                (plain, &tables.data_keys[key], tables.origins[origin])
            });
            let row = PackRow { first_segment: 0, ..*pack };
            let name = format!("{row:?} {:?}", segments.collect::<Vec<_>>());
            if !drop.contains(&pack.id) {
                packs.insert(name.clone());
            }
            names.push(name);
        }
        for row in &tables.records {
            let record = Record::decode(row);
            if !drop.contains(&tables.packs[record.pack as usize].id) {
                let name = &names[record.pack as usize];
                records.insert(format!("{:?} {name}", Record { pack: 0, ..record }));
            }
        }
    }
    (records, packs)
}

fn check(objects: &[Object], replaced: &[bool], drop: &HashSet<PackId>, most: u64) {
    let temp = tempfile::tempdir().unwrap();
    let mut cache = Cache::open(Some(temp.path()));
    for (number, object) in objects.iter().enumerate() {
        cache.add(object.hash, object.tables.clone()).unwrap();
        if number % 3 == 2 {
            cache.view(&objects.iter().map(|object| object.hash).collect::<Vec<_>>()).unwrap();
        }
    }
    let view = cache.view(&objects.iter().map(|object| object.hash).collect::<Vec<_>>()).unwrap();
    let chosen = || objects.iter().zip(replaced).filter(|(_, replaced)| **replaced).map(|(object, _)| object);
    let replace = chosen().map(|object| object.hash).collect();
    let compaction = view.compaction(&replace, drop, most).unwrap();
    let new = written(&compaction);
    assert_eq!(said(&new, &HashSet::new()), said(chosen().map(|object| &object.tables), drop));
    // What is said once is written once.
    let rows: usize = new.iter().map(|tables| tables.records.len()).sum();
    assert_eq!(rows, said(&new, &HashSet::new()).0.len());
    let packs: usize = new.iter().map(|tables| tables.packs.len()).sum();
    assert_eq!(packs, said(&new, &HashSet::new()).1.len());
    for tables in &new {
        assert!(tables.packs.windows(2).all(|pair| pair[0].kind == pair[1].kind));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn new_objects_say_what_the_old_ones_said(
        mut objects in proptest::collection::vec(object_strategy(), 1..12),
        again in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        replaced in proptest::collection::vec(prop::bool::weighted(0.7), 16),
        dropped in proptest::collection::vec(0_u8..16, 0..6),
        most in prop_oneof![Just(1_u64), 500..2000_u64, Just(u64::MAX)],
    ) {
        // Some say again what others said, and somewhat more.
        for (number, index) in again.iter().enumerate() {
            let mut object = index.get(&objects).clone();
            object.hash = ObjectHash::new([number as u8; 32]);
            objects.push(object);
        }
        objects.sort_by_key(|object| object.hash);
        objects.dedup_by_key(|object| object.hash);
        let drop: HashSet<_> = dropped.into_iter().map(pack_id).collect();
        check(&objects, &replaced, &drop, most);
    }
}

#[test]
fn records_that_only_a_copy_of_a_row_has_are_kept() {
    let mut objects: Vec<_> = (0..2).map(|_| Object::numbered(3)).collect();
    objects[1].hash = ObjectHash::new([1; 32]);
    let half = objects[0].tables.records.len() / 2;
    objects[0].tables.records.truncate(half + 1);
    objects[1].tables.records.drain(..half);
    check(&objects, &[true, true], &HashSet::new(), u64::MAX);
    check(&objects, &[true, true], &HashSet::new(), 1);
}

#[test]
fn an_object_that_the_view_lacks_cannot_be_replaced_and_all_packs_may_be_dropped() {
    let object = Object::numbered(1);
    let mut cache = Cache::open(None);
    cache.add(object.hash, object.tables.clone()).unwrap();
    let view = cache.view(&[object.hash]).unwrap();
    let other = ObjectHash::new([5; 32]);
    let error = view.compaction(&HashSet::from([object.hash, other]), &HashSet::new(), 1).unwrap_err();
    assert_eq!(error, IndexError::NotHeld { object: other });
    let drop: HashSet<_> = (0..16).map(pack_id).collect();
    assert!(view.compaction(&HashSet::from([object.hash]), &drop, 1).unwrap().is_empty());
    assert!(view.compaction(&HashSet::new(), &HashSet::new(), 1).unwrap().is_empty());
}

#[test]
fn keys_that_do_not_fit_one_object_go_into_several() {
    // Each numbered object brings two keys of its own: more than 255 of them together.
    let objects: Vec<_> = (0..200).map(Object::numbered).collect();
    check(&objects, &[true; 200], &HashSet::new(), u64::MAX);
}

#[test]
fn a_damaged_cache_is_noticed_and_never_copied() {
    let temp = tempfile::tempdir().unwrap();
    let object = Object::numbered(2);
    let mut cache = Cache::open(Some(temp.path()));
    cache.add(object.hash, object.tables.clone()).unwrap();
    cache.view(&[object.hash]).unwrap();
    drop(cache);
    damage_level(temp.path(), 500, 1);
    let view = Cache::open(Some(temp.path())).view(&[object.hash]).unwrap();
    let error = view.compaction(&HashSet::from([object.hash]), &HashSet::new(), 1).unwrap_err();
    assert!(matches!(error, IndexError::CacheDamaged { .. }), "{error}");
}
