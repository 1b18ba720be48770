//! `cat`: the content of one file.

use lifeboat::ops::cat::cat;
use lifeboat::ops::snapshots::resolve;
use lifeboat::repo::Task;

use super::super::args::CatArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: CatArgs) -> Result<Exit, CliError> {
    let Some(path) = args.location.path.filter(|path| !path.is_empty()) else {
        return Err(CliError::NoPath);
    };
    let repository = session.repository(Task::Restore).await?;
    let snapshot =
        resolve(&repository, &args.location.selector, &args.select.filter(&session.directory)).await?;
    session.clear();
    cat(&repository, &snapshot, &path, session.output.bytes()).await?;
    Ok(Exit::Done)
}
