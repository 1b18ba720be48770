//! Puts a database in the place of another, and takes away what stands beside that one: a log or a journal of the old database
//! beside the new one would be played into it when it is opened next.
//!
//! # Invariants
//! Unless it is forced, only a database is replaced that nobody has open and beside which nothing stands that counts. SQLite locks
//! it for that; then what is beside it goes, and then the two change places in one step. If it turns out that somebody opened the
//! old one meanwhile, they change back.
//! If it is forced, the old one goes to another name first, together with its log and its journal, which have got second names
//! before that. So at no moment does a database stand under its name without what belongs to it. A second name is not a second
//! copy: who has the old one open goes on with it, under whatever name.
//!
//! # Crash
//! Not forced: one of the two stands whole under the name, and the other one under `new`. Forced: nothing stands under the name, and
//! the old one with all that belongs to it under `aside`, until the new one has taken the name.
//!
//! # Must not
//! Wait for what stands there, or follow it, if it is no regular file. Open the database while SQLite has it locked: closing it would
//! end the lock.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::ffi::{self, code_to_str};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, StatxFlags};
use rustix::io::Errno;

use super::{BESIDE, INDEX, JOURNAL, LOG, head_of, look, mode_of};
use crate::source::sys::stat::Stat;

/// Why a database is not to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InUse {
    /// Somebody has it open.
    Open,
    /// A log with content stands beside it.
    Log,
    /// A journal that SQLite would roll back stands beside it.
    Journal,
    /// It is none.
    Other,
    /// SQLite cannot lock it, and why.
    Unknown(&'static str),
}

impl std::fmt::Display for InUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open => f.write_str("somebody has it open"),
            Self::Log => f.write_str("a log with content stands beside it"),
            Self::Journal => f.write_str("a journal to be rolled back stands beside it"),
            Self::Other => f.write_str("what stands there is no database"),
            Self::Unknown(said) => write!(f, "SQLite cannot lock it: {said}"),
        }
    }
}

/// What became of what stood there.
#[derive(Debug, Default)]
pub struct Replaced {
    /// What stood beside the database, and is gone.
    pub removed: Vec<PathBuf>,
    /// What should be gone, and could not be removed.
    pub left: Vec<PathBuf>,
}

/// A name in a directory, for a database.
#[derive(Debug)]
pub struct Spot {
    dir: OwnedFd,
    path: PathBuf,
    name: OsString,
}

