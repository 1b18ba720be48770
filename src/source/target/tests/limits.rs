//! Depth, breadth, threads, holes, and targets that are full or read-only.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

use super::*;
use crate::class::Class;

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
    const DEPTH: usize = 10_000;
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
    let entries = ignore::WalkBuilder::new(dir.path()).standard_filters(false).build().flatten();
    let files = entries.filter(|e| e.file_type().is_some_and(|kind| kind.is_file()));
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
