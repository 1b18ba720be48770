//! What is run for each kind of server.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::super::backup::{Input, StreamSource};
use crate::dumps::Ending;

/// A kind of server whose content can be dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DumpKind {
    /// PostgreSQL: roles and tablespaces, and each database.
    Postgres,
    /// MariaDB: users and their rights, and each database.
    Mariadb,
    /// Redis: what it would write to its own file.
    Redis,
}

impl DumpKind {
    /// The directory its files are stored in.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mariadb => "mariadb",
            Self::Redis => "redis",
        }
    }
}

/// Databases that every server has: they are filled and not made.
const POSTGRES_OWN: [&[u8]; 2] = [b"postgres", b"template1"];

/// What every dump of MariaDB is made with. Option files may say otherwise, so that is said which a dump must have to be whole.
const MARIADB: [&str; 5] =
    ["--skip-force", "--comments", "--skip-dump-date", "--default-character-set=utf8mb4", "--quick"];

/// A tool with the arguments that were given, and those that it always gets.
pub(super) fn command<'a>(
    program: &str,
    given: &[OsString],
    args: impl IntoIterator<Item = &'a (impl AsRef<OsStr> + ?Sized + 'a)>,
) -> Vec<OsString> {
    let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
    std::iter::once(OsString::from(program)).chain(given.iter().cloned()).chain(args).collect()
}

/// The streams of a server with these databases.
pub(super) fn streams(kind: DumpKind, given: &[OsString], databases: &[Vec<u8>]) -> Vec<StreamSource> {
    let stream = |name: &[u8], argv, ending| {
        let stored = [b"/", kind.name().as_bytes(), b"/", name].concat();
        let source = [b"dump:", kind.name().as_bytes()].concat();
        let (stored, input) = (PathBuf::from(OsString::from_vec(stored)), Input::Command(argv));
        StreamSource { source, stored, input, ending }
    };
    let file = |database: &[u8]| [b"databases/", &escaped(database)[..], b".sql"].concat();
    let mut all = Vec::with_capacity(1 + databases.len());
    match kind {
        DumpKind::Postgres => {
            let globals = command("pg_dumpall", given, ["-w", "--globals-only", "--database=postgres"]);
            all.push(stream(b"globals.sql", globals, Ending::PgDumpAll));
            for database in databases {
                let create = (!POSTGRES_OWN.contains(&&database[..])).then_some("--create");
                let mut dump = command("pg_dump", given, ["-w", "--format=plain"].into_iter().chain(create));
                dump.push(conninfo(database));
                all.push(stream(&file(database), dump, Ending::PgDump));
            }
        }
        DumpKind::Mariadb => {
            let users = MARIADB.into_iter().chain(["--insert-ignore", "--system=users"]);
            all.push(stream(b"users.sql", command("mariadb-dump", given, users), Ending::MariadbDump));
            for database in databases {
                let whole = ["--single-transaction", "--routines", "--events", "--triggers", "--hex-blob"];
                let named = whole.into_iter().chain(["--databases", "--"]);
                let mut dump = command("mariadb-dump", given, MARIADB.into_iter().chain(named));
                dump.push(OsString::from_vec(database.clone()));
                all.push(stream(&file(database), dump, Ending::MariadbDump));
            }
        }
        DumpKind::Redis => {
            all.push(stream(b"dump.rdb", command("redis-cli", given, ["--rdb", "-"]), Ending::Rdb));
        }
    }
    all
}

/// The argument that names a database of PostgreSQL, whatever its name is.
fn conninfo(database: &[u8]) -> OsString {
    let mut argument = b"--dbname=dbname='".to_vec();
    for &byte in database {
        if matches!(byte, b'\'' | b'\\') {
            argument.push(b'\\');
        }
        argument.push(byte);
    }
    argument.push(b'\'');
    OsString::from_vec(argument)
}

/// The name of a file for a database: what cannot stand in one, or not on a terminal, as `%` and two digits.
fn escaped(database: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(database.len());
    for &byte in database {
        if matches!(byte, b'/' | b'%') || byte.is_ascii_control() {
            name.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            name.push(byte);
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn argv(stream: &StreamSource) -> Vec<String> {
        let Input::Command(argv) = &stream.input else { panic!("no command") };
        argv.iter().map(|arg| arg.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn no_name_of_a_database_is_an_option_a_path_or_a_string_of_a_connection() {
        let names = [
            &b"app"[..],
            b"-f x",
            b"a/../b",
            b"host=evil",
            b"it's \\ x",
            b"%2F",
            b"/",
            b"\n",
            b"..",
            b"\xff",
        ];
        let names: Vec<_> = names.iter().map(|name| name.to_vec()).collect();
        for kind in [DumpKind::Postgres, DumpKind::Mariadb] {
            let all = streams(kind, &[], &names);
            let places: BTreeSet<_> = all.iter().map(|stream| stream.stored.clone()).collect();
            assert_eq!(places.len(), names.len() + 1, "each has its own: {places:?}");
            assert!(places.iter().all(|place| place.components().count() <= 4));
            for (stream, name) in all[1..].iter().zip(&names) {
                let Input::Command(argv) = &stream.input else { panic!() };
                let last = argv.last().unwrap().as_bytes();
                match kind {
                    DumpKind::Postgres => {
                        assert!(last.starts_with(b"--dbname=dbname='") && last.ends_with(b"'"))
                    }
                    _ => assert!(last == &name[..] && argv[argv.len() - 2] == "--"),
                }
            }
        }
        assert_eq!(conninfo(b"it's \\ x"), r"--dbname=dbname='it\'s \\ x'");
        assert_eq!(escaped(b"a/b%\n"), b"a%2Fb%25%0A");
    }

    #[test]
    fn what_every_server_has_is_not_made_again() {
        let all = streams(DumpKind::Postgres, &[], &[b"app".to_vec(), b"postgres".to_vec()]);
        assert!(argv(&all[0]).contains(&"--globals-only".to_owned()));
        assert!(argv(&all[1]).contains(&"--create".to_owned()));
        assert!(!argv(&all[2]).contains(&"--create".to_owned()));
    }

    #[test]
    fn arguments_come_first_and_the_source_is_the_server() {
        let given = [OsString::from("-p"), OsString::from("6380")];
        let all = streams(DumpKind::Redis, &given, &[]);
        assert_eq!(argv(&all[0]), ["redis-cli", "-p", "6380", "--rdb", "-"]);
        assert_eq!((&all[0].source[..], all[0].ending), (&b"dump:redis"[..], Ending::Rdb));
        assert_eq!(super::super::listing::question(DumpKind::Mariadb, &given).unwrap()[1], "-p");
    }
}
