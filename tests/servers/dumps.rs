//! Dumps of real servers under load, restored into new ones, and servers that die in the middle of a dump.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::postgres::{World, pause};

/// Ends what it was given, when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program on the repository of this world, whose key is in the environment.
fn lifeboat(world: &World, args: &[&str]) -> Output {
    let mut command = world.command("./lifeboat");
    command.args(["-r", "repo"]).args(args).env("PGHOST", world.dir.path()).env("PGUSER", "postgres");
    command.output().unwrap()
}

#[track_caller]
fn saved(world: &World, args: &[&str]) -> Value {
    let output = lifeboat(world, &[&["backup", "--json"], args].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {}\n{said}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn snapshots(world: &World) -> usize {
    let output = lifeboat(world, &["snapshots", "--all", "--json"]);
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().count()
}

/// A script of the shell, which succeeds.
#[track_caller]
fn does(world: &World, script: &str) -> String {
    let mut command = world.command("sh");
    command.args(["-eu", "-c", script]).env("PGHOST", world.dir.path()).env("PGUSER", "postgres");
    let output = command.env("LIFEBOAT_REPO", world.path("repo")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{}\n{said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Puts a program before a tool of the same name: it passes on the first bytes, does something, and passes on the rest; how
/// it ends says nothing of the tool, or everything.
fn interrupt(world: &World, tool: &str, (bytes, deed): (u32, &str), honest: bool) {
    let real = does(world, &format!("command -v {tool}"));
    let honest = if honest { "set -o pipefail\n" } else { "" };
    // Asked for anything but a database, it is the tool itself.
    let script = format!(
        "#!/bin/bash\n{honest}real={}\ncase \"$*\" in *--system=users*) exec $real \"$@\" ;; esac\n\
         $real \"$@\" | {{ head -c {bytes}; {deed}; cat; }}\n",
        real.trim()
    );
    let path = world.path("between");
    fs::create_dir_all(&path).unwrap();
    let path = path.join(tool);
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A backup with what [`interrupt`] put there fails, and says so in these words.
#[track_caller]
fn fails_interrupted(world: &World, args: &[&str], words: &str) {
    let before = snapshots(world);
    let mut command = world.command("./lifeboat");
    let path = command.get_envs().find(|(name, _)| *name == "PATH").unwrap().1.unwrap().to_owned();
    let path = format!("{}:{}", world.path("between").display(), path.to_str().unwrap());
    command.env("PATH", path).env("PGHOST", world.dir.path()).env("PGUSER", "postgres");
    let output = command.args(["-r", "repo", "backup"]).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("so nothing was saved") && said.contains(words), "{said}");
    assert_eq!(snapshots(world), before, "half a dump is none");
}

const POSTGRES: &str = r#"
create role ann login password 'secret';
create role team;
grant team to ann;
create database "it's a/shop" owner ann;
alter database "it's a/shop" set work_mem = '7MB';
\c "it's a/shop"
create table items (id serial primary key, name text, raw bytea, at timestamptz default now());
insert into items (name, raw)
  select 'item ' || i || E'\n\t\\', decode(md5(i::text) || md5((i * 7)::text), 'hex') from generate_series(1, 40000) i;
create table one (id int primary key);
create table two (id int references one);
create view newest as select max(id) from items;
create function twice(i int) returns int language sql as 'select 2 * i';
grant select on items to team;
\c template1
create table in_template as select 'kept' as name;
"#;

/// Adds to two tables together, again and again.
fn load(world: &World) -> Running {
    let mut command = world.command("psql");
    command.args(["-qX", "-v", "ON_ERROR_STOP=1", "-d", "it's a/shop"]).env("PGHOST", world.dir.path());
    let adds = "begin; insert into one select coalesce(max(id), 0) + 1 from one; \
                insert into two select max(id) from one; commit;\n";
    command.env("PGUSER", "postgres").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    std::thread::spawn(move || {
        // Until the other side is ended.
        while std::io::Write::write_all(&mut input, adds.as_bytes()).is_ok() {}
    });
    Running(child)
}

fn shop(world: &World, query: &str) -> String {
    let dir = world.dir.path().display().to_string();
    world.good("psql", &["-h", &dir, "-U", "postgres", "-qAtX", "-d", "it's a/shop", "-c", query])
}

/// Everything of the shop and of the roles, as one line.
fn shop_as_a_whole(world: &World) -> String {
    let rows = shop(world, "select md5(string_agg(items::text, '|' order by id)) from items");
    let counts = shop(
        world,
        "select count(*), (select count(*) from two), newest.max, twice(4) from one, newest group by 3",
    );
    let roles = shop(
        world,
        "select string_agg(rolname || coalesce(rolpassword, ''), ',' order by rolname) from pg_authid where rolname in ('ann', 'team')",
    );
    let rights = shop(
        world,
        "select has_table_privilege('ann', 'items', 'select'), pg_get_userbyid(datdba), (select nextval('items_id_seq')) \
         from pg_database where datname = current_database()",
    );
    let setting = shop(world, "show work_mem");
    format!("{rows} {counts} {roles} {rights} {setting}")
}

fn fresh(world: &World, data: &str) {
    world.good("initdb", &["-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]);
    assert!(world.start(data, false), "{}", world.log(data));
}

const SHOP: &str = "databases/it's a%2Fshop.sql";

/// Brings the newest dump into a server that runs.
fn bring_back(world: &World) {
    does(world, "./lifeboat cat latest:/postgres/globals.sql | psql -Xq -d postgres");
    let cat = format!("./lifeboat cat \"latest:/postgres/{SHOP}\"");
    does(world, &format!("{cat} | psql -Xq -v ON_ERROR_STOP=1 -d postgres"));
    does(
        world,
        "for own in postgres template1; do \
         ./lifeboat cat latest:/postgres/databases/$own.sql | psql -Xq -v ON_ERROR_STOP=1 -d $own; done",
    );
    let kept = does(world, "psql -XAtq -d template1 -c 'select name from in_template'");
    assert_eq!(kept, "kept\n");
    let astray = does(world, "psql -XAtq -d postgres -c \"select to_regclass('in_template') is null\"");
    assert_eq!(astray, "t\n", "each in its own place");
}

pub(crate) fn of_postgresql() {
    let world = World::new();
    fresh(&world, "data");
    fs::write(world.path("fill.sql"), POSTGRES).unwrap();
    does(&world, "psql -Xq -v ON_ERROR_STOP=1 -d postgres -f fill.sql");

    let loading = load(&world);
    for _ in 0..600 {
        if shop(&world, "select count(*) > 20 from one") == "t" {
            break;
        }
        pause();
    }
    let under_load = saved(&world, &["--dump", "postgres", "--job", "pg"]);
    drop(loading);
    let names: Vec<&str> =
        under_load["streams"].as_array().unwrap().iter().map(|s| s["path"].as_str().unwrap()).collect();
    let expected = ["globals.sql", SHOP, "databases/postgres.sql", "databases/template1.sql"];
    assert_eq!(names, expected.map(|name| format!("/postgres/{name}")), "{under_load}");
    fresh_server_holds(&world, |world| {
        let (one, two) = (shop(world, "select count(*) from one"), shop(world, "select count(*) from two"));
        assert!(one == two && one.parse::<u32>().unwrap() > 20, "one consistent state: {one} and {two}");
    });

    let again = saved(&world, &["--dump", "postgres", "--job", "pg"]);
    let (bytes, new) = (again["bytes"].as_u64().unwrap(), again["new_bytes"].as_u64().unwrap());
    assert!(new < bytes / 3, "{new} of {bytes} bytes are new");
    let before = shop_as_a_whole(&world);
    saved(&world, &["--dump", "postgres", "--job", "pg", "--stream", "why.txt=echo beside"]);
    fresh_server_holds(&world, |world| {
        // What the comparison takes of the sequence it took here once more before the dump.
        shop(world, "select setval('items_id_seq', (select last_value - 1 from items_id_seq))");
        assert_eq!(shop_as_a_whole(world), before);
    });
    let asked = lifeboat(&world, &["backup", "-n", "--dump", "postgres", "--job", "pg"]);
    assert!(String::from_utf8_lossy(&asked.stdout).contains("stream /postgres/globals.sql"), "{asked:?}");
    leaves_out_what_is_half_dropped(&world);
    lies_and_dies(&world);
}

/// A server that is stopped while it drops a database marks it so, and lets nobody in.
fn leaves_out_what_is_half_dropped(world: &World) {
    world.sql("create database \"half gone\"");
    world.sql("update pg_database set datconnlimit = -2 where datname = 'half gone'");
    let output = lifeboat(world, &["backup", "--json", "--dump", "postgres", "--job", "pg"]);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert!(err.contains("database half gone is left out") && err.contains("warning"), "{err}");
    assert!(out.contains("template1.sql") && !out.contains("half gone"), "{out}");
    world.sql("drop database \"half gone\"");
}

/// The server is another one while `look` looks at it.
fn fresh_server_holds(world: &World, look: impl Fn(&World)) {
    world.stop("data");
    fresh(world, "other");
    bring_back(world);
    look(world);
    world.stop("other");
    fs::remove_dir_all(world.path("other")).unwrap();
    assert!(world.start("data", false), "{}", world.log("data"));
}

/// A tool that says that all is well, a server that dies, and one that is not there.
fn lies_and_dies(world: &World) {
    interrupt(world, "pg_dump", (100_000, "exit 0"), false);
    fails_interrupted(world, &["--dump", "postgres", "--job", "pg"], "breaks off before its end");
    for (honest, words) in [(false, "breaks off before its end"), (true, "exit code 1")] {
        let deed = "pg_ctl -s -D data -m immediate stop >/dev/null 2>&1";
        interrupt(world, "pg_dump", (100_000, deed), honest);
        fails_interrupted(world, &["--dump", "postgres", "--job", "pg"], words);
        assert!(world.start("data", false), "{}", world.log("data"));
    }
    world.stop("data");
    fs::remove_dir_all(world.path("between")).unwrap();
    fails_interrupted(world, &["--dump", "postgres", "--job", "pg"], "the list of databases");
}

/// A server of MariaDB that the world's user runs, and what its tools need to find it.
fn mariadb(world: &World, data: &str) -> Running {
    let dir = world.dir.path().display().to_string();
    let at = format!("{dir}/{data}");
    if !world.path(data).exists() {
        let datadir = format!("--datadir={at}");
        world.good(
            "mariadb-install-db",
            &["--no-defaults", &datadir, "--auth-root-authentication-method=normal", "--skip-test-db"],
        );
    }
    // What a person may have in such a file must not make half a dump of a whole one.
    let settings = format!("[client]\nsocket={dir}/my.sock\nuser=root\n[mysqldump]\nforce\nskip-comments\n");
    fs::write(world.path("home/.my.cnf"), settings).unwrap();
    let mut server = world.command("/usr/sbin/mariadbd");
    server.args(["--no-defaults", "--skip-networking", "--innodb-buffer-pool-size=32M"]);
    server.args([
        format!("--datadir={at}"),
        format!("--socket={dir}/my.sock"),
        format!("--pid-file={dir}/my.pid"),
    ]);
    server.arg("--innodb-flush-log-at-trx-commit=0").stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(server.spawn().unwrap());
    for _ in 0..1200 {
        if world.run("mariadb-admin", &["ping"]).status.success() {
            return running;
        }
        pause();
    }
    panic!("the server does not come up");
}

fn mariadb_ends(world: &World, mut server: Running) {
    world.good("mariadb-admin", &["shutdown"]);
    server.0.wait().unwrap();
}

const MARIADB: &str = r"
create user ann@localhost identified by 'secret';
create role team;
grant team to ann@localhost;
create database `-my/shop ö`;
use `-my/shop ö`;
create table items (id int primary key auto_increment, name varchar(80), raw varbinary(40), n double);
insert into items (name, raw, n) select concat('item ', seq, '\n\'\\'), unhex(md5(seq)), seq / 7 from mysql.none;
create table one (id int primary key) engine=InnoDB;
create table two (id int primary key) engine=InnoDB;
create view newest as select max(id) as id from items;
create procedure twice(i int) select 2 * i;
create trigger shouts before insert on items for each row set new.name = upper(new.name);
create event never on schedule every 1 year do delete from items where id < 0;
grant select on `-my/shop ö`.* to team;
create database `SYS`;
create table `SYS`.kept as select 'kept' as name;
create database `sýs`;
";

fn my_shop(world: &World, query: &str) -> String {
    let named = "--database=-my/shop ö";
    world.good("mariadb", &["-N", "-B", "--default-character-set=utf8mb4", named, "-e", query])
}

fn my_shop_as_a_whole(world: &World) -> String {
    let rows = my_shop(world, "checksum table items extended");
    let others = my_shop(
        world,
        "select (select count(*) from one), (select count(*) from two), (select id from newest), \
         (select group_concat(event_name) from information_schema.events), \
         (select group_concat(trigger_name) from information_schema.triggers where trigger_schema not in ('sys')), \
         (select group_concat(concat(host, user, coalesce(json_value(priv, '$.authentication_string'), 'role')) order by user) \
         from mysql.global_priv where user in ('ann', 'team')), (select group_concat(grantee order by grantee, privilege_type) from information_schema.schema_privileges), \
         (select group_concat(concat(user, role)) from mysql.roles_mapping where role = 'team' order by 1)",
    );
    format!("{rows} {others} {}", my_shop(world, "call twice(4)"))
}

pub(crate) fn of_mariadb() {
    let world = World::new();
    let server = mariadb(&world, "data");
    let fill = MARIADB.replace("mysql.none", "seq_1_to_30000");
    fs::write(world.path("fill.sql"), fill).unwrap();
    does(&world, "mariadb --default-character-set=utf8mb4 <fill.sql");

    let mut loading = world.command("mariadb");
    loading.args(["--database=-my/shop ö", "--default-character-set=utf8mb4"]).stdin(Stdio::piped());
    let mut loading = Running(loading.spawn().unwrap());
    let mut input = loading.0.stdin.take().unwrap();
    std::thread::spawn(move || {
        for n in 1.. {
            let adds =
                format!("begin; insert into one values ({n}); insert into two values ({n}); commit;\n");
            if std::io::Write::write_all(&mut input, adds.as_bytes()).is_err() {
                return;
            }
        }
    });
    for _ in 0..600 {
        if my_shop(&world, "select count(*) > 20 from one") == "1" {
            break;
        }
        pause();
    }
    let under_load = saved(&world, &["--dump", "mariadb"]);
    drop(loading);
    let names: Vec<&str> =
        under_load["streams"].as_array().unwrap().iter().map(|s| s["path"].as_str().unwrap()).collect();
    let expected = ["users.sql", "databases/-my%2Fshop ö.sql", "databases/SYS.sql", "databases/sýs.sql"];
    assert_eq!(names, expected.map(|name| format!("/mariadb/{name}")), "{under_load}");
    let bring_back = |world: &World| {
        does(world, "./lifeboat cat latest:/mariadb/users.sql | mariadb");
        does(world, "./lifeboat cat 'latest:/mariadb/databases/-my%2Fshop ö.sql' | mariadb");
        does(world, "./lifeboat cat latest:/mariadb/databases/SYS.sql | mariadb");
        assert_eq!(world.good("mariadb", &["-NBe", "select name from `SYS`.kept"]), "kept");
    };
    let checks = |world: &World, look: &dyn Fn(&World)| {
        let other = mariadb(world, "other");
        bring_back(world);
        look(world);
        mariadb_ends(world, other);
        fs::remove_dir_all(world.path("other")).unwrap();
    };
    mariadb_ends(&world, server);
    checks(&world, &|world| {
        let (one, two) =
            (my_shop(world, "select count(*) from one"), my_shop(world, "select count(*) from two"));
        assert!(one == two && one.parse::<u32>().unwrap() > 20, "one consistent state: {one} and {two}");
    });

    let server = mariadb(&world, "data");
    let before = my_shop_as_a_whole(&world);
    let again = saved(&world, &["--dump", "mariadb"]);
    let (bytes, new) = (again["bytes"].as_u64().unwrap(), again["new_bytes"].as_u64().unwrap());
    assert!(new < bytes / 3, "{new} of {bytes} bytes are new");
    sees_everything_or_nothing(&world);
    mariadb_ends(&world, server);
    checks(&world, &|world| assert_eq!(my_shop_as_a_whole(world), before));

    for (honest, words) in [(false, "breaks off before its end"), (true, "exit code")] {
        let server = mariadb(&world, "data");
        interrupt(&world, "mariadb-dump", (300_000, "kill -9 $(cat my.pid)"), honest);
        fails_interrupted(&world, &["--dump", "mariadb"], words);
        drop(server);
    }
    fails_interrupted(&world, &["--dump", "mariadb"], "the list of databases");
}

const RIGHTS: &str = "SELECT, SHOW DATABASES, SHOW VIEW, TRIGGER, EVENT";

/// Accounts with few rights, option files that cut answers short, and a `sys` that is not only the server's own.
fn sees_everything_or_nothing(world: &World) {
    let as_root = does(world, "./lifeboat cat 'latest:/mariadb/databases/-my%2Fshop ö.sql'");
    let account = |name: &str, grants: &[&str]| {
        world.good("mariadb", &["-e", &format!("create user {name}@localhost")]);
        for grant in grants {
            world.good("mariadb", &["-e", &format!("grant {grant} to {name}@localhost")]);
        }
        let (file, socket) = (format!("{name}.cnf"), world.path("my.sock"));
        let settings = format!("[client]\nsocket={}\nuser={name}\n", socket.display());
        fs::write(world.path(&file), settings).unwrap();
        format!("--dump-option=--defaults-file={file}")
    };
    let no_triggers = account("no_triggers", &["SELECT, SHOW DATABASES, SHOW VIEW, EVENT on *.*"]);
    let few = account("few", &["SELECT on mysql.*", "ALL PRIVILEGES on `-my/shop ö`.*"]);
    let before = snapshots(world);
    for (option, lacks) in [(&no_triggers, "lacks TRIGGER on *.*"), (&few, &format!("lacks {RIGHTS} on *.*"))]
    {
        let output = lifeboat(world, &["backup", "--dump", "mariadb", "--job", "few", option]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(lacks) && said.contains("next step"), "{said}");
    }
    assert_eq!(snapshots(world), before);
    assert!(include_str!("../../docs/dumps.md").contains(&format!("GRANT {RIGHTS} ON *.*")));
    let enough = account("enough", &[&format!("{RIGHTS} on *.*")]);
    saved(world, &["--dump", "mariadb", "--job", "enough", &enough]);
    let as_them = does(world, "./lifeboat cat 'latest:/mariadb/databases/-my%2Fshop ö.sql'");
    assert!(as_them == as_root, "the same dump");

    let socket = format!("[client]\nsocket={}\nuser=root\n", world.path("my.sock").display());
    let settings = "[mysql]\nsafe-updates\nselect-limit=1\ninit-command=set sql_select_limit=1\n";
    fs::write(world.path("cut.cnf"), format!("{socket}{settings}")).unwrap();
    let options = ["--dump", "mariadb", "--job", "cut", "--dump-option=--defaults-file=cut.cnf"];
    let count = |done: Value| done["streams"].as_array().unwrap().len();
    assert_eq!(count(saved(world, &options)), 4);
    world.good("mariadb", &["-e", "create table sys.mine select 'mine' as name"]);
    assert_eq!(count(saved(world, &options)), 5);
    let sys = does(world, "./lifeboat cat latest:/mariadb/databases/sys.sql");
    assert!(sys.contains("'mine'"));
    let event = "drop table sys.mine; create event sys.mine on schedule every 1 year do select 'of mine'";
    world.good("mariadb", &["-e", event]);
    assert_eq!(count(saved(world, &options)), 5);
    assert!(does(world, "./lifeboat cat latest:/mariadb/databases/sys.sql").contains("'of mine'"));
    world.good(
        "mariadb",
        &["-e", "drop event sys.mine; drop user no_triggers@localhost, few@localhost, enough@localhost"],
    );
    // The newest is again one of everything.
    saved(world, &["--dump", "mariadb"]);
}

/// A server of Redis that the world's user runs.
fn redis(world: &World, data: &str) -> Running {
    fs::create_dir_all(world.path(data)).unwrap();
    world_owns(world, data);
    let dir = world.dir.path().display().to_string();
    let mut server = world.command("redis-server");
    server.args([
        "--port",
        "0",
        "--unixsocket",
        &format!("{dir}/redis.sock"),
        "--dir",
        &format!("{dir}/{data}"),
    ]);
    server.args(["--save", "", "--enable-debug-command", "local", "--pidfile", &format!("{dir}/redis.pid")]);
    server.args(["--daemonize", "no"]).stdout(Stdio::null());
    let running = Running(server.spawn().unwrap());
    for _ in 0..600 {
        if redis_says(world, &["ping"]) == "PONG" {
            return running;
        }
        pause();
    }
    panic!("the server does not come up");
}

fn world_owns(world: &World, name: &str) {
    if rustix::process::geteuid().is_root() {
        let path = world.path(name);
        assert!(Command::new("chown").args(["-R", "postgres"]).arg(path).status().unwrap().success());
    }
}

fn redis_says(world: &World, args: &[&str]) -> String {
    let socket = world.path("redis.sock").display().to_string();
    let output = world.run("redis-cli", &[&["-s", &socket], args].concat());
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

pub(crate) fn of_redis() {
    let world = World::new();
    let server = redis(&world, "data");
    // Values that nothing makes smaller, of all kinds.
    let fill = "for i = 1, 20000 do redis.call('set', 'k' .. i, redis.sha1hex(i) .. redis.sha1hex(i * 7)) end \
                for i = 1, 500 do redis.call('rpush', 'list', redis.sha1hex(i)) redis.call('zadd', 'z', i, i) end \
                redis.call('hset', 'h', 'a', '\\0\\n') redis.call('set', 'soon', 'x', 'ex', 100000) return 'filled'";
    assert_eq!(redis_says(&world, &["eval", fill, "0"]), "filled");
    let digest = redis_says(&world, &["debug", "digest"]);
    let socket = world.path("redis.sock").display().to_string();
    let options = [format!("--dump-option={}", "-s"), format!("--dump-option={socket}")];
    let dump = ["--dump", "redis", "--job", "cache", &options[0], &options[1]];
    let done = saved(&world, &dump);
    assert_eq!(done["streams"][0]["path"], "/redis/dump.rdb", "{done}");
    let again = saved(&world, &dump);
    assert!(again["new_bytes"].as_u64().unwrap() < again["bytes"].as_u64().unwrap(), "{again}");
    drop(server);

    fs::create_dir_all(world.path("other")).unwrap();
    world_owns(&world, "other");
    does(&world, "./lifeboat restore -q latest:/redis/dump.rdb --to-file other/dump.rdb");
    does(&world, "redis-check-rdb other/dump.rdb");
    let other = redis(&world, "other");
    assert_eq!(redis_says(&world, &["debug", "digest"]), digest);
    drop(other);

    for (deed, honest) in
        [("exit 0", false), ("kill -9 $(cat redis.pid)", false), ("kill -9 $(cat redis.pid)", true)]
    {
        let server = redis(&world, "other");
        interrupt(&world, "redis-cli", (100_000, deed), honest);
        fails_interrupted(&world, &dump, "error: the command for redis/dump.rdb failed");
        drop(server);
    }
    fails_interrupted(&world, &dump, "error: the command for redis/dump.rdb failed");
}

/// The page's commands, in its order.
pub(crate) fn page_holds() {
    let world = World::new();
    let dir = world.dir.path().display().to_string();
    let text = include_str!("../../docs/dumps.md");
    let blocks: Vec<&str> =
        text.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert_eq!(blocks.len(), 6);
    world.good("mkdir", &["etc"]);
    let page = |number: usize| {
        let script = blocks[number].replace("/srv/backups", &format!("{dir}/backups"));
        let script = script
            .replace("/root/", &format!("{dir}/home/"))
            .replace("backup /etc", &format!("backup {dir}/etc"));
        // The homes of this machine are nobody's concern, and the server has a socket of its own.
        let script = script.replace("tar -C /home", &format!("tar -C {dir}/etc"));
        let script = script.replace("--dump postgres", "--dump postgres --job here");
        let socket = format!("--dump redis --job cache --dump-option=-s --dump-option={dir}/redis.sock");
        let script = script.replace("--dump redis", &socket);
        // The first block makes the repository and names it, for all that come after it.
        let named = match number {
            0 => "unset LIFEBOAT_KEY_FILE".to_owned(),
            _ => format!("export LIFEBOAT_REPO={dir}/backups LIFEBOAT_KEY_FILE={dir}/home/backup.key"),
        };
        does(&world, &format!("{named}\n{script}"))
    };
    assert!(page(0).contains("install"), "the packages are listed");

    fresh(&world, "data");
    world.sql("create database shop");
    let shop =
        |query| world.good("psql", &["-h", &dir, "-U", "postgres", "-qAtX", "-d", "shop", "-c", query]);
    shop("create table t as select 'kept' as name");
    assert!(page(1).contains("shop.sql"));
    world.sql("drop database shop");
    page(2);
    assert_eq!(shop("select name from t"), "kept");
    let cut = text.split("`sed -n '").nth(1).unwrap().split_once('\'').unwrap().0;
    let dumped = does(
        &world,
        "LIFEBOAT_REPO=backups LIFEBOAT_KEY_FILE=home/backup.key ./lifeboat cat latest:/postgres/databases/shop.sql",
    );
    fs::write(world.path("shop.sql"), dumped).unwrap();
    assert!(does(&world, &format!("sed -n '{cut}' shop.sql")).contains("\nkept\n\\.\n"), "{cut}");
    world.stop("data");

    let server = mariadb(&world, "my");
    world.good("mariadb", &["-e", "create database shop; create table shop.t select 'kept' as name"]);
    assert!(page(3).contains("shop.sql"));
    world.good("mariadb", &["-e", "drop database shop"]);
    page(4);
    assert_eq!(world.good("mariadb", &["-NBe", "select name from shop.t"]), "kept");
    mariadb_ends(&world, server);

    let server = redis(&world, "cache");
    assert_eq!(redis_says(&world, &["set", "a", "b"]), "OK");
    page(5);
    assert!(fs::read(world.path("restored.rdb")).unwrap().starts_with(b"REDIS"));
    drop(server);
}
