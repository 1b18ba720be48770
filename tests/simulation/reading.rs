//! Reads snapshots straight from the bytes of packs, past index, cache and store.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use lifeboat::crypto::{ObjectSealer, chunk_id, context};
use lifeboat::format::content::{ChunkRow, Content, ListPage};
use lifeboat::format::envelope::{ChunkKind, ObjectKind};
use lifeboat::format::node::{Node, NodeKind};
use lifeboat::format::pack::Directory;
use lifeboat::format::snapshot::{Snapshot, SnapshotObject};
use lifeboat::format::tree::{Page, TreeRef};
use lifeboat::id::ChunkId;
use lifeboat::repo::Repository;
use lifeboat::seal::SegmentOpener;

use crate::tree::CONTENTS;

/// The path that trees are stored under.
pub const STORED: &str = "s";

/// What a snapshot holds.
#[derive(Debug, Default)]
pub struct Found {
    /// Chunks of each file.
    pub files: HashMap<String, Vec<ChunkId>>,
    /// All chunks, of trees too.
    pub chunks: Vec<ChunkId>,
}

/// A pack's directory and bytes.
pub type Place = (Arc<Directory>, Bytes);

pub struct Reader {
    repo: Arc<Repository>,
    opener: SegmentOpener,
    pages: HashMap<ChunkId, Arc<Vec<u8>>>,
    contents: Arc<Vec<Vec<ChunkId>>>,
}

/// The chunks of every content of the pool.
pub fn content_ids(repo: &Repository) -> Vec<Vec<ChunkId>> {
    let cutter = repo.cutter().unwrap();
    let key = repo.dedup_key(context::CHUNK_ID).unwrap();
    let cut = |content: &Vec<u8>| {
        let (mut ids, mut rest) = (Vec::new(), &content[..]);
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(cutter.cut(rest));
            ids.push(chunk_id(&key, ChunkKind::Data, chunk));
            rest = after;
        }
        ids
    };
    CONTENTS.iter().map(cut).collect()
}

impl Reader {
    pub fn new(repo: Arc<Repository>, contents: Arc<Vec<Vec<ChunkId>>>) -> Self {
        let opener = SegmentOpener::new(repo.id()).unwrap();
        Self { repo, opener, pages: HashMap::new(), contents }
    }

    pub fn is_content(&self, number: usize, ids: &[ChunkId]) -> bool {
        self.contents[number] == ids
    }

    /// What this snapshot holds; what cannot be read of it is an error, or is passed over.
    pub fn read(
        &mut self,
        (snapshot, passes_over): (&[u8], bool),
        place: impl Fn(&ChunkId) -> Option<Place>,
    ) -> Result<Found, String> {
        let repository = self.repo.id();
        let object = SnapshotObject::decode(snapshot, &repository).map_err(|e| e.to_string())?;
        let key = self.repo.open_data_key(object.sealed.data_key).map_err(|e| e.to_string())?;
        let mut body = object.sealed.body.to_vec();
        ObjectSealer::new(key.base(), &object.sealed.salt, repository, ObjectKind::Snapshot)
            .open_block(0, 1, &mut body)
            .map_err(|e| e.to_string())?;
        let snapshot = Snapshot::decode_body(&body).map_err(|e| e.to_string())?;
        let mut found = Found::default();
        let mut todo: Vec<(String, TreeRef)> =
            snapshot.root.map(|root| (String::new(), root)).into_iter().collect();
        while let Some((path, tree)) = todo.pop() {
            found.chunks.push(tree.id);
            let page = match self.page(&tree.id, &place) {
                Err(_) if passes_over => continue,
                page => page?,
            };
            match Page::decode(&page, tree.level).map_err(|e| e.to_string())? {
                Page::Pages(rows) => {
                    let below = |row: lifeboat::format::tree::PageRow| {
                        (path.clone(), TreeRef { level: tree.level - 1, id: row.id, len: row.len })
                    };
                    todo.extend(rows.into_iter().map(below));
                }
                Page::Nodes(nodes) => {
                    for node in nodes {
                        let node = Node::decode(node).map_err(|e| e.to_string())?;
                        let name = format!("{path}/{}", String::from_utf8_lossy(&node.name));
                        if node.kind == NodeKind::Directory {
                            todo.extend(node.tree.map(|tree| (name, tree)));
                            continue;
                        }
                        let rows = self.rows(node.content, &mut found, &place)?;
                        let ids: Vec<ChunkId> = rows.iter().map(|row| row.id).collect();
                        found.chunks.extend(&ids);
                        let name = name.trim_start_matches('/').split_once('/').map_or("", |(_, rest)| rest);
                        found.files.insert(name.to_owned(), ids);
                    }
                }
            }
        }
        Ok(found)
    }

    fn rows(
        &mut self,
        content: Content,
        found: &mut Found,
        place: &impl Fn(&ChunkId) -> Option<Place>,
    ) -> Result<Vec<ChunkRow>, String> {
        let list = match content {
            Content::Inline(rows) => return Ok(rows),
            Content::Paged(list) => list,
        };
        found.chunks.push(list.id);
        match ListPage::decode(&self.page(&list.id, place)?).map_err(|e| e.to_string())? {
            ListPage::Rows(rows) => Ok(rows),
            ListPage::Pages(_) => Err("a file of the pool needs no list of two levels".to_owned()),
        }
    }

    fn page(
        &mut self,
        id: &ChunkId,
        place: &impl Fn(&ChunkId) -> Option<Place>,
    ) -> Result<Arc<Vec<u8>>, String> {
        let (directory, bytes) = place(id).ok_or_else(|| format!("no pack holds the page {id}"))?;
        if let Some(page) = self.pages.get(id) {
            return Ok(Arc::clone(page));
        }
        let chunk = directory.chunks.iter().find(|chunk| chunk.id == *id).unwrap();
        let segment = &directory.segments[usize::from(chunk.segment)];
        let sealed = &directory.data_keys[usize::from(segment.data_key)];
        let key = self.repo.open_data_key(sealed).map_err(|e| e.to_string())?;
        let start = segment.offset as usize;
        let stored = &bytes[start..start + segment.stored_len as usize];
        let mut plain = Vec::new();
        self.opener.open(&key, segment, stored, &mut plain).map_err(|e| e.to_string())?;
        let start = chunk.offset as usize;
        let page = Arc::new(plain[start..start + chunk.len as usize].to_vec());
        self.pages.insert(*id, Arc::clone(&page));
        Ok(page)
    }
}
