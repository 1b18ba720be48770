//! Hostile repositories, prepared targets, and every kind of metadata, seen through the system's own tools.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Gid, Uid};
use tempfile::TempDir;

use super::*;
use crate::class::Class;

fn target() -> (TempDir, Target) {
    with_options(TargetOptions::default())
}

fn with_options(options: TargetOptions) -> (TempDir, Target) {
    let dir = TempDir::new().unwrap();
    let target = Target::open(&dir.path().join("target"), options).unwrap();
    (dir, target)
}

/// Metadata that changes nothing for who runs the tests.
fn plain(mode: u32) -> Metadata<'static> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Metadata { mode, uid, gid, mtime: (1_000_000_000, 123_456_789), ..Metadata::default() }
}

fn write(target: &Target, dir: &TargetDir, name: &[u8], content: &[u8]) -> Result<(), TargetError> {
    let file = target.create_file(dir, name, content.len() as u64)?;
    file.write_at(content, 0)?;
    assert!(file.finish(&plain(0o644))?.is_empty());
    Ok(())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs the test as an ordinary user, in a thread of its own, if it is root who runs the tests.
fn as_user(test: impl FnOnce(&Path) + Send + 'static) {
    let dir = TempDir::new().unwrap();
    if is_root() {
        std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
    }
    let path = dir.path().to_path_buf();
    let run = move || {
        if is_root() {
            let (uid, gid) = (Uid::from_raw(65534), Gid::from_raw(65534));
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        }
        test(&path);
    };
    std::thread::spawn(run).join().unwrap();
}

/// What a tool prints, or nothing if it is not there.
fn tool(name: &str, arguments: &[&str], path: &Path) -> Option<String> {
    match Command::new(name).args(arguments).arg(path).output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => {
            println!("not checked with {name}: {error}");
            None
        }
    }
}

/// A small file system of its own, gone with the value.
struct Mount(TempDir);

impl Mount {
    fn new(options: &str) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        println!("skipped: mounting a tmpfs needs root");
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0.path()).status().unwrap();
    }
}

#[test]
fn names_that_are_not_one_component_are_refused_everywhere() {
    let (_dir, target) = target();
    let root = target.root();
    write(&target, &root, b"here", b"x").unwrap();
    let source = target.link_source(&root, b"here").unwrap();
    let long = [b'n'; 256];
    for name in [&b""[..], b".", b"..", b"/", b"/etc", b"a/b", b"../x", b"a\0b", b"\0", &long] {
        let results = [
            target.make_dir(&root, name).err(),
            target.create_file(&root, name, 0).err(),
            target.symlink(&root, name, b"t", &plain(0)).err(),
            target.make_node(&root, name, NodeKind::Fifo, &plain(0)).err(),
            target.hard_link(&root, name, &source).err(),
            target.link_source(&root, name).err(),
        ];
        for error in results {
            let error = error.expect("the name must be refused");
            assert!(matches!(error, TargetError::UnsafeName { .. }), "{error}");
            assert_eq!(error.class(), Class::Damage);
        }
    }
    for name in [&b"..."[..], b" ", b"a\nb", b"\xff\xfe", b"\x1b[31m", b"a\\b", b"C:x", &long[..255]] {
        write(&target, &root, name, b"fine").unwrap();
    }
    let error = target.create_file(&root, b"\x1b[31m/", 0).unwrap_err().to_string();
    assert!(!error.contains('\x1b'), "a message must not carry terminal escapes: {error}");
}

