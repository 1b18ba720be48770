//! One run of a verb: its settings, its display, its place in the world.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use lifeboat::cancel::Cancel;
use lifeboat::class::Class;
use lifeboat::clock::SystemClock;
use lifeboat::crypto::slot::Unlock;
use lifeboat::error::{Error, TrustError};
use lifeboat::event::{Event, Observer};
use lifeboat::format::layout;
use lifeboat::id::SnapshotId;
use lifeboat::ops::anchor;
use lifeboat::random::SystemRandom;
use lifeboat::repo::{Env, RepoError, Repository, Task};
use lifeboat::restic::Restic;
use lifeboat::store::{ReadOnly, Store};

use super::environment::Surroundings;
use super::error::CliError;
use super::exit::Exit;
use super::observe::{self, Display};
use super::output::Output;
use super::secret::Secret;
use super::settings::{Other, Place, Settings, Voice};
use super::{report, signal};

/// What every verb works with.
pub(crate) struct Session {
    pub(crate) settings: Settings,
    pub(crate) env: Env,
    pub(crate) output: Output,
    /// What relative paths start from.
    pub(crate) directory: PathBuf,
    /// What the process was started with.
    pub(crate) around: Surroundings,
    display: Arc<dyn Display>,
    signals: signal::Received,
    /// Snapshots that are gone and that nobody removed, if the repository was compared with what this machine has seen.
    missed: OnceLock<Vec<SnapshotId>>,
}

