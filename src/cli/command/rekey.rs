//! `rekey`: new keys after one was lost to somebody.

use lifeboat::crypto::slot::Unlock;
use lifeboat::ops::rekey::{RekeyOptions, Rekeyed, rekey};
use lifeboat::repo::{StoredSlot, Task};
use serde_json::{Value, json};

use super::super::args::RekeyArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::observe::words::causes;
use super::super::render::sanitize;
use super::super::secret::Secret;
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: RekeyArgs) -> Result<Exit, CliError> {
    let (repo, own) = session.unlocked(Task::Rekey).await?;
    let keep = others(session, &args).await?;
    let options = RekeyOptions { keep: &keep, remove_old: args.remove_old, dry_run: args.dry_run };
    let done = rekey(&repo, &own, options).await?;
    session.clear();
    if session.voice().json {
        session.output.json(&object(&done, args.dry_run))?;
    } else if !session.voice().quiet {
        session.output.text(&text(&done, (args.dry_run, args.remove_old)))?;
    }
    if done.unknown > 0 {
        session.say_always(&format!(
            "do not remove the keys that were not made anew: something may be sealed to {} that only they hold; \
             run it again with their secrets: --keep-key-file, --keep-password-file",
            if done.unknown == 1 { "a key".to_owned() } else { format!("{} keys", done.unknown) }
        ));
    }
    for (slot, error) in &done.left {
        let causes = causes(error).join(": ");
        session.say_always(&format!("key {} could not be deleted: {error}: {causes}", slot.short()));
    }
    Ok(done.left.first().map_or(Exit::Done, |(_, error)| Exit::Class(error.class())))
}

/// The secrets of others who go on.
async fn others(session: &Session, args: &RekeyArgs) -> Result<Vec<Unlock>, CliError> {
    let files = args.keep_key_file.iter().cloned().map(Secret::KeyFile);
    let passwords = args.keep_password_file.iter().cloned().map(Secret::PasswordFile);
    let mut found = Vec::new();
    for secret in files.chain(passwords) {
        let warn = |message: &str| session.warn(message);
        found.push(secret.unlock("the repository", &warn, &session.env.cancel).await?);
    }
    Ok(found)
}

fn object(done: &Rekeyed, dry_run: bool) -> Value {
    let slot = |slot: &StoredSlot| json!({ "id": slot.hash.to_string(), "role": slot.role.name(), "label": slot.note.label });
    let renewed = done.renewed.iter().map(|(old, new)| {
        let mut object = slot(old);
        object["new"] = json!(new.map(|new| new.to_string()));
        object
    });
    json!({
        "type": "rekey",
        "dry_run": dry_run,
        "configuration": done.number,
        "renewed": renewed.collect::<Vec<_>>(),
        "stale": done.stale.iter().map(slot).collect::<Vec<_>>(),
        "removed": done.removed.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "left": done.left.iter().map(|(slot, _)| slot.to_string()).collect::<Vec<_>>(),
        "unknown_keys": done.unknown,
    })
}

fn text(done: &Rekeyed, (dry_run, remove_old): (bool, bool)) -> String {
    let name = |slot: &StoredSlot| {
        let label = slot.note.label.as_deref().map(|label| format!(", {}", sanitize::line(label)));
        format!("key {} of role {}{}", slot.hash.short(), slot.role, label.unwrap_or_default())
    };
    let mut out = match dry_run {
        true => "everything would be sealed to new keys from then on\n".to_owned(),
        false => "everything is sealed to new keys from now on\n".to_owned(),
    };
    for (old, new) in &done.renewed {
        out.push_str(&match new {
            Some(new) => format!("{} is made anew: key {}\n", name(old), new.short()),
            None => format!("{} would be made anew\n", name(old)),
        });
    }
    for slot in &done.stale {
        out.push_str(&match (remove_old, dry_run) {
            (true, true) => format!("{} would be removed\n", name(slot)),
            (true, false) if done.removed.contains(&slot.hash) => format!("{} is removed\n", name(slot)),
            _ => format!(
                "{} opens only what was stored before: give its holder a new one, and lifeboat key remove {}\n",
                name(slot),
                slot.hash.short()
            ),
        });
    }
    if !dry_run {
        out.push_str("what was stored before is still open to who kept an old key\n");
    }
    out
}
