//! Block devices: opening one as an image, and who else uses it.
//!
//! # Invariants
//! A device is read to the end that it told when it was opened, or the read is an error: nothing that could not be read
//! ever looks like zeroes or like the end.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::SourceError;
use super::file::FileReader;
use super::sys::stat::{Kind, Stat, stat_open};
use super::sys::{block, file as sys};
use super::walk::Dir;

/// Regular file, in the type bits of a mode.
const REGULAR: u32 = 0o100_000;

/// Opens a block device that the walk showed, to be read like a regular file of the device's size.
pub fn open_device(dir: &Arc<Dir>, name: &[u8], expected: &Stat) -> Result<FileReader, SourceError> {
    let failed = |action, error| SourceError::of_entry(action, dir.path_of(name), error);
    let fd = sys::open(&*dir.handle()?, name).map_err(|error| failed("open", error))?;
    let mut stat = stat_open(&fd).map_err(|error| failed("look at", error))?;
    if stat.kind() != Kind::BlockDevice || !stat.same_inode(expected) || stat.rdev != expected.rdev {
        return Err(SourceError::Replaced { path: dir.path_of(name) });
    }
    let size = block::size(&fd).map_err(|error| failed("find the size of", error))?;
    if size == 0 {
        // A drive without a medium, or a loop device without a file: an empty backup would look like a good one.
        return Err(failed("find anything on", std::io::ErrorKind::UnexpectedEof.into()));
    }
    // What an earlier reader left in memory may be older than what a mounted file system has written since.
    block::forget(&fd, 0, 0);
    sys::will_read_in_order(&fd);
    stat.mode = REGULAR | (stat.mode & 0o7777);
    (stat.size, stat.blocks, stat.rdev, stat.nlink) = (size, size.div_ceil(512), 0, 1);
    Ok(FileReader::of_device((fd, stat), dir, name))
}

/// A way in which a block device, or a part of it, or something made of it, is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceUse {
    /// A file system on it is mounted.
    Mounted {
        /// Where.
        at: PathBuf,
        /// Whether it may be written to.
        writable: bool,
    },
    /// It holds swapped memory.
    Swap,
}

impl std::fmt::Display for DeviceUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mounted { at, writable: true } => write!(f, "mounted at {}", at.display()),
            Self::Mounted { at, .. } => write!(f, "mounted read-only at {}", at.display()),
            Self::Swap => f.write_str("used for swap"),
        }
    }
}

/// What this process can see of how the block device with this number is used. Partitions count, and what is built on it,
/// such as logical volumes. Nothing found does not mean that nobody uses it.
pub fn device_uses(device: u64) -> Vec<DeviceUse> {
    let mut family = BTreeSet::new();
    gather(device, &mut family);
    uses_of(&family)
}

/// The same of an image file: through the loop devices that show it.
pub fn file_uses(path: &Path) -> Vec<DeviceUse> {
    let mut family = BTreeSet::new();
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let Ok(backing) = fs::read(entry.path().join("loop/backing_file")) else { continue };
        if backing.strip_suffix(b"\n") == Some(path.as_os_str().as_bytes())
            && let Some(device) = number_in(&entry.path())
        {
            gather(device, &mut family);
        }
    }
    uses_of(&family)
}

fn uses_of(family: &BTreeSet<u64>) -> Vec<DeviceUse> {
    let is_one = |source: &Path| {
        let found = fs::metadata(source).ok().filter(|found| found.file_type().is_block_device());
        found.is_some_and(|found| family.contains(&found.rdev()))
    };
    let mut uses = mounts_in(&fs::read("/proc/self/mountinfo").unwrap_or_default(), family, is_one);
    let swaps = fs::read("/proc/swaps").unwrap_or_default();
    if first_words(&swaps).any(|word| is_one(&unescape(word))) {
        uses.push(DeviceUse::Swap);
    }
    uses
}

/// A device, its partitions, and everything that is built on any of them.
fn gather(device: u64, family: &mut BTreeSet<u64>) {
    if !family.insert(device) {
        return;
    }
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let place = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let list = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let parts = list(place.clone()).filter(|part| part.join("partition").exists());
    for part in parts.chain(list(place.join("holders"))) {
        if let Some(device) = number_in(&part) {
            gather(device, family);
        }
    }
}

