//! `key`: what opens the repository, and who may do what.

use lifeboat::crypto::words;
use lifeboat::format::keyslot::{Role, SlotKind};
use lifeboat::ops::keys::{Replaced, add_key, adding, knows_words, may_replace, remove_key, replace_secret};
use lifeboat::repo::{StoredSlot, Task};
use serde_json::{Value, json};

use super::super::args::{KeyAddArgs, KeyArgs, KeyVerb};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::observe::words::causes;
use super::super::render::table::Table;
use super::super::render::{sanitize, time};
use super::super::report::quote;
use super::super::secret::NewSecret;
use super::super::session::Session;
use super::default::numbered;
use super::recovery;

pub(super) async fn run(session: &mut Session, args: KeyArgs) -> Result<Exit, CliError> {
    match args.verb {
        KeyVerb::List => list(session).await,
        KeyVerb::Add(args) => add(session, args).await,
        KeyVerb::Passwd(args) => passwd(session, NewSecret::from(args)).await,
        KeyVerb::Remove { key } => remove(session, &key).await,
        KeyVerb::Recovery(args) => recovery::make(session, args).await,
        KeyVerb::VerifyRecovery => recovery::verify(session).await,
        KeyVerb::Words => show_words(session).await,
    }
}

async fn list(session: &mut Session) -> Result<Exit, CliError> {
    let repo = session.repository(Task::OwnKey).await?;
    let found = repo.list_slots().await.map_err(lifeboat::error::Error::from)?;
    session.clear();
    for (key, error) in &found.unreadable {
        session.warn(&format!("{key} is left out: {error}"));
    }
    let own = |slot: &StoredSlot| slot.hash == repo.slot();
    if session.voice().json {
        for slot in &found.slots {
            session.output.json(&object(slot, own(slot)))?;
        }
    } else {
        let headings = ["ID", "ROLE", "KIND", "CREATED", "WRITER", "LABEL", ""];
        let mut table = Table::new(&headings, &[false; 7]);
        for slot in &found.slots {
            table.row(vec![
                slot.hash.short(),
                slot.role.name().to_owned(),
                kind(slot.kind).replace('_', " "),
                time::local(slot.created.0),
                slot.note.writer.map_or_else(String::new, |writer| writer.short()),
                slot.note.label.as_deref().map_or_else(String::new, sanitize::line),
                if own(slot) { "opened this run".to_owned() } else { String::new() },
            ]);
        }
        session.output.text(&table.render())?;
    }
    Ok(Exit::Done)
}

fn kind(kind: SlotKind) -> &'static str {
    match kind {
        SlotKind::Passphrase => "password",
        SlotKind::KeyFile => "key_file",
        SlotKind::Words => "recovery_words",
    }
}

fn object(slot: &StoredSlot, own: bool) -> Value {
    json!({
        "type": "key",
        "id": slot.hash.to_string(),
        "role": slot.role.name(),
        "kind": kind(slot.kind),
        "created": time::utc(slot.created.0),
        "writer": slot.note.writer.map(|writer| writer.to_string()),
        "label": slot.note.label,
        "current": own,
    })
}

async fn add(session: &mut Session, args: KeyAddArgs) -> Result<Exit, CliError> {
    let role = Role::from(args.role);
    let repo = session.repository(adding(role)).await?;
    lifeboat::repo::check_label(args.label.as_deref()).map_err(library)?;
    let secret = NewSecret::from(args.secret);
    let warn = |message: &str| session.warn(message);
    let unlock = secret.unlock(&repo, &warn, &session.env.cancel).await?;
    let made = add_key(&repo, &unlock, role, args.label).await;
    let made = kept(session, &secret, made)?;
    session.clear();
    if session.voice().json {
        session.output.json(&json!({
            "type": "key_added",
            "id": made.to_string(),
            "role": role.name(),
            "key_file": secret.key_file(),
        }))?;
    } else if !session.voice().quiet {
        session.output.text(&format!("key {} of role {role}\n", made.short()))?;
    }
    Ok(Exit::Done)
}

