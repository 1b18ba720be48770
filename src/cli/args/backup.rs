//! `backup` as typed.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};

use super::{NewArgs, RuleArgs, SqliteArg};

/// A command for the shell, and what its output is called.
#[derive(Debug, Clone)]
pub(crate) struct NamedCommand {
    pub(crate) name: PathBuf,
    pub(crate) command: OsString,
}

/// What to save, and how.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// Files and directories to save; `-` saves standard input
    #[arg(value_name = "PATH", required_unless_present_any = ["command", "image", "stream", "dump"])]
    pub(crate) paths: Vec<PathBuf>,

    /// Save the content of block devices and disk images, zeroes and holes left out, each as a regular file; takes all that
    /// follow. Without it a device is saved as a device
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "command")]
    pub(crate) image: Vec<PathBuf>,

    /// Save the output of a command; takes all that follows. Nothing is saved if the command fails
    #[arg(long, value_name = "CMD", num_args = 1.., allow_hyphen_values = true, conflicts_with_all = ["paths", "stream", "dump"])]
    pub(crate) command: Vec<OsString>,

    /// Save the output of a command for the shell as the file NAME, such as `db/main.sql=pg_dump main`; may be given several
    /// times, and together with paths. Nothing at all is saved if one of them fails
    #[arg(long, value_name = "NAME=COMMAND", value_parser = OsStringValueParser::new().try_map(named_command))]
    pub(crate) stream: Vec<NamedCommand>,

    /// Save a dump of everything that a database server holds, made by its own tools, whose environment and option files say
    /// which server; together with paths and streams
    #[arg(long, value_name = "SERVER")]
    pub(crate) dump: Option<Server>,

    /// Give this argument to the tools of --dump, such as --dump-option=--host=db1; may be given several times. Needs --job
    #[arg(long, value_name = "ARG", requires = "dump", allow_hyphen_values = true)]
    pub(crate) dump_option: Vec<OsString>,

    /// Store under this path instead of the source's own
    #[arg(long = "as", value_name = "PATH", conflicts_with_all = ["stream", "dump"])]
    pub(crate) stored_as: Option<PathBuf>,

    /// What retention and `latest` go by [default: the sorted source paths]
    #[arg(long, value_name = "NAME", value_parser = word)]
    pub(crate) job: Option<String>,

    #[command(flatten)]
    pub(crate) new: NewArgs,

    #[command(flatten)]
    pub(crate) rules: RuleArgs,

    /// Read holes of sparse files too, where the file system cannot be trusted to tell them from data
    #[arg(long)]
    pub(crate) read_holes: bool,

    /// What to do with databases of SQLite
    #[arg(long, value_name = "HOW", default_value = "warn")]
    pub(crate) sqlite: SqliteArg,

    /// Save even if most of what the last run saw is gone
    #[arg(long)]
    pub(crate) allow_shrink: bool,

    /// Say what would be saved, and store nothing; files are read, and commands run to their end
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
}

/// A kind of database server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Server {
    /// psql, pg_dumpall and pg_dump: roles, and every database
    Postgres,
    /// mariadb and mariadb-dump: users, and every database
    Mariadb,
    /// redis-cli: an RDB file
    Redis,
}

fn named_command(text: OsString) -> Result<NamedCommand, &'static str> {
    let bytes = text.as_bytes();
    let at = bytes.iter().position(|&byte| byte == b'=').ok_or("expected NAME=COMMAND")?;
    let (name, command) = (&bytes[..at], &bytes[at + 1..]);
    if name.is_empty() || command.trim_ascii().is_empty() {
        return Err("expected a name and a command, as in db/main.sql='pg_dump main'");
    }
    let (name, command) = (OsStr::from_bytes(name), OsStr::from_bytes(command));
    Ok(NamedCommand { name: name.into(), command: command.to_owned() })
}

/// A name on one line: not empty, no control characters, at most 1024 bytes.
pub(super) fn word(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.len() > 1024 || text.chars().any(char::is_control) {
        return Err("expected 1 to 1024 bytes without control characters");
    }
    Ok(text.to_owned())
}
