//! The cutter: choosing a scan once, and using it.

use super::gear::Gear;
use super::params::ChunkParams;
#[cfg(target_arch = "x86_64")]
use super::vector::Finder;
use std::fmt;
#[cfg(target_arch = "x86_64")]
use std::ops::Range;
use std::sync::Arc;

/// Cuts content where the content says so. Cheap to clone; threads may share one.
#[derive(Clone)]
pub struct Cutter {
    gear: Arc<Gear>,
    #[cfg(target_arch = "x86_64")]
    finder: Option<Arc<Finder>>,
}

impl Cutter {
    /// A cutter whose cut points depend on `key` and `params` alone, not on the processor. `key` must serve no other
    /// purpose; its owner wipes it.
    pub fn new(key: &[u8; 32], params: ChunkParams) -> Self {
        let gear = Gear::new(key, params);
        #[cfg(target_arch = "x86_64")]
        let finder = {
            let (table, mask) = gear.low();
            Finder::new(&table, mask).map(Arc::new)
        };
        Self {
            gear: Arc::new(gear),
            #[cfg(target_arch = "x86_64")]
            finder,
        }
    }

    /// The same cutter without vector code: for comparing the two.
    pub fn portable(key: &[u8; 32], params: ChunkParams) -> Self {
        Self {
            gear: Arc::new(Gear::new(key, params)),
            #[cfg(target_arch = "x86_64")]
            finder: None,
        }
    }

    /// The lengths this cutter was made with.
    pub fn params(&self) -> ChunkParams {
        self.gear.params
    }

    /// Length of the first chunk of `data` in bytes: at most `data.len()` and [`ChunkParams::max`], and 0 only when
    /// `data` is empty.
    ///
    /// `data` must be the whole rest of the content, or hold at least [`ChunkParams::max`] bytes of it: with less, the
    /// end of the buffer would become a cut.
    pub fn cut(&self, data: &[u8]) -> usize {
        #[cfg(target_arch = "x86_64")]
        if let Some(finder) = &self.finder {
            return self.cut_with(finder, data);
        }
        self.gear.cut(data)
    }

    #[cfg(target_arch = "x86_64")]
    fn cut_with(&self, finder: &Finder, data: &[u8]) -> usize {
        let start = self.gear.params.min() as usize;
        let end = data.len().min(self.gear.params.max() as usize);
        if end <= start {
            return end;
        }
        // The portable scan takes two bytes a step and never tests an odd last byte.
        let tested = end & !1;
        let confirm =
            |places: Range<usize>| self.gear.first_cut(data, start, start + places.start..start + places.end);
        match finder.find(&data[start..tested], confirm) {
            Ok(place) => place,
            Err(seen) => self.gear.first_cut(data, start, start + seen..tested).unwrap_or(end),
        }
    }
}