#[test]
fn a_symlink_in_place_of_a_directory_is_replaced_and_its_target_left_alone() {
    let (dir, target) = target();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for link in [outside.clone(), PathBuf::from("../outside"), PathBuf::from("."), PathBuf::from("gone")] {
        let planted = dir.path().join("target/sub");
        symlink(&link, &planted).unwrap();
        let sub = target.make_dir(&target.root(), b"sub").unwrap();
        write(&target, &sub, b"file", b"inside").unwrap();
        assert!(fs::symlink_metadata(&planted).unwrap().is_dir());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        fs::remove_dir_all(&planted).unwrap();
    }
    // The repository's own symlink, then a directory of the same name below which things are written.
    target.symlink(&target.root(), b"etc", outside.as_os_str().as_bytes(), &plain(0)).unwrap();
    let etc = target.make_dir(&target.root(), b"etc").unwrap();
    write(&target, &etc, b"passwd", b"mine").unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn nothing_is_written_through_links_that_stand_where_an_entry_belongs() {
    let (dir, target) = target();
    let outside = dir.path().join("secret");
    let before = {
        fs::write(&outside, b"outside").unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o640)).unwrap();
        fs::metadata(&outside).unwrap()
    };
    let root = target.root();
    let plant: [&dyn Fn(&Path); 3] = [
        &|place| symlink(&outside, place).unwrap(),
        &|place| fs::hard_link(&outside, place).unwrap(),
        &|place| symlink("gone", place).unwrap(),
    ];
    write(&target, &root, b"source", b"linked").unwrap();
    let source = target.link_source(&root, b"source").unwrap();
    let make: [&dyn Fn(&[u8]); 5] = [
        &|name| write(&target, &root, name, b"inside").unwrap(),
        &|name| assert!(target.symlink(&root, name, b"elsewhere", &plain(0)).unwrap().is_empty()),
        &|name| assert!(target.make_node(&root, name, NodeKind::Fifo, &plain(0o622)).unwrap().is_empty()),
        &|name| target.hard_link(&root, name, &source).unwrap(),
        &|name| assert!(target.make_dir(&root, name).unwrap().path().ends_with("place")),
    ];
    for plant in plant {
        for make in make {
            let place = dir.path().join("target/place");
            plant(&place);
            make(b"place");
            match fs::symlink_metadata(&place).unwrap().is_dir() {
                true => fs::remove_dir(&place).unwrap(),
                false => fs::remove_file(&place).unwrap(),
            }
        }
    }
    let after = fs::metadata(&outside).unwrap();
    assert_eq!(fs::read(&outside).unwrap(), b"outside");
    assert_eq!((after.mode(), after.mtime_nsec(), after.nlink()), (before.mode(), before.mtime_nsec(), 1));
}

#[test]
fn hard_links_go_only_to_what_the_restore_made() {
    let (dir, target) = target();
    let root = target.root();
    let path = dir.path().join("target");
    let file = target.create_file(&root, b"first", 3).unwrap();
    let source = file.link_source().unwrap();
    target.hard_link(&root, b"early", &source).unwrap();
    file.write_at(b"abc", 0).unwrap();
    file.finish(&plain(0o600)).unwrap();
    target.hard_link(&root, b"late", &source).unwrap();
    target.hard_link(&root, b"late", &source).unwrap();
    target.hard_link(&root, b"first", &source).unwrap();
    assert_eq!(fs::read(path.join("early")).unwrap(), b"abc");
    assert_eq!(fs::metadata(path.join("late")).unwrap().nlink(), 3, "linking a name to itself loses nothing");

    // Somebody puts another entry under the source's name: a file from outside, a symlink, nothing.
    let outside = dir.path().join("outside");
    fs::write(&outside, b"outside").unwrap();
    let replace: [&dyn Fn(&Path); 3] = [
        &|place| fs::hard_link(&outside, place).unwrap(),
        &|place| symlink(&outside, place).unwrap(),
        &|_| {},
    ];
    for replace in replace {
        fs::remove_file(path.join("first")).unwrap();
        replace(&path.join("first"));
        let error = target.hard_link(&root, b"new", &source).unwrap_err();
        assert!(matches!(error, TargetError::Changed { .. }), "{error}");
        assert!(fs::symlink_metadata(path.join("new")).is_err(), "the wrong link does not stay");
        fs::write(path.join("first"), b"for the next turn").ok();
    }
    target.symlink(&root, b"link", outside.as_os_str().as_bytes(), &plain(0)).unwrap();
    let link = target.link_source(&root, b"link").unwrap();
    target.hard_link(&root, b"link 2", &link).unwrap();
    assert!(fs::symlink_metadata(path.join("link 2")).unwrap().is_symlink());
    target.make_dir(&root, b"dir").unwrap();
    assert!(matches!(target.link_source(&root, b"dir"), Err(TargetError::IsDirectory { .. })));
}

