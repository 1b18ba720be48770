//! `mount`: snapshots as a file system.

use lifeboat::class::Class;
use lifeboat::ops::snapshots::resolve;
use lifeboat::repo::Task;
use lifeboat::serve::mount::{Access, MountOptions, Show, mount};

use super::super::args::MountArgs;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::paths;
use super::super::render::sanitize;
use super::super::report::quote;
use super::super::session::Session;

pub(super) async fn run(session: &mut Session, args: MountArgs) -> Result<Exit, CliError> {
    let filter = args.select.filter(&session.directory);
    let repository = session.repository(Task::Restore).await?;
    let show = match args.location {
        None => Show::Snapshots(filter),
        Some(location) => {
            let snapshot = resolve(&repository, &location.selector, &filter).await?;
            Show::Directory(Box::new(snapshot), location.path.unwrap_or_default())
        }
    };
    let place = paths::absolute(&args.dir, &session.directory);
    let access = match (args.allow_other, args.no_default_permissions) {
        (false, _) => Access::Own,
        (true, false) => Access::Checked,
        (true, true) => Access::Open,
    };
    session.clear();
    let shown = sanitize::path(&place);
    let umount = if rustix::process::geteuid().is_root() { "umount" } else { "fusermount3 -u" };
    let stop = format!("{umount} {}", quote(&shown));
    let mounted = || session.say(&format!("mounted at {shown}; end it with Ctrl-C, or: {stop}"));
    let options = MountOptions { show, place: place.clone(), access };
    let met = mount(&repository, options, mounted).await?;
    Ok(if met.damaged > 0 {
        Exit::Class(Class::Damage)
    } else if met.failed > 0 {
        Exit::Class(Class::Partial)
    } else {
        Exit::Done
    })
}
