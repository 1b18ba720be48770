//! From a passphrase to a key: argon2id.
//!
//! # Invariants
//! No cost below the floor or above the cap exists as a value, whether it comes from an argument or from stored bytes: a
//! hostile slot can neither weaken a passphrase nor exhaust the machine.

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::{CryptoError, SecretKey};
use crate::format::keyslot::StoredCost;

const MEMORY: (u32, u32) = (64 << 10, 1 << 20);
const PASSES: (u32, u32) = (3, 16);
const LANES: (u32, u32) = (1, 4);

/// What a guess at a passphrase costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfParams(StoredCost);

impl Default for KdfParams {
    /// 256 MiB, 4 passes, 1 lane: about 0.7 s.
    fn default() -> Self {
        Self(StoredCost { memory_kib: 256 << 10, passes: 4, lanes: 1 })
    }
}

impl KdfParams {
    /// Takes costs from 64 MiB and 3 passes to 1 GiB and 16 passes, with at most 4 lanes.
    pub fn new(cost: StoredCost) -> Result<Self, CryptoError> {
        for (what, value, (least, most)) in [
            ("memory in KiB", cost.memory_kib, MEMORY),
            ("number of passes", cost.passes, PASSES),
            ("number of lanes", cost.lanes, LANES),
        ] {
            if value < least || value > most {
                return Err(CryptoError::KdfCost { what, value, least, most });
            }
        }
        Ok(Self(cost))
    }

    /// The costs.
    pub const fn cost(&self) -> StoredCost {
        self.0
    }

    /// Stretches a passphrase, byte for byte as it is, to a wrapping key and a commitment to it: the first and the
    /// second half of 64 bytes. Takes the memory that [`KdfParams::cost`] names for as long as it runs.
    pub fn stretch(&self, passphrase: &str, salt: &[u8; 32]) -> Result<(SecretKey, [u8; 32]), CryptoError> {
        let StoredCost { memory_kib, passes, lanes } = self.0;
        let failed = |_| CryptoError::KdfMemory { kib: memory_kib };
        let params = Params::new(memory_kib, passes, lanes, Some(64)).map_err(failed)?;
        let mut out = Zeroizing::new([0; 64]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), salt, &mut out[..])
            .map_err(failed)?;
        Ok(halves(&out))
    }
}

/// Splits 64 bytes into a key and a commitment to it.
pub(super) fn halves(bytes: &[u8; 64]) -> (SecretKey, [u8; 32]) {
    let mut key = Zeroizing::new([0; 32]);
    let mut commitment = [0; 32];
    key.copy_from_slice(&bytes[..32]);
    commitment.copy_from_slice(&bytes[32..]);
    (SecretKey::from_bytes(*key), commitment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(memory_kib: u32, passes: u32, lanes: u32) -> StoredCost {
        StoredCost { memory_kib, passes, lanes }
    }

    #[test]
    fn costs_outside_of_floor_and_cap_are_refused() {
        assert!(KdfParams::new(cost(65_536, 3, 1)).is_ok());
        assert!(KdfParams::new(cost(1 << 20, 16, 4)).is_ok());
        assert_eq!(KdfParams::new(KdfParams::default().cost()), Ok(KdfParams::default()));
        for (memory, passes, lanes) in [
            (65_535, 3, 1),
            (65_536, 2, 1),
            (65_536, 3, 0),
            ((1 << 20) + 1, 3, 1),
            (65_536, 17, 1),
            (65_536, 3, 5),
            (u32::MAX, 3, 1),
        ] {
            let refused = KdfParams::new(cost(memory, passes, lanes));
            assert!(matches!(refused, Err(CryptoError::KdfCost { .. })), "{memory} {passes} {lanes}");
        }
    }
}
