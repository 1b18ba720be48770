//! A tree with every kind of entry, and what must be equal after a restore.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// Bytes that no compressor shrinks.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn touch(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn node(path: &Path, kind: FileType, mode: u32, device: u64) {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(mode), device).unwrap();
}

/// Makes the tree below an empty directory. Device nodes and foreign owners need root and are left out without it.
pub(crate) fn fill(root: &Path) {
    names(root);
    contents(root);
    fs::create_dir_all(root.join("wide")).unwrap();
    for number in 0..3000 {
        fs::write(root.join(format!("wide/{number:05}")), format!("{number}\n")).unwrap();
    }
    let mut deep = root.join("deep");
    for level in 0..60 {
        deep.push(format!("level {level}"));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), "here").unwrap();
    kinds(root);
    metadata(root);
}

fn names(root: &Path) {
    let names = root.join("names");
    fs::create_dir(&names).unwrap();
    for name in [
        &b"caf\xe9"[..],
        "Grüße 🛟".as_bytes(),
        b"new\nline",
        b" ",
        b"-rf",
        b"*",
        b"\\",
        b"\x01\x7f\xff",
        &[b'n'; 255],
    ] {
        fs::write(names.join(OsStr::from_bytes(name)), name).unwrap();
    }
}

fn contents(root: &Path) {
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("one"), "1").unwrap();
    // More chunks than a node holds.
    fs::write(root.join("large"), noise(1, 40 << 20)).unwrap();
    fs::write(root.join("same"), noise(1, 40 << 20)).unwrap();
    fs::write(root.join("zeroes"), vec![0; 3 << 20]).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"begin", 0).unwrap();
    sparse.write_all_at(&noise(2, 300_000), 10 << 20).unwrap();
    sparse.set_len(64 << 20).unwrap();
    File::create(root.join("hole")).unwrap().set_len(256 << 20).unwrap();
}

fn kinds(root: &Path) {
    let kinds = root.join("kinds");
    fs::create_dir_all(kinds.join("nothing in it")).unwrap();
    symlink("../one", kinds.join("link")).unwrap();
    symlink(OsStr::from_bytes(b"no\xffwhere"), kinds.join("dangling")).unwrap();
    fs::hard_link(root.join("one"), kinds.join("second name")).unwrap();
    fs::hard_link(root.join("one"), root.join("third name")).unwrap();
    fs::hard_link(kinds.join("link"), kinds.join("link again")).unwrap();
    node(&kinds.join("pipe"), FileType::Fifo, 0o640, 0);
    drop(UnixListener::bind(kinds.join("socket")).unwrap());
    if rustix::process::geteuid().is_root() {
        node(&kinds.join("null"), FileType::CharacterDevice, 0o666, rustix::fs::makedev(1, 3));
        node(&kinds.join("disk"), FileType::BlockDevice, 0o660, rustix::fs::makedev(259, 70000));
    }
}

