//! Key files: a password's key seals the keys of the repository.

use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

use super::crypto::{KdfCost, Key};
use super::error::{Fault, ResticError};
use super::text::Base64;

/// Longest key file that is read.
pub(super) const KEY_FILE_MAX: usize = 64 << 10;

/// A key file as it is stored, in plain JSON.
#[derive(Debug, Deserialize)]
pub(super) struct KeyFile {
    kdf: String,
    #[serde(rename = "N")]
    n: u64,
    r: u64,
    p: u64,
    data: Base64,
    salt: Base64,
}

#[derive(Deserialize)]
struct Master {
    mac: MasterMac,
    encrypt: Base64,
}

#[derive(Deserialize)]
struct MasterMac {
    k: Base64,
    r: Base64,
}

impl Drop for Master {
    fn drop(&mut self) {
        for secret in [&mut self.encrypt, &mut self.mac.k, &mut self.mac.r] {
            secret.0.zeroize();
        }
    }
}

impl KeyFile {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let file: Self = serde_json::from_slice(bytes).map_err(Fault::Json)?;
        if file.kdf == "scrypt" { Ok(file) } else { Err(Fault::Value { what: "the key derivation" }) }
    }

    /// The repository's keys, or `None` if the password is another. `name` is for messages.
    pub(super) fn unlock(mut self, password: &[u8], name: &str) -> Result<Option<Key>, ResticError> {
        let cost = KdfCost { n: self.n, r: self.r, p: self.p };
        let Some(key) = Key::derive(password, &self.salt.0, cost) else {
            let KdfCost { n, r, p } = cost;
            return Err(ResticError::KdfCost { key: name.to_owned(), n, r, p });
        };
        let mut sealed = Zeroizing::new(std::mem::take(&mut self.data.0));
        let Ok(plain) = key.open(&mut sealed) else { return Ok(None) };
        let master: Master =
            serde_json::from_slice(plain).map_err(Fault::Json).map_err(ResticError::file(name))?;
        let wrong = || ResticError::file(name)(Fault::Value { what: "the length of a key" });
        let encrypt = master.encrypt.0.as_slice().try_into().map_err(|_| wrong())?;
        let k = master.mac.k.0.as_slice().try_into().map_err(|_| wrong())?;
        let r = master.mac.r.0.as_slice().try_into().map_err(|_| wrong())?;
        Ok(Some(Key::new(encrypt, k, r)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of restic's own description of its format: the password is not told, so it opens with none.
    const DOCUMENTED: &str = r#"{"hostname":"kasimir","username":"fd0","kdf":"scrypt","N":65536,"r":8,"p":1,
        "created":"2015-01-02T18:10:13.48307196+01:00","data":"tGwYeKoM0C4j4/9DFrVEmMGAldvEn/+iKC3te/QE/6ox","salt":"uW4f"}"#;

    #[test]
    fn a_key_file_is_read_and_a_wrong_password_opens_nothing() {
        let file = KeyFile::decode(DOCUMENTED.as_bytes()).unwrap();
        assert_eq!((file.n, file.r, file.p), (65536, 8, 1));
        let small = KeyFile { n: 2, ..file };
        assert!(matches!(small.unlock(b"x", "keys/k"), Ok(None)));
    }

    #[test]
    fn bad_key_files_are_errors() {
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"kdf":"argon2","N":1,"r":1,"p":1,"data":"","salt":""}"#,
            r#"{"kdf":"scrypt","N":-1,"r":8,"p":1,"data":"","salt":""}"#,
            r#"{"kdf":"scrypt","N":2,"r":8,"p":1,"data":"!","salt":""}"#,
        ] {
            assert!(KeyFile::decode(bad.as_bytes()).is_err(), "{bad}");
        }
        let costly = r#"{"kdf":"scrypt","N":4611686018427387904,"r":8,"p":1,"data":"","salt":""}"#;
        let refused = KeyFile::decode(costly.as_bytes()).unwrap().unlock(b"x", "keys/k");
        assert!(matches!(refused, Err(ResticError::KdfCost { .. })));
        let short = r#"{"kdf":"scrypt","N":2,"r":8,"p":1,"data":"AAAA","salt":""}"#;
        assert!(matches!(KeyFile::decode(short.as_bytes()).unwrap().unlock(b"x", "keys/k"), Ok(None)));
    }
}
