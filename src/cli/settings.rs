//! What was typed and what the environment says, made into decisions. Nothing is opened here.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use lifeboat::id::ObjectHash;
use lifeboat::repo::{Limits, Places};
use lifeboat::store::{StoreError, StoreOptions, StoreUrl};

use super::args::{FromArgs, GlobalArgs, ToArgs, duration};
use super::config::{Config, Named, option_of, variables_of};
use super::environment::Surroundings;
use super::error::CliError;
use super::jobs::Kind;
use super::places::{self, DefaultRepository};
use super::report::quote;
use super::secret::{Secret, Typed};

/// Where the repository lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Named by the user.
    Named(StoreUrl),
    /// Nothing was named.
    Default(DefaultRepository),
}

impl Place {
    /// The location for the store.
    pub(crate) fn url(&self) -> StoreUrl {
        match self {
            Self::Named(url) => url.clone(),
            Self::Default(default) => StoreUrl::local(&default.directory),
        }
    }
}

/// How the run speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Voice {
    /// One JSON object a line.
    pub(crate) json: bool,
    /// Errors only.
    pub(crate) quiet: bool,
    /// Each entry is named.
    pub(crate) verbose: bool,
    /// Standard error is a terminal: bars are drawn there.
    pub(crate) bars: bool,
    /// Standard output is a terminal: a person reads it.
    pub(crate) person: bool,
}

/// Decisions of one run.
pub(crate) struct Settings {
    /// What was typed, for who makes decisions for another repository of the configuration.
    pub(crate) typed: GlobalArgs,
    pub(crate) place: Place,
    pub(crate) secret: Secret,
    pub(crate) voice: Voice,
    pub(crate) store: StoreOptions,
    pub(crate) places: Places,
    pub(crate) limits: Limits,
    /// What the store must show at least.
    pub(crate) require_anchor: Option<ObjectHash>,
}

impl Settings {
    /// Whether the repository's location is given, and not a name that the configuration would explain.
    pub(crate) fn is_located(args: &GlobalArgs, around: &Surroundings) -> bool {
        let named = args.repo.as_deref().or_else(|| around.get("LIFEBOAT_REPO"));
        named.is_some_and(|text| bare(text).is_none())
    }

    /// Whether the repository of this name in the configuration lies where this one does.
    pub(crate) fn is_at(&self, config: &Config, name: &str, around: &Surroundings) -> bool {
        let location = config.repository(name).and_then(|entry| entry.section.text("location"));
        let url = location.and_then(|text| store_url(OsStr::new(text), around).ok());
        url.is_some_and(|url| url == self.place.url())
    }

    /// Makes the decisions, with the configuration where it is needed: nothing is read of it if the repository's location is
    /// given, so that no mistake in it stands between a person and a backup.
    pub(crate) fn decide(args: &GlobalArgs, around: &Surroundings) -> Result<Self, CliError> {
        let needed = args.config.is_some() || !Self::is_located(args, around);
        let config = if needed { Config::load(args, around)? } else { Config::default() };
        Self::resolve(args, around, &config)
    }

    /// The same, with this configuration.
    pub(crate) fn resolve(
        args: &GlobalArgs,
        around: &Surroundings,
        config: &Config,
    ) -> Result<Self, CliError> {
        let named = args.repo.as_deref().or_else(|| around.get("LIFEBOAT_REPO"));
        let entry = match (named, config.repositories.as_slice()) {
            (Some(text), _) => bare(text).and_then(|name| config.repository(name)),
            (None, []) => None,
            (None, [only]) => Some(only),
            (None, all) => {
                let names = all.iter().map(|named| named.name.clone()).collect();
                return Err(CliError::WhichRepository { names });
            }
        };
        if let Some(entry) = entry {
            return Self::of(entry, args, around);
        }
        let place = match named {
            Some(text) => Place::Named(store_url(text, around)?),
            None => Place::Default(places::default_repository(around)?),
        };
        let mut secret = Secret::choose(args, around)?;
        if let (Secret::Ask, Place::Default(default)) = (&secret, &place) {
            secret = Secret::KeyFile(default.key_file.clone());
        }
        Self::with((place, secret), store_options(args, around), args, around)
    }