impl Session {
    /// Sets up display and signals. Must be called within a runtime.
    pub(crate) fn start(settings: Settings, around: &Surroundings) -> Result<Self, CliError> {
        let display = observe::display(settings.voice);
        let cancel = Cancel::new();
        let answering = Arc::clone(&display);
        let quiet = settings.voice.quiet;
        let answer = move |line: &str| {
            if !quiet {
                answering.say(line)
            }
        };
        let signals = signal::listen(cancel.clone(), answer).map_err(CliError::Setup)?;
        let env = Env {
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom),
            observer: Arc::clone(&display) as Arc<dyn Observer>,
            cancel,
            limits: settings.limits,
            places: settings.places.clone(),
        };
        let directory = around.directory.clone();
        let (output, around) = (Output::new(settings.voice), around.clone());
        let missed = OnceLock::new();
        Ok(Self { output, directory, around, settings, env, display, signals, missed })
    }

    /// A session for another repository within this run: it shows itself as this one does, and stops when this one does.
    pub(crate) fn within(&self, settings: Settings) -> Self {
        let display = observe::display(settings.voice);
        let env = Env {
            observer: Arc::clone(&display) as Arc<dyn Observer>,
            limits: settings.limits,
            places: settings.places.clone(),
            ..self.env.clone()
        };
        Self {
            output: Output::new(settings.voice),
            directory: self.directory.clone(),
            around: self.around.clone(),
            signals: self.signals.clone(),
            missed: OnceLock::new(),
            settings,
            env,
            display,
        }
    }

    /// How to exit if a signal asked for the end.
    pub(crate) fn stopped(&self) -> Option<Exit> {
        self.signals.exit()
    }

    /// Reports what went wrong with a part of this run, which goes on; says how that part ended.
    pub(crate) fn fail(&self, error: &CliError) -> Exit {
        let context =
            report::Context { json: self.voice().json, init: None, stopped_by: self.signals.exit() };
        report::report(error, &context)
    }

    /// How this run speaks.
    pub(crate) fn voice(&self) -> Voice {
        self.settings.voice
    }

    /// A line for a person, on standard error; not with `--quiet`.
    pub(crate) fn say(&self, line: &str) {
        if !self.voice().quiet {
            self.display.say(line);
        }
    }

    /// Tells of something that should not be, and goes on.
    pub(crate) fn warn(&self, message: &str) {
        self.display.observe(&Event::Warning { message });
    }

    /// A line that even `--quiet` shows, because it explains the exit code.
    pub(crate) fn say_always(&self, line: &str) {
        self.display.say(line);
    }

    /// Ends drawing, so that a result or a question can be shown.
    pub(crate) fn clear(&self) {
        self.display.finish();
    }

    /// The store of the repository; nothing is made in it.
    pub(crate) async fn store(&self) -> Result<Store, CliError> {
        let env = self.env.store_env();
        Ok(Store::open(&self.settings.place.url(), &self.settings.store, env).await?)
    }

    /// Whether the store is read as it was at some time.
    pub(crate) fn is_of_the_past(&self) -> bool {
        self.settings.store.as_of.is_some()
    }

    /// The repository, opened with the secret of the settings for a task that the key's role may do, and compared with what this
    /// machine has seen of it: if the store shows less, the run goes on with what is there, chooses nothing that is newest, and
    /// fails in the end.
    pub(crate) async fn repository(&self, task: Task) -> Result<Repository, CliError> {
        Ok(self.unlocked(task).await?.0)
    }

    /// The same, with what opened it.
    pub(crate) async fn unlocked(&self, task: Task) -> Result<(Repository, Unlock), CliError> {
        let (repository, unlock) = self.open(task).await?;
        if self.is_of_the_past() {
            // The past shows less than this machine has seen.
            return Ok((repository, unlock));
        }
        self.compare_config(&repository)?;
        let missed = anchor::watch(&repository).await?;
        if missed.is_empty() {
            return Ok((repository, unlock));
        }
        let count = missed.len();
        self.warn(&format!(
            "the store lacks snapshots that this machine has seen and nobody removed: {count}"
        ));
        // A verb opens the repository once.
        let _ = self.missed.set(missed.clone());
        Ok((repository.missing(missed), unlock))
    }

    /// Fails if the store shows an older configuration than this machine has seen: whoever stores something would seal it to keys
    /// that were replaced.
    pub(crate) fn compare_config(&self, repository: &Repository) -> Result<(), CliError> {
        match repository.compare_config() {
            Err(error @ RepoError::Local { .. }) => {
                let chain = observe::words::chain(&error);
                self.warn(&format!(
                    "the configuration is not compared with what this machine has seen: {chain}"
                ));
                Ok(())
            }
            other => Ok(other.map_err(Error::from)?),
        }
    }

    /// The repository, not compared with what this machine has seen: whoever stores something compares the configuration.
    pub(crate) async fn opened(&self, task: Task) -> Result<Repository, CliError> {
        Ok(self.open(task).await?.0)
    }

    async fn open(&self, task: Task) -> Result<(Repository, Unlock), CliError> {
        if let Place::Default(default) = &self.settings.place
            && !default.directory.exists()
        {
            return Err(CliError::NoDefaultRepository { place: default.directory.clone() });
        }
        let store = self.store().await?;
        let unlock = self.unlock(&store, ("the repository", &self.settings.secret)).await?;
        let repository = open(store, &self.env, (&unlock, task)).await?;
        if let Some(anchor) = self.settings.require_anchor {
            anchor::require(&repository, anchor).await?;
        }
        Ok((repository, unlock))
    }

    /// Fails if an anchor is required: this verb does not open the repository, and could not tell.
    pub(crate) fn refuse_anchor(&self) -> Result<(), CliError> {
        if self.settings.require_anchor.is_some() { Err(CliError::AnchorNotChecked) } else { Ok(()) }
    }

    /// A second repository, opened with a secret of its own. What goes wrong says that it is this one.
    pub(crate) async fn other(&self, other: &Other, task: Task) -> Result<Repository, CliError> {
        let opened = async {
            let store = Store::open(&other.url, &other.store, self.env.store_env()).await?;
            let unlock = self.unlock(&store, ("the other repository", &other.secret)).await?;
            let repository = open(store, &self.env, (&unlock, task)).await?;
            self.compare_config(&repository)?;
            Ok(repository)
        };
        opened.await.map_err(|error: CliError| match error.class() {
            Class::Cancelled => error,
            _ => CliError::OfOther { place: other.url.to_string(), error: Box::new(error) },
        })
    }

    /// A repository of restic, which is only read. What goes wrong says that it is this one.
    pub(crate) async fn restic(&self, other: &Other) -> Result<Restic, CliError> {
        let opened = async {
            let store = Store::open(&other.url, &other.store, self.env.store_env()).await?;
            let warn = |message: &str| self.warn(message);
            let password = other.secret.passphrase("the restic repository", &warn, &self.env.cancel).await?;
            let opened = Restic::open(ReadOnly::new(store), &password).await;
            opened.map_err(|error| CliError::Library(Error::from(error)))
        };
        opened.await.map_err(|error| match error.class() {
            Class::Cancelled => error,
            _ => CliError::OfForeign { place: other.url.to_string(), error: Box::new(error) },
        })
    }

    /// What opens the repository. Nobody is asked for the password of a repository that does not exist, and the loss of a
    /// key is not complained of either.
    async fn unlock(&self, store: &Store, (name, secret): (&str, &Secret)) -> Result<Unlock, CliError> {
        if !secret.is_given() {
            exists(store).await?;
        }
        match secret.unlock(name, &|message| self.warn(message), &self.env.cancel).await {
            Err(CliError::Read { path, source }) => {
                exists(store).await?;
                Err(CliError::Read { path, source })
            }
            other => other,
        }
    }

    /// Ends the run: the display goes, the output is handed over, an error is reported.
    pub(crate) fn finish(self, result: Result<Exit, CliError>) -> Exit {
        self.display.finish();
        let context = report::Context {
            json: self.voice().json,
            init: Some(self.settings.init_command()),
            stopped_by: self.signals.exit(),
        };
        let flushed = self.output.finish();
        let rolled_back = |exit| match self.missed.into_inner() {
            Some(missing) if !matches!(exit, Exit::Signal(_)) => {
                Err(CliError::Library(TrustError::RolledBack { missing }.into()))
            }
            _ => Ok(exit),
        };
        match result.and_then(|exit| flushed.map(|()| exit)).and_then(rolled_back) {
            Ok(exit) => exit,
            Err(error) => report::report(&error, &context),
        }
    }
}

/// Opens a repository and asks whether the key may do what is to be done: the one place where that is asked, before anything
/// is.
async fn open(store: Store, env: &Env, (unlock, task): (&Unlock, Task)) -> Result<Repository, CliError> {
    let repository = Repository::open(store, env.clone(), unlock).await.map_err(Error::from)?;
    repository.allow(task).map_err(Error::from)?;
    Ok(repository)
}

async fn exists(store: &Store) -> Result<(), CliError> {
    if store.list(layout::CONFIG).await?.is_empty() {
        let url = store.url().to_string();
        return Err(CliError::Library(Error::Repo(RepoError::NotFound { url })));
    }
    Ok(())
}
