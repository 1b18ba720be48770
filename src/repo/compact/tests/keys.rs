//! Tests: objects whose tables of keys are full.

use super::*;
use crate::format::envelope::ChunkKind;
use crate::format::index::{IndexBuilder, NewPack, TABLE_MAX};
use crate::format::segment::{Codec, SegmentEntry};

/// An index object of this many packs, each with a segment under a key of its own.
fn tables(repo: &Repository, number: u8, keys: usize) -> IndexTables {
    let (writer, _) = repo.writer().unwrap();
    let mut index = IndexBuilder::new(writer, 0, Vec::new());
    for key in 0..keys {
        let name = format!("key {key} of {number}");
        let segment = SegmentEntry {
            offset: 32,
            stored_len: 100,
            plain_len: 200,
            codec: Codec::Zstd,
            flags: 0,
            data_key: index.data_key(name.as_bytes()).unwrap(),
            origin: index.origin(writer).unwrap(),
            n1: [1; 12],
            n2: [2; 12],
        };
        let pack = NewPack {
            id: PackId::new(*blake3::hash(name.as_bytes()).as_bytes()),
            size: 300,
            directory_offset: 132,
            directory_len: 60,
            kind: ChunkKind::Data,
        };
        index.add_pack(pack, &[segment], &[]).unwrap();
    }
    index.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn small_objects_that_cannot_be_fewer_are_left_alone() {
    let world = World::new(0).await;
    let (_, signing) = world.repo.writer().unwrap();
    for number in 0..9 {
        world.repo.put_index(&tables(&world.repo, number, TABLE_MAX), &signing).await.unwrap();
    }
    // Half of them have room for others' keys, and so are merged.
    for number in 9..21 {
        world.repo.put_index(&tables(&world.repo, number, TABLE_MAX / 3), &signing).await.unwrap();
    }
    let before = world.packs().await;
    for round in 0..2 {
        let (view, listed) = world.view().await;
        let plan = world.repo.plan_compaction((&view, &listed), HashSet::new()).unwrap();
        assert_eq!(plan.is_empty(), round > 0, "{} objects in round {round}", plan.replace.len());
        world.repo.compact_index(&view, &plan).await.unwrap();
        world.delete(&plan.replace).await;
    }
    assert_eq!(world.view().await.1.len(), 9 + 4);
    assert_eq!(world.packs().await, before);
}

impl World {
    /// The packs that all index objects list.
    async fn packs(&self) -> std::collections::BTreeSet<PackId> {
        let mut packs = std::collections::BTreeSet::new();
        for object in self.repo.list_index().await.unwrap() {
            packs.extend(self.tables(&object).await.packs.iter().map(|pack| pack.id));
        }
        packs
    }
}
