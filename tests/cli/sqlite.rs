//! Databases of SQLite while they are written to. SQLite itself says whether what comes back is right: the program `sqlite3`
//! of the system, and the library that the program checks restored databases with.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rusqlite::Connection;
use serde_json::{Value, json};

use super::restoring::Mounted;
use super::support::Place;

/// Rows of four thousand bytes: more pages than are copied in one step.
const ROWS: u32 = 1500;

/// What every transaction keeps: the versions of all rows add up to the number of the last entry of the log, and no number is missing.
const TRANSACTION: &str = "BEGIN IMMEDIATE;
    UPDATE fill SET b = randomblob(4000), v = v + 1 WHERE id = abs(random()) % 1500 + 1;
    INSERT INTO log(n) SELECT coalesce(max(n), 0) + 1 FROM log;
    UPDATE counter SET n = n + 1;
    COMMIT;\n";

/// Runs `sqlite3` and gives what it says.
#[track_caller]
fn sqlite3(path: &Path, sql: &str) -> String {
    let output = Command::new("sqlite3")
        .args(["-bail", "-cmd", ".timeout 60000"])
        .arg(path)
        .arg(sql)
        .output()
        .expect("sqlite3: tests/setup");
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn make(path: &Path, mode: &str) {
    sqlite3(
        path,
        &format!(
            "PRAGMA journal_mode={mode};
             CREATE TABLE fill(id INTEGER PRIMARY KEY, v INTEGER, b BLOB);
             CREATE TABLE log(n INTEGER UNIQUE);
             CREATE TABLE counter(n INTEGER);
             INSERT INTO counter VALUES (0);
             WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {ROWS})
             INSERT INTO fill SELECT x, 0, randomblob(4000) FROM c;"
        ),
    );
}

/// A `sqlite3` that is told what to do step by step.
struct Shell {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<std::process::ChildStdout>,
}

impl Shell {
    fn open(path: &Path) -> Self {
        let mut child = Command::new("sqlite3")
            .arg("-bail")
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { input: child.stdin.take(), child, output }
    }

    /// Waits until it is done.
    fn does(&mut self, sql: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{sql}\nSELECT 'done so far';\n").as_bytes()).unwrap();
        let mut line = String::new();
        while line.trim() != "done so far" {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "{sql}");
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn end(mut self) {
        drop(self.input.take());
        self.child.wait().unwrap();
    }
}

/// Processes that write without a pause.
struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Writers {
    fn start(path: &Path, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count).map(|_| {
            let (path, stop) = (path.to_owned(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut shell = Shell::open(&path);
                shell.does(".timeout 60000\nPRAGMA synchronous=OFF;");
                let mut committed = 0;
                while !stop.load(Ordering::Relaxed) {
                    shell.does(TRANSACTION);
                    committed += 1;
                }
                shell.end();
                committed
            })
        });
        Self { threads: threads.collect(), stop }
    }

    /// How many transactions they committed.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    }
}

/// Demands a whole database of one moment; gives the number of the last transaction.
#[track_caller]
fn consistent(path: &Path) -> u64 {
    let said = sqlite3(
        path,
        "PRAGMA integrity_check; SELECT (SELECT max(n) FROM log) - (SELECT n FROM counter),
         (SELECT count(*) FROM log) - (SELECT n FROM counter), (SELECT sum(v) FROM fill) - (SELECT n FROM counter);",
    );
    assert!(said == "ok\n0|0|0" || said == "ok\n|0|0", "{said}");
    let library = Connection::open(path).unwrap();
    let said: String = library.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(said, "ok");
    let last: i64 = library.query_row("SELECT n FROM counter", [], |row| row.get(0)).unwrap();
    last as u64
}

fn last(path: &Path) -> u64 {
    sqlite3(path, "SELECT n FROM counter").parse().unwrap()
}

/// Copies that stand in the state directory.
fn copies(place: &Place) -> Vec<PathBuf> {
    place.files("state").into_iter().filter(|path| path.ends_with("copy")).collect()
}

fn names(place: &Place, dir: &str) -> Vec<String> {
    let entries = fs::read_dir(place.path(dir)).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Restores the newest copy of `src/db` to `target/db`.
#[track_caller]
fn give_back(place: &Place) -> PathBuf {
    give_back_as(place, "db")
}

/// Restores the newest copy of a database in `src` to `target`, in the place of the one before.
#[track_caller]
fn give_back_as(place: &Place, name: &str) -> PathBuf {
    let stored = format!("latest:{}", place.path("src").join(name).display());
    let target = place.path("target").join(name);
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let _ = fs::remove_file(place.path("target").join(format!("{name}{suffix}")));
    }
    place.run(["sqlite", "restore", &stored, &target.display().to_string()]).exits(0);
    let said = sqlite3(&target, "PRAGMA integrity_check");
    assert_eq!(said, "ok");
    target
}

