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

use super::support::Place;

/// Rows of four thousand bytes, more than are read under a lock at once.
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
        let mut child =
            Command::new("sqlite3").arg(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
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
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(path: &Path, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count).map(|_| {
            let (path, stop) = (path.to_owned(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut shell = Shell::open(&path);
                shell.does(".timeout 60000\nPRAGMA synchronous=OFF;");
                while !stop.load(Ordering::Relaxed) {
                    shell.does(TRANSACTION);
                }
                shell.end();
            })
        });
        Self { threads: threads.collect(), stop }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
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
    let target = place.path("target/db");
    let stored = format!("latest:{}", place.path("src/db").display());
    place.run(["sqlite", "restore", &stored, "target/db"]).exits(0);
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
        let done = place.run(["sqlite", "backup", "src/db", "--json"]).exits(0).last();
        assert_eq!((done["files"].as_u64(), done["failed"].as_u64()), (Some(1), Some(0)));
        let saved = consistent(&give_back(&place));
        assert!(saved >= committed.max(before), "{mode}, round {round}: {saved} of {committed}");
        assert!(saved <= last(&database));
        before = saved;
    }
    writers.end();
    assert!(before > 10, "somebody wrote");
    assert_eq!(names(&place, "target"), ["db"], "nothing else was left there");
    assert_eq!(consistent(&database), last(&database));
}

#[test]
fn ten_backups_under_writers_with_a_log_are_each_of_one_moment() {
    under_writers("wal");
}

#[test]
fn ten_backups_under_writers_with_a_journal_are_each_of_one_moment() {
    under_writers("delete");
}

#[test]
fn a_killed_writers_journal_is_rolled_back_in_the_copy_only() {
    let place = Place::with_repository();
    let database = place.path("src/db");
    make(&database, "delete");
    sqlite3(&database, TRANSACTION);
    let mut writer = Shell::open(&database);
    // More than it keeps in memory, so that the file is half changed.
    writer.does("PRAGMA cache_size=5; BEGIN; UPDATE fill SET b = randomblob(4000), v = v + 1;");
    writer.does("INSERT INTO fill(v, b) SELECT 1, randomblob(4000) FROM fill;");
    writer.kill();
    let journal = fs::read(place.path("src/db-journal")).unwrap();
    assert!(journal.len() > 1 << 20);
    let left = fs::read(&database).unwrap();
    place.run(["sqlite", "backup", "src/db"]).exits(0);
    assert!(
        fs::read(place.path("src/db-journal")).unwrap() == journal && fs::read(&database).unwrap() == left
    );
    assert_eq!(consistent(&give_back(&place)), 1);
    // SQLite comes to the same, byte for byte.
    assert_eq!(consistent(&database), 1);
    assert!(fs::read(&database).unwrap() == fs::read(place.path("target/db")).unwrap());
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

/// Whether a lock that belongs to an open file, not to a process, is on the file: SQLite takes no such ones.
fn is_locked(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(inode) = path.metadata().map(|found| format!(":{} ", found.ino())) else { return false };
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|lock| lock.contains("OFDLCK") && lock.contains(&inode))
}

#[test]
fn a_backup_that_is_killed_with_a_lock_leaves_no_lock_and_no_file() {
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
                locked = is_locked(&database);
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
        assert_eq!(consistent(&give_back(&place)), last(&database));
        writer.end();
    }
}

/// Whether a process has a file without a name.
fn has_copy(process: u32) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    let links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    links.into_iter().any(|link| link.to_string_lossy().ends_with("(deleted)"))
}

