//! `docs/format.md` section 9: the configuration and the writers' registry, both signed by the root key.

use std::fmt;
use std::time::Duration;

use super::FormatError;
use super::cbor::{Cbor, encode};
use crate::id::{NameHash, RepositoryId, WriterId};

/// Bytes of an Ed25519 public key.
pub const VERIFYING_KEY_LEN: usize = 32;
/// Most bytes of a recipient's public key.
const PUBLIC_KEY_MAX: usize = 4096;
/// Most recipients of a repository.
const RECIPIENTS_MAX: u64 = 256;
/// Most objects that a revocation leaves to a writer; an entry with so many has less than 16 MiB.
pub const ACCEPTED_MAX: usize = 400_000;

/// The one suite of version 1: AES-256-GCM, BLAKE3, Ed25519, HPKE with X-Wing, argon2id.
pub const SUITE: u8 = 1;

/// What a recipient's key opens. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// Content.
    Data = 0,
    /// Trees, snapshots and log facts.
    Metadata = 1,
}

/// A public key that runs seal their data keys to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// What it opens.
    pub purpose: Purpose,
    /// The public key of the suite.
    pub public_key: Vec<u8>,
}

/// How content is cut, stored as minimum, average and maximum in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredChunkParams {
    /// No chunk is shorter, except the last of its content.
    pub min: u32,
    /// What the cutter aims at.
    pub average: u32,
    /// No chunk is longer.
    pub max: u32,
}

/// How hard a lock is to undo. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LockMode {
    /// Those whom the store gives a right of its own may.
    Governance = 0,
    /// Nobody may, the owner of the account included.
    Compliance = 1,
}

impl LockMode {
    /// Both modes.
    pub const ALL: [Self; 2] = [Self::Governance, Self::Compliance];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Governance => "governance",
            Self::Compliance => "compliance",
        }
    }
}

/// How the store locks every object that is stored, and each again that a new snapshot depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lock {
    /// How hard it is to undo.
    pub mode: LockMode,
    /// How long from then on, in seconds; at least one.
    pub seconds: u32,
}

impl Lock {
    /// The time from storing to the end.
    pub const fn period(self) -> Duration {
        Duration::from_secs(self.seconds as u64)
    }

    /// The same in days, a part of one counted whole.
    pub const fn days(self) -> u32 {
        self.seconds.div_ceil(24 * 3600)
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = match self.seconds {
            seconds if seconds % 86_400 == 0 => (seconds / 86_400, "d"),
            seconds if seconds % 3_600 == 0 => (seconds / 3_600, "h"),
            seconds => (seconds, "s"),
        };
        write!(f, "{}:{number}{unit}", self.mode.name())
    }
}

/// The configuration of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The repository's name.
    pub repository: RepositoryId,
    /// Cryptographic suite.
    pub suite: u8,
    /// Root verifying key; must be the one a key slot pins.
    pub root: [u8; VERIFYING_KEY_LEN],
    /// Public keys of readers and maintainers.
    pub recipients: Vec<Recipient>,
    /// Cutting parameters.
    pub chunk_params: StoredChunkParams,
    /// When it was made, nanoseconds since 1970, as its maker's clock had it.
    pub created: i64,
    /// What the store answered to the probe: bit 0 list after write, bit 1 ranges, bit 2 delete seen.
    pub store_probe: u32,
    /// How objects are locked, if they are.
    pub lock: Option<Lock>,
}

impl Config {
    /// The CBOR value.
    pub fn encode(&self) -> Vec<u8> {
        encode(|e| {
            e.map(7 + u64::from(self.lock.is_some()))?;
            e.u8(0)?.bytes(self.repository.as_bytes())?;
            e.u8(1)?.u8(self.suite)?;
            e.u8(2)?.bytes(&self.root)?;
            e.u8(3)?.array(self.recipients.len() as u64)?;
            for recipient in &self.recipients {
                e.array(2)?.u8(recipient.purpose as u8)?.bytes(&recipient.public_key)?;
            }
            let params = &self.chunk_params;
            e.u8(4)?.array(3)?.u32(params.min)?.u32(params.average)?.u32(params.max)?;
            e.u8(5)?.i64(self.created)?;
            e.u8(6)?.u32(self.store_probe)?;
            if let Some(lock) = &self.lock {
                e.u8(7)?.array(2)?.u8(lock.mode as u8)?.u32(lock.seconds)?;
            }
            Ok(())
        })
    }