#[test]
fn a_directory_swapped_while_its_descriptor_was_closed_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("target");
    let target = Target::open_bounded(&path, TargetOptions::default(), 4).unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let root = target.root();
    let victim = target.make_dir(&root, b"victim").unwrap();
    let below = target.make_dir(&victim, b"below").unwrap();
    let push_out = || {
        for number in 0..16 {
            target.make_dir(&root, format!("other {number}").as_bytes()).unwrap();
        }
        let others: Vec<_> =
            (0..16).map(|n| target.make_dir(&root, format!("other {n}").as_bytes()).unwrap()).collect();
        drop(others);
    };
    push_out();
    write(&target, &below, b"before", b"x").unwrap();
    push_out();
    fs::rename(path.join("victim"), path.join("moved")).unwrap();
    fs::create_dir(outside.join("below")).unwrap();
    let swap: [&dyn Fn(); 3] = [
        &|| symlink(&outside, path.join("victim")).unwrap(),
        &|| fs::create_dir_all(path.join("victim/below")).unwrap(),
        &|| fs::write(path.join("victim"), b"a file").unwrap(),
    ];
    for swap in swap {
        swap();
        for dir in [&victim, &below] {
            let error = target.create_file(dir, b"file", 1).unwrap_err();
            assert!(matches!(error, TargetError::Changed { .. }), "{error}");
        }
        fs::remove_file(path.join("victim")).or_else(|_| fs::remove_dir_all(path.join("victim"))).unwrap();
    }
    assert_eq!(fs::read_dir(outside.join("below")).unwrap().count(), 0);
    // Back in its place, it is the same directory again.
    fs::rename(path.join("moved"), path.join("victim")).unwrap();
    write(&target, &below, b"after", b"x").unwrap();
    assert!(path.join("victim/below/after").exists());
}

fn open_descriptors_of(path: &Path) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
    links.filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.starts_with(path))).count()
}

#[test]
fn descriptors_stay_bounded_however_many_directories_are_held() {
    let dir = TempDir::new().unwrap();
    let target = Target::open_bounded(dir.path(), TargetOptions::default(), 16).unwrap();
    let mut held = vec![target.root()];
    for number in 0..2_000_usize {
        let parent = held[number / 3].clone();
        held.push(target.make_dir(&parent, number.to_string().as_bytes()).unwrap());
    }
    assert!(open_descriptors_of(dir.path()) <= 17);
    for dir in held.iter().rev() {
        write(&target, dir, b"file", b"x").unwrap();
        assert!(target.finish_dir(dir, &plain(0o755)).unwrap().is_empty());
    }
    assert!(open_descriptors_of(dir.path()) <= 17);
}

#[test]
fn a_chain_far_beyond_the_longest_path_is_written_finished_and_dropped() {
    const DEPTH: usize = 20_000;
    let dir = TempDir::new().unwrap();
    let target = Target::open_bounded(dir.path(), TargetOptions::default(), 64).unwrap();
    // The handles alone are enough; a stack of a thread must not be used up by dropping them.
    let run = move || {
        let mut deepest = target.root();
        let mut held = Vec::new();
        for _ in 0..DEPTH {
            deepest = target.make_dir(&deepest, b"d").unwrap();
            held.push(deepest.clone());
        }
        write(&target, &deepest, b"file", b"deep").unwrap();
        assert_eq!(deepest.path().as_os_str().len(), target.root().path().as_os_str().len() + 2 * DEPTH);
        for dir in held.iter().rev() {
            assert!(target.finish_dir(dir, &plain(0o700)).unwrap().is_empty());
        }
        drop(held);
        drop(target);
        drop(deepest);
    };
    std::thread::Builder::new().stack_size(128 << 10).spawn(run).unwrap().join().unwrap();
    let found =
        Command::new("find").arg(dir.path()).args(["-name", "file", "-printf", "%d"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), (DEPTH + 1).to_string());
    assert!(Command::new("rm").arg("-rf").arg(dir.path()).status().unwrap().success());
}

