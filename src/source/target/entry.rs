//! Making directory entries, and clearing the way for them.
//!
//! # Invariants
//! Every entry is made by a call that fails where the name is taken (`O_EXCL`, `mkdirat`, `symlinkat`, `mknodat`,
//! `linkat`), so nothing that stands in the target is ever written through. What is in the way is replaced by a rename,
//! once the new entry is there: it stays if that cannot be made. Only for a directory it is unlinked before. Both touch
//! the name alone: neither what a symlink points to nor the other names of a hard link.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::dir::Identity;
use super::metadata::{self, Before, Handle, PROTECTING};
use super::{Attribute, Metadata, MetadataFailure, Overwrite, TargetDir, TargetError};
use crate::source::sys;

/// Longest name of an entry in bytes.
const NAME_MAX: usize = 255;

/// How often a name is cleared before somebody else is assumed to fill it again and again.
const TRIES: usize = 4;

/// How many spare names are tried: earlier runs that were killed may have left some.
const SPARES: usize = 10_000;

/// A file, symlink or node made by this restore, to be given further names. Small, and holds no descriptor.
#[derive(Debug, Clone)]
pub struct LinkSource {
    dir: TargetDir,
    name: Box<[u8]>,
    identity: Identity,
}

impl LinkSource {
    pub(super) fn new(dir: &TargetDir, name: &[u8], identity: Identity) -> Self {
        Self { dir: dir.clone(), name: name.into(), identity }
    }
}

/// Accepts one plain component.
pub(super) fn check_name(dir: &TargetDir, name: &[u8]) -> Result<(), TargetError> {
    let plain = !matches!(name, b"" | b"." | b"..") && name.len() <= NAME_MAX;
    if plain && !name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Ok(());
    }
    Err(TargetError::UnsafeName { dir: dir.path(), name: name.to_vec() })
}

