//! The file: repositories, and jobs that save to them. It is found, read with care, and checked whole before anything of it counts.
//!
//! The file is `lifeboat.toml` in the configuration directory (`/etc/lifeboat` for root, else the user's), together with all
//! `conf.d/*.toml` beside it; or the one that `--config` or `LIFEBOAT_CONFIG` names, alone.
//!
//! # Invariants
//! * What others may write is not read, nor is what names commands and belongs to somebody else.
//! * No secret stands in it, so it may be kept under version control, and a key that nobody knows is an error.
//! * What a job says is what the options of the command line say; `keys` has the one table of both.
//!
//! # Must not
//! Run anything it names.

mod fault;
mod files;
mod keys;
mod options;
mod read;
mod schema;
mod show;
mod value;

use std::collections::BTreeMap;
use std::path::PathBuf;

use lifeboat::store::StoreUrl;

use super::args::GlobalArgs;
use super::environment::Surroundings;
use super::error::CliError;
pub(crate) use fault::{Fault, FaultKind, Unsafe, nearest};
pub(crate) use keys::{JOB, PRUNE, RETENTION, VERIFY};
pub(crate) use options::{option_of, variables_of};
use read::{Reader, Said};
pub(crate) use schema::schema;
pub(crate) use show::{Setting, settings};
pub(crate) use value::{Named, Section};

/// What the files say, in the order of files and lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// The files that were read.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) repositories: Vec<Named>,
    pub(crate) jobs: Vec<Named>,
}

impl Config {
    /// Reads what there is; nothing at all is no error, unless it was named.
    ///
    /// # Errors
    /// [`CliError::Config`] with everything that is wrong.
    pub(crate) fn load(args: &GlobalArgs, around: &Surroundings) -> Result<Self, CliError> {
        let mut config = Self::default();
        let mut faults = Vec::new();
        for path in files::find(args, around)? {
            let file = files::open(&path)?;
            let (said, wrong) = Reader::read(path.clone(), &file.text);
            let commands = said.iter().flatten().any(|named| named.section.names_commands());
            file.refuse_foreign(&path, commands)?;
            faults.extend(wrong);
            config.take(said, &mut faults);
            config.files.push(path);
        }
        config.repositories.sort_by(|one, other| one.origin.cmp(&other.origin));
        config.jobs.sort_by(|one, other| one.origin.cmp(&other.origin));
        config.check(&mut faults);
        if faults.is_empty() { Ok(config) } else { Err(CliError::Config { faults }) }
    }

    fn take(&mut self, said: Said, faults: &mut Vec<Fault>) {
        let [repositories, jobs] = said;
        for (kind, new, all) in
            [("repositories", repositories, &mut self.repositories), ("jobs", jobs, &mut self.jobs)]
        {
            let before: BTreeMap<String, _> =
                all.iter().map(|named| (named.name.clone(), named.origin.clone())).collect();
            for named in new {
                match before.get(&named.name).cloned() {
                    Some(first) => {
                        let section = format!("{kind}.{}", named.name);
                        faults
                            .push(Fault { origin: named.origin, kind: FaultKind::Twice { section, first } });
                    }
                    None => all.push(named),
                }
            }
        }
    }

    /// What is wrong with tables as a whole, and between them.
    fn check(&self, faults: &mut Vec<Fault>) {
        for repository in &self.repositories {
            check_repository(repository, faults);
        }
        for job in &self.jobs {
            if let Err(kind) = self.repository_of(job) {
                let at = job.section.0.get("repository").map_or(&job.origin, |item| &item.origin);
                faults.push(Fault { origin: at.clone(), kind });
            }
            if let (Some(retention), Some(item)) =
                (job.section.section("retention"), job.section.0.get("retention"))
                && retention.options(&RETENTION).is_empty()
            {
                let what = "says nothing to keep: leave it out, or say what stays";
                let section = format!("jobs.{}.retention", job.name);
                faults
                    .push(Fault { origin: item.origin.clone(), kind: FaultKind::Together { section, what } });
            }
            let files = !job.section.list("sources").is_empty() || !job.section.list("images").is_empty();
            let what = match (files, job.section.list("command").is_empty()) {
                (false, true) => "says nothing to save: `sources`, `images` or `command`",
                (true, false) => "has both a `command` and files to save: make two jobs of them",
                _ => continue,
            };
            let section = format!("jobs.{}", job.name);
            faults.push(Fault { origin: job.origin.clone(), kind: FaultKind::Together { section, what } });
        }
    }

