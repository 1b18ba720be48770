//! Commands around a job.
//!
//! # Invariants
//! A hook gets nothing on standard input, writes to standard error, and sees no secret of this program or of a cloud in its
//! environment. Its process group is its own: a signal for this run reaches it only as a request to end, from here, or, if this run
//! ends at once, as its end.

use std::io;
use std::os::fd::AsFd;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use lifeboat::cancel::Cancel;
use lifeboat::source::stream::Group;

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
        let errors = io::stderr().as_fd().try_clone_to_owned().map_err(failed)?;
        let mut shell = Command::new("/bin/sh");
        shell
            .arg("-c")
            .arg(command)
            .env_clear()
            .envs(around.without_secrets())
            .envs(variables.iter().map(|(name, value)| (*name, value.as_str())))
            .env("LIFEBOAT_HOOK", hook.name())
            .stdin(Stdio::null())
            .stdout(Stdio::from(errors));
        let group = Group::start(&mut shell).map_err(failed)?;
        let (status, late) = wait(group, (limit, stopping), cancel).await.map_err(failed)?;
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

/// Waits until the command has ended, or ends all of it when it took longer than `limit`, or longer than `stopping` after a raised
/// `cancel`. Says whether it went over the limit. What a command started that ended by itself is no concern of ours.
async fn wait(
    mut group: Group,
    (limit, stopping): (Duration, Duration),
    cancel: &Cancel,
) -> io::Result<(ExitStatus, bool)> {
    let mut ran = Duration::ZERO;
    let mut stopped: Option<Duration> = None;
    while !group.has_ended()? {
        stopped = stopped.map(|time| time + STEP).or(cancel.is_raised().then_some(Duration::ZERO));
        let late = ran >= limit;
        if late || stopped.is_some_and(|time| time >= stopping) {
            return Ok((end(group, PATIENCE).await?, late));
        }
        ran += STEP;
        tokio::time::sleep(STEP).await;
    }
    Ok((group.wait()?, false))
}

/// Asks all of it to end, and kills what is left after a while: a shell ends before what it started does.
async fn end(mut group: Group, patience: Duration) -> io::Result<ExitStatus> {
    let ended = tokio::task::spawn_blocking(move || {
        group.tell_to_end();
        group.wait_until_empty(patience);
        group.kill();
        group.wait()
    });
    ended.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Whether a process has ended; a zombie that nobody waits for has.
    fn is_gone(pid: &str) -> bool {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z"))
    }

    #[tokio::test]
    async fn what_a_shell_started_has_time_to_end_and_is_killed_if_it_does_not() {
        let temp = tempfile::tempdir().unwrap();
        let (on, tidy) = (temp.path().join("on"), temp.path().join("tidy"));
        for (trap, patience, is_tidy) in [
            (format!("sleep 0.3; echo >{}; exit", tidy.display()), PATIENCE, true),
            (String::new(), Duration::from_millis(200), false),
        ] {
            // The shell itself ends at once.
            let script = format!(
                "sh -c 'trap \"{trap}\" TERM; echo $$ >{0}.new; mv {0}.new {0}; while :; do sleep 0.05; done' & wait",
                on.display()
            );
            let group = Group::start(Command::new("/bin/sh").args(["-c", &script])).unwrap();
            while !on.exists() {
                tokio::time::sleep(STEP).await;
            }
            let left = fs::read_to_string(&on).unwrap().trim().to_owned();
            fs::remove_file(&on).unwrap();
            assert!(!end(group, patience).await.unwrap().success());
            assert_eq!(fs::remove_file(&tidy).is_ok(), is_tidy, "{trap}");
            let mut looks = 0..1000;
            while !is_gone(&left) {
                looks.next().expect("it goes with its group");
                tokio::time::sleep(STEP).await;
            }
        }
    }
}