    /// Makes the decisions for a repository of the configuration; options count before the environment, and that before the file.
    pub(crate) fn of(entry: &Named, args: &GlobalArgs, around: &Surroundings) -> Result<Self, CliError> {
        let location = entry.section.text("location").unwrap_or_default();
        let place = Place::Named(store_url(OsStr::new(location), around)?);
        let secret = match Secret::choose(args, around)? {
            Secret::Ask => Secret::of_file(&entry.section, around)?,
            given => given,
        };
        let mut store = store_options(args, around);
        // What is given last counts.
        let mut options = weakest(entry.section.pairs("options"), (location, &args.option), around);
        options.append(&mut store.options);
        store.options = options;
        let patience = entry.section.text("retry-for").and_then(|text| duration(text).ok());
        store.retry_for = args.retry_for.or(patience).unwrap_or(store.retry_for);
        Self::with((place, secret), store, args, around)
    }

    /// Makes the decisions that hold for all jobs of the configuration, which open their repositories one by one.
    pub(crate) fn for_jobs(args: &GlobalArgs, around: &Surroundings) -> Result<Self, CliError> {
        if args.repo.is_some() {
            return Err(CliError::RepositoryOfJobs);
        }
        let config = Config::load(args, around)?;
        refuse_shared_token(&config, args, around)?;
        let job = config.jobs.first().and_then(|job| config.repository_of(job).ok());
        let has = |entry: &&Named| {
            Kind::OF_REPOSITORY.iter().any(|kind| entry.section.section(kind.name()).is_some())
        };
        let first = job.or(config.repositories.iter().find(has));
        let location = first.and_then(|entry| entry.section.text("location")).ok_or(CliError::NoJobs)?;
        let place = Place::Named(store_url(OsStr::new(location), around)?);
        Self::with((place, Secret::Ask), store_options(args, around), args, around)
    }

    fn with(
        (place, secret): (Place, Secret),
        store: StoreOptions,
        args: &GlobalArgs,
        around: &Surroundings,
    ) -> Result<Self, CliError> {
        Ok(Self {
            typed: args.clone(),
            secret,
            voice: voice(args),
            store,
            places: Places {
                state: places::state(around, args.state_dir.clone())?,
                cache: cache(args, around)?,
            },
            limits: limits(args.workers),
            require_anchor: args.require_anchor,
            place,
        })
    }

    /// The command that would make this repository, to be opened with what was given now.
    pub(crate) fn init_command(&self) -> String {
        let url = quote(&self.place.url().to_string());
        let file = |path: &PathBuf| quote(&path.display().to_string());
        let secret = match &self.secret {
            Secret::KeyFile(path) if path.exists() => " --new-key-file FILE".to_owned(),
            Secret::KeyFile(path) => format!(" --new-key-file {}", file(path)),
            Secret::PasswordFile(path) => format!(" --password-file {}", file(path)),
            _ => String::new(),
        };
        format!("lifeboat init --repo {url}{secret}")
    }
}

/// A second repository of a run.
pub(crate) struct Other {
    pub(crate) url: StoreUrl,
    pub(crate) secret: Secret,
    pub(crate) store: StoreOptions,
}

impl Settings {
    /// Makes the decisions for the repository to copy to. Options of the first one's store say nothing of this one's; limits
    /// and patience go for both; a time of the past is meant of the first one.
    pub(crate) fn other(&self, args: ToArgs, around: &Surroundings) -> Result<Other, CliError> {
        let ToArgs { repo, password_file, password_command, key_file, words_file, option } = args;
        let named = repo.as_deref().or_else(|| around.get("LIFEBOAT_TO_REPO"));
        let url = store_url(named.ok_or(CliError::NoOtherRepository)?, around)?;
        let typed = Typed { key_file, password_file, password_command, words_file };
        let secret = Secret::choose_other(typed, around)?;
        Ok(self.beside(url, secret, option, "LIFEBOAT_TO_"))
    }

