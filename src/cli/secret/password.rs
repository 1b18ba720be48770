//! Passwords from files, commands, the environment and people.

use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::{Command, Stdio};

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

fn prompt(text: &str) -> Result<Zeroizing<String>, CliError> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(CliError::NoSecret);
    }
    let typed = rpassword::prompt_password(text).map_err(CliError::Prompt)?;
    check(Zeroizing::new(typed.into_bytes()), "the prompt")
}

pub(super) fn ask() -> Result<Zeroizing<String>, CliError> {
    prompt("password of the repository: ")
}

pub(super) fn ask_twice() -> Result<Zeroizing<String>, CliError> {
    let first = prompt("password of the new repository: ")?;
    if *first == *prompt("the same again: ")? { Ok(first) } else { Err(CliError::PasswordsDiffer) }
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
