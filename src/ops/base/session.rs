//! The session of a base backup: what is asked of the server, in order.
//!
//! # Invariants
//! The server gives up a backup whose session ends, so one session lasts from start to stop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::copy::Layout;
use crate::cancel::Cancel;
use crate::clock::Clock;
use crate::database::PgError;
use crate::database::connection::{ConnectOptions, Connection, literal};
use crate::database::control::{self, Control};
use crate::database::files::REAL;
use crate::error::{BaseError, Error};
use crate::format::log::{LogFile, SegmentName};
use crate::format::postgres::Tablespace;
use crate::postgres::Lsn;

/// Settings that must not be lower where a backup recovers.
const AT_LEAST: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];

/// What is known of a server.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub system: u64,
    pub version: u32,
    catalog: u32,
    standby: bool,
    pub directory: PathBuf,
    pub segment_size: u32,
    pub page_size: u32,
    /// Pages in a file of a relation.
    file_pages: u32,
    pub checksums: bool,
    wal_level: String,
    archive_mode: String,
    pub settings: Vec<(String, u64)>,
    /// About how many bytes all databases have.
    pub size: u64,
}

/// A backup that began.
#[derive(Debug, Clone)]
pub(super) struct Started {
    pub start: Lsn,
    pub timeline: u32,
    pub time: i64,
    pub tablespaces: Vec<Tablespace>,
}

/// A backup that ended.
#[derive(Debug, Clone)]
pub(super) struct Stopped {
    pub stop: Lsn,
    pub label: Vec<u8>,
    pub map: Vec<u8>,
    pub time: i64,
}

pub(super) struct Session {
    connection: Connection,
}

