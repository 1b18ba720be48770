//! `import`: snapshots of another tool.

use lifeboat::class::Class;
use lifeboat::ops::import::{Done, Import, ImportOptions};

use super::super::args::{ImportArgs, ImportVerb, ResticArgs};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render::import::{self as render, Outcome, Sums};
use super::super::render::sanitize;
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: ImportArgs) -> Result<Exit, CliError> {
    match args.verb {
        ImportVerb::Restic(args) => restic(session, args).await,
    }
}

async fn restic(session: &mut Session, args: ResticArgs) -> Result<Exit, CliError> {
    let other = session.settings.foreign(args.from, &session.around)?;
    let options = ImportOptions {
        named: args.snapshots,
        hosts: args.host,
        tags: args.tag,
        paths: args.path,
        again: args.again,
        level: args.level,
    };
    let named = !options.named.is_empty();
    let repository = session.repository().await?;
    let restic = session.restic(&other).await?;
    let begun = session.env.clock.monotonic();
    let mut import = Import::plan(&repository, &restic, &options).await?;
    let mut sums = Sums { damaged: import.problems().len() as u64, ..Sums::default() };
    for problem in import.problems() {
        let text = render::with_causes(problem);
        session.say_always(&format!("error: {}", sanitize::line(&text)));
    }
    for known in import.known() {
        show(session, (&mut sums, named), &Outcome::There(known))?;
    }
    if args.dry_run {
        for theirs in import.left() {
            show(session, (&mut sums, named), &Outcome::Planned(theirs))?;
        }
    } else {
        let all = import.left().len();
        let mut number = 0;
        while let Some(done) = import.next().await? {
            number += 1;
            match &done {
                Done::Imported(done) => show(session, (&mut sums, named), &Outcome::Imported(done))?,
                Done::Unreadable(theirs, error) => {
                    show(session, (&mut sums, named), &Outcome::Unreadable(theirs, error))?;
                }
            }
            if all > 1 && session.voice().bars && !session.voice().json {
                session.say(&format!("{number} of {all} snapshots"));
            }
        }
    }
    session.clear();
    sums.elapsed = session.env.clock.monotonic().saturating_sub(begun);
    if session.voice().json {
        session.output.json(&render::summary_json(&sums, args.dry_run))?;
    } else if !session.voice().quiet {
        session.output.text(&render::summary_text(&sums, args.dry_run))?;
    }
    Ok(if sums.damaged > 0 { Exit::Class(Class::Damage) } else { Exit::Done })
}

/// Tells of one snapshot. People are told of those that are here already only if they named them, or if something is missing.
fn show(
    session: &mut Session,
    (sums, named): (&mut Sums, bool),
    outcome: &Outcome<'_>,
) -> Result<(), CliError> {
    sums.add(outcome);
    if session.voice().json {
        return session.output.json(&render::snapshot_json(outcome));
    }
    let line = render::line(outcome);
    if let Outcome::Unreadable(..) = outcome {
        session.say_always(&format!("error: {line}"));
    } else if outcome.missing() > 0 {
        session.say_always(&format!("warning: {line}"));
    } else if named || !matches!(outcome, Outcome::There(_)) {
        session.say(&line);
    }
    Ok(())
}
