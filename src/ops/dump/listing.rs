//! What a server is asked before anything of it is dumped: which databases there are, and whether the account may read them.
//!
//! # Invariants
//! Names are compared byte by byte, and here: a server compares them without case or accents. A list counts only with its
//! length, which a setting that cuts answers short does not change.

use std::ffi::OsString;

use super::plan::{DumpKind, command};
use crate::source::SourceError;

/// Names in hexadecimal digits, one a line, whatever characters they are of; a server that was stopped while it dropped a
/// database refuses every connection to that.
const POSTGRES: &str = "with d as (select datname, datconnlimit from pg_database where datallowconn) \
     select case datconnlimit when -2 then 'broken ' else 'database ' end || encode(textsend(datname::text), 'hex') \
     from d union all select 'end ' || count(*) from d";

/// A `sys` is the server's own if it has that table, and nothing else that the server did not make.
const MARIADB: &str = "set sql_select_limit = default; show grants; \
     select sql_calc_found_rows concat('database ', hex(schema_name)) from information_schema.schemata; \
     select concat('end ', found_rows()); \
     select concat('sys ', (select count(*) from information_schema.tables where table_schema = 'sys' \
     and binary table_schema = 'sys' and binary table_name = 'sys_config'), ' ', \
     (select count(*) from information_schema.tables where table_schema = 'sys' and binary table_schema = 'sys' \
     and table_type <> 'VIEW' and binary table_name <> 'sys_config') + \
     (select count(*) from information_schema.views where table_schema = 'sys' and binary table_schema = 'sys' \
     and definer <> 'mariadb.sys@localhost') + \
     (select count(*) from information_schema.routines where routine_schema = 'sys' and binary routine_schema = 'sys' \
     and definer <> 'mariadb.sys@localhost') + \
     (select count(*) from information_schema.events where event_schema = 'sys' and binary event_schema = 'sys'))";

/// Databases of MariaDB that belong to the server.
const MARIADB_OWN: [&[u8]; 3] = [b"information_schema", b"performance_schema", b"mysql"];

/// Without these, on everything, MariaDB shows less than there is and says nothing; routines need the first.
const RIGHTS: [&str; 5] = ["SELECT", "SHOW DATABASES", "SHOW VIEW", "TRIGGER", "EVENT"];

/// What there is to dump.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Listed {
    pub databases: Vec<Vec<u8>>,
    /// Half dropped: nothing can be had of them.
    pub broken: Vec<Vec<u8>>,
}

/// The command that asks; `None` where there are no databases to choose from.
pub(super) fn question(kind: DumpKind, given: &[OsString]) -> Option<Vec<OsString>> {
    match kind {
        DumpKind::Postgres => Some(command(
            "psql",
            given,
            // As the names are stored, not as this machine would write them.
            [
                "-XAtqw",
                "-v",
                "ON_ERROR_STOP=1",
                "-d",
                "postgres",
                "-c",
                "set client_encoding to sql_ascii",
                "-c",
                POSTGRES,
            ],
        )),
        DumpKind::Mariadb => Some(command(
            "mariadb",
            given,
            [
                "--batch",
                "--skip-column-names",
                "--skip-force",
                "--skip-safe-updates",
                "--default-character-set=utf8mb4",
                "-e",
                MARIADB,
            ],
        )),
        DumpKind::Redis => None,
    }
}

/// Reads the answer.
///
/// # Errors
/// [`SourceError::BadList`] if it is none, or cut short, and [`SourceError::MissingRights`].
pub(super) fn answer(kind: DumpKind, text: &[u8]) -> Result<Listed, SourceError> {
    let mut answer = Answer::default();
    text.split_inclusive(|&byte| byte == b'\n')
        .try_for_each(|line| answer.take(kind, line.strip_suffix(b"\n")?))
        .ok_or(SourceError::BadList)?;
    if kind == DumpKind::Mariadb {
        let lacking: Vec<_> =
            RIGHTS.into_iter().filter(|right| !answer.rights.iter().any(|has| has == right)).collect();
        if !lacking.is_empty() && !answer.rights.iter().any(|has| has == "ALL PRIVILEGES") {
            return Err(SourceError::MissingRights { rights: lacking.join(", ") });
        }
        let own_sys = answer.own_sys.ok_or(SourceError::BadList)?;
        answer.end.filter(|&end| end == answer.listed.databases.len()).ok_or(SourceError::BadList)?;
        answer
            .listed
            .databases
            .retain(|name| !(MARIADB_OWN.contains(&&name[..]) || own_sys && name == b"sys"));
    } else {
        let count = answer.listed.databases.len() + answer.listed.broken.len();
        answer.end.filter(|&end| end == count).ok_or(SourceError::BadList)?;
    }
    answer.listed.databases.sort();
    answer.listed.broken.sort();
    Ok(answer.listed)
}

#[derive(Default)]
struct Answer {
    listed: Listed,
    /// How many databases it says that it names.
    end: Option<usize>,
    own_sys: Option<bool>,
    rights: Vec<String>,
}

impl Answer {
    /// Takes a line; `None` for one that cannot be.
    fn take(&mut self, kind: DumpKind, line: &[u8]) -> Option<()> {
        if let Some(name) = line.strip_prefix(b"database ") {
            self.listed.databases.push(unhex(name)?);
        } else if let Some(name) = line.strip_prefix(b"broken ") {
            self.listed.broken.push(unhex(name)?);
        } else if let Some(count) = line.strip_prefix(b"end ") {
            let count = std::str::from_utf8(count).ok()?.parse().ok()?;
            return self.end.replace(count).is_none().then_some(());
        } else if kind == DumpKind::Mariadb {
            if let Some(sys) = line.strip_prefix(b"sys ") {
                self.own_sys = Some(sys == b"1 0");
            }
            // What else is granted is no concern of a dump.
            self.rights.extend(rights_on_everything(line));
        } else {
            return None;
        }
        Some(())
    }
}