impl Spot {
    /// A name in a directory that is no symbolic link.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(directory: &Path, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(directory, flags, Mode::empty())?;
        Ok(Self { dir, path: directory.join(name), name: name.to_owned() })
    }

    fn with(&self, suffix: &[u8]) -> Vec<u8> {
        with(&self.name, suffix)
    }

    fn path_with(&self, suffix: &[u8]) -> PathBuf {
        self.path.with_file_name(OsStr::from_bytes(&self.with(suffix)))
    }

    /// A regular file, if something stands there; what is none is an error.
    fn stat(&self, suffix: &[u8]) -> io::Result<Option<Stat>> {
        match look(&self.dir, &self.with(suffix))? {
            Some(stat) if !stat.is_file() => {
                let path = self.path_with(suffix);
                Err(io::Error::other(format!("{} is not a regular file", path.display())))
            }
            other => Ok(other),
        }
    }

    /// Why what stands there is not to be replaced. A program that has it open, but reads and writes nothing, is found only
    /// where the system lets this one see which files it has open.
    ///
    /// # Errors
    /// If it, or what is beside it, cannot be looked at.
    pub fn in_use(&self) -> io::Result<Option<InUse>> {
        if let Some(stat) = self.stat(b"")? {
            if stat.size > 0 && mode_of(&head_of(&self.dir, &self.with(b""))?).is_none() {
                return Ok(Some(InUse::Other));
            }
            if is_open(&stat) {
                return Ok(Some(InUse::Open));
            }
        }
        self.in_use_beside()
    }

    fn in_use_beside(&self) -> io::Result<Option<InUse>> {
        self.stat(INDEX)?;
        if self.stat(LOG)?.is_some_and(|log| log.size > 0) {
            return Ok(Some(InUse::Log));
        }
        if self.stat(JOURNAL)?.is_none() {
            return Ok(None);
        }
        // One that was settled begins with zeroes.
        let head = head_of(&self.dir, &self.with(JOURNAL))?;
        Ok(head.first().is_some_and(|byte| *byte != 0).then_some(InUse::Journal))
    }

    /// Keeps everybody out of the database who asks SQLite for it, as long as what is returned lives.
    fn seize(&self) -> Result<Connection, InUse> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let seized = Connection::open_with_flags(&self.path, flags).and_then(|connection| {
            connection.busy_timeout(Duration::ZERO)?;
            connection.execute_batch("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE")?;
            Ok(connection)
        });
        seized.map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => InUse::Open,
            _ => InUse::Unknown(code_to_str(error.sqlite_extended_error_code().unwrap_or(ffi::SQLITE_ERROR))),
        })
    }

    /// Gives `new`, a name in the same directory, this name. What stood there is removed, with all that is beside it.
    ///
    /// # Errors
    /// Then nothing is changed, as it is if there is a reason why it is not to be replaced.
    pub fn put(&self, new: &OsStr) -> io::Result<Result<Replaced, InUse>> {
        if let Some(why) = self.in_use()? {
            return Ok(Err(why));
        }
        let Some(old) = self.stat(b"")? else {
            return Ok(match self.place(new.as_bytes())? {
                true => Ok(self.done(Vec::new(), Vec::new())),
                false => Err(InUse::Open),
            });
        };
        let stood = self.standing()?;
        // An empty one would get a first page from SQLite, and nobody's content is in it.
        let lock = match (old.size > 0).then(|| self.seize()).transpose() {
            Ok(lock) => lock,
            Err(why) => return Ok(Err(why)),
        };
        if let Some(why) = self.in_use_beside()? {
            return Ok(Err(why));
        }
        if !self.stat(b"")?.is_some_and(|now| now.same_inode(&old) && now.size == old.size) {
            return Ok(Err(InUse::Open));
        }
        for suffix in BESIDE {
            self.remove(&self.with(suffix))?;
        }
        sync(&self.dir)?;
        let exchanged = self.exchange(new.as_bytes())?;
        if exchanged && is_open(&old) {
            self.exchange(new.as_bytes())?;
            return Ok(Err(InUse::Open));
        }
        let old = if exchanged { vec![new.as_bytes().to_vec()] } else { Vec::new() };
        let done = self.done(stood, old);
        drop(lock);
        Ok(Ok(done))
    }

    /// The same, whoever uses it and whatever it is; until that is done it stands under the name `aside`.
    ///
    /// # Errors
    /// Then what stood there is back, or still aside.
    pub fn put_by_force(&self, new: &OsStr, aside: &OsStr) -> io::Result<Replaced> {
        let stood = self.standing()?;
        let link = |suffix| {
            let (from, to) = (self.with(suffix), with(aside, suffix));
            rustix::fs::linkat(&self.dir, from, &self.dir, to, AtFlags::empty()).is_ok()
        };
        let linked: Vec<&[u8]> = [LOG, JOURNAL].into_iter().filter(|suffix| link(suffix)).collect();
        let mut moved = Vec::new();
        let placed = self.move_aside(aside, &linked, &mut moved).and_then(|()| {
            let placed = self.place(new.as_bytes())?;
            if placed { Ok(()) } else { Err(io::ErrorKind::AlreadyExists.into()) }
        });
        if let Err(error) = placed {
            // The database last, when what belongs to it is there.
            for suffix in moved.iter().rev() {
                let _ = self.rename_if_free(&with(aside, suffix), &self.with(suffix));
            }
            for suffix in linked.iter().filter(|suffix| !moved.contains(suffix)) {
                let _ = self.remove(&with(aside, suffix));
            }
            return Err(error);
        }
        Ok(self.done(stood, moved.iter().map(|suffix| with(aside, suffix)).collect()))
    }

    /// Moves the database to another name, then what is beside it; notes what was moved.
    fn move_aside<'s>(
        &self,
        aside: &OsStr,
        linked: &[&'s [u8]],
        moved: &mut Vec<&'s [u8]>,
    ) -> io::Result<()> {
        sync(&self.dir)?;
        for suffix in [b"", LOG, JOURNAL, INDEX] {
            let (from, to) = (self.with(suffix), with(aside, suffix));
            // Between two names of one file a rename does nothing.
            let gone = if linked.contains(&suffix) { self.remove(&from)? } else { self.rename(&from, &to)? };
            if gone {
                moved.push(suffix);
            }
            sync(&self.dir)?;
        }
        Ok(())
    }

    /// What stands beside it, as paths.
    fn standing(&self) -> io::Result<Vec<PathBuf>> {
        let mut standing = Vec::new();
        for suffix in BESIDE {
            if look(&self.dir, &self.with(suffix))?.is_some() {
                standing.push(self.path_with(suffix));
            }
        }
        Ok(standing)
    }

    /// Ends a change that took effect: makes it last, and removes what is left of the old one.
    fn done(&self, removed: Vec<PathBuf>, old: Vec<Vec<u8>>) -> Replaced {
        let mut left = Vec::new();
        // The new one has the name; an error now does not take that back.
        let lasts = sync(&self.dir).is_ok();
        for name in old {
            if !lasts || self.remove(&name).is_err() {
                left.push(self.path.with_file_name(OsStr::from_bytes(&name)));
            }
        }
        Replaced { removed, left }
    }

    /// Gives a file this name, if it is free.
    fn place(&self, new: &[u8]) -> io::Result<bool> {
        match self.rename_if_free(new, &self.with(b"")) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn rename_if_free(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        match rustix::fs::renameat_with(&self.dir, from, &self.dir, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            other => return Ok(other?),
        }
        rustix::fs::linkat(&self.dir, from, &self.dir, to, AtFlags::empty())?;
        Ok(rustix::fs::unlinkat(&self.dir, from, AtFlags::empty())?)
    }

    /// Lets the two change places; where the file system cannot, the other one takes this name, and false is returned.
    fn exchange(&self, new: &[u8]) -> io::Result<bool> {
        let name = self.with(b"");
        match rustix::fs::renameat_with(&self.dir, new, &self.dir, &name, RenameFlags::EXCHANGE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            other => return Ok(other.map(|()| true)?),
        }
        rustix::fs::renameat(&self.dir, new, &self.dir, &name)?;
        Ok(false)
    }

    /// Whether there was something to rename.
    fn rename(&self, from: &[u8], to: &[u8]) -> io::Result<bool> {
        match rustix::fs::renameat(&self.dir, from, &self.dir, to) {
            Err(Errno::NOENT) => Ok(false),
            other => Ok(other.map(|()| true)?),
        }
    }

    /// Whether there was something to remove.
    fn remove(&self, name: &[u8]) -> io::Result<bool> {
        match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(false),
            other => Ok(other.map(|()| true)?),
        }
    }
}

