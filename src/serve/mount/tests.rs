//! Tests: the answers, without a kernel; hostile trees first.

use std::collections::BTreeSet;
use std::sync::Arc;

use object_store::memory::InMemory;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::inodes::ROOT;
use super::server::Fault;
use super::*;
use crate::event::CountingObserver;
use crate::format::content::{ChunkRow, Content, ListPage, ListRef, PageRow};
use crate::format::envelope::ChunkKind;
use crate::format::node::Problem;
use crate::format::tree::TreeRef;
use crate::ops::testing::{World, noise};
use crate::ops::tree::testing::{Forge, copies, flip, remove};

fn server<'a>(lookup: &'a Lookup<'a>, tree: TreeRef) -> (Server<'a>, UnboundedReceiver<Wish>) {
    let (wishing, wishes) = unbounded_channel();
    let told = Told::new(Arc::new(CountingObserver::default()), "/mnt".into());
    let mut node = Node::new(b"/".to_vec(), NodeKind::Directory);
    node.tree = Some(tree);
    (Server::new(lookup, Root::Tree(node.into()), told, wishing).unwrap(), wishes)
}

/// All that a directory lists when each answer has room for so many entries, dots left out; and how it ended.
async fn list(server: &Server<'_>, ino: u64, room: usize) -> (Vec<(String, u64)>, Result<(), Fault>) {
    let (mut found, mut behind) = (Vec::new(), 0);
    loop {
        let (mut left, before) = (room, behind);
        let ended = server
            .list(ino, behind, &mut |cookie, name, attr, _| {
                if left == 0 {
                    return false;
                }
                left -= 1;
                behind = cookie;
                found.push((String::from_utf8_lossy(name).into_owned(), attr.ino.0));
                true
            })
            .await;
        if ended.is_err() || behind == before {
            found.retain(|(name, _)| name != "." && name != "..");
            return (found, ended);
        }
        assert!(found.len() < 100_000, "a listing must end");
    }
}

fn names(found: &[(String, u64)]) -> Vec<&str> {
    found.iter().map(|(name, _)| name.as_str()).collect()
}