#[test]
fn threads_share_a_target_with_few_descriptors() {
    let dir = TempDir::new().unwrap();
    let target = Target::open_bounded(dir.path(), TargetOptions::default(), 4).unwrap();
    let dirs: Vec<_> =
        (0..40).map(|n: u32| target.make_dir(&target.root(), n.to_string().as_bytes()).unwrap()).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (target, dirs) = (&target, &dirs);
            scope.spawn(move || {
                for turn in 0..400 {
                    let dir = &dirs[(turn * 7 + thread * 13) % dirs.len()];
                    write(target, dir, format!("{thread} {turn}").as_bytes(), b"content").unwrap();
                    target.make_dir(dir, b"common").unwrap();
                }
            });
        }
    });
    let files = walkdir::WalkDir::new(dir.path()).into_iter().flatten().filter(|e| e.file_type().is_file());
    assert_eq!(files.filter(|e| e.metadata().unwrap().len() == 7).count(), 1600);
}

#[test]
fn threads_write_parts_of_one_file_and_the_rest_are_holes() {
    const LEN: u64 = 64 << 20;
    let (dir, target) = target();
    let file = target.create_file(&target.root(), b"sparse", LEN).unwrap();
    std::thread::scope(|scope| {
        for part in 0..4_u8 {
            let file = &file;
            scope.spawn(move || file.write_at(&[part + 1; 4096], u64::from(part) << 20).unwrap());
        }
    });
    assert!(matches!(file.write_at(b"xx", LEN - 1), Err(TargetError::BeyondEnd { len: LEN, .. })));
    assert!(matches!(file.write_at(b"xx", u64::MAX), Err(TargetError::BeyondEnd { .. })));
    file.finish(&plain(0o600)).unwrap();
    let path = dir.path().join("target/sparse");
    let stat = fs::metadata(&path).unwrap();
    assert_eq!(stat.len(), LEN);
    assert!(stat.blocks() * 512 <= 1 << 20, "holes take no space");
    let content = fs::read(&path).unwrap();
    assert_eq!((content[2 << 20], content[(2 << 20) + 4096], content[1 << 20]), (3, 0, 2));

    let huge = target.create_file(&target.root(), b"huge", u64::MAX).unwrap();
    assert!(matches!(huge.finish(&plain(0o600)), Err(TargetError::Io { .. })));
}

#[test]
fn an_unfinished_file_is_private_and_can_be_discarded() {
    let (dir, target) = target();
    let path = dir.path().join("target/file");
    let file = target.create_file(&target.root(), b"file", 10).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    file.discard().unwrap();
    assert!(!path.exists());
    let file = target.create_file(&target.root(), b"file", 10).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"somebody else's").unwrap();
    file.discard().unwrap();
    assert!(path.exists(), "only the file itself is removed");
    target.make_dir(&target.root(), b"dir").unwrap();
    assert_eq!(fs::metadata(path.with_file_name("dir")).unwrap().mode() & 0o7777, 0o700);
    target.sync().unwrap();
}

#[test]
fn existing_entries_are_kept_if_the_options_say_so() {
    let (dir, target) =
        with_options(TargetOptions { overwrite: Overwrite::Never, ..TargetOptions::default() });
    let path = dir.path().join("target");
    fs::write(path.join("file"), b"old").unwrap();
    fs::create_dir(path.join("dir")).unwrap();
    symlink("dir", path.join("link")).unwrap();
    let root = target.root();
    for error in [
        target.create_file(&root, b"file", 0).err(),
        target.create_file(&root, b"link", 0).err(),
        target.create_file(&root, b"dir", 0).err(),
        target.make_dir(&root, b"link").err(),
        target.make_dir(&root, b"file").err(),
    ] {
        let error = error.unwrap();
        assert!(matches!(error, TargetError::Exists { .. }), "{error}");
        assert_eq!(error.class(), Class::Refused);
    }
    write(&target, &target.make_dir(&root, b"dir").unwrap(), b"new", b"new").unwrap();
    assert_eq!(fs::read(path.join("file")).unwrap(), b"old");

    let (dir, target) = self::target();
    fs::create_dir(dir.path().join("target/dir")).unwrap();
    let error = target.create_file(&target.root(), b"dir", 0).unwrap_err();
    assert!(matches!(error, TargetError::IsDirectory { .. }), "{error}");
}

