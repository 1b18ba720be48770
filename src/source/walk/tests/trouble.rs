//! What goes wrong in a tree, and what is not entered.

use super::*;

fn with_hook(dir: &Path, hook: impl Fn(&Path) + Send + Sync + 'static) -> Vec<String> {
    let tuning = Tuning { after_listing: Some(Arc::new(hook)), ..Tuning::default() };
    walked(WalkOptions { tuning, threads: 0, ..options(bare(dir)) })
}

#[test]
fn what_vanishes_or_is_replaced_fails_alone() {
    let dir = tree(&["a", "b", "c/d/x", "e"]);
    let root = dir.path().to_owned();
    let got = with_hook(dir.path(), move |listed| {
        if listed == root {
            fs::remove_file(root.join("b")).unwrap();
        } else if listed == root.join("c") {
            fs::write(root.join("c/new"), b"").unwrap();
        }
    });
    assert_eq!(got, ["/", "a", "!b", "c/", "d/", "x", "^", "^", "e", "^"]);

    // Between the look at a directory and its listing, a symbolic link or another directory takes its place.
    for link in [true, false] {
        let dir = tree(&["a/inner", "m/other", "z"]);
        let (mut walk, _) = Walk::new(WalkOptions { threads: 0, ..options(bare(dir.path())) }).unwrap();
        assert!(matches!(walk.next().unwrap(), Some(Item::Enter { .. })));
        fs::rename(dir.path().join("a"), dir.path().join("moved")).unwrap();
        if link {
            symlink("/etc", dir.path().join("a")).unwrap();
        } else {
            fs::create_dir(dir.path().join("a")).unwrap();
        }
        match walk.next().unwrap() {
            Some(Item::Enter { entry, error: Some(SourceError::Replaced { .. }) }) => {
                assert_eq!(entry.name(), b"a")
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(lines(&mut walk), [&b"^"[..], b"m/", b"other", b"^", b"z", b"^"]);
    }
}

/// Runs `work` without the rights of root, on a thread of its own.
fn unprivileged<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let run = || {
            if rustix::process::geteuid().is_root() {
                use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
                let now = capabilities(None).ok()?;
                let rights =
                    CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH | CapabilitySet::FOWNER;
                let effective = now.effective.difference(rights);
                set_capabilities(None, CapabilitySets { effective, ..now }).ok()?;
            }
            Some(work())
        };
        scope.spawn(run).join().unwrap()
    })
}

#[test]
fn an_unreadable_directory_keeps_its_siblings() {
    let dir = tree(&["a", "b/hidden", "c/listed", "d"]);
    let mode = |name: &str, mode| {
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap()
    };
    mode("b", 0o000);
    // May be listed but not searched: every entry in it fails, one by one.
    mode("c", 0o444);
    let got = unprivileged(|| walked(WalkOptions { threads: 0, ..options(bare(dir.path())) }));
    mode("b", 0o700);
    mode("c", 0o700);
    match got {
        Some(got) => assert_eq!(got, ["/", "a", "!b/", "^", "c/", "!listed", "^", "d", "^"]),
        None => println!("skipped: cannot give up the rights of root"),
    }
}

#[test]
fn the_kernels_own_file_systems_are_shown_empty() {
    if !Path::new("/proc/self").exists() {
        println!("skipped: no /proc");
        return;
    }
    let mut builder = FilterBuilder::new();
    for name in fs::read_dir("/").unwrap().map(|entry| entry.unwrap().file_name()) {
        if name != "proc" {
            builder.exclude(&[b"/", name.as_bytes()].concat(), false).unwrap();
        }
    }
    let filter = Arc::new(builder.build().unwrap());
    let (mut walk, _) =
        Walk::new(WalkOptions { filter, ..options(vec![Root::at(PathBuf::from("/"))]) }).unwrap();
    assert_eq!(lines(&mut walk), [&b"/"[..], b"proc/", b"^", b"^"]);
    assert_eq!(walk.stats().pseudo, 1);
    let (mut asked, _) = Walk::new(options(vec![Root::at(PathBuf::from("/proc/self/fdinfo"))])).unwrap();
    assert!(lines(&mut asked).len() > 8, "asked for by name, it is walked");
    let one = walked(WalkOptions {
        one_file_system: true,
        ..options(vec![Root::at(PathBuf::from("/proc/sys/fs"))])
    });
    assert!(one.iter().any(|line| line == "file-nr"));
}

#[test]
fn a_mount_inside_itself_ends_and_one_file_system_stops_there() {
    let dir = tree(&["a/b/f", "a/z"]);
    let mount = |args: &[&str]| {
        std::process::Command::new("mount").args(args).output().is_ok_and(|o| o.status.success())
    };
    let (from, to) = (dir.path().to_str().unwrap(), dir.path().join("a/b"));
    if !mount(&["--bind", from, to.to_str().unwrap()]) {
        println!("skipped: mounts need root");
        return;
    }
    let all = walked(options(bare(dir.path())));
    let one = walked(WalkOptions { one_file_system: true, ..options(bare(dir.path())) });
    assert!(std::process::Command::new("umount").arg(&to).status().unwrap().success());
    assert_eq!(all, ["/", "a/", "!b/", "^", "z", "^", "^"]);
    assert_eq!(one, ["/", "a/", "b/", "^", "z", "^", "^"]);
}

#[test]
fn a_cancelled_walk_does_not_look_complete_and_an_abandoned_one_ends() {
    let dir = tree(&["a/b", "c/d"]);
    let options = options(bare(dir.path()));
    let cancel = options.cancel.clone();
    let (mut walk, _) = Walk::new(options).unwrap();
    assert!(walk.next().unwrap().is_some());
    cancel.raise();
    assert!(matches!(walk.next(), Err(SourceError::Cancelled)));
}
