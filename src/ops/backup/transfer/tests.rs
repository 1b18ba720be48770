//! The engine by itself: what arrives is stored as a backup stores it, and what must not arrive is refused.

use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;

use super::*;
use crate::class::Class;
use crate::format::content::Content;
use crate::format::node::{Node, NodeKind, Problem};
use crate::format::tree::TreeRef;
use crate::id::ChunkId;
use crate::ops::testing::{World, noise, restored};
use crate::ops::tree::{Found, Lookup};
use crate::ops::verify::{Depth, verify};

/// A tree that is told what to send.
struct Script<F>(F);

impl<F: AsyncFn(&mut Feed) -> Result<(), Error>> Foreign for Script<F> {
    async fn send(&self, feed: &mut Feed) -> Result<(), Error> {
        (self.0)(feed).await
    }
}

impl Feed {
    /// Adds a file with all of its content, holes left out.
    async fn file(&mut self, node: Node, content: Bytes) -> Result<(), Error> {
        self.begin(node).await?;
        self.data(content).await?;
        self.end().await
    }
}

fn arrival() -> Arrival {
    Arrival {
        time: 1_000,
        duration: 5,
        host: b"far".to_vec(),
        user: Vec::new(),
        job: b"away".to_vec(),
        paths: vec![b"/there".to_vec()],
        tags: vec!["k=v".into()],
        problems: 1,
        origin: Origin {
            kind: "elsewhere".into(),
            repository: b"R".to_vec(),
            snapshot: b"S".to_vec(),
            time: 2_000,
            missing: 0,
        },
        total: None,
        level: 1,
    }
}

fn file(name: &str, size: u64) -> Node {
    let mut node = Node::new(name.as_bytes().to_vec(), NodeKind::File);
    (node.mode, node.size) = (0o644, size);
    node
}

fn dir(name: &str) -> Node {
    let mut node = Node::new(name.as_bytes().to_vec(), NodeKind::Directory);
    node.mode = 0o755;
    node
}

async fn bring(
    repo: &Repository,
    base: Option<&Base>,
    send: impl AsyncFn(&mut Feed) -> Result<(), Error>,
) -> Transferred {
    let place = TransferPlace::lock(repo, b"elsewhere").await.unwrap();
    transfer(repo, &place, (&arrival(), base), &Script(send)).await.unwrap()
}

async fn find(repo: &Repository, root: Option<TreeRef>, path: &str) -> Option<Node> {
    let lookup = Lookup::open(repo).await.unwrap();
    match lookup.reader().unwrap().find(root, path.as_bytes()).await.unwrap() {
        Some(Found::Node(node)) => Some(*node),
        _ => None,
    }
}

