//! Wrapping a role's secrets in a key slot, and unlocking them.
//!
//! A slot's salt is random and new, so the wrapping key serves one slot and its AES-GCM nonce is zero. From a
//! passphrase: [`KdfParams::stretch`]. From a key file or recovery words: 64 bytes of BLAKE3 over the salt, keyed by the
//! key's derived key for [`context::SLOT_KEY_FILE`] or [`context::SLOT_WORDS`]. The first half wraps; the second is
//! stored and binds the slot to that one key.
//!
//! # Invariants
//! The commitment is compared before anything is decrypted, so no slot opens under two keys.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use super::aead::{AeadKey, NONCE_LEN};
use super::kdf::{KdfParams, halves};
use super::key::equal;
use super::{CryptoError, Pins, SecretKey, Secrets, context};
use crate::format::envelope::{ChunkKind, ObjectKind, Preamble};
use crate::format::keyslot::{KeySlot, NOTE_LEN, Role, SlotKind, SlotNote};
use crate::random::{Random, random_array};

/// What someone has to unlock a repository with.
pub enum Unlock {
    /// Used byte for byte; whoever read it from a line has taken the line feed off.
    Passphrase(Zeroizing<String>),
    /// The key of a key file.
    KeyFile(SecretKey),
    /// The key that recovery words spell.
    Words(SecretKey),
}

impl Unlock {
    /// The kind of slot it can open.
    pub const fn kind(&self) -> SlotKind {
        match self {
            Self::Passphrase(_) => SlotKind::Passphrase,
            Self::KeyFile(_) => SlotKind::KeyFile,
            Self::Words(_) => SlotKind::Words,
        }
    }

    /// What it is, for people.
    pub const fn what(&self) -> &'static str {
        match self {
            Self::Passphrase(_) => "passphrase",
            Self::KeyFile(_) => "key file",
            Self::Words(_) => "set of recovery words",
        }
    }

    fn wrapping_key(
        &self,
        kdf: Option<KdfParams>,
        salt: &[u8; 32],
    ) -> Result<(SecretKey, [u8; 32]), CryptoError> {
        let (key, context) = match self {
            Self::Passphrase(text) => return kdf.unwrap_or_default().stretch(text, salt),
            Self::KeyFile(key) => (key, context::SLOT_KEY_FILE),
            Self::Words(key) => (key, context::SLOT_WORDS),
        };
        let mut out = Zeroizing::new([0; 64]);
        let mut hasher = blake3::Hasher::new_keyed(key.derive(context).expose());
        hasher.update(salt);
        hasher.finalize_xof().fill(&mut out[..]);
        Ok(halves(&out))
    }
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unlock({})", self.kind())
    }
}

/// What an opened slot gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Whose secrets they are.
    pub role: Role,
    /// The secrets, all that the role needs and no more.
    pub secrets: Secrets,
    /// What to believe about the repository.
    pub pins: Pins,
}

/// Makes the bytes of a new slot. `kdf` counts for a passphrase only; the note goes with a role that holds the index key.
/// The caller reads the slot back from the store and opens it before an older one is given up.
pub fn wrap(
    unlock: &Unlock,
    content: &Opened,
    note: Option<&SlotNote>,
    kdf: KdfParams,
    random: &dyn Random,
) -> Result<Vec<u8>, CryptoError> {
    content.secrets.check(content.role)?;
    let kind = unlock.kind();
    let salt = random_array(random)?;
    let (key, commitment) = unlock.wrapping_key(Some(kdf), &salt)?;
    let mut slot = KeySlot {
        preamble: Preamble::new(ObjectKind::KeySlot, ChunkKind::Data, content.pins.repository),
        kind,
        role: content.role,
        cost: (kind == SlotKind::Passphrase).then(|| kdf.cost()),
        salt,
        commitment,
        sealed: Vec::new(),
        note: None,
    };
    if let (Some(note), Some(index)) = (note, &content.secrets.index) {
        slot.note = Some(seal_note(index, &slot, note)?);
    }
    let mut buf = content.secrets.encode(&content.pins);
    let tag = AeadKey::new(&key).seal_in_place([0; NONCE_LEN], &slot.aad(), &mut buf)?;
    slot.sealed = [&buf[..], &tag].concat();
    Ok(slot.encode())
}

/// The key of a slot's note. A slot's salt is its own, so the key serves one note and its nonce is zero.
fn note_key(index: &SecretKey, slot: &KeySlot) -> AeadKey {
    AeadKey::new(&index.derive(context::SLOT_NOTE).keyed_key(&slot.salt))
}

