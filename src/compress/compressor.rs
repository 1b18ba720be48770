//! Making zstd frames.

use zstd::zstd_safe::{CCtx, CParameter, compress_bound, get_error_name};

use super::{CompressError, LEVELS};

/// Up to this level zstd looks back 512 KiB by default, half a segment. Looking back 1 MiB costs no time and makes source
/// code and documents 1.6 to 1.9 % smaller, binaries the same. A larger hash table or shorter matches save more, but cost
/// more time than they save bytes.
const WIDER_WINDOW_UP_TO: i32 = 1;

/// Compresses with one level and one context, which is used again for every call. One for each worker.
pub struct Compressor {
    context: CCtx<'static>,
    level: i32,
}

impl Compressor {
    /// Sets a context up. Levels go from -7 to 19.
    pub fn new(level: i32) -> Result<Self, CompressError> {
        if !LEVELS.contains(&level) {
            return Err(CompressError::Level { level });
        }
        let mut context = CCtx::try_create().ok_or(CompressError::Compress { reason: "out of memory" })?;
        for parameter in [
            CParameter::CompressionLevel(level),
            CParameter::ContentSizeFlag(true),
            CParameter::ChecksumFlag(false),
            CParameter::DictIdFlag(false),
        ] {
            context.set_parameter(parameter).map_err(failed)?;
        }
        if level <= WIDER_WINDOW_UP_TO {
            context.set_parameter(CParameter::WindowLog(21)).map_err(failed)?;
            context.set_parameter(CParameter::HashLog(15)).map_err(failed)?;
        }
        Ok(Self { context, level })
    }

    /// The level.
    pub const fn level(&self) -> i32 {
        self.level
    }

    /// Replaces what is in `out` by one frame that holds `plain`. `out` keeps its memory from call to call.
    pub fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), CompressError> {
        out.clear();
        out.reserve(compress_bound(plain.len()));
        self.context.compress2(out, plain).map_err(failed)?;
        Ok(())
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Compressor(level {})", self.level)
    }
}

fn failed(code: usize) -> CompressError {
    CompressError::Compress { reason: get_error_name(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_outside_of_the_range_are_refused() {
        for level in [i32::MIN, -8, 20, 22, i32::MAX] {
            assert_eq!(Compressor::new(level).err(), Some(CompressError::Level { level }));
        }
    }

    #[test]
    fn frames_have_a_content_size_and_neither_checksum_nor_dictionary() {
        let mut out = Vec::new();
        for len in [0, 1, 255, 256, 70_000, 1 << 20] {
            Compressor::new(1).unwrap().compress(&vec![7; len], &mut out).unwrap();
            let descriptor = out[4];
            assert_eq!(descriptor & 0b0000_0111, 0, "checksum and dictionary flags");
            assert_eq!(zstd::zstd_safe::get_frame_content_size(&out).ok(), Some(Some(len as u64)));
        }
    }

    #[test]
    fn a_repetition_is_found_over_a_whole_segment() {
        let mut plain = vec![0; 1 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut plain[..400 << 10]);
        plain.copy_within(..400 << 10, 600 << 10);
        let mut out = Vec::new();
        for level in [-1, 1, 3] {
            Compressor::new(level).unwrap().compress(&plain, &mut out).unwrap();
            assert!(out.len() < 500 << 10, "level {level}: {}", out.len());
        }
    }

    #[test]
    fn a_used_context_gives_the_bytes_of_a_new_one() {
        let inputs: Vec<Vec<u8>> =
            (1..9u32).map(|n| (0..n * 40_000).map(|at| (at.wrapping_mul(at) >> n) as u8).collect()).collect();
        for level in [-7, 1, 3, 9] {
            let mut used = Compressor::new(level).unwrap();
            for plain in &inputs {
                let (mut a, mut b) = (vec![0xee; 10], Vec::new());
                used.compress(plain, &mut a).unwrap();
                Compressor::new(level).unwrap().compress(plain, &mut b).unwrap();
                assert_eq!(a, b, "level {level}");
            }
        }
    }
}
