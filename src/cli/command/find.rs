//! `find`: entries in all snapshots, and what became of each.

use std::os::unix::ffi::OsStrExt;

use jiff::tz::TimeZone;
use lifeboat::class::Class;
use lifeboat::filter::FilterBuilder;
use lifeboat::format::node::NodeKind;
use lifeboat::ops::find::{FindOptions, find};
use lifeboat::ops::snapshots::{SnapshotInfo, list, resolve_all};
use lifeboat::repo::{Repository, Task};

use super::super::args::{FindArgs, KindArg};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render::history;
use super::super::session::Session;
use super::snapshots::warn_of_unreadable;

pub(super) async fn run(session: &mut Session, mut args: FindArgs) -> Result<Exit, CliError> {
    // What is wrong with the patterns is said before anything is asked.
    let mut options = options(session, &args)?;
    let repository = session.repository(Task::Look).await?;
    let (snapshots, unreadable) = snapshots(session, &repository, &mut args).await?;
    let sequence = |info: &SnapshotInfo| (info.snapshot.host.clone(), info.snapshot.job.clone());
    let several = snapshots.windows(2).any(|pair| sequence(&pair[0]) != sequence(&pair[1]));
    options.snapshots = snapshots;
    let voice = session.voice();
    let (output, cancel) = (&mut session.output, session.env.cancel.clone());
    let (mut failure, mut shown) = (None, None);
    let done = find(&repository, options, |found| {
        if failure.is_some() {
            return;
        }
        let mut text = String::new();
        let this = sequence(found.first);
        if !voice.json && shown.as_ref() != Some(&this) {
            if shown.is_none() {
                text.push_str(&history::find_headings(args.long));
            }
            if several {
                text.push_str(&history::sequence_line(found.first));
            }
            shown = Some(this);
        }
        let written = match voice.json {
            true => output.json(&history::found_json(found)),
            false => output.text(&(text + &history::found_line(found, args.long))),
        };
        if let Err(error) = written {
            failure = Some(error);
            // Nobody reads on, so nothing more need be fetched.
            cancel.raise();
        }
    })
    .await;
    session.clear();
    if let Some(error) = failure {
        return Err(error);
    }
    let summary = done?;
    if voice.json {
        session.output.json(&history::find_json(&summary))?;
    } else if summary.versions == 0 {
        session.say(&format!("nothing matches in {} snapshots", summary.snapshots));
    }
    let damaged = unreadable || summary.damaged > 0;
    Ok(if damaged { Exit::Class(Class::Damage) } else { Exit::Done })
}

fn options(session: &Session, args: &FindArgs) -> Result<FindOptions, CliError> {
    let mut names = FilterBuilder::new();
    for pattern in &args.patterns {
        names.include(pattern.as_bytes(), args.ignore_case)?;
    }
    let now = session.env.clock.now();
    let zone = TimeZone::system();
    Ok(FindOptions {
        snapshots: Vec::new(),
        names: names.build()?,
        not_before: args.newer.map(|when| when.at(now, &zone)),
        before: args.older.map(|when| when.at(now, &zone)),
        larger: args.larger.map(|size| size.0),
        smaller: args.smaller.map(|size| size.0),
        kinds: args.kind.iter().flat_map(|kind| kinds(*kind)).copied().collect(),
        metadata: args.metadata,
    })
}

fn kinds(kind: KindArg) -> &'static [NodeKind] {
    match kind {
        KindArg::File => &[NodeKind::File],
        KindArg::Directory => &[NodeKind::Directory],
        KindArg::Symlink => &[NodeKind::Symlink],
        KindArg::Other => &[
            NodeKind::Fifo,
            NodeKind::Socket,
            NodeKind::CharDevice,
            NodeKind::BlockDevice,
            NodeKind::Unknown,
        ],
    }
}

/// The snapshots to look in, and whether some could not be read.
async fn snapshots(
    session: &Session,
    repository: &Repository,
    args: &mut FindArgs,
) -> Result<(Vec<SnapshotInfo>, bool), CliError> {
    let select = std::mem::take(&mut args.select);
    let filter = select.filter(&session.directory);
    if !args.snapshot.is_empty() {
        return Ok((resolve_all(repository, &args.snapshot, &filter).await?, false));
    }
    let mut found = list(repository, &filter).await?;
    warn_of_unreadable(session, &found.unreadable);
    found.snapshots.retain(|info| args.all || info.forgotten.is_none());
    Ok((found.snapshots, !found.unreadable.is_empty()))
}