fn under_writers(mode: &str) {
    let place = Place::with_repository();
    let database = place.path("src/db");
    make(&database, mode);
    let writers = Writers::start(&database, 3);
    let mut before = 0;
    for round in 0..10 {
        let committed = last(&database);
        // As a shell gives them for `src/db*`: these are parts of it, and to open them here would end SQLite's locks.
        let beside: &[&str] =
            if round % 2 == 0 { &[] } else { &["src/db-shm", "src/db-wal", "src/db-journal"] };
        let line = ["sqlite", "backup", "src/db", "--json"];
        let done = place.run(line.iter().chain(beside)).exits(0).last();
        assert_eq!((done["files"].as_u64(), done["failed"].as_u64()), (Some(1), Some(0)));
        let saved = consistent(&give_back(&place));
        assert!(saved >= committed.max(before), "{mode}, round {round}: {saved} of {committed}");
        assert!(saved <= last(&database));
        before = saved;
    }
    let committed = writers.end();
    assert!(before > 10, "somebody wrote");
    assert_eq!(names(&place, "target"), ["db"], "nothing else was left there");
    assert_eq!(consistent(&database), committed);
    assert!(copies(&place).is_empty());
}

#[test]
fn ten_backups_under_writers_with_a_log_are_each_of_one_moment() {
    under_writers("wal");
}

#[test]
fn ten_backups_under_writers_with_a_journal_are_each_of_one_moment() {
    under_writers("delete");
}

/// Half of a transaction in the file, and what stood there before in the journal.
fn half_done(database: &Path) -> Shell {
    let mut writer = Shell::open(database);
    // More than it keeps in memory.
    writer.does("PRAGMA cache_size=5; BEGIN; UPDATE fill SET b = randomblob(4000), v = v + 1;");
    writer.does("INSERT INTO fill(v, b) SELECT 1, randomblob(4000) FROM fill;");
    writer
}

#[test]
fn a_killed_writers_journal_is_rolled_back_by_sqlite() {
    let place = Place::with_repository();
    let database = place.path("src/db");
    make(&database, "delete");
    sqlite3(&database, TRANSACTION);
    half_done(&database).kill();
    assert!(place.path("src/db-journal").metadata().unwrap().len() > 1 << 20);
    fs::create_dir(place.path("kept")).unwrap();
    for name in ["db", "db-journal"] {
        fs::copy(place.path("src").join(name), place.path("kept").join(name)).unwrap();
    }
    place.run(["sqlite", "backup", "src/db"]).exits(0);
    assert_eq!(names(&place, "src"), ["a", "d", "db"]);
    assert_eq!(consistent(&give_back(&place)), 1);
    // Another program comes to the same.
    let other = place.path("kept/db");
    assert_eq!(consistent(&other), 1);
    assert!(fs::read(&database).unwrap() == fs::read(&other).unwrap());
    assert_eq!(sqlite3(&database, ".dump"), sqlite3(&place.path("target/db"), ".dump"));
}

/// No journal tells what stood there before, and no lock that SQLite would not respect.
#[test]
fn half_a_transaction_without_a_journal_is_never_called_good() {
    let place = Place::with_repository();
    let database = place.path("src/db");
    make(&database, "delete");
    make(&place.path("src/other"), "delete");
    let mut writer = Shell::open(&database);
    writer.does("PRAGMA journal_mode=MEMORY; PRAGMA cache_size=5; BEGIN; UPDATE fill SET b = randomblob(4000), v = v + 1;");
    assert_eq!(names(&place, "src"), ["a", "d", "db", "other"]);
    let run = place.run(["sqlite", "backup", "src/db", "src/other"]).exits(3);
    assert!(run.err.contains("src/db cannot be read: somebody holds it"), "{}", run.err);
    assert!(!run.err.contains("other"), "{}", run.err);
    // Of what could not be saved nothing comes back, and nothing takes its place.
    let stored = format!("latest:{}", database.display());
    let run = place.run(["sqlite", "restore", &stored, "target/db"]).exits(1);
    assert!(run.err.contains("nothing was restored"), "{}", run.err);
    assert!(names(&place, "target").is_empty());
    writer.does("UPDATE counter SET n = n + 1500; INSERT INTO log(n) SELECT id FROM fill; COMMIT;");
    writer.end();
    place.run(["sqlite", "backup", "src/db"]).exits(0);
    assert_eq!(consistent(&give_back(&place)), 1500);
}

