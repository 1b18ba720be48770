//! How `copy` and `import` tell of the snapshots that they bring.

use serde_json::Value;

use super::super::error::CliError;
use super::super::session::Session;

/// How much a person must know of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// There is nothing of it.
    Error,
    /// Something of it is missing.
    Warning,
    /// Something was done about it, or will be.
    News,
    /// Nothing was done, and that is well.
    Rest,
}

/// Tells of one snapshot: people by a line, programs by an object. What is not worth a line gets one if it was `named`.
pub(super) fn tell(
    session: &mut Session,
    (weight, named): (Weight, bool),
    (line, object): (String, Value),
) -> Result<(), CliError> {
    if session.voice().json {
        return session.output.json(&object);
    }
    match weight {
        Weight::Error => session.say_always(&format!("error: {line}")),
        Weight::Warning => session.say_always(&format!("warning: {line}")),
        Weight::Rest if !named => {}
        Weight::News | Weight::Rest => session.say(&line),
    }
    Ok(())
}

/// Says how far a run is that takes a while.
pub(super) fn tell_progress(session: &Session, number: usize, all: usize) {
    let voice = session.voice();
    if all > 1 && voice.bars && !voice.json {
        session.say(&format!("{number} of {all} snapshots"));
    }
}

/// Says what it came to.
pub(super) fn sum_up(session: &mut Session, (text, object): (String, Value)) -> Result<(), CliError> {
    session.clear();
    if session.voice().json {
        session.output.json(&object)
    } else if session.voice().quiet {
        Ok(())
    } else {
        session.output.text(&text)
    }
}
