//! What a key slot holds: the secrets of one role, and what the slot's holder trusts.
//!
//! Stored form, sealed inside of a slot: one CBOR map. 0 root public key (32 bytes), 1 config number, 2 dedup root,
//! 3 index key, 4 metadata private key, 5 data private key, 6 root signing seed (32 bytes each), 7 writer
//! `[id (16 bytes), signing seed (32 bytes)]`, 8 recovery key (32 bytes), 9 former metadata private keys, 10 former data private
//! keys (arrays of 32 bytes each; left out if there are none).

use std::convert::Infallible;

use minicbor::{Decoder, Encoder};
use zeroize::Zeroizing;

use super::hpke::PrivateKey;
use super::sign::VerifyingKey;
use super::{CryptoError, SecretKey};
use crate::format::FormatError;
use crate::format::envelope::ChunkKind;
use crate::format::keyslot::{Role, byte_array, read_map};
use crate::id::{RepositoryId, WriterId};

const SECTION: (&str, &str) = ("12", "secrets of a key slot");

/// More than all secrets need besides former keys; the buffer must not grow while secrets are in it.
const ENCODED_MAX: usize = 512;
/// What a former key takes.
const FORMER_LEN: usize = 34;
/// Most former keys of one purpose; with so many of both a slot is well below its greatest length.
pub const FORMER_MAX: usize = 256;

/// What the holder of a slot believes without asking the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pins {
    /// The repository.
    pub repository: RepositoryId,
    /// Verifies the config.
    pub root: VerifyingKey,
    /// The oldest config that is still believed.
    pub config: u64,
}

/// A writer's name and the seed of the key it signs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterSecret {
    /// The writer.
    pub id: WriterId,
    /// Its signing seed.
    pub seed: SecretKey,
}

/// The secrets of one role; what a role lacks is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// Parent of the keys for chunk ids, cutter, page boundaries, hard links and local state.
    pub dedup: Option<SecretKey>,
    /// Parent of the keys of index objects.
    pub index: Option<SecretKey>,
    /// Opens data keys of trees and snapshots.
    pub metadata: Option<PrivateKey>,
    /// Opens data keys of content.
    pub data: Option<PrivateKey>,
    /// Signs what this installation stores.
    pub writer: Option<WriterSecret>,
    /// Seed of the key that signs the config.
    pub root: Option<SecretKey>,
    /// What the recovery words spell, so that an admin can see them again. It opens nothing that an admin cannot open.
    pub recovery: Option<SecretKey>,
    /// Open data keys of trees and snapshots from before the keys were replaced.
    pub former_metadata: Vec<PrivateKey>,
    /// Open data keys of content from before the keys were replaced.
    pub former_data: Vec<PrivateKey>,
}

/// One of the secrets that [`Secrets`] may hold, in the order of `NAMES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Names and cuts chunks, seals local state.
    Dedup,
    /// Opens the index.
    Index,
    /// Opens trees and snapshots.
    Metadata,
    /// Opens content.
    Data,
    /// Signs.
    Writer,
    /// Signs the config and the registry.
    Root,
    /// Spells the recovery words.
    Recovery,
    /// Opens old trees and snapshots.
    FormerMetadata,
    /// Opens old content.
    FormerData,
}