/// What a line of `SHOW GRANTS` allows on everything. Names may look like anything, and are always quoted.
fn rights_on_everything(line: &[u8]) -> Vec<String> {
    let line = String::from_utf8_lossy(line);
    let granted = line.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" ON *.* TO "));
    let rights = granted.map(|(rights, _)| rights).filter(|rights| !rights.contains(['`', '"', '\'', '(']));
    rights.into_iter().flat_map(|rights| rights.split(", ")).map(str::to_owned).collect()
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| match *pair {
        [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    };
    let name: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    name.filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<Vec<u8>> {
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    }

    fn hex(name: &str) -> String {
        name.bytes().map(|byte| format!("{byte:02X}")).collect()
    }

    /// As the server answers whoever may do everything.
    fn mariadb(databases: &[&str], sys: &str) -> String {
        let listed: String = databases.iter().map(|name| format!("database {}\n", hex(name))).collect();
        let grants = "GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION\n";
        format!("{grants}{listed}end {}\nsys {sys}\n", databases.len())
    }

    #[test]
    fn a_list_is_names_and_how_many_or_nothing() {
        let good = b"database 617070\nbroken 2D6D\nend 2\n";
        let listed = answer(DumpKind::Postgres, good).unwrap();
        assert_eq!(listed, Listed { databases: names(&["app"]), broken: names(&["-m"]) });
        assert_eq!(answer(DumpKind::Postgres, b"end 0\n").unwrap(), Listed::default());
        for bad in [
            &b""[..],
            b"database 617070\n",
            b"database 617070\nend 2\n",
            b"database 617070\nend 1",
            b"database 61707\nend 1\n",
            b"database \nend 1\n",
            b"database 6\xff\nend 1\n",
            b"database 61\nend 1\nend 1\n",
            b"end -1\n",
            b"ERROR\nend 0\n",
        ] {
            assert!(matches!(answer(DumpKind::Postgres, bad), Err(SourceError::BadList)), "{bad:?}");
        }
        let cut = mariadb(&["a", "b"], "1 0").replace("database 62\n", "");
        assert!(matches!(answer(DumpKind::Mariadb, cut.as_bytes()), Err(SourceError::BadList)));
        let half = mariadb(&["a"], "1 0").replace("sys 1 0\n", "");
        assert!(matches!(answer(DumpKind::Mariadb, half.as_bytes()), Err(SourceError::BadList)));
    }

    #[test]
    fn only_what_is_the_servers_own_to_the_last_byte_is_left_out() {
        let all = [
            "MySQL",
            "SYS",
            "information_schema",
            "m\u{ff}sql",
            "mysql",
            "performance_schema",
            "s\u{fd}s",
            "sys",
        ];
        let left = |sys| answer(DumpKind::Mariadb, mariadb(&all, sys).as_bytes()).unwrap().databases;
        assert_eq!(left("1 0"), names(&["MySQL", "SYS", "m\u{ff}sql", "s\u{fd}s"]));
        for others in ["0 0", "0 3", "1 1"] {
            assert_eq!(left(others), names(&["MySQL", "SYS", "m\u{ff}sql", "sys", "s\u{fd}s"]), "{others}");
        }
    }

    #[test]
    fn who_may_not_see_everything_is_told_what_is_lacking() {
        let with = |grants: &str| {
            let text = format!("{grants}\ndatabase 61\nend 1\nsys 0 0\n");
            match answer(DumpKind::Mariadb, text.as_bytes()) {
                Ok(_) => String::new(),
                Err(SourceError::MissingRights { rights }) => rights,
                Err(other) => panic!("{other}"),
            }
        };
        let all = "SELECT, SHOW DATABASES, SHOW VIEW, TRIGGER, EVENT";
        assert_eq!(
            with("GRANT SELECT, INSERT, EVENT, TRIGGER, SHOW VIEW, SHOW DATABASES ON *.* TO `a`@`b`"),
            ""
        );
        // Some of them by way of roles.
        assert_eq!(
            with(
                "GRANT SELECT, SHOW DATABASES ON *.* TO `a`@`b`\nGRANT `r` TO `a`@`b`\n\
                  GRANT EVENT, TRIGGER, SHOW VIEW ON *.* TO `r`\nSET DEFAULT ROLE `r` FOR `a`@`b`"
            ),
            ""
        );
        assert_eq!(with("GRANT SELECT, SHOW DATABASES, SHOW VIEW, EVENT ON *.* TO `a`@`b`"), "TRIGGER");
        for little in [
            "GRANT USAGE ON *.* TO `a`@`b`\nGRANT SELECT ON `mysql`.* TO `a`@`b`\nGRANT ALL PRIVILEGES ON `shop`.* TO `a`@`b`",
            "GRANT SELECT (`x, TRIGGER, EVENT ON *.* TO `) ON `d`.`t` TO `a`@`b`",
            "GRANT `ALL PRIVILEGES ON *.* TO ` TO `a`@`b`",
            "",
        ] {
            assert_eq!(with(little), all, "{little}");
        }
    }
}
