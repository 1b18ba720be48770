//! `import`: snapshots of another tool.

use lifeboat::class::Class;
use lifeboat::ops::import::{Done, Import, ImportOptions};
use lifeboat::repo::Task;

use super::super::args::{ImportArgs, ImportVerb, ResticArgs};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::observe::words;
use super::super::render::brought::Sums;
use super::super::render::import::{self as render, Outcome};
use super::super::session::Session;
use super::brought::{Weight, sum_up, tell, tell_progress};

pub(super) async fn run(session: &mut Session, args: ImportArgs) -> Result<Exit, CliError> {
    match args.verb {
        ImportVerb::Restic(args) => restic(session, args).await,
    }
}

async fn restic(session: &mut Session, args: ResticArgs) -> Result<Exit, CliError> {
    let other = session.settings.foreign(args.from, &session.around)?;
    let dry_run = args.bring.dry_run;
    let options = ImportOptions {
        named: args.snapshots,
        hosts: args.host,
        tags: args.tag,
        paths: args.path,
        again: args.bring.again,
        level: args.bring.level,
    };
    let named = !options.named.is_empty();
    let repository = session.repository(Task::Bring).await?;
    let restic = session.restic(&other).await?;
    let begun = session.env.clock.monotonic();
    let mut import = Import::plan(&repository, &restic, &options).await?;
    let mut sums = Sums { damaged: import.problems().len() as u64, ..Sums::default() };
    for problem in import.problems() {
        session.say_always(&format!("error: {}", words::chain(problem)));
    }
    let mut show = |session: &mut Session, outcome: &Outcome<'_>| {
        render::add(&mut sums, outcome);
        let said = (render::line(outcome), render::snapshot_json(outcome));
        tell(session, (weight(outcome), named), said)
    };
    for known in import.known() {
        show(session, &Outcome::There(known))?;
    }
    if dry_run {
        for theirs in import.left() {
            show(session, &Outcome::Planned(theirs))?;
        }
    } else {
        let all = import.left().len();
        let mut number = 0;
        while let Some(done) = import.next().await? {
            show(
                session,
                &match &done {
                    Done::Imported(theirs, done) => Outcome::Imported(theirs, done),
                    Done::Unreadable(theirs, error) => Outcome::Unreadable(theirs, error),
                },
            )?;
            number += 1;
            tell_progress(session, number, all);
        }
    }
    sums.elapsed = session.env.clock.monotonic().saturating_sub(begun);
    sum_up(session, (render::summary_text(&sums, dry_run), render::summary_json(&sums, dry_run)))?;
    Ok(if sums.damaged > 0 { Exit::Class(Class::Damage) } else { Exit::Done })
}

/// People are told of those that are here already only if they named them, or if something is missing.
fn weight(outcome: &Outcome<'_>) -> Weight {
    match outcome {
        Outcome::Unreadable(..) => Weight::Error,
        outcome if outcome.missing() > 0 => Weight::Warning,
        Outcome::Imported(..) | Outcome::Planned(_) => Weight::News,
        Outcome::There(_) => Weight::Rest,
    }
}
