//! Files that hold one JSON document: the config, indexes, snapshots.

use super::crypto::{Key, OVERHEAD};
use super::error::Fault;
use crate::compress::decompress_unsized;

/// First byte of a document that is compressed.
const COMPRESSED: u8 = 2;

/// Opens a file and gives its document of at most `most` bytes.
pub(super) fn open(key: &Key, sealed: &[u8], most: usize) -> Result<Vec<u8>, Fault> {
    let too_long = |len: usize| Fault::TooLong { len: len as u64, most: most as u64 };
    if sealed.len() > most + OVERHEAD + 1 {
        return Err(too_long(sealed.len()));
    }
    let mut buffer = sealed.to_vec();
    let plain = key.open(&mut buffer)?;
    match plain.first() {
        Some(b'{' | b'[') => Ok(plain.to_vec()),
        Some(&COMPRESSED) => decompress_unsized(&plain[1..], most).map_err(Fault::Compression),
        Some(_) => Err(Fault::Value { what: "the version of its encoding" }),
        None => Err(Fault::Truncated),
    }
}

#[cfg(test)]
mod tests {
    use super::super::crypto::tests::seal;
    use super::*;

    #[test]
    fn plain_and_compressed_documents_are_read_and_bounded() {
        let key = Key::new(&[1; 32], &[2; 16], &[3; 16]);
        let sealed = |plain: &[u8]| seal(&key, [9; 16], plain);
        let compressed = zstd::stream::encode_all(&b"{}"[..], 3).unwrap();
        assert_eq!(open(&key, &sealed(b"{}"), 100).unwrap(), b"{}");
        assert_eq!(open(&key, &sealed(&[&[2], &compressed[..]].concat()), 100).unwrap(), b"{}");
        let bomb = zstd::stream::encode_all(&vec![b' '; 10_000_000][..], 3).unwrap();
        let bomb = sealed(&[&[2], &bomb[..]].concat());
        assert!(matches!(open(&key, &bomb, 100_000), Err(Fault::Compression(_))));
        assert!(matches!(open(&key, &sealed(&[b'{'; 200]), 100), Err(Fault::TooLong { .. })));
        for bad in [&b""[..], b"\x01{}", b"x", b"\x02", b"\x02{}"] {
            assert!(open(&key, &sealed(bad), 100).is_err(), "{bad:?}");
        }
        assert!(matches!(open(&key, b"{}", 100), Err(Fault::Truncated)));
    }
}
