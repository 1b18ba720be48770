//! `serve`: a door to a repository, for one client. It speaks on standard output, so nothing else may be printed there.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use lifeboat::cancel::Cancel;
use lifeboat::clock::SystemClock;
use lifeboat::event::CountingObserver;
use lifeboat::random::SystemRandom;
use lifeboat::serve::door::{DoorOptions, door};
use lifeboat::store::StoreEnv;

use super::super::args::ServeArgs;
use super::super::environment::Surroundings;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::report::{self, Context};
use super::super::{paths, signal};

/// Serves, and says how to exit. It needs no repository, no secret and no home.
pub(crate) fn run(args: &ServeArgs, around: &Surroundings) -> Exit {
    let result = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match result {
        Ok(runtime) => runtime,
        Err(error) => return report::report(&CliError::Setup(error), &Context::default()),
    };
    let exit = runtime.block_on(async {
        let cancel = Cancel::new();
        let signals = match signal::listen(cancel.clone(), |_| {}) {
            Ok(signals) => signals,
            Err(error) => return report::report(&CliError::Setup(error), &Context::default()),
        };
        match serve(args, around, cancel).await {
            Ok(exit) => exit,
            Err(error) => {
                report::report(&error, &Context { stopped_by: signals.exit(), ..Context::default() })
            }
        }
    });
    // A thread that still waits for standard input must not keep the process alive.
    runtime.shutdown_background();
    exit
}

/// Serves one client until it goes.
pub(super) async fn serve(args: &ServeArgs, around: &Surroundings, cancel: Cancel) -> Result<Exit, CliError> {
    if io::stdin().is_terminal() {
        return Err(CliError::ServeAtTerminal);
    }
    let env = StoreEnv {
        clock: Arc::new(SystemClock::new()),
        random: Arc::new(SystemRandom),
        observer: Arc::new(CountingObserver::default()),
        cancel,
    };
    let options = DoorOptions {
        top: paths::absolute(&args.root, &around.directory),
        prefix: args.repo_prefix.clone(),
        role: args.role.into(),
        quota: args.quota.map(|quota| quota.0),
        home: around.absolute("HOME").unwrap_or_else(|| around.directory.clone()),
    };
    // Not through the buffers of the standard library: one looks for ends of lines.
    let (input, output) = (io::stdin(), io::stdout());
    let (input, output) = (file(input.as_fd())?, file(output.as_fd())?);
    door(input, output, &options, &env).await?;
    Ok(Exit::Done)
}

fn file(fd: BorrowedFd<'_>) -> Result<File, CliError> {
    Ok(fd.try_clone_to_owned().map_err(CliError::Setup)?.into())
}
