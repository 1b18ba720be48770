//! Commands around a job.
//!
//! # Invariants
//! A hook gets nothing on standard input, writes to standard error, and sees no secret of this program or of a cloud in its
//! environment. Its process group is its own: a signal for this run reaches it only as a request to end, from here.

use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use lifeboat::cancel::Cancel;
use rustix::process::{Pid, Signal, kill_process_group};

use super::super::environment::Surroundings;
use super::super::error::CliError;

/// How long a command that was asked to end may take for it.
const PATIENCE: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(20);

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Before,
    After,
    Failed,
    Always,
}

impl Hook {
    /// Its key in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::Failed => "failed",
            Self::Always => "always",
        }
    }
}

/// Runs the commands in turn, until one fails. A raised `cancel` ends the one at work; without one nothing does, because what
/// was set up has to be taken down.
pub(crate) async fn run(
    hook: Hook,
    commands: &[String],
    (around, variables): (&Surroundings, &[(&str, String)]),
    cancel: Option<&Cancel>,
) -> Result<(), CliError> {
    for command in commands {
        let failed = |source| CliError::HookStart { hook: hook.name(), source };
        let errors = std::io::stderr().as_fd().try_clone_to_owned().map_err(failed)?;
        let child = Command::new("/bin/sh")
            .arg("-c")
            .arg(command)
            .env_clear()
            .envs(around.without_secrets())
            .envs(variables.iter().map(|(name, value)| (*name, value.as_str())))
            .env("LIFEBOAT_HOOK", hook.name())
            .stdin(Stdio::null())
            .stdout(Stdio::from(errors))
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let status = wait(child, cancel).await.map_err(failed)?;
        if cancel.is_some_and(Cancel::is_raised) {
            return Err(CliError::Library(lifeboat::error::Error::Cancelled));
        }
        if !status.success() {
            return Err(CliError::Hook { hook: hook.name(), status });
        }
    }
    Ok(())
}

async fn wait(mut child: Child, cancel: Option<&Cancel>) -> std::io::Result<ExitStatus> {
    let group = Pid::from_child(&child);
    let mut asked: Option<Duration> = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        asked = match (asked, cancel.is_some_and(Cancel::is_raised)) {
            (None, true) => {
                // One that is gone has nothing to end.
                let _ = kill_process_group(group, Signal::TERM);
                Some(Duration::ZERO)
            }
            (Some(waited), _) if waited >= PATIENCE => {
                let _ = kill_process_group(group, Signal::KILL);
                return child.wait();
            }
            (Some(waited), _) => Some(waited + STEP),
            (None, false) => None,
        };
        tokio::time::sleep(STEP).await;
    }
}
