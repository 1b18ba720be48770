//! Vectors of Project Wycheproof, of RFC 9180 and of the drafts of X-Wing and of its use in HPKE.

use std::path::Path;

use aws_lc_rs::hmac;
use lifeboat::crypto::aead::AeadKey;
use lifeboat::crypto::hpke::{self, PrivateKey, PublicKey};
use lifeboat::crypto::sign::{SigningKey, VerifyingKey};
use lifeboat::crypto::{CryptoError, SecretKey};
use lifeboat::random::SystemRandom;

/// The lines of a file of vectors, in fields.
fn vectors(name: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crypto/vectors").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let text = text.trim_matches('-');
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn secret(text: &str) -> SecretKey {
    SecretKey::from_bytes(hex(text).try_into().unwrap())
}

#[test]
fn aes_gcm_is_what_wycheproof_says() {
    let vectors = vectors("aes-256-gcm.txt");
    assert_eq!(vectors.len(), 66);
    let mut refused = 0;
    for vector in vectors {
        let [number, key, nonce, aad, plain, cipher, tag, result] = &vector[..] else { panic!("{vector:?}") };
        let (key, nonce) = (AeadKey::new(&secret(key)), hex(nonce).try_into().unwrap());
        let (aad, plain, sealed) = (hex(aad), hex(plain), [hex(cipher), hex(tag)].concat());
        let (mut in_place, mut out) = (sealed.clone(), vec![0xee; plain.len()]);
        let opened = key.open_in_place(nonce, &aad, &mut in_place);
        let into = key.open_into(nonce, &aad, &sealed, &mut out);
        if result == "invalid" {
            refused += 1;
            assert_eq!(opened, Err(CryptoError::Authentication), "{number}");
            assert_eq!(into, Err(CryptoError::Authentication), "{number}");
            assert!(in_place.iter().chain(&out).all(|byte| *byte == 0), "{number}: plaintext is left behind");
            continue;
        }
        assert_eq!((opened, into), (Ok(plain.len()), Ok(())), "{number}");
        assert_eq!((&in_place[..plain.len()], &out), (&plain[..], &plain), "{number}");
        let mut again = vec![0; sealed.len()];
        key.seal_into(nonce, &aad, &plain, &mut again).unwrap();
        assert_eq!(again, sealed, "{number}");
        let mut again = plain.clone();
        let tag = key.seal_in_place(nonce, &aad, &mut again).unwrap();
        assert_eq!([&again[..], &tag].concat(), sealed, "{number}");
    }
    assert!(refused >= 20, "{refused}");
}

#[test]
fn signatures_are_what_wycheproof_says() {
    let vectors = vectors("ed25519.txt");
    assert_eq!(vectors.len(), 151);
    let mut refused = 0;
    for vector in vectors {
        let [number, public, message, signature, result] = &vector[..] else { panic!("{vector:?}") };
        let public = VerifyingKey::from_bytes(hex(public).try_into().unwrap()).unwrap();
        // A signature has 64 bytes wherever one is stored: others are refused before they are looked at.
        let fits = <[u8; 64]>::try_from(hex(signature));
        let good = fits.is_ok_and(|signature| public.verify(&hex(message), &signature).is_ok());
        assert_eq!(good, result == "valid", "{number}");
        refused += usize::from(!good);
    }
    assert_eq!(refused, 63);
    // The verifier above also takes what the signer here makes.
    let key = SigningKey::from_seed(SecretKey::from_bytes([7; 32]));
    assert!(key.verifying_key().verify(b"message", &key.sign(b"message")).is_ok());
}

/// The key schedule of HPKE in base mode, from the text of RFC 9180 alone: key and nonce.
fn schedule(suite: &[u8], info: &[u8], shared: &[u8], key_len: usize) -> (Vec<u8>, Vec<u8>) {
    let mac = |key: &[u8], parts: &[&[u8]]| {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &parts.concat());
        tag.as_ref().to_vec()
    };
    let extract = |salt: &[u8], label: &[u8], input: &[u8]| mac(salt, &[b"HPKE-v1", suite, label, input]);
    // No length here is more than one block of the hash.
    let expand = |secret: &[u8], label: &[u8], context: &[u8], len: u8| {
        let mut out = mac(secret, &[&[0, len], b"HPKE-v1", suite, label, context, &[1]]);
        out.truncate(usize::from(len));
        out
    };
    let hashes = [extract(&[], b"psk_id_hash", &[]), extract(&[], b"info_hash", info)].concat();
    let context = [&[0], &hashes[..]].concat();
    let secret = extract(shared, b"secret", &[]);
    (expand(&secret, b"key", &context, key_len as u8), expand(&secret, b"base_nonce", &context, 12))
}

#[test]
fn the_oracle_of_the_next_test_is_what_rfc_9180_says() {
    for vector in vectors("hpke-schedule.txt") {
        let [kem, aead, info, shared, key, nonce] = &vector[..] else { panic!("{vector:?}") };
        let suite = [&b"HPKE"[..], &hex(kem), &[0, 1], &hex(aead)].concat();
        let made = schedule(&suite, &hex(info), &hex(shared), key.len() / 2);
        assert_eq!(made, (hex(key), hex(nonce)), "{kem} {aead}");
    }
}

#[test]
fn sealing_is_x_wing_and_hpke_as_published() {
    let vectors = vectors("x-wing.txt");
    assert_eq!(vectors.len(), 5);
    for vector in vectors {
        let [private, public, encapsulation, shared] = &vector[..] else { panic!("{vector:?}") };
        let private = PrivateKey::from_seed(secret(private));
        assert_eq!(private.public_key().to_bytes(), hex(public));
        assert_eq!(PublicKey::from_bytes(&hex(public)).as_ref(), Ok(private.public_key()));

        // X-Wing, HKDF-SHA256, AES-256-GCM.
        let suite = b"HPKE\x64\x7a\x00\x01\x00\x02";
        let (info, plain) = (&b"what it is bound to"[..], &b"a data key"[..]);
        let (key, nonce) = schedule(suite, info, &hex(shared), 32);
        let key = AeadKey::new(&SecretKey::from_bytes(key.try_into().unwrap()));
        let mut body = vec![0; plain.len() + 16];
        key.seal_into(nonce.try_into().unwrap(), b"", plain, &mut body).unwrap();
        let sealed = [hex(encapsulation), body].concat();
        assert_eq!(hpke::open(&private, info, &sealed).unwrap()[..], *plain);
        assert_eq!(hpke::open(&private, b"something else", &sealed), Err(CryptoError::Authentication));

        let sealed = hpke::seal(private.public_key(), info, plain, &SystemRandom).unwrap();
        assert_eq!(sealed.len(), plain.len() + hpke::OVERHEAD);
        assert_eq!(hpke::open(&private, info, &sealed).unwrap()[..], *plain);
    }
}

#[test]
fn public_keys_that_are_not_reduced_are_refused() {
    let vectors = vectors("ml-kem-768-refused.txt");
    assert_eq!(vectors.len(), 12);
    let good = PrivateKey::from_seed(SecretKey::from_bytes([5; 32])).public_key().to_bytes();
    for vector in vectors {
        let key = [&hex(&vector[0])[..], &good[1184..]].concat();
        assert_eq!(key.len(), hpke::PUBLIC_LEN);
        assert!(matches!(PublicKey::from_bytes(&key), Err(CryptoError::PublicKey { .. })));
    }
}
