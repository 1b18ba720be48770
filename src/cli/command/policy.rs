//! `policy`: what a store has to permit to a role.

use lifeboat::error::Error;
use lifeboat::format::keyslot::Role;
use lifeboat::policy::{Grant, generate};
use serde_json::json;

use super::super::args::{PolicyArgs, PolicyVerb};
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::session::Session;

pub(super) fn run(session: &mut Session, args: &PolicyArgs) -> Result<Exit, CliError> {
    let PolicyVerb::Generate(args) = &args.verb;
    let url = session.settings.place.url();
    let role = Role::from(args.role);
    let grant = Grant { role, principals: &args.principal, lock: args.lock };
    let policy = generate(args.provider, &url, &grant).map_err(Error::from)?;
    session.clear();
    if session.voice().json {
        return session
            .output
            .json(&json!({
                "type": "policy",
                "provider": args.provider.name(),
                "role": role.name(),
                "place": url.to_string(),
                "policy": policy.text,
                "notes": policy.notes,
            }))
            .map(|()| Exit::Done);
    }
    session.output.text(&policy.text)?;
    for note in &policy.notes {
        session.say(&format!("# {note}"));
    }
    Ok(Exit::Done)
}
