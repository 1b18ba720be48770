//! `schedule`: what starts the jobs, and when each of them runs. It opens no repository.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lifeboat::clock::{Clock, SystemClock};

use super::super::args::{GlobalArgs, InstallArgs, ScheduleArgs, ScheduleVerb, UnitArgs};
use super::super::config::Config;
use super::super::environment::Surroundings;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::jobs::{Install, Kind, MARK, SERVICE, TIMER, stands, started_by};
use super::super::output::{line, note};
use super::super::render::jobs as render;
use super::super::report::{self, Context};
use super::super::secret::create_private_dir;
use super::super::{paths, places};

/// Does it, and says how to exit.
pub(crate) fn run(args: &ScheduleArgs, global: &GlobalArgs, around: &Surroundings) -> Exit {
    let done = match &args.verb {
        ScheduleVerb::Install(args) => install(args, global, around),
        ScheduleVerb::Show => show(global, around),
        ScheduleVerb::Remove(args) => remove(args, around),
    };
    let context = Context { json: global.json, ..Context::default() };
    done.map(|()| Exit::Done).unwrap_or_else(|error| report::report(&error, &context))
}

fn install(args: &InstallArgs, global: &GlobalArgs, around: &Surroundings) -> Result<(), CliError> {
    refuse_lost(global)?;
    let config = Config::load(global, around)?;
    let kinds = config.repositories.iter().flat_map(|one| Kind::OF_REPOSITORY.map(|kind| (one, kind)));
    let others = kinds.filter_map(|(repository, kind)| repository.section.section(kind.name()));
    let mut all = config.jobs.iter().map(|job| &job.section).chain(others);
    if !all.any(|section| section.text("schedule").is_some()) {
        return Err(CliError::NoJobs);
    }
    let made = made(&config, args.units.user, (global, around))?;
    if args.cron {
        return line(made.cron().trim_end());
    }
    let directory = directory(&args.units, around)?;
    let units =
        [(SERVICE, made.service()), (TIMER, made.timer())].map(|(name, text)| (directory.join(name), text));
    if args.units.dry_run {
        return units.iter().try_for_each(|(path, text)| line(&format!("{}\n{text}", path.display())));
    }
    for (path, text) in &units {
        refuse_foreign(path)?;
        refuse_other(path, text)?;
    }
    for (path, text) in &units {
        write(path, text)?;
        line(&format!("wrote {}", path.display()))?;
    }
    if args.units.into.is_some() {
        return Ok(());
    }
    for directory in &made.writes {
        // A service may write only to what is there when it starts.
        create_private_dir(directory)?;
    }
    systemctl(args.units.user, &["daemon-reload"])?;
    systemctl(args.units.user, &["enable", "--now", TIMER])?;
    if args.units.user {
        note("jobs run while you are logged in; for other times, too: loginctl enable-linger");
    }
    Ok(())
}

/// Options that are meant of a call and would be gone in the one that is installed.
fn refuse_lost(global: &GlobalArgs) -> Result<(), CliError> {
    let given = [
        ("--repo", global.repo.is_some()),
        ("--key-file", global.key_file.is_some()),
        ("--password-file", global.password_file.is_some()),
        ("--password-command", global.password_command.is_some()),
        ("--words-file", global.words_file.is_some()),
        ("--require-anchor", global.require_anchor.is_some()),
        ("--limit-upload", global.limit_upload.is_some()),
        ("--limit-download", global.limit_download.is_some()),
        ("--retry-for", global.retry_for.is_some()),
        ("--as-of", global.as_of.is_some()),
        ("--workers", global.workers.is_some()),
        ("--option", !global.option.is_empty()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(CliError::NotCarried { option }),
        None => Ok(()),
    }
}

/// What is installed: the call that the timer makes, with every place as it is found now, so that it does not depend on the
/// environment in which it is started.
fn made<'a>(
    config: &'a Config,
    user: bool,
    (global, around): (&GlobalArgs, &Surroundings),
) -> Result<Install<'a>, CliError> {
    let program = std::env::current_exe().map_err(CliError::Setup)?;
    let mut command = vec![program.display().to_string(), "run".to_owned()];
    let mut give = |option: &str, path: &Path| {
        command.extend([option.to_owned(), path.display().to_string()]);
    };
    let named = global.config.clone().or_else(|| around.get("LIFEBOAT_CONFIG").map(PathBuf::from));
    if let Some(path) = &named {
        give("--config", &paths::absolute(path, &around.directory));
    }
    let state = places::state(around, global.state_dir.clone())?;
    give("--state-dir", &state);
    let mut writes = vec![state];
    if global.no_cache {
        command.push("--no-cache".to_owned());
    } else {
        let cache = places::cache(around, global.cache_dir.clone())?;
        give("--cache-dir", &cache);
        writes.push(cache);
    }
    let found = places::configuration(around).filter(|_| named.is_none());
    let usual = if user {
        around.absolute("HOME").map(|home| home.join(".config/lifeboat"))
    } else {
        Some("/etc/lifeboat".into())
    };
    let base = found.filter(|found| Some(found) != usual.as_ref());
    let base = base.and_then(|found| found.parent().map(Path::to_path_buf));
    Ok(Install { config, command, base, user, writes })
}

