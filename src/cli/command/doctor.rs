//! `doctor`: what stands in the way, before it does.

use lifeboat::class::Class;
use lifeboat::ops::doctor::{Check, CheckState, doctor};
use serde_json::{Value, json};

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render::sanitize;
use super::super::session::Session;

pub(super) async fn run(session: &mut Session) -> Result<Exit, CliError> {
    let store = session.store().await?;
    // Without a secret the rest can be checked all the same.
    let secret = &session.settings.secret;
    let unlock = match secret.is_given() {
        true => Some(
            secret.unlock("the repository", &|message| session.warn(message), &session.env.cancel).await?,
        ),
        false => None,
    };
    let checks = doctor(store, &session.env, unlock.as_ref()).await;
    session.clear();
    for check in &checks {
        if session.voice().json {
            session.output.json(&object(check))?;
        } else if !session.voice().quiet || check.state == CheckState::Fail {
            session.output.text(&line(check))?;
        }
    }
    let failed = checks.iter().any(|check| check.state == CheckState::Fail);
    Ok(if failed { Exit::Class(Class::Failed) } else { Exit::Done })
}

fn word(state: CheckState) -> &'static str {
    match state {
        CheckState::Ok => "ok",
        CheckState::Warn => "warn",
        CheckState::Fail => "fail",
    }
}

fn line(check: &Check) -> String {
    let detail = sanitize::line(&check.detail);
    let hint =
        check.hint.as_ref().map_or_else(String::new, |hint| format!("      {}\n", sanitize::line(hint)));
    format!("{:4}  {}: {detail}\n{hint}", word(check.state), check.name)
}

fn object(check: &Check) -> Value {
    json!({
        "type": "check",
        "name": check.name,
        "state": word(check.state),
        "detail": check.detail,
        "hint": check.hint,
    })
}
