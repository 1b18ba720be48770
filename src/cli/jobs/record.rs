//! What is remembered of the last run of a job: a small file each in the state directory, `runs/KIND-NAME-HASH.json`. The hash is
//! of where the repository lies and of the file that the job stands in, so that a job of this name in another file, or one that
//! is saved to another place now, is another job, which has not run yet.
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

use super::super::config::Named;

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
    /// The verification of a repository.
    Verify,
}

impl Kind {
    /// Those that a repository has, in a table of that name, in the order in which they run.
    pub(crate) const OF_REPOSITORY: [Self; 2] = [Self::Prune, Self::Verify];

    /// As it stands in names and in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Prune => "prune",
            Self::Verify => "verify",
        }
    }
}

/// What is run, so that nothing else is taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    /// Of the job, or of the repository.
    pub(crate) name: String,
    /// Where the repository lies, as the configuration says it.
    location: String,
    /// The file of the configuration, which may be no UTF-8 and is only compared.
    file: String,
}

impl Subject {
    /// A job, or a repository itself, and the repository.
    pub(crate) fn new(kind: Kind, what: &Named, repository: &Named) -> Self {
        let location = repository.section.text("location").unwrap_or_default().to_owned();
        Self { kind, name: what.name.clone(), location, file: what.origin.file.display().to_string() }
    }
}

/// How a run ended that was not good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: Option<String>,
}

/// A run, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) subject: Subject,
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
    /// How many sources were not there at all.
    pub(crate) missing: u64,
    /// When the last good run ended.
    pub(crate) last_good: Option<i64>,
    /// Its slot.
    pub(crate) good_slot: Option<i64>,
    /// How many runs began since then, this one among them.
    pub(crate) attempts: u32,
    /// How the last of these ended that did.
    pub(crate) failed: Option<Failure>,
}

/// What is known of the last run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there are few of them, each read from a file")]
pub(crate) enum Known {
    /// There was none.
    Never,
    /// There may have been one; what was remembered of it is damaged.
    Unknown,
    /// This one.
    Run(Record),
}

impl Record {
    /// A run that begins now for this slot, after what is known.
    pub(crate) fn begin(subject: Subject, (slot, now): (Timestamp, Timestamp), known: &Known) -> Self {
        let before = known.record();
        Self {
            subject,
            slot: slot.0,
            began: now.0,
            ended: None,
            code: None,
            message: None,
            snapshot: None,
            missing: 0,
            last_good: before.and_then(|record| record.last_good),
            good_slot: before.and_then(|record| record.good_slot),
            attempts: before.map_or(0, |record| record.attempts).saturating_add(1),
            failed: before.and_then(|record| record.failed.clone()),
        }
    }

    /// Notes that it ended now, with what is in it.
    pub(crate) fn end(&mut self, now: Timestamp) {
        self.ended = Some(now.0);
        if self.good() {
            (self.last_good, self.good_slot) = (Some(now.0), Some(self.slot));
            (self.attempts, self.failed) = (0, None);
        } else if let Some(code) = self.code {
            self.failed = Some(Failure { code, message: self.message.clone() });
        }
    }

    /// Whether it did what it should. Entries that failed are counted by its exit code, and the others are in its snapshot; but
    /// where a whole source was not there, nothing of it is.
    pub(crate) fn good(&self) -> bool {
        self.ended.is_some() && matches!(self.code, Some(0 | 3)) && self.missing == 0
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
                good_slot: record.good_slot.map(Timestamp),
                attempts: record.attempts,
                failed: record.failed.is_some(),
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
    subject: Subject,
}

impl Place {
    /// In this state directory. The name is one of the configuration, so it is a file name, too.
    pub(crate) fn new(state: &Path, subject: Subject) -> Self {
        Self { directory: state.join("runs"), subject }
    }

