//! How large chunks become.

use crate::class::Class;

/// Chunk lengths of a repository: a stored parameter, fixed when the repository is made.
///
/// The fields can be read only, so that every value that exists is one a cutter can work with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkParams {
    min: u32,
    average: u32,
    max: u32,
}

/// Chunk lengths that no cutter accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    /// The average decides the masks, which have whole bits.
    #[error("average chunk length {average} is not a power of two from {least} to {most}")]
    Average {
        /// The refused length in bytes.
        average: u32,
        /// Smallest accepted average in bytes.
        least: u32,
        /// Largest accepted average in bytes.
        most: u32,
    },
    /// The lower bound is too small or above the average.
    #[error("minimum chunk length {min} is not from {least} to the average of {average}")]
    Min {
        /// The refused length in bytes.
        min: u32,
        /// Smallest accepted minimum in bytes.
        least: u32,
        /// The average in bytes.
        average: u32,
    },
    /// The upper bound is below the average or larger than a chunk may be.
    #[error("maximum chunk length {max} is not from the average of {average} to {most}")]
    Max {
        /// The refused length in bytes.
        max: u32,
        /// The average in bytes.
        average: u32,
        /// Largest accepted maximum in bytes.
        most: u32,
    },
    /// The reference scan takes two bytes a step, so an odd bound would be moved by one.
    #[error("chunk length bound {bound} is odd")]
    Odd {
        /// The refused bound in bytes.
        bound: u32,
    },
}

impl ParamsError {
    /// Always [`Class::Usage`]: the lengths come from options or from a configuration.
    pub fn class(&self) -> Class {
        Class::Usage
    }
}

impl ChunkParams {
    /// Smallest accepted minimum: longer than the window of the hash.
    pub const LEAST_MIN: u32 = 64;
    /// Smallest accepted average.
    pub const LEAST_AVERAGE: u32 = 4 << 10;
    /// Largest accepted average.
    pub const MOST_AVERAGE: u32 = 4 << 20;
    /// Largest accepted maximum: the format's limit of a chunk.
    pub const MOST_MAX: u32 = 8 << 20;

    /// Profile `files`: 16 KiB, 64 KiB, 256 KiB.
    pub const FILES: Self = Self { min: 16 << 10, average: 64 << 10, max: 256 << 10 };

    /// Checks three lengths in bytes: [`Self::LEAST_MIN`] <= `min` <= `average` <= `max` <= [`Self::MOST_MAX`],
    /// `min` and `max` even, `average` a power of two from [`Self::LEAST_AVERAGE`] to [`Self::MOST_AVERAGE`].
    pub fn new(min: u32, average: u32, max: u32) -> Result<Self, ParamsError> {
        let (least, most) = (Self::LEAST_AVERAGE, Self::MOST_AVERAGE);
        if !average.is_power_of_two() || !(least..=most).contains(&average) {
            return Err(ParamsError::Average { average, least, most });
        }
        if !(Self::LEAST_MIN..=average).contains(&min) {
            return Err(ParamsError::Min { min, least: Self::LEAST_MIN, average });
        }
        if !(average..=Self::MOST_MAX).contains(&max) {
            return Err(ParamsError::Max { max, average, most: Self::MOST_MAX });
        }
        match [min, max].into_iter().find(|bound| bound % 2 == 1) {
            Some(bound) => Err(ParamsError::Odd { bound }),
            None => Ok(Self { min, average, max }),
        }
    }

    /// The lengths for images in a repository with these: half of them, because a disk changes in single pages all over
    /// (`docs/decisions/0011-images-are-cut-by-content.md`). A stored property.
    pub fn for_images(self) -> Self {
        let bound = |length: u32| length / 4 * 2;
        Self::new(bound(self.min), self.average / 2, bound(self.max)).unwrap_or(self)
    }

    /// No chunk but the last of a stream is shorter, in bytes.
    pub const fn min(self) -> u32 {
        self.min
    }

    /// The length around which chunks are gathered, in bytes. The mean is about 1.15 times this for
    /// random data, and was 1.1 to 1.4 times this for text and programs.
    pub const fn average(self) -> u32 {
        self.average
    }

    /// No chunk is longer, in bytes.
    pub const fn max(self) -> u32 {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_valid() {
        for params in [ChunkParams::FILES, ChunkParams::FILES.for_images()] {
            assert_eq!(ChunkParams::new(params.min(), params.average(), params.max()), Ok(params));
        }
    }

    #[test]
    fn images_are_cut_at_half_the_lengths() {
        let images = |min, average, max| {
            let params = ChunkParams::new(min, average, max).unwrap().for_images();
            (params.min(), params.average(), params.max())
        };
        assert_eq!(images(16 << 10, 64 << 10, 256 << 10), (8 << 10, 32 << 10, 128 << 10));
        assert_eq!(images(130, 8 << 10, (8 << 10) + 2), (64, 4 << 10, 4 << 10));
        // What cannot be halved stays.
        assert_eq!(images(128, 4 << 10, 8 << 10), (128, 4 << 10, 8 << 10));
        assert_eq!(images(64, 8 << 10, 8 << 10), (64, 8 << 10, 8 << 10));
    }

    #[test]
    fn the_limits_are_accepted() {
        for (min, average, max) in [
            (64, 4 << 10, 4 << 10),
            (4 << 10, 4 << 10, 8 << 20),
            (64, 4 << 20, 8 << 20),
            (4 << 20, 4 << 20, 4 << 20),
        ] {
            assert!(ChunkParams::new(min, average, max).is_ok(), "{min} {average} {max}");
        }
    }

    #[test]
    fn lengths_outside_the_limits_are_refused() {
        for average in [0, 1, 2048, 4097, 65_535, 8 << 20, u32::MAX] {
            let error = ChunkParams::new(64, average, 8 << 20).unwrap_err();
            assert!(matches!(error, ParamsError::Average { .. }), "{error}");
        }
        for min in [0, 2, 63, 65_538, u32::MAX] {
            let error = ChunkParams::new(min, 65_536, 8 << 20).unwrap_err();
            assert!(matches!(error, ParamsError::Min { .. }), "{error}");
        }
        for max in [0, 65_534, (8 << 20) + 2, u32::MAX] {
            let error = ChunkParams::new(64, 65_536, max).unwrap_err();
            assert!(matches!(error, ParamsError::Max { .. }), "{error}");
        }
        assert_eq!(ChunkParams::new(65, 65_536, 65_538), Err(ParamsError::Odd { bound: 65 }));
        assert_eq!(ChunkParams::new(66, 65_536, 65_537), Err(ParamsError::Odd { bound: 65_537 }));
        assert_eq!(ParamsError::Odd { bound: 65 }.class(), Class::Usage);
    }
}
