//! What an entry that stood before looks like already: whether anything has to be set, and what the snapshot does not have.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, IFlags, Stat};
use rustix::io::Errno;

use super::metadata::{ACL_ACCESS, ACL_DEFAULT, SETTABLE};
use super::{Attribute, Metadata, MetadataFailure, OwnerPolicy, Shared};
use crate::source::sys::xattr::Holder;

/// Whether an open file or directory looks as the snapshot wants it already, so that it need not be touched. The time of
/// the last read does not count: reading changes it.
pub(super) fn is_set(shared: &Shared, fd: BorrowedFd<'_>, stat: &Stat, metadata: &Metadata<'_>) -> bool {
    let flags = metadata.flags & SETTABLE;
    agrees(shared, stat, metadata)
        && (!shared.options.xattrs || has_xattrs(fd, metadata))
        && (flags == 0
            || rustix::fs::ioctl_getflags(fd).is_ok_and(|set| set.contains(IFlags::from_bits_retain(flags))))
}

/// Whether mode, owner and time of an entry are those wanted. A symlink has no mode.
pub(super) fn agrees(shared: &Shared, stat: &Stat, metadata: &Metadata<'_>) -> bool {
    let symlink = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    let owned = match shared.owners.wanted(shared.options.owner, metadata) {
        Some(wanted) => wanted == (stat.st_uid, stat.st_gid),
        None => shared.options.owner == OwnerPolicy::Skip,
    };
    owned && (symlink || stat.st_mode & 0o7777 == metadata.mode & 0o7777) && mtime(stat) == metadata.mtime
}

/// When the content last changed.
pub(super) fn mtime(stat: &Stat) -> (i64, u32) {
    // Nanoseconds are below a thousand million; their type differs between architectures.
    (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(u32::MAX))
}

/// Attributes that belong to the content. Others, such as labels, come from the system.
fn is_ours(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || matches!(name, b"security.capability" | ACL_ACCESS | ACL_DEFAULT)
}

fn names(fd: BorrowedFd<'_>) -> std::io::Result<Vec<CString>> {
    let mut buffer = Vec::new();
    Holder::open(&fd).names(&mut buffer)?;
    let names = buffer.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.filter_map(|name| CString::new(name).ok()).collect())
}

fn has_xattrs(fd: BorrowedFd<'_>, metadata: &Metadata<'_>) -> bool {
    let Ok(names) = names(fd) else { return false };
    let is_wanted = |name: &[u8]| metadata.xattrs.iter().any(|(wanted, _)| *wanted == name);
    if names.iter().any(|name| is_ours(name.to_bytes()) && !is_wanted(name.to_bytes())) {
        return false;
    }
    let mut value = Vec::new();
    metadata.xattrs.iter().all(|(name, wanted)| {
        let Ok(name) = CString::new(*name) else { return false };
        matches!(Holder::open(&fd).value(&name, &mut value), Ok(Some(()))) && value == *wanted
    })
}

/// Removes attributes that the snapshot does not have. Access control lists are removed where the mode is set.
pub(super) fn remove_strays(
    fd: BorrowedFd<'_>,
    wanted: &[(&[u8], &[u8])],
    failures: &mut Vec<MetadataFailure>,
) {
    let Ok(names) = names(fd) else { return };
    for name in names {
        let bytes = name.to_bytes();
        let stray = is_ours(bytes)
            && !matches!(bytes, ACL_ACCESS | ACL_DEFAULT)
            && !wanted.iter().any(|(wanted, _)| *wanted == bytes);
        if !stray {
            continue;
        }
        match rustix::fs::fremovexattr(fd, &*name) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(error) => failures.push(MetadataFailure::new(Attribute::Xattr(bytes.to_vec()), error)),
        }
    }
}
