//! Parts of packs that were read ahead: directories that were saved one after another lie side by side.
//!
//! # Invariants
//! At most [`KEPT`] parts of at most [`PART`] bytes each.

use bytes::Bytes;

/// Bytes that are fetched at once.
pub(super) const PART: u32 = 1 << 20;
/// Parts that are kept.
const KEPT: usize = 32;

/// The parts used last, the one used most recently last.
#[derive(Debug, Default)]
pub(super) struct Parts(Vec<((u32, u32), Bytes)>);

impl Parts {
    /// This part of this pack.
    pub(super) fn get(&mut self, key: (u32, u32)) -> Option<Bytes> {
        let at = self.0.iter().position(|(have, _)| *have == key)?;
        let part = self.0.remove(at);
        let bytes = part.1.clone();
        self.0.push(part);
        Some(bytes)
    }

    /// Keeps a part, and gives up the one that was not used for the longest time.
    pub(super) fn put(&mut self, key: (u32, u32), bytes: Bytes) {
        if self.0.len() >= KEPT {
            self.0.remove(0);
        }
        self.0.push((key, bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays() {
        let mut parts = Parts::default();
        for number in 0..KEPT as u32 {
            parts.put((number, 0), Bytes::from_static(b"x"));
        }
        assert!(parts.get((0, 0)).is_some());
        parts.put((99, 0), Bytes::new());
        assert!(parts.get((0, 0)).is_some() && parts.get((1, 0)).is_none());
        assert_eq!(parts.0.len(), KEPT);
    }
}
