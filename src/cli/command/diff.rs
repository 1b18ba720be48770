//! `diff`: what differs between two snapshots.

use lifeboat::class::Class;
use lifeboat::ops::diff::{Change, DiffOptions, DiffSide, diff};
use lifeboat::ops::snapshots::{SnapshotInfo, resolve};
use lifeboat::repo::Task;

use super::super::args::DiffArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render::{history, time};
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: DiffArgs) -> Result<Exit, CliError> {
    let repository = session.repository(Task::Look).await?;
    let filter = args.select.filter(&session.directory);
    let old = resolve(&repository, &args.old.selector, &filter).await?;
    let new = resolve(&repository, &args.new.selector, &filter).await?;
    session.clear();
    let voice = session.voice();
    if !voice.json {
        session.say(&format!("comparing {} with {}", named(&old), named(&new)));
    }
    let path = args.old.path.unwrap_or_default();
    let new_path = args.new.path.unwrap_or_else(|| path.clone());
    let options = DiffOptions {
        old: DiffSide { snapshot: old.clone(), path },
        new: DiffSide { snapshot: new.clone(), path: new_path },
    };
    let (output, cancel) = (&mut session.output, session.env.cancel.clone());
    let mut failure = None;
    let done = diff(&repository, options, |difference| {
        if failure.is_some() || (difference.change == Change::Metadata && !args.metadata) {
            return;
        }
        let shown = match voice.json {
            true => output.json(&history::difference_json(difference)),
            false => output.text(&history::difference_line(difference)),
        };
        if let Err(error) = shown {
            failure = Some(error);
            // Nobody reads on, so nothing more need be fetched.
            cancel.raise();
        }
    })
    .await;
    if let Some(error) = failure {
        return Err(error);
    }
    let summary = done?;
    let same = summary.is_empty() && summary.damaged == 0;
    if voice.json {
        session.output.json(&history::diff_json(&summary, &old, &new))?;
    } else if same {
        session.say("nothing differs");
    } else if !voice.quiet {
        session.output.text(&history::diff_text(&summary, args.metadata))?;
    }
    if summary.unknown > 0 {
        session.warn(&format!(
            "{} entries stand where the other side cannot be read, or was not listed whole",
            summary.unknown
        ));
    }
    Ok(if summary.damaged == 0 { Exit::Done } else { Exit::Class(Class::Damage) })
}

fn named(info: &SnapshotInfo) -> String {
    format!("{} of {}", info.id.short(), time::local(info.snapshot.time))
}