#[test]
fn a_killed_writers_log_is_in_the_copy() {
    let place = Place::with_repository();
    let database = place.path("src/db");
    make(&database, "wal");
    let mut writer = Shell::open(&database);
    writer.does("PRAGMA wal_autocheckpoint=0;");
    for _ in 0..5 {
        writer.does(TRANSACTION);
    }
    writer.does("BEGIN; UPDATE counter SET n = 99;");
    writer.kill();
    let before = names(&place, "src");
    assert!(before.contains(&"db-wal".to_owned()) && before.contains(&"db-shm".to_owned()));
    let log = fs::read(place.path("src/db-wal")).unwrap();
    place.run(["sqlite", "backup", "src/db"]).exits(0);
    assert!(names(&place, "src") == before && fs::read(place.path("src/db-wal")).unwrap() == log);
    assert_eq!(consistent(&give_back(&place)), 5);
    assert_eq!(last(&database), 5);
    let dump = |path: &Path| sqlite3(path, ".dump");
    assert!(dump(&database) == dump(&place.path("target/db")));
}

#[test]
fn a_log_without_its_index_is_in_the_copy_and_nothing_is_left_beside_one_at_rest() {
    let place = Place::with_repository();
    let database = place.path("src/db");
    make(&database, "wal");
    let at_rest = fs::read(&database).unwrap();
    place.run(["sqlite", "backup", "src/db"]).exits(0);
    assert_eq!(names(&place, "src"), ["a", "d", "db"]);
    assert!(fs::read(&database).unwrap() == at_rest);
    let mut writer = Shell::open(&database);
    writer.does("PRAGMA wal_autocheckpoint=0;");
    writer.does(TRANSACTION);
    writer.kill();
    fs::remove_file(place.path("src/db-shm")).unwrap();
    place.run(["sqlite", "backup", "src/db"]).exits(0);
    assert_eq!(consistent(&give_back(&place)), 1);
    assert!(fs::read(&database).unwrap() == at_rest, "the log is not copied into it");
}

/// It is read in spans by several workers, and most of it is in the file while the last transaction is not.
#[test]
fn a_large_database_is_saved_with_its_log() {
    let place = Place::with_repository();
    let database = place.path("src/db");
    make(&database, "wal");
    sqlite3(&database, "CREATE TABLE large(b); INSERT INTO large VALUES (zeroblob(70000000))");
    let mut writer = Shell::open(&database);
    writer.does("PRAGMA wal_autocheckpoint=0;");
    writer.does(TRANSACTION);
    writer.kill();
    assert!(database.metadata().unwrap().len() > 64 << 20);
    let run = place.run(["backup", "src"]).exits(0);
    assert_eq!(run.err.matches("src/db is a database of SQLite in use").count(), 1, "{}", run.err);
    place.run(["sqlite", "backup", "src/db"]).exits(0);
    assert_eq!(consistent(&give_back(&place)), 1);
}

#[test]
fn a_read_only_place_is_enough() {
    let place = Place::with_repository();
    for name in ["src/rest", "src/log", "src/plain"] {
        make(&place.path(name), if name == "src/plain" { "delete" } else { "wal" });
    }
    let mut writer = Shell::open(&place.path("src/log"));
    writer.does("PRAGMA wal_autocheckpoint=0;");
    writer.does(TRANSACTION);
    writer.kill();
    let Some(_mounted) = Mounted::new(&place, "seen", ("tmpfs", "size=1M")) else { return };
    let (from, to) = (place.path("src"), place.path("seen"));
    let mount = |args: &[&str]| Command::new("mount").args(args).arg(&to).status().unwrap().success();
    assert!(mount(&["--bind", &from.display().to_string()]) && mount(&["-o", "remount,bind,ro"]));
    let before = names(&place, "src");
    let run = place.run(["sqlite", "backup", "seen/rest", "seen/log", "seen/plain"]);
    assert!(Command::new("umount").arg(&to).status().unwrap().success());
    run.exits(0);
    assert_eq!(names(&place, "src"), before);
    for (name, committed) in [("rest", 0), ("log", 1), ("plain", 0)] {
        let stored = format!("latest:{}", to.join(name).display());
        place.run(["sqlite", "restore", &stored, &format!("target/{name}")]).exits(0);
        assert_eq!(consistent(&place.path("target").join(name)), committed, "{name}");
    }
}

