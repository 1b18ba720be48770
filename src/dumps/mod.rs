//! How dumps of databases end: a tool that is cut off may say that all went well, and what it wrote looks whole from outside.
//!
//! # Invariants
//! Memory does not grow with a dump: a beginning, an end and a checksum are kept of it.

mod crc;

/// Bytes of the end that are kept; more than the last words of any tool.
const TAIL: usize = 1024;
/// What an RDB file begins with; four digits follow, the number of its version.
const RDB_MAGIC: &[u8] = b"REDIS";
/// The first version with a checksum.
const RDB_CHECKED: u32 = 5;
/// An operation code for the end, and the checksum of everything before.
const RDB_EOF: u8 = 0xff;
const RDB_CRC: usize = 8;
/// Hexadecimal digits by which a server that does not know the length beforehand shows a replica the end. `redis-cli` cannot
/// take them back from a pipe; whoever reads the file stops before them.
const RDB_MARK: usize = 40;

/// How a whole dump ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    /// Nobody knows.
    #[default]
    Any,
    /// As `pg_dump` ends a script.
    PgDump,
    /// As `pg_dumpall` does.
    PgDumpAll,
    /// As `mariadb-dump` and `mysqldump` do, unless they are told to write no comments.
    MariadbDump,
    /// As an RDB file of Redis: with its end and the checksum of all of it.
    Rdb,
}

/// Looks at a dump as it comes.
#[derive(Debug)]
pub struct EndingCheck {
    ending: Ending,
    head: Vec<u8>,
    tail: Vec<u8>,
    /// Of everything but the last bytes, which are held: where the checksum may stand, and a mark behind it.
    crc: u64,
    held: Vec<u8>,
}

impl EndingCheck {
    /// Nothing has come yet.
    pub fn new(ending: Ending) -> Self {
        Self { ending, head: Vec::new(), tail: Vec::new(), crc: 0, held: Vec::new() }
    }