fn damaged(server: &Server<'_>) -> u64 {
    server.told.damaged.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_listing_is_the_same_however_it_is_cut() {
    let repo = World::new().repository().await;
    let mut forge = Forge::new(&repo);
    let mut leaves = Vec::new();
    for part in 0..7 {
        let files: Vec<Node> = (0..11).map(|n| forge.file(&format!("{part}-{n:02}"), &[b"x"])).collect();
        leaves.push((format!("{part}-00"), forge.page(&files)));
    }
    let first: Vec<_> = leaves.iter().map(|(name, page)| (name.as_str(), *page)).collect();
    let below = [forge.pages(&first[..3]), forge.pages(&first[3..])];
    let root = forge.pages(&[("0-00", below[0]), ("3-00", below[1])]);
    forge.store(root, 1).await;
    let lookup = Lookup::open(&repo).await.unwrap();
    let (server, _wishes) = server(&lookup, root);
    let (whole, ended) = list(&server, ROOT, 1000).await;
    assert!(ended.is_ok());
    assert_eq!(whole.len(), 77);
    assert!(whole.is_sorted());
    for room in [1, 2, 5, 11, 13] {
        assert_eq!(list(&server, ROOT, room).await.0, whole, "numbers stay, too");
    }
    for (name, ino) in &whole {
        assert_eq!(server.lookup(ROOT, name.as_bytes()).await.unwrap().0.ino.0, *ino);
        assert_eq!(server.attr(*ino).await.unwrap().0.ino.0, *ino);
    }
    assert!(server.lookup(ROOT, b"0-99").await.is_err());
    assert!(server.lookup(whole[0].1, b"x").await.is_err(), "a file holds nothing");
    assert_eq!(damaged(&server), 0);
}

#[tokio::test]
async fn names_that_cannot_be_are_left_out_and_said() {
    let repo = World::new().repository().await;
    let mut forge = Forge::new(&repo);
    let long = "n".repeat(256);
    let all = [".", "..", "/etc/passwd", "a", "b\0c", "d/e", long.as_str(), "z"];
    let nodes: Vec<Node> = all.iter().map(|name| forge.file(name, &[b"x"])).collect();
    let mut unknown = Node::new(b"zz".to_vec(), NodeKind::Unknown);
    unknown.problem = Some(Problem::Unreadable);
    let root = forge.page(&nodes.into_iter().chain([unknown]).collect::<Vec<_>>());
    forge.store(root, 1).await;
    let lookup = Lookup::open(&repo).await.unwrap();
    let (server, _wishes) = server(&lookup, root);
    let (found, ended) = list(&server, ROOT, 3).await;
    assert_eq!(names(&found), ["a", "z"]);
    assert!(ended.is_ok());
    assert_eq!(damaged(&server), 6);
    assert_eq!(server.told.failed.load(Ordering::Relaxed), 1);
    let _ = list(&server, ROOT, 100).await;
    assert_eq!(damaged(&server), 6, "said once");
}

#[tokio::test]
async fn no_arrangement_of_pages_makes_a_listing_endless_or_hides_its_end() {
    let repo = World::new().repository().await;
    let mut forge = Forge::new(&repo);
    let files = |forge: &mut Forge<'_>, names: &[&str]| {
        let nodes: Vec<Node> = names.iter().map(|name| forge.file(name, &[b"x"])).collect();
        forge.page(&nodes)
    };
    let good = files(&mut forge, &["a", "b"]);
    let later = files(&mut forge, &["m", "n"]);
    let backwards = files(&mut forge, &["q", "p", "r"]);
    let garbage = TreeRef { level: 0, id: forge.chunk(ChunkKind::Tree, b"\x01\x03\0\0\0abc"), len: 8 };
    let half = {
        // A name that can be read before a field that cannot.
        let mut row = Vec::new();
        forge.file("h", &[b"x"]).encode(&mut row);
        row.truncate(row.len() - 1);
        let mut page = crate::format::tree::PageBuilder::new(0);
        page.push(&row);
        let id = forge.chunk(ChunkKind::Tree, page.bytes());
        TreeRef { level: 0, id, len: page.bytes().len() as u32 }
    };
    let lost = TreeRef { level: 0, id: crate::id::ChunkId::new([9; 32]), len: 100 };
    let roots = [
        (forge.pages(&[("a", good), ("a", good), ("m", later)]), &[][..]),
        (forge.pages(&[("a", good), ("b", good), ("c", good), ("m", later)]), &["a", "b", "m", "n"]),
        (forge.pages(&[("a", good), ("m", later), ("q", backwards)]), &["a", "b", "m", "n", "q", "r"]),
        (forge.pages(&[("a", good), ("c", lost), ("m", later)]), &["a", "b", "m", "n"]),
        (forge.pages(&[("a", garbage), ("m", later)]), &["m", "n"]),
        (forge.pages(&[("a", good), ("h", half), ("m", later)]), &["a", "b", "m", "n"]),
        (garbage, &[]),
        (half, &[]),
        (TreeRef { level: 200, ..good }, &[]),
        (lost, &[]),
    ];
    forge.store(good, 1).await;
    let lookup = Lookup::open(&repo).await.unwrap();
    for (number, (root, wanted)) in roots.into_iter().enumerate() {
        let (server, _wishes) = server(&lookup, root);
        for room in [1, 3, 100] {
            let (found, ended) = list(&server, ROOT, room).await;
            assert_eq!(names(&found), wanted, "{number}, {room} at a time");
            assert!(ended.is_err(), "{number}: what is missing is no end");
        }
        assert!(damaged(&server) > 0, "{number}");
        let _ = server.lookup(ROOT, b"m").await;
    }
}

#[tokio::test]
async fn names_of_one_file_have_one_number_and_liars_do_not() {
    let repo = World::new().repository().await;
    let mut forge = Forge::new(&repo);
    let mut nodes: Vec<Node> = ["a", "b"].map(|name| forge.file(name, &[b"same"])).into();
    nodes.push(forge.file("c", &[b"other"]));
    nodes.iter_mut().for_each(|node| node.hard_link = Some([7; 16]));
    nodes.push(forge.file("d", &[b"same"]));
    let root = forge.page(&nodes);
    forge.store(root, 1).await;
    let lookup = Lookup::open(&repo).await.unwrap();
    let (server, _wishes) = server(&lookup, root);
    let (found, _) = list(&server, ROOT, 100).await;
    let numbers: Vec<u64> = found.iter().map(|(_, ino)| *ino).collect();
    assert_eq!(numbers[0], numbers[1]);
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 3);
    for (ino, content) in numbers.iter().zip([&b"same"[..], b"same", b"other", b"same"]) {
        assert_eq!(server.read(*ino, 0, 100).await.unwrap().to_vec(), content);
    }
    assert_eq!(server.attr(numbers[0]).await.unwrap().0.nlink, 2);
    assert_eq!(server.attr(numbers[3]).await.unwrap().0.nlink, 1);
}

