//! What each derived key is for. These strings are stored format: changing one changes every key made with it.
//!
//! A context is given to [`SecretKey::derive`](super::SecretKey::derive). One context, one purpose, one kind of parent key.

/// From the dedup root: names chunks.
pub const CHUNK_ID: &str = "lifeboat v1 chunk id";
/// From the dedup root: the table of the content-defined cutter.
pub const CUTTER: &str = "lifeboat v1 cutter";
/// From the dedup root: where the pages of a tree and of a chunk list end.
pub const PAGE_BOUNDARY: &str = "lifeboat v1 page boundary";
/// From the dedup root: names the inode that several entries share.
pub const HARD_LINK: &str = "lifeboat v1 hard link";
/// From the dedup root: hashes of a database file's pages.
pub const PAGE_HASH: &str = "lifeboat v1 page hash";
/// From the dedup root: the plaintext hash in the name of a log segment.
pub const LOG_NAME: &str = "lifeboat v1 log name";
/// From the dedup root: the last run's state on the client.
pub const LOCAL_STATE: &str = "lifeboat v1 local state";
/// From the index key: index objects.
pub const INDEX: &str = "lifeboat v1 index";
/// From the index key: ids of database clusters, which are made of their names.
pub const CLUSTER_ID: &str = "lifeboat v1 cluster id";
/// From the base key of an object: the parent of the keys of single objects.
pub const OBJECT_BLOCK: &str = "lifeboat v1 object block";
/// From the base key of an object: its salt.
pub const OBJECT_SALT: &str = "lifeboat v1 object salt";
/// From a data key: the parent of the keys of single segments.
pub const SEGMENT_KEY: &str = "lifeboat v1 segment key";
/// From a data key: `N1 || N2` of segments.
pub const SEGMENT_NONCE: &str = "lifeboat v1 segment nonce";
/// From a key file: wraps a key slot.
pub const SLOT_KEY_FILE: &str = "lifeboat v1 slot key file";
/// From recovery words: wraps a key slot.
pub const SLOT_WORDS: &str = "lifeboat v1 slot recovery words";
/// From the index key: the parent of the keys of single slots' notes.
pub const SLOT_NOTE: &str = "lifeboat v1 slot note";
/// From fresh random bytes: the randomness of one encapsulation.
pub const ENCAPSULATION: &str = "lifeboat v1 encapsulation";

/// All of them.
pub const ALL: [&str; 17] = [
    CHUNK_ID,
    CUTTER,
    PAGE_BOUNDARY,
    HARD_LINK,
    PAGE_HASH,
    LOG_NAME,
    LOCAL_STATE,
    INDEX,
    CLUSTER_ID,
    OBJECT_BLOCK,
    OBJECT_SALT,
    SEGMENT_KEY,
    SEGMENT_NONCE,
    SLOT_KEY_FILE,
    SLOT_WORDS,
    SLOT_NOTE,
    ENCAPSULATION,
];