    /// Reads the CBOR value.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut config = Self {
            repository: RepositoryId::new([0; 16]),
            suite: 0,
            root: [0; VERIFYING_KEY_LEN],
            recipients: Vec::new(),
            chunk_params: StoredChunkParams { min: 0, average: 0, max: 0 },
            created: 0,
            store_probe: 0,
            lock: None,
        };
        let mut d = Cbor::new(bytes, "9", "config");
        d.map(|d, key| {
            match key {
                0 => config.repository = RepositoryId::new(d.fixed()?),
                1 => config.suite = d.u8()?,
                2 => config.root = d.fixed()?,
                3 => config.recipients = d.array(RECIPIENTS_MAX, decode_recipient)?,
                4 => {
                    let params = d.array(3, Cbor::u32)?;
                    let [min, average, max] = params.try_into().map_err(|_| d.value("chunk parameters"))?;
                    config.chunk_params = StoredChunkParams { min, average, max };
                }
                5 => config.created = d.i64()?,
                6 => config.store_probe = d.u32()?,
                7 => config.lock = Some(decode_lock(d)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        d.finish(bytes.len())?;
        if config.suite != SUITE {
            return Err(FormatError::Value { section: "9", what: "suite" });
        }
        Ok(config)
    }
}

impl Config {
    /// What two configurations with one number say together: all recipients of both. `None` if they differ in anything else
    /// but the time at which each was made.
    pub fn merge(self, other: Self) -> Option<Self> {
        let Self { recipients, created, .. } = other;
        let alike = Self { recipients: self.recipients.clone(), created: self.created, ..other };
        if alike != self {
            return None;
        }
        let mut both = self;
        let new = recipients.into_iter().filter(|one| !both.recipients.contains(one)).collect::<Vec<_>>();
        both.recipients.extend(new);
        both.recipients.sort_unstable_by(|one, other| {
            (one.purpose as u8, &one.public_key).cmp(&(other.purpose as u8, &other.public_key))
        });
        both.created = both.created.min(created);
        Some(both)
    }
}

fn decode_lock(d: &mut Cbor<'_>) -> Result<Lock, FormatError> {
    let values = d.array(2, Cbor::u32)?;
    let [mode, seconds] = values.try_into().map_err(|_| d.value("lock"))?;
    let mode = LockMode::ALL.into_iter().find(|known| *known as u32 == mode);
    match mode {
        Some(mode) if seconds > 0 => Ok(Lock { mode, seconds }),
        _ => Err(d.value("lock")),
    }
}

fn decode_recipient(d: &mut Cbor<'_>) -> Result<Recipient, FormatError> {
    let mut purpose = None;
    let mut public_key = Vec::new();
    let mut field = 0;
    d.array(2, |d| {
        match field {
            0 => {
                purpose = match d.u8()? {
                    0 => Some(Purpose::Data),
                    1 => Some(Purpose::Metadata),
                    _ => None,
                }
            }
            _ => public_key = d.bytes(PUBLIC_KEY_MAX)?,
        }
        field += 1;
        Ok(())
    })?;
    let purpose = purpose.ok_or(d.value("purpose of a recipient"))?;
    if field == 2 { Ok(Recipient { purpose, public_key }) } else { Err(d.value("recipient")) }
}

/// What a registered writer's key may sign. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Authority {
    /// Packs, index objects and snapshots of its own.
    Writer = 0,
    /// Also condemnations, horizons, tombs and holds.
    Maintainer = 1,
    /// Nothing of these: what it has verified.
    Verifier = 2,
}

impl Authority {
    /// Whether who holds this may sign what asks for the other.
    pub const fn covers(self, asked: Self) -> bool {
        match self {
            Self::Maintainer => true,
            Self::Writer => matches!(asked, Self::Writer),
            Self::Verifier => matches!(asked, Self::Verifier),
        }
    }
}

/// Whether what a writer signs still counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Standing {
    /// All of it does.
    #[default]
    Active,
    /// It is about to be revoked: its runs acknowledge nothing, others begin to depend only on the objects named, and readers
    /// believe all that it signed.
    Closing(Vec<NameHash>),
    /// Only the objects named count, and confirmations of the snapshots among them.
    Revoked(Vec<NameHash>),
}

