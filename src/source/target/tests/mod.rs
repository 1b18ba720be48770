//! What the tests of the target share.

mod hostile;
mod limits;
mod metadata;
mod remove;
mod replace;
mod standing;

use std::process::Command;

use rustix::process::{Gid, Uid};
use tempfile::TempDir;

use super::*;

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

fn assert_failures(failures: &[MetadataFailure], expected: &[Attribute]) {
    let what: Vec<_> = failures.iter().map(|failure| failure.what.clone()).collect();
    assert_eq!(what, expected, "{failures:?}");
}
