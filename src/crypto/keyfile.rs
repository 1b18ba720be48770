//! A key file: one line of ASCII, four parts separated by single spaces, and a line feed.
//!
//! `LIFEBOAT-KEY-1`, the repository id (32 hexadecimal digits), the key (64), a checksum (8: the first four bytes of the
//! BLAKE3 of the first three parts with the spaces between them).

use zeroize::Zeroizing;

use super::{CryptoError, SecretKey};
use crate::id::RepositoryId;

const MAGIC: &str = "LIFEBOAT-KEY-1";
const LINE_LEN: usize = MAGIC.len() + 1 + 32 + 1 + 64 + 1 + 8;

/// The line, with its line feed.
pub fn encode(repository: &RepositoryId, key: &SecretKey) -> Zeroizing<String> {
    // The whole length at once: growing would leave parts of the secret behind in freed memory.
    let mut line = Zeroizing::new(String::with_capacity(LINE_LEN + 1));
    line.push_str(MAGIC);
    line.push(' ');
    push_hex(&mut line, repository.as_bytes());
    line.push(' ');
    push_hex(&mut line, key.expose());
    let checksum = checksum(&line);
    line.push(' ');
    push_hex(&mut line, &checksum);
    line.push('\n');
    line
}

/// Reads a key file. White space at both ends and the case of digits do not matter.
pub fn decode(text: &str) -> Result<(RepositoryId, SecretKey), CryptoError> {
    let line = text.trim_ascii();
    let digits = line.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(' '));
    if line.len() != LINE_LEN || digits.is_none() || !line.is_ascii() {
        return Err(CryptoError::KeyFileSyntax);
    }
    let lower = Zeroizing::new(digits.unwrap_or_default().to_ascii_lowercase());
    let (body, sum) = lower.split_at(32 + 1 + 64);
    let mut parts = (parse_hex::<16>(&body[..32]), parse_hex::<32>(&body[33..]), parse_hex::<4>(&sum[1..]));
    let (Some(repository), Some(key), Some(sum_found)) = (&mut parts.0, &mut parts.1, &mut parts.2) else {
        return Err(CryptoError::KeyFileSyntax);
    };
    if &body[32..33] != " " || &sum[..1] != " " {
        return Err(CryptoError::KeyFileSyntax);
    }
    let canonical = Zeroizing::new([MAGIC, " ", body].concat());
    if checksum(&canonical) != **sum_found {
        return Err(CryptoError::KeyFileChecksum);
    }
    Ok((RepositoryId::new(**repository), SecretKey::from_bytes(**key)))
}

fn checksum(text: &str) -> [u8; 4] {
    let hash = blake3::hash(text.as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    [a, b, c, d]
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(digit), 16).expect("a digit below 16"));
        }
    }
}

fn parse_hex<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>> {
    let mut out = Zeroizing::new([0; N]);
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> (RepositoryId, SecretKey) {
        (RepositoryId::new([0x1a; 16]), SecretKey::from_bytes([0xc3; 32]))
    }

    fn line() -> String {
        encode(&example().0, &example().1).to_string()
    }

    #[test]
    fn the_line_is_exact() {
        let expected = format!("LIFEBOAT-KEY-1 {} {} {}\n", "1a".repeat(16), "c3".repeat(32), "4f78820e");
        assert_eq!(line(), expected);
        assert_eq!(decode(&expected), Ok(example()));
        for tolerated in [expected.trim_end(), &format!("{}\r\n", expected.trim_end())] {
            assert_eq!(decode(tolerated), Ok(example()));
        }
    }

    #[test]
    fn other_text_is_not_a_key_file() {
        for bad in [
            "",
            "LIFEBOAT-KEY-1",
            &line().replace("KEY-1", "KEY-2"),
            &line().replace(' ', "  "),
            &line().replacen("c3", "g3", 1),
            &line().replacen("c3c3", "é3c", 1),
            &line().repeat(2),
        ] {
            assert_eq!(decode(bad), Err(CryptoError::KeyFileSyntax), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_typing_error_is_found(at in 15usize..120, digit in 0u32..16) {
            let mut bytes = line().into_bytes();
            let digit = char::from_digit(digit, 16).unwrap() as u8;
            prop_assume!(bytes[at] != digit && bytes[at] != b' ');
            bytes[at] = digit;
            let text = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(decode(&text), Err(CryptoError::KeyFileChecksum));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = decode(&text);
            let _ = decode(&format!("LIFEBOAT-KEY-1 {text}"));
        }
    }
}
