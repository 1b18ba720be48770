//! Directories: opening them without being led astray, and listing them.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, RawDir};
use rustix::io::{Errno, retry_on_intr};

/// Device and inode of an open descriptor, by the cheapest call there is.
pub(crate) fn identity(fd: impl AsFd) -> io::Result<(u64, u64)> {
    let stat = retry_on_intr(|| rustix::fs::fstat(&fd))?;
    #[allow(clippy::useless_conversion, reason = "the widths differ between architectures")]
    Ok((u64::from(stat.st_dev), u64::from(stat.st_ino)))
}

/// Opens the root of the file system.
pub(crate) fn open_root() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(retry_on_intr(|| rustix::fs::openat(CWD, c"/", flags, Mode::empty()))?)
}

/// Opens a directory for listing. A symbolic link is an error unless `follow`. The access time is left alone where the
/// system lets us.
pub(crate) fn open_dir(parent: impl AsFd, name: &[u8], follow: bool) -> io::Result<OwnedFd> {
    let mut flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    super::file::open_untouched(parent, name, flags)
}

/// The type of the file system on which an entry stands; neither opens nor mounts anything.
pub(crate) fn file_system_type(parent: impl AsFd, name: &[u8]) -> io::Result<u64> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = retry_on_intr(|| rustix::fs::openat(&parent, name, flags, Mode::empty()))?;
    let stat = retry_on_intr(|| rustix::fs::fstatfs(&fd))?;
    // Magic numbers have 32 bits; the field is signed on some architectures.
    #[allow(clippy::cast_sign_loss, reason = "see above")]
    Ok(u64::from(stat.f_type as u32))
}

/// Calls `each` with every name but `.` and `..`, in the order of the file system. What was read before an error has
/// been passed on.
pub(crate) fn list(
    fd: impl AsFd,
    buffer: &mut [MaybeUninit<u8>],
    mut each: impl FnMut(&CStr),
) -> io::Result<()> {
    let mut entries = RawDir::new(fd, buffer);
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) => {
                let name = entry.file_name();
                if !matches!(name.to_bytes(), b"." | b"..") {
                    each(name);
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// File systems that show the state of the kernel: nothing in them can be restored, and reading some of it has effects.
pub(crate) fn is_pseudo(magic: u64) -> bool {
    const AUTOFS: u64 = 0x0187;
    const BINDER: u64 = 0x6c6f_6f70;
    const BINFMT: u64 = 0x4249_4e4d;
    const BPF: u64 = 0xcafe_4a11;
    const CGROUP: u64 = 0x0027_e0eb;
    const CGROUP2: u64 = 0x6367_7270;
    const CONFIG: u64 = 0x6265_6570;
    const DEBUG: u64 = 0x6462_6720;
    const DEVPTS: u64 = 0x1cd1;
    const EFIVAR: u64 = 0xde5e_81e4;
    const FUSE_CONTROL: u64 = 0x6573_5543;
    const HUGETLB: u64 = 0x9584_58f6;
    const MQUEUE: u64 = 0x1980_0202;
    const NFSD: u64 = 0x6e66_7364;
    const NSFS: u64 = 0x6e73_6673;
    const PROC: u64 = 0x9fa0;
    const PSTORE: u64 = 0x6165_676c;
    const RESCTRL: u64 = 0x0765_5821;
    const RPC_PIPE: u64 = 0x6759_6969;
    const SECURITY: u64 = 0x7363_6673;
    const SELINUX: u64 = 0xf97c_ff8c;
    const SMACK: u64 = 0x4341_5d53;
    const SYSFS: u64 = 0x6265_6572;
    const TRACE: u64 = 0x7472_6163;
    const XEN: u64 = 0xabba_1974;
    matches!(
        magic,
        AUTOFS
            | BINDER
            | BINFMT
            | BPF
            | CGROUP
            | CGROUP2
            | CONFIG
            | DEBUG
            | DEVPTS
            | EFIVAR
            | FUSE_CONTROL
            | HUGETLB
            | MQUEUE
            | NFSD
            | NSFS
            | PROC
            | PSTORE
            | RESCTRL
            | RPC_PIPE
            | SECURITY
            | SELINUX
            | SMACK
            | SYSFS
            | TRACE
            | XEN
    )
}