impl Part {
    /// Whether a role may hold it.
    pub const fn may_be_of(self, role: Role) -> bool {
        !matches!(needs(role)[self as usize], Need::Never)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Need {
    Must,
    May,
    Never,
}

/// The order of [`Secrets::present`].
const NAMES: [&str; 9] = [
    "dedup key",
    "index key",
    "metadata private key",
    "data private key",
    "signing key",
    "root signing key",
    "recovery key",
    "former metadata private keys",
    "former data private keys",
];

const fn needs(role: Role) -> [Need; 9] {
    use Need::{May, Must, Never};
    match role {
        Role::Writer => [Must, Must, Never, Never, Must, Never, Never, Never, Never],
        Role::Maintainer => [Never, Must, Must, Never, Must, Never, Never, May, Never],
        Role::Verifier => [Never, May, Never, Never, Must, Never, Never, Never, Never],
        Role::Reader => [Must, Must, Must, Must, Never, Never, Never, May, May],
        Role::Admin => [Must, Must, Must, Must, May, Must, May, May, May],
    }
}

impl Secrets {
    /// Checks that a role has all it needs and nothing it must not have.
    pub fn check(&self, role: Role) -> Result<(), CryptoError> {
        for ((need, present), secret) in needs(role).into_iter().zip(self.present()).zip(NAMES) {
            let missing = need == Need::Must && !present;
            if missing || (need == Need::Never && present) {
                return Err(CryptoError::RoleSecret { role: role.name(), secret, missing });
            }
        }
        Ok(())
    }

    /// The part of these secrets that a role may have.
    pub fn restrict(&self, role: Role) -> Self {
        let [dedup, index, metadata, data, writer, root, recovery, former_metadata, former_data] =
            needs(role).map(|need| need != Need::Never);
        let former = |keys: &[PrivateKey], may: bool| if may { keys.to_vec() } else { Vec::new() };
        Self {
            dedup: self.dedup.clone().filter(|_| dedup),
            index: self.index.clone().filter(|_| index),
            metadata: self.metadata.clone().filter(|_| metadata),
            data: self.data.clone().filter(|_| data),
            writer: self.writer.clone().filter(|_| writer),
            root: self.root.clone().filter(|_| root),
            recovery: self.recovery.clone().filter(|_| recovery),
            former_metadata: former(&self.former_metadata, former_metadata),
            former_data: former(&self.former_data, former_data),
        }
    }

    /// The private keys that open data keys of this kind, the one of what is stored now first.
    pub fn private_keys(&self, kind: ChunkKind) -> impl Iterator<Item = &PrivateKey> {
        let (now, former) = match kind {
            ChunkKind::Data => (&self.data, &self.former_data),
            ChunkKind::Tree => (&self.metadata, &self.former_metadata),
        };
        now.iter().chain(former)
    }

    /// Whether this one is there.
    pub fn holds(&self, part: Part) -> bool {
        self.present()[part as usize]
    }

    fn present(&self) -> [bool; 9] {
        [
            self.dedup.is_some(),
            self.index.is_some(),
            self.metadata.is_some(),
            self.data.is_some(),
            self.writer.is_some(),
            self.root.is_some(),
            self.recovery.is_some(),
            !self.former_metadata.is_empty(),
            !self.former_data.is_empty(),
        ]
    }

    /// The stored form, with the pins; the repository is not repeated in it.
    pub(super) fn encode(&self, pins: &Pins) -> Zeroizing<Vec<u8>> {
        let most = ENCODED_MAX + FORMER_LEN * (self.former_metadata.len() + self.former_data.len());
        let mut out = Zeroizing::new(Vec::with_capacity(most));
        self.encode_fields(pins, &mut Encoder::new(&mut *out)).expect("a vector takes all bytes");
        debug_assert!(out.len() <= most, "the buffer of secrets has grown");
        out
    }

    fn encode_fields(
        &self,
        pins: &Pins,
        e: &mut Encoder<&mut Vec<u8>>,
    ) -> Result<(), minicbor::encode::Error<Infallible>> {
        let present = self.present().into_iter().filter(|present| *present).count();
        e.map(2 + present as u64)?;
        e.u8(0)?.bytes(pins.root.as_bytes())?;
        e.u8(1)?.u64(pins.config)?;
        let plain = [
            self.dedup.as_ref(),
            self.index.as_ref(),
            self.metadata.as_ref().map(PrivateKey::seed),
            self.data.as_ref().map(PrivateKey::seed),
            self.root.as_ref(),
        ];
        for (number, secret) in (2..).zip(plain) {
            if let Some(secret) = secret {
                e.u8(number)?.bytes(secret.expose())?;
            }
        }
        if let Some(writer) = &self.writer {
            e.u8(7)?.array(2)?.bytes(writer.id.as_bytes())?.bytes(writer.seed.expose())?;
        }
        if let Some(recovery) = &self.recovery {
            e.u8(8)?.bytes(recovery.expose())?;
        }
        for (number, former) in [(9, &self.former_metadata), (10, &self.former_data)] {
            if !former.is_empty() {
                e.u8(number)?.array(former.len() as u64)?;
                for key in former {
                    e.bytes(key.seed().expose())?;
                }
            }
        }
        Ok(())
    }

    /// Reads the stored form of a slot of this repository.
    pub(super) fn decode(bytes: &[u8], repository: RepositoryId) -> Result<(Self, Pins), CryptoError> {
        let mut secrets = Self::default();
        let (mut root, mut config) = (None, None);
        read_map(bytes, SECTION, |key, d| {
            match key {
                0 => root = Some(byte_array::<32>(d)?),
                1 => config = Some(d.u64()?),
                2 => secrets.dedup = Some(secret(d)?),
                3 => secrets.index = Some(secret(d)?),
                4 => secrets.metadata = Some(PrivateKey::from_seed(secret(d)?)),
                5 => secrets.data = Some(PrivateKey::from_seed(secret(d)?)),
                6 => secrets.root = Some(secret(d)?),
                7 => secrets.writer = Some(writer(d)?),
                8 => secrets.recovery = Some(secret(d)?),
                9 => secrets.former_metadata = former(d)?,
                10 => secrets.former_data = former(d)?,
                _ => d.skip()?,
            }
            Ok(())
        })?;
        let (Some(root), Some(config)) = (root, config) else {
            return Err(FormatError::Value { section: SECTION.0, what: "pins of a key slot" }.into());
        };
        Ok((secrets, Pins { repository, root: VerifyingKey::from_bytes(root)?, config }))
    }
}

fn secret(d: &mut Decoder<'_>) -> Result<SecretKey, minicbor::decode::Error> {
    let bytes = Zeroizing::new(byte_array(d)?);
    Ok(SecretKey::from_bytes(*bytes))
}

fn former(d: &mut Decoder<'_>) -> Result<Vec<PrivateKey>, minicbor::decode::Error> {
    match d.array()? {
        Some(count) if (1..=FORMER_MAX as u64).contains(&count) => {
            (0..count).map(|_| secret(d).map(PrivateKey::from_seed)).collect()
        }
        _ => Err(minicbor::decode::Error::message("not a list of former keys")),
    }
}

fn writer(d: &mut Decoder<'_>) -> Result<WriterSecret, minicbor::decode::Error> {
    if d.array()? != Some(2) {
        return Err(minicbor::decode::Error::message("not an id and a seed"));
    }
    Ok(WriterSecret { id: WriterId::new(byte_array(d)?), seed: secret(d)? })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::sign::SigningKey;
    use super::*;

    pub(in crate::crypto) fn all() -> Secrets {
        let key = |byte| SecretKey::from_bytes([byte; 32]);
        Secrets {
            dedup: Some(key(1)),
            index: Some(key(2)),
            metadata: Some(PrivateKey::from_seed(key(3))),
            data: Some(PrivateKey::from_seed(key(4))),
            writer: Some(WriterSecret { id: WriterId::new([5; 16]), seed: key(6) }),
            root: Some(key(7)),
            recovery: None,
            former_metadata: Vec::new(),
            former_data: Vec::new(),
        }
    }

    fn with_former(metadata: &[u8], data: &[u8]) -> Secrets {
        let keys = |of: &[u8]| {
            of.iter().map(|byte| PrivateKey::from_seed(SecretKey::from_bytes([*byte; 32]))).collect()
        };
        Secrets { former_metadata: keys(metadata), former_data: keys(data), ..all() }
    }

    pub(in crate::crypto) fn pins() -> Pins {
        let root = SigningKey::from_seed(SecretKey::from_bytes([7; 32])).verifying_key();
        Pins { repository: RepositoryId::new([8; 16]), root, config: 3 }
    }

    #[test]
    fn secrets_have_one_stored_form() {
        let bytes = all().encode(&pins());
        let expected = [
            &[0xa8, 0, 0x58, 32][..],
            pins().root.as_bytes(),
            &[1, 3, 2, 0x58, 32],
            &[1; 32],
            &[3, 0x58, 32],
            &[2; 32],
            &[4, 0x58, 32],
            &[3; 32],
            &[5, 0x58, 32],
            &[4; 32],
            &[6, 0x58, 32],
            &[7; 32],
            &[7, 0x82, 0x50],
            &[5; 16],
            &[0x58, 32],
            &[6; 32],
        ]
        .concat();
        assert_eq!(*bytes, expected);
        for role in Role::ALL {
            let some = all().restrict(role);
            let back = Secrets::decode(&some.encode(&pins()), pins().repository);
            assert_eq!(back, Ok((some, pins())));
        }
    }

    #[test]
    fn former_keys_follow_and_open_what_is_old() {
        let bytes = with_former(&[0xa, 0xb], &[0xc]).encode(&pins());
        let plain = all().encode(&pins());
        let expected = [
            &[0xaa][..],
            &plain[1..],
            &[9, 0x82, 0x58, 32],
            &[0xa; 32],
            &[0x58, 32],
            &[0xb; 32],
            &[10, 0x81, 0x58, 32],
            &[0xc; 32],
        ]
        .concat();
        assert_eq!(*bytes, expected);
        let (back, _) = Secrets::decode(&bytes, pins().repository).unwrap();
        assert_eq!(back, with_former(&[0xa, 0xb], &[0xc]));
        let seeds = |kind| back.private_keys(kind).map(|key| key.seed().expose()[0]).collect::<Vec<_>>();
        assert_eq!((seeds(ChunkKind::Tree), seeds(ChunkKind::Data)), (vec![3, 0xa, 0xb], vec![4, 0xc]));
        for role in [Role::Writer, Role::Verifier] {
            assert_eq!(back.restrict(role), all().restrict(role));
            assert!(
                Secrets { former_data: back.former_data.clone(), ..all().restrict(role) }
                    .check(role)
                    .is_err()
            );
        }
        assert_eq!(back.restrict(Role::Maintainer).former_metadata.len(), 2);
        assert!(back.restrict(Role::Maintainer).former_data.is_empty(), "it reads no file, old or new");
        let most = with_former(&[1; FORMER_MAX], &[2; FORMER_MAX]).encode(&pins());
        assert!(Secrets::decode(&most, pins().repository).is_ok() && most.len() < 20_000);
        let more = with_former(&[1; FORMER_MAX + 1], &[]).encode(&pins());
        assert!(Secrets::decode(&more, pins().repository).is_err());
        let mut none = bytes[..plain.len()].to_vec();
        none[0] = 0xa9;
        none.extend([9, 0x80]);
        assert!(Secrets::decode(&none, pins().repository).is_err(), "an empty list is left out");
    }

    #[test]
    fn broken_forms_are_refused() {
        let good = all().encode(&pins());
        for len in 0..good.len() {
            assert!(Secrets::decode(&good[..len], pins().repository).is_err(), "{len}");
        }
        let without_pins = [0xa0];
        assert!(Secrets::decode(&without_pins, pins().repository).is_err());
        let mut weak_root = good.to_vec();
        weak_root[4..36].fill(0);
        assert!(matches!(Secrets::decode(&weak_root, pins().repository), Err(CryptoError::PublicKey { .. })));
        let mut short_secret = good.to_vec();
        short_secret[40] = 31;
        assert!(Secrets::decode(&short_secret, pins().repository).is_err());
    }

    #[test]
    fn a_role_has_what_the_table_says() {
        let recovery = || Some(SecretKey::from_bytes([8; 32]));
        let whole = || Secrets { recovery: recovery(), ..with_former(&[9], &[10]) };
        let held = |role| whole().restrict(role).present();
        assert_eq!(held(Role::Writer), [true, true, false, false, true, false, false, false, false]);
        assert_eq!(held(Role::Maintainer), [false, true, true, false, true, false, false, true, false]);
        assert_eq!(held(Role::Verifier), [false, true, false, false, true, false, false, false, false]);
        assert_eq!(held(Role::Reader), [true, true, true, true, false, false, false, true, true]);
        assert_eq!(held(Role::Admin), [true; 9]);
        let bytes = whole().encode(&pins());
        assert_eq!(Secrets::decode(&bytes, pins().repository).unwrap().0, whole());
        for role in Role::ALL {
            assert_eq!(all().restrict(role).check(role), Ok(()));
            assert!(Secrets::default().check(role).is_err());
        }
        let writer = all().restrict(Role::Writer);
        let error = writer.check(Role::Reader).unwrap_err();
        assert_eq!(error.to_string(), "a reader needs the metadata private key");
        let error = all().check(Role::Writer).unwrap_err();
        assert_eq!(error.to_string(), "a writer must not hold the metadata private key");
    }
}
