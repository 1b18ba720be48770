//! The verbs, one file each.

mod anchor;
mod archive;
pub(crate) mod backup;
mod base;
mod base_restore;
mod brought;
mod cat;
pub(crate) mod completions;
pub(crate) mod config;
mod copy;
mod default;
mod diff;
mod doctor;
mod find;
pub(crate) mod forget;
mod hold;
mod import;
mod init;
mod key;
mod ls;
pub(crate) mod man;
pub(crate) mod metrics;
mod mount;
mod policy;
mod postgres;
pub(crate) mod prune;
mod recovery;
mod rekey;
mod restore;
pub(crate) mod run;
pub(crate) mod schedule;
pub(crate) mod serve;
mod snapshots;
mod sqlite;
mod stats;
pub(crate) mod status;
mod tag;
mod undelete;
pub(crate) mod verify;
mod why;
mod writer;

use super::args::{
    HoldArgs, HoldVerb, KeyArgs, KeyVerb, PostgresArgs, PostgresVerb, SqliteArgs, SqliteVerb, Verb,
    VerifyArgs, WriterArgs, WriterVerb,
};
use super::error::CliError;
use super::exit::Exit;
use super::session::Session;

/// Runs a verb that works with a repository.
pub(crate) async fn run(session: &mut Session, verb: Verb) -> Result<Exit, CliError> {
    if let (Some(_), Some(verb)) = (session.settings.store.as_of, writing(&verb)) {
        return Err(CliError::PastIsReadOnly { verb });
    }
    if matches!(
        verb,
        Verb::Init(_)
            | Verb::Doctor
            | Verb::Policy(_)
            | Verb::Serve(_)
            | Verb::Config(_)
            | Verb::Schedule(_)
            | Verb::Completions(_)
            | Verb::Man(_)
    ) {
        session.refuse_anchor()?;
    }
    match verb {
        Verb::Init(args) => init::run(session, args).await,
        Verb::Backup(args) => backup::run(session, args).await,
        Verb::Snapshots(args) => snapshots::run(session, args).await,
        Verb::Status(args) => status::run(session, args).await,
        Verb::Metrics(args) => metrics::run(session, &args).await,
        Verb::Ls(args) => ls::run(session, args).await,
        Verb::Diff(args) => diff::run(session, args).await,
        Verb::Find(args) => find::run(session, args).await,
        Verb::Why(args) => why::run(session, args).await,
        Verb::Cat(args) => cat::run(session, args).await,
        Verb::Restore(args) => restore::run(session, args).await,
        Verb::Mount(args) => mount::run(session, args).await,
        Verb::Copy(args) => copy::run(session, args).await,
        Verb::Forget(args) => forget::run(session, args).await,
        Verb::Run(args) => run::run(session, &args).await,
        Verb::Undelete(args) => undelete::run(session, args).await,
        Verb::Hold(args) => hold::run(session, args).await,
        Verb::Tag(args) => tag::run(session, args).await,
        Verb::Verify(args) => verify::run(session, args).await,
        Verb::Prune(args) => prune::run(session, args).await,
        Verb::Import(args) => import::run(session, args).await,
        Verb::Stats(args) => stats::run(session, args).await,
        Verb::Doctor => doctor::run(session).await,
        Verb::Key(args) => key::run(session, args).await,
        Verb::Rekey(args) => rekey::run(session, args).await,
        Verb::Postgres(args) => postgres::run(session, args).await,
        Verb::Sqlite(args) => sqlite::run(session, args).await,
        Verb::Policy(args) => policy::run(session, &args),
        Verb::Anchor(args) => anchor::run(session, &args).await,
        Verb::Writer(args) => writer::run(session, args).await,
        Verb::Schedule(args) => Ok(schedule::run(&args, &session.settings.typed, &session.around)),
        Verb::Config(args) => Ok(config::run(&args, &session.settings.typed, &session.around)),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
        Verb::Serve(args) => serve::serve(&args, &session.around, session.env.cancel.clone()).await,
    }
}

/// The verb's name, if it stores or deletes something in the repository.
fn writing(verb: &Verb) -> Option<&'static str> {
    Some(match verb {
        Verb::Init(_) => "init",
        Verb::Backup(_) => "backup",
        Verb::Forget(_) => "forget",
        Verb::Run(_) => "run",
        Verb::Undelete(_) => "undelete",
        Verb::Hold(HoldArgs { verb: HoldVerb::Add(_) }) => "hold add",
        Verb::Hold(HoldArgs { verb: HoldVerb::Remove { .. } }) => "hold remove",
        Verb::Tag(_) => "tag",
        Verb::Prune(_) => "prune",
        Verb::Import(_) => "import",
        Verb::Doctor => "doctor",
        Verb::Verify(VerifyArgs { budget: Some(_), .. }) => "verify --budget",
        Verb::Rekey(_) => "rekey",
        Verb::Postgres(PostgresArgs { verb: PostgresVerb::Backup(_) }) => "postgres backup",
        Verb::Sqlite(SqliteArgs { verb: SqliteVerb::Backup(_) }) => "sqlite backup",
        Verb::Anchor(_) => "anchor",
        Verb::Writer(WriterArgs { verb: WriterVerb::Revoke(_) }) => "writer revoke",
        Verb::Key(KeyArgs { verb: KeyVerb::Add(_) }) => "key add",
        Verb::Key(KeyArgs { verb: KeyVerb::Passwd(_) }) => "key passwd",
        Verb::Key(KeyArgs { verb: KeyVerb::Remove { .. } }) => "key remove",
        Verb::Key(KeyArgs { verb: KeyVerb::Recovery(_) }) => "key recovery",
        Verb::Postgres(PostgresArgs { verb: PostgresVerb::ArchivePush(_) }) => "postgres archive-push",
        Verb::Postgres(PostgresArgs { verb: PostgresVerb::Allow(_) }) => "postgres allow",
        Verb::Postgres(PostgresArgs {
            verb:
                PostgresVerb::Restore(_)
                | PostgresVerb::ArchiveGet(_)
                | PostgresVerb::Check(_)
                | PostgresVerb::Info(_)
                | PostgresVerb::Verify(_),
        })
        | Verb::Sqlite(SqliteArgs { verb: SqliteVerb::Restore(_) })
        | Verb::Hold(HoldArgs { verb: HoldVerb::List })
        | Verb::Snapshots(_)
        | Verb::Status(_)
        | Verb::Metrics(_)
        | Verb::Ls(_)
        | Verb::Diff(_)
        | Verb::Find(_)
        | Verb::Why(_)
        | Verb::Cat(_)
        | Verb::Restore(_)
        | Verb::Mount(_)
        | Verb::Copy(_)
        | Verb::Verify(VerifyArgs { budget: None, .. })
        | Verb::Stats(_)
        | Verb::Key(KeyArgs { verb: KeyVerb::List | KeyVerb::Words | KeyVerb::VerifyRecovery })
        | Verb::Writer(WriterArgs { verb: WriterVerb::List })
        | Verb::Policy(_)
        | Verb::Serve(_)
        | Verb::Config(_)
        | Verb::Schedule(_)
        | Verb::Completions(_)
        | Verb::Man(_) => return None,
    })
}
