//! `key`: what opens the repository.

use lifeboat::crypto::words;
use serde_json::json;

use super::super::args::{KeyArgs, KeyVerb};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::session::Session;
use super::default::numbered;

pub(super) async fn run(session: &mut Session, args: &KeyArgs) -> Result<Exit, CliError> {
    let KeyVerb::Words = args.verb;
    let repo = session.repository().await?;
    session.clear();
    let Some(recovery) = &repo.secrets().recovery else { return Err(CliError::NoRecoveryWords) };
    let words = words::encode(recovery);
    if session.voice().json {
        session.output.json(&json!({ "type": "recovery_words", "words": words.as_str() }))?;
    } else {
        session.output.text(&numbered(&words))?;
    }
    Ok(Exit::Done)
}
