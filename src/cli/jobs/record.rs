//! What is remembered of the last run of a job: a small file each in the state directory, `runs/KIND-NAME.json`.
//!
//! # Invariants
//! The file is replaced as a whole, and the hash of its first line is its second one. Whatever cannot be read whole is
//! [`Known::Unknown`], which nobody takes for a run that took place.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use lifeboat::clock::Timestamp;
use lifeboat::schedule::LastRun;
use serde::{Deserialize, Serialize};

/// No record is larger.
const LARGEST: u64 = 64 << 10;
/// Longest message that is kept, in characters.
const MESSAGE: usize = 1024;

/// What is run by a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A job: backup and retention.
    Backup,
    /// The collection of a repository.
    Prune,
}

impl Kind {
    /// As it stands in names and in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Prune => "prune",
        }
    }
}

/// A run, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// The slot it is for; of a run without a schedule, when it began. This and the others: nanoseconds since 1970.
    pub(crate) slot: i64,
    pub(crate) began: i64,
    /// `None` while it is at work, and for ever if it was interrupted.
    pub(crate) ended: Option<i64>,
    /// Its exit code.
    pub(crate) code: Option<u8>,
    /// What went wrong.
    pub(crate) message: Option<String>,
    /// Its snapshot.
    pub(crate) snapshot: Option<String>,
    /// When the last good run ended.
    pub(crate) last_good: Option<i64>,
}

/// What is known of the last run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// There was none.
    Never,
    /// There may have been one; what was remembered of it is damaged.
    Unknown,
    /// This one.
    Run(Record),
}

impl Record {
    /// Whether it did what it should; entries that failed are counted by its exit code, and are in its snapshot.
    pub(crate) fn good(&self) -> bool {
        matches!(self.code, Some(0 | 3))
    }
}

impl Known {
    /// As a plan takes it.
    pub(crate) fn last(&self) -> Option<LastRun> {
        match self {
            Self::Never | Self::Unknown => None,
            Self::Run(record) => Some(LastRun {
                slot: Timestamp(record.slot),
                ended: record.ended.map(Timestamp),
                good: record.good(),
            }),
        }
    }

    /// The record, if there is one.
    pub(crate) fn record(&self) -> Option<&Record> {
        match self {
            Self::Run(record) => Some(record),
            Self::Never | Self::Unknown => None,
        }
    }
}

/// Where records and locks of one thing lie.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    directory: PathBuf,
    kind: Kind,
    name: String,
}

impl Place {
    /// In this state directory. The name is one of the configuration, so it is a file name, too.
    pub(crate) fn new(state: &Path, kind: Kind, name: &str) -> Self {
        Self { directory: state.join("runs"), kind, name: name.to_owned() }
    }

    pub(super) fn path(&self, ending: &str) -> PathBuf {
        self.directory.join(format!("{}-{}.{ending}", self.kind.name(), self.name))
    }

    /// Makes the directory.
    pub(super) fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)
    }

    /// What is known of the last run; nothing is made.
    pub(crate) fn read(&self) -> Known {
        let text = match File::open(self.path("json")) {
            Ok(file) => {
                let mut text = String::new();
                match file.take(LARGEST).read_to_string(&mut text) {
                    Ok(_) => text,
                    Err(_) => return Known::Unknown,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Known::Never,
            Err(_) => return Known::Unknown,
        };
        match parse(&text) {
            Some(record) if record.kind == self.kind && record.name == self.name => Known::Run(record),
            _ => Known::Unknown,
        }
    }

    /// Replaces what is known. It is on the disk when this returns. Whoever calls holds the lock.
    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        self.make()?;
        let mut record = record.clone();
        record.message = record.message.map(|message| message.chars().take(MESSAGE).collect());
        let line = serde_json::to_string(&record).map_err(io::Error::from)?;
        let new = self.path("new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(format!("{line}\n{}\n", blake3::hash(line.as_bytes()).to_hex()).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, self.path("json"))?;
        File::open(&self.directory)?.sync_all()
    }
}

fn parse(text: &str) -> Option<Record> {
    let (line, hash) = text.strip_suffix('\n')?.split_once('\n')?;
    (blake3::hash(line.as_bytes()).to_hex().as_str() == hash).then(|| serde_json::from_str(line).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            kind: Kind::Backup,
            name: "web".to_owned(),
            slot: 5,
            began: 6,
            ended: Some(7),
            code: Some(0),
            message: None,
            snapshot: Some("ab".to_owned()),
            last_good: Some(7),
        }
    }

    #[test]
    fn what_is_damaged_is_unknown_and_never_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path(), Kind::Backup, "web");
        assert_eq!(place.read(), Known::Never);
        assert!(!dir.path().join("runs").exists());
        place.write(&record()).unwrap();
        assert_eq!(place.read(), Known::Run(record()));
        let path = place.path("json");
        let good = std::fs::read(&path).unwrap();
        for cut in 0..good.len() {
            std::fs::write(&path, &good[..cut]).unwrap();
            assert_eq!(place.read(), Known::Unknown, "cut to {cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).unwrap();
            assert_eq!(place.read(), Known::Unknown, "flipped at {at}");
        }
        std::fs::write(&path, [good.as_slice(), b"x"].concat()).unwrap();
        assert_eq!(place.read(), Known::Unknown);
        // That of another job is not this one's.
        std::fs::write(&path, &good).unwrap();
        std::fs::rename(&path, Place::new(dir.path(), Kind::Backup, "db").path("json")).unwrap();
        assert_eq!(Place::new(dir.path(), Kind::Backup, "db").read(), Known::Unknown);
        assert_eq!(Known::Unknown.last(), None);
    }

    #[test]
    fn a_message_without_end_is_kept_short() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path(), Kind::Prune, "main");
        let message = Some("\u{1}\n\"é".repeat(100_000));
        place.write(&Record { kind: Kind::Prune, name: "main".to_owned(), message, ..record() }).unwrap();
        let known = place.read();
        assert_eq!(known.record().unwrap().message.as_ref().unwrap().chars().count(), MESSAGE);
    }
}
