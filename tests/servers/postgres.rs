//! A real PostgreSQL that archives with the program, and is brought back from what it archived.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

/// The programs of the newest version that is installed.
fn programs() -> PathBuf {
    let installed = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL: tests/setup installs it");
    let mut versions: Vec<u32> =
        installed.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect();
    versions.sort_unstable();
    Path::new("/usr/lib/postgresql").join(versions.last().expect("a version").to_string()).join("bin")
}

/// Between two looks at a server.
#[expect(clippy::disallowed_methods, reason = "the server's clock is the machine's")]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}

/// A directory that the server's user owns, with the program, a repository and data directories in it.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap() };
        fs::set_permissions(world.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_lifeboat"), world.path("lifeboat")).unwrap();
        if rustix::process::geteuid().is_root() {
            let owned = Command::new("chown").arg("postgres").arg(world.dir.path()).status().unwrap();
            assert!(owned.success());
        }
        world.good("mkdir", &["home"]);
        world.good("./lifeboat", &["init", "-q", "-r", "repo", "--new-key-file", "key"]);
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A program as the server's user, which is never root.
    pub(crate) fn command(&self, program: &str) -> Command {
        let found = programs().join(program);
        let program = if found.exists() { found.into_os_string() } else { program.into() };
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.dir.path()).env_clear();
        let (dir, path) = (self.dir.path().display(), std::env::var("PATH").unwrap_or_default());
        command.env("PATH", format!("{dir}:{}:{path}", programs().display()));
        command.env("HOME", self.path("home")).env("LIFEBOAT_KEY_FILE", self.path("key"));
        command
    }

    pub(crate) fn run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program).args(args).output().unwrap()
    }

    #[track_caller]
    pub(crate) fn good(&self, program: &str, args: &[&str]) -> String {
        let output = self.run(program, args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {}\n{said}", output.status);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn lifeboat(&self, verb: &str, repo: &str) -> String {
        let dir = self.dir.path().display();
        format!("{dir}/lifeboat -r {dir}/{repo} --no-cache postgres {verb}")
    }

    /// Starts the server of a data directory; false if it does not come up.
    pub(crate) fn start(&self, data: &str, archive: bool) -> bool {
        let (dir, push) = (self.dir.path().display(), self.lifeboat("archive-push %p", "repo"));
        let mode = if archive { "on" } else { "off" };
        let options = format!(
            "-c listen_addresses= -c unix_socket_directories={dir} -c fsync=off -c archive_mode={mode} \
             -c \"archive_command={push}\""
        );
        let log = format!("{data}.log");
        self.run("pg_ctl", &["-s", "-w", "-t", "120", "-D", data, "-l", &log, "-o", &options, "start"])
            .status
            .success()
    }

    /// Stops it: what it has not archived yet it archives now.
    pub(crate) fn stop(&self, data: &str) {
        self.good("pg_ctl", &["-s", "-w", "-t", "120", "-D", data, "-m", "fast", "stop"]);
    }

    pub(crate) fn sql(&self, text: &str) -> String {
        let dir = self.dir.path().display().to_string();
        self.good("psql", &["-h", &dir, "-U", "postgres", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", text])
    }

    pub(crate) fn log(&self, data: &str) -> String {
        fs::read_to_string(self.path(&format!("{data}.log"))).unwrap()
    }

    /// A data directory that recovers to the end of what `repo` has.
    fn restore(&self, data: &str, repo: &str) {
        self.good("cp", &["-a", "base", data]);
        let get = self.lifeboat("archive-get %f %p", repo);
        let settings = format!("restore_command = '{get}'\n");
        let path = self.path(&format!("{data}/postgresql.auto.conf"));
        fs::write(&path, fs::read_to_string(&path).unwrap() + &settings).unwrap();
        self.good("touch", &[&format!("{data}/recovery.signal")]);
    }

    /// Recovers, and waits until the server is open to everybody.
    fn recovered(&self, data: &str, archive: bool) -> Rows {
        assert!(self.start(data, archive), "{}", self.log(data));
        assert!(self.opens(), "it goes on recovering:\n{}", self.log(data));
        self.rows()
    }

    /// Waits until the server is open to everybody; false if that takes too long.
    pub(crate) fn opens(&self) -> bool {
        (0..600).any(|_| {
            pause();
            self.sql("select pg_is_in_recovery()") == "f"
        })
    }

    fn rows(&self) -> Rows {
        Rows {
            accounts: self
                .sql("select count(*), sum(abalance), sum(hashtext(a::text)) from pgbench_accounts a"),
            history: self.sql("select count(*), sum(hashtext(h::text)) from pgbench_history h"),
            marks: self.sql("select string_agg(name, ',' order by name) from marks"),
        }
    }

    /// Objects of segments, in order.
    pub(crate) fn segments(&self, repo: &str) -> Vec<PathBuf> {
        let walk =
            ignore::WalkBuilder::new(self.path(&format!("{repo}/streams"))).standard_filters(false).build();
        let files =
            walk.filter_map(Result::ok).filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()));
        let segment = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.as_bytes().get(24) == Some(&b'-')
        };
        let mut found: Vec<_> = files.map(ignore::DirEntry::into_path).filter(segment).collect();
        found.sort();
        found
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
            if entry.path().join("postmaster.pid").exists() {
                let data = entry.file_name().into_string().unwrap_or_default();
                self.run("pg_ctl", &["-s", "-D", &data, "-m", "immediate", "stop"]);
            }
        }
    }
}

