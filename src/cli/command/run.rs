//! `run`: the jobs of the configuration that are due, one after the other, and what is due of their repositories then.

use std::collections::BTreeSet;

use lifeboat::class::Class;

use super::super::args::RunArgs;
use super::super::config::{Config, Named};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::jobs::{self, Kind, Report, Work, worst};
use super::super::render::jobs as render;
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: &RunArgs) -> Result<Exit, CliError> {
    session.refuse_anchor()?;
    let config = Config::load(&session.settings.typed, &session.around)?;
    let chosen: Vec<&Named> = match args.jobs.as_slice() {
        [] => config.jobs.iter().collect(),
        names => names.iter().map(|name| config.job(name)).collect::<Result<_, _>>()?,
    };
    let mut exits = Vec::new();
    let mut failed = BTreeSet::new();
    for work in works(&config, &chosen, args) {
        if session.env.cancel.is_raised() {
            break;
        }
        if work.kind == Kind::Prune && failed.contains(&work.what.name) {
            session.say(&format!("prune of {} waits until its jobs do not fail", work.what.name));
            continue;
        }
        let report = work.run(session).await;
        exits.push(report.exit());
        if !matches!(report.exit(), Exit::Done | Exit::Class(Class::Partial)) {
            failed.insert(report.repository.clone());
        }
        show(session, &report)?;
    }
    Ok(worst(exits.into_iter().chain(session.stopped())))
}

/// The jobs, and then the repositories of them that are pruned by a schedule.
fn works<'a>(config: &'a Config, chosen: &[&'a Named], args: &RunArgs) -> Vec<Work<'a>> {
    let (named, force, dry_run) = (!args.jobs.is_empty(), args.force, args.dry_run);
    let mut works = Vec::new();
    let mut repositories: Vec<&Named> = Vec::new();
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
        let Some(prune) = repository.section.section("prune") else { continue };
        let plan = jobs::plan(prune, &host, &repository.name);
        // Nobody named it: if another run is at work on it, all is well.
        let named = false;
        works.push(Work { kind: Kind::Prune, what: repository, repository, plan, named, force, dry_run });
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