async fn is_sound(repo: &Repository) {
    let report = verify(repo, Depth::Data).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_is_cut_where_a_backup_cuts_it_and_is_a_snapshot_like_any_other() {
    let world = World::new();
    for (name, seed, len) in [("a", 1, 10), ("b", 2, 300_000), ("c", 3, 5_000_000)] {
        world.write(name, &noise(seed, len));
    }
    let repo = world.repository().await;
    crate::ops::testing::back_up(&repo, &world.source()).await;
    let done = bring(&repo, None, async |feed| {
        feed.enter(dir("d")).await?;
        feed.file(file("a", 10), noise(1, 10).into()).await?;
        feed.file(file("b", 300_000), noise(2, 300_000).into()).await?;
        feed.begin(file("c", 5_000_000)).await?;
        for piece in noise(3, 5_000_000).chunks(77_777) {
            feed.data(Bytes::copy_from_slice(piece)).await?;
        }
        feed.end().await?;
        feed.file(file("empty", 0), Bytes::new()).await?;
        let mut link = Node::new(b"link".to_vec(), NodeKind::Symlink);
        link.target = b"a".to_vec();
        feed.entry(link).await?;
        feed.leave().await?;
        feed.file(file("z", 3), Bytes::from_static(b"new")).await
    })
    .await;
    assert!(
        done.brought.new_bytes < 5_000,
        "only trees and one small file are new: {}",
        done.brought.new_bytes
    );
    assert_eq!(
        (done.brought.totals.entries, done.brought.totals.files, done.brought.totals.bytes),
        (7, 5, 5_300_013)
    );
    assert_eq!((done.brought.read_files, done.brought.missing), (5, 0));
    let found = restored(&repo, done.brought.snapshot, Path::new("/")).await;
    assert_eq!(found[Path::new("d/c")], noise(3, 5_000_000));
    assert_eq!((&found[Path::new("z")][..], found.len()), (&b"new"[..], 5));

    let listed = repo.list_snapshots().await.unwrap();
    let listed = listed.into_iter().find(|listed| listed.id == done.brought.snapshot).unwrap();
    assert!(repo.is_confirmed(listed).await.unwrap());
    let said = repo.read_snapshot(listed).await.unwrap().snapshot;
    assert_eq!(
        (said.time, said.job, said.tags, said.problems),
        (1_000, b"away".to_vec(), vec!["k=v".into()], 1)
    );
    assert_eq!(said.origin, Some(arrival().origin));
    is_sound(&repo).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_are_kept_and_data_between_them_is_cut_by_itself() {
    let world = World::new();
    let repo = world.repository().await;
    let (hole, data) = (10 << 20, noise(5, 200_000));
    let mut sparse = file("sparse", 2 * hole + 400_000);
    sparse.holes = vec![(0, hole), (hole + 200_000, hole)];
    let done = bring(&repo, None, async |feed| {
        let content = [&data[..], &data[..]].concat();
        feed.file(sparse.clone(), content.into()).await
    })
    .await;
    let node = find(&repo, done.root, "sparse").await.unwrap();
    assert_eq!(node.holes, sparse.holes);
    let Content::Inline(rows) = &node.content else { panic!("paged") };
    assert_eq!(rows[..rows.len() / 2], rows[rows.len() / 2..], "both ranges are cut from their beginning");
    assert!(done.brought.new_bytes < 210_000, "and the second one is not stored: {}", done.brought.new_bytes);
    let found = restored(&repo, done.brought.snapshot, Path::new("/")).await;
    let found = &found[Path::new("sparse")];
    let at = hole as usize;
    assert!(found[..at].iter().all(|byte| *byte == 0) && found[at..at + 200_000] == data[..]);
    assert!(found[2 * at + 200_000..] == data[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_reader_would_accept_is_refused_and_the_rest_arrives() {
    let world = World::new();
    let repo = world.repository().await;
    let refusals = Mutex::new(Vec::new());
    let done = bring(&repo, None, async |feed| {
        let take = async |feed: &mut Feed, node: Node| {
            let sent = feed.entry(node).await;
            refusals.lock().unwrap().push(sent.is_err());
            if let Err(error) = sent {
                assert_eq!(error.class(), Class::Damage);
                feed.skipped(Path::new("x"), &error).await.unwrap();
            }
        };
        for name in ["", ".", "..", "a/b", "a\0b"] {
            take(feed, file(name, 0)).await;
        }
        take(feed, Node { mode: 0o10000, ..file("mode", 0) }).await;
        take(feed, Node { holes: vec![(5, 10)], ..file("hole", 8) }).await;
        take(feed, Node { holes: vec![(5, 2), (3, 1)], ..file("holes", 8) }).await;
        take(feed, Node { user: vec![b'u'; 5000], ..file("user", 0) }).await;
        let xattr = |n: u8| (vec![b'x', n], vec![n; 65_536]);
        take(feed, Node { xattrs: (0..150).map(xattr).collect(), ..file("large", 0) }).await;
        take(feed, file("m", 0)).await;
        take(feed, file("m", 0)).await;
        take(feed, file("b", 0)).await;
        take(feed, file("n", 0)).await;
        Ok(())
    })
    .await;
    let expected = [&[true; 10][..], &[false, true, true, false]].concat();
    assert_eq!(refusals.into_inner().unwrap(), expected);
    assert_eq!((done.brought.totals.entries, done.brought.missing), (2, 12));
    is_sound(&repo).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_cannot_be_had_leaves_its_entry_and_is_counted() {
    let world = World::new();
    let repo = world.repository().await;
    let lost = Error::ChunkLost { chunk: ChunkId::new([1; 32]) };
    let at = Path::new("/x");
    let done = bring(&repo, None, async |feed| {
        feed.begin(file("a-broken", 3_000_000)).await?;
        feed.data(noise(1, 2_500_000).into()).await?;
        feed.spoilt(at, &lost).await?;
        feed.enter(dir("b")).await?;
        feed.incomplete(at, &lost).await?;
        feed.file(file("good", 4), Bytes::from_static(b"good")).await?;
        feed.leave().await?;
        for (name, len) in [("c-short", 5), ("d-long", 3)] {
            feed.begin(file(name, 4)).await?;
            let sent = feed.data(noise(2, len).into()).await;
            let ended = if sent.is_ok() { feed.end().await } else { sent };
            feed.spoilt(at, &ended.unwrap_err()).await?;
        }
        feed.lost(file("e-lost", 9), at, &lost).await?;
        feed.file(file("f-good", 2), Bytes::from_static(b"ok")).await
    })
    .await;
    assert_eq!((done.brought.missing, done.brought.read_files), (5, 2));
    for name in ["a-broken", "c-short", "d-long", "e-lost"] {
        let node = find(&repo, done.root, name).await.unwrap();
        assert_eq!((node.problem, node.size), (Some(Problem::Unreadable), 0), "{name}");
        assert_eq!(node.content, Content::Inline(Vec::new()));
    }
    assert_eq!(find(&repo, done.root, "b").await.unwrap().problem, Some(Problem::Unreadable));
    let found = restored(&repo, done.brought.snapshot, Path::new("/")).await;
    assert_eq!(found[Path::new("b/good")], b"good", "what there is of a directory comes back");
    let listed = repo.list_snapshots().await.unwrap();
    let said = repo.read_snapshot(listed[0]).await.unwrap().snapshot;
    assert_eq!((said.problems, said.origin.unwrap().missing), (6, 5));
    is_sound(&repo).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_base_has_is_taken_over_unseen_while_all_of_it_is_usable() {
    let world = World::new();
    let repo = world.repository().await;
    let first = bring(&repo, None, async |feed| {
        feed.enter(dir("d")).await?;
        feed.file(file("a", 100_000), noise(1, 100_000).into()).await?;
        feed.leave().await?;
        feed.file(file("f", 50_000), noise(2, 50_000).into()).await
    })
    .await;
    let [tree, content] =
        [find(&repo, first.root, "d").await.unwrap(), find(&repo, first.root, "f").await.unwrap()];
    let looked = Base::of(&repo, first.root).await.unwrap().unwrap();
    for base in [&first.base, &looked] {
        let again = bring(&repo, Some(base), async |feed| {
            assert!(feed.trusts_base());
            feed.entry(tree.clone()).await?;
            feed.entry(Node { mode: 0o600, ..content.clone() }).await
        })
        .await;
        assert_eq!(
            (again.brought.bytes_read, again.brought.known_files, again.brought.totals),
            (0, 2, first.brought.totals)
        );
        let found = restored(&repo, again.brought.snapshot, Path::new("/")).await;
        assert_eq!(found[Path::new("d/a")], noise(1, 100_000));
    }
    is_sound(&repo).await;
    // Without a base nothing is trusted, but chunks can be asked for.
    let Content::Inline(rows) = &content.content else { panic!("paged") };
    bring(&repo, None, async |feed| {
        assert!(!feed.trusts_base() && feed.holds(&rows[0].id)? && !feed.holds(&ChunkId::new([9; 32]))?);
        Ok(())
    })
    .await;
    // A pack of the base that is gone ends the trust.
    let pack = crate::format::layout::ObjectName::Pack(looked.packs[0]).key();
    repo.store().delete(&crate::store::Key::new(pack).unwrap()).await.unwrap();
    assert!(Base::of(&repo, first.root).await.unwrap().is_none());
    bring(&repo, Some(&looked), async |feed| {
        assert!(!feed.trusts_base());
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_ends_early_keeps_what_it_stored_and_makes_no_snapshot() {
    let world = World::new();
    let repo = world.repository().await;
    let place = TransferPlace::lock(&repo, b"elsewhere").await.unwrap();
    let busy = TransferPlace::lock(&repo, b"elsewhere").await.unwrap_err();
    assert_eq!(busy.class(), Class::Busy);
    let broken = Script(async |feed: &mut Feed| {
        feed.file(file("a", 3_000_000), noise(1, 3_000_000).into()).await?;
        feed.begin(file("b", 30_000_000)).await?;
        feed.data(noise(2, 20_000_000).into()).await?;
        Err(Error::NoKeySlot)
    });
    let ended = transfer(&repo, &place, (&arrival(), None), &broken).await.unwrap_err();
    assert!(matches!(ended, Error::NoKeySlot), "the reason is what the other side says: {ended}");
    assert!(repo.list_snapshots().await.unwrap().is_empty());
    drop(place);
    let done = bring(&repo, None, async |feed| {
        feed.file(file("a", 3_000_000), noise(1, 3_000_000).into()).await?;
        feed.file(file("b", 20_000_000), noise(2, 20_000_000).into()).await
    })
    .await;
    assert!(done.brought.stored_bytes < 5_000_000, "little is stored twice: {}", done.brought.stored_bytes);
    is_sound(&repo).await;
    // What is gone from where it came from becomes no snapshot.
    struct Gone;
    impl Foreign for Gone {
        async fn send(&self, feed: &mut Feed) -> Result<(), Error> {
            feed.entry(file("x", 0)).await
        }
        async fn stands(&self) -> Result<bool, Error> {
            Ok(false)
        }
    }
    let place = TransferPlace::lock(&repo, b"elsewhere").await.unwrap();
    let gone = transfer(&repo, &place, (&arrival(), None), &Gone).await;
    assert!(matches!(gone, Err(Error::OriginGone)));
    assert_eq!(repo.list_snapshots().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_maintainer_brings_snapshots() {
    let world = World::new();
    let repo = world.repository().await.as_plain_writer();
    let refused = TransferPlace::lock(&repo, b"elsewhere").await.unwrap_err();
    assert_eq!(refused.class(), Class::Denied);
}
