//! `forget`: a policy held against what there is, and a collection afterwards if that is wanted.

use jiff::tz::TimeZone;
use lifeboat::class::Class;
use lifeboat::format::gc::TombReason;
use lifeboat::ops::forget::{
    Fate, ForgetOptions, ForgetPlan, Planned, Recovery, RecoveryRange, apply_forget, plan_forget,
    undelete_until,
};
use lifeboat::ops::gc::{PruneOptions, Share, freed};
use lifeboat::repo::{Listed, Repository, Task};
use lifeboat::retention::{Group, Reason};
use lifeboat::units::ByteSize;
use serde_json::{Map, Value, json};

use super::super::args::ForgetArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::observe::words;
use super::super::render::json::put_bytes;
use super::super::render::table::Table;
use super::super::render::{sanitize, time};
use super::super::session::Session;
use super::prune::collect;
use super::snapshots::warn_of_unreadable;

/// A policy that was applied, or would be.
pub(crate) struct Done {
    repository: Repository,
    plan: ForgetPlan,
    /// What it would free, if nothing was changed.
    freed: Option<Share>,
}

impl Done {
    /// How to exit after it.
    pub(crate) fn exit(&self) -> Exit {
        if self.plan.unreadable.is_empty() { Exit::Done } else { Exit::Class(Class::Damage) }
    }

    /// The first snapshot that cannot be read, and how many more cannot; `None` if all can.
    pub(crate) fn damage(&self) -> Option<String> {
        let [(key, error), others @ ..] = self.plan.unreadable.as_slice() else { return None };
        Some(format!("{key} is left out: {}{}", words::chain(error), words::and_more(others.len())))
    }

    /// How many are kept, and how many forgotten.
    pub(crate) fn counts(&self) -> (usize, usize) {
        counts(&self.plan)
    }
}

/// Applies what was asked for, and ends drawing.
pub(crate) async fn carry_out(session: &Session, args: ForgetArgs) -> Result<Done, CliError> {
    let options = ForgetOptions {
        policy: args.keep.policy(),
        named: args.snapshots,
        unconfirmed: args.unconfirmed,
        filter: args.select.filter(&session.directory),
        allow_empty: args.allow_empty,
        keep_recovery: args.keep_recovery,
        allow_shorter: args.allow_shorter_recovery,
        dry_run: args.dry_run,
        ..ForgetOptions::new(TimeZone::system())
    };
    let task = if args.dry_run && !args.prune { Task::JudgeSnapshots } else { Task::Forget };
    let repository = session.repository(task).await?;
    let plan = plan_forget(&repository, &options).await?;
    let freed = if options.dry_run {
        let gone = plan.tombs().map(|((_, _, id), _)| id).collect();
        Some(freed(&repository, &gone).await?)
    } else {
        apply_forget(&repository, &plan).await?;
        None
    };
    session.clear();
    warn_of_unreadable(session, &plan.unreadable);
    warn_of_clocks(session, &plan);
    Ok(Done { repository, plan, freed })
}

pub(super) async fn run(session: &mut Session, args: ForgetArgs) -> Result<Exit, CliError> {
    let (dry_run, with_prune) = (args.dry_run, args.prune);
    let done = carry_out(session, args).await?;
    let mut exit = done.exit();
    let Done { repository, plan, freed } = done;
    if session.voice().json {
        for (group, planned) in &plan.groups {
            for planned in planned {
                session.output.json(&object(group, planned))?;
            }
        }
        for (listed, fate) in &plan.unread {
            session.output.json(&unread(listed, fate))?;
        }
        for recovery in &plan.recovery {
            session.output.json(&recovery_object(recovery))?;
        }
        session.output.json(&summary(&plan, freed))?;
    } else if !session.voice().quiet {
        for (group, planned) in &plan.groups {
            session.output.text(&table(group, planned))?;
        }
        for (listed, fate) in &plan.unread {
            let (id, why) = (listed.id.short(), why(fate).join(", "));
            session.output.text(&format!("{id} cannot be read: {}, {why}\n\n", verdict(fate)))?;
        }
        for recovery in &plan.recovery {
            session.output.text(&recovery_text(recovery))?;
        }
        session.output.text(&told(&plan, freed))?;
    }
    if with_prune {
        let options = PruneOptions { dry_run, ..PruneOptions::default() };
        let pruned = collect(session, &repository, &options).await?;
        exit = if exit == Exit::Done { pruned } else { exit };
    }
    Ok(exit)
}

/// A clock that was wrong keeps a snapshot for ever, so somebody has to look.
fn warn_of_clocks(session: &Session, plan: &ForgetPlan) {
    for planned in plan.snapshots() {
        let Fate::Keep(reasons) = &planned.fate else { continue };
        let id = planned.info.id.short();
        let stored = time::local(planned.info.stored.0);
        for reason in reasons {
            match reason {
                Reason::ClockDiffers { claimed } => session.warn(&format!(
                    "snapshot {id} says that it ended at {}, but the store got it at {stored}: no policy forgets it",
                    time::local(claimed.0)
                )),
                Reason::InFuture => session.warn(&format!(
                    "the store got snapshot {id} at {stored}, which is still to come: no policy forgets it"
                )),
                _ => {}
            }
        }
    }
}

