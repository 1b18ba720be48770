//! `serve`: a door to a repository, for one client over standard input and output, or for many over a network. What speaks on
//! standard output prints nothing else there.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;

use lifeboat::cancel::Cancel;
use lifeboat::clock::SystemClock;
use lifeboat::event::CountingObserver;
use lifeboat::random::SystemRandom;
use lifeboat::serve::door::{DoorOptions, door};
use lifeboat::serve::listen::{Grant, Happening, ListenError, ListenOptions, TlsFiles, add_token, listen};
use lifeboat::store::{Key, StoreEnv};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::super::args::ServeArgs;
use super::super::environment::Surroundings;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::output::{self, note};
use super::super::render::{sanitize, time};
use super::super::report::{self, Context};
use super::super::{paths, signal as signals};

/// Threads that wait for the disk, whatever the number of clients.
const DISK_THREADS: usize = 64;

/// Serves, and says how to exit. It needs no repository, no secret and no home.
pub(crate) fn run(args: &ServeArgs, around: &Surroundings) -> Exit {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if args.listen.is_some() {
        builder.max_blocking_threads(DISK_THREADS);
    } else {
        builder.worker_threads(2);
    }
    let result = builder.enable_all().build();
    let runtime = match result {
        Ok(runtime) => runtime,
        Err(error) => return report::report(&CliError::Setup(error), &Context::default()),
    };
    let exit = runtime.block_on(async {
        let cancel = Cancel::new();
        // Who listens reads its files again when it is hung up.
        let heard = match args.listen {
            None => signals::listen(cancel.clone(), |_| {}),
            Some(_) => signals::listen_without_hang_up(cancel.clone(), |_| {}),
        };
        let heard = match heard {
            Ok(heard) => heard,
            Err(error) => return report::report(&CliError::Setup(error), &Context::default()),
        };
        match serve(args, around, cancel).await {
            Ok(exit) => exit,
            Err(error) => report::report(&error, &Context { stopped_by: heard.exit(), ..Context::default() }),
        }
    });
    // A thread that still waits for standard input must not keep the process alive.
    runtime.shutdown_background();
    exit
}

/// Serves until it is asked to stop, or its one client goes; or makes a token.
pub(super) async fn serve(args: &ServeArgs, around: &Surroundings, cancel: Cancel) -> Result<Exit, CliError> {
    let env = StoreEnv {
        clock: Arc::new(SystemClock::new()),
        random: Arc::new(SystemRandom),
        observer: Arc::new(CountingObserver::default()),
        cancel,
    };
    let absolute = |path: &Option<PathBuf>| {
        let path = path.as_deref().expect("the parser asks for what this way of serving needs");
        paths::absolute(path, &around.directory)
    };
    match (&args.listen, &args.new_token) {
        (Some(address), _) => {
            let cert = args.cert.as_ref().zip(args.key.as_ref());
            let options = ListenOptions {
                top: absolute(&args.root),
                address: address.0.clone(),
                tls: cert.map(|_| TlsFiles { cert: absolute(&args.cert), key: absolute(&args.key) }),
                tokens: absolute(&args.tokens),
                most: args.max_connections as usize,
                most_of_token: args.max_per_token as usize,
            };
            listen_until_stopped(&options, &env).await
        }
        (None, Some(name)) => new_token(name, args, (absolute(&args.tokens), &env)),
        (None, None) => one_client(args, (absolute(&args.root), around), &env).await,
    }
}

async fn one_client(
    args: &ServeArgs,
    (top, around): (PathBuf, &Surroundings),
    env: &StoreEnv,
) -> Result<Exit, CliError> {
    if io::stdin().is_terminal() {
        return Err(CliError::ServeAtTerminal);
    }
    let options = DoorOptions {
        top,
        prefix: args.repo_prefix.clone(),
        role: args.role.into(),
        quota: args.quota.map(|quota| quota.0),
        home: around.absolute("HOME").unwrap_or_else(|| around.directory.clone()),
    };
    // Not through the buffers of the standard library: one looks for ends of lines.
    let (input, output) = (io::stdin(), io::stdout());
    let (input, output) = (file(input.as_fd())?, file(output.as_fd())?);
    door(input, output, &options, env).await?;
    Ok(Exit::Done)
}

/// To be asked to stop is the regular end.
async fn listen_until_stopped(options: &ListenOptions, env: &StoreEnv) -> Result<Exit, CliError> {
    raise_descriptors();
    let mut hung_up = signal(SignalKind::hangup()).map_err(CliError::Setup)?;
    let again = Arc::new(Notify::new());
    let notify = Arc::clone(&again);
    tokio::spawn(async move {
        while hung_up.recv().await.is_some() {
            notify.notify_one();
        }
    });
    let clock = Arc::clone(&env.clock);
    let log = move |happening: &Happening<'_>| {
        let now = time::utc(clock.now().0 / 1_000_000_000 * 1_000_000_000);
        note(&format!("{now} {}", sanitize::line(&happening.to_string())));
    };
    listen(options, again, Arc::new(log), env).await?;
    Ok(Exit::Done)
}

/// As many as the system allows: a client takes one, and one for each object that it stores or reads at the moment.
fn raise_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // With fewer there is room for fewer clients.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// The token alone goes to standard output, so that it can be kept by a program.
fn new_token(name: &str, args: &ServeArgs, (file, env): (PathBuf, &StoreEnv)) -> Result<Exit, CliError> {
    let directory = match &args.repo_prefix {
        Some(directory) => Some(directory.clone()),
        None => Key::new(name).ok(),
    };
    let made = Grant::make((name, args.role.into()), directory, args.quota, env.random.as_ref());
    let (grant, token) = made.map_err(|error| CliError::Listen(ListenError::NewToken(error)))?;
    add_token(&file, &grant)?;
    output::line(&token)?;
    let directory = grant.directory.as_ref().map_or(".", Key::as_str);
    note(&format!("{} may come in as {}, to the directory {directory}", grant.name, grant.role));
    note(&format!(
        "the token is shown this once; {} holds its hash",
        sanitize::line(&file.display().to_string())
    ));
    Ok(Exit::Done)
}

fn file(fd: BorrowedFd<'_>) -> Result<File, CliError> {
    Ok(fd.try_clone_to_owned().map_err(CliError::Setup)?.into())
}
