//! Snapshots made by hand, with real keys: what an honest backup would never write too.

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;

use crate::clock::Timestamp;
use crate::crypto::{chunk_id, context};
use crate::format::content::{ChunkRow, Content};
use crate::format::envelope::ChunkKind;
use crate::format::index::IndexBuilder;
use crate::format::layout::ObjectName;
use crate::format::node::{Node, NodeKind};
use crate::format::snapshot::Snapshot;
use crate::format::tree::{PageBuilder, PageRow, TreeRef};
use crate::id::{ChunkId, PackId};
use crate::index::Location;
use crate::ops::snapshots::SnapshotInfo;
use crate::repo::{BufferPool, PackBuilder, PackKeys, Repository, RunKeys};
use crate::seal::SegmentSealer;

/// Collects chunks, and stores them all in the end.
pub(crate) struct Forge<'a> {
    repo: &'a Repository,
    keys: RunKeys,
    chunks: [Vec<(ChunkId, Vec<u8>)>; 2],
    /// Chunks that share a segment.
    pub(crate) a_segment: usize,
}

impl<'a> Forge<'a> {
    pub(crate) fn new(repo: &'a Repository) -> Self {
        let keys = repo.new_run_keys().unwrap();
        Self { repo, keys, chunks: [Vec::new(), Vec::new()], a_segment: 4 }
    }

    pub(crate) fn chunk(&mut self, kind: ChunkKind, bytes: &[u8]) -> ChunkId {
        let key = self.repo.dedup_key(context::CHUNK_ID).unwrap();
        let id = chunk_id(&key, kind, bytes);
        let chunks = &mut self.chunks[kind as usize];
        if !chunks.iter().any(|(known, _)| *known == id) {
            chunks.push((id, bytes.to_vec()));
        }
        id
    }

    /// Stores other bytes under a chunk's id, as only somebody who lies would.
    pub(crate) fn lie(&mut self, kind: ChunkKind, id: ChunkId, bytes: &[u8]) {
        self.chunks[kind as usize].push((id, bytes.to_vec()));
    }

    pub(crate) fn row(&mut self, bytes: &[u8]) -> ChunkRow {
        ChunkRow { id: self.chunk(ChunkKind::Data, bytes), len: bytes.len() as u32 }
    }

    /// A file made of these chunks.
    pub(crate) fn file(&mut self, name: &str, parts: &[&[u8]]) -> Node {
        let mut node = Node::new(name.as_bytes().to_vec(), NodeKind::File);
        node.mode = 0o644;
        node.size = parts.iter().map(|part| part.len() as u64).sum();
        node.content = Content::Inline(parts.iter().map(|part| self.row(part)).collect());
        node
    }

    /// A page of entries in the order given.
    pub(crate) fn page(&mut self, nodes: &[Node]) -> TreeRef {
        let mut page = PageBuilder::new(0);
        for node in nodes {
            let mut row = Vec::new();
            node.encode(&mut row);
            page.push(&row);
        }
        let id = self.chunk(ChunkKind::Tree, page.bytes());
        TreeRef { level: 0, id, len: page.bytes().len() as u32 }
    }

    /// A page of pages, each with the name it claims to begin with.
    pub(crate) fn pages(&mut self, below: &[(&str, TreeRef)]) -> TreeRef {
        let level = below[0].1.level + 1;
        let mut page = PageBuilder::new(level);
        for (first, tree) in below {
            let mut row = Vec::new();
            PageRow { first: first.as_bytes().to_vec(), id: tree.id, len: tree.len }.encode(&mut row);
            page.push(&row);
        }
        let id = self.chunk(ChunkKind::Tree, page.bytes());
        TreeRef { level, id, len: page.bytes().len() as u32 }
    }

    pub(crate) fn dir(&mut self, name: &str, nodes: &[Node]) -> Node {
        let mut node = Node::new(name.as_bytes().to_vec(), NodeKind::Directory);
        node.mode = 0o755;
        node.tree = (!nodes.is_empty()).then(|| self.page(nodes));
        node
    }

    /// Stores everything; `copies` times, each in packs of its own.
    pub(crate) async fn store(self, root: TreeRef, copies: usize) -> SnapshotInfo {
        let (writer, signing) = self.repo.writer().unwrap();
        for _ in 0..copies {
            let mut builder = IndexBuilder::new(writer, 0, Vec::new());
            for kind in [ChunkKind::Data, ChunkKind::Tree] {
                let keys = PackKeys {
                    repository: self.repo.id(),
                    index: self.repo.index_key().unwrap(),
                    writer,
                    signing: &signing,
                    data_key: self.keys.sealed(kind),
                };
                let random = &*self.repo.env().random;
                let mut sealer = SegmentSealer::new(self.keys.key(kind), self.repo.id(), 1).unwrap();
                let buffer = BufferPool::new(1).take(&|| false).unwrap();
                let mut pack = PackBuilder::new(kind, self.repo.id(), buffer);
                for chunks in self.chunks[kind as usize].chunks(self.a_segment) {
                    let plain: Vec<u8> = chunks.iter().flat_map(|(_, bytes)| bytes).copied().collect();
                    let mut stored = Vec::new();
                    let ids = chunks.iter().map(|(id, _)| id);
                    let entry = sealer.seal(&plain, ids, random, &mut stored).unwrap();
                    let rows: Vec<_> = chunks.iter().map(|(id, bytes)| (*id, bytes.len() as u32)).collect();
                    pack.push(entry, &stored, &rows);
                }
                if pack.is_empty() {
                    continue;
                }
                let pack = pack.finish(&keys, random, false).unwrap();
                self.repo.put_pack(&pack).await.unwrap();
                let place = (pack.id, pack.kind, pack.bytes.len() as u64);
                Repository::index_pack(&mut builder, place, &pack.footer, &pack.directory).unwrap();
            }
            self.repo.put_index(&builder.finish(), &signing).await.unwrap();
        }
        snapshot_of(root)
    }
}

/// What restores take, without an object in the store.
pub(crate) fn snapshot_of(root: TreeRef) -> SnapshotInfo {
    SnapshotInfo {
        forgotten: None,
        labels: None,
        id: crate::id::SnapshotId::new([0; 32]),
        writer: crate::id::WriterId::new([0; 16]),
        sequence: 0,
        confirmed: true,
        has_confirmation: true,
        stored: Timestamp(0),
        brought: false,
        snapshot: Snapshot { root: Some(root), ..Snapshot::empty() },
    }
}

/// The copies of a chunk.
pub(crate) async fn copies(repo: &Repository, id: &ChunkId) -> Vec<Location> {
    let view = repo.load_index().await.unwrap().view;
    view.locate(id).map(Result::unwrap).collect()
}

/// Changes one byte of an object.
pub(crate) async fn flip(objects: &InMemory, pack: PackId, at: u32) {
    let path = ObjectPath::from(ObjectName::Pack(pack).key());
    let mut bytes = objects.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[at as usize] ^= 1;
    objects.put(&path, bytes.into()).await.unwrap();
}

/// Removes a pack.
pub(crate) async fn remove(objects: &InMemory, pack: PackId) {
    objects.delete(&ObjectPath::from(ObjectName::Pack(pack).key())).await.unwrap();
}
