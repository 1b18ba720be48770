//! `config`: what the file of repositories and jobs says, and what is wrong with it. It needs no repository and no secret.

use lifeboat::units::Counted;
use serde_json::json;

use super::super::args::{ConfigArgs, ConfigVerb, GlobalArgs};
use super::super::config::{Config, Fault, Setting, schema, settings};
use super::super::environment::Surroundings;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::jobs;
use super::super::observe::words;
use super::super::output::{line, note};
use super::super::render::sanitize;
use super::super::report::{self, Context};
use super::backup;

/// Checks or shows, and says how to exit.
pub(crate) fn run(args: &ConfigArgs, global: &GlobalArgs, around: &Surroundings) -> Exit {
    let done = match &args.verb {
        ConfigVerb::Check => check(global, around),
        ConfigVerb::Show { effective, origins } => show(global, around, (*effective, *origins)),
        ConfigVerb::Schema => line(&format!("{:#}", schema())).map(|()| Exit::Done),
    };
    done.unwrap_or_else(|error| report::report(&error, &Context { json: global.json, ..Context::default() }))
}

fn check(global: &GlobalArgs, around: &Surroundings) -> Result<Exit, CliError> {
    let config = match Config::load(global, around) {
        Ok(config) => config,
        Err(CliError::Config { faults }) => {
            for fault in &faults {
                let text =
                    if global.json { object(fault).to_string() } else { sanitize::line(&fault.to_string()) };
                note(&text);
            }
            return Ok(Exit::Class(lifeboat::class::Class::Usage));
        }
        Err(error) => return Err(error),
    };
    // What a job would fail with before it does anything, such as a wrong pattern or a missing file of them.
    for job in &config.jobs {
        let bad = |error: CliError| CliError::BadJob { name: job.name.clone(), why: words::chain(&error) };
        backup::options(jobs::backup_args(job)?, around).map_err(bad)?;
        jobs::forget_args(job, &jobs::host_of(job))?;
    }
    for repository in &config.repositories {
        if let Some(prune) = repository.section.section("prune") {
            jobs::prune_options(repository, prune)?;
        }
        if let Some(verify) = repository.section.section("verify") {
            jobs::verify_args(repository, verify)?;
        }
    }
    let (repositories, jobs) = (config.repositories.len(), config.jobs.len());
    if global.json {
        let files: Vec<_> = config.files.iter().map(|path| path.to_string_lossy()).collect();
        line(
            &json!({"type": "config", "files": files, "repositories": repositories, "jobs": jobs})
                .to_string(),
        )?;
    } else if config.files.is_empty() {
        line("there is no configuration")?;
    } else if !global.quiet {
        let files = Counted(config.files.len() as u64, "file");
        let (repositories, jobs) = (Counted(repositories as u64, "repository"), Counted(jobs as u64, "job"));
        line(&format!("good: {files}, {repositories}, {jobs}"))?;
    }
    Ok(Exit::Done)
}

fn object(fault: &Fault) -> serde_json::Value {
    json!({
        "type": "fault",
        "file": fault.origin.file.to_string_lossy(),
        "line": fault.origin.line,
        "message": fault.kind.to_string(),
        "nearest": fault.kind.nearest(),
    })
}

fn show(
    global: &GlobalArgs,
    around: &Surroundings,
    (effective, origins): (bool, bool),
) -> Result<Exit, CliError> {
    let config = Config::load(global, around)?;
    let mut section = String::new();
    for setting in settings(&config, effective, around) {
        if global.json {
            line(&setting_json(&setting).to_string())?;
            continue;
        }
        if setting.section != section {
            line(&format!("{}[{}]", if section.is_empty() { "" } else { "\n" }, setting.section))?;
            section.clone_from(&setting.section);
        }
        let origin = if origins { format!("  # {}", sanitize::line(&setting.origin)) } else { String::new() };
        line(&match &setting.value {
            Some(value) => format!("{} = {}{origin}", setting.key, toml(value)),
            None => format!("# {}: {}{origin}", setting.key, setting.default),
        })?;
    }
    Ok(Exit::Done)
}

/// A value as it may stand in the file; strings of JSON are strings of TOML.
fn toml(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Object(pairs) => {
            let pair = |(key, value): (&String, &serde_json::Value)| format!("{} = {value}", json!(key));
            format!("{{ {} }}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

fn setting_json(setting: &Setting) -> serde_json::Value {
    json!({
        "type": "setting",
        "section": setting.section,
        "key": setting.key,
        "value": setting.value,
        "default": (!setting.default.is_empty()).then_some(setting.default),
        "origin": setting.origin,
    })
}
