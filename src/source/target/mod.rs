//! The place a restore writes to.
//!
//! # Invariants
//! Nothing is ever written outside the target directory, whatever names and links a hostile repository brings and
//! whatever stands in the target already. Three rules make it so: a name is one plain component; a directory is
//! reached only through open descriptors of its parents, never through a link, and is the same inode as before; an
//! entry is made only where its name is free. No path is ever handed to the system, except that of the target itself,
//! so paths may be longer than the system's limit.
//!
//! Until its metadata is set, an entry belongs to the process and is open to nobody else: 0700 for a directory, 0600
//! for the rest. Set-id bits are left out when the owner they would act for could not be set.
//!
//! What stands in the target goes only when what replaces it is complete, except where a directory belongs, and except
//! for a file that is written in place because the user asked for that ([`Target::open_standing`]).
//!
//! # Crash
//! Entries are written under their final names where these are free, so a half-written file may stand, with mode 0600 and
//! without metadata. What is to replace something has a spare name (`.lifeboat-…`) until it is complete; a run that is
//! killed leaves it behind. A file that is written in place is partly old and partly new until it is finished, and has
//! mode 0600 as long.
//!
//! # Must not
//! Remove a directory unless that is asked for by [`Target::remove`], follow a symlink, or let the content of an existing
//! file shine through where nobody compared it. Somebody who may write to the target while a restore runs can move a
//! directory elsewhere with everything that is still written to it; they cannot make the restore enter or change anything
//! of theirs that it did not enter before. That the directory is gone from its place is reported in the end.

mod device;
mod dir;
mod dress;
mod entry;
mod error;
mod file;
mod metadata;
mod owner;
mod remove;
mod standing;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, StatVfsMountFlags};
use rustix::io::Errno;

pub use device::TargetDevice;
pub use dir::TargetDir;
pub use entry::LinkSource;
pub use error::{Attribute, MetadataFailure, TargetError};
pub use file::TargetFile;
pub use metadata::Metadata;
pub use owner::OwnerPolicy;
pub use remove::{Listed, Removal};
pub use standing::Stands;

use dir::{Descriptors, Found, Identity};
use metadata::{Before, Handle};
use owner::Owners;

/// What happens where an entry stands already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// It is replaced, unless it is a directory.
    #[default]
    Always,
    /// It is replaced unless type, size and time of its last change say that it is the same already. Asked for by
    /// whoever looks first ([`Target::look`]); here it is as [`Overwrite::Always`].
    IfChanged,
    /// It is replaced if the entry of the snapshot was changed later. Asked for by whoever looks first, as well.
    IfNewer,
    /// It stays, and the restored entry fails with [`TargetError::Exists`]. Directories are entered all the same.
    Never,
}

/// How a target is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetOptions {
    /// Owners and groups.
    pub owner: OwnerPolicy,
    /// Existing entries.
    pub overwrite: Overwrite,
    /// Whether extended attributes are set, access control lists and capabilities included.
    pub xattrs: bool,
    /// Unfinished files are left for the next run where nothing stood.
    pub resume: bool,
    /// Nothing is made or changed, the modes of directories included.
    pub read_only: bool,
}

impl Default for TargetOptions {
    fn default() -> Self {
        Self {
            owner: OwnerPolicy::Names,
            overwrite: Overwrite::Always,
            xattrs: true,
            resume: false,
            read_only: false,
        }
    }
}

impl TargetOptions {
    /// Whether metadata that is right already is not set again.
    fn compares(&self) -> bool {
        self.resume || self.overwrite != Overwrite::Always
    }
}

/// An entry without content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device, with its number as `stat` gives it.
    CharDevice(u64),
    /// A block device, with its number as `stat` gives it.
    BlockDevice(u64),
}

impl NodeKind {
    /// As the system says it, with the number of a device.
    fn system(self) -> (FileType, u64) {
        match self {
            Self::Fifo => (FileType::Fifo, 0),
            Self::Socket => (FileType::Socket, 0),
            Self::CharDevice(rdev) => (FileType::CharacterDevice, rdev),
            Self::BlockDevice(rdev) => (FileType::BlockDevice, rdev),
        }
    }
}

/// A directory that a restore writes into. May be used from several threads at once.
#[derive(Debug)]
pub struct Target {
    root: TargetDir,
}