/// A file of many small chunks, in pages of two levels, with holes.
fn paged(forge: &mut Forge<'_>, content: &[u8], holes: &[(u64, u64)]) -> Node {
    let mut node = Node::new(b"paged".to_vec(), NodeKind::File);
    node.size = content.len() as u64 + holes.iter().map(|(_, len)| len).sum::<u64>();
    node.holes = holes.to_vec();
    let rows: Vec<ChunkRow> = content.chunks(700).map(|part| forge.row(part)).collect();
    let pages: Vec<PageRow> = rows
        .chunks(5)
        .map(|rows| {
            let bytes = ListPage::Rows(rows.to_vec()).encode();
            let id = forge.chunk(ChunkKind::Tree, &bytes);
            let sum = rows.iter().map(|row| u64::from(row.len)).sum();
            PageRow { id, len: bytes.len() as u32, bytes: sum, rows: rows.len() as u64 }
        })
        .collect();
    let bytes = ListPage::Pages(pages).encode();
    let id = forge.chunk(ChunkKind::Tree, &bytes);
    node.content = Content::Paged(ListRef { level: 1, id, len: bytes.len() as u32, rows: rows.len() as u64 });
    node
}

#[test]
fn any_part_of_a_file_is_what_was_saved() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let repo = runtime.block_on(World::new().repository());
    let content = noise(1, 40_000);
    let holes = [(0, 1000), (5000, 3), (30_000, 20_000)];
    let mut whole = Vec::new();
    let mut left = &content[..];
    for (offset, len) in holes {
        let (head, tail) = left.split_at(offset as usize - whole.len());
        whole.extend_from_slice(head);
        whole.resize(whole.len() + len as usize, 0);
        left = tail;
    }
    whole.extend_from_slice(left);
    let mut forge = Forge::new(&repo);
    let node = paged(&mut forge, &content, &holes);
    let parts: Vec<&[u8]> = content.chunks(9000).collect();
    let mut inline = forge.file("inline", &parts);
    (inline.holes, inline.size) = (holes.to_vec(), node.size);
    let root = forge.page(&[inline, node]);
    runtime.block_on(forge.store(root, 1));
    let lookup = runtime.block_on(Lookup::open(&repo)).unwrap();
    let (server, wishes) = server(&lookup, root);
    let wishes = std::sync::Mutex::new(wishes);
    let (found, _) = runtime.block_on(list(&server, ROOT, 100));
    let read = |ino, offset, len| runtime.block_on(server.read(ino, offset, len)).map(|bytes| bytes.to_vec());
    let strategy = (any::<prop::sample::Index>(), 0_u64..70_000, 0_u32..50_000);
    TestRunner::new(Config::with_cases(200))
        .run(&strategy, |(file, offset, len)| {
            let ino = found[file.index(found.len())].1;
            let (from, until) =
                (whole.len().min(offset as usize), whole.len().min(offset as usize + len as usize));
            prop_assert_eq!(read(ino, offset, len).unwrap(), &whole[from..until]);
            // Some of what is wished for comes true in between.
            let wish = wishes.lock().unwrap().try_recv();
            if let Ok(wish) = wish {
                runtime.block_on(server.grant(wish));
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(runtime.block_on(server.seek(found[0].1, 0, libc::SEEK_DATA)).unwrap(), 1000);
    assert_eq!(runtime.block_on(server.seek(found[1].1, 6000, libc::SEEK_HOLE)).unwrap(), 30_000);
    assert!(runtime.block_on(server.seek(found[1].1, -1, libc::SEEK_HOLE)).is_err());
    assert_eq!(damaged(&server), 0);
}

#[tokio::test]
async fn files_that_lie_about_their_size_cannot_be_read() {
    let repo = World::new().repository().await;
    let mut forge = Forge::new(&repo);
    let content = noise(1, 9000);
    let mut nodes: Vec<Node> = (0..6).map(|n| forge.file(&format!("{n}"), &[b"content"])).collect();
    nodes[0].size = u64::MAX;
    nodes[1].size = 0;
    nodes[2].holes = vec![(0, u64::MAX)];
    nodes[3].holes = vec![(3, 1)];
    nodes[4].problem = Some(Problem::Unreadable);
    for (name, size) in [("p1", u64::MAX), ("p2", 8999)] {
        let mut node = paged(&mut forge, &content, &[]);
        (node.name, node.size) = (name.into(), size);
        nodes.push(node);
    }
    let root = forge.page(&nodes);
    forge.store(root, 1).await;
    let lookup = Lookup::open(&repo).await.unwrap();
    let (server, _wishes) = server(&lookup, root);
    let (found, ended) = list(&server, ROOT, 100).await;
    assert!(ended.is_ok());
    for (name, ino) in found {
        let read = server.read(ino, 0, 4096).await;
        if name == "5" {
            assert_eq!(*read.unwrap(), *b"content");
        } else {
            assert!(read.is_err(), "{name}");
            assert_eq!(server.open(ino).await.is_err(), !name.starts_with('p'), "{name}");
        }
    }
}

#[tokio::test]
async fn a_damaged_copy_is_passed_by_and_the_last_one_costs_one_file() {
    let world = World::new();
    let repo = world.repository().await;
    let mut forge = Forge::new(&repo);
    forge.a_segment = 1;
    let nodes = [forge.file("a", &[&noise(1, 5000), b"and more"]), forge.file("b", &[&noise(2, 5000)])];
    let Content::Inline(rows) = nodes[0].content.clone() else { panic!("inline") };
    let root = forge.page(&nodes);
    forge.store(root, 2).await;
    let objects: &InMemory = &world.objects;
    let all = copies(&repo, &rows[0].id).await;
    flip(objects, all[0].pack_id, all[0].segment.offset + 9).await;
    let lookup = Lookup::open(&repo).await.unwrap();
    {
        let (server, _wishes) = server(&lookup, root);
        let (found, _) = list(&server, ROOT, 100).await;
        for _ in 0..2 {
            assert_eq!(server.read(found[0].1, 100, 6000).await.unwrap().len(), 4908);
        }
        assert_eq!(damaged(&server), 0);
    }
    flip(objects, all[1].pack_id, all[1].segment.offset + 9).await;
    let (server, _wishes) = server(&lookup, root);
    let (found, _) = list(&server, ROOT, 100).await;
    for _ in 0..2 {
        let fault = server.read(found[0].1, 0, 100).await.unwrap_err();
        assert_eq!(server.tell(found[0].1, fault).await, fuser::Errno::EIO);
    }
    assert_eq!(damaged(&server), 1, "told once");
    assert_eq!(*server.read(found[0].1, 5000, 100).await.unwrap(), *b"and more", "what is there can be read");
    assert_eq!(*server.read(found[1].1, 0, 5000).await.unwrap(), noise(2, 5000));
    remove(objects, all[0].pack_id).await;
    remove(objects, all[1].pack_id).await;
    assert!(server.read(found[0].1, 0, 100).await.is_err());
}

#[tokio::test]
async fn numbers_that_nobody_gave_are_stale_and_links_without_a_target_are_damage() {
    let repo = World::new().repository().await;
    let mut forge = Forge::new(&repo);
    let mut links: Vec<Node> = ["a", "b", "c"].map(|name| Node::new(name.into(), NodeKind::Symlink)).into();
    links[0].target = b"there".to_vec();
    links[1].target = b"no\0where".to_vec();
    let root = forge.page(&links);
    forge.store(root, 1).await;
    let lookup = Lookup::open(&repo).await.unwrap();
    let (server, _wishes) = server(&lookup, root);
    for ino in [0, 2, 77 << 16, 1 << 60, 1 << 61, u64::MAX] {
        assert!(server.attr(ino).await.is_err());
        assert!(server.read(ino, 0, 1).await.is_err());
        assert!(server.xattrs(ino).await.is_err());
        assert!(list(&server, ino, 10).await.1.is_err());
    }
    // A cookie that nobody gave, too.
    assert!(server.list(ROOT, 99 << 16, &mut |_, _, _, _| true).await.is_err());
    let (found, _) = list(&server, ROOT, 10).await;
    assert_eq!(server.target(found[0].1).await.unwrap(), b"there");
    assert!(server.target(found[1].1).await.is_err() && server.target(found[2].1).await.is_err());
    assert!(server.target(ROOT).await.is_err());
}