    /// Makes the decisions for the repository of another tool, in the same way.
    pub(crate) fn foreign(&self, args: FromArgs, around: &Surroundings) -> Result<Other, CliError> {
        let FromArgs { repo, password_file, password_command, option } = args;
        let typed = Typed { key_file: None, password_file, password_command, words_file: None };
        let secret = Secret::choose_foreign(typed, around)?;
        let url = store_url(&repo, around)?;
        Ok(self.beside(url, secret, option, "LIFEBOAT_FROM_"))
    }

    /// What a variable of the first repository says of its server is not told to another one, which has variables of its own.
    fn beside(&self, url: StoreUrl, secret: Secret, options: Vec<(String, String)>, prefix: &str) -> Other {
        let mut store = StoreOptions { options, as_of: None, ..self.store.clone() };
        let variables = &mut store.environment.variables;
        for name in ["TOKEN", "TOKEN_FILE", "TOKEN_COMMAND", "CA_FILE"] {
            let own = format!("LIFEBOAT_{name}");
            variables.remove(&own);
            if let Some(value) = variables.get(&format!("{prefix}{name}")).cloned() {
                variables.insert(own, value);
            }
        }
        Other { url, secret, store }
    }
}

/// Those of the file that nothing typed and no variable says in its own way.
fn weakest(
    theirs: &[(String, String)],
    (location, typed): (&str, &[(String, String)]),
    around: &Surroundings,
) -> Vec<(String, String)> {
    let outranked = |key: &str| {
        typed.iter().any(|(other, _)| option_of(other) == option_of(key))
            || variables_of(key, location).iter().any(|name| around.get(name).is_some())
    };
    theirs.iter().filter(|(key, _)| !outranked(key)).cloned().collect()
}

/// Each server has a token of its own, so one that is meant of one of them is not shown to all.
fn refuse_shared_token(config: &Config, args: &GlobalArgs, around: &Surroundings) -> Result<(), CliError> {
    let web = |entry: &&Named| {
        entry
            .section
            .text("location")
            .is_some_and(|location| location.to_ascii_lowercase().starts_with("https:"))
    };
    if config.repositories.iter().filter(web).count() < 2 {
        return Ok(());
    }
    let typed = ["https.token_file", "https.token_command"]
        .into_iter()
        .find(|option| args.option.iter().any(|(key, _)| key.eq_ignore_ascii_case(option)));
    let set = ["LIFEBOAT_TOKEN", "LIFEBOAT_TOKEN_FILE", "LIFEBOAT_TOKEN_COMMAND"]
        .into_iter()
        .find(|name| around.get(name).is_some());
    match typed.or(set) {
        Some(given) => Err(CliError::TokenOfSeveral { given }),
        None => Ok(()),
    }
}

fn store_url(text: &OsStr, around: &Surroundings) -> Result<StoreUrl, CliError> {
    let url = match text.to_str() {
        Some(text) => text.parse::<StoreUrl>().map_err(StoreError::from)?,
        None => StoreUrl::local(text),
    };
    Ok(url.based_at(&around.directory))
}

fn limits(workers: Option<u16>) -> Limits {
    let default = Limits::default();
    Limits { workers: workers.map_or(default.workers, usize::from), ..default }
}

/// What may be the name of a repository: a word without the signs of a path or a location.
fn bare(text: &OsStr) -> Option<&str> {
    text.to_str().filter(|text| !text.starts_with('.') && !text.contains(['/', ':']))
}

fn voice(args: &GlobalArgs) -> Voice {
    Voice {
        json: args.json,
        quiet: args.quiet,
        verbose: args.verbose > 0 && !args.quiet,
        bars: std::io::stderr().is_terminal(),
        person: std::io::stdout().is_terminal(),
    }
}

fn store_options(args: &GlobalArgs, around: &Surroundings) -> StoreOptions {
    const PATIENCE: Duration = Duration::from_secs(15 * 60);
    StoreOptions {
        options: args.option.clone(),
        limit_upload: args.limit_upload.map(|size| size.0),
        limit_download: args.limit_download.map(|size| size.0),
        retry_for: args.retry_for.unwrap_or(PATIENCE),
        environment: around.for_store(),
        as_of: args.as_of,
    }
}

