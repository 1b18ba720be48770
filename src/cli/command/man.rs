//! `man`: the manual pages, one for the program and one for each verb, also for those of a verb.

use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use super::super::args::{Cli, ManArgs};
use super::super::error::CliError;
use super::super::exit::Exit;

/// Writes the pages into a directory.
pub(crate) fn run(args: &ManArgs) -> Result<Exit, CliError> {
    // `help` needs no page, so that no page may name one.
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    pages(&args.dir, "lifeboat", &program)?;
    Ok(Exit::Done)
}

/// One page for the command, and one for each command in it: those of `hold add` are not on that of `hold`.
fn pages(dir: &Path, name: &str, command: &clap::Command) -> Result<(), CliError> {
    write(dir, &format!("{name}.1"), command.clone().name(name.to_owned()))?;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        pages(dir, &format!("{name}-{}", verb.get_name()), verb)?;
    }
    Ok(())
}

fn write(dir: &Path, file: &str, command: clap::Command) -> Result<(), CliError> {
    let path = dir.join(file);
    let mut page = Vec::new();
    let made = Man::new(command).render(&mut page).and_then(|()| std::fs::write(&path, page));
    made.map_err(|source| CliError::Write { path, source })
}