fn seal_note(index: &SecretKey, slot: &KeySlot, note: &SlotNote) -> Result<Vec<u8>, CryptoError> {
    let mut buf = note.encode()?;
    let tag = note_key(index, slot).seal_in_place([0; NONCE_LEN], &slot.aad(), &mut buf)?;
    buf.extend_from_slice(&tag);
    Ok(buf)
}

/// What is noted of a slot; `None` if nothing is, or if it was made with another index key or for another slot.
pub fn open_note(index: &SecretKey, slot: &KeySlot) -> Option<SlotNote> {
    let mut buf = slot.note.clone()?;
    let len = note_key(index, slot).open_in_place([0; NONCE_LEN], &slot.aad(), &mut buf).ok()?;
    SlotNote::decode(buf.get(..len.min(NOTE_LEN))?).ok()
}

/// Opens a slot. A slot of another kind is refused before any work is done; a wrong key is [`CryptoError::WrongKey`];
/// a right key and an altered slot is [`CryptoError::Authentication`].
pub fn open(unlock: &Unlock, bytes: &[u8]) -> Result<Opened, CryptoError> {
    let mut slot = KeySlot::decode(bytes)?;
    if slot.kind != unlock.kind() {
        return Err(CryptoError::SlotKind { tried: unlock.kind(), found: slot.kind });
    }
    let kdf = slot.cost.map(KdfParams::new).transpose()?;
    let (key, commitment) = unlock.wrapping_key(kdf, &slot.salt)?;
    if !equal(&commitment, &slot.commitment) {
        return Err(CryptoError::WrongKey);
    }
    let aad = slot.aad();
    let len = AeadKey::new(&key).open_in_place([0; NONCE_LEN], &aad, &mut slot.sealed)?;
    let decoded = Secrets::decode(&slot.sealed[..len], slot.preamble.repository);
    slot.sealed.zeroize();
    let (secrets, pins) = decoded?;
    secrets.check(slot.role)?;
    Ok(Opened { role: slot.role, secrets, pins })
}

#[cfg(test)]
mod tests {
    use super::super::secrets::tests::{all, pins};
    use super::super::testing::{Broken, Seeded};
    use super::*;
    use crate::format::keyslot::StoredCost;

    fn content(role: Role) -> Opened {
        Opened { role, secrets: all().restrict(role), pins: pins() }
    }

    fn file(byte: u8) -> Unlock {
        Unlock::KeyFile(SecretKey::from_bytes([byte; 32]))
    }

    fn slot(role: Role) -> Vec<u8> {
        wrap(&file(1), &content(role), None, KdfParams::default(), &Seeded::new(10)).unwrap()
    }

    #[test]
    fn a_slot_is_fixed_by_its_key_and_salt() {
        assert_eq!(
            blake3::hash(&slot(Role::Admin)).to_string(),
            "848c4fd1e2ea25cbb5f3469af3e0eb53c8357f9deccc518cbb7133d649cf153a"
        );
        for role in Role::ALL {
            assert_eq!(open(&file(1), &slot(role)), Ok(content(role)));
        }
        let words = Unlock::Words(SecretKey::from_bytes([1; 32]));
        let bytes =
            wrap(&words, &content(Role::Reader), None, KdfParams::default(), &Seeded::new(10)).unwrap();
        assert_eq!(open(&words, &bytes), Ok(content(Role::Reader)));
        assert_ne!(
            KeySlot::decode(&bytes).unwrap().commitment,
            KeySlot::decode(&slot(Role::Reader)).unwrap().commitment
        );
    }

    #[test]
    fn the_wrong_key_is_told_from_damage() {
        assert_eq!(open(&file(2), &slot(Role::Writer)), Err(CryptoError::WrongKey));
        let edited = |edit: &dyn Fn(&mut KeySlot)| {
            let mut parts = KeySlot::decode(&slot(Role::Writer)).unwrap();
            edit(&mut parts);
            open(&file(1), &parts.encode())
        };
        assert_eq!(edited(&|s| s.salt[0] ^= 1), Err(CryptoError::WrongKey));
        assert_eq!(edited(&|s| s.commitment[0] ^= 1), Err(CryptoError::WrongKey));
        assert_eq!(edited(&|s| s.role = Role::Verifier), Err(CryptoError::Authentication));
        assert_eq!(
            edited(&|s| s.preamble.repository = crate::id::RepositoryId::new([0; 16])),
            Err(CryptoError::Authentication)
        );
        assert_eq!(edited(&|s| s.sealed[0] ^= 1), Err(CryptoError::Authentication));
        assert_eq!(edited(&|s| s.sealed.truncate(15)), Err(CryptoError::Authentication));
    }

