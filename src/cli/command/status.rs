//! `status`: whether every job is where it should be.

use std::time::Duration;

use lifeboat::class::Class;
use lifeboat::clock::{Clock, SystemClock, Timestamp};
use lifeboat::ops::status::{JobStatus, Miss, Objectives, Protected, Status, status};
use lifeboat::repo::Task;
use lifeboat::units::{ByteSize, Counted};
use serde_json::{Map, Value, json};

use super::super::args::{GlobalArgs, StatusArgs};
use super::super::config::Config;
use super::super::environment::Surroundings;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::jobs::stands;
use super::super::observe::words::chain as words_of;
use super::super::output::line;
use super::super::places;
use super::super::render::coverage::share;
use super::super::render::jobs as render;
use super::super::render::json::put_bytes;
use super::super::render::table::Table;
use super::super::render::{sanitize, time};
use super::super::session::Session;
use super::super::settings::Settings;
use super::snapshots::{is_after_revocation, warn_of_unreadable};

pub(super) async fn run(session: &mut Session, args: StatusArgs) -> Result<Exit, CliError> {
    let objectives = args.objectives();
    let late = scheduled(session)?;
    let repository = session.repository(Task::Status).await?;
    let filter = args.select.filter(&session.directory);
    let found = status(&repository, &filter, args.verified_within.is_some()).await?;
    session.clear();
    warn_of_unreadable(session, &found.unreadable);
    let missed: Vec<(&JobStatus, Miss)> = found
        .jobs
        .iter()
        .flat_map(|job| job.misses(&objectives, found.now).into_iter().map(move |miss| (job, miss)))
        .collect();
    // Where something must be there, nothing at all is not enough.
    let empty = found.jobs.is_empty() && objectives != Objectives::default();
    let unverified = args.verified_within.and_then(|within| found.unverified(within));
    let count = missed.len() + usize::from(empty) + usize::from(unverified.is_some()) + late;
    if session.voice().json {
        for job in &found.jobs {
            session.output.json(&object(job, &objectives, found.now))?;
        }
        session.output.json(&summary(&found, (count, args.verified_within)))?;
    } else {
        show(session, &found)?;
        for (job, miss) in &missed {
            session.output.text(&format!("missed: {}: {}\n", name(job), words(*miss)))?;
        }
        if empty {
            session.output.text("missed: there is no snapshot\n")?;
        }
        if let Some(age) = unverified {
            session.output.text(&format!("missed: {}\n", unverified_words(&found, age)))?;
        }
    }
    let unreadable = found.unreadable.iter().any(|(_, error)| !is_after_revocation(error));
    let known = found.coverage.is_some_and(|coverage| coverage.damaged > 0);
    let damaged = unreadable || known || found.verified.is_some_and(|end| end.damages > 0);
    Ok(match (damaged, count == 0) {
        (true, _) => Exit::Class(Class::Damage),
        (false, false) => Exit::Class(Class::Missed),
        (false, true) => Exit::Done,
    })
}

/// Says of the jobs of the configuration which did not run when they were due, before a repository that cannot be reached keeps
/// anybody from knowing. Gives how many these are.
fn scheduled(session: &mut Session) -> Result<usize, CliError> {
    let config = match Config::load(&session.settings.typed, &session.around) {
        // No mistake in the file stands between a person and a repository that is named by its location.
        Err(error) if Settings::is_located(&session.settings.typed, &session.around) => {
            session.warn(&format!("jobs are not looked at: {}", words_of(&error)));
            return Ok(0);
        }
        loaded => loaded?,
    };
    let stands = stands(&config, &session.settings.places.state, session.env.clock.now());
    for stand in &stands {
        if session.voice().json {
            session.output.json(&render::stand_object(stand))?;
        } else if let Some(missed) = render::missed(stand) {
            session.output.text(&format!("missed: {missed}\n"))?;
        } else if let Some(incomplete) = render::incomplete(stand) {
            session.output.text(&format!("incomplete: {incomplete}\n"))?;
        }
    }
    session.output.flush()?;
    Ok(stands.iter().filter(|stand| render::missed(stand).is_some()).count())
}

/// The same where no repository could be chosen, which an error tells that follows: whoever asks learns of late jobs all the same.
pub(crate) fn tell_late(args: &GlobalArgs, around: &Surroundings) {
    let Ok(config) = Config::load(args, around) else { return };
    let Ok(state) = places::state(around, args.state_dir.clone()) else { return };
    for stand in stands(&config, &state, SystemClock::new().now()) {
        let text = match (args.json, render::missed(&stand)) {
            (true, _) => render::stand_object(&stand).to_string(),
            (false, Some(missed)) => format!("missed: {missed}"),
            (false, None) => continue,
        };
        // The error that follows decides.
        let _ = line(&text);
    }
}

