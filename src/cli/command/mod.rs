//! The verbs, one file each.

mod anchor;
mod archive;
mod backup;
mod brought;
mod cat;
pub(crate) mod completions;
mod copy;
mod default;
mod diff;
mod doctor;
mod find;
mod forget;
mod hold;
mod import;
mod init;
mod key;
mod ls;
pub(crate) mod man;
mod mount;
mod prune;
mod restore;
mod snapshots;
mod stats;
mod tag;
mod undelete;
mod verify;
mod why;
mod writer;

use super::args::Verb;
use super::error::CliError;
use super::exit::Exit;
use super::session::Session;

/// Runs a verb that works with a repository.
pub(crate) async fn run(session: &mut Session, verb: Verb) -> Result<Exit, CliError> {
    if matches!(verb, Verb::Init(_) | Verb::Doctor | Verb::Completions(_) | Verb::Man(_)) {
        session.refuse_anchor()?;
    }
    match verb {
        Verb::Init(args) => init::run(session, args).await,
        Verb::Backup(args) => backup::run(session, args).await,
        Verb::Snapshots(args) => snapshots::run(session, args).await,
        Verb::Ls(args) => ls::run(session, args).await,
        Verb::Diff(args) => diff::run(session, args).await,
        Verb::Find(args) => find::run(session, args).await,
        Verb::Why(args) => why::run(session, args).await,
        Verb::Cat(args) => cat::run(session, args).await,
        Verb::Restore(args) => restore::run(session, args).await,
        Verb::Mount(args) => mount::run(session, args).await,
        Verb::Copy(args) => copy::run(session, args).await,
        Verb::Forget(args) => forget::run(session, args).await,
        Verb::Undelete(args) => undelete::run(session, args).await,
        Verb::Hold(args) => hold::run(session, args).await,
        Verb::Tag(args) => tag::run(session, args).await,
        Verb::Verify(args) => verify::run(session, args).await,
        Verb::Prune(args) => prune::run(session, args).await,
        Verb::Import(args) => import::run(session, args).await,
        Verb::Stats(args) => stats::run(session, args).await,
        Verb::Doctor => doctor::run(session).await,
        Verb::Key(args) => key::run(session, &args).await,
        Verb::Anchor(args) => anchor::run(session, &args).await,
        Verb::Writer(args) => writer::run(session, args).await,
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
    }
}
