//! What stands in the target stays until what replaces it is complete.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::*;

fn only(path: &Path, content: &[u8]) {
    let names: Vec<_> =
        fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names, [path]);
    assert_eq!(fs::read(path).unwrap(), content);
}

#[test]
fn a_file_takes_its_place_when_it_is_finished() {
    let (dir, target) = target();
    let path = dir.path().join("target/file");
    fs::write(&path, b"old").unwrap();
    let file = target.create_file(&target.root(), b"file", 3).unwrap();
    file.write_at(b"new", 0).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    let source = file.link_source().unwrap();
    let early = target.hard_link(&target.root(), b"link", &source);
    assert!(matches!(early, Err(TargetError::Changed { .. })), "{early:?}");
    assert!(file.finish(&plain(0o640)).unwrap().is_empty());
    only(&path, b"new");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    target.hard_link(&target.root(), b"link", &source).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 2);
}

#[test]
fn a_file_that_is_given_up_or_refused_leaves_the_old_one() {
    let (dir, target) = target();
    let path = dir.path().join("target/file");
    fs::write(&path, b"old").unwrap();
    let file = target.create_file(&target.root(), b"file", 3).unwrap();
    file.write_at(b"new", 0).unwrap();
    file.discard().unwrap();
    only(&path, b"old");
    let huge = target.create_file(&target.root(), b"file", u64::MAX).unwrap();
    huge.finish(&plain(0o600)).unwrap_err();
    only(&path, b"old");
    // Somebody puts a directory there, or takes the unfinished file away.
    let file = target.create_file(&target.root(), b"file", 0).unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = file.finish(&plain(0o600)).unwrap_err();
    assert!(matches!(error, TargetError::IsDirectory { .. }), "{error}");
    fs::remove_dir(&path).unwrap();
    fs::write(&path, b"old").unwrap();
    let file = target.create_file(&target.root(), b"file", 0).unwrap();
    for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap().path();
        if entry != path {
            fs::remove_file(&entry).unwrap();
            fs::write(&entry, b"another").unwrap();
            fs::rename(&entry, dir.path().join("aside")).unwrap();
        }
    }
    let error = file.finish(&plain(0o600)).unwrap_err();
    assert!(matches!(error, TargetError::Changed { .. }), "{error}");
    only(&path, b"old");
}

#[test]
fn a_spare_name_that_is_taken_is_left_alone() {
    let (dir, target) = target();
    let path = dir.path().join("target/file");
    fs::write(&path, b"old").unwrap();
    let taken = dir.path().join(format!("target/.lifeboat-{}-0", std::process::id()));
    fs::write(&taken, b"an earlier run's").unwrap();
    write(&target, &target.root(), b"file", b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::read(&taken).unwrap(), b"an earlier run's");
    assert_eq!(fs::read_dir(dir.path().join("target")).unwrap().count(), 2);
}

#[test]
fn a_device_that_may_not_be_made_costs_nothing() {
    as_user(|place| {
        let target = Target::open(&place.join("target"), TargetOptions::default()).unwrap();
        let path = place.join("target/file");
        fs::write(&path, b"old").unwrap();
        let kind = NodeKind::CharDevice(rustix::fs::makedev(1, 3));
        let failures = target.make_node(&target.root(), b"file", kind, &plain(0o600)).unwrap();
        assert_failures(&failures, &[Attribute::Device]);
        only(&path, b"old");
    });
}

#[test]
fn a_link_to_something_immutable_replaces_too() {
    let (dir, target) = target();
    let root = target.root();
    let file = target.create_file(&root, b"first", 3).unwrap();
    file.write_at(b"new", 0).unwrap();
    let source = file.link_source().unwrap();
    let immutable = Metadata { flags: rustix::fs::IFlags::IMMUTABLE.bits(), ..plain(0o600) };
    let unset = file.finish(&immutable).unwrap();
    fs::write(dir.path().join("target/second"), b"old").unwrap();
    let linked = target.hard_link(&root, b"second", &source);
    let first = fs::File::open(dir.path().join("target/first")).unwrap();
    if unset.is_empty() {
        rustix::fs::ioctl_setflags(&first, rustix::fs::IFlags::empty()).unwrap();
    } else {
        println!("not checked: this file system or this user sets no flags");
    }
    assert!(linked.unwrap().is_empty());
    assert_eq!(first.metadata().unwrap().nlink(), 2);
    assert_eq!(fs::read_dir(dir.path().join("target")).unwrap().count(), 2);
}

#[test]
fn a_link_stands_even_if_its_source_cannot_be_protected_again() {
    let (dir, target) = target();
    let root = target.root();
    let file = target.create_file(&root, b"first", 0).unwrap();
    let source = file.link_source().unwrap();
    let immutable = Metadata { flags: rustix::fs::IFlags::IMMUTABLE.bits(), ..plain(0o644) };
    if !file.finish(&immutable).unwrap().is_empty() {
        println!("skipped: this file system or this user sets no flags");
        return;
    }
    let first = dir.path().join("target/first");
    let (made, unset) = std::thread::scope(|scope| {
        let link = || {
            let fd = root.fd().unwrap();
            entry::unprotected(fd.as_fd(), &source, || {
                fs::hard_link(&first, first.with_file_name("second")).unwrap();
                // Only this thread becomes a user who may not protect anything.
                let user = Uid::from_raw(65534);
                rustix::thread::set_thread_res_uid(user, user, user).unwrap();
                Ok(())
            })
        };
        scope.spawn(link).join().unwrap().unwrap()
    });
    made.unwrap();
    assert_failures(&Vec::from_iter(unset), &[Attribute::Flags]);
    assert_eq!(fs::metadata(&first).unwrap().nlink(), 2);
}

#[test]
fn what_is_to_be_immutable_takes_its_place_first() {
    let (dir, target) = target();
    let path = dir.path().join("target/file");
    fs::write(&path, b"old").unwrap();
    let file = target.create_file(&target.root(), b"file", 3).unwrap();
    file.write_at(b"new", 0).unwrap();
    let immutable = Metadata { flags: rustix::fs::IFlags::IMMUTABLE.bits(), ..plain(0o600) };
    let finished = file.finish(&immutable);
    let left = fs::File::open(&path).unwrap();
    if finished.as_ref().is_ok_and(Vec::is_empty) {
        rustix::fs::ioctl_setflags(&left, rustix::fs::IFlags::empty()).unwrap();
    }
    finished.unwrap();
    only(&path, b"new");
}