/// What every directory of a target shares.
#[derive(Debug)]
struct Shared {
    options: TargetOptions,
    /// User and group of what this process makes.
    creator: (u32, u32),
    owners: Owners,
    descriptors: Descriptors,
    mounts: Mutex<Mounts>,
    /// Spare names that were given out.
    spares: AtomicU64,
}

impl Shared {
    /// A name that no other entry of this restore has. Something else may have it.
    fn spare_name(&self) -> Box<[u8]> {
        let number = self.spares.fetch_add(1, Ordering::Relaxed);
        format!(".lifeboat-{}-{number}", std::process::id()).into_bytes().into()
    }
}

/// The further file systems that were entered, for [`Target::sync`].
#[derive(Debug, Default)]
struct Mounts {
    /// One open directory for each device number.
    open: HashMap<u64, OwnedFd>,
    /// There were too many to keep open.
    more: bool,
}

/// Subvolumes look like file systems, and there may be thousands.
const MOUNTS_MAX: usize = 64;

impl Target {
    /// Opens the directory, and makes it and its parents (mode 0700) if they are missing. Links in this path are the
    /// user's own, and are followed.
    pub fn open(dir: &Path, options: TargetOptions) -> Result<Self, TargetError> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 16);
        // A quarter: files being written, the repository and its store need the rest.
        let bound = usize::try_from(limit / 4).unwrap_or(usize::MAX).clamp(16, 512);
        Self::open_bounded(dir, options, bound)
    }

    fn open_bounded(dir: &Path, options: TargetOptions, bound: usize) -> Result<Self, TargetError> {
        let failed =
            |action: &'static str, error: io::Error| TargetError::io(action, dir.to_path_buf(), error);
        if !options.read_only {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(|e| failed("create the directory", e))?;
        }
        let flags = dir::OPEN_DIR.difference(OFlags::NOFOLLOW);
        let fd = rustix::fs::open(dir, flags, Mode::empty())
            .map_err(|e| failed("open the directory", e.into()))?;
        let creator = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let (found, _) = dir::look(fd, false, creator).map_err(|e| failed("look at", e.into()))?;
        let shared = Arc::new(Shared {
            options,
            creator,
            owners: Owners::default(),
            descriptors: Descriptors::new(bound),
            mounts: Mutex::default(),
            spares: AtomicU64::new(0),
        });
        Ok(Self { root: TargetDir::root(shared, dir.as_os_str().as_bytes(), found) })
    }

    /// The target directory itself.
    pub fn root(&self) -> TargetDir {
        self.root.clone()
    }

    /// Makes a directory, or enters the one that stands there.
    pub fn make_dir(&self, parent: &TargetDir, name: &[u8]) -> Result<TargetDir, TargetError> {
        entry::check_name(parent, name)?;
        let dir = parent.fd()?;
        let mut fresh = true;
        match rustix::fs::mkdirat(&dir, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => fresh = false,
            Err(error) => {
                return Err(entry::explain(parent, dir.as_fd(), name, ("create the directory", error)));
            }
        }
        let found = match open_dir(parent, &dir, name, fresh) {
            // Something that is no directory, or was none and is gone already.
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) if !fresh => {
                let made = entry::place_cleared(parent, name, "create the directory", |fd| {
                    rustix::fs::mkdirat(fd, name, Mode::RWXU)
                });
                fresh = match made {
                    Ok(()) => true,
                    // Another thread was faster.
                    Err(TargetError::IsDirectory { .. }) => false,
                    Err(error) => return Err(error),
                };
                open_dir(parent, &dir, name, fresh)
            }
            done => done,
        };
        let found = found.map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP | Errno::NOENT => TargetError::Changed { path: parent.path_of(name) },
            other => TargetError::io("open the directory", parent.path_of(name), other),
        })?;
        self.remember_mount(parent, &found)?;
        Ok(parent.child(name, found))
    }

    /// Enters a directory that stands; `None` if none does.
    pub fn enter_dir(&self, parent: &TargetDir, name: &[u8]) -> Result<Option<TargetDir>, TargetError> {
        entry::check_name(parent, name)?;
        let dir = parent.fd()?;
        let found = match open_dir(parent, &dir, name, false) {
            Ok(found) => found,
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Ok(None),
            Err(error) => return Err(TargetError::io("open the directory", parent.path_of(name), error)),
        };
        self.remember_mount(parent, &found)?;
        Ok(Some(parent.child(name, found)))
    }

    /// Makes a regular file that will be `len` bytes long, open for nobody else until it is finished. What stands in its
    /// place is replaced only then.
    pub fn create_file(&self, parent: &TargetDir, name: &[u8], len: u64) -> Result<TargetFile, TargetError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let make = |dir: BorrowedFd<'_>, name: &[u8]| rustix::fs::openat(dir, name, flags, mode);
        let made = match parent.shared().options.overwrite {
            // An unfinished file would be newer than the snapshot's, and stay for ever.
            Overwrite::IfNewer => {
                entry::check_name(parent, name)?;
                let (made, spare) = entry::make_spare(parent, name, "create", make)?;
                (made, Some(spare))
            }
            _ => entry::place_beside(parent, name, "create", make)?,
        };
        Ok(TargetFile::new(made, parent, name, len))
    }

    /// Makes a symlink with any target; it is never followed.
    pub fn symlink(
        &self,
        parent: &TargetDir,
        name: &[u8],
        target: &[u8],
        metadata: &Metadata<'_>,
    ) -> Result<Vec<MetadataFailure>, TargetError> {
        entry::place(parent, name, "create the symlink", |dir, name| {
            rustix::fs::symlinkat(target, dir, name)
        })?;
        entry::dress(parent, name, (FileType::Symlink, 0), metadata)
    }

    /// Makes a pipe, a socket or a device. A device that an ordinary user may not make is a failure with
    /// [`Attribute::Device`], and nothing is made.
    pub fn make_node(
        &self,
        parent: &TargetDir,
        name: &[u8],
        kind: NodeKind,
        metadata: &Metadata<'_>,
    ) -> Result<Vec<MetadataFailure>, TargetError> {
        let (kind, rdev) = kind.system();
        let mode = Mode::RUSR | Mode::WUSR;
        let make = |dir: BorrowedFd<'_>, name: &[u8]| rustix::fs::mknodat(dir, name, kind, mode, rdev);
        match entry::place(parent, name, "create", make) {
            Err(TargetError::Io { source, .. })
                if entry::is_device(kind) && Errno::from_io_error(&source) == Some(Errno::PERM) =>
            {
                Ok(vec![MetadataFailure::new(Attribute::Device, source)])
            }
            Err(error) => Err(error),
            Ok(()) => entry::dress(parent, name, (kind, rdev), metadata),
        }
    }

    /// Keeps a symlink with this target that stands already, and sets its metadata if need be; `None` if there is none.
    pub fn keep_symlink(
        &self,
        parent: &TargetDir,
        name: &[u8],
        target: &[u8],
        metadata: &Metadata<'_>,
    ) -> Result<Option<Vec<MetadataFailure>>, TargetError> {
        entry::keep(parent, name, (FileType::Symlink, 0, target), metadata)
    }

    /// Keeps a pipe, socket or device that stands already, and sets its metadata if need be; `None` if there is none.
    pub fn keep_node(
        &self,
        parent: &TargetDir,
        name: &[u8],
        kind: NodeKind,
        metadata: &Metadata<'_>,
    ) -> Result<Option<Vec<MetadataFailure>>, TargetError> {
        let (kind, rdev) = kind.system();
        entry::keep(parent, name, (kind, rdev, b""), metadata)
    }

    /// What [`Target::hard_link`] needs to give a symlink or node made just now further names. For a regular file use
    /// [`TargetFile::link_source`], which nobody can deceive.
    pub fn link_source(&self, parent: &TargetDir, name: &[u8]) -> Result<LinkSource, TargetError> {
        entry::check_name(parent, name)?;
        let stat = rustix::fs::statat(&parent.fd()?, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| TargetError::io("look at", parent.path_of(name), error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Err(TargetError::IsDirectory { path: parent.path_of(name) }),
            _ => Ok(LinkSource::new(parent, name, Identity::of(&stat))),
        }
    }

    /// Gives an entry that this restore made a further name. It shares content and metadata, so none is set; but one that
    /// is immutable is not so for a moment, and if that cannot be set again, the failure is returned: the link stands.
    pub fn hard_link(
        &self,
        parent: &TargetDir,
        name: &[u8],
        source: &LinkSource,
    ) -> Result<Vec<MetadataFailure>, TargetError> {
        entry::link(parent, name, source)
    }

    /// Sets a directory's metadata. To be called when everything in it is done, links included, because each further
    /// entry would change its times, and its mode may lock it.
    pub fn finish_dir(
        &self,
        dir: &TargetDir,
        metadata: &Metadata<'_>,
    ) -> Result<Vec<MetadataFailure>, TargetError> {
        dir.check_place()?;
        let fd = dir.fd()?;
        let stat = rustix::fs::fstat(&fd).map_err(|error| TargetError::io("look at", dir.path(), error))?;
        let shared = dir.shared();
        let stood = !dir.is_fresh();
        if stood && shared.options.compares() && dress::is_set(shared, fd.as_fd(), &stat, metadata) {
            return Ok(Vec::new());
        }
        let before = Before {
            inherited: dir::Inherited { owner: Some((stat.st_uid, stat.st_gid)), acl: false },
            stray_acl: stood || dir.inherited().acl,
            stray_xattrs: stood && shared.options.compares(),
            directory: true,
        };
        Ok(metadata::apply(shared, Handle::Open(fd.as_fd()), before, metadata))
    }

    /// Fails if the path of the target leads somewhere else by now, or nowhere: it was unmounted, moved or replaced, and
    /// what was written is not where it was wanted.
    pub fn check_place(&self) -> Result<(), TargetError> {
        let path = self.root.path();
        let changed = || TargetError::Changed { path: path.clone() };
        let stat = rustix::fs::stat(&path).map_err(|_| changed())?;
        if Identity::of(&stat) == self.root.identity() { Ok(()) } else { Err(changed()) }
    }

    /// Whether nothing more can be written anywhere in the target, because its file system went away or takes no writes.
    pub fn is_gone(&self) -> bool {
        let Ok(root) = self.root.fd() else { return true };
        match rustix::fs::fstatvfs(&root) {
            Ok(found) => found.f_flag.contains(StatVfsMountFlags::RDONLY),
            Err(_) => true,
        }
    }

    /// Makes everything written so far last through a power cut. Reports writes that failed in the background too.
    pub fn sync(&self) -> Result<(), TargetError> {
        let failed = |error| TargetError::io("sync", self.root.path(), error);
        rustix::fs::syncfs(&self.root.fd()?).map_err(failed)?;
        let mounts = self.root.shared().mounts.lock().unwrap_or_else(PoisonError::into_inner);
        if mounts.more {
            rustix::fs::sync();
        }
        mounts.open.values().try_for_each(|fd| rustix::fs::syncfs(fd).map_err(failed))
    }

    fn remember_mount(&self, parent: &TargetDir, found: &Found) -> Result<(), TargetError> {
        let dev = found.identity.dev;
        if dev == parent.identity().dev || dev == self.root.identity().dev {
            return Ok(());
        }
        let mut mounts = self.root.shared().mounts.lock().unwrap_or_else(PoisonError::into_inner);
        if mounts.open.len() >= MOUNTS_MAX {
            mounts.more = true;
        } else if let Entry::Vacant(slot) = mounts.open.entry(dev) {
            let copy = rustix::io::fcntl_dupfd_cloexec(&found.fd, 0)
                .map_err(|error| TargetError::io("keep open", parent.path(), error))?;
            slot.insert(copy);
        }
        Ok(())
    }
}