#[test]
fn a_file_gets_all_of_its_metadata() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    // On the disk's file system: a tmpfs keeps neither user attributes everywhere nor flags.
    let (dir, target) = target();
    let path = dir.path().join("target/file");
    // u::rw- u:1234:rwx g::r-- m::rwx o::---
    let acl = acl(&[(1, 6, u32::MAX), (2, 7, 1234), (4, 4, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)]);
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut metadata =
        Metadata { uid: 1234, gid: 2345, atime: Some((5, 6)), flags: 0x40 | 0x10, ..plain(0o6670) };
    metadata.xattrs = vec![
        (b"security.capability", &capability),
        (b"system.posix_acl_access", &acl),
        (b"user.comment", b"kept"),
        (b"trusted.x", b"t"),
    ];
    let file = target.create_file(&target.root(), b"file", 4).unwrap();
    let source = file.link_source().unwrap();
    file.write_at(b"text", 0).unwrap();
    assert_failures(&file.finish(&metadata).unwrap(), &[]);
    let stat = fs::metadata(&path).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o6670, 1234, 2345));
    assert_eq!((stat.mtime(), stat.mtime_nsec()), metadata_time(metadata.mtime));
    assert_eq!((stat.atime(), stat.atime_nsec()), (5, 6));
    if let Some(text) = tool("getfacl", &["-pn"], &path) {
        assert!(
            text.contains("user:1234:rwx") && text.contains("group::r--") && text.contains("mask::rwx"),
            "{text}"
        );
    }
    if let Some(text) = tool("getfattr", &["-m-", "-d", "--absolute-names"], &path) {
        assert!(text.contains("user.comment=\"kept\"") && text.contains("trusted.x=\"t\""), "{text}");
    }
    if let Some(text) = tool("getcap", &[], &path) {
        assert!(text.contains("cap_net_bind_service=ep"), "{text}");
    }
    if let Some(text) = tool("lsattr", &["-d"], &path) {
        let flags = text.split(' ').next().unwrap();
        assert!(flags.contains('i') && flags.contains('d') && flags.contains('e'), "{text}");
    }
    // Immutable now: a further name works, replacing it does not, and the error says why.
    target.hard_link(&target.root(), b"second", &source).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 2);
    assert!(tool("lsattr", &["-d"], &path).is_none_or(|text| text.split(' ').next().unwrap().contains('i')));
    let error = target.create_file(&target.root(), b"file", 1).unwrap_err();
    assert!(matches!(&error, TargetError::Immutable { path: protected } if *protected == path), "{error}");
    unprotect(&path);
    unprotect(&path.with_file_name("second"));
}

fn metadata_time((seconds, nanos): (i64, u32)) -> (i64, i64) {
    (seconds, nanos.into())
}

fn assert_failures(failures: &[MetadataFailure], expected: &[Attribute]) {
    let what: Vec<_> = failures.iter().map(|failure| failure.what.clone()).collect();
    assert_eq!(what, expected, "{failures:?}");
}

fn unprotect(path: &Path) {
    let file = fs::File::open(path).unwrap();
    rustix::fs::ioctl_setflags(&file, rustix::fs::IFlags::empty()).unwrap();
}

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&rights.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