fn metadata(root: &Path) {
    let place = root.join("metadata");
    fs::create_dir(&place).unwrap();
    for mode in [0o000, 0o400, 0o755, 0o4755, 0o2711, 0o1777, 0o7777] {
        let path = place.join(format!("mode {mode:o}"));
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir(place.join("sticky")).unwrap();
    fs::set_permissions(place.join("sticky"), Permissions::from_mode(0o1777)).unwrap();
    fs::create_dir(place.join("read only")).unwrap();
    fs::write(place.join("read only/inside"), "x").unwrap();
    fs::set_permissions(place.join("read only"), Permissions::from_mode(0o555)).unwrap();
    let attributes = place.join("attributes");
    fs::write(&attributes, "x").unwrap();
    for (name, value) in [("user.empty", &b""[..]), ("user.bytes", b"\x00\xff"), ("user.long", &[7; 3000])] {
        rustix::fs::lsetxattr(&attributes, name, value, XattrFlags::empty()).unwrap();
    }
    if rustix::process::geteuid().is_root() {
        fs::write(place.join("owned"), "x").unwrap();
        chown(place.join("owned"), Some(1234), Some(56_789)).unwrap();
        symlink("x", place.join("owned link")).unwrap();
        lchown(place.join("owned link"), Some(4321), Some(4_000_000_000)).unwrap();
    }
    for (name, seconds, nanos) in [
        ("1901", -2_000_000_000, 5),
        ("1970", 0, 0),
        ("now", 1_700_000_000, 123_456_789),
        ("2200", 7_258_118_400, 999_999_999),
    ] {
        fs::write(place.join(name), name).unwrap();
        touch(&place.join(name), seconds, nanos);
    }
    symlink("x", place.join("old link")).unwrap();
    touch(&place.join("old link"), 1_000_000_000, 1);
    touch(&place, 1_234_567_890, 987_654_321);
}

/// Some time later.
pub(crate) fn change(root: &Path) {
    fs::remove_dir_all(root.join("deep")).unwrap();
    fs::remove_file(root.join("wide/00007")).unwrap();
    fs::write(root.join("wide/zz new"), "new").unwrap();
    let large = File::options().write(true).open(root.join("large")).unwrap();
    large.write_all_at(b"changed in the middle", 20 << 20).unwrap();
    fs::set_permissions(root.join("empty"), Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(root.join("one")).unwrap();
    fs::create_dir(root.join("one")).unwrap();
}

/// What must be equal of one entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    device: u64,
    links: u64,
    target: Option<PathBuf>,
    /// Length and hash of the content.
    content: Option<(u64, blake3::Hash)>,
    /// Whether less than half of the content takes room on the disk.
    sparse: bool,
    attributes: BTreeMap<OsString, Vec<u8>>,
    /// The first name of the same file.
    first: PathBuf,
}

/// Every entry below `root`, and `root` itself, by its path.
pub(crate) fn describe(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut seen = BTreeMap::new();
    let mut found = BTreeMap::new();
    let mut walk = ignore::WalkBuilder::new(root);
    walk.standard_filters(false).sort_by_file_name(|a, b| a.cmp(b));
    for entry in walk.build() {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(root).unwrap().to_owned();
        let stat = fs::symlink_metadata(entry.path()).unwrap();
        let kind = stat.file_type();
        let first = match kind.is_dir() {
            true => path.clone(),
            false => seen.entry((stat.dev(), stat.ino())).or_insert_with(|| path.clone()).clone(),
        };
        let device = if kind.is_char_device() || kind.is_block_device() { stat.rdev() } else { 0 };
        let described = Entry {
            mode: stat.mode(),
            owner: (stat.uid(), stat.gid()),
            modified: (stat.mtime(), stat.mtime_nsec()),
            device,
            links: if kind.is_dir() { 0 } else { stat.nlink() },
            target: kind.is_symlink().then(|| fs::read_link(entry.path()).unwrap()),
            content: kind.is_file().then(|| (stat.len(), content(entry.path()))),
            sparse: kind.is_file() && stat.blocks() * 512 < stat.len() / 2,
            attributes: attributes(entry.path()),
            first,
        };
        found.insert(path, described);
    }
    found
}

fn content(path: &Path) -> blake3::Hash {
    let mode = fs::metadata(path).unwrap().permissions();
    // Without root, what nobody may read is made readable for a moment.
    let closed = mode.mode() & 0o400 == 0 && !rustix::process::geteuid().is_root();
    if closed {
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).unwrap()).unwrap();
    if closed {
        fs::set_permissions(path, mode).unwrap();
    }
    hasher.finalize()
}

fn attributes(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = vec![0; 1 << 16];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    names.truncate(len);
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 1 << 16];
        let len =
            rustix::fs::lgetxattr(path, CString::new(name).unwrap().as_c_str(), &mut value[..]).unwrap();
        value.truncate(len);
        (OsStr::from_bytes(name).to_owned(), value)
    };
    names.map(value).collect()
}

/// Fails with the first few differences.
pub(crate) fn assert_same(wanted: &BTreeMap<PathBuf, Entry>, found: &BTreeMap<PathBuf, Entry>) {
    let mut differences = Vec::new();
    for path in wanted.keys().chain(found.keys().filter(|path| !wanted.contains_key(*path))) {
        let (wanted, found) = (wanted.get(path), found.get(path));
        if wanted != found {
            differences.push(format!("{path:?}\n  was {wanted:?}\n  is  {found:?}"));
        }
    }
    let shown = &differences[..differences.len().min(10)];
    assert!(differences.is_empty(), "{} entries differ:\n{}", differences.len(), shown.join("\n"));
}
