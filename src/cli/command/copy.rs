//! `copy`: snapshots into another repository.

use lifeboat::class::Class;
use lifeboat::ops::copy::{Copied, Copy, CopyOptions, Outcome, Planned, Verdict};

use super::super::args::CopyArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render::copy::{self as render, Sums};
use super::super::session::Session;
use super::snapshots::warn_of_unreadable;

pub(super) async fn run(session: &mut Session, args: CopyArgs) -> Result<Exit, CliError> {
    let other = session.settings.other(args.to, &session.around)?;
    let options = CopyOptions {
        named: args.snapshots,
        filter: args.select.filter(&session.directory),
        mirror: args.mirror,
        again: args.again,
        level: args.level,
    };
    let named = !options.named.is_empty();
    let from = session.repository().await?;
    let to = session.other(&other).await?;
    let begun = session.env.clock.monotonic();
    let mut copy = Copy::plan(&from, &to, options).await?;
    let mut sums = Sums { damaged: copy.unreadable.len() as u64, ..Sums::default() };
    warn_of_unreadable(session, &copy.unreadable);
    let all = copy.planned().filter(|planned| planned.verdict == Verdict::Copy).count();
    if args.dry_run {
        for planned in copy.planned() {
            let outcome = Outcome::Left(planned.verdict);
            sums.add(planned, &outcome);
            show(session, planned, &outcome, named)?;
        }
    } else {
        let mut number = 0;
        while let Some((planned, outcome)) = copy.next().await? {
            number += u64::from(planned.verdict == Verdict::Copy);
            sums.add(&planned, &outcome);
            show(session, &planned, &outcome, named)?;
            if let Outcome::Copied(_) = outcome
                && all > 1
                && session.voice().bars
                && !session.voice().json
            {
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
    Ok(match sums {
        Sums { damaged, .. } if damaged > 0 => Exit::Class(Class::Damage),
        Sums { unconfirmed, gone, .. } if unconfirmed > 0 || (gone > 0 && !args.mirror) => {
            Exit::Class(Class::Partial)
        }
        _ => Exit::Done,
    })
}

/// Tells of one snapshot. People are told of those that are left only if they named them, or if something is wrong.
fn show(session: &mut Session, planned: &Planned, outcome: &Outcome, named: bool) -> Result<(), CliError> {
    if session.voice().json {
        return session.output.json(&render::snapshot_json(planned, outcome));
    }
    let wrong = match outcome {
        Outcome::Copied(Copied { missing, .. }) | Outcome::Left(Verdict::There { missing, .. }) => {
            *missing > 0
        }
        Outcome::Left(Verdict::NotConfirmed) => true,
        Outcome::Gone | Outcome::Left(Verdict::Copy | Verdict::Older) => false,
    };
    let line = render::line(planned, outcome);
    if wrong {
        session.say_always(&format!("warning: {line}"));
    } else if named || matches!(outcome, Outcome::Copied(_) | Outcome::Gone | Outcome::Left(Verdict::Copy)) {
        session.say(&line);
    }
    Ok(())
}