#[test]
fn directories_links_and_nodes_get_their_metadata() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let (dir, target) = target();
    let path = dir.path().join("target");
    let root = target.root();
    let metadata = Metadata { uid: 1234, gid: 2345, atime: Some((-7, 8)), ..plain(0o2751) };
    let xattr = Metadata { xattrs: vec![(b"trusted.x", b"t")], ..metadata.clone() };
    let sub = target.make_dir(&root, b"dir").unwrap();
    write(&target, &sub, b"file", b"x").unwrap();
    let flagged = Metadata { flags: 0x1_0000 | 0x80, ..xattr.clone() };
    assert_failures(&target.finish_dir(&sub, &flagged).unwrap(), &[]);
    assert_failures(&target.symlink(&root, b"link", b"/etc/passwd", &xattr).unwrap(), &[]);
    // Null and a loop device's number: made, never opened.
    for (name, kind) in [
        ("fifo", NodeKind::Fifo),
        ("socket", NodeKind::Socket),
        ("null", NodeKind::CharDevice(0x103)),
        ("loop", NodeKind::BlockDevice(0x7ff)),
    ] {
        assert_failures(&target.make_node(&root, name.as_bytes(), kind, &xattr).unwrap(), &[]);
    }
    for name in ["dir", "link", "fifo", "socket", "null", "loop"] {
        let stat = fs::symlink_metadata(path.join(name)).unwrap();
        assert_eq!((stat.uid(), stat.gid()), (1234, 2345), "{name}");
        assert_eq!((stat.mtime(), stat.mtime_nsec()), metadata_time(metadata.mtime), "{name}");
        // Walking through a directory's name does not read it, but reading a link does.
        assert_eq!((stat.atime(), stat.atime_nsec()), (-7, 8), "{name}");
        if name != "link" {
            assert_eq!(stat.mode() & 0o7777, 0o2751, "{name}");
        }
        let text = tool("getfattr", &["-h", "-m-", "-d", "--absolute-names"], &path.join(name));
        assert!(text.is_none_or(|text| text.contains("trusted.x")), "{name}");
    }
    assert_eq!(fs::read_link(path.join("link")).unwrap(), Path::new("/etc/passwd"));
    let types = ["fifo", "socket", "null", "loop"].map(|name| fs::symlink_metadata(path.join(name)).unwrap());
    assert!(types[0].file_type().is_fifo() && types[1].file_type().is_socket());
    assert_eq!((types[2].rdev(), types[3].rdev()), (0x103, 0x7ff));
    if let Some(text) = tool("lsattr", &["-d"], &path.join("dir")) {
        let flags = text.split(' ').next().unwrap();
        assert!(flags.contains('D') && flags.contains('A'), "{text}");
    }
    assert!(fs::metadata("/etc/passwd").unwrap().uid() == 0, "what a link points to is never touched");
}

#[test]
fn lists_that_the_snapshot_does_not_have_are_removed() {
    let (dir, target) = target();
    let path = dir.path().join("target");
    fs::create_dir(path.join("found")).unwrap();
    let set =
        Command::new("setfacl").args(["-m", "d:u:1234:rwx,u:1234:rwx"]).arg(path.join("found")).status();
    if !set.is_ok_and(|status| status.success()) {
        println!("skipped: no setfacl, or no access control lists here");
        return;
    }
    let found = target.make_dir(&target.root(), b"found").unwrap();
    write(&target, &found, b"file", b"x").unwrap();
    target.make_node(&found, b"fifo", NodeKind::Fifo, &plain(0o644)).unwrap();
    assert!(target.symlink(&found, b"link", b"x", &plain(0)).unwrap().is_empty());
    let sub = target.make_dir(&found, b"sub").unwrap();
    write(&target, &sub, b"file", b"x").unwrap();
    for dir in [&sub, &found] {
        assert!(target.finish_dir(dir, &plain(0o755)).unwrap().is_empty());
    }
    for name in ["found", "found/file", "found/fifo", "found/sub", "found/sub/file"] {
        let text = tool("getfacl", &["-pn"], &path.join(name)).unwrap();
        assert!(!text.contains("1234"), "{text}");
    }
    assert_eq!(fs::metadata(path.join("found/file")).unwrap().mode() & 0o7777, 0o644);
}

