//! Index objects that contradict each other, are spoilt on their way, or are listed and not there.

use super::*;
use crate::format::index::{IndexTables, Record};
use crate::format::layout::ObjectName;
use crate::format::segment::SegmentEntry;
use crate::repo::PackKeys;

async fn put_index(repo: &Repository, tables: &IndexTables) -> ObjectName {
    let (writer, signing) = repo.writer().unwrap();
    let index = repo.index_key().unwrap();
    let keys = PackKeys { repository: repo.id(), index, writer, signing: &signing, data_key: &[] };
    ObjectName::Index(writer, repo.put_index(tables, &keys).await.unwrap())
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
    let wrong: [&dyn Fn(&mut [SegmentEntry]); 4] = [
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