    #[test]
    fn a_slot_of_another_kind_is_refused_before_any_work() {
        let mut parts = KeySlot::decode(&slot(Role::Writer)).unwrap();
        parts.kind = SlotKind::Passphrase;
        // A cost that would be refused shows that nothing was computed: the kind is refused first.
        parts.cost = Some(StoredCost { memory_kib: u32::MAX, passes: u32::MAX, lanes: 1 });
        let tried = open(&file(1), &parts.encode());
        assert_eq!(
            tried,
            Err(CryptoError::SlotKind { tried: SlotKind::KeyFile, found: SlotKind::Passphrase })
        );
        let passphrase = Unlock::Passphrase(Zeroizing::new("horse".into()));
        assert!(matches!(open(&passphrase, &parts.encode()), Err(CryptoError::KdfCost { .. })));
        parts.cost = Some(StoredCost { memory_kib: 8, passes: 1, lanes: 1 });
        assert!(matches!(open(&passphrase, &parts.encode()), Err(CryptoError::KdfCost { .. })));
    }

    #[test]
    fn a_passphrase_is_taken_byte_for_byte() {
        let floor = KdfParams::new(StoredCost { memory_kib: 65_536, passes: 3, lanes: 1 }).unwrap();
        let unlock = |text: &str| Unlock::Passphrase(Zeroizing::new(text.into()));
        let bytes = wrap(&unlock("pa ss "), &content(Role::Admin), None, floor, &Seeded::new(11)).unwrap();
        assert_eq!(open(&unlock("pa ss "), &bytes), Ok(content(Role::Admin)));
        assert_eq!(open(&unlock("pa ss"), &bytes), Err(CryptoError::WrongKey));
    }

    #[test]
    fn a_slot_is_made_only_for_a_whole_role_and_with_randomness() {
        let lacking = Opened { secrets: all().restrict(Role::Writer), ..content(Role::Reader) };
        let made = wrap(&file(1), &lacking, None, KdfParams::default(), &Seeded::new(10));
        assert!(matches!(made, Err(CryptoError::RoleSecret { missing: true, .. })));
        let made = wrap(&file(1), &content(Role::Reader), None, KdfParams::default(), &Broken);
        assert!(matches!(made, Err(CryptoError::Random(_))));
    }

    #[test]
    fn a_slot_that_gives_a_role_more_or_less_than_is_its_own_does_not_open() {
        let made = |role: Role, secrets: Secrets| {
            let mut slot = KeySlot::decode(&slot(role)).unwrap();
            let (key, _) = file(1).wrapping_key(None, &slot.salt).unwrap();
            let mut buf = secrets.encode(&pins());
            let tag = AeadKey::new(&key).seal_in_place([0; NONCE_LEN], &slot.aad(), &mut buf).unwrap();
            slot.sealed = [&buf[..], &tag].concat();
            open(&file(1), &slot.encode())
        };
        for role in [Role::Writer, Role::Maintainer, Role::Verifier, Role::Reader] {
            let refused = made(role, all());
            assert!(matches!(refused, Err(CryptoError::RoleSecret { missing: false, .. })), "{role}");
            let refused = made(role, Secrets::default());
            assert!(matches!(refused, Err(CryptoError::RoleSecret { missing: true, .. })), "{role}");
            assert!(made(role, all().restrict(role)).is_ok());
        }
    }

    #[test]
    fn a_note_opens_with_the_index_key_and_at_its_own_slot_only() {
        let note = SlotNote { label: Some("web1".to_owned()), writer: None };
        let made = |seed| {
            let content = content(Role::Writer);
            let random = Seeded::new(seed);
            let bytes = wrap(&file(1), &content, Some(&note), KdfParams::default(), &random).unwrap();
            assert_eq!(open(&file(1), &bytes), Ok(content));
            KeySlot::decode(&bytes).unwrap()
        };
        let (one, two) = (made(10), made(20));
        let index = all().index.unwrap();
        assert_eq!(open_note(&index, &one), Some(note.clone()));
        assert_eq!(open_note(&all().dedup.unwrap(), &one), None);
        let moved = KeySlot { note: two.note.clone(), ..one.clone() };
        assert_eq!(open_note(&index, &moved), None, "what was noted of another slot");
        let renamed = KeySlot { role: Role::Admin, ..one };
        assert_eq!(open_note(&index, &renamed), None);
        let bare = content(Role::Verifier).secrets;
        let bare = Opened { secrets: Secrets { index: None, ..bare }, ..content(Role::Verifier) };
        let bytes = wrap(&file(1), &bare, Some(&note), KdfParams::default(), &Seeded::new(1)).unwrap();
        assert_eq!(KeySlot::decode(&bytes).unwrap().note, None);
    }

    #[test]
    fn nothing_secret_prints() {
        let text = format!("{:?} {:?}", file(0xab), content(Role::Admin));
        assert!(!text.contains("171") && !text.contains("abab"), "{text}");
    }
}