    pub(super) fn path(&self, ending: &str) -> PathBuf {
        let Subject { kind, name, location, file } = &self.subject;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(location.len() as u64).to_le_bytes());
        let hash = hasher.update(location.as_bytes()).update(file.as_bytes()).finalize().to_hex();
        self.directory.join(format!("{}-{name}-{}.{ending}", kind.name(), &hash.as_str()[..16]))
    }

    /// What it is the place of.
    pub(super) fn subject(&self) -> &Subject {
        &self.subject
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
            Some(record) if record.subject == self.subject => Known::Run(record),
            _ => Known::Unknown,
        }
    }

    /// Replaces what is known. It is on the disk when this returns. Whoever calls holds the lock.
    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        self.make()?;
        let mut record = record.clone();
        let short = |message: &mut Option<String>| {
            *message = message.take().map(|message| message.chars().take(MESSAGE).collect());
        };
        short(&mut record.message);
        if let Some(failed) = &mut record.failed {
            short(&mut failed.message);
        }
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

    fn subject(kind: Kind, name: &str, location: &str, file: &str) -> Subject {
        Subject { kind, name: name.to_owned(), location: location.to_owned(), file: file.to_owned() }
    }

    fn web() -> Subject {
        subject(Kind::Backup, "web", "/r", "/etc/lifeboat/lifeboat.toml")
    }

    fn record() -> Record {
        let mut record = Record::begin(web(), (Timestamp(5), Timestamp(6)), &Known::Never);
        (record.code, record.snapshot) = (Some(0), Some("ab".to_owned()));
        record.end(Timestamp(7));
        record
    }

    #[test]
    fn what_is_damaged_is_unknown_and_never_a_run() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path(), web());
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
        assert_eq!(Known::Unknown.last(), None);
        // That of another job is not this one's.
        for other in [
            subject(Kind::Backup, "db", "/r", "/etc/lifeboat/lifeboat.toml"),
            subject(Kind::Prune, "web", "/r", "/etc/lifeboat/lifeboat.toml"),
            subject(Kind::Backup, "web", "/s", "/etc/lifeboat/lifeboat.toml"),
            subject(Kind::Backup, "web", "/r", "/root/other.toml"),
        ] {
            let other = Place::new(dir.path(), other);
            assert_eq!(other.read(), Known::Never);
            std::fs::write(other.path("json"), &good).unwrap();
            assert_eq!(other.read(), Known::Unknown);
        }
    }

    #[test]
    fn what_came_before_is_known_until_a_good_run_ends() {
        let known = Known::Run(record());
        let mut second = Record::begin(web(), (Timestamp(15), Timestamp(16)), &known);
        assert_eq!((second.good_slot, second.last_good, second.attempts), (Some(5), Some(7), 1));
        (second.code, second.missing) = (Some(3), 1);
        second.end(Timestamp(17));
        assert!(!second.good(), "a source that is not there is not saved");
        let mut third = Record::begin(web(), (Timestamp(25), Timestamp(26)), &Known::Run(second));
        assert_eq!((third.good_slot, third.attempts), (Some(5), 2));
        assert_eq!(third.failed.as_ref().unwrap().code, 3);
        third.code = Some(3);
        assert!(!third.good(), "it has not ended");
        third.end(Timestamp(27));
        assert_eq!((third.good_slot, third.attempts, third.failed), (Some(25), 0, None));
    }

    #[test]
    fn a_message_without_end_is_kept_short() {
        let dir = tempfile::tempdir().unwrap();
        let subject = subject(Kind::Prune, "main", "/r", "/c");
        let place = Place::new(dir.path(), subject.clone());
        let message = Some("\u{1}\n\"é".repeat(100_000));
        let failed = Some(Failure { code: 1, message: message.clone() });
        place.write(&Record { subject, message, failed, ..record() }).unwrap();
        let known = place.read();
        assert_eq!(known.record().unwrap().message.as_ref().unwrap().chars().count(), MESSAGE);
    }
}
