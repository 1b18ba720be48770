//! Reading zstd frames that may lie.

use std::io::Read;

use zstd::zstd_safe::{
    DCtx, find_frame_compressed_size, get_dict_id_from_frame, get_error_name, get_frame_content_size,
};

use super::CompressError;

/// Largest window of a foreign frame whose length is not known: 128 MiB, what zstd accepts by default.
const FOREIGN_WINDOW_LOG: u32 = 27;

const FRAME_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Decompresses with one context, which is used again for every call. One for each worker.
pub struct Decompressor(DCtx<'static>);

impl Decompressor {
    /// Sets a context up.
    pub fn new() -> Result<Self, CompressError> {
        DCtx::try_create().map(Self).ok_or(CompressError::Frame { reason: "out of memory" })
    }

    /// Replaces what is in `out` by the `plain_len` bytes that the one frame in `stored` holds.
    ///
    /// `plain_len` must be bounded by the caller: it is what is allocated, whatever the frame says. A frame of another
    /// length, a second frame, trailing bytes and a dictionary are errors. After an error `out` has any content.
    /// `out` keeps its memory from call to call and is fastest when it is not cleared between them.
    pub fn decompress(
        &mut self,
        stored: &[u8],
        plain_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CompressError> {
        let frame = |reason| CompressError::Frame { reason };
        if !stored.starts_with(&FRAME_MAGIC) {
            return Err(frame("no magic number"));
        }
        let found = get_frame_content_size(stored)
            .map_err(|_| frame("broken header"))?
            .ok_or(frame("no content size"))?;
        if found != plain_len as u64 {
            return Err(CompressError::Length { expected: plain_len, found });
        }
        if get_dict_id_from_frame(stored).is_some() {
            return Err(frame("a dictionary"));
        }
        let size = find_frame_compressed_size(stored).map_err(|code| frame(get_error_name(code)))?;
        if size != stored.len() {
            return Err(frame("trailing bytes"));
        }
        // In one call into a whole buffer: zstd uses `out` itself as the window, so the frame's window size costs nothing.
        out.resize(plain_len, 0);
        let written = self.0.decompress(&mut out[..], stored).map_err(|code| frame(get_error_name(code)))?;
        if written == plain_len {
            Ok(())
        } else {
            Err(CompressError::Length { expected: plain_len, found: written as u64 })
        }
    }
}

impl Decompressor {
    /// As [`Self::decompress`], of what another program wrote: frames need not name their length, and may be several.
    pub fn decompress_foreign(
        &mut self,
        stored: &[u8],
        plain_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CompressError> {
        out.resize(plain_len, 0);
        let written = self.0.decompress(&mut out[..], stored);
        let written = written.map_err(|code| CompressError::Frame { reason: get_error_name(code) })?;
        if written == plain_len {
            Ok(())
        } else {
            Err(CompressError::Length { expected: plain_len, found: written as u64 })
        }
    }
}

/// What another program wrote, of a length that is not known and at most `most`.
pub fn decompress_unsized(stored: &[u8], most: usize) -> Result<Vec<u8>, CompressError> {
    let broken = |_| CompressError::Frame { reason: "broken frame" };
    let mut decoder = zstd::stream::read::Decoder::with_buffer(stored).map_err(broken)?;
    decoder.window_log_max(FOREIGN_WINDOW_LOG).map_err(broken)?;
    let mut out = Vec::new();
    decoder.take(most as u64 + 1).read_to_end(&mut out).map_err(broken)?;
    if out.len() > most {
        return Err(CompressError::Length { expected: most, found: out.len() as u64 });
    }
    Ok(out)
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decompressor")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Compressor;
    use super::*;

    fn compress(plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Compressor::new(3).unwrap().compress(plain, &mut out).unwrap();
        out
    }

    fn decompress(stored: &[u8], plain_len: usize) -> Result<Vec<u8>, CompressError> {
        let mut out = Vec::new();
        let result = Decompressor::new().unwrap().decompress(stored, plain_len, &mut out);
        assert!(
            out.capacity() <= plain_len.next_power_of_two().max(8),
            "memory is bounded by the known length"
        );
        result.map(|()| out)
    }

    /// A frame by hand: single segment, content size in 8 bytes, run-length blocks of the greatest size.
    fn bomb(declared: u64, blocks: usize) -> Vec<u8> {
        let mut frame = FRAME_MAGIC.to_vec();
        frame.push(0b1110_0000);
        frame.extend(declared.to_le_bytes());
        for block in 0..blocks {
            let last = u32::from(block + 1 == blocks);
            let header = last | 1 << 1 | (128 << 10) << 3;
            frame.extend(&header.to_le_bytes()[..3]);
            frame.push(b'A');
        }
        frame
    }

    #[test]
    fn an_honest_frame_by_hand_is_read() {
        assert_eq!(decompress(&bomb(256 << 10, 2), 256 << 10), Ok(vec![b'A'; 256 << 10]));
    }

    #[test]
    fn a_bomb_is_refused_within_the_known_length() {
        let sixteen_gib = 16 << 30;
        let frame = bomb(sixteen_gib, 131_072);
        assert_eq!(
            decompress(&frame, 1 << 20),
            Err(CompressError::Length { expected: 1 << 20, found: sixteen_gib })
        );
        // It declares the known length, and goes on.
        assert!(matches!(decompress(&bomb(1 << 20, 131_072), 1 << 20), Err(CompressError::Frame { .. })));
        // It declares more than it holds.
        assert!(matches!(decompress(&bomb(1 << 20, 7), 1 << 20), Err(CompressError::Frame { .. })));
        assert!(matches!(
            decompress(&bomb(u64::MAX, 1), 1 << 20),
            Err(CompressError::Frame { .. } | CompressError::Length { .. })
        ));
    }

    #[test]
    fn other_frames_are_refused() {
        let good = compress(b"plain plain plain plain");
        assert_eq!(decompress(&good, 23).unwrap(), b"plain plain plain plain");
        let frame = |stored: &[u8]| matches!(decompress(stored, 23), Err(CompressError::Frame { .. }));
        assert!(frame(b""), "empty");
        assert!(frame(&good[..good.len() - 1]), "cut");
        assert!(frame(&[&good[..], &[0]].concat()), "trailing byte");
        assert!(frame(&[&good[..], &good].concat()), "two frames");
        assert!(frame(&[&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0], &good[..]].concat()), "skippable frame first");
        assert!(frame(&[&[0x25, 0xb5, 0x2f, 0xfd], &good[4..]].concat()), "old format");
        let unsized_frame = zstd::stream::encode_all(&b"plain plain plain plain"[..], 1).unwrap();
        assert!(frame(&unsized_frame), "no content size");
        let mut with_dictionary = good.clone();
        with_dictionary[4] |= 1;
        with_dictionary.insert(5, 9);
        assert!(frame(&with_dictionary), "dictionary");
        assert_eq!(decompress(&good, 22), Err(CompressError::Length { expected: 22, found: 23 }));
        assert_eq!(decompress(&good, 24), Err(CompressError::Length { expected: 24, found: 23 }));
    }

    #[test]
    fn foreign_frames_are_read_within_their_bounds() {
        let plain = b"plain plain plain plain".repeat(1000);
        let frame = zstd::stream::encode_all(&plain[..], 1).unwrap();
        let mut out = Vec::new();
        let mut decompressor = Decompressor::new().unwrap();
        decompressor.decompress_foreign(&frame, plain.len(), &mut out).unwrap();
        assert_eq!(out, plain);
        assert_eq!(decompress_unsized(&frame, plain.len()).unwrap(), plain);
        for len in [0, 1, plain.len() - 1, plain.len() + 1] {
            assert!(decompressor.decompress_foreign(&frame, len, &mut out).is_err(), "{len}");
        }
        assert!(decompress_unsized(&frame, plain.len() - 1).is_err());
        assert!(decompress_unsized(&frame[..frame.len() - 1], 1 << 20).is_err());
        assert!(decompress_unsized(&bomb(16 << 30, 131_072), 1 << 20).is_err());
    }

    proptest! {
        #[test]
        fn all_content_comes_back(plain in proptest::collection::vec(0u8..4, 0..20_000), level in -7i32..=6) {
            let mut stored = Vec::new();
            Compressor::new(level).unwrap().compress(&plain, &mut stored).unwrap();
            prop_assert_eq!(decompress(&stored, plain.len()).unwrap(), plain);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), len in 0usize..100_000) {
            let _ = decompress(&bytes, len);
            let framed = [&FRAME_MAGIC[..], &bytes].concat();
            let _ = decompress(&framed, len);
            let _ = decompress_unsized(&framed, len);
            let _ = Decompressor::new().unwrap().decompress_foreign(&framed, len, &mut Vec::new());
        }
    }
}
