//! Gives a restored database its name. Nothing is replaced for it: a name that is taken stays what it is.
//!
//! # Invariants
//! When the database gets its name, nothing stood beside it that SQLite would take for a part of it: a log or a journal of another
//! one would be played into it when it is opened.
//!
//! # Crash
//! The database stands whole, under `new` or under its name; where the file system can rename only what may be replaced, for a
//! moment under both.
//!
//! # Must not
//! Replace, move or remove anything but `new`. Open what stands there.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{BESIDE, look};

/// What is to be said of a database that has its name.
#[derive(Debug, Default)]
pub struct Placed {
    /// What stands beside it by now: somebody opened it already, or put there what is not its own.
    pub beside: Vec<PathBuf>,
    /// Its other name, if that could not be removed.
    pub left: Option<PathBuf>,
    /// Why it may not have its name after a crash of the machine, or why nobody knows what stands beside it.
    pub fault: Option<io::Error>,
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
    /// If the directory cannot be opened.
    pub fn open(directory: &Path, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(directory, flags, Mode::empty())?;
        Ok(Self { dir, path: directory.join(name), name: name.to_owned() })
    }

    /// What stands under the name or, whatever it is, beside it.
    ///
    /// # Errors
    /// If that cannot be looked at.
    pub fn taken(&self) -> io::Result<Option<PathBuf>> {
        match look(&self.dir, self.name.as_bytes())? {
            Some(_) => Ok(Some(self.path.clone())),
            None => Ok(self.beside()?.into_iter().next()),
        }
    }

    /// What SQLite would take for a part of the database.
    fn beside(&self) -> io::Result<Vec<PathBuf>> {
        let mut beside = Vec::new();
        for suffix in BESIDE {
            let name = [self.name.as_bytes(), suffix].concat();
            if look(&self.dir, &name)?.is_some() {
                beside.push(self.path.with_file_name(OsStr::from_bytes(&name)));
            }
        }
        Ok(beside)
    }

    /// Gives `new`, a name in the same directory, this name; or says what is in the way.
    ///
    /// # Errors
    /// Then the file still stands under `new`, as it does if something is in the way.
    pub fn give(&self, new: &OsStr) -> io::Result<Result<Placed, PathBuf>> {
        if let Some(stands) = self.taken()? {
            return Ok(Err(stands));
        }
        let left = match self.rename(new) {
            Err(Errno::EXIST) => return Ok(Err(self.path.clone())),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match self.link(new) {
                Err(Errno::EXIST) => return Ok(Err(self.path.clone())),
                linked => (!linked?).then(|| self.path.with_file_name(new)),
            },
            renamed => renamed.map(|()| None)?,
        };
        Ok(Ok(self.settle(left)))
    }

    /// Ends what took effect: the name is given, and what fails now does not take that back.
    fn settle(&self, left: Option<PathBuf>) -> Placed {
        let synced = rustix::fs::fsync(&self.dir).map_err(io::Error::from);
        let (beside, looked) = match self.beside() {
            Ok(beside) => (beside, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        Placed { beside, left, fault: synced.and(looked).err() }
    }

    /// Renames it, if the name is free.
    fn rename(&self, new: &OsStr) -> Result<(), Errno> {
        rustix::fs::renameat_with(&self.dir, new, &self.dir, &self.name, RenameFlags::NOREPLACE)
    }

    /// The same by a second name, if it is free; false if the first one could not be removed.
    fn link(&self, new: &OsStr) -> Result<bool, Errno> {
        rustix::fs::linkat(&self.dir, new, &self.dir, &self.name, AtFlags::empty())?;
        Ok(rustix::fs::unlinkat(&self.dir, new, AtFlags::empty()).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NEW: &str = "new";

    struct Scene {
        place: tempfile::TempDir,
        spot: Spot,
    }

    impl Scene {
        /// A file `new`, and nothing under the name `db`.
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            let directory = place.path().canonicalize().unwrap();
            fs::write(directory.join(NEW), "content").unwrap();
            let spot = Spot::open(&directory, OsStr::new("db")).unwrap();
            Self { place, spot }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.place.path().canonicalize().unwrap().join(name)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.place.path()).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }

        fn give(&self) -> Result<Placed, PathBuf> {
            self.spot.give(OsStr::new(NEW)).unwrap()
        }
    }

    #[test]
    fn a_free_name_is_given() {
        let scene = Scene::new();
        for other in ["db2", "other-wal", "db-old"] {
            fs::write(scene.at(other), "other").unwrap();
        }
        let placed = scene.give().unwrap();
        assert!(placed.beside.is_empty() && placed.left.is_none() && placed.fault.is_none(), "{placed:?}");
        assert_eq!(scene.names(), ["db", "db-old", "db2", "other-wal"]);
        assert_eq!(fs::read(scene.at("db")).unwrap(), b"content");
    }

    /// What stands there: a file, an empty one, a link to nothing, a directory, a pipe; none is opened or followed.
    #[test]
    fn whatever_stands_there_or_beside_stays() {
        let makers: [&dyn Fn(&Path); 5] = [
            &|path| fs::write(path, "other").unwrap(),
            &|path| fs::write(path, "").unwrap(),
            &|path| std::os::unix::fs::symlink("nothing", path).unwrap(),
            &|path| fs::create_dir(path).unwrap(),
            &|path| rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::RWXU).unwrap(),
        ];
        for name in ["db", "db-wal", "db-shm", "db-journal"] {
            for make in makers {
                let scene = Scene::new();
                make(&scene.at(name));
                let before = fs::symlink_metadata(scene.at(name)).unwrap();
                assert_eq!(scene.spot.taken().unwrap(), Some(scene.at(name)));
                assert_eq!(scene.give().unwrap_err(), scene.at(name));
                let now = fs::symlink_metadata(scene.at(name)).unwrap();
                assert_eq!((now.file_type(), now.len()), (before.file_type(), before.len()));
                assert_eq!(scene.names(), [name, NEW]);
                assert_eq!(fs::read(scene.at(NEW)).unwrap(), b"content");
            }
        }
    }

    #[test]
    fn what_stands_beside_it_by_then_is_said() {
        let scene = Scene::new();
        scene.spot.rename(OsStr::new(NEW)).unwrap();
        fs::write(scene.at("db-wal"), "of a service that was not stopped").unwrap();
        let placed = scene.spot.settle(None);
        assert_eq!(placed.beside, [scene.at("db-wal")]);
        assert!(placed.fault.is_none());
        assert_eq!(scene.names(), ["db", "db-wal"]);
    }

    /// Between the look and the rename somebody may take the name.
    #[test]
    fn neither_way_replaces_what_stands_there() {
        let scene = Scene::new();
        fs::write(scene.at("db"), "other").unwrap();
        assert_eq!(scene.spot.rename(OsStr::new(NEW)), Err(Errno::EXIST));
        assert_eq!(scene.spot.link(OsStr::new(NEW)), Err(Errno::EXIST));
        assert_eq!(scene.names(), ["db", NEW]);
        assert_eq!(fs::read(scene.at("db")).unwrap(), b"other");
        fs::remove_file(scene.at("db")).unwrap();
        assert_eq!(scene.spot.link(OsStr::new(NEW)), Ok(true));
        assert_eq!(scene.names(), ["db"]);
        assert!(scene.spot.give(OsStr::new(NEW)).unwrap().is_err());
        fs::remove_file(scene.at("db")).unwrap();
        assert!(scene.spot.give(OsStr::new(NEW)).is_err(), "nothing to rename");
    }
}