fn library(error: lifeboat::repo::SlotError) -> CliError {
    let error = lifeboat::repo::RepoError::from(error);
    CliError::Library(error.into())
}

/// After a failure nobody knows whether a slot reached the store: what may open it stays.
fn kept<T>(
    session: &Session,
    secret: &NewSecret,
    result: Result<T, lifeboat::error::Error>,
) -> Result<T, CliError> {
    if let (Err(_), Some(path)) = (&result, secret.key_file()) {
        let path = quote(&path.display().to_string());
        session.warn(&format!("{path} stays: it may open something that reached the store all the same"));
    }
    Ok(result?)
}

async fn passwd(session: &mut Session, secret: NewSecret) -> Result<Exit, CliError> {
    let (repo, old) = session.unlocked(Task::OwnKey).await?;
    may_replace(&repo, &repo.list_slots().await.map_err(lifeboat::error::Error::from)?)?;
    let warn = |message: &str| session.warn(message);
    let new = secret.unlock(&repo, &warn, &session.env.cancel).await?;
    let replaced = replace_secret(&repo, &old, &new).await;
    let replaced = kept(session, &secret, replaced)?;
    session.clear();
    show_replaced(session, &replaced, "the new secret opens the repository, the old one does not any more")
}

/// Tells what was replaced by what.
pub(super) fn show_replaced(
    session: &mut Session,
    replaced: &Replaced,
    done: &str,
) -> Result<Exit, CliError> {
    let ids = |ids: Vec<_>| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    let left: Vec<_> = replaced.left.iter().map(|(slot, _)| *slot).collect();
    if session.voice().json {
        session.output.json(&json!({
            "type": "key_replaced",
            "id": replaced.new.to_string(),
            "removed": ids(replaced.removed.clone()),
            "left": ids(left),
        }))?;
    } else if !session.voice().quiet && replaced.left.is_empty() {
        session.output.text(&format!("key {}: {done}\n", replaced.new.short()))?;
    }
    for (slot, error) in &replaced.left {
        let causes = causes(error).join(": ");
        session.say_always(&format!(
            "key {} could not be deleted, and what opened it opens it still: {error}: {causes}",
            slot.short()
        ));
    }
    Ok(replaced.left.first().map_or(Exit::Done, |(_, error)| Exit::Class(error.class())))
}

async fn remove(session: &mut Session, selector: &str) -> Result<Exit, CliError> {
    let repo = session.repository(Task::ManageKeys).await?;
    let (removed, shared) = remove_key(&repo, selector).await?;
    session.clear();
    if session.voice().json {
        session.output.json(&json!({ "type": "key_removed", "id": removed.hash.to_string() }))?;
        return Ok(Exit::Done);
    }
    if !session.voice().quiet {
        session.output.text(&format!("key {} is removed\n", removed.hash.short()))?;
        if let Some(writer) = removed.note.writer.filter(|_| !shared) {
            session
                .say(&format!("whoever kept what it opened can still sign: lifeboat writer revoke {writer}"));
        }
    }
    session.say("whoever had it may have kept what it opened: that is not taken back by this");
    Ok(Exit::Done)
}

async fn show_words(session: &mut Session) -> Result<Exit, CliError> {
    let repo = session.repository(Task::ManageKeys).await?;
    let Some(recovery) = &repo.secrets().recovery else { return Err(CliError::NoRecoveryWords) };
    if !knows_words(&repo).await? {
        return Err(CliError::WordsReplaced);
    }
    session.clear();
    let words = words::encode(recovery);
    if session.voice().json {
        session.output.json(&json!({ "type": "recovery_words", "words": words.as_str() }))?;
    } else {
        session.output.text(&numbered(&words))?;
    }
    Ok(Exit::Done)
}