#[test]
fn a_copy_that_has_no_room_ends_the_run_and_leaves_nothing() {
    let place = Place::with_repository();
    make(&place.path("src/db"), "wal");
    let Some(_small) = Mounted::new(&place, "small", ("tmpfs", "size=4M")) else { return };
    let run = place.run(["--state-dir", "small", "sqlite", "backup", "src/db"]).exits(14);
    assert!(run.err.contains("small/sqlite") && run.err.contains("--state-dir"), "{}", run.err);
    let left = place.files("small").into_iter().filter(|path| path.ends_with("copy"));
    assert_eq!(left.count(), 0);
    place.run(["sqlite", "backup", "src/db"]).exits(0);
}

/// Pages are added, and copied from the log into the file, all the time.
#[test]
fn a_database_that_grows_is_saved_whole() {
    let place = Place::with_repository();
    let database = place.path("src/db");
    sqlite3(&database, "PRAGMA journal_mode=wal; CREATE TABLE t(n INTEGER PRIMARY KEY, b BLOB);");
    let stop = Arc::new(AtomicBool::new(false));
    let (path, end) = (database.clone(), Arc::clone(&stop));
    let writer = std::thread::spawn(move || {
        let mut shell = Shell::open(&path);
        shell.does(".timeout 60000\nPRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=20;");
        while !end.load(Ordering::Relaxed) {
            shell.does("INSERT INTO t(b) VALUES (randomblob(9000)); PRAGMA wal_checkpoint(TRUNCATE);");
        }
        shell.end();
    });
    let count = |path: &Path| sqlite3(path, "SELECT count(*) FROM t").parse::<u64>().unwrap();
    for round in 0..10 {
        let before = count(&database);
        place.run(["sqlite", "backup", "src/db"]).exits(0);
        let copy = give_back(&place);
        assert_eq!(sqlite3(&copy, "PRAGMA integrity_check; SELECT max(n) - count(*) FROM t"), "ok\n0");
        assert!(count(&copy) >= before, "{round}");
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

/// Whether a process has a lock on the file.
fn is_locked(path: &Path, process: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(inode) = path.metadata().map(|found| format!(":{}", found.ino())) else { return false };
    let process = process.to_string();
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|lock| {
        let mut words = lock.split_whitespace();
        words.any(|word| word == process) && words.any(|word| word.ends_with(&inode))
    })
}

#[test]
fn a_backup_that_is_killed_with_a_lock_leaves_no_lock_and_its_copy_to_the_next() {
    for mode in ["wal", "delete"] {
        let place = Place::with_repository();
        let database = place.path("src/db");
        make(&database, mode);
        let mut writer = Shell::open(&database);
        writer.does(TRANSACTION);
        let before = names(&place, "src");
        let mut seen = 0;
        for _ in 0..60 {
            let mut killed = place.start(["sqlite", "backup", "src/db"]);
            let mut locked = false;
            while !locked && killed.try_wait().unwrap().is_none() {
                locked = is_locked(&database, killed.id());
            }
            killed.kill().unwrap();
            killed.wait().unwrap();
            // No patience: whoever holds a lock now would be seen.
            writer.does(".timeout 0");
            writer.does(TRANSACTION);
            assert_eq!(names(&place, "src"), before);
            seen += u32::from(locked);
            if seen == 2 {
                break;
            }
        }
        assert!(seen > 0, "{mode}: no lock was ever seen");
        place.run(["sqlite", "backup", "src/db"]).exits(0);
        assert!(copies(&place).is_empty());
        assert_eq!(consistent(&give_back(&place)), last(&database));
        writer.end();
    }
}

/// Whether a process has a copy that is whole, and has no name any more.
fn has_copy(process: u32) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    let links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    links.into_iter().any(|link| link.to_string_lossy().ends_with("/copy (deleted)"))
}

