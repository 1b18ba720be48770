use proptest::prelude::*;

use super::super::testing::hex;
use super::*;

fn key(text: &str) -> SecretKey {
    SecretKey::from_bytes(hex(text).try_into().unwrap())
}

/// Cases 13 to 16 of the GCM specification, as in NIST's submission: key, nonce, AAD, plaintext, ciphertext, tag.
const VECTORS: [[&str; 6]; 4] = [
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "",
        "",
        "530f8afbc74536b9a963b4f1c4cb738b",
    ],
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "00000000000000000000000000000000",
        "cea7403d4d606b6e074ec5d3baf39d18",
        "d0d1c8a799996bf0265b98b5d48ab919",
    ],
    [
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
        "b094dac5d93471bdec1a502270e3cc6c",
    ],
    [
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
        "76fc6ece0f4e1768cddf8853bb2d551b",
    ],
];

#[test]
fn the_vectors_of_the_specification() {
    for [k, nonce, aad, plain, cipher, tag] in VECTORS {
        let aead = AeadKey::new(&key(k));
        let (nonce, aad): ([u8; 12], _) = (hex(nonce).try_into().unwrap(), hex(aad));
        let mut buf = hex(plain);
        assert_eq!(aead.seal_in_place(nonce, &aad, &mut buf).unwrap()[..], hex(tag));
        assert_eq!(buf, hex(cipher));
        let mut whole = vec![0xee; buf.len() + TAG_LEN];
        aead.seal_into(nonce, &aad, &hex(plain), &mut whole).unwrap();
        assert_eq!(whole, hex(&[cipher, tag].concat()));
        buf.extend(hex(tag));
        let mut out = vec![0xee; buf.len() - TAG_LEN];
        aead.open_into(nonce, &aad, &buf, &mut out).unwrap();
        assert_eq!(out, hex(plain));
        let len = aead.open_in_place(nonce, &aad, &mut buf).unwrap();
        assert_eq!(buf[..len], hex(plain));
    }
}

#[test]
fn a_changed_tag_is_refused_in_every_bit() {
    // The way of the modified tags of Wycheproof: a right plaintext under a wrong tag.
    let [k, nonce, aad, _, cipher, tag] = VECTORS[3];
    let (nonce, aad): ([u8; 12], _) = (hex(nonce).try_into().unwrap(), hex(aad));
    let aead = AeadKey::new(&key(k));
    for bit in 0..128 {
        let mut buf = hex(&[cipher, tag].concat());
        let at = buf.len() - 16 + bit / 8;
        buf[at] ^= 1 << (bit % 8);
        let mut out = vec![0xee; buf.len() - TAG_LEN];
        assert_eq!(aead.open_into(nonce, &aad, &buf, &mut out), Err(CryptoError::Authentication));
        assert_eq!(aead.open_in_place(nonce, &aad, &mut buf), Err(CryptoError::Authentication));
        assert!(buf.iter().chain(&out).all(|byte| *byte == 0), "plaintext is left behind");
    }
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    let aead = AeadKey::new(&SecretKey::from_bytes([1; 32]));
    for (sealed, plain) in [(0, 0), (15, 0), (16, 1), (17, 0), (40, 25)] {
        let mut out = vec![1; plain];
        assert!(aead.open_into([0; 12], b"", &vec![0; sealed], &mut out).is_err());
        if sealed != plain + TAG_LEN {
            assert!(aead.seal_into([0; 12], b"", &out, &mut vec![0; sealed]).is_err());
        }
    }
    assert!(aead.open_in_place([0; 12], b"", &mut [0; 15]).is_err());
}

proptest! {
    #[test]
    fn both_implementations_are_one_function(
        k in any::<[u8; 32]>(),
        nonce in any::<[u8; 12]>(),
        aad in proptest::collection::vec(any::<u8>(), 0..64),
        plain in proptest::collection::vec(any::<u8>(), 0..5000),
        flip in any::<prop::sample::Index>(),
    ) {
        let (fast, portable) = (Cipher::new(&k), portable::Cipher::new(&k));
        let (mut a, mut b) = (plain.clone(), plain.clone());
        let tag = fast.seal(nonce, &aad, &mut a).unwrap();
        prop_assert_eq!(portable.seal(nonce, &aad, &mut b), Some(tag));
        prop_assert_eq!(&a, &b);
        let (mut body, mut other) = (vec![1; plain.len()], [0; 16]);
        prop_assert!(portable.seal_into(nonce, &aad, &plain, (&mut body, &mut other)).is_some());
        prop_assert_eq!((&body, other), (&a, tag));

        let mut out = vec![0; plain.len()];
        prop_assert!(fast.open_into(nonce, &aad, (&b, &tag), &mut out).is_some());
        prop_assert_eq!(&out, &plain);
        prop_assert!(portable.open_into(nonce, &aad, (&a, &tag), &mut out).is_some());
        prop_assert_eq!(&out, &plain);

        let mut sealed = [&a[..], &tag].concat();
        let at = flip.index(sealed.len());
        sealed[at] ^= 0x10;
        prop_assert_eq!(fast.open_in_place(nonce, &aad, &mut sealed.clone()), None);
        prop_assert_eq!(portable.open_in_place(nonce, &aad, &mut sealed), None);
    }
}