#[test]
fn an_ordinary_user_gets_the_content_and_a_list_of_what_is_missing() {
    as_user(|dir| {
        let target = Target::open(&dir.join("target"), TargetOptions::default()).unwrap();
        let root = target.root();
        write(&target, &root, b"own", b"nothing is missing here").unwrap();
        let mut foreign = Metadata { uid: 1, gid: 2, mtime: (9, 9), flags: 0x40 | 0x10, ..plain(0o6755) };
        foreign.xattrs = vec![(b"trusted.x", b"t"), (b"user.x", b"u")];
        let file = target.create_file(&root, b"file", 1).unwrap();
        file.write_at(b"x", 0).unwrap();
        let failures = file.finish(&foreign).unwrap();
        let expected =
            [Attribute::Xattr(b"trusted.x".to_vec()), Attribute::User, Attribute::Group, Attribute::Mode];
        assert_failures(&failures, &[&expected[..], &[Attribute::Flags]].concat());
        assert!(failures.iter().all(|failure| failure.class() == Class::Partial));
        let stat = fs::metadata(dir.join("target/file")).unwrap();
        assert_eq!(stat.mode() & 0o7777, 0o755, "set-id bits would act for the wrong owner");
        assert_eq!(stat.mtime(), 9);
        let kept = tool("getfattr", &["-n", "user.x", "--absolute-names"], &dir.join("target/file"));
        assert!(
            kept.is_none_or(|text| text.contains("user.x=\"u\"")),
            "one failed attribute does not cost the next"
        );

        let failures = target.make_node(&root, b"dev", NodeKind::BlockDevice(0x801), &plain(0o600)).unwrap();
        assert_failures(&failures, &[Attribute::Device]);
        assert!(!dir.join("target/dev").exists());
        assert_failures(
            &target.symlink(&root, b"link", b"t", &Metadata { uid: 1, ..plain(0) }).unwrap(),
            &[Attribute::User],
        );

        // Directories that their owner cannot use are opened for the restore.
        for mode in [0o000, 0o500, 0o300] {
            fs::create_dir(dir.join("target/locked")).unwrap();
            fs::set_permissions(dir.join("target/locked"), fs::Permissions::from_mode(mode)).unwrap();
            let locked = target.make_dir(&root, b"locked").unwrap();
            write(&target, &locked, b"file", b"x").unwrap();
            assert!(target.finish_dir(&locked, &plain(0o700)).unwrap().is_empty());
            fs::remove_dir_all(dir.join("target/locked")).unwrap();
        }
        fs::set_permissions(dir.join("target"), fs::Permissions::from_mode(0o500)).unwrap();
        let error = target.create_file(&root, b"new", 0).unwrap_err();
        assert_eq!(error.class(), Class::Failed);
        fs::set_permissions(dir.join("target"), fs::Permissions::from_mode(0o700)).unwrap();
    });
}

#[test]
fn set_id_bits_stay_off_when_owners_are_left_alone() {
    let options = TargetOptions { owner: OwnerPolicy::Skip, ..TargetOptions::default() };
    let (dir, target) = with_options(options);
    let file = target.create_file(&target.root(), b"file", 0).unwrap();
    assert_failures(&file.finish(&Metadata { uid: 4711, ..plain(0o6755) }).unwrap(), &[Attribute::Mode]);
    assert_eq!(fs::metadata(dir.path().join("target/file")).unwrap().mode() & 0o7777, 0o2755);
}

