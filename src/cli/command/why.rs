//! `why`: what becomes of one path, and what became of it.

use std::sync::Arc;

use lifeboat::class::Class;
use lifeboat::ops::backup::{BackupOptions, BackupSource};
use lifeboat::ops::snapshots::SnapshotFilter;
use lifeboat::ops::why::{WhyOptions, why};
use lifeboat::repo::Task;

use super::super::args::WhyArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render;
use super::super::session::Session;
use super::super::{filter, paths};
use super::backup::host;

pub(super) async fn run(session: &mut Session, args: WhyArgs) -> Result<Exit, CliError> {
    let absolute = |path| paths::absolute(path, &session.directory);
    let path = absolute(&args.file);
    let sources = args.source.iter().map(|source| absolute(source)).collect();
    let backup = BackupOptions {
        filter: Arc::new(filter::of_backup(&args.rules)?),
        one_file_system: args.rules.one_file_system,
        exclude_caches: args.rules.exclude_caches,
        exclude_larger_than: args.rules.exclude_larger_than.map(|size| size.0),
        ..BackupOptions::new(BackupSource::Paths(sources))
    };
    let host = args.host.unwrap_or_else(|| String::from_utf8_lossy(&host()).into_owned());
    let filter = SnapshotFilter { hosts: vec![host], jobs: args.job, tags: args.tag, paths: Vec::new() };
    let repository = session.repository(Task::Why).await?;
    let answer = why(&repository, WhyOptions { path: path.clone(), backup, filter: filter.clone() }).await?;
    session.clear();
    match session.voice().json {
        true => session.output.json(&render::why::object(&path, &answer))?,
        false => session.output.text(&render::why::text(&path, &answer, &filter))?,
    }
    Ok(if answer.damaged == 0 { Exit::Done } else { Exit::Class(Class::Damage) })
}