#[test]
fn a_store_that_is_slow_keeps_nobody_waiting() {
    for mode in ["wal", "delete"] {
        let place = Place::with_repository();
        let database = place.path("src/db");
        make(&database, mode);
        let mut slow = place.start(["sqlite", "backup", "src/db", "--limit-upload", "2K"]);
        while !has_copy(slow.id()) && slow.try_wait().unwrap().is_none() {}
        let mut writer = Shell::open(&database);
        writer.does(".timeout 60000");
        for _ in 0..5 {
            writer.does(TRANSACTION);
        }
        assert!(sqlite3(&database, "PRAGMA wal_checkpoint(TRUNCATE)").starts_with("0|"));
        assert_eq!(last(&database), 5);
        assert!(
            !is_locked(&database, slow.id()) && slow.try_wait().unwrap().is_none(),
            "{mode}: it still uploads"
        );
        slow.kill().unwrap();
        slow.wait().unwrap();
        writer.end();
    }
}

/// Files of the newest snapshot below `src`, by their names.
fn saved(place: &Place) -> Vec<String> {
    let list = place.run(["ls", &format!("latest:{}", place.path("src").display()), "--json"]).exits(0);
    let paths = list.objects().into_iter().filter_map(|entry| entry["path"].as_str().map(str::to_owned));
    let mut names: Vec<String> =
        paths.filter_map(|path| path.rsplit('/').next().map(str::to_owned)).collect();
    names.sort();
    names
}

#[test]
fn a_backup_of_files_leaves_nothing_out_and_names_databases_in_use() {
    let place = Place::with_repository();
    let database = place.path("src/db");
    make(&database, "wal");
    make(&place.path("src/ledger"), "delete");
    make(&place.path("src/jobs"), "delete");
    for other in ["src/db-backup", "src/ledger-journal", "src/notes-wal", "src/notes"] {
        place.write(other, b"dear diary");
    }
    let unfinished = half_done(&place.path("src/jobs"));
    let mut writer = Shell::open(&database);
    writer.does("PRAGMA wal_autocheckpoint=0;");
    writer.does(TRANSACTION);
    let all = [
        "a",
        "b",
        "d",
        "db",
        "db-backup",
        "db-shm",
        "db-wal",
        "jobs",
        "jobs-journal",
        "ledger",
        "ledger-journal",
        "notes",
        "notes-wal",
    ];
    let run = place.run(["backup", "src"]).exits(0);
    for name in ["db", "jobs"] {
        let named = format!("src/{name} is a database of SQLite in use");
        assert_eq!(run.err.matches(&named).count(), 1, "{}", run.err);
    }
    assert!(!run.err.contains("ledger is"), "{}", run.err);
    assert_eq!(saved(&place), all);

    // Only the log changes: that is said too. What is unchanged is not read, and not named again.
    writer.does(TRANSACTION);
    let run = place.run(["backup", "src"]).exits(0);
    assert!(run.err.contains("src/db is a database of SQLite in use"), "{}", run.err);
    std::thread::park_timeout(std::time::Duration::from_millis(100));
    place.run(["backup", "src"]).exits(0);
    let again = place.run(["backup", "src", "--json"]).exits(0).last();
    assert_eq!(again["changed_files"].as_u64(), Some(0), "{again}");

    writer.does(TRANSACTION);
    let run = place.run(["backup", "src", "--sqlite", "off"]).exits(0);
    assert!(!run.err.contains("SQLite"), "{}", run.err);
    assert_eq!(saved(&place), all);

    // What a run of files knows is no reason to take a database for unchanged.
    place.run(["backup", "src/db"]).exits(0);
    place.run(["sqlite", "backup", "src/db"]).exits(0);
    writer.does(TRANSACTION);
    place.run(["sqlite", "backup", "src/db"]).exits(0);
    assert_eq!(consistent(&give_back(&place)), 4);

    // Two names: which of them has the log?
    fs::hard_link(&database, place.path("src/other")).unwrap();
    place.run(["sqlite", "backup", "src/db"]).exits(2);
    writer.end();
    unfinished.kill();
}

#[test]
fn the_copy_has_owner_mode_and_time_of_the_file() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let place = Place::with_repository();
    let database = place.path("src/db");
    make(&database, "wal");
    let mut writer = Shell::open(&database);
    writer.does(TRANSACTION);
    fs::set_permissions(&database, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("db", place.path("src/link")).unwrap();
    place.run(["sqlite", "backup", "src/link"]).exits(0);
    let copy = give_back(&place).metadata().unwrap();
    let file = database.metadata().unwrap();
    let facts = |of: &fs::Metadata| (of.mode(), of.uid(), of.gid(), of.mtime(), of.mtime_nsec());
    assert_eq!(facts(&copy), facts(&file));
    writer.end();
}

