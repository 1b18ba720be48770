//! Buffers that are used again. A fresh large buffer costs a page fault for every 4 KiB that is read into it, seven times
//! the price of the read itself.
//!
//! # Invariants
//! At most [`KEPT`] bytes lie idle. A buffer goes back to its pool when the last clone of its bytes is dropped.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Smallest buffer that is kept; below it the allocator is cheaper.
const SMALLEST: usize = 64 * 1024;
/// Largest buffer that is kept.
const LARGEST: usize = 64 * 1024 * 1024;
/// Bytes that may lie idle.
const KEPT: usize = 64 * 1024 * 1024;

#[derive(Debug, Default)]
struct Idle {
    /// Buffers by the logarithm of their size above the smallest.
    classes: [Vec<Vec<u8>>; 11],
    bytes: usize,
}

/// A shelf of idle buffers. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Idle>>);

impl Pool {
    /// A buffer of exactly `len` bytes with any content.
    pub(super) fn take(&self, len: usize) -> Buffer {
        if !(SMALLEST..=LARGEST).contains(&len) {
            return Buffer { memory: vec![0; len], len, pool: None };
        }
        let size = len.next_power_of_two();
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reused = idle.classes[class(size)].pop();
        if reused.is_some() {
            idle.bytes -= size;
        }
        drop(idle);
        Buffer { memory: reused.unwrap_or_else(|| vec![0; size]), len, pool: Some(self.clone()) }
    }

    fn give_back(&self, memory: Vec<u8>) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.bytes + memory.len() <= KEPT {
            idle.bytes += memory.len();
            idle.classes[class(memory.len())].push(memory);
        }
    }
}

/// `size` is a power of two between the smallest and the largest.
fn class(size: usize) -> usize {
    (size / SMALLEST).trailing_zeros() as usize
}

/// A buffer on loan.
#[derive(Debug)]
pub(super) struct Buffer {
    memory: Vec<u8>,
    len: usize,
    pool: Option<Pool>,
}

impl Buffer {
    /// The content as bytes that others may hold; the memory comes back when the last of them is dropped.
    pub(super) fn freeze(self) -> Bytes {
        if self.len == 0 { Bytes::new() } else { Bytes::from_owner(self) }
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.give_back(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_after_the_last_clone() {
        let pool = Pool::default();
        let mut buffer = pool.take(100_000);
        buffer.fill(7);
        let address = buffer.as_ptr();
        let bytes = buffer.freeze();
        let part = bytes.slice(10..20);
        drop(bytes);
        assert_ne!(pool.take(100_000).as_ptr(), address, "a clone still holds it");
        assert_eq!(part.as_ref(), [7; 10]);
        drop(part);
        let again: Vec<_> = (0..2).map(|_| pool.take(70_000)).collect();
        assert!(again.iter().any(|buffer| buffer.as_ptr() == address && buffer.len() == 70_000));
    }

    #[test]
    fn idle_memory_is_bounded() {
        let pool = Pool::default();
        drop((0..100).map(|_| pool.take(3 << 20)).collect::<Vec<_>>());
        assert!(pool.0.lock().unwrap().bytes <= KEPT);
        for len in [0, 1, SMALLEST - 1, SMALLEST, LARGEST, LARGEST + 1] {
            assert_eq!(pool.take(len).len(), len);
        }
    }
}
