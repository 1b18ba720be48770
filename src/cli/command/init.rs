//! `init`: a new repository.

use std::path::Path;

use lifeboat::format::config::Lock;
use lifeboat::ops::init::{InitOptions, Initialised, init};
use serde_json::json;

use super::super::args::InitArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::report::quote;
use super::super::secret::{NewKeyFile, Secret};
use super::super::session::Session;
use super::super::settings::Place;

/// What a new repository opens with.
pub(super) struct Keys<'a> {
    /// A key file to make.
    pub(super) key_file: Option<&'a Path>,
    /// Whether the password of the settings opens it, too.
    pub(super) password: bool,
    /// Whether recovery words open it, too.
    pub(super) words: bool,
    /// Whether a store that does not keep its promises is good enough.
    pub(super) weak_store: bool,
    /// How objects are locked.
    pub(super) lock: Option<Lock>,
}

pub(super) async fn run(session: &mut Session, args: InitArgs) -> Result<Exit, CliError> {
    if let Place::Default(_) = session.settings.place {
        return Err(CliError::NoRepositoryNamed);
    }
    // A secret of the environment may be meant for other repositories: a key file alone is enough.
    let password = match (&args.new_key_file, &session.settings.secret) {
        (Some(_), Secret::KeyFile(_) | Secret::WordsFile(_) | Secret::Ask) => false,
        (Some(_) | None, _) => true,
    };
    let keys = Keys {
        key_file: args.new_key_file.as_deref(),
        password,
        words: args.recovery_words,
        weak_store: args.accept_weak_store,
        lock: args.lock,
    };
    let made = make(session, &keys).await?;
    show(session, &args, &made)?;
    Ok(Exit::Done)
}

/// Makes the repository and its key file.
pub(super) async fn make(session: &Session, keys: &Keys<'_>) -> Result<Initialised, CliError> {
    let warn = |message: &str| session.warn(message);
    let passphrase = match keys.password {
        true => Some(session.settings.secret.new_password(&warn, &session.env.cancel).await?),
        false => None,
    };
    let store = session.store().await?;
    let file = keys.key_file.map(NewKeyFile::create).transpose()?;
    let options = InitOptions {
        passphrase,
        new_key_file: file.is_some(),
        recovery_words: keys.words,
        accept_weak_store: keys.weak_store,
        lock: keys.lock,
        ..InitOptions::default()
    };
    let made = init(store, &session.env, options).await?;
    if let (Some(file), Some(text), Some(path)) = (file, &made.key_file, keys.key_file) {
        file.write(text.as_bytes()).map_err(|source| CliError::KeyLost {
            place: session.settings.place.url().to_string(),
            path: path.to_path_buf(),
            source,
        })?;
    }
    Ok(made)
}

fn show(session: &mut Session, args: &InitArgs, made: &Initialised) -> Result<(), CliError> {
    let place = session.settings.place.url().to_string();
    let words = made.recovery_words.as_ref().map(|words| words.as_str());
    session.clear();
    if session.voice().json {
        return session.output.json(&json!({
            "type": "repository",
            "repository": made.repository.to_string(),
            "place": place,
            "key_file": args.new_key_file,
            "recovery_words": words,
            "lock": args.lock.map(|lock| lock.to_string()),
        }));
    }
    if !session.voice().quiet {
        session.output.text(&format!("made repository {} at {place}\n", made.repository.short()))?;
        if let Some(path) = &args.new_key_file {
            let path = quote(&path.display().to_string());
            session.output.text(&format!("it opens with --key-file {path}: keep a copy somewhere else\n"))?;
        }
    }
    if let (Some(lock), false) = (args.lock, session.voice().quiet) {
        session.output.text(&format!(
            "every object is locked ({lock}): what is stored costs until then, and nothing can give it back sooner\n"
        ))?;
    }
    match words {
        Some(words) => session.output.text(&format!("{words}\n")),
        None => Ok(()),
    }
}
