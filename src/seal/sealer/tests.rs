use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::compress::CompressError;
use crate::crypto::testing::{Broken, Seeded, to_hex};
use crate::crypto::{CryptoError, SecretKey};
use crate::format::envelope::ChunkKind;
use crate::id::RunId;

const REPOSITORY: RepositoryId = RepositoryId::new([1; 16]);

fn key(byte: u8) -> DataKey {
    DataKey::new(SecretKey::from_bytes([byte; 32]), RunId::new([0; 16]), ChunkKind::Data)
}

fn ids(count: u8) -> Vec<ChunkId> {
    (0..count).map(|n| ChunkId::new([n; 32])).collect()
}

fn new_sealer(level: i32) -> SegmentSealer {
    SegmentSealer::new(&key(2), REPOSITORY, level).unwrap()
}

fn noise(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    Seeded::new(len as u64).fill(&mut out).unwrap();
    out
}

/// A sealed segment of compressible or of random plaintext.
fn sealed(plain: &[u8]) -> (SegmentEntry, Vec<u8>) {
    let mut out = Vec::new();
    let entry = new_sealer(1).seal(plain, &ids(3), &Seeded::new(1), &mut out).unwrap();
    (entry, out)
}

fn open(entry: &SegmentEntry, stored: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut out = b"older content".to_vec();
    let opened = SegmentOpener::new(REPOSITORY).unwrap().open(&key(2), entry, stored, &mut out);
    assert!(opened.is_ok() || out.is_empty(), "something is left behind");
    opened.map(|()| out)
}

#[test]
fn a_raw_segment_is_fixed_by_key_randomness_and_chunks() {
    let (entry, stored) = sealed(b"lifeboat");
    assert_eq!(entry.codec, Codec::Raw);
    assert_eq!((entry.plain_len, entry.stored_len, entry.offset), (8, 24, 0));
    assert_eq!(to_hex(&[entry.n1, entry.n2].concat()), "caca6873f8d4525f9d7a0019881c5485a43c2b181235ee18");
    assert_eq!(to_hex(&stored), "c92f0268708c10708419dd495eb53d43f18c7f97e274ef49");
}

#[test]
fn stored_bytes_are_appended_and_open_anywhere() {
    let text = b"all hands on deck ".repeat(5000);
    let mut sealer = new_sealer(3);
    let mut pack = b"header".to_vec();
    let mut entries = Vec::new();
    for plain in [&text[..], &noise(100_000), b""] {
        let at = pack.len();
        let entry = sealer.seal(plain, &ids(1), &Seeded::new(2), &mut pack).unwrap();
        assert_eq!(pack.len() - at, entry.stored_len as usize);
        entries.push((at, entry));
    }
    assert!(pack.starts_with(b"header"));
    assert_eq!(entries[0].1.codec, Codec::Zstd);
    assert_eq!(entries[1].1.codec, Codec::Raw);
    for ((at, entry), plain) in entries.iter().zip([&text[..], &noise(100_000), b""]) {
        let stored = &pack[*at..*at + entry.stored_len as usize];
        let moved = SegmentEntry { offset: 77, data_key: 3, origin: 4, flags: 1, ..*entry };
        assert_eq!(open(&moved, stored).unwrap(), plain);
    }
}

#[test]
fn a_segment_opens_only_as_what_it_was_sealed_as() {
    for plain in [b"mast ".repeat(1000), noise(20_000)] {
        let (entry, stored) = sealed(&plain);
        let with = |key: &DataKey, repository: RepositoryId| {
            SegmentOpener::new(repository).unwrap().open(key, &entry, &stored, &mut Vec::new())
        };
        let tree = DataKey::new(SecretKey::from_bytes([2; 32]), RunId::new([0; 16]), ChunkKind::Tree);
        let refused = Err(SealError::Crypto(CryptoError::Authentication));
        assert_eq!(with(&key(2), REPOSITORY), Ok(()));
        assert_eq!(with(&key(3), REPOSITORY), refused);
        assert_eq!(with(&key(2), RepositoryId::new([9; 16])), refused);
        assert_eq!(with(&tree, REPOSITORY), refused);

        let other = if entry.codec == Codec::Raw { Codec::Zstd } else { Codec::Raw };
        let (mut n1, mut n2) = (entry.n1, entry.n2);
        n1[0] ^= 1;
        n2[11] ^= 1;
        for wrong in [
            SegmentEntry { codec: other, ..entry },
            SegmentEntry { plain_len: entry.plain_len - 1, ..entry },
            SegmentEntry { plain_len: entry.plain_len + 1, ..entry },
            SegmentEntry { plain_len: u32::MAX, ..entry },
            SegmentEntry { stored_len: entry.stored_len - 1, ..entry },
            SegmentEntry { stored_len: 3, ..entry },
            SegmentEntry { n1, ..entry },
            SegmentEntry { n2, ..entry },
        ] {
            assert!(open(&wrong, &stored).is_err(), "{wrong:?}");
        }
        for at in [0, stored.len() / 2, stored.len() - 17, stored.len() - 1] {
            let mut bad = stored.clone();
            bad[at] ^= 4;
            assert_eq!(open(&entry, &bad), Err(SealError::Crypto(CryptoError::Authentication)));
        }
        assert!(open(&entry, &stored[..stored.len() - 1]).is_err());
        assert!(open(&SegmentEntry { stored_len: 0, ..entry }, b"").is_err());
    }
}