fn with(name: &OsStr, suffix: &[u8]) -> Vec<u8> {
    [name.as_bytes(), suffix].concat()
}

fn sync(dir: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fsync(dir)?)
}

/// Whether another process has the file open, as far as the system says. No server of a file system is waited for.
fn is_open(wanted: &Stat) -> bool {
    let own = std::process::id().to_string();
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    for process in processes.flatten() {
        let name = process.file_name();
        let number = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        if number.is_none_or(|number| number == own) {
            continue;
        }
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let same = |entry: fs::DirEntry| {
            let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
            rustix::fs::statx(CWD, entry.path(), flags, StatxFlags::BASIC_STATS).is_ok_and(|found| {
                let dev = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
                (dev, found.stx_ino) == (wanted.dev, wanted.ino)
            })
        };
        if files.flatten().any(same) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        place: tempfile::TempDir,
        spot: Spot,
    }

    impl Scene {
        /// A database `db` in this mode that nobody has open, and `new`, which is to take its place.
        fn new(mode: &str) -> Self {
            let place = tempfile::tempdir().unwrap();
            let directory = place.path().canonicalize().unwrap();
            let made = Connection::open(directory.join("db")).unwrap();
            made.execute_batch(&format!("PRAGMA journal_mode={mode}; CREATE TABLE t(x)")).unwrap();
            made.close().unwrap();
            fs::write(directory.join("new"), "new").unwrap();
            let spot = Spot::open(&directory, OsStr::new("db")).unwrap();
            Self { place, spot }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.place.path().join(name)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.place.path()).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }

        fn put(&self) -> Result<Replaced, InUse> {
            self.spot.put(OsStr::new("new")).unwrap()
        }

        fn force(&self) -> io::Result<Replaced> {
            self.spot.put_by_force(OsStr::new("new"), OsStr::new("aside"))
        }

        /// Demands that it is not replaced for this reason, and that nothing is changed.
        #[track_caller]
        fn stays(&self, why: InUse) {
            let (names, before) = (self.names(), fs::read(self.at("db")).unwrap());
            assert_eq!(self.put().unwrap_err(), why);
            assert_eq!(self.names(), names);
            assert!(
                fs::read(self.at("db")).unwrap() == before && fs::read(self.at("new")).unwrap() == b"new"
            );
        }

        #[track_caller]
        fn is_new(&self, names: &[&str]) {
            assert_eq!(self.names(), names);
            assert_eq!(fs::read(self.at("db")).unwrap(), b"new");
        }
    }

    #[test]
    fn one_that_nobody_uses_is_replaced_with_what_is_left_beside_it() {
        for mode in ["delete", "wal"] {
            let scene = Scene::new(mode);
            for name in ["db-wal", "db-shm", "db-journal", "db-other"] {
                fs::write(scene.at(name), if name == "db-journal" { &[0; 512][..] } else { b"" }).unwrap();
            }
            let done = scene.put().unwrap();
            assert_eq!(done.removed.len(), 3, "{mode}: {done:?}");
            assert!(done.left.is_empty());
            scene.is_new(&["db", "db-other"]);
        }
    }

    #[test]
    fn a_free_name_is_taken_and_an_empty_file_is_nobodys() {
        let scene = Scene::new("wal");
        fs::remove_file(scene.at("db")).unwrap();
        scene.put().unwrap();
        scene.is_new(&["db"]);
        let scene = Scene::new("wal");
        fs::write(scene.at("db"), "").unwrap();
        scene.put().unwrap();
        scene.is_new(&["db"]);
        let scene = Scene::new("wal");
        fs::remove_file(scene.at("db")).unwrap();
        fs::write(scene.at("db-wal"), "of one that is gone").unwrap();
        assert_eq!(scene.put().unwrap_err(), InUse::Log);
        scene.force().unwrap();
        scene.is_new(&["db"]);
    }

    #[test]
    fn what_counts_beside_it_or_is_none_stays_unless_it_is_forced() {
        let scene = Scene::new("wal");
        fs::write(scene.at("db-wal"), "log").unwrap();
        scene.stays(InUse::Log);
        fs::rename(scene.at("db-wal"), scene.at("db-journal")).unwrap();
        scene.stays(InUse::Journal);
        fs::write(scene.at("db-wal"), "log").unwrap();
        fs::write(scene.at("db-shm"), "index").unwrap();
        assert_eq!(scene.force().unwrap().removed.len(), 3);
        scene.is_new(&["db"]);
        for other in [&b"a text, and no database"[..], &[0; 4096]] {
            let scene = Scene::new("wal");
            fs::write(scene.at("db"), other).unwrap();
            scene.stays(InUse::Other);
            scene.force().unwrap();
            scene.is_new(&["db"]);
        }
        // One that SQLite cannot lock, because it is damaged.
        let scene = Scene::new("delete");
        let bytes = fs::read(scene.at("db")).unwrap();
        fs::write(scene.at("db"), &bytes[..bytes.len() / 2]).unwrap();
        assert!(matches!(scene.put().unwrap_err(), InUse::Unknown(_)));
        scene.force().unwrap();
        scene.is_new(&["db"]);
    }

    #[test]
    fn what_cannot_be_replaced_is_put_back_with_its_log() {
        let scene = Scene::new("wal");
        for name in ["db-wal", "db-journal", "db-shm"] {
            fs::write(scene.at(name), name).unwrap();
        }
        fs::remove_file(scene.at("new")).unwrap();
        assert!(scene.force().is_err());
        assert_eq!(scene.names(), ["db", "db-journal", "db-shm", "db-wal"]);
        for name in ["db-wal", "db-journal", "db-shm"] {
            assert_eq!(fs::read(scene.at(name)).unwrap(), name.as_bytes());
        }
    }

    #[test]
    fn one_that_somebody_uses_stays() {
        for mode in ["delete", "wal"] {
            let scene = Scene::new(mode);
            // Who reads it holds a lock; within this process only that tells.
            let reader = Connection::open(scene.at("db")).unwrap();
            reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
            assert_eq!(scene.spot.seize().unwrap_err(), InUse::Open, "{mode}");
            drop(reader);
            // Who has it open and does nothing.
            let file = fs::File::open(scene.at("db")).unwrap();
            let mut user = std::process::Command::new("sleep").arg("600").stdin(file).spawn().unwrap();
            scene.stays(InUse::Open);
            user.kill().unwrap();
            user.wait().unwrap();
            scene.put().unwrap();
            scene.is_new(&["db"]);
        }
    }

    #[test]
    fn a_pipe_beside_it_is_not_waited_for() {
        let scene = Scene::new("delete");
        for suffix in ["-wal", "-shm", "-journal", ""] {
            let pipe = scene.at(&format!("db{suffix}"));
            let _ = fs::remove_file(&pipe);
            rustix::fs::mkfifoat(CWD, &pipe, Mode::RWXU).unwrap();
            let error = scene.spot.put(OsStr::new("new")).unwrap_err();
            assert!(error.to_string().contains("not a regular file"), "{error}");
            if !suffix.is_empty() {
                fs::remove_file(pipe).unwrap();
            }
        }
    }
}