/// Opens the directory that stands under the name, and makes it usable for its owner.
fn open_dir(parent: &TargetDir, dir: &OwnedFd, name: &[u8], fresh: bool) -> rustix::io::Result<Found> {
    let creator = parent.shared().creator;
    let open = || rustix::fs::openat(dir, name, dir::OPEN_DIR, Mode::empty());
    let unlock = |stat: &Stat, fd: &OwnedFd| match stat.st_uid == creator.0 && stat.st_mode & 0o700 != 0o700 {
        // The snapshot's mode is set when the directory is finished.
        true if parent.shared().options.read_only => false,
        true => metadata::make_usable(fd.as_fd(), stat.st_mode).is_ok(),
        false => false,
    };
    let fd = match open() {
        Err(Errno::ACCESS) => {
            let (reference, stat) = entry::reference(dir.as_fd(), name)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory || !unlock(&stat, &reference) {
                return Err(Errno::ACCESS);
            }
            open()?
        }
        done => done?,
    };
    let (mut found, stat) = dir::look(fd, fresh, creator)?;
    if creator.0 != 0 {
        unlock(&stat, &found.fd);
    }
    if fresh && parent.inherited().acl {
        // What it was handed down is not of the snapshot; without the default list nothing below is handed anything.
        let xattrs = parent.shared().options.xattrs;
        found.inherited.acl = !(xattrs && metadata::remove_acls(found.fd.as_fd()).is_ok());
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