    /// Takes what comes next.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.ending == Ending::Any {
            return;
        }
        if self.ending == Ending::Rdb {
            let missing = (RDB_MAGIC.len() + 4).saturating_sub(self.head.len());
            self.head.extend_from_slice(&bytes[..missing.min(bytes.len())]);
            self.sum(bytes);
        }
        if bytes.len() >= TAIL {
            self.tail.clear();
        }
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
    }

    fn sum(&mut self, bytes: &[u8]) {
        let settled = (self.held.len() + bytes.len()).saturating_sub(RDB_CRC + RDB_MARK);
        let (old, new) = (settled.min(self.held.len()), settled.saturating_sub(self.held.len()));
        self.crc = crc::update(crc::update(self.crc, &self.held[..old]), &bytes[..new]);
        self.held.drain(..old);
        self.held.extend_from_slice(&bytes[new..]);
    }

    /// Whether what came is a whole dump.
    pub fn is_whole(&self) -> bool {
        match self.ending {
            Ending::Any => true,
            Ending::PgDump => self.ends_with(b"-- PostgreSQL database dump complete"),
            Ending::PgDumpAll => self.ends_with(b"-- PostgreSQL database cluster dump complete"),
            Ending::MariadbDump => {
                let last = self.lines().next().unwrap_or_default();
                // The time may follow.
                last == b"-- Dump completed" || last.starts_with(b"-- Dump completed on ")
            }
            Ending::Rdb => self.is_rdb(),
        }
    }

    /// The lines that mean something, from the last on; none if that is not ended.
    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let ended = self.tail.strip_suffix(b"\n").unwrap_or_default();
        ended.rsplit(|&byte| byte == b'\n').filter(|line| !matches!(*line, b"" | b"--"))
    }

    /// Whether a line of PostgreSQL's tools is the last; what ends the restriction of `psql` may follow.
    fn ends_with(&self, words: &[u8]) -> bool {
        self.lines().find(|line| !line.starts_with(b"\\unrestrict ")).is_some_and(|line| line == words)
    }

    fn is_rdb(&self) -> bool {
        let version = self.head.strip_prefix(RDB_MAGIC).and_then(|digits| std::str::from_utf8(digits).ok());
        let version =
            version.filter(|digits| digits.len() == 4).and_then(|digits| digits.parse::<u32>().ok());
        let Some(version) = version else { return false };
        let checked = version >= RDB_CHECKED;
        let marked = self.held.len().checked_sub(RDB_MARK).filter(|at| {
            self.held[*at..].iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
        });
        [Some(self.held.len()), marked].into_iter().flatten().any(|len| self.ends_rdb(checked, len))
    }

    /// Whether an RDB file ends behind so many of the bytes that are held.
    fn ends_rdb(&self, checked: bool, len: usize) -> bool {
        let behind = self.held.len() - len;
        let sum = if checked { RDB_CRC } else { 0 };
        let eof = self.tail.len().checked_sub(behind + sum + 1).map(|at| self.tail[at]);
        if !checked || eof != Some(RDB_EOF) {
            return eof == Some(RDB_EOF);
        }
        let Some((summed, stored)) = self.held[..len].split_last_chunk() else { return false };
        let stored = u64::from_le_bytes(*stored);
        // Zero if the server was told to compute none.
        stored == 0 || stored == crc::update(self.crc, summed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(ending: Ending, bytes: &[u8]) -> bool {
        let mut check = EndingCheck::new(ending);
        check.push(bytes);
        check.is_whole()
    }

    fn rdb() -> Vec<u8> {
        let mut bytes = b"REDIS0011\xfa\x05redis\x05rules\xfe\x00\x00\x01k\x01v".to_vec();
        bytes.push(RDB_EOF);
        let crc = crc::update(0, &bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn only_the_last_words_of_each_tool_end_its_dump() {
        let pg: &[u8] = b"COPY x;\n\\.\n\n--\n-- PostgreSQL database dump complete\n--\n\n";
        let newer = [pg, b"\\unrestrict abc\n\n"].concat();
        let all: &[u8] = b"x\n--\n-- PostgreSQL database cluster dump complete\n--\n\n";
        let maria: &[u8] =
            b"/*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;\n\n-- Dump completed on 2026-03-01 14:32:05\n";
        for (ending, good) in [
            (Ending::PgDump, pg),
            (Ending::PgDump, &newer),
            (Ending::PgDumpAll, all),
            (Ending::MariadbDump, maria),
            (Ending::MariadbDump, b"x\n-- Dump completed\n"),
        ] {
            assert!(whole(ending, good), "{ending:?}");
            assert!(!whole(ending, b"") && !whole(ending, b"INSERT INTO x VALUES (1"));
            // More came after it, or what it says is a part of a value.
            assert!(!whole(ending, &[good, b"INSERT INTO"].concat()));
            assert!(!whole(ending, &[good, b"INSERT INTO x VALUES\n"].concat()));
            let mut check = EndingCheck::new(ending);
            good.iter().for_each(|byte| check.push(&[*byte]));
            assert!(check.is_whole(), "{ending:?} byte by byte");
        }
        assert!(!whole(Ending::PgDump, all) && !whole(Ending::PgDumpAll, pg));
        assert!(!whole(Ending::MariadbDump, b"x\n-- Dump completed"), "the line is not ended");
        assert!(!whole(Ending::MariadbDump, b"('a\n-- Dump completed in vain\n"));
        assert!(whole(Ending::Any, b""));
    }

    #[test]
    fn an_rdb_file_is_whole_with_its_end_and_checksum_alone() {
        let good = rdb();
        assert!(whole(Ending::Rdb, &good));
        for len in 0..good.len() {
            assert!(!whole(Ending::Rdb, &good[..len]), "{len} bytes");
        }
        let mark = b"2e492179963393f5b2c6a2d53b6f0efb9adbb33b";
        let marked = [&good[..], mark].concat();
        assert!(whole(Ending::Rdb, &marked));
        for len in 0..marked.len() {
            assert_eq!(whole(Ending::Rdb, &marked[..len]), len == good.len(), "{len} bytes");
        }
        assert!(!whole(Ending::Rdb, &[&good[..], &[b'x'; RDB_MARK]].concat()));
        let mut unsummed = good.clone();
        let end = unsummed.len() - RDB_CRC;
        unsummed[end..].fill(0);
        assert!(whole(Ending::Rdb, &unsummed), "a server that computes no checksums");
        assert!(whole(Ending::Rdb, b"REDIS0004\xff") && !whole(Ending::Rdb, b"REDIS0004\xfe"));
        assert!(!whole(Ending::Rdb, b"-ERR unknown command\r\n") && !whole(Ending::Rdb, b"REDISabcd\xff"));
    }

    proptest! {
        #[test]
        fn parts_and_flipped_bits_change_nothing_and_everything(
            cuts in proptest::collection::vec(0_usize..40, 0..5),
            at in 9_usize..26,
            bit in 0_u8..8,
        ) {
            let good = rdb();
            let mut check = EndingCheck::new(Ending::Rdb);
            let mut rest = &good[..];
            for cut in cuts {
                let (part, after) = rest.split_at(cut.min(rest.len()));
                check.push(part);
                rest = after;
            }
            check.push(rest);
            prop_assert!(check.is_whole());
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            prop_assert!(!whole(Ending::Rdb, &bad));
        }
    }
}
