//! The next step after an error of a database: its server, its base backups, its log.

use lifeboat::database::PgError;
use lifeboat::error::{BaseError, LogError, SqliteError};

/// The next step where a server of PostgreSQL cannot be asked.
pub(super) fn postgres(error: &PgError) -> Option<&'static str> {
    Some(match error {
        PgError::Connect { .. } | PgError::Silent { .. } => {
            "see whether the server runs; --pg-host and --pg-port say where it is"
        }
        PgError::NoPassword { .. } => "give --pg-password-file, or set PGPASSWORD or PGPASSFILE",
        PgError::ClearText { .. } | PgError::Method { .. } => {
            "let the role in by scram-sha-256, or over the server's socket by peer, in pg_hba.conf"
        }
        PgError::NoTls { .. } => "use the server's socket: --pg-host DIRECTORY",
        PgError::OpenPassfile { .. } => "close it to others: chmod 600",
        // Insufficient privilege.
        error if error.code() == Some("42501") => {
            "grant the role pg_read_all_settings, and the execution of pg_backup_start and pg_backup_stop: docs/postgresql.md"
        }
        _ => return None,
    })
}

/// The next step where a database of SQLite cannot be restored.
pub(super) fn sqlite(error: &SqliteError) -> Option<&'static str> {
    Some(match error {
        SqliteError::Taken { .. } | SqliteError::Beside { .. } => {
            "stop what uses the database, move it away together with its -wal, -journal and -shm, and run this again: docs/sqlite.md"
        }
        SqliteError::Unchecked { .. } => "mend that, or leave the check out with --no-check",
        SqliteError::Damaged { .. } => {
            "restore an older snapshot; or mend this one: restore it elsewhere, with --no-check"
        }
        _ => return None,
    })
}

/// The next step where a base backup cannot be made or restored.
pub(super) fn base(error: &BaseError) -> Option<&'static str> {
    Some(match error {
        BaseError::HiddenSetting { .. } => "grant pg_read_all_settings to the role",
        BaseError::ArchiveSilent { .. } => {
            "see why archive_command fails: the server's log, and pg_stat_archiver"
        }
        BaseError::Setting { .. } => "change it, and start the server again: docs/postgresql.md",
        BaseError::NoBase => "make one: lifeboat postgres backup",
        BaseError::TooLate { .. } => "choose an earlier target, or --target latest",
        BaseError::Hole { .. } => "choose an earlier target; what is missing: lifeboat postgres info",
        BaseError::Waiting { .. } => "see what is missing: lifeboat postgres info",
        BaseError::NotEmpty { .. } => "name another one, or empty it",
        BaseError::NotOnTimeline { .. } => "name the timeline of a backup, or --timeline current",
        BaseError::Shortened { .. } => {
            "see which times those are: --dry-run without --keep-recovery; to forget it all the same: --allow-shorter-recovery"
        }
        BaseError::Unclear { .. } => {
            "use a key that reads content, as an admin's; to forget them all the same: --allow-shorter-recovery"
        }
        _ => return None,
    })
}

/// What to do where a database's log cannot be stored, read or shown.
pub(super) fn log(error: &LogError) -> Option<String> {
    Some(match error {
        LogError::NoCluster { .. } | LogError::WhichCluster { .. } => {
            "see which there are: lifeboat postgres info; and name one with --cluster".to_owned()
        }
        LogError::NoClusters => "archive a segment of its log first: lifeboat postgres archive-push".to_owned(),
        LogError::Segment { .. } => {
            "look at the server's disk and memory; --wal-check warn stores it as it is, if only records are damaged".to_owned()
        }
        LogError::OtherServer { cluster, .. } => format!(
            "give another server a --cluster of its own; after initdb or pg_upgrade archive one segment of {cluster} with --new-history"
        ),
        LogError::OldHistory { .. } => "give it a --cluster of its own".to_owned(),
        LogError::NotAllowed { cluster, writer } => {
            format!("let it in with the key of an admin or a maintainer: lifeboat postgres allow {cluster} {writer}")
        }
        LogError::Different { .. } | LogError::Ambiguous { .. } => {
            "two servers write under one name: find out which one goes on, and give the other a --cluster of its own".to_owned()
        }
        LogError::Gap { .. } => {
            "archive it from where it still is; --allow-gap stops replaying there, and loses what was committed later".to_owned()
        }
        LogError::Trimmed { .. } => {
            "see from where on the log is whole: lifeboat postgres info; a newer base backup needs no more".to_owned()
        }
        LogError::Unreadable { .. } => {
            "see what is damaged: lifeboat postgres verify".to_owned()
        }
        _ => return None,
    })
}
