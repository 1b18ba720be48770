//! `rekey`: new keys after one was lost to somebody, and sealing again what is under old ones.

use lifeboat::class::Class;
use lifeboat::crypto::slot::Unlock;
use lifeboat::ops::gc::{ReencryptOptions, ReencryptReport, reencrypt};
use lifeboat::ops::rekey::{RekeyOptions, Rekeyed, rekey};
use lifeboat::repo::{StoredSlot, Task};
use lifeboat::units::ByteSize;
use serde_json::{Value, json};

use super::super::args::RekeyArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::observe::words::causes;
use super::super::render::sanitize;
use super::super::secret::Secret;
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: RekeyArgs) -> Result<Exit, CliError> {
    if args.reencrypt {
        return seal_again(session, &args).await;
    }
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

async fn seal_again(session: &mut Session, args: &RekeyArgs) -> Result<Exit, CliError> {
    if let Some(limit) = args.limit {
        let least = |known: Option<u64>| Some(known.unwrap_or(u64::MAX).min(limit.0));
        let store = &mut session.settings.store;
        (store.limit_upload, store.limit_download) = (least(store.limit_upload), least(store.limit_download));
    }
    let repo = session.repository(Task::Reencrypt).await?;
    let options = ReencryptOptions { reserve: args.reserve.0, dry_run: args.dry_run };
    let report = reencrypt(&repo, options).await?;
    session.clear();
    if session.voice().json {
        session.output.json(&sealed_object(&report, args.dry_run))?;
    } else if !session.voice().quiet {
        session.output.text(&sealed_text(&report, args.dry_run))?;
    }
    for (key, reason) in &report.left {
        session.say_always(&format!("damage: {key} stays under an old key: {reason}"));
    }
    Ok(match (report.left.is_empty(), report.full) {
        (false, _) => Exit::Class(Class::Damage),
        (true, true) => Exit::Class(Class::NoSpace),
        (true, false) => Exit::Done,
    })
}

fn sealed_object(report: &ReencryptReport, dry_run: bool) -> Value {
    json!({
        "type": "reencrypt",
        "dry_run": dry_run,
        "packs_old": report.old,
        "bytes_old": report.old_bytes,
        "pack_bytes": report.pack_bytes,
        "packs_condemned": report.condemned,
        "bytes_condemned": report.condemned_bytes,
        "packs_written": report.written,
        "bytes_written": report.written_bytes,
        "packs_left": report.left.iter().map(|(key, why)| json!({"key": key, "reason": why})).collect::<Vec<_>>(),
    })
}

fn sealed_text(report: &ReencryptReport, dry_run: bool) -> String {
    let percent = match report.pack_bytes {
        0 => 100,
        all => 100 - report.old_bytes.min(all).saturating_mul(100).div_ceil(all),
    };
    let before = format!(
        "{} packs of {} were under old keys, {percent} % of {} was under new ones\n",
        report.old,
        ByteSize(report.old_bytes),
        ByteSize(report.pack_bytes),
    );
    if dry_run || report.old == 0 {
        return before;
    }
    format!(
        "{before}{} packs of {} are sealed again, into {} of {}; a prune deletes the old ones when the grace has passed\n",
        report.condemned,
        ByteSize(report.condemned_bytes),
        report.written,
        ByteSize(report.written_bytes),
    )
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
            _ if done.unknown > 0 => format!("{} opens only what was stored before\n", name(slot)),
            _ => format!(
                "{} opens only what was stored before: give its holder a new one, and lifeboat key remove {}\n",
                name(slot),
                slot.hash.short()
            ),
        });
    }
    if !dry_run {
        out.push_str(
            "what was stored before is still open to who kept an old key; to seal the files and trees of snapshots again: \
             lifeboat rekey --reencrypt\n",
        );
    }
    out
}
