//! What of a data directory a base backup holds: what recovery needs, and nothing that it makes anew.
//!
//! The rules are those of PostgreSQL's own base backup (chapter "Making a Base Backup Using the Low Level API", and
//! `src/backend/backup/basebackup.c`).

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is saved.
    Keep,
    /// It is saved without what is in it.
    Empty,
    /// It is left out.
    Leave,
}

/// Directories at the top of which only the name counts.
const EMPTY: [&[u8]; 8] = [
    b"pg_dynshmem",
    b"pg_notify",
    b"pg_replslot",
    b"pg_serial",
    b"pg_snapshots",
    b"pg_stat_tmp",
    b"pg_subtrans",
    WAL,
];
/// The log's own directory.
pub const WAL: &[u8] = b"pg_wal";
/// What the log's directory holds in any case.
pub const ARCHIVE_STATUS: &[u8] = b"archive_status";
/// Where links to tablespaces lie.
pub const TABLESPACES: &[u8] = b"pg_tblspc";

/// Files at the top that belong to the running server, or to another backup.
const LEFT: [&[u8]; 12] = [
    b"backup_label",
    b"backup_label.old",
    b"backup_manifest",
    b"current_logfiles.tmp",
    b"postgresql.auto.conf.tmp",
    b"postmaster.opts",
    b"postmaster.pid",
    b"recovery.signal",
    b"standby.signal",
    b"tablespace_map",
    b"tablespace_map.old",
    b".lifeboat-restore",
];

/// Directories that a server cannot do without: a link in their place would be saved as a link.
pub const REAL: [&str; 6] = ["base", "global", "pg_multixact", "pg_twophase", "pg_xact", "pg_tblspc"];

/// What becomes of the entry with these names on the way from the data directory. Of a tablespace only the directory of this
/// server's version counts, which is called `version`.
pub fn fate(names: &[&[u8]], version: &[u8]) -> Fate {
    let Some(name) = names.last() else { return Fate::Keep };
    if names.iter().any(|name| name.starts_with(b"pgsql_tmp")) || name.starts_with(b"pg_internal.init") {
        return Fate::Leave;
    }
    match names {
        [top] if EMPTY.contains(top) => Fate::Empty,
        [top] if LEFT.contains(top) => Fate::Leave,
        [space, _, inner] if *space == TABLESPACES && *inner != version => Fate::Leave,
        _ if is_database(&names[..names.len() - 1]) && is_temporary(name) => Fate::Leave,
        _ => Fate::Keep,
    }
}

/// Whether this is a directory of relations: of a database, of what all databases share, or of a tablespace.
pub fn is_database(names: &[&[u8]]) -> bool {
    match names {
        [base, _] => *base == b"base",
        [global] => *global == b"global",
        [space, _, _, _] => *space == TABLESPACES,
        _ => false,
    }
}

/// A file of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relation<'a> {
    /// The number it is called by.
    pub number: &'a [u8],
    /// The fork: nothing for the main one.
    pub fork: &'a [u8],
    /// Which gigabyte of it.
    pub segment: u32,
}

impl Relation<'_> {
    /// Whether it is what an unlogged relation begins with after a crash.
    pub fn is_init(&self) -> bool {
        self.fork == b"init"
    }
}

/// What a file of a directory of relations is called: `16384`, `16384.1`, `16384_vm`.
pub fn relation(name: &[u8]) -> Option<Relation<'_>> {
    let (stem, segment) = match name.iter().position(|byte| *byte == b'.') {
        Some(dot) => {
            let text = str::from_utf8(&name[dot + 1..]).ok().filter(|text| !text.starts_with(['0', '+']))?;
            (&name[..dot], text.parse().ok()?)
        }
        None => (name, 0),
    };
    let (number, fork) = match stem.iter().position(|byte| *byte == b'_') {
        Some(at) => (&stem[..at], Some(&stem[at + 1..])),
        None => (stem, None),
    };
    let known = matches!(fork, None | Some(b"fsm" | b"vm" | b"init"));
    let digits = !number.is_empty() && number.len() <= 10 && number.iter().all(u8::is_ascii_digit);
    let fork = fork.unwrap_or_default();
    (known && digits).then_some(Relation { number, fork, segment })
}

/// A relation of one session: `t3_16384`, with a fork and a segment as others have.
fn is_temporary(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"t") else { return false };
    let Some(at) = rest.iter().position(|byte| *byte == b'_') else { return false };
    let session = !rest[..at].is_empty() && rest[..at].iter().all(u8::is_ascii_digit);
    session && relation(&rest[at + 1..]).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Fate {
        let names: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
        fate(&names, b"PG_15_202209061")
    }

    #[test]
    fn what_the_server_makes_anew_is_left_out() {
        for path in [
            "postmaster.pid",
            "backup_label",
            "base/1/pg_internal.init",
            "base/1/pg_internal.init.123",
            "base/pgsql_tmp",
            "base/pgsql_tmp/x",
            "base/5/t3_16384",
            "base/5/t3_16384_fsm",
            "base/5/t12_16384.1",
            "global/t3_16384",
            "pg_tblspc/16400/PG_14_202107181",
            "pg_tblspc/16400/PG_15_202209061/5/t3_99",
            "pg_tblspc/16400/PG_15_202209061/pgsql_tmp",
        ] {
            assert_eq!(of(path), Fate::Leave, "{path}");
        }
        for path in ["pg_wal", "pg_replslot", "pg_stat_tmp", "pg_dynshmem"] {
            assert_eq!(of(path), Fate::Empty, "{path}");
        }
    }

    #[test]
    fn all_else_is_kept() {
        for path in [
            "PG_VERSION",
            "postgresql.auto.conf",
            "base/1/16384",
            "base/1/16384_init",
            "base/1/table",
            "pg_xact/0000",
            "t3_16384",
            "my/postmaster.pid",
            "pg_tblspc/16400",
            "pg_tblspc/16400/PG_15_202209061",
            "pg_tblspc/16400/PG_15_202209061/5/16384",
            "log/t3_16384",
            "pg_stat/x",
        ] {
            assert_eq!(of(path), Fate::Keep, "{path}");
        }
        assert_eq!(fate(&[], b""), Fate::Keep);
    }

    #[test]
    fn names_of_relations_are_told_from_others() {
        let made = |number, fork, segment| Some(Relation { number, fork, segment });
        assert_eq!(relation(b"16384"), made(b"16384", b"", 0));
        assert_eq!(relation(b"16384.12"), made(b"16384", b"", 12));
        assert_eq!(relation(b"16384_vm.1"), made(b"16384", b"vm", 1));
        assert!(relation(b"16384_init").unwrap().is_init());
        for bad in [
            &b""[..],
            b"_",
            b"_vm",
            b"16384_",
            b"16384_x",
            b"16384.",
            b"16384.x",
            b"16384.0",
            b"16384.01",
            b"16384.+1",
            b"x16384",
            b"pg_control",
            b"12345678901",
            b"16384.99999999999",
        ] {
            assert_eq!(relation(bad), None, "{bad:?}");
        }
    }
}
