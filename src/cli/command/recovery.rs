//! `key recovery` and `key verify-recovery`: words on paper, for the day when nothing else is left.
//!
//! # Invariants
//! Nothing in the store changes before the words are where they will be found: in a file that is durable, or typed back by
//! somebody who has written them down.

use std::io::IsTerminal;
use std::path::Path;

use lifeboat::crypto::slot::Unlock;
use lifeboat::crypto::{SecretKey, words};
use lifeboat::error::Error;
use lifeboat::ops::keys::replace_words;
use lifeboat::repo::{Repository, Task};
use serde_json::json;

use super::super::args::RecoveryArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render::qr::Qr;
use super::super::secret::{NewKeyFile, Secret, ask_words, is_person};
use super::super::session::Session;
use super::default::numbered;
use super::key::show_replaced;

/// How often words may be typed back wrongly.
const TRIES: usize = 3;

pub(super) async fn make(session: &mut Session, args: RecoveryArgs) -> Result<Exit, CliError> {
    let (repo, own) = session.unlocked(Task::ManageKeys).await?;
    let person = is_person() && std::io::stdout().is_terminal();
    let shown = person && args.words_to.is_none();
    if !person && args.words_to.is_none() && args.png.is_none() {
        return Err(CliError::NoWordsPlace);
    }
    let key = SecretKey::generate(&*repo.env().random).map_err(Error::from)?;
    session.clear();
    if let Some(path) = &args.words_to {
        write(path, numbered(&words::encode(&key)).as_bytes())?;
    }
    if let Some(path) = &args.png {
        write(path, &code(&key).png())?;
    }
    if shown {
        show(session, &key)?;
        confirm(session, &key).await?;
    }
    let replaced = replace_words(&repo, &own, &key).await?;
    show_replaced(session, &replaced, "these words open the repository, and no others do")
}

fn code(key: &SecretKey) -> Qr {
    Qr::of(&words::encode(key)).expect("24 words fit into a code")
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let file = NewKeyFile::create(path)?;
    file.write(bytes).map_err(|source| CliError::Write { path: path.to_path_buf(), source })
}

fn show(session: &mut Session, key: &SecretKey) -> Result<(), CliError> {
    let words = words::encode(key);
    session.output.text(&code(key).terminal())?;
    session.output.text("Write these 24 words down, and keep them away from this machine:\n\n")?;
    session.output.text(&numbered(&words))?;
    session.output.flush()
}

/// Waits until the words are typed back.
async fn confirm(session: &Session, key: &SecretKey) -> Result<(), CliError> {
    for _ in 0..TRIES {
        match ask_words("Type them back, in one line:", &session.env.cancel).await {
            Ok(typed) if typed == *key => return Ok(()),
            Ok(_) => session.say("these are other words"),
            Err(CliError::BadWords(error)) => session.say(&format!("not yet: {error}")),
            Err(error) => return Err(error),
        }
    }
    Err(CliError::WordsNotConfirmed)
}

pub(super) async fn verify(session: &mut Session) -> Result<Exit, CliError> {
    session.refuse_anchor()?;
    let key = match &session.settings.secret {
        secret @ Secret::WordsFile(_) => {
            match secret.unlock("", &|message| session.warn(message), &session.env.cancel).await? {
                Unlock::Words(key) => key,
                _ => return Err(CliError::NoWordsToCheck),
            }
        }
        _ if is_person() => ask_words("Type the 24 words, in one line:", &session.env.cancel).await?,
        _ => return Err(CliError::NoWordsToCheck),
    };
    let store = session.store().await?;
    let opened = Repository::open(store, session.env.clone(), &Unlock::Words(key)).await;
    let repo = opened.map_err(Error::from)?;
    session.clear();
    if session.voice().json {
        session.output.json(&json!({
            "type": "recovery",
            "repository": repo.id().to_string(),
            "role": repo.role().name(),
            "id": repo.slot().to_string(),
        }))?;
    } else if !session.voice().quiet {
        let text = format!("these words open repository {} with role {}\n", repo.id().short(), repo.role());
        session.output.text(&text)?;
    }
    Ok(Exit::Done)
}