#[test]
fn hostile_files_are_named_and_harm_nothing() {
    let place = Place::with_repository();
    make(&place.path("src/good"), "wal");
    let good = fs::read(place.path("src/good")).unwrap();
    place.write("src/short", &good[..good.len() / 2]);
    let mut size = good.clone();
    (size[16], size[17]) = (0x33, 0x33);
    place.write("src/size", &size);
    place.write("src/head", b"SQLite format 3\0");
    let mut encrypted = good.clone();
    encrypted.iter_mut().for_each(|byte| *byte ^= 0xa5);
    place.write("src/encrypted", &encrypted);
    for (name, log) in [("junk", vec![7; 100_000]), ("large", b"\x37\x7f\x06\x82".repeat(1000))] {
        place.write(&format!("src/{name}"), &good);
        place.write(&format!("src/{name}-wal"), &log);
    }
    place.write("src/large-journal", &b"\x37\x7f\x06\x82".repeat(1000));
    place.write("src/pipe", &good);
    assert!(Command::new("mkfifo").arg(place.path("src/pipe-wal")).status().unwrap().success());
    std::os::unix::fs::symlink("/etc/passwd", place.path("src/pipe-journal")).unwrap();
    let run = place.run(["backup", "src"]).exits(0);
    assert!(!run.err.contains("pipe"), "{}", run.err);
    place.run(["restore", &format!("latest:{}", place.path("src").display()), "--target", "files"]).exits(0);
    for (name, content) in
        [("short", &good[..good.len() / 2]), ("size", &size), ("encrypted", &encrypted), ("junk", &good)]
    {
        assert!(fs::read(place.path("files").join(name)).unwrap() == content, "{name}");
    }
    for none in ["src/size", "src/head", "src/encrypted", "src/a", "src/d", "src/pipe-wal"] {
        let run = place.run(["sqlite", "backup", none]).exits(2);
        assert!(run.err.contains("not a database"), "{none}: {}", run.err);
    }
    for other in ["src/missing", "src/encrypted"] {
        let run = place.run(["sqlite", "backup", "src/good", other]).exits(3);
        assert!(run.err.contains(other), "{}", run.err);
        give_back_as(&place, "good");
    }
    for (bad, why) in [("short", "malformed"), ("large", "cannot read"), ("pipe", "cannot read")] {
        let run = place.run(["sqlite", "backup", &format!("src/{bad}")]).exits(3);
        assert!(run.err.contains(bad) && run.err.contains(why), "{}", run.err);
        // In the snapshot it stands as one that was not saved.
        let list = place.run(["ls", "latest", "--json"]).exits(0);
        let marked = list.objects().iter().any(|entry| entry["problem"].as_str() == Some("unreadable"));
        assert!(marked, "{bad}: {}", list.out);
    }
    assert!(fs::read(place.path("src/large-journal")).unwrap() == b"\x37\x7f\x06\x82".repeat(1000));
    // A log that is none of its own holds nothing for SQLite.
    place.run(["sqlite", "backup", "src/junk"]).exits(0);
    give_back_as(&place, "junk");
    assert!(fs::read(place.path("src/junk-wal")).unwrap() == [7; 100_000]);
    // Of an empty one nothing is committed yet.
    place.write("src/empty", b"");
    place.run(["sqlite", "backup", "src/empty"]).exits(0);
    let stored = format!("latest:{}", place.path("src/empty").display());
    place.run(["sqlite", "restore", &stored, "target/empty"]).exits(0);
    assert_eq!(place.path("target/empty").metadata().unwrap().len(), 0);
    // A pipe beside the target is not waited for.
    assert!(Command::new("mkfifo").arg(place.path("target/free-wal")).status().unwrap().success());
    place.run(["sqlite", "backup", "src/good"]).exits(0);
    let stored = format!("latest:{}", place.path("src/good").display());
    let run = place.run(["sqlite", "restore", &stored, "target/free"]).exits(7);
    assert!(run.err.contains("target/free-wal stands there"), "{}", run.err);
    assert!(!place.path("target/free").exists());
}

