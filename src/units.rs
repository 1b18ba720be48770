//! Amounts that people read and write: bytes in binary multiples, and how many of a thing.

use std::fmt;
use std::str::FromStr;

/// A number of bytes. Prints as `1.4 GiB`; parses `10M`, `512KiB`, `3 GB`, `7`, with multiples of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// Text that is not an amount of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a size such as 500, 64K, 10M or 2G")]
pub struct ParseByteSizeError;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = UNITS[0];
        for &next in &UNITS[1..] {
            if value < 1023.95 {
                break;
            }
            value /= 1024.0;
            unit = next;
        }
        f.pad(&format!("{value:.1} {unit}"))
    }
}

/// How many of a thing, which is named in the singular: prints as `1 entry`, `2 entries`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted<'a>(pub u64, pub &'a str);

impl fmt::Display for Counted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, one) = self;
        match (count, one.strip_suffix('y')) {
            (1, _) => write!(f, "1 {one}"),
            (_, Some(stem)) => write!(f, "{count} {stem}ies"),
            (_, None) => write!(f, "{count} {one}s"),
        }
    }
}

impl FromStr for ByteSize {
    type Err = ParseByteSizeError;

    fn from_str(text: &str) -> Result<Self, ParseByteSizeError> {
        let text = text.trim();
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| ParseByteSizeError)?;
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            "p" | "pb" | "pib" => 50,
            _ => return Err(ParseByteSizeError),
        };
        number.checked_mul(1 << shift).map(Self).ok_or(ParseByteSizeError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        let texts = [0, 1, 2].map(|count| format!("{}, {}", Counted(count, "file"), Counted(count, "entry")));
        assert_eq!(texts, ["0 files, 0 entries", "1 file, 1 entry", "2 files, 2 entries"]);
    }

    #[test]
    fn sizes_read_well_at_every_boundary() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }

    #[test]
    fn sizes_parse_or_are_refused() {
        assert_eq!("10M".parse(), Ok(ByteSize(10 << 20)));
        assert_eq!(" 3 GB ".parse(), Ok(ByteSize(3 << 30)));
        for bad in ["", "-1", "1e309", "M", "9999999P", "1.5G", "10 parsecs"] {
            assert_eq!(bad.parse::<ByteSize>(), Err(ParseByteSizeError), "{bad}");
        }
    }
}
