//! What is known of a file of a log without opening it.

use super::super::FormatError;
use super::super::cbor::{Cbor, encode};
use super::super::envelope::ObjectKind;
use super::super::sealed::{SealedForm, padded_body};

/// Most bytes of sealed facts.
pub const FACTS_MAX: usize = 8 << 10;
/// How facts are read; only the section and the padding are those of other sealed bodies.
const FACTS: SealedForm = SealedForm { kind: ObjectKind::Log, section: "21", max: FACTS_MAX };
const TEXT_MAX: usize = 256;
/// The fields that are always there: check, records, commits, flags, host, time, program.
const REQUIRED: u32 = 1 | 1 << 1 | 1 << 2 | 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12;

/// Whether the records of a segment were gone through before it was stored. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Checked {
    /// No: nobody wanted it, or the file is no whole segment.
    #[default]
    Not = 0,
    /// Yes, and every one was right.
    Good = 1,
    /// Something was wrong, and it was stored all the same.
    Faulty = 2,
}

/// Facts about one file: the plaintext of the facts. Positions and times of a file that is no segment are absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogFacts {
    /// Whether the records were gone through.
    pub checked: Checked,
    /// Records that end in it.
    pub records: u64,
    /// Commits among them.
    pub commits: u64,
    /// Time of the first commit, nanoseconds since 1970.
    pub first_commit: Option<i64>,
    /// Time of the last commit.
    pub last_commit: Option<i64>,
    /// Position of the record before the first one that begins in it.
    pub follows: Option<u64>,
    /// Position of the last record that begins and ends in it.
    pub last: Option<u64>,
    /// Position of a record that begins in it and does not end in it.
    pub open: Option<u64>,
    /// It begins with the rest of a record.
    pub continues: bool,
    /// It begins where a record was given up that the segment before it began.
    pub overwrites: bool,
    /// Where the log in it ends.
    pub end: Option<u64>,
    /// Name of the machine that stored it; raw bytes.
    pub host: Vec<u8>,
    /// When that was, as its clock had it; nanoseconds since 1970.
    pub time: i64,
    /// Version of the program.
    pub program: String,
    /// What was wrong, in words.
    pub fault: Option<String>,
}

impl LogFacts {
    /// The plaintext: length, CBOR value, zeroes up to a PADME length. Texts that are too long are cut.
    pub fn encode(&self) -> Vec<u8> {
        let cut = |text: &str| {
            text.chars()
                .scan(0, |len, c| {
                    *len += c.len_utf8();
                    (*len <= TEXT_MAX).then_some(c)
                })
                .collect::<String>()
        };
        let signed = [(3, self.first_commit), (4, self.last_commit)];
        let positions = [(5, self.follows), (6, self.last), (7, self.open)];
        let flags = u8::from(self.continues) | u8::from(self.overwrites) << 1;
        let some = signed.iter().flat_map(|(_, time)| time).count()
            + positions.iter().chain(&[(9, self.end)]).flat_map(|(_, at)| at).count()
            + usize::from(self.fault.is_some());
        let value = encode(|e| {
            e.map(7 + some as u64)?.u8(0)?.u8(self.checked as u8)?;
            e.u8(1)?.u64(self.records)?.u8(2)?.u64(self.commits)?;
            for (key, time) in signed {
                if let Some(time) = time {
                    e.u8(key)?.i64(time)?;
                }
            }
            for (key, at) in positions {
                if let Some(at) = at {
                    e.u8(key)?.u64(at)?;
                }
            }
            e.u8(8)?.u8(flags)?;
            if let Some(end) = self.end {
                e.u8(9)?.u64(end)?;
            }
            let host = self.host.get(..TEXT_MAX).unwrap_or(&self.host);
            e.u8(10)?.bytes(host)?.u8(11)?.i64(self.time)?.u8(12)?.str(&cut(&self.program))?;
            if let Some(fault) = &self.fault {
                e.u8(13)?.str(&cut(fault))?;
            }
            Ok(())
        });
        padded_body(&value)
    }

    /// Reads the plaintext.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let value = FACTS.value(bytes)?;
        let mut facts = Self::default();
        let mut seen = 0_u32;
        let mut d = Cbor::new(value, FACTS.section, "facts of a log file");
        d.map(|d, key| {
            seen |= 1_u32.checked_shl(key).unwrap_or(0);
            match key {
                0 => {
                    facts.checked = match d.u8()? {
                        0 => Checked::Not,
                        1 => Checked::Good,
                        2 => Checked::Faulty,
                        _ => return Err(d.value("check of a log file")),
                    }
                }
                1 => facts.records = d.u64()?,
                2 => facts.commits = d.u64()?,
                3 => facts.first_commit = Some(d.i64()?),
                4 => facts.last_commit = Some(d.i64()?),
                5 => facts.follows = Some(d.u64()?),
                6 => facts.last = Some(d.u64()?),
                7 => facts.open = Some(d.u64()?),
                8 => {
                    let flags = d.u8()?;
                    (facts.continues, facts.overwrites) = (flags & 1 != 0, flags & 2 != 0);
                }
                9 => facts.end = Some(d.u64()?),
                10 => facts.host = d.bytes(TEXT_MAX)?,
                11 => facts.time = d.i64()?,
                12 => facts.program = d.text(TEXT_MAX)?,
                13 => facts.fault = Some(d.text(TEXT_MAX)?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        d.finish(value.len())?;
        if seen & REQUIRED == REQUIRED { Ok(facts) } else { Err(FACTS.broken("facts of a log file")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_round_trip_and_long_texts_are_cut() {
        let full = LogFacts {
            checked: Checked::Faulty,
            records: 7,
            commits: 2,
            first_commit: Some(-1),
            last_commit: Some(i64::MAX),
            follows: Some(0),
            last: Some(u64::MAX),
            open: Some(3),
            continues: true,
            overwrites: true,
            end: Some(9),
            host: b"db\xff".to_vec(),
            time: 5,
            program: "0.1.0".to_owned(),
            fault: Some("wrong".to_owned()),
        };
        for facts in [full.clone(), LogFacts::default()] {
            assert_eq!(LogFacts::decode(&facts.encode()), Ok(facts));
        }
        let long = LogFacts { host: vec![b'x'; 999], fault: Some("é".repeat(999)), ..full };
        let back = LogFacts::decode(&long.encode()).unwrap();
        assert_eq!((back.host.len(), back.fault.map(|fault| fault.len())), (256, Some(256)));
    }
}
