//! Base backups of a real PostgreSQL under load, and restores to moments.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::{Child, Output, Stdio};

use serde_json::Value;

use super::postgres::{World, pause};

/// A server whose archive can be held back, with a role that may back up and nothing else.
fn served() -> World {
    let world = World::new();
    let dir = world.dir.path().display().to_string();
    // What is later than the name in the file `limit` is not archived.
    let script = format!(
        "#!/bin/sh\nif [ -f {dir}/limit ]; then\n  last=$(printf '%s\\n%s\\n' \"$2\" \"$(cat {dir}/limit)\" | sort | tail -1)\n  \
         [ \"$last\" = \"$(cat {dir}/limit)\" ] || exit 1\nfi\n\
         exec {dir}/lifeboat -r {dir}/repo --no-cache postgres archive-push --cluster main \"$1\"\n"
    );
    fs::write(world.path("archive"), script).unwrap();
    fs::set_permissions(world.path("archive"), fs::Permissions::from_mode(0o755)).unwrap();
    world.good(
        "initdb",
        &["-D", "data", "-U", "postgres", "-A", "trust", "--wal-segsize=1", "--no-sync", "--data-checksums"],
    );
    // The data directory may be a link, and what is empty in a backup.
    world.good("mv", &["data", "real"]);
    world.good("ln", &["-s", "real", "data"]);
    world.good("mv", &["data/pg_notify", "notify"]);
    world.good("ln", &["-s", "../notify", "data/pg_notify"]);
    serve(&world);
    world.sql("create role keeper login; grant pg_read_all_settings to keeper");
    world.sql("grant execute on function pg_backup_start(text, boolean), pg_backup_stop(boolean) to keeper");
    world.good("mkdir", &["space"]);
    world.sql(&format!("create tablespace fast location '{dir}/space'"));
    world.sql(
        "create table spaced (n int) tablespace fast; insert into spaced select generate_series(1, 1000)",
    );
    world.sql("create unlogged table passing (n int); insert into passing values (1)");
    world.sql("create table marks (name text); insert into marks values ('a')");
    world
}

fn serve(world: &World) {
    let dir = world.dir.path().display();
    let options = format!(
        "-c listen_addresses= -c unix_socket_directories={dir} -c fsync=off -c archive_mode=on \
         -c \"archive_command={dir}/archive %p %f\""
    );
    world.good("pg_ctl", &["-s", "-w", "-t", "120", "-D", "data", "-l", "data.log", "-o", &options, "start"]);
}

fn arguments(world: &World) -> Vec<String> {
    let dir = world.dir.path().display().to_string();
    let fixed = ["-r", "repo", "--json", "postgres", "backup", "main", "--pg-user", "keeper", "--pg-host"];
    fixed.iter().map(|word| (*word).to_owned()).chain([dir]).collect()
}

