//! Every kind of metadata, checked with the system's own tools, and what happens where it cannot be set.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::process::Command;

use super::*;
use crate::class::Class;

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
        ("mode", plain(!0o6000), vec![]),
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
