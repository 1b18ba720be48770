//! `restore`: a snapshot, or a part of it, into a directory.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use lifeboat::class::Class;
use lifeboat::ops::archive::ArchiveKind;
use lifeboat::ops::restore::{RestoreOptions, RestoreSummary, restore};
use lifeboat::ops::snapshots::resolve;
use lifeboat::repo::Task;
use lifeboat::source::target::{Overwrite, TargetDevice};

use super::super::args::{OverwriteArg, RestoreArgs};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::filter;
use super::super::render::summary;
use super::super::session::Session;
use super::archive;

pub(super) async fn run(session: &mut Session, mut args: RestoreArgs) -> Result<Exit, CliError> {
    let kind = ArchiveKind::Tar { numeric_owner: args.owner.numeric_owner };
    if let Some(file) = args.tar.take() {
        return archive::run(session, args, (kind, file)).await;
    }
    if let Some(file) = args.zip.take() {
        return archive::run(session, args, (ArchiveKind::Zip, file)).await;
    }
    let filter = filter::build(&args.exclude, &args.include, None)?;
    // One of them is asked for by the parser.
    let shown = args.target.clone().or_else(|| args.to_file.clone()).unwrap_or_default();
    let (target, name) = place(args.target, args.to_file)?;
    let repository = session.repository(Task::Restore).await?;
    let snapshot =
        resolve(&repository, &args.location.selector, &args.select.filter(&session.directory)).await?;
    let options = RestoreOptions {
        snapshot,
        path: args.location.path.unwrap_or_default(),
        target,
        name,
        overwrite_device: args.overwrite_device,
        owner: args.owner.policy(),
        sparse: args.sparse,
        overwrite: match args.overwrite {
            OverwriteArg::Always => Overwrite::Always,
            OverwriteArg::IfChanged => Overwrite::IfChanged,
            OverwriteArg::IfNewer => Overwrite::IfNewer,
            OverwriteArg::Never => Overwrite::Never,
        },
        filter,
        in_place: args.in_place,
        delete: args.delete,
        yes: args.yes,
        strip: args.strip,
        dry_run: args.dry_run || args.plan,
        verify: args.verify,
    };
    let done = restore(&repository, options).await?;
    session.clear();
    let voice = session.voice();
    let plan = done.forecast.filter(|_| args.plan);
    if voice.json {
        session.output.json(&match plan {
            Some(forecast) => summary::plan_json(&done, &forecast),
            None => summary::restore_json(&done),
        })?;
    } else if !voice.quiet {
        session.output.text(&match plan {
            Some(forecast) => summary::plan_text(&done, &forecast, &shown),
            None => summary::restore_text(&done, &shown),
        })?;
    }
    Ok(exit(&done))
}

/// How a restore ends that came to its end.
pub(super) fn exit(done: &RestoreSummary) -> Exit {
    if done.damaged_count > 0 {
        Exit::Class(Class::Damage)
    } else if done.forecast.is_some_and(|forecast| !forecast.fits()) {
        Exit::Class(Class::NoSpace)
    } else if done.failed > 0 {
        Exit::Class(Class::Partial)
    } else {
        Exit::Done
    }
}

/// The directory, or the device, and the name in it.
fn place(target: Option<PathBuf>, file: Option<PathBuf>) -> Result<(PathBuf, Option<Vec<u8>>), CliError> {
    let Some(file) = file else { return Ok((target.unwrap_or_default(), None)) };
    if TargetDevice::is_one(&file) {
        return Ok((file, None));
    }
    let Some(name) = file.file_name().filter(|_| !file.as_os_str().as_bytes().ends_with(b"/")) else {
        return Err(CliError::NoFileName { path: file });
    };
    let name = name.as_bytes().to_vec();
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((parent.map_or_else(|| PathBuf::from("."), Path::to_owned), Some(name)))
}
