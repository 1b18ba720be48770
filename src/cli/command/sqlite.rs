//! `sqlite`: databases of SQLite, saved while they are written to, and put back.

use lifeboat::class::Class;
use lifeboat::ops::backup::{BackupOptions, BackupSource};
use lifeboat::ops::snapshots::resolve;
use lifeboat::ops::sqlite::{SqliteRestoreOptions, backup, restore};
use lifeboat::repo::Task;

use super::super::args::{SqliteArgs, SqliteBackupArgs, SqliteRestoreArgs, SqliteVerb};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::paths;
use super::super::render::sqlite as text;
use super::super::session::Session;
use super::backup::{ended, host, report, user};
use super::default;

pub(super) async fn run(session: &mut Session, args: SqliteArgs) -> Result<Exit, CliError> {
    match args.verb {
        SqliteVerb::Backup(args) => save(session, args).await,
        SqliteVerb::Restore(args) => give_back(session, args).await,
    }
}

async fn save(session: &mut Session, args: SqliteBackupArgs) -> Result<Exit, CliError> {
    let paths = args.paths.iter().map(|path| paths::absolute(path, &session.directory)).collect();
    let options = BackupOptions {
        job: args.job,
        host: args.new.host.map_or_else(host, String::into_bytes),
        user: user(),
        tags: args.new.tag,
        level: args.new.level,
        dry_run: args.dry_run,
        ..BackupOptions::new(BackupSource::Paths(paths))
    };
    if !options.dry_run {
        default::ensure(session).await?;
    }
    let repository = session.repository(Task::Backup).await?;
    let done = backup(&repository, options).await?;
    ended(session, &done);
    report(session, &done)
}

async fn give_back(session: &mut Session, args: SqliteRestoreArgs) -> Result<Exit, CliError> {
    let Some(path) = args.location.path.filter(|path| !path.is_empty()) else { return Err(CliError::NoPath) };
    let repository = session.repository(Task::Restore).await?;
    let snapshot =
        resolve(&repository, &args.location.selector, &args.select.filter(&session.directory)).await?;
    let target = paths::absolute(&args.target, &session.directory);
    let options = SqliteRestoreOptions {
        snapshot,
        path,
        target: target.clone(),
        owner: args.owner.policy(),
        check: !args.no_check,
    };
    let done = restore(&repository, options).await?;
    session.clear();
    if session.voice().json {
        session.output.json(&text::restore_json(&done))?;
    } else if !session.voice().quiet {
        session.output.text(&text::restore_text(&done, &target))?;
    }
    Ok(if done.is_partial() { Exit::Class(Class::Partial) } else { Exit::Done })
}