/// What is there and starts the jobs of another configuration, or with other places, is not replaced unseen.
fn refuse_other(path: &Path, text: &str) -> Result<(), CliError> {
    let Ok(there) = fs::read_to_string(path) else { return Ok(()) };
    let (there, new) = (started_by(&there), started_by(text));
    if there == new {
        return Ok(());
    }
    Err(CliError::OtherUnit { path: path.to_path_buf(), there: there.join(", ") })
}

fn directory(args: &UnitArgs, around: &Surroundings) -> Result<PathBuf, CliError> {
    match (&args.into, args.user) {
        (Some(directory), _) => Ok(paths::absolute(directory, &around.directory)),
        (None, false) => Ok(PathBuf::from("/etc/systemd/system")),
        (None, true) => {
            let found = places::user_units(around);
            found.ok_or(CliError::NoHome { what: "directory of units", option: "--into" })
        }
    }
}

/// Nobody else's file is replaced or removed.
fn refuse_foreign(path: &Path) -> Result<(), CliError> {
    match fs::read_to_string(path) {
        Ok(text) if !text.starts_with(MARK) => Err(CliError::ForeignUnit { path: path.to_path_buf() }),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(CliError::Read { path: path.to_path_buf(), source }),
    }
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let failed = |source| CliError::Write { path: path.to_path_buf(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)
}

fn systemctl(user: bool, args: &[&str]) -> Result<(), CliError> {
    let mut command = Command::new("systemctl");
    if user {
        command.arg("--user");
    }
    let call = format!("systemctl {}{}", if user { "--user " } else { "" }, args.join(" "));
    let status = command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(CliError::Systemctl { call, why: status.to_string() }),
        Err(error) => Err(CliError::Systemctl { call, why: error.to_string() }),
    }
}

fn remove(args: &UnitArgs, around: &Surroundings) -> Result<(), CliError> {
    let directory = directory(args, around)?;
    let there: Vec<PathBuf> =
        [TIMER, SERVICE].iter().map(|name| directory.join(name)).filter(|path| path.exists()).collect();
    for path in &there {
        refuse_foreign(path)?;
    }
    if there.is_empty() {
        return line(&format!("there is nothing in {}", directory.display()));
    }
    let told = args.into.is_none() && !args.dry_run;
    // systemd knows nothing of a timer that is not there, and would fail.
    if told && there.iter().any(|path| path.ends_with(TIMER)) {
        systemctl(args.user, &["disable", "--now", TIMER])?;
    }
    for path in &there {
        if args.dry_run {
            line(&format!("would remove {}", path.display()))?;
            continue;
        }
        fs::remove_file(path).map_err(|source| CliError::Write { path: path.clone(), source })?;
        line(&format!("removed {}", path.display()))?;
    }
    if told { systemctl(args.user, &["daemon-reload"]) } else { Ok(()) }
}

fn show(global: &GlobalArgs, around: &Surroundings) -> Result<(), CliError> {
    let config = Config::load(global, around)?;
    let state = places::state(around, global.state_dir.clone())?;
    let now = SystemClock::new().now();
    let all = stands(&config, &state, now);
    if global.json {
        return all.iter().try_for_each(|stand| line(&render::stand_object(stand).to_string()));
    }
    if all.is_empty() {
        return line("the configuration has no job");
    }
    line(render::stand_table(&all, now).trim_end())
}
