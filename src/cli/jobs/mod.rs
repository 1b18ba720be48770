//! Jobs of the configuration: what each of them does, when it is due, and what is remembered of it.
//!
//! `record` remembers, `lock` lets one run in at a time, `hook` runs commands around it, `work` does it, `held` holds a log back,
//! `standing` says how jobs stand, and `unit` is what starts them.
//!
//! # Invariants
//! * A job goes the way of `backup`, `forget`, `prune` and `verify`: its keys become the options of these verbs, and nothing else decides.
//! * A run is noted before it begins and after it ended, each time durably; what is not noted whole did not run.

mod held;
mod hook;
mod lock;
mod record;
mod standing;
mod unit;
mod work;

use std::ffi::OsString;
use std::time::Duration;

use clap::Parser;
use lifeboat::ops::gc::PruneOptions;
use lifeboat::schedule::{Plan, spread};

use super::args::{BackupArgs, Cli, ForgetArgs, Verb, VerifyArgs, duration};
use super::config::{JOB, Named, PRUNE, RETENTION, Section, VERIFY};
use super::error::CliError;
pub(crate) use held::Held;
pub(crate) use record::{Failure, Kind, Known, Place, Subject};
pub(crate) use standing::{Stand, stands};
pub(crate) use unit::{Install, MARK, SERVICE, TIMER, started_by};
pub(crate) use work::{Outcome, Report, Work, host_of, worst};

/// The `backup` that a job stands for.
///
/// # Errors
/// [`CliError::BadJob`] if its keys do not go together.
pub(crate) fn backup_args(job: &Named) -> Result<BackupArgs, CliError> {
    let mut call: Vec<OsString> = vec!["backup".into(), format!("--job={}", job.name).into()];
    call.extend(job.section.options(&JOB));
    let command = job.section.list("command");
    if command.is_empty() {
        call.push("--".into());
        call.extend(job.section.list("sources").into_iter().map(Into::into));
    } else {
        call.push("--command".into());
        call.extend(command.into_iter().map(Into::into));
    }
    match parse(&job.name, call)? {
        Verb::Backup(args) => Ok(args),
        _ => Err(CliError::BadJob { name: job.name.clone(), why: "it is no backup".to_owned() }),
    }
}

/// The `forget` that a job's retention stands for; `None` without one.
pub(crate) fn forget_args(job: &Named, host: &[u8]) -> Result<Option<ForgetArgs>, CliError> {
    let Some(retention) = job.section.section("retention") else { return Ok(None) };
    let mut call: Vec<OsString> = vec!["forget".into(), format!("--job={}", job.name).into()];
    let Ok(host) = std::str::from_utf8(host) else {
        let why = "the name of this machine is not UTF-8, so its snapshots cannot be chosen: set `host`";
        return Err(CliError::BadJob { name: job.name.clone(), why: why.to_owned() });
    };
    call.push(format!("--host={host}").into());
    call.extend(retention.options(&RETENTION));
    match parse(&job.name, call)? {
        Verb::Forget(args) => Ok(Some(args)),
        _ => Err(CliError::BadJob { name: job.name.clone(), why: "it forgets nothing".to_owned() }),
    }
}

/// The `prune` that a repository asks for.
pub(crate) fn prune_options(repository: &Named, prune: &Section) -> Result<PruneOptions, CliError> {
    let mut call: Vec<OsString> = vec!["prune".into()];
    call.extend(prune.options(&PRUNE));
    match parse(&repository.name, call)? {
        Verb::Prune(args) => Ok(args.options()),
        _ => Err(CliError::BadJob { name: repository.name.clone(), why: "it prunes nothing".to_owned() }),
    }
}

/// The `verify` that a repository asks for.
pub(crate) fn verify_args(repository: &Named, verify: &Section) -> Result<VerifyArgs, CliError> {
    let mut call: Vec<OsString> = vec!["verify".into()];
    call.extend(verify.options(&VERIFY));
    match parse(&repository.name, call)? {
        Verb::Verify(args) => Ok(args),
        _ => Err(CliError::BadJob { name: repository.name.clone(), why: "it verifies nothing".to_owned() }),
    }
}

fn parse(name: &str, call: Vec<OsString>) -> Result<Verb, CliError> {
    let bad = |error: clap::Error| CliError::BadJob { name: name.to_owned(), why: error.kind().to_string() };
    Cli::try_parse_from([OsString::from("lifeboat")].into_iter().chain(call)).map(|cli| cli.verb).map_err(bad)
}

/// When it is due; `None` for what has no schedule. What is wrong in it was refused when the file was read.
pub(crate) fn plan(section: &Section, host: &[u8], name: &str) -> Option<Plan> {
    let time = |key: &str| section.text(key).and_then(|text| duration(text).ok());
    Some(Plan {
        schedule: section.text("schedule")?.parse().ok()?,
        shift: spread(time("jitter").unwrap_or(Duration::ZERO), host, name.as_bytes()),
        retry: time("retry-after"),
    })
}