/// What a database holds.
#[derive(Debug, PartialEq, Eq)]
struct Rows {
    accounts: String,
    history: String,
    marks: String,
}

/// A loaded server, its cold copy from before the load without any log, and what it held in the end.
fn archived() -> (World, Rows) {
    let world = World::new();
    world.good("initdb", &["-D", "data", "-U", "postgres", "-A", "trust", "--wal-segsize=1", "--no-sync"]);
    assert!(world.start("data", true), "{}", world.log("data"));
    world.sql("create table marks (name text); insert into marks values ('a')");
    let dir = world.dir.path().display().to_string();
    world.good("pgbench", &["-h", &dir, "-U", "postgres", "-i", "-q", "-s", "1", "postgres"]);
    world.stop("data");
    world.good("cp", &["-a", "data", "base"]);
    world.good("sh", &["-c", "rm -rf base/pg_wal/* && mkdir base/pg_wal/archive_status"]);
    assert!(world.start("data", true), "{}", world.log("data"));
    world.good("pgbench", &["-h", &dir, "-U", "postgres", "-n", "-c", "4", "-t", "300", "postgres"]);
    world.sql("insert into marks values ('b')");
    world.sql("select pg_switch_wal()");
    world.sql("insert into marks values ('c')");
    let rows = world.rows();
    assert_eq!(rows.marks, "a,b,c");
    world.sql("select pg_switch_wal()");
    world.stop("data");
    (world, rows)
}

/// A hole, or a file that is damaged, is not the end of the log: the server stops, and opens nothing.
fn does_not_open(world: &World, data: &str, repo: &str) {
    world.restore(data, repo);
    // It may be open to readers while it replays; it must end without ever having opened.
    world.start(data, false);
    for _ in 0..600 {
        if !world.path(&format!("{data}/postmaster.pid")).exists() {
            break;
        }
        pause();
    }
    let log = world.log(data);
    assert!(!world.path(&format!("{data}/postmaster.pid")).exists(), "it goes on:\n{log}");
    assert!(log.contains("FATAL") && log.contains("exit code 200"), "{log}");
    assert!(!log.contains("archive recovery complete"), "{log}");
    assert!(!world.path(&format!("{data}/pg_wal/00000002.history")).exists());
}

/// The whole story: archive, recover, refuse what is not whole, follow a new timeline.
pub(crate) fn comes_back_whole_or_not_at_all() {
    let (world, before) = archived();
    agrees_with_the_servers_own_tool(&world);
    for repo in ["holed", "spoilt"] {
        world.good("cp", &["-a", "repo", repo]);
        let segments = world.segments(repo);
        let middle = &segments[segments.len() - 3];
        if repo == "holed" {
            fs::remove_file(middle).unwrap();
        } else {
            let mut bytes = fs::read(middle).unwrap();
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            fs::set_permissions(middle, fs::Permissions::from_mode(0o644)).unwrap();
            fs::write(middle, bytes).unwrap();
        }
        does_not_open(&world, &format!("from_{repo}"), repo);
        let verified = world.run("./lifeboat", &["-r", repo, "postgres", "verify"]);
        assert_eq!(verified.status.code(), Some(4));
    }
    world.restore("first", "repo");
    assert_eq!(world.recovered("first", true), before);
    world.sql("insert into marks values ('on the new timeline')");
    world.stop("first");
    world.restore("second", "repo");
    assert_eq!(world.recovered("second", false).marks, "a,b,c,on the new timeline");
    world.stop("second");
    world.good("./lifeboat", &["-r", "repo", "postgres", "verify"]);
    let shown: Value =
        serde_json::from_str(&world.good("./lifeboat", &["-r", "repo", "postgres", "info", "--json"]))
            .unwrap();
    let timelines = shown["histories"][0]["timelines"].as_array().unwrap();
    assert_eq!(timelines.len(), 2, "{shown}");
    assert_eq!(timelines[1]["from_timeline"], 1);
    for timeline in timelines {
        assert_eq!(timeline["ranges"].as_array().unwrap().len(), 1, "{shown}");
    }
}