    /// The repository of this name.
    pub(crate) fn repository(&self, name: &str) -> Option<&Named> {
        self.repositories.iter().find(|named| named.name == name)
    }

    /// The repository that a job is saved to.
    pub(crate) fn repository_of(&self, job: &Named) -> Result<&Named, FaultKind> {
        match (job.section.text("repository"), self.repositories.as_slice()) {
            (Some(name), all) => self.repository(name).ok_or_else(|| FaultKind::NoRepository {
                name: name.to_owned(),
                nearest: nearest(name, all.iter().map(|named| named.name.as_str())),
            }),
            (None, [only]) => Ok(only),
            (None, all) => {
                Err(FaultKind::WhichRepository { section: format!("jobs.{}", job.name), count: all.len() })
            }
        }
    }

    /// The job of this name.
    ///
    /// # Errors
    /// [`CliError::NoJob`] if there is none.
    pub(crate) fn job(&self, name: &str) -> Result<&Named, CliError> {
        self.jobs.iter().find(|named| named.name == name).ok_or_else(|| CliError::NoJob {
            name: name.to_owned(),
            nearest: nearest(name, self.jobs.iter().map(|named| named.name.as_str())),
        })
    }
}

fn check_repository(repository: &Named, faults: &mut Vec<Fault>) {
    let section = format!("repositories.{}", repository.name);
    let value = |key: &str, reason: String| FaultKind::Value {
        section: section.clone(),
        key: key.to_owned(),
        reason,
    };
    if let Some(item) = repository.section.0.get("location") {
        let text = repository.section.text("location").unwrap_or_default();
        let reason = match text.parse::<StoreUrl>() {
            Ok(_) if text.starts_with('/') || text.contains("://") => None,
            Ok(_) => Some("expected an absolute path, or a location such as s3://bucket/prefix".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        faults.extend(
            reason.map(|reason| Fault { origin: item.origin.clone(), kind: value("location", reason) }),
        );
    }
    for key in ["key-credential", "password-credential"] {
        if let (Some(item), Some(name)) = (repository.section.0.get(key), repository.section.text(key))
            && (name.contains('/') || name.starts_with('.'))
        {
            let reason = "expected the name of a credential, not a path".to_owned();
            faults.push(Fault { origin: item.origin.clone(), kind: value(key, reason) });
        }
    }
    if SECRET_KEYS.iter().filter(|key| repository.section.0.contains_key(*key)).count() > 1 {
        let what = "has more than one key or password: keep one of them";
        let kind = FaultKind::Together { section: section.clone(), what };
        faults.push(Fault { origin: repository.origin.clone(), kind });
    }
    if let Some(item) = repository.section.0.get("options") {
        let bad =
            |(key, value): &&(String, String)| !options::is_known(key) || options::names_somebody(value);
        for (key, _) in repository.section.pairs("options").iter().filter(bad) {
            let kind = FaultKind::SecretOption { section: section.clone(), key: key.clone() };
            faults.push(Fault { origin: item.origin.clone(), kind });
        }
    }
}

/// Keys of a repository that say how it is opened.
pub(crate) const SECRET_KEYS: [&str; 6] =
    ["key-file", "key-credential", "password-file", "password-command", "password-credential", "words-file"];

#[cfg(test)]
mod tests;
