//! How the jobs of the configuration stand, by what is remembered of them.

use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;
use lifeboat::clock::Timestamp;
use lifeboat::schedule::{Due, Plan, Standing};

use super::super::config::{Config, Named};
use super::lock::Lock;
use super::record::{Kind, Known, Place, Subject};

/// How late a run may be before that is told.
const SLACK: Duration = Duration::from_secs(3600);

/// One job, or the collection or verification of a repository.
pub(crate) struct Stand {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// The name of the repository.
    pub(crate) repository: String,
    /// As it is written; `None` if it runs only when it is named.
    pub(crate) plan: Option<Plan>,
    pub(crate) known: Known,
    /// A run is at work now.
    pub(crate) at_work: bool,
    /// When it is due next: a moment that has passed if it is due now.
    pub(crate) next: Option<Timestamp>,
    pub(crate) standing: Standing,
}

/// All of them, jobs first.
pub(crate) fn stands(config: &Config, state: &Path, now: Timestamp) -> Vec<Stand> {
    let jobs = config.jobs.iter().filter_map(|job| {
        let plan = super::plan(&job.section, &super::host_of(job), &job.name);
        // Without a repository the configuration is refused.
        let repository = config.repository_of(job).ok()?;
        Some(stand((Subject::new(Kind::Backup, job, repository), repository, plan), state, now))
    });
    let host = super::super::command::backup::host();
    let kinds = config.repositories.iter().flat_map(|one| Kind::OF_REPOSITORY.map(|kind| (one, kind)));
    let others = kinds.filter_map(|(repository, kind)| {
        let plan = super::plan(repository.section.section(kind.name())?, &host, &repository.name);
        Some(stand((Subject::new(kind, repository, repository), repository, plan), state, now))
    });
    jobs.chain(others).collect()
}

/// When it is due next: `now` if it is due now, `None` at the end of time.
pub(super) fn next(plan: &Plan, known: &Known, now: Timestamp) -> Option<Timestamp> {
    match plan.due(known.last().as_ref(), now, &TimeZone::system()) {
        Due::Now(_) => Some(now),
        Due::Later(at) => at,
    }
}

fn stand(
    (subject, repository, plan): (Subject, &Named, Option<Plan>),
    state: &Path,
    now: Timestamp,
) -> Stand {
    let (kind, name) = (subject.kind, subject.name.clone());
    let place = Place::new(state, subject);
    // In this order: a run that ends meanwhile is one at work.
    let at_work = Lock::is_held(&place);
    let known = place.read();
    let zone = TimeZone::system();
    let last = known.last();
    let (next, standing) = match &plan {
        Some(plan) => (next(plan, &known, now), plan.standing((last.as_ref(), at_work), now, &zone, SLACK)),
        None => {
            // Nothing says when it should have run, but what was begun should have ended well.
            let bad =
                known.record().is_some_and(|record| record.failed.is_some() || !(at_work || record.good()));
            (None, if bad { Standing::Failed } else { Standing::Good })
        }
    };
    let repository = repository.name.clone();
    Stand { kind, name, repository, plan, known, at_work, next, standing }
}
