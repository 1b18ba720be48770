//! Setting everything about an entry except its content, in the one order that works.
//!
//! Plain extended attributes come first, while the entry is still ours and writable. Then the owner, which clears
//! set-id bits and capabilities; then access control lists, which change the mode; then the mode, exactly; then what
//! an owner or mode change would drop (capabilities, integrity records); then the times; at last the flags, because
//! an immutable entry takes nothing more.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, CWD, IFlags, Mode, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::dir::Inherited;
use super::{Attribute, MetadataFailure, Shared, dress};

/// What an entry is to look like, beside its content. Times are seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Default)]
pub struct Metadata<'a> {
    /// Permission and set-id bits; higher bits are ignored. A symlink has none.
    pub mode: u32,
    /// Owner by number.
    pub uid: u32,
    /// Group by number.
    pub gid: u32,
    /// Owner by name.
    pub user: Option<&'a [u8]>,
    /// Group by name.
    pub group: Option<&'a [u8]>,
    /// When the content last changed.
    pub mtime: (i64, u32),
    /// When the content was last read; left to the system if absent.
    pub atime: Option<(i64, u32)>,
    /// Extended attributes by full name, access control lists and capabilities among them.
    pub xattrs: Vec<(&'a [u8], &'a [u8])>,
    /// Flags as `FS_IOC_GETFLAGS` gives them; bits that cannot be set are ignored.
    pub flags: u32,
}

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
pub(super) const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// What `chattr` may set: s u c S i a d A, j t, D T, C.
pub(super) const SETTABLE: u32 = 0xff | 0x4000 | 0x8000 | 0x1_0000 | 0x2_0000 | 0x80_0000;

/// The flags that protect an entry against every change.
pub(super) const PROTECTING: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// How an entry is reached. Never by its path, so nobody can slip another entry underneath.
#[derive(Debug, Clone, Copy)]
pub(super) enum Handle<'a> {
    /// Open for reading or writing: a file or a directory.
    Open(BorrowedFd<'a>),
    /// A mere reference (`O_PATH`): a symlink, or a node that must not be opened. The system has calls for these only
    /// by way of `/proc`.
    Reference { fd: BorrowedFd<'a>, symlink: bool },
}

/// What the entry has before anything is set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    pub(super) inherited: Inherited,
    /// Access control lists that the snapshot does not have may stand on the entry.
    pub(super) stray_acl: bool,
    /// So may other extended attributes.
    pub(super) stray_xattrs: bool,
    pub(super) directory: bool,
}

impl Before {
    /// For an entry that was just made in a directory that passes this on.
    pub(super) fn new_entry(inherited: Inherited) -> Self {
        Self { inherited, stray_acl: inherited.acl, stray_xattrs: false, directory: false }
    }
}

/// Sets all of it; what fails is returned and stops nothing.
pub(super) fn apply(
    shared: &Shared,
    handle: Handle<'_>,
    before: Before,
    metadata: &Metadata<'_>,
) -> Vec<MetadataFailure> {
    let mut failures = apply_without_flags(shared, handle, before, metadata);
    apply_flags(handle, metadata, &mut failures);
    failures
}

/// Sets all of it but the flags, for an entry that must still be renamed: [`apply_flags`] comes after that.
pub(super) fn apply_without_flags(
    shared: &Shared,
    handle: Handle<'_>,
    before: Before,
    metadata: &Metadata<'_>,
) -> Vec<MetadataFailure> {
    let mut failures = Vec::new();
    let xattrs = if shared.options.xattrs { &metadata.xattrs[..] } else { &[] };
    if let (Handle::Open(fd), true) = (handle, shared.options.xattrs && before.stray_xattrs) {
        dress::remove_strays(fd, xattrs, &mut failures);
    }
    set_xattrs(handle, xattrs, Stage::BeforeOwner, &mut failures);
    let kept = set_owner(shared, handle, before.inherited.owner, metadata, &mut failures);
    set_xattrs(handle, xattrs, Stage::BeforeMode, &mut failures);
    if shared.options.xattrs && before.stray_acl {
        remove_stray_acls(handle, before, xattrs, &mut failures);
    }
    set_mode(handle, metadata.mode & 0o7777, kept, &mut failures);
    set_xattrs(handle, xattrs, Stage::AfterMode, &mut failures);
    if let Err(error) = set_times(handle, metadata) {
        failures.push(MetadataFailure::new(Attribute::Times, error));
    }
    failures
}

/// Sets the flags, which comes last: an immutable entry takes nothing more.
pub(super) fn apply_flags(handle: Handle<'_>, metadata: &Metadata<'_>, failures: &mut Vec<MetadataFailure>) {
    set_flags(handle, metadata.flags & SETTABLE, failures);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    BeforeOwner,
    BeforeMode,
    AfterMode,
}

