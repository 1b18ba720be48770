//! Makes repositories of restic for tests, honest or not. One in memory costs nothing; what restic itself makes is imported by
//! the tests of the program.

use bytes::Bytes;
use serde_json::{Value, json};

use super::crypto::tests::seal;
use super::crypto::{KdfCost, Key, name_of};
use super::{BlobKind, Restic};
use crate::id::ResticId;
use crate::ops::testing::memory_store;
use crate::store::{Key as StoreKey, ReadOnly, Store};

/// The password of every forged repository.
pub(crate) const PASSWORD: &str = "a password";

/// A repository under construction.
pub(crate) struct Forge {
    pub(crate) store: Store,
    key: Key,
    pack: Vec<u8>,
    header: Vec<u8>,
    blobs: Vec<Value>,
    number: u8,
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |part: &[u8]| {
        let bits =
            part.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        let digit = |at: usize| char::from(DIGITS[(bits >> (18 - 6 * at) & 63) as usize]);
        (0..4).map(|at| if at <= part.len() { digit(at) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

impl Forge {
    /// An empty repository with a config and a key.
    pub(crate) async fn new() -> Self {
        let key = Key::new(&[1; 32], &[2; 16], &[3; 16]);
        let store = memory_store();
        let forge = Self { store, key, pack: Vec::new(), header: Vec::new(), blobs: Vec::new(), number: 0 };
        let config = json!({"version": 2, "id": "ab".repeat(32), "chunker_polynomial": "25b468838dcb75"});
        forge.put("config", seal(&forge.key, [9; 16], config.to_string().as_bytes())).await;
        let master =
            json!({"mac": {"k": base64(&[2; 16]), "r": base64(&[3; 16])}, "encrypt": base64(&[1; 32])});
        let user = Key::derive(PASSWORD.as_bytes(), b"salt", KdfCost { n: 2, r: 8, p: 1 }).unwrap();
        let data = base64(&seal(&user, [8; 16], master.to_string().as_bytes()));
        let file = json!({"kdf": "scrypt", "N": 2, "r": 8, "p": 1, "salt": base64(b"salt"), "data": data});
        forge.put_named("keys/", file.to_string().into_bytes()).await;
        forge
    }

    /// Opens it.
    pub(crate) async fn open(&self) -> Restic {
        Restic::open(ReadOnly::new(self.store.clone()), PASSWORD).await.unwrap()
    }

    async fn put(&self, key: &str, bytes: Vec<u8>) {
        self.store.put(&StoreKey::new(key).unwrap(), vec![Bytes::from(bytes)]).await.unwrap();
    }

    async fn put_named(&self, directory: &str, bytes: Vec<u8>) -> ResticId {
        let id = name_of(&bytes);
        self.put(&format!("{directory}{id}"), bytes).await;
        id
    }

    fn sealed(&mut self, plain: &[u8]) -> Vec<u8> {
        self.number = self.number.wrapping_add(1);
        seal(&self.key, [self.number; 16], plain)
    }

    /// Adds a blob to the open pack.
    pub(crate) fn blob(&mut self, kind: BlobKind, content: &[u8]) -> ResticId {
        let id = name_of(content);
        let sealed = self.sealed(content);
        self.header.push(kind as u8);
        self.header.extend_from_slice(&(sealed.len() as u32).to_le_bytes());
        self.header.extend_from_slice(id.as_bytes());
        self.blobs.push(json!({
            "id": id.to_string(), "type": kind.word(), "offset": self.pack.len(), "length": sealed.len(),
        }));
        self.pack.extend_from_slice(&sealed);
        id
    }

    /// Adds a directory with these nodes.
    pub(crate) fn tree(&mut self, nodes: &[Value]) -> ResticId {
        self.blob(BlobKind::Tree, format!("{}\n", json!({ "nodes": nodes })).as_bytes())
    }

    /// A file's node; its content becomes blobs.
    pub(crate) fn file(&mut self, name: &str, content: &[&[u8]]) -> Value {
        let ids: Vec<String> =
            content.iter().map(|part| self.blob(BlobKind::Data, part).to_string()).collect();
        json!({"name": name, "type": "file", "mode": 0o644, "content": ids})
    }

    /// Ends the pack; what it says of its blobs, for an index, `edit` may change.
    pub(crate) async fn end_pack(&mut self, edit: impl FnOnce(&mut Vec<Value>)) -> (ResticId, Value) {
        let header = std::mem::take(&mut self.header);
        let header = self.sealed(&header);
        let mut pack = std::mem::take(&mut self.pack);
        pack.extend_from_slice(&header);
        pack.extend_from_slice(&(header.len() as u32).to_le_bytes());
        let id = name_of(&pack);
        self.put(&format!("data/{}/{id}", &id.to_string()[..2]), pack).await;
        let mut blobs = std::mem::take(&mut self.blobs);
        edit(&mut blobs);
        (id, json!({"id": id.to_string(), "blobs": blobs}))
    }

    /// Puts an index of these packs.
    pub(crate) async fn index(&mut self, packs: &[Value]) -> ResticId {
        let sealed = self.sealed(json!({"supersedes": [], "packs": packs}).to_string().as_bytes());
        self.put_named("index/", sealed).await
    }

    /// Puts a snapshot of this directory.
    pub(crate) async fn snapshot(&mut self, tree: &ResticId, time: &str) -> ResticId {
        let snapshot =
            json!({"time": time, "tree": tree.to_string(), "paths": ["/src"], "hostname": "alpha"});
        let sealed = self.sealed(snapshot.to_string().as_bytes());
        self.put_named("snapshots/", sealed).await
    }

    /// Ends the pack, indexes it as it is, and puts a snapshot of this directory.
    pub(crate) async fn finish(&mut self, tree: &ResticId) -> ResticId {
        let (_, pack) = self.end_pack(|_| {}).await;
        self.index(&[pack]).await;
        self.snapshot(tree, "2020-01-01T00:00:00Z").await
    }
}
