//! A key as 24 English words of BIP 39: 256 bits and a checksum of 8.

use bip39::{Error, Language, Mnemonic};
use zeroize::Zeroizing;

use super::{CryptoError, SecretKey};

const COUNT: usize = 24;

/// The words, lower case, separated by single spaces.
pub fn encode(key: &SecretKey) -> Zeroizing<String> {
    let mnemonic =
        Mnemonic::from_entropy_in(Language::English, key.expose()).expect("32 bytes make 24 words");
    // The whole length at once: growing would leave parts of the secret behind in freed memory.
    let mut text = Zeroizing::new(String::with_capacity(COUNT * 9));
    for word in mnemonic.words() {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(word);
    }
    text
}

/// Reads the words back. Case, white space and numbering such as `1.` or `1)` do not matter.
pub fn decode(text: &str) -> Result<SecretKey, CryptoError> {
    let words: Vec<&str> =
        text.split_whitespace().map(without_number).filter(|word| !word.is_empty()).collect();
    if words.len() != COUNT {
        return Err(CryptoError::WordCount { found: words.len() });
    }
    let mut normal = Zeroizing::new(words.join(" "));
    normal.make_ascii_lowercase();
    let mnemonic =
        Mnemonic::parse_in_normalized(Language::English, &normal).map_err(|error| match error {
            Error::UnknownWord(at) => CryptoError::UnknownWord { position: at + 1 },
            Error::BadWordCount(found) => CryptoError::WordCount { found },
            _ => CryptoError::WordChecksum,
        })?;
    let entropy = Zeroizing::new(mnemonic.to_entropy_array().0);
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&entropy[..32]);
    Ok(SecretKey::from_bytes(*key))
}

fn without_number(word: &str) -> &str {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
    if rest.len() == word.len() { word } else { rest.trim_start_matches(['.', ')', ':']) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_ZERO: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon \
        abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art";

    #[test]
    fn the_vectors_of_bip_39() {
        assert_eq!(*encode(&SecretKey::from_bytes([0; 32])), ALL_ZERO);
        let ff = encode(&SecretKey::from_bytes([0xff; 32]));
        assert!(ff.starts_with("zoo zoo ") && ff.ends_with(" zoo vote"));
        assert_eq!(decode(&ff), Ok(SecretKey::from_bytes([0xff; 32])));
    }

    #[test]
    fn people_write_words_in_many_ways() {
        let key = SecretKey::from_bytes(*blake3::hash(b"key").as_bytes());
        let words = encode(&key);
        let numbered: String =
            words.split(' ').enumerate().map(|(at, word)| format!(" {}. {}\r\n", at + 1, word)).collect();
        let glued: String =
            words.split(' ').enumerate().map(|(at, word)| format!("{}){}\t", at + 1, word)).collect();
        for text in [&words.to_uppercase(), &numbered, &glued, &format!("\n{}\n", words.as_str())] {
            assert_eq!(decode(text), Ok(key.clone()), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let replaced = |from, to| decode(&ALL_ZERO.replacen(from, to, 1));
        assert_eq!(replaced("art", "arr"), Err(CryptoError::UnknownWord { position: 24 }));
        assert_eq!(replaced("abandon", "\u{130}bandon"), Err(CryptoError::UnknownWord { position: 1 }));
        assert_eq!(replaced("art", "zoo"), Err(CryptoError::WordChecksum));
        assert_eq!(replaced("abandon ", ""), Err(CryptoError::WordCount { found: 23 }));
        assert_eq!(decode(""), Err(CryptoError::WordCount { found: 0 }));
        assert_eq!(decode("1. 2. 3."), Err(CryptoError::WordCount { found: 0 }));
        assert_eq!(decode(&"zoo ".repeat(100_000)), Err(CryptoError::WordCount { found: 100_000 }));
    }
}