#[test]
fn hostile_metadata_fails_alone() {
    let (dir, target) = target();
    for (name, metadata, expected) in [
        ("omit", Metadata { mtime: (0, 0x3fff_fffe), ..plain(0o600) }, vec![Attribute::Times]),
        ("now", Metadata { atime: Some((0, 0x3fff_ffff)), ..plain(0o600) }, vec![Attribute::Times]),
        ("past", Metadata { mtime: (i64::MIN, 0), ..plain(0o600) }, vec![]),
        ("mode", plain(u32::MAX & !0o6000), vec![]),
        ("extents", Metadata { flags: 0x8_0000 | 0x800, ..plain(0o600) }, vec![]),
        (
            "xattr",
            Metadata { xattrs: vec![(b"user.\0x", b""), (b"", b""), (b"nonsense", b"")], ..plain(0o600) },
            [&b"user.\0x"[..], b"", b"nonsense"].map(|name| Attribute::Xattr(name.to_vec())).to_vec(),
        ),
        (
            "owner",
            Metadata { uid: u32::MAX, gid: u32::MAX, ..plain(0o600) },
            vec![Attribute::User, Attribute::Group],
        ),
    ] {
        let file = target.create_file(&target.root(), name.as_bytes(), 0).unwrap();
        assert_failures(&file.finish(&metadata).unwrap(), &expected);
        let stat = fs::metadata(dir.path().join("target").join(name)).unwrap();
        assert_eq!(stat.mode() & 0o777, metadata.mode & 0o777, "{name}");
    }
    let error = target.symlink(&target.root(), b"link", b"a\0b", &plain(0)).unwrap_err();
    assert!(matches!(error, TargetError::Io { .. }));
}

#[test]
fn a_full_target_says_so() {
    let Some(mount) = Mount::new("size=256k,nr_inodes=20") else { return };
    let target = Target::open(mount.0.path(), TargetOptions::default()).unwrap();
    let file = target.create_file(&target.root(), b"file", 1 << 20).unwrap();
    let error = file.write_at(&vec![1; 1 << 20], 0).unwrap_err();
    assert_eq!(error.class(), Class::NoSpace, "{error}");
    file.discard().unwrap();
    let error = (0..100_u32)
        .find_map(|number| target.create_file(&target.root(), number.to_string().as_bytes(), 0).err())
        .expect("the inodes run out");
    assert_eq!(error.class(), Class::NoSpace, "{error}");
}

#[test]
fn a_read_only_target_fails_clearly() {
    let Some(mount) = Mount::new("size=256k") else { return };
    fs::create_dir(mount.0.path().join("dir")).unwrap();
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(mount.0.path()).status();
    assert!(remounted.unwrap().success());
    let target = Target::open(mount.0.path(), TargetOptions::default()).unwrap();
    let dir = target.make_dir(&target.root(), b"dir").unwrap();
    let error = target.create_file(&dir, b"file", 0).unwrap_err();
    assert_eq!(error.class(), Class::Failed);
    let shown = format!("{error}: {}", std::error::Error::source(&error).unwrap());
    assert!(shown.contains("dir/file") && shown.contains("Read-only"), "{shown}");
    assert_failures(&target.finish_dir(&dir, &plain(0o700)).unwrap(), &[Attribute::Mode, Attribute::Times]);
}

/// `cargo test --release creation_speed -- --ignored --nocapture`, with `TMPDIR` on a fresh file system: ext4 is slow
/// for minutes after many files were deleted.
#[test]
#[ignore = "a measurement"]
fn creation_speed() {
    const FILES: usize = 60_000;
    let clock = crate::clock::SystemClock::new();
    for threads in [1, 2] {
        let (_dir, target) = target();
        let dirs: Vec<_> = (0..FILES / 100)
            .map(|n| target.make_dir(&target.root(), n.to_string().as_bytes()).unwrap())
            .collect();
        let start = crate::clock::Clock::monotonic(&clock);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (target, dirs) = (&target, &dirs);
                scope.spawn(move || {
                    for dir in dirs.iter().skip(thread).step_by(threads) {
                        for number in 0..100_u32 {
                            write(target, dir, number.to_string().as_bytes(), &[7; 600]).unwrap();
                        }
                    }
                });
            }
        });
        let micros = (crate::clock::Clock::monotonic(&clock) - start).as_secs_f64() * 1e6;
        println!(
            "{threads} threads: {:.1} µs a file, {:.0} files/s",
            micros / FILES as f64,
            FILES as f64 / micros * 1e6
        );
    }
}
