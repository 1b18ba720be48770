//! The control file of a data directory.

/// Bytes of the file that are written and read at once; a disk writes a sector whole.
pub const SECTOR: usize = 512;
/// Its path below the data directory.
pub const PATH: &str = "global/pg_control";

/// What is needed of a control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// What the cluster calls itself.
    pub system: u64,
    /// Version of the file's layout.
    pub version: u32,
    /// Version of the system catalogs.
    pub catalog: u32,
}

/// Why bytes are not a control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlFault {
    /// It is shorter than any.
    #[error("is too short for a control file")]
    Short,
    /// Its layout is one that this program does not know.
    #[error("is a control file of a version that this program does not know")]
    Version,
    /// It does not hold what was written.
    #[error("is a control file with a wrong checksum")]
    Checksum,
}

impl Control {
    /// Reads the first sector of a control file.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlFault> {
        let sector: &[u8; SECTOR] = bytes.first_chunk().ok_or(ControlFault::Short)?;
        let word =
            |at: usize| u32::from_le_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]]);
        let version = word(8);
        let end = match version {
            // PostgreSQL 13 to 17.
            1300 => 288,
            // PostgreSQL 18 says whether `char` has a sign.
            1800 => 292,
            _ => return Err(ControlFault::Version),
        };
        if crc32c(&sector[..end]) != word(end) {
            return Err(ControlFault::Checksum);
        }
        let system = u64::from(word(4)) << 32 | u64::from(word(0));
        Ok(Self { system, version, catalog: word(12) })
    }
}

/// CRC-32C bit by bit: for a few hundred bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control() -> Vec<u8> {
        let mut bytes = vec![0; SECTOR];
        bytes[..8].copy_from_slice(&0x1122_3344_5566_7788_u64.to_le_bytes());
        bytes[8..12].copy_from_slice(&1300_u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&202_209_061_u32.to_le_bytes());
        let crc = crc32c(&bytes[..288]);
        bytes[288..292].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn the_checksum_is_the_one_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_control_file_is_read_and_damage_is_seen() {
        let bytes = control();
        let read = Control::parse(&bytes).unwrap();
        assert_eq!((read.system, read.catalog), (0x1122_3344_5566_7788, 202_209_061));
        for at in [0, 7, 12, 100, 287, 288, 291] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(Control::parse(&damaged), Err(ControlFault::Checksum), "{at}");
        }
        let mut other = bytes.clone();
        other[8] = 1;
        assert_eq!(Control::parse(&other), Err(ControlFault::Version));
        assert_eq!(Control::parse(&bytes[..511]), Err(ControlFault::Short));
        assert_eq!(Control::parse(&[]), Err(ControlFault::Short));
    }
}
