//! Where the token for a server comes from. It is got anew for each connection, so that a new one can take its place.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use super::error::DoorError;

/// Most bytes of a token.
const MOST: usize = 512;

/// Where a token comes from.
#[derive(Clone)]
pub(in crate::store) enum Token {
    /// The first line of a file.
    File(PathBuf),
    /// The first line that a command prints, which a shell runs.
    Command(String),
    /// The token itself.
    Given(Zeroizing<String>),
}

impl Token {
    /// Gets it. May take as long as a command takes.
    pub(super) fn get(&self) -> Result<Zeroizing<String>, DoorError> {
        let failed = |what: String| DoorError::Token { what };
        match self {
            Self::Given(token) => check(token.as_bytes()).map_err(failed),
            Self::File(path) => {
                let of = |what: &dyn std::fmt::Display| failed(format!("{}: {what}", path.display()));
                let mut bytes = Zeroizing::new(Vec::with_capacity(2 * MOST));
                let file = std::fs::File::open(path).map_err(|error| of(&error))?;
                file.take(2 * MOST as u64 - 1).read_to_end(&mut bytes).map_err(|error| of(&error))?;
                check(&bytes).map_err(|what| of(&what))
            }
            Self::Command(command) => {
                let output = Command::new("/bin/sh")
                    .args(["-c", command])
                    .stdin(Stdio::null())
                    .stderr(Stdio::inherit())
                    .output()
                    .map_err(|error| failed(format!("its command cannot be run: {error}")))?;
                if !output.status.success() {
                    return Err(failed(format!("its command failed ({})", output.status)));
                }
                check(&Zeroizing::new(output.stdout)).map_err(failed)
            }
        }
    }
}

/// What may stand in a header, and in nothing else than a token.
fn check(bytes: &[u8]) -> Result<Zeroizing<String>, String> {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or(b"").trim_ascii();
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(b);
    match std::str::from_utf8(line) {
        _ if line.is_empty() => Err("it is empty".to_owned()),
        Ok(text) if line.len() <= MOST && line.iter().all(allowed) => Ok(Zeroizing::new(text.to_owned())),
        _ => Err("what is there is no token".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line_that_may_stand_in_a_header_and_is_never_repeated() {
        assert_eq!(check(b" lbt_1\r\nmore\n").unwrap().as_str(), "lbt_1");
        let long = "x".repeat(MOST + 1);
        for bad in [
            &b""[..],
            b"\n",
            b"secret\r\nX: y",
            b"secret x",
            b"secret\0",
            "secr\u{e9}t".as_bytes(),
            long.as_bytes(),
        ] {
            if let Err(what) = check(bad) {
                assert!(!what.contains("secr"), "{what}");
            } else {
                assert!(bad.starts_with(b"secret\r\n"), "what comes after the line does not count");
            }
        }
    }

    #[test]
    fn a_file_and_a_command_are_asked_each_time() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("token");
        let token = Token::File(path.clone());
        assert!(token.get().unwrap_err().to_string().contains("token"));
        for text in ["one\n", "two\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(token.get().unwrap().as_str(), text.trim());
            let command = Token::Command(format!("cat {}", path.display()));
            assert_eq!(command.get().unwrap().as_str(), text.trim());
        }
        assert!(Token::Command("exit 3".to_owned()).get().unwrap_err().to_string().contains('3'));
    }
}
