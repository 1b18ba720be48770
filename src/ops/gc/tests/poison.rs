//! A writer that lies about a page, and a maintainer that cannot tell.

use super::*;
use crate::format::content::Content;
use crate::format::envelope::ChunkKind;
use crate::format::index::IndexBuilder;
use crate::format::keyslot::Role;
use crate::format::layout::ObjectName;
use crate::format::node::Node;
use crate::format::tree::Page;
use crate::id::ChunkId;
use crate::random::SystemRandom;
use crate::repo::{BufferPool, ChunkReader, PackBuilder, PackKeys};
use crate::seal::SegmentSealer;

/// The page of the source directory, and the same with the content of `b` exchanged for that of `a`.
async fn page_and_lie(world: &World) -> (ChunkId, Vec<u8>) {
    let index = world.repo.load_index().await.unwrap();
    let mut reader = ChunkReader::new(&world.repo, index.view.clone()).unwrap();
    let listed = world.repo.list_snapshots().await.unwrap()[0];
    let mut at = world.repo.read_snapshot(listed).await.unwrap().snapshot.root;
    while let Some(tree) = at.take() {
        let page = reader.read(ChunkKind::Tree, &tree.id).await.unwrap().unwrap();
        let Page::Nodes(nodes) = Page::decode(&page, tree.level).unwrap() else { panic!("a small page") };
        let nodes: Vec<_> = nodes.iter().map(|bytes| Node::decode(bytes).unwrap()).collect();
        let ids: Vec<ChunkId> = nodes
            .iter()
            .filter_map(|node| match &node.content {
                Content::Inline(rows) => rows.first().map(|row| row.id),
                Content::Paged(_) => None,
            })
            .collect();
        if let [a, b] = ids[..] {
            let place = page.windows(32).position(|bytes| bytes == b.as_bytes()).unwrap();
            let mut lie = page.clone();
            lie[place..place + 32].copy_from_slice(a.as_bytes());
            return (tree.id, lie);
        }
        at = nodes.into_iter().find_map(|node| node.tree);
    }
    panic!("no page with two files")
}

/// Stores a chunk under an id that is not its own, as a registered writer can.
async fn put_lie(world: &World, id: ChunkId, lie: &[u8]) {
    let kind = ChunkKind::Tree;
    let (writer, signing) = world.repo.writer().unwrap();
    let run = world.repo.new_run_keys().unwrap();
    let mut sealer = SegmentSealer::new(run.key(kind), world.repo.id(), 1).unwrap();
    let mut stored = Vec::new();
    let entry = sealer.seal(lie, [&id], &SystemRandom, &mut stored).unwrap();
    let buffer = BufferPool::new(1).take(&|| false).unwrap();
    let mut pack = PackBuilder::new(kind, world.repo.id(), buffer);
    pack.push(entry, &stored, &[(id, lie.len() as u32)]);
    let keys = PackKeys {
        repository: world.repo.id(),
        index: world.repo.index_key().unwrap(),
        writer,
        signing: &signing,
        data_key: run.sealed(kind),
    };
    let pack = pack.finish(&keys, &SystemRandom, false).unwrap();
    world.repo.put_pack(&pack).await.unwrap();
    let mut index = IndexBuilder::new(writer, 0, Vec::new());
    let place = (pack.id, kind, pack.bytes.len() as u64);
    Repository::index_pack(&mut index, place, &pack.footer, &pack.directory).unwrap();
    world.repo.put_index(&index.finish(), &signing).await.unwrap();
    assert!(ObjectName::parse(&ObjectName::Pack(pack.id).key()).is_some());
}

/// Which of two copies is read first is chance, so a maintainer that believed the first would lose `b` now and then.
#[tokio::test(flavor = "multi_thread")]
async fn a_maintainer_goes_by_no_page_of_which_there_are_two() {
    for _ in 0..4 {
        let mut world = World::new().await;
        world.write("a", &noise(1, 300_000));
        world.write("b", &noise(2, 300_000));
        world.save().await;
        let (id, lie) = page_and_lie(&world).await;
        put_lie(&world, id, &lie).await;
        let before = world.repo.store().list(layout::PACKS).await.unwrap().len();
        let refused = prune(&world.repo.as_role(Role::Maintainer), &NOW).await;
        let error = refused.expect_err("two pages under one name");
        assert_eq!(error.class(), crate::class::Class::Damage, "{error}");
        assert_eq!(world.repo.store().list(layout::PACKS).await.unwrap().len(), before);
        // Who can name chunks tells the true one.
        prune(&world.repo, &NOW).await.unwrap();
        for (id, saved) in &world.saved {
            assert_eq!(restored(&world.repo, *id, &world.source()).await, *saved);
        }
    }
}

/// What a maintainer cannot take apart it moves whole, and once only.
#[tokio::test(flavor = "multi_thread")]
async fn a_maintainer_moves_segments_whole_and_not_again() {
    let mut world = World::new().await;
    for n in 0..6 {
        world.write(&format!("{n}"), &noise(n, 3_000_000));
    }
    let first = world.save().await;
    for n in 1..6 {
        fs::remove_file(world.source().join(format!("{n}"))).unwrap();
    }
    world.save().await;
    world.forget(first).await;
    let maintainer = world.repo.as_role(Role::Maintainer);
    let thorough = PruneOptions { max_unused: 0, ..NOW };
    let report = prune(&maintainer, &thorough).await.unwrap();
    assert!(report.deleted > 0 && report.plan.freed_bytes() > 8_000_000, "{report:?}");
    let again = prune(&maintainer, &thorough).await.unwrap();
    assert!(again.plan.is_empty(), "{again:?}");
    assert_eq!(again.deleted, 0);
    world.check().await;
    // One that can, takes apart what is left.
    prune(&world.repo, &thorough).await.unwrap();
    world.check().await;
}
