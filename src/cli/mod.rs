//! The command line: the only room that prints, asks, reads the environment and installs signals.
//!
//! `args` is what was typed; `config` the file of repositories and jobs; `settings` makes decisions of it; `session` is one run; `command` has a file for each verb;
//! `observe` shows a run while it goes on; `render` turns values into text; `report` writes errors; `exit` has the codes, and
//! `guard` those of a verb that a database server runs.
//!
//! # Invariants
//! * Results go to standard output, everything else to standard error.
//! * Nothing is asked unless standard input and standard error are terminals.
//! * Text from outside (names, messages of stores) is escaped before it reaches a terminal.
//!
//! # Must not
//! Do anything slow before the arguments are parsed: `--help` needs no runtime and no file.

mod args;
mod command;
mod config;
mod environment;
mod error;
mod exit;
mod filter;
mod guard;
mod jobs;
mod observe;
mod output;
mod paths;
mod places;
mod render;
mod report;
mod secret;
mod session;
mod settings;
mod signal;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, GlobalArgs, RunArgs, Verb};
use environment::Surroundings;
use error::CliError;
use exit::Exit;
use guard::{End, Guard};
use jobs::Held;
use report::Context;
use session::Session;
use settings::Settings;

/// Runs the program.
pub(crate) fn run() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // Before anything else can end the program in another way.
    guard::run(Guard::of(&arguments), || with(arguments)).into()
}

fn with(arguments: Vec<OsString>) -> End {
    let mut cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to tell if help cannot be printed.
            let _ = error.print();
            return End::Arguments(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let Verb::Postgres(args) = &cli.verb {
        cli.global.retry_for = cli.global.retry_for.or(args.patience());
    }
    End::Ran(match cli.verb {
        Verb::Completions(args) => plain(command::completions::run(&args)),
        Verb::Man(args) => plain(command::man::run(&args)),
        Verb::Config(args) => command::config::run(&args, &cli.global, &Surroundings::of_process()),
        Verb::Schedule(args) => command::schedule::run(&args, &cli.global, &Surroundings::of_process()),
        Verb::Run(args) => run_jobs(args, &cli.global),
        Verb::Serve(args) => command::serve::run(&args, &Surroundings::of_process()),
        verb => {
            let around = Surroundings::of_process();
            match Settings::decide(&cli.global, &around) {
                Ok(settings) => session(settings, &around, verb),
                Err(error) => {
                    if matches!(verb, Verb::Status(_)) {
                        command::status::tell_late(&cli.global, &around);
                    }
                    report::report(&error, &Context { json: cli.global.json, ..Context::default() })
                }
            }
        }
    })
}

fn plain(result: Result<Exit, CliError>) -> Exit {
    result.unwrap_or_else(|error| report::report(&error, &Context::default()))
}

/// Runs jobs of the configuration, and holds the log back if that is wanted.
fn run_jobs(args: RunArgs, global: &GlobalArgs) -> Exit {
    let around = Surroundings::of_process();
    let fail = |error: &CliError| report::report(error, &Context { json: global.json, ..Context::default() });
    let held = match args.quiet_unless_error.then(Held::begin).transpose() {
        Ok(held) => held,
        Err(error) => return fail(&CliError::Setup(error)),
    };
    let exit = match Settings::for_jobs(global, &around) {
        Ok(settings) => session(settings, &around, Verb::Run(args)),
        Err(error) => fail(&error),
    };
    if let Some(held) = held {
        held.end(exit == Exit::Done);
    }
    exit
}

/// Runs a verb with a runtime, signals and a display.
fn session(settings: Settings, around: &Surroundings, verb: Verb) -> Exit {
    let context = Context { json: settings.voice.json, ..Context::default() };
    let workers = settings.limits.workers.clamp(2, 4);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return report::report(&CliError::Setup(error), &context),
    };
    let exit = runtime.block_on(async {
        let mut session = match Session::start(settings, around) {
            Ok(session) => session,
            Err(error) => return report::report(&error, &context),
        };
        let result = command::run(&mut session, verb).await;
        session.finish(result)
    });
    // A thread that still waits for standard input must not keep the process alive.
    runtime.shutdown_background();
    exit
}