fn cache(args: &GlobalArgs, around: &Surroundings) -> Result<Option<PathBuf>, CliError> {
    if args.no_cache { Ok(None) } else { places::cache(around, args.cache_dir.clone()).map(Some) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::Cli;
    use super::*;

    fn resolve(options: &[&str], variables: &[(&str, &str)]) -> Result<Settings, CliError> {
        let line = ["lifeboat", "stats"].into_iter().chain(options.iter().copied());
        let args = Cli::try_parse_from(line).unwrap().global;
        Settings::resolve(&args, &Surroundings::of(variables), &Config::default())
    }

    #[test]
    fn a_named_repository_counts_before_the_default_one() {
        let home = ("HOME", "/home/a");
        let settings = resolve(&["-r", "x"], &[home, ("LIFEBOAT_REPO", "/y")]).unwrap();
        assert_eq!(settings.place.url().to_string(), "/somewhere/x");
        assert!(!settings.secret.is_given());
        let settings = resolve(&[], &[home, ("LIFEBOAT_REPO", "s3://b/y")]).unwrap();
        assert_eq!(settings.place.url().to_string(), "s3://b/y");
        let settings = resolve(&[], &[home]).unwrap();
        assert_eq!(settings.place.url().to_string(), "/home/a/.local/share/lifeboat/repo");
        assert!(settings.secret == Secret::KeyFile("/home/a/.config/lifeboat/default.key".into()));
    }

    #[test]
    fn without_a_cache_no_place_for_it_is_needed() {
        let state = ("LIFEBOAT_STATE_DIR", "/s");
        assert!(resolve(&["-r", "x"], &[state]).is_err());
        assert_eq!(resolve(&["-r", "x", "--no-cache"], &[state]).unwrap().places.cache, None);
    }

    #[test]
    fn the_token_of_one_server_is_not_sent_to_another() {
        let variables = [("HOME", "/h"), ("LIFEBOAT_TOKEN", "own"), ("LIFEBOAT_TO_TOKEN_FILE", "other")];
        let settings = resolve(&["-r", "https://x"], &variables).unwrap();
        let variables = |prefix| {
            let url = "https://y".parse().unwrap();
            settings.beside(url, Secret::Ask, Vec::new(), prefix).store.environment.variables
        };
        let to = variables("LIFEBOAT_TO_");
        assert_eq!(to.get("LIFEBOAT_TOKEN_FILE").map(String::as_str), Some("other"));
        assert!(!to.contains_key("LIFEBOAT_TOKEN"));
        let from = variables("LIFEBOAT_FROM_");
        assert!(!from.contains_key("LIFEBOAT_TOKEN") && !from.contains_key("LIFEBOAT_TOKEN_FILE"));
    }

    #[test]
    fn what_the_file_says_of_a_store_counts_least() {
        let pair = |key: &str| vec![(key.to_owned(), "x".to_owned())];
        for (key, location, typed, variable, stays) in [
            ("region", "s3://b", "", "", true),
            ("region", "s3://b", "aws_region", "", false),
            ("region", "s3://b", "", "AWS_DEFAULT_REGION", false),
            ("endpoint", "az://b", "", "AWS_ENDPOINT_URL", true),
            ("https.token_file", "https://x", "https.token_command", "", false),
            ("https.token_file", "https://x", "", "LIFEBOAT_TOKEN", false),
            ("https.ca_file", "https://x", "https.token_file", "LIFEBOAT_TOKEN", true),
            ("ssh.command", "ssh://x", "", "LIFEBOAT_SSH_COMMAND", false),
        ] {
            let typed = if typed.is_empty() { Vec::new() } else { pair(typed) };
            let variables = if variable.is_empty() { vec![] } else { vec![(variable, "v")] };
            let left = weakest(&pair(key), (location, &typed), &Surroundings::of(&variables));
            assert_eq!(!left.is_empty(), stays, "{key} {location} {typed:?} {variable}");
        }
    }

    #[test]
    fn a_wrong_location_is_a_mistake_in_the_arguments() {
        let error = resolve(&["-r", "ftp://x"], &[("HOME", "/h")]).err().unwrap();
        assert_eq!(error.class(), lifeboat::class::Class::Usage);
    }
}
