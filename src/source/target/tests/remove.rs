//! Removing what does not belong there.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

#[derive(Default)]
struct Log {
    keep: &'static [u8],
    kept: Option<(u64, u64)>,
    pretend: bool,
    removed: Vec<String>,
    failed: Vec<String>,
}

impl Removal for Log {
    fn stays(&self, path: &[u8], _: bool) -> bool {
        !self.keep.is_empty() && path.ends_with(self.keep)
    }

    fn is_kept(&self, dir: (u64, u64)) -> bool {
        self.kept == Some(dir)
    }

    fn pretend(&self) -> bool {
        self.pretend
    }

    fn removed(&mut self, path: &[u8]) {
        self.removed.push(String::from_utf8_lossy(path).into_owned());
    }

    fn failed(&mut self, path: &[u8], error: TargetError) {
        self.failed.push(format!("{}: {error}", String::from_utf8_lossy(path)));
    }
}

fn tree(place: &Path) {
    fs::create_dir_all(place.join("d/e/f")).unwrap();
    fs::write(place.join("d/e/file"), b"x").unwrap();
    fs::write(place.join("d/keep.me"), b"x").unwrap();
    fs::create_dir(place.join("outside")).unwrap();
    fs::write(place.join("outside/file"), b"x").unwrap();
    symlink("../outside", place.join("d/link")).unwrap();
}

#[test]
fn a_tree_goes_without_what_links_lead_to() {
    let (dir, target) = target();
    let place = dir.path().join("target");
    tree(&place);
    let mut log = Log { pretend: true, ..Log::default() };
    target.remove(&target.root(), b"d", &mut log);
    log.removed.sort();
    assert_eq!(log.removed, ["d", "d/e", "d/e/f", "d/e/file", "d/keep.me", "d/link"]);
    assert!(place.join("d/e/file").exists(), "nothing went");
    let mut log = Log::default();
    target.remove(&target.root(), b"d", &mut log);
    assert_eq!((log.removed.len(), log.failed.len()), (6, 0));
    assert!(!place.join("d").exists() && place.join("outside/file").exists());
    target.remove(&target.root(), b"nothing", &mut log);
    target.remove(&target.root(), b"../target", &mut log);
    assert!(place.exists());
}

#[test]
fn what_stays_keeps_the_directories_that_lead_to_it() {
    let (dir, target) = target();
    let place = dir.path().join("target");
    tree(&place);
    let mut log = Log { keep: b"keep.me", ..Log::default() };
    target.remove(&target.root(), b"d", &mut log);
    log.removed.sort();
    assert_eq!(log.removed, ["d/e", "d/e/f", "d/e/file", "d/link"]);
    assert_eq!(fs::read_dir(place.join("d")).unwrap().count(), 1);
}

#[test]
fn a_directory_that_is_kept_stays_with_all_that_is_in_it() {
    use std::os::unix::fs::MetadataExt;
    let (dir, target) = target();
    let place = dir.path().join("target");
    tree(&place);
    let kept = fs::metadata(place.join("d/e")).unwrap();
    let mut log = Log { kept: Some((kept.dev(), kept.ino())), ..Log::default() };
    target.remove(&target.root(), b"d", &mut log);
    log.removed.sort();
    assert_eq!((&log.removed[..], log.failed.len()), (&["d/keep.me".to_owned(), "d/link".to_owned()][..], 0));
    assert!(place.join("d/e/file").exists() && place.join("d/e/f").exists());
}

#[test]
fn what_is_mounted_is_left_alone_be_it_of_the_same_file_system() {
    let Some(mount) = Mount::new("size=1M") else { return };
    let (dir, target) = target();
    let place = dir.path().join("target");
    fs::create_dir(dir.path().join("beside")).unwrap();
    for bound in [mount.0.path(), &dir.path().join("beside")] {
        fs::create_dir_all(place.join("d/mount")).unwrap();
        fs::write(bound.join("file"), b"x").unwrap();
        let done = Command::new("mount").arg("--bind").arg(bound).arg(place.join("d/mount")).status();
        assert!(done.unwrap().success());
        let mut log = Log::default();
        target.remove(&target.root(), b"d", &mut log);
        Command::new("umount").arg("-l").arg(place.join("d/mount")).status().unwrap();
        assert_eq!(log.failed.len(), 1, "{:?}", log.failed);
        assert!(bound.join("file").exists() && place.join("d").exists());
    }
}

#[test]
fn depth_costs_no_stack() {
    let (dir, target) = target();
    let mut at = target.root();
    for _ in 0..3000 {
        at = target.make_dir(&at, b"d").unwrap();
    }
    let mut log = Log::default();
    target.remove(&target.root(), b"d", &mut log);
    assert_eq!((log.removed.len(), log.failed.len()), (3000, 0));
    assert_eq!(fs::read_dir(dir.path().join("target")).unwrap().count(), 0);
}
