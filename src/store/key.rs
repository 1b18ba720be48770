//! Keys: the names of objects, relative to the root of a repository.

use std::fmt;
use std::str::FromStr;

/// Name of the directory that a local store keeps for half-written files; no key starts with it.
pub(in crate::store) const RESERVED: &str = "tmp";

/// Why a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is nothing.
    #[error("an object key must not be empty")]
    Empty,
    /// Longer than every store accepts.
    #[error("an object key of {len} bytes is too long")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A segment is empty, `.`, `..` or too long for a file name.
    #[error("`{key}` has a segment that is not a file name")]
    Segment {
        /// The text.
        key: String,
    },
    /// A character that some store treats specially.
    #[error("`{}` has a character that no object key may have", key.escape_default())]
    Character {
        /// The text.
        key: String,
    },
    /// The first segment belongs to the store.
    #[error("`{key}` lies in the directory for half-written files")]
    Reserved {
        /// The text.
        key: String,
    },
}

/// The name of an object, such as `packs/ab/abcd…`, relative to the root of the repository.
///
/// ASCII letters, digits and `-._=+@,` in segments of 1 to 255 bytes with `/` between them. No segment is `.` or `..`, so a key
/// joined to a directory stays inside it, and every store spells it the same way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Longest key in bytes; leaves room for the prefix of a bucket below the 1,024 bytes that stores accept.
    pub const MAX_LEN: usize = 800;

    /// Checks the text and takes it as a key.
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let key = text.into();
        if key.is_empty() {
            return Err(KeyError::Empty);
        }
        if key.len() > Self::MAX_LEN {
            return Err(KeyError::TooLong { len: key.len() });
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._=+@,/".contains(&b);
        if !key.bytes().all(allowed) {
            return Err(KeyError::Character { key });
        }
        if key.split('/').any(|s| matches!(s, "" | "." | "..") || s.len() > 255) {
            return Err(KeyError::Segment { key });
        }
        if key.split('/').next() == Some(RESERVED) {
            return Err(KeyError::Reserved { key });
        }
        Ok(Self(key))
    }

    /// The text of the key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_of_the_format_are_accepted() {
        for good in ["config/1-ab", "packs/ab/abcd", "snapshots/aa/7-bb.ok", "a/tmp", "..x/y", "temp"] {
            assert_eq!(Key::new(good).map(|k| k.to_string()), Ok(good.to_owned()));
        }
    }

    #[test]
    fn hostile_keys_are_refused() {
        let long = "a/".repeat(500);
        let wide = "a".repeat(256);
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "a//b",
            "a/",
            "..",
            "a/../b",
            "a/./b",
            "a\0b",
            "a\nb",
            "é",
            "a\\b",
            "a#1",
            "a%2fb",
            "tmp",
            "tmp/x",
            "a b",
            &long,
            &wide,
        ] {
            assert!(Key::new(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_key_never_leaves_its_directory(text in "[a-z./]{0,12}") {
            if let Ok(key) = Key::new(text) {
                let path = std::path::Path::new("/r").join(key.as_str());
                prop_assert!(path.components().all(|c| !matches!(c, std::path::Component::ParentDir)));
                prop_assert!(path.starts_with("/r") && path != std::path::Path::new("/r"));
            }
        }
    }
}