#[test]
fn a_store_that_is_slow_keeps_nobody_waiting() {
    for mode in ["wal", "delete"] {
        let place = Place::with_repository();
        let database = place.path("src/db");
        make(&database, mode);
        let mut slow = place.start(["sqlite", "backup", "src/db", "--limit-upload", "50K"]);
        while !has_copy(slow.id()) && slow.try_wait().unwrap().is_none() {}
        let mut writer = Shell::open(&database);
        writer.does(".timeout 8000");
        for _ in 0..5 {
            writer.does(TRANSACTION);
        }
        assert!(sqlite3(&database, "PRAGMA wal_checkpoint(TRUNCATE)").starts_with("0|"));
        assert_eq!(last(&database), 5);
        assert!(!is_locked(&database) && slow.try_wait().unwrap().is_none(), "{mode}: it still uploads");
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
    for other in ["src/db-backup", "src/ledger-journal", "src/notes-wal", "src/notes"] {
        place.write(other, b"dear diary");
    }
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
        "ledger",
        "ledger-journal",
        "notes",
        "notes-wal",
    ];
    let run = place.run(["backup", "src"]).exits(0);
    assert_eq!(run.err.matches("src/db is a database of SQLite in use").count(), 1, "{}", run.err);
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
        place.write(&format!("src/{name}-journal"), &log);
    }
    place.write("src/pipe", &good);
    assert!(Command::new("mkfifo").arg(place.path("src/pipe-wal")).status().unwrap().success());
    std::os::unix::fs::symlink("/etc/passwd", place.path("src/pipe-journal")).unwrap();
    let run = place.run(["backup", "src"]).exits(0);
    assert!(!run.err.contains("pipe"), "{}", run.err);
    place.run(["restore", &format!("latest:{}", place.path("src").display()), "--target", "target"]).exits(0);
    for (name, content) in
        [("short", &good[..good.len() / 2]), ("size", &size), ("encrypted", &encrypted), ("junk", &good)]
    {
        assert!(fs::read(place.path("target").join(name)).unwrap() == content, "{name}");
    }
    for none in ["src/size", "src/head", "src/encrypted", "src/a", "src/d", "src/pipe-wal"] {
        let run = place.run(["sqlite", "backup", none]).exits(2);
        assert!(run.err.contains("not a database"), "{none}: {}", run.err);
    }
    place.run(["sqlite", "backup", "src/good", "src/missing"]).exits(3);
    for (bad, why) in [("short", "shorter than it says"), ("junk", "is damaged"), ("large", "is damaged")] {
        let run = place.run(["sqlite", "backup", &format!("src/{bad}")]).exits(3);
        assert!(run.err.contains(bad) && run.err.contains(why), "{}", run.err);
        // In the snapshot it stands as one that may not be whole.
        let list = place.run(["ls", "latest", "--json"]).exits(0);
        let marked = list.objects().iter().any(|entry| entry["problem"].as_str() == Some("changed"));
        assert!(marked, "{bad}: {}", list.out);
    }
    // A pipe beside the target is not waited for.
    place.write("target/free", &good);
    assert!(Command::new("mkfifo").arg(place.path("target/free-wal")).status().unwrap().success());
    place.run(["sqlite", "backup", "src/good"]).exits(0);
    let stored = format!("latest:{}", place.path("src/good").display());
    let run = place.run(["sqlite", "restore", &stored, "target/free"]);
    assert!(run.err.contains("not a regular file"), "{}", run.err);
    assert!(fs::read(place.path("target/free")).unwrap() == good);
}

#[test]
fn a_database_in_use_is_replaced_only_if_that_is_asked_for() {
    let place = Place::with_repository();
    let database = place.path("src/db");
    make(&database, "wal");
    place.run(["sqlite", "backup", "src/db"]).exits(0);
    let stored = format!("latest:{}", database.display());
    let mut user = Shell::open(&database);
    user.does("PRAGMA wal_autocheckpoint=0;");
    user.does(TRANSACTION);
    let run = place.run(["sqlite", "restore", &stored, "src/db"]).exits(7);
    assert!(run.err.contains("open"), "{}", run.err);
    assert_eq!(last(&database), 1);
    user.kill();
    let run = place.run(["sqlite", "restore", &stored, "src/db"]).exits(7);
    assert!(run.err.contains("log with content"), "{}", run.err);
    let run = place.run(["sqlite", "restore", &stored, "src/db", "--force", "--json"]).exits(0).last();
    assert_eq!(run["removed"].as_array().unwrap().len(), 2, "{run}");
    assert_eq!(names(&place, "src"), ["a", "d", "db"]);
    assert_eq!(consistent(&database), 0, "nothing of the log was played into it");

    // A restore of files warns of what stands beside.
    place.write("src/db-wal", b"of another one");
    let from = format!("latest:{}", place.path("src").display());
    let run = place.run(["restore", &from, "--target", "src"]).exits(0);
    assert!(run.err.contains("db-wal stands beside a database that was restored"), "{}", run.err);
    assert!(place.path("src/db-wal").exists());
}

#[test]
fn a_damaged_database_does_not_take_a_place() {
    let place = Place::with_repository();
    let database = place.path("src/db");
    make(&database, "delete");
    let good = fs::read(&database).unwrap();
    let mut bad = good.clone();
    bad[4096..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    fs::write(&database, &bad).unwrap();
    place.run(["sqlite", "backup", "src/db"]).exits(0);
    place.write("target/db", &good);
    let stored = format!("latest:{}", database.display());
    let run = place.run(["sqlite", "restore", &stored, "target/db"]).exits(4);
    assert!(run.err.contains("damaged"), "{}", run.err);
    assert!(fs::read(place.path("target/db")).unwrap() == good);
    assert_eq!(names(&place, "target"), ["db"]);
    place.run(["sqlite", "restore", &stored, "target/db", "--no-check"]).exits(0);
    assert!(fs::read(place.path("target/db")).unwrap() == bad);
    for (path, target, code) in [
        (stored.as_str(), "target", 2),
        (stored.as_str(), "target/", 2),
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
    assert_eq!(blocks.len(), 5);
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
        if block.contains("wal_checkpoint") || block.contains("--force") {
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
    assert_eq!(names(&place, "app"), ["jobs.db", "main.db"]);
}
