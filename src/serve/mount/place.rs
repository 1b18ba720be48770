//! Where to mount: looked at before anything is read.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::Error;
use crate::ops::restore::{check_place, is_empty};
use crate::repo::Repository;

/// Refuses what is no empty directory, and what lies inside the repository.
pub(super) fn check(repo: &Repository, place: &Path) -> Result<(), Error> {
    let bad = |fault| Err(Error::MountPoint { path: place.to_owned(), fault });
    match fs::metadata(place) {
        Ok(found) if !found.is_dir() => return bad("it is not a directory"),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return bad("there is no such directory"),
        // What a dead mount answers.
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            return bad("a program that had mounted there ended without unmounting: umount it first");
        }
        Err(source) => return Err(Error::Local { path: place.to_owned(), source }),
    }
    check_place(repo, place)?;
    if let Err(source) = fs::read_dir(place) {
        return Err(Error::Local { path: place.to_owned(), source });
    }
    if is_empty(place) { Ok(()) } else { bad("it is not empty") }
}
