//! A copy of a database as of one moment, made by SQLite's own online backup.
//!
//! # Invariants
//! All pages are read in one transaction of one reader, under SQLite's locks: no commit of anybody falls into it. The reader can
//! only read, but for two things: what a killed program left half changed is rolled back, as by any program that opens it, and of
//! a database that has a log by its header and none beside it the empty one that SQLite makes is taken away again. Where it may
//! not be made, nobody has the database open; then it is read without locks, and counts only if that stayed so. Whoever holds the
//! database for himself is waited for, up to [`PATIENCE`]. Locks are given back when the copy is made, before anything of it is
//! sent anywhere. SQLite finds the database, and what is beside it, by the path: that must lead to the file that was looked at.
//!
//! # Crash
//! The copy stands in a directory that is locked by whoever makes it, and loses its name when it is whole. What a killed one
//! leaves, the next one removes. A log and an index that it leaves beside a database at
//! rest belong to the owner of that, whose programs take them up.
//!
//! # Must not
//! Call a copy good that SQLite does not call so.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::ffi::{self, code_to_str};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{Access, AtFlags, CWD, OFlags};

use super::{
    BESIDE, INDEX, JOURNAL, LOG, Mode, beside, head_of, is_journal, look, mode_of, read_head, unchanging,
};
use crate::clock::{Clock, Timestamp};
use crate::source::error::SourceError;
use crate::source::sys::stat::{Stat, stat_open};
use crate::source::walk::Dir;

/// How long a database is waited for that somebody holds for himself.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long SQLite waits before the wish to stop is looked at.
const WAIT: Duration = Duration::from_secs(1);
/// How often a database is copied that changes meanwhile without a lock.
const TRIES: u32 = 3;
/// Between two tries, if SQLite did not wait.
const PAUSE: Duration = Duration::from_millis(50);
/// Pages that are copied before the wish to stop is looked at.
const PAGES: i32 = 512;
/// The largest page of a database.
const PAGE_MAX: usize = 1 << 16;
/// Longer than the tick of any file system's clock: after that a further change shows.
const TICK_NANOS: i128 = 2_000_000_000;
/// The directory for copies, in the place for them.
const COPIES: &str = "sqlite";

const UNFINISHED: &str =
    "a killed program left a journal, and only who may write to the database can roll it back";
const NO_INDEX: &str =
    "its log has no index, and only its owner or root can make one that its programs can use";
const NO_LOG: &str = "an index or a journal stands beside it, but no log, and only its owner or root can make one that its programs can use";
const FOREIGN: &str = "what stands beside it is no regular file, or has several names";

/// How a database is copied.
pub struct Copying<'a> {
    /// Where a directory for the copy is made, which nobody else can read.
    pub scratch: &'a Path,
    /// Tells how long it took.
    pub clock: &'a dyn Clock,
    /// Asked now and then whether to go on.
    pub go_on: &'a dyn Fn() -> bool,
}

/// A database as of one moment.
#[derive(Debug)]
pub(in crate::source) struct Copied {
    pub(in crate::source) file: File,
    pub(in crate::source) size: u64,
    /// What the file system said of the database at that moment.
    pub(in crate::source) main: Stat,
}

/// Why a try ended.
#[derive(Debug)]
enum Stop {
    /// Somebody holds it for himself.
    Busy,
    /// It has no log, and is not alone either.
    NoLog,
    /// It changed while it was copied, without a lock.
    Changed,
    /// Only who may write to it comes further.
    Unfinished,
    /// This will not change.
    Failed(SourceError),
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Self {
        Self::Failed(error)
    }
}

/// Who opens the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// One who can only read.
    Plain,
    /// One who may do what a program does that opens it.
    Program,
    /// One who takes it for what nobody changes, and looks afterwards whether that was so.
    Still,
}

/// A database: open, by its directory and its name.
#[derive(Clone, Copy)]
struct Database<'a> {
    fd: &'a OwnedFd,
    dir: &'a Arc<Dir>,
    name: &'a [u8],
}

