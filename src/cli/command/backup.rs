//! `backup`: a new snapshot.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat::class::Class;
use lifeboat::ops::backup::{BackupOptions, BackupSource, BackupSummary, Databases, StreamSource, backup};
use lifeboat::ops::dump::{self, DumpKind, DumpOptions};
use lifeboat::repo::Task;

use super::super::args::{BackupArgs, Server, SqliteArg};
use super::super::environment::Surroundings;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::render::{sanitize, summary};
use super::super::session::Session;
use super::super::{filter, paths};
use super::default;

/// How many databases are dumped side by side: each reads a server from one end to the other, which has other work, too.
const DUMPS_AT_ONCE: usize = 2;

/// Saves, and ends drawing.
pub(crate) async fn save(session: &Session, args: BackupArgs) -> Result<BackupSummary, CliError> {
    // What is wrong with the arguments is said before anything is made or asked.
    let dump = args.dump.map(|server| dump_options(server, args.dump_option.clone(), session));
    require_job(&args, &session.around)?;
    let mut options = options(args, &session.around)?;
    if let Some(dump) = dump {
        let others = options.streams.len();
        options.streams.extend(dump::places(dump.kind));
        options.check()?;
        options.streams.truncate(others);
        options.streams.extend(dump::streams(&session.env, dump).await?);
        options.streams_at_once = DUMPS_AT_ONCE;
        options.check()?;
    }
    if !options.dry_run {
        default::ensure(session).await?;
    }
    let repository = session.repository(Task::Backup).await?;
    let done = backup(&repository, options).await?;
    ended(session, &done);
    Ok(done)
}

/// Ends drawing, and names what was to be saved and is not there.
pub(super) fn ended(session: &Session, done: &BackupSummary) {
    session.clear();
    if !session.voice().json {
        // A missing source is in no directory, so no event told of it; JSON has it in the summary.
        for path in &done.missing {
            session.say_always(&format!("error: {}: does not exist", sanitize::path(path)));
        }
    }
}

/// How to exit after it.
pub(crate) fn exit(done: &BackupSummary) -> Exit {
    let partial = done.failed > 0 || !done.missing.is_empty();
    if partial { Exit::Class(Class::Partial) } else { Exit::Done }
}

pub(super) async fn run(session: &mut Session, args: BackupArgs) -> Result<Exit, CliError> {
    let done = save(session, args).await?;
    report(session, &done)
}

/// Says what was done, and how it ended.
pub(super) fn report(session: &mut Session, done: &BackupSummary) -> Result<Exit, CliError> {
    let voice = session.voice();
    if voice.json {
        session.output.json(&summary::backup_json(done))?;
    } else if voice.person && !voice.quiet {
        let restore = restore_command(session, done);
        session.output.text(&summary::backup_text(done, restore.as_deref()))?;
    } else if !voice.quiet {
        session.output.text(&summary::backup_line(done))?;
    }
    Ok(exit(done))
}

/// Variables that say where a server is, if it is not where its tools look first.
fn place_variables(server: Server) -> &'static [&'static str] {
    match server {
        Server::Postgres => &["PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE", "PGCLUSTER"],
        Server::Mariadb => &["MARIADB_HOST", "MYSQL_HOST", "MYSQL_TCP_PORT", "MYSQL_UNIX_PORT"],
        // `redis-cli` is told by arguments only.
        Server::Redis => &[],
    }
}

/// Demands a name for the job of a server that is one of several: the sources do not tell them apart.
fn require_job(args: &BackupArgs, around: &Surroundings) -> Result<(), CliError> {
    let Some(server) = args.dump.filter(|_| args.job.is_none()) else { return Ok(()) };
    let variable = place_variables(server).iter().find(|name| around.get(name).is_some());
    let by = args.dump_option.first().map(|_| "--dump-option").or(variable.copied());
    by.map_or(Ok(()), |by| Err(CliError::UnnamedServer { by: by.to_owned() }))
}

/// What is run for a kind of server.
fn dump_options(server: Server, arguments: Vec<OsString>, session: &Session) -> DumpOptions {
    let kind = match server {
        Server::Postgres => DumpKind::Postgres,
        Server::Mariadb => DumpKind::Mariadb,
        Server::Redis => DumpKind::Redis,
    };
    DumpOptions { kind, arguments, withheld: session.around.secrets() }
}

/// What these arguments ask for. Nothing is asked of a repository or of a source for it.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn options(args: BackupArgs, around: &Surroundings) -> Result<BackupOptions, CliError> {
    let filter = filter::of_backup(&args.rules)?;
    let directory = &around.directory;
    let streams: Vec<_> = args.stream.into_iter().map(|s| StreamSource::shell(&s.name, s.command)).collect();
    let beside = !args.image.is_empty() || !streams.is_empty() || args.dump.is_some();
    let options = BackupOptions {
        images: args.image.iter().map(|path| paths::absolute(path, directory)).collect(),
        source: source((args.paths, beside), args.command, directory)?,
        streams,
        withheld: around.secrets(),
        stored_as: args.stored_as,
        job: args.job,
        host: args.new.host.map_or_else(host, String::into_bytes),
        user: user(),
        tags: args.new.tag,
        filter: Arc::new(filter),
        one_file_system: args.rules.one_file_system,
        exclude_caches: args.rules.exclude_caches,
        exclude_larger_than: args.rules.exclude_larger_than.map(|size| size.0),
        level: args.new.level,
        read_holes: args.read_holes,
        databases: match args.sqlite {
            SqliteArg::Warn => Databases::Warn,
            SqliteArg::Off => Databases::Ignore,
        },
        allow_shrink: args.allow_shrink,
        dry_run: args.dry_run,
        ..BackupOptions::new(BackupSource::Paths(Vec::new()))
    };
    options.check()?;
    Ok(options)
}

fn source(
    (paths, beside): (Vec<PathBuf>, bool),
    mut command: Vec<OsString>,
    directory: &Path,
) -> Result<BackupSource, CliError> {
    if command.first().is_some_and(|first| first == "--") {
        command.remove(0);
    }
    if !command.is_empty() {
        return Ok(BackupSource::Command(command));
    }
    let stdin = |path: &Path| path == Path::new("-");
    match paths.as_slice() {
        all if beside && all.iter().any(|path| stdin(path)) => Err(CliError::StdinNotAlone),
        [only] if stdin(only) && std::io::stdin().is_terminal() => Err(CliError::StdinIsTerminal),
        [only] if stdin(only) => Ok(BackupSource::Stdin),
        all if all.iter().any(|path| stdin(path)) => Err(CliError::StdinNotAlone),
        all => Ok(BackupSource::Paths(all.iter().map(|path| paths::absolute(path, directory)).collect())),
    }
}

/// The name of this machine.
pub(crate) fn host() -> Vec<u8> {
    rustix::system::uname().nodename().to_bytes().to_vec()
}

/// The name of who runs this.
pub(super) fn user() -> Vec<u8> {
    uzers::get_current_username().map(|name| name.as_bytes().to_vec()).unwrap_or_default()
}

/// The command that brings the snapshot back.
fn restore_command(session: &Session, done: &BackupSummary) -> Option<String> {
    use super::super::report::quote;
    use super::super::settings::Place;
    let id = done.snapshot?.short();
    Some(match &session.settings.place {
        Place::Default(_) => format!("lifeboat restore {id} --target DIR"),
        Place::Named(url) => format!("lifeboat -r {} restore {id} --target DIR", quote(&url.to_string())),
    })
}
