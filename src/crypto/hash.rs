//! Names: the keyed hash of a chunk, the plain hash of an object, the hash of its whole name.

use super::SecretKey;
use crate::format::envelope::ChunkKind;
use crate::format::layout::ObjectName;
use crate::id::{ChunkId, ClusterId, LogHash, NameHash, ObjectHash};

/// The id of a chunk: keyed BLAKE3-256 of the plaintext and then one byte for the kind.
///
/// The byte comes last because in front it would shift the plaintext against the tree of BLAKE3, which then cannot hash
/// sixteen pieces at once until far into the chunk: 4.8 instead of 9.2 GB/s at 64 KiB, 0.9 instead of 2.4 at 4 KiB.
///
/// `key` is the dedup root's key for [`super::context::CHUNK_ID`].
pub fn chunk_id(key: &SecretKey, kind: ChunkKind, plaintext: &[u8]) -> ChunkId {
    let mut hasher = blake3::Hasher::new_keyed(key.expose());
    hasher.update(plaintext);
    hasher.update(&[kind as u8]);
    ChunkId::new(*hasher.finalize().as_bytes())
}

/// The id of the database cluster that people call so: the first 16 bytes of keyed BLAKE3 of the name.
///
/// `key` is the index key's key for [`super::context::CLUSTER_ID`].
pub fn cluster_id(key: &SecretKey, name: &str) -> ClusterId {
    let hash = *blake3::keyed_hash(key.expose(), name.as_bytes()).as_bytes();
    let mut id = [0; ClusterId::LEN];
    id.copy_from_slice(&hash[..ClusterId::LEN]);
    ClusterId::new(id)
}

/// What tells the content of a log file from another: its keyed BLAKE3-256.
///
/// `key` is the dedup root's key for [`super::context::LOG_NAME`].
pub fn log_hash(key: &SecretKey, content: &[u8]) -> LogHash {
    LogHash::new(*blake3::keyed_hash(key.expose(), content).as_bytes())
}

/// The hash that ends an object's name.
pub fn object_hash(bytes: &[u8]) -> ObjectHash {
    ObjectHash::new(*blake3::hash(bytes).as_bytes())
}

/// By what a revocation names an object of this name.
pub fn name_hash(name: &ObjectName) -> NameHash {
    NameHash::new(*blake3::hash(name.key().as_bytes()).as_bytes())
}

/// [`object_hash`] of bytes that come in pieces.
#[derive(Debug, Clone, Default)]
pub struct ObjectHasher(blake3::Hasher);

impl ObjectHasher {
    /// Has seen no bytes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes so far.
    pub fn finish(&self) -> ObjectHash {
        ObjectHash::new(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::WriterId;

    fn keyed(byte: u8, kind: ChunkKind, plain: &[u8]) -> String {
        chunk_id(&SecretKey::from_bytes([byte; 32]), kind, plain).to_string()
    }

    #[test]
    fn the_id_of_a_chunk_is_the_keyed_hash_of_plaintext_and_kind() {
        assert_eq!(
            keyed(1, ChunkKind::Data, b"lifeboat"),
            "4b7c84ed883fcf00aa5eacc4b11815b75fe4861c77443fbb64e5cbebb9fcaefb"
        );
        for len in [0, 1, 500, 1023, 1024, 65_536, 100_000] {
            let plain: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let joined = [&plain[..], &[1]].concat();
            let oracle = blake3::keyed_hash(&[9; 32], &joined).to_string();
            assert_eq!(keyed(9, ChunkKind::Tree, &plain), oracle, "{len}");
        }
    }

    #[test]
    fn key_kind_and_plaintext_all_enter_the_id() {
        let id = keyed(1, ChunkKind::Data, b"lifeboat");
        for other in [
            keyed(2, ChunkKind::Data, b"lifeboat"),
            keyed(1, ChunkKind::Tree, b"lifeboat"),
            keyed(1, ChunkKind::Data, b"lifeboat\0"),
            keyed(1, ChunkKind::Data, b"\0lifeboat"),
        ] {
            assert_ne!(id, other);
        }
    }

    #[test]
    fn the_whole_name_enters_the_hash_of_a_name() {
        let (hash, writer) = (ObjectHash::new([0xab; 32]), WriterId::new([7; 16]));
        for (name, hashed) in [
            (
                ObjectName::Index(writer, hash),
                "cdafd5468e4745d4162140dee7c24442dc3be1da6d0ec95fb31d9a924a9bcc25",
            ),
            (
                ObjectName::Snapshot(writer, 12, hash.into()),
                "cc14cbe1aeca39144ccfe6d879204c39832ccd50483e79fbbf46e81afbbd0ec5",
            ),
        ] {
            assert_eq!(name_hash(&name).to_string(), hashed);
        }
    }

    #[test]
    fn an_object_hash_does_not_depend_on_the_pieces() {
        let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let mut hasher = ObjectHasher::new();
        bytes.chunks(777).for_each(|piece| hasher.update(piece));
        assert_eq!(hasher.finish(), object_hash(&bytes));
        assert_eq!(
            object_hash(b"").to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }
}
