//! What stands in the target when a restore cannot replace it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::format::layout::ObjectName;
use crate::index::Location;
use crate::store::fault::{Fault, Op};

/// Files of two chunks, each in a pack of its own. Gives the snapshot and a chunk of each segment of the second pack.
async fn in_two_packs(repo: &Repository) -> (SnapshotInfo, Vec<Location>) {
    let parts = |n: u64| (noise(3000, n), noise(2000, 100 + n));
    let mut first = Forge::new(repo);
    let mut second = Forge::new(repo);
    let mut nodes = Vec::new();
    for n in 0..8 {
        let (head, tail) = parts(n);
        let mut node = second.file(&n.to_string(), &[&tail]);
        let Content::Inline(rows) = &mut node.content else { panic!() };
        rows.insert(0, first.row(&head));
        node.size += head.len() as u64;
        nodes.push(node);
    }
    let tails = nodes.iter().step_by(second.a_segment).map(|node| match &node.content {
        Content::Inline(rows) => rows[1].id,
        Content::Paged(_) => panic!(),
    });
    let tails: Vec<_> = tails.collect();
    let nothing = first.page(&[]);
    first.store(nothing, 1).await;
    let root = second.page(&nodes);
    let snapshot = second.store(root, 1).await;
    let mut second = Vec::new();
    for tail in tails {
        second.push(copies(repo, &tail).await.remove(0));
    }
    (snapshot, second)
}

/// Puts something under the first four names: files, one of them with a second name, and a symlink.
fn stand(target: &Path) {
    for name in ["0", "1", "2"] {
        fs::write(target.join(name), format!("old {name}")).unwrap();
    }
    fs::hard_link(target.join("2"), target.join("other")).unwrap();
    symlink("0", target.join("3")).unwrap();
}

fn assert_stands(target: &Path) {
    assert_eq!(names(target), ["0", "1", "2", "3", "other"]);
    for name in ["0", "1", "2"] {
        assert_eq!(fs::read(target.join(name)).unwrap(), format!("old {name}").as_bytes());
    }
    assert_eq!(fs::metadata(target.join("2")).unwrap().nlink(), 2);
    assert_eq!(fs::read_link(target.join("3")).unwrap(), Path::new("0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_completed_costs_nothing_that_stood_there() {
    let (objects, repo) = repository().await;
    let (snapshot, second) = in_two_packs(&repo).await;
    let target = tempfile::tempdir().unwrap();
    stand(target.path());
    for location in second {
        flip(&objects, location.pack_id, location.segment.offset).await;
    }
    for sparse in [false, true] {
        let mut all = options(snapshot.clone(), target.path());
        (all.sparse, all.verify) = (sparse, sparse);
        let done = restore(&repo, all).await.unwrap();
        assert_eq!((done.damaged_count, done.files), (8, 0));
        assert_stands(target.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_complete_replaces_all_that_stood_there() {
    let (_, repo) = repository().await;
    let (snapshot, _) = in_two_packs(&repo).await;
    let target = tempfile::tempdir().unwrap();
    stand(target.path());
    let done = restore(&repo, options(snapshot, target.path())).await.unwrap();
    assert_eq!((done.damaged_count, done.failed, done.files), (0, 0, 8));
    assert_eq!(names(target.path()), ["0", "1", "2", "3", "4", "5", "6", "7", "other"]);
    for n in 0..8 {
        let path = target.path().join(n.to_string());
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(fs::read(&path).unwrap(), [noise(3000, n), noise(2000, 100 + n)].concat());
    }
    assert_eq!(fs::read(target.path().join("other")).unwrap(), b"old 2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_stopped_leaves_nothing_half_done() {
    let (objects, repo) = repository().await;
    let (snapshot, second) = in_two_packs(&repo).await;
    let target = tempfile::tempdir().unwrap();
    stand(target.path());
    let (place, cancel) = (target.path().to_owned(), repo.env().cancel.clone());
    let second = ObjectName::Pack(second[0].pack_id).key();
    let stops = Arc::new(AtomicUsize::new(0));
    let stopped = Arc::clone(&stops);
    let before = fs::metadata(&place).unwrap().modified().unwrap();
    let faults = FaultStore::new(objects, move |op: &Op| {
        if op.kind == OpKind::GetRange && op.key == second {
            // The first pack is here, and its chunks are being written: that shows in the target.
            for _ in 0..500 {
                if fs::metadata(&place).unwrap().modified().unwrap() != before {
                    break;
                }
                std::thread::park_timeout(Duration::from_millis(10));
            }
            stopped.fetch_add(1, Ordering::SeqCst);
            cancel.raise();
        }
        Fault::None
    });
    let repo = repo.with_store(store_over(Arc::new(faults)));
    let done = restore(&repo, options(snapshot, target.path())).await;
    assert!(matches!(done, Err(error) if error.class() == crate::class::Class::Cancelled));
    assert_eq!(stops.load(Ordering::SeqCst), 1);
    assert_stands(target.path());
}