/// Copies a database that is open as `fd` and stands under this name.
pub(in crate::source) fn copy(
    fd: &OwnedFd,
    (dir, name): (&Arc<Dir>, &[u8]),
    how: &Copying<'_>,
) -> Result<Copied, SourceError> {
    let database = Database { fd, dir, name };
    let room = Room::make(how.scratch, how.clock.now())?;
    let (mut waited, mut tries) = (Duration::ZERO, 0);
    loop {
        let begun = how.clock.monotonic();
        let stop = match database.attempt(&room, how) {
            Ok(copied) => return Ok(copied),
            Err(stop) => stop,
        };
        let why = match stop {
            Stop::Failed(error) => return Err(error),
            Stop::Unfinished => return Err(database.refused(UNFINISHED)),
            Stop::NoLog => database.refused(NO_LOG),
            Stop::Busy | Stop::Changed => SourceError::BusyDatabase { path: database.path() },
        };
        // Copying is no waiting, however long it takes.
        match stop {
            Stop::Changed => tries += 1,
            _ => waited += how.clock.monotonic().saturating_sub(begun) + PAUSE,
        }
        if tries >= TRIES || waited >= PATIENCE {
            return Err(why);
        }
        if !(how.go_on)() {
            return Err(SourceError::Cancelled);
        }
        std::thread::park_timeout(PAUSE);
    }
}

