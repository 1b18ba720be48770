//! Pieces of a deflate stream that can be put together: each ends at a whole byte and needs nothing of those before it.

use std::sync::{Mutex, PoisonError};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use crate::compress::looks_incompressible;

/// Level for what can be compressed: zlib's own choice.
const LEVEL: u32 = 6;
/// Most bytes of a block that is stored.
const STORED_MAX: usize = 0xffff;

/// A piece of a file, compressed.
#[derive(Debug)]
pub(in super::super) struct Packed {
    pub(super) bytes: Vec<u8>,
    /// Sum of what was compressed,
    pub(super) sum: Crc,
    /// and its length; the sum counts it in 32 bits only.
    pub(super) len: u64,
}

/// Compresses, on whatever thread.
#[derive(Debug, Default)]
pub(in super::super) struct Packer {
    /// Contexts that nobody uses now: they take longer to make than a small file to compress.
    idle: Mutex<Vec<Compress>>,
}

impl Packer {
    /// Compresses a piece.
    pub(in super::super) fn pack(&self, raw: &[u8]) -> Packed {
        let mut sum = Crc::new();
        sum.update(raw);
        let packed = if looks_incompressible(raw) { None } else { self.deflate(raw) };
        let bytes = packed.unwrap_or_else(|| store(raw));
        Packed { bytes, sum, len: raw.len() as u64 }
    }

    /// `None` if that makes it no smaller.
    fn deflate(&self, raw: &[u8]) -> Option<Vec<u8>> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut context = idle.unwrap_or_else(|| Compress::new(Compression::new(LEVEL), false));
        context.reset();
        let mut out = Vec::with_capacity(raw.len() / 2 + 64);
        let mut done = false;
        while !done {
            let from = context.total_in() as usize;
            out.reserve(raw.len() / 4 + 64);
            let status = context.compress_vec(raw.get(from..)?, &mut out, FlushCompress::Sync).ok()?;
            // Room was left: everything is out.
            done = out.len() < out.capacity() && context.total_in() as usize == raw.len();
            if status == Status::StreamEnd || out.len() > raw.len() + 64 {
                return None;
            }
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(context);
        (out.len() < raw.len()).then_some(out)
    }
}

/// Blocks that hold the bytes as they are; none of them is the last.
fn store(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + 5 * raw.len().div_ceil(STORED_MAX));
    for block in raw.chunks(STORED_MAX) {
        let len = block.len() as u16;
        out.push(0);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(block);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::LAST_BLOCK;
    use super::*;

    fn noise(len: usize, seed: u8) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn pieces_are_one_stream() {
        let text: Vec<u8> = (0..200_000_u32).flat_map(|n| n.to_string().into_bytes()).collect();
        let pieces = [
            text.clone(),
            noise(200_000, 1),
            Vec::new(),
            vec![0; 3 << 20],
            b"x".to_vec(),
            noise(65_535, 2),
            noise(65_536, 3),
            noise(70, 4),
            text,
        ];
        let packer = Packer::default();
        let (mut stream, mut sum) = (Vec::new(), Crc::new());
        for piece in &pieces {
            let packed = packer.pack(piece);
            assert!(packed.bytes.len() <= piece.len() + 5 * piece.len().div_ceil(STORED_MAX));
            assert_eq!(packed.len, piece.len() as u64);
            sum.combine(&packed.sum);
            stream.extend_from_slice(&packed.bytes);
        }
        stream.extend_from_slice(&LAST_BLOCK);
        let whole = pieces.concat();
        let mut back = Vec::new();
        flate2::read::DeflateDecoder::new(&stream[..]).read_to_end(&mut back).unwrap();
        assert!(back == whole);
        let mut expected = Crc::new();
        expected.update(&whole);
        assert_eq!(sum.sum(), expected.sum());
        assert!(stream.len() < whole.len() / 4, "{} of {}", stream.len(), whole.len());
    }
}
