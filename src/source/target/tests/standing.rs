//! Files that are kept where they match.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::process::Stdio;

use super::*;

const LARGE: usize = 3 << 20;

fn resuming() -> (TempDir, Target) {
    with_options(TargetOptions { resume: true, ..TargetOptions::default() })
}

fn open(target: &Target, name: &[u8], len: usize) -> TargetFile {
    target.open_standing(&target.root(), name, len as u64).unwrap().expect("a file stands there")
}

fn large() -> Vec<u8> {
    (0..LARGE).map(|at| (at / 7 % 251) as u8 + 1).collect()
}

#[test]
fn a_large_file_is_written_where_it_stands_and_closed_to_others_meanwhile() {
    let (dir, target) = resuming();
    let path = dir.path().join("target/file");
    fs::write(&path, large()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    let file = open(&target, b"file", LARGE);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644, "looking changes nothing");
    file.write_at(b"new", 2 << 20).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert!(file.is_mixed());
    assert!(file.finish(&plain(0o640)).unwrap().is_empty());
    let mut expected = large();
    expected[2 << 20..(2 << 20) + 3].copy_from_slice(b"new");
    assert!(fs::read(&path).unwrap() == expected);
    let stat = fs::metadata(&path).unwrap();
    assert_eq!((stat.ino(), stat.mode() & 0o7777, stat.mtime_nsec()), (inode, 0o640, 123_456_789));
}

#[test]
fn what_is_right_already_is_not_touched() {
    let (dir, target) = resuming();
    let path = dir.path().join("target/file");
    write(&target, &target.root(), b"file", b"content").unwrap();
    let before = fs::metadata(&path).unwrap();
    let file = open(&target, b"file", 7);
    assert!(file.is_untouched(&plain(0o644)).unwrap() && !file.is_untouched(&plain(0o600)).unwrap());
    assert!(file.finish(&plain(0o644)).unwrap().is_empty());
    let after = fs::metadata(&path).unwrap();
    assert_eq!(
        (before.ino(), before.ctime(), before.ctime_nsec()),
        (after.ino(), after.ctime(), after.ctime_nsec())
    );
    let file = open(&target, b"file", 7);
    assert!(file.finish(&plain(0o600)).unwrap().is_empty());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn a_small_file_is_old_or_new() {
    let (dir, target) = resuming();
    let path = dir.path().join("target/file");
    fs::write(&path, b"old content").unwrap();
    let file = open(&target, b"file", 9);
    file.write_at(b"new", 0).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old content");
    assert!(!file.is_mixed());
    let mut read = [0; 9];
    file.read_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"new conte");
    file.abandon().unwrap();
    assert_eq!(fs::read_dir(dir.path().join("target")).unwrap().count(), 1);
    let file = open(&target, b"file", 9);
    file.write_at(b"new", 0).unwrap();
    file.finish(&plain(0o644)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new conte");
    assert_eq!(fs::read_dir(dir.path().join("target")).unwrap().count(), 1);
}

#[test]
fn an_other_name_of_a_file_keeps_what_it_had() {
    for content in [large(), b"small".to_vec()] {
        let (dir, target) = resuming();
        let (path, other) = (dir.path().join("target/file"), dir.path().join("other"));
        fs::write(&path, &content).unwrap();
        fs::hard_link(&path, &other).unwrap();
        let before = fs::metadata(&other).unwrap();
        let file = open(&target, b"file", content.len());
        assert_eq!(file.stood().unwrap().links, 2);
        file.write_at(b"N", 1).unwrap();
        file.finish(&plain(0o600)).unwrap();
        assert!(fs::read(&other).unwrap() == content);
        let after = fs::metadata(&other).unwrap();
        assert_eq!((after.ino(), after.mode(), after.mtime()), (before.ino(), before.mode(), before.mtime()));
        let mut expected = content.clone();
        expected[1] = b'N';
        assert!(fs::read(&path).unwrap() == expected);
        // Without a write, too, if that is asked for.
        fs::remove_file(&path).unwrap();
        fs::hard_link(&other, &path).unwrap();
        let file = open(&target, b"file", content.len());
        file.separate().unwrap();
        file.finish(&plain(0o600)).unwrap();
        assert!(fs::read(&path).unwrap() == content);
        assert_eq!(fs::metadata(&other).unwrap().nlink(), 1);
    }
}

#[test]
fn a_symlink_that_takes_the_place_of_a_file_is_told_of_and_not_followed() {
    for content in [large(), b"small".to_vec()] {
        for late in [false, true] {
            let (dir, target) = resuming();
            let (path, outside) = (dir.path().join("target/file"), dir.path().join("outside"));
            fs::write(&path, &content).unwrap();
            fs::write(&outside, &content).unwrap();
            let file = open(&target, b"file", content.len());
            if late {
                file.write_at(b"N", 1).unwrap();
            }
            fs::remove_file(&path).unwrap();
            symlink(&outside, &path).unwrap();
            let written = file.write_at(b"N", 2);
            let done = written.and_then(|()| file.finish(&plain(0o600)));
            assert!(matches!(done, Err(TargetError::Changed { .. })), "{done:?}");
            assert!(fs::read(&outside).unwrap() == content);
            assert_eq!(fs::read_link(&path).unwrap(), outside);
        }
    }
}

#[test]
fn a_new_file_that_was_replaced_meanwhile_is_told_of() {
    let (dir, target) = target();
    let (path, outside) = (dir.path().join("target/file"), dir.path().join("outside"));
    fs::write(&outside, b"theirs").unwrap();
    let file = target.create_file(&target.root(), b"file", 4).unwrap();
    fs::remove_file(&path).unwrap();
    symlink(&outside, &path).unwrap();
    file.write_at(b"ours", 0).unwrap();
    let done = file.finish(&plain(0o600));
    assert!(matches!(done, Err(TargetError::Changed { .. })), "{done:?}");
    assert_eq!(fs::read(&outside).unwrap(), b"theirs");
}

#[test]
fn a_program_that_runs_is_replaced() {
    let (dir, target) = resuming();
    let path = dir.path().join("target/program");
    fs::copy("/bin/bash", &path).unwrap();
    let content = fs::read(&path).unwrap();
    if content.len() <= 1 << 20 {
        println!("skipped: the shell is small here");
        return;
    }
    let mut running =
        Command::new(&path).args(["-c", "read line; exit 7"]).stdin(Stdio::piped()).spawn().unwrap();
    let file = open(&target, b"program", content.len());
    file.write_at(b"#!", 0).unwrap();
    file.finish(&plain(0o700)).unwrap();
    running.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(7));
    assert!(fs::read(&path).unwrap().starts_with(b"#!"));
}

