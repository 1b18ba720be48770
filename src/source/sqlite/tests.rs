//! Databases in every state, made byte by byte.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::super::file::{FileReader, Holes, open_file};
use super::super::sys::lock::{self, seize, share};
use super::super::walk::{Dir, open_test_dir};
use super::*;
use crate::clock::SystemClock;
use crate::sqlite::PENDING_BYTE;
use crate::sqlite::testing::{header, index, journal, wal};

fn at(dir: &Path, files: &[(&str, &[u8])]) -> Arc<Dir> {
    for (name, content) in files {
        fs::write(dir.join(name), content).unwrap();
    }
    open_test_dir(dir)
}

fn open(dir: &Arc<Dir>) -> Result<FileReader, SourceError> {
    let stat = crate::source::sys::stat::stat_at(&*dir.handle().unwrap(), c"db").unwrap();
    let (scratch, clock) = (tempfile::tempdir().unwrap(), SystemClock::new());
    let how = Copying { scratch: scratch.path(), clock: &clock, go_on: &|| true };
    let opened = open_file(dir, b"db", &stat).unwrap().consistent(&how);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "the copy has no name");
    opened
}

/// The copy, and what is wrong with it.
#[track_caller]
fn copy(dir: &Arc<Dir>) -> (Vec<u8>, Option<String>) {
    let file = open(dir).unwrap();
    assert!(file.stood_still().unwrap());
    assert_eq!(file.data_ranges(Holes::Skip).collect::<Vec<_>>(), vec![0..file.stat().size]);
    (read(&file), file.database_fault().map(|fault| fault.to_string()))
}

fn read(file: &FileReader) -> Vec<u8> {
    let mut content = vec![0; file.stat().size as usize + 9];
    let mut at = 0;
    loop {
        match file.read_at(&mut content[at..], at as u64).unwrap() {
            0 => break,
            read => at += read,
        }
    }
    content.truncate(at);
    content
}

fn write(dir: &Path, name: &str) -> File {
    File::options().read(true).write(true).open(dir.join(name)).unwrap()
}

/// A database of two pages, the second full of nines.
fn two_pages(wal: bool) -> Vec<u8> {
    [header(512, 2, wal), vec![9; 512]].concat()
}

#[test]
fn what_is_no_database_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let mut encrypted = two_pages(false);
    encrypted[0] ^= 1;
    for content in [&b"short"[..], &encrypted, &header(512, 1, false)[..99]] {
        let dir = at(place.path(), &[("db", content), ("db-wal", &wal(512, &[(1, 1)]))]);
        assert!(matches!(open(&dir), Err(SourceError::NotADatabase { .. })));
    }
    let dir = at(place.path(), &[("db", &two_pages(false))]);
    fs::hard_link(place.path().join("db"), place.path().join("other")).unwrap();
    assert!(matches!(open(&dir), Err(SourceError::LinkedDatabase { .. })));
}

#[test]
fn pages_of_the_log_stand_in_their_places() {
    let place = tempfile::tempdir().unwrap();
    // Page 3 is new, page 2 was written twice, and what comes behind the commit does not count.
    let log = wal(512, &[(2, 0), (3, 0), (2, 3), (2, 0)]);
    let dir = at(place.path(), &[("db", &two_pages(true)), ("db-wal", &log)]);
    let expected = [header(512, 2, true), vec![3; 512], vec![2; 512]].concat();
    assert!(copy(&dir) == (expected, None));
}

#[test]
fn a_log_that_cannot_be_used_is_said() {
    let place = tempfile::tempdir().unwrap();
    let flipped = |at: usize| {
        let mut log = wal(512, &[(2, 2), (1, 2), (2, 2)]);
        log[at] ^= 1;
        log
    };
    for (log, fault) in [
        (wal(512, &[(1, 4_000_000_000)]), true),
        (wal(1024, &[(2, 900)]), true),
        (b"no log at all, but long enough to be read".to_vec(), true),
        (wal(512, &[(2, 0)]), false),
        (vec![0; 4000], false),
        (vec![], false),
        (flipped(5), true),
        (flipped(32 + 100), true),
    ] {
        let dir = at(place.path(), &[("db", &two_pages(true)), ("db-wal", &log)]);
        let (content, said) = copy(&dir);
        assert!(content == two_pages(true));
        assert_eq!(said.is_some(), fault, "{said:?}");
    }
    // The first transaction stands; that there were others is said.
    let dir = at(place.path(), &[("db", &two_pages(true)), ("db-wal", &flipped(32 + 536 + 100))]);
    let (content, said) = copy(&dir);
    assert!(content[512..] == [1; 512] && said.is_some());
}

