//! Names of things: fixed-width binary identifiers, one type for each kind, so that none can stand in for another.

use std::fmt;
use std::str::FromStr;

/// Text that is not the hexadecimal form of an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits")]
pub struct ParseIdError {
    /// How many digits the identifier has.
    pub expected: usize,
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let error = ParseIdError { expected: N * 2 };
    let digits = text.as_bytes();
    if digits.len() != N * 2 || !digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(error);
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| error.clone())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| error.clone())?;
    }
    Ok(out)
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length of the binary form in bytes.
            pub const LEN: usize = $len;

            /// Takes the binary form.
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The binary form.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first eight hexadecimal digits, for people.
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate(8);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

identifier!(
    /// Name of a chunk: keyed BLAKE3-256 of kind and plaintext. The same plaintext has one id in a repository.
    ChunkId, 32
);
identifier!(
    /// Unkeyed BLAKE3-256 of an object's bytes; the last part of every object's name.
    ObjectHash, 32
);
identifier!(
    /// Unkeyed BLAKE3-256 of an object's whole name: of what kind it is and where it stands, too.
    NameHash, 32
);
identifier!(
    /// Name of a pack: the [`ObjectHash`] of its bytes.
    PackId, 32
);
identifier!(
    /// Name of a snapshot: the [`ObjectHash`] of its object.
    SnapshotId, 32
);
identifier!(
    /// Random name of a repository, fixed when it is made.
    RepositoryId, 16
);
identifier!(
    /// Random name of a writer: one installation that holds a signing key.
    WriterId, 16
);
identifier!(
    /// Random name of one run of a writer.
    RunId, 16
);
identifier!(
    /// Name of a database cluster: a keyed hash of what people call it.
    ClusterId, 16
);
identifier!(
    /// Keyed hash of a log file's content. It tells the same content from another without opening either.
    LogHash, 32
);

identifier!(
    /// Name of anything in a repository of restic: the SHA-256 of a file's or a blob's content.
    ResticId, 32
);

impl ChunkId {
    /// Length of the prefix that index records carry.
    pub const PREFIX_LEN: usize = 16;

    /// The prefix that index records carry.
    pub fn prefix(&self) -> [u8; Self::PREFIX_LEN] {
        let mut prefix = [0; Self::PREFIX_LEN];
        prefix.copy_from_slice(&self.0[..Self::PREFIX_LEN]);
        prefix
    }
}

impl From<PackId> for ObjectHash {
    fn from(id: PackId) -> Self {
        Self(id.0)
    }
}

impl From<SnapshotId> for ObjectHash {
    fn from(id: SnapshotId) -> Self {
        Self(id.0)
    }
}

impl From<ObjectHash> for SnapshotId {
    fn from(hash: ObjectHash) -> Self {
        Self(hash.0)
    }
}

impl From<ObjectHash> for PackId {
    fn from(hash: ObjectHash) -> Self {
        Self(hash.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_form_round_trips_and_rejects_everything_else() {
        let id = WriterId::new([0xa7; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "a7", &"A7".repeat(16), &"+1".repeat(16), &"é".repeat(16), &"a7".repeat(17)] {
            assert_eq!(bad.parse::<WriterId>(), Err(ParseIdError { expected: 32 }), "{bad}");
        }
    }
}