/// Records, commits and times are those that `pg_waldump` finds.
fn agrees_with_the_servers_own_tool(world: &World) {
    world.good("mkdir", &["log"]);
    let segments = world.segments("repo");
    let names: Vec<&str> =
        segments.iter().map(|path| &path.file_name().unwrap().to_str().unwrap()[..24]).collect();
    for name in &names {
        world.good("./lifeboat", &["-r", "repo", "postgres", "archive-get", name, &format!("log/{name}")]);
    }
    let dumped = world.run("pg_waldump", &["-p", "log", names[0], names[names.len() - 1]]);
    let dumped = String::from_utf8_lossy(&dumped.stdout).into_owned();
    let records = dumped.lines().filter(|line| line.starts_with("rmgr:")).count();
    let commits: Vec<&str> = dumped.lines().filter(|line| line.contains("desc: COMMIT")).collect();
    let found: Value =
        serde_json::from_str(&world.good("./lifeboat", &["-r", "repo", "postgres", "verify", "--json"]))
            .unwrap();
    assert_eq!(found["segments"], names.len());
    assert_eq!(found["records"], records);
    assert_eq!(found["commits"], commits.len());
    for (key, line) in [("first_commit", commits[0]), ("last_commit", commits[commits.len() - 1])] {
        let time = found[key].as_str().unwrap().trim_end_matches('Z').replace('T', " ");
        assert!(line.contains(time.trim_end_matches('0')), "{key} {time}: {line}");
    }
}

/// The page's commands, in its order: a repository, a key, the server's settings, a look, and the way back.
pub(crate) fn the_page_holds() {
    let world = World::new();
    world.good("initdb", &["-D", "data", "-U", "postgres", "-A", "trust", "--wal-segsize=1", "--no-sync"]);
    let dir = world.dir.path().display().to_string();
    let options = format!("-c listen_addresses= -c unix_socket_directories={dir} -c fsync=off");
    world.good("pg_ctl", &["-s", "-w", "-D", "data", "-l", "data.log", "-o", &options, "start"]);
    let text = include_str!("../../docs/postgresql.md");
    let blocks: Vec<&str> =
        text.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert_eq!(blocks.len(), 6);
    let role = text.split("```sql\n").nth(1).unwrap().split_once("```").unwrap().0;
    let does = |block: &str, folder: &str| {
        let block = block.replace("/srv/backups", &format!("{dir}/backups"));
        // What it leaves running must not hold this test's pipes.
        let block = block.replace("pg_ctl restart", &format!("pg_ctl restart -s -l {dir}/data.log"));
        let block = block.replace("/root/", &format!("{dir}/home/"));
        let block = block.replace("--target-time '2026-03-01 14:32:05+01:00'", "--target latest");
        let block = block.replace("/var/lib/postgresql/", &format!("{dir}/home/"));
        let mut command = world.command("sh");
        command.args(["-eu", "-c", &block]).current_dir(world.path(folder));
        command.env("PGHOST", &dir).env("PGUSER", "postgres").env("PGDATA", world.path("data"));
        let output = command.env_remove("LIFEBOAT_KEY_FILE").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{block}\n{}\n{said}\n{}", output.status, world.log("data"));
        String::from_utf8(output.stdout).unwrap()
    };
    does(blocks[0], ".");
    world.stop("data");
    world.good("cp", &["-a", "data", "base"]);
    world.good("pg_ctl", &["-s", "-w", "-D", "data", "-l", "data.log", "-o", &options, "start"]);
    does(blocks[1], ".");
    world.sql("create table marks (name text)");
    world.sql("insert into marks values ('a')");
    world.sql("select pg_switch_wal()");
    for _ in 0..600 {
        if world.sql("select archived_count from pg_stat_archiver") != "0" {
            break;
        }
        pause();
    }
    let shown = does(blocks[2], ".");
    assert!(shown.contains("cluster main"), "{shown}");
    for line in role.lines() {
        world.sql(line);
    }
    does(blocks[3], ".");
    world.sql("insert into marks values ('b')");
    world.sql("select pg_switch_wal()");
    world.stop("data");
    does(blocks[4], ".");
    world.good("pg_ctl", &["-s", "-w", "-D", "home/restored", "-l", "restored.log", "-o", &options, "start"]);
    assert!(world.opens(), "{}", world.log("restored"));
    assert_eq!(world.sql("select string_agg(name, ',' order by name) from marks"), "a,b");
    world.stop("home/restored");
    does(blocks[5], "base");
    world.good("pg_ctl", &["-s", "-w", "-D", "base", "-l", "base.log", "-o", &options, "start"]);
    assert!(world.opens(), "{}", world.log("base"));
    assert_eq!(world.sql("select string_agg(name, ',' order by name) from marks"), "a,b");
    world.stop("base");
}