#[test]
fn a_database_that_was_cut_off_is_not_filled_with_zeroes() {
    let place = tempfile::tempdir().unwrap();
    let whole = [header(512, 4, true), vec![9; 1536]].concat();
    let log = wal(512, &[(2, 4), (1, 4), (3, 4)]);
    let dir = at(place.path(), &[("db", &whole[..1536]), ("db-wal", &log)]);
    let (content, said) = copy(&dir);
    assert!(content == whole[..1536] && said.is_some());
}

#[test]
fn what_a_killed_writer_changed_is_as_it_was() {
    let place = tempfile::tempdir().unwrap();
    let changed = [header(512, 3, false), vec![1; 512], vec![2; 512]].concat();
    let left = journal((512, 77, 2), &[(2, 9)]);
    let dir = at(place.path(), &[("db", &changed), ("db-journal", &left)]);
    let (content, said) = copy(&dir);
    assert_eq!(content.len(), 1024);
    // The first page was not in the journal, and says that there are three.
    assert!(content[512..] == [9; 512] && said.is_some());
    // A journal that is done with, and one of a writer that still goes on.
    for (content, writes) in [(vec![0; 900], false), (left.clone(), true)] {
        let dir = at(place.path(), &[("db", &changed), ("db-journal", &content)]);
        let writer = write(place.path(), "db");
        assert!(!writes || seize(&writer, locks::RESERVED).unwrap());
        assert!(copy(&dir) == (changed.clone(), None), "{writes}");
    }
    // One that says nothing, and one that ends too early.
    for bad in [b"dear diary, nothing happened today".to_vec(), left[..900].to_vec()] {
        let dir = at(place.path(), &[("db", &changed), ("db-journal", &bad)]);
        assert!(copy(&dir).1.is_some());
    }
}

#[test]
fn no_lock_outlasts_the_copy_and_no_file_is_made_or_changed() {
    let place = tempfile::tempdir().unwrap();
    for size in [512, SMALL as usize] {
        let content = [header(512, 2, false), vec![9; size]].concat();
        let dir = at(place.path(), &[("db", &content)]);
        let before = fs::metadata(place.path()).unwrap().modified().unwrap();
        let file = open(&dir).unwrap();
        assert!(seize(write(place.path(), "db"), (PENDING_BYTE, 512)).unwrap(), "{size}");
        assert!(read(&file) == content);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        assert_eq!(fs::metadata(place.path()).unwrap().modified().unwrap(), before);
    }
}

#[test]
fn a_stale_index_is_not_joined() {
    let place = tempfile::tempdir().unwrap();
    let log = wal(512, &[(2, 2)]);
    let files = [("db", &two_pages(true)[..]), ("db-wal", &log), ("db-shm", &[0; 32 << 10])];
    let dir = at(place.path(), &files);
    assert!(copy(&dir).0[512..] == [1; 512]);
    // Somebody has it open who never says what the log holds.
    let shm = write(place.path(), "db-shm");
    assert!(share(&shm, locks::OPEN).unwrap());
    assert!(copy(&dir).0[512..] == [1; 512]);
}

/// While a lock of the index is waited for, a writer commits to a log that was empty, and a part of it was copied into the file,
/// which grew.
#[test]
fn what_happens_during_the_wait_for_a_lock_is_seen() {
    let place = tempfile::tempdir().unwrap();
    let empty = index(0, 0, &[0; 8]);
    let dir = at(place.path(), &[("db", &two_pages(true)), ("db-wal", b""), ("db-shm", &empty)]);
    let shm = write(place.path(), "db-shm");
    assert!(share(&shm, locks::OPEN).unwrap() && seize(&shm, locks::COPYING).unwrap());
    let copied = std::thread::scope(|scope| {
        let copied = scope.spawn(|| copy(&dir));
        // It has looked at everything, and joins.
        while !copied.is_finished() && !lock::is_taken(&shm, locks::OPEN).unwrap() {
            std::thread::yield_now();
        }
        let log = wal(512, &[(1, 0), (2, 0), (3, 0), (4, 4)]);
        fs::write(place.path().join("db-wal"), &log).unwrap();
        let grown = [header(512, 2, true), vec![2; 512], vec![3; 512]].concat();
        write(place.path(), "db").write_all_at(&grown, 0).unwrap();
        shm.write_all_at(&index(4, 0, &log[16..24]), 0).unwrap();
        lock::release(&shm, locks::COPYING).unwrap();
        copied.join().unwrap()
    });
    // The first page is full of ones, which is no header.
    let expected = [vec![1; 512], vec![2; 512], vec![3; 512], vec![4; 512]].concat();
    assert!(copied.0 == expected, "{:?}", copied.1);
}

#[test]
fn a_log_that_the_index_speaks_of_must_be_there() {
    let place = tempfile::tempdir().unwrap();
    let live = index(4, 1, b"saltsalt");
    let dir = at(place.path(), &[("db", &two_pages(true)), ("db-shm", &live)]);
    let shm = write(place.path(), "db-shm");
    assert!(share(&shm, locks::OPEN).unwrap());
    assert!(copy(&dir).1.is_some());
}