impl fmt::Debug for Cutter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cutter").field("params", &self.gear.params).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const KEY: [u8; 32] = [0x4c; 32];

    fn params(min: u32, average: u32, max: u32) -> ChunkParams {
        ChunkParams::new(min, average, max).unwrap()
    }

    /// xorshift64*, written out here so that the golden numbers depend on nothing else.
    fn random(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        std::iter::repeat_with(|| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
        })
        .take(len)
        .collect()
    }

    fn text(len: usize, seed: u64) -> Vec<u8> {
        const WORDS: [&str; 8] =
            ["let ", "self.", "    ", "\n", "return ", "0x00, ", "// ------------------------ ", "value"];
        let words = random(len, seed).into_iter().flat_map(|byte| WORDS[usize::from(byte % 8)].bytes());
        words.take(len).collect()
    }

    fn lengths(cutter: &Cutter, mut data: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while !data.is_empty() {
            let length = cutter.cut(data);
            lengths.push(length);
            data = &data[length..];
        }
        lengths
    }

    fn ends(cutter: &Cutter, data: &[u8]) -> Vec<usize> {
        let add = |end: &mut usize, length| {
            *end += length;
            Some(*end)
        };
        lengths(cutter, data).into_iter().scan(0, add).collect()
    }

    /// The rule in `Gear::cut`, without any of the ways to make it fast.
    fn by_the_rule(cutter: &Cutter, data: &[u8]) -> usize {
        let (min, max) = (cutter.params().min() as usize, cutter.params().max() as usize);
        let end = data.len().min(max);
        (min..end & !1)
            .find(|&place| cutter.gear.first_cut(data, min, place..place + 1).is_some())
            .unwrap_or(end)
    }

    fn content() -> impl Strategy<Value = Vec<u8>> {
        let len = 0..40_000_usize;
        prop_oneof![
            (len.clone(), 1_u64..).prop_map(|(len, seed)| random(len, seed)),
            (len.clone(), 1_u64..).prop_map(|(len, seed)| text(len, seed)),
            (len.clone(), any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
            (len, proptest::collection::vec(any::<u8>(), 1..70)).prop_map(|(len, period)| period
                .into_iter()
                .cycle()
                .take(len)
                .collect()),
        ]
    }

    fn bounds() -> impl Strategy<Value = ChunkParams> {
        (32_u32..2048, 12_u32..15, 0_u32..9000).prop_map(|(min, bits, more)| {
            let average = 1 << bits;
            params(min * 2, average, average + more * 2)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn vector_and_portable_agree(
            key: [u8; 32], data in content(), params in bounds(), skip in 0_usize..65,
        ) {
            let data = &data[skip.min(data.len())..];
            let (fast, portable) = (Cutter::new(&key, params), Cutter::portable(&key, params));
            prop_assert_eq!(lengths(&fast, data), lengths(&portable, data));
            prop_assert_eq!(fast.cut(data), by_the_rule(&portable, data));
        }

        #[test]
        fn chunks_keep_to_the_bounds_and_cover_the_data(data in content(), params in bounds()) {
            let lengths = lengths(&Cutter::new(&KEY, params), &data);
            prop_assert_eq!(lengths.iter().sum::<usize>(), data.len());
            if let Some((_last, others)) = lengths.split_last() {
                let bounds = params.min() as usize..=params.max() as usize;
                prop_assert!(others.iter().all(|length| bounds.contains(length)), "{:?}", lengths);
            }
        }
    }

    #[test]
    fn every_length_up_to_the_maximum_agrees() {
        let params = params(64, 4096, 4102);
        let (fast, portable) = (Cutter::new(&KEY, params), Cutter::portable(&KEY, params));
        // The seed gives a first chunk of 4102 bytes, so that every length matters.
        let data = (1..).map(|seed| random(4170, seed)).find(|data| portable.cut(data) == 4102).unwrap();
        for data in [data, vec![0; 4170], random(4170, 5)] {
            for len in 0..data.len() {
                assert_eq!(fast.cut(&data[..len]), portable.cut(&data[..len]), "{len}");
            }
        }
    }

    #[test]
    fn bytes_after_the_data_do_not_matter() {
        let cutter = Cutter::new(&KEY, params(64, 4096, 16_384));
        let mut data = random(9000, 3);
        for len in [1, 65, 255, 256, 320, 321, 4095, 4096, 4097] {
            let before = cutter.cut(&data[..len]);
            data[len..].fill(0);
            assert_eq!(cutter.cut(&data[..len]), before);
            data[len..].copy_from_slice(&random(9000, 3)[len..]);
        }
    }

    #[test]
    fn repetition_that_passes_the_low_mask_everywhere_agrees() {
        let params = params(64, 4096, 16_384);
        let mut crowded = 0;
        for number in 0..16 {
            let mut key = KEY;
            key[0] = number;
            let (fast, portable) = (Cutter::new(&key, params), Cutter::portable(&key, params));
            let (table, mask) = fast.gear.low();
            // The low bits of the hash of a run are `-table[byte]`.
            for byte in (0..=255).filter(|&byte| table[usize::from(byte)].wrapping_neg() & mask == 0) {
                crowded += 1;
                let mut data = vec![byte; 20_000];
                assert_eq!(lengths(&fast, &data), lengths(&portable, &data));
                data[9000..12_000].copy_from_slice(&random(3000, u64::from(number) + 1));
                assert_eq!(lengths(&fast, &data), lengths(&portable, &data));
            }
        }
        assert!(crowded > 0);
    }

    #[test]
    fn nothing_is_cut_into_nothing() {
        for cutter in [Cutter::new(&KEY, ChunkParams::FILES), Cutter::portable(&KEY, ChunkParams::FILES)] {
            assert_eq!(cutter.cut(&[]), 0);
            assert_eq!(cutter.cut(&[1]), 1);
        }
    }

    // Never regenerate these numbers to make a test pass: every repository was cut by them.
    const GOLDEN_FILES: &[usize] = &[
        75868, 160481, 253635, 293444, 325792, 402537, 472071, 540178, 570965, 638082, 721594, 835704,
        921392, 993046, 1031141, 1048576,
    ];
    const GOLDEN_LARGE: &[usize] = &[293444, 570965, 994517, 1048576];
    const GOLDEN_TEXT: &[usize] = &[
        3357, 36125, 52415, 62102, 76337, 89320, 103402, 113964, 135280, 149788, 155021, 170222, 183284,
        194738, 200000,
    ];
    const GOLDEN_MEBIBYTE: usize = 1368678;

    #[test]
    fn golden_cut_points() {
        let data = random(1 << 20, 0x9e37_79b9_7f4a_7c15);
        let text = text(200_000, 42);
        for make in [Cutter::new, Cutter::portable] {
            let files = make(&KEY, ChunkParams::FILES);
            assert_eq!(ends(&files, &data), GOLDEN_FILES);
            let large = make(&KEY, params(64 << 10, 256 << 10, 1 << 20));
            assert_eq!(ends(&large, &data), GOLDEN_LARGE);
            let small = make(&KEY, params(1024, 8192, 32_768));
            assert_eq!(ends(&small, &text), GOLDEN_TEXT);
            let mebibyte = make(&KEY, params(4096, 1 << 20, 4 << 20));
            assert_eq!(mebibyte.cut(&random(8 << 20, 77)), GOLDEN_MEBIBYTE);
        }
    }

    #[test]
    fn another_key_cuts_elsewhere() {
        let data = random(1 << 20, 9);
        let params = params(64, 4096, 16_384);
        let one: HashSet<_> = ends(&Cutter::new(&[1; 32], params), &data).into_iter().collect();
        let two = ends(&Cutter::new(&[2; 32], params), &data);
        let shared = two.iter().filter(|end| one.contains(end)).count();
        assert!(shared < 5, "{shared} of {}", two.len());
    }

    #[test]
    fn cuts_are_found_again_after_an_insertion() {
        let cutter = Cutter::new(&KEY, params(1024, 4096, 16_384));
        for data in [random(2 << 20, 11), text(2 << 20, 12)] {
            let before = ends(&cutter, &data);
            for inserted in [1, 13, 1000, 5001] {
                let changed = [random(inserted, 13), data.clone()].concat();
                let after: HashSet<_> =
                    ends(&cutter, &changed).into_iter().map(|end| end.wrapping_sub(inserted)).collect();
                let lost = before.iter().filter(|end| !after.contains(end)).count();
                assert!(lost < 12, "{lost} of {} lost after {inserted} bytes", before.len());
            }
        }
    }

    #[test]
    fn random_data_has_chunks_of_about_the_average() {
        let cutter = Cutter::new(&KEY, params(4096, 16_384, 65_536));
        let data = random(16 << 20, 21);
        let mean = data.len() / lengths(&cutter, &data).len();
        assert!((16_384..22_000).contains(&mean), "{mean}");
    }

    #[test]
    fn the_secret_table_is_not_printed() {
        let printed = format!("{:?}", Cutter::new(&KEY, ChunkParams::FILES));
        assert!(printed.contains("65536"), "{printed}");
        assert!(printed.len() < 120, "{printed}");
    }
}