impl Database<'_> {
    fn path(&self) -> PathBuf {
        self.dir.path_of(self.name)
    }

    fn refused(&self, said: &'static str) -> SourceError {
        SourceError::Database { path: self.path(), said }
    }

    fn beside(&self, suffix: &[u8]) -> Result<Option<Stat>, SourceError> {
        beside(self.dir, self.name, suffix)
    }

    /// Where changes go, as the file says now.
    fn mode(&self) -> Result<Option<Mode>, SourceError> {
        let head = read_head(self.fd);
        let head = head.map_err(|error| SourceError::of_entry("read", self.path(), error))?;
        Ok(mode_of(&head))
    }

    /// Demands that the path, by which SQLite finds the database, leads to it.
    fn stands(&self) -> Result<(), SourceError> {
        let path = self.path();
        let found = look(CWD, path.as_os_str().as_bytes());
        let found = found.map_err(|error| SourceError::of_entry("look at", path.clone(), error))?;
        let ours = self.look()?;
        match found.is_some_and(|found| found.same_inode(&ours)) {
            true => Ok(()),
            false => Err(SourceError::Replaced { path }),
        }
    }

    fn look(&self) -> Result<Stat, SourceError> {
        stat_open(self.fd).map_err(|error| SourceError::of_entry("look at", self.path(), error))
    }

    fn attempt(&self, room: &Room, how: &Copying<'_>) -> Result<Copied, Stop> {
        let Some(mode) = self.mode()? else {
            return Err(SourceError::NotADatabase { path: self.path() }.into());
        };
        for suffix in BESIDE {
            // SQLite would wait for the other end of a pipe, and write to a file that is somebody else's under another name.
            if self.beside(suffix)?.is_some_and(|stands| !stands.is_file() || stands.nlink > 1) {
                return Err(self.refused(FOREIGN).into());
            }
        }
        if self.has_text()? {
            return Err(self.refused("SQLite would remove what is called its journal and is none").into());
        }
        let reader = match (mode, self.beside(LOG)?.is_some()) {
            (Mode::Log, false) if self.may_write()? => Reader::Program,
            (Mode::Log, false) if self.is_alone()? => Reader::Still,
            // Somebody is about to make it, or has just removed it.
            (Mode::Log, false) => return Err(Stop::NoLog),
            // An index that SQLite made for who may not write would shut out the programs of the database.
            (Mode::Log, true) if self.beside(INDEX)?.is_none() && !self.may_write()? => {
                return Err(self.refused(NO_INDEX).into());
            }
            _ => Reader::Plain,
        };
        match (self.read(reader, room, how), reader) {
            (Err(Stop::Unfinished), Reader::Plain) => self.read(Reader::Program, room, how),
            (other, _) => other,
        }
    }

    /// Whether a log can be made beside it that the programs of the database can use. SQLite gives what it makes to the owner of
    /// the database only as root.
    fn may_write(&self) -> Result<bool, SourceError> {
        let user = rustix::process::geteuid();
        if !user.is_root() && self.look()?.uid != user.as_raw() {
            return Ok(false);
        }
        let dir = self.dir.handle()?;
        let may = |name| rustix::fs::accessat(&*dir, name, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
        Ok(may(self.name) && may(b"."))
    }

    /// Whether what is called its journal is none, and not a settled one either.
    fn has_text(&self) -> Result<bool, SourceError> {
        let name = [self.name, JOURNAL].concat();
        match head_of(&*self.dir.handle()?, &name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(SourceError::of_entry("read", self.dir.path_of(&name), error)),
            Ok(head) => Ok(head.first().is_some_and(|byte| *byte != 0) && !is_journal(&head)),
        }
    }

    /// Whether a change from now on would show in its times.
    fn is_settled(stat: &Stat, clock: &dyn Clock) -> bool {
        let changed = i128::from(stat.ctime.secs) * 1_000_000_000 + i128::from(stat.ctime.nanos);
        i128::from(clock.now().0) - changed >= TICK_NANOS
    }

    /// Whether nothing stands beside it.
    fn is_alone(&self) -> Result<bool, SourceError> {
        for suffix in BESIDE {
            if self.beside(suffix)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Copies it in one transaction.
    fn read(&self, reader: Reader, room: &Room, how: &Copying<'_>) -> Result<Copied, Stop> {
        self.stands()?;
        let before = self.look()?;
        if reader == Reader::Still && !Self::is_settled(&before, how.clock) {
            return Err(Stop::Busy);
        }
        let failed = |error| self.stop(error);
        let from = self.open(reader).map_err(failed)?;
        from.busy_timeout(WAIT).map_err(failed)?;
        // The first read takes the lock of a reader, which is held until the end. This one needs nothing of the schema.
        from.execute_batch("BEGIN").map_err(failed)?;
        from.pragma_query_value(None, "schema_version", |_| Ok(())).map_err(failed)?;
        self.stands()?;
        let main = self.look()?;
        let mode = self.mode()?;
        let file = self.pour(&from, room, how)?;
        let now = self.look()?;
        let stands = match reader {
            Reader::Still => now.same_content(&before) && self.is_alone()?,
            // Under the lock nobody changes it who asks for locks.
            Reader::Plain | Reader::Program => mode != Some(Mode::Journal) || now.same_content(&main),
        };
        if !stands {
            return Err(Stop::Changed);
        }
        let size = file.metadata().map_err(|source| room.failure(source))?.len();
        Ok(Copied { file, size, main })
    }

    fn open(&self, reader: Reader) -> rusqlite::Result<Connection> {
        let path = self.path();
        let flags = OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let read = flags | OpenFlags::SQLITE_OPEN_READ_ONLY;
        match reader {
            Reader::Plain => Connection::open_with_flags(path, read),
            Reader::Program => Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_READ_WRITE),
            Reader::Still => {
                Connection::open_with_flags(unchanging(&path), read | OpenFlags::SQLITE_OPEN_URI)
            }
        }
    }

    /// Copies what the transaction sees into an empty file, which then has no name any more.
    fn pour(&self, from: &Connection, room: &Room, how: &Copying<'_>) -> Result<File, Stop> {
        let (path, file) = room.file()?;
        let failed = |error| self.stop_pouring(error, (room, &file));
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut to = Connection::open_with_flags(&path, flags).map_err(failed)?;
        // Nobody else reads it, and nothing of it outlives a crash.
        to.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF").map_err(failed)?;
        let backup = Backup::new(from, &mut to).map_err(failed)?;
        loop {
            if !(how.go_on)() {
                return Err(SourceError::Cancelled.into());
            }
            match backup.step(PAGES).map_err(failed)? {
                StepResult::Done => break,
                StepResult::More => {}
                _ => return Err(Stop::Busy),
            }
        }
        drop(backup);
        to.close().map_err(|(_, error)| failed(error))?;
        fs::remove_file(&path).map_err(|source| room.failure(source))?;
        Ok(file)
    }

    /// What an error of the one who reads means.
    fn stop(&self, error: rusqlite::Error) -> Stop {
        let code = error.sqlite_extended_error_code().unwrap_or(ffi::SQLITE_ERROR);
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed,
            ) => Stop::Busy,
            Some(ErrorCode::ReadOnly) if code == ffi::SQLITE_READONLY_ROLLBACK => Stop::Unfinished,
            Some(ErrorCode::NotADatabase) => SourceError::NotADatabase { path: self.path() }.into(),
            _ => self.refused(code_to_str(code)).into(),
        }
    }

    /// The same while it is copied: what is written to is the copy.
    fn stop_pouring(&self, error: rusqlite::Error, (room, file): (&Room, &File)) -> Stop {
        let code = error.sqlite_extended_error_code().unwrap_or(ffi::SQLITE_ERROR);
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => room.failure(io::ErrorKind::StorageFull.into()).into(),
            Some(ErrorCode::SystemIoFailure)
                if [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_TRUNCATE]
                    .contains(&code) =>
            {
                // SQLite does not say why; what writes there now is told, such as of a quota.
                let source = probe(file).err().unwrap_or_else(|| io::Error::other(code_to_str(code)));
                room.failure(source).into()
            }
            _ => self.stop(error),
        }
    }
}

