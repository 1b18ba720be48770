//! How the jobs of the configuration stand, by what is remembered of them.

use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;
use lifeboat::clock::Timestamp;
use lifeboat::schedule::{Due, Plan, Standing};

use super::super::config::{Config, Named};
use super::lock::Lock;
use super::record::{Kind, Known, Place};

/// How late a run may be before that is told.
const SLACK: Duration = Duration::from_secs(3600);

/// One job, or the collection of a repository.
pub(crate) struct Stand {
    pub(crate) kind: Kind,
    pub(crate) name: String,
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
    let jobs = config.jobs.iter().map(|job| {
        let plan = super::plan(&job.section, &super::host_of(job), &job.name);
        stand((Kind::Backup, job, plan), state, now)
    });
    let host = super::super::command::backup::host();
    let prunes = config.repositories.iter().filter_map(|repository| {
        let prune = repository.section.section("prune")?;
        let plan = super::plan(prune, &host, &repository.name);
        Some(stand((Kind::Prune, repository, plan), state, now))
    });
    jobs.chain(prunes).collect()
}

fn stand((kind, what, plan): (Kind, &Named, Option<Plan>), state: &Path, now: Timestamp) -> Stand {
    let place = Place::new(state, kind, &what.name);
    let known = place.read();
    let at_work = Lock::is_held(&place);
    let zone = TimeZone::system();
    let last = known.last();
    let (next, standing) = match &plan {
        Some(plan) => {
            let next = match plan.due(last.as_ref(), now, &zone) {
                Due::Now(_) => Some(now),
                Due::Later(at) => at,
            };
            let standing =
                if at_work { Standing::Good } else { plan.standing(last.as_ref(), now, &zone, SLACK) };
            (next, standing)
        }
        None => {
            let failed = known.record().is_some_and(|record| record.ended.is_some() && !record.good());
            (None, if failed { Standing::Failed } else { Standing::Good })
        }
    };
    Stand { kind, name: what.name.clone(), plan, known, at_work, next, standing }
}