#[test]
fn a_frame_that_does_not_hold_the_plaintext_is_never_stored() {
    let plain = b"bow and stern ".repeat(3000);
    let damages: [fn(&mut Vec<u8>); 4] = [
        |frame| {
            let at = frame.len() / 2;
            frame[at] ^= 1;
        },
        |frame| frame.truncate(frame.len() - 1),
        |frame| frame.push(0),
        |frame| Compressor::new(1).unwrap().compress(&b"bow and stem! ".repeat(3000), frame).unwrap(),
    ];
    for (n, damage) in damages.into_iter().enumerate() {
        let mut sealer = new_sealer(1);
        sealer.damage = Some(damage);
        let mut out = b"kept".to_vec();
        let refused = sealer.seal(&plain, &ids(1), &Seeded::new(3), &mut out);
        assert!(matches!(refused, Err(SealError::RoundTrip { .. })), "damage {n}: {refused:?}");
        assert_eq!(out, b"kept");
        sealer.damage = None;
        assert!(sealer.seal(&plain, &ids(1), &Seeded::new(3), &mut out).is_ok(), "the sealer goes on");
    }
}

#[test]
fn a_frame_of_another_length_is_refused_although_it_authenticates() {
    // A holder of the data key is hostile: a right tag over a frame that opens to more than the entry says.
    let mut sealer = new_sealer(1);
    let mut out = Vec::new();
    Compressor::new(1).unwrap().compress(&vec![0; 6 << 20], &mut sealer.frame).unwrap();
    let (n1, n2) = key(2).segment_nonces(&[0; 32], (Codec::Zstd, 1), &ids(1));
    out.extend_from_slice(&sealer.frame);
    let aad = segment_aad(&REPOSITORY, ChunkKind::Data, 1000, Codec::Zstd);
    let tag = key(2).segment_key(&n1).seal_in_place(n2, &aad, &mut out).unwrap();
    out.extend_from_slice(&tag);
    let (stored_len, plain_len) = (out.len() as u32, 1000);
    let (offset, flags, data_key, origin, codec) = (0, 0, 0, 0, Codec::Zstd);
    let entry = SegmentEntry { offset, stored_len, plain_len, codec, flags, data_key, origin, n1, n2 };
    assert_eq!(
        open(&entry, &out),
        Err(SealError::Compress(CompressError::Length { expected: 1000, found: 6 << 20 }))
    );
}

#[test]
fn no_two_segments_share_key_and_nonce() {
    let (mut sealer, random, ids) = (new_sealer(1), Seeded::new(4), ids(2));
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for _ in 0..5000 {
        out.clear();
        let entry = sealer.seal(b"the same content", &ids, &random, &mut out).unwrap();
        assert!(seen.insert((entry.n1, entry.n2)));
    }
    // A machine that repeats its randomness repeats neither over other chunks.
    let entry = |ids: &[ChunkId]| {
        let mut out = Vec::new();
        let entry = new_sealer(1).seal(b"x", ids, &Seeded::new(5), &mut out).unwrap();
        (entry.n1, entry.n2)
    };
    assert_eq!(entry(&ids), entry(&ids));
    assert_ne!(entry(&ids), entry(&ids[..1]));
}

#[test]
fn what_cannot_be_sealed_leaves_nothing() {
    let mut out = b"kept".to_vec();
    let long = vec![0; SEGMENT_PLAIN_MAX + 1];
    let mut sealer = new_sealer(1);
    let (random, ids) = (Seeded::new(6), ids(1));
    assert_eq!(sealer.seal(&long, &ids, &random, &mut out), Err(SealError::TooLong { len: long.len() }));
    assert_eq!(sealer.seal(b"x", &[], &random, &mut out), Err(SealError::NoChunks { len: 1 }));
    assert!(matches!(sealer.seal(b"x", &ids, &Broken, &mut out), Err(SealError::Crypto(_))));
    assert_eq!(out, b"kept");
    let entry = sealer.seal(&long[1..], &ids, &random, &mut out).unwrap();
    assert_eq!(open(&entry, &out[4..]).unwrap().len(), SEGMENT_PLAIN_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_content_comes_back(
        len in prop_oneof![0usize..300, 0usize..20_000, 0usize..=2 << 20],
        mask in prop_oneof![Just(0u8), Just(0x0f), Just(0xff)],
        level in -3i32..=4,
        count in 1u8..5,
    ) {
        let plain: Vec<u8> = noise(len).iter().map(|byte| byte & mask).collect();
        let mut out = Vec::new();
        let entry = new_sealer(level).seal(&plain, &ids(count), &Seeded::new(7), &mut out).unwrap();
        prop_assert!(entry.stored_len as usize <= len + TAG_LEN);
        prop_assert_eq!(open(&entry, &out).unwrap(), plain);
    }
}
