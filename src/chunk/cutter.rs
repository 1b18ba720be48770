//! The cutter: choosing a scan once, and using it.

use super::gear::Gear;
use super::params::ChunkParams;
#[cfg(target_arch = "x86_64")]
use super::vector::Finder;
use std::fmt;
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
        let finder = Finder::new(&gear.low_table(), gear.masks.low).map(Arc::new);
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
        let confirm = |place: usize| self.gear.is_cut(data, start, start + place);
        match finder.find(&data[start..tested], confirm) {
            Ok(place) => start + place,
            Err(seen) => self.gear.first_cut(data, start, start + seen..tested).unwrap_or(end),
        }
    }
}

impl fmt::Debug for Cutter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cutter").field("params", &self.gear.params).finish_non_exhaustive()
    }
}