/// Writes behind the end of a copy that came to nothing, as SQLite does.
fn probe(file: &File) -> io::Result<()> {
    file.write_all_at(&[0; PAGE_MAX], file.metadata()?.len())
}

/// A directory for one copy, which nobody else can read. It goes with all that is in it.
struct Room {
    path: PathBuf,
    /// Locked as long as it is used.
    _lock: File,
}

impl Room {
    /// Makes one. Its name tells it from those of other processes with the same number, as in containers that share the place.
    fn make(scratch: &Path, now: Timestamp) -> Result<Self, SourceError> {
        let copies = scratch.join(COPIES);
        let failure = |source| SourceError::Scratch { path: copies.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&copies).map_err(failure)?;
        sweep(&copies);
        for number in 0..u32::MAX {
            let path = copies.join(format!("{}-{:x}-{number}", std::process::id(), now.0));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failure(error)),
                Ok(()) => {
                    if let Some(room) = Self::take(path).map_err(failure)? {
                        return Ok(room);
                    }
                }
            }
        }
        Err(failure(io::ErrorKind::AlreadyExists.into()))
    }

    /// Locks it; `None` if somebody uses it, or removed it.
    fn take(path: PathBuf) -> io::Result<Option<Self>> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let lock = match File::options().read(true).custom_flags(flags.bits().cast_signed()).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let taken = match lock.try_lock() {
            Err(TryLockError::Error(error)) => return Err(error),
            other => other.is_ok(),
        };
        let inode = |found: fs::Metadata| (found.dev(), found.ino());
        let ours = inode(lock.metadata()?);
        let stands = fs::symlink_metadata(&path).is_ok_and(|found| inode(found) == ours);
        // Not `then_some`: dropping a room removes it, so none is made of what is not taken.
        Ok((taken && stands).then(|| Self { path, _lock: lock }))
    }

    /// An empty file in it.
    fn file(&self) -> Result<(PathBuf, File), SourceError> {
        let path = self.path.join("copy");
        // What a try before this one left.
        let _ = fs::remove_file(&path);
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        Ok((path, file.map_err(|source| self.failure(source))?))
    }

    fn failure(&self, source: io::Error) -> SourceError {
        SourceError::Scratch { path: self.path.clone(), source }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // What cannot be removed now is tried again by the next run.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what nobody uses any more.
fn sweep(copies: &Path) {
    let Ok(rooms) = fs::read_dir(copies) else { return };
    for room in rooms.flatten() {
        // Failing means that it stays, which costs space until the next time.
        drop(Room::take(room.path()));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::clock::SystemClock;
    use crate::source::file::{FileReader, open_file};
    use crate::source::walk::{open_test_dir, test_dir};

    /// Pages that are more than one step copies.
    fn make(path: &Path, mode: &str) -> Connection {
        let made = Connection::open(path).unwrap();
        made.execute_batch(&format!(
            "PRAGMA journal_mode={mode}; CREATE TABLE t(v, b);
             WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 900)
             INSERT INTO t SELECT 0, randomblob(4000) FROM c;"
        ))
        .unwrap();
        made
    }

    /// Copies `db`, with `between` done before each step.
    fn copied(dir: &Arc<Dir>, scratch: &Path, between: &dyn Fn()) -> Result<FileReader, SourceError> {
        let stat = look(&*dir.handle().unwrap(), b"db").unwrap().unwrap();
        let go_on = || {
            between();
            true
        };
        let clock = SystemClock::new();
        open_file(dir, b"db", &stat)?.consistent(&Copying { scratch, clock: &clock, go_on: &go_on })
    }

    fn restored(reader: &FileReader, to: &Path) -> Connection {
        let mut bytes = vec![0; usize::try_from(reader.stat().size).unwrap()];
        assert_eq!(reader.read_at(&mut bytes, 0).unwrap(), bytes.len());
        fs::write(to, bytes).unwrap();
        Connection::open(to).unwrap()
    }

    fn values(of: &Connection) -> Vec<i64> {
        let mut statement = of.prepare("SELECT DISTINCT v FROM t ORDER BY v").unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn commits_between_two_steps_are_not_in_the_copy() {
        let (temp, dir) = test_dir();
        let scratch = tempfile::tempdir().unwrap();
        let writer = make(&temp.path().join("db"), "wal");
        let commits = Cell::new(0);
        let between = || {
            commits.set(commits.get() + 1);
            writer.execute("UPDATE t SET v = ?1", [commits.get()]).unwrap();
            let at = scratch.path().join(COPIES);
            let room = fs::read_dir(&at).unwrap().next().unwrap().unwrap().path();
            let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&at), mode(&room), mode(&room.join("copy"))), (0o700, 0o700, 0o600));
        };
        let reader = copied(&dir, scratch.path(), &between).unwrap();
        assert!(commits.get() > 1, "more than one step");
        assert_eq!(fs::read_dir(scratch.path().join(COPIES)).unwrap().count(), 0, "it has no name any more");
        let copy = restored(&reader, &scratch.path().join("restored"));
        assert_eq!(values(&copy), [0]);
        let said: String = copy.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(said, "ok");
        assert_eq!(values(&writer), [commits.get()]);
    }

    #[test]
    fn nobody_commits_into_a_copy_of_one_with_a_journal() {
        let (temp, dir) = test_dir();
        let scratch = tempfile::tempdir().unwrap();
        let writer = make(&temp.path().join("db"), "delete");
        writer.busy_timeout(Duration::ZERO).unwrap();
        let between = || {
            let error = writer.execute("UPDATE t SET v = 1", []).unwrap_err();
            assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
        };
        let reader = copied(&dir, scratch.path(), &between).unwrap();
        assert_eq!(values(&restored(&reader, &scratch.path().join("restored"))), [0]);
        writer.execute("UPDATE t SET v = 1", []).unwrap();
    }

    #[test]
    fn one_that_is_replaced_or_changed_without_a_lock_is_not_called_good() {
        let (temp, dir) = test_dir();
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        for name in ["db", "other"] {
            drop(make(&at(name), "delete"));
        }
        let first = Cell::new(true);
        let replace = || {
            if first.replace(false) {
                fs::rename(at("other"), at("db")).unwrap();
            }
        };
        let error = copied(&dir, scratch.path(), &replace).unwrap_err();
        assert!(matches!(error, SourceError::Replaced { .. }), "{error}");
        // Once it changes under the lock; then it is copied again.
        let tries = Cell::new(0);
        let touch = || {
            tries.set(tries.get() + 1);
            if tries.get() == 1 {
                let file = File::options().write(true).open(at("db")).unwrap();
                file.set_modified(std::time::UNIX_EPOCH).unwrap();
                // Closing it would end SQLite's locks.
                std::mem::forget(file);
            }
        };
        let reader = copied(&dir, scratch.path(), &touch).unwrap();
        assert!(tries.get() > 4, "copied twice");
        assert_eq!(values(&restored(&reader, &scratch.path().join("restored"))), [0]);
    }

    #[test]
    fn what_is_no_database_alone_is_refused_and_an_empty_one_is_one() {
        let (temp, dir) = test_dir();
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        let copied = || copied(&dir, scratch.path(), &|| {});
        fs::write(at("db"), b"").unwrap();
        assert_eq!(copied().unwrap().stat().size, 0);
        fs::write(at("db-wal"), [7; 100]).unwrap();
        assert!(matches!(copied(), Err(SourceError::Database { .. })));
        assert!(at("db-wal").exists(), "SQLite would remove it");
        fs::remove_file(at("db-wal")).unwrap();
        fs::write(at("db"), b"SQLite format 3\0").unwrap();
        assert!(matches!(copied(), Err(SourceError::NotADatabase { .. })));
        fs::remove_file(at("db")).unwrap();
        for mode in ["wal", "delete"] {
            drop(make(&at("db"), mode));
            fs::write(at("db-journal"), b"dear diary").unwrap();
            assert!(matches!(copied(), Err(SourceError::Database { .. })), "{mode}");
            assert_eq!(fs::read(at("db-journal")).unwrap(), b"dear diary");
            fs::remove_file(at("db-journal")).unwrap();
            copied().unwrap();
            fs::remove_file(at("db")).unwrap();
        }
        drop(make(&at("db"), "delete"));
        rustix::fs::mkfifoat(CWD, at("db-journal"), rustix::fs::Mode::RWXU).unwrap();
        assert!(matches!(copied(), Err(SourceError::Database { .. })));
        fs::remove_file(at("db-journal")).unwrap();
        copied().unwrap();
        let bytes = fs::read(at("db")).unwrap();
        fs::write(at("db"), &bytes[..bytes.len() / 2]).unwrap();
        assert!(matches!(copied(), Err(SourceError::Database { .. })));
        fs::write(at("db"), &bytes).unwrap();
        fs::hard_link(at("db"), at("second")).unwrap();
        assert!(matches!(copied(), Err(SourceError::LinkedDatabase { .. })));
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_what_is_used_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let now = Timestamp(7);
        let used = Room::make(scratch.path(), now).unwrap();
        used.file().unwrap();
        let copies = scratch.path().join(COPIES);
        let left = copies.join("1-0");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("copy"), b"content").unwrap();
        // What is none of its own is neither waited for nor removed.
        rustix::fs::mkfifoat(CWD, copies.join("pipe"), rustix::fs::Mode::RWXU).unwrap();
        std::os::unix::fs::symlink(scratch.path(), copies.join("link")).unwrap();
        let second = Room::make(scratch.path(), now).unwrap();
        assert!(!left.exists() && used.path.join("copy").exists() && second.path != used.path);
        // A second thread, or a process that has the same number elsewhere, sweeps what is used.
        assert!(Room::take(used.path.clone()).unwrap().is_none());
        assert!(used.path.join("copy").exists());
        // Who locked one that is gone, and whose name is another's by now, removes nothing.
        let old = used.path.clone();
        fs::rename(&old, copies.join("moved")).unwrap();
        drop(used);
        assert!(!old.exists() && Room::take(old).unwrap().is_none());
        drop((second, Room::take(copies.join("moved")).unwrap().unwrap()));
        let mut names: Vec<_> =
            fs::read_dir(copies).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["link", "pipe"]);
    }

    #[test]
    fn many_threads_sweep_no_room_that_is_used() {
        let scratch = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let room = Room::make(scratch.path(), Timestamp(7)).unwrap();
                        let (path, _file) = room.file().unwrap();
                        assert!(path.exists());
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(scratch.path().join(COPIES)).unwrap().count(), 0);
    }

    /// What belongs to who else is under another name too is not SQLite's to write to.
    #[test]
    fn a_file_with_several_names_beside_it_is_left_alone() {
        let (temp, dir) = test_dir();
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        for mode in ["wal", "delete"] {
            drop(make(&at("db"), mode));
            fs::write(at("other"), "").unwrap();
            for suffix in BESIDE {
                let name = format!("db{}", String::from_utf8_lossy(suffix));
                fs::hard_link(at("other"), at(&name)).unwrap();
                let error = copied(&dir, scratch.path(), &|| {}).unwrap_err();
                assert!(error.to_string().contains("several names"), "{mode} {name}: {error}");
                assert_eq!(fs::read(at("other")).unwrap(), b"", "{mode} {name}");
                fs::remove_file(at(&name)).unwrap();
            }
            copied(&dir, scratch.path(), &|| {}).unwrap();
            fs::remove_file(at("db")).unwrap();
        }
    }

    /// A deployment may exchange the directory while the database is waited for or copied.
    #[test]
    fn a_path_that_leads_elsewhere_is_not_taken_for_the_database() {
        let (temp, _) = test_dir();
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        for mode in ["wal", "delete"] {
            for early in [true, false] {
                for name in ["app", "next"] {
                    fs::create_dir(at(name)).unwrap();
                    drop(make(&at(name).join("db"), mode));
                }
                let dir = open_test_dir(&at("app"));
                let stat = look(&*dir.handle().unwrap(), b"db").unwrap().unwrap();
                let reader = open_file(&dir, b"db", &stat).unwrap();
                let first = Cell::new(true);
                let exchange = || {
                    if first.replace(false) {
                        fs::rename(at("app"), at("old")).unwrap();
                        fs::rename(at("next"), at("app")).unwrap();
                    }
                    true
                };
                if early {
                    exchange();
                }
                let clock = SystemClock::new();
                let how = Copying { scratch: scratch.path(), clock: &clock, go_on: &exchange };
                let error = reader.consistent(&how).unwrap_err();
                assert!(matches!(error, SourceError::Replaced { .. }), "{mode}, {early}: {error}");
                assert!(!first.get());
                for name in ["app", "old"] {
                    fs::remove_dir_all(at(name)).unwrap();
                }
            }
        }
    }

    /// A clock that is so many nanoseconds ahead.
    struct Shifted(SystemClock, i64);

    impl Clock for Shifted {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.now().0 + self.1)
        }

        fn monotonic(&self) -> Duration {
            self.0.monotonic()
        }
    }

    /// Without a lock nothing keeps a change out, so it must show.
    #[test]
    fn one_at_rest_that_is_changed_meanwhile_is_not_called_good() {
        let (temp, dir) = test_dir();
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        drop(make(&at("db"), "wal"));
        let file = File::options().read(true).write(true).open(at("db")).unwrap();
        let fd = file.try_clone().unwrap().into();
        let database = Database { fd: &fd, dir: &dir, name: b"db" };
        let read = |clock: &dyn Clock, between: &dyn Fn()| {
            let go_on = || {
                between();
                true
            };
            let how = Copying { scratch: scratch.path(), clock, go_on: &go_on };
            let room = Room::make(scratch.path(), clock.now()).unwrap();
            database.read(Reader::Still, &room, &how)
        };
        let shifted = |by| Shifted(SystemClock::new(), by);
        let (later, now) = (shifted(10_000_000_000), shifted(-10_000_000_000));
        assert!(matches!(read(&now, &|| {}), Err(Stop::Busy)), "it was changed just now");
        read(&later, &|| {}).unwrap();
        let touch = || file.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(matches!(read(&later, &touch), Err(Stop::Changed)));
        for suffix in ["-wal", "-shm", "-journal"] {
            let beside = at(&format!("db{suffix}"));
            assert!(matches!(read(&later, &|| fs::write(&beside, "").unwrap()), Err(Stop::Changed)));
            fs::remove_file(&beside).unwrap();
        }
        read(&later, &|| {}).unwrap();
    }

    /// What SQLite makes for a member of the group would be his, and shut the owner out.
    #[test]
    fn only_the_owner_or_root_makes_what_stands_beside_it() {
        use rustix::process::{Gid, Uid};
        let (temp, dir) = test_dir();
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        drop(make(&at("db"), "wal"));
        let fd: OwnedFd = File::open(at("db")).unwrap().into();
        let database = Database { fd: &fd, dir: &dir, name: b"db" };
        assert!(database.may_write().unwrap(), "the owner, or root");
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (owner, member, group) = (4001, 4002, Gid::from_raw(4003));
        for (path, mode) in [(temp.path().to_owned(), 0o770), (at("db"), 0o660)] {
            std::os::unix::fs::chown(&path, Some(owner), Some(4003)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
        // Nothing but this thread becomes somebody else.
        std::thread::scope(|scope| {
            let member = || {
                rustix::thread::set_thread_groups(&[]).unwrap();
                rustix::thread::set_thread_res_gid(group, group, group).unwrap();
                let user = Uid::from_raw(member);
                rustix::thread::set_thread_res_uid(user, user, user).unwrap();
                assert!(File::options().write(true).open(at("db")).is_ok(), "he may write to it");
                assert!(!database.may_write().unwrap());
                copied(&dir, scratch.path(), &|| assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1))
            };
            scope.spawn(member).join().unwrap().unwrap();
        });
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }
}