#[test]
fn what_stands_where_a_database_is_to_be_restored_stays() {
    let place = Place::with_repository();
    let database = place.path("src/db");
    make(&database, "wal");
    place.run(["sqlite", "backup", "src/db"]).exits(0);
    let stored = format!("latest:{}", database.display());
    place.run(["sqlite", "restore", &stored, "src/db", "--force"]).exits(2);
    // A database in use, and one whose program was killed.
    let mut user = Shell::open(&database);
    user.does("PRAGMA wal_autocheckpoint=0;");
    user.does(TRANSACTION);
    let refused = |target: &str, said: &str| {
        let run = place.run(["sqlite", "restore", &stored, target]).exits(7);
        assert!(run.err.contains(said) && run.err.contains("move it away"), "{target}: {}", run.err);
    };
    refused("src/db", "src/db stands there already");
    user.kill();
    let before = names(&place, "src");
    refused("src/db", "src/db stands there already");
    assert_eq!(names(&place, "src"), before);
    assert_eq!(last(&database), 1);

    place.write("target/notes", b"dear diary, this is no database");
    place.write("target/empty", b"");
    fs::create_dir(place.path("target/dir")).unwrap();
    for (to, link) in [("notes", "target/link"), ("nothing", "target/dangling")] {
        std::os::unix::fs::symlink(to, place.path(link)).unwrap();
    }
    let stand = ["dangling", "dir", "empty", "link", "notes"];
    for name in stand {
        refused(&format!("target/{name}"), &format!("target/{name} stands there already"));
    }
    assert_eq!(names(&place, "target"), stand);
    assert!(fs::read(place.path("target/notes")).unwrap().starts_with(b"dear"));

    // A log, a journal or an index of another one beside a free name, also an empty one.
    for (suffix, content) in [("-wal", &b"of another one"[..]), ("-journal", b"x"), ("-shm", b"")] {
        let beside = format!("target/free{suffix}");
        place.write(&beside, content);
        refused("target/free", &format!("{beside} stands there"));
        assert_eq!(fs::read(place.path(&beside)).unwrap(), content);
        fs::remove_file(place.path(&beside)).unwrap();
    }
    assert_eq!(names(&place, "target"), stand);
    let done = place.run(["sqlite", "restore", &stored, "target/free", "--json"]).exits(0).last();
    assert_eq!((&done["beside"], &done["left"], &done["fault"]), (&json!([]), &json!([]), &Value::Null));
    assert_eq!(consistent(&place.path("target/free")), 0);

    // A restore of files warns of what stands beside.
    place.write("src/db-wal", b"of another one");
    let from = format!("latest:{}", place.path("src").display());
    let run = place.run(["restore", &from, "--target", "src"]).exits(0);
    assert!(run.err.contains("db-wal stands beside a database that was restored"), "{}", run.err);
    assert!(place.path("src/db-wal").exists());
}

/// Only what SQLite would play into it makes a database doubtful that was saved as a file.
#[test]
fn a_settled_journal_or_a_log_that_does_not_count_is_no_doubt() {
    let place = Place::with_repository();
    let database = place.path("src/db");
    make(&database, "persist");
    sqlite3(&database, &format!("PRAGMA journal_mode=persist; {TRANSACTION}"));
    assert!(place.path("src/db-journal").metadata().unwrap().len() > 0);
    // A log of one that was in WAL mode before.
    place.write("src/db-wal", &[&[0x37, 0x7f, 0x06, 0x82][..], &[0; 100]].concat());
    let stored = format!("latest:{}", database.display());
    place.run(["backup", "src"]).exits(0);
    let done = place.run(["sqlite", "restore", &stored, "target/one", "--json"]).exits(0).last();
    assert_eq!(done["doubtful"], false, "{done}");
    assert_eq!(consistent(&place.path("target/one")), 1);
    fs::remove_file(place.path("src/db-wal")).unwrap();

    half_done(&database).kill();
    place.run(["backup", "src"]).exits(0);
    let run = place.run(["sqlite", "restore", &stored, "target/two", "--no-check"]).exits(3);
    assert!(run.err.contains("the log or the journal beside it"), "{run:?}");
}

#[test]
fn what_sqlite_cannot_say_of_a_database_is_said() {
    let place = Place::with_repository();
    let database = place.path("src/db");
    let made = Connection::open(&database).unwrap();
    made.execute_batch(
        "CREATE TABLE t(x UNIQUE); INSERT INTO t VALUES ('a'), ('b'); PRAGMA writable_schema=1;
         UPDATE sqlite_schema SET sql = 'CREATE TABLE t(x COLLATE unicase UNIQUE)' WHERE name = 't'",
    )
    .unwrap();
    drop(made);
    place.run(["sqlite", "backup", "src/db"]).exits(0);
    let stored = format!("latest:{}", database.display());
    let run = place.run(["sqlite", "restore", &stored, "target/db", "--json"]).exits(0);
    assert_eq!((&run.last()["checked"], &run.last()["doubtful"]), (&false.into(), &false.into()));
    assert!(run.err.contains("unicase") || run.out.contains("unicase"), "{run:?}");

    // What was saved as a file is without its log.
    fs::remove_file(&database).unwrap();
    make(&database, "wal");
    let mut writer = Shell::open(&database);
    writer.does(TRANSACTION);
    place.run(["backup", "src"]).exits(0);
    let run = place.run(["sqlite", "restore", &stored, "target/two"]).exits(3);
    assert!(run.err.contains("the log or the journal beside it"), "{run:?}");
    writer.end();
}