/// A writer's entry in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterEntry {
    /// The writer.
    pub writer: WriterId,
    /// Its verifying key.
    pub key: [u8; VERIFYING_KEY_LEN],
    /// What it may sign.
    pub authority: Authority,
    /// Whether that counts.
    pub standing: Standing,
}

impl WriterEntry {
    /// The CBOR value.
    pub fn encode(&self) -> Vec<u8> {
        let (state, accepted) = match &self.standing {
            Standing::Active => (0_u8, &[][..]),
            Standing::Closing(accepted) => (1, &accepted[..]),
            Standing::Revoked(accepted) => (2, &accepted[..]),
        };
        encode(|e| {
            e.map(if state == 0 { 3 } else { 5 })?;
            e.u8(0)?.bytes(self.writer.as_bytes())?;
            e.u8(1)?.bytes(&self.key)?;
            e.u8(2)?.u8(self.authority as u8)?;
            if state != 0 {
                e.u8(3)?.u8(state)?;
                e.u8(4)?.array(accepted.len() as u64)?;
                for name in accepted {
                    e.bytes(name.as_bytes())?;
                }
            }
            Ok(())
        })
    }

    /// Reads the CBOR value.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (mut writer, mut key, mut authority) = (None, None, None);
        let (mut state, mut accepted) = (0, None);
        let mut d = Cbor::new(bytes, "9", "writer");
        d.map(|d, field| {
            match field {
                0 => writer = Some(WriterId::new(d.fixed()?)),
                1 => key = Some(d.fixed()?),
                2 => {
                    authority = match d.u8()? {
                        0 => Some(Authority::Writer),
                        1 => Some(Authority::Maintainer),
                        2 => Some(Authority::Verifier),
                        _ => None,
                    }
                }
                3 => state = d.u8()?,
                4 => accepted = Some(d.array(ACCEPTED_MAX as u64, |d| Ok(NameHash::new(d.fixed()?)))?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let (missing, wrong) = (d.value("writer"), d.value("standing of a writer"));
        d.finish(bytes.len())?;
        let standing = match (state, accepted) {
            (0, None) => Standing::Active,
            (1, Some(accepted)) => Standing::Closing(accepted),
            (2, Some(accepted)) => Standing::Revoked(accepted),
            _ => return Err(wrong),
        };
        match (writer, key, authority) {
            (Some(writer), Some(key), Some(authority)) => Ok(Self { writer, key, authority, standing }),
            _ => Err(missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(recipients: &[(Purpose, u8)], created: i64) -> Config {
        let recipient =
            |(purpose, byte): &(Purpose, u8)| Recipient { purpose: *purpose, public_key: vec![*byte; 4] };
        Config {
            repository: RepositoryId::new([1; 16]),
            suite: SUITE,
            root: [2; VERIFYING_KEY_LEN],
            recipients: recipients.iter().map(recipient).collect(),
            chunk_params: StoredChunkParams { min: 1, average: 2, max: 3 },
            created,
            store_probe: 7,
            lock: None,
        }
    }

    #[test]
    fn of_two_configurations_with_one_number_the_recipients_of_both_count_whatever_comes_first() {
        use Purpose::{Data, Metadata};
        let (one, other) = (config(&[(Data, 1), (Metadata, 2)], 9), config(&[(Metadata, 2), (Data, 3)], 5));
        let both = config(&[(Data, 1), (Data, 3), (Metadata, 2)], 5);
        assert_eq!(one.clone().merge(other.clone()).as_ref(), Some(&both));
        assert_eq!(other.clone().merge(one.clone()).as_ref(), Some(&both));
        assert_eq!(both.clone().merge(one.clone()), Some(both));
        for different in [
            Config { chunk_params: StoredChunkParams { min: 1, average: 2, max: 4 }, ..other.clone() },
            Config { lock: Some(Lock { mode: LockMode::Compliance, seconds: 1 }), ..other.clone() },
            Config { root: [3; VERIFYING_KEY_LEN], ..other.clone() },
            Config { repository: RepositoryId::new([9; 16]), ..other.clone() },
            Config { store_probe: 0, ..other },
        ] {
            assert_eq!(one.clone().merge(different), None);
        }
    }
}
