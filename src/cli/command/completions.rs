//! `completions`: scripts for shells.

use std::io::{self, Write};

use clap::CommandFactory;

use super::super::args::{Cli, CompletionsArgs};
use super::super::error::CliError;
use super::super::exit::Exit;

/// Prints the script.
pub(crate) fn run(args: &CompletionsArgs) -> Result<Exit, CliError> {
    // Written to memory first, because the generator panics when its output fails.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lifeboat", &mut script);
    let mut out = io::stdout().lock();
    out.write_all(&script).and_then(|()| out.flush()).map_err(CliError::Output)?;
    Ok(Exit::Done)
}