/// In WAL mode the file stays as it is for long, and the log beside it is its own.
#[test]
fn a_restore_in_place_says_nothing_of_a_log_that_belongs_to_what_is_kept() {
    let place = Place::with_repository();
    let database = place.path("src/db");
    make(&database, "wal");
    let mut writer = Shell::open(&database);
    writer.does("PRAGMA wal_autocheckpoint=0;");
    place.run(["backup", "src/db"]).exits(0);
    writer.does(TRANSACTION);
    let stored = format!("latest:{}", place.path("src").display());
    let run = place.run(["restore", &stored, "--target", "src", "--in-place"]).exits(0);
    assert!(!run.err.contains("stands beside"), "{}", run.err);
    assert_eq!(last(&database), 1);
    writer.end();
}

#[test]
fn a_damaged_database_gets_no_name() {
    let place = Place::with_repository();
    let database = place.path("src/db");
    make(&database, "delete");
    let good = fs::read(&database).unwrap();
    let mut bad = good.clone();
    bad[4096..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    fs::write(&database, &bad).unwrap();
    place.run(["sqlite", "backup", "src/db"]).exits(0);
    let stored = format!("latest:{}", database.display());
    let run = place.run(["sqlite", "restore", &stored, "target/db"]).exits(4);
    assert!(run.err.contains("damaged"), "{}", run.err);
    assert!(names(&place, "target").is_empty());
    place.run(["sqlite", "restore", &stored, "target/db", "--no-check"]).exits(0);
    // The pages as they are; SQLite counts its copies in the first one.
    assert!(fs::read(place.path("target/db")).unwrap()[4096..] == bad[4096..]);
    for (path, target, code) in [
        (stored.as_str(), "target", 7),
        (stored.as_str(), "target/", 7),
        (stored.as_str(), "/", 2),
        (stored.as_str(), "nowhere/db", 1),
        ("latest", "target/x", 2),
        ("latest:/nothing", "target/x", 1),
    ] {
        place.run(["sqlite", "restore", path, target]).exits(code);
    }
    assert_eq!(names(&place, "target"), ["db"]);
}

/// The page's commands, in its order.
#[test]
fn the_page_holds() {
    let place = Place::with_repository();
    let text = include_str!("../../docs/sqlite.md");
    let blocks: Vec<&str> =
        text.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert_eq!(blocks.len(), 4);
    fs::create_dir(place.path("app")).unwrap();
    for name in ["app/main.db", "app/jobs.db"] {
        make(&place.path(name), "wal");
    }
    let program = Path::new(env!("CARGO_BIN_EXE_lifeboat")).parent().unwrap().to_owned();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::env::join_paths(std::iter::once(program).chain(std::env::split_paths(&paths))).unwrap();
    for block in blocks {
        let block = block.replace("/srv/app", &place.path("app").display().to_string());
        // Somebody was killed, as the page has it.
        if block.contains("mkdir before") {
            let mut killed = Shell::open(&place.path("app/main.db"));
            killed.does(TRANSACTION);
            killed.kill();
            assert!(place.path("app/main.db-wal").metadata().unwrap().len() > 0);
        }
        let mut command = Command::new("sh");
        command.args(["-eu", "-c", &block]).env("PATH", &paths).env("HOME", place.path("home"));
        command.env("LIFEBOAT_REPO", place.path("repo")).env("LIFEBOAT_KEY_FILE", place.path("key"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{block}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(consistent(&place.path("app/main.db")), 0);
    assert_eq!(names(&place, "app"), ["before", "jobs.db", "main.db", "restored.db"]);
    assert_eq!(names(&place, "app/before"), ["main.db", "main.db-shm", "main.db-wal"]);
    assert_eq!(consistent(&place.path("app/before/main.db")), 1, "with what only its log holds");
    assert_eq!(consistent(&place.path("app/restored.db")), 0);
}
