//! `copy`: snapshots into another repository.

use lifeboat::class::Class;
use lifeboat::format::layout;
use lifeboat::ops::backup::Brought;
use lifeboat::ops::copy::{Copy, CopyOptions, Outcome, Planned, Verdict};
use lifeboat::repo::Task;

use super::super::args::CopyArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render::copy::{self as render, Sums};
use super::super::session::Session;
use super::brought::{Weight, sum_up, tell, tell_progress};
use super::snapshots::warn_of_unreadable;

pub(super) async fn run(session: &mut Session, args: CopyArgs) -> Result<Exit, CliError> {
    let other = session.settings.other(args.to, &session.around)?;
    let dry_run = args.bring.dry_run;
    let options = CopyOptions {
        named: args.snapshots,
        filter: args.select.filter(&session.directory),
        mirror: args.mirror,
        again: args.bring.again,
        level: args.bring.level,
    };
    let named = !options.named.is_empty();
    let from = session.repository(Task::Restore).await?;
    let to = session.other(&other, Task::Bring).await?;
    let begun = session.env.clock.monotonic();
    let mut copy = Copy::plan(&from, &to, options).await?;
    let mut sums = Sums::new(copy.unreadable.len() as u64);
    warn_of_unreadable(session, &copy.unreadable);
    let mut show = |session: &mut Session, planned: &Planned, outcome: &Outcome| {
        sums.add(planned, outcome);
        let said = (render::line(planned, outcome), render::snapshot_json(planned, outcome));
        tell(session, (weight(outcome), named), said)
    };
    if dry_run {
        for planned in copy.planned() {
            show(session, planned, &Outcome::Left(planned.verdict))?;
        }
    } else {
        let all = copy.planned().filter(|planned| planned.verdict == Verdict::Copy).count();
        let mut number = 0;
        while let Some((planned, outcome)) = copy.next().await? {
            show(session, &planned, &outcome)?;
            if planned.verdict == Verdict::Copy {
                number += 1;
                tell_progress(session, number, all);
            }
        }
    }
    sums.brought.elapsed = session.env.clock.monotonic().saturating_sub(begun);
    if !from.store().list(layout::CLUSTERS).await?.is_empty() {
        session.warn("the logs of databases were not copied");
    }
    sum_up(session, (render::summary_text(&sums, dry_run), render::summary_json(&sums, dry_run)))?;
    Ok(match sums {
        Sums { brought, .. } if brought.damaged > 0 => Exit::Class(Class::Damage),
        Sums { unconfirmed, gone, .. } if unconfirmed > 0 || (gone > 0 && !args.mirror) => {
            Exit::Class(Class::Partial)
        }
        _ => Exit::Done,
    })
}

/// People are told of those that are left only if they named them, or if something is wrong.
fn weight(outcome: &Outcome) -> Weight {
    match outcome {
        Outcome::Unreadable => Weight::Error,
        Outcome::Copied(Brought { missing: 1.., .. })
        | Outcome::Left(Verdict::There { missing: 1.., .. } | Verdict::NotConfirmed) => Weight::Warning,
        Outcome::Copied(_) | Outcome::Gone | Outcome::Left(Verdict::Copy) => Weight::News,
        Outcome::Left(Verdict::There { .. } | Verdict::Older) => Weight::Rest,
    }
}