fn why(fate: &Fate) -> Vec<String> {
    match fate {
        Fate::Keep(reasons) => reasons.iter().map(Reason::to_string).collect(),
        Fate::Forget(TombReason::Policy) => vec!["no rule keeps it".to_owned()],
        Fate::Forget(TombReason::Named) => vec!["named".to_owned()],
        Fate::Forget(TombReason::Unconfirmed) => vec!["never confirmed".to_owned()],
        Fate::Forgotten(tomb) => vec![format!("since {}", time::local(tomb.stored.0))],
    }
}

fn verdict(fate: &Fate) -> &'static str {
    match fate {
        Fate::Keep(_) => "keep",
        Fate::Forget(_) => "forget",
        Fate::Forgotten(_) => "forgotten",
    }
}

fn table(group: &Group, snapshots: &[Planned]) -> String {
    let mut table = Table::new(&["ID", "STORED", "TAGS", "VERDICT", "WHY"], &[false; 5]);
    for planned in snapshots {
        let tags: Vec<String> = planned.info.snapshot.tags.iter().map(|tag| sanitize::line(tag)).collect();
        table.row(vec![
            planned.info.id.short(),
            time::local(planned.info.stored.0),
            tags.join(","),
            verdict(&planned.fate).to_owned(),
            sanitize::line(&why(&planned.fate).join(", ")),
        ]);
    }
    format!("job {} of {}\n{}\n", sanitize::name(&group.job), sanitize::name(&group.host), table.render())
}

fn counts(plan: &ForgetPlan) -> (usize, usize) {
    let kept = plan.snapshots().filter(|planned| matches!(planned.fate, Fate::Keep(_))).count();
    (kept, plan.tombs().count())
}

fn told(plan: &ForgetPlan, freed: Option<Share>) -> String {
    let (kept, forgotten) = counts(plan);
    if let Some(Share { bytes, stored }) = freed {
        return format!(
            "would keep {kept} and forget {forgotten}, which frees {} that nothing else needs, about {} in the store; \
             nothing was changed\n",
            ByteSize(bytes),
            ByteSize(stored),
        );
    }
    if forgotten == 0 {
        return format!("kept {kept}, nothing was forgotten\n");
    }
    let until = time::local(undelete_until(plan.now).0);
    format!(
        "kept {kept}, forgot {forgotten}: removed by the next prune after {until}; \
         until then `lifeboat undelete SNAPSHOT` takes it back\n"
    )
}

/// What a cluster can be brought back to, before and after.
fn recovery_text(recovery: &Recovery) -> String {
    let range = |range: &RecoveryRange| {
        let end = range.last_commit.map_or_else(|| range.end.lsn.to_string(), time::local);
        let gap = if range.gap { ", where a gap is" } else { "" };
        format!("from {} to {end}{gap}", time::local(range.from))
    };
    let all = |ranges: &[RecoveryRange]| match ranges {
        [] => "to no time".to_owned(),
        ranges => ranges.iter().map(range).collect::<Vec<_>>().join("; "),
    };
    let name = sanitize::line(&recovery.cluster);
    if recovery.before == recovery.after {
        return format!("cluster {name} can be brought back {}, and still can\n\n", all(&recovery.before));
    }
    let (before, after) = (all(&recovery.before), all(&recovery.after));
    format!("cluster {name} can be brought back {before}\nand without what is forgotten {after}\n\n")
}

fn recovery_object(recovery: &Recovery) -> Value {
    let range = |range: &RecoveryRange| {
        json!({
            "history": range.end.history,
            "timeline": range.end.timeline,
            "from": time::utc(range.from),
            "last_commit": range.last_commit.map(time::utc),
            "end_lsn": range.end.lsn.to_string(),
            "gap": range.gap,
        })
    };
    let all = |ranges: &[RecoveryRange]| ranges.iter().map(range).collect::<Vec<_>>();
    json!({
        "type": "recovery",
        "cluster": recovery.cluster,
        "before": all(&recovery.before),
        "after": all(&recovery.after),
    })
}

fn object(group: &Group, planned: &Planned) -> Value {
    let info = &planned.info;
    let mut out = Map::new();
    for (key, value) in [
        ("type", json!("verdict")),
        ("id", json!(info.id.to_string())),
        ("stored", json!(time::utc(info.stored.0))),
        ("confirmed", json!(info.confirmed)),
        ("tags", json!(info.snapshot.tags)),
        ("verdict", json!(verdict(&planned.fate))),
        ("reasons", json!(why(&planned.fate))),
    ] {
        out.insert(key.to_owned(), value);
    }
    put_bytes(&mut out, "host", &group.host);
    put_bytes(&mut out, "job", &group.job);
    Value::Object(out)
}

fn unread(listed: &Listed, fate: &Fate) -> Value {
    json!({
        "type": "verdict",
        "id": listed.id.to_string(),
        "stored": time::utc(listed.stored.0),
        "confirmed": listed.confirmed,
        "readable": false,
        "verdict": verdict(fate),
        "reasons": why(fate),
    })
}

fn summary(plan: &ForgetPlan, freed: Option<Share>) -> Value {
    let (kept, forgotten) = counts(plan);
    let dry_run = freed.is_some();
    let until = (!dry_run && forgotten > 0).then(|| time::utc(undelete_until(plan.now).0));
    json!({
        "type": "summary",
        "kept": kept,
        "forgotten": forgotten,
        "dry_run": dry_run,
        "bytes_freed": freed.map(|share| share.bytes),
        "bytes_freed_stored": freed.map(|share| share.stored),
        "undelete_until": until,
    })
}