/// Makes an entry by `make`, which is given the directory and the name to make it under. What stands in its place is
/// replaced if that is wanted.
pub(super) fn place<T>(
    dir: &TargetDir,
    name: &[u8],
    action: &'static str,
    make: impl FnMut(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
) -> Result<T, TargetError> {
    let (made, spare) = place_beside(dir, name, action, make)?;
    if let Some(spare) = spare {
        replace(dir, dir.fd()?.as_fd(), &spare, name)?;
    }
    Ok(made)
}

/// What was made, and the spare name it has.
type Placed<T> = (T, Option<Box<[u8]>>);

/// Makes an entry by `make`; under a spare name, which is returned, if something that may be replaced stands in its
/// place.
pub(super) fn place_beside<T>(
    dir: &TargetDir,
    name: &[u8],
    action: &'static str,
    mut make: impl FnMut(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
) -> Result<Placed<T>, TargetError> {
    check_name(dir, name)?;
    let fd = dir.fd()?;
    for _ in 0..TRIES {
        match make(fd.as_fd(), name) {
            Err(Errno::EXIST) => {}
            Err(error) => return Err(explain(dir, fd.as_fd(), name, (action, error))),
            Ok(made) => return Ok((made, None)),
        }
        if stands(dir, fd.as_fd(), name)? {
            return make_spare(dir, name, action, make).map(|(made, spare)| (made, Some(spare)));
        }
    }
    Err(TargetError::Exists { path: dir.path_of(name) })
}

/// Makes an entry by `make` under a spare name, which is returned; `name` is what it shall have in the end.
pub(super) fn make_spare<T>(
    dir: &TargetDir,
    name: &[u8],
    action: &'static str,
    mut make: impl FnMut(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
) -> Result<(T, Box<[u8]>), TargetError> {
    let fd = dir.fd()?;
    for _ in 0..SPARES {
        let spare = dir.shared().spare_name();
        match make(fd.as_fd(), &spare) {
            Err(Errno::EXIST) => {}
            Err(error) => return Err(explain(dir, fd.as_fd(), name, (action, error))),
            Ok(made) => return Ok((made, spare)),
        }
    }
    Err(TargetError::Exists { path: dir.path_of(name) })
}

/// Makes an entry by `make`, after removing what stands in its place if that is wanted: a rename cannot put a directory
/// where something else stands.
pub(super) fn place_cleared<T>(
    dir: &TargetDir,
    name: &[u8],
    action: &'static str,
    mut make: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<T>,
) -> Result<T, TargetError> {
    check_name(dir, name)?;
    let fd = dir.fd()?;
    for _ in 0..TRIES {
        match make(fd.as_fd()) {
            Err(Errno::EXIST) => clear(dir, fd.as_fd(), name)?,
            Err(error) => return Err(explain(dir, fd.as_fd(), name, (action, error))),
            Ok(made) => return Ok(made),
        }
    }
    Err(TargetError::Exists { path: dir.path_of(name) })
}

/// Whether something stands there, which may be replaced then; false if it is gone by now.
fn stands(dir: &TargetDir, fd: BorrowedFd<'_>, name: &[u8]) -> Result<bool, TargetError> {
    if dir.shared().options.overwrite == Overwrite::Never {
        return Err(TargetError::Exists { path: dir.path_of(name) });
    }
    match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            Err(TargetError::IsDirectory { path: dir.path_of(name) })
        }
        Ok(_) if is_protected(fd, name, AtFlags::SYMLINK_NOFOLLOW) => {
            Err(TargetError::Immutable { path: dir.path_of(name) })
        }
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(TargetError::io("look at", dir.path_of(name), error)),
    }
}

/// Puts an entry that was made under a spare name in the place of what stands under `name`, in one step. If that is
/// refused, the new entry is removed and the old one stays.
pub(super) fn replace(
    dir: &TargetDir,
    fd: BorrowedFd<'_>,
    spare: &[u8],
    name: &[u8],
) -> Result<(), TargetError> {
    let Err(error) = rustix::fs::renameat(fd, spare, fd, name) else { return Ok(()) };
    let _ = rustix::fs::unlinkat(fd, spare, AtFlags::empty());
    Err(match error {
        Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY => TargetError::IsDirectory { path: dir.path_of(name) },
        error => explain(dir, fd, name, ("replace", error)),
    })
}

/// [`replace`], unless what has the spare name is another entry by now: that one is left alone, and the old one stays.
pub(super) fn replace_by(
    dir: &TargetDir,
    fd: BorrowedFd<'_>,
    (spare, identity): (&[u8], Identity),
    name: &[u8],
) -> Result<(), TargetError> {
    if identity_of(fd, spare) != Some(identity) {
        return Err(TargetError::Changed { path: dir.path_of(spare) });
    }
    replace(dir, fd, spare, name)
}

/// Removes an entry that is no directory.
fn clear(dir: &TargetDir, fd: BorrowedFd<'_>, name: &[u8]) -> Result<(), TargetError> {
    if dir.shared().options.overwrite == Overwrite::Never {
        return Err(TargetError::Exists { path: dir.path_of(name) });
    }
    match rustix::fs::unlinkat(fd, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(TargetError::IsDirectory { path: dir.path_of(name) }),
        Err(error) => Err(explain(dir, fd, name, ("replace", error))),
    }
}

/// Tells an immutable entry or directory, which even root may not change, from other refusals.
pub(super) fn explain(
    dir: &TargetDir,
    fd: BorrowedFd<'_>,
    name: &[u8],
    (action, error): (&'static str, Errno),
) -> TargetError {
    if matches!(error, Errno::PERM | Errno::ACCESS) {
        if is_protected(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            return TargetError::Immutable { path: dir.path_of(name) };
        }
        if is_protected(fd, b"", AtFlags::EMPTY_PATH) {
            return TargetError::Immutable { path: dir.path() };
        }
    }
    TargetError::io(action, dir.path_of(name), error)
}

/// Whether the flag immutable or append-only stands on an entry.
fn is_protected(fd: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> bool {
    let protecting = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
    let stat = rustix::fs::statx(fd, name, flags, StatxFlags::TYPE);
    stat.is_ok_and(|stat| stat.stx_attributes.intersects(protecting))
}

/// Takes hold of an entry that was just made and must not be opened, and sets its metadata.
pub(super) fn dress(
    dir: &TargetDir,
    name: &[u8],
    (kind, rdev): (FileType, u64),
    metadata: &Metadata<'_>,
) -> Result<Vec<MetadataFailure>, TargetError> {
    let fd = dir.fd()?;
    let (entry, stat) = match reference(fd.as_fd(), name) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Err(TargetError::Changed { path: dir.path_of(name) }),
        Err(error) => return Ok(vec![MetadataFailure::new(Attribute::All, error)]),
    };
    if FileType::from_raw_mode(stat.st_mode) != kind || (is_device(kind) && stat.st_rdev != rdev) {
        return Err(TargetError::Changed { path: dir.path_of(name) });
    }
    let symlink = kind == FileType::Symlink;
    let before = Before::new_entry(super::dir::Inherited {
        owner: Some((stat.st_uid, stat.st_gid)),
        acl: dir.inherited().acl && !symlink,
    });
    let handle = Handle::Reference { fd: entry.as_fd(), symlink };
    Ok(metadata::apply(dir.shared(), handle, before, metadata))
}

/// Keeps a symlink (`text` is what it must say) or node that stands as the snapshot has it, and sets its metadata if that
/// is not right. `None` if another one stands there, or one with further names.
pub(super) fn keep(
    dir: &TargetDir,
    name: &[u8],
    (kind, rdev, text): (FileType, u64, &[u8]),
    metadata: &Metadata<'_>,
) -> Result<Option<Vec<MetadataFailure>>, TargetError> {
    check_name(dir, name)?;
    let fd = dir.fd()?;
    let Ok((entry, stat)) = reference(fd.as_fd(), name) else { return Ok(None) };
    let same = match kind {
        _ if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_nlink != 1 => false,
        FileType::Symlink => sys::file::read_link(&entry, b"").is_ok_and(|found| found == text),
        _ => !is_device(kind) || stat.st_rdev == rdev,
    };
    if !same {
        return Ok(None);
    }
    if metadata.xattrs.is_empty() && super::dress::agrees(dir.shared(), &stat, metadata) {
        return Ok(Some(Vec::new()));
    }
    dress(dir, name, (kind, rdev), metadata).map(Some)
}

pub(super) fn is_device(kind: FileType) -> bool {
    matches!(kind, FileType::CharacterDevice | FileType::BlockDevice)
}

/// Refers to an entry without opening it: no device is touched, no FIFO blocks, no link is followed.
pub(super) fn reference(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<(OwnedFd, Stat)> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    Ok((fd, stat))
}

/// Gives `source` a further name, and makes sure that it is `source` which got it. What could not be set again is
/// returned.
pub(super) fn link(
    dir: &TargetDir,
    name: &[u8],
    source: &LinkSource,
) -> Result<Vec<MetadataFailure>, TargetError> {
    check_name(dir, name)?;
    let fd = dir.fd()?;
    // A name that is a link to it already must not be cleared: it could be the only one.
    if identity_of(fd.as_fd(), name) == Some(source.identity) {
        return Ok(Vec::new());
    }
    let from = source.dir.fd()?;
    let changed = || TargetError::Changed { path: source.dir.path_of(&source.name) };
    let put = || {
        let (_, spare) = place_beside(dir, name, "link", |fd, name| {
            rustix::fs::linkat(&from, &*source.name, fd, name, AtFlags::empty())
        })?;
        let Some(spare) = spare else { return Ok(()) };
        if identity_of(fd.as_fd(), &spare) == Some(source.identity) {
            return replace(dir, fd.as_fd(), &spare, name);
        }
        remove_wrong(dir, fd.as_fd(), &spare).and(Err(changed()))
    };
    let (placed, unset) = match put() {
        Err(error) if errno(&error) == Some(Errno::PERM) => {
            unprotected(from.as_fd(), source, put).unwrap_or((Err(error), None))
        }
        done => (done, None),
    };
    placed.map_err(|error| if errno(&error) == Some(Errno::NOENT) { changed() } else { error })?;
    if identity_of(fd.as_fd(), name) == Some(source.identity) {
        return Ok(Vec::from_iter(unset));
    }
    remove_wrong(dir, fd.as_fd(), name).and(Err(changed()))
}

/// Removes the new name of something that had taken the source's name; what it names stays untouched.
fn remove_wrong(dir: &TargetDir, fd: BorrowedFd<'_>, name: &[u8]) -> Result<(), TargetError> {
    match rustix::fs::unlinkat(fd, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(explain(dir, fd, name, ("remove", error))),
    }
}

pub(super) fn identity_of(dir: BorrowedFd<'_>, name: &[u8]) -> Option<Identity> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| Identity::of(&stat))
}

fn errno(error: &TargetError) -> Option<Errno> {
    match error {
        TargetError::Io { source, .. } => Errno::from_io_error(source),
        _ => None,
    }
}

/// How a link was made while its source was not protected, and what kept the source from being protected again.
type Unprotected = (Result<(), TargetError>, Option<MetadataFailure>);

/// The first name may have been finished as immutable, which forbids further ones: lifts that for the moment. `None` if
/// that is not so.
pub(super) fn unprotected(
    dir: BorrowedFd<'_>,
    source: &LinkSource,
    make: impl FnOnce() -> Result<(), TargetError>,
) -> Option<Unprotected> {
    let (_, stat) = reference(dir, &source.name).ok()?;
    if Identity::of(&stat) != source.identity
        || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
    {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, &*source.name, flags, Mode::empty()).ok()?;
    if Identity::of(&rustix::fs::fstat(&file).ok()?) != source.identity {
        return None;
    }
    let protected = rustix::fs::ioctl_getflags(&file).ok()?;
    if !protected.intersects(PROTECTING) {
        return None;
    }
    rustix::fs::ioctl_setflags(&file, protected - PROTECTING).ok()?;
    let made = make();
    let again = rustix::fs::ioctl_setflags(&file, protected);
    Some((made, again.err().map(|error| MetadataFailure::new(Attribute::Flags, error))))
}
