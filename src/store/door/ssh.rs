//! Connections by the system's `ssh`: a program that is there, is configured, and knows the user's keys and hosts.
//!
//! # Invariants
//! Nothing of an address is taken for an option or by a shell. The program is ended with the connection, and ends by itself
//! when this process is gone, because its standard input ends then.

use std::io::Read;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::error::{DoorError, said};
use super::line::{Connect, Far, Wires};

/// Where an address points to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::store) struct Host {
    pub(in crate::store) user: Option<String>,
    /// A name or an address, one of IPv6 without brackets.
    pub(in crate::store) name: String,
    pub(in crate::store) port: Option<u16>,
    /// The directory; empty if that is left to the other side.
    pub(in crate::store) path: String,
}

/// Ctrl-C goes to every program at the terminal, and must not cut what is in flight: lifeboat ends its `ssh` itself. Signals
/// that are ignored stay so, and `ssh` honours that, but for the time in which it asks for a password.
const START: &str = r#"trap '' HUP INT QUIT; command -v "$1" >/dev/null 2>&1 || exit 121; exec "$@""#;
const NO_COMMAND: i32 = 121;
/// What a shell answers when it does not find a program.
const NO_PROGRAM: i32 = 127;
/// What `ssh` answers when it is `ssh` itself that failed.
const SSH_FAILED: i32 = 255;
/// Bytes of what a program says on standard error that are kept: the last ones say why it ended.
const KEPT: usize = 4096;
/// How often, and after which pauses, it is looked whether a program has ended.
const ENDING: u32 = 200;
const PARK: Duration = Duration::from_millis(10);
/// How long a program that has closed its output may take to end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Words of `ssh` for a connection that will not be better the next time.
const REFUSED: [&str; 6] = [
    "Permission denied",
    "Host key verification failed",
    "REMOTE HOST IDENTIFICATION HAS CHANGED",
    "No supported authentication methods",
    "Too many authentication failures",
    "no matching host key",
];
/// Words of `ssh` for what is wrong with how it was called.
const MISTAKEN: [&str; 4] =
    ["Bad configuration option", "command-line line", "Bad owner or permissions", "usage: ssh"];

/// Makes connections with `ssh`.
pub(in crate::store) struct Ssh {
    words: Vec<String>,
    asks: bool,
}

impl Ssh {
    /// A connection to lifeboat there. `command` is the program and its first arguments; `program` is what it is to run on
    /// the other machine; `asks` if there is a terminal to ask for a password at.
    pub(in crate::store) fn new(host: &Host, command: &str, program: &str, asks: bool) -> Self {
        Self::with((host, command, asks), &[], &remote(program, &host.path))
    }

    /// A connection to a subsystem of the server, otherwise as [`Ssh::new`].
    pub(in crate::store) fn subsystem(host: &Host, command: &str, name: &str, asks: bool) -> Self {
        Self::with((host, command, asks), &["-s"], name)
    }

    fn with((host, command, asks): (&Host, &str, bool), options: &[&str], what: &str) -> Self {
        let mut words: Vec<String> = command.split_ascii_whitespace().map(str::to_owned).collect();
        let mut add = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
        add(&[
            "-T",
            "-o",
            "ServerAliveInterval=15",
            "-o",
            "ServerAliveCountMax=4",
            "-o",
            "ConnectTimeout=20",
        ]);
        if !asks {
            add(&["-o", "BatchMode=yes"]);
        }
        if let Some(port) = host.port {
            add(&["-p", &port.to_string()]);
        }
        if let Some(user) = &host.user {
            add(&["-l", user]);
        }
        add(options);
        add(&["--", &host.name, what]);
        Self { words, asks }
    }
}

/// What the other machine's shell is to run. A forced command takes its place.
fn remote(program: &str, path: &str) -> String {
    let path = path.strip_prefix("/~/").unwrap_or(path);
    let root = if path.is_empty() { String::new() } else { format!(" --root={}", quote(path)) };
    format!("{} serve --stdio --role=admin{root}", quote(program))
}

