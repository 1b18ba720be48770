//! `run`: the jobs of the configuration that are due, one after the other, and what is due of their repositories then.

use std::path::Path;

use super::super::args::RunArgs;
use super::super::config::{Config, Named};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::jobs::{self, Kind, Place, Report, Subject, Work, worst};
use super::super::render::jobs as render;
use super::super::session::Session;
use super::super::settings::Settings;
use super::metrics;

pub(super) async fn run(session: &mut Session, args: &RunArgs) -> Result<Exit, CliError> {
    session.refuse_anchor()?;
    let config = Config::load(&session.settings.typed, &session.around)?;
    let chosen: Vec<&Named> = match args.jobs.as_slice() {
        [] => config.jobs.iter().collect(),
        names => names.iter().map(|name| config.job(name)).collect::<Result<_, _>>()?,
    };
    let mut works = works(&config, &chosen, args);
    // The order stays as it is but for this.
    works.sort_by_key(|work| work.was_interrupted(&session.settings.places.state));
    let mut exits = Vec::new();
    let mut unheard = None;
    let mut ran: Vec<&Named> = Vec::new();
    for work in works {
        if session.env.cancel.is_raised() {
            break;
        }
        let failing =
            (work.kind == Kind::Prune).then(|| failing(&config, work.repository, session)).flatten();
        let report = match failing {
            Some(job) => {
                work.skip(session, format!("job {job} did not end well, and what it needs may be forgotten"))
            }
            None => work.run(session).await,
        };
        exits.push(report.exit());
        if report.began.is_some() && !ran.iter().any(|other| other.name == work.repository.name) {
            ran.push(work.repository);
        }
        // Nobody may hear of it, but every job runs.
        if let Err(error) = show(session, &report) {
            unheard.get_or_insert(error);
        }
    }
    let unheard = unheard.map(|error| session.fail(&error));
    exits.extend(measure(&config, &ran, session).await);
    Ok(worst(exits.into_iter().chain(session.stopped()).chain(unheard)))
}

/// Writes the metrics of the repositories that something was run for, where that is asked for; gives what went wrong.
async fn measure(config: &Config, ran: &[&Named], session: &Session) -> Vec<Exit> {
    let mut exits = Vec::new();
    for repository in ran {
        let Some(file) = repository.section.text("metrics").filter(|_| !session.env.cancel.is_raised())
        else {
            continue;
        };
        let written = async {
            let child = session.within(Settings::of(repository, &session.settings.typed, &session.around)?);
            let text = metrics::collect(&child, config).await?;
            metrics::write(Path::new(file), &text)
        };
        exits.extend(written.await.err().map(|error| session.fail(&error)));
    }
    exits
}

/// The first job of this repository whose last run was not good, by what is remembered: nothing is removed for good before
/// somebody has looked. One that never ran has lost nothing.
fn failing<'a>(config: &'a Config, repository: &Named, session: &Session) -> Option<&'a str> {
    let state = &session.settings.places.state;
    let job = config.jobs.iter().find(|job| {
        let its = config.repository_of(job).ok().filter(|its| its.name == repository.name);
        its.is_some_and(|its| {
            let known = Place::new(state, Subject::new(Kind::Backup, job, its)).read();
            known.record().is_some_and(|record| !record.good())
        })
    });
    job.map(|job| job.name.as_str())
}

/// The jobs, and then the repositories that are pruned or verified by a schedule: all of them, or those of the jobs that were
/// named.
fn works<'a>(config: &'a Config, chosen: &[&'a Named], args: &RunArgs) -> Vec<Work<'a>> {
    let (named, force, dry_run) = (!args.jobs.is_empty(), args.force, args.dry_run);
    let mut works = Vec::new();
    let mut repositories: Vec<&Named> = if named { Vec::new() } else { config.repositories.iter().collect() };
    for job in chosen {
        let Ok(repository) = config.repository_of(job) else { continue };
        let plan = jobs::plan(&job.section, &jobs::host_of(job), &job.name);
        works.push(Work { kind: Kind::Backup, what: job, repository, plan, named, force, dry_run });
        if !repositories.iter().any(|other| other.name == repository.name) {
            repositories.push(repository);
        }
    }
    let host = super::backup::host();
    for repository in repositories {
        for kind in Kind::OF_REPOSITORY {
            let Some(table) = repository.section.section(kind.name()) else { continue };
            let plan = jobs::plan(table, &host, &repository.name);
            // Nobody named it: if another run is at work on it, all is well.
            let named = false;
            works.push(Work { kind, what: repository, repository, plan, named, force, dry_run });
        }
    }
    works
}

fn show(session: &mut Session, report: &Report) -> Result<(), CliError> {
    let quiet = session.voice().quiet && report.exit() == Exit::Done;
    if session.voice().json {
        session.output.json(&render::object(report))?;
    } else if !quiet {
        session.output.text(&render::line(report))?;
    }
    // Hooks and errors of the next one go elsewhere, and whoever reads both sees them in order.
    session.output.flush()
}
