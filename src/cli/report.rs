//! The only place that writes errors: what happened, why, and what to do next.

mod hint;

use lifeboat::class::Class;
use serde_json::json;

use super::error::CliError;
use super::exit::{Exit, SIGPIPE};
use super::observe::words;
use super::output::note;
use super::render::sanitize;

/// What a report must know of the run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Context {
    /// Errors are JSON objects.
    pub(crate) json: bool,
    /// The command that makes the repository of this run.
    pub(crate) init: Option<String>,
    /// The signal that ended the run.
    pub(crate) stopped_by: Option<Exit>,
}

/// Writes an error and says how to exit. A reader that went away is nobody's error.
pub(crate) fn report(error: &CliError, context: &Context) -> Exit {
    if error.is_broken_pipe() {
        return Exit::Signal(SIGPIPE);
    }
    let exit = match (error.class(), context.stopped_by) {
        (Class::Cancelled, Some(signal)) => signal,
        (class, _) => Exit::Class(class),
    };
    let causes = words::causes(error);
    let hint = hint::hint(error, context);
    if context.json {
        let object = json!({
            "type": "error",
            "message": error.to_string(),
            "causes": causes,
            "hint": hint,
            "class": words::class(error.class()),
            "code": exit.code(),
        });
        note(&object.to_string());
        return exit;
    }
    if error.class() == Class::Cancelled {
        // Where exactly it stopped helps nobody.
        note("stopped before the end, as asked");
        return exit;
    }
    note(&format!("error: {}", sanitize::line(&error.to_string())));
    for cause in causes {
        note(&format!("  caused by: {}", sanitize::line(&cause)));
    }
    if let Some(hint) = hint {
        note(&format!("  next step: {}", sanitize::line(&hint)));
    }
    exit
}

/// A word for a POSIX shell.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@=+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use lifeboat::error::Error;

    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (word, quoted) in [
            ("s3://b/x", "s3://b/x"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(quote(word), quoted);
        }
    }

    #[test]
    fn a_stop_by_signal_exits_with_its_number() {
        let error = CliError::Library(Error::Cancelled);
        assert_eq!(
            report(&error, &Context { stopped_by: Some(Exit::Signal(15)), ..Context::default() }).code(),
            143
        );
        assert_eq!(report(&error, &Context::default()).code(), 130);
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let pipe = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(report(&CliError::Output(pipe()), &Context::default()).code(), 141);
        assert_eq!(report(&CliError::Library(Error::Output(pipe())), &Context::default()).code(), 141);
    }
}
