//! Disk images and block devices, there and back. Devices need root and loop devices; where there are none, a line says so.

#![allow(clippy::print_stderr, reason = "a test that is left out says so")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Place, damage, noise};

const MIB: u64 = 1 << 20;

/// A loop device, gone when the test ends.
struct Loop(PathBuf);

impl Loop {
    /// None, with a line, where there are no loop devices.
    fn over(file: &Path) -> Option<Self> {
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output();
        match made {
            Ok(made) if made.status.success() => {
                Some(Self(PathBuf::from(String::from_utf8(made.stdout).unwrap().trim())))
            }
            other => {
                eprintln!("skipped: no loop device here ({other:?})");
                None
            }
        }
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

fn done(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).status().is_ok_and(|status| status.success())
}

/// 24 MiB: data, a hole, zeroes that are written, data, a long hole, a last page of data.
fn image(path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(24 * MIB).unwrap();
    file.write_all_at(&noise(3 << 20, 1), 0).unwrap();
    file.write_all_at(&vec![0; 2 << 20], 6 * MIB).unwrap();
    file.write_all_at(&noise(4 << 20, 2), 8 * MIB).unwrap();
    file.write_all_at(&noise(4096, 3), 24 * MIB - 4096).unwrap();
}

/// Changes 1 % of the pages that hold data.
fn change(file: &File) {
    for n in 0..18 {
        file.write_all_at(&noise(4096, 100 + n), 8 * MIB + n * 57 * 4096).unwrap();
    }
}

fn same(one: &Path, two: &Path) {
    let size = fs::metadata(two).unwrap().len().to_string();
    assert!(done("cmp", &["-n", &size, one.to_str().unwrap(), two.to_str().unwrap()]), "{one:?} {two:?}");
}

#[test]
fn an_image_file_costs_its_data_and_comes_back_with_its_holes() {
    let place = Place::with_repository();
    let path = place.path("disk.img");
    image(&path);
    let first = place.run(["backup", "--json", "--image", "disk.img", "--as", "/vm"]).exits(0).last();
    let data = 7 * MIB + 4096;
    // The pages at the edges of data are read with it.
    let new = first["new_bytes"].as_u64().unwrap();
    assert!((data..data + 64 * 1024).contains(&new), "{first}");
    assert_eq!(first["bytes"], 24 * MIB, "{first}");
    assert!(first["bytes_read"].as_u64().unwrap() <= 10 * MIB, "holes are not read: {first}");

    assert!(done("sleep", &["0.1"]));
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    change(&file);
    let second = place.run(["backup", "--json", "--image", "disk.img", "--as", "/vm"]).exits(0).last();
    let new = second["new_bytes"].as_u64().unwrap();
    assert!(new < 3 * MIB, "{second}");
    assert!(done("sleep", &["0.1"]));
    place.run(["backup", "--image", "disk.img", "--as", "/vm"]).exits(0);
    let again = place.run(["backup", "--json", "--image", "disk.img", "--as", "/vm"]).exits(0).last();
    assert_eq!((&again["bytes_read"], &again["unchanged_files"]), (&0.into(), &1.into()), "{again}");

    place.run(["restore", "latest", "--target", "target", "--verify"]).exits(0);
    let back = place.path("target/vm");
    same(&back, &path);
    let blocks = |path: &Path| fs::metadata(path).unwrap().blocks();
    assert!(blocks(&back) <= blocks(&path), "{} of {}", blocks(&back), blocks(&path));
}

#[test]
fn one_file_is_restored_under_another_name() {
    let place = Place::with_repository();
    image(&place.path("disk.img"));
    place.run(["backup", "src", "--image", "disk.img", "--as", "/x"]).exits(0);
    place.write("new.img", b"what stood there");
    for name in ["new.img", "deep/below/new.img"] {
        place.run(["restore", "latest:/x/disk.img", "--to-file", name, "--verify"]).exits(0);
        same(&place.path(name), &place.path("disk.img"));
        assert!(fs::metadata(place.path(name)).unwrap().blocks() * 512 < 8 * MIB, "with its holes");
    }
    place.run(["restore", "latest:/x/src", "--to-file", "new.img"]).exits(1);
    place.run(["restore", "latest", "--to-file", "new.img"]).exits(1);
    place.run(["restore", "latest:/x/disk.img", "--to-file", "target/"]).exits(2);
    place.run(["restore", "latest:/x/disk.img", "--to-file", "target"]).exits(3);
    place.run(["restore", "latest:/x/disk.img", "--to-file", "a", "--target", "b"]).exits(2);
    place.run(["restore", "latest:/x/disk.img"]).exits(2);
    same(&place.path("new.img"), &place.path("disk.img"));
}

#[test]
fn several_images_and_files_share_a_snapshot() {
    let place = Place::with_repository();
    fs::write(place.path("one.img"), vec![0; 1 << 20]).unwrap();
    fs::write(place.path("two.img"), b"").unwrap();
    std::os::unix::fs::symlink("one.img", place.path("link.img")).unwrap();
    let args = ["backup", "src", "--json", "--image", "link.img", "two.img"];
    let summary = place.run(args).exits(0).last();
    assert_eq!(summary["files"], 4, "{summary}");
    let listed = place.run(["ls", "--json"]).exits(0).objects();
    let node = |name: &str| {
        listed.iter().find(|node| node["path"].as_str().unwrap().ends_with(name)).unwrap().clone()
    };
    // The link is followed: it is the way to the image.
    assert_eq!((&node("/link.img")["kind"], &node("/link.img")["size"]), (&"file".into(), &(1 << 20).into()));
    assert_eq!((&node("/two.img")["kind"], &node("/two.img")["size"]), (&"file".into(), &0.into()));
    let stored = place.run(["snapshots", "--json"]).exits(0).last();
    assert_eq!(stored["paths"].as_array().unwrap().len(), 3, "{stored}");
}

#[test]
fn what_is_no_image_is_refused_and_what_is_missing_is_told() {
    let place = Place::with_repository();
    let run = place.run(["backup", "--image", "src"]).exits(2);
    assert!(run.err.contains("neither a block device nor a regular file"), "{run:?}");
    place.run(["backup", "--image", "nothing.img"]).exits(1);
    place.run(["backup", "src", "--image", "nothing.img"]).exits(3);
    place.run(["backup", "-", "--image", "src/a"]).exits(2);
    place.run(["backup", "--image", "/dev/null"]).exits(2);
    place.run(["backup", "--image"]).exits(2);
}

#[test]
fn a_device_is_saved_as_its_content_only_if_that_is_asked_for() {
    let place = Place::with_repository();
    image(&place.path("disk.img"));
    let Some(device) = Loop::over(&place.path("disk.img")) else { return };
    place.run(["backup", device.path(), "--job", "d"]).exits(0);
    let node = |job: &str| place.run(["ls", "latest", "--job", job, "--json"]).exits(0).last();
    assert_eq!(node("d")["kind"], "block_device");
    let args = ["backup", "--json", "--job", "d", "--image", device.path()];
    let first = place.run(args).exits(0).last();
    let node = node("d");
    assert_eq!((&node["kind"], &node["size"]), (&"file".into(), &(24 * MIB).into()), "{node}");
    assert!(first["new_bytes"].as_u64().unwrap() < 8 * MIB, "{first}");
    // Nothing tells of a change of a device, so it is read again; what is found is known.
    let file = OpenOptions::new().write(true).open(&device.0).unwrap();
    change(&file);
    drop(file);
    let second = place.run(args).exits(0).last();
    assert_eq!(second["bytes_read"], 24 * MIB, "{second}");
    assert!(second["new_bytes"].as_u64().unwrap() < 3 * MIB, "{second}");
    let source = format!("latest:{}", device.path());
    place.run(["restore", &source, "--job", "d", "--target", "target"]).exits(0);
    let back = place.path("target").join(device.0.file_name().unwrap());
    assert!(fs::metadata(&back).unwrap().file_type().is_file());
    same(&back, &device.0);
    assert!(fs::metadata(&back).unwrap().blocks() * 512 < 9 * MIB, "zeroes are holes");
}

#[test]
fn an_image_goes_onto_a_device_that_is_free_and_large_enough_and_named_twice() {
    let place = Place::with_repository();
    image(&place.path("disk.img"));
    place.run(["backup", "--image", "disk.img", "--as", "/vm"]).exits(0);
    let before = noise(26 << 20, 9);
    fs::write(place.path("back.img"), &before).unwrap();
    fs::write(place.path("small.img"), noise(20 << 20, 8)).unwrap();
    let Some(device) = Loop::over(&place.path("back.img")) else { return };
    let Some(small) = Loop::over(&place.path("small.img")) else { return };

    let run = place.run(["restore", "latest:/vm", "--target", device.path()]).exits(7);
    assert!(run.err.contains("--overwrite-device"), "{run:?}");
    place.run(["restore", "latest:/vm", "--target", device.path(), "-n"]).exits(0);
    place.run(["restore", "latest:/vm", "--target", small.path(), "--overwrite-device"]).exits(14);
    place.run(["restore", "latest", "--target", device.path(), "--overwrite-device"]).exits(1);
    assert!(fs::read(&device.0).unwrap() == before, "nothing was written");

    let args = ["restore", "latest:/vm", "--target", device.path(), "--overwrite-device", "--verify"];
    let run = place.run(args).exits(0);
    assert!(run.err.contains(&format!("{} bytes larger", 2 * MIB)), "{run:?}");
    same(&device.0, &place.path("disk.img"));
    assert!(fs::read(&device.0).unwrap()[24 << 20..] == before[24 << 20..], "what lies behind stays");
    assert!(fs::metadata(&device.0).unwrap().file_type().is_block_device());
    assert!(done("sync", &[]));
    let blocks = fs::metadata(place.path("back.img")).unwrap().blocks() * 512;
    assert!(blocks < 12 * MIB, "{blocks}: the space of zeroes is given back");
}

#[test]
fn thousands_of_holes_come_back_in_a_file_and_as_zeroes_on_a_device() {
    let place = Place::with_repository();
    let file = File::create(place.path("disk.img")).unwrap();
    file.set_len(96 * MIB).unwrap();
    for n in 0..3072 {
        file.write_all_at(&noise(4096, n), n * 32 * 1024 + 8192).unwrap();
    }
    place.run(["backup", "--image", "disk.img", "--as", "/vm"]).exits(0);
    place.run(["restore", "latest:/vm", "--to-file", "again.img", "--verify"]).exits(0);
    same(&place.path("again.img"), &place.path("disk.img"));
    let blocks = |name: &str| fs::metadata(place.path(name)).unwrap().blocks();
    assert!(blocks("again.img") <= blocks("disk.img"), "{} of {}", blocks("again.img"), blocks("disk.img"));
    fs::write(place.path("back.img"), vec![0xff; 96 << 20]).unwrap();
    let Some(device) = Loop::over(&place.path("back.img")) else { return };
    let args = ["restore", "latest:/vm", "--target", device.path(), "--overwrite-device", "--verify"];
    place.run(args).exits(0);
    same(&device.0, &place.path("disk.img"));
}

#[test]
fn a_device_that_is_in_use_is_not_written_and_one_that_is_written_to_is_warned_of() {
    let place = Place::with_repository();
    fs::write(place.path("file.img"), noise(1 << 20, 4)).unwrap();
    place.run(["backup", "--image", "file.img", "--as", "/vm"]).exits(0);
    File::create(place.path("fs.img")).unwrap().set_len(16 * MIB).unwrap();
    let Some(device) = Loop::over(&place.path("fs.img")) else { return };
    let mount = place.path("target");
    let mounted =
        done("mkfs.ext4", &["-q", device.path()]) && done("mount", &[device.path(), mount.to_str().unwrap()]);
    if !mounted {
        eprintln!("skipped: nothing can be mounted here");
        return;
    }
    let refused = place.run(["restore", "latest:/vm", "--target", device.path(), "--overwrite-device"]);
    let backup = place.run(["backup", "--job", "m", "--image", device.path()]);
    let remounted = done("mount", &["-o", "remount,ro", mount.to_str().unwrap()]);
    let quiet = place.run(["backup", "--job", "m", "--image", device.path()]);
    let by_file = place.run(["backup", "--job", "f", "--image", "fs.img"]);
    assert!(done("umount", &[mount.to_str().unwrap()]));
    assert!(refused.exits(7).err.contains("mounted at"));
    assert!(backup.exits(0).err.contains("mounted at"));
    assert!(remounted && !quiet.exits(0).err.contains("mounted"));
    assert!(!by_file.exits(0).err.contains("mounted"));
}

#[test]
fn a_device_that_cannot_be_read_in_the_middle_is_an_entry_that_failed() {
    let place = Place::with_repository();
    fs::write(place.path("bad.img"), noise(8 << 20, 6)).unwrap();
    let Some(device) = Loop::over(&place.path("bad.img")) else { return };
    // The device keeps its size, and has no medium behind the first half.
    OpenOptions::new().write(true).open(place.path("bad.img")).unwrap().set_len(4 * MIB).unwrap();
    if fs::read(&device.0).is_ok() {
        eprintln!("skipped: this system reads zeroes where a loop device has nothing");
        return;
    }
    let run = place.run(["backup", "src", "--image", device.path()]).exits(3);
    assert!(run.err.contains(device.path()), "{run:?}");
    let listed = place.run(["ls", "--json"]).exits(0).objects();
    let node = listed.iter().find(|node| node["path"] == device.path()).unwrap();
    assert_eq!((&node["kind"], &node["problem"]), (&"file".into(), &"unreadable".into()), "{node}");
    let path = format!("latest:{}", device.path());
    place.run(["restore", &path, "--target", "target"]).exits(3);
    assert_eq!(place.files("target").len(), 0, "nothing that looks like the device");
    place.run(["restore", &path, "--target", device.path(), "--overwrite-device"]).exits(1);
}

#[test]
fn a_lost_part_costs_a_device_only_that_part() {
    let place = Place::with_repository();
    fs::write(place.path("disk.img"), noise(48 << 20, 7)).unwrap();
    place.run(["backup", "--image", "disk.img", "--as", "/vm"]).exits(0);
    let mut packs = place.files("repo/packs");
    packs.sort_by_key(|pack| std::cmp::Reverse(fs::metadata(pack).unwrap().len()));
    assert!(packs.len() >= 3, "{packs:?}");
    damage(&packs[0]);
    fs::write(place.path("back.img"), vec![0; 48 << 20]).unwrap();
    let Some(device) = Loop::over(&place.path("back.img")) else { return };
    let args = ["restore", "latest:/vm", "--target", device.path(), "--overwrite-device", "--verify"];
    let run = place.run(args).exits(4);
    assert!(run.err.contains("what lay there on the device still does"), "{run:?}");
    let (saved, back) = (fs::read(place.path("disk.img")).unwrap(), fs::read(&device.0).unwrap());
    let lost = saved.chunks(4096).zip(back.chunks(4096)).filter(|(saved, back)| saved != back).count() * 4096;
    assert!((1..=4 << 20).contains(&lost), "{lost} bytes are lost");
}
