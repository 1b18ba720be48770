//! The default repository, which the first `backup` makes by itself.

use std::io::IsTerminal;

use serde_json::json;
use zeroize::Zeroizing;

use super::super::error::CliError;
use super::super::places::DefaultRepository;
use super::super::secret::{Secret, create_private_dir};
use super::super::session::Session;
use super::super::settings::Place;
use super::init::{Keys, make};

/// Makes the default repository, if nothing was named and it is not there.
pub(super) async fn ensure(session: &Session) -> Result<(), CliError> {
    let Place::Default(default) = &session.settings.place else { return Ok(()) };
    if default.directory.exists() {
        return Ok(());
    }
    if session.settings.require_anchor.is_some() {
        return Err(CliError::NoDefaultRepository { place: default.directory.clone() });
    }
    let with_key_file = session.settings.secret == Secret::KeyFile(default.key_file.clone());
    if with_key_file && default.key_file.exists() {
        return Err(CliError::DefaultRepositoryGone {
            place: default.directory.clone(),
            key_file: default.key_file.clone(),
        });
    }
    if let (true, Some(parent)) = (with_key_file, default.key_file.parent()) {
        create_private_dir(parent)?;
    }
    let voice = session.voice();
    let person = std::io::stdin().is_terminal() && voice.bars && !voice.quiet && !voice.json;
    let keys = Keys {
        key_file: with_key_file.then_some(default.key_file.as_path()),
        password: !with_key_file,
        words: person,
        weak_store: false,
        lock: None,
    };
    let made = make(session, &keys).await?;
    announce(session, default, with_key_file);
    if let Some(words) = &made.recovery_words {
        session.say("These 24 words open it, too: write them down. `lifeboat key words` shows them again.\n");
        session.say(&numbered(words));
    }
    Ok(())
}

fn announce(session: &Session, default: &DefaultRepository, with_key_file: bool) {
    let place = default.directory.display().to_string();
    let key_file = default.key_file.display().to_string();
    if session.voice().json {
        if !session.voice().quiet {
            let key_file = with_key_file.then_some(key_file);
            let object = json!({"type": "default_repository", "place": place, "key_file": key_file});
            super::super::output::note(&object.to_string());
        }
        return;
    }
    session.say(&format!("made the default repository {place}"));
    if with_key_file {
        session.say(&format!(
            "its key is {key_file}: nothing can be restored without it, so keep a copy elsewhere"
        ));
    }
    session.say("it lies on this machine: name another place with --repo to survive the loss of the disk");
}

/// Words in rows of four, numbered; they are read back in this form, too.
pub(super) fn numbered(words: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(32 * 24));
    for (number, word) in words.split_whitespace().enumerate() {
        out.push_str(&format!("{:>5}. {word:<10}", number + 1));
        if number % 4 == 3 {
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_words_are_the_same_words() {
        let shown = numbered("alpha beta gamma delta epsilon");
        assert_eq!(shown.lines().count(), 2);
        let words: Vec<_> = shown.split_whitespace().filter(|part| !part.ends_with('.')).collect();
        assert_eq!(words, ["alpha", "beta", "gamma", "delta", "epsilon"]);
    }
}