#[test]
fn holes_are_made_where_the_snapshot_has_them() {
    let (dir, target) = resuming();
    let path = dir.path().join("target/file");
    for len in [4 << 20, 512 << 10] {
        fs::write(&path, vec![7; len]).unwrap();
        let file = open(&target, b"file", len);
        file.clear(100, 300_000).unwrap();
        file.clear(len as u64 - 5, 100).unwrap();
        file.finish(&plain(0o600)).unwrap();
        let content = fs::read(&path).unwrap();
        let zero = content.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at);
        assert!(zero.eq((100..300_100).chain(len - 5..len)));
        assert!(
            fs::metadata(&path).unwrap().blocks() * 512 <= len as u64 - 280_000,
            "the room is given back"
        );
    }
    // Nothing is written where there are zeroes, or nothing, already.
    let hole = fs::File::create(&path).unwrap();
    hole.set_len(4 << 20).unwrap();
    hole.write_all_at(&[0; 10], 5).unwrap();
    let file = open(&target, b"file", 8 << 20);
    file.clear(0, 8 << 20).unwrap();
    assert!(!file.is_mixed());
    file.finish(&plain(0o600)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 8 << 20);
}

#[test]
fn attributes_that_the_snapshot_does_not_have_go() {
    let (dir, target) = resuming();
    let path = dir.path().join("target/file");
    fs::write(&path, b"content").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(&path, "user.stray", b"x", flags).is_err() {
        println!("skipped: this file system has no attributes");
        return;
    }
    rustix::fs::setxattr(&path, "user.kept", b"old", flags).unwrap();
    let wanted = Metadata { xattrs: vec![(b"user.kept", b"new")], ..plain(0o644) };
    assert!(open(&target, b"file", 7).finish(&wanted).unwrap().is_empty());
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(&path, "user.kept", &mut value).unwrap(), 3);
    assert_eq!(&value[..3], b"new");
    assert!(rustix::fs::getxattr(&path, "user.stray", &mut value).is_err());
    assert!(open(&target, b"file", 7).is_untouched(&wanted).unwrap());
}

#[test]
fn only_regular_files_that_may_be_read_are_kept() {
    let (dir, target) = resuming();
    let place = dir.path().join("target");
    fs::create_dir(place.join("dir")).unwrap();
    symlink("dir", place.join("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, place.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    for name in [&b"dir"[..], b"link", b"pipe", b"nothing"] {
        assert!(target.open_standing(&target.root(), name, 1).unwrap().is_none(), "{}", name.escape_ascii());
    }
    assert!(target.open_standing(&target.root(), b"../x", 1).is_err());
    let links = target.keep_symlink(&target.root(), b"link", b"other", &plain(0o777)).unwrap();
    assert!(links.is_none());
    assert!(target.keep_symlink(&target.root(), b"link", b"dir", &plain(0o777)).unwrap().unwrap().is_empty());
    assert_eq!(fs::symlink_metadata(place.join("link")).unwrap().mtime_nsec(), 123_456_789);
    assert!(target.keep_node(&target.root(), b"pipe", NodeKind::Socket, &plain(0o600)).unwrap().is_none());
    assert!(target.keep_node(&target.root(), b"pipe", NodeKind::Fifo, &plain(0o600)).unwrap().is_some());
}

#[test]
fn a_target_that_is_moved_is_told_of() {
    let (dir, target) = target();
    target.check_place().unwrap();
    let sub = target.make_dir(&target.root(), b"sub").unwrap();
    fs::rename(dir.path().join("target/sub"), dir.path().join("elsewhere")).unwrap();
    symlink(dir.path().join("elsewhere"), dir.path().join("target/sub")).unwrap();
    assert!(matches!(target.finish_dir(&sub, &plain(0o755)), Err(TargetError::Changed { .. })));
    fs::rename(dir.path().join("target"), dir.path().join("moved")).unwrap();
    assert!(matches!(target.check_place(), Err(TargetError::Changed { .. })));
    fs::create_dir(dir.path().join("target")).unwrap();
    assert!(matches!(target.check_place(), Err(TargetError::Changed { .. })));
}

#[test]
fn a_target_that_takes_no_writes_any_more_is_known() {
    let Some(mount) = Mount::new("size=1M") else { return };
    let target = Target::open(&mount.0.path().join("t"), TargetOptions::default()).unwrap();
    assert!(!target.is_gone());
    let again = Command::new("mount").args(["-o", "remount,ro"]).arg(mount.0.path()).status().unwrap();
    assert!(again.success());
    let error = target.create_file(&target.root(), b"f", 1).unwrap_err();
    assert!(error.may_be_gone() && target.is_gone());
}