fn show(session: &mut Session, found: &Status) -> Result<(), CliError> {
    if found.jobs.is_empty() {
        session.say("there are no snapshots");
    } else {
        session.output.text(&table(&found.jobs, found.now))?;
    }
    match found.protected {
        Protected::Unlocked => {}
        Protected::Unknown => {
            session
                .say("until when the store keeps what snapshots need is not known: this key cannot see that");
        }
        Protected::Until(protection) => {
            session.output.text(&match protection.first {
                Some(first) if first.0 > 0 => format!(
                    "locked: the first of what snapshots need can be deleted on {}{}\n",
                    time::local(first.0),
                    if protection.exact { "" } else { " or later" }
                ),
                _ => "locked: no more, what snapshots need can be deleted any day\n".to_owned(),
            })?;
        }
    }
    if let Some(end) = found.verified {
        let ago = time::age(age_of(end.at, found.now));
        session.output.text(&match end.damages {
            0 => format!("verified: {} ({ago} ago), nothing was damaged\n", time::local(end.at.0)),
            count => format!(
                "damage: {} when the content was verified last, on {} ({ago} ago): lifeboat verify --data\n",
                Counted(count, "damage"),
                time::local(end.at.0)
            ),
        })?;
    }
    if let Some(coverage) = found.coverage {
        session.output.text(&format!("content: {}\n", share(&coverage, found.now)))?;
    }
    if found.closed > 0 {
        session.say(&format!(
            "{} snapshots are not shown: this key does not open them, and this machine did not make them",
            found.closed
        ));
    }
    Ok(())
}

fn age_of(at: Timestamp, now: Timestamp) -> Duration {
    Duration::from_nanos(u64::try_from(now.0.saturating_sub(at.0)).unwrap_or(0))
}

/// Why content counts as not verified.
fn unverified_words(found: &Status, age: Duration) -> String {
    match found.coverage.map_or(0, |coverage| coverage.damaged) {
        0 => format!("something was not opened and checked for {}", time::age(age)),
        damaged => format!("{} damaged", Counted(damaged, "object")),
    }
}

fn table(jobs: &[JobStatus], now: Timestamp) -> String {
    let headings = ["HOST", "JOB", "LAST", "AGE", "SIZE", "NEW", "SNAPSHOTS", "HELD"];
    let mut table = Table::new(&headings, &[false, false, false, true, true, true, true, true]);
    for job in jobs {
        let last = job.last.as_ref();
        let cell = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
        let open = if job.open == 0 { String::new() } else { format!(" (+{} not confirmed)", job.open) };
        table.row(vec![
            sanitize::name(&job.host),
            sanitize::name(&job.job),
            cell(last.map(|info| format!("{} {}", info.id.short(), time::local(info.counted().0)))),
            cell(job.age(now).map(time::age)),
            cell(last.map(|info| ByteSize(info.snapshot.totals.bytes).to_string())),
            cell(last.map(|info| ByteSize(info.snapshot.new_bytes).to_string())),
            format!("{}{open}", job.snapshots),
            job.held.to_string(),
        ]);
    }
    table.render()
}

fn name(job: &JobStatus) -> String {
    format!("{} {}", sanitize::name(&job.host), sanitize::name(&job.job))
}

fn words(miss: Miss) -> String {
    match miss {
        Miss::Never => "no snapshot is confirmed".to_owned(),
        Miss::Age(age) => format!("the last snapshot is {} old", time::age(age)),
        Miss::Size { bytes, usual } => {
            format!("the last snapshot has {} where {} are usual", ByteSize(bytes), ByteSize(usual))
        }
    }
}

fn object(job: &JobStatus, objectives: &Objectives, now: Timestamp) -> Value {
    let mut out = Map::new();
    let last = job.last.as_ref();
    let missed = job.misses(objectives, now).into_iter().map(|miss| match miss {
        Miss::Never => json!({ "objective": "confirmed" }),
        Miss::Age(_) => json!({ "objective": "max_age" }),
        Miss::Size { .. } => json!({ "objective": "min_size" }),
    });
    for (key, value) in [
        ("type", json!("job")),
        ("last", json!(last.map(|info| info.id.to_string()))),
        ("stored", json!(last.map(|info| time::utc(info.counted().0)))),
        ("age_seconds", json!(job.age(now).map(|age| age.as_secs()))),
        ("bytes", json!(last.map(|info| info.snapshot.totals.bytes))),
        ("usual_bytes", json!(job.usual)),
        ("new_bytes", json!(last.map(|info| info.snapshot.new_bytes))),
        ("problems", json!(last.map(|info| info.snapshot.problems))),
        ("snapshots", json!(job.snapshots)),
        ("held", json!(job.held)),
        ("not_confirmed", json!(job.open)),
        ("missed", missed.collect()),
    ] {
        out.insert(key.to_owned(), value);
    }
    put_bytes(&mut out, "host", &job.host);
    put_bytes(&mut out, "job", &job.job);
    Value::Object(out)
}

fn summary(found: &Status, (missed, within): (usize, Option<Duration>)) -> Value {
    let (locked, first, exact) = match found.protected {
        Protected::Unlocked => (json!(false), None, None),
        Protected::Unknown => (Value::Null, None, None),
        Protected::Until(protection) => (json!(true), protection.first, Some(protection.exact)),
    };
    json!({
        "type": "status",
        "time": time::utc(found.now.0),
        "jobs": found.jobs.len(),
        "missed": missed,
        "locked": locked,
        "first_end": first.map(|first| time::utc(first.0)),
        "first_end_exact": exact,
        "verified": found.verified.map(|end| time::utc(end.at.0)),
        "damages": found.verified.map(|end| end.damages),
        "damaged": found.coverage.map(|coverage| coverage.damaged),
        "bytes": found.coverage.map(|coverage| coverage.bytes),
        "bytes_verified": found.coverage.map(|coverage| coverage.verified),
        "unverified_seconds": found.coverage.map(|coverage| coverage.age(found.now).as_secs()),
        "verified_within": within.map(|within| found.unverified(within).is_none()),
        "not_shown": found.closed,
        "unreadable": found.unreadable.len(),
    })
}
