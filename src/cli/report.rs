//! The only place that writes errors: what happened, why, and what to do next.

use lifeboat::error::Error;
use serde_json::json;

use super::error::CliError;
use super::exit::{Exit, SIGPIPE};
use super::observe::words;
use super::output::note;
use super::render::sanitize;
use super::settings::Voice;

/// Writes an error and says how to exit. A reader that went away is nobody's error.
pub(crate) fn report(error: &CliError, voice: Option<Voice>, stopped_by: Option<Exit>) -> Exit {
    if error.is_broken_pipe() {
        return Exit::Signal(SIGPIPE);
    }
    let exit = match (error.class(), stopped_by) {
        (lifeboat::class::Class::Cancelled, Some(signal)) => signal,
        (class, _) => Exit::Class(class),
    };
    let causes = words::causes(error);
    let hint = hint(error);
    if voice.is_some_and(|voice| voice.json) {
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
    note(&format!("error: {}", sanitize::line(&error.to_string())));
    for cause in causes {
        note(&format!("  caused by: {}", sanitize::line(&cause)));
    }
    if let Some(hint) = hint {
        note(&format!("  next step: {}", sanitize::line(&hint)));
    }
    exit
}

/// What to do next, by variant.
fn hint(error: &CliError) -> Option<String> {
    Some(match error {
        CliError::Library(error) => return library(error),
        CliError::NoHome { option, .. } => format!("set HOME, or give {option}"),
        CliError::NoRepositoryNamed => "name it with --repo or LIFEBOAT_REPO".to_owned(),
        CliError::NoRepository { place } => no_repository(place),
        CliError::DefaultRepositoryGone { key_file, .. } => format!(
            "mount or restore the disk it lies on; or, for a new one, first move {} away",
            key_file.display()
        ),
        CliError::TwoSecrets { .. } => "keep one of them".to_owned(),
        CliError::NoSecret => {
            "give --key-file, --password-file or --password-command, or set LIFEBOAT_KEY_FILE, \
             LIFEBOAT_PASSWORD_FILE, LIFEBOAT_PASSWORD_COMMAND or LIFEBOAT_PASSWORD"
                .to_owned()
        }
        CliError::NotForInit { .. } => "give --new-key-file FILE, or a password".to_owned(),
        CliError::KeyFileExists { .. } => "choose another name, or move the file away".to_owned(),
        CliError::KeyLost { place, .. } => {
            format!("delete {place}, which nobody can open, and make it again")
        }
        CliError::StdinNotAlone => "make a backup of its own of standard input".to_owned(),
        CliError::StdinIsTerminal => "pipe into it, or use --command".to_owned(),
        CliError::NoPath => "write SNAPSHOT:/PATH".to_owned(),
        _ => return None,
    })
}

fn no_repository(place: &str) -> String {
    format!("to make one: lifeboat init --repo {}", quote(place))
}

fn library(error: &Error) -> Option<String> {
    Some(match error {
        Error::Shrunk { .. } => "if that is right, run it again with --allow-shrink".to_owned(),
        Error::NoSnapshot { .. } | Error::AmbiguousSnapshot { .. } => {
            "see what there is: lifeboat snapshots".to_owned()
        }
        Error::BadSelector { .. } => {
            "use an id or its beginning, latest, latest~2 or @2026-03-01T14:00".to_owned()
        }
        Error::NoSuchPath { .. } | Error::NotAFile { .. } => {
            "see what it holds: lifeboat ls SNAPSHOT".to_owned()
        }
        Error::Busy { .. } => "wait for it to end, or give this one another --job".to_owned(),
        Error::TargetNotEmpty { .. } => "choose an empty directory, or give --overwrite".to_owned(),
        Error::Unconfirmed { .. } => "run the backup again: what is stored is not stored twice".to_owned(),
        Error::RepositoryChanged { .. } => {
            "find out who replaced it; if you did, delete the state directory of this repository".to_owned()
        }
        _ => return None,
    })
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
    fn a_missing_repository_is_answered_with_the_command_that_makes_it() {
        let error = CliError::NoRepository { place: "/my backups".to_owned() };
        assert_eq!(hint(&error).unwrap(), "to make one: lifeboat init --repo '/my backups'");
        assert_eq!(report(&error, None, None).code(), 10);
    }

    #[test]
    fn a_stop_by_signal_exits_with_its_number() {
        let error = CliError::Library(Error::Cancelled);
        assert_eq!(report(&error, None, Some(Exit::Signal(15))).code(), 143);
        assert_eq!(report(&error, None, None).code(), 130);
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let pipe = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(report(&CliError::Output(pipe()), None, None).code(), 141);
        assert_eq!(report(&CliError::Library(Error::Output(pipe())), None, None).code(), 141);
    }
}
