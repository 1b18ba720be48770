//! The header of a pack, which lies at its end: `blobs | sealed header | length of the sealed header u32`.

use super::blobs::{BlobKind, BlobRow};
use super::crypto::{Key, OVERHEAD};
use super::error::Fault;
use crate::id::ResticId;

/// Most bytes of a sealed header, which is what restic writes at most.
pub(super) const HEADER_MAX: u64 = 16 << 20;
/// Bytes of the length behind it.
pub(super) const LENGTH_LEN: u64 = 4;

/// Where the sealed header of a pack of `size` bytes begins, from the last bytes of the pack.
pub(super) fn header_start(size: u64, tail: &[u8]) -> Result<u64, Fault> {
    let length = tail.last_chunk().ok_or(Fault::Truncated)?;
    let length = u64::from(u32::from_le_bytes(*length));
    if length > HEADER_MAX {
        return Err(Fault::TooLong { len: length, most: HEADER_MAX });
    }
    size.checked_sub(LENGTH_LEN + length).ok_or(Fault::Truncated)
}

/// Reads a sealed header whose blobs take up the `blobs_len` bytes before it. `pack` is what the rows say of their pack.
pub(super) fn read_header(
    key: &Key,
    sealed: &[u8],
    blobs_len: u64,
    pack: u32,
) -> Result<Vec<BlobRow>, Fault> {
    let mut sealed = sealed.to_vec();
    let mut rest = &*key.open(&mut sealed)?;
    let mut rows = Vec::new();
    let mut offset = 0_u64;
    while let Some((kind, after)) = rest.split_first() {
        let compressed = kind & 2 != 0;
        let kind = match kind {
            0 | 2 => BlobKind::Data,
            1 | 3 => BlobKind::Tree,
            _ => return Err(Fault::Value { what: "the type of a blob in its header" }),
        };
        let (length, after) = take_u32(after)?;
        let (plain, after) = if compressed { take_u32(after)? } else { (0, after) };
        let (id, after) = after.split_first_chunk::<32>().ok_or(Fault::Truncated)?;
        let end = offset + u64::from(length);
        if (length as usize) < OVERHEAD || end > blobs_len {
            return Err(Fault::Value { what: "the length of a blob in its header" });
        }
        let offset_of = offset as u32;
        rows.push(BlobRow { id: ResticId::new(*id), kind, pack, offset: offset_of, length, plain });
        (rest, offset) = (after, end);
    }
    Ok(rows)
}

fn take_u32(bytes: &[u8]) -> Result<(u32, &[u8]), Fault> {
    let (number, rest) = bytes.split_first_chunk().ok_or(Fault::Truncated)?;
    Ok((u32::from_le_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::super::crypto::tests::seal;
    use super::*;

    fn key() -> Key {
        Key::new(&[1; 32], &[2; 16], &[3; 16])
    }

    fn entry(kind: u8, length: u32, plain: Option<u32>) -> Vec<u8> {
        let plain = plain.map(u32::to_le_bytes);
        [&[kind][..], &length.to_le_bytes(), plain.as_ref().map_or(&[], |p| &p[..]), &[kind; 32]].concat()
    }

    #[test]
    fn offsets_follow_from_lengths() {
        let plain = [entry(0, 40, None), entry(3, 50, Some(700)), entry(1, 32, None)].concat();
        let rows = read_header(&key(), &seal(&key(), [5; 16], &plain), 122, 9).unwrap();
        let seen: Vec<_> = rows.iter().map(|r| (r.kind, r.pack, r.offset, r.length, r.plain)).collect();
        assert_eq!(
            seen,
            [(BlobKind::Data, 9, 0, 40, 0), (BlobKind::Tree, 9, 40, 50, 700), (BlobKind::Tree, 9, 90, 32, 0)]
        );
    }

    #[test]
    fn hostile_headers_are_errors() {
        for plain in [
            entry(4, 40, None),
            entry(0, 31, None),
            entry(0, 0, None),
            entry(0, 123, None),
            entry(0, u32::MAX, None),
            [entry(0, 100, None), entry(0, 100, None)].concat(),
            entry(0, 40, None)[..20].to_vec(),
            entry(2, 40, None),
            vec![0],
        ] {
            assert!(read_header(&key(), &seal(&key(), [5; 16], &plain), 122, 0).is_err(), "{plain:?}");
        }
        assert!(matches!(read_header(&key(), &[0; 64], 0, 0), Err(Fault::Authentication)));
    }

    #[test]
    fn the_length_at_the_end_is_not_believed() {
        assert_eq!(header_start(100, &40_u32.to_le_bytes()).unwrap(), 56);
        assert!(header_start(100, &97_u32.to_le_bytes()).is_err());
        assert!(header_start(u64::MAX, &u32::MAX.to_le_bytes()).is_err());
        assert!(header_start(2, &[0, 0]).is_err());
    }
}