fn stage(name: &[u8]) -> Stage {
    match name {
        ACL_ACCESS | ACL_DEFAULT => Stage::BeforeMode,
        b"security.capability" | b"security.ima" | b"security.evm" => Stage::AfterMode,
        // Other kinds of access control lists, which a later change of mode would rewrite.
        _ if name.starts_with(b"system.") => Stage::AfterMode,
        _ => Stage::BeforeOwner,
    }
}

fn set_xattrs(
    handle: Handle<'_>,
    xattrs: &[(&[u8], &[u8])],
    now: Stage,
    failures: &mut Vec<MetadataFailure>,
) {
    for &(name, value) in xattrs.iter().filter(|(name, _)| stage(name) == now) {
        let done = match handle {
            Handle::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Handle::Reference { fd, .. } => rustix::fs::setxattr(proc(fd), name, value, XattrFlags::empty()),
        };
        if let Err(error) = done {
            failures.push(MetadataFailure::new(Attribute::Xattr(name.to_vec()), error));
        }
    }
}

/// A list that came from the directory, or stood there before, would grant what the snapshot does not.
fn remove_stray_acls(
    handle: Handle<'_>,
    before: Before,
    xattrs: &[(&[u8], &[u8])],
    failures: &mut Vec<MetadataFailure>,
) {
    let lists = if before.directory { &[ACL_ACCESS, ACL_DEFAULT][..] } else { &[ACL_ACCESS][..] };
    for &list in lists.iter().filter(|list| !xattrs.iter().any(|(name, _)| name == *list)) {
        let (done, there) = match handle {
            Handle::Open(fd) => {
                (rustix::fs::fremovexattr(fd, list), rustix::fs::fgetxattr(fd, list, &mut [0; 0]))
            }
            Handle::Reference { fd, .. } => {
                (rustix::fs::removexattr(proc(fd), list), rustix::fs::getxattr(proc(fd), list, &mut [0; 0]))
            }
        };
        // A refusal to remove what is not there is no loss.
        if let (Err(error), Ok(_)) = (done, there) {
            failures.push(MetadataFailure::new(Attribute::Xattr(list.to_vec()), error));
        }
    }
}

/// Removes what a new directory was handed down by its parent.
pub(super) fn remove_acls(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    [ACL_DEFAULT, ACL_ACCESS].into_iter().try_for_each(|list| match rustix::fs::fremovexattr(dir, list) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        done => done,
    })
}

/// The set-id bits that the owner and group of the entry justify.
type SetIds = u32;

/// Returns which set-id bits may be set: a set-user-id program must never end up with another owner.
fn set_owner(
    shared: &Shared,
    handle: Handle<'_>,
    current: Option<(u32, u32)>,
    metadata: &Metadata<'_>,
    failures: &mut Vec<MetadataFailure>,
) -> SetIds {
    let Some((uid, gid)) = shared.owners.wanted(shared.options.owner, metadata) else {
        let (uid, gid) = current.unwrap_or((u32::MAX, u32::MAX));
        return set_ids(uid == metadata.uid, gid == metadata.gid);
    };
    let need_user = current.is_none_or(|(current, _)| current != uid);
    let need_group = current.is_none_or(|(_, current)| current != gid);
    if !need_user && !need_group {
        return SET_UID | SET_GID;
    }
    let both = chown(handle, need_user.then_some(uid), need_group.then_some(gid));
    let Err(error) = both else { return SET_UID | SET_GID };
    // An ordinary user may still give an entry to one of their groups.
    let group = match need_user && need_group {
        true => chown(handle, None, Some(gid)),
        false if need_group => Err(error),
        false => Ok(()),
    };
    if need_user {
        failures.push(MetadataFailure::new(Attribute::User, error));
    }
    let group_set = group.is_ok();
    if let Err(error) = group {
        failures.push(MetadataFailure::new(Attribute::Group, error));
    }
    set_ids(!need_user, group_set)
}

fn set_ids(user: bool, group: bool) -> SetIds {
    (if user { SET_UID } else { 0 }) | (if group { SET_GID } else { 0 })
}

fn chown(handle: Handle<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    // All ones means "leave it" to the system.
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        return Err(Errno::INVAL);
    }
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    match handle {
        Handle::Open(fd) => rustix::fs::fchown(fd, uid, gid),
        Handle::Reference { fd, .. } => rustix::fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH),
    }
}