fn begin(world: &World, more: &[&str]) -> Child {
    let mut command = world.command("./lifeboat");
    command.args(arguments(world)).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[track_caller]
fn ends(output: &Output, code: i32) -> Value {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    let last = out.lines().last().or_else(|| err.lines().last()).unwrap_or("null");
    serde_json::from_str(last).unwrap_or_else(|_| Value::String(format!("{out}{err}")))
}

#[track_caller]
fn backup(world: &World, more: &[&str], code: i32) -> Value {
    ends(&begin(world, more).wait_with_output().unwrap(), code)
}

fn snapshots(world: &World) -> usize {
    world.good("./lifeboat", &["-r", "repo", "snapshots", "--json"]).lines().count()
}

/// Restores, checks the files, starts the server and waits until it is open; gives the marks it has.
#[track_caller]
fn marks(world: &World, name: &str, target: &[&str]) -> String {
    let space = world.path(&format!("{name}_space")).display().to_string();
    let map = format!("fast={space}");
    let fixed = ["-r", "repo", "postgres", "restore", "main", name, "--tablespace-map", &map];
    world.good("./lifeboat", &[&fixed, target].concat());
    world.good("pg_verifybackup", &["-n", "-q", name]);
    assert!(world.start(name, false), "{name}: {}", world.log(name));
    assert!(world.opens(), "{name}: {}", world.log(name));
    let found = world.sql("select string_agg(name, ',' order by name) from marks");
    assert_eq!(world.sql("select count(*), sum(n) from spaced"), "1000|500500");
    assert_eq!(
        world.sql("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'fast'"),
        space
    );
    assert_eq!(world.sql("select count(*) from passing"), "0", "an unlogged table is empty");
    let dir = world.dir.path().display().to_string();
    world.good("pg_amcheck", &["-h", &dir, "-U", "postgres", "--install-missing", "postgres"]);
    world.stop(name);
    world.good("pg_checksums", &["--check", "-D", name]);
    found
}

/// Backed up under load, and brought back to every kind of moment.
pub(crate) fn comes_back_as_it_was() {
    let world = served();
    let dir = world.dir.path().display().to_string();
    world.good("pgbench", &["-h", &dir, "-U", "postgres", "-i", "-q", "-s", "2", "postgres"]);
    let mut load = world.command("pgbench");
    load.args(["-h", &dir, "-U", "postgres", "-n", "-c", "2", "-R", "50", "-T", "600", "postgres"]);
    let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let now = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let early = world.sql(now);
    let done = backup(&world, &[], 0);
    assert_eq!(done["postgres"]["state"], "complete");
    assert_eq!((&done["postgres"]["wrong_pages"], &done["postgres"]["checksums"]), (&0.into(), &true.into()));
    world.sql("insert into marks values ('b')");
    world.sql("select pg_switch_wal()");
    let time = world.sql(now);
    world.sql("select pg_sleep(0.2)");
    let xid = world.sql("insert into marks values ('c'); select txid_current()");
    world.sql("insert into marks values ('d')");
    let lsn = world.sql("select pg_current_wal_insert_lsn()");
    world.sql("select pg_create_restore_point('here')");
    world.sql("select pg_switch_wal()");
    world.sql("insert into marks values ('e')");
    load.kill().unwrap();
    load.wait().unwrap();
    world.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgbench'");
    let count = "select count(*), sum(abalance), sum(hashtext(a::text)) from pgbench_accounts a";
    let accounts = world.sql(count);
    world.sql("select pg_switch_wal()");
    world.stop("data");

    plain(&world);
    let promote = ["--target-action", "promote"];
    let to = |target: &[&'static str], value: &str| {
        let words = target.iter().map(|word| (*word).to_owned()).chain([value.to_owned()]);
        words.chain(promote.map(str::to_owned)).collect::<Vec<_>>()
    };
    for (name, target, expected) in [
        ("r_time", to(&["--target-time"], &time), "a,b"),
        ("r_xid", to(&["--target-xid"], &xid), "a,b,c"),
        ("r_before", to(&["--exclusive", "--target-xid"], &xid), "a,b"),
        ("r_lsn", to(&["--target-lsn"], &lsn), "a,b,c,d"),
        ("r_name", to(&["--target-name"], "here"), "a,b,c,d"),
        ("r_first", to(&["--target"], "immediate"), "a"),
        ("r_last", to(&["--target"], "latest"), "a,b,c,d,e"),
    ] {
        let words: Vec<&str> = target.iter().map(String::as_str).collect();
        assert_eq!(marks(&world, name, &words), expected, "{target:?}");
    }
    assert!(world.start("r_last", false));
    assert_eq!(world.sql(count), accounts, "every row of the load");
    world.stop("r_last");
    refuses(&world, &early);
}

/// An ordinary restore gives what PostgreSQL's own tool finds whole, without what the server makes anew.
fn plain(world: &World) {
    world.good("./lifeboat", &["-r", "repo", "restore", "latest", "--target", "plain"]);
    world.good("pg_verifybackup", &["-n", "-q", "plain"]);
    world.good("./lifeboat", &["-r", "repo", "verify", "--data"]);
    for gone in ["postmaster.pid", "postmaster.opts"] {
        assert!(!world.path("plain").join(gone).exists(), "{gone}");
    }
    assert!(
        world.path("plain/tablespace_map").exists() && world.path("plain/pg_wal/archive_status").exists()
    );
}

/// What cannot be reached is refused before anything is written.
fn refuses(world: &World, early: &str) {
    let refused = |repo: &str, target: &[&str], said: &str| {
        let fixed =
            ["-r", repo, "postgres", "restore", "main", "never", "--tablespace-map", "fast=/nowhere/x"];
        let output = world.run("./lifeboat", &[&fixed, target].concat());
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{target:?}: {err}");
        assert!(err.contains(said), "{target:?}: {err}");
        assert!(!world.path("never").exists(), "{target:?}");
    };
    refused("repo", &["--target-time", early], "no base backup is old enough");
    refused("repo", &["--target-time", "2100-01-01T00:00Z"], "the archive ends at");
    refused("repo", &["--target-lsn", "FF/0"], "the archive ends at");
    refused("repo", &["--target", "latest", "--timeline", "9"], "timeline 9");
    world.good("cp", &["-a", "repo", "holed"]);
    let segments = world.segments("holed");
    fs::remove_file(&segments[segments.len() - 2]).unwrap();
    refused("holed", &["--target", "latest"], "a gap at");
    let full = world
        .run("./lifeboat", &["-r", "repo", "postgres", "restore", "main", "r_last", "--target", "latest"]);
    assert_eq!(full.status.code(), Some(7), "a directory that is not empty");
}

/// What goes wrong on the way leaves no snapshot, or one that says what it lacks.
pub(crate) fn is_whole_or_none() {
    let world = served();
    // The archive gets nothing.
    fs::write(world.path("limit"), "0").unwrap();
    let silent = backup(&world, &["--wait-archive", "2s"], 1);
    assert!(silent.to_string().contains("did not come into the archive"), "{silent}");
    // The server ends the session while the backup goes on.
    let child = begin(&world, &["--wait-archive", "60s"]);
    let session = "from pg_stat_activity where application_name = 'lifeboat' and state = 'idle'";
    let waits = (0..300).any(|_| {
        pause();
        world.sql(&format!("select count(*) {session} and query like '%pg_tablespace%'")) == "1"
    });
    assert!(waits, "{}", world.log("data"));
    world.sql(&format!("select pg_terminate_backend(pid) {session}"));
    fs::remove_file(world.path("limit")).unwrap();
    let lost = ends(&child.wait_with_output().unwrap(), 1);
    assert!(lost.to_string().contains("session of the backup ended"), "{lost}");
    assert_eq!(snapshots(&world), 0, "nothing looks like a backup");
    // The archive gets the segment before the backup, and nothing after it.
    world.sql("select pg_switch_wal()");
    let last =
        world.sql("insert into marks values ('b'); select pg_walfile_name(pg_current_wal_insert_lsn())");
    fs::write(world.path("limit"), &last).unwrap();
    let late = backup(&world, &["--wait-archive", "3s"], 3);
    assert_eq!(late["postgres"]["state"], "waiting-for-wal");
    assert!(!late["postgres"]["lacking"].as_array().unwrap().is_empty());
    let soon = world
        .run("./lifeboat", &["-r", "repo", "postgres", "restore", "main", "soon", "--target", "immediate"]);
    assert_eq!(soon.status.code(), Some(1), "its log is not there");
    fs::remove_file(world.path("limit")).unwrap();
    wrong_page(&world);
    world.stop("data");
    let id = late["snapshot"].as_str().unwrap();
    let found =
        marks(&world, "waited", &["--target", "immediate", "--target-action", "promote", "--snapshot", id]);
    assert_eq!(found, "a,b");
}

/// A page that is not what its checksum says is named, and the backup stands.
fn wrong_page(world: &World) {
    world.sql("checkpoint");
    let file = world.sql("select pg_relation_filepath('spaced')");
    world.stop("data");
    let open = fs::File::options().read(true).write(true).open(world.path("data").join(&file)).unwrap();
    let mut byte = [0];
    open.read_exact_at(&mut byte, 2 * 8192 + 4000).unwrap();
    open.write_all_at(&[byte[0] ^ 4], 2 * 8192 + 4000).unwrap();
    drop(open);
    serve(world);
    let done = backup(world, &[], 3);
    assert_eq!(done["postgres"]["wrong_pages"], 1);
    assert_eq!(done["postgres"]["wrong"][0]["page"], 2);
    assert_eq!(done["postgres"]["wrong"][0]["file"], file);
    assert_eq!(done["postgres"]["state"], "complete");
}

/// Names of the archived segments.
fn archived(world: &World) -> Vec<String> {
    let names = world.segments("repo").into_iter();
    names.map(|path| path.file_name().unwrap().to_str().unwrap()[..24].to_owned()).collect()
}

/// What no base backup needs goes, what one needs stays, and a server that asks for what is gone does not take it for the end.
pub(crate) fn log_goes_with_its_backups() {
    let world = served();
    let more = |mark: &str| {
        world.sql(&format!("insert into marks values ('{mark}')"));
        world.sql("select pg_switch_wal()");
    };
    more("b");
    let first = backup(&world, &[], 0);
    more("c");
    more("d");
    let second = backup(&world, &[], 0);
    more("e");
    world.stop("data");
    let before = archived(&world);
    let prune = |more: &[&str]| {
        let fixed = ["-r", "repo", "--json", "prune", "--grace", "0s", "--force", "-y"];
        let output = world.run("./lifeboat", &[&fixed, more].concat());
        ends(&output, 0)
    };
    let waiting = world.good("./lifeboat", &["-r", "repo", "--json", "prune"]);
    let waiting: Value = serde_json::from_str(waiting.lines().last().unwrap()).unwrap();
    assert_eq!(waiting["logs"]["files_deleted"], 0);
    assert!(waiting["logs"]["files_condemned"].as_u64().unwrap() > 0, "{waiting}");
    assert_eq!(archived(&world), before, "the grace is not over");
    let gone = prune(&[]);
    assert!(gone["logs"]["files_deleted"].as_u64().unwrap() > 0, "{gone}");
    let left = archived(&world);
    assert!(before.ends_with(&left) && left.len() < before.len(), "{before:?} {left:?}");
    world.good("./lifeboat", &["-r", "repo", "postgres", "verify"]);
    let asked = world.run("./lifeboat", &["-r", "repo", "postgres", "archive-get", &before[0], "target"]);
    assert_eq!(asked.status.code(), Some(200), "{}", String::from_utf8_lossy(&asked.stderr));
    let promote = ["--target-action", "promote"];
    assert_eq!(marks(&world, "all", &["--target", "latest"]), "a,b,c,d,e", "from the second");
    let verified = world.good("./lifeboat", &["-r", "repo", "--json", "postgres", "verify"]);
    let verified: Value = serde_json::from_str(&verified).unwrap();
    assert_eq!(
        (verified["gaps"].as_array().unwrap().len(), verified["removed"].as_array().unwrap().len()),
        (0, 0)
    );
    let id = first["snapshot"].as_str().unwrap();
    let to = [&["--target", "immediate", "--snapshot", id][..], &promote].concat();
    assert_eq!(marks(&world, "first", &to), "a,b");
    assert_eq!(marks(&world, "again", &["--target", "latest"]), "a,b,c,d,e");
    forgets(&world, (id, second["snapshot"].as_str().unwrap()));
}

/// Who forgets base backups is told what that takes away, and refused what is to be kept.
fn forgets(world: &World, (first, second): (&str, &str)) {
    let fixed = ["-r", "repo", "--json", "forget"];
    let run = |more: &[&str]| world.run("./lifeboat", &[&fixed, more].concat());
    let dry = String::from_utf8(run(&[first, "--dry-run"]).stdout).unwrap();
    let shown = dry.lines().find(|line| line.contains("\"recovery\"")).expect("what can be recovered");
    let shown: Value = serde_json::from_str(shown).unwrap();
    let from = |when: &str| match shown[when].as_array().unwrap().as_slice() {
        [range] => range["from"].as_str().unwrap().to_owned(),
        _ => panic!("{shown}"),
    };
    assert!(from("before") < from("after"), "{shown}");
    assert_eq!(run(&[first, "--keep-recovery", "30d"]).status.code(), Some(7));
    assert_eq!(run(&["--keep-last", "1", "--keep-recovery", "30d"]).status.code(), Some(0));
    assert_eq!(run(&[first, "--keep-recovery", "30d", "--allow-shorter-recovery"]).status.code(), Some(0));
    assert_eq!(run(&[second, "--keep-recovery", "30d"]).status.code(), Some(7));
    let left = world.good("./lifeboat", &["-r", "repo", "snapshots", "--json"]);
    assert!(left.contains(second), "{left}");
}

/// What a check says of a server that archives, of one whose archive is silent, and of one that archives elsewhere.
pub(crate) fn is_checked() {
    let world = served();
    let dir = world.dir.path().display().to_string();
    let check = |role: &str, more: &[&str]| {
        let fixed =
            ["-r", "repo", "--json", "postgres", "check", "main", "--pg-host", &dir, "--pg-user", role];
        let output = world.run("./lifeboat", &[&fixed, more].concat());
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let found: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{said}"));
        let missed = found["points"].as_array().unwrap().iter().filter(|point| point["verdict"] == "missed");
        let names: Vec<String> = missed.map(|point| point["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(output.status.code(), Some(if names.is_empty() { 0 } else { 5 }), "{found}");
        (names, found)
    };
    world.sql("select pg_switch_wal()");
    let first = (0..300).any(|_| {
        pause();
        world.sql("select last_archived_wal is not null from pg_stat_archiver") == "t"
    });
    assert!(first, "{}", world.log("data"));
    assert_eq!(check("keeper", &[]).0, ["base"], "there is none");
    backup(&world, &[], 0);
    let (missed, found) = check("keeper", &[]);
    assert!(missed.is_empty(), "{found}");
    assert_eq!((found["good"].clone(), found["gaps"].clone()), (true.into(), 0.into()));
    assert!(found["newest_base_seconds"].is_u64() && found["last_archived"].is_string(), "{found}");
    assert_eq!(check("keeper", &["--max-age", "0s"]).0, ["base"]);
    assert_eq!(check("keeper", &["--archive-test"]).0, ["archive_test"], "it may not switch");
    // Nobody has written anything since the backup ended a segment.
    let before = archived(&world).len();
    assert!(check("postgres", &["--archive-test=60s"]).0.is_empty());
    assert!(archived(&world).len() > before, "there was nothing to be archived");
    fs::write(world.path("limit"), "0").unwrap();
    let failed = world.sql("select failed_count from pg_stat_archiver");
    for mark in ["x", "y", "z"] {
        world.sql(&format!("insert into marks values ('{mark}')"));
        world.sql("select pg_switch_wal()");
    }
    let fails = (0..600).any(|_| {
        pause();
        world.sql("select failed_count from pg_stat_archiver") != failed
    });
    assert!(fails, "{}", world.log("data"));
    let (missed, found) = check("postgres", &["--max-lag", "1", "--archive-test=1s"]);
    assert_eq!(missed, ["archiver", "lag", "archive_test"], "{found}");
    assert!(found["lag_segments"].as_u64().unwrap() >= 3, "{found}");
    // What the server says it archived is not there.
    fs::remove_file(world.segments("repo").pop().unwrap()).unwrap();
    assert!(check("postgres", &["--max-lag", "99"]).0.contains(&"reached".to_owned()));
    fs::remove_file(world.path("limit")).unwrap();
    world.stop("data");
}
