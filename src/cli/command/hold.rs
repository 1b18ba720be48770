//! `hold`: snapshots that nothing removes.

use jiff::tz::TimeZone;
use lifeboat::class::Class;
use lifeboat::ops::hold::{HoldInfo, Until, hold, list_holds, remove_hold};
use lifeboat::ops::legal::hold_legally;
use lifeboat::ops::snapshots::resolve_all;
use lifeboat::repo::Task;
use lifeboat::units::Counted;
use serde_json::{Value, json};

use super::super::args::{HoldAddArgs, HoldArgs, HoldVerb};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render::table::Table;
use super::super::render::time;
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: HoldArgs) -> Result<Exit, CliError> {
    match args.verb {
        HoldVerb::Add(args) => add(session, args).await,
        HoldVerb::List => list(session).await,
        HoldVerb::Remove { hold } => remove(session, &hold).await,
    }
}

async fn add(session: &mut Session, args: HoldAddArgs) -> Result<Exit, CliError> {
    let filter = args.select.filter(&session.directory);
    let repository = session.repository(Task::Hold).await?;
    let snapshots = resolve_all(&repository, &args.snapshots, &filter).await?;
    let (hash, until, legal) = if args.legal {
        let legal = hold_legally(&repository, &snapshots).await?;
        (legal.hash, None, Some(legal))
    } else {
        let until = args.until.unwrap_or(Until::Removed);
        let (hash, until) = hold(&repository, &snapshots, until, &TimeZone::system()).await?;
        (hash, until, None)
    };
    session.clear();
    let missing = legal.as_ref().and_then(|legal| legal.missing.as_ref());
    if let Some((count, error)) = missing {
        session.warn(&format!(
            "{count} of what the snapshots need could not be found, and is not kept: {error}"
        ));
    }
    let objects = legal.as_ref().map(|legal| legal.objects);
    let ids: Vec<String> = snapshots.iter().map(|info| info.id.to_string()).collect();
    if session.voice().json {
        session.output.json(&json!({
            "type": "hold",
            "id": hash.to_string(),
            "snapshots": ids,
            "until": until.map(|until| time::utc(until.0)),
            "legal": objects.is_some(),
            "objects": objects,
        }))?;
    } else if !session.voice().quiet {
        let what = Counted(ids.len() as u64, "snapshot");
        let kept = objects.map(|count| format!(", the store keeps {} for it", Counted(count, "object")));
        let kept = kept.unwrap_or_default();
        session.output.text(&format!(
            "hold {}: {what}, {}{kept}\n",
            hash.short(),
            end(until.map(|until| until.0))
        ))?;
    }
    Ok(if missing.is_some() { Exit::Class(Class::Damage) } else { Exit::Done })
}

async fn list(session: &mut Session) -> Result<Exit, CliError> {
    let repository = session.repository(Task::ListHolds).await?;
    let holds = list_holds(&repository).await?;
    session.clear();
    if session.voice().json {
        for hold in &holds {
            session.output.json(&object(hold))?;
        }
    } else if holds.is_empty() {
        session.say("there are no holds");
    } else {
        let mut table = Table::new(&["ID", "SINCE", "END", "SNAPSHOTS"], &[false; 4]);
        for HoldInfo { stored, stands, legal } in &holds {
            let over = match (stands, legal) {
                (false, _) => " (over)",
                (true, Some(true)) => " (legal)",
                (true, _) => "",
            };
            let snapshots: Vec<String> = stored.hold.snapshots.iter().map(|id| id.short()).collect();
            table.row(vec![
                stored.hash.short(),
                time::local(stored.stored.0),
                format!("{}{over}", end(stored.hold.until)),
                snapshots.join(" "),
            ]);
        }
        session.output.text(&table.render())?;
    }
    Ok(Exit::Done)
}

async fn remove(session: &mut Session, selector: &str) -> Result<Exit, CliError> {
    let repository = session.repository(Task::Hold).await?;
    let removed = remove_hold(&repository, selector).await?;
    session.clear();
    let (id, released) = (removed.hash.to_string(), removed.released);
    if session.voice().json {
        session.output.json(&json!({ "type": "hold_removed", "id": id, "released": released }))?;
    } else if !session.voice().quiet {
        let freed = match released {
            0 => String::new(),
            count => format!(", the store keeps {} no more because of it", Counted(count, "object")),
        };
        session.output.text(&format!("removed hold {}{freed}\n", removed.hash.short()))?;
    }
    Ok(Exit::Done)
}

fn end(until: Option<i64>) -> String {
    until.map_or("until it is removed".to_owned(), |until| format!("until {}", time::local(until)))
}

fn object(HoldInfo { stored, stands, legal }: &HoldInfo) -> Value {
    let snapshots: Vec<String> = stored.hold.snapshots.iter().map(ToString::to_string).collect();
    json!({
        "type": "hold",
        "id": stored.hash.to_string(),
        "snapshots": snapshots,
        "since": time::utc(stored.stored.0),
        "until": stored.hold.until.map(time::utc),
        "stands": stands,
        "legal": legal,
    })
}