impl Session {
    pub(super) async fn open(
        options: &ConnectOptions,
        cancel: &Cancel,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let mut connection = Connection::open(options, cancel, clock).await?;
        for setting in ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"] {
            connection.query(&format!("SET {setting} = 0")).await?;
        }
        // Only PostgreSQL 14 and later end idle sessions, and only 17 and later long transactions.
        for setting in ["idle_session_timeout", "transaction_timeout"] {
            match connection.query(&format!("SET {setting} = 0")).await {
                Ok(_) | Err(PgError::Server { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { connection })
    }

    /// Ends it.
    pub(super) async fn end(self) {
        self.connection.close().await;
    }

    /// Asks what is to be known before a backup.
    pub(super) async fn facts(&mut self) -> Result<Facts, Error> {
        let connection = &mut self.connection;
        let [version, standby] = connection
            .one("SELECT current_setting('server_version_num'), pg_is_in_recovery()", "version")
            .await?;
        let [system, catalog] = connection
            .one("SELECT system_identifier, catalog_version_no FROM pg_control_system()", "system identifier")
            .await?;
        let [size] = connection
            .one("SELECT sum(pg_database_size(oid)) FROM pg_database", "size")
            .await
            .unwrap_or_else(|_| ["0".to_owned()]);
        let mut known = Known(BTreeMap::new());
        for row in connection.query("SELECT name, setting FROM pg_settings").await? {
            let [Some(name), Some(value)] = &row[..] else { continue };
            known.0.insert(text(name), text(value));
        }
        let mut settings = Vec::new();
        for name in AT_LEAST {
            settings.push((name.to_owned(), known.number(name)?));
        }
        // Whoever started the server may have named a link to it, and links are not followed.
        let directory = PathBuf::from(known.text("data_directory")?);
        let directory = directory.canonicalize().unwrap_or(directory);
        // The system identifier is shown as a signed number.
        let system = system.parse::<i64>().map_err(|_| answer("system identifier"))? as u64;
        Ok(Facts {
            system,
            version: version.parse().map_err(|_| answer("version"))?,
            catalog: catalog.parse().map_err(|_| answer("catalog version"))?,
            standby: standby != "f",
            directory,
            segment_size: known.number("wal_segment_size")?,
            page_size: known.number("block_size")?,
            file_pages: known.number("segment_size")?,
            checksums: known.text("data_checksums")? == "on",
            wal_level: known.text("wal_level")?.to_owned(),
            archive_mode: known.text("archive_mode")?.to_owned(),
            settings,
            size: size.parse().unwrap_or(0),
        })
    }

    /// Begins the backup.
    pub(super) async fn start(&mut self, facts: &Facts, fast: bool) -> Result<Started, Error> {
        let label = literal("lifeboat base backup");
        let begin = match facts.major() {
            ..15 => format!("SELECT pg_start_backup({label}, {fast}, false)"),
            _ => format!("SELECT pg_backup_start({label}, {fast})"),
        };
        let connection = &mut self.connection;
        let time = now(connection).await?;
        let [start] = connection.one(&begin, "start of the backup").await?;
        let start: Lsn = start.parse().map_err(|_| answer("start of the backup"))?;
        let [segment] =
            connection.one(&format!("SELECT pg_walfile_name('{start}')"), "name of a segment").await?;
        let timeline = segment.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let timeline = timeline.filter(|timeline| *timeline > 0).ok_or_else(|| answer("timeline"))?;
        let mut tablespaces = Vec::new();
        let listed = "SELECT oid, spcname, pg_tablespace_location(oid) FROM pg_tablespace ORDER BY oid";
        for row in connection.query(listed).await? {
            let [Some(oid), Some(name), Some(place)] = &row[..] else {
                return Err(answer("tablespaces").into());
            };
            if !place.is_empty() {
                let oid = text(oid).parse().map_err(|_| answer("tablespaces"))?;
                let space = Tablespace { oid, name: name.clone(), place: place.clone() };
                facts.check_tablespace(&space)?;
                tablespaces.push(space);
            }
        }
        Ok(Started { start, timeline, time, tablespaces })
    }

    /// Uses the session, to see that it is there.
    pub(super) async fn ping(&mut self) -> Result<(), Error> {
        self.connection.query("SELECT 1").await.map_err(BaseError::SessionLost)?;
        Ok(())
    }

    /// Ends the backup. What it gives exists nowhere else.
    pub(super) async fn stop(&mut self, facts: &Facts) -> Result<Stopped, Error> {
        let function = match facts.major() {
            ..15 => "pg_stop_backup(false, false)",
            _ => "pg_backup_stop(wait_for_archive => false)",
        };
        let asked = format!("SELECT lsn, labelfile, spcmapfile FROM {function}");
        let mut rows = self.connection.query(&asked).await.map_err(BaseError::SessionLost)?;
        let row = rows.pop().unwrap_or_default();
        let [Some(stop), Some(label), map] = &row[..] else { return Err(answer("end of the backup").into()) };
        let stop = text(stop).parse().map_err(|_| answer("end of the backup"))?;
        let time = now(&mut self.connection).await?;
        Ok(Stopped { stop, label: label.clone(), map: map.clone().unwrap_or_default(), time })
    }
}

/// What a server says of its archiver.
#[derive(Debug, Clone)]
pub(super) struct Archiver {
    pub standby: bool,
    /// Where its log ends, and on which timeline.
    pub current: Lsn,
    pub timeline: u32,
    pub command: String,
    pub library: String,
    pub last_archived: Option<String>,
    /// Seconds since then.
    pub archived_ago: Option<u64>,
    pub last_failed: Option<String>,
    pub failed_ago: Option<u64>,
    pub failures: u64,
    /// Whether the role that asks may take a base backup.
    pub may_back_up: bool,
}

impl Session {
    /// Asks about the archive.
    pub(super) async fn archiver(&mut self) -> Result<Archiver, Error> {
        let connection = &mut self.connection;
        let place = "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE \
                     pg_current_wal_lsn() END, (SELECT timeline_id FROM pg_control_checkpoint())";
        let [standby, current, checkpointed] = connection.one(place, "end of the log").await?;
        let standby = standby != "f";
        let mut timeline = checkpointed.parse().map_err(|_| answer("timeline"))?;
        if !standby {
            // A checkpoint may be older than the timeline.
            let asked = format!("SELECT pg_walfile_name('{}')", current.replace('\'', ""));
            let [file] = connection.one(&asked, "name of a segment").await?;
            let digits = file.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
            timeline = digits.ok_or_else(|| answer("timeline"))?;
        }
        let ago = "(extract(epoch FROM clock_timestamp() - last_{}_time))::bigint";
        let asked = format!(
            "SELECT last_archived_wal, {}, last_failed_wal, {}, failed_count FROM pg_stat_archiver",
            ago.replace("{}", "archived"),
            ago.replace("{}", "failed"),
        );
        let mut rows = connection.query(&asked).await?;
        let row = rows.pop().unwrap_or_default();
        let [last_archived, archived_ago, last_failed, failed_ago, Some(failures)] = &row[..] else {
            return Err(answer("archiver").into());
        };
        let seconds = |column: &Option<Vec<u8>>| column.as_ref().and_then(|bytes| text(bytes).parse().ok());
        let settings = "SELECT current_setting('archive_command'), coalesce(current_setting('archive_library', true), '')";
        let [command, library] = connection.one(settings, "archive_command").await?;
        let functions = "SELECT pg_has_role('pg_read_all_settings', 'USAGE') AND bool_and(has_function_privilege(oid, 'EXECUTE')) \
                         FROM pg_proc WHERE proname IN ('pg_backup_start', 'pg_backup_stop', 'pg_start_backup', 'pg_stop_backup')";
        let [rights] = connection.one(functions, "rights").await?;
        Ok(Archiver {
            standby,
            current: current.parse().map_err(|_| answer("end of the log"))?,
            timeline,
            command,
            library,
            last_archived: last_archived.as_ref().map(|name| text(name)),
            archived_ago: seconds(archived_ago),
            last_failed: last_failed.as_ref().map(|name| text(name)),
            failed_ago: seconds(failed_ago),
            failures: text(failures).parse().map_err(|_| answer("archiver"))?,
            may_back_up: rights == "t",
        })
    }

    /// Ends the segment that is written, and names it. A server that has written nothing since the last one was ended would end none, so
    /// it is made to write something.
    pub(super) async fn switch(&mut self) -> Result<SegmentName, PgError> {
        self.connection.query("SELECT pg_logical_emit_message(false, 'lifeboat', 'archive test')").await?;
        let [name] =
            self.connection.one("SELECT pg_walfile_name(pg_switch_wal())", "name of a segment").await?;
        match name.parse() {
            Ok(LogFile::Segment(name)) => Ok(name),
            _ => Err(answer("name of a segment")),
        }
    }
}

/// Settings by name.
struct Known(BTreeMap<String, String>);

impl Known {
    fn text(&self, name: &'static str) -> Result<&str, BaseError> {
        self.0.get(name).map(String::as_str).ok_or(BaseError::HiddenSetting { name })
    }

    fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, Error> {
        self.text(name)?.parse().map_err(|_| answer(name).into())
    }
}

impl Facts {
    pub(super) fn major(&self) -> u32 {
        self.version / 10_000
    }

    /// `wal_level` and `archive_mode`.
    pub(super) fn modes(&self) -> (&str, &str) {
        (&self.wal_level, &self.archive_mode)
    }

    /// Size of a page of the log is that of all others in every build that is in use.
    pub(super) fn same_server(&self, other: &Self) -> bool {
        (self.system, self.version, &self.directory) == (other.system, other.version, &other.directory)
    }

    /// Where its files are and how they are made up.
    pub(super) fn layout(&self) -> Layout {
        Layout {
            directory: self.directory.clone(),
            version: format!("PG_{}_{}", self.major(), self.catalog),
            system: self.system,
            major: self.major(),
            page_size: self.page_size as usize,
            file_pages: self.file_pages,
            checksums: self.checksums,
        }
    }

    /// Demands that a backup of this server can be recovered from, and that its files are at hand.
    pub(super) fn check(&self) -> Result<(), Error> {
        let setting = |name, value: &str, needed| {
            Err(BaseError::Setting { name, value: value.to_owned(), needed }.into())
        };
        if !(14..=18).contains(&self.major()) {
            return Err(BaseError::Version { major: self.major() }.into());
        }
        if self.standby {
            return Err(BaseError::Standby.into());
        }
        if self.wal_level == "minimal" {
            return setting("wal_level", &self.wal_level, "replica or logical");
        }
        if self.archive_mode == "off" {
            return setting("archive_mode", &self.archive_mode, "on");
        }
        if !self.page_size.is_power_of_two() || !(1024..=65_536).contains(&self.page_size) {
            return Err(answer("size of a page").into());
        }
        self.check_directory()
    }

    fn check_directory(&self) -> Result<(), Error> {
        let other = |fault| BaseError::NotItsDirectory { path: self.directory.clone(), fault };
        let path = self.directory.join(control::PATH);
        let bytes = match std::fs::read(&path) {
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(other("it holds no control file; the server may run on another machine").into());
            }
            Err(source) => return Err(PgError::Io { action: "read", path, source }.into()),
            Ok(bytes) => bytes,
        };
        // A file that is just being written is read again by the copy, which is what counts.
        if let Ok(control) = Control::parse(&bytes) {
            if control.system != self.system {
                return Err(other("it is another server's").into());
            }
            // A standby of this server on this machine has the same identifier.
            if !control.in_production {
                return Err(other("it is that of a standby, or of a server that does not run").into());
            }
        }
        for name in REAL {
            let path = self.directory.join(name);
            if !std::fs::symlink_metadata(&path).is_ok_and(|stat| stat.is_dir()) {
                return Err(BaseError::Linked { path }.into());
            }
        }
        Ok(())
    }

    fn check_tablespace(&self, space: &Tablespace) -> Result<(), Error> {
        use std::os::unix::ffi::OsStrExt;
        let place = Path::new(std::ffi::OsStr::from_bytes(&space.place));
        let real = place.canonicalize().map_err(|source| PgError::Io {
            action: "find",
            path: place.to_owned(),
            source,
        })?;
        let inside = self.directory.canonicalize().is_ok_and(|directory| real.starts_with(directory));
        if !place.is_absolute() || inside {
            let (name, place) = (text(&space.name), text(&space.place));
            return Err(BaseError::TablespaceInside { name, place }.into());
        }
        Ok(())
    }
}

async fn now(connection: &mut Connection) -> Result<i64, Error> {
    let asked = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let [micros] = connection.one(asked, "time").await?;
    let micros = micros.parse::<i64>().map_err(|_| answer("time"))?;
    Ok(micros.saturating_mul(1000))
}

fn answer(what: &'static str) -> PgError {
    PgError::Answer { what }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
