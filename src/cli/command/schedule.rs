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
use super::super::jobs::{Install, MARK, SERVICE, TIMER, stands};
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
    let config = Config::load(global, around)?;
    if !config.jobs.iter().any(|job| job.section.text("schedule").is_some()) {
        return Err(CliError::NoJobs);
    }
    let mut writes = vec![places::state(around, global.state_dir.clone())?];
    writes.extend(places::cache(around, global.cache_dir.clone()).ok());
    let user = args.units.user;
    let made = Install { config: &config, command: command(global, around)?, user, writes };
    if args.cron {
        return line(made.cron().trim_end());
    }
    let directory = directory(&args.units, around)?;
    for (name, text) in [(SERVICE, made.service()), (TIMER, made.timer())] {
        let path = directory.join(name);
        if args.units.dry_run {
            line(&format!("{}\n{text}", path.display()))?;
        } else {
            refuse_foreign(&path)?;
            write(&path, &text)?;
            line(&format!("wrote {}", path.display()))?;
        }
    }
    if args.units.dry_run || args.units.into.is_some() {
        return Ok(());
    }
    for directory in &made.writes {
        // A service may write only to what is there when it starts.
        create_private_dir(directory)?;
    }
    systemctl(user, &["daemon-reload"])?;
    systemctl(user, &["enable", "--now", TIMER])?;
    if user {
        note("jobs run while you are logged in; for other times, too: loginctl enable-linger");
    }
    Ok(())
}

/// The call that the timer makes, with what was typed now.
fn command(global: &GlobalArgs, around: &Surroundings) -> Result<Vec<String>, CliError> {
    let program = std::env::current_exe().map_err(CliError::Setup)?;
    let mut words = vec![program.display().to_string(), "run".to_owned()];
    let paths = [
        ("--config", global.config.as_ref()),
        ("--state-dir", global.state_dir.as_ref()),
        ("--cache-dir", global.cache_dir.as_ref()),
    ];
    for (option, path) in paths {
        if let Some(path) = path {
            words.extend([option.to_owned(), paths::absolute(path, &around.directory).display().to_string()]);
        }
    }
    Ok(words)
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
    if told {
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