fn set_mode(handle: Handle<'_>, wanted: u32, justified: SetIds, failures: &mut Vec<MetadataFailure>) {
    let mode = wanted & (0o1777 | justified);
    let (fd, done) = match handle {
        Handle::Reference { symlink: true, .. } => return,
        Handle::Open(fd) => (fd, rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))),
        Handle::Reference { fd, .. } => (fd, rustix::fs::chmod(proc(fd), Mode::from_raw_mode(mode))),
    };
    if let Err(error) = done {
        failures.push(MetadataFailure::new(Attribute::Mode, error));
    } else if mode != wanted {
        failures.push(MetadataFailure::new(Attribute::Mode, Errno::PERM));
    } else if mode & (SET_UID | SET_GID) != 0 {
        // The system drops set-group-id without a word where the group is not one of ours.
        match rustix::fs::fstat(fd) {
            Ok(stat) if stat.st_mode & 0o7777 == mode => {}
            Ok(_) => failures.push(MetadataFailure::new(Attribute::Mode, Errno::PERM)),
            Err(error) => failures.push(MetadataFailure::new(Attribute::Mode, error)),
        }
    }
}

fn set_times(handle: Handle<'_>, metadata: &Metadata<'_>) -> Result<(), Errno> {
    // Larger values have other meanings ("now", "leave it").
    let time = |(seconds, nanos): (i64, u32)| match nanos {
        0..1_000_000_000 => Ok(Timespec { tv_sec: seconds, tv_nsec: nanos.into() }),
        _ => Err(Errno::INVAL),
    };
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let times = Timestamps {
        last_access: metadata.atime.map_or(Ok(omit), time)?,
        last_modification: time(metadata.mtime)?,
    };
    match handle {
        Handle::Open(fd) => rustix::fs::futimens(fd, &times),
        Handle::Reference { fd, .. } => {
            match rustix::fs::utimensat(fd, c"", &times, AtFlags::EMPTY_PATH) {
                // Before Linux 5.8.
                Err(Errno::INVAL | Errno::BADF) => {
                    rustix::fs::utimensat(CWD, proc(fd), &times, AtFlags::empty())
                }
                done => done,
            }
        }
    }
}

fn set_flags(handle: Handle<'_>, wanted: u32, failures: &mut Vec<MetadataFailure>) {
    let Handle::Open(fd) = handle else { return };
    if wanted == 0 {
        return;
    }
    let done = try_flags(fd, wanted).or_else(|first| {
        // One flag that this file system or this user cannot set must not cost the others; the protecting ones last.
        let protecting = PROTECTING.bits();
        let bits = |mask: u32| (0..32).map(|bit| 1 << bit).filter(move |bit| wanted & mask & bit != 0);
        let failed =
            bits(!protecting).chain(bits(protecting)).filter(|&bit| try_flags(fd, bit).is_err()).count();
        if failed == 0 { Ok(()) } else { Err(first) }
    });
    if let Err(error) = done {
        failures.push(MetadataFailure::new(Attribute::Flags, error));
    }
}

/// Adds flags, and makes sure that they stay: some file systems ignore what they do not know.
fn try_flags(fd: BorrowedFd<'_>, wanted: u32) -> Result<(), Errno> {
    let current = rustix::fs::ioctl_getflags(fd)?;
    let all = current | IFlags::from_bits_retain(wanted);
    if all != current {
        rustix::fs::ioctl_setflags(fd, all)?;
        if !rustix::fs::ioctl_getflags(fd)?.contains(IFlags::from_bits_retain(wanted)) {
            return Err(Errno::OPNOTSUPP);
        }
    }
    Ok(())
}

/// The way to the entry itself, whatever its name points to by now.
fn proc(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Gives the owner full access to a directory that was found without it.
pub(super) fn make_usable(reference: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::chmod(proc(reference), Mode::from_raw_mode(mode & 0o7777 | 0o700))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attribute_has_its_place() {
        for (name, wanted) in [
            (&b"user.comment"[..], Stage::BeforeOwner),
            (b"trusted.x", Stage::BeforeOwner),
            (b"security.selinux", Stage::BeforeOwner),
            (b"system.posix_acl_access", Stage::BeforeMode),
            (b"system.posix_acl_default", Stage::BeforeMode),
            (b"system.nfs4_acl", Stage::AfterMode),
            (b"security.capability", Stage::AfterMode),
        ] {
            assert!(stage(name) == wanted, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn only_what_chattr_sets_is_settable() {
        const EXTENTS: u32 = 0x8_0000;
        const ENCRYPTED: u32 = 0x800;
        const VERITY: u32 = 0x10_0000;
        assert_eq!(SETTABLE & (EXTENTS | ENCRYPTED | VERITY), 0);
        assert_eq!(IFlags::from_bits_retain(SETTABLE) & PROTECTING, PROTECTING);
    }
}
