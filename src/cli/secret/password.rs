//! Passwords from files, commands, the environment and people.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat::cancel::Cancel;
use lifeboat::error::Error;
use zeroize::Zeroizing;

use super::super::error::CliError;
use super::read_secret_file;

pub(super) fn read_file(path: &Path, warn: &dyn Fn(&str)) -> Result<Zeroizing<String>, CliError> {
    check(read_secret_file(path, warn)?, &path.display().to_string())
}

/// Runs the command by the shell. Its standard input is empty, because ours may be what is to be saved.
pub(super) fn run_command(command: &OsStr) -> Result<Zeroizing<String>, CliError> {
    let output = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(CliError::PasswordCommandStart)?;
    if !output.status.success() {
        return Err(CliError::PasswordCommand { status: output.status });
    }
    check(Zeroizing::new(output.stdout), "the password command")
}

/// Takes one trailing newline off and refuses what cannot be a password.
pub(super) fn check(bytes: Zeroizing<Vec<u8>>, origin: &str) -> Result<Zeroizing<String>, CliError> {
    let bad = |fault| CliError::BadPassword { origin: origin.to_owned(), fault };
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = if line.len() < bytes.len() { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
    if line.is_empty() {
        return Err(bad("is empty"));
    }
    if line.contains(&0) {
        return Err(bad("contains a zero byte"));
    }
    match std::str::from_utf8(line) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(bad("is not UTF-8")),
    }
}

/// Whether somebody sits there who can be asked.
pub(crate) fn is_person() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a person. A signal ends the question at once, and gives the terminal back as it was.
async fn prompt(text: String, cancel: &Cancel) -> Result<Zeroizing<String>, CliError> {
    let stdin = io::stdin();
    if !is_person() {
        return Err(CliError::NoSecret);
    }
    let before = rustix::termios::tcgetattr(&stdin).map_err(|error| CliError::Prompt(error.into()))?;
    let question = tokio::task::spawn_blocking(move || rpassword::prompt_password(text));
    let answer = tokio::select! {
        answer = question => answer.map_err(|_| CliError::Prompt(io::ErrorKind::Other.into()))?,
        () = raised(cancel) => {
            // Nothing can be done about a terminal that went away.
            let _ = rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Now, &before);
            return Err(CliError::Library(Error::Cancelled));
        }
    };
    let typed = answer.map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => CliError::Library(Error::Cancelled),
        _ => CliError::Prompt(error),
    })?;
    check(Zeroizing::new(typed.into_bytes()), "the prompt")
}

/// Asks a person for something that may be seen while it is typed, and gives the line.
pub(super) async fn ask_line(question: &str, cancel: &Cancel) -> Result<Zeroizing<String>, CliError> {
    let mut line = question.to_owned();
    line.push('\n');
    io::stderr().write_all(line.as_bytes()).map_err(CliError::Prompt)?;
    let answer = tokio::task::spawn_blocking(|| {
        let mut typed = Zeroizing::new(String::with_capacity(1024));
        io::stdin().read_line(&mut typed).map(|_| typed)
    });
    tokio::select! {
        answer = answer => match answer {
            Ok(typed) => typed.map_err(CliError::Prompt),
            Err(_) => Err(CliError::Prompt(io::ErrorKind::Other.into())),
        },
        () = raised(cancel) => Err(CliError::Library(Error::Cancelled)),
    }
}

async fn raised(cancel: &Cancel) {
    while !cancel.is_raised() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(super) async fn ask(name: &str, cancel: &Cancel) -> Result<Zeroizing<String>, CliError> {
    prompt(format!("password of {name}: "), cancel).await
}

/// Asks for a new password of what a question calls by `name`.
pub(super) async fn ask_twice(name: &str, cancel: &Cancel) -> Result<Zeroizing<String>, CliError> {
    let first = prompt(format!("password of {name}: "), cancel).await?;
    let second = prompt("the same again: ".to_owned(), cancel).await?;
    if *first == *second { Ok(first) } else { Err(CliError::PasswordsDiffer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(bytes: &[u8]) -> Result<String, String> {
        check(Zeroizing::new(bytes.to_vec()), "a test").map(|p| p.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn exactly_one_newline_is_taken_off() {
        for (bytes, password) in [
            (&b"secret"[..], "secret"),
            (b"secret\n", "secret"),
            (b"secret\r\n", "secret"),
            (b"secret\n\n", "secret\n"),
            (b"secret\r", "secret\r"),
            (b" secret ", " secret "),
        ] {
            assert_eq!(checked(bytes).as_deref(), Ok(password));
        }
    }

    #[test]
    fn what_cannot_be_a_password_is_refused_without_repeating_it() {
        for (bytes, fault) in [
            (&b""[..], "empty"),
            (b"\n", "empty"),
            (b"hunter2\0", "zero byte"),
            (b"\xff\xfeh\0u\0", "zero byte"),
            (b"hunter2\xff", "UTF-8"),
        ] {
            let error = checked(bytes).unwrap_err();
            assert!(error.contains(fault) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_command_gives_a_password_or_fails() {
        assert_eq!(*run_command(OsStr::new("echo secret; cat")).unwrap(), "secret");
        assert!(matches!(run_command(OsStr::new("echo x; exit 3")), Err(CliError::PasswordCommand { .. })));
        assert!(matches!(run_command(OsStr::new("true")), Err(CliError::BadPassword { .. })));
    }
}
