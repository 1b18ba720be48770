//! `restore --tar` and `restore --zip`: a snapshot, or a part of it, as an archive.

use std::fs::File;
use std::io::{IsTerminal, stdout};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use lifeboat::error::Error;
use lifeboat::ops::archive::{ArchiveKind, ArchiveOptions, ArchiveOutput, archive};
use lifeboat::ops::snapshots::resolve;
use lifeboat::repo::Task;

use super::super::args::RestoreArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::filter;
use super::super::output::note;
use super::super::paths::absolute;
use super::super::render::summary;
use super::super::session::Session;

/// Standard output.
const STDOUT: &str = "-";

pub(super) async fn run(
    session: &mut Session,
    args: RestoreArgs,
    (kind, file): (ArchiveKind, PathBuf),
) -> Result<Exit, CliError> {
    let to_stdout = file == Path::new(STDOUT);
    if to_stdout && stdout().is_terminal() {
        return Err(Error::OutputIsTerminal { path: PathBuf::from("standard output") }.into());
    }
    let filter = filter::build(&args.exclude, &args.include, None)?;
    let repository = session.repository(Task::Restore).await?;
    let snapshot =
        resolve(&repository, &args.location.selector, &args.select.filter(&session.directory)).await?;
    let output = if to_stdout {
        // The standard library would look for the ends of lines in it.
        let fd = stdout().as_fd().try_clone_to_owned().map_err(CliError::Output)?;
        ArchiveOutput::Stream(Box::new(File::from(fd)))
    } else {
        ArchiveOutput::File(absolute(&file, &session.directory))
    };
    let path = args.location.path.unwrap_or_default();
    let done = archive(&repository, ArchiveOptions { snapshot, path, kind, filter }, output).await?;
    session.clear();
    let voice = session.voice();
    let place = if to_stdout { Path::new("standard output") } else { &*file };
    match (voice.json, to_stdout) {
        (true, true) => note(&summary::restore_json(&done).to_string()),
        (true, false) => session.output.json(&summary::restore_json(&done))?,
        (false, true) => session.say(summary::archive_text(&done, place).trim_end()),
        (false, false) if voice.quiet => {}
        (false, false) => session.output.text(&summary::archive_text(&done, place))?,
    }
    Ok(super::restore::exit(&done))
}
