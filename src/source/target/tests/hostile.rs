//! Names, links and swaps that try to lead out of the target.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;
use crate::class::Class;

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
    type Make<'a> = &'a dyn Fn(&[u8]);
    let make: [Make<'_>; 5] = [
        &|name| write(&target, &root, name, b"inside").unwrap(),
        &|name| assert!(target.symlink(&root, name, b"elsewhere", &plain(0)).unwrap().is_empty()),
        &|name| assert!(target.make_node(&root, name, NodeKind::Fifo, &plain(0o622)).unwrap().is_empty()),
        &|name| assert!(target.hard_link(&root, name, &source).unwrap().is_empty()),
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
        fs::write(path.join("old"), b"old").unwrap();
        let error = target.hard_link(&root, b"old", &source).unwrap_err();
        assert!(matches!(error, TargetError::Changed { .. }), "{error}");
        assert_eq!(fs::read(path.join("old")).unwrap(), b"old", "the wrong link replaces nothing");
        let names = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.filter(|name| name.as_bytes().starts_with(b".lifeboat-")).count(), 0);
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

#[test]
fn threads_that_make_one_directory_over_a_planted_link_all_enter_it() {
    let (dir, target) = target();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for turn in 0..200 {
        symlink(&outside, dir.path().join("target").join(turn.to_string())).unwrap();
        std::thread::scope(|scope| {
            for thread in ["a", "b", "c"] {
                let target = &target;
                scope.spawn(move || {
                    let sub = target.make_dir(&target.root(), turn.to_string().as_bytes()).unwrap();
                    write(target, &sub, thread.as_bytes(), b"x").unwrap();
                });
            }
        });
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}
