//! The shell for a command in one text: one in which a pipe fails if any part of it does.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::error::{CommandEnd, SourceError};

/// Where a shell may be, best first; the first is the one that every system has.
const SHELLS: [&str; 3] = ["/bin/sh", "/bin/bash", "/usr/bin/bash"];

/// A shell that was tried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shell {
    program: PathBuf,
    /// It knows that a pipe fails with its first part.
    tells: bool,
}

impl Shell {
    /// Finds one, best a shell that fails with any part of a pipe. It is tried out without the variables that are `withheld`.
    ///
    /// # Errors
    /// [`SourceError::CommandStart`] and [`SourceError::CommandFailed`] if a shell that is there could not be tried out.
    pub fn find(withheld: &[OsString]) -> Result<Self, SourceError> {
        Self::among(&SHELLS, withheld)
    }

    fn among(shells: &[&str], withheld: &[OsString]) -> Result<Self, SourceError> {
        for program in shells.iter().map(Path::new) {
            if knows_pipefail(program, withheld)? {
                return Ok(Self { program: program.to_owned(), tells: true });
            }
        }
        Ok(Self { program: shells.first().map(PathBuf::from).unwrap_or_default(), tells: false })
    }

    /// The program and its arguments for a command.
    ///
    /// # Errors
    /// [`SourceError::NoPipefail`] if the command has a pipe, and the shell does not tell whether its first part fails.
    pub fn command(&self, text: &OsStr) -> Result<(&Path, Vec<OsString>), SourceError> {
        if !self.tells && has_pipe(text.as_bytes()) {
            return Err(SourceError::NoPipefail { program: self.program.clone() });
        }
        let option: &[&str] = if self.tells { &["-o", "pipefail"] } else { &[] };
        let args = option.iter().chain(&["-c"]).map(OsString::from).chain([text.to_owned()]);
        Ok((&self.program, args.collect()))
    }
}

/// Whether there may be a pipe: a bar that is not one of two. One in quotes counts, too; that it is none only a shell knows.
fn has_pipe(text: &[u8]) -> bool {
    text.chunk_by(|a, b| a == b).any(|run| run[0] == b'|' && run.len() != 2)
}

/// A shell that ends with a code of its own does not know the option; one that is not there is none.
fn knows_pipefail(shell: &Path, withheld: &[OsString]) -> Result<bool, SourceError> {
    let mut probe = Command::new(shell);
    probe.args(["-o", "pipefail", "-c", ":"]).process_group(0);
    probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    for name in withheld {
        probe.env_remove(name);
    }
    let program = || shell.to_owned();
    match probe.status() {
        Ok(status) if status.success() => Ok(true),
        Ok(status) if status.code().is_some() => Ok(false),
        Ok(status) => {
            let signal = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0);
            let (end, stderr) = (CommandEnd::Signal(signal), String::new());
            Err(SourceError::CommandFailed { program: program(), end, stderr })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(SourceError::CommandStart { program: program(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_pipe_fails_with_any_part_of_it_where_a_shell_can_tell() {
        let shell = Shell::find(&[]).unwrap();
        for (script, whole) in [("false | cat", false), ("true | cat", true), ("cat </dev/null | cat", true)]
        {
            let (program, args) = shell.command(OsStr::new(script)).expect("bash, at least");
            assert_eq!(Command::new(program).args(args).status().unwrap().success(), whole, "{script}");
        }
    }

    #[test]
    fn a_pipe_is_refused_where_no_shell_can_tell() {
        let none = Shell::among(&["/bin/false", "/no/such"], &[]).unwrap();
        for text in ["a | b", "a|b", "a |& b", "a || b | c", "a >| b", "echo '|'", "a ||| b"] {
            let refused = none.command(OsStr::new(text));
            assert!(matches!(refused, Err(SourceError::NoPipefail { .. })), "{text}: {refused:?}");
        }
        for text in ["a", "a || b", "a && b || c"] {
            let (program, args) = none.command(OsStr::new(text)).unwrap();
            assert_eq!((program, &args[..]), (Path::new("/bin/false"), &["-c".into(), text.into()][..]));
        }
    }

    #[test]
    fn a_shell_that_cannot_be_tried_out_is_not_one_that_does_not_know() {
        let temp = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str, mode| {
            let path = temp.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let locked = put("locked", "#!/bin/sh\n", 0o600);
        let killed = put("killed", "#!/bin/sh\nkill -9 $$\n", 0o755);
        let good = put("good", "#!/bin/sh\ntrue\n", 0o755);
        let error = Shell::among(&[&locked, &good], &[]).unwrap_err();
        assert!(matches!(error, SourceError::CommandStart { .. }), "{error}");
        let error = Shell::among(&[&killed, &good], &[]).unwrap_err();
        assert!(matches!(error, SourceError::CommandFailed { .. }), "{error}");
        let found = Shell::among(&["/no/such", "/bin/false", &good], &[]).unwrap();
        assert_eq!((found.program.to_str(), found.tells), (Some(&good[..]), true));
    }
}
