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

use super::super::args::duration;
use super::super::config::Section;
use super::super::environment::Surroundings;
use super::super::error::CliError;

/// How long a command that was asked to end may take for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a command that takes down what was set up may go on when the run is to stop. systemd waits for longer than for two.
const TAKING_DOWN: Duration = Duration::from_secs(60);
/// How long any command may take, if the configuration says nothing else.
const LONGEST: Duration = Duration::from_secs(3600);
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

/// Runs the commands in turn, until one fails or takes longer than the hooks may. A raised `cancel` ends the one of `before` that
/// is at work; the others go on for a while, because what was set up has to be taken down.
pub(crate) async fn run(
    hook: Hook,
    hooks: &Section,
    (around, variables): (&Surroundings, &[(&str, String)]),
    cancel: &Cancel,
) -> Result<(), CliError> {
    let limit = hooks.text("timeout").and_then(|text| duration(text).ok()).unwrap_or(LONGEST);
    let stopping = if hook == Hook::Before { Duration::ZERO } else { TAKING_DOWN };
    let commands = hooks.list(hook.name());
    for command in &commands {
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
        let (status, late) = wait(child, (limit, stopping), cancel).await.map_err(failed)?;
        if hook == Hook::Before && cancel.is_raised() {
            return Err(CliError::Library(lifeboat::error::Error::Cancelled));
        }
        if late {
            return Err(CliError::HookTime { hook: hook.name(), limit });
        }
        if !status.success() {
            return Err(CliError::Hook { hook: hook.name(), status });
        }
    }
    Ok(())
}

/// Waits until it has ended, asks it to end when it took longer than `limit`, or longer than `stopping` after a raised `cancel`,
/// and ends it if it does not. Says whether it went over the limit.
async fn wait(
    mut child: Child,
    (limit, stopping): (Duration, Duration),
    cancel: &Cancel,
) -> std::io::Result<(ExitStatus, bool)> {
    let group = Pid::from_child(&child);
    let mut ran = Duration::ZERO;
    let mut stopped: Option<Duration> = None;
    let mut asked: Option<Duration> = None;
    let mut late = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, late));
        }
        stopped = stopped.map(|time| time + STEP).or(cancel.is_raised().then_some(Duration::ZERO));
        let over = ran >= limit;
        asked = match asked {
            None if over || stopped.is_some_and(|time| time >= stopping) => {
                late = over;
                // One that is gone has nothing to end.
                let _ = kill_process_group(group, Signal::TERM);
                Some(Duration::ZERO)
            }
            Some(waited) if waited >= PATIENCE => {
                let _ = kill_process_group(group, Signal::KILL);
                return Ok((child.wait()?, late));
            }
            waited => waited.map(|waited| waited + STEP),
        };
        ran += STEP;
        tokio::time::sleep(STEP).await;
    }
}