/// A word for a POSIX shell.
fn quote(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
    if word.bytes().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

impl Connect for Ssh {
    fn connect(&self) -> Result<Wires, DoorError> {
        let failed = |error: std::io::Error| DoorError::NoCommand {
            command: self.words.first().cloned().unwrap_or_default(),
            error: error.to_string(),
        };
        let mut child = Command::new("/bin/sh")
            .args(["-c", START, "sh"])
            .args(&self.words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (input, output, errors) = (child.stdout.take(), child.stdin.take(), child.stderr.take());
        let heard = Heard::default();
        let (tell, ended) = channel();
        let program = Program {
            command: self.words.first().cloned().unwrap_or_default(),
            child: Mutex::new(child),
            heard: heard.clone(),
            ended: Mutex::new(ended),
        };
        let (Some(input), Some(output), Some(errors)) = (input, output, errors) else {
            program.stop();
            return Err(failed(std::io::ErrorKind::BrokenPipe.into()));
        };
        let listen = move || {
            heard.listen(errors);
            // Nobody waits for it any more, perhaps.
            let _ = tell.send(());
        };
        let name = "ssh errors".to_owned();
        if let Err(error) = std::thread::Builder::new().name(name).spawn(listen) {
            program.stop();
            return Err(failed(error));
        }
        Ok(Wires { input: Box::new(input), output: Box::new(output), far: Arc::new(program) })
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(if self.asks { 600 } else { 120 })
    }
}

/// The end of what a program said.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Heard {
    fn listen(&self, mut errors: ChildStderr) {
        let mut piece = [0; KEPT];
        while let Ok(count @ 1..) = errors.read(&mut piece) {
            let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            heard.extend_from_slice(&piece[..count]);
            let more = heard.len().saturating_sub(KEPT);
            heard.drain(..more);
        }
    }

    fn text(&self) -> String {
        said(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A running `ssh`.
struct Program {
    command: String,
    child: Mutex<Child>,
    heard: Heard,
    /// Told when it has closed its standard error, which it does when it ends.
    ended: Mutex<Receiver<()>>,
}

impl Program {
    fn end(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        match child.try_wait() {
            Ok(Some(status)) => Some(status),
            _ => {
                // It may have ended in this moment.
                let _ = child.kill();
                child.wait().ok()
            }
        }
    }
}

impl Far for Program {
    fn why(&self) -> DoorError {
        // Its last words are waited for, not for long.
        let _ = self.ended.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(LAST_WORDS);
        // It has closed everything and is about to end; one that does not is ended.
        for _ in 0..ENDING {
            let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
            if matches!(child.try_wait(), Ok(Some(_))) {
                break;
            }
            drop(child);
            std::thread::park_timeout(PARK);
        }
        why(&self.command, self.end().and_then(|status| status.code()), self.heard.text())
    }

    fn stop(&self) {
        self.end();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

fn why(command: &str, code: Option<i32>, said: String) -> DoorError {
    let has = |words: &[&str]| words.iter().any(|words| said.contains(words));
    match code {
        Some(NO_COMMAND) if said.is_empty() => {
            DoorError::NoCommand { command: command.to_owned(), error: "no such program".to_owned() }
        }
        Some(NO_PROGRAM) => DoorError::NoProgram { said },
        Some(SSH_FAILED) if has(&MISTAKEN) => DoorError::Ended { said },
        Some(SSH_FAILED) if has(&REFUSED) => DoorError::Refused { said },
        Some(SSH_FAILED) | None => DoorError::Lost { said },
        Some(_) => DoorError::Ended { said },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(path: &str) -> Host {
        Host { user: Some("ann".into()), name: "::1".into(), port: Some(2222), path: path.into() }
    }

    #[test]
    fn nothing_of_an_address_is_an_option_or_meant_for_a_shell() {
        let ssh = Ssh::new(&host("/srv/it's; rm -rf $HOME"), "ssh -F none", "lifeboat", false);
        let line = ssh.words.join(" ");
        assert!(line.starts_with("ssh -F none -T "), "{line}");
        assert!(line.contains(" -o BatchMode=yes -p 2222 -l ann -- ::1 "), "{line}");
        let wanted = r"lifeboat serve --stdio --role=admin --root='/srv/it'\''s; rm -rf $HOME'";
        assert_eq!(ssh.words.last().unwrap(), wanted);
        assert_eq!(remote("lifeboat", "/~/-x"), "lifeboat serve --stdio --role=admin --root=-x");
        assert_eq!(remote("lifeboat", ""), "lifeboat serve --stdio --role=admin");
        assert!(!Ssh::new(&host(""), "ssh", "lifeboat", true).words.join(" ").contains("BatchMode"));
        let line = Ssh::subsystem(&host("/srv"), "ssh", "sftp", false).words.join(" ");
        assert!(line.ends_with(" -l ann -s -- ::1 sftp"), "{line}");
    }

    #[test]
    fn what_ssh_says_tells_what_will_not_be_better_the_next_time() {
        let of = |code, said: &str| why("ssh", code, said.to_owned());
        for refused in [
            "ann@host: Permission denied (publickey).",
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @; Host key verification failed.",
        ] {
            assert!(matches!(of(Some(255), refused), DoorError::Refused { .. }), "{refused}");
        }
        for passing in ["ssh: connect to host x port 22: Connection refused", "", "Connection reset by peer"]
        {
            assert!(matches!(of(Some(255), passing), DoorError::Lost { .. }), "{passing}");
        }
        assert!(matches!(of(None, ""), DoorError::Lost { .. }));
        assert!(matches!(of(Some(127), "sh: lifeboat: not found"), DoorError::NoProgram { .. }));
        assert!(matches!(of(Some(255), "command-line line 0: Bad"), DoorError::Ended { .. }));
        assert!(matches!(of(Some(2), "error: unrecognized subcommand 'serve'"), DoorError::Ended { .. }));
        assert!(matches!(of(Some(121), ""), DoorError::NoCommand { .. }));
    }

    #[test]
    fn a_program_that_is_not_there_is_named_and_one_that_runs_is_stopped() {
        let why = |command: &str| {
            let mut wires = Ssh::new(&host(""), command, "lifeboat", false).connect().unwrap();
            let mut said = Vec::new();
            wires.input.read_to_end(&mut said).unwrap();
            wires.far.why()
        };
        let error = why("/nonexistent/ssh");
        assert!(
            matches!(&error, DoorError::NoCommand { command, .. } if command == "/nonexistent/ssh"),
            "{error}"
        );
        assert!(matches!(why("false"), DoorError::Ended { .. }));
        // Whatever its arguments are, it waits for input.
        let wires = Ssh::new(&host(""), "sh -s --", "lifeboat", false).connect().unwrap();
        wires.far.stop();
        assert!(matches!(wires.far.why(), DoorError::Lost { .. }), "ended by a signal");
    }
}
