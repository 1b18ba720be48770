//! Telling quickly what is not worth compressing.

const SAMPLES: usize = 16;
const SAMPLE_LEN: usize = 1 << 10;

/// Least input that is judged: fewer bytes of noise do not fill a histogram, and cost nothing to compress.
const LEAST: usize = 8 << 10;

/// Bits a byte above which zstd saves next to nothing.
const LIMIT: f32 = 7.9;

/// Whether content looks like noise, so that compressing it would be wasted: the entropy of 16 samples of 1 KiB spread
/// over it is above 7.9 bits a byte. Costs some microseconds, whatever the length. Says no to less than 8 KiB.
pub fn looks_incompressible(plain: &[u8]) -> bool {
    if plain.len() < LEAST {
        return false;
    }
    // Two histograms, so that equal neighbours do not wait for each other.
    let mut counts = [[0u16; 256]; 2];
    let mut total = 0u32;
    let stride = (plain.len() / SAMPLES).max(SAMPLE_LEN);
    for part in plain.chunks(stride).take(SAMPLES) {
        let sample = &part[..part.len().min(SAMPLE_LEN)];
        for pair in sample.chunks_exact(2) {
            counts[0][usize::from(pair[0])] += 1;
            counts[1][usize::from(pair[1])] += 1;
        }
        total += (sample.len() & !1) as u32;
    }
    let total = total as f32;
    let [even, odd] = &counts;
    let bits: f32 = even
        .iter()
        .zip(odd)
        .map(|(a, b)| f32::from(a + b))
        .filter(|count| *count > 0.0)
        .map(|count| count * (total / count).log2())
        .sum();
    bits > LIMIT * total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn noise_is_told_from_everything_else() {
        for len in [8 << 10, (8 << 10) + 1, 10_000, 16 << 10, 17_000, 100_001, 1 << 20, 8 << 20] {
            assert!(looks_incompressible(&noise(len)), "noise of {len}");
            assert!(!looks_incompressible(&vec![0; len]), "zeroes of {len}");
            let digits: Vec<u8> = noise(len).iter().map(|byte| byte & 0x7f).collect();
            assert!(!looks_incompressible(&digits), "seven bits of {len}");
        }
    }

    #[test]
    fn short_and_half_compressible_content_is_compressed() {
        assert!(!looks_incompressible(&noise(LEAST - 1)));
        assert!(!looks_incompressible(&[]));
        let half = [noise(1 << 19), vec![b'x'; 1 << 19]].concat();
        assert!(!looks_incompressible(&half));
    }
}
