//! `restore`: a snapshot, or a part of it, into a directory.

use lifeboat::class::Class;
use lifeboat::ops::restore::{RestoreOptions, restore};
use lifeboat::ops::snapshots::resolve;
use lifeboat::source::target::{Overwrite, OwnerPolicy};

use super::super::args::{OverwriteArg, RestoreArgs};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::filter;
use super::super::render::summary;
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: RestoreArgs) -> Result<Exit, CliError> {
    let filter = filter::build(&args.exclude, &args.include, None)?;
    let repository = session.repository().await?;
    let snapshot =
        resolve(&repository, &args.location.selector, &args.select.filter(&session.directory)).await?;
    let options = RestoreOptions {
        snapshot,
        path: args.location.path.unwrap_or_default(),
        target: args.target.clone(),
        owner: match (args.no_owner, args.numeric_owner) {
            (true, _) => OwnerPolicy::Skip,
            (false, true) => OwnerPolicy::Numbers,
            (false, false) => OwnerPolicy::Names,
        },
        sparse: args.sparse,
        overwrite: match args.overwrite {
            OverwriteArg::Always => Overwrite::Always,
            OverwriteArg::Never => Overwrite::Never,
        },
        filter,
        dry_run: args.dry_run,
        verify: args.verify,
    };
    let done = restore(&repository, options).await?;
    session.clear();
    let voice = session.voice();
    if voice.json {
        session.output.json(&summary::restore_json(&done))?;
    } else if !voice.quiet {
        session.output.text(&summary::restore_text(&done, &args.target, args.dry_run))?;
    }
    Ok(if done.damaged_count > 0 {
        Exit::Class(Class::Damage)
    } else if done.failed > 0 {
        Exit::Class(Class::Partial)
    } else {
        Exit::Done
    })
}