/// The number in the file `dev` of a directory of sysfs.
fn number_in(place: &Path) -> Option<u64> {
    let text = fs::read_to_string(place.join("dev")).ok()?;
    number(text.trim().as_bytes())
}

fn number(text: &[u8]) -> Option<u64> {
    let (major, minor) = std::str::from_utf8(text).ok()?.split_once(':')?;
    Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// The mounts of these devices in a `mountinfo`. A file system that has a number of its own is known by what it was mounted
/// from, which `is_one` looks at.
fn mounts_in(mountinfo: &[u8], family: &BTreeSet<u64>, is_one: impl Fn(&Path) -> bool) -> Vec<DeviceUse> {
    let mut uses = Vec::new();
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let Some(dash) = words.iter().position(|word| word == b"-") else { continue };
        let (Some(device), Some(at), Some(source), Some(options)) =
            (words.get(2), words.get(4), words.get(dash + 2), words.get(dash + 3))
        else {
            continue;
        };
        let known = number(device).is_some_and(|device| family.contains(&device));
        if known || (source.starts_with(b"/") && is_one(&unescape(source))) {
            let writable = options.split(|byte| *byte == b',').any(|option| option == b"rw");
            uses.push(DeviceUse::Mounted { at: unescape(at), writable });
        }
    }
    uses
}

fn first_words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter_map(|line| line.split(|byte| matches!(byte, b' ' | b'\t')).next())
}

/// Takes back how the kernel writes white space and backslashes: three octal digits after a backslash.
fn unescape(word: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(word.len());
    let mut at = 0;
    while at < word.len() {
        let digits = word.get(at + 1..at + 4).filter(|_| word[at] == b'\\');
        let octal = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(word[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(OsStr::from_bytes(&out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
        30 22 0:25 / /with\\040space rw,noatime - btrfs /dev/sdb1 ro,space_cache\n\
        31 22 7:3 /sub /mnt/a\\134b ro - xfs /dev/loop3 rw,attr2\n\
        broken line\n\
        32 22 7:4 / /no/dash rw xfs\n\
        33 22 x:y / /bad rw - ext4 none rw\n";

    fn mounts(devices: &[(u32, u32)], sources: &[&str]) -> Vec<DeviceUse> {
        let family = devices.iter().map(|&(major, minor)| rustix::fs::makedev(major, minor)).collect();
        mounts_in(MOUNTS, &family, |path| sources.iter().any(|source| Path::new(source) == path))
    }

    #[test]
    fn mounts_are_found_by_number_and_by_source() {
        let mounted = |at: &str, writable| DeviceUse::Mounted { at: PathBuf::from(at), writable };
        assert_eq!(mounts(&[(254, 0)], &[]), [mounted("/", true)]);
        assert_eq!(mounts(&[], &["/dev/sdb1"]), [mounted("/with space", false)]);
        assert_eq!(
            mounts(&[(7, 3)], &[]),
            [mounted("/mnt/a\\b", true)],
            "another mount of it may be writable"
        );
        assert_eq!(mounts(&[(7, 4), (7, 5)], &["none"]), []);
        assert_eq!(mounts_in(b"", &BTreeSet::new(), |_| true), []);
    }

    #[test]
    fn the_first_words_of_lines_are_taken_back_to_what_they_were() {
        let swaps = b"Filename\t\tType\n/dev/sda\\0402 partition 1\n/file file\n";
        let words: Vec<PathBuf> = first_words(swaps).map(unescape).collect();
        assert_eq!(words[1..3], [PathBuf::from("/dev/sda 2"), PathBuf::from("/file")]);
        for odd in [&b"\\"[..], b"\\12", b"\\999", b"a\\04", b"\\\\\\"] {
            assert_eq!(unescape(odd), PathBuf::from(OsStr::from_bytes(odd)), "{odd:?}");
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_used_by_nobody() {
        assert_eq!(device_uses(rustix::fs::makedev(4095, 1_000_000)), []);
        assert_eq!(file_uses(Path::new("/no/such/file")), []);
    }
}
