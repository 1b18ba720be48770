//! The directories that are restored into, and the few files that no snapshot holds.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use super::super::super::restore::is_empty;
use crate::database::manifest;
use crate::error::{BaseError, Error};

fn local(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Local { path: path.clone(), source }
}

/// Demands that all directories are empty or not there yet, and none lies in another.
pub(super) fn check<'p>(
    directory: &'p Path,
    spaces: impl Iterator<Item = &'p Path>,
) -> Result<(), BaseError> {
    let mut places = vec![directory];
    places.extend(spaces);
    for (at, place) in places.iter().enumerate() {
        let is_dir = std::fs::metadata(place).is_ok_and(|stat| stat.is_dir());
        if !is_empty(place) || (place.exists() && !is_dir) {
            return Err(BaseError::NotEmpty { path: (*place).to_owned() });
        }
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let within = places
            .iter()
            .enumerate()
            .any(|(other, outer)| at != other && real(place).starts_with(real(outer)));
        if within {
            return Err(BaseError::Nested { path: (*place).to_owned() });
        }
    }
    Ok(())
}

/// Whom the files are to belong to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner(Option<(u32, u32)>);

impl Owner {
    /// The owner of the directory, if it is there and not root's: no server runs as root. Without one, each file belongs to
    /// whom the snapshot says; who is not root has no choice.
    pub(super) fn of(directory: &Path) -> Result<Self, Error> {
        let root = rustix::process::geteuid().is_root();
        match std::fs::metadata(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self((!root).then(me))),
            Err(error) => Err(local(directory)(error)),
            Ok(stat) if root && stat.uid() == 0 => Ok(Self(None)),
            Ok(stat) if root => Ok(Self(Some((stat.uid(), stat.gid())))),
            Ok(_) => Ok(Self(Some(me()))),
        }
    }

    /// Whether one owner is to have them all.
    pub(super) fn is_known(&self) -> bool {
        self.0.is_some()
    }

    /// Gives everything in these places to the owner, or what is new in them to whom the rest belongs, and closes them to others.
    pub(super) fn take(&self, directory: &Path, places: &[&Path]) -> Result<(), Error> {
        let of = std::fs::metadata(directory.join("global")).map_err(local(directory))?;
        let (uid, gid) = self.0.unwrap_or((of.uid(), of.gid()));
        for place in places {
            let mode = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(place, mode).map_err(local(place))?;
            give(place, (uid, gid))?;
        }
        Ok(())
    }

    /// The same for one file of the directory.
    pub(super) fn take_file(&self, directory: &Path, name: &str) -> Result<(), Error> {
        let of = std::fs::metadata(directory).map_err(local(directory))?;
        let path = directory.join(name);
        lchown(&path, Some(of.uid()), Some(of.gid())).map_err(local(&path))
    }
}

fn me() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Gives a tree to somebody. Links are given, not followed.
fn give(place: &Path, (uid, gid): (u32, u32)) -> Result<(), Error> {
    let mut todo: Vec<PathBuf> = vec![place.to_owned()];
    while let Some(path) = todo.pop() {
        let stat = std::fs::symlink_metadata(&path).map_err(local(&path))?;
        if (stat.uid(), stat.gid()) != (uid, gid) {
            lchown(&path, Some(uid), Some(gid)).map_err(local(&path))?;
        }
        if stat.is_dir() {
            for entry in std::fs::read_dir(&path).map_err(local(&path))? {
                let entry = entry.map_err(local(&path))?;
                let dir = entry.file_type().map_err(local(&path))?.is_dir();
                match dir {
                    true => todo.push(entry.path()),
                    false => lchown(entry.path(), Some(uid), Some(gid)).map_err(local(&path))?,
                }
            }
        }
    }
    Ok(())
}

/// Makes the link of a tablespace.
pub(super) fn link(place: &Path, link: &Path) -> Result<(), Error> {
    symlink(place, link).map_err(local(link))
}

/// Adds to a file that only its owner reads; made if it is not there.
pub(super) fn append(path: &Path, text: &str) -> Result<(), Error> {
    let mut file =
        OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(local(path))?;
    file.write_all(text.as_bytes()).map_err(local(path))
}

/// Takes a file out of a manifest.
pub(super) fn drop_from_manifest(path: &Path, name: &str) -> Result<(), Error> {
    let text = std::fs::read(path).map_err(local(path))?;
    std::fs::write(path, manifest::without(&text, name)).map_err(local(path))
}

/// Waits until all of the file system lies on the disk.
pub(super) fn sync(place: &Path) -> Result<(), Error> {
    let dir = File::open(place).map_err(local(place))?;
    rustix::fs::syncfs(&dir).map_err(|errno| local(place)(errno.into()))
}

/// A time as PostgreSQL reads it, to the microsecond.
pub(super) fn moment(nanos: i64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d %H:%M:%S.%6f+00").to_string()
}
