//! `man`: the manual pages, one for the program and one for each verb.

use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use super::super::args::{Cli, ManArgs};
use super::super::error::CliError;
use super::super::exit::Exit;

/// Writes the pages into a directory.
pub(crate) fn run(args: &ManArgs) -> Result<Exit, CliError> {
    let mut program = Cli::command();
    program.build();
    write(&args.dir, "lifeboat.1", program.clone())?;
    for verb in program.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        let name = format!("lifeboat-{}", verb.get_name());
        write(&args.dir, &format!("{name}.1"), verb.clone().name(name))?;
    }
    Ok(Exit::Done)
}

fn write(dir: &Path, file: &str, command: clap::Command) -> Result<(), CliError> {
    let path = dir.join(file);
    let mut page = Vec::new();
    let made = Man::new(command).render(&mut page).and_then(|()| std::fs::write(&path, page));
    made.map_err(|source| CliError::Write { path, source })
}
