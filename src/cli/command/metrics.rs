//! `metrics`: how it stands, for Prometheus.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use lifeboat::ops::snapshots::SnapshotFilter;
use lifeboat::ops::status::status;
use lifeboat::repo::Task;

use super::super::args::MetricsArgs;
use super::super::config::Config;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::jobs::stands;
use super::super::observe::words::chain;
use super::super::paths;
use super::super::render::metrics as render;
use super::super::session::Session;
use super::super::settings::Settings;

pub(super) async fn run(session: &mut Session, args: &MetricsArgs) -> Result<Exit, CliError> {
    let config = match Config::load(&session.settings.typed, &session.around) {
        // No mistake in the file stands between a person and a repository that is named by its location.
        Err(error) if Settings::is_located(&session.settings.typed, &session.around) => {
            session.warn(&format!("jobs are not looked at: {}", chain(&error)));
            Config::default()
        }
        loaded => loaded?,
    };
    let text = collect(session, &config).await?;
    session.clear();
    match &args.output {
        Some(path) => write(&paths::absolute(path, &session.directory), &text)?,
        None => session.output.text(&text)?,
    }
    Ok(Exit::Done)
}

/// The text of the repository of this session.
pub(crate) async fn collect(session: &Session, config: &Config) -> Result<String, CliError> {
    let repository = session.repository(Task::Status).await?;
    let status = status(&repository, &SnapshotFilter::default(), true).await?;
    let stands = stands(config, &session.settings.places.state, session.env.clock.now());
    let its: Vec<_> = stands
        .into_iter()
        .filter(|stand| session.settings.is_at(config, &stand.repository, &session.around))
        .collect();
    Ok(render::text(repository.id(), &status, &its))
}

/// Puts it in its place as a whole: whoever collects never sees a part of it. Others may read it, as collectors run under names of
/// their own.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let failed = |source| CliError::Write { path: path.to_owned(), source };
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    };
    // What does not end in `.prom` is no file for node_exporter.
    let new = directory.join(format!(".{}.{}.new", name.to_string_lossy(), std::process::id()));
    let put = || -> io::Result<()> {
        let _ = std::fs::remove_file(&new);
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o644).open(&new)?;
        // Whatever the mask of this process takes away.
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        File::open(directory)?.sync_all()
    };
    put().map_err(|source| {
        let _ = std::fs::remove_file(&new);
        failed(source)
    })
}
